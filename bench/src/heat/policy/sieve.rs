//! SIEVE: a hand goes from the oldest to the newest, and takes the first that was not used since it last passed.
//!
//! Zhang, Yang, Yue, Vigfusson, Rashmi: *SIEVE is Simpler than LRU: an Efficient Turn-Key Eviction Algorithm for Web
//! Caches*, NSDI 2024, algorithm 1.

use super::Policy;
use super::list::List;

pub(super) struct Sieve {
    capacity: usize,
    /// The newest first.
    order: List,
    is_visited: Vec<bool>,
    /// Where the hand goes on; at the oldest if there is none.
    hand: Option<u32>,
}

impl Sieve {
    pub(super) fn new(capacity: usize, keys: usize) -> Self {
        Self { capacity, order: List::new(keys), is_visited: vec![false; keys], hand: None }
    }

    fn evict(&mut self) {
        let mut at = self.hand.or_else(|| self.order.back()).expect("it is full");
        while std::mem::take(&mut self.is_visited[at as usize]) {
            at = self.order.before(at).or_else(|| self.order.back()).expect("it is full");
        }
        self.hand = self.order.before(at);
        self.order.remove(at);
    }
}

impl Policy for Sieve {
    fn access(&mut self, key: u32) -> bool {
        let is_hit = self.order.contains(key);
        if !is_hit {
            if self.order.len() == self.capacity {
                self.evict();
            }
            self.order.push_front(key);
        }
        self.is_visited[key as usize] = is_hit;
        is_hit
    }
}
