//! Anti-entropy: two nodes compare what they hold and even it out.
//!
//! For each table and each other member this node sends the first symbol of the sketch of all slots that
//! both should hold ([`annulus_sketch`]). Where the other's is the same, that was it. Else it answers with its whole sketch,
//! and this node finds out which keys differ; if that is too much for one sketch, the slots are
//! split in as many parts as it takes, and a slot that differs in too much for a sketch of its own is listed.
//! Entries that this node lacks are fetched, and those that the other lacks are pushed, in batches.
//!
//! It runs at intervals, when the view changes, and when hints were lost. A node that has just become a
//! home of a slot compares it with every active member before it says *absent*, since any of them may
//! have held it before. What several of them hold it fetches once: a slot is the claim of one
//! comparison at a time, and the others find it even, or nearly so, when they come to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Bound, Range};
use std::time::Duration;

use annulus_proto::entry::Body;
use annulus_proto::message::{
    Compare, Compared, ComparedDifference, Epochs as EpochsMessage, EpochsAnswer, Even, Evened,
    Message, SketchRequest, Sketches, SlotList, SlotListRequest,
};
use annulus_proto::{Entry, Key, NodeId, SLOT_COUNT, Slot, SlotSet, Status, Version};
use annulus_shm::Admission;
use annulus_sketch::{Sketch, Step, next_step};
use annulus_slots::{Ask, Attempt, Testimony};
use rand::RngExt;

use super::calls::{Purpose, Split, SyncStep};
use super::epochs::wire::{Said, Step as EpochStep, runs, step_and_key};
use super::hints::SlotMarks;
use super::io::Now;
use super::replica::{reject, reject_table};
use super::store::{IN_FLIGHT_MS, SYMBOLS};
use super::{Core, Table};

/// A comparison under way with one member.
#[derive(Debug, Default)]
pub(super) struct SyncSession {
    number: u64,
    /// What was made later is left out; 0 = nothing is.
    cut_ms: u64,
    /// The slots that are compared, in ascending order. Parts are ranges of their places.
    slots: Vec<Slot>,
    /// How many cores the other has.
    cores: u16,
    open: usize,
    batches_open: usize,
    /// What to ask next, by core of the other.
    batches: BTreeMap<u16, Batch>,
    splits: VecDeque<Split>,
    /// Slots to list, last of all, so that fetched entries do not pile up.
    lists: VecDeque<(Slot, Option<Key>)>,
    lists_asked: usize,
    /// Steps left for each slot that differs.
    left: BTreeMap<Slot, usize>,
    /// Of slots that this node is no home of: the attempts to give them away.
    attempts: BTreeMap<Slot, Attempt>,
    /// The other's incarnation when the comparison began.
    incarnation: u64,
    /// Whether the other sees the members as this node does. If not, it may still coordinate writes
    /// without this node as a home, and being equal to it does not last.
    agrees: bool,
    extent: Extent,
    /// Of slots whose seats want this comparison: what it was begun with.
    asks: BTreeMap<Slot, Ask>,
    /// The last of them that the other was asked about before all else.
    asked: Option<Slot>,
    /// What the other said before all else, with the greatest ballot that it had promised.
    testimonies: BTreeMap<Slot, (Testimony, Version)>,
    /// Those of these slots that are even, to be asked for once more.
    even: BTreeSet<Slot>,
    /// Questions open about what the other is to epochs.
    asks_open: usize,
    /// Whether the first symbols were sent: after all answers to what comes before all else.
    has_begun: bool,
    /// Whether this node may lack much of what the other has: it compares some slots after the others then, and
    /// with each of several such members other ones first.
    fetches: bool,
    /// The slots that it has begun to compare so, and that are not even yet.
    claimed: BTreeSet<Slot>,
    /// Slots of which everything is known to be the same: what follows from that is seen to a few at a time.
    same: VecDeque<Slot>,
    /// Whether slots were waiting for this comparison to be in sync, and do not any more.
    evens: bool,
    /// Slots of which this node did not take something that the other has, since the comparison began.
    refused: BTreeSet<Slot>,
}

/// Which of the slots that two nodes have in common are compared.
#[derive(Debug, Default)]
pub(super) enum Extent {
    /// All.
    #[default]
    All,
    /// Those that something waits for: a slot to be in sync, a seat to be ready, a copy to be dropped.
    Waiting,
    /// Those whose hints for the other were lost.
    Marked(SlotMarks),
    /// One of them: the other was not ready for more when it was asked last.
    Probe,
}

/// Entries to exchange, by the words of their keys.
#[derive(Debug, Default)]
struct Batch {
    wanted: VecDeque<u64>,
    pushed: VecDeque<u64>,
}

/// An answer that no node of ours gives.
struct Nonsense;

/// Of how many slots the other is asked with one message what it is to their epochs, and how many such may be open.
const ASKS_STEP: usize = 256;
const ASKS_OPEN: usize = 4;
/// How many questions of one comparison may be open at a time.
const WINDOW: usize = 32;
/// How many batches among them.
const BATCHES_OPEN: usize = 8;
/// How long what has used up its share of the rate waits at least.
pub(super) const PACE_STEP: Duration = Duration::from_millis(1);
/// How many batches of all comparisons may be open at a time.
const ALL_BATCHES_OPEN: usize = 32;
/// From how many bytes of entries on a batch is full.
pub(super) const BATCH_BYTES: usize = 64 << 10;
/// What an entry that is asked for is counted as until it is there.
const WANTED_BYTES: usize = 1 << 10;
/// How much there is room for in a batch at any rate.
const BATCH_BYTES_MIN: usize = 16 << 10;
/// The most keys that one batch asks for, or pushes.
const BATCH_KEYS: usize = 256;
/// How many parts are compared with one message: a sketch takes some microseconds to tell what differs in its part, or
/// that nothing does.
const PARTS_STEP: usize = 128;
/// The most parts that another node may ask for with one.
const PARTS_MAX: usize = 1_024;
/// How many slots are compared at a time, of a node from which much is fetched.
const CHUNK_SLOTS: usize = 128;
/// How many questions about these may be open at a time, and how many keys may wait to be fetched before more is asked.
const CHUNKS_OPEN: usize = 4;
const KEYS_WAITING: usize = 1_024;
/// The most pages of lists in one comparison: of a hundred million entries.
const LISTS_MAX: usize = 100_000;
/// How long to wait before a comparison with a member that sees other members, or that is not ready for it.
const RETRY_SOON: Duration = Duration::from_millis(300);
/// How long to wait after a comparison that was cut off, or after which a seat wants more.
const RETRY: Duration = Duration::from_secs(1);

impl Core {
    /// Begins a comparison that is due: one, since that looks at all slots. The others follow with the next timeouts.
    pub(super) fn start_syncs(&mut self, now: Now) {
        self.next_sync = None;
        if !matches!(self.standing.status, Status::Up | Status::Draining) {
            return;
        }
        for table in 0..self.tables.len() {
            let Table { sync_due, waiting_due, .. } = &self.tables[table];
            let is_due = |(_, at): &(&NodeId, &Duration)| **at <= now.monotonic;
            let nodes = sync_due.iter().chain(waiting_due).filter(is_due);
            let due: BTreeSet<NodeId> = nodes.map(|(node, _)| *node).collect();
            for node in due {
                let Table { store, sync, sync_due, waiting_due, not_ready, .. } =
                    &mut self.tables[table];
                if sync.contains_key(&node) || !store.is_comparable() {
                    continue;
                }
                if let Some(at) = not_ready.get(&node) {
                    if *at > now.monotonic {
                        continue;
                    }
                    not_ready.insert(node, now.monotonic + RETRY_SOON);
                    self.next_sync = Some(now.monotonic);
                    return self.start_sync(now, table, node, Extent::Probe);
                }
                waiting_due.remove(&node);
                let mut extent = Extent::Waiting;
                if sync_due.get(&node).is_some_and(|at| *at <= now.monotonic) {
                    extent = Extent::All;
                    let spread = 0.75 + self.rng.random::<f64>() / 2.0;
                    let again = self.settings.sync_interval.mul_f64(spread);
                    sync_due.insert(node, now.monotonic + again);
                }
                self.next_sync = Some(now.monotonic);
                return self.start_sync(now, table, node, extent);
            }
        }
    }

    /// Compares with everybody at once.
    pub(super) fn sync_soon(&mut self, now: Now) {
        for table in &mut self.tables {
            table.not_ready.clear();
            table.sync_due.values_mut().for_each(|due| *due = now.monotonic);
        }
    }

    /// Compares with a home the slots whose hints for it were lost, once that is possible.
    pub(super) fn sync_marked(&mut self, now: Now, table: usize, node: NodeId) {
        let Table { store, sync, hints, .. } = &mut self.tables[table];
        if !store.is_comparable() || sync.contains_key(&node) || self.standing.status != Status::Up
        {
            return;
        }
        if let Some(marked) = hints.take_marks(node) {
            self.counters.add("syncs_for_lost_hints");
            self.start_sync(now, table, node, Extent::Marked(marked));
        }
    }

    pub(super) fn start_sync(&mut self, now: Now, table: usize, node: NodeId, extent: Extent) {
        let incarnation = self.standing.view.get(node).map_or(0, |member| member.incarnation);
        let of_interest = |slot: &Slot| {
            let theirs = self.ring_homes(table, *slot).contains(&node);
            let state = self.slot_state(table, *slot);
            let held = || self.tables[table].store.slot_len(*slot) > 0;
            (theirs && (state.home || held()))
                || state.sources.contains(&node)
                || self.seat(table, *slot).wants(node)
        };
        let is_probe = matches!(extent, Extent::Probe);
        let slots: Vec<Slot> = match &extent {
            Extent::All => self.slots().filter(of_interest).collect(),
            Extent::Probe => self.slots().find(of_interest).into_iter().collect(),
            Extent::Waiting => {
                let waiting = self.slots_that_wait(table, node, incarnation).into_iter();
                waiting.filter(of_interest).collect()
            }
            Extent::Marked(marks) => {
                self.slots().filter(|slot| marks.contains(*slot)).filter(of_interest).collect()
            }
        };
        if slots.is_empty() {
            self.tables[table].not_ready.remove(&node);
            return;
        }
        // To a slot that is not in sync yet nothing may be missing, however late it was written: whoever
        // wrote it may not have known of this home. Nor to one that is to be dropped here, or
        // whose hints were lost.
        let is_source = |slot: &Slot| self.slot_state(table, *slot).sources.contains(&node);
        let attempts = self.attempts(table, &slots);
        let ask = |slot: &Slot| {
            let ask = self.seat(table, *slot).ask().filter(|_| !is_probe)?;
            self.seat(table, *slot).wants(node).then_some((*slot, ask))
        };
        let asks: BTreeMap<Slot, Ask> = slots.iter().filter_map(ask).collect();
        let cut_ms = if !asks.is_empty()
            || !matches!(extent, Extent::All)
            || !attempts.is_empty()
            || slots.iter().any(is_source)
        {
            0
        } else {
            self.time.now_ms(now).saturating_sub(IN_FLIGHT_MS)
        };
        let fetches = slots.iter().any(is_source);
        self.tables[table].sync_sessions += 1;
        let session = SyncSession {
            number: self.tables[table].sync_sessions,
            cut_ms,
            fetches,
            slots,
            attempts,
            incarnation,
            extent,
            asks,
            cores: 1,
            ..SyncSession::default()
        };
        self.counters.add("syncs_started");
        self.tables[table].sync.insert(node, session);
        self.go_on_with_sync(now, table, node);
    }

    /// The slots for which something waits for a comparison with a node, in ascending order.
    fn slots_that_wait(&self, table: usize, node: NodeId, incarnation: u64) -> Vec<Slot> {
        let custody = &self.tables[table].custody;
        let mut waits = vec![false; usize::from(SLOT_COUNT)];
        // One after the other: most of the time goes to memory, which comes faster in a row.
        for slot in self.slots() {
            let sources = &self.slot_state(table, slot).sources;
            waits[usize::from(slot.index())] = sources.contains(&node);
        }
        for slot in self.slots() {
            waits[usize::from(slot.index())] |= self.seat(table, slot).wants(node);
        }
        for index in custody.leaving() {
            waits[usize::from(index)] |= !custody.is_even(index, node, incarnation);
        }
        self.slots().filter(|slot| waits[usize::from(slot.index())]).collect()
    }

    /// The first question of a comparison: whether there is any difference at all.
    fn first_symbols(&self, table: usize, session: &SyncSession) -> Option<Message> {
        let mine = self.tables[table].sketch(session, 0..session.slots.len(), 1)?;
        let compare = Compare {
            table: self.tables[table].store.policy().name.clone(),
            cut_ms: session.cut_ms,
            slots: SlotSet::new(&session.slots, self.cores as u16),
            symbol: mine.first().to_bytes(),
        };
        Some(compare.into())
    }

    /// Asks what a node is to the epochs of slots.
    fn testify(&self, table: usize, slots: impl Iterator<Item = (Slot, Ask)>) -> Message {
        let steps: Vec<(Slot, EpochStep)> =
            slots.map(|(slot, ask)| (slot, EpochStep::Testify(ask.under))).collect();
        let (steps, _) = runs(&steps, self.cores as u16, usize::MAX, step_and_key);
        EpochsMessage { table: self.tables[table].store.policy().name.clone(), steps }.into()
    }

    /// What a node said that it is to the epochs of slots, before all else or after it.
    fn on_testimonies(
        &mut self,
        now: Now,
        table: usize,
        node: NodeId,
        again: bool,
        answers: EpochsAnswer,
    ) {
        for (set, answer) in answers.answers {
            let Some(said) = Said::from_wire(answer) else { continue };
            for slot in set.slots() {
                let Some(session) = self.tables[table].sync.get_mut(&node) else { return };
                let Some(ask) = session.asks.get(&slot).copied() else { continue };
                match &said {
                    Said::Testimony { under, testimony, floor } if *under == ask.under => {
                        if !again {
                            session.testimonies.insert(slot, (*testimony, *floor));
                        } else if let Some((before, floor_before)) =
                            session.testimonies.remove(&slot)
                            && before == *testimony
                        {
                            let floor = floor_before.max(*floor);
                            self.on_testimony(table, slot, node, (ask, before, floor));
                        }
                    }
                    _ => self.on_said(now, table, slot, node, &said),
                }
            }
        }
    }

    pub(super) fn on_sync_answer(
        &mut self,
        now: Now,
        table: usize,
        node: NodeId,
        session: u64,
        step: SyncStep,
        answer: Option<(Message, bool)>,
    ) {
        let current = self.tables[table].sync.get(&node).filter(|it| it.number == session);
        if current.is_none() {
            return;
        }
        if !self.tables[table].store.is_comparable() {
            // A damaged record was dropped meanwhile, and with it what was known of all slots.
            return self.cut_off_sync(now, table, node, RETRY);
        }
        let Some(session) = self.tables[table].sync.get_mut(&node) else { return };
        session.open -= 1;
        let (answer, agrees) = answer.unzip();
        if let Some(Message::Rejected(_)) = answer {
            self.tables[table].not_ready.insert(node, now.monotonic + RETRY_SOON);
            return self.cut_off_sync(now, table, node, RETRY_SOON);
        }
        let taken = match (step, answer) {
            (SyncStep::Testify { again }, Some(Message::EpochsAnswer(answers))) => {
                session.asks_open -= 1;
                self.on_testimonies(now, table, node, again, answers);
                Ok(())
            }
            (SyncStep::Compare, Some(Message::Compared(compared))) => {
                session.agrees = agrees == Some(true);
                session.cores = compared.cores.clamp(1, SLOT_COUNT);
                let cores = session.cores;
                self.note_cores(node, cores);
                let Some(session) = self.tables[table].sync.get_mut(&node) else { return };
                if !session.agrees {
                    self.tables[table].compare_waiting(node, now.monotonic + RETRY_SOON);
                }
                self.on_compared(table, node, compared)
            }
            (SyncStep::Sketches(splits), Some(Message::Sketches(answer))) => {
                self.on_sketches(table, node, splits, &answer.sketches)
            }
            (SyncStep::List { slot, after }, Some(Message::SlotList(list))) => {
                self.on_slot_list(now, table, node, slot, after, list)
            }
            (SyncStep::Even { pushed, wanted }, Some(Message::Evened(answer))) => {
                session.batches_open -= 1;
                self.on_evened(now, table, node, (pushed, wanted), answer)
            }
            _ => Err(Nonsense),
        };
        if let Err(Nonsense) = taken {
            return self.cut_off_sync(now, table, node, RETRY);
        }
        self.go_on_with_sync(now, table, node);
        self.go_on_with_idle_syncs(now, table);
    }

    fn cut_off_sync(&mut self, now: Now, table: usize, node: NodeId, retry: Duration) {
        self.counters.add("syncs_cut_off");
        let of = &mut self.tables[table];
        let session = of.sync.remove(&node);
        let evens = session.as_ref().is_some_and(|session| session.evens);
        match session.map(|session| session.extent) {
            Some(Extent::Marked(marks)) => of.hints.put_marks_back(node, &marks),
            Some(Extent::Waiting) => of.compare_waiting(node, now.monotonic + retry),
            Some(Extent::Probe) => drop(of.not_ready.insert(node, now.monotonic + retry)),
            Some(Extent::All) | None => drop(of.sync_due.insert(node, now.monotonic + retry)),
        }
        if evens && self.slots_unsynced(table) == 0 {
            self.begin_freshness_again();
        }
    }

    fn on_compared(
        &mut self,
        table: usize,
        node: NodeId,
        compared: Compared,
    ) -> Result<(), Nonsense> {
        let Some(session) = self.tables[table].sync.get_mut(&node) else { return Ok(()) };
        let all = 0..session.slots.len();
        match compared.difference {
            ComparedDifference::None => self.on_found(table, node, all, Vec::new()),
            ComparedDifference::One { key } => {
                self.on_found(table, node, all, vec![u64::from_le_bytes(key)])
            }
            ComparedDifference::More { sketch } => {
                let session = &self.tables[table].sync[&node];
                let mine = self.tables[table].sketch(session, all.clone(), SYMBOLS);
                let theirs = Sketch::read(&sketch).ok_or(Nonsense)?;
                self.on_sketch(table, node, all, mine.ok_or(Nonsense)?, &theirs).map(drop)
            }
            _ => Err(Nonsense),
        }
    }

    fn on_sketches(
        &mut self,
        table: usize,
        node: NodeId,
        splits: Vec<Split>,
        sketches: &[u8],
    ) -> Result<(), Nonsense> {
        let count: usize = splits.iter().map(|split| split.parts.len()).sum();
        if sketches.len() != count * Sketch::bytes(SYMBOLS) {
            return Err(Nonsense);
        }
        // All of ours at once, since what is left out is looked up in one list.
        let session = &self.tables[table].sync[&node];
        let parts = || splits.iter().flat_map(|split| &split.parts);
        let slots = parts().flat_map(|part| &session.slots[part.clone()]).copied();
        let store = &self.tables[table].store;
        let mine = store.sketches(slots, parts().map(|part| part.len()), SYMBOLS, session.cut_ms);
        let mut mine = mine.ok_or(Nonsense)?.into_iter();
        let mut sketches = sketches.chunks_exact(Sketch::bytes(SYMBOLS)).map_while(Sketch::read);
        for split in splits {
            let mut rest = split.rest;
            for part in split.parts {
                let (mine, theirs) = mine.next().zip(sketches.next()).ok_or(Nonsense)?;
                let difference = self.on_sketch(table, node, part, mine, &theirs)?;
                if let Some((_, rest)) = &mut rest {
                    rest.subtract(&difference);
                }
            }
            if let Some((part, difference)) = rest {
                self.on_difference(table, node, part, difference)?;
            }
        }
        Ok(())
    }

    /// Finds out in what a part differs of which there are these sketches. Returns the sketch of the difference.
    fn on_sketch(
        &mut self,
        table: usize,
        node: NodeId,
        part: Range<usize>,
        mine: Sketch,
        theirs: &Sketch,
    ) -> Result<Sketch, Nonsense> {
        if theirs.symbols().len() != SYMBOLS {
            return Err(Nonsense);
        }
        let mut difference = mine;
        difference.subtract(theirs);
        if theirs.is_zero() && difference.decode().is_none() {
            self.on_nothing_there(table, node, part);
        } else {
            self.on_difference(table, node, part, difference.clone())?;
        }
        Ok(difference)
    }

    fn on_difference(
        &mut self,
        table: usize,
        node: NodeId,
        part: Range<usize>,
        difference: Sketch,
    ) -> Result<(), Nonsense> {
        let step = next_step(&difference, part.len());
        let is_found = matches!(step, Step::Found(_));
        if !is_found && part.len() > CHUNK_SLOTS && self.tables[table].sync[&node].fetches {
            self.split_in_chunks(table, node, part);
            return Ok(());
        }
        match step {
            Step::Found(found) => return self.on_found(table, node, part, found),
            Step::List => {
                let Some(session) = self.tables[table].sync.get_mut(&node) else { return Ok(()) };
                let slots = session.slots[part].iter();
                session.lists.extend(slots.map(|slot| (*slot, None)));
            }
            Step::Split(count) => {
                let place = |index: usize| part.start + part.len() * index / count;
                let mut parts: Vec<Range<usize>> =
                    (0..count).map(|index| place(index)..place(index + 1)).collect();
                let Some(session) = self.tables[table].sync.get_mut(&node) else { return Ok(()) };
                // What differs in the last part is the rest, as long as both nodes leave out what
                // was made since.
                let follows = session.cut_ms != 0 && count <= PARTS_STEP;
                let rest = if follows { parts.pop().map(|last| (last, difference)) } else { None };
                while parts.len() > PARTS_STEP {
                    let more = parts.split_off(parts.len() - PARTS_STEP);
                    self.split(table, node, Split { parts: more, rest: None });
                }
                self.split(table, node, Split { parts, rest });
            }
        }
        Ok(())
    }

    /// Has a part that differs in much compared bit by bit: by the time of the last bits another member may have
    /// given what there is in them. With each member that much is fetched from it begins at another place.
    fn split_in_chunks(&mut self, table: usize, node: NodeId, part: Range<usize>) {
        let fetching = self.tables[table].sync.iter().filter(|(_, session)| session.fetches);
        let nodes: Vec<NodeId> = fetching.map(|(id, _)| *id).collect();
        let place = nodes.iter().position(|id| *id == node).unwrap_or(0);
        let starts = part.clone().step_by(CHUNK_SLOTS);
        let mut chunks: Vec<Range<usize>> =
            starts.map(|start| start..part.end.min(start + CHUNK_SLOTS)).collect();
        let first = chunks.len() * place / nodes.len().max(1);
        chunks.rotate_left(first);
        for chunk in chunks {
            self.split(table, node, Split { parts: vec![chunk], rest: None });
        }
    }

    fn split(&mut self, table: usize, node: NodeId, split: Split) {
        self.counters.add_many("sync_parts_compared", split.parts.len() as u64);
        if let Some(session) = self.tables[table].sync.get_mut(&node) {
            // What is claimed is seen to the end before more is.
            match split.parts.first().map(|part| session.slots[part.start]) {
                Some(first) if session.claimed.contains(&first) => session.splits.push_front(split),
                _ => session.splits.push_back(split),
            }
        }
    }

    /// The other holds nothing of these slots, and this node much.
    fn on_nothing_there(&mut self, table: usize, node: NodeId, part: Range<usize>) {
        for place in part {
            let slot = self.tables[table].sync[&node].slots[place];
            let is_home = self.ring_homes(table, slot).contains(&node);
            let is_lacking = is_home && self.tables[table].store.slot_len(slot) > 0;
            let session = self.tables[table].sync.get_mut(&node).expect("it was there just now");
            match is_lacking {
                true => session.lists.push_back((slot, None)),
                false => session.same.push_back(slot),
            }
        }
    }

    /// All keys that differ in a part are known, by their words. The other is asked for its copies, and told of
    /// what it lacks afterwards.
    fn on_found(
        &mut self,
        table: usize,
        node: NodeId,
        part: Range<usize>,
        words: Vec<u64>,
    ) -> Result<(), Nonsense> {
        let slots = self.tables[table].sync[&node].slots[part].to_vec();
        let is_there = |word: &u64| {
            Slot::of_word(*word).is_some_and(|slot| slots.binary_search(&slot).is_ok())
        };
        if !words.iter().all(is_there) {
            return Err(Nonsense);
        }
        let (wanted, given): (Vec<u64>, Vec<u64>) =
            words.into_iter().partition(|word| self.wants(table, *word));
        self.want(table, node, wanted);
        self.push(table, node, given);
        let session = self.tables[table].sync.get_mut(&node);
        session.expect("it was there just now").same.extend(slots);
        Ok(())
    }

    /// Whether this node fetches what others hold of an entry's slot: only as its home. What it gives away
    /// they have from it.
    fn wants(&self, table: usize, word: u64) -> bool {
        Slot::of_word(word).is_none_or(|slot| self.slot_state(table, slot).is_kept())
    }

    fn want(&mut self, table: usize, node: NodeId, words: impl IntoIterator<Item = u64>) {
        let Some(session) = self.tables[table].sync.get_mut(&node) else { return };
        for (word, slot) in words.into_iter().filter_map(|it| Some((it, Slot::of_word(it)?))) {
            session.batch(slot).wanted.push_back(word);
            *session.left.entry(slot).or_default() += 1;
        }
    }

    /// Has entries pushed to the other, as far as it is their home.
    fn push(&mut self, table: usize, node: NodeId, words: impl IntoIterator<Item = u64>) {
        for (word, slot) in words.into_iter().filter_map(|it| Some((it, Slot::of_word(it)?))) {
            if !self.ring_homes(table, slot).contains(&node) {
                continue;
            }
            let Some(session) = self.tables[table].sync.get_mut(&node) else { return };
            session.batch(slot).pushed.push_back(word);
            *session.left.entry(slot).or_default() += 1;
        }
    }

    fn on_slot_list(
        &mut self,
        now: Now,
        table: usize,
        node: NodeId,
        slot: Slot,
        after: Option<Key>,
        list: SlotList,
    ) -> Result<(), Nonsense> {
        let now_ms = self.time.now_ms(now);
        let mut ours = self.tables[table].store.slot_list(slot, now_ms);
        // Compare within the page: after the last key of the page before, up to this one's last.
        let last = list.items.last().map(|(key, _)| key.clone());
        ours.retain(|(key, _)| {
            after.as_ref().is_none_or(|after| key > after)
                && (!list.more || last.as_ref().is_some_and(|last| key <= last))
        });
        let ours: BTreeMap<Key, u64> = ours.into_iter().collect();
        let theirs: BTreeMap<&Key, u64> =
            list.items.iter().map(|(key, digest)| (key, *digest)).collect();
        let differs =
            |(key, digest): &(&Key, u64)| key.slot() == slot && ours.get(*key) != Some(digest);
        let word = |key: &Key| slot.word(key.as_bytes());
        let wanted: BTreeSet<u64> = theirs
            .iter()
            .map(|(key, digest)| (*key, *digest))
            .filter(differs)
            .map(|(key, _)| word(key))
            .collect();
        let lacking = ours.keys().filter(|key| !theirs.contains_key(key)).map(word);
        let (wanted, lacking): (BTreeSet<u64>, BTreeSet<u64>) =
            if self.slot_state(table, slot).is_kept() {
                (wanted, lacking.collect())
            } else {
                let other = ours.iter().filter(|(key, digest)| theirs.get(key) != Some(*digest));
                (BTreeSet::new(), other.map(|(key, _)| word(key)).collect())
            };
        self.counters.add("sync_slots_listed");
        if after.is_none() {
            // A step for all pages, so that the slot is not even before the last one.
            let Some(session) = self.tables[table].sync.get_mut(&node) else { return Ok(()) };
            *session.left.entry(slot).or_default() += 1;
        }
        self.want(table, node, wanted);
        self.push(table, node, lacking);
        match last {
            Some(last) if list.more && after.as_ref() < Some(&last) => {
                let Some(session) = self.tables[table].sync.get_mut(&node) else { return Ok(()) };
                session.lists.push_front((slot, Some(last)));
            }
            _ if list.more => return Err(Nonsense),
            _ => self.on_sync_step_done(table, node, slot),
        }
        Ok(())
    }

    fn on_evened(
        &mut self,
        now: Now,
        table: usize,
        node: NodeId,
        (pushed, wanted): (Vec<u64>, Vec<u64>),
        answer: Evened,
    ) -> Result<(), Nonsense> {
        let done = (answer.done as usize).min(pushed.len() + wanted.len());
        if done == 0 {
            return Err(Nonsense);
        }
        let (mut held, mut refused) = (BTreeSet::new(), BTreeSet::new());
        let bytes = answer.entries.iter().map(|(key, entry)| size_of(key, entry)).sum();
        self.handover.put_back(WANTED_BYTES * wanted.len());
        self.handover.take(bytes);
        self.counters.add_many("sync_bytes_fetched", bytes as u64);
        for (key, theirs) in &answer.entries {
            let slot = key.slot();
            let Some(session) = self.tables[table].sync.get(&node) else { return Ok(()) };
            // What is stored elsewhere no reader finds.
            if !self.owns(slot) || session.slots.binary_search(&slot).is_err() {
                self.counters.add("sync_entries_misplaced");
                continue;
            }
            if !self.slot_state(table, slot).is_kept() {
                // It has what was pushed, and more.
                continue;
            }
            self.counters.add("sync_entries_fetched");
            held.insert(slot.word(key.as_bytes()));
            self.doubt_if_late(now, table, key, theirs);
            match self.merge(now, table, key, theirs, Admission::Reserve) {
                Ok(merged) if merged != *theirs => {
                    self.push(table, node, [slot.word(key.as_bytes())]);
                }
                Ok(_) => {}
                Err(_) => {
                    // No room for it: this slot is not in sync, and will be tried again.
                    self.counters.add("sync_entries_refused");
                    refused.insert(slot);
                    if let Some(session) = self.tables[table].sync.get_mut(&node) {
                        session.claimed.remove(&slot);
                    }
                }
            }
        }
        self.counters.add_many("sync_entries_pushed", done.min(pushed.len()) as u64);
        let answered = wanted.iter().take(done.saturating_sub(pushed.len()));
        let lacking: Vec<u64> = answered.filter(|word| !held.contains(word)).copied().collect();
        self.push(table, node, lacking);
        let mut again = (pushed.into_iter(), wanted.into_iter());
        for word in again.0.by_ref().chain(again.1.by_ref()).take(done) {
            let slot = Slot::of_word(word).filter(|slot| !refused.contains(slot));
            if let Some(slot) = slot {
                self.on_sync_step_done(table, node, slot);
            }
        }
        let Some(session) = self.tables[table].sync.get_mut(&node) else { return Ok(()) };
        for word in again.0.rev() {
            if let Some(slot) = Slot::of_word(word) {
                session.batch(slot).pushed.push_front(word);
            }
        }
        for word in again.1.rev() {
            if let Some(slot) = Slot::of_word(word) {
                session.batch(slot).wanted.push_front(word);
            }
        }
        Ok(())
    }

    /// Sees to some of the slots that are the same on both sides.
    fn note_some_even(&mut self, now: Now, table: usize, node: NodeId) {
        for _ in 0..self.slots_step() {
            let Some(session) = self.tables[table].sync.get_mut(&node) else { return };
            let Some(slot) = session.same.pop_front() else { return };
            // If something of it is to be exchanged, it is even after that.
            if !session.left.contains_key(&slot) {
                self.on_slot_even(table, node, slot);
            }
        }
        self.next_exchange = Some(now.monotonic);
    }

    fn on_sync_step_done(&mut self, table: usize, node: NodeId, slot: Slot) {
        let Some(session) = self.tables[table].sync.get_mut(&node) else { return };
        let Some(left) = session.left.get_mut(&slot) else { return };
        *left -= 1;
        if *left == 0 {
            session.left.remove(&slot);
            self.on_slot_even(table, node, slot);
        }
    }

    /// What the other held of a slot when it was compared is merged here: it is no source of it any more. This is
    /// the one place where a slot comes to be in sync.
    ///
    /// A home that is itself behind is as good a source as any: what it lacks the others have.
    fn on_slot_even(&mut self, index: usize, node: NodeId, slot: Slot) {
        let table = &mut self.tables[index];
        let Some(session) = table.sync.get_mut(&node) else { return };
        session.claimed.remove(&slot);
        // What was refused may be what the other had when it was compared.
        if session.refused.contains(&slot) {
            return;
        }
        if session.cut_ms == 0 && session.testimonies.contains_key(&slot) {
            session.even.insert(slot);
        }
        // If something was left out, it may be what is missing.
        if session.agrees && session.cut_ms == 0 {
            let attempt = session.attempts.get(&slot).copied();
            let incarnation = session.incarnation;
            session.evens |= table.slots[usize::from(slot.index())].sources.remove(&node);
            if let Some(attempt) = attempt {
                table.custody.note_even(slot.index(), node, attempt, incarnation);
            }
        }
    }

    fn go_on_with_sync(&mut self, now: Now, table: usize, node: NodeId) {
        self.note_some_even(now, table, node);
        loop {
            let Some(session) = self.tables[table].sync.get_mut(&node) else { return };
            if session.open >= WINDOW {
                return;
            }
            let next = self.next_step_of_sync(now, table, node);
            let Some((step, message)) = next.or_else(|| self.last_step_of_sync(table, node)) else {
                break;
            };
            let Some(session) = self.tables[table].sync.get_mut(&node) else { return };
            session.open += 1;
            match &step {
                SyncStep::Testify { .. } => session.asks_open += 1,
                SyncStep::Even { .. } => session.batches_open += 1,
                SyncStep::Sketches(splits) => {
                    let parts = splits.iter().map(|split| split.parts.len()).sum::<usize>();
                    self.handover.take(parts * Sketch::bytes(SYMBOLS));
                }
                SyncStep::Compare | SyncStep::List { .. } => {}
            }
            let purpose = Purpose::Sync { table, session: session.number, step };
            if self.call(now, node, purpose, message).is_none() {
                // It has no address any more.
                self.tables[table].sync.remove(&node);
                return;
            }
        }
        // What waits for its turn is gone on with later.
        let session = self.tables[table].sync.get(&node);
        let over = session.is_some_and(|it| it.open == 0 && !it.waits());
        if over && let Some(session) = self.tables[table].sync.remove(&node) {
            self.counters.add("syncs_finished");
            self.tables[table].not_ready.remove(&node);
            if session.asks.keys().any(|slot| self.seat(table, *slot).wants(node)) {
                self.tables[table].compare_waiting(node, now.monotonic + RETRY);
            }
            if session.evens && self.slots_unsynced(table) == 0 {
                self.begin_freshness_again();
            }
        }
    }

    /// Goes on with comparisons that wait for others: they may have come to an end with a slot.
    fn go_on_with_idle_syncs(&mut self, now: Now, table: usize) {
        let is_idle = |session: &SyncSession| session.fetches && session.open == 0;
        let sessions = self.tables[table].sync.iter().filter(|(_, session)| is_idle(session));
        let nodes: Vec<NodeId> = sessions.map(|(node, _)| *node).collect();
        for node in nodes {
            self.go_on_with_sync(now, table, node);
        }
    }

    /// Goes on with comparisons that would have exchanged more than they may at a time.
    pub(super) fn go_on_with_paced_syncs(&mut self, now: Now) {
        for table in 0..self.tables.len() {
            let waits = |session: &SyncSession| {
                session.waits() && session.batches_open < BATCHES_OPEN || !session.same.is_empty()
            };
            let sessions = self.tables[table].sync.iter().filter(|(_, session)| waits(session));
            let mut nodes: Vec<NodeId> = sessions.map(|(node, _)| *node).collect();
            // Whoever is first takes what there is of the rate.
            let first = self.paced_turn % nodes.len().max(1);
            nodes.rotate_left(first);
            self.paced_turn = self.paced_turn.wrapping_add(1);
            for node in nodes {
                self.go_on_with_sync(now, table, node);
            }
        }
    }

    /// Whether another batch may be exchanged now.
    fn may_exchange(&mut self, now: Now) -> bool {
        let sessions = self.tables.iter().flat_map(|table| table.sync.values());
        let open: usize = sessions.map(|session| session.batches_open).sum();
        open < ALL_BATCHES_OPEN && self.may_move(now)
    }

    /// Whether more may be done now for slots to move, at the rate that bounds that. If not, comparisons are gone on
    /// with once it may.
    fn may_move(&mut self, now: Now) -> bool {
        let rate = self.move_rate();
        let may_go = self.handover.may_go(now.monotonic, rate);
        if !may_go {
            let wait = self.handover.wait(rate).max(PACE_STEP);
            self.next_exchange.get_or_insert(now.monotonic + wait);
        }
        may_go
    }

    /// How many bytes this core exchanges per second at most so that slots move.
    pub(super) fn move_rate(&self) -> u64 {
        self.settings.handover_rate.get() / self.cores as u64
    }

    /// What to ask next; `None` if there is nothing, or other answers have to come first.
    fn next_step_of_sync(
        &mut self,
        now: Now,
        table: usize,
        node: NodeId,
    ) -> Option<(SyncStep, Message)> {
        let name = self.tables[table].store.policy().name.clone();
        let session = self.tables[table].sync.get_mut(&node)?;
        if !session.has_begun {
            if session.asks_open == ASKS_OPEN {
                return None;
            }
            let asks = session.next_asks();
            if !asks.is_empty() {
                let message = self.testify(table, asks.into_iter());
                return Some((SyncStep::Testify { again: false }, message));
            }
            session.has_begun = session.open == 0;
            let session = session.has_begun.then(|| &self.tables[table].sync[&node])?;
            return Some((SyncStep::Compare, self.first_symbols(table, session)?));
        }
        loop {
            let may_exchange = self.may_exchange(now);
            let session = self.tables[table].sync.get_mut(&node)?;
            let core = session.batches.first_key_value().map(|(core, _)| *core);
            let may_exchange = may_exchange && session.batches_open < BATCHES_OPEN;
            if let Some(core) = core.filter(|_| may_exchange) {
                match self.next_batch(now, table, node, core) {
                    Some(batch) => return Some(batch),
                    None => continue,
                }
            }
            if !self.may_move(now) {
                return None;
            }
            let session = self.tables[table].sync.get_mut(&node)?;
            if session.fetches {
                return self.next_chunk(table, node, name);
            }
            if !session.splits.is_empty() {
                return Some(session.next_sketches(name, self.cores as u16));
            }
            if !session.batches.is_empty() || session.lists_asked == LISTS_MAX {
                return None;
            }
            let (slot, after) = session.lists.pop_front()?;
            session.lists_asked += 1;
            let message = SlotListRequest { table: name, slot, after: after.clone() };
            return Some((SyncStep::List { slot, after }, message.into()));
        }
    }

    /// Once nothing else is under way: what the other is to the epochs of the slots that are even.
    fn last_step_of_sync(&mut self, table: usize, node: NodeId) -> Option<(SyncStep, Message)> {
        let session = self.tables[table].sync.get_mut(&node)?;
        if session.open > session.asks_open || session.asks_open == ASKS_OPEN {
            return None;
        }
        let mut asks = Vec::new();
        while asks.len() < ASKS_STEP {
            let Some(slot) = session.even.pop_first() else { break };
            asks.extend(session.asks.get(&slot).map(|ask| (slot, *ask)));
        }
        if asks.is_empty() {
            return None;
        }
        Some((SyncStep::Testify { again: true }, self.testify(table, asks.into_iter())))
    }

    /// What to compare next of what much is fetched of; `None` if enough is under way, or all that is left is
    /// being fetched from others.
    fn next_chunk(
        &mut self,
        table: usize,
        node: NodeId,
        name: String,
    ) -> Option<(SyncStep, Message)> {
        let stride = self.cores as u16;
        let sessions = &mut self.tables[table].sync;
        let mut session = sessions.remove(&node)?;
        let is_free = |first: Slot, last: Slot| {
            let mut others = sessions.values();
            others.all(|other| other.claimed.range(first..=last).next().is_none())
        };
        let keys_waiting = session.batches.values().map(|it| it.wanted.len() + it.pushed.len());
        let has_room = keys_waiting.sum::<usize>() < KEYS_WAITING
            && session.open - session.batches_open - session.asks_open < CHUNKS_OPEN;
        let next = if !has_room {
            None
        } else if let Some(place) = session.lists.iter().position(|(slot, _)| is_free(*slot, *slot))
            && session.lists_asked < LISTS_MAX
        {
            let (slot, after) = session.lists.remove(place).expect("it was found there");
            session.lists_asked += 1;
            session.claimed.insert(slot);
            let message = SlotListRequest { table: name, slot, after: after.clone() };
            Some((SyncStep::List { slot, after }, message.into()))
        } else {
            let slots_of = |split: &Split| {
                let (first, last) = (split.parts.first()?, split.parts.last()?);
                Some((session.slots[first.start], session.slots[last.end - 1]))
            };
            let is_ready = |split: &Split| slots_of(split).is_none_or(|(a, b)| is_free(a, b));
            let place = session.splits.iter().position(is_ready);
            place.map(|place| {
                let split = session.splits.remove(place).expect("it was found there");
                let slots = split.parts.iter().flat_map(|part| &session.slots[part.clone()]);
                session.claimed.extend(slots);
                session.sketches_of(name, stride, vec![split])
            })
        };
        self.tables[table].sync.insert(node, session);
        next
    }

    /// The next batch for a core of the other's; `None` if nothing is left of what was to be in it.
    fn next_batch(
        &mut self,
        now: Now,
        table: usize,
        node: NodeId,
        core: u16,
    ) -> Option<(SyncStep, Message)> {
        let now_ms = self.time.now_ms(now);
        let paced = usize::try_from(self.move_rate() / 10).unwrap_or(usize::MAX);
        let bytes_max = paced.clamp(BATCH_BYTES_MIN, BATCH_BYTES);
        let session = self.tables[table].sync.get_mut(&node)?;
        let mut batch = session.batches.remove(&core)?;
        let (mut pushed, mut entries, mut bytes, mut gone) =
            (Vec::new(), Vec::new(), 0, Vec::new());
        while bytes < bytes_max && pushed.len() < BATCH_KEYS {
            // All of one slot at a time, since finding them costs the slot's size.
            let Some(slot) = batch.pushed.front().and_then(|word| Slot::of_word(*word)) else {
                break;
            };
            let is_of_slot = |word: &&u64| Slot::of_word(**word) == Some(slot);
            let count = batch.pushed.iter().take_while(is_of_slot).take(BATCH_KEYS).count();
            let mut words: Vec<u64> = batch.pushed.iter().take(count).copied().collect();
            words.sort_unstable();
            let store = &mut self.tables[table].store;
            let keys = store.keys_of_words(slot, &words);
            for _ in 0..count {
                if bytes >= bytes_max {
                    break;
                }
                let Some(word) = batch.pushed.pop_front() else { break };
                let first = keys.partition_point(|(other, _)| *other < word);
                let before = entries.len();
                for (_, key) in keys[first..].iter().take_while(|(other, _)| *other == word) {
                    if let Some(entry) = self.comparable(now_ms, table, key) {
                        bytes += size_of(key, &entry);
                        entries.push((key.clone(), entry));
                    }
                }
                if entries.len() == before {
                    // Its time was over meanwhile.
                    gone.push(slot);
                } else {
                    pushed.push(word);
                }
            }
        }
        let count = batch.wanted.len().min(BATCH_KEYS).min(bytes_max / WANTED_BYTES);
        let wanted: Vec<u64> = batch.wanted.drain(..count).collect();
        if let Some(session) = self.tables[table].sync.get_mut(&node)
            && !(batch.pushed.is_empty() && batch.wanted.is_empty())
        {
            session.batches.insert(core, batch);
        }
        self.handover.take(bytes + WANTED_BYTES * wanted.len());
        self.counters.add_many("sync_bytes_pushed", bytes as u64);
        gone.into_iter().for_each(|slot| self.on_sync_step_done(table, node, slot));
        if pushed.is_empty() && wanted.is_empty() {
            return None;
        }
        let message = Even {
            table: self.tables[table].store.policy().name.clone(),
            wanted: wanted.iter().map(|word| word.to_le_bytes()).collect(),
            entries,
        };
        Some((SyncStep::Even { pushed, wanted }, message.into()))
    }

    /// Has the sketches of a table kept, and made if they were put off.
    pub(super) fn keep_sketches(&mut self, table: usize) {
        let store = &mut self.tables[table].store;
        store.keep_sketches();
        if !store.is_read() {
            self.next_read.get_or_insert(Duration::ZERO);
        }
    }

    pub(super) fn slots_unsynced(&self, table: usize) -> usize {
        let is_unsynced = |slot: &Slot| {
            let state = self.slot_state(table, *slot);
            state.home && !state.is_synced()
        };
        self.slots().filter(is_unsynced).count()
    }
}

// The other side.
impl Core {
    /// The part of an answer that is this core's: of other cores' slots it has nothing.
    ///
    /// Whoever this node is fetching from is to compare later: all that it holds would go both ways.
    pub(super) fn sketches(&mut self, from: NodeId, request: &SketchRequest) -> Message {
        let Some(table) = self.table_named(&request.table) else {
            return reject_table(&request.table);
        };
        let begins = request.symbols == 1 && request.sizes.len() == 1;
        if begins && self.goes_first(table, from) {
            self.counters.add("syncs_put_off");
            return reject("this node is fetching what you hold; compare later");
        }
        if !self.tables[table].store.is_comparable() {
            self.keep_sketches(table);
            return reject("this node is reading what it holds; ask again in a second");
        }
        let symbols = usize::from(request.symbols);
        let sizes = request.sizes.iter().map(|size| usize::from(*size));
        let is_sound = (1..=SYMBOLS).contains(&symbols) && request.sizes.len() <= PARTS_MAX;
        let store = &self.tables[table].store;
        let sketches = is_sound
            .then(|| store.sketches(request.slots.slots(), sizes, symbols, request.cut_ms))
            .flatten();
        match sketches {
            Some(parts) => {
                let mut sketches = Vec::with_capacity(parts.len() * Sketch::bytes(symbols));
                parts.iter().for_each(|part| part.write(&mut sketches));
                Sketches { sketches }.into()
            }
            None => reject("parts that there cannot be"),
        }
    }

    /// Whether this node is to have fetched what another has before that one compares. One that it has not begun to
    /// compare with is put off once after each change of the view: two that lack much of each other would wait for ever.
    fn goes_first(&mut self, table: usize, other: NodeId) -> bool {
        let may_begin = matches!(self.standing.status, Status::Up | Status::Draining);
        let Table { sync, slots, put_off, .. } = &mut self.tables[table];
        if sync.get(&other).is_some_and(SyncSession::is_fetching) {
            return true;
        }
        let is_behind = slots.iter().any(|slot| slot.home && slot.sources.contains(&other));
        if !may_begin || !is_behind || !put_off.insert(other) {
            return false;
        }
        if !sync.contains_key(&other) {
            self.tables[table].compare_waiting(other, Duration::ZERO);
        }
        true
    }

    /// Takes in what another node pushes, and gives it what it wants.
    pub(super) fn even(&mut self, now: Now, from: NodeId, request: &Even) -> Message {
        let Some(table) = self.table_named(&request.table) else {
            return reject_table(&request.table);
        };
        let now_ms = self.time.now_ms(now);
        let wanted: Vec<u64> = request.wanted.iter().map(|it| u64::from_le_bytes(*it)).collect();
        let wanted_slots = wanted.iter().map(|word| Slot::of_word(*word));
        let slots = wanted_slots.chain(request.entries.iter().map(|(key, _)| Some(key.slot())));
        if !slots.into_iter().all(|slot| slot.is_some_and(|slot| self.owns(slot))) {
            self.counters.add("sync_entries_misplaced");
            return reject("keys of more than one core");
        }
        // Finding them costs their slots' sizes: nobody asks for more at a time.
        let wanted = &wanted[..wanted.len().min(BATCH_KEYS)];
        let (mut entries, mut bytes, mut done) = (Vec::new(), 0, 0);
        let mut add = |entries: &mut Vec<(Key, Entry)>, key: &Key, entry: Entry| {
            bytes += size_of(key, &entry);
            entries.push((key.clone(), entry));
            bytes >= BATCH_BYTES
        };
        let mut is_full = false;
        let mut last_word = None;
        for (key, theirs) in &request.entries {
            if is_full {
                break;
            }
            let slot = key.slot();
            // Entries whose keys have one word are one step.
            let word = slot.word(key.as_bytes());
            done += u32::from(last_word.replace(word) != Some(word));
            self.counters.add("copies_received");
            self.doubt_if_late(now, table, key, theirs);
            match self.merge(now, table, key, theirs, Admission::Reserve) {
                Ok(merged) if merged != *theirs => is_full = add(&mut entries, key, merged),
                Ok(_) => {}
                Err(_) => {
                    self.counters.add("copies_refused");
                    self.stop_vouching(table, slot, from);
                }
            }
        }
        for words in wanted.chunk_by(|a, b| Slot::of_word(*a) == Slot::of_word(*b)) {
            let Some(slot) = words.first().and_then(|word| Slot::of_word(*word)) else { break };
            if is_full {
                break;
            }
            let mut sorted = words.to_vec();
            sorted.sort_unstable();
            let store = &mut self.tables[table].store;
            let keys = store.keys_of_words(slot, &sorted);
            for word in words {
                if is_full {
                    break;
                }
                done += 1;
                let first = keys.partition_point(|(other, _)| other < word);
                for (_, key) in keys[first..].iter().take_while(|(other, _)| other == word) {
                    if let Some(entry) = self.comparable(now_ms, table, key) {
                        is_full |= add(&mut entries, key, entry);
                    }
                }
            }
        }
        Evened { entries, done }.into()
    }
}

impl SyncSession {
    /// Some of what the other is to be asked before all else; empty once it was asked for all.
    fn next_asks(&mut self) -> Vec<(Slot, Ask)> {
        let after = self.asked.map_or(Bound::Unbounded, Bound::Excluded);
        let left = self.asks.range((after, Bound::Unbounded));
        let next: Vec<_> = left.take(ASKS_STEP).map(|(slot, ask)| (*slot, *ask)).collect();
        self.asked = next.last().map(|(slot, _)| *slot).or(self.asked);
        next
    }

    /// This node did not take something that the other has: the slot is not even, whatever comes out of this comparison.
    pub(super) fn note_refused(&mut self, slot: Slot) {
        self.refused.insert(slot);
    }

    /// Whether it would find what nothing else looks for.
    pub(super) fn has_to_be_done(&self) -> bool {
        matches!(self.extent, Extent::All | Extent::Marked(_))
    }

    /// Whether something is left to do once there is room, or others are done with it.
    fn waits(&self) -> bool {
        let has_lists = !self.lists.is_empty() && self.lists_asked < LISTS_MAX;
        has_lists || !(self.batches.is_empty() && self.same.is_empty() && self.splits.is_empty())
    }

    /// Whether the other is being asked for much that it has.
    fn is_fetching(&self) -> bool {
        self.fetches && (self.waits() || !self.claimed.is_empty())
    }

    /// What is to be exchanged with the other's core that owns a slot.
    fn batch(&mut self, slot: Slot) -> &mut Batch {
        self.batches.entry(slot.index() % self.cores).or_default()
    }

    /// A question for the sketches of as many parts as fit.
    fn next_sketches(&mut self, table: String, stride: u16) -> (SyncStep, Message) {
        let (mut splits, mut count) = (Vec::new(), 0);
        while let Some(split) = self.splits.front()
            && (splits.is_empty() || count + split.parts.len() <= PARTS_STEP)
        {
            count += split.parts.len();
            splits.extend(self.splits.pop_front());
        }
        self.sketches_of(table, stride, splits)
    }

    /// A question for the sketches of the parts of these.
    fn sketches_of(
        &self,
        table: String,
        stride: u16,
        mut splits: Vec<Split>,
    ) -> (SyncStep, Message) {
        // The other takes the slots in ascending order.
        splits.sort_by_key(|split| split.parts.first().map_or(0, |part| part.start));
        let parts = || splits.iter().flat_map(|split| &split.parts);
        let slots: Vec<Slot> =
            parts().flat_map(|part| &self.slots[part.clone()]).copied().collect();
        let message = SketchRequest {
            table,
            cut_ms: self.cut_ms,
            slots: SlotSet::new(&slots, stride),
            sizes: parts().map(|part| part.len() as u16).collect(),
            symbols: SYMBOLS as u8,
        };
        (SyncStep::Sketches(splits), message.into())
    }
}

impl Table {
    /// Has what waits for that compared with a node, at that time or before.
    pub(super) fn compare_waiting(&mut self, node: NodeId, at: Duration) {
        let due = self.waiting_due.entry(node).or_insert(at);
        *due = at.min(*due);
    }

    /// The sketch of a part of what a session compares.
    fn sketch(&self, session: &SyncSession, part: Range<usize>, symbols: usize) -> Option<Sketch> {
        let (size, slots) = (part.len(), session.slots[part].iter().copied());
        self.store.sketches(slots, [size], symbols, session.cut_ms)?.pop()
    }
}

/// About how many bytes an entry has on the wire, and not less for any that is large.
pub(super) fn size_of(key: &Key, entry: &Entry) -> usize {
    const HEAD_BYTES: usize = 200;
    key.as_bytes().len() + HEAD_BYTES + entry.body.as_ref().map_or(0, Body::size)
}
