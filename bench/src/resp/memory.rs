//! What a session takes, and a connection that is silent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, bail, ensure};

use super::{Bench, NODE, REDIS, Subject, TABLE, VALUE_BYTES, fill, key, must};
use crate::process::{Cluster, TableConfig};
use crate::redis::RedisClient;
use crate::report::{Report, Unit};
use crate::sample::Rounds;

/// As large as a session of these values is when it is begun: what users who know theirs would say.
const RECORD_BYTES: u32 = 336;
const MEMORY_MIB: u64 = 32;
/// Some fewer than Redis and nodes let in.
const IDLE: usize = 9_900;

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    sessions(bench, report)?;
    connections(bench, report)
}

/// Fills a table until it takes no more, and Redis with as many sessions.
fn sessions(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    report.progress("a table until it is full");
    let mut full = Vec::new();
    for (size, record_size) in
        [("records of their size", Some(RECORD_BYTES)), ("as it comes", None)]
    {
        let memory = format!("{MEMORY_MIB}MiB");
        let plain = TableConfig::new(TABLE, "quorum", memory);
        let table = TableConfig { record_size, ..plain };
        let cluster = bench.cluster(1, table)?;
        let entries = fill_up(Subject::nodes(NODE, &cluster)?.addr)?;
        full.push((size, entries));
    }
    let most = full.iter().map(|(_, entries)| *entries).max().unwrap_or_default();
    let mut redis = RedisClient::over_tcp(bench.redis)?;
    redis.clear()?;
    let before = redis.used_memory()?;
    fill(bench.redis.addr, most)?;
    let used = redis.used_memory()?.saturating_sub(before);
    redis.clear()?;
    let against = format!("a session, {REDIS}");
    let per_entry = |bytes: u64, entries: u64| Rounds::from([bytes as f64 / entries as f64]);
    report.row(&against, Unit::BytesPerEntry, &per_entry(used, most));
    for (size, entries) in full {
        let name = format!("a session, {NODE}, {size}");
        let figure = per_entry(MEMORY_MIB << 20, entries);
        report.goal(&name, Unit::BytesPerEntry, &figure, Some(&against), must(0.91));
    }
    report.note(format!(
        "a session: {VALUE_BYTES} B and a deadline; the whole segment, divided by the sessions that it took"
    ));
    Ok(())
}

/// How many sessions find room.
fn fill_up(addr: SocketAddr) -> anyhow::Result<u64> {
    let mut client = RedisClient::at(addr)?;
    for number in 0.. {
        if let Err(error) = client.set(key(number).as_bytes(), &[b'x'; VALUE_BYTES]) {
            ensure!(error.to_string().contains("OOM"), error);
            return Ok(number);
        }
    }
    bail!("there is no end to the numbers")
}

/// Opens connections that say nothing after a first PING.
fn connections(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    report.progress(&format!("{IDLE} connections"));
    let table = TableConfig::new(TABLE, "quorum", "8MiB".to_owned());
    let cluster: Cluster = bench.cluster(1, table)?;
    let node = &cluster.nodes[0];
    let door = node.door.context("a node has a door")?;
    let against = format!("an idle connection, {REDIS}");
    let redis = idle(bench.redis.addr, || bench.redis.private_bytes())?;
    report.row(&against, Unit::Bytes, &Rounds::from([redis]));
    let ours = Rounds::from([idle(door, || node.private_bytes())?]);
    let name = format!("an idle connection, {NODE}");
    report.goal(&name, Unit::Bytes, &ours, None, must(1.5 * 1024.0));
    report.row_against(&format!("{name}, beside"), Unit::Bytes, &ours, &against);
    report.note("an idle connection: what the server's private memory grew by, divided; none of the kernel's");
    Ok(())
}

/// What one of many takes.
fn idle(addr: SocketAddr, bytes: impl Fn() -> Option<u64>) -> anyhow::Result<f64> {
    let unknown = "the system does not say what a process takes";
    // What the first ones have it allocate belongs to no connection.
    drop(open(addr, IDLE / 100)?);
    let before = bytes().context(unknown)?;
    let open = open(addr, IDLE)?;
    let after = bytes().context(unknown)?;
    Ok(after.saturating_sub(before) as f64 / open.len() as f64)
}

fn open(addr: SocketAddr, count: usize) -> anyhow::Result<Vec<TcpStream>> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(addr)?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        ensure!(&answer == b"+PONG\r\n", "an answer to PING");
        streams.push(stream);
    }
    Ok(streams)
}
