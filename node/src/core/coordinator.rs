//! Requests about sessions: forward them to a home, or coordinate them there.
//!
//! A home that coordinates stamps a write, merges it into its own store, sends it to the other homes
//! at the same time and answers when enough of them hold it. It never waits for the failure
//! detector: a home that does not answer is left with a hint. Reads come from the home's own memory
//! while it is in sync; a home that is not, and one that has nothing under the key, asks the others.

use std::collections::BTreeMap;
use std::time::Duration;

use annulus_proto::limits::{FIELD_NAME_BYTES_MAX, OWNER_BYTES_MAX, VALUE_BYTES_MAX};
use annulus_proto::message::{
    Acknowledged, Change, Failure, Fetch, Lifetimes, Message, Operation, Replicate, Replicated,
    Session, SessionReply, SessionRequest, TouchCopy,
};
use annulus_proto::{Entry, NodeId, Slot, Value, Version};
use annulus_shm::Admission;

use super::calls::Purpose;
use super::io::{Asker, Now};
use super::settings::majority;
use super::time::NoStamp;
use super::{Core, TablePolicy};

/// A request that waits for other nodes.
pub(super) struct Pending {
    askers: Vec<(Asker, u64)>,
    table: usize,
    slot: Slot,
    request: SessionRequest,
    deadline: Duration,
    /// What it counts against the bound on waiting requests, in bytes.
    size: usize,
    rounds: u8,
    stage: Stage,
}

enum Stage {
    Forwarding { call: u64, tried: Vec<NodeId> },
    Reading(Reading),
    Writing(Writing),
    Done,
}

/// What the homes said that were asked for an entry.
#[derive(Default)]
struct Reading {
    homes: Vec<NodeId>,
    asked: Vec<NodeId>,
    waiting: BTreeMap<u64, NodeId>,
    answers: BTreeMap<NodeId, Option<Entry>>,
    synced_homes: usize,
    /// How many of those asked did not answer.
    silent: usize,
}

/// Who holds a write so far.
struct Writing {
    entry: Entry,
    homes: usize,
    needed: usize,
    held_by: usize,
    waiting: BTreeMap<u64, NodeId>,
    failure: Option<Failure>,
    answered: bool,
}

/// How often a request may be passed on.
const HOPS_MAX: u8 = 3;
/// How often a coordinator starts anew because a home knew a newer session.
const ROUNDS_MAX: u8 = 4;
/// The most bytes of requests that wait, in all cores: each is held up to three times, here and on its way.
const PENDING_BYTES_MAX: usize = 64 << 20;
/// What each core may hold in any case: a few of the largest.
const PENDING_BYTES_MIN: usize = 4 * (VALUE_BYTES_MAX + REQUEST_OVERHEAD_BYTES);
/// What a request takes beside its value.
const REQUEST_OVERHEAD_BYTES: usize = 1_024;
/// How many members beyond the homes are asked at a time.
const ASKED_MAX: usize = 8;
/// How many repetitions of a request may wait for its answer.
const ASKERS_MAX: usize = 8;
/// The longest that a request may wait, whatever its caller says.
const PATIENCE_MAX: Duration = Duration::from_secs(30);

impl Core {
    /// Takes in a request about a session.
    pub(super) fn begin(&mut self, now: Now, asker: Asker, id: u64, request: SessionRequest) {
        debug_assert!(self.owns(request.key.slot()));
        self.counters.add(match request.operation {
            Operation::Start { .. } => "requests_start",
            Operation::Get => "requests_get",
            Operation::Update { .. } => "requests_update",
            Operation::Touch { .. } => "requests_touch",
            _ => "requests_end",
        });
        let may_repeat = request.operation != Operation::Get && request.request.may_repeat();
        if may_repeat && let Some(reply) = self.replies.get(request.request).cloned() {
            self.counters.add("requests_repeated");
            return self.reply(now, asker, id, reply);
        }
        let under_way = self.unanswered.get(&request.request).filter(|_| may_repeat);
        if let Some(pending) = under_way.and_then(|id| self.pending.get_mut(id)) {
            self.counters.add("requests_repeated");
            if pending.askers.len() >= ASKERS_MAX {
                pending.askers.remove(0);
            }
            pending.askers.push((asker, id));
            return;
        }
        if self.stopping {
            let failure = Failure::Unavailable { answered: 0, needed: 1, homes: 0 };
            return self.reply_session(now, asker, id, Err(failure));
        }
        let Some(table) = self.table_named(&request.table) else {
            let why = format!("there is no table {:?}; check [[table]] on the node", request.table);
            return self.reply_session(now, asker, id, Err(Failure::Refused(why)));
        };
        if let Err(failure) = check(self.tables[table].store.policy(), &request.operation) {
            return self.reply_session(now, asker, id, Err(failure));
        }
        let size = size(&request);
        let is_full = self.pending.len() >= self.settings.pending_max
            || self.pending_bytes + size > (PENDING_BYTES_MAX / self.cores).max(PENDING_BYTES_MIN);
        if is_full {
            self.counters.add("requests_refused_busy");
            let why = "too many requests wait for their homes; try again later".to_owned();
            return self.reply_session(now, asker, id, Err(Failure::Refused(why)));
        }
        let patience = Duration::from_millis(request.patience_ms.into()).min(PATIENCE_MAX);
        let deadline = now.monotonic + patience;
        self.pending_next += 1;
        self.pending_deadlines.insert((deadline, self.pending_next));
        if may_repeat {
            self.unanswered.insert(request.request, self.pending_next);
        }
        let slot = request.key.slot();
        let askers = vec![(asker, id)];
        let pending =
            Pending { askers, table, slot, request, deadline, size, rounds: 0, stage: Stage::Done };
        self.pending_bytes += size;
        self.route(now, self.pending_next, pending);
    }

    fn route(&mut self, now: Now, id: u64, pending: Pending) {
        let homes = self.homes(pending.table, pending.slot);
        let is_write = pending.request.operation != Operation::Get;
        let trouble = if is_write { self.time.can_stamp(now).err() } else { None };
        if homes.contains(&self.id()) && trouble.is_none() {
            return self.coordinate(now, id, pending);
        }
        if homes.len() > usize::from(homes.contains(&self.id())) {
            return self.forward(now, id, pending, Vec::new());
        }
        let failure = match trouble {
            Some(trouble) => no_stamp(trouble, homes.len()),
            None => Failure::Unavailable { answered: 0, needed: 1, homes: homes.len() as u8 },
        };
        self.finish(now, id, pending, Err(failure));
    }

    /// Passes the request on to a home that was not tried yet, the doubtful ones last; a read to the
    /// nearest of the others.
    fn forward(&mut self, now: Now, id: u64, mut pending: Pending, mut tried: Vec<NodeId>) {
        let homes = self.homes(pending.table, pending.slot);
        let me = self.id();
        let untried = |home: &&NodeId| **home != me && !tried.contains(home);
        let mut candidates: Vec<NodeId> = homes.iter().filter(untried).copied().collect();
        let is_read = pending.request.operation == Operation::Get;
        // Equally far ones stay in the order of the ring, which spreads the load.
        let step = |home: &NodeId| self.proximity.get(home).copied().unwrap_or(u8::MAX);
        candidates.sort_by_key(|home| {
            (self.is_doubtful(now, *home), if is_read { step(home) } else { 0 })
        });
        let next = candidates.first().copied().filter(|_| pending.request.hops < HOPS_MAX);
        let Some(home) = next else {
            let homes = homes.len() as u8;
            let failure = Failure::Unavailable { answered: 0, needed: 1, homes };
            return self.finish(now, id, pending, Err(failure));
        };
        self.counters.add("requests_forwarded");
        let mut request = pending.request.clone();
        request.hops += 1;
        let left = pending.deadline.saturating_sub(now.monotonic);
        request.patience_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        tried.push(home);
        match self.call(now, home, Purpose::Pending(id), request) {
            Some(call) => {
                pending.stage = Stage::Forwarding { call, tried };
                self.pending.insert(id, pending);
            }
            None => self.forward(now, id, pending, tried),
        }
    }

    fn coordinate(&mut self, now: Now, id: u64, pending: Pending) {
        let now_ms = self.time.now_ms(now);
        let vouches = self.vouches(now, pending.table, pending.slot);
        let stored = self.tables[pending.table].store.get(&pending.request.key, now_ms);
        match (&pending.request.operation, stored) {
            (Operation::Start { .. }, stored) => self.apply(now, id, pending, stored),
            (operation, Some(entry)) if vouches && is_answer(operation, &entry, now_ms) => {
                self.apply(now, id, pending, Some(entry));
            }
            _ => self.start_reading(now, id, pending),
        }
    }

    /// Does what was asked, knowing what is stored.
    fn apply(&mut self, now: Now, id: u64, pending: Pending, stored: Option<Entry>) {
        let now_ms = self.time.now_ms(now);
        let policy = self.tables[pending.table].store.policy().clone();
        let operation = &pending.request.operation;
        if let Operation::Start { value, lifetimes, attributes } = operation {
            let after =
                stored.as_ref().map_or(Version::ZERO, |entry| entry.version.max(entry.birth));
            let birth = match self.time.stamp(now, after.hlc) {
                Ok(birth) => birth,
                Err(trouble) => {
                    let homes = self.homes(pending.table, pending.slot).len();
                    return self.finish(now, id, pending, Err(no_stamp(trouble, homes)));
                }
            };
            let lease = lease(&policy, lifetimes, birth.hlc.ms(), now_ms);
            let value = value.clone();
            let entry = Entry::start(birth, value, lease, attributes.clone(), now_ms);
            return self.start_writing(now, id, pending, entry, false);
        }
        let Some(stored) = stored else {
            return self.finish(now, id, pending, Err(Failure::Absent));
        };
        let meant = operation.birth().is_none_or(|birth| birth == stored.birth);
        let is_end = matches!(operation, Operation::End { .. });
        let Some(body) = stored.body.as_ref().filter(|_| meant) else {
            if is_end && meant {
                // Ended already; what counts is that a majority of homes knows.
                return self.start_writing(now, id, pending, stored, false);
            }
            return self.finish(now, id, pending, Err(Failure::Ended));
        };
        if stored.is_expired(now_ms) && !is_end {
            return self.finish(now, id, pending, Err(Failure::Expired));
        }
        let mut entry = stored.clone();
        match operation {
            Operation::Get => {
                let session = Session {
                    birth: stored.birth,
                    version: stored.version,
                    deadline: stored.deadline(),
                    touched: body.touched,
                    attributes: body.attributes.clone(),
                    value: body.value(now_ms),
                };
                return self.finish(now, id, pending, Ok(SessionReply::Session(session)));
            }
            Operation::Touch { .. } => {
                entry.touch(now_ms);
                return self.start_writing(now, id, pending, entry, true);
            }
            _ => {}
        }
        let version = match self.time.stamp(now, stored.version.hlc) {
            Ok(version) => version,
            Err(trouble) => {
                let homes = self.homes(pending.table, pending.slot).len();
                return self.finish(now, id, pending, Err(no_stamp(trouble, homes)));
            }
        };
        match operation {
            Operation::Update { change: Change::Value(value), .. } => {
                entry.write_value(version, value.clone());
                entry.touch(now_ms);
            }
            Operation::Update { change: Change::Fields { set, delete }, .. } => {
                if !body.is_map() {
                    let why = "the value is a string of bytes; it has no fields to set".to_owned();
                    return self.finish(now, id, pending, Err(Failure::Refused(why)));
                }
                for (name, value) in set {
                    entry.write_field(version, name.clone(), Some(value.clone()));
                }
                for name in delete {
                    entry.write_field(version, name.clone(), None);
                }
                entry.touch(now_ms);
            }
            Operation::Update { change: Change::Lifetimes(lifetimes), .. } => {
                let (idle, expire_at) = lease(&policy, lifetimes, stored.birth.hlc.ms(), now_ms);
                let idle = if lifetimes.idle_ms.is_some() { idle } else { body.lease.idle };
                let unchanged = lifetimes.lifetime_ms.is_none();
                let expire_at = if unchanged { body.lease.expire_at } else { expire_at };
                entry.write_lease(version, idle, expire_at);
                entry.touch(now_ms);
            }
            Operation::Update { .. } => {
                let why = "this node does not know that change; upgrade it".to_owned();
                return self.finish(now, id, pending, Err(Failure::Refused(why)));
            }
            _ => entry = Entry::ended(stored.birth, version),
        }
        let size = entry.body.as_ref().map_or(0, annulus_proto::Body::size) as u64;
        if size > policy.max_value.into() {
            let failure = Failure::TooLarge { size, limit: policy.max_value.into() };
            return self.finish(now, id, pending, Err(failure));
        }
        self.start_writing(now, id, pending, entry, false);
    }

    // Writing.

    fn start_writing(
        &mut self,
        now: Now,
        id: u64,
        mut pending: Pending,
        entry: Entry,
        touch_only: bool,
    ) {
        let key = pending.request.key.clone();
        let stored = self.merge(now, pending.table, &key, &entry, Admission::Ordinary);
        if let Err(failure) = stored {
            return self.finish(now, id, pending, Err(failure));
        }
        let homes = self.homes(pending.table, pending.slot);
        let is_end = matches!(pending.request.operation, Operation::End { .. });
        let write = self.tables[pending.table].store.policy().write.count(homes.len());
        let needed = if is_end { write.max(majority(homes.len())) } else { write };
        let mut writing = Writing {
            entry,
            homes: homes.len(),
            needed,
            // The view may have changed while this request waited.
            held_by: usize::from(homes.contains(&self.id())),
            waiting: BTreeMap::new(),
            failure: None,
            answered: false,
        };
        let me = self.id();
        for home in homes.into_iter().filter(|home| *home != me) {
            self.send_copy(now, id, &pending, &mut writing, home, touch_only);
        }
        pending.stage = Stage::Writing(writing);
        self.judge_writing(now, id, pending);
    }

    fn send_copy(
        &mut self,
        now: Now,
        id: u64,
        pending: &Pending,
        writing: &mut Writing,
        home: NodeId,
        touch_only: bool,
    ) {
        let (table, key) = (pending.request.table.clone(), pending.request.key.clone());
        let entry = writing.entry.clone();
        let message: Message = match &entry.body {
            Some(body) if touch_only => {
                let (birth, version, touched) = (entry.birth, entry.version, body.touched);
                TouchCopy { table, key, birth, version, touched }.into()
            }
            _ => Replicate { table, key, entry }.into(),
        };
        match self.call(now, home, Purpose::Pending(id), message) {
            Some(call) => {
                writing.waiting.insert(call, home);
            }
            None => self.hint(pending.table, home, &pending.request.key),
        }
    }

    fn judge_writing(&mut self, now: Now, id: u64, mut pending: Pending) {
        let Stage::Writing(writing) = &mut pending.stage else { return };
        let possible = writing.held_by + writing.waiting.len();
        let outcome = if writing.answered {
            None
        } else if writing.held_by >= writing.needed {
            let (held_by, homes) = (writing.held_by as u8, writing.homes as u8);
            let (birth, version) = (writing.entry.birth, writing.entry.version);
            Some(Ok(SessionReply::Acknowledged(Acknowledged { birth, version, held_by, homes })))
        } else if possible < writing.needed {
            let (answered, needed) = (writing.held_by as u8, writing.needed as u8);
            let homes = writing.homes as u8;
            let unavailable = Failure::Unavailable { answered, needed, homes };
            Some(Err(writing.failure.take().unwrap_or(unavailable)))
        } else {
            None
        };
        writing.answered |= outcome.is_some();
        let done = writing.waiting.is_empty();
        if let Some(outcome) = outcome {
            self.answer_all(now, &mut pending, outcome);
        }
        if done {
            self.pending_deadlines.remove(&(pending.deadline, id));
            self.pending_bytes -= pending.size;
        } else {
            self.pending.insert(id, pending);
        }
    }

    fn on_copy_answer(
        &mut self,
        now: Now,
        id: u64,
        call: u64,
        mut pending: Pending,
        answer: Replicated,
    ) {
        let Stage::Writing(writing) = &mut pending.stage else { return };
        let Some(home) = writing.waiting.remove(&call) else {
            self.pending.insert(id, pending);
            return;
        };
        match answer {
            Replicated::Stored => writing.held_by += 1,
            Replicated::Missing => {
                let mut writing = std::mem::replace(&mut pending.stage, Stage::Done).into_writing();
                self.send_copy(now, id, &pending, &mut writing, home, false);
                pending.stage = Stage::Writing(writing);
            }
            Replicated::Differs(theirs) => {
                let ours = (writing.entry.birth, writing.entry.is_ended(), writing.answered);
                let key = &pending.request.key;
                let _ = self.merge(now, pending.table, key, &theirs, Admission::Reserve);
                let (birth, ended, answered) = ours;
                if theirs.birth == birth && theirs.is_ended() == ended {
                    writing.held_by += 1;
                } else if !answered {
                    return self.on_superseded(now, id, pending);
                }
            }
            Replicated::Failed(failure) => {
                writing.failure = Some(failure);
                self.hint(pending.table, home, &pending.request.key);
            }
            _ => self.hint(pending.table, home, &pending.request.key),
        }
        self.judge_writing(now, id, pending);
    }

    /// A home knew of a newer session, or of the end of this one, which the write now lost to.
    fn on_superseded(&mut self, now: Now, id: u64, mut pending: Pending) {
        let again = pending.request.operation.birth().is_none();
        pending.rounds += 1;
        if again && pending.rounds < ROUNDS_MAX {
            self.counters.add("writes_superseded");
            pending.stage = Stage::Done;
            return self.route(now, id, pending);
        }
        let failure = if again { Failure::TimedOut } else { Failure::Ended };
        self.finish(now, id, pending, Err(failure));
    }

    // Reading.

    fn start_reading(&mut self, now: Now, id: u64, mut pending: Pending) {
        self.counters.add("reads_of_homes");
        let now_ms = self.time.now_ms(now);
        let me = self.id();
        let homes = self.homes(pending.table, pending.slot);
        let stored = self.tables[pending.table].store.get(&pending.request.key, now_ms);
        let synced = self.slot_state(pending.table, pending.slot).is_synced();
        let mut reading = Reading { homes: homes.clone(), ..Reading::default() };
        reading.asked.push(me);
        reading.answers.insert(me, stored);
        reading.synced_homes = usize::from(synced && homes.contains(&me));
        for home in homes.into_iter().filter(|home| *home != me) {
            self.ask(now, id, &pending, &mut reading, home);
        }
        pending.stage = Stage::Reading(reading);
        self.judge_reading(now, id, pending);
    }

    fn ask(&mut self, now: Now, id: u64, pending: &Pending, reading: &mut Reading, node: NodeId) {
        reading.asked.push(node);
        let (table, key) = (pending.request.table.clone(), pending.request.key.clone());
        if let Some(call) = self.call(now, node, Purpose::Pending(id), Fetch { table, key }) {
            reading.waiting.insert(call, node);
        }
    }

    /// Enough is known once a majority of the homes that are in sync has answered. While there are
    /// too few of those, everybody who may still hold something for the slot is asked as well.
    fn judge_reading(&mut self, now: Now, id: u64, mut pending: Pending) {
        let mut reading = std::mem::replace(&mut pending.stage, Stage::Done).into_reading();
        let needed = majority(reading.homes.len());
        let in_sync_at_best = reading.synced_homes + reading.waiting.len();
        if in_sync_at_best < needed && reading.waiting.len() < ASKED_MAX {
            let asked = &reading.asked;
            let more: Vec<NodeId> = self.possible_holders(pending.slot);
            let more: Vec<NodeId> =
                more.into_iter().filter(|node| !asked.contains(node)).take(ASKED_MAX).collect();
            for node in more {
                self.ask(now, id, &pending, &mut reading, node);
            }
        }
        let answered =
            reading.homes.iter().filter(|home| reading.answers.contains_key(home)).count();
        // Nobody may say *absent* for those who did not answer.
        let found = reading.answers.values().any(Option::is_some);
        let all_told = reading.waiting.is_empty() && answered >= needed;
        if reading.synced_homes >= needed || (all_told && (found || reading.silent == 0)) {
            return self.on_read(now, id, pending, reading);
        }
        if reading.waiting.is_empty() {
            let (answered, needed, homes) =
                (answered as u8, needed as u8, reading.homes.len() as u8);
            let failure = Failure::Unavailable { answered, needed, homes };
            return self.finish(now, id, pending, Err(failure));
        }
        pending.stage = Stage::Reading(reading);
        self.pending.insert(id, pending);
    }

    fn on_read(&mut self, now: Now, id: u64, pending: Pending, reading: Reading) {
        let key = pending.request.key.clone();
        let mut merged: Option<Entry> = None;
        for entry in reading.answers.values().flatten() {
            match &mut merged {
                None => merged = Some(entry.clone()),
                Some(merged) => {
                    merged.merge(entry);
                }
            }
        }
        if let Some(entry) = &merged {
            let kept = self.merge(now, pending.table, &key, entry, Admission::Reserve);
            if let Err(failure) = kept
                && pending.request.operation != Operation::Get
            {
                return self.finish(now, id, pending, Err(failure));
            }
            for (node, answer) in &reading.answers {
                let is_other_home = *node != self.id() && reading.homes.contains(node);
                if is_other_home && answer.as_ref() != Some(entry) {
                    self.counters.add("read_repairs");
                    self.repair(now, pending.table, *node, key.clone(), false);
                }
            }
        }
        self.apply(now, id, pending, merged);
    }

    /// Members that may hold entries of a slot: the homes, then the others, as placement prefers them.
    fn possible_holders(&self, slot: Slot) -> Vec<NodeId> {
        let mut holders = self.standing.ring.candidates(slot);
        let others = self.standing.view.active().map(|member| member.id);
        let draining: Vec<NodeId> = others.filter(|id| !holders.contains(id)).collect();
        holders.extend(draining);
        holders
    }

    // Events.

    pub(super) fn on_pending_answer(
        &mut self,
        now: Now,
        id: u64,
        call: u64,
        node: NodeId,
        message: Message,
    ) {
        let Some(mut pending) = self.pending.remove(&id) else { return };
        match (&mut pending.stage, message) {
            (Stage::Forwarding { call: open, .. }, Message::SessionReply(reply))
                if *open == call =>
            {
                let unwilling = Failure::Unavailable { answered: 0, needed: 1, homes: 0 };
                if reply == SessionReply::Failed(unwilling) {
                    // It is about to stop, and has not begun with it.
                    self.pending.insert(id, pending);
                    return self.on_pending_failure(now, id, call, node, false);
                }
                self.finish(now, id, pending, Ok(reply));
            }
            (Stage::Reading(reading), Message::Fetched(fetched)) => {
                if let Some(node) = reading.waiting.remove(&call) {
                    let is_home = reading.homes.contains(&node);
                    reading.synced_homes += usize::from(fetched.synced && is_home);
                    reading.answers.insert(node, fetched.entry);
                }
                self.judge_reading(now, id, pending);
            }
            (Stage::Writing(_), Message::Replicated(answer)) => {
                self.on_copy_answer(now, id, call, pending, answer);
            }
            _ => {
                self.counters.add("answers_out_of_place");
                self.pending.insert(id, pending);
                self.on_pending_failure(now, id, call, node, true);
            }
        }
    }

    pub(super) fn on_pending_failure(
        &mut self,
        now: Now,
        id: u64,
        call: u64,
        node: NodeId,
        sent: bool,
    ) {
        let Some(mut pending) = self.pending.remove(&id) else { return };
        let expected = match &mut pending.stage {
            Stage::Forwarding { call: open, .. } => *open == call,
            Stage::Reading(reading) => {
                let waited = reading.waiting.remove(&call).is_some();
                reading.silent += usize::from(waited);
                waited
            }
            Stage::Writing(writing) => writing.waiting.remove(&call).is_some(),
            Stage::Done => false,
        };
        match &mut pending.stage {
            _ if !expected => {
                self.pending.insert(id, pending);
            }
            Stage::Forwarding { .. } if sent && pending.request.operation != Operation::Get => {
                // That home may do it yet. Another one would do it a second time, and the later of
                // the two could undo what was done in between.
                self.finish(now, id, pending, Err(Failure::TimedOut));
            }
            Stage::Forwarding { tried, .. } => {
                let tried = std::mem::take(tried);
                self.forward(now, id, pending, tried);
            }
            Stage::Reading(_) => self.judge_reading(now, id, pending),
            Stage::Writing(_) => {
                self.hint(pending.table, node, &pending.request.key);
                self.judge_writing(now, id, pending);
            }
            Stage::Done => {}
        }
    }

    pub(super) fn on_out_of_patience(&mut self, now: Now, id: u64) {
        let Some(mut pending) = self.pending.remove(&id) else { return };
        self.counters.add("requests_out_of_patience");
        let is_write = pending.request.operation != Operation::Get;
        let failure = match &pending.stage {
            Stage::Reading(reading) => {
                let homes = reading.homes.len();
                let answered = reading.answers.keys().filter(|n| reading.homes.contains(n)).count();
                let needed = majority(homes) as u8;
                Failure::Unavailable { answered: answered as u8, needed, homes: homes as u8 }
            }
            _ if is_write => Failure::TimedOut,
            _ => Failure::Unavailable { answered: 0, needed: 1, homes: 0 },
        };
        if let Stage::Writing(writing) = &mut pending.stage {
            // The homes that have not answered may still: the calls have deadlines of their own.
            let answered = std::mem::replace(&mut writing.answered, true);
            if !answered {
                self.answer_all(now, &mut pending, Err(failure));
            }
            self.pending.insert(id, pending);
            return;
        }
        self.pending_bytes -= pending.size;
        self.answer_all(now, &mut pending, Err(failure));
    }

    // Answers.

    fn finish(
        &mut self,
        now: Now,
        id: u64,
        mut pending: Pending,
        outcome: Result<SessionReply, Failure>,
    ) {
        self.pending_deadlines.remove(&(pending.deadline, id));
        self.pending_bytes -= pending.size;
        // Copies that are still on their way to homes become hints, should they fail.
        if let Stage::Writing(writing) = std::mem::replace(&mut pending.stage, Stage::Done) {
            for home in writing.waiting.into_values() {
                self.hint(pending.table, home, &pending.request.key);
            }
        }
        self.answer_all(now, &mut pending, outcome);
    }

    fn answer_all(
        &mut self,
        now: Now,
        pending: &mut Pending,
        outcome: Result<SessionReply, Failure>,
    ) {
        let may_repeat = pending.request.request.may_repeat();
        if may_repeat {
            self.unanswered.remove(&pending.request.request);
        }
        let reply = outcome.unwrap_or_else(SessionReply::Failed);
        let definite = !matches!(
            &reply,
            SessionReply::Session(_)
                | SessionReply::Failed(Failure::Unavailable { .. } | Failure::TimedOut)
        );
        if definite && may_repeat && pending.request.operation != Operation::Get {
            self.replies.insert(now.monotonic, pending.request.request, reply.clone());
        }
        if let SessionReply::Failed(failure) = &reply {
            self.counters.add(failure_counter(failure));
        }
        for (asker, id) in std::mem::take(&mut pending.askers) {
            self.reply(now, asker, id, reply.clone());
        }
    }

    pub(super) fn reply_session(
        &mut self,
        now: Now,
        asker: Asker,
        id: u64,
        outcome: Result<SessionReply, Failure>,
    ) {
        let reply = outcome.unwrap_or_else(SessionReply::Failed);
        if let SessionReply::Failed(failure) = &reply {
            self.counters.add(failure_counter(failure));
        }
        self.reply(now, asker, id, reply);
    }
}

impl Stage {
    fn into_writing(self) -> Writing {
        match self {
            Self::Writing(writing) => writing,
            _ => unreachable!("the caller has just seen that this is a write"),
        }
    }

    fn into_reading(self) -> Reading {
        match self {
            Self::Reading(reading) => reading,
            _ => unreachable!("the caller has just seen that this is a read"),
        }
    }
}

fn size(request: &SessionRequest) -> usize {
    let value = match &request.operation {
        Operation::Start { value, .. } => value.size(),
        Operation::Update { change: Change::Value(value), .. } => value.size(),
        Operation::Update { change: Change::Fields { set, delete }, .. } => {
            let set = set.iter().map(|(name, value)| name.len() + value.len());
            set.chain(delete.iter().map(Vec::len)).sum()
        }
        _ => 0,
    };
    value + REQUEST_OVERHEAD_BYTES
}

/// Whether one copy is enough to act on. It is not enough to say *expired*, since a touch may have
/// reached others, nor *ended* to somebody who knows of a newer session.
fn is_answer(operation: &Operation, entry: &Entry, now_ms: u64) -> bool {
    let meant = operation.birth();
    !entry.is_expired(now_ms) && meant.is_none_or(|birth| birth <= entry.birth)
}

/// The deadlines that a session gets: idle time in milliseconds, and end in hybrid milliseconds.
/// The table's cap counts from the birth and is never exceeded.
fn lease(policy: &TablePolicy, lifetimes: &Lifetimes, birth_ms: u64, now_ms: u64) -> (u64, u64) {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let idle = lifetimes.idle_ms.unwrap_or(ms(policy.idle)).min(LIFETIME_MS_MAX);
    let cap = match ms(policy.lifetime_max) {
        0 => 0,
        cap => birth_ms.saturating_add(cap),
    };
    let expire_at = match (lifetimes.lifetime_ms.unwrap_or(0).min(LIFETIME_MS_MAX), cap) {
        (0, cap) => cap,
        (lifetime, 0) => now_ms.saturating_add(lifetime),
        (lifetime, cap) => now_ms.saturating_add(lifetime).min(cap),
    };
    (idle, expire_at)
}

/// A thousand years: a record keeps 48 bits of milliseconds.
const LIFETIME_MS_MAX: u64 = 1_000 * 365 * 24 * 3_600_000;

/// What can be refused without looking at the session.
fn check(policy: &TablePolicy, operation: &Operation) -> Result<(), Failure> {
    let limit = u64::from(policy.max_value);
    let refuse = |why: String| Err(Failure::Refused(why));
    let check_size = |size: usize| match size as u64 {
        size if size > limit => Err(Failure::TooLarge { size, limit }),
        _ => Ok(()),
    };
    let check_names = |longest: Option<usize>| match longest {
        Some(length) if length > FIELD_NAME_BYTES_MAX => refuse(format!(
            "a field's name has {length} bytes, at most {FIELD_NAME_BYTES_MAX} are possible"
        )),
        _ => Ok(()),
    };
    let check_value = |value: &Value| {
        check_size(value.size())?;
        match value {
            Value::Bytes(_) => Ok(()),
            Value::Map(fields) => check_names(fields.keys().map(Vec::len).max()),
        }
    };
    match operation {
        Operation::Start { value, attributes, .. } => {
            if attributes.owner.len() > OWNER_BYTES_MAX {
                let length = attributes.owner.len();
                return refuse(format!(
                    "the owner has {length} bytes, at most {OWNER_BYTES_MAX} are possible"
                ));
            }
            if attributes.replicas != 0 {
                return refuse("replicas per session are not supported yet".to_owned());
            }
            check_value(value)
        }
        Operation::Update { change: Change::Value(value), .. } => check_value(value),
        Operation::Update { change: Change::Fields { set, delete }, .. } => {
            check_size(set.iter().map(|(name, value)| name.len() + value.len()).sum())?;
            check_names(set.keys().chain(delete).map(Vec::len).max())
        }
        _ => Ok(()),
    }
}

/// What a client is told that no version can be had: a disk that is slow for a moment is worth
/// asking again.
fn no_stamp(trouble: NoStamp, homes: usize) -> Failure {
    match trouble {
        NoStamp::NotPersisted => {
            Failure::Unavailable { answered: 0, needed: 1, homes: homes as u8 }
        }
        other => Failure::Refused(other.to_string()),
    }
}

fn failure_counter(failure: &Failure) -> &'static str {
    match failure {
        Failure::Absent => "failures_absent",
        Failure::Ended => "failures_ended",
        Failure::Expired => "failures_expired",
        Failure::Unavailable { .. } => "failures_unavailable",
        Failure::TooLarge { .. } => "failures_too_large",
        Failure::TableFull { .. } => "failures_table_full",
        Failure::Refused(_) => "failures_refused",
        _ => "failures_timed_out",
    }
}
