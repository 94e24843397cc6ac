//! The thin part around the core: sockets, timers, threads, files.
//!
//! One task owns the [`Core`] and hands it what arrives; a task per stream reads and writes frames;
//! a task receives datagrams; a plain thread scans shared memory. Everything outside is reached
//! through [`Net`], [`Clock`] and [`Host`], so that the simulations drive this very code.

mod accept;
mod background;
mod error;
mod host;
mod lanes;
mod link;
mod load;
mod local_roles;
mod settings;
mod shared;
mod stream;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use annulus_gossip::view::INCARNATION_MAX;
use annulus_net::{Clock, Listener, Net, Udp};
use annulus_proto::codec::{self, DecodeError, Header};
use annulus_proto::limits::DATAGRAM_BYTES_MAX;
use annulus_proto::message::{Gossip, Message, Rejected, Role, Welcome};
use annulus_proto::{Hlc, Load, Member, NodeId, Status};
use crossbeam_channel::Receiver;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::SOFTWARE;
use crate::core::{Asker, CEILING_LEAD_MS, Caller, Core, CoreStart, Input, NodeState, Now, Output};
use accept::Reception;
use lanes::Lanes;
use link::{Identity, Link};
use shared::{Shared, Sleepers};
use stream::Outbox;

pub use background::Report;
pub use error::RunError;
pub use host::{Host, HostTable, SystemHost, table_options};
pub use local_roles::LocalRoles;
pub(crate) use local_roles::ROOT;
pub use settings::{LaneSettings, NodeSettings, TableSettings};

/// A node that serves.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Its id.
    pub node: NodeId,
    /// The incarnation of this run.
    pub incarnation: u64,
    /// Where it listens, UDP and TCP.
    pub addr: SocketAddr,
    /// Its Unix socket.
    pub socket: Option<PathBuf>,
}

/// Something for the task that owns the core.
enum Event {
    Inputs(Vec<Input>),
    Opened {
        stream: u64,
        outbox: Outbox,
    },
    /// Answers a request that the core does not see.
    Answer {
        stream: u64,
        id: u64,
        rejected: Rejected,
    },
    Reject {
        stream: u64,
        rejected: Rejected,
    },
    Closed {
        stream: u64,
    },
    Count(&'static str),
    /// The thread that serves lanes left something to do.
    Nudge,
}

/// Shards of each table: this node has one core.
const SHARDS: u16 = 1;
/// Batches that may wait for the core. Streams that have more to say wait in turn.
const EVENTS_MAX: usize = 1_024;
/// How long one write to a stream may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Batches that are handled before what they caused is sent.
const BATCHES_MAX: usize = 32;
/// How many expired entries a step of the scan drops at most, and how many records it checks: some
/// milliseconds together.
const EXPIRED_STEP: usize = 4_096;
const VERIFIED_STEP: usize = 512;
/// How often a step is done.
const SCAN_PERIOD: Duration = Duration::from_millis(100);
/// How often seeds are resolved again: at first, and at most.
const SEEDS_RETRY: Duration = Duration::from_millis(500);
const SEEDS_RETRY_MAX: Duration = Duration::from_secs(30);
/// How long the lookup of one seed may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often, and how long apart, a node that stops looks whether its files are free.
const RELEASE_TRIES: u32 = 1_000;
const RELEASE_PAUSE: Duration = Duration::from_millis(1);
/// How often a port is drawn anew when TCP got one that UDP cannot have.
const BIND_TRIES: usize = 16;

/// Runs a node on this network, clock and host until `stop` completes.
///
/// `ready` is called once it serves. Returns when everything under way at the stop is answered, or
/// `stop_timeout` later.
///
/// # Errors
/// [`RunError`]: what kept it from starting, or made it give up its place.
pub async fn run_on<N: Net, C: Clock, H: Host>(
    settings: NodeSettings,
    net: N,
    clock: C,
    host: H,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(&Ready),
) -> Result<(), RunError> {
    let now = present(&clock);
    let (state, clock_floor_ms) = first_state(&host, now)?;
    let id = NodeId::from_bits(state.id);
    store_state(&host, &state).await?;

    let (listener, udp, addr) = bind(&net, settings.listen).await?;
    let advertised = settings.advertise.unwrap_or(addr);
    let mut tables = Vec::new();
    let mut segments = Vec::new();
    let mut regions = Vec::new();
    let (mut set_aside, mut damaged) = (0, 0);
    for table in &settings.tables {
        let opened = host.open_table(&id.to_string(), table, SHARDS);
        let mut opened = opened.map_err(|source| RunError::table(table, source))?;
        if let Some((path, why)) = &opened.set_aside {
            tracing::warn!(path = %path.display(), why, "a segment was set aside; a new one is made");
            set_aside += 1;
        }
        if let Some(carried) = &opened.carried {
            let name = &table.policy.name;
            tracing::info!(table = name, ?carried, "a segment was replaced by one of another size");
            damaged += carried.damaged;
        }
        if let Some(recovery) = &opened.recovery {
            damaged +=
                recovery.dropped_torn + recovery.dropped_malformed + recovery.dropped_misplaced;
            tracing::info!(table = table.policy.name, ?recovery, "a segment was reopened");
        }
        let mut writer = opened.writers.remove(0);
        writer.set_owner_note(&format!("annulus node {id}, pid {}", std::process::id()));
        regions.push(opened.region);
        segments.push(opened.segment);
        tables.push((table.policy.clone(), writer));
    }

    let (events, inbox) = mpsc::channel(EVENTS_MAX);
    let socket = match &settings.socket {
        None => None,
        Some(path) => {
            let fail = |source| RunError::Socket { path: path.clone(), source };
            Some(net.listen_local(path).await.map_err(fail)?)
        }
    };
    let incarnation = state.incarnation;
    let me = Member {
        id,
        incarnation,
        revision: 0,
        status: Status::Joining,
        addr: advertised,
        name: settings.name.clone(),
        zone: settings.zone.clone(),
        weight: settings.weight,
        rings: settings.rings,
        load: Load::default(),
    };
    let welcome = Welcome {
        node: id,
        incarnation,
        name: settings.name.clone(),
        host: host.id(),
        segments,
        local_socket: settings
            .socket
            .as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
        software: SOFTWARE.to_owned(),
    };
    let mut core = Core::new(
        CoreStart {
            settings: settings.core.clone(),
            mesh: settings.mesh.clone(),
            cluster: settings.cluster.clone(),
            me,
            joins_others: !settings.seeds.is_empty() || !state.peers.is_empty(),
            state,
            clock_floor_ms,
            tables,
            seed: host.entropy(),
        },
        now,
    );
    core.count_many("segments_set_aside", set_aside);
    core.count_many("records_dropped_damaged", damaged as u64);
    let shared = Arc::new(Shared::new(core));
    let lanes = if host.shares_memory() && settings.lanes.max > 0 {
        let names = settings.tables.iter().map(|table| table.policy.name.clone()).collect();
        let (shared, clock, events) = (shared.clone(), clock.clone(), events.clone());
        match Lanes::start(settings.lanes, (names, SHARDS), shared, clock, events) {
            Ok((lanes, thread)) => Some(RunningLanes { lanes, thread: Some(thread) }),
            Err(error) => {
                tracing::error!(%error, "no thread for lanes; clients use the socket");
                None
            }
        }
    } else {
        None
    };
    let reception = Arc::new(Reception {
        cluster: settings.cluster.clone(),
        welcome,
        streams_max: settings.connections_max,
        strangers: AtomicU32::new(0),
        clients: AtomicU32::new(0),
        nodes: AtomicU32::new(0),
        next: AtomicU64::new(1),
        local_roles: settings.local_roles.clone(),
        user: rustix::process::geteuid().as_raw(),
        events: events.clone(),
        lanes: lanes.as_ref().map(|running| running.lanes.clone()),
    });
    let udp = Arc::new(udp);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(accept::accept(listener, reception.clone()));
    if let Some(socket) = socket {
        tasks.spawn(accept::accept(socket, reception.clone()));
    }
    tasks.spawn(receive_datagrams(udp.clone(), settings.cluster.clone(), events.clone()));
    tasks.spawn(resolve_seeds(net.clone(), settings.seeds.clone(), events.clone()));

    tracing::info!(node = %id, incarnation, %addr, name = settings.name, "serving");
    ready(&Ready { node: id, incarnation, addr, socket: settings.socket.clone() });
    let in_use: Vec<_> = regions.iter().map(Arc::downgrade).collect();
    let watch = host.watch(regions);
    let is_watched = watch.is_some();
    let host = Arc::new(host);
    let driver = Driver {
        shared,
        sleepers: Vec::new(),
        clock,
        host: host.clone(),
        net,
        udp,
        identity: Identity { cluster: settings.cluster.clone(), id, incarnation },
        streams: BTreeMap::new(),
        links: BTreeMap::new(),
        events,
        frame: Vec::new(),
        next_scan: Duration::ZERO,
        lanes: lanes.as_ref().map(|running| running.lanes.clone()),
        next_drain: Duration::ZERO,
    };
    let result = driver.run(inbox, watch, stop, &settings).await;
    tasks.shutdown().await;
    drop(lanes);
    // Whoever starts this node again in the same process finds its files free, and nothing overwrites
    // its state any more: what is being stored is stored, and the thread that scans lets go.
    let mut tries = RELEASE_TRIES;
    let scanned = || is_watched && in_use.iter().any(|region| region.strong_count() > 0);
    while tries > 0 && (Arc::strong_count(&host) > 1 || scanned()) {
        tokio::time::sleep(RELEASE_PAUSE).await;
        tries -= 1;
    }
    tracing::info!(node = %id, "stopped");
    result
}

/// The thread that serves lanes; it ends when this is dropped.
struct RunningLanes {
    lanes: Arc<Lanes>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for RunningLanes {
    fn drop(&mut self) {
        self.lanes.stop();
        // It ends at once, and lets go of the tables: whoever starts this node again finds them free.
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if let Some(Err(panic)) = ended
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

struct Driver<N: Net, C: Clock, H: Host> {
    shared: Arc<Shared>,
    /// Clients to wake; kept for its memory.
    sleepers: Sleepers,
    clock: C,
    host: Arc<H>,
    net: N,
    udp: Arc<N::Udp>,
    identity: Identity,
    streams: BTreeMap<u64, Outbox>,
    links: BTreeMap<SocketAddr, Link>,
    events: mpsc::Sender<Event>,
    frame: Vec<u8>,
    next_scan: Duration,
    lanes: Option<Arc<Lanes>>,
    next_drain: Duration,
}

impl<N: Net, C: Clock, H: Host> Driver<N, C, H> {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Event>,
        watch: Option<Receiver<Report>>,
        stop: impl Future<Output = ()>,
        settings: &NodeSettings,
    ) -> Result<(), RunError> {
        let mut stop = std::pin::pin!(stop);
        let mut give_up: Option<Instant> = None;
        loop {
            if self.carry_out().await? {
                return Ok(());
            }
            let now = self.clock.monotonic();
            let wait = self.shared.lock().core.poll_timeout().saturating_sub(now);
            tokio::select! {
                event = inbox.recv() => {
                    let mut event = event;
                    let mut left = BATCHES_MAX;
                    while let Some(next) = event {
                        if self.take_in(next).await? {
                            return Ok(());
                        }
                        left -= 1;
                        event = if left > 0 { inbox.try_recv().ok() } else { None };
                    }
                }
                () = tokio::time::sleep(wait) => self.on_time(watch.as_ref()),
                () = &mut stop, if give_up.is_none() => {
                    tracing::info!("stopping");
                    give_up = Some(Instant::now() + settings.stop_timeout);
                    let leave = settings.leave_on_stop;
                    self.shared.lock().core.handle(present(&self.clock), Input::Stop { leave });
                }
            }
            if give_up.is_some_and(|at| at <= Instant::now()) {
                tracing::warn!("stopped before everything was answered; raise stop_timeout");
                return Ok(());
            }
        }
    }

    /// Takes in one event. True when the core has stopped.
    async fn take_in(&mut self, event: Event) -> Result<bool, RunError> {
        let now = present(&self.clock);
        match event {
            Event::Inputs(inputs) => {
                // One after the other: a few bytes of requests can ask for megabytes of answers, and
                // only what is in a stream's queue counts against its bound.
                for input in inputs {
                    self.shared.lock().core.handle(now, input);
                    if self.carry_out().await? {
                        return Ok(true);
                    }
                }
            }
            Event::Opened { stream, outbox } => {
                self.streams.insert(stream, outbox);
            }
            Event::Answer { stream, id, rejected } => {
                let header = self.shared.lock().core.header(now, id);
                self.send_to_stream(stream, header, &rejected.into());
            }
            Event::Reject { stream, rejected } => {
                let header = self.shared.lock().core.header(now, 0);
                self.send_to_stream(stream, header, &rejected.into());
                self.streams.remove(&stream);
            }
            Event::Closed { stream } => {
                self.streams.remove(&stream);
            }
            Event::Count(name) => self.shared.lock().core.count(name),
            Event::Nudge => {}
        }
        Ok(false)
    }

    fn on_time(&mut self, watch: Option<&Receiver<Report>>) {
        let now = present(&self.clock);
        for report in watch.iter().flat_map(|reports| reports.try_iter()) {
            let input = match report {
                Report::Load(load) => Input::Load(load),
                Report::HugePages { table, bytes } => Input::HugePages { table, bytes },
            };
            self.shared.lock().core.handle(now, input);
        }
        if self.next_scan <= now.monotonic {
            self.next_scan = now.monotonic + SCAN_PERIOD;
            self.shared.lock().core.scan(now, EXPIRED_STEP, VERIFIED_STEP);
        }
        if let Some(lanes) = &self.lanes {
            lanes.keep_time(now.monotonic, &mut self.next_drain);
        }
        self.shared.lock().core.handle_timeout(now);
    }

    /// Does everything the core asks for. True when the core has stopped.
    async fn carry_out(&mut self) -> Result<bool, RunError> {
        let mut stopped = false;
        self.answer_lanes();
        loop {
            let output = self.shared.lock().core.poll_output();
            let Some(output) = output else { break };
            match output {
                Output::Gossip { to, header, packet } => {
                    self.send_datagram(to, header, &Gossip { packet }.into()).await;
                }
                Output::Reply { to: Asker::Stream(stream), header, message } => {
                    self.send_to_stream(stream, header, &message);
                }
                Output::Reply { to: Asker::Datagram(to), header, message } => {
                    self.send_datagram(to, header, &message).await;
                }
                Output::Reply { to: Asker::Lane { .. }, .. } => {
                    unreachable!("answers for lanes are taken out apart")
                }
                Output::Call { to, header, message } => self.send_call(to, header, &message),
                Output::Persist { generation, state } => self.persist(generation, state),
                Output::IdInUse { addr, give_way: true } => {
                    return Err(RunError::IdInUse { id: self.identity.id, addr });
                }
                Output::IdInUse { addr, give_way: false } => {
                    let id = self.identity.id;
                    tracing::error!(%id, %addr, "another node uses this node's id; stop it and remove its data_dir");
                }
                Output::Stopped => stopped = true,
            }
        }
        Ok(stopped)
    }

    fn answer_lanes(&mut self) {
        self.shared.lock().answer_lanes(&mut self.sleepers);
        for (waker, call) in self.sleepers.drain(..) {
            waker.wake(call);
        }
    }

    fn send_to_stream(&mut self, stream: u64, header: Header, message: &Message) {
        let Some(outbox) = self.streams.get(&stream) else { return };
        let mut frame = Vec::new();
        if let Err(error) = codec::encode_frame(header, message, &mut frame) {
            tracing::error!(%error, "an answer is larger than its kind may be");
            let why = error.to_string();
            let rejected: Message = Rejected::Malformed { why }.into();
            frame.clear();
            if codec::encode_frame(header, &rejected, &mut frame).is_err() {
                return;
            }
        }
        if !outbox.push(frame) {
            self.shared.lock().core.count("streams_too_slow");
            self.streams.remove(&stream);
        }
    }

    async fn send_datagram(&mut self, to: SocketAddr, header: Header, message: &Message) {
        self.frame.clear();
        let cluster = &self.identity.cluster;
        if codec::encode_datagram(header, cluster, message, &mut self.frame).is_err() {
            self.shared.lock().core.count("datagrams_too_large");
            let instead: Message = Rejected::AskOverStream.into();
            if codec::encode_datagram(header, cluster, &instead, &mut self.frame).is_err() {
                return;
            }
        }
        if self.udp.send_to(&self.frame, to).await.is_err() {
            self.shared.lock().core.count("datagrams_not_sent");
        }
    }

    fn send_call(&mut self, to: SocketAddr, header: Header, message: &Message) {
        let mut frame = Vec::new();
        let encoded = codec::encode_frame(header, message, &mut frame);
        if let Err(error) = &encoded {
            tracing::error!(%error, "a question is larger than its kind may be");
        }
        let sent = encoded.is_ok() && {
            let link = || {
                let (net, identity) = (self.net.clone(), self.identity.clone());
                Link::new(net, to, identity, self.events.clone())
            };
            // A link without calls ends after a while, perhaps just now.
            if self.links.get(&to).is_some_and(Link::is_over) {
                self.links.remove(&to);
            }
            self.links.entry(to).or_insert_with(link).send(header.id, frame)
        };
        if !sent {
            let failed = Input::CallFailed { call: header.id, sent: false };
            self.shared.lock().core.handle(present(&self.clock), failed);
        }
    }

    fn persist(&self, generation: u64, state: NodeState) {
        let (host, events) = (self.host.clone(), self.events.clone());
        tokio::spawn(async move {
            // Until it is on disk the node stamps nothing; keep trying.
            while let Err(error) = store_state(&*host, &state).await {
                tracing::error!(%error, "the node's state cannot be written; check data_dir");
                if events.is_closed() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let _ = events.send(Event::Inputs(vec![Input::Persisted { generation }])).await;
        });
    }
}

fn present<C: Clock>(clock: &C) -> Now {
    Now { monotonic: clock.monotonic(), wall_ms: clock.wall_ms() }
}

/// The state this run begins with, and the clock's ceiling of the run before: what was on disk, with
/// an incarnation above it, and a ceiling that lets this run stamp at once.
fn first_state<H: Host>(host: &H, now: Now) -> Result<(NodeState, u64), RunError> {
    let stored = host.load_state().map_err(RunError::State)?;
    let mut state = match stored {
        None => NodeState { id: host.entropy() & ID_MASK, ..NodeState::default() },
        Some(bytes) => {
            let text =
                String::from_utf8(bytes).map_err(|e| RunError::StateDamaged(e.to_string()))?;
            let state = toml::from_str(&text).map_err(|e| RunError::StateDamaged(e.to_string()))?;
            check_state(&state).map_err(|why| RunError::StateDamaged(why.to_owned()))?;
            state
        }
    };
    state.incarnation = (state.incarnation + 1).max(now.wall_ms);
    let clock_floor_ms = state.clock_ceiling_ms;
    state.clock_ceiling_ms = clock_floor_ms.max(now.wall_ms) + CEILING_LEAD_MS;
    Ok((state, clock_floor_ms))
}

/// Whether numbers that a node never writes stand in its state: they would be taken for a clock or
/// an incarnation from which there is no way on.
fn check_state(state: &NodeState) -> Result<(), &'static str> {
    if state.id > ID_MASK {
        return Err("`id` is above 48 bits");
    }
    if state.incarnation >= INCARNATION_MAX {
        return Err("`incarnation` is beyond what a node reaches");
    }
    if state.clock_ceiling_ms > Hlc::MS_MAX / 2 {
        return Err("`clock_ceiling_ms` is beyond the year 6000");
    }
    Ok(())
}

const ID_MASK: u64 = (1 << NodeId::BITS) - 1;

async fn store_state<H: Host>(host: &H, state: &NodeState) -> Result<(), RunError> {
    let text = toml::to_string(state).expect("plain numbers and addresses are valid TOML");
    host.store_state(text.into_bytes()).await.map_err(RunError::State)
}

/// Binds UDP and TCP to one port.
async fn bind<N: Net>(
    net: &N,
    listen: SocketAddr,
) -> Result<(N::Listener, N::Udp, SocketAddr), RunError> {
    let fail = |source| RunError::Listen { addr: listen, source };
    let mut tries = BIND_TRIES;
    loop {
        let listener = net.listen(listen).await.map_err(fail)?;
        let addr = SocketAddr::new(listen.ip(), listener.local_addr().map_err(fail)?.port());
        match net.bind_udp(addr).await {
            Ok(udp) => return Ok((listener, udp, addr)),
            Err(error) if listen.port() != 0 || tries == 0 => return Err(fail(error)),
            Err(_) => tries -= 1,
        }
    }
}

async fn receive_datagrams<U: Udp>(udp: Arc<U>, cluster: String, events: mpsc::Sender<Event>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
    loop {
        let Ok((length, from)) = udp.recv_from(&mut buffer).await else {
            if events.send(Event::Count("datagrams_not_received")).await.is_err() {
                return;
            }
            continue;
        };
        let event = match codec::decode_datagram(&buffer[..length], &cluster) {
            Ok((header, Message::Gossip(Gossip { packet }))) => {
                Event::Inputs(vec![Input::Gossip { from, header, packet }])
            }
            Ok((header, message)) => {
                let caller = Caller::Client(Role::Development);
                let asker = Asker::Datagram(from);
                Event::Inputs(vec![Input::Request { asker, caller, header, message }])
            }
            Err(DecodeError::Cluster) => Event::Count("datagrams_of_other_clusters"),
            Err(DecodeError::Version(_)) => Event::Count("datagrams_of_other_versions"),
            Err(_) => Event::Count("datagrams_malformed"),
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// Resolves the seeds' names for ever: names may resolve later, and to other addresses.
async fn resolve_seeds<N: Net>(net: N, seeds: Vec<String>, events: mpsc::Sender<Event>) {
    let mut pause = SEEDS_RETRY;
    let mut known = Vec::new();
    while !seeds.is_empty() {
        let mut addrs = Vec::new();
        // All at once: a name server that does not answer for one keeps nobody from the others.
        let lookup = |seed: &String| {
            let (net, seed) = (net.clone(), seed.clone());
            tokio::spawn(async move {
                let found = tokio::time::timeout(RESOLVE_TIMEOUT, net.resolve(&seed)).await;
                found.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            })
        };
        let lookups: Vec<_> = seeds.iter().map(lookup).collect();
        for (seed, lookup) in seeds.iter().zip(lookups) {
            match lookup.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                Ok(found) => addrs.extend(found),
                Err(error) => {
                    tracing::warn!(seed, %error, "a seed does not resolve; trying again");
                    let _ = events.send(Event::Count("seeds_not_resolved")).await;
                }
            }
        }
        addrs.sort_unstable();
        addrs.dedup();
        if addrs != known {
            known.clone_from(&addrs);
            pause = SEEDS_RETRY;
            if events.send(Event::Inputs(vec![Input::Seeds(addrs)])).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(SEEDS_RETRY_MAX);
    }
}
