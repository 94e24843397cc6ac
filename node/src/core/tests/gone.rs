//! Sessions that are gone, and who is told.

use std::slice;

use super::overflow::keys;
use super::*;
use crate::core::gone::Telling;

/// What tells an event from any other: the key, and what became of the session of which birth by which write.
type Event = (String, Version, Version, HowGone);

fn telling(count: usize, seed: u64) -> World {
    telling_of(count, World { tells_gone: true, ..World::sparse(0, seed) })
}

fn telling_of(count: usize, mut world: World) -> World {
    world.tells_gone = true;
    (1..=count as u64).for_each(|id| _ = world.add(id));
    world.settle();
    world.run_for(Duration::from_secs(3));
    world
}

impl World {
    /// How often a node was told each event.
    fn told(&self, node: usize) -> BTreeMap<Event, usize> {
        let mut told = BTreeMap::new();
        for GoneSession { key, birth, version, how } in &self.nodes[node].gone {
            let key = String::from_utf8(key.as_bytes().to_vec()).unwrap();
            *told.entry((key, *birth, *version, *how)).or_default() += 1;
        }
        told
    }

    /// Of which keys a node was told that, each once, in order.
    fn keys_told(&self, node: usize, how: HowGone) -> Vec<String> {
        let told = self.told(node);
        told.into_keys().filter(|event| event.3 == how).map(|event| event.0).collect()
    }

    /// Begins sessions that live so long unused.
    fn begin_idle(&mut self, keys: &[String], idle_ms: u64) {
        for (number, key) in keys.iter().enumerate() {
            let node = number % self.nodes.len();
            self.acknowledged(node, key, start_idle(bytes(key), idle_ms));
        }
    }

    /// How much somebody is to be told still.
    fn untold(&self) -> usize {
        let cores = self.nodes.iter().filter_map(|node| node.whole.as_ref());
        cores.flat_map(|whole| &whole.cores).map(|core| core.tables[0].telling.len()).sum()
    }
}

fn sorted(keys: &[String]) -> Vec<String> {
    let mut keys = keys.to_vec();
    keys.sort();
    keys
}

#[test]
fn each_home_tells_each_node_once_what_became_of_a_session() {
    for seed in 0..3 {
        let mut world = telling(5, seed);
        let [left, ended, kept] = ["left", "ended", "kept"].map(|name| keys(name, 20));
        world.begin_idle(&left, 1_000);
        world.begin_idle(&ended, 600_000);
        world.begin_idle(&kept, 600_000);
        // Who merely keeps near copies sees their ends, too.
        world.asker = Asker::Local(0);
        for key in &ended {
            let outsider = world.outsider(key);
            world.read_until_near(outsider, key);
        }
        for key in &ended {
            world.acknowledged(1, key, end());
        }
        for key in &kept {
            world.acknowledged(2, key, update("other"));
        }
        world.scan_for(Duration::from_secs(3));
        let check = |world: &World| {
            for node in 0..5 {
                let told = world.told(node);
                assert!(told.values().all(|count| *count == 3), "seed {seed}: {told:?}");
                assert_eq!(world.keys_told(node, HowGone::Expired), sorted(&left), "seed {seed}");
                assert_eq!(world.keys_told(node, HowGone::Ended), sorted(&ended), "seed {seed}");
                assert_eq!(told.len(), 40);
            }
        };
        check(&world);
        assert_eq!(world.total("sessions_gone_noted"), 3 * 40);
        assert_eq!(world.untold(), 0);
        // Nothing more is said when it is dropped.
        world.scan_for(Duration::from_secs(90));
        check(&world);
        assert!(left.iter().all(|key| world.copy(0, key).is_none()));
    }
}

#[test]
fn a_session_that_expires_is_told_within_two_seconds() {
    let mut world = telling(3, 5);
    for number in 0..20 {
        let key = sparse(&format!("key {number}"));
        world.acknowledged(number % 3, &key, start_idle(bytes("v"), 1_000));
        let deadline = world.now + Duration::from_secs(1);
        while !(0..3).all(|node| world.keys_told(node, HowGone::Expired).contains(&key)) {
            let late = world.now.saturating_sub(deadline);
            assert!(late < Duration::from_secs(2), "{late:?}");
            world.scan_for(Duration::from_millis(50));
        }
        assert!(world.now > deadline, "not before");
    }
}

#[test]
fn nothing_is_told_where_nobody_wants_to_know() {
    let mut world = World::sparse(3, 1);
    world.settle();
    world.overheard = Some(Vec::new());
    let (left, ended) = (keys("left", 10), keys("ended", 10));
    world.begin_idle(&left, 1_000);
    world.begin_idle(&ended, 600_000);
    ended.iter().for_each(|key| _ = world.acknowledged(1, key, end()));
    world.scan_for(Duration::from_secs(70));
    assert!(world.nodes.iter().all(|node| node.gone.is_empty()));
    let said = world.overheard.take().unwrap();
    assert!(!said.iter().any(|(_, _, message)| matches!(message, Message::Gone(_))));
    assert!(left.iter().all(|key| world.copy(0, key).is_none()), "dropped as ever");
}

#[test]
fn a_slot_that_is_handed_over_takes_nothing_from_anybody() {
    for seed in 0..2 {
        let mut world = telling(4, seed);
        let kept = keys("kept", 60);
        world.begin_idle(&kept, 600_000);
        world.run_for(Duration::from_millis(100));
        world.drain_node(1);
        world.scan_for(Duration::from_secs(20));
        world.add(9);
        world.scan_for(Duration::from_secs(20));
        assert!(
            world.total("slots_given_up") > 0
                || kept.iter().all(|key| world.copy(1, key).is_none())
        );
        assert!(world.nodes.iter().all(|node| node.gone.is_empty()), "seed {seed}");
        // Their ends are told by those who have them now.
        kept.iter().for_each(|key| _ = world.acknowledged(0, key, end()));
        world.scan_for(Duration::from_secs(2));
        assert_eq!(world.keys_told(4, HowGone::Ended), sorted(&kept), "seed {seed}");
    }
}

#[test]
fn what_was_lost_on_its_way_is_told_again() {
    for seed in 0..3 {
        let mut world = telling(4, seed);
        let (left, ended) = (keys("left", 20), keys("ended", 20));
        world.begin_idle(&left, 2_000);
        world.begin_idle(&ended, 600_000);
        world.run_for(Duration::from_millis(100));
        // One is cut off for less than it takes to be found dead, and messages are lost.
        world.loss = 0.2;
        world.isolate(3);
        ended.iter().for_each(|key| _ = world.request(0, key, end()));
        world.scan_for(Duration::from_secs(2));
        world.cut.clear();
        world.scan_for(Duration::from_secs(10));
        world.loss = 0.0;
        world.scan_for(Duration::from_secs(20));
        // Some requests were lost, too.
        let mut have_ended = ended.clone();
        have_ended.retain(|key| {
            (0..4).any(|node| world.copy(node, key).is_some_and(|entry| entry.is_ended()))
        });
        assert!(have_ended.len() > 10, "seed {seed}: {}", have_ended.len());
        let told = world.told(0);
        for node in 0..4 {
            assert!(world.told(node).keys().eq(told.keys()), "seed {seed}");
            assert_eq!(world.keys_told(node, HowGone::Ended), sorted(&have_ended), "seed {seed}");
            let expired: BTreeSet<_> =
                world.keys_told(node, HowGone::Expired).into_iter().collect();
            assert_eq!(expired, left.iter().cloned().collect(), "seed {seed}");
        }
        assert_eq!(world.untold(), 0, "seed {seed}");
        assert_eq!(world.total("sessions_gone_dropped"), 0);
    }
}

#[test]
fn what_a_home_that_died_had_not_told_the_others_tell() {
    for seed in 0..3 {
        let mut world = telling(4, seed);
        let left = keys("left", 40);
        world.begin_idle(&left, 5_000);
        world.scan_for(Duration::from_secs(4));
        world.kill(0);
        world.scan_for(Duration::from_secs(4));
        for node in 1..4 {
            assert_eq!(world.keys_told(node, HowGone::Expired), sorted(&left), "seed {seed}");
        }
        // The dead one is waited for no more once it is found dead.
        // What went at the one is told once a comparison has brought it back.
        world.scan_for(Duration::from_secs(40));
        assert_eq!(world.untold(), 0, "seed {seed}");
    }
}

/// One that was cut off has not heard that sessions were used.
#[test]
fn who_is_out_of_touch_says_of_nothing_that_it_has_expired() {
    for seed in 0..3 {
        let mut world = telling(3, seed);
        let used = keys("used", 20);
        world.begin_idle(&used, 4_000);
        world.run_for(Duration::from_millis(100));
        world.isolate(0);
        for _ in 0..8 {
            world.scan_for(Duration::from_secs(1));
            for key in &used {
                let touch = Operation::Touch { birth: None };
                let id = world.request(1, key, touch);
                world.run_until("an answer", Duration::from_secs(5), |w| {
                    w.replies.contains_key(&id)
                });
            }
        }
        world.cut.clear();
        for key in &used {
            world.acknowledged(1, key, Operation::Touch { birth: None });
        }
        world.scan_for(Duration::from_secs(3));
        assert!(world.nodes.iter().all(|node| node.gone.is_empty()), "seed {seed}");
        world.scan_for(Duration::from_secs(6));
        for node in 0..3 {
            assert_eq!(world.keys_told(node, HowGone::Expired), sorted(&used), "seed {seed}");
        }
    }
}

#[test]
fn what_is_evicted_is_told_and_does_not_expire_besides() {
    let (mut world, value) = telling_with_little_room(3, 5, OnFull::Evict);
    for number in 0..300 {
        world.acknowledged(number % 3, &format!("key {number}"), start(value.clone()));
        world.run_for(Duration::from_millis(20));
    }
    world.scan_for(Duration::from_secs(70));
    let evicted = world.total("entries_evicted");
    assert!(evicted > 150, "{evicted}");
    for node in 0..3 {
        let told = world.told(node);
        assert!(told.keys().all(|event| event.3 == HowGone::Evicted), "{told:?}");
        assert_eq!(told.len() as u64, evicted);
    }
    assert_eq!(world.untold(), 0);
}

/// Three nodes, or one, with tables for some 120 sessions of that value.
fn telling_with_little_room(count: usize, seed: u64, on_full: OnFull) -> (World, Value) {
    let policy = TablePolicy { on_full, ..TablePolicy::default() };
    let world = World::with_record_size(0, seed, policy, 512, 1);
    (telling_of(count, world), bytes(&"x".repeat(29_000)))
}

#[test]
fn what_has_expired_goes_before_any_that_lives_where_there_is_no_room() {
    for on_full in [OnFull::Evict, OnFull::Refuse] {
        let (mut world, value) = telling_with_little_room(3, 6, on_full);
        let [left, lives, new] =
            [("left", 90), ("lives", 15), ("new", 90)].map(|(name, count)| keys(name, count));
        for (number, key) in lives.iter().enumerate() {
            world.acknowledged(number % 3, key, start_idle(value.clone(), 600_000));
        }
        for (number, key) in left.iter().enumerate() {
            world.acknowledged(number % 3, key, start_idle(value.clone(), 4_000));
        }
        // All have been seen to be over long before there is need of their room.
        world.scan_for(Duration::from_secs(12));
        for node in 0..3 {
            assert_eq!(world.keys_told(node, HowGone::Expired), sorted(&left), "{on_full:?}");
            assert!(world.copy(node, &left[0]).is_some());
        }
        for (number, key) in new.iter().enumerate() {
            world.acknowledged(number % 3, key, start_idle(value.clone(), 600_000));
            world.run_for(Duration::from_millis(50));
            if number % 10 == 0 {
                world.scan_all();
            }
        }
        world.scan_for(Duration::from_secs(3));
        assert_eq!(world.total("entries_evicted"), 0, "{on_full:?}");
        for node in 0..3 {
            for key in lives.iter().chain(&new) {
                assert_eq!(world.value(node, key), value, "{on_full:?}: {key}");
            }
            assert_eq!(world.told(node).len(), left.len(), "{on_full:?}");
        }
    }
}

/// One that was cut off needs the room of sessions that are used elsewhere, of which it has not heard.
#[test]
fn what_lives_elsewhere_is_not_told_to_have_expired_where_it_made_room() {
    for seed in 0..2 {
        let (mut world, value) = telling_with_little_room(3, seed, OnFull::Refuse);
        let used = keys("used", 60);
        for (number, key) in used.iter().enumerate() {
            world.acknowledged(number % 3, key, start_idle(value.clone(), 3_000));
        }
        world.run_for(Duration::from_millis(100));
        world.isolate(0);
        let mut others = (0..).map(|number| sparse(&format!("other {number}")));
        let touch_all = |world: &mut World| {
            for key in &used {
                world.request(1, key, Operation::Touch { birth: None });
            }
            world.scan_for(Duration::from_millis(500));
        };
        for _ in 0..13 {
            for key in others.by_ref().take(8) {
                world.request(0, &key, start_idle(value.clone(), 600_000));
            }
            touch_all(&mut world);
        }
        let have_gone = used.iter().filter(|key| world.copy(0, key).is_none()).count();
        assert!(have_gone > 20, "seed {seed}: {have_gone}");
        world.cut.clear();
        (0..8).for_each(|_| touch_all(&mut world));
        for node in 0..3 {
            assert_eq!(world.keys_told(node, HowGone::Expired), [""; 0], "seed {seed}");
        }
        // What went at the one is told once a comparison has brought it back.
        world.scan_for(Duration::from_secs(40));
        for node in 0..3 {
            assert_eq!(world.keys_told(node, HowGone::Expired), sorted(&used), "seed {seed}");
        }
    }
}

/// Nobody else has it, and it is dropped sooner than it would be told.
#[test]
fn what_made_room_right_after_its_deadline_is_told_still() {
    let (mut world, value) = telling_with_little_room(1, 7, OnFull::Refuse);
    let left = keys("left", 100);
    let mut begun = BTreeMap::new();
    for key in &left {
        begun.insert(key, world.now);
        world.request(0, key, start_idle(value.clone(), 3_000));
        world.run_for(Duration::from_millis(11));
    }
    // The table is full by then.
    let mut new = (0..).map(|number| sparse(&format!("new {number}")));
    let mut begin = |world: &mut World, count: usize| {
        for key in new.by_ref().take(count) {
            world.request(0, &key, start_idle(value.clone(), 600_000));
        }
        world.run_for(Duration::from_millis(20));
    };
    begin(&mut world, 100);
    let half_a_second = Duration::from_millis(500);
    let mut early = BTreeSet::new();
    while world.now < begun[&left[99]] + Duration::from_secs(5) {
        begin(&mut world, 2);
        for (key, begun) in &begun {
            let over_for = world.now.saturating_sub(*begun + Duration::from_secs(3));
            if over_for < half_a_second && world.copy(0, key).is_none() {
                early.insert(key.to_string());
            }
        }
        world.scan_all();
        for key in world.keys_told(0, HowGone::Expired) {
            assert!(world.now >= begun[&key] + Duration::from_secs(3) + half_a_second);
        }
    }
    assert!(early.len() > 10, "{}", early.len());
    assert_eq!(world.keys_told(0, HowGone::Expired), sorted(&left));
    assert!(world.told(0).values().all(|count| *count == 1));
}

#[test]
fn a_session_that_is_begun_over_one_that_expired_has_that_told_and_one_over_a_live_one_nothing() {
    let mut world = telling(3, 8);
    let [passing, lasting] = ["passing", "lasting"].map(sparse);
    world.acknowledged(0, &passing, start_idle(bytes("one"), 1_000));
    world.acknowledged(0, &lasting, start_idle(bytes("one"), 600_000));
    // Nobody has looked at it since.
    world.run_for(Duration::from_millis(1_200));
    for key in [&passing, &lasting] {
        world.acknowledged(1, key, start_idle(bytes("two"), 600_000));
    }
    world.run_for(Duration::from_secs(1));
    for node in 0..3 {
        assert_eq!(world.keys_told(node, HowGone::Expired), slice::from_ref(&passing));
        assert_eq!(world.told(node).len(), 1);
        assert_eq!(world.value(node, &passing), bytes("two"));
    }
}

/// By the clock of one home its time was over before. All go by the stamp of the end, whoever gave it.
#[test]
fn a_session_that_is_ended_right_before_its_deadline_is_the_same_to_all_homes() {
    let mut have_ended = 0;
    let mut world = telling(3, 9);
    world.nodes[2].skew_ms = 400;
    world.run_for(Duration::from_secs(3));
    for number in 0..10 {
        let key = sparse(&format!("key {number}"));
        world.acknowledged(0, &key, start_idle(bytes("one"), 1_000));
        world.run_for(Duration::from_millis(800));
        world.acknowledged(0, &key, end());
        world.scan_for(Duration::from_secs(2));
        for node in 0..3 {
            let told = world.told(node);
            assert_eq!(told.values().collect::<Vec<_>>(), [&3], "{told:?}");
            have_ended += world.keys_told(node, HowGone::Ended).len();
            world.nodes[node].gone.clear();
        }
    }
    assert!(have_ended >= 3 * 8, "{have_ended}");
}

#[test]
fn a_node_alone_hears_of_what_its_lanes_end() {
    let mut world = telling(1, 4);
    let key = sparse("key");
    world.acknowledged(0, &key, start(bytes("one")));
    world.run_for(Duration::from_secs(1));
    let (_, at_once) = world.ask_through_a_lane(&key, end());
    assert!(at_once);
    world.run_for(Duration::from_millis(200));
    assert_eq!(world.keys_told(0, HowGone::Ended), [key]);
    assert_eq!(world.untold(), 0, "there is nobody else");
}

#[test]
fn no_more_is_kept_for_who_does_not_listen_than_there_is_room_for() {
    let mut telling = Telling::default();
    let [here, away] = [1, 2].map(NodeId::from_bits);
    let version = Version::new(annulus_proto::Hlc::from_ms(5), here);
    let key = Key::new("k").unwrap();
    let session = GoneSession { key, birth: version, version, how: HowGone::Ended };
    telling.meet(&BTreeSet::from([here, away]));
    assert_eq!(telling.keep(&vec![session.clone(); 60_000]), 0);
    telling.note_told(here, 60_000);
    // Of 5,536 there is room for besides; the one that is away misses the others.
    assert_eq!(telling.keep(&vec![session.clone(); 10_000]), 4_464);
    assert_eq!(telling.len(), 1 << 16);
    telling.note_told(here, 70_000);
    assert_eq!(telling.len(), 1 << 16);
    telling.meet(&BTreeSet::from([here]));
    telling.note_told(here, 70_000);
    assert_eq!(telling.len(), 0);
    // Who comes is told what happens from then on.
    telling.keep(&vec![session.clone(); 10]);
    telling.meet(&BTreeSet::from([here, away]));
    telling.note_told(here, 70_010);
    assert_eq!(telling.len(), 0);
}

#[test]
fn what_moves_between_rings_is_not_gone_and_what_ends_or_expires_further_out_is() {
    for seed in 0..2 {
        let (policy, outer) = rings::rings(&[5]);
        let none = World::with_policy(0, seed, policy);
        let mut world = telling_of(4, World { slots: Simulated::Sparse, outer, ..none });
        let [left, ended, back] = ["left", "ended", "back"].map(sparse);
        for key in [&left, &ended, &back] {
            world.acknowledged(0, key, start_idle(bytes("one"), 60_000));
        }
        for key in [&left, &ended, &back] {
            world.until_it_is_on(1, key);
        }
        world.value(1, &back);
        world.until_it_is_on(0, &back);
        assert!(world.nodes.iter().all(|node| node.gone.is_empty()), "seed {seed}");
        world.acknowledged(2, &ended, end());
        world.scan_for(Duration::from_secs(2));
        for node in 0..4 {
            assert_eq!(
                world.keys_told(node, HowGone::Ended),
                slice::from_ref(&ended),
                "seed {seed}"
            );
        }
        world.scan_for(Duration::from_secs(70));
        for node in 0..4 {
            // One that came in and went out again is told as it expires there.
            let expected = sorted(&[back.clone(), left.clone()]);
            assert_eq!(world.keys_told(node, HowGone::Expired), expected, "seed {seed}");
            assert_eq!(world.told(node).len(), 3, "seed {seed}");
        }
    }
}
