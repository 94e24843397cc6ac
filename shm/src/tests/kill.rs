//! Child processes that write until they are killed or stopped: by themselves at a given store, or by their parent at
//! random.
//!
//! `ANNULUS_SHM_KILLS=10000 cargo test -p annulus-shm --release killed` is the long run.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};

use crate::region::{FileRegion, Region};
use crate::table::Table;
use crate::words::{Mapped, Words};
use crate::writer::Core;
use crate::{FileError, Lookup, Opened, Recovery, Shards, TableOptions, header, open_or_create};

const DIRECTORY: &str = "ANNULUS_SHM_KILL_DIRECTORY";
const STORES: &str = "ANNULUS_SHM_KILL_STORES";
const STOPS: &str = "ANNULUS_SHM_KILL_ONLY_STOPS";
const RESIZED_DIRECTORY: &str = "ANNULUS_SHM_KILL_RESIZED_DIRECTORY";
const MADE_DIRECTORY: &str = "ANNULUS_SHM_KILL_MADE_DIRECTORY";
const TWO_DIRECTORY: &str = "ANNULUS_SHM_KILL_TWO_DIRECTORY";
const RESIZED_ENTRIES: usize = 200;

/// A mapping that kills its process before a given store, or stops it before every so many stores.
struct KillWords {
    words: Mapped,
    stores_left: Cell<u64>,
    stops: Option<Stops>,
}

/// Where and how a process stops itself.
struct Stops {
    every: u64,
    /// How often it did, for as long as its parent has not said so too.
    count: Cell<u64>,
    seen: Mapped,
}

impl Words for KillWords {
    fn count(&self) -> usize {
        self.words.count()
    }

    fn load(&self, at: usize) -> u64 {
        self.words.load(at)
    }

    fn store(&self, at: usize, value: u64) {
        match (self.stores_left.get().checked_sub(1), &self.stops) {
            (Some(left), _) => self.stores_left.set(left),
            (None, None) => kill_process(getpid(), Signal::KILL).expect("we may kill ourselves"),
            (None, Some(stops)) => {
                stops.stop();
                self.stores_left.set(stops.every);
            }
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

impl Stops {
    fn stop(&self) {
        self.count.update(|count| count + 1);
        kill_process(getpid(), Signal::STOP).expect("we may stop ourselves");
        // The kernel may stop another thread first, and this one somewhat later.
        while self.seen.load(SEEN) < self.count.get() {
            std::thread::yield_now();
        }
    }
}

/// Words of the page that parent and child share: operations done, and stops that the parent has seen.
const DONE: usize = 0;
const SEEN: usize = 1;

fn options() -> TableOptions {
    // 6 lines for 100 keys and their blocks, one of them the first line of 32 by this seed: some spill into their second line. Room
    // enough that none is ever refused.
    TableOptions {
        segment_bytes: 480 << 10,
        record_size: 2048,
        max_value: 8192,
        ..TableOptions::new(1, 531)
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
    let acknowledged = map(&Path::new(&directory).join("acknowledged"));
    let words = map(&Path::new(&directory).join("segment"));
    // Who is killed from outside writes as a node does, many words at a time.
    let Ok(stores) = std::env::var(STORES) else { write_for_ever(words, &acknowledged) };
    let every = stores.parse().expect("a number");
    let stops = std::env::var(STOPS).is_ok().then(|| Stops {
        every,
        count: Cell::new(0),
        seen: acknowledged.clone(),
    });
    write_for_ever(KillWords { words, stores_left: Cell::new(every), stops }, &acknowledged)
}

fn write_for_ever<W: Words>(words: W, acknowledged: &Mapped) -> ! {
    let facts = header::inspect(&words).expect("made by the parent");
    let table = Table::new(words, facts.geometry, facts.hash_seed);
    let (mut core, _) = Core::recover(table);
    loop {
        let number = acknowledged.load(DONE);
        apply(&mut core, &operation(number));
        acknowledged.store(DONE, number + 1);
    }
}

/// What a child's stores lead to.
#[derive(Clone, Copy)]
enum Fate {
    KilledByParent,
    KilledBefore(u64),
    StoppedEvery(u64),
}

fn spawn_child(directory: &Path, fate: Fate) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("known"));
    command
        .args(["--exact", "tests::kill::child_writes_until_it_is_killed"])
        .env(DIRECTORY, directory);
    match fate {
        Fate::KilledByParent => {}
        Fate::KilledBefore(stores) => {
            command.env(STORES, stores.to_string());
        }
        Fate::StoppedEvery(stores) => {
            command.env(STORES, stores.to_string()).env(STOPS, "1");
        }
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
        .map_or(300, |kills| kills.parse().expect("ANNULUS_SHM_KILLS is a number"))
}

/// An empty segment, and a page where children count what they have done.
fn make_segment(directory: &Path) -> (PathBuf, Mapped) {
    let path = directory.join("segment");
    let mut made = open_or_create(&path, &options()).expect("room for it");
    (0..100).for_each(|partition| made.writers[0].set_freshness(partition, u64::MAX));
    drop(made);
    std::fs::write(directory.join("acknowledged"), [0; 4096]).expect("room for a page");
    (path, map(&directory.join("acknowledged")))
}

/// Kills `kills` children, and after each compares the segment with what was acknowledged.
fn kill_children(seed: u64, kills: u64, by_themselves: bool) {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, acknowledged) = make_segment(directory.path());
    let mut rng = StdRng::seed_from_u64(seed);
    let mut model = Contents::new();
    let (mut modelled, mut spills) = (0, 0);
    for kill in 0..kills {
        let fate = match by_themselves {
            true => Fate::KilledBefore(rng.random_range(0..3000)),
            false => Fate::KilledByParent,
        };
        let mut child = spawn_child(directory.path(), fate);
        if !by_themselves {
            let wanted = modelled + rng.random_range(1..500);
            while acknowledged.load(DONE) < wanted && child.try_wait().expect("our child").is_none()
            {
                std::thread::yield_now();
            }
            child.kill().expect("our child");
        }
        let status = child.wait().expect("our child");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");

        let acknowledged_now = acknowledged.load(DONE);
        while modelled < acknowledged_now {
            apply_to_model(&mut model, &operation(modelled));
            modelled += 1;
        }
        let words = map(&path);
        let facts = header::inspect(&words).expect("still a segment");
        let (core, recovery) = Core::recover(Table::new(words, facts.geometry, facts.hash_seed));
        core.audit();
        spills += (0..facts.geometry.buckets)
            .filter(|&bucket| core.table.header(bucket).overflow())
            .count();
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
    assert!(kills < 100 || spills > 0, "no key was ever in its second line");
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

/// Readers look while the writer stands still somewhere in the middle, as often as this.
const STOPS_COUNT: u64 = 300;

/// Stops a writing child again and again, and compares what readers find meanwhile with what was acknowledged.
fn stop_child(seed: u64, fate: Fate) {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, acknowledged) = make_segment(directory.path());
    let reader = Shards::attach_file(&path, |_| 0).expect("just made");
    let mut child = spawn_child(directory.path(), fate);
    let pid = Pid::from_child(&child);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut model = Contents::new();
    let mut modelled = 0;
    for stop in 0..STOPS_COUNT {
        if let Fate::KilledByParent = fate {
            let wanted = modelled + rng.random_range(1..200);
            while acknowledged.load(DONE) < wanted {
                assert!(child.try_wait().expect("our child").is_none(), "it never ends by itself");
                std::thread::yield_now();
            }
            kill_process(pid, Signal::STOP).expect("our child");
        }
        let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED)
            .expect("our child")
            .expect("a call that waits");
        assert!(status.stopped(), "{status:?}");

        let acknowledged_now = acknowledged.load(DONE);
        while modelled < acknowledged_now {
            apply_to_model(&mut model, &operation(modelled));
            modelled += 1;
        }
        let mut next = model.clone();
        apply_to_model(&mut next, &operation(modelled));
        let under_way = operation(modelled);
        let mut value = Vec::new();
        for name in 0..100 {
            let key = vec![name; 1 + usize::from(name) * 2];
            let found = match reader.get(&key, 0, &mut value) {
                Lookup::Hit(hit) => Some((name.into(), value.clone(), hit.deadline, hit.mark)),
                Lookup::Miss => None,
                other => panic!("stop {stop} of seed {seed}: {other:?} while nobody writes"),
            };
            let (before, after) = (model.get(&key), next.get(&key));
            let halfway = match (&under_way, before) {
                // Two stores; the mark is still the old one.
                (Operation::SetTimes { deadline, .. }, Some(entry)) => {
                    Some((entry.0, entry.1.clone(), *deadline, entry.3))
                }
                _ => None,
            };
            assert!(
                found.as_ref() == before || found.as_ref() == after || found == halfway,
                "stop {stop} of seed {seed}: neither before nor after operation {modelled}"
            );
        }
        acknowledged.store(SEEN, stop + 1);
        kill_process(pid, Signal::CONT).expect("our child");
    }
    // It goes on: the operation under way is done. It may stop once more on the way.
    acknowledged.store(SEEN, u64::MAX);
    while acknowledged.load(DONE) <= modelled {
        kill_process(pid, Signal::CONT).expect("our child");
        std::thread::yield_now();
    }
    child.kill().expect("our child");
    child.wait().expect("our child");
    println!("{STOPS_COUNT} stops, {modelled} operations acknowledged");
}

#[test]
fn writer_stopped_at_any_store_keeps_no_reader_waiting() {
    // A prime, so that the stops wander through all steps of all operations.
    stop_child(3, Fate::StoppedEvery(37));
}

#[test]
fn writer_stopped_at_random_keeps_no_reader_waiting() {
    stop_child(4, Fate::KilledByParent);
}

/// The sizes and the shards that a table has in turn.
fn resized(number: u64) -> TableOptions {
    let (segment_bytes, shards) = [(1 << 20, 1), (3 << 19, 4), (2 << 20, 3)][number as usize % 3];
    let max_value = 8192;
    TableOptions { segment_bytes, shards, max_value, instance: number, ..TableOptions::new(1, 2) }
}

/// A process that another test is about to start holds our files, and so their locks, from its fork to its exec.
fn open_free(path: &Path, options: &TableOptions) -> Opened {
    loop {
        match open_or_create(path, options) {
            Err(FileError::Locked { .. }) => std::thread::yield_now(),
            opened => return opened.expect("room for both"),
        }
    }
}

fn entries(opened: &Opened) -> usize {
    opened.writers.iter().map(|writer| writer.stats().entries).sum()
}

/// Not a test by itself, as above.
#[test]
fn child_resizes_until_it_is_killed() {
    let Ok(directory) = std::env::var(RESIZED_DIRECTORY) else { return };
    let acknowledged = map(&Path::new(&directory).join("acknowledged"));
    loop {
        let number = acknowledged.load(0) + 1;
        let path = Path::new(&directory).join("segment");
        let opened = open_free(&path, &resized(number));
        assert_eq!(entries(&opened), RESIZED_ENTRIES);
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
        let partition = number as u16 % 100;
        opened.writers[0].put(&key, partition, &value(number), 0, number as u64).expect("room");
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
        let mut opened = open_free(&path, &resized(rng.random_range(0..3)));
        assert_eq!(opened.set_aside, None);
        assert!(opened.recovery.is_some(), "kill {kill}: it is there");
        let mut found = Vec::new();
        for number in 0..RESIZED_ENTRIES {
            let key = number.to_ne_bytes();
            let shard = number % 100 % opened.writers.len();
            let facts = opened.writers[shard].get(&key, &mut found).expect("carried over");
            assert_eq!((facts.mark, &found), (number as u64, &value(number)), "kill {kill}");
        }
        assert_eq!(entries(&opened), RESIZED_ENTRIES);
        for writer in &mut opened.writers {
            assert_eq!(writer.verify(0, usize::MAX).dropped, 0);
        }
        let names = std::fs::read_dir(directory.path()).expect("readable").count();
        assert_eq!(names, 2, "kill {kill}: the segment and what was acknowledged");
    }
}

fn made() -> TableOptions {
    TableOptions { segment_bytes: 1 << 20, shards: 3, max_value: 8192, ..TableOptions::new(1, 2) }
}

/// Not a test by itself, as above.
#[test]
fn child_makes_segments_until_it_is_killed() {
    let Ok(directory) = std::env::var(MADE_DIRECTORY) else { return };
    let acknowledged = map(&Path::new(&directory).join("acknowledged"));
    let path = Path::new(&directory).join("segment");
    loop {
        drop(open_free(&path, &made()));
        std::fs::remove_file(&path).expect("just made");
        acknowledged.store(0, acknowledged.load(0) + 1);
    }
}

#[test]
fn segment_whose_maker_was_killed_is_made_again_with_all_shards_and_nothing_lies_about() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("segment");
    std::fs::write(directory.path().join("acknowledged"), [0; 4096]).expect("room for a page");
    let acknowledged = map(&directory.path().join("acknowledged"));
    let mut rng = StdRng::seed_from_u64(5);
    for kill in 0..kills() / 5 {
        let mut command = Command::new(std::env::current_exe().expect("known"));
        command.args(["--exact", "tests::kill::child_makes_segments_until_it_is_killed"]);
        command.env(MADE_DIRECTORY, directory.path());
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process");
        let wanted = acknowledged.load(0) + rng.random_range(1..4);
        while acknowledged.load(0) < wanted && child.try_wait().expect("our child").is_none() {
            std::thread::yield_now();
        }
        (0..rng.random_range(0..20_000)).for_each(|_| std::hint::spin_loop());
        child.kill().expect("our child");
        let status = child.wait().expect("our child");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");

        let opened = open_free(&path, &made());
        assert_eq!((opened.set_aside.as_ref(), opened.carried), (None, None), "kill {kill}");
        assert_eq!((opened.writers.len(), entries(&opened)), (3, 0));
        let shards = Shards::attach_file(&path, |_| 0).expect("made");
        assert_eq!(shards.count(), 3);
        let names = std::fs::read_dir(directory.path()).expect("readable").count();
        assert_eq!(names, 2, "kill {kill}: the segment and what was acknowledged");
        std::fs::remove_file(&path).expect("there");
    }
}

fn two_shards() -> TableOptions {
    let TableOptions { segment_bytes, .. } = options();
    TableOptions { segment_bytes: 2 * segment_bytes, shards: 2, ..options() }
}

/// Where the two writers count what they have done.
const DONE_BY: [usize; 2] = [0, 8];

/// The n-th operation of a shard's writer. All its partitions are the shard's.
fn operation_in(shard: usize, number: u64) -> Operation {
    match operation(number * 2 + shard as u64) {
        Operation::Put { key, partition, value, deadline } => {
            Operation::Put { key, partition: partition / 2 * 2 + shard as u16, value, deadline }
        }
        other => other,
    }
}

/// Not a test by itself, as above.
#[test]
fn child_writes_two_shards_until_it_is_killed() {
    let Ok(directory) = std::env::var(TWO_DIRECTORY) else { return };
    let opened = open_free(&Path::new(&directory).join("segment"), &two_shards());
    std::thread::scope(|scope| {
        for (shard, mut writer) in opened.writers.into_iter().enumerate() {
            let acknowledged = map(&Path::new(&directory).join("acknowledged"));
            scope.spawn(move || {
                loop {
                    let number = acknowledged.load(DONE_BY[shard]);
                    match operation_in(shard, number) {
                        Operation::Put { key, partition, value, deadline } => {
                            let put = writer.put(&key, partition, &value, deadline, 0);
                            put.map(drop).expect("room for 100 keys");
                        }
                        Operation::Remove { key } => drop(writer.remove(&key)),
                        Operation::SetTimes { key, deadline, mark } => {
                            writer.set_times(&key, deadline, mark);
                        }
                    }
                    acknowledged.store(DONE_BY[shard], number + 1);
                }
            });
        }
    });
}

#[test]
fn killed_process_with_two_writers_leaves_both_shards_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("segment");
    drop(open_free(&path, &two_shards()));
    std::fs::write(directory.path().join("acknowledged"), [0; 4096]).expect("room for a page");
    let acknowledged = map(&directory.path().join("acknowledged"));
    let mut rng = StdRng::seed_from_u64(6);
    let mut models = [Contents::new(), Contents::new()];
    let mut modelled = [0; 2];
    for kill in 0..kills() / 5 {
        let mut command = Command::new(std::env::current_exe().expect("known"));
        command.args(["--exact", "tests::kill::child_writes_two_shards_until_it_is_killed"]);
        command.env(TWO_DIRECTORY, directory.path());
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process");
        let wanted = rng.random_range(1..500);
        let is_on = |shard: usize| acknowledged.load(DONE_BY[shard]) >= modelled[shard] + wanted;
        while !(is_on(0) && is_on(1)) && child.try_wait().expect("our child").is_none() {
            std::thread::yield_now();
        }
        child.kill().expect("our child");
        let status = child.wait().expect("our child");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");

        let mut opened = open_free(&path, &two_shards());
        let recovery = opened.recovery.expect("it is there");
        let dropped =
            recovery.dropped_torn + recovery.dropped_malformed + recovery.dropped_misplaced;
        assert!(dropped == 0 && recovery.dropped_duplicate <= 2, "kill {kill}: {recovery:?}");
        for (shard, writer) in opened.writers.iter_mut().enumerate() {
            let (model, modelled) = (&mut models[shard], &mut modelled[shard]);
            while *modelled < acknowledged.load(DONE_BY[shard]) {
                apply_to_model(model, &operation_in(shard, *modelled));
                *modelled += 1;
            }
            assert_eq!(writer.verify(0, usize::MAX).dropped, 0);
            let (mut now, mut value) = (Contents::new(), Vec::new());
            writer.scan(0, usize::MAX, &mut |item| {
                writer.get(item.key, &mut value).expect("scanned");
                let entry = (item.partition, value.clone(), item.deadline, item.mark);
                now.insert(item.key.to_vec(), entry);
            });
            let mut next = model.clone();
            let under_way = operation_in(shard, *modelled);
            apply_to_model(&mut next, &under_way);
            if now != *model && now != next {
                let Operation::SetTimes { key, deadline, .. } = under_way else {
                    panic!("kill {kill}, shard {shard}: neither before nor after {modelled}");
                };
                model.get_mut(&key).expect("it changed").2 = deadline;
                assert_eq!(now, *model, "kill {kill}: a deadline without its mark");
            }
            *model = now;
        }
    }
}
