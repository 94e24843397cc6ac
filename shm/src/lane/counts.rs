//! What a client's readers used, counted in the lane: sampled, lossy, and capped.
//!
//! A word is a record's number (32 bits), its fingerprint (16) and a count (16). A reader finds the
//! word by the number and adds to it with a load and a store: two threads may lose a count between
//! them, two records may push each other out, and the node may take a word while it is added to. The
//! counts say what is used much; they are no accounts.

use std::cell::Cell;

use crate::lane::layout::{COUNTS, COUNTS_START, TABLES_MAX};
use crate::reader::Used;
use crate::words::{Mapped, Words};

/// One use in so many is noted.
pub const SAMPLE: u32 = 8;
/// The most noted uses of one record between two drains.
const COUNT_MAX: u64 = 1_023;
/// The most uses that one drain reports of one client.
const DRAIN_MAX: u32 = 1 << 20;

const _: () = assert!(SAMPLE.is_power_of_two() && COUNT_MAX <= u16::MAX as u64);

/// Counts uses, as the client's readers do. Cheap to clone.
#[derive(Clone)]
pub struct UseCounts {
    words: Mapped,
    tables: u16,
}

impl UseCounts {
    pub(super) fn new(words: Mapped, tables: u16) -> Self {
        Self { words, tables }
    }

    /// Makes every count this word, as a hostile client may.
    #[cfg(test)]
    pub(crate) fn fill(&self, word: u64) {
        (COUNTS_START..COUNTS_START + COUNTS).for_each(|at| self.words.store(at, word));
    }

    /// The counts of one table, by its place in the node's list; `None` beyond its end. All tables of a node have as
    /// many shards, which have numbers one after the other: shard `s` of table `t` has `t * shards + s`.
    pub fn table(&self, table: u16, shards: u16) -> Option<TableUses> {
        let number = table.checked_mul(shards)?;
        number.checked_add(shards.checked_sub(1)?).filter(|last| *last < self.tables)?;
        let (start, size) = part(number, self.tables)?;
        Some(TableUses { words: self.words.clone(), start, mask: size - 1, shards })
    }

    /// How many shards each of so many tables has; `None` if what the node said makes no sense.
    pub fn shards(&self, tables: u16) -> Option<u16> {
        let shards = self.tables.checked_div(tables)?;
        (shards > 0 && self.tables.is_multiple_of(tables)).then_some(shards)
    }
}

/// Counts uses of one table.
#[derive(Clone)]
pub struct TableUses {
    words: Mapped,
    start: usize,
    /// One less than the counts of each shard.
    mask: usize,
    shards: u16,
}

impl TableUses {
    /// Counts a use: one in eight is noted, chosen at random by each thread for itself. No system
    /// call, no instruction that locks the bus; some 2 ns on average.
    #[inline]
    pub fn count(&self, used: Used) {
        if is_sampled() {
            self.note(used);
        }
    }

    /// Notes a use that [`is_sampled`] has chosen, for those who look up where to only then.
    pub fn note(&self, used: Used) {
        if used.shard() >= self.shards {
            return; // Of a segment that the node has made since the lane.
        }
        let start = self.start + usize::from(used.shard()) * (self.mask + 1);
        let at = start + (spread(used.record()) & self.mask);
        let word = self.words.load(at);
        let name = u64::from(used.record()) << 32 | u64::from(used.tag()) << 16;
        let count = if word & !0xffff == name { (word & 0xffff).min(COUNT_MAX - 1) } else { 0 };
        self.words.store(at, name | (count + 1));
    }
}

/// Takes what a client's readers counted. The node's side.
pub struct UseDrain {
    words: Mapped,
    tables: u16,
}

impl UseDrain {
    pub(super) fn new(words: Mapped, tables: u16) -> Self {
        Self { words, tables: tables.clamp(1, TABLES_MAX) }
    }

    /// Takes all counts and reports each: the number of the table's shard (see [`UseCounts::table`]; `Used` names the
    /// record in it, and no shard), what was used, and about how often. The client
    /// wrote them: a record may not exist, and the sum stops at a cap of 2²⁰ uses. Costs a look at
    /// 64 KiB.
    pub fn drain(&mut self, mut report: impl FnMut(u16, Used, u32)) {
        let mut left = DRAIN_MAX;
        for table in 0..self.tables {
            let Some((start, size)) = part(table, self.tables) else { return };
            for at in start..start + size {
                let word = self.words.load(at);
                if word == 0 {
                    continue;
                }
                self.words.store(at, 0);
                let count = (word & 0xffff).min(COUNT_MAX) as u32 * SAMPLE;
                let count = count.min(left);
                left -= count;
                if count > 0 {
                    let used = Used::new((word >> 32) as u32, (word >> 16) as u16);
                    report(table, used, count);
                }
            }
        }
    }
}

/// Where the counts of a table's shard begin, and how many there are: a power of two.
fn part(table: u16, tables: u16) -> Option<(usize, usize)> {
    let size = COUNTS / usize::from(tables.max(1)).next_power_of_two();
    (table < tables).then_some((COUNTS_START + usize::from(table) * size, size))
}

/// Neighbours in a table are not neighbours here: their readers would share cache lines.
fn spread(record: u32) -> usize {
    (record.wrapping_mul(0x9e37_79b1) >> 16) as usize
}

/// Whether this use is the one in eight that is noted. A few instructions.
#[inline]
pub fn is_sampled() -> bool {
    thread_local! {
        static STATE: Cell<u32> = const { Cell::new(0x2545_f491) };
    }
    STATE.with(|state| {
        // The upper bits of a linear congruential generator are the good ones.
        let next = state.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.set(next);
        next < u32::MAX / SAMPLE
    })
}
