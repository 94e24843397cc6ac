//! Everything that nodes and clients say to each other.
//!
//! Each message has a kind (a number that never changes its meaning) and a size limit; the table at
//! the end of this file lists them all. A conversation over a stream starts with [`Hello`], which
//! the node answers with [`Welcome`] or [`Rejected`]; after that requests and replies are matched by
//! the id in their frames, and may overtake each other.
//!
//! Of an enum the number of the variant goes over the wire. bincode's derive takes the position and
//! not the discriminant, so variants stand in the order of their numbers, without gaps (tested), and
//! new ones at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use bincode::{Decode, Encode};
use serde::Serialize;
use twox_hash::XxHash3_64;
use zeroize::Zeroize;

pub use crate::beat::{Beat, BeatPlace, BeatRequest};
pub use crate::channels::Published;
use crate::entry::{Attributes, Entry, FieldDeadlines, Replaced, Value};
pub use crate::epochs::{
    EpochAnswer, EpochBallot, EpochConfig, EpochName, EpochSource, EpochStanding, EpochStep,
    EpochSuccessor, Epochs, EpochsAnswer,
};
pub use crate::gone::{Gone, GoneNoted, GoneSession, HowGone};
pub use crate::hottest::{HotSession, Hottest, HottestRequest};
use crate::key::{Key, Slot};
use crate::member::Member;
pub use crate::operate::{
    Event, Events, EventsRequest, Happened, Order, Ordered, Safety, SafetyRequest,
};
pub use crate::owned::{Owned, OwnedPlace, OwnedRequest, OwnedSession};
pub use crate::placement::{
    Affinity, HostLoad, LoadRequest, Pinned, PinnedRequest, PlanRequest, RankRequest, Ranked,
};
use crate::proximity::Rtt;
use crate::slot_set::SlotSet;
pub use crate::suspects::{Burned, Burning, Judge, Sentence, Suspect, Suspects, SuspectsRequest};
use crate::version::{NodeId, Version};
pub use crate::walk::{WalkRequest, Walked, WalkedKey};

/// The first frame on every stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// The cluster the caller means to reach.
    pub cluster: String,
    /// Who calls.
    pub caller: Caller,
    /// The caller's software and its version, for people.
    pub software: String,
}

/// Who opens a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[repr(u8)]
pub enum Caller {
    /// An application, a command or a benchmark, and what it may do.
    Client {
        /// Drawn at random by each client; part of its requests' ids.
        client: u64,
        /// What it may do.
        role: Role,
    } = 0,
    /// Another node.
    Node {
        /// Its id.
        id: NodeId,
        /// Its incarnation.
        incarnation: u64,
    } = 1,
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Role {
    /// Everything: the one role of a cluster without keys, which listens on loopback only.
    Development = 0,
    /// Starts and ends sessions.
    Authority = 1,
    /// Reads, updates and touches sessions.
    Worker = 2,
    /// Sees and judges suspects.
    Monitor = 3,
    /// Runs the cluster.
    Operator = 4,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Development, Self::Authority, Self::Worker, Self::Monitor, Self::Operator];

    /// Its name, as configurations and messages for people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Authority => "authority",
            Self::Worker => "worker",
            Self::Monitor => "monitor",
            Self::Operator => "operator",
        }
    }

    /// The role of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether this role may do all that `other` may: [`Role::Development`] includes every role, and
    /// each includes itself.
    pub fn includes(self, other: Self) -> bool {
        self == Self::Development || self == other
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The answer to a [`Hello`] that is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// The node's id.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: u64,
    /// Its name, for people.
    pub name: String,
    /// Tells hosts apart: processes on a host with another id do not look for the segments.
    pub host: String,
    /// The shared-memory segments of this host, one per table.
    pub segments: Vec<Segment>,
    /// The node's Unix socket; empty if it has none.
    pub local_socket: String,
    /// The node's software and its version, for people.
    pub software: String,
}

/// Where one table lies in shared memory.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Segment {
    /// The table's name.
    pub table: String,
    /// The file to map, on the node's host.
    pub path: String,
    /// The number that the segment's header must carry for it to be this one.
    pub instance: u64,
}

/// Why a stream or a datagram is not served at all. The sender closes the stream after it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[repr(u8)]
#[non_exhaustive]
pub enum Rejected {
    /// The caller belongs to another cluster.
    #[error("this node belongs to another cluster than {asked:?}; check `cluster` on both sides")]
    WrongCluster {
        /// The name that was asked for.
        asked: String,
    } = 0,
    /// The caller speaks another version of this protocol.
    #[error("this node speaks protocol version {ours}, not {theirs}; upgrade the older side")]
    WrongVersion {
        /// The node's version.
        ours: u8,
        /// The caller's version.
        theirs: u8,
    } = 1,
    /// The node has as many connections as it is configured for.
    #[error("this node has {limit} connections already; raise `connections_max` or close some")]
    TooManyConnections {
        /// `connections_max`.
        limit: u32,
    } = 2,
    /// A frame could not be understood.
    #[error("malformed frame: {why}")]
    Malformed {
        /// What was wrong with it.
        why: String,
    } = 3,
    /// The caller claims the id of a node that is somebody else.
    #[error("node id {id} is in use at {addr}; remove one node's data directory to draw a new id")]
    NodeIdInUse {
        /// The id.
        id: NodeId,
        /// Where its holder is.
        addr: SocketAddr,
    } = 4,
    /// The request is larger than a datagram may be answered with.
    #[error("the answer does not fit a datagram; ask over TCP")]
    AskOverStream = 5,
    /// There is no lane for the caller; requests go over the stream all the same.
    #[error("no lane: {why}")]
    NoLane {
        /// What is in the way.
        why: String,
    } = 6,
    /// The user at the other end of a local socket may not have the role that was asked for. Another
    /// node counts as one that asks for [`Role::Development`].
    #[error(
        "the role {asked} is not granted to this user, who has the role {granted} here; ask for that \
         one, or change `local_roles` on the node"
    )]
    RoleNotGranted {
        /// The role that was asked for.
        asked: Role,
        /// The one that the node grants to this user.
        granted: Role,
    } = 7,
    /// The key that the caller has does not let it be what it says it is.
    #[error("this key is for {key}, and the caller says it is {asked}: use a key for that")]
    NotWithThisKey {
        /// What the caller says it is: `node`, or a role.
        asked: String,
        /// What its key is for, in the same words.
        key: String,
    } = 8,
}

/// Tells a repeated request from a new one: a client's number and the count of its requests. A count
/// of 0 says that the request is never repeated, so that nothing has to be remembered of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct RequestId {
    /// The client's number.
    pub client: u64,
    /// The count of its requests; 0 = never repeated.
    pub sequence: u64,
}

impl RequestId {
    /// That of a request that never comes again.
    pub const NONE: Self = Self { client: 0, sequence: 0 };

    /// Whether the request may come again.
    pub fn may_repeat(self) -> bool {
        self.sequence != 0
    }
}

/// A request about one session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SessionRequest {
    /// The table.
    pub table: String,
    /// The session's key.
    pub key: Key,
    /// The same for each repetition of the request, at whichever node.
    pub request: RequestId,
    /// How often nodes have passed the request on.
    pub hops: u8,
    /// How long the caller waits for the answer, in milliseconds.
    pub patience_ms: u32,
    /// What to do.
    pub operation: Operation,
}

/// What to do with a session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[repr(u8)]
#[non_exhaustive]
pub enum Operation {
    /// Begin a session; whatever was under the key before is replaced.
    Start {
        /// Its first value.
        value: Value,
        /// Its lifetimes; what is `None` is as the table says.
        lifetimes: Lifetimes,
        /// What is fixed for its life.
        attributes: Attributes,
    } = 0,
    /// Read it.
    Get = 1,
    /// Change it; never creates.
    Update {
        /// The birth of the session that is meant; `None` = whichever lives under the key.
        birth: Option<Version>,
        /// The change.
        change: Change,
    } = 2,
    /// Note a use of it; never creates.
    Touch {
        /// The birth of the session that is meant; `None` = whichever lives under the key.
        birth: Option<Version>,
    } = 3,
    /// End it for good.
    End {
        /// The birth of the session that is meant; `None` = whichever lives under the key.
        birth: Option<Version>,
    } = 4,
    /// Change it if its last write is the one with this version; never creates. Decided by a majority
    /// of its homes, as the other two conditional ones: all or nothing, and never on a guess.
    UpdateIf {
        /// The version that the caller has seen.
        version: Version,
        /// The change.
        change: Change,
    } = 5,
    /// Begin a session if none lives under the key.
    StartIfAbsent {
        /// Its first value.
        value: Value,
        /// Its lifetimes; what is `None` is as the table says.
        lifetimes: Lifetimes,
        /// What is fixed for its life.
        attributes: Attributes,
    } = 6,
    /// End it for good if its last write is the one with this version.
    EndIf {
        /// The version that the caller has seen.
        version: Version,
    } = 7,
    /// Begin a session in place of another one, which has another key. Whatever was under the key before is replaced. The
    /// caller ends the other one; should it not, the nodes do, some ten seconds later.
    StartInstead {
        /// The other one.
        replaced: Replaced,
        /// Its first value.
        value: Value,
        /// How long it lives unused, in milliseconds; 0 = for ever.
        idle: u64,
        /// When it ends however much it is used, in hybrid milliseconds; 0 = never. The table's `lifetime_max` caps
        /// it.
        expire_at: u64,
        /// What is fixed for its life.
        attributes: Attributes,
    } = 8,
    /// Give whichever session lives under the key a new value, or begin one if none does. Where one was ended none begins
    /// unless it is said: somebody may save what he had before the end.
    Put {
        /// The value.
        value: Value,
        /// Its lifetimes; what is `None` is as the table says, or stays.
        lifetimes: Lifetimes,
        /// Whether a session that lives keeps its own.
        keeps_lifetimes: bool,
        /// Whether one begins also where another one was ended.
        after_end: bool,
    } = 9,
    /// Change fields of a map if fields are as the caller has seen them, whatever else was written since; never creates. Decided
    /// as the other conditional ones. A version does not say that: the fields of two plain updates may have come
    /// together under the later one's ([`Operation::UpdateIf`]).
    UpdateFieldsIf {
        /// The birth of the session that is meant.
        birth: Version,
        /// Fields that have to be there, with the [hashes](field_hash) of what they are, or not to be there.
        expected: BTreeMap<Vec<u8>, Option<u64>>,
        /// Whether there may be no others.
        is_all: bool,
        /// Fields to set.
        set: BTreeMap<Vec<u8>, Vec<u8>>,
        /// Fields to delete.
        delete: Vec<Vec<u8>>,
        /// When fields expire on their own from now on, of those that are set by this or are there, in hybrid milliseconds, at
        /// most 2^48 − 1; 0 = with their session, as those do that are set and not named here.
        deadlines: FieldDeadlines,
        /// New deadlines of the session; `None` = they stay.
        lifetimes: Option<Lifetimes>,
        /// Whether the session ends if no field is left.
        ends_empty: bool,
    } = 10,
}

/// What stands for a field that somebody has seen: XXH3-64 of its value, seeded with its deadline in hybrid milliseconds, 0 =
/// it has none of its own.
pub fn field_hash(value: &[u8], deadline: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(deadline, value)
}

impl Operation {
    /// The birth of the session that is meant; `None` = whichever lives under the key.
    pub fn birth(&self) -> Option<Version> {
        match self {
            Self::Update { birth, .. } | Self::Touch { birth } | Self::End { birth } => *birth,
            _ => None,
        }
    }

    /// Whether it is done only if what is stored is as its caller says.
    pub fn is_conditional(&self) -> bool {
        matches!(
            self,
            Self::UpdateIf { .. }
                | Self::UpdateFieldsIf { .. }
                | Self::StartIfAbsent { .. }
                | Self::EndIf { .. }
        )
    }

    /// Whether it says where a session is to be, and changes nothing else.
    pub fn is_placement(&self) -> bool {
        matches!(
            self,
            Self::Update { change: Change::Pin(_), .. }
                | Self::UpdateIf { change: Change::Pin(_), .. }
        )
    }

    /// Whether a node does it by itself that holds the session besides its homes. All else it leaves to them.
    pub fn suits_extra_home(&self) -> bool {
        matches!(self, Self::Get | Self::Touch { .. } | Self::Update { .. }) && !self.is_placement()
    }

    /// Whether it begins a session, whatever was under the key before.
    pub fn replaces_all(&self) -> bool {
        matches!(self, Self::Start { .. } | Self::StartInstead { .. })
    }

    /// Whether it begins a session.
    pub fn is_start(&self) -> bool {
        self.replaces_all() || matches!(self, Self::StartIfAbsent { .. })
    }

    /// Whether it may begin a session.
    pub fn may_begin(&self) -> bool {
        self.is_start() || matches!(self, Self::Put { .. })
    }

    /// Whether it may end a session.
    pub fn may_end(&self) -> bool {
        self.is_end() || matches!(self, Self::UpdateFieldsIf { ends_empty: true, .. })
    }

    /// Whether it ends a session.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::End { .. } | Self::EndIf { .. })
    }
}

/// How long a session lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Lifetimes {
    /// Unused, in milliseconds (0 = for ever); `None` = as the table says.
    pub idle_ms: Option<u64>,
    /// However much it is used, in milliseconds from now (0 = for ever); `None` = as the table says.
    /// The table's `lifetime_max` caps it.
    pub lifetime_ms: Option<u64>,
}

/// A change of a session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[repr(u8)]
#[non_exhaustive]
pub enum Change {
    /// A new value as a whole.
    Value(Value) = 0,
    /// Some fields of a map.
    Fields {
        /// Fields to set.
        set: BTreeMap<Vec<u8>, Vec<u8>>,
        /// Fields to delete.
        delete: Vec<Vec<u8>>,
    } = 1,
    /// New deadlines.
    Lifetimes(Lifetimes) = 2,
    /// The node that is to hold a copy beside the homes, and to be asked first; `None` = none any more.
    Pin(Option<NodeId>) = 3,
    /// A new value as a whole, and new deadlines, in one write.
    Whole(Value, Lifetimes) = 4,
}

/// The answer to a [`SessionRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[repr(u8)]
#[non_exhaustive]
pub enum SessionReply {
    /// The session, to a read.
    Session(Session) = 0,
    /// The write is held by as many homes as the table asks for.
    Acknowledged(Acknowledged) = 1,
    /// It could not be done, or it is not known whether it was.
    Failed(Failure) = 2,
}

/// A session as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Session {
    /// The version that created it.
    pub birth: Version,
    /// Its last write.
    pub version: Version,
    /// When it expires, in hybrid milliseconds; 0 = never.
    pub deadline: u64,
    /// When it was last used, in hybrid milliseconds.
    pub touched: u64,
    /// How long it lives unused, in milliseconds; 0 = for ever.
    pub idle: u64,
    /// When it ends however much it is used, in hybrid milliseconds; 0 = never.
    pub expire_at: u64,
    /// What is fixed for its life.
    pub attributes: Attributes,
    /// The node that it is pinned to, which is the one to ask next.
    pub pin: Option<NodeId>,
    /// Its value.
    pub value: Value,
    /// When fields of it expire on their own, in hybrid milliseconds, of those that do; some may have, and are in the value no more.
    pub field_deadlines: FieldDeadlines,
}

/// A write that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Acknowledged {
    /// The session's birth.
    pub birth: Version,
    /// The write's version.
    pub version: Version,
    /// How many homes hold it for certain.
    pub held_by: u8,
    /// How many homes the slot has.
    pub homes: u8,
}

/// Why a request about a session failed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[repr(u8)]
#[non_exhaustive]
pub enum Failure {
    /// No home has ever seen it, or all have forgotten it.
    #[error("no such session")]
    Absent = 0,
    /// It was ended, or replaced by another session under its key.
    #[error("the session was ended")]
    Ended = 1,
    /// It was not used for too long, or reached its lifetime.
    #[error("the session expired")]
    Expired = 2,
    /// Too few homes answered; nothing is known to have changed for good.
    #[error("unavailable: {answered} of {homes} homes answered, {needed} are needed")]
    Unavailable {
        /// How many homes answered.
        answered: u8,
        /// How many would have to.
        needed: u8,
        /// How many homes the slot has.
        homes: u8,
    } = 3,
    /// The value is above the table's `max_value`.
    #[error("too large: the value has {size} bytes, the table's max_value is {limit}")]
    TooLarge {
        /// The value's size, in bytes.
        size: u64,
        /// The table's `max_value`, in bytes.
        limit: u64,
    } = 4,
    /// The table has no room on a home.
    #[error("the table is full on {node}; raise its `memory` or shorten its lifetimes")]
    TableFull {
        /// The home.
        node: NodeId,
    } = 5,
    /// The request itself is at fault.
    #[error("refused: {0}")]
    Refused(String) = 6,
    /// The time the caller gave ran out; the write may or may not have happened, or may happen yet.
    #[error("timed out; whether it was done is not known")]
    TimedOut = 7,
    /// The condition of a conditional operation does not hold: nothing was done.
    #[error("not done: the session's last write is {version}")]
    Conflict {
        /// The last write of the session that lives under the key.
        version: Version,
    } = 8,
    /// It, or its table, is used too much: nothing was done.
    #[error("slow down: ask again in {retry_after_ms} ms")]
    SlowDown {
        /// When to ask again, in milliseconds from now.
        retry_after_ms: u64,
    } = 9,
}

/// Where a session lives, and what each home holds of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ExplainRequest {
    /// The table.
    pub table: String,
    /// The session's key.
    pub key: Key,
    /// Whether to ask the homes, or only to name them.
    pub ask_homes: bool,
}

/// The answer to an [`ExplainRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Explanation {
    /// The key's slot.
    pub slot: Slot,
    /// The digest of the view it was computed from.
    pub view: u64,
    /// The node that answered.
    pub node: NodeId,
    /// Whether a request through that node is answered from its own memory, or by the homes.
    pub served_from: Served,
    /// The homes, primary first.
    pub homes: Vec<Copy>,
    /// The nodes that are to hold it besides: because it is to have more copies than its table's, or is
    /// pinned.
    pub extra: Vec<Copy>,
    /// The node that it is pinned to, whether that is there or not.
    pub pin: Option<NodeId>,
}

/// Where a node would read a session from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Served {
    /// Its own memory: it is a home that is in sync, and its readers may trust shared memory.
    Memory = 0,
    /// A majority of homes, itself among them: it is a home that is not in sync yet.
    HomesWhileSyncing = 1,
    /// The homes: it is none.
    Homes = 2,
}

/// What one home said of a session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Copy {
    /// The home.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its address.
    pub addr: SocketAddr,
    /// What it answered.
    pub state: CopyState,
}

/// The state of one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum CopyState {
    /// It was not asked.
    NotAsked = 0,
    /// It did not answer in time.
    Silent = 1,
    /// It holds nothing under the key.
    Absent {
        /// Whether it can know.
        synced: bool,
    } = 2,
    /// It holds the session, dead or alive.
    Held {
        /// The version that created it.
        birth: Version,
        /// Its last write.
        version: Version,
        /// Whether it is a tombstone.
        ended: bool,
        /// Whether it has expired.
        expired: bool,
        /// When it was last used, in hybrid milliseconds.
        touched: u64,
        /// When it expires, in hybrid milliseconds; 0 = never.
        deadline: u64,
        /// The size of its value, in bytes.
        size: u64,
    } = 3,
    /// It holds nothing but a note of where the session went.
    Moved {
        /// The ring.
        ring: u8,
    } = 4,
}

/// One page of what a node holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListRequest {
    /// The table.
    pub table: String,
    /// Where to go on; 0 = at the beginning.
    pub cursor: u64,
    /// The most entries to return.
    pub limit: u16,
}

/// The answer to a [`ListRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct List {
    /// Live sessions.
    pub entries: Vec<Listed>,
    /// The cursor of the next page; 0 = this was the last.
    pub next: u64,
}

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Listed {
    /// The session's key.
    pub key: Key,
    /// The version that created it.
    pub birth: Version,
    /// Its last write.
    pub version: Version,
    /// When it was last used, in hybrid milliseconds.
    pub touched: u64,
    /// When it expires, in hybrid milliseconds; 0 = never.
    pub deadline: u64,
    /// The size of its value, in bytes.
    pub size: u64,
}

/// Asks for the homes of all slots.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RoutesRequest {}

/// The homes of all slots, for clients that know one node's view.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Routes {
    /// The digest of the view it was computed from.
    pub view: u64,
    /// The nodes that are homes.
    pub nodes: Vec<RouteNode>,
    /// How many homes each slot has here.
    pub homes_per_slot: u8,
    /// Indexes into `nodes`: for slot 0 its homes, primary first, then for slot 1, …
    pub homes: Vec<u16>,
}

/// A node in [`Routes`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct RouteNode {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its address.
    pub addr: SocketAddr,
}

/// Asks how a node is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StatusRequest {}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct NodeStatus {
    /// The cluster's name.
    pub cluster: String,
    /// The node itself.
    pub member: Member,
    /// Its software and version.
    pub software: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// The digest of its view.
    pub view: u64,
    /// How many active members it knows, itself included.
    pub active_members: u32,
    /// How many of those were last heard of with the same digest.
    pub agreeing_members: u32,
    /// Its tables.
    pub tables: Vec<TableStatus>,
    /// Its counters, by name, in the order of their names.
    pub counters: Vec<(String, u64)>,
    /// What clients of Redis asked it for that is no command there, by name, in the order of the names, and how often.
    pub unknown_commands: Vec<(String, u64)>,
}

/// How one table on one node is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct TableStatus {
    /// Its name.
    pub name: String,
    /// Entries held, tombstones and expired ones that were not dropped yet included.
    pub entries: u64,
    /// How many entries its memory is for, if all are as large as those that are here.
    pub capacity: u64,
    /// Bytes of keys and values held.
    pub bytes: u64,
    /// The size of its segment, in bytes; 0 = no memory was reserved for entries yet, since nobody would have used it.
    pub segment_bytes: u64,
    /// How much of it lies in huge pages, in bytes, as far as the node knows.
    pub huge_bytes: u64,
    /// Entries that stand in the reserve, which new sessions may not take.
    pub reserve_used: u64,
    /// Slots this node is a home of.
    pub slots_home: u32,
    /// Slots it is a home of and has not synced yet.
    pub slots_unsynced: u32,
    /// Slots it is no home of any more, and still holds, decides about, or has to tell others of.
    pub slots_leaving: u32,
    /// Those among them that all their homes have, and that are kept because there are fewer of these
    /// than the table asks for.
    pub slots_short: u32,
    /// Slots that it is to decide about and cannot: it does not know of a majority that would do so with it.
    pub slots_undecided: u32,
    /// Writes kept for homes that could not be reached.
    pub hints: u64,
    /// How many homes a slot has.
    pub replicas: u8,
    /// How many of them hold a write before it is acknowledged.
    pub write_homes: u8,
    /// How many more members would have to serve it, if it is a ring further out, before sessions go there.
    pub members_lacking: u8,
}

/// Asks for all members a node knows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MembersRequest {}

/// All members a node knows, the dead included.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Members {
    /// The node that answers.
    pub node: NodeId,
    /// The digest of its view.
    pub view: u64,
    /// In ascending order of ids.
    pub members: Vec<Member>,
}

/// Asks how a node finds the other members.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PeersRequest {}

/// How one node finds the other members.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Peers {
    /// The node that answers.
    pub node: NodeId,
    /// The digest of its view.
    pub view: u64,
    /// How much more time than usual it gives others before it doubts them, because it is slow or badly
    /// connected itself: 0 = as usual, 8 at most (the local health of Lifeguard).
    pub local_health: u8,
    /// The others, the dead included, in ascending order of ids.
    pub peers: Vec<Peer>,
}

/// How one node finds another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Peer {
    /// The other one.
    pub node: NodeId,
    /// What it takes it for.
    pub state: PeerState,
    /// The digest of the view that it was last heard of with; 0 = never in this run.
    pub view: u64,
    /// The round trip; `None` as long as it was not measured.
    pub rtt: Option<Rtt>,
}

/// What a node takes another one for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum PeerState {
    /// It takes part.
    Alive = 0,
    /// It did not answer, and has some time to refute that.
    Suspected = 1,
    /// It was found dead, and may come back before the view says so and slots move.
    Missing = 2,
    /// It is presumed dead because nobody answers this node.
    Presumed = 3,
    /// The view says that it is dead.
    Down = 4,
    /// It left.
    Left = 5,
}

/// Asks for a lane: memory that the node shares with this client, for what is to be faster than a
/// stream. Over the local socket only, as the first request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LaneRequest {}

/// The answer to a [`LaneRequest`]. With its last byte come two descriptors, the lane's memory and
/// the bell that wakes the node. The lane lasts as long as the stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LaneGranted {
    /// The lane's number, for messages.
    pub lane: u64,
    /// The tables in the order of their numbers in submissions.
    pub tables: Vec<String>,
}

/// Asks a node to look after the keys of all nodes. Over the local socket only, from those who run the
/// cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeysRequest {
    /// What to do.
    pub change: KeyChange,
    /// Whether to do it though some member does not answer, or lacks the key.
    pub force: bool,
}

/// What to do with a node's keys.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[repr(u8)]
#[non_exhaustive]
pub enum KeyChange {
    /// Nothing: tell of them.
    List = 0,
    /// Accept this key, too.
    Install(KeyText) = 1,
    /// Use this key from now on.
    Use(u32) = 2,
    /// Accept this key no more.
    Remove(u32) = 3,
}

/// A key in its text form: a secret, which `Debug` does not show, and which is wiped when it is
/// dropped.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct KeyText(pub String);

impl Drop for KeyText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText(…)")
    }
}

/// The answer to a [`KeysRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct KeysReport {
    /// Why nothing was changed; empty = nothing was in the way.
    pub refused: String,
    /// What each node has now, or why that is not known, the answering node first.
    pub nodes: Vec<NodeKeys>,
}

/// The keys of one node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct NodeKeys {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What the answering node holds of it.
    pub status: crate::member::Status,
    /// What it said.
    pub keys: KeyOrdered,
}

/// Node to node: do this with your keys.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeyOrder {
    /// What to do.
    pub change: KeyChange,
}

/// The answer to a [`KeyOrder`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[non_exhaustive]
pub enum KeyOrdered {
    /// It is done, on disk too, and these are the node's keys now.
    Done {
        /// The keys, none of which is shown.
        keys: Vec<HeldKey>,
        /// The id of the one in use.
        in_use: u32,
    } = 0,
    /// It was not done.
    Refused(String) = 1,
    /// Nobody knows: the node did not answer.
    Silent(String) = 2,
}

/// A key, without its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct HeldKey {
    /// Its id, whose eight hexadecimal digits people see.
    pub id: u32,
    /// The role of the clients that it is for; `None` = it is for nodes.
    pub role: Option<Role>,
}

/// Node to node: merge this entry into yours.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Replicate {
    /// The table.
    pub table: String,
    /// The key.
    pub key: Key,
    /// The sender's copy.
    pub entry: Entry,
    /// Whether promises stand in its way.
    pub fresh: Fresh,
    /// The epoch in whose name it is to count toward a decision, if it is to.
    pub under: Option<EpochName>,
}

/// Whether a copy is a write that does not count yet: a home that has promised a later ballot for the
/// slot takes no part in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[repr(u8)]
pub enum Fresh {
    /// It may count elsewhere, and is always merged: a repair, a hint, a comparison.
    No = 0,
    /// It is a new write, and stands by its version.
    Yes = 1,
    /// It was decided by this ballot, which may be later than its version.
    By(Version) = 2,
}

/// Node to node: promise to take no part in fresh writes of this slot below a ballot, and say what you
/// hold under a key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Prepare {
    /// The table.
    pub table: String,
    /// The key.
    pub key: Key,
    /// The ballot: the version of the write that may follow.
    pub ballot: Version,
    /// The epoch in whose name it is promised.
    pub under: EpochName,
}

/// The answer to [`Prepare`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Promised {
    /// The greatest ballot that the receiver has promised for the slot. The one asked for: it is
    /// promised. A greater one: try again above it. A smaller one: not promised yet, since it is further
    /// ahead than the receiver has room on disk for; it will be.
    pub floor: Version,
    /// Whether the receiver may answer in the name of the epoch: its promise counts only then.
    pub counts: bool,
    /// Whether it does not since it knows another epoch: find out which, and ask again.
    pub other_epoch: bool,
    /// The greatest ballot that it promised before to another node than the one that asks, or may have: 0 = none. What
    /// was written below that may have been passed by.
    pub others: Version,
    /// Its copy, dead or alive, if it promised.
    pub entry: Option<Entry>,
}

/// Node to node: merge this entry into yours, whose value is written again as it was. Answered by a [`Replicated`], which is
/// [`Missing`](Replicated::Missing) where that value is not.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Rewrite {
    /// The sender's copy. The bytes of its value are left out.
    pub copy: Replicate,
    /// The version of the write that set these bytes before: whoever has that, has them.
    pub same_as: Version,
}

/// Node to node: raise the time of last use.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TouchCopy {
    /// The table.
    pub table: String,
    /// The key.
    pub key: Key,
    /// The birth of the session that was used.
    pub birth: Version,
    /// The version of the sender's copy.
    pub version: Version,
    /// When it was used, in hybrid milliseconds.
    pub touched: u64,
    /// The epoch in whose name it is to count toward a decision, if it is to.
    pub under: Option<EpochName>,
}

/// Node to node: this is the digest of my copy of an entry that both of us are to hold; is yours the
/// same? Answered by a [`Replicated`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CheckCopy {
    /// The table.
    pub table: String,
    /// The key.
    pub key: Key,
    /// The [digest](Entry::digest) of the sender's copy.
    pub digest: u64,
}

/// Node to node: how much did you see these sessions used, which I would have go one ring outward? Answered by a
/// [`Heat`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HeatRequest {
    /// The table.
    pub table: String,
    /// The keys, all in slots of one core of the receiver.
    pub keys: Vec<Key>,
}

impl HeatRequest {
    /// The most keys in one question.
    pub const KEYS_MAX: usize = 64;
}

/// The answer to a [`HeatRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Heat {
    /// How many cores the receiver has: what goes to one of them must be of its slots.
    pub cores: u16,
    /// How hot the first ones are, in the order asked, in sixteenths of the table's half-life: 0 of one that was used
    /// once, just now; 16 more for twice the heat. [`i16::MIN`] of what the receiver does not hold. From another core's
    /// on there are none.
    pub levels: Vec<i16>,
}

/// Node to node: merge these entries into yours, each as a [`Replicate`] that is not fresh. Answered by
/// [`CopiesTaken`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Copies {
    /// The table.
    pub table: String,
    /// The sender's copies, all in slots of one core of the receiver.
    pub entries: Vec<(Key, Entry)>,
}

impl Copies {
    /// The most entries in one message.
    pub const ENTRIES_MAX: usize = 64;
}

/// The answer to [`Copies`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CopiesTaken {
    /// How many cores the receiver has: what goes to one of them must be of its slots.
    pub cores: u16,
    /// How many of the entries this is about, from the first on; one at least, if there are any. The others were not looked at, since
    /// there was no room to tell of them, or since they are another core's.
    pub done: u16,
    /// The places of those of which the receiver now holds more than was sent, each with what it holds. Of the others,
    /// but for those refused, it holds what was sent.
    pub differing: Vec<(u16, Entry)>,
    /// The places of those that it did not take in, each with why; `None` = it is no home of the slot.
    pub refused: Vec<(u16, Option<Failure>)>,
}

/// Node to node: these sessions lie on the innermost ring, or have ended there. Which of them do you hold, one ring or
/// more further out? Answered by an [`Overlap`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OverlapRequest {
    /// The table of the receiver's ring.
    pub table: String,
    /// The keys, all in slots of one core of the receiver.
    pub keys: Vec<Key>,
}

impl OverlapRequest {
    /// The most keys in one question.
    pub const KEYS_MAX: usize = 128;
}

/// The answer to an [`OverlapRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Overlap {
    /// How many cores the receiver has: what goes to one of them must be of its slots.
    pub cores: u16,
    /// Those of the keys whose sessions lie where the receiver holds them, as far as it knows.
    pub held: Vec<Key>,
}

/// The answer to [`Replicate`], [`Rewrite`], [`TouchCopy`] and [`CheckCopy`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[repr(u8)]
#[non_exhaustive]
pub enum Replicated {
    /// The receiver's copy now includes what was sent, and is equal to it.
    Stored = 0,
    /// The receiver's copy now includes what was sent, and holds more: this.
    Differs(Entry) = 1,
    /// A touch, or a question, for an entry that the receiver does not have: send it whole.
    Missing = 2,
    /// The receiver could not store it.
    Failed(Failure) = 3,
    /// The receiver has promised a later ballot, and does not count as a holder.
    Promised {
        /// That ballot: a write above it is taken.
        floor: Version,
        /// Whether it was merged all the same: the receiver has restarted, and does not know what it
        /// had promised.
        stored: bool,
    } = 4,
    /// The receiver is no home of the slot, as it sees the members: this counts for nothing.
    NoHome = 5,
    /// The receiver knows another epoch, or not yet this one for certain: it may have stored it, and does
    /// not count. Find out which, and send it again.
    OtherEpoch = 6,
}

/// Node to node: what do you hold under this key?
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Fetch {
    /// The table.
    pub table: String,
    /// The key.
    pub key: Key,
    /// The epoch in whose name the answer is to count toward a decision, if it is to.
    pub under: Option<EpochName>,
}

/// The answer to [`Fetch`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Fetched {
    /// The receiver's copy, dead or alive.
    pub entry: Option<Entry>,
    /// Whether the receiver is in sync for the slot, so that `None` means that there is no such entry; if an
    /// epoch was named, whether it may answer in its name.
    pub synced: bool,
    /// Whether it may not since it knows another epoch: find out which, and ask again.
    pub other_epoch: bool,
}

/// Node to node: this is the sum of what I hold in these slots; is yours the same?
///
/// What is summed up is each entry: the word of its key ([`Key::word`]), and its [digest](Entry::digest) for
/// its state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Compare {
    /// The table.
    pub table: String,
    /// What was written, or dropped because its time was over, after this instant is left out, as far as a
    /// node remembers it. In hybrid milliseconds; 0 = nothing is left out.
    pub cut_ms: u64,
    /// The slots.
    pub slots: SlotSet,
    /// The first symbol of the sketch of it all.
    pub symbol: [u8; SYMBOL_BYTES],
}

/// The answer to a [`Compare`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Compared {
    /// How many cores the receiver has: what goes to one of them must be of its slots.
    pub cores: u16,
    /// In what the two differ.
    pub difference: ComparedDifference,
}

/// In what two nodes differ.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[repr(u8)]
#[non_exhaustive]
pub enum ComparedDifference {
    /// In nothing.
    None = 0,
    /// In one key.
    One {
        /// Its word, little-endian.
        key: [u8; 8],
    } = 1,
    /// In more.
    More {
        /// The receiver's sketch of it all.
        sketch: Vec<u8>,
    } = 2,
}

/// Node to node: what do you hold in these parts?
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SketchRequest {
    /// The table.
    pub table: String,
    /// As in [`Compare`].
    pub cut_ms: u64,
    /// The slots of all parts.
    pub slots: SlotSet,
    /// How many of them belong to each part, in ascending order.
    pub sizes: Vec<u16>,
    /// How many symbols to send of each.
    pub symbols: u8,
}

/// The answer to a [`SketchRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Sketches {
    /// A sketch of each part, in their order.
    pub sketches: Vec<u8>,
}

/// Node to node: merge these entries into yours, and send me what you hold under those keys. All are
/// of one core of the receiver.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Even {
    /// The table.
    pub table: String,
    /// The words of the keys, little-endian.
    pub wanted: Vec<[u8; 8]>,
    /// The sender's copies.
    pub entries: Vec<(Key, Entry)>,
}

impl Even {
    /// The slot of what stands first in it; `None` if that is none.
    pub fn slot(&self) -> Option<Slot> {
        let wanted = self.wanted.first().map(|word| Slot::of_word(u64::from_le_bytes(*word)));
        wanted.unwrap_or_else(|| self.entries.first().map(|(key, _)| key.slot()))
    }
}

/// The answer to an [`Even`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Evened {
    /// What the receiver holds under the keys that were wanted, and of those that it was sent where it held
    /// more than that.
    pub entries: Vec<(Key, Entry)>,
    /// How many of the keys wanted that includes; for the others there was no room.
    pub done: u32,
}

/// Node to node: list a slot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SlotListRequest {
    /// The table.
    pub table: String,
    /// The slot.
    pub slot: Slot,
    /// The last key of the page before; `None` = from the beginning.
    pub after: Option<Key>,
}

/// The answer to a [`SlotListRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SlotList {
    /// Keys in ascending order, each with the digest of its entry.
    pub items: Vec<(Key, u64)>,
    /// Whether another page follows.
    pub more: bool,
}

/// Node to node: I am to give this slot away, and you hold all that I have of it. Are you to keep it?
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Offer {
    /// The table.
    pub table: String,
    /// The slot.
    pub slot: Slot,
    /// The attempt: the sender's incarnation when it began,
    pub incarnation: u64,
    /// and a count.
    pub counter: u64,
}

/// The answer to an [`Offer`] and to a [`SetOffer`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OfferAnswer {
    /// Whether this is a receipt: the receiver holds the slot, and all that belongs there.
    pub given: bool,
    /// The receiver's incarnation.
    pub incarnation: u64,
}

/// Node to node: I take part in this slot set of an application ([`SetNoted`] answers).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SetHello {
    /// The set.
    pub set: String,
    /// How many slots it has. Here and below they go by their numbers in the set, below this one.
    pub slots: u16,
    /// How many homes each of them has.
    pub replicas: u8,
    /// The sender's incarnation,
    pub incarnation: u64,
    /// and how often what follows has changed since.
    pub revision: u64,
    /// The slots that it does not take for now, since they failed there.
    pub failed: SlotSet,
}

/// The answer to a [`SetHello`] of somebody who takes part, too.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SetNoted {
    /// Whether it is noted: the sender is a member. If not, say it again later.
    pub noted: bool,
}

/// Node to node: which of these slots of a slot set, or of a table, do you hold?
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HeldRequest {
    /// The set, or the table.
    pub set: String,
    /// The revision of the sender's last [`SetHello`]: whoever has not noted it is unsure of everything. 0: it
    /// is about a table.
    pub revision: u64,
    /// The slots, by their numbers; of a table they are all of one core of the receiver.
    pub slots: SlotSet,
}

/// The answer to a [`HeldRequest`]. Of the other slots the receiver holds nothing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Held {
    /// Those that it holds, as their home or while it gives them away; of a table those that it has synced.
    pub held: SlotSet,
    /// Those that have to be asked for again: its application has not said yet that it takes no writes for
    /// them any more, or that they are gone.
    pub unsure: SlotSet,
}

/// Node to node: I am to give this slot of a slot set away. Have you got all that I have of it, and are you to keep
/// it? [`OfferAnswer`] answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SetOffer {
    /// The set.
    pub set: String,
    /// The slot, by its number.
    pub slot: u16,
    /// The attempt: the sender's incarnation when it began,
    pub incarnation: u64,
    /// and a count.
    pub counter: u64,
}

/// Node to node: these are the members I know; tell me of those you know.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Exchange {
    /// The members, in ascending order of ids.
    pub members: Vec<Member>,
    /// Whether the sender asks to be told in turn. Without it there is nothing to answer.
    pub reply: bool,
}

/// A packet of the membership protocol. Only in datagrams.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Gossip {
    /// The packet, opaque here.
    pub packet: Vec<u8>,
}

/// A packet of the membership protocol that has to arrive. Only over streams between nodes; whoever
/// takes it in answers [`Pong`] with id 0, which says that the stream works and nothing more.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StreamGossip {
    /// The packet, opaque here.
    pub packet: Vec<u8>,
}

/// Asks for a [`Pong`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ping {}

/// The answer to a [`Ping`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Pong {
    /// Who answers.
    pub node: NodeId,
}

/// The size of a sketch's symbol, in bytes.
pub const SYMBOL_BYTES: usize = 26;

macro_rules! messages {
    ($($kind:literal $name:ident($payload:ty), $limit:expr;)+) => {
        /// Any message.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "each variant carries the type of its name")]
        pub enum Message { $($name($payload),)+ }

        impl Message {
            /// The number of this kind of message on the wire.
            pub fn kind(&self) -> u8 {
                match self { $(Self::$name(_) => $kind,)+ }
            }

            /// The name of this kind of message, for counters and logs.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)+ }
            }

            /// The most bytes a payload of this kind may have; `None` for a kind we do not know.
            pub fn limit(kind: u8) -> Option<usize> {
                match kind { $($kind => Some($limit),)+ _ => None }
            }

            /// All kinds, for tests.
            pub const KINDS: &[u8] = &[$($kind),+];

            pub(crate) fn encode_payload<W: bincode::enc::write::Writer>(
                &self,
                writer: W,
            ) -> Result<(), bincode::error::EncodeError> {
                match self {
                    $(Self::$name(payload) => {
                        bincode::encode_into_writer(payload, writer, bincode::config::standard())
                    })+
                }
            }

            pub(crate) fn decode_payload<C: bincode::config::Config>(
                kind: u8,
                bytes: &[u8],
                config: C,
            ) -> Option<Result<(Self, usize), bincode::error::DecodeError>> {
                match kind {
                    $($kind => Some(
                        bincode::decode_from_slice(bytes, config)
                            .map(|(payload, read)| (Self::$name(payload), read)),
                    ),)+
                    _ => None,
                }
            }
        }

        $(impl From<$payload> for Message {
            fn from(payload: $payload) -> Self { Self::$name(payload) }
        })+
    };
}

const SMALL: usize = 4 << 10;
const LISTING: usize = 512 << 10;
/// A value (which counts what its fields' names and versions take), and what stands around it.
const VALUE: usize = crate::limits::VALUE_BYTES_MAX + (64 << 10);
/// The longest message to a channel, and what stands around it.
const PUBLISHED: usize = crate::limits::PUBLISHED_BYTES_MAX + (4 << 10);
/// Two maps, each the largest a client may write, merge into one of twice the size.
const MERGED: usize = VALUE + crate::limits::VALUE_BYTES_MAX;
const MEMBERS: usize = 1 << 20;
/// Any set of slots, and the sizes of its parts.
const PARTS: usize = 64 << 10;
/// Some entries of the usual size, or the largest one.
const BATCH: usize = MERGED + (256 << 10);
/// Of as many nodes as a view holds their keys, or a reason of half the usual length.
const KEYS: usize = 2 << 20;

messages! {
    1 Hello(Hello), SMALL;
    2 Welcome(Welcome), 64 << 10;
    3 Rejected(Rejected), SMALL;
    4 Ping(Ping), SMALL;
    5 Pong(Pong), SMALL;
    16 SessionRequest(SessionRequest), VALUE;
    17 SessionReply(SessionReply), MERGED;
    18 ExplainRequest(ExplainRequest), SMALL;
    19 Explanation(Explanation), 64 << 10;
    20 ListRequest(ListRequest), SMALL;
    21 List(List), LISTING;
    22 RoutesRequest(RoutesRequest), SMALL;
    23 Routes(Routes), 1 << 20;
    24 StatusRequest(StatusRequest), SMALL;
    25 NodeStatus(NodeStatus), 256 << 10;
    26 MembersRequest(MembersRequest), SMALL;
    27 Members(Members), MEMBERS;
    28 LaneRequest(LaneRequest), SMALL;
    29 LaneGranted(LaneGranted), 8 << 10;
    30 KeysRequest(KeysRequest), SMALL;
    31 KeysReport(KeysReport), KEYS;
    32 PeersRequest(PeersRequest), SMALL;
    33 Peers(Peers), MEMBERS;
    34 Order(Order), SMALL;
    35 Ordered(Ordered), SMALL;
    36 SafetyRequest(SafetyRequest), SMALL;
    37 Safety(Safety), 64 << 10;
    38 EventsRequest(EventsRequest), SMALL;
    39 Events(Events), 64 << 10;
    48 Replicate(Replicate), MERGED;
    49 TouchCopy(TouchCopy), SMALL;
    50 Replicated(Replicated), MERGED;
    51 Fetch(Fetch), SMALL;
    52 Fetched(Fetched), MERGED;
    55 SlotListRequest(SlotListRequest), SMALL;
    56 SlotList(SlotList), LISTING;
    57 Exchange(Exchange), MEMBERS;
    60 KeyOrder(KeyOrder), SMALL;
    61 KeyOrdered(KeyOrdered), SMALL;
    64 Gossip(Gossip), crate::limits::DATAGRAM_BYTES_MAX;
    65 StreamGossip(StreamGossip), crate::limits::DATAGRAM_BYTES_MAX;
    66 Compare(Compare), PARTS;
    67 Compared(Compared), SMALL;
    68 SketchRequest(SketchRequest), PARTS;
    69 Sketches(Sketches), LISTING;
    70 Even(Even), BATCH;
    71 Evened(Evened), BATCH;
    72 Prepare(Prepare), SMALL;
    73 Promised(Promised), MERGED;
    76 Offer(Offer), SMALL;
    77 OfferAnswer(OfferAnswer), SMALL;
    78 Epochs(Epochs), LISTING;
    79 EpochsAnswer(EpochsAnswer), LISTING;
    90 CheckCopy(CheckCopy), SMALL;
    91 LoadRequest(LoadRequest), SMALL;
    92 HostLoad(HostLoad), SMALL;
    93 RankRequest(RankRequest), SMALL;
    94 Ranked(Ranked), MEMBERS;
    95 PinnedRequest(PinnedRequest), SMALL;
    96 Pinned(Pinned), LISTING;
    97 PlanRequest(PlanRequest), MEMBERS;
    98 HeatRequest(HeatRequest), PARTS;
    99 Heat(Heat), 512;
    100 SetHello(SetHello), PARTS;
    101 SetNoted(SetNoted), SMALL;
    102 HeldRequest(HeldRequest), PARTS;
    103 Held(Held), PARTS;
    104 SetOffer(SetOffer), SMALL;
    105 Burning(Burning), SMALL;
    106 Burned(Burned), SMALL;
    107 SuspectsRequest(SuspectsRequest), SMALL;
    108 Suspects(Suspects), LISTING;
    109 Judge(Judge), SMALL;
    110 OwnedRequest(OwnedRequest), SMALL;
    111 Owned(Owned), LISTING;
    112 Copies(Copies), BATCH;
    113 CopiesTaken(CopiesTaken), BATCH;
    114 WalkRequest(WalkRequest), SMALL;
    115 Walked(Walked), LISTING;
    116 Published(Published), PUBLISHED;
    117 Gone(Gone), LISTING;
    118 GoneNoted(GoneNoted), SMALL;
    119 Rewrite(Rewrite), MERGED;
    120 HottestRequest(HottestRequest), SMALL;
    121 Hottest(Hottest), 8 << 10;
    122 BeatRequest(BeatRequest), PARTS;
    123 Beat(Beat), LISTING;
    124 OverlapRequest(OverlapRequest), PARTS;
    125 Overlap(Overlap), PARTS;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_includes_itself_and_development_includes_all() {
        for role in Role::ALL {
            let included = Role::ALL.into_iter().filter(|other| role.includes(*other));
            let expected = if role == Role::Development { &Role::ALL[..] } else { &[role] };
            assert_eq!(included.collect::<Vec<_>>(), expected);
            assert_eq!(Role::of_name(role.name()), Some(role));
        }
        assert_eq!(Role::of_name("Worker"), None);
    }
}
