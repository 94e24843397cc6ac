use std::io::BufReader;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use tempfile::TempDir;

use super::super::Lines;
use super::*;
use crate::archive::tests::session;

fn line_bytes() -> u64 {
    let mut line = Vec::new();
    write_line(&session(1), &mut line);
    line.len() as u64
}

fn at(dir: &TempDir) -> PathBuf {
    dir.path().join("archive")
}

fn files(dir: &TempDir, bytes_max: u64) -> Files {
    Files::new(at(dir), "t".to_owned(), bytes_max)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("it is there");
    let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<_> = entries.map(name).map(|it| it.into_string().expect("text")).collect();
    names.sort();
    names
}

/// What can be read of all files, and how many lines cannot.
fn read(directory: &Path) -> (Vec<Overflowed>, usize) {
    let (mut sessions, mut wrong) = (Vec::new(), 0);
    for name in names(directory) {
        let file = File::open(directory.join(name)).expect("it is there");
        for line in Lines::new(BufReader::new(file)) {
            match line.expect("it is read").1 {
                Ok(session) => sessions.push(session),
                Err(_) => wrong += 1,
            }
        }
    }
    (sessions, wrong)
}

#[test]
fn what_is_appended_is_read_and_is_for_nobody_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut files = files(&dir, 1 << 20);
    files.append(&[session(1), session(2)]).expect("written");
    files.append(&[session(3)]).expect("written");
    let (sessions, wrong) = read(&at(&dir));
    assert_eq!((sessions, wrong), (vec![session(1), session(2), session(3)], 0));
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&at(&dir)), 0o700);
    assert_eq!(mode(&at(&dir).join("t.00000001.jsonl")), 0o600);
}

#[test]
fn files_are_full_one_after_the_other_and_the_oldest_goes() {
    let dir = tempfile::tempdir().expect("a directory");
    let line = line_bytes();
    let bytes_max = 80 * line;
    let mut files = files(&dir, bytes_max);
    let others = [
        "other.00000001.jsonl",
        "t.1.jsonl",
        "t.jsonl",
        "t.00000001.00000001.jsonl",
        // No number comes after that.
        "t.18446744073709551615.jsonl",
    ];
    fs::create_dir(at(&dir)).expect("made");
    for other in others {
        fs::write(at(&dir).join(other), "{}\n").expect("written");
    }
    for batch in 0..40u64 {
        let sessions: Vec<_> = (0..7).map(|number| session(batch * 7 + number)).collect();
        files.append(&sessions).expect("written");
        let ours = names(&at(&dir)).into_iter().filter(|name| !others.contains(&name.as_str()));
        let size = |name| fs::metadata(at(&dir).join(name)).expect("it is there").len();
        let sizes: Vec<u64> = ours.map(size).collect();
        assert!(sizes.iter().all(|size| *size <= 10 * line), "{sizes:?}");
        assert!(sizes.iter().sum::<u64>() <= bytes_max, "{sizes:?}");
    }
    let (sessions, _) = read(&at(&dir));
    // In each moment the seven whole ones are there.
    let first = 280 - sessions.len() as u64;
    assert!(sessions.len() > 70, "{}", sessions.len());
    assert_eq!(sessions, (first..280).map(session).collect::<Vec<_>>());
    assert_eq!(files.take_removed(), 28 - 8);
    assert_eq!(files.take_removed(), 0);
    for other in others {
        assert!(at(&dir).join(other).exists(), "{other}");
    }
}

#[test]
fn a_restarted_node_goes_on_after_the_last_file_and_ends_a_line_that_was_cut_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let bytes_max = 80 * line_bytes();
    let sessions: Vec<_> = (0..25).map(session).collect();
    files(&dir, bytes_max).append(&sessions).expect("written");
    let last = at(&dir).join("t.00000003.jsonl");
    let torn = fs::metadata(&last).expect("it is there").len() - 3;
    OpenOptions::new().write(true).open(&last).and_then(|file| file.set_len(torn)).expect("cut");
    files(&dir, bytes_max).append(&[session(25)]).expect("written");
    assert_eq!(names(&at(&dir)).len(), 3);
    let (sessions, wrong) = read(&at(&dir));
    let expected: Vec<_> = (0..24).chain([25]).map(session).collect();
    assert_eq!((sessions, wrong), (expected, 1));
}

#[test]
fn a_full_disk_is_an_error_and_it_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut files = files(&dir, 1 << 20);
    files.append(&[session(1)]).expect("written");
    let path = at(&dir).join("t.00000002.jsonl");
    symlink("/dev/full", &path).expect("made");
    fs::remove_file(at(&dir).join("t.00000001.jsonl")).expect("removed");
    for _ in 0..2 {
        let error = files.append(&[session(2)]).expect_err("it is full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
        assert!(!error.to_string().contains("key"), "{error}");
    }
    fs::remove_file(&path).expect("removed");
    files.append(&[session(2)]).expect("written");
    assert_eq!(read(&at(&dir)), (vec![session(2)], 0));
}

#[test]
fn a_part_of_a_batch_that_did_not_fit_is_taken_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut files = files(&dir, 1 << 20);
    files.append(&[session(1)]).expect("written");
    let path = at(&dir).join("t.00000001.jsonl");
    let before = fs::read(&path).expect("it is there");
    // Opened for reading, it takes nothing.
    let last = files.last();
    last.file = File::open(&path).expect("it is there");
    files.append(&[session(2)]).expect_err("it takes nothing");
    assert_eq!(fs::read(&path).expect("it is there"), before);
    files.append(&[session(2)]).expect("written");
    assert_eq!(read(&at(&dir)), (vec![session(1), session(2)], 0));
}

/// The rest of it found no place.
#[test]
fn the_whole_chunks_of_a_batch_that_failed_are_taken_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut files = files(&dir, 80 * line_bytes());
    files.append(&[session(0)]).expect("written");
    let path = at(&dir).join("t.00000001.jsonl");
    let before = fs::read(&path).expect("it is there");
    let in_the_way = at(&dir).join("t.00000002.jsonl");
    fs::create_dir(&in_the_way).expect("made");
    let sessions: Vec<_> = (1..20).map(session).collect();
    files.append(&sessions).expect_err("there is no second file");
    assert_eq!(fs::read(&path).expect("it is there"), before);
    fs::remove_dir(&in_the_way).expect("removed");
    files.append(&sessions).expect("written");
    assert_eq!(read(&at(&dir)), ((0..20).map(session).collect(), 0));
}

/// Those that were made for it are none of it either, and no older one goes for what is tried again.
#[test]
fn a_batch_that_failed_leaves_no_file_and_takes_none_away_when_it_is_tried_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut files = files(&dir, 80 * line_bytes());
    let before: Vec<_> = (0..70).map(session).collect();
    files.append(&before).expect("written");
    let in_the_way = at(&dir).join("t.00000009.jsonl");
    fs::create_dir(&in_the_way).expect("made");
    let sessions: Vec<_> = (70..95).map(session).collect();
    files.append(&sessions).expect_err("there is no ninth file");
    assert_eq!(names(&at(&dir)).len(), 7 + 1);
    fs::remove_dir(&in_the_way).expect("removed");
    assert_eq!(read(&at(&dir)).0, before);
    files.append(&sessions).expect("written");
    assert_eq!(read(&at(&dir)), ((0..95).map(session).collect(), 0));
    files.append(&[session(95)]).expect("written");
    assert!(files.take_removed() > 0, "the oldest go with the next");
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_until_it_can() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut files = files(&dir, 1 << 20);
    fs::write(at(&dir), "in the way").expect("written");
    files.append(&[session(1)]).expect_err("there is no directory");
    fs::remove_file(at(&dir)).expect("removed");
    files.append(&[session(1)]).expect("written");
    assert_eq!(read(&at(&dir)), (vec![session(1)], 0));
}

#[test]
fn files_that_somebody_took_away_are_missed_by_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut files = files(&dir, 80 * line_bytes());
    let sessions: Vec<_> = (0..35).map(session).collect();
    files.append(&sessions).expect("written");
    let moved = dir.path().join("moved.jsonl");
    fs::rename(at(&dir).join("t.00000004.jsonl"), &moved).expect("moved");
    fs::remove_file(at(&dir).join("t.00000001.jsonl")).expect("removed");
    let size = fs::metadata(&moved).expect("it is there").len();
    files.append(&(35..200).map(session).collect::<Vec<_>>()).expect("written");
    assert_eq!(fs::metadata(&moved).expect("it is there").len(), size, "nothing goes there");
    fs::remove_dir_all(at(&dir)).expect("removed");
    files.append(&[session(200)]).expect("written");
    assert_eq!(read(&at(&dir)), (vec![session(200)], 0));
}
