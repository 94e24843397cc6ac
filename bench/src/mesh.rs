//! The suite `mesh`: what a user of a small cluster meets.
//!
//! All nodes and Redis run on one core, as if each were a host with that much to spare; the measuring
//! thread runs either on the same core, where a request costs the work it causes and nothing else,
//! or on another one, where most of the time goes into waking a core that had gone idle.

mod latency;
mod local;
mod membership;
mod memory;
mod throughput;

use std::future::Future;
use std::sync::Arc;

use annulus_client::{Client, Error, StartOptions, Table, Value, Via};
use anyhow::{Context, ensure};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::Options;
use crate::entries::{key, value};
use crate::machine::{self, Machine};
use crate::process::{Cluster, RedisServer, Site, TableConfig};
use crate::redis::RedisClient;
use crate::report::Report;

/// What the suite's parts share.
struct Bench<'a> {
    site: &'a Site,
    redis: Option<RedisServer>,
    /// Of the measuring thread alone: all of it moves with the thread.
    runtime: Runtime,
    /// The core of nodes and Redis.
    servers: usize,
    /// The core of the measuring thread when it is not on theirs.
    apart: usize,
    quick: bool,
}

/// Where the measuring thread runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Same,
    Apart,
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
    let (first, last) = (machine.cores.first(), machine.cores.last());
    let (apart, servers) = first.copied().zip(last.copied()).context("a process has a core")?;
    let redis = RedisServer::start(site, servers)?;
    report.heading(
        "placement",
        &format!(
            "nodes and Redis on core {servers}, one worker thread each; the client, one thread, on \
             core {apart} (\"apart\") or {servers} (\"same core\")"
        ),
    );
    match &redis {
        Some(redis) => report.heading("peers", &format!("Redis {}, std HashMap", redis.version)),
        None => report.note("redis-server is not installed: its rows are missing"),
    }
    report.heading("load", &format!("{} (1, 5, 15 minutes, at the start)", machine::load()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bench = Bench { site, redis, runtime, servers, apart, quick: options.quick };
    bench.stand(Place::Apart)?;
    local::measure(&bench, report)?;
    latency::measure(&bench, report)?;
    throughput::measure(&bench, report)?;
    memory::measure(&bench, report)?;
    membership::measure(&bench, report)?;
    report.note(
        "Redis SET is acknowledged by one server; its WAIT counts replicas after the fact and \
         promises nothing at failover, so no row sets it beside W = quorum",
    );
    report.note(
        "all three nodes share a core: with R = 3 a request waits for the work of all of them, which \
         three hosts would do at the same time",
    );
    Ok(())
}

impl Bench<'_> {
    /// How often each figure is measured.
    fn rounds(&self) -> usize {
        if self.quick { 3 } else { 7 }
    }

    /// Moves the measuring thread.
    fn stand(&self, place: Place) -> anyhow::Result<()> {
        machine::pin(match place {
            Place::Same => self.servers,
            Place::Apart => self.apart,
        })
    }

    fn start_cluster(&self, count: usize, tables: &[TableConfig]) -> anyhow::Result<Cluster> {
        Cluster::start(self.site, self.servers, count, tables)
    }

    fn run<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(work)
    }
}

impl Place {
    const ALL: [Self; 2] = [Self::Same, Self::Apart];

    fn name(self) -> &'static str {
        match self {
            Self::Same => "same core",
            Self::Apart => "apart",
        }
    }
}

/// How requests to nodes travel, and how those to Redis do that they are set beside: it speaks no UDP.
const TRANSPORTS: [(Via, &str, &str); 3] = [
    (Via::Local, "Unix socket", "Unix socket"),
    (Via::Tcp, "TCP", "TCP"),
    (Via::Udp, "UDP", "TCP"),
];

/// Sessions in each table of a trio, and in Redis.
const SESSIONS: u64 = 10_000;

/// Three nodes that hold everything three times, and one alone, as Redis is: each with a table whose
/// writes are acknowledged by one home and one whose writes take a majority.
struct Trio {
    three: Cluster,
    alone: Cluster,
}

impl Trio {
    /// Starts them and fills them, and Redis too.
    fn start(bench: &Bench<'_>) -> anyhow::Result<Self> {
        let start = |count| {
            let cluster = bench.start_cluster(count, &tables())?;
            bench.run(async {
                cluster.agreed().await?;
                let client = remote_client(&cluster, Via::Local).await?;
                for table in tables() {
                    let started = fill(&client.table(table.name), SESSIONS).await?;
                    ensure!(started == SESSIONS, "{started} of {SESSIONS} sessions had room");
                }
                anyhow::Ok(())
            })?;
            anyhow::Ok(cluster)
        };
        if let Some(server) = &bench.redis {
            fill_redis(&mut RedisClient::over_unix(server)?, SESSIONS)?;
        }
        Ok(Self { three: start(3)?, alone: start(1)? })
    }
}

fn tables() -> [TableConfig; 2] {
    ["one", "quorum"].map(|name| TableConfig::new(name, name, "32MiB".to_owned()))
}

/// A client that never reads shared memory: of the first node over its Unix socket, or of all nodes,
/// routing by itself.
async fn remote_client(cluster: &Cluster, via: Via) -> anyhow::Result<Client> {
    let mut builder = cluster.client().via(via).without_shared_memory();
    if via == Via::Local {
        builder = builder.local_socket(&cluster.nodes[0].socket);
    } else {
        builder = builder.seeds(cluster.nodes.iter().map(|node| node.addr.to_string()));
    }
    let client = builder.connect().await?;
    // From here on it knows where each slot lives.
    client.routes().await?;
    Ok(client)
}

/// Requests under way at a time where there is more than one.
const IN_FLIGHT: u64 = 64;

/// Starts the sessions below `count`, and returns how many had room.
pub(crate) async fn fill(table: &Table, count: u64) -> anyhow::Result<u64> {
    let table = Arc::new(table.clone());
    let mut tasks = JoinSet::new();
    for first in 0..IN_FLIGHT {
        let table = table.clone();
        tasks.spawn(async move {
            let mut started = 0;
            for number in (first..count).step_by(IN_FLIGHT as usize) {
                let bytes = Value::Bytes(value(number).to_vec());
                match table.start(key(number), bytes, StartOptions::default()).await {
                    Ok(_) => started += 1,
                    Err(Error::TableFull { .. }) => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(started)
        });
    }
    let mut started = 0;
    while let Some(task) = tasks.join_next().await {
        started += task??;
    }
    Ok(started)
}

/// Stores the same in an empty Redis.
pub(crate) fn fill_redis(redis: &mut RedisClient, count: u64) -> anyhow::Result<()> {
    redis.clear()?;
    for first in (0..count).step_by(IN_FLIGHT as usize) {
        let batch = first..count.min(first + IN_FLIGHT);
        for number in batch.clone() {
            redis.queue_set(&key(number), &value(number));
        }
        redis.send()?;
        for _ in batch {
            redis.answer()?;
        }
    }
    Ok(())
}
