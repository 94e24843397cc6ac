//! What is asked: the table, and what a user would pick instead, each behind the same call.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::time::Instant;

use annulus_shm::{Lookup, Reader};
use anyhow::ensure;
use rustix::time::{ClockId, clock_gettime};

use super::data::{Key, Requests, Sizes, VALUE_MAX};
use super::mapping::Mapping;
use crate::entries::VALUE_BYTES;

/// Something that answers requests, each with a copy of the value in memory of its own.
pub(super) trait Subject {
    /// The value of the request at this place of the order.
    fn get(&mut self, at: usize, key: &Key) -> Option<&[u8]>;
}

/// Nanoseconds per request where one may begin before the last is done.
pub(super) fn independent(
    subject: &mut (impl Subject + ?Sized),
    requests: &Requests,
) -> anyhow::Result<f64> {
    let mut found = 0;
    let began = Instant::now();
    for (at, key) in requests.keys.iter().enumerate() {
        let value = subject.get(at, key);
        found += usize::from(value.is_some());
        black_box(value);
    }
    let took = per_request_ns(began, requests.keys.len());
    let expected = if requests.present { requests.keys.len() } else { 0 };
    ensure!(found == expected, "{found} found where {expected} are");
    Ok(took)
}

/// Nanoseconds per request where the next key is only known from the value before.
pub(super) fn dependent(
    subject: &mut (impl Subject + ?Sized),
    requests: &Requests,
) -> anyhow::Result<f64> {
    // Nothing of the value is left, but neither compiler nor processor knows that.
    let nothing = black_box(0_u64);
    let mut at = 0;
    let mut found = 0;
    let began = Instant::now();
    while let Some(key) = requests.keys.get(at) {
        at += 1;
        if let Some(value) = subject.get(at - 1, key) {
            found += 1;
            let last = value.last_chunk().copied().map_or(0, u64::from_le_bytes);
            at += (last & nothing) as usize;
        }
    }
    let took = per_request_ns(began, requests.keys.len());
    ensure!(found == requests.keys.len(), "{found} found of {}", requests.keys.len());
    Ok(took)
}

/// Compares every answer with what was stored; brings everything into the mapping and the caches.
pub(super) fn compare(
    subject: &mut (impl Subject + ?Sized),
    requests: &Requests,
    sizes: Sizes,
) -> anyhow::Result<()> {
    let mut buffer = [0; VALUE_MAX];
    for (at, (key, number)) in requests.keys.iter().zip(&requests.numbers).enumerate() {
        let expected = requests.present.then(|| sizes.value(*number, &mut buffer));
        ensure!(subject.get(at, key) == expected, "an answer that was never stored");
    }
    Ok(())
}

pub(super) fn per_request_ns(began: Instant, requests: usize) -> f64 {
    began.elapsed().as_secs_f64() * 1e9 / requests as f64
}

/// The table in shared memory, as any process reads it.
pub(super) struct Ours<'a> {
    reader: &'a Reader,
    value: [u8; VALUE_MAX],
}

impl<'a> Ours<'a> {
    pub(super) fn new(reader: &'a Reader) -> Self {
        Self { reader, value: [0; VALUE_MAX] }
    }
}

impl Subject for Ours<'_> {
    #[inline]
    fn get(&mut self, _: usize, key: &Key) -> Option<&[u8]> {
        match self.reader.get_into(key, now_ms(), &mut self.value) {
            Lookup::Hit(hit) => Some(&self.value[..hit.value_size]),
            _ => None,
        }
    }
}

/// Nanoseconds per request where the table is asked for 16 keys at a time.
pub(super) fn batched(reader: &Reader, requests: &Requests) -> anyhow::Result<f64> {
    const BATCH: usize = 16;
    let mut found = 0;
    let mut value = Vec::with_capacity(VALUE_MAX);
    let began = Instant::now();
    for keys in requests.keys.chunks(BATCH) {
        let mut batch: [&[u8]; BATCH] = [&[]; BATCH];
        for (place, key) in batch.iter_mut().zip(keys) {
            *place = key;
        }
        reader.get_many(&batch[..keys.len()], now_ms(), &mut value, &mut |_, lookup, value| {
            found += usize::from(matches!(lookup, Lookup::Hit(_)));
            black_box(value);
        });
    }
    let took = per_request_ns(began, requests.keys.len());
    let expected = if requests.present { requests.keys.len() } else { 0 };
    ensure!(found == expected, "{found} found where {expected} are");
    Ok(took)
}

/// The clock that a lookup is handed, and pays for.
#[inline]
pub(super) fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

/// What the memory allows: a copy of 256 bytes out of the segment, at a place known beforehand.
pub(super) struct Floor<'a> {
    mapping: &'a Mapping,
    places: Vec<usize>,
    value: [u8; VALUE_BYTES],
}

impl<'a> Floor<'a> {
    /// Places as many and as often asked for as the keys are.
    pub(super) fn new(mapping: &'a Mapping, requests: &Requests) -> Self {
        const LINE: usize = 64;
        let stride = VALUE_BYTES + LINE;
        let count = mapping.size() / stride - 1;
        let place = |number: &u64| *number as usize % count * stride;
        let places = requests.numbers.iter().map(place).collect();
        Self { mapping, places, value: [0; VALUE_BYTES] }
    }
}

impl Subject for Floor<'_> {
    #[inline]
    fn get(&mut self, at: usize, _: &Key) -> Option<&[u8]> {
        self.mapping.copy(self.places[at], &mut self.value);
        Some(&self.value)
    }
}

/// What the memory allows a table whose index is as large as this one's: a line of the index, at a place known
/// beforehand, and then a copy of 256 bytes, as [`Floor`], from where only the line tells.
pub(super) struct IndexedFloor<'a> {
    floor: Floor<'a>,
    lines: Vec<usize>,
    /// Nothing of the line is left, but neither compiler nor processor knows that.
    nothing: usize,
}

impl<'a> IndexedFloor<'a> {
    pub(super) fn new(mapping: &'a Mapping, requests: &Requests, entries: u64) -> Self {
        const LINE: usize = 64;
        /// Where the index begins: after a page and a word for each partition.
        const INDEX: usize = 4096 + annulus_shm::PARTITIONS * 8;
        let count = entries as usize / annulus_shm::WAYS;
        let line = |number: &u64| {
            let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            INDEX + mixed as usize % count * LINE
        };
        let lines = requests.numbers.iter().map(line).collect();
        Self { floor: Floor::new(mapping, requests), lines, nothing: black_box(0) }
    }
}

impl Subject for IndexedFloor<'_> {
    #[inline]
    fn get(&mut self, at: usize, _: &Key) -> Option<&[u8]> {
        let mut header = [0; 8];
        self.floor.mapping.copy(self.lines[at], &mut header);
        let at = self.floor.places[at] + (usize::from_le_bytes(header) & self.nothing);
        self.floor.mapping.copy(at, &mut self.floor.value);
        Some(&self.floor.value)
    }
}

/// A map of the standard library, which one thread at a time may use, and no other process.
pub(super) struct Unlocked<'a, S> {
    pub(super) map: &'a HashMap<Key, [u8; VALUE_BYTES], S>,
    pub(super) value: [u8; VALUE_BYTES],
}

impl<S: BuildHasher> Subject for Unlocked<'_, S> {
    #[inline]
    fn get(&mut self, _: usize, key: &Key) -> Option<&[u8]> {
        self.value.copy_from_slice(self.map.get(key)?);
        Some(&self.value)
    }
}
