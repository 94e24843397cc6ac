//! What cores keep on disk: the names of records as bytes, and one write of the disk for all that waits.

use std::io;
use std::sync::Arc;

use annulus_proto::Slot;
use annulus_proto::limits::NAME_BYTES_MAX;
use tokio::sync::mpsc;

use super::host::Host;
use super::inboxes::Inboxes;
use super::settings::TableSettings;
use crate::core::{
    Input, RECORD_REST_BYTES_MAX, RECORD_VALUE_BYTES_MAX, Record, RecordChange, RecordName, Space,
};

/// What a core wants on disk.
pub(super) struct Batch {
    pub(super) core: usize,
    pub(super) ticket: u64,
    pub(super) changes: Vec<RecordChange>,
}

/// What the task works with that puts it there.
pub(super) struct DiskTask<H> {
    pub(super) host: Arc<H>,
    pub(super) names: TableNames,
    pub(super) inbox: mpsc::UnboundedReceiver<Batch>,
    pub(super) inboxes: Inboxes,
}

/// The names of the tables, by which records find theirs again whatever their places are.
#[derive(Clone)]
pub(super) struct TableNames(Vec<String>);

/// The most batches that are written as one.
const BATCHES_MAX: usize = 256;

impl<H: Host> DiskTask<H> {
    /// Runs until the node stops.
    pub(super) async fn run(mut self) {
        let mut is_failing = false;
        while let Some(first) = self.inbox.recv().await {
            let mut batches = vec![first];
            while batches.len() < BATCHES_MAX
                && let Ok(next) = self.inbox.try_recv()
            {
                batches.push(next);
            }
            let kept = self.keep(&mut batches).await;
            match &kept {
                Err(error) if !is_failing => tracing::error!(
                    %error,
                    "what is to be kept cannot be written, and is in memory alone; check data_dir"
                ),
                Ok(()) if is_failing => tracing::info!("what is to be kept is written again"),
                _ => {}
            }
            is_failing = kept.is_err();
            for Batch { core, ticket, .. } in batches {
                let told = match &kept {
                    Ok(()) => Input::Persisted { ticket },
                    Err(_) => Input::NotPersisted { ticket },
                };
                if self.inboxes.tell_core(core, told).is_err() {
                    return;
                }
            }
        }
    }

    async fn keep(&self, batches: &mut [Batch]) -> io::Result<()> {
        let mut changes = Vec::new();
        for batch in batches {
            for RecordChange { name, value } in std::mem::take(&mut batch.changes) {
                changes.push((self.names.encode(&name), value));
            }
        }
        // In a task of its own: what was begun is finished before the node lets go of its files.
        let host = self.host.clone();
        let kept = tokio::spawn(async move { host.keep(changes).await });
        kept.await.unwrap_or_else(|ended| Err(io::Error::other(ended)))
    }
}

impl TableNames {
    pub(super) fn of(tables: &[TableSettings]) -> Self {
        Self(tables.iter().map(|table| table.policy.name.clone()).collect())
    }

    /// A record's name as it is on disk: space, table, slot, rest.
    fn encode(&self, name: &RecordName) -> Vec<u8> {
        let table = self.0[name.table].as_bytes();
        debug_assert!(table.len() <= NAME_BYTES_MAX && name.rest.len() <= RECORD_REST_BYTES_MAX);
        let mut bytes = Vec::with_capacity(4 + table.len() + name.rest.len());
        bytes.extend([name.space as u8, u8::try_from(table.len()).expect("63 bytes at most")]);
        bytes.extend_from_slice(table);
        bytes.extend(name.slot.index().to_be_bytes());
        bytes.extend_from_slice(&name.rest);
        bytes
    }

    /// The record that was kept like this; `None` of a table that this node does not have now, or of
    /// something that this version does not know: it is left as it is.
    pub(super) fn decode(&self, name: &[u8], value: Vec<u8>) -> Option<Record> {
        let (&[space, length], rest) = name.split_first_chunk()?;
        let space = Space::of_number(space)?;
        let (table, rest) = rest.split_at_checked(length.into())?;
        let table = self.0.iter().position(|known| known.as_bytes() == table)?;
        let (slot, rest) = rest.split_first_chunk()?;
        let slot = Slot::new(u16::from_be_bytes(*slot))?;
        let fits = rest.len() <= RECORD_REST_BYTES_MAX && value.len() <= RECORD_VALUE_BYTES_MAX;
        let name = RecordName { space, table, slot, rest: rest.to_vec() };
        fits.then_some(Record { name, value })
    }
}

#[cfg(test)]
mod tests {
    use annulus_proto::Key;

    use super::*;

    fn names(tables: &[&str]) -> TableNames {
        TableNames(tables.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_record_finds_its_table_by_name_whatever_its_place_is() {
        let slot = Key::new("key").unwrap().slot();
        let name = RecordName { space: Space::Hints, table: 1, slot, rest: b"rest".to_vec() };
        let bytes = names(&["carts", "sessions"]).encode(&name);
        assert_eq!(bytes[..10], *b"\x01\x08sessions");
        assert_eq!(bytes[10..12], slot.index().to_be_bytes());
        assert_eq!(bytes[12..], *b"rest");
        let found = names(&["sessions"]).decode(&bytes, vec![7]).unwrap();
        assert_eq!(found, Record { name: RecordName { table: 0, ..name }, value: vec![7] });
        assert_eq!(names(&["carts", "session"]).decode(&bytes, vec![7]), None);
    }

    #[test]
    fn what_no_node_of_this_version_writes_is_no_record() {
        let names = names(&["t"]);
        let good = [1, 1, b't', 0, 5, 9];
        assert!(names.decode(&good, Vec::new()).is_some());
        for length in 0..5 {
            assert_eq!(names.decode(&good[..length], Vec::new()), None, "{length} bytes");
        }
        assert_eq!(names.decode(&[0, 1, b't', 0, 5], Vec::new()), None, "of no space");
        assert_eq!(names.decode(&[1, 9, b't', 0, 5], Vec::new()), None, "its table leads out");
        assert_eq!(names.decode(&[1, 1, b't', 0x40, 0], Vec::new()), None, "of no slot");
        assert_eq!(names.decode(&good, vec![0; RECORD_VALUE_BYTES_MAX + 1]), None);
        let long = [&good[..], &[0; RECORD_REST_BYTES_MAX]].concat();
        assert_eq!(names.decode(&long, Vec::new()), None);
    }
}
