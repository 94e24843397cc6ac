//! Many storms, a thread for each processor.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use super::{Kind, run};
use crate::check::Violation;
use crate::cluster::Outcome;
use crate::harness::Job;
use crate::scenario::Mutant;
use crate::trace;

/// A storm that is over.
#[derive(Clone, Debug)]
pub struct Weathered {
    /// Its seed.
    pub seed: u64,
    /// What became of it; `None` if it panicked.
    pub outcome: Option<Outcome>,
}

impl Weathered {
    /// The rules that were broken; a panic is a broken one.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        match &self.outcome {
            Some(outcome) => outcome.violations.clone(),
            None => vec![Violation { rule: "panic", what: "see above".to_owned() }],
        }
    }

    /// What was broken, and the line that shows it again.
    #[must_use]
    pub fn report(&self, kind: &Kind) -> String {
        let violations = self.violations();
        let mut shown: Vec<&Violation> = Vec::new();
        for violation in &violations {
            if shown.iter().filter(|it| it.rule == violation.rule).count() < SHOWN_MAX {
                shown.push(violation);
            }
        }
        let first = shown.into_iter().map(|it| format!("    {it}\n"));
        let replay = Job::new(kind.name, self.seed).replay();
        format!("{} {}\n{}    {replay}\n", kind.name, self.seed, first.collect::<String>())
    }
}

/// Violations of one rule that are shown.
const SHOWN_MAX: usize = 2;

/// Runs a storm in this thread, with a trace of its own.
#[must_use]
pub fn weather(kind: &Kind, seed: u64, mutant: Option<Mutant>) -> Weathered {
    trace::begin(None).expect("there is no file");
    let outcome = catch_unwind(AssertUnwindSafe(|| run(kind, seed, mutant))).ok();
    Weathered { seed, outcome }
}

/// Runs storms, as many at a time as there are processors, and hands over each that is over, in any order. Ends
/// early when `each` says so.
pub fn weather_all(
    kind: &Kind,
    seeds: impl Iterator<Item = u64> + Send,
    mutant: Option<Mutant>,
    mut each: impl FnMut(Weathered) -> bool,
) {
    let seeds = Mutex::new(seeds);
    let is_over = AtomicBool::new(false);
    let (done, all_done) = mpsc::channel();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            let (done, seeds, is_over) = (done.clone(), &seeds, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let next = seeds.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(seed) = next else { return };
                    if done.send(weather(kind, seed, mutant)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        for weathered in all_done {
            if !each(weathered) {
                is_over.store(true, Ordering::Relaxed);
            }
        }
    });
}
