//! Segments as files: made, locked, reopened, set aside.

#![allow(unsafe_code, reason = "a region of another boot")]

use std::fs;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use annulus_shm::{
    Admission, AttachError, FileError, HeapRegion, Lookup, OpenError, Reader, Recovery, Region,
    Shards, TableOptions, Writer, open_or_create, shard_of,
};

fn options() -> TableOptions {
    TableOptions { segment_bytes: 1 << 20, ..TableOptions::new(1, 2) }
}

fn attach(path: &Path) -> Result<Shards, AttachError> {
    Shards::attach_file(path, partition_of)
}

/// A key's first byte.
fn partition_of(key: &[u8]) -> u16 {
    key.first().copied().unwrap_or_default().into()
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("ours"))
        .collect();
    names.sort();
    names
}

#[test]
fn reopened_segment_has_all_entries_and_readers_stay_attached() {
    let directory = directory();
    let path = directory.path().join("table");
    let mut opened = open_or_create(&path, &options()).expect("made");
    assert!(opened.recovery.is_none() && opened.set_aside.is_none());
    opened.writers[0].put(b"key", 4, b"value", 0, 9).expect("room");
    opened.writers[0].set_freshness(4, u64::MAX);
    let reader = attach(&path).expect("made");
    drop(opened);
    let mut value = Vec::new();
    assert!(matches!(reader.get(b"key", 0, &mut value), Lookup::Hit(hit) if hit.mark == 9));

    // Other instance and seed: those of the segment stay.
    let other = TableOptions { instance: 77, hash_seed: 78, ..options() };
    let mut opened = open_or_create(&path, &other).expect("whole");
    assert_eq!(opened.recovery, Some(Recovery { entries: 1, ..Recovery::default() }));
    assert_eq!((opened.writers[0].instance(), opened.writers[0].hash_seed()), (1, 2));
    assert_eq!((reader.instance(), reader.writer_epoch()), (1, 2));
    opened.writers[0].put(b"key", 4, b"newer", 0, 10).expect("room");
    assert!(matches!(reader.get(b"key", 0, &mut value), Lookup::Hit(hit) if hit.mark == 10));
    assert_eq!(value, b"newer");
    assert_eq!(fs::metadata(&path).expect("there").len(), 1 << 20);
}

#[test]
fn second_writer_is_refused_with_the_note_of_the_first() {
    let directory = directory();
    let path = directory.path().join("table");
    let mut first = open_or_create(&path, &options()).expect("made");
    let Err(FileError::Locked { owner, .. }) = open_or_create(&path, &options()) else {
        panic!("locked")
    };
    assert_eq!(owner, "it left no note");
    first.writers[0].set_owner_note("pid 4711");
    let error = open_or_create(&path, &options()).err().expect("locked");
    assert_eq!(
        error.to_string(),
        format!("{} is in use by another writer: pid 4711", path.display())
    );
    drop(first);
    assert!(open_or_create(&path, &options()).is_ok());
}

#[test]
fn segment_of_another_shape_is_replaced_with_its_entries_and_its_readers_are_told() {
    let directory = directory();
    let path = directory.path().join("table");
    let mut opened = open_or_create(&path, &options()).expect("made");
    for number in 0..300u32 {
        let value = vec![number as u8; number as usize];
        let (key, mark) = (number.to_ne_bytes(), number.into());
        opened.writers[0].put(&key, number as u16, &value, 7_000, mark).expect("room");
    }
    opened.writers[0].put_as(Admission::Near, b"near", 0, b"copy", (0, 0)).expect("room");
    opened.writers[0].set_clock_offset(99);
    drop(opened);
    // A longer record, a larger segment, and back.
    let sizes = [(1024, 1 << 20), (1024, 2 << 20), (512, 1 << 20)];
    for (instance, (record_size, segment_bytes)) in (10..).zip(sizes) {
        let reader = attach(&path).expect("made");
        let other = TableOptions { record_size, segment_bytes, instance, ..options() };
        let mut opened = open_or_create(&path, &other).expect("made anew");
        let carried = opened.carried.expect("there was another");
        assert!(opened.set_aside.is_none());
        assert_eq!((carried.entries, carried.damaged), (300, 0));
        assert_eq!(instance, opened.writers[0].instance());
        assert!(reader.detached());
        let reader = attach(&path).expect("made");
        assert_eq!((reader.instance(), reader.shard(0).clock_offset()), (instance, 99));
        (0..300).for_each(|partition| opened.writers[0].set_freshness(partition, u64::MAX));
        let mut value = Vec::new();
        for number in 0..300u32 {
            let lookup = reader.get(&number.to_ne_bytes(), 0, &mut value);
            let Lookup::Hit(hit) = lookup else { panic!("{lookup:?}") };
            assert_eq!((hit.deadline, hit.mark), (7_000, number.into()));
            assert_eq!(value, vec![number as u8; number as usize]);
        }
        drop(opened);
        let again = open_or_create(&path, &other).expect("whole");
        assert_eq!((again.carried, again.writers[0].stats().entries), (None, 300));
    }
    // One in which not all have room leaves everything as it is.
    let too_small = TableOptions { segment_bytes: 280 << 10, ..options() };
    let error = open_or_create(&path, &too_small).err().expect("it does not fit");
    let FileError::DoesNotFit { entries, left_out, .. } = error else { panic!("{error}") };
    assert!(entries == 300 && (1..300).contains(&left_out), "{left_out}");
    let again = open_or_create(&path, &options()).expect("as it was");
    assert_eq!((again.carried, again.writers[0].stats().entries), (None, 300));
    assert_eq!(names(directory.path()), ["table"]);
}

#[test]
fn entries_of_a_damaged_segment_are_checked_before_they_are_carried_over() {
    let directory = directory();
    let path = directory.path().join("table");
    let mut opened = open_or_create(&path, &options()).expect("made");
    for number in 0..20u8 {
        opened.writers[0].put(&[number], 0, &[number; 100], 0, 0).expect("room");
    }
    drop(opened);
    let mut bytes = fs::read(&path).expect("there");
    let at = bytes.windows(100).position(|window| window == [7; 100]).expect("stored");
    bytes[at + 50] ^= 1;
    fs::write(&path, bytes).expect("writable");
    fs::write(directory.path().join("table~new"), "what a crash left").expect("writable");
    let other = TableOptions { segment_bytes: 2 << 20, ..options() };
    let opened = open_or_create(&path, &other).expect("made anew");
    let carried = opened.carried.expect("there was another");
    assert_eq!((carried.entries, carried.damaged), (19, 1));
    let mut value = Vec::new();
    assert!(opened.writers[0].get(&[7], &mut value).is_none());
    assert!(opened.writers[0].get(&[8], &mut value).is_some());
    assert_eq!(names(directory.path()), ["table"]);
}

#[test]
fn segment_with_another_number_of_shards_is_replaced_with_its_entries() {
    let directory = directory();
    let path = directory.path().join("table");
    let key = |number: u16| [number as u8, (number >> 8) as u8, 77];
    let mut opened = open_or_create(&path, &options()).expect("made");
    for number in 0..300 {
        let value = vec![number as u8; usize::from(number)];
        let (key, times) = (key(number), (7_000, number.into()));
        let admission = Admission::Ordinary;
        let put = opened.writers[0].put_as(admission, &key, partition_of(&key), &value, times);
        put.expect("room");
    }
    opened.writers[0].put_as(Admission::Near, &[3; 5], 3, b"copy", (0, 0)).expect("room");
    opened.writers[0].set_clock_offset(99);
    drop(opened);
    for (instance, shards) in (10..).zip([4, 3, 64, 1, 2]) {
        let reader = attach(&path).expect("made");
        let segment_bytes = u64::from(shards) << 20;
        let other = TableOptions { shards, segment_bytes, instance, ..options() };
        let mut opened = open_or_create(&path, &other).expect("made anew");
        let carried = opened.carried.expect("there was another");
        assert!(opened.set_aside.is_none() && reader.detached());
        assert!(reader.iter().all(Reader::detached));
        assert_eq!((carried.entries, carried.damaged), (300, 0));
        assert_eq!(carried.from.shards, reader.count());
        assert_eq!(opened.writers.len(), shards.into());
        let reader = attach(&path).expect("made");
        assert_eq!((reader.count(), reader.instance()), (shards, instance));
        assert_eq!(reader.stats().entries, 300);
        assert_eq!(reader.stats().segment_bytes, segment_bytes);
        assert!(reader.iter().all(|reader| reader.clock_offset() == 99));
        for partition in 0..256 {
            let shard = usize::from(shard_of(partition, shards));
            opened.writers[shard].set_freshness(partition, u64::MAX);
        }
        let mut value = Vec::new();
        for number in 0..300 {
            let lookup = reader.get(&key(number), 0, &mut value);
            let Lookup::Hit(hit) = lookup else { panic!("{lookup:?}") };
            assert_eq!((hit.deadline, hit.mark), (7_000, number.into()));
            assert_eq!(value, vec![number as u8; usize::from(number)]);
            assert_eq!(hit.used.shard(), partition_of(&key(number)) % shards);
        }
        drop(opened);
        let again = open_or_create(&path, &other).expect("whole");
        assert_eq!(again.recovery, Some(Recovery { entries: 300, ..Recovery::default() }));
        assert_eq!(again.carried, None);
        let epochs: Vec<_> = again.writers.iter().map(Writer::writer_epoch).collect();
        assert_eq!(epochs, vec![2; shards.into()]);
    }
    // One in whose shards not all have room.
    let small = TableOptions { shards: 3, segment_bytes: 540 << 10, max_value: 1024, ..options() };
    let error = open_or_create(&path, &small).err().expect("it does not fit");
    let FileError::DoesNotFit { entries, left_out, .. } = error else { panic!("{error}") };
    assert!(entries == 300 && (1..300).contains(&left_out), "{left_out}");
    assert_eq!(attach(&path).expect("as it was").count(), 2);
    assert_eq!(names(directory.path()), ["table"]);
}

#[test]
fn file_is_locked_until_the_writers_of_all_shards_are_gone() {
    let directory = directory();
    let path = directory.path().join("table");
    let options = TableOptions { shards: 3, ..options() };
    let mut opened = open_or_create(&path, &options).expect("made");
    drop(opened.region);
    while let Some(mut writer) = opened.writers.pop() {
        let shard = opened.writers.len() as u16;
        let locked = open_or_create(&path, &options).err();
        assert!(matches!(locked, Some(FileError::Locked { .. })));
        // Each to its own thread.
        std::thread::spawn(move || writer.put(&[shard as u8], shard, b"value", 0, 0).map(drop))
            .join()
            .expect("no panic")
            .expect("room");
    }
    let opened = open_or_create(&path, &options).expect("free again");
    assert_eq!(opened.recovery.expect("there").entries, 3);
}

#[test]
fn segment_with_several_shards_is_not_read_or_written_as_one() {
    let directory = directory();
    let path = directory.path().join("table");
    let options = TableOptions { shards: 4, segment_bytes: 2 << 20, ..options() };
    let opened = open_or_create(&path, &options).expect("made");
    assert_eq!(Reader::attach(opened.region.clone()).err(), Some(OpenError::SeveralShards(4)));
    assert!(Writer::open(opened.region.clone(), &options).is_err());
    assert!(Writer::create(opened.region.clone(), &options).is_err());
    let one = TableOptions { shards: 1, ..options };
    assert!(matches!(Writer::open(opened.region, &one), Err(OpenError::OtherLayout { .. })));
    assert!(attach(&path).expect("made").only().is_none());
}

#[test]
fn damage_to_the_header_of_any_shard_sets_the_whole_segment_aside() {
    let options = TableOptions { shards: 4, segment_bytes: 2 << 20, ..options() };
    let shard_bytes = (2 << 20) / 4;
    let wrong = |shard: usize, at: usize, wanted: &str| {
        let directory = directory();
        let path = directory.path().join("table");
        drop(open_or_create(&path, &options).expect("made"));
        let whole = attach(&path).expect("made");
        let mut bytes = fs::read(&path).expect("there");
        bytes[shard * shard_bytes + at] ^= 1;
        fs::write(&path, bytes).expect("writable");
        let Err(AttachError::Segment { source, .. }) = attach(&path) else { panic!("damaged") };
        assert!(source.to_string().contains(wanted), "{source}");
        let opened = open_or_create(&path, &options).expect("made anew");
        let (aside, why) = opened.set_aside.expect("there was another");
        assert!(why.contains(wanted), "{why}");
        assert_eq!(fs::metadata(aside).expect("kept").len(), 2 << 20);
        assert!(attach(&path).is_ok() && whole.instance() == 1);
    };
    wrong(0, 40, "damaged header");
    wrong(2, 40, "shard 2: damaged header");
    wrong(3, 0, "shard 3: not a segment");
    wrong(1, 8, "shard 1: layout version 5 instead of 4");
    wrong(2, 144, "retired");
}

#[test]
fn damaged_truncated_and_foreign_files_are_set_aside_with_the_reason() {
    /// A name, what happens to the file, and what is said about it.
    type Case = (&'static str, fn(&Path), &'static str);
    fn patch(path: &Path, at: usize, byte: u8) {
        let mut bytes = fs::read(path).expect("there");
        bytes[at] ^= byte;
        fs::write(path, bytes).expect("writable");
    }
    let cases: [Case; 8] = [
        ("version", |path| patch(path, 8, 1), "layout version 5 instead of 4"),
        ("byte order", |path| patch(path, 16, 1), "another architecture"),
        ("header", |path| patch(path, 40, 1), "damaged header"),
        ("magic", |path| patch(path, 0, 1), "not a segment"),
        (
            "no magic",
            |path| {
                fs::write(path, vec![0; 8192].into_iter().chain([1; 8]).collect::<Vec<u8>>())
                    .unwrap()
            },
            "not a segment",
        ),
        (
            "shorter",
            |path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(500_000).unwrap(),
            "truncated: 500000 bytes instead of 1048576",
        ),
        (
            "shortest",
            |path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(100).unwrap(),
            "truncated: 100 bytes instead of 4096",
        ),
        ("text", |path| fs::write(path, "hello ".repeat(1000)).unwrap(), "not a segment"),
    ];
    for (name, damage, wanted) in cases {
        let directory = directory();
        let path = directory.path().join("table");
        drop(open_or_create(&path, &options()).expect("made"));
        damage(&path);
        let damaged = fs::read(&path).expect("there");
        assert!(matches!(attach(&path), Err(AttachError::Segment { .. })), "{name}");
        let opened = open_or_create(&path, &options()).expect("made anew");
        let (aside, why) = opened.set_aside.expect("there was another");
        assert!(why.contains(wanted), "{name}: {why}");
        assert_eq!(fs::read(aside).expect("kept").len(), damaged.len());
        assert!(attach(&path).is_ok());
    }
}

#[test]
fn unfinished_creation_is_started_again_and_not_set_aside() {
    let directory = directory();
    let path = directory.path().join("table");
    // What a kill leaves: the name taken, and the segment unfinished beside it.
    for unfinished in [None, Some(vec![]), Some(vec![0; 1 << 20])] {
        fs::write(&path, []).expect("writable");
        if let Some(bytes) = unfinished {
            fs::write(directory.path().join("table~new"), bytes).expect("writable");
        }
        assert!(attach(&path).is_err());
        let opened = open_or_create(&path, &options()).expect("made");
        assert!(opened.recovery.is_none() && opened.set_aside.is_none());
        assert_eq!(names(directory.path()), ["table"]);
    }
}

#[test]
fn segment_beyond_the_free_space_is_refused_with_its_size_and_leaves_nothing() {
    let directory = directory();
    let path = directory.path().join("table");
    // More than any file system here, less than what 32-bit numbers count.
    let options = TableOptions { segment_bytes: 1 << 41, ..options() };
    let error = open_or_create(&path, &options).err().expect("no room");
    let FileError::NoSpace { needed, free, .. } = &error else { panic!("{error}") };
    assert!(*needed == 1 << 41 && free < needed);
    assert!(
        error.to_string().contains("it needs 2199023255552 bytes")
            && error.to_string().contains("segment_bytes")
    );
    assert!(names(directory.path()).is_empty());
}

#[test]
fn options_that_describe_no_table_touch_no_file() {
    let directory = directory();
    let path = directory.path().join("table");
    let error = open_or_create(&path, &TableOptions { segment_bytes: 10_000, ..options() })
        .err()
        .expect("too small");
    assert!(error.to_string().contains("it needs at least"), "{error}");
    assert!(names(directory.path()).is_empty());
    let missing = directory.path().join("missing").join("table");
    assert!(matches!(open_or_create(&missing, &options()), Err(FileError::Io { .. })));
    assert!(matches!(attach(&missing), Err(AttachError::Io { .. })));
}

#[test]
fn retired_segment_is_never_opened_again() {
    let directory = directory();
    let path = directory.path().join("table");
    open_or_create(&path, &options()).expect("made").writers.remove(0).retire();
    let Err(AttachError::Segment { source, .. }) = attach(&path) else { panic!("retired") };
    assert_eq!(source, OpenError::Retired);
    let (_, why) =
        open_or_create(&path, &options()).expect("made anew").set_aside.expect("retired");
    assert_eq!(why, "retired by its writer");
}

#[test]
fn readers_mapping_cannot_be_given_to_a_writer() {
    let directory = directory();
    let path = directory.path().join("table");
    drop(open_or_create(&path, &options()).expect("made"));
    struct ReadOnly(HeapRegion);
    // SAFETY: the heap region's own promises, and less: nobody writes.
    unsafe impl Region for ReadOnly {
        fn base(&self) -> NonNull<u8> {
            self.0.base()
        }
        fn len(&self) -> usize {
            self.0.len()
        }
        fn writable(&self) -> bool {
            false
        }
    }
    let region = Arc::new(ReadOnly(HeapRegion::new(1 << 20)));
    assert!(Writer::create(region.clone(), &options()).is_err());
    assert_eq!(Writer::open(region, &options()).err(), Some(OpenError::NotWritable));
}

#[test]
fn reboot_ends_all_freshness_but_no_entry() {
    struct Booted(HeapRegion, u64);
    // SAFETY: the heap region's own promises.
    unsafe impl Region for Booted {
        fn base(&self) -> NonNull<u8> {
            self.0.base()
        }
        fn len(&self) -> usize {
            self.0.len()
        }
        fn writable(&self) -> bool {
            true
        }
        fn clock_domain(&self) -> u64 {
            self.1
        }
    }
    let memory = HeapRegion::new(1 << 20);
    let boot = |number| Arc::new(Booted(memory.clone(), number));
    let mut writer = Writer::create(boot(1), &options()).expect("fits");
    writer.put(b"key", 0, b"value", 0, 0).expect("room");
    writer.set_freshness(0, u64::MAX);
    drop(writer);
    assert!(Reader::attach(boot(1)).is_ok());
    assert_eq!(Reader::attach(boot(2)).err(), Some(OpenError::OtherBoot));
    let (writer, recovery) = Writer::open(boot(2), &options()).expect("whole");
    assert_eq!((recovery.entries, writer.freshness(0)), (1, 0));
    let mut value = Vec::new();
    assert_eq!(
        Reader::attach(boot(2)).expect("reopened").get(b"key", 0, &mut value),
        Lookup::Stale
    );
}

#[test]
fn a_reader_is_led_to_no_pipe_and_by_no_link() {
    let dir = tempfile::tempdir().unwrap();
    let segment = dir.path().join("segment");
    drop(open_or_create(&segment, &TableOptions::new(1, 2)).unwrap());
    assert!(attach(&segment).is_ok());

    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&segment, &link).unwrap();
    assert!(matches!(attach(&link), Err(AttachError::Io { .. })));

    let pipe = dir.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(matches!(attach(&pipe), Err(AttachError::Io { .. })), "it would block");
}

#[test]
fn resizing_a_table_touches_no_other_and_what_a_crash_left_of_it_goes_at_the_next_opening() {
    let directory = directory();
    let path = |name| directory.path().join(name);
    for name in ["table", "table.new"] {
        let mut opened = open_or_create(path(name), &options()).expect("made");
        opened.writers[0].put(b"key", 0, name.as_bytes(), 0, 0).expect("room");
    }
    let larger = TableOptions { segment_bytes: 2 << 20, ..options() };
    drop(open_or_create(path("table"), &larger).expect("replaced"));
    let mut value = Vec::new();
    for (name, options) in [("table", &larger), ("table.new", &options())] {
        let opened = open_or_create(path(name), options).expect("whole");
        assert!(opened.recovery.is_some(), "{name} is there");
        opened.writers[0].get(b"key", &mut value).expect("its entry, too");
        assert_eq!(value, name.as_bytes());
    }
    // A crash while it was being filled, and then the size that it had before.
    fs::write(path("table~new"), [1; 4096]).expect("writable");
    drop(open_or_create(path("table"), &larger).expect("whole"));
    assert_eq!(names(directory.path()), ["table", "table.new"]);
}

#[test]
fn retired_segment_of_another_size_is_set_aside_and_gives_no_entry_away() {
    let directory = directory();
    let path = directory.path().join("table");
    let mut opened = open_or_create(&path, &options()).expect("made");
    opened.writers[0].put(b"key", 0, b"value", 0, 0).expect("room");
    opened.writers.remove(0).retire();
    drop(opened);
    let larger = TableOptions { segment_bytes: 2 << 20, ..options() };
    let opened = open_or_create(&path, &larger).expect("made anew");
    assert_eq!((opened.carried, opened.writers[0].stats().entries), (None, 0));
    assert_eq!(opened.set_aside.expect("retired").1, "retired by its writer");
}

#[test]
fn clock_offset_of_an_earlier_boot_is_not_carried_over() {
    let directory = directory();
    let path = directory.path().join("table");
    let mut opened = open_or_create(&path, &options()).expect("made");
    opened.writers[0].put(b"key", 0, b"value", 0, 0).expect("room");
    opened.writers[0].set_clock_offset(99);
    drop(opened);
    // The word that names the boot.
    let mut bytes = fs::read(&path).expect("there");
    bytes[152] ^= 1;
    fs::write(&path, bytes).expect("writable");
    let larger = TableOptions { segment_bytes: 2 << 20, ..options() };
    let opened = open_or_create(&path, &larger).expect("replaced");
    assert_eq!(opened.carried.expect("there was another").entries, 1);
    assert_eq!(attach(&path).expect("made").shard(0).clock_offset(), 0);
}

#[test]
fn readers_of_a_segment_that_was_replaced_trust_it_no_more() {
    let directory = directory();
    let path = directory.path().join("table");
    let mut opened = open_or_create(&path, &options()).expect("made");
    opened.writers[0].put(&[4], 4, b"old", 0, 0).expect("room");
    opened.writers[0].set_freshness(4, 10_000);
    let reader = attach(&path).expect("made");
    drop(opened);
    let other = TableOptions { shards: 2, segment_bytes: 2 << 20, ..options() };
    let mut opened = open_or_create(&path, &other).expect("carried over");
    opened.writers[0].put(&[4], 4, b"ended", 0, 0).expect("room");
    let mut value = Vec::new();
    let lookup = reader.get(&[4], 0, &mut value);
    assert!(!matches!(lookup, Lookup::Hit(_)), "{lookup:?} {value:?}");
}
