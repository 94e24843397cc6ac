//! The suite `lanes`: handing writes to the host's node through shared memory, R = 1.
//!
//! A node alone and Redis on one core; the measuring thread, without any runtime, on the same core or
//! on the other one. On the same core the node sleeps whenever it has nothing to do, since it could
//! not look for work while its client runs; on another core it looks on for a while.

use std::hint::black_box;
use std::time::Instant;

use annulus_client::{Lane, LaneCaller, LaneTable, Role, StartOptions, Value};
use anyhow::{Context, ensure};

use self::floor::Echo;
use crate::Options;
use crate::entries::{key, shuffled, value};
use crate::machine::{self, Machine};
use crate::process::{Cluster, RedisServer, Site, TableConfig};
use crate::redis::RedisClient;
use crate::report::{Goal, Report, Unit};
use crate::sample::{Latencies, Rounds};

mod floor;
mod many;

/// Sessions that are written, in a random order.
const SESSIONS: u64 = 10_000;
/// Submissions in a row, which the ring has room for.
const BURST: usize = 128;
/// Calls before each round that are not measured.
const WARM_UP: usize = 200;

/// Measures everything.
///
/// # Errors
/// What kept a process from starting, or a request that failed.
pub(crate) fn run(
    site: &Site,
    machine: &Machine,
    options: Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (first, last) = (machine.cores.first(), machine.cores.last());
    let (apart, servers) = first.copied().zip(last.copied()).context("a process has a core")?;
    machine::pin(apart)?;
    report.heading(
        "placement",
        &format!(
            "node and Redis on core {servers}; the client, one thread, on core {apart} (\"other \
             core\") or {servers} (\"same core\")"
        ),
    );
    let redis = RedisServer::start(site, servers)?;
    match &redis {
        Some(redis) => report.heading("peers", &format!("Redis {}", redis.version)),
        None => report.note("redis-server is not installed: its rows are missing"),
    }
    report.heading("load", &format!("{} (1, 5, 15 minutes, at the start)", machine::load()));
    let table = TableConfig::new("sessions", "one", "32MiB".to_owned());
    let cluster = Cluster::start(site, servers, 1, &[table])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(cluster.agreed())?;
    let mut subjects = Subjects::open(&cluster, redis.as_ref())?;
    let (rounds, calls) = if options.quick { (3, 2_000) } else { (7, 20_000) };
    report.progress("submissions and calls");
    let mut awake = Echo::start(servers, false)?;
    let mut floors = [Rounds::default(), Rounds::default()];
    for _ in 0..rounds {
        floors[0].push(awake.ask(calls)?);
    }
    awake.stop()?;
    let mut asleep = Echo::start(servers, true)?;
    machine::pin(servers)?;
    for _ in 0..rounds {
        floors[1].push(asleep.ask(calls)?);
    }
    asleep.stop()?;
    for round in 0..rounds {
        machine::pin(apart)?;
        subjects.enqueue(round, calls)?;
        let on_other = subjects.call(round, calls)?;
        subjects.other_core.push(on_other);
        let redis_on_other = subjects.ask_redis(round, calls / 10)?;
        machine::pin(servers)?;
        let on_same = subjects.call(round, calls)?;
        subjects.same_core.push(on_same);
        let redis_on_same = subjects.ask_redis(round, calls / 10)?;
        if let (Some(other), Some(same)) = (redis_on_other, redis_on_same) {
            subjects.redis_other_core.push(other);
            subjects.redis_same_core.push(same);
        }
    }
    machine::pin(apart)?;
    subjects.report(report);
    let [awake, asleep] = &floors;
    report.row("floor: a word there and back, other core, p50", Unit::Us, awake);
    report.row("floor: a bell there and a futex back, same core, p50", Unit::Us, asleep);
    report.progress("a node alone");
    many::run(site, machine, rounds, report)?;
    report.note("Redis SET is acknowledged by one server, as a write is here with R = 1");
    Ok(())
}

/// A new lane to the first node.
fn open_lane(cluster: &Cluster) -> anyhow::Result<Lane> {
    let caller = LaneCaller {
        cluster: cluster.name().to_owned(),
        client: rand::random(),
        role: Role::Development,
        software: "annulus-bench".to_owned(),
        timeout: std::time::Duration::from_secs(10),
    };
    Ok(Lane::open(&cluster.nodes[0].socket, caller)?)
}

struct Subjects {
    sessions: LaneTable,
    redis: Option<RedisClient>,
    order: Vec<u64>,
    touch: Rounds,
    update: Rounds,
    other_core: Percentiles,
    same_core: Percentiles,
    redis_other_core: Percentiles,
    redis_same_core: Percentiles,
}

#[derive(Default)]
struct Percentiles {
    p50: Rounds,
    p99: Rounds,
}

impl Percentiles {
    fn push(&mut self, [p50, p99]: [f64; 2]) {
        self.p50.push(p50);
        self.p99.push(p99);
    }
}

impl Subjects {
    fn open(cluster: &Cluster, redis: Option<&RedisServer>) -> anyhow::Result<Self> {
        let sessions = open_lane(cluster)?.table("sessions");
        let sessions = sessions.context("the node has no such table")?;
        let mut redis = redis.map(RedisClient::over_unix).transpose()?;
        for number in 0..SESSIONS {
            let bytes = Value::Bytes(value(number).to_vec());
            sessions.start(key(number), bytes, StartOptions::default())?;
            if let Some(redis) = &mut redis {
                redis.set(&key(number), &value(number))?;
            }
        }
        Ok(Self {
            sessions,
            redis,
            order: shuffled(SESSIONS),
            touch: Rounds::default(),
            update: Rounds::default(),
            other_core: Percentiles::default(),
            same_core: Percentiles::default(),
            redis_other_core: Percentiles::default(),
            redis_same_core: Percentiles::default(),
        })
    }

    /// Bursts of what nobody waits for, each after a call, so that the node is awake.
    fn enqueue(&mut self, round: usize, count: usize) -> anyhow::Result<()> {
        let keys: Vec<_> = self.order.iter().skip(round * BURST).take(BURST).collect();
        let keys: Vec<_> = keys.into_iter().map(|number| (key(*number), value(*number))).collect();
        for is_update in [false, true] {
            let mut took = 0.0;
            let bursts = count / BURST;
            for _ in 0..bursts {
                self.sessions.touch(keys[0].0, None)?;
                let began = Instant::now();
                for (key, value) in &keys {
                    if is_update {
                        self.sessions.update_soon(key, None, value)?;
                    } else {
                        self.sessions.touch_soon(key, None)?;
                    }
                }
                took += began.elapsed().as_secs_f64();
            }
            let per_submission = took * 1e9 / (bursts * BURST) as f64;
            if is_update { &mut self.update } else { &mut self.touch }.push(per_submission);
        }
        Ok(())
    }

    /// Updates that count when they are answered, one after the other.
    fn call(&mut self, round: usize, count: usize) -> anyhow::Result<[f64; 2]> {
        let mut latencies = Latencies::default();
        let numbers = self.order.iter().cycle().skip(round * 1_000).take(WARM_UP + count);
        for (index, number) in numbers.enumerate() {
            let (key, value) = (key(*number), value(*number));
            let began = Instant::now();
            let acknowledged = self.sessions.update_bytes(key, None, &value)?;
            if index >= WARM_UP {
                latencies.push(began.elapsed());
            }
            ensure!(acknowledged.homes == 1, "another node is a home");
            black_box(acknowledged);
        }
        Ok(latencies.percentiles_us([0.5, 0.99]))
    }

    fn ask_redis(&mut self, round: usize, count: usize) -> anyhow::Result<Option<[f64; 2]>> {
        let Some(redis) = &mut self.redis else { return Ok(None) };
        let mut latencies = Latencies::default();
        let numbers = self.order.iter().cycle().skip(round * 1_000).take(WARM_UP + count);
        for (index, number) in numbers.enumerate() {
            let (key, value) = (key(*number), value(*number));
            let began = Instant::now();
            redis.set(&key, &value)?;
            if index >= WARM_UP {
                latencies.push(began.elapsed());
            }
        }
        Ok(Some(latencies.percentiles_us([0.5, 0.99])))
    }

    fn report(&self, report: &mut Report) {
        let goal = |must| Goal { must, stretch: None };
        report.goal("touch handed over", Unit::Ns, &self.touch, None, goal(80.0));
        report.goal("update of 256 B handed over", Unit::Ns, &self.update, None, goal(80.0));
        let places = [
            ("other core", &self.redis_other_core, &self.other_core, 1.0),
            ("same core", &self.redis_same_core, &self.same_core, 4.0),
        ];
        for (place, redis, ours, must) in places {
            let [redis_p50, redis_p99] =
                ["p50", "p99"].map(|part| format!("Redis SET, Unix socket, {place}, {part}"));
            report.row(&redis_p50, Unit::Us, &redis.p50);
            report.row(&redis_p99, Unit::Us, &redis.p99);
            let name = |part| format!("update acknowledged, {place}, {part}");
            report.goal(&name("p50"), Unit::Us, &ours.p50, None, goal(must));
            report.row_against(&name("p50"), Unit::Us, &ours.p50, &redis_p50);
            report.row_against(&name("p99"), Unit::Us, &ours.p99, &redis_p99);
        }
    }
}
