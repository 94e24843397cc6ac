//! Which sessions are no more, for whoever listens on some node ([`super::super::gone`]).
//!
//! A session ends by a tombstone that replaces it, or by an eviction that does; what has expired is found by its deadline. What
//! merely leaves this node, with its slot or for another ring, is not gone, and passes here unnoticed.

use std::collections::{BTreeSet, VecDeque};

use annulus_proto::message::{GoneSession, HowGone};
use annulus_proto::{Entry, Key, Slot, Version, record};
use annulus_shm::ExpiredItem;

use super::super::evict::is_eviction;
use super::{EXPIRED_KEPT_MS, Overdue, Store};

/// What was noticed, where somebody wants to know.
#[derive(Debug, Default)]
pub(in crate::core) struct Leavers {
    /// The ring that the table is of.
    ring: u8,
    gone: Vec<Leaver>,
    /// Sessions whose time seems to be over.
    expired: Vec<Overdue>,
    /// Sessions that were dropped for want of room, whose time seemed to be over.
    dropped: VecDeque<Overdue>,
    /// Those of which that is sure, and which are here still: their deadlines, and the words of their keys.
    known: BTreeSet<(u64, u64)>,
    /// How many were forgotten since this was last asked: there was no room.
    forgotten: u64,
}

/// A session that is gone.
#[derive(Debug)]
pub(in crate::core) struct Leaver {
    pub(in crate::core) session: GoneSession,
    /// When it was, in hybrid milliseconds.
    pub(in crate::core) at_ms: u64,
    /// Whether all that is known is that its time was over here.
    pub(in crate::core) by_time: bool,
}

/// How long after its deadline a session counts as expired: another home's clock may be behind, and what was used there at
/// the last moment is on its way.
pub(in crate::core) const EXPIRED_AFTER_MS: u64 = 500;
/// What expired longer ago was noticed by others, or by nobody. Longer than such a session is there.
const EXPIRED_MS_MAX: u64 = 2 * EXPIRED_KEPT_MS;
/// The most that wait to be taken out.
const GONE_MAX: usize = 1 << 16;
/// The most of those that were dropped that are judged at a time.
const JUDGED_STEP: usize = 2_048;

impl Leavers {
    fn push(&mut self, leaver: Leaver) {
        match self.gone.len() < GONE_MAX {
            true => self.gone.push(leaver),
            false => self.forgotten += 1,
        }
    }

    /// Something expired, a while ago or just now. Lists it if it is a session that is all here, and nothing is known of it
    /// yet; returns whether it is to be offered again soon.
    pub(super) fn see(&mut self, item: ExpiredItem<'_>, now_ms: u64) -> bool {
        let is_old = item.deadline.saturating_add(EXPIRED_MS_MAX) <= now_ms;
        let word = word_of(item);
        if is_old || self.known.contains(&(item.deadline, word)) {
            return false;
        }
        let Some((key, birth, version)) = self.session(item) else { return false };
        self.expired.push(Overdue { key, birth, version, deadline: item.deadline });
        true
    }

    /// A session whose time is over, or seems to be, is dropped.
    fn drop_overdue(&mut self, overdue: Overdue, now_ms: u64) {
        if overdue.deadline.saturating_add(EXPIRED_KEPT_MS) <= now_ms {
            self.push(Leaver::overdue(overdue));
        } else if self.dropped.len() < GONE_MAX {
            self.dropped.push_back(overdue);
        } else {
            self.forgotten += 1;
        }
    }

    /// Something that expired is dropped: a session of which nothing was known yet is gone, or seems to be.
    pub(super) fn let_go(&mut self, item: ExpiredItem<'_>, now_ms: u64) {
        let is_old = item.deadline.saturating_add(EXPIRED_MS_MAX) <= now_ms;
        let is_known = self.known.remove(&(item.deadline, word_of(item)));
        if is_old || is_known {
            return;
        }
        if let Some((key, birth, version)) = self.session(item) {
            self.drop_overdue(Overdue { key, birth, version, deadline: item.deadline }, now_ms);
        }
    }

    /// Forgets what cannot be here any more.
    pub(super) fn forget_old(&mut self, now_ms: u64) {
        let is_old =
            |(deadline, _): &(u64, u64)| deadline.saturating_add(2 * EXPIRED_MS_MAX) <= now_ms;
        while self.known.first().is_some_and(is_old) {
            self.known.pop_first();
        }
    }

    /// What was here, with this deadline, is dropped.
    pub(super) fn forget(&mut self, deadline: u64, word: u64) {
        self.known.remove(&(deadline, word));
    }

    /// A session that was alive has this tombstone now.
    pub(super) fn see_end(&mut self, key: &[u8], birth: Version, version: Version) {
        if let Ok(key) = Key::new(key) {
            self.push(Leaver::ended(key, birth, version));
        }
    }

    /// An entry was replaced by what it has become; both with when a record of them may be dropped.
    pub(super) fn see_change(
        &mut self,
        key: &Key,
        (before, deadline): (&Entry, u64),
        (after, new_deadline): (&Entry, u64),
        now_ms: u64,
    ) {
        if !self.is_session(before) {
            return; // It was gone before, or lies elsewhere, where others see to it.
        }
        let is_known = deadline != 0 && self.known.remove(&(deadline, key.word()));
        let is_same = before.birth == after.birth;
        if is_same && !after.is_ended() && !is_eviction(after) {
            // Used at the last moment, unless that was too late, too.
            if is_known && new_deadline != 0 && new_deadline <= now_ms {
                self.known.insert((new_deadline, key.word()));
            }
            return;
        }
        // Whether it was over by then is the same at all homes, whatever their clocks say.
        let replaced = if is_same { after.version } else { after.birth };
        if deadline != 0 && deadline <= replaced.hlc.ms() {
            if !is_known {
                let versions = (before.birth, before.version);
                self.push(Leaver::expired(key.clone(), versions, deadline));
            }
            if is_same {
                return;
            }
        }
        if after.is_ended() {
            self.push(Leaver::ended(key.clone(), after.birth, after.version));
        } else if is_eviction(after) {
            self.push(Leaver::evicted(key.clone(), after.birth, after.version));
        }
    }

    /// Whether an entry is a session that lies here, whether or not its time is over.
    fn is_session(&self, entry: &Entry) -> bool {
        !entry.is_ended() && !entry.is_marker() && entry.ring() == self.ring && !is_eviction(entry)
    }

    /// The session that an item is, and its birth and last write.
    fn session(&self, item: ExpiredItem<'_>) -> Option<(Key, Version, Version)> {
        let view = record::View::parse(item.value).ok()?;
        if view.ended || view.is_marker() {
            return None;
        }
        let entry = view.entry(item.mark).ok().filter(|entry| self.is_session(entry))?;
        Some((Key::new(item.key).ok()?, entry.birth, entry.version))
    }
}

fn word_of(item: ExpiredItem<'_>) -> u64 {
    Slot::new(item.partition).map_or(0, |slot| slot.word(item.key))
}

impl Leaver {
    fn ended(key: Key, birth: Version, version: Version) -> Self {
        let session = GoneSession { key, birth, version: birth, how: HowGone::Ended };
        Self { session, at_ms: version.hlc.ms(), by_time: false }
    }

    fn evicted(key: Key, birth: Version, version: Version) -> Self {
        let session = GoneSession { key, birth, version, how: HowGone::Evicted };
        Self { session, at_ms: version.hlc.ms(), by_time: false }
    }

    fn overdue(Overdue { key, birth, version, deadline }: Overdue) -> Self {
        Self::expired(key, (birth, version), deadline)
    }

    fn expired(key: Key, (birth, version): (Version, Version), deadline: u64) -> Self {
        let session = GoneSession { key, birth, version, how: HowGone::Expired };
        Self { session, at_ms: deadline, by_time: true }
    }
}

impl Store {
    /// Notes from now on which sessions are gone.
    pub(in crate::core) fn note_gone(&mut self) {
        let ring = self.policy.ring;
        self.leavers.get_or_insert_with(|| Box::new(Leavers { ring, ..Leavers::default() }));
    }

    /// Whether something was noted that was not taken out yet.
    pub(in crate::core) fn has_gone(&self) -> bool {
        self.leavers.as_ref().is_some_and(|leavers| !leavers.gone.is_empty())
    }

    /// What was noted since this was last asked, and how much was forgotten for want of room.
    pub(in crate::core) fn take_gone(&mut self) -> (Vec<Leaver>, u64) {
        self.leavers.as_mut().map_or_else(Default::default, |leavers| {
            (std::mem::take(&mut leavers.gone), std::mem::take(&mut leavers.forgotten))
        })
    }

    /// Sessions whose time seems to be over. Of which that is sure is to be said
    /// ([`Store::note_expired`]); the others are told of again.
    pub(in crate::core) fn take_expired(&mut self) -> Vec<Overdue> {
        let leavers = self.leavers.as_mut();
        leavers.map_or_else(Vec::new, |leavers| std::mem::take(&mut leavers.expired))
    }

    /// A session's time is over for sure.
    pub(in crate::core) fn note_expired(&mut self, expired: Overdue) {
        if let Some(leavers) = &mut self.leavers
            && leavers.known.insert((expired.deadline, expired.key.word()))
        {
            leavers.push(Leaver::overdue(expired));
        }
    }

    /// Some sessions that were dropped for want of room, whose time seemed to be over. Of each it is to be said that it was
    /// ([`Store::note_dropped`]), or that this is in doubt still ([`Store::keep_in_doubt`]).
    pub(in crate::core) fn take_dropped_overdue(&mut self) -> Vec<Overdue> {
        self.leavers.as_mut().map_or_else(Vec::new, |leavers| {
            let count = leavers.dropped.len().min(JUDGED_STEP);
            leavers.dropped.drain(..count).collect()
        })
    }

    /// It is not sure yet that the time of a session that was dropped is over.
    pub(in crate::core) fn keep_in_doubt(&mut self, dropped: Overdue) {
        if let Some(leavers) = &mut self.leavers {
            leavers.dropped.push_back(dropped);
        }
    }

    /// The time of a session that was dropped is over, unless it has come back: it was used at the last moment, or has ended.
    pub(in crate::core) fn note_dropped(&mut self, dropped: Overdue) {
        let here = match self.near.has_slot(dropped.key.slot()) {
            true => None,
            false => self.whatever_is(&dropped.key),
        };
        // Whoever begins another in its place decides that, as where it was not dropped.
        let is_gone = here.is_none_or(|here| {
            here.birth < dropped.birth
                || here.birth > dropped.birth && dropped.deadline <= here.birth.hlc.ms()
        });
        if let Some(leavers) = self.leavers.as_mut().filter(|_| is_gone) {
            leavers.push(Leaver::overdue(dropped));
        }
    }

    /// An entry was replaced by what it has become, or merged into.
    pub(in crate::core) fn see_change(
        &mut self,
        key: &Key,
        before: &Entry,
        after: &Entry,
        now_ms: u64,
    ) {
        if self.leavers.is_none() {
            return;
        }
        let deadlines = (self.deadline(before), self.deadline(after));
        if let Some(leavers) = &mut self.leavers {
            leavers.see_change(key, (before, deadlines.0), (after, deadlines.1), now_ms);
        }
    }

    /// What lies under a key, if anything does, is past its last day, and is about to be replaced.
    pub(super) fn see_forgotten(&mut self, key: &Key, after: &Entry, now_ms: u64, is_extra: bool) {
        if self.leavers.is_some()
            && !is_extra
            && !self.near.has_slot(key.slot())
            && let Some(before) = self.whatever_is(key)
        {
            self.see_change(key, &before, after, now_ms);
        }
    }

    /// A session that was over with this deadline is about to be dropped.
    pub(in crate::core) fn see_overdue_go(&mut self, key: &Key, deadline: u64, now_ms: u64) {
        if self.leavers.is_none() {
            return;
        }
        let entry = self.whatever_is(key);
        if let (Some(leavers), Some(entry)) = (&mut self.leavers, entry)
            && leavers.is_session(&entry)
            && !leavers.known.contains(&(deadline, key.word()))
            && deadline.saturating_add(EXPIRED_MS_MAX) > now_ms
        {
            let (key, birth, version) = (key.clone(), entry.birth, entry.version);
            leavers.drop_overdue(Overdue { key, birth, version, deadline }, now_ms);
        }
    }
}
