//! Sessions that are gone, because they ended, expired or were evicted, told to all members for whoever listens there.
//!
//! - **Each home notes it** when it sees it ([`super::store::Leaver`]), and tells each member, itself too. So nothing is lost
//!   with one of them. Who is told the same by several drops it: that is the driver's, which knows who listens.
//! - **Until it is noted there.** What was not yet is kept in one list for all members ([`LOG_MAX`]); of each member it is
//!   known how far it was told. Who is gone is told no more, and who comes, what happens from then on.
//! - **Time is over for sure** where a home is in touch with a majority of a session's homes, and in sync: it would know by then
//!   if the session had been used elsewhere. What is in doubt is looked at again, until it is dropped.
//! - **What is old is no news**: a home that was away finds ends by comparing that were told when they were made.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use annulus_proto::NodeId;
use annulus_proto::message::{Gone, GoneNoted, GoneSession, Message};

use super::Core;
use super::calls::Purpose;
use super::io::{Now, Output};
use super::replica::{reject, reject_table};
use super::store::{EXPIRED_AFTER_MS, EXPIRED_KEPT_MS, Leaver, Overdue};

/// What is gone of one table, as far as somebody was not told yet.
#[derive(Debug, Default)]
pub(super) struct Telling {
    log: VecDeque<GoneSession>,
    /// The number of the first of these.
    first: u64,
    told: BTreeMap<NodeId, Told>,
}

/// How far a member was told.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// The number of the first that it was not told, as far as is known.
    next: u64,
    /// Whether it is being told.
    is_asked: bool,
    /// Until when it is not told again what it did not take.
    rests_until: Duration,
}

/// How long what is gone waits for more of it.
const WAIT: Duration = Duration::from_millis(10);
/// The most that is kept of each table by each core.
const LOG_MAX: usize = 1 << 16;
/// After how long somebody is told again who did not answer, or who refused.
const RETRY: Duration = Duration::from_millis(250);
const RETRY_REFUSED: Duration = Duration::from_secs(5);
/// What was gone so long ago is told nobody.
const OLD_MS: u64 = 300_000;

impl Telling {
    fn end(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    /// These are the other members.
    pub(super) fn meet(&mut self, members: &BTreeSet<NodeId>) {
        let next = self.end();
        self.told.retain(|node, _| members.contains(node));
        for node in members {
            let new = Told { next, is_asked: false, rests_until: Duration::ZERO };
            self.told.entry(*node).or_insert(new);
        }
    }

    /// Keeps these until all were told. Returns how often somebody will not be told something, for want of room.
    pub(super) fn keep(&mut self, sessions: &[GoneSession]) -> u64 {
        if self.told.is_empty() {
            self.first = self.end() + sessions.len() as u64;
            self.log.clear();
            return 0;
        }
        self.log.extend(sessions.iter().cloned());
        let beyond = self.log.len().saturating_sub(LOG_MAX);
        self.log.drain(..beyond);
        self.first += beyond as u64;
        let mut untold = 0;
        for told in self.told.values_mut() {
            untold += self.first.saturating_sub(told.next);
            told.next = told.next.max(self.first);
        }
        untold
    }

    /// Forgets what all were told.
    fn forget_told(&mut self) {
        let least = self.told.values().map(|told| told.next).min().unwrap_or(self.end());
        let count = usize::try_from(least - self.first).unwrap_or(usize::MAX);
        self.log.drain(..count.min(self.log.len()));
        self.first = least;
    }

    /// Who is to be told something now.
    fn waiting(&self, now: Now) -> Vec<NodeId> {
        let end = self.end();
        let waits =
            |told: &Told| !told.is_asked && told.next < end && told.rests_until <= now.monotonic;
        self.told.iter().filter(|(_, told)| waits(told)).map(|(node, _)| *node).collect()
    }

    /// What a member is to be told next, and the number of what comes after that.
    fn next_of(&self, node: NodeId) -> (Vec<GoneSession>, u64) {
        let next = self.told.get(&node).map_or(self.end(), |told| told.next);
        let from = usize::try_from(next - self.first).unwrap_or(usize::MAX).min(self.log.len());
        let sessions: Vec<_> = self.log.range(from..).take(Gone::SESSIONS_MAX).cloned().collect();
        let after = next + sessions.len() as u64;
        (sessions, after)
    }

    /// A member was told everything up to there.
    #[cfg(test)]
    pub(super) fn note_told(&mut self, node: NodeId, next: u64) {
        self.told.get_mut(&node).expect("a member").next = next;
        self.forget_told();
    }

    /// How much is kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.log.len()
    }
}

impl Core {
    /// Has the stores note what is gone, if that is to be told.
    pub(super) fn begin_to_note_gone(&mut self) {
        if self.settings.tells_gone {
            self.tables.iter_mut().for_each(|table| table.store.note_gone());
        }
    }

    /// Judges of which sessions of a table that seem to have expired that is sure.
    pub(super) fn judge_expired(&mut self, now: Now, table: usize) {
        for expired in self.tables[table].store.take_expired() {
            let Overdue { key, .. } = &expired;
            if !self.knows_ends(now, table, key.slot()) {
                continue; // It is found again.
            }
            // Further out a copy may be left of one that was brought in.
            if self.innermost(table) != table
                && let Some(entry) = self.tables[table].store.whatever_is(key)
                && self.is_known_inside(now, table, key, entry.birth)
            {
                continue;
            }
            self.tables[table].store.note_expired(expired);
        }
        // These are not found again: they had to make room.
        let now_ms = self.time.now_ms(now);
        for dropped in self.tables[table].store.take_dropped_overdue() {
            let Overdue { key, birth, deadline, .. } = &dropped;
            let age_ms = now_ms.saturating_sub(*deadline);
            let is_sure = age_ms >= EXPIRED_KEPT_MS
                || age_ms >= EXPIRED_AFTER_MS && self.knows_ends(now, table, key.slot());
            if !is_sure {
                self.tables[table].store.keep_in_doubt(dropped);
            } else if !self.is_known_inside(now, table, key, *birth) {
                self.tables[table].store.note_dropped(dropped);
            }
        }
    }

    /// Sees to it that what is gone is told soon.
    pub(super) fn tell_gone_soon(&mut self, now: Now) {
        if self.next_gone.is_none()
            && self.settings.tells_gone
            && self.tables.iter().any(|table| table.store.has_gone())
        {
            self.next_gone = Some(now.monotonic + WAIT);
        }
    }

    /// Tells of what is gone, and again those that have not noted it.
    pub(super) fn see_to_gone(&mut self, now: Now) {
        if !self.settings.tells_gone {
            return;
        }
        self.next_gone = None;
        let me = self.id();
        let standing = self.standing.clone();
        let others = standing.members().map(|member| member.id);
        let members: BTreeSet<NodeId> =
            others.filter(|id| *id != me && standing.is_active(*id)).collect();
        for table in 0..self.tables.len() {
            let gone = self.take_gone(now, table);
            // All rings of a table are one to who listens.
            let table = self.innermost(table);
            self.tables[table].telling.meet(&members);
            if !gone.is_empty() {
                self.counters.add_many("sessions_gone_noted", gone.len() as u64);
                let untold = self.tables[table].telling.keep(&gone);
                self.counters.add_many("sessions_gone_dropped", untold);
                self.outputs.push_back(Output::Gone { table, sessions: gone });
            }
            self.tell_gone(now, table);
        }
    }

    /// What is gone of a table, and was not told before; and is this node's to tell.
    fn take_gone(&mut self, now: Now, table: usize) -> Vec<GoneSession> {
        let now_ms = self.time.now_ms(now);
        let (leavers, forgotten) = self.tables[table].store.take_gone();
        self.counters.add_many("sessions_gone_dropped", forgotten);
        let is_mine = |leaver: &Leaver| {
            let slot = leaver.session.key.slot();
            let is_home = match leaver.by_time {
                true => self.slot_state(table, slot).is_synced(),
                false => self.is_home(table, slot),
            };
            is_home && leaver.at_ms.saturating_add(OLD_MS) > now_ms
        };
        let mine = leavers.into_iter().filter(is_mine);
        mine.map(|leaver| leaver.session).collect()
    }

    fn tell_gone(&mut self, now: Now, table: usize) {
        for node in self.tables[table].telling.waiting(now) {
            let (sessions, next) = self.tables[table].telling.next_of(node);
            let name = self.tables[table].store.policy().name.clone();
            let purpose = Purpose::Gone { table, next };
            let is_asked = self.call(now, node, purpose, Gone { table: name, sessions }).is_some();
            if let Some(told) = self.tables[table].telling.told.get_mut(&node) {
                told.is_asked = is_asked;
                told.rests_until = now.monotonic + RETRY;
            }
        }
        self.tables[table].telling.forget_told();
    }

    /// A member has noted what it was told, or has not.
    pub(super) fn on_gone_noted(
        &mut self,
        now: Now,
        (table, next): (usize, u64),
        node: NodeId,
        answer: Option<Message>,
    ) {
        let Some(told) = self.tables[table].telling.told.get_mut(&node) else { return };
        told.is_asked = false;
        match answer {
            Some(Message::GoneNoted(GoneNoted {})) => {
                told.next = told.next.max(next);
                told.rests_until = Duration::ZERO;
            }
            Some(_) => {
                told.rests_until = now.monotonic + RETRY_REFUSED;
                self.counters.add("sessions_gone_refused");
            }
            None => told.rests_until = now.monotonic + RETRY,
        }
        self.tell_gone(now, table);
    }

    /// Another home says what is gone.
    pub(super) fn on_gone(&mut self, node: NodeId, gone: Gone) -> Message {
        if self.standing.view.get(node).is_none() {
            return reject("this is for members");
        }
        let Some(table) = self.table_named(&gone.table) else {
            return reject_table(&gone.table);
        };
        if self.settings.tells_gone {
            let (table, mut sessions) = (self.innermost(table), gone.sessions);
            sessions.truncate(Gone::SESSIONS_MAX);
            self.outputs.push_back(Output::Gone { table, sessions });
        }
        GoneNoted {}.into()
    }
}
