//! What the driver is told once, at its start.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use annulus_gossip::MeshConfig;
use annulus_proto::message::Role;

use super::local_roles::LocalRoles;
use crate::core::{CoreSettings, TablePolicy};

/// A node's whole configuration, parsed and checked (`config` reads it from file, environment and
/// flags).
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSettings {
    /// The cluster's name, 1 to 63 bytes; packets of another one are dropped. Default `annulus`.
    pub cluster: String,
    /// A name for people. Default the host's.
    pub name: String,
    /// Where the node keeps its id, incarnation, clock and known peers.
    pub data_dir: PathBuf,
    /// Where the segments are made. Default `/dev/shm`.
    pub shm_dir: PathBuf,
    /// The file of the keys by which nodes and clients of other hosts are known; `None` = whoever reaches
    /// `listen` is trusted, which is for loopback only.
    pub keyring: Option<PathBuf>,
    /// Where to listen, UDP and TCP on one port. Default 127.0.0.1:7946; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The address that others reach this node at. Default: where it listens.
    pub advertise: Option<SocketAddr>,
    /// The Unix socket for processes of this host; `None` = no socket.
    pub socket: Option<PathBuf>,
    /// The permission bits of that socket: who may open it. Default 0600, the node's own user and
    /// root. Raising it lets others in, who may do what `local_roles` says.
    pub socket_mode: u32,
    /// What processes of this host may do over that socket. Default: everything, all of them.
    pub local_roles: LocalRoles,
    /// Nodes to join through, `host:port`; tried for ever.
    pub seeds: Vec<String>,
    /// What fails together with this node. Default empty: nothing does.
    pub zone: String,
    /// Its share of the slots; 100 is the ordinary share. Default 100.
    pub weight: u16,
    /// The rings it serves, as bits. Default all.
    pub rings: u8,
    /// The most streams of clients open at once, and as many of nodes, and of callers who have not
    /// said who they are. Default 1,024.
    pub connections_max: u32,
    /// How many cores serve sessions, each with its share of the slots, a task and a thread for lanes
    /// of its own, at most [`CORES_MAX`]. Default 1. Raising it lets more be written at once where there
    /// are processors for it. It costs the tables a little room, since each is divided into as many parts
    /// and is full when one of them is, and some 0.7 MiB for each core and table.
    pub cores: NonZeroU16,
    /// Lanes for clients of this host.
    pub lanes: LaneSettings,
    /// How long to finish what was begun after SIGTERM or SIGINT. Default 5 s.
    pub stop_timeout: Duration,
    /// Whether stopping means leaving the cluster, so that its slots move at once. Default no: a
    /// node that comes back within `mesh.down_after` moves nothing.
    pub leave_on_stop: bool,
    /// Membership timings.
    pub mesh: MeshConfig,
    /// The core's behaviour.
    pub core: CoreSettings,
    /// Clients of Redis.
    pub redis: RedisSettings,
    /// The tables, with the memory each takes. SELECT of clients of Redis numbers them from 0 in this order, without
    /// their rings further out.
    pub tables: Vec<TableSettings>,
}

/// The most cores that a node has: each has a shard of every table.
pub const CORES_MAX: u16 = annulus_shm::SHARDS_MAX;

/// How clients of this host are served through shared memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaneSettings {
    /// The most lanes at a time; clients beyond it use the socket. 0 = none at all. Each takes a
    /// descriptor, and two more and some 140 KiB for each core. Default 256: 35 MiB with one core.
    pub max: u32,
    /// How long the thread that serves them looks for more before it sleeps. Raising it saves
    /// clients on other processors the time it takes to wake it (some 60 µs on a virtual machine)
    /// and costs up to as much of a processor after each submission. Default 50 µs.
    pub poll: Duration,
}

impl Default for LaneSettings {
    fn default() -> Self {
        Self { max: 256, poll: Duration::from_micros(50) }
    }
}

/// Where a node for development listens for clients of Redis, if nobody else does: one without configuration file and keys,
/// which listens where it does by default. There is one such node on a host at most.
pub const REDIS_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6379);

/// How clients of Redis are served. By default they are not: nobody listens for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    /// Where to listen, TCP; port 0 picks a free one. What travels there is in clear. Default nowhere, but for a development
    /// node (see [`REDIS_LISTEN`]).
    pub listen: Vec<SocketAddr>,
    /// Whether an address where it cannot listen is left out, and the node serves without it: nobody asked for one. Default
    /// no.
    pub gives_way: bool,
    /// The Unix socket, with the permissions of the node's other one; `None` = no socket.
    pub socket: Option<PathBuf>,
    /// The file of the password that they have to say first, as the user `default`; `None` = none is needed. Default none.
    pub password_file: Option<PathBuf>,
    /// The files of the passwords of users who are roles; none of [`Role::Development`]. With any, and without
    /// `password_file`, nobody comes in but these. Default none.
    pub password_files: Vec<(Role, PathBuf)>,
    /// The most connections at once, over TCP and the socket together. Each costs a descriptor and some KiB, and while
    /// much is on its way up to some MiB. Default 10,000, that of Redis.
    pub connections_max: u32,
    /// What becomes of a SET of a session that was ended. Default [`OnLateSave::Error`].
    pub on_late_save: OnLateSave,
    /// Whether they find a cluster: they are told of the homes of slots, and may be sent there. Takes a TCP address in
    /// `listen`. Default no.
    pub cluster: bool,
    /// Where clients of clusters find this node, as all nodes tell them; `None` = the first address of `listen`, with the
    /// node's own IP in place of one that stands for all. One on loopback is told to no other host. Default none.
    pub announce: Option<SocketAddr>,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            gives_way: false,
            socket: None,
            password_file: None,
            password_files: Vec::new(),
            connections_max: 10_000,
            on_late_save: OnLateSave::Error,
            cluster: false,
            announce: None,
        }
    }
}

/// What becomes of a late save: a SET of a key whose session was ended, by somebody who has not been told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLateSave {
    /// It is refused, and an error says so.
    Error,
    /// It is answered as if it were done, and is not: for applications that cannot do with an error.
    Ignore,
    /// It begins a session anew, as Redis would: for tables that are no sessions.
    Recreate,
}

/// Where a table's segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In shared memory.
    Memory,
    /// In a file in the node's data directory, mapped: what is used little costs no memory, and what is not in memory
    /// takes the disk's time.
    Disk,
}

/// The default size of a record, in bytes: a session of 256 bytes fits in, with its key and what is known of it.
pub const RECORD_SIZE_DEFAULT: u32 = 384;

/// A table's policy and its memory on this node.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSettings {
    /// Its policy.
    pub policy: TablePolicy,
    /// The size of its segment, in bytes. Default 8 MiB, which fits a container's /dev/shm.
    pub memory: u64,
    /// Where the segment is. Default in shared memory.
    pub storage: Storage,
    /// The size of a record there, in bytes: what is longer goes on in other records. Sessions that fit it cost one trip to
    /// memory. Default [`RECORD_SIZE_DEFAULT`].
    pub record_size: u32,
    /// The most bytes of its sessions in the archive on this node, if they go there
    /// ([`TablePolicy::overflow`]); the oldest file goes for a new one. Of ring 0. Default 1 GiB.
    pub archive_max: u64,
}
