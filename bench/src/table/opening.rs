//! Attaching to a table, and opening it again after its writer was killed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use annulus_shm::Shards;
use anyhow::ensure;

use super::data::{Requests, Sizes};
use super::subject::{Ours, Subject};
use super::writer::WriterProcess;
use super::{Bench, Segment};
use crate::report::{Goal, Report, Unit};
use crate::sample::Rounds;

pub(super) fn measure(
    bench: &Bench<'_>,
    mut segment: Segment,
    requests: &Requests,
    report: &mut Report,
) -> anyhow::Result<()> {
    report.progress("attaching, and opening after a kill");
    let mut attach = Rounds::default();
    for _ in 0..bench.rounds() {
        let began = Instant::now();
        let reader = Shards::attach_file(&segment.path, |_| 0)?;
        attach.push(began.elapsed().as_secs_f64() * 1e3);
        drop(reader);
    }
    let (mut open, mut served, mut refused) = (Rounds::default(), 0, 0);
    for _ in 0..bench.rounds() {
        segment.writer.kill_writing()?;
        let done = AtomicBool::new(false);
        let reads = || read_until(&done, &mut Ours::new(&segment.reader), requests);
        let (next, (hits, others)) = std::thread::scope(|scope| {
            let reading = scope.spawn(reads);
            let (site, path) = (bench.site, &segment.path);
            let next = WriterProcess::start(site, bench.servers, path, bench.entries, Sizes::Fixed);
            done.store(true, Ordering::Relaxed);
            (next, reading.join().expect("a reading thread does not panic"))
        });
        let next = next?;
        ensure!(next.opened.entries == bench.entries, "{} entries left", next.opened.entries);
        open.push(next.opened.took_ms * 1e6 / bench.entries as f64);
        served += hits;
        refused += others;
        segment.writer = next;
    }
    report.goal("attach", Unit::Ms, &attach, None, Goal { must: 1.0, stretch: None });
    let goal = Goal { must: 30.0, stretch: None };
    report.goal("opening after kill -9, per 10⁶ entries", Unit::Ms, &open, None, goal);
    report.note(format!(
        "while the killed writers' successors started and opened the table, another process's reads \
         had {served} hits and {refused} other answers"
    ));
    Ok(())
}

/// Hits and other answers.
fn read_until(done: &AtomicBool, reader: &mut Ours<'_>, requests: &Requests) -> (u64, u64) {
    let (mut hits, mut others) = (0, 0);
    for (at, key) in requests.keys.iter().enumerate().cycle() {
        if done.load(Ordering::Relaxed) {
            break;
        }
        match reader.get(at, key) {
            Some(_) => hits += 1,
            None => others += 1,
        }
    }
    (hits, others)
}
