//! Sessions that were begun in place of others under another key, which are to end.
//!
//! Who rotates the id of a session begins the new one, with the data and a note of the old one ([`Entry::replaces`]), and
//! then ends the old one. Whether or not that client lives to do so, the primary of the new session sees to it later:
//! it has the old one ended, and takes the note away. The note is at all homes of the new one as the rest of it is, so that it
//! outlives restarts and goes where the session goes.
//!
//! The old session is of another slot, mostly: of another core of this node, which asks a home of it. Cores talk to each other
//! through the hub ([`Between`]).

use std::time::Duration;

use annulus_proto::message::{Failure, Judge, Message, Operation, Sentence, SessionReply};
use annulus_proto::{Entry, Key, Replaced, Slot};

use super::Core;
use super::calls::Purpose;
use super::coordinator::WriteKind;
use super::io::{Asker, Between, Notice, Now};
use super::replica::reject_table;

/// How long after the new session's birth the old one is ended, if its client has not done so: longer than a
/// client tries to.
const AFTER_MS: u64 = 10_000;
/// How often it is looked for what is to end, and at how many.
const PERIOD: Duration = Duration::from_secs(1);
const LOOKED_STEP: usize = 1_024;
/// How long an end may take.
const PATIENCE_MS: u32 = 2_000;
/// After how long the old one of a session that is there no more is forgotten: it is for the primary to see to it,
/// which tells nobody then.
const FORGOTTEN_AFTER_MS: u64 = 600_000;

/// A session that is to end, and the one that was begun in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToEnd {
    /// The table, by its place.
    pub(super) table: usize,
    /// The session.
    pub(super) replaced: Replaced,
    /// What stands for the key of the other one.
    pub(super) by: u64,
}

/// What is known here of a session that is to end.
enum Known {
    /// It lives, or has ended and not everybody may know.
    There(Key),
    /// There is no such session.
    Gone,
    /// This node cannot tell.
    Unknown,
}

impl Core {
    /// Has sessions ended that others were begun in place of, some time ago.
    pub(super) fn see_to_replaced(&mut self, now: Now) {
        if self.next_replaced > now.monotonic || !self.is_up() || self.stopping {
            return;
        }
        self.next_replaced = now.monotonic + PERIOD;
        let now_ms = self.time.now_ms(now);
        let by_ms = now_ms.saturating_sub(AFTER_MS);
        for table in 0..self.tables.len() {
            let due = self.tables[table].store.replacing_in_turn(by_ms, LOOKED_STEP);
            for (key, replaced, began_ms) in due {
                let homes = self.homes(table, key.slot());
                if homes.into_iter().find(|home| self.is_active(*home)) == Some(self.id()) {
                    self.counters.add("replaced_seen_to");
                    let to_end = ToEnd { table, replaced, by: key.word() };
                    self.notify(Notice::Between(Between::End(to_end)));
                    continue;
                }
                let store = &mut self.tables[table].store;
                let is_old = began_ms.saturating_add(FORGOTTEN_AFTER_MS) <= now_ms;
                let is_there = |entry: Entry| entry.replaces() == Some(replaced);
                if is_old && !store.get(&key, now_ms).is_some_and(is_there) {
                    store.forget_replaced(&key);
                }
            }
        }
    }

    /// What another core, or this one, has to say.
    pub(super) fn on_between(&mut self, now: Now, between: Between) {
        match between {
            Between::End(to_end) => self.end_or_have_ended(now, to_end),
            Between::Ended(to_end) => self.on_replaced_ended(now, to_end),
            Between::Count(counting) => self.on_counting(now, counting),
        }
    }

    /// Ends a session of this core's slots that was replaced, here or at a home of it.
    fn end_or_have_ended(&mut self, now: Now, to_end: ToEnd) {
        let Some(slot) = self.slot_of_own(to_end.replaced.word) else { return };
        let ToEnd { table, replaced, .. } = to_end;
        let homes = self.homes(table, slot);
        if homes.contains(&self.id()) {
            return match self.find_replaced(now, table, slot, replaced) {
                Known::There(key) => self.end_for_good_as(now, table, key, replaced, Err(to_end)),
                Known::Gone => self.notify(Notice::Between(Between::Ended(to_end))),
                Known::Unknown => {}
            };
        }
        let Some(home) = homes.into_iter().find(|home| self.is_active(*home)) else { return };
        let judge = Judge {
            table: self.tables[table].store.policy().name.clone(),
            word: replaced.word,
            birth: replaced.birth,
            patience_ms: PATIENCE_MS,
            sentence: Sentence::End,
        };
        self.call(now, home, Purpose::EndReplaced(to_end), judge);
    }

    /// Ends a session that another node says was replaced.
    pub(super) fn end_for_node(&mut self, now: Now, asker: Asker, id: u64, judge: &Judge) {
        let Judge { table: name, word, birth, sentence, .. } = judge;
        let Some(table) = self.table_of_clients(name) else {
            return self.reply(now, asker, id, reject_table(name));
        };
        let replaced = Replaced { word: *word, birth: *birth };
        let found = match (self.slot_of_own(*word), sentence) {
            (Some(slot), Sentence::End) => self.find_replaced(now, table, slot, replaced),
            _ => Known::Unknown,
        };
        match found {
            Known::There(key) => self.end_for_good_as(now, table, key, replaced, Ok((asker, id))),
            Known::Gone => self.reply_session(now, asker, id, Err(Failure::Absent)),
            Known::Unknown => {
                let failure = Failure::Unavailable { answered: 0, needed: 1, homes: 0 };
                self.reply_session(now, asker, id, Err(failure));
            }
        }
    }

    /// What a home said of a session that it was to end.
    pub(super) fn on_end_of_replaced(&mut self, to_end: ToEnd, answer: Option<Message>) {
        let gone = [Failure::Absent, Failure::Ended, Failure::Expired].map(SessionReply::Failed);
        if let Some(Message::SessionReply(reply)) = answer
            && (matches!(reply, SessionReply::Acknowledged(_)) || gone.contains(&reply))
        {
            self.notify(Notice::Between(Between::Ended(to_end)));
        }
    }

    /// A session of this core's that was to end is ended for good, or not.
    pub(super) fn on_replaced_answered(
        &mut self,
        to_end: ToEnd,
        outcome: Result<SessionReply, Failure>,
    ) {
        let reply = outcome.unwrap_or_else(SessionReply::Failed);
        self.on_end_of_replaced(to_end, Some(reply.into()));
    }

    /// Takes the note away from a session in whose place nothing lives any more.
    fn on_replaced_ended(&mut self, now: Now, to_end: ToEnd) {
        let ToEnd { table, replaced, by } = to_end;
        if self.slot_of_own(by).is_none() {
            return;
        }
        let store = &mut self.tables[table].store;
        let Some(key) = store.replacing(by, replaced) else { return };
        let entry = store.get(&key, self.time.now_ms(now));
        let Some(mut entry) = entry.filter(|entry| entry.replaces() == Some(replaced)) else {
            return self.tables[table].store.forget_replaced(&key);
        };
        // Should it not succeed, its turn comes again.
        let after = entry.version.max(entry.noted_at());
        let Ok(version) = self.stamp(now, table, key.slot(), after) else { return };
        entry.note_replaced(version, None);
        self.counters.add("replaced_ended");
        let (number, mut pending) = self.open_own(now, table, key, Operation::Get, PATIENCE_MS);
        pending.is_verdict = true;
        self.start_writing(now, number, pending, entry, WriteKind::Noted);
    }

    fn end_for_good_as(
        &mut self,
        now: Now,
        table: usize,
        key: Key,
        replaced: Replaced,
        who: Result<(Asker, u64), ToEnd>,
    ) {
        let operation = Operation::End { birth: Some(replaced.birth) };
        let (number, pending) = self.open_own(now, table, key, operation, PATIENCE_MS);
        let pending = match who {
            Ok((asker, id)) => pending.asked_by(asker, id),
            Err(to_end) => pending.for_the_sake_of(to_end),
        };
        self.route(now, number, pending);
    }

    /// The key of a session on any ring that this node holds something of.
    fn find_replaced(&mut self, now: Now, table: usize, slot: Slot, replaced: Replaced) -> Known {
        let now_ms = self.time.now_ms(now);
        let innermost = self.innermost(table);
        let mut next = Some(innermost);
        while let Some(ring) = next {
            let store = &mut self.tables[ring].store;
            let keys = store.keys_of_words(slot, &[replaced.word]);
            for (_, key) in keys {
                let entry = store.get(&key, now_ms);
                if entry.is_some_and(|entry: Entry| entry.birth == replaced.birth) {
                    return Known::There(key);
                }
            }
            next = self.outer(ring);
        }
        // It may be on a ring further out, at other homes. And those who decide may be dead and come back, with the session.
        let is_alone = self.outer(innermost).is_none();
        let config = self.epoch(innermost, slot);
        let can_tell = config.is_some_and(|config| self.is_majority_in_contact(now, config));
        match is_alone && can_tell && self.vouches(now, innermost, slot) {
            true => Known::Gone,
            false => Known::Unknown,
        }
    }

    /// The slot of a word, if it is this core's.
    fn slot_of_own(&self, word: u64) -> Option<Slot> {
        Slot::of_word(word).filter(|slot| self.owns(*slot))
    }
}
