//! Which of the sessions that are here belong to whom.

use std::collections::BTreeSet;

use annulus_proto::Key;
use twox_hash::XxHash3_64;

/// Pairs of what stands for an owner and what stands for the key of a session, some 30 bytes each. Sessions of nobody
/// take no room. Two owners may look alike here, and a pair may be old: who reads it looks at the session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Owners(BTreeSet<(u64, u64)>);

impl Owners {
    /// Notes that the session with this word belongs to somebody.
    pub(super) fn insert(&mut self, owner: &[u8], word: u64) {
        if !owner.is_empty() {
            self.0.insert((hash(owner), word));
        }
    }

    /// The session with this word is there no more, or not his.
    pub(super) fn remove(&mut self, owner: &[u8], word: u64) {
        if !owner.is_empty() {
            self.0.remove(&(hash(owner), word));
        }
    }

    /// What lies under a key was this owner's, and is that one's now.
    pub(super) fn change(&mut self, key: &Key, before: &[u8], after: &[u8]) {
        if before != after {
            self.remove(before, key.word());
            self.insert(after, key.word());
        }
    }

    /// So many words after this one of what belongs to an owner, in ascending order.
    pub(super) fn after(&self, owner: &[u8], after: Option<u64>, count: usize) -> Vec<u64> {
        let hash = hash(owner);
        let Some(from) = after.map_or(Some(0), |after| after.checked_add(1)) else {
            return Vec::new();
        };
        let words = self.0.range((hash, from)..=(hash, u64::MAX));
        words.take(count).map(|(_, word)| *word).collect()
    }
}

fn hash(owner: &[u8]) -> u64 {
    XxHash3_64::oneshot(owner)
}
