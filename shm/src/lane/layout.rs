//! Where everything lies in a lane. In words of eight bytes; drawn in `docs/lanes.md`.

use crate::lane::ring::RingPlace;
use crate::words::Words;

/// The version of the lane's layout and protocol.
pub const LANE_LAYOUT_VERSION: u64 = 2;

/// Calls that one client may have open at a time.
pub const CALLS_MAX: usize = 64;

/// The longest submission, in bytes. What is longer goes over the socket.
pub const SUBMISSION_BYTES_MAX: usize = RING_WORDS * 8 / 2;

pub(super) const RING_WORDS: usize = 8_192;
pub(super) const COUNTS: usize = 8_192;

/// Words of a page, and of two cache lines: processors fetch lines in pairs.
const PAGE: usize = 512;
const APART: usize = 16;
pub(crate) const SLOT_WORDS: usize = 8;

// The header, written by the node before anybody else sees the memory.
const MAGIC_AT: usize = 0;
const VERSION_AT: usize = 1;
const BYTE_ORDER_AT: usize = 2;
const WORDS_AT: usize = 3;
const RING_WORDS_AT: usize = 4;
const CALLS_AT: usize = 5;
const COUNTS_AT: usize = 6;
const TABLES_AT: usize = 7;
const NUMBER_AT: usize = 8;

/// Written by the client: how far it has submitted.
pub(crate) const TAIL: usize = PAGE;
/// Written by the client: one more than the processor it last called on.
pub(crate) const CLIENT_CPU: usize = TAIL + 1;
/// Written by the node: how far it has taken.
pub(crate) const HEAD: usize = TAIL + APART;
/// Written by the node: one more than the processor its thread sleeps on; 0 while it is awake.
pub(crate) const ASLEEP: usize = HEAD + APART;
/// Written by the node: not 0 once the lane is given up.
pub(crate) const CLOSED: usize = ASLEEP + 1;
/// The answers, a cache line each.
pub(crate) const SLOTS: usize = ASLEEP + APART;
pub(crate) const COUNTS_START: usize = 3 * PAGE;
pub(crate) const RING_START: usize = COUNTS_START + COUNTS;

const MAGIC: u64 = u64::from_le_bytes(*b"ANNLANE1");
const BYTE_ORDER: u64 = 0x0102_0304_0506_0708;
const WORDS: usize = RING_START + RING_WORDS;
/// 64 tables of 64 shards.
pub(super) const TABLES_MAX: u16 = 4_096;

const _: () = assert!(NUMBER_AT < TAIL);
const _: () = assert!(SLOTS + CALLS_MAX * SLOT_WORDS <= COUNTS_START);
const _: () = assert!(RING_WORDS.is_power_of_two() && COUNTS.is_power_of_two());
const _: () = assert!(WORDS.is_multiple_of(PAGE));
const _: () = assert!(TABLES_MAX as usize <= COUNTS, "a word for each");
const _: () = assert!(CALLS_MAX == 64, "open calls are the bits of a word");

/// The places of this version. A type, so that tests and models may have smaller ones.
pub(super) struct Places {
    ring: RingPlace,
}

impl Places {
    pub(super) fn new() -> Self {
        Self { ring: RingPlace { at: RING_START, words: RING_WORDS } }
    }

    pub(super) fn ring(&self) -> RingPlace {
        self.ring
    }

    pub(super) fn bytes(&self) -> usize {
        WORDS * 8
    }
}

/// The first word of a call's slot, whatever the number.
pub(crate) fn slot_at(call: u32) -> usize {
    SLOTS + call as usize % CALLS_MAX * SLOT_WORDS
}

pub(super) fn write_header<W: Words>(words: &W, number: u64, tables: u16) {
    for (at, value) in expected(number, tables.into()).into_iter().enumerate().skip(1) {
        words.store(at, value);
    }
    // Descriptors are passed by a system call, which orders this before what the client does.
    words.store(MAGIC_AT, MAGIC);
}

/// The lane's number and its tables, each word read once.
pub(super) fn read_header<W: Words>(words: &W) -> Result<(u64, u16), &'static str> {
    let found: [u64; NUMBER_AT + 1] = std::array::from_fn(|at| words.load(at));
    let tables = found[TABLES_AT];
    if found[MAGIC_AT] != MAGIC || found[BYTE_ORDER_AT] != BYTE_ORDER {
        return Err("it does not begin as a lane does");
    }
    if found[VERSION_AT] != LANE_LAYOUT_VERSION {
        return Err("its version is another one");
    }
    if !(1..=TABLES_MAX.into()).contains(&tables) || found != expected(found[NUMBER_AT], tables) {
        return Err("its sizes are others");
    }
    Ok((found[NUMBER_AT], tables as u16))
}

fn expected(number: u64, tables: u64) -> [u64; NUMBER_AT + 1] {
    let mut header = [0; NUMBER_AT + 1];
    header[MAGIC_AT] = MAGIC;
    header[VERSION_AT] = LANE_LAYOUT_VERSION;
    header[BYTE_ORDER_AT] = BYTE_ORDER;
    header[WORDS_AT] = WORDS as u64;
    header[RING_WORDS_AT] = RING_WORDS as u64;
    header[CALLS_AT] = CALLS_MAX as u64;
    header[COUNTS_AT] = COUNTS as u64;
    header[TABLES_AT] = tables.clamp(1, TABLES_MAX.into());
    header[NUMBER_AT] = number;
    header
}
