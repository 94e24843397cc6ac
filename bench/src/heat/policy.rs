//! What says which keys a full cache keeps.
//!
//! All but one are models, so that they see the same accesses at the same times, with no thread of their own and no
//! hash that differs between runs.

mod by_heat;
mod lfu;
mod list;
mod lru;
#[cfg(feature = "peers")]
mod moka;
mod s3_fifo;
mod sieve;
#[cfg(test)]
mod tests;
mod w_tiny_lfu;

use self::by_heat::ByHeat;
use self::lfu::Lfu;
use self::lru::Lru;
use self::s3_fifo::S3Fifo;
use self::sieve::Sieve;
use self::w_tiny_lfu::WTinyLfu;
use super::trace::Trace;

/// A cache of keys that begins empty and is never larger than its capacity.
trait Policy {
    /// Asks for a key, and takes it in if it is not there. Returns whether it was.
    fn access(&mut self, key: u32) -> bool;
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Lru,
    Lfu,
    Sieve,
    S3Fifo,
    WTinyLfu,
    #[cfg(feature = "peers")]
    Moka,
    Heat {
        /// In accesses, as a multiple of the capacity.
        half_life: u32,
        /// Whether marks of what was evicted are remembered, as rings further out do.
        has_outer: bool,
    },
}

impl Subject {
    pub(super) const PEERS: &[Self] = &[
        Self::Lru,
        Self::Lfu,
        Self::Sieve,
        Self::S3Fifo,
        Self::WTinyLfu,
        #[cfg(feature = "peers")]
        Self::Moka,
    ];

    pub(super) fn name(self) -> String {
        match self {
            Self::Lru => "LRU".to_owned(),
            Self::Lfu => "LFU".to_owned(),
            Self::Sieve => "SIEVE".to_owned(),
            Self::S3Fifo => "S3-FIFO".to_owned(),
            Self::WTinyLfu => "W-TinyLFU".to_owned(),
            #[cfg(feature = "peers")]
            Self::Moka => "moka".to_owned(),
            Self::Heat { half_life, has_outer } => {
                let outer = if has_outer { ", outer rings" } else { "" };
                match half_life {
                    HALF_LIFE => format!("heat{outer}"),
                    _ => format!("heat{outer}, half-life {half_life} × capacity"),
                }
            }
        }
    }

    /// How many of a hundred accesses hit.
    pub(super) fn hit_rate(self, trace: &Trace, capacity: usize) -> f64 {
        let mut policy = self.policy(capacity, trace.unique);
        let hits = trace.keys.iter().filter(|key| policy.access(**key)).count();
        hits as f64 * 100.0 / trace.keys.len() as f64
    }

    /// A cache of so many of the keys below `keys`.
    fn policy(self, capacity: usize, keys: usize) -> Box<dyn Policy> {
        match self {
            Self::Lru => Box::new(Lru::new(capacity, keys)),
            Self::Lfu => Box::new(Lfu::new(capacity, keys)),
            Self::Sieve => Box::new(Sieve::new(capacity, keys)),
            Self::S3Fifo => Box::new(S3Fifo::new(capacity, keys)),
            Self::WTinyLfu => Box::new(WTinyLfu::new(capacity, keys)),
            #[cfg(feature = "peers")]
            Self::Moka => Box::new(moka::Moka::new(capacity)),
            Self::Heat { half_life, has_outer } => {
                Box::new(ByHeat::new(capacity, keys, half_life, has_outer))
            }
        }
    }
}

/// The half-life of which something is asked, in accesses, as a multiple of the capacity.
pub(super) const HALF_LIFE: u32 = 4;
