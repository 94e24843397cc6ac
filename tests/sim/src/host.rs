//! Hosts in memory: what survives a crash of the node, and what a reboot wipes.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annulus_node::TableSettings;
use annulus_node::driver::{Host, HostTable, Kept, KeptChange, Report, table_options};
use annulus_proto::entry::{Attributes, Entry, Value};
use annulus_proto::message::Segment;
use annulus_proto::{Key, Slot, record};
use annulus_seal::{Keyring, Zeroizing};
use annulus_shm::{
    AttachError, FileError, HeapRegion, OpenError, Region, Shards, Writer, carry_shards,
    create_shards, open_shards, retire_shards,
};
use crossbeam_channel::Receiver;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::sync::Notify;

use crate::clock::SimClock;
use crate::scenario::Mutant;

/// A simulated host for a node. Clones are the same host.
#[derive(Clone)]
pub struct Machine {
    /// Its name, which resolves to its address.
    pub name: Arc<str>,
    /// Its address.
    pub ip: IpAddr,
    /// Its clocks.
    pub clock: SimClock,
    state: Arc<Mutex<State>>,
}

struct State {
    rng: StdRng,
    /// What the node keeps on disk.
    stored: Option<Vec<u8>>,
    /// What its cores keep, there too.
    kept: BTreeMap<Vec<u8>, Vec<u8>>,
    disk: Disk,
    /// Its keyring, there too.
    keyring: Option<Zeroizing<String>>,
    /// Shared memory, by table.
    segments: BTreeMap<String, HeapRegion>,
    stop: Arc<Notify>,
    mutant: Option<Mutant>,
    starts: u32,
}

/// How a host's disk is, for what cores keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// It takes some milliseconds.
    Good,
    /// It takes some seconds.
    Slow,
    /// It takes nothing, and sometimes only says so.
    Bad,
}

/// What a host holds under a key.
pub type Holding = BTreeMap<Key, Entry>;

impl Machine {
    /// A host that was never used.
    #[must_use]
    pub fn new(name: &str, ip: IpAddr, clock: SimClock, seed: u64, mutant: Option<Mutant>) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            stored: None,
            kept: BTreeMap::new(),
            disk: Disk::Good,
            keyring: None,
            segments: BTreeMap::new(),
            stop: Arc::new(Notify::new()),
            mutant,
            starts: 0,
        };
        Self { name: name.into(), ip, clock, state: Arc::new(Mutex::new(state)) }
    }

    /// Puts a keyring on its disk.
    pub fn give(&self, keyring: &Keyring) {
        self.lock().keyring = Some(keyring.reveal());
    }

    /// The keyring on its disk; `None` if there is none, or nothing that is one.
    #[must_use]
    pub fn keyring(&self) -> Option<Keyring> {
        self.lock().keyring.as_ref()?.parse().ok()
    }

    /// Loses shared memory and begins the monotonic clock anew; the disk stays.
    pub fn reboot(&self) {
        self.lock().segments.clear();
        self.clock.reboot();
    }

    /// What its disk is like from now on.
    pub fn set_disk(&self, disk: Disk) {
        self.lock().disk = disk;
    }

    /// A new run of the node: what tells it to stop.
    pub fn begin(&self) -> Arc<Notify> {
        let mut state = self.lock();
        state.stop = Arc::new(Notify::new());
        state.starts += 1;
        state.stop.clone()
    }

    /// Asks the node to stop, as SIGTERM does.
    pub fn stop(&self) {
        self.lock().stop.notify_one();
    }

    /// Opens a segment for a process of this host.
    ///
    /// # Errors
    /// [`AttachError`] if this host has no such segment.
    pub fn attach(&self, segment: &Segment) -> Result<Shards, AttachError> {
        let path = PathBuf::from(&segment.path);
        let missing = || {
            let source = io::ErrorKind::NotFound.into();
            AttachError::Io { path: path.clone(), source }
        };
        let here = segment.path == segment_path(&self.name, &segment.table);
        let region = self.lock().segments.get(&segment.table).filter(|_| here).cloned();
        let region = region.ok_or_else(missing)?;
        let opened = Shards::attach(region.handle(), slot_of);
        opened.map_err(|source| AttachError::Segment { path: path.clone(), source })
    }

    /// What its memory holds of a table now, read from a copy that nobody else sees.
    pub fn holding(&self, table: &TableSettings) -> Holding {
        let Some(region) = self.lock().segments.get(&table.policy.name).cloned() else {
            return Holding::new();
        };
        let copy = copy_of(&region).handle();
        let Ok(shards) = Shards::attach(copy.clone(), slot_of) else { return Holding::new() };
        let options = table_options(table, shards.count(), (0, 0));
        open_shards(&copy, &options).map_or_else(|_| Holding::new(), |opened| entries(&opened.0))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics half-way through a change of the state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The seam that a run of the node gets to its host.
pub struct SimHost {
    machine: Machine,
}

impl SimHost {
    /// For a run of the node on this machine.
    #[must_use]
    pub fn new(machine: Machine) -> Self {
        Self { machine }
    }
}

/// How long a disk may take, at most.
pub(crate) const DISK_MS_MAX: u64 = 20;
/// So much longer does a slow one take.
pub(crate) const SLOW_FACTOR: u64 = 150;

impl Host for SimHost {
    fn load_state(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.machine.lock().stored.clone())
    }

    async fn store_state(&self, state: Vec<u8>) -> io::Result<()> {
        let wait_ms = self.machine.lock().rng.random_range(0..=DISK_MS_MAX);
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        self.machine.lock().stored = Some(state);
        Ok(())
    }

    fn open_kept(&self) -> Kept {
        let state = self.machine.lock();
        let records = state.kept.iter().map(|(name, value)| (name.clone(), value.clone()));
        Kept { records: records.collect(), ..Kept::default() }
    }

    /// A loss of power, or a kill, drops this: what did not get to the disk by then never does, and what did
    /// may not have been told of.
    async fn keep(&self, changes: Vec<KeptChange>) -> io::Result<()> {
        let (disk, wait_ms, is_late) = {
            let mut state = self.machine.lock();
            let factor = if state.disk == Disk::Slow { SLOW_FACTOR } else { 1 };
            let wait_ms = factor * state.rng.random_range(0..=DISK_MS_MAX);
            (state.disk, wait_ms, state.rng.random())
        };
        if is_late {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
        if disk == Disk::Bad && is_late {
            return Err(io::ErrorKind::StorageFull.into());
        }
        for (name, value) in changes {
            let mut state = self.machine.lock();
            match value {
                Some(value) => state.kept.insert(name, value),
                None => state.kept.remove(&name),
            };
        }
        if !is_late {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
        // Written, and it does not know.
        if disk == Disk::Bad { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn load_keyring(&self) -> io::Result<Zeroizing<String>> {
        self.machine.lock().keyring.clone().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    async fn store_keyring(&self, keyring: Zeroizing<String>) -> io::Result<()> {
        let wait_ms = self.machine.lock().rng.random_range(0..=DISK_MS_MAX);
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        self.machine.lock().keyring = Some(keyring);
        Ok(())
    }

    fn open_table(
        &self,
        _node: &str,
        table: &TableSettings,
        shards: u16,
    ) -> Result<HostTable, FileError> {
        let name = &table.policy.name;
        let mut state = self.machine.lock();
        let random = (state.rng.next_u64(), state.rng.next_u64());
        let options = table_options(table, shards, random);
        let mutant = state.mutant.filter(|_| state.starts > 1);
        if mutant == Some(Mutant::ForgetfulRestart) {
            state.segments.remove(name);
        }
        let path = segment_path(&self.machine.name, name);
        let made = |writers: Vec<Writer>, region| {
            let instance = writers[0].instance();
            let segment = Segment { table: name.clone(), path: path.clone(), instance };
            let (recovery, carried, set_aside) = (None, None, None);
            HostTable { writers, region, segment, recovery, carried, set_aside }
        };
        let old = state.segments.get(name).map(HeapRegion::handle);
        let (mut carry, mut set_aside) = (None, None);
        if let Some(old) = old {
            match open_shards(&old, &options) {
                Ok((mut writers, recovery)) => {
                    if mutant == Some(Mutant::RevivingRestart) {
                        writers.iter_mut().for_each(revive);
                    }
                    return Ok(HostTable { recovery: Some(recovery), ..made(writers, old) });
                }
                Err(OpenError::OtherLayout { .. }) => carry = Some(old),
                Err(error) => set_aside = Some((PathBuf::from(&path), error.to_string())),
            }
        }
        let region = HeapRegion::new(usize::try_from(table.memory).unwrap_or(usize::MAX));
        let mut writers = create_shards(&region.handle(), &options)?;
        let mut after_carrying = (None, None);
        if let Some(old) = carry {
            // As a file's: all of it, or it stays as it was.
            let (path, needed) = (PathBuf::from(&path), table.memory);
            let carried = carry_shards(&old, &mut writers).map_err(|why| FileError::Io {
                action: "carry over",
                path: path.clone(),
                source: io::Error::other(why),
            });
            let (recovery, carried, left_out) = carried?;
            if left_out > 0 {
                let entries = carried.entries + left_out;
                return Err(FileError::DoesNotFit { path, entries, left_out, needed });
            }
            retire_shards(&old);
            after_carrying = (Some(recovery), Some(carried));
        }
        let (recovery, carried) = after_carrying;
        let opened = made(writers, region.handle());
        state.segments.insert(name.clone(), region);
        Ok(HostTable { recovery, carried, set_aside, ..opened })
    }

    fn entropy(&self) -> u64 {
        self.machine.lock().rng.next_u64()
    }

    fn id(&self) -> String {
        self.machine.name.to_string()
    }

    fn watch(&self, _segments: Vec<Arc<dyn Region>>) -> Option<Receiver<Report>> {
        None
    }
}

fn slot_of(key: &[u8]) -> u16 {
    Slot::of(key).index()
}

pub(crate) fn segment_path(host: &str, table: &str) -> String {
    format!("/sim/{host}/{table}")
}

fn copy_of(region: &HeapRegion) -> HeapRegion {
    use std::sync::atomic::Ordering;
    let copy = HeapRegion::new(region.handle().len());
    for (to, from) in copy.words().zip(region.words()) {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    copy
}

/// What counts as held: all but near copies, which markers are, too.
fn entries(writers: &[Writer]) -> Holding {
    let mut holding = Holding::new();
    for writer in writers {
        let mut found = Vec::new();
        let mut cursor = 0;
        loop {
            cursor = writer.scan(cursor, 4_096, &mut |item| {
                found.push((item.key.to_vec(), item.mark, item.near));
            });
            if cursor == 0 {
                break;
            }
        }
        let mut buffer = Vec::new();
        let entry = |(key, mark, is_near): (Vec<u8>, u64, bool)| {
            writer.get(&key, &mut buffer)?;
            let entry = record::View::parse(&buffer).ok()?.entry(mark).ok()?;
            let is_held = !is_near || entry.is_marker();
            is_held.then_some((Key::new(key).ok()?, entry))
        };
        holding.extend(found.into_iter().filter_map(entry));
    }
    holding
}

/// [`Mutant::RevivingRestart`]: tombstones become sessions again, with the same birth.
fn revive(writer: &mut Writer) {
    let mut record = Vec::new();
    for (key, entry) in
        entries(std::slice::from_ref(writer)).into_iter().filter(|(_, entry)| entry.is_ended())
    {
        let (birth, value) = (entry.birth, Value::Bytes(b"undead".to_vec()));
        let alive = Entry::start(birth, value, (0, 0), Attributes::default(), birth.hlc.ms());
        record.clear();
        record::write(&alive, &mut record);
        let mark = record::mark(birth.hlc.ms());
        let _ = writer.put(key.as_bytes(), key.slot().index(), &record, 0, mark);
    }
}

#[cfg(test)]
mod tests {
    use annulus_node::core::TablePolicy;
    use annulus_node::{RECORD_SIZE_DEFAULT, Storage};
    use annulus_proto::{Hlc, NodeId, Version};

    use super::*;

    #[test]
    fn entries_stay_when_a_restart_divides_a_table_into_other_shards() {
        let clock = SimClock::new(0, 0);
        let machine = Machine::new("a", IpAddr::from([10, 0, 0, 1]), clock, 1, None);
        let (host, memory) = (SimHost::new(machine.clone()), 2 << 20);
        let table = TableSettings {
            policy: TablePolicy::default(),
            memory,
            storage: Storage::Memory,
            record_size: RECORD_SIZE_DEFAULT,
            archive_max: 0,
        };
        let birth = Version::new(Hlc::from_bits(5 << 16), NodeId::from_bits(1));
        let mut opened = host.open_table("node", &table, 1).unwrap();
        for number in 0..100u8 {
            let value = Value::Bytes(vec![number]);
            let entry = Entry::start(birth, value, (0, 0), Attributes::default(), 5);
            let key = Key::new([number]).unwrap();
            let mut bytes = Vec::new();
            record::write(&entry, &mut bytes);
            opened.writers[0].put(key.as_bytes(), key.slot().index(), &bytes, 0, 0).unwrap();
        }
        let held = machine.holding(&table);
        assert_eq!(held.len(), 100);
        for shards in [4, 4, 3, 1] {
            let segment = opened.segment.clone();
            let carried = shards != opened.writers.len() as u16;
            let reader = machine.attach(&segment).unwrap();
            opened = host.open_table("node", &table, shards).unwrap();
            assert_eq!(opened.writers.len(), usize::from(shards));
            assert_eq!(opened.carried.map(|carried| carried.entries), carried.then_some(100));
            assert_eq!(opened.recovery.unwrap().entries, 100);
            assert_eq!(reader.detached(), carried);
            assert_eq!(segment.instance != opened.segment.instance, carried);
            assert_eq!(machine.attach(&opened.segment).unwrap().stats().entries, 100);
            assert_eq!(machine.holding(&table), held);
        }
    }
}
