//! What nodes know of each other.

use std::net::SocketAddr;

use bincode::{Decode, Encode};
use serde::Serialize;

use crate::limits::NAME_BYTES_MAX;
use crate::version::NodeId;

/// The facts about one member. It publishes all of them itself, but for its death.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Member {
    /// Kept across restarts.
    pub id: NodeId,
    /// Grows with each start of the node, and whenever it must refute its own death.
    pub incarnation: u64,
    /// Grows with each change of the facts below within one incarnation.
    pub revision: u32,
    /// What the member is doing.
    pub status: Status,
    /// Where it is reached: gossip and small requests over UDP, everything over TCP, on one port.
    pub addr: SocketAddr,
    /// A name for people.
    pub name: String,
    /// What fails together; homes of a slot lie in distinct zones where there are enough.
    pub zone: String,
    /// Its share of the slots relative to the others'; 100 is the ordinary share, 0 takes none.
    pub weight: u16,
    /// The rings it serves: bit n for ring n.
    pub rings: u8,
    /// Where clients of clusters of Redis find it; `None` = nowhere. Not part of the view's digest: it stays as it is
    /// for an incarnation.
    pub door: Option<SocketAddr>,
    /// How busy it is. Not part of the view's digest, and never of placement.
    pub load: Load,
}

/// What a member is doing. At one incarnation, `Down` and `Left` are final and `Left` beats `Down`;
/// a higher incarnation beats everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Status {
    /// Started, and has not exchanged views with the cluster yet: owns no slots.
    Joining = 0,
    /// Serves its slots.
    Up = 1,
    /// Giving its slots away before it leaves.
    Draining = 2,
    /// Declared dead by the others.
    Down = 3,
    /// Gone on purpose.
    Left = 4,
}

/// How busy a member is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Load {
    /// Processor use of the host, in thousandths of all its cores.
    pub cpu_permille: u16,
    /// Memory use of the host, in thousandths.
    pub memory_permille: u16,
    /// Entries held, in all tables.
    pub sessions: u64,
}

impl Status {
    /// Whether a member in this status takes part: it is probed and can be asked.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Joining | Self::Up | Self::Draining)
    }
}

impl Member {
    /// Whether the names are within their bounds and the addresses can be sent to.
    pub fn is_well_formed(&self) -> bool {
        let is_usable = |addr: SocketAddr| addr.port() != 0 && !addr.ip().is_unspecified();
        self.name.len() <= NAME_BYTES_MAX
            && self.zone.len() <= NAME_BYTES_MAX
            && is_usable(self.addr)
            && self.door.is_none_or(is_usable)
    }

    /// Whether what this record says replaces what `older` says, both being about one member.
    pub fn supersedes(&self, older: &Self) -> bool {
        let finality = |member: &Self| match member.status {
            Status::Left => 2u8,
            Status::Down => 1,
            _ => 0,
        };
        let rank = |member: &Self| (member.incarnation, finality(member), member.revision);
        rank(self) > rank(older)
    }
}
