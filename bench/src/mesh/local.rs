//! Reads out of the host's shared memory.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::RwLock;
use std::time::Instant;

use annulus_client::{LocalGet, LocalReader, LocalValue, Read, Source, Value};
use anyhow::{Context, bail, ensure};

use super::{Bench, Place, fill, fill_redis};
use crate::entries::{KEY_BYTES, is_value, key, shuffled, value};
use crate::process::{Cluster, TableConfig};
use crate::redis::RedisClient;
use crate::report::{Report, Unit};
use crate::sample::Rounds;

/// A table of one node, and the same entries at the peers.
struct Subjects {
    size: Size,
    order: Vec<u64>,
    keys: Vec<[u8; KEY_BYTES]>,
    reader: LocalReader,
    client: annulus_client::Client,
    map: RwLock<HashMap<Vec<u8>, Vec<u8>>>,
    times: Times,
}

#[derive(Clone, Copy)]
struct Size {
    table: &'static str,
    entries: u64,
    name: &'static str,
}

#[derive(Default)]
struct Times {
    reader: Rounds,
    client: Rounds,
    map: Rounds,
    redis: Rounds,
}

const SIZES: [Size; 2] = [
    Size { table: "small", entries: 10_000, name: "10⁴ entries" },
    Size { table: "large", entries: 100_000, name: "10⁵ entries" },
];
/// What a segment gets per entry: the table is some nine tenths full.
const ROOM_BYTES: u64 = 1_200;
/// How often Redis is asked per round.
const REDIS_READS: usize = 5_000;

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    report.progress("reads out of shared memory");
    let tables = SIZES.map(|Size { table, entries, .. }| {
        TableConfig::new(table, "one", format!("{}KiB", entries * ROOM_BYTES / 1024))
    });
    let cluster = bench.start_cluster(1, &tables)?;
    bench.run(cluster.agreed())?;
    let reads_min = if bench.quick { 200_000 } else { 1_000_000 };
    for size in SIZES {
        let mut subjects = bench.run(Subjects::prepare(&cluster, size))?;
        let mut redis = bench.redis.as_ref().map(RedisClient::over_unix).transpose()?;
        if let Some(redis) = &mut redis {
            fill_redis(redis, size.entries)?;
        }
        // A pass of each before any is measured: a mapping's pages are first touched once.
        subjects.read_map(1)?;
        subjects.read_shared(1)?;
        bench.run(subjects.get(1))?;
        subjects.times = Times::default();
        for round in 0..bench.rounds() {
            let passes = reads_min / size.entries as usize;
            bench.stand(Place::Apart)?;
            // Each comes first in turn: what was read before lies in the cache.
            for turn in round..round + 3 {
                match turn % 3 {
                    0 => subjects.read_map(passes)?,
                    1 => subjects.read_shared(passes)?,
                    _ => bench.run(subjects.get(passes))?,
                }
            }
            if let Some(redis) = &mut redis {
                bench.stand(Place::Same)?;
                subjects.read_redis(redis)?;
            }
        }
        subjects.report(report);
    }
    bench.stand(Place::Apart)
}

impl Subjects {
    async fn prepare(cluster: &Cluster, size: Size) -> anyhow::Result<Self> {
        let builder = cluster.client().local_socket(&cluster.nodes[0].socket);
        let client = builder.table(size.table).connect().await?;
        let started = fill(client.sessions(), size.entries).await?;
        ensure!(started == size.entries, "{started} of {} entries had room", size.entries);
        let reader = client.local_reader(size.table).context("no shared memory")?;
        let order = shuffled(size.entries);
        let keys = order.iter().copied().map(key).collect();
        let owned = |number| (key(number).to_vec(), value(number).to_vec());
        let map = RwLock::new((0..size.entries).map(owned).collect());
        Ok(Self { size, order, keys, reader, client, map, times: Times::default() })
    }

    fn read_shared(&mut self, passes: usize) -> anyhow::Result<()> {
        let mut buffer = Vec::new();
        let began = Instant::now();
        for _ in 0..passes {
            for (key, number) in self.keys.iter().zip(&self.order) {
                match self.reader.get(key, &mut buffer) {
                    LocalGet::Live(session) => match session.value {
                        LocalValue::Bytes(bytes) if is_value(bytes, *number) => {}
                        _ => bail!("shared memory gave a value that was not stored"),
                    },
                    other => bail!("shared memory does not know a session: {other:?}"),
                }
                black_box(&buffer);
            }
        }
        self.times.reader.push(per_read_ns(began, passes * self.keys.len()));
        Ok(())
    }

    /// As an application reads that is written with futures: the session is its own.
    async fn get(&mut self, passes: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        for _ in 0..passes {
            for (key, number) in self.keys.iter().zip(&self.order) {
                let Read { session, source } = self.client.get(key).await?;
                ensure!(source == Source::SharedMemory, "a node was asked");
                match &session.value {
                    Value::Bytes(bytes) if is_value(bytes, *number) => {}
                    _ => bail!("shared memory gave a value that was not stored"),
                }
                black_box(&session);
            }
        }
        self.times.client.push(per_read_ns(began, passes * self.keys.len()));
        Ok(())
    }

    /// Takes the lock for each read and copies the value out, as a session store would.
    fn read_map(&mut self, passes: usize) -> anyhow::Result<()> {
        let mut buffer = Vec::new();
        let began = Instant::now();
        for _ in 0..passes {
            for (key, number) in self.keys.iter().zip(&self.order) {
                buffer.clear();
                {
                    let map = self.map.read().expect("nobody panics with the lock held");
                    buffer.extend_from_slice(map.get(&key[..]).context("the map has them all")?);
                }
                ensure!(is_value(&buffer, *number), "the map gave another value");
                black_box(&buffer);
            }
        }
        self.times.map.push(per_read_ns(began, passes * self.keys.len()));
        Ok(())
    }

    fn read_redis(&mut self, redis: &mut RedisClient) -> anyhow::Result<()> {
        let began = Instant::now();
        for (key, number) in self.keys.iter().zip(&self.order).take(REDIS_READS) {
            let bytes = redis.get(key)?.context("Redis has them all")?;
            ensure!(is_value(bytes, *number), "Redis gave another value");
        }
        self.times.redis.push(per_read_ns(began, REDIS_READS.min(self.keys.len())));
        Ok(())
    }

    fn report(&self, report: &mut Report) {
        let of = |what: &str| format!("{what}, {}", self.size.name);
        let redis = of("Redis GET, Unix socket, same core");
        let map = of("HashMap behind RwLock");
        let local = of("local read");
        report.row(&redis, Unit::Ns, &self.times.redis);
        report.row(&map, Unit::Ns, &self.times.map);
        report.row_against(&local, Unit::Ns, &self.times.reader, &map);
        report.row_against(
            &of("local read through Client::get"),
            Unit::Ns,
            &self.times.client,
            &map,
        );
        report.row_against(&of("local read, beside Redis"), Unit::Ns, &self.times.reader, &redis);
    }
}

fn per_read_ns(began: Instant, reads: usize) -> f64 {
    began.elapsed().as_secs_f64() * 1e9 / reads as f64
}
