//! Applications that embed nodes: slots of theirs move as members come and go, and nothing is lost.

use annulus_proto::message::Order;
use annulus_slots::Attempt;

use super::*;
use crate::core::slot_set::{AppSet, FAILED_FOR};

/// An application that keeps numbers in its slots, and gets them from others as these answer.
pub(super) struct Application {
    pub(super) policy: SlotSetPolicy,
    slots: BTreeMap<u16, Kept>,
    homes: BTreeMap<u16, Vec<NodeId>>,
    /// What it was told to do and has not looked at.
    calls: VecDeque<SlotCall>,
    /// By slot: the number of the call, and whom it has got nothing from yet.
    taking_up: BTreeMap<u16, (u64, BTreeSet<NodeId>)>,
    offers: BTreeMap<(u16, NodeId), Attempt>,
    /// It does nothing that it is told.
    is_stuck: bool,
    /// It never gets what it is to take up.
    is_slow: bool,
}

/// What it has of a slot.
#[derive(Clone, Debug, Default)]
struct Kept {
    numbers: BTreeSet<u64>,
    takes_writes: bool,
    changes: u64,
}

/// Something between applications, or an application's turn.
#[derive(Clone, Debug)]
pub(super) enum Move {
    Turn,
    Ask { by: usize, slot: u16, why: Why },
    Got { from: NodeId, slot: u16, why: Why, numbers: BTreeSet<u64> },
    AskAgain { from: NodeId, slot: u16, why: Why },
}

/// What contents are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    TakeUp(u64),
    Offer(Attempt),
}

impl Application {
    fn new(policy: SlotSetPolicy) -> Self {
        Self {
            policy,
            slots: BTreeMap::new(),
            homes: BTreeMap::new(),
            calls: VecDeque::new(),
            taking_up: BTreeMap::new(),
            offers: BTreeMap::new(),
            is_stuck: false,
            is_slow: false,
        }
    }

    fn is_awaited(&self, from: NodeId, slot: u16, why: Why) -> bool {
        match why {
            Why::TakeUp(task) => self
                .taking_up
                .get(&slot)
                .is_some_and(|(current, left)| *current == task && left.contains(&from)),
            Why::Offer(attempt) => self.offers.get(&(slot, from)) == Some(&attempt),
        }
    }
}

const SLOTS: u16 = 40;

fn policy() -> SlotSetPolicy {
    SlotSetPolicy {
        name: "counters".to_owned(),
        slots: SLOTS,
        replicas: 2.try_into().unwrap(),
        members_min: 1,
        held: Vec::new(),
    }
}

impl World {
    /// Nodes that an application embeds.
    fn embedded(count: usize, seed: u64, policy: &SlotSetPolicy) -> Self {
        let mut world = Self::sparse(0, seed);
        for id in 0..count {
            world.add_embedded(id as u64 + 1, policy);
        }
        world
    }

    fn add_embedded(&mut self, id: u64, policy: &SlotSetPolicy) -> usize {
        self.add_with(id, Some(Application::new(policy.clone())))
    }

    pub(super) fn on_slot_call(&mut self, node: usize, call: SlotCall) {
        if let Some(application) = &mut self.nodes[node].application {
            application.calls.push_back(call);
            self.post(node, Arrived::Application(Move::Turn));
        }
    }

    fn index_of(&self, id: NodeId) -> usize {
        self.nodes.iter().position(|node| node.state.id == id.bits()).unwrap()
    }

    fn id_of(&self, node: usize) -> NodeId {
        NodeId::from_bits(self.nodes[node].state.id)
    }

    fn say(&mut self, node: usize, said: SlotSaid) {
        self.input(node, Arrived::Said(said));
    }

    fn fetch_from(&mut self, by: usize, from: NodeId, slot: u16, why: Why) {
        let to = self.index_of(from);
        self.post(to, Arrived::Application(Move::Ask { by, slot, why }));
    }

    pub(super) fn on_move(&mut self, node: usize, step: Move) {
        if self.nodes[node].whole.is_none() {
            // Whoever asks it, asks again.
            if let Move::Ask { by, slot, why } = step {
                let from = self.id_of(node);
                self.post_in(Duration::from_millis(100), by, Move::AskAgain { from, slot, why });
            }
            return;
        }
        let Some(application) = &mut self.nodes[node].application else { return };
        match step {
            Move::Turn => {
                if !application.is_stuck
                    && let Some(call) = application.calls.pop_front()
                {
                    self.carry_out(node, call);
                }
            }
            Move::Ask { by, slot, why } => {
                let kept = application.slots.get(&slot).cloned().unwrap_or_default();
                let (from, numbers) = (self.id_of(node), kept.numbers);
                if self.reaches(node, by) && !self.rng.random_bool(self.loss) {
                    let got = Move::Got { from, slot, why, numbers };
                    self.post(by, Arrived::Application(got));
                } else {
                    let again = Move::AskAgain { from, slot, why };
                    self.post_in(Duration::from_millis(100), by, again);
                }
            }
            Move::AskAgain { from, slot, why } => {
                if application.is_awaited(from, slot, why) {
                    self.fetch_from(node, from, slot, why);
                }
            }
            Move::Got { from, slot, why, numbers } => {
                if !application.is_awaited(from, slot, why) {
                    return;
                }
                let Some(kept) = application.slots.get_mut(&slot) else { return };
                kept.numbers.extend(numbers);
                match why {
                    Why::TakeUp(_) if application.is_slow => {}
                    Why::Offer(attempt) => {
                        self.say(node, SlotSaid::Has { slot, from, attempt });
                    }
                    Why::TakeUp(task) => {
                        let (_, left) = application.taking_up.get_mut(&slot).unwrap();
                        left.remove(&from);
                        if left.is_empty() {
                            application.taking_up.remove(&slot);
                            self.say(node, SlotSaid::TakenUp { slot, task });
                        }
                    }
                }
            }
        }
    }

    fn carry_out(&mut self, node: usize, call: SlotCall) {
        let application = self.nodes[node].application.as_mut().unwrap();
        match call {
            SlotCall::TakeUp { slot, task, holders } => {
                application.slots.entry(slot).or_default().takes_writes = true;
                let from: BTreeSet<NodeId> = holders.iter().map(|holder| holder.node).collect();
                if from.is_empty() {
                    return self.say(node, SlotSaid::TakenUp { slot, task });
                }
                application.taking_up.insert(slot, (task, from.clone()));
                for holder in from {
                    self.fetch_from(node, holder, slot, Why::TakeUp(task));
                }
            }
            SlotCall::Offered { slot, from, attempt } => {
                application.offers.insert((slot, from.node), attempt);
                self.fetch_from(node, from.node, slot, Why::Offer(attempt));
            }
            SlotCall::Leave { slot, task } => {
                let kept = application.slots.entry(slot).or_default();
                kept.takes_writes = false;
                let changes = kept.changes;
                application.taking_up.remove(&slot);
                self.say(node, SlotSaid::Left { slot, task, changes });
            }
            SlotCall::GiveUp { slot, task, changes } => {
                let kept = &application.slots[&slot];
                assert!(!kept.takes_writes, "slot {slot} takes writes and should go");
                let dropped = kept.changes == changes;
                if dropped {
                    application.slots.remove(&slot);
                }
                self.say(node, SlotSaid::GaveUp { slot, task, dropped });
            }
            SlotCall::Homes(changed) => {
                let ids = |homes: Vec<SlotMember>| homes.iter().map(|home| home.node).collect();
                application.homes.extend(changed.into_iter().map(|(slot, now)| (slot, ids(now))));
            }
        }
    }

    /// Stores a number at all homes that this node knows of and that take it; whether that were enough.
    fn count(&mut self, by: usize, number: u64) -> bool {
        let slot = (number % u64::from(SLOTS)) as u16;
        let homes = self.nodes[by].application.as_ref().unwrap().homes.get(&slot).cloned();
        let mut stored = 0;
        for home in homes.unwrap_or_default() {
            let home = self.index_of(home);
            if self.nodes[home].whole.is_none() || !self.reaches(by, home) && by != home {
                continue;
            }
            let kept = self.nodes[home].application.as_mut().unwrap().slots.get_mut(&slot);
            if let Some(kept) = kept.filter(|kept| kept.takes_writes) {
                kept.numbers.insert(number);
                stored += 1;
            }
        }
        stored >= 2
    }

    /// Stores a number at somebody who is giving its slot away, if anybody is.
    fn count_late(&mut self, number: u64) -> bool {
        let slot = (number % u64::from(SLOTS)) as u16;
        for node in 0..self.nodes.len() {
            let is_up = self.nodes[node].whole.is_some();
            let Some(application) = &mut self.nodes[node].application else { continue };
            let kept = application.slots.get_mut(&slot).filter(|kept| !kept.takes_writes && is_up);
            if let Some(kept) = kept {
                kept.numbers.insert(number);
                kept.changes += 1;
                let changes = kept.changes;
                self.say(node, SlotSaid::Changed { slot, changes });
                return true;
            }
        }
        false
    }

    fn copies_of(&self, number: u64) -> usize {
        let slot = (number % u64::from(SLOTS)) as u16;
        let has = |node: &&Node| {
            let kept = node.application.as_ref().and_then(|it| it.slots.get(&slot));
            node.whole.is_some() && kept.is_some_and(|kept| kept.numbers.contains(&number))
        };
        self.nodes.iter().filter(has).count()
    }

    #[track_caller]
    fn assert_counted(&self, numbers: &BTreeSet<u64>, at_least: usize) {
        for number in numbers {
            let copies = self.copies_of(*number);
            assert!(copies >= at_least, "{number} is on {copies} nodes at {:?}", self.now);
        }
    }

    fn set(&self, node: usize) -> Option<&AppSet> {
        self.nodes[node].whole.as_ref().map(|whole| &whole.cores[0].sets[0])
    }

    /// Runs until everybody has what it should have and nobody anything else.
    #[track_caller]
    fn settle_sets(&mut self) {
        self.run_until("all slots are where they belong", Duration::from_secs(60), |world| {
            let sets = (0..world.nodes.len()).filter_map(|node| world.set(node));
            let counts: Vec<_> = sets.map(AppSet::counts).collect();
            let homes: usize = counts.iter().map(|counts| counts.home).sum();
            let moving: usize = counts.iter().map(|it| it.unready + it.leaving + it.failed).sum();
            homes == usize::from(SLOTS) * 2 && moving == 0
        });
    }

    /// Whoever counts as a home that has everything has everything.
    #[track_caller]
    fn assert_ready_homes_know(&self, numbers: &BTreeSet<u64>) {
        for node in 0..self.nodes.len() {
            let Some(set) = self.set(node) else { continue };
            let application = self.nodes[node].application.as_ref().unwrap();
            for slot in (0..SLOTS).filter(|slot| set.is_ready(*slot)) {
                let kept = &application.slots[&slot].numbers;
                let of_slot = |number: &&u64| **number % u64::from(SLOTS) == u64::from(slot);
                for number in numbers.iter().filter(of_slot) {
                    assert!(kept.contains(number), "{number} is unknown at {node}");
                }
            }
        }
    }

    /// Everything is on the homes of its slot and nowhere else.
    #[track_caller]
    fn assert_all_is_home(&self, numbers: &BTreeSet<u64>) {
        for number in numbers {
            assert_eq!(self.copies_of(*number), 2, "{number}");
        }
        for node in self.nodes.iter().filter(|node| node.whole.is_some()) {
            let application = node.application.as_ref().unwrap();
            for (slot, homes) in &application.homes {
                let is_home = homes.contains(&NodeId::from_bits(node.state.id));
                assert_eq!(application.slots.contains_key(slot), is_home, "slot {slot}");
            }
        }
    }

    /// An application does what it was told meanwhile.
    fn go_on(&mut self, node: usize) {
        let application = self.nodes[node].application.as_mut().unwrap();
        application.is_stuck = false;
        for _ in 0..application.calls.len() {
            self.post(node, Arrived::Application(Move::Turn));
        }
    }

    /// The slots that this application has, and that are to be on another node.
    fn kept_for(&self, node: usize, home: usize) -> BTreeSet<u16> {
        let application = self.nodes[node].application.as_ref().unwrap();
        let homes = &application.homes;
        let is_for = |slot: &u16| homes[slot].contains(&self.id_of(home));
        application.slots.keys().copied().filter(is_for).collect()
    }

    fn order_drain(&mut self, node: usize, order: Order) {
        self.next_request += 1;
        let header = Header { id: self.next_request, view: 0, hlc: annulus_proto::Hlc::ZERO };
        let caller = Caller::Client(Role::Operator);
        let request = Request { asker: Asker::Stream(0), caller, header, message: order.into() };
        self.input(node, Arrived::Request(request));
    }
}

#[test]
fn every_slot_gets_its_homes_and_these_take_it_up() {
    for seed in 1..=3 {
        let mut world = World::embedded(3, seed, &policy());
        world.settle_sets();
        let all: BTreeSet<u64> = (0..200).filter(|n| world.count(*n as usize % 3, *n)).collect();
        assert_eq!(all.len(), 200);
        world.assert_all_is_home(&all);
    }
}

#[test]
fn slots_move_to_a_node_that_joins_and_away_from_one_that_drains_while_all_count() {
    for seed in 1..=3 {
        let mut world = World::embedded(3, seed, &policy());
        world.settle_sets();
        let (mut next, mut counted) = (0, BTreeSet::new());
        let mut late = 0;
        for round in 0..3 {
            match round {
                0 => drop(world.add_embedded(9, &policy())),
                1 => world.order_drain(0, Order::Drain),
                _ => world.order_drain(0, Order::StopDraining),
            }
            for step in 0..300 {
                world.run_for(Duration::from_millis(20));
                next += 1;
                if world.count(next as usize % 3, next) {
                    counted.insert(next);
                }
                next += 1;
                if world.count_late(next) {
                    late += 1;
                    counted.insert(next);
                }
                if step % 5 > 0 {
                    continue;
                }
                let on_two: BTreeSet<u64> =
                    counted.iter().copied().filter(|n| n % 2 == 1).collect();
                world.assert_counted(&on_two, 2);
                world.assert_counted(&counted, 1);
                world.assert_ready_homes_know(&on_two);
            }
        }
        world.settle_sets();
        assert!(counted.len() > 700, "{} were counted", counted.len());
        assert!(late > 10, "{late} came late");
        world.assert_all_is_home(&counted);
        assert!((0..4).all(|node| world.set(node).unwrap().custody.given_up() > 0 || node == 3));
    }
}

#[test]
fn a_node_that_dies_takes_nothing_with_it_that_two_had() {
    for seed in 1..=4 {
        let mut world = World::embedded(4, seed, &policy());
        world.settle_sets();
        let all: BTreeSet<u64> = (0..200).filter(|n| world.count(*n as usize % 4, *n)).collect();
        world.kill(2);
        world.nodes[2].application = Some(Application::new(policy()));
        world.settle_sets();
        world.assert_all_is_home(&all);
        // It comes back with nothing, and gets its part.
        world.start(2);
        world.run_until("it has slots", Duration::from_secs(60), |world| {
            world.set(2).is_some_and(|set| set.counts().home > 0)
        });
        world.settle_sets();
        world.assert_all_is_home(&all);
    }
}

#[test]
fn a_node_that_was_declared_down_without_reason_gets_its_slots_back() {
    for seed in 1..=3 {
        let mut world = World::embedded(4, seed, &policy());
        world.settle_sets();
        let all: BTreeSet<u64> = (0..200).filter(|n| world.count(*n as usize % 4, *n)).collect();
        // It refutes that by an incarnation for which the others have heard of no slots yet.
        let before = world.nodes[2].whole.as_ref().unwrap().cores[0].incarnation();
        world.isolate(2);
        world.run_until("it counts as down", Duration::from_secs(60), |world| {
            world.view(0).active().count() == 3 && world.view(1).active().count() == 3
        });
        world.cut.clear();
        world.settle();
        world.settle_sets();
        assert!(world.nodes[2].whole.as_ref().unwrap().cores[0].incarnation() > before);
        for node in 0..4 {
            let counts = world.set(node).unwrap().counts();
            assert!(counts.home > 0, "node {node} has no slots");
        }
        world.assert_all_is_home(&all);
    }
}

#[test]
fn nothing_is_given_up_while_messages_are_lost_and_members_flap() {
    for seed in 1..=4 {
        let mut world = World::embedded(4, seed, &policy());
        world.settle_sets();
        let all: BTreeSet<u64> = (0..200).filter(|n| world.count(*n as usize % 4, *n)).collect();
        world.loss = 0.1;
        for round in 0..6 {
            let order = if round % 2 == 0 { Order::Drain } else { Order::StopDraining };
            world.order_drain((round / 2 + seed as usize) % 4, order);
            for _ in 0..30 {
                world.run_for(Duration::from_millis(50));
                world.assert_counted(&all, 2);
            }
        }
        world.loss = 0.0;
        world.settle_sets();
        world.assert_all_is_home(&all);
    }
}

#[test]
fn nothing_is_assumed_before_the_application_says_so() {
    let mut world = World::embedded(3, 2, &policy());
    world.settle_sets();
    let all: BTreeSet<u64> = (0..200).filter(|n| world.count(*n as usize % 3, *n)).collect();
    let given_up =
        |world: &World| (0..3).map(|node| world.set(node).unwrap().custody.given_up()).sum::<u64>();
    let before = given_up(&world);
    // Whoever joins does nothing that it is told.
    let joined = world.add_embedded(9, &policy());
    world.nodes[joined].application.as_mut().unwrap().is_stuck = true;
    world.run_until("it has slots", Duration::from_secs(20), |world| {
        world.set(joined).is_some_and(|set| set.counts().home > 0)
    });
    world.run_for(Duration::from_secs(20));
    world.assert_counted(&all, 2);
    assert_eq!(given_up(&world), before);
    assert_eq!(
        world.set(joined).unwrap().counts().home,
        world.set(joined).unwrap().counts().unready
    );
    world.go_on(joined);
    world.settle_sets();
    world.assert_all_is_home(&all);
}

#[test]
fn a_home_that_has_not_got_what_is_offered_gives_no_receipt() {
    let mut world = World::embedded(4, 2, &policy());
    world.settle_sets();
    world.nodes[3].application.as_mut().unwrap().is_stuck = true;
    let shared = world.kept_for(0, 3);
    world.order_drain(0, Order::Drain);
    world.run_until("it gives slots away", Duration::from_secs(20), |world| {
        world.set(0).unwrap().counts().leaving > 0 && world.set(0).unwrap().counts().home == 0
    });
    let before = world.set(0).unwrap().counts().leaving;
    world.run_for(Duration::from_secs(20));
    let kept = world.kept_for(0, 3);
    assert!(kept.len() < before, "{} of {before}", kept.len());
    assert_eq!(world.set(0).unwrap().counts().leaving, kept.len(), "all others went");
    // Also those that it took up long ago: it does not know what is new in them.
    let homes = &world.nodes[0].application.as_ref().unwrap().homes;
    let mut still = shared.iter().filter(|slot| homes[slot].contains(&world.id_of(3))).peekable();
    assert!(still.peek().is_some() && still.all(|slot| kept.contains(slot)));
    world.go_on(3);
    world.settle_sets();
    assert_eq!(world.set(0).unwrap().counts().leaving, 0);
}

#[test]
fn a_home_that_has_not_taken_a_slot_up_gives_no_receipt() {
    let mut world = World::embedded(3, 2, &policy());
    world.settle_sets();
    let joined = world.add_embedded(9, &policy());
    world.nodes[joined].application.as_mut().unwrap().is_slow = true;
    world.run_until("it has slots", Duration::from_secs(20), |world| {
        world.set(joined).is_some_and(|set| set.counts().home > 0)
    });
    world.run_for(Duration::from_secs(20));
    let leaving: usize = (0..3).map(|node| world.set(node).unwrap().counts().leaving).sum();
    assert_eq!(leaving, world.set(joined).unwrap().counts().home);
}

#[test]
fn nothing_goes_before_its_holder_takes_no_more_writes() {
    let mut world = World::embedded(4, 3, &policy());
    world.settle_sets();
    let mut counted = BTreeSet::new();
    // It goes on as if nothing had changed.
    world.nodes[0].application.as_mut().unwrap().is_stuck = true;
    world.order_drain(0, Order::Drain);
    for number in 0..400 {
        world.run_for(Duration::from_millis(10));
        if world.count(0, number) {
            counted.insert(number);
        }
        world.assert_counted(&counted, 2);
    }
    assert!(counted.len() > 200, "{}", counted.len());
    world.go_on(0);
    for _ in 0..200 {
        world.run_for(Duration::from_millis(10));
        world.assert_counted(&counted, 2);
    }
    world.settle_sets();
    world.assert_all_is_home(&counted);
}

#[test]
fn whoever_may_take_writes_still_is_asked_again() {
    let mut world = World::embedded(3, 4, &policy());
    world.settle_sets();
    // One that should leave slots has not heard of it: whoever takes them up waits for it.
    world.nodes[0].application.as_mut().unwrap().is_stuck = true;
    let joined = world.add_embedded(9, &policy());
    world.run_until("it has slots", Duration::from_secs(20), |world| {
        world.set(joined).is_some_and(|set| set.counts().home > 0)
    });
    world.run_for(Duration::from_secs(10));
    let left = world.set(0).unwrap().counts().leaving;
    assert!(left > 0);
    assert_eq!(world.set(joined).unwrap().counts().unready, left);
    world.go_on(0);
    world.settle_sets();
}

#[test]
fn a_slot_that_failed_is_taken_over_by_another_home_and_offered_again_later() {
    let mut world = World::embedded(4, 5, &policy());
    world.settle_sets();
    let all: BTreeSet<u64> = (0..200).filter(|n| world.count(*n as usize % 4, *n)).collect();
    let slot = 7;
    let homes = world.nodes[0].application.as_ref().unwrap().homes[&slot].clone();
    let failing = world.index_of(homes[0]);
    let of_slot = |world: &World, node: usize| {
        world.nodes[node].application.as_ref().unwrap().homes[&slot].clone()
    };
    let mut waited = Vec::new();
    for _ in 0..3 {
        world.nodes[failing].application.as_mut().unwrap().slots.remove(&slot);
        world.say(failing, SlotSaid::Failed { slot });
        let failed_at = world.now;
        world.run_until("all know another home", Duration::from_secs(1), |world| {
            (0..4).all(|node| !of_slot(world, node).contains(&homes[0]))
        });
        assert_eq!(of_slot(&world, 0)[0], homes[1], "the next one is the primary");
        world.run_until("it is offered again", Duration::from_secs(10), |world| {
            of_slot(world, failing).contains(&homes[0])
        });
        waited.push(world.now - failed_at);
        world.settle_sets();
        world.assert_all_is_home(&all);
        assert_eq!(of_slot(&world, 1), homes);
    }
    assert!(waited[0] >= FAILED_FOR && waited[0] < 2 * FAILED_FOR, "{waited:?}");
    assert!(waited[2] >= 4 * FAILED_FOR, "{waited:?}");
}

#[test]
fn below_the_least_number_of_members_no_slot_has_a_home() {
    let three = SlotSetPolicy { members_min: 3, ..policy() };
    let mut world = World::embedded(2, 3, &three);
    world.run_for(Duration::from_secs(10));
    let homes = |world: &World, node: usize| {
        let homes = &world.nodes[node].application.as_ref().unwrap().homes;
        homes.values().filter(|homes| !homes.is_empty()).count()
    };
    assert_eq!((homes(&world, 0), homes(&world, 1)), (0, 0));
    world.add_embedded(3, &three);
    world.settle_sets();
    let all: BTreeSet<u64> = (0..200).filter(|n| world.count(*n as usize % 3, *n)).collect();
    assert_eq!(all.len(), 200);
    // With one less nothing takes writes, and nothing is lost.
    world.kill(1);
    world.run_until("nothing has a home", Duration::from_secs(60), |world| homes(world, 0) == 0);
    world.run_for(Duration::from_secs(5));
    assert!((200..240).all(|number| !world.count(0, number)));
    world.assert_counted(&all, 1);
    world.nodes[1].application = Some(Application::new(three));
    world.start(1);
    world.settle_sets();
    world.assert_all_is_home(&all);
}

#[test]
fn members_without_the_set_are_passed_over() {
    let mut world = World::embedded(3, 4, &policy());
    world.add(8);
    let other = SlotSetPolicy { slots: 64, ..policy() };
    world.add_embedded(9, &other);
    world.run_until("all but these have slots", Duration::from_secs(30), |world| {
        let homes = &world.nodes[0].application.as_ref().unwrap().homes;
        let ids = [world.id_of(3), world.id_of(4)];
        let is_ours = |home: &NodeId| !ids.contains(home);
        world.nodes.iter().all(|node| node.whole.as_ref().unwrap().is_up())
            && homes.len() == usize::from(SLOTS)
            && homes.values().all(|homes| homes.len() == 2 && homes.iter().all(is_ours))
    });
    assert!(world.counter(0, "slot_sets_mismatched") > 0);
    // That one is alone with its set.
    world.run_until("it has its slots", Duration::from_secs(30), |world| {
        world.set(4).unwrap().counts().home == 64
    });
}

#[test]
fn the_slots_of_a_set_are_spread_over_the_ring_in_order() {
    for slots in [1, 3, 40, 1_000, 5_461, 8_191, SLOT_COUNT] {
        let set = AppSet::new(SlotSetPolicy { slots, ..policy() });
        let places: Vec<u16> = (0..slots).map(|slot| set.ring_slot(slot).index()).collect();
        assert!(places.is_sorted_by(|a, b| a < b), "{slots}");
        assert_eq!(places[0], 0);
        let gap = SLOT_COUNT / slots;
        assert!(places.windows(2).all(|pair| (gap..=gap + 1).contains(&(pair[1] - pair[0]))));
    }
}
