//! Why a node does not run.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use annulus_proto::NodeId;
use annulus_shm::{CreateError, FileError, OptionsError};

use super::settings::TableSettings;

/// Why a node does not start, or gives up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The data directory cannot be used.
    #[error("cannot use data_dir {}: {source}{}", path.display(), in_use(source))]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The node's state cannot be read or written.
    #[error("cannot read or write the node's state in data_dir: {0}")]
    State(#[source] io::Error),
    /// The node's state is not what a node writes.
    #[error(
        "node.toml in data_dir is damaged: {0}; restore it, or remove it to start as a new node"
    )]
    StateDamaged(String),
    /// The keyring cannot be used.
    #[error(
        "cannot use keyring {}: {why}; `annulus keys generate --out FILE` makes one", path.display()
    )]
    Keyring {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}; choose another `listen`")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The Unix socket cannot be listened on.
    #[error("cannot listen on {}: {source}; choose another `socket`", path.display())]
    Socket {
        /// The socket's path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An address for clients of Redis cannot be listened on.
    #[error(
        "cannot listen on {addr} for clients of Redis: {source}; choose another `redis.listen`"
    )]
    RedisListen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The Unix socket for clients of Redis cannot be listened on.
    #[error(
        "cannot listen on {} for clients of Redis: {source}; choose another `redis.socket`",
        path.display()
    )]
    RedisSocket {
        /// The socket's path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A password for clients of Redis cannot be used.
    #[error("cannot use {setting} {}: {why}", path.display())]
    RedisPassword {
        /// What names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The shared-memory file system has no room for a table.
    #[error(
        "no room for table {table:?}: it needs {needed} bytes and {} has {free} free; lower its \
         `memory`, or point `shm_dir` to a larger file system", path.display()
    )]
    NoRoom {
        /// The table.
        table: String,
        /// The segment's file.
        path: PathBuf,
        /// Its size, in bytes.
        needed: u64,
        /// What is free, in bytes.
        free: u64,
    },
    /// The table's memory is too small for what it is to hold.
    #[error(
        "table {table:?} has {memory} bytes and needs {needed} at least for its `max_value` and \
         `record_size`; raise its `memory`, or lower its `max_value`"
    )]
    TooSmall {
        /// The table.
        table: String,
        /// Its memory as configured, in bytes.
        memory: u64,
        /// What it needs, in bytes.
        needed: u64,
    },
    /// A table's segment cannot be opened or made.
    #[error("cannot open table {table:?}: {source}")]
    Table {
        /// The table.
        table: String,
        /// What is wrong.
        source: FileError,
    },
    /// Two slot sets of the application that embeds the node have one name.
    #[error("there are two slot sets {0:?}; each needs a name of its own")]
    SlotSets(String),
    /// Another node, alive right now, bears this node's id.
    #[error(
        "node id {id} is in use at {addr}; if this host's data_dir was copied, remove node.toml \
         from it to start as a new node"
    )]
    IdInUse {
        /// The id.
        id: NodeId,
        /// Where the other node is.
        addr: SocketAddr,
    },
    /// Threads cannot be started.
    #[error("cannot start threads: {0}")]
    Threads(#[source] io::Error),
    /// Signals cannot be handled.
    #[error("cannot handle signals: {0}")]
    Signals(#[source] io::Error),
}

impl RunError {
    pub(super) fn table(table: &TableSettings, source: FileError) -> Self {
        let name = table.policy.name.clone();
        match source {
            FileError::NoSpace { path, needed, free, .. } => {
                Self::NoRoom { table: name, path, needed, free }
            }
            FileError::Create(CreateError::Options(OptionsError::TooSmall { needed, .. })) => {
                Self::TooSmall { table: name, memory: table.memory, needed }
            }
            source => Self::Table { table: name, source },
        }
    }
}

fn in_use(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::WouldBlock { " (another node is running in it)" } else { "" }
}
