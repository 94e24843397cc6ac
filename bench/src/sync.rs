//! The suite `sync`: what it costs two nodes to find out in what they differ.
//!
//! Sets of elements stand for what nodes hold, without network or node: the sketches are those that nodes keep, and
//! the questions those that they ask ([`annulus_sketch::next_step`]). Beside them models of what others do. Then a
//! real node that was away, and catches up with another one.

use std::hint::black_box;

use annulus_proto::message::SYMBOL_BYTES;
use annulus_proto::{SLOT_COUNT, Slot};
use annulus_sketch::{Sketch, Step, next_step};
use clap::Args;
use rand::rngs::StdRng;
use rand::seq::index::sample;
use rand::{RngExt, SeedableRng};
use rustix::time::{ClockId, clock_gettime};
use twox_hash::XxHash3_64;

use self::models::{merkle, ranges};
use crate::Options;
use crate::entries::{key, mixed};
use crate::machine::{self, Machine};
use crate::process::Site;
use crate::report::{Goal, Report, Unit};
use crate::sample::Rounds;

mod healing;
mod models;

const ENTRIES: [u64; 3] = [100_000, 1_000_000, 10_000_000];
const DIFFERENCES: [usize; 5] = [1, 10, 100, 1_000, 10_000];
/// As nodes have it.
const SYMBOLS: usize = 16;
/// A key that is asked for by its word.
const WORD_BYTES: usize = 8;
/// A key of the usual size and its entry's digest, in a list of a slot.
const LISTED_BYTES: usize = 1 + 32 + 9;

/// What a comparison took.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// Symbols and words both ways.
    bytes: usize,
    /// Questions that had to wait for the answer to another one, the exchange of entries not among them.
    round_trips: usize,
}

/// What only this suite is told.
#[derive(Args)]
pub(crate) struct SyncArgs {
    /// Only what real nodes take to heal [suite sync]
    #[arg(long)]
    healing_only: bool,
}

/// Measures everything.
///
/// # Errors
/// If the measuring thread cannot be pinned, and what kept a process from starting, or a request that failed.
pub(crate) fn run(
    site: &mut Site,
    machine: &Machine,
    (options, args): (Options, &SyncArgs),
    report: &mut Report,
) -> anyhow::Result<()> {
    if let Some(core) = machine.cores.first() {
        machine::pin(*core)?;
    }
    report.heading("load", &format!("{} (1, 5, 15 minutes, at the start)", machine::load()));
    if !args.healing_only {
        sketches(options, report);
    }
    report.progress("healing");
    healing::measure(site, machine, options, report)
}

fn sketches(options: Options, report: &mut Report) {
    report.heading(
        "peers",
        "models: a hash tree of 1,024 x 1,024 (Riak's shape), range-based reconciliation with 16 parts",
    );
    let rounds = if options.quick { 3 } else { 60 };
    let mut changed = Vec::new();
    for entries in ENTRIES {
        report.progress(&format!("{entries} entries"));
        let mut held = Held::new(entries);
        let equal = held.compare(&held.sketches.clone());
        let mut row = Rounds::new();
        row.push(equal.bytes as f64);
        let goal = Goal { must: 32.0, stretch: None };
        report.goal(&format!("{entries} entries, equal: sketches"), Unit::Bytes, &row, None, goal);
        for count in DIFFERENCES {
            let costs = |kind| (0..rounds).map(move |seed| (kind, seed));
            let measured: Vec<Cost> =
                costs(Kind::Changed).map(|(kind, seed)| held.cost(count, kind, seed)).collect();
            let name = |what: &str| format!("{entries} entries, {count} {what}");
            let each = each(&measured, count);
            let bytes: usize = measured.iter().map(|cost| cost.bytes).sum();
            changed.push((count, bytes as f64 / measured.len() as f64));
            let goal = Goal { must: if count == 1 { 64.0 } else { 120.0 }, stretch: None };
            report.goal(&name("changed: sketches"), Unit::Bytes, &each, None, goal);
            let trips = Rounds::from(measured.iter().map(|cost| cost.round_trips as f64));
            report.row(&name("changed, round trips: sketches"), Unit::Count, &trips);
            let measured: Vec<Cost> =
                costs(Kind::Lacking).map(|(kind, seed)| held.cost(count, kind, seed)).collect();
            report.row(&name("lacking: sketches"), Unit::Bytes, &self::each(&measured, count));
            for (model, peer) in [("hash tree (model)", true), ("ranges (model)", false)] {
                let measured: Vec<Cost> = (0..rounds.min(5))
                    .map(|seed| {
                        let keys = held.pick(count, seed);
                        if peer { merkle(&held.words, &keys) } else { ranges(&held.words, &keys) }
                    })
                    .collect();
                let each = self::each(&measured, count);
                report.row(&name(&format!("changed: {model}")), Unit::Bytes, &each);
                let trips = Rounds::from(measured.iter().map(|cost| cost.round_trips as f64));
                report.row(&name(&format!("changed, round trips: {model}")), Unit::Count, &trips);
            }
        }
    }
    for count in DIFFERENCES {
        let of_count = changed.iter().filter(|(other, _)| *other == count).map(|(_, each)| *each);
        let (most, least) =
            of_count.fold((0.0_f64, f64::MAX), |(most, least), it| (most.max(it), least.min(it)));
        let mut row = Rounds::new();
        row.push(most / least);
        let goal = Goal { must: 1.1, stretch: None };
        let name = format!("{count} changed, mean of 100,000 to 10,000,000 entries: sketches");
        report.goal(&name, Unit::Times, &row, None, goal);
    }
    report.progress("upkeep");
    upkeep(if options.quick { 3 } else { 9 }, report);
    report.note("bytes are those of each difference: symbols and the words by which entries are asked for, both ways, without frames and entries");
    report.note("changed: both have the key, in two states; lacking: one of the two has it");
    report.note("the models count hashes of 8 bytes and leaves of 64 (hash tree), fingerprints of 16 bytes with bounds of 5 and elements of 16 (ranges)");
    report.note("a round trip more fetches the entries, of all of them; times are of the measuring thread's processor");
}

/// Bytes for each difference.
fn each(costs: &[Cost], count: usize) -> Rounds {
    Rounds::from(costs.iter().map(|cost| cost.bytes as f64 / count as f64))
}

#[derive(Clone, Copy)]
enum Kind {
    Changed,
    Lacking,
}

/// What one node holds.
struct Held {
    /// The words of all keys, ascending.
    words: Vec<u64>,
    sketches: Vec<Sketch>,
}

impl Held {
    fn new(count: u64) -> Self {
        let mut sketches = vec![Sketch::new(SYMBOLS); SLOT_COUNT.into()];
        let mut words: Vec<u64> = (0..count).map(|n| mixed(2 * n) % ((1 << 61) - 1)).collect();
        words.sort_unstable();
        for word in &words {
            sketches[slot_of(*word)].change(*word, 0, state(*word));
        }
        Self { words, sketches }
    }

    fn pick(&self, count: usize, seed: u64) -> Vec<u64> {
        let mut rng = StdRng::seed_from_u64(seed);
        sample(&mut rng, self.words.len(), count).iter().map(|index| self.words[index]).collect()
    }

    /// Compares with a node that differs in so many keys.
    fn cost(&mut self, count: usize, kind: Kind, seed: u64) -> Cost {
        let keys = self.pick(count, seed);
        let mut theirs = self.sketches.clone();
        for word in &keys {
            let other = if matches!(kind, Kind::Changed) { mixed(!(*word ^ seed)) } else { 0 };
            theirs[slot_of(*word)].change(*word, state(*word), other);
        }
        let cost = self.compare(&theirs);
        black_box(&theirs);
        cost
    }

    /// What nodes do: see `node/src/core/sync.rs`.
    fn compare(&self, theirs: &[Sketch]) -> Cost {
        let mut cost = Cost { bytes: SYMBOL_BYTES, round_trips: 1 };
        let all = 0..theirs.len();
        let whole = self.difference(theirs, all.clone());
        if whole.first().is_zero() {
            return cost;
        }
        if whole.first().only().is_some() {
            // One tells the other, which asks for the entry.
            cost.bytes += 2 * WORD_BYTES;
            return cost;
        }
        let mut level = vec![(all, whole)];
        cost.bytes += Sketch::bytes(SYMBOLS);
        let mut is_listed = false;
        while !level.is_empty() {
            let mut next = Vec::new();
            for (part, difference) in level {
                match next_step(&difference, part.len()) {
                    Step::Found(words) => cost.bytes += words.len() * WORD_BYTES,
                    Step::List => {
                        for slot in part {
                            let first = self.words.partition_point(|word| slot_of(*word) < slot);
                            let rest = self.words[first..].iter();
                            let count = rest.take_while(|word| slot_of(**word) == slot).count();
                            cost.bytes += count * LISTED_BYTES + WORD_BYTES;
                        }
                        is_listed = true;
                    }
                    Step::Split(count) => {
                        let place = |index: usize| part.start + part.len() * index / count;
                        for index in 0..count {
                            let part = place(index)..place(index + 1);
                            // The last one follows from the others.
                            let is_sent = index + 1 < count || count > 1_024;
                            cost.bytes += if is_sent { 1 + Sketch::bytes(SYMBOLS) } else { 0 };
                            next.push((part.clone(), self.difference(theirs, part)));
                        }
                    }
                }
            }
            cost.round_trips += usize::from(!next.is_empty());
            level = next;
        }
        cost.round_trips += usize::from(is_listed);
        cost
    }

    fn difference(&self, theirs: &[Sketch], part: std::ops::Range<usize>) -> Sketch {
        let mut sum = Sketch::new(SYMBOLS);
        for slot in part {
            sum.merge(&self.sketches[slot]);
            sum.subtract(&theirs[slot]);
        }
        sum
    }
}

fn slot_of(word: u64) -> usize {
    (word >> 47) as usize
}

/// Never 0, as far as it is looked at.
fn state(word: u64) -> u64 {
    mixed(word) | 1
}

/// What a write costs more: an entry's state goes out of its slot's sketch and of that of the slots about it, and
/// another comes in.
fn upkeep(rounds: usize, report: &mut Report) {
    const KEYS: u64 = 1 << 18;
    /// As a node has them.
    const RUN_SLOTS: usize = 16;
    let keys: Vec<_> = (0..KEYS).map(key).collect();
    let mut sketches = vec![Sketch::new(SYMBOLS); SLOT_COUNT.into()];
    let mut sums = vec![Sketch::new(SYMBOLS); usize::from(SLOT_COUNT) / RUN_SLOTS];
    let slots: Vec<Slot> = keys.iter().map(|key| Slot::of(key)).collect();
    for (key, slot) in keys.iter().zip(&slots) {
        let index = usize::from(slot.index());
        let sum = &mut sums[index / RUN_SLOTS];
        sketches[index].change_with(sum, slot.word(key), 0, 1);
    }
    let mut order: Vec<usize> = (0..keys.len()).collect();
    let mut rng = StdRng::seed_from_u64(1);
    let [mut times, mut before] = [const { Rounds::new() }; 2];
    let mut digests = vec![0_u64; SLOT_COUNT.into()];
    for round in 0..rounds as u64 {
        for at in (1..order.len()).rev() {
            order.swap(at, rng.random_range(0..=at));
        }
        let took = cpu_ns(|| {
            for &at in &order {
                let (slot, word) = (slots[at], slots[at].word(&keys[at]));
                let before = mixed(round);
                let index = usize::from(slot.index());
                let sum = &mut sums[index / RUN_SLOTS];
                sketches[index].change_with(sum, word, before, before + 1);
            }
        });
        times.push(took / keys.len() as f64);
        let took = cpu_ns(|| {
            for &at in &order {
                let digest = &mut digests[usize::from(slots[at].index())];
                *digest ^= XxHash3_64::oneshot(&keys[at]) ^ round;
            }
        });
        before.push(took / keys.len() as f64);
    }
    black_box((&sketches, &sums, &digests));
    let goal = Goal { must: 400.0, stretch: None };
    report.goal("a write, upkeep: sketches", Unit::Ns, &times, None, goal);
    report.row("a write, upkeep: a hash and an XOR into its slot's word", Unit::Ns, &before);
}

fn cpu_ns(work: impl FnOnce()) -> f64 {
    let now = || clock_gettime(ClockId::ThreadCPUTime);
    let began = now();
    work();
    let ended = now();
    (ended.tv_sec - began.tv_sec) as f64 * 1e9 + (ended.tv_nsec - began.tv_nsec) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_costs_its_differences_and_not_what_is_held() {
        let mut held = Held::new(50_000);
        assert_eq!(held.compare(&held.sketches.clone()).bytes, SYMBOL_BYTES);
        for (count, most) in [(1, 700), (10, 3_000), (1_000, 150_000)] {
            let cost = held.cost(count, Kind::Changed, 1);
            assert!((count * WORD_BYTES..most).contains(&cost.bytes), "{count}: {cost:?}");
        }
        let cost = held.cost(1, Kind::Lacking, 1);
        assert!(cost.bytes <= 64 && cost.round_trips == 1, "{cost:?}");
    }
}
