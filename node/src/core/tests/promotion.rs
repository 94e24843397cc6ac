//! Upon which use sessions come in from a ring further out, and how many at a time.

use std::num::{NonZeroU8, NonZeroU64};

use super::rings::{ARRIVED, LIFE, rings, some_keys};
use super::*;

const KEY: &str = "cold";

impl World {
    fn with_promotion(count: usize, seed: u64, promotion: Promotion) -> Self {
        let (mut policy, mut outer) = rings(&[5]);
        policy.promotion = promotion;
        outer[0].promotion = promotion;
        let none = Self::of_single_cores(0, seed, policy);
        let mut world = Self { slots: Simulated::Sparse, outer, ..none };
        for id in 1..=count as u64 {
            world.add(id);
        }
        world.settle();
        world
    }

    /// Nodes where sessions come in upon the n-th read, and one that has cooled.
    fn with_reads_to_promote(count: usize, seed: u64, after: u8) -> (Self, String) {
        let after = NonZeroU8::new(after).unwrap();
        let promotion = Promotion { after, ..Promotion::default() };
        let mut world = Self::with_promotion(count, seed, promotion);
        let key = sparse(KEY);
        world.acknowledged(0, &key, start(bytes("one")));
        world.until_it_is_on(1, &key);
        (world, key)
    }
}

/// So many bytes a second, of which a core of a sparse node takes its part.
fn rate(rate: u64) -> Promotion {
    Promotion { rate: NonZeroU64::new(17 * rate).unwrap(), ..Promotion::default() }
}

#[test]
fn a_session_comes_in_upon_the_read_that_its_table_says() {
    for seed in 0..4 {
        let (mut world, key) = World::with_reads_to_promote(3, seed, 3);
        for _ in 0..2 {
            assert_eq!(world.value(0, &key), bytes("one"));
            world.run_for(ARRIVED);
            assert_eq!((world.holders(0, &key), world.holders(1, &key)), (0, 3), "seed {seed}");
        }
        assert_eq!(world.counter(0, "sessions_read_further_out"), 2);
        assert_eq!(world.value(0, &key), bytes("one"));
        world.until_it_is_on(0, &key);
        // And it is counted anew.
        world.until_it_is_on(1, &key);
        assert_eq!(world.value(0, &key), bytes("one"));
        world.run_for(ARRIVED);
        assert_eq!((world.holders(0, &key), world.holders(1, &key)), (0, 3), "seed {seed}");
    }
}

#[test]
fn reads_that_are_far_apart_do_not_bring_it_in() {
    let (mut world, key) = World::with_reads_to_promote(3, 1, 2);
    for _ in 0..6 {
        world.run_for(LIFE + Duration::from_millis(100));
        assert_eq!(world.value(1, &key), bytes("one"));
    }
    assert_eq!((world.holders(0, &key), world.holders(1, &key)), (0, 3));
    world.run_for(LIFE - Duration::from_millis(100));
    assert_eq!(world.value(1, &key), bytes("one"));
    world.until_it_is_on(0, &key);
}

#[test]
fn a_change_brings_it_in_at_once() {
    let if_unchanged = |world: &mut World, key: &str| {
        let SessionReply::Session(session) = world.ask(2, key, Operation::Get) else {
            panic!("it is there");
        };
        Operation::UpdateIf { version: session.version, change: Change::Value(bytes("two")) }
    };
    let (mut world, key) = World::with_reads_to_promote(3, 2, 255);
    let conditional = if_unchanged(&mut world, &key);
    let touch = Operation::Touch { birth: None };
    for (operation, value) in [(touch, "one"), (conditional, "two"), (update("three"), "three")] {
        world.until_it_is_on(1, &key);
        world.acknowledged(1, &key, operation);
        world.until_it_is_on(0, &key);
        assert_eq!(world.value(2, &key), bytes(value));
    }
}

#[test]
fn a_session_that_stays_outside_can_be_ended() {
    for node in 0..4 {
        let (mut world, key) = World::with_reads_to_promote(4, 3, 9);
        assert_eq!(world.value(node, &key), bytes("one"));
        world.acknowledged(node, &key, Operation::End { birth: None });
        world.run_for(ARRIVED);
        assert_eq!((world.holders(0, &key), world.holders(1, &key)), (0, 0));
        for node in 0..4 {
            assert_eq!(world.fails(node, &key, Operation::Get), Failure::Ended);
        }
        assert_eq!(world.total("sessions_brought_in"), 0);
    }
}

/// Through any node, while it goes to and fro between the rings.
#[test]
fn what_is_read_outside_is_what_was_written_last() {
    for seed in 0..6 {
        let (mut world, key) = World::with_reads_to_promote(5, seed, 2);
        let mut value = "one".to_owned();
        for step in 0..120 {
            let node = world.rng.random_range(0..5);
            match world.rng.random_range(0..8) {
                0 => {
                    value = format!("value {step}");
                    world.acknowledged(node, &key, update(&value));
                }
                1 => _ = world.acknowledged(node, &key, Operation::Touch { birth: None }),
                2 => world.run_for(7 * LIFE),
                _ => assert_eq!(world.value(node, &key), bytes(&value), "seed {seed}, {step}"),
            }
            world.run_for(ARRIVED);
        }
        assert!(world.total("sessions_read_further_out") > 1, "seed {seed}");
        assert!(world.total("sessions_brought_in") > 1, "seed {seed}");
    }
}

/// Another home brought it in, as what is further out says, and this one has not heard of that.
#[test]
fn what_is_known_to_be_inside_is_not_read_outside() {
    let (mut world, key) = World::with_reads_to_promote(3, 4, 255);
    let outside = world.copy_on(1, 0, &key).unwrap();
    let now = world.present(0);
    let name = Key::new(key.as_str()).unwrap();
    let core = world.core(0, &key);
    let version = core.stamp(now, 0, name.slot(), outside.moved_at()).ok().unwrap();
    let inside = core.moved(0, &name, outside.clone(), version, 0);
    // A request that waits for it is none that changes it.
    assert!(core.comes_in(now, 0, (&name, &outside), &[0]).is_none());
    assert!(core.comes_in(now, 0, (&name, &inside), &[0]).is_some());
}

/// It was cut off while others brought it in and changed it: of its own it has what is older.
#[test]
fn a_reader_is_not_answered_with_what_may_be_older_than_what_is_inside() {
    for seed in 0..8 {
        let (mut world, key) = World::with_reads_to_promote(3, seed, 1);
        let homes = world.homes_of(&key);
        let (first, last) = (homes[0], homes[2]);
        for other in &homes[..2] {
            world.cut.extend([(last, *other), (*other, last)]);
        }
        world.acknowledged(first, &key, update("two"));
        world.run_for(ARRIVED);
        world.cut.clear();
        assert_eq!(world.value(last, &key), bytes("two"), "seed {seed}");
    }
}

/// How large the values of the following tests are, with less than a tenth for what an entry takes besides.
const BYTES: u64 = 1_000;

fn long_value() -> Value {
    bytes(&"x".repeat(BYTES as usize))
}

impl World {
    /// Nodes with sessions that have cooled, and at most so many bytes a second of which come in through each.
    fn with_cold_sessions(nodes: usize, count: usize, a_second: u64) -> (Self, Vec<String>) {
        let mut world = Self::with_promotion(nodes, 5, rate(a_second));
        let keys: Vec<String> = some_keys().take(count).collect();
        for key in &keys {
            world.acknowledged(0, key, start(long_value()));
        }
        world.run_until_seen("all are outside", 30 * LIFE, |world| {
            keys.iter().all(|key| world.holders(0, key) == 0)
        });
        (world, keys)
    }

    fn inside(&mut self, keys: &[String]) -> u64 {
        keys.iter().filter(|key| self.holders(0, key) > 0).count() as u64
    }

    /// How many sessions may have come in through all nodes since then: what a tenth of a second allows at once, and one
    /// more at each.
    fn most_since(&self, began: Duration, a_second: u64) -> u64 {
        let passed = (self.now - began).as_millis() as u64;
        let each = (a_second * passed / 1_000 + a_second / 10) / BYTES + 1;
        self.nodes.len() as u64 * each
    }
}

#[test]
fn no_more_bytes_come_in_than_the_table_says() {
    let a_second = 20 * BYTES;
    for nodes in [1, 4] {
        let (mut world, keys) = World::with_cold_sessions(nodes, 200, a_second);
        let began = world.now;
        for key in keys.iter().chain(&keys) {
            assert_eq!(world.value(0, key), long_value());
        }
        let (inside, most) = (world.inside(&keys), world.most_since(began, a_second));
        assert!(inside > 0 && inside <= most, "{inside} of {most}");
        let put_off = world.total("promotions_put_off");
        assert_eq!(put_off, world.total("sessions_read_further_out"));
        assert!(put_off > 0);
        // There is room again after a while.
        world.run_for(Duration::from_secs(1));
        let outside = keys.iter().find(|key| world.holders(0, key) == 0).unwrap().clone();
        world.value(0, &outside);
        world.run_for(ARRIVED);
        assert_eq!(world.holders(0, &outside), nodes.min(3));
    }
}

/// Asked for at once, with a read of each on its way already.
#[test]
fn changes_of_sessions_that_are_to_come_in_wait_for_their_turn() {
    let a_second = 40 * BYTES;
    for (nodes, count, all_in_time) in
        [(1, 50, true), (1, 150, false), (4, 40, true), (4, 200, false)]
    {
        let (mut world, keys) = World::with_cold_sessions(nodes, count, a_second);
        let began = world.now;
        let ask = |key: &String| {
            let read = world.request(0, key, Operation::Get);
            (read, world.request(0, key, update("new")))
        };
        let asked: Vec<(u64, u64)> = keys.iter().map(ask).collect();
        world.run_for(ARRIVED);
        let told_at_once = world.total("failures_slow_down");
        let mut done = Vec::new();
        for (key, (read, changed)) in keys.iter().zip(asked) {
            assert!(matches!(world.wait(read), SessionReply::Session(_)));
            match world.wait(changed) {
                SessionReply::Acknowledged(_) => done.push(key.clone()),
                SessionReply::Failed(Failure::SlowDown { retry_after_ms }) => {
                    assert!(retry_after_ms > 0);
                }
                other => panic!("{other:?}"),
            }
        }
        let (inside, most) = (world.inside(&keys), world.most_since(began, a_second));
        assert!(inside <= most, "{inside} of {most} on {nodes}");
        let refused = count - done.len();
        assert_eq!(refused == 0, all_in_time, "{refused} of {count} on {nodes}");
        assert_eq!(world.total("failures_slow_down"), told_at_once, "nobody waited in vain");
        assert!(world.total("writes_slowed") > 0);
        for key in &keys {
            let value = if done.contains(key) { bytes("new") } else { long_value() };
            assert_eq!(world.value(0, key), value);
        }
    }
}

#[test]
fn what_brings_nothing_in_waits_for_nothing() {
    for nodes in [1, 4] {
        let (mut world, keys) = World::with_cold_sessions(nodes, 60, 20 * BYTES);
        let asked: Vec<u64> = keys.iter().map(|key| world.request(0, key, update("new"))).collect();
        world.run_for(ARRIVED);
        assert!(world.total("writes_slowed") > 0);
        let began = world.now;
        let new = some_keys().find(|key| !keys.contains(key)).unwrap();
        assert_eq!(world.fails(0, &new, update("other")), Failure::Absent);
        let if_absent = Operation::StartIfAbsent {
            value: bytes("new"),
            lifetimes: Default::default(),
            attributes: Attributes::default(),
        };
        world.acknowledged(0, &new, if_absent);
        world.acknowledged(0, &keys[59], Operation::End { birth: None });
        assert!(world.now - began < Duration::from_millis(50));
        asked.into_iter().for_each(|id| _ = world.wait(id));
    }
}

/// A change waits until it is inside.
#[test]
fn a_reader_has_its_answer_before_the_session_is_inside() {
    for seed in 0..4 {
        let (mut world, key) = World::with_reads_to_promote(3, seed, 1);
        let home = world.homes_of(&key)[0];
        let reads: Vec<u64> = (0..3).map(|_| world.request(home, &key, Operation::Get)).collect();
        let change = world.request(home, &key, update("two"));
        let brought = world.counter(home, "sessions_brought_in");
        for read in reads {
            let SessionReply::Session(session) = world.wait(read) else { panic!() };
            assert_eq!(session.value, bytes("one"), "seed {seed}");
        }
        assert_eq!(world.counter(home, "sessions_brought_in"), brought, "seed {seed}");
        assert_eq!(world.counter(home, "sessions_read_further_out"), 0);
        let SessionReply::Acknowledged(_) = world.wait(change) else { panic!() };
        assert_eq!(world.counter(home, "sessions_brought_in"), brought + 1);
        world.until_it_is_on(0, &key);
        assert_eq!(world.value(home, &key), bytes("two"));
    }
}
