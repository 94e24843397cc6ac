//! Sessions that two rings hold at once.

use annulus_proto::message::{Overlap, OverlapRequest};

use super::rings::{ARRIVED, LIFE};
use super::*;

const KEY: &str = "twice";
/// After which nothing is left of what has expired.
const EXPIRED_GOES: Duration = Duration::from_secs(65);
/// In which rings are compared at least once.
const COMPARED: Duration = Duration::from_secs(35);

fn live_for(idle: Duration) -> Operation {
    let idle_ms = Some(idle.as_millis() as u64);
    let change = Change::Lifetimes(Lifetimes { idle_ms, lifetime_ms: None });
    Operation::Update { birth: None, change }
}

impl World {
    /// Nodes of which the ring further out holds a session that has come in: what told it was lost, and the hints were,
    /// too. Nothing goes outward again.
    fn with_a_session_on_two_rings(seed: u64) -> (Self, String) {
        let mut world = Self::with_rings(4, seed, &[5]);
        let key = sparse(KEY);
        world.acknowledged(0, &key, start(bytes("one")));
        world.until_it_is_on(1, &key);
        let cold: Vec<_> = (0..4).map(|node| world.copy_on(1, node, &key)).collect();
        assert_eq!(world.value(1, &key), bytes("one"));
        world.until_it_is_on(0, &key);
        for (node, copy) in cold.into_iter().enumerate() {
            let now = world.present(node);
            let core = world.core(node, &key);
            core.tables[0].cooling.rests_until = Duration::MAX;
            let now_ms = core.time.now_ms(now);
            let store = &mut core.tables[1].store;
            if let Some(copy) = copy.filter(|copy| !copy.is_marker()) {
                let key = Key::new(&key).unwrap();
                store.drop_entry(&key, now_ms);
                store.merge(&key, &copy, now_ms, Admission::Ordinary).unwrap();
            }
        }
        assert_eq!((world.holders(0, &key), world.holders(1, &key)), (3, 3));
        (world, key)
    }
}

#[test]
fn what_a_ring_further_out_was_not_told_of_goes_from_there() {
    for seed in 0..4 {
        let (mut world, key) = World::with_a_session_on_two_rings(seed);
        let is_changed = seed % 2 == 1;
        if is_changed {
            world.acknowledged(2, &key, update("two"));
        }
        world.run_for(COMPARED);
        assert!(world.total("ring_overlaps_found") >= 1, "seed {seed}");
        let expected = bytes(if is_changed { "two" } else { "one" });
        assert_eq!(world.value(3, &key), expected, "seed {seed}");
        world.until_it_is_on(0, &key);
        // And that was it.
        let found = world.total("ring_overlaps_found");
        world.run_for(2 * COMPARED);
        assert_eq!(world.total("ring_overlaps_found"), found, "seed {seed}");
    }
}

#[test]
fn what_has_ended_inside_ends_further_out() {
    let (mut world, key) = World::with_a_session_on_two_rings(7);
    // Those who decide about the end know of none further out.
    for node in 0..4 {
        let now = world.present(node);
        let core = world.core(node, &key);
        let now_ms = core.time.now_ms(now);
        let parsed = Key::new(&key).unwrap();
        let Some(entry) = core.tables[0].store.get(&parsed, now_ms) else { continue };
        let tombstone = Entry::ended(entry.birth, entry.version);
        core.tables[0].store.merge(&parsed, &tombstone, now_ms, Admission::Reserve).unwrap();
    }
    assert_eq!(world.holders(1, &key), 3);
    world.run_for(COMPARED);
    assert_eq!((world.holders(0, &key), world.holders(1, &key)), (0, 0));
}

/// Else it would be alive again until its former deadline.
#[test]
fn what_expires_inside_is_not_left_further_out() {
    let (mut world, key) = World::with_a_session_on_two_rings(8);
    world.run_for(COMPARED);
    let idle = Duration::from_secs(5);
    world.acknowledged(0, &key, live_for(idle));
    world.scan_for(idle + EXPIRED_GOES);
    for node in 0..4 {
        assert_eq!(world.fails(node, &key, Operation::Get), Failure::Absent);
    }
}

#[test]
fn what_a_use_overtakes_on_its_way_outward_is_not_left_there() {
    let mut overtaken = 0;
    for seed in 0..24 {
        let mut world = World::with_rings(4, seed, &[5]);
        let key = sparse(KEY);
        world.acknowledged(0, &key, start(bytes("one")));
        world.run_until_seen("it is about to go", 30 * LIFE, |world| {
            world.holders(1, &key) > 0 // One has got it at least.
        });
        let user = world.homes_of(&key)[0];
        world.acknowledged(user, &key, update("two"));
        world.run_for(50 * ARRIVED);
        if world.total("moves_overtaken") == 0 {
            continue; // It was faster, and what was changed goes after it.
        }
        overtaken += 1;
        // Further out it is known that it lies inside, if not yet that nothing is lacking there.
        for node in 0..4 {
            let copy = world.copy_on(1, node, &key);
            assert!(copy.is_none_or(|copy| copy.ring() == 0), "seed {seed}, node {node}");
        }
        assert_eq!((world.holders(0, &key), world.value(3, &key)), (3, bytes("two")));
    }
    assert!(overtaken > 0, "none was overtaken");
}

/// What it holds may have cooled while it was away, and the markers are still to come.
#[test]
fn a_primary_that_is_not_in_sync_calls_nothing_in() {
    let (mut world, key) = World::with_a_session_on_two_rings(11);
    let first = world.homes_of(&key)[0];
    let slot = Key::new(&key).unwrap().slot().index();
    // It waits for somebody who never answers.
    let source = NodeId::from_bits(99);
    world.core(first, &key).tables[0].slots[usize::from(slot)].sources.insert(source);
    world.run_for(COMPARED);
    assert_eq!((world.total("ring_overlaps_found"), world.holders(1, &key)), (0, 3));
    world.core(first, &key).tables[0].slots[usize::from(slot)].sources.clear();
    world.run_for(COMPARED);
    assert!(world.total("ring_overlaps_found") > 0);
    world.until_it_is_on(0, &key);
}

#[test]
fn what_has_cooled_since_it_was_doubted_stays_where_it_is() {
    let mut world = World::with_rings(4, 10, &[5]);
    let key = sparse(KEY);
    world.acknowledged(0, &key, start(bytes("one")));
    world.until_it_is_on(1, &key);
    let home = world.homes_of(&key)[0];
    world.core(home, &key).doubt(0, &Key::new(&key).unwrap());
    world.run_for(Duration::from_secs(1));
    assert_eq!((world.holders(0, &key), world.holders(1, &key)), (0, 3));
    assert_eq!(world.total("copies_doubted"), 0);
}

#[test]
fn a_comparison_of_rings_that_nobody_would_ask_for_is_answered() {
    let (mut world, key) = World::with_a_session_on_two_rings(9);
    let home = world.homes_of(&key)[0];
    let now = world.present(home);
    let parsed = Key::new(&key).unwrap();
    let core = world.core(home, &key);
    let mut ask = |table: &str, keys: Vec<Key>| {
        core.tell_overlap(now, &OverlapRequest { table: table.to_owned(), keys })
    };
    assert!(matches!(ask("none", vec![parsed.clone()]), Message::Rejected(_)));
    // Of other cores' keys it knows nothing, and more than a question may have it does not look for.
    let is_others = |index: &u32| {
        let key = Key::new(format!("{KEY}-{index}")).unwrap();
        key.slot().index() % 17 != parsed.slot().index() % 17
    };
    let others = (0..).filter(is_others).take(OverlapRequest::KEYS_MAX - 1);
    let mut keys: Vec<Key> =
        others.map(|index| Key::new(format!("{KEY}-{index}")).unwrap()).collect();
    keys.push(parsed.clone());
    keys.push(parsed.clone());
    let Message::Overlap(Overlap { held, .. }) = ask("sessions@1", keys) else { panic!() };
    assert!(held.len() <= 1);
    let Message::Overlap(Overlap { held, .. }) = ask("sessions@1", Vec::new()) else { panic!() };
    assert_eq!(held, []);
}
