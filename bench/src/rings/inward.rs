//! Sessions that come in when they are wanted, and what happens when many want one.
//!
//! Five nodes, three of which are homes of a session, on each ring. A session that has gone outward is read through a
//! node that is no home of it: that one asks a home, which asks the ring further out, writes what it finds to the homes
//! of the innermost, and answers. Then one that came in a moment ago is read in the same way, which is what a read
//! through such a node takes without all that. Nothing is read out of shared memory.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use annulus_client::{Client, CopyState, StartOptions, Table};
use anyhow::{Context, ensure};
use tokio::task::JoinSet;

use super::{Bench, counted, is_of, remote_client, start_all, until_gone};
use crate::entries::key;
use crate::process::{Cluster, RingConfig, TableConfig};
use crate::report::{Goal, Report, Unit};
use crate::sample::{Latencies, Rounds};

const NODES: usize = 5;
/// Tables that differ in where they are read: at a home, or at a majority of them.
const TABLES: [(&str, &str); 2] = [("near", "near"), ("home", "home")];
/// Between two requests: a user and no load.
const PAUSE: Duration = Duration::from_millis(1);
/// Sessions that are looked at closely before any is read: whether they have gone outward.
const LOOKED_AT: u64 = 20;
/// How many want one session at the same time, and the clients that they are of.
const READERS: usize = 1_000;
const CLIENTS: usize = 8;
/// The numbers of the sessions that so many want.
const WANTED: u64 = 1 << 32;

/// What one table's reads took.
#[derive(Default)]
struct Found {
    plain: [Rounds; 2],
    inward: [Rounds; 2],
}

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    report.progress("sessions that come in");
    let tables = TABLES.map(|(name, read)| TableConfig {
        read: Some(read),
        half_life: Some("1s"),
        ring: vec![RingConfig { name: "cold", after: "4s", memory: "16MiB".to_owned() }],
        ..TableConfig::new(name, "quorum", "16MiB".to_owned())
    });
    let cluster = bench.start(NODES, &tables)?;
    let (rounds, each, herds) = if bench.quick { (3, 100, 4) } else { (10, 300, 10) };
    bench.runtime.block_on(async {
        let client = remote_client(&cluster).await?;
        for (table, _) in TABLES {
            start_all(&client.table(table), 0..rounds * each, &StartOptions::default()).await?;
        }
        let wanted = WANTED..WANTED + 2 * herds;
        start_all(&client.table(TABLES[0].0), wanted, &StartOptions::default()).await?;
        until_gone(&client, &cluster, 2 * rounds * each + 2 * herds).await?;
        read_cold(&client, &cluster, (rounds, each), report).await?;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let client = remote_client(&cluster).await?;
            for node in &cluster.nodes {
                client.node(node.addr).ping().await?;
            }
            clients.push(client);
        }
        want_one(&clients, &cluster, herds, report).await
    })
}

/// Reads what is on the ring further out, and in turn what was until a moment ago.
async fn read_cold(
    client: &Client,
    cluster: &Cluster,
    (rounds, each): (u64, u64),
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut found = <[Found; 2]>::default();
    for round in 0..rounds {
        for ((name, _), found) in TABLES.iter().zip(&mut found) {
            let table = client.table(name);
            let numbers = round * each..(round + 1) * each;
            for number in numbers.clone().take(LOOKED_AT as usize) {
                let homes = table.explain(key(number), true).await?.homes;
                let is_away = homes.iter().all(|copy| copy.state == CopyState::Moved { ring: 1 });
                ensure!(is_away, "a session is not on the ring further out: {homes:?}");
            }
            let mut through = Vec::new();
            for number in numbers.clone() {
                through.push(away(cluster, &table, number).await?);
            }
            let [before] = counted(client, cluster, ["sessions_brought_in"]).await?;
            let (mut plain, mut inward) = (Latencies::default(), Latencies::default());
            let mut last: Option<(u64, &Table)> = None;
            for (number, through) in numbers.zip(&through) {
                inward.push(read(through, number).await?);
                tokio::time::sleep(PAUSE).await;
                if let Some((number, through)) = last {
                    plain.push(read(through, number).await?);
                    tokio::time::sleep(PAUSE).await;
                }
                last = Some((number, through));
            }
            let [after] = counted(client, cluster, ["sessions_brought_in"]).await?;
            ensure!(after - before == each, "{} of {each} sessions came in", after - before);
            for (rounds, latencies) in [(&mut found.plain, plain), (&mut found.inward, inward)] {
                let percentiles = latencies.percentiles_us([0.5, 0.99]);
                rounds.iter_mut().zip(percentiles).for_each(|(rounds, it)| rounds.push(it));
            }
        }
    }
    for ((_, read), found) in TABLES.iter().zip(&found) {
        for (at, part) in ["p50", "p99"].into_iter().enumerate() {
            let plain = format!("read through a node that is no home, read = {read:?}, {part}");
            report.row(&plain, Unit::Us, &found.plain[at]);
            let name = format!("read that brings it in, read = {read:?}, {part}");
            let goal = Goal { must: 2.0, stretch: None };
            match part {
                "p50" => report.goal(&name, Unit::Us, &found.inward[at], Some(&plain), goal),
                _ => report.row_against(&name, Unit::Us, &found.inward[at], &plain),
            }
        }
    }
    report.note(format!(
        "read that brings it in: {NODES} nodes, R = 3, W = 2 on both rings, one request at a time"
    ));
    Ok(())
}

/// A table through a node that is no home of a session.
async fn away(cluster: &Cluster, table: &Table, number: u64) -> anyhow::Result<Table> {
    let homes = table.locate(key(number)).await?.homes;
    let is_home = |addr: SocketAddr| homes.iter().any(|home| home.addr == addr);
    let mut nodes = cluster.nodes.iter().map(|node| node.addr);
    let away = nodes.find(|addr| !is_home(*addr)).context("some node is no home")?;
    Ok(table.at(away))
}

async fn read(table: &Table, number: u64) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let read = table.fetch(key(number)).await.context("a session cannot be read")?;
    let took = began.elapsed();
    ensure!(is_of(&read.session, number), "a value that was not stored");
    Ok(took)
}

/// Has many want one session that is on the ring further out, through one node and through all.
async fn want_one(
    clients: &[Client],
    cluster: &Cluster,
    herds: u64,
    report: &mut Report,
) -> anyhow::Result<()> {
    report.progress("many that want one session");
    let names = ["sessions_brought_in", "rings_asked", "requests_for_what_comes"];
    let all: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.addr).collect();
    for (place, name) in ["one node", "all nodes"].into_iter().enumerate() {
        let (mut most, mut took) = ([0; 2], Rounds::new());
        let mut waited = Rounds::new();
        for herd in 0..herds {
            let number = WANTED + place as u64 * herds + herd;
            let one = [all[herd as usize % all.len()]];
            let through = if place == 0 { &one[..] } else { &all[..] };
            let before = counted(&clients[0], cluster, names).await?;
            let began = Instant::now();
            let mut readers = JoinSet::new();
            for reader in 0..READERS {
                let table = clients[reader % clients.len()].table(TABLES[0].0);
                let table = table.at(through[reader % through.len()]);
                readers.spawn(async move { read(&table, number).await });
            }
            while let Some(done) = readers.join_next().await {
                done??;
            }
            took.push(began.elapsed().as_secs_f64() * 1e3);
            let after = counted(&clients[0], cluster, names).await?;
            let [brought, asked, came] = std::array::from_fn(|at| after[at] - before[at]);
            most = [most[0].max(brought), most[1].max(asked)];
            waited.push(came as f64);
        }
        let title = |what: &str| format!("1,000 readers through {name}: {what}");
        let [brought, asked] = most.map(|most| Rounds::from([most as f64]));
        let brought_in = title(&format!("times it was brought in, the most of {herds}"));
        match place {
            0 => {
                let goal = Goal { must: 1.0, stretch: None };
                report.goal(&brought_in, Unit::Count, &brought, None, goal);
            }
            _ => report.row(&brought_in, Unit::Count, &brought),
        }
        report.row(&title("times a ring was asked, the most"), Unit::Count, &asked);
        report.row(&title("those that waited for the first"), Unit::Count, &waited);
        report.row(&title("until all were answered"), Unit::Ms, &took);
    }
    Ok(())
}
