//! The ring of submissions: one producer, one consumer, whole records, in order.
//!
//! Two positions count words for ever: `TAIL`, which only the producer stores, and `HEAD`, which
//! only the consumer stores. A record is a word with its size in bytes and the bytes, filled up to
//! whole words. It is there once `TAIL` has passed it, which is one store: a producer that dies at any other
//! store has submitted all records before, and this one not.

use crate::lane::SharedWords;
use crate::lane::layout::{ASLEEP, CLIENT_CPU, CLOSED, HEAD, SUBMISSION_BYTES_MAX, TAIL};
use crate::words::Target as _;

/// Where a ring lies: `words` is a power of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingPlace {
    pub(crate) at: usize,
    pub(crate) words: usize,
}

impl RingPlace {
    fn word(self, position: u64) -> usize {
        self.at + (position as usize & (self.words - 1))
    }
}

/// How a client broke the ring's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LaneFault {
    /// The producer claims to be further ahead than the ring is long, or behind.
    #[error("its position is {ahead} words ahead, in a ring of {words}")]
    Position {
        /// How far it claims to be ahead, in words.
        ahead: u64,
        /// The ring's size, in words.
        words: u64,
    },
    /// A record is empty, too long, or longer than what was submitted.
    #[error("a record of {size} bytes, where {left} words were submitted")]
    Size {
        /// The record's size, in bytes.
        size: u64,
        /// What was submitted and not taken yet, in words.
        left: u64,
    },
}

/// The client's end.
pub(crate) struct Producer<W> {
    words: W,
    ring: RingPlace,
    /// The truth; the word in shared memory is only ever stored.
    tail: u64,
    /// Where the consumer was when last looked at.
    head: u64,
}

/// Why a record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotPushed {
    /// The consumer has not caught up.
    Full,
    /// No ring takes it.
    TooLong,
    /// The consumer's position makes no sense.
    Nonsense,
}

impl<W: SharedWords> Producer<W> {
    pub(crate) fn new(words: W, ring: RingPlace) -> Self {
        Self { words, ring, tail: 0, head: 0 }
    }

    /// Submits a record. The word returned is what [`Consumer::say_asleep`] left: not 0 if the
    /// consumer sleeps and has to be woken.
    #[inline]
    pub(crate) fn push(&mut self, record: &[u8]) -> Result<u64, NotPushed> {
        if record.is_empty() || record.len() > SUBMISSION_BYTES_MAX.min(self.ring.words * 8 - 8) {
            return Err(NotPushed::TooLong);
        }
        let size = 1 + record.len().div_ceil(8) as u64;
        if self.tail.wrapping_sub(self.head) + size > self.ring.words as u64 {
            let head = self.words.load(HEAD);
            // Pairs with the release fence in `pop`: what was taken may be overwritten.
            self.words.acquire();
            if self.tail.wrapping_sub(head) > self.ring.words as u64 {
                return Err(NotPushed::Nonsense);
            }
            self.head = head;
            if self.tail.wrapping_sub(head) + size > self.ring.words as u64 {
                return Err(NotPushed::Full);
            }
        }
        self.words.store(self.ring.word(self.tail), record.len() as u64);
        let start = self.ring.word(self.tail + 1);
        let before_end = (self.ring.at + self.ring.words - start) * 8;
        let (first, rest) = record.split_at(before_end.min(record.len()));
        self.words.write(start, first);
        self.words.write(self.ring.at, rest);
        self.tail += size;
        // The release in it pairs with the acquire fence in `pop`: who sees the position sees the
        // record. The full fence pairs with the one between `say_asleep` and `is_waiting`: either we
        // see that the consumer sleeps, or it sees this record before it does.
        self.words.announce(TAIL, self.tail);
        Ok(self.words.load_after(ASLEEP))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.words.load(CLOSED) != 0
    }

    /// Tells the consumer where this thread runs.
    pub(crate) fn say_cpu(&self, cpu: u32) {
        self.words.store(CLIENT_CPU, u64::from(cpu) + 1);
    }
}

/// The node's end.
pub(crate) struct Consumer<W> {
    words: W,
    ring: RingPlace,
    head: u64,
    /// Where the producer was when last looked at, found to be possible.
    tail: u64,
}

impl<W: SharedWords> Consumer<W> {
    pub(crate) fn new(words: W, ring: RingPlace) -> Self {
        Self { words, ring, head: 0, tail: 0 }
    }

    /// Copies the next record out, in place of what `out` held; `false` if there is none.
    pub(crate) fn pop(&mut self, out: &mut Vec<u8>) -> Result<bool, LaneFault> {
        if self.head == self.tail {
            let tail = self.words.load(TAIL);
            // Pairs with the release fence in `push`.
            self.words.acquire();
            let ahead = tail.wrapping_sub(self.head);
            if ahead > self.ring.words as u64 {
                return Err(LaneFault::Position { ahead, words: self.ring.words as u64 });
            }
            if ahead == 0 {
                return Ok(false);
            }
            self.tail = tail;
        }
        let left = self.tail - self.head;
        let size = self.words.load(self.ring.word(self.head));
        let bytes_max = SUBMISSION_BYTES_MAX.min((left as usize - 1) * 8) as u64;
        if size == 0 || size > bytes_max {
            return Err(LaneFault::Size { size, left });
        }
        let count = size.div_ceil(8);
        let start = self.ring.word(self.head + 1);
        let before_end = ((self.ring.at + self.ring.words - start) * 8).min(size as usize);
        let mut room = out.room(size as usize).expect("a vector grows");
        self.words.read(start, before_end, &mut room);
        self.words.read(self.ring.at, size as usize - before_end, &mut room);
        let filled = room.done();
        out.keep(filled);
        self.head += 1 + count;
        // Pairs with the acquire fence in `push`: the copy was taken before the room is given back.
        self.words.release();
        self.words.store(HEAD, self.head);
        Ok(true)
    }

    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.head != self.tail || self.words.load(TAIL) != self.head
    }

    pub(crate) fn say_asleep(&self, cpu: Option<u32>) {
        self.words.store(ASLEEP, cpu.map_or(0, |cpu| u64::from(cpu) + 1));
    }

    pub(crate) fn close(&self) {
        self.words.store(CLOSED, 1);
    }

    pub(crate) fn client_cpu(&self) -> Option<u32> {
        u32::try_from(self.words.load(CLIENT_CPU).checked_sub(1)?).ok()
    }
}
