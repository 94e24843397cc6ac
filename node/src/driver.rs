//! The thin part around the hub and the cores: sockets, timers, threads, files.
//!
//! One task owns the [`Hub`], and one task each [`Core`]; what arrives is left in their inboxes. A task
//! per stream reads frames and another one writes them; a task receives datagrams; plain threads serve
//! lanes and watch the host. Everything outside is reached through [`Net`], [`Clock`] and [`Host`], so
//! that the simulations drive this very code.

mod accept;
mod archive;
mod background;
mod core_task;
mod disk;
mod door;
mod error;
mod host;
mod hub_task;
mod inboxes;
mod keys;
mod lanes;
mod link;
mod load;
mod local_roles;
mod post;
mod reserving;
mod routing;
mod settings;
mod shared;
mod slot_sets;
mod stream;
mod tally;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annulus_gossip::mesh::DEATHS_MAX;
use annulus_gossip::view::INCARNATION_MAX;
use annulus_net::{Clock, Listener, Net, Udp};
use annulus_proto::codec::{self, DecodeError, Header};
use annulus_proto::limits::{DATAGRAM_BYTES_MAX, MEMBERS_MAX};
use annulus_proto::message::{Gossip, Message, Rejected, Role, Welcome};
use annulus_proto::{Hlc, Load, Member, NodeId, Status};
use annulus_seal::datagram::{FromOutside, INSIDE_BYTES_MAX, Recipient, Refused, SEALED_BYTES_MAX};
use annulus_shm::Writer;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::SOFTWARE;
use crate::core::{
    Asker, CEILING_LEAD_MS, Caller, Core, CoreStart, Hub, HubInput, HubStart, KnownMember,
    NodeState, Now, Record, Request, TablePolicy, homes_max, route,
};
use accept::Reception;
use core_task::CoreTask;
use disk::{DiskTask, TableNames};
use door::{Abroad, Channels, Door, Events, NearTables, UnknownCommands, Users};
use hub_task::HubTask;
use inboxes::{Inboxes, NotLeft, Receivers};
use keys::{KeyTask, Keys};
use lanes::Lanes;
use link::Identity;
use post::{Post, Streams};
use reserving::{Reservations, TableMemory};
use shared::Shared;
use tally::Tally;

pub use background::Report;
pub use error::RunError;
pub use host::{Host, HostTable, Kept, KeptChange, KeptRecord, SystemHost, table_options};
pub use local_roles::LocalRoles;
pub(crate) use local_roles::ROOT;
pub use routing::Routing;
pub use settings::{
    CORES_MAX, LaneSettings, NodeSettings, OnLateSave, RECORD_SIZE_DEFAULT, REDIS_LISTEN,
    RedisSettings, Storage, TableSettings,
};
pub use slot_sets::{GiveUp, SlotHolder, SlotOffer, SlotSet, SlotSetError, SlotsHandle, TakeUp};

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
    /// Where it listens for clients of Redis, TCP, in the order of its settings.
    pub redis: Vec<SocketAddr>,
    /// The homes of all slots as it sees them, now and later.
    pub routing: Routing,
}

/// How long one write to a stream may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
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
    embed_on(settings, net, clock, host, Vec::new(), stop, ready).await
}

/// Runs a node as [`run_on`] does, with slot sets of the application that embeds it.
///
/// # Errors
/// [`RunError`], as [`run_on`], and if two slot sets have one name.
pub async fn embed_on<N: Net, C: Clock, H: Host>(
    settings: NodeSettings,
    net: N,
    clock: C,
    host: H,
    slot_sets: Vec<SlotSet>,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(&Ready),
) -> Result<(), RunError> {
    let mut set_names = BTreeSet::new();
    if let Some(twice) = slot_sets.iter().find(|set| !set_names.insert(&set.policy().name)) {
        return Err(RunError::SlotSets(twice.policy().name.clone()));
    }
    let policies: Vec<_> = slot_sets.iter().map(|set| set.policy().clone()).collect();
    let now = present(&clock);
    let (state, clock_floor_ms) = first_state(&host, now)?;
    let id = NodeId::from_bits(state.id);
    store_state(&host, &state).await?;

    let keys = match &settings.keyring {
        None => None,
        Some(path) => {
            let keys = Keys::load(&host, path, &settings.cluster, id, state.incarnation)?;
            Some(Arc::new(keys))
        }
    };
    let (listener, udp, addr) = bind(&net, settings.listen).await?;
    let advertised = settings.advertise.unwrap_or(addr);
    let cores = usize::from(settings.cores.get());
    // Of each core its part of each table.
    let mut tables: Vec<Vec<(TablePolicy, Writer)>> = (0..cores).map(|_| Vec::new()).collect();
    let mut segments = Vec::new();
    let mut regions = Vec::new();
    let mut memory = Vec::new();
    let tally = Arc::new(Tally::default());
    let names = TableNames::of(&settings.tables);
    let mut kept = what_was_kept(&host, &names, cores, &tally);
    let mut damaged = 0;
    for table in &settings.tables {
        let opened = host.open_table(&id.to_string(), table, settings.cores.get());
        let opened = opened.map_err(|source| RunError::table(table, source))?;
        if let Some((path, why)) = &opened.set_aside {
            tracing::warn!(path = %path.display(), why, "a segment was set aside; a new one is made");
            tally.add("segments_set_aside");
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
        memory.push(TableMemory {
            name: table.policy.name.clone(),
            path: opened.segment.path.clone(),
            region: Arc::downgrade(&opened.region),
        });
        regions.push(opened.region);
        // Of the rings further out no reader knows anything.
        segments.extend(Some(opened.segment).filter(|_| table.policy.ring == 0));
        assert_eq!(opened.writers.len(), cores, "a shard for each core");
        for (of_core, mut writer) in tables.iter_mut().zip(opened.writers) {
            writer.set_owner_note(&format!("annulus node {id}, pid {}", std::process::id()));
            of_core.push((table.policy.clone(), writer));
        }
    }

    let (inboxes, receivers) = Inboxes::new(cores);
    let socket = match &settings.socket {
        None => None,
        Some(path) => {
            let fail = |source| RunError::Socket { path: path.clone(), source };
            Some(net.listen_local(path).await.map_err(fail)?)
        }
    };
    let doors = door::listen(&net, &settings.redis).await?;
    let users = Users::load(&host, &settings.redis)?;
    let (own_door, told_door) = door::announced(&settings.redis, &doors.addrs, advertised);
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
        door: told_door,
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
    let of_tables = settings.tables.iter().map(|table| &table.policy);
    let homes_max = homes_max(of_tables, &policies);
    let seed = host.entropy();
    let clock_ceiling_ms = state.clock_ceiling_ms;
    let mut hub = Hub::new(
        HubStart {
            settings: settings.core.clone(),
            mesh: settings.mesh.clone(),
            cluster: settings.cluster.clone(),
            me,
            joins_others: !settings.seeds.is_empty()
                || !state.members.is_empty()
                || !state.peers.is_empty(),
            state,
            cores,
            tables: settings.tables.iter().map(|table| table.policy.name.clone()).collect(),
            homes_max,
            seed,
        },
        now,
    );
    hub.count_many("records_dropped_damaged", damaged as u64);
    let core = |(number, tables): (usize, Vec<(TablePolicy, Writer)>)| {
        let start = CoreStart {
            number,
            cores,
            settings: settings.core.clone(),
            standing: hub.standing(),
            clock_ceiling_ms,
            clock_floor_ms,
            tables,
            slot_sets: policies.clone(),
            kept: std::mem::take(&mut kept[number]),
            seed: seed.wrapping_add(number as u64),
        };
        Arc::new(Shared::new(Core::new(start, now)))
    };
    let shared: Vec<Arc<Shared>> = tables.into_iter().enumerate().map(core).collect();
    let (lane_panicked, mut lane_panics) = mpsc::unbounded_channel();
    let lanes = if host.shares_memory() && settings.lanes.max > 0 {
        let names = settings.tables.iter().map(|table| table.policy.name.clone()).collect();
        match Lanes::start(settings.lanes, names, &shared, &clock, &inboxes, &lane_panicked) {
            Ok((lanes, threads)) => Some(RunningLanes { lanes, threads }),
            Err(error) => {
                tracing::error!(%error, "no thread for lanes; clients use the socket");
                None
            }
        }
    } else {
        None
    };
    let streams = Arc::new(Streams::default());
    let (standing, known) = watch::channel(hub.standing());
    let (key_jobs, key_inbox) = mpsc::channel(keys::JOBS_MAX);
    let reception = Arc::new(Reception {
        cluster: settings.cluster.clone(),
        welcome,
        streams_max: settings.connections_max,
        strangers: AtomicU32::new(0),
        local_strangers: AtomicU32::new(0),
        clients: AtomicU32::new(0),
        nodes: AtomicU32::new(0),
        next: AtomicU64::new(1),
        local_roles: settings.local_roles.clone(),
        user: rustix::process::geteuid().as_raw(),
        inboxes: inboxes.clone(),
        streams: streams.clone(),
        tally: tally.clone(),
        lanes: lanes.as_ref().map(|running| running.lanes.clone()),
        keys: keys.clone(),
        key_jobs,
        channels: Arc::new(Channels::new(tally.clone())),
        standing: known.clone(),
    });
    let udp = Arc::new(udp);
    let identity =
        Identity { cluster: settings.cluster.clone(), id, incarnation, keys: keys.clone() };
    let of_node = identity.clone();
    let mail = inboxes.clone();
    let post = Post::new(net.clone(), udp.clone(), of_node, mail, streams.clone(), tally.clone());
    let post = Arc::new(post);
    let redis = doors.addrs.clone();
    let (missing, known_missing) = watch::channel(Arc::default());
    let map = own_door.map(|own| door::Cluster::new(own, known.clone(), known_missing));
    let abroad: Abroad = {
        let (post, known) = (post.clone(), known.clone());
        Box::new(move |message| {
            let standing = known.borrow().clone();
            post.publish(&standing, message);
        })
    };
    let policies = settings.tables.iter().map(|table| &table.policy);
    let channels = reception.channels.clone();
    let events = Arc::new(Events::new(policies, channels, tally.clone(), host.entropy()));
    let near = NearTables::new(&settings, &regions);
    let inside = (reception.clone(), &shared[..], near);
    let unknown_commands = Arc::new(UnknownCommands::default());
    let (outside, seed) = ((map, abroad, unknown_commands.clone()), host.entropy());
    let door = Door::new(&settings, users, redis.clone(), outside, inside, &clock, seed);
    let mut tasks = JoinSet::new();
    doors.open(Arc::new(door), &mut tasks);
    tasks.spawn(accept::accept(listener, reception.clone()));
    if let Some(socket) = socket {
        tasks.spawn(accept::accept(socket, reception.clone()));
    }
    let cluster = settings.cluster.clone();
    let mail = (inboxes.clone(), tally.clone());
    match &keys {
        None => tasks.spawn(receive_datagrams(udp.clone(), cluster, mail)),
        Some(keys) => tasks.spawn(receive_sealed(udp.clone(), clock.clone(), keys.clone(), mail)),
    };
    let seeds = settings.seeds.clone();
    tasks.spawn(resolve_seeds(net.clone(), seeds, inboxes.clone(), tally.clone()));

    tracing::info!(node = %id, incarnation, %addr, name = settings.name, cores, "serving");
    let routing = Routing::new(known.clone());
    let socket = settings.socket.clone();
    ready(&Ready { node: id, incarnation, addr, socket, redis, routing });
    let in_use: Vec<_> = regions.iter().map(Arc::downgrade).collect();
    let watch = host.watch(regions);
    let is_watched = watch.is_some();
    let host = Arc::new(host);
    let key_task = KeyTask {
        net: net.clone(),
        host: host.clone(),
        keys: keys.clone(),
        identity,
        name: settings.name.clone(),
        standing: known,
        streams: streams.clone(),
        writing: tokio::sync::Mutex::default(),
    };
    tasks.spawn(key_task.run(key_inbox));
    let archive = archive::start(&settings.tables, host.archive(), cores, &inboxes, &tally);
    let archive = archive.unwrap_or_else(|error| {
        tracing::error!(%error, "no thread for what leaves the tables: it stays there while there is room");
        None
    });
    let reservations = Arc::new(Reservations {
        tables: memory,
        cores,
        inboxes: inboxes.clone(),
        tally: tally.clone(),
        under_way: Mutex::default(),
    });
    let (disk, disk_inbox) = mpsc::unbounded_channel();
    let task = DiskTask { host: host.clone(), names, inbox: disk_inbox, inboxes: inboxes.clone() };
    tasks.spawn(task.run());
    let Receivers { hub: inbox, gossip, cores: core_inboxes } = receivers;
    let mut core_tasks = JoinSet::new();
    let mut set_calls = Vec::new();
    for (set, slot_set) in slot_sets.into_iter().enumerate() {
        let (task, calls) = slot_set.task(set, inboxes.clone());
        set_calls.push(calls);
        core_tasks.spawn(task.run());
    }
    for (number, inbox) in core_inboxes.into_iter().enumerate() {
        let task = CoreTask {
            number,
            shared: shared[number].clone(),
            clock: clock.clone(),
            post: post.clone(),
            inbox,
            inboxes: inboxes.clone(),
            disk: disk.clone(),
            archive: archive.clone(),
            events: events.clone(),
            reservations: reservations.clone(),
            // The first core looks after them.
            slot_sets: std::mem::take(&mut set_calls),
            sleepers: Vec::new(),
            next_scan: Duration::ZERO,
        };
        core_tasks.spawn(task.run());
    }
    let task = HubTask {
        id,
        hub,
        clock,
        host: host.clone(),
        keys,
        post,
        inboxes,
        inbox,
        gossip,
        cores: shared,
        standing,
        missing,
        tally,
        unknown_commands,
        watch,
        lanes: lanes.as_ref().map(|running| running.lanes.clone()),
        next_drain: Duration::ZERO,
    };
    let result = tokio::select! {
        result = task.run(stop, settings.stop_timeout, settings.leave_on_stop) => result,
        Some(Err(ended)) = core_tasks.join_next() => resume_unwind(ended.into_panic()),
        // The panic goes on where the threads are waited for.
        Some(()) = lane_panics.recv() => Ok(()),
    };
    core_tasks.shutdown().await;
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

/// The threads that serve lanes; they end when this is dropped.
struct RunningLanes {
    lanes: Arc<Lanes>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Drop for RunningLanes {
    fn drop(&mut self) {
        self.lanes.stop();
        // They end at once, and let go of the tables: whoever starts this node again finds them free.
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join()
                && !std::thread::panicking()
            {
                resume_unwind(panic);
            }
        }
    }
}

fn present<C: Clock>(clock: &C) -> Now {
    Now { monotonic: clock.monotonic(), wall_ms: clock.wall_ms() }
}

/// What was kept of each core's slots.
fn what_was_kept<H: Host>(
    host: &H,
    names: &TableNames,
    cores: usize,
    tally: &Tally,
) -> Vec<Vec<Record>> {
    let Kept { records, set_aside, failed } = host.open_kept();
    if let Some((path, why)) = &set_aside {
        tracing::warn!(path = %path.display(), why, "what was kept cannot be read and was set aside; \
                       what it held is found by comparing with the other homes");
        tally.add("kept_set_aside");
    }
    if let Some(error) = &failed {
        tracing::error!(%error, "what is to be kept stays in memory; check kept.redb in data_dir");
        tally.add("kept_not_opened");
    }
    let mut of_cores: Vec<Vec<Record>> = (0..cores).map(|_| Vec::new()).collect();
    for (name, value) in records {
        match names.decode(&name, value) {
            Some(record) => of_cores[route::core_of(record.name.slot, cores)].push(record),
            None => tally.add("kept_not_understood"),
        }
    }
    of_cores
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
    if state.deaths.len() > DEATHS_MAX {
        return Err("`deaths` are more than a node remembers");
    }
    let is_known = |it: &KnownMember| {
        it.id <= ID_MASK && it.incarnation < INCARNATION_MAX && it.member().is_well_formed()
    };
    if state.members.len() > MEMBERS_MAX || !state.members.iter().all(is_known) {
        return Err("`members` are not what a node knows of others");
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

async fn receive_datagrams<U: Udp>(
    udp: Arc<U>,
    cluster: String,
    (inboxes, tally): (Inboxes, Arc<Tally>),
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
    loop {
        let Ok((length, from)) = udp.recv_from(&mut buffer).await else {
            tally.add("datagrams_not_received");
            continue;
        };
        let left = match codec::decode_datagram(&buffer[..length], &cluster) {
            Ok((_, Message::Gossip(Gossip { packet }))) => {
                inboxes.try_gossip(HubInput::Gossip { node: None, from, packet })
            }
            Ok((header, message)) => {
                let caller = Caller::Client(Role::Development);
                let asker = Asker::Datagram(from);
                inboxes.try_request(Request { asker, caller, header, message })
            }
            Err(error) => {
                tally.add(match error {
                    DecodeError::Sealed => "datagrams_sealed",
                    DecodeError::Cluster => "datagrams_of_other_clusters",
                    DecodeError::Version(_) => "datagrams_of_other_versions",
                    _ => "datagrams_malformed",
                });
                continue;
            }
        };
        // Nothing waits here: what follows may be gossip, and whoever asked asks again, as if the
        // datagram had been lost.
        match left {
            Ok(()) => {}
            Err(NotLeft::Full) => tally.add("datagrams_refused_busy"),
            Err(NotLeft::Stopping) => return,
        }
    }
}

/// Takes in what is sealed, and nothing else.
async fn receive_sealed<U: Udp, C: Clock>(
    udp: Arc<U>,
    clock: C,
    keys: Arc<Keys>,
    (inboxes, tally): (Inboxes, Arc<Tally>),
) {
    let mut changes = keys.subscribe();
    let mut receiver = keys.receiver();
    // One byte more, so that what is too long is not taken for something shorter.
    let mut buffer = vec![0; SEALED_BYTES_MAX + 1];
    loop {
        let Ok((length, from)) = udp.recv_from(&mut buffer).await else {
            tally.add("datagrams_not_received");
            continue;
        };
        let now_ms = u64::try_from(clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        if changes.has_changed().unwrap_or(false) {
            let held = changes.borrow_and_update().clone();
            receiver.set_keys(now_ms, held.ring, held.sender);
        }
        let left = match receiver.open(now_ms, from, &buffer[..length]) {
            Ok(FromOutside::Gossip { node, inside }) => {
                let node = Some(NodeId::from_bits(node));
                inboxes.try_gossip(HubInput::Gossip { node, from, packet: inside })
            }
            Ok(FromOutside::Question { recipient, role, inside }) => {
                match codec::decode_inside(&inside) {
                    Ok((_, Message::Gossip(_))) => {
                        tally.add(Refused::OutOfPlace.counter());
                        continue;
                    }
                    Ok((header, message)) => {
                        let in_anothers_name = accept::in_anothers_name(recipient.client, &message);
                        if let Some(rejected) = in_anothers_name {
                            tally.add(accept::IN_ANOTHERS_NAME);
                            let answer = sealed_answer(&keys, &recipient, header.id, rejected);
                            if !answer.is_empty() && udp.send_to(&answer, from).await.is_err() {
                                tally.add("datagrams_not_sent");
                            }
                            continue;
                        }
                        let (asker, caller) =
                            (Asker::Sealed(from, recipient), Caller::Client(role));
                        inboxes.try_request(Request { asker, caller, header, message })
                    }
                    Err(DecodeError::Version(_)) => {
                        tally.add("datagrams_of_other_versions");
                        continue;
                    }
                    Err(_) => {
                        tally.add("datagrams_malformed");
                        continue;
                    }
                }
            }
            Ok(FromOutside::Challenge(challenge)) => {
                tally.add("clients_challenged");
                if !challenge.is_empty() && udp.send_to(&challenge, from).await.is_err() {
                    tally.add("datagrams_not_sent");
                }
                continue;
            }
            Err(refused) => {
                tally.add(refused.counter());
                continue;
            }
        };
        match left {
            Ok(()) => {}
            Err(NotLeft::Full) => tally.add("datagrams_refused_busy"),
            Err(NotLeft::Stopping) => return,
        }
    }
}

/// A datagram with what neither hub nor core sees; empty if there is none to send.
fn sealed_answer(keys: &Keys, to: &Recipient, id: u64, rejected: Rejected) -> Vec<u8> {
    let (mut inside, mut out) = (Vec::new(), Vec::new());
    let header = Header { id, view: 0, hlc: Hlc::ZERO };
    let encoded = codec::encode_inside(header, &rejected.into(), INSIDE_BYTES_MAX, &mut inside);
    if encoded.is_ok() {
        // Without counters nothing is sent, as if it had been lost.
        let _ = keys.held().sender.seal_answer(to, &inside, &mut out);
    }
    out
}

/// Resolves the seeds' names for ever: names may resolve later, and to other addresses.
async fn resolve_seeds<N: Net>(net: N, seeds: Vec<String>, inboxes: Inboxes, tally: Arc<Tally>) {
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
                    tally.add("seeds_not_resolved");
                }
            }
        }
        addrs.sort_unstable();
        addrs.dedup();
        if addrs != known {
            known.clone_from(&addrs);
            pause = SEEDS_RETRY;
            if inboxes.tell_hub(HubInput::Seeds(addrs)).is_err() {
                return;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(SEEDS_RETRY_MAX);
    }
}
