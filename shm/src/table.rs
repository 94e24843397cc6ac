//! A segment's words and where in them everything is: compared once, so that a lookup compares only numbers of lines.

#![allow(unsafe_code, reason = "what lies within the words was checked when the table was made")]

use twox_hash::XxHash3_64;

use crate::layout::{Geometry, LINE_WORDS, LineHeader, PARTITIONS, RECORD_HEADER, RecordId, WAYS};
use crate::words::{Few, Run, Words};

/// A segment's words with their geometry.
///
/// Invariant: all that the geometry places lies within the words.
#[derive(Clone)]
pub(crate) struct Table<W> {
    words: W,
    geometry: Geometry,
    hash_seed: u64,
}

/// One line of the index: its header and its fingerprints.
pub(crate) struct Line<'w, W>(Few<'w, W, LINE_WORDS>);

/// One record: its header, and what follows.
pub(crate) struct Record<'w, W> {
    pub(crate) header: Few<'w, W, RECORD_HEADER>,
    /// The rest of the record.
    pub(crate) inline: Run<'w, W>,
}

impl<W: Words> Table<W> {
    /// # Panics
    ///
    /// If the geometry asks for more words than there are. Whoever took it from a header has compared them.
    pub(crate) fn new(words: W, geometry: Geometry, hash_seed: u64) -> Self {
        let Geometry { buckets, record_words, freshness, lines, records, .. } = geometry;
        let fits = |at: usize, sizes: &[usize]| {
            let size = sizes.iter().try_fold(1_usize, |size, by| size.checked_mul(*by));
            let end = size.and_then(|size| size.checked_add(at));
            end.is_some_and(|end| end <= words.count())
        };
        assert!(
            record_words >= RECORD_HEADER
                && fits(freshness, &[PARTITIONS])
                && fits(lines, &[buckets, LINE_WORDS])
                && fits(records, &[buckets, WAYS, record_words]),
            "a geometry within the words"
        );
        Self { words, geometry, hash_seed }
    }

    #[inline]
    pub(crate) fn words(&self) -> &W {
        &self.words
    }

    #[inline]
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        XxHash3_64::oneshot_with_seed(self.hash_seed, key)
    }

    #[inline(always)]
    pub(crate) fn line(&self, bucket: usize) -> Line<'_, W> {
        assert!(bucket < self.geometry.buckets, "a line of the table");
        // SAFETY: the lines of all buckets lie within the words, by the invariant.
        Line(unsafe { Few::new(&self.words, self.geometry.line(bucket)) })
    }

    #[inline(always)]
    pub(crate) fn record(&self, id: RecordId) -> Record<'_, W> {
        assert!(id.bucket < self.geometry.buckets && id.way < WAYS, "a record of the table");
        let at = self.geometry.record(id);
        let rest = self.geometry.record_words - RECORD_HEADER;
        // SAFETY: the records of all ways of all buckets lie within the words, and none is shorter than its header, by
        // the invariant.
        unsafe {
            Record {
                header: Few::new(&self.words, at),
                inline: Run::new(&self.words, at + RECORD_HEADER, rest),
            }
        }
    }

    /// Until when the writer vouches for a partition, whose number is taken modulo [`PARTITIONS`]. Relaxed.
    #[inline(always)]
    pub(crate) fn fresh_until(&self, partition: usize) -> u64 {
        // SAFETY: the words of all partitions are there, by the invariant.
        unsafe { self.words.load_unchecked(self.geometry.freshness + partition % PARTITIONS) }
    }
}

impl<W: Words> Line<'_, W> {
    /// Relaxed; the caller places the fences.
    #[inline(always)]
    pub(crate) fn header(&self) -> LineHeader {
        LineHeader(self.0.load::<0>())
    }

    /// The ways whose fingerprint is `tag`, whether valid or not.
    #[inline(always)]
    pub(crate) fn tagged(&self, tag: u16) -> u32 {
        const { assert!(WAYS == 28) };
        self.0.lanes::<1>(tag)
    }
}
