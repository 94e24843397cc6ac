//! Sessions that go outward while others are used.
//!
//! Two clusters of three nodes (or as many as said), one with a ring further out and one without. In each pair of
//! figures the same 10,000 sessions are started in both, unmeasured. While none of them is due, a load of the one without
//! a ring is measured; once they are, the same load of the other, for as long as it takes them to go: three seconds,
//! which is 10⁶ sessions in five minutes. Looking for what is due, which goes on all the time, is in the figure, too. The
//! load is reads and writes of 1,000 sessions, none of which gets cool. Those that went outward expire while the next
//! ones are started, on all rings and in both clusters, so that no pair finds what the one before has left: the markers of
//! those that went would fill the innermost ring otherwise, and starts find no room.

use std::ops::Range;
use std::time::{Duration, Instant};

use annulus_client::{Change, StartOptions, Table, Value};
use anyhow::ensure;
use tokio::task::JoinSet;

use super::{Bench, ROOM_BYTES, counted, processor_time, remote_client, start_all};
use crate::entries::{key, mixed, value};
use crate::process::{RingConfig, TableConfig};
use crate::report::{Goal, Report, Unit};
use crate::sample::Rounds;

const TABLE: &str = "sessions";
/// Sessions that go outward while one figure is taken, and how long that is.
const EACH: u64 = 10_000;
const WINDOW: Duration = Duration::from_secs(3);
/// How long after their only use sessions go outward.
const AFTER: Duration = Duration::from_secs(6);
/// How long they live: until others are started.
const LIFE: Duration = Duration::from_secs(10);
/// After sessions were started, before anything is measured.
const SETTLE: Duration = Duration::from_millis(500);
/// The load: its sessions, and requests under way at a time, of a hundred of which so many read.
const USED: u64 = 1_000;
const AT_A_TIME: u64 = 16;
const READS: u64 = 80;
/// The numbers of the sessions that go outward.
const GOING: u64 = 1 << 32;
/// How often sessions go outward while nothing else happens.
const QUIET_ROUNDS: u64 = 2;

pub(super) fn measure(
    bench: &Bench<'_>,
    (sessions, nodes): (u64, usize),
    report: &mut Report,
) -> anyhow::Result<()> {
    let memory = format!("{}KiB", (USED + 2 * EACH) * ROOM_BYTES / 1024);
    let plain =
        TableConfig { half_life: Some("1s"), ..TableConfig::new(TABLE, "quorum", memory.clone()) };
    let ring = RingConfig { name: "cold", after: "6s", memory };
    let ringed = TableConfig { ring: vec![ring], ..plain.clone() };
    let clusters = [bench.start(nodes, &[plain])?, bench.start(nodes, &[ringed])?];
    let pairs = sessions.div_ceil(EACH);
    bench.runtime.block_on(async {
        let clients = [remote_client(&clusters[0]).await?, remote_client(&clusters[1]).await?];
        let [plain, ringed] = clients.each_ref().map(|client| client.table(TABLE));
        for table in [&plain, &ringed] {
            start_all(table, 0..USED, &StartOptions::default()).await?;
            load(table, WINDOW / 3).await?;
        }
        let going_life = StartOptions { idle: Some(LIFE), ..StartOptions::default() };
        let gone = || counted(&clients[1], &clusters[1], ["sessions_cooled"]);
        let [mut without, mut with, mut part, mut pace] = [const { Rounds::new() }; 4];
        for pair in 0..pairs {
            report.progress(&format!("sessions that cool, pair {} of {pairs}", pair + 1));
            let numbers = going(pair);
            let turn = Instant::now();
            start_all(&plain, numbers.clone(), &going_life).await?;
            let began = Instant::now();
            start_all(&ringed, numbers, &going_life).await?;
            tokio::time::sleep(SETTLE).await;
            let alone = load(&plain, WINDOW).await?;
            tokio::time::sleep((began + AFTER).saturating_duration_since(Instant::now())).await;
            let [before] = gone().await?;
            let beside = load(&ringed, WINDOW).await?;
            let [after] = gone().await?;
            without.push(alone);
            with.push(beside);
            part.push(100.0 * beside / alone);
            pace.push((after - before) as f64 / WINDOW.as_secs_f64());
            tokio::time::sleep((turn + LIFE).saturating_duration_since(Instant::now())).await;
        }
        report.progress("sessions that cool and nothing else");
        let [mut idle, mut per_1000] = [const { Rounds::new() }; 2];
        for round in 0..QUIET_ROUNDS {
            let began = Instant::now();
            start_all(&ringed, going(pairs + round), &going_life).await?;
            tokio::time::sleep(SETTLE).await;
            let processor = processor_time(&clusters[1])?;
            tokio::time::sleep(WINDOW).await;
            let usual = processor_time(&clusters[1])?.saturating_sub(processor);
            tokio::time::sleep((began + AFTER).saturating_duration_since(Instant::now())).await;
            let ([before], processor) = (gone().await?, processor_time(&clusters[1])?);
            tokio::time::sleep(WINDOW).await;
            let ([after], took) = (gone().await?, processor_time(&clusters[1])?);
            let beyond = took.saturating_sub(processor).saturating_sub(usual);
            idle.push(usual.as_secs_f64() * 1e3 / WINDOW.as_secs_f64());
            per_1000.push(beyond.as_secs_f64() * 1e6 / (after - before).max(1) as f64);
            tokio::time::sleep((began + LIFE).saturating_duration_since(Instant::now())).await;
        }
        let [slowed] = counted(&clients[1], &clusters[1], ["writes_slowed"]).await?;
        ensure!(slowed == 0, "{slowed} starts found no room: what was measured is something else");
        let name = "load without a ring further out";
        report.row(name, Unit::PerSecond, &without);
        report.row_against("load while sessions go outward", Unit::PerSecond, &with, name);
        let goal = Goal { must: 95.0, stretch: None };
        let name = "load while sessions go outward, of that, by pairs";
        report.goal(name, Unit::Percent, &part, None, goal);
        report.row("sessions that go outward meanwhile", Unit::PerSecond, &pace);
        let name = "processor time of all nodes for 1,000 that go";
        report.row(name, Unit::Ms, &per_1000);
        let name = "processor time of all nodes per second, nothing to do";
        report.row(name, Unit::Ms, &idle);
        anyhow::Ok(())
    })?;
    report.note(format!(
        "cooling: {pairs} pairs of {} s, {EACH} sessions of 256 bytes each, {nodes} node(s), R = 3, W = 2 where \
         there are as many; the load has {AT_A_TIME} requests under way, {READS} % of them reads",
        WINDOW.as_secs()
    ));
    Ok(())
}

fn going(pair: u64) -> Range<u64> {
    GOING + pair * EACH..GOING + (pair + 1) * EACH
}

/// Requests per second, as many as get through.
async fn load(table: &Table, length: Duration) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..AT_A_TIME {
        let table = table.clone();
        tasks.spawn(async move {
            let mut done = 0_u64;
            while began.elapsed() < length {
                let drawn = mixed(task << 32 | done);
                let number = drawn % USED;
                if (drawn >> 32) % 100 < READS {
                    table.fetch(key(number)).await?;
                } else {
                    let change = Change::Value(Value::Bytes(value(number).to_vec()));
                    table.update(key(number), None, change).await?;
                }
                done += 1;
            }
            anyhow::Ok(done)
        });
    }
    let mut done = 0;
    while let Some(task) = tasks.join_next().await {
        done += task??;
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}
