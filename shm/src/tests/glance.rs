//! The short way to look a key up against the long one: where both have an answer, it is the same.

use super::look_both_ways;
use crate::layout::{Geometry, RECORD_HEADER, RecordId, SHAPE, Shape, WAYS};
use crate::protocol::{Attempt, Glance};
use crate::region::HeapRegion;
use crate::table::Table;
use crate::words::{Mapped, Words as _};
use crate::writer::{Admission, Core};

/// Payload words of a record.
const ROOM: usize = 4;

/// Four lines, records of the least size.
fn core(max_value: u32) -> Core<Mapped> {
    let shape = Shape { segment_bytes: 1 << 20, shards: 1, record_size: 64, max_value, buckets: 4 };
    let geometry = Geometry::new(shape).expect("possible");
    let words = geometry.records + geometry.records_count() * geometry.record_words;
    let region = HeapRegion::new(words * 8);
    Core::new(Table::new(Mapped::new(region.handle()), geometry, 11))
}

fn put(core: &mut Core<Mapped>, key: &[u8], value: &[u8]) {
    core.put(key, 0, value, (0, 0), Admission::Reserve).expect("room");
}

/// What a reader finds, and the writer too.
fn find(core: &Core<Mapped>, key: &[u8]) -> Option<Vec<u8>> {
    let (mut value, mut known) = (Vec::new(), Vec::new());
    let found = match look_both_ways(&core.table, key, &mut value) {
        Attempt::Hit(..) => Some(value),
        Attempt::Miss => None,
        other => panic!("{other:?} of {key:?}"),
    };
    assert_eq!(core.get(key, &mut known).map(|_| known), found, "{key:?}");
    found
}

fn id_of(core: &Core<Mapped>, key: &[u8]) -> RecordId {
    match core.table.attempt(key, core.table.hash(key), &mut Vec::new()) {
        Attempt::Hit(id, _) => id,
        other => panic!("{other:?} of {key:?}"),
    }
}

/// A key that begins like `key`, and has its first line and fingerprint.
fn twin(core: &Core<Mapped>, key: &[u8]) -> Vec<u8> {
    let place = |key: &[u8]| {
        let place = core.table.geometry().place(core.table.hash(key));
        (place.first, place.tag)
    };
    let begins = &key[..key.len() - 8];
    let twins = (1u64..).map(|number| [begins, &number.to_ne_bytes()].concat());
    twins.into_iter().find(|twin| place(twin) == place(key)).expect("one of 2^18")
}

#[test]
fn link_is_not_taken_for_the_end_of_a_key() {
    let mut core = core(4096);
    // As long as a record has room; its last word is the numbers of the blocks that are taken first, the highest three of
    // the first line.
    let mut key = vec![7; ROOM * 8];
    let first: u64 = WAYS as u64 - 3;
    key[(ROOM - 1) * 8..].copy_from_slice(&(first | (first + 1) << 32).to_ne_bytes());
    let twin = twin(&core, &key);
    put(&mut core, &twin, &[1; 150]);
    let link = core.table.geometry().record(id_of(&core, &twin)) + RECORD_HEADER + ROOM - 1;
    assert_eq!(core.words().load(link), first | (first + 1) << 32);
    assert_eq!(find(&core, &key), None);
    put(&mut core, &key, &[2; 90]);
    assert_eq!(find(&core, &twin), Some(vec![1; 150]));
    assert_eq!(find(&core, &key), Some(vec![2; 90]));
}

#[test]
fn other_keys_of_the_same_fingerprint_are_passed_over() {
    let mut core = core(4096);
    let key = b"some key";
    let twin = twin(&core, key);
    put(&mut core, &twin, &[1; 9]);
    assert_eq!(find(&core, key), None);
    put(&mut core, key, &[2; 9]);
    assert_eq!((find(&core, &twin), find(&core, key)), (Some(vec![1; 9]), Some(vec![2; 9])));
    // One in its second line, with the other's fingerprint in the first.
    let place = core.table.geometry().place(core.table.hash(key));
    let id = id_of(&core, key);
    assert_eq!(id, RecordId { bucket: place.first, way: 1 });
    core.relocate(id, core.table.geometry().second(place));
    assert_eq!((find(&core, &twin), find(&core, key)), (Some(vec![1; 9]), Some(vec![2; 9])));
    assert!(core.remove(&twin));
    assert_eq!((find(&core, &twin), find(&core, key)), (None, Some(vec![2; 9])));
    assert!(core.remove(key));
    assert_eq!(find(&core, key), None);
    core.audit();
}

#[test]
fn keys_and_values_of_all_sizes_are_found_both_ways() {
    let mut core = core(4096);
    for key_size in (1..=ROOM * 8 + 9).chain([255]) {
        for value_size in
            (0..=ROOM * 8 + 9).chain([55, 56, 57, 63, 64, 65, 111, 112, 113, 120, 504, 3000])
        {
            let (key, value) = (vec![key_size as u8; key_size], vec![value_size as u8; value_size]);
            put(&mut core, &key, &value);
            assert_eq!(find(&core, &key).as_deref(), Some(&value[..]));
            let hash = core.table.hash(&key);
            let mut buffer = vec![0; value_size];
            // A glance is enough unless the last word may be the key's.
            let glance = core.table.glance(&key, hash, &mut &mut buffer[..]);
            assert_eq!(matches!(glance, Glance::Hit(..)), key_size.div_ceil(8) < ROOM);
            if let Some(short) = value_size.checked_sub(1) {
                let glance = core.table.glance(&key, hash, &mut &mut buffer[..short]);
                assert!(matches!(glance, Glance::Unclear), "it does not fit");
                let attempt = core.table.attempt(&key, hash, &mut &mut buffer[..short]);
                assert!(matches!(attempt, Attempt::Hit(..)), "{attempt:?}");
            }
            assert!(core.remove(&key));
            assert_eq!(find(&core, &key), None);
        }
    }
    core.audit();
}

#[test]
fn value_above_the_largest_is_damage_though_it_lies_in_its_record() {
    let mut core = core(8);
    put(&mut core, b"key", &[1; 8]);
    let record = core.table.geometry().record(id_of(&core, b"key"));
    let shape = core.words().load(record + SHAPE);
    core.words().store(record + SHAPE, shape & ((1 << 40) - 1) | 9 << 40);
    let attempt = look_both_ways(&core.table, b"key", &mut Vec::new());
    assert_eq!(attempt, Attempt::Damaged);
}
