use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;

fn change(name: &str, value: Option<&str>) -> KeptChange {
    (name.as_bytes().to_vec(), value.map(|value| value.as_bytes().to_vec()))
}

fn record(name: &str, value: &str) -> KeptRecord {
    (name.as_bytes().to_vec(), value.as_bytes().to_vec())
}

struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("kept.redb")
    }

    #[track_caller]
    fn open(&self) -> (RecordFile, Vec<KeptRecord>) {
        let mut file = RecordFile::at(self.path());
        let Kept { records, set_aside, failed } = file.open();
        assert!(set_aside.is_none() && failed.is_none(), "{set_aside:?}, {failed:?}");
        (file, records)
    }

    /// A file with three records.
    fn filled() -> Self {
        let scene = Self::new();
        let (mut file, _) = scene.open();
        let changes = ["a", "b", "c"].map(|name| change(name, Some("value")));
        file.write(&changes).unwrap();
        scene
    }
}

#[test]
fn what_was_written_is_there_again_and_what_went_is_not() {
    let scene = Scene::new();
    let (mut file, records) = scene.open();
    assert_eq!(records, []);
    file.write(&[change("a", Some("1")), change("b", Some("2")), change("c", Some("3"))]).unwrap();
    file.write(&[change("b", None), change("c", Some("4")), change("nothing", None)]).unwrap();
    // Of two changes of one record the last one counts.
    file.write(&[change("d", Some("5")), change("d", None), change("e", None)]).unwrap();
    drop(file);
    assert_eq!(scene.open().1, [record("a", "1"), record("c", "4")]);
}

#[test]
fn nobody_else_can_read_the_file() {
    let scene = Scene::filled();
    let mode = fs::metadata(scene.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_file_that_is_none_or_was_cut_is_set_aside_and_a_new_one_made() {
    let contents: [fn(&mut File); 5] = [
        |file| file.write_all(b"this was never one of ours").unwrap(),
        |file| file.write_all(&[0; 10_000]).unwrap(),
        |file| file.set_len(4_096).unwrap(),
        |file| file.set_len(100).unwrap(),
        |file| {
            file.seek(SeekFrom::Start(0)).unwrap();
            file.write_all(&[0xff; 512]).unwrap();
        },
    ];
    for (number, damage) in contents.into_iter().enumerate() {
        let scene = Scene::filled();
        let mut options = OpenOptions::new();
        damage(&mut options.write(true).truncate(number < 2).open(scene.path()).unwrap());
        let mut file = RecordFile::at(scene.path());
        let Kept { records, set_aside, failed } = file.open();
        assert!(records.is_empty() && failed.is_none(), "{number}: {failed:?}");
        let (aside, why) = set_aside.unwrap_or_else(|| panic!("{number}: it was taken as it is"));
        assert_eq!(aside, scene.dir.path().join("kept.redb.aside.1"));
        assert!(aside.exists() && !why.is_empty());
        file.write(&[change("new", Some("one"))]).unwrap();
        drop(file);
        assert_eq!(scene.open().1, [record("new", "one")]);
    }
}

#[test]
fn files_set_aside_replace_none_that_were_before() {
    let scene = Scene::new();
    for number in 1..=3 {
        fs::write(scene.path(), format!("foreign {number}")).unwrap();
        let kept = RecordFile::at(scene.path()).open();
        let (aside, _) = kept.set_aside.unwrap();
        assert_eq!(fs::read_to_string(aside).unwrap(), format!("foreign {number}"));
    }
}

/// Whatever the medium did to it: it opens, with some of what was there or in place of it.
#[test]
fn a_file_with_any_bytes_changed_never_keeps_a_node_from_starting() {
    let scene = Scene::new();
    let (mut file, _) = scene.open();
    let changes: Vec<_> =
        (0..500).map(|n| change(&format!("record {n}"), Some(&"x".repeat(n % 90)))).collect();
    file.write(&changes).unwrap();
    drop(file);
    let whole = fs::read(scene.path()).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let mut set_aside = 0;
    for round in 0..60 {
        let mut bytes = whole.clone();
        // In the first pages more than elsewhere: there they matter.
        let within = if round % 2 == 0 { bytes.len().min(16 << 10) } else { bytes.len() };
        for _ in 0..rng.random_range(1..60) {
            let at = rng.random_range(0..within);
            bytes[at] = rng.next_u32() as u8;
        }
        fs::write(scene.path(), &bytes).unwrap();
        let mut file = RecordFile::at(scene.path());
        let kept = file.open();
        assert!(kept.failed.is_none(), "round {round}: {:?}", kept.failed);
        set_aside += u32::from(kept.set_aside.is_some());
        let written = file.write(&[change("new", Some("one"))]);
        // A page that nobody has read yet may be damaged.
        if written.is_ok() {
            drop(file);
            let again = RecordFile::at(scene.path()).open();
            let is_there = again.records.contains(&record("new", "one"));
            assert!(is_there || again.set_aside.is_some(), "round {round}");
        }
    }
    assert!(set_aside >= 10, "{set_aside} of 60 were noticed");
}

#[test]
fn a_place_that_takes_nothing_is_an_error_and_no_reason_to_set_anything_aside() {
    // A directory, and a device without room.
    let scenes = [Scene::new(), Scene::new()];
    fs::create_dir(scenes[0].path()).unwrap();
    symlink("/dev/full", scenes[1].path()).unwrap();
    for scene in scenes {
        let mut file = RecordFile::at(scene.path());
        let kept = file.open();
        assert!(kept.records.is_empty() && kept.set_aside.is_none(), "{:?}", kept.set_aside);
        assert!(kept.failed.is_some());
        assert!(file.write(&[change("a", Some("1"))]).is_err());
        // Once there is a place it is used.
        if fs::remove_file(scene.path()).is_err() {
            fs::remove_dir(scene.path()).unwrap();
        }
        file.write(&[change("a", Some("1"))]).unwrap();
        drop(file);
        assert_eq!(scene.open().1, [record("a", "1")]);
    }
}

/// A killed process, and a loss of power, leave all of a batch or nothing of it: the file as it was after
/// any of its writes since the last sync, with any of those in between missing.
#[test]
fn a_batch_is_there_whole_or_not_at_all_whenever_power_is_lost() {
    use redb::StorageBackend;
    use std::sync::{Arc, Mutex};

    /// What a disk has: what was synced, and what was written since, in order.
    #[derive(Debug, Default)]
    struct Platter {
        synced: Vec<u8>,
        since: Vec<Written>,
        now: Vec<u8>,
        syncs: usize,
    }

    #[derive(Clone, Debug)]
    enum Written {
        Bytes(u64, Vec<u8>),
        Length(u64),
    }

    impl Written {
        fn apply(&self, bytes: &mut Vec<u8>) {
            match self {
                Self::Bytes(at, written) => {
                    let end = *at as usize + written.len();
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[*at as usize..end].copy_from_slice(written);
                }
                Self::Length(length) => bytes.resize(*length as usize, 0),
            }
        }
    }

    #[derive(Clone, Debug, Default)]
    struct Medium(Arc<Mutex<Platter>>);

    impl Medium {
        fn take(&self, written: Written) {
            let mut platter = self.0.lock().unwrap();
            written.apply(&mut platter.now);
            platter.since.push(written);
        }

        /// What a loss of power leaves: of the writes since the last sync any, but all changes of length.
        fn after_power_loss(&self, rng: &mut StdRng) -> Vec<u8> {
            let platter = self.0.lock().unwrap();
            let mut bytes = platter.synced.clone();
            for written in &platter.since {
                if matches!(written, Written::Length(_)) || rng.random() {
                    written.apply(&mut bytes);
                }
            }
            bytes
        }
    }

    impl StorageBackend for Medium {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.lock().unwrap().now.len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let platter = self.0.lock().unwrap();
            let end = offset as usize + out.len();
            let found =
                platter.now.get(offset as usize..end).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(found);
            Ok(())
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.take(Written::Length(len));
            Ok(())
        }

        fn sync_data(&self) -> io::Result<()> {
            let mut platter = self.0.lock().unwrap();
            platter.syncs += 1;
            (platter.synced, platter.since) = (platter.now.clone(), Vec::new());
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.take(Written::Bytes(offset, data.to_vec()));
            Ok(())
        }
    }

    let open_on = |medium: Medium| {
        let database = Builder::new().create_with_backend(medium)?;
        let changing = database.begin_write()?;
        changing.open_table(RECORDS)?;
        changing.commit()?;
        Ok::<_, redb::Error>(database)
    };
    for seed in 0..12 {
        let mut rng = StdRng::seed_from_u64(seed);
        let medium = Medium::default();
        let database = open_on(medium.clone()).unwrap();
        let mut durable: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for batch in 0..6 {
            let count = rng.random_range(1..60);
            let changes: Vec<KeptChange> = (0..count)
                .map(|_| {
                    let name = format!("record {}", rng.random_range(0..80));
                    let value = rng.random_bool(0.8).then(|| format!("batch {batch}"));
                    change(&name, value.as_deref())
                })
                .collect();
            let mut after = durable.clone();
            for (name, value) in &changes {
                match value {
                    Some(value) => after.insert(name.clone(), value.clone()),
                    None => after.remove(name),
                };
            }
            let before_commit = medium.0.lock().unwrap().syncs;
            write(&database, &changes).unwrap();
            assert!(medium.0.lock().unwrap().syncs > before_commit, "it waits for the disk");
            let left = medium.after_power_loss(&mut rng);
            let found = read(&open_on(on(left)).unwrap()).unwrap();
            assert!(found.iter().cloned().eq(after.clone()), "seed {seed}, batch {batch}: lost");
            durable = after;
        }
        // And with a batch under way that never got that far.
        let changing = database.begin_write().unwrap();
        {
            let mut records = changing.open_table(RECORDS).unwrap();
            records.insert(&b"half"[..], &b"way"[..]).unwrap();
        }
        for _ in 0..5 {
            let left = medium.after_power_loss(&mut rng);
            let found = read(&open_on(on(left)).unwrap()).unwrap();
            assert!(found.iter().cloned().eq(durable.clone()), "seed {seed}: half of a batch");
        }
        changing.abort().unwrap();
    }

    fn on(bytes: Vec<u8>) -> Medium {
        let medium = Medium::default();
        let platter = Platter { synced: bytes.clone(), now: bytes, ..Platter::default() };
        *medium.0.lock().unwrap() = platter;
        medium
    }
}
