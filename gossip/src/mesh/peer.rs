//! Who a packet is from and for, as foca sees it.

use std::net::SocketAddr;

use annulus_proto::{Member, NodeId};
use bincode::{Decode, Encode};

/// One life of a node: foca's identity. foca keeps one record per node id (its `Addr`), so that a
/// restarted or moved node replaces its earlier life instead of standing beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) incarnation: u64,
    pub(super) addr: SocketAddr,
}

impl Peer {
    pub(super) fn of(member: &Member) -> Self {
        Self { id: member.id, incarnation: member.incarnation, addr: member.addr }
    }
}

impl foca::Identity for Peer {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { incarnation: self.incarnation.saturating_add(1), ..*self })
    }

    fn addr(&self) -> NodeId {
        self.id
    }

    /// Strict: on a tie foca would let the two replace each other for ever.
    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.incarnation, self.addr) > (adversary.incarnation, adversary.addr)
    }
}
