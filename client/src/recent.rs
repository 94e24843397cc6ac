//! This client's own writes that its host's node may not have seen yet.
//!
//! Writes go through the host's own node, which has applied them before it answers; only while it
//! cannot be reached do they go elsewhere. Those are remembered here, so that a reader is not shown
//! an older copy from shared memory. While nothing is remembered, which is nearly always, a look
//! here is one load; else it takes a lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use annulus_proto::{Key, Version};

/// How far an entry had come: entries are ordered by birth, end, version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Progress {
    pub(crate) birth: Version,
    pub(crate) ended: bool,
    pub(crate) version: Version,
}

/// Bounded in number and time: the oldest is forgotten first, and each after a minute, by when the
/// host's node has it or has stopped vouching for what it holds. From then on the bound on a copy's
/// age that the node puts into the segment is all that holds.
#[derive(Debug, Default)]
pub(crate) struct RecentWrites {
    count: AtomicUsize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    writes: BTreeMap<Key, (Progress, u64)>,
    /// Number, time and key in the order of writing; void when the number is no longer that in
    /// `writes`.
    order: VecDeque<(u64, u64, Key)>,
    number: u64,
}

impl RecentWrites {
    /// Remembers a write that another node than the host's own acknowledged. `now_ms` is monotonic.
    pub(crate) fn remember(&self, key: &Key, progress: Progress, now_ms: u64) {
        let mut kept = self.lock();
        kept.number += 1;
        let number = kept.number;
        let later = kept.writes.get(key).map_or(progress, |(known, _)| progress.max(*known));
        kept.writes.insert(key.clone(), (later, number));
        kept.order.push_back((number, now_ms, key.clone()));
        kept.forget_old(now_ms);
        self.count.store(kept.writes.len(), Ordering::Release);
    }

    /// Whether a copy may be shown to who did those writes. A copy that has caught up ends the
    /// need to remember.
    pub(crate) fn allow(&self, key: &[u8], copy: Progress, now_ms: u64) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return true;
        }
        let Ok(key) = Key::new(key) else { return true };
        let mut kept = self.lock();
        kept.forget_old(now_ms);
        let behind = kept.writes.get(&key).is_some_and(|(written, _)| copy < *written);
        if !behind {
            kept.writes.remove(&key);
        }
        if kept.writes.is_empty() {
            kept.order.clear();
        }
        self.count.store(kept.writes.len(), Ordering::Release);
        !behind
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn forget_old(&mut self, now_ms: u64) {
        while let Some((_, at_ms, _)) = self.order.front()
            && (self.order.len() > WRITES_MAX || at_ms + KEPT_MS <= now_ms)
            && let Some((number, _, key)) = self.order.pop_front()
        {
            if self.writes.get(&key).is_some_and(|(_, current)| *current == number) {
                self.writes.remove(&key);
            }
        }
    }
}

/// The most writes remembered per table, and for how long.
const WRITES_MAX: usize = 4_096;
const KEPT_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use annulus_proto::{Hlc, NodeId};

    use super::*;

    fn at(ms: u64) -> Progress {
        let version = Version::new(Hlc::from_ms(ms), NodeId::from_bits(1));
        let birth = Version::new(Hlc::from_ms(1), NodeId::from_bits(1));
        Progress { birth, ended: false, version }
    }

    #[test]
    fn an_older_copy_is_distrusted_until_it_has_caught_up() {
        let recent = RecentWrites::default();
        let key = Key::new("k").unwrap();
        recent.remember(&key, at(10), 0);
        assert!(!recent.allow(b"k", at(9), 0));
        assert!(recent.allow(b"other", at(9), 0));
        assert!(recent.allow(b"k", at(10), 0));
        assert!(recent.allow(b"k", at(9), 0), "what has caught up is forgotten");
    }

    #[test]
    fn an_end_is_newer_than_each_write_of_its_birth() {
        let recent = RecentWrites::default();
        let key = Key::new("k").unwrap();
        recent.remember(&key, Progress { ended: true, ..at(10) }, 0);
        assert!(!recent.allow(b"k", at(99), 0));
        assert!(recent.allow(b"k", Progress { ended: true, ..at(10) }, 0));
    }

    #[test]
    fn what_is_a_minute_old_is_forgotten() {
        let recent = RecentWrites::default();
        recent.remember(&Key::new("k").unwrap(), at(10), 1_000);
        assert!(!recent.allow(b"k", at(9), 1_000 + KEPT_MS - 1));
        assert!(recent.allow(b"k", at(9), 1_000 + KEPT_MS));
        assert_eq!(recent.count.load(Ordering::Relaxed), 0, "no lock any more");
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let recent = RecentWrites::default();
        for n in 0..WRITES_MAX + 10 {
            recent.remember(&Key::new(n.to_string()).unwrap(), at(10), 0);
        }
        let hot = Key::new("hot").unwrap();
        for _ in 0..3 * WRITES_MAX {
            recent.remember(&hot, at(10), 0);
        }
        assert!(recent.lock().order.len() <= WRITES_MAX);
        assert!(recent.lock().writes.len() <= WRITES_MAX);
        assert!(recent.allow(b"0", at(1), 0));
        assert!(!recent.allow(b"hot", at(1), 0));
    }
}
