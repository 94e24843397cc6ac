//! The least recently used goes.

use super::Policy;
use super::list::List;

pub(super) struct Lru {
    capacity: usize,
    /// The last used first.
    order: List,
}

impl Lru {
    pub(super) fn new(capacity: usize, keys: usize) -> Self {
        Self { capacity, order: List::new(keys) }
    }
}

impl Policy for Lru {
    fn access(&mut self, key: u32) -> bool {
        let is_hit = self.order.remove(key);
        if self.order.len() == self.capacity {
            self.order.pop_back();
        }
        self.order.push_front(key);
        is_hit
    }
}
