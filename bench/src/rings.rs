//! The suite `rings`: what it costs that sessions lie on rings, what it costs those that went outward, and how a user's
//! sessions are ended wherever they are.
//!
//! Each part starts nodes of its own; what is compared is measured in turn, and beside what a user would have without
//! rings: the same read, the same request, the same writes. Whether sessions really went outward, or came in, is counted
//! by the nodes, and a round in which they did not is an error and no figure.

mod cooling;
mod full;
mod inward;
mod owners;
mod reads;

use std::ops::Range;
use std::time::{Duration, Instant};

use annulus_client::{Client, NodeStatus, Session, StartOptions, Table, Value};
use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::Options;
use crate::entries::{is_value, key, value};
use crate::machine::{self, Machine};
use crate::process::{Cluster, Site};
use crate::report::Report;

/// What only this suite is told.
#[derive(Args)]
pub(crate) struct RingsArgs {
    /// Sessions that go outward while others are used, 10000 for each pair of figures; 1000000 take twenty minutes
    /// [suite rings; default: 100000, with --quick 20000]
    #[arg(long, value_name = "SESSIONS")]
    cooling: Option<u64>,
    /// Nodes that they do so on [suite rings]
    #[arg(long, value_name = "NODES", default_value_t = 3)]
    cooling_nodes: u8,
    /// Sessions of one owner [suite rings; default: 100000, with --quick 10000]
    #[arg(long, value_name = "SESSIONS")]
    owned: Option<u64>,
    /// Measure this part alone; may be repeated [suite rings]
    #[arg(long, value_name = "PART")]
    part: Vec<Part>,
}

/// What is measured, each with nodes of its own.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Reads out of shared memory, with their uses counted
    Reads,
    /// Sessions that come in when they are wanted, and many that want one
    Inward,
    /// Ten times as many sessions as the innermost ring holds
    Full,
    /// Sessions that go outward while others are used
    Cooling,
    /// All sessions of an owner
    Owners,
}

/// What the suite's parts share.
struct Bench<'a> {
    site: &'a Site,
    machine: &'a Machine,
    runtime: Runtime,
    quick: bool,
}

/// Requests under way while sessions are made, or read for their values.
const IN_FLIGHT: u64 = 64;
/// What a segment gets for each session of 256 bytes: it is some nine tenths full.
const ROOM_BYTES: u64 = 1_200;
/// How long sessions may take to go outward beyond what they are to take.
const GONE_MAX: Duration = Duration::from_secs(60);
/// How often it is looked whether they have.
const POLL: Duration = Duration::from_millis(50);

/// Measures everything.
///
/// # Errors
/// If a node or a client cannot be started, a request fails, or sessions are not where they should be.
pub(crate) fn run(
    site: &Site,
    machine: &Machine,
    (options, args): (Options, &RingsArgs),
    report: &mut Report,
) -> anyhow::Result<()> {
    report.heading("load", &format!("{} (1, 5, 15 minutes, at the start)", machine::load()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bench = Bench { site, machine, runtime, quick: options.quick };
    let measures = |part| args.part.is_empty() || args.part.contains(&part);
    if measures(Part::Reads) {
        reads::measure(&bench, report)?;
    }
    machine::pin_to(&machine.cores)?;
    if measures(Part::Inward) {
        inward::measure(&bench, report)?;
    }
    if measures(Part::Full) {
        full::measure(&bench, report)?;
    }
    if measures(Part::Cooling) {
        let sessions = args.cooling.unwrap_or(if options.quick { 20_000 } else { 100_000 });
        cooling::measure(&bench, (sessions, args.cooling_nodes.into()), report)?;
    }
    if measures(Part::Owners) {
        let sessions = args.owned.unwrap_or(if options.quick { 10_000 } else { 100_000 });
        owners::measure(&bench, sessions, report)?;
    }
    report.note(format!(
        "but for reads out of shared memory all nodes and the client share {} processors, so that what one does is \
         waited for by all",
        machine.cores.len()
    ));
    Ok(())
}

impl Bench<'_> {
    /// Starts nodes of one core each on all processors, and waits until they agree.
    fn start(
        &self,
        count: usize,
        tables: &[crate::process::TableConfig],
    ) -> anyhow::Result<Cluster> {
        let cores = &self.machine.cores;
        let cluster = Cluster::start_with(self.site, cores, 1, count, tables)?;
        self.runtime.block_on(cluster.agreed())?;
        Ok(cluster)
    }
}

/// A client that reads no shared memory and knows the homes of all slots.
async fn remote_client(cluster: &Cluster) -> anyhow::Result<Client> {
    let seeds = cluster.nodes.iter().map(|node| node.addr.to_string());
    let client = cluster.client().seeds(seeds).without_shared_memory();
    let client = client.connect().await.context("no node answers")?;
    client.routes().await?;
    Ok(client)
}

/// Starts the sessions of these numbers.
async fn start_all(
    table: &Table,
    numbers: Range<u64>,
    options: &StartOptions,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for first in 0..IN_FLIGHT {
        let (table, numbers, options) = (table.clone(), numbers.clone(), options.clone());
        tasks.spawn(async move {
            for number in numbers.skip(first as usize).step_by(IN_FLIGHT as usize) {
                let bytes = Value::Bytes(value(number).to_vec());
                table.start(key(number), bytes, options.clone()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done?.context("a session did not start")?;
    }
    Ok(())
}

/// Whether a session is the one of this number.
fn is_of(session: &Session, number: u64) -> bool {
    matches!(&session.value, Value::Bytes(bytes) if is_value(bytes, number))
}

/// Counters of all nodes together.
async fn counted<const N: usize>(
    client: &Client,
    cluster: &Cluster,
    names: [&str; N],
) -> anyhow::Result<[u64; N]> {
    let mut counts = [0; N];
    for node in &cluster.nodes {
        let status = client.node(node.addr).status().await?;
        for (count, name) in counts.iter_mut().zip(names) {
            *count += counter(&status, name);
        }
    }
    Ok(counts)
}

fn counter(status: &NodeStatus, name: &str) -> u64 {
    status.counters.iter().find(|(each, _)| each == name).map_or(0, |(_, count)| *count)
}

/// Waits until so many sessions have gone outward since the nodes started.
async fn until_gone(client: &Client, cluster: &Cluster, sessions: u64) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let [gone] = counted(client, cluster, ["sessions_cooled"]).await?;
        if gone >= sessions {
            return Ok(());
        }
        ensure!(began.elapsed() < GONE_MAX, "{gone} of {sessions} sessions have gone outward");
        tokio::time::sleep(POLL).await;
    }
}

/// The processor time that all nodes have taken so far.
fn processor_time(cluster: &Cluster) -> anyhow::Result<Duration> {
    cluster.nodes.iter().map(crate::process::Node::processor_time).sum()
}
