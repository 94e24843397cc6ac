//! Sessions that are pinned to a node, as this client has read them.
//!
//! While nothing is known, which is nearly always, a look here is one load; else it takes a lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use annulus_proto::{Key, NodeId};

/// Bounded in number: what was noted first is forgotten first. A pin that is not known, or not true any
/// more, costs a session nothing but a longer way.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    count: AtomicUsize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    pins: BTreeMap<Key, NodeId>,
    /// In the order in which they were noted; some may be void.
    order: VecDeque<Key>,
}

impl Pins {
    /// The node that a session is pinned to.
    pub(crate) fn of(&self, key: &Key) -> Option<NodeId> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.pins.get(key).copied()
    }

    /// Notes what a session said that was read.
    pub(crate) fn note(&self, key: &Key, pin: Option<NodeId>) {
        if pin.is_none() && self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match pin {
            Some(node) => {
                if known.pins.insert(key.clone(), node).is_none() {
                    known.order.push_back(key.clone());
                }
            }
            None => drop(known.pins.remove(key)),
        }
        while known.order.len() > PINS_MAX
            && let Some(first) = known.order.pop_front()
        {
            known.pins.remove(&first);
        }
        self.count.store(known.pins.len(), Ordering::Release);
    }
}

/// The most pins known per table.
const PINS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let (pins, key) = (Pins::default(), Key::new("k").unwrap());
        let node = NodeId::from_bits;
        assert_eq!(pins.of(&key), None);
        pins.note(&key, Some(node(1)));
        pins.note(&key, Some(node(2)));
        assert_eq!(pins.of(&key), Some(node(2)));
        pins.note(&key, None);
        assert_eq!(pins.of(&key), None);
        assert_eq!(pins.count.load(Ordering::Relaxed), 0, "no lock any more");
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let pins = Pins::default();
        for n in 0..3 * PINS_MAX {
            let key = Key::new((n % (PINS_MAX + 10)).to_string()).unwrap();
            pins.note(&key, Some(NodeId::from_bits(n as u64)));
        }
        let known = pins.known.lock().unwrap();
        assert!(known.pins.len() <= PINS_MAX && known.order.len() <= PINS_MAX);
    }
}
