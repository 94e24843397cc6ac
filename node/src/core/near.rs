//! Near copies: sessions that are no home's, kept in this host's shared memory since somebody here reads them.
//!
//! Only readers of shared memory see them; whoever asks this node is answered by the homes. They are kept valid by
//! *beats*: every 200 ms this node asks homes what changed at them since it last asked.
//!
//! - **R − W + 1 homes cover a slot.** Of those that hold an acknowledged write one at least is among them, and tells of
//!   it. A copy is read from all that cover its slot, so that one of them had what was acknowledged before.
//! - **A copy is believed for two beats** after the earliest of the last questions that its slot's homes have answered. So
//!   what a reader sees is no more than two beats behind what was acknowledged; nothing else has to arrive in time.
//! - **Whatever is unbroken covers.** A home tells of its run and the number of its next change. After a restart, or where it
//!   has forgotten changes, all copies that it covers are dropped. So they are if the homes of their slot are others,
//!   or one of them does not vouch for it.
//! - **A read races no change.** Of a session that is read a home may tell meanwhile that it became something else: then
//!   it is not kept. What a home answered after this node last asked it is told of again with the next beat, by its
//!   [gist](gist_of), so that a copy that is just that stays.
//!
//! A home remembers nothing of those who ask, only the last changes ([`Changes`](super::store::Changes)) while anybody
//! does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annulus_proto::message::{Beat, BeatPlace, BeatRequest, Fetch, Fetched, Message, Operation};
use annulus_proto::{Entry, Key, NodeId, Slot, SlotSet};
use annulus_slots::Phase;

use super::calls::Purpose;
use super::coordinator::{Pending, Stage};
use super::io::{Asker, Now};
use super::replica::reject_table;
use super::settings::{Partition, ReadFrom, majority};
use super::standing::as_ms;
use super::store::{Store, gist_of};
use super::{Core, Table};

/// What this node knows of the homes of a table's near copies.
#[derive(Debug, Default)]
pub(super) struct Near {
    homes: BTreeMap<NodeId, Home>,
    slots: BTreeMap<u16, Cover>,
    /// The sessions that are read to be kept, by the words of their keys; the gists of what they were said to be
    /// meanwhile.
    reading: BTreeMap<u64, BTreeSet<u64>>,
    /// How often copies were read since their homes were told, by the words of the keys, and the last one that was told
    /// of.
    uses: BTreeMap<u64, u32>,
    told_uses: u64,
    next_beat: Duration,
}

#[derive(Debug, Default)]
struct Home {
    /// How many cores it has; 0 = not known.
    cores: u16,
    /// What comes from each core that has slots of interest.
    feeds: BTreeMap<u16, Feed>,
    /// Until when there is interest though no copy is here.
    wanted_until: Duration,
}

/// What a core of a home told last.
#[derive(Clone, Copy, Debug)]
struct Feed {
    /// A slot of its.
    slot: Slot,
    /// Where it ended; `None` = nothing came yet, or there was a gap after it.
    place: Option<BeatPlace>,
    /// When this node had asked what was answered last.
    asked: Duration,
    /// Since when nothing is missing.
    since: Duration,
}

/// What keeps the near copies of a slot valid.
#[derive(Debug)]
struct Cover {
    /// The homes of the slot then.
    homes: Vec<NodeId>,
    /// Those that are asked what changed, and when they were asked what they answered last.
    by: BTreeMap<NodeId, Duration>,
}

/// A session that is read to be kept.
pub(super) struct NearRead {
    began: Duration,
    waiting: BTreeMap<u64, NodeId>,
    by: BTreeSet<NodeId>,
    merged: Option<Entry>,
}

/// How often homes are asked what changed.
pub(super) const BEAT: Duration = Duration::from_millis(200);
/// For how long after it was asked a home's answer counts.
const TRUST: Duration = Duration::from_millis(400);
/// The reads of so many sessions are kept until their homes are told.
const USES_KEPT_MAX: usize = 4_096;
/// For how long homes are asked on whose slots there is no copy of.
const INTEREST: Duration = Duration::from_secs(10);

impl Core {
    // At the node that keeps near copies.

    /// Reads a session that this host is to keep a copy of, if it may be one; gives the request back otherwise.
    pub(super) fn read_near(
        &mut self,
        now: Now,
        id: u64,
        pending: Box<Pending>,
    ) -> Option<Box<Pending>> {
        let is_of_host =
            |asker: &(Asker, u64)| matches!(asker.0, Asker::Local(_) | Asker::Lane { .. });
        let is_read = pending.request.operation == Operation::Get;
        if !is_read || !pending.is_asked_by(is_of_host) {
            return Some(pending);
        }
        self.begin_near(now, id, pending)
    }

    fn begin_near(&mut self, now: Now, id: u64, mut pending: Box<Pending>) -> Option<Box<Pending>> {
        let (table, slot, word) = (pending.table, pending.slot, pending.request.key.word());
        if !self.may_keep_near(table, slot) || self.tables[table].near.reading.contains_key(&word) {
            return Some(pending);
        }
        if !self.tables[table].store.is_reserved() {
            self.tables[table].store.wish_for_memory();
            return Some(pending);
        }
        self.want_beats_of(now, table, slot);
        let Some(by) = self.cover_for(now, table, slot) else { return Some(pending) };
        let mut waiting = BTreeMap::new();
        for home in &by {
            let (name, key) = (pending.request.table.clone(), pending.request.key.clone());
            let fetch = Fetch { table: name, key, under: None };
            match self.call(now, *home, Purpose::Pending(id), fetch) {
                Some(call) => waiting.insert(call, *home),
                None => return Some(pending),
            };
        }
        self.counters.add("near_reads");
        self.tables[table].near.reading.insert(word, BTreeSet::new());
        let (began, merged) = (now.monotonic, None);
        pending.stage = Stage::ReadingNear(NearRead { began, waiting, by, merged });
        self.pending.insert(id, pending);
        None
    }

    /// Whether this node may keep near copies of a slot's sessions: it is nothing to the slot.
    fn may_keep_near(&self, table: usize, slot: Slot) -> bool {
        let policy = self.tables[table].store.policy();
        let custody = &self.tables[table].custody;
        policy.read == ReadFrom::Near
            && policy.ring == 0
            && policy.partition == Partition::Serve
            && self.is_up()
            && !self.standing.alone_by_misfortune
            && !self.is_home(table, slot)
            && custody.holding(slot.index()).phase() == Phase::None
            // Nobody is only presumed dead who may acknowledge something elsewhere.
            && self.quorum_homes(table, slot) == self.ring_homes(table, slot)
            && self.tables[table].store.may_keep_near(slot)
    }

    /// Has the homes of a slot be asked what changes, for a while.
    fn want_beats_of(&mut self, now: Now, table: usize, slot: Slot) {
        let cores_here = self.cores as u16;
        for node in self.homes(table, slot) {
            let near = &mut self.tables[table].near;
            let home = near.homes.entry(node).or_default();
            home.wanted_until = now.monotonic + INTEREST;
            if home.cores == 0 {
                home.cores = cores_here; // As likely as any.
            }
            let core = slot.index() % home.cores;
            if let std::collections::btree_map::Entry::Vacant(feed) = home.feeds.entry(core) {
                let (asked, since) = (Duration::ZERO, Duration::ZERO);
                feed.insert(Feed { slot, place: None, asked, since });
                near.next_beat = now.monotonic;
            }
        }
    }

    /// The homes to read a session from that is to be kept; `None` while too few tell what changes.
    fn cover_for(&mut self, now: Now, table: usize, slot: Slot) -> Option<BTreeSet<NodeId>> {
        let homes = self.homes(table, slot);
        if homes.is_empty() {
            return None;
        }
        let needed = self.cover_needed(table, homes.len());
        let near = &self.tables[table].near;
        let is_live = |node: &NodeId| {
            let feed = near.feed(*node, slot);
            feed.is_some_and(|it| it.place.is_some() && it.asked + TRUST > now.monotonic)
        };
        let mut live: Vec<NodeId> = homes.iter().copied().filter(is_live).collect();
        if let Some(cover) = near.slots.get(&slot.index()) {
            if cover.homes == homes && cover.by.keys().all(|node| live.contains(node)) {
                return Some(cover.by.keys().copied().collect());
            }
            self.drop_near_slot(table, slot);
        }
        live.sort_by_key(|home| self.proximity.get(home).copied().unwrap_or(u8::MAX));
        (live.len() >= needed).then(|| live.into_iter().take(needed).collect())
    }

    /// How many homes cover a slot: one of them has what was acknowledged. An end is so by a majority, whatever
    /// a write takes.
    pub(super) fn cover_needed(&self, table: usize, homes: usize) -> usize {
        let write = self.tables[table].store.policy().write.count(homes).min(majority(homes));
        homes + 1 - write.clamp(1, homes.max(1))
    }

    /// A home has answered what it holds of a session that is to be kept.
    pub(super) fn on_near_fetched(
        &mut self,
        now: Now,
        id: u64,
        call: u64,
        mut pending: Box<Pending>,
        fetched: Fetched,
    ) {
        let Stage::ReadingNear(read) = &mut pending.stage else { return };
        let Some(node) = read.waiting.remove(&call) else {
            self.pending.insert(id, pending);
            return;
        };
        // Whoever sees other members may take others for the homes of the slot.
        let view = self.standing.view.digest();
        let agrees = self.heard.get(&node).is_some_and(|heard| heard.view == view);
        if !fetched.synced || !agrees {
            return self.give_near_up(now, id, pending);
        }
        match (&mut read.merged, fetched.entry) {
            (_, None) => {}
            (None, Some(entry)) => read.merged = Some(entry),
            (Some(merged), Some(entry)) => {
                self.tables[pending.table].store.join(merged, &entry);
            }
        }
        if !read.waiting.is_empty() {
            self.pending.insert(id, pending);
            return;
        }
        let now_ms = self.time.now_ms(now);
        let is_it = |entry: &Entry| {
            !entry.is_ended()
                && !entry.is_marker()
                && entry.ring() == 0
                && !entry.is_ending()
                && !entry.is_expired(now_ms)
        };
        let Some(entry) = read.merged.take().filter(is_it) else {
            // What else there is to say its homes know.
            return self.give_near_up(now, id, pending);
        };
        let Stage::ReadingNear(read) = std::mem::replace(&mut pending.stage, Stage::Done) else {
            return;
        };
        self.keep_near(now, &pending, &read, &entry);
        match pending.is_asked_by(|_| true) {
            true => self.apply(now, id, pending, Some(entry)),
            false => self.forget_pending(&pending, id),
        }
    }

    fn keep_near(&mut self, now: Now, pending: &Pending, read: &NearRead, entry: &Entry) {
        let (table, slot, key) = (pending.table, pending.slot, &pending.request.key);
        let told = self.tables[table].near.reading.remove(&key.word());
        let homes = self.homes(table, slot);
        let near = &self.tables[table].near;
        let is_covered = read.by.iter().all(|node| {
            near.feed(*node, slot)
                .is_some_and(|feed| feed.place.is_some() && feed.since <= read.began)
        });
        let is_same = near
            .slots
            .get(&slot.index())
            .is_none_or(|cover| cover.homes == homes && cover.by.keys().eq(read.by.iter()));
        let is_as_told = told.is_some_and(|told| told.iter().all(|gist| *gist == gist_of(entry)));
        let is_valid = is_as_told
            && is_covered
            && is_same
            && read.by.iter().all(|node| homes.contains(node))
            && self.may_keep_near(table, slot);
        if !is_valid {
            return self.counters.add("near_copies_overtaken");
        }
        let now_ms = self.time.now_ms(now);
        if !self.tables[table].store.keep_near(key, entry, now_ms) {
            return self.counters.add("near_copies_refused");
        }
        self.counters.add("near_copies_made");
        let table = &mut self.tables[table];
        let cover = table.near.slots.entry(slot.index()).or_insert_with(|| Cover {
            homes,
            by: read.by.iter().map(|node| (*node, read.began)).collect(),
        });
        let until = cover.until(&table.store);
        table.store.trust_near(slot, as_ms(until));
    }

    /// What is read of a session now is not kept.
    pub(super) fn stop_reading_near(&mut self, pending: &Pending) {
        self.tables[pending.table].near.reading.remove(&pending.request.key.word());
    }

    /// Passes a read on that came to nothing.
    pub(super) fn give_near_up(&mut self, now: Now, id: u64, mut pending: Box<Pending>) {
        pending.stage = Stage::Done;
        self.stop_reading_near(&pending);
        match pending.is_asked_by(|_| true) {
            true => self.forward(now, id, pending, Vec::new()),
            // It was this node's own idea.
            false => self.forget_pending(&pending, id),
        }
    }

    /// A request of this host was done elsewhere: what is kept of its session is old, and is read again if there was a
    /// copy.
    pub(super) fn renew_near(&mut self, now: Now, table: usize, key: &Key) {
        let near = &mut self.tables[table].near;
        if let Some(told) = near.reading.get_mut(&key.word()) {
            told.insert(0); // What it became is not known.
        }
        let slot = key.slot();
        if !self.tables[table].store.drop_near(slot, key.word()) {
            return;
        }
        self.counters.add("near_copies_renewed");
        let home_timeout = as_ms(self.settings.home_timeout) as u32;
        let (id, pending) = self.open_own(now, table, key.clone(), Operation::Get, home_timeout);
        if let Some(pending) = self.begin_near(now, id, pending) {
            self.forget_pending(&pending, id);
        }
    }

    /// What a slot's readers may trust near copies by, on the monotonic clock in milliseconds; 0 = there are none.
    pub(super) fn near_until(&self, table: usize, slot: Slot) -> u64 {
        let Table { store, near, .. } = &self.tables[table];
        let cover = near.slots.get(&slot.index()).filter(|_| store.has_near(slot));
        cover.map_or(0, |cover| as_ms(cover.until(store)))
    }

    /// The members are others: what this node is to a slot, and who covers it, may have changed.
    pub(super) fn review_near(&mut self) {
        for table in 0..self.tables.len() {
            let slots: Vec<Slot> =
                self.tables[table].near.slots.keys().filter_map(|it| Slot::new(*it)).collect();
            for slot in slots {
                let cover = &self.tables[table].near.slots[&slot.index()];
                let is_same = cover.homes == self.ring_homes(table, slot);
                if !is_same || !self.may_keep_near(table, slot) {
                    self.drop_near_slot(table, slot);
                }
            }
        }
    }

    fn drop_near_slot(&mut self, table: usize, slot: Slot) {
        let Some(_) = self.tables[table].near.slots.remove(&slot.index()) else { return };
        if self.tables[table].store.has_near(slot) {
            let dropped = self.tables[table].store.drop_near_of(slot);
            self.counters.add_many("near_copies_dropped", dropped);
        }
    }

    /// Asks homes what changed, when it is time.
    pub(super) fn ask_for_beats(&mut self, now: Now) {
        for table in 0..self.tables.len() {
            self.tables[table].store.changes_mut().forget_unasked(now.monotonic);
            let near = &self.tables[table].near;
            if near.homes.is_empty() || near.next_beat > now.monotonic {
                continue;
            }
            self.tables[table].near.next_beat = now.monotonic + BEAT;
            self.forget_idle_homes(now, table);
            let mut asked: BTreeMap<(NodeId, u16), Vec<Slot>> = BTreeMap::new();
            let near = &self.tables[table].near;
            for (index, cover) in &near.slots {
                let Some(slot) = Slot::new(*index) else { continue };
                for node in cover.by.keys() {
                    let Some(home) = near.homes.get(node) else { continue };
                    asked.entry((*node, *index % home.cores.max(1))).or_default().push(slot);
                }
            }
            // What is told after a place counts for the slots that were asked about alone.
            for slot in near.reading.keys().filter_map(|word| Slot::of_word(*word)) {
                for node in self.ring_homes(table, slot) {
                    let Some(home) = near.homes.get(node) else { continue };
                    let core = slot.index() % home.cores.max(1);
                    asked.entry((*node, core)).or_default().push(slot);
                }
            }
            let feeds = near.homes.iter().flat_map(|(node, home)| {
                home.feeds.iter().map(|(core, feed)| ((*node, *core), feed.slot, feed.place))
            });
            let feeds: Vec<_> = feeds.collect();
            let name = self.tables[table].store.policy().name.clone();
            let used = self.tables[table].near.uses_to_tell();
            for ((node, core), slot, after) in feeds {
                let mut slots = asked.remove(&(node, core)).unwrap_or_else(|| vec![slot]);
                slots.sort_unstable();
                slots.dedup();
                let set = SlotSet::new(&slots, self.cores as u16);
                let is_of_these = |word: u64| {
                    Slot::of_word(word).is_some_and(|slot| slots.binary_search(&slot).is_ok())
                };
                let uses = used.iter().copied().filter(|(word, _)| is_of_these(*word)).collect();
                let request = BeatRequest { table: name.clone(), after, slots: set, uses };
                let purpose = Purpose::Beat { table, core, after, slots };
                self.call(now, node, purpose, request);
            }
        }
    }

    fn forget_idle_homes(&mut self, now: Now, table: usize) {
        let Self { tables, standing, .. } = self;
        let Table { store, near: Near { homes, slots, .. }, .. } = &mut tables[table];
        slots.retain(|index, _| Slot::new(*index).is_some_and(|slot| store.has_near(slot)));
        let used: BTreeSet<NodeId> =
            slots.values().flat_map(|cover| cover.by.keys().copied()).collect();
        let is_member = |node: &NodeId| standing.view.get(*node).is_some();
        homes.retain(|node, home| {
            used.contains(node) || home.wanted_until > now.monotonic && is_member(node)
        });
    }

    /// A home has told what changed, or has not.
    pub(super) fn on_beat(
        &mut self,
        now: Now,
        (table, node, core): (usize, NodeId, u16),
        (asked, after, slots): (Duration, Option<BeatPlace>, Vec<Slot>),
        answer: Message,
        view: u64,
    ) {
        let Message::Beat(beat) = answer else { return };
        self.note_cores(node, beat.cores);
        let Some(home) = self.tables[table].near.homes.get_mut(&node) else { return };
        if beat.cores != home.cores {
            // Its slots are divided otherwise than was thought, or now.
            (home.cores, home.feeds) = (beat.cores.max(1), BTreeMap::new());
            return self.drop_covered_by(table, node, None);
        }
        if slots.iter().any(|slot| slot.index() % home.cores != core) {
            return; // The home had another number of cores when it was asked.
        }
        let Some(feed) = home.feeds.get_mut(&core) else { return };
        let has_gap = match (after, feed.place) {
            // Its first answer. What was asked for before that one came says nothing new.
            (None, None) => false,
            (None, Some(_)) => return,
            // What was asked before there was a gap.
            (Some(_), None) => return,
            (Some(after), Some(place)) if after.run != place.run => return,
            (Some(after), Some(_)) => beat.place.run != after.run || !beat.is_whole,
        };
        if has_gap {
            feed.place = None;
            self.counters.add("beats_missed");
            return self.drop_covered_by(table, node, Some(core));
        }
        if feed.place.is_none() {
            feed.since = now.monotonic;
        }
        let goes_on = feed.place < Some(beat.place);
        feed.place = feed.place.max(Some(beat.place));
        let agrees = view == self.standing.view.digest();
        if agrees {
            feed.asked = feed.asked.max(asked);
        }
        self.counters.add("beats_heard");
        if goes_on {
            self.pass_over_others(table, (node, core), &slots);
        }
        for (word, gist) in beat.changed {
            self.note_changed(table, word, gist);
        }
        let unsure: BTreeSet<Slot> = beat.unsure.slots().collect();
        for slot in slots {
            if unsure.contains(&slot) {
                let cover = self.tables[table].near.slots.get(&slot.index());
                if cover.is_some_and(|cover| cover.by.contains_key(&node)) {
                    self.drop_near_slot(table, slot);
                }
                continue;
            }
            if !agrees {
                continue;
            }
            let table = &mut self.tables[table];
            let Some(cover) = table.near.slots.get_mut(&slot.index()) else { continue };
            let Some(heard) = cover.by.get_mut(&node) else { continue };
            *heard = (*heard).max(asked);
            if table.store.has_near(slot) {
                let until = cover.until(&table.store);
                table.store.trust_near(slot, as_ms(until));
            }
        }
    }

    /// What changed at a core of a home was passed over in all slots that it was not asked about: what is here of them, or
    /// is read, may have changed.
    fn pass_over_others(&mut self, table: usize, (node, core): (NodeId, u16), asked: &[Slot]) {
        let near = &mut self.tables[table].near;
        let cores = near.homes.get(&node).map_or(1, |home| home.cores.max(1));
        let is_other =
            |slot: &Slot| slot.index() % cores == core && asked.binary_search(slot).is_err();
        for (word, told) in &mut near.reading {
            if Slot::of_word(*word).is_some_and(|slot| is_other(&slot)) {
                told.insert(0);
            }
        }
        let covered = near.slots.iter().filter(|(_, cover)| cover.by.contains_key(&node));
        let covered = covered.filter_map(|(index, _)| Slot::new(*index));
        let others: Vec<Slot> = covered.filter(is_other).collect();
        others.into_iter().for_each(|slot| self.drop_near_slot(table, slot));
    }

    /// A session was said to have become something else.
    pub(super) fn note_changed(&mut self, table: usize, word: u64, gist: u64) {
        let Some(slot) = Slot::of_word(word).filter(|slot| self.owns(*slot)) else { return };
        let table = &mut self.tables[table];
        if let Some(told) = table.near.reading.get_mut(&word) {
            told.insert(gist);
        }
        if table.store.drop_other_near(slot, word, gist) {
            self.counters.add("near_copies_invalidated");
        }
    }

    /// Drops the copies of all slots that a home covers, of one of its cores alone or of all.
    fn drop_covered_by(&mut self, table: usize, node: NodeId, core: Option<u16>) {
        let near = &self.tables[table].near;
        let cores = near.homes.get(&node).map_or(1, |home| home.cores.max(1));
        let is_covered = |(index, cover): &(&u16, &Cover)| {
            cover.by.contains_key(&node) && core.is_none_or(|core| **index % cores == core)
        };
        let covered = near.slots.iter().filter(is_covered);
        let covered: Vec<Slot> = covered.filter_map(|(index, _)| Slot::new(*index)).collect();
        covered.into_iter().for_each(|slot| self.drop_near_slot(table, slot));
    }

    // At a home.

    /// What changed here of some slots since another node last asked.
    pub(super) fn tell_beat(&mut self, now: Now, request: &BeatRequest) -> Message {
        let Some(table) = self.table_named(&request.table) else {
            return reject_table(&request.table);
        };
        self.counters.add("beats_told");
        self.hear_uses(now, table, &request.uses);
        let slots: Vec<Slot> = request.slots.slots().collect();
        let vouches = self.is_up() && !self.standing.alone_by_misfortune;
        let is_unsure = |slot: &Slot| {
            !vouches || !self.owns(*slot) || !self.slot_state(table, *slot).is_synced()
        };
        let unsure: Vec<Slot> = slots.iter().copied().filter(is_unsure).collect();
        let unsure = SlotSet::new(&unsure, 1);
        let run = self.lineage.hlc.ms();
        let changes = self.tables[table].store.changes_mut();
        changes.keep(now.monotonic);
        let place = BeatPlace { run, number: changes.end() };
        let after = request.after.filter(|after| after.run == run).map(|after| after.number);
        let since = after.and_then(|after| changes.since(after));
        let is_whole = since.is_some();
        let is_asked_for = |(word, _): &(u64, u64)| {
            Slot::of_word(*word).is_some_and(|slot| slots.binary_search(&slot).is_ok())
        };
        // The last of each key.
        let changed: BTreeMap<u64, u64> =
            since.into_iter().flatten().filter(is_asked_for).collect();
        let changed = changed.into_iter().collect();
        Beat { cores: self.cores as u16, place, is_whole, changed, unsure }.into()
    }

    /// Another node's readers have read near copies so often: they warm what is here.
    fn hear_uses(&mut self, now: Now, table: usize, uses: &[(u64, u32)]) {
        let now_ms = self.time.now_ms(now);
        let mut of_slots: BTreeMap<Slot, BTreeMap<u64, u32>> = BTreeMap::new();
        for (word, count) in &uses[..uses.len().min(BeatRequest::USES_MAX)] {
            if let Some(slot) = Slot::of_word(*word).filter(|slot| self.is_home(table, *slot)) {
                of_slots.entry(slot).or_default().insert(*word, *count);
            }
        }
        for (slot, counts) in of_slots {
            let words: Vec<u64> = counts.keys().copied().collect();
            let store = &mut self.tables[table].store;
            for (word, key) in store.keys_of_words(slot, &words) {
                store.note_reads(&key, counts[&word], now_ms);
                self.counters.add_many("near_uses_heard", counts[&word].into());
            }
        }
    }
}

impl Near {
    /// A near copy was read so often.
    pub(super) fn note_uses(&mut self, word: u64, count: u32) {
        if self.uses.len() < USES_KEPT_MAX || self.uses.contains_key(&word) {
            let uses = self.uses.entry(word).or_default();
            *uses = uses.saturating_add(count);
        }
    }

    /// Some of what homes are to be told, in turn.
    pub(super) fn uses_to_tell(&mut self) -> Vec<(u64, u32)> {
        let after = (std::ops::Bound::Excluded(self.told_uses), std::ops::Bound::Unbounded);
        let in_turn = self.uses.range(after).chain(self.uses.range(..=self.told_uses));
        let told: Vec<(u64, u32)> =
            in_turn.take(BeatRequest::USES_MAX).map(|(word, count)| (*word, *count)).collect();
        for (word, _) in &told {
            self.uses.remove(word);
            self.told_uses = *word;
        }
        told
    }

    /// Whether a session is read now to be kept.
    #[cfg(test)]
    pub(super) fn is_reading(&self, word: u64) -> bool {
        self.reading.contains_key(&word)
    }

    /// How many cores a home has, and where the feed ended that tells of a slot.
    #[cfg(test)]
    pub(super) fn place_of(&self, node: NodeId, slot: Slot) -> Option<(u16, BeatPlace)> {
        Some((self.homes.get(&node)?.cores, self.feed(node, slot)?.place?))
    }

    fn feed(&self, node: NodeId, slot: Slot) -> Option<&Feed> {
        let home = self.homes.get(&node)?;
        home.feeds.get(&(slot.index() % home.cores.max(1)))
    }
}

impl Cover {
    /// Until when the copies of the slot are believed.
    fn until(&self, store: &Store) -> Duration {
        let trust = TRUST.min(store.policy().stale_max);
        self.by.values().min().map_or(Duration::ZERO, |heard| *heard + trust)
    }
}

impl NearRead {
    /// Whether this call is one of its, which is not waited for any more.
    pub(super) fn gives_up(&mut self, call: u64) -> bool {
        self.waiting.remove(&call).is_some()
    }
}
