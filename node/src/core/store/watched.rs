//! The entries of a table that are looked after one by one: sessions that more than its homes are to hold,
//! and copies that are here though this node is no home of their slots.

use std::collections::BTreeMap;
use std::time::Duration;

use annulus_proto::{Key, Slot};

/// Where they are. Costs memory for each of them, and for others nothing.
#[derive(Debug, Default)]
pub(in crate::core) struct Watched {
    slots: BTreeMap<u16, BTreeMap<Key, Watch>>,
    len: usize,
    extras: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    /// Whether this node is no home of the slot, and holds it besides them.
    is_extra: bool,
    /// When those were asked, on the monotonic clock, of whom a majority answered what is here now or was
    /// here then.
    confirmed: Duration,
    /// What was asked before this does not count.
    since: Duration,
}

impl Watched {
    /// How many there are.
    pub(in crate::core) fn len(&self) -> usize {
        self.len
    }

    /// How many of them are here besides the homes.
    pub(in crate::core) fn extras(&self) -> usize {
        self.extras
    }

    /// Whether an entry is here besides its homes.
    pub(in crate::core) fn is_extra(&self, slot: Slot, key: &Key) -> bool {
        self.get(slot, key).is_some_and(|watch| watch.is_extra)
    }

    /// Whether an entry is among them.
    pub(in crate::core) fn contains(&self, slot: Slot, key: &Key) -> bool {
        self.get(slot, key).is_some()
    }

    /// How many entries of a slot are here besides the homes.
    pub(super) fn extras_in(&self, slot: Slot) -> usize {
        let keys = self.slots.get(&slot.index());
        keys.map_or(0, |keys| keys.values().filter(|watch| watch.is_extra).count())
    }

    /// The keys of the entries of a slot that are here besides the homes.
    pub(super) fn extra_keys(&self, slot: Slot) -> Vec<Key> {
        let keys = self.slots.get(&slot.index()).into_iter().flatten();
        keys.filter(|(_, watch)| watch.is_extra).map(|(key, _)| key.clone()).collect()
    }

    /// The slots of which there are any.
    pub(super) fn slots(&self) -> Vec<Slot> {
        self.slots.keys().filter_map(|index| Slot::new(*index)).collect()
    }

    /// All keys of a slot.
    pub(super) fn keys(&self, slot: Slot) -> Vec<Key> {
        self.slots.get(&slot.index()).into_iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    /// When those who have to know answered last what is, or was, here.
    pub(in crate::core) fn confirmed(&self, slot: Slot, key: &Key) -> Option<Duration> {
        let watch = self.get(slot, key).filter(|watch| watch.is_extra)?;
        (watch.confirmed > Duration::ZERO).then_some(watch.confirmed)
    }

    /// Those who have to know were asked at this time, and a majority of them has answered what is here.
    pub(in crate::core) fn confirm(&mut self, slot: Slot, key: &Key, asked: Duration) {
        let watch = self.slots.get_mut(&slot.index()).and_then(|keys| keys.get_mut(key));
        if let Some(watch) = watch.filter(|watch| watch.is_extra && watch.since <= asked) {
            watch.confirmed = watch.confirmed.max(asked);
        }
    }

    /// Nothing counts any more that was asked before this time.
    pub(in crate::core) fn distrust(&mut self, slot: Slot, key: &Key, since: Duration) {
        let watch = self.slots.get_mut(&slot.index()).and_then(|keys| keys.get_mut(key));
        if let Some(watch) = watch {
            (watch.confirmed, watch.since) = (Duration::ZERO, since);
        }
    }

    /// What follows this place, round by round; `None` at the end.
    pub(in crate::core) fn after(&self, place: Option<&(Slot, Key)>) -> Option<(Slot, Key)> {
        let first = place.map_or(0, |(slot, _)| slot.index());
        self.slots.range(first..).find_map(|(index, keys)| {
            let same = place.filter(|(slot, _)| slot.index() == *index);
            let next = match same {
                Some((_, key)) => {
                    let from = std::ops::Bound::Excluded(key);
                    keys.range::<Key, _>((from, std::ops::Bound::Unbounded)).next()
                }
                None => keys.first_key_value(),
            };
            let (key, _) = next?;
            Some((Slot::new(*index)?, key.clone()))
        })
    }

    /// Takes note of what an entry is now.
    pub(super) fn set(&mut self, slot: Slot, key: &Key, is_placed: bool, is_extra: bool) {
        if !is_placed && !is_extra {
            return self.remove(slot, key);
        }
        let watch = self.slots.entry(slot.index()).or_default().entry(key.clone());
        self.len += usize::from(matches!(watch, std::collections::btree_map::Entry::Vacant(_)));
        let watch = watch.or_default();
        self.extras = self.extras + usize::from(is_extra) - usize::from(watch.is_extra);
        watch.is_extra = is_extra;
    }

    /// Forgets an entry that is not here any more, or needs no looking after.
    pub(super) fn remove(&mut self, slot: Slot, key: &Key) {
        let Some(keys) = self.slots.get_mut(&slot.index()) else { return };
        if let Some(watch) = keys.remove(key) {
            self.len -= 1;
            self.extras -= usize::from(watch.is_extra);
        }
        if keys.is_empty() {
            self.slots.remove(&slot.index());
        }
    }

    fn get(&self, slot: Slot, key: &Key) -> Option<&Watch> {
        self.slots.get(&slot.index())?.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    fn slot(index: u16) -> Slot {
        Slot::new(index).unwrap()
    }

    #[test]
    fn all_are_visited_once_whatever_is_added_or_dropped_meanwhile() {
        let mut watched = Watched::default();
        for (index, name) in [(3, "b"), (3, "a"), (9, "z"), (1, "q")] {
            watched.set(slot(index), &key(name), true, false);
        }
        let (mut place, mut seen) = (None, Vec::new());
        while let Some(next) = watched.after(place.as_ref()) {
            if next.1 == key("a") {
                watched.remove(slot(3), &key("a"));
                watched.remove(slot(3), &key("b"));
                watched.set(slot(4), &key("new"), true, false);
            }
            seen.push((next.0.index(), next.1.clone()));
            place = Some(next);
        }
        assert_eq!(seen, [(1, key("q")), (3, key("a")), (4, key("new")), (9, key("z"))]);
    }

    #[test]
    fn counts_follow_what_entries_are() {
        let mut watched = Watched::default();
        let key = key("k");
        watched.set(slot(1), &key, true, true);
        watched.confirm(slot(1), &key, Duration::from_secs(5));
        watched.set(slot(1), &key, false, true);
        assert_eq!((watched.len(), watched.extras(), watched.extras_in(slot(1))), (1, 1, 1));
        assert_eq!(watched.confirmed(slot(1), &key), Some(Duration::from_secs(5)));
        watched.distrust(slot(1), &key, Duration::from_secs(7));
        watched.confirm(slot(1), &key, Duration::from_secs(6));
        assert_eq!(watched.confirmed(slot(1), &key), None, "that was asked before");
        watched.confirm(slot(1), &key, Duration::from_secs(7));
        assert_eq!(watched.confirmed(slot(1), &key), Some(Duration::from_secs(7)));
        watched.set(slot(1), &key, true, false);
        assert_eq!((watched.len(), watched.extras(), watched.extras_in(slot(1))), (1, 0, 0));
        assert_eq!(watched.confirmed(slot(1), &key), None, "homes answer by their own rules");
        watched.set(slot(1), &key, false, false);
        assert_eq!((watched.len(), watched.contains(slot(1), &key)), (0, false));
        assert_eq!(watched.after(None), None);
    }
}
