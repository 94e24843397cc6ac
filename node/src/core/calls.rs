//! Questions to other nodes that are not answered yet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use annulus_proto::{Key, NodeId};

/// The calls under way, each with its deadline and what its answer is for.
#[derive(Debug, Default)]
pub(super) struct Calls {
    next: u64,
    open: BTreeMap<u64, Call>,
    deadlines: BTreeSet<(Duration, u64)>,
}

/// One call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The node asked; `None` when only its address is known.
    pub node: Option<NodeId>,
    /// Where it was asked.
    pub addr: SocketAddr,
    /// When to give up.
    pub deadline: Duration,
    /// What the answer is for.
    pub purpose: Purpose,
}

/// What an answer is for.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// A request about a session, by its number.
    Pending(u64),
    /// An explanation, by its number.
    Explain(u64),
    /// A copy brought up to date after a read or a failed write.
    Repair {
        /// The table, by its place.
        table: usize,
        /// The key.
        key: Key,
        /// Whether it is a hint, to be kept until it is delivered.
        hint: bool,
    },
    /// A step of a synchronisation with a node.
    Sync {
        /// The table, by its place.
        table: usize,
        /// The session it belongs to: an answer to an earlier one is of no use.
        session: u64,
        /// What was asked.
        step: SyncStep,
    },
    /// An exchange of views.
    Exchange,
    /// A sign of life.
    Ping,
}

/// A step of a synchronisation.
#[derive(Clone, Debug)]
pub(super) enum SyncStep {
    /// The comparison of digests.
    Digests,
    /// A page of a slot's list.
    List {
        /// The slot's index.
        slot: u16,
        /// The last key of the page before.
        after: Option<Key>,
    },
    /// An entry of the other's.
    Fetch(Key),
    /// An entry of ours.
    Push(Key),
}

impl Calls {
    /// Opens a call and returns its number, never 0.
    pub(super) fn open(&mut self, call: Call) -> u64 {
        self.next += 1;
        self.deadlines.insert((call.deadline, self.next));
        self.open.insert(self.next, call);
        self.next
    }

    /// Closes a call; `None` if it is closed already.
    pub(super) fn close(&mut self, number: u64) -> Option<Call> {
        let call = self.open.remove(&number)?;
        self.deadlines.remove(&(call.deadline, number));
        Some(call)
    }

    /// The node that an open call is meant for, if it is known.
    pub(super) fn node(&self, number: u64) -> Option<NodeId> {
        self.open.get(&number)?.node
    }

    /// The next call whose deadline has passed.
    pub(super) fn next_overdue(&self, now: Duration) -> Option<u64> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, number)| *number)
    }

    /// The earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// How many calls are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}
