use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::archive::tests::session;
use crate::core::TablePolicy;
use crate::driver::inboxes::Receivers;
use crate::driver::settings::{RECORD_SIZE_DEFAULT, Storage};

fn tables(overflow: &Overflow) -> Vec<TableSettings> {
    let table = |ring: u8| {
        let name = if ring == 0 { "sessions" } else { "sessions@cold" }.to_owned();
        // Whatever a ring further out says.
        let overflow = if ring == 0 { overflow.clone() } else { Overflow::Drop };
        let policy = TablePolicy { name, ring, overflow, ..TablePolicy::default() };
        let (memory, storage) = (1 << 20, Storage::Memory);
        let record_size = RECORD_SIZE_DEFAULT;
        TableSettings { policy, memory, storage, record_size, archive_max: 1 << 30 }
    };
    vec![table(0), table(1)]
}

struct Scene {
    batches: Sender<Batch>,
    receivers: Receivers,
}

impl Scene {
    fn new(overflow: &Overflow, directory: Option<PathBuf>) -> Self {
        let (inboxes, receivers) = Inboxes::new(2);
        let tally = Arc::default();
        let started = start(&tables(overflow), directory, 2, &inboxes, &tally);
        Self { batches: started.expect("a thread").expect("something to do"), receivers }
    }

    /// Gives it a batch, and waits for what becomes of it.
    fn give(&mut self, core: usize, table: usize, sessions: &[Overflowed]) -> bool {
        self.batches.send(Batch { core, table, sessions: sessions.into() }).expect("it runs");
        match self.receivers.cores[core].first.urgent.blocking_recv() {
            Some(Input::Overflowed { table: of, is_taken }) => {
                assert_eq!(of, table);
                is_taken
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_leaves_any_ring_goes_to_the_files_of_its_table_and_a_failing_disk_is_told_of() {
    let dir = tempfile::tempdir().expect("a directory");
    let directory = dir.path().join("archive");
    std::fs::write(&directory, "in the way").expect("written");
    let mut scene = Scene::new(&Overflow::Archive, Some(directory.clone()));
    assert!(!scene.give(0, 0, &[session(1)]));
    assert!(!scene.give(1, 1, &[session(2)]));
    std::fs::remove_file(&directory).expect("removed");
    assert!(scene.give(0, 0, &[session(1)]));
    assert!(scene.give(1, 1, &[session(2)]));
    let written = std::fs::read_to_string(directory.join("sessions.00000001.jsonl"));
    assert_eq!(written.expect("it is there").lines().count(), 2);
}

#[test]
fn an_application_is_given_each_session_until_it_takes_it() {
    let taken: Arc<Mutex<Vec<u64>>> = Arc::default();
    let (is_full, panics) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let taker = {
        let (taken, is_full, panics) = (taken.clone(), is_full.clone(), panics.clone());
        OverflowTaker::new(move |session| {
            let mut taken = taken.lock().expect("nobody panics with it");
            if taken.len() == 2 && is_full.load(Ordering::Relaxed) {
                drop(taken);
                assert!(!panics.load(Ordering::Relaxed), "as it was told to");
                return false;
            }
            taken.push(session.birth.hlc.ms() - 1_000);
            true
        })
    };
    let mut scene = Scene::new(&Overflow::Give(taker), None);
    let sessions = [session(1), session(2), session(3), session(4)];
    assert!(!scene.give(0, 0, &sessions));
    panics.store(true, Ordering::Relaxed);
    assert!(!scene.give(0, 0, &sessions));
    is_full.store(false, Ordering::Relaxed);
    // Those of another core are none of these.
    assert!(scene.give(1, 0, &[session(9)]));
    assert!(scene.give(0, 0, &sessions));
    assert!(scene.give(0, 0, &[session(5)]));
    assert_eq!(*taken.lock().expect("nobody panics with it"), [1, 2, 9, 3, 4, 5]);
}

#[test]
fn there_is_no_thread_where_nothing_is_to_be_done() {
    let (inboxes, _receivers) = Inboxes::new(1);
    let started = start(&tables(&Overflow::Drop), None, 1, &inboxes, &Arc::default());
    assert!(started.expect("no error").is_none());
}
