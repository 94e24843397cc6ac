//! Many requests of one client under way at a time.

use std::sync::Arc;
use std::time::Instant;

use annulus_client::{Change, Error, Table, Value};
use tokio::task::JoinSet;

use super::{Bench, IN_FLIGHT, SESSIONS, TRANSPORTS, Trio, remote_client};
use crate::entries::{key, shuffled, value};
use crate::redis::RedisClient;
use crate::report::{Report, Unit};
use crate::sample::Rounds;

struct Subject {
    name: String,
    against: Option<String>,
    what: What,
    rates: Rounds,
}

enum What {
    Read(Table),
    Write(Table),
    RedisGet(RedisClient),
    RedisSet(RedisClient),
}

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    report.progress("requests, 64 at a time");
    let trio = Trio::start(bench)?;
    let mut subjects = redis_subjects(bench)?;
    subjects.extend(subjects_of(bench, &trio)?);
    let order = Arc::new(shuffled(SESSIONS));
    let requests = if bench.quick { 4_000 } else { 20_000 };
    for _ in 0..bench.rounds() {
        for subject in &mut subjects {
            let began = Instant::now();
            subject.run(bench, &order, requests)?;
            subject.rates.push(requests as f64 / began.elapsed().as_secs_f64());
        }
    }
    for Subject { name, against, rates, .. } in &subjects {
        match against {
            Some(against) => report.row_against(name, Unit::PerSecond, rates, against),
            None => report.row(name, Unit::PerSecond, rates),
        }
    }
    Ok(())
}

fn redis_subjects(bench: &Bench<'_>) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    let Some(server) = &bench.redis else { return Ok(subjects) };
    for (transport, open) in [
        ("Unix socket", RedisClient::over_unix as fn(&_) -> anyhow::Result<_>),
        ("TCP", RedisClient::over_tcp as fn(&_) -> anyhow::Result<_>),
    ] {
        let get = What::RedisGet(open(server)?);
        subjects.push(Subject::new(format!("Redis GET × 64, {transport}"), None, get));
        let set = What::RedisSet(open(server)?);
        subjects.push(Subject::new(format!("Redis SET × 64, {transport}"), None, set));
    }
    Ok(subjects)
}

fn subjects_of(bench: &Bench<'_>, trio: &Trio) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for (cluster, table, asked, what, peer) in [
        (&trio.three, "quorum", What::Read as fn(Table) -> What, "remote read × 64", "GET"),
        (&trio.alone, "one", What::Write, "write × 64, R = 1", "SET"),
        (&trio.three, "one", What::Write, "write × 64, R = 3, W = one", "SET"),
        (&trio.three, "quorum", What::Write, "write × 64, R = 3, W = quorum", "SET"),
    ] {
        for (via, transport, beside) in TRANSPORTS {
            let client = bench.run(remote_client(cluster, via))?;
            let name = format!("{what}, {transport}");
            let against = Some(format!("Redis {peer} × 64, {beside}"));
            subjects.push(Subject::new(name, against, asked(client.table(table))));
        }
    }
    Ok(subjects)
}

impl Subject {
    fn new(name: String, against: Option<String>, what: What) -> Self {
        Self { name, against, what, rates: Rounds::default() }
    }

    fn run(
        &mut self,
        bench: &Bench<'_>,
        order: &Arc<Vec<u64>>,
        requests: usize,
    ) -> anyhow::Result<()> {
        match &mut self.what {
            What::Read(table) => {
                let read = |table: Arc<Table>, number| async move {
                    table.fetch(key(number)).await.map(drop)
                };
                bench.run(all(table, order, requests, read))
            }
            What::Write(table) => {
                let write = |table: Arc<Table>, number| async move {
                    let change = Change::Value(Value::Bytes(value(number).to_vec()));
                    table.update(key(number), None, change).await.map(drop)
                };
                bench.run(all(table, order, requests, write))
            }
            What::RedisGet(redis) => {
                pipeline(redis, order, requests, |redis, number| redis.queue_get(&key(number)))
            }
            What::RedisSet(redis) => pipeline(redis, order, requests, |redis, number| {
                redis.queue_set(&key(number), &value(number));
            }),
        }
    }
}

/// Does as many requests as that, 64 at a time: each task begins its next when its last is answered.
async fn all<F, R>(
    table: &Table,
    order: &Arc<Vec<u64>>,
    requests: usize,
    request: F,
) -> anyhow::Result<()>
where
    F: Fn(Arc<Table>, u64) -> R + Copy + Send + 'static,
    R: Future<Output = Result<(), Error>> + Send,
{
    let table = Arc::new(table.clone());
    let mut tasks = JoinSet::new();
    for first in 0..IN_FLIGHT as usize {
        let (table, order) = (table.clone(), order.clone());
        tasks.spawn(async move {
            for index in (first..requests).step_by(IN_FLIGHT as usize) {
                request(table.clone(), order[index % order.len()]).await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}

/// The same in batches of 64, as Redis clients pipeline.
fn pipeline(
    redis: &mut RedisClient,
    order: &[u64],
    requests: usize,
    queue: impl Fn(&mut RedisClient, u64),
) -> anyhow::Result<()> {
    let numbers: Vec<u64> = order.iter().copied().cycle().take(requests).collect();
    for batch in numbers.chunks(IN_FLIGHT as usize) {
        for number in batch {
            queue(redis, *number);
        }
        redis.send()?;
        for _ in batch {
            redis.answer()?;
        }
    }
    Ok(())
}
