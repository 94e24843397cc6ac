//! How a client is set up.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use annulus_net::{Clock, Net, SystemClock, TokioNet};
use annulus_proto::message::{Role, Segment};
use annulus_seal::{Key, Zeroizing};
use annulus_shm::{AttachError, Shards};

use crate::client::Client;
use crate::error::ConnectError;
use crate::local::attach_file;

/// What a client needs to know, with defaults that fit a development cluster.
///
/// Nothing is read from files or the environment: whoever builds a client passes it on.
#[derive(Clone)]
pub struct Builder<N: Net = TokioNet, C: Clock = SystemClock> {
    pub(crate) net: N,
    pub(crate) clock: C,
    pub(crate) number: u64,
    pub(crate) cluster: String,
    pub(crate) seeds: Vec<String>,
    pub(crate) local_socket: Option<PathBuf>,
    pub(crate) table: String,
    pub(crate) role: Role,
    pub(crate) key: Option<Arc<Key>>,
    pub(crate) entropy: Option<Zeroizing<[u8; 32]>>,
    /// How many clients with a key were made of this builder and its clones.
    pub(crate) sealed: Arc<AtomicU64>,
    pub(crate) timeout: Duration,
    pub(crate) via: Via,
    pub(crate) attach: Option<Arc<Attach>>,
    pub(crate) lane: bool,
    pub(crate) software: String,
    pub(crate) streams_max: usize,
}

/// Opens a segment that a node told of.
pub(crate) type Attach = dyn Fn(&Segment) -> Result<Shards, AttachError> + Send + Sync;

/// How requests travel. Reads out of shared memory travel not at all and don't depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Via {
    /// The host's local socket when there is one, and TCP.
    #[default]
    Auto,
    /// The host's local socket and nothing else.
    Local,
    /// TCP and nothing else.
    Tcp,
    /// Datagrams for requests about sessions that fit one, TCP for the rest.
    Udp,
}

impl Builder {
    /// A production client: tokio's network, the system's clocks, a number drawn at random.
    pub(crate) fn production() -> Self {
        Self::new(TokioNet::new(), SystemClock, rand::random())
    }
}

impl<N: Net, C: Clock> Builder<N, C> {
    /// A client on any network and clock. `number` tells clients apart: no two may have the same
    /// while nodes remember their requests, so draw it at random (simulations: from the seed).
    pub fn new(net: N, clock: C, number: u64) -> Self {
        Self {
            net,
            clock,
            number,
            cluster: "annulus".to_owned(),
            seeds: Vec::new(),
            local_socket: None,
            table: "sessions".to_owned(),
            role: Role::Development,
            key: None,
            entropy: None,
            sealed: Arc::default(),
            timeout: Duration::from_secs(2),
            via: Via::Auto,
            attach: Some(Arc::new(|segment| attach_file(segment.path.as_ref()))),
            lane: true,
            software: concat!("annulus-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            streams_max: 64,
        }
    }

    /// The cluster that is meant; nodes of another one refuse. Default `annulus`.
    #[must_use]
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.cluster = name.into();
        self
    }

    /// Adds a node to start from, `host:port`. Names are resolved at each try and all their
    /// addresses are tried, in order.
    #[must_use]
    pub fn seed(mut self, seed: impl Into<String>) -> Self {
        self.seeds.push(seed.into());
        self
    }

    /// Adds nodes to start from, as [`Builder::seed`].
    #[must_use]
    pub fn seeds(mut self, seeds: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.seeds.extend(seeds.into_iter().map(Into::into));
        self
    }

    /// The local socket of the host's node, tried before the seeds. Default none.
    #[must_use]
    pub fn local_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.local_socket = Some(path.into());
        self
    }

    /// The table of the operations on [`Client`] itself. Default `sessions`.
    #[must_use]
    pub fn table(mut self, name: impl Into<String>) -> Self {
        self.table = name.into();
        self
    }

    /// What the client may do. Default [`Role::Development`].
    #[must_use]
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// The key for nodes of other hosts: whatever goes there is sealed with it, and nodes without it are
    /// not spoken to. What the client may do is what its key says. Default none: everything goes in clear,
    /// as to a cluster of one host. The local socket takes no key either way.
    #[must_use]
    pub fn key(mut self, key: Key) -> Self {
        self.key = Some(Arc::new(key));
        self
    }

    /// What the randomness of sealing comes from, for simulations, which draw it from their seed. Nobody
    /// may be able to guess it, and no two builders have the same; clients of clones of one builder each
    /// draw their own. Default: the system's.
    #[must_use]
    pub fn entropy(mut self, seed: [u8; 32]) -> Self {
        self.entropy = Some(Zeroizing::new(seed));
        self
    }

    /// How long an operation may take, all its retries included. Default 2 s. Raising it rides out
    /// longer failures and keeps callers waiting longer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How requests travel. Default [`Via::Auto`].
    #[must_use]
    pub fn via(mut self, via: Via) -> Self {
        self.via = via;
        self
    }

    /// How segments are opened; simulations open heap memory. Whatever it returns is attached only
    /// if it carries the instance number that the node told. Default [`Shards::attach_file`]: of
    /// another host's node there is no such file here, so it is just not attached.
    #[must_use]
    pub fn attach(
        mut self,
        attach: impl Fn(&Segment) -> Result<Shards, AttachError> + Send + Sync + 'static,
    ) -> Self {
        self.attach = Some(Arc::new(attach));
        self
    }

    /// Opens no lane: touches and updates go over the socket. For those who do little of that, since
    /// a lane takes the node 140 KiB for each of its cores.
    #[must_use]
    pub fn without_lane(mut self) -> Self {
        self.lane = false;
        self
    }

    /// Never reads shared memory, and opens no lane.
    #[must_use]
    pub fn without_shared_memory(mut self) -> Self {
        self.attach = None;
        self.lane = false;
        self
    }

    /// The application's name and version, which nodes show to people.
    #[must_use]
    pub fn software(mut self, software: impl Into<String>) -> Self {
        self.software = software.into();
        self
    }

    /// The most streams to keep open to nodes other than the host's; the one used longest ago is
    /// closed for a new one. Default 64. Raising it saves handshakes in larger clusters and costs
    /// each node a connection per client.
    #[must_use]
    pub fn streams_max(mut self, count: usize) -> Self {
        self.streams_max = count.max(1);
        self
    }

    /// Connects: tries everything once, and returns as soon as a node has answered. From then on
    /// the client reconnects by itself, for ever.
    ///
    /// # Errors
    /// [`ConnectError`] when all were tried and none answered as it should; the client is gone then.
    pub async fn connect(self) -> Result<Client<N, C>, ConnectError> {
        let client = self.open();
        client.connected().await?;
        Ok(client)
    }

    /// A client that looks for a node in the background, for ever. Operations wait for it, up to
    /// their timeout. Must be called inside a tokio runtime.
    pub fn open(self) -> Client<N, C> {
        Client::open(self)
    }
}

impl<N: Net, C: Clock> fmt::Debug for Builder<N, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("cluster", &self.cluster)
            .field("seeds", &self.seeds)
            .field("local_socket", &self.local_socket)
            .field("table", &self.table)
            .field("role", &self.role)
            .field("key", &self.key)
            .field("timeout", &self.timeout)
            .field("via", &self.via)
            .field("shared_memory", &self.attach.is_some())
            .finish_non_exhaustive()
    }
}
