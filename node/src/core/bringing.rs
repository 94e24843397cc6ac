//! Sessions that come back inward when they are used.
//!
//! A request whose session is not here ([`Core::is_here`]) waits while the rings further out are asked, one after
//! the other, by a majority of each one's homes. What they hold is written to the homes of the innermost ring with a note
//! that says that it lies there again. Once as many of them have it as have to hold a write, the homes further out
//! are told, and drop theirs if all of it was brought in. Then all that wait are gone on with, however many they are.

use annulus_proto::message::{Failure, Operation, RequestId, SessionReply, SessionRequest};
use annulus_proto::{Entry, Key};

use super::Core;
use super::coordinator::{Pending, Stage, WriteKind};
use super::io::Now;
use super::settings::Flaw;

/// Who waits for a session to be brought in, and where it was found.
#[derive(Debug, Default)]
pub(super) struct Bringing {
    waiting: Vec<u64>,
    /// The table, and what its homes hold.
    found: Option<(usize, Entry)>,
}

/// How long the rings further out may take, beside what one answer takes.
const PATIENCE: u32 = 3;

impl Core {
    /// Has a request wait until its session is here, or known not to be anywhere.
    pub(super) fn bring_in(&mut self, now: Now, id: u64, mut pending: Pending) {
        let place = (pending.table, pending.request.key.clone());
        self.leave_line(&mut pending);
        pending.stage = Stage::BringingIn;
        self.pending.insert(id, pending);
        if let Some(bringing) = self.bringing.get_mut(&place) {
            self.counters.add("requests_for_what_comes");
            return bringing.waiting.push(id);
        }
        let (table, key) = place.clone();
        self.bringing.insert(place, Bringing { waiting: vec![id], found: None });
        self.look_further_out(now, (table, key), table);
    }

    /// Asks the homes of the ring after `inner`.
    fn look_further_out(&mut self, now: Now, (table, key): (usize, Key), inner: usize) {
        let Some(outer) = self.outer(inner) else {
            return self.end_bringing(now, (table, key), Ok(()));
        };
        let slot = key.slot();
        if self.ring_homes(outer, slot).is_empty() {
            return self.look_further_out(now, (table, key), outer);
        }
        self.counters.add("rings_asked");
        let patience = self.settings.home_timeout * PATIENCE;
        let request = SessionRequest {
            table: self.tables[outer].store.policy().name.clone(),
            key: key.clone(),
            request: RequestId::NONE,
            hops: 0,
            patience_ms: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
            operation: Operation::Get,
        };
        let deadline = now.monotonic + patience;
        let (id, mut pending) = self.open_pending(deadline, outer, request);
        pending.brings = Some(table);
        self.start_reading(now, id, pending, false);
    }

    /// The homes of a ring have told what they hold.
    pub(super) fn on_found_further_out(
        &mut self,
        now: Now,
        id: u64,
        mut pending: Pending,
        found: Option<Entry>,
    ) {
        let (outer, key) = (pending.table, pending.request.key.clone());
        let Some(table) = pending.brings else { return };
        let Some(mut entry) = found.filter(|entry| !entry.is_marker()) else {
            self.pending_deadlines.remove(&(pending.deadline, id));
            return self.look_further_out(now, (table, key), outer);
        };
        let now_ms = self.time.now_ms(now);
        let stored = self.tables[table].store.get(&key, now_ms);
        if let Some(stored) = stored {
            // A stray, or what came in meanwhile.
            self.tables[table].store.join(&mut entry, &stored);
        }
        if !entry.is_ended() {
            let after = entry.version.max(entry.moved_at());
            let Ok(version) = self.stamp(now, table, key.slot(), after) else {
                return self.finish(now, id, pending, Err(Failure::TimedOut));
            };
            entry = self.moved(table, &key, entry, version, table);
        }
        if let Some(bringing) = self.bringing.get_mut(&(table, key)) {
            bringing.found = Some((outer, entry.clone()));
        }
        pending.table = table;
        pending.request.table.clone_from(&self.tables[table].store.policy().name);
        self.start_writing(now, id, pending, entry, WriteKind::Moved);
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
        if outcome.is_ok()
            && let Some((outer, _)) = bringing.found
            && let Some(entry) = self.tables[table].store.get(&key, now_ms)
        {
            self.counters.add("sessions_brought_in");
            self.tell_others(now, outer, &key, &entry.marker());
        }
        for id in bringing.waiting {
            let Some(mut pending) = self.pending.remove(&id) else { continue };
            match &outcome {
                Ok(()) => {
                    pending.is_nowhere_else = bringing.found.is_none();
                    self.route(now, id, pending);
                }
                // There is no room for it here, but it can be read.
                Err(Failure::TableFull { .. })
                    if pending.request.operation == Operation::Get
                        && let Some((_, entry)) = &bringing.found =>
                {
                    self.counters.add("sessions_read_further_out");
                    pending.is_nowhere_else = true;
                    self.apply(now, id, pending, Some(entry.clone()));
                }
                Err(Failure::Unavailable { .. } | Failure::TimedOut) => {
                    self.pause(now, id, pending);
                }
                Err(failure) => self.finish(now, id, pending, Err(failure.clone())),
            }
        }
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
