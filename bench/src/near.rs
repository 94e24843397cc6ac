//! The suite `near`: what is read out of shared memory on five hosts, three of which are homes of each session, and how far
//! behind that is.
//!
//! The hosts are one machine, each node with its own processes: clients that read and write any session through any
//! host. Each write carries a number; whoever reads one that is lower than what was acknowledged before the read began
//! is behind by the time since then.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use annulus_client::{Change, Client, Error, Source, StartOptions, Table, Value};
use anyhow::{Context, bail};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::Options;
use crate::machine::{self, Machine};
use crate::process::{Cluster, Site, TableConfig};
use crate::report::{Goal, Report, Unit};
use crate::sample::Rounds;

const NODES: usize = 5;
const SESSIONS: usize = 200;
/// Of a hundred requests.
const READS: u32 = 90;
/// Requests of each host's client in a second.
const RATE: u64 = 400;
const TABLES: [(&str, &str); 2] = [("near", "near"), ("home", "home")];

/// When the numbers of a session's writes were acknowledged, in the order of that.
type Acknowledged = Mutex<BTreeMap<usize, Vec<(Instant, u64)>>>;

/// What a round saw.
#[derive(Default)]
struct Seen {
    reads: usize,
    in_memory: usize,
    /// Of the reads out of shared memory, how far behind each was, in milliseconds.
    behind: Vec<f64>,
    /// How many of all reads were behind.
    stale: usize,
}

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
    let processors: Vec<usize> = machine.cores.iter().copied().take(2).collect();
    report.heading("load", &format!("{} (1, 5, 15 minutes, at the start)", machine::load()));
    let tables = TABLES.map(|(name, read)| TableConfig {
        read: Some(read),
        ..TableConfig::new(name, "quorum", "8MiB".to_owned())
    });
    let cluster = Cluster::start_with(site, &processors, 1, NODES, &tables)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (rounds, length) = if options.quick { (1, 5) } else { (5, 20) };
    let mut figures: BTreeMap<&str, [Rounds; 4]> = BTreeMap::new();
    runtime.block_on(async {
        cluster.agreed().await?;
        let mut clients = Vec::new();
        for node in &cluster.nodes {
            let client = cluster.client().local_socket(&node.socket).connect().await;
            clients.push(client.context("a node does not answer")?);
        }
        for round in 0..rounds {
            for (table, _) in TABLES {
                report.progress(&format!("round {}, table {table}", round + 1));
                let seen = load(&clients, table, Duration::from_secs(length), round).await?;
                let part = 100.0 * seen.in_memory as f64 / seen.reads as f64;
                let [in_memory, p99, worst, stale] = figures.entry(table).or_default();
                in_memory.push(part);
                stale.push(seen.stale as f64);
                let mut behind = seen.behind;
                behind.sort_unstable_by(f64::total_cmp);
                if let Some(most) = behind.last() {
                    worst.push(*most);
                    p99.push(behind[(behind.len() - 1) * 99 / 100]);
                }
            }
        }
        anyhow::Ok(())
    })?;
    let goal = |must| Goal { must, stretch: None };
    let near = figures.remove("near").unwrap_or_default();
    let [in_memory, p99, worst, stale] = near;
    report.goal("near: reads out of shared memory", Unit::Percent, &in_memory, None, goal(80.0));
    report.goal("near: behind, p99 of these", Unit::Ms, &p99, None, goal(200.0));
    report.goal("near: behind, the worst of these", Unit::Ms, &worst, None, goal(400.0));
    report.row("near: reads that were behind", Unit::Count, &stale);
    let [in_memory, _, _, stale] = figures.remove("home").unwrap_or_default();
    report.row("home: reads out of shared memory", Unit::Percent, &in_memory);
    report.goal("home: reads that were behind", Unit::Count, &stale, None, goal(0.0));
    report.note(format!(
        "{NODES} nodes, R = 3, {SESSIONS} sessions, {READS} % reads, {RATE} requests a second through each host, any session through any host"
    ));
    report.note("behind: by the time since a later write than the one that was read had been acknowledged, when the read began");
    report.note("without near copies three of five reads are at a home of the session");
    Ok(())
}

/// Reads and writes through all hosts for a while.
async fn load(
    clients: &[Client],
    table: &'static str,
    length: Duration,
    round: u64,
) -> anyhow::Result<Seen> {
    let acknowledged: Arc<Acknowledged> = Arc::default();
    for session in 0..SESSIONS {
        let table = clients[session % clients.len()].table(table);
        table.start(key(round, session), value(0), StartOptions::default()).await?;
    }
    let mut tasks = Vec::new();
    for (host, client) in clients.iter().enumerate() {
        let (table, acknowledged) = (client.table(table), acknowledged.clone());
        tasks.push(tokio::spawn(host_load(table, acknowledged, (host, round), length)));
    }
    let mut seen = Seen::default();
    for task in tasks {
        let part = task.await??;
        seen.reads += part.reads;
        seen.in_memory += part.in_memory;
        seen.stale += part.stale;
        seen.behind.extend(part.behind);
    }
    Ok(seen)
}

async fn host_load(
    table: Table,
    acknowledged: Arc<Acknowledged>,
    (host, round): (usize, u64),
    length: Duration,
) -> anyhow::Result<Seen> {
    let mut rng = StdRng::seed_from_u64(round * 100 + host as u64);
    let mut seen = Seen::default();
    let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    let began = Instant::now();
    // Who writes a session at a time is one host, so that the order of the numbers is that of the writes.
    let mut number = 0;
    while began.elapsed() < length {
        pace.tick().await;
        if rng.random_ratio(READS, 100) {
            let session = rng.random_range(0..SESSIONS);
            let asked = Instant::now();
            let read = match table.get(key(round, session)).await {
                Ok(read) => read,
                Err(Error::Unavailable { .. } | Error::TimedOut) => continue,
                Err(error) => return Err(error.into()),
            };
            let Value::Bytes(bytes) = &read.session.value else { bail!("a map") };
            let shown: u64 = String::from_utf8_lossy(bytes).parse()?;
            let acknowledged = acknowledged.lock().expect("nobody panics with it");
            let later = acknowledged.get(&session).and_then(|writes| {
                writes.iter().find(|(at, number)| *number > shown && *at < asked)
            });
            let behind = later.map(|(at, _)| asked.duration_since(*at));
            seen.reads += 1;
            seen.stale += usize::from(behind.is_some());
            if read.source == Source::SharedMemory {
                seen.in_memory += 1;
                seen.behind.push(behind.map_or(0.0, |behind| behind.as_secs_f64() * 1e3));
            }
        } else {
            let session = rng.random_range(0..SESSIONS / NODES) * NODES + host;
            number += 1;
            let change = Change::Value(value(number));
            match table.update(key(round, session), None, change).await {
                Ok(_) => {
                    let done = (Instant::now(), number);
                    let mut acknowledged = acknowledged.lock().expect("nobody panics with it");
                    acknowledged.entry(session).or_default().push(done);
                }
                Err(Error::Unavailable { .. } | Error::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(seen)
}

fn key(round: u64, session: usize) -> String {
    format!("near-{round}-{session}")
}

fn value(number: u64) -> Value {
    Value::Bytes(number.to_string().into_bytes())
}
