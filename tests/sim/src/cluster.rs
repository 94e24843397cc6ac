//! One simulation from its first tick to its verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU16};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use annulus_client::{KeyChange, KeyId, KeyOrdered, KeyText, KeysReport, NodeKeys, Order, Read};
use annulus_gossip::MeshConfig;
use annulus_net::{Faults, FaultyNet, Rates, Side};
use annulus_node::core::{CoreSettings, Partition, TablePolicy};
use annulus_node::driver::run_on;
use annulus_node::{NodeSettings, RECORD_SIZE_DEFAULT, Storage, TableSettings};
use annulus_seal::Key as ClusterKey;
use turmoil::Sim;

use crate::check::{self, Ending, Tally, Violation};
use crate::clock::{EPOCH_MS, SimClock};
use crate::copies::Copies;
use crate::history::{History, Outcome as Answer};
use crate::host::{Disk, Machine, SimHost};
use crate::net::TurmoilNet;
use crate::plan::{Contacts, Fault};
use crate::scenario::{Mutant, Parameters, Scenario, derive};
use crate::snapshot::{self, Snapshot};
use crate::trace;
use crate::workload::{Process, SimClient};

/// What became of a simulation.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The rules that were broken.
    pub violations: Vec<Violation>,
    /// What it was made of.
    pub tally: Tally,
    /// Its hash and its number of lines.
    pub trace: (u64, u64),
    /// How long it took, in simulated time.
    pub simulated: Duration,
    /// How long after the healing the cluster had converged.
    pub converged_after: Option<Duration>,
}

/// The port of each node.
const PORT: u16 = 7946;
/// How long the first nodes may take to form a cluster.
const FORM_BUDGET: Duration = Duration::from_secs(20);
/// How long after the healing everything must be even, beside two intervals of comparison.
const CONVERGE_BUDGET: Duration = Duration::from_secs(45);
/// How long a node may take to give everything away, though others are killed meanwhile.
const DRAIN_BUDGET: Duration = Duration::from_secs(60);
/// How long clients may take to finish what they began.
const FINISH_BUDGET: Duration = Duration::from_secs(15);
/// The first operations come this long before contacts count.
const WARM_UP: Duration = Duration::from_secs(3);

/// Runs a simulation. One per process: see the crate's documentation.
#[must_use]
pub fn run(scenario: &Scenario, seed: u64, mutant: Option<Mutant>) -> Outcome {
    let parameters = scenario.draw(seed);
    trace::line(format_args!("{} {seed} {parameters:?}", scenario.name));
    let mut cluster = Cluster::new(parameters, mutant);
    if let Err(died) = cluster.live() {
        cluster.violations.push(Violation { rule: "died", what: died.to_string() });
    }
    cluster.outcome()
}

struct Cluster {
    parameters: Parameters,
    mutant: Option<Mutant>,
    sim: Sim<'static>,
    machines: Vec<Machine>,
    processes: Vec<Process>,
    faults: Faults,
    contacts: Contacts,
    history: History,
    watch: Arc<Watch>,
    start_at_us: Arc<AtomicU64>,
    stop_at_us: Arc<AtomicU64>,
    ending: Ending,
    healed_at: Duration,
    converged_after: Option<Duration>,
    copies: Copies,
    /// Whether a node was stopped in any way, or cut off, so that others may not know what it holds.
    has_lost_anything: bool,
    next_sample: Duration,
    violations: Vec<Violation>,
}

/// What the simulated operator sees, and what he is asked.
#[derive(Default)]
struct Watch {
    state: Mutex<WatchState>,
}

#[derive(Default)]
struct WatchState {
    /// The nodes to ask.
    nodes: BTreeSet<usize>,
    /// Those to tell whether to drain, until they have heard.
    orders: BTreeMap<usize, bool>,
    seen: Option<Snapshot>,
    read_all: bool,
    reads: Option<Vec<(usize, usize, Answer)>>,
}

/// The simulation itself broke off.
#[derive(Debug)]
struct Died(String);

impl fmt::Display for Died {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Cluster {
    fn new(parameters: Parameters, mutant: Option<Mutant>) -> Self {
        let seed = parameters.seed;
        let (latency_min, latency_max) = parameters.latency;
        let mut sim = turmoil::Builder::new()
            .epoch(UNIX_EPOCH + Duration::from_millis(EPOCH_MS))
            .simulation_duration(Duration::from_secs(24 * 3_600))
            .tick_duration(Duration::from_millis(1))
            .rng_seed(derive(seed, "turmoil"))
            .min_message_latency(latency_min)
            .max_message_latency(latency_max)
            .tcp_capacity(65_536)
            .udp_capacity(65_536)
            .enable_random_order()
            .build();
        let faults = Faults::seeded(derive(seed, "faults"));
        let history = History::default();
        let sealed_with = parameters.keys();
        let mut machines = Vec::new();
        for node in 0..parameters.nodes {
            let name = format!("n{}", node + 1);
            let clock = SimClock::new(parameters.skew_ms[node], parameters.drift_ppm[node]);
            let ip = sim.lookup(name.as_str());
            let machine = Machine::new(&name, ip, clock, derive(seed, &name), mutant);
            if let Some((ring, ..)) = &sealed_with {
                machine.give(ring);
            }
            add_node(&mut sim, &machine, settings(&parameters, node, ip, mutant), &faults);
            if node >= parameters.first {
                sim.crash(name.as_str());
            }
            machines.push(machine);
        }
        let seeds: Vec<String> =
            machines.iter().map(|machine| format!("{}:{PORT}", machine.name)).collect();
        let keys: Vec<String> = (0..parameters.keys).map(|key| format!("{seed}/{key}")).collect();
        let hot = |key: usize| format!("{seed}/hot/{key}");
        let hot_keys: Vec<String> = (0..parameters.hot_keys).map(hot).collect();
        let start_at_us = Arc::new(AtomicU64::new(u64::MAX));
        let stop_at_us = Arc::new(AtomicU64::new(u64::MAX));
        let mut processes = Vec::new();
        let count = parameters.clients_local + parameters.clients_remote;
        for number in 0..count {
            let name = format!("c{}", number + 1);
            let site = number % parameters.first;
            let local = number < parameters.clients_local;
            let machine = Some(machines[site].clone()).filter(|_| local);
            let own_clock = SimClock::new(0, 0);
            let process = Process {
                ip: sim.lookup(name.as_str()),
                site,
                clock: machine.as_ref().map_or(own_clock, |machine| machine.clock.clone()),
                machine,
                seeds: rotated(&seeds, site),
                keys: Arc::new(keys.clone()),
                hot_keys: Arc::new(hot_keys.clone()),
                written_for: Arc::new(parameters.written_for()),
                think: parameters.think,
                faults: faults.clone(),
                history: history.clone(),
                stop_at_us: stop_at_us.clone(),
                start_at_us: start_at_us.clone(),
                tasks: parameters.tasks,
                seed: derive(seed, &name),
                key: sealed_with.as_ref().map(|(_, key, _)| key.clone()),
                mutant,
                name,
            };
            add_process(&mut sim, &process);
            processes.push(process);
        }
        let up: BTreeSet<usize> = (0..parameters.first).collect();
        let watch = Arc::new(Watch::default());
        watch.lock().nodes.clone_from(&up);
        if let (Some(next), Some((ring, ..))) = (parameters.next_key(), &sealed_with) {
            add_keeper(&mut sim, &machines[0], &processes[0], ring.in_use().id(), next);
        }
        let of_operators = sealed_with.map(|(.., key)| key);
        let gives_orders = parameters.plan.gives_orders();
        let like = Process { key: of_operators, ..processes[0].clone() };
        add_operator(&mut sim, &machines, &processes[0], gives_orders.then_some(like), &watch);
        let all_keys = [keys, hot_keys].concat();
        let contacts = Contacts::new(parameters.nodes, up, 2 * latency_max);
        Self {
            mutant,
            sim,
            machines,
            processes,
            faults,
            contacts,
            history,
            watch,
            start_at_us,
            stop_at_us,
            ending: Ending {
                partition: parameters.partition,
                keys: all_keys.clone(),
                replicas: usize::from(REPLICAS.get()),
                touches_short_ms: parameters.plan.touches_short_ms(IDLE),
                up: BTreeSet::new(),
                homes: Vec::new(),
                holdings: Vec::new(),
                reads: Vec::new(),
            },
            healed_at: Duration::ZERO,
            converged_after: None,
            copies: Copies::new(&all_keys, REPLICAS.get().into()),
            has_lost_anything: false,
            next_sample: Duration::ZERO,
            violations: Vec::new(),
            parameters,
        }
    }

    /// Safety under faults, then convergence.
    fn live(&mut self) -> Result<(), Died> {
        if !self.until(FORM_BUDGET, |cluster| cluster.unmet(false).is_empty())? {
            let what =
                format!("no cluster after {FORM_BUDGET:?}: {}", self.unmet(false).join("; "));
            self.violations.push(Violation { rule: "unformed", what });
            return Ok(());
        }
        let began = self.sim.elapsed();
        self.contacts.begin(began, WARM_UP);
        self.start_at_us.store(micros(began), Ordering::Relaxed);
        for (at, fault) in self.parameters.plan.steps.clone() {
            self.until_time(began + at)?;
            if let Fault::Leave(node) = fault
                && !self.until(DRAIN_BUDGET, |cluster| cluster.is_drained(node))?
            {
                let what = format!("n{} is not drained after {DRAIN_BUDGET:?}", node + 1);
                self.violations.push(Violation { rule: "undrained", what });
            }
            self.apply(&fault);
        }
        self.until_time(began + self.parameters.plan.end)?;
        self.heal();
        self.until_time(self.sim.elapsed() + self.parameters.tail)?;
        self.stop_at_us.store(micros(self.sim.elapsed()), Ordering::Relaxed);
        if !self.until(FINISH_BUDGET, Self::clients_are_done)? {
            let what = format!("clients still wait {FINISH_BUDGET:?} after the end");
            self.violations.push(Violation { rule: "unavailable", what });
        }
        self.converge()
    }

    fn converge(&mut self) -> Result<(), Died> {
        let budget = CONVERGE_BUDGET + 2 * self.parameters.sync_interval;
        let left = (self.healed_at + budget).saturating_sub(self.sim.elapsed());
        if !self.until(left, |cluster| cluster.unmet(true).is_empty())? {
            let what = format!("{budget:?} after healing: {}", self.unmet(true).join("; "));
            self.violations.push(Violation { rule: "unconverged", what });
        } else {
            self.converged_after = Some(self.sim.elapsed() - self.healed_at);
        }
        self.ending.homes = self.homes();
        self.ending.up.clone_from(self.contacts.up());
        self.ending.holdings = self.holdings();
        self.watch.lock().read_all = true;
        if !self.until(FINISH_BUDGET, |cluster| cluster.watch.lock().reads.is_some())? {
            let what = "the last reads got no answer".to_owned();
            self.violations.push(Violation { rule: "unavailable", what });
        }
        self.ending.reads = self.watch.lock().reads.take().unwrap_or_default();
        if self.mutant == Some(Mutant::ForgetfulReplica)
            && let Some(held) = self.ending.holdings.first_mut()
        {
            held.clear();
        }
        Ok(())
    }

    fn outcome(mut self) -> Outcome {
        let ops = self.history.ops();
        let epochs = self.contacts.epochs();
        let ending = self.ending.clone();
        let (found, mut tally) = check::check(&ops, epochs, &ending);
        let (too_few, copies) = self.copies.verdict();
        self.violations.extend(too_few);
        (tally.samples, tally.let_go) = (copies.samples, copies.let_go);
        // Without an ending nothing can be said about it.
        let ended = !ending.homes.is_empty();
        let about_ending = |violation: &Violation| matches!(violation.rule, "lost" | "revived");
        self.violations.extend(found.into_iter().filter(|found| ended || !about_ending(found)));
        for violation in &self.violations {
            trace::line(format_args!("VIOLATION {violation}"));
        }
        let simulated = self.sim.elapsed();
        let converged_after = self.converged_after;
        Outcome {
            violations: self.violations,
            tally,
            trace: trace::hash(),
            simulated,
            converged_after,
        }
    }

    // Time.

    fn step(&mut self) -> Result<(), Died> {
        let now = self.sim.elapsed();
        trace::set_now(now);
        if self.next_sample <= now {
            self.next_sample = now + SAMPLE;
            let holdings = self.holdings();
            self.copies.observe(now, holdings);
            self.look_for_lost_copies(now);
        }
        self.sim.step().map(|_| ()).map_err(|error| Died(error.to_string()))
    }

    /// As long as nothing was taken from the nodes, none of them knows of a slot on too few.
    fn look_for_lost_copies(&mut self, now: Duration) {
        if self.has_lost_anything || self.violations.iter().any(|found| found.rule == "copies") {
            return;
        }
        let Some(snapshot) = self.watch.lock().seen.clone() else { return };
        for (node, answer) in snapshot.nodes {
            let below = answer.map_or(0, |(status, _)| below_k(&status));
            if below > 0 {
                let name = &self.machines[node].name;
                let what = format!("{name} knows of {below} slots on too few nodes at {now:?}");
                self.violations.push(Violation { rule: "copies", what });
            }
        }
    }

    fn until_time(&mut self, time: Duration) -> Result<(), Died> {
        while self.sim.elapsed() < time {
            self.step()?;
        }
        Ok(())
    }

    /// Whether the condition came true within the budget; it is looked at now and then.
    fn until(&mut self, budget: Duration, is_met: impl Fn(&Self) -> bool) -> Result<bool, Died> {
        let deadline = self.sim.elapsed() + budget;
        let mut look = self.sim.elapsed();
        loop {
            if look <= self.sim.elapsed() {
                if is_met(self) {
                    return Ok(true);
                }
                look += LOOK;
            }
            if self.sim.elapsed() >= deadline {
                return Ok(false);
            }
            self.step()?;
        }
    }

    fn clients_are_done(&self) -> bool {
        let ops = self.history.ops();
        let asked_last = ops.iter().rev().take(64);
        let open = |op: &&crate::history::Op| op.returned.is_none();
        let stopped = Duration::from_micros(self.stop_at_us.load(Ordering::Relaxed));
        // What a process began that lost power stays open for ever; it began long ago.
        asked_last.filter(open).all(|op| op.invoked + FINISH_BUDGET < stopped)
    }

    // Faults.

    fn apply(&mut self, fault: &Fault) {
        let now = self.sim.elapsed();
        trace::set_now(now);
        trace::line(format_args!("NEMESIS {fault:?}"));
        // Whoever leaves has given away what it had.
        let takes_nothing = matches!(
            fault,
            Fault::Heal
                | Fault::Rates(_)
                | Fault::Join(_)
                | Fault::Drain(_)
                | Fault::StopDraining(_)
                | Fault::Leave(_)
                | Fault::Disk(..)
                | Fault::ClockJump(..)
        );
        self.has_lost_anything |= !takes_nothing;
        match fault {
            Fault::Partition(groups) => {
                self.faults.heal();
                for (index, group) in groups.iter().enumerate() {
                    let others = groups.iter().enumerate().filter(|(other, _)| *other != index);
                    for other in others.flat_map(|(_, other)| other) {
                        group.iter().for_each(|site| self.block(*site, *other));
                    }
                }
            }
            Fault::BlockOneWay { from, to } => self.block(*from, *to),
            Fault::Heal => self.faults.heal(),
            Fault::Rates(rates) => self.faults.set_rates(*rates),
            Fault::Kill(node) | Fault::Crash { node, .. } => {
                self.sim.crash(&*self.machines[*node].name)
            }
            Fault::Stop(node) => self.machines[*node].stop(),
            Fault::Restart(node) | Fault::Join(node) => {
                self.sim.bounce(&*self.machines[*node].name);
            }
            Fault::Drain(node) | Fault::StopDraining(node) => {
                self.watch.lock().orders.insert(*node, matches!(fault, Fault::Drain(_)));
            }
            Fault::Leave(node) => self.machines[*node].stop(),
            Fault::PowerOff(node) => {
                let holdings = self.holdings();
                self.copies.observe(now, holdings);
                self.copies.lose(*node);
                for (name, ip) in self.on_host(*node) {
                    self.faults.block(ip, Side::Any);
                    self.faults.block(Side::Any, ip);
                    self.sim.crash(name.as_str());
                }
                self.machines[*node].reboot();
            }
            Fault::PowerOn(node) => {
                self.machines[*node].clock.reboot();
                for (name, ip) in self.on_host(*node) {
                    self.faults.unblock(ip, Side::Any);
                    self.faults.unblock(Side::Any, ip);
                    self.sim.bounce(name.as_str());
                }
            }
            Fault::Slow(node, latency) => self.each_link(*node, |sim, name, other| {
                sim.set_link_latency(name, other, *latency);
            }),
            Fault::Hold(node) | Fault::Pause(node) => {
                self.each_link(*node, |sim, name, other| sim.hold(name, other))
            }
            Fault::Release(node) | Fault::Resume(node) => {
                let (min, max) = self.parameters.latency;
                self.each_link(*node, |sim, name, other| {
                    sim.release(name, other);
                    sim.set_link_latency(name, other, min);
                    sim.set_link_max_message_latency(name, other, max);
                });
            }
            Fault::Disk(node, disk) => self.machines[*node].set_disk(*disk),
            Fault::ClockJump(node, ms) => self.machines[*node].clock.jump(*ms),
        }
        self.contacts.apply(now, fault);
        self.watch.lock().nodes.clone_from(self.contacts.up());
    }

    /// Ends all faults but for the clocks' skew, and starts everything that does not run.
    fn heal(&mut self) {
        self.healed_at = self.sim.elapsed();
        self.apply(&Fault::Heal);
        self.apply(&Fault::Rates(Rates::default()));
        for node in 0..self.machines.len() {
            self.apply(&Fault::Release(node));
            self.apply(&Fault::Disk(node, Disk::Good));
            if !self.contacts.up().contains(&node) && !self.contacts.gone().contains(&node) {
                self.apply(&Fault::Restart(node));
            }
        }
    }

    fn block(&self, from: usize, to: usize) {
        for (_, from) in self.at_site(from) {
            for (_, to) in self.at_site(to) {
                self.faults.block(from, to);
            }
        }
    }

    /// The simulated hosts that are cut off together with a node.
    fn at_site(&self, site: usize) -> Vec<(String, IpAddr)> {
        let machine = &self.machines[site];
        let beside = self.processes.iter().filter(|process| process.site == site);
        let beside = beside.map(|process| (process.name.clone(), process.ip));
        std::iter::once((machine.name.to_string(), machine.ip)).chain(beside).collect()
    }

    /// The simulated hosts that are one host with a node.
    fn on_host(&self, node: usize) -> Vec<(String, IpAddr)> {
        let local = |name: &str| {
            let process = self.processes.iter().find(|process| process.name == name);
            process.is_none_or(|process| process.machine.is_some())
        };
        self.at_site(node).into_iter().filter(|(name, _)| local(name)).collect()
    }

    fn each_link(&mut self, node: usize, change: impl Fn(&Sim<'static>, &str, &str)) {
        let here: Vec<String> = self.on_host(node).into_iter().map(|(name, _)| name).collect();
        let machines = self.machines.iter().map(|machine| machine.name.to_string());
        let processes = self.processes.iter().map(|process| process.name.clone());
        for other in machines.chain(processes).filter(|other| !here.contains(other)) {
            change(&self.sim, &here[0], &other);
        }
    }

    // What there is to see.

    /// What keeps the cluster from being formed, or even from being in every way as it should.
    fn unmet(&self, entirely: bool) -> Vec<String> {
        let Some(snapshot) = self.watch.lock().seen.clone() else {
            return vec!["nobody was asked yet".to_owned()];
        };
        let mut unmet = Vec::new();
        if entirely && snapshot.began < self.healed_at + self.parameters.tail {
            unmet.push("nobody was asked since the healing".to_owned());
        }
        unmet.extend(snapshot.unmet(&self.contacts, entirely));
        let takers = self.contacts.up().len().saturating_sub(self.contacts.draining().len());
        if entirely && takers >= usize::from(REPLICAS.get()) {
            for (node, answer) in &snapshot.nodes {
                let below = answer.as_ref().map_or(0, |(status, _)| below_k(status));
                if below > 0 {
                    let name = &self.machines[*node].name;
                    unmet.push(format!("{name} knows of {below} slots on too few nodes"));
                }
            }
        }
        if entirely && unmet.is_empty() {
            unmet = self.differences();
        }
        unmet
    }

    /// Whether a node has said, after it was told to drain, that it has given away what others can take.
    fn is_drained(&self, node: usize) -> bool {
        let watch = self.watch.lock();
        let has_heard = !watch.orders.contains_key(&node);
        has_heard && watch.seen.as_ref().is_some_and(|seen| seen.is_drained(node))
    }

    fn differences(&self) -> Vec<String> {
        let mut found = self.stale_keyrings();
        let keys = &self.ending.keys;
        found.extend(snapshot::differences(keys, &self.homes(), &self.holdings()));
        found
    }

    /// Which hosts do not have the new key of nodes instead of the old one, if it was to be replaced.
    fn stale_keyrings(&self) -> Vec<String> {
        let Some(next) = self.parameters.next_key() else { return Vec::new() };
        let Some((first, of_clients, _)) = self.parameters.keys() else { return Vec::new() };
        let is_right = |machine: &&Machine| {
            machine.keyring().is_some_and(|ring| {
                ring.in_use().id() == next.id()
                    && ring.get(first.in_use().id()).is_none()
                    && ring.get(of_clients.id()).is_some()
            })
        };
        let stale = self.machines.iter().filter(|machine| !is_right(machine));
        stale.map(|machine| format!("{} has other keys", machine.name)).collect()
    }

    /// The homes of each key, as any node says that answered.
    fn homes(&self) -> Vec<Vec<usize>> {
        let watch = self.watch.lock();
        watch.seen.as_ref().map_or_else(Vec::new, |seen| seen.homes(&self.ending.keys))
    }

    fn holdings(&self) -> Vec<crate::host::Holding> {
        let table = table(&self.parameters, self.mutant);
        self.machines.iter().map(|machine| machine.holding(&table)).collect()
    }
}

/// How often conditions are looked at, and nodes are asked.
const LOOK: Duration = Duration::from_millis(200);
/// How often the memory of all nodes is looked at.
const SAMPLE: Duration = Duration::from_millis(200);
/// How long sessions may be idle: longer than any run, shorter than the hour that a clock jumps.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// How many homes a slot has.
const REPLICAS: NonZeroU8 = NonZeroU8::new(3).expect("three is not zero");

fn add_node(sim: &mut Sim<'static>, machine: &Machine, settings: NodeSettings, faults: &Faults) {
    let (machine, faults) = (machine.clone(), faults.clone());
    let name = machine.name.to_string();
    sim.host(name.as_str(), move || {
        let (machine, settings, faults) = (machine.clone(), settings.clone(), faults.clone());
        async move {
            let stop = machine.begin();
            let net = FaultyNet::new(TurmoilNet::new(&machine.name), faults).at(machine.ip);
            let clock = machine.clock.clone();
            let host = SimHost::new(machine);
            run_on(settings, net, clock, host, stop.notified(), |_| ()).await?;
            Ok(())
        }
    });
}

fn add_process(sim: &mut Sim<'static>, process: &Process) {
    let process = process.clone();
    let runs = AtomicU64::new(0);
    let name = process.name.clone();
    sim.host(name.as_str(), move || {
        let (process, run) = (process.clone(), runs.fetch_add(1, Ordering::Relaxed));
        async move {
            process.run(run).await;
            Ok(())
        }
    });
}

/// Slots that a node knows to be on too few nodes.
fn below_k(status: &annulus_client::NodeStatus) -> u64 {
    let below = status.counters.iter().find(|(name, _)| name == "copies_below_k");
    below.map_or(0, |(_, count)| *count)
}

/// Somebody outside, whom no fault concerns, who asks the nodes how they are, and may give orders.
fn add_operator(
    sim: &mut Sim<'static>,
    machines: &[Machine],
    like: &Process,
    gives_orders: Option<Process>,
    watch: &Arc<Watch>,
) {
    let name = "operator";
    let ip = sim.lookup(name);
    let outside = |process: &Process| Process {
        name: name.to_owned(),
        ip,
        machine: None,
        clock: SimClock::new(0, 0),
        mutant: None,
        ..process.clone()
    };
    let process = Process { seed: like.seed ^ 1, ..outside(like) };
    let orders = gives_orders.map(|like| Process { seed: like.seed ^ 2, ..outside(&like) });
    let (machines, watch) = (machines.to_vec(), watch.clone());
    sim.host(name, move || {
        let (process, machines, watch) = (process.clone(), machines.clone(), watch.clone());
        let orders = orders.clone();
        async move {
            if let Some(process) = orders {
                tokio::spawn(give_orders(process.client(0), machines.clone(), watch.clone()));
            }
            let client = process.client(0);
            loop {
                tokio::time::sleep(LOOK).await;
                let (nodes, read_all) = {
                    let state = watch.lock();
                    (state.nodes.clone(), state.read_all)
                };
                let mut snapshot = Snapshot { began: trace::now(), nodes: BTreeMap::new() };
                for node in nodes {
                    let handle = client.node((machines[node].ip, PORT).into());
                    let answer = match handle.status().await {
                        Ok(status) => handle.routes().await.ok().map(|routes| (status, routes)),
                        Err(_) => None,
                    };
                    snapshot.nodes.insert(node, answer);
                }
                let nodes: Vec<usize> = snapshot.nodes.keys().copied().collect();
                watch.lock().seen = Some(snapshot);
                if !read_all {
                    continue;
                }
                let mut reads = Vec::new();
                for node in nodes {
                    let table = client.sessions().at((machines[node].ip, PORT).into());
                    for (key, name) in process.keys.iter().chain(&*process.hot_keys).enumerate() {
                        let answer = match table.get(name).await {
                            Ok(Read { session, source }) => Answer::Read { session, source },
                            Err(error) => Answer::of(&error),
                        };
                        reads.push((node, key, answer));
                    }
                }
                watch.lock().reads = Some(reads);
                return Ok(());
            }
        }
    });
}

/// Somebody on a node's host who replaces the key of nodes, and repeats each step until it is done.
fn add_keeper(
    sim: &mut Sim<'static>,
    machine: &Machine,
    like: &Process,
    old: KeyId,
    next: ClusterKey,
) {
    let name = "keeper";
    let process = Process {
        name: name.to_owned(),
        ip: sim.lookup(name),
        machine: Some(machine.clone()),
        clock: machine.clock.clone(),
        seed: like.seed ^ 2,
        mutant: None,
        ..like.clone()
    };
    sim.host(name, move || {
        let (process, next) = (process.clone(), next.clone());
        async move {
            while micros(trace::now()) < process.start_at_us.load(Ordering::Relaxed) {
                tokio::time::sleep(LOOK).await;
            }
            let client = process.client(0);
            let text = KeyText(next.reveal().to_string());
            let [next, old] = [next.id(), old].map(KeyId::bits);
            for change in [KeyChange::Install(text), KeyChange::Use(next), KeyChange::Remove(old)] {
                loop {
                    tokio::time::sleep(LOOK).await;
                    let report = client.any_node().keys(change.clone(), false).await;
                    if report.is_ok_and(|report| is_done(&report)) {
                        break;
                    }
                }
            }
            Ok(())
        }
    });
}

fn is_done(report: &KeysReport) -> bool {
    let is_done = |node: &NodeKeys| matches!(node.keys, KeyOrdered::Done { .. });
    report.refused.is_empty() && report.nodes.iter().all(is_done)
}

/// Tells nodes what they are to be told, until they have heard.
async fn give_orders(client: SimClient, machines: Vec<Machine>, watch: Arc<Watch>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let orders = watch.lock().orders.clone();
        for (node, drains) in orders {
            let order = if drains { Order::Drain } else { Order::StopDraining };
            let told = client.node((machines[node].ip, PORT).into()).order(order).await;
            let mut state = watch.lock();
            if told.is_ok() && state.orders.get(&node) == Some(&drains) {
                state.orders.remove(&node);
            }
        }
    }
}

fn settings(
    parameters: &Parameters,
    node: usize,
    ip: IpAddr,
    mutant: Option<Mutant>,
) -> NodeSettings {
    let name = format!("n{}", node + 1);
    let others = (0..parameters.nodes).filter(|other| *other != node);
    NodeSettings {
        cluster: "annulus".to_owned(),
        data_dir: format!("/sim/{name}").into(),
        shm_dir: format!("/sim/{name}").into(),
        keyring: parameters.sealed.then(|| format!("/sim/{name}/keyring").into()),
        listen: (ip, PORT).into(),
        advertise: None,
        socket: Some(format!("/sim/{name}/annulus.sock").into()),
        socket_mode: 0o600,
        local_roles: annulus_node::driver::LocalRoles::default(),
        seeds: others.map(|other| format!("n{}:{PORT}", other + 1)).collect(),
        zone: String::new(),
        weight: 100,
        rings: 1,
        connections_max: 1_024,
        cores: NonZeroU16::new(parameters.cores[node]).expect("one at least is drawn"),
        lanes: annulus_node::driver::LaneSettings::default(),
        stop_timeout: Duration::from_secs(5),
        leave_on_stop: parameters.plan.leaves(node),
        mesh: MeshConfig::default(),
        core: CoreSettings {
            sync_interval: parameters.sync_interval,
            flaw: mutant.and_then(Mutant::flaw),
            ..CoreSettings::default()
        },
        redis: annulus_node::driver::RedisSettings::default(),
        tables: vec![table(parameters, mutant)],
        name,
    }
}

fn table(parameters: &Parameters, mutant: Option<Mutant>) -> TableSettings {
    let write = match mutant {
        Some(Mutant::WriteOne) => annulus_node::core::WriteHomes::One,
        _ => parameters.write,
    };
    let partition = match mutant {
        Some(Mutant::ServeAnyway) => Partition::Serve,
        _ => parameters.partition,
    };
    let policy =
        TablePolicy { partition, replicas: REPLICAS, write, idle: IDLE, ..TablePolicy::default() };
    TableSettings {
        policy,
        memory: 2 << 20,
        storage: Storage::Memory,
        record_size: RECORD_SIZE_DEFAULT,
        archive_max: 0,
    }
}

fn rotated(seeds: &[String], by: usize) -> Vec<String> {
    let mut seeds = seeds.to_vec();
    seeds.rotate_left(by);
    seeds
}

impl Watch {
    fn lock(&self) -> std::sync::MutexGuard<'_, WatchState> {
        // Nothing panics half-way through a change of the state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
