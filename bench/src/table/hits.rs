//! Lookups by one thread, of the table and of what a user would pick instead.

use std::collections::HashMap;

use annulus_shm::Reader;

use super::data::{Key, Requests, Sizes, UNIFORM};
use super::peers::{Boxed, Peers};
use super::subject::{
    Floor, IndexedFloor, Ours, Subject, Unlocked, batched, compare, dependent, independent,
};
use super::{Bench, Segment};
use crate::entries::{VALUE_BYTES, key, value};
use crate::report::{Goal, Report, Unit};
use crate::sample::Rounds;

/// Subjects that answer the same requests, in turn.
pub(super) struct Subjects<'a> {
    requests: &'a Requests,
    sizes: Sizes,
    measured: Vec<Measured<'a>>,
}

struct Measured<'a> {
    name: &'static str,
    run: Box<dyn FnMut(How) -> anyhow::Result<f64> + 'a>,
    /// Whether one request can depend on another.
    in_order: bool,
    independent: Rounds,
    dependent: Rounds,
}

/// How requests follow each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Not measured; every value is looked at.
    Compared,
    Independent,
    Dependent,
}

pub(super) const PAPAYA: &str = "papaya, pin per get";
pub(super) const LMDB: &str = "LMDB, transaction per get";
const FLOOR_LARGE: &str = "floor, 2 MiB pages";
const FLOOR_INDEXED: &str = "floor with an index, 2 MiB pages";
const LARGE: &str = "annulus, 2 MiB pages";
const BATCHED: &str = "annulus, 2 MiB pages, 16 at a time";
const SMALL: &str = "annulus, 4 KiB pages";

/// Measures hits and misses. Returns the figures of a lone get.
pub(super) fn measure(
    bench: &Bench<'_>,
    [large, small]: [&Segment; 2],
    peers: &Peers,
    report: &mut Report,
) -> anyhow::Result<Rounds> {
    report.progress("hits and misses");
    let map: HashMap<Key, [u8; VALUE_BYTES]> =
        (0..bench.entries).map(|number| (key(number), value(number))).collect();
    let requests = [
        Requests::uniform(bench.entries),
        Requests::zipf(bench.entries),
        Requests::hot(bench.entries),
        Requests::missing(bench.entries),
    ];
    let mut patterns = Vec::new();
    for requests in &requests {
        let mut subjects = Subjects::new(requests, Sizes::Fixed);
        if requests.present {
            subjects.add(FLOOR_LARGE, Floor::new(&large.mapping, requests));
            let indexed = IndexedFloor::new(&large.mapping, requests, bench.entries);
            subjects.add(FLOOR_INDEXED, indexed);
            subjects.add("floor, 4 KiB pages", Floor::new(&small.mapping, requests));
        }
        peers.add_to(&mut subjects, requests);
        let unlocked = Unlocked { map: &map, value: [0; VALUE_BYTES] };
        subjects.add("HashMap, no lock", unlocked);
        subjects.add(LARGE, Ours::new(&large.reader));
        subjects.add_batches(&large.reader);
        subjects.add(SMALL, Ours::new(&small.reader));
        patterns.push(subjects);
    }
    for subjects in &mut patterns {
        subjects.compare()?;
    }
    for round in 0..bench.rounds() {
        for (at, subjects) in patterns.iter_mut().enumerate() {
            subjects.measure(round, at == 0)?;
        }
    }
    let goal = |must, stretch| Goal { must, stretch };
    for (subjects, must, stretch, must_small) in [
        (&patterns[0], 0.70, Some(0.60), Some((0.80, Some(0.70)))),
        (&patterns[1], 0.72, None, None),
        (&patterns[2], 0.55, None, None),
        (&patterns[3], 0.60, None, None),
    ] {
        subjects.report(How::Independent, report, |name| match name {
            LARGE => Some((PAPAYA, goal(must, stretch))),
            BATCHED if subjects.requests.name == UNIFORM => Some((PAPAYA, goal(0.50, Some(0.40)))),
            SMALL => must_small.map(|(must, stretch)| (PAPAYA, goal(must, stretch))),
            _ => None,
        });
    }
    patterns[0].report(How::Dependent, report, |name| match name {
        LARGE => Some((PAPAYA, goal(0.70, Some(0.60)))),
        SMALL => Some((PAPAYA, goal(0.80, Some(0.70)))),
        _ => None,
    });
    patterns[0].beside(How::Dependent, LARGE, FLOOR_LARGE, goal(1.4, Some(1.25)), report);
    patterns[0].against(How::Dependent, LARGE, FLOOR_INDEXED, report);
    patterns[0].beside(How::Independent, LARGE, LMDB, goal(0.1, Some(1.0 / 12.0)), report);
    let ours = patterns[0].measured.iter().find(|measured| measured.name == LARGE);
    Ok(ours.map(|ours| ours.dependent.clone()).unwrap_or_default())
}

/// Measures values of 200 bytes to 4 KiB.
pub(super) fn measure_mixed(
    bench: &Bench<'_>,
    [large, small]: [&Segment; 2],
    report: &mut Report,
) -> anyhow::Result<()> {
    report.progress("values of different sizes");
    let requests = Requests::uniform(bench.entries).named("mixed values");
    let boxed = Boxed::fill(bench.entries);
    let mut subjects = Subjects::new(&requests, Sizes::Mixed);
    boxed.add_to(&mut subjects, &requests);
    subjects.add(LARGE, Ours::new(&large.reader));
    subjects.add(SMALL, Ours::new(&small.reader));
    subjects.compare()?;
    for round in 0..bench.rounds() {
        subjects.measure(round, true)?;
    }
    for how in [How::Independent, How::Dependent] {
        subjects.report(how, report, |name| match name {
            LARGE => Some((PAPAYA, Goal { must: 1.0, stretch: Some(0.80) })),
            SMALL => Some((PAPAYA, Goal { must: 1.0, stretch: None })),
            _ => None,
        });
    }
    Ok(())
}

impl<'a> Subjects<'a> {
    pub(super) fn new(requests: &'a Requests, sizes: Sizes) -> Self {
        Self { requests, sizes, measured: Vec::new() }
    }

    pub(super) fn add<S: Subject + 'a>(&mut self, name: &'static str, mut subject: S) {
        let (requests, sizes) = (self.requests, self.sizes);
        // A floor's answers were never stored.
        let real = !name.starts_with("floor");
        let run = move |how| match how {
            How::Compared if real => compare(&mut subject, requests, sizes).map(|()| 0.0),
            How::Compared | How::Independent => independent(&mut subject, requests),
            How::Dependent => dependent(&mut subject, requests),
        };
        self.push(name, true, Box::new(run));
    }

    fn add_batches(&mut self, reader: &'a Reader) {
        let requests = self.requests;
        self.push(BATCHED, false, Box::new(move |_| batched(reader, requests)));
    }

    fn push(
        &mut self,
        name: &'static str,
        in_order: bool,
        run: Box<dyn FnMut(How) -> anyhow::Result<f64> + 'a>,
    ) {
        let (independent, dependent) = (Rounds::default(), Rounds::default());
        self.measured.push(Measured { name, run, in_order, independent, dependent });
    }

    fn compare(&mut self) -> anyhow::Result<()> {
        for measured in &mut self.measured {
            (measured.run)(How::Compared)?;
        }
        Ok(())
    }

    /// One round of each; another one is first each time, since what was read before lies in the cache.
    fn measure(&mut self, round: usize, dependent_too: bool) -> anyhow::Result<()> {
        let count = self.measured.len();
        for turn in 0..count {
            let measured = &mut self.measured[(turn + round) % count];
            measured.independent.push((measured.run)(How::Independent)?);
            if dependent_too && measured.in_order {
                measured.dependent.push((measured.run)(How::Dependent)?);
            }
        }
        Ok(())
    }

    fn row_name(&self, how: How, subject: &str) -> String {
        let how = if how == How::Dependent { "dependent" } else { "independent" };
        format!("{}, {how}: {subject}", self.requests.name)
    }

    fn report(
        &self,
        how: How,
        report: &mut Report,
        goal: impl Fn(&str) -> Option<(&'static str, Goal)>,
    ) {
        for measured in &self.measured {
            let (name, rounds) = (self.row_name(how, measured.name), measured.rounds(how));
            match goal(measured.name) {
                Some((peer, goal)) => {
                    let peer = self.row_name(how, peer);
                    report.goal(&name, Unit::Ns, rounds, Some(&peer), goal);
                }
                None if measured.name.starts_with("annulus") => {
                    report.row_against(&name, Unit::Ns, rounds, &self.row_name(how, PAPAYA));
                }
                None => report.row(&name, Unit::Ns, rounds),
            }
        }
    }

    /// One subject again, beside something that no goal names.
    fn against(&self, how: How, subject: &str, peer: &str, report: &mut Report) {
        if let Some(measured) = self.measured.iter().find(|measured| measured.name == subject) {
            let peer = self.row_name(how, peer);
            report.row_against(&self.row_name(how, subject), Unit::Ns, measured.rounds(how), &peer);
        }
    }

    /// One subject again, beside another peer.
    fn beside(&self, how: How, subject: &str, peer: &str, goal: Goal, report: &mut Report) {
        if let Some(measured) = self.measured.iter().find(|measured| measured.name == subject) {
            let name = self.row_name(how, subject);
            let peer = self.row_name(how, peer);
            report.goal(&name, Unit::Ns, measured.rounds(how), Some(&peer), goal);
        }
    }
}

impl Measured<'_> {
    fn rounds(&self, how: How) -> &Rounds {
        if how == How::Dependent { &self.dependent } else { &self.independent }
    }
}

/// One thing measured by itself, for the plot: the lowest of some rounds.
pub(super) fn lowest_dependent(
    requests: &Requests,
    rounds: usize,
    mut subject: impl Subject,
) -> anyhow::Result<f64> {
    independent(&mut subject, requests)?;
    let mut lowest = f64::INFINITY;
    for _ in 0..rounds {
        lowest = lowest.min(dependent(&mut subject, requests)?);
    }
    Ok(lowest)
}
