//! Which nodes are the homes of which slot, as one node sees it.

use std::net::SocketAddr;

use annulus_proto::limits::{MEMBERS_MAX, REPLICAS_MAX};
use annulus_proto::message::{RouteNode, Routes};
use annulus_proto::{NodeId, SLOT_COUNT, Slot};

/// The homes of all slots, checked.
#[derive(Clone, Debug)]
pub(crate) struct RouteTable(Routes);

impl RouteTable {
    /// Checks what a node sent.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn new(routes: Routes) -> Result<Self, &'static str> {
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

    /// The digest of the view it was computed from.
    pub(crate) fn view(&self) -> u64 {
        self.0.view
    }

    /// All nodes that are homes of something.
    pub(crate) fn nodes(&self) -> &[RouteNode] {
        &self.0.nodes
    }

    /// The homes of a slot, primary first.
    pub(crate) fn homes(&self, slot: Slot) -> impl Iterator<Item = &RouteNode> {
        let per_slot = usize::from(self.0.homes_per_slot);
        let start = per_slot * usize::from(slot.index());
        self.0.homes[start..start + per_slot].iter().map(|&home| &self.0.nodes[usize::from(home)])
    }

    /// The node at an address.
    pub(crate) fn at(&self, addr: SocketAddr) -> Option<&RouteNode> {
        self.0.nodes.iter().find(|node| node.addr == addr)
    }

    /// The node with an id.
    pub(crate) fn node(&self, id: NodeId) -> Option<&RouteNode> {
        self.0.nodes.iter().find(|node| node.id == id)
    }

    /// As the node sent it.
    pub(crate) fn as_sent(&self) -> &Routes {
        &self.0
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

    #[test]
    fn homes_come_primary_first() {
        let table = RouteTable::new(routes(3, 2)).unwrap();
        let slot = Slot::new(1).unwrap();
        let ids: Vec<u64> = table.homes(slot).map(|node| node.id.bits()).collect();
        assert_eq!(ids, [2, 0]);
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
        assert_eq!(table.homes(Slot::new(16_383).unwrap()).count(), 0);
    }
}
