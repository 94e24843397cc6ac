//! One table's entries: in shared memory, with what the node must know of them beside it.

mod changes;
mod gone;
mod hottest;
mod near;
mod outline;
mod overdue;
mod owners;
mod replacing;
mod suspects;
mod walked;
mod watched;

use std::time::Duration;

use annulus_proto::entry::{Body, die_by};
use annulus_proto::message::{Failure, HotSession, Lifetimes};
use annulus_proto::submission::Action;
use annulus_proto::{
    Dither, Entry, HalfLife, Hlc, Key, NodeId, Replaced, SLOT_COUNT, Slot, Value, Version, record,
};
use annulus_shm::{Admission, ExpiredItem, Fate, PutError, TableStats, Used, Writer};
use annulus_sketch::Sketch;

use super::coordinator::changed_lease;
use super::merging::UnjoinedCounts;
use super::overflow::DROPPED_AFTER_MS;
use super::settings::{Flaw, TablePolicy};
use changes::Changes;
use gone::Leavers;
use hottest::Noticed;
use near::NearCopies;
use outline::{Change, Outline};
use overdue::Leaving;
use owners::Owners;
use replacing::Replacing;
use suspects::Suspects;

pub(super) use gone::{EXPIRED_AFTER_MS, Leaver};
pub(super) use near::gist_of;
pub(super) use outline::{IN_FLIGHT_MS, SYMBOLS};
pub(super) use overdue::Overdue;
pub(super) use watched::Watched;

/// The entries of one table.
///
/// Copies enter through [`Store::merge`] alone, so that the order of [`Entry`] holds whatever
/// arrives in whatever order. The sketch of each slot is kept up to date by each change.
///
/// What an earlier run left is served at once: a slot is read when it is first needed, or its turn has come
/// ([`Store::read_on`]). Its records are compared with their checksums then, and its sketch is made; until
/// then nothing of it is believed, and changes of it are not accounted for.
///
/// While there is nobody to compare with, no sketches are kept ([`Store::put_off_sketches`]): they cost a write
/// more than the rest of it. They are made again by reading all slots once more.
///
/// A session that went to another ring leaves a [marker](Entry::marker), which is dropped when there is need of room:
/// it is in no sketch, since whoever lacks it may ask the rings further out.
///
/// A copy that is here besides the homes of its slot ([`Store::merge_extra`]) is in no sketch and no count of a
/// slot: nobody compares it as part of one, and it stays when the slot is dropped.
///
/// A near copy ([`Store::keep_near`]) is for the readers of shared memory alone: to all else here it does not exist.
pub(super) struct Store {
    policy: TablePolicy,
    births: Births,
    node: NodeId,
    writer: Writer,
    outline: Outline,
    watched: Watched,
    suspects: Suspects,
    replacing: Replacing,
    owners: Owners,
    /// Whether each slot was read once, so that all owners are known.
    knows_owners: bool,
    noticed: Noticed,
    near: NearCopies,
    /// Whether there is memory for entries, as far as this core was told.
    is_reserved: bool,
    /// Whether somebody would have used it when there was none.
    is_memory_wanted: bool,
    changes: Changes,
    leaving: Leaving,
    /// Which sessions are gone; `None` = nobody wants to know.
    leavers: Option<Box<Leavers>>,
    unread: Unread,
    scan_cursor: u64,
    unjoined: UnjoinedCounts,
    flaw: Option<Flaw>,
    half_life: HalfLife,
    dither: Dither,
    /// The record that was read last.
    buffer: Vec<u8>,
    /// The record that is to be written.
    next: Vec<u8>,
}

/// How long entries of a birth may be there, in a table with this cap on lifetimes (0 = none).
#[derive(Clone, Copy, Debug)]
struct Births {
    lifetime_max_ms: u64,
}

/// The slots that were not read yet.
struct Unread {
    slots: Box<[bool]>,
    left: usize,
    /// Where reading goes on.
    next: u16,
    /// Records that were dropped on reading, and not told of yet.
    damaged: u64,
}

/// What one step of a scan did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Entries dropped because their time was over.
    pub dropped: u64,
    /// Records dropped because they did not match their checksum.
    pub damaged: u64,
}

/// The largest record of a table with this `max_value`, in bytes. `max_value` bounds what a client
/// may write; two maps, each within it, that were written on the two sides of a partition merge into
/// one that may have twice its size, and must still be stored.
pub const fn record_bytes_max(max_value: u32) -> u32 {
    2 * max_value + RECORD_OVERHEAD_BYTES
}

/// What a record takes beside its value, at most.
const RECORD_OVERHEAD_BYTES: u32 = 576;

const _: () = assert!(record::OVERHEAD_BYTES_MAX + 16 < RECORD_OVERHEAD_BYTES as usize);

/// What most records take beside their value: as a guess, for memory to be asked for ahead of its use.
const RECORD_HEAD_BYTES: usize = 64;

/// One in so many records stays free ([`TableStats`]).
const FREE_RECORDS_PART: usize = 28;

/// How many expired entries make room at a time.
const EXPIRED_STEP: usize = 1_024;

/// After how long a tombstone goes where it goes too early.
const EARLY_MS: u64 = 2_000;

/// How long an expired entry is kept so that its client is told *expired* and not *absent*.
pub(super) const EXPIRED_KEPT_MS: u64 = 60_000;

impl Store {
    /// Takes over a table as it is. Nothing of it was read then.
    pub(super) fn new(
        policy: TablePolicy,
        node: NodeId,
        writer: Writer,
        flaw: Option<Flaw>,
    ) -> Self {
        let lifetime_max_ms = u64::try_from(policy.lifetime_max.as_millis()).unwrap_or(u64::MAX);
        let mut store = Self {
            half_life: HalfLife::new(policy.half_life),
            dither: Dither::default(),
            policy,
            births: Births { lifetime_max_ms },
            node,
            is_reserved: writer.is_reserved(),
            is_memory_wanted: false,
            writer,
            outline: Outline::new(),
            watched: Watched::default(),
            suspects: Suspects::default(),
            replacing: Replacing::default(),
            owners: Owners::default(),
            knows_owners: false,
            noticed: Noticed::default(),
            near: NearCopies::default(),
            changes: Changes::default(),
            leaving: Leaving::default(),
            leavers: None,
            unread: Unread::all(),
            scan_cursor: 0,
            unjoined: UnjoinedCounts::default(),
            flaw,
            buffer: Vec::new(),
            next: Vec::new(),
        };
        store.drop_all_near();
        store
    }

    /// Whether all slots were read.
    pub(super) fn is_read(&self) -> bool {
        self.unread.left == 0
    }

    /// Whether this table can be compared with others: all slots were read, and their sketches are kept.
    pub(super) fn is_comparable(&self) -> bool {
        self.outline.is_kept() && self.is_read()
    }

    /// Keeps no sketches any more, as there is nobody to compare with.
    pub(super) fn put_off_sketches(&mut self) {
        if self.outline.is_kept() {
            self.outline = Outline::put_off();
        }
    }

    /// Keeps sketches, if they were put off: all slots are unread again.
    pub(super) fn keep_sketches(&mut self) {
        if !self.outline.is_kept() {
            self.outline = Outline::new();
            self.unread_all();
        }
    }

    /// All slots are to be read, and their sketches made, once more.
    fn unread_all(&mut self) {
        let damaged = std::mem::take(&mut self.unread.damaged);
        self.unread = Unread { damaged, ..Unread::all() };
        self.outline.clear();
    }

    /// How many slots were not read yet.
    pub(super) fn unread_slots(&self) -> u64 {
        self.unread.left as u64
    }

    /// Reads on, some `records` of what is unread.
    pub(super) fn read_on(&mut self, records: usize) {
        let mut read = 0;
        while self.unread.left > 0 && read < records {
            let slot = Slot::new(self.unread.next).expect("below the count");
            self.unread.next = (self.unread.next + 1) % SLOT_COUNT;
            read += self.read(slot);
        }
    }

    /// Damaged records that reading dropped since this was last asked.
    pub(super) fn take_damaged(&mut self) -> u64 {
        std::mem::take(&mut self.unread.damaged)
    }

    /// How often values could not be joined since this was last asked.
    pub(super) fn take_unjoined(&mut self) -> UnjoinedCounts {
        std::mem::take(&mut self.unjoined)
    }

    /// Reads a slot, unless it was read before. Costs its size. Returns how many records it had.
    fn read(&mut self, slot: Slot) -> usize {
        let index = usize::from(slot.index());
        if !std::mem::take(&mut self.unread.slots[index]) {
            return 0;
        }
        self.unread.left -= 1;
        let of_values = self.digests_are_of_values();
        let (outline, watched) = (&mut self.outline, &mut self.watched);
        let (suspects, owners) = (&mut self.suspects, &mut self.owners);
        let replacing = &mut self.replacing;
        let is_near = self.near.has_slot(slot);
        let verified = self.writer.verify_partition(slot.index(), &mut |item| {
            if is_near {
                return; // None of it is the slot's.
            }
            owners.insert(owner_of(item.value), slot.word(item.key));
            if may_be_placed(item.value) || watched.extras() > 0 {
                let Ok(key) = Key::new(item.key) else { return };
                let entry = record::View::parse(item.value).and_then(|view| view.entry(item.mark));
                if let Ok(entry) = &entry {
                    suspects.note(&key, entry.verdict().map(|(_, verdict)| verdict), 0);
                    replacing.note(&key, entry);
                }
                if watched.is_extra(slot, &key) {
                    return; // Its slot was read before, and is read again for another's damage.
                }
                watched.set(slot, &key, entry.is_ok_and(|entry| entry.is_placed()), false);
            }
            if outline.is_kept() {
                let after = digest_of((item.key, item.value, item.mark), of_values);
                outline.put(Change { word: slot.word(item.key), before: 0, after, made_ms: 0 });
            }
        });
        self.knows_owners |= self.unread.left == 0;
        self.unread.damaged += verified.dropped as u64;
        if verified.dropped > 0 {
            self.forget_gone(slot);
        }
        verified.checked
    }

    /// Looks no more after what is not there any more: what is here besides the homes is counted out of a
    /// slot, and must not count out what is not.
    fn forget_gone(&mut self, slot: Slot) {
        for key in self.watched.keys(slot) {
            if self.writer.get(key.as_bytes(), &mut self.buffer).is_none() {
                self.watched.remove(slot, &key);
            }
        }
    }

    /// Before anything of a key is looked at: its slot has been read.
    fn read_for(&mut self, key: &Key) {
        if self.unread.left > 0 {
            self.read(key.slot());
        }
    }

    /// Whether there is memory for entries. Without it nothing is stored.
    pub(super) fn is_reserved(&self) -> bool {
        self.is_reserved
    }

    /// There is.
    pub(super) fn use_memory(&mut self) {
        (self.is_reserved, self.is_memory_wanted) = (true, false);
    }

    /// Somebody would store something here.
    pub(super) fn wish_for_memory(&mut self) {
        self.is_memory_wanted = !self.is_reserved;
    }

    /// There was none to be had.
    pub(super) fn forget_wish_for_memory(&mut self) {
        self.is_memory_wanted = false;
    }

    /// Whether somebody would have stored something here had there been memory.
    pub(super) fn is_memory_wanted(&self) -> bool {
        self.is_memory_wanted
    }

    /// The number of the segment that the entries are in: a new one with each that is made.
    pub(super) fn instance(&self) -> u64 {
        self.writer.instance()
    }

    /// The table's policy.
    pub(super) fn policy(&self) -> &TablePolicy {
        &self.policy
    }

    /// Whether values are joined, so that versions do not tell them apart.
    fn digests_are_of_values(&self) -> bool {
        self.policy.merge.is_some() && self.flaw != Some(Flaw::ComparesVersions)
    }

    /// What stands for all of an entry where copies are compared; 0 of a marker.
    pub(super) fn digest(&self, key: &Key, entry: &Entry) -> u64 {
        match self.digests_are_of_values() {
            _ if entry.is_marker() => 0,
            true => entry.digest_with_value(key.as_bytes()),
            false => entry.digest(key.as_bytes()),
        }
    }

    /// Makes one entry the join of itself and another, as this table's values are joined, and says whether that
    /// changed it. Nothing is stored.
    pub(super) fn join(&mut self, mine: &mut Entry, theirs: &Entry) -> bool {
        if self.flaw == Some(Flaw::KeepsTheLater) {
            return mine.merge(theirs);
        }
        self.policy.join(mine, theirs, &mut self.unjoined)
    }

    /// Writes a client's value into an entry: it replaces what is there, or is joined with it. Nothing is stored.
    ///
    /// # Errors
    /// [`Failure::TooLarge`] or [`Failure::Refused`], if they cannot be joined; the entry is spoilt.
    pub(super) fn write_value(
        &mut self,
        entry: &mut Entry,
        version: Version,
        value: Value,
    ) -> Result<(), Failure> {
        self.policy.write_value(entry, version, value, &mut self.unjoined)
    }

    /// The copy under a key, dead or alive, but nothing past its last day.
    pub(super) fn get(&mut self, key: &Key, now_ms: u64) -> Option<Entry> {
        self.get_marked(key, now_ms).map(|(entry, _)| entry)
    }

    fn get_marked(&mut self, key: &Key, now_ms: u64) -> Option<(Entry, u64)> {
        self.read_for(key);
        if self.near.has_slot(key.slot()) {
            return None;
        }
        let found = self.writer.get(key.as_bytes(), &mut self.buffer)?;
        let view = record::View::parse(&self.buffer).ok()?;
        let entry = view.entry(found.mark).ok()?;
        self.births.accept(entry.birth, now_ms).then_some((entry, found.mark))
    }

    /// Touches, rewrites or ends a session that is alive, without decoding more of it than that takes, as
    /// [`Store::get`] and [`Store::merge`] of what has become of it would. With a rewrite go these deadlines, if any. `stamp`
    /// gives the version of a write that replaces one of the given instant. Returns the session's birth and its last write.
    ///
    /// `None`: nothing was done, because no such session is alive here, or something is in the way.
    pub(super) fn change(
        &mut self,
        key: &[u8],
        slot: Slot,
        action: &Action<'_>,
        lifetimes: Option<&Lifetimes>,
        now_ms: u64,
        stamp: impl FnOnce(Hlc) -> Option<Version>,
    ) -> Option<(Version, Version)> {
        let (birth, expected) = match action {
            Action::Touch { birth } | Action::End { birth } => (birth, None),
            Action::Update { birth, value } => (birth, Some(value.len())),
            Action::Other(_) => return None,
        };
        if expected.is_some() && self.policy.merge.is_some() {
            return None;
        }
        let of_values = self.digests_are_of_values();
        if self.unread.left > 0 {
            self.read(slot);
        }
        if self.near.has_slot(slot) {
            return None;
        }
        let expected = expected.map(|size| size + RECORD_HEAD_BYTES);
        let entry = self.writer.occupied(key, &mut self.buffer, expected)?;
        let mark = entry.found().mark;
        let before = record::View::parse(&self.buffer).ok()?;
        let deadline = before.deadline(mark);
        // Others besides the homes may have to hear of it.
        let is_alive = !before.ended
            && !before.is_marker()
            && !before.may_be_placed()
            && (deadline == 0 || deadline > now_ms)
            && self.births.accept(before.birth, now_ms);
        if !is_alive || birth.is_some_and(|birth| birth != before.birth) {
            return None;
        }
        let dither = self.dither.draw();
        let used = self.half_life.used(mark, 1, now_ms, dither);
        self.noticed.note_use(key, used, (1, dither), (self.half_life, now_ms));
        let touched_ms = record::touched(mark).max(now_ms.min(Hlc::MS_MAX));
        let touched = record::with_level(touched_ms, record::level(used));
        if let Action::Touch { .. } = action {
            // The record stays as it is.
            let change = match self.outline.is_kept() {
                true => before.digest_change(key, mark, touched).ok()?,
                false => None,
            };
            let deadline =
                self.births.record_deadline(before.birth, Some(before.deadline(touched)));
            entry.set_times(deadline, touched);
            let versions = (before.birth, before.version);
            if let Some(change) = change {
                let with_value = |digest| match of_values {
                    true => before.with_value(digest).ok(),
                    false => Some(digest),
                };
                let (before, after) = (with_value(change.0)?, with_value(change.1)?);
                let made_ms = record::touched(touched);
                let change = Change { word: slot.word(key), before, after, made_ms };
                self.outline.change(change, now_ms);
            }
            return Some(versions);
        }
        let is_sketched = self.outline.is_kept();
        let digest = if is_sketched { of_view((&before, key, mark), of_values)? } else { 0 };
        let (after, admission) = match action {
            Action::Update { value, .. } if value.len() <= self.policy.max_value as usize => {
                let version = stamp(before.version.hlc)?;
                let mut after = before.with_bytes(version, value);
                if let Some(lifetimes) = lifetimes {
                    let lease = (before.lease.idle, before.lease.expire_at);
                    let (idle, expire_at) =
                        changed_lease(&self.policy, lifetimes, (before.birth, lease), now_ms);
                    after = after.with_deadlines(version, idle, expire_at);
                }
                (after, Admission::Ordinary)
            }
            Action::End { .. } => {
                let version = stamp(before.version.hlc)?;
                (record::View::tombstone(before.birth, version), Admission::Reserve)
            }
            _ => return None,
        };
        let (mark, deadline) = match after.ended {
            true => (record::mark(0), None),
            false => (touched, Some(after.deadline(touched))),
        };
        self.next.clear();
        after.write(&mut self.next);
        let deadline = self.births.record_deadline(after.birth, deadline);
        entry.put_as(admission, &self.next, (deadline, mark)).ok()?;
        if self.changes.are_kept() {
            self.changes.note(slot.word(key), near::gist(&self.next));
        }
        let (birth, version) = (after.birth, after.version);
        if after.ended {
            self.owners.remove(before.owner(), slot.word(key));
            if let Some(leavers) = &mut self.leavers {
                leavers.see_end(key, birth, version);
            }
        }
        if is_sketched {
            let after = of_view((&after, key, mark), of_values);
            let after = after.expect("what was well formed stays so");
            let made_ms = version.hlc.ms().max(record::touched(mark));
            let change = Change { word: slot.word(key), before: digest, after, made_ms };
            self.outline.change(change, now_ms);
        }
        Some((birth, version))
    }

    /// Merges a copy into the stored one, and returns what is stored now.
    ///
    /// # Errors
    /// [`Failure::TableFull`], [`Failure::TooLarge`], or [`Failure::Refused`] for a copy that is past
    /// the last day of its birth; what was stored is as before. A tombstone takes the last room there is,
    /// whatever `admission` says.
    pub(super) fn merge(
        &mut self,
        key: &Key,
        offered: &Entry,
        now_ms: u64,
        admission: Admission,
    ) -> Result<Entry, Failure> {
        let is_extra = self.watched.is_extra(key.slot(), key);
        self.merge_as(key, offered, now_ms, admission, is_extra)
    }

    /// Merges a copy that is here besides the homes of its slot, as [`Store::merge`].
    ///
    /// # Errors
    /// As there.
    pub(super) fn merge_extra(
        &mut self,
        key: &Key,
        offered: &Entry,
        now_ms: u64,
    ) -> Result<Entry, Failure> {
        self.merge_as(key, offered, now_ms, Admission::Ordinary, true)
    }

    fn merge_as(
        &mut self,
        key: &Key,
        offered: &Entry,
        now_ms: u64,
        admission: Admission,
        is_extra: bool,
    ) -> Result<Entry, Failure> {
        self.drop_near_of(key.slot()); // This node is to hold the slot, or something of it.
        let ends = offered.is_ended() || offered.is_ending();
        let admission = if ends { Admission::Reserve } else { admission };
        if self.policy.merge.is_some() && offered.body.as_ref().is_some_and(Body::has_fields) {
            let why = "values of this table are joined as a whole; it has no fields";
            return Err(Failure::Refused(why.to_owned()));
        }
        let stored = self.get_marked(key, now_ms);
        if !self.births.accept(offered.birth, now_ms) {
            let why = "everything of this session's birth is past its last day (lifetime_max)";
            return Err(Failure::Refused(why.to_owned()));
        }
        if stored.is_none() && offered.is_marker() {
            return Ok(offered.clone()); // Nothing is here that went elsewhere.
        }
        let Some((before, mark)) = stored else {
            // A dead entry of an older birth may still lie there: it is replaced, not merged.
            let forgotten = if self.outline.is_kept() { self.raw_digest(key) } else { 0 };
            let slot = key.slot();
            self.see_forgotten(key, offered, now_ms, is_extra);
            let level = self.level_of_move(record::mark(touched_of(offered)), offered, now_ms);
            self.write((key, slot), offered, level, now_ms, admission)?;
            self.owners.insert(owner(offered), key.word());
            self.account(key, slot, forgotten, offered, now_ms, is_extra);
            return Ok(offered.clone());
        };
        let mut entry = before.clone();
        if !self.join(&mut entry, offered) {
            return Ok(before);
        }
        let is_elsewhere = !entry.is_ended() && entry.ring() != self.policy.ring;
        if is_elsewhere
            && touched_of(&before) <= touched_of(offered)
            && entry.moved_digest() == Some(self.digest(key, &entry))
        {
            entry = entry.marker(); // All of it is there.
        }
        let is_sketched = self.outline.is_kept();
        let digest = if is_sketched { self.digest(key, &before) } else { 0 };
        let rewrite = (!only_touched(&before, &entry)).then_some(admission);
        let level = if entry.birth != before.birth {
            0
        } else if entry.moved_at() > before.moved_at() {
            self.level_of_move(mark, &entry, now_ms)
        } else if touched_of(&entry) > touched_of(&before) {
            // What arrives late was used then, and not now.
            let used_ms = touched_of(&entry).min(now_ms);
            let dither = self.dither.draw();
            let used = self.half_life.used(mark, 1, used_ms, dither);
            self.noticed.note_use(key.as_bytes(), used, (1, dither), (self.half_life, now_ms));
            record::level(used)
        } else {
            record::level(mark)
        };
        self.replace((key, key.slot()), (digest, level), &entry, now_ms, rewrite, is_extra)?;
        self.owners.change(key, owner(&before), owner(&entry));
        if !is_extra {
            self.see_change(key, &before, &entry, now_ms);
        }
        Ok(entry)
    }

    /// Leaves a marker of a session that another ring holds as `copy` says, if all that is here is in there. Returns
    /// the marker then.
    pub(super) fn give_up(&mut self, key: &Key, copy: &Entry, now_ms: u64) -> Option<Entry> {
        let (before, mark) = self.get_marked(key, now_ms)?;
        let mut joined = before.clone();
        self.join(&mut joined, &copy.marker());
        let is_copy = touched_of(&before) <= touched_of(copy)
            && self.digest(key, &joined) == self.digest(key, copy);
        if joined.is_ended() || joined.is_marker() || !is_copy {
            return None;
        }
        let marker = joined.marker();
        let is_sketched = self.outline.is_kept();
        let digest = if is_sketched { self.digest(key, &before) } else { 0 };
        let (place, change) = ((key, key.slot()), (digest, record::level(mark)));
        let replaced = self.replace(place, change, &marker, now_ms, Some(Admission::Near), false);
        replaced.ok().map(|()| marker)
    }

    /// Visits about `budget` sessions from `cursor` on that are no hotter than what was used once, so long ago (see
    /// [`TablePolicy::cools_after`]). Returns the next cursor, 0 at the end.
    pub(super) fn cool_ones(
        &self,
        (cursor, budget): (u64, usize),
        now_ms: u64,
        after: Duration,
        visit: &mut dyn FnMut(Key),
    ) -> u64 {
        let limit = self.half_life.level_after(after);
        self.writer.scan(cursor, budget, &mut |item| {
            if !item.near && self.half_life.level(item.mark, now_ms) <= limit {
                Key::new(item.key).into_iter().for_each(&mut *visit);
            }
        })
    }

    /// Visits the keys of about `budget` entries from `cursor` on, but for near copies and markers. Returns the next
    /// cursor, 0 at the end. Reads no value.
    pub(super) fn keys_from(
        &self,
        (cursor, budget): (u64, usize),
        visit: &mut dyn FnMut(Key),
    ) -> u64 {
        self.writer.scan(cursor, budget, &mut |item| {
            if !item.near {
                Key::new(item.key).into_iter().for_each(&mut *visit);
            }
        })
    }

    /// How hot a session is as it was used here: see [`HalfLife::level`]. `None` of what is not here.
    pub(super) fn level(&mut self, key: &Key, now_ms: u64) -> Option<i16> {
        let (entry, mark) = self.get_marked(key, now_ms)?;
        (!entry.is_marker() && !entry.is_ended()).then(|| self.half_life.level(mark, now_ms))
    }

    /// Whether a session is here, all of it, and alive. Decodes no value.
    pub(super) fn is_alive(&mut self, key: &Key, now_ms: u64) -> bool {
        self.hot(key, now_ms).is_some()
    }

    /// The level of what is to go outward, if anything is.
    pub(super) fn level_to_cool(&self) -> Option<i16> {
        self.policy.cools_after.map(|after| self.half_life.level_after(after))
    }

    /// Notes that another home saw a session as hot as that, or hotter than it was seen here.
    pub(super) fn raise_level(&mut self, key: &Key, level: i16, now_ms: u64) {
        let half_life = self.half_life;
        self.writer.change_mark(key.as_bytes(), |mark| half_life.raised(mark, level, now_ms));
    }

    /// The level of what has moved: one that was brought in was so for a use, of which one home alone may know else.
    fn level_of_move(&mut self, mark: u64, entry: &Entry, now_ms: u64) -> u16 {
        let at_ms = entry.moved_at().hlc.ms();
        match entry.ring() == 0 && at_ms > 0 {
            true => {
                record::level(self.half_life.used(mark, 1, at_ms.min(now_ms), self.dither.draw()))
            }
            false => record::level(mark),
        }
    }

    /// What changed last, for those who keep near copies of it.
    pub(super) fn changes_mut(&mut self) -> &mut Changes {
        &mut self.changes
    }

    /// What is looked after one by one.
    pub(super) fn watched(&self) -> &Watched {
        &self.watched
    }

    /// The same, to note what was found out.
    pub(super) fn watched_mut(&mut self) -> &mut Watched {
        &mut self.watched
    }

    /// Nothing lies under a key that was looked after.
    pub(super) fn forget_watched(&mut self, slot: Slot, key: &Key) {
        self.watched.remove(slot, key);
    }

    /// Takes what is here besides the homes of a slot for part of it: this node has become one of them.
    pub(super) fn adopt(&mut self, slot: Slot, now_ms: u64) {
        self.drop_near_of(slot);
        if self.watched.extras() == 0 {
            return;
        }
        for key in self.watched.extra_keys(slot) {
            self.move_between(&key, slot, now_ms, false);
        }
    }

    /// Takes what may be meant to be here besides the homes of a slot out of it, since this node is no
    /// home of it, and holds nothing else of it that somebody may have to be given. Costs the slot's size.
    pub(super) fn set_aside(&mut self, slot: Slot, now_ms: u64) {
        if self.slot_len(slot) == 0 {
            return;
        }
        self.read(slot);
        for key in self.keys_of(slot) {
            let (least, me) = (self.policy.replicas.get(), self.node);
            let is_meant = |entry: Entry| {
                let replicas = entry.body.as_ref().map_or(0, |body| body.attributes.replicas);
                replicas > least || entry.pin() == Some(me)
            };
            if self.watched.contains(slot, &key) && self.get(&key, now_ms).is_some_and(is_meant) {
                self.move_between(&key, slot, now_ms, true);
            }
        }
    }

    /// Has an entry be here besides its homes, or as part of its slot.
    fn move_between(&mut self, key: &Key, slot: Slot, now_ms: u64, is_extra: bool) {
        let digest = self.raw_digest(key);
        let (before, after) = if is_extra { (digest, 0) } else { (0, digest) };
        let change = Change { word: slot.word(key.as_bytes()), before, after, made_ms: now_ms };
        self.outline.change(change, now_ms);
        let is_placed = self.get(key, now_ms).is_some_and(|entry| entry.is_placed());
        self.watched.set(slot, key, is_placed, is_extra && digest != 0);
    }

    /// Stores what has become of the stored entry, of which this was the digest, and this is the level of its heat
    /// now: its times alone if nothing is to be rewritten.
    ///
    /// # Errors
    /// [`Failure::TableFull`] or [`Failure::TooLarge`]; what was stored is as before.
    fn replace(
        &mut self,
        (key, slot): (&Key, Slot),
        (digest, level): (u64, u16),
        entry: &Entry,
        now_ms: u64,
        rewrite: Option<Admission>,
        is_extra: bool,
    ) -> Result<(), Failure> {
        match rewrite {
            Some(admission) => self.write((key, slot), entry, level, now_ms, admission)?,
            None => {
                let mark = mark_of(entry, level);
                self.writer.set_times(key.as_bytes(), self.deadline(entry), mark);
            }
        }
        self.account(key, slot, digest, entry, now_ms, is_extra);
        Ok(())
    }

    /// How many entries a slot has.
    pub(super) fn slot_len(&self, slot: Slot) -> usize {
        if self.near.has_slot(slot) {
            return 0;
        }
        let held = self.writer.partition_len(slot.index());
        match self.watched.extras() {
            0 => held,
            _ => held.saturating_sub(self.watched.extras_in(slot)),
        }
    }

    /// Drops everything of a slot at once, but for what is meant to be here besides its homes; returns how
    /// many entries that were.
    pub(super) fn drop_slot(&mut self, slot: Slot, now_ms: u64) -> u64 {
        self.set_aside(slot, now_ms);
        let keys = self.keys_of(slot);
        keys.iter().for_each(|key| self.drop_entry(key, now_ms));
        keys.len() as u64
    }

    /// The keys of a slot, in no order, without what is here besides its homes.
    fn keys_of(&self, slot: Slot) -> Vec<Key> {
        let mut keys = Vec::new();
        if self.near.has_slot(slot) {
            return keys;
        }
        self.writer.partition_keys(slot.index(), &mut |item| keys.extend(Key::new(item.key)));
        if self.watched.extras() > 0 {
            keys.retain(|key| !self.watched.is_extra(slot, key));
        }
        keys
    }

    /// How many entries a slot has, and its sketch, if it was not empty always.
    #[cfg(test)]
    pub(super) fn slot_sketch(&self, slot: Slot) -> (usize, Option<Sketch>) {
        (self.slot_len(slot), self.outline.of_slot(slot).cloned())
    }

    /// Sketches of parts of some slots: of each the first `symbols` symbols, 1 to [`SYMBOLS`]. `sizes` tells how
    /// many slots each part has. What was made after `cut_ms` (in hybrid milliseconds) is left out, as far as it
    /// is remembered; 0 = nothing is. `None` if the sizes do not add up. Costs the number of slots.
    pub(super) fn sketches(
        &self,
        slots: impl IntoIterator<Item = Slot>,
        sizes: impl IntoIterator<Item = usize>,
        symbols: usize,
        cut_ms: u64,
    ) -> Option<Vec<Sketch>> {
        self.outline.sketches(slots, sizes, symbols, cut_ms)
    }

    /// The keys of a slot whose word is one of these, which are in ascending order; by their words. Costs the
    /// slot's size.
    pub(super) fn keys_of_words(&self, slot: Slot, words: &[u64]) -> Vec<(u64, Key)> {
        let mut keys = Vec::new();
        if self.near.has_slot(slot) {
            return keys;
        }
        self.writer.partition_keys(slot.index(), &mut |item| {
            let word = slot.word(item.key);
            if words.binary_search(&word).is_ok() {
                keys.extend(Key::new(item.key).map(|key| (word, key)));
            }
        });
        if self.watched.extras() > 0 {
            keys.retain(|(_, key)| !self.watched.is_extra(slot, key));
        }
        keys.sort_unstable();
        keys
    }

    /// The keys of a slot in ascending order, each with the digest of its entry. Costs the slot's size.
    pub(super) fn slot_list(&mut self, slot: Slot, now_ms: u64) -> Vec<(Key, u64)> {
        self.read(slot);
        let mut keys = self.keys_of(slot);
        keys.sort_unstable();
        let digest = |key: Key| {
            let entry = self.get(&key, now_ms)?;
            let digest = self.digest(&key, &entry);
            Some((key, digest))
        };
        keys.into_iter().filter_map(digest).filter(|(_, digest)| *digest != 0).collect()
    }

    /// Visits entries from `cursor` on, in the order of the segment; returns the next cursor, 0 at the end.
    pub(super) fn list(
        &mut self,
        cursor: u64,
        budget: usize,
        now_ms: u64,
        visit: &mut dyn FnMut(Key, Entry),
    ) -> u64 {
        let mut keys = Vec::new();
        let next = self.writer.scan(cursor, budget, &mut |item| keys.extend(Key::new(item.key)));
        for key in keys {
            if let Some(entry) = self.get(&key, now_ms) {
                visit(key, entry);
            }
        }
        next
    }

    /// Drops up to `expired` entries whose time is over, and checks about `verified` records, where the
    /// last call ended.
    pub(super) fn scan(&mut self, now_ms: u64, expired: usize, verified: usize) -> Scanned {
        let checked = self.writer.verify(self.scan_cursor, verified);
        self.scan_cursor = checked.next;
        if checked.dropped > 0 {
            // Whose they were cannot be told: all sketches are made anew, bit by bit.
            self.unread_all();
            self.watched.slots().into_iter().for_each(|slot| self.forget_gone(slot));
        }
        let over_ms = now_ms.saturating_sub(EXPIRED_KEPT_MS);
        let dropped = self.remove_expired(over_ms, now_ms, expired);
        Scanned { dropped, damaged: checked.dropped as u64 }
    }

    /// Drops some of what has expired, at once, but for sessions that are to be seen to before
    /// ([`Store::take_overdue`]). Returns how many entries that were.
    pub(super) fn drop_expired(&mut self, now_ms: u64) -> u64 {
        self.remove_expired(now_ms, now_ms, EXPIRED_STEP)
    }

    fn remove_expired(&mut self, over_ms: u64, now_ms: u64, count: usize) -> u64 {
        let of_values = self.digests_are_of_values();
        let (outline, unread, watched) = (&mut self.outline, &self.unread, &mut self.watched);
        let (owners, near) = (&mut self.owners, &mut self.near);
        let mut leaving = self.policy.overflow.is_kept().then_some(&mut self.leaving);
        let leavers = &mut self.leavers;
        if let Some(leavers) = leavers {
            leavers.forget_old(now_ms);
        }
        let seen_ms = match leavers {
            // Before it is dropped it is seen to be over.
            Some(_) => over_ms.max(now_ms.saturating_sub(EXPIRED_AFTER_MS)),
            None => over_ms,
        };
        let mut decide = |item: ExpiredItem<'_>| {
            let mut own = leavers.as_mut().filter(|_| is_own((&*near, unread, &*watched), item));
            if item.deadline > over_ms {
                let is_open = own.is_some_and(|leavers| leavers.see(item, now_ms));
                // Looked at again when it is to be dropped; before that ever more rarely until that is sure.
                let dropped_ms = item.deadline.saturating_add(seen_ms - over_ms);
                let later_ms = seen_ms.saturating_add(now_ms.saturating_sub(item.deadline) / 2);
                let until_ms = if is_open { later_ms.min(dropped_ms) } else { dropped_ms };
                return Fate::Stays { until_ms };
            }
            if let Some(leaving) = &mut leaving
                && !is_near(near, item)
                && leaving.keep(item)
            {
                return Fate::Stays { until_ms: 0 };
            }
            if let Some(leavers) = &mut own {
                leavers.let_go(item, now_ms);
            }
            let places = (&mut *outline, &mut *owners, &mut *near);
            forget(places, (unread, &mut *watched), (item, of_values, EXPIRED_KEPT_MS), now_ms);
            Fate::Goes
        };
        let dropped = match over_ms == now_ms {
            true => {
                let mut goes = |item: ExpiredItem<'_>| decide(item) == Fate::Goes;
                self.writer.remove_expired(now_ms, count, &mut goes)
            }
            false => self.writer.settle_expired(seen_ms, count, &mut decide),
        };
        dropped as u64
    }

    /// How many sessions are to go so that one part in so many of what new ones may take is free.
    pub(super) fn beyond(&self, part: usize) -> usize {
        beyond(&self.writer.stats(), part)
    }

    /// How many sessions, as large as those that are here, may come until some are [beyond](Store::beyond) that.
    pub(super) fn room_within(&self, part: usize) -> usize {
        let stats = self.writer.stats();
        let (free, wanted) = free_and_wanted(&stats, part);
        match free.checked_sub(wanted) {
            None => 0,
            Some(records) => {
                let (sessions, taken) = sessions_and_records(&stats);
                records * sessions.max(1) / taken.max(1) + 1
            }
        }
    }

    /// How many sessions, as large as those that are here, have to go for a new one, if there is no room; and how many more for
    /// one that may not use the reserve.
    pub(super) fn sessions_in_place_of(&mut self, key: &Key, entry: &Entry) -> (usize, usize) {
        self.next.clear();
        record::write(entry, &mut self.next);
        let needed = self.writer.records_for(key.as_bytes().len(), self.next.len());
        let stats = self.writer.stats();
        let (sessions, taken) = sessions_and_records(&stats);
        let of_records = |records: usize| (records * sessions).div_ceil(taken.max(1));
        (of_records(needed), of_records(stats.reserve_used))
    }

    /// About `count` entries drawn at random, other ones at each call, each with its [warmth](HalfLife::warmth).
    pub(super) fn sample(&mut self, count: usize, now_ms: u64) -> Vec<(Key, u64)> {
        let mut sample = Vec::with_capacity(count);
        let half_life = self.half_life;
        self.writer.sample(count, &mut |item| {
            let warmth = half_life.warmth(item.mark, now_ms);
            sample.extend(Key::new(item.key).map(|key| (key, warmth)));
        });
        sample
    }

    /// Notes that readers of shared memory used an entry so often. It does not prolong a session, and other homes do
    /// not hear of it.
    ///
    /// Returns its key.
    pub(super) fn note_uses(&mut self, used: Used, uses: u32, now_ms: u64) -> Option<Vec<u8>> {
        let mut key = None;
        self.writer.used(used, &mut |item| key = Some(item.key.to_vec()));
        if let Some(key) = &key {
            self.warm(key, uses, now_ms);
        }
        key
    }

    /// Notes that an entry was read through the node, as [`Store::note_uses`].
    pub(super) fn note_read(&mut self, key: &Key, now_ms: u64) {
        self.note_reads(key, 1, now_ms);
    }

    /// The same of so many reads.
    pub(super) fn note_reads(&mut self, key: &Key, reads: u32, now_ms: u64) {
        self.warm(key.as_bytes(), reads, now_ms);
    }

    fn warm(&mut self, key: &[u8], uses: u32, now_ms: u64) {
        let (half_life, dither) = (self.half_life, self.dither.draw());
        let mut used = None;
        self.writer
            .change_mark(key, |mark| *used.insert(half_life.used(mark, uses, now_ms, dither)));
        let is_near = self.near_copies() > 0 && self.near.has_slot(Slot::of(key));
        if let Some(used) = used.filter(|_| !is_near) {
            self.noticed.note_use(key, used, (uses, dither), (half_life, now_ms));
        }
    }

    /// The hottest sessions that were noticed ([`Noticed`]), `count` of them at most, the hottest first. Each call looks
    /// at some more of what is here: it costs about 2,048 entries of the index, and 64 records.
    pub(super) fn hottest(&mut self, count: usize, now_ms: u64) -> Vec<HotSession> {
        let heat_at = (self.half_life, now_ms);
        let Self { noticed, writer, .. } = self;
        noticed.cursor = writer.scan(noticed.cursor, hottest::LOOKED, &mut |item| {
            if !item.near {
                noticed.offer(item.key, item.mark, heat_at);
            }
        });
        let mut hottest = Vec::new();
        for key in self.noticed.take() {
            if let Some((session, mark)) = self.hot(&key, now_ms) {
                self.noticed.offer(key.as_bytes(), mark, heat_at);
                hottest.push((self.half_life.warmth(mark, now_ms), session));
            }
        }
        hottest.sort_by_key(|(warmth, session)| (std::cmp::Reverse(*warmth), session.word));
        hottest.into_iter().take(count).map(|(_, session)| session).collect()
    }

    /// How hot a session is, if it is here and alive, and its mark. Decodes no value.
    fn hot(&mut self, key: &Key, now_ms: u64) -> Option<(HotSession, u64)> {
        self.read_for(key);
        if self.near.has_slot(key.slot()) {
            return None;
        }
        let mark = self.writer.get(key.as_bytes(), &mut self.buffer)?.mark;
        let view = record::View::parse(&self.buffer).ok()?;
        let deadline = view.deadline(mark);
        let is_alive = !view.ended
            && !view.is_marker()
            && (deadline == 0 || deadline > now_ms)
            && self.births.accept(view.birth, now_ms);
        let heat = HalfLife::heat(self.half_life.level(mark, now_ms));
        let session = HotSession {
            word: key.word(),
            birth: view.birth,
            heat: u32::try_from(heat).unwrap_or(u32::MAX),
            touched: record::touched(mark),
        };
        is_alive.then_some((session, mark))
    }

    /// Until when a session is a suspect, in hybrid milliseconds; it may have been so.
    pub(super) fn suspect_until(&self, key: &Key) -> Option<u64> {
        self.suspects.until(key)
    }

    /// So many suspects after the one with this word, in the order of their words; some may be none any more.
    pub(super) fn suspects_after(&self, after: Option<u64>, count: usize) -> Vec<(u64, Key)> {
        self.suspects.after(after, count)
    }

    /// The suspect with this word.
    pub(super) fn suspect_of(&self, word: u64) -> Option<Key> {
        self.suspects.of(word)
    }

    /// Looks no more after those that are suspects no more.
    pub(super) fn forget_old_suspects(&mut self, now_ms: u64) {
        self.suspects.forget_old(now_ms);
    }

    /// The next sessions here, at most so many, that were begun in place of others by `by_ms`; what is to end therefore,
    /// and when they began, in hybrid milliseconds. It may be known of sessions that are here no more.
    pub(super) fn replacing_in_turn(
        &mut self,
        by_ms: u64,
        count: usize,
    ) -> Vec<(Key, Replaced, u64)> {
        self.replacing.take_turns(by_ms, count)
    }

    /// The key with this word, if its session was begun in place of that one.
    pub(super) fn replacing(&self, word: u64, replaced: Replaced) -> Option<Key> {
        let (key, known) = self.replacing.of(word)?;
        (known == replaced).then(|| key.clone())
    }

    /// What a session was begun in place of has ended.
    pub(super) fn forget_replaced(&mut self, key: &Key) {
        self.replacing.forget(key);
    }

    /// Whether [`Store::owned_after`] knows of all.
    pub(super) fn knows_owners(&self) -> bool {
        self.knows_owners
    }

    /// Up to so many sessions of an owner after the one with this word, in the order of their words, and the word to go
    /// on after; `None` = these are all. Costs the sizes of their slots.
    pub(super) fn owned_after(
        &mut self,
        who: &[u8],
        after: Option<u64>,
        count: usize,
        now_ms: u64,
    ) -> (Vec<(Key, Entry)>, Option<u64>) {
        let words = self.owners.after(who, after, count);
        let next = words.last().copied().filter(|_| words.len() == count);
        let mut owned = Vec::with_capacity(words.len());
        for words in words.chunk_by(|one, other| Slot::of_word(*one) == Slot::of_word(*other)) {
            let Some(slot) = words.first().and_then(|word| Slot::of_word(*word)) else { continue };
            for (_, key) in self.keys_of_words(slot, words) {
                let entry = self.get(&key, now_ms).filter(|entry| owner(entry) == who);
                owned.extend(entry.map(|entry| (key, entry)));
            }
        }
        (owned, next)
    }

    /// Whether the index of owners is as one made anew of all that is here would be.
    #[cfg(test)]
    pub(super) fn has_exact_owners(&mut self) -> bool {
        let (mut owners, mut keys) = (Owners::default(), Vec::new());
        self.writer.scan(0, usize::MAX, &mut |item| keys.extend(Key::new(item.key)));
        for key in keys {
            self.writer.get(key.as_bytes(), &mut self.buffer).expect("it was listed");
            owners.insert(owner_of(&self.buffer), key.word());
        }
        owners == self.owners
    }

    /// Drops an entry at once.
    pub(super) fn drop_entry(&mut self, key: &Key, now_ms: u64) {
        self.drop_entry_as_of(key, now_ms, now_ms);
    }

    /// Drops an entry at once that other nodes drop at `made_ms`.
    pub(super) fn drop_entry_as_of(&mut self, key: &Key, made_ms: u64, now_ms: u64) {
        self.read_for(key);
        let slot = key.slot();
        let is_extra = self.watched.is_extra(slot, key);
        let before = if is_extra { 0 } else { self.raw_digest(key) };
        if let Some(found) = self.writer.get(key.as_bytes(), &mut self.buffer) {
            self.owners.remove(owner_of(&self.buffer), key.word());
            if let Some(leavers) = &mut self.leavers {
                leavers.forget(found.deadline, key.word());
            }
        }
        self.writer.remove(key.as_bytes());
        self.changes.note(key.word(), 0);
        self.watched.remove(slot, key);
        self.suspects.note(key, None, now_ms);
        self.replacing.forget(key);
        let change = Change { word: key.word(), before, after: 0, made_ms };
        self.outline.change(change, now_ms);
    }

    /// [`Flaw::DropsTombstones`](super::settings::Flaw::DropsTombstones).
    pub(super) fn drop_tombstones(&mut self, now_ms: u64) {
        let mut ended = Vec::new();
        self.list(0, usize::MAX, now_ms, &mut |key, entry| {
            if entry.is_ended() && entry.version.hlc.ms() + EARLY_MS < now_ms {
                ended.push(key);
            }
        });
        ended.iter().for_each(|key| self.drop_entry(key, now_ms));
    }

    /// Lets this host's readers trust a slot until `until_ms` on the monotonic clock; 0 = not at all.
    pub(super) fn set_freshness(&mut self, slot: Slot, until_ms: u64) {
        if self.writer.freshness(slot.index()) != until_ms {
            self.writer.set_freshness(slot.index(), until_ms);
        }
    }

    /// Until when this host's readers may trust a slot, on the monotonic clock; 0 = not at all.
    pub(super) fn freshness(&self, slot: Slot) -> u64 {
        self.writer.freshness(slot.index())
    }

    /// Tells readers what to add to the monotonic clock to get hybrid milliseconds.
    pub(super) fn set_clock_offset(&mut self, offset_ms: u64) {
        self.writer.set_clock_offset(offset_ms);
    }

    /// The hybrid clock as readers know it, at this time of the monotonic clock, both in milliseconds.
    pub(super) fn readers_ms(&self, monotonic_ms: u64) -> u64 {
        self.writer.clock_offset().wrapping_add(monotonic_ms)
    }

    /// How full the table is.
    pub(super) fn stats(&self) -> TableStats {
        self.writer.stats()
    }

    fn deadline(&self, entry: &Entry) -> u64 {
        self.births.record_deadline(entry.birth, entry.body.as_ref().map(Body::deadline))
    }

    fn write(
        &mut self,
        (key, slot): (&Key, Slot),
        entry: &Entry,
        level: u16,
        now_ms: u64,
        admission: Admission,
    ) -> Result<(), Failure> {
        self.next.clear();
        record::write(entry, &mut self.next);
        let admission = if entry.is_marker() { Admission::Near } else { admission };
        let (deadline, mark) = (self.deadline(entry), mark_of(entry, level));
        let put = |store: &mut Self| {
            let (key, slot) = (key.as_bytes(), slot.index());
            store.writer.put_as(admission, key, slot, &store.next, (deadline, mark))
        };
        let mut result = put(self);
        for _ in 0..self.steps_to_make_room() {
            let Err(PutError::Full(full)) = result else { break };
            if !self.make_room((key, full.needed), now_ms) {
                break;
            }
            result = put(self);
        }
        match result {
            Ok(_) => {
                if self.changes.are_kept() {
                    self.changes.note(key.word(), near::gist(&self.next));
                }
                self.suspects.note(key, entry.verdict().map(|(_, verdict)| verdict), now_ms);
                self.replacing.note(key, entry);
                Ok(())
            }
            Err(PutError::ValueTooLarge { size, .. }) => {
                Err(Failure::TooLarge { size: size as u64, limit: self.policy.max_value.into() })
            }
            Err(why) => {
                if why == PutError::Unreserved {
                    self.wish_for_memory();
                }
                Err(Failure::TableFull { node: self.node })
            }
        }
    }

    /// Drops what has expired, and the coolest near copies if that is not enough for an entry that needs so many records, but
    /// not what lies under `key`: the caller counts that out itself.
    fn make_room(&mut self, (key, needed): (&Key, usize), now_ms: u64) -> bool {
        let of_values = self.digests_are_of_values();
        let (outline, unread, watched) = (&mut self.outline, &self.unread, &mut self.watched);
        let (owners, near) = (&mut self.owners, &mut self.near);
        let half_life = self.half_life;
        let warmth = |mark| half_life.warmth(mark, now_ms);
        let (leaving, leavers) = (&mut self.leaving, &mut self.leavers);
        let keeps = self.policy.overflow.is_kept();
        let mut let_go = |item: ExpiredItem<'_>, also_kept: bool| {
            let goes = item.key != key.as_bytes() && (also_kept || is_near(near, item));
            if goes {
                if let Some(leavers) = leavers
                    && is_own((&*near, unread, &*watched), item)
                {
                    leavers.let_go(item, now_ms);
                }
                let is_seen_to = keeps && !is_near(near, item) && leaving.let_go(item);
                let kept_ms = if is_seen_to { DROPPED_AFTER_MS } else { EXPIRED_KEPT_MS };
                let places = (&mut *outline, &mut *owners, &mut *near);
                forget(places, (unread, &mut *watched), (item, of_values, kept_ms), now_ms);
            }
            goes
        };
        // What goes is in memory until it was seen to: some at a time. Many may seem to have expired that were used since.
        let steps = if keeps { EXPIRED_STEP / overdue::DROPPED_STEP } else { 0 };
        for _ in 0..steps {
            let mut let_go = |item: ExpiredItem<'_>| let_go(item, true);
            if self.writer.remove_expired(now_ms, overdue::DROPPED_STEP, &mut let_go) > 0 {
                return true;
            }
        }
        self.writer.make_room(needed, now_ms, &warmth, &mut |item| let_go(item, !keeps)) > 0
    }

    /// How often room is made for one write: where what goes is to be seen to, it is little each time.
    fn steps_to_make_room(&self) -> usize {
        if self.policy.overflow.is_kept() { EXPIRED_STEP / overdue::DROPPED_STEP } else { 1 }
    }

    /// The digest of what lies under a key, acceptable or not; 0 of nothing.
    fn raw_digest(&mut self, key: &Key) -> u64 {
        match self.writer.get(key.as_bytes(), &mut self.buffer) {
            Some(found) => {
                let of_values = self.digests_are_of_values();
                digest_of((key.as_bytes(), &self.buffer, found.mark), of_values)
            }
            None => 0,
        }
    }

    fn account(
        &mut self,
        key: &Key,
        slot: Slot,
        before: u64,
        entry: &Entry,
        now_ms: u64,
        is_extra: bool,
    ) {
        let touched = entry.body.as_ref().map_or(0, |body| body.touched);
        if self.outline.is_kept() {
            let was_extra = self.watched.is_extra(slot, key);
            let change = Change {
                word: slot.word(key.as_bytes()),
                before: if was_extra { 0 } else { before },
                after: if is_extra { 0 } else { self.digest(key, entry) },
                made_ms: entry.version.hlc.ms().max(touched),
            };
            self.outline.change(change, now_ms);
        }
        if self.watched.len() > 0 || is_extra || entry.is_placed() {
            self.watched.set(slot, key, entry.is_placed(), is_extra);
        }
    }
}

impl Unread {
    fn all() -> Self {
        let slots = vec![true; usize::from(SLOT_COUNT)].into_boxed_slice();
        Self { left: slots.len(), slots, next: 0, damaged: 0 }
    }
}

impl Births {
    /// Whether copies of this birth are accepted still.
    fn accept(self, birth: Version, now_ms: u64) -> bool {
        let die_by = self.die_by(birth);
        die_by == 0 || now_ms < die_by
    }

    fn die_by(self, birth: Version) -> u64 {
        die_by(birth.hlc, self.lifetime_max_ms)
    }

    /// When a record may be dropped: a tombstone (which has no deadline of its own) with the last record
    /// that could carry its birth, a session when it expires.
    fn record_deadline(self, birth: Version, deadline: Option<u64>) -> u64 {
        match (deadline, self.die_by(birth)) {
            (None | Some(0), die_by) => die_by,
            (Some(deadline), 0) => deadline,
            (Some(deadline), die_by) => deadline.min(die_by),
        }
    }
}

/// Takes an entry that is being dropped out of its slot's sketch, if it is in there. Every node drops it for the
/// same reason, if not at the same time: mostly `kept_ms` after its deadline.
fn forget(
    (outline, owners, near): (&mut Outline, &mut Owners, &mut NearCopies),
    (unread, watched): (&Unread, &mut Watched),
    (item, of_values, kept_ms): (ExpiredItem<'_>, bool, u64),
    now_ms: u64,
) {
    let Some(slot) = Slot::new(item.partition) else { return };
    if near.has_slot(slot) {
        near.remove(slot, slot.word(item.key));
        return;
    }
    owners.remove(owner_of(item.value), slot.word(item.key));
    if watched.len() > 0
        && let Ok(key) = Key::new(item.key)
    {
        let was_extra = watched.is_extra(slot, &key);
        watched.remove(slot, &key);
        if was_extra {
            return;
        }
    }
    if unread.slots[usize::from(slot.index())] {
        return;
    }
    let change = Change {
        word: slot.word(item.key),
        before: digest_of((item.key, item.value, item.mark), of_values),
        after: 0,
        made_ms: match item.deadline {
            0 => now_ms,
            deadline => deadline.saturating_add(kept_ms),
        },
    };
    outline.change(change, now_ms);
}

/// How many records sessions may still take, once near copies make room, and how many are to be free: one part in so many of
/// what new ones may take, and what is taken of the reserve.
fn free_and_wanted(stats: &TableStats, part: usize) -> (usize, usize) {
    let all = stats.capacity_records - stats.capacity_records.div_ceil(FREE_RECORDS_PART);
    let wanted = (all - stats.reserve_records).div_ceil(part);
    (stats.room + stats.near_records, wanted + stats.reserve_used)
}

/// How many sessions there are, and how many records they take.
fn sessions_and_records(stats: &TableStats) -> (usize, usize) {
    let taken = stats.entries + stats.blocks - stats.near_records;
    (stats.entries - stats.near_entries, taken)
}

/// See [`Store::beyond`].
fn beyond(stats: &TableStats, part: usize) -> usize {
    let (free, wanted) = free_and_wanted(stats, part);
    let (sessions, taken) = sessions_and_records(stats);
    (wanted.saturating_sub(free) * sessions).div_ceil(taken.max(1))
}

/// Whether something is here because this node holds its slot, and can be believed.
fn is_own(
    (near, unread, watched): (&NearCopies, &Unread, &Watched),
    item: ExpiredItem<'_>,
) -> bool {
    let Some(slot) = Slot::new(item.partition) else { return false };
    if near.has_slot(slot) || unread.slots[usize::from(slot.index())] {
        return false;
    }
    watched.extras() == 0 || Key::new(item.key).is_ok_and(|key| !watched.is_extra(slot, &key))
}

fn is_near(near: &NearCopies, item: ExpiredItem<'_>) -> bool {
    Slot::new(item.partition).is_some_and(|slot| near.has_slot(slot))
}

/// The digest of a key's record and mark, of its value, too, or of its versions alone; 0 of what is none.
fn digest_of((key, record, mark): (&[u8], &[u8], u64), of_values: bool) -> u64 {
    let view = record::View::parse(record).ok();
    view.and_then(|view| of_view((&view, key, mark), of_values)).unwrap_or(0)
}

fn of_view((view, key, mark): (&record::View<'_>, &[u8], u64), of_values: bool) -> Option<u64> {
    if view.is_marker() {
        return Some(0);
    }
    let digest = view.digest(key, mark).ok()?;
    if of_values { view.with_value(digest).ok() } else { Some(digest) }
}

/// Whether a record is worth a closer look for what it says of its place.
fn may_be_placed(value: &[u8]) -> bool {
    record::View::parse(value).is_ok_and(|view| view.may_be_placed())
}

/// Whose session a record is; empty = nobody's.
fn owner_of(record: &[u8]) -> &[u8] {
    record::View::parse(record).map_or(&[], |view| view.owner())
}

fn owner(entry: &Entry) -> &[u8] {
    entry.body.as_ref().map_or(&[], |body| &body.attributes.owner)
}

/// The mark of an entry of this level.
fn mark_of(entry: &Entry, level: u16) -> u64 {
    record::with_level(touched_of(entry), if entry.is_ended() { 0 } else { level })
}

fn touched_of(entry: &Entry) -> u64 {
    entry.body.as_ref().map_or(0, |body| body.touched)
}

fn only_touched(before: &Entry, after: &Entry) -> bool {
    let (Some(old), Some(new)) = (&before.body, &after.body) else { return false };
    before.birth == after.birth
        && before.version == after.version
        && old.base == new.base
        && old.lease == new.lease
        && old.attributes == new.attributes
        && old.fields == new.fields
        && old.notes == new.notes
}

#[cfg(test)]
mod tests;
