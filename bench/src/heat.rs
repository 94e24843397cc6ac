//! The suite `heat`: how often a cache hits that evicts the coolest, beside what others evict.
//!
//! Recorded traces and drawn ones, caches of some parts of their keys; no network, no node, no time but the number of
//! accesses. The same numbers come out of every run.

mod plot;
mod policy;
mod trace;

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use self::policy::{HALF_LIFE, Subject};
use self::trace::{RECORDED, Trace};
use crate::Options;
use crate::report::{Goal, Report, Unit};
use crate::sample::Rounds;

/// What only this suite is told.
#[derive(Args)]
pub(crate) struct HeatArgs {
    /// A directory with the recorded traces, unpacked (BENCHMARKS.md says how to get them); without it those that are
    /// drawn are measured alone [suite heat]
    #[arg(long, value_name = "DIRECTORY")]
    traces: Option<PathBuf>,
    /// Draw the hit rates into this SVG file [suite heat]
    #[arg(long, value_name = "FILE")]
    plot_heat: Option<PathBuf>,
}

/// How often each policy hit.
struct Measured {
    /// The trace and the part of its keys that fit.
    name: String,
    /// In percent, in the order of measurement.
    rates: Vec<(Subject, f64)>,
}

/// The traces that nobody recorded.
const DRAWN: [fn() -> Trace; 3] = [Trace::zipf, Trace::zipf_with_scans, Trace::shifting];
/// Caches are so many times smaller than the number of different keys.
const PARTS: [usize; 3] = [100, 20, 5];
/// Smaller caches are not measured: where 64 are looked at and 8 evicted at a time, those numbers would be all that
/// is seen.
const CAPACITY_MIN: usize = 100;
/// Half-lives, in accesses, as multiples of the capacity.
const HALF_LIVES: [u32; 3] = [HALF_LIFE, 1, 16];
/// Of each trace, for a look.
const ACCESSES_QUICK: usize = 100_000;
/// How far the best of the others may be ahead, in percentage points.
const BEHIND_MAX: f64 = 2.0;

/// Measures everything.
///
/// # Errors
/// If a trace cannot be read, or the picture not written.
pub(crate) fn run(options: Options, args: &HeatArgs, report: &mut Report) -> anyhow::Result<()> {
    report.heading("peers", PEERS);
    report.heading(
        "traces",
        &match &args.traces {
            Some(_) => format!("{} recorded ones, and three that are drawn", RECORDED.len()),
            None => "three that are drawn alone (recorded ones take part with --traces)".to_owned(),
        },
    );
    let mut all = Vec::new();
    let recorded =
        args.traces.iter().flat_map(|directory| RECORDED.iter().map(move |it| it.read(directory)));
    for trace in recorded.chain(DRAWN.into_iter().map(|draw| Ok(draw()))) {
        let trace = trace?;
        let trace = if options.quick { trace.begin(ACCESSES_QUICK) } else { trace };
        let (name, accesses, keys) = (trace.name, trace.keys.len(), trace.unique);
        report.progress(&format!("{name}: {accesses} accesses, {keys} keys"));
        all.extend(PARTS.iter().filter_map(|part| measure(&trace, *part)));
    }
    all.iter().for_each(|measured| measured.show(report));
    if let Some(path) = &args.plot_heat {
        fs::write(path, plot::svg(&all)).with_context(|| path.display().to_string())?;
    }
    for note in NOTES {
        report.note(note);
    }
    Ok(())
}

const PEERS: &str = if cfg!(feature = "peers") {
    "models of LRU, LFU, SIEVE, S3-FIFO and W-TinyLFU; moka 0.12, which is TinyLFU without a window"
} else {
    "models of LRU, LFU, SIEVE, S3-FIFO and W-TinyLFU (built without the feature \"peers\": no moka)"
};

const NOTES: [&str; 4] = [
    "parts are of the different keys that a trace has; a cache begins empty, and every access counts",
    "\"heat\" remembers nothing of what it evicted, as a table with on_full = \"evict\" does; \"outer rings\" remembers \
     the marks of nine times as many keys, as rings further out do",
    "an access is a millisecond; a half-life is 4 × the capacity in accesses where nothing else is said",
    "the best of the others is the best of all of them for this very trace and size, LRU among them",
];

/// None if so small a cache says nothing.
fn measure(trace: &Trace, part: usize) -> Option<Measured> {
    let capacity = trace.unique / part;
    if capacity < CAPACITY_MIN {
        return None;
    }
    let heat = |half_life| [false, true].map(|has_outer| Subject::Heat { half_life, has_outer });
    let subjects = Subject::PEERS.iter().copied().chain(HALF_LIVES.into_iter().flat_map(heat));
    Some(Measured {
        name: format!("{}, 1/{part}", trace.name),
        rates: subjects.map(|subject| (subject, subject.hit_rate(trace, capacity))).collect(),
    })
}

impl Measured {
    fn show(&self, report: &mut Report) {
        let name = |what: &str| format!("{}: {what}", self.name);
        for (subject, rate) in &self.rates {
            report.row(&name(&subject.name()), Unit::Percent, &Rounds::from([*rate]));
        }
        let best = self.best_of_others();
        for (subject, rate) in self.asked() {
            for (other, of_other, must) in
                [("LRU", self.rate(Subject::Lru), 0.0), ("best of the others", best, -BEHIND_MAX)]
            {
                let name = name(&format!("{} over {other}", subject.name()));
                let goal = Goal { must, stretch: None };
                report.goal(&name, Unit::Points, &Rounds::from([rate - of_other]), None, goal);
            }
        }
    }

    /// The policies of which something is asked.
    fn asked(&self) -> impl Iterator<Item = (Subject, f64)> {
        let is_asked = |subject| matches!(subject, Subject::Heat { half_life: HALF_LIFE, .. });
        self.rates.iter().copied().filter(move |(subject, _)| is_asked(*subject))
    }

    fn best_of_others(&self) -> f64 {
        let others = self.rates.iter().filter(|(subject, _)| Subject::PEERS.contains(subject));
        others.map(|(_, rate)| *rate).fold(0.0, f64::max)
    }

    fn rate(&self, of: Subject) -> f64 {
        let found = self.rates.iter().find(|(subject, _)| *subject == of);
        found.map(|(_, rate)| *rate).expect("all are measured")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_that_are_too_small_are_left_out() {
        let trace = Trace::zipf().begin(5_000);
        assert!((2_000..5_000).contains(&trace.unique));
        let names: Vec<_> =
            PARTS.iter().filter_map(|part| measure(&trace, *part)).map(|it| it.name).collect();
        assert_eq!(names, ["Zipf 0.9, 1/20", "Zipf 0.9, 1/5"]);
    }

    #[test]
    fn heat_is_no_peer_of_itself_and_only_one_half_life_is_asked_for() {
        let heat = |half_life| Subject::Heat { half_life, has_outer: false };
        let rates = vec![
            (Subject::Lru, 40.0),
            (Subject::Sieve, 45.0),
            (heat(HALF_LIFE), 44.0),
            (heat(1), 50.0),
        ];
        let measured = Measured { name: String::new(), rates };
        assert!((measured.best_of_others() - 45.0).abs() < 1e-9);
        assert!((measured.rate(Subject::Lru) - 40.0).abs() < 1e-9);
        assert_eq!(measured.asked().map(|(_, rate)| rate).collect::<Vec<_>>(), [44.0]);
    }
}
