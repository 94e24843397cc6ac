//! The words a segment is made of, and the only operations the protocol uses on them.
//!
//! Four are enough: relaxed loads and stores of 64 bits and two fences. (An acquire *load* would not do: on a
//! mapping that is read-only, Rust promises only relaxed loads; a fence after it gives the same order.) The
//! protocol is generic over them, so that the very same code runs on a mapping, under loom, and in tests that
//! crash it after any store. What else a mapping does is the same in fewer instructions.

#![allow(unsafe_code, reason = "the one place where bytes of a mapping are read and written")]

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::region::Region;

mod machine;

/// An array of 64-bit words that other processes may read and write at any time.
pub(crate) trait Words {
    /// Number of words, always the same.
    fn count(&self) -> usize;
    /// Relaxed load.
    fn load(&self, at: usize) -> u64;
    /// Relaxed store.
    fn store(&self, at: usize, value: u64);
    /// Acquire fence: what was loaded before it is ordered before all that follows.
    fn acquire(&self);
    /// Release fence: all that precedes it is ordered before what is stored after it.
    fn release(&self);

    /// Relaxed load of a word that is known to be there.
    ///
    /// # Safety
    ///
    /// `at` is below [`count`](Self::count).
    #[inline(always)]
    unsafe fn load_unchecked(&self, at: usize) -> u64 {
        self.load(at)
    }

    /// The `count` words from `at` on, checked once to be there.
    #[inline]
    fn run(&self, at: usize, count: usize) -> Run<'_, Self>
    where
        Self: Sized,
    {
        assert!(at <= self.count() && count <= self.count() - at, "words within the segment");
        // SAFETY: they are, as was just checked.
        unsafe { Run::new(self, at, count) }
    }

    /// Asks for the cache line of a word that is to be loaded soon.
    #[inline]
    fn prefetch(&self, _at: usize) {}

    /// Asks for the cache line of a word that is to be stored soon.
    #[inline]
    fn prefetch_for_writing(&self, _at: usize) {}

    /// Copies `size` bytes, which start at word `at`, into `room`.
    ///
    /// # Safety
    ///
    /// Their words are below [`count`](Self::count), and `room` has that much left.
    #[inline(always)]
    unsafe fn read_unchecked(&self, at: usize, size: usize, room: &mut Room<'_>) {
        for word in 0..size.div_ceil(8) {
            let bytes = self.load(at + word).to_ne_bytes();
            room.push(&bytes[..(size - word * 8).min(8)]);
        }
    }

    /// Copies `size` bytes, which start at word `at`, into `room`, which has that much left.
    #[inline]
    fn read(&self, at: usize, size: usize, room: &mut Room<'_>)
    where
        Self: Sized,
    {
        self.run(at, size.div_ceil(8)).read(size, room);
    }

    /// Stores bytes from word `at` on; the last word is filled up with zeros.
    #[inline]
    fn write(&self, at: usize, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for (word, &chunk) in words.iter().enumerate() {
            self.store(at + word, u64::from_ne_bytes(chunk));
        }
        if !rest.is_empty() {
            self.store(at + words.len(), padded(rest));
        }
    }

    /// The lanes of 16 bits, of the four in each of the seven words from `at` on, that are `lane`: a bit each,
    /// the lowest for the lowest lane of the first word.
    ///
    /// # Safety
    ///
    /// The seven are below [`count`](Self::count).
    #[inline(always)]
    unsafe fn lanes_unchecked(&self, at: usize, lane: u16) -> u32 {
        const LOW: u64 = 0x7fff_7fff_7fff_7fff;
        let wanted = u64::from(lane) * 0x0001_0001_0001_0001;
        let mut found = 0;
        for word in 0..7 {
            // A lane's top bit is set if and only if the lane is equal (zero after the xor): no carry leaves a lane.
            let x = self.load(at + word) ^ wanted;
            let equal = !(((x & LOW) + LOW) | x | LOW);
            // Bits 15, 31, 47, 63 gathered into four neighbours.
            let four = (equal >> 15).wrapping_mul(1 << 48 | 1 << 33 | 1 << 18 | 1 << 3) >> 48 & 0xf;
            found |= (four as u32) << (word * 4);
        }
        found
    }
}

/// Words that are known to be within the segment, so many of them that the compiler knows the number.
///
/// Invariant: `at + N` is at most the words' count.
pub(crate) struct Few<'w, W, const N: usize> {
    words: &'w W,
    at: usize,
}

impl<'w, W: Words, const N: usize> Few<'w, W, N> {
    /// # Safety
    ///
    /// `at + N` is at most the words' count.
    #[inline(always)]
    pub(crate) unsafe fn new(words: &'w W, at: usize) -> Self {
        debug_assert!(at + N <= words.count());
        Self { words, at }
    }

    /// Relaxed load of one of them.
    #[inline(always)]
    pub(crate) fn load<const AT: usize>(&self) -> u64 {
        const { assert!(AT < N, "one of them") };
        // SAFETY: by the invariant.
        unsafe { self.words.load_unchecked(self.at + AT) }
    }

    /// The lanes that are `lane` among the 28 of the seven words from `AT` on: a bit each, the lowest for the lowest
    /// lane of the first word.
    #[inline(always)]
    pub(crate) fn lanes<const AT: usize>(&self, lane: u16) -> u32 {
        const { assert!(AT + 7 <= N, "some of them") };
        // SAFETY: by the invariant.
        unsafe { self.words.lanes_unchecked(self.at + AT, lane) }
    }
}

/// Words that are known to be within the segment.
///
/// Invariant: `at + count` is at most the words' count.
pub(crate) struct Run<'w, W> {
    words: &'w W,
    at: usize,
    count: usize,
}

impl<'w, W: Words> Run<'w, W> {
    /// # Safety
    ///
    /// `at + count` is at most the words' count.
    #[inline(always)]
    pub(crate) unsafe fn new(words: &'w W, at: usize, count: usize) -> Self {
        debug_assert!(at + count <= words.count());
        Self { words, at, count }
    }

    /// How many they are.
    #[inline(always)]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// How many bytes they are.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> usize {
        self.count * 8
    }

    /// What follows the first `words` of them.
    #[inline(always)]
    pub(crate) fn after(&self, words: usize) -> Self {
        assert!(words <= self.count, "words of the run");
        Self { words: self.words, at: self.at + words, count: self.count - words }
    }

    /// Copies the first `size` bytes into `room`, which has that much left.
    #[inline(always)]
    pub(crate) fn read(&self, size: usize, room: &mut Room<'_>) {
        assert!(size <= self.bytes(), "words of the run");
        assert!(size <= room.left(), "room for the copy");
        // SAFETY: as was just checked.
        unsafe { self.words.read_unchecked(self.at, size, room) };
    }

    /// Whether the first words are these bytes, filled up with zeros.
    #[inline(always)]
    pub(crate) fn begins_with(&self, bytes: &[u8]) -> bool {
        assert!(bytes.len().div_ceil(8) <= self.count, "words of the run");
        let (whole, rest) = bytes.as_chunks::<8>();
        // No branch per word: the loads then wait for memory all at once.
        let mut difference = 0;
        for (word, &chunk) in whole.iter().enumerate() {
            // SAFETY: one of the words that were just checked.
            difference |=
                unsafe { self.words.load_unchecked(self.at + word) } ^ u64::from_ne_bytes(chunk);
        }
        if !rest.is_empty() {
            // SAFETY: as above.
            difference |=
                unsafe { self.words.load_unchecked(self.at + whole.len()) } ^ padded(rest);
        }
        difference == 0
    }
}

/// Asks for the cache line of something of our own that is to be changed soon.
#[inline]
pub(crate) fn prefetch_for_writing<T>(place: &T) {
    machine::prefetch_for_writing(std::ptr::from_ref(place).cast());
}

fn padded(chunk: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..chunk.len()].copy_from_slice(chunk);
    u64::from_ne_bytes(word)
}

/// Room for bytes that are copied out, filled from its front.
///
/// Invariant: the first `filled` bytes are initialised. Only this module fills.
pub(crate) struct Room<'a> {
    bytes: &'a mut [MaybeUninit<u8>],
    filled: usize,
}

/// Says which bytes a [`Room`] was filled with.
pub(crate) struct Filled {
    start: *const u8,
    size: usize,
}

impl Room<'_> {
    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.filled
    }

    /// For the target that gave the room out: see [`Target::keep`].
    #[inline]
    pub(crate) fn done(self) -> Filled {
        Filled { start: self.bytes.as_ptr().cast(), size: self.filled }
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.filled..][..bytes.len()].write_copy_of_slice(bytes);
        self.filled += bytes.len();
    }
}

/// Where a copy goes. Whatever it held before is replaced.
///
/// In two calls and not in one with a closure, which would not be inlined into a lookup.
pub(crate) trait Target {
    /// Room for exactly `size` bytes. `None`: it does not fit.
    fn room(&mut self, size: usize) -> Option<Room<'_>>;
    /// Makes what the room was filled with the new content.
    fn keep(&mut self, filled: Filled);
}

impl Target for Vec<u8> {
    #[inline]
    fn room(&mut self, size: usize) -> Option<Room<'_>> {
        self.clear();
        self.reserve(size);
        Some(Room { bytes: &mut self.spare_capacity_mut()[..size], filled: 0 })
    }

    #[inline]
    fn keep(&mut self, Filled { start, size }: Filled) {
        assert!(start == self.as_ptr() && self.is_empty(), "the room that this vector gave out");
        // SAFETY: the room began where this vector begins, lay within its capacity, and had its first `size` bytes
        // initialised (invariant of `Room`).
        unsafe { self.set_len(size) };
    }
}

/// A caller's buffer of fixed size.
impl Target for &mut [u8] {
    #[inline]
    fn room(&mut self, size: usize) -> Option<Room<'_>> {
        let bytes = self.get_mut(..size)?;
        // SAFETY: the same bytes; a `Room` only ever puts initialised ones there.
        let bytes = unsafe { &mut *(bytes as *mut [u8] as *mut [MaybeUninit<u8>]) };
        Some(Room { bytes, filled: 0 })
    }

    #[inline]
    fn keep(&mut self, _: Filled) {}
}

/// The words of a [`Region`].
#[derive(Clone)]
pub(crate) struct Mapped {
    base: *const AtomicU64,
    count: usize,
    region: Arc<dyn Region>,
}

// SAFETY: all access goes through atomics, and the region, itself `Send + Sync`, keeps the memory alive.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    pub(crate) fn new(region: Arc<dyn Region>) -> Self {
        let base = region.base().as_ptr().cast_const().cast::<AtomicU64>();
        assert!(base.is_aligned(), "a region starts at a multiple of 8");
        Self { base, count: region.len() / 8, region }
    }

    pub(crate) fn region(&self) -> &Arc<dyn Region> {
        &self.region
    }

    #[inline]
    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        // Our own bug if it fails: numbers out of a segment are compared with the geometry first.
        assert!(at < self.count, "a word within the segment");
        // SAFETY: `at < count`, so the word is inside the region, aligned (checked in `new`) and, by the contract
        // of `Region`, mapped and accessed only atomically for as long as `self.region` lives.
        unsafe { &*self.base.add(at) }
    }
}

impl Words for Mapped {
    #[inline]
    fn count(&self) -> usize {
        self.count
    }

    #[inline]
    fn load(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Relaxed)
    }

    #[inline(always)]
    unsafe fn load_unchecked(&self, at: usize) -> u64 {
        debug_assert!(at < self.count);
        // SAFETY: by the contract of this function; the rest as in `word()`.
        unsafe { &*self.base.add(at) }.load(Ordering::Relaxed)
    }

    #[inline]
    fn store(&self, at: usize, value: u64) {
        // Every writer checks `Region::writable` once, when it is made.
        debug_assert!(self.region.writable());
        self.word(at).store(value, Ordering::Relaxed);
    }

    #[inline]
    fn write(&self, at: usize, bytes: &[u8]) {
        debug_assert!(self.region.writable());
        let fits = at <= self.count && bytes.len().div_ceil(8) <= self.count - at;
        assert!(fits, "words within the segment");
        let (words, rest) = bytes.as_chunks::<8>();
        // SAFETY: these words lie inside the region, as was just checked; the rest as in `word()`.
        unsafe { machine::store_all(self.base.add(at), words) };
        if !rest.is_empty() {
            self.store(at + words.len(), padded(rest));
        }
    }

    #[inline]
    fn acquire(&self) {
        fence(Ordering::Acquire);
    }

    #[inline]
    fn release(&self) {
        fence(Ordering::Release);
    }

    #[inline]
    fn prefetch(&self, at: usize) {
        if at < self.count {
            machine::prefetch(self.word(at));
        }
    }

    #[inline]
    fn prefetch_for_writing(&self, at: usize) {
        if at < self.count {
            machine::prefetch_for_writing(self.word(at));
        }
    }

    #[inline(always)]
    unsafe fn read_unchecked(&self, at: usize, size: usize, room: &mut Room<'_>) {
        debug_assert!(at + size.div_ceil(8) <= self.count && size <= room.left());
        // SAFETY: by the contract the words lie inside the region, which is mapped and accessed only atomically while
        // `self.region` lives, and `room` has `size` bytes of its own.
        unsafe {
            let to = room.bytes.as_mut_ptr().add(room.filled).cast::<u8>();
            machine::copy(self.base.add(at), to, size);
        }
        room.filled += size;
    }

    #[inline(always)]
    unsafe fn lanes_unchecked(&self, at: usize, lane: u16) -> u32 {
        debug_assert!(at + 7 <= self.count);
        // SAFETY: seven words inside the region, by the contract; the rest as above.
        unsafe { machine::lanes(self.base.add(at), lane) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::HeapRegion;

    /// Words that only have the default operations.
    struct Plain<'a>(&'a Mapped);

    impl Words for Plain<'_> {
        fn count(&self) -> usize {
            self.0.count()
        }
        fn load(&self, at: usize) -> u64 {
            self.0.load(at)
        }
        fn store(&self, at: usize, value: u64) {
            self.0.store(at, value);
        }
        fn acquire(&self) {}
        fn release(&self) {}
    }

    fn noise() -> Mapped {
        let words = Mapped::new(HeapRegion::new(4096).handle());
        let mut value = 1u64;
        for at in 0..words.count() {
            value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(at as u64 | 1);
            words.store(at, value);
        }
        words
    }

    fn copy(words: &impl Words, at: usize, size: usize, target: &mut impl Target) {
        let mut room = target.room(size).expect("it fits");
        words.read(at, size, &mut room);
        let filled = room.done();
        target.keep(filled);
    }

    fn begins_with(words: &impl Words, at: usize, bytes: &[u8]) -> bool {
        words.run(at, bytes.len().div_ceil(8)).begins_with(bytes)
    }

    fn lanes(words: &impl Words, at: usize, lane: u16) -> u32 {
        assert!(at + 7 <= words.count());
        // SAFETY: as was just checked.
        unsafe { words.lanes_unchecked(at, lane) }
    }

    #[test]
    fn copies_of_every_size_and_place_are_the_words_bytes() {
        let words = noise();
        for at in 0..9 {
            for size in 0..400 {
                let (mut fast, mut plain) = (Vec::new(), Vec::new());
                copy(&words, at, size, &mut fast);
                copy(&Plain(&words), at, size, &mut plain);
                assert_eq!(fast.len(), size);
                assert_eq!(fast, plain);
                assert!(begins_with(&words, at, &padded_to_words(&fast, &words, at)));
                let mut buffer = [7; 400];
                let mut slice = &mut buffer[..];
                copy(&words, at, size, &mut slice);
                assert_eq!(buffer[..size], plain);
                assert!(buffer[size..].iter().all(|&byte| byte == 7), "nothing beyond");
            }
        }
        let mut buffer = [0; 4];
        assert!((&mut buffer[..]).room(5).is_none());
    }

    /// The whole words that a copy was taken from.
    fn padded_to_words(copy: &[u8], words: &Mapped, at: usize) -> Vec<u8> {
        let whole =
            (0..copy.len().div_ceil(8)).flat_map(|word| words.load(at + word).to_ne_bytes());
        whole.collect()
    }

    #[test]
    fn equal_lanes_are_found_wherever_they_are() {
        let words = noise();
        let lane_of = |lane: usize| (words.load(8 + lane / 4) >> (lane % 4 * 16)) as u16;
        for lane in 0..28 {
            let wanted = (0..28).filter(|&at| lane_of(at) == lane_of(lane)).map(|at| 1 << at);
            let wanted: u32 = wanted.sum();
            assert_eq!(lanes(&words, 8, lane_of(lane)), wanted);
            assert_eq!(lanes(&Plain(&words), 8, lane_of(lane)), wanted);
        }
        for value in [0, 1, 0x7fff, 0x8000, 0xffff] {
            words.store(8, value);
            words.store(14, value << 48);
            for lane in [0, 1, 0x7fff, 0x8000, 0xffff, 0x1234] {
                assert_eq!(
                    lanes(&words, 8, lane),
                    lanes(&Plain(&words), 8, lane),
                    "{value} {lane}"
                );
            }
        }
    }

    #[test]
    fn keys_that_differ_in_any_byte_are_not_equal() {
        let words = noise();
        let mut bytes = Vec::new();
        copy(&words, 3, 45, &mut bytes);
        words.write(3, &bytes);
        assert!(begins_with(&words, 3, &bytes));
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert!(!begins_with(&words, 3, &bytes));
            bytes[at] ^= 1;
        }
        assert!(!begins_with(&words, 3, &bytes[..44]) || bytes[44] == 0);
    }
}
