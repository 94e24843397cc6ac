//! Readers in other processes while the writer writes as fast as it can.

use std::process::{Command, Stdio};

use annulus_shm::{Hit, Lookup, Reader, TableOptions, Writer, open_or_create};

const SEGMENT: &str = "ANNULUS_SHM_READ_SEGMENT";
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
    let reader = Reader::attach_file(path).expect("made by the parent");
    let mut newest = [0; KEYS as usize];
    let (mut hits, mut tries, mut contended) = (0, 0, 0);
    let mut found = Vec::new();
    while hits < HITS {
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
        assert!(contended < 10 * HITS, "hardly a hit");
    }
    println!("{hits} hits of {tries} tries, up to version {}", newest[0]);
}

#[test]
fn readers_in_other_processes_see_whole_values_that_only_get_newer() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("table");
    let options =
        TableOptions { segment_bytes: 512 << 10, record_size: 256, ..TableOptions::new(1, 2) };
    let options = TableOptions { max_value: 4096, ..options };
    let mut writer = open_or_create(&path, &options).expect("made").writer;
    writer.set_freshness(1, u64::MAX);
    let put = |writer: &mut Writer, number: u64, version: u64| {
        writer.put(&key(number), 1, &value(number, version), 0, version).expect("room");
    };
    (0..KEYS).for_each(|number| put(&mut writer, number, 1));
    let mut children: Vec<_> = (0..2)
        .map(|_| {
            Command::new(std::env::current_exe().expect("known"))
                .args(["--exact", "child_reads_until_it_has_seen_enough", "--nocapture"])
                .env(SEGMENT, &path)
                .stdout(Stdio::piped())
                .spawn()
                .expect("a process")
        })
        .collect();
    let mut version = 1;
    while children.iter_mut().any(|child| child.try_wait().expect("our child").is_none()) {
        for _ in 0..100 {
            version += 1;
            (0..KEYS).for_each(|number| put(&mut writer, number, version));
        }
    }
    for child in children {
        let output = child.wait_with_output().expect("our child");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains(&format!("{HITS} hits of")), "{said}");
        println!("{}", said.lines().find(|line| line.contains("hits of")).expect("just seen"));
    }
    println!("{version} versions of {KEYS} keys");
}
