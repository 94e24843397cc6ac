//! The reading side: lookups from any process, without a lock, a system call or a store.

use std::sync::Arc;

use crate::header::{self, Facts, OpenError};
use crate::layout::{KEY_MAX, RecordId, RecordShape, WAYS, word};
use crate::protocol::{Attempt, Copied, Glance, Stamped};
use crate::region::Region;
use crate::shards::in_shard;
use crate::table::Table;
use crate::words::{Mapped, Target, Words};
use crate::writer::ScanItem;

/// Looks keys up in one shard of a segment, which another thread or process writes; [`Shards`](crate::Shards) does in
/// all of them.
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
    Hit(Hit),
    /// There is an entry, past its deadline.
    Expired,
    /// The writer does not, or no longer, vouch for the entry's partition.
    Stale,
    /// Not in this table. Not *absent*: ask the node.
    Miss,
    /// The entry changed each time it was read. Ask the node.
    Contended,
    /// A record makes no sense. Ask the node.
    Damaged,
}

/// A value that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// When it expires, in milliseconds of the hybrid clock; 0 is never.
    pub deadline: u64,
    /// The writer's mark.
    pub mark: u64,
    /// Size of the value in bytes.
    pub value_size: usize,
    /// Names the record, for counting its use.
    pub used: Used,
}

/// Names a record that was used: its shard, its number there and its key's fingerprint, so that the writer knows with some certainty
/// whether the record is still the same key's when it counts the use.
///
/// One word, because two stores that are loaded as one make a processor wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Used(u64);

impl Used {
    /// A record by its number in its shard, and its key's fingerprint. In the first shard.
    #[inline]
    pub fn new(record: u32, tag: u16) -> Self {
        Self(u64::from(record) << 16 | u64::from(tag))
    }

    /// The same record, in another shard.
    #[inline]
    pub fn in_shard(self, shard: u16) -> Self {
        Self(u64::from(shard) << 48 | self.0 & ((1 << 48) - 1))
    }

    /// The record's shard.
    #[inline]
    pub fn shard(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// The record's number in its shard.
    #[inline]
    pub fn record(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// Its key's fingerprint.
    #[inline]
    pub fn tag(self) -> u16 {
        self.0 as u16
    }
}

impl std::fmt::Debug for Used {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Used")
            .field("shard", &self.shard())
            .field("record", &self.record())
            .field("tag", &self.tag())
            .finish()
    }
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
    /// Records that hold what did not fit those of their entries.
    pub blocks: u64,
    /// Size of the segment in bytes; from a reader of one shard, of that.
    pub segment_bytes: u64,
}

/// See [`Reader::get_many`]; `shard_of` says in which shard a key is, and `reader_of` who reads that.
#[inline(always)]
pub(crate) fn look_up_many<'r>(
    keys: &[&[u8]],
    now_monotonic_ms: u64,
    value: &mut Vec<u8>,
    shard_of: impl Fn(&[u8]) -> u16,
    reader_of: impl Fn(u16) -> &'r Reader,
    found: &mut dyn FnMut(usize, Lookup, &[u8]),
) {
    for (batch, keys) in keys.chunks(BATCH).enumerate() {
        let mut places = [(0, 0); BATCH];
        for ((shard, hash), key) in places.iter_mut().zip(keys) {
            // All shards have the same seed.
            *hash = reader_of(0).hash(key);
            *shard = shard_of(key);
            reader_of(*shard).table.prefetch_line(*hash);
        }
        for (shard, hash) in &places[..keys.len()] {
            reader_of(*shard).table.prefetch_records(*hash);
        }
        for (at, (key, (shard, hash))) in keys.iter().zip(places).enumerate() {
            let lookup = reader_of(shard).lookup_hashed(key, hash, now_monotonic_ms, value);
            if !matches!(lookup, Lookup::Hit(_)) {
                value.clear();
            }
            found(batch * BATCH + at, in_shard(lookup, shard), value);
        }
    }
}

/// Keys that [`Reader::get_many`] takes at a time: as many misses as a core has under way at once, more or less.
const BATCH: usize = 16;
/// Tries before a lookup gives up. Each is short, and a change in between is rare.
const TRIES: usize = 32;

impl Reader {
    /// Attaches to a mapped segment with one shard.
    ///
    /// # Errors
    ///
    /// Says why the region is no segment that this version can read, or that it has several shards.
    pub fn attach(region: Arc<dyn Region>) -> Result<Self, OpenError> {
        let clock_domain = region.clock_domain();
        let words = Mapped::new(region);
        let facts = header::inspect(&words)?;
        match facts.geometry.shape.shards {
            1 => Self::of_shard(words, &facts, clock_domain),
            several => Err(OpenError::SeveralShards(several)),
        }
    }

    /// The reader of a shard whose header was inspected.
    pub(crate) fn of_shard(
        words: Mapped,
        facts: &Facts,
        clock_domain: u64,
    ) -> Result<Self, OpenError> {
        if header::is_retired(&words) {
            return Err(OpenError::Retired);
        }
        if words.load(word!(clock_domain)) != clock_domain {
            return Err(OpenError::OtherBoot);
        }
        let table = Table::new(words, facts.geometry, facts.hash_seed);
        Ok(Self { table, instance: facts.instance })
    }

    /// The number that identifies this segment among all ever made.
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// Counts the openings by a writer. A change means that the writer was restarted.
    pub fn writer_epoch(&self) -> u64 {
        self.table.words().load(word!(writer_epoch))
    }

    /// Whether the writer gave this segment up: drop the reader and attach again by path.
    pub fn detached(&self) -> bool {
        header::is_retired(self.table.words())
    }

    /// What the writer says about itself, for messages only.
    pub fn owner_note(&self) -> String {
        header::owner_note(self.table.words())
    }

    /// Hybrid clock minus monotonic clock in milliseconds, as the writer last set it; wraps.
    pub fn clock_offset(&self) -> u64 {
        self.table.words().load(word!(clock_offset))
    }

    /// The counters that the writer publishes. Each is exact at some moment, not all at the same one.
    pub fn stats(&self) -> SegmentStats {
        let words = self.table.words();
        SegmentStats {
            entries: words.load(word!(entries)),
            bytes_live: words.load(word!(bytes_live)),
            blocks: words.load(word!(blocks_used)),
            segment_bytes: self.table.geometry().shard_bytes(),
        }
    }

    /// Looks a key up. `value` is replaced, by nothing unless it is a [`Lookup::Hit`].
    ///
    /// `now_monotonic_ms` is the machine's coarse monotonic clock. A hit is the entry as it was published at one
    /// instant during the call, and its partition's freshness as of then or just before; `deadline` and `mark` are each
    /// as of some instant during the call.
    #[inline]
    pub fn get(&self, key: &[u8], now_monotonic_ms: u64, value: &mut Vec<u8>) -> Lookup {
        let lookup = self.lookup(key, now_monotonic_ms, value);
        if !matches!(lookup, Lookup::Hit(_)) {
            value.clear();
        }
        lookup
    }

    /// Looks a key up and copies the value to the front of `value`. One that does not fit is not copied:
    /// [`Hit::value_size`] then says what it needs, at that moment.
    ///
    /// Otherwise as [`get`](Self::get); after anything but a hit the buffer may hold rubbish.
    #[inline]
    pub fn get_into(&self, key: &[u8], now_monotonic_ms: u64, mut value: &mut [u8]) -> Lookup {
        self.lookup(key, now_monotonic_ms, &mut value)
    }

    /// Looks several keys up, as [`get`](Self::get) does each, and hands `found` each key's place in `keys`, what was
    /// found, and the value (empty unless it is a hit), which lies in `value` until the next.
    ///
    /// The lookups of up to 16 keys wait for memory together, and so cost less each. They are of different instants.
    pub fn get_many(
        &self,
        keys: &[&[u8]],
        now_monotonic_ms: u64,
        value: &mut Vec<u8>,
        found: &mut dyn FnMut(usize, Lookup, &[u8]),
    ) {
        look_up_many(keys, now_monotonic_ms, value, |_| 0, |_| self, found);
    }

    #[inline(always)]
    fn lookup(&self, key: &[u8], now_monotonic_ms: u64, value: &mut impl Target) -> Lookup {
        self.lookup_hashed(key, self.hash(key), now_monotonic_ms, value)
    }

    /// The key's hash, in all shards of this segment.
    #[inline(always)]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.table.hash(key)
    }

    #[inline(always)]
    pub(crate) fn lookup_hashed(
        &self,
        key: &[u8],
        key_hash: u64,
        now_monotonic_ms: u64,
        value: &mut impl Target,
    ) -> Lookup {
        if key.is_empty() || key.len() > KEY_MAX {
            return Lookup::Miss;
        }
        match self.table.glance(key, key_hash, value) {
            Glance::Hit(id, copied) => self.judge(id, copied, key_hash, now_monotonic_ms),
            Glance::Miss => Lookup::Miss,
            Glance::Unclear => self.look_closely(key, key_hash, now_monotonic_ms, value),
        }
    }

    /// Looks up what a glance did not settle: a fingerprint that is another key's, a value that does not fit, a key that
    /// reaches the record's last word, a miss beside an overflow bit, damage, a change by the writer.
    #[inline(never)]
    fn look_closely(
        &self,
        key: &[u8],
        key_hash: u64,
        now_monotonic_ms: u64,
        value: &mut impl Target,
    ) -> Lookup {
        for _ in 0..TRIES {
            match self.table.attempt(key, key_hash, value) {
                Attempt::Hit(id, copied) => {
                    return self.judge(id, copied, key_hash, now_monotonic_ms);
                }
                Attempt::Miss => return Lookup::Miss,
                Attempt::Damaged => return Lookup::Damaged,
                Attempt::Changed => std::hint::spin_loop(),
            }
        }
        Lookup::Contended
    }

    #[inline(always)]
    fn judge(&self, id: RecordId, copied: Copied, key_hash: u64, now_monotonic_ms: u64) -> Lookup {
        let Copied { shape, deadline, mark, fresh_until } = copied;
        if now_monotonic_ms >= fresh_until {
            return Lookup::Stale;
        }
        if self.is_expired(deadline, now_monotonic_ms) {
            return Lookup::Expired;
        }
        Lookup::Hit(Hit {
            deadline,
            mark,
            value_size: RecordShape::value_size_of(shape),
            used: Used::new(id.number() as u32, key_hash as u16),
        })
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
        let geometry = self.table.geometry();
        let mut key = Vec::new();
        let mut visited = 0;
        let mut bucket = usize::try_from(cursor).unwrap_or(usize::MAX);
        while bucket < geometry.buckets {
            let header = self.table.header(bucket);
            self.table.words().acquire(); // Pairs with the release fence in `publish`.
            visited += 1;
            for way in (0..WAYS).filter(|&way| header.is_valid(way)) {
                let id = RecordId { bucket, way };
                let copy = self.table.stamped(id, |shape| {
                    let shape = RecordShape::unpack(shape, geometry.shape.max_value)?;
                    self.table.walk(id, shape).copy(shape.key_size.into(), &mut key)?;
                    Some(shape)
                });
                let Stamped::Valid((shape, copied)) = copy else { continue };
                visited += 1;
                let Copied { deadline, mark, fresh_until, .. } = copied;
                let standing = if now_monotonic_ms >= fresh_until {
                    Standing::Stale
                } else if self.is_expired(deadline, now_monotonic_ms) {
                    Standing::Expired
                } else {
                    Standing::Live
                };
                let RecordShape { partition, near, .. } = shape;
                let (key, value_size) = (&key[..], shape.value_size as usize);
                visit(ScanItem { key, partition, deadline, mark, value_size, near }, standing);
            }
            bucket += 1;
            if visited >= budget {
                break;
            }
        }
        if bucket >= geometry.buckets { 0 } else { bucket as u64 }
    }

    #[inline]
    fn is_expired(&self, deadline: u64, now_monotonic_ms: u64) -> bool {
        deadline != 0 && now_monotonic_ms.wrapping_add(self.clock_offset()) >= deadline
    }
}
