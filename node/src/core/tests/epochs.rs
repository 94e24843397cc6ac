//! Epochs: how they come about, who may speak in their name, and what the disk has to do with it.

use annulus_proto::message::{
    EpochAnswer, EpochBallot, EpochConfig, EpochName, EpochStep, Epochs as EpochsMessage,
    EpochsAnswer, Fetch, Order, Ordered,
};
use annulus_slots::{Config, EpochId, Standing};

use super::*;
use crate::core::epochs::wire::{Step, name};
use crate::core::settings::Flaw;

const KEY: &str = "key";

fn update_if(version: Version, value: &str) -> Operation {
    Operation::UpdateIf { version, change: Change::Value(bytes(value)) }
}

/// What was seen of the epochs of some slots: each is one and the same wherever it is known.
#[derive(Default)]
struct Seen(BTreeMap<(u16, EpochId), Arc<Config>>);

impl Seen {
    #[track_caller]
    fn look(&mut self, world: &World) {
        for node in world.nodes.iter().filter_map(|node| node.whole.as_ref()) {
            for core in &node.cores {
                for slot in core.slots().filter(|slot| slot.index() % 187 == 0) {
                    let Some(config) = core.epoch(0, slot) else { continue };
                    let place = (slot.index(), config.id);
                    let known = self.0.entry(place).or_insert_with(|| config.clone());
                    assert_eq!(known, config, "an epoch of slot {} is two", slot.index());
                }
            }
        }
    }
}

impl World {
    fn break_rule(&mut self, flaw: Option<Flaw>) {
        self.flaw = flaw;
        for core in self.nodes.iter_mut().flat_map(|node| &mut node.whole.as_mut().unwrap().cores) {
            core.settings.flaw = flaw;
        }
    }

    /// A home of a key that knows it.
    fn a_home(&mut self, key: &str) -> usize {
        let homes = self.core(0, key).homes(0, Key::new(key).unwrap().slot());
        let is_it = |node: &Node| NodeId::from_bits(node.state.id) == homes[0];
        self.nodes.iter().position(is_it).unwrap()
    }

    fn epoch_of(&mut self, node: usize, key: &str) -> Arc<Config> {
        let slot = Key::new(key).unwrap().slot();
        self.core(node, key).epoch(0, slot).unwrap().clone()
    }

    fn standing_of(&mut self, node: usize, key: &str) -> Standing {
        let slot = Key::new(key).unwrap().slot();
        self.core(node, key).seat(0, slot).standing()
    }

    /// What a node answers to what another says of a key's slot; nothing if it cannot say.
    #[track_caller]
    fn say_step(&mut self, node: usize, key: &str, step: EpochStep) -> Option<EpochAnswer> {
        let slot = Key::new(key).unwrap().slot();
        let slots = annulus_proto::SlotSet::new(&[slot], 1);
        let message = EpochsMessage { table: "sessions".to_owned(), steps: vec![(slots, step)] };
        match self.tell(node, message.into()) {
            Message::EpochsAnswer(EpochsAnswer { answers }) => {
                answers.into_iter().next().map(|(_, answer)| answer)
            }
            other => panic!("no answer about epochs: {other:?}"),
        }
    }

    #[track_caller]
    fn tell(&mut self, node: usize, message: Message) -> Message {
        self.next_request += 1;
        let id = self.next_request;
        let header = Header { id, view: 0, hlc: annulus_proto::Hlc::ZERO };
        let (asker, caller) = (Asker::Stream(0), Caller::Node(NodeId::from_bits(77)));
        self.input(node, Arrived::Request(Request { asker, caller, header, message }));
        self.run_until("an answer", Duration::from_secs(9), |w| w.replies.contains_key(&id));
        self.replies.remove(&id).unwrap()
    }

    /// Whether a node counts for an epoch of a key's slot.
    fn counts(&mut self, node: usize, key: &str, under: EpochId) -> bool {
        let (table, under) = ("sessions".to_owned(), Some(name(under)));
        let fetch = Fetch { table, key: Key::new(key).unwrap(), under };
        match self.tell(node, fetch.into()) {
            Message::Fetched(fetched) => fetched.synced,
            other => panic!("{other:?}"),
        }
    }

    /// Cuts nodes off from others.
    fn split(&mut self, some: &[usize], others: &[usize]) {
        for one in some {
            self.cut.extend(others.iter().flat_map(|other| [(*one, *other), (*other, *one)]));
        }
    }

    /// Restarts a node as if it had never had to do with the slots all of whose homes are among these.
    fn restart_without_what_is_of(&mut self, node: usize, homes: &[usize]) {
        let is_one = |id: &NodeId| homes.iter().any(|it| self.nodes[*it].state.id == id.bits());
        let cores = &self.nodes[homes[0]].whole.as_ref().unwrap().cores;
        let epochs = cores.iter().flat_map(|core| {
            core.slots().filter_map(|slot| Some((slot, core.epoch(0, slot)?.clone())))
        });
        let theirs = epochs.filter(|(_, config)| config.homes.iter().all(is_one));
        let theirs: BTreeSet<Slot> = theirs.map(|(slot, _)| slot).collect();
        assert!(!theirs.is_empty());
        self.kill(node);
        let is_theirs = |it: &RecordName| it.rest.is_empty() && theirs.contains(&it.slot);
        self.nodes[node].kept.retain(|name, _| !is_theirs(name));
        self.start(node);
    }

    /// Whether a node did not meet all yet that it knew.
    fn has_unmet(&self, node: usize) -> bool {
        let whole = self.nodes[node].whole.as_ref().unwrap();
        whole.cores.iter().any(|core| core.standing.has_unmet)
    }

    fn order_remove(&mut self, node: usize, removed: usize) {
        self.next_request += 1;
        let header = Header { id: self.next_request, view: 0, hlc: annulus_proto::Hlc::ZERO };
        let removed = NodeId::from_bits(self.nodes[removed].state.id);
        let message = Order::Remove { node: removed, accept_loss: true }.into();
        let (asker, caller) = (Asker::Stream(0), Caller::Client(Role::Development));
        self.input(node, Arrived::Request(Request { asker, caller, header, message }));
    }
}

#[test]
fn nodes_that_start_together_found_each_slot_once() {
    let mut world = World::new(3, 301);
    world.settle();
    for slot in Slot::all() {
        let mut known = BTreeSet::new();
        for node in 0..3 {
            let whole = world.nodes[node].whole.as_mut().unwrap();
            let core = whole.core_of(slot);
            let config = core.epoch(0, slot).unwrap();
            known.insert((config.id, config.homes.clone()));
            assert!(core.homes(0, slot).iter().all(|home| config.homes.contains(home)));
        }
        assert_eq!(known.len(), 1, "slot {}", slot.index());
    }
    let founded: u64 = (0..3).map(|node| world.counter(node, "epochs_founded")).sum();
    assert_eq!(founded, 16_384, "by one each");
}

#[test]
fn two_clusters_that_meet_go_on_as_the_older_one_and_lose_nothing() {
    let mut world = World::new(4, 302);
    for one in [0, 1] {
        for other in [2, 3] {
            world.cut.extend([(one, other), (other, one)]);
        }
    }
    world.run_for(Duration::from_secs(15));
    let keys: Vec<String> = (0..30).map(|number| format!("key {number}")).collect();
    for (number, key) in keys.iter().enumerate() {
        let node = number % 4;
        world.acknowledged(node, key, start(bytes(key)));
    }
    world.cut.clear();
    let mut seen = Seen::default();
    for _ in 0..40 {
        world.run_for(Duration::from_millis(500));
        seen.look(&world);
    }
    world.settle();
    seen.look(&world);
    for key in &keys {
        for node in 0..4 {
            assert_eq!(world.value(node, key), bytes(key), "{key} on {node}");
        }
        let home = world.a_home(key);
        let epoch = world.epoch_of(home, key);
        assert!(!epoch.absorbed.is_empty(), "{key}");
        assert!(epoch.absorbed.iter().all(|other| other.lineage > epoch.id.lineage));
    }
    let version = world.acknowledged(0, KEY, start(bytes("new"))).version;
    for node in 0..4 {
        let version = world.copy(node, KEY).map_or(version, |entry| entry.version);
        world.acknowledged(node, KEY, update_if(version, "newer"));
        world.run_for(Duration::from_millis(5));
    }
}

/// Two of three meet first: the youngest lineage may end in one that then ends itself.
#[test]
fn three_clusters_that_meet_one_after_the_other_go_on_as_one() {
    for (seed, apart_ms) in
        [(303, 0), (304, 150), (305, 400), (306, 900), (307, 1_500), (308, 2_500)]
    {
        let mut world = World::sparse(6, seed);
        let group = |node: usize| node / 2;
        let between = |one: usize, other: usize| group(one) != group(other);
        let pairs = || (0..6).flat_map(|one| (0..6).map(move |other| (one, other)));
        world.cut.extend(pairs().filter(|(one, other)| between(*one, *other)));
        world.run_for(Duration::from_secs(15));
        let key = sparse("key");
        world.acknowledged(4, &key, start(bytes("value")));
        world.cut.retain(|(one, other)| group(*one) == 0 || group(*other) == 0);
        world.run_for(Duration::from_secs(1) + Duration::from_millis(apart_ms));
        world.cut.clear();
        let mut seen = Seen::default();
        for _ in 0..20 {
            world.run_for(Duration::from_millis(500));
            seen.look(&world);
        }
        world.settle();
        seen.look(&world);
        for node in 0..6 {
            assert_eq!(world.value(node, &key), bytes("value"), "seed {seed} at {node}");
        }
    }
}

/// A node that decided an epoch and drains may be the only one that knows it.
#[test]
fn an_epoch_that_was_not_heard_is_told_again_and_counts_until_it_is() {
    let mut world = World::sparse(4, 309);
    world.settle();
    let key = sparse("key");
    let slot = Key::new(key.as_str()).unwrap().slot();
    let home = world.a_home(&key);
    let config = world.epoch_of(home, &key);
    let other = (0..4).find(|node| *node != home).unwrap();
    let id = NodeId::from_bits(world.nodes[other].state.id);
    world.cut.insert((home, other));
    let is_untold =
        |world: &mut World| world.core(home, &key).slots_untold(0).contains(&slot.index());
    assert!(!is_untold(&mut world));
    world.core(home, &key).tell_soon(0, id, slot, Step::Learn(config));
    world.run_for(Duration::from_millis(1_200));
    assert!(is_untold(&mut world), "nobody answered");
    world.cut.clear();
    world.run_until("it was told again", Duration::from_secs(10), |world| !is_untold(world));
}

#[test]
fn a_node_that_restarts_founds_nothing_before_it_met_all_that_it_knew() {
    let policy = || TablePolicy { replicas: 2.try_into().unwrap(), ..TablePolicy::default() };
    let (near, far, newcomer) = (1, [0, 2, 3], 4);
    let founded = |world: &World| -> u64 {
        [near, newcomer].map(|node| world.counter(node, "epochs_founded")).iter().sum()
    };
    for by_removal in [false, true] {
        let mut world = World::sparse_with_policy(4, 315, policy());
        world.settle();
        world.split(&[near, newcomer], &far);
        world.restart_without_what_is_of(near, &far);
        // One that never knew the others hears nothing of them from this one, and founds nothing either.
        world.add(77);
        // However often they meet: nodes do so at intervals.
        world.run_for(Duration::from_secs(100));
        assert_eq!(world.view(near).active().count(), 2);
        assert_eq!(founded(&world), 0);
        // It knows whom it did not meet however often it restarts.
        world.kill(near);
        world.start(near);
        world.run_for(Duration::from_secs(20));
        assert!(world.has_unmet(near));
        assert_eq!(founded(&world), 0);
        if by_removal {
            // Until somebody says that those will not come back.
            for far in far {
                world.order_remove(near, far);
            }
            world.run_until("they begin anew", Duration::from_secs(60), |world| {
                [near, newcomer].into_iter().all(|node| world.is_decided(node))
            });
            assert!(founded(&world) > 0);
            assert!(!world.has_unmet(near));
        } else {
            world.cut.clear();
            world.settle();
            assert_eq!(founded(&world), 0);
        }
    }
}

#[test]
fn slots_that_are_known_go_on_while_others_may_not_be_founded() {
    let (near, far) = ([1, 2, 5], [0, 3, 4]);
    let mut world = World::sparse(6, 316);
    world.settle();
    world.split(&near, &far);
    for node in near {
        world.restart_without_what_is_of(node, &far);
    }
    let is_near = |world: &World, home: &NodeId| {
        near.iter().any(|near| world.nodes[*near].state.id == home.bits())
    };
    // Slots with a majority here, and those of them that have all their homes here.
    let counts = |world: &World| {
        let cores = near.iter().flat_map(|node| &world.nodes[*node].whole.as_ref().unwrap().cores);
        let epochs = cores.flat_map(|core| core.slots().filter_map(|slot| core.epoch(0, slot)));
        let here = epochs.map(|it| it.homes.iter().filter(|home| is_near(world, home)).count());
        here.fold((0, 0), |(most, all), here| {
            (most + u32::from(here >= 2), all + u32::from(here == 3))
        })
    };
    world.run_until("homes that are here take over", Duration::from_secs(60), |world| {
        let (most, all) = counts(world);
        most > 0 && most == all
    });
    for node in near {
        assert!(world.has_unmet(node));
        assert_eq!(world.counter(node, "epochs_founded"), 0);
    }
}

#[test]
fn a_home_that_restarts_with_its_memory_goes_on_in_the_same_epoch() {
    let mut world = World::new(3, 303);
    world.settle();
    let before = world.epoch_of(0, KEY).id;
    world.kill(1);
    world.start(1);
    assert!(world.counts(1, KEY, before), "at once");
    world.settle();
    assert_eq!(world.epoch_of(0, KEY).id, before);
    assert_eq!(world.counter(1, "seats_restored"), 16_384);
}

#[test]
fn a_home_that_lost_its_memory_answers_again_in_the_next_epoch_and_not_before() {
    for flaw in [None, Some(Flaw::LostHomesAnswer)] {
        let mut world = World::new(3, 304);
        world.break_rule(flaw);
        world.settle();
        let version = world.acknowledged(0, KEY, start(bytes("one"))).version;
        let before = world.epoch_of(0, KEY).id;
        // The others are out of its reach, so that nothing can change.
        world.isolate(1);
        world.reboot(1);
        world.start(1);
        // A crash before the loss is on disk, or after, changes nothing.
        for _ in 0..2 {
            world.run_for(Duration::from_millis(400));
            world.kill(1);
            world.start(1);
        }
        world.run_for(Duration::from_millis(100));
        assert_eq!(world.standing_of(1, KEY), Standing::Lost);
        assert_eq!(world.counts(1, KEY, before), flaw.is_some());
        if flaw.is_some() {
            continue;
        }
        world.cut.clear();
        world.settle();
        let after = world.epoch_of(1, KEY).id;
        assert!(after.number > before.number, "{after} after {before}");
        assert!(world.counts(1, KEY, after));
        world.acknowledged(1, KEY, update_if(version, "two"));
    }
}

#[test]
fn all_homes_that_lost_their_memory_begin_again_with_what_is_left() {
    let mut world = World::new(3, 305);
    world.settle();
    let before = world.epoch_of(0, KEY).id;
    (0..3).for_each(|node| world.reboot(node));
    (0..3).for_each(|node| world.start(node));
    world.settle();
    assert!(world.epoch_of(0, KEY).id.number > before.number);
    world.acknowledged(1, KEY, start(bytes("new")));
}

#[test]
fn what_was_promised_holds_after_a_restart() {
    for flaw in [None, Some(Flaw::ForgetsPromises)] {
        let mut world = World::new(3, 306);
        world.break_rule(flaw);
        world.settle();
        let under = name(world.epoch_of(0, KEY).id);
        let ballot = |round| EpochBallot { round, node: NodeId::from_bits(2) };
        let high = EpochStep::Prepare { under, ballot: ballot(50) };
        let answer = world.say_step(0, KEY, high);
        assert!(matches!(answer, Some(EpochAnswer::Promise { .. })), "{answer:?}");
        world.kill(0);
        world.start(0);
        let low = EpochStep::Prepare { under, ballot: ballot(40) };
        let answer = world.say_step(0, KEY, low);
        let holds = answer == Some(EpochAnswer::Outbid(ballot(50)));
        assert_eq!(holds, flaw.is_none(), "{answer:?}");
    }
}

#[test]
fn nothing_is_promised_before_the_disk_has_it() {
    let mut world = World::new(3, 307);
    world.settle();
    let id = world.epoch_of(0, KEY).id;
    let ballot = EpochBallot { round: 50, node: NodeId::from_bits(2) };
    let prepare = EpochStep::Prepare { under: name(id), ballot };
    world.nodes[0].has_disk = false;
    assert_eq!(world.say_step(0, KEY, prepare.clone()), None);
    assert!(!world.counts(0, KEY, id), "nor does it count for anything");
    world.nodes[0].has_disk = true;
    world.run_for(Duration::from_secs(3));
    assert!(matches!(world.say_step(0, KEY, prepare), Some(EpochAnswer::Promise { .. })));
    assert!(world.counts(0, KEY, id));
}

#[test]
fn an_epoch_that_there_cannot_be_is_rejected() {
    let mut world = World::new(1, 308);
    world.settle();
    let before = world.epoch_of(0, KEY);
    let node = NodeId::from_bits(5);
    let name = EpochName { number: 9, ..name(before.id) };
    let (homes, sources, absorbed) = (vec![node; 2], Vec::new(), Vec::new());
    let twice = Box::new(EpochConfig { name, homes, sources, absorbed });
    let slots = annulus_proto::SlotSet::new(&[Slot::new(7).unwrap()], 1);
    let steps = vec![(slots, EpochStep::Learn(twice))];
    let message = EpochsMessage { table: "sessions".to_owned(), steps };
    let answer = world.tell(0, message.into());
    assert!(matches!(answer, Message::Rejected(_)), "{answer:?}");
    let all = annulus_proto::SlotSet { stride: 1, offset: 0, runs: vec![(0, 16_384)] };
    let steps = vec![(all, EpochStep::Meet(None)); 3];
    let message = EpochsMessage { table: "sessions".to_owned(), steps };
    let answer = world.tell(0, message.into());
    assert!(matches!(answer, Message::Rejected(_)), "{answer:?}");
    assert_eq!(world.epoch_of(0, KEY), before);
}

#[test]
fn a_minority_that_counts_the_living_would_decide_alone() {
    for flaw in [None, Some(Flaw::CountsTheLiving)] {
        let mut world = World::new(3, 309);
        world.break_rule(flaw);
        world.settle();
        let version = world.acknowledged(0, KEY, start(bytes("one"))).version;
        world.isolate(0);
        world.run_until("it goes on alone", Duration::from_secs(120), |world| {
            world.view(0).active().count() == 1
        });
        world.run_for(Duration::from_secs(2));
        let answer = world.ask(0, KEY, update_if(version, "alone"));
        assert_eq!(matches!(answer, SessionReply::Acknowledged(_)), flaw.is_some(), "{answer:?}");
    }
}

#[test]
fn the_majority_goes_on_with_others_once_a_home_is_dead_and_with_it_when_it_is_back() {
    let mut world = World::new(5, 310);
    world.settle();
    let keys: Vec<String> = (0..20).map(|number| format!("key {number}")).collect();
    let mut versions = Vec::new();
    for key in &keys {
        versions.push(world.acknowledged(0, key, start(bytes("0"))).version);
    }
    let mut seen = Seen::default();
    seen.look(&world);
    world.kill(4);
    world.run_until("it is held for dead", Duration::from_secs(60), |world| {
        (0..4).all(|node| world.view(node).active().count() == 4)
    });
    world.settle();
    seen.look(&world);
    let dead = NodeId::from_bits(world.nodes[4].state.id);
    for (key, version) in keys.iter().zip(&mut versions) {
        let home = world.a_home(key);
        assert!(!world.epoch_of(home, key).homes.contains(&dead));
        *version = world.acknowledged(1, key, update_if(*version, "1")).version;
    }
    world.start(4);
    world.settle();
    seen.look(&world);
    for (key, version) in keys.iter().zip(versions) {
        world.acknowledged(4, key, update_if(version, "2"));
    }
}

#[test]
fn a_restart_at_any_point_of_a_change_leaves_one_successor() {
    let (mut steps, key) = (0, sparse(KEY));
    for round in 0..14 {
        let mut world = World::sparse(3, 320 + round);
        world.settle();
        let mut seen = Seen::default();
        seen.look(&world);
        let version = world.acknowledged(0, &key, start(bytes("0"))).version;
        world.add(4);
        world.run_until("one begins", Duration::from_secs(20), |world| {
            (0..3).any(|node| world.counter(node, "epochs_proposed") > 0)
        });
        for kill in 0..3 {
            let pause = world.rng.random_range(0..60);
            for _ in 0..pause {
                world.step();
                steps += 1;
            }
            let node = (round as usize + kill) % 4;
            world.kill(node);
            seen.look(&world);
            world.start(node);
            world.run_for(Duration::from_millis(world.nodes.len() as u64 * 20));
            seen.look(&world);
        }
        world.settle();
        seen.look(&world);
        world.acknowledged(3, &key, update_if(version, "1"));
    }
    assert!(steps > 500, "{steps}");
}

#[test]
fn an_operators_word_lets_those_who_are_left_decide() {
    let mut world = World::new(5, 311);
    world.settle();
    let keys: Vec<String> = (0..30).map(|number| format!("key {number}")).collect();
    for key in &keys {
        world.acknowledged(0, key, start(bytes("0")));
    }
    world.run_for(Duration::from_millis(100));
    for node in [2, 3, 4] {
        world.kill(node);
    }
    let gone = |world: &World, node: usize| {
        let removed = |member: &&Member| member.status == Status::Down;
        world.view(node).iter().filter(removed).count() == 3
    };
    world.run_until("three are held for dead", Duration::from_secs(120), |world| {
        gone(world, 0) && gone(world, 1)
    });
    let undecided = |world: &mut World| {
        let now = world.present(0);
        let whole = world.nodes[0].whole.as_mut().unwrap();
        whole.cores.iter_mut().for_each(|core| core.extend_freshness(now));
        whole.cores.iter().map(|core| core.tables[0].epochs.undecided).sum::<u32>()
    };
    assert!(undecided(&mut world) > 0);
    for node in [2, 3, 4] {
        world.order_remove(0, node);
        world.run_for(Duration::from_secs(4));
    }
    world.run_until("all can be decided about", Duration::from_secs(60), |world| {
        undecided(world) == 0 && (0..2).all(|node| world.is_decided(node))
    });
    assert!(world.counter(0, "epochs_forced") > 0);
    for key in &keys {
        for node in [0, 1] {
            match world.ask(node, key, Operation::Get) {
                SessionReply::Session(session) => {
                    world.acknowledged(node, key, update_if(session.version, "1"));
                }
                SessionReply::Failed(Failure::Absent) => {}
                other => panic!("{key} on {node}: {other:?}"),
            }
        }
    }
    let kept = keys.iter().filter(|key| world.copy(0, key).is_some()).count();
    assert!(kept >= keys.len() / 2, "{kept} of {}", keys.len());
}

#[test]
fn a_node_whose_records_are_gone_promises_nothing_before_the_next_epoch() {
    let mut world = World::new(3, 312);
    world.settle();
    let before = world.epoch_of(1, KEY).id;
    world.kill(0);
    world.nodes[0].kept.clear();
    world.start(0);
    let slot = Key::new(KEY).unwrap().slot();
    world.run_until("it learns of the epoch", Duration::from_secs(10), |world| {
        world.core(0, KEY).epoch(0, slot).is_some()
    });
    assert_eq!(world.standing_of(0, KEY), Standing::Blank);
    let ballot = EpochBallot { round: 1_000, node: NodeId::from_bits(2) };
    let prepare = EpochStep::Prepare { under: name(before), ballot };
    assert_eq!(world.say_step(0, KEY, prepare), Some(EpochAnswer::Refused));
    assert!(!world.counts(0, KEY, before));
    world.settle();
    let after = world.epoch_of(0, KEY).id;
    assert!(after.number > before.number, "{after} after {before}");
    assert!(world.counts(0, KEY, after));
}

#[test]
fn a_decision_waits_for_homes_that_are_there_and_will_be_ready_soon() {
    let mut world = World::new(3, 313);
    world.settle();
    let started = world.acknowledged(0, KEY, start(bytes("one")));
    world.run_for(Duration::from_millis(100));
    // Both count again in the next epoch, and not before.
    for node in [1, 2] {
        world.core(node, KEY).lose_all(0);
    }
    let before = world.epoch_of(0, KEY).id;
    world.acknowledged(0, KEY, update_if(started.version, "two"));
    assert_ne!(world.epoch_of(0, KEY).id, before);
    // One home may have it later than the client its answer.
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.value(1, KEY), bytes("two"));
}

// Symptom: a client was told that nobody knows, with all homes there (storm-moves 105).
// Cause: an epoch has its homes in the order of the placement that it came from. Its homes asked the first of them
// for decisions, and everybody else the first by placement as it was by then: each outbid the other.
#[test]
fn everybody_asks_the_same_home_first_for_a_decision() {
    let mut world = World::new(4, 1);
    world.settle();
    // The second stays a home for want of others, and is no first one for who goes by placement.
    for node in 0..2 {
        assert_eq!(world.order(node, Order::Drain), Ordered::Done.into());
        world.run_for(Duration::from_secs(20));
    }
    let mut differ = 0;
    for slot in (0..SLOT_COUNT).step_by(37).filter_map(Slot::new) {
        let nodes = world.nodes.iter_mut().filter_map(|node| node.whole.as_mut());
        let cores: Vec<&Core> = nodes.map(|whole| &*whole.core_of(slot)).collect();
        let firsts: BTreeSet<NodeId> = cores.iter().map(|core| core.deciders(0, slot)[0]).collect();
        assert_eq!(firsts.len(), 1, "slot {}", slot.index());
        let epoch = cores.iter().filter_map(|core| core.epoch(0, slot)).max_by_key(|it| it.id);
        differ += usize::from(epoch.is_some_and(|config| !firsts.contains(&config.homes[0])));
    }
    assert!(differ > 0, "no epoch has another order than placement");
}

#[test]
fn whoever_missed_a_part_of_what_there_is_has_not_been_met() {
    let mut world = World::of_single_cores(2, 318, TablePolicy::default());
    world.settle();
    world.run_for(Duration::from_secs(2));
    let other = NodeId::from_bits(world.nodes[1].state.id);
    let (mut now, view) = (world.present(0), world.view(0).digest());
    let core = &mut world.whole().cores[0];
    let mut told = 0;
    for lost in [None, Some(0), Some(9), None] {
        now.monotonic += Duration::from_secs(1);
        core.tables[0].epochs.meet_anew(now, other);
        let mut turns = 0;
        told = 0;
        while core.tables[0].epochs.is_meeting() || turns == 0 || core.has_output() {
            core.drive_epochs(now);
            core.flush_epochs(now);
            while let Some(output) = core.poll_output() {
                let Output::Call(ask) = output else { continue };
                let Message::Epochs(message) = ask.message else { continue };
                let agrees = |(slots, _): &(_, _)| {
                    (annulus_proto::SlotSet::clone(slots), EpochAnswer::Agrees)
                };
                let answers = message.steps.iter().map(agrees).collect();
                let answered = Answered {
                    node: other,
                    header: Header { view, ..ask.header },
                    message: EpochsAnswer { answers }.into(),
                };
                let result =
                    if lost == Some(told) { Err(NoAnswer { sent: true }) } else { Ok(answered) };
                told += 1;
                core.handle(now, Input::Outcome(Outcome { call: ask.header.id, result }));
            }
            turns += 1;
        }
        assert!(turns >= 16, "all was looked at in {turns} turns");
        let is_met = core.tables[0].epochs.has_met(other);
        assert_eq!(is_met, lost.is_none(), "with message {lost:?} lost");
    }
    assert!(told >= 64, "all was said with {told} messages");
}
