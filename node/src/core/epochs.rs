//! Epochs: whose majority decides about a slot, and who follows them.
//!
//! The rules are [`Seat`]'s and [`Proposal`]'s (`docs/decisions/0009`); this is what drives them. What is
//! *decided* goes by a slot's epoch: conditional operations, ends, and in tables that refuse to go on without
//! a majority everything. What is not goes by placement, and never waits for an epoch.
//!
//! # How an epoch comes about
//! - **Founding.** The primary of a slot founds it, alone, once it is in sync and every other member that has
//!   not left has told it that it knows no epoch of it, those included that only an earlier run knew. So nodes
//!   that start together found each slot once; those that start alone found all, and when they meet the younger
//!   lineages end in the oldest.
//! - **Following placement.** Where the ring's homes are others than the epoch's, where lineages wait to be
//!   absorbed, and where a home lost its memory, the first home that is there proposes a successor, and the
//!   next ones after a while. A home that lost its memory does so at once.
//! - **Meeting.** Nodes tell each other what they know ([`Step::Meet`]) when members change, at intervals, and
//!   when one was asked for something in the name of another epoch than it knows. Whoever is behind learns.
//! - **Getting ready.** A home compares with those that its seat wants ([`super::sync`]), which testify before
//!   and after.
//!
//! All this is said of many slots at once: what is alike goes as one run. Each other node is sent
//! [`MESSAGES_OPEN`] messages of [`STEPS_STEP`] slots or [`MESSAGE_BYTES`] at a time, and [`PROPOSALS_MAX`] slots
//! of a table are decided at a time.
//!
//! # On disk
//! A seat that changed counts for nothing until it is on disk as it is ([`Core::is_saved`]), and whatever follows
//! from it waits as an [`Effect`]. Beside the seats each core keeps the number of the segment that its copies
//! are in. In another segment they are lost. A core that ran before and finds no such number has lost what it
//! promised, too (*amnesia*): where it learns that it is a home, it is one without memory, until the next epoch.

pub(super) mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::message::{Epochs as EpochsMessage, EpochsAnswer, Message};
use annulus_proto::{NodeId, SLOT_COUNT, Slot, Status, Version};
use annulus_slots::{
    Config, Ending, EpochId, Meeting, Proposal, Refused, SOURCES_MAX, Seat, Standing, Successor,
    successor_homes,
};
use rand::RngExt;

use super::calls::Purpose;
use super::io::{Asker, Now, Output};
use super::kept::{Record, RecordChange, RecordName, Space};
use super::replica::{reject, reject_table};
use super::settings::Flaw;
use super::sync::PACE_STEP;
use super::{Core, Table};
use wire::{CONFIG_BYTES_MAX, Said, Step, record_of, record_to, runs, said_and_key, step_and_key};

/// The epochs of one table's slots, as far as this core has to do with them.
pub(super) struct Epochs {
    /// By slot.
    seats: Vec<Seat>,
    /// Slots whose seats the disk does not have as they are; then those that are on their way there.
    unsaved: BTreeSet<u16>,
    saving: BTreeSet<u16>,
    memory: Memory,
    /// Ballots that this node began.
    proposals: BTreeMap<u16, Proposal>,
    /// Slots that should get a successor, and when this node is to propose one.
    due: BTreeMap<u16, Duration>,
    /// The slot to go on with among these: none waits for others that are put off again and again.
    due_from: u16,
    /// Epochs of other lineages that are to absorb this one.
    rivals: BTreeMap<u16, Arc<Config>>,
    /// Slots whose lineage has ended, and into which.
    ended: BTreeMap<u16, EpochId>,
    /// Lineages that ended, to be absorbed.
    endings: BTreeMap<u16, Vec<Ending>>,
    /// Who knows an epoch of another lineage, one that is to end: it could not follow ours before that.
    foreign: BTreeMap<u16, BTreeMap<NodeId, Version>>,
    /// Slots with a home that neither answers nor promises anything before the next epoch.
    lame: BTreeSet<u16>,
    /// How many slots were looked at since the members changed; `None` once that were all.
    considered: Option<usize>,
    /// Whether there may be slots to found.
    founds: bool,
    outboxes: BTreeMap<NodeId, Outbox>,
    meet_due: BTreeMap<NodeId, Duration>,
    /// Who is being told of all slots, and of how many it was.
    meeting: Option<(NodeId, usize)>,
    /// With whom all was exchanged that there is, and in which state of the view.
    met: BTreeMap<NodeId, u64>,
    /// Who would not say that nobody knows a slot: it has not met all that it knew. Nothing is founded meanwhile.
    withheld: BTreeSet<NodeId>,
    /// How many successors were decided by ballots of this node.
    pub(super) decided: u64,
    /// How many slots could not be decided about when that was last looked at.
    pub(super) undecided: u32,
}

/// What the disk says of the segment that the copies are in.
#[derive(Debug)]
struct Memory {
    /// Whether what it says is true.
    is_saved: bool,
    is_saving: bool,
    /// Whether promises of earlier runs may be forgotten.
    amnesia: bool,
}

/// What is to be told another node.
#[derive(Debug, Default)]
struct Outbox {
    /// By slot, the last of each but for lineages to absorb.
    steps: BTreeMap<u16, Step>,
    /// These, of which there may be several of a slot: told when nothing else is to be.
    endings: BTreeMap<u16, VecDeque<Ending>>,
    /// The slot to go on with: none waits for others that always have something more.
    next_slot: u16,
    open: usize,
    /// Slots whose epochs it was told and has not been heard to have taken in.
    learns: BTreeSet<u16>,
    /// The state of the view in which everything was begun to be exchanged, if that did not fail since.
    meets: Option<u64>,
}

/// What may happen once seats are on disk.
#[derive(Debug)]
pub(super) enum Effect {
    Reply { to: Asker, id: u64, said: Vec<(Slot, Said)> },
    Tell { table: usize, node: NodeId, slot: Slot, step: Step },
    Drop { table: usize, slot: Slot },
}

/// An operator's word that members are dead, whatever only they have.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    nodes: BTreeSet<NodeId>,
    /// When to act on it: the others are asked before what they know.
    at: Option<Duration>,
}

/// What waits for the disk.
#[derive(Debug, Default)]
pub(super) struct Effects {
    waiting: Vec<Effect>,
    under_way: Option<(u64, Vec<Effect>)>,
    /// What waits for nothing any more but its turn.
    ready: VecDeque<Effect>,
    again_at: Duration,
    /// Before that nothing more is sent to disk.
    paused_until: Duration,
    /// Whether something is to be sent there then.
    is_paused: bool,
}

impl Effects {
    /// Whether something is left to do at once.
    pub(super) fn are_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When to send to disk what came too soon after what was sent last, if anything did.
    pub(super) fn next_save(&self) -> Option<Duration> {
        self.is_paused.then_some(self.paused_until)
    }
}

/// What a slot's epoch should become.
enum Target {
    Next(Vec<NodeId>),
    End(EpochId),
}

/// Messages to one node that may wait for their answers.
const MESSAGES_OPEN: usize = 4;
/// When a message is full, and an answer, that of all cores together: in bytes of what is said.
const MESSAGE_BYTES: usize = 96 << 10;
const ANSWER_BYTES: usize = 400 << 10;
/// What is done in one go, a quarter of a millisecond, after which requests that came in are served: what is said with
/// one message, slots that may get a ballot, effects, entries that are dropped.
const STEPS_STEP: usize = 256;
const PROPOSALS_STEP: usize = 128;
const EFFECTS_STEP: usize = 1_024;
const DROPPED_STEP: u64 = 64;
/// Ballots of a table that may be under way.
const PROPOSALS_MAX: usize = 4_096;
/// Ballots go at the rate that bounds what moves slots, beside the entries: one takes all who have to do
/// with it together about as much of their processors as so many bytes of entries. So many may begin per
/// second at any rate.
const BALLOT_BYTES: u64 = 4 << 10;
const BALLOTS_PER_SECOND_MIN: u64 = 256;
/// How long each further home waits before it proposes, and one that is not ready beyond that.
const TURN: Duration = Duration::from_millis(600);
const TURN_OF_UNREADY: Duration = Duration::from_secs(2);
/// After how long a ballot that came to nothing is begun anew, at least.
const PROPOSE_AGAIN: Duration = Duration::from_millis(900);
/// How long before what did not arrive is told again.
const MEET_AGAIN: Duration = Duration::from_secs(1);
/// At most how long after a change of members nodes tell each other what they know: the exact time is drawn.
const MEET_SPREAD: Duration = Duration::from_millis(100);
/// How soon after one batch for the disk the next one goes there: a commit costs some tenths of a
/// millisecond of processor time however little is in it, and where many slots change hands there is
/// always something.
const SAVE_PAUSE: Duration = Duration::from_millis(20);
/// How long before a disk that took nothing is tried again.
const SAVE_RETRY: Duration = Duration::from_secs(1);
/// How long others have to say what they know before an operator's word counts for an epoch.
const ASK_BEFORE_FORCING: Duration = Duration::from_secs(2);
/// What names the record of the segment's number.
const MEMORY_REST: &[u8] = b"memory";

impl Outbox {
    fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.endings.is_empty()
    }

    /// Some of what goes next, in ascending order of slots.
    fn next(&self) -> Vec<(Slot, Step)> {
        let of_slot = |(index, step)| Some((Slot::new(index)?, step));
        if self.steps.is_empty() {
            let ending = |(index, endings): (&u16, &VecDeque<Ending>)| {
                Some((*index, Step::Absorb(endings.front()?.clone())))
            };
            let endings = self.endings.iter().take(STEPS_STEP);
            return endings.filter_map(ending).filter_map(of_slot).collect();
        }
        let is_last_before =
            self.steps.last_key_value().is_some_and(|(last, _)| *last < self.next_slot);
        let from = if is_last_before { 0 } else { self.next_slot };
        let steps = self.steps.range(from..).take(STEPS_STEP);
        let steps = steps.map(|(index, step)| (*index, step.clone()));
        steps.filter_map(of_slot).collect()
    }

    /// What was next of these slots is on its way.
    fn take(&mut self, slots: &[(Slot, Step)]) {
        for (slot, step) in slots {
            let index = slot.index();
            if !matches!(step, Step::Absorb(_)) {
                self.steps.remove(&index);
                self.next_slot = index + 1;
                continue;
            }
            let Some(endings) = self.endings.get_mut(&index) else { continue };
            endings.pop_front();
            if endings.is_empty() {
                self.endings.remove(&index);
            }
        }
    }
}

impl Epochs {
    /// Nothing is known yet.
    pub(super) fn new(me: NodeId) -> Self {
        Self {
            seats: vec![Seat::new(me); usize::from(SLOT_COUNT)],
            unsaved: BTreeSet::new(),
            saving: BTreeSet::new(),
            memory: Memory { is_saved: false, is_saving: false, amnesia: false },
            proposals: BTreeMap::new(),
            due: BTreeMap::new(),
            due_from: 0,
            rivals: BTreeMap::new(),
            ended: BTreeMap::new(),
            endings: BTreeMap::new(),
            foreign: BTreeMap::new(),
            lame: BTreeSet::new(),
            considered: None,
            founds: true,
            outboxes: BTreeMap::new(),
            meet_due: BTreeMap::new(),
            meeting: None,
            met: BTreeMap::new(),
            withheld: BTreeSet::new(),
            decided: 0,
            undecided: 0,
        }
    }

    pub(super) fn seat(&self, slot: Slot) -> &Seat {
        &self.seats[usize::from(slot.index())]
    }

    fn seat_mut(&mut self, slot: Slot) -> &mut Seat {
        &mut self.seats[usize::from(slot.index())]
    }

    /// Whether the disk has a slot's seat as it is, and knows of the segment.
    pub(super) fn is_saved(&self, slot: Slot) -> bool {
        let is_in = |set: &BTreeSet<u16>| !set.is_empty() && set.contains(&slot.index());
        self.memory.is_saved && !is_in(&self.unsaved) && !is_in(&self.saving)
    }

    fn lacks_disk(&self) -> bool {
        !self.unsaved.is_empty() || !self.memory.is_saved
    }

    /// Forgets what was to be said to a node that is gone.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.outboxes.remove(&node);
        self.meet_due.remove(&node);
        self.meeting.take_if(|(other, _)| *other == node);
        self.met.remove(&node);
        self.withheld.remove(&node);
        self.foreign.retain(|_, foreign| {
            foreign.remove(&node);
            !foreign.is_empty()
        });
    }

    /// Has a node told everything anew.
    #[cfg(test)]
    pub(super) fn meet_anew(&mut self, now: Now, node: NodeId) {
        self.meet_due.insert(node, now.monotonic);
        self.met.remove(&node);
    }

    /// Whether somebody is being told everything.
    #[cfg(test)]
    pub(super) fn is_meeting(&self) -> bool {
        self.meeting.is_some()
    }

    /// Whether a node was told everything that there is, and took it in.
    #[cfg(test)]
    pub(super) fn has_met(&self, node: NodeId) -> bool {
        self.met.contains_key(&node)
    }

    /// Notes that a node has been told all that there is, and has said what it knows, if that is so.
    fn note_met(&mut self, node: NodeId, generation: u64) {
        let is_over = self.meeting.is_none_or(|(other, _)| other != node);
        let outbox = self.outboxes.get(&node).filter(|it| it.open == 0 && it.is_empty());
        if is_over && outbox.is_some_and(|it| it.meets == Some(generation)) {
            self.met.insert(node, generation);
        }
    }

    /// Something did not get to a node: it is told everything again before long.
    fn meet_soon(&mut self, now: Now, node: NodeId) {
        let again = now.monotonic + MEET_AGAIN;
        let due = self.meet_due.entry(node).or_insert(again);
        *due = (*due).min(again);
    }

    /// Notes whether a node is of another lineage, which is to end.
    fn note_lineage(&mut self, slot: Slot, node: NodeId, lineage: Option<Version>) {
        let index = slot.index();
        if let Some(lineage) = lineage {
            self.foreign.entry(index).or_default().insert(node, lineage);
        } else if let Some(foreign) = self.foreign.get_mut(&index) {
            foreign.remove(&node);
            if foreign.is_empty() {
                self.foreign.remove(&index);
            }
        }
    }

    fn is_foreign(&self, slot: Slot, node: NodeId) -> bool {
        self.foreign.get(&slot.index()).is_some_and(|foreign| foreign.contains_key(&node))
    }

    /// Whether a node may become a home of a slot where those lineages are absorbed: an epoch most of
    /// whose homes are of another lineage would have no majority, and no successor.
    fn may_follow(&self, slot: Slot, node: NodeId, absorbed: &[EpochId]) -> bool {
        let foreign = self.foreign.get(&slot.index()).and_then(|foreign| foreign.get(&node));
        foreign.is_none_or(|lineage| absorbed.iter().any(|it| it.lineage == *lineage))
    }

    fn tell(&mut self, node: NodeId, slot: Slot, step: Step) {
        let outbox = self.outboxes.entry(node).or_default();
        let Step::Absorb(ending) = step else {
            // What is newer says all of what is older, but that a question tells nothing.
            let is_told = matches!(outbox.steps.get(&slot.index()), Some(Step::Learn(_)));
            if !(is_told && matches!(step, Step::Meet(_))) {
                outbox.steps.insert(slot.index(), step);
            }
            return;
        };
        let endings = outbox.endings.entry(slot.index()).or_default();
        if endings.len() < SOURCES_MAX && !endings.contains(&ending) {
            endings.push_back(ending);
        }
    }
}

// What the rest of the core asks.
impl Core {
    pub(super) fn seat(&self, table: usize, slot: Slot) -> &Seat {
        self.tables[table].epochs.seat(slot)
    }

    /// The epoch of a slot that this node knows, if any.
    pub(super) fn epoch(&self, table: usize, slot: Slot) -> Option<&Arc<Config>> {
        self.seat(table, slot).config()
    }

    /// Whether what this node is to a slot's epoch is on disk as it is.
    pub(super) fn is_saved_seat(&self, table: usize, slot: Slot) -> bool {
        self.tables[table].epochs.is_saved(slot)
    }

    /// Whether a copy that is stored here counts in the name of an epoch.
    ///
    /// # Errors
    /// Why not. What is not on disk yet is as good as another epoch.
    pub(super) fn may_store(
        &self,
        table: usize,
        slot: Slot,
        under: EpochId,
    ) -> Result<(), Refused> {
        if !self.is_saved_seat(table, slot) {
            return Err(Refused::OtherEpoch);
        }
        self.seat(table, slot).may_store(under)
    }

    /// Whether this node may answer in the name of an epoch. Look up first what is to be answered with: it
    /// may turn out to be damaged.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn may_answer(
        &mut self,
        table: usize,
        slot: Slot,
        under: EpochId,
    ) -> Result<(), Refused> {
        self.note_damage(table);
        if self.has(Flaw::LostHomesAnswer) {
            return self.may_store(table, slot, under);
        }
        self.may_store(table, slot, under)?;
        self.seat(table, slot).may_answer(under)
    }

    /// Whether a slot's epoch counts on this node's copy.
    pub(super) fn is_decider(&self, table: usize, slot: Slot) -> bool {
        self.seat(table, slot).is_home() && !self.has(Flaw::EarlyReceipts)
    }

    /// In the name of which epoch this node may decide about a slot.
    pub(super) fn deciding(&self, table: usize, slot: Slot) -> Option<&Arc<Config>> {
        let is_saved = self.is_saved_seat(table, slot);
        let seat = self.seat(table, slot);
        if self.has(Flaw::LostHomesAnswer) {
            return seat.config().filter(|_| is_saved && seat.is_home());
        }
        seat.may_coordinate().ok().filter(|_| is_saved)
    }

    /// How many homes of an epoch are a majority.
    pub(super) fn majority_of(&self, config: &Config) -> usize {
        if self.has(Flaw::CountsTheLiving) {
            let living = config.homes.iter().filter(|home| self.is_active(**home)).count();
            return super::majority(living.max(1));
        }
        config.majority()
    }

    /// Whether a majority of an epoch's homes is in contact, this node among them if it is one.
    pub(super) fn is_majority_in_contact(&self, now: Now, config: &Config) -> bool {
        let me = self.id();
        let is_there = |home: &&NodeId| **home == me || self.is_in_contact(now, **home);
        config.homes.iter().filter(is_there).count() >= self.majority_of(config)
    }

    /// Whether all homes that placement gives a slot are those of its epoch, and all is ready here for it.
    #[cfg(test)]
    pub(super) fn is_settled(&self, now: Now, table: usize, slot: Slot) -> bool {
        let state = self.slot_state(table, slot);
        let seat = self.seat(table, slot);
        let mut placed = self.homes(table, slot);
        let mut homes = seat.config().map(|config| config.homes.clone()).unwrap_or_default();
        placed.sort_unstable();
        homes.sort_unstable();
        let is_done = placed == homes && seat.is_ready() && self.is_saved_seat(table, slot);
        let in_contact = || {
            seat.config().is_some_and(|config| {
                config.homes.iter().all(|it| *it == self.id() || self.is_in_contact(now, *it))
            })
        };
        !(state.home || seat.is_home()) || is_done && in_contact()
    }

    /// Another node is to be asked what it knows of a slot: it answered for another epoch.
    pub(super) fn meet_about(&mut self, table: usize, slot: Slot, node: NodeId) {
        let id = self.epoch(table, slot).map(|config| config.id);
        self.tell_soon(table, node, slot, Step::Meet(id));
    }

    /// Notes that records were damaged: what else was lost with them nobody knows.
    pub(super) fn note_damage(&mut self, table: usize) {
        let damaged = self.tables[table].store.take_damaged();
        if damaged > 0 {
            self.counters.add_many("records_dropped_damaged", damaged);
            self.lose_all(table);
        }
    }

    /// The copies of a table are not whole any more: this home counts again in the next epoch, which is
    /// due.
    pub(super) fn lose_all(&mut self, table: usize) {
        for slot in self.slots() {
            if self.seat(table, slot).config().is_some() {
                let epochs = &mut self.tables[table].epochs;
                epochs.seat_mut(slot).lose();
                epochs.due.insert(slot.index(), Duration::ZERO);
                self.seat_changed(table, slot);
            }
        }
    }

    /// A slot's copy is about to be dropped against receipts.
    pub(super) fn hand_over_seat(&mut self, table: usize, slot: Slot) {
        let is_to_say = !self.has(Flaw::EarlyReceipts);
        let seat = self.tables[table].epochs.seat_mut(slot);
        if seat.config().is_some() && is_to_say {
            seat.hand_over();
            self.seat_changed(table, slot);
        }
        self.effects.waiting.push(Effect::Drop { table, slot });
    }
}

// On disk.
impl Core {
    /// Takes back what an earlier run kept of epochs.
    pub(super) fn restore_seats(&mut self, kept: &[Record]) {
        let me = self.id();
        let has_run_before = self.floor_at_start > Version::ZERO;
        for index in 0..self.tables.len() {
            let of_table = || {
                kept.iter()
                    .filter(|it| it.name.space == Space::Epochs)
                    .filter(|it| it.name.table == index)
            };
            let table = &mut self.tables[index];
            let number = table.store.instance();
            let mine = |it: &&Record| {
                it.name.rest == MEMORY_REST && usize::from(it.name.slot.index()) == self.number
            };
            let memory = of_table().find(mine).and_then(|it| {
                let (number, rest) = it.value.split_first_chunk()?;
                Some((u64::from_le_bytes(*number), *rest.first()? != 0))
            });
            let amnesia = memory.map_or(has_run_before, |(_, amnesia)| amnesia);
            let has_memory = memory.is_some_and(|(kept, _)| kept == number);
            table.epochs.memory.amnesia = amnesia;
            table.epochs.memory.is_saved = has_memory;
            // Neighbours mostly say the same, and share it.
            let mut last: Option<Arc<Config>> = None;
            for record in of_table().filter(|it| it.name.rest.is_empty()) {
                let slot = record.name.slot;
                let Some(mut said) = record_of(&record.value) else {
                    self.counters.add("seats_not_restored");
                    continue;
                };
                if let Some(config) = &mut said.config {
                    match &last {
                        Some(last) if last == config => *config = last.clone(),
                        _ => last = Some(config.clone()),
                    }
                }
                self.counters.add("seats_restored");
                *table.epochs.seat_mut(slot) = Seat::reopened(me, said, has_memory);
                if !has_memory {
                    self.counters.add("seats_without_memory");
                    table.epochs.unsaved.insert(slot.index());
                }
            }
        }
    }

    /// Sends to disk what is not there yet. What waits for nothing more is done with the next timeouts.
    pub(super) fn flush_epochs(&mut self, now: Now) {
        if self.effects.under_way.is_none() {
            if self.tables.iter().any(|table| table.epochs.lacks_disk()) {
                self.save_seats(now);
            } else {
                self.effects.ready.extend(self.effects.waiting.drain(..));
            }
        }
        self.send_outboxes(now);
    }

    fn save_seats(&mut self, now: Now) {
        self.effects.is_paused = self.effects.paused_until > now.monotonic;
        if self.effects.is_paused || self.effects.again_at > now.monotonic {
            return;
        }
        self.effects.paused_until = now.monotonic + SAVE_PAUSE;
        let mut changes = Vec::new();
        let number = self.number;
        let skips_ballots = self.has(Flaw::ForgetsPromises);
        // Neighbours mostly are alike.
        let mut last = None::<(annulus_slots::Record, Vec<u8>)>;
        for (index, table) in self.tables.iter_mut().enumerate() {
            let Table { epochs, store, .. } = table;
            epochs.saving = std::mem::take(&mut epochs.unsaved);
            for slot in epochs.saving.iter().filter_map(|slot| Slot::new(*slot)) {
                let mut record = epochs.seats[usize::from(slot.index())].record();
                if skips_ballots {
                    (record.promised, record.accepted) = (None, None);
                }
                let value = match &last {
                    Some((same, value)) if *same == record => value.clone(),
                    _ => {
                        let value = record_to(&record);
                        last = Some((record, value.clone()));
                        value
                    }
                };
                let (value, rest) = (Some(value), Vec::new());
                let name = RecordName { space: Space::Epochs, table: index, slot, rest };
                changes.push(RecordChange { name, value });
            }
            if !epochs.memory.is_saved {
                epochs.memory.is_saving = true;
                let mut value = store.instance().to_le_bytes().to_vec();
                value.push(u8::from(epochs.memory.amnesia));
                let slot = Slot::new(number as u16).expect("cores are fewer than slots");
                let rest = MEMORY_REST.to_vec();
                let name = RecordName { space: Space::Epochs, table: index, slot, rest };
                changes.push(RecordChange { name, value: Some(value) });
            }
        }
        self.counters.add_many("seats_saved", changes.len() as u64);
        let ticket = self.saving.next_ticket();
        self.effects.under_way = Some((ticket, std::mem::take(&mut self.effects.waiting)));
        self.outputs.push_back(Output::Persist { ticket, changes });
    }

    /// A batch of seats is on disk, or it is not known to be. Returns whether it was one of seats.
    pub(super) fn on_seats_persisted(&mut self, now: Now, ticket: u64, is_on_disk: bool) -> bool {
        let Some((_, effects)) = self.effects.under_way.take_if(|(open, _)| *open == ticket) else {
            return false;
        };
        self.saving.is_failing = !is_on_disk;
        for Table { epochs, .. } in &mut self.tables {
            let saving = std::mem::take(&mut epochs.saving);
            let memory = &mut epochs.memory;
            let saved_memory = std::mem::take(&mut memory.is_saving);
            if is_on_disk {
                memory.is_saved |= saved_memory;
            } else {
                epochs.unsaved.extend(saving);
            }
        }
        if is_on_disk {
            self.effects.ready.extend(effects);
        } else {
            self.counters.add("disk_failures");
            self.effects.again_at = now.monotonic + SAVE_RETRY;
            // Nobody is told anything, but that this node cannot say.
            let late = std::mem::take(&mut self.effects.waiting);
            for effect in effects.into_iter().chain(late) {
                match effect {
                    Effect::Reply { to, id, .. } => {
                        self.reply(now, to, id, EpochsAnswer { answers: Vec::new() });
                    }
                    Effect::Tell { table, node, slot, step } => {
                        let epochs = &mut self.tables[table].epochs;
                        if matches!(step, Step::Learn(_)) {
                            epochs.outboxes.entry(node).or_default().learns.insert(slot.index());
                        }
                        epochs.meet_soon(now, node);
                    }
                    // Its receipts are used up: nothing else would have it done.
                    Effect::Drop { .. } => self.effects.waiting.push(effect),
                }
            }
        }
        true
    }

    /// Does some of what waits for nothing any more.
    pub(super) fn carry_out_some(&mut self, now: Now) {
        let (mut effects, mut dropped) = (0, 0);
        while effects < EFFECTS_STEP && dropped < DROPPED_STEP {
            let Some(effect) = self.effects.ready.pop_front() else { break };
            effects += 1;
            match effect {
                Effect::Reply { to, id, said } => {
                    // What is left out is asked for again.
                    let bytes_max = ANSWER_BYTES / self.cores;
                    let (answers, _) = runs(&said, self.cores as u16, bytes_max, said_and_key);
                    effects += said.len();
                    self.reply(now, to, id, EpochsAnswer { answers });
                }
                Effect::Tell { table, node, slot, step } => {
                    self.tables[table].epochs.tell(node, slot, step);
                }
                Effect::Drop { table, slot } => {
                    dropped += self.drop_handed_over(now, table, slot);
                }
            }
        }
    }

    /// The slots with an epoch that somebody who is to follow has not been heard to have taken in: were a node that
    /// decided it to leave, nobody might know.
    pub(super) fn slots_untold(&self, table: usize) -> BTreeSet<u16> {
        let Effects { waiting, under_way, ready, .. } = &self.effects;
        let under_way = under_way.iter().flat_map(|(_, effects)| effects);
        let to_tell = |effect: &Effect| match effect {
            Effect::Tell { table: of, node, slot, step: Step::Learn(_) } if *of == table => {
                self.is_active(*node).then(|| slot.index())
            }
            _ => None,
        };
        let mut slots: BTreeSet<u16> =
            waiting.iter().chain(under_way).chain(ready).filter_map(to_tell).collect();
        for (node, outbox) in &self.tables[table].epochs.outboxes {
            if !self.is_active(*node) {
                // It cannot be told, and asks once it is back.
                continue;
            }
            let learns = outbox.steps.iter().filter(|(_, step)| matches!(step, Step::Learn(_)));
            slots.extend(learns.map(|(index, _)| *index).chain(outbox.learns.iter().copied()));
        }
        slots
    }

    pub(super) fn tell_soon(&mut self, table: usize, node: NodeId, slot: Slot, step: Step) {
        if node != self.id() {
            self.effects.waiting.push(Effect::Tell { table, node, slot, step });
        }
    }
}

// What changes seats.
impl Core {
    /// A seat is another one: it has to go to disk, and what the node keeps of the slot follows it.
    fn seat_changed(&mut self, table: usize, slot: Slot) {
        self.tables[table].epochs.unsaved.insert(slot.index());
        self.follow_seat(table, slot);
    }

    /// Whether this node holds the slot or gives it away follows from the seat.
    fn follow_seat(&mut self, table: usize, slot: Slot) {
        let decides = self.is_decider(table, slot);
        let state = &mut self.tables[table].slots[usize::from(slot.index())];
        if state.decides != decides {
            state.decides = decides;
            let keeps = decides || state.home;
            self.hold_or_leave(table, slot, keeps);
            if !keeps && self.tables[table].custody.holding(slot.index()).attempt().is_some() {
                // Its homes are to be compared with, and not when their time comes.
                for home in self.homes(table, slot) {
                    self.tables[table].compare_waiting(home, Duration::ZERO);
                }
            }
        }
    }

    /// Follows an epoch, if it is a later one than is known here. Returns whether it did.
    fn learn(&mut self, now: Now, table: usize, slot: Slot, config: &Arc<Config>) -> bool {
        let me = self.id();
        let epochs = &mut self.tables[table].epochs;
        let is_first = epochs.seat(slot).config().is_none();
        if epochs.seat(slot).meet(config) != Meeting::WeAreBehind {
            return false;
        }
        if config_is_too_long(config) {
            self.counters.add("epochs_too_long");
            return false;
        }
        let Ok(true) = epochs.seat_mut(slot).learn(config) else { return false };
        if is_first && epochs.memory.amnesia {
            let seat = epochs.seat_mut(slot);
            let mut record = seat.record();
            record.before = record.before.map(|(source, _)| (source, Standing::Blank));
            if seat.is_home() {
                record.standing = Standing::Blank;
            }
            *seat = Seat::reopened(me, record, true);
        }
        let index = slot.index();
        epochs.proposals.remove(&index);
        epochs.ended.remove(&index);
        // Who is of another lineage is so still, unless that is known to have ended in this epoch.
        let is_merged = |lineage: Version| {
            config.id.lineage == lineage || config.absorbed.iter().any(|it| it.lineage == lineage)
        };
        if let Some(foreign) = epochs.foreign.get_mut(&index) {
            foreign.retain(|_, lineage| !is_merged(*lineage));
            if foreign.is_empty() {
                epochs.foreign.remove(&index);
            }
        }
        epochs.lame.remove(&index);
        epochs.due.remove(&index);
        let is_behind = |it: &Arc<Config>| config.supersedes(it.id) || it.id == config.id;
        if epochs.rivals.get(&index).is_some_and(is_behind) {
            epochs.rivals.remove(&index);
        }
        if let Some(endings) = epochs.endings.get_mut(&index) {
            endings.retain(|ending| !config.supersedes(ending.config.id));
            if endings.is_empty() {
                epochs.endings.remove(&index);
            }
        }
        self.counters.add("epochs_followed");
        self.seat_changed(table, slot);
        self.compare_with_wanted(now, table, slot);
        self.consider(now, table, slot);
        true
    }

    /// Has the comparisons begin that make this node ready.
    fn compare_with_wanted(&mut self, now: Now, table: usize, slot: Slot) {
        let wanted = self.seat(table, slot).wanted();
        for node in wanted {
            self.tables[table].compare_waiting(node, now.monotonic);
        }
    }

    /// What was asked of a node before a comparison came out the same after it.
    pub(super) fn on_testimony(
        &mut self,
        table: usize,
        slot: Slot,
        node: NodeId,
        (ask, testimony, floor): (annulus_slots::Ask, annulus_slots::Testimony, Version),
    ) {
        self.raise_floor(table, slot, floor);
        if self.tables[table].epochs.seat_mut(slot).on_compared(ask, node, testimony) {
            self.counters.add("seats_ready");
            self.seat_changed(table, slot);
        }
    }

    /// Notes what another node knows, and what follows from it. Returns whether it is behind, or to yield.
    fn meet_config(&mut self, now: Now, table: usize, slot: Slot, theirs: &Arc<Config>) -> Meeting {
        let meeting = self.seat(table, slot).meet(theirs);
        match meeting {
            Meeting::WeAreBehind => {
                self.learn(now, table, slot, theirs);
            }
            Meeting::WeYield => {
                let epochs = &mut self.tables[table].epochs;
                let rival = epochs.rivals.entry(slot.index()).or_insert_with(|| theirs.clone());
                let is_better = theirs.id.lineage < rival.id.lineage || theirs.supersedes(rival.id);
                if is_better {
                    *rival = theirs.clone();
                }
                if epochs.ended.contains_key(&slot.index()) {
                    self.tell_of_endings(table, slot);
                } else {
                    self.consider(now, table, slot);
                }
            }
            Meeting::Same | Meeting::TheyAreBehind | Meeting::TheyYield => {}
        }
        meeting
    }

    /// Notes whether who knows an epoch could follow one of ours.
    fn note_meeting(
        &mut self,
        now: Now,
        table: usize,
        (slot, node): (Slot, NodeId),
        meeting: Meeting,
        theirs: &Config,
    ) {
        let lineage = (meeting == Meeting::TheyYield).then_some(theirs.id.lineage);
        self.tables[table].epochs.note_lineage(slot, node, lineage);
        self.consider(now, table, slot);
    }

    /// Tells those who are to absorb this lineage that it has ended, and which ones ended in it.
    fn tell_of_endings(&mut self, table: usize, slot: Slot) {
        let epochs = &self.tables[table].epochs;
        let index = slot.index();
        let (Some(into), Some(rival)) = (epochs.ended.get(&index), epochs.rivals.get(&index))
        else {
            return;
        };
        let Some(config) = epochs.seat(slot).config() else { return };
        let mut all = vec![Ending { config: config.clone(), into: *into }];
        all.extend(epochs.endings.get(&index).into_iter().flatten().cloned());
        for home in rival.homes.clone() {
            for ending in &all {
                self.tell_soon(table, home, slot, Step::Absorb(ending.clone()));
            }
        }
    }

    fn absorb(&mut self, now: Now, table: usize, slot: Slot, ending: Ending) -> Said {
        let Some(config) = self.epoch(table, slot).cloned() else { return Said::Refused };
        let is_old = config.supersedes(ending.config.id) || config.id == ending.config.id;
        if is_old || !self.seat(table, slot).is_home() {
            return Said::Knows(Some(config));
        }
        if config_is_too_long(&ending.config) {
            return Said::Refused;
        }
        let epochs = &mut self.tables[table].epochs;
        let endings = epochs.endings.entry(slot.index()).or_default();
        let known = endings.iter_mut().find(|it| it.config.id == ending.config.id);
        if known.is_none() && endings.len() < SOURCES_MAX {
            endings.push(ending);
            if epochs.ended.contains_key(&slot.index()) {
                self.tell_of_endings(table, slot);
            }
        }
        self.consider(now, table, slot);
        Said::Agrees
    }
}

// Proposing.
impl Core {
    /// What a slot's epoch should become, as this node sees it; None if it is as it should be.
    fn target(&self, table: usize, slot: Slot) -> Option<Target> {
        let epochs = &self.tables[table].epochs;
        let (seat, index) = (epochs.seat(slot), slot.index());
        let config = seat.config().filter(|_| seat.is_home())?;
        // One that is blank may have forgotten what it promised: others propose, once they hear of it.
        if epochs.ended.contains_key(&index) || seat.standing() == Standing::Blank {
            return None;
        }
        if let Some(rival) = epochs.rivals.get(&index) {
            return Some(Target::End(rival.id));
        }
        let placed = self.ring_homes(table, slot);
        let is_same = |one: &[NodeId], other: &[NodeId]| {
            one.len() == other.len() && one.iter().all(|node| other.contains(node))
        };
        // Of what has ended that only which ended in this lineage, or in one that is absorbed.
        let endings = epochs.endings.get(&index);
        let next = endings.map(|endings| next_within_bounds(config, &[], endings));
        let absorbed = next.as_ref().map_or(&config.absorbed, |next| &next.absorbed);
        let absorbs = absorbed.len() != config.absorbed.len();
        let lost = seat.standing() == Standing::Lost || epochs.lame.contains(&index);
        let all_follow = !epochs.foreign.contains_key(&index);
        if !absorbs && !lost && all_follow && is_same(placed, &config.homes) {
            return None;
        }
        let followers =
            placed.iter().copied().filter(|node| epochs.may_follow(slot, *node, absorbed));
        let placed = &followers.collect::<Vec<_>>()[..];
        if !absorbs && !lost && is_same(placed, &config.homes) {
            return None;
        }
        let view = &self.standing.view;
        let left = |node| view.get(node).is_some_and(|member| member.status == Status::Left);
        let homes = successor_homes(&config.homes, placed, left);
        let changes = absorbs || lost || !is_same(&homes, &config.homes);
        changes.then_some(Target::Next(homes))
    }

    /// Whether a slot should get a successor, and when this node is to propose it.
    pub(super) fn consider(&mut self, now: Now, table: usize, slot: Slot) {
        let index = slot.index();
        if self.target(table, slot).is_none() {
            self.tables[table].epochs.due.remove(&index);
            return;
        }
        if !self.tables[table].epochs.due.contains_key(&index) {
            let at = now.monotonic + self.turn(table, slot);
            self.tables[table].epochs.due.insert(index, at);
        }
    }

    /// How long this node waits for others to propose a slot's successor.
    fn turn(&self, table: usize, slot: Slot) -> Duration {
        let (me, seat) = (self.id(), self.seat(table, slot));
        let Some(config) = seat.config() else { return Duration::ZERO };
        if seat.standing() == Standing::Lost {
            return Duration::ZERO;
        }
        let before = config.homes.iter().take_while(|home| **home != me);
        let turns = before.filter(|home| self.is_active(**home)).count() as u32;
        let unready = if seat.is_ready() { Duration::ZERO } else { TURN_OF_UNREADY };
        TURN * turns + unready
    }

    /// Begins ballots whose time has come.
    fn propose_due(&mut self, now: Now, table: usize) {
        let epochs = &mut self.tables[table].epochs;
        if epochs.due.is_empty() {
            return;
        }
        let room = PROPOSALS_MAX.saturating_sub(epochs.proposals.len());
        let from = epochs.due_from;
        let due = epochs.due.range(from..).filter(|(_, at)| **at <= now.monotonic);
        let due: Vec<u16> = due.map(|(index, _)| *index).take(PROPOSALS_STEP).collect();
        let is_full = due.len() == PROPOSALS_STEP;
        epochs.due_from = due.last().filter(|_| is_full).map_or(0, |last| last + 1);
        // Those before it once more, once all after it had their turn.
        let is_more = is_full || from > 0;
        let rate = self.move_rate().max(BALLOTS_PER_SECOND_MIN * BALLOT_BYTES);
        let (mut begun, mut last) = (0, None::<(Arc<Config>, Vec<NodeId>, Arc<Config>)>);
        for slot in due.into_iter().filter_map(Slot::new) {
            let index = slot.index();
            let epochs = &self.tables[table].epochs;
            if begun >= room && !epochs.proposals.contains_key(&index) {
                return;
            }
            if !self.ballots.may_go(now.monotonic, rate) {
                self.tables[table].epochs.due_from = index;
                let wait = self.ballots.wait(rate).max(PACE_STEP);
                self.first_to_propose = (table + 1) % self.tables.len();
                self.ballots_short_until = now.monotonic + TURN;
                return self.go_on_with_epochs(now.monotonic + wait);
            }
            let turn = self.turn(table, slot);
            if turn > Duration::ZERO && self.ballots_short_until > now.monotonic {
                // Whoever is before this node is as short of them, mostly: both would begin one.
                self.tables[table].epochs.due.insert(index, now.monotonic + turn);
                continue;
            }
            let Some(target) = self.target(table, slot) else {
                self.tables[table].epochs.due.remove(&index);
                continue;
            };
            let again = PROPOSE_AGAIN.mul_f64(1.0 + self.rng.random::<f64>());
            let again = now.monotonic + again + turn;
            self.tables[table].epochs.due.insert(index, again);
            let Some(config) = self.epoch(table, slot).cloned() else { continue };
            if !self.is_majority_in_contact(now, &config) {
                continue;
            }
            let epochs = &self.tables[table].epochs;
            let successor = match target {
                Target::End(into) => {
                    let rival = epochs.rivals.get(&index);
                    if !rival.is_some_and(|rival| self.is_majority_in_contact(now, rival)) {
                        continue;
                    }
                    Successor::Ended { into }
                }
                Target::Next(homes) => {
                    // Who is of another lineage is known once all has been said.
                    let is_met = |home: &NodeId| {
                        *home == self.id()
                            || config.homes.contains(home)
                            || epochs.met.get(home) == Some(&self.standing.generation)
                    };
                    if !homes.iter().all(is_met) {
                        let soon = now.monotonic + MEET_SPREAD;
                        self.tables[table].epochs.due.insert(index, soon);
                        continue;
                    }
                    let ended = epochs.endings.get(&index).map_or(&[][..], Vec::as_slice);
                    let shared = last.as_ref().filter(|(of, with, _)| {
                        ended.is_empty() && *of == config && *with == homes
                    });
                    let next = match shared {
                        Some((_, _, next)) => next.clone(),
                        None => next_within_bounds(&config, &homes, ended),
                    };
                    if ended.is_empty() {
                        last = Some((config.clone(), homes, next.clone()));
                    }
                    Successor::Next(next)
                }
            };
            let seat = self.tables[table].epochs.seat_mut(slot);
            let Ok(proposal) = Proposal::begin(seat, successor) else { continue };
            begun += 1;
            self.ballots.take(BALLOT_BYTES as usize);
            self.counters.add("epochs_proposed");
            self.tables[table].epochs.proposals.insert(index, proposal);
            self.seat_changed(table, slot);
            self.go_on_with_proposal(now, table, slot);
        }
        if is_more {
            self.go_on_with_epochs(now.monotonic);
        }
    }

    /// Asks for what a ballot needs next: after it began, and once a majority has promised.
    fn go_on_with_proposal(&mut self, now: Now, table: usize, slot: Slot) {
        let me = self.id();
        let epochs = &mut self.tables[table].epochs;
        let Some(proposal) = epochs.proposals.get_mut(&slot.index()) else { return };
        let (under, ballot) = (proposal.under(), proposal.ballot());
        let step = match proposal.to_accept().cloned() {
            None => Step::Prepare { under, ballot },
            Some(successor) => {
                let seat = &mut epochs.seats[usize::from(slot.index())];
                if seat.on_accept(under, ballot, &successor).is_ok() {
                    proposal.on_accepted(me, under, ballot);
                }
                Step::Accept { under, ballot, successor }
            }
        };
        let open: Vec<NodeId> = proposal
            .homes()
            .iter()
            .copied()
            .filter(|home| *home != me && !proposal.has_answer_of(*home))
            .collect();
        self.seat_changed(table, slot);
        if self.take_in_decision(now, table, slot) {
            return;
        }
        for home in open {
            if self.is_active(home) {
                self.tell_soon(table, home, slot, step.clone());
            }
        }
    }

    /// Whether a ballot has decided; then everybody is told.
    fn take_in_decision(&mut self, now: Now, table: usize, slot: Slot) -> bool {
        let index = slot.index();
        let epochs = &mut self.tables[table].epochs;
        let Some(proposal) = epochs.proposals.get(&index) else { return false };
        let Some(chosen) = proposal.chosen().cloned() else { return false };
        epochs.proposals.remove(&index);
        epochs.decided += 1;
        self.counters.add("epochs_decided");
        match chosen {
            Successor::Ended { into } => {
                self.tables[table].epochs.ended.insert(index, into);
                self.tables[table].epochs.due.remove(&index);
                self.tell_of_endings(table, slot);
            }
            Successor::Next(config) => {
                self.learn(now, table, slot, &config);
                self.announce(table, slot, &config);
            }
        }
        true
    }

    /// Tells an epoch to its homes and to those it follows.
    fn announce(&mut self, table: usize, slot: Slot, config: &Arc<Config>) {
        let before = config.sources.iter().flat_map(|source| &source.homes);
        let all: BTreeSet<NodeId> = config.homes.iter().chain(before).copied().collect();
        for node in all {
            if self.is_active(node) {
                self.tell_soon(table, node, slot, Step::Learn(config.clone()));
            }
        }
    }

    /// Founds the slots that nobody knows an epoch of.
    fn found(&mut self, now: Now, table: usize) {
        let lacks_others = self.standing.alone_by_misfortune || self.standing.has_unmet;
        if !self.tables[table].epochs.founds || !self.is_up() || lacks_others {
            return;
        }
        let me = self.id();
        let generation = self.standing.generation;
        let epochs = &self.tables[table].epochs;
        let is_told = |node: NodeId| {
            epochs.met.get(&node) == Some(&generation) && !epochs.withheld.contains(&node)
        };
        let others = self.standing.members().filter(|it| it.id != me && it.status != Status::Left);
        if !others.into_iter().all(|member| is_told(member.id)) {
            return;
        }
        if self.tables[table].epochs.memory.amnesia {
            // Everybody has said all that there is.
            let memory = &mut self.tables[table].epochs.memory;
            (memory.amnesia, memory.is_saved) = (false, false);
        }
        let mut founding = None::<Arc<Config>>;
        self.tables[table].epochs.founds = false;
        for slot in self.slots() {
            let is_mine = self.epoch(table, slot).is_none()
                && self.ring_homes(table, slot).first() == Some(&me);
            let is_synced = self.slot_state(table, slot).is_synced();
            self.tables[table].epochs.founds |= is_mine && !is_synced;
            if is_mine && is_synced {
                let lineage = self.lineage;
                let founding = founding.get_or_insert_with(|| Arc::new(Config::founding(lineage)));
                *self.tables[table].epochs.seat_mut(slot) = Seat::founded(founding.clone());
                self.counters.add("epochs_founded");
                self.seat_changed(table, slot);
                self.consider(now, table, slot);
            }
        }
    }
}

// An operator's word.
impl Core {
    /// A member is given up for lost by whoever runs the cluster, with all that only it has.
    pub(super) fn give_up_member(&mut self, now: Now, node: NodeId) {
        self.given_up.nodes.insert(node);
        self.given_up.at = Some(now.monotonic + ASK_BEFORE_FORCING);
        let others: Vec<NodeId> = self.companions.iter().copied().collect();
        for table in 0..self.tables.len() {
            for slot in self.slots() {
                let id = self.epoch(table, slot).map(|config| config.id);
                for other in &others {
                    self.tell_soon(table, *other, slot, Step::Meet(id));
                }
            }
        }
    }

    /// Founds the slots anew that have no majority left without the dead.
    fn force_epochs(&mut self, now: Now) {
        if self.given_up.at.is_none_or(|at| at > now.monotonic) {
            return;
        }
        let Ok(lineage) = self.time.stamp(now, annulus_proto::Hlc::ZERO) else { return };
        self.given_up.at = None;
        let is_dead = |core: &Self, node: NodeId| {
            let status = core.standing.view.get(node).map(|member| member.status);
            core.given_up.nodes.contains(&node) || status == Some(Status::Left)
        };
        for table in 0..self.tables.len() {
            for slot in self.slots() {
                let Some(config) = self.epoch(table, slot).cloned() else { continue };
                let is_there = |home: &&NodeId| **home == self.id() || self.is_active(**home);
                let living = config.homes.iter().filter(is_there).count();
                let sources = config.sources.iter().flat_map(|source| &source.homes);
                let all = config.homes.iter().chain(sources).copied();
                let mut dead: Vec<NodeId> = all.filter(|home| is_dead(self, *home)).collect();
                dead.sort_unstable();
                dead.dedup();
                let concerns = config.homes.iter().any(|home| dead.contains(home));
                if !concerns || living >= config.majority() {
                    continue;
                }
                let forced = match config.forced(lineage, &dead) {
                    Some(forced) => Arc::new(forced),
                    // Nobody is left: whoever is to have the slot begins with nothing.
                    None => {
                        let Some(forced) = self.forced_anew(table, slot, &config, lineage) else {
                            continue;
                        };
                        Arc::new(forced)
                    }
                };
                self.counters.add("epochs_forced");
                self.tables[table].epochs.decided += 1;
                self.learn(now, table, slot, &forced);
                self.announce(table, slot, &forced);
            }
        }
    }

    /// An epoch of a slot all of whose homes are given up, with the homes that placement gives it.
    fn forced_anew(
        &self,
        table: usize,
        slot: Slot,
        config: &Config,
        lineage: Version,
    ) -> Option<Config> {
        let homes = self.homes(table, slot);
        let founded = Config { homes, ..Config::founding(lineage) };
        // As if the new homes had been homes all the time, and were what is left of them.
        let mut with_them = config.clone();
        with_them.homes.extend(founded.homes.iter().filter(|home| !config.homes.contains(home)));
        let forced = with_them.forced(lineage, &config.homes)?;
        let mut sources = forced.sources;
        for source in &mut sources {
            if source.id == config.id {
                source.homes.clone_from(&config.homes);
            }
            source.written_off = Some(source.homes.clone());
        }
        Some(Config { sources, ..forced }).filter(Config::is_well_formed)
    }
}

// Saying and hearing.
impl Core {
    /// What is done with each tick.
    pub(super) fn drive_epochs(&mut self, now: Now) {
        self.force_epochs(now);
        self.next_epochs = None;
        for table in 0..self.tables.len() {
            self.note_damage(table);
            self.meet_due(now, table);
            self.consider_some(now, table);
            self.found(now, table);
        }
        if self.effects.again_at <= now.monotonic {
            for place in 0..self.tables.len() {
                self.propose_due(now, (self.first_to_propose + place) % self.tables.len());
            }
        }
    }

    /// There is more to do of it, once others had their turn.
    fn go_on_with_epochs(&mut self, at: Duration) {
        self.next_epochs = Some(self.next_epochs.map_or(at, |next| next.min(at)));
    }

    /// The members changed: everybody is told what this node knows, and hears what they do.
    pub(super) fn meet_all(&mut self, now: Now, others: &BTreeSet<NodeId>) {
        for table in 0..self.tables.len() {
            let epochs = &mut self.tables[table].epochs;
            epochs.founds = true;
            epochs.meeting = None;
            epochs.outboxes.retain(|node, _| others.contains(node));
            epochs.meet_due.retain(|node, _| others.contains(node));
            for outbox in epochs.outboxes.values_mut() {
                outbox.meets = None;
            }
            for node in others {
                let wait = MEET_SPREAD.mul_f64(self.rng.random::<f64>());
                let due = &mut self.tables[table].epochs.meet_due;
                due.insert(*node, now.monotonic + wait);
            }
            self.tables[table].epochs.considered = Some(0);
        }
        self.go_on_with_epochs(now.monotonic);
    }

    /// Looks at some slots: other members may make other homes of an epoch.
    fn consider_some(&mut self, now: Now, table: usize) {
        let Some(done) = self.tables[table].epochs.considered else { return };
        let step = self.slots_step();
        for slot in self.slots_after(done).take(step) {
            self.consider(now, table, slot);
        }
        let done = done + step;
        let is_more = self.slots_after(done).next().is_some();
        self.tables[table].epochs.considered = is_more.then_some(done);
        if is_more {
            self.go_on_with_epochs(now.monotonic);
        }
    }

    /// Tells nodes whose time has come of all slots, one after the other and some slots at a time.
    fn meet_due(&mut self, now: Now, table: usize) {
        let epochs = &self.tables[table].epochs;
        if epochs.meeting.is_none() {
            let mut due = epochs.meet_due.iter().filter(|(_, at)| **at <= now.monotonic);
            let Some(node) = due.next().map(|(node, _)| *node) else { return };
            self.begin_to_meet(now, table, node);
        }
        self.go_on_with_meeting(table);
        let epochs = &self.tables[table].epochs;
        if epochs.meeting.is_some() || epochs.meet_due.values().any(|at| *at <= now.monotonic) {
            self.go_on_with_epochs(now.monotonic);
        }
    }

    fn begin_to_meet(&mut self, now: Now, table: usize, node: NodeId) {
        if !self.is_active(node) {
            self.tables[table].epochs.meet_due.remove(&node);
            return;
        }
        let again = self.settings.sync_interval.mul_f64(0.75 + self.rng.random::<f64>() / 2.0);
        let epochs = &mut self.tables[table].epochs;
        epochs.meet_due.insert(node, now.monotonic + again);
        if epochs.withheld.remove(&node) {
            // What it would not say last time it may say now, and until then it has not.
            epochs.met.remove(&node);
        }
        let outbox = epochs.outboxes.entry(node).or_default();
        outbox.meets = Some(self.standing.generation);
        for index in std::mem::take(&mut outbox.learns) {
            let Some(slot) = Slot::new(index) else { continue };
            let Some(config) = epochs.seat(slot).config().cloned() else { continue };
            epochs.tell(node, slot, Step::Learn(config));
        }
        epochs.meeting = Some((node, 0));
    }

    fn go_on_with_meeting(&mut self, table: usize) {
        let Some((node, done)) = self.tables[table].epochs.meeting.take() else { return };
        let step = self.slots_step();
        for slot in self.slots_after(done).take(step) {
            if self.is_common(table, slot, node) {
                let id = self.epoch(table, slot).map(|config| config.id);
                self.tables[table].epochs.tell(node, slot, Step::Meet(id));
            }
        }
        let done = done + step;
        let is_more = self.slots_after(done).next().is_some();
        let generation = self.standing.generation;
        let epochs = &mut self.tables[table].epochs;
        match is_more {
            true => epochs.meeting = Some((node, done)),
            false => epochs.note_met(node, generation),
        }
    }

    /// Whether another node has to do with a slot that this one has to do with.
    fn is_common(&self, table: usize, slot: Slot, node: NodeId) -> bool {
        let epochs = &self.tables[table].epochs;
        let state = self.slot_state(table, slot);
        match epochs.seat(slot).config() {
            None => state.home || epochs.memory.amnesia,
            Some(config) => {
                let is_mine = state.home || state.decides;
                // Those before may not have heard of it.
                let before = || config.sources.iter().any(|it| it.homes.contains(&node));
                let is_theirs = config.homes.contains(&node) || before();
                is_mine && (is_theirs || self.homes(table, slot).contains(&node))
            }
        }
    }

    /// Sends what may be sent now.
    fn send_outboxes(&mut self, now: Now) {
        for table in 0..self.tables.len() {
            if self.tables[table].epochs.outboxes.is_empty() {
                continue;
            }
            let full = |outbox: &Outbox| outbox.open >= MESSAGES_OPEN || outbox.is_empty();
            let outboxes = self.tables[table].epochs.outboxes.iter();
            let nodes: Vec<NodeId> =
                outboxes.filter(|(_, outbox)| !full(outbox)).map(|(node, _)| *node).collect();
            for node in nodes {
                self.send_outbox(now, table, node);
            }
        }
    }

    fn send_outbox(&mut self, now: Now, table: usize, node: NodeId) {
        let name = self.tables[table].store.policy().name.clone();
        let stride = self.cores as u16;
        let is_active = self.is_active(node);
        loop {
            let epochs = &mut self.tables[table].epochs;
            let Some(outbox) = epochs.outboxes.get_mut(&node) else { return };
            if outbox.is_empty() || outbox.open >= MESSAGES_OPEN {
                return;
            }
            if !is_active {
                epochs.outboxes.remove(&node);
                return;
            }
            let next = outbox.next();
            let (steps, taken) = runs(&next, stride, MESSAGE_BYTES, step_and_key);
            match taken == outbox.steps.len() {
                true => outbox.steps.clear(),
                false => outbox.take(&next[..taken]),
            }
            let is_learn = |(_, step): &&(Slot, Step)| matches!(step, Step::Learn(_));
            let learns = next[..taken].iter().filter(is_learn);
            let learns: Vec<u16> = learns.map(|(slot, _)| slot.index()).collect();
            outbox.open += 1;
            outbox.learns.extend(&learns);
            let purpose = Purpose::Epochs { table, slots: taken, learns };
            let message = EpochsMessage { table: name.clone(), steps };
            if self.call(now, node, purpose, message).is_none() {
                self.tables[table].epochs.outboxes.remove(&node);
                return;
            }
            self.counters.add("epoch_messages");
            self.counters.add_many("epoch_steps", taken as u64);
        }
    }

    /// The answer to what was told another node, or that there is none.
    pub(super) fn on_epochs_answer(
        &mut self,
        now: Now,
        (table, slots, learns): (usize, usize, &[u16]),
        node: NodeId,
        answer: Option<Message>,
    ) {
        let mut heard = 0;
        if let Some(Message::EpochsAnswer(EpochsAnswer { answers })) = answer {
            for (set, answer) in answers {
                let Some(said) = Said::from_wire(answer) else { continue };
                for slot in set.slots() {
                    if heard == slots || !self.owns(slot) {
                        break;
                    }
                    heard += 1;
                    self.on_said(now, table, slot, node, &said);
                }
            }
        }
        let generation = self.standing.generation;
        let epochs = &mut self.tables[table].epochs;
        let Some(outbox) = epochs.outboxes.get_mut(&node) else { return };
        outbox.open = outbox.open.saturating_sub(1);
        if heard == slots {
            for index in learns {
                outbox.learns.remove(index);
            }
        }
        if heard < slots {
            // Something was not heard, or cannot be said yet.
            outbox.meets = None;
            epochs.meet_soon(now, node);
        } else {
            epochs.note_met(node, generation);
        }
    }

    pub(super) fn on_said(
        &mut self,
        now: Now,
        table: usize,
        slot: Slot,
        node: NodeId,
        said: &Said,
    ) {
        let index = slot.index();
        match said {
            Said::Refused => match self.epoch(table, slot) {
                None => {
                    self.tables[table].epochs.withheld.insert(node);
                }
                // It refuses a ballot, or to absorb something: that is tried again.
                Some(config) if config.homes.contains(&node) => {}
                // It does not follow, being of another lineage.
                Some(_) if !self.tables[table].epochs.is_foreign(slot, node) => {
                    self.meet_about(table, slot, node);
                }
                Some(_) => {}
            },
            Said::Testimony { under, testimony, .. } => {
                self.tables[table].epochs.note_lineage(slot, node, None);
                let is_mine = self.epoch(table, slot).is_some_and(|config| config.id == *under);
                if is_mine && testimony.here == Standing::Blank {
                    self.tables[table].epochs.lame.insert(index);
                    self.consider(now, table, slot);
                }
            }
            Said::Agrees => self.tables[table].epochs.note_lineage(slot, node, None),
            Said::Knows(None) => {
                self.tables[table].epochs.note_lineage(slot, node, None);
                if let Some(config) = self.epoch(table, slot).cloned() {
                    self.tell_soon(table, node, slot, Step::Learn(config));
                }
            }
            Said::Knows(Some(theirs)) => {
                let meeting = self.meet_config(now, table, slot, theirs);
                self.note_meeting(now, table, (slot, node), meeting, theirs);
                if matches!(meeting, Meeting::TheyAreBehind | Meeting::TheyYield)
                    && let Some(config) = self.epoch(table, slot).cloned()
                {
                    self.tell_soon(table, node, slot, Step::Learn(config));
                }
            }
            Said::Promise(promise) => {
                let Some(proposal) = self.tables[table].epochs.proposals.get_mut(&index) else {
                    return;
                };
                let was_promised = proposal.to_accept().is_some();
                proposal.on_promise(node, promise);
                if !was_promised && proposal.to_accept().is_some() {
                    self.go_on_with_proposal(now, table, slot);
                }
            }
            Said::Accepted { under, ballot } => {
                let proposals = &mut self.tables[table].epochs.proposals;
                if let Some(proposal) = proposals.get_mut(&index) {
                    proposal.on_accepted(node, *under, *ballot);
                    self.take_in_decision(now, table, slot);
                }
            }
            Said::Outbid(ballot) => {
                // Whoever that is goes on with it; this node tries again later, above it.
                self.counters.add("epochs_outbid");
                let epochs = &mut self.tables[table].epochs;
                if let Some(proposal) = epochs.proposals.remove(&index)
                    && epochs.seat_mut(slot).on_prepare(proposal.under(), *ballot).is_ok()
                {
                    self.seat_changed(table, slot);
                }
            }
        }
    }

    /// What another node asks or tells of epochs.
    pub(super) fn on_epochs(
        &mut self,
        now: Now,
        asker: Asker,
        id: u64,
        from: NodeId,
        message: &EpochsMessage,
    ) {
        let Some(table) = self.table_named(&message.table) else {
            return self.reply(now, asker, id, reject_table(&message.table));
        };
        let mut said: Vec<(Slot, Said)> = Vec::new();
        let mut is_said = vec![false; usize::from(SLOT_COUNT)];
        let mut left = usize::from(SLOT_COUNT) + 1;
        for (set, step) in &message.steps {
            let Some(step) = Step::from_wire(step.clone()) else {
                return self.reply(now, asker, id, reject("an epoch that there cannot be"));
            };
            for slot in set.slots() {
                left -= 1;
                if left == 0 {
                    return self.reply(now, asker, id, reject("more slots than there are"));
                }
                let is_said = &mut is_said[usize::from(slot.index())];
                if self.owns(slot) && !std::mem::replace(is_said, true) {
                    said.push((slot, self.on_step(now, table, slot, from, &step)));
                }
            }
        }
        said.sort_unstable_by_key(|(slot, _)| *slot);
        self.effects.waiting.push(Effect::Reply { to: asker, id, said });
    }

    fn on_step(&mut self, now: Now, table: usize, slot: Slot, from: NodeId, step: &Step) -> Said {
        let mine = self.epoch(table, slot).cloned();
        match step {
            // Nobody founds a slot of which those may know that this node has not met again.
            Step::Meet(None) if mine.is_none() && self.standing.has_unmet => Said::Refused,
            Step::Meet(id) if mine.as_ref().map(|config| config.id) == *id => {
                self.agree(table, slot)
            }
            Step::Meet(_) => Said::Knows(mine),
            Step::Learn(config) => {
                let meeting = self.meet_config(now, table, slot, config);
                self.note_meeting(now, table, (slot, from), meeting, config);
                match meeting {
                    Meeting::TheyAreBehind | Meeting::TheyYield => Said::Knows(mine),
                    Meeting::Same | Meeting::WeAreBehind => self.agree(table, slot),
                    // Not before this lineage has ended.
                    Meeting::WeYield => Said::Refused,
                }
            }
            Step::Testify(under) => {
                let floor = self.slot_state(table, slot).floor;
                match self.seat(table, slot).testify(*under) {
                    Ok(testimony) => Said::Testimony { under: *under, testimony, floor },
                    Err(_) => Said::Knows(mine),
                }
            }
            Step::Prepare { under, ballot } => {
                let seat = self.tables[table].epochs.seat_mut(slot);
                if seat.standing() == Standing::Blank {
                    // It may have forgotten what it had promised, and accepts nothing anyway.
                    return Said::Refused;
                }
                match seat.on_prepare(*under, *ballot) {
                    Ok(promise) => {
                        self.seat_changed(table, slot);
                        Said::Promise(promise)
                    }
                    Err(refused) => refusal(refused, mine),
                }
            }
            Step::Accept { under, ballot, successor } => {
                let seat = self.tables[table].epochs.seat_mut(slot);
                match seat.on_accept(*under, *ballot, successor) {
                    Ok(()) => {
                        self.seat_changed(table, slot);
                        Said::Accepted { under: *under, ballot: *ballot }
                    }
                    Err(refused) => refusal(refused, mine),
                }
            }
            Step::Absorb(ending) => {
                self.counters.add("endings_heard");
                debug_assert!(from != self.id());
                self.absorb(now, table, slot, ending.clone())
            }
        }
    }

    /// That both know the same epoch. A home without memory says so: no other gets it its next epoch.
    fn agree(&self, table: usize, slot: Slot) -> Said {
        let seat = self.seat(table, slot);
        let under = seat.config().map(|config| config.id);
        let under = under.filter(|_| seat.standing() == Standing::Blank);
        match under.and_then(|under| Some((under, seat.testify(under).ok()?))) {
            Some((under, testimony)) => {
                let floor = self.slot_state(table, slot).floor;
                Said::Testimony { under, testimony, floor }
            }
            None => Said::Agrees,
        }
    }
}

fn refusal(refused: Refused, mine: Option<Arc<Config>>) -> Said {
    match refused {
        Refused::OtherEpoch => Said::Knows(mine),
        Refused::Outbid(ballot) => Said::Outbid(ballot),
        Refused::NotHome | Refused::NotReady | Refused::OutOfRange => Said::Refused,
    }
}

/// The next epoch, with as many of the ended lineages as fit.
fn next_within_bounds(config: &Config, homes: &[NodeId], ended: &[Ending]) -> Arc<Config> {
    let mut ended = ended;
    loop {
        let next = Arc::new(config.next(homes.to_vec(), ended));
        if ended.is_empty() || !config_is_too_long(&next) {
            return next;
        }
        ended = &ended[..ended.len() - 1];
    }
}

fn config_is_too_long(config: &Config) -> bool {
    // No need to encode it to see that most are short.
    let items = config.absorbed.len() + 4 * config.sources.len();
    items > 64 && wire::config_bytes(config) > CONFIG_BYTES_MAX
}
