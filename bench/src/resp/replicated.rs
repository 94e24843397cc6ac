//! Writes that others hold, too, when they are acknowledged: by a majority of three nodes, and by Redis' one replica.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Bench, CONNECTIONS, NODES, REDIS, Subject, TABLE, VALUE_BYTES, key};
use crate::process::TableConfig;
use crate::redis::RedisClient;
use crate::report::{Report, Unit};
use crate::sample::Rounds;

const KEYS: u64 = 10_000;

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    report.progress("writes that others hold, too");
    let replica = bench.redis.start_replica(bench.site, bench.servers)?;
    let cluster = bench.cluster(3, TableConfig::new(TABLE, "quorum", "32MiB".to_owned()))?;
    let subjects = [Subject::redis(REDIS, bench.redis), Subject::nodes(NODES, &cluster)?];
    let names = ["SET and WAIT 1, Redis with a replica", "SET, three nodes, W = quorum"];
    let (rounds, requests) = if bench.quick { (1, 5_000) } else { (5, 20_000) };
    let mut rates = [Rounds::new(), Rounds::new()];
    for _ in 0..rounds {
        for (subject, rates) in subjects.iter().zip(&mut rates) {
            let waits = subject.name == REDIS;
            let began = Instant::now();
            write(subject.addr, waits, requests)?;
            rates.push(requests as f64 / began.elapsed().as_secs_f64());
        }
    }
    drop(replica);
    report.row(names[0], Unit::PerSecond, &rates[0]);
    report.row_against(names[1], Unit::PerSecond, &rates[1], names[0]);
    report.note(format!("these two: {CONNECTIONS} connections of our own client, a thread each"));
    Ok(())
}

/// Writes from all connections, each one after the other.
fn write(addr: SocketAddr, waits: bool, requests: usize) -> anyhow::Result<()> {
    let each = requests / CONNECTIONS;
    std::thread::scope(|scope| {
        let write_some = |first: usize| -> anyhow::Result<()> {
            let mut client = RedisClient::at(addr)?;
            for number in 0..each {
                let number = (first * each + number) as u64 * 7_919 % KEYS;
                client.queue_set(key(number).as_bytes(), &[b'x'; VALUE_BYTES]);
                if waits {
                    client.queue_wait();
                }
                client.send()?;
                client.answer()?;
                if waits {
                    client.answer()?;
                }
            }
            Ok(())
        };
        let threads: Vec<_> =
            (0..CONNECTIONS).map(|first| scope.spawn(move || write_some(first))).collect();
        for thread in threads {
            thread.join().expect("a client does not panic")?;
        }
        Ok(())
    })
}
