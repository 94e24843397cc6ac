use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const HOME: NodeId = NodeId::from_bits(7);
const AGE: Duration = Duration::from_secs(10);

fn key(name: impl std::fmt::Display) -> Key {
    Key::new(name.to_string()).unwrap()
}

fn hints(bytes_max: u64) -> Hints {
    Hints::new(bytes_max, AGE)
}

/// Room for so many with keys of some bytes.
fn room_for(count: u64) -> Hints {
    hints(count * (HINT_OVERHEAD_BYTES + 10))
}

fn take(hints: &mut Hints, home: NodeId, count: usize) -> Vec<Key> {
    std::iter::from_fn(|| hints.next(home, count)).collect()
}

#[test]
fn what_does_not_fit_marks_its_slot_for_comparison() {
    let mut hints = room_for(1);
    assert!(hints.add(HOME, &key("first"), 0));
    assert!(!hints.add(HOME, &key("second"), 0));
    assert_eq!((hints.len(), hints.slots_marked()), (1, 1));
    assert_eq!(hints.marked().collect::<Vec<_>>(), [HOME]);
    let marks = hints.take_marks(HOME).unwrap();
    let marked = Slot::all().filter(|slot| marks.contains(*slot)).collect::<Vec<_>>();
    assert_eq!(marked, [key("second").slot()]);
    assert_eq!(hints.take_marks(HOME), None);
    // Nor is anything else left of a home that none was kept for.
    let other = NodeId::from_bits(8);
    assert!(!hints.add(other, &key("third"), 0));
    assert_eq!(hints.homes().collect::<Vec<_>>(), [HOME]);
}

#[test]
fn a_hint_under_way_is_not_delivered_twice_but_again_after_a_failure() {
    let mut hints = hints(1 << 20);
    hints.add(HOME, &key("one"), 0);
    assert_eq!(take(&mut hints, HOME, 8).len(), 1);
    assert_eq!(take(&mut hints, HOME, 8).len(), 0);
    hints.failed(HOME, &key("one"));
    assert_eq!(take(&mut hints, HOME, 8).len(), 1);
    hints.delivered(HOME, &key("one"));
    assert_eq!(hints.len(), 0);
    assert_eq!(hints.homes().count(), 0);
}

#[test]
fn a_write_during_a_delivery_is_delivered_too() {
    let mut hints = hints(1 << 20);
    hints.add(HOME, &key("one"), 0);
    take(&mut hints, HOME, 8);
    hints.add(HOME, &key("one"), 0);
    hints.delivered(HOME, &key("one"));
    assert_eq!(take(&mut hints, HOME, 8).len(), 1);
}

#[test]
fn hints_that_fail_again_and_again_do_not_block_the_others() {
    let mut hints = hints(1 << 20);
    for name in ["a", "b", "c"] {
        hints.add(HOME, &key(name), 0);
    }
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let taken = take(&mut hints, HOME, 1);
        assert_eq!((taken.len(), take(&mut hints, HOME, 1).len()), (1, 0));
        hints.failed(HOME, &taken[0]);
        seen.extend(taken);
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn room_is_given_back_on_delivery() {
    let mut hints = room_for(1);
    for round in 0..10 {
        let key = key(format!("key {round}"));
        assert!(hints.add(HOME, &key, 0));
        hints.delivered(HOME, &key);
    }
    hints.add(HOME, &key("last"), 0);
    assert_eq!(hints.forget(HOME), 1);
    assert!(hints.add(HOME, &key("again"), 0));
}

#[test]
fn a_hint_that_is_too_old_becomes_a_mark_however_few_are_looked_at_at_a_time() {
    let mut hints = hints(1 << 20);
    let others = [HOME, NodeId::from_bits(3), NodeId::from_bits(9)];
    for number in 0..30u64 {
        hints.add(others[number as usize % 3], &key(number), number * 1_000);
    }
    // One that is under way is not too old yet.
    assert!(hints.next(HOME, 1).is_some());
    let now_ms = 10_000 + 15_999;
    let dropped: u64 = (0..12).map(|_| hints.drop_old(now_ms, 4)).sum();
    assert_eq!((dropped, hints.len(), hints.slots_marked()), (15, 15, 15));
}

#[test]
fn a_hint_written_again_is_as_old_as_it_was() {
    let mut hints = hints(1 << 20);
    hints.add(HOME, &key("one"), 1_000);
    hints.add(HOME, &key("one"), 9_000);
    assert_eq!(hints.drop_old(10_999, 8), 0);
    assert_eq!(hints.drop_old(11_000, 8), 1);
}

#[test]
fn hints_restored_from_the_future_are_no_younger_than_those_of_now() {
    let mut first = hints(1 << 20);
    first.add(HOME, &key("one"), 50_000);
    let [change] = &first.unsaved(0)[..] else { panic!("one change") };
    let record = Record { name: change.name.clone(), value: change.value.clone().unwrap() };
    // The clock was set back.
    let mut second = hints(1 << 20);
    assert!(second.restore(&record, 20_000));
    assert!(second.is_saved(), "it is on disk as it is");
    assert_eq!(second.drop_old(29_999, 8), 0);
    assert_eq!(second.drop_old(30_000, 8), 1);
}

#[test]
fn what_is_no_hint_is_not_restored() {
    let mut hints = hints(1 << 20);
    let key = key("one");
    let good = Record { name: name(0, HOME, &key), value: 5u64.to_le_bytes().to_vec() };
    let altered = |change: fn(&mut Record)| {
        let mut record = good.clone();
        change(&mut record);
        record
    };
    for bad in [
        altered(|it| it.name.rest.truncate(8)),
        altered(|it| it.name.rest.truncate(3)),
        altered(|it| it.name.rest[0] = 1),
        altered(|it| it.name.rest.extend([0; 300])),
        altered(|it| it.name.slot = Slot::new(it.name.slot.index() ^ 1).unwrap()),
        altered(|it| it.value.truncate(7)),
    ] {
        assert!(!hints.restore(&bad, 9));
    }
    assert_eq!(hints.len(), 0);
    assert!(hints.restore(&good, 9));
    assert_eq!(hints.len(), 1);
}

#[test]
fn a_restored_hint_without_room_leaves_a_mark_and_goes_from_disk() {
    let mut hints = room_for(1);
    for name_of in ["one", "two"] {
        let name = name(0, HOME, &key(name_of));
        hints.restore(&Record { name, value: 5u64.to_le_bytes().to_vec() }, 9);
    }
    assert_eq!((hints.len(), hints.slots_marked()), (1, 1));
    let changes = hints.unsaved(0);
    assert_eq!(changes, [RecordChange { name: name(0, HOME, &key("two")), value: None }]);
}

#[test]
fn what_was_delivered_before_it_was_saved_never_gets_to_disk() {
    let mut hints = hints(1 << 20);
    hints.add(HOME, &key("one"), 5);
    hints.delivered(HOME, &key("one"));
    assert_eq!((hints.unsaved(0), hints.is_saved()), (Vec::new(), true));
}

#[derive(Clone, Debug)]
enum Step {
    Add(u8),
    Take,
    Delivered(u8),
    Failed(u8),
    Forget,
    Old(u64),
    /// What is under way gets to disk; with what is told of it.
    Saved(bool),
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..12u8).prop_map(Step::Add),
        3 => Just(Step::Take),
        4 => (0..12u8).prop_map(Step::Delivered),
        2 => (0..12u8).prop_map(Step::Failed),
        1 => Just(Step::Forget),
        1 => (0..30_000u64).prop_map(Step::Old),
        6 => any::<bool>().prop_map(Step::Saved),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 0..80)
}

fn apply(disk: &mut BTreeMap<RecordName, Vec<u8>>, changes: &[RecordChange]) {
    for RecordChange { name, value } in changes {
        match value {
            Some(value) => disk.insert(name.clone(), value.clone()),
            None => disk.remove(name),
        };
    }
}

proptest! {
    /// Whatever happened, once all is saved the disk has the hints that there are, and no others.
    #[test]
    fn the_disk_follows(steps in steps()) {
        let mut hints = room_for(8);
        let mut disk = BTreeMap::new();
        let mut under_way: Option<Vec<RecordChange>> = None;
        for (at, step) in steps.into_iter().enumerate() {
            let now_ms = at as u64 * 1_000;
            match step {
                Step::Add(number) => drop(hints.add(HOME, &key(number), now_ms)),
                Step::Take => drop(hints.next(HOME, 4)),
                Step::Delivered(number) => hints.delivered(HOME, &key(number)),
                Step::Failed(number) => hints.failed(HOME, &key(number)),
                Step::Forget => drop(hints.forget(HOME)),
                Step::Old(later) => drop(hints.drop_old(now_ms + later, 3)),
                Step::Saved(well) => match under_way.take() {
                    None => under_way = Some(hints.unsaved(0)).filter(|it| !it.is_empty()),
                    Some(changes) if well => {
                        apply(&mut disk, &changes);
                        hints.saved();
                    }
                    Some(changes) => {
                        // In part: some disks do that.
                        apply(&mut disk, &changes[..changes.len() / 2]);
                        hints.not_saved();
                    }
                },
                Step::Crash => {
                    under_way = None;
                    hints = room_for(8);
                    for (name, value) in &disk {
                        let record = Record { name: name.clone(), value: value.clone() };
                        // The disk may have had more than there is room for.
                        hints.restore(&record, now_ms);
                    }
                }
            }
            let listed: usize = hints.homes.values().map(|home| home.keys.len()).sum();
            let waiting = |hint: &&Hint| hint.delivery != Delivery::Waits;
            for home in hints.homes.values() {
                prop_assert_eq!(home.under_way, home.keys.values().filter(waiting).count());
            }
            let bytes = hints.homes.values().flat_map(|home| home.keys.keys()).map(cost).sum::<u64>();
            prop_assert_eq!((listed, bytes), (hints.len(), hints.bytes));
        }
        if let Some(changes) = under_way {
            apply(&mut disk, &changes);
            hints.saved();
        }
        apply(&mut disk, &hints.unsaved(0));
        hints.saved();
        prop_assert!(hints.is_saved());
        let on_disk: BTreeSet<RecordName> = disk.into_keys().collect();
        let keys = hints.homes.get(&HOME).into_iter().flat_map(|home| home.keys.keys());
        let there: BTreeSet<RecordName> = keys.map(|key| name(0, HOME, key)).collect();
        prop_assert_eq!(on_disk, there);
    }
}
