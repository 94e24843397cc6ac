//! On a tmpfs whose pages are large from the start.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use annulus_shm::{Huge, Lookup, Shards, TableOptions, open_or_create};

/// Set in the child, which runs where such a file system is mounted.
const DIRECTORY: &str = "ANNULUS_SHM_HUGE_DIRECTORY";
const SCRIPT: &str = "mount -t tmpfs -o huge=always,size=64m tmpfs \"$0\" || exit 77; exec \"$@\"";

/// Symptom: with `shm_dir` on a tmpfs mounted `huge=`, acknowledged sessions were gone at the first look of another
/// process. Cause: `MADV_COLLAPSE` maps large pages that were reserved but never touched, without clearing them; the
/// next fault of another mapping clears them. Fix: `FileRegion::collapse` reads each page first.
#[test]
fn what_is_written_to_collapsed_pages_is_there_for_other_processes() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return write_collapsed_and_read(&PathBuf::from(directory));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let name = "what_is_written_to_collapsed_pages_is_there_for_other_processes";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT])
        .arg(dir.path())
        .arg(std::env::current_exe().expect("a test is a file"))
        .args(["--exact", name, "--nocapture"])
        .env(DIRECTORY, dir.path())
        .output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) if output.status.code() == Some(101) => {
            panic!("{}", String::from_utf8_lossy(&output.stderr))
        }
        // Whether a user may mount in a namespace of its own is the machine's affair.
        other => eprintln!("not checked, no tmpfs can be mounted here: {other:?}"),
    }
}

/// A new segment is reserved in huge pages where the kernel has some.
#[test]
fn a_new_segment_lies_in_huge_pages_at_once() {
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let options = TableOptions { segment_bytes: 16 << 20, ..TableOptions::new(1, 2) };
    let probe = open_or_create(dir.path().join("probe"), &options).expect("a table");
    if !matches!(probe.region.collapse(0, 2 << 20), Ok(Huge::Collapsed)) {
        return eprintln!("not checked, this kernel does not collapse");
    }
    let mut made = open_or_create(dir.path().join("segment"), &options).expect("a table");
    made.writers[0].put(b"key", 7, b"value", 0, 0).expect("there is room");
    assert!(made.region.huge_bytes() > 0);
    let blocks = std::fs::metadata(dir.path().join("segment")).expect("it is there").blocks();
    assert!(blocks * 512 >= options.segment_bytes, "all of it is reserved");
}

fn write_collapsed_and_read(directory: &Path) {
    let path = directory.join("segment");
    let options = TableOptions { segment_bytes: 16 << 20, ..TableOptions::new(1, 2) };
    let mut writer = open_or_create(&path, &options).expect("a table").writers.remove(0);
    match writer.region().collapse(0, options.segment_bytes as usize) {
        Ok(Huge::Collapsed) => {}
        other => return eprintln!("not checked, this kernel does not collapse: {other:?}"),
    }
    writer.set_freshness(7, u64::MAX);
    let keys: Vec<String> = (0..1_000).map(|number| format!("key {number}")).collect();
    for key in &keys {
        writer.put(key.as_bytes(), 7, key.as_bytes(), 0, 0).expect("there is room");
    }
    let reader = Shards::attach_file(&path, |_| 0).expect("it attaches");
    let mut value = Vec::new();
    for key in &keys {
        assert!(matches!(reader.get(key.as_bytes(), 0, &mut value), Lookup::Hit(_)), "{key}");
        assert_eq!(value, key.as_bytes());
    }
}
