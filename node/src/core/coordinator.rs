//! Requests about sessions: forward them to a home, or coordinate them there.
//!
//! A home that coordinates stamps a write, merges it into its own store, sends it to the other homes
//! at the same time and answers when enough of them hold it. It never waits for the failure
//! detector: a home that does not answer is left with a hint. Reads come from the home's own memory
//! while it is in sync; a home that is not, and one that has nothing under the key, asks the others.

use std::collections::BTreeMap;
use std::time::Duration;

use annulus_proto::limits::{FIELD_NAME_BYTES_MAX, OWNER_BYTES_MAX, REPLICAS_MAX, VALUE_BYTES_MAX};
use annulus_proto::message::{
    Acknowledged, Change, Failure, Fetch, Fresh, Lifetimes, Message, Operation, Replicate,
    Replicated, RequestId, Rewrite, Session, SessionReply, SessionRequest, TouchCopy,
};
use annulus_proto::{Attributes, Entry, Key, NodeId, Slot, Value, Version};
use annulus_shm::Admission;
use annulus_slots::{Config, EpochId};

use super::ballot::{Promising, UNWILLING, unavailable};
use super::calls::Purpose;
use super::epochs::wire::name;
use super::io::{Asker, Caller, Now};
use super::merging::name_among_clients;
use super::near::NearRead;
use super::owner_limit::CountId;
use super::placing::Extras;
use super::promotion::told_to_wait;
use super::replacing::ToEnd;
use super::settings::{Flaw, Partition, ReadFrom, majority};
use super::time::NoStamp;
use super::{Core, TablePolicy};

/// A request that waits for other nodes.
pub(super) struct Pending {
    askers: Vec<(Asker, u64)>,
    pub(super) table: usize,
    pub(super) slot: Slot,
    pub(super) request: SessionRequest,
    pub(super) deadline: Duration,
    /// What it counts against the bound on waiting requests, in bytes.
    size: usize,
    pub(super) rounds: u8,
    /// How often a plain write was tried again since those who decide knew another epoch.
    unknown: u8,
    /// Its own number, while it stands in the line of its slot's conditional operations.
    pub(super) in_line: Option<u64>,
    /// What its next ballot has to beat.
    pub(super) above: Version,
    /// The version of its conditional write, once that may be held somewhere.
    pub(super) wrote: Option<Version>,
    /// The table that a session is brought into, if that is what this is for. Nobody asks for it then.
    pub(super) brings: Option<usize>,
    /// Whether it notes a verdict, which is not begun anew: what it would do is not in its request.
    pub(super) is_verdict: bool,
    /// The session that this is to end since another one was begun in its place. Nobody asks for it then.
    to_end: Option<ToEnd>,
    /// The count that this is to end a session for, since its owner has too many. Nobody asks for it then.
    for_count: Option<CountId>,
    /// Whether its owner may have the session that it is to begin.
    pub(super) is_counted: bool,
    /// Until when it is held at most, since its session is a suspect.
    pub(super) held_until: Option<Duration>,
    /// Whether all rings further out were asked, and had nothing.
    pub(super) is_nowhere_else: bool,
    /// Whether a write of it was sent out, which may count yet.
    pub(super) is_sent: bool,
    /// Whether it had to wait for room.
    pub(super) is_slowed: bool,
    /// Whether what it wrote is later than what rings further out may hold, and they are to be told.
    outdoes_others: bool,
    /// How many bytes of its session may come in for it.
    pub(super) granted: usize,
    pub(super) stage: Stage,
}

pub(super) enum Stage {
    Forwarding {
        call: u64,
        tried: Vec<NodeId>,
    },
    /// Others of its slot are before it.
    Queued,
    Promising(Promising),
    /// What stands in the way may be gone in a moment.
    Pausing,
    /// There is no room for what it writes.
    ShortOfRoom {
        /// When it looks for it again.
        again: Duration,
    },
    /// Its session lies further out, and others are to come in before it.
    InLineToComeIn,
    /// Its session is a suspect.
    Held,
    /// The sessions of its owner are counted.
    BeingCounted,
    /// Its session is looked for on other rings.
    BringingIn,
    Reading(Reading),
    /// It is read from those who say when it changes.
    ReadingNear(NearRead),
    Writing(Box<Writing>),
    /// It was done at another node, and is fetched from there before the answer goes out.
    CatchingUp {
        call: u64,
        reply: SessionReply,
    },
    Done,
}

/// What a write is to its homes.
pub(super) enum WriteKind {
    /// The time of last use alone.
    Touch,
    /// An end that is stored here already.
    Known,
    /// A session that was on another ring.
    Moved,
    /// What is noted of a session beside its value.
    Noted,
    /// A new write.
    Plain {
        /// The version of the write that set the same bytes before, if this sets them again: homes that have that need not
        /// be sent them.
        same_as: Option<Version>,
    },
    /// What a ballot decided.
    Decided {
        /// The ballot.
        ballot: Version,
        /// What is answered once a majority holds it: birth and version of what was done before, or why
        /// nothing was done; `None` = that this was done.
        then: Option<Result<(Version, Version), Failure>>,
    },
    /// The tombstone of a session that a ballot decided to end.
    Ended,
}

/// What the homes said that were asked for an entry.
#[derive(Default)]
pub(super) struct Reading {
    homes: Vec<NodeId>,
    asked: Vec<NodeId>,
    waiting: BTreeMap<u64, NodeId>,
    answers: BTreeMap<NodeId, Option<Entry>>,
    synced_homes: usize,
    /// How many of those asked did not answer.
    silent: usize,
    /// The epoch whose homes are asked, if they are those that decide, and nobody stands in for them.
    under: Option<EpochId>,
    /// How many of the homes are enough.
    needed: usize,
    /// Whether one of them knows another epoch.
    met_other_epoch: bool,
    /// Whether none counts that is not in sync, so that nothing is missed that was acknowledged.
    knows_all: bool,
    /// When they were asked.
    began: Duration,
}

/// Who holds a write so far.
pub(super) struct Writing {
    entry: Entry,
    kind: WriteKind,
    homes: Vec<NodeId>,
    needed: usize,
    held_by: usize,
    /// Those besides the homes that are to hold it, the first of which count.
    extras: Vec<NodeId>,
    counted: usize,
    /// Whether this node is one more of those that count.
    is_counted: bool,
    /// How many of those that count hold it, and how many have to, the homes included.
    extras_held: usize,
    needed_with_extras: usize,
    /// Whether a majority of the epoch's homes has to hold it, too. If not, it is to as long as one may.
    decides: bool,
    /// The epoch, if that counts and is known, its homes then, and how many of them have to hold it.
    under: Option<EpochId>,
    decision: Vec<NodeId>,
    decisive: usize,
    decided_by: usize,
    waiting: BTreeMap<u64, NodeId>,
    failure: Option<Failure>,
    /// The greatest ballot that a home had promised, and so does not hold it.
    floor: Option<Version>,
    /// Whether one of them said that it is no home.
    met_no_home: bool,
    /// Whether one of them knows another epoch.
    met_other_epoch: bool,
    answered: bool,
}

/// How often a request may be passed on.
const HOPS_MAX: u8 = 3;
/// How often a coordinator starts anew because a home knew a newer session.
const ROUNDS_MAX: u8 = 4;
/// How often a plain write is tried again so that those who decide know of it.
const UNKNOWN_MAX: u8 = 16;
/// The most bytes of requests that wait, in all cores: each is held up to three times, here and on its way.
const PENDING_BYTES_MAX: usize = 64 << 20;
/// What each core may hold in any case: a few of the largest.
const PENDING_BYTES_MIN: usize = 4 * (VALUE_BYTES_MAX + REQUEST_OVERHEAD_BYTES);
/// What a condition about a field takes beside its name.
const CONDITION_BYTES: usize = 48;
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
    pub(super) fn begin(
        &mut self,
        now: Now,
        (asker, caller): (Asker, Caller),
        id: u64,
        mut request: SessionRequest,
    ) {
        debug_assert!(self.owns(request.key.slot()));
        self.counters.add(match request.operation {
            Operation::Start { .. } => "requests_start",
            Operation::Get => "requests_get",
            Operation::Update { .. } => "requests_update",
            Operation::Touch { .. } => "requests_touch",
            Operation::UpdateIf { .. } => "requests_update_if",
            Operation::UpdateFieldsIf { .. } => "requests_update_fields_if",
            Operation::StartIfAbsent { .. } => "requests_start_if_absent",
            Operation::EndIf { .. } => "requests_end_if",
            Operation::StartInstead { .. } => "requests_start_instead",
            Operation::Put { .. } => "requests_put",
            _ => "requests_end",
        });
        let may_repeat = request.operation != Operation::Get && request.request.may_repeat();
        if may_repeat && let Some(reply) = self.replies.get(request.request).cloned() {
            self.counters.add("requests_repeated");
            return self.reply(now, asker, id, reply);
        }
        let under_way = self.unanswered.get(&request.request).filter(|_| may_repeat).copied();
        if let Some(number) = under_way
            && let Some(pending) = self.pending.get(&number)
        {
            self.counters.add("requests_repeated");
            let is_back = pending.was_passed_to(caller);
            if is_back && request.operation.is_conditional() && !self.may_decide(now, pending) {
                // Whoever passed it back goes on looking, and whoever asked here first waits for what comes of that:
                // that nothing was begun is not to be said to both.
                return self.reply_session(now, asker, id, Err(UNWILLING));
            }
            let Some(pending) = self.pending.get_mut(&number) else { return };
            if pending.askers.len() >= ASKERS_MAX {
                pending.askers.remove(0);
            }
            pending.askers.push((asker, id));
            return self.take_back(now, number, caller, request.hops);
        }
        if self.stopping {
            return self.reply_session(now, asker, id, Err(UNWILLING));
        }
        let Some(table) = self.table_asked_for(caller, &request.table) else {
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
        if let Caller::Client(_) = caller
            && let Some(failure) = self.count_request(now, table, asker, &request)
        {
            return self.reply_session(now, asker, id, Err(failure));
        }
        request.table.clone_from(&self.tables[table].store.policy().name);
        let patience = patience_of(request.patience_ms);
        let repeated = request.request;
        let (number, pending) = self.open_pending(now.monotonic + patience, table, request);
        if may_repeat {
            self.unanswered.insert(repeated, number);
        }
        self.pending_bytes += size;
        let mut pending = pending.asked_by(asker, id);
        pending.size = size;
        self.route(now, number, pending);
    }

    /// What is begun for a request, with its number; nobody asks for it yet.
    pub(super) fn open_pending(
        &mut self,
        deadline: Duration,
        table: usize,
        request: SessionRequest,
    ) -> (u64, Box<Pending>) {
        self.pending_next += 1;
        self.pending_deadlines.insert((deadline, self.pending_next));
        let pending = Pending {
            askers: Vec::new(),
            table,
            slot: request.key.slot(),
            request,
            deadline,
            size: 0,
            rounds: 0,
            unknown: 0,
            in_line: None,
            above: Version::ZERO,
            wrote: None,
            brings: None,
            is_verdict: false,
            to_end: None,
            for_count: None,
            is_counted: false,
            held_until: None,
            is_nowhere_else: false,
            is_sent: false,
            is_slowed: false,
            outdoes_others: false,
            granted: 0,
            stage: Stage::Done,
        };
        (self.pending_next, Box::new(pending))
    }

    /// The same for a request of this node's own, which nobody repeats.
    pub(super) fn open_own(
        &mut self,
        now: Now,
        table: usize,
        key: Key,
        operation: Operation,
        patience_ms: u32,
    ) -> (u64, Box<Pending>) {
        let request = SessionRequest {
            table: self.tables[table].store.policy().name.clone(),
            key,
            request: RequestId::NONE,
            hops: 0,
            patience_ms,
            operation,
        };
        self.open_pending(now.monotonic + patience_of(patience_ms), table, request)
    }

    pub(super) fn route(&mut self, now: Now, id: u64, pending: Box<Pending>) {
        if pending.brings.is_some() {
            // Those who wait begin anew.
            return self.finish(now, id, pending, Err(UNWILLING));
        }
        if pending.is_verdict {
            return self.finish(now, id, pending, Err(Failure::TimedOut));
        }
        let Some(pending) = self.let_pass(now, id, pending) else { return };
        if pending.request.operation.is_conditional() {
            return self.route_conditional(now, id, pending);
        }
        let is_of_host =
            |asker: &(Asker, u64)| matches!(asker.0, Asker::Local(_) | Asker::Lane { .. });
        let reads_near = self.tables[pending.table].store.policy().read == ReadFrom::Near;
        if pending.request.operation == Operation::Get
            && reads_near
            && pending.askers.iter().all(is_of_host)
            && let Some(entry) = self.inherited(now, pending.table, &pending.request.key)
        {
            return self.apply(now, id, pending, Some(entry));
        }
        let homes = self.homes(pending.table, pending.slot);
        let is_write = pending.request.operation != Operation::Get;
        let trouble = if is_write { self.time.can_stamp(now).err() } else { None };
        let takes_it = homes.contains(&self.id())
            || is_write && self.has(Flaw::StoresAsNoHome)
            || self.coordinates_as_extra(now, &pending);
        if takes_it && trouble.is_none() {
            return self.coordinate(now, id, pending);
        }
        let pending = match takes_it {
            true => pending,
            false => {
                let Some(pending) = self.read_near(now, id, pending) else { return };
                pending
            }
        };
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
    pub(super) fn forward(
        &mut self,
        now: Now,
        id: u64,
        mut pending: Box<Pending>,
        mut tried: Vec<NodeId>,
    ) {
        if pending.is_verdict {
            return self.finish(now, id, pending, Err(Failure::TimedOut));
        }
        let is_conditional = pending.request.operation.is_conditional();
        let homes = match is_conditional {
            true => self.deciders(pending.table, pending.slot),
            false => self.homes(pending.table, pending.slot),
        };
        let me = self.id();
        // The dead are among those that decide.
        let untried =
            |home: &&NodeId| **home != me && !tried.contains(home) && self.is_active(**home);
        let mut candidates: Vec<NodeId> = homes.iter().filter(untried).copied().collect();
        let is_read = pending.request.operation == Operation::Get;
        // Equally far ones stay in the order of the ring, which spreads the load.
        let step = |home: &NodeId| self.proximity.get(home).copied().unwrap_or(u8::MAX);
        candidates.sort_by_key(|home| {
            (self.is_doubtful(now, *home), if is_read { step(home) } else { 0 })
        });
        let next = candidates.first().copied().filter(|_| pending.request.hops < HOPS_MAX);
        let Some(home) = next else {
            if is_conditional && self.may_decide(now, &pending) {
                return self.stand_in_line(now, id, pending);
            }
            if is_conditional {
                return self.decide_nothing(now, id, pending);
            }
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

    /// Begins with a request that comes back from the node it was passed on to: that one is no home any more, or
    /// met the request twice. It waits for this node now, which must not wait for it.
    fn take_back(&mut self, now: Now, id: u64, caller: Caller, hops: u8) {
        let Some(pending) = self.pending.get(&id).filter(|it| it.was_passed_to(caller)) else {
            return;
        };
        let Stage::Forwarding { call, .. } = pending.stage else { return };
        self.counters.add("requests_taken_back");
        self.calls.close(call);
        let Some(mut pending) = self.pending.remove(&id) else { return };
        pending.request.hops = hops;
        self.route(now, id, pending);
    }

    fn coordinate(&mut self, now: Now, id: u64, pending: Box<Pending>) {
        let refuses = self.tables[pending.table].store.policy().partition == Partition::Refuse;
        if refuses && !pending.request.operation.is_end() {
            let Some(config) = self.epoch(pending.table, pending.slot) else {
                return self.pause(now, id, pending);
            };
            if !self.is_majority_in_contact(now, config) {
                // A write would stay here, and come up at healing though nobody was told that it counts.
                let homes = config.homes.len();
                return self.finish(now, id, pending, Err(unavailable(1, homes)));
            }
        }
        let Some(pending) = self.let_pass_owner(now, id, pending) else { return };
        let now_ms = self.time.now_ms(now);
        let key = &pending.request.key;
        let policy = self.tables[pending.table].store.policy();
        let asks_homes =
            policy.read == ReadFrom::Home && pending.request.operation == Operation::Get;
        let vouches = !asks_homes
            && (self.vouches(now, pending.table, pending.slot)
                || self.trusts_extra(now, pending.table, pending.slot, key));
        let stored = self.tables[pending.table].store.get(&pending.request.key, now_ms);
        match (&pending.request.operation, stored) {
            (operation, stored) if operation.replaces_all() => self.apply(now, id, pending, stored),
            // Its homes know better where it is than a marker, if it is nowhere further out.
            (_, Some(entry)) if entry.is_marker() && pending.is_nowhere_else => {
                self.start_reading(now, id, pending, refuses);
            }
            (operation, Some(entry)) if vouches && is_answer(operation, &entry, now_ms) => {
                self.apply(now, id, pending, Some(entry));
            }
            _ => self.start_reading(now, id, pending, refuses),
        }
    }

    /// Does what was asked, knowing what is stored.
    pub(super) fn apply(
        &mut self,
        now: Now,
        id: u64,
        pending: Box<Pending>,
        stored: Option<Entry>,
    ) {
        // A session that begins is a later one than whatever is elsewhere.
        if !pending.request.operation.replaces_all() && self.is_elsewhere(&pending, stored.as_ref())
        {
            return self.bring_in(now, id, pending);
        }
        let passed = self.let_pass_with(now, id, pending, stored.as_ref());
        let Some(pending) = passed else { return };
        let now_ms = self.time.now_ms(now);
        let policy = self.tables[pending.table].store.policy().clone();
        let operation = &pending.request.operation;
        if operation.replaces_all() || begins(operation, stored.as_ref(), now_ms) {
            let after =
                stored.as_ref().map_or(Version::ZERO, |entry| entry.version.max(entry.birth));
            let birth = match self.stamp(now, pending.table, pending.slot, after) {
                Ok(birth) => birth,
                Err(trouble) => return self.on_no_stamp(now, id, pending, trouble),
            };
            if let Some(entry) = begun(&policy, operation, birth, now_ms) {
                let kind = WriteKind::Plain { same_as: None };
                return self.start_writing(now, id, pending, entry, kind);
            }
        }
        // A marker of what nobody has any more is nothing.
        let Some(stored) = stored.filter(|entry| !entry.is_marker()) else {
            return self.finish(now, id, pending, Err(Failure::Absent));
        };
        let is_it = |birth| birth == stored.birth || self.has(Flaw::IgnoresBirths);
        let meant = operation.birth().is_none_or(is_it);
        let is_end = matches!(operation, Operation::End { .. });
        let Some(body) = stored.body.as_ref().filter(|_| meant) else {
            if is_end && meant {
                // Ended already; what counts is that a majority of homes knows.
                return self.start_writing(now, id, pending, stored, WriteKind::Known);
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
                    idle: body.lease.idle,
                    expire_at: body.lease.expire_at,
                    attributes: body.attributes.clone(),
                    pin: body.pin(),
                    value: body.value(now_ms),
                    field_deadlines: body.field_deadlines(),
                };
                let store = &mut self.tables[pending.table].store;
                store.note_read(&pending.request.key, now_ms);
                return self.finish(now, id, pending, Ok(SessionReply::Session(session)));
            }
            Operation::Touch { .. } => {
                entry.touch(now_ms);
                return self.start_writing(now, id, pending, entry, WriteKind::Touch);
            }
            _ => {}
        }
        let version = match self.stamp(now, pending.table, pending.slot, stored.version) {
            Ok(version) => version,
            Err(trouble) => return self.on_no_stamp(now, id, pending, trouble),
        };
        match operation {
            Operation::Put { value, .. }
            | Operation::Update {
                change: Change::Value(value) | Change::Whole(value, _), ..
            } => {
                let store = &mut self.tables[pending.table].store;
                if let Err(failure) = store.write_value(&mut entry, version, value.clone()) {
                    return self.finish(now, id, pending, Err(failure));
                }
                if let Some(lifetimes) = lifetimes_beside(operation) {
                    let (idle, expire_at) = new_lease(&policy, lifetimes, &stored, now_ms);
                    entry.write_lease(version, idle, expire_at);
                }
                entry.touch(now_ms);
            }
            Operation::Update { change: Change::Fields { set, delete }, .. } => {
                if !body.has_fields() {
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
                let (idle, expire_at) = new_lease(&policy, lifetimes, &stored, now_ms);
                entry.write_lease(version, idle, expire_at);
                entry.touch(now_ms);
            }
            Operation::Update { change: Change::Pin(node), .. } => {
                if let Some(failure) = node.and_then(|node| self.cannot_pin(node)) {
                    return self.finish(now, id, pending, Err(failure));
                }
                entry.write_pin(version, *node);
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
        let same_as = match operation {
            Operation::Put { value, .. }
            | Operation::Update {
                change: Change::Value(value) | Change::Whole(value, _), ..
            } if policy.merge.is_none() && !body.has_fields() => {
                let is_same = matches!(value, Value::Bytes(bytes) if *bytes == body.base.bytes);
                is_same.then_some(body.base.version)
            }
            _ => None,
        };
        self.start_writing(now, id, pending, entry, WriteKind::Plain { same_as });
    }

    fn on_no_stamp(&mut self, now: Now, id: u64, pending: Box<Pending>, trouble: NoStamp) {
        let floor = self.slot_state(pending.table, pending.slot).floor;
        let is_ahead = floor.hlc.ms() > self.time.now_ms(now) || self.time.can_stamp(now).is_ok();
        if trouble == NoStamp::NotPersisted && is_ahead {
            // What was promised is ahead of what is on disk here, or what is stored, as what a node stamps that has just
            // restarted: it goes on after its ceiling. This one's has been asked for, and soon is far enough.
            return self.pause(now, id, pending);
        }
        let homes = self.homes(pending.table, pending.slot).len();
        self.finish(now, id, pending, Err(no_stamp(trouble, homes)));
    }

    // Writing.

    pub(super) fn start_writing(
        &mut self,
        now: Now,
        id: u64,
        mut pending: Box<Pending>,
        entry: Entry,
        kind: WriteKind,
    ) {
        let key = pending.request.key.clone();
        let extras = self.extra_homes_of_change(now, &pending, &entry);
        let Extras { nodes: extras, counted, is_counted } = extras;
        let begins_or_ends = entry.is_ended() || pending.request.operation.replaces_all();
        let outdoes_others = begins_or_ends && self.may_be_further_out(now, pending.table, &key);
        let stored = match self.is_to_wait_for_room(now, (id, &pending), &key, &entry) {
            true => Err(Failure::TableFull { node: self.id() }),
            false => self.merge(now, pending.table, &key, &entry, Admission::Ordinary),
        };
        if outdoes_others && stored.is_ok() {
            // What is there is all that there is until enough hold what begins here.
            match entry.is_ended() {
                true => self.tell_further_out(now, pending.table, &key, &entry),
                false => pending.outdoes_others = true,
            }
        }
        pending.is_sent |= stored.is_ok();
        if let Err(failure) = stored {
            if self.holds_extra(&pending) {
                // The homes may have the room that is missing here.
                return self.forward(now, id, pending, Vec::new());
            }
            if !self.is_home(pending.table, pending.slot) {
                return self.begin_elsewhere(now, id, pending);
            }
            return self.wait_for_room(now, id, pending, failure);
        }
        if let WriteKind::Decided { ballot, then: None } = kind {
            pending.wrote = Some(ballot);
        }
        let (table, slot) = (pending.table, pending.slot);
        let homes = self.homes(table, slot);
        let policy = self.tables[table].store.policy();
        let needed = match kind {
            // Others drop theirs then.
            WriteKind::Moved => policy.write.count(homes.len()).max(majority(homes.len())),
            _ => policy.write.count(homes.len()),
        };
        let needed_with_extras = match counted + usize::from(is_counted) {
            0 => needed,
            others => needed.max(majority(homes.len() + others)),
        };
        let decides = self.is_decided(&pending);
        let config = self.epoch(table, slot).cloned();
        let config = config.filter(|config| {
            let is_plain = matches!(kind, WriteKind::Plain { .. }) && pending.unknown < UNKNOWN_MAX;
            decides || is_plain && self.is_to_be_known(now, &homes, needed, config)
        });
        let under = config.as_ref().map(|config| config.id);
        let decisive = match &config {
            Some(config) => self.majority_of(config),
            None => usize::from(decides),
        };
        let decision = config.map_or(Vec::new(), |config| config.homes.clone());
        let me = self.id();
        let counts = under.is_some_and(|under| self.may_store(table, slot, under).is_ok());
        let unsaved = decision.contains(&me) && !self.is_saved_seat(table, slot);
        let mut writing = Writing {
            entry,
            kind,
            needed,
            // The view may have changed while this request waited.
            held_by: usize::from(homes.contains(&me) || self.has(Flaw::StoresAsNoHome)),
            decides,
            under,
            decisive,
            decided_by: usize::from(counts),
            extras,
            counted,
            is_counted,
            extras_held: usize::from(is_counted),
            needed_with_extras,
            homes,
            decision,
            waiting: BTreeMap::new(),
            failure: None,
            floor: None,
            met_no_home: false,
            // One's own seat that is not on disk is soon.
            met_other_epoch: unsaved,
            answered: false,
        };
        for at in 0..writing.homes.len() {
            let home = writing.homes[at];
            if home != me {
                self.send_copy(now, id, &pending, &mut writing, home, false);
            }
        }
        for at in 0..writing.decision.len() {
            let home = writing.decision[at];
            if home != me && !writing.homes.contains(&home) && self.is_active(home) {
                self.send_copy(now, id, &pending, &mut writing, home, false);
            }
        }
        for at in 0..writing.extras.len() {
            let extra = writing.extras[at];
            if !writing.homes.contains(&extra) && !writing.decision.contains(&extra) {
                self.send_copy(now, id, &pending, &mut writing, extra, false);
            }
        }
        pending.stage = Stage::Writing(Box::new(writing));
        self.judge_writing(now, id, pending);
    }

    /// Whether a plain write is to be held by a majority of those who decide, too: so it is where the homes are those, and as
    /// many of them hold it as conditional operations ask. While a slot's homes change they are others, and what such an operation
    /// has not heard of it takes the place of. Where that majority is away there is none of them.
    fn is_to_be_known(&self, now: Now, homes: &[NodeId], needed: usize, config: &Config) -> bool {
        let are_others = config.homes.len() != homes.len()
            || config.homes.iter().any(|home| !homes.contains(home));
        are_others && needed >= majority(homes.len()) && self.is_majority_in_contact(now, config)
    }

    /// Whether an operation needs a majority of those who decide.
    fn is_decided(&self, pending: &Pending) -> bool {
        let operation = &pending.request.operation;
        let policy = self.tables[pending.table].store.policy();
        operation.is_end() || operation.is_conditional() || policy.partition == Partition::Refuse
    }

    fn send_copy(
        &mut self,
        now: Now,
        id: u64,
        pending: &Pending,
        writing: &mut Writing,
        home: NodeId,
        whole: bool,
    ) {
        let (table, key) = (pending.request.table.clone(), pending.request.key.clone());
        let entry = writing.entry.clone();
        let fresh = match writing.kind {
            WriteKind::Touch
            | WriteKind::Known
            | WriteKind::Moved
            | WriteKind::Noted
            | WriteKind::Ended => Fresh::No,
            WriteKind::Plain { .. } => Fresh::Yes,
            WriteKind::Decided { ballot, .. } if ballot == entry.version => Fresh::Yes,
            WriteKind::Decided { ballot, .. } => Fresh::By(ballot),
        };
        // Whoever does not decide counts whatever it knows of epochs, unless all is about a decision.
        let is_asked = writing.decides || writing.decision.contains(&home);
        let under = writing.under.filter(|_| is_asked).map(name);
        let message: Message = match (&writing.kind, &entry.body) {
            (WriteKind::Touch, Some(body)) if !whole => {
                let (birth, version, touched) = (entry.birth, entry.version, body.touched);
                TouchCopy { table, key, birth, version, touched, under }.into()
            }
            (WriteKind::Plain { same_as: Some(same_as) }, Some(_)) if !whole => {
                let (mut copy, same_as) = (Replicate { table, key, entry, fresh, under }, *same_as);
                if let Some(body) = &mut copy.entry.body {
                    body.base.bytes = Vec::new();
                }
                self.counters.add("rewrites_sent");
                Rewrite { copy, same_as }.into()
            }
            _ => Replicate { table, key, entry, fresh, under }.into(),
        };
        match self.call(now, home, Purpose::Pending(id), message) {
            Some(call) => {
                writing.waiting.insert(call, home);
            }
            None => self.hint(pending.table, home, &pending.request.key),
        }
    }

    fn judge_writing(&mut self, now: Now, id: u64, mut pending: Box<Pending>) {
        let Stage::Writing(writing) = &mut pending.stage else { return };
        let decisive = writing.decisive;
        let waiting_of =
            |homes: &[NodeId]| writing.waiting.values().filter(|home| homes.contains(home)).count();
        let (homes, decision) = (writing.homes.len(), writing.decision.len());
        let held = writing.held_by + writing.extras_held;
        let counted = &writing.extras[..writing.counted];
        let outcome = if writing.answered {
            None
        } else if writing.held_by >= writing.needed
            && held >= writing.needed_with_extras
            && writing.decided_by >= decisive
        {
            match writing.kind {
                WriteKind::Decided { .. } if writing.entry.is_ending() => {
                    let ending = writing.entry.clone();
                    return self.end_for_good(now, id, pending, &ending);
                }
                WriteKind::Ended if pending.wrote != Some(writing.entry.version) => {
                    return self.after_end(now, id, pending);
                }
                _ => Some(writing.success()),
            }
        } else if writing.held_by + waiting_of(&writing.homes) < writing.needed {
            let (answered, needed) = (writing.held_by as u8, writing.needed as u8);
            Some(Err(Failure::Unavailable { answered, needed, homes: homes as u8 }))
        } else if held + waiting_of(&writing.homes) + waiting_of(counted)
            < writing.needed_with_extras
        {
            let (answered, needed) = (held as u8, writing.needed_with_extras as u8);
            let homes = (homes + counted.len()) as u8;
            Some(Err(Failure::Unavailable { answered, needed, homes }))
        } else if writing.decided_by + waiting_of(&writing.decision) < decisive {
            let may_be_yet =
                writing.failure.is_none() && (writing.met_other_epoch || writing.floor.is_some());
            if !writing.decides && !may_be_yet {
                // They are gone, and nothing is decided without them.
                writing.decisive = 0;
                return self.judge_writing(now, id, pending);
            }
            Some(Err(unavailable(writing.decided_by, decision)))
        } else {
            None
        };
        if let (Some(Err(Failure::Unavailable { .. })), Some(floor), None) =
            (&outcome, writing.floor, &writing.failure)
        {
            return self.on_promised_elsewhere(now, id, pending, floor);
        }
        let may_become_known = writing.decides && writing.under.is_none();
        let seen_otherwise = writing.met_no_home || writing.met_other_epoch || may_become_known;
        if let (Some(Err(Failure::Unavailable { .. })), true, None) =
            (&outcome, seen_otherwise, &writing.failure)
        {
            // What those who decide were to know besides is not asked of them for ever.
            pending.unknown += u8::from(!writing.decides && writing.under.is_some());
            return self.on_other_homes(now, id, pending);
        }
        if let (Some(Err(Failure::Unavailable { .. })), Some(Failure::TableFull { .. })) =
            (&outcome, &writing.failure)
            && pending.brings.is_none()
            && self.makes_room(now, pending.table)
        {
            return self.on_full_homes(now, id, pending);
        }
        let outcome = match outcome {
            Some(Err(unavailable @ Failure::Unavailable { .. })) => {
                Some(Err(writing.failure.take().unwrap_or(unavailable)))
            }
            other => other,
        };
        writing.answered |= outcome.is_some();
        let done = writing.waiting.is_empty();
        if let Some(outcome) = outcome {
            let done = match &outcome {
                Ok(SessionReply::Acknowledged(done)) => Some(done.birth),
                _ => None,
            };
            self.answer_all(now, &mut pending, outcome);
            if let Some(birth) = done {
                self.limit_owner(now, &pending, birth);
            }
        }
        if done {
            self.pending_deadlines.remove(&(pending.deadline, id));
            self.pending_bytes -= pending.size;
        } else {
            self.pending.insert(id, pending);
        }
    }

    /// The slot went to other homes while this request waited here.
    pub(super) fn begin_elsewhere(&mut self, now: Now, id: u64, mut pending: Box<Pending>) {
        self.counters.add("requests_begun_elsewhere");
        if pending.wrote.is_some() {
            // It may count yet, and is not done twice.
            return self.finish(now, id, pending, Err(Failure::TimedOut));
        }
        self.leave_line(&mut pending);
        self.route(now, id, pending);
    }

    /// Too few homes hold a write, since some of them see other members, or know another epoch: by the time that this is tried
    /// again both will have told each other.
    fn on_other_homes(&mut self, now: Now, id: u64, mut pending: Box<Pending>) {
        self.counters.add("writes_at_no_home");
        if let Stage::Writing(writing) = std::mem::replace(&mut pending.stage, Stage::Done) {
            self.hint_those_waited_for(&pending, *writing);
        }
        self.pause(now, id, pending);
    }

    /// Too few homes hold a write, since there is no room for it at others.
    fn on_full_homes(&mut self, now: Now, id: u64, mut pending: Box<Pending>) {
        let Stage::Writing(writing) = std::mem::replace(&mut pending.stage, Stage::Done) else {
            return;
        };
        let failure = writing.failure.clone().unwrap_or(Failure::TimedOut);
        self.hint_those_waited_for(&pending, *writing);
        self.wait_for_room(now, id, pending, failure);
    }

    /// Who has not answered yet may not get it.
    pub(super) fn hint_those_waited_for(&mut self, pending: &Pending, writing: Writing) {
        for home in writing.waiting.into_values() {
            self.hint(pending.table, home, &pending.request.key);
        }
    }

    /// Too few homes hold a write, since some have promised not to below this ballot: it is stamped again.
    fn on_promised_elsewhere(
        &mut self,
        now: Now,
        id: u64,
        mut pending: Box<Pending>,
        floor: Version,
    ) {
        if let Stage::Writing(writing) = std::mem::replace(&mut pending.stage, Stage::Done) {
            self.hint_those_waited_for(&pending, *writing);
        }
        if pending.request.operation.is_conditional() {
            return self.outbid(now, id, pending, floor);
        }
        self.counters.add("writes_below_a_promise");
        if self.time.may_follow(now, floor.hlc) {
            self.raise_floor(pending.table, pending.slot, floor);
        }
        pending.rounds = pending.rounds.saturating_add(1);
        match pending.rounds < ROUNDS_MAX {
            true => self.route(now, id, pending),
            false => self.pause(now, id, pending),
        }
    }

    fn on_copy_answer(
        &mut self,
        now: Now,
        id: u64,
        call: u64,
        mut pending: Box<Pending>,
        answer: Replicated,
    ) {
        let Stage::Writing(writing) = &mut pending.stage else { return };
        let Some(home) = writing.waiting.remove(&call) else {
            self.pending.insert(id, pending);
            return;
        };
        let is_extra = !writing.homes.contains(&home) && !writing.decision.contains(&home);
        match answer {
            Replicated::Stored => writing.count(home),
            // What it is not to hold, or cannot, it need not have: it is looked after later.
            Replicated::NoHome | Replicated::Failed(_) | Replicated::Promised { .. }
                if is_extra => {}
            Replicated::Promised { floor, stored } => {
                writing.floor = writing.floor.max(Some(floor));
                if !stored {
                    self.hint(pending.table, home, &pending.request.key);
                }
            }
            Replicated::NoHome => writing.met_no_home = true,
            Replicated::OtherEpoch => {
                writing.met_other_epoch = true;
                self.meet_about(pending.table, pending.slot, home);
            }
            Replicated::Missing => {
                let mut writing = std::mem::replace(&mut pending.stage, Stage::Done).into_writing();
                self.send_copy(now, id, &pending, &mut writing, home, true);
                pending.stage = Stage::Writing(writing);
            }
            Replicated::Differs(theirs) => {
                let ours = (writing.entry.birth, writing.entry.is_ended(), writing.answered);
                let (table, slot, key) = (pending.table, pending.slot, pending.request.key.clone());
                let sent_to = writing.extras.clone();
                let merged = self.merge(now, table, &key, &theirs, Admission::Reserve);
                if let Ok(merged) = merged.as_ref().map(|it| self.extra_homes(table, slot, it).0) {
                    // That others are to hold it was news.
                    let me = self.id();
                    let more = merged.into_iter().filter(|it| *it != me && !sent_to.contains(it));
                    more.for_each(|node| self.repair(now, table, node, key.clone(), false));
                }
                let (birth, ended, answered) = ours;
                if theirs.is_marker() && !writing.entry.is_ended() {
                    // It went to another ring meanwhile, and what was sent is not held here.
                    return match answered {
                        false => self.on_other_homes(now, id, pending),
                        true => self.judge_writing(now, id, pending),
                    };
                }
                // Of what a ballot decided, whatever is greater came after it.
                let is_decided =
                    matches!(writing.kind, WriteKind::Decided { .. } | WriteKind::Ended);
                let is_passed_by = writing.entry.is_ending()
                    && (theirs.birth, theirs.is_ended()) == (birth, false)
                    && !theirs.is_ending();
                if is_decided && is_passed_by {
                    // A plain write has made it void there.
                    writing.floor = writing.floor.max(Some(theirs.version));
                } else if is_decided || theirs.birth == birth && theirs.is_ended() == ended {
                    let is_lost = matches!(writing.kind, WriteKind::Plain { .. })
                        && is_outdone(&pending.request.operation, writing.entry.version, &theirs)
                        && self.tables[table].store.policy().merge.is_none();
                    if is_lost && !answered && pending.rounds < ROUNDS_MAX {
                        return self.on_outdone(now, id, pending);
                    }
                    writing.count(home);
                } else if !answered {
                    return self.on_superseded(now, id, pending);
                }
            }
            Replicated::Failed(failure) => {
                self.note_refused(pending.table, home, &failure);
                writing.failure = Some(failure);
                self.hint(pending.table, home, &pending.request.key);
            }
            _ => self.hint(pending.table, home, &pending.request.key),
        }
        self.judge_writing(now, id, pending);
    }

    /// A home knew of a later write of the same, as when another node's clock is ahead: whoever asked for this one may have heard of
    /// that before, so it is stamped again, now after it.
    fn on_outdone(&mut self, now: Now, id: u64, mut pending: Box<Pending>) {
        self.counters.add("writes_outdone");
        if let Stage::Writing(writing) = std::mem::replace(&mut pending.stage, Stage::Done) {
            self.hint_those_waited_for(&pending, *writing);
        }
        pending.rounds += 1;
        self.route(now, id, pending);
    }

    /// A home knew of a newer session, or of the end of this one, which the write now lost to.
    fn on_superseded(&mut self, now: Now, id: u64, mut pending: Box<Pending>) {
        let again = pending.request.operation.birth().is_none();
        pending.rounds = pending.rounds.saturating_add(1);
        if again && pending.rounds < ROUNDS_MAX {
            self.counters.add("writes_superseded");
            pending.stage = Stage::Done;
            return self.route(now, id, pending);
        }
        let failure = if again { Failure::TimedOut } else { Failure::Ended };
        self.finish(now, id, pending, Err(failure));
    }

    // Reading.

    /// Asks the homes, or those that decide.
    pub(super) fn start_reading(
        &mut self,
        now: Now,
        id: u64,
        mut pending: Box<Pending>,
        decides: bool,
    ) {
        self.counters.add("reads_of_homes");
        let now_ms = self.time.now_ms(now);
        let me = self.id();
        let (table, slot) = (pending.table, pending.slot);
        let stored = self.tables[table].store.get(&pending.request.key, now_ms);
        let mut reading = Reading::default();
        let counts = if decides {
            let Some(config) = self.epoch(table, slot).cloned() else {
                return self.pause(now, id, pending);
            };
            reading.under = Some(config.id);
            reading.needed = self.majority_of(&config);
            reading.homes.clone_from(&config.homes);
            self.may_answer(table, slot, config.id).is_ok()
        } else {
            reading.homes = self.homes(table, slot);
            reading.needed = majority(reading.homes.len());
            let reads_home = self.tables[table].store.policy().read == ReadFrom::Home;
            if reads_home && pending.request.operation == Operation::Get {
                reading.knows_all = pending.brings.is_none();
                reading.needed = reading.needed.max(self.cover_needed(table, reading.homes.len()));
            }
            self.slot_state(table, slot).is_synced() && reading.homes.contains(&me)
        };
        reading.began = now.monotonic;
        let homes = reading.homes.clone();
        reading.asked.push(me);
        reading.answers.insert(me, stored);
        reading.synced_homes = usize::from(counts);
        for home in homes.into_iter().filter(|home| *home != me) {
            if !decides || self.is_active(home) {
                self.ask(now, id, &pending, &mut reading, home);
            }
        }
        pending.stage = Stage::Reading(reading);
        self.judge_reading(now, id, pending);
    }

    fn ask(&mut self, now: Now, id: u64, pending: &Pending, reading: &mut Reading, node: NodeId) {
        reading.asked.push(node);
        let (table, key) = (pending.request.table.clone(), pending.request.key.clone());
        let fetch = Fetch { table, key, under: reading.under.map(name) };
        if let Some(call) = self.call(now, node, Purpose::Pending(id), fetch) {
            reading.waiting.insert(call, node);
        }
    }

    /// Enough is known once a majority of the homes that are in sync has answered. While there are
    /// too few of those, everybody who may still hold something for the slot is asked as well.
    fn judge_reading(&mut self, now: Now, id: u64, mut pending: Box<Pending>) {
        let mut reading = std::mem::replace(&mut pending.stage, Stage::Done).into_reading();
        let needed = reading.needed;
        let decides = reading.under.is_some();
        let in_sync_at_best = reading.synced_homes + reading.waiting.len();
        let may_ask_others = !decides && reading.waiting.len() < ASKED_MAX;
        if in_sync_at_best < needed && may_ask_others {
            let asked = &reading.asked;
            let more: Vec<NodeId> = self.possible_holders(pending.table, pending.slot);
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
        let may_be_incomplete = !decides && !reading.knows_all;
        let all_told = may_be_incomplete && reading.waiting.is_empty() && answered >= needed;
        if reading.synced_homes >= needed || (all_told && (found || reading.silent == 0)) {
            return self.on_read(now, id, pending, reading);
        }
        if reading.waiting.is_empty() && decides && (reading.met_other_epoch || answered >= needed)
        {
            // They are there, and may soon be ready.
            return self.pause(now, id, pending);
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

    fn on_read(&mut self, now: Now, id: u64, pending: Box<Pending>, reading: Reading) {
        let key = pending.request.key.clone();
        let mut merged: Option<Entry> = None;
        for entry in reading.answers.values().flatten() {
            match &mut merged {
                None => merged = Some(entry.clone()),
                Some(merged) => {
                    self.tables[pending.table].store.join(merged, entry);
                }
            }
        }
        let is_kept = pending.brings.is_none() || self.is_home(pending.table, pending.slot);
        if let Some(entry) = merged.as_ref().filter(|_| is_kept) {
            let kept = self.merge(now, pending.table, &key, entry, Admission::Reserve);
            if let Err(failure) = kept
                && pending.request.operation != Operation::Get
            {
                if self.holds_extra(&pending) {
                    return self.forward(now, id, pending, Vec::new());
                }
                if !self.is_home(pending.table, pending.slot) {
                    return self.begin_elsewhere(now, id, pending);
                }
                return self.wait_for_room(now, id, pending, failure);
            }
            if reading.synced_homes >= majority(reading.homes.len()) {
                self.confirm_extra(pending.table, pending.slot, &key, reading.began);
            }
            for (node, answer) in &reading.answers {
                let is_other_home = *node != self.id() && reading.homes.contains(node);
                if is_other_home && answer.as_ref() != Some(entry) {
                    self.counters.add("read_repairs");
                    self.repair(now, pending.table, *node, key.clone(), false);
                }
            }
        }
        if pending.brings.is_some() {
            return self.on_found_further_out(now, id, &pending, merged);
        }
        let meant = pending.request.operation.birth();
        let is_there = |entry: &Entry| meant.is_none_or(|birth| birth == entry.birth);
        let is_to_end = merged.as_ref().is_some_and(is_there);
        if pending.request.operation.is_end() && !is_to_end && reading.under.is_none() {
            // That there is nothing to end is for those to say who would have to know of the end.
            return self.start_reading(now, id, pending, true);
        }
        self.apply(now, id, pending, merged);
    }

    /// Members that may hold entries of a slot: the homes, then the others, as placement prefers them.
    fn possible_holders(&self, table: usize, slot: Slot) -> Vec<NodeId> {
        let mut holders = self.placement(table).ring.candidates(slot);
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
                if reply == SessionReply::Failed(UNWILLING) {
                    // It is about to stop, or may not decide, and has not begun with it.
                    self.pending.insert(id, pending);
                    return self.on_pending_failure(now, id, call, node, false);
                }
                self.on_forwarded(now, id, pending, node, reply);
            }
            (Stage::CatchingUp { call: open, reply }, Message::Fetched(fetched))
                if *open == call =>
            {
                let reply = reply.clone();
                if let Some(entry) = &fetched.entry {
                    let key = pending.request.key.clone();
                    // What cannot be stored here is not served from here.
                    let _ = self.merge(now, pending.table, &key, entry, Admission::Reserve);
                }
                self.finish(now, id, pending, Ok(reply));
            }
            (_, Message::Promised(answer)) => self.on_promise(now, id, call, pending, answer),
            (Stage::Reading(reading), Message::Fetched(fetched)) => {
                if let Some(node) = reading.waiting.remove(&call) {
                    let is_home = reading.homes.contains(&node);
                    if fetched.other_epoch {
                        reading.met_other_epoch = true;
                        self.meet_about(pending.table, pending.slot, node);
                    }
                    reading.synced_homes += usize::from(fetched.synced && is_home);
                    reading.answers.insert(node, fetched.entry);
                }
                self.judge_reading(now, id, pending);
            }
            (Stage::ReadingNear(_), Message::Fetched(fetched)) => {
                self.on_near_fetched(now, id, call, pending, fetched);
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
            Stage::ReadingNear(read) => read.gives_up(call),
            Stage::Writing(writing) => writing.waiting.remove(&call).is_some(),
            Stage::Promising(promising) => promising.waiting.remove(&call).is_some(),
            Stage::CatchingUp { call: open, .. } => *open == call,
            Stage::Queued
            | Stage::Pausing
            | Stage::ShortOfRoom { .. }
            | Stage::InLineToComeIn
            | Stage::Held
            | Stage::BeingCounted
            | Stage::BringingIn
            | Stage::Done => false,
        };
        match &mut pending.stage {
            _ if !expected => {
                self.pending.insert(id, pending);
            }
            Stage::Forwarding { .. } if sent && pending.request.operation != Operation::Get => {
                // That home may do it yet. Another one would do it a second time, and the later of
                // the two could undo what was done in between.
                let key = pending.request.key.clone();
                self.renew_near(now, pending.table, &key);
                self.finish(now, id, pending, Err(Failure::TimedOut));
            }
            Stage::Forwarding { tried, .. } => {
                let tried = std::mem::take(tried);
                self.forward(now, id, pending, tried);
            }
            Stage::Reading(_) => self.judge_reading(now, id, pending),
            Stage::ReadingNear(_) => self.give_near_up(now, id, pending),
            Stage::Writing(writing) => {
                if self.has(Flaw::CountsHints) {
                    writing.count(node);
                }
                self.hint(pending.table, node, &pending.request.key);
                self.judge_writing(now, id, pending);
            }
            Stage::Promising(_) => self.judge_promises(now, id, pending),
            Stage::CatchingUp { reply, .. } => {
                let reply = reply.clone();
                self.finish(now, id, pending, Ok(reply));
            }
            Stage::Queued
            | Stage::Pausing
            | Stage::ShortOfRoom { .. }
            | Stage::InLineToComeIn
            | Stage::Held
            | Stage::BeingCounted
            | Stage::BringingIn
            | Stage::Done => {}
        }
    }

    /// A conditional operation is done at one home, whichever asked; what this node's own readers see is
    /// brought up to it first.
    fn on_forwarded(
        &mut self,
        now: Now,
        id: u64,
        mut pending: Box<Pending>,
        node: NodeId,
        reply: SessionReply,
    ) {
        if pending.request.operation != Operation::Get {
            let key = pending.request.key.clone();
            self.distrust_extra(now, pending.table, pending.slot, &key);
            self.renew_near(now, pending.table, &key);
        }
        if let SessionReply::Acknowledged(done) = &reply
            && pending.request.operation.is_conditional()
            && self.homes(pending.table, pending.slot).contains(&self.id())
        {
            let now_ms = self.time.now_ms(now);
            let store = &mut self.tables[pending.table].store;
            let stored = store.get(&pending.request.key, now_ms);
            let is_joined = store.policy().merge.is_some();
            let is_behind = stored.is_none_or(|entry| {
                let (here, there) = ((entry.birth, entry.version), (done.birth, done.version));
                // A later write need not contain this one then.
                let is_older = here < there || is_joined && here.0 == there.0 && here != there;
                // Of an end on a condition, the proposal alone may be here.
                let is_proposed = entry.is_ending() && here == there;
                (is_older || is_proposed) && !(entry.is_ended() && entry.birth == done.birth)
            });
            let (table, key) = (pending.request.table.clone(), pending.request.key.clone());
            if is_behind
                && let fetch = (Fetch { table, key, under: None })
                && let Some(call) = self.call(now, node, Purpose::Pending(id), fetch)
            {
                pending.stage = Stage::CatchingUp { call, reply };
                self.pending.insert(id, pending);
                return;
            }
        }
        self.finish(now, id, pending, Ok(reply));
    }

    pub(super) fn on_out_of_patience(&mut self, now: Now, id: u64) {
        let Some(mut pending) = self.pending.remove(&id) else { return };
        self.counters.add("requests_out_of_patience");
        if let Stage::ReadingNear(_) = pending.stage {
            self.stop_reading_near(&pending);
        }
        if let Stage::Forwarding { .. } = pending.stage
            && pending.request.operation != Operation::Get
        {
            self.renew_near(now, pending.table, &pending.request.key);
        }
        let is_write = pending.request.operation != Operation::Get || pending.is_verdict;
        if let Stage::CatchingUp { reply, .. } = &pending.stage {
            let reply = reply.clone();
            return self.finish(now, id, pending, Ok(reply));
        }
        let failure = match &pending.stage {
            Stage::Promising(promising) => unavailable(promising.counting, promising.homes.len()),
            Stage::Queued | Stage::Pausing if self.is_decided(&pending) => {
                unavailable(0, self.deciders(pending.table, pending.slot).len())
            }
            Stage::Reading(reading) => {
                let homes = reading.homes.len();
                let answered = reading.answers.keys().filter(|n| reading.homes.contains(n)).count();
                let needed = reading.needed as u8;
                Failure::Unavailable { answered: answered as u8, needed, homes: homes as u8 }
            }
            Stage::BringingIn | Stage::BeingCounted if !pending.is_sent => UNWILLING,
            Stage::ShortOfRoom { .. } => {
                self.short_of_room -= 1;
                match pending.is_sent {
                    true => Failure::TimedOut,
                    false => Failure::TableFull { node: self.id() },
                }
            }
            Stage::InLineToComeIn => told_to_wait(&pending, Duration::from_secs(1)),
            Stage::Held => {
                self.held -= 1;
                self.when_again(now, &pending)
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

    pub(super) fn finish(
        &mut self,
        now: Now,
        id: u64,
        mut pending: Box<Pending>,
        outcome: Result<SessionReply, Failure>,
    ) {
        self.pending_deadlines.remove(&(pending.deadline, id));
        self.pending_bytes -= pending.size;
        // Copies that are still on their way to homes become hints, should they fail.
        if let Stage::Writing(writing) = std::mem::replace(&mut pending.stage, Stage::Done) {
            self.hint_those_waited_for(&pending, *writing);
        }
        self.did_not_come_in(pending.table, pending.granted);
        self.answer_all(now, &mut pending, outcome);
    }

    /// Lets go of a request that nobody asked for, and nothing waits for.
    pub(super) fn forget_pending(&mut self, pending: &Pending, id: u64) {
        self.pending_deadlines.remove(&(pending.deadline, id));
        self.pending_bytes -= pending.size;
    }

    /// Has the rings further out give up what a session was begun over, if enough hold that one; else it is seen what
    /// they hold, and what became of it.
    fn outdo(&mut self, now: Now, pending: &Pending, is_held: bool) {
        let (table, key) = (pending.table, &pending.request.key);
        let stored = self.tables[table].store.get(key, self.time.now_ms(now));
        match stored.filter(|_| is_held) {
            Some(entry) => self.tell_further_out(now, table, key, &entry.marker()),
            None => self.doubt(table, key),
        }
    }

    fn answer_all(
        &mut self,
        now: Now,
        pending: &mut Pending,
        outcome: Result<SessionReply, Failure>,
    ) {
        if std::mem::take(&mut pending.outdoes_others) {
            self.outdo(now, pending, outcome.is_ok());
        }
        if let Some(wrote) = pending.wrote.filter(|_| outcome.is_err()) {
            // Nobody sees to it any more: it may come up like that of another coordinator.
            self.raise_floor(pending.table, pending.slot, wrote);
        }
        if pending.brings.is_some() {
            return self.on_brought(now, pending, &outcome);
        }
        if let Some(to_end) = pending.to_end.take() {
            return self.on_replaced_answered(to_end, outcome);
        }
        if let Some(count) = pending.for_count.take() {
            return self.on_end_for_count(count, &outcome);
        }
        self.leave_line(pending);
        let may_repeat = pending.request.request.may_repeat();
        if may_repeat {
            self.unanswered.remove(&pending.request.request);
        }
        let outcome = match pending.wrote {
            // It was sent out: it may count yet, whatever was in the way.
            Some(_) => outcome.map_err(|_| Failure::TimedOut),
            None => outcome,
        };
        if outcome == Err(UNWILLING) && pending.askers.len() > 1 {
            // The last one goes on looking for somebody who does it: to the others it may be done yet.
            let last = pending.askers.split_off(pending.askers.len() - 1);
            for (asker, id) in std::mem::replace(&mut pending.askers, last) {
                self.reply_session(now, asker, id, Err(Failure::TimedOut));
            }
        }
        let reply = outcome.unwrap_or_else(SessionReply::Failed);
        // What was sent out on a condition is not begun again: the condition would meet its own work.
        let definite = pending.wrote.is_some()
            || !matches!(
                &reply,
                SessionReply::Session(_)
                    | SessionReply::Failed(
                        Failure::Unavailable { .. } | Failure::TimedOut | Failure::SlowDown { .. }
                    )
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

impl Pending {
    /// Whether somebody asks for it, and all who do are such.
    pub(super) fn is_asked_by(&self, is_such: impl FnMut(&(Asker, u64)) -> bool) -> bool {
        !self.askers.is_empty() && self.askers.iter().all(is_such)
    }

    /// Whether its session has to be on the innermost ring for it: all but reads and ends change it there.
    pub(super) fn needs_it_inside(&self) -> bool {
        !matches!(self.request.operation, Operation::Get | Operation::End { .. })
    }

    /// With somebody who asks for it.
    pub(super) fn asked_by(mut self: Box<Self>, asker: Asker, id: u64) -> Box<Self> {
        self.askers = vec![(asker, id)];
        self
    }

    /// That ends a session since another one was begun in its place.
    pub(super) fn for_the_sake_of(mut self: Box<Self>, to_end: ToEnd) -> Box<Self> {
        self.to_end = Some(to_end);
        self
    }

    /// That ends a session since its owner has too many.
    pub(super) fn for_a_count(mut self: Box<Self>, count: CountId) -> Box<Self> {
        self.for_count = Some(count);
        self
    }

    /// Whether it waits for the answer of this caller.
    fn was_passed_to(&self, caller: Caller) -> bool {
        let Stage::Forwarding { tried, .. } = &self.stage else { return false };
        matches!(caller, Caller::Node(node) if tried.last() == Some(&node))
    }
}

impl Writing {
    /// Notes that a home holds it.
    fn count(&mut self, home: NodeId) {
        self.held_by += usize::from(self.homes.contains(&home));
        let is_counted = self.extras[..self.counted].contains(&home);
        self.extras_held += usize::from(is_counted && !self.homes.contains(&home));
        self.decided_by += usize::from(self.decision.contains(&home));
    }

    /// The answer once enough homes hold it.
    fn success(&mut self) -> Result<SessionReply, Failure> {
        let (birth, version) = match &mut self.kind {
            WriteKind::Decided { then: Some(then), .. } => then.clone()?,
            _ => (self.entry.birth, self.entry.version),
        };
        let held_by = (self.held_by + self.extras_held) as u8;
        let counted = self.counted + usize::from(self.is_counted);
        let homes = (self.homes.len() + counted) as u8;
        Ok(SessionReply::Acknowledged(Acknowledged { birth, version, held_by, homes }))
    }
}

/// Whether something later than this version stands in the place of what a plain write set.
fn is_outdone(operation: &Operation, version: Version, entry: &Entry) -> bool {
    let Some(body) = &entry.body else { return false };
    match operation {
        Operation::Put { .. }
        | Operation::Update { change: Change::Value(_) | Change::Whole(_, _), .. } => {
            body.base.version > version
        }
        Operation::Update { change: Change::Fields { set, delete }, .. } => {
            let is_later =
                |name| body.fields.get(name).is_some_and(|field| field.version > version);
            body.base.version > version || set.keys().chain(delete).any(is_later)
        }
        Operation::Update { change: Change::Lifetimes(_), .. } => body.lease.version > version,
        _ => false,
    }
}

impl Stage {
    fn into_writing(self) -> Box<Writing> {
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

/// How long a request waits at most whose caller waits so long, in milliseconds.
pub(super) fn patience_of(patience_ms: u32) -> Duration {
    Duration::from_millis(patience_ms.into()).min(PATIENCE_MAX)
}

fn size(request: &SessionRequest) -> usize {
    size_of(&request.operation) + REQUEST_OVERHEAD_BYTES
}

/// The bytes that an operation brings.
fn size_of(operation: &Operation) -> usize {
    match operation {
        Operation::Start { value, .. }
        | Operation::StartIfAbsent { value, .. }
        | Operation::StartInstead { value, .. }
        | Operation::Put { value, .. } => value.size(),
        Operation::Update { change: Change::Value(value) | Change::Whole(value, _), .. }
        | Operation::UpdateIf { change: Change::Value(value) | Change::Whole(value, _), .. } => {
            value.size()
        }
        Operation::UpdateFieldsIf { expected, set, delete, deadlines, .. } => {
            let set = set.iter().map(|(name, value)| name.len() + value.len());
            let others = expected.keys().chain(delete).chain(deadlines.keys());
            set.chain(others.map(|name| name.len() + CONDITION_BYTES)).sum()
        }
        Operation::Update { change: Change::Fields { set, delete }, .. }
        | Operation::UpdateIf { change: Change::Fields { set, delete }, .. } => {
            let set = set.iter().map(|(name, value)| name.len() + value.len());
            set.chain(delete.iter().map(Vec::len)).sum()
        }
        _ => 0,
    }
}

/// Whether one copy is enough to act on. It is not enough to say *expired*, since a touch may have
/// reached others, nor *ended* to somebody who knows of a newer session.
fn is_answer(operation: &Operation, entry: &Entry, now_ms: u64) -> bool {
    let meant = operation.birth();
    let is_over = entry.is_ended() && matches!(operation, Operation::Put { after_end: false, .. });
    !entry.is_expired(now_ms) && !is_over && meant.is_none_or(|birth| birth <= entry.birth)
}

/// Whether a session begins where somebody puts a value.
fn begins(operation: &Operation, stored: Option<&Entry>, now_ms: u64) -> bool {
    let Operation::Put { after_end, .. } = operation else { return false };
    stored.is_none_or(|entry| {
        let is_over = entry.is_marker() || entry.is_expired(now_ms);
        is_over || entry.is_ended() && *after_end
    })
}

/// The lifetimes that a session that lives gets with a value.
fn lifetimes_beside(operation: &Operation) -> Option<&Lifetimes> {
    match operation {
        Operation::Put { lifetimes, keeps_lifetimes: false, .. }
        | Operation::Update { change: Change::Whole(_, lifetimes), .. } => Some(lifetimes),
        _ => None,
    }
}

/// The session that an operation begins, whatever was there; `None` of one that begins none.
fn begun(
    policy: &TablePolicy,
    operation: &Operation,
    birth: Version,
    now_ms: u64,
) -> Option<Entry> {
    match operation {
        Operation::Start { value, lifetimes, attributes } => {
            let lease = lease(policy, lifetimes, birth.hlc.ms(), now_ms);
            Some(Entry::start(birth, value.clone(), lease, attributes.clone(), now_ms))
        }
        Operation::Put { value, lifetimes, .. } => {
            let lease = lease(policy, lifetimes, birth.hlc.ms(), now_ms);
            Some(Entry::start(birth, value.clone(), lease, Attributes::default(), now_ms))
        }
        Operation::StartInstead { replaced, value, idle, expire_at, attributes } => {
            let idle_alone = Lifetimes { idle_ms: Some(*idle), lifetime_ms: None };
            let (idle, cap) = lease(policy, &idle_alone, birth.hlc.ms(), now_ms);
            let end = [*expire_at, cap].into_iter().filter(|end| *end != 0).min().unwrap_or(0);
            let (value, attributes) = (value.clone(), attributes.clone());
            let mut entry = Entry::start(birth, value, (idle, end), attributes, now_ms);
            entry.note_replaced(birth, Some(*replaced));
            Some(entry)
        }
        _ => None,
    }
}

/// The deadlines that a session gets: idle time in milliseconds, and end in hybrid milliseconds.
/// The table's cap counts from the birth and is never exceeded.
pub(super) fn lease(
    policy: &TablePolicy,
    lifetimes: &Lifetimes,
    birth_ms: u64,
    now_ms: u64,
) -> (u64, u64) {
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

/// The deadlines that a session has after a change of them: what the change does not name stays.
pub(super) fn new_lease(
    policy: &TablePolicy,
    lifetimes: &Lifetimes,
    entry: &Entry,
    now_ms: u64,
) -> (u64, u64) {
    let before = entry.body.as_ref().map_or((0, 0), |body| (body.lease.idle, body.lease.expire_at));
    changed_lease(policy, lifetimes, (entry.birth, before), now_ms)
}

/// The same of a session with this birth and these deadlines.
pub(super) fn changed_lease(
    policy: &TablePolicy,
    lifetimes: &Lifetimes,
    (birth, before): (Version, (u64, u64)),
    now_ms: u64,
) -> (u64, u64) {
    let (idle, expire_at) = lease(policy, lifetimes, birth.hlc.ms(), now_ms);
    (
        lifetimes.idle_ms.map_or(before.0, |_| idle),
        lifetimes.lifetime_ms.map_or(before.1, |_| expire_at),
    )
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
            _ if policy.merge.is_some() => {
                let name = name_among_clients(&policy.name);
                refuse(format!("table {name:?} joins values as a whole, and takes no maps or sets"))
            }
            Value::Map(fields) | Value::Set(fields) | Value::SortedSet(fields) => {
                check_names(fields.keys().map(Vec::len).max())
            }
        }
    };
    if let Operation::StartInstead { replaced, .. } = operation
        && Slot::of_word(replaced.word).is_none()
    {
        return refuse("what is to be replaced is no session's".to_owned());
    }
    match operation {
        Operation::Start { value, attributes, .. }
        | Operation::StartIfAbsent { value, attributes, .. }
        | Operation::StartInstead { value, attributes, .. } => {
            if attributes.owner.len() > OWNER_BYTES_MAX {
                let length = attributes.owner.len();
                return refuse(format!(
                    "the owner has {length} bytes, at most {OWNER_BYTES_MAX} are possible"
                ));
            }
            let (replicas, least) = (attributes.replicas, policy.replicas.get());
            if usize::from(replicas) > REPLICAS_MAX {
                return refuse(format!("{replicas} replicas, at most {REPLICAS_MAX} are possible"));
            }
            if replicas != 0 && replicas < least {
                return refuse(format!(
                    "{replicas} replicas, and the table {:?} has {least}: for sessions with fewer \
                     copies make a table of its own",
                    name_among_clients(&policy.name)
                ));
            }
            check_value(value)
        }
        Operation::Put { value, .. }
        | Operation::Update { change: Change::Value(value) | Change::Whole(value, _), .. }
        | Operation::UpdateIf { change: Change::Value(value) | Change::Whole(value, _), .. } => {
            check_value(value)
        }
        Operation::Update { change: Change::Fields { set, delete }, .. }
        | Operation::UpdateIf { change: Change::Fields { set, delete }, .. } => {
            check_size(set.iter().map(|(name, value)| name.len() + value.len()).sum())?;
            check_names(set.keys().chain(delete).map(Vec::len).max())
        }
        Operation::UpdateFieldsIf { expected, set, delete, deadlines, .. } => {
            check_size(set.iter().map(|(name, value)| name.len() + value.len()).sum())?;
            // Whichever node is asked, it may have to pass it on.
            let bytes = size_of(operation);
            if bytes > VALUE_BYTES_MAX {
                return refuse(format!(
                    "a condition about fields and what becomes of them have {VALUE_BYTES_MAX} bytes at most together"
                ));
            }
            let names = set.keys().chain(delete).chain(expected.keys()).chain(deadlines.keys());
            check_names(names.map(Vec::len).max())
        }
        _ => Ok(()),
    }
}

/// What a client is told that no version can be had: a disk that is slow for a moment is worth
/// asking again.
pub(super) fn no_stamp(trouble: NoStamp, homes: usize) -> Failure {
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
        Failure::Conflict { .. } => "failures_conflict",
        Failure::SlowDown { .. } => "failures_slow_down",
        _ => "failures_timed_out",
    }
}
