//! Questions to other nodes that are not answered yet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use annulus_proto::message::{BeatPlace, OwnedPlace};
use annulus_proto::{Key, NodeId, Slot};
use annulus_sketch::Sketch;
use annulus_slots::Attempt;

use super::bundles::SentCopy;
use super::handover::Whose;
use super::replacing::ToEnd;

/// The calls under way, each with its deadline and what its answer is for.
///
/// Their numbers tell to which part of the node the answers go ([`route::party_of_call`]).
///
/// [`route::party_of_call`]: super::route::party_of_call
#[derive(Debug)]
pub(super) struct Calls<C> {
    next: u64,
    parties: u64,
    open: BTreeMap<u64, C>,
    deadlines: BTreeSet<(Duration, u64)>,
}

/// What is known of a call until it is answered.
pub(super) trait Deadline {
    /// When to give up.
    fn deadline(&self) -> Duration;
}

/// A call of a core.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The node asked.
    pub node: NodeId,
    /// When it was asked.
    pub asked: Duration,
    /// When to give up.
    pub deadline: Duration,
    /// What the answer is for.
    pub purpose: Purpose,
}

impl Deadline for Call {
    fn deadline(&self) -> Duration {
        self.deadline
    }
}

/// A call of the hub.
#[derive(Clone, Debug)]
pub(super) struct HubCall {
    /// Where it was asked.
    pub addr: SocketAddr,
    /// When it was asked.
    pub asked: Duration,
    /// When to give up.
    pub deadline: Duration,
    /// What the answer is for.
    pub purpose: HubPurpose,
}

/// What an answer to the hub is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HubPurpose {
    /// An exchange of views with whoever listens there.
    Exchange,
    /// How a member is, for those who ask whether this node may be stopped.
    Safety(NodeId),
    /// How busy a member's host is.
    Load {
        /// The ranking that it is for.
        ranking: u64,
        /// The member.
        node: NodeId,
    },
    /// A page of a member's keys.
    Walk {
        /// The page that it is for.
        ticket: u64,
        /// The member.
        node: NodeId,
    },
    /// A sign of life of this node.
    Ping(NodeId),
}

impl Deadline for HubCall {
    fn deadline(&self) -> Duration {
        self.deadline
    }
}

/// What an answer is for.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// A request about a session, by its number.
    Pending(u64),
    /// An explanation, by its number.
    Explain(u64),
    /// Copies of single sessions, sent to one of those who are to hold them.
    Copies {
        /// The table, by its place.
        table: usize,
        /// They, in the order sent.
        sent: Vec<SentCopy>,
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
    /// A slot offered to a home.
    Offer {
        /// Whose slot.
        whose: Whose,
        /// The slot, by its place there.
        slot: u16,
        /// The attempt to give it away.
        attempt: Attempt,
    },
    /// What another node holds of an entry.
    Check {
        /// The table, by its place.
        table: usize,
        /// The key.
        key: Key,
    },
    /// A copy that is to go, sent to one of those who are to hold it.
    LetGo {
        /// The table, by its place.
        table: usize,
        /// The key.
        key: Key,
    },
    /// How hot another home saw sessions that are to go outward.
    Heat {
        /// The table, by its place.
        table: usize,
        /// The keys, in the order asked.
        keys: Vec<Key>,
    },
    /// Which sessions a ring further out holds of those on an innermost one.
    Overlap {
        /// The table of the innermost one, by its place.
        table: usize,
    },
    /// How much a session is used by this node's clients, told to one of its homes.
    Burning {
        /// The table, by its place.
        table: usize,
        /// The key.
        key: Key,
    },
    /// What sessions are gone.
    Gone {
        /// The table, by its place.
        table: usize,
        /// The number of what comes after that.
        next: u64,
    },
    /// What changed at a home.
    Beat {
        /// The table, by its place.
        table: usize,
        /// Which of the home's cores was asked.
        core: u16,
        /// Where its last answer ended.
        after: Option<BeatPlace>,
        /// The slots.
        slots: Vec<Slot>,
    },
    /// The end of a session that another one was begun in place of.
    EndReplaced(ToEnd),
    /// A page of an owner's sessions.
    CountOwned {
        /// The count that it is for.
        number: u64,
        /// Where the page begins.
        place: OwnedPlace,
    },
    /// That this node takes part in a slot set.
    SetHello {
        /// The set, by its place.
        set: usize,
        /// What is told: in which run of the other, and this node's revision.
        told: (u64, u64),
    },
    /// What a member holds of slots of a slot set.
    Held {
        /// The set, by its place.
        set: usize,
        /// The slots, by their numbers.
        slots: Vec<u16>,
    },
    /// Which slots a node holds, for those who count copies.
    CountCopies {
        /// The table, by its place.
        table: usize,
        /// The slots.
        slots: Vec<u16>,
    },
    /// What was told of the epochs of so many slots.
    Epochs {
        /// The table, by its place.
        table: usize,
        /// How many.
        slots: usize,
        /// Those of them of which it was an epoch to follow.
        learns: Vec<u16>,
    },
    /// A sign of life, of a node that hints wait for.
    Ping,
}

/// A step of a synchronisation.
#[derive(Clone, Debug)]
pub(super) enum SyncStep {
    /// What the other is to the epochs of these slots: before all else, or once more after it.
    Testify {
        /// Whether it is asked after all else.
        again: bool,
    },
    /// The first symbols.
    Compare,
    /// Sketches of the parts of these.
    Sketches(Vec<Split>),
    /// A page of a slot's list.
    List {
        /// The slot.
        slot: Slot,
        /// The last key of the page before.
        after: Option<Key>,
    },
    /// A batch of entries both ways, by the words of their keys.
    Even {
        /// Ours.
        pushed: Vec<u64>,
        /// The other's.
        wanted: Vec<u64>,
    },
}

/// A part of what is compared that has to be split. Parts are places in a session's list of slots.
#[derive(Clone, Debug)]
pub(super) struct Split {
    /// The smaller parts, neighbours in ascending order, but for the last one where that follows from the others.
    pub parts: Vec<Range<usize>>,
    /// The last one then, with the sketch of what the whole differs in.
    pub rest: Option<(Range<usize>, Sketch)>,
}

impl<C: Deadline> Calls<C> {
    /// No calls, of one of so many parties; party 0 is the first.
    pub(super) fn new(party: usize, parties: usize) -> Self {
        let (next, parties) = (party as u64, parties as u64);
        Self { next, parties, open: BTreeMap::new(), deadlines: BTreeSet::new() }
    }

    /// Opens a call and returns its number, never 0.
    pub(super) fn open(&mut self, call: C) -> u64 {
        self.next += self.parties;
        self.deadlines.insert((call.deadline(), self.next));
        self.open.insert(self.next, call);
        self.next
    }

    /// Closes a call; `None` if it is closed already.
    pub(super) fn close(&mut self, number: u64) -> Option<C> {
        let call = self.open.remove(&number)?;
        self.deadlines.remove(&(call.deadline(), number));
        Some(call)
    }

    /// An open call.
    pub(super) fn get(&self, number: u64) -> Option<&C> {
        self.open.get(&number)
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
