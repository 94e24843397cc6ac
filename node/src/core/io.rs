//! What goes into the hub and the cores, and what comes out of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use annulus_gossip::Channel;
#[cfg(doc)]
use annulus_proto::Rtt;
use annulus_proto::codec::Header;
use annulus_proto::message::{GoneSession, HostLoad, Message, Role, TableStatus};
use annulus_proto::submission::Answer;
use annulus_proto::{Load, Member, NodeId, Status};
use annulus_seal::datagram::Recipient;
use annulus_shm::Used;
use serde::{Deserialize, Serialize};

use super::kept::RecordChange;
use super::overflow::Overflowed;
use super::owner_limit::Counting;
use super::replacing::ToEnd;
use super::slot_set::{SlotCall, SlotSaid};
use super::standing::Standing;

/// The present, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock, for everything that is waited for.
    pub monotonic: Duration,
    /// The wall clock, for stamps: milliseconds since the Unix epoch. It may jump.
    pub wall_ms: u64,
}

/// Who asked, so that the driver knows where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asker {
    /// A stream, by the number the driver gave it.
    Stream(u64),
    /// A stream from a process on this host, by the same numbers.
    Local(u64),
    /// The sender of a datagram.
    Datagram(SocketAddr),
    /// The sender of a sealed datagram, and for whom the answer is sealed.
    Sealed(SocketAddr, Recipient),
    /// A client that submits through shared memory.
    Lane {
        /// The lane's number.
        lane: u64,
        /// The call that waits for the answer; 0 = nobody waits.
        call: u32,
    },
    /// The hub, which puts the cores' answers together.
    Hub {
        /// The number of the request that it collects them for.
        ticket: u64,
    },
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A client with this role.
    Client(Role),
    /// Another node.
    Node(NodeId),
}

/// Something that happened, for a core.
#[derive(Clone, Debug)]
pub enum Input {
    /// A request arrived.
    Request(Request),
    /// The answer to an [`Output::Call`] arrived, or there will be none.
    Outcome(Outcome),
    /// How this node stands in the cluster has changed.
    Standing(Arc<Standing>),
    /// A node has answered the hub, or another core.
    Heard {
        /// The node.
        node: NodeId,
        /// The header that the answer came in.
        header: Header,
        /// When it was asked, on the monotonic clock.
        asked: Duration,
    },
    /// A node is dead, or has left: nothing waits for it any more.
    Gone(NodeId),
    /// How far other nodes are, as far as that was measured: in steps of [`Rtt::step`].
    Proximity(Arc<BTreeMap<NodeId, u8>>),
    /// Something that a core has to say to others, or to itself: the one that it is for knows.
    Between(Between),
    /// The clock's ceiling is on disk, in hybrid milliseconds.
    Ceiling(u64),
    /// An [`Output::Persist`] is on disk.
    Persisted {
        /// Its number.
        ticket: u64,
    },
    /// An [`Output::Persist`] failed: whether it is on disk is not known. To ask for it again does no harm.
    NotPersisted {
        /// Its number.
        ticket: u64,
    },
    /// What became of an [`Output::Overflow`].
    Overflowed {
        /// The table that it was of.
        table: usize,
        /// Whether all of these sessions are where they were to go. If not, they are given out again.
        is_taken: bool,
    },
    /// What became of an [`Output::Reserve`], of whichever core.
    Reserved {
        /// The table.
        table: usize,
        /// Whether there is memory for it now. If not, it is asked for again later.
        is_there: bool,
    },
    /// Say how things are, for [`Notice::Report`].
    Report {
        /// The number of the request that asks for it.
        ticket: u64,
    },
    /// Compare all slots with the other homes now.
    SyncNow,
    /// The application says something of its slots. For the first core.
    SlotSet {
        /// The slot set, by its place in [`CoreStart::slot_sets`](super::CoreStart::slot_sets).
        set: usize,
        /// What.
        said: SlotSaid,
    },
    /// Whoever runs the cluster gives a member up for lost, with all that only it has: found the slots anew
    /// that cannot be decided about without it.
    GiveUp(NodeId),
    /// Take no new requests; [`Notice::Stopped`] follows when those under way are answered.
    Stop,
}

/// Something that happened, for the hub.
#[derive(Clone, Debug, PartialEq)]
pub enum HubInput {
    /// A membership packet arrived.
    Gossip {
        /// Its sender, where packets are sealed.
        node: Option<NodeId>,
        /// The address that it came from.
        from: SocketAddr,
        /// The packet.
        packet: Vec<u8>,
    },
    /// A membership packet arrived over a stream.
    StreamGossip {
        /// Its sender.
        node: NodeId,
        /// The packet.
        packet: Vec<u8>,
    },
    /// A request arrived that is not for one core.
    Request(Request),
    /// The answer to a [`HubOutput::Call`] arrived, or there will be none.
    Outcome(Outcome),
    /// A core has something to say.
    Notice {
        /// The core.
        core: usize,
        /// What it says.
        notice: Notice,
    },
    /// The seeds' names were resolved, as far as they could be.
    Seeds(Vec<SocketAddr>),
    /// A [`HubOutput::Persist`] is on disk.
    Persisted {
        /// Its number.
        generation: u64,
    },
    /// A table's segment was looked at for huge pages.
    HugePages {
        /// The table, by its place in the settings.
        table: usize,
        /// How much of it lies in them.
        bytes: u64,
    },
    /// The host's load was measured, for all members to know.
    Load(Load),
    /// How busy the host is was measured, for those who ask.
    HostLoad(HostLoad),
    /// Take no new requests; [`HubOutput::Stopped`] follows when those under way are answered.
    Stop {
        /// Whether to leave the cluster for good, rather than to come back soon.
        leave: bool,
    },
}

/// A request, with where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Where the answer goes.
    pub asker: Asker,
    /// Who asks.
    pub caller: Caller,
    /// The header it came in.
    pub header: Header,
    /// The request.
    pub message: Message,
}

/// What became of a call to another node.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The call's number.
    pub call: u64,
    /// The answer, or that there will be none.
    pub result: Result<Answered, NoAnswer>,
}

/// What a reader of this host's shared memory used of it.
#[derive(Clone, Copy, Debug)]
pub struct MemoryUse {
    /// For whom.
    pub by: Asker,
    /// The table, by its place in the settings.
    pub table: usize,
    /// What it used.
    pub used: Used,
    /// About how often.
    pub count: u32,
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// Who answers.
    pub node: NodeId,
    /// The header it came in.
    pub header: Header,
    /// The answer.
    pub message: Message,
}

/// A call's stream broke or could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer {
    /// Whether the question may have arrived.
    pub sent: bool,
}

/// Something to do for a core.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Answer a request.
    Reply(Reply),
    /// Ask another node over a stream, and report the [`Outcome`].
    Call(Ask),
    /// Tell the hub.
    Notice(Notice),
    /// Have the application do something, after all that it was to do for this set before.
    SlotSet {
        /// The slot set, by its place.
        set: usize,
        /// What.
        call: SlotCall,
    },
    /// These sessions leave a table: write them down, or give them to the application, as
    /// [`TablePolicy::overflow`](super::TablePolicy::overflow) says, then say [`Input::Overflowed`]. The table has no
    /// other such output under way.
    Overflow {
        /// The table, by its place; a ring further out is a table of its own.
        table: usize,
        /// The sessions.
        sessions: Arc<[Overflowed]>,
    },
    /// These sessions are gone: tell who listens on this node, unless they were told of the same before.
    Gone {
        /// The table of the innermost ring, by its place.
        table: usize,
        /// The sessions.
        sessions: Vec<GoneSession>,
    },
    /// Somebody would use a table whose memory was not reserved yet: reserve it, then say [`Input::Reserved`] to all
    /// cores.
    Reserve {
        /// The table, by its place.
        table: usize,
    },
    /// Keep this on disk, after all that was to be kept before and whole or not at all, then say
    /// [`Input::Persisted`] or [`Input::NotPersisted`].
    Persist {
        /// Its number.
        ticket: u64,
        /// What is to change; of two changes of one record the last one counts.
        changes: Vec<RecordChange>,
    },
}

/// Something to do for the hub.
#[derive(Clone, Debug)]
pub enum HubOutput {
    /// Send a membership packet.
    Gossip {
        /// How.
        channel: Channel,
        /// Where to.
        to: SocketAddr,
        /// The header to send it in.
        header: Header,
        /// The packet.
        packet: Vec<u8>,
    },
    /// Answer a request.
    Reply(Reply),
    /// Ask another node over a stream, and report the [`Outcome`].
    Call(Ask),
    /// Tell one core.
    Core {
        /// Which.
        core: usize,
        /// What.
        input: Input,
    },
    /// Tell every core.
    Cores(Input),
    /// Put this on disk, in place of the state before, then say [`HubInput::Persisted`].
    Persist {
        /// Its number.
        generation: u64,
        /// The state.
        state: NodeState,
    },
    /// Another node, alive right now, bears this node's id.
    IdInUse {
        /// Where it is.
        addr: SocketAddr,
        /// Whether this node is the one that should stop: it started later.
        give_way: bool,
    },
    /// Everything under way at [`HubInput::Stop`] is done, and the others were told.
    Stopped,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// To whom.
    pub to: Asker,
    /// The header to send it in, which names the request.
    pub header: Header,
    /// The answer.
    pub message: Message,
}

/// A question to another node.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Where it listens.
    pub to: SocketAddr,
    /// The header to send it in; its id is the call's number.
    pub header: Header,
    /// The question.
    pub message: Message,
}

/// What one core of a node says to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Between {
    /// This session is to end, since another one was begun in its place.
    End(ToEnd),
    /// It has ended for good.
    Ended(ToEnd),
    /// Something about the sessions of an owner, which are counted.
    Count(Counting),
}

/// What a core tells the hub.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "few are under way at a time")]
pub enum Notice {
    /// A node sees other members than this one.
    OtherView(NodeId),
    /// A node joins the values of a table otherwise than this one, or only one of them joins them at all: nothing
    /// of it is exchanged until somebody has their applications agree. Told once by each core.
    OtherMerge {
        /// The node.
        node: NodeId,
        /// The table.
        table: String,
        /// The name of this node's merge; `None`: the last writer wins.
        ours: Option<String>,
        /// That of the other one.
        theirs: Option<String>,
    },
    /// A node has answered: a sign of life for the other cores, too.
    Heard {
        /// The node.
        node: NodeId,
        /// The header that the answer came in.
        header: Header,
        /// When it was asked, on the monotonic clock.
        asked: Duration,
    },
    /// The clock's ceiling has to be put on disk at this, in hybrid milliseconds, if it is not there.
    CeilingWanted(u64),
    /// Something for another core of this node, or for itself.
    Between(Between),
    /// Its part of an answer to a request that the hub has split.
    Part {
        /// The number of the request.
        ticket: u64,
        /// The header of the answer.
        header: Header,
        /// The answer.
        message: Message,
    },
    /// How things are with it.
    Report {
        /// The number of the request that asked.
        ticket: u64,
        /// How they are.
        report: CoreReport,
    },
    /// How many slots of each table it has, if that changed.
    Slots(Vec<SlotCounts>),
    /// It was told to stop, and has answered everything.
    Stopped,
}

/// How many slots of a table a core has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCounts {
    /// Of which this node is a home.
    pub home: u32,
    /// Among them those that it has not synced.
    pub unsynced: u32,
    /// Of which it is no home any more, and which it still holds.
    pub leaving: u32,
    /// How many were given up so far.
    pub given_up: u64,
    /// How many epochs were decided so far by ballots of this core.
    pub decided: u64,
}

/// How things are with a core.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CoreReport {
    /// Its part of each table.
    pub tables: Vec<TableStatus>,
    /// What it counted.
    pub counters: Vec<(String, u64)>,
    /// When each node was last heard of, with the digest of its view.
    pub heard: Vec<(NodeId, Duration, u64)>,
    /// How far its clock is off, in milliseconds, if that is beyond the bound.
    pub drift_ms: Option<u64>,
}

/// The answer to a call through a lane. These are taken out apart from [`Output`]s, since they need
/// no driver to wait for them.
#[derive(Clone, Debug, PartialEq)]
pub struct LaneAnswer {
    /// The lane's number.
    pub lane: u64,
    /// The call that waits for it, not 0.
    pub call: u32,
    /// The answer.
    pub answer: Answer,
}

/// What a node keeps on disk beside its sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeState {
    /// The node's id, 48 bits.
    pub id: u64,
    /// The incarnation it last ran with.
    pub incarnation: u64,
    /// No write was stamped at or after this, in hybrid milliseconds.
    pub clock_ceiling_ms: u64,
    /// When it learned that it had been declared dead, lately; as the mesh says it.
    #[serde(default)]
    pub deaths: Vec<u64>,
    /// The weight that somebody gave it while it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<GivenWeight>,
    /// Members that it knew and that had not left, to rejoin through, and to ask before it founds anything.
    #[serde(default)]
    pub members: Vec<KnownMember>,
    /// Where earlier builds, which kept no more of them, reached other members.
    #[serde(default, skip_serializing)]
    pub peers: Vec<SocketAddr>,
}

/// What is kept of another member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownMember {
    /// Its id, 48 bits.
    pub id: u64,
    /// The last that was heard of.
    pub incarnation: u64,
    /// Its name for people.
    pub name: String,
    /// Where it was reached.
    pub addr: SocketAddr,
}

impl KnownMember {
    pub(super) fn of(member: &Member, addr: SocketAddr) -> Self {
        let Member { id, incarnation, name, .. } = member;
        Self { id: id.bits(), incarnation: *incarnation, name: name.clone(), addr }
    }

    /// A record of it that says as little as possible.
    pub(crate) fn member(&self) -> Member {
        Member {
            id: NodeId::from_bits(self.id),
            incarnation: self.incarnation,
            revision: 0,
            status: Status::Down,
            addr: self.addr,
            name: self.name.clone(),
            zone: String::new(),
            weight: 0,
            rings: 0,
            door: None,
            load: Load::default(),
        }
    }
}

/// A weight that stands in place of the configured one, until another one is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenWeight {
    /// The weight that was configured then.
    pub configured: u16,
    /// The weight in its place.
    pub given: u16,
}
