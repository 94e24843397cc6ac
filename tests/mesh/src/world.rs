//! Hosts, their nodes, and time: a loop over one queue.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use annulus_proto::NodeId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::time::{ClockId, clock_gettime};
use twox_hash::XxHash3_64;

use crate::net::Net;
use crate::queue::Queue;
use crate::subject::{Call, Held, HostFacts, Sight, Start, Subject, Wants};
use crate::tcp::{self, Attempt};

/// A number of hosts in one network, and the only thread there is. Everything random is drawn from
/// one seed, so that the same calls give the same run, bit for bit ([`World::trace`]).
pub struct World<S: Subject> {
    /// The time since the beginning.
    pub now: Duration,
    /// The hosts, by number.
    pub hosts: Vec<Host<S>>,
    /// What is between them.
    pub net: Net,
    /// How nodes behave that are started from now on.
    pub settings: S::Settings,
    /// What happened so far, to be set back at will.
    pub tally: Tally,
    /// A hash of everything that was sent and reported, with its times.
    pub trace: u64,
    /// Whether to keep copies of what is sent, in [`World::kept`].
    pub keep_packets: bool,
    /// Packets, without envelope.
    pub kept: Vec<Vec<u8>>,
    /// Whether to measure what nodes cost, in [`Tally::cpu`].
    pub meter: bool,
    queue: Queue<Item<S>>,
    rng: StdRng,
    by_id: BTreeMap<NodeId, usize>,
    /// Streams that are open: from whom to whom, in which of their lives, and when last used.
    links: BTreeMap<(usize, usize), Link>,
    /// Kept, so that no call allocates anew.
    wants: Wants<S>,
}

/// A host: its disk, and its node if it runs.
pub struct Host<S: Subject> {
    /// The id of its node, on disk.
    pub id: NodeId,
    /// Where it is reached.
    pub addr: SocketAddr,
    /// Its zone.
    pub zone: String,
    /// The incarnation on disk.
    pub saved: u64,
    /// The peers on disk.
    pub peers: Vec<SocketAddr>,
    /// The node's own deaths on disk.
    pub own_deaths: Vec<u64>,
    /// What its wall clock shows beyond the simulation's time, in milliseconds.
    pub clock_ms: i64,
    /// Whether its node joins by itself.
    pub comes_up: bool,
    /// Whether something is wrong with it, so that what others conclude of it is no mistake.
    pub is_unwell: bool,
    /// Its node.
    pub node: Option<S>,
    /// What its node reported in this life, with the times.
    pub events: Vec<(Duration, S::Event)>,
    /// When its node concluded a death in this life, reported or not.
    pub deaths: Vec<Duration>,
    deaths_noted: u64,
    /// Grows with each start, so that what was under way to an earlier life gets lost.
    life: u32,
    /// The wake-up that counts.
    wake_at: Option<Duration>,
    /// What waits at its sockets while its process does not run.
    paused: Option<Vec<Delivery<S>>>,
}

/// What happened since it was last set back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// When that was.
    pub since: Duration,
    /// Datagrams sent.
    pub packets: u64,
    /// Datagrams handled by nodes.
    pub handled: u64,
    /// Bytes sent, everything included: headers, envelopes, handshakes, acknowledgements.
    pub bytes: u64,
    /// Of these, over streams.
    pub stream_bytes: u64,
    /// Streams opened.
    pub streams: u64,
    /// Reports that a running, healthy node is dead, by nodes that are healthy themselves.
    pub false_downs: u64,
    /// The same by nodes that are not.
    pub false_downs_by_unwell: u64,
    /// Renewals of nodes that were healthy.
    pub renewals: u64,
    /// Renewals of nodes that were not.
    pub renewals_unwell: u64,
    /// Processor time spent in nodes, if it was measured.
    pub cpu: Duration,
}

/// A message over a stream, or a part of opening one.
struct Flight<S: Subject> {
    from: usize,
    to: usize,
    lives: (u32, u32),
    stage: Stage,
    attempt: u32,
    number: Option<u64>,
    deadline: Duration,
    said: Option<S::Said>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connect,
    Hello,
    Welcome,
    Said,
    Answer,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    lives: (u32, u32),
    used: Duration,
}

enum Item<S: Subject> {
    Packet { from: usize, to: usize, packet: Vec<u8> },
    Wake { host: usize, life: u32 },
    Attempt(Box<Flight<S>>),
    Arrived(Box<Flight<S>>),
    Broken { host: usize, life: u32, number: u64 },
}

enum Delivery<S: Subject> {
    Packet(SocketAddr, Vec<u8>),
    Flight(Box<Flight<S>>),
}

/// The wall clock at the simulation's start.
const EPOCH_MS: i64 = 1_800_000_000_000;
/// What surrounds a datagram's packet: IPv4 and UDP.
const UDP_HEADERS: usize = 28;
/// `Hello` and `Welcome` of one node to another, about, each in a sealed record (18), and that side's part
/// of the seal's handshake (54). The round trip that the handshake takes is not simulated.
const GREETING_BYTES: usize = 80 + 18 + 54;
/// How long a stream without use stays open, as in the node's driver.
const LINK_IDLE: Duration = Duration::from_secs(60);
/// How many datagrams wait at a socket that nobody reads: Linux' default of 208 KiB, of which a
/// small one takes 768 bytes.
const SOCKET_PACKETS: usize = 277;
/// Timers fire a little late, as they do.
const TIMER_SLACK: Duration = Duration::from_micros(50);

impl<S: Subject> World<S> {
    /// `count` hosts whose nodes do not run yet; the first two are everybody's seeds.
    pub fn new(count: usize, seed: u64) -> Self {
        let hosts = (0..count).map(Host::new).collect::<Vec<_>>();
        let by_id = hosts.iter().enumerate().map(|(index, host)| (host.id, index)).collect();
        Self {
            now: Duration::ZERO,
            hosts,
            net: Net::default(),
            settings: S::settings(count),
            tally: Tally::default(),
            trace: seed,
            keep_packets: false,
            kept: Vec::new(),
            meter: false,
            queue: Queue::new(),
            rng: StdRng::seed_from_u64(seed),
            by_id,
            links: BTreeMap::new(),
            wants: Wants::default(),
        }
    }

    /// As many hosts, whose nodes start at once.
    pub fn booting(count: usize, seed: u64) -> Self {
        let mut world = Self::new(count, seed);
        (0..count).for_each(|host| world.start(host));
        world
    }

    /// As many hosts, started and agreed: within 30 s, or it panics.
    pub fn booted(count: usize, seed: u64) -> Self {
        let mut world = Self::booting(count, seed);
        world.run_until(secs(30), |world| world.agrees() && world.all_up());
        world
    }

    /// `count` hosts that have known each other for long, out of step by up to a second; and, behind
    /// them, `absent` ones that nobody knows and whose nodes do not run.
    pub fn settled(count: usize, absent: usize, seed: u64) -> Self {
        Self::settled_with(count, absent, seed, S::settings(count))
    }

    /// The same with settings of their own.
    pub fn settled_with(count: usize, absent: usize, seed: u64, settings: S::Settings) -> Self {
        let mut world = Self::new(count + absent, seed);
        world.settings = settings;
        for host in &mut world.hosts[..count] {
            host.saved = EPOCH_MS as u64;
        }
        let facts = (0..count).map(|index| world.facts(index)).collect::<Vec<_>>();
        for (index, host) in facts.iter().enumerate() {
            let host = host.clone();
            let start = Start { host, seeds: &[], peers: &[], deaths: &[], comes_up: true };
            let (seed, ms) = (world.rng.random(), world.rng.random_range(0..1_000));
            let now = Duration::from_millis(ms);
            let mut node = S::start(&world.settings, start, seed, now);
            node.settle(now, &facts);
            world.hosts[index].node = Some(node);
            world.hosts[index].life = 1;
            world.after(index);
            world.hosts[index].events.clear();
        }
        world
    }

    /// Starts a host's node, as a driver would.
    pub fn start(&mut self, index: usize) {
        let seed = self.rng.random();
        let seeds = [self.hosts[0].addr, self.hosts[1 % self.hosts.len()].addr];
        let host = &mut self.hosts[index];
        assert!(host.node.is_none());
        let clock = EPOCH_MS + host.clock_ms + self.now.as_millis() as i64;
        host.saved = (host.saved + 1).max(clock as u64);
        host.life += 1;
        host.events.clear();
        host.deaths.clear();
        host.deaths_noted = 0;
        host.wake_at = None;
        host.paused = None;
        let (peers, comes_up) = (host.peers.clone(), host.comes_up);
        let deaths = host.own_deaths.clone();
        let facts = self.facts(index);
        let start = Start { host: facts, seeds: &seeds, peers: &peers, deaths: &deaths, comes_up };
        self.hosts[index].node = Some(S::start(&self.settings, start, seed, self.now));
        self.after(index);
    }

    /// The host goes without a word, and says nothing to whoever asks: power loss. Its disk stays.
    pub fn crash(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if let Some(node) = host.node.take() {
            host.peers = node.peers();
            host.own_deaths = node.own_deaths();
        }
        host.paused = None;
    }

    /// The process stands still: no timer, no packet, until [`World::resume`].
    pub fn pause(&mut self, index: usize) {
        self.hosts[index].paused.get_or_insert_default();
    }

    /// The process runs again: first its timers, then what has waited at its sockets.
    pub fn resume(&mut self, index: usize) {
        let Some(waiting) = self.hosts[index].paused.take() else { return };
        self.with(index, |node, now| node.wake(now));
        for delivery in waiting {
            self.deliver(index, delivery);
        }
    }

    /// Calls a host's node, and carries out what it asks for.
    ///
    /// # Panics
    /// When it does not run.
    pub fn with<T>(&mut self, index: usize, call: impl FnOnce(&mut S, Duration) -> T) -> T {
        let now = self.now;
        let result = call(self.hosts[index].node.as_mut().expect("it runs"), now);
        self.after(index);
        result
    }

    /// The nodes that run, with their hosts' numbers.
    pub fn running(&self) -> impl Iterator<Item = (usize, &S)> {
        self.hosts.iter().enumerate().filter_map(|(i, host)| Some((i, host.node.as_ref()?)))
    }

    /// Whether all running nodes know the same.
    pub fn agrees(&self) -> bool {
        let mut digests = self.running().map(|(_, node)| node.digest());
        let first = digests.next();
        digests.all(|digest| Some(digest) == first)
    }

    /// Whether every running node sees every running node up, and nobody else.
    pub fn all_up(&self) -> bool {
        let ids = self.running().map(|(i, _)| self.hosts[i].id).collect::<BTreeSet<_>>();
        let mut same = None;
        self.running().all(|(_, node)| {
            // Whoever knows the same as one that was looked at needs no look.
            same == Some(node.digest())
                || (node.up_count() == ids.len()
                    && ids.iter().all(|id| node.holds(*id) == Held::Up)
                    && same.replace(node.digest()).is_none_or(|_| true))
        })
    }

    /// Whether all running nodes but `of` itself hold this of it.
    pub fn all_hold(&self, of: usize, held: Held) -> bool {
        let id = self.hosts[of].id;
        self.running().filter(|(i, _)| *i != of).all(|(_, node)| node.holds(id) == held)
    }

    /// How often such an event was reported by nodes in their present life.
    pub fn count(&self, event: impl Fn(&S::Event) -> bool) -> usize {
        self.hosts.iter().flat_map(|host| &host.events).filter(|(_, e)| event(e)).count()
    }

    /// Sets [`World::tally`] back, and forgets what was reported.
    pub fn begin(&mut self) {
        self.tally = Tally { since: self.now, ..Tally::default() };
        self.forget();
    }

    /// Forgets what was reported, and keeps the tally: a long run must not fill the memory.
    pub fn forget(&mut self) {
        for host in &mut self.hosts {
            host.events.clear();
            host.deaths.clear();
        }
    }

    /// Bytes sent per second and running node since [`World::begin`].
    pub fn rate(&self) -> f64 {
        let seconds = (self.now - self.tally.since).as_secs_f64();
        self.tally.bytes as f64 / seconds / self.running().count().max(1) as f64
    }

    /// Runs for a while.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some((at, item)) = self.queue.pop(end) {
            self.now = at;
            self.step(item);
        }
        self.now = end;
    }

    /// Runs until a condition holds, looking every 10 ms; how long that took, or `None` if it does
    /// not within `limit`.
    pub fn until(
        &mut self,
        limit: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        while !condition(self) {
            if self.now >= start + limit {
                return None;
            }
            self.run(Duration::from_millis(10));
        }
        Some(self.now - start)
    }

    /// As [`World::until`].
    ///
    /// # Panics
    /// When the condition does not hold within `limit`.
    pub fn run_until(&mut self, limit: Duration, condition: impl Fn(&Self) -> bool) -> Duration {
        self.until(limit, condition).unwrap_or_else(|| {
            for (index, node) in self.running() {
                println!("host {index}: {} up, digest {:x}", node.up_count(), node.digest());
            }
            panic!("not within {limit:?}");
        })
    }

    /// A number from the simulation's seed.
    pub fn draw(&mut self, below: usize) -> usize {
        self.rng.random_range(0..below)
    }

    fn facts(&self, index: usize) -> HostFacts {
        let Host { id, addr, zone, saved, .. } = &self.hosts[index];
        HostFacts { index, id: *id, addr: *addr, zone: zone.clone(), incarnation: *saved }
    }

    fn step(&mut self, item: Item<S>) {
        match item {
            Item::Packet { from, to, packet } => {
                let from = self.hosts[from].addr;
                self.deliver(to, Delivery::Packet(from, packet));
            }
            Item::Wake { host: index, life } => {
                let host = &mut self.hosts[index];
                let counts = host.life == life && host.wake_at == Some(self.now);
                if counts && host.paused.is_none() {
                    host.wake_at = None;
                    if let Some(node) = &mut host.node {
                        let began = cpu(self.meter);
                        node.wake(self.now);
                        self.tally.cpu += cpu(self.meter) - began;
                        self.after(index);
                    }
                }
            }
            Item::Attempt(flight) => self.attempt(flight),
            Item::Arrived(flight) => {
                let Flight { from, to, stage, .. } = *flight;
                let receiver = if flight.stage.is_forth() { to } else { from };
                // The kernel opens connections by itself.
                if stage == Stage::Connect {
                    self.arrive(flight);
                } else {
                    self.deliver(receiver, Delivery::Flight(flight));
                }
            }
            Item::Broken { host, life, number } => {
                if self.hosts[host].life == life && self.hosts[host].node.is_some() {
                    self.with(host, |node, now| node.answered(now, number, None));
                }
            }
        }
    }

    /// Something is at a host's socket.
    fn deliver(&mut self, index: usize, delivery: Delivery<S>) {
        let host = &mut self.hosts[index];
        if let Some(waiting) = &mut host.paused {
            let is_full = waiting.len() >= SOCKET_PACKETS;
            if !is_full || matches!(delivery, Delivery::Flight(_)) {
                waiting.push(delivery);
            }
            return;
        }
        match delivery {
            Delivery::Packet(from, packet) => {
                let Some(node) = &mut host.node else { return };
                let began = cpu(self.meter);
                node.receive(self.now, from, &packet);
                self.tally.cpu += cpu(self.meter) - began;
                self.tally.handled += 1;
                self.after(index);
            }
            Delivery::Flight(flight) => self.arrive(flight),
        }
    }

    /// Begins to say something over a stream, which is opened if it is not.
    fn call(&mut self, from: usize, call: Call<S::Said>) {
        let Some(to) = self.at(call.to) else { return };
        let lives = (self.hosts[from].life, self.hosts[to].life);
        let link = self.links.get(&(from, to)).copied();
        let link = link.filter(|link| self.now < link.used + LINK_IDLE);
        let bytes = S::said_bytes(&call.said);
        let mut flight = Box::new(Flight {
            from,
            to,
            lives,
            stage: Stage::Connect,
            attempt: 0,
            number: call.number,
            deadline: call.deadline,
            said: Some(call.said),
            bytes,
        });
        match link {
            // Whatever has become of the other since: its new life will say that it knows no stream.
            Some(link) if link.lives.0 == lives.0 => {
                flight.lives = link.lives;
                flight.stage = Stage::Said;
            }
            _ => {
                self.links.remove(&(from, to));
            }
        }
        self.attempt(flight);
    }

    /// The called one's new life knows nothing of the stream, and says so.
    fn refuse(&mut self, flight: &Flight<S>) {
        let Flight { from, to, lives, number, .. } = *flight;
        self.links.remove(&(from, to));
        if let Some(number) = number.filter(|_| self.net.reaches(to, from)) {
            let back = self.net.travel(&mut self.rng, from);
            self.queue.push(self.now + back, Item::Broken { host: from, life: lives.0, number });
        }
    }

    /// Sends a flight, once more maybe.
    fn attempt(&mut self, mut flight: Box<Flight<S>>) {
        if self.now >= flight.deadline {
            // Nothing more is to be expected of a stream that somebody waited for in vain.
            self.links.remove(&(flight.from, flight.to));
            return;
        }
        let Flight { from, to, stage, attempt, .. } = *flight;
        let (sender, receiver) = if stage.is_forth() { (from, to) } else { (to, from) };
        let (net, rng) = (&self.net, &mut self.rng);
        let outcome = if stage == Stage::Connect {
            let bytes = 3 * tcp::SEGMENT_HEADERS as u64;
            self.tally.bytes += bytes;
            self.tally.stream_bytes += bytes;
            tcp::connect(net, rng, from, to, self.hosts[to].node.is_some(), attempt)
        } else {
            let bytes = flight.stage_bytes();
            let (sent, acknowledged) = tcp::wire_bytes(bytes);
            self.tally.bytes += sent + acknowledged;
            self.tally.stream_bytes += sent + acknowledged;
            if self.hosts[receiver].node.is_some() {
                tcp::send(net, rng, sender, receiver, bytes, attempt)
            } else {
                tcp::again(attempt)
            }
        };
        match outcome {
            Attempt::Arrives(after) => self.queue.push(self.now + after, Item::Arrived(flight)),
            Attempt::Again(after) => {
                flight.attempt += 1;
                self.queue.push(self.now + after, Item::Attempt(flight));
            }
        }
    }

    /// A flight is where it was sent to: what comes next.
    fn arrive(&mut self, mut flight: Box<Flight<S>>) {
        let Flight { from, to, lives, stage, .. } = *flight;
        let lives_on = |index: usize, life: u32| {
            let host: &Host<S> = &self.hosts[index];
            host.life == life && host.node.is_some()
        };
        if !lives_on(from, lives.0) {
            return;
        }
        if !lives_on(to, lives.1) {
            if self.hosts[to].node.is_some() {
                self.refuse(&flight);
            }
            return;
        }
        flight.attempt = 0;
        match stage {
            Stage::Connect => {
                self.tally.streams += 1;
                flight.stage = Stage::Hello;
                self.attempt(flight);
            }
            Stage::Hello => {
                flight.stage = Stage::Welcome;
                self.attempt(flight);
            }
            Stage::Welcome => {
                self.links.insert((from, to), Link { lives, used: self.now });
                flight.stage = Stage::Said;
                self.attempt(flight);
            }
            Stage::Said => {
                self.links.insert((from, to), Link { lives, used: self.now });
                let addr = self.hosts[from].addr;
                let said = flight.said.take().expect("taken but here");
                let now = self.now;
                let node = self.hosts[to].node.as_mut().expect("it lives on");
                let answer = node.hear(now, addr, said);
                self.after(to);
                if let Some(answer) = answer.filter(|_| flight.number.is_some()) {
                    flight.bytes = S::said_bytes(&answer);
                    flight.said = Some(answer);
                    flight.stage = Stage::Answer;
                    self.attempt(flight);
                }
            }
            Stage::Answer => {
                let Flight { number, said, .. } = *flight;
                let (number, said) = (number.expect("a call"), said.expect("an answer"));
                self.with(from, |node, now| node.answered(now, number, Some(said)));
            }
        }
    }

    /// Carries out what a node wants done.
    fn after(&mut self, index: usize) {
        let mut wants = std::mem::take(&mut self.wants);
        let now = self.now;
        let host = &mut self.hosts[index];
        let Some(node) = &mut host.node else { return };
        node.drain(now, &mut wants);
        let (due, deaths) = (node.next(), node.deaths());
        for _ in host.deaths_noted..deaths {
            host.deaths.push(now);
        }
        host.deaths_noted = deaths;
        for event in wants.events.drain(..) {
            self.note(index, event);
        }
        for (to, packet) in wants.packets.drain(..) {
            self.send(index, to, packet);
        }
        for call in wants.calls.drain(..) {
            self.call(index, call);
        }
        self.wants = wants;
        if let Some(due) = due {
            let at = due.max(now) + TIMER_SLACK;
            let host = &mut self.hosts[index];
            if host.wake_at.is_none_or(|earlier| at < earlier || earlier <= now) {
                host.wake_at = Some(at);
                let life = host.life;
                self.queue.push(at, Item::Wake { host: index, life });
            }
        }
    }

    fn note(&mut self, index: usize, event: S::Event) {
        let now = self.now;
        self.mix(format!("{now:?} {index} {event:?}").as_bytes());
        match S::sight(&event) {
            Some(Sight::Down(id)) => {
                let of = self.by_id.get(&id).map(|of| &self.hosts[*of]);
                let healthy = |host: &&Host<S>| host.node.is_some() && !host.is_unwell;
                let is_healthy = of.filter(healthy).is_some();
                if is_healthy && self.hosts[index].is_unwell {
                    self.tally.false_downs_by_unwell += 1;
                } else if is_healthy {
                    self.tally.false_downs += 1;
                }
            }
            Some(Sight::Renewed(incarnation)) => {
                let host = &mut self.hosts[index];
                if let Some(incarnation) = incarnation {
                    host.saved = incarnation;
                }
                if host.is_unwell {
                    self.tally.renewals_unwell += 1;
                } else {
                    self.tally.renewals += 1;
                }
            }
            _ => {}
        }
        self.hosts[index].events.push((now, event));
    }

    fn send(&mut self, index: usize, to: SocketAddr, packet: Vec<u8>) {
        self.mix(&packet);
        if self.keep_packets {
            self.kept.push(packet.clone());
        }
        self.tally.packets += 1;
        self.tally.bytes += (packet.len() + S::ENVELOPE_BYTES + UDP_HEADERS) as u64;
        let Some(to) = self.at(to) else { return };
        if [index, to].iter().any(|host| self.net.streams_only.contains(host)) {
            return;
        }
        let Some(travel) = self.net.carry(&mut self.rng, index, to) else { return };
        let travel = travel + self.net.lateness(&mut self.rng);
        if let Some(later) = self.net.duplicate(&mut self.rng) {
            let packet = packet.clone();
            self.queue.push(self.now + travel + later, Item::Packet { from: index, to, packet });
        }
        self.queue.push(self.now + travel, Item::Packet { from: index, to, packet });
    }

    fn mix(&mut self, bytes: &[u8]) {
        let seed = self.trace ^ u64::try_from(self.now.as_nanos()).unwrap_or(u64::MAX);
        self.trace = XxHash3_64::oneshot_with_seed(seed, bytes);
    }

    /// Whose address this is.
    fn at(&self, addr: SocketAddr) -> Option<usize> {
        let index = index_at(addr)?;
        self.hosts.get(index).filter(|host| host.addr == addr)?;
        Some(index)
    }
}

impl<S: Subject> Host<S> {
    fn new(index: usize) -> Self {
        Self {
            id: id_of(index),
            addr: addr_of(index),
            zone: String::new(),
            saved: 0,
            peers: Vec::new(),
            own_deaths: Vec::new(),
            clock_ms: 0,
            comes_up: true,
            is_unwell: false,
            node: None,
            events: Vec::new(),
            deaths: Vec::new(),
            deaths_noted: 0,
            life: 0,
            wake_at: None,
            paused: None,
        }
    }
}

impl<S: Subject> Flight<S> {
    fn stage_bytes(&self) -> usize {
        match self.stage {
            Stage::Connect => 0,
            Stage::Hello | Stage::Welcome => GREETING_BYTES,
            Stage::Said | Stage::Answer => self.bytes,
        }
    }
}

impl Stage {
    /// Whether it goes from the caller to the called; opening does both.
    fn is_forth(self) -> bool {
        matches!(self, Self::Connect | Self::Hello | Self::Said)
    }
}

/// Where host `index` is reached.
fn addr_of(index: usize) -> SocketAddr {
    let (hundreds, ones) = (index / HOSTS_PER_NET, index % HOSTS_PER_NET);
    SocketAddr::from(([10, 0, hundreds as u8, ones as u8 + 1], 7_000))
}

fn index_at(addr: SocketAddr) -> Option<usize> {
    let SocketAddr::V4(v4) = addr else { return None };
    let [_, _, hundreds, ones] = v4.ip().octets();
    Some(usize::from(hundreds) * HOSTS_PER_NET + usize::from(ones).checked_sub(1)?)
}

/// The id that the node of host `index` has to begin with.
fn id_of(index: usize) -> NodeId {
    NodeId::from_bits(XxHash3_64::oneshot_with_seed(7, &index.to_le_bytes()))
}

/// The id of the node that is reached at this address, if none was moved.
pub(crate) fn id_at(addr: SocketAddr) -> NodeId {
    id_of(index_at(addr).unwrap_or(usize::MAX))
}

/// The processor time of this thread, for measuring only: nothing that happens depends on it.
fn cpu(measured: bool) -> Duration {
    if !measured {
        return Duration::ZERO;
    }
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// So many seconds.
pub fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const HOSTS_PER_NET: usize = 250;

#[cfg(test)]
mod tests;
