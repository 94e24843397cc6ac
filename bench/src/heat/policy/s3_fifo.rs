//! S3-FIFO: three queues, a small one for what is new, a main one, and one of keys that were evicted lately.
//!
//! Yang, Zhang, Qiu, Yue, Rashmi: *FIFO queues are all you need for cache eviction*, SOSP 2023, algorithm 1.

use super::Policy;
use super::list::List;

pub(super) struct S3Fifo {
    capacity: usize,
    small: List,
    main: List,
    /// As many keys as the main queue may have.
    evicted: List,
    /// Since they came, or moved; at most three.
    uses: Vec<u8>,
}

impl S3Fifo {
    pub(super) fn new(capacity: usize, keys: usize) -> Self {
        let [small, main, evicted] = [(); 3].map(|()| List::new(keys));
        Self { capacity, small, main, evicted, uses: vec![0; keys] }
    }

    fn small_max(&self) -> usize {
        (self.capacity / 10).max(1)
    }

    fn main_max(&self) -> usize {
        self.capacity - self.small_max()
    }

    fn evict(&mut self) {
        if self.small.len() >= self.small_max() { self.evict_small() } else { self.evict_main() }
    }

    /// Evicts the oldest that was not used twice; those that were move to the main queue.
    fn evict_small(&mut self) {
        while let Some(key) = self.small.pop_back() {
            if self.uses[key as usize] > 1 {
                if self.main.len() >= self.main_max() {
                    self.evict_main();
                }
                self.uses[key as usize] = 0;
                self.main.push_front(key);
                continue;
            }
            if self.evicted.len() >= self.main_max() {
                self.evicted.pop_back();
            }
            self.evicted.push_front(key);
            return;
        }
    }

    /// Evicts the oldest that was not used; others go round once more for each use.
    fn evict_main(&mut self) {
        while let Some(key) = self.main.pop_back() {
            let uses = &mut self.uses[key as usize];
            if *uses == 0 {
                return;
            }
            *uses -= 1;
            self.main.push_front(key);
        }
    }
}

impl Policy for S3Fifo {
    fn access(&mut self, key: u32) -> bool {
        if self.small.contains(key) || self.main.contains(key) {
            let uses = &mut self.uses[key as usize];
            *uses = (*uses + 1).min(3);
            return true;
        }
        while self.small.len() + self.main.len() >= self.capacity {
            self.evict();
        }
        self.uses[key as usize] = 0;
        let was_here = self.evicted.remove(key);
        let queue = if was_here { &mut self.main } else { &mut self.small };
        queue.push_front(key);
        false
    }
}
