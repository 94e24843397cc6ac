//! Which nodes are the homes of a slot.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::RangeInclusive;

use annulus_proto::limits::REPLICAS_MAX;
use annulus_proto::{NodeId, SLOT_COUNT, Slot, Status};

use crate::view::View;
use shares::{Share, shares};
use turns::Turns;

mod shares;
mod turns;

/// The placement of one tier: for each slot its homes, in order. A pure function of the view: equal
/// views give equal rings on every platform.
///
/// Slots are placed in [`GROUPS`] groups of neighbours. Nodes take turns, heavy ones more of them.
/// In each turn a node asks for another group, in an order of its own, and gets it if it is the
/// first to ask and may have it. One that holds a tenth more than its share asks no more. So all
/// groups get their primaries, then their second homes, and so on.
///
/// This is weighted rendezvous hashing (Thaler and Ravishankar 1998; weights as in Schindelhauer
/// and Schomaker, *Weighted Distributed Hash Tables*, 2005) with bounded loads (Mirrokni, Thorup
/// and Zadimoghaddam 2018), but that the scores of each node are spread evenly, as in Maglev
/// (Eisenbud et al. 2016). Everything is computed with integers; ties go to the lower id.
///
/// Homes of a slot lie in distinct zones while there are enough. Fewer homes are a prefix of more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    tier: u8,
    nodes: Vec<NodeId>,
    sites: Vec<Site>,
    homes_per_slot: usize,
    /// Group by group, indexes into `nodes`.
    home_indexes: Vec<u16>,
    /// The same as ids.
    homes: Vec<NodeId>,
}

/// Neighbouring slots with the same homes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range<'a> {
    /// The first and the last of them.
    pub slots: RangeInclusive<u16>,
    /// Their homes, the primary first.
    pub homes: &'a [NodeId],
}

/// How many groups slots are placed in: enough of them that 100 nodes hold about the same, and so
/// few that a list of all is small: some 95 bytes each in the answer to `CLUSTER SLOTS`.
pub const GROUPS: u16 = 1_024;

impl Ring {
    /// The ring of `tier` for this view: the members that are up, serve the tier and have a weight.
    /// A slot has `homes_max` homes (at most [`REPLICAS_MAX`]), or all nodes when there are fewer.
    ///
    /// Of equal nodes without zones, up to 100, each holds at most 11 % more than the average where
    /// slots have three homes or more, and is primary of at most a tenth and two groups more.
    /// Weights and zones decide what a node's share is, as far as homes can be distinct.
    ///
    /// Costs some hundred nanoseconds for each group and home: 0.2 ms for 3 nodes, 2 to 4 ms for
    /// 1,000.
    pub fn build(view: &View, tier: u8, homes_max: u8) -> Self {
        let bit = 1u8.checked_shl(tier.into()).unwrap_or(0);
        let serving = view
            .active()
            .filter(|m| m.status == Status::Up && m.rings & bit != 0 && m.weight > 0)
            .collect::<Vec<_>>();
        let nodes = serving.iter().map(|member| member.id).collect::<Vec<_>>();
        let mut names = serving.iter().map(|member| member.zone.as_str()).collect::<Vec<_>>();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !name.is_empty());
        let mut zones = vec![0; names.len()];
        let mut sites = Vec::with_capacity(nodes.len());
        for member in serving {
            let zone = names.binary_search(&member.zone.as_str()).unwrap_or_else(|_| {
                // A node without a zone fails with nobody else.
                zones.push(0);
                zones.len() - 1
            });
            zones[zone] += u64::from(member.weight);
            let turns = Turns::of(member.id);
            sites.push(Site { weight: member.weight, zone, turns, delay: 0 });
        }
        let homes_per_slot = usize::from(homes_max).min(REPLICAS_MAX).min(nodes.len());
        let mut placing = Placing::new(&sites, zones.len(), homes_per_slot);
        let mut last = shares(&sites, &zones, 1);
        for rank in 0..homes_per_slot {
            if rank > 0 {
                last = shares(&sites, &zones, rank + 1);
            }
            placing.place(rank, &last);
        }
        let home_indexes = placing.homes;
        sites.iter_mut().zip(last).for_each(|(site, share)| site.delay = share.delay);
        let homes = home_indexes.iter().map(|&index| nodes[usize::from(index)]).collect();
        Self { tier, nodes, sites, homes_per_slot, home_indexes, homes }
    }

    /// The tier.
    pub fn tier(&self) -> u8 {
        self.tier
    }

    /// The nodes of the ring, in ascending order of ids.
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// The homes of a slot, the primary first; none when the ring has no nodes.
    #[inline]
    pub fn homes(&self, slot: Slot) -> &[NodeId] {
        self.homes_of_group(group(slot))
    }

    /// Whether a node is one of a slot's homes.
    pub fn is_home(&self, node: NodeId, slot: Slot) -> bool {
        self.homes(slot).contains(&node)
    }

    /// The other nodes that are homes of any slot together with this one: at most a home's share of
    /// [`GROUPS`] times one less than [`Ring::homes_per_slot`], however many nodes there are. Looks at
    /// every group once.
    pub fn partners(&self, node: NodeId) -> BTreeSet<NodeId> {
        let groups = self.homes.chunks_exact(self.homes_per_slot.max(1));
        let shared = groups.filter(|homes| homes.contains(&node));
        shared.flatten().copied().filter(|home| *home != node).collect()
    }

    /// How many homes each slot has.
    pub fn homes_per_slot(&self) -> usize {
        self.homes_per_slot
    }

    /// All homes as a table: slot by slot, [`Ring::homes_per_slot`] indexes into [`Ring::nodes`]
    /// each.
    pub fn home_indexes(&self) -> Vec<u16> {
        let groups = self.home_indexes.chunks_exact(self.homes_per_slot.max(1));
        groups.flat_map(|homes| homes.repeat(SLOTS_PER_GROUP.into())).collect()
    }

    /// All slots as ranges whose first `homes` homes are the same: with 1 the map of primaries. At
    /// most [`GROUPS`] ranges, and never two neighbours that are alike; none when the ring has no
    /// nodes.
    pub fn ranges(&self, homes: usize) -> impl Iterator<Item = Range<'_>> {
        let homes_of = move |group: u16| {
            let all = self.homes_of_group(group);
            &all[..homes.min(all.len())]
        };
        let mut next = if self.homes.is_empty() { GROUPS } else { 0 };
        std::iter::from_fn(move || {
            let first = next;
            let homes = (first < GROUPS).then(|| homes_of(first))?;
            next = (first..GROUPS).find(|&group| homes_of(group) != homes).unwrap_or(GROUPS);
            let slots = first * SLOTS_PER_GROUP..=next * SLOTS_PER_GROUP - 1;
            Some(Range { slots, homes })
        })
    }

    /// All nodes of the ring in a slot's order of preference: its homes, then those that would
    /// follow if nobody held too much. Costs a hash per node and a sort.
    pub fn candidates(&self, slot: Slot) -> Vec<NodeId> {
        let group = group(slot);
        let homes = self.homes_of_group(group);
        let arrival = |index: &usize| {
            let site = &self.sites[*index];
            (site.turns.arrival(site.turns.turn(group), site.delay), *index)
        };
        let mut others = (0..self.nodes.len())
            .filter(|&index| !homes.contains(&self.nodes[index]))
            .collect::<Vec<_>>();
        others.sort_by_cached_key(arrival);
        let others = others.into_iter().map(|index| self.nodes[index]);
        homes.iter().copied().chain(others).collect()
    }

    #[inline]
    fn homes_of_group(&self, group: u16) -> &[NodeId] {
        let start = usize::from(group) * self.homes_per_slot;
        &self.homes[start..start + self.homes_per_slot]
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Site {
    weight: u16,
    zone: usize,
    turns: Turns,
    /// Of the last homes that were placed.
    delay: u128,
}

/// A ring that is being filled.
struct Placing<'a> {
    sites: &'a [Site],
    zone_count: usize,
    homes_per_slot: usize,
    /// Group by group, indexes of sites; [`NOBODY`] where there is none yet.
    homes: Vec<u16>,
    /// How many groups each site holds.
    held: Vec<u16>,
}

impl<'a> Placing<'a> {
    fn new(sites: &'a [Site], zone_count: usize, homes_per_slot: usize) -> Self {
        let homes = vec![NOBODY; usize::from(GROUPS) * homes_per_slot];
        Self { sites, zone_count, homes_per_slot, homes, held: vec![0; sites.len()] }
    }

    /// Gives each group its home of this rank; those of lower ranks have theirs.
    fn place(&mut self, rank: usize, shares: &[Share]) {
        let sites = self.sites;
        let arrival = |index: u16, turn: u16| {
            let (site, share) = (&sites[usize::from(index)], &shares[usize::from(index)]);
            Reverse((site.turns.arrival(turn, share.delay), index, turn))
        };
        let indexes = 0..sites.len() as u16;
        let mut queue = indexes.map(|index| arrival(index, 0)).collect::<BinaryHeap<_>>();
        let mut open = GROUPS;
        while let Some(mut front) = queue.peek_mut().filter(|_| open > 0) {
            let Reverse((_, index, turn)) = *front;
            let site = usize::from(index);
            let wants_more = self.held[site] < shares[site].groups_max;
            if wants_more {
                let group = sites[site].turns.group(turn);
                if self.may_hold(group, rank, site) {
                    self.give(group, rank, site);
                    open -= 1;
                }
            }
            if wants_more && turn + 1 < GROUPS {
                *front = arrival(index, turn + 1);
            } else {
                PeekMut::pop(front);
            }
        }
        // Whoever may still have more is a home of these already, or in the zone of one.
        let left = (0..GROUPS).filter(|&group| self.home(group, rank) == NOBODY);
        for group in left.collect::<Vec<_>>() {
            let free = (0..self.sites.len()).filter(|&index| self.may_hold(group, rank, index));
            let least = free.min_by_key(|&index| {
                let [held, most] = [self.held[index], shares[index].groups_max].map(u64::from);
                (((held + 1) << 32) / most, index)
            });
            self.give(group, rank, least.expect("there are more sites, and zones, than homes"));
        }
    }

    /// Whether a site may be the home of this rank, if that has none.
    fn may_hold(&self, group: u16, rank: usize, index: usize) -> bool {
        let start = usize::from(group) * self.homes_per_slot;
        let (homes, own) = (&self.homes[start..start + rank], self.homes[start + rank]);
        let zone = |index: u16| self.sites[usize::from(index)].zone;
        own == NOBODY
            && if rank < self.zone_count {
                homes.iter().all(|&home| zone(home) != self.sites[index].zone)
            } else {
                homes.iter().all(|&home| usize::from(home) != index)
            }
    }

    fn home(&self, group: u16, rank: usize) -> u16 {
        self.homes[usize::from(group) * self.homes_per_slot + rank]
    }

    fn give(&mut self, group: u16, rank: usize, index: usize) {
        self.homes[usize::from(group) * self.homes_per_slot + rank] = index as u16;
        self.held[index] += 1;
    }
}

#[inline]
fn group(slot: Slot) -> u16 {
    slot.index() / SLOTS_PER_GROUP
}

const SLOTS_PER_GROUP: u16 = SLOT_COUNT / GROUPS;
const NOBODY: u16 = u16::MAX;

const _: () = {
    assert!(SLOT_COUNT.is_multiple_of(GROUPS));
    assert!(annulus_proto::limits::MEMBERS_MAX < NOBODY as usize);
};

#[cfg(test)]
mod tests;
