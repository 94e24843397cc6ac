//! The segment's layout, in one place: sizes, offsets, and how words are packed. Drawn in `docs/segment.md`.
//!
//! Everything is a 64-bit word in the machine's own byte order, and every offset in this module is an index of
//! words unless its name says bytes. A change of anything here is a new [`LAYOUT_VERSION`].

use std::fmt;
use std::mem::{offset_of, size_of};

/// Number of partitions that a table's keys are divided into.
pub const PARTITIONS: usize = 16384;
/// Most shards that a segment can have.
pub const SHARDS_MAX: u16 = 64;
/// Longest key, in bytes; the shortest is 1.
pub const KEY_MAX: usize = 255;
/// Largest `max_value` that a table may ask for, in bytes.
pub const VALUE_MAX: u32 = (2 << 20) + (4 << 10);
/// Records per index line.
pub const WAYS: usize = 28;
/// Smallest `record_size`, in bytes.
pub const RECORD_SIZE_MIN: u32 = 64;
/// Largest `record_size`, in bytes.
pub const RECORD_SIZE_MAX: u32 = 1 << 16;
/// Version of the layout. Segments of another version are never read.
pub const LAYOUT_VERSION: u64 = 4;

/// What a table should look like. Give the same values at each opening: a segment of another shape is set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// Size of the whole segment in bytes, all of it reserved at creation; rounded down to equal shards of whole
    /// 4096-byte pages, or of whole huge pages of 2 MiB if there are several shards of 64 MiB or more.
    pub segment_bytes: u64,
    /// Shards of the segment, 1 to [`SHARDS_MAX`]: each is a table of its own with its own writer, and takes the keys
    /// that [`shard_of`] sends there. More of them let more threads write; each may be full by itself.
    pub shards: u16,
    /// Bytes per record: a 32-byte header, the key and the value, each padded to 8. What is longer
    /// continues in other records, at one more access to memory for each. A multiple of 8, [`RECORD_SIZE_MIN`] to
    /// [`RECORD_SIZE_MAX`].
    pub record_size: u32,
    /// Longest value in bytes, at most [`VALUE_MAX`].
    pub max_value: u32,
    /// Identifies this segment among all ever made; draw it at random. Ignored by an opening of an existing one.
    pub instance: u64,
    /// Seed of the key hash; draw it at random, or strangers can choose keys that collide. Ignored likewise.
    pub hash_seed: u64,
}

impl TableOptions {
    /// The development table: one shard of 8 MiB, records of 512 bytes, values up to 64 KiB.
    pub fn new(instance: u64, hash_seed: u64) -> Self {
        Self {
            segment_bytes: 8 << 20,
            shards: 1,
            record_size: 512,
            max_value: 64 << 10,
            instance,
            hash_seed,
        }
    }
}

/// Why [`TableOptions`] describe no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// The segment cannot hold the smallest table of this shape.
    #[error(
        "segment_bytes = {segment_bytes} is too small for this table: it needs at least {needed} bytes"
    )]
    TooSmall {
        /// What was asked for.
        segment_bytes: u64,
        /// The least that works with the other options as they are.
        needed: u64,
    },
    /// The segment would hold more records than 32-bit numbers count.
    #[error("segment_bytes = {segment_bytes} is too large: at most 2^32 records")]
    TooLarge {
        /// What was asked for.
        segment_bytes: u64,
    },
    /// The number of shards is out of range.
    #[error("shards = {0} must be between 1 and {SHARDS_MAX}")]
    Shards(u16),
    /// One writer was asked for, of a segment that has several.
    #[error("shards = {0}, and one writer is of one shard: open them all together")]
    SeveralShards(u16),
    /// The record size is out of range or not a multiple of 8.
    #[error(
        "record_size = {0} must be a multiple of 8 between {RECORD_SIZE_MIN} and {RECORD_SIZE_MAX}"
    )]
    RecordSize(u32),
    /// The longest value is too long.
    #[error("max_value = {0} is above the limit of {VALUE_MAX} bytes")]
    MaxValue(u32),
}

/// The creation parameters of a segment, for messages and comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Size of the segment in bytes, all shards together.
    pub segment_bytes: u64,
    /// Shards, of equal size.
    pub shards: u16,
    /// Bytes per record.
    pub record_size: u32,
    /// Longest value in bytes.
    pub max_value: u32,
    /// Index lines of each shard.
    pub buckets: u32,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment_bytes, shards, record_size, max_value, buckets } = self;
        write!(f, "{segment_bytes} bytes, record_size {record_size}, max_value {max_value}, ")?;
        if *shards != 1 {
            write!(f, "{shards} shards with each ")?;
        }
        write!(f, "{buckets} buckets")
    }
}

/// The first page of a shard. Fixed words first, then the ones that live; each group has its own cache lines.
#[repr(C)]
pub(crate) struct Header {
    // Written once, at creation; `magic` last, so that an unfinished shard is recognised.
    pub(crate) magic: u64,
    pub(crate) layout: u64,
    pub(crate) byte_order: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) instance: u64,
    pub(crate) hash_seed: u64,
    pub(crate) record_size: u64,
    pub(crate) max_value: u64,
    pub(crate) buckets: u64,
    pub(crate) freshness_at: u64,
    pub(crate) lines_at: u64,
    pub(crate) records_at: u64,
    /// The shard's number in the high half, the number of shards in the low one.
    pub(crate) shard: u64,
    pub(crate) checksum: u64,
    _fixed_rest: [u64; 2],
    // Read by every lookup or attachment, written rarely.
    pub(crate) clock_offset: u64,
    pub(crate) writer_epoch: u64,
    pub(crate) state: u64,
    pub(crate) clock_domain: u64,
    _rare_rest: [u64; 4],
    pub(crate) owner_note: [u64; NOTE_WORDS],
    // Written by every change, read for status only.
    pub(crate) entries: u64,
    pub(crate) bytes_live: u64,
    pub(crate) blocks_used: u64,
    /// The move under way: the record's old number in the high half, its new one in the low; 0 when there is none.
    pub(crate) moving: u64,
    _counters_rest: [u64; 4],
}

/// The index of a header word.
macro_rules! word {
    ($field:ident) => {
        std::mem::offset_of!($crate::layout::Header, $field) / 8
    };
}
pub(crate) use word;

/// `annulus\0` as the file's first 8 bytes, whatever the byte order.
pub(crate) const MAGIC: u64 = u64::from_ne_bytes(*b"annulus\0");
/// Reads back as another number on a machine of the other byte order.
pub(crate) const BYTE_ORDER: u64 = 0x0102_0304_0506_0708;
/// Words covered by the header's checksum: all fixed ones before it.
pub(crate) const FIXED_WORDS: usize = offset_of!(Header, checksum) / 8;
/// Words of the owner note.
pub(crate) const NOTE_WORDS: usize = 8;
/// `Header::state` of a segment that readers should leave.
pub(crate) const STATE_RETIRED: u64 = 1;

pub(crate) const PAGE: u64 = 4096;
pub(crate) const LINE_WORDS: usize = 8;
/// "No block" where a block's number would be.
pub(crate) const NONE: u32 = u32::MAX;

/// A record's first word: low half sequence number (odd: not live), high half checksum, or what a block links to.
pub(crate) const STAMP: usize = 0;
pub(crate) const DEADLINE: usize = 1;
pub(crate) const MARK: usize = 2;
/// The packed [`RecordShape`].
pub(crate) const SHAPE: usize = 3;
pub(crate) const RECORD_HEADER: usize = 4;

const _: () = assert!(size_of::<Header>() <= PAGE as usize);
const _: () =
    assert!(offset_of!(Header, clock_offset) == 128 && offset_of!(Header, owner_note) == 192);
const _: () = assert!(offset_of!(Header, entries).is_multiple_of(64));
const _: () = assert!(LINE_WORDS * 8 == 8 + WAYS * 2);
const _: () = assert!((VALUE_MAX as u64) < 1 << 24 && KEY_MAX < 1 << 8 && PARTITIONS == 1 << 14);
const _: () = assert!(RECORD_SIZE_MIN as usize >= (RECORD_HEADER + 2) * 8);

/// Where everything is in a shard. Copied into private memory at opening and never read from the segment again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) shape: Shape,
    pub(crate) buckets: usize,
    pub(crate) record_words: usize,
    pub(crate) freshness: usize,
    pub(crate) lines: usize,
    pub(crate) records: usize,
}

impl Geometry {
    /// Divides a segment, and each of its shards, as the options ask.
    pub(crate) fn plan(options: &TableOptions) -> Result<Self, OptionsError> {
        let &TableOptions { segment_bytes, shards, record_size, max_value, .. } = options;
        if !(1..=SHARDS_MAX).contains(&shards) {
            return Err(OptionsError::Shards(shards));
        }
        if !(RECORD_SIZE_MIN..=RECORD_SIZE_MAX).contains(&record_size)
            || !record_size.is_multiple_of(8)
        {
            return Err(OptionsError::RecordSize(record_size));
        }
        if max_value > VALUE_MAX {
            return Err(OptionsError::MaxValue(max_value));
        }
        let record_words = record_size as usize / 8;
        let largest = 1 + blocks_for(record_words, payload_words(KEY_MAX, max_value as usize));
        let bucket_bytes = (LINE_WORDS * 8 + WAYS * record_size as usize) as u64;
        let fixed = PAGE + (PARTITIONS * 8) as u64;
        let total = whole_pages(segment_bytes / u64::from(shards), shards);
        let least = (fixed + buckets_for(largest) * bucket_bytes).next_multiple_of(PAGE);
        if total < least {
            // What is cut to whole huge pages must be so much before.
            let cut = whole_pages(least, shards) < least;
            let least = if cut { least.next_multiple_of(HUGE_PAGE) } else { least };
            let needed = least * u64::from(shards);
            return Err(OptionsError::TooSmall { segment_bytes, needed });
        }
        let too_large = OptionsError::TooLarge { segment_bytes };
        let Ok(buckets) = u32::try_from((total - fixed) / bucket_bytes) else {
            return Err(too_large);
        };
        let segment_bytes = total * u64::from(shards);
        Self::new(Shape { segment_bytes, shards, record_size, max_value, buckets }).ok_or(too_large)
    }

    /// Lays out a shape, which may come from a stranger's header. `None` if it is no possible shape.
    pub(crate) fn new(shape: Shape) -> Option<Self> {
        let Shape { segment_bytes, shards, record_size, max_value, buckets } = shape;
        let shards_ok = (1..=SHARDS_MAX).contains(&shards)
            && segment_bytes.is_multiple_of(u64::from(shards) * PAGE);
        let record_ok = (RECORD_SIZE_MIN..=RECORD_SIZE_MAX).contains(&record_size)
            && record_size.is_multiple_of(8);
        let records = u64::from(buckets).checked_mul(WAYS as u64)?;
        if !(record_ok && shards_ok)
            || max_value > VALUE_MAX
            || buckets < 2
            || records >= u64::from(NONE)
        {
            return None;
        }
        let freshness_at = PAGE;
        let lines_at = freshness_at + (PARTITIONS * 8) as u64;
        let records_at = lines_at + u64::from(buckets) * (LINE_WORDS * 8) as u64;
        let end = records_at.checked_add(records.checked_mul(u64::from(record_size))?)?;
        if end > segment_bytes / u64::from(shards) {
            return None;
        }
        let word = |bytes: u64| usize::try_from(bytes / 8).ok();
        Some(Self {
            shape,
            buckets: buckets as usize,
            record_words: record_size as usize / 8,
            freshness: word(freshness_at)?,
            lines: word(lines_at)?,
            records: word(records_at)?,
        })
    }

    /// Size of each shard in bytes.
    pub(crate) fn shard_bytes(&self) -> u64 {
        self.shape.segment_bytes / u64::from(self.shape.shards)
    }

    /// The first line and the fingerprint of a key with this hash.
    #[inline]
    pub(crate) fn place(&self, hash: u64) -> Place {
        // Multiply-shift over independent halves; the tag takes the low bits, which `first` does not use.
        Place { first: self.scale(hash), tag: hash as u16, hash }
    }

    /// The second line of a key: always another than the first.
    #[inline]
    pub(crate) fn second(&self, place: Place) -> usize {
        let hash = place.hash;
        let second = self.scale((hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9));
        if second == place.first { (second + 1) % self.buckets } else { second }
    }

    #[inline]
    fn scale(&self, hash: u64) -> usize {
        (((hash >> 32) * self.buckets as u64) >> 32) as usize
    }

    #[inline]
    pub(crate) fn line(&self, bucket: usize) -> usize {
        debug_assert!(bucket < self.buckets);
        self.lines + bucket * LINE_WORDS
    }

    #[inline]
    pub(crate) fn record(&self, id: RecordId) -> usize {
        debug_assert!(id.bucket < self.buckets && id.way < WAYS);
        self.records + id.number() * self.record_words
    }

    /// The words of a record that is a block.
    #[inline]
    pub(crate) fn block(&self, block: u32) -> usize {
        debug_assert!((block as usize) < self.records_count());
        self.records + block as usize * self.record_words
    }

    /// Payload words of a block: all but the first.
    #[inline]
    pub(crate) fn block_payload(&self) -> usize {
        self.record_words - 1
    }

    pub(crate) fn blocks_for(&self, key_size: usize, value_size: usize) -> usize {
        blocks_for(self.record_words, payload_words(key_size, value_size))
    }

    /// Records that can be taken: each line keeps one free.
    pub(crate) fn capacity(&self) -> usize {
        self.buckets * (WAYS - 1)
    }

    /// Records that only those take who may use the reserve.
    pub(crate) fn reserve(&self) -> usize {
        self.capacity() / RESERVE_PART
    }

    /// Records that all others may take.
    pub(crate) fn ordinary(&self) -> usize {
        self.capacity() - self.reserve()
    }

    pub(crate) fn records_count(&self) -> usize {
        self.buckets * WAYS
    }
}

/// The shard that keys of a partition are in.
///
/// Partitions that are neighbours may be placed on the same nodes, so neighbours are in different shards: each core of a
/// node has its share of what the node has.
#[inline]
pub fn shard_of(partition: u16, shards: u16) -> u16 {
    partition % shards
}

/// What a shard of so many bytes is rounded down to: the next one begins there. Huge pages should lie in one shard only,
/// unless shards are so small that whole ones would waste much.
fn whole_pages(shard_bytes: u64, shards: u16) -> u64 {
    let whole = if shards > 1 && shard_bytes >= 32 * HUGE_PAGE { HUGE_PAGE } else { PAGE };
    shard_bytes / whole * whole
}

const HUGE_PAGE: u64 = crate::region::HUGE_PAGE as u64;
/// One in so many records is kept for those who may use the reserve.
const RESERVE_PART: usize = 64;
/// Free ways that blocks of new entries leave in each line: one for updates, and one for an entry of this line, since
/// to move blocks out of its way is to write another entry anew.
pub(crate) const FREE_BESIDE_BLOCKS: usize = 2;

/// Words that key and value take, each padded to whole words.
pub(crate) fn payload_words(key_size: usize, value_size: usize) -> usize {
    key_size.div_ceil(8) + value_size.div_ceil(8)
}

/// Payload words that stay in the record: all, or all but the one that links to the first block.
pub(crate) fn inline_words(record_words: usize, payload: usize) -> usize {
    let room = record_words - RECORD_HEADER;
    if payload <= room { payload } else { room - 1 }
}

fn blocks_for(record_words: usize, payload: usize) -> usize {
    (payload - inline_words(record_words, payload)).div_ceil(record_words - 1)
}

/// The least number of lines in which an entry of so many records finds room, the reserve left alone. Two at least, so that
/// each key has two.
fn buckets_for(records: usize) -> u64 {
    let room = (WAYS - FREE_BESIDE_BLOCKS) * RESERVE_PART - (WAYS - 1);
    (records * RESERVE_PART).div_ceil(room).max(2) as u64
}

/// A key's first line and fingerprint, and from what its second line follows ([`Geometry::second`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) first: usize,
    pub(crate) tag: u16,
    pub(crate) hash: u64,
}

/// One record, by its place in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordId {
    pub(crate) bucket: usize,
    pub(crate) way: usize,
}

impl RecordId {
    pub(crate) fn number(self) -> usize {
        self.bucket * WAYS + self.way
    }

    pub(crate) fn from_number(number: usize) -> Self {
        Self { bucket: number / WAYS, way: number % WAYS }
    }
}

/// A line's first word: bits 0–27 the valid map, bit 28 "some key of this line lives in its second line",
/// bits 29–63 a counter that every store of the word increments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LineHeader(pub(crate) u64);

impl LineHeader {
    pub(crate) const VALID: u64 = (1 << WAYS) - 1;
    const OVERFLOW: u64 = 1 << WAYS;
    const COUNT_ONE: u64 = 1 << (WAYS + 1);

    pub(crate) fn valid(self) -> u32 {
        (self.0 & Self::VALID) as u32
    }

    #[inline]
    pub(crate) fn is_valid(self, way: usize) -> bool {
        self.0 >> way & 1 == 1 && way < WAYS
    }

    pub(crate) fn overflow(self) -> bool {
        self.0 & Self::OVERFLOW != 0
    }

    /// The next value of this word: another map, the counter moved on (it wraps after 2^35 stores).
    pub(crate) fn next(self, valid: u32, overflow: bool) -> Self {
        let counter = self.0 & !(Self::VALID | Self::OVERFLOW);
        let overflow = if overflow { Self::OVERFLOW } else { 0 };
        Self(counter.wrapping_add(Self::COUNT_ONE) | overflow | (u64::from(valid) & Self::VALID))
    }
}

/// A record's facts, packed into one word: key size 8 bits, partition 14 of 16, flags 2 of 16,
/// value size 24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordShape {
    pub(crate) key_size: u8,
    pub(crate) partition: u16,
    /// Whether it is in its key's second line.
    pub(crate) second: bool,
    /// Whether it is a near copy, which may be dropped to make room.
    pub(crate) near: bool,
    pub(crate) value_size: u32,
}

impl RecordShape {
    const SECOND: u64 = 1 << 24;
    const NEAR: u64 = 1 << 25;
    const UNUSED: u64 = 0x3fff << 26 | 0xc000 << 8;

    pub(crate) fn pack(self) -> u64 {
        debug_assert!(self.value_size <= VALUE_MAX);
        u64::from(self.key_size)
            | u64::from(self.partition) << 8
            | if self.second { Self::SECOND } else { 0 }
            | if self.near { Self::NEAR } else { 0 }
            | u64::from(self.value_size) << 40
    }

    /// Unpacks without believing: `None` where no record could say so.
    #[inline]
    pub(crate) fn unpack(word: u64, max_value: u32) -> Option<Self> {
        Self::is_plausible(word, max_value).then_some(Self {
            key_size: word as u8,
            partition: Self::partition_of(word) as u16,
            second: word & Self::SECOND != 0,
            near: word & Self::NEAR != 0,
            value_size: Self::value_size_of(word) as u32,
        })
    }

    /// Whether a record could say so.
    #[inline]
    pub(crate) fn is_plausible(word: u64, max_value: u32) -> bool {
        let has_key = Self::key_size_of(word) > 0;
        has_key && Self::value_size_of(word) <= max_value as usize && word & Self::UNUSED == 0
    }

    /// Whether a packed shape names this size of key, and nothing that no shape says but for the value's size.
    #[inline]
    pub(crate) fn has_key_of(word: u64, key_size: usize) -> bool {
        word & (Self::UNUSED | 0xff) == key_size as u64
    }

    /// The key's size that a packed shape names, in bytes.
    #[inline]
    pub(crate) fn key_size_of(word: u64) -> usize {
        usize::from(word as u8)
    }

    /// The partition that a packed shape names, whatever else it says: below [`PARTITIONS`] in any case.
    #[inline]
    pub(crate) fn partition_of(word: u64) -> usize {
        (word >> 8) as usize & (PARTITIONS - 1)
    }

    /// The value's size that a packed shape names, in bytes.
    #[inline]
    pub(crate) fn value_size_of(word: u64) -> usize {
        (word >> 40) as usize
    }

    /// What of it stays the same when its record moves to the other line.
    pub(crate) fn lasting(self) -> u64 {
        Self { second: false, ..self }.pack()
    }

    /// Bytes of key and value.
    pub(crate) fn bytes(self) -> u64 {
        u64::from(self.key_size) + u64::from(self.value_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_shape_reads_back() {
        for (second, near) in [(false, false), (false, true), (true, false), (true, true)] {
            let shape = RecordShape {
                key_size: 255,
                partition: 16383,
                second,
                near,
                value_size: VALUE_MAX,
            };
            assert_eq!(RecordShape::unpack(shape.pack(), VALUE_MAX), Some(shape));
            assert_eq!(RecordShape::unpack(shape.pack(), VALUE_MAX - 1), None);
            assert_eq!(RecordShape::unpack(shape.pack() | 1 << 26, VALUE_MAX), None);
        }
    }

    #[test]
    fn line_counter_moves_with_every_store_and_wraps_alone() {
        let last = LineHeader(u64::MAX);
        let next = last.next(0b101, false);
        assert_eq!(next.0, 0b101);
        assert_eq!(next.next(0b101, true).0 >> (WAYS + 1), 1);
    }

    #[test]
    fn least_size_named_by_the_error_is_the_least_that_works() {
        let tables = [(64, VALUE_MAX), (512, 65536), (512, 100), (65536, 0)];
        // The last have shards of more than 64 MiB.
        let tables = tables.map(|table| (1, table)).into_iter();
        for (shards, (record_size, max_value)) in
            tables.chain([(3, (512, 65536)), (64, (65536, 0)), (7, (65536, VALUE_MAX))])
        {
            let options = TableOptions::new(1, 2);
            let mut options = TableOptions { shards, record_size, max_value, ..options };
            options.segment_bytes = 4096;
            let Err(OptionsError::TooSmall { needed, .. }) = Geometry::plan(&options) else {
                panic!("one page is too small");
            };
            options.segment_bytes = needed;
            let geometry = Geometry::plan(&options).expect("the named size works");
            let room = geometry.buckets * (WAYS - FREE_BESIDE_BLOCKS) - geometry.reserve();
            assert!(room > geometry.blocks_for(KEY_MAX, max_value as usize));
            assert_eq!(geometry.shape.segment_bytes, needed);
            options.segment_bytes = needed - 1;
            assert!(Geometry::plan(&options).is_err());
        }
    }

    #[test]
    fn shards_are_equal_and_begin_at_a_huge_page_where_they_are_large() {
        let shard_bytes = |segment_bytes, shards| {
            let options = TableOptions { segment_bytes, shards, ..TableOptions::new(1, 2) };
            let geometry = Geometry::plan(&options).expect("large enough");
            assert_eq!(geometry.shape.segment_bytes, geometry.shard_bytes() * u64::from(shards));
            geometry.shard_bytes()
        };
        assert_eq!(shard_bytes((8 << 20) + 5000, 1), (8 << 20) + 4096);
        assert_eq!(shard_bytes(8 << 20, 3), ((8 << 20) / 3) / 4096 * 4096);
        assert_eq!(shard_bytes((128 << 20) - 1, 2), (64 << 20) - 4096);
        assert_eq!(shard_bytes((128 << 20) + (3 << 20), 2), 64 << 20);
        assert_eq!(shard_bytes((128 << 20) + (4 << 20), 2), 66 << 20);
    }

    #[test]
    fn impossible_options_are_refused() {
        let base = TableOptions::new(1, 2);
        let with = |change: fn(&mut TableOptions)| {
            let mut options = base.clone();
            change(&mut options);
            Geometry::plan(&options).expect_err("impossible")
        };
        assert_eq!(with(|o| o.shards = 0), OptionsError::Shards(0));
        assert_eq!(with(|o| o.shards = 65), OptionsError::Shards(65));
        assert_eq!(with(|o| o.record_size = 60), OptionsError::RecordSize(60));
        assert_eq!(with(|o| o.record_size = 100), OptionsError::RecordSize(100));
        assert_eq!(with(|o| o.max_value = VALUE_MAX + 1), OptionsError::MaxValue(VALUE_MAX + 1));
        assert!(matches!(with(|o| o.segment_bytes = u64::MAX), OptionsError::TooLarge { .. }));
    }
}
