//! Writes kept for homes that could not be reached.
//!
//! The coordinator is a home itself, so the write is in its own store: a hint is the key alone, and
//! what is delivered is the entry as it is by then. It goes to disk a moment later, beside the request's
//! way, so that a restart finds it again.
//!
//! A hint that there is no room for, or that has become too old, leaves a mark: the slot is compared with
//! that home. Marks are not on disk, since a restarted node compares everything anyway; nor would
//! anything but time be lost if no hint were.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annulus_proto::{Key, NodeId, SLOT_COUNT, Slot};

use super::kept::{Record, RecordChange, RecordName, Space};

/// The hints of one table, bounded in bytes and in time.
#[derive(Debug)]
pub(super) struct Hints {
    bytes_max: u64,
    age_max_ms: u64,
    bytes: u64,
    count: usize,
    homes: BTreeMap<NodeId, HomeHints>,
    marks: BTreeMap<NodeId, SlotMarks>,
    disk: Disk,
    /// The hint that was looked at last for its age.
    aged: Option<(NodeId, Key)>,
}

/// The hints for one home.
#[derive(Debug, Default)]
struct HomeHints {
    keys: BTreeMap<Key, Hint>,
    under_way: usize,
    /// The last key taken: the next ones follow it, so that none blocks the others.
    taken: Option<Key>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Hint {
    /// When it was kept first, in milliseconds.
    kept_ms: u64,
    delivery: Delivery,
    /// Whether its record may be on disk, or on its way there.
    on_disk: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Delivery {
    #[default]
    Waits,
    UnderWay,
    /// It was added again since: this delivery may bear what was before.
    AddedAgain,
}

/// What the disk lacks.
#[derive(Debug, Default)]
struct Disk {
    puts: BTreeSet<(NodeId, Key)>,
    deletes: BTreeSet<(NodeId, Key)>,
    /// What is on its way, and whether it is put.
    under_way: Vec<((NodeId, Key), bool)>,
}

/// A set of slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotMarks(Box<[u64]>);

/// What a hint costs beside its key's bytes.
const HINT_OVERHEAD_BYTES: u64 = 96;
/// The most records that one batch changes.
const BATCH_MAX: usize = 8_192;

impl Hints {
    /// No hints, and room for `bytes_max` bytes of them, each for `age_max`.
    pub(super) fn new(bytes_max: u64, age_max: Duration) -> Self {
        Self {
            bytes_max,
            age_max_ms: u64::try_from(age_max.as_millis()).unwrap_or(u64::MAX),
            bytes: 0,
            count: 0,
            homes: BTreeMap::new(),
            marks: BTreeMap::new(),
            disk: Disk::default(),
            aged: None,
        }
    }

    /// Keeps a hint. Without room for it its slot is marked instead, to be compared. Returns whether the hint
    /// was kept.
    pub(super) fn add(&mut self, home: NodeId, key: &Key, now_ms: u64) -> bool {
        let hints = self.homes.entry(home).or_default();
        if let Some(hint) = hints.keys.get_mut(key) {
            if hint.delivery == Delivery::UnderWay {
                hint.delivery = Delivery::AddedAgain;
            }
            return true;
        }
        if self.bytes + cost(key) > self.bytes_max {
            if hints.keys.is_empty() {
                self.homes.remove(&home);
            }
            self.mark(home, key.slot());
            return false;
        }
        let on_disk = self.disk.put(home, key);
        let hint = Hint { kept_ms: now_ms, on_disk, ..Hint::default() };
        hints.keys.insert(key.clone(), hint);
        self.bytes += cost(key);
        self.count += 1;
        true
    }

    /// Takes back a hint that an earlier run kept. Returns whether it is one, and has room.
    pub(super) fn restore(&mut self, record: &Record, now_ms: u64) -> bool {
        let RecordName { slot, rest, .. } = &record.name;
        let Some((home, key)) = parse(rest).filter(|(_, key)| key.slot() == *slot) else {
            return false;
        };
        let Ok(kept_ms) = record.value.as_slice().try_into().map(u64::from_le_bytes) else {
            return false;
        };
        // The clock may have been set back: no hint is from the future.
        let kept = self.add(home, &key, kept_ms.min(now_ms));
        self.disk.puts.remove(&(home, key.clone()));
        match self.homes.get_mut(&home).and_then(|hints| hints.keys.get_mut(&key)) {
            Some(hint) => hint.on_disk = true,
            None => drop(self.disk.deletes.insert((home, key))),
        }
        kept
    }

    /// The next hint for a home, to be delivered; `None` if all are on their way, or as many as may be at a
    /// time.
    pub(super) fn next(&mut self, home: NodeId, under_way_max: usize) -> Option<Key> {
        let hints = self.homes.get_mut(&home)?;
        if hints.under_way >= under_way_max || hints.under_way >= hints.keys.len() {
            return None;
        }
        let last = hints.taken.clone();
        let waits = |(_, hint): &(&Key, &Hint)| hint.delivery == Delivery::Waits;
        let next = match &last {
            Some(last) => {
                let mut after = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
                let found = hints.keys.range::<Key, _>(after).find(waits);
                after = (std::ops::Bound::Unbounded, std::ops::Bound::Included(last));
                found.or_else(|| hints.keys.range::<Key, _>(after).find(waits))
            }
            None => hints.keys.iter().find(waits),
        };
        let key = next?.0.clone();
        hints.keys.get_mut(&key)?.delivery = Delivery::UnderWay;
        hints.under_way += 1;
        hints.taken = Some(key.clone());
        Some(key)
    }

    /// A delivery ended without success: the hint stays.
    pub(super) fn failed(&mut self, home: NodeId, key: &Key) {
        let Some(hints) = self.homes.get_mut(&home) else { return };
        let Some(hint) = hints.keys.get_mut(key) else { return };
        if std::mem::take(&mut hint.delivery) != Delivery::Waits {
            hints.under_way -= 1;
        }
    }

    /// Forgets a hint that was delivered, or has become pointless, unless it was added again after
    /// the delivery had begun.
    pub(super) fn delivered(&mut self, home: NodeId, key: &Key) {
        let Some(hints) = self.homes.get_mut(&home) else { return };
        match hints.keys.get(key) {
            Some(hint) if hint.delivery == Delivery::AddedAgain => self.failed(home, key),
            Some(_) => self.remove(home, key),
            None => {}
        }
    }

    /// Forgets all hints for a node that is gone. Returns how many there were.
    pub(super) fn forget(&mut self, home: NodeId) -> u64 {
        self.marks.remove(&home);
        let Some(hints) = self.homes.remove(&home) else { return 0 };
        let forgotten = hints.keys.len();
        for (key, hint) in hints.keys {
            self.bytes -= cost(&key);
            self.disk.delete(home, key, hint.on_disk);
        }
        self.count -= forgotten;
        forgotten as u64
    }

    /// Looks at up to `budget` hints, and drops those that are too old; their slots are marked. Returns how
    /// many were dropped.
    pub(super) fn drop_old(&mut self, now_ms: u64, budget: usize) -> u64 {
        let mut old = Vec::new();
        let (mut looked, mut from) = (0, self.aged.take());
        for (home, hints) in self.homes.range(from.as_ref().map_or(NodeId::from_bits(0), |f| f.0)..)
        {
            let after = from.take_if(|(node, _)| node == home).map(|(_, key)| key);
            let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
            for (key, hint) in hints.keys.range::<Key, _>((start, std::ops::Bound::Unbounded)) {
                if looked == budget {
                    break;
                }
                looked += 1;
                self.aged = Some((*home, key.clone()));
                let age_ms = now_ms.saturating_sub(hint.kept_ms);
                if age_ms >= self.age_max_ms && hint.delivery == Delivery::Waits {
                    old.push((*home, key.clone()));
                }
            }
        }
        if looked < budget {
            self.aged = None;
        }
        for (home, key) in &old {
            self.remove(*home, key);
            self.mark(*home, key.slot());
        }
        old.len() as u64
    }

    fn remove(&mut self, home: NodeId, key: &Key) {
        let Some(hints) = self.homes.get_mut(&home) else { return };
        let Some(hint) = hints.keys.remove(key) else { return };
        hints.under_way -= usize::from(hint.delivery != Delivery::Waits);
        self.bytes -= cost(key);
        self.count -= 1;
        if hints.keys.is_empty() {
            self.homes.remove(&home);
        }
        self.disk.delete(home, key.clone(), hint.on_disk);
    }

    pub(super) fn mark(&mut self, home: NodeId, slot: Slot) {
        self.marks.entry(home).or_insert_with(SlotMarks::none).insert(slot);
    }

    /// The nodes there are hints for.
    pub(super) fn homes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.homes.keys().copied()
    }

    /// The nodes with which slots are to be compared, since hints were lost.
    pub(super) fn marked(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.marks.keys().copied()
    }

    /// The slots to compare with this home, which are not marked any more then.
    pub(super) fn take_marks(&mut self, home: NodeId) -> Option<SlotMarks> {
        self.marks.remove(&home)
    }

    /// They were not compared after all.
    pub(super) fn put_marks_back(&mut self, home: NodeId, marks: &SlotMarks) {
        self.marks.entry(home).or_insert_with(SlotMarks::none).extend(marks);
    }

    /// How many slots are marked, of all homes.
    pub(super) fn slots_marked(&self) -> u64 {
        self.marks.values().map(SlotMarks::len).sum()
    }

    /// How many hints there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    // On disk.

    /// What is to change on disk, if nothing is on its way there: of the table with this place.
    pub(super) fn unsaved(&mut self, table: usize) -> Vec<RecordChange> {
        if !self.disk.under_way.is_empty() {
            return Vec::new();
        }
        let Self { disk, homes, .. } = self;
        let mut changes = Vec::new();
        while changes.len() < BATCH_MAX
            && let Some((home, key)) = disk.deletes.pop_first()
        {
            changes.push(RecordChange { name: name(table, home, &key), value: None });
            disk.under_way.push(((home, key), false));
        }
        while changes.len() < BATCH_MAX
            && let Some((home, key)) = disk.puts.pop_first()
        {
            let Some(hint) = homes.get_mut(&home).and_then(|hints| hints.keys.get_mut(&key)) else {
                continue;
            };
            hint.on_disk = true;
            let value = Some(hint.kept_ms.to_le_bytes().to_vec());
            changes.push(RecordChange { name: name(table, home, &key), value });
            disk.under_way.push(((home, key), true));
        }
        changes
    }

    /// Whether nothing has to be saved, or is on its way.
    pub(super) fn is_saved(&self) -> bool {
        self.disk.lacks() == 0
    }

    /// How many records the disk lacks, or has too many.
    pub(super) fn unsaved_count(&self) -> usize {
        self.disk.lacks()
    }

    /// What was under way is on disk. Returns how many hints that were.
    pub(super) fn saved(&mut self) -> u64 {
        let saved = std::mem::take(&mut self.disk.under_way);
        saved.iter().filter(|(_, put)| *put).count() as u64
    }

    /// What was under way is not on disk, or only perhaps: it is to be saved again.
    pub(super) fn not_saved(&mut self) {
        for ((home, key), put) in std::mem::take(&mut self.disk.under_way) {
            let hint = self.homes.get_mut(&home).and_then(|hints| hints.keys.get_mut(&key));
            match (put, hint) {
                // It may be there all the same: if it goes, its record has to.
                (true, Some(_)) => drop(self.disk.puts.insert((home, key))),
                // What was put and is gone by now has its deletion noted.
                (false, None) => drop(self.disk.deletes.insert((home, key))),
                (false, Some(hint)) => hint.on_disk = true,
                (true, None) => {}
            }
        }
    }
}

impl Disk {
    /// Notes a hint that is to be on disk. Returns whether it may still be there.
    fn put(&mut self, home: NodeId, key: &Key) -> bool {
        let named = (home, key.clone());
        let may_be_there = self.deletes.remove(&named);
        self.puts.insert(named);
        may_be_there
    }

    fn delete(&mut self, home: NodeId, key: Key, on_disk: bool) {
        let named = (home, key);
        self.puts.remove(&named);
        if on_disk {
            self.deletes.insert(named);
        }
    }

    fn lacks(&self) -> usize {
        self.puts.len() + self.deletes.len() + self.under_way.len()
    }
}

impl SlotMarks {
    fn none() -> Self {
        Self(vec![0; usize::from(SLOT_COUNT).div_ceil(64)].into_boxed_slice())
    }

    fn insert(&mut self, slot: Slot) {
        self.0[usize::from(slot.index() / 64)] |= 1 << (slot.index() % 64);
    }

    fn extend(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, more)| *word |= more);
    }

    /// Whether a slot is in it.
    pub(super) fn contains(&self, slot: Slot) -> bool {
        self.0[usize::from(slot.index() / 64)] >> (slot.index() % 64) & 1 == 1
    }

    fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

fn cost(key: &Key) -> u64 {
    key.as_bytes().len() as u64 + HINT_OVERHEAD_BYTES
}

fn name(table: usize, home: NodeId, key: &Key) -> RecordName {
    let mut rest = home.bits().to_be_bytes().to_vec();
    rest.extend_from_slice(key.as_bytes());
    RecordName { space: Space::Hints, table, slot: key.slot(), rest }
}

fn parse(rest: &[u8]) -> Option<(NodeId, Key)> {
    let (home, key) = rest.split_first_chunk()?;
    let home = u64::from_be_bytes(*home);
    Some((NodeId::from_bits(home), Key::new(key).ok()?)).filter(|_| home >> NodeId::BITS == 0)
}

#[cfg(test)]
mod tests;
