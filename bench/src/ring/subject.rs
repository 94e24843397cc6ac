//! What says where slots lie.

use std::net::SocketAddr;

use annulus_gossip::{Ring, View};
use annulus_proto::{Load, Member, NodeId, SLOT_COUNT, Slot, Status};
use twox_hash::XxHash3_64;

pub(crate) const SLOTS: usize = SLOT_COUNT as usize;

const VIRTUAL_NODES: u64 = 256;

/// The homes of a slot by id, the primary first.
pub(crate) type Homes = Vec<u64>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Each slot's homes are the nodes with the highest hashes of node and slot.
    Rendezvous,
    /// Nodes lie on a circle in many places each; a slot's homes are the next nodes on it.
    VirtualNodes,
    /// Lamping and Veach, *A Fast, Minimal Memory, Consistent Hash Algorithm*, 2014.
    Jump,
    Annulus,
}

/// Nodes as a subject wants to have them.
pub(crate) enum Placement {
    Rendezvous(Vec<u64>),
    VirtualNodes(Vec<u64>),
    Annulus(View),
}

/// What a subject computes once and looks into for each slot.
pub(crate) enum Built {
    Rendezvous(Vec<Homes>),
    VirtualNodes(Circle),
    Annulus(Box<Ring>),
}

/// Places on the circle and whose they are, in ascending order.
pub(crate) struct Circle(Vec<(u64, u64)>);

impl Subject {
    pub(crate) const ALL: [Self; 4] =
        [Self::Rendezvous, Self::VirtualNodes, Self::Jump, Self::Annulus];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rendezvous => "rendezvous",
            Self::VirtualNodes => "256 virtual nodes",
            Self::Jump => "jump",
            Self::Annulus => "annulus",
        }
    }

    /// The homes of all slots.
    pub(crate) fn place(self, ids: &[u64], homes: usize) -> Vec<Homes> {
        match self.prepare(ids).map(|placement| placement.build(homes)) {
            None => (0..SLOT_COUNT)
                .map(|slot| jump(slot, ids.len(), homes).into_iter().map(|n| ids[n]).collect())
                .collect(),
            Some(Built::Rendezvous(all)) => all,
            Some(Built::VirtualNodes(circle)) => {
                (0..SLOT_COUNT).map(|slot| circle.find(slot, homes)).collect()
            }
            Some(Built::Annulus(ring)) => Slot::all()
                .map(|slot| ring.homes(slot).iter().map(|node| node.bits()).collect())
                .collect(),
        }
    }

    /// None for what has nothing to compute beforehand.
    pub(crate) fn prepare(self, ids: &[u64]) -> Option<Placement> {
        match self {
            Self::Rendezvous => Some(Placement::Rendezvous(ids.to_vec())),
            Self::VirtualNodes => Some(Placement::VirtualNodes(ids.to_vec())),
            Self::Jump => None,
            Self::Annulus => {
                Some(Placement::Annulus(ids.iter().map(|id| member(*id, 100, "")).collect()))
            }
        }
    }
}

impl Placement {
    /// Nodes of four weights in four zones, for Annulus.
    pub(crate) fn mixed(ids: &[u64]) -> Self {
        let member = |(index, id): (usize, &u64)| {
            member(*id, [50, 100, 200, 400][index / 4 % 4], ["a", "b", "c", "d"][index % 4])
        };
        Self::Annulus(ids.iter().enumerate().map(member).collect())
    }

    pub(crate) fn build(&self, homes: usize) -> Built {
        match self {
            Self::Rendezvous(ids) => {
                Built::Rendezvous((0..SLOT_COUNT).map(|slot| best(slot, ids, homes)).collect())
            }
            Self::VirtualNodes(ids) => Built::VirtualNodes(Circle::of(ids)),
            Self::Annulus(view) => Built::Annulus(Box::new(Ring::build(view, 0, homes as u8))),
        }
    }
}

impl Built {
    /// Finds a slot's homes and looks at them.
    pub(crate) fn find(&self, slot: u16, homes: usize) -> u64 {
        match self {
            Self::Rendezvous(all) => all[usize::from(slot)].iter().fold(0, |all, id| all ^ id),
            Self::VirtualNodes(circle) => {
                circle.find(slot, homes).iter().fold(0, |all, id| all ^ id)
            }
            Self::Annulus(ring) => {
                let slot = Slot::new(slot).expect("it is one");
                ring.homes(slot).iter().fold(0, |all, node| all ^ node.bits())
            }
        }
    }
}

impl Circle {
    fn of(ids: &[u64]) -> Self {
        let places = |id: &u64| {
            let id = *id;
            (0..VIRTUAL_NODES).map(move |number| (hash(id, number), id))
        };
        let mut places = ids.iter().flat_map(places).collect::<Vec<_>>();
        places.sort_unstable();
        Self(places)
    }

    fn find(&self, slot: u16, homes: usize) -> Homes {
        let at = hash(u64::MAX, slot.into());
        let first = self.0.partition_point(|(place, _)| *place < at);
        let mut found = Homes::with_capacity(homes);
        for (_, id) in self.0[first..].iter().chain(&self.0[..first]) {
            if !found.contains(id) {
                found.push(*id);
                if found.len() == homes {
                    break;
                }
            }
        }
        found
    }
}

/// The homes of a slot by numbers of nodes.
pub(crate) fn jump(slot: u16, nodes: usize, homes: usize) -> Vec<usize> {
    let mut found = Vec::with_capacity(homes);
    for attempt in 0.. {
        if found.len() == homes.min(nodes) {
            break;
        }
        let node = jump_once(hash(attempt, slot.into()), nodes as i64);
        if !found.contains(&node) {
            found.push(node);
        }
    }
    found
}

fn jump_once(mut key: u64, nodes: i64) -> usize {
    let (mut node, mut next) = (-1, 0);
    while next < nodes {
        node = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((node + 1) as f64 * ((1_i64 << 31) as f64 / ((key >> 33) + 1) as f64)) as i64;
    }
    node as usize
}

/// The nodes with the highest hashes.
fn best(slot: u16, ids: &[u64], homes: usize) -> Homes {
    let mut scores = ids.iter().map(|id| (hash(*id, slot.into()), *id)).collect::<Vec<_>>();
    let count = homes.min(scores.len());
    if count < scores.len() {
        scores.select_nth_unstable_by(count, |a, b| b.cmp(a));
    }
    scores.truncate(count);
    scores.sort_unstable_by(|a, b| b.cmp(a));
    scores.into_iter().map(|(_, id)| id).collect()
}

fn hash(of: u64, and: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&of.to_le_bytes());
    bytes[8..].copy_from_slice(&and.to_le_bytes());
    XxHash3_64::oneshot(&bytes)
}

fn member(id: u64, weight: u16, zone: &str) -> Member {
    Member {
        id: NodeId::from_bits(id),
        incarnation: 1,
        revision: 0,
        status: Status::Up,
        addr: SocketAddr::from(([127, 0, 0, 1], 7_946)),
        name: String::new(),
        zone: zone.to_owned(),
        weight,
        rings: 1,
        door: None,
        load: Load::default(),
    }
}
