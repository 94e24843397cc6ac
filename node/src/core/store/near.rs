//! Near copies: what lies in this host's shared memory only because somebody here used it.

use std::collections::{BTreeMap, BTreeSet};

use annulus_proto::{Entry, Key, Slot, record};
use annulus_shm::{Admission, PutError};
use twox_hash::XxHash3_64;

use super::Store;

/// Where the near copies are. A slot that has some has nothing else here.
///
/// It may know of some that are gone, since they went when there was need of room.
#[derive(Debug, Default)]
pub(super) struct NearCopies {
    /// By the words of their keys.
    slots: BTreeMap<u16, BTreeMap<u64, NearCopy>>,
    len: usize,
    /// The records that they take.
    records: usize,
    /// The slots whose readers may trust near copies, or might.
    trusted: BTreeSet<u16>,
    /// Where the look for those that are gone stands.
    swept: (u16, u64),
}

#[derive(Debug)]
struct NearCopy {
    key: Key,
    gist: u64,
    /// How many records it takes.
    records: usize,
}

/// What stands for a session as it is in a record: of two that differ in anything but their last use, another one, but for
/// one in 2^64.
pub(in crate::core) fn gist(record: &[u8]) -> u64 {
    XxHash3_64::oneshot(record)
}

/// [`gist`] of an entry as it would be stored.
pub(in crate::core) fn gist_of(entry: &Entry) -> u64 {
    let mut record = Vec::new();
    record::write(entry, &mut record);
    gist(&record)
}

/// One record in so many may be a near copy.
const SHARE: usize = 4;
/// How many are looked at for each that comes, so that those that are gone do not pile up.
const SWEPT_STEP: usize = 2;

impl NearCopies {
    pub(super) fn has_slot(&self, slot: Slot) -> bool {
        self.slots.contains_key(&slot.index())
    }

    pub(super) fn remove(&mut self, slot: Slot, word: u64) -> Option<Key> {
        let words = self.slots.get_mut(&slot.index())?;
        let NearCopy { key, records, .. } = words.remove(&word)?;
        self.len -= 1;
        self.records -= records;
        if words.is_empty() {
            self.slots.remove(&slot.index());
        }
        Some(key)
    }

    fn insert(&mut self, slot: Slot, copy: NearCopy) {
        let words = self.slots.entry(slot.index()).or_default();
        self.records += copy.records;
        match words.insert(copy.key.word(), copy) {
            Some(before) => self.records -= before.records,
            None => self.len += 1,
        }
    }

    /// The next one in turn.
    fn next(&mut self) -> Option<(Slot, u64, Key)> {
        let (slot, word) = self.swept;
        let all = self.slots.range(slot..).find_map(|(index, words)| {
            let from = if *index == slot { word } else { 0 };
            words.range(from..).next().map(|(word, copy)| (*index, *word, copy.key.clone()))
        });
        let (slot, word, key) = match all {
            None => {
                self.swept = (0, 0);
                return None;
            }
            Some(found) => found,
        };
        self.swept = word.checked_add(1).map_or((slot + 1, 0), |next| (slot, next));
        Some((Slot::new(slot)?, word, key))
    }
}

impl Store {
    /// Keeps a copy of a live session of a slot of which nothing else is here. Returns whether there was room.
    pub(in crate::core) fn keep_near(&mut self, key: &Key, entry: &Entry, now_ms: u64) -> bool {
        let slot = key.slot();
        self.sweep_near();
        let most = self.writer.stats().capacity_records / SHARE;
        let is_full = |store: &Self| store.near.records >= most;
        if is_full(self) {
            self.drop_some_near(1);
        }
        let known = self.near.slots.get(&slot.index()).and_then(|words| words.get(&key.word()));
        let is_other = known.is_some_and(|known| known.key != *key);
        if is_other || is_full(self) || !self.may_keep_near(slot) {
            return false;
        }
        self.next.clear();
        record::write(entry, &mut self.next);
        let mark = record::mark(entry.body.as_ref().map_or(0, |body| body.touched));
        let used = self.half_life.used(mark, 1, now_ms, self.dither.draw());
        let times = (self.deadline(entry), used);
        let put = |store: &mut Self| {
            let (key, partition) = (key.as_bytes(), slot.index());
            store.writer.put_as(Admission::Near, key, partition, &store.next, times)
        };
        let is_kept = match put(self) {
            // None of its kind goes for it where others are short of room.
            Err(PutError::Full(full)) => {
                self.writer.stats().reserve_used == 0
                    && self.make_room((key, full.needed), now_ms)
                    && put(self).is_ok()
            }
            put => put.is_ok(),
        };
        if is_kept {
            let records = self.writer.records_for(key.as_bytes().len(), self.next.len());
            let copy = NearCopy { key: key.clone(), gist: gist(&self.next), records };
            self.near.insert(slot, copy);
        }
        is_kept
    }

    /// Whether nothing else is here of a slot than near copies.
    pub(in crate::core) fn may_keep_near(&self, slot: Slot) -> bool {
        self.slot_len(slot) == 0 && self.watched.extras_in(slot) == 0
    }

    /// Lets this host's readers trust the near copies of a slot until `until_ms` on the monotonic clock.
    pub(in crate::core) fn trust_near(&mut self, slot: Slot, until_ms: u64) {
        self.near.trusted.insert(slot.index());
        self.set_freshness(slot, until_ms);
    }

    /// Drops so many near copies, in no order, if there are as many. Returns how many went.
    pub(in crate::core) fn drop_some_near(&mut self, count: usize) -> u64 {
        let mut dropped = 0;
        for _ in 0..count.min(self.near.len) {
            // At the end it begins again with the next call.
            if let Some((slot, word, _)) = self.near.next() {
                dropped += u64::from(self.drop_near(slot, word));
            }
        }
        dropped
    }

    fn sweep_near(&mut self) {
        for _ in 0..SWEPT_STEP {
            if let Some((slot, word, key)) = self.near.next()
                && self.writer.get(key.as_bytes(), &mut self.buffer).is_none()
            {
                self.near.remove(slot, word);
            }
        }
    }

    /// Drops a near copy, by the word of its key, unless it is what has this gist. Returns whether it did.
    pub(in crate::core) fn drop_other_near(&mut self, slot: Slot, word: u64, gist: u64) -> bool {
        let kept = self.near.slots.get(&slot.index()).and_then(|words| words.get(&word));
        kept.is_some_and(|kept| kept.gist != gist) && self.drop_near(slot, word)
    }

    /// Drops a near copy, by the word of its key. Returns whether there was one.
    pub(in crate::core) fn drop_near(&mut self, slot: Slot, word: u64) -> bool {
        let key = self.near.remove(slot, word);
        key.is_some_and(|key| self.writer.remove(key.as_bytes()))
    }

    /// Drops all near copies of a slot, which no reader trusts from then on; returns how many that were.
    pub(in crate::core) fn drop_near_of(&mut self, slot: Slot) -> u64 {
        if self.near.trusted.remove(&slot.index()) {
            self.set_freshness(slot, 0);
        }
        let Some(words) = self.near.slots.remove(&slot.index()) else { return 0 };
        self.near.len -= words.len();
        self.near.records -= words.values().map(|copy| copy.records).sum::<usize>();
        words.values().map(|copy| u64::from(self.writer.remove(copy.key.as_bytes()))).sum()
    }

    /// Whether near copies of a slot are here.
    pub(in crate::core) fn has_near(&self, slot: Slot) -> bool {
        self.near.has_slot(slot)
    }

    /// What readers of shared memory take for the session at this time of the monotonic clock, in milliseconds.
    #[cfg(test)]
    pub(in crate::core) fn as_readers_see(
        &mut self,
        key: &Key,
        monotonic_ms: u64,
    ) -> Option<Entry> {
        if self.freshness(key.slot()) <= monotonic_ms {
            return None;
        }
        let found = self.writer.get(key.as_bytes(), &mut self.buffer)?;
        let is_over = found.deadline != 0 && found.deadline <= self.readers_ms(monotonic_ms);
        let view = record::View::parse(&self.buffer).ok().filter(|view| !view.is_marker())?;
        view.entry(found.mark).ok().filter(|_| !is_over)
    }

    /// How many near copies there are, about.
    pub(in crate::core) fn near_copies(&self) -> u64 {
        self.near.len as u64
    }

    /// Drops what an earlier run kept: nobody has told this one what changed since.
    pub(super) fn drop_all_near(&mut self) {
        if self.writer.stats().near_entries == 0 {
            return;
        }
        let mut keys = Vec::new();
        self.writer.scan(0, usize::MAX, &mut |item| {
            if item.near {
                keys.extend(Key::new(item.key));
            }
        });
        for key in keys {
            let found = self.writer.get(key.as_bytes(), &mut self.buffer);
            let is_marker = record::View::parse(&self.buffer).is_ok_and(|view| view.is_marker());
            if found.is_some() && !is_marker {
                self.writer.remove(key.as_bytes());
            }
        }
    }
}
