//! The suite `restart`: how soon a node that was killed serves what its memory holds, and what it costs to
//! keep small records on disk.
//!
//! A real node with a million sessions is killed (`kill -9`) and started again, several times: alone, and as
//! one of three that hold the same. Its segment lies in shared memory, which a process's death leaves where it
//! is; everything that a node keeps in memory of its own is gone.

use std::time::{Duration, Instant};

use annulus_client::{Client, LocalGet, LocalReader, NodeStatus, Value};
use annulus_node::config::{Config, Setting, Sources};
use annulus_node::driver::{Host, KeptChange, SystemHost};
use anyhow::{Context, bail, ensure};

use crate::Options;
use crate::entries::{is_value, key, shuffled};
use crate::machine::{self, Machine};
use crate::mesh::fill;
use crate::process::{Cluster, POLL, START_MAX, Site, TableConfig};
use crate::report::{Goal, Report, Unit};
use crate::sample::Rounds;

const TABLE: &str = "sessions";
/// What a segment gets per entry: the table is some nine tenths full.
const ROOM_BYTES: u64 = 1_200;
/// How long to wait between two tries of a request that nobody answers yet.
const RETRY: Duration = Duration::from_micros(500);

/// Measures everything.
///
/// # Errors
/// If a node or a client cannot be started, or loses an entry.
pub(crate) fn run(
    site: &Site,
    machine: &Machine,
    options: Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    machine::pin_to(&machine.cores)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entries = if options.quick { 100_000 } else { 1_000_000 };
    let rounds = if options.quick { 2 } else { 5 };
    for nodes in [1, 3] {
        runtime.block_on(warm(site, machine, (nodes, entries, rounds), report))?;
    }
    runtime.block_on(keep(rounds * 4, report))?;
    report.note(
        "from before the process is started: its start and its socket are part of it. The segment is in \
         shared memory, so that no page of it has to come from a disk",
    );
    Ok(())
}

/// Kills a node and starts it again.
async fn warm(
    site: &Site,
    machine: &Machine,
    (nodes, entries, rounds): (usize, u64, usize),
    report: &mut Report,
) -> anyhow::Result<()> {
    report.progress(&format!("{nodes} node(s) with {entries} entries each"));
    let memory = format!("{}MiB", (entries * ROOM_BYTES) >> 20);
    let table = TableConfig::new(TABLE, "quorum", memory);
    let mut cluster = Cluster::start_with(site, &machine.cores, 1, nodes, &[table])?;
    cluster.agreed().await?;
    let local = cluster.client().local_socket(&cluster.nodes[0].socket);
    let local = local.without_shared_memory().timeout(Duration::from_secs(30)).connect().await?;
    let started = fill(&local.table(TABLE), entries).await?;
    ensure!(started == entries, "{started} of {entries} entries had room");
    let order = shuffled(entries);
    let (mut served, mut read, mut synced) = (Rounds::new(), Rounds::new(), Rounds::new());
    let (mut hits, mut reads, mut fetched) = (0, 0, 0);
    for round in 0..rounds {
        // Readers go on meanwhile, as long as the killed node vouched for its slots.
        let reader = reader(&local).await?;
        let name = cluster.name().to_owned();
        let node = &mut cluster.nodes[0];
        let began = node.kill_and_start()?;
        let mut from_memory = (0, 0);
        let (addr, asked) = (node.addr, order[round * 7]);
        let client = loop {
            let builder = Client::builder().cluster(&name).seed(addr.to_string());
            match builder.without_shared_memory().connect().await {
                Ok(client) => break client,
                Err(error) => ensure!(began.elapsed() < START_MAX, "no node: {error}"),
            }
            glance(&reader, &order, &mut from_memory);
            tokio::time::sleep(RETRY).await;
        };
        let sessions = client.table(TABLE).at(addr);
        loop {
            match sessions.get(key(asked)).await {
                Ok(found) => {
                    let Value::Bytes(bytes) = &found.session.value else { bail!("a map") };
                    ensure!(is_value(bytes, asked), "it serves something else");
                    break;
                }
                Err(error) => ensure!(began.elapsed() < START_MAX, "no answer: {error}"),
            }
            glance(&reader, &order, &mut from_memory);
            tokio::time::sleep(RETRY).await;
        }
        served.push(began.elapsed().as_secs_f64() * 1e3);
        let status = until(&client, began, &mut read, |status| unread(status) == 0).await?;
        ensure!(status.tables[0].entries == entries, "{} entries", status.tables[0].entries);
        let status = until(&client, began, &mut synced, is_in_sync).await?;
        fetched += counter(&status, "sync_entries_fetched");
        hits += from_memory.0;
        reads += from_memory.1;
        cluster.agreed().await?;
    }
    let what = |of: &str| format!("{of}, {nodes} node(s), {entries} entries");
    let goal = Goal { must: 1_000.0, stretch: None };
    report.goal(&what("kill -9 to the first session served"), Unit::Ms, &served, None, goal);
    report.row(&what("kill -9 to all records checked"), Unit::Ms, &read);
    report.row(&what("kill -9 to in sync with all"), Unit::Ms, &synced);
    report.note(format!(
        "{nodes} node(s): before the first answer {hits} of {reads} reads out of the killed node's memory \
         were hits; {fetched} entries were fetched from others"
    ));
    Ok(())
}

async fn reader(client: &Client) -> anyhow::Result<LocalReader> {
    let contact = client.connected().await?;
    let segment = contact.segments.first().context("the node has a segment")?;
    let reader = LocalReader::attach(&segment.path, segment.instance)?;
    let reader = reader.context("the segment is the node's")?;
    // Once it vouches for what it has.
    let deadline = Instant::now() + START_MAX;
    while !matches!(reader.get(key(1), &mut Vec::new()), LocalGet::Live(_)) {
        ensure!(Instant::now() < deadline, "the node does not vouch for its memory");
        tokio::time::sleep(POLL).await;
    }
    Ok(reader)
}

/// Reads some sessions out of shared memory: hits, and all.
fn glance(reader: &LocalReader, order: &[u64], (hits, reads): &mut (u64, u64)) {
    let mut buffer = Vec::new();
    for number in &order[..20] {
        *reads += 1;
        *hits += u64::from(matches!(reader.get(key(*number), &mut buffer), LocalGet::Live(_)));
    }
}

async fn until(
    client: &Client,
    began: Instant,
    rounds: &mut Rounds,
    is_so: impl Fn(&NodeStatus) -> bool,
) -> anyhow::Result<NodeStatus> {
    loop {
        let status = client.any_node().status().await?;
        if is_so(&status) {
            rounds.push(began.elapsed().as_secs_f64() * 1e3);
            return Ok(status);
        }
        ensure!(began.elapsed() < START_MAX, "not within {START_MAX:?}");
        tokio::time::sleep(POLL).await;
    }
}

fn counter(status: &NodeStatus, name: &str) -> u64 {
    status.counters.iter().find(|(each, _)| each == name).map_or(0, |(_, count)| *count)
}

fn unread(status: &NodeStatus) -> u64 {
    counter(status, "slots_unread")
}

fn is_in_sync(status: &NodeStatus) -> bool {
    status.tables.iter().all(|table| table.slots_home > 0 && table.slots_unsynced == 0)
}

/// Puts batches of records on disk, one after the other.
async fn keep(rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    report.progress("records on disk");
    let data = tempfile::Builder::new().prefix("annulus-bench.").tempdir()?;
    let mut sources = Sources::default();
    sources.flags.set(Setting::DataDir, data.path().display().to_string());
    let settings = Config::load(sources)?.settings();
    let host = SystemHost::open(&settings)?;
    let kept = host.open_kept();
    ensure!(kept.failed.is_none(), "the disk takes nothing: {:?}", kept.failed);
    for count in [1, 100, 3_000] {
        let mut took = Rounds::new();
        for round in 0..rounds {
            let began = Instant::now();
            host.keep(records(count, round)).await?;
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
        let what = format!("{count} record(s) of 140 bytes on disk by one commit");
        report.row(&what, Unit::Ms, &took);
    }
    drop(host);
    let host = SystemHost::open(&settings)?;
    let began = Instant::now();
    let records = host.open_kept().records.len();
    report.note(format!(
        "{records} records were read again in {:.1} ms; data_dir was {}",
        began.elapsed().as_secs_f64() * 1e3,
        data.path().display()
    ));
    Ok(())
}

/// So many records of as many slots, each with a value of its round.
fn records(count: u16, round: usize) -> Vec<KeptChange> {
    let record = |slot: u16| {
        let mut name = b"\x01\x08sessions".to_vec();
        name.extend(slot.to_be_bytes());
        name.extend([7; 28]);
        (name, Some(vec![round as u8; 100]))
    };
    (0..count).map(record).collect()
}
