//! Sessions that come back inward when they are used.
//!
//! A request whose session is not here ([`Core::is_here`]) waits while the rings further out are asked, one after
//! the other, by a majority of each one's homes. If it is to come in ([`super::promotion`]), what they hold together is
//! written to the homes of the innermost ring with a note that says that it lies there again. Once enough of them have
//! it (as many as have to hold a write, and a majority) the homes further out are told, and drop theirs if all of it was
//! brought in. Then all that wait are gone on with, however many they are; those that only read were answered as soon as
//! the rings had.

use annulus_proto::message::{Failure, Operation, RequestId, SessionReply, SessionRequest};
use annulus_proto::{Entry, Key};

use super::Core;
use super::cooling::size;
use super::coordinator::{Pending, Stage, WriteKind};
use super::io::Now;
use super::settings::Flaw;

/// Who waits for a session to be brought in, and what was found of it.
#[derive(Debug, Default)]
pub(super) struct Bringing {
    waiting: Vec<u64>,
    /// What the rings that were asked hold together.
    found: Option<Entry>,
    /// Whether it is written to the homes inside, and lay further out until then: it can be read meanwhile.
    is_readable: bool,
    /// Whether what is written inside is the session that lies further out, and no later one nor its end: a copy more.
    is_also_outside: bool,
    /// What it takes of the budget of what comes in, in bytes.
    taken: usize,
    /// How many reads were answered before it is inside.
    answered: u64,
}

impl Bringing {
    /// The one that has waited longest.
    pub(super) fn longest_waiting(&self) -> Option<u64> {
        self.waiting.iter().min().copied()
    }
}

/// How long the rings further out may take, beside what one answer takes.
const PATIENCE: u32 = 3;
/// How many sessions are looked for at a time, and with each tick, that nobody asks for, and how many may wait for that.
const CHECKS_MAX: usize = 256;
const DOUBTS_MAX: usize = 65_536;

impl Core {
    /// Has a request wait until its session is here, or known not to be anywhere.
    pub(super) fn bring_in(&mut self, now: Now, id: u64, mut pending: Box<Pending>) {
        let place = (pending.table, pending.request.key.clone());
        self.leave_line(&mut pending);
        pending.stage = Stage::BringingIn;
        self.pending.insert(id, pending);
        if let Some(bringing) = self.bringing.get(&place) {
            self.counters.add("requests_for_what_comes");
            if !(bringing.is_readable && self.answer_reader(now, &place, id))
                && let Some(bringing) = self.bringing.get_mut(&place)
            {
                bringing.waiting.push(id);
            }
            return;
        }
        let table = place.0;
        self.bringing.insert(place.clone(), Bringing { waiting: vec![id], ..Bringing::default() });
        self.look_further_out(now, place, table);
    }

    /// Before a copy is merged that is no new write. If nothing of it is here, and this node lacks nothing else, its
    /// session may have gone further out since, and the markers may be gone: it is looked for there before long.
    pub(super) fn doubt_if_late(&mut self, now: Now, table: usize, key: &Key, copy: &Entry) {
        let now_ms = self.time.now_ms(now);
        let is_doubtful = self.outer(table).is_some()
            && !copy.is_ended()
            && self.is_here(table, copy)
            && self.slot_state(table, key.slot()).is_synced()
            && self.tables[table].store.get(key, now_ms).is_none();
        if is_doubtful {
            self.doubt(table, key);
        }
    }

    /// Has it seen to before long what the rings further out hold of a session.
    pub(super) fn doubt(&mut self, table: usize, key: &Key) {
        if self.may_doubt() {
            self.doubts.insert((table, key.clone()));
        }
    }

    fn may_doubt(&mut self) -> bool {
        let is_room = self.doubts.len() + self.doubted_again.len() < DOUBTS_MAX;
        if !is_room {
            self.counters.add("doubts_forgotten");
        }
        is_room
    }

    /// Looks for what is doubted.
    pub(super) fn settle_doubts(&mut self, now: Now) {
        let now_ms = self.time.now_ms(now);
        if self.doubts.is_empty() {
            self.doubts = std::mem::take(&mut self.doubted_again);
        }
        for _ in self.bringing.len()..CHECKS_MAX {
            let Some(place) = self.doubts.pop_first() else { return };
            let (table, key) = (place.0, &place.1);
            let stored = self.tables[table].store.get(key, now_ms);
            // A marker came meanwhile: the session has gone where it is to be.
            let is_settled = stored.is_some_and(|stored| stored.is_marker());
            if !is_settled && !self.bringing.contains_key(&place) {
                self.counters.add("copies_doubted");
                self.bringing.insert(place.clone(), Bringing::default());
                self.look_further_out(now, place, table);
            }
        }
    }

    /// Asks the homes of the ring after `inner`, or brings in what was found if that was the last.
    fn look_further_out(&mut self, now: Now, (table, key): (usize, Key), inner: usize) {
        let Some(outer) = self.outer(inner) else {
            return self.bring_what_was_found(now, (table, key));
        };
        let slot = key.slot();
        if self.ring_homes(outer, slot).is_empty() {
            return self.look_further_out(now, (table, key), outer);
        }
        self.counters.add("rings_asked");
        let (id, pending) = self.open_bringing(now, (table, &key), outer);
        self.start_reading(now, id, pending, false);
    }

    /// What is begun to bring a session into a table, with its number: a question to another one, or a write.
    fn open_bringing(
        &mut self,
        now: Now,
        (table, key): (usize, &Key),
        of: usize,
    ) -> (u64, Box<Pending>) {
        let patience = self.settings.home_timeout * PATIENCE;
        let request = SessionRequest {
            table: self.tables[of].store.policy().name.clone(),
            key: key.clone(),
            request: RequestId::NONE,
            hops: 0,
            patience_ms: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
            operation: Operation::Get,
        };
        let (id, mut pending) = self.open_pending(now.monotonic + patience, of, request);
        pending.brings = Some(table);
        (id, pending)
    }

    /// The homes of a ring have told what they hold.
    pub(super) fn on_found_further_out(
        &mut self,
        now: Now,
        id: u64,
        pending: &Pending,
        found: Option<Entry>,
    ) {
        self.pending_deadlines.remove(&(pending.deadline, id));
        let (outer, key) = (pending.table, pending.request.key.clone());
        let Some(table) = pending.brings else { return };
        let place = (table, key);
        if let Some(entry) = found.filter(|entry| !entry.is_marker())
            && let Some(bringing) = self.bringing.get_mut(&place)
        {
            match &mut bringing.found {
                None => bringing.found = Some(entry),
                Some(found) => _ = self.tables[table].store.join(found, &entry),
            }
        }
        self.look_further_out(now, place, outer);
    }

    /// Writes what the rings further out hold to the homes of the innermost.
    fn bring_what_was_found(&mut self, now: Now, (table, key): (usize, Key)) {
        let Some(bringing) = self.bringing.get(&(table, key.clone())) else { return };
        let (found, waiting) = (bringing.found.clone(), bringing.waiting.clone());
        let Some(mut entry) = found else {
            return self.end_bringing(now, (table, key), Ok(()));
        };
        let Some(taken) = self.comes_in(now, table, (&key, &entry), &waiting) else {
            return self.leave_it_where_it_is(now, (table, key), &entry);
        };
        let place = (table, key.clone());
        let is_readable = !self.may_be_behind(now, table, (&key, &entry));
        if let Some(bringing) = self.bringing.get_mut(&place) {
            (bringing.taken, bringing.is_readable) = (taken, is_readable);
        }
        if is_readable {
            self.answer_readers(now, &place);
        }
        let (now_ms, outside) = (self.time.now_ms(now), entry.birth);
        if let Some(stored) = self.tables[table].store.get(&key, now_ms) {
            // A stray, or what came in meanwhile.
            self.tables[table].store.join(&mut entry, &stored);
        }
        if let Some(bringing) = self.bringing.get_mut(&place) {
            bringing.is_also_outside = entry.birth == outside && !entry.is_ended();
        }
        if !entry.is_ended() {
            let after = entry.version.max(entry.moved_at());
            let Ok(version) = self.stamp(now, table, key.slot(), after) else {
                return self.end_bringing(now, (table, key), Err(Failure::TimedOut));
            };
            entry = self.moved(table, &key, entry, version, table);
        }
        let (id, pending) = self.open_bringing(now, (table, &key), table);
        if let Some(bringing) = self.bringing.get_mut(&(table, key)) {
            bringing.found = Some(entry.clone());
        }
        self.start_writing(now, id, pending, entry, WriteKind::Moved);
    }

    /// Answers all who only read what is being brought in.
    fn answer_readers(&mut self, now: Now, place: &(usize, Key)) {
        let Some(bringing) = self.bringing.get_mut(place) else { return };
        let mut waiting = std::mem::take(&mut bringing.waiting);
        waiting.retain(|id| !self.answer_reader(now, place, *id));
        if let Some(bringing) = self.bringing.get_mut(place) {
            bringing.waiting.extend(waiting);
        }
    }

    /// Answers a request for what is being brought in, if it only reads it.
    fn answer_reader(&mut self, now: Now, place: &(usize, Key), id: u64) -> bool {
        let reads = |pending: &Pending| pending.request.operation == Operation::Get;
        let Some(bringing) = self.bringing.get_mut(place) else { return false };
        let Some(found) =
            bringing.found.clone().filter(|_| self.pending.get(&id).is_some_and(|it| reads(it)))
        else {
            return false;
        };
        bringing.answered += 1;
        if let Some(pending) = self.pending.remove(&id) {
            self.apply_as_found(now, id, pending, found);
        }
        true
    }

    /// Goes on with those who wait.
    pub(super) fn end_bringing(
        &mut self,
        now: Now,
        (table, key): (usize, Key),
        outcome: Result<(), Failure>,
    ) {
        let Some(bringing) = self.bringing.remove(&(table, key.clone())) else { return };
        let now_ms = self.time.now_ms(now);
        if let Err(failure) = &outcome {
            self.did_not_come_in(table, bringing.taken);
            self.counters.add_many("sessions_read_further_out", bringing.answered);
            let may_be_soon = matches!(failure, Failure::Unavailable { .. } | Failure::TimedOut);
            let is_for_nobody = bringing.waiting.is_empty() && bringing.answered == 0;
            if is_for_nobody && may_be_soon && self.is_home(table, key.slot()) && self.may_doubt() {
                self.doubted_again.insert((table, key.clone()));
            }
        }
        if outcome.is_ok()
            && bringing.found.is_some()
            && let Some(entry) = self.tables[table].store.get(&key, now_ms)
        {
            self.counters.add("sessions_brought_in");
            match bringing.is_also_outside && !self.has_homes_enough(table, &key) {
                true => self.counters.add("sessions_left_further_out"),
                false => self.tell_further_out(now, table, &key, &entry.marker()),
            }
        }
        for id in bringing.waiting {
            let Some(mut pending) = self.pending.remove(&id) else { continue };
            match &outcome {
                Ok(()) => {
                    pending.is_nowhere_else = bringing.found.is_none();
                    self.route(now, id, pending);
                }
                // There is no room for it here, but it can be read, and what ends needs none.
                Err(Failure::TableFull { .. })
                    if !pending.needs_it_inside()
                        && let Some(entry) = &bringing.found =>
                {
                    self.apply_further_out(now, id, pending, entry.clone());
                }
                Err(Failure::Unavailable { .. } | Failure::TimedOut) => {
                    self.pause(now, id, pending);
                }
                Err(failure @ Failure::TableFull { .. }) => {
                    self.wait_for_room(now, id, pending, failure.clone());
                }
                Err(_) if pending.is_sent => {
                    self.finish(now, id, pending, Err(Failure::TimedOut));
                }
                Err(failure) => self.finish(now, id, pending, Err(failure.clone())),
            }
        }
    }

    /// Goes on with those who wait for a session that is not to come in now: it can be read and ended where it is.
    fn leave_it_where_it_is(&mut self, now: Now, place: (usize, Key), found: &Entry) {
        let Some(bringing) = self.bringing.remove(&place) else { return };
        for id in bringing.waiting {
            let Some(pending) = self.pending.remove(&id) else { continue };
            match pending.needs_it_inside() {
                true => self.wait_to_come_in(now, id, pending, size(found)),
                false => self.apply_further_out(now, id, pending, found.clone()),
            }
        }
    }

    /// Does what was asked with what lies on another ring.
    fn apply_further_out(&mut self, now: Now, id: u64, pending: Box<Pending>, found: Entry) {
        if pending.request.operation == Operation::Get {
            self.counters.add("sessions_read_further_out");
        }
        self.apply_as_found(now, id, pending, found);
    }

    fn apply_as_found(&mut self, now: Now, id: u64, mut pending: Box<Pending>, found: Entry) {
        pending.is_nowhere_else = true;
        self.apply(now, id, pending, Some(found));
    }

    /// What was written or read to bring a session in has an outcome.
    pub(super) fn on_brought(
        &mut self,
        now: Now,
        pending: &Pending,
        outcome: &Result<SessionReply, Failure>,
    ) {
        let Some(table) = pending.brings else { return };
        let outcome = outcome.as_ref().map(|_| ()).map_err(Clone::clone);
        self.end_bringing(now, (table, pending.request.key.clone()), outcome);
    }

    /// Whether what a request is about may lie on another ring, as far as is known here.
    pub(super) fn is_elsewhere(&self, pending: &Pending, stored: Option<&Entry>) -> bool {
        let table = pending.table;
        !stored.is_some_and(|entry| self.is_here(table, entry))
            && !pending.is_nowhere_else
            && pending.brings.is_none()
            && self.outer(table).is_some()
            && !self.has(Flaw::AsksNoRings)
    }
}
