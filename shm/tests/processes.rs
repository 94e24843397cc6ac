//! Readers in other processes while the writer writes as fast as it can.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use annulus_shm::{Hit, Lookup, Shards, TableOptions, Writer, open_or_create};

const SEGMENT: &str = "ANNULUS_SHM_READ_SEGMENT";
/// Set for readers that go on, however much they have seen, until there is a key of this name.
const END: &str = "ANNULUS_SHM_READ_END";
const KEYS: u64 = 16;
const HITS: u64 = 300_000;

fn key(number: u64) -> [u8; 8] {
    number.to_ne_bytes()
}

/// A value that shows whose it is, which version, and whether all of it is there.
fn value(number: u64, version: u64) -> Vec<u8> {
    let words = 2 + (version * 7 + number) % 150;
    (0..words)
        .flat_map(|at| (version << 16 ^ number << 8 ^ at ^ words << 48).to_ne_bytes())
        .collect()
}

/// Not a test by itself: the reading process's part, when the parent asks for it.
#[test]
fn child_reads_until_it_has_seen_enough() {
    let Ok(path) = std::env::var(SEGMENT) else { return };
    let reader = Shards::attach_file(path, |_| 0).expect("made by the parent");
    let mut newest = [0; KEYS as usize];
    let (mut hits, mut tries, mut contended) = (0, 0, 0);
    let mut found = Vec::new();
    let mut ended = std::env::var(END).is_err();
    while hits < HITS || !ended {
        tries += 1;
        let number = tries % KEYS;
        match reader.get(&key(number), 0, &mut found) {
            Lookup::Hit(Hit { mark, .. }) => {
                let first = u64::from_ne_bytes(found[..8].try_into().expect("at least two words"));
                let version = (first ^ number << 8) << 16 >> 32;
                assert_eq!(found, value(number, version), "torn or foreign");
                assert!(version >= newest[number as usize], "went back");
                assert_eq!(mark, version);
                newest[number as usize] = version;
                hits += 1;
            }
            Lookup::Contended => contended += 1,
            other => panic!("a key that is always there: {other:?}"),
        }
        assert!(contended < 10 * hits.max(HITS), "hardly a hit");
        if !ended && tries % 1_000 == 0 {
            ended = matches!(reader.get(END.as_bytes(), 0, &mut found), Lookup::Hit(_));
        }
    }
    println!("{hits} hits of {tries} tries, up to version {}", newest[0]);
}

fn spawn_reader(path: &Path, until_end: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("known"));
    if until_end {
        command.env(END, "1");
    }
    command
        .args(["--exact", "child_reads_until_it_has_seen_enough", "--nocapture"])
        .env(SEGMENT, path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process")
}

/// Says what the reader said at its end, which was a good one.
fn last_words(child: Child) -> String {
    let output = child.wait_with_output().expect("our child");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains(" hits of "), "{said}");
    said.lines().find(|line| line.contains("hits of")).expect("just seen").to_owned()
}

fn put_all(writer: &mut Writer, version: u64) {
    for number in 0..KEYS {
        writer.put(&key(number), 1, &value(number, version), 0, version).expect("room");
    }
}

fn make_table(path: &Path) -> Writer {
    let options =
        TableOptions { segment_bytes: 512 << 10, record_size: 256, ..TableOptions::new(1, 2) };
    let options = TableOptions { max_value: 4096, ..options };
    let mut writer = open_or_create(path, &options).expect("made").writers.remove(0);
    writer.set_freshness(1, u64::MAX);
    put_all(&mut writer, 1);
    writer
}

#[test]
fn readers_in_other_processes_see_whole_values_that_only_get_newer() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("table");
    let mut writer = make_table(&path);
    let mut children = [spawn_reader(&path, false), spawn_reader(&path, false)];
    let mut version = 1;
    while children.iter_mut().any(|child| child.try_wait().expect("our child").is_none()) {
        for _ in 0..100 {
            version += 1;
            put_all(&mut writer, version);
        }
    }
    for child in children {
        println!("{}", last_words(child));
    }
    println!("{version} versions of {KEYS} keys");
}

#[test]
fn reader_stopped_or_killed_in_mid_copy_hurts_nobody() {
    const KILLS: u64 = 10;
    const STOPS: u64 = 10;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("table");
    let mut writer = make_table(&path);
    let reader = Shards::attach_file(&path, |_| 0).expect("just made");
    let (bystander, sleeper) = (spawn_reader(&path, true), spawn_reader(&path, true));
    let sleeper_pid = Pid::from_child(&sleeper);
    let mut rng = StdRng::seed_from_u64(5);
    let mut version = 1;
    let mut found = Vec::new();
    for _ in 0..KILLS {
        let mut victim = spawn_reader(&path, true);
        for _ in 0..STOPS {
            for _ in 0..rng.random_range(1..200) {
                version += 1;
                put_all(&mut writer, version);
            }
            kill_process(sleeper_pid, Signal::STOP).expect("our child");
            let (_, status) = waitpid(Some(sleeper_pid), WaitOptions::UNTRACED)
                .expect("our child")
                .expect("a call that waits");
            assert!(status.stopped(), "{status:?}");
            // It may stand in the middle of a copy; all that it could be copying is written anew.
            for _ in 0..20 {
                version += 1;
                put_all(&mut writer, version);
            }
            for number in 0..KEYS {
                let lookup = reader.get(&key(number), 0, &mut found);
                assert!(matches!(lookup, Lookup::Hit(hit) if hit.mark == version), "{lookup:?}");
                assert_eq!(found, value(number, version));
            }
            kill_process(sleeper_pid, Signal::CONT).expect("our child");
        }
        victim.kill().expect("our child");
        victim.wait().expect("our child");
    }
    writer.put(END.as_bytes(), 1, &[], 0, 0).expect("room");
    // Both saw enough of whole values, in order, and no others.
    println!("bystander: {}", last_words(bystander));
    println!("sleeper: {}", last_words(sleeper));
    println!("{KILLS} kills, {} stops, {version} versions of {KEYS} keys", KILLS * STOPS);
}
