//! Sessions that are kept away from their users for a while, since they are used too much.
//!
//! There is no other store for them: a note in the entry says until when ([`Entry::verdict`]), as its homes have judged
//! ([`super::burning`]). So it is wherever the session is, in each home's shared memory too, outlives restarts, and is
//! compared and handed over as all of the entry is. Readers of shared memory see it for themselves.
//!
//! Sessions begin and end whatever they are suspected of: who logs out is not told to come later.

use std::time::Duration;

use annulus_proto::message::{
    Failure, Judge, Message, Operation, Rejected, Role, Sentence, SessionRequest, Suspect,
    Suspects, SuspectsRequest,
};
use annulus_proto::{Entry, Key, Verdict};

use super::Core;
use super::burning::{BEAT, ClientId, Uses};
use super::coordinator::{Pending, Stage, WriteKind, no_stamp};
use super::io::{Asker, Caller, Now};
use super::replica::reject_table;

/// Suspects on one page.
const PAGE: usize = 512;
/// How long a monitor may have a session left alone.
const RELEASE_MS_MAX: u64 = 365 * 24 * 3_600_000;

impl Core {
    /// How much longer a session is kept away from its users, as far as this node knows.
    fn slowed_for(&self, now: Now, table: usize, key: &Key) -> Option<Duration> {
        let now_ms = self.time.now_ms(now);
        if !self.slot_state(table, key.slot()).is_kept() {
            return self.tables[table].burning.slowed_for(now, key);
        }
        // It may have been released while this node was away.
        let left = self.tables[table].store.suspect_until(key)?.saturating_sub(now_ms);
        (left > 0 && self.vouches(now, table, key.slot())).then(|| Duration::from_millis(left))
    }

    /// Has a request wait, or answers it, if its session is a suspect. `None`: it was.
    pub(super) fn let_pass(
        &mut self,
        now: Now,
        id: u64,
        pending: Box<Pending>,
    ) -> Option<Box<Pending>> {
        if !is_slowed(&pending) {
            return Some(pending);
        }
        match self.slowed_for(now, pending.table, &pending.request.key) {
            Some(left) => {
                self.slow_down(now, id, pending, left);
                None
            }
            None => Some(pending),
        }
    }

    /// The same of a request whose session was read.
    pub(super) fn let_pass_with(
        &mut self,
        now: Now,
        id: u64,
        pending: Box<Pending>,
        stored: Option<&Entry>,
    ) -> Option<Box<Pending>> {
        let now_ms = self.time.now_ms(now);
        let meant = pending.request.operation.birth();
        let is_it = |entry: &&Entry| {
            !entry.is_expired(now_ms) && meant.is_none_or(|birth| birth == entry.birth)
        };
        let until = stored.filter(is_it).and_then(|entry| entry.slowed_until(now_ms));
        match until.filter(|_| is_slowed(&pending)) {
            Some(until) => {
                let left = Duration::from_millis(until.saturating_sub(now_ms));
                self.slow_down(now, id, pending, left);
                None
            }
            None => Some(pending),
        }
    }

    fn slow_down(&mut self, now: Now, id: u64, mut pending: Box<Pending>, left: Duration) {
        let policy = self.tables[pending.table].store.policy().suspects.as_ref();
        let (hold, held_max) = policy.map_or((Duration::ZERO, 0), |it| (it.hold, it.held_max));
        let held_max = held_max.div_ceil(self.cores);
        let until = match pending.held_until {
            Some(until) => until,
            None if hold.is_zero() || self.held >= held_max || !may_wait(&pending) => now.monotonic,
            None => {
                self.counters.add("requests_held");
                now.monotonic.saturating_add(hold)
            }
        };
        if until <= now.monotonic || self.stopping {
            return self.finish(now, id, pending, Err(slow_down(left)));
        }
        pending.held_until = Some(until);
        pending.stage = Stage::Held;
        pending.is_nowhere_else = false; // It may be by then.
        self.held += 1;
        // It may be released before.
        self.pauses.insert((until.min(now.monotonic + BEAT), id));
        self.pending.insert(id, pending);
    }

    /// When to ask again for a session that is a suspect.
    pub(super) fn when_again(&self, now: Now, pending: &Pending) -> Failure {
        let left = self.slowed_for(now, pending.table, &pending.request.key);
        slow_down(left.unwrap_or_default())
    }

    /// Counts a request of a client, and says why it is not taken if there are too many.
    pub(super) fn count_request(
        &mut self,
        now: Now,
        table: usize,
        asker: Asker,
        request: &SessionRequest,
    ) -> Option<Failure> {
        self.tables[table].store.policy().suspects.as_ref()?;
        if let Some(client) = ClientId::of(asker) {
            self.count_uses(now, table, &request.key, (client, Uses::Requests(1)));
        }
        if request.operation.is_end() {
            return None;
        }
        let wait = self.tables[table].burning.take(now).err()?;
        self.counters.add("requests_above_quota");
        Some(slow_down(wait))
    }

    /// A page of the suspects that this node is a home of.
    pub(super) fn list_suspects(
        &mut self,
        now: Now,
        caller: Caller,
        request: &SuspectsRequest,
    ) -> Message {
        if let Some(rejected) = not_a_monitor(caller) {
            return rejected.into();
        }
        let Some(table) = self.table_of_clients(&request.table) else {
            return reject_table(&request.table);
        };
        let now_ms = self.time.now_ms(now);
        let listed = self.tables[table].store.suspects_after(request.after, PAGE);
        let next = match listed.last() {
            Some((word, _)) if listed.len() == PAGE => Some((self.number as u16, Some(*word))),
            _ => {
                let after = self.number + 1;
                (after < self.cores).then_some((after as u16, None))
            }
        };
        let suspect = |(word, key): (u64, Key)| {
            let entry = self.tables[table].store.get(&key, now_ms)?;
            let until = entry.slowed_until(now_ms).filter(|_| !entry.is_expired(now_ms))?;
            let (judged, _) = entry.verdict()?;
            let heat = self.heat_reported(now, table, &key);
            Some(Suspect {
                word,
                birth: entry.birth,
                judged,
                until,
                left_ms: until - now_ms,
                heat: u32::try_from(heat).unwrap_or(u32::MAX),
                owner: entry.body.map_or_else(Vec::new, |body| body.attributes.owner),
            })
        };
        Suspects { suspects: listed.into_iter().filter_map(suspect).collect(), next }.into()
    }

    /// Does what a monitor says of a suspect that this node is a home of.
    pub(super) fn judge(
        &mut self,
        now: Now,
        (asker, caller): (Asker, Caller),
        id: u64,
        judge: &Judge,
    ) {
        if let Some(rejected) = not_a_monitor(caller) {
            return self.reply(now, asker, id, rejected);
        }
        let Some(table) = self.table_of_clients(&judge.table) else {
            return self.reply(now, asker, id, reject_table(&judge.table));
        };
        let now_ms = self.time.now_ms(now);
        let key = self.tables[table].store.suspect_of(judge.word);
        let entry = key.as_ref().and_then(|key| self.tables[table].store.get(key, now_ms));
        let is_it = |entry: &Entry| entry.birth == judge.birth && !entry.is_expired(now_ms);
        let (Some(key), Some(mut entry)) = (key, entry.filter(is_it)) else {
            return self.reply_session(now, asker, id, Err(Failure::Absent));
        };
        let after = entry.version.max(entry.noted_at());
        let operation = match judge.sentence {
            Sentence::End => Operation::End { birth: Some(judge.birth) },
            Sentence::Release { for_ms } => {
                let version = match self.stamp(now, table, key.slot(), after) {
                    Ok(version) => version,
                    Err(trouble) => {
                        let failure = no_stamp(trouble, 1);
                        return self.reply_session(now, asker, id, Err(failure));
                    }
                };
                let until = now_ms.saturating_add(for_ms.min(RELEASE_MS_MAX));
                entry.judge(version, Verdict::Released { until });
                Operation::Get
            }
            _ => {
                let why = "this node does not know that sentence; upgrade it".to_owned();
                return self.reply_session(now, asker, id, Err(Failure::Refused(why)));
            }
        };
        let is_release = operation == Operation::Get;
        let (number, pending) = self.open_own(now, table, key, operation, judge.patience_ms);
        let mut pending = pending.asked_by(asker, id);
        pending.is_verdict = is_release;
        match is_release {
            true => {
                self.counters.add("suspects_released");
                self.start_writing(now, number, pending, entry, WriteKind::Noted);
            }
            false => {
                self.counters.add("suspects_ended");
                self.route(now, number, pending);
            }
        }
    }

    /// Sends what was noted of a session to the others who hold it.
    pub(super) fn tell_other_homes(&mut self, now: Now, table: usize, key: &Key, entry: &Entry) {
        let me = self.id();
        let homes = self.homes(table, key.slot());
        let (extras, _) = self.extra_homes(table, key.slot(), entry);
        for home in homes.into_iter().chain(extras).filter(|home| *home != me) {
            self.offer(now, table, home, key.clone(), entry.clone(), false);
        }
    }
}

/// Whether a request waits if its session is a suspect.
fn is_slowed(pending: &Pending) -> bool {
    let operation = &pending.request.operation;
    pending.brings.is_none()
        && !pending.is_sent
        && !operation.is_start()
        && !operation.is_end()
        && !operation.is_placement()
}

/// Whether a request may be held: it has no value, of which few would take what all others need, and no other node waits
/// for it, which would take this one for dead.
fn may_wait(pending: &Pending) -> bool {
    let is_small = matches!(pending.request.operation, Operation::Get | Operation::Touch { .. });
    is_small && pending.request.hops == 0
}

fn slow_down(left: Duration) -> Failure {
    let retry_after_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
    Failure::SlowDown { retry_after_ms }
}

fn not_a_monitor(caller: Caller) -> Option<Rejected> {
    let may = matches!(caller, Caller::Client(role) if role.includes(Role::Monitor));
    let why = || "to see and judge suspects takes the role monitor".to_owned();
    (!may).then(|| Rejected::Malformed { why: why() })
}
