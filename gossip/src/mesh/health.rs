//! How far this node may trust its own judgement.

use std::time::Duration;

/// Local health as in Lifeguard (arXiv 1707.00788): 0 when all is well, growing when what goes wrong
/// points at this node itself. Its probes and suspicions take that many times longer, and once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Health {
    score: u8,
    max: u8,
}

impl Health {
    pub(super) fn new(max: u8) -> Self {
        Self { score: 0, max }
    }

    pub(super) fn score(self) -> u8 {
        self.score
    }

    /// By how much judgements are slowed.
    pub(super) fn factor(self) -> u32 {
        u32::from(self.score) + 1
    }

    pub(super) fn slowed(self, time: Duration) -> Duration {
        time * self.factor()
    }

    pub(super) fn improve(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    pub(super) fn worsen(&mut self, by: usize) {
        let by = u8::try_from(by).unwrap_or(u8::MAX);
        self.score = self.score.saturating_add(by).min(self.max);
    }
}
