//! A small deterministic network of meshes: a loop over one queue of events. Everything is drawn
//! from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use annulus_gossip::{Channel, Event, Mesh, MeshConfig, Ring};
use annulus_proto::{Load, Member, NodeId, Status};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use twox_hash::XxHash3_64;

/// A host: its disk, and its node if it runs.
pub(crate) struct Host {
    pub(crate) id: NodeId,
    pub(crate) addr: SocketAddr,
    pub(crate) zone: String,
    /// The incarnation on disk.
    pub(crate) saved: u64,
    /// What its wall clock shows beyond the simulation's time, in milliseconds.
    pub(crate) clock_ms: i64,
    pub(crate) mesh: Option<Mesh>,
    /// Grows with each start, so that what was under way to an earlier life gets lost.
    life: u32,
    /// Events since the start, with their times.
    pub(crate) events: Vec<(Duration, Event)>,
    /// Whether `Up` is set by itself after the first exchange.
    pub(crate) comes_up: bool,
}

enum Item {
    Packet { from: SocketAddr, to: SocketAddr, packet: Vec<u8> },
    StreamPacket { from: usize, to: SocketAddr, packet: Vec<u8> },
    Request { from: usize, life: u32, to: SocketAddr, members: Vec<Member> },
    Response { to: usize, life: u32, members: Vec<Member> },
    Wake { host: usize, life: u32 },
}

pub(crate) struct Sim {
    pub(crate) now: Duration,
    pub(crate) hosts: Vec<Host>,
    pub(crate) config: MeshConfig,
    /// Probability that a datagram is lost.
    pub(crate) loss: f64,
    /// Probability that a datagram that is not lost arrives twice.
    pub(crate) duplicates: f64,
    /// Hosts in different groups cannot reach each other.
    pub(crate) group: BTreeMap<usize, u32>,
    /// Hosts that reach nobody and are reached by nobody.
    pub(crate) cut: BTreeSet<usize>,
    /// Hosts that hear, and whose packets get lost.
    pub(crate) mute: BTreeSet<usize>,
    queue: BTreeMap<(Duration, u64), Item>,
    sequence: u64,
    rng: StdRng,
    /// A hash over everything that was sent and reported.
    pub(crate) trace: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Whether to keep what is sent.
    pub(crate) keep_packets: bool,
    pub(crate) kept: Vec<Vec<u8>>,
}

/// How long a stream waits before it sends again what got lost: TCP's least timeout on Linux.
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// The wall clock at the simulation's start.
const EPOCH_MS: i64 = 1_800_000_000_000;

impl Sim {
    /// `count` hosts that do not run yet; every one has the first two as seeds.
    pub(crate) fn new(count: usize, seed: u64) -> Self {
        println!("sim: {count} hosts, seed {seed}");
        let hosts = (0..count).map(|index| Host {
            id: NodeId::from_bits(XxHash3_64::oneshot_with_seed(7, &index.to_le_bytes())),
            addr: SocketAddr::from(([10, 0, (index / 250) as u8, (index % 250) as u8 + 1], 7_000)),
            zone: String::new(),
            saved: 0,
            clock_ms: 0,
            mesh: None,
            life: 0,
            events: Vec::new(),
            comes_up: true,
        });
        Self {
            now: Duration::ZERO,
            hosts: hosts.collect(),
            config: MeshConfig::default(),
            loss: 0.0,
            duplicates: 0.0,
            group: BTreeMap::new(),
            cut: BTreeSet::new(),
            mute: BTreeSet::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            rng: StdRng::seed_from_u64(seed),
            trace: seed,
            packets: 0,
            bytes: 0,
            keep_packets: false,
            kept: Vec::new(),
        }
    }

    /// As many hosts, started and agreed.
    pub(crate) fn booted(count: usize, seed: u64) -> Self {
        let mut sim = Self::new(count, seed);
        for host in 0..count {
            sim.start(host);
        }
        let took = sim.run_until(secs(30), |sim| sim.agrees() && sim.all_up());
        println!("  booted and agreed in {took:?}");
        sim
    }

    /// Starts a host's node, as a driver would.
    pub(crate) fn start(&mut self, index: usize) {
        let seed = self.rng.random();
        let seeds = [self.hosts[0].addr, self.hosts[1 % self.hosts.len()].addr];
        let (now, config) = (self.now, self.config.clone());
        let host = &mut self.hosts[index];
        assert!(host.mesh.is_none());
        let clock = EPOCH_MS + host.clock_ms + now.as_millis() as i64;
        host.saved = (host.saved + 1).max(clock as u64);
        host.life += 1;
        host.events.clear();
        let me = Member {
            id: host.id,
            incarnation: host.saved,
            revision: 0,
            status: Status::Joining,
            addr: host.addr,
            name: format!("host-{index}"),
            zone: host.zone.clone(),
            weight: 100,
            rings: 1,
            load: Load::default(),
        };
        let mut mesh = Mesh::new(config, me, seed, now);
        for seed in seeds {
            mesh.announce(now, seed);
        }
        host.mesh = Some(mesh);
        self.after(index);
    }

    /// `kill -9`.
    pub(crate) fn crash(&mut self, index: usize) {
        self.hosts[index].mesh = None;
    }

    pub(crate) fn mesh(&self, index: usize) -> &Mesh {
        self.hosts[index].mesh.as_ref().expect("it runs")
    }

    /// Calls a host's mesh, and carries out what it asks for.
    pub(crate) fn with<T>(
        &mut self,
        index: usize,
        call: impl FnOnce(&mut Mesh, Duration) -> T,
    ) -> T {
        let now = self.now;
        let result = call(self.hosts[index].mesh.as_mut().expect("it runs"), now);
        self.after(index);
        result
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = (usize, &Mesh)> {
        self.hosts.iter().enumerate().filter_map(|(i, host)| Some((i, host.mesh.as_ref()?)))
    }

    /// Whether all running nodes have equal views.
    pub(crate) fn agrees(&self) -> bool {
        let mut digests = self.running().map(|(_, mesh)| mesh.view().digest());
        let first = digests.next();
        digests.all(|digest| Some(digest) == first)
    }

    /// Whether every running node sees every running node up, and nobody else.
    pub(crate) fn all_up(&self) -> bool {
        let ids = self.running().map(|(i, _)| self.hosts[i].id).collect::<BTreeSet<_>>();
        self.running().all(|(_, mesh)| {
            let up = mesh.view().iter().filter(|m| m.status == Status::Up);
            up.map(|m| m.id).collect::<BTreeSet<_>>() == ids
        })
    }

    /// What the view of `observer` says of `of`.
    pub(crate) fn status(&self, observer: usize, of: usize) -> Option<Status> {
        self.mesh(observer).view().get(self.hosts[of].id).map(|member| member.status)
    }

    /// Whether all running nodes but `of` itself say `status` of it.
    pub(crate) fn all_say(&self, of: usize, status: Status) -> bool {
        self.running().filter(|(i, _)| *i != of).all(|(i, _)| self.status(i, of) == Some(status))
    }

    pub(crate) fn ring(&self, observer: usize) -> Ring {
        Ring::build(self.mesh(observer).view(), 0, 3)
    }

    /// How often `event` was reported on any running node.
    pub(crate) fn count(&self, event: impl Fn(&Event) -> bool) -> usize {
        self.hosts.iter().flat_map(|host| &host.events).filter(|(_, e)| event(e)).count()
    }

    pub(crate) fn sum(&self, counter: impl Fn(&annulus_gossip::Counters) -> u64) -> u64 {
        self.running().map(|(_, mesh)| counter(&mesh.counters())).sum()
    }

    /// Runs for a while.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `condition` holds, which it must within `limit`; how long that took.
    pub(crate) fn run_until(
        &mut self,
        limit: Duration,
        condition: impl Fn(&Self) -> bool,
    ) -> Duration {
        let start = self.now;
        while !condition(self) {
            if self.now >= start + limit {
                for (index, mesh) in self.running() {
                    println!("host {index}: digest {:x}", mesh.view().digest());
                    for m in mesh.view().iter() {
                        println!(
                            "    {} {} r{} {:?} {}",
                            m.id, m.incarnation, m.revision, m.status, m.addr
                        );
                    }
                    println!("    {:?}", mesh.counters());
                }
                panic!("not within {limit:?}");
            }
            self.run(Duration::from_millis(10));
        }
        self.now - start
    }

    fn step(&mut self, end: Duration) -> bool {
        let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) else {
            return false;
        };
        self.now = entry.key().0;
        let item = entry.remove();
        let now = self.now;
        match item {
            Item::Packet { from, to, packet } => {
                for index in 0..self.hosts.len() {
                    let host = &mut self.hosts[index];
                    if host.addr == to
                        && let Some(mesh) = &mut host.mesh
                    {
                        mesh.handle_datagram(now, from, &packet);
                        self.after(index);
                    }
                }
            }
            Item::StreamPacket { from, to, packet } => {
                // Connected to one of them, if it runs and is reached.
                let reaches = |to: usize| self.reaches(from, to) && self.hosts[to].mesh.is_some();
                let mut targets = (0..self.hosts.len()).filter(|host| self.hosts[*host].addr == to);
                if let Some(target) = targets.find(|host| reaches(*host)) {
                    self.with(target, |mesh, now| mesh.handle_stream_packet(now, &packet));
                }
            }
            Item::Request { from, life, to, members } => {
                let target = self.hosts.iter().position(|h| h.addr == to && h.mesh.is_some());
                let Some(target) = target.filter(|to| self.reaches(from, *to)) else {
                    return true;
                };
                self.with(target, |mesh, now| mesh.merge(now, members));
                let members = self.mesh(target).snapshot();
                self.come_up(target);
                let latency = self.latency() * 2;
                self.push(latency, Item::Response { to: from, life, members });
            }
            Item::Response { to, life, members } => {
                if self.hosts[to].life == life && self.hosts[to].mesh.is_some() {
                    self.with(to, |mesh, now| mesh.merge(now, members));
                    self.come_up(to);
                }
            }
            Item::Wake { host, life } => {
                let host_state = &mut self.hosts[host];
                if host_state.life == life
                    && let Some(mesh) = &mut host_state.mesh
                    && mesh.poll_timeout().is_some_and(|due| due <= now)
                {
                    mesh.handle_timeout(now);
                    self.after(host);
                }
            }
        }
        true
    }

    fn come_up(&mut self, index: usize) {
        let host = &self.hosts[index];
        let knows_others = self.mesh(index).view().len() > 1;
        if host.comes_up && knows_others && self.mesh(index).me().status == Status::Joining {
            self.with(index, |mesh, now| mesh.set_status(now, Status::Up));
        }
    }

    /// Polls in the documented order.
    fn after(&mut self, index: usize) {
        let now = self.now;
        let host = &mut self.hosts[index];
        let life = host.life;
        let Some(mesh) = &mut host.mesh else {
            return;
        };
        let mut out = Vec::new();
        while let Some(transmit) = mesh.poll_transmit() {
            out.push(transmit);
        }
        let mut exchanges = Vec::new();
        while let Some(event) = mesh.poll_event() {
            self.trace = mix(self.trace, format!("{now:?} {index} {event:?}").as_bytes());
            match &event {
                Event::ExchangeWith(addr) => exchanges.push(*addr),
                Event::IncarnationRaised(incarnation) => host.saved = *incarnation,
                _ => {}
            }
            host.events.push((now, event));
        }
        let from = host.addr;
        let snapshot = (!exchanges.is_empty()).then(|| mesh.snapshot());
        let due = mesh.poll_timeout();
        for transmit in out {
            self.trace = mix(self.trace, &transmit.packet);
            if self.keep_packets {
                self.kept.push(transmit.packet.clone());
            }
            self.packets += 1;
            self.bytes += transmit.packet.len() as u64;
            let latency = self.latency();
            if transmit.channel == Channel::Stream {
                if !self.mute.contains(&index) {
                    // Opening the stream, and what is lost is sent again.
                    let retries = (0..8).take_while(|_| self.rng.random_bool(self.loss)).count();
                    let latency = latency * 3 + RETRANSMISSION * retries as u32;
                    let (to, packet) = (transmit.to, transmit.packet);
                    self.push(latency, Item::StreamPacket { from: index, to, packet });
                }
                continue;
            }
            let is_lost = self.loss > 0.0 && self.rng.random_bool(self.loss);
            let to = transmit.to;
            let reaches = self.hosts.iter().position(|h| h.addr == to);
            if is_lost
                || self.mute.contains(&index)
                || !reaches.is_some_and(|to| self.reaches(index, to))
            {
                continue;
            }
            if self.duplicates > 0.0 && self.rng.random_bool(self.duplicates) {
                let (later, packet) = (self.latency() * 20, transmit.packet.clone());
                self.push(later, Item::Packet { from, to, packet });
            }
            self.push(latency, Item::Packet { from, to, packet: transmit.packet });
        }
        for to in exchanges {
            // A connection, a request.
            let latency = self.latency() * 3;
            let members = snapshot.clone().expect("taken above");
            self.push(latency, Item::Request { from: index, life, to, members });
        }
        if let Some(due) = due {
            // Timers fire a little late, as they do.
            let after = due.saturating_sub(now) + Duration::from_micros(50);
            self.push(after, Item::Wake { host: index, life });
        }
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&from)
            && !self.cut.contains(&to)
            && self.group.get(&from) == self.group.get(&to)
    }

    fn latency(&mut self) -> Duration {
        Duration::from_micros(self.rng.random_range(250..1_000))
    }

    fn push(&mut self, after: Duration, item: Item) {
        self.sequence += 1;
        self.queue.insert((self.now + after, self.sequence), item);
    }
}

/// One line to find a failing run again.
pub(crate) fn seeds(default: u64) -> std::ops::Range<u64> {
    let from = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let first = from("SIM_SEED").unwrap_or(1_000);
    first..first + from("SIM_SEEDS").unwrap_or(default)
}

fn mix(trace: u64, bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(trace, bytes)
}

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
