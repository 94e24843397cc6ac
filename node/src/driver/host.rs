//! What a node finds on its host beside network and clocks: its state, its segments, its load.

mod records;

use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annulus_proto::message::Segment;
use annulus_seal::Zeroizing;
use annulus_shm::{Carried, FileError, Opened, Recovery, Region, TableOptions, Writer};
use rustix::fs::FlockOperation;

use super::background::{self, Report};
use super::settings::{NodeSettings, Storage, TableSettings};
use crate::core::record_bytes_max;
use records::RecordFile;

/// The seam to a host. [`SystemHost`] is the real one; simulations keep everything in memory.
pub trait Host: Send + Sync + 'static {
    /// The state that was last stored; `None` on the first start.
    ///
    /// # Errors
    /// Whatever keeps it from being read; the node must not start with another identity then.
    fn load_state(&self) -> io::Result<Option<Vec<u8>>>;

    /// Replaces the state; it is on disk when the future completes.
    ///
    /// # Errors
    /// Whatever kept it from being written; what was stored before is still there.
    fn store_state(&self, state: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send;

    /// Opens what cores keep, and reads all of it. Whatever is wrong with it, the node starts.
    fn open_kept(&self) -> Kept;

    /// Makes these changes of what is kept, in their order, all of them or none; they are on disk when the
    /// future completes. Called for one batch after the other.
    ///
    /// # Errors
    /// Whatever kept it from being written. Whether it was is not known then; to do it again does no harm.
    fn keep(&self, changes: Vec<KeptChange>) -> impl Future<Output = io::Result<()>> + Send;

    /// The node's keyring as text, if its settings name one.
    ///
    /// # Errors
    /// Whatever keeps it from being read, and if others than the node could read it too. The node must
    /// not start without it then.
    fn load_keyring(&self) -> io::Result<Zeroizing<String>>;

    /// A file with a password for clients of Redis, which the settings name.
    ///
    /// # Errors
    /// If there is none, it is not text, or others may read it.
    fn load_redis_password(&self, path: &Path) -> io::Result<Zeroizing<String>> {
        let _ = path;
        Err(io::ErrorKind::NotFound.into())
    }

    /// Replaces the keyring; it is on disk when the future completes.
    ///
    /// # Errors
    /// Whatever kept it from being written; what was stored before is still there.
    fn store_keyring(
        &self,
        keyring: Zeroizing<String>,
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// Opens a table's segment with so many shards, or makes it. Memory for its entries may be left to
    /// [`Region::reserve`] where the node is home of nothing in it.
    ///
    /// # Errors
    /// [`FileError`], when it is in use, or there is no room.
    fn open_table(
        &self,
        node: &str,
        table: &TableSettings,
        shards: u16,
    ) -> Result<HostTable, FileError>;

    /// Randomness: for ids, and as the seed of everything else.
    fn entropy(&self) -> u64;

    /// Tells hosts apart.
    fn id(&self) -> String;

    /// Whether this host's processes can share memory with the node, so that clients are given lanes,
    /// which a plain thread serves. Not so in simulations, where there are neither.
    fn shares_memory(&self) -> bool {
        false
    }

    /// The directory of the archives; `None` where there are none, as in simulations.
    fn archive(&self) -> Option<PathBuf> {
        None
    }

    /// Starts the plain threads that watch the tables and the host's load; `None` where the node
    /// does that work itself, step by step.
    fn watch(&self, segments: Vec<Arc<dyn Region>>) -> Option<crossbeam_channel::Receiver<Report>>;
}

/// A record that was kept: its name and its value.
pub type KeptRecord = (Vec<u8>, Vec<u8>);
/// A record by its name, and what it is to say from now on; `None`: it goes.
pub type KeptChange = (Vec<u8>, Option<Vec<u8>>);

/// What was kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// All records, in the order of their names.
    pub records: Vec<KeptRecord>,
    /// Where a file that could not be read was moved to, and why. What it held is missing.
    pub set_aside: Option<(PathBuf, String)>,
    /// Why there is none that could be written to.
    pub failed: Option<io::Error>,
}

/// A table opened on a host.
pub struct HostTable {
    /// The writers of the segment's shards, in their order. They may go to different threads.
    pub writers: Vec<Writer>,
    /// The whole segment's memory.
    pub region: Arc<dyn Region>,
    /// Where readers find it.
    pub segment: Segment,
    /// What was found in it, if it existed.
    pub recovery: Option<Recovery>,
    /// What became of the entries of a segment of another size or number of shards.
    pub carried: Option<Carried>,
    /// Where a segment that could not be used was moved to, and why.
    pub set_aside: Option<(PathBuf, String)>,
}

/// The real host.
pub struct SystemHost {
    data_dir: PathBuf,
    shm_dir: PathBuf,
    keyring: Option<PathBuf>,
    /// As the keyring was last read or written here.
    keyring_known: Arc<Mutex<Zeroizing<String>>>,
    kept: Arc<Mutex<RecordFile>>,
    cluster: String,
    /// The rings that the node serves, as bits.
    rings: u8,
    /// Held for life: one node per data directory.
    _lock: File,
}

const STATE_FILE: &str = "node.toml";
const LOCK_FILE: &str = "lock";
/// It names sessions, whose keys are as good as passwords: it is for nobody else to read.
const KEPT_FILE: &str = "kept.redb";
const ARCHIVE_DIR: &str = "archive";
/// As far as the umask lets it.
const STATE_MODE: u32 = 0o666;
/// The node's own user, and nobody else.
const SECRET_MODE: u32 = 0o600;
/// More than the fullest keyring with some comments has.
const KEYRING_BYTES_MAX: u64 = 64 << 10;

impl SystemHost {
    /// Takes possession of the data directory, which is made if it is missing.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another node has it; whatever the system reports otherwise.
    pub fn open(settings: &NodeSettings) -> io::Result<Self> {
        fs::create_dir_all(&settings.data_dir)?;
        let lock = File::create(settings.data_dir.join(LOCK_FILE))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self {
            data_dir: settings.data_dir.clone(),
            shm_dir: settings.shm_dir.clone(),
            keyring: settings.keyring.clone(),
            keyring_known: Arc::default(),
            kept: Arc::new(Mutex::new(RecordFile::at(settings.data_dir.join(KEPT_FILE)))),
            cluster: settings.cluster.clone(),
            rings: settings.rings,
            _lock: lock,
        })
    }
}

impl Host for SystemHost {
    fn load_state(&self) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.data_dir.join(STATE_FILE)) {
            Ok(state) => Ok(Some(state)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn store_state(&self, state: Vec<u8>) -> io::Result<()> {
        let path = self.data_dir.join(STATE_FILE);
        let replace = move || replace_file(&path, &state, STATE_MODE)?.sync_all();
        let stored = tokio::task::spawn_blocking(replace).await;
        stored.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    fn open_kept(&self) -> Kept {
        lock(&self.kept).open()
    }

    async fn keep(&self, changes: Vec<KeptChange>) -> io::Result<()> {
        let kept = self.kept.clone();
        let written = tokio::task::spawn_blocking(move || lock(&kept).write(&changes)).await;
        written.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    fn load_keyring(&self) -> io::Result<Zeroizing<String>> {
        let path = self.keyring.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let text = read_secret(path)?;
        *lock(&self.keyring_known) = text.clone();
        Ok(text)
    }

    fn load_redis_password(&self, path: &Path) -> io::Result<Zeroizing<String>> {
        read_secret(path)
    }

    async fn store_keyring(&self, keyring: Zeroizing<String>) -> io::Result<()> {
        let path = self.keyring.clone().ok_or(io::ErrorKind::NotFound)?;
        let known = self.keyring_known.clone();
        let replace = move || replace_keyring(&path, &known, keyring);
        let stored = tokio::task::spawn_blocking(replace).await;
        stored.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    fn open_table(
        &self,
        node: &str,
        table: &TableSettings,
        shards: u16,
    ) -> Result<HostTable, FileError> {
        let name = &table.policy.name;
        let file = format!("annulus-{}-{node}-{}", file_part(&self.cluster), file_part(name));
        let path = match table.storage {
            Storage::Memory => self.shm_dir.join(file),
            Storage::Disk => self.data_dir.join(file),
        };
        let options = table_options(table, shards, (rand::random(), rand::random()));
        // Who does not serve the innermost ring has nothing there but near copies, once somebody wants some.
        let opened = match table.policy.ring == 0 && self.rings & 1 == 0 {
            true => annulus_shm::open_or_create_unreserved(&path, &options)?,
            false => annulus_shm::open_or_create(&path, &options)?,
        };
        let Opened { writers, region, recovery, carried, set_aside } = opened;
        let segment = Segment {
            table: name.clone(),
            path: path.display().to_string(),
            instance: writers[0].instance(),
        };
        Ok(HostTable { writers, region, segment, recovery, carried, set_aside })
    }

    fn entropy(&self) -> u64 {
        rand::random()
    }

    fn id(&self) -> String {
        // Without it every host looks alike, and a segment's instance number still tells.
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_owned()
    }

    fn shares_memory(&self) -> bool {
        true
    }

    fn archive(&self) -> Option<PathBuf> {
        Some(self.data_dir.join(ARCHIVE_DIR))
    }

    fn watch(&self, segments: Vec<Arc<dyn Region>>) -> Option<crossbeam_channel::Receiver<Report>> {
        Some(background::start(segments))
    }
}

/// How a table with these settings and so many shards is laid out.
pub fn table_options(
    table: &TableSettings,
    shards: u16,
    (instance, hash_seed): (u64, u64),
) -> TableOptions {
    TableOptions {
        segment_bytes: table.memory,
        shards,
        record_size: table.record_size,
        max_value: record_bytes_max(table.policy.max_value),
        ..TableOptions::new(instance, hash_seed)
    }
}

/// Reads a file that nobody but its user may use.
fn read_secret(path: &Path) -> io::Result<Zeroizing<String>> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        let why = format!("others may use it, too (mode {:o}); chmod 600 it", mode & 0o777);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    // With room for all of it: what a growing buffer leaves behind would not be wiped.
    let mut text = Zeroizing::new(String::with_capacity(KEYRING_BYTES_MAX as usize + 1));
    file.take(KEYRING_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > KEYRING_BYTES_MAX {
        let why = format!("it is larger than {KEYRING_BYTES_MAX} bytes; keep what it is for alone");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(text)
}

/// Replaces a keyring, unless somebody else has changed it.
fn replace_keyring(
    path: &Path,
    known: &Mutex<Zeroizing<String>>,
    keyring: Zeroizing<String>,
) -> io::Result<()> {
    let mut known = lock(known);
    let found = read_secret(path)?;
    // Who has written the same has done our work.
    if found != *known && found != keyring {
        let why = "it was changed by hand; restart the node, or put it back as it was";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let directory = replace_file(path, keyring.as_bytes(), SECRET_MODE)?;
    *known = keyring;
    // It is there from now on, for whoever reads it; only a power cut may still undo it.
    if let Err(error) = directory.sync_all() {
        tracing::warn!(%error, "the keyring was replaced, and may not outlive a loss of power");
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Replaces a file in one step by one that has these permissions from its first byte on. Returns its
/// directory, which has to reach the disk, too. After an error the old file is still there.
fn replace_file(path: &Path, content: &[u8], mode: u32) -> io::Result<File> {
    let directory = File::open(directory_of(path))?;
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    // What a killed node left behind may have other permissions.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    Ok(directory)
}

fn directory_of(path: &Path) -> &Path {
    // That of a bare name is said to be nothing at all.
    let named = |directory: &&Path| !directory.as_os_str().is_empty();
    path.parent().filter(named).unwrap_or(Path::new("."))
}

/// A name as a part of a file's. Between those of a table and its ring stands what no table's has.
pub(super) fn file_part(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.@".contains(c) { c } else { '_' };
    name.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(path: &Path, text: &str) {
        let mut file = OpenOptions::new();
        let file = file.write(true).create(true).truncate(true).mode(SECRET_MODE).open(path);
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn zeroizing(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[test]
    fn a_bare_name_stands_in_the_directory_of_this_process() {
        assert_eq!(directory_of(Path::new("keyring")), Path::new("."));
        assert_eq!(directory_of(Path::new("a/keyring")), Path::new("a"));
        assert_eq!(directory_of(Path::new("/keyring")), Path::new("/"));
        assert!(File::open(directory_of(Path::new("keyring"))).unwrap().sync_all().is_ok());
    }

    #[test]
    fn a_rings_file_is_no_other_tables() {
        assert_ne!(file_part("sessions@cold"), file_part("sessions_cold"));
    }

    #[test]
    fn a_keyring_that_is_too_large_is_refused_and_not_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        let most = "#".repeat(KEYRING_BYTES_MAX as usize);
        secret(&path, &most);
        assert_eq!(*read_secret(&path).unwrap(), most);
        secret(&path, &(most + "#"));
        assert!(read_secret(&path).unwrap_err().to_string().contains("larger than 65536 bytes"));
    }

    #[test]
    fn a_keyring_that_was_changed_by_hand_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        secret(&path, "one");
        let known = Mutex::new(read_secret(&path).unwrap());
        replace_keyring(&path, &known, zeroizing("two")).unwrap();
        assert_eq!(*read_secret(&path).unwrap(), "two");
        secret(&path, "by hand");
        let refused = replace_keyring(&path, &known, zeroizing("three")).unwrap_err();
        assert!(refused.to_string().contains("changed by hand"), "{refused}");
        assert_eq!(*read_secret(&path).unwrap(), "by hand");
        // Put back, it is changed again; and so it is where another one has written the same.
        secret(&path, "two");
        replace_keyring(&path, &known, zeroizing("three")).unwrap();
        secret(&path, "four");
        replace_keyring(&path, &known, zeroizing("four")).unwrap();
        replace_keyring(&path, &known, zeroizing("five")).unwrap();
        assert_eq!(*read_secret(&path).unwrap(), "five");
    }
}
