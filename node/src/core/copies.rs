//! On how many nodes the slots are that this one is a home of, as far as it knows.
//!
//! Once a second a home that is in sync asks the other homes of its slots whether they hold them, too, as
//! long as it does not know, and former ones whether they still do. Everything that is learned in one round counts at
//! once, so that a slot that has gone from one to another is on neither fewer nor more nodes meanwhile. While
//! nothing changes nobody is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annulus_proto::message::{Held, HeldRequest, Message};
use annulus_proto::{NodeId, SLOT_COUNT, Slot, SlotSet, Status};
use annulus_slots::Phase;

use super::calls::Purpose;
use super::custody::Keeper;
use super::io::Now;
use super::replica::reject_table;
use super::{Core, Table, route};

/// What is known of the copies of one table's slots.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// By node: the run in which it was seen to hold these slots.
    seen: BTreeMap<NodeId, Seen>,
    /// By slot: on how many nodes it was since this one is in sync, k at most, or 0 if it was empty. Empty until
    /// that was looked at.
    reached: Vec<u8>,
    /// Since when nodes have left that were seen to hold something.
    gone_since: BTreeMap<NodeId, Duration>,
    round: Option<Round>,
    next: Duration,
    below: usize,
}

#[derive(Debug)]
struct Seen {
    incarnation: u64,
    /// By slot.
    holds: Vec<bool>,
}

/// What is being asked.
#[derive(Debug, Default)]
struct Round {
    open: usize,
    /// Whether all have answered so far.
    is_whole: bool,
    held: Vec<(NodeId, u16)>,
    dropped: Vec<(NodeId, u16)>,
}

const PERIOD: Duration = Duration::from_secs(1);
/// After how long whoever has left counts no more though others did not answer since.
const GONE: Duration = Duration::from_secs(5);

impl Copies {
    /// Slots in sync here, and not empty, that are on fewer nodes than they were, k at most.
    pub(super) fn below(&self) -> usize {
        self.below
    }

    /// Whether a node is known to hold all of a slot, in its present run.
    pub(super) fn holds(&self, node: NodeId, slot: u16) -> bool {
        self.seen.get(&node).is_some_and(|seen| seen.holds[usize::from(slot)])
    }

    /// Of slots with these homes: whom to ask about those of which he is not known to hold what homes should and
    /// no others. Each with what he is known to hold, by slot, and whether he is a home.
    fn expected(&self, homes: &[NodeId], me: NodeId) -> Vec<(NodeId, Option<&[bool]>, bool)> {
        let holds = |node: &NodeId| {
            let seen = self.seen.get(node).filter(|_| !self.gone_since.contains_key(node));
            seen.map(|seen| &seen.holds[..])
        };
        let of_home = homes.iter().filter(|home| **home != me);
        let former = self.seen.keys().filter(|node| !homes.contains(node));
        of_home
            .map(|home| (*home, holds(home), true))
            .chain(former.map(|node| (*node, holds(node), false)))
            .collect()
    }
}

impl Table {
    /// Whether everything is here that is known of a slot, or was when this node ceased to be its home.
    fn has_all(&self, slot: u16) -> bool {
        let state = &self.slots[usize::from(slot)];
        match self.custody.holding(slot).phase() {
            Phase::None => false,
            Phase::Hold if state.home => state.is_synced(),
            // Kept for those who decide, from before others became its homes.
            Phase::Hold => Slot::new(slot).is_some_and(|it| self.epochs.seat(it).is_ready()),
            Phase::Drain => true,
        }
    }
}

impl Core {
    /// Begins to ask, if it is time and there is something to ask.
    pub(super) fn count_copies(&mut self, now: Now) {
        for table in 0..self.tables.len() {
            let copies = &mut self.tables[table].copies;
            if copies.round.is_none() && copies.next <= now.monotonic {
                copies.next = now.monotonic + PERIOD;
                self.begin_round(now, table);
            }
        }
    }

    fn begin_round(&mut self, now: Now, table: usize) {
        let standing = self.standing.clone();
        let of = &mut self.tables[table];
        let member = |node: &NodeId| standing.view.get(*node);
        // What a dead or restarted node held is not known to be anywhere; whoever left has given it away, and
        // counts until it is known to whom.
        let has_left = |node: &NodeId| member(node).is_none_or(|it| it.status == Status::Left);
        let runs_on = |node: &NodeId, seen: &Seen| {
            member(node)
                .is_some_and(|it| it.status.is_active() && it.incarnation == seen.incarnation)
        };
        of.copies.seen.retain(|node, seen| has_left(node) || runs_on(node, seen));
        let left: Vec<NodeId> = of.copies.seen.keys().copied().filter(has_left).collect();
        of.copies.gone_since.retain(|node, _| left.contains(node));
        for node in left {
            of.copies.gone_since.entry(node).or_insert(now.monotonic);
        }
        self.count_below(table, false);
        let of = &self.tables[table];
        let ring = of.ring(&standing);
        let mut asked: BTreeMap<(NodeId, u16), Vec<Slot>> = BTreeMap::new();
        let (mut last, mut expected) = (&[][..], Vec::new());
        for slot in self.slots() {
            let index = slot.index();
            if !of.slots[usize::from(index)].is_synced() {
                continue;
            }
            let homes = ring.homes(slot);
            let homes = &homes[..homes.len().min(of.receipts_min())];
            // Neighbouring slots mostly have the same.
            if homes != last {
                last = homes;
                expected = of.copies.expected(homes, standing.me);
            }
            for (node, holds, is_home) in &expected {
                if holds.is_some_and(|holds| holds[usize::from(index)]) != *is_home {
                    let cores = self.cores_of(*node).unwrap_or(1);
                    asked.entry((*node, index % cores)).or_default().push(slot);
                }
            }
        }
        self.tables[table].copies.round = Some(Round { is_whole: true, ..Round::default() });
        for ((node, _), slots) in asked {
            let cores = self.cores_of(node).unwrap_or(1);
            let message = HeldRequest {
                set: self.tables[table].store.policy().name.clone(),
                revision: 0,
                slots: SlotSet::new(&slots, cores),
            };
            let slots = slots.into_iter().map(Slot::index).collect();
            let purpose = Purpose::CountCopies { table, slots };
            let is_asked = self.call(now, node, purpose, message).is_some();
            if let Some(round) = &mut self.tables[table].copies.round {
                round.open += usize::from(is_asked);
                round.is_whole &= is_asked;
            }
        }
        self.end_round(now, table);
    }

    /// A node has said which of these slots it holds, or will not.
    pub(super) fn on_copies(
        &mut self,
        now: Now,
        (table, slots): (usize, Vec<u16>),
        node: NodeId,
        answer: Option<Message>,
    ) {
        let copies = &mut self.tables[table].copies;
        let Some(mut round) = copies.round.take() else { return };
        round.open -= 1;
        if let Some(Message::Held(Held { held, unsure })) = answer {
            let set = |set: &SlotSet| set.slots().map(Slot::index).collect::<BTreeSet<u16>>();
            let (held, unsure) = (set(&held), set(&unsure));
            for slot in slots.into_iter().filter(|slot| !unsure.contains(slot)) {
                if held.contains(&slot) {
                    round.held.push((node, slot));
                } else if copies.holds(node, slot) {
                    round.dropped.push((node, slot));
                }
            }
        } else {
            round.is_whole = false;
        }
        copies.round = Some(round);
        self.end_round(now, table);
    }

    /// Counts what was learned, once all have answered.
    fn end_round(&mut self, now: Now, table: usize) {
        let standing = self.standing.clone();
        let of = &mut self.tables[table];
        let Some(round) = of.copies.round.take_if(|round| round.open == 0) else { return };
        let copies = &mut of.copies;
        let (is_whole, now) = (round.is_whole, now.monotonic);
        let gone: Vec<NodeId> = copies
            .gone_since
            .iter()
            .filter(|(_, since)| is_whole || **since + GONE <= now)
            .map(|(node, _)| *node)
            .collect();
        for node in gone {
            copies.seen.remove(&node);
            copies.gone_since.remove(&node);
        }
        for (node, slot) in round.held {
            let Some(member) = standing.view.get(node) else { continue };
            let seen = copies.seen.entry(node).or_insert_with(|| Seen {
                incarnation: member.incarnation,
                holds: vec![false; SLOT_COUNT.into()],
            });
            seen.holds[usize::from(slot)] = true;
        }
        if is_whole {
            for (node, slot) in round.dropped {
                if let Some(seen) = copies.seen.get_mut(&node) {
                    seen.holds[usize::from(slot)] = false;
                }
            }
        }
        self.count_below(table, is_whole);
    }

    /// What is known of who holds a slot may be from when there was nothing in it, and nobody offers nothing to
    /// others: it counts after everybody was asked since (`is_news`).
    fn count_below(&mut self, table: usize, is_news: bool) {
        let members = self.placement(table).roster.nodes().len();
        let of = &mut self.tables[table];
        let replicas = of.receipts_min();
        let Copies { seen, reached, below, .. } = &mut of.copies;
        reached.resize(SLOT_COUNT.into(), 0);
        *below = 0;
        for slot in route::slots_of(self.number, self.cores) {
            let index = usize::from(slot.index());
            let reached = &mut reached[index];
            if of.store.slot_len(slot) == 0 || !of.slots[index].is_synced() {
                *reached = 0; // Nobody has to hold nothing.
                continue;
            }
            let copies = 1 + seen.values().filter(|seen| seen.holds[index]).count();
            *reached = match (*reached, is_news) {
                (0, _) => u8::from(!is_news),
                (before, true) => before.max(copies.min(replicas) as u8),
                (before, false) => before,
            };
            *below += usize::from(copies < members.min((*reached).into()));
        }
    }

    /// Which slots of a table are here. Of other cores' slots this one does not know.
    pub(super) fn tell_copies(&self, request: &HeldRequest) -> Message {
        let Some(table) = self.table_named(&request.set) else {
            return reject_table(&request.set);
        };
        let table = &self.tables[table];
        let (mut held, mut unsure) = (Vec::new(), Vec::new());
        for slot in request.slots.slots() {
            if !self.owns(slot) || !table.store.is_read() {
                unsure.push(slot);
            } else if table.has_all(slot.index()) {
                held.push(slot);
            }
        }
        Held { held: SlotSet::new(&held, 1), unsure: SlotSet::new(&unsure, 1) }.into()
    }
}

#[cfg(test)]
impl Copies {
    /// On how many nodes each slot was.
    pub(super) fn reached(&self) -> impl Iterator<Item = usize> + '_ {
        self.reached.iter().map(|reached| usize::from(*reached))
    }
}
