//! Replays a simulation from its seed, or searches many seeds for one that fails.

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use annulus_sim::harness::{self, Job};
use annulus_sim::plain::{self, KINDS, Kind};
use annulus_sim::{Mutant, SCENARIOS, Scenario};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Deterministic simulations of Annulus")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one simulation again
    Replay {
        /// The scenario
        scenario: String,
        /// The seed
        seed: u64,
        /// Write the trace here, line by line
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Do something wrong on purpose
        #[arg(long)]
        mutant: Option<String>,
    },
    /// Run many seeds and print those that fail
    Search {
        /// How many seeds of each scenario
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first seed
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// This scenario and no other
        #[arg(long)]
        scenario: Option<String>,
        /// Stop after so many minutes
        #[arg(long)]
        minutes: Option<u64>,
    },
    /// Run many storms, which take no tokio and a tenth of the time, and print those that fail
    Storms {
        /// How many seeds
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
        /// The first seed
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// The kind of storm
        #[arg(long, default_value = "storm")]
        kind: String,
        /// Do something wrong on purpose
        #[arg(long)]
        mutant: Option<String>,
        /// Stop at the first seed that breaks this rule
        #[arg(long)]
        until: Option<String>,
        /// Stop after so many minutes
        #[arg(long)]
        minutes: Option<u64>,
    },
    /// Name the scenarios and the mutants
    List,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = harness::simulate_if_asked(&arguments) {
        return code;
    }
    match Arguments::parse().command {
        Command::Replay { scenario, seed, trace, mutant } => {
            harness::simulate(&Job { scenario, seed, mutant, trace })
        }
        Command::Search { seeds, from, scenario, minutes } => {
            if let Some(name) = &scenario
                && Scenario::named(name).is_none()
            {
                eprintln!("there is no scenario {name:?}; `annulus-sim list` names them");
                return ExitCode::FAILURE;
            }
            search(seeds, from, scenario.as_deref(), minutes)
        }
        Command::Storms { seeds, from, kind, mutant, until, minutes } => {
            let Some(kind) = Kind::named(&kind) else {
                eprintln!("there is no such storm; `annulus-sim list` names them");
                return ExitCode::FAILURE;
            };
            let mutant = match mutant.as_deref().map(Mutant::named) {
                Some(None) => {
                    eprintln!("there is no such mutant");
                    return ExitCode::FAILURE;
                }
                mutant => mutant.flatten(),
            };
            storms(kind, from..from.saturating_add(seeds), mutant, until.as_deref(), minutes)
        }
        Command::List => {
            for scenario in SCENARIOS {
                println!("{:16} {}", scenario.name, scenario.about);
            }
            for kind in KINDS {
                println!("{:16} {}", kind.name, kind.about);
            }
            for (_, name, scenario, rule) in Mutant::ALL {
                println!("mutant {name:23} breaks {rule:?} in {scenario}");
            }
            for (_, name, kind, rule, seed) in Mutant::IN_STORMS {
                println!("mutant {name:23} breaks {rule:?} in {kind}, with seed {seed}");
            }
            ExitCode::SUCCESS
        }
    }
}

fn storms(
    kind: &Kind,
    seeds: Range<u64>,
    mutant: Option<Mutant>,
    rule: Option<&str>,
    minutes: Option<u64>,
) -> ExitCode {
    #[allow(clippy::disallowed_methods, reason = "how long the search takes is real time")]
    let began = Instant::now();
    let until = minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let (mut passed, mut failed) = (0_u64, 0_u64);
    let mut simulated = Duration::ZERO;
    plain::weather_all(kind, seeds, mutant, |weathered| {
        simulated += weathered.outcome.as_ref().map_or(Duration::ZERO, |it| it.simulated);
        if weathered.violations().is_empty() {
            passed += 1;
        } else {
            failed += 1;
            print!("{}", weathered.report(kind));
        }
        let is_found = weathered.violations().iter().any(|it| Some(it.rule) == rule);
        until.is_none_or(|until| began.elapsed() < until) && !is_found
    });
    let took = began.elapsed();
    let per_hour = (passed + failed) as f64 * 3_600.0 / took.as_secs_f64();
    println!(
        "{passed} passed, {failed} failed in {took:.0?}: {per_hour:.0} an hour, {:.0} s simulated \
         each",
        simulated.as_secs_f64() / (passed + failed).max(1) as f64
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn search(seeds: u64, from: u64, scenario: Option<&str>, minutes: Option<u64>) -> ExitCode {
    #[allow(clippy::disallowed_methods, reason = "how long the search takes is real time")]
    let began = Instant::now();
    let until = minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let names: Vec<&str> = SCENARIOS
        .iter()
        .map(|scenario| scenario.name)
        .filter(|name| scenario.is_none_or(|only| only == *name))
        .collect();
    let seeds = from..from.saturating_add(seeds);
    let jobs = seeds.flat_map(|seed| names.iter().map(move |name| Job::new(name, seed)));
    let (mut passed, mut failed) = (0_u64, 0_u64);
    let searched = harness::run_all(jobs, |done| {
        if done.passed {
            passed += 1;
        } else {
            failed += 1;
            let what: Vec<&str> =
                done.text.lines().filter(|line| line.starts_with("violation ")).collect();
            println!("{} {}", done.job.scenario, done.job.seed);
            what.iter().take(4).for_each(|line| println!("    {line}"));
            println!("    {}", done.job.replay());
        }
        until.is_none_or(|until| began.elapsed() < until)
    });
    if let Err(error) = searched {
        eprintln!("a simulation cannot be started: {error}");
        return ExitCode::FAILURE;
    }
    println!("{passed} passed, {failed} failed in {:.0?}", began.elapsed());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
