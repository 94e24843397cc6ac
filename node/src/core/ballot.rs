//! Conditional operations: an update or an end of what was seen, and a start where nothing is.
//!
//! Each is one round of CASPaxos (Rystsov, arXiv 1802.07000) at a majority of the homes of the slot's
//! *epoch* ([`super::epochs`]), the dead among them counted; without one it is refused. The ballot
//! is the version that its write will have. The coordinator, the first of these homes that is in
//! contact and may, has the others promise the ballot and say what they hold; what a majority that is ready
//! says, merged, is what the condition is about; the write goes out under the ballot, and counts once a
//! majority holds it. If the condition does not hold and the homes differ, what was merged goes out
//! under the ballot first: an answer is about what is decided, never about what one home happens to
//! have. A coordinator does this for one operation of a slot at a time.
//!
//! # Promises
//! A home keeps one *floor* per slot, the greatest ballot that it promised, and takes no part in a
//! **fresh** write below it: one that does not count yet, plain or conditional. Two majorities share a
//! home; so a write that is acknowledged was held there before it promised, and was merged into what
//! the condition was about, or it is later than the ballot. Hence conditional operations and the writes
//! that a majority acknowledges take effect in the order of their versions. What is not fresh (repairs,
//! hints, comparisons) is always merged. It can bring up a write that nobody acknowledged: that one
//! takes effect late, which its client has to expect. Touches change nothing that a condition is about.
//!
//! The write of a conditional operation carries the ballot in all its parts, so that a version says
//! which value there is; fields that a plain update sets may still join those of another one under the
//! version that is there. A write that meets a tombstone was overtaken by the end.
//!
//! # Passed by
//! A write that was refused is found again by its coordinator's next ballot, and only has to be held by a majority. But
//! between the two a third ballot may have been promised, and have led to another write of the same condition, held by one
//! home so far. The version of the first is below that one's: whoever asks next and finds both would take the other
//! for the latest, and finish it too. So homes say with a promise which ballot they promised to another node before
//! ([`Promised::others`]), and where that is above its own write a coordinator does not finish that, and says that nobody
//! knows what became of it: it cannot write it again under its new ballot, since others may have been told of its version. An
//! end that was proposed it does propose again: no client has seen one.
//!
//! # Ends
//! Within a birth a tombstone wins whatever the versions. Sent out under a ballot that is outbid, it would take
//! with it what a later ballot decided without knowing of it. So an end on a condition goes out as a proposal first:
//! a note beside the value ([`Entry::propose_end`]), which loses to later writes as any write does. Once a majority
//! holds that as the session's last write no later ballot passes it by, and the tombstone goes out. Readers see
//! the session until then. A ballot that meets a proposal finishes it before it begins with its own
//! operation: it may have been decided. A plain write that comes between makes it void; one that a majority
//! did not hold by then may lose to the tombstone, like one that is made at the same time as an end.
//!
//! # Restarts
//! Floors are in memory only. A home promises no ballot at or after its *ceiling*, the instant on disk
//! that its own stamps stay below ([`NodeTime`](super::time::NodeTime)); a ballot further ahead waits
//! until the ceiling is above it. Floors move with entries: whoever becomes ready in a later epoch has
//! those of whom it compared with. A home that has restarted takes the ceiling of the run before for the floor of
//! every slot: whatever it may have promised is below. Until clocks have passed that, at most
//! [`CEILING_LEAD_MS`](super::time::CEILING_LEAD_MS) later, it merges what is fresh and does not count as
//! a holder. Where it is needed for a majority, as when all nodes restart at once, coordinators stamp
//! above its floor instead, and nothing fails for longer than a round trip or two.
//!
//! # What is not promised
//! A plain write that was refused because of a promise is stamped again, on what is stored by then. If
//! it was seen before, at its coordinator, and replaced since, it takes effect twice, like any plain
//! write that is repeated. A conditional one is never done twice: once it has sent out its write, it
//! ends up done, or its client is told that nobody knows. An end of which nobody knows may be finished at any
//! later time, as long as nothing was written since.
//!
//! A start that was passed by may come up later, and with its birth replace a session that began meanwhile under a lesser one, and
//! what was decided about that.
//!
//! A failure can be about a write that is outdone later by an older one: one that nobody was told is done, that
//! repairs brought to a majority, and that a ballot passed by between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use annulus_proto::entry::Kind;
use annulus_proto::message::{Change, Failure, Message, Operation, Prepare, Promised, field_hash};
use annulus_proto::{Body, Entry, Hlc, NodeId, Slot, Version};
use annulus_slots::{EpochId, Refused};
use rand::RngExt;

use super::Core;
use super::calls::Purpose;
use super::coordinator::{Pending, Stage, WriteKind, lease, new_lease, no_stamp};
use super::epochs::wire::{id_of, name};
use super::io::Now;
use super::replica::reject_table;
use super::settings::{Flaw, TablePolicy, majority};
use super::store::Store;
use super::time::NoStamp;

/// What the homes said to a ballot.
pub(super) struct Promising {
    pub(super) ballot: Version,
    /// In whose name.
    under: EpochId,
    pub(super) homes: Vec<NodeId>,
    /// How many of them are a majority.
    needed: usize,
    pub(super) waiting: BTreeMap<u64, NodeId>,
    /// What those hold that promised.
    answers: BTreeMap<NodeId, Option<Entry>>,
    /// How many of them count.
    pub(super) counting: usize,
    /// The greatest ballot that one of them promised before to another node.
    others: Version,
    /// Whether one of them knows another epoch.
    met_other_epoch: bool,
    /// How many answered that they are not ready.
    not_ready: usize,
    /// Whether another try may find more promises, and the greatest floor that was in the way.
    refused: Option<Version>,
}

/// Operations that wait for each other, slot by slot of each table; the first of a line is under way.
#[derive(Default)]
pub(super) struct Lines {
    lines: BTreeMap<(usize, Slot), VecDeque<u64>>,
    /// Those whose turn has come.
    turns: VecDeque<u64>,
}

/// How long before what stands in the way is looked at again, at most: the exact time is drawn, so that
/// two coordinators do not outbid each other for ever.
const PAUSE: Duration = Duration::from_millis(40);
/// How long before a request's patience is over nobody is asked any more who might yet begin with it.
const LAST_TRY: Duration = Duration::from_millis(150);

impl Core {
    /// Takes in a conditional operation, if this node may coordinate it, or passes it on.
    pub(super) fn route_conditional(&mut self, now: Now, id: u64, pending: Box<Pending>) {
        let me = self.id();
        let homes = self.deciders(pending.table, pending.slot);
        let (count, mine) = (homes.len(), self.may_decide(now, &pending));
        let is_there = |home: &NodeId| match *home == me {
            true => mine,
            false => self.is_active(*home) && self.is_in_contact(now, *home),
        };
        let first = homes.iter().copied().find(is_there);
        // Whoever passed it on takes this node for the first: passing it back would be no way out.
        if mine && (pending.request.hops > 0 || first == Some(me)) {
            return self.stand_in_line(now, id, pending);
        }
        let is_for_others = pending.request.hops == 0 || !homes.contains(&me);
        if is_for_others && homes.iter().any(|home| *home != me && self.is_active(*home)) {
            return self.forward(now, id, pending, Vec::new());
        }
        let outcome = self.time.can_stamp(now).map_err(|trouble| no_stamp(trouble, count));
        match outcome {
            Err(failure) => self.finish(now, id, pending, Err(failure)),
            Ok(()) => self.decide_nothing(now, id, pending),
        }
    }

    /// Nobody who was asked may decide. Whoever passed it on asks others; else it is tried again in a moment
    /// if that can be of use.
    pub(super) fn decide_nothing(&mut self, now: Now, id: u64, pending: Box<Pending>) {
        let deciders = self.deciders(pending.table, pending.slot);
        let is_there = |home: &&NodeId| **home == self.id() || self.is_in_contact(now, **home);
        let homes = deciders.len();
        let are_there = deciders.iter().filter(is_there).count() >= majority(homes);
        let is_kept = self.slot_state(pending.table, pending.slot).is_kept();
        if pending.request.hops > 0 && (are_there || !is_kept) {
            return self.finish(now, id, pending, Err(UNWILLING));
        }
        if are_there && pending.deadline > now.monotonic + LAST_TRY {
            return self.pause(now, id, pending);
        }
        self.finish(now, id, pending, Err(unavailable(0, homes)));
    }

    /// Who is to be asked for a decision: the homes of the epoch that is known here, or those that would know.
    ///
    /// In the order of placement, which need not be the epoch's: clients and those that know of no epoch go by it,
    /// and of two nodes that decide at the same time one is outbid.
    pub(super) fn deciders(&self, table: usize, slot: Slot) -> Vec<NodeId> {
        let placed = self.homes(table, slot);
        // Nobody tells those that it does not concern which epochs came later.
        let epoch = self.epoch(table, slot).filter(|_| self.slot_state(table, slot).is_kept());
        let Some(config) = epoch else { return placed };
        let mut homes = config.homes.clone();
        homes.sort_by_key(|home| placed.iter().position(|it| it == home).unwrap_or(placed.len()));
        homes
    }

    /// Whether this node may coordinate a conditional operation.
    pub(super) fn may_decide(&self, now: Now, pending: &Pending) -> bool {
        self.is_up()
            && !self.standing.alone_by_misfortune
            && self.time.can_stamp(now).is_ok()
            && self.deciding(pending.table, pending.slot).is_some()
    }

    /// Begins with the operation once those before it are done.
    pub(super) fn stand_in_line(&mut self, now: Now, id: u64, pending: Box<Pending>) {
        let Some(mut pending) = self.let_pass_owner(now, id, pending) else { return };
        let line = self.lines.lines.entry((pending.table, pending.slot)).or_default();
        line.push_back(id);
        pending.in_line = Some(id);
        if line.len() == 1 {
            return self.start_ballot(now, id, pending);
        }
        pending.stage = Stage::Queued;
        self.pending.insert(id, pending);
    }

    /// Lets the next one begin, if this one stands in a line.
    pub(super) fn leave_line(&mut self, pending: &mut Pending) {
        let Some(id) = pending.in_line.take() else { return };
        let place = (pending.table, pending.slot);
        let Some(line) = self.lines.lines.get_mut(&place) else { return };
        let was_first = line.front() == Some(&id);
        line.retain(|other| *other != id);
        match line.front() {
            None => drop(self.lines.lines.remove(&place)),
            Some(next) if was_first => self.lines.turns.push_back(*next),
            Some(_) => {}
        }
    }

    /// Begins with those whose turn has come.
    pub(super) fn take_turns(&mut self, now: Now) {
        while let Some(id) = self.lines.turns.pop_front() {
            if let Some(pending) = self.pending.remove(&id) {
                self.start_ballot(now, id, pending);
            }
        }
    }

    /// Asks for promises, above everything that this node knows of.
    fn start_ballot(&mut self, now: Now, id: u64, mut pending: Box<Pending>) {
        let (table, slot) = (pending.table, pending.slot);
        let now_ms = self.time.now_ms(now);
        let stored = self.tables[table].store.get(&pending.request.key, now_ms);
        self.note_damage(table);
        let config = self.deciding(table, slot).cloned();
        let Some(config) = config.filter(|_| self.may_decide(now, &pending)) else {
            // It has changed while this one waited for its turn.
            return self.begin_elsewhere(now, id, pending);
        };
        let (under, homes) = (config.id, config.homes.clone());
        let known = stored.as_ref().map_or(Version::ZERO, |entry| entry.version.max(entry.birth));
        let ballot = match self.stamp(now, table, slot, known.max(pending.above)) {
            Ok(ballot) if self.time.is_below_ceiling(ballot.hlc) => ballot,
            Err(NoStamp::NotPersisted) => return self.pause(now, id, pending),
            Err(trouble) => {
                return self.finish(now, id, pending, Err(no_stamp(trouble, homes.len())));
            }
            Ok(_) => {
                let why =
                    "the session's last write is from the far future; end it, and use another key";
                return self.finish(now, id, pending, Err(Failure::Refused(why.to_owned())));
            }
        };
        self.counters.add("ballots_started");
        let others = self.promise(table, slot, ballot);
        let me = self.id();
        let mut promising = Promising {
            ballot,
            under,
            homes: homes.clone(),
            needed: self.majority_of(&config),
            waiting: BTreeMap::new(),
            answers: BTreeMap::from([(me, stored)]),
            counting: 1,
            others,
            met_other_epoch: false,
            not_ready: 0,
            refused: None,
        };
        for home in homes.into_iter().filter(|home| *home != me) {
            if !self.is_active(home) {
                continue;
            }
            let (table, key) = (pending.request.table.clone(), pending.request.key.clone());
            let prepare = Prepare { table, key, ballot, under: name(under) };
            if let Some(call) = self.call(now, home, Purpose::Pending(id), prepare) {
                promising.waiting.insert(call, home);
            }
        }
        pending.stage = Stage::Promising(promising);
        self.judge_promises(now, id, pending);
    }

    /// What a home does when another node asks for its promise.
    pub(super) fn prepare(&mut self, now: Now, request: &Prepare) -> Message {
        let Some(table) = self.table_named(&request.table) else {
            return reject_table(&request.table);
        };
        let slot = request.key.slot();
        debug_assert!(self.owns(slot));
        let now_ms = self.time.now_ms(now);
        let entry = self.tables[table].store.get(&request.key, now_ms);
        let floor = self.slot_state(table, slot).floor;
        if let Err(refused) = self.may_answer(table, slot, id_of(request.under)) {
            self.counters.add("promises_of_no_count");
            let other_epoch = refused == Refused::OtherEpoch;
            let (counts, others) = (false, Version::ZERO);
            return Promised { floor, counts, other_epoch, others, entry: None }.into();
        }
        let (counts, other_epoch) = (true, false);
        if request.ballot < floor || !self.time.is_below_ceiling(request.ballot.hlc) {
            self.time.want(now, request.ballot.hlc);
            self.counters.add("promises_refused");
            let others = Version::ZERO;
            return Promised { floor, counts, other_epoch, others, entry: None }.into();
        }
        self.counters.add("promises_given");
        let others = self.promise(table, slot, request.ballot);
        Promised { floor: request.ballot, counts, other_epoch, others, entry }.into()
    }

    pub(super) fn on_promise(
        &mut self,
        now: Now,
        id: u64,
        call: u64,
        mut pending: Box<Pending>,
        answer: Promised,
    ) {
        let Stage::Promising(promising) = &mut pending.stage else {
            // Those that promised before were enough.
            self.pending.insert(id, pending);
            return;
        };
        let Some(home) = promising.waiting.remove(&call) else {
            self.pending.insert(id, pending);
            return;
        };
        if !answer.counts {
            promising.met_other_epoch |= answer.other_epoch;
            promising.not_ready += usize::from(!answer.other_epoch);
            if answer.other_epoch {
                self.meet_about(pending.table, pending.slot, home);
            }
        } else if answer.floor == promising.ballot {
            promising.counting += 1;
            promising.others = promising.others.max(answer.others);
            promising.answers.insert(home, answer.entry);
        } else {
            let before = promising.refused.unwrap_or(Version::ZERO);
            promising.refused = Some(before.max(answer.floor));
        }
        self.judge_promises(now, id, pending);
    }

    /// Enough is known once a majority that counts has promised.
    pub(super) fn judge_promises(&mut self, now: Now, id: u64, mut pending: Box<Pending>) {
        let Stage::Promising(promising) = &mut pending.stage else { return };
        let needed = promising.needed;
        if promising.counting >= needed {
            let stage = std::mem::replace(&mut pending.stage, Stage::Done);
            let Stage::Promising(promising) = stage else { return };
            return self.on_promised(now, id, pending, promising);
        }
        if promising.counting + promising.waiting.len() >= needed {
            self.pending.insert(id, pending);
            return;
        }
        match promising.refused {
            Some(floor) => self.outbid(now, id, pending, floor),
            None if promising.met_other_epoch => self.pause(now, id, pending),
            // They are there, and may soon be ready.
            None if promising.counting + promising.not_ready >= needed
                && pending.deadline > now.monotonic + LAST_TRY =>
            {
                self.pause(now, id, pending);
            }
            None => {
                let failure = unavailable(promising.counting, promising.homes.len());
                self.finish(now, id, pending, Err(failure));
            }
        }
    }

    fn on_promised(&mut self, now: Now, id: u64, mut pending: Box<Pending>, promising: Promising) {
        let Promising { ballot, answers, under, others, .. } = promising;
        let deciding = self.deciding(pending.table, pending.slot);
        if deciding.is_none_or(|config| config.id != under) {
            // Others decide now, who have promised nothing.
            return self.outbid(now, id, pending, ballot);
        }
        let now_ms = self.time.now_ms(now);
        let mut merged: Option<Entry> = None;
        for entry in answers.values().flatten() {
            match &mut merged {
                None => merged = Some(entry.clone()),
                Some(merged) => {
                    self.tables[pending.table].store.join(merged, entry);
                }
            }
        }
        if let Some(entry) = &merged
            && entry.version.max(entry.birth) >= ballot
        {
            let above = entry.version.max(entry.birth);
            return self.outbid(now, id, pending, above);
        }
        // Another coordinator may have been promised more meanwhile, here as elsewhere.
        let floor = self.slot_state(pending.table, pending.slot).floor;
        if floor > ballot {
            return self.outbid(now, id, pending, floor);
        }
        if self.is_elsewhere(&pending, merged.as_ref()) {
            return match pending.wrote {
                None => self.bring_in(now, id, pending),
                Some(_) => self.finish(now, id, pending, Err(Failure::TimedOut)),
            };
        }
        // A marker of what nobody has any more is nothing.
        let mut merged = merged.filter(|entry| !entry.is_marker());
        if merged.as_ref().is_some_and(|entry| pending.is_passed_by(entry, others)) {
            self.counters.add("ballots_passed_by");
            return self.finish(now, id, pending, Err(Failure::TimedOut));
        }
        if let Some(entry) = merged.as_mut().filter(|it| it.is_ending() && others > it.version) {
            self.counters.add("ends_proposed_again");
            pending.propose_again(entry, ballot);
        }
        if let Some(entry) = merged.as_ref().filter(|entry| entry.is_ending()).cloned() {
            // It may have been decided: so it is, before anything else.
            let kind = WriteKind::Decided { ballot, then: Some(Err(Failure::Ended)) };
            return self.start_writing(now, id, pending, entry, kind);
        }
        let ends_at_once = self.has(Flaw::EndsAtOnce);
        let store = &mut self.tables[pending.table].store;
        let operation = &pending.request.operation;
        let before = pending.wrote.zip(merged.as_ref());
        let is_done = |(wrote, entry): &(Version, &Entry)| has_taken(operation, *wrote, entry);
        let then = match before.filter(is_done) {
            // An earlier round's write is there, and only has to be held by a majority.
            Some((wrote, entry)) => Ok((entry.birth, wrote)),
            None => match decide(operation, store, merged.as_ref(), ballot, now_ms) {
                Ok(mut entry) => {
                    if ends_at_once && entry.is_ending() {
                        entry = Entry::ended(entry.birth, ballot);
                    }
                    let kind = WriteKind::Decided { ballot, then: None };
                    return self.start_writing(now, id, pending, entry, kind);
                }
                // Whether that write counted before it was replaced nobody can say.
                Err(_) if pending.wrote.is_some() => Err(Failure::TimedOut),
                Err(failure) => Err(failure),
            },
        };
        let is_held = answers.values().all(|answer| is_same(answer.as_ref(), merged.as_ref()));
        match merged {
            Some(entry) if then.is_ok() || !is_held => {
                let kind = WriteKind::Decided { ballot, then: Some(then) };
                self.start_writing(now, id, pending, entry, kind);
            }
            _ => {
                let failure = then.expect_err("what took effect is in what was merged");
                self.finish(now, id, pending, Err(failure));
            }
        }
    }

    /// A majority of those who decide holds as the last write of a session that it is to end: no ballot passes that
    /// by. Now its tombstone may go out, which wins whatever the versions.
    pub(super) fn end_for_good(
        &mut self,
        now: Now,
        id: u64,
        pending: Box<Pending>,
        ending: &Entry,
    ) {
        let tombstone = Entry::ended(ending.birth, ending.version);
        self.start_writing(now, id, pending, tombstone, WriteKind::Ended);
    }

    /// A majority holds a tombstone that a ballot decided. If that was another operation's, this one begins.
    pub(super) fn after_end(&mut self, now: Now, id: u64, mut pending: Box<Pending>) {
        self.counters.add("ends_finished_for_others");
        if let Stage::Writing(writing) = std::mem::replace(&mut pending.stage, Stage::Done) {
            self.hint_those_waited_for(&pending, *writing);
        }
        self.start_ballot(now, id, pending);
    }

    /// Tries again above a floor that was in the way.
    pub(super) fn outbid(&mut self, now: Now, id: u64, mut pending: Box<Pending>, floor: Version) {
        self.counters.add("ballots_outbid");
        let followed = self.time.may_follow(now, floor.hlc);
        if followed {
            pending.above = pending.above.max(floor);
        }
        pending.rounds = pending.rounds.saturating_add(1);
        if pending.rounds == 1 && followed {
            return self.start_ballot(now, id, pending);
        }
        self.pause(now, id, pending);
    }

    /// Lets a request wait for a moment, as long as its patience lasts.
    pub(super) fn pause(&mut self, now: Now, id: u64, mut pending: Box<Pending>) {
        self.counters.add("requests_paused");
        let wait = PAUSE.mul_f64(0.25 + 0.75 * self.rng.random::<f64>());
        self.pauses.insert((now.monotonic + wait, id));
        pending.stage = Stage::Pausing;
        pending.is_nowhere_else = false; // It may be by then.
        self.pending.insert(id, pending);
    }

    /// Goes on with those that have waited long enough.
    pub(super) fn end_pauses(&mut self, now: Now) {
        while let Some(&(at, id)) = self.pauses.first().filter(|(at, _)| *at <= now.monotonic) {
            self.pauses.remove(&(at, id));
            // Its patience may be over.
            let pending = self.pending.remove(&id);
            self.short_of_room -= usize::from(
                pending.as_ref().is_some_and(|it| matches!(it.stage, Stage::ShortOfRoom { .. })),
            );
            match pending {
                Some(pending) if pending.in_line.is_some() => self.start_ballot(now, id, pending),
                Some(pending) => {
                    self.held -= usize::from(matches!(pending.stage, Stage::Held));
                    self.route(now, id, pending);
                }
                None => {}
            }
        }
    }

    /// A version for a write of a slot, above what is stored and what was promised.
    pub(super) fn stamp(
        &mut self,
        now: Now,
        table: usize,
        slot: Slot,
        stored: Version,
    ) -> Result<Version, NoStamp> {
        let floor = self.slot_state(table, slot).floor;
        self.time.stamp(now, stored.max(floor).hlc)
    }

    /// Takes no part any more in fresh writes of the slot below this, whoever's ballot it was.
    pub(super) fn raise_floor(&mut self, table: usize, slot: Slot, floor: Version) {
        let state = &mut self.tables[table].slots[usize::from(slot.index())];
        state.floor = state.floor.max(floor);
        state.floor_of_others = state.floor_of_others.max(floor);
    }

    /// Promises a ballot that is not below the floor, and says which was promised before to other nodes.
    fn promise(&mut self, table: usize, slot: Slot, ballot: Version) -> Version {
        let state = &mut self.tables[table].slots[usize::from(slot.index())];
        if state.floor.node != ballot.node {
            state.floor_of_others = state.floor;
        }
        state.floor = ballot;
        state.floor_of_others
    }

    /// Whether a node takes part, as far as this one knows.
    pub(super) fn is_active(&self, node: NodeId) -> bool {
        self.standing.view.get(node).is_some_and(|member| member.status.is_active())
    }
}

impl Pending {
    /// Whether this operation's own write was found in an entry, and may have been passed by, if that is the greatest ballot that was
    /// promised to others.
    fn is_passed_by(&self, entry: &Entry, others: Version) -> bool {
        let operation = &self.request.operation;
        let is_open = !entry.is_ended() && !entry.is_ending();
        let is_own = |wrote: Version| others > wrote && has_taken(operation, wrote, entry);
        is_open && self.wrote.is_some_and(is_own)
    }

    /// Proposes an end again, under this ballot, that was proposed under another one.
    fn propose_again(&mut self, entry: &mut Entry, ballot: Version) {
        if self.wrote == Some(entry.version) {
            self.wrote = Some(ballot);
        }
        entry.propose_end(ballot);
    }
}

/// What becomes of what is stored: the entry to write, all of it under this ballot.
///
/// # Errors
/// [`Failure`]: the condition does not hold, or the result would be too large.
fn decide(
    operation: &Operation,
    store: &mut Store,
    stored: Option<&Entry>,
    ballot: Version,
    now_ms: u64,
) -> Result<Entry, Failure> {
    let (expected, change) = match operation {
        Operation::StartIfAbsent { value, lifetimes, attributes } => {
            return match stored.filter(|entry| !entry.is_ended() && !entry.is_expired(now_ms)) {
                Some(entry) => Err(Failure::Conflict { version: entry.version }),
                None => {
                    let lease = lease(store.policy(), lifetimes, ballot.hlc.ms(), now_ms);
                    let (value, attributes) = (value.clone(), attributes.clone());
                    Ok(Entry::start(ballot, value, lease, attributes, now_ms))
                }
            };
        }
        Operation::UpdateFieldsIf { .. } => {
            return decide_fields(operation, store.policy(), stored, ballot, now_ms);
        }
        Operation::UpdateIf { version, change } => (*version, Some(change)),
        Operation::EndIf { version } => (*version, None),
        _ => return Err(Failure::Refused("not a conditional operation".to_owned())),
    };
    let mut entry = stored.ok_or(Failure::Absent)?.clone();
    let is_expired = entry.is_expired(now_ms);
    let Some(body) = &mut entry.body else { return Err(Failure::Ended) };
    if is_expired && change.is_some() {
        return Err(Failure::Expired);
    }
    if entry.version != expected {
        return Err(Failure::Conflict { version: entry.version });
    }
    let Some(change) = change else {
        entry.propose_end(ballot);
        return Ok(entry);
    };
    if !matches!(change, Change::Value(_) | Change::Whole(_, _)) {
        decide_value_again(body, ballot, now_ms);
    }
    let (mut idle, mut expire_at) = (body.lease.idle, body.lease.expire_at);
    match change {
        Change::Value(value) => store.write_value(&mut entry, ballot, value.clone())?,
        Change::Whole(value, lifetimes) => {
            store.write_value(&mut entry, ballot, value.clone())?;
            (idle, expire_at) = new_lease(store.policy(), lifetimes, &entry, now_ms);
        }
        Change::Fields { set, delete } => {
            if !body.has_fields() {
                let why = "the value is a string of bytes; it has no fields to set".to_owned();
                return Err(Failure::Refused(why));
            }
            set_fields(&mut entry, set, delete, ballot);
        }
        Change::Lifetimes(lifetimes) => {
            (idle, expire_at) = new_lease(store.policy(), lifetimes, &entry, now_ms);
        }
        Change::Pin(node) => entry.write_pin(ballot, *node),
        _ => {
            let why = "this node does not know that change; upgrade it".to_owned();
            return Err(Failure::Refused(why));
        }
    }
    entry.write_lease(ballot, idle, expire_at);
    entry.touch(now_ms);
    within_size(entry, store.policy())
}

/// The same of fields, if fields are as they were seen.
fn decide_fields(
    operation: &Operation,
    policy: &TablePolicy,
    stored: Option<&Entry>,
    ballot: Version,
    now_ms: u64,
) -> Result<Entry, Failure> {
    let Operation::UpdateFieldsIf {
        birth,
        expected,
        is_all,
        set,
        delete,
        deadlines,
        lifetimes,
        ends_empty,
    } = operation
    else {
        return Err(Failure::Refused("not an operation on fields".to_owned()));
    };
    let mut entry = stored.ok_or(Failure::Absent)?.clone();
    let is_expired = entry.is_expired(now_ms);
    let body = entry.body.as_mut().ok_or(Failure::Ended)?;
    if is_expired {
        return Err(Failure::Expired);
    }
    let conflict = Failure::Conflict { version: entry.version };
    let value = body.value(now_ms);
    let Some(fields) = value.fields() else { return Err(conflict) };
    let own = body.field_deadlines();
    let is_as_seen = |(name, seen): (&Vec<u8>, &Option<u64>)| {
        let deadline = own.get(name).copied().unwrap_or(0);
        fields.get(name).map(|value| field_hash(value, deadline)) == *seen
    };
    let has_others = *is_all && fields.keys().any(|name| !expected.contains_key(name));
    if entry.birth != *birth || has_others || !expected.iter().all(is_as_seen) {
        return Err(conflict);
    }
    let deleted: BTreeSet<_> = delete.iter().collect();
    if *ends_empty && set.is_empty() && fields.keys().all(|name| deleted.contains(name)) {
        entry.propose_end(ballot);
        return Ok(entry);
    }
    decide_value_again(body, ballot, now_ms);
    let (mut idle, mut expire_at) = (body.lease.idle, body.lease.expire_at);
    set_fields(&mut entry, set, delete, ballot);
    let body = entry.body.iter_mut().flat_map(|body| &mut body.fields);
    for (field, deadline) in body.filter_map(|(name, field)| Some((field, deadlines.get(name)?))) {
        field.expire_at = (*deadline).min(Hlc::MS_MAX);
    }
    if let Some(lifetimes) = lifetimes {
        (idle, expire_at) = new_lease(policy, lifetimes, &entry, now_ms);
    }
    entry.write_lease(ballot, idle, expire_at);
    entry.touch(now_ms);
    within_size(entry, policy)
}

/// Gives every part of a value the ballot: nothing older comes up beside it later.
fn decide_value_again(body: &mut Body, ballot: Version, now_ms: u64) {
    body.fields.retain(|_, field| {
        let lives = field.expire_at == 0 || field.expire_at > now_ms;
        field.version = ballot;
        lives && field.value.is_some()
    });
    body.base.version = ballot;
}

/// Sets and deletes fields of a value that is the ballot's.
fn set_fields(
    entry: &mut Entry,
    set: &BTreeMap<Vec<u8>, Vec<u8>>,
    delete: &[Vec<u8>],
    ballot: Version,
) {
    if let Some(body) = &mut entry.body {
        if body.base.kind == Kind::Bytes {
            (body.base.kind, body.base.bytes) = (Kind::Map, Vec::new());
        }
        for name in set.keys().chain(delete) {
            body.fields.remove(name);
        }
    }
    for (name, value) in set {
        entry.write_field(ballot, name.clone(), Some(value.clone()));
    }
}

fn within_size(entry: Entry, policy: &TablePolicy) -> Result<Entry, Failure> {
    let size = entry.body.as_ref().map_or(0, Body::size) as u64;
    let limit = policy.max_value.into();
    if size > limit { Err(Failure::TooLarge { size, limit }) } else { Ok(entry) }
}

/// Whether the write with this version has taken effect in an entry, and nothing has replaced it.
fn has_taken(operation: &Operation, wrote: Version, entry: &Entry) -> bool {
    let began = operation.is_start() && entry.birth == wrote;
    let is_base = entry.body.as_ref().is_some_and(|body| body.base.version == wrote);
    began || is_base || entry.version == wrote
}

/// Whether two copies say the same but for when they were last used.
fn is_same(one: Option<&Entry>, other: Option<&Entry>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return one.is_none() && other.is_none() };
    let parts = |entry: &Entry| (entry.birth, entry.version, entry.is_ended());
    let of_body = |entry: &Entry| {
        let body = entry.body.clone();
        body.map(|body| (body.base, body.fields, body.lease, body.attributes, body.notes))
    };
    parts(one) == parts(other) && of_body(one) == of_body(other)
}

/// Of a node that may not decide, and has begun nothing.
pub(super) const UNWILLING: Failure = Failure::Unavailable { answered: 0, needed: 1, homes: 0 };

/// That so many of the homes that decide are not enough.
pub(super) fn unavailable(answered: usize, homes: usize) -> Failure {
    let (answered, needed, homes) = (answered as u8, majority(homes) as u8, homes as u8);
    Failure::Unavailable { answered, needed, homes }
}
