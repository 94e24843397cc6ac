//! A node that was away, while others wrote: real processes on loopback.

use std::time::{Duration, Instant};

use annulus_client::Client;
use annulus_proto::Status;
use annulus_proto::message::NodeStatus;
use anyhow::{Context, bail, ensure};

use crate::Options;
use crate::machine::Machine;
use crate::mesh::fill;
use crate::process::{Cluster, START_MAX, Site, TableConfig};
use crate::report::{Goal, Report, Unit};
use crate::sample::Rounds;

/// Sessions that are written anew while one of the two nodes is away.
const WRITTEN: u64 = 10_000;
/// How often a node is asked how far it is, which takes a part of the only processor that the nodes have.
const POLL: Duration = Duration::from_millis(10);
/// The least that a node may be configured to keep.
const HINTS_MAX: &str = "64KiB";

/// How long a restarted node takes until it serves, and until it has what it missed.
///
/// # Errors
/// What kept a process from starting, or a request that failed.
pub(super) fn measure(
    site: &mut Site,
    machine: &Machine,
    options: Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let processor = machine.cores.last().copied().context("a process has a core")?;
    let (entries, rounds) = if options.quick { (100_000, 1) } else { (1_000_000, 5) };
    let memory = format!("{}MiB", 64 + entries / 1_000);
    let tables = [TableConfig::new("sessions", "one", memory)];
    // What is measured is the comparison: a node that kept every write as a hint would spare it.
    site.limits.hints_max = Some(HINTS_MAX.to_owned());
    let mut cluster = Cluster::start(site, processor, 2, &tables)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let [mut serving, mut healed, mut exchanged] = [const { Rounds::new() }; 3];
    runtime.block_on(async {
        cluster.agreed().await?;
        let client = cluster.client().local_socket(&cluster.nodes[0].socket);
        let client = client.without_shared_memory().connect().await?;
        let table = client.table("sessions");
        ensure!(fill(&table, entries).await? == entries, "not all sessions had room");
        for _ in 0..rounds {
            cluster.nodes[1].kill()?;
            let alone = |status: &NodeStatus| status.active_members == 1;
            until(&client, &cluster, 0, "alone", alone).await?;
            ensure!(fill(&table, WRITTEN).await? == WRITTEN, "not all writes were done");
            let began = Instant::now();
            cluster.restart(1)?;
            let is_up = |status: &NodeStatus| status.member.status == Status::Up;
            let up = until(&client, &cluster, 1, "up", is_up).await?;
            serving.push((up - began).as_secs_f64() * 1e3);
            let has_read = |status: &NodeStatus| {
                status.counters.iter().any(|(name, left)| name == "slots_unread" && *left == 0)
            };
            let read = until(&client, &cluster, 1, "done with reading", has_read).await?;
            // It may know of the other before its slots do: nothing seems to be missing until then. The few
            // writes that there is room for as hints come by themselves.
            let brought = |status: &NodeStatus| -> u64 {
                let ways = ["sync_entries_fetched", "copies_received"];
                let counters = status.counters.iter();
                counters.filter(|(name, _)| ways.contains(&name.as_str())).map(|(_, n)| n).sum()
            };
            let is_synced = |status: &NodeStatus| {
                brought(status) >= WRITTEN
                    && status.tables.iter().all(|table| table.slots_unsynced == 0)
            };
            let synced = until(&client, &cluster, 1, "in sync", is_synced).await?;
            healed.push((synced - up).as_secs_f64() * 1e3);
            exchanged.push((synced - read).as_secs_f64() * 1e3);
        }
        anyhow::Ok(())
    })?;
    let goal = Goal { must: 1_000.0, stretch: None };
    let name = format!("a node of {entries} entries, killed and started again: up");
    report.goal(&name, Unit::Ms, &serving, None, goal);
    let name = format!("then {WRITTEN} of them written meanwhile: in sync");
    report.goal(&name, Unit::Ms, &healed, None, goal);
    report.row("of that, after it had read all of its own", Unit::Ms, &exchanged);
    Ok(())
}

/// Asks a node for its status until it is as wanted; returns when it was.
async fn until(
    client: &Client,
    cluster: &Cluster,
    index: usize,
    what: &str,
    wanted: impl Fn(&NodeStatus) -> bool,
) -> anyhow::Result<Instant> {
    let deadline = Instant::now() + START_MAX;
    loop {
        let node = client.node(cluster.nodes[index].addr);
        let asked = node.status();
        let answer = tokio::time::timeout(Duration::from_millis(200), asked).await;
        if matches!(&answer, Ok(Ok(status)) if wanted(status)) {
            return Ok(Instant::now());
        }
        if Instant::now() >= deadline {
            let status = match &answer {
                Ok(Ok(status)) => format!("{status:?}"),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            bail!("node {index} is not {what} after {START_MAX:?}: {status}");
        }
        tokio::time::sleep(POLL).await;
    }
}
