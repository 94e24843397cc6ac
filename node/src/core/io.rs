//! What goes into the core and what comes out of it.

use std::net::SocketAddr;
use std::time::Duration;

use annulus_proto::codec::Header;
use annulus_proto::message::{Message, Role};
use annulus_proto::submission::Answer;
use annulus_proto::{Load, NodeId};
use serde::{Deserialize, Serialize};

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
    /// The sender of a datagram.
    Datagram(SocketAddr),
    /// A client that submits through shared memory.
    Lane {
        /// The lane's number.
        lane: u64,
        /// The call that waits for the answer; 0 = nobody waits.
        call: u32,
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

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A membership packet arrived.
    Gossip {
        /// Its sender's address.
        from: SocketAddr,
        /// The header it came in.
        header: Header,
        /// The packet.
        packet: Vec<u8>,
    },
    /// A request arrived.
    Request {
        /// Where the answer goes.
        asker: Asker,
        /// Who asks.
        caller: Caller,
        /// The header it came in.
        header: Header,
        /// The request.
        message: Message,
    },
    /// The answer to an [`Output::Call`] arrived.
    Answer {
        /// The call's number.
        call: u64,
        /// Who answers.
        node: NodeId,
        /// The header it came in.
        header: Header,
        /// The answer.
        message: Message,
    },
    /// An [`Output::Call`] will not be answered: its stream broke or could not be opened.
    CallFailed {
        /// The call's number.
        call: u64,
        /// Whether it may have arrived.
        sent: bool,
    },
    /// The seeds' names were resolved, as far as they could be.
    Seeds(Vec<SocketAddr>),
    /// An [`Output::Persist`] is on disk.
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
    /// The host's load was measured.
    Load(Load),
    /// Take no new requests; [`Output::Stopped`] follows when those under way are answered.
    Stop {
        /// Whether to leave the cluster for good, rather than to come back soon.
        leave: bool,
    },
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send a membership packet.
    Gossip {
        /// Where to.
        to: SocketAddr,
        /// The header to send it in.
        header: Header,
        /// The packet.
        packet: Vec<u8>,
    },
    /// Answer a request.
    Reply {
        /// Whom.
        to: Asker,
        /// The header to send it in, which names the request.
        header: Header,
        /// The answer.
        message: Message,
    },
    /// Ask another node over a stream, and report the answer or the failure.
    Call {
        /// Where it listens.
        to: SocketAddr,
        /// The header to send it in; its id is the call's number.
        header: Header,
        /// The question.
        message: Message,
    },
    /// Put this on disk, in place of the state before, then say [`Input::Persisted`].
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
    /// Everything under way at [`Input::Stop`] is done, and the others were told.
    Stopped,
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
    /// Other members it knew, to rejoin through.
    pub peers: Vec<SocketAddr>,
}
