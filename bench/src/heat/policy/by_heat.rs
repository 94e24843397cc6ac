//! Heat, as nodes keep it, and the coolest of a sample goes.
//!
//! What is counted in marks is [`HalfLife`]'s, and who goes is chosen as nodes choose (`node/src/core/evict.rs`); the table is a
//! model. Each access is a use and a touch, a millisecond after the one before.

use std::time::Duration;

use annulus_proto::{Dither, HalfLife, record};

use super::Policy;
use super::list::List;
use crate::entries::mixed;

pub(super) struct ByHeat {
    half_life: HalfLife,
    dither: Dither,
    now_ms: u64,
    table: Table,
    /// Of keys that are in the table or remembered.
    marks: Vec<u64>,
    /// Keys that were evicted and whose marks are known nevertheless, the last one first.
    remembered: List,
    remembered_max: usize,
}

/// The keys that are held, in lines: a key's line follows from its hash, so that any run of lines is a random sample.
struct Table {
    lines: Vec<Vec<u32>>,
    is_held: Vec<bool>,
    held: usize,
    capacity: usize,
    /// The line that the next sample begins with.
    hand: usize,
}

/// As nodes have them.
const SAMPLE: usize = 64;
const BATCH: usize = 8;
const COOLEST_PART: usize = 4;
/// Records that a line of a segment has.
const LINE: usize = 28;
/// Of what was evicted marks are remembered for so many times the table: with as many outer rings as hold nine tenths
/// of all.
const OUTER: usize = 9;
/// When the first access is, in hybrid milliseconds: any time that has a past.
const BEGINNING_MS: u64 = 1 << 40;

impl ByHeat {
    /// With a half-life of so many times the capacity in accesses.
    pub(super) fn new(capacity: usize, keys: usize, half_life: u32, has_outer: bool) -> Self {
        let accesses = capacity as u64 * u64::from(half_life);
        Self {
            half_life: HalfLife::new(Duration::from_millis(accesses)),
            dither: Dither::default(),
            now_ms: BEGINNING_MS,
            table: Table::new(capacity, keys),
            marks: vec![0; keys],
            remembered: List::new(keys),
            remembered_max: if has_outer { OUTER * capacity } else { 0 },
        }
    }

    /// The mark after a use and a touch.
    fn touched(&mut self, mark: u64) -> u64 {
        let used = self.half_life.used(mark, 1, self.now_ms, self.dither.draw());
        record::with_level(record::mark(self.now_ms), record::level(used))
    }

    /// Evicts the coolest of a sample, some at a time, so that not every access has to look for room.
    fn evict(&mut self) {
        let warmth = |key| self.half_life.warmth(self.marks[key as usize], self.now_ms);
        let mut sample: Vec<_> =
            self.table.sample().into_iter().map(|key| (warmth(key), key)).collect();
        sample.sort_by_key(|(warmth, _)| *warmth);
        let coolest = (sample.len() / COOLEST_PART).clamp(1, BATCH);
        for (_, key) in sample.into_iter().take(coolest) {
            self.table.remove(key);
            self.remembered.push_front(key);
            if self.remembered.len() > self.remembered_max {
                self.remembered.pop_back();
            }
        }
    }
}

impl Policy for ByHeat {
    fn access(&mut self, key: u32) -> bool {
        self.now_ms += 1;
        let mark = self.marks[key as usize];
        let is_hit = self.table.is_held[key as usize];
        let is_known = is_hit || self.remembered.remove(key);
        self.marks[key as usize] =
            if is_known { self.touched(mark) } else { record::mark(self.now_ms) };
        if !is_hit {
            if self.table.held == self.table.capacity {
                self.evict();
            }
            self.table.insert(key);
        }
        is_hit
    }
}

impl Table {
    fn new(capacity: usize, keys: usize) -> Self {
        let lines = vec![Vec::new(); capacity.div_ceil(LINE)];
        Self { lines, is_held: vec![false; keys], held: 0, capacity, hand: 0 }
    }

    fn insert(&mut self, key: u32) {
        self.line(key).push(key);
        self.is_held[key as usize] = true;
        self.held += 1;
    }

    fn remove(&mut self, key: u32) {
        self.line(key).retain(|held| *held != key);
        self.is_held[key as usize] = false;
        self.held -= 1;
    }

    /// The keys of as many lines as it takes.
    fn sample(&mut self) -> Vec<u32> {
        let mut sample = Vec::with_capacity(2 * SAMPLE);
        for _ in 0..self.lines.len() {
            sample.extend(&self.lines[self.hand]);
            self.hand = (self.hand + 1) % self.lines.len();
            if sample.len() >= SAMPLE {
                break;
            }
        }
        sample
    }

    fn line(&mut self, key: u32) -> &mut Vec<u32> {
        let line = mixed(key.into()) as usize % self.lines.len();
        &mut self.lines[line]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(heat: &mut ByHeat, keys: impl IntoIterator<Item = u32>) {
        for key in keys {
            heat.access(key);
        }
    }

    #[test]
    fn samples_go_round_the_whole_table() {
        let mut table = Table::new(1_000, 1_000);
        (0..1_000).for_each(|key| table.insert(key));
        let mut seen = [0; 1_000];
        let mut drawn = 0;
        while drawn < 3_000 {
            let sample = table.sample();
            assert!((SAMPLE..SAMPLE + 60).contains(&sample.len()));
            drawn += sample.len();
            sample.into_iter().for_each(|key| seen[key as usize] += 1);
        }
        assert!(seen.iter().all(|times| (2..=5).contains(times)));
    }

    #[test]
    fn eight_of_the_coolest_go_at_once_and_a_quarter_of_few() {
        for (capacity, evicted) in [(1_000, 8), (20, 5), (3, 1)] {
            let mut heat = ByHeat::new(capacity, capacity + 1, 4, false);
            (0..=capacity as u32).for_each(|key| assert!(!heat.access(key)));
            assert_eq!(heat.table.held, capacity + 1 - evicted);
        }
    }

    #[test]
    fn what_was_evicted_comes_back_as_hot_as_it_was_if_it_is_remembered() {
        for (has_outer, levels) in [(true, 1..=u16::MAX), (false, 0..=0)] {
            let mut heat = ByHeat::new(20, 1_000, 16, has_outer);
            access(&mut heat, [0; 3]);
            // Another one is new each time: key 0 is the coolest in the end.
            let mut new = 1;
            while heat.table.is_held[0] {
                access(&mut heat, [new; 8]);
                new += 1;
            }
            heat.access(0);
            assert!(levels.contains(&record::level(heat.marks[0])), "{has_outer}");
        }
    }

    #[test]
    fn no_more_is_remembered_than_nine_tables() {
        let mut heat = ByHeat::new(10, 1_000, 4, true);
        access(&mut heat, 0..1_000);
        assert_eq!(heat.remembered.len(), 90);
        assert!(heat.remembered.contains(985) != heat.table.is_held[985]);
    }
}
