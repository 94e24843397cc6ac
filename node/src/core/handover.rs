//! Giving away what this node is no home of any more, and taking receipts for it.
//!
//! [`Custody`] keeps the rules; this drives them, for tables and for the slot sets of applications alike
//! ([`Keeper`]). A slot whose home this node ceases to be is *leaving*: it refuses new writes and says
//! *absent* of nothing. Each new home that is known to hold everything that is here, or that looks itself,
//! is offered the slot, and answers with a receipt once it is in sync itself. With receipts from as many
//! homes as a slot has there the copy is dropped. With fewer homes than that in the whole cluster it is kept.
//!
//! What is known of homes comes from comparisons for tables ([`super::sync`]): they bring each new home
//! everything that is here. Applications look themselves ([`super::slot_set`]).

use std::collections::{BTreeMap, BTreeSet};

use annulus_gossip::Ring;
use annulus_proto::message::{Failure, Message, Offer, OfferAnswer};
use annulus_proto::{Entry, NodeId, Slot, Status};
use annulus_slots::{Attempt, Phase, Receipt};

use super::calls::Purpose;
use super::custody::{Custody, Keeper};
use super::io::Now;
use super::replica::reject_table;
use super::settings::Flaw;
use super::standing::Standing;
use super::{Core, Table};

/// Whose slots change hands, by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    /// A table's.
    Table(usize),
    /// A slot set's.
    Set(usize),
}

impl Table {
    /// The ring that its sessions are on.
    pub(super) fn ring<'s>(&self, standing: &'s Standing) -> &'s Ring {
        &standing.placement(self.store.policy().ring).ring
    }
}

impl Keeper for Table {
    fn custody(&self) -> &Custody {
        &self.custody
    }

    fn custody_mut(&mut self) -> &mut Custody {
        &mut self.custody
    }

    fn homes(&self, standing: &Standing, slot: u16) -> Vec<NodeId> {
        let homes = Slot::new(slot).map_or(&[][..], |slot| self.ring(standing).homes(slot));
        homes[..homes.len().min(self.receipts_min())].to_vec()
    }

    fn keeps(&self, slot: u16) -> bool {
        let state = &self.slots[usize::from(slot)];
        state.home || state.decides
    }

    fn receipts_min(&self) -> usize {
        self.store.policy().replicas.get().into()
    }

    fn offer(&self, slot: u16, attempt: Attempt) -> Message {
        let table = self.store.policy().name.clone();
        let slot = Slot::new(slot).expect("custody of a table is of its slots");
        let Attempt { incarnation, counter } = attempt;
        Offer { table, slot, incarnation, counter }.into()
    }

    fn empty_slots(&self) -> Vec<u16> {
        let is_empty =
            |slot: &u16| Slot::new(*slot).is_some_and(|slot| self.store.slot_len(slot) == 0);
        self.custody.leaving().filter(is_empty).collect()
    }

    fn homes_look(&self) -> bool {
        false
    }
}

// What keeps slots, whatever is in them.
impl Core {
    fn keepers(&self) -> Vec<Whose> {
        let sets = (0..self.sets.len()).map(Whose::Set);
        (0..self.tables.len()).map(Whose::Table).chain(sets).collect()
    }

    fn keeper(&self, whose: Whose) -> &dyn Keeper {
        match whose {
            Whose::Table(table) => &self.tables[table],
            Whose::Set(set) => &self.sets[set],
        }
    }

    fn keeper_mut(&mut self, whose: Whose) -> &mut dyn Keeper {
        match whose {
            Whose::Table(table) => &mut self.tables[table],
            Whose::Set(set) => &mut self.sets[set],
        }
    }

    /// Offers leaving slots to their homes: all of them once in a while, a few at a time.
    pub(super) fn offer_leaving(&mut self, now: Now) {
        for whose in self.keepers() {
            if self.keeper(whose).homes_look() || self.has(Flaw::EarlyReceipts) {
                self.take_homes_for_even(whose);
            }
            if self.keeper(whose).custody().is_time(now.monotonic) {
                let keeper = self.keeper_mut(whose);
                for slot in keeper.empty_slots() {
                    keeper.custody_mut().lose(slot);
                }
                keeper.custody_mut().offer_again(now.monotonic);
            }
            self.offer_next(now, whose);
        }
    }

    fn take_homes_for_even(&mut self, whose: Whose) {
        let standing = self.standing.clone();
        let incarnation = |home| standing.view.get(home).map_or(0, |member| member.incarnation);
        let keeper = self.keeper_mut(whose);
        let leaving: Vec<u16> = keeper.custody().leaving().collect();
        for slot in leaving {
            let homes = keeper.homes(&standing, slot);
            let homes: Vec<_> = homes.into_iter().map(|home| (home, incarnation(home))).collect();
            keeper.custody_mut().count_as_even(slot, &homes);
        }
    }

    fn offer_next(&mut self, now: Now, whose: Whose) {
        while let Some((slot, home, attempt)) = self.keeper_mut(whose).custody_mut().next_offer() {
            let keeper = self.keeper(whose);
            let receipts = keeper.custody().holding(slot).receipts().iter();
            let mut of_home = receipts.filter(|receipt| receipt.from == home);
            let has_receipt = of_home.any(|it| self.is_current(whose, slot, home, it.incarnation));
            if has_receipt || !keeper.homes(&self.standing, slot).contains(&home) {
                continue;
            }
            let (message, purpose) =
                (keeper.offer(slot, attempt), Purpose::Offer { whose, slot, attempt });
            if self.call(now, home, purpose, message).is_some() {
                self.keeper_mut(whose).custody_mut().offer_left(slot, home);
            }
        }
    }

    /// Whether what a node said in that run of it counts: it is a home of the slot still, and runs on.
    fn is_current(&self, whose: Whose, slot: u16, node: NodeId, incarnation: u64) -> bool {
        let member = self.standing.view.get(node).filter(|member| member.status.is_active());
        member.is_some_and(|member| member.incarnation == incarnation)
            && self.keeper(whose).homes(&self.standing, slot).contains(&node)
    }

    /// A home has answered an offer, or will not.
    pub(super) fn on_offer_answer(
        &mut self,
        now: Now,
        (whose, slot, attempt): (Whose, u16, Attempt),
        node: NodeId,
        answer: Option<OfferAnswer>,
    ) {
        self.keeper_mut(whose).custody_mut().offer_answered(slot, node);
        if let Some(OfferAnswer { given: true, incarnation }) = answer {
            let receipt = Receipt { from: node, incarnation, attempt };
            self.take_receipt(now, whose, slot, receipt);
        }
        self.offer_next(now, whose);
    }

    fn take_receipt(&mut self, now: Now, whose: Whose, slot: u16, receipt: Receipt) {
        let keeper = self.keeper_mut(whose);
        if !keeper.custody_mut().is_from_even(slot, &receipt) {
            // It restarted since: whether it still holds all that has to be known anew.
            return self.look_again(now, whose, receipt.from);
        }
        if keeper.keeps(slot) {
            return;
        }
        let keeper = self.keeper(whose);
        let current: BTreeSet<(NodeId, u64)> = keeper
            .custody()
            .holding(slot)
            .receipts()
            .iter()
            .chain([&receipt])
            .map(|receipt| (receipt.from, receipt.incarnation))
            .filter(|(node, incarnation)| self.is_current(whose, slot, *node, *incarnation))
            .collect();
        let is_current = |node, incarnation| current.contains(&(node, incarnation));
        let keeper = self.keeper_mut(whose);
        let needed = keeper.receipts_min();
        if keeper.custody_mut().on_receipt(slot, receipt, needed, is_current) {
            assert!(current.len() >= needed, "given up with too few receipts");
            self.give_up(whose, slot);
        }
    }

    /// A copy may go: of a table once it is on disk that others speak for it, of a slot set once the
    /// application says so.
    fn give_up(&mut self, whose: Whose, slot: u16) {
        match whose {
            Whose::Table(table) => {
                let slot = Slot::new(slot).expect("custody of a table is of its slots");
                self.hand_over_seat(table, slot);
            }
            Whose::Set(set) => {
                self.sets[set].let_go(slot);
                self.tell_application(set);
            }
        }
    }

    fn look_again(&mut self, now: Now, whose: Whose, home: NodeId) {
        match whose {
            Whose::Table(table) => self.tables[table].compare_waiting(home, now.monotonic),
            Whose::Set(_) => {} // It does, with the next offer.
        }
    }

    /// Leaving slots that every home has a receipt for, and that are kept because there are fewer homes
    /// than receipts are needed.
    pub(super) fn slots_short_of_homes(&self, whose: Whose) -> usize {
        let keeper = self.keeper(whose);
        let is_short = |slot: &u16| {
            let homes = keeper.homes(&self.standing, *slot).len();
            let receipts = keeper.custody().holding(*slot).receipts().iter();
            let current =
                receipts.filter(|it| self.is_current(whose, *slot, it.from, it.incarnation));
            homes < keeper.receipts_min() && current.count() >= homes.max(1)
        };
        keeper.custody().leaving().filter(is_short).count()
    }

    pub(super) fn has(&self, flaw: Flaw) -> bool {
        self.settings.flaw == Some(flaw)
    }

    pub(super) fn incarnation(&self) -> u64 {
        let me = self.standing.view.get(self.id());
        me.map_or(0, |member| member.incarnation)
    }
}

// Tables: what is held is known by comparing.
impl Core {
    /// Begins to hold a slot, or to give it away, as this node is to keep it or not.
    pub(super) fn hold_or_leave(&mut self, table: usize, slot: Slot, keeps: bool) {
        let joins = self.standing.status == Status::Joining;
        let now_ms = self.time.latest_ms();
        let lets_go = !keeps && self.has(Flaw::LetsGoByTable);
        let Table { store, custody, .. } = &mut self.tables[table];
        let index = slot.index();
        if lets_go {
            store.drop_slot(slot, now_ms);
        }
        if keeps && (!joins || custody.holding(index).phase() == Phase::Drain) {
            return custody.hold(index);
        }
        // What becomes of the rest is seen once it has joined.
        if joins {
            return;
        }
        if store.slot_len(slot) == 0 {
            return custody.lose(index);
        }
        let incarnation = self.incarnation();
        self.tables[table].custody.leave(index, incarnation);
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
        if self.has(Flaw::StoresAsNoHome) {
            return Ok(false);
        }
        let holding = self.tables[table].custody.holding(slot.index());
        let is_leaving = holding.phase() == Phase::Drain;
        if self.is_home(table, slot) || is_leaving && offered.is_ended() {
            return Ok(is_leaving);
        }
        self.counters.add("copies_of_no_home");
        Err(Failure::Refused("this node is no home of the slot".to_owned()))
    }

    /// Something was merged into a leaving slot: what was receipted counts no more.
    pub(super) fn renew_leaving(&mut self, now: Now, table: usize, slot: Slot) {
        let incarnation = self.incarnation();
        self.tables[table].custody.renew(slot.index(), incarnation);
        for home in self.homes(table, slot) {
            self.tables[table].compare_waiting(home, now.monotonic);
        }
    }

    /// The attempts to give slots away that a comparison with this home may bring on.
    pub(super) fn attempts(&self, table: usize, slots: &[Slot]) -> BTreeMap<Slot, Attempt> {
        let holding = |slot: &Slot| self.tables[table].custody.holding(slot.index());
        slots.iter().filter_map(|slot| Some((*slot, holding(slot).attempt()?))).collect()
    }

    /// The answer to another node's offer. To somebody whom this node does not take for a member it owes no
    /// receipt: it would not have noticed that something of his was missing here.
    pub(super) fn take_offer(&mut self, from: NodeId, offer: &Offer) -> Message {
        let Some(table) = self.table_named(&offer.table) else {
            return reject_table(&offer.table);
        };
        let state = self.slot_state(table, offer.slot);
        let attempt = Attempt { incarnation: offer.incarnation, counter: offer.counter };
        // Those that decide may look for it here and nowhere else.
        let decides =
            self.seat(table, offer.slot).is_ready() && self.is_saved_seat(table, offer.slot);
        let ready = state.is_synced() && decides && self.companions.contains(&from)
            || self.has(Flaw::EarlyReceipts);
        let holding = self.tables[table].custody.holding(offer.slot.index());
        let mut receipt = holding.on_offer(attempt, self.id(), self.incarnation(), ready);
        if holding.phase() == Phase::Drain && self.has(Flaw::ReceiptsWhileDraining) {
            receipt = Some(Receipt { from: self.id(), incarnation: self.incarnation(), attempt });
        }
        self.answer_offer(receipt)
    }

    /// That others speak for a copy is on disk: it is dropped, unless it is held again. Returns how many entries went.
    pub(super) fn drop_handed_over(&mut self, now: Now, table: usize, slot: Slot) -> u64 {
        let now_ms = self.time.now_ms(now);
        let table = &mut self.tables[table];
        let phase = table.custody.holding(slot.index()).phase();
        if table.keeps(slot.index()) || phase != Phase::None {
            table.custody.not_given_up();
            return 0;
        }
        let dropped = table.store.drop_slot(slot, now_ms);
        self.counters.add("slots_given_up");
        self.counters.add_many("entries_given_up", dropped);
        dropped
    }

    /// Slots that this node is no home of by placement, and has to do with: those that it gives away, those whose
    /// epoch counts on it, and where it drains those of which it has to tell others.
    pub(super) fn slots_leaving(&self, table: usize) -> usize {
        let stays = self.slots().filter(|slot| self.stays_as_decider(table, *slot)).count();
        self.tables[table].custody.leaving().len() + stays + self.slots_to_tell(table)
    }

    /// Slots of which a node that drains has to tell others before it has done so.
    pub(super) fn slots_to_tell(&self, table: usize) -> usize {
        if self.standing.status != Status::Draining {
            return 0;
        }
        let custody = &self.tables[table].custody;
        let is_counted = |index: &u16| {
            let stays = Slot::new(*index).is_some_and(|slot| self.stays_as_decider(table, slot));
            stays || custody.holding(*index).phase() == Phase::Drain
        };
        self.slots_untold(table).iter().filter(|index| !is_counted(index)).count()
    }

    /// Whether a slot's epoch counts on this node, though placement does not. It may be empty: were the node to leave,
    /// too few might be left to decide about it.
    pub(super) fn stays_as_decider(&self, table: usize, slot: Slot) -> bool {
        let state = self.slot_state(table, slot);
        state.decides && !state.home
    }

    /// Those of them that all their homes have, or that nobody takes this node's place for among those who
    /// decide, and that are kept because there are fewer homes than the table asks for.
    pub(super) fn slots_short(&self, table: usize) -> usize {
        let needed = usize::from(self.tables[table].store.policy().replicas.get());
        let stays = |slot: &Slot| {
            self.stays_as_decider(table, *slot) && self.homes(table, *slot).len() < needed
        };
        let leaving = self.slots_short_of_homes(Whose::Table(table));
        leaving + self.slots().filter(stays).count()
    }

    pub(super) fn answer_offer(&mut self, receipt: Option<Receipt>) -> Message {
        let given = receipt.is_some();
        if given {
            self.counters.add("receipts_given");
        }
        OfferAnswer { given, incarnation: self.incarnation() }.into()
    }
}
