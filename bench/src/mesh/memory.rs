//! How many sessions a gibibyte holds.

use annulus_client::Via;
use anyhow::Context;

use super::{Bench, fill, fill_redis, remote_client};
use crate::process::TableConfig;
use crate::redis::RedisClient;
use crate::report::{Report, Unit};
use crate::sample::Rounds;

const TABLE: &str = "full";
const GIB: f64 = (1_u64 << 30) as f64;

/// Fills a table of the default record size until it takes no more, and Redis with as many.
pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    report.progress("a table until it is full");
    let memory = if bench.quick { "16MiB" } else { "64MiB" };
    let table = TableConfig::new(TABLE, "one", memory.to_owned());
    let cluster = bench.start_cluster(1, &[table])?;
    bench.run(cluster.agreed())?;
    let client = bench.run(remote_client(&cluster, Via::Local))?;
    bench.run(fill(&client.table(TABLE), u64::from(u32::MAX)))?;
    let status = bench.run(client.status())?;
    let table = status.tables.iter().find(|table| table.name == TABLE);
    let table = table.context("the node has the table")?;
    let (entries, segment) = (table.entries as f64, table.segment_bytes as f64);
    let one = |value: f64| {
        let mut rounds = Rounds::default();
        rounds.push(value);
        rounds
    };
    if let Some(server) = &bench.redis {
        let used = redis_bytes(&mut RedisClient::over_unix(server)?, table.entries)? as f64;
        report.row("Redis, memory per entry", Unit::BytesPerEntry, &one(used / entries));
        report.row("Redis, entries per GiB", Unit::EntriesPerGib, &one(GIB / (used / entries)));
    }
    let (name, against) = ("full table, memory per entry", "Redis, memory per entry");
    report.row_against(name, Unit::BytesPerEntry, &one(segment / entries), against);
    let (name, against) = ("full table, entries per GiB", "Redis, entries per GiB");
    report.row_against(name, Unit::EntriesPerGib, &one(entries * GIB / segment), against);
    report.note(format!(
        "the full table took {} entries in {memory}; the node's own memory beside the segment is not counted",
        table.entries
    ));
    Ok(())
}

fn redis_bytes(redis: &mut RedisClient, entries: u64) -> anyhow::Result<u64> {
    redis.clear()?;
    let before = redis.used_memory()?;
    fill_redis(redis, entries)?;
    let used = redis.used_memory()?.saturating_sub(before);
    redis.clear()?;
    Ok(used)
}
