//! The suite `handover`: how fast a node that joins gets its slots, and what those who use sessions meanwhile feel of it.
//!
//! Three real nodes hold all sessions. A fourth joins, takes three quarters of the slots, and the others drop what
//! they are no home of any more, against receipts. Another client reads and writes all the time, one request after
//! the other.

use std::time::{Duration, Instant};

use annulus_client::{Client, NodeStatus, StartOptions, Table};
use anyhow::{Context, ensure};
use clap::Args;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Options;
use crate::entries::key;
use crate::machine::{self, Machine};
use crate::process::{Cluster, Node, Site, TableConfig};
use crate::report::{Goal, Report, Unit};
use crate::sample::Rounds;
use crate::user::{Phase, use_sessions, value};

const TABLE: &str = "sessions";
const VALUE_BYTES: usize = 2_048;
/// Requests under way while sessions are made.
const IN_FLIGHT: u64 = 32;
/// How long after all sessions were made their user is not measured yet, and how long it then is before anything
/// else happens.
const SETTLE: Duration = Duration::from_secs(2);
const BEFORE: Duration = Duration::from_secs(3);
/// How long a hand-over may take at a low rate.
const JOIN_MAX: Duration = Duration::from_secs(600);
/// How often a node is asked how far it is, at most, and in how many parts of the time that has passed: the answer
/// takes it up to a millisecond.
const POLL: Duration = Duration::from_millis(20);
const POLLS: u32 = 100;

/// What only this suite is told.
#[derive(Args)]
pub(crate) struct HandoverArgs {
    /// The most bytes per second that a node exchanges, as the setting `handover_rate`
    /// [suite handover; default: the setting's]
    #[arg(long, value_name = "SIZE")]
    handover_rate: Option<String>,
}

/// Measures everything.
///
/// # Errors
/// If a node or a client cannot be started, or a request fails.
pub(crate) fn run(
    site: &mut Site,
    machine: &Machine,
    (options, args): (Options, &HandoverArgs),
    report: &mut Report,
) -> anyhow::Result<()> {
    machine::pin_to(&machine.cores)?;
    if let Some(rate) = &args.handover_rate {
        site.limits.handover_rate = Some(rate.clone());
        report.heading("rate", &format!("handover_rate is {rate}"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (entries, rounds) = if options.quick { (20_000, 1) } else { (100_000, 5) };
    let mut found = Found::default();
    for round in 0..rounds {
        report.progress(&format!("round {} of {rounds}", round + 1));
        runtime.block_on(join(site, machine, entries, &mut found))?;
    }
    let what = |of: &str| format!("{of}, {entries} sessions of {VALUE_BYTES} B");
    report.row(&what("the joining node has all of its slots"), Unit::Ms, &found.synced);
    report.row(&what("the others have dropped theirs"), Unit::Ms, &found.dropped);
    // As times, since goals are limits from above.
    let goal = Goal { must: 10.0, stretch: None };
    report.goal(&what("hand-over of 1 MB (10⁶ bytes)"), Unit::Ms, &found.per_mb, None, goal);
    report.row("processor time of all nodes per second, before", Unit::Ms, &found.usual);
    report.row(
        "processor time of all nodes for 1 MB, beyond that",
        Unit::Ms,
        &found.processor_per_mb,
    );
    report.row(
        "bytes exchanged by all nodes, of those that arrived",
        Unit::Times,
        &found.exchanged,
    );
    for (name, before, during) in [
        ("read", &found.read_before, &found.read_during),
        ("write", &found.write_before, &found.write_during),
    ] {
        let before_name = format!("{name} before, p99");
        report.row(&before_name, Unit::Us, before);
        let goal = Goal { must: 2.0, stretch: None };
        let name = format!("{name} meanwhile, p99");
        report.goal(&name, Unit::Us, during, Some(&before_name), goal);
    }
    report.note(format!(
        "four nodes and the client share {} processors; bytes are those of keys and values that the joining node \
         holds in the end, times from its start until it is in sync, the start of the process less",
        machine.cores.len()
    ));
    Ok(())
}

#[derive(Default)]
struct Found {
    synced: Rounds,
    dropped: Rounds,
    per_mb: Rounds,
    processor_per_mb: Rounds,
    usual: Rounds,
    exchanged: Rounds,
    read_before: Rounds,
    read_during: Rounds,
    write_before: Rounds,
    write_during: Rounds,
}

async fn join(
    site: &Site,
    machine: &Machine,
    entries: u64,
    found: &mut Found,
) -> anyhow::Result<()> {
    let memory = format!("{}MiB", 64 + ((entries * 2 * VALUE_BYTES as u64) >> 20));
    let tables = [TableConfig::new(TABLE, "quorum", memory)];
    let mut cluster = Cluster::start_with(site, &machine.cores, 1, 3, &tables)?;
    cluster.agreed().await?;
    let seeds = cluster.nodes.iter().map(|node| node.addr.to_string());
    let client = cluster.client().seeds(seeds).without_shared_memory().connect().await?;
    let table = client.table(TABLE);
    fill(&table, entries).await?;

    let (stop, stopped) = watch::channel(Phase::Settling);
    let user = tokio::spawn(use_sessions(table.clone(), (entries, VALUE_BYTES), stopped));
    tokio::time::sleep(SETTLE).await;
    stop.send_replace(Phase::Before);
    let processor_before = processor_time(&cluster)?;
    let began = Instant::now();
    tokio::time::sleep(BEFORE).await;
    let usual = processor_time(&cluster)?.saturating_sub(processor_before);
    let usual = usual.as_secs_f64() / began.elapsed().as_secs_f64();
    stop.send_replace(Phase::During);
    cluster.add(&tables)?;
    let processor_joined = processor_time(&cluster)?;
    let joined = Instant::now();
    let joiner = cluster.nodes.last().context("it was added")?.addr;
    let is_synced = |status: &NodeStatus| {
        let mut tables = status.tables.iter();
        tables.all(|table| table.slots_home > 0 && table.slots_unsynced == 0)
    };
    let status = until(&client, joiner, is_synced).await?;
    let synced = joined.elapsed();
    let bytes = status.tables.iter().map(|table| table.bytes).sum::<u64>();
    for node in &cluster.nodes[..3] {
        let tables = |status: &NodeStatus| status.tables.iter().all(|it| it.slots_leaving == 0);
        until(&client, node.addr, tables).await?;
    }
    let dropped = joined.elapsed();
    let processor = processor_time(&cluster)?.saturating_sub(processor_joined);
    let processor = processor.as_secs_f64() - usual * dropped.as_secs_f64();
    let mut exchanged = 0;
    for node in &cluster.nodes {
        let counters = client.node(node.addr).status().await?.counters;
        let of_batches = |(name, _): &&(String, u64)| name.starts_with("sync_bytes_");
        exchanged += counters.iter().filter(of_batches).map(|(_, bytes)| bytes).sum::<u64>();
    }
    stop.send_replace(Phase::Over);
    let [(read_before, write_before), (read_during, write_during)] = user.await??;
    ensure!(bytes > entries * VALUE_BYTES as u64 / 2, "{bytes} bytes moved");
    found.synced.push(synced.as_secs_f64() * 1e3);
    found.dropped.push(dropped.as_secs_f64() * 1e3);
    let megabytes = bytes as f64 / 1e6;
    found.per_mb.push(synced.as_secs_f64() * 1e3 / megabytes);
    found.processor_per_mb.push(processor * 1e3 / megabytes);
    found.usual.push(usual * 1e3);
    found.exchanged.push(exchanged as f64 / bytes as f64);
    for (rounds, latencies) in [
        (&mut found.read_before, read_before),
        (&mut found.write_before, write_before),
        (&mut found.read_during, read_during),
        (&mut found.write_during, write_during),
    ] {
        rounds.push(latencies.percentiles_us([0.99])[0]);
    }
    Ok(())
}

/// The processor time that all nodes have taken so far.
fn processor_time(cluster: &Cluster) -> anyhow::Result<Duration> {
    cluster.nodes.iter().map(Node::processor_time).sum()
}

async fn until(
    client: &Client,
    addr: std::net::SocketAddr,
    done: impl Fn(&NodeStatus) -> bool,
) -> anyhow::Result<NodeStatus> {
    let began = Instant::now();
    loop {
        if let Ok(status) = client.node(addr).status().await
            && done(&status)
        {
            return Ok(status);
        }
        let passed = began.elapsed();
        ensure!(passed < JOIN_MAX, "the slots of {addr} are not where they should be");
        tokio::time::sleep(POLL.max(passed / POLLS)).await;
    }
}

async fn fill(table: &Table, entries: u64) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for first in 0..IN_FLIGHT {
        let table = table.clone();
        tasks.spawn(async move {
            for number in (first..entries).step_by(IN_FLIGHT as usize) {
                table
                    .start(key(number), value(number, VALUE_BYTES), StartOptions::default())
                    .await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
