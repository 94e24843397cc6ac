//! Which nodes are the homes of a slot.

use annulus_proto::limits::REPLICAS_MAX;
use annulus_proto::{NodeId, SLOT_COUNT, Slot, Status};
use twox_hash::XxHash3_64;

use crate::view::View;

/// The placement of one tier: for each slot its homes, in order. A pure function of the view: equal
/// views give equal rings on every platform.
///
/// Weighted rendezvous hashing (Thaler and Ravishankar 1998; the weights as in Schindelhauer and
/// Schomaker, *Weighted Distributed Hash Tables*, 2005): each node scores `weight / -log2(u)` for
/// each slot, u being a 64-bit hash of both, read as a fraction. Logarithms are computed with
/// integers and compared by cross multiplication; ties go to the lower id.
///
/// The order of preference of a slot begins with the best node of each zone, in score order, and
/// goes on with the others, in score order. Its homes are the first of them, so fewer homes are a
/// prefix of more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    tier: u8,
    nodes: Vec<NodeId>,
    sites: Vec<Site>,
    homes_per_slot: usize,
    home_indexes: Vec<u16>,
    homes: Vec<NodeId>,
}

impl Ring {
    /// The ring of `tier` for this view: the members that are up, serve the tier and have a weight.
    /// A slot has `homes_max` homes (at most [`REPLICAS_MAX`]), or all nodes when there are fewer.
    ///
    /// Costs a hash per slot and node, and a logarithm each where weights differ: about 10 ms for
    /// 10 nodes, 1 s for 1,000.
    pub fn build(view: &View, tier: u8, homes_max: u8) -> Self {
        let bit = 1u8.checked_shl(tier.into()).unwrap_or(0);
        let serving = view
            .active()
            .filter(|m| m.status == Status::Up && m.rings & bit != 0 && m.weight > 0)
            .collect::<Vec<_>>();
        let nodes = serving.iter().map(|member| member.id).collect::<Vec<_>>();
        let mut zones = serving.iter().map(|member| member.zone.as_str()).collect::<Vec<_>>();
        zones.sort_unstable();
        zones.dedup();
        let sites = serving.iter().enumerate().map(|(index, member)| Site {
            id: member.id,
            weight: member.weight,
            zone: match zones.binary_search(&member.zone.as_str()) {
                // A node without a zone fails with nobody else.
                _ if member.zone.is_empty() => zones.len() + index,
                Ok(zone) | Err(zone) => zone,
            },
        });
        let sites = sites.collect::<Vec<_>>();
        let homes_per_slot = usize::from(homes_max).min(REPLICAS_MAX).min(nodes.len());
        let mut ring = Self {
            tier,
            nodes,
            sites,
            homes_per_slot,
            home_indexes: Vec::with_capacity(homes_per_slot * usize::from(SLOT_COUNT)),
            homes: Vec::new(),
        };
        let mut scores = Vec::with_capacity(ring.nodes.len());
        let mut chosen = Vec::with_capacity(homes_per_slot);
        for slot in Slot::all() {
            ring.score(slot, &mut scores);
            ring.prefer(&scores, homes_per_slot, &mut chosen);
            ring.home_indexes.extend(chosen.iter().map(|&index| index as u16));
        }
        ring.homes =
            ring.home_indexes.iter().map(|&index| ring.nodes[usize::from(index)]).collect();
        ring
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
    pub fn homes(&self, slot: Slot) -> &[NodeId] {
        let start = usize::from(slot.index()) * self.homes_per_slot;
        &self.homes[start..start + self.homes_per_slot]
    }

    /// Whether a node is one of a slot's homes.
    pub fn is_home(&self, node: NodeId, slot: Slot) -> bool {
        self.homes(slot).contains(&node)
    }

    /// How many homes each slot has.
    pub fn homes_per_slot(&self) -> usize {
        self.homes_per_slot
    }

    /// All homes as a table: slot by slot, [`Ring::homes_per_slot`] indexes into [`Ring::nodes`]
    /// each.
    pub fn home_indexes(&self) -> &[u16] {
        &self.home_indexes
    }

    /// All nodes of the ring in a slot's order of preference: its homes, then those that would
    /// follow. Costs a hash per node and a sort.
    pub fn candidates(&self, slot: Slot) -> Vec<NodeId> {
        let mut scores = Vec::with_capacity(self.nodes.len());
        self.score(slot, &mut scores);
        let mut order = (0..self.nodes.len()).collect::<Vec<_>>();
        order.sort_unstable_by(|&a, &b| scores[a].order(&scores[b]));
        let homes = self.homes(slot);
        let others = order.into_iter().map(|index| self.nodes[index]);
        homes.iter().copied().chain(others.filter(|node| !homes.contains(node))).collect()
    }

    /// Every node's score for a slot, in the order of [`Ring::nodes`].
    fn score(&self, slot: Slot, scores: &mut Vec<Score>) {
        // With equal weights the order of the logarithms is the order of the hashes.
        let equal = self.sites.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        scores.clear();
        scores.extend(self.sites.iter().enumerate().map(|(index, site)| {
            let hash = hash(slot, site.id);
            let cost = if equal { 0 } else { negative_log2(hash) };
            Score { cost, weight: site.weight, hash, index }
        }));
    }

    /// The first `count` sites in the order of preference.
    fn prefer(&self, scores: &[Score], count: usize, chosen: &mut Vec<usize>) {
        chosen.clear();
        for distinct in [true, false] {
            while chosen.len() < count {
                let is_taken = |score: &&Score| {
                    let zone = self.sites[score.index].zone;
                    let used = || chosen.iter().any(|&c| self.sites[c].zone == zone);
                    chosen.contains(&score.index) || (distinct && used())
                };
                let free = scores.iter().filter(|score| !is_taken(score));
                let Some(best) = free.min_by(|a, b| a.order(b)) else {
                    break;
                };
                chosen.push(best.index);
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Site {
    id: NodeId,
    weight: u16,
    zone: usize,
}

struct Score {
    /// `-log2` of the hash as a fraction, in units of 2^-32.
    cost: u64,
    weight: u16,
    hash: u64,
    /// Sites are in ascending order of ids.
    index: usize,
}

impl Score {
    /// Best first: `cost / weight` ascending, then the hash descending, then the id ascending.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let mine = u128::from(self.cost) * u128::from(other.weight);
        let others = u128::from(other.cost) * u128::from(self.weight);
        mine.cmp(&others)
            .then_with(|| other.hash.cmp(&self.hash))
            .then_with(|| self.index.cmp(&other.index))
    }
}

#[cfg(not(test))]
use xxh3 as hash;

#[cfg(test)]
fn hash(slot: Slot, node: NodeId) -> u64 {
    // Ties are too rare to meet: the tests force them by keeping a few bits only.
    xxh3(slot, node) & tests::HASH_MASK.get()
}

fn xxh3(slot: Slot, node: NodeId) -> u64 {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&node.bits().to_le_bytes());
    bytes[8..].copy_from_slice(&slot.index().to_le_bytes());
    XxHash3_64::oneshot_with_seed(HASH_SEED, &bytes)
}

/// `-log2((hash | 1) / 2^64)` in units of 2^-32, rounded up. Exact in its bits, and never grows
/// with the hash: the fraction's bits come one by one from squaring (Knuth, TAOCP 1.2.2, exercise
/// 25), each step rounding down.
fn negative_log2(hash: u64) -> u64 {
    let hash = hash | 1;
    let zeros = hash.leading_zeros();
    // In [1, 2), with 63 bits after the point.
    let mut x = hash << zeros;
    let mut log = u64::from(63 - zeros);
    for _ in 0..LOG_FRACTION_BITS {
        let square = (u128::from(x) * u128::from(x)) >> 63;
        let carry = (square >> 64) as u64;
        x = (square >> carry) as u64;
        log = (log << 1) | carry;
    }
    (64 << LOG_FRACTION_BITS) - log
}

const LOG_FRACTION_BITS: u32 = 32;

const HASH_SEED: u64 = 0x616e_6e75_6c75_7372;

#[cfg(test)]
mod tests;
