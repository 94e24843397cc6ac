//! What comes out of a mesh.

use std::net::SocketAddr;

use annulus_proto::NodeId;

#[cfg(doc)]
use super::{Mesh, MeshConfig};

/// How a packet travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// In a datagram: fast, and lost now and then.
    Datagram,
    /// Over a stream to where the other node listens: it arrives if the network lets anything
    /// through, perhaps late. Whether it did is not reported, and a driver that has no room for it
    /// may drop it.
    Stream,
}

/// A packet to be sent, in the driver's envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// How.
    pub channel: Channel,
    /// Where to.
    pub to: SocketAddr,
    /// What; at most [`MeshConfig::packet_bytes_max`] bytes.
    pub packet: Vec<u8>,
}

/// What the driver should know or do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Something that placement depends on changed; several changes may share one event.
    ViewChanged {
        /// The view's digest now.
        digest: u64,
    },
    /// A member takes part that did not before. (A restart that was not noticed as a death is no
    /// such event.)
    MemberUp(NodeId),
    /// A member was declared dead.
    MemberDown(NodeId),
    /// A member left on purpose.
    MemberLeft(NodeId),
    /// Do a full exchange over TCP with this address: send [`Mesh::snapshot`], and hand the answer
    /// to [`Mesh::merge`]. A failure needs no report; another address will follow.
    ExchangeWith(SocketAddr),
    /// What [`Mesh::peers`] returns has changed: persist it, to be announced to after a restart.
    PeersChanged,
    /// This node refuted its own death or a higher incarnation of itself. Persist it; the next
    /// start must begin above it.
    IncarnationRaised(u64),
    /// What [`Mesh::deaths`] returns has changed: persist it.
    DeathsChanged,
    /// Another node, alive right now, bears this node's id. One of the two must stop, best the one
    /// that started later (as incarnations come from the clock, the one with the higher one).
    /// Repeated every 10 s while it lasts.
    IdInUse {
        /// The other's address.
        addr: SocketAddr,
        /// The other's incarnation.
        incarnation: u64,
    },
}

/// What happened so far, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Packets handed in.
    pub packets_in: u64,
    /// Packets handed out.
    pub packets_out: u64,
    /// Bytes handed in.
    pub bytes_in: u64,
    /// Bytes handed out, without the driver's envelope.
    pub bytes_out: u64,
    /// Packets that were not well formed.
    pub packets_malformed: u64,
    /// Packets from this node itself or under its id, or meant for another or an earlier one.
    pub packets_misaddressed: u64,
    /// Packets from an earlier life of a member, or one that was declared dead: answered with what
    /// is known of it.
    pub packets_stale: u64,
    /// Packets dropped because they named members beyond what a view holds.
    pub packets_overfull: u64,
    /// Records that were not well formed, or one member too many.
    pub members_refused: u64,
    /// Probes that were not answered, by no way: as many suspicions.
    pub probes_failed: u64,
    /// Suspicions refuted before their time was up.
    pub suspicions_refuted: u64,
    /// Suspicions refuted at the last moment, when the member was asked directly.
    pub suspicions_verified_away: u64,
    /// Times that somebody who was asked about a suspect reached it.
    pub vouches_heard: u64,
    /// Times that a death was not declared because nobody answered this node.
    pub deaths_held_back: u64,
    /// Deaths declared by foca, here or elsewhere, while the view said otherwise.
    pub deaths_reported: u64,
    /// Of these, how many were taken back within `down_after`.
    pub deaths_cancelled: u64,
    /// Deaths that reached the view by this node's own conclusion.
    pub deaths_concluded: u64,
    /// Times that this node raised its own incarnation.
    pub renewals: u64,
    /// Times that this node stayed `Joining` for having died again and again.
    pub returns_held_back: u64,
    /// Incarnations so far ahead of the time that they were not believed.
    pub incarnations_refused: u64,
    /// Times that this node presumed all others down.
    pub isolations: u64,
    /// Exchanges asked for.
    pub exchanges_asked: u64,
    /// Exchanges merged.
    pub exchanges_merged: u64,
    /// Times that this node was not run in time, by more than a second.
    pub pauses: u64,
}
