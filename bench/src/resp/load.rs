//! What `redis-benchmark` finds.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::{Bench, CONNECTIONS, NODE, NODES, REDIS, Subject, TABLE, VALUE_BYTES, fill, must};
use crate::process::TableConfig;
use crate::report::{Report, Unit};
use crate::sample::Rounds;

/// What the program is told to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Load {
    pub(super) command: &'static str,
    /// How many requests a connection has under way.
    pub(super) pipeline: usize,
}

/// What it found of a subject and a load, once per round.
#[derive(Default)]
struct Found {
    rates: Rounds,
    /// Processor time of the servers per request, in microseconds.
    costs: Rounds,
    /// In milliseconds.
    p99s: Rounds,
}

const LOADS: [Load; 4] = [
    Load { command: "SET", pipeline: 1 },
    Load { command: "GET", pipeline: 1 },
    Load { command: "SET", pipeline: 16 },
    Load { command: "GET", pipeline: 16 },
];
/// How many keys there are.
const KEYS: u64 = 50_000;
/// Room for so many sessions, and some more.
const MEMORY: &str = "64MiB";

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    let table = || TableConfig::new(TABLE, "quorum", MEMORY.to_owned());
    let (one, three) = (bench.cluster(1, table())?, bench.cluster(3, table())?);
    let subjects = [
        Subject::redis(REDIS, bench.redis),
        Subject::nodes(NODE, &one)?,
        Subject::nodes(NODES, &three)?,
    ];
    for subject in &subjects {
        fill(subject.addr, KEYS)?;
    }
    let rounds = if bench.quick { 1 } else { 7 };
    let mut found: BTreeMap<(Load, &str), Found> = BTreeMap::new();
    for round in 0..rounds {
        for load in LOADS {
            report.progress(&format!("round {}, {}", round + 1, load.name()));
            for subject in &subjects {
                let found = found.entry((load, subject.name)).or_default();
                load.drive(bench, subject, found)?;
            }
        }
    }
    for load in LOADS {
        for subject in &subjects {
            if let Some(found) = found.get(&(load, subject.name)) {
                load.report(subject.name, found, report);
            }
        }
    }
    report.note(format!(
        "{CONNECTIONS} connections, {VALUE_BYTES} B, {KEYS} keys at random, redis-benchmark, loopback; of three nodes the first is asked, and the processor time is that of all three, which share a core"
    ));
    Ok(())
}

impl Load {
    fn name(self) -> String {
        match self.pipeline {
            1 => self.command.to_owned(),
            pipeline => format!("{} × {pipeline}", self.command),
        }
    }

    fn requests(self, quick: bool) -> u64 {
        let requests = if self.pipeline > 1 { 300_000 } else { 60_000 };
        if quick { requests / 4 } else { requests }
    }

    /// The 99th percentile of one run, in milliseconds.
    pub(super) fn p99(self, bench: &Bench<'_>, subject: &Subject<'_>) -> anyhow::Result<f64> {
        Ok(self.run(bench, subject)?.1)
    }

    fn drive(
        self,
        bench: &Bench<'_>,
        subject: &Subject<'_>,
        found: &mut Found,
    ) -> anyhow::Result<()> {
        let (rate, p99, cost) = self.run(bench, subject)?;
        found.rates.push(rate);
        found.p99s.push(p99);
        found.costs.push(cost);
        Ok(())
    }

    /// Requests per second, the 99th percentile in milliseconds, processor time per request in microseconds.
    fn run(self, bench: &Bench<'_>, subject: &Subject<'_>) -> anyhow::Result<(f64, f64, f64)> {
        let requests = self.requests(bench.quick);
        let before = subject.processor_time()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["exec", "--core", &bench.clients.to_string(), "--", "redis-benchmark"]);
        command.args([
            "-h",
            &subject.addr.ip().to_string(),
            "-p",
            &subject.addr.port().to_string(),
        ]);
        command.args(["-c", &CONNECTIONS.to_string(), "-d", &VALUE_BYTES.to_string(), "--csv"]);
        command.args(["-r", &KEYS.to_string(), "-n", &requests.to_string()]);
        command.args(["-P", &self.pipeline.to_string(), "-t", &self.command.to_lowercase()]);
        let output = command.output().context("redis-benchmark is to be installed")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "redis-benchmark at {}: {text}{complaint}", subject.name);
        let took = subject.processor_time()?.saturating_sub(before);
        let (rate, p99) = figures(&text)?;
        Ok((rate, p99, took.as_secs_f64() * 1e6 / requests as f64))
    }

    fn report(self, subject: &str, found: &Found, report: &mut Report) {
        let rate = |who: &str| format!("{}, {who}", self.name());
        let cost = |who: &str| format!("{}, {who}: processor time", self.name());
        let p99 = |who: &str| format!("{}, {who}: p99", self.name());
        let is_get = self.command == "GET";
        let is_deep = self.pipeline > 1;
        match subject {
            REDIS => {
                report.row(&rate(REDIS), Unit::PerSecond, &found.rates);
                report.row(&cost(REDIS), Unit::Us, &found.costs);
                report.row(&p99(REDIS), Unit::Ms, &found.p99s);
            }
            NODE => {
                let least = must(if is_get && is_deep { 1.5 } else { 1.0 });
                let (name, against) = (rate(NODE), rate(REDIS));
                report.goal(&name, Unit::PerSecond, &found.rates, Some(&against), least);
                let (name, against) = (cost(NODE), cost(REDIS));
                match is_get && is_deep {
                    true => report.goal(&name, Unit::Us, &found.costs, Some(&against), must(0.6)),
                    false => report.row_against(&name, Unit::Us, &found.costs, &against),
                }
                let (name, against) = (p99(NODE), p99(REDIS));
                report.goal(&name, Unit::Ms, &found.p99s, Some(&against), must(1.0));
            }
            others => {
                report.row_against(&rate(others), Unit::PerSecond, &found.rates, &rate(REDIS));
                report.row_against(&cost(others), Unit::Us, &found.costs, &cost(REDIS));
                report.row_against(&p99(others), Unit::Ms, &found.p99s, &p99(REDIS));
            }
        }
    }
}

/// Requests per second, and the 99th percentile in milliseconds, out of what the program prints: a line of names, and
/// one of figures in quotation marks.
fn figures(csv: &str) -> anyhow::Result<(f64, f64)> {
    let Some(line) = csv.lines().nth(1) else { bail!("redis-benchmark printed {csv:?}") };
    let column = |index: usize| -> anyhow::Result<f64> {
        let figure = line.split(',').nth(index).context("redis-benchmark printed fewer figures")?;
        Ok(figure.trim_matches('"').parse()?)
    };
    Ok((column(1)?, column(6)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_percentile_are_found_by_their_columns() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\
                   \"p99_latency_ms\",\"max_latency_ms\"\n\
                   \"GET\",\"135000.00\",\"0.2\",\"0.1\",\"0.215\",\"0.3\",\"0.407\",\"0.9\"\n";
        assert_eq!(figures(csv).unwrap(), (135_000.0, 0.407));
        assert!(figures("\"test\",\"rps\"\n").is_err());
    }
}
