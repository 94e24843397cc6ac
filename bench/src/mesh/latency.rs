//! One request after the other: how long each takes.

use std::time::Instant;

use annulus_client::{Change, Table, Value};
use anyhow::{Context, bail, ensure};

use super::{Bench, Place, SESSIONS, TRANSPORTS, Trio, remote_client};
use crate::entries::{is_value, key, shuffled, value};
use crate::redis::RedisClient;
use crate::report::{Report, Unit};
use crate::sample::{Latencies, Rounds};

/// Requests before each round that are not measured.
const WARM_UP: usize = 100;

/// Something that is asked, from one place.
struct Subject {
    name: String,
    /// The row that its figures are set beside.
    against: Option<String>,
    what: What,
    operation: Operation,
    place: Place,
    p50: Rounds,
    p99: Rounds,
}

enum What {
    Annulus(Table),
    Redis(RedisClient),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Read,
    Write,
}

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    report.progress("requests, one at a time");
    let trio = Trio::start(bench)?;
    let mut subjects = Vec::new();
    for place in Place::ALL {
        subjects.extend(redis_subjects(bench, place)?);
        subjects.extend(subjects_of(bench, &trio, place)?);
    }
    let order = shuffled(SESSIONS);
    let requests = if bench.quick { 500 } else { 3_000 };
    for round in 0..bench.rounds() {
        for subject in &mut subjects {
            bench.stand(subject.place)?;
            let numbers = order.iter().copied().cycle().skip(round * requests);
            subject.measure(bench, numbers, requests)?;
        }
    }
    for subject in &subjects {
        subject.report(report);
    }
    bench.stand(Place::Apart)
}

fn redis_subjects(bench: &Bench<'_>, place: Place) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    let Some(server) = &bench.redis else { return Ok(subjects) };
    for operation in [Operation::Read, Operation::Write] {
        let command = operation.redis_command();
        for (client, transport) in [
            (RedisClient::over_unix(server)?, "Unix socket"),
            (RedisClient::over_tcp(server)?, "TCP"),
        ] {
            let name = format!("{command}, {transport}, {}", place.name());
            subjects.push(Subject::new(name, None, What::Redis(client), operation, place));
        }
    }
    Ok(subjects)
}

fn subjects_of(bench: &Bench<'_>, trio: &Trio, place: Place) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for (cluster, table, operation, what) in [
        // Reads ask one home, whatever the table asks of writes.
        (&trio.three, "quorum", Operation::Read, "remote read"),
        (&trio.alone, "one", Operation::Write, "write, R = 1"),
        (&trio.three, "one", Operation::Write, "write, R = 3, W = one"),
        (&trio.three, "quorum", Operation::Write, "write, R = 3, W = quorum"),
    ] {
        for (via, transport, beside) in TRANSPORTS {
            let client = bench.run(remote_client(cluster, via))?;
            let name = format!("{what}, {transport}, {}", place.name());
            let against = format!("{}, {beside}, {}", operation.redis_command(), place.name());
            let asked = What::Annulus(client.table(table));
            subjects.push(Subject::new(name, Some(against), asked, operation, place));
        }
    }
    Ok(subjects)
}

impl Subject {
    fn new(
        name: String,
        against: Option<String>,
        what: What,
        operation: Operation,
        place: Place,
    ) -> Self {
        let (p50, p99) = Default::default();
        Self { name, against, what, operation, place, p50, p99 }
    }

    fn measure(
        &mut self,
        bench: &Bench<'_>,
        numbers: impl Iterator<Item = u64>,
        requests: usize,
    ) -> anyhow::Result<()> {
        let mut latencies = Latencies::default();
        let numbers = numbers.take(WARM_UP + requests).enumerate();
        let mut note = |index, began: Instant| {
            if index >= WARM_UP {
                latencies.push(began.elapsed());
            }
        };
        match &mut self.what {
            What::Annulus(table) => bench.run(async {
                for (index, number) in numbers {
                    let began = Instant::now();
                    ask(table, self.operation, number).await?;
                    note(index, began);
                }
                anyhow::Ok(())
            })?,
            What::Redis(redis) => {
                for (index, number) in numbers {
                    let began = Instant::now();
                    ask_redis(redis, self.operation, number)?;
                    note(index, began);
                }
            }
        }
        let [p50, p99] = latencies.percentiles_us([0.5, 0.99]);
        self.p50.push(p50);
        self.p99.push(p99);
        Ok(())
    }

    fn report(&self, report: &mut Report) {
        for (part, rounds) in [("p50", &self.p50), ("p99", &self.p99)] {
            let name = format!("{}, {part}", self.name);
            match &self.against {
                Some(against) => {
                    report.row_against(&name, Unit::Us, rounds, &format!("{against}, {part}"));
                }
                None => report.row(&name, Unit::Us, rounds),
            }
        }
    }
}

impl Operation {
    fn redis_command(self) -> &'static str {
        match self {
            Self::Read => "Redis GET",
            Self::Write => "Redis SET",
        }
    }
}

async fn ask(table: &Table, operation: Operation, number: u64) -> anyhow::Result<()> {
    match operation {
        Operation::Read => {
            let read = table.fetch(key(number)).await?;
            match &read.session.value {
                Value::Bytes(bytes) if is_value(bytes, number) => {}
                _ => bail!("a node gave a value that was not stored"),
            }
        }
        Operation::Write => {
            let change = Change::Value(Value::Bytes(value(number).to_vec()));
            table.update(key(number), None, change).await?;
        }
    }
    Ok(())
}

fn ask_redis(redis: &mut RedisClient, operation: Operation, number: u64) -> anyhow::Result<()> {
    match operation {
        Operation::Read => {
            let bytes = redis.get(&key(number))?.context("Redis has them all")?;
            ensure!(is_value(bytes, number), "Redis gave another value");
            Ok(())
        }
        Operation::Write => redis.set(&key(number), &value(number)),
    }
}
