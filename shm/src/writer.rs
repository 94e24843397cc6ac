//! The writing side: the one process that changes a segment, with a writer for each shard.

mod core;
mod recover;
mod wheel;

use std::sync::Arc;

use crate::header::{self, Facts, OpenError};
use crate::layout::{
    Geometry, OptionsError, PARTITIONS, Place, RecordId, TableOptions, shard_of, word,
};
use crate::reader::Used;
use crate::region::Region;
use crate::shards::{create_shards, open_shards};
use crate::table::Table;
use crate::words::{Mapped, Words};

pub(crate) use self::core::Core;

/// How much later than its deadline an expired entry may be offered for removal, in milliseconds.
pub const EXPIRY_LATENESS_MS: u64 = 1_024;

/// One shard of a table, for its one writer; all of the table, if there is one shard.
///
/// The writers of a segment belong to one process, and may be used by different threads: none stores into another's
/// shard, or reads it.
///
/// The index, the entries and their accounting can always be told from the segment alone, so that a successor finds
/// them after any crash; what only makes the writer fast (lists per partition, free records, chains) is private and
/// rebuilt when a segment is opened. Costs some 32 bytes of private memory per record.
pub struct Writer {
    core: Core<Mapped>,
    instance: u64,
    hash_seed: u64,
    /// Whether there is memory for entries, as this writer last knew.
    is_reserved: bool,
}

/// An entry, looked up once for whatever is to be done with it. Nothing else can happen to the table meanwhile.
pub struct Occupied<'w, 'k> {
    core: &'w mut Core<Mapped>,
    key: &'k [u8],
    place: Place,
    id: RecordId,
}

/// What [`Writer::put`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put {
    /// Whether the key had a value.
    pub replaced: bool,
}

/// For whom a record is written, which decides whether it may take the last room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// A new entry that can be refused.
    Ordinary,
    /// One that must not be refused while there is any room: the end of a session, or another home's copy of what is
    /// acknowledged already. One record in 64 is kept for these, and for blocks of updates.
    Reserve,
    /// A near copy: dropped, the coolest first, when room is needed.
    Near,
}

/// Why [`Writer::put`] changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// No room. Remove expired entries, or others, and try again.
    #[error("the table is full: {0}")]
    Full(Full),
    /// The key is empty or too long.
    #[error("a key of {0} bytes: 1 to 255 are possible")]
    KeyLength(usize),
    /// The value is too long for this table.
    #[error("a value of {size} bytes: this table takes at most {max}")]
    ValueTooLarge {
        /// Its size.
        size: usize,
        /// The table's `max_value`.
        max: usize,
    },
    /// No memory was reserved for entries yet: have [`Region::reserve`] do that, and try again.
    #[error("no memory is reserved for this table yet")]
    Unreserved,
}

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Records that the entry needs, for itself and as blocks. An update needs its new ones before it frees the old.
    pub needed: usize,
    /// Records that are taken.
    pub taken: usize,
    /// Records that can be: one in 28 stays free. Too few of those left can be reached by this key, or are for whoever asks.
    pub capacity: usize,
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { needed, taken, capacity } = self;
        write!(f, "{needed} records needed, {taken} of {capacity} taken, less a reserve")
    }
}

/// Why a table cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The options describe no table.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The region is smaller than the options say.
    #[error("the region has {found} bytes, the options ask for {needed}")]
    RegionSize {
        /// Size of the region.
        found: u64,
        /// Size of the segment.
        needed: u64,
    },
    /// A writer needs memory that it may write.
    #[error("the region is read-only")]
    NotWritable,
}

/// An entry without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The key's partition.
    pub partition: u16,
    /// When it expires, in milliseconds of the hybrid clock; 0 is never.
    pub deadline: u64,
    /// The caller's mark.
    pub mark: u64,
}

/// An entry met by a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanItem<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// The key's partition.
    pub partition: u16,
    /// When it expires, in milliseconds of the hybrid clock; 0 is never.
    pub deadline: u64,
    /// The writer's mark.
    pub mark: u64,
    /// Size of its value in bytes.
    pub value_size: usize,
    /// Whether it is a near copy.
    pub near: bool,
}

/// An expired entry, offered for removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiredItem<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// The key's partition.
    pub partition: u16,
    /// When it expired, in milliseconds of the hybrid clock.
    pub deadline: u64,
    /// The writer's mark.
    pub mark: u64,
}

/// What becomes of an expired entry that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is removed.
    Goes,
    /// It stays, and is offered again.
    Stays {
        /// When, on the hybrid clock, within [`EXPIRY_LATENESS_MS`] after, but within two minutes; what is not ahead means soon.
        until_ms: u64,
    },
}

/// An entry that was checked, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeItem<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// The writer's mark.
    pub mark: u64,
}

/// How full a table is. Exact at all times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TableStats {
    /// Entries.
    pub entries: usize,
    /// Near copies among them.
    pub near_entries: usize,
    /// The records that near copies take, their blocks among them.
    pub near_records: usize,
    /// Records that hold what did not fit those of their entries.
    pub blocks: usize,
    /// Records there are, of which one in 28 stays free.
    pub capacity_records: usize,
    /// Records kept for [`Admission::Reserve`].
    pub reserve_records: usize,
    /// How many of these are taken. The reserve closes again as entries go, whoever they belonged to.
    pub reserve_used: usize,
    /// How many more records [`Admission::Ordinary`] entries may take, if they are of the sizes of those that are here: in a
    /// table without blocks, entries of one record each.
    pub room: usize,
    /// Bytes of all keys and values.
    pub bytes_live: u64,
    /// Size of the segment in bytes, or of the writer's shard of it.
    pub segment_bytes: u64,
    /// The part of the records that is taken, 0 to 27/28.
    pub load: f64,
}

/// What an opening found, and what it had to drop. A killed writer leaves at most one duplicate and one line to
/// repair; the other drops mean that somebody else wrote into the segment, or the medium failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Entries that are there now.
    pub entries: usize,
    /// Dropped: published, but marked as not finished.
    pub dropped_torn: usize,
    /// Dropped: sizes or the chain of blocks are impossible.
    pub dropped_malformed: usize,
    /// Dropped: in a line that is not one of its key's, or that was overfull.
    pub dropped_misplaced: usize,
    /// Dropped: one of the two copies that a move cut in two by a crash had left.
    pub dropped_duplicate: usize,
    /// Lines whose header was corrected, for one of these reasons or for its overflow bit.
    pub repaired_lines: usize,
}

impl Recovery {
    pub(crate) fn add(&mut self, more: &Self) {
        self.entries += more.entries;
        self.dropped_torn += more.dropped_torn;
        self.dropped_malformed += more.dropped_malformed;
        self.dropped_misplaced += more.dropped_misplaced;
        self.dropped_duplicate += more.dropped_duplicate;
        self.repaired_lines += more.repaired_lines;
    }
}

/// What a step of [`Writer::verify`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The cursor to go on with; 0 at the end of a pass.
    pub next: u64,
    /// Records checked.
    pub checked: usize,
    /// Records dropped because they did not match their checksum, or could not be found by their key.
    pub dropped: usize,
}

impl Writer {
    /// Makes a new table with one shard in a region, whatever was there; [`create_shards`] makes one with several.
    ///
    /// The caller sees to it that no other writer uses the region ([`open_or_create`](crate::open_or_create) does,
    /// by a file lock).
    ///
    /// # Errors
    ///
    /// The options describe no table, or one of several shards, or the region does not fit them. Nothing was written.
    pub fn create(region: Arc<dyn Region>, options: &TableOptions) -> Result<Self, CreateError> {
        if options.shards > 1 {
            return Err(OptionsError::SeveralShards(options.shards).into());
        }
        Ok(create_shards(&region, options)?.remove(0))
    }

    /// Makes a shard in its words, which are writable and enough.
    pub(crate) fn create_shard(
        words: Mapped,
        options: &TableOptions,
        shard: u16,
    ) -> Result<Self, CreateError> {
        let geometry = Geometry::plan(options)?;
        let clock_domain = words.region().clock_domain();
        // Records need no zeros: no way is valid.
        for at in 0..geometry.records {
            if words.load(at) != 0 {
                words.store(at, 0);
            }
        }
        words.store(word!(clock_domain), clock_domain);
        words.store(word!(writer_epoch), 1);
        header::write(&words, &geometry, options, shard);
        let (instance, hash_seed) = (options.instance, options.hash_seed);
        let core = Core::new(Table::new(words, geometry, hash_seed));
        Ok(Self { core, instance, hash_seed, is_reserved: false })
    }

    /// Opens an existing table with one shard, and repairs what a crash left; [`open_shards`] opens one with several.
    ///
    /// Reads every record's header, blocks among them, some 20 ms for 10⁶; readers go on meanwhile. Contents are not compared
    /// with their checksums: call [`verify`](Self::verify) in steps. After a reboot all freshness is gone and the clock offset is
    /// 0. The options' instance and seed are ignored.
    ///
    /// # Errors
    ///
    /// The region holds no table, or another one than the options ask for. Nothing was written.
    pub fn open(
        region: Arc<dyn Region>,
        options: &TableOptions,
    ) -> Result<(Self, Recovery), OpenError> {
        if options.shards > 1 {
            return Err(OptionsError::SeveralShards(options.shards).into());
        }
        let (mut writers, recovery) = open_shards(&region, options)?;
        Ok((writers.remove(0), recovery))
    }

    /// Opens a shard whose header was inspected.
    pub(crate) fn open_shard(words: Mapped, facts: &Facts, clock_domain: u64) -> (Self, Recovery) {
        if words.load(word!(clock_domain)) != clock_domain {
            for partition in 0..PARTITIONS {
                words.store(facts.geometry.freshness + partition, 0);
            }
            words.store(word!(clock_offset), 0);
            // Readers that see the new domain see no old freshness.
            words.release();
            words.store(word!(clock_domain), clock_domain);
        }
        words.store(word!(writer_epoch), words.load(word!(writer_epoch)).wrapping_add(1));
        let table = Table::new(words, facts.geometry, facts.hash_seed);
        let (core, recovery) = Core::recover(table);
        let (instance, hash_seed) = (facts.instance, facts.hash_seed);
        (Self { core, instance, hash_seed, is_reserved: false }, recovery)
    }

    /// Copies the entries of a shard of another segment, which this process has locked, into the empty shards of this
    /// one, whose writers are `new`, and what readers need to judge deadlines. Returns what its recovery found, how many
    /// records were damaged, and how many entries found no room here.
    ///
    /// # Panics
    ///
    /// If there is no writer, or there are too many.
    pub(crate) fn take_over(
        new: &mut [Self],
        other: &Mapped,
        facts: &Facts,
    ) -> (Recovery, usize, usize) {
        let shards = u16::try_from(new.len()).expect("a segment's writers");
        let table = Table::new(other.clone(), facts.geometry, facts.hash_seed);
        let (mut old, recovery) = Core::recover(table);
        let mut damaged = old.verify(0, usize::MAX).dropped;
        let mut value = Vec::new();
        let mut left_out = 0;
        old.scan(0, usize::MAX, &mut |item| {
            let ScanItem { key, partition, deadline, mark, near, .. } = item;
            if near {
                return; // It comes again with its first use.
            }
            if old.get(key, &mut value).is_none() {
                damaged += 1; // Just now, by somebody else.
                return;
            }
            let times = (deadline, mark);
            let core = &mut new[usize::from(shard_of(partition, shards))].core;
            let put = core.put(key, partition, &value, times, Admission::Reserve);
            left_out += usize::from(put.is_err());
        });
        if facts.shard == 0 {
            for words in new.iter().map(|writer| writer.core.words()) {
                if other.load(word!(clock_domain)) == words.load(word!(clock_domain)) {
                    words.store(word!(clock_offset), other.load(word!(clock_offset)));
                }
            }
        }
        (recovery, damaged, left_out)
    }

    /// Stores a value. `deadline` is in milliseconds of the hybrid clock, 0 for never; `mark` is the caller's.
    ///
    /// Readers find the old entry or the new one, and nothing in between, and so does a successor after a crash.
    ///
    /// # Errors
    ///
    /// Everything is as before. [`PutError::Full`] can be helped by removing something, and [`PutError::Unreserved`] by
    /// [`Region::reserve`].
    ///
    /// # Panics
    ///
    /// If `partition` is not below [`PARTITIONS`].
    pub fn put(
        &mut self,
        key: &[u8],
        partition: u16,
        value: &[u8],
        deadline: u64,
        mark: u64,
    ) -> Result<Put, PutError> {
        self.put_as(Admission::Ordinary, key, partition, value, (deadline, mark))
    }

    /// Stores a value for somebody who may take more room than others, or less. As [`put`](Self::put) otherwise; the two
    /// times are deadline and mark.
    ///
    /// # Errors
    ///
    /// As for [`put`](Self::put). A full table takes updates of what it holds, as long as it has records for their blocks.
    ///
    /// # Panics
    ///
    /// If `partition` is not below [`PARTITIONS`].
    pub fn put_as(
        &mut self,
        admission: Admission,
        key: &[u8],
        partition: u16,
        value: &[u8],
        times: (u64, u64),
    ) -> Result<Put, PutError> {
        if !self.is_reserved {
            if !self.is_reserved() {
                return Err(PutError::Unreserved);
            }
            self.is_reserved = true;
        }
        self.core.put(key, partition, value, times, admission)
    }

    /// Whether there is memory for entries; see [`Region::is_reserved`]. What was reserved once stays.
    pub fn is_reserved(&self) -> bool {
        self.core.words().region().is_reserved()
    }

    /// Copies a key's value into `value` (cleared first). Expired entries are found too.
    pub fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Option<Found> {
        self.core.get(key, value)
    }

    /// As [`get`](Self::get), to go on with what was found without looking for it again. If a value of about
    /// `expected` bytes is going to be put in its place, say so: memory for it is asked for meanwhile.
    pub fn occupied<'k>(
        &mut self,
        key: &'k [u8],
        value: &mut Vec<u8>,
        expected: Option<usize>,
    ) -> Option<Occupied<'_, 'k>> {
        let (place, id) = self.core.seek(key, value, expected)?;
        Some(Occupied { core: &mut self.core, key, place, id })
    }

    /// Changes an entry's deadline and mark in place. Returns whether there is one.
    ///
    /// Each of the two is stored at once, but not both: a reader, or a successor after a crash, may find the new
    /// deadline with the old mark.
    pub fn set_times(&mut self, key: &[u8], deadline: u64, mark: u64) -> bool {
        self.core.set_times(key, deadline, mark)
    }

    /// Changes an entry's mark in place. Returns whether there is one.
    pub fn change_mark(&mut self, key: &[u8], change: impl FnOnce(u64) -> u64) -> bool {
        self.core.change_mark(key, change)
    }

    /// Removes an entry. Returns whether there was one.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.core.remove(key)
    }

    /// Number of entries of a partition.
    #[inline]
    pub fn partition_len(&self, partition: u16) -> usize {
        self.core.partition_len(partition)
    }

    /// Visits the entries of a partition, at a cost of their number, in no particular order.
    pub fn partition_keys(&self, partition: u16, visit: &mut dyn FnMut(ScanItem<'_>)) {
        self.core.partition_keys(partition, visit);
    }

    /// Visits entries from `cursor` (0 to begin) on, whole lines at a time, until about `budget` were visited, and
    /// returns the cursor to go on with, 0 at the end.
    ///
    /// An entry that is not written during a pass is visited at least once, unless an insertion moves it to make
    /// room, which happens in nearly full tables; use [`partition_keys`](Self::partition_keys) where all must be
    /// seen.
    pub fn scan(&self, cursor: u64, budget: usize, visit: &mut dyn FnMut(ScanItem<'_>)) -> u64 {
        self.core.scan(cursor, budget, visit)
    }

    /// Offers expired entries to `decide`, and removes those for which it returns true, until `budget` entries whose
    /// time seemed to have come were looked at. Returns how many were removed.
    ///
    /// Costs the number of entries looked at, whatever the table holds. An entry is offered within
    /// [`EXPIRY_LATENESS_MS`] after its deadline, and again soon if it was not removed.
    pub fn remove_expired(
        &mut self,
        now_hybrid_ms: u64,
        budget: usize,
        decide: &mut dyn FnMut(ExpiredItem<'_>) -> bool,
    ) -> usize {
        self.core.remove_expired(now_hybrid_ms, budget, decide)
    }

    /// As [`remove_expired`](Self::remove_expired), for who knows when an entry that stays is to be offered again. Until then
    /// it is not offered here; but there it is, and by [`make_room`](Self::make_room), before all others.
    pub fn settle_expired(
        &mut self,
        now_hybrid_ms: u64,
        budget: usize,
        decide: &mut dyn FnMut(ExpiredItem<'_>) -> Fate,
    ) -> usize {
        self.core.settle_expired(now_hybrid_ms, budget, decide)
    }

    /// Drops something, after a [`PutError::Full`] for an entry that needs so many records ([`Full::needed`]): the expired
    /// entries that `decide` lets go, up to a thousand or so, and if that is not enough, or none, near copies, of a few times
    /// as many records and a thousand for who stands in the reserve, each time the coolest of 16 drawn at random, by the `heat`
    /// of their marks. Returns how many went. Live entries that are no near copies are never dropped here.
    pub fn make_room(
        &mut self,
        needed: usize,
        now_hybrid_ms: u64,
        heat: &dyn Fn(u64) -> u64,
        decide: &mut dyn FnMut(ExpiredItem<'_>) -> bool,
    ) -> usize {
        self.core.make_room(needed, now_hybrid_ms, heat, decide)
    }

    /// How many records an entry takes, with a key and a value of these sizes.
    pub fn records_for(&self, key_size: usize, value_size: usize) -> usize {
        self.core.records_for(key_size, value_size)
    }

    /// Visits about `count` entries that are no near copies, drawn at random, other ones at each call.
    pub fn sample(&mut self, count: usize, visit: &mut dyn FnMut(ScanItem<'_>)) {
        self.core.sample_homes(count, visit);
    }

    /// Visits the entry that a reader says it used, if the record is still the same key's as far as its fingerprint
    /// tells (of 65,536 others one is taken for it).
    pub fn used(&self, used: Used, visit: &mut dyn FnMut(ScanItem<'_>)) {
        self.core.visit_used(used, visit);
    }

    /// Checks records against their checksums and index entries, as opening does, a few at a time, and drops those
    /// that are damaged.
    pub fn verify(&mut self, cursor: u64, budget: usize) -> Verified {
        self.core.verify(cursor, budget)
    }

    /// As [`verify`](Self::verify), of the entries of one partition, at a cost of their number; shows those that are
    /// sound to `visit`, in no particular order.
    pub fn verify_partition(
        &mut self,
        partition: u16,
        visit: &mut dyn FnMut(WholeItem<'_>),
    ) -> Verified {
        self.core.verify_partition(partition, visit)
    }

    /// How full the table is.
    pub fn stats(&self) -> TableStats {
        self.core.stats()
    }

    /// The number that identifies this segment among all ever made.
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// The seed of this table's key hash.
    pub fn hash_seed(&self) -> u64 {
        self.hash_seed
    }

    /// Counts the openings of this segment.
    pub fn writer_epoch(&self) -> u64 {
        self.core.words().load(word!(writer_epoch))
    }

    /// The region, or the shard's part of it, for readers in the same process.
    pub fn region(&self) -> Arc<dyn Region> {
        self.core.words().region().clone()
    }

    /// Sets hybrid clock minus monotonic clock, in milliseconds (wrapping), by which readers judge deadlines.
    pub fn set_clock_offset(&mut self, ms: u64) {
        self.core.words().store(word!(clock_offset), ms);
    }

    /// Hybrid clock minus monotonic clock, in milliseconds (wrapping), as readers know it.
    pub fn clock_offset(&self) -> u64 {
        self.core.words().load(word!(clock_offset))
    }

    /// Lets readers trust a partition's entries until a time of the monotonic clock in milliseconds; 0 is never.
    ///
    /// A reader that sees the new time sees all that was written before this call.
    ///
    /// # Panics
    ///
    /// If `partition` is not below [`PARTITIONS`].
    pub fn set_freshness(&mut self, partition: u16, until_monotonic_ms: u64) {
        assert!(usize::from(partition) < PARTITIONS, "a partition below {PARTITIONS}");
        self.core.set_freshness(partition, until_monotonic_ms);
    }

    /// Until when readers trust a partition.
    ///
    /// # Panics
    ///
    /// If `partition` is not below [`PARTITIONS`].
    #[inline]
    pub fn freshness(&self, partition: u16) -> u64 {
        assert!(usize::from(partition) < PARTITIONS, "a partition below {PARTITIONS}");
        self.core.freshness(partition)
    }

    /// Says who owns the segment, for messages; the first 64 bytes count.
    pub fn set_owner_note(&mut self, note: &str) {
        header::set_owner_note(self.core.words(), note);
    }

    /// Gives the segment up for good, which any of its writers can: readers are told to leave, and it is never opened again.
    pub fn retire(self) {
        header::retire(self.core.words());
    }
}

impl Occupied<'_, '_> {
    /// The entry without its value.
    pub fn found(&self) -> Found {
        self.core.found(self.id)
    }

    /// Puts a value in its place, as [`Writer::put_as`]; the partition stays.
    ///
    /// # Errors
    ///
    /// As for [`Writer::put_as`].
    pub fn put_as(
        self,
        admission: Admission,
        value: &[u8],
        times: (u64, u64),
    ) -> Result<Put, PutError> {
        self.core.replace(self.key, self.place, self.id, value, times, admission)
    }

    /// Changes its deadline and mark in place, as [`Writer::set_times`].
    pub fn set_times(self, deadline: u64, mark: u64) {
        self.core.set_times_at(self.id, deadline, mark);
    }
}
