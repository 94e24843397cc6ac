//! One table's entries against a rebuild of everything beside them.

use std::collections::BTreeMap;
use std::time::Duration;

use annulus_proto::{Attributes, Hlc, Value, Version};
use annulus_shm::{Admission, EXPIRY_LATENESS_MS, HeapRegion, TableOptions, TableStats};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::core::ValueMerge;

const ORDINARY: Admission = Admission::Ordinary;
const NODE: NodeId = NodeId::from_bits(7);
const OTHER_NODE: NodeId = NodeId::from_bits(8);
const CAP_MS: u64 = 1_000_000;
const START_MS: u64 = 5_000_000;

fn options(segment_bytes: u64, max_value: u32) -> TableOptions {
    TableOptions {
        segment_bytes,
        record_size: 256,
        max_value: max_value + RECORD_OVERHEAD_BYTES,
        ..TableOptions::new(1, 2)
    }
}

fn policy(max_value: u32) -> TablePolicy {
    let lifetime_max = Duration::from_millis(CAP_MS);
    TablePolicy { max_value, lifetime_max, ..TablePolicy::default() }
}

fn store_of(segment_bytes: u64, max_value: u32) -> Store {
    let options = options(segment_bytes, max_value);
    let region = HeapRegion::new(segment_bytes as usize);
    let writer = Writer::create(region.handle(), &options).unwrap();
    read(Store::new(policy(max_value), NODE, writer, None))
}

fn read(mut store: Store) -> Store {
    store.read_on(usize::MAX);
    assert!(store.is_read());
    store
}

fn store() -> Store {
    store_of(1 << 20, 4 << 10)
}

fn key(number: impl std::fmt::Display) -> Key {
    Key::new(format!("{{tag}}key {number}")).unwrap()
}

fn version(ms: u64, node: u64) -> Version {
    Version::new(Hlc::from_ms(ms), NodeId::from_bits(node))
}

fn session(birth_ms: u64, value: &[u8], idle: u64, expire_at: u64) -> Entry {
    let value = Value::Bytes(value.to_vec());
    let birth = version(birth_ms, 1);
    Entry::start(birth, value, (idle, expire_at), Attributes::default(), birth_ms)
}

fn slot() -> Slot {
    key(0).slot()
}

/// The sketches and counts of all slots, from what lies in the segment and nothing else.
fn from_segment(store: &mut Store) -> (Outline, BTreeMap<u16, usize>) {
    let kept = std::mem::replace(&mut store.outline, Outline::new());
    store.unread = Unread::all();
    store.read_on(usize::MAX);
    let rebuilt = std::mem::replace(&mut store.outline, kept);
    let mut counts = BTreeMap::new();
    let mut cursor = 0;
    loop {
        cursor = store.writer.scan(cursor, 4_096, &mut |item| {
            *counts.entry(item.partition).or_default() += 1;
        });
        if cursor == 0 {
            return (rebuilt, counts);
        }
    }
}

#[track_caller]
fn assert_consistent(store: &mut Store) {
    let (outline, counts) = from_segment(store);
    for slot in Slot::all() {
        let count = counts.get(&slot.index()).copied().unwrap_or(0);
        let sketch = outline.of_slot(slot).cloned();
        assert_eq!(store.slot_sketch(slot), (count, sketch), "slot {slot}");
    }
    assert_sums(&store.outline);
}

/// Sketches of many slots are the sums of those of each.
#[track_caller]
fn assert_sums(outline: &Outline) {
    let all = Slot::all().collect::<Vec<_>>();
    let odd = all.iter().copied().filter(|slot| slot.index() % 16 != 7).collect::<Vec<_>>();
    for (slots, symbols) in [(&all, SYMBOLS), (&odd, SYMBOLS), (&all, 1), (&odd, 1)] {
        let mut sum = Sketch::new(symbols);
        slots.iter().filter_map(|slot| outline.of_slot(*slot)).for_each(|it| sum.merge(it));
        let told = outline.sketches(slots.iter().copied(), [slots.len()], symbols, 0);
        assert_eq!(told, outline.is_kept().then(|| vec![sum]));
    }
}

/// The sketch of a slot with these entries.
fn sketch_of(entries: &[(Key, Entry)]) -> Option<Sketch> {
    let mut sketch = Sketch::new(SYMBOLS);
    for (key, entry) in entries {
        sketch.change(key.word(), 0, entry.digest(key.as_bytes()));
    }
    Some(sketch)
}

#[test]
fn a_slots_sketch_says_whether_two_stores_hold_the_same() {
    let (mut one, mut other) = (store(), store());
    let a = session(START_MS, b"a", 0, 0);
    let b = session(START_MS, b"b", 60_000, 0);
    one.merge(&key("a"), &a, START_MS, ORDINARY).unwrap();
    one.merge(&key("b"), &b, START_MS, ORDINARY).unwrap();
    other.merge(&key("b"), &b, START_MS, ORDINARY).unwrap();
    assert_ne!(one.slot_sketch(slot()), other.slot_sketch(slot()));
    other.merge(&key("a"), &a, START_MS, ORDINARY).unwrap();
    assert_eq!(one.slot_sketch(slot()), other.slot_sketch(slot()));
    let end = Entry::ended(a.birth, version(START_MS + 5, 2));
    one.merge(&key("a"), &end, START_MS, ORDINARY).unwrap();
    assert_ne!(one.slot_sketch(slot()), other.slot_sketch(slot()));
}

#[test]
fn a_slots_sketch_tells_joined_values_of_one_version_apart() {
    let (mut one, mut other) = (store(), store());
    for store in [&mut one, &mut other] {
        store.policy.merge = Some(greatest());
    }
    let (a, b) = (session(START_MS, b"a", 0, 0), session(START_MS, b"b", 0, 0));
    assert_eq!(a.version, b.version);
    one.merge(&key("a"), &a, START_MS, ORDINARY).unwrap();
    other.merge(&key("a"), &b, START_MS, ORDINARY).unwrap();
    assert_ne!(one.slot_sketch(slot()), other.slot_sketch(slot()));
    assert_eq!(one.merge(&key("a"), &b, START_MS, ORDINARY), Ok(b.clone()));
    assert_eq!(other.merge(&key("a"), &a, START_MS, ORDINARY), Ok(b));
    assert_eq!(one.slot_sketch(slot()), other.slot_sketch(slot()));
    assert_consistent(&mut one);
    // What rewrites records in place joins nothing, and leaves that to others.
    let stamp = |_| Some(version(START_MS + 9, 1));
    let mut change =
        |action| one.change(key("a").as_bytes(), slot(), &action, None, START_MS + 9, stamp);
    assert_eq!(change(Action::Update { birth: None, value: b"c" }), None);
    assert!(change(Action::Touch { birth: None }).is_some());
    assert!(change(Action::End { birth: None }).is_some());
    assert_consistent(&mut one);
}

#[test]
fn a_restart_computes_the_sketches_it_had() {
    let region = HeapRegion::new(1 << 20);
    let options = options(1 << 20, 4 << 10);
    let writer = Writer::create(region.handle(), &options).unwrap();
    let mut store = read(Store::new(policy(4 << 10), NODE, writer, None));
    for number in 0..50 {
        let entry = session(START_MS + number, &[7; 700], 16_000, 0);
        store.merge(&key(number), &entry, START_MS, ORDINARY).unwrap();
        let mut touched = entry.clone();
        touched.touch(START_MS + 12_345 * number);
        store.merge(&key(number), &touched, START_MS, ORDINARY).unwrap();
    }
    let before = store.slot_sketch(slot());
    drop(store);
    let (writer, _) = Writer::open(region.handle(), &options).unwrap();
    let mut store = read(Store::new(policy(4 << 10), NODE, writer, None));
    assert_eq!(store.slot_sketch(slot()), before);
    assert_eq!(before.0, 50);
    assert_consistent(&mut store);
}

#[test]
fn without_memory_nothing_is_stored_and_who_would_have_is_remembered() {
    let region = HeapRegion::unreserved(1 << 20);
    let writer = Writer::create(region.handle(), &options(1 << 20, 4 << 10)).unwrap();
    let mut store = read(Store::new(policy(4 << 10), NODE, writer, None));
    assert!(!store.is_reserved() && !store.is_memory_wanted());
    let entry = session(START_MS, b"v", 0, 0);
    let refused = store.merge(&key(1), &entry, START_MS, Admission::Reserve);
    assert_eq!(refused, Err(Failure::TableFull { node: NODE }));
    assert!(store.is_memory_wanted());
    assert_eq!(store.get(&key(1), START_MS), None);
    assert_consistent(&mut store);
    region.handle().reserve().unwrap();
    store.use_memory();
    assert!(!store.is_memory_wanted());
    store.merge(&key(1), &entry, START_MS, Admission::Reserve).unwrap();
    assert_eq!(store.get(&key(1), START_MS), Some(entry));
    assert_consistent(&mut store);
}

#[test]
fn whose_sessions_there_are_is_known_once_all_slots_were_read() {
    let (region, options) = (HeapRegion::new(1 << 20), options(1 << 20, 4 << 10));
    let writer = Writer::create(region.handle(), &options).unwrap();
    let mut store = read(Store::new(policy(4 << 10), NODE, writer, None));
    let attributes = Attributes { replicas: 0, owner: b"ada".to_vec() };
    let value = Value::Bytes(b"v".to_vec());
    let entry = Entry::start(version(START_MS, 1), value, (0, 0), attributes, START_MS);
    store.merge(&key(1), &entry, START_MS, ORDINARY).unwrap();
    drop(store);
    let (writer, _) = Writer::open(region.handle(), &options).unwrap();
    let mut store = Store::new(policy(4 << 10), NODE, writer, None);
    while !store.is_read() {
        assert!(!store.knows_owners());
        store.read_on(1);
    }
    assert!(store.knows_owners() && store.has_exact_owners());
    let (owned, next) = store.owned_after(b"ada", None, 8, START_MS);
    assert_eq!((owned, next), (vec![(key(1), entry)], None));
    // They are known while it is all read again for its sketches.
    store.put_off_sketches();
    store.keep_sketches();
    assert!(!store.is_read() && store.knows_owners());
}

#[test]
fn a_slots_list_is_sorted_and_carries_the_digests_that_make_up_the_slots() {
    let mut store = store();
    for number in [5, 1, 4, 2, 3] {
        store.merge(&key(number), &session(START_MS, b"x", 0, 0), START_MS, ORDINARY).unwrap();
    }
    store
        .merge(&Key::new("elsewhere").unwrap(), &session(START_MS, b"x", 0, 0), START_MS, ORDINARY)
        .unwrap();
    let list = store.slot_list(slot(), START_MS);
    let keys: Vec<Key> = list.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(keys, (1..=5).map(key).collect::<Vec<_>>());
    let mut together = Sketch::new(SYMBOLS);
    for (key, digest) in list {
        together.change(key.word(), 0, digest);
    }
    assert_eq!(store.slot_sketch(slot()), (5, Some(together)));
}

#[test]
fn nothing_of_a_birth_is_accepted_from_its_last_day_on() {
    let mut store = store();
    let entry = session(START_MS, b"x", 0, 0);
    let die_by = START_MS + CAP_MS;
    assert!(refused(store.merge(&key(1), &entry, die_by, ORDINARY)));
    let end = Entry::ended(entry.birth, version(die_by, 3));
    assert!(refused(store.merge(&key(1), &end, die_by, ORDINARY)));
    assert_eq!(store.stats().entries, 0);
    // One millisecond earlier it counts, and is no more to be seen one later.
    assert_eq!(store.merge(&key(1), &entry, die_by - 1, ORDINARY), Ok(entry.clone()));
    assert_eq!(store.get(&key(1), die_by - 1), Some(entry.clone()));
    assert_eq!(store.get(&key(1), die_by), None);
    assert_eq!(store.slot_list(slot(), die_by), []);
    // A younger birth takes its place, and the sketch forgets what lay there.
    let younger = session(die_by, b"y", 0, 0);
    assert_eq!(store.merge(&key(1), &younger, die_by, ORDINARY), Ok(younger.clone()));
    assert_eq!(store.slot_sketch(slot()), (1, sketch_of(&[(key(1), younger)])));
    assert_consistent(&mut store);
}

#[test]
fn a_tombstone_outlives_every_write_of_its_birth_however_the_two_arrive() {
    let entry = session(START_MS, b"x", 60_000, 0);
    let mut late = entry.clone();
    late.write_value(version(START_MS + 900, 2), Value::Bytes(b"late".to_vec()));
    let end = Entry::ended(entry.birth, version(START_MS + 5, 3));
    for order in [[&entry, &end, &late], [&late, &end, &entry], [&end, &late, &entry]] {
        let mut store = store();
        for offered in order {
            store.merge(&key(1), offered, START_MS, ORDINARY).unwrap();
        }
        assert!(store.get(&key(1), START_MS).unwrap().is_ended());
        // Expiry by idle time does not reach it, and scans leave it until nothing could revive it.
        let die_by = START_MS + CAP_MS;
        store.scan(die_by - 1 + EXPIRED_KEPT_MS, usize::MAX, 0);
        assert_eq!(store.stats().entries, 1);
        store.scan(die_by + EXPIRED_KEPT_MS + EXPIRY_LATENESS_MS, usize::MAX, 0);
        assert_eq!(store.stats().entries, 0);
        assert_consistent(&mut store);
    }
}

#[test]
fn what_expired_is_told_from_what_never_was_for_a_minute() {
    let mut store = store();
    let entry = session(START_MS, b"x", 1_000, 0);
    store.merge(&key(1), &entry, START_MS, ORDINARY).unwrap();
    let expired = START_MS + 1_000;
    assert!(store.get(&key(1), expired).unwrap().is_expired(expired));
    let mut dropped = |now_ms| store.scan(now_ms + EXPIRED_KEPT_MS, 10, 0).dropped;
    assert_eq!(dropped(expired - 1), 0);
    assert_eq!(dropped(expired + EXPIRY_LATENESS_MS), 1);
    assert_eq!(dropped(expired + 2 * EXPIRY_LATENESS_MS), 0);
    assert_eq!(store.slot_sketch(slot()), (0, None));
}

#[test]
fn keys_are_found_by_their_words() {
    let mut store = store();
    for number in 0..50 {
        store.merge(&key(number), &session(START_MS, b"x", 0, 0), START_MS, ORDINARY).unwrap();
    }
    let mut wanted: Vec<(u64, Key)> = (40..60).map(key).map(|key| (key.word(), key)).collect();
    wanted.sort_unstable();
    let words: Vec<u64> = wanted.iter().map(|(word, _)| *word).collect();
    wanted.retain(|(_, key)| store.get(key, START_MS).is_some());
    assert_eq!(wanted.len(), 10);
    assert_eq!(store.keys_of_words(slot(), &words), wanted);
}

/// What a store holds in all slots, as others are told of it.
fn told(store: &Store, cut_ms: u64) -> Sketch {
    let count = Slot::all().count();
    store.sketches(Slot::all(), [count], SYMBOLS, cut_ms).unwrap().pop().unwrap()
}

#[test]
fn what_is_in_flight_is_no_difference_once_it_is_left_out() {
    let [mut ahead, mut behind] = [store(), store()];
    let now_ms = START_MS + 60_000;
    let cut_ms = now_ms - IN_FLIGHT_MS;
    for number in 0..20 {
        let entry = session(START_MS, b"x", 600_000, 0);
        for store in [&mut ahead, &mut behind] {
            store.merge(&key(number), &entry, START_MS, ORDINARY).unwrap();
        }
    }
    let before = told(&ahead, 0);
    // Begun, written, touched, ended and evicted: of all that the other has not heard.
    ahead.merge(&key("new"), &session(now_ms - 5, b"n", 0, 0), now_ms, ORDINARY).unwrap();
    let mut written = ahead.get(&key(1), now_ms).unwrap();
    written.write_value(version(now_ms - 4, 1), Value::Bytes(b"y".to_vec()));
    ahead.merge(&key(1), &written, now_ms, ORDINARY).unwrap();
    let mut touched = ahead.get(&key(2), now_ms).unwrap();
    touched.touch(now_ms - 3);
    ahead.merge(&key(2), &touched, now_ms, ORDINARY).unwrap();
    let end = Entry::ended(version(START_MS, 1), version(now_ms - 2, 1));
    ahead.merge(&key(3), &end, now_ms, ORDINARY).unwrap();
    ahead.drop_entry(&key(4), now_ms);
    let stamp = |_| Some(version(now_ms - 1, 1));
    let update = Action::Update { birth: None, value: b"z" };
    let ended = Action::End { birth: None };
    for (number, action) in [(1, &update), (2, &ended)] {
        let key = key(number);
        let changed = ahead.change(key.as_bytes(), slot(), action, None, now_ms, stamp);
        assert!(changed.is_some(), "{number}");
    }
    assert_ne!(told(&ahead, 0), before);
    assert_eq!(told(&behind, 0), before);
    assert_eq!(told(&ahead, cut_ms), before);
    assert_eq!(told(&behind, cut_ms), before);
    // Later it is not in flight any more.
    assert_eq!(told(&ahead, now_ms), told(&ahead, 0));
}

#[test]
fn what_changed_before_sketches_were_put_off_is_not_left_out_of_those_made_anew() {
    let mut store = store();
    let first = session(START_MS, b"first", 0, 0);
    store.merge(&key(1), &first, START_MS, ORDINARY).unwrap();
    store.put_off_sketches();
    let second = session(START_MS + 1, b"second", 0, 0);
    store.merge(&key(1), &second, START_MS, ORDINARY).unwrap();
    assert!(!store.is_comparable());
    store.keep_sketches();
    assert!(!store.is_comparable(), "nothing was read yet");
    store.read_on(usize::MAX);
    assert!(store.is_comparable());
    let all = usize::from(SLOT_COUNT);
    let made = store.sketches(Slot::all(), [all], SYMBOLS, START_MS - 1).unwrap().pop();
    assert_eq!(made, sketch_of(&[(key(1), second)]));
}

#[test]
fn what_is_dropped_at_its_time_by_one_node_before_the_other_is_no_difference() {
    let [mut early, mut late] = [store(), store()];
    for number in 0..20 {
        let entry = session(START_MS, b"x", 1_000 + number, 0);
        for store in [&mut early, &mut late] {
            store.merge(&key(number), &entry, START_MS, ORDINARY).unwrap();
        }
    }
    // Entries are dropped some time after they expired, and not everywhere at the same.
    let now_ms = START_MS + 1_010 + EXPIRED_KEPT_MS + EXPIRY_LATENESS_MS;
    early.scan(now_ms, usize::MAX, 0);
    assert!(early.stats().entries < 20);
    assert_ne!(told(&early, 0), told(&late, 0));
    let cut_ms = now_ms - IN_FLIGHT_MS;
    assert_eq!(told(&early, cut_ms), told(&late, cut_ms));
    late.scan(now_ms + 700, usize::MAX, 0);
    assert_eq!(told(&early, cut_ms), told(&late, cut_ms));
}

#[test]
fn parts_of_neighbours_add_up_however_they_are_cut() {
    // Three runs of sixteen, and their states now and at the cut; changes after it are left out.
    const KEYS: u64 = 3;
    let slots: Vec<Slot> = (0..48).filter_map(Slot::new).collect();
    let mut rng = StdRng::seed_from_u64(7);
    for round in 0..40 {
        let mut outline = Outline::new();
        let mut states = BTreeMap::<u64, u64>::new();
        let mut at_cut = states.clone();
        for number in 0..300 {
            let slot = slots[rng.random_range(0..slots.len())];
            let word = slot.word(&rng.random_range(0..KEYS).to_le_bytes());
            let after = rng.random_range(0..3);
            let before = states.insert(word, after).unwrap_or(0);
            let made_ms = START_MS + u64::from(number >= 280);
            outline.change(Change { word, before, after, made_ms }, START_MS);
            if number < 280 {
                at_cut.clone_from(&states);
            }
        }
        let cuts = 1 + round % 5;
        let mut places: Vec<usize> = (0..cuts).map(|_| rng.random_range(0..=48)).collect();
        places.sort_unstable();
        let sizes: Vec<usize> =
            [0].iter().chain(&places).zip(places.iter().chain(&[48])).map(|(a, b)| b - a).collect();
        for (symbols, cut_ms, held) in
            [(SYMBOLS, 0, &states), (1, 0, &states), (SYMBOLS, START_MS, &at_cut)]
        {
            let told = outline.sketches(slots.iter().copied(), sizes.clone(), symbols, cut_ms);
            let mut left = slots.iter();
            let wanted = sizes.iter().map(|size| {
                let part: Vec<&Slot> = left.by_ref().take(*size).collect();
                let mut sketch = Sketch::new(symbols);
                for (word, state) in held {
                    let slot = Slot::of_word(*word).unwrap();
                    if part.contains(&&slot) {
                        sketch.change(*word, 0, *state);
                    }
                }
                sketch
            });
            assert_eq!(told, Some(wanted.collect()), "round {round}, parts of {sizes:?}");
        }
    }
}

#[test]
fn changes_are_remembered_no_longer_than_needed_and_not_without_end() {
    let mut outline = Outline::new();
    let change = |number: u64, made_ms| Change { word: number, before: 0, after: 1, made_ms };
    for number in 0..300_000 {
        outline.change(change(number, START_MS + 5), START_MS);
    }
    assert_eq!(outline.remembered(), 1 << 18);
    // Long ago, or by a clock that is far ahead: nobody leaves them out.
    outline.change(change(1, START_MS - 3_600_000), START_MS + 3_600_000);
    outline.change(change(2, START_MS + 36_000_000), START_MS + 3_600_000);
    assert_eq!(outline.remembered(), 0);
}

#[test]
fn sizes_that_do_not_add_up_get_no_sketches() {
    let store = store();
    let slots = || Slot::all().take(10);
    let sketches = |sizes: &[usize]| store.sketches(slots(), sizes.iter().copied(), 1, 0);
    assert_eq!(sketches(&[4, 6]).map(|all| all.len()), Some(2));
    assert_eq!(sketches(&[10, 0]).map(|all| all.len()), Some(2));
    for sizes in [&[][..], &[9], &[11], &[usize::MAX], &[5, 6]] {
        assert!(sketches(sizes).is_none(), "{sizes:?}");
    }
}

/// Where readers of shared memory find an entry.
fn place_of(store: &Store, number: u64) -> Used {
    store.place_of(&key(number))
}

impl Store {
    /// What a reader would note of an entry that it used.
    pub(in crate::core) fn place_of(&self, key: &Key) -> Used {
        let reader = annulus_shm::Reader::attach(self.writer.region()).unwrap();
        let lookup = reader.get(key.as_bytes(), 0, &mut Vec::new());
        let annulus_shm::Lookup::Hit(hit) = lookup else { panic!("{lookup:?}") };
        hit.used
    }
}

/// All keys, the coolest first.
fn by_warmth(store: &mut Store, now_ms: u64) -> Vec<Key> {
    let mut sample = store.sample(100, now_ms);
    sample.sort_unstable_by_key(|(_, warmth)| *warmth);
    sample.into_iter().map(|(key, _)| key).collect()
}

#[test]
fn use_out_of_shared_memory_warms_an_entry_and_is_this_hosts_own_affair() {
    let mut store = store();
    for number in 0..3 {
        let made_ms = START_MS + number;
        store.merge(&key(number), &session(made_ms, b"x", 0, 0), made_ms, ORDINARY).unwrap();
    }
    store.set_freshness(slot(), u64::MAX);
    let before = store.slot_sketch(slot());
    assert_eq!(by_warmth(&mut store, START_MS + 10), [key(0), key(1), key(2)]);
    let used = place_of(&store, 0);
    let later = START_MS + 600_000;
    store.note_uses(used, 1, later);
    assert_eq!(by_warmth(&mut store, later), [key(1), key(2), key(0)]);
    // Used more often, though not as lately.
    store.note_uses(place_of(&store, 1), 100, later);
    store.note_uses(place_of(&store, 2), 1, later + 600_000);
    assert_eq!(by_warmth(&mut store, later + 600_000), [key(0), key(2), key(1)]);
    // Gone by then: nobody else is credited.
    store.note_uses(Used::new(used.record(), !used.tag()), 1_000, later);
    assert_eq!(by_warmth(&mut store, later + 600_000), [key(0), key(2), key(1)]);
    // Its heat is forgotten in the end.
    store.note_uses(used, 1, later + 24 * 600_000);
    assert_eq!(by_warmth(&mut store, later + 24 * 600_000)[2], key(0));
    assert_eq!(store.slot_sketch(slot()), before);
    assert_consistent(&mut store);
}

/// A session of a store, and the copy of it that lies on the next ring.
fn moved_outward(store: &mut Store) -> (Entry, Entry) {
    let entry = session(START_MS, b"x", 600_000, 0);
    store.merge(&key(0), &entry, START_MS, ORDINARY).unwrap();
    let mut copy = entry.clone();
    copy.move_to(1, version(START_MS + 10, 7), |copy| store.digest(&key(0), copy));
    (entry, copy)
}

#[test]
fn what_was_moved_leaves_a_marker_that_makes_room_and_is_compared_with_nobody() {
    let mut given_up = store();
    let empty = given_up.slot_sketch(slot()).1;
    let (_, copy) = moved_outward(&mut given_up);
    assert_ne!(given_up.slot_sketch(slot()).1, empty);
    let marker = given_up.give_up(&key(0), &copy, START_MS).unwrap();
    let mut told = store();
    moved_outward(&mut told);
    assert_eq!(told.merge(&key(0), &marker, START_MS, ORDINARY).unwrap(), marker);
    for store in [&mut given_up, &mut told] {
        assert_eq!(store.get(&key(0), START_MS), Some(marker.clone()));
        assert_eq!(store.stats().near_entries, 1);
        assert!(store.slot_list(slot(), START_MS).is_empty());
        assert_eq!(store.level(&key(0), START_MS), None);
        assert_consistent(store);
    }
    let mut nothing = store();
    nothing.merge(&key(0), &marker, START_MS, ORDINARY).unwrap();
    assert_eq!(nothing.get(&key(0), START_MS), None, "a marker of nothing");
}

#[test]
fn nothing_is_given_up_that_is_not_in_what_was_moved() {
    let changes: [&dyn Fn(&mut Entry); 3] = [
        &|entry| entry.write_value(version(START_MS + 5, 8), Value::Bytes(b"y".to_vec())),
        &|entry| entry.write_lease(version(START_MS + 5, 8), 500_000, 0),
        // Less than digests see.
        &|entry| assert!(entry.touch(START_MS + 5)),
    ];
    for change in changes {
        let mut store = store();
        let (mut entry, copy) = moved_outward(&mut store);
        change(&mut entry);
        store.merge(&key(0), &entry, START_MS, ORDINARY).unwrap();
        assert_eq!(store.give_up(&key(0), &copy, START_MS), None);
        assert_eq!(store.get(&key(0), START_MS), Some(entry.clone()));
        // It knows where the session is then, and keeps what is not there.
        let stray = store.merge(&key(0), &copy.marker(), START_MS, ORDINARY).unwrap();
        assert!(!stray.is_marker() && stray.ring() == 1);
        assert_eq!(stray.body.unwrap().base, entry.body.unwrap().base);
        assert_consistent(&mut store);
    }
}

#[test]
fn what_is_brought_in_was_used_then_wherever_it_arrives() {
    let now_ms = START_MS + 500_000;
    let mut told = store();
    let (_, copy) = moved_outward(&mut told);
    let marker = told.give_up(&key(0), &copy, START_MS).unwrap();
    let mut back = copy.clone();
    back.move_to(0, version(now_ms, 7), |back| told.digest(&key(0), back));
    let mut fresh = store();
    for store in [&mut told, &mut fresh] {
        store.merge(&key(0), &back, now_ms, ORDINARY).unwrap();
        assert!(store.level(&key(0), now_ms).unwrap() >= 0);
        // It came in after that.
        assert!(!store.merge(&key(0), &marker, now_ms, ORDINARY).unwrap().is_marker());
    }
}

#[test]
fn what_arrives_late_was_used_when_it_was_and_not_when_it_arrives() {
    let mut store = store();
    for number in 0..2 {
        let entry = session(START_MS, b"x", 0, 0);
        store.merge(&key(number), &entry, START_MS, ORDINARY).unwrap();
    }
    let now_ms = START_MS + 600_000;
    let mut late = store.get(&key(0), now_ms).unwrap();
    late.touch(START_MS + 1);
    store.merge(&key(0), &late, now_ms, ORDINARY).unwrap();
    // No use at all.
    let mut changed = store.get(&key(1), now_ms).unwrap();
    changed.write_value(version(START_MS + 2, 7), Value::Bytes(b"y".to_vec()));
    store.merge(&key(1), &changed, now_ms, ORDINARY).unwrap();
    store.merge(&key(2), &session(now_ms - 1, b"x", 0, 0), now_ms, ORDINARY).unwrap();
    // Two uses a half-life ago are as warm as one now, which was touched later.
    assert_eq!(by_warmth(&mut store, now_ms), [key(1), key(0), key(2)]);
}

#[test]
fn reads_through_the_node_touches_and_writes_warm_an_entry_as_well() {
    let uses: [fn(&mut Store, u64); 4] = [
        |store, now_ms| store.note_read(&key(0), now_ms),
        |store, now_ms| {
            let mut entry = store.get(&key(0), now_ms).unwrap();
            entry.touch(now_ms);
            store.merge(&key(0), &entry, now_ms, ORDINARY).unwrap();
        },
        |store, now_ms| {
            let mut entry = store.get(&key(0), now_ms).unwrap();
            entry.write_value(version(now_ms, 7), Value::Bytes(b"y".to_vec()));
            entry.touch(now_ms);
            store.merge(&key(0), &entry, now_ms, ORDINARY).unwrap();
        },
        |store, now_ms| {
            let action = Action::Touch { birth: None };
            let done = store.change(key(0).as_bytes(), slot(), &action, None, now_ms, |_| None);
            assert!(done.is_some());
        },
    ];
    for (which, used) in uses.into_iter().enumerate() {
        let mut store = store();
        for number in 0..3 {
            let entry = session(START_MS, b"x", 0, 0);
            store.merge(&key(number), &entry, START_MS, ORDINARY).unwrap();
        }
        store.set_freshness(slot(), u64::MAX);
        store.note_uses(place_of(&store, 1), 2, START_MS);
        store.note_uses(place_of(&store, 2), 40, START_MS);
        for more in 1..=10 {
            used(&mut store, START_MS + more);
        }
        let now_ms = START_MS + 600_000;
        // One that comes now is cooler than what was used more than twice a half-life ago.
        store.merge(&key(3), &session(now_ms, b"x", 0, 0), now_ms, ORDINARY).unwrap();
        let order = by_warmth(&mut store, now_ms);
        assert_eq!(order, [key(3), key(1), key(0), key(2)], "{which}");
        // Whoever has its key later begins anew.
        store.merge(&key(2), &session(now_ms, b"x", 0, 0), now_ms, ORDINARY).unwrap();
        let order = by_warmth(&mut store, now_ms);
        assert_eq!(order[2..], [key(1), key(0)], "{which}");
        assert_consistent(&mut store);
    }
}

#[test]
fn those_that_are_used_most_are_noticed_among_many() {
    let mut store = store_of(16 << 20, 4 << 10);
    for number in 0..20_000 {
        let entry = session(START_MS, b"x", 0, 0);
        store.merge(&key(number), &entry, START_MS, ORDINARY).unwrap();
    }
    store.set_freshness(slot(), u64::MAX);
    // Reads through the node, touches, and reads out of shared memory, with many others in between.
    for round in 0..500 {
        store.note_read(&key(19_000), START_MS + round);
        store.note_read(&key(19_000), START_MS + round);
        let action = Action::Touch { birth: None };
        store.change(key(7).as_bytes(), slot(), &action, None, START_MS + round, |_| None).unwrap();
        for other in 0..20 {
            store.note_read(&key(8 + 20 * round + other), START_MS + round);
        }
    }
    store.note_uses(place_of(&store, 12_345), 300, START_MS + 500);
    let now_ms = START_MS + 500;
    let words = [19_000, 7, 12_345].map(|number| key(number).word());
    let hottest = store.hottest(3, now_ms);
    assert_eq!(hottest.iter().map(|it| it.word).collect::<Vec<_>>(), words);
    let heats = hottest.iter().map(|it| it.heat).zip([1_000, 500, 300]);
    heats.for_each(|(heat, uses)| assert!(heat.abs_diff(uses) < uses / 4, "{hottest:?}"));
    assert_eq!((hottest[0].touched, hottest[1].touched), (START_MS, START_MS + 499));
    // Not what has ended, and what cools falls behind.
    let end = Entry::ended(hottest[0].birth, version(now_ms, 7));
    store.merge(&key(19_000), &end, now_ms, ORDINARY).unwrap();
    store.note_uses(place_of(&store, 12_345), 100, now_ms + 600_000);
    let words: Vec<u64> = store.hottest(2, now_ms + 600_000).iter().map(|it| it.word).collect();
    assert_eq!(words, [key(7).word(), key(12_345).word()]);
}

#[test]
fn all_of_a_small_table_are_noticed_though_none_was_used_since() {
    let mut store = store();
    for number in 0..40 {
        let made_ms = START_MS + number;
        store.merge(&key(number), &session(made_ms, b"x", 0, 0), made_ms, ORDINARY).unwrap();
    }
    store.merge(&key("over"), &session(START_MS, b"x", 5, 0), START_MS, ORDINARY).unwrap();
    let found = |store: &mut Store| store.hottest(64, START_MS + 40).len();
    assert!((0..4).any(|_| found(&mut store) == 40));
    assert_eq!(store.hottest(10, START_MS + 40).len(), 10);
    assert_eq!(store.hottest(0, START_MS + 40), []);
}

#[test]
fn a_full_table_drops_the_expired_first_and_then_refuses_and_keeps_what_it_has() {
    let mut store = store_of(256 << 10, 4 << 10);
    let value = [7; 4 << 10];
    let full = Err(Failure::TableFull { node: NODE });
    let fill = |store: &mut Store, idle: u64, from: u64| {
        let mut number = from;
        loop {
            let entry = session(START_MS, &value, idle, 0);
            match store.merge(&key(number), &entry, START_MS, ORDINARY) {
                Ok(_) => number += 1,
                refused => {
                    assert_eq!(refused, full);
                    return number;
                }
            }
        }
    };
    let expiring = fill(&mut store, 1_000, 0);
    assert!(expiring > 5);
    assert_consistent(&mut store);
    // Not yet expired: refused. Expired, though not for a minute: they make room.
    let fresh = session(START_MS + 2_000, &value, 0, 0);
    assert_eq!(store.merge(&key("new"), &fresh, START_MS + 999, ORDINARY), full);
    assert!(
        store.merge(&key("new"), &fresh, START_MS + 1_000 + EXPIRY_LATENESS_MS, ORDINARY).is_ok()
    );
    assert_eq!(store.stats().entries, 1);
    assert_consistent(&mut store);
    let end = fill(&mut store, 0, 1_000);
    for number in 1_000..end {
        let entry = store.get(&key(number), START_MS + 2_000).unwrap();
        assert_eq!(entry.body.unwrap().base.bytes, value);
    }
    assert_consistent(&mut store);
}

#[test]
fn near_copies_that_take_several_records_have_a_quarter_of_all_at_most() {
    let mut store = store_of(256 << 10, 4 << 10);
    let quarter = store.stats().capacity_records / 4;
    let large = session(START_MS, &[7; 1_000], 0, 0);
    let mut kept = 0;
    for number in 0..quarter {
        let used = Key::new(format!("used {number}")).unwrap();
        kept += usize::from(store.keep_near(&used, &large, START_MS));
        let stats = store.stats();
        let each = stats.near_records / stats.near_entries;
        assert!(each > 3 && stats.near_records < quarter + each, "{stats:?}");
    }
    assert!(kept > quarter / 8, "{kept}");
}

#[test]
fn no_near_copy_goes_for_another_where_sessions_stand_in_the_reserve() {
    let mut store = store_of(256 << 10, 4 << 10);
    let small = session(START_MS, b"x", 0, 0);
    let near = |number: u32| Key::new(format!("used {number}")).unwrap();
    for number in 0..5 {
        assert!(store.keep_near(&near(number), &small, START_MS));
    }
    let mut number = 0;
    while store.stats().reserve_used < 2 {
        let is_room = store.stats().room > 0;
        let admission = if is_room { ORDINARY } else { Admission::Reserve };
        store.merge(&key(number), &small, START_MS, admission).unwrap();
        number += 1;
    }
    assert_eq!(store.stats().near_entries, 5);
    assert!(!store.keep_near(&near(5), &small, START_MS));
    assert_eq!(store.stats().near_entries, 5);
}

#[test]
fn as_many_sessions_are_too_many_as_take_the_records_that_are_short() {
    // Each takes ten. One part in 16 of 1,064 records is to be free, and what is taken of the reserve.
    let mut stats = TableStats {
        entries: 100,
        blocks: 900,
        capacity_records: 1_120,
        reserve_records: 16,
        room: 20,
        ..store().stats()
    };
    assert_eq!(beyond(&stats, 16), 5);
    (stats.room, stats.reserve_used) = (0, 8);
    assert_eq!(beyond(&stats, 16), 8);
    (stats.room, stats.reserve_used) = (67, 0);
    assert_eq!(beyond(&stats, 16), 0);
    // Near copies make room.
    (stats.room, stats.near_entries, stats.near_records) = (0, 10, 60);
    assert_eq!(beyond(&stats, 16), 1);
}

#[test]
fn markers_take_no_room_from_near_copies() {
    let mut store = store_of(256 << 10, 4 << 10);
    let mut marker = Vec::new();
    record::write(&session(START_MS, b"moved", 0, 0).marker(), &mut marker);
    let quarter = store.stats().capacity_records / 4;
    for number in 0..quarter + 10 {
        let (key, slot) = (key(number), slot().index());
        store.writer.put_as(Admission::Near, key.as_bytes(), slot, &marker, (0, 0)).unwrap();
    }
    assert!(store.stats().near_records > quarter);
    for number in 1..=20 {
        let used = Key::new(format!("used {number}")).unwrap();
        assert!(store.keep_near(&used, &session(START_MS, b"near", 0, 0), START_MS));
        assert_eq!(store.near_copies(), number);
    }
}

/// Symptom: two homes with the same entries disagreed about a slot's digest for ever, and compared
/// the slot again and again. Cause: a table that was full dropped the expired entry under the very
/// key that was being written, and its digest was taken out twice. Fix: `Store::write` leaves that
/// one entry to the write.
#[test]
fn a_write_over_an_expired_entry_in_a_full_table_counts_it_out_once() {
    // First `old` alone has expired, which makes no room; then everything has.
    for (now_ms, fits) in [(START_MS + 1_300, false), (START_MS + 6_100, true)] {
        let mut store = store_of(256 << 10, 4 << 10);
        let old = session(START_MS, b"small", 1_000, 0);
        store.merge(&key("old"), &old, START_MS, ORDINARY).unwrap();
        let value = [7; 4 << 10];
        let mut number = 0;
        while store
            .merge(&key(number), &session(START_MS, &value, 5_000, 0), START_MS, Admission::Reserve)
            .is_ok()
        {
            number += 1;
        }
        // What is left then is too little for one more of these, and filled with smaller ones.
        let small = session(START_MS, &[7; 100], 5_000, 0);
        while store.merge(&key(number), &small, START_MS, Admission::Reserve).is_ok() {
            number += 1;
        }
        let new = session(now_ms, &value, 0, 0);
        assert_eq!(store.merge(&key("old"), &new, now_ms, ORDINARY).is_ok(), fits);
        let left = if fits { new } else { old };
        assert_eq!(store.get(&key("old"), now_ms), Some(left));
        assert_consistent(&mut store);
    }
}

#[test]
fn a_value_above_the_tables_limit_is_refused_and_what_was_stored_stays() {
    let mut store = store_of(1 << 20, 1_000);
    let small = session(START_MS, &[1; 1_000], 0, 0);
    store.merge(&key(1), &small, START_MS, ORDINARY).unwrap();
    let large = session(START_MS + 1, &[1; 3_000], 0, 0);
    let refused = store.merge(&key(1), &large, START_MS, ORDINARY);
    assert!(matches!(refused, Err(Failure::TooLarge { limit: 1_000, .. })), "{refused:?}");
    assert_eq!(store.get(&key(1), START_MS), Some(small));
    assert_consistent(&mut store);
}

#[test]
fn a_cursor_from_anywhere_lists_and_ends() {
    let mut store = store();
    for number in 0..20 {
        store.merge(&key(number), &session(START_MS, b"x", 0, 0), START_MS, ORDINARY).unwrap();
    }
    for cursor in [0, 1, 17, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
        let (mut at, mut steps) = (cursor, 0);
        loop {
            at = store.list(at, 1, START_MS, &mut |_, _| {});
            steps += 1;
            assert!(steps < 100_000, "from {cursor}: no end");
            if at == 0 {
                break;
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Merge {
        key: u8,
        entry: Entry,
    },
    Touch {
        key: u8,
        ms: u64,
    },
    Field {
        key: u8,
        version: Version,
        name: u8,
        value: Option<u8>,
    },
    Scan {
        expired: usize,
    },
    Pass {
        ms: u64,
    },
    /// A copy that is here besides the homes.
    Extra {
        key: u8,
        entry: Entry,
    },
    Adopt,
    SetAside,
    DropSlot,
    KeepSketches {
        kept: bool,
    },
}

fn versions() -> impl Strategy<Value = Version> + Clone {
    (0..40u64, 1..3u64).prop_map(|(step, node)| version(START_MS + step * 30_000, node))
}

fn entries() -> impl Strategy<Value = Entry> {
    let lease = (prop_oneof![Just(0), 1..200_000u64], prop_oneof![Just(0), 1..900_000u64]);
    let size = prop_oneof![0..50usize, 3_000..4_096usize];
    (versions(), versions(), size, lease, any::<bool>()).prop_map(
        |(birth, other, size, (idle, expire_in), map)| {
            let (birth, later) = (birth.min(other), birth.max(other));
            let expire_at = if expire_in == 0 { 0 } else { birth.hlc.ms() + expire_in };
            let bytes = vec![size as u8; size];
            let value = match map {
                true => Value::Map(BTreeMap::from([(b"a".to_vec(), bytes)])),
                false => Value::Bytes(bytes),
            };
            // Fixed with the birth.
            let owner = [&b""[..], b"ada", b"bob"][birth.hlc.bits() as usize / 7 % 3];
            let attributes = Attributes { replicas: 0, owner: owner.to_vec() };
            let mut entry =
                Entry::start(birth, value, (idle, expire_at), attributes, birth.hlc.ms());
            match size % 3 {
                0 => entry = Entry::ended(birth, later),
                1 => entry.write_value(later, Value::Bytes(vec![1; size])),
                _ => {}
            }
            if size % 5 == 0 {
                entry.write_pin(later, Some(if size % 2 == 0 { NODE } else { OTHER_NODE }));
            }
            entry
        },
    )
}

fn steps() -> impl Strategy<Value = Step> {
    let key = 0..40u8;
    prop_oneof![
        8 => (key.clone(), entries()).prop_map(|(key, entry)| Step::Merge { key, entry }),
        2 => (key.clone(), 0..900_000u64).prop_map(|(key, ms)| Step::Touch { key, ms }),
        2 => (key.clone(), versions(), 0..3u8, proptest::option::of(any::<u8>()))
            .prop_map(|(key, version, name, value)| Step::Field { key, version, name, value }),
        2 => prop_oneof![Just(1), Just(usize::MAX)].prop_map(|expired| Step::Scan { expired }),
        2 => (0..60_000u64).prop_map(|ms| Step::Pass { ms }),
        1 => any::<bool>().prop_map(|kept| Step::KeepSketches { kept }),
        2 => (0..40u8, entries()).prop_map(|(key, entry)| Step::Extra { key, entry }),
        1 => prop_oneof![Just(Step::Adopt), Just(Step::SetAside), Just(Step::DropSlot)],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// The table is so small that most histories fill it.
    #[test]
    fn sketches_stay_equal_to_a_rebuild_whatever_is_done(
        history in proptest::collection::vec(steps(), 1..120),
        are_joined in any::<bool>(),
    ) {
        let mut store = store_of(192 << 10, 4 << 10);
        store.policy.merge = are_joined.then(greatest);
        let mut now_ms = START_MS;
        for step in history {
            match step {
                Step::Merge { key: number, entry } => {
                    let before = store.get(&key(number), now_ms);
                    match store.merge(&key(number), &entry, now_ms, ORDINARY) {
                        Ok(stored) => {
                            prop_assert_eq!(store.get(&key(number), now_ms), Some(stored));
                        }
                        Err(failure) => {
                            let known = matches!(failure, Failure::TableFull { node: NODE } | Failure::Refused(_));
                            prop_assert!(known, "{failure:?}");
                            let after = store.get(&key(number), now_ms);
                            let expired = |entry: &Entry| entry.is_expired(now_ms);
                            let dropped = after.is_none() && before.as_ref().is_some_and(expired);
                            prop_assert!(after == before || dropped);
                        }
                    }
                }
                Step::Touch { key: number, ms } => {
                    if let Some(mut entry) = store.get(&key(number), now_ms) {
                        entry.touch(START_MS + ms);
                        store.merge(&key(number), &entry, now_ms, ORDINARY).unwrap();
                    }
                }
                Step::Field { key: number, version, name, value } => {
                    if let Some(mut entry) = store.get(&key(number), now_ms) {
                        entry.write_field(version, vec![name], value.map(|byte| vec![byte]));
                        let _ = store.merge(&key(number), &entry, now_ms, ORDINARY);
                    }
                }
                Step::Scan { expired } => {
                    let scanned = store.scan(now_ms, expired, usize::MAX);
                    prop_assert_eq!(scanned.damaged, 0);
                }
                Step::Pass { ms } => now_ms += ms,
                Step::KeepSketches { kept: false } => store.put_off_sketches(),
                Step::KeepSketches { kept: true } => {
                    store.keep_sketches();
                    store.read_on(usize::MAX);
                }
                Step::Extra { key: number, entry } => {
                    let key = key(number);
                    if let Ok(stored) = store.merge_extra(&key, &entry, now_ms) {
                        prop_assert_eq!(store.get(&key, now_ms), Some(stored));
                    }
                }
                Step::Adopt => {
                    store.adopt(slot(), now_ms);
                    prop_assert_eq!(store.watched().extras_in(slot()), 0);
                }
                Step::SetAside => store.set_aside(slot(), now_ms),
                Step::DropSlot => {
                    let meant: Vec<Key> = (0..40)
                        .map(key)
                        .filter(|key| {
                            store.get(key, now_ms).is_some_and(|it| it.pin() == Some(NODE))
                        })
                        .collect();
                    store.drop_slot(slot(), now_ms);
                    prop_assert_eq!(store.slot_len(slot()), 0);
                    for key in meant {
                        prop_assert!(store.watched().is_extra(slot(), &key));
                        prop_assert!(store.get(&key, now_ms).is_some());
                    }
                }
            }
            for key in (0..40).map(key) {
                if let Some(entry) = store.get(&key, now_ms) {
                    let watched = store.watched();
                    let is_watched = entry.is_placed() || watched.is_extra(slot(), &key);
                    prop_assert_eq!(watched.contains(slot(), &key), is_watched);
                }
            }
            prop_assert!(store.has_exact_owners());
            let (outline, counts) = from_segment(&mut store);
            let kept = store.slot_sketch(slot());
            let count = counts.get(&slot().index()).copied().unwrap_or(0);
            let sketch = outline.of_slot(slot()).filter(|_| store.outline.is_kept()).cloned();
            let of_slot = count - store.watched().extras_in(slot());
            prop_assert_eq!(kept, (of_slot, sketch));
        }
        assert_sums(&store.outline);
        store.keep_sketches();
        store.read_on(usize::MAX);
        assert_sums(&store.outline);
    }

    #[test]
    fn merging_in_any_order_ends_in_the_same_entry_and_the_same_sketch(
        entries in proptest::collection::vec(entries(), 1..6),
        seed in any::<u64>(),
    ) {
        let (mut one, mut other) = (store(), store());
        let mut shuffled = entries.clone();
        let length = shuffled.len();
        for index in 0..length {
            shuffled.swap(index, (seed as usize >> index) % length);
        }
        for entry in &entries {
            one.merge(&key(1), entry, START_MS, ORDINARY).unwrap();
        }
        for entry in shuffled.iter().chain(&entries) {
            other.merge(&key(1), entry, START_MS, ORDINARY).unwrap();
        }
        prop_assert_eq!(one.get(&key(1), START_MS), other.get(&key(1), START_MS));
        prop_assert_eq!(one.slot_sketch(slot()), other.slot_sketch(slot()));
    }
}

/// Joins values by taking the greatest one.
fn greatest() -> ValueMerge {
    ValueMerge::new("greatest", |one, other| one.max(other).to_vec()).unwrap()
}

fn refused(merged: Result<Entry, Failure>) -> bool {
    matches!(merged, Err(Failure::Refused(_)))
}

/// A table whose sessions are seen to before they are dropped.
fn store_with_overflow(max_value: u32) -> Store {
    let options = options(1 << 20, max_value);
    let region = HeapRegion::new(1 << 20);
    let writer = Writer::create(region.handle(), &options).unwrap();
    let overflow = crate::core::Overflow::Archive;
    read(Store::new(TablePolicy { overflow, ..policy(max_value) }, NODE, writer, None))
}

#[test]
fn what_is_to_be_seen_to_is_found_again_and_again_and_all_else_is_dropped() {
    let mut store = store_with_overflow(4 << 10);
    let begun = [session(1_000, b"a", 1_000, 0), session(1_000, b"b", 500_000, 0)];
    let ended = Entry::ended(version(1_000, 1), version(1_500, 1));
    let gone = session(1_000, b"gone", 1_000, 0).marker();
    for (number, entry) in begun.iter().chain([&ended]).enumerate() {
        store.merge(&key(number), entry, 1_000, Admission::Ordinary).unwrap();
    }
    store.merge(&key(3), &session(1_000, b"gone", 1_000, 0), 1_000, Admission::Ordinary).unwrap();
    let (mark, deadline) = (record::mark(0), 2_000);
    let mut marker = Vec::new();
    record::write(&gone, &mut marker);
    store.writer.put(key(3).as_bytes(), key(3).slot().index(), &marker, deadline, mark).unwrap();
    for round in 0..3 {
        let now_ms = 2_000 + EXPIRED_KEPT_MS + (1 + round) * 3 * EXPIRY_LATENESS_MS;
        store.scan(now_ms, usize::MAX >> 1, 0);
        let overdue: Vec<_> = store.take_overdue().into_iter().map(|it| it.key).collect();
        assert_eq!(overdue, [key(0)], "round {round}");
        assert!(store.get(&key(0), now_ms).is_some() && store.get(&key(1), now_ms).is_some());
        assert!(store.get(&key(3), now_ms).is_none(), "a marker");
    }
    let die_by = 1_000 + CAP_MS + EXPIRED_KEPT_MS + 2 * EXPIRY_LATENESS_MS;
    store.scan(die_by, usize::MAX >> 1, 0);
    let overdue: Vec<_> = store.take_overdue().into_iter().map(|it| it.key).collect();
    assert!(overdue.contains(&key(0)) && !overdue.contains(&key(2)), "{overdue:?}");
    assert_eq!(store.get(&key(0), die_by), None, "it is past its last day");
    assert_eq!(store.whatever_is(&key(0)).unwrap(), begun[0]);
    assert_eq!(store.last_day(begun[0].birth), 1_000 + CAP_MS);
}

#[test]
fn what_makes_room_is_kept_for_whoever_sees_to_it_a_little_at_a_time() {
    let mut store = store_with_overflow(4 << 10);
    let mut begun = 0;
    while store.take_dropped().is_empty() {
        let entry = session(1_000, &[b'x'; 3_000], 1_000, 0);
        let now_ms = if begun < 50 { 1_000 } else { 60_000 };
        let _ = store.merge(&key(begun), &entry, now_ms, Admission::Ordinary);
        begun += 1;
        assert!(begun < 10_000);
    }
    let mut dropped = 0;
    for number in 0..50 {
        let entry = session(60_000, &[b'x'; 3_000], 100_000, 0);
        store.merge(&key(10_000 + number), &entry, 60_000, Admission::Ordinary).unwrap();
        let now = store.take_dropped();
        assert!(now.len() <= overdue::DROPPED_STEP, "{}", now.len());
        assert!(now.iter().all(|(_, entry, deadline)| entry.body.is_some() && *deadline == 2_000));
        dropped += now.len();
    }
    assert!(dropped > 10, "{dropped}");
}

#[test]
fn what_is_large_finds_room_where_much_that_is_small_has_expired() {
    let mut store = store_with_overflow(32 << 10);
    let small = session(1_000, &[b'x'; 300], 1_000, 0);
    let mut begun = 0;
    while store.merge(&key(begun), &small, 1_000, Admission::Ordinary).is_ok() {
        begun += 1;
    }
    assert!(begun > 100, "{begun}");
    let large = session(60_000, &[b'x'; 30_000], 100_000, 0);
    for number in 0..5 {
        store.merge(&key(10_000 + number), &large, 60_000, Admission::Ordinary).unwrap();
        store.take_dropped();
    }
}

/// As if it were dropped when other nodes drop it, later.
#[test]
fn what_is_dropped_before_its_time_leaves_remembered_what_has_just_changed() {
    let mut store = store_with_overflow(4 << 10);
    for number in 0..3 {
        let begun = session(100_000, b"value", 1_000, 0);
        store.merge(&key(number), &begun, 100_000, Admission::Ordinary).unwrap();
    }
    let remembered = store.outline.remembered();
    assert_eq!(remembered, 3);
    store.drop_entry_as_of(&key(0), 100_000 + DROPPED_AFTER_MS, 100_000);
    assert!(store.outline.remembered() >= remembered);
}

/// Nobody is sure of it: this node is out of touch.
#[test]
fn what_seems_to_have_expired_is_looked_at_ever_more_rarely_and_dropped_no_later() {
    let mut store = store();
    store.note_gone();
    let begun = session(START_MS, b"value", 1_000, 0);
    store.merge(&key(0), &begun, START_MS, ORDINARY).unwrap();
    let deadline = START_MS + 1_000;
    let mut looked_at = Vec::new();
    let mut now_ms = START_MS;
    while store.stats().entries > 0 {
        store.scan(now_ms, 100, 0);
        looked_at.extend(store.take_expired().iter().map(|_| now_ms - deadline));
        now_ms += 150;
    }
    let dropped_after = now_ms - deadline - EXPIRED_KEPT_MS;
    assert!(dropped_after < 2 * EXPIRY_LATENESS_MS, "{dropped_after}");
    assert!((8..=13).contains(&looked_at.len()), "{looked_at:?}");
    assert!(looked_at[0] < 500 + 2 * EXPIRY_LATENESS_MS, "{looked_at:?}");
    assert!(store.has_gone(), "by its own clock");
}
