//! What is done to a cluster, and what is measured of it.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::figures::{Figures, Fold, Measure, Unit};
use crate::ours::Ours;
use crate::plain::Plain;
use crate::subject::{Held, Sight, Subject};
use crate::world::{World, secs};

/// One run of a scenario.
pub struct Job<'a> {
    /// How many nodes.
    pub nodes: usize,
    /// Probability that a packet is lost.
    pub loss: f64,
    /// The seed of everything random.
    pub seed: u64,
    /// How long it lasts, where that is not given by what happens.
    pub length: Duration,
    /// Whether to measure processor time.
    pub meter: bool,
    /// Told how far a long run is, from 0 to 1.
    pub progress: &'a mut dyn FnMut(f64),
}

/// A scenario, as run on either subject.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// On the command line.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Runs it on [`Ours`].
    pub ours: fn(&mut Job<'_>) -> Figures,
    /// Runs it on [`Plain`].
    pub plain: fn(&mut Job<'_>) -> Figures,
}

macro_rules! scenarios {
    ($($name:ident $about:literal)*) => {
        &[$(Scenario {
            name: stringify!($name),
            about: $about,
            ours: $name::<Ours>,
            plain: $name::<Plain>,
        }),*]
    };
}

/// All scenarios.
pub const SCENARIOS: &[Scenario] = scenarios! {
    crash "hosts lose power, one after the other"
    together "ten hosts lose power at once"
    most "nine of ten hosts lose power at once"
    join "nodes join a settled cluster, one after the other"
    boot "all start at once"
    leave "nodes leave on purpose, one after the other"
    restart "nodes restart: at once, late, with another clock, with a new disk"
    peace "nothing happens"
    slow1 "one host gets everything 12 s late, 30 s on and 30 s off"
    slow8 "eight hosts do"
    paused "one process in twenty stands still for 10 s, again and again"
    oneway "one pair in fifty hears nothing, one way"
    split "halves that cannot reach each other for 60 s"
    blackout "nobody reaches anybody for 60 s"
    isolated "one host is cut off for 60 s"
    chaos "everything that may happen does, and then nothing more"
};

impl Scenario {
    /// The scenario of this name.
    pub fn named(name: &str) -> Option<Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name).copied()
    }
}

/// How long to wait for what should take seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a settled cluster runs before anything happens to it.
const WARM_UP: Duration = Duration::from_secs(5);

fn settled<S: Subject>(job: &Job<'_>, absent: usize) -> World<S> {
    settled_with(job, absent, S::settings(job.nodes))
}

fn settled_with<S: Subject>(job: &Job<'_>, absent: usize, settings: S::Settings) -> World<S> {
    let mut world = World::<S>::settled_with(job.nodes, absent, job.seed, settings);
    world.net.loss = job.loss;
    world.run(WARM_UP);
    world.begin();
    world
}

fn crash<S: Subject>(job: &mut Job<'_>) -> Figures {
    let mut world = settled::<S>(job, 0);
    let (mut known, mut said) = (Vec::new(), Vec::new());
    for round in 0..victims(job.nodes) {
        let victim = job.nodes - 1 - round;
        // Not in step with anybody's timers.
        let phase = world.draw(1_000) as u64;
        world.run(Duration::from_millis(phase));
        world.crash(victim);
        world.forget();
        let died = world.now;
        world.until(PATIENCE, |world| world.all_hold(victim, Held::Gone));
        world.run(secs(1));
        let down = Sight::Down(world.hosts[victim].id);
        for (index, _) in world.running() {
            let host = &world.hosts[index];
            let reported = host.events.iter().find(|(_, event)| S::sight(event) == Some(down));
            let reported = reported.map(|(at, _)| *at);
            let concluded = host.deaths.first().copied().filter(|_| S::KNOWS_BEFORE_IT_SAYS);
            said.push(since(died, reported));
            known.push(since(died, concluded.or(reported)));
        }
        (job.progress)((round + 1) as f64 / victims(job.nodes) as f64);
    }
    let (nodes, loss) = (job.nodes, job.loss);
    let lan = loss <= 0.05;
    let p99 = lan.then_some(by_size(nodes, [3.5, 4.5, 6.0]));
    let beyond = lan.then_some(1.0);
    let mut figures = Figures::of(&world);
    figures.add(Measure::new("crash known, median", Fold::Median, Unit::Seconds), known.clone());
    let measure = Measure::new("crash known, p99", Fold::P99, Unit::Seconds);
    figures.add(measure.at_most(p99), known.clone());
    let measure = Measure::new("last one knows, after p99", Fold::MaxBeyondP99, Unit::Seconds);
    figures.add(measure.at_most(beyond), known);
    figures.add(Measure::new("crash in the last view", Fold::Max, Unit::Seconds), said);
    figures.healthy(&world.tally);
    figures
}

fn together<S: Subject>(job: &mut Job<'_>) -> Figures {
    let mut world = settled::<S>(job, 0);
    let dead = (10.min(job.nodes * 3 / 10)).max(1);
    let first = job.nodes - dead;
    (first..job.nodes).for_each(|victim| world.crash(victim));
    world.begin();
    let died = world.now;
    let gone =
        |world: &World<S>| (first..job.nodes).all(|victim| world.all_hold(victim, Held::Gone));
    let took = world.until(PATIENCE, gone);
    world.run(secs(20));
    let changes = |index: usize| {
        let events = world.hosts[index].events.iter();
        let changes = events.filter(|(_, event)| match S::sight(event) {
            Some(Sight::Changed(_)) => true,
            Some(Sight::Down(_) | Sight::Up(_)) => !S::KNOWS_BEFORE_IT_SAYS,
            _ => false,
        });
        changes.count() as f64
    };
    let epochs = world.running().map(|(index, _)| changes(index)).collect();
    let mut figures = Figures::of(&world);
    let measure = Measure::new("ring epochs, at most", Fold::Max, Unit::Count);
    figures.add(measure.at_most((job.loss <= 0.05).then_some(2.0)), epochs);
    let all = since(died, took.map(|took| died + took));
    figures.add(Measure::new("all in all views", Fold::Max, Unit::Seconds), vec![all]);
    figures.healthy(&world.tally);
    figures
}

fn most<S: Subject>(job: &mut Job<'_>) -> Figures {
    let mut world = settled::<S>(job, 0);
    let left = job.nodes.div_ceil(10).max(2);
    (left..job.nodes).for_each(|victim| world.crash(victim));
    let died = world.now;
    let took = world.until(PATIENCE, |world| world.agrees() && world.all_up());
    let mut figures = Figures::of(&world);
    let measure = Measure::new("all dead in all views", Fold::Max, Unit::Seconds);
    figures.add(measure, vec![since(died, took.map(|took| died + took))]);
    figures.healthy(&world.tally);
    figures
}

fn join<S: Subject>(job: &mut Job<'_>) -> Figures {
    let joiners = 3;
    let mut world = settled::<S>(job, joiners);
    let (mut full, mut known) = (Vec::new(), Vec::new());
    for joiner in job.nodes..job.nodes + joiners {
        world.run(secs(5));
        let began = world.now;
        world.start(joiner);
        let (mut is_full, mut is_known) = (None, None);
        world.until(PATIENCE, |world| {
            let now = Some(world.now);
            let count = world.running().count();
            let node = world.hosts[joiner].node.as_ref();
            if is_full.is_none() && node.is_some_and(|node| node.up_count() == count) {
                is_full = now;
            }
            if is_known.is_none() && world.all_hold(joiner, Held::Up) {
                is_known = now;
            }
            is_full.is_some() && is_known.is_some()
        });
        full.push(since(began, is_full));
        known.push(since(began, is_known));
    }
    let lan = job.loss <= 0.05;
    let mut figures = Figures::of(&world);
    let measure = Measure::new("joiner has the full view", Fold::Max, Unit::Seconds);
    figures.add(measure.at_most(lan.then_some(0.5)), full);
    let measure = Measure::new("all know the joiner", Fold::Max, Unit::Seconds);
    figures.add(measure.at_most(lan.then_some(1.0)), known);
    figures.healthy(&world.tally);
    figures
}

fn boot<S: Subject>(job: &mut Job<'_>) -> Figures {
    let mut world = World::<S>::new(job.nodes, job.seed);
    world.net.loss = job.loss;
    (0..job.nodes).for_each(|host| world.start(host));
    let took = world.until(PATIENCE, |world| world.agrees() && world.all_up());
    let bytes = world.tally.bytes as f64 / job.nodes as f64;
    let mut figures = Figures::of(&world);
    let target = (job.loss <= 0.05).then_some(by_size(job.nodes, [2.0, 3.0, 10.0]));
    let measure = Measure::new("all views full", Fold::Max, Unit::Seconds);
    figures.add(measure.at_most(target), vec![since(Duration::ZERO, took)]);
    figures.add(Measure::new("bytes per node until then", Fold::Mean, Unit::Bytes), vec![bytes]);
    figures.healthy(&world.tally);
    figures
}

fn leave<S: Subject>(job: &mut Job<'_>) -> Figures {
    let mut world = settled::<S>(job, 0);
    let mut known = Vec::new();
    for round in 0..victims(job.nodes) {
        let leaver = job.nodes - 1 - round;
        world.run(secs(2));
        let began = world.now;
        world.with(leaver, |node, now| node.leave(now));
        world.hosts[leaver].is_unwell = true;
        let others_know = |world: &World<S>| world.all_hold(leaver, Held::Gone);
        // A node is driven for some time after it said goodbye, and no longer.
        let took = world.until(annulus_gossip::mesh::FAREWELL, others_know);
        world.crash(leaver);
        let took = took.or_else(|| {
            world.until(PATIENCE, others_know).map(|more| more + annulus_gossip::mesh::FAREWELL)
        });
        known.push(since(began, took.map(|took| began + took)));
    }
    let mut figures = Figures::of(&world);
    let measure = Measure::new("leave known by all", Fold::Max, Unit::Seconds);
    figures.add(measure.at_most((job.loss <= 0.05).then_some(0.5)), known);
    figures.healthy(&world.tally);
    figures
}

fn restart<S: Subject>(job: &mut Job<'_>) -> Figures {
    let mut world = settled::<S>(job, 0);
    let hour = 3_600_000;
    // How long it is away, what its clock does meanwhile, and whether its disk is kept.
    let ways = [
        (secs(2), 0, true),
        (secs(2), -hour, true),
        (secs(20), -hour, true),
        (secs(20), -hour, false),
        (secs(2), hour, false),
    ];
    let mut back = Vec::new();
    for (round, (away, clock_ms, keeps)) in ways.into_iter().enumerate() {
        let host = job.nodes - 1 - round % (job.nodes - 1).max(1);
        world.crash(host);
        world.run(away);
        world.hosts[host].is_unwell = true;
        world.hosts[host].clock_ms = clock_ms;
        if !keeps {
            world.hosts[host].saved = 0;
            world.hosts[host].peers.clear();
        }
        let began = world.now;
        world.start(host);
        let took = world.until(PATIENCE, |world| world.agrees() && world.all_up());
        back.push(since(began, took.map(|took| began + took)));
        world.run(secs(10));
    }
    let lasts = world.agrees() && world.all_up();
    let mut figures = Figures::of(&world);
    figures.add(Measure::new("back in all views", Fold::Max, Unit::Seconds), back);
    let measure = Measure::new("not back for good", Fold::Sum, Unit::Count).at_most(Some(0.0));
    figures.add(measure, vec![f64::from(u8::from(!lasts))]);
    figures.healthy(&world.tally);
    figures
}

fn peace<S: Subject>(job: &mut Job<'_>) -> Figures {
    let mut world = settled::<S>(job, 0);
    // The end of what settling itself set off.
    world.run(secs(10));
    world.begin();
    world.meter = job.meter;
    run_long(&mut world, job, |_, _| {});
    let mut figures = Figures::of(&world);
    let target = if job.loss <= 0.05 {
        Some(1_500.0)
    } else if job.loss <= 0.3 {
        Some(by_size(job.nodes, [3_000.0, 4_000.0, 12_000.0]))
    } else {
        None
    };
    let measure = Measure::new("bytes per node and second", Fold::Mean, Unit::Bytes);
    figures.add(measure.at_most(target), vec![world.rate()]);
    let share = world.tally.stream_bytes as f64 / world.tally.bytes.max(1) as f64;
    let measure = Measure::new("of these over streams", Fold::Mean, Unit::Bytes);
    figures.add(measure, vec![share * world.rate()]);
    if job.meter {
        let micros = world.tally.cpu.as_secs_f64() * 1e6 / world.tally.handled.max(1) as f64;
        let is_asked = job.nodes == 1_000 && job.loss == 0.3;
        let measure = Measure::new("processor time per packet", Fold::Mean, Unit::Micros);
        figures.add(measure.at_most(is_asked.then_some(20.0)), vec![micros]);
    }
    figures.healthy(&world.tally);
    if S::KNOWS_BEFORE_IT_SAYS {
        let deaths = world.running().map(|(_, node)| node.deaths()).sum::<u64>() as f64;
        let measure = Measure::new("deaths suspected and taken back", Fold::Sum, Unit::Count);
        figures.add(measure, vec![deaths]);
    }
    figures
}

fn slow1<S: Subject>(job: &mut Job<'_>) -> Figures {
    slow::<S>(job, 1)
}

fn slow8<S: Subject>(job: &mut Job<'_>) -> Figures {
    slow::<S>(job, 8)
}

fn slow<S: Subject>(job: &mut Job<'_>, count: usize) -> Figures {
    let mut world = settled::<S>(job, 0);
    let slow = (0..count.min(job.nodes)).map(|n| job.nodes - 1 - n).collect::<Vec<_>>();
    for host in &slow {
        world.hosts[*host].is_unwell = true;
    }
    run_long(&mut world, job, |world, second| {
        world.net.inbound.clear();
        if second % 60 < 30 {
            world.net.inbound = slow.iter().map(|host| (*host, secs(12))).collect();
        }
    });
    let mut figures = Figures::of(&world);
    figures.healthy(&world.tally);
    figures.unwell(&world.tally);
    figures
}

fn paused<S: Subject>(job: &mut Job<'_>) -> Figures {
    let mut world = settled::<S>(job, 0);
    let paused = (0..job.nodes.div_ceil(20)).map(|n| job.nodes - 1 - n).collect::<Vec<_>>();
    for host in &paused {
        world.hosts[*host].is_unwell = true;
    }
    run_long(&mut world, job, |world, second| {
        for (n, host) in paused.iter().enumerate() {
            // Ten seconds each, ten between, out of step.
            match (second + 7 * n as u64) % 20 {
                0 => world.pause(*host),
                10 => world.resume(*host),
                _ => {}
            }
        }
    });
    let mut figures = Figures::of(&world);
    figures.healthy(&world.tally);
    figures.unwell(&world.tally);
    figures
}

fn oneway<S: Subject>(job: &mut Job<'_>) -> Figures {
    let mut world = settled::<S>(job, 0);
    for _ in 0..job.nodes * job.nodes / 50 {
        let pair = (world.draw(job.nodes), world.draw(job.nodes));
        world.net.one_way.insert(pair);
    }
    run_long(&mut world, job, |_, _| {});
    let mut figures = Figures::of(&world);
    figures.healthy(&world.tally);
    figures
}

fn split<S: Subject>(job: &mut Job<'_>) -> Figures {
    let mut world = settled::<S>(job, 0);
    world.hosts.iter_mut().for_each(|host| host.is_unwell = true);
    world.net.group = (0..job.nodes / 2).map(|host| (host, 1)).collect();
    healing(world, job, secs(60))
}

fn blackout<S: Subject>(job: &mut Job<'_>) -> Figures {
    let mut world = settled::<S>(job, 0);
    world.hosts.iter_mut().for_each(|host| host.is_unwell = true);
    world.net.cut = (0..job.nodes).collect();
    healing(world, job, secs(60))
}

fn isolated<S: Subject>(job: &mut Job<'_>) -> Figures {
    let mut world = settled::<S>(job, 0);
    let alone = job.nodes / 2;
    world.hosts[alone].is_unwell = true;
    world.net.cut = [alone].into();
    healing(world, job, secs(60))
}

fn healing<S: Subject>(mut world: World<S>, job: &mut Job<'_>, cut: Duration) -> Figures {
    world.run(cut);
    (job.progress)(0.5);
    // What was concluded of healthy nodes meanwhile stays in the tally; renewals come with healing.
    world.forget();
    world.net.heal();
    let healed = world.now;
    let took = world.until(PATIENCE, |world| world.agrees() && world.all_up());
    world.run(secs(20));
    let renewed = |index: usize| {
        let events = world.hosts[index].events.iter();
        let renewed = |event: &S::Event| matches!(S::sight(event), Some(Sight::Renewed(_)));
        events.filter(|(_, event)| renewed(event)).count() as f64
    };
    let unwell = world.running().filter(|(i, _)| world.hosts[*i].is_unwell);
    let own = unwell.map(|(index, _)| renewed(index)).collect::<Vec<_>>();
    let mut figures = Figures::of(&world);
    let target = (job.loss <= 0.05).then_some(by_size(job.nodes, [2.0, 2.0, 10.0]));
    let measure = Measure::new("views equal after healing", Fold::Max, Unit::Seconds);
    figures.add(measure.at_most(target), vec![since(healed, took.map(|took| healed + took))]);
    let lasts = world.agrees() && world.all_up();
    let measure = Measure::new("not for good", Fold::Sum, Unit::Count).at_most(Some(0.0));
    figures.add(measure, vec![f64::from(u8::from(!lasts))]);
    let measure = Measure::new("renewals of a node cut off, at most", Fold::Max, Unit::Count);
    figures.add(measure.at_most((own.len() == 1).then_some(1.0)), own);
    figures.healthy(&world.tally);
    figures
}

fn chaos<S: Subject>(job: &mut Job<'_>) -> Figures {
    let mut world = settled_with::<S>(job, 0, S::undamped(S::settings(job.nodes)));
    let mut rng = StdRng::seed_from_u64(job.seed ^ 0x6368_616f_7300);
    world.hosts.iter_mut().for_each(|host| host.is_unwell = true);
    world.net.duplicates = 0.02;
    world.net.late = 0.02;
    let count = job.nodes;
    let end = world.now + job.length;
    while world.now < end {
        let host = rng.random_range(0..count);
        let runs = world.hosts[host].node.is_some();
        match rng.random_range(0..12) {
            0 | 1 if runs => world.crash(host),
            0..=3 if !runs => {
                world.hosts[host].clock_ms = rng.random_range(-3_600_000..3_600_000);
                if rng.random_bool(0.2) {
                    world.hosts[host].saved = 0;
                    world.hosts[host].peers.clear();
                }
                world.start(host);
            }
            4 => world.net.loss = [0.0, 0.05, 0.3][rng.random_range(0..3)],
            5 => {
                let groups = rng.random_range(1..4);
                world.net.group = (0..count).map(|h| (h, rng.random_range(0..groups))).collect();
            }
            6 => world.net.cut = (0..count).filter(|_| rng.random_bool(0.3)).collect(),
            7 => world.net.mute = (0..count).filter(|_| rng.random_bool(0.2)).collect(),
            8 => {
                let deaf = rng.random_range(0..count);
                world.net.inbound.insert(deaf, secs(rng.random_range(0..12)));
            }
            9 if runs => {
                world.pause(host);
                let stands_still = Duration::from_millis(rng.random_range(100..12_000));
                world.run(stands_still);
                world.resume(host);
            }
            10 => {
                let pair = (rng.random_range(0..count), rng.random_range(0..count));
                world.net.one_way.insert(pair);
            }
            11 => world.net.heal(),
            _ => {}
        }
        let pause = Duration::from_millis(rng.random_range(100..12_000));
        world.run(pause);
        world.forget();
    }
    world.net.heal();
    world.net.loss = 0.0;
    world.net.inbound.clear();
    for host in 0..count {
        if world.hosts[host].node.is_none() {
            world.start(host);
        }
    }
    let healed = world.now;
    let took = world.until(PATIENCE, |world| world.agrees() && world.all_up());
    world.run(secs(40));
    let lasts = world.agrees() && world.all_up();
    let mut figures = Figures::of(&world);
    let measure = Measure::new("views equal after it all", Fold::Max, Unit::Seconds);
    let value = since(healed, took.map(|took| healed + took));
    figures.add(measure.at_most(Some(20.0)), vec![value]);
    let measure = Measure::new("not for good", Fold::Sum, Unit::Count).at_most(Some(0.0));
    figures.add(measure, vec![f64::from(u8::from(!lasts))]);
    figures
}

/// Runs for as long as the job says; `each_second` may change the world.
fn run_long<S: Subject>(
    world: &mut World<S>,
    job: &mut Job<'_>,
    mut each_second: impl FnMut(&mut World<S>, u64),
) {
    let seconds = job.length.as_secs().max(1);
    for second in 0..seconds {
        each_second(world, second);
        world.run(secs(1));
        world.forget();
        if second % 10 == 9 {
            (job.progress)((second + 1) as f64 / seconds as f64);
        }
    }
}

/// How many nodes may go one after the other without making it another cluster.
fn victims(nodes: usize) -> usize {
    if nodes > 300 { 3 } else { (nodes / 4).clamp(1, 5) }
}

/// Seconds since `began`; what never came is infinitely late.
fn since(began: Duration, at: Option<Duration>) -> f64 {
    at.map_or(f64::INFINITY, |at| at.saturating_sub(began).as_secs_f64())
}

/// A target for up to 10, 100 and more nodes.
fn by_size(nodes: usize, targets: [f64; 3]) -> f64 {
    targets[usize::from(nodes > 10) + usize::from(nodes > 100)]
}
