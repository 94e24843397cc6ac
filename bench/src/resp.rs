//! The suite `resp`: the door for clients of Redis, beside Redis.
//!
//! `redis-benchmark` is what drives both, in turn, from 50 connections with values of 256 bytes under random keys: one request
//! at a time on each connection, and sixteen. Servers are on one core and what drives them on another. A cluster of three
//! nodes, all on that one core, is asked through the first: Redis keeps one copy where it keeps three. Redis with a replica
//! that it waits for (`WAIT 1`) is the nearest to that which Redis has; `redis-benchmark` cannot do that, so a client of ours
//! drives both there.
//!
//! `cargo run --release -p annulus-bench -- resp`, with `redis-server` and `redis-benchmark` installed.

mod load;
mod memory;
mod replicated;
mod strain;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::Options;
use crate::machine::{self, Machine};
use crate::process::{Cluster, RedisServer, Site, TableConfig};
use crate::redis::RedisClient;
use crate::report::{Goal, Report};

/// What is measured, and on what.
struct Bench<'a> {
    site: &'a Site,
    redis: &'a RedisServer,
    quick: bool,
    /// The core of the servers.
    servers: usize,
    /// The core of what drives them.
    clients: usize,
}

/// Whom the load is for.
struct Subject<'a> {
    name: &'static str,
    addr: SocketAddr,
    processes: Processes<'a>,
}

/// Who works for it.
enum Processes<'a> {
    Redis(Vec<&'a RedisServer>),
    Nodes(&'a Cluster),
}

const TABLE: &str = "sessions";
/// What the other figures stand beside.
const REDIS: &str = "Redis";
const NODE: &str = "one node";
const NODES: &str = "three nodes, R = 3";
const CONNECTIONS: usize = 50;
const VALUE_BYTES: usize = 256;

/// Measures everything.
///
/// # Errors
/// If there is no Redis, or a server cannot be started or stops answering.
pub(crate) fn run(
    site: &mut Site,
    machine: &Machine,
    options: Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    site.limits.doors = true;
    let (clients, servers) = match machine.cores[..] {
        [clients, servers, ..] => (clients, servers),
        _ => (0, 0),
    };
    report.heading("placement", &format!("servers on core {servers}, clients on core {clients}"));
    report.heading("load", &format!("{} (1, 5, 15 minutes, at the start)", machine::load()));
    let redis = RedisServer::start(site, servers)?.context("no redis-server is installed")?;
    report.heading("peer", &format!("Redis {}", redis.version));
    machine::pin(clients)?;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let bench = Bench { site, redis: &redis, quick: options.quick, servers, clients };
    load::measure(&bench, report)?;
    replicated::measure(&bench, report)?;
    memory::measure(&bench, report)?;
    strain::measure(&bench, report)
}

impl Bench<'_> {
    /// Nodes with a table of so much memory, which agree.
    fn cluster(&self, count: usize, table: TableConfig) -> anyhow::Result<Cluster> {
        let cluster = Cluster::start(self.site, self.servers, count, &[table])?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(cluster.agreed())?;
        Ok(cluster)
    }
}

impl<'a> Subject<'a> {
    fn redis(name: &'static str, server: &'a RedisServer) -> Self {
        Self { name, addr: server.addr, processes: Processes::Redis(vec![server]) }
    }

    fn nodes(name: &'static str, cluster: &'a Cluster) -> anyhow::Result<Self> {
        let door = cluster.nodes.first().and_then(|node| node.door);
        let addr = door.context("a node has a door")?;
        Ok(Self { name, addr, processes: Processes::Nodes(cluster) })
    }

    /// The processor time that all of its processes have taken so far.
    fn processor_time(&self) -> anyhow::Result<Duration> {
        match &self.processes {
            Processes::Redis(servers) => servers.iter().map(|it| it.processor_time()).sum(),
            Processes::Nodes(cluster) => cluster.nodes.iter().map(|it| it.processor_time()).sum(),
        }
    }
}

/// Begins as many sessions as there are numbers below this, under the keys that `redis-benchmark` asks for.
fn fill(addr: SocketAddr, count: u64) -> anyhow::Result<()> {
    const IN_FLIGHT: u64 = 256;
    let mut client = RedisClient::at(addr)?;
    let value = [b'x'; VALUE_BYTES];
    for first in (0..count).step_by(IN_FLIGHT as usize) {
        let batch = first..count.min(first + IN_FLIGHT);
        batch.clone().for_each(|number| client.queue_set(key(number).as_bytes(), &value));
        client.send()?;
        for _ in batch {
            client.answer()?;
        }
    }
    Ok(())
}

fn key(number: u64) -> String {
    format!("key:{number:012}")
}

fn must(must: f64) -> Goal {
    Goal { must, stretch: None }
}
