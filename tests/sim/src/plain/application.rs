//! An application that embeds the nodes and keeps numbers in slots of its own.
//!
//! What it has survives its process, as on a disk. A number is stored at once at all homes that can be reached;
//! what else goes between its processes takes its time, and does not arrive where something is in the way.
//!
//! The rule **copies** for its slots: a process drops one only if each of its numbers is on as many other hosts
//! as the slot has homes, or on as many as it was before. Nothing else takes a number from anywhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use annulus_node::core::{SlotCall, SlotSaid, SlotSetPolicy};
use annulus_proto::NodeId;
use annulus_slots::Attempt;
use rand::RngExt;

use super::net::End;
use super::world::{Event, World};
use crate::scenario::Mutant;
use crate::trace;

/// What the application has on one host.
#[derive(Default)]
pub(super) struct Application {
    slots: BTreeMap<u16, Kept>,
    // What its process knows; the next one begins anew.
    homes: BTreeMap<u16, Vec<usize>>,
    /// What it was told to do and has not looked at.
    calls: VecDeque<SlotCall>,
    /// By slot: the number of the call, and whom it has got nothing from yet.
    taking_up: BTreeMap<u16, (u64, BTreeSet<usize>)>,
    offers: BTreeMap<(u16, usize), Attempt>,
    /// How often each slot changed that takes no writes. Never less in a process, whatever becomes of the slot.
    changes: BTreeMap<u16, u64>,
}

/// What it has of a slot.
#[derive(Clone, Debug, Default)]
struct Kept {
    numbers: BTreeSet<u64>,
    takes_writes: bool,
}

/// Something between the application's processes, or a turn of one. `life` is the addressee's: a process learns
/// nothing that was for the one before.
#[derive(Clone, Debug)]
pub(super) enum Move {
    Turn { life: u32 },
    Ask { by: usize, life: u32, slot: u16, why: Why },
    Got { life: u32, from: usize, slot: u16, why: Why, numbers: BTreeSet<u64> },
    AskAgain { life: u32, from: usize, slot: u16, why: Why },
}

/// What contents are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    TakeUp(u64),
    Offer(Attempt),
}

/// The longest pause between two numbers.
const PAUSE_MS_MAX: u64 = 60;
/// How long one process of an application takes at most to see to what it is told.
const TURN_US_MAX: u64 = 3_000;
/// After how long contents are asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(150);

impl Application {
    /// A new process, which knows what the host has and nothing else.
    pub(super) fn restart(&mut self) {
        for kept in self.slots.values_mut() {
            kept.takes_writes = false;
        }
        let slots = std::mem::take(&mut self.slots);
        *self = Self { slots, ..Self::default() };
    }

    /// The set as a process finds it.
    pub(super) fn policy(&self, slots: u16, replicas: std::num::NonZeroU8) -> SlotSetPolicy {
        SlotSetPolicy {
            name: "numbers".to_owned(),
            slots,
            replicas,
            members_min: 1,
            held: self.slots.keys().copied().collect(),
        }
    }

    /// Whether it has nothing any more.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn is_awaited(&self, from: usize, slot: u16, why: Why) -> bool {
        match why {
            Why::TakeUp(task) => self
                .taking_up
                .get(&slot)
                .is_some_and(|(current, left)| *current == task && left.contains(&from)),
            Why::Offer(attempt) => self.offers.get(&(slot, from)) == Some(&attempt),
        }
    }

    fn changes_of(&self, slot: u16) -> u64 {
        self.changes.get(&slot).copied().unwrap_or(0)
    }

    fn has(&self, slot: u16, number: u64) -> bool {
        self.slots.get(&slot).is_some_and(|kept| kept.numbers.contains(&number))
    }
}

impl World {
    pub(super) fn on_slot_call(&mut self, node: usize, call: SlotCall) {
        self.hosts[node].application.calls.push_back(call);
        let wait = Duration::from_micros(self.rng.random_range(0..TURN_US_MAX));
        self.move_after(wait, node, Move::Turn { life: self.hosts[node].life });
    }

    fn move_after(&mut self, wait: Duration, node: usize, step: Move) {
        self.after(wait, Event::Application { node, step });
    }

    pub(super) fn on_move(&mut self, node: usize, step: Move) {
        let host = &self.hosts[node];
        if host.node.is_none() {
            // Whoever asks it, asks again.
            if let Move::Ask { by, life, slot, why } = step {
                self.move_after(ASK_AGAIN, by, Move::AskAgain { life, from: node, slot, why });
            }
            return;
        }
        if host.paused.is_some() {
            return self.move_after(ASK_AGAIN, node, step);
        }
        let is_for = |life: u32| life == host.life;
        match step {
            Move::Turn { life } if is_for(life) => {
                if let Some(call) = self.hosts[node].application.calls.pop_front() {
                    self.do_as_told(node, call);
                }
            }
            Move::Ask { by, life, slot, why } => {
                let kept = host.application.slots.get(&slot);
                let numbers = kept.map(|kept| kept.numbers.clone()).unwrap_or_default();
                if self.is_blocked(End::Node(node), End::Node(by)) {
                    let again = Move::AskAgain { life, from: node, slot, why };
                    return self.move_after(ASK_AGAIN, by, again);
                }
                let travel = self.travel(node, by);
                self.move_after(travel, by, Move::Got { life, from: node, slot, why, numbers });
            }
            Move::AskAgain { life, from, slot, why } if is_for(life) => {
                if host.application.is_awaited(from, slot, why) {
                    self.get_from(node, from, slot, why);
                }
            }
            Move::Got { life, from, slot, why, numbers } if is_for(life) => {
                self.take_numbers(node, (from, slot, why), numbers);
            }
            Move::Turn { .. } | Move::AskAgain { .. } | Move::Got { .. } => {}
        }
    }

    fn get_from(&mut self, by: usize, from: usize, slot: u16, why: Why) {
        let life = self.hosts[by].life;
        if self.is_blocked(End::Node(by), End::Node(from)) {
            let again = Move::AskAgain { life, from, slot, why };
            return self.move_after(ASK_AGAIN, by, again);
        }
        let travel = self.travel(by, from);
        self.move_after(travel, from, Move::Ask { by, life, slot, why });
    }

    fn take_numbers(
        &mut self,
        node: usize,
        (from, slot, why): (usize, u16, Why),
        numbers: BTreeSet<u64>,
    ) {
        let id = self.hosts[from].id;
        let application = &mut self.hosts[node].application;
        if !application.is_awaited(from, slot, why) {
            return;
        }
        let Some(kept) = application.slots.get_mut(&slot) else { return };
        let before = kept.numbers.len();
        kept.numbers.extend(numbers);
        if kept.numbers.len() > before && !kept.takes_writes {
            self.tell_change(node, slot);
        }
        match why {
            Why::Offer(attempt) => self.say(node, SlotSaid::Has { slot, from: id, attempt }),
            Why::TakeUp(task) => {
                let application = &mut self.hosts[node].application;
                let Some((_, left)) = application.taking_up.get_mut(&slot) else { return };
                left.remove(&from);
                if left.is_empty() {
                    application.taking_up.remove(&slot);
                    self.say(node, SlotSaid::TakenUp { slot, task });
                }
            }
        }
    }

    fn tell_change(&mut self, node: usize, slot: u16) {
        let changes = self.hosts[node].application.changes.entry(slot).or_default();
        *changes += 1;
        let changes = *changes;
        self.say(node, SlotSaid::Changed { slot, changes });
    }

    fn say(&mut self, node: usize, said: SlotSaid) {
        let now = self.present(node);
        self.process(node, |process| process.say(now, said));
        self.settle(node);
    }

    fn index_of(&self, id: NodeId) -> Option<usize> {
        self.hosts.iter().position(|host| host.id == id)
    }

    fn do_as_told(&mut self, node: usize, call: SlotCall) {
        if !matches!(call, SlotCall::Homes(_)) {
            trace::line(format_args!("n{} is to {call:?}", node + 1));
        }
        match call {
            SlotCall::TakeUp { slot, task, holders } => {
                let from = holders.iter().filter_map(|holder| self.index_of(holder.node));
                let from: BTreeSet<usize> = from.collect();
                let application = &mut self.hosts[node].application;
                application.slots.entry(slot).or_default().takes_writes = true;
                if from.is_empty() {
                    return self.say(node, SlotSaid::TakenUp { slot, task });
                }
                application.taking_up.insert(slot, (task, from.clone()));
                for holder in from {
                    self.get_from(node, holder, slot, Why::TakeUp(task));
                }
            }
            SlotCall::Offered { slot, from, attempt } => {
                let Some(from) = self.index_of(from.node) else { return };
                self.hosts[node].application.offers.insert((slot, from), attempt);
                self.get_from(node, from, slot, Why::Offer(attempt));
            }
            SlotCall::Leave { slot, task } => {
                let application = &mut self.hosts[node].application;
                application.taking_up.remove(&slot);
                application.slots.entry(slot).or_default().takes_writes = false;
                let changes = application.changes_of(slot);
                self.say(node, SlotSaid::Left { slot, task, changes });
            }
            SlotCall::GiveUp { slot, task, changes } => {
                let dropped = self.hosts[node].application.changes_of(slot) == changes
                    || self.mutant == Some(Mutant::DropChangedSlots);
                if dropped {
                    self.drop_slot(node, slot);
                }
                self.say(node, SlotSaid::GaveUp { slot, task, dropped });
            }
            SlotCall::Homes(changed) => {
                for (slot, homes) in changed {
                    let homes = homes.iter().filter_map(|home| self.index_of(home.node)).collect();
                    self.hosts[node].application.homes.insert(slot, homes);
                }
            }
        }
    }

    /// A process drops a slot, if its numbers are on other hosts.
    fn drop_slot(&mut self, node: usize, slot: u16) {
        let Some(kept) = self.hosts[node].application.slots.remove(&slot) else { return };
        self.numbers.dropped += 1;
        let replicas = usize::from(self.storm.replicas.get());
        let copies = |number: &u64| {
            self.hosts.iter().filter(|host| host.application.has(slot, *number)).count()
        };
        let least = kept.numbers.iter().map(|number| (copies(number), *number)).min();
        if let Some((copies, number)) = least.filter(|(copies, _)| *copies < replicas) {
            let what = format!(
                "{number} in slot {slot} of the application is on {copies} hosts at {:?}, and was \
                 on {}",
                self.now,
                copies + 1
            );
            self.violate("copies", what);
        }
    }

    // Numbers.

    /// Somebody stores a number, and goes on.
    pub(super) fn on_number(&mut self) {
        if self.now < self.stop_at {
            let wait = Duration::from_millis(self.rng.random_range(1..=PAUSE_MS_MAX));
            self.after(wait, Event::Number);
        }
        self.numbers.next += 1;
        let number = self.numbers.next;
        let slot = self.rng.random_range(0..self.storm.slots);
        if self.rng.random_range(0..8) == 0 {
            return self.store_late(slot, number);
        }
        let by = self.rng.random_range(0..self.hosts.len());
        if self.hosts[by].node.is_none() {
            return;
        }
        for home in self.hosts[by].application.homes.get(&slot).cloned().unwrap_or_default() {
            let is_cut = by != home
                && (self.is_blocked(End::Node(by), End::Node(home))
                    || self.is_blocked(End::Node(home), End::Node(by)));
            let host = &mut self.hosts[home];
            if is_cut || host.node.is_none() || host.paused.is_some() {
                continue;
            }
            let kept = host.application.slots.get_mut(&slot);
            if let Some(kept) = kept.filter(|kept| kept.takes_writes) {
                kept.numbers.insert(number);
            }
        }
    }

    /// Stores a number at somebody who is giving its slot away, if anybody is.
    fn store_late(&mut self, slot: u16, number: u64) {
        for node in 0..self.hosts.len() {
            let host = &mut self.hosts[node];
            if host.node.is_none() || host.paused.is_some() {
                continue;
            }
            let kept = host.application.slots.get_mut(&slot);
            if let Some(kept) = kept.filter(|kept| !kept.takes_writes) {
                kept.numbers.insert(number);
                return self.tell_change(node, slot);
            }
        }
    }

    /// What keeps the application's slots from being where they should.
    pub(super) fn unmet_slots(&self) -> Vec<String> {
        let mut unmet = Vec::new();
        let replicas = usize::from(self.storm.replicas.get());
        for slot in 0..self.storm.slots {
            let of = |node: &usize| &self.hosts[*node].application;
            let mut known = self.contacts.up().iter().map(|node| of(node).homes.get(&slot));
            let Some(Some(homes)) = known.next() else {
                unmet.push(format!("slot {slot} of the application has no homes"));
                continue;
            };
            if !known.all(|other| other == Some(homes)) {
                unmet.push(format!("the homes of slot {slot} of the application are in dispute"));
                continue;
            }
            for (node, host) in self.hosts.iter().enumerate() {
                let kept = host.application.slots.get(&slot);
                let is_home = homes.contains(&node);
                let takes = kept.is_some_and(|kept| kept.takes_writes);
                if is_home && !takes || !is_home && kept.is_some() && homes.len() == replicas {
                    unmet.push(format!("n{} and slot {slot} of the application", node + 1));
                }
            }
        }
        unmet
    }
}

/// The numbers so far.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// The greatest.
    next: u64,
    /// How many slots were dropped.
    pub(super) dropped: usize,
}
