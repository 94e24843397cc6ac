//! Ten times as many sessions as the innermost ring holds.
//!
//! Three nodes, each a home of all sessions, whose innermost ring has room for a tenth of them; no session cools by
//! itself meanwhile. They are started as fast as that goes, 64 or 256 at a time. Meanwhile it is looked every few
//! milliseconds how large the segments are, and how full. Afterwards every session is read.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annulus_client::{Client, Error, StartOptions, Table, TableStatus, Value};
use anyhow::{Context, ensure};
use tokio::task::JoinSet;

use super::{Bench, IN_FLIGHT, ROOM_BYTES, counted, is_of, remote_client};
use crate::entries::{key, value};
use crate::process::{Cluster, RingConfig, TableConfig};
use crate::report::{Goal, Report, Unit};
use crate::sample::{Latencies, Rounds};

const TABLE: &str = "sessions";
/// What the innermost ring may take on each node.
const MIB: u64 = 2;
/// How many are started at a time.
const AT_A_TIME: [u64; 2] = [64, 256];
/// What a session of 256 bytes takes of it at least.
const RECORD: u64 = 512;
/// How many times as many sessions as the innermost ring holds.
const TIMES: u64 = 10;
/// How often it is looked how large segments are, and how full.
const LOOK_SIZE: Duration = Duration::from_millis(5);
const LOOK_FILL: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Found {
    /// The largest that a segment was, beside its limit.
    size: Rounds,
    records: Rounds,
    private: Rounds,
    refused: Rounds,
    refusal: Rounds,
    unanswered: Rounds,
    lost: Rounds,
    waited: Rounds,
    starts: Rounds,
    slowest: Rounds,
}

/// What became of starts.
#[derive(Default)]
struct Started {
    latencies: Latencies,
    /// Those for which there was no room, how long that took, and those of which it is not known.
    refused: BTreeSet<u64>,
    refusals: Latencies,
    unanswered: BTreeSet<u64>,
}

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    let goal = |must| Goal { must, stretch: None };
    let rounds = if bench.quick { 1 } else { 2 };
    for at_a_time in AT_A_TIME {
        let mut found = Found::default();
        for round in 0..rounds {
            let round = format!("round {} of {rounds}", round + 1);
            report.progress(&format!("a full ring, {at_a_time} starts at a time, {round}"));
            fill(bench, at_a_time, &mut found)?;
        }
        let what = |of: &str| format!("full ring, {at_a_time} at a time: {of}");
        let size = what("its size at most, of its limit");
        report.goal(&size, Unit::Times, &found.size, None, goal(1.01));
        report.row(&what("records taken, the most"), Unit::Times, &found.records);
        report.row(&what("a node's other memory, growth"), Unit::Bytes, &found.private);
        report.goal(&what("starts refused"), Unit::Count, &found.refused, None, goal(0.0));
        report.row(&what("a start that is refused, p50"), Unit::Ms, &found.refusal);
        report.row(&what("starts not answered in time"), Unit::Count, &found.unanswered);
        report.goal(&what("sessions lost"), Unit::Count, &found.lost, None, goal(0.0));
        report.row(&what("starts that waited for room"), Unit::Count, &found.waited);
        report.row(&what("starts"), Unit::PerSecond, &found.starts);
        report.row(&what("a start, p99"), Unit::Ms, &found.slowest);
    }
    report.note(format!(
        "a full ring: 3 nodes, R = 3, W = 2, memory = {MIB} MiB, {TIMES} times as many sessions as its index takes; all \
         of them are read afterwards"
    ));
    Ok(())
}

fn fill(bench: &Bench<'_>, at_a_time: u64, found: &mut Found) -> anyhow::Result<()> {
    const LIMIT: u64 = MIB << 20;
    let memory = |bytes: u64| format!("{}KiB", bytes >> 10);
    let outer = memory(TIMES * LIMIT / RECORD * ROOM_BYTES);
    let table = TableConfig {
        ring: vec![RingConfig { name: "cold", after: "1h", memory: outer }],
        ..TableConfig::new(TABLE, "quorum", memory(LIMIT))
    };
    let cluster = bench.start(3, &[table])?;
    bench.runtime.block_on(async {
        let client = remote_client(&cluster).await?;
        let capacity = inner(&client, &cluster).await?.into_iter().map(|it| it.capacity).max();
        let sessions = TIMES * capacity.context("a cluster has a node")?;
        let private = || {
            let bytes = cluster.nodes.iter().filter_map(|node| node.private_bytes());
            bytes.max().context("the system does not say what a process takes")
        };
        let private_before = private()?;
        let sizes = Sizes::watch(cluster.segments(TABLE)?);
        let table = client.table(TABLE);
        let began = Instant::now();
        let starting = start_counting(&table, sessions, at_a_time);
        tokio::pin!(starting);
        let (mut fullest, mut private_most) = (0.0_f64, private_before);
        let Started { latencies, refused, refusals, mut unanswered } = loop {
            tokio::select! {
                done = &mut starting => break done?,
                () = tokio::time::sleep(LOOK_FILL) => {
                    for table in inner(&client, &cluster).await? {
                        fullest = fullest.max(table.entries as f64 / table.capacity as f64);
                    }
                    private_most = private_most.max(private()?);
                }
            }
        };
        found.starts.push(sessions as f64 / began.elapsed().as_secs_f64());
        let names = ["sessions_displaced", "writes_slowed"];
        let [moved, waited] = counted(&client, &cluster, names).await?;
        ensure!(moved >= sessions / 2, "{moved} of {sessions} sessions have gone outward");
        if !refused.is_empty() {
            found.refusal.push(refusals.percentiles_us([0.5])[0] / 1e3);
        }
        found.refused.push(refused.len() as f64);
        found.unanswered.push(unanswered.len() as f64);
        unanswered.extend(refused);
        let lost = read_all(&table, sessions, Arc::new(unanswered)).await?;
        found.lost.push(lost as f64);
        found.size.push(sizes.largest()? as f64 / LIMIT as f64);
        found.records.push(fullest);
        found.private.push((private_most - private_before) as f64);
        found.waited.push(waited as f64);
        found.slowest.push(latencies.percentiles_us([0.99])[0] / 1e3);
        Ok(())
    })
}

/// The innermost ring, as each node has it.
async fn inner(client: &Client, cluster: &Cluster) -> anyhow::Result<Vec<TableStatus>> {
    let mut inner = Vec::new();
    for node in &cluster.nodes {
        let tables = client.node(node.addr).status().await?.tables;
        inner.extend(tables.into_iter().filter(|table| table.name == TABLE));
    }
    Ok(inner)
}

/// Starts the sessions below `count`.
async fn start_counting(table: &Table, count: u64, at_a_time: u64) -> anyhow::Result<Started> {
    let mut tasks = JoinSet::new();
    for first in 0..at_a_time {
        let table = table.clone();
        tasks.spawn(async move {
            let mut done = Vec::new();
            for number in (first..count).step_by(at_a_time as usize) {
                let bytes = Value::Bytes(value(number).to_vec());
                let began = Instant::now();
                let started = table.start(key(number), bytes, StartOptions::default()).await;
                done.push((number, began.elapsed(), started));
            }
            done
        });
    }
    let mut all = Started::default();
    while let Some(done) = tasks.join_next().await {
        for (number, took, started) in done? {
            match started {
                Ok(_) => all.latencies.push(took),
                Err(Error::TableFull { .. }) => {
                    all.refused.insert(number);
                    all.refusals.push(took);
                }
                Err(Error::TimedOut | Error::Unavailable { .. }) => {
                    all.unanswered.insert(number);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(all)
}

/// Reads the sessions below `count` but those that may not be there. How many cannot be read, or are not as they were
/// started.
async fn read_all(table: &Table, count: u64, without: Arc<BTreeSet<u64>>) -> anyhow::Result<usize> {
    let mut tasks = JoinSet::new();
    for first in 0..IN_FLIGHT {
        let (table, without) = (table.clone(), without.clone());
        tasks.spawn(async move {
            let mut lost = 0;
            for number in (first..count).step_by(IN_FLIGHT as usize) {
                if !without.contains(&number) {
                    let read = table.fetch(key(number)).await;
                    lost += usize::from(!read.is_ok_and(|read| is_of(&read.session, number)));
                }
            }
            lost
        });
    }
    let mut lost = 0;
    while let Some(done) = tasks.join_next().await {
        lost += done?;
    }
    Ok(lost)
}

/// A thread that looks how large files are.
struct Sizes {
    largest: Arc<AtomicU64>,
    halt: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<anyhow::Result<()>>,
}

impl Sizes {
    fn watch(files: Vec<PathBuf>) -> Self {
        let (largest, halt) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (most, done) = (largest.clone(), halt.clone());
        let thread = std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                for file in &files {
                    let of = std::fs::metadata(file)?;
                    // What it takes, and what it claims to.
                    most.fetch_max(of.len().max(of.blocks() * 512), Ordering::Relaxed);
                }
                std::thread::sleep(LOOK_SIZE);
            }
            Ok(())
        });
        Self { largest, halt, thread }
    }

    /// The largest that any of them was.
    fn largest(self) -> anyhow::Result<u64> {
        self.halt.store(true, Ordering::Relaxed);
        self.thread.join().expect("a thread that looks at files does not panic")?;
        Ok(self.largest.load(Ordering::Relaxed))
    }
}
