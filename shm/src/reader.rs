//! The reading side: lookups from any process, without a lock, a system call or a store.

use std::path::Path;
use std::sync::Arc;

use crate::file::AttachError;
use crate::header::{self, OpenError};
use crate::layout::{KEY_MAX, PARTITIONS, RecordId, WAYS, word};
use crate::protocol::{Attempt, Stamped, Table};
use crate::region::Region;
use crate::words::{Mapped, Words};
use crate::writer::ScanItem;

/// Looks keys up in a segment that another thread or process writes.
///
/// Cheap to share between threads. Bytes of the segment are never believed: whatever they are, calls end, do not
/// panic, and allocate at most the table's `max_value`.
pub struct Reader {
    table: Table<Mapped>,
    instance: u64,
}

/// What a lookup found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The value is in the buffer.
    Hit {
        /// When it expires, in milliseconds of the hybrid clock; 0 is never.
        deadline: u64,
        /// The writer's mark.
        mark: u64,
    },
    /// There is an entry, past its deadline.
    Expired,
    /// The writer does not, or no longer, vouch for this partition.
    Stale,
    /// Not in this table. Not *absent*: ask the node.
    Miss,
    /// The entry changed each time it was read. Ask the node.
    Contended,
    /// A record makes no sense. Ask the node.
    Damaged,
}

/// How a scanned entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A lookup would be a hit.
    Live,
    /// Past its deadline.
    Expired,
    /// Of a partition that the writer does not vouch for.
    Stale,
}

/// The counters that the writer publishes for status displays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentStats {
    /// Entries.
    pub entries: u64,
    /// Bytes of all keys and values.
    pub bytes_live: u64,
    /// Overflow blocks in use.
    pub pool_blocks_used: u64,
    /// Overflow blocks there are.
    pub pool_blocks: u64,
    /// Size of the segment in bytes.
    pub segment_bytes: u64,
}

/// Tries before a lookup gives up. Each is short, and a change in between is rare.
const TRIES: usize = 32;

impl Reader {
    /// Attaches to a mapped segment.
    ///
    /// # Errors
    ///
    /// Says why the region is no segment that this version can read.
    pub fn attach(region: Arc<dyn Region>) -> Result<Self, OpenError> {
        let clock_domain = region.clock_domain();
        let words = Mapped::new(region);
        let facts = header::inspect(&words)?;
        if header::is_retired(&words) {
            return Err(OpenError::Retired);
        }
        if words.load(word!(clock_domain)) != clock_domain {
            return Err(OpenError::OtherBoot);
        }
        let table = Table { words, geometry: facts.geometry, hash_seed: facts.hash_seed };
        Ok(Self { table, instance: facts.instance })
    }

    /// Opens a segment's file read-only and attaches to it.
    ///
    /// # Errors
    ///
    /// The file cannot be opened or mapped, or is no segment that this version can read.
    pub fn attach_file(path: impl AsRef<Path>) -> Result<Self, AttachError> {
        crate::file::attach(path.as_ref())
    }

    /// The number that identifies this segment among all ever made.
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// Counts the openings by a writer. A change means that the writer was restarted.
    pub fn writer_epoch(&self) -> u64 {
        self.table.words.load(word!(writer_epoch))
    }

    /// Whether the writer gave this segment up: drop the reader and attach again by path.
    pub fn detached(&self) -> bool {
        header::is_retired(&self.table.words)
    }

    /// What the writer says about itself, for messages only.
    pub fn owner_note(&self) -> String {
        header::owner_note(&self.table.words)
    }

    /// Hybrid clock minus monotonic clock in milliseconds, as the writer last set it; wraps.
    pub fn clock_offset(&self) -> u64 {
        self.table.words.load(word!(clock_offset))
    }

    /// The counters that the writer publishes. Each is exact at some moment, not all at the same one.
    pub fn stats(&self) -> SegmentStats {
        let words = &self.table.words;
        SegmentStats {
            entries: words.load(word!(entries)),
            bytes_live: words.load(word!(bytes_live)),
            pool_blocks_used: words.load(word!(blocks_used)),
            pool_blocks: self.table.geometry.blocks as u64,
            segment_bytes: self.table.geometry.shape.segment_bytes,
        }
    }

    /// Looks a key of a partition up. `value` is cleared, and filled on a [`Lookup::Hit`] only.
    ///
    /// `now_monotonic_ms` is the machine's coarse monotonic clock. A key that is stored under another partition is
    /// a miss. A hit is the entry as it was published at one instant during the call; `deadline` and `mark` are
    /// each as of some instant during the call.
    pub fn get(
        &self,
        key: &[u8],
        partition: u16,
        now_monotonic_ms: u64,
        value: &mut Vec<u8>,
    ) -> Lookup {
        value.clear();
        if key.is_empty() || key.len() > KEY_MAX || usize::from(partition) >= PARTITIONS {
            return Lookup::Miss;
        }
        let until = self.table.words.load(self.table.geometry.freshness + usize::from(partition));
        if now_monotonic_ms >= until {
            return Lookup::Stale;
        }
        // Pairs with the release fence in `Writer::set_freshness`: what the writer had applied when it vouched for
        // the partition is seen below.
        self.table.words.acquire();
        let place = self.table.geometry.place(self.table.hash(key));
        for _ in 0..TRIES {
            let lookup = match self.table.attempt(key, place, value) {
                Attempt::Hit(copied) if copied.shape.partition != partition => Lookup::Miss,
                Attempt::Hit(copied) if self.is_expired(copied.deadline, now_monotonic_ms) => {
                    Lookup::Expired
                }
                Attempt::Hit(copied) => {
                    return Lookup::Hit { deadline: copied.deadline, mark: copied.mark };
                }
                Attempt::Miss => Lookup::Miss,
                Attempt::Damaged => Lookup::Damaged,
                Attempt::Changed => {
                    value.clear();
                    std::hint::spin_loop();
                    continue;
                }
            };
            value.clear();
            return lookup;
        }
        Lookup::Contended
    }

    /// Visits entries from `cursor` (0 to begin) on, whole lines at a time, until about `budget` were visited, and
    /// returns the cursor to go on with, 0 at the end.
    ///
    /// An entry that stays in its place during a pass is visited exactly once; one that is updated, moved, added or
    /// removed meanwhile may be visited twice or not at all.
    pub fn scan(
        &self,
        cursor: u64,
        budget: usize,
        now_monotonic_ms: u64,
        visit: &mut dyn FnMut(ScanItem<'_>, Standing),
    ) -> u64 {
        let geometry = &self.table.geometry;
        let mut key = Vec::new();
        let mut visited = 0;
        let mut bucket = usize::try_from(cursor).unwrap_or(usize::MAX);
        while bucket < geometry.buckets {
            let header = self.table.header(bucket);
            self.table.words.acquire(); // Pairs with the release fence in `publish`.
            visited += 1;
            for way in (0..WAYS).filter(|&way| header.is_valid(way)) {
                key.clear();
                let copy = self.table.stamped(RecordId { bucket, way }, |walk, shape| {
                    walk.read(shape.key_size.into(), &mut key)
                });
                let Stamped::Valid(((), copied)) = copy else { continue };
                visited += 1;
                let (partition, deadline, mark) =
                    (copied.shape.partition, copied.deadline, copied.mark);
                let until = self.table.words.load(geometry.freshness + usize::from(partition));
                let standing = if now_monotonic_ms >= until {
                    Standing::Stale
                } else if self.is_expired(deadline, now_monotonic_ms) {
                    Standing::Expired
                } else {
                    Standing::Live
                };
                let value_size = copied.shape.value_size as usize;
                visit(ScanItem { key: &key, partition, deadline, mark, value_size }, standing);
            }
            bucket += 1;
            if visited >= budget {
                break;
            }
        }
        if bucket >= geometry.buckets { 0 } else { bucket as u64 }
    }

    fn is_expired(&self, deadline: u64, now_monotonic_ms: u64) -> bool {
        deadline != 0 && now_monotonic_ms.wrapping_add(self.clock_offset()) >= deadline
    }
}
