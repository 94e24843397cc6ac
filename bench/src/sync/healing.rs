//! A node that was away, while others wrote: real processes on loopback.

use std::time::{Duration, Instant};

use annulus_client::Client;
use annulus_proto::Status;
use annulus_proto::message::NodeStatus;
use anyhow::{Context, ensure};

use crate::Options;
use crate::machine::Machine;
use crate::mesh::fill;
use crate::process::{Cluster, POLL, START_MAX, Site, TableConfig};
use crate::report::{Goal, Report, Unit};
use crate::sample::Rounds;

/// Sessions that are written anew while one of the two nodes is away.
const WRITTEN: u64 = 10_000;

/// How long a restarted node takes until it serves, and until it has what it missed.
///
/// # Errors
/// What kept a process from starting, or a request that failed.
pub(super) fn measure(
    site: &Site,
    machine: &Machine,
    options: Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let processor = machine.cores.last().copied().context("a process has a core")?;
    let (entries, rounds) = if options.quick { (100_000, 1) } else { (1_000_000, 5) };
    let memory = format!("{}MiB", 64 + entries / 1_000);
    let tables = [TableConfig { name: "sessions", write: "one", memory }];
    let mut cluster = Cluster::start(site, processor, 2, &tables)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let [mut serving, mut healed] = [const { Rounds::new() }; 2];
    runtime.block_on(async {
        cluster.agreed().await?;
        let client = cluster.client().local_socket(&cluster.nodes[0].socket);
        let client = client.without_shared_memory().connect().await?;
        let table = client.table("sessions");
        ensure!(fill(&table, entries).await? == entries, "not all sessions had room");
        for _ in 0..rounds {
            cluster.nodes[1].kill()?;
            let alone = |status: &NodeStatus| status.active_members == 1;
            until(&client, &cluster, 0, alone).await?;
            ensure!(fill(&table, WRITTEN).await? == WRITTEN, "not all writes were done");
            let began = Instant::now();
            cluster.restart(1)?;
            let is_up = |status: &NodeStatus| status.member.status == Status::Up;
            let up = until(&client, &cluster, 1, is_up).await?;
            serving.push((up - began).as_secs_f64() * 1e3);
            // It may know of the other before its slots do: nothing seems to be missing until then.
            let has_fetched =
                |(name, count): &(String, u64)| name == "sync_entries_fetched" && *count >= WRITTEN;
            let is_synced = |status: &NodeStatus| {
                status.counters.iter().any(has_fetched)
                    && status.tables.iter().all(|table| table.slots_unsynced == 0)
            };
            let synced = until(&client, &cluster, 1, is_synced).await?;
            healed.push((synced - up).as_secs_f64() * 1e3);
        }
        anyhow::Ok(())
    })?;
    let goal = Goal { must: 1_000.0, stretch: None };
    let name = format!("a node of {entries} entries, killed and started again: up");
    report.goal(&name, Unit::Ms, &serving, None, goal);
    let name = format!("then {WRITTEN} of them written meanwhile: in sync");
    report.goal(&name, Unit::Ms, &healed, None, goal);
    Ok(())
}

/// Asks a node for its status until it is as wanted; returns when it was.
async fn until(
    client: &Client,
    cluster: &Cluster,
    index: usize,
    wanted: impl Fn(&NodeStatus) -> bool,
) -> anyhow::Result<Instant> {
    let deadline = Instant::now() + START_MAX;
    loop {
        let node = client.node(cluster.nodes[index].addr);
        let asked = node.status();
        if let Ok(Ok(status)) = tokio::time::timeout(Duration::from_millis(200), asked).await
            && wanted(&status)
        {
            return Ok(Instant::now());
        }
        ensure!(Instant::now() < deadline, "a node is not as it should be");
        tokio::time::sleep(POLL).await;
    }
}
