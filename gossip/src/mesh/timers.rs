//! Deadlines in order.

use std::collections::BTreeMap;
use std::time::Duration;

/// A queue of deadlines, delivered in order of time and, at one instant, in the order they were
/// set (foca relies on it).
#[derive(Debug)]
pub(super) struct Timers<T> {
    queue: BTreeMap<(Duration, u64), T>,
    sequence: u64,
}

impl<T> Timers<T> {
    pub(super) fn new() -> Self {
        Self { queue: BTreeMap::new(), sequence: 0 }
    }

    pub(super) fn set(&mut self, at: Duration, timer: T) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), timer);
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn pop(&mut self, now: Duration) -> Option<T> {
        let entry = self.queue.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
    }

    /// Drops those that `keep` refuses.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.queue.retain(|_, timer| keep(timer));
    }

    /// Puts off those that `which` picks.
    pub(super) fn delay(&mut self, by: Duration, which: impl Fn(&T) -> bool) {
        let late = self.queue.extract_if(.., |_, timer| which(timer)).collect::<Vec<_>>();
        self.queue
            .extend(late.into_iter().map(|((at, sequence), timer)| ((at + by, sequence), timer)));
    }
}
