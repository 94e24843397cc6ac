//! The protocol under loom: every order of the writer's and the reader's steps, and every value that relaxed loads
//! may return. Each mutant takes one of the protocol's supports away and must be caught.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering, fence};

use super::{caught, look};
use crate::layout::{
    Geometry, LINE_WORDS, PARTITIONS, Place, RECORD_HEADER, RecordId, RecordShape, STAMP, Shape,
    WAYS,
};
use crate::protocol::{Attempt, NewRecord};
use crate::table::Table;
use crate::words::Words;
use crate::writer::{Admission, Core};

const LINES: usize = 64;
const RECORDS: usize = LINES + 2 * LINE_WORDS;
const RECORD_WORDS: usize = 8;
const FRESHNESS: usize = RECORDS + 2 * WAYS * RECORD_WORDS;
const KEY: &[u8] = b"the key.";

/// A way to look a key up.
type Look = fn(&Table<LoomWords>, &[u8], &mut Vec<u8>) -> Attempt;

/// The long way alone, which a glance seldom leaves anything to.
fn attempt(table: &Table<LoomWords>, key: &[u8], value: &mut Vec<u8>) -> Attempt {
    table.attempt(key, table.hash(key), value)
}

/// What is taken away.
#[derive(Clone, Copy, PartialEq)]
enum Mutant {
    None,
    NoAcquire,
    NoRelease,
    /// The second look at a line's header sees what the first saw.
    HeaderNotRechecked,
    /// Likewise for a record's number.
    StampNotRechecked,
}

/// Words of which loom sees those that matter; the others keep what was stored last.
struct LoomWords {
    seen: Arc<BTreeMap<usize, AtomicU64>>,
    rest: Arc<Vec<std::sync::atomic::AtomicU64>>,
    mutant: Mutant,
    reader: Cell<bool>,
    first_loads: RefCell<BTreeMap<usize, u64>>,
}

impl LoomWords {
    fn new(seen: &[usize], mutant: Mutant) -> Self {
        Self {
            seen: Arc::new(seen.iter().map(|&at| (at, AtomicU64::new(0))).collect()),
            rest: Arc::new((0..FRESHNESS + PARTITIONS).map(|_| Default::default()).collect()),
            mutant,
            reader: Cell::new(false),
            first_loads: RefCell::default(),
        }
    }

    fn for_reader(&self) -> Self {
        Self {
            seen: self.seen.clone(),
            rest: self.rest.clone(),
            mutant: self.mutant,
            reader: Cell::new(true),
            first_loads: RefCell::default(),
        }
    }

    fn frozen(&self, at: usize) -> bool {
        let is_header = (LINES..RECORDS).contains(&at) && (at - LINES).is_multiple_of(LINE_WORDS);
        let is_stamp = (RECORDS..FRESHNESS).contains(&at) && (at - RECORDS) % RECORD_WORDS == STAMP;
        self.reader.get()
            && (self.mutant == Mutant::HeaderNotRechecked && is_header
                || self.mutant == Mutant::StampNotRechecked && is_stamp)
    }
}

impl Words for LoomWords {
    fn count(&self) -> usize {
        self.rest.len()
    }

    fn load(&self, at: usize) -> u64 {
        if self.frozen(at)
            && let Some(&value) = self.first_loads.borrow().get(&at)
        {
            return value;
        }
        let value = match self.seen.get(&at) {
            Some(word) => word.load(Ordering::Relaxed),
            None => self.rest[at].load(Ordering::SeqCst),
        };
        self.first_loads.borrow_mut().entry(at).or_insert(value);
        value
    }

    fn store(&self, at: usize, value: u64) {
        match self.seen.get(&at) {
            Some(word) => word.store(value, Ordering::Relaxed),
            None => self.rest[at].store(value, Ordering::SeqCst),
        }
    }

    fn acquire(&self) {
        if self.mutant != Mutant::NoAcquire {
            fence(Ordering::Acquire);
        }
    }

    fn release(&self) {
        if self.mutant != Mutant::NoRelease {
            fence(Ordering::Release);
        }
    }
}

fn table(seen: &[usize], mutant: Mutant) -> Table<LoomWords> {
    let shape = Shape { segment_bytes: 0, shards: 1, record_size: 64, max_value: 256, buckets: 2 };
    let geometry = Geometry {
        shape,
        buckets: 2,
        record_words: RECORD_WORDS,
        freshness: FRESHNESS,
        lines: LINES,
        records: RECORDS,
    };
    Table::new(LoomWords::new(seen, mutant), geometry, 0)
}

fn for_reader(table: &Table<LoomWords>) -> Table<LoomWords> {
    Table::new(table.words().for_reader(), *table.geometry(), 0)
}

fn place(table: &Table<LoomWords>) -> Place {
    table.geometry().place(table.hash(KEY))
}

fn record_word(bucket: usize, way: usize, word: usize) -> usize {
    RECORDS + (bucket * 28 + way) * RECORD_WORDS + word
}

fn header_word(bucket: usize) -> usize {
    LINES + bucket * LINE_WORDS
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // LOOM_MAX_PREEMPTIONS=5 is the long run.
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(model);
}

/// Two words that must agree.
fn value(version: u8) -> [u8; 16] {
    [version; 16]
}

/// A key that is updated twice, so that the second update reuses the way of the original, read twice.
fn updates(mutant: Mutant, look: Look) {
    check(move || {
        let first = place(&table(&[], mutant)).first;
        let mut seen = vec![header_word(first), header_word(first) + 1];
        for way in 0..2 {
            seen.extend(
                [STAMP, RECORD_HEADER + 1, RECORD_HEADER + 2]
                    .map(|word| record_word(first, way, word)),
            );
        }
        let table = table(&seen, mutant);
        let readers = [for_reader(&table), for_reader(&table)];
        let mut core = Core::new(table);
        core.put(KEY, 0, &value(1), (0, 0), Admission::Ordinary).expect("room");
        let reading = loom::thread::spawn(move || {
            let mut newest = 0;
            for table in readers {
                let mut found = Vec::new();
                match look(&table, KEY, &mut found) {
                    Attempt::Changed => {}
                    Attempt::Hit(..) => {
                        assert!(found == value(found[0]), "torn");
                        assert!(found[0] >= newest, "went back");
                        newest = found[0];
                    }
                    other => panic!("lost: {other:?}"),
                }
            }
        });
        core.put(KEY, 0, &value(2), (0, 0), Admission::Ordinary).expect("room");
        core.put(KEY, 0, &value(3), (0, 0), Admission::Ordinary).expect("room");
        reading.join().expect("the reader is content");
    });
}

/// Other keys, with the first line of `KEY` or with the other one.
fn others(table: &Table<LoomWords>, is_neighbour: bool) -> impl Iterator<Item = [u8; 8]> {
    let first = place(table).first;
    let keys = (0u64..).map(|number| number.to_ne_bytes());
    keys.filter(move |key| (table.geometry().place(table.hash(key)).first == first) == is_neighbour)
}

fn neighbour(table: &Table<LoomWords>) -> [u8; 8] {
    others(table, true).next().expect("half of all keys")
}

/// A removed key's record and block, taken by another key while a reader copies.
fn reuse(mutant: Mutant, look: Look) {
    check(move || {
        let first = place(&table(&[], mutant)).first;
        // Blocks are taken from the first line, the highest way first.
        let block = WAYS - 1;
        let seen = [
            header_word(first),
            header_word(first) + 1,
            record_word(first, 0, STAMP),
            record_word(first, 0, RECORD_HEADER),
            record_word(first, 0, RECORD_HEADER + 1),
            record_word(first, 0, RECORD_HEADER + 2),
            record_word(0, block, 1),
            record_word(0, block, 2),
        ];
        let table = table(&seen, mutant);
        let other = neighbour(&table);
        let reader = for_reader(&table);
        let mut core = Core::new(table);
        core.put(KEY, 0, &[1; 32], (0, 0), Admission::Ordinary).expect("room");
        let reading = loom::thread::spawn(move || {
            let mut found = Vec::new();
            match look(&reader, KEY, &mut found) {
                Attempt::Hit(..) => assert!(found == [1; 32], "torn"),
                Attempt::Miss | Attempt::Changed => {}
                Attempt::Damaged => panic!("damaged"),
            }
        });
        assert!(core.remove(KEY));
        core.put(&other, 0, &[2; 32], (0, 0), Admission::Ordinary).expect("room");
        reading.join().expect("the reader is content");
    });
}

/// A removed key's blocks, linked in another way by another key while a reader walks them.
fn relinked(mutant: Mutant, look: Look) {
    check(move || {
        let first = place(&table(&[], mutant)).first;
        let seen =
            [header_word(first), record_word(first, 0, STAMP), record_word(0, WAYS - 4, STAMP)];
        let table = table(&seen, mutant);
        let mut apart = others(&table, false);
        let [one, two, other] = std::array::from_fn(|_| apart.next().expect("half of all keys"));
        drop(apart);
        let reader = for_reader(&table);
        let mut core = Core::new(table);
        // Three blocks, and a hole before the last.
        core.put(&one, 0, &[3; 32], (0, 0), Admission::Ordinary).expect("room");
        core.put(&two, 0, &[3; 32], (0, 0), Admission::Ordinary).expect("room");
        assert!(core.remove(&one));
        let value = [1; 136];
        // Its third block is the hole; the others are as they were, since loom sees nothing of them but a link.
        let mut relinking = [1; 192];
        relinking[2 * 8 + 14 * 8..][..7 * 8].fill(2);
        core.put(KEY, 0, &value, (0, 0), Admission::Ordinary).expect("room");
        assert!(core.remove(&two));
        let reading = loom::thread::spawn(move || {
            let mut found = Vec::new();
            match look(&reader, KEY, &mut found) {
                Attempt::Hit(..) => assert!(found == value, "torn"),
                Attempt::Miss | Attempt::Changed => {}
                Attempt::Damaged => panic!("damaged"),
            }
        });
        assert!(core.remove(KEY));
        core.put(&other, 0, &relinking, (0, 0), Admission::Ordinary).expect("room");
        reading.join().expect("the reader is content");
    });
}

/// An entry that moves to its second line and back is never missed.
fn moves(mutant: Mutant, look: Look) {
    check(move || {
        let probe = table(&[], mutant);
        let place_of_key = place(&probe);
        let (first, second) = (place_of_key.first, probe.geometry().second(place_of_key));
        let mut seen = Vec::new();
        for bucket in [first, second] {
            seen.extend([header_word(bucket), header_word(bucket) + 1]);
            seen.extend([STAMP, RECORD_HEADER + 1].map(|word| record_word(bucket, 0, word)));
        }
        let table = table(&seen, mutant);
        let reader = for_reader(&table);
        let mut core = Core::new(table);
        core.put(KEY, 0, &value(1), (0, 0), Admission::Ordinary).expect("room");
        let reading = loom::thread::spawn(move || {
            let mut found = Vec::new();
            match look(&reader, KEY, &mut found) {
                Attempt::Changed => {}
                Attempt::Hit(..) => assert!(found == value(1), "torn"),
                other => panic!("lost: {other:?}"),
            }
        });
        core.relocate(RecordId { bucket: first, way: 0 }, second);
        core.relocate(RecordId { bucket: second, way: 0 }, first);
        reading.join().expect("the reader is content");
    });
}

/// A key that is updated, and whose old way another key takes, is never missed, in whichever line it is.
fn displaced(mutant: Mutant, in_second: bool, look: Look) {
    check(move || {
        let probe = table(&[], mutant);
        let place_of_key = place(&probe);
        let second = probe.geometry().second(place_of_key);
        let line = if in_second { second } else { place_of_key.first };
        let mut seen =
            vec![header_word(place_of_key.first), header_word(second), header_word(line) + 1];
        seen.dedup();
        for way in 0..2 {
            seen.extend([STAMP, RECORD_HEADER].map(|word| record_word(line, way, word)));
        }
        let other = (0u64..)
            .map(|n| n.to_ne_bytes())
            .find(|key| {
                let place = probe.geometry().place(probe.hash(key));
                place.first == line && place.tag != place_of_key.tag
            })
            .expect("half of all keys");
        let table = table(&seen, mutant);
        let reader = for_reader(&table);
        let mut core = Core::new(table);
        core.put(KEY, 0, &[1; 8], (0, 0), Admission::Ordinary).expect("room");
        if in_second {
            core.relocate(RecordId { bucket: place_of_key.first, way: 0 }, second);
        }
        let reading = loom::thread::spawn(move || {
            let mut found = Vec::new();
            match look(&reader, KEY, &mut found) {
                // The value is no word that loom sees here.
                Attempt::Changed | Attempt::Hit(..) => {}
                other => panic!("lost: {other:?}"),
            }
        });
        core.put(KEY, 0, &[2; 8], (0, 0), Admission::Ordinary).expect("room");
        core.put(&other, 0, &[3; 8], (0, 0), Admission::Ordinary).expect("room");
        reading.join().expect("the reader is content");
    });
}

/// A partition that is vouched for anew after its entry was written, or removed: whoever sees that sees no older entry.
fn vouches(mutant: Mutant, removes: bool, look: Look) {
    check(move || {
        let first = place(&table(&[], mutant)).first;
        let mut seen = vec![FRESHNESS, header_word(first)];
        for way in 0..2 {
            seen.extend([STAMP, RECORD_HEADER + 1].map(|word| record_word(first, way, word)));
        }
        let table = table(&seen, mutant);
        let reader = for_reader(&table);
        let mut core = Core::new(table);
        core.put(KEY, 0, &[1; 8], (0, 0), Admission::Ordinary).expect("room");
        core.set_freshness(0, 1);
        let reading = loom::thread::spawn(move || {
            let mut found = Vec::new();
            match look(&reader, KEY, &mut found) {
                Attempt::Changed => {}
                Attempt::Hit(_, copied) if copied.fresh_until == 2 => {
                    assert!(!removes && found == [2; 8], "vouched for no longer");
                }
                Attempt::Hit(..) => assert!(found == [1; 8] || found == [2; 8], "torn"),
                Attempt::Miss => assert!(removes, "lost"),
                Attempt::Damaged => panic!("damaged"),
            }
        });
        if removes {
            assert!(core.remove(KEY));
        } else {
            core.put(KEY, 0, &[2; 8], (0, 0), Admission::Ordinary).expect("room");
        }
        core.set_freshness(0, 2);
        reading.join().expect("the reader is content");
    });
}

/// A record that a killed writer finished but did not publish, and that its successor overwrites, is never read.
fn abandoned(look: Look) {
    check(move || {
        let first = place(&table(&[], Mutant::None)).first;
        let mut seen = vec![header_word(first)];
        seen.extend([STAMP, RECORD_HEADER + 1].map(|word| record_word(first, 0, word)));
        seen.push(record_word(first, 1, STAMP));
        let table = table(&seen, Mutant::None);
        let reader = for_reader(&table);
        let mut core = Core::new(table);
        core.put(KEY, 0, &[1; 8], (0, 0), Admission::Ordinary).expect("room");
        let reading = loom::thread::spawn(move || {
            let mut found = Vec::new();
            match look(&reader, KEY, &mut found) {
                Attempt::Changed => {}
                Attempt::Hit(..) => assert_ne!(found, [3; 8], "never published"),
                other => panic!("lost: {other:?}"),
            }
        });
        core.put(KEY, 0, &[2; 8], (0, 0), Admission::Ordinary).expect("room");
        let (second, near) = (false, false);
        let shape = RecordShape { key_size: 8, partition: 0, second, near, value_size: 8 };
        let checksum = Table::<LoomWords>::checksum(core.table.hash(KEY), shape, &[3; 8]);
        let new = NewRecord { key: KEY, value: &[3; 8], checksum, shape, deadline: 0, mark: 0 };
        core.table.write_record(RecordId { bucket: first, way: 0 }, &new, &[]);
        core.put(KEY, 0, &[4; 8], (0, 0), Admission::Ordinary).expect("room");
        reading.join().expect("the reader is content");
    });
}

#[test]
fn record_that_was_never_published_is_never_read() {
    abandoned(look);
}

#[test]
fn updated_key_is_read_whole_and_never_older_than_before() {
    updates(Mutant::None, look);
}

#[test]
fn reused_record_and_block_are_never_read_as_the_old_key() {
    reuse(Mutant::None, look);
    relinked(Mutant::None, look);
}

#[test]
fn moving_entry_is_never_missed() {
    moves(Mutant::None, look);
}

#[test]
fn entry_is_never_older_than_the_promise_it_is_read_with() {
    vouches(Mutant::None, false, look);
    vouches(Mutant::None, true, look);
}

#[test]
fn updated_key_whose_old_way_is_taken_is_never_missed() {
    for in_second in [false, true] {
        displaced(Mutant::None, in_second, look);
        displaced(Mutant::None, in_second, attempt);
    }
}

#[test]
fn long_way_alone_keeps_the_promises_too() {
    abandoned(attempt);
    updates(Mutant::None, attempt);
    reuse(Mutant::None, attempt);
    relinked(Mutant::None, attempt);
    moves(Mutant::None, attempt);
    vouches(Mutant::None, false, attempt);
    vouches(Mutant::None, true, attempt);
}

#[test]
fn mutant_that_does_not_recheck_the_header_misses_displaced_entries() {
    for in_second in [false, true] {
        caught("lost", || displaced(Mutant::HeaderNotRechecked, in_second, look));
        caught("lost", || displaced(Mutant::HeaderNotRechecked, in_second, attempt));
    }
}

#[test]
fn mutant_without_acquire_fences_is_caught() {
    caught("torn", || updates(Mutant::NoAcquire, look));
}

#[test]
fn mutant_without_release_fences_is_caught() {
    caught("torn", || updates(Mutant::NoRelease, look));
}

#[test]
fn mutant_that_does_not_recheck_the_header_is_caught() {
    caught("went back", || updates(Mutant::HeaderNotRechecked, look));
}

#[test]
fn mutant_that_does_not_recheck_the_number_is_caught() {
    caught("torn", || updates(Mutant::StampNotRechecked, look));
}

#[test]
fn mutant_without_release_fences_reads_reused_blocks() {
    caught("torn", || reuse(Mutant::NoRelease, look));
    caught("torn", || relinked(Mutant::NoRelease, look));
}

#[test]
fn mutant_that_does_not_recheck_the_header_misses_moving_entries() {
    caught("lost", || moves(Mutant::HeaderNotRechecked, look));
}

#[test]
fn mutant_without_acquire_fences_believes_a_promise_for_what_is_gone() {
    caught("no longer", || vouches(Mutant::NoAcquire, true, look));
}

#[test]
fn mutant_without_release_fences_believes_a_promise_for_what_is_gone() {
    caught("no longer", || vouches(Mutant::NoRelease, true, look));
}
