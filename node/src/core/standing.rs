//! How the node stands in the cluster, and what follows for a core's slots.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use annulus_gossip::{Ring, View};
use annulus_proto::message::{RouteNode, Routes};
use annulus_proto::{Entry, Key, Member, NodeId, RouteTable, Slot, Status};
use annulus_slots::Phase;
use rand::RngExt;

use super::Core;
use super::io::Now;
use super::settings::{Partition, majority};

/// What the cores know of the cluster: the members, the rings that follow from them, and where this
/// node stands. The hub makes a new one with each change.
#[derive(Clone, Debug)]
pub struct Standing {
    pub(super) me: NodeId,
    pub(super) status: Status,
    pub(super) view: View,
    /// The rings, the innermost first. There is one at least.
    pub(super) rings: Vec<Placement>,
    /// The other homes of slots that this node is a home of, on any ring.
    pub(super) partners: BTreeSet<NodeId>,
    /// Members that are only presumed dead.
    pub(super) presumed: BTreeSet<NodeId>,
    /// Whether an earlier run knew members that nothing was heard of yet in this one. They may know of epochs
    /// that nobody here does.
    pub(super) has_unmet: bool,
    /// Whether there is reason to believe that others hold more: an earlier run knew members, and
    /// none was met yet.
    pub(super) alone_by_misfortune: bool,
    /// How often this node found that it was held for dead: the others kept no hints for it then.
    pub(super) revivals: u64,
    /// Grows whenever anything but `alone_by_misfortune` may have changed.
    pub(super) generation: u64,
}

/// Where the slots are on one of the rings.
#[derive(Clone, Debug)]
pub(super) struct Placement {
    /// How many members serve the ring that have not left for good, whatever becomes of them now.
    pub(super) members: usize,
    pub(super) ring: Arc<Ring>,
    /// The ring with the members counted in that are only presumed dead: to vouch for anything, a
    /// node has to be in touch with a majority of these homes.
    pub(super) quorum: Arc<Ring>,
    /// The ring with all members counted in that have not left, dead or alive: whoever is one of these homes
    /// keeps what an application has there, while some of them are away.
    pub(super) roster: Arc<Ring>,
}

/// How long after a change of the view slots are compared, at most, or by nodes that are in sync so much later: the
/// exact time is drawn, so that nodes do not all begin at once.
const SYNC_SPREAD: Duration = Duration::from_millis(200);

impl Standing {
    /// All members that are known, the dead included, in ascending order of ids.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.view.iter()
    }

    /// Whether somebody is a member that has neither died nor left.
    pub fn is_active(&self, id: NodeId) -> bool {
        self.member(id).is_some_and(|member| !matches!(member.status, Status::Down | Status::Left))
    }

    /// The digest of the view.
    pub fn view_digest(&self) -> u64 {
        self.view.digest()
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The ring where sessions are born, of as many homes as the table has that has most.
    pub fn ring(&self) -> &Ring {
        &self.innermost().ring
    }

    /// The record about a member.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.view.get(id)
    }

    /// The homes of all slots, as they follow from what this node knows.
    pub fn routes(&self) -> RouteTable {
        let ring = &self.innermost().ring;
        RouteTable::new(routes(&self.view, ring)).expect("a ring has the homes that it says")
    }

    /// The ring where sessions are born.
    pub(super) fn innermost(&self) -> &Placement {
        &self.rings[0]
    }

    /// The ring with this number; the outermost in place of one that there is not.
    pub(super) fn placement(&self, ring: u8) -> &Placement {
        &self.rings[usize::from(ring).min(self.rings.len() - 1)]
    }
}

/// The homes of all slots by a view and the ring that follows from it.
pub(super) fn routes(view: &View, ring: &Ring) -> Routes {
    let node = |id: &NodeId| {
        let member = view.get(*id);
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        RouteNode {
            id: *id,
            name: member.map(|member| member.name.clone()).unwrap_or_default(),
            addr: member.map_or(unknown, |member| member.addr),
        }
    };
    Routes {
        view: view.digest(),
        nodes: ring.nodes().iter().map(node).collect(),
        homes_per_slot: u8::try_from(ring.homes_per_slot()).unwrap_or(u8::MAX),
        homes: ring.home_indexes(),
    }
}

impl Core {
    pub(super) fn on_standing(&mut self, now: Now, standing: Arc<Standing>) {
        if standing.revivals != self.standing.revivals {
            self.estranged.extend(&self.companions);
        }
        let is_new = standing.generation != self.standing.generation;
        let stale = self.stale_max();
        for partner in standing.partners.difference(&self.standing.partners) {
            // Nobody asked it for a sign of life until now: it has not been silent.
            if let Some(heard) = self.heard.get_mut(partner)
                && heard.at + stale <= now.monotonic
            {
                heard.at = Duration::ZERO;
            }
        }
        self.standing = standing;
        if is_new {
            self.forget_hints_for_the_inactive();
            self.review_near();
            self.take_up_slots(now);
        }
    }

    /// What a dead node misses it gets by comparison when it comes back. A hint may have been kept after
    /// it was said to be gone, by what was under way.
    fn forget_hints_for_the_inactive(&mut self) {
        let view = &self.standing.view;
        // Not of those that were not met yet: a restarted node knows nobody at first.
        let is_gone = |id: &NodeId| view.get(*id).is_some_and(|it| !it.status.is_active());
        let homes =
            self.tables.iter().flat_map(|table| table.hints.homes().chain(table.hints.marked()));
        let gone: BTreeSet<NodeId> = homes.filter(is_gone).collect();
        for id in gone {
            (0..self.tables.len()).for_each(|table| self.forget_hints(table, id));
        }
    }

    /// Nothing waits for a node that is gone.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.heard.remove(&node);
        self.cores_elsewhere.remove(&node);
        for table in 0..self.tables.len() {
            self.forget_hints(table, node);
            self.tables[table].epochs.forget(node);
            self.tables[table].sync.remove(&node);
            self.tables[table].sync_due.remove(&node);
            self.tables[table].waiting_due.remove(&node);
            self.tables[table].not_ready.remove(&node);
        }
    }

    /// Takes up the slots of this core that the ring gives to this node, and begins to give away what went
    /// elsewhere ([`super::handover`]).
    ///
    /// A member that this node was out of touch with may hold writes of its side, and this node may
    /// lack them or the ends of what it holds: they compare before this node vouches for a slot
    /// again. One that is seen `Joining` has restarted, and does the comparing itself.
    pub(super) fn take_up_slots(&mut self, now: Now) {
        let me = self.id();
        let now_ms = self.time.now_ms(now);
        let is_joining = self.standing.status == Status::Joining;
        let standing = self.standing.clone();
        let view = &standing.view;
        let active = |member: &&Member| member.id != me && member.status.is_active();
        let companions: BTreeSet<NodeId> = view.iter().filter(active).map(|m| m.id).collect();
        let mut back = std::mem::take(&mut self.estranged);
        let is_new = |member: &&Member| {
            !self.companions.contains(&member.id) && member.status != Status::Joining
        };
        back.extend(view.iter().filter(active).filter(is_new).map(|member| member.id));
        back.retain(|id| companions.contains(id));
        let has_lost = self.companions.iter().any(|node| !companions.contains(node));
        self.companions.clone_from(&companions);
        let mut others = companions;
        others.extend(&standing.presumed);
        // Whoever is in touch with somebody either knows what became of its slots, or says nothing of them.
        let inherited = self.inherits;
        let vouches = self.is_up() && !standing.alone_by_misfortune;
        self.inherits &= others.is_empty() && (!self.is_up() || standing.alone_by_misfortune);
        for table in 0..self.tables.len() {
            // What is under way was begun for another set of slots.
            let cut_off = std::mem::take(&mut self.tables[table].sync);
            self.tables[table].put_off.clear();
            self.tables[table].not_ready.clear();
            if !others.is_empty() {
                self.keep_sketches(table);
            } else if self.is_up() && !standing.alone_by_misfortune {
                self.tables[table].store.put_off_sketches();
            }
            for slot in self.slots() {
                let home = self.ring_homes(table, slot).contains(&me);
                let decides = self.is_decider(table, slot);
                let state = &mut self.tables[table].slots[usize::from(slot.index())];
                if home && !state.home {
                    state.sources.clone_from(&others);
                } else if home {
                    state.sources.extend(&back);
                } else {
                    state.sources.clear();
                }
                state.sources.retain(|source| others.contains(source));
                state.home = home;
                state.decides = decides;
                let phase = self.tables[table].custody.holding(slot.index()).phase();
                let is_free = phase == Phase::None && !is_joining;
                match home || decides {
                    true => self.tables[table].store.adopt(slot, now_ms),
                    false if is_free => self.tables[table].store.set_aside(slot, now_ms),
                    false => {}
                }
                self.hold_or_leave(table, slot, home || decides);
                let vouches = vouches && self.slot_state(table, slot).is_synced();
                if !vouches && !self.inherits {
                    // Extending the others' words can wait.
                    self.tables[table].store.set_freshness(slot, 0);
                }
            }
            // Whoever lacks something begins: what it fetches nobody has to bring.
            let head_start = match self.slots_unsynced(table) {
                0 => SYNC_SPREAD,
                _ => Duration::ZERO,
            };
            for &other in &others {
                let at = now.monotonic + head_start + SYNC_SPREAD.mul_f64(self.rng.random::<f64>());
                // Whoever joins leaves what others hold in common as it was: all is compared when its time comes.
                let is_known = self.tables[table].sync_due.contains_key(&other);
                if has_lost
                    || !is_known
                    || cut_off.get(&other).is_some_and(|session| session.has_to_be_done())
                {
                    self.tables[table].sync_due.insert(other, at);
                } else {
                    self.tables[table].compare_waiting(other, at);
                }
            }
        }
        self.place_anew(now);
        self.place_sets(now, &others, &back);
        self.meet_all(now, &self.companions.clone());
        match inherited && !self.inherits {
            // What the earlier run said counts no more.
            true => self.extend_freshness(now),
            false => self.begin_freshness_again(),
        }
    }

    /// What this node holds under a key, as its earlier run might have answered it, had it gone on without
    /// hearing of anybody: alive by its own clock and by the one that readers have from that run.
    pub(super) fn inherited(&mut self, now: Now, table: usize, key: &Key) -> Option<Entry> {
        let monotonic_ms = as_ms(now.monotonic);
        let store = &mut self.tables[table].store;
        if !self.inherits || store.freshness(key.slot()) <= monotonic_ms {
            return None;
        }
        let now_ms = self.time.now_ms(now).max(store.readers_ms(monotonic_ms));
        store.get(key, now_ms).filter(|entry| !entry.is_expired(now_ms))
    }

    /// Whether this node may answer for a slot by itself: it is in sync, and has heard of a majority
    /// of the homes within `stale_max`.
    pub(super) fn vouches(&self, now: Now, table: usize, slot: Slot) -> bool {
        let stale_max = self.tables[table].store.policy().stale_max;
        let heard = self.vouching_heard(now, table, slot);
        self.slot_state(table, slot).is_synced()
            && !self.standing.alone_by_misfortune
            && heard.is_some_and(|at| at + stale_max > now.monotonic)
    }

    /// The homes of a slot if nobody is dead that is only presumed so.
    pub(super) fn quorum_homes(&self, table: usize, slot: Slot) -> &[NodeId] {
        let homes = self.placement(table).quorum.homes(slot);
        let replicas = usize::from(self.tables[table].store.policy().replicas.get());
        &homes[..homes.len().min(replicas)]
    }

    /// When a majority was heard of that has to be in touch for this node to vouch for a slot.
    fn vouching_heard(&self, now: Now, table: usize, slot: Slot) -> Option<Duration> {
        self.majority_heard(now, self.vouching_homes(table, slot)?)
    }

    /// Of whom a majority has to be in touch for this node to vouch for a slot: its homes, or in tables that
    /// refuse to go on without one those that decide, if this node is one that may.
    pub(super) fn vouching_homes(&self, table: usize, slot: Slot) -> Option<&[NodeId]> {
        match self.tables[table].store.policy().partition {
            Partition::Serve => Some(self.quorum_homes(table, slot)),
            Partition::Refuse => Some(&self.deciding(table, slot)?.homes),
        }
    }

    /// The latest time at which a majority of these homes had been heard of, this node included.
    pub(super) fn majority_heard(&self, now: Now, homes: &[NodeId]) -> Option<Duration> {
        let me = self.id();
        let mut times = [Duration::ZERO; annulus_proto::limits::REPLICAS_MAX];
        for (time, home) in times.iter_mut().zip(homes) {
            *time = match self.heard.get(home) {
                _ if *home == me => now.monotonic,
                Some(heard) => heard.at,
                None => Duration::ZERO,
            };
        }
        let times = &mut times[..homes.len()];
        times.sort_unstable_by(|a, b| b.cmp(a));
        let at = *times.get(majority(homes.len()).checked_sub(1)?)?;
        (at > Duration::ZERO).then_some(at)
    }
}

pub(super) fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
