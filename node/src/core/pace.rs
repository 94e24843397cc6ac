//! How fast something may go.

use std::time::Duration;

/// Bytes that may leave now, at a rate that is kept over a tenth of a second: no more leaves at once.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Below zero after something that was larger.
    left: i64,
    filled: Duration,
}

const PER_SECOND: u64 = 10;

impl Bucket {
    /// A full one, of a rate in bytes per second.
    pub(super) fn new(now: Duration, rate: u64) -> Self {
        Self { left: full(rate), filled: now }
    }

    /// Whether something may leave now.
    pub(super) fn may_go(&mut self, now: Duration, rate: u64) -> bool {
        let passed = now.saturating_sub(self.filled).min(Duration::from_secs(60));
        let bytes = u128::from(rate) * passed.as_micros() / 1_000_000;
        if bytes > 0 {
            self.filled = now;
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.left = self.left.saturating_add(bytes).min(full(rate));
        }
        self.left > 0
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

fn full(rate: u64) -> i64 {
    i64::try_from(rate / PER_SECOND).unwrap_or(i64::MAX).max(1)
}
