//! Child processes that write until they are killed: by themselves at a given store, or by their parent at random.
//!
//! `ANNULUS_SHM_KILLS=10000 cargo test -p annulus-shm --release killed` is the long run.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::{Signal, getpid, kill_process};

use crate::protocol::Table;
use crate::region::{FileRegion, Region};
use crate::words::{Mapped, Words};
use crate::writer::Core;
use crate::{Recovery, TableOptions, header, open_or_create};

const DIRECTORY: &str = "ANNULUS_SHM_KILL_DIRECTORY";
const STORES: &str = "ANNULUS_SHM_KILL_STORES";
const RESIZED_DIRECTORY: &str = "ANNULUS_SHM_KILL_RESIZED_DIRECTORY";
const RESIZED_ENTRIES: usize = 200;

/// A mapping that kills its process before a given store.
struct KillWords {
    words: Mapped,
    stores_left: Cell<u64>,
}

impl Words for KillWords {
    fn count(&self) -> usize {
        self.words.count()
    }

    fn load(&self, at: usize) -> u64 {
        self.words.load(at)
    }

    fn store(&self, at: usize, value: u64) {
        match self.stores_left.get().checked_sub(1) {
            Some(left) => self.stores_left.set(left),
            None => kill_process(getpid(), Signal::KILL).expect("we may kill ourselves"),
        }
        self.words.store(at, value);
    }

    fn acquire(&self) {
        self.words.acquire();
    }

    fn release(&self) {
        self.words.release();
    }
}

fn options() -> TableOptions {
    TableOptions {
        segment_bytes: 1 << 20,
        record_size: 128,
        max_value: 8192,
        ..TableOptions::new(1, 2)
    }
}

fn map(path: &Path) -> Mapped {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("made by the parent");
    Mapped::new(Arc::new(FileRegion::map_writable(file).expect("mappable")) as Arc<dyn Region>)
}

#[derive(Clone, Debug)]
enum Operation {
    Put { key: Vec<u8>, partition: u16, value: Vec<u8>, deadline: u64 },
    Remove { key: Vec<u8> },
    SetTimes { key: Vec<u8>, deadline: u64, mark: u64 },
}

/// The n-th operation, the same in parent and child.
fn operation(number: u64) -> Operation {
    let mut rng = StdRng::seed_from_u64(number);
    let name: u8 = rng.random_range(0..100);
    let key = vec![name; 1 + usize::from(name) * 2];
    match rng.random_range(0..10) {
        0 => Operation::Remove { key },
        1 => Operation::SetTimes { key, deadline: rng.random(), mark: rng.random() },
        kind => {
            let most = if kind == 2 { 4000 } else { 100 };
            let value = vec![number as u8; rng.random_range(0..most)];
            Operation::Put { key, partition: name.into(), value, deadline: rng.random() }
        }
    }
}

fn apply<W: Words>(core: &mut Core<W>, operation: &Operation) {
    match operation {
        Operation::Put { key, partition, value, deadline } => {
            core.put(key, *partition, value, (*deadline, 0), crate::Admission::Ordinary)
                .expect("room for 100 keys");
        }
        Operation::Remove { key } => {
            core.remove(key);
        }
        Operation::SetTimes { key, deadline, mark } => {
            core.set_times(key, *deadline, *mark);
        }
    }
}

type Contents = BTreeMap<Vec<u8>, (u16, Vec<u8>, u64, u64)>;

fn apply_to_model(contents: &mut Contents, operation: &Operation) {
    match operation.clone() {
        Operation::Put { key, partition, value, deadline } => {
            contents.insert(key, (partition, value, deadline, 0));
        }
        Operation::Remove { key } => {
            contents.remove(&key);
        }
        Operation::SetTimes { key, deadline, mark } => {
            if let Some(entry) = contents.get_mut(&key) {
                (entry.2, entry.3) = (deadline, mark);
            }
        }
    }
}

/// Not a test by itself: the child's part, when the parent asks for it.
#[test]
fn child_writes_until_it_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let stores = std::env::var(STORES).map_or(u64::MAX, |stores| stores.parse().expect("a number"));
    let acknowledged = map(&Path::new(&directory).join("acknowledged"));
    let words = KillWords {
        words: map(&Path::new(&directory).join("segment")),
        stores_left: Cell::new(stores),
    };
    let facts = header::inspect(&words.words).expect("made by the parent");
    let table = Table { words, geometry: facts.geometry, hash_seed: facts.hash_seed };
    let (mut core, _) = Core::recover(table);
    loop {
        let number = acknowledged.load(0);
        apply(&mut core, &operation(number));
        acknowledged.store(0, number + 1);
    }
}

fn spawn_child(directory: &Path, stores: Option<u64>) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("known"));
    command.args(["--exact", "tests::kill::child_writes_until_it_is_killed"]);
    command.env(DIRECTORY, directory);
    if let Some(stores) = stores {
        command.env(STORES, stores.to_string());
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process")
}

fn contents<W: Words>(core: &Core<W>) -> Contents {
    let mut contents = Contents::new();
    let mut value = Vec::new();
    core.scan(0, usize::MAX, &mut |item| {
        let found = core.get(item.key, &mut value).expect("scanned");
        contents.insert(
            item.key.to_vec(),
            (found.partition, value.clone(), found.deadline, found.mark),
        );
    });
    contents
}

fn kills() -> u64 {
    std::env::var("ANNULUS_SHM_KILLS")
        .map_or(100, |kills| kills.parse().expect("ANNULUS_SHM_KILLS is a number"))
}

/// Kills `kills` children, and after each compares the segment with what was acknowledged.
fn kill_children(seed: u64, kills: u64, by_themselves: bool) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("segment");
    let made = open_or_create(&path, &options()).expect("room for 1 MiB");
    drop(made);
    std::fs::write(directory.path().join("acknowledged"), [0; 4096]).expect("room for a page");
    let acknowledged = map(&directory.path().join("acknowledged"));
    let mut rng = StdRng::seed_from_u64(seed);
    let mut model = Contents::new();
    let mut modelled = 0;
    for kill in 0..kills {
        let stores = by_themselves.then(|| rng.random_range(0..3000));
        let mut child = spawn_child(directory.path(), stores);
        if !by_themselves {
            let wanted = modelled + rng.random_range(1..500);
            while acknowledged.load(0) < wanted && child.try_wait().expect("our child").is_none() {
                std::thread::yield_now();
            }
            child.kill().expect("our child");
        }
        let status = child.wait().expect("our child");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");

        let acknowledged_now = acknowledged.load(0);
        while modelled < acknowledged_now {
            apply_to_model(&mut model, &operation(modelled));
            modelled += 1;
        }
        let words = map(&path);
        let facts = header::inspect(&words).expect("still a segment");
        let (core, recovery) =
            Core::recover(Table { words, geometry: facts.geometry, hash_seed: facts.hash_seed });
        core.audit();
        let Recovery {
            dropped_torn, dropped_malformed, dropped_misplaced, dropped_duplicate, ..
        } = recovery;
        assert_eq!(
            (dropped_torn, dropped_malformed, dropped_misplaced),
            (0, 0, 0),
            "kill {kill} of seed {seed}"
        );
        assert!(dropped_duplicate <= 1);

        // All that was acknowledged, and of the operation under way all or nothing.
        let now = contents(&core);
        let mut next = model.clone();
        apply_to_model(&mut next, &operation(modelled));
        if now != model && now != next {
            let Operation::SetTimes { key, deadline, .. } = operation(modelled) else {
                panic!("kill {kill} of seed {seed}: neither before nor after operation {modelled}");
            };
            model.get_mut(&key).expect("it changed").2 = deadline;
            assert_eq!(
                now, model,
                "kill {kill} of seed {seed}: a deadline without its mark, and nothing else"
            );
        }
    }
    println!("{kills} kills, {modelled} operations acknowledged");
}

#[test]
fn writer_killed_at_any_store_leaves_all_that_was_acknowledged() {
    kill_children(1, kills() / 2, true);
}

#[test]
fn writer_killed_at_random_leaves_all_that_was_acknowledged() {
    kill_children(2, kills().div_ceil(2), false);
}

/// The sizes that a table has in turn.
fn resized(number: u64) -> TableOptions {
    let segment_bytes = [1 << 20, 3 << 19, 2 << 20][number as usize % 3];
    TableOptions { segment_bytes, instance: number, ..options() }
}

/// Not a test by itself, as above.
#[test]
fn child_resizes_until_it_is_killed() {
    let Ok(directory) = std::env::var(RESIZED_DIRECTORY) else { return };
    let acknowledged = map(&Path::new(&directory).join("acknowledged"));
    loop {
        let number = acknowledged.load(0) + 1;
        let path = Path::new(&directory).join("segment");
        let opened = open_or_create(path, &resized(number)).expect("room for both");
        assert_eq!(opened.writer.stats().entries, RESIZED_ENTRIES);
        acknowledged.store(0, number);
    }
}

#[test]
fn table_killed_while_it_was_resized_has_all_its_entries_and_leaves_nothing_lying_about() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("segment");
    let value = |number: usize| vec![number as u8; number * 5];
    let mut opened = open_or_create(&path, &resized(0)).expect("room for 1 MiB");
    for number in 0..RESIZED_ENTRIES {
        let key = number.to_ne_bytes();
        opened.writer.put(&key, 7, &value(number), 0, number as u64).expect("room");
    }
    drop(opened);
    std::fs::write(directory.path().join("acknowledged"), [0; 4096]).expect("room for a page");
    let acknowledged = map(&directory.path().join("acknowledged"));
    let mut rng = StdRng::seed_from_u64(3);
    for kill in 0..kills() / 5 {
        let mut command = Command::new(std::env::current_exe().expect("known"));
        command.args(["--exact", "tests::kill::child_resizes_until_it_is_killed"]);
        command.env(RESIZED_DIRECTORY, directory.path());
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process");
        let wanted = acknowledged.load(0) + rng.random_range(1..4);
        while acknowledged.load(0) < wanted && child.try_wait().expect("our child").is_none() {
            std::thread::yield_now();
        }
        // Somewhere in the next one.
        (0..rng.random_range(0..20_000)).for_each(|_| std::hint::spin_loop());
        child.kill().expect("our child");
        let status = child.wait().expect("our child");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");

        // Of the size before or after, or of a third.
        let mut opened =
            open_or_create(&path, &resized(rng.random_range(0..3))).expect("room for both");
        assert_eq!(opened.set_aside, None);
        assert!(opened.recovery.is_some(), "kill {kill}: it is there");
        let mut found = Vec::new();
        for number in 0..RESIZED_ENTRIES {
            let key = number.to_ne_bytes();
            let facts = opened.writer.get(&key, &mut found).expect("carried over");
            assert_eq!((facts.mark, &found), (number as u64, &value(number)), "kill {kill}");
        }
        assert_eq!(opened.writer.stats().entries, RESIZED_ENTRIES);
        assert_eq!(opened.writer.verify(0, usize::MAX).dropped, 0);
        let names = std::fs::read_dir(directory.path()).expect("readable").count();
        assert_eq!(names, 2, "kill {kill}: the segment and what was acknowledged");
    }
}
