//! The slots of an application that embeds the node: which of them it should take up and from whom, which
//! it may give up, and who their homes are.
//!
//! Slots change hands as those of tables do ([`super::handover`]), but what is in them only the application
//! knows. So it is told what to do, and nothing is assumed before it has said that it is done: that it takes
//! no more writes for a slot that it should give away, that it has got everything from those that hold a
//! slot it took up, or everything that a leaving holder had in an attempt.
//!
//! The first core does this for all slots of a set. Nodes tell each other that they take part, and which
//! slots they do not take for now since they failed there; homes are looked for among the others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use annulus_proto::limits::{NAME_BYTES_MAX, REPLICAS_MAX};
use annulus_proto::message::{Held, HeldRequest, Message, SetHello, SetNoted, SetOffer};
use annulus_proto::{NodeId, SLOT_COUNT, Slot, SlotSet, Status};
use annulus_slots::{Attempt, Receipt};

use super::Core;
use super::calls::Purpose;
use super::custody::{Custody, Keeper};
use super::io::{Now, Output};
use super::replica::reject;
use super::settings::Flaw;
use super::standing::Standing;

/// A slot set of an application. It must be the same on every node that takes part, but for what is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSetPolicy {
    /// Its name, which no table has: 1 to 63 bytes.
    pub name: String,
    /// How many slots it has, 1 to 16,384. They are numbered from 0, and go by the homes of the node's own
    /// slots: neighbours mostly have the same.
    pub slots: u16,
    /// How many homes each slot has, 1 to 7. A copy is given up with receipts from as many: with 2 one
    /// crash loses nothing.
    pub replicas: NonZeroU8,
    /// With fewer members than this that take part no slot has a home. What is held is kept then, and takes
    /// no writes. At least 1, which is as good as none.
    pub members_min: u16,
    /// Slots that this process holds already, from an earlier run.
    pub held: Vec<u16>,
}

impl SlotSetPolicy {
    /// What is wrong with it, if anything is.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let Self { name, slots, replicas, held, .. } = self;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Some("a slot set's name has 1 to 63 bytes");
        }
        if !(1..=SLOT_COUNT).contains(slots) {
            return Some("a slot set has 1 to 16384 slots");
        }
        if usize::from(replicas.get()) > REPLICAS_MAX {
            return Some("a slot has at most 7 homes");
        }
        held.iter().any(|slot| slot >= slots).then_some("a slot is held that the set does not have")
    }
}

/// A member, as an application needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotMember {
    /// Its id.
    pub node: NodeId,
    /// Its name, for people, and for applications that find each other by it.
    pub name: String,
    /// Where the node is reached, which is not where its application is.
    pub addr: SocketAddr,
}

/// What an application is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotCall {
    /// Hold a slot, get from each of these what it has, then say [`SlotSaid::TakenUp`]. It takes the place of
    /// an earlier one for this slot.
    TakeUp {
        /// The slot.
        slot: u16,
        /// The number of what is to be done.
        task: u64,
        /// Who holds some of it.
        holders: Vec<SlotMember>,
    },
    /// Get from this member all that it has of a slot, then say [`SlotSaid::Has`].
    Offered {
        /// The slot.
        slot: u16,
        /// Who gives it away.
        from: SlotMember,
        /// In which attempt.
        attempt: Attempt,
    },
    /// Take no more writes for a slot, then say [`SlotSaid::Left`]. What is there is still read.
    Leave {
        /// The slot.
        slot: u16,
        /// The number of what is to be done.
        task: u64,
    },
    /// Drop a slot if it was changed no more often than this, then say [`SlotSaid::GaveUp`].
    GiveUp {
        /// The slot.
        slot: u16,
        /// The number of what is to be done.
        task: u64,
        /// How often the slot had been changed when what the others have was made.
        changes: u64,
    },
    /// These slots have other homes now, the primary first; none where there are too few members.
    Homes(Vec<(u16, Vec<SlotMember>)>),
}

/// What an application says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotSaid {
    /// It has got everything for a [`SlotCall::TakeUp`].
    TakenUp {
        /// The slot.
        slot: u16,
        /// The number of the call.
        task: u64,
    },
    /// It has got everything for a [`SlotCall::Offered`].
    Has {
        /// The slot.
        slot: u16,
        /// Who gives it away.
        from: NodeId,
        /// In which attempt.
        attempt: Attempt,
    },
    /// It takes no writes since a [`SlotCall::Leave`].
    Left {
        /// The slot.
        slot: u16,
        /// The number of the call.
        task: u64,
        /// How often the slot was changed so far.
        changes: u64,
    },
    /// What became of a [`SlotCall::GiveUp`].
    GaveUp {
        /// The slot.
        slot: u16,
        /// The number of the call.
        task: u64,
        /// Whether it is gone.
        dropped: bool,
    },
    /// What it holds of a slot was changed.
    Changed {
        /// The slot.
        slot: u16,
        /// How often so far.
        changes: u64,
    },
    /// It holds nothing of a slot any more, and takes it again later.
    Failed {
        /// The slot.
        slot: u16,
    },
}

impl SlotSaid {
    fn slot(self) -> u16 {
        match self {
            Self::TakenUp { slot, .. }
            | Self::Has { slot, .. }
            | Self::Left { slot, .. }
            | Self::GaveUp { slot, .. }
            | Self::Changed { slot, .. }
            | Self::Failed { slot } => slot,
        }
    }
}

/// How many slots of a set there are, by what becomes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SetCounts {
    /// This node is their home.
    pub(super) home: usize,
    /// Among them those that the application has not taken up yet.
    pub(super) unready: usize,
    /// It gives them away.
    pub(super) leaving: usize,
    /// They failed lately, and are not taken.
    pub(super) failed: usize,
}

/// A slot set at this node.
pub(super) struct AppSet {
    policy: SlotSetPolicy,
    pub(super) custody: Custody,
    slots: Vec<AppSlot>,
    /// By slot.
    homes: Vec<Vec<NodeId>>,
    /// What other members said of themselves, in which run.
    parts: BTreeMap<NodeId, Part>,
    /// Whom this node told what, or tells it: in which run of theirs, and its own revision.
    told: BTreeMap<NodeId, (u64, u64)>,
    telling: BTreeSet<NodeId>,
    /// Who is asked what he holds.
    asking: BTreeSet<NodeId>,
    /// When to tell somebody, or ask him, again.
    again: BTreeMap<NodeId, Duration>,
    /// What leaving holders offered, and whether the application has it.
    offers: BTreeMap<(u16, NodeId), (Attempt, bool)>,
    failures: BTreeMap<u16, Failure>,
    /// Of which slots this node takes.
    revision: u64,
    /// This node's own, under which it tells.
    incarnation: u64,
    tasks: u64,
    /// Members that may hold something.
    others: BTreeSet<NodeId>,
    /// Those among them whose slots have to be looked at anew.
    back: BTreeSet<NodeId>,
    /// Members that have not said whether they take part, and since when that is waited for.
    unheard: BTreeMap<NodeId, Duration>,
    /// Whether something has changed that was not looked at yet.
    is_old: bool,
    /// For the application.
    calls: VecDeque<SlotCall>,
}

/// What a node is to one of its slots.
#[derive(Clone, Debug, Default)]
struct AppSlot {
    stage: Stage,
    home: bool,
    keeps: bool,
    /// Members that have to be asked whether they hold some of it.
    sources: BTreeSet<NodeId>,
    /// Those that do, from which the application has to get it.
    holders: BTreeSet<NodeId>,
    /// Whether the application was told to hold it.
    told: bool,
    /// Whether it has got everything.
    ready: bool,
    /// What the application is to do; 0 = nothing.
    task: u64,
    /// How often it was changed, as far as that was said.
    changes: u64,
}

/// What becomes of a slot here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing is here.
    #[default]
    Absent,
    /// It is held.
    Held,
    /// It is to be given away, once the application takes no more writes.
    Leaving,
    /// It is given away.
    Draining,
    /// There are receipts enough, and the application is to drop it.
    Going,
}

/// What a member said of itself.
#[derive(Debug)]
struct Part {
    incarnation: u64,
    revision: u64,
    /// The slots that it does not take; `None`: it has no such set.
    failed: Option<BTreeSet<u16>>,
}

/// A slot that failed here.
#[derive(Clone, Copy, Debug)]
struct Failure {
    times: u32,
    at: Duration,
    /// When it is taken again, if it is not.
    until: Option<Duration>,
}

/// How long that is waited for.
const UNHEARD_MAX: Duration = Duration::from_secs(5);
/// After how long whoever was unsure, or sees other members, is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// After how long whoever did not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a slot is not taken after it failed: at first, and at most. It doubles with each time.
pub(super) const FAILED_FOR: Duration = Duration::from_secs(1);
const FAILED_FOR_MAX: Duration = Duration::from_secs(60);
/// How long after a failure it is forgotten.
const FAILURE_FORGOTTEN: Duration = Duration::from_secs(600);

impl Keeper for AppSet {
    fn custody(&self) -> &Custody {
        &self.custody
    }

    fn custody_mut(&mut self) -> &mut Custody {
        &mut self.custody
    }

    fn homes(&self, _standing: &Standing, slot: u16) -> Vec<NodeId> {
        self.homes[usize::from(slot)].clone()
    }

    fn keeps(&self, slot: u16) -> bool {
        self.slots[usize::from(slot)].keeps
    }

    fn receipts_min(&self) -> usize {
        self.policy.replicas.get().into()
    }

    fn offer(&self, slot: u16, attempt: Attempt) -> Message {
        let Attempt { incarnation, counter } = attempt;
        SetOffer { set: self.policy.name.clone(), slot, incarnation, counter }.into()
    }

    fn empty_slots(&self) -> Vec<u16> {
        Vec::new()
    }

    fn homes_look(&self) -> bool {
        true
    }
}

impl AppSet {
    /// There are receipts enough. The application may have changed something that nobody here has heard of
    /// yet: it has the last word.
    pub(super) fn let_go(&mut self, slot: u16) {
        let task = self.next_task();
        let state = &mut self.slots[usize::from(slot)];
        (state.stage, state.task) = (Stage::Going, task);
        self.calls.push_back(SlotCall::GiveUp { slot, task, changes: state.changes });
    }

    /// A set that nothing is known of but what the application holds.
    pub(super) fn new(policy: SlotSetPolicy) -> Self {
        let count = usize::from(policy.slots);
        let (mut custody, mut slots) = (Custody::new(count), vec![AppSlot::default(); count]);
        for &slot in &policy.held {
            custody.hold(slot);
            slots[usize::from(slot)].stage = Stage::Held;
        }
        Self {
            custody,
            slots,
            homes: vec![Vec::new(); count],
            policy,
            parts: BTreeMap::new(),
            told: BTreeMap::new(),
            telling: BTreeSet::new(),
            asking: BTreeSet::new(),
            again: BTreeMap::new(),
            offers: BTreeMap::new(),
            failures: BTreeMap::new(),
            revision: 1,
            incarnation: 0,
            tasks: 0,
            others: BTreeSet::new(),
            back: BTreeSet::new(),
            unheard: BTreeMap::new(),
            is_old: true,
            calls: VecDeque::new(),
        }
    }

    /// How many slots are what.
    pub(super) fn counts(&self) -> SetCounts {
        let count =
            |is: &dyn Fn(&AppSlot) -> bool| self.slots.iter().filter(|slot| is(slot)).count();
        SetCounts {
            home: count(&|slot| slot.home),
            unready: count(&|slot| slot.home && !slot.ready),
            leaving: count(&|slot| {
                matches!(slot.stage, Stage::Leaving | Stage::Draining | Stage::Going)
            }),
            failed: self.failures.values().filter(|failure| failure.until.is_some()).count(),
        }
    }

    /// Notes which members there are that may hold something, and which have to be looked at anew.
    fn note_members(&mut self, others: &BTreeSet<NodeId>, back: &BTreeSet<NodeId>) {
        self.others.clone_from(others);
        self.back.extend(back);
        self.back.retain(|node| others.contains(node));
        self.is_old = true;
    }

    /// Looks at all slots if something has changed, and enough is known of it.
    fn look(&mut self, now: Duration, standing: &Standing) {
        self.end_failures(now);
        if !self.is_old || standing.status == Status::Joining || standing.alone_by_misfortune {
            return;
        }
        let view = &standing.view;
        self.parts.retain(|node, _| view.get(*node).is_some());
        self.told.retain(|node, _| view.get(*node).is_some());
        let others = &self.others;
        self.again.retain(|node, _| others.contains(node));
        self.offers.retain(|(_, node), _| others.contains(node));
        let is_unknown =
            |node: &NodeId| *node != standing.me && self.part(standing, *node).is_none();
        let unknown: BTreeSet<NodeId> =
            standing.innermost().ring.nodes().iter().copied().filter(is_unknown).collect();
        self.unheard.retain(|node, _| unknown.contains(node));
        for node in unknown {
            self.unheard.entry(node).or_insert(now);
        }
        if self.unheard.values().any(|since| *since + UNHEARD_MAX > now) {
            return;
        }
        self.is_old = false;
        let takes_part = |node: &&NodeId| self.takes_part(standing, **node);
        let members = standing.innermost().ring.nodes().iter().filter(takes_part).count();
        let is_enough = members >= usize::from(self.policy.members_min);
        self.place(standing, is_enough);
        for slot in 0..self.policy.slots {
            let deciding = standing.innermost().roster.homes(self.ring_slot(slot));
            let decides =
                deciding[..deciding.len().min(self.receipts_min())].contains(&standing.me);
            let home = self.homes[usize::from(slot)].contains(&standing.me);
            let keeps = home || decides && is_enough && !self.is_failed(slot);
            self.settle(slot, home, keeps);
            self.ask_application(slot, standing);
        }
        self.back.clear();
    }

    /// Finds the homes of all slots, and says where they are others than before.
    fn place(&mut self, standing: &Standing, is_enough: bool) {
        let replicas = self.receipts_min();
        let mut changed = Vec::new();
        for slot in 0..self.policy.slots {
            let takes = |node: &NodeId| self.takes(standing, *node, slot);
            let ring_slot = self.ring_slot(slot);
            let first = standing.innermost().ring.homes(ring_slot);
            let first = &first[..first.len().min(replicas)];
            let homes: Vec<NodeId> = if !is_enough {
                Vec::new()
            } else if first.iter().all(takes) {
                first.to_vec()
            } else {
                let all = standing.innermost().ring.candidates(ring_slot).into_iter();
                all.filter(takes).take(replicas).collect()
            };
            if self.homes[usize::from(slot)] != homes {
                changed.push((slot, members(standing, &homes)));
                self.homes[usize::from(slot)] = homes;
            }
        }
        if !changed.is_empty() {
            self.calls.push_back(SlotCall::Homes(changed));
        }
    }

    /// Does what follows for a slot from who its homes are.
    fn settle(&mut self, slot: u16, home: bool, keeps: bool) {
        let state = &mut self.slots[usize::from(slot)];
        let was_home = state.home;
        (state.home, state.keeps) = (home, keeps);
        match state.stage {
            Stage::Absent if home => self.hold(slot),
            Stage::Held if home && was_home => {
                if !self.back.is_empty() {
                    state.sources.extend(&self.back);
                    (state.ready, state.task) = (false, 0);
                }
            }
            Stage::Held | Stage::Draining if keeps => self.hold(slot),
            Stage::Held => self.leave(slot),
            // What the application says next, is looked at as things are then.
            Stage::Absent | Stage::Leaving | Stage::Draining | Stage::Going => {}
        }
        let state = &mut self.slots[usize::from(slot)];
        state.sources.retain(|node| self.others.contains(node));
        let before = state.holders.len();
        state.holders.retain(|node| self.others.contains(node));
        if state.holders.len() < before {
            state.task = 0; // There is less to get.
        }
    }

    /// Holds a slot; as its home once everything is here that others hold.
    fn hold(&mut self, slot: u16) {
        self.custody.hold(slot);
        let state = &mut self.slots[usize::from(slot)];
        state.told &= state.stage == Stage::Held;
        (state.stage, state.ready, state.task) = (Stage::Held, false, 0);
        state.holders.clear();
        state.sources.clear();
        if state.home {
            state.sources.clone_from(&self.others);
        }
    }

    fn leave(&mut self, slot: u16) {
        let task = self.next_task();
        self.forget_what_was_taken(slot);
        let state = &mut self.slots[usize::from(slot)];
        (state.stage, state.task) = (Stage::Leaving, task);
        self.calls.push_back(SlotCall::Leave { slot, task });
    }

    fn forget_what_was_taken(&mut self, slot: u16) {
        let state = &mut self.slots[usize::from(slot)];
        state.sources.clear();
        state.holders.clear();
        state.ready = false;
        let of_slot = (slot, NodeId::from_bits(0))..=(slot, NodeId::from_bits(u64::MAX));
        let offered: Vec<_> = self.offers.range(of_slot).map(|(key, _)| *key).collect();
        for key in offered {
            self.offers.remove(&key);
        }
    }

    /// Has the application take up a slot once all were asked that may hold some of it.
    fn ask_application(&mut self, slot: u16, standing: &Standing) {
        let state = &self.slots[usize::from(slot)];
        let is_wanted = state.stage == Stage::Held && state.home && !state.ready;
        if !is_wanted || state.task != 0 || !state.sources.is_empty() {
            return;
        }
        let holders: Vec<NodeId> = state.holders.iter().copied().collect();
        let task = self.next_task();
        let state = &mut self.slots[usize::from(slot)];
        (state.told, state.task) = (true, task);
        let holders = members(standing, &holders);
        self.calls.push_back(SlotCall::TakeUp { slot, task, holders });
    }

    /// Takes in what the application says.
    fn on_said(&mut self, now: Duration, said: SlotSaid, standing: &Standing) {
        let slot = said.slot();
        let incarnation = standing.view.get(standing.me).map_or(0, |member| member.incarnation);
        let Some(state) = self.slots.get_mut(usize::from(slot)) else { return };
        match said {
            SlotSaid::TakenUp { task, .. } => {
                if state.stage == Stage::Held && state.task == task && state.sources.is_empty() {
                    (state.ready, state.task) = (true, 0);
                    state.holders.clear();
                }
            }
            SlotSaid::Has { from, attempt, .. } => {
                if let Some((known, has)) = self.offers.get_mut(&(slot, from)) {
                    *has |= *known == attempt;
                }
            }
            SlotSaid::Left { task, changes, .. } => {
                state.changes = state.changes.max(changes);
                if state.stage == Stage::Leaving && state.task == task {
                    state.task = 0;
                    self.keep_or_give_away(slot, incarnation);
                }
            }
            SlotSaid::GaveUp { task, dropped, .. } => {
                if state.stage == Stage::Going && state.task == task {
                    state.task = 0;
                    if dropped {
                        state.stage = Stage::Absent;
                        if state.home {
                            self.hold(slot);
                        }
                    } else {
                        self.custody.keep_after_all(slot);
                        self.keep_or_give_away(slot, incarnation);
                    }
                }
            }
            SlotSaid::Changed { changes, .. } => {
                state.changes = state.changes.max(changes);
                if state.stage == Stage::Draining {
                    self.custody.renew(slot, incarnation);
                }
            }
            SlotSaid::Failed { .. } => self.on_failed(now, slot),
        }
        self.ask_application(slot, standing);
    }

    /// The application takes no writes for a slot: it is given away, unless it is to be kept after all.
    fn keep_or_give_away(&mut self, slot: u16, incarnation: u64) {
        if self.slots[usize::from(slot)].keeps {
            return self.hold(slot);
        }
        self.custody.leave(slot, incarnation);
        self.slots[usize::from(slot)].stage = Stage::Draining;
    }

    fn on_failed(&mut self, now: Duration, slot: u16) {
        self.forget_what_was_taken(slot);
        self.custody.lose(slot);
        let state = &mut self.slots[usize::from(slot)];
        (state.stage, state.task) = (Stage::Absent, 0);
        let fresh = Failure { times: 0, at: now, until: None };
        let failure = self.failures.entry(slot).or_insert(fresh);
        failure.times += 1;
        failure.at = now;
        let doubled = FAILED_FOR.saturating_mul(1 << (failure.times - 1).min(16));
        failure.until = Some(now + doubled.min(FAILED_FOR_MAX));
        (self.revision, self.is_old) = (self.revision + 1, true);
    }

    /// Takes slots again whose failures were some time ago.
    fn end_failures(&mut self, now: Duration) {
        let mut ended = false;
        for failure in self.failures.values_mut() {
            ended |= failure.until.take_if(|until| *until <= now).is_some();
        }
        if ended {
            (self.revision, self.is_old) = (self.revision + 1, true);
        }
        let is_recent =
            |failure: &Failure| failure.until.is_some() || failure.at + FAILURE_FORGOTTEN > now;
        self.failures.retain(|_, failure| is_recent(failure));
    }

    /// Notes what a member says of itself.
    fn on_hello(&mut self, from: NodeId, hello: &SetHello) {
        let known = self.parts.get(&from);
        let newer = (hello.incarnation, hello.revision);
        if known.is_some_and(|part| (part.incarnation, part.revision) >= newer) {
            return;
        }
        let failed = hello.failed.slots().map(Slot::index).collect();
        let SetHello { incarnation, revision, .. } = *hello;
        self.parts.insert(from, Part { incarnation, revision, failed: Some(failed) });
        self.is_old = true;
    }

    /// What is held of these slots.
    fn held(&self, from: NodeId, request: &HeldRequest, standing: &Standing) -> Held {
        let part = self.part(standing, from);
        let has_noted = part.is_some_and(|part| part.revision >= request.revision);
        let is_sure = has_noted && !self.is_old;
        let (mut held, mut unsure) = (Vec::new(), Vec::new());
        for slot in request.slots.slots() {
            let Some(state) = self.slots.get(usize::from(slot.index())) else { continue };
            match state.stage {
                Stage::Absent if is_sure => {}
                Stage::Held | Stage::Draining if is_sure => held.push(slot),
                _ => unsure.push(slot),
            }
        }
        Held { held: SlotSet::new(&held, 1), unsure: SlotSet::new(&unsure, 1) }
    }

    /// A member has said what it holds of the slots that it was asked for; `None`: it has no such set.
    fn on_held(&mut self, node: NodeId, asked: &[u16], held: Option<&Held>, standing: &Standing) {
        let set = |set: &SlotSet| set.slots().map(Slot::index).collect::<BTreeSet<u16>>();
        let holds = held.map(|held| set(&held.held)).unwrap_or_default();
        let unsure = held.map(|held| set(&held.unsure)).unwrap_or_default();
        for &slot in asked.iter().filter(|slot| !unsure.contains(slot)) {
            let Some(state) = self.slots.get_mut(usize::from(slot)) else { continue };
            if state.sources.remove(&node) && holds.contains(&slot) {
                state.holders.insert(node);
            }
            self.ask_application(slot, standing);
        }
    }

    /// The answer to an offer: a receipt, once the application has everything, and everything else too.
    fn on_offer(
        &mut self,
        from: NodeId,
        offer: &SetOffer,
        standing: &Standing,
        (incarnation, also_drains): (u64, bool),
    ) -> Option<Receipt> {
        let slot = offer.slot;
        let state = self.slots.get(usize::from(slot))?;
        let also_drains = also_drains && state.stage == Stage::Draining;
        // Until the application was told to hold it, it would not keep what it gets.
        if (state.stage != Stage::Held || !state.home || !state.told) && !also_drains {
            return None;
        }
        let ready = state.ready;
        let attempt = Attempt { incarnation: offer.incarnation, counter: offer.counter };
        match self.offers.get(&(slot, from)) {
            Some((known, _)) if *known > attempt => None,
            Some((known, has)) if *known == attempt => {
                if also_drains && *has {
                    return Some(Receipt { from: standing.me, incarnation, attempt });
                }
                let ready = ready && *has;
                self.custody.holding(slot).on_offer(attempt, standing.me, incarnation, ready)
            }
            _ => {
                self.offers.insert((slot, from), (attempt, false));
                let from = member(standing, from)?;
                self.calls.push_back(SlotCall::Offered { slot, from, attempt });
                None
            }
        }
    }

    /// What is known of a member in its present run.
    fn part(&self, standing: &Standing, node: NodeId) -> Option<&Part> {
        let incarnation = standing.view.get(node)?.incarnation;
        self.parts.get(&node).filter(|part| part.incarnation == incarnation)
    }

    fn takes_part(&self, standing: &Standing, node: NodeId) -> bool {
        let has_set = |part: &Part| part.failed.is_some();
        node == standing.me || self.part(standing, node).is_some_and(has_set)
    }

    fn takes(&self, standing: &Standing, node: NodeId, slot: u16) -> bool {
        if node == standing.me {
            return !self.is_failed(slot);
        }
        let part = self.part(standing, node).and_then(|part| part.failed.as_ref());
        part.is_some_and(|failed| !failed.contains(&slot))
    }

    fn is_failed(&self, slot: u16) -> bool {
        self.failures.get(&slot).is_some_and(|failure| failure.until.is_some())
    }

    /// The ring's slot whose homes a slot has.
    pub(super) fn ring_slot(&self, slot: u16) -> Slot {
        let place = u32::from(slot) * u32::from(SLOT_COUNT) / u32::from(self.policy.slots);
        Slot::new(place as u16).expect("a slot's number is below the set's count")
    }

    fn hello(&self, incarnation: u64) -> SetHello {
        let failed = self.failures.iter().filter(|(_, failure)| failure.until.is_some());
        let failed: Vec<Slot> = failed.filter_map(|(slot, _)| Slot::new(*slot)).collect();
        SetHello {
            set: self.policy.name.clone(),
            slots: self.policy.slots,
            replicas: self.policy.replicas.get(),
            incarnation,
            revision: self.revision,
            failed: SlotSet::new(&failed, 1),
        }
    }

    fn is_due(&self, node: NodeId, now: Duration) -> bool {
        self.again.get(&node).is_none_or(|at| *at <= now)
    }

    fn next_task(&mut self) -> u64 {
        self.tasks += 1;
        self.tasks
    }
}

fn member(standing: &Standing, node: NodeId) -> Option<SlotMember> {
    let member = standing.view.get(node)?;
    Some(SlotMember { node, name: member.name.clone(), addr: member.addr })
}

fn members(standing: &Standing, nodes: &[NodeId]) -> Vec<SlotMember> {
    nodes.iter().filter_map(|node| member(standing, *node)).collect()
}

// What goes between nodes, and to the application.
impl Core {
    /// Notes which members there are, for all sets.
    pub(super) fn place_sets(
        &mut self,
        now: Now,
        others: &BTreeSet<NodeId>,
        back: &BTreeSet<NodeId>,
    ) {
        for set in 0..self.sets.len() {
            self.sets[set].note_members(others, back);
            self.look_after_set(now, set);
        }
    }

    /// Does what is to be done for all sets now.
    pub(super) fn look_after_sets(&mut self, now: Now) {
        (0..self.sets.len()).for_each(|set| self.look_after_set(now, set));
    }

    /// Takes in what an application says of its slots.
    pub(super) fn on_slot_said(&mut self, now: Now, set: usize, said: SlotSaid) {
        let standing = self.standing.clone();
        let Some(state) = self.sets.get_mut(set) else { return };
        state.on_said(now.monotonic, said, &standing);
        state.look(now.monotonic, &standing);
        // Whom to ask is looked up with the next tick, since that looks at all slots.
        self.tell_application(set);
    }

    fn look_after_set(&mut self, now: Now, set: usize) {
        let standing = self.standing.clone();
        self.sets[set].look(now.monotonic, &standing);
        self.greet(now, set);
        self.ask_holders(now, set);
        self.tell_application(set);
    }

    pub(super) fn tell_application(&mut self, set: usize) {
        while let Some(call) = self.sets[set].calls.pop_front() {
            self.outputs.push_back(Output::SlotSet { set, call });
        }
    }

    /// Tells members that this node takes part, and which slots it takes, as far as they do not know.
    fn greet(&mut self, now: Now, set: usize) {
        let (incarnation, standing) = (self.incarnation(), self.standing.clone());
        let state = &mut self.sets[set];
        if std::mem::replace(&mut state.incarnation, incarnation) != incarnation {
            // What was said of an earlier one counts no more.
            state.revision += 1;
        }
        let state = &self.sets[set];
        let revision = state.revision;
        let is_news = |node: &NodeId| {
            let theirs = standing.view.get(*node).map_or(0, |member| member.incarnation);
            let knows = state.told.get(node).is_some_and(|told| *told >= (theirs, revision));
            !knows && !state.telling.contains(node) && state.is_due(*node, now.monotonic)
        };
        let to: Vec<NodeId> = self.companions.iter().copied().filter(is_news).collect();
        for node in to {
            let theirs = standing.view.get(node).map_or(0, |member| member.incarnation);
            let hello = self.sets[set].hello(incarnation);
            let purpose = Purpose::SetHello { set, told: (theirs, revision) };
            if self.call(now, node, purpose, hello).is_some() {
                self.sets[set].telling.insert(node);
            }
        }
    }

    pub(super) fn on_set_noted(
        &mut self,
        now: Now,
        (set, told): (usize, (u64, u64)),
        node: NodeId,
        answer: Option<Message>,
    ) {
        let state = &mut self.sets[set];
        state.telling.remove(&node);
        match answer {
            Some(Message::SetNoted(SetNoted { noted: true })) => {
                state.told.insert(node, told);
            }
            // It has no such set, and gets none in this run of it.
            Some(Message::Rejected(_)) => {
                state.told.insert(node, (told.0, u64::MAX));
                let incarnation = told.0;
                state.parts.insert(node, Part { incarnation, revision: u64::MAX, failed: None });
                state.is_old = true;
            }
            Some(_) => drop(state.again.insert(node, now.monotonic + ASK_AGAIN)),
            None => drop(state.again.insert(node, now.monotonic + RETRY)),
        }
        self.look_after_set(now, set);
    }

    /// Asks members what they hold of slots that are to be taken up.
    fn ask_holders(&mut self, now: Now, set: usize) {
        let state = &self.sets[set];
        let mut asked: BTreeMap<NodeId, Vec<u16>> = BTreeMap::new();
        for (slot, of) in state.slots.iter().enumerate() {
            for node in &of.sources {
                let may = !state.asking.contains(node) && state.is_due(*node, now.monotonic);
                if may {
                    asked.entry(*node).or_default().push(slot as u16);
                }
            }
        }
        for (node, slots) in asked {
            let state = &self.sets[set];
            let numbers: Vec<Slot> = slots.iter().filter_map(|slot| Slot::new(*slot)).collect();
            let message = HeldRequest {
                set: state.policy.name.clone(),
                revision: state.revision,
                slots: SlotSet::new(&numbers, 1),
            };
            let asked = if self.call(now, node, Purpose::Held { set, slots }, message).is_some() {
                self.sets[set].asking.insert(node)
            } else {
                false
            };
            if !asked {
                self.sets[set].again.insert(node, now.monotonic + RETRY);
            }
        }
    }

    pub(super) fn on_held(
        &mut self,
        now: Now,
        (set, slots): (usize, Vec<u16>),
        node: NodeId,
        answer: Option<(Message, bool)>,
    ) {
        let standing = self.standing.clone();
        let state = &mut self.sets[set];
        state.asking.remove(&node);
        match answer {
            Some((Message::Held(held), true)) => {
                state.on_held(node, &slots, Some(&held), &standing);
                if !held.unsure.runs.is_empty() {
                    state.again.insert(node, now.monotonic + ASK_AGAIN);
                }
            }
            Some((Message::Rejected(_), _)) => state.on_held(node, &slots, None, &standing),
            // It sees other members, and may not know yet that this node is a home.
            Some(_) => drop(state.again.insert(node, now.monotonic + ASK_AGAIN)),
            None => drop(state.again.insert(node, now.monotonic + RETRY)),
        }
        self.look_after_set(now, set);
    }

    // The other side.

    fn set_named(&self, name: &str) -> Option<usize> {
        self.sets.iter().position(|set| set.policy.name == name)
    }

    pub(super) fn take_hello(&mut self, now: Now, from: NodeId, hello: &SetHello) -> Message {
        let Some(set) = self.set_named(&hello.set) else { return no_such_set(&hello.set) };
        let policy = &self.sets[set].policy;
        if (policy.slots, policy.replicas.get()) != (hello.slots, hello.replicas) {
            self.counters.add("slot_sets_mismatched");
            return reject("a slot set of this name has another number of slots or replicas here");
        }
        let noted = self.standing.view.get(from).is_some();
        if noted {
            self.sets[set].on_hello(from, hello);
            self.look_after_set(now, set);
        }
        SetNoted { noted }.into()
    }

    pub(super) fn tell_held(&mut self, from: NodeId, request: &HeldRequest) -> Message {
        match self.set_named(&request.set) {
            Some(set) => self.sets[set].held(from, request, &self.standing).into(),
            None => no_such_set(&request.set),
        }
    }

    /// The answer to another node's offer. To somebody whom this node does not take for a member it owes no
    /// receipt.
    pub(super) fn take_set_offer(&mut self, from: NodeId, offer: &SetOffer) -> Message {
        let Some(set) = self.set_named(&offer.set) else { return no_such_set(&offer.set) };
        if !self.companions.contains(&from) {
            return self.answer_offer(None);
        }
        let (incarnation, standing) = (self.incarnation(), self.standing.clone());
        let how = (incarnation, self.has(Flaw::ReceiptsWhileDraining));
        let receipt = self.sets[set].on_offer(from, offer, &standing, how);
        self.tell_application(set);
        self.answer_offer(receipt)
    }
}

fn no_such_set(name: &str) -> Message {
    reject(&format!("there is no slot set {name:?} here"))
}

#[cfg(test)]
impl AppSet {
    /// Whether this node is a home of a slot and has everything.
    pub(super) fn is_ready(&self, slot: u16) -> bool {
        let state = &self.slots[usize::from(slot)];
        state.home && state.ready
    }
}
