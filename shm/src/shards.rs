//! A segment of several shards: which key is where, and all of them as one.
//!
//! Shards lie one behind the other in their segment, of equal size. Each is a whole table with a header of its own, and
//! knows nothing of the others but how many there are; all that makes them one segment is here and in `file`.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::file::{AttachError, Carried};
use crate::header::{self, Facts, OpenError};
use crate::layout::{Geometry, PARTITIONS, TableOptions, shard_of};
use crate::reader::{Hit, Lookup, Reader, SegmentStats, Standing, look_up_many};
use crate::region::{Region, Window};
use crate::table::Table;
use crate::words::{Mapped, Target, Words as _};
use crate::writer::{CreateError, Recovery, ScanItem, Writer};

/// Looks keys up in all shards of a segment, as [`Reader`] does in one.
///
/// In a segment with one shard nobody asks for a key's partition, and a lookup costs what the reader's does.
pub struct Shards {
    first: Reader,
    others: Box<[Reader]>,
    partition_of: fn(&[u8]) -> u16,
}

impl Shards {
    /// Attaches to a mapped segment. `partition_of` names the partition that a key was put under, or its lookups miss.
    ///
    /// # Errors
    ///
    /// Says why the region is no segment that this version can read.
    pub fn attach(
        region: Arc<dyn Region>,
        partition_of: fn(&[u8]) -> u16,
    ) -> Result<Self, OpenError> {
        let clock_domain = region.clock_domain();
        let mut readers = inspect(&region)?
            .into_iter()
            .map(|(words, facts)| Reader::of_shard(words, &facts, clock_domain));
        let first = readers.next().expect("a segment has a shard")?;
        Ok(Self { first, others: readers.collect::<Result<_, _>>()?, partition_of })
    }

    /// Opens a segment's file read-only and attaches to it; see [`attach`](Self::attach).
    ///
    /// # Errors
    ///
    /// The file cannot be opened or mapped, or is no segment that this version can read.
    pub fn attach_file(
        path: impl AsRef<Path>,
        partition_of: fn(&[u8]) -> u16,
    ) -> Result<Self, AttachError> {
        crate::file::attach(path.as_ref(), partition_of)
    }

    /// How many shards there are.
    pub fn count(&self) -> u16 {
        self.others.len() as u16 + 1
    }

    /// The readers of all shards, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Reader> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The reader of a shard; of the first, if there are not so many.
    #[inline]
    pub fn shard(&self, shard: u16) -> &Reader {
        let other = usize::from(shard).checked_sub(1).and_then(|other| self.others.get(other));
        other.unwrap_or(&self.first)
    }

    /// The shard that a key is in, if it is anywhere.
    #[inline]
    pub fn of(&self, key: &[u8]) -> u16 {
        if self.others.is_empty() { 0 } else { shard_of((self.partition_of)(key), self.count()) }
    }

    /// The one reader of a segment with one shard; `None` if it has several.
    pub fn only(self) -> Option<Reader> {
        self.others.is_empty().then_some(self.first)
    }

    /// The number that identifies this segment among all ever made.
    pub fn instance(&self) -> u64 {
        self.first.instance()
    }

    /// Counts the openings by a writer. A change means that the writer was restarted.
    pub fn writer_epoch(&self) -> u64 {
        self.first.writer_epoch()
    }

    /// Whether the writer gave this segment up: drop this and attach again by path. Looks at every shard.
    pub fn detached(&self) -> bool {
        self.iter().any(Reader::detached)
    }

    /// What the writer says about itself, for messages only.
    pub fn owner_note(&self) -> String {
        self.first.owner_note()
    }

    /// The counters that the writers publish, summed. Each is exact at some moment, not all at the same one.
    pub fn stats(&self) -> SegmentStats {
        self.others.iter().fold(self.first.stats(), |sum, reader| {
            let more = reader.stats();
            // A stranger's numbers, and only for displays.
            SegmentStats {
                entries: sum.entries.wrapping_add(more.entries),
                bytes_live: sum.bytes_live.wrapping_add(more.bytes_live),
                blocks: sum.blocks.wrapping_add(more.blocks),
                segment_bytes: sum.segment_bytes + more.segment_bytes,
            }
        })
    }

    /// Looks a key up; see [`Reader::get`].
    #[inline]
    pub fn get(&self, key: &[u8], now_monotonic_ms: u64, value: &mut Vec<u8>) -> Lookup {
        if self.others.is_empty() {
            return self.first.get(key, now_monotonic_ms, value);
        }
        let lookup = self.look_up(key, now_monotonic_ms, value);
        if !matches!(lookup, Lookup::Hit(_)) {
            value.clear();
        }
        lookup
    }

    /// Looks a key up and copies the value to the front of `value`; see [`Reader::get_into`].
    #[inline]
    pub fn get_into(&self, key: &[u8], now_monotonic_ms: u64, mut value: &mut [u8]) -> Lookup {
        if self.others.is_empty() {
            return self.first.get_into(key, now_monotonic_ms, value);
        }
        self.look_up(key, now_monotonic_ms, &mut value)
    }

    /// Looks a key up in one of several shards. Not inlined, so that it costs nobody anything who has only one.
    #[inline(never)]
    fn look_up(&self, key: &[u8], now_monotonic_ms: u64, value: &mut impl Target) -> Lookup {
        // All have the same seed, so that the hash need not wait for the shard.
        let hash = self.first.hash(key);
        let shard = self.of(key);
        in_shard(self.shard(shard).lookup_hashed(key, hash, now_monotonic_ms, value), shard)
    }

    /// Looks several keys up, of whatever shards; see [`Reader::get_many`].
    pub fn get_many(
        &self,
        keys: &[&[u8]],
        now_monotonic_ms: u64,
        value: &mut Vec<u8>,
        found: &mut dyn FnMut(usize, Lookup, &[u8]),
    ) {
        if self.others.is_empty() {
            return self.first.get_many(keys, now_monotonic_ms, value, found);
        }
        let (shard_of, reader_of) = (|key: &[u8]| self.of(key), |shard| self.shard(shard));
        look_up_many(keys, now_monotonic_ms, value, shard_of, reader_of, found);
    }

    /// Visits entries of all shards, one shard after the other; see [`Reader::scan`].
    pub fn scan(
        &self,
        cursor: u64,
        budget: usize,
        now_monotonic_ms: u64,
        visit: &mut dyn FnMut(ScanItem<'_>, Standing),
    ) -> u64 {
        let (mut shard, mut line) = (cursor >> LINE_BITS, cursor & LINE_MASK);
        let mut visited = 0;
        while shard < self.count().into() {
            let left = budget.saturating_sub(visited);
            if visited > 0 && left == 0 {
                return shard << LINE_BITS | line;
            }
            let visit = &mut |item: ScanItem<'_>, standing| {
                visited += 1;
                visit(item, standing);
            };
            line = self.shard(shard as u16).scan(line, left, now_monotonic_ms, visit);
            if line != 0 {
                return shard << LINE_BITS | line;
            }
            shard += 1;
        }
        0
    }
}

/// A scan's cursor names a line by its low bits, and the shard by the high ones.
const LINE_BITS: u32 = 32;
const LINE_MASK: u64 = (1 << LINE_BITS) - 1;

/// What was found in a shard, said of the segment.
#[inline]
pub(crate) fn in_shard(lookup: Lookup, shard: u16) -> Lookup {
    match lookup {
        Lookup::Hit(hit) => Lookup::Hit(Hit { used: hit.used.in_shard(shard), ..hit }),
        other => other,
    }
}

/// Makes a new table in a region, whatever was there, and returns the writers of its shards, in their order.
///
/// They may go to different threads: each writes its own shard only. The caller sees to it that no other writer uses the
/// region ([`open_or_create`](crate::open_or_create) does, by a file lock).
///
/// # Errors
///
/// The options describe no table, or the region does not fit them. Nothing was written.
pub fn create_shards(
    region: &Arc<dyn Region>,
    options: &TableOptions,
) -> Result<Vec<Writer>, CreateError> {
    let geometry = Geometry::plan(options)?;
    if !region.writable() {
        return Err(CreateError::NotWritable);
    }
    let (found, needed) = (region.len() as u64, geometry.shape.segment_bytes);
    if found < needed {
        return Err(CreateError::RegionSize { found, needed });
    }
    let create = |shard| Writer::create_shard(words_of(region, &geometry, shard), options, shard);
    (0..geometry.shape.shards).map(create).collect()
}

/// Opens an existing table, and repairs what a crash left: as [`Writer::open`] does, with all shards, several of them at
/// a time if there are processors for that. The figures are sums.
///
/// # Errors
///
/// The region holds no table, or another one than the options ask for. Nothing was written.
pub fn open_shards(
    region: &Arc<dyn Region>,
    options: &TableOptions,
) -> Result<(Vec<Writer>, Recovery), OpenError> {
    let expected = Geometry::plan(options)?;
    if !region.writable() {
        return Err(OpenError::NotWritable);
    }
    let shards = inspect(region)?;
    if shards.iter().any(|(words, _)| header::is_retired(words)) {
        return Err(OpenError::Retired);
    }
    let found = shards[0].1.geometry;
    if found != expected {
        return Err(OpenError::OtherLayout { found: found.shape, expected: expected.shape });
    }
    let clock_domain = region.clock_domain();
    let mut writers = Vec::new();
    let mut sum = Recovery::default();
    for (writer, recovery) in for_each_shard(&shards, |(words, facts)| {
        Writer::open_shard(words.clone(), facts, clock_domain)
    }) {
        writers.push(writer);
        sum.add(&recovery);
    }
    Ok((writers, sum))
}

/// Copies the entries of a segment that nobody writes into the empty shards of a new one, and the clock offset that their
/// deadlines are judged by. Their contents are checked; near copies are left out. Returns what a recovery of the old one
/// found, what became of its entries, and how many had no room, so that the new one cannot take its place.
///
/// # Errors
///
/// The old region holds no table. Nothing was written.
///
/// # Panics
///
/// If `writers` are none.
pub fn carry_shards(
    old: &Arc<dyn Region>,
    writers: &mut [Writer],
) -> Result<(Recovery, Carried, usize), OpenError> {
    let shards = inspect(old)?;
    let mut sum = Recovery::default();
    let (mut damaged, mut left_out) = (0, 0);
    for (words, facts) in &shards {
        let (recovery, damaged_here, left_out_here) = Writer::take_over(writers, words, facts);
        sum.add(&recovery);
        damaged += damaged_here;
        left_out += left_out_here;
    }
    let entries = writers.iter().map(|writer| writer.stats().entries).sum();
    let from = shards[0].1.geometry.shape;
    Ok((sum, Carried { from, entries, damaged }, left_out))
}

/// Lets readers trust nothing of a segment any more: to be called before another one takes its place, since readers look
/// only at times and not at whether they should leave.
pub(crate) fn withdraw_shards(region: &Arc<dyn Region>) {
    let withdraw = |words: &Mapped, geometry: &Geometry| {
        (0..PARTITIONS).for_each(|partition| words.store(geometry.freshness + partition, 0));
    };
    if let Some(geometry) = geometry_of(region) {
        (0..geometry.shape.shards)
            .for_each(|shard| withdraw(&words_of(region, &geometry, shard), &geometry));
    }
}

/// Tells readers to leave a segment, and to trust nothing of it: all of its shards whose header can be found. It is
/// never opened again.
pub fn retire_shards(region: &Arc<dyn Region>) {
    withdraw_shards(region);
    let retire = |words: &Mapped| {
        if header::is_ours(words) {
            header::retire(words);
        }
    };
    match geometry_of(region) {
        Some(geometry) => {
            (0..geometry.shape.shards).for_each(|shard| retire(&words_of(region, &geometry, shard)))
        }
        None => retire(&Mapped::new(region.clone())),
    }
}

/// How a segment's shards are laid out, if its first header is sound and it is as long as that says.
fn geometry_of(region: &Arc<dyn Region>) -> Option<Geometry> {
    let geometry = header::inspect(&Mapped::new(region.clone())).ok()?.geometry;
    (geometry.shape.segment_bytes <= region.len() as u64).then_some(geometry)
}

/// How a segment is laid out, if its headers are sound, and whether its index says that it holds nothing.
pub(crate) fn look_for_entries(region: &Arc<dyn Region>) -> Option<(Geometry, bool)> {
    let shards = inspect(region).ok()?;
    let is_empty = |(words, facts): &(Mapped, Facts)| {
        let table = Table::new(words.clone(), facts.geometry, facts.hash_seed);
        (0..facts.geometry.buckets).all(|bucket| table.header(bucket).valid() == 0)
    };
    Some((shards[0].1.geometry, shards.iter().all(is_empty)))
}

/// Does something with each shard, on as many threads as there are processors for, and returns what came of it in their
/// order.
fn for_each_shard<S: Sync, T: Send>(shards: &[S], work: impl Fn(&S) -> T + Sync) -> Vec<T> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(shards.len());
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(shard) = shards.get(at) else { break };
            let result = work(shard);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // If there is no thread to be had, this one does it all.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Checks the headers of all shards as one checks a stranger's message: each by itself, and that they agree.
pub(crate) fn inspect(region: &Arc<dyn Region>) -> Result<Vec<(Mapped, Facts)>, OpenError> {
    let first = header::inspect(&Mapped::new(region.clone()))?;
    if first.shard != 0 {
        return Err(OpenError::DamagedHeader("it is not the first shard's"));
    }
    let (found, expected) = (region.len() as u64, first.geometry.shape.segment_bytes);
    if found < expected {
        return Err(OpenError::Truncated { found, expected });
    }
    let inspect = |shard| {
        let words = words_of(region, &first.geometry, shard);
        let facts = header::inspect(&words)?;
        let same = facts.shard == shard
            && facts.geometry == first.geometry
            && (facts.instance, facts.hash_seed) == (first.instance, first.hash_seed);
        if same {
            Ok((words, facts))
        } else {
            Err(OpenError::DamagedHeader("it is another shard's, or another segment's"))
        }
    };
    (0..first.geometry.shape.shards)
        .map(|shard| match inspect(shard) {
            Err(why) if shard > 0 => Err(OpenError::Shard { shard, why: Box::new(why) }),
            inspected => inspected,
        })
        .collect()
}

/// A shard's words, in a region that is large enough for all of them.
fn words_of(region: &Arc<dyn Region>, geometry: &Geometry, shard: u16) -> Mapped {
    if geometry.shape.shards == 1 {
        return Mapped::new(region.clone());
    }
    let size = usize::try_from(geometry.shard_bytes()).expect("the region has as many bytes");
    Mapped::new(Arc::new(Window::new(region.clone(), usize::from(shard) * size, size)))
}
