//! Servers behind Unix sockets, asked one request at a time.

use std::time::Instant;

use anyhow::{Context, ensure};

use super::Bench;
use super::data::{Key, Requests};
use crate::entries::{is_value, key, value};
use crate::machine;
use crate::memcached::{MemcachedClient, MemcachedServer};
use crate::mesh::fill_redis;
use crate::process::RedisServer;
use crate::redis::RedisClient;
use crate::report::{Goal, Report, Unit};
use crate::sample::{Latencies, Rounds};

pub(super) const NAMES: [&str; 2] = ["Redis", "memcached"];

/// A connection to one of them.
enum Client {
    Redis(RedisClient),
    Memcached(MemcachedClient),
}

/// Requests of one kind, from one place.
struct Asked {
    server: &'static str,
    client: Client,
    what: What,
    same_core: bool,
    p50: Rounds,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Get,
    Set,
}

/// The row of a server's memory.
pub(super) fn memory_name(server: &str) -> String {
    format!("memory: {server}")
}

/// Measures the servers that are installed, and sets a lone get of ours beside them.
pub(super) fn measure(
    bench: &Bench<'_>,
    requests: &Requests,
    lone: &Rounds,
    report: &mut Report,
) -> anyhow::Result<()> {
    report.progress("servers");
    let redis = RedisServer::start(bench.site, bench.servers)?;
    let memcached = MemcachedServer::start(bench.site, bench.servers)?;
    let mut asked = Vec::new();
    if let Some(server) = &redis {
        report.heading("peers", &format!("Redis {}", server.version));
        let mut client = RedisClient::over_unix(server)?;
        let before = client.used_memory()?;
        fill_redis(&mut client, bench.entries)?;
        let used = client.used_memory()?.saturating_sub(before);
        report_memory("Redis", used, bench.entries, report);
        for (what, same_core) in [(What::Get, true), (What::Get, false), (What::Set, true)] {
            let client = Client::Redis(RedisClient::over_unix(server)?);
            asked.push(Asked::new("Redis", client, what, same_core));
        }
    } else {
        report.note("redis-server is not installed: its rows are missing");
    }
    if let Some(server) = &memcached {
        report.heading("peers", &format!("memcached {}", server.version));
        let before = server.private_bytes().unwrap_or(0);
        fill_memcached(&mut server.client()?, bench.entries)?;
        let used = server.private_bytes().unwrap_or(0).saturating_sub(before);
        report_memory("memcached", used, bench.entries, report);
        for same_core in [true, false] {
            let client = Client::Memcached(server.client()?);
            asked.push(Asked::new("memcached", client, What::Get, same_core));
        }
    } else {
        report.note("memcached is not installed: its rows are missing");
    }
    let count = if bench.quick { 500 } else { 3_000 };
    for round in 0..bench.rounds() {
        for asked in &mut asked {
            machine::pin(if asked.same_core { bench.servers } else { bench.apart })?;
            asked.measure(requests, round * count, count)?;
        }
    }
    machine::pin(bench.apart)?;
    for asked in &asked {
        report.row(&asked.name(), Unit::Ns, &asked.p50);
    }
    for asked in asked.iter().filter(|asked| asked.what == What::Get) {
        let name = "a lone get (uniform, dependent): annulus, 2 MiB pages";
        let stretch = (asked.server == "Redis" && !asked.same_core).then_some(0.01);
        match asked.server {
            "Redis" => {
                let goal = Goal { must: 0.04, stretch };
                report.goal(name, Unit::Ns, lone, Some(&asked.name()), goal);
            }
            _ => report.row_against(name, Unit::Ns, lone, &asked.name()),
        }
    }
    Ok(())
}

fn report_memory(server: &str, used: u64, entries: u64, report: &mut Report) {
    let mut rounds = Rounds::default();
    rounds.push(used as f64 / entries as f64);
    report.row(&memory_name(server), Unit::BytesPerEntry, &rounds);
}

fn fill_memcached(client: &mut MemcachedClient, count: u64) -> anyhow::Result<()> {
    const BATCH: u64 = 64;
    for number in 0..count {
        client.queue_set(&key(number), &value(number));
        if number % BATCH == BATCH - 1 {
            client.send()?;
        }
    }
    client.send()?;
    // Its answer comes after everything before it.
    let last = client.get(&key(count - 1))?;
    ensure!(last.is_some_and(|bytes| is_value(bytes, count - 1)), "memcached lost an entry");
    Ok(())
}

impl Asked {
    fn new(server: &'static str, client: Client, what: What, same_core: bool) -> Self {
        Self { server, client, what, same_core, p50: Rounds::default() }
    }

    fn name(&self) -> String {
        let what = if self.what == What::Get { "get" } else { "set" };
        let place = if self.same_core { "same core" } else { "other core" };
        format!("{} {what} over a Unix socket, p50, {place}", self.server)
    }

    fn measure(&mut self, requests: &Requests, first: usize, count: usize) -> anyhow::Result<()> {
        let mut latencies = Latencies::default();
        let asked = requests.keys.iter().zip(&requests.numbers).cycle();
        for (key, number) in asked.skip(first % requests.keys.len()).take(count) {
            let bytes = value(*number);
            let began = Instant::now();
            self.ask(key, *number, &bytes)?;
            latencies.push(began.elapsed());
        }
        let [p50] = latencies.percentiles_us([0.5]);
        self.p50.push(p50 * 1e3);
        Ok(())
    }

    fn ask(&mut self, key: &Key, number: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let found = match (&mut self.client, self.what) {
            (Client::Redis(client), What::Get) => client.get(key)?,
            (Client::Memcached(client), What::Get) => client.get(key)?,
            (Client::Redis(client), What::Set) => return client.set(key, bytes),
            (Client::Memcached(_), What::Set) => return Ok(()),
        };
        let found = found.context("the server has them all")?;
        ensure!(is_value(found, number), "the server gave another value");
        Ok(())
    }
}
