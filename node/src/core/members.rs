//! Joining, the view, and what follows from its changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use annulus_gossip::{Event, Ring};
use annulus_proto::codec::Header;
use annulus_proto::message::{Exchange, Message, Ping};
use annulus_proto::{Member, NodeId, Slot, Status};
use rand::RngExt;

use super::calls::Purpose;
use super::io::{Asker, Now, Output};
use super::settings::majority;
use super::{Core, Heard, LEAVE_FOR, PING_AFTER};

/// How often views are exchanged with one address at most.
const EXCHANGE_PERIOD: Duration = Duration::from_millis(500);
/// How long after a change of the view slots are compared, at most: the exact time is drawn, so that
/// nodes do not all begin at once.
const SYNC_SPREAD: Duration = Duration::from_millis(200);

impl Core {
    pub(super) fn on_gossip(&mut self, now: Now, from: SocketAddr, header: Header, packet: &[u8]) {
        let sender = self.mesh.view().iter().find(|member| member.addr == from);
        if let Some(node) = sender.map(|member| member.id) {
            self.hear(now, node, header);
        }
        self.mesh.handle_datagram(now.monotonic, from, packet);
    }

    pub(super) fn on_seeds(&mut self, now: Now, seeds: Vec<SocketAddr>) {
        let me = self.mesh.me().addr;
        self.seeds = seeds.into_iter().filter(|seed| *seed != me).collect();
        for seed in self.seeds.clone() {
            self.mesh.announce(now.monotonic, seed);
        }
        self.exchange_while_joining(now);
    }

    /// Tries again to reach the cluster; after a while serves alone, so that a cluster can begin
    /// with one node and a cut-off one is of use. Seeds stay announced to for ever.
    pub(super) fn retry_join(&mut self, now: Now) {
        if self.mesh.me().status != Status::Joining || self.stopping.is_some() {
            return;
        }
        if now.monotonic >= self.started + self.settings.join_timeout {
            return self.found(now);
        }
        self.exchange_while_joining(now);
    }

    fn exchange_while_joining(&mut self, now: Now) {
        if self.mesh.me().status != Status::Joining {
            return;
        }
        let mut known = self.seeds.clone();
        known.extend(&self.persisted.state.peers);
        if !known.is_empty() && self.unanswered_seeds.is_none() {
            self.unanswered_seeds = Some(known.iter().copied().collect());
        }
        for addr in known {
            self.exchange_with(now, addr);
        }
    }

    /// A seed has answered, or will not. Once none is left and nobody is up, there is no cluster to
    /// join, and this node begins one; others that begin at the same time do the same, and meet.
    pub(super) fn on_seed_tried(&mut self, now: Now, addr: SocketAddr) {
        let Some(unanswered) = &mut self.unanswered_seeds else { return };
        unanswered.remove(&addr);
        if unanswered.is_empty() && !self.alone_by_misfortune {
            self.found(now);
        }
    }

    fn found(&mut self, now: Now) {
        if self.mesh.me().status == Status::Joining && self.stopping.is_none() {
            self.counters.add("joined_alone");
            self.become_up(now);
        }
    }

    pub(super) fn become_up(&mut self, now: Now) {
        if self.mesh.me().status == Status::Joining {
            self.mesh.set_status(now.monotonic, Status::Up);
            self.rebuild_ring(now);
        }
    }

    pub(super) fn exchange_with(&mut self, now: Now, addr: SocketAddr) {
        if addr == self.mesh.me().addr {
            return;
        }
        let recently = |at: &Duration| *at + EXCHANGE_PERIOD > now.monotonic;
        if self.exchanged.get(&addr).is_some_and(recently) {
            return;
        }
        self.exchanged.retain(|_, at| recently(at));
        self.exchanged.insert(addr, now.monotonic);
        let message = self.exchange_message(true);
        self.call_addr(now, None, addr, Purpose::Exchange, message);
    }

    pub(super) fn on_exchange(
        &mut self,
        now: Now,
        asker: Asker,
        header: Header,
        exchange: Exchange,
    ) {
        self.alone_by_misfortune = false;
        self.mesh.merge(now.monotonic, exchange.members);
        if exchange.reply {
            let answer = self.exchange_message(false);
            self.reply(now, asker, header.id, answer);
        }
    }

    pub(super) fn on_exchange_answer(
        &mut self,
        now: Now,
        from: SocketAddr,
        header: Header,
        message: Message,
    ) {
        let Message::Exchange(exchange) = message else {
            return self.counters.add("answers_out_of_place");
        };
        self.counters.add("views_exchanged");
        self.mesh.merge(now.monotonic, exchange.members);
        // Before this node serves, so that it begins with a clock that somebody has confirmed.
        let sender = self.mesh.view().iter().find(|member| member.addr == from);
        if let Some(node) = sender.map(|member| member.id) {
            self.hear(now, node, header);
        }
        self.alone_by_misfortune = false;
        let me = self.id();
        let serves = |status| matches!(status, Status::Up | Status::Draining);
        let cluster = |member: &Member| member.id != me && serves(member.status);
        if self.stopping.is_none() && self.mesh.view().iter().any(cluster) {
            self.become_up(now);
        }
        self.on_seed_tried(now, from);
    }

    pub(super) fn on_stop(&mut self, now: Now, leave: bool) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(now.monotonic);
        if leave {
            self.mesh.leave(now.monotonic);
            self.stopping = Some(now.monotonic + LEAVE_FOR);
        }
    }

    /// Hands on what the mesh has to send and to say.
    pub(super) fn drain_mesh(&mut self, now: Now) {
        let mut view_changed = false;
        while let Some(event) = self.mesh.poll_event() {
            match event {
                Event::ViewChanged { .. } => view_changed = true,
                Event::MemberUp(_) => self.counters.add("members_up"),
                Event::MemberDown(node) => {
                    self.counters.add("members_down");
                    self.forget(node);
                }
                Event::MemberLeft(node) => {
                    self.counters.add("members_left");
                    self.forget(node);
                }
                Event::ExchangeWith(addr) => self.exchange_with(now, addr),
                Event::PeersChanged => self.persist_if_wanted(now),
                Event::IncarnationRaised(_) => {
                    // The others held this node for dead, and kept no hints for it.
                    self.persist_if_wanted(now);
                    self.estranged.extend(&self.companions);
                }
                Event::IdInUse { addr, incarnation } => {
                    self.counters.add("ids_in_use");
                    let mine = self.mesh.me();
                    let later = (mine.incarnation, mine.addr) > (incarnation, addr);
                    self.outputs.push_back(Output::IdInUse { addr, give_way: later });
                }
                _ => {}
            }
        }
        if view_changed || !self.estranged.is_empty() {
            self.rebuild_ring(now);
        }
        while let Some(transmit) = self.mesh.poll_transmit() {
            let header = self.header(now, 0);
            let (to, packet) = (transmit.to, transmit.packet);
            self.outputs.push_back(Output::Gossip { to, header, packet });
        }
    }

    /// Nothing waits for a node that is gone.
    fn forget(&mut self, node: NodeId) {
        self.heard.remove(&node);
        let presumed = self.mesh.presumed().any(|member| member.id == node);
        for table in &mut self.tables {
            table.hints.forget(node);
            table.sync.remove(&node);
            table.sync_due.remove(&node);
            for state in table.slots.iter_mut().filter(|_| !presumed) {
                state.sources.remove(&node);
            }
        }
    }

    /// Computes the ring anew and takes up what it gives to this node. Nothing is let go: entries of
    /// slots that went elsewhere stay here.
    ///
    /// A member that this node was out of touch with may hold writes of its side, and this node may
    /// lack them or the ends of what it holds: they compare before this node vouches for a slot
    /// again. One that is seen `Joining` has restarted, and does the comparing itself.
    pub(super) fn rebuild_ring(&mut self, now: Now) {
        self.counters.add("views_changed");
        let me = self.id();
        let view = self.mesh.view();
        let presumed: BTreeMap<NodeId, Member> =
            self.mesh.presumed().map(|member| (member.id, member.clone())).collect();
        self.ring = Ring::build(view, 0, self.homes_max);
        self.quorum_ring = if presumed.is_empty() {
            self.ring.clone()
        } else {
            let before = |member: &Member| presumed.get(&member.id).unwrap_or(member).clone();
            Ring::build(&view.iter().map(before).collect(), 0, self.homes_max)
        };
        let active = |member: &&Member| member.id != me && member.status.is_active();
        let companions: BTreeSet<NodeId> = view.iter().filter(active).map(|m| m.id).collect();
        let mut back = std::mem::take(&mut self.estranged);
        let is_new = |member: &&Member| {
            !self.companions.contains(&member.id) && member.status != Status::Joining
        };
        back.extend(view.iter().filter(active).filter(is_new).map(|member| member.id));
        back.retain(|id| companions.contains(id));
        self.companions.clone_from(&companions);
        self.presumed = presumed.len();
        let mut others = companions;
        others.extend(presumed.keys());
        for table in 0..self.tables.len() {
            // What is under way was begun for another set of slots.
            self.tables[table].sync.clear();
            for slot in Slot::all() {
                let home = self.homes(table, slot).contains(&me);
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
            }
            for &other in &others {
                let wait = SYNC_SPREAD.mul_f64(self.rng.random::<f64>());
                self.tables[table].sync_due.insert(other, now.monotonic + wait);
            }
        }
        self.extend_freshness(now);
    }

    /// A presumed death that turns out to be one changes nothing in the view, but whom to wait for.
    pub(super) fn notice_confirmed_deaths(&mut self, now: Now) {
        if self.mesh.presumed().count() < self.presumed {
            self.rebuild_ring(now);
        }
    }

    /// Asks those for a sign of life that should have given one.
    pub(super) fn ping_the_silent(&mut self, now: Now) {
        if self.mesh.me().status == Status::Joining {
            return;
        }
        let me = self.id();
        let nodes: Vec<NodeId> = self.ring.nodes().iter().copied().filter(|id| *id != me).collect();
        for node in nodes {
            let heard = self.heard.entry(node).or_insert(Heard::NEVER);
            let silent = heard.at + PING_AFTER <= now.monotonic;
            if silent && heard.pinged + PING_AFTER <= now.monotonic {
                heard.pinged = now.monotonic;
                self.call(now, node, Purpose::Ping, Ping {});
            }
        }
    }

    /// Extends what this host's readers may trust: a slot in sync, `stale_max` from when a majority
    /// of its homes was last heard of.
    pub(super) fn extend_freshness(&mut self, now: Now) {
        let offset = self.time.offset_ms(now);
        let vouches = self.is_up() && !self.alone_by_misfortune;
        for table in 0..self.tables.len() {
            let stale_max = self.tables[table].store.policy().stale_max;
            self.tables[table].store.set_clock_offset(offset);
            for slot in Slot::all() {
                let synced = vouches && self.slot_state(table, slot).is_synced();
                let homes = self.quorum_homes(table, slot);
                let heard = if synced { self.majority_heard(now, homes) } else { None };
                let until = heard.map_or(0, |at| as_ms(at + stale_max));
                self.tables[table].store.set_freshness(slot, until);
            }
        }
    }

    /// Nothing that an earlier run vouched for is vouched for by this one.
    pub(super) fn forget_freshness(&mut self) {
        for table in &mut self.tables {
            for slot in Slot::all() {
                table.store.set_freshness(slot, 0);
            }
        }
    }

    /// Whether this node may answer for a slot by itself: it is in sync, and has heard of a majority
    /// of the homes within `stale_max`.
    pub(super) fn vouches(&self, now: Now, table: usize, slot: Slot) -> bool {
        let stale_max = self.tables[table].store.policy().stale_max;
        let heard = self.majority_heard(now, self.quorum_homes(table, slot));
        self.slot_state(table, slot).is_synced()
            && !self.alone_by_misfortune
            && heard.is_some_and(|at| at + stale_max > now.monotonic)
    }

    /// The homes of a slot if nobody is dead that is only presumed so.
    pub(super) fn quorum_homes(&self, table: usize, slot: Slot) -> &[NodeId] {
        let homes = self.quorum_ring.homes(slot);
        let replicas = usize::from(self.tables[table].store.policy().replicas.get());
        &homes[..homes.len().min(replicas)]
    }

    /// The latest time at which a majority of these homes had been heard of, this node included.
    fn majority_heard(&self, now: Now, homes: &[NodeId]) -> Option<Duration> {
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

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
