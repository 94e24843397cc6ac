//! What is going to happen, in order.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Items by time; at one instant, in the order they were put in, so that a run has one order only.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    heap: BinaryHeap<Entry<T>>,
    sequence: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Duration,
    sequence: u64,
    item: T,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), sequence: 0 }
    }

    pub(crate) fn push(&mut self, at: Duration, item: T) {
        self.sequence += 1;
        self.heap.push(Entry { at, sequence: self.sequence, item });
    }

    /// When the next item is due.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// The next item that is due by `end`, and when it is.
    pub(crate) fn pop(&mut self, end: Duration) -> Option<(Duration, T)> {
        if self.heap.peek()?.at > end {
            return None;
        }
        self.heap.pop().map(|entry| (entry.at, entry.item))
    }
}

impl<T> Entry<T> {
    fn rank(&self) -> (Duration, u64) {
        (self.at, self.sequence)
    }
}

impl<T> Ord for Entry<T> {
    /// The earliest is the greatest: the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.rank().cmp(&self.rank())
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_by_time_and_then_in_the_order_they_were_put_in() {
        let mut queue = Queue::new();
        let ms = Duration::from_millis;
        for (at, item) in [(3, 'c'), (1, 'a'), (3, 'd'), (2, 'b'), (9, 'e')] {
            queue.push(ms(at), item);
        }
        let mut order = String::new();
        while let Some((_, item)) = queue.pop(ms(3)) {
            order.push(item);
        }
        assert_eq!(order, "abcd");
        assert_eq!(queue.pop(ms(9)), Some((ms(9), 'e')));
    }
}
