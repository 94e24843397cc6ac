//! Reads out of shared memory, with their uses counted and without.
//!
//! One node, two tables of the same sessions, one of them with a ring further out that nothing goes to meanwhile. A
//! client with a lane notes one hit in eight, for the node to count; one without notes nothing. One thread reads, apart
//! from the node, which counts meanwhile.

use std::hint::black_box;
use std::time::{Duration, Instant};

use annulus_client::{Client, LocalGet, LocalReader, LocalValue, StartOptions};
use anyhow::{Context, bail, ensure};

use super::{Bench, POLL, ROOM_BYTES, counted, start_all};
use crate::entries::{KEY_BYTES, hot, is_value, key, shuffled};
use crate::machine;
use crate::process::{Cluster, RingConfig, TableConfig};
use crate::report::{Goal, Report, Unit};
use crate::sample::Rounds;

const WITHOUT: &str = "plain";
const WITH: &str = "ringed";
/// Keys that "1,000 hot sessions" means.
const HOT: usize = 1_000;

/// How long the node may take to count what was noted.
const NOTED_MAX: Duration = Duration::from_secs(5);

/// Who reads.
struct Subject {
    name: &'static str,
    reader: LocalReader,
    took: Rounds,
}

/// What is asked for, in this order.
struct Requests {
    name: &'static str,
    numbers: Vec<u64>,
    keys: Vec<[u8; KEY_BYTES]>,
}

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    report.progress("reads out of shared memory");
    let cores = &bench.machine.cores;
    let (apart, node) = cores.first().zip(cores.last()).context("a process has a core")?;
    machine::pin(*apart)?;
    let sessions = if bench.quick { 20_000 } else { 100_000 };
    let memory = format!("{}KiB", sessions * ROOM_BYTES / 1024);
    let ring = RingConfig { name: "cold", after: "1h", memory: "8MiB".to_owned() };
    let plain = TableConfig::new(WITHOUT, "one", memory);
    let tables = [plain.clone(), TableConfig { name: WITH, ring: vec![ring], ..plain }];
    let cluster = Cluster::start(bench.site, *node, 1, &tables)?;
    bench.runtime.block_on(cluster.agreed())?;
    let builder = || cluster.client().local_socket(&cluster.nodes[0].socket);
    let (counting, silent) = bench.runtime.block_on(async {
        let counting = builder().connect().await.context("the node does not answer")?;
        let silent = builder().without_lane().connect().await?;
        for table in [WITHOUT, WITH] {
            start_all(&counting.table(table), 0..sessions, &StartOptions::default()).await?;
        }
        anyhow::Ok((counting, silent))
    })?;
    let uniform = Requests::of("uniform", shuffled(sessions));
    let hot = Requests::of("1,000 hot sessions", hot(sessions, HOT, sessions));
    let rounds = if bench.quick { 3 } else { 15 };
    for requests in [uniform, hot] {
        let subject = |name, client: &Client, table| {
            let reader = client.local_reader(table).context("no shared memory")?;
            anyhow::Ok(Subject { name, reader, took: Rounds::new() })
        };
        let mut subjects = [
            subject("read, nothing counted, no ring further out", &silent, WITHOUT)?,
            subject("read, nothing counted, a ring further out", &silent, WITH)?,
            subject("read, uses counted, a ring further out", &counting, WITH)?,
        ];
        // A pass of each that is not measured: a mapping's pages are first touched once.
        for subject in &subjects {
            requests.pass(&subject.reader)?;
        }
        let noted = || counted(&counting, &cluster, ["uses_noted"]);
        let [before] = bench.runtime.block_on(noted())?;
        for round in 0..rounds {
            // Each comes first in turn: what was read before lies in the cache.
            for turn in round..round + subjects.len() {
                let subject = &mut subjects[turn % 3];
                subject.took.push(requests.pass(&subject.reader)?);
            }
        }
        bench.runtime.block_on(async {
            let began = Instant::now();
            while noted().await? == [before] {
                ensure!(began.elapsed() < NOTED_MAX, "no use was counted");
                tokio::time::sleep(POLL).await;
            }
            anyhow::Ok(())
        })?;
        let title = |name| format!("{name}, {}", requests.name);
        let [plain, uncounted, counted] = &subjects;
        report.row(&title(plain.name), Unit::Ns, &plain.took);
        report.row_against(&title(uncounted.name), Unit::Ns, &uncounted.took, &title(plain.name));
        let goal = Goal { must: 1.1, stretch: None };
        for against in [uncounted, plain] {
            let against = title(against.name);
            report.goal(&title(counted.name), Unit::Ns, &counted.took, Some(&against), goal);
        }
    }
    report.note(format!(
        "reads: {sessions} sessions of 256 bytes, each with its value looked at; the node is on core {node}, the \
         reader on core {apart}"
    ));
    Ok(())
}

impl Requests {
    fn of(name: &'static str, numbers: Vec<u64>) -> Self {
        let keys = numbers.iter().copied().map(key).collect();
        Self { name, numbers, keys }
    }

    /// Nanoseconds per read.
    fn pass(&self, reader: &LocalReader) -> anyhow::Result<f64> {
        const PASSES: usize = 3;
        let mut buffer = Vec::new();
        let began = Instant::now();
        for _ in 0..PASSES {
            for (key, number) in self.keys.iter().zip(&self.numbers) {
                match reader.get(key, &mut buffer) {
                    LocalGet::Live(session) => match session.value {
                        LocalValue::Bytes(bytes) if is_value(bytes, *number) => {}
                        _ => bail!("shared memory gave a value that was not stored"),
                    },
                    other => bail!("shared memory does not know a session: {other:?}"),
                }
                black_box(&buffer);
            }
        }
        Ok(began.elapsed().as_secs_f64() * 1e9 / (PASSES * self.keys.len()) as f64)
    }
}
