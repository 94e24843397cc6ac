//! The keys of a slot in the order of their places.

use std::collections::BTreeSet;

use annulus_proto::{Key, Kind, Slot, record};

use super::Store;

impl Store {
    /// Keys of a slot from a place on, with their places: all that are before the place that is returned with them, if there is
    /// one. There are about as many as `count` at most, which is not 0, and more than that are not kept on the way; of what is
    /// at one place and is more than that, some are left out. Some may be of what ended or expired. Costs the slot's size.
    pub(in crate::core) fn keys_from_place(
        &self,
        slot: Slot,
        from: u64,
        count: usize,
    ) -> (BTreeSet<(u64, Key)>, Option<u64>) {
        let (mut keys, mut is_cut) = (BTreeSet::new(), false);
        if self.near.has_slot(slot) {
            return (keys, None);
        }
        self.writer.partition_keys(slot.index(), &mut |item| {
            let place = slot.place_of(item.key);
            let last = keys.last().map(|(last, _)| *last).filter(|_| keys.len() >= count);
            if item.near || place < from || last.is_some_and(|last| place > last) {
                is_cut |= last.is_some() && place >= from && !item.near;
                return;
            }
            keys.extend(Key::new(item.key).map(|key| (place, key)));
            if keys.len() > count {
                keys.pop_last();
                is_cut = true;
            }
        });
        let end = is_cut.then(|| keys.last().map(|(last, _)| *last)).flatten();
        let Some(end) = end else { return (keys, None) };
        if keys.first().is_some_and(|(first, _)| *first == end) {
            return (keys, Some(end + 1));
        }
        // There may be more at that place.
        keys.retain(|(place, _)| *place < end);
        (keys, Some(end))
    }

    /// What kind of value a session has, if it is here, all of it, and alive. Decodes no value.
    pub(in crate::core) fn live_kind(&mut self, key: &Key, now_ms: u64) -> Option<Kind> {
        self.hot(key, now_ms)?;
        record::View::parse(&self.buffer).ok()?.kind()
    }

    /// Whether it is known here that what was under a key has ended. Decodes no value.
    pub(in crate::core) fn is_tombstone(&mut self, key: &Key, now_ms: u64) -> bool {
        self.read_for(key);
        let is_here = self.writer.get(key.as_bytes(), &mut self.buffer).is_some();
        let view = is_here.then(|| record::View::parse(&self.buffer).ok()).flatten();
        view.is_some_and(|view| view.ended && self.births.accept(view.birth, now_ms))
    }
}
