//! Memory for tables that had none at the start, reserved by a plain thread when a core asks for it: that may take
//! seconds, in which requests go on.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use annulus_shm::Region;

use super::inboxes::Inboxes;
use super::tally::Tally;
use crate::core::{HubInput, Input};

/// Where cores ask for memory.
pub(super) struct Reservations {
    /// By their place in the settings.
    pub(super) tables: Vec<TableMemory>,
    pub(super) cores: usize,
    pub(super) inboxes: Inboxes,
    pub(super) tally: Arc<Tally>,
    /// The tables that a thread is at work for.
    pub(super) under_way: Mutex<BTreeSet<usize>>,
}

/// Where a table's memory is.
pub(super) struct TableMemory {
    pub(super) name: String,
    pub(super) path: String,
    /// The segment is the node's, which stops without waiting for this.
    pub(super) region: Weak<dyn Region>,
}

impl Reservations {
    /// Reserves a table's memory, and tells all cores what came of it.
    pub(super) fn begin(self: &Arc<Self>, table: usize) {
        let is_first = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(table);
        if !is_first {
            return; // It was another core that asked before.
        }
        let this = self.clone();
        let run = move || {
            let is_there = this.reserve(table);
            this.tell(table, is_there);
        };
        if let Err(error) = thread::Builder::new().name("annulus-reserve".to_owned()).spawn(run) {
            tracing::warn!(%error, "no thread to reserve memory for a table");
            self.tell(table, false);
        }
    }

    fn reserve(&self, table: usize) -> bool {
        let TableMemory { name, path, region } = &self.tables[table];
        let Some(region) = region.upgrade() else { return false };
        match region.reserve() {
            Ok(()) => {
                tracing::info!(table = name, path, "memory is reserved: this host reads the table");
                self.tally.add("memory_reserved");
                let bytes = region.huge_bytes();
                let _ = self.inboxes.tell_hub(HubInput::HugePages { table, bytes });
                true
            }
            Err(error) => {
                tracing::warn!(
                    table = name, path, %error,
                    "no memory for copies of what this host reads of a table: reads go to its homes, and it is tried \
                     again while there are some; lower the table's `memory`, or make room in `shm_dir`"
                );
                self.tally.add("memory_refused");
                false
            }
        }
    }

    fn tell(&self, table: usize, is_there: bool) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&table);
        for core in 0..self.cores {
            // An error means that the node is stopping.
            let _ = self.inboxes.tell_core(core, Input::Reserved { table, is_there });
        }
    }
}

#[cfg(test)]
mod tests {
    use annulus_shm::HeapRegion;

    use super::*;
    use crate::driver::inboxes::Receivers;

    fn scene(region: &Arc<dyn Region>) -> (Arc<Reservations>, Receivers) {
        let (inboxes, receivers) = Inboxes::new(2);
        let (name, path) = ("sessions".to_owned(), "a file".to_owned());
        let tables = vec![TableMemory { name, path, region: Arc::downgrade(region) }];
        let (tally, under_way) = (Arc::default(), Mutex::default());
        (Arc::new(Reservations { tables, cores: 2, inboxes, tally, under_way }), receivers)
    }

    fn told(receivers: &mut Receivers, core: usize) -> bool {
        match receivers.cores[core].first.urgent.blocking_recv() {
            Some(Input::Reserved { table: 0, is_there }) => is_there,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_cores_are_told_what_came_of_it_whichever_asked() {
        let region = HeapRegion::unreserved(64).handle();
        let (reservations, mut receivers) = scene(&region);
        reservations.begin(0);
        assert!(told(&mut receivers, 0) && told(&mut receivers, 1));
        assert!(region.is_reserved());
        // Asked for again it is there.
        reservations.begin(0);
        assert!(told(&mut receivers, 0) && told(&mut receivers, 1));
    }

    #[test]
    fn a_node_that_is_gone_gets_none_and_is_kept_from_nothing() {
        let region = HeapRegion::unreserved(64).handle();
        let (reservations, mut receivers) = scene(&region);
        drop(region);
        reservations.begin(0);
        assert!(!told(&mut receivers, 0) && !told(&mut receivers, 1));
    }
}
