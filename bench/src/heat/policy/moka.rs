//! moka, which Rust programs use: LRU with admission by frequency, without a window for what is new.
//!
//! Its maintenance is done after each access, so that nothing depends on when it would run.

use std::hash::BuildHasherDefault;

use moka::sync::Cache;
use twox_hash::XxHash3_64;

use super::Policy;

pub(super) struct Moka(Cache<u32, (), BuildHasherDefault<XxHash3_64>>);

impl Moka {
    pub(super) fn new(capacity: usize) -> Self {
        let cache = Cache::builder().max_capacity(capacity as u64);
        Self(cache.build_with_hasher(BuildHasherDefault::default()))
    }
}

impl Policy for Moka {
    fn access(&mut self, key: u32) -> bool {
        let is_hit = self.0.get(&key).is_some();
        if !is_hit {
            self.0.insert(key, ());
        }
        self.0.run_pending_tasks();
        is_hit
    }
}
