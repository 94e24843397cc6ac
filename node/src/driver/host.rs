//! What a node finds on its host beside network and clocks: its state, its segments, its load.

use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annulus_proto::message::Segment;
use annulus_seal::Zeroizing;
use annulus_shm::{Carried, FileError, Opened, Recovery, Region, TableOptions, Writer};
use rustix::fs::FlockOperation;

use super::background::{self, Report};
use super::settings::{NodeSettings, TableSettings};
use crate::core::record_bytes_max;

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

    /// The node's keyring as text, if its settings name one.
    ///
    /// # Errors
    /// Whatever keeps it from being read, and if others than the node could read it too. The node must
    /// not start without it then.
    fn load_keyring(&self) -> io::Result<Zeroizing<String>>;

    /// Replaces the keyring; it is on disk when the future completes.
    ///
    /// # Errors
    /// Whatever kept it from being written; what was stored before is still there.
    fn store_keyring(
        &self,
        keyring: Zeroizing<String>,
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// Opens a table's segment with so many shards, or makes it.
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

    /// Starts the plain threads that watch the tables and the host's load; `None` where the node
    /// does that work itself, step by step.
    fn watch(&self, segments: Vec<Arc<dyn Region>>) -> Option<crossbeam_channel::Receiver<Report>>;
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
    cluster: String,
    /// Held for life: one node per data directory.
    _lock: File,
}

const STATE_FILE: &str = "node.toml";
const LOCK_FILE: &str = "lock";
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
            cluster: settings.cluster.clone(),
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
        let replace = move || replace_file(&path, &state, STATE_MODE);
        let stored = tokio::task::spawn_blocking(replace).await;
        stored.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    fn load_keyring(&self) -> io::Result<Zeroizing<String>> {
        let path = self.keyring.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let file = File::open(path)?;
        let mode = file.metadata()?.permissions().mode();
        if mode & 0o077 != 0 {
            let why = format!("others may use it, too (mode {:o}); chmod 600 it", mode & 0o777);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        let mut text = Zeroizing::new(String::with_capacity(KEYRING_BYTES_MAX as usize));
        file.take(KEYRING_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    }

    async fn store_keyring(&self, keyring: Zeroizing<String>) -> io::Result<()> {
        let path = self.keyring.clone().ok_or(io::ErrorKind::NotFound)?;
        let replace = move || replace_file(&path, keyring.as_bytes(), SECRET_MODE);
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
        let path = self.shm_dir.join(file);
        let options = table_options(table, shards, (rand::random(), rand::random()));
        let opened = annulus_shm::open_or_create(&path, &options)?;
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

/// Replaces a file in one step by one that has these permissions from its first byte on.
fn replace_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
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
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn file_part(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    name.chars().map(safe).collect()
}
