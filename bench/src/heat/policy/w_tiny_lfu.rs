//! W-TinyLFU: what leaves a small window of new keys takes the place of the main part's next victim if it was used
//! more often, by counts of all keys, held or not, that are halved now and then.
//!
//! Einziger, Friedman, Manes: *TinyLFU: A Highly Efficient Cache Admission Policy*, ACM Transactions on Storage 13(4),
//! 2017. A hundredth is window; the main part is LRU in two segments, four fifths of it for what was used again.
//! Neither the doorkeeper nor the window that adapts itself, which Caffeine got later.

use super::Policy;
use super::list::List;
use crate::entries::mixed;

pub(super) struct WTinyLfu {
    window: List,
    /// What was not used since it came to the main part, and what was.
    probation: List,
    protected: List,
    window_max: usize,
    main_max: usize,
    protected_max: usize,
    counts: Counts,
}

/// How often keys were used, more or less: a count-min sketch.
struct Counts {
    rows: [Vec<u8>; 4],
    counted: usize,
    /// After so many all counts are halved.
    counted_max: usize,
}

/// Counters have four bits.
const COUNT_MAX: u8 = 15;

impl WTinyLfu {
    pub(super) fn new(capacity: usize, keys: usize) -> Self {
        let window_max = (capacity / 100).max(1);
        let main_max = capacity - window_max;
        let [window, probation, protected] = [(); 3].map(|()| List::new(keys));
        Self {
            window,
            probation,
            protected,
            window_max,
            main_max,
            protected_max: main_max * 4 / 5,
            counts: Counts::new(capacity),
        }
    }

    /// A key leaves the window.
    fn offer(&mut self, key: u32) {
        if self.probation.len() + self.protected.len() < self.main_max {
            return self.probation.push_front(key);
        }
        let victim = self.probation.back().or_else(|| self.protected.back());
        if let Some(victim) = victim.filter(|it| self.counts.of(key) > self.counts.of(*it)) {
            self.probation.remove(victim);
            self.protected.remove(victim);
            self.probation.push_front(key);
        }
    }

    fn protect(&mut self, key: u32) {
        self.protected.push_front(key);
        if self.protected.len() > self.protected_max
            && let Some(demoted) = self.protected.pop_back()
        {
            self.probation.push_front(demoted);
        }
    }
}

impl Policy for WTinyLfu {
    fn access(&mut self, key: u32) -> bool {
        self.counts.add(key);
        if self.window.contains(key) {
            self.window.move_to_front(key);
            return true;
        }
        if self.protected.contains(key) {
            self.protected.move_to_front(key);
            return true;
        }
        if self.probation.remove(key) {
            self.protect(key);
            return true;
        }
        self.window.push_front(key);
        if self.window.len() > self.window_max
            && let Some(leaving) = self.window.pop_back()
        {
            self.offer(leaving);
        }
        false
    }
}

impl Counts {
    fn new(capacity: usize) -> Self {
        // As Caffeine has it.
        let width = 4 * capacity.next_power_of_two();
        Self { rows: [(); 4].map(|()| vec![0; width]), counted: 0, counted_max: 10 * capacity }
    }

    fn of(&self, key: u32) -> u8 {
        let counts = self.rows.iter().zip(places(key, self.rows[0].len()));
        counts.map(|(row, place)| row[place]).min().unwrap_or(0)
    }

    fn add(&mut self, key: u32) {
        let places = places(key, self.rows[0].len());
        for (row, place) in self.rows.iter_mut().zip(places) {
            row[place] = (row[place] + 1).min(COUNT_MAX);
        }
        self.counted += 1;
        if self.counted == self.counted_max {
            self.counted /= 2;
            self.rows.iter_mut().flatten().for_each(|count| *count /= 2);
        }
    }
}

/// Where a key is counted in each row.
fn places(key: u32, width: usize) -> [usize; 4] {
    [0, 1, 2, 3].map(|row: u64| mixed(row << 32 | u64::from(key)) as usize % width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stop_at_fifteen_and_are_halved() {
        let mut counts = Counts::new(4);
        for _ in 0..20 {
            counts.add(7);
        }
        assert_eq!((counts.of(7), counts.of(8)), (15, 0));
        for _ in 0..20 {
            counts.add(8);
        }
        assert_eq!((counts.of(7), counts.of(8), counts.counted), (7, 7, 20));
    }
}
