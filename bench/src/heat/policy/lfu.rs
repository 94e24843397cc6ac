//! The least frequently used goes, and of several the least recently used.
//!
//! Uses are counted while a key is held, and forgotten with it.

use std::collections::BTreeSet;

use super::Policy;

pub(super) struct Lfu {
    capacity: usize,
    /// By uses, then by the last of them.
    order: BTreeSet<(u64, u64, u32)>,
    /// Uses of each key, and the last of them; none while it is not held.
    used: Vec<Option<(u64, u64)>>,
    now: u64,
}

impl Lfu {
    pub(super) fn new(capacity: usize, keys: usize) -> Self {
        Self { capacity, order: BTreeSet::new(), used: vec![None; keys], now: 0 }
    }
}

impl Policy for Lfu {
    fn access(&mut self, key: u32) -> bool {
        self.now += 1;
        let before = self.used[key as usize];
        match before {
            Some((uses, last)) => {
                self.order.remove(&(uses, last, key));
            }
            None if self.order.len() == self.capacity => {
                let least = self.order.pop_first().map(|(.., key)| key).expect("it is full");
                self.used[least as usize] = None;
            }
            None => {}
        }
        let uses = before.map_or(0, |(uses, _)| uses) + 1;
        self.used[key as usize] = Some((uses, self.now));
        self.order.insert((uses, self.now, key));
        before.is_some()
    }
}
