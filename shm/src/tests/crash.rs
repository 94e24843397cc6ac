//! A writer that stops after any of its stores, and a successor that stops after any of its own.
//!
//! A killed process leaves memory as its stores left it, in program order, so ignoring all stores from the n-th on
//! is exactly a kill between two stores; here every n is tried.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::look_both_ways;
use crate::layout::{Geometry, Shape};
use crate::protocol::Attempt;
use crate::table::Table;
use crate::words::Words;
use crate::writer::{Admission, Core, Recovery};

/// Plain words whose stores end after a while.
#[derive(Clone)]
pub(super) struct CrashWords {
    words: Vec<Cell<u64>>,
    stores_left: Cell<usize>,
}

impl CrashWords {
    fn stores_used(&self) -> usize {
        usize::MAX - self.stores_left.get()
    }
}

impl Words for CrashWords {
    fn count(&self) -> usize {
        self.words.len()
    }

    fn load(&self, at: usize) -> u64 {
        self.words[at].get()
    }

    fn store(&self, at: usize, value: u64) {
        if let Some(left) = self.stores_left.get().checked_sub(1) {
            self.stores_left.set(left);
            self.words[at].set(value);
        }
    }

    fn acquire(&self) {}

    fn release(&self) {}
}

type Operation = dyn Fn(&mut Core<CrashWords>);
type Contents = BTreeMap<Vec<u8>, (Vec<u8>, u64, u64)>;

fn small_table() -> Table<CrashWords> {
    // 4 lines, records of 64 bytes: 32 of them payload, or 56 of a block.
    let shape =
        Shape { segment_bytes: 1 << 20, shards: 1, record_size: 64, max_value: 4096, buckets: 4 };
    let geometry = Geometry::new(shape).expect("possible");
    let count = geometry.records + geometry.records_count() * geometry.record_words;
    let words = CrashWords { words: vec![Cell::new(0); count], stores_left: Cell::new(usize::MAX) };
    Table::new(words, geometry, 11)
}

fn contents(core: &Core<CrashWords>) -> Contents {
    let mut contents = Contents::new();
    let mut value = Vec::new();
    core.scan(0, usize::MAX, &mut |item| {
        let found = core.get(item.key, &mut value).expect("scanned");
        let before =
            contents.insert(item.key.to_vec(), (value.clone(), found.deadline, found.mark));
        assert!(before.is_none(), "each key once");
    });
    contents
}

fn recover(table: Table<CrashWords>, stores: usize) -> (Core<CrashWords>, Recovery) {
    table.words().stores_left.set(stores);
    Core::recover(table)
}

/// Readers that look while the writer lies dead find each key as it was or as it was to be.
fn readers_find(table: &Table<CrashWords>, before: &Contents, after: &Contents) {
    for key in before.keys().chain(after.keys()) {
        let mut value = Vec::new();
        let found = match look_both_ways(table, key, &mut value) {
            Attempt::Hit(_, copied) => Some((value, copied.deadline, copied.mark)),
            Attempt::Miss => None,
            other => panic!("{other:?} long after the crash"),
        };
        let wanted = [before.get(key), after.get(key)];
        let times_between = |(value, deadline, mark): &(Vec<u8>, u64, u64)| {
            wanted.iter().flatten().any(|w| w.0 == *value)
                && wanted.iter().flatten().any(|w| w.1 == *deadline)
                && wanted.iter().flatten().any(|w| w.2 == *mark)
        };
        assert!(wanted.contains(&found.as_ref()) || found.as_ref().is_some_and(times_between));
    }
}

/// Runs an operation on a copy of `base`, stopped after each number of stores; returns the table it leads to.
fn crash_everywhere(base: &Table<CrashWords>, operation: &Operation) -> Table<CrashWords> {
    let (core, recovery) = recover(base.clone(), usize::MAX);
    assert_eq!(recovery, Recovery { entries: core.entries, ..Recovery::default() });
    let before = contents(&core);
    let mut core = core;
    core.table.words().stores_left.set(usize::MAX);
    operation(&mut core);
    core.audit();
    let stores = core.table.words().stores_used();
    let (after, finished) = (contents(&core), core.table.clone());

    for stop in 0..=stores {
        let (mut core, _) = recover(base.clone(), usize::MAX);
        core.table.words().stores_left.set(stop);
        operation(&mut core);
        let crashed = core.table.clone();
        readers_find(&crashed, &before, &after);

        let (core, recovery) = recover(crashed.clone(), usize::MAX);
        core.audit();
        let now = contents(&core);
        let times_changed = before.keys().eq(after.keys())
            && now.iter().all(|(key, (value, deadline, mark))| {
                let (b, a) = (&before[key], &after[key]);
                (*value == b.0 || *value == a.0)
                    && (*deadline == b.1 || *deadline == a.1)
                    && (*mark == b.2 || *mark == a.2)
            });
        assert!(
            now == before || now == after || times_changed,
            "stopped after {stop} of {stores} stores"
        );
        let Recovery { entries, dropped_duplicate, repaired_lines, .. } = recovery;
        assert!(dropped_duplicate <= 1 && repaired_lines <= 2, "{recovery:?}");
        assert_eq!(
            recovery,
            Recovery { entries, dropped_duplicate, repaired_lines, ..Recovery::default() }
        );

        let used = core.table.words().stores_used();
        for stop in 0..used {
            let (halfway, _) = recover(crashed.clone(), stop);
            readers_find(&halfway.table, &before, &after);
            let (again, _) = recover(halfway.table, usize::MAX);
            again.audit();
            assert_eq!(contents(&again), now, "recovery stopped after {stop} of {used} stores");
        }
    }
    finished
}

fn put(key: &[u8], size: usize, fill: u8) -> impl Fn(&mut Core<CrashWords>) {
    let (key, value) = (key.to_vec(), vec![fill; size]);
    move |core| {
        core.put(&key, u16::from(fill), &value, (u64::from(fill), 1), Admission::Reserve)
            .expect("room");
    }
}

#[test]
fn stopped_after_any_store_an_operation_has_happened_or_not() {
    let mut table = small_table();
    let operations: Vec<Box<Operation>> = vec![
        Box::new(put(b"inline", 10, 1)),
        Box::new(put(b"inline", 16, 2)),
        Box::new(put(b"chained", 1200, 3)),
        Box::new(put(b"chained", 1300, 4)),
        Box::new(put(b"inline", 600, 5)),
        Box::new(put(b"chained", 0, 6)),
        Box::new(|core| assert!(core.set_times(b"inline", 77, 78))),
        Box::new(|core| assert!(core.change_mark(b"inline", |mark| mark + 1))),
        Box::new(|core| assert!(core.remove(b"inline"))),
        Box::new(put(b"other", 2000, 7)),
        Box::new(put(&[9; 255], 600, 8)),
        Box::new(|core| assert!(core.remove(&[9; 255]))),
        Box::new(|core| {
            assert_eq!(core.remove_expired(2_000, 9, &mut |item| item.key == b"chained"), 1)
        }),
    ];
    for operation in &operations {
        table = crash_everywhere(&table, operation);
    }
}

#[test]
fn stopped_after_any_store_an_insertion_that_moves_others_loses_nothing() {
    let mut table = small_table();
    let (mut core, _) = recover(table.clone(), usize::MAX);
    let mut number = 0u32;
    let mut moving = 0;
    // Fill to the last record (27 of 28 in 4 lines); crash those insertions that have to move something.
    while core.entries + core.blocks < 4 * 27 {
        number += 1;
        let key = number.to_ne_bytes();
        let operation = move |core: &mut Core<CrashWords>| {
            // A few with chains, which a move shares for a moment.
            let size = if number.is_multiple_of(8) && number < 60 { 120 } else { 4 };
            core.put(&key, 5, &vec![1; size], (0, 0), Admission::Reserve)
                .expect("a free record can be reached");
        };
        let place = table.geometry().place(table.hash(&key));
        let full = |bucket: usize| core.lines[bucket].free_ways() == 1;
        if full(place.first) && full(table.geometry().second(place)) {
            moving += 1;
            table = crash_everywhere(&table, &operation);
            (core, _) = recover(table.clone(), usize::MAX);
        } else {
            operation(&mut core);
            table = core.table.clone();
        }
    }
    assert!(moving >= 3, "{moving} insertions moved entries");
    core.audit();
    // Now removals, which close overflow bits again.
    for number in 1..=number {
        let key = number.to_ne_bytes();
        table =
            crash_everywhere_if(number % 9 == 0, &table, &move |core| assert!(core.remove(&key)));
    }
    let (core, _) = recover(table, usize::MAX);
    assert_eq!(core.entries, 0);
    core.audit();
}

#[test]
fn stopped_after_any_store_an_insertion_that_moves_blocks_loses_nothing() {
    let mut table = small_table();
    let (mut core, _) = recover(table.clone(), usize::MAX);
    let insert = |key: [u8; 4], size: usize| {
        move |core: &mut Core<CrashWords>| {
            core.put(&key, 5, &vec![key[0]; size], (0, 0), Admission::Reserve).expect("room");
        }
    };
    let geometry = *core.table.geometry();
    let in_lines = |core: &Core<CrashWords>, number: u32, wanted: [usize; 2]| {
        let place = geometry.place(core.table.hash(&number.to_ne_bytes()));
        wanted == [place.first, geometry.second(place)]
            || wanted == [geometry.second(place), place.first]
    };
    let large = (0..).filter(|number| in_lines(&core, *number, [2, 3])).take(14);
    for number in large.collect::<Vec<u32>>() {
        insert(number.to_ne_bytes(), 250)(&mut core);
    }
    // Keys of two lines in which there are blocks, and entries that cannot leave these.
    let blocks = |core: &Core<CrashWords>| {
        core.lines[..2].iter().map(|line| line.blocks.count_ones()).sum::<u32>()
    };
    let mut moved = 0;
    let small = (0..).filter(|number| in_lines(&core, *number, [0, 1])).take(100);
    for number in small.collect::<Vec<u32>>() {
        // Blocks that are moved need others before they are free.
        if core.entries + core.blocks + 6 > 4 * 27 {
            break;
        }
        let is_full = core.lines[..2].iter().all(|line| line.free_ways() == 1);
        let before = blocks(&core);
        let operation = insert(number.to_ne_bytes(), 4);
        table = crash_everywhere_if(is_full, &core.table.clone(), &operation);
        (core, _) = recover(table, usize::MAX);
        core.audit();
        moved += usize::from(blocks(&core) < before);
    }
    assert!(moved >= 2, "{moved} insertions moved blocks");
}

fn crash_everywhere_if(
    everywhere: bool,
    base: &Table<CrashWords>,
    operation: &Operation,
) -> Table<CrashWords> {
    if everywhere {
        return crash_everywhere(base, operation);
    }
    let (mut core, _) = recover(base.clone(), usize::MAX);
    operation(&mut core);
    core.table.clone()
}
