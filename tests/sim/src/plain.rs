//! The unmodified node under a plain loop over what happens next: no tokio, no sockets, a tenth of turmoil's time.
//!
//! A hub and its cores on a host with memory, disk and clocks of its own are what the driver makes of them
//! (`process`); real frames travel between them over a simulated network (`net`). Clients follow the
//! client library's rules without being it (`client`). Habits, history, checker, the count of copies and
//! the plan of faults are those of the simulations under turmoil.
//!
//! # Determinism
//! The same kind and seed give the same trace, byte for byte: one thread, one queue, and one generator of
//! random numbers for each purpose. Several may run in one process, each in a thread of its own.
//!
//! # What it does not simulate
//! The driver: streams, inboxes and files are modelled, not run. Seals, lanes and threads have no part in it. Of
//! the slots only each seventeenth has a core, and there are keys in no others: what is done by
//! slot is most of what nodes do, and a hundred keys need no more of them.

mod application;
mod client;
mod disk;
mod net;
mod operator;
mod process;
mod search;
mod storm;
mod world;

use std::time::Duration;

use annulus_net::Clock as _;
use annulus_proto::Key;
use annulus_shm::Lookup;

use crate::check::{self, Ending, Violation};
use crate::cluster::Outcome;
use crate::scenario::Mutant;
use crate::{snapshot, trace};
use world::{Event, World};

pub use search::{Weathered, weather, weather_all};
pub use storm::{KINDS, Kind, Storm};

/// How long the first nodes may take to form a cluster.
const FORM_BUDGET: Duration = Duration::from_secs(30);
/// How long after the healing everything must be even, beside two intervals of comparison.
const CONVERGE_BUDGET: Duration = Duration::from_secs(45);
/// How long clients may take to finish what they began.
const FINISH_BUDGET: Duration = Duration::from_secs(10);
/// The first operations come this long before contacts count.
const WARM_UP: Duration = Duration::from_secs(3);

/// Runs a storm in this thread. The trace is to be begun before ([`trace::begin`]).
#[must_use]
pub fn run(kind: &Kind, seed: u64, mutant: Option<Mutant>) -> Outcome {
    let storm = kind.draw(seed);
    trace::line(format_args!("{} {seed} {storm:?}", kind.name));
    let mut world = World::new(storm, mutant);
    let (ending, converged_after) = world.live();
    world.outcome(ending, converged_after)
}

impl World {
    /// Safety under faults, then convergence.
    fn live(&mut self) -> (Ending, Option<Duration>) {
        let ending = Ending {
            partition: self.storm.parameters.partition,
            keys: self.keys.clone(),
            replicas: self.storm.replicas.get().into(),
            touches_short_ms: self.storm.parameters.plan.touches_short_ms(self.storm.policy().idle),
            up: Default::default(),
            homes: Vec::new(),
            holdings: Vec::new(),
            reads: Vec::new(),
        };
        self.after(Duration::ZERO, Event::Operate);
        (0..self.storm.parameters.first).for_each(|node| self.start(node));
        self.operator.watches = true;
        if !self.until(FORM_BUDGET, |world| world.unmet(None).is_empty()) {
            let what = format!("no cluster after {FORM_BUDGET:?}: {}", self.unmet(None).join("; "));
            self.violate("unformed", what);
            return (ending, None);
        }
        self.operator.watches = false;
        let began = self.now;
        self.began = began;
        self.contacts.begin(began, WARM_UP);
        self.begin_clients();
        if self.storm.slots > 0 {
            self.on_number();
        }
        for (at, fault) in self.storm.parameters.plan.steps.clone() {
            self.until_time(began + at);
            self.apply(&fault);
        }
        self.until_time(began + self.storm.parameters.plan.end);
        self.heal();
        let healed_at = self.now;
        self.until_time(healed_at + self.storm.parameters.tail);
        self.stop_at = self.now;
        self.operator.let_all_stay();
        self.operator.watches = true;
        if !self.until(FINISH_BUDGET, |world| world.clients_are_done()) {
            let what = format!("clients still wait {FINISH_BUDGET:?} after the end");
            self.violate("unavailable", what);
        }
        self.converge(healed_at, ending)
    }

    fn converge(&mut self, healed_at: Duration, ending: Ending) -> (Ending, Option<Duration>) {
        let budget = CONVERGE_BUDGET + 2 * self.storm.parameters.sync_interval;
        let left = (healed_at + budget).saturating_sub(self.now);
        let since = self.now;
        let is_even = self.until(left, |world| world.unmet(Some(since)).is_empty());
        let converged_after = is_even.then(|| self.now - healed_at);
        if !is_even {
            let what = format!("{budget:?} after healing: {}", self.unmet(Some(since)).join("; "));
            self.violate("unconverged", what);
        }
        let homes = self.homes();
        let holdings = self.holdings();
        self.read_all();
        let mut reads = None;
        if !self.until(FINISH_BUDGET, |world| {
            reads = world.operator.take_reads();
            reads.is_some()
        }) {
            self.violate("unavailable", "the last reads got no answer".to_owned());
        }
        let (up, reads) = (self.contacts.up().clone(), reads.unwrap_or_default());
        (Ending { up, homes, holdings, reads, ..ending }, converged_after)
    }

    fn outcome(mut self, ending: Ending, converged_after: Option<Duration>) -> Outcome {
        let ops = self.history.ops();
        let (found, mut tally) = check::check(&ops, self.contacts.epochs(), &ending);
        let (too_few, copies) = self.copies.verdict();
        self.violations.extend(too_few);
        (tally.samples, tally.let_go) = (copies.samples, copies.let_go + self.numbers.dropped);
        // Without an ending nothing can be said about it, and no split lasts long enough here for every table to
        // be written on both sides.
        let ended = !ending.homes.is_empty();
        let counts = |violation: &Violation| match violation.rule {
            "lost" | "revived" => ended,
            "one-sided" => false,
            _ => true,
        };
        self.violations.extend(found.into_iter().filter(counts));
        for violation in &self.violations {
            trace::line(format_args!("VIOLATION {violation}"));
        }
        let (simulated, violations) = (self.now, self.violations);
        Outcome { violations, tally, trace: trace::hash(), simulated, converged_after }
    }

    fn homes(&self) -> Vec<Vec<usize>> {
        self.operator.seen.as_ref().map_or_else(Vec::new, |seen| seen.homes(&self.keys))
    }

    /// What keeps the cluster from being formed, or from being healed in every way, as of what was asked after
    /// `since`.
    fn unmet(&mut self, since: Option<Duration>) -> Vec<String> {
        let Some(seen) = &self.operator.seen else {
            return vec!["nobody was asked yet".to_owned()];
        };
        let mut unmet = seen.unmet(&self.contacts, since.is_some());
        if since.is_some_and(|since| seen.began < since) {
            unmet.push("nobody was asked since the healing".to_owned());
        }
        if since.is_some() && unmet.is_empty() {
            let (homes, holdings) = (self.homes(), self.holdings());
            unmet.extend(snapshot::differences(&self.keys, &homes, &holdings));
            unmet.extend(self.stale(&homes));
            unmet.extend(self.unmet_slots());
        }
        unmet
    }

    /// The keys that a home's readers may not trust their memory for.
    fn stale(&self, homes: &[Vec<usize>]) -> Vec<String> {
        let mut found = Vec::new();
        let mut buffer = Vec::new();
        for (key, homes) in homes.iter().enumerate() {
            let Ok(name) = Key::new(&self.keys[key]) else { continue };
            for home in homes {
                let machine = &self.hosts[*home].machine;
                let Some(memory) = self.memory_of(*home, world::TABLE) else { continue };
                let now_ms = machine.clock.monotonic_coarse_ms();
                if memory.get(name.as_bytes(), now_ms, &mut buffer) == Lookup::Stale {
                    found.push(format!("n{} does not vouch for k{key}", home + 1));
                }
            }
        }
        found
    }
}
