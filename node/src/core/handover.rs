//! Giving away what this node is no home of any more, and taking receipts for it.
//!
//! The rules are [`Holding`]'s; this is what drives them. A slot whose home this node ceases to be is
//! *leaving*: it refuses new writes and says *absent* of nothing. Comparisons ([`super::sync`]) bring
//! each new home everything that is here; whoever is even with this node is then offered the slot, and
//! answers with a receipt once it is in sync itself. With receipts from as many homes as a slot has in
//! this table the copy is dropped. With fewer homes than that in the whole cluster it is kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use annulus_proto::message::{Failure, Message, Offer, OfferAnswer};
use annulus_proto::{Entry, NodeId, Slot, Status};
use annulus_slots::{Attempt, Phase, Receipt};

use super::Core;
use super::calls::Purpose;
use super::io::Now;
use super::replica::reject_table;
use super::settings::Flaw;

/// What is under way to give slots of one table away.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// The slots, by number.
    slots: BTreeSet<u16>,
    /// Which homes hold all that was here in which attempt, with the incarnation they had.
    even: BTreeMap<(u16, NodeId), (Attempt, u64)>,
    /// Which of them to offer next.
    queue: VecDeque<(u16, NodeId)>,
    /// Offers that are not answered yet.
    offered: BTreeSet<(u16, NodeId)>,
    /// When all of them are offered again, as far as they gave no receipt.
    again: Duration,
    /// How many slots were given up so far.
    given_up: u64,
}

/// How many offers may wait for their answers.
const OFFERS_MAX: usize = 64;
/// After how long homes that were not ready are asked again.
const OFFER_AGAIN: Duration = Duration::from_millis(300);

impl Leaving {
    /// How many slots there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many were given up so far.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }

    fn forget(&mut self, slot: u16) {
        self.slots.remove(&slot);
        let from = (slot, NodeId::from_bits(0));
        let of_slot = self.even.range(from..).map(|(key, _)| *key).take_while(|it| it.0 == slot);
        for key in of_slot.collect::<Vec<_>>() {
            self.even.remove(&key);
        }
    }
}

impl Core {
    /// Begins to hold a slot, or to give it away, as this node is to keep it or not.
    pub(super) fn hold_or_leave(&mut self, table: usize, slot: Slot, keeps: bool) {
        let joins = self.standing.status == Status::Joining;
        let incarnation = self.incarnation();
        let now_ms = self.time.latest_ms();
        let lets_go = !keeps && self.has(Flaw::LetsGoByTable);
        let table = &mut self.tables[table];
        let index = slot.index();
        if lets_go {
            table.store.drop_slot(slot, now_ms);
        }
        let holding = &mut table.slots[usize::from(index)].holding;
        if keeps && (!joins || holding.phase() == Phase::Drain) {
            if holding.phase() != Phase::Hold {
                holding.take_up();
                table.leaving.forget(index);
            }
            return;
        }
        // What becomes of the rest is seen once it has joined.
        if joins {
            return;
        }
        if table.store.slot_len(slot) == 0 {
            holding.lose();
            table.leaving.forget(index);
            return;
        }
        if holding.phase() == Phase::None {
            // It holds something, whatever it was: from an earlier run, or of others' word.
            holding.take_up();
        }
        if holding.phase() == Phase::Hold {
            holding.begin_drain(incarnation);
            table.leaving.slots.insert(index);
        }
    }

    /// Whether a copy may be merged into a slot, and whether receipts for the slot count no more if it is.
    ///
    /// # Errors
    /// [`Failure::Refused`]: this node is no home of the slot and takes no writes for it. Ends it takes
    /// as long as it holds something: nobody is to find here alive what has ended.
    pub(super) fn may_merge(
        &mut self,
        table: usize,
        slot: Slot,
        offered: &Entry,
    ) -> Result<bool, Failure> {
        let state = self.slot_state(table, slot);
        if self.has(Flaw::StoresAsNoHome) {
            return Ok(false);
        }
        let is_leaving = state.holding.phase() == Phase::Drain;
        if self.is_home(table, slot) || is_leaving && offered.is_ended() {
            return Ok(is_leaving);
        }
        self.counters.add("copies_of_no_home");
        Err(Failure::Refused("this node is no home of the slot".to_owned()))
    }

    /// Something was merged into a leaving slot: what was receipted counts no more.
    pub(super) fn renew_leaving(&mut self, now: Now, table: usize, slot: Slot) {
        let incarnation = self.incarnation();
        self.tables[table].slots[usize::from(slot.index())].holding.renew(incarnation);
        for home in self.homes(table, slot) {
            self.tables[table].sync_due.insert(home, now.monotonic);
        }
    }

    /// A home holds everything that was here of a slot when the comparison began, in this attempt, with
    /// a home of that incarnation.
    pub(super) fn note_even(
        &mut self,
        table: usize,
        slot: Slot,
        node: NodeId,
        (attempt, incarnation): (Attempt, u64),
    ) {
        let table = &mut self.tables[table];
        if table.slots[usize::from(slot.index())].holding.attempt() == Some(attempt) {
            let key = (slot.index(), node);
            table.leaving.even.insert(key, (attempt, incarnation));
            table.leaving.queue.push_back(key);
        }
    }

    /// The attempts to give slots away that a comparison with this home may bring on.
    pub(super) fn attempts(&self, table: usize, slots: &[Slot]) -> BTreeMap<Slot, Attempt> {
        let attempt = |slot: &Slot| {
            let attempt = self.slot_state(table, *slot).holding.attempt()?;
            Some((*slot, attempt))
        };
        slots.iter().filter_map(attempt).collect()
    }

    /// Offers leaving slots to the homes that are even with this node: all of them once in a while, a few
    /// at a time.
    pub(super) fn offer_leaving(&mut self, now: Now) {
        for table in 0..self.tables.len() {
            if self.has(Flaw::EarlyReceipts) {
                self.take_all_for_even(table);
            }
            let leaving = &self.tables[table].leaving;
            let is_time = leaving.queue.is_empty() && leaving.again <= now.monotonic;
            if is_time && !leaving.slots.is_empty() {
                self.forget_empty(table);
                let leaving = &mut self.tables[table].leaving;
                leaving.again = now.monotonic + OFFER_AGAIN;
                leaving.queue.extend(leaving.even.keys());
            }
            self.offer_next(now, table);
        }
    }

    /// What has expired meanwhile nobody has to take.
    fn forget_empty(&mut self, table: usize) {
        let table = &mut self.tables[table];
        let is_empty =
            |index: &u16| Slot::new(*index).is_some_and(|slot| table.store.slot_len(slot) == 0);
        let empty: Vec<u16> = table.leaving.slots.iter().copied().filter(is_empty).collect();
        for index in empty {
            table.slots[usize::from(index)].holding.lose();
            table.leaving.forget(index);
        }
    }

    fn offer_next(&mut self, now: Now, table: usize) {
        while self.tables[table].leaving.offered.len() < OFFERS_MAX {
            let Some(key) = self.tables[table].leaving.queue.pop_front() else { return };
            let (index, node) = key;
            let leaving = &mut self.tables[table].leaving;
            let Some((attempt, _)) = leaving.even.get(&key).copied() else { continue };
            let Some(slot) = Slot::new(index).filter(|_| !leaving.offered.contains(&key)) else {
                continue;
            };
            let holding = &self.slot_state(table, slot).holding;
            if holding.attempt() != Some(attempt) {
                self.tables[table].leaving.even.remove(&key);
                continue;
            }
            let has_receipt = holding
                .receipts()
                .iter()
                .any(|it| it.from == node && self.is_current(table, slot, node, it.incarnation));
            if has_receipt || !self.homes(table, slot).contains(&node) {
                continue;
            }
            let name = self.tables[table].store.policy().name.clone();
            let Attempt { incarnation, counter } = attempt;
            let offer = Offer { table: name, slot, incarnation, counter };
            let purpose = Purpose::Offer { table, slot, attempt };
            if self.call(now, node, purpose, offer).is_some() {
                self.tables[table].leaving.offered.insert(key);
            }
        }
    }

    /// Whether what a node said in that run of it counts: it is a home of the slot still, and runs on.
    fn is_current(&self, table: usize, slot: Slot, node: NodeId, incarnation: u64) -> bool {
        let member = self.standing.view.get(node).filter(|member| member.status.is_active());
        member.is_some_and(|member| member.incarnation == incarnation)
            && self.homes(table, slot).contains(&node)
    }

    /// The answer to another node's offer. To somebody whom this node does not take for a member it owes no
    /// receipt: it would not have noticed that something of his was missing here.
    pub(super) fn take_offer(&mut self, from: NodeId, offer: &Offer) -> Message {
        let Some(table) = self.table_named(&offer.table) else {
            return reject_table(&offer.table);
        };
        let state = self.slot_state(table, offer.slot);
        let attempt = Attempt { incarnation: offer.incarnation, counter: offer.counter };
        let ready =
            state.is_synced() && self.companions.contains(&from) || self.has(Flaw::EarlyReceipts);
        let receipt = state.holding.on_offer(attempt, self.id(), self.incarnation(), ready);
        let is_draining = state.holding.phase() == Phase::Drain;
        let given = receipt.is_some() || is_draining && self.has(Flaw::ReceiptsWhileDraining);
        if given {
            self.counters.add("receipts_given");
        }
        OfferAnswer { given, incarnation: self.incarnation() }.into()
    }

    /// A home has answered an offer, or will not.
    pub(super) fn on_offer_answer(
        &mut self,
        now: Now,
        (table, slot, attempt): (usize, Slot, Attempt),
        node: NodeId,
        answer: Option<OfferAnswer>,
    ) {
        self.tables[table].leaving.offered.remove(&(slot.index(), node));
        if let Some(OfferAnswer { given: true, incarnation }) = answer {
            let receipt = Receipt { from: node, incarnation, attempt };
            self.take_receipt(now, table, slot, receipt);
        }
        self.offer_next(now, table);
    }

    fn take_receipt(&mut self, now: Now, table: usize, slot: Slot, receipt: Receipt) {
        let key = (slot.index(), receipt.from);
        let said = (receipt.attempt, receipt.incarnation);
        let leaving = &mut self.tables[table].leaving;
        if leaving.even.get(&key) != Some(&said) {
            // It restarted since: whether it still holds all that, a comparison has to tell.
            leaving.even.remove(&key);
            self.tables[table].sync_due.insert(receipt.from, now.monotonic);
            return;
        }
        let state = self.slot_state(table, slot);
        if state.home || state.decides {
            return;
        }
        let current: BTreeSet<(NodeId, u64)> = state
            .holding
            .receipts()
            .iter()
            .chain([&receipt])
            .map(|receipt| (receipt.from, receipt.incarnation))
            .filter(|(node, incarnation)| self.is_current(table, slot, *node, *incarnation))
            .collect();
        let is_current = |node, incarnation| current.contains(&(node, incarnation));
        let needed = usize::from(self.tables[table].store.policy().replicas.get());
        let holding = &mut self.tables[table].slots[usize::from(slot.index())].holding;
        if holding.on_receipt(receipt, needed, is_current) {
            assert!(current.len() >= needed, "given up with too few receipts");
            self.give_up(now, table, slot);
        }
    }

    fn give_up(&mut self, now: Now, table: usize, slot: Slot) {
        let now_ms = self.time.now_ms(now);
        let table = &mut self.tables[table];
        table.leaving.forget(slot.index());
        table.leaving.given_up += 1;
        let dropped = table.store.drop_slot(slot, now_ms);
        self.counters.add("slots_given_up");
        self.counters.add_many("entries_given_up", dropped);
    }

    /// Leaving slots that every home has a receipt for, and that are kept because there are fewer homes
    /// than the table asks for.
    pub(super) fn slots_short_of_homes(&self, table: usize) -> usize {
        let needed = usize::from(self.tables[table].store.policy().replicas.get());
        let is_short = |index: &&u16| {
            let Some(slot) = Slot::new(**index) else { return false };
            let homes = self.homes(table, slot).len();
            let receipts = self.slot_state(table, slot).holding.receipts().iter();
            let current =
                receipts.filter(|it| self.is_current(table, slot, it.from, it.incarnation));
            homes < needed && current.count() >= homes.max(1)
        };
        self.tables[table].leaving.slots.iter().filter(is_short).count()
    }

    /// [`Flaw::EarlyReceipts`].
    fn take_all_for_even(&mut self, table: usize) {
        let slots: Vec<Slot> =
            self.tables[table].leaving.slots.iter().filter_map(|index| Slot::new(*index)).collect();
        for (slot, attempt) in self.attempts(table, &slots) {
            for home in self.homes(table, slot) {
                let incarnation = self.standing.view.get(home).map_or(0, |it| it.incarnation);
                let even = &mut self.tables[table].leaving.even;
                even.insert((slot.index(), home), (attempt, incarnation));
            }
        }
    }

    pub(super) fn has(&self, flaw: Flaw) -> bool {
        self.settings.flaw == Some(flaw)
    }

    fn incarnation(&self) -> u64 {
        let me = self.standing.view.get(self.id());
        me.map_or(0, |member| member.incarnation)
    }
}
