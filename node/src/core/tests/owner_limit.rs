//! How many sessions an owner may have.

use annulus_proto::Replaced;

use super::owned::start_of;
use super::*;
use crate::core::settings::{OverLimit, OwnerLimit};

fn limited(sessions_max: u32, over: OverLimit) -> TablePolicy {
    let sessions_max = sessions_max.try_into().unwrap();
    TablePolicy { owner_limit: Some(OwnerLimit { sessions_max, over }), ..TablePolicy::default() }
}

/// Some nodes, with one to three cores each.
fn world(count: usize, seed: u64, policy: TablePolicy) -> World {
    let mut world = World::with_policy(count, seed, policy);
    world.settle();
    world
}

fn start_if_absent(owner: &str) -> Operation {
    let attributes = Attributes { replicas: 0, owner: owner.as_bytes().to_vec() };
    let (value, lifetimes) = (bytes("one"), Lifetimes::default());
    Operation::StartIfAbsent { value, lifetimes, attributes }
}

fn instead(old: &str, birth: Version, owner: &str) -> Operation {
    Operation::StartInstead {
        replaced: Replaced { word: Key::new(old).unwrap().word(), birth },
        value: bytes("one"),
        idle: 60_000,
        expire_at: 0,
        attributes: Attributes { replicas: 0, owner: owner.as_bytes().to_vec() },
    }
}

/// Longer than it takes to end what is too many.
const A_MOMENT: Duration = Duration::from_millis(200);

impl World {
    /// Begins a session, and has time pass.
    #[track_caller]
    fn begun(&mut self, node: usize, key: &str, operation: Operation) -> Version {
        let birth = self.acknowledged(node, key, operation).birth;
        self.run_for(A_MOMENT);
        birth
    }

    /// The keys of an owner's sessions.
    fn keys_of(&mut self, owner: &str) -> Vec<String> {
        self.owned(owner).into_keys().collect()
    }

    /// Why a session that is begun is refused.
    #[track_caller]
    fn refused(&mut self, node: usize, key: &str, operation: Operation) -> String {
        match self.fails(node, key, operation) {
            Failure::Refused(why) => why,
            other => panic!("not refused: {other:?}"),
        }
    }
}

#[test]
fn those_used_longest_ago_end_whichever_node_and_core_they_are_of() {
    let mut world = world(4, 1, limited(3, OverLimit::EndOldest));
    for number in 0..4 {
        world.begun(number, &format!("bob {number}"), start_of("bob"));
        world.begun(number, &format!("nobody {number}"), start_of(""));
    }
    for (node, key) in [(0, "a"), (1, "b"), (2, "c")] {
        world.begun(node, key, start_of("ada"));
    }
    assert_eq!(world.total("owner_limit_ended"), 1, "of bob's");
    world.begun(3, "a", Operation::Touch { birth: None });
    world.begun(3, "d", start_of("ada"));
    assert_eq!(world.keys_of("ada"), ["a", "c", "d"]);
    world.begun(2, "e", start_if_absent("ada"));
    assert_eq!(world.keys_of("ada"), ["a", "d", "e"]);
    assert_eq!(world.total("owner_limit_ended"), 3);
    for node in 0..4 {
        assert_eq!(world.fails(node, "b", Operation::Get), Failure::Ended);
        assert_eq!(world.value(node, "d"), bytes("one"));
        assert_eq!(world.value(node, &format!("nobody {node}")), bytes("one"));
    }
    assert_eq!(world.keys_of("bob"), ["bob 1", "bob 2", "bob 3"]);
    assert_eq!(world.total("owner_limit_put_off"), 0);
}

/// The others are used while it is begun, and after that.
#[test]
fn the_session_that_was_begun_stays_though_it_was_used_longest_ago() {
    let mut world = world(3, 17, limited(1, OverLimit::EndOldest));
    world.begun(0, "a", start_of("ada"));
    let start = world.request(0, "b", start_of("ada"));
    let touches: Vec<u64> = (0..10)
        .map(|_| {
            world.run_for(Duration::from_millis(1));
            world.request(1, "a", Operation::Touch { birth: None })
        })
        .collect();
    assert!(matches!(world.wait(start), SessionReply::Acknowledged(_)));
    let later = touches.into_iter().map(|touch| world.wait(touch));
    assert!(later.filter(|it| matches!(it, SessionReply::Acknowledged(_))).count() > 0);
    world.run_for(A_MOMENT);
    assert_eq!(world.keys_of("ada"), ["b"]);
}

#[test]
fn a_session_on_a_ring_further_out_counts_once_and_ends() {
    let policy = TablePolicy {
        cools_after: Some(Duration::from_secs(20)),
        half_life: Duration::from_secs(1),
        ..limited(2, OverLimit::EndOldest)
    };
    let mut world = World::with_policy(0, 2, policy);
    let outer = TablePolicy { name: "sessions@1".to_owned(), ring: 1, ..TablePolicy::default() };
    world.outer.push(outer);
    (1..=3).for_each(|id| _ = world.add(id));
    world.settle();
    world.begun(0, "a", start_of("ada"));
    world.run_until_seen("it goes outward", Duration::from_secs(120), |world| {
        world.owned_at(0, "ada").iter().any(|session| session.ring == 1)
    });
    world.begun(1, "b", start_of("ada"));
    assert_eq!(world.keys_of("ada"), ["a", "b"]);
    world.begun(2, "c", start_of("ada"));
    assert_eq!(world.keys_of("ada"), ["b", "c"]);
    assert_eq!(world.total("owner_limit_ended"), 1);
}

#[test]
fn one_more_is_refused_and_told_how_many_there_may_be() {
    let mut world = world(3, 3, limited(2, OverLimit::Refuse));
    world.begun(0, "a", start_of("ada"));
    world.begun(1, "b", start_if_absent("ada"));
    for operation in [start_of("ada"), start_if_absent("ada")] {
        for node in 0..3 {
            let why = world.refused(node, "secret", operation.clone());
            assert!(why.contains("which is 2") && why.contains("\"sessions\""), "{why}");
            assert!(!why.contains("ada") && !why.contains("secret"), "{why}");
            assert_eq!(world.fails(node, "secret", Operation::Get), Failure::Absent);
        }
    }
    assert_eq!(world.total("owner_limit_refused"), 6);
    // What takes the place of one of them is not one more, nor is another one's.
    world.begun(2, "a", start_of("ada"));
    world.begun(2, "c", start_of("bob"));
    world.begun(2, "d", start_of(""));
    world.begun(0, "b", end());
    world.begun(2, "e", start_of("ada"));
    assert_eq!(world.keys_of("ada"), ["a", "e"]);
    assert_eq!(world.total("owner_limit_ended"), 0);
}

#[test]
fn a_session_in_place_of_another_one_of_the_owner_is_not_one_more() {
    let mut world = world(3, 4, limited(2, OverLimit::EndOldest));
    world.begun(0, "a", start_of("ada"));
    let birth = world.begun(1, "b", start_of("ada"));
    world.begun(2, "c", instead("b", birth, "ada"));
    assert_eq!(world.keys_of("ada"), ["a", "b", "c"], "its client is to end it");
    world.run_for(Duration::from_secs(13));
    assert_eq!(world.keys_of("ada"), ["a", "c"]);
    assert_eq!(world.total("owner_limit_ended"), 0);
}

#[test]
fn a_login_in_place_of_a_session_of_nobody_is_one_more() {
    let mut world = world(3, 5, limited(1, OverLimit::EndOldest));
    world.begun(0, "a", start_of("ada"));
    let birth = world.begun(1, "before", start_of(""));
    world.begun(2, "b", instead("before", birth, "ada"));
    assert_eq!(world.keys_of("ada"), ["b"]);
}

#[test]
fn where_one_more_is_refused_a_session_in_place_of_another_one_is_not() {
    let mut world = world(3, 6, limited(2, OverLimit::Refuse));
    world.begun(0, "a", start_of("ada"));
    let birth = world.begun(1, "b", start_of("ada"));
    let of_nobody = world.begun(1, "before", start_of(""));
    world.refused(0, "d", instead("before", of_nobody, "ada"));
    world.begun(2, "c", instead("b", birth, "ada"));
    world.begun(2, "b", end());
    assert_eq!(world.keys_of("ada"), ["a", "c"]);
    // It does not take what is not there any more out of the count.
    world.refused(0, "d", instead("b", birth, "ada"));
}

#[test]
fn a_start_that_finds_a_session_says_so_and_ends_none() {
    for (seed, over) in [(7, OverLimit::EndOldest), (8, OverLimit::Refuse)] {
        let mut world = world(3, seed, limited(1, over));
        world.begun(0, "a", start_of("ada"));
        world.begun(0, "b", start_of("bob"));
        for node in 0..3 {
            for key in ["a", "b"] {
                let failure = world.fails(node, key, start_if_absent("ada"));
                assert!(matches!(failure, Failure::Conflict { .. }), "{failure:?}");
            }
        }
        world.run_for(A_MOMENT);
        assert_eq!((world.keys_of("ada"), world.keys_of("bob")), (keys(&["a"]), keys(&["b"])));
    }
}

#[test]
fn a_node_that_is_down_or_silent_is_not_waited_for() {
    for (seed, over) in [(9, OverLimit::EndOldest), (10, OverLimit::Refuse)] {
        let mut world = world(4, seed, limited(1, over));
        world.begun(0, "a", start_of("ada"));
        let is_in_time = |world: &mut World, key: &str| {
            let before = world.now;
            // One that is a home is asked for the new session, too.
            let reply = world.ask(0, key, start_of("ada"));
            assert!(world.now - before < Duration::from_millis(500), "{:?}", world.now - before);
            reply
        };
        world.isolate(3);
        let home = |world: &mut World, key: &String| world.homes_of(key)[0] == 0;
        let names: Vec<String> = (0..).map(|number| format!("b {number}")).take(64).collect();
        let mut names = names.into_iter().filter(|key| home(&mut world, key)).collect::<Vec<_>>();
        let (one, other) = (names.pop().unwrap(), names.pop().unwrap());
        let reply = is_in_time(&mut world, &one);
        let is_refused = matches!(reply, SessionReply::Failed(Failure::Refused(_)));
        assert_eq!(is_refused, over == OverLimit::Refuse, "{reply:?}");
        world.kill(3);
        world.cut.clear();
        world.run_for(Duration::from_secs(30));
        let reply = is_in_time(&mut world, &other);
        let is_refused = matches!(reply, SessionReply::Failed(Failure::Refused(_)));
        assert_eq!(is_refused, over == OverLimit::Refuse, "{reply:?}");
        world.run_for(Duration::from_secs(3));
        world.nodes.pop();
        let left = if is_refused { "a" } else { other.as_str() };
        assert_eq!(world.keys_of("ada"), [left]);
    }
}

/// Of a table whose sessions one home may hold alone, one silent node is too many to know.
#[test]
fn a_count_that_may_have_missed_some_lets_begin_or_not_as_the_table_does_in_partitions() {
    for (seed, partition) in [(11, Partition::Serve), (12, Partition::Refuse)] {
        let policy =
            TablePolicy { partition, write: WriteHomes::One, ..limited(5, OverLimit::Refuse) };
        let mut world = world(3, seed, policy);
        world.begun(0, "a", start_of("ada"));
        world.isolate(2);
        let reply = world.ask(0, "b", start_of("ada"));
        match partition {
            Partition::Serve => assert!(matches!(reply, SessionReply::Acknowledged(_))),
            Partition::Refuse => {
                let unavailable = Failure::Unavailable { answered: 0, needed: 1, homes: 1 };
                assert_eq!(reply, SessionReply::Failed(unavailable));
            }
        }
        assert_eq!(world.total("owner_limit_unknown"), 1);
        // What was found is counted whoever is silent.
        world.cut.clear();
        world.run_for(Duration::from_secs(5));
        for key in ["b", "c", "d", "e"] {
            world.begun(1, key, start_of("ada"));
        }
        world.isolate(2);
        let why = world.refused(0, "f", start_of("ada"));
        assert!(why.contains("which is 5"), "{why}");
    }
}

#[test]
fn those_that_begin_at_the_same_time_through_one_core_are_counted_one_by_one() {
    let policy = limited(3, OverLimit::Refuse);
    let mut world = World::of_single_cores(1, 13, policy);
    world.settle();
    let ids: Vec<u64> =
        (0..10).map(|number| world.request(0, &format!("key {number}"), start_of("ada"))).collect();
    let replies: Vec<SessionReply> = ids.into_iter().map(|id| world.wait(id)).collect();
    let begun = replies.iter().filter(|it| matches!(it, SessionReply::Acknowledged(_))).count();
    assert_eq!((begun, world.keys_of("ada").len()), (3, 3));
}

#[test]
fn those_that_begin_at_the_same_time_everywhere_may_be_as_many_more_as_are_under_way() {
    let mut world = world(3, 14, limited(2, OverLimit::Refuse));
    world.begun(0, "a", start_of("ada"));
    let ids: Vec<u64> = (0..6)
        .map(|number| world.request(number % 3, &format!("key {number}"), start_of("ada")))
        .collect();
    ids.into_iter().for_each(|id| _ = world.wait(id));
    world.run_for(A_MOMENT);
    let count = world.keys_of("ada").len();
    assert!((2..=7).contains(&count), "{count}");
    world.refused(0, "b", start_of("ada"));
}

#[test]
fn of_those_that_begin_at_the_same_time_the_latest_is_there_and_the_next_one_settles_it() {
    for seed in 15..18 {
        let mut world = world(3, seed, limited(2, OverLimit::EndOldest));
        let names: Vec<String> = (0..12).map(|number| format!("key {number}")).collect();
        let begun = names.iter().enumerate();
        let ids: Vec<u64> =
            begun.map(|(number, key)| world.request(number % 3, key, start_of("ada"))).collect();
        let birth = |reply| match reply {
            SessionReply::Acknowledged(acknowledged) => acknowledged.birth,
            other => panic!("{other:?}"),
        };
        let births: Vec<Version> = ids.into_iter().map(|id| birth(world.wait(id))).collect();
        world.run_for(Duration::from_secs(1));
        let latest = (0..12).max_by_key(|number| births[*number]).unwrap();
        assert!(world.keys_of("ada").contains(&names[latest]), "seed {seed}");
        world.begun(0, "last", start_of("ada"));
        let left = world.keys_of("ada");
        assert!(left.len() == 2 && left.contains(&"last".to_owned()), "seed {seed}: {left:?}");
    }
}

#[test]
fn however_many_an_owner_had_before_there_was_a_limit_the_next_start_leaves_as_many_as_he_may_have()
{
    let mut world = World::of_single_cores(2, 18, TablePolicy::default());
    world.settle();
    for number in 0..2_500 {
        world.acknowledged(number % 2, &format!("key {number}"), start_of("ada"));
    }
    world.policy = limited(4, OverLimit::EndOldest);
    (0..2).for_each(|node| world.kill(node));
    world.queue.clear();
    (0..2).for_each(|node| world.start(node));
    world.settle();
    world.acknowledged(0, "last", start_of("ada"));
    world.run_until_seen("all that are too many end", Duration::from_secs(60), |world| {
        world.owned("ada").len() == 4
    });
    world.run_for(A_MOMENT);
    assert!(world.keys_of("ada").contains(&"last".to_owned()));
    assert_eq!(world.total("owner_limit_ended"), 2_497);
    assert!(world.total("owner_limit_counts") >= 2, "more than one looks at");
    assert_eq!(world.total("owner_limit_put_off"), 0);
}

#[test]
fn more_owners_than_are_counted_at_a_time_lose_nothing() {
    let names: Vec<String> = (0..400).map(|number| format!("user {number}")).collect();
    for (seed, over) in [(19, OverLimit::EndOldest), (20, OverLimit::Refuse)] {
        let mut world = World::of_single_cores(2, seed, limited(1, over));
        world.settle();
        let ids: Vec<u64> =
            names.iter().map(|name| world.request(0, name, start_of(name))).collect();
        let mut put_off = 0;
        for id in ids {
            match world.wait(id) {
                SessionReply::Acknowledged(_) => {}
                SessionReply::Failed(Failure::Refused(why)) => {
                    assert!(why.contains("try again later"), "{why}");
                    put_off += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        world.run_for(A_MOMENT);
        assert_eq!(put_off == 0, over == OverLimit::EndOldest);
        assert!(world.total("owner_limit_put_off") > 0);
        let there = names.iter().filter(|name| !world.keys_of(name).is_empty()).count();
        assert_eq!(there, 400 - put_off);
        // Later there is room again.
        for name in names.iter().take(10) {
            world.begun(0, name, start_of(name));
        }
    }
}

/// What a node answers wrongly, or to another question, ends the count of nothing.
#[test]
fn pages_that_come_to_no_end_are_given_up_and_those_not_asked_for_are_nothing() {
    use annulus_proto::message::{Owned, OwnedPlace};
    let policy = TablePolicy { write: WriteHomes::One, ..limited(1, OverLimit::Refuse) };
    let mut world = World::of_single_cores(2, 22, policy);
    world.settle();
    world.begun(0, "a", start_of("ada"));
    world.isolate(1);
    let now = world.present(0);
    let other = NodeId::from_bits(world.nodes[1].state.id);
    let here = OwnedPlace::default();
    let page = |next| Some(Owned { sessions: Vec::new(), next, write_homes: 1 }.into());
    let id = world.request(0, "b", start_of("bob"));
    let core = world.core(0, "b");
    let number = core.counters().count("owner_limit_counts");
    let beyond = OwnedPlace { core: 7, ..here };
    core.on_owned(now, (number, beyond), other, page(None));
    core.on_owned(now, (number + 1, here), other, page(None));
    core.on_owned(now, (number, here), other, page(Some(here)));
    world.wait(id);
    assert_eq!(world.counter(0, "owner_limit_unknown"), 1);
}

#[test]
fn the_longest_owner_is_counted_and_a_longer_one_is_none() {
    let mut world = World::of_single_cores(1, 21, limited(1, OverLimit::EndOldest));
    world.settle();
    let longest = "o".repeat(255);
    world.begun(0, "a", start_of(&longest));
    world.begun(0, "b", start_of(&longest));
    assert_eq!(world.keys_of(&longest), ["b"]);
    let why = world.refused(0, "c", start_of(&"o".repeat(256)));
    assert!(why.contains("256 bytes"), "{why}");
}

fn keys(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
