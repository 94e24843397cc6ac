//! Which nodes are the homes of which slot, as one node sees it.

use std::iter;
use std::net::SocketAddr;

use crate::key::{Key, SLOT_COUNT, Slot};
use crate::limits::{MEMBERS_MAX, REPLICAS_MAX};
use crate::message::{RouteNode, Routes};
use crate::version::NodeId;

/// The homes of all slots by one view, checked.
///
/// A slot has as many homes here as the table with the most `replicas` gives it; of a table with
/// fewer the first ones are meant. Some 100 KB for three homes; whatever is asked of one slot costs
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTable(Routes);

/// Neighbouring slots that have the same homes in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRange<'a> {
    /// The first of them.
    pub first: Slot,
    /// The last of them.
    pub last: Slot,
    /// Their homes, primary first.
    pub homes: Vec<&'a RouteNode>,
}

impl RouteTable {
    /// Checks what a node sent.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn new(routes: Routes) -> Result<Self, &'static str> {
        let per_slot = usize::from(routes.homes_per_slot);
        if per_slot > REPLICAS_MAX || routes.nodes.len() > MEMBERS_MAX {
            return Err("more homes or nodes than there may be");
        }
        if routes.homes.len() != per_slot * usize::from(SLOT_COUNT) {
            return Err("not as many homes as it says");
        }
        if routes.homes.iter().any(|&home| usize::from(home) >= routes.nodes.len()) {
            return Err("a home that is no node");
        }
        Ok(Self(routes))
    }

    /// The digest of the view it was computed from: another table with the same digest is the same.
    pub fn view(&self) -> u64 {
        self.0.view
    }

    /// All nodes that are homes of something.
    pub fn nodes(&self) -> &[RouteNode] {
        &self.0.nodes
    }

    /// How many homes each slot has.
    pub fn homes_per_slot(&self) -> usize {
        self.0.homes_per_slot.into()
    }

    /// The homes of a slot, primary first. None at all in a cluster where no node takes slots.
    pub fn homes(&self, slot: Slot) -> impl ExactSizeIterator<Item = &RouteNode> {
        self.indexes(slot).iter().map(|&home| &self.0.nodes[usize::from(home)])
    }

    /// The homes of a key, primary first.
    pub fn homes_of_key(&self, key: &Key) -> impl ExactSizeIterator<Item = &RouteNode> {
        self.homes(key.slot())
    }

    /// The first home of a slot; `None` where it has none.
    pub fn primary(&self, slot: Slot) -> Option<&RouteNode> {
        self.homes(slot).next()
    }

    /// The homes of a slot but the first.
    pub fn secondaries(&self, slot: Slot) -> impl ExactSizeIterator<Item = &RouteNode> {
        self.homes(slot).skip(1)
    }

    /// The slots that a node is a home of, in ascending order, each with its place among the homes: 0
    /// where it is the primary. Costs a look at every slot.
    pub fn slots_of(&self, node: NodeId) -> impl Iterator<Item = (Slot, usize)> {
        let index = self.0.nodes.iter().position(|known| known.id == node);
        let index = index.and_then(|index| u16::try_from(index).ok());
        Slot::all().filter_map(move |slot| {
            let rank = self.indexes(slot).iter().position(|home| Some(*home) == index)?;
            Some((slot, rank))
        })
    }

    /// All slots in ascending order, neighbours with the same homes taken together, as Redis Cluster
    /// lists them.
    pub fn ranges(&self) -> impl Iterator<Item = SlotRange<'_>> {
        let mut next = Slot::new(0);
        iter::from_fn(move || {
            let first = next?;
            let mut last = first;
            let after = |slot: Slot| Slot::new(slot.index() + 1);
            while let Some(slot) = after(last).filter(|it| self.indexes(*it) == self.indexes(first))
            {
                last = slot;
            }
            next = after(last);
            Some(SlotRange { first, last, homes: self.homes(first).collect() })
        })
    }

    /// The node at an address.
    pub fn at(&self, addr: SocketAddr) -> Option<&RouteNode> {
        self.0.nodes.iter().find(|node| node.addr == addr)
    }

    /// The node with an id.
    pub fn node(&self, id: NodeId) -> Option<&RouteNode> {
        self.0.nodes.iter().find(|node| node.id == id)
    }

    /// As the node sent it.
    pub fn as_sent(&self) -> &Routes {
        &self.0
    }

    fn indexes(&self, slot: Slot) -> &[u16] {
        let per_slot = self.homes_per_slot();
        let start = per_slot * usize::from(slot.index());
        &self.0.homes[start..start + per_slot]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(nodes: u16, per_slot: u8) -> Routes {
        let node = |n: u16| RouteNode {
            id: NodeId::from_bits(n.into()),
            name: n.to_string(),
            addr: ([127, 0, 0, 1], 7000 + n).into(),
        };
        let homes = (0..usize::from(SLOT_COUNT) * usize::from(per_slot))
            .map(|n| (n % usize::from(nodes)) as u16)
            .collect();
        Routes { view: 1, nodes: (0..nodes).map(node).collect(), homes_per_slot: per_slot, homes }
    }

    fn slot(index: u16) -> Slot {
        Slot::new(index).unwrap()
    }

    fn ids<'a>(nodes: impl Iterator<Item = &'a RouteNode>) -> Vec<u64> {
        nodes.map(|node| node.id.bits()).collect()
    }

    #[test]
    fn homes_come_primary_first() {
        let table = RouteTable::new(routes(3, 2)).unwrap();
        assert_eq!(ids(table.homes(slot(1))), [2, 0]);
        assert_eq!(table.primary(slot(1)).unwrap().id.bits(), 2);
        assert_eq!(ids(table.secondaries(slot(1))), [0]);
        let key = Key::new("k").unwrap();
        assert_eq!(ids(table.homes_of_key(&key)), ids(table.homes(key.slot())));
    }

    #[test]
    fn the_slots_of_a_node_are_those_that_have_it_as_a_home() {
        let table = RouteTable::new(routes(3, 2)).unwrap();
        for node in 0..3 {
            let id = NodeId::from_bits(node);
            let found: Vec<(Slot, usize)> = table.slots_of(id).collect();
            let expected: Vec<(Slot, usize)> = Slot::all()
                .filter_map(|slot| Some((slot, table.homes(slot).position(|it| it.id == id)?)))
                .collect();
            assert_eq!(found, expected);
            assert!(found.len() > 10_000 && found.iter().any(|(_, rank)| *rank == 1));
        }
        assert_eq!(table.slots_of(NodeId::from_bits(9)).count(), 0, "a node that is no home");
    }

    #[test]
    fn ranges_cover_all_slots_and_join_what_has_the_same_homes() {
        let mut given = routes(2, 1);
        given.homes.fill(0);
        given.homes[100..200].fill(1);
        *given.homes.last_mut().unwrap() = 1;
        let table = RouteTable::new(given).unwrap();
        let ranges = table.ranges();
        let found: Vec<(u16, u16, u64)> = ranges
            .map(|range| (range.first.index(), range.last.index(), range.homes[0].id.bits()))
            .collect();
        assert_eq!(found, [(0, 99, 0), (100, 199, 1), (200, 16_382, 0), (16_383, 16_383, 1)]);
    }

    #[test]
    fn routes_that_contradict_themselves_are_refused() {
        let mut short = routes(3, 2);
        short.homes.pop();
        assert!(RouteTable::new(short).is_err());
        let mut foreign = routes(3, 2);
        foreign.homes[77] = 3;
        assert!(RouteTable::new(foreign).is_err());
        assert!(RouteTable::new(Routes { homes_per_slot: 200, ..routes(3, 2) }).is_err());
    }

    #[test]
    fn a_cluster_without_homes_routes_nowhere() {
        let empty = Routes { view: 9, nodes: Vec::new(), homes_per_slot: 0, homes: Vec::new() };
        let table = RouteTable::new(empty).unwrap();
        assert_eq!(table.homes(slot(16_383)).count(), 0);
        assert_eq!(table.primary(slot(0)), None);
        assert_eq!(table.ranges().count(), 1);
    }
}
