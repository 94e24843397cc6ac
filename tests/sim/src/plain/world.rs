//! Hosts, their nodes, and time: a loop over what happens next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::IpAddr;
use std::time::Duration;

use annulus_net::{Clock, Rates};
use annulus_node::core::{CEILING_LEAD_MS, CoreSettings, HubInput, HubStart, Now, homes_max};
use annulus_node::driver::Host as _;
use annulus_node::{RECORD_SIZE_DEFAULT, Storage, TableSettings};
use annulus_proto::{Key, Load, Member, NodeId, Status, record};
use annulus_shm::{FileError, Lookup};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::application::{Application, Move, Numbers};
use super::client::Client;
use super::disk::Disk;
use super::net::{Arrival, CLUSTER, End, Net, addr};
use super::operator::Operator;
use super::process::{Process, SLOTS, Sent};
use super::storm::Storm;
use crate::check::Violation;
use crate::clock::SimClock;
use crate::copies::Copies;
use crate::history::History;
use crate::host::{Disk as DiskLike, Holding, Machine, SimHost};
use crate::plan::{Contacts, Fault};
use crate::scenario::{Mutant, derive};
use crate::trace;

/// A cluster, its clients and an operator, in one thread.
pub(super) struct World {
    pub(super) storm: Storm,
    pub(super) mutant: Option<Mutant>,
    pub(super) now: Duration,
    pub(super) hosts: Vec<Host>,
    pub(super) net: Net,
    pub(super) clients: Vec<Client>,
    pub(super) operator: Operator,
    pub(super) keys: Vec<String>,
    /// Whether who sent a datagram is known by its seal.
    pub(super) is_sealed: bool,
    pub(super) contacts: Contacts,
    pub(super) history: History,
    pub(super) copies: Copies,
    pub(super) numbers: Numbers,
    pub(super) violations: Vec<Violation>,
    /// When clients began, and when they are to end.
    pub(super) began: Duration,
    pub(super) stop_at: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    /// What happens then, by its number.
    events: BTreeMap<u64, Event>,
    sequence: u64,
    pub(super) rng: StdRng,
    next_sample: Duration,
}

/// A host: memory, disk, clocks, and its node if it runs.
pub(super) struct Host {
    pub(super) machine: Machine,
    pub(super) disk: Disk,
    pub(super) id: NodeId,
    pub(super) node: Option<Process>,
    pub(super) application: Application,
    /// Grows with each start, so that what was under way to an earlier run gets lost.
    pub(super) life: u32,
    /// What waits for its process while that stands still.
    pub(super) paused: Option<Vec<Arrival>>,
    /// Whether it has no power.
    pub(super) is_off: bool,
    /// How many things its node does before it crashes, if it is to.
    crash_after: Option<u32>,
    is_leaving: bool,
    /// When its node has something to do by itself.
    due: Duration,
    /// How much its wall clock was set.
    jumped_ms: i64,
    /// How many slots its node has given up.
    given_up: u64,
    /// What its memory held when it was last looked at, and whether its node has run since.
    held: Holding,
    is_held_old: bool,
}

/// Something that is going to happen.
pub(super) enum Event {
    Datagram {
        from: usize,
        to: usize,
        bytes: Vec<u8>,
    },
    Frames {
        link: u64,
        back: bool,
    },
    Silence {
        link: u64,
    },
    Reset {
        link: u64,
    },
    Failed {
        end: End,
        life: u32,
        call: u64,
    },
    Stored {
        node: usize,
        life: u32,
        generation: u64,
    },
    Kept {
        node: usize,
        life: u32,
        core: usize,
        ticket: u64,
    },
    /// A node that is to stop is not waited for any longer.
    GiveUp {
        node: usize,
        life: u32,
    },
    Task {
        client: usize,
        run: u32,
        task: usize,
        turn: u32,
    },
    Operate,
    /// An application's, or between its processes.
    Application {
        node: usize,
        step: Move,
    },
    /// An application stores another number.
    Number,
}

/// How often the memory of all nodes is looked at.
const SAMPLE: Duration = Duration::from_millis(500);
/// How long a node that is to stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The name of the table.
pub(super) const TABLE: &str = "sessions";

impl World {
    pub(super) fn new(storm: Storm, mutant: Option<Mutant>) -> Self {
        let parameters = &storm.parameters;
        let seed = parameters.seed;
        let host = |node: usize| {
            let name = format!("n{}", node + 1);
            let clock = SimClock::new(parameters.skew_ms[node], parameters.drift_ppm[node]);
            let ip: IpAddr = addr(node).ip();
            let machine = Machine::new(&name, ip, clock, derive(seed, &name), None);
            let drawn = SimHost::new(machine.clone()).entropy();
            Host {
                machine,
                disk: Disk::new(),
                id: NodeId::from_bits(drawn & ((1 << NodeId::BITS) - 1)),
                node: None,
                application: Application::default(),
                life: 0,
                paused: None,
                is_off: false,
                crash_after: None,
                is_leaving: false,
                due: Duration::MAX,
                jumped_ms: 0,
                given_up: 0,
                held: Holding::new(),
                is_held_old: false,
            }
        };
        let hosts: Vec<Host> = (0..parameters.nodes).map(host).collect();
        let is_there = |key: &String| Key::new(key).is_ok_and(|key| SLOTS.has_core(key.slot()));
        let ordinary =
            (0..).map(|key| format!("{seed}/{key}")).filter(is_there).take(parameters.keys);
        let hot =
            (0..).map(|key| format!("{seed}/hot/{key}")).filter(is_there).take(parameters.hot_keys);
        let keys: Vec<String> = ordinary.chain(hot).collect();
        let up: BTreeSet<usize> = (0..parameters.first).collect();
        let round_trip = 2 * parameters.latency.1;
        let contacts = Contacts::new(parameters.nodes, up, round_trip).settling(storm.settling);
        let net_rng = StdRng::seed_from_u64(derive(seed, "net"));
        Self {
            now: Duration::ZERO,
            hosts,
            net: Net::new(parameters.latency, net_rng),
            clients: Client::all(parameters),
            operator: Operator::default(),
            copies: Copies::new(&keys, storm.copies()),
            keys,
            is_sealed: parameters.sealed,
            contacts,
            history: History::default(),
            numbers: Numbers::default(),
            violations: Vec::new(),
            began: Duration::MAX,
            stop_at: Duration::MAX,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            rng: StdRng::seed_from_u64(derive(seed, "world")),
            next_sample: Duration::ZERO,
            mutant,
            storm,
        }
    }

    pub(super) fn violate(&mut self, rule: &'static str, what: String) {
        self.violations.push(Violation { rule, what });
    }

    // Time.

    pub(super) fn at(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence)));
        self.events.insert(self.sequence, event);
    }

    pub(super) fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }

    /// Lets the next thing happen.
    fn step(&mut self) {
        if self.next_sample <= self.now {
            self.next_sample = self.now + SAMPLE;
            self.observe();
        }
        let runs = |host: &&Host| host.node.is_some() && host.paused.is_none();
        let due = self.hosts.iter().enumerate().filter(|(_, host)| runs(host));
        let due = due.map(|(node, host)| (host.due, node)).min();
        let next = self.queue.peek().map(|Reverse((at, _))| *at);
        match (due, next) {
            (Some((due, node)), next) if next.is_none_or(|next| due < next) => {
                self.set_now(due);
                self.run_due(node);
            }
            (_, Some(_)) => {
                let Some(Reverse((at, number))) = self.queue.pop() else { return };
                self.set_now(at);
                if let Some(event) = self.events.remove(&number) {
                    self.happen(event);
                }
            }
            _ => self.set_now(self.now + SAMPLE),
        }
    }

    fn set_now(&mut self, now: Duration) {
        self.now = self.now.max(now);
        trace::set_now(self.now);
    }

    pub(super) fn until_time(&mut self, time: Duration) {
        while self.now < time {
            self.step();
        }
    }

    /// Whether the condition came true within the budget; it is looked at now and then.
    pub(super) fn until(
        &mut self,
        budget: Duration,
        mut is_met: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let deadline = self.now + budget;
        let mut look = self.now;
        loop {
            if look <= self.now {
                if is_met(self) {
                    return true;
                }
                look = self.now + LOOK;
            }
            if self.now >= deadline {
                return false;
            }
            self.step();
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Datagram { from, to, bytes } => self.on_datagram(from, to, bytes),
            Event::Frames { link, back } => self.on_frames(link, back),
            Event::Silence { link } => self.on_silence(link),
            Event::Reset { link } => self.on_reset(link),
            Event::Failed { end, life, call } => self.on_failed(end, life, call),
            Event::Stored { node, life, generation } if self.hosts[node].life == life => {
                self.hosts[node].disk.stored();
                self.arrive(node, Arrival::Stored { generation });
            }
            Event::Kept { node, life, core, ticket } if self.hosts[node].life == life => {
                let is_on_disk = self.hosts[node].disk.kept();
                self.arrive(node, Arrival::Kept { core, ticket, is_on_disk });
            }
            Event::GiveUp { node, life } if self.hosts[node].life == life => self.die(node, true),
            Event::Stored { .. } | Event::Kept { .. } | Event::GiveUp { .. } => {}
            Event::Task { client, run, task, turn } => self.on_turn(client, run, task, turn),
            Event::Operate => self.operate(),
            Event::Application { node, step } => self.on_move(node, step),
            Event::Number => self.on_number(),
        }
    }

    // Nodes.

    /// The present as a node sees it.
    pub(super) fn present(&self, node: usize) -> Now {
        let clock = &self.hosts[node].machine.clock;
        Now { monotonic: clock.monotonic(), wall_ms: clock.wall_ms() }
    }

    pub(super) fn process(&mut self, node: usize, work: impl FnOnce(&mut Process)) {
        if let Some(process) = &mut self.hosts[node].node {
            work(process);
        }
    }

    fn run_due(&mut self, node: usize) {
        let now = self.present(node);
        while self.hosts[node].node.as_mut().is_some_and(|it| it.do_what_is_due(now)) {
            self.carry_out_all(node);
        }
        self.note_due(node);
    }

    /// Carries out what a node asks for, and notes when it has something to do by itself.
    pub(super) fn settle(&mut self, node: usize) {
        self.carry_out_all(node);
        self.note_due(node);
    }

    fn carry_out_all(&mut self, node: usize) {
        let now = self.present(node);
        self.hosts[node].is_held_old = true;
        loop {
            let host = &mut self.hosts[node];
            let Some(sent) = host.node.as_mut().and_then(|it| it.poll_output(now)) else { return };
            match &mut host.crash_after {
                Some(0) => return self.die(node, true),
                Some(left) => *left -= 1,
                None => {}
            }
            self.carry_out(node, sent);
        }
    }

    /// Notes when a node has something to do by itself, and looks at all copies if it has just let some go: what
    /// is missing may be there again in a moment.
    fn note_due(&mut self, node: usize) {
        let given_up = self.hosts[node].node.as_ref().map_or(0, Process::slots_given_up);
        if std::mem::replace(&mut self.hosts[node].given_up, given_up) < given_up {
            self.observe();
        }
        let monotonic = self.present(node).monotonic;
        let host = &mut self.hosts[node];
        if let Some(process) = &host.node {
            let wait = process.poll_timeout().saturating_sub(monotonic);
            // Clocks drift by up to an eighth of a per mille: rather late than for nothing.
            host.due = self.now + wait + wait / 8_192 + Duration::from_micros(1);
        }
    }

    fn carry_out(&mut self, node: usize, sent: Sent) {
        let life = self.hosts[node].life;
        match sent {
            Sent::Gossip { channel, to, header, packet } => match channel {
                annulus_gossip::Channel::Datagram => self.send_gossip(node, to, header, packet),
                annulus_gossip::Channel::Stream => {
                    self.send_stream_gossip(node, to, header, packet)
                }
            },
            Sent::Reply(reply) => self.reply(node, reply),
            Sent::Call(ask) => self.send_call(node, ask),
            Sent::Persist { generation, state } => {
                let (rng, disk) = (&mut self.rng, &mut self.hosts[node].disk);
                let at = disk.store(rng, self.now, state);
                self.at(at, Event::Stored { node, life, generation });
            }
            Sent::Keep { core, ticket, changes } => {
                let (rng, disk) = (&mut self.rng, &mut self.hosts[node].disk);
                let at = disk.keep(rng, self.now, changes);
                self.at(at, Event::Kept { node, life, core, ticket });
            }
            Sent::Slots(call) => self.on_slot_call(node, call),
            Sent::GiveWay => {
                let what = format!("n{} met another node with its id", node + 1);
                self.violate("died", what);
                self.die(node, true);
            }
            Sent::Stopped => self.die(node, true),
        }
    }

    /// Starts a node on what is on its host, whether it runs or not.
    pub(super) fn start(&mut self, node: usize) {
        self.die(node, true);
        let now = self.present(node);
        let seed: u64 = self.rng.random();
        let tables = self.tables();
        let cores = self.storm.parameters.cores[node];
        let settings = CoreSettings {
            sync_interval: self.storm.parameters.sync_interval,
            flaw: self.mutant.and_then(Mutant::flaw),
            ..CoreSettings::default()
        };
        let host = &mut self.hosts[node];
        host.is_off = false;
        host.life += 1;
        // As the driver begins.
        let mut state = host.disk.state.clone().unwrap_or_default();
        state.id = host.id.bits();
        state.incarnation = (state.incarnation + 1).max(now.wall_ms);
        let forgets = self.mutant == Some(Mutant::ForgetfulClock);
        let clock_floor_ms = if forgets { 0 } else { state.clock_ceiling_ms };
        state.clock_ceiling_ms = clock_floor_ms.max(now.wall_ms) + CEILING_LEAD_MS;
        host.disk.state = Some(state.clone());
        let sim_host = SimHost::new(host.machine.clone());
        let open = |table: &TableSettings| {
            let opened = sim_host.open_table("", table, cores)?;
            Ok((table.policy.clone(), opened.writers))
        };
        let opened: Result<Vec<_>, FileError> = tables.iter().map(open).collect();
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                return self.violate("died", format!("n{} has no table: {error}", node + 1));
            }
        };
        let me = Member {
            id: host.id,
            incarnation: state.incarnation,
            revision: 0,
            status: Status::Joining,
            addr: addr(node),
            name: host.machine.name.to_string(),
            zone: String::new(),
            weight: 100,
            rings: u8::MAX,
            door: None,
            load: Load::default(),
        };
        let start = HubStart {
            settings,
            mesh: self.storm.mesh.clone(),
            cluster: CLUSTER.to_owned(),
            me,
            state,
            joins_others: true,
            cores: usize::from(cores),
            tables: tables.iter().map(|table| table.policy.name.clone()).collect(),
            homes_max: homes_max(tables.iter().map(|table| &table.policy), &[]),
            seed,
        };
        host.application.restart();
        let (slots, replicas) = (self.storm.slots, self.storm.replicas);
        let sets = (slots > 0).then(|| host.application.policy(slots, replicas));
        let policy = (clock_floor_ms, sets.as_slice());
        host.node = Some(Process::start(start, policy, opened, &host.disk.kept, now));
        let others = (0..self.hosts.len()).filter(|other| *other != node).map(addr).collect();
        self.process(node, |process| process.tell_hub(now, HubInput::Seeds(others)));
        self.settle(node);
    }

    /// A node's process is gone. `is_told`: its host goes on, and says so to who asks.
    pub(super) fn die(&mut self, node: usize, is_told: bool) {
        if self.hosts[node].node.is_none() {
            return;
        }
        let host = &mut self.hosts[node];
        host.node = None;
        (host.paused, host.crash_after, host.is_leaving) = (None, None, false);
        host.due = Duration::MAX;
        host.disk.crash(&mut self.rng);
        trace::line(format_args!("n{} is gone", node + 1));
        self.drop_streams(End::Node(node), is_told);
        if self.contacts.up().contains(&node) {
            // It was not said to stop: a crash that was to come.
            self.contacts.apply(self.now, &Fault::Kill(node));
        }
    }

    fn tell_to_stop(&mut self, node: usize, leave: bool) {
        let now = self.present(node);
        let life = self.hosts[node].life;
        if self.hosts[node].node.is_none() || self.hosts[node].is_leaving {
            return;
        }
        self.hosts[node].is_leaving = true;
        self.resume(node);
        self.process(node, |process| process.tell_hub(now, HubInput::Stop { leave }));
        self.settle(node);
        self.after(STOP_TIMEOUT, Event::GiveUp { node, life });
    }

    fn resume(&mut self, node: usize) {
        if let Some(waiting) = self.hosts[node].paused.take() {
            self.run_due(node);
            self.take_in_all(node, waiting);
        }
    }

    /// The table and its rings further out.
    pub(super) fn tables(&self) -> Vec<TableSettings> {
        let settings = |policy| TableSettings {
            policy,
            memory: u64::from(TABLE_BYTES),
            storage: Storage::Memory,
            record_size: RECORD_SIZE_DEFAULT,
            archive_max: 0,
        };
        self.storm.policies().into_iter().map(settings).collect()
    }

    // Faults.

    pub(super) fn apply(&mut self, fault: &Fault) {
        trace::line(format_args!("NEMESIS {fault:?}"));
        match fault {
            Fault::Partition(groups) => {
                self.net.mend();
                for group in groups {
                    for other in groups.iter().filter(|other| *other != group).flatten() {
                        group.iter().for_each(|site| self.net.cut(*site, *other));
                    }
                }
            }
            Fault::BlockOneWay { from, to } => self.net.cut(*from, *to),
            Fault::Heal => {
                self.net.mend();
                self.net.rates = Rates::default();
            }
            Fault::Rates(rates) => self.net.rates = *rates,
            Fault::Kill(node) => self.die(*node, true),
            Fault::Crash { node, after } => {
                // What it does to those in contact is seen when it happens.
                self.hosts[*node].crash_after = Some(*after);
                return;
            }
            Fault::Restart(node) | Fault::Join(node) => self.start(*node),
            Fault::Stop(node) => self.tell_to_stop(*node, false),
            Fault::PowerOff(node) => {
                self.observe();
                self.copies.lose(*node);
                self.die(*node, false);
                let host = &mut self.hosts[*node];
                host.machine.reboot();
                (host.is_off, host.is_held_old) = (true, true);
                self.end_clients_of(*node);
            }
            Fault::PowerOn(node) => {
                self.hosts[*node].machine.clock.reboot();
                self.start(*node);
                self.begin_clients_of(*node);
            }
            Fault::Drain(node) => self.order(*node, true),
            Fault::StopDraining(node) => self.order(*node, false),
            Fault::Leave(node) => {
                self.operator.leave_when_drained(*node);
                return;
            }
            Fault::Slow(node, latency) => drop(self.net.slow.insert(*node, *latency)),
            Fault::Hold(node) => drop(self.net.held.insert(*node)),
            Fault::Release(node) => {
                self.net.slow.remove(node);
                self.net.held.remove(node);
            }
            Fault::Pause(node) => {
                if self.hosts[*node].node.is_some() {
                    self.hosts[*node].paused.get_or_insert_default();
                }
            }
            Fault::Resume(node) => self.resume(*node),
            Fault::Disk(node, disk) => self.hosts[*node].disk.like = *disk,
            Fault::ClockJump(node, ms) => {
                self.hosts[*node].machine.clock.jump(*ms);
                self.hosts[*node].jumped_ms += ms;
            }
        }
        self.contacts.apply(self.now, fault);
        if matches!(fault, Fault::Drain(_)) {
            // Two homes out of two, or several nodes drain: a new home takes part once it is in sync.
            self.contacts.begin(self.now, self.storm.settling.after_change);
        }
    }

    /// A node that has given everything away goes for good.
    pub(super) fn let_leave(&mut self, node: usize) {
        trace::line(format_args!("NEMESIS n{} leaves", node + 1));
        self.contacts.apply(self.now, &Fault::Leave(node));
        self.tell_to_stop(node, true);
    }

    /// Ends all faults but for the clocks' skew, and starts everything that does not run.
    pub(super) fn heal(&mut self) {
        self.apply(&Fault::Heal);
        self.apply(&Fault::Rates(Rates::default()));
        for node in 0..self.hosts.len() {
            self.hosts[node].crash_after = None;
            self.apply(&Fault::Release(node));
            self.apply(&Fault::Resume(node));
            self.apply(&Fault::Disk(node, DiskLike::Good));
            let jumped_ms = self.hosts[node].jumped_ms;
            if jumped_ms != 0 {
                self.apply(&Fault::ClockJump(node, -jumped_ms));
            }
            if self.contacts.up().contains(&node) || self.contacts.gone().contains(&node) {
                continue;
            }
            let is_off = self.hosts[node].is_off;
            self.apply(&if is_off { Fault::PowerOn(node) } else { Fault::Restart(node) });
        }
    }

    // What there is to see.

    /// Looks at what all hosts hold.
    fn observe(&mut self) {
        let holdings = self.holdings();
        self.copies.observe(self.now, holdings);
    }

    pub(super) fn holdings(&mut self) -> Vec<Holding> {
        for node in 0..self.hosts.len() {
            let host = &mut self.hosts[node];
            // Nobody writes into the memory of a node that does not run.
            if std::mem::replace(&mut host.is_held_old, host.node.is_some()) {
                self.hosts[node].held = self.held_by(node);
            }
        }
        self.hosts.iter().map(|host| host.held.clone()).collect()
    }

    /// What a host holds of the keys here, on all rings together.
    fn held_by(&self, node: usize) -> Holding {
        let mut held = Holding::new();
        for table in self.tables() {
            for (key, entry) in self.held_in(node, &table) {
                held.entry(key).and_modify(|held| _ = held.merge(&entry)).or_insert(entry);
            }
        }
        // What is left of a session that went to other nodes is none.
        held.retain(|_, entry| !entry.is_marker());
        held
    }

    /// What a host holds of the keys here, as a reader sees it to whom everything is fresh. What no reader may
    /// see is read out of a copy of the whole segment, which costs a hundred times as much.
    fn held_in(&self, node: usize, table: &TableSettings) -> Holding {
        let machine = &self.hosts[node].machine;
        let Some(memory) = self.memory_of(node, &table.policy.name) else { return Holding::new() };
        let mut held = Holding::new();
        let mut buffer = Vec::new();
        for key in self.keys.iter().filter_map(|key| Key::new(key).ok()) {
            let hit = match memory.get(key.as_bytes(), 0, &mut buffer) {
                Lookup::Hit(hit) => hit,
                Lookup::Miss => continue,
                _ => return machine.holding(table),
            };
            let view = record::View::parse(&buffer);
            if let Ok(entry) = view.and_then(|view| view.entry(hit.mark)) {
                held.insert(key, entry);
            }
        }
        held
    }
}

/// How often conditions are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// A segment's size: three shards have some 128 KiB of freshness each, and all values have room in one.
const TABLE_BYTES: u32 = 1 << 20;

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
