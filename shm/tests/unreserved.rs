//! Segments that get the memory for their entries when somebody needs it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use annulus_shm::{
    Admission, FileError, Huge, Lookup, Opened, PutError, ReserveError, Shards, TableOptions,
    open_or_create, open_or_create_unreserved,
};
use rustix::fs::FallocateFlags;

const SIZE: u64 = 12 << 20;

fn options() -> TableOptions {
    TableOptions { segment_bytes: SIZE, shards: 3, ..TableOptions::new(1, 2) }
}

/// Elsewhere than in memory all is reserved at once.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a directory in memory")
}

fn taken(path: &Path) -> u64 {
    std::fs::metadata(path).expect("it is there").blocks() * 512
}

/// A key's first byte.
fn partition_of(key: &[u8]) -> u16 {
    key.first().copied().unwrap_or_default().into()
}

fn put(opened: &mut Opened, key: &[u8]) -> Result<(), PutError> {
    let (partition, shards) = (partition_of(key), opened.writers.len() as u16);
    let writer = &mut opened.writers[usize::from(annulus_shm::shard_of(partition, shards))];
    writer.set_freshness(partition, u64::MAX);
    writer.put(key, partition, b"value", 0, 0).map(|_| ())
}

fn finds(shards: &Shards, key: &[u8]) -> bool {
    matches!(shards.get(key, 0, &mut Vec::new()), Lookup::Hit(_))
}

#[test]
fn nothing_is_written_before_memory_was_reserved_for_it() {
    let directory = directory();
    let path = directory.path().join("table");
    let mut opened = open_or_create_unreserved(&path, &options()).expect("made");
    let before = taken(&path);
    assert!(before < SIZE / 8, "{before} bytes for headers and index");
    assert!(!opened.region.is_reserved());

    for key in [b"a", b"b", b"c"] {
        assert_eq!(put(&mut opened, key), Err(PutError::Unreserved));
    }
    for admission in [Admission::Reserve, Admission::Near] {
        let refused = opened.writers[1].put_as(admission, b"a", 1, b"value", (0, 0));
        assert_eq!(refused, Err(PutError::Unreserved));
    }
    let reader = Shards::attach_file(&path, partition_of).expect("made");
    for key in 0..=u8::MAX {
        assert!(!finds(&reader, &[key]));
    }
    assert_eq!(reader.scan(0, usize::MAX, 0, &mut |_, _| panic!("nothing is there")), 0);
    for writer in &mut opened.writers {
        assert!(!writer.remove(b"a"));
        assert_eq!(writer.verify(0, usize::MAX).checked, 0);
    }
    let collapsed = opened.region.collapse(0, SIZE as usize);
    assert!(matches!(collapsed, Ok(Huge::Unsuited)), "{collapsed:?}");
    assert_eq!(taken(&path), before, "nobody touched more");

    opened.region.reserve().expect("room for 12 MiB");
    assert!(opened.region.is_reserved() && opened.writers[2].is_reserved());
    assert!(taken(&path) >= SIZE);
    for key in [b"a", b"b", b"c"] {
        put(&mut opened, key).expect("room");
        assert!(finds(&reader, key), "who had attached before finds it");
    }
    opened.region.reserve().expect("it is there");
    assert!(finds(&reader, b"a"));
}

#[test]
fn what_is_opened_again_has_the_memory_that_it_had() {
    let directory = directory();
    let path = directory.path().join("table");
    drop(open_or_create_unreserved(&path, &options()).expect("made"));
    let little = taken(&path);
    let opened = open_or_create_unreserved(&path, &options()).expect("whole");
    assert_eq!(opened.recovery.expect("it was there").entries, 0);
    assert!(!opened.region.is_reserved() && opened.set_aside.is_none());
    assert_eq!(taken(&path), little);

    opened.region.reserve().expect("room for 12 MiB");
    drop(opened);
    let mut opened = open_or_create_unreserved(&path, &options()).expect("whole");
    assert!(opened.region.is_reserved());
    put(&mut opened, b"key").expect("room");
    drop(opened);
    let opened = open_or_create_unreserved(&path, &options()).expect("whole");
    assert_eq!(opened.recovery.expect("it was there").entries, 1);
    assert!(opened.region.is_reserved());
}

#[test]
fn who_needs_all_memory_at_once_has_it_from_an_unreserved_segment() {
    let directory = directory();
    let path = directory.path().join("table");
    drop(open_or_create_unreserved(&path, &options()).expect("made"));
    let reader = Shards::attach_file(&path, partition_of).expect("made");
    let mut opened = open_or_create(&path, &options()).expect("whole");
    assert!(opened.region.is_reserved() && opened.set_aside.is_none());
    assert!(taken(&path) >= SIZE);
    put(&mut opened, b"key").expect("room");
    assert!(finds(&reader, b"key"), "it is the same segment");
}

#[test]
fn a_segment_of_another_shape_is_unreserved_again_unless_the_old_one_had_memory() {
    let directory = directory();
    let path = directory.path().join("table");
    let larger = TableOptions { segment_bytes: 2 * SIZE, ..options() };
    drop(open_or_create_unreserved(&path, &options()).expect("made"));
    let mut opened = open_or_create_unreserved(&path, &larger).expect("replaced");
    assert_eq!(opened.carried.expect("it was there").entries, 0);
    assert!(!opened.region.is_reserved());
    assert!(taken(&path) < SIZE / 8);

    opened.region.reserve().expect("room for 24 MiB");
    put(&mut opened, b"key").expect("room");
    drop(opened);
    let opened = open_or_create_unreserved(&path, &options()).expect("carried over");
    assert_eq!(opened.carried.expect("it was there").entries, 1);
    assert!(opened.region.is_reserved());
    let holds = |writer: &annulus_shm::Writer| writer.get(b"key", &mut Vec::new()).is_some();
    assert!(opened.writers.iter().any(holds));
}

#[test]
fn entries_behind_holes_that_somebody_cut_have_memory_before_they_are_read() {
    let directory = directory();
    let path = directory.path().join("table");
    let mut opened = open_or_create(&path, &options()).expect("made");
    put(&mut opened, b"another key").expect("room");
    drop(opened);
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("ours");
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, flags, SIZE - (2 << 20), 2 << 20).expect("a file in memory");
    assert!(taken(&path) < SIZE);
    let opened = open_or_create_unreserved(&path, &options()).expect("whole");
    assert!(opened.region.is_reserved());
    assert!(taken(&path) >= SIZE);
    let kept = opened.writers.iter().map(|writer| writer.stats().entries).sum::<usize>();
    assert_eq!(kept, 1, "it lay elsewhere");
}

#[test]
fn memory_that_is_not_to_be_had_is_an_error_and_may_be_asked_for_again() {
    let directory = directory();
    let path = directory.path().join("table");
    // More than any file system here, to learn what this one has.
    let probe = TableOptions { segment_bytes: 1 << 41, ..options() };
    let Some(FileError::NoSpace { free, .. }) = open_or_create(&path, &probe).err() else {
        panic!("2 TiB of memory")
    };
    // Of large records, which take the writer little memory of its own.
    let options = TableOptions {
        segment_bytes: 2 * free,
        shards: 1,
        record_size: 1 << 16,
        max_value: 1 << 10,
        ..TableOptions::new(1, 2)
    };
    let mut opened = open_or_create_unreserved(&path, &options).expect("the index has room");
    for _ in 0..2 {
        let error = opened.region.reserve().expect_err("no room");
        let ReserveError::NoSpace { needed, free: left } = error else { panic!("{error}") };
        assert!(left < needed && needed < 2 * free, "{needed} needed, {left} free");
        assert!(!opened.region.is_reserved());
        assert_eq!(put(&mut opened, b"key"), Err(PutError::Unreserved));
        assert!(taken(&path) < free / 8);
    }
    drop(opened);
    let error = open_or_create(&path, &options).err().expect("no room");
    assert!(matches!(error, FileError::NoSpace { .. }), "{error}");
    assert!(error.to_string().contains("no room for"), "{error}");
    let reopened = open_or_create_unreserved(&path, &options).expect("as it was");
    assert!(!reopened.region.is_reserved());
}
