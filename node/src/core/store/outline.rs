//! What a table holds, in brief: a sketch of each slot, kept up to date by each change.

use std::collections::VecDeque;

use annulus_proto::{SLOT_COUNT, Slot};
use annulus_sketch::Sketch;

/// How many symbols a slot's sketch has. They take 512 bytes for each slot that holds something, 8 MiB per table at
/// most, and some five of them are changed by each write, here and in a sum. With fewer, sets are split more often.
pub(in crate::core) const SYMBOLS: usize = 16;

/// What others wrote is on its way here for so long at most, mostly: what is younger is left out when slots are
/// compared that were in sync.
pub(in crate::core) const IN_FLIGHT_MS: u64 = 2_000;

/// The sketches of all slots, and the latest changes, so that they can be left out.
pub(super) struct Outline {
    /// Of slots that hold nothing there is none. Empty while no sketches are kept.
    slots: Box<[Option<Sketch>]>,
    /// Neighbours mostly are compared together: so many of them are summed up as they change, and not each time.
    runs: Box<[Run]>,
    recent: VecDeque<Change>,
}

/// Neighbouring slots.
#[derive(Clone, Debug, Default)]
struct Run {
    /// The sketch of all that they hold, if that is anything.
    sum: Option<Sketch>,
    /// Bit *i* says whether slot *i* of them holds anything.
    held: u16,
}

/// How many slots have a sum: as many as are placed together (decision 7). Of a node with several cores each has sums
/// of its own slots among them.
const RUN_SLOTS: usize = 16;
const _: () =
    assert!((SLOT_COUNT as usize).is_multiple_of(RUN_SLOTS) && RUN_SLOTS == u16::BITS as usize);

/// A change of one entry. A digest of 0 is that of none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    /// The key's word.
    pub(super) word: u64,
    /// The entry's digest before.
    pub(super) before: u64,
    /// And after.
    pub(super) after: u64,
    /// When it was made: the same on every node that makes it, in hybrid milliseconds.
    pub(super) made_ms: u64,
}

/// How long changes are remembered: a comparison longer than they may be in flight.
const REMEMBERED_MS: u64 = 2 * IN_FLIGHT_MS + IN_FLIGHT_MS / 2;
/// How many changes are remembered, at most 8 MiB of them: all that come within the time above at 50,000 a second.
/// What is forgotten earlier may look like a difference, and be exchanged for nothing.
const REMEMBERED_MAX: usize = 1 << 18;

impl Outline {
    pub(super) fn new() -> Self {
        let slots = vec![None; usize::from(SLOT_COUNT)].into_boxed_slice();
        let runs = vec![Run::default(); slots.len() / RUN_SLOTS].into_boxed_slice();
        Self { slots, runs, recent: VecDeque::new() }
    }

    /// That keeps nothing, and takes in nothing.
    pub(super) fn put_off() -> Self {
        Self { slots: Box::default(), runs: Box::default(), recent: VecDeque::new() }
    }

    /// Whether sketches are kept.
    pub(super) fn is_kept(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Forgets everything, to be told of it anew.
    pub(super) fn clear(&mut self) {
        self.slots.fill(None);
        self.runs.fill(Run::default());
    }

    /// Takes in a change, made or found out at `now_ms`.
    pub(super) fn change(&mut self, change: Change, now_ms: u64) {
        if change.before == change.after || !self.is_kept() {
            return;
        }
        self.put(change);
        while self.recent.front().is_some_and(|it| it.made_ms + REMEMBERED_MS < now_ms) {
            self.recent.pop_front();
        }
        // Nobody leaves out what is older, nor what a clock far ahead has made.
        if change.made_ms.abs_diff(now_ms) < REMEMBERED_MS {
            if self.recent.len() == REMEMBERED_MAX {
                self.recent.pop_front();
            }
            self.recent.push_back(change);
        }
    }

    /// Takes in a change that is no news.
    pub(super) fn put(&mut self, change: Change) {
        let Some(slot) = Slot::of_word(change.word) else { return };
        let index = usize::from(slot.index());
        let Some(sketch) = self.slots.get_mut(index) else { return };
        let run = &mut self.runs[index / RUN_SLOTS];
        let bit = 1 << (index % RUN_SLOTS);
        let kept = sketch.get_or_insert_with(|| Sketch::new(SYMBOLS));
        let sum = run.sum.get_or_insert_with(|| Sketch::new(SYMBOLS));
        kept.change_with(sum, change.word, change.before, change.after);
        run.held |= bit;
        if change.after == 0 && kept.is_zero() {
            *sketch = None;
            run.held &= !bit;
            if run.held == 0 {
                run.sum = None;
            }
        }
    }

    /// The sketch of a slot, if it holds anything.
    #[cfg(test)]
    pub(super) fn of_slot(&self, slot: Slot) -> Option<&Sketch> {
        self.slots.get(usize::from(slot.index()))?.as_ref()
    }

    /// How many changes are remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.recent.len()
    }

    /// The first `symbols` symbols of each part of some slots, of which `sizes` tells how many are in each. What
    /// was made after `cut_ms` is left out as far as it is remembered; 0 = nothing is. `None` if the sizes do
    /// not add up, or no sketches are kept.
    ///
    /// Costs the number of slots, much less of those whose neighbours are in the same part, and of changes that are
    /// left out.
    ///
    /// # Panics
    /// If `symbols` is not in 1 to [`SYMBOLS`].
    pub(super) fn sketches(
        &self,
        slots: impl IntoIterator<Item = Slot>,
        sizes: impl IntoIterator<Item = usize>,
        symbols: usize,
        cut_ms: u64,
    ) -> Option<Vec<Sketch>> {
        const NONE: u16 = u16::MAX;
        if !self.is_kept() {
            return None;
        }
        let mut part_of = vec![NONE; if cut_ms == 0 { 0 } else { self.slots.len() }];
        let mut sketches = Vec::new();
        let mut slots = slots.into_iter().map(|slot| usize::from(slot.index())).peekable();
        for size in sizes {
            let mut sketch = Sketch::new(symbols);
            let mut left = size;
            while left > 0 {
                let run = slots.peek()? / RUN_SLOTS;
                let mut named = 0_u16;
                while left > 0
                    // A slot that is named twice counts twice. No set of slots names one twice.
                    && let Some(slot) = slots
                        .next_if(|it| it / RUN_SLOTS == run && named >> (it % RUN_SLOTS) & 1 == 0)
                {
                    left -= 1;
                    named |= 1 << (slot % RUN_SLOTS);
                    if let Some(part) = part_of.get_mut(slot) {
                        *part = sketches.len() as u16;
                    }
                }
                self.merge_run(&mut sketch, run, named);
            }
            sketches.push(sketch);
        }
        if slots.next().is_some() {
            return None;
        }
        for change in self.recent.iter().filter(|it| cut_ms != 0 && it.made_ms > cut_ms) {
            let part = Slot::of_word(change.word).map(|slot| part_of[usize::from(slot.index())]);
            if let Some(sketch) = part.and_then(|part| sketches.get_mut(usize::from(part))) {
                sketch.change(change.word, change.after, change.before);
            }
        }
        Some(sketches)
    }

    /// Adds what those slots of a run hold whose bits are set.
    fn merge_run(&self, sketch: &mut Sketch, run: usize, named: u16) {
        let Run { sum, held } = &self.runs[run];
        if held & !named == 0 {
            return sum.iter().for_each(|sum| sketch.merge(sum));
        }
        let first = run * RUN_SLOTS;
        for (bit, slot) in self.slots[first..first + RUN_SLOTS].iter().enumerate() {
            if named >> bit & 1 == 1 {
                slot.iter().for_each(|kept| sketch.merge(kept));
            }
        }
    }
}
