//! Nodes that hold a session besides its homes, because it is pinned there or is to have more copies.

use annulus_proto::message::{
    Affinity, HostLoad, Order, Ordered, Pinned, PinnedRequest, PlanRequest, RankRequest, Ranked,
};

use super::*;

const KEY: &str = "pinned";
/// Longer than the homes' answer counts.
const LATER: Duration = Duration::from_millis(500);

fn pin(node: u64) -> Operation {
    Operation::Update { birth: None, change: Change::Pin(Some(NodeId::from_bits(node))) }
}

fn unpin() -> Operation {
    Operation::Update { birth: None, change: Change::Pin(None) }
}

fn start_with(replicas: u8) -> Operation {
    let attributes = Attributes { replicas, owner: Vec::new() };
    let lifetimes = Lifetimes::default();
    Operation::Start { value: bytes("one"), lifetimes, attributes }
}

impl World {
    fn id(&self, node: usize) -> u64 {
        self.nodes[node].state.id
    }

    pub(super) fn homes_of(&mut self, key: &str) -> Vec<usize> {
        let live = (0..self.nodes.len()).find(|node| self.nodes[*node].whole.is_some()).unwrap();
        let homes = self.core(live, key).homes(0, Key::new(key).unwrap().slot());
        let number = |id: NodeId| self.nodes.iter().position(|it| it.state.id == id.bits());
        homes.into_iter().filter_map(number).collect()
    }

    /// A cluster with a session that is pinned to a node which is no home of it: that node.
    fn pinned(count: usize, seed: u64) -> (Self, usize) {
        Self::new(count, seed).with_a_pin()
    }

    fn of_single_cores_pinned(count: usize, seed: u64) -> (Self, usize) {
        Self::of_single_cores(count, seed, TablePolicy::default()).with_a_pin()
    }

    fn with_a_pin(self) -> (Self, usize) {
        let mut world = self;
        world.settle();
        world.acknowledged(0, KEY, start(bytes("one")));
        let outsider = world.outsider(KEY);
        let id = world.id(outsider);
        world.acknowledged(0, KEY, pin(id));
        world.until_it_is_at(outsider);
        (world, outsider)
    }

    #[track_caller]
    fn until_it_is_at(&mut self, node: usize) {
        self.run_until("a copy at the node", Duration::from_secs(60), |world| {
            world.copy(node, KEY).is_some_and(|copy| !copy.is_ended())
        });
    }

    #[track_caller]
    fn until_it_is_gone_from(&mut self, node: usize) {
        self.run_until("no copy at the node", Duration::from_secs(90), |world| {
            world.copy(node, KEY).is_none()
        });
    }

    /// Whether a node holds the session besides its homes: not as part of its slot.
    fn is_extra(&mut self, node: usize) -> bool {
        let key = Key::new(KEY).unwrap();
        let store = &self.core(node, KEY).tables[0].store;
        store.watched().is_extra(key.slot(), &key) && store.slot_len(key.slot()) == 0
    }

    /// What all homes hold; they hold the same.
    #[track_caller]
    fn at_homes(&mut self) -> Option<Entry> {
        let homes = self.homes_of(KEY);
        let mut copies: Vec<_> = homes.into_iter().map(|home| self.copy(home, KEY)).collect();
        copies.dedup();
        assert_eq!(copies.len(), 1, "the homes differ: {copies:?}");
        copies.pop().flatten()
    }

    fn message(&mut self, node: usize, role: Role, message: impl Into<Message>) -> u64 {
        self.next_request += 1;
        let header = Header { id: self.next_request, view: 0, hlc: annulus_proto::Hlc::ZERO };
        let (asker, caller) = (Asker::Stream(0), Caller::Client(role));
        let request = Request { asker, caller, header, message: message.into() };
        self.input(node, Arrived::Request(request));
        header.id
    }

    #[track_caller]
    fn answer(&mut self, node: usize, role: Role, message: impl Into<Message>) -> Message {
        let id = self.message(node, role, message);
        self.run_until("an answer", Duration::from_secs(5), |w| w.replies.contains_key(&id));
        self.replies.remove(&id).unwrap()
    }
}

#[test]
fn every_write_goes_to_the_pinned_node_too_and_reads_name_it() {
    for seed in 1..=3 {
        let (mut world, pinned) = World::pinned(5, seed);
        assert!(world.is_extra(pinned));
        let home = world.homes_of(KEY)[1];
        world.acknowledged(home, KEY, write(None, bytes("two")));
        world.acknowledged(home, KEY, Operation::Touch { birth: None });
        world.run_for(Duration::from_millis(100));
        let there = world.copy(pinned, KEY);
        assert_eq!(there, world.at_homes());
        assert_eq!(there.unwrap().body.unwrap().value(0), bytes("two"));
        for node in 0..5 {
            match world.ask(node, KEY, Operation::Get) {
                SessionReply::Session(session) => {
                    assert_eq!(session.pin.map(NodeId::bits), Some(world.id(pinned)));
                }
                other => panic!("not a session: {other:?}"),
            }
        }
        // Who has a copy is told of its end, though a tombstone does not say who that is.
        world.acknowledged(home, KEY, end());
        world.run_for(Duration::from_millis(50));
        assert!(world.copy(pinned, KEY).unwrap().is_ended());
    }
}

#[test]
fn the_pinned_node_answers_and_coordinates_by_itself() {
    let (mut world, pinned) = World::pinned(5, 1);
    let forwarded = world.counter(pinned, "requests_forwarded");
    assert_eq!(world.value(pinned, KEY), bytes("one"));
    let asked = world.counter(pinned, "reads_of_homes");
    for _ in 0..20 {
        assert_eq!(world.value(pinned, KEY), bytes("one"));
    }
    assert_eq!(world.counter(pinned, "reads_of_homes"), asked, "out of its own memory");
    world.run_for(LATER);
    assert_eq!(world.value(pinned, KEY), bytes("one"));
    assert_eq!(world.counter(pinned, "reads_of_homes"), asked + 1, "the homes are asked again");
    let written = world.acknowledged(pinned, KEY, write(None, bytes("two")));
    assert!(written.held_by >= 2, "{written:?}");
    assert_eq!(written.version.node.bits(), world.id(pinned), "stamped there");
    assert_eq!(world.counter(pinned, "requests_forwarded"), forwarded);
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.at_homes().unwrap().body.unwrap().value(0), bytes("two"));
    // What is decided, the homes decide.
    world.acknowledged(pinned, KEY, end());
    assert_eq!(world.counter(pinned, "requests_forwarded"), forwarded + 1);
    assert_eq!(world.fails(pinned, KEY, Operation::Get), Failure::Ended);
}

#[test]
fn what_was_decided_through_the_pinned_node_is_read_there_at_once() {
    for seed in 1..=10 {
        let (mut world, pinned) = World::pinned(5, seed);
        for round in 0..10 {
            let version = match world.ask(pinned, KEY, Operation::Get) {
                SessionReply::Session(session) => session.version,
                other => panic!("not a session: {other:?}"),
            };
            // The copies of what is decided may come late.
            let homes = world.homes_of(KEY);
            let late = homes[round % 3];
            world.cut.insert((late, pinned));
            let value = bytes(&format!("round {round}"));
            let change = Change::Value(value.clone());
            let reply = world.ask(pinned, KEY, Operation::UpdateIf { version, change });
            if matches!(reply, SessionReply::Acknowledged(_)) {
                assert_eq!(world.value(pinned, KEY), value);
            }
            world.cut.clear();
        }
    }
}

#[test]
fn a_pinned_node_that_is_cut_off_shows_nothing_for_longer_than_two_beats() {
    for seed in 1..=5 {
        let (mut world, pinned) = World::pinned(5, seed);
        assert_eq!(world.value(pinned, KEY), bytes("one"));
        let cut_at = world.now;
        world.isolate(pinned);
        assert_eq!(world.value(pinned, KEY), bytes("one"), "as the homes said a moment ago");
        let home = world.homes_of(KEY)[0];
        world.acknowledged(home, KEY, end());
        while world.now < cut_at + Duration::from_secs(3) {
            world.run_for(Duration::from_millis(20));
            let id = world.request(pinned, KEY, Operation::Get);
            let asked_at = world.now;
            if let Some(Message::SessionReply(SessionReply::Session(_))) = world.replies.get(&id) {
                assert!(asked_at <= cut_at + LATER, "alive {:?} later", asked_at - cut_at);
            }
        }
        world.cut.clear();
        // Whatever it answers from now on, it has asked those who know.
        let reply = world.ask(pinned, KEY, Operation::Get);
        assert!(
            matches!(reply, SessionReply::Failed(Failure::Ended | Failure::Unavailable { .. })),
            "{reply:?}"
        );
        world.settle();
        assert_eq!(world.fails(pinned, KEY, Operation::Get), Failure::Ended);
        let dead = world.copy(pinned, KEY);
        assert!(dead.is_none_or(|entry| entry.is_ended()));
    }
}

#[test]
fn a_lost_end_is_seen_at_the_pinned_node_within_two_beats() {
    let (mut world, pinned) = World::pinned(5, 2);
    let home = world.homes_of(KEY)[0];
    assert_eq!(world.value(pinned, KEY), bytes("one"));
    // The coordinator does not reach it; it reaches the homes.
    world.cut.insert((home, pinned));
    world.acknowledged(home, KEY, end());
    world.run_for(Duration::from_millis(450));
    assert_eq!(world.fails(pinned, KEY, Operation::Get), Failure::Ended);
}

#[test]
fn an_undone_pin_takes_the_copy_away_and_a_new_one_moves_it() {
    for seed in 1..=3 {
        let (mut world, first) = World::pinned(6, seed);
        let homes = world.homes_of(KEY);
        let second = (0..6).find(|node| *node != first && !homes.contains(node)).unwrap();
        let id = world.id(second);
        world.acknowledged(first, KEY, pin(id));
        world.until_it_is_at(second);
        world.until_it_is_gone_from(first);
        assert!(world.is_extra(second));
        assert_eq!(world.value(first, KEY), bytes("one"));
        world.acknowledged(second, KEY, unpin());
        world.until_it_is_gone_from(second);
        assert_eq!(world.at_homes().unwrap().pin(), None);
        assert_eq!(world.value(second, KEY), bytes("one"));
        let watched: usize =
            (0..6).map(|n| world.core(n, KEY).tables[0].store.watched().len()).sum();
        assert_eq!(watched, 0, "nothing is left to look after");
    }
}

#[test]
fn a_copy_that_is_to_go_stays_until_all_homes_have_all_of_it() {
    let (mut world, pinned) = World::pinned(5, 3);
    let homes = world.homes_of(KEY);
    // One of them does not hear of it.
    world.cut.insert((pinned, homes[2]));
    world.acknowledged(homes[0], KEY, unpin());
    world.run_for(Duration::from_secs(45));
    assert!(world.copy(pinned, KEY).is_some());
    world.cut.clear();
    world.until_it_is_gone_from(pinned);
}

#[test]
fn a_restarted_pinned_node_holds_what_it_held_and_one_without_memory_gets_it_again() {
    for seed in 1..=3 {
        let (mut world, pinned) = World::pinned(5, seed);
        world.kill(pinned);
        world.run_for(Duration::from_secs(1));
        let home = world.homes_of(KEY)[0];
        world.acknowledged(home, KEY, write(None, bytes("meanwhile")));
        world.start(pinned);
        assert!(world.copy(pinned, KEY).is_some(), "its memory outlived it");
        world.settle();
        assert_eq!(world.value(pinned, KEY), bytes("meanwhile"));
        world.run_until("it is there besides the homes", Duration::from_secs(60), |world| {
            world.is_extra(pinned)
        });
        assert_eq!(world.counter(pinned, "slots_given_up"), 0, "no slot was to be given away");
        world.reboot(pinned);
        world.start(pinned);
        assert!(world.copy(pinned, KEY).is_none());
        world.settle();
        world.until_it_is_at(pinned);
        assert!(world.is_extra(pinned));
        assert_eq!(world.copy(pinned, KEY), world.at_homes());
    }
}

#[test]
fn a_session_outlives_the_node_that_it_is_pinned_to_and_the_pin_stays() {
    let (mut world, pinned) = World::pinned(5, 1);
    world.kill(pinned);
    let home = world.homes_of(KEY)[0];
    world.acknowledged(home, KEY, write(None, bytes("alone")));
    world.run_until("it is down", Duration::from_secs(60), |world| {
        let dead = NodeId::from_bits(world.id(pinned));
        world.view(home).get(dead).is_some_and(|member| !member.status.is_active())
    });
    world.settle();
    let home = world.homes_of(KEY)[0];
    assert_eq!(world.value(home, KEY), bytes("alone"));
    world.acknowledged(home, KEY, write(None, bytes("still")));
    let entry = world.copy(home, KEY).unwrap();
    assert_eq!(entry.pin().map(NodeId::bits), Some(world.id(pinned)));
    world.start(pinned);
    world.settle();
    assert_eq!(world.value(pinned, KEY), bytes("still"));
}

#[test]
fn a_pinned_node_that_becomes_a_home_and_ceases_to_be_one_keeps_its_copy() {
    for seed in 1..=3 {
        let (mut world, pinned) = World::pinned(4, seed);
        let home = world.homes_of(KEY)[2];
        world.kill(home);
        world.run_until("it is a home", Duration::from_secs(60), |world| {
            world.homes_of(KEY).contains(&pinned)
        });
        world.settle();
        assert!(!world.is_extra(pinned));
        assert_eq!(world.value(pinned, KEY), bytes("one"));
        let slot = Key::new(KEY).unwrap().slot();
        let sketches: Vec<_> = world
            .homes_of(KEY)
            .into_iter()
            .map(|node| world.core(node, KEY).tables[0].store.slot_sketch(slot))
            .collect();
        assert!(sketches.iter().all(|sketch| *sketch == sketches[0]), "{sketches:?}");
        world.start(home);
        world.settle();
        world.run_until("it is no home any more", Duration::from_secs(120), |world| {
            assert!(world.copy(pinned, KEY).is_some(), "it is not dropped with its slot");
            !world.homes_of(KEY).contains(&pinned) && world.is_extra(pinned)
        });
        assert_eq!(world.value(pinned, KEY), bytes("one"));
        world.acknowledged(pinned, KEY, write(None, bytes("two")));
        world.run_for(Duration::from_millis(100));
        assert_eq!(world.copy(pinned, KEY), world.at_homes());
    }
}

#[test]
fn a_session_with_more_replicas_is_acknowledged_by_a_majority_of_them() {
    for seed in 1..=3 {
        let mut world = World::new(6, seed);
        world.settle();
        let started = world.acknowledged(0, KEY, start_with(5));
        assert_eq!(started.homes, 5);
        assert!(started.held_by >= 3, "{started:?}");
        world.run_for(Duration::from_millis(100));
        let held = |world: &mut World| -> Vec<usize> {
            (0..6).filter(|node| world.copy(*node, KEY).is_some()).collect()
        };
        let holders = held(&mut world);
        assert_eq!(holders.len(), 5, "{holders:?}");
        let homes = world.homes_of(KEY);
        let extras: Vec<usize> = holders.into_iter().filter(|node| !homes.contains(node)).collect();
        // Two of three homes are not a majority of five.
        for gone in [homes[2], extras[0], extras[1]] {
            world.isolate(gone);
        }
        let failure = world.fails(homes[0], KEY, write(None, bytes("two")));
        assert!(
            matches!(failure, Failure::Unavailable { homes: 5, needed: 3, .. } | Failure::TimedOut),
            "{failure:?}"
        );
        world.cut.clear();
        // Nor do extra copies stand in for the homes that the table asks for.
        for gone in [homes[1], homes[2]] {
            world.isolate(gone);
        }
        let failure = world.fails(homes[0], KEY, write(None, bytes("three")));
        assert!(matches!(failure, Failure::Unavailable { .. } | Failure::TimedOut), "{failure:?}");
    }
}

#[test]
fn a_node_more_takes_the_place_of_an_extra_home_that_died() {
    let mut world = World::new(6, 4);
    world.settle();
    world.acknowledged(0, KEY, start_with(5));
    world.run_for(Duration::from_millis(100));
    let homes = world.homes_of(KEY);
    let extra = (0..6).find(|n| !homes.contains(n) && world.copy(*n, KEY).is_some()).unwrap();
    world.kill(extra);
    let live: Vec<usize> = (0..6).filter(|node| *node != extra).collect();
    world.run_until("five copies again", Duration::from_secs(90), |world| {
        live.iter().all(|node| world.copy(*node, KEY).is_some())
    });
    let _ = world.acknowledged(homes[0], KEY, end());
    world.run_for(Duration::from_secs(1));
    for node in live {
        assert_eq!(world.fails(node, KEY, Operation::Get), Failure::Ended, "at {node}");
    }
}

#[test]
fn what_cannot_be_placed_is_refused() {
    let mut world = World::new(3, 1);
    world.settle();
    for replicas in [1, 2, 8, 255] {
        let failure = world.fails(0, KEY, start_with(replicas));
        let Failure::Refused(why) = failure else { panic!("{failure:?}") };
        assert!(why.contains("replicas"), "{why}");
        assert_eq!(replicas < 3, why.contains("make a table of its own"), "{why}");
    }
    world.acknowledged(0, KEY, start_with(3));
    let failure = world.fails(0, KEY, pin(999));
    assert!(matches!(&failure, Failure::Refused(why) if why.contains("no member")), "{failure:?}");
    assert_eq!(world.fails(0, "nobody", pin(1)), Failure::Absent);
    let home = world.id(0);
    world.acknowledged(0, KEY, pin(home));
    // The third home has it a little later than the client its answer.
    world.run_for(Duration::from_millis(5));
    assert_eq!(
        world.at_homes().unwrap().pin().map(NodeId::bits),
        Some(home),
        "a home may be meant"
    );
}

#[test]
fn who_runs_the_cluster_may_move_sessions_and_change_nothing_else_of_them() {
    let mut world = World::new(1, 1);
    world.run_for(Duration::from_millis(300));
    world.acknowledged(0, KEY, start(bytes("one")));
    let ask = |world: &mut World, role, operation| {
        let request = SessionRequest {
            table: "sessions".to_owned(),
            key: Key::new(KEY).unwrap(),
            request: RequestId { client: 1, sequence: 0 },
            hops: 0,
            patience_ms: 2_000,
            operation,
        };
        match world.answer(0, role, request) {
            Message::SessionReply(SessionReply::Failed(failure)) => Err(failure),
            other => Ok(other),
        }
    };
    let id = world.id(0);
    for (role, may_pin) in [
        (Role::Operator, true),
        (Role::Worker, true),
        (Role::Authority, true),
        (Role::Monitor, false),
    ] {
        assert_eq!(ask(&mut world, role, pin(id)).is_ok(), may_pin, "{role}");
    }
    assert!(ask(&mut world, Role::Operator, write(None, bytes("two"))).is_err());
    assert!(ask(&mut world, Role::Operator, Operation::Get).is_err());
}

#[test]
fn pinned_sessions_are_listed_once_by_their_primaries() {
    let mut world = World::new(3, 2);
    world.settle();
    let id = world.id(1);
    let keys: BTreeSet<Key> = (0..50).map(|n| Key::new(format!("k{n}")).unwrap()).collect();
    for key in &keys {
        let name = std::str::from_utf8(key.as_bytes()).unwrap();
        world.acknowledged(0, name, start(bytes("v")));
        world.acknowledged(0, name, pin(id));
    }
    world.acknowledged(0, "other", start(bytes("v")));
    let other = world.id(2);
    world.acknowledged(0, "other", pin(other));
    let list = |world: &mut World, node: usize, role| {
        let (mut found, mut place) = (Vec::new(), Some((0, None)));
        while let Some((core, after)) = place {
            let (table, to) = ("sessions".to_owned(), NodeId::from_bits(id));
            let request = PinnedRequest { table, to, core, after };
            match world.answer(node, role, request) {
                Message::Pinned(Pinned { sessions, next }) => {
                    found.extend(sessions.into_iter().map(|(key, ..)| key));
                    place = next;
                }
                _ => return None,
            }
        }
        Some(found)
    };
    let mut found = Vec::new();
    for node in 0..3 {
        found.extend(list(&mut world, node, Role::Operator).unwrap());
    }
    assert_eq!(found.len(), 50);
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), keys);
    assert_eq!(list(&mut world, 0, Role::Worker), None);
}

#[test]
fn a_cursor_of_nonsense_ends_a_listing() {
    let mut world = World::new(1, 1);
    world.run_for(Duration::from_millis(300));
    let request = PinnedRequest {
        table: "sessions".to_owned(),
        to: NodeId::from_bits(9),
        core: u16::MAX,
        after: Some(Key::new([0xff; 255]).unwrap()),
    };
    let answer = world.answer(0, Role::Operator, request.clone());
    assert_eq!(answer, Pinned { sessions: Vec::new(), next: None }.into());
    let request = PinnedRequest { table: "nosuch".to_owned(), ..request };
    assert!(matches!(world.answer(0, Role::Operator, request), Message::Rejected(_)));
}

#[test]
fn members_are_ranked_by_what_their_hosts_have_to_spare() {
    let mut world = World::new(3, 1);
    world.settle();
    for (node, busy) in [(0, 500), (1, 20), (2, 300)] {
        let load = HostLoad { cpu_permille: Some(busy), ..HostLoad::default() };
        world.input(node, Arrived::Hub(HubInput::HostLoad(load)));
    }
    let rank = |world: &mut World| match world.answer(
        0,
        Role::Worker,
        RankRequest { affinity: Affinity::Cpu },
    ) {
        Message::Ranked(Ranked { nodes }) => {
            nodes.into_iter().map(|(node, _)| node.bits()).collect::<Vec<_>>()
        }
        other => panic!("not a ranking: {other:?}"),
    };
    assert_eq!(rank(&mut world), [2, 3, 1]);
    world.isolate(1);
    assert_eq!(rank(&mut world), [3, 1], "who does not answer is left out");
}

#[test]
fn a_given_weight_moves_slots_and_outlives_restarts_until_another_is_configured() {
    let mut world = World::new(4, 1);
    world.settle();
    let share = |world: &mut World| {
        let id = NodeId::from_bits(world.id(0));
        let standing = world.nodes[1].whole.as_ref().unwrap().hub.standing();
        standing.routes().slots_of(id).count()
    };
    let before = share(&mut world);
    let weigh = |world: &mut World, weight| {
        world.answer(0, Role::Operator, Order::Weigh(weight)) == Ordered::Done.into()
    };
    let plan = PlanRequest { weights: vec![(NodeId::from_bits(1), 20)], ..PlanRequest::default() };
    let planned = match world.answer(2, Role::Operator, plan) {
        Message::Routes(routes) => annulus_proto::RouteTable::new(routes).unwrap(),
        other => panic!("no routes: {other:?}"),
    };
    assert_eq!(share(&mut world), before, "a plan changes nothing");
    assert!(weigh(&mut world, Some(20)));
    world.settle();
    let after = share(&mut world);
    assert!(after < before / 2, "{before} slots, then {after}");
    assert_eq!(planned.slots_of(NodeId::from_bits(1)).count(), after, "as it was planned");
    world.run_for(Duration::from_secs(1));
    world.kill(0);
    world.start(0);
    world.settle();
    assert_eq!(share(&mut world), after, "over a restart");
    world.run_for(Duration::from_secs(1));
    world.kill(0);
    // Somebody edited the configuration, as it seems to the node.
    world.nodes[0].state.weight.as_mut().unwrap().configured = 70;
    world.start(0);
    world.settle();
    assert_eq!(share(&mut world), before, "the file is heard again");
    assert!(weigh(&mut world, Some(20)) && weigh(&mut world, None));
    world.settle();
    assert_eq!(share(&mut world), before);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.nodes[0].state.weight, None);
    assert!(matches!(
        world.answer(0, Role::Worker, Order::Weigh(Some(1))),
        Message::Ordered(Ordered::Refused(_))
    ));
}

#[test]
fn a_conditional_end_reaches_the_pinned_node() {
    let (mut world, pinned) = World::pinned(5, 4);
    let version = world.copy(pinned, KEY).unwrap().version;
    world.acknowledged(pinned, KEY, Operation::EndIf { version });
    assert_eq!(world.fails(pinned, KEY, Operation::Get), Failure::Ended);
    world.run_for(Duration::from_millis(100));
    assert!(world.copy(pinned, KEY).is_none_or(|copy| copy.is_ended()));
}

#[test]
fn a_pinned_node_without_room_leaves_a_write_to_the_homes() {
    let (mut world, pinned) = World::of_single_cores_pinned(5, 3);
    let now_ms = START_WALL_MS + world.now.as_millis() as u64;
    let value = Value::Bytes(vec![0; 3_000]);
    let store = &mut world.core(pinned, KEY).tables[0].store;
    for n in 0.. {
        let (key, birth) = (Key::new(format!("filler {n}")).unwrap(), Version::ZERO);
        let birth = Version { hlc: annulus_proto::Hlc::from_ms(now_ms), ..birth };
        let filler = Entry::start(birth, value.clone(), (0, 0), Attributes::default(), now_ms);
        if store.merge(&key, &filler, now_ms, Admission::Reserve).is_err() {
            break;
        }
    }
    let large = Value::Bytes(vec![7; 20_000]);
    world.acknowledged(pinned, KEY, write(None, large.clone()));
    assert!(world.counter(pinned, "requests_forwarded") > 0);
    let home = world.homes_of(KEY)[0];
    assert_eq!(world.value(home, KEY), large);
}

#[test]
fn whatever_is_lost_or_restarted_what_ended_stays_so_and_all_copies_agree_at_last() {
    for seed in 1..=6 {
        let mut world = World::sparse(6, seed);
        world.settle();
        let keys: Vec<String> = (0..12).map(|n| sparse(&format!("s{n}"))).collect();
        for key in &keys {
            world.acknowledged(0, key, start(bytes("first")));
        }
        let mut ended = BTreeSet::new();
        let mut waiting: Vec<(u64, String)> = Vec::new();
        world.loss = 0.05;
        for round in 0..150 {
            let key = keys[world.rng.random_range(0..keys.len())].clone();
            let node = world.rng.random_range(0..6);
            let operation = match world.rng.random_range(0..12) {
                0..=2 => pin(world.rng.random_range(1..=6)),
                3 => unpin(),
                4 => end(),
                5..=7 => write(None, bytes(&format!("round {round}"))),
                8 => Operation::Touch { birth: None },
                _ => Operation::Get,
            };
            let is_end = operation == end();
            if world.nodes[node].whole.is_some() {
                let id = world.request(node, &key, operation);
                if is_end {
                    waiting.push((id, key));
                }
            }
            let one = world.rng.random_range(0..6);
            match world.rng.random_range(0..30) {
                0 => drop(world.cut.insert((one, (one + 1) % 6))),
                1 => world.cut.clear(),
                2 if world.nodes.iter().all(|node| node.whole.is_some()) => world.kill(one),
                _ => {}
            }
            if round % 10 == 9 {
                for node in 0..6 {
                    if world.nodes[node].whole.is_none() {
                        world.start(node);
                    }
                }
            }
            world.run_for(Duration::from_millis(200));
        }
        world.run_for(Duration::from_secs(3));
        for (id, key) in waiting {
            let reply = world.replies.remove(&id);
            if let Some(Message::SessionReply(SessionReply::Acknowledged(_))) = reply {
                ended.insert(key);
            }
        }
        assert!(!ended.is_empty(), "seed {seed} ended nothing");
        world.loss = 0.0;
        world.cut.clear();
        world.settle();
        // As long as two rounds over all copies take.
        world.run_for(Duration::from_secs(100));
        for key in &keys {
            let name = Key::new(key.as_str()).unwrap();
            let homes = world.homes_of(key);
            let there = world.copy(homes[0], key);
            let is_live = there.as_ref().is_some_and(|entry| !entry.is_ended());
            assert!(!(ended.contains(key) && is_live), "seed {seed}: {key} came back");
            let pinned = there.as_ref().and_then(Entry::pin);
            for node in 0..6 {
                let copy = world.copy(node, key);
                let meant =
                    homes.contains(&node) || pinned.map(NodeId::bits) == Some(world.id(node));
                let expected = if meant { there.clone() } else { None };
                assert_eq!(copy, expected, "seed {seed}: {key} at {node}");
                let store = &world.core(node, key).tables[0].store;
                let is_extra = store.watched().is_extra(name.slot(), &name);
                assert_eq!(
                    is_extra,
                    meant && !homes.contains(&node),
                    "seed {seed}: {key} at {node}"
                );
            }
        }
    }
}
