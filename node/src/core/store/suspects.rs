//! Which of the sessions that are here are suspects.

use std::collections::BTreeMap;

use annulus_proto::{Key, Verdict};

/// By the words that stand for their keys: the key, and until when, in hybrid milliseconds. What went another way than
/// by a write stays until its time is over.
#[derive(Debug, Default)]
pub(super) struct Suspects(BTreeMap<u64, (Key, u64)>);

/// More than so many are told to slow down all the same, when they were read; they are not listed.
const SUSPECTS_MAX: usize = 65_536;

impl Suspects {
    /// Notes the last verdict on a session.
    pub(super) fn note(&mut self, key: &Key, verdict: Option<Verdict>, now_ms: u64) {
        match verdict.and_then(|verdict| verdict.slowed_until(now_ms)) {
            Some(until) if self.0.len() < SUSPECTS_MAX || self.0.contains_key(&key.word()) => {
                self.0.insert(key.word(), (key.clone(), until));
            }
            Some(_) => {}
            None if self.0.is_empty() => {}
            None => {
                if self.0.get(&key.word()).is_some_and(|(suspect, _)| suspect == key) {
                    self.0.remove(&key.word());
                }
            }
        }
    }

    pub(super) fn until(&self, key: &Key) -> Option<u64> {
        if self.0.is_empty() {
            return None;
        }
        let (suspect, until) = self.0.get(&key.word())?;
        (suspect == key).then_some(*until)
    }

    pub(super) fn after(&self, after: Option<u64>, count: usize) -> Vec<(u64, Key)> {
        let from = after.map_or(0, |after| after.saturating_add(1));
        self.0.range(from..).take(count).map(|(word, (key, _))| (*word, key.clone())).collect()
    }

    pub(super) fn of(&self, word: u64) -> Option<Key> {
        self.0.get(&word).map(|(key, _)| key.clone())
    }

    pub(super) fn forget_old(&mut self, now_ms: u64) {
        self.0.retain(|_, (_, until)| *until > now_ms);
    }
}
