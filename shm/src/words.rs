//! The words a segment is made of, and the only operations the protocol uses on them.
//!
//! Four are enough: relaxed loads and stores of 64 bits and two fences. (An acquire *load* would not do: on a
//! mapping that is read-only, Rust promises only relaxed loads; a fence after it gives the same order.) The
//! protocol is generic over them, so that the very same code runs on a mapping, under loom, and in tests that
//! crash it after any store.

#![allow(unsafe_code, reason = "the one place where bytes of a mapping are read and written")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::region::Region;

/// An array of 64-bit words that other processes may read and write at any time.
pub(crate) trait Words {
    /// Number of words.
    fn count(&self) -> usize;
    /// Relaxed load.
    fn load(&self, at: usize) -> u64;
    /// Relaxed store.
    fn store(&self, at: usize, value: u64);
    /// Acquire fence: what was loaded before it is ordered before all that follows.
    fn acquire(&self);
    /// Release fence: all that precedes it is ordered before what is stored after it.
    fn release(&self);

    /// Appends `size` bytes, which start at word `at`, to `out`.
    fn read(&self, at: usize, size: usize, out: &mut Vec<u8>) {
        let end = out.len() + size;
        for word in at..at + size.div_ceil(8) {
            out.extend_from_slice(&self.load(word).to_ne_bytes());
        }
        out.truncate(end);
    }

    /// Stores bytes from word `at` on; the last word is filled up with zeros.
    fn write(&self, at: usize, bytes: &[u8]) {
        for (word, chunk) in bytes.chunks(8).enumerate() {
            self.store(at + word, padded(chunk));
        }
    }

    /// Whether the words from `at` on are these bytes, filled up with zeros.
    fn equal(&self, at: usize, bytes: &[u8]) -> bool {
        bytes.chunks(8).enumerate().all(|(word, chunk)| self.load(at + word) == padded(chunk))
    }
}

fn padded(chunk: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..chunk.len()].copy_from_slice(chunk);
    u64::from_ne_bytes(word)
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
    fn word(&self, at: usize) -> &AtomicU64 {
        // Our own bug if it fails: numbers out of a segment are compared with the geometry first.
        assert!(at < self.count, "word within the segment");
        // SAFETY: `at < count`, so the word is inside the region, aligned (checked in `new`) and, by the contract
        // of `Region`, mapped and accessed only atomically for as long as `self.region` lives.
        unsafe { &*self.base.add(at) }
    }
}

impl Words for Mapped {
    fn count(&self) -> usize {
        self.count
    }

    #[inline]
    fn load(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Relaxed)
    }

    #[inline]
    fn store(&self, at: usize, value: u64) {
        // Every writer checks `Region::writable` once, when it is made.
        debug_assert!(self.region.writable());
        self.word(at).store(value, Ordering::Relaxed);
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
    fn read(&self, at: usize, size: usize, out: &mut Vec<u8>) {
        let words = size.div_ceil(8);
        assert!(at <= self.count && words <= self.count - at, "run within the segment");
        out.reserve(words * 8);
        let filled = out.len();
        for word in 0..words {
            // SAFETY: `at + word < count` by the assertion, the rest as in `word()`.
            let value = unsafe { &*self.base.add(at + word) }.load(Ordering::Relaxed);
            // SAFETY: `reserve` made room for `words * 8` bytes after `filled`; byte arrays need no alignment.
            unsafe {
                out.as_mut_ptr().add(filled + word * 8).cast::<[u8; 8]>().write(value.to_ne_bytes())
            };
        }
        // SAFETY: the `size <= words * 8` bytes after `filled` were written above.
        unsafe { out.set_len(filled + size) };
    }
}
