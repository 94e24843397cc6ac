//! How fast something may go.

use std::time::Duration;

/// Bytes that may leave now, at a rate that is kept over a part of a second: no more leaves at once.
#[derive(Debug)]
pub(super) struct Bucket {
    /// How many such parts a second has.
    parts: u64,
    /// Below zero after something that was larger.
    left: i64,
    filled: Duration,
}

impl Bucket {
    /// A full one, of a rate in bytes per second that is kept over a tenth of one.
    pub(super) fn new(now: Duration, rate: u64) -> Self {
        Self::of_parts(now, rate, 10)
    }

    /// The same over a hundredth of a second: what leaves at once keeps others waiting for less.
    pub(super) fn even(now: Duration, rate: u64) -> Self {
        Self::of_parts(now, rate, 100)
    }

    fn of_parts(now: Duration, rate: u64, parts: u64) -> Self {
        Self { parts, left: full(rate, parts), filled: now }
    }

    /// Whether something may leave now.
    pub(super) fn may_go(&mut self, now: Duration, rate: u64) -> bool {
        let passed = now.saturating_sub(self.filled).min(Duration::from_secs(60));
        let bytes = u128::from(rate) * passed.as_micros() / 1_000_000;
        if bytes > 0 {
            self.filled = now;
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.left = self.left.saturating_add(bytes).min(full(rate, self.parts));
        }
        self.left > 0
    }

    /// How long after it was last asked something may leave, if nothing is put back: 0 if it might.
    pub(super) fn wait(&self, rate: u64) -> Duration {
        let lacking = u64::try_from(1_i64.saturating_sub(self.left)).unwrap_or(0);
        Duration::from_secs_f64(lacking as f64 / rate.max(1) as f64)
    }

    /// So many bytes have left.
    pub(super) fn take(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// So many of those that were taken did not leave.
    pub(super) fn put_back(&mut self, bytes: usize) {
        self.left = self.left.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

fn full(rate: u64, parts: u64) -> i64 {
    i64::try_from(rate / parts).unwrap_or(i64::MAX).max(1)
}
