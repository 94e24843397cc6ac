//! What a storm is: everything that is drawn from its seed, and the plan of faults.

use std::num::{NonZeroU8, NonZeroU64};
use std::ops::RangeInclusive;
use std::time::Duration;

use annulus_gossip::MeshConfig;
use annulus_net::{Rate, Rates};
use annulus_node::core::{Partition, Promotion, TablePolicy, WriteHomes};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::host::Disk;
use crate::plan::{Fault, Plan, Settling};
use crate::scenario::{Parameters, derive};

/// A kind of storm.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// What happens in it.
    pub about: &'static str,
    shape: fn(&mut StdRng) -> Shape,
}

/// The nodes of a storm, and what becomes of them.
struct Shape {
    nodes: usize,
    /// How many of them run from the start.
    first: usize,
    plan: Plan,
    keys: RangeInclusive<usize>,
    /// The longest pause between two operations of a task, in milliseconds.
    think_ms: RangeInclusive<u64>,
    /// How many slots an application has.
    slots: u16,
    /// After how long sessions go to a ring further out, in milliseconds, if there is one.
    cools_after_ms: Option<RangeInclusive<u64>>,
    /// Whether they come back from there late, and few at a time.
    is_slow_inward: bool,
}

impl Shape {
    /// Of an ordinary one.
    fn new(nodes: usize, first: usize, plan: Plan) -> Self {
        let (keys, think_ms) = (KEYS, THINK_MS);
        let (cools_after_ms, is_slow_inward) = (None, false);
        Self { nodes, first, plan, keys, think_ms, slots: 0, cools_after_ms, is_slow_inward }
    }
}

/// Everything about one that is drawn from its seed.
#[derive(Clone, Debug)]
pub struct Storm {
    /// What it has in common with the scenarios under turmoil.
    pub parameters: Parameters,
    /// How long after the beginning each key is written.
    pub written_for: Vec<Duration>,
    /// How many slots an application has that embeds the nodes; 0 = there is none.
    pub slots: u16,
    /// After how long sessions go to a ring further out, if there is one.
    pub cools_after: Option<Duration>,
    /// When they come back from there.
    pub promotion: Promotion,
    /// How many homes a slot has.
    pub replicas: NonZeroU8,
    /// How long a client's request may take in all.
    pub timeout: Duration,
    /// How long readers may trust shared memory.
    pub stale_max: Duration,
    /// Membership's timings: some times faster than it would be, so that more happens in the same time.
    pub mesh: MeshConfig,
    /// How long a cluster takes to get used to what happened, with those.
    pub settling: Settling,
}

/// All kinds.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "storm",
        about: "whatever the seed says, at once and one after the other: splits, one-way cuts, cuts that \
                overlap, loss, duplication, damage and delay of datagrams, kills at any step, restarts with \
                and without memory, pauses, clocks set within the bound and beyond, disks that are slow or \
                take nothing, nodes that join, drain and leave",
        shape: storm,
    },
    Kind {
        name: "storm-moves",
        about: "the same with slots on the move all the time: nodes join, drain, leave, and take slots again \
                while cuts have them see different members",
        shape: moves,
    },
    Kind {
        name: "storm-slots",
        about: "slots on the move, and an application that embeds the nodes and has slots of its own, which \
                nodes offer each other unasked",
        shape: slots,
    },
    Kind {
        name: "storm-restarts",
        about: "nodes whose clocks are ahead, within the bound, die at any step and are back at once with \
                their clocks set right, while clients are in a hurry",
        shape: restarts,
    },
    Kind {
        name: "storm-losses",
        about: "a host is cut off and then loses its memory, while clients write many keys once or twice",
        shape: losses,
    },
    Kind {
        name: "storm-rings",
        about: "whatever a storm brings, and slots on the move, while sessions cool outward within seconds and \
                are brought in again",
        shape: rings,
    },
    Kind {
        name: "storm-promotions",
        about: "the same, where they come in late: not before they were read some times, and few bytes in a second, \
                so that they are read where they lie and changes of them wait",
        shape: promotions,
    },
];

impl Kind {
    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// What this seed makes of it.
    #[must_use]
    pub fn draw(&self, seed: u64) -> Storm {
        let mut rng = StdRng::seed_from_u64(derive(seed, self.name));
        let shape = (self.shape)(&mut rng);
        let Shape { nodes, first, plan, keys, think_ms, slots, .. } = shape;
        let latency_min = rng.random_range(0..=2);
        let latency_max = latency_min + rng.random_range(1..=8);
        let parameters = Parameters {
            seed,
            nodes,
            first,
            clients_local: rng.random_range(2..=3),
            clients_remote: rng.random_range(1..=2),
            tasks: rng.random_range(1..=2),
            keys: rng.random_range(keys),
            think: ms(rng.random_range(think_ms)),
            latency: (ms(latency_min), ms(latency_max)),
            cores: (0..nodes).map(|_| rng.random_range(1..=2)).collect(),
            sealed: rng.random(),
            rotates: false,
            skew_ms: (0..nodes).map(|_| rng.random_range(-100..=100)).collect(),
            drift_ppm: (0..nodes).map(|_| rng.random_range(-100..=100)).collect(),
            sync_interval: Duration::from_secs(if rng.random() { 10 } else { 4 }),
            hot_keys: rng.random_range(2..=4),
            write: WriteHomes::Quorum,
            partition: match rng.random_range(0..4) {
                0 => Partition::Refuse,
                _ => Partition::Serve,
            },
            tail: TAIL,
            plan,
        };
        let of_two = if slots > 0 { 2 } else { 1 };
        let replicas = if rng.random_range(0..3) < of_two { 2 } else { 3 };
        Storm {
            written_for: parameters.written_for(),
            slots,
            replicas: NonZeroU8::new(replicas).expect("two or three"),
            timeout: ms(rng.random_range(1_500..5_000)),
            stale_max: Duration::from_secs(rng.random_range(3..=10)),
            mesh: MeshConfig {
                down_after: ms(rng.random_range(500..=3_000)),
                isolated_after: ms(rng.random_range(4_000..=6_000)),
                flap_hold: ms(500),
                flap_hold_max: ms(3_000),
                announce_period: ms(2_000),
                exchange_period: Duration::from_secs(10),
                ..MeshConfig::default()
            },
            settling: Settling {
                after_change: Duration::from_secs(10),
                after_death: Duration::from_secs(14),
                after_partition: Duration::from_secs(20),
            },
            cools_after: shape.cools_after_ms.map(|range| ms(rng.random_range(range))),
            promotion: match shape.is_slow_inward {
                true => slow_inward(&mut rng),
                false => Promotion::default(),
            },
            parameters,
        }
    }
}

impl Storm {
    /// The policies of the table and of its rings further out.
    #[must_use]
    pub fn policies(&self) -> Vec<TablePolicy> {
        let innermost = self.policy();
        let outer = self.cools_after.map(|_| TablePolicy {
            name: format!("{}@outer", innermost.name),
            ring: 1,
            cools_after: None,
            ..innermost.clone()
        });
        [innermost].into_iter().chain(outer).collect()
    }

    /// On how many nodes whatever was on as many has to stay: all homes, or where sessions move to another ring as many
    /// as hold a write.
    #[must_use]
    pub fn copies(&self) -> usize {
        let replicas = self.replicas.get().into();
        match self.cools_after {
            Some(_) => self.parameters.write.count(replicas),
            None => replicas,
        }
    }

    /// The table's policy.
    #[must_use]
    pub fn policy(&self) -> TablePolicy {
        TablePolicy {
            cools_after: self.cools_after,
            promotion: self.promotion,
            half_life: match self.cools_after {
                Some(_) => Duration::from_secs(1),
                None => TablePolicy::default().half_life,
            },
            partition: self.parameters.partition,
            replicas: self.replicas,
            write: self.parameters.write,
            stale_max: self.stale_max,
            // Longer than any run, shorter than the hour that a clock jumps.
            idle: Duration::from_secs(30 * 60),
            ..TablePolicy::default()
        }
    }
}

/// So few keys that they are fought for.
const KEYS: RangeInclusive<usize> = 8..=24;
/// Of clients in no hurry.
const THINK_MS: RangeInclusive<u64> = 60..=400;
/// How long clients go on after the healing: some seconds beyond the time in which nothing is said of what they
/// see.
const TAIL: Duration = Duration::from_secs(15);
/// The furthest that a wall clock is set while it may be believed: less than what touches may be off by.
const JUMP_MS_MAX: i64 = 1_500;

fn storm(rng: &mut StdRng) -> Shape {
    let nodes: usize = rng.random_range(3..=7);
    let moves = rng.random();
    let joining = if moves { rng.random_range(0..=(nodes - 3).min(2)) } else { 0 };
    let first = nodes - joining;
    let mut nemesis = Nemesis::new(nodes, first);
    nemesis.moves = moves;
    let mut memory_losses = 1;
    for _ in 0..rng.random_range(2..=4) {
        match rng.random_range(0..6) {
            0 if memory_losses > 0 => {
                memory_losses -= 1;
                nemesis.lose_memory(rng);
            }
            1 => nemesis.set_a_clock_far_off(rng),
            _ => nemesis.rage(rng),
        }
    }
    Shape::new(nodes, first, nemesis.plan())
}

fn slots(rng: &mut StdRng) -> Shape {
    let nodes = rng.random_range(4..=6);
    let first = rng.random_range(4..=nodes);
    let mut nemesis = Nemesis::new(nodes, first);
    for _ in 0..rng.random_range(4..=6) {
        match rng.random_range(0..3) {
            0 => nemesis.move_slots(rng),
            _ => nemesis.drain_together(rng),
        }
    }
    let slots = rng.random_range(8..=40);
    Shape { think_ms: 200..=600, slots, ..Shape::new(nodes, first, nemesis.plan()) }
}

fn moves(rng: &mut StdRng) -> Shape {
    let nodes: usize = rng.random_range(4..=6);
    let first = nodes - rng.random_range(0..=1);
    let mut nemesis = Nemesis::new(nodes, first);
    for _ in 0..rng.random_range(3..=5) {
        nemesis.move_slots(rng);
    }
    Shape::new(nodes, first, nemesis.plan())
}

fn restarts(rng: &mut StdRng) -> Shape {
    let nodes = 3;
    let mut nemesis = Nemesis::new(nodes, nodes);
    for _ in 0..rng.random_range(6..=10) {
        nemesis.restart(rng);
    }
    // So many keys that most were not written since the clock went back: else their versions tell.
    Shape { keys: 80..=160, think_ms: 10..=40, ..Shape::new(nodes, nodes, nemesis.plan()) }
}

fn losses(rng: &mut StdRng) -> Shape {
    let nodes = rng.random_range(3..=5);
    let mut nemesis = Nemesis::new(nodes, nodes);
    nemesis.moves = false;
    if rng.random() {
        nemesis.rage(rng);
    }
    nemesis.lose_memory(rng);
    // So many keys that what is lost is not written again soon.
    Shape { keys: 60..=120, think_ms: 20..=100, ..Shape::new(nodes, nodes, nemesis.plan()) }
}

fn rings(rng: &mut StdRng) -> Shape {
    let shape = if rng.random() { storm(rng) } else { moves(rng) };
    // So many keys that most of them cool between two uses.
    Shape { keys: 24..=60, cools_after_ms: Some(1_000..=4_000), ..shape }
}

fn promotions(rng: &mut StdRng) -> Shape {
    Shape { is_slow_inward: true, ..rings(rng) }
}

/// Upon the first to fourth read, and in a second some ten sessions in each of a sparse node's cores, or enough.
fn slow_inward(rng: &mut StdRng) -> Promotion {
    let rate = if rng.random() { rng.random_range(100_000..=400_000) } else { 64 << 20 };
    Promotion {
        after: NonZeroU8::new(rng.random_range(1..=4)).expect("one at least"),
        rate: NonZeroU64::new(rate).expect("it is not zero"),
    }
}

/// Makes a plan, incident by incident.
struct Nemesis {
    nodes: usize,
    /// Those that run, or were told to start again.
    members: Vec<usize>,
    joining: Vec<usize>,
    /// When nothing more may be done to a node's process before.
    busy: Vec<Duration>,
    /// When which node's wall clock is to be off by how many milliseconds.
    clocks: Vec<(Duration, usize, i64)>,
    /// Whether slots are given to others on purpose.
    moves: bool,
    /// How many may still leave for good.
    may_go: usize,
    steps: Vec<(Duration, Fault)>,
    at: Duration,
}

impl Nemesis {
    fn new(nodes: usize, first: usize) -> Self {
        Self {
            nodes,
            members: (0..first).collect(),
            joining: (first..nodes).collect(),
            busy: vec![Duration::ZERO; nodes],
            clocks: Vec::new(),
            moves: true,
            may_go: nodes.saturating_sub(4),
            steps: Vec::new(),
            at: ms(1_500),
        }
    }

    fn plan(mut self) -> Plan {
        self.clocks.sort_by_key(|(at, ..)| *at);
        let mut off_by = vec![0; self.nodes];
        for (at, node, next) in self.clocks {
            let jump = next - std::mem::replace(&mut off_by[node], next);
            if jump != 0 {
                self.steps.push((at, Fault::ClockJump(node, jump)));
            }
        }
        Plan::new(self.steps, ms(1_000))
    }

    fn add(&mut self, at: Duration, fault: Fault) {
        self.steps.push((at, fault));
    }

    /// Some incidents at about the same time. Whatever they cut stays cut until the end of it.
    fn rage(&mut self, rng: &mut StdRng) {
        let from = self.at;
        let lasts = ms(rng.random_range(2_000..12_000));
        for _ in 0..rng.random_range(1..=4) {
            let at = from + lasts.mul_f64(rng.random::<f64>() * 0.8);
            match rng.random_range(0..9) {
                0 => self.split(rng, at),
                1 => self.cut_pairs(rng, at),
                2 => self.harm_datagrams(rng, at),
                3 | 4 => self.kill(rng, at, lasts),
                5 => self.slow_down(rng, at, lasts),
                6 => self.set_a_clock(rng, at),
                7 => self.spoil_a_disk(rng, at, lasts),
                _ if self.moves => self.move_a_node(rng, at, lasts),
                _ => self.kill(rng, at, lasts),
            }
        }
        self.end_at(from + lasts, rng);
    }

    /// Nodes come and go while others do not hear of it.
    fn move_slots(&mut self, rng: &mut StdRng) {
        let from = self.at;
        let lasts = ms(rng.random_range(2_000..8_000));
        for _ in 0..rng.random_range(2..=4) {
            let at = from + lasts.mul_f64(rng.random::<f64>() * 0.7);
            match rng.random_range(0..8) {
                0 => self.cut_pairs(rng, at),
                1 => self.slow_down(rng, at, lasts),
                2 => self.kill(rng, at, lasts),
                3 => self.harm_datagrams(rng, at),
                4 | 5 => self.flip(rng, at),
                _ => self.move_a_node(rng, at, lasts),
            }
        }
        self.end_at(from + lasts, rng);
    }

    /// Two nodes drain within moments while datagrams get lost: each goes on taking the other for one that stays.
    fn drain_together(&mut self, rng: &mut StdRng) {
        let (from, lasts) = (self.at, ms(rng.random_range(1_500..4_000)));
        self.harm_datagrams(rng, from);
        for _ in 0..2 {
            let at = from + ms(rng.random_range(200..260));
            let again = at + lasts.mul_f64(0.3 + rng.random::<f64>() * 0.6);
            let Some(node) = self.take(rng, at, again) else { break };
            self.add(at, Fault::Drain(node));
            self.add(again, Fault::StopDraining(node));
        }
        self.end_at(from + lasts, rng);
    }

    /// Some nodes drain at nearly the same time, before they have heard of each other, and take slots again.
    fn flip(&mut self, rng: &mut StdRng, at: Duration) {
        for _ in 0..rng.random_range(2..=3) {
            let drains = at + ms(rng.random_range(0..300));
            let again = drains + ms(rng.random_range(200..3_000));
            let Some(node) = self.take(rng, drains, again) else { return };
            self.add(drains, Fault::Drain(node));
            self.add(again, Fault::StopDraining(node));
        }
    }

    fn end_at(&mut self, at: Duration, rng: &mut StdRng) {
        self.add(at, Fault::Heal);
        self.at = at + ms(rng.random_range(0..4_000));
    }

    /// What was under way is over, clocks are right, and the cluster gets over it.
    fn calm_down(&mut self) {
        let over = self.busy.iter().copied().fold(self.at, Duration::max);
        (0..self.nodes).for_each(|node| self.set_clock_to(node, over, 0));
        self.at = over + ms(6_000);
    }

    fn split(&mut self, rng: &mut StdRng, at: Duration) {
        let mut all: Vec<usize> = (0..self.nodes).collect();
        all.shuffle(rng);
        let rest = all.split_off(rng.random_range(1..self.nodes));
        self.add(at, Fault::Partition(vec![all, rest]));
    }

    /// Some pairs cannot reach each other, or one way only: groups that overlap.
    fn cut_pairs(&mut self, rng: &mut StdRng, at: Duration) {
        for _ in 0..rng.random_range(1..=self.nodes) {
            let from = rng.random_range(0..self.nodes);
            let to = (from + rng.random_range(1..self.nodes)) % self.nodes;
            self.add(at, Fault::BlockOneWay { from, to });
            if rng.random() {
                self.add(at, Fault::BlockOneWay { from: to, to: from });
            }
        }
    }

    fn harm_datagrams(&mut self, rng: &mut StdRng, at: Duration) {
        let rates = Rates {
            loss: per_mille(rng.random_range(0..=300)),
            duplication: per_mille(rng.random_range(0..=200)),
            corruption: per_mille(rng.random_range(0..=30)),
            truncation: per_mille(rng.random_range(0..=30)),
            reordering: per_mille(rng.random_range(0..=300)),
        };
        self.add(at, Fault::Rates(rates));
    }

    /// A member whose process nothing else is done to then; it is taken until `until`.
    fn take(&mut self, rng: &mut StdRng, at: Duration, until: Duration) -> Option<usize> {
        let free = self.members.iter().copied().filter(|node| self.busy[*node] <= at);
        let free: Vec<usize> = free.collect();
        let node = *free.get(rng.random_range(0..free.len().max(1)))?;
        self.busy[node] = until + ms(50);
        Some(node)
    }

    fn kill(&mut self, rng: &mut StdRng, at: Duration, lasts: Duration) {
        let away = match rng.random_range(0..3) {
            0 => ms(rng.random_range(10..500)),
            1 => ms(rng.random_range(500..4_000)),
            _ => lasts + ms(rng.random_range(0..3_000)),
        };
        let Some(node) = self.take(rng, at, at + away) else { return };
        match rng.random_range(0..4) {
            0 => self.add(at, Fault::Kill(node)),
            1 => self.add(at, Fault::Stop(node)),
            _ => self.add(at, Fault::Crash { node, after: rng.random_range(0..200) }),
        }
        self.add(at + away, Fault::Restart(node));
    }

    /// A node whose clock is ahead of the others' dies, and is back soon, with its clock set right.
    fn restart(&mut self, rng: &mut StdRng) {
        let at = self.at;
        let dies = at + ms(rng.random_range(200..1_000));
        let is_quick = rng.random();
        let away = ms(if is_quick { rng.random_range(5..60) } else { rng.random_range(60..600) });
        self.at += ms(rng.random_range(300..2_500));
        let Some(node) = self.take(rng, at, dies + away) else { return };
        self.set_clock_to(node, at, rng.random_range(200..=380));
        self.add(dies, Fault::Crash { node, after: rng.random_range(0..30) });
        self.set_clock_to(node, dies + away / 2, rng.random_range(-20..=20));
        self.add(dies + away, Fault::Restart(node));
    }

    fn set_clock_to(&mut self, node: usize, at: Duration, off_by: i64) {
        self.clocks.push((at, node, off_by));
    }

    fn slow_down(&mut self, rng: &mut StdRng, at: Duration, lasts: Duration) {
        let for_long = rng.random_range(0..3) == 0;
        let until = at + if for_long { lasts } else { ms(rng.random_range(100..3_000)) };
        let Some(node) = self.take(rng, at, until) else { return };
        let (fault, end) = match rng.random_range(0..4) {
            0 => (Fault::Slow(node, ms(rng.random_range(20..=400))), Fault::Release(node)),
            1 => (Fault::Hold(node), Fault::Release(node)),
            _ => (Fault::Pause(node), Fault::Resume(node)),
        };
        self.add(at, fault);
        self.add(until, end);
    }

    /// Sets a wall clock so that it is off by less than what a session's times are told apart by: within the
    /// bound on drift, or beyond it.
    fn set_a_clock(&mut self, rng: &mut StdRng, at: Duration) {
        let node = rng.random_range(0..self.nodes);
        let is_beyond = rng.random_range(0..3) == 0;
        let most = if is_beyond { JUMP_MS_MAX } else { 350 };
        self.set_clock_to(node, at, rng.random_range(-most..=most));
    }

    fn spoil_a_disk(&mut self, rng: &mut StdRng, at: Duration, lasts: Duration) {
        let node = rng.random_range(0..self.nodes);
        let like = if rng.random() { Disk::Slow } else { Disk::Bad };
        self.add(at, Fault::Disk(node, like));
        self.add(at + lasts, Fault::Disk(node, Disk::Good));
    }

    /// A node joins, or drains and leaves, or takes its slots again.
    fn move_a_node(&mut self, rng: &mut StdRng, at: Duration, lasts: Duration) {
        if let Some(node) = self.joining.pop() {
            self.members.push(node);
            self.busy[node] = at + ms(1_000);
            return self.add(at, Fault::Join(node));
        }
        let until = at + lasts.mul_f64(rng.random());
        let Some(node) = self.take(rng, at, at) else { return };
        self.add(at, Fault::Drain(node));
        if self.may_go > 0 && rng.random_range(0..3) == 0 {
            self.may_go -= 1;
            self.members.retain(|member| *member != node);
            return self.add(until, Fault::Leave(node));
        }
        self.add(until, Fault::StopDraining(node));
    }

    /// A host loses its memory while no other node is away: W − 1 losses are what an acknowledged write
    /// survives, and whoever is away may have what the others lack.
    fn lose_memory(&mut self, rng: &mut StdRng) {
        self.calm_down();
        let at = self.at;
        let off = at + ms(rng.random_range(500..3_000));
        let on = off + ms(rng.random_range(6_000..9_000));
        let Some(node) = self.take(rng, at, on) else { return };
        // What it acknowledged just before, the others must have.
        match rng.random_range(0..4) {
            0 => {}
            1 => self.add(at, Fault::Hold(node)),
            2 => {
                let others = (0..self.nodes).filter(|other| *other != node).collect();
                self.add(at, Fault::Partition(vec![vec![node], others]));
            }
            _ => {
                for other in (0..self.nodes).filter(|other| *other != node) {
                    self.add(at, Fault::BlockOneWay { from: node, to: other });
                }
            }
        }
        self.add(off, Fault::PowerOff(node));
        self.add(off + ms(300), Fault::Heal);
        self.add(off + ms(300), Fault::Release(node));
        self.add(on, Fault::PowerOn(node));
        self.at = on;
        self.calm_down();
    }

    /// A wall clock is off by an hour, while most others are right and its node hears of them.
    fn set_a_clock_far_off(&mut self, rng: &mut StdRng) {
        self.calm_down();
        let (at, back) = (self.at, self.at + ms(rng.random_range(1_000..8_000)));
        let node = rng.random_range(0..self.nodes);
        self.set_clock_to(node, at, if rng.random() { 3_600_000 } else { -3_600_000 });
        self.set_clock_to(node, back, 0);
        if rng.random() {
            self.harm_datagrams(rng, at);
            self.add(back, Fault::Heal);
        }
        self.at = back;
    }
}

fn per_mille(rate: u16) -> Rate {
    Rate::per_mille(rate).expect("rates here are far below 1000")
}

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}
