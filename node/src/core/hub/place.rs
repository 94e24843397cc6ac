//! What those who place sessions and slots ask of a node: how busy hosts are, which suit best, how slots would
//! lie.

use std::collections::{BTreeMap, BTreeSet};

use annulus_gossip::Ring;
use annulus_proto::codec::Header;
use annulus_proto::limits::NAME_BYTES_MAX;
use annulus_proto::message::{
    Affinity, HostLoad, LoadRequest, Message, PlanRequest, Ranked, Rejected, Routes,
};
use annulus_proto::{Member, NodeId, Status};

use super::Hub;
use crate::core::calls::HubPurpose;
use crate::core::io::{Asker, Now};
use crate::core::standing::routes;

/// Members that are asked how busy they are, for one who wants them ranked.
#[derive(Debug)]
pub(super) struct Ranking {
    asker: Asker,
    id: u64,
    affinity: Affinity,
    waiting: usize,
    loads: BTreeMap<NodeId, HostLoad>,
}

/// The rankings that are under way.
#[derive(Debug, Default)]
pub(super) struct Rankings {
    last: u64,
    open: BTreeMap<u64, Ranking>,
}

/// Rankings that may be under way: each asks all members.
const RANKINGS_MAX: usize = 64;

impl Hub {
    /// Asks all members that serve how busy they are.
    pub(super) fn rank(&mut self, now: Now, asker: Asker, header: Header, affinity: Affinity) {
        if self.rankings.open.len() >= RANKINGS_MAX {
            return self.refuse_as_busy(now, asker, header.id);
        }
        let me = self.mesh.me().id;
        let mut loads = BTreeMap::new();
        if self.mesh.me().status == Status::Up {
            loads.insert(me, self.host_load);
        }
        let serves = |member: &&Member| member.id != me && member.status == Status::Up;
        let others: Vec<Member> = self.mesh.view().iter().filter(serves).cloned().collect();
        self.rankings.last += 1;
        let number = self.rankings.last;
        let waiting = others.len();
        let ranking = Ranking { asker, id: header.id, affinity, waiting, loads };
        self.rankings.open.insert(number, ranking);
        for member in others {
            let purpose = HubPurpose::Load { ranking: number, node: member.id };
            self.call_for(now, member.addr, purpose, LoadRequest {});
        }
        self.end_ranking(now, number);
    }

    /// A member has said how busy its host is; `None`: it did not answer.
    pub(super) fn on_load(
        &mut self,
        now: Now,
        number: u64,
        node: NodeId,
        answer: Option<(NodeId, Message)>,
    ) {
        let Some(ranking) = self.rankings.open.get_mut(&number) else { return };
        ranking.waiting -= 1;
        if let Some((from, Message::HostLoad(load))) = answer
            && from == node
        {
            ranking.loads.insert(node, load);
        }
        self.end_ranking(now, number);
    }

    fn end_ranking(&mut self, now: Now, number: u64) {
        let is_done = |ranking: &Ranking| ranking.waiting == 0;
        if !self.rankings.open.get(&number).is_some_and(is_done) {
            return;
        }
        let Some(Ranking { asker, id, affinity, loads, .. }) = self.rankings.open.remove(&number)
        else {
            return;
        };
        let nodes = ranked(affinity, loads.into_iter().collect());
        self.reply(now, asker, id, Ranked { nodes });
    }

    /// How slots would lie if the members were as somebody supposes.
    pub(super) fn plan(&self, request: &PlanRequest) -> Message {
        if request.zones.iter().any(|(_, zone)| zone.len() > NAME_BYTES_MAX) {
            let why = format!("a zone's name above {NAME_BYTES_MAX} bytes");
            return Rejected::Malformed { why }.into();
        }
        let weights: BTreeMap<NodeId, u16> = request.weights.iter().copied().collect();
        let without: BTreeSet<NodeId> = request.without.iter().copied().collect();
        let zones: BTreeMap<NodeId, &String> =
            request.zones.iter().map(|(node, zone)| (*node, zone)).collect();
        let suppose = |member: &Member| {
            let mut member = member.clone();
            member.weight = weights.get(&member.id).copied().unwrap_or(member.weight);
            if let Some(zone) = zones.get(&member.id) {
                member.zone.clone_from(zone);
            }
            if without.contains(&member.id) {
                member.status = Status::Left;
            }
            member
        };
        let view = self.mesh.view().iter().map(suppose).collect();
        let ring = Ring::build(&view, 0, self.homes_max[0]);
        // Nobody goes by it.
        Routes { view: 0, ..routes(&view, &ring) }.into()
    }
}

/// The nodes with the one that suits best in front: of those that are alike the one with the smaller id.
/// Whoever cannot tell comes last.
fn ranked(affinity: Affinity, mut nodes: Vec<(NodeId, HostLoad)>) -> Vec<(NodeId, HostLoad)> {
    let rank = |load: &HostLoad| match affinity {
        Affinity::Cpu => load.cpu_permille.map_or(u64::MAX, u64::from),
        Affinity::Io => load.io_permille.map_or(u64::MAX, u64::from),
        Affinity::Network => load.network_bytes.unwrap_or(u64::MAX),
        Affinity::Memory => u64::MAX - load.memory_free.unwrap_or(0),
    };
    nodes.sort_by_key(|(node, load)| (rank(load), *node));
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_suited_is_in_front_and_who_cannot_tell_at_the_end() {
        let load = |cpu, memory, io, network| HostLoad {
            cpu_permille: cpu,
            memory_free: memory,
            io_permille: io,
            network_bytes: network,
        };
        let nodes = [
            load(Some(900), Some(10), Some(0), None),
            load(Some(100), Some(30), Some(5), Some(7)),
            load(Some(100), None, Some(5), Some(3)),
            load(None, Some(20), None, Some(5)),
        ];
        let nodes = (1..).map(NodeId::from_bits).zip(nodes);
        let order = |affinity| {
            let ranked = ranked(affinity, nodes.clone().collect());
            ranked.into_iter().map(|(node, _)| node.bits()).collect::<Vec<_>>()
        };
        assert_eq!(order(Affinity::Cpu), [2, 3, 1, 4]);
        assert_eq!(order(Affinity::Memory), [2, 4, 1, 3]);
        assert_eq!(order(Affinity::Io), [1, 2, 3, 4]);
        assert_eq!(order(Affinity::Network), [3, 4, 2, 1]);
    }
}
