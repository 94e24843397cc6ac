//! What those who run a cluster ask of its nodes.

use bincode::{Decode, Encode};
use serde::Serialize;

use crate::member::Status;
use crate::version::NodeId;

/// Do this. Only from [`Role::Operator`](crate::message::Role::Operator)s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[repr(u8)]
#[non_exhaustive]
pub enum Order {
    /// Compare all slots with the other homes at once, rather than when their time comes.
    SyncNow = 0,
    /// Take no more slots and give away those that are here; the process stays.
    Drain = 1,
    /// Take slots again.
    StopDraining = 2,
    /// Count a dead member out for good, as if it had left: nothing waits for it to come back. A
    /// member that is not dead is refused.
    Remove {
        /// The member.
        node: NodeId,
        /// Though fewer than half of the others are there, so that the rest may be alive.
        accept_loss: bool,
    } = 3,
    /// Take this weight from now on, over restarts; `None` = the one that the node is configured with.
    Weigh(Option<u16>) = 4,
}

/// The answer to an [`Order`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[repr(u8)]
#[non_exhaustive]
pub enum Ordered {
    /// It is done, or begun if it takes time.
    Done = 0,
    /// It was not done, and this is why.
    Refused(String) = 1,
}

/// Asks whether the node's process may be stopped now without harm: it asks every other member.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SafetyRequest {}

/// The answer to a [`SafetyRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Safety {
    /// What speaks against it, in words for people; nothing = it may be stopped. At most
    /// [`Safety::REASONS_MAX`].
    pub reasons: Vec<String>,
}

impl Safety {
    /// The most reasons that are given; what is beyond is counted in the last one.
    pub const REASONS_MAX: usize = 64;
}

/// Asks what happened on a node since.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EventsRequest {
    /// Only events after the one with this number; 0 = all that the node remembers.
    pub after: u64,
}

/// The answer to an [`EventsRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Events {
    /// The node that answers.
    pub node: NodeId,
    /// When it started: numbers of events begin anew with each start of a node.
    pub incarnation: u64,
    /// The events, in order of their numbers, at most [`Events::PAGE_MAX`].
    pub events: Vec<Event>,
    /// How many after the asked one are forgotten already.
    pub forgotten: u64,
}

impl Events {
    /// The most events in one answer.
    pub const PAGE_MAX: usize = 256;
}

/// Something that happened, as one node saw it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Event {
    /// Counts from 1 with each start of the node.
    pub number: u64,
    /// When, by the node's wall clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: Happened,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[repr(u8)]
#[non_exhaustive]
pub enum Happened {
    /// A member takes part: it joined, came back, or another status of it became known.
    Member {
        /// The member.
        node: NodeId,
        /// Its name.
        name: String,
        /// Its incarnation.
        incarnation: u64,
        /// What it does now.
        status: Status,
    } = 0,
    /// The members changed, and so the rings.
    View {
        /// The digest of the view.
        digest: u64,
        /// How many members take part.
        active: u32,
    } = 1,
    /// Slots came to this node: it is a home of them and fetches what belongs there.
    SlotsTakenUp {
        /// The table.
        table: String,
        /// How many.
        slots: u32,
    } = 2,
    /// This node holds all that belongs to its slots.
    Synced {
        /// The table.
        table: String,
        /// How many slots it is a home of.
        slots: u32,
    } = 3,
    /// Slots went elsewhere: this node begins to give away what it has of them.
    SlotsLeaving {
        /// The table.
        table: String,
        /// How many.
        slots: u32,
    } = 4,
    /// Slots were dropped here: enough homes have everything.
    SlotsGivenUp {
        /// The table.
        table: String,
        /// How many.
        slots: u32,
    } = 5,
    /// Somebody who runs the cluster ordered something.
    Ordered {
        /// What, in words.
        order: String,
    } = 6,
    /// By ballots of this node successors of slots' epochs were decided, so that others decide about them now.
    EpochsDecided {
        /// The table.
        table: String,
        /// How many.
        slots: u32,
    } = 7,
}
