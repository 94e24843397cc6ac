//! Writes kept for homes that could not be reached.
//!
//! The coordinator is a home itself, so the write is in its own store: a hint is the key alone, and
//! what is delivered is the entry as it is by then.

use std::collections::{BTreeMap, BTreeSet};

use annulus_proto::{Key, NodeId};

/// The hints of one table, bounded in bytes.
#[derive(Debug)]
pub(super) struct Hints {
    bytes_max: u64,
    bytes: u64,
    keys: BTreeMap<NodeId, BTreeSet<Key>>,
    /// Under way, and whether they were added again meanwhile.
    in_flight: BTreeMap<(NodeId, Key), bool>,
    /// The last key taken for each home: the next ones follow it, so that none blocks the others.
    taken: BTreeMap<NodeId, Key>,
    overflowed: BTreeSet<NodeId>,
}

/// What a key costs beside its own bytes.
const KEY_OVERHEAD_BYTES: u64 = 48;

impl Hints {
    /// No hints, and room for `bytes_max` bytes of them.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            keys: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            taken: BTreeMap::new(),
            overflowed: BTreeSet::new(),
        }
    }

    /// Keeps a hint. Without room for it the home is marked instead, to be compared with. Returns
    /// whether the hint was kept.
    pub(super) fn add(&mut self, home: NodeId, key: &Key) -> bool {
        if let Some(again) = self.in_flight.get_mut(&(home, key.clone())) {
            *again = true;
            return true;
        }
        let cost = cost(key);
        let keys = self.keys.entry(home).or_default();
        if keys.contains(key) {
            return true;
        }
        if self.bytes + cost > self.bytes_max {
            self.overflowed.insert(home);
            return false;
        }
        self.bytes += cost;
        keys.insert(key.clone());
        true
    }

    /// Hints for a home, as many as bring those under way to `count`.
    pub(super) fn take_for_delivery(&mut self, home: NodeId, count: usize) -> Vec<Key> {
        let under_way = self.in_flight.keys().filter(|(node, _)| *node == home).count();
        let Some(keys) = self.keys.get(&home) else { return Vec::new() };
        let idle = |key: &&Key| !self.in_flight.contains_key(&(home, (*key).clone()));
        let last = self.taken.get(&home);
        let after = keys.iter().filter(|key| last.is_none_or(|last| *key > last));
        let before = keys.iter().filter(|key| last.is_some_and(|last| *key <= last));
        let free = count.saturating_sub(under_way);
        let taken: Vec<Key> = after.chain(before).filter(idle).take(free).cloned().collect();
        self.in_flight.extend(taken.iter().map(|key| ((home, key.clone()), false)));
        if let Some(last) = taken.last() {
            self.taken.insert(home, last.clone());
        }
        taken
    }

    /// A delivery ended without success: the hint stays.
    pub(super) fn failed(&mut self, home: NodeId, key: &Key) {
        self.in_flight.remove(&(home, key.clone()));
    }

    /// Forgets a hint that was delivered, or has become pointless, unless it was added again after
    /// the delivery had begun.
    pub(super) fn delivered(&mut self, home: NodeId, key: &Key) {
        if self.in_flight.remove(&(home, key.clone())) == Some(true) {
            return;
        }
        let Some(keys) = self.keys.get_mut(&home) else { return };
        if keys.remove(key) {
            self.bytes -= cost(key);
        }
        if keys.is_empty() {
            self.keys.remove(&home);
        }
    }

    /// Forgets all hints for a node that is gone for good.
    pub(super) fn forget(&mut self, home: NodeId) {
        for key in self.keys.remove(&home).unwrap_or_default() {
            self.bytes -= cost(&key);
            self.in_flight.remove(&(home, key));
        }
        self.taken.remove(&home);
        self.overflowed.remove(&home);
    }

    /// The nodes there are hints for.
    pub(super) fn homes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.keys.keys().copied()
    }

    /// Whether hints for this home were lost for want of room, so that it must be compared with.
    /// Asking clears it.
    pub(super) fn take_overflow(&mut self, home: NodeId) -> bool {
        self.overflowed.remove(&home)
    }

    /// How many hints there are.
    pub(super) fn len(&self) -> usize {
        self.keys.values().map(BTreeSet::len).sum()
    }
}

fn cost(key: &Key) -> u64 {
    key.as_bytes().len() as u64 + KEY_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: NodeId = NodeId::from_bits(7);

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    #[test]
    fn what_does_not_fit_marks_its_home_for_comparison() {
        let mut hints = Hints::new(100);
        assert!(hints.add(HOME, &key("first")));
        assert!(!hints.add(HOME, &key("second")));
        assert_eq!(hints.len(), 1);
        assert!(hints.take_overflow(HOME));
        assert!(!hints.take_overflow(HOME));
    }

    #[test]
    fn a_hint_under_way_is_not_delivered_twice_but_again_after_a_failure() {
        let mut hints = Hints::new(1 << 20);
        hints.add(HOME, &key("one"));
        assert_eq!(hints.take_for_delivery(HOME, 8).len(), 1);
        assert_eq!(hints.take_for_delivery(HOME, 8).len(), 0);
        hints.failed(HOME, &key("one"));
        assert_eq!(hints.take_for_delivery(HOME, 8).len(), 1);
        hints.delivered(HOME, &key("one"));
        assert_eq!(hints.len(), 0);
        assert_eq!(hints.homes().count(), 0);
    }

    #[test]
    fn a_write_during_a_delivery_is_delivered_too() {
        let mut hints = Hints::new(1 << 20);
        hints.add(HOME, &key("one"));
        hints.take_for_delivery(HOME, 8);
        hints.add(HOME, &key("one"));
        hints.delivered(HOME, &key("one"));
        assert_eq!(hints.take_for_delivery(HOME, 8).len(), 1);
    }

    #[test]
    fn hints_that_fail_again_and_again_do_not_block_the_others() {
        let mut hints = Hints::new(1 << 20);
        for name in ["a", "b", "c"] {
            hints.add(HOME, &key(name));
        }
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            let taken = hints.take_for_delivery(HOME, 1);
            assert_eq!((taken.len(), hints.take_for_delivery(HOME, 1).len()), (1, 0));
            hints.failed(HOME, &taken[0]);
            seen.extend(taken);
        }
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn room_is_given_back_on_delivery() {
        let mut hints = Hints::new(100);
        for round in 0..10 {
            let key = key(&format!("key {round}"));
            assert!(hints.add(HOME, &key));
            hints.delivered(HOME, &key);
        }
        hints.add(HOME, &key("last"));
        hints.forget(HOME);
        assert!(hints.add(HOME, &key("again")));
    }
}
