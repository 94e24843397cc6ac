//! What those who place sessions and slots ask of nodes.

use bincode::{Decode, Encode};
use serde::Serialize;

use crate::key::Key;
use crate::version::{NodeId, Version};

/// What a session needs of the host that it is moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Affinity {
    /// Processors with little to do.
    Cpu = 0,
    /// Free memory.
    Memory = 1,
    /// Storage that nobody waits for.
    Io = 2,
    /// A network with little traffic.
    Network = 3,
}

impl Affinity {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Memory, Self::Io, Self::Network];

    /// Its name, as commands take it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Io => "io",
            Self::Network => "network",
        }
    }

    /// The affinity of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|affinity| affinity.name() == name)
    }
}

/// Asks how busy the node's host is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LoadRequest {}

/// How busy a host is; `None` = it cannot be told there. Measured once a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct HostLoad {
    /// How many tasks ran or waited to run, over the last minute and per processor, in thousandths.
    pub cpu_permille: Option<u32>,
    /// Memory that may be had without swapping, in bytes.
    pub memory_free: Option<u64>,
    /// For how much of the last ten seconds some task waited for storage, in thousandths.
    pub io_permille: Option<u32>,
    /// What went over all interfaces but loopback in the last second, both ways, in bytes.
    pub network_bytes: Option<u64>,
}

/// Asks for the members that a session could be pinned to, the best suited first. The node asks all of
/// them how busy they are.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RankRequest {
    /// What they are ranked by.
    pub affinity: Affinity,
}

/// The answer to a [`RankRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Ranked {
    /// Those that answered and serve, the best suited first.
    pub nodes: Vec<(NodeId, HostLoad)>,
}

/// Asks for the sessions that are pinned to a node, of those whose primary is the node that is asked. For
/// who runs the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PinnedRequest {
    /// The table.
    pub table: String,
    /// The node that they are pinned to.
    pub to: NodeId,
    /// Where to go on: the core, and the last key of the page before; 0 and `None` = at the beginning.
    pub core: u16,
    /// See above.
    pub after: Option<Key>,
}

/// The answer to a [`PinnedRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Pinned {
    /// Live sessions: key, birth, and the size of the value in bytes.
    pub sessions: Vec<(Key, Version, u64)>,
    /// Where the next page begins; `None` = this was the last.
    pub next: Option<(u16, Option<Key>)>,
}

/// Asks how slots would lie if the members were others: answered by [`Routes`](crate::message::Routes)
/// whose view is that of no cluster. Members that are not known are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PlanRequest {
    /// Members with another weight.
    pub weights: Vec<(NodeId, u16)>,
    /// Members that are away.
    pub without: Vec<NodeId>,
    /// Members in another zone.
    pub zones: Vec<(NodeId, String)>,
}
