//! The client itself: what all its handles share.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annulus_net::{Clock, Net, SystemClock, TokioNet};
use annulus_proto::codec::Header;
use annulus_proto::message::{
    Acknowledged, Change, Explanation, List, Members, NodeStatus, Peers, RequestId, Routes, Segment,
};
use annulus_proto::{Hlc, NodeId, RouteTable, Value, Version};
use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;
use tracing::{debug, info};

use crate::builder::{Builder, Via};
use crate::contact::{self, Contact, Contacted, Search};
use crate::counters::{Counters, Tally};
use crate::datagram::Datagrams;
use crate::error::{ConnectError, Error};
use crate::lane::Lane;
use crate::local::{LocalPage, LocalReader, LocalTable};
use crate::node::NodeHandle;
use crate::pool::Pool;
use crate::request::{self, Pace};
use crate::seal::Seal;
use crate::table::{Location, Read, StartOptions, Table};
use crate::watch::RouteWatch;

/// Sessions of a cluster, as an application uses them. Cheap to clone; clones are the same client.
///
/// The operations on the client itself are those of its default table; see [`Table`] for what they
/// do and cost. Background tasks (at most one per open stream, and two) end with the last handle.
pub struct Client<N: Net = TokioNet, C: Clock = SystemClock> {
    sessions: Table<N, C>,
}

impl Client {
    /// Connects with defaults, but for the seeds (`host:port`).
    ///
    /// # Errors
    /// [`ConnectError`] when none of them answered as a node of the cluster `annulus`.
    pub async fn connect(
        seeds: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, ConnectError> {
        Self::builder().seeds(seeds).connect().await
    }

    /// Everything there is to choose. For another network or clock see [`Builder::new`].
    pub fn builder() -> Builder {
        Builder::production()
    }
}

impl<N: Net, C: Clock> Client<N, C> {
    pub(crate) fn open(settings: Builder<N, C>) -> Self {
        let tally = Arc::new(Tally::default());
        let seal = Seal::of(&settings);
        let inner = Arc::new(Inner {
            pool: Pool::new(settings.streams_max),
            datagrams: Datagrams::new(
                settings.net.clone(),
                settings.cluster.clone(),
                seal.clone(),
                tally.clone(),
            ),
            seal,
            search: watch::Sender::new(Search::default()),
            routes: ArcSwapOption::empty(),
            routes_told: watch::Sender::new(None),
            routes_stale: Notify::new(),
            proximity: ArcSwap::default(),
            tables: Mutex::default(),
            lane: ArcSwapOption::empty(),
            soon: Arc::new(Semaphore::new(SOON_MAX)),
            requests: Arc::new(AtomicU64::new(1)),
            frames: AtomicU64::new(1),
            pace: Pace::default(),
            write_pace: Pace::default(),
            seen: AtomicU64::new(0),
            tally,
            settings,
        });
        let keep = tokio::spawn(contact::keep(inner.clone())).abort_handle();
        let refresh = tokio::spawn(request::refresh_routes(inner.clone())).abort_handle();
        let table = inner.settings.table.clone();
        let handle = Arc::new(Handle { inner, tasks: [keep, refresh] });
        Self { sessions: Table::new(handle, &table) }
    }

    /// Waits until a node is found, or everything was tried once.
    ///
    /// # Errors
    /// [`ConnectError`] when it was; the client goes on trying.
    pub async fn connected(&self) -> Result<Contact, ConnectError> {
        let mut search = self.inner().search.subscribe();
        let known = search
            .wait_for(|search| search.found.is_some() || search.failed.is_some())
            .await
            .expect("the sender lives as long as the client");
        match (&known.found, &known.failed) {
            (Some(found), _) => Ok(found.describe()),
            (None, failed) => Err(failed.clone().unwrap_or(ConnectError::NothingToTry)),
        }
    }

    /// The node it is in touch with, if any at the moment.
    pub fn contact(&self) -> Option<Contact> {
        self.inner().search.borrow().found.as_ref().map(Contacted::describe)
    }

    /// The number that tells this client apart.
    pub fn number(&self) -> u64 {
        self.inner().settings.number
    }

    /// A table by its name. Whether it exists, the first operation tells.
    pub fn table(&self, name: &str) -> Table<N, C> {
        Table::new(self.sessions.handle().clone(), name)
    }

    /// The default table.
    pub fn sessions(&self) -> &Table<N, C> {
        &self.sessions
    }

    /// Some node, the host's if there is one: asks go to others when it does not answer.
    pub fn any_node(&self) -> NodeHandle<N, C> {
        NodeHandle::new(self.sessions.handle().clone(), None)
    }

    /// The node at this address and no other.
    pub fn node(&self, addr: SocketAddr) -> NodeHandle<N, C> {
        NodeHandle::new(self.sessions.handle().clone(), Some(addr))
    }

    /// The node with this id and no other. Asks for the members to find its address.
    ///
    /// # Errors
    /// [`Error::Refused`] if no such member is known; otherwise as [`NodeHandle::members`].
    pub async fn node_with_id(&self, id: NodeId) -> Result<NodeHandle<N, C>, Error> {
        let members = self.members().await?.members;
        let member = members.into_iter().find(|member| member.id == id);
        let member = member.ok_or_else(|| Error::Refused(format!("there is no member {id}")))?;
        Ok(self.node(member.addr))
    }

    /// Reads a table of this host's shared memory without tokio. `None` until a segment is attached,
    /// which it is before [`Builder::connect`] returns if there is one.
    pub fn local_reader(&self, table: &str) -> Option<LocalReader<C>> {
        let inner = self.inner();
        let local = inner.local(table);
        local.is_attached().then(|| LocalReader::new(local, inner.settings.clock.clone()))
    }

    /// The lane to this host's node, for use without tokio. `None` while there is none: a lane is
    /// opened soon after the node was found at its local socket, and closed when that was lost.
    pub fn lane(&self) -> Option<Lane> {
        self.inner().lane.load().as_ref().map(|lane| (**lane).clone())
    }

    /// What the client has done so far.
    pub fn counters(&self) -> Counters {
        self.inner().tally.read()
    }

    /// See [`Table::start`].
    ///
    /// # Errors
    /// As there.
    pub async fn start(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: Value,
        options: StartOptions,
    ) -> Result<Acknowledged, Error> {
        self.sessions.start(key, value, options).await
    }

    /// See [`Table::get`].
    ///
    /// # Errors
    /// As there.
    pub async fn get(&self, key: impl AsRef<[u8]> + Send) -> Result<Read, Error> {
        self.sessions.get(key).await
    }

    /// See [`Table::update`].
    ///
    /// # Errors
    /// As there.
    pub async fn update(
        &self,
        key: impl AsRef<[u8]> + Send,
        birth: Option<Version>,
        change: Change,
    ) -> Result<Acknowledged, Error> {
        self.sessions.update(key, birth, change).await
    }

    /// See [`Table::touch`].
    ///
    /// # Errors
    /// As there.
    pub async fn touch(
        &self,
        key: impl AsRef<[u8]> + Send,
        birth: Option<Version>,
    ) -> Result<Acknowledged, Error> {
        self.sessions.touch(key, birth).await
    }

    /// See [`Table::end`].
    ///
    /// # Errors
    /// As there.
    pub async fn end(
        &self,
        key: impl AsRef<[u8]> + Send,
        birth: Option<Version>,
    ) -> Result<Acknowledged, Error> {
        self.sessions.end(key, birth).await
    }

    /// See [`Table::locate`].
    ///
    /// # Errors
    /// As there.
    pub async fn locate(&self, key: impl AsRef<[u8]> + Send) -> Result<Location, Error> {
        self.sessions.locate(key).await
    }

    /// See [`Table::explain`].
    ///
    /// # Errors
    /// As there.
    pub async fn explain(
        &self,
        key: impl AsRef<[u8]> + Send,
        ask_homes: bool,
    ) -> Result<Explanation, Error> {
        self.sessions.explain(key, ask_homes).await
    }

    /// See [`Table::list_local`].
    ///
    /// # Errors
    /// As there.
    pub fn list_local(&self, cursor: u64, limit: usize) -> Result<LocalPage, Error> {
        self.sessions.list_local(cursor, limit)
    }

    /// See [`Table::list`].
    ///
    /// # Errors
    /// As there.
    pub async fn list(&self, cursor: u64, limit: u16) -> Result<List, Error> {
        self.sessions.list(cursor, limit).await
    }

    /// How some node is; see [`NodeHandle::status`].
    ///
    /// # Errors
    /// As there.
    pub async fn status(&self) -> Result<NodeStatus, Error> {
        self.any_node().status().await
    }

    /// The members that some node knows; see [`NodeHandle::members`].
    ///
    /// # Errors
    /// As there.
    pub async fn members(&self) -> Result<Members, Error> {
        self.any_node().members().await
    }

    /// How some node finds the other members; see [`NodeHandle::peers`].
    ///
    /// # Errors
    /// As there.
    pub async fn peers(&self) -> Result<Peers, Error> {
        self.any_node().peers().await
    }

    /// The homes of all slots as some node sees them; see [`NodeHandle::routes`].
    ///
    /// # Errors
    /// As there.
    pub async fn routes(&self) -> Result<Routes, Error> {
        self.any_node().routes().await
    }

    /// The homes of all slots as this client knows them, which is how it finds them; `None` until it
    /// has learned of any. Asks nobody.
    pub fn route_table(&self) -> Option<Arc<RouteTable>> {
        self.inner().routes.load_full()
    }

    /// Tells of each change of [`Client::route_table`].
    pub fn watch_routes(&self) -> RouteWatch<N, C> {
        RouteWatch::new(self.sessions.handle().clone())
    }

    fn inner(&self) -> &Arc<Inner<N, C>> {
        &self.sessions.handle().inner
    }
}

impl<N: Net, C: Clock> Clone for Client<N, C> {
    fn clone(&self) -> Self {
        Self { sessions: self.sessions.clone() }
    }
}

impl<N: Net, C: Clock> fmt::Debug for Client<N, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("settings", &self.inner().settings)
            .field("contact", &self.contact())
            .finish_non_exhaustive()
    }
}

/// The most touches and updates that are under way without a lane and without anybody who waits.
const SOON_MAX: usize = 1_024;

/// Keeps the client's tasks running for as long as anybody holds a handle.
pub(crate) struct Handle<N: Net, C: Clock> {
    pub(crate) inner: Arc<Inner<N, C>>,
    tasks: [AbortHandle; 2],
}

impl<N: Net, C: Clock> Drop for Handle<N, C> {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What handles and tasks share.
pub(crate) struct Inner<N: Net, C: Clock> {
    pub(crate) settings: Builder<N, C>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) pool: Pool,
    pub(crate) datagrams: Datagrams<N>,
    /// `None` without a key.
    pub(crate) seal: Option<Arc<Seal>>,
    pub(crate) search: watch::Sender<Search>,
    pub(crate) routes: ArcSwapOption<RouteTable>,
    /// The same, for those who wait for another one.
    pub(crate) routes_told: watch::Sender<Option<Arc<RouteTable>>>,
    pub(crate) routes_stale: Notify,
    /// How far each node is from this host, in steps of [`Rtt::step`](annulus_proto::Rtt::step), by the
    /// measurements of the host's node; empty without one.
    pub(crate) proximity: ArcSwap<BTreeMap<NodeId, u8>>,
    tables: Mutex<BTreeMap<String, Arc<LocalTable>>>,
    /// Shared memory to the host's node, while there is some.
    pub(crate) lane: ArcSwapOption<Lane>,
    /// Places for what is done soon without a lane.
    pub(crate) soon: Arc<Semaphore>,
    pub(crate) requests: Arc<AtomicU64>,
    frames: AtomicU64,
    /// How long nodes take to answer reads.
    pub(crate) pace: Pace,
    /// How long they take to answer touches and ends.
    pub(crate) write_pace: Pace,
    /// The latest instant of any version that a node showed us: what we ask for next is stamped
    /// later, at whichever node.
    seen: AtomicU64,
}

impl<N: Net, C: Clock> Inner<N, C> {
    pub(crate) fn next_request(&self) -> RequestId {
        let sequence = self.requests.fetch_add(1, Ordering::Relaxed);
        RequestId { client: self.settings.number, sequence }
    }

    pub(crate) fn next_frame_id(&self) -> u64 {
        self.frames.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn header(&self, id: u64) -> Header {
        let view = self.routes.load().as_ref().map_or(0, |routes| routes.view());
        Header { id, view, hlc: Hlc::from_bits(self.seen.load(Ordering::Relaxed)) }
    }

    /// Takes note of a version that a node answered with.
    pub(crate) fn saw(&self, version: Version) {
        self.seen.fetch_max(version.hlc.bits(), Ordering::Relaxed);
    }

    /// Takes note of the view that a node answered from.
    pub(crate) fn saw_view(&self, view: u64) {
        let known = self.routes.load().as_ref().map(|routes| routes.view());
        if view != 0 && known != Some(view) {
            self.routes_stale.notify_one();
        }
    }

    pub(crate) fn found(&self) -> Option<Contacted> {
        self.search.borrow().found.clone().filter(|found| !found.link.is_closed())
    }

    pub(crate) fn local(&self, table: &str) -> Arc<LocalTable> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(local) = tables.get(table) {
            return local.clone();
        }
        let local = tables.entry(table.to_owned()).or_default();
        local.count_uses(self.lane.load().as_ref().and_then(|lane| lane.table(table)?.uses()));
        local.clone()
    }

    /// Uses a lane from now on, or none.
    pub(crate) fn use_lane(&self, lane: Option<Lane>) {
        // In this order a table that is made meanwhile misses no change.
        self.lane.store(lane.clone().map(Arc::new));
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, local) in &*tables {
            local.count_uses(lane.as_ref().and_then(|lane| lane.table(name)?.uses()));
        }
    }

    /// The local socket, unless requests are to travel otherwise.
    pub(crate) fn local_socket(&self) -> Option<&Path> {
        let wanted = matches!(self.settings.via, Via::Auto | Via::Local);
        self.settings.local_socket.as_deref().filter(|_| wanted)
    }

    /// How long one address may take to answer a handshake while there may be others to try.
    pub(crate) fn connect_timeout(&self) -> Duration {
        (self.settings.timeout / 2).max(Duration::from_secs(1))
    }

    /// Attaches a segment that a node told of, if it is here.
    pub(crate) fn attach(&self, segment: &Segment, node: NodeId) {
        let Some(attach) = &self.settings.attach else { return };
        let local = self.local(&segment.table);
        if local.is_attached_to(segment.instance, node) {
            return;
        }
        match attach(segment) {
            Ok(shards) if shards.instance() == segment.instance => {
                info!(table = segment.table, path = segment.path, %node, "attached");
                self.tally.attached.add_one();
                local.attach(shards, Some(node));
            }
            Ok(_) => debug!(path = segment.path, "a segment of another instance; not attached"),
            Err(error) => debug!(path = segment.path, %error, "not attached"),
        }
    }
}
