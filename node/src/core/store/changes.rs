//! Which entries changed last, in the order of the changes, for nodes that keep near copies of them.

use std::collections::VecDeque;
use std::time::Duration;

/// The last changes, while somebody asks for them. Costs a write sixteen bytes then, and else a branch.
#[derive(Debug, Default)]
pub(in crate::core) struct Changes {
    /// Until when they are kept, on the monotonic clock; `None` = they are not.
    until: Option<Duration>,
    /// The number of the first that is kept.
    first: u64,
    /// The words of their keys, and the gists of what became of them.
    changes: VecDeque<(u64, u64)>,
}

/// How many changes are kept: of 200 ms at 80,000 writes a second.
const KEPT: usize = annulus_proto::message::Beat::CHANGES_MAX;
/// For how long after they were last asked for.
const KEPT_FOR: Duration = Duration::from_secs(2);

impl Changes {
    /// Whether they are kept.
    pub(super) fn are_kept(&self) -> bool {
        self.until.is_some()
    }

    /// Something was written or ended, or has moved to another ring; the gist of what is there now, 0 of nothing.
    pub(super) fn note(&mut self, word: u64, gist: u64) {
        if !self.are_kept() {
            return;
        }
        if self.changes.len() == KEPT {
            self.changes.pop_front();
            self.first += 1;
        }
        self.changes.push_back((word, gist));
    }

    /// Keeps what changes from now on, for a while.
    pub(in crate::core) fn keep(&mut self, now: Duration) {
        self.until = Some(now + KEPT_FOR);
    }

    /// Forgets them once nobody has asked for long.
    pub(in crate::core) fn forget_unasked(&mut self, now: Duration) {
        if self.until.is_some_and(|until| until <= now) {
            // Where nothing is noted nothing may seem whole.
            *self = Self { first: self.end() + 1, ..Self::default() };
        }
    }

    /// The number of the change that comes next.
    pub(in crate::core) fn end(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    /// The changes from this number on; `None` if some of them are forgotten, or it is no number that was given out.
    pub(in crate::core) fn since(
        &self,
        number: u64,
    ) -> Option<impl Iterator<Item = (u64, u64)> + '_> {
        let skipped = number.checked_sub(self.first).filter(|_| number <= self.end())?;
        Some(self.changes.range(usize::try_from(skipped).ok()?..).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(changes: &Changes, number: u64) -> Option<Vec<u64>> {
        changes.since(number).map(|told| told.map(|(word, _)| word).collect())
    }

    #[test]
    fn what_is_asked_for_is_told_whole_or_not_at_all() {
        let mut changes = Changes::default();
        changes.note(1, 1);
        assert_eq!(since(&changes, 0), Some(vec![]), "nobody has asked");
        changes.keep(Duration::ZERO);
        let begun = changes.end();
        (10..13).for_each(|word| changes.note(word, 1));
        assert_eq!(since(&changes, begun), Some(vec![10, 11, 12]));
        assert_eq!(since(&changes, begun + 2), Some(vec![12]));
        assert_eq!(since(&changes, begun + 3), Some(vec![]));
        assert_eq!(since(&changes, begun + 4), None, "nobody was told of that one");
        (0..KEPT as u64).for_each(|word| changes.note(word, 1));
        assert_eq!(since(&changes, begun + 2), None);
        assert_eq!(since(&changes, begun + 3).map(|words| words.len()), Some(KEPT));
    }

    #[test]
    fn a_place_from_before_a_pause_is_no_place_after_it() {
        let mut changes = Changes::default();
        changes.keep(Duration::ZERO);
        changes.note(1, 1);
        let place = changes.end();
        changes.forget_unasked(KEPT_FOR - Duration::from_millis(1));
        assert_eq!(since(&changes, place), Some(vec![]));
        changes.forget_unasked(KEPT_FOR);
        changes.note(2, 1);
        changes.keep(KEPT_FOR);
        changes.note(3, 1);
        assert_eq!(since(&changes, place), None, "2 is missing");
    }
}
