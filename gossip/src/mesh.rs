//! One node's part in the membership protocol.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use annulus_proto::codec::encode_value;
use annulus_proto::limits::{MEMBER_BYTES_MAX, MEMBERS_MAX};
use annulus_proto::{Load, Member, NodeId, Status};
use bytes::Buf;
use foca::{Codec, Foca, Header, Message, OwnedNotification, State, Timer};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::view::{
    INCARNATION_AHEAD, INCARNATION_MAX, INCARNATION_SURE, View, beats, is_acceptable,
};
use config::{TRANSMISSIONS_FEW, swim_config};
use deaths::Missing;
use facts::Facts;
use flaps::Flaps;
use health::{Health, Hearing};
use learn::Spread;
use peer::Peer;
use probe::{Answer, Probe};
use rtt::Rtts;
use runtime::Effects;
use timers::Timers;
use verify::{Asked, Verifying};
use wire::{Bound, BoundedCodec, Claim, Doubt, Frame, SwimCodec};

#[doc(hidden)]
pub use config::Guard;
pub use config::MeshConfig;
pub use flaps::DEATHS_MAX;
pub use leave::{FAREWELL, NotRemoved};
pub use report::{Channel, Counters, Event, Transmit};
pub use rtt::Rtt;
pub use wire::view_of;

mod config;
mod deaths;
mod due;
mod facts;
mod flaps;
mod health;
mod learn;
mod leave;
mod peer;
mod probe;
mod receive;
mod report;
mod rtt;
mod runtime;
mod survey;
mod timers;
mod verify;
mod wire;

/// One node's part in the membership protocol: foca's SWIM, the facts about members, and what
/// becomes of foca's conclusions. No I/O, no clock, no entropy.
///
/// # Call order
/// `now` is a monotonic time since any fixed start, and never goes back.
/// 1. [`Mesh::new`] with this node's own record (`Joining`), then [`Mesh::remember_deaths`] and
///    [`Mesh::remember`], and [`Mesh::announce`] for each seed.
/// 2. After every call that takes `&mut self`: [`Mesh::poll_transmit`] until `None`, then
///    [`Mesh::poll_event`] until `None`, then [`Mesh::poll_timeout`] for the next deadline.
/// 3. A packet that arrives goes to [`Mesh::handle_datagram`] or [`Mesh::handle_stream_packet`], with
///    its envelope checked and taken off. At the deadline (or later) call [`Mesh::handle_timeout`].
/// 4. On [`Event::ExchangeWith`], and when another node asks for an exchange: [`Mesh::snapshot`] out,
///    [`Mesh::merge`] in.
/// 5. [`Mesh::set_status`] with `Up` after the first exchange (or when the node is to begin a new
///    cluster): a joiner owns no slots.
/// 6. [`Mesh::leave`], then keep on driving it for [`FAREWELL`] before the sockets close.
///
/// # From suspicion to death
/// A probe fails: many pings, others' pings and a ping over a stream. foca suspects, and nothing moves.
/// The suspicion's time passes; the member does not answer `verify_pings` either, and none of
/// `verify_peers` others reaches it: foca declares it down, and still nothing moves. `down_after`
/// passes and it did not come back with a higher incarnation: its record becomes `Down` in the view,
/// together with those of all who died at the same time, and that spreads as a fact at that
/// incarnation, which only a higher one beats.
///
/// How far this node may judge others it learns from those that it heard last: they are pinged with
/// each probe that fails. While nobody answers in time it declares nobody down, and while few do, its
/// judgements take longer ([`Mesh::health`]). When nothing at all was heard for `isolated_after` it
/// presumes all others down, for itself only: that does not spread, and is taken back for each member
/// that turns up again.
pub struct Mesh {
    config: MeshConfig,
    started: Duration,
    now: Duration,
    rng: StdRng,
    me: Member,
    /// The incarnation that this run began with: the clock's time at the start, or a little more.
    first_incarnation: u64,
    bound: Bound,
    flaps: Flaps,
    has_left: bool,
    foca: Foca<Peer, BoundedCodec, StdRng, Facts>,
    effects: Effects,
    facts: Facts,
    timers: Timers<Due>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    counters: Counters,

    view: View,
    /// Restarted members whose `Joining` is kept from the view, where their earlier life is `Up`.
    held: BTreeMap<NodeId, Held>,
    /// Members that foca declared down and the view has not yet.
    missing: BTreeMap<NodeId, Missing>,
    /// Members presumed down in isolation, with their records from before.
    presumed: BTreeMap<NodeId, Member>,
    /// Members that an earlier run knew, and that nothing was heard of in this one.
    unmet: BTreeMap<NodeId, Member>,
    /// When somebody was first heard after the isolation.
    contact_at: Option<Duration>,
    verifying: BTreeMap<NodeId, Verifying>,
    asked: BTreeMap<NodeId, Asked>,
    /// foca's incarnation of this node: how often it has refuted a suspicion in this life.
    refutations: u16,
    health: Health,
    hearing: Hearing,
    /// A deadline that this node was run late for, and that was noted.
    late_for: Option<Duration>,

    /// Whose packet is being taken in, if it came over a stream.
    asker: Option<Peer>,
    /// The probe under way, while it is not answered.
    probe: Option<Probe>,
    /// How many probes have failed since one last succeeded.
    failed_in_row: u32,
    rtts: Rtts,
    /// When somebody last answered, however late.
    heard_at: Duration,
    /// When somebody last answered in time.
    answered_at: Duration,
    seeds: Vec<SocketAddr>,
    announce_after: Duration,
    announce_cursor: usize,
    has_exchanged: bool,
    /// When view and foca are compared next.
    reconcile_at: Duration,
    exchange_at_soonest: Duration,
    /// Digests of others that are not ours: when each was first and last seen.
    foreign: BTreeMap<u64, (Duration, Duration)>,
    /// Our own digest, and since when.
    digest: u64,
    digest_at: Duration,
    /// The digest of the last `ViewChanged`.
    reported: u64,
    load: Option<Load>,
    load_at_soonest: Duration,
    /// When a member was last told that what it says of itself is outdated.
    corrected: BTreeMap<NodeId, Duration>,
    undead_at_soonest: Duration,
    challenge: Option<(u64, Duration)>,
    rival_at: Option<Duration>,
}

enum Due {
    Swim(Timer<Peer>),
    /// A suspicion has lasted `after` so many times.
    Suspicion {
        timer: Timer<Peer>,
        after: Duration,
        factor: u32,
    },
    /// A suspect is asked once more, or declared down.
    Verify {
        timer: Timer<Peer>,
        pings_left: u8,
    },
    /// The ping of this number is sent again if it was not answered.
    Repeat(u8),
    /// Somebody else's suspect is pinged again.
    Asked(NodeId),
    Announce,
    Exchange,
    Housekeeping,
    Farewell(u8),
}

struct Held {
    member: Member,
    until: Duration,
}

impl Mesh {
    /// A mesh that knows only itself. `me` is usually `Joining`; its incarnation must be above
    /// that of every earlier life (`max(saved + 1, milliseconds since 1970)`).
    ///
    /// # Panics
    /// When `me` is not well formed, or the configuration breaks a bound that its fields name: the
    /// driver checks both where they come from.
    pub fn new(config: MeshConfig, me: Member, seed: u64, now: Duration) -> Self {
        assert!(is_acceptable(&me) && me.status.is_active(), "a record of our own: {me:?}");
        assert!(encode_value(&me).len() <= MEMBER_BYTES_MAX, "bounded names bound the record");
        assert!(config.packet_bytes_max >= 600, "a packet takes the largest record");
        assert!(config.probe_period > 2 * config.probe_rtt && !config.probe_rtt.is_zero());
        assert!(config.isolated_after > config.down_after);
        let mut rng = StdRng::seed_from_u64(seed);
        let bound = Bound::default();
        let facts = Facts::new(me.id, bound.clone());
        let swim_rng = StdRng::seed_from_u64(rng.random());
        let foca = Foca::with_custom_broadcast(
            Peer::of(&me),
            swim_config(&config, 1),
            swim_rng,
            BoundedCodec(bound.clone()),
            facts.clone(),
        );
        let mut mesh = Self {
            started: now,
            now,
            rng,
            first_incarnation: me.incarnation,
            bound: bound.clone(),
            flaps: Flaps::default(),
            me: me.clone(),
            has_left: false,
            foca,
            effects: Effects::default(),
            facts,
            timers: Timers::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            view: View::from_iter([me]),
            held: BTreeMap::new(),
            missing: BTreeMap::new(),
            presumed: BTreeMap::new(),
            unmet: BTreeMap::new(),
            contact_at: None,
            verifying: BTreeMap::new(),
            asked: BTreeMap::new(),
            refutations: 0,
            health: Health::new(config.health_max),
            hearing: Hearing::default(),
            late_for: None,
            asker: None,
            probe: None,
            failed_in_row: 0,
            rtts: Rtts::default(),
            heard_at: now,
            answered_at: now,
            seeds: Vec::new(),
            announce_after: ANNOUNCE_FIRST,
            announce_cursor: 0,
            has_exchanged: false,
            reconcile_at: now,
            exchange_at_soonest: now,
            foreign: BTreeMap::new(),
            digest: 0,
            digest_at: now,
            reported: 0,
            load: None,
            load_at_soonest: now,
            corrected: BTreeMap::new(),
            undead_at_soonest: now,
            challenge: None,
            rival_at: None,
            config,
        };
        mesh.timers.set(now + ANNOUNCE_FIRST, Due::Announce);
        mesh.timers.set(now + HOUSEKEEPING, Due::Housekeeping);
        let exchange_in = mesh.jittered(mesh.config.exchange_period);
        mesh.timers.set(now + exchange_in, Due::Exchange);
        mesh.bound.move_to(mesh.incarnation_max());
        mesh.publish();
        mesh
    }

    /// Takes in a packet that came in a datagram from `from`. Whatever the bytes, nothing panics.
    pub fn handle_datagram(&mut self, now: Duration, from: SocketAddr, packet: &[u8]) {
        self.take_in(now, Channel::Datagram, Some(from), packet);
    }

    /// Takes in a packet that came over a stream. Whatever the bytes, nothing panics.
    pub fn handle_stream_packet(&mut self, now: Duration, packet: &[u8]) {
        // Where a stream comes from is not where its sender listens.
        self.take_in(now, Channel::Stream, None, packet);
    }

    fn take_in(
        &mut self,
        now: Duration,
        channel: Channel,
        from: Option<SocketAddr>,
        packet: &[u8],
    ) {
        self.enter(now);
        self.counters.packets_in += 1;
        self.counters.bytes_in += packet.len() as u64;
        if self.has_left {
            return;
        }
        if packet.len() > self.config.packet_bytes_max {
            self.counters.packets_malformed += 1;
            return;
        }
        match Frame::decode(packet) {
            None => self.counters.packets_malformed += 1,
            Some((digest, Frame::Swim(body))) => self.on_swim(digest, channel, body),
            Some((_, Frame::Announce(member))) => self.on_announce(member),
            Some((_, Frame::Facts(members))) => self.on_facts(from, members),
            Some((_, Frame::Claim(claim))) => self.on_claim(claim),
            Some((_, Frame::Doubt(doubt))) => self.on_doubt(doubt),
            Some((_, Frame::Vouch(vouch))) => self.on_vouch(vouch),
        }
        self.settle();
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.enter(now);
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::Swim(timer) => self.on_swim_timer(timer),
                Due::Suspicion { timer, after, factor } => {
                    self.on_suspicion_due(timer, after, factor);
                }
                Due::Verify { timer, pings_left } => self.on_verify(timer, pings_left),
                Due::Repeat(number) => self.on_repeat(number),
                Due::Asked(id) => self.on_asked(id),
                Due::Announce => self.on_announce_due(),
                Due::Exchange => self.on_exchange_due(),
                Due::Housekeeping => self.on_housekeeping(),
                Due::Farewell(left) => self.on_farewell(left),
            }
            self.settle();
        }
        self.conclude();
        self.settle();
    }

    /// The next packet to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.transmits.pop_front()?;
        self.counters.packets_out += 1;
        self.counters.bytes_out += transmit.packet.len() as u64;
        Some(transmit)
    }

    /// When to call [`Mesh::handle_timeout`] next; `None` once it has left and said goodbye.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let held = self.held.values().map(|held| held.until);
        held.chain(self.deaths_due()).chain(self.timers.next()).min()
    }

    /// What else happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        let digest = self.view.digest();
        if digest != self.reported {
            self.reported = digest;
            return Some(Event::ViewChanged { digest });
        }
        self.events.pop_front()
    }

    /// Announces this node to a seed, now and, while it is no active member, for
    /// ever after. The last [`SEEDS_MAX`] addresses are kept; give a name's addresses again when
    /// they change.
    pub fn announce(&mut self, now: Duration, addr: SocketAddr) {
        self.enter(now);
        if addr == self.me.addr || addr.port() == 0 || addr.ip().is_unspecified() || self.has_left {
            return;
        }
        if !self.seeds.contains(&addr) {
            if self.seeds.len() >= SEEDS_MAX {
                self.seeds.remove(0);
            }
            self.seeds.push(addr);
        }
        self.send_announce(addr);
    }

    /// Members that this node presumes down because nobody answers it, as they were before. They are
    /// `Down` in its view and may well be alive, with all that holds of a majority among them.
    pub fn presumed(&self) -> impl Iterator<Item = &Member> {
        self.presumed.values()
    }

    /// Members that were found dead, and that the view still has as they were: their slots move after `down_after`.
    pub fn missing(&self) -> impl Iterator<Item = NodeId> {
        self.missing.keys().copied()
    }

    /// Takes in whom the run before knew that had not left, right after [`Mesh::new`]. They are announced to like
    /// seeds, and are no members before something is heard of them.
    pub fn remember(&mut self, members: Vec<Member>) {
        for member in members.into_iter().take(MEMBERS_MAX) {
            if member.id != self.me.id && self.is_believable(&member) {
                self.unmet.insert(member.id, member);
            }
        }
    }

    /// Members that an earlier run knew and that nothing was heard of in this one, not even that they left: what
    /// they know nobody here does.
    pub fn unmet(&self) -> impl Iterator<Item = &Member> {
        self.unmet.values()
    }

    /// All records to send in a full exchange, in ascending order of ids.
    pub fn snapshot(&self) -> Vec<Member> {
        let own_guess = |member: &&Member| !self.presumed.contains_key(&member.id);
        let latest =
            |member: &Member| self.held.get(&member.id).map_or(member, |held| &held.member).clone();
        self.view.iter().filter(own_guess).map(latest).collect()
    }

    /// Takes in the records of a full exchange.
    pub fn merge(&mut self, now: Duration, members: Vec<Member>) {
        self.enter(now);
        if self.has_left {
            return;
        }
        self.counters.exchanges_merged += 1;
        // What came in bulk is known to those who sent it, and theirs to spread.
        let had_exchanged = self.has_exchanged;
        let spread = had_exchanged && members.len() <= SPREAD_MAX;
        self.has_exchanged |= members.iter().any(|member| member.id != self.me.id);
        for member in members.into_iter().take(MEMBERS_MAX) {
            self.learn(member, if spread { Spread::News } else { Spread::Deaths });
        }
        if self.has_exchanged && !had_exchanged {
            self.introduce_itself();
        }
        self.settle();
    }

    /// Announces this node to some members at once, who pass it on: in a large cluster that saves the
    /// first rounds of the news.
    fn introduce_itself(&mut self) {
        // Where all begin at the same time, all hear of each other anyway.
        let others = self.others().filter(|member| member.status == Status::Up);
        let mut addrs: Vec<SocketAddr> = others.map(|member| self.addr_of(member)).collect();
        if addrs.len() <= 2 * INTRODUCTIONS {
            return;
        }
        for chosen in 0..INTRODUCTIONS {
            let at = self.rng.random_range(chosen..addrs.len());
            addrs.swap(chosen, at);
            self.send_announce(addrs[chosen]);
        }
    }

    /// What this node knows of the cluster, itself included.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// This node's own record.
    pub fn me(&self) -> &Member {
        &self.me
    }

    /// Changes and spreads this node's status. `Left` is [`Mesh::leave`]; `Down` is not for a node
    /// to say of itself, and ignored. `Up` may have to wait ([`Mesh::held_back`]), and follows by
    /// itself.
    pub fn set_status(&mut self, now: Duration, status: Status) {
        self.enter(now);
        match status {
            Status::Left => self.leave(now),
            Status::Down => {}
            _ if self.has_left || self.me.status == status => {}
            Status::Up if self.me.status == Status::Joining && self.must_wait() => {}
            _ => {
                self.stop_waiting();
                self.me.status = status;
                self.revise();
            }
        }
        self.settle();
    }

    /// Changes and spreads this node's weight: its share of the slots relative to the others'.
    pub fn set_weight(&mut self, now: Duration, weight: u16) {
        self.enter(now);
        if !self.has_left && self.me.weight != weight {
            self.me.weight = weight;
            self.revise();
        }
        self.settle();
    }

    /// Changes this node's load, which spreads within [`MeshConfig::load_period`] or so.
    pub fn set_load(&mut self, load: Load) {
        self.load = Some(load).filter(|load| *load != self.me.load);
    }

    /// How far this node distrusts itself: 0 when its probes are answered and it is run in time, up to
    /// [`MeshConfig::health_max`] while they are not and others hear it. Its judgements about others
    /// take so many times longer, and once.
    pub fn health(&self) -> u8 {
        self.health.score()
    }

    /// The round trip to a member, if it takes part and was measured.
    pub fn rtt(&self, id: NodeId) -> Option<Rtt> {
        self.rtts.get(id)
    }

    /// All round trips that were measured, in ascending order of ids.
    pub fn rtts(&self) -> impl Iterator<Item = (NodeId, Rtt)> {
        self.rtts.iter()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        let members_refused =
            self.counters.members_refused + self.view.refused() + self.facts.rejected();
        Counters { members_refused, ..self.counters }
    }

    /// The members other than this one and those that were not met yet, the dead included, those that left not:
    /// for [`Mesh::remember`] in the next run. In ascending order of ids, those not met last.
    pub fn peers(&self) -> impl Iterator<Item = (&Member, SocketAddr)> {
        let known = self.others().filter(|member| member.status != Status::Left);
        let known = known.map(|member| (member, self.addr_of(member)));
        known.chain(self.unmet.values().map(|member| (member, member.addr)))
    }
}

/// What is common to all calls.
impl Mesh {
    /// Begins a call: takes note of the time, and of not having been run for too long.
    fn enter(&mut self, now: Duration) {
        if let Some(due) = self.poll_timeout()
            && self.late_for != Some(due)
        {
            let late = now.saturating_sub(due);
            if late > self.config.probe_rtt {
                self.late_for = Some(due);
                self.health.worsen(1 + late.as_secs() as usize);
            }
            if late > PAUSE {
                self.counters.pauses += 1;
                self.forgive(late);
            }
        }
        self.now = self.now.max(now);
        self.bound.move_to(self.incarnation_max());
    }

    /// The highest incarnation that is believed now.
    fn incarnation_max(&self) -> u64 {
        if self.lacks(Guard::IncarnationBound) {
            return INCARNATION_MAX;
        }
        self.life_ms().max(INCARNATION_SURE).saturating_add(INCARNATION_AHEAD).min(INCARNATION_MAX)
    }

    /// Whether a record is well formed and its incarnation can be real.
    fn is_believable(&mut self, member: &Member) -> bool {
        let is_real = member.incarnation <= self.incarnation_max();
        self.counters.incarnations_refused += u64::from(!is_real);
        is_real && is_acceptable(member)
    }

    /// Others were not heard because nobody was listening: puts off what would be held against
    /// them.
    fn forgive(&mut self, pause: Duration) {
        self.heard_at += pause;
        self.answered_at += pause;
        for missing in self.missing.values_mut() {
            missing.due += pause;
        }
        for held in self.held.values_mut() {
            held.until += pause;
        }
        self.timers.delay(pause, |due| matches!(due, Due::Verify { .. } | Due::Suspicion { .. }));
    }

    /// Carries out what foca asked for, until it asks for nothing more.
    fn settle(&mut self) {
        loop {
            while let Some((to, data)) = self.effects.sends.pop_front() {
                self.follow_probe(to, &data);
                let packet = wire::swim(self.view.digest(), &data);
                self.transmit_over(self.answer_over(&to), to.addr, packet);
            }
            while let Some((after, timer)) = self.effects.timers.pop_front() {
                self.schedule(after, timer);
            }
            if let Some(notification) = self.effects.notifications.pop_front() {
                self.on_notification(notification);
                continue;
            }
            let inbox = self.facts.take_inbox();
            if inbox.is_empty() {
                break;
            }
            for (member, spread) in inbox {
                self.learn(member, spread);
            }
        }
        if self.digest != self.view.digest() {
            self.digest = self.view.digest();
            self.digest_at = self.now;
            self.foreign.remove(&self.digest);
        }
    }

    /// Sets a timer of foca's. What this node concludes about others takes the longer the less it may
    /// trust itself.
    fn schedule(&mut self, after: Duration, timer: Timer<Peer>) {
        let slowed = self.now + self.health.slowed(after);
        match timer {
            Timer::ChangeSuspectToDown { .. } => {
                let factor = self.health.factor();
                self.timers.set(slowed, Due::Suspicion { timer, after, factor });
            }
            // Not before a few pings had their chance.
            Timer::SendIndirectProbe { .. } => {
                self.timers.set(self.now + self.health.slowed(2 * after), Due::Swim(timer));
            }
            Timer::ProbeRandomMember(_) => self.timers.set(slowed, Due::Swim(timer)),
            _ => self.timers.set(self.now + after, Due::Swim(timer)),
        }
    }

    /// How to send to this member: if a packet of its own is being taken in, as that one came.
    fn answer_over(&self, to: &Peer) -> Channel {
        self.asker.filter(|asker| asker == to).map_or(Channel::Datagram, |_| Channel::Stream)
    }

    fn transmit(&mut self, to: SocketAddr, packet: Vec<u8>) {
        self.transmit_over(Channel::Datagram, to, packet);
    }

    fn transmit_over(&mut self, channel: Channel, to: SocketAddr, packet: Vec<u8>) {
        debug_assert!(packet.len() <= self.config.packet_bytes_max);
        self.transmits.push_back(Transmit { channel, to, packet });
    }

    /// Spreads this node's own record as it is now.
    fn publish(&mut self) {
        self.view.merge(self.me.clone());
        self.spread(&self.me.clone());
    }

    /// Spreads a change of this node's facts.
    fn revise(&mut self) {
        self.me.revision = self.me.revision.saturating_add(1);
        self.publish();
    }

    /// Has foca pass a record on.
    fn spread(&mut self, member: &Member) {
        self.facts.note(member);
        // It fails for records above a packet's size only, and those are not acceptable.
        let _ = self.foca.add_broadcast(&encode_value(member));
    }

    /// The same for what may be missed: the next one follows.
    fn spread_a_little(&mut self, member: &Member) {
        let usual = swim_config(&self.config, self.foca.num_members() + 1);
        let few = foca::Config { max_transmissions: TRANSMISSIONS_FEW, ..usual.clone() };
        // They refuse changes that these are not among.
        let _ = self.foca.set_config(few);
        self.spread(member);
        let _ = self.foca.set_config(usual);
    }

    fn send_announce(&mut self, to: SocketAddr) {
        let packet = wire::announce(self.view.digest(), &self.me);
        self.transmit(to, packet);
    }

    /// Announces again soon: something is to be won by it.
    fn announce_soon(&mut self) {
        self.announce_after = ANNOUNCE_FIRST;
        self.timers.retain(|due| !matches!(due, Due::Announce));
        self.timers.set(self.now + ANNOUNCE_FIRST, Due::Announce);
    }

    fn ask_exchange(&mut self, with: SocketAddr) {
        if self.now < self.exchange_at_soonest {
            return;
        }
        // A joiner does not wait for one whose stream is slow.
        let interval = self.config.exchange_interval_min;
        let interval = if self.has_exchanged { interval } else { interval.min(JOINING) };
        self.exchange_at_soonest = self.now + interval;
        self.counters.exchanges_asked += 1;
        self.events.push_back(Event::ExchangeWith(with));
    }

    fn others(&self) -> impl Iterator<Item = &Member> {
        self.view.iter().filter(|member| member.id != self.me.id)
    }

    /// Where a member is reached: a restart may have moved it before the view follows.
    fn addr_of(&self, member: &Member) -> SocketAddr {
        self.held.get(&member.id).map_or(member.addr, |held| held.member.addr)
    }

    /// Somebody answered.
    fn note_answer(&mut self, in_time: bool) {
        self.heard_at = self.heard_at.max(self.now);
        if in_time || self.lacks(Guard::TimelyAnswers) {
            self.answered_at = self.answered_at.max(self.now);
        }
    }

    /// Whether nobody answered this node in time for longer than a suspect has to refute.
    fn is_unheard(&self) -> bool {
        self.now > self.answered_at + self.health.slowed(self.config.suspect_for)
    }

    fn lacks(&self, guard: Guard) -> bool {
        self.config.without == Some(guard)
    }

    fn jittered(&mut self, period: Duration) -> Duration {
        period.mul_f64(self.rng.random_range(0.9..1.1))
    }
}

/// Most seeds that are announced to.
pub const SEEDS_MAX: usize = 256;

const ANNOUNCE_FIRST: Duration = Duration::from_millis(150);
/// How often a node that presumes all others down announces itself.
const ANNOUNCE_ALONE: Duration = Duration::from_millis(500);
/// How often announcements go out within the pause between them, where several members are lost.
const ANNOUNCE_TURNS: u32 = 3;
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How often a node that has not exchanged views yet asks for it, at most.
const JOINING: Duration = Duration::from_millis(100);
/// A call that comes later than this means that the process or the host stood still.
const PAUSE: Duration = Duration::from_secs(1);
/// How long views may differ before an exchange is asked for: news take a while.
const DISAGREEMENT: Duration = Duration::from_secs(1);
/// Most foreign digests remembered, and for how long after they were last seen.
const FOREIGN_MAX: usize = 64;
const FOREIGN_KEPT: Duration = Duration::from_secs(10);
/// Above this many records in one exchange its news are not passed on one by one.
const SPREAD_MAX: usize = 64;
/// To how many members a joiner of a large cluster introduces itself.
const INTRODUCTIONS: usize = 16;
/// How often one member is corrected, at most.
const CORRECTION: Duration = Duration::from_millis(500);
/// How often this node renews because foca said so, at most.
const UNDEAD: Duration = Duration::from_millis(500);
/// How often whoever else bears our id is challenged, at most.
const CHALLENGE: Duration = Duration::from_secs(1);
/// How often a proven rival is reported; and for how long it keeps us from outbidding it.
const RIVAL: Duration = Duration::from_secs(10);
