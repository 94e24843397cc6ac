//! Client processes that use sessions as web workers do, through the real client library.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annulus_client::{Builder, Change, Client, Read, StartOptions, Value, Version};
use annulus_net::{Faults, FaultyNet};
use annulus_proto::Hlc;
use annulus_seal::Key;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::clock::SimClock;
use crate::habits::{Habit, HotHabit};
use crate::history::{Action, History, Outcome, content};
use crate::host::Machine;
use crate::net::TurmoilNet;
use crate::scenario::{Mutant, derive};
use crate::trace;

/// The client as simulations use it.
pub type SimClient = Client<FaultyNet<TurmoilNet>, SimClock>;

/// A client process.
#[derive(Clone)]
pub struct Process {
    /// The name of its simulated host.
    pub name: String,
    /// The address of its simulated host.
    pub ip: IpAddr,
    /// The number of the node that it is cut off together with.
    pub site: usize,
    /// The host it runs on, with a node and its shared memory; `None` for a host of its own.
    pub machine: Option<Machine>,
    /// Its clock.
    pub clock: SimClock,
    /// The addresses of all nodes.
    pub seeds: Vec<String>,
    /// The keys that all clients share.
    pub keys: Arc<Vec<String>>,
    /// Those for conditional operations, which come after these.
    pub hot_keys: Arc<Vec<String>>,
    /// How long after the beginning each key is written. Then it is only read, so that nothing newer
    /// hides what became of the last write.
    pub written_for: Arc<Vec<Duration>>,
    /// The pause between two operations of one task, at most.
    pub think: Duration,
    /// What nodes and clients do to the network.
    pub faults: Faults,
    /// Where everything is recorded.
    pub history: History,
    /// When to stop, in microseconds of simulated time.
    pub stop_at_us: Arc<AtomicU64>,
    /// When to begin.
    pub start_at_us: Arc<AtomicU64>,
    /// Tasks that run at the same time.
    pub tasks: usize,
    /// Its seed.
    pub seed: u64,
    /// Its key, if what goes between hosts is sealed.
    pub key: Option<Key>,
    /// What it does wrong on purpose.
    pub mutant: Option<Mutant>,
}

impl Process {
    /// Pauses between two operations, in simulated time.
    async fn think(&self, rng: &mut StdRng) {
        let think_ms = u64::try_from(self.think.as_millis()).unwrap_or(u64::MAX);
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..=think_ms))).await;
    }

    /// A client library for this process, in its `run`-th run.
    #[must_use]
    pub fn client(&self, run: u64) -> SimClient {
        let net = FaultyNet::new(TurmoilNet::new(&self.name), self.faults.clone()).at(self.ip);
        let number = self.seed.wrapping_add(run);
        let mut builder = Builder::new(net, self.clock.clone(), number).seeds(self.seeds.clone());
        if let Some(key) = self.key.clone() {
            let mut rng = StdRng::seed_from_u64(derive(number, "entropy"));
            builder = builder.key(key).entropy(rng.random::<[u8; 32]>());
        }
        match self.machine.clone() {
            None => builder.without_shared_memory().open(),
            Some(machine) => {
                let socket = format!("/sim/{}/annulus.sock", machine.name);
                builder.local_socket(socket).attach(move |segment| machine.attach(segment)).open()
            }
        }
    }

    /// Runs until it is time to stop.
    pub async fn run(self, run: u64) {
        while micros(trace::now()) < self.start_at_us.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let client = self.client(run);
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..self.tasks {
            let seed = self.seed ^ (run << 32) ^ ((number as u64 + 1) << 48);
            let worker = Worker {
                process: self.clone(),
                client: client.clone(),
                rng: StdRng::seed_from_u64(seed),
                habit: Habit::default(),
                first_read: BTreeMap::new(),
            };
            tasks.spawn(worker.work());
        }
        let seed = self.seed ^ (run << 32) ^ 0x686f74;
        let hot = HotWorker {
            process: self.clone(),
            client,
            rng: StdRng::seed_from_u64(seed),
            habit: HotHabit::default(),
        };
        tasks.spawn(hot.work());
        while tasks.join_next().await.is_some() {}
    }
}

struct Worker {
    process: Process,
    client: SimClient,
    rng: StdRng,
    habit: Habit,
    /// For [`Mutant::StaleRead`].
    first_read: BTreeMap<usize, Outcome>,
}

impl Worker {
    async fn work(mut self) {
        while micros(trace::now()) < self.process.stop_at_us.load(Ordering::Relaxed) {
            self.step().await;
            self.process.think(&mut self.rng).await;
        }
    }

    async fn step(&mut self) {
        let process = &self.process;
        let began = Duration::from_micros(process.start_at_us.load(Ordering::Relaxed));
        let is_written = |key: usize| trace::now() < began + process.written_for[key];
        let drawn = self.habit.draw(&mut self.rng, process.keys.len(), is_written);
        let key = drawn.key;
        let (name, site) = (&process.name, process.site);
        let (id, action) = process.history.invoke(name, site, key, |id| drawn.action(id));
        let outcome = self.perform(key, action).await;
        self.habit.learn(key, &outcome);
        self.process.history.complete(id, outcome);
    }

    async fn perform(&mut self, key: usize, action: Action) -> Outcome {
        let name = self.process.keys[key].clone();
        if self.process.mutant == Some(Mutant::FalseAcknowledgement)
            && let (Action::SetFields { .. } | Action::Replace { .. }, Some(birth)) =
                (&action, self.habit.birth(key))
            && self.rng.random_range(0..3) == 0
        {
            let later = Version::new(Hlc::from_ms(birth.hlc.ms() + 60_000), birth.node);
            return Outcome::Acknowledged { birth, version: later };
        }
        let acknowledged = match action {
            Action::Get => {
                let outcome = match self.client.get(&name).await {
                    Ok(Read { session, source }) => Outcome::Read { session, source },
                    Err(error) => Outcome::of(&error),
                };
                return self.distort(key, outcome);
            }
            Action::Start(value) => self.client.start(&name, value, StartOptions::default()).await,
            Action::Replace { birth, value } => {
                self.client.update(&name, birth, Change::Value(value)).await
            }
            Action::SetFields { birth, set, delete } => {
                self.client.update(&name, birth, Change::Fields { set, delete }).await
            }
            Action::Touch { birth } => self.client.touch(&name, birth).await,
            Action::End { birth } => self.client.end(&name, birth).await,
            Action::StartIfAbsent(_) | Action::CompareAndSet { .. } | Action::EndIf { .. } => {
                unreachable!("those are for hot keys")
            }
        };
        match acknowledged {
            Ok(done) => Outcome::Acknowledged { birth: done.birth, version: done.version },
            Err(error) => Outcome::of(&error),
        }
    }

    /// What the mutants of the client make of a read.
    fn distort(&mut self, key: usize, outcome: Outcome) -> Outcome {
        match (self.process.mutant, outcome) {
            (Some(Mutant::PhantomRead), Outcome::Read { mut session, source })
                if self.rng.random_range(0..50) == 0 =>
            {
                if let Value::Bytes(bytes) = &mut session.value {
                    *bytes = content(usize::MAX, 40);
                }
                Outcome::Read { session, source }
            }
            (Some(Mutant::StaleRead), outcome @ Outcome::Read { .. }) => {
                self.first_read.entry(key).or_insert(outcome).clone()
            }
            (_, outcome) => outcome,
        }
    }
}

/// Does conditional operations on a few keys.
struct HotWorker {
    process: Process,
    client: SimClient,
    rng: StdRng,
    habit: HotHabit,
}

impl HotWorker {
    async fn work(mut self) {
        while micros(trace::now()) < self.process.stop_at_us.load(Ordering::Relaxed) {
            self.step().await;
            self.process.think(&mut self.rng).await;
        }
    }

    async fn step(&mut self) {
        let process = &self.process;
        let keys = process.keys.len();
        let drawn = self.habit.draw(&mut self.rng, keys, process.hot_keys.len());
        let key = drawn.key;
        let (name, site) = (&process.name, process.site);
        let (id, action) = process.history.invoke(name, site, key, |id| drawn.action(id));
        let outcome = self.perform(key - keys, action).await;
        self.habit.learn(key, &outcome);
        self.process.history.complete(id, outcome);
    }

    async fn perform(&mut self, hot: usize, action: Action) -> Outcome {
        let table = self.client.sessions();
        let name = self.process.hot_keys[hot].clone();
        let is_blind = self.process.mutant == Some(Mutant::BlindWrite);
        let acknowledged = match action {
            Action::CompareAndSet { value, .. } if is_blind => {
                table.update(&name, None, Change::Value(value)).await
            }
            Action::CompareAndSet { version, value } => {
                table.compare_and_set(&name, version, value).await
            }
            Action::EndIf { version } => table.end_if(&name, version).await,
            Action::End { birth } => table.end(&name, birth).await,
            Action::StartIfAbsent(value) => {
                table.start_if_absent(&name, value, StartOptions::default()).await
            }
            _ => {
                return match table.get(&name).await {
                    Ok(Read { session, source }) => Outcome::Read { session, source },
                    Err(error) => Outcome::of(&error),
                };
            }
        };
        match acknowledged {
            Ok(done) => Outcome::Acknowledged { birth: done.birth, version: done.version },
            Err(error) => Outcome::of(&error),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
