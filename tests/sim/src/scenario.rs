//! The scenarios: what is drawn from the seed, and the plan of faults.

use std::time::Duration;

use annulus_net::{Rate, Rates};
use annulus_node::core::{Flaw, Partition, WriteHomes};
use annulus_proto::message::Role;
use annulus_seal::{Key, KeyKind, Keyring};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::host::Disk;
use crate::plan::{Fault, Plan};

/// A scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What happens in it.
    pub about: &'static str,
    make: fn(&mut StdRng) -> (Shape, Plan),
}

/// The nodes of a scenario.
#[derive(Clone, Copy, Debug)]
struct Shape {
    nodes: usize,
    /// How many of them run from the start.
    first: usize,
    tail: Duration,
}

/// Everything about a simulation that is drawn from its seed.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// The seed.
    pub seed: u64,
    /// Nodes, those that join later included.
    pub nodes: usize,
    /// How many run from the start.
    pub first: usize,
    /// Clients with a node on their host.
    pub clients_local: usize,
    /// Clients without one.
    pub clients_remote: usize,
    /// Tasks of each client.
    pub tasks: usize,
    /// Keys that all share.
    pub keys: usize,
    /// The longest pause between two operations of a task.
    pub think: Duration,
    /// How long a message travels: at least, and at most.
    pub latency: (Duration, Duration),
    /// Each node's cores.
    pub cores: Vec<u16>,
    /// Whether what goes between hosts is sealed.
    pub sealed: bool,
    /// Whether the key of nodes is replaced meanwhile.
    pub rotates: bool,
    /// Each node's wall clock, in milliseconds ahead.
    pub skew_ms: Vec<i64>,
    /// Each node's clocks, in microseconds gained per second.
    pub drift_ppm: Vec<i64>,
    /// The core's `sync_interval`.
    pub sync_interval: Duration,
    /// Keys beyond those, for conditional operations.
    pub hot_keys: usize,
    /// The tables' `write`.
    pub write: WriteHomes,
    /// The tables' `partition`.
    pub partition: Partition,
    /// How long the workload goes on after the healing.
    pub tail: Duration,
    /// The faults.
    pub plan: Plan,
}

impl Parameters {
    /// How long after the beginning each key is written: most are left alone, one after the other,
    /// while the faults last; every fourth is written to the end.
    #[must_use]
    pub fn written_for(&self) -> Vec<Duration> {
        let step = self.plan.end / u32::try_from(self.keys).unwrap_or(u32::MAX);
        let until = |key: usize| match key % 4 {
            3 => Duration::MAX / 2,
            _ => step * u32::try_from(key + 1).unwrap_or(u32::MAX),
        };
        (0..self.keys).map(until).collect()
    }
}

impl Parameters {
    /// The keys that all nodes have, the one of all clients, and the one of who gives orders.
    #[must_use]
    pub fn keys(&self) -> Option<(Keyring, Key, Key)> {
        self.sealed.then(|| {
            let mut rng = StdRng::seed_from_u64(derive(self.seed, "keys"));
            let of_nodes = Key::new(KeyKind::Node, &rng.random::<[u8; 32]>());
            let of_clients = Key::new(KeyKind::Client(Role::Authority), &rng.random::<[u8; 32]>());
            let mut ring = Keyring::new(of_nodes).expect("a key of nodes");
            let of_operators = Key::new(KeyKind::Client(Role::Operator), &rng.random::<[u8; 32]>());
            ring.install(of_clients.clone()).expect("there is room for two");
            ring.install(of_operators.clone()).expect("there is room for three");
            (ring, of_clients, of_operators)
        })
    }

    /// The key of nodes that takes the place of the first one.
    #[must_use]
    pub fn next_key(&self) -> Option<Key> {
        let secret = || StdRng::seed_from_u64(derive(self.seed, "next key")).random::<[u8; 32]>();
        self.rotates.then(|| Key::new(KeyKind::Node, &secret()))
    }
}

/// A fault of the harness itself, or of the configuration, that the checker must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A restarted process finds its shared memory empty.
    ForgetfulRestart,
    /// A restarted process finds its tombstones alive again.
    RevivingRestart,
    /// Writes are acknowledged by one home, where a quorum was promised.
    WriteOne,
    /// A client is told of writes that were never sent.
    FalseAcknowledgement,
    /// A client reads a value that nobody wrote.
    PhantomRead,
    /// A client reads the same for ever.
    StaleRead,
    /// One home forgets an entry after everything has converged.
    ForgetfulReplica,
    /// A client writes whether or not the condition holds.
    BlindWrite,
    /// A table goes on that was to refuse.
    ServeAnyway,
    /// Nodes drop a slot as soon as their view says that they are no home of it.
    LetGoByTable,
    /// Nodes ask for receipts without having compared, while the slot's epoch still counts on them, and
    /// give them for what they are not in sync with.
    EarlyReceipts,
    /// Nodes store writes, and count them, of slots that they are no home of.
    StoreAsNoHome,
    /// Nodes give receipts for what they give away themselves.
    ReceiptsWhileDraining,
    /// Nodes let changes through that carry another birth than that of the session which they find.
    IgnoreBirths,
    /// Nodes count a hint as a copy.
    CountHints,
    /// Nodes drop tombstones after some seconds.
    DropTombstones,
    /// Nodes decide with a majority of the homes that are there.
    CountTheLiving,
    /// A restarted node does not find on its disk how far its clock had come.
    ForgetfulClock,
    /// Nodes send out the tombstone of an end on a condition before a majority holds that the session is to end.
    EndAtOnce,
    /// An application drops a slot of its own though it changed since others got it.
    DropChangedSlots,
    /// Nodes drop what is to go to another ring before anybody there has answered.
    DropUnheld,
    /// Nodes say *absent* without asking the rings further out.
    AskNoRings,
}

impl Mutant {
    /// Those that turmoil's scenarios find, each with its name, a scenario in which it shows, and the rule that it breaks.
    pub const ALL: &[(Self, &str, &str, &str)] = &[
        (Self::ForgetfulRestart, "forgetful-restart", "kill-all", "lost"),
        (Self::RevivingRestart, "reviving-restart", "kill-all", "revived"),
        (Self::WriteOne, "write-one", "reboot-cut-off", "lost"),
        (Self::FalseAcknowledgement, "false-acknowledgement", "join", "lost"),
        (Self::PhantomRead, "phantom-read", "join", "phantom"),
        (Self::StaleRead, "stale-read", "join", "stale"),
        (Self::ForgetfulReplica, "forgetful-replica", "join", "diverged"),
        (Self::BlindWrite, "blind-write", "join", "linear"),
        (Self::ServeAnyway, "serve-anyway", REFUSING, "two-sided"),
        (Self::LetGoByTable, "let-go-by-table", "drain", "copies"),
        (Self::EarlyReceipts, "early-receipts", "drain", "copies"),
        (Self::StoreAsNoHome, "store-as-no-home", "drain", "kept"),
    ];

    /// Those that storms find ([`crate::plain`]), each with its name, the kind of storm, the rule that it breaks,
    /// and the first seed with which it shows.
    pub const IN_STORMS: &[(Self, &str, &str, &str, u64)] = &[
        (Self::LetGoByTable, "let-go-by-table", "storm", "copies", 4),
        (Self::IgnoreBirths, "ignore-births", "storm", "phantom", 1),
        (Self::CountHints, "count-hints", "storm-losses", "linear", 510),
        (Self::DropTombstones, "drop-tombstones", "storm", "revived", 15),
        (Self::ForgetfulClock, "forgetful-clock", "storm-restarts", "twice", 3),
        (Self::CountTheLiving, "count-the-living", "storm", "linear", 15),
        // It showed with this seed until requests that come back are told so otherwise; another one is to be found.
        (Self::EndAtOnce, "end-at-once", "storm-moves", "linear", 144),
        (Self::DropChangedSlots, "drop-changed-slots", "storm-slots", "copies", 94),
        (Self::ReceiptsWhileDraining, "receipts-while-draining", "storm-slots", "unconverged", 335),
        (Self::DropUnheld, "drop-unheld", "storm-rings", "copies", 23),
        (Self::AskNoRings, "ask-no-rings", "storm-rings", "stale", 3),
    ];

    /// A seed with which it shows. Some need luck: a write, or an end, at the right moment.
    #[must_use]
    pub fn seed(self) -> u64 {
        match self {
            Self::StoreAsNoHome => 5,
            Self::LetGoByTable => 2,
            _ => 1,
        }
    }

    /// The rule that nodes break, if it is they who do.
    #[must_use]
    pub fn flaw(self) -> Option<Flaw> {
        match self {
            Self::LetGoByTable => Some(Flaw::LetsGoByTable),
            Self::EarlyReceipts => Some(Flaw::EarlyReceipts),
            Self::StoreAsNoHome => Some(Flaw::StoresAsNoHome),
            Self::ReceiptsWhileDraining => Some(Flaw::ReceiptsWhileDraining),
            Self::IgnoreBirths => Some(Flaw::IgnoresBirths),
            Self::CountHints => Some(Flaw::CountsHints),
            Self::DropTombstones => Some(Flaw::DropsTombstones),
            Self::CountTheLiving => Some(Flaw::CountsTheLiving),
            Self::EndAtOnce => Some(Flaw::EndsAtOnce),
            Self::DropUnheld => Some(Flaw::DropsUnheld),
            Self::AskNoRings => Some(Flaw::AsksNoRings),
            _ => None,
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let under_turmoil = Self::ALL.iter().map(|(mutant, name, ..)| (*mutant, *name));
        let in_storms = Self::IN_STORMS.iter().map(|(mutant, name, ..)| (*mutant, *name));
        under_turmoil.chain(in_storms).find(|(_, other)| *other == name).map(|(mutant, _)| mutant)
    }
}

impl Scenario {
    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// What this seed makes of it.
    #[must_use]
    pub fn draw(&self, seed: u64) -> Parameters {
        let mut rng = StdRng::seed_from_u64(derive(seed, self.name));
        let (shape, plan) = (self.make)(&mut rng);
        let Shape { nodes, first, tail } = shape;
        let latency_min = rng.random_range(0..=2);
        let latency_max = latency_min + rng.random_range(1..=8);
        Parameters {
            seed,
            nodes,
            first,
            clients_local: rng.random_range(2..=3),
            clients_remote: rng.random_range(1..=2),
            tasks: rng.random_range(1..=3),
            keys: rng.random_range(12..=40),
            think: ms(rng.random_range(20..=200)),
            latency: (ms(latency_min), ms(latency_max)),
            cores: (0..nodes).map(|_| rng.random_range(1..=3)).collect(),
            // Drawn apart: a seed says in all else what it always said.
            sealed: self.name == KEYS
                || derive(seed, &format!("{} sealed", self.name)).is_multiple_of(2),
            rotates: self.name == KEYS,
            skew_ms: (0..nodes).map(|_| rng.random_range(-100..=100)).collect(),
            drift_ppm: (0..nodes).map(|_| rng.random_range(-100..=100)).collect(),
            sync_interval: Duration::from_secs(if rng.random() { 30 } else { 5 }),
            hot_keys: 2 + (derive(seed, &format!("{} hot", self.name)) % 3) as usize,
            write: WriteHomes::Quorum,
            partition: if self.name == REFUSING { Partition::Refuse } else { Partition::Serve },
            tail,
            plan,
        }
    }
}

/// The scenario whose table has `partition = "refuse"`.
const REFUSING: &str = "split-refuse";

/// The scenario in which keys are replaced.
const KEYS: &str = "keys";

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "join", about: "two nodes join three under load", make: join },
    Scenario {
        name: "loss",
        about: "a fifth to a third of all datagrams vanish, others come twice or late, and streams \
                are cut one way",
        make: loss,
    },
    Scenario {
        name: "partition",
        about: "three nodes split 2|1, shortly or for long",
        make: partition,
    },
    Scenario { name: "split", about: "five nodes split 3|2, shortly or for long", make: split },
    Scenario {
        name: "split-serve",
        about: "five nodes split 3|2 for so long that both sides go on alone",
        make: split_long,
    },
    Scenario {
        name: REFUSING,
        about: "the same, with a table that refuses to go on without a majority",
        make: split_long,
    },
    Scenario {
        name: "crash",
        about: "nodes are killed and come back with their memory",
        make: crash,
    },
    Scenario {
        name: "kill-all",
        about: "all nodes are killed at once and come back",
        make: kill_all,
    },
    Scenario {
        name: "kill-storm",
        about: "nodes are killed again and again during writes",
        make: kill_storm,
    },
    Scenario {
        name: "reboot",
        about: "a host loses power and comes back without its memory",
        make: reboot,
    },
    Scenario {
        name: "reboot-cut-off",
        about: "a host is cut off, then loses its memory, then comes back",
        make: reboot_cut_off,
    },
    Scenario { name: "slow", about: "a node is slow, and stands still at times", make: slow },
    Scenario {
        name: "clock",
        about: "a node's wall clock is set an hour ahead, and back",
        make: clock,
    },
    Scenario {
        name: "rolling-restart",
        about: "all nodes stop and start, one after the other",
        make: rolling,
    },
    Scenario {
        name: "disk",
        about: "disks are slow or take nothing, while a node misses writes, others are killed, and one \
                loses power and has its clock set back",
        make: disk,
    },
    Scenario {
        name: KEYS,
        about: "the key of nodes is replaced while datagrams vanish and nodes are killed and cut off",
        make: keys,
    },
    Scenario {
        name: "drain",
        about: "nodes drain one after the other while others join, are killed or lose power; some \
                leave for good, some take slots again, some stay as they are",
        make: drain,
    },
    Scenario { name: "mixed", about: "whatever the seed says", make: mixed },
];

fn keys(rng: &mut StdRng) -> (Shape, Plan) {
    let nodes = rng.random_range(3..=5);
    let rates = Rates { loss: per_mille(rng.random_range(50..=200)), ..Rates::default() };
    let mut steps = vec![(secs(1), Fault::Rates(rates))];
    let mut at = secs(2);
    for _ in 0..3 {
        // Before a change, or in the middle of one.
        let node = rng.random_range(0..nodes);
        let away = some_ms(rng, 9_000);
        steps.push((at, Fault::Kill(node)));
        steps.push((at + away, Fault::Restart(node)));
        at += away + some_ms(rng, 4_000);
    }
    let larger = nodes / 2 + 1;
    steps.push((at, Fault::Partition(groups(rng, nodes, larger))));
    steps.push((at + some_ms(rng, 8_000), Fault::Heal));
    (Shape { nodes, first: nodes, tail: secs(20) }, Plan::new(steps, secs(1)))
}

fn join(rng: &mut StdRng) -> (Shape, Plan) {
    let steps = vec![
        (secs(2) + some_ms(rng, 2_000), Fault::Join(3)),
        (secs(6) + some_ms(rng, 6_000), Fault::Join(4)),
    ];
    (Shape { nodes: 5, first: 3, tail: secs(20) }, Plan::new(steps, secs(5)))
}

fn loss(rng: &mut StdRng) -> (Shape, Plan) {
    let rate = |rng: &mut StdRng, from, to| per_mille(rng.random_range(from..=to));
    let rates = Rates {
        loss: rate(rng, 200, 330),
        duplication: rate(rng, 0, 100),
        corruption: rate(rng, 0, 20),
        truncation: rate(rng, 0, 20),
        reordering: rate(rng, 0, 200),
    };
    let mut steps = vec![(secs(2), Fault::Rates(rates))];
    for round in 0..3 {
        let at = secs(4 + 6 * round) + some_ms(rng, 1_000);
        let (from, to) = pair(rng, 5);
        steps.push((at, Fault::BlockOneWay { from, to }));
        steps.push((at + ms(500) + some_ms(rng, 3_000), Fault::Heal));
        steps.push((at + ms(3_600), Fault::Rates(rates)));
    }
    (Shape { nodes: 5, first: 5, tail: secs(20) }, Plan::new(steps, secs(3)))
}

fn partition(rng: &mut StdRng) -> (Shape, Plan) {
    (Shape { nodes: 3, first: 3, tail: secs(20) }, split_of(rng, 3, 2))
}

fn split(rng: &mut StdRng) -> (Shape, Plan) {
    (Shape { nodes: 5, first: 5, tail: secs(20) }, split_of(rng, 5, 3))
}

fn split_long(rng: &mut StdRng) -> (Shape, Plan) {
    let (groups, at) = (groups(rng, 5, 3), secs(3) + some_ms(rng, 1_000));
    let lasts = secs(50) + some_ms(rng, 5_000);
    let steps = vec![(at, Fault::Partition(groups)), (at + lasts, Fault::Heal)];
    (Shape { nodes: 5, first: 5, tail: secs(20) }, Plan::new(steps, secs(1)))
}

fn split_of(rng: &mut StdRng, nodes: usize, larger: usize) -> Plan {
    let (groups, at) = (groups(rng, nodes, larger), secs(3) + some_ms(rng, 1_000));
    let mut steps = vec![(at, Fault::Partition(groups))];
    // Long enough that both sides go on alone and settle, or too short for that.
    let lasts = if rng.random() { secs(50) + some_ms(rng, 5_000) } else { some_ms(rng, 20_000) };
    steps.push((at + lasts, Fault::Heal));
    Plan::new(steps, secs(1))
}

fn crash(rng: &mut StdRng) -> (Shape, Plan) {
    let nodes = rng.random_range(3..=5);
    let mut steps = Vec::new();
    let mut at = secs(3);
    for _ in 0..2 {
        let node = rng.random_range(0..nodes);
        // Back before anybody noticed, or after its slots have moved.
        let away = if rng.random() { some_ms(rng, 3_000) } else { secs(8) + some_ms(rng, 6_000) };
        steps.push((at, Fault::Kill(node)));
        steps.push((at + away, Fault::Restart(node)));
        at += away + secs(8) + some_ms(rng, 4_000);
    }
    (Shape { nodes, first: nodes, tail: secs(20) }, Plan::new(steps, secs(1)))
}

fn kill_all(rng: &mut StdRng) -> (Shape, Plan) {
    let nodes = rng.random_range(3..=5);
    let at = secs(5) + some_ms(rng, 2_000);
    let mut steps = Vec::new();
    for node in 0..nodes {
        steps.push((at, Fault::Kill(node)));
        steps.push((at + some_ms(rng, 4_000), Fault::Restart(node)));
    }
    (Shape { nodes, first: nodes, tail: secs(20) }, Plan::new(steps, secs(1)))
}

fn kill_storm(rng: &mut StdRng) -> (Shape, Plan) {
    let nodes = rng.random_range(3..=4);
    let mut steps = Vec::new();
    let mut at = secs(2);
    for _ in 0..rng.random_range(6..=12) {
        let node = rng.random_range(0..nodes);
        steps.push((at, Fault::Kill(node)));
        steps.push((at + ms(20) + some_ms(rng, 1_500), Fault::Restart(node)));
        at += ms(300) + some_ms(rng, 3_000);
    }
    (Shape { nodes, first: nodes, tail: secs(20) }, Plan::new(steps, secs(2)))
}

fn reboot(rng: &mut StdRng) -> (Shape, Plan) {
    let nodes = rng.random_range(3..=5);
    let node = rng.random_range(0..nodes);
    let at = secs(5) + some_ms(rng, 2_000);
    let away = if rng.random() { ms(500) + some_ms(rng, 3_000) } else { secs(10) };
    let steps = vec![(at, Fault::PowerOff(node)), (at + away, Fault::PowerOn(node))];
    (Shape { nodes, first: nodes, tail: secs(20) }, Plan::new(steps, secs(2)))
}

fn reboot_cut_off(rng: &mut StdRng) -> (Shape, Plan) {
    let at = secs(5) + some_ms(rng, 1_000);
    // Shorter than the others take to declare it down, so that the homes stay the same.
    let steps = vec![
        (at, Fault::Partition(vec![vec![0], vec![1, 2]])),
        (at + ms(2_500), Fault::PowerOff(0)),
        (at + ms(3_000), Fault::Heal),
        (at + ms(4_000), Fault::PowerOn(0)),
    ];
    (Shape { nodes: 3, first: 3, tail: secs(20) }, Plan::new(steps, secs(2)))
}

fn slow(rng: &mut StdRng) -> (Shape, Plan) {
    let nodes = rng.random_range(3..=5);
    let node = rng.random_range(0..nodes);
    let latency = ms(rng.random_range(50..=400));
    let mut steps = vec![(secs(3), Fault::Slow(node, latency)), (secs(15), Fault::Release(node))];
    for round in 0..2 {
        let at = secs(18 + 6 * round) + some_ms(rng, 1_000);
        let node = rng.random_range(0..nodes);
        steps.push((at, Fault::Hold(node)));
        steps.push((at + ms(200) + some_ms(rng, 4_000), Fault::Release(node)));
    }
    (Shape { nodes, first: nodes, tail: secs(20) }, Plan::new(steps, secs(2)))
}

fn clock(rng: &mut StdRng) -> (Shape, Plan) {
    let nodes = rng.random_range(3..=5);
    let node = rng.random_range(0..nodes);
    let sign = if rng.random() { 1 } else { -1 };
    let jump_ms = sign * 3_600_000;
    let (at, back) = (secs(3) + some_ms(rng, 1_000), secs(24) + some_ms(rng, 1_000));
    let mut steps = vec![(at, Fault::ClockJump(node, jump_ms))];
    if rng.random() {
        steps.push((secs(12), Fault::Kill(node)));
        steps.push((secs(12) + some_ms(rng, 2_000), Fault::Restart(node)));
    }
    steps.push((back, Fault::ClockJump(node, -jump_ms)));
    (Shape { nodes, first: nodes, tail: secs(20) }, Plan::new(steps, secs(2)))
}

fn rolling(rng: &mut StdRng) -> (Shape, Plan) {
    let nodes = rng.random_range(3..=5);
    let mut steps = Vec::new();
    let mut at = secs(2);
    for node in 0..nodes {
        steps.push((at, Fault::Stop(node)));
        let away = ms(300) + some_ms(rng, 2_500);
        steps.push((at + away, Fault::Restart(node)));
        at += away + secs(2) + some_ms(rng, 2_000);
    }
    (Shape { nodes, first: nodes, tail: secs(20) }, Plan::new(steps, secs(1)))
}

fn disk(rng: &mut StdRng) -> (Shape, Plan) {
    let mut order = [0, 1, 2, 3];
    order.shuffle(rng);
    let [out, killed, rebooted, other] = order;
    let like = |rng: &mut StdRng| if rng.random() { Disk::Slow } else { Disk::Bad };
    let at = secs(3) + some_ms(rng, 1_000);
    let mut steps = vec![
        (secs(2), Fault::Disk(killed, like(rng))),
        (secs(2), Fault::Disk(rebooted, like(rng))),
        // One misses writes, and hints for it wait on the others.
        (at, Fault::Hold(out)),
        (at + secs(1) + some_ms(rng, 3_000), Fault::Kill(killed)),
        (at + secs(4) + some_ms(rng, 1_000), Fault::Restart(killed)),
    ];
    let at = at + secs(6) + some_ms(rng, 2_000);
    steps.extend([
        (at, Fault::PowerOff(rebooted)),
        (at + ms(100), Fault::ClockJump(rebooted, -3_600_000)),
        (at + secs(1) + some_ms(rng, 2_000), Fault::PowerOn(rebooted)),
        (at + secs(4), Fault::Disk(rebooted, Disk::Good)),
        (at + secs(4), Fault::Release(out)),
        (at + secs(5), Fault::Kill(other)),
        (at + secs(5) + some_ms(rng, 2_000), Fault::Restart(other)),
        (at + secs(9), Fault::ClockJump(rebooted, 3_600_000)),
    ]);
    (Shape { nodes: 4, first: 4, tail: secs(20) }, Plan::new(steps, secs(2)))
}

fn drain(rng: &mut StdRng) -> (Shape, Plan) {
    let first = if rng.random() { 3 } else { 5 };
    let mut steps = Vec::new();
    if first == 3 {
        steps.push((secs(2) + some_ms(rng, 3_000), Fault::Join(3)));
        steps.push((secs(4) + some_ms(rng, 9_000), Fault::Join(4)));
    }
    let loss = per_mille(if rng.random_range(0..3) == 0 { rng.random_range(5..=50) } else { 0 });
    let reordering = per_mille(rng.random_range(0..=100));
    steps.push((secs(1), Fault::Rates(Rates { loss, reordering, ..Rates::default() })));
    let mut order: Vec<usize> = (0..first).collect();
    order.shuffle(rng);
    let other = order.pop().expect("there are three at least");
    // Three stay, or slots have fewer homes than they should.
    let mut may_go = 2;
    let mut at = secs(3) + some_ms(rng, 2_000);
    let killed_at = at + some_ms(rng, 20_000);
    let away = if rng.random() { some_ms(rng, 3_000) } else { secs(8) + some_ms(rng, 4_000) };
    match rng.random_range(0..4) {
        0 => steps.extend([
            (killed_at, Fault::PowerOff(other)),
            (killed_at + away, Fault::PowerOn(other)),
        ]),
        1 | 2 => steps
            .extend([(killed_at, Fault::Kill(other)), (killed_at + away, Fault::Restart(other))]),
        _ => {}
    }
    for node in order {
        steps.push((at, Fault::Drain(node)));
        at += some_ms(rng, 12_000);
        match rng.random_range(0..4) {
            0 | 1 if may_go > 0 => {
                may_go -= 1;
                steps.push((at, Fault::Leave(node)));
            }
            2 if may_go > 0 => may_go -= 1,
            _ => steps.push((at, Fault::StopDraining(node))),
        }
        at += some_ms(rng, 6_000);
    }
    (Shape { nodes: 5, first, tail: secs(20) }, Plan::new(steps, secs(2)))
}

fn mixed(rng: &mut StdRng) -> (Shape, Plan) {
    let nodes = rng.random_range(3..=7);
    let first = if nodes > 3 && rng.random() { nodes - 1 } else { nodes };
    let mut steps = Vec::new();
    let mut at = secs(2);
    if first < nodes {
        steps.push((at + some_ms(rng, 25_000), Fault::Join(first)));
    }
    for _ in 0..rng.random_range(3..=8) {
        let node = rng.random_range(0..first);
        let lasts = match rng.random_range(0..3) {
            0 => secs(8) + some_ms(rng, 12_000),
            _ => some_ms(rng, 4_000),
        };
        let until = at + lasts;
        match rng.random_range(0..8) {
            0 => {
                let larger = rng.random_range(nodes.div_ceil(2)..nodes);
                steps.push((at, Fault::Partition(groups(rng, nodes, larger))));
                steps.push((until, Fault::Heal));
            }
            1 => {
                let (from, to) = pair(rng, nodes);
                steps.push((at, Fault::BlockOneWay { from, to }));
                steps.push((until, Fault::Heal));
            }
            2 => {
                let loss = per_mille(rng.random_range(0..=300));
                let duplication = per_mille(rng.random_range(0..=100));
                let reordering = per_mille(rng.random_range(0..=200));
                let rates = Rates { loss, duplication, reordering, ..Rates::default() };
                steps.push((at, Fault::Rates(rates)));
                steps.push((until, Fault::Rates(Rates::default())));
            }
            3 | 4 => {
                steps.push((at, Fault::Kill(node)));
                steps.push((until, Fault::Restart(node)));
            }
            5 => {
                steps.push((at, Fault::Stop(node)));
                steps.push((until, Fault::Restart(node)));
            }
            6 => {
                steps.push((at, Fault::Slow(node, ms(rng.random_range(20..=200)))));
                steps.push((until, Fault::Release(node)));
            }
            _ => {
                steps.push((at, Fault::Hold(node)));
                steps.push((at + some_ms(rng, 3_000), Fault::Release(node)));
            }
        }
        at += some_ms(rng, 8_000);
    }
    (Shape { nodes, first, tail: secs(20) }, Plan::new(steps, secs(2)))
}

/// A seed for one purpose.
#[must_use]
pub fn derive(seed: u64, purpose: &str) -> u64 {
    twox_hash::XxHash3_64::oneshot_with_seed(seed, purpose.as_bytes())
}

fn groups(rng: &mut StdRng, nodes: usize, larger: usize) -> Vec<Vec<usize>> {
    let mut all: Vec<usize> = (0..nodes).collect();
    all.shuffle(rng);
    let smaller = all.split_off(larger);
    vec![all, smaller]
}

fn pair(rng: &mut StdRng, nodes: usize) -> (usize, usize) {
    let from = rng.random_range(0..nodes);
    (from, (from + rng.random_range(1..nodes)) % nodes)
}

fn per_mille(rate: u16) -> Rate {
    Rate::per_mille(rate).expect("rates here are far below 1000")
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn some_ms(rng: &mut StdRng, below: u64) -> Duration {
    ms(rng.random_range(0..below))
}
