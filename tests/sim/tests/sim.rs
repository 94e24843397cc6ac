//! The fixed-seed simulations, each in a process of its own: this program runs itself again.
//!
//! It takes the arguments that `cargo test` and nextest pass to a test program.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use annulus_sim::harness::{self, Done, Job};
use annulus_sim::{Mutant, SCENARIOS, Scenario};

/// Seeds that once failed. The header of each tells symptom, cause and fix.
const REGRESSIONS: &[(&str, &str, u64)] = &[
    // Symptom: a node whose wall clock jumped an hour ahead told clients that their sessions had
    // expired, and dropped what it held, for the milliseconds until it next heard of a peer.
    // Cause: that the others' clocks disagree was noticed only when one of them was heard.
    // Fix: `NodeTime::notice` compares wall and monotonic clock at every event; after a jump, what
    // is known of the others' clocks still holds and corrects this one at once.
    ("a_clock_set_an_hour_ahead_expires_nothing", "clock", 2),
    // Symptom: every session of the cluster was gone, on all nodes.
    // Cause: a node that ran an hour ahead for a moment had put a ceiling for its stamps on disk;
    // restarted, it stamped from there on. Whoever wrote after such a stamp took its hybrid clock
    // over, as it must to beat it, and by that clock everything had expired.
    // Fix: `NodeTime::now_ms`, by which things expire, is never further ahead of the wall clock than
    // the bound, wherever the stamps are; and while it joins, a node drops nothing as expired.
    ("a_stamp_from_the_future_expires_nothing", "clock", 4),
];

/// A test.
struct Test {
    name: String,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// No rule is broken.
    Holds { scenario: &'static str, seed: u64 },
    /// The checker finds what is wrong on purpose.
    Caught { mutant: &'static str, scenario: &'static str, rule: &'static str },
    /// Two processes leave the same trace, byte for byte.
    Replays { scenario: &'static str, seed: u64 },
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = harness::simulate_if_asked(&arguments) {
        return code;
    }
    let asked = Asked::parse(&arguments);
    let tests: Vec<Test> = all().into_iter().filter(|test| asked.wants(&test.name)).collect();
    if asked.list {
        // No test is ignored, so there is nothing to list of those.
        for test in tests.iter().filter(|_| !asked.ignored) {
            println!("{}: test", test.name);
        }
        return ExitCode::SUCCESS;
    }
    match run(tests) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("a simulation cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}

fn all() -> Vec<Test> {
    let mut tests = Vec::new();
    // One seed each; by the seed a simulation is sealed or not, so they take turns.
    for (scenario, seed) in SCENARIOS.iter().zip([1, 2].into_iter().cycle()) {
        let name = format!("{}::seed_{seed}", scenario.name.replace('-', "_"));
        tests.push(Test { name, kind: Kind::Holds { scenario: scenario.name, seed } });
    }
    for (name, scenario, seed) in REGRESSIONS {
        let name = format!("regression::{name}");
        tests.push(Test { name, kind: Kind::Holds { scenario, seed: *seed } });
    }
    for (_, mutant, scenario, rule) in Mutant::ALL {
        let name = format!("checker::catches_{}", mutant.replace('-', "_"));
        tests.push(Test { name, kind: Kind::Caught { mutant, scenario, rule } });
    }
    // The last one is sealed, the others are not.
    for (scenario, seed) in [("mixed", 11), ("kill-storm", 12), ("crash", 1)] {
        let drawn = Scenario::named(scenario).expect("there is such a scenario").draw(seed);
        assert_eq!(drawn.sealed, scenario == "crash", "{scenario} {seed}");
        let name = format!(
            "replay::the_same_seed_leaves_the_same_trace_of_{}",
            scenario.replace('-', "_")
        );
        tests.push(Test { name, kind: Kind::Replays { scenario, seed } });
    }
    tests
}

fn run(tests: Vec<Test>) -> io::Result<bool> {
    let began = now();
    println!("\nrunning {} simulations", tests.len());
    let (mut passed, mut failed) = (0, 0);
    // A replay is two jobs, which run beside each other.
    let (replays, mut singles): (Vec<Test>, Vec<Test>) =
        tests.into_iter().partition(|test| matches!(test.kind, Kind::Replays { .. }));
    let jobs: Vec<Job> = singles.iter().map(Test::job).collect();
    let mut count = |name: &str, verdict: Result<(), String>, took: Duration| match verdict {
        Ok(()) => {
            passed += 1;
            println!("test {name} ... ok ({took:.1?})");
        }
        Err(text) => {
            failed += 1;
            println!("test {name} ... FAILED ({took:.1?})\n{text}");
        }
    };
    harness::run_all(jobs, |done| {
        // A regression may have the seed of another test: each test is done once.
        let index = singles.iter().position(|test| test.job() == done.job);
        let test = singles.swap_remove(index.expect("what is done was asked for"));
        let verdict = match test.kind {
            Kind::Caught { rule, .. } => is_caught(&done, rule),
            _ if done.passed => Ok(()),
            _ => Err(done.text.clone()),
        };
        count(&test.name, verdict, done.took);
        true
    })?;
    for test in replays {
        let from = now();
        let verdict = leaves_one_trace(&test.job())?;
        count(&test.name, verdict, from.elapsed());
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; finished in {:.2?}\n",
        began.elapsed()
    );
    Ok(failed == 0)
}

/// The checker must find the mutant, by the rule that it breaks.
fn is_caught(done: &Done, rule: &str) -> Result<(), String> {
    let found = done.text.lines().any(|line| line.starts_with(&format!("violation {rule}: ")));
    match found && !done.passed {
        true => Ok(()),
        false => Err(format!("no {rule:?} was found:\n{}", done.text)),
    }
}

/// Runs it twice and compares the texts of the traces.
fn leaves_one_trace(job: &Job) -> io::Result<Result<(), String>> {
    let trace = |number: u32| -> PathBuf {
        let name = format!("annulus-sim-{}-{number}.trace", std::process::id());
        std::env::temp_dir().join(name)
    };
    let (first, second) = (trace(1), trace(2));
    let jobs = [&first, &second].map(|path| Job { trace: Some(path.clone()), ..job.clone() });
    let mut failures = String::new();
    harness::run_all(jobs, |done| {
        if !done.passed {
            failures.push_str(&done.text);
        }
        true
    })?;
    if !failures.is_empty() {
        return Ok(Err(failures));
    }
    let (one, other) = (std::fs::read(&first)?, std::fs::read(&second)?);
    if one == other && !one.is_empty() {
        std::fs::remove_file(&first)?;
        std::fs::remove_file(&second)?;
        return Ok(Ok(()));
    }
    let line =
        one.split(|b| *b == b'\n').zip(other.split(|b| *b == b'\n')).position(|(a, b)| a != b);
    let line = line.map_or(0, |line| line + 1);
    let (first, second) = (first.display(), second.display());
    Ok(Err(format!("they differ from line {line} on: diff {first} {second}")))
}

impl Test {
    fn job(&self) -> Job {
        match self.kind {
            Kind::Holds { scenario, seed } | Kind::Replays { scenario, seed } => {
                Job::new(scenario, seed)
            }
            Kind::Caught { mutant, scenario, .. } => {
                let seed = Mutant::named(mutant).map_or(1, Mutant::seed);
                Job { mutant: Some(mutant.to_owned()), ..Job::new(scenario, seed) }
            }
        }
    }
}

/// What the arguments ask for, as far as it matters here.
#[derive(Default)]
struct Asked {
    list: bool,
    ignored: bool,
    exact: bool,
    filters: Vec<String>,
    skip: Vec<String>,
}

impl Asked {
    fn parse(arguments: &[String]) -> Self {
        let mut asked = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--list" => asked.list = true,
                "--ignored" => asked.ignored = true,
                "--exact" => asked.exact = true,
                "--skip" => asked.skip.extend(rest.next().cloned()),
                "--format" | "--test-threads" | "--color" | "--logfile" | "--shuffle-seed"
                | "-Z" => {
                    rest.next();
                }
                option if option.starts_with('-') => {}
                filter => asked.filters.push(filter.to_owned()),
            }
        }
        asked
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |filter: &String| match self.exact {
            true => name == filter,
            false => name.contains(filter.as_str()),
        };
        let chosen = self.filters.is_empty() || self.filters.iter().any(fits);
        chosen && !self.skip.iter().any(fits) && (self.list || !self.ignored)
    }
}

#[allow(clippy::disallowed_methods, reason = "how long a test takes is real time")]
fn now() -> Instant {
    Instant::now()
}
