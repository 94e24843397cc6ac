//! The entries of the suite, and the orders in which they are asked for.

use annulus_shm::TableOptions;
use clap::ValueEnum;

use crate::entries::{KEY_BYTES, VALUE_BYTES, fill_value, hot, key, mixed, shuffled, zipf};

pub(super) type Key = [u8; KEY_BYTES];

/// How long values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sizes {
    /// 256 bytes, all of them.
    Fixed,
    /// 200 bytes to 4 KiB, all sizes alike.
    Mixed,
}

/// What is asked for, in this order.
pub(super) struct Requests {
    pub(super) name: &'static str,
    pub(super) numbers: Vec<u64>,
    /// One beside the other, so that a reader of them waits for none.
    pub(super) keys: Vec<Key>,
    /// Whether the table has them.
    pub(super) present: bool,
}

pub(super) const UNIFORM: &str = "uniform";
/// The longest value there is.
pub(super) const VALUE_MAX: usize = 4096;
/// Keys that "1,000 hot keys" means.
const HOT: usize = 1_000;
const MIXED_LEAST: u64 = 200;
/// How full a table is. The suite's goals ask for 93 % at least.
const LOAD: f64 = 0.94;
/// The same where values go on in other records, which leave more free.
const LOAD_OF_MIXED: f64 = 0.91;
const WAYS: u64 = annulus_shm::WAYS as u64;
const RECORD_HEADER: u64 = 32;

impl Sizes {
    pub(super) fn value_size(self, number: u64) -> usize {
        match self {
            Self::Fixed => VALUE_BYTES,
            Self::Mixed => {
                (MIXED_LEAST + mixed(!number) % (VALUE_MAX as u64 + 1 - MIXED_LEAST)) as usize
            }
        }
    }

    /// Writes the value of a number to the beginning of `buffer`, and returns it.
    pub(super) fn value(self, number: u64, buffer: &mut [u8; VALUE_MAX]) -> &[u8] {
        let value = &mut buffer[..self.value_size(number)];
        fill_value(number, value);
        value
    }

    fn record_size(self) -> u32 {
        match self {
            // Header, key and value, and nothing left over.
            Self::Fixed => 320,
            Self::Mixed => 1024,
        }
    }

    /// A table for so many entries, with as little to spare as it can be filled with.
    pub(super) fn table(self, entries: u64) -> TableOptions {
        let record_size = self.record_size();
        let inline = u64::from(record_size) - RECORD_HEADER;
        // A record whose payload does not fit gives one word to the link, as each that it goes on in.
        let records_of = |number| {
            let payload = (KEY_BYTES + self.value_size(number).next_multiple_of(8)) as u64;
            match payload.checked_sub(inline) {
                None | Some(0) => 1,
                Some(_) => 1 + (payload - (inline - 8)).div_ceil(u64::from(record_size) - 8),
            }
        };
        let taken: u64 = (0..entries).map(records_of).sum();
        let load = if self == Self::Fixed { LOAD } else { LOAD_OF_MIXED };
        let records = (taken as f64 / load) as u64 + 2 * WAYS;
        let records_bytes = records.div_ceil(WAYS) * (64 + WAYS * u64::from(record_size));
        let fixed = (annulus_shm::PARTITIONS * 8 + (64 << 10)) as u64;
        TableOptions {
            segment_bytes: (records_bytes + fixed).next_multiple_of(4096),
            record_size,
            max_value: self.value_max(),
            ..TableOptions::new(mixed(entries), mixed(entries + 1))
        }
    }

    fn value_max(self) -> u32 {
        match self {
            Self::Fixed => VALUE_BYTES as u32,
            Self::Mixed => VALUE_MAX as u32,
        }
    }
}

/// The partition of a number's key: spread as the slots of keys are, and cheaper to know.
pub(super) fn partition(number: u64) -> u16 {
    (mixed(number) % annulus_shm::PARTITIONS as u64) as u16
}

impl Requests {
    pub(super) fn uniform(entries: u64) -> Self {
        Self::of(UNIFORM, shuffled(entries), true)
    }

    pub(super) fn zipf(entries: u64) -> Self {
        Self::of("Zipf 0.99", zipf(entries), true)
    }

    pub(super) fn hot(entries: u64) -> Self {
        Self::of("1,000 hot keys", hot(entries, HOT, entries), true)
    }

    pub(super) fn missing(entries: u64) -> Self {
        let numbers = shuffled(entries).into_iter().map(|number| number + entries).collect();
        Self::of("miss", numbers, false)
    }

    /// So many requests, drawn out of all entries.
    pub(super) fn drawn(entries: u64, requests: u64) -> Self {
        let all = usize::try_from(entries).unwrap_or(usize::MAX);
        Self::of(UNIFORM, hot(entries, all, requests), true)
    }

    pub(super) fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    fn of(name: &'static str, numbers: Vec<u64>, present: bool) -> Self {
        let keys = numbers.iter().copied().map(key).collect();
        Self { name, numbers, keys, present }
    }
}
