//! Everything the node decides, without I/O.
//!
//! [`Core`] is handed what happened and the present, and says what to do: no socket, no file, no
//! clock, no entropy, no await. The same core runs in production, in the simulations under turmoil
//! and in plain event loops. It owns the tables of its node; requests that wait for other nodes are
//! plain state.
//!
//! # Call order
//! After each [`Core::handle`], [`Core::handle_timeout`] or [`Core::scan`], take everything out with
//! [`Core::poll_output`] and [`Core::poll_lane_answer`] until they are empty, then ask [`Core::poll_timeout`] when to come back.

mod alone;
mod calls;
mod coordinator;
mod counters;
mod evict;
mod hints;
mod io;
mod members;
mod replica;
mod replies;
mod report;
mod settings;
mod store;
mod sync;
mod time;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use annulus_gossip::{Mesh, MeshConfig, Ring};
use annulus_proto::codec::Header;
use annulus_proto::message::{
    Exchange, Failure, Message, Ping, Pong, Rejected, Replicate, Replicated, RequestId, Role,
};
use annulus_proto::submission::Answer;
use annulus_proto::{Entry, Key, Member, NodeId, Slot, Status};
use annulus_shm::{Admission, Used, Writer};
use rand::SeedableRng;
use rand::rngs::StdRng;

use calls::{Call, Calls, Purpose};
use coordinator::Pending;
use hints::Hints;
use replies::Replies;
use report::Explain;
use store::Store;
use sync::SyncSession;
use time::NodeTime;

pub use counters::Counters;
pub use io::{Asker, Caller, Input, LaneAnswer, NodeState, Now, Output};
pub use settings::{CoreSettings, OnFull, TablePolicy, WriteHomes, majority};
pub use store::record_bytes_max;
pub use time::CEILING_LEAD_MS;

/// The deciding part of a node.
pub struct Core {
    settings: CoreSettings,
    cluster: String,
    started: Duration,
    mesh: Mesh,
    ring: Ring,
    /// The ring with the members counted in that are only presumed dead: to vouch for anything, a
    /// node has to be in touch with a majority of these homes.
    quorum_ring: Ring,
    homes_max: u8,
    time: NodeTime,
    tables: Vec<Table>,
    calls: Calls,
    pending: BTreeMap<u64, Pending>,
    pending_next: u64,
    pending_bytes: usize,
    /// The writes among them that are not answered yet, by the id that a repetition carries.
    unanswered: BTreeMap<RequestId, u64>,
    pending_deadlines: BTreeSet<(Duration, u64)>,
    explains: BTreeMap<u64, Explain>,
    replies: Replies,
    heard: BTreeMap<NodeId, Heard>,
    /// Members that took part when the ring was last computed.
    companions: BTreeSet<NodeId>,
    /// How many more were presumed dead then.
    presumed: usize,
    /// Those among them to compare everything with, since this node was out of touch with them.
    estranged: BTreeSet<NodeId>,
    /// Addresses that have not answered yet, or failed to, while this node joins; `None` before it asked.
    unanswered_seeds: Option<BTreeSet<SocketAddr>>,
    /// Whether there is reason to believe that others hold more: an earlier run knew members, and
    /// none was met yet.
    alone_by_misfortune: bool,
    seeds: Vec<SocketAddr>,
    exchanged: BTreeMap<SocketAddr, Duration>,
    persisted: Persisted,
    /// Set once this node is to stop: not before then.
    stopping: Option<Duration>,
    stopped: bool,
    next_tick: Duration,
    next_freshness: Duration,
    rng: StdRng,
    counters: Counters,
    outputs: VecDeque<Output>,
    lane_answers: VecDeque<LaneAnswer>,
}

/// What a core starts from.
pub struct CoreStart {
    /// Its behaviour.
    pub settings: CoreSettings,
    /// Membership timings.
    pub mesh: MeshConfig,
    /// The cluster's name.
    pub cluster: String,
    /// This node, in status [`Status::Joining`].
    pub me: Member,
    /// What is on disk: with this run's incarnation, and a ceiling [`CEILING_LEAD_MS`] ahead.
    pub state: NodeState,
    /// The ceiling of the run before: nothing was stamped at or after it. In hybrid milliseconds.
    pub clock_floor_ms: u64,
    /// Whether there are seeds, known peers or others to join, or this node is alone until told.
    pub joins_others: bool,
    /// The tables with their segments.
    pub tables: Vec<(TablePolicy, Writer)>,
    /// The seed of everything random.
    pub seed: u64,
}

/// One table.
struct Table {
    store: Store,
    hints: Hints,
    /// By slot: whether this node holds everything a home should.
    slots: Vec<SlotState>,
    sync: BTreeMap<NodeId, SyncSession>,
    sync_due: BTreeMap<NodeId, Duration>,
    sync_sessions: u64,
    /// How much of its segment lies in huge pages, in bytes.
    huge_bytes: u64,
}

/// What this node is to a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SlotState {
    home: bool,
    /// Members to compare with before this node may say *absent*; empty once it is in sync.
    sources: BTreeSet<NodeId>,
}

/// What was last heard of a node.
#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Duration,
    view: u64,
    pinged: Duration,
}

/// What is on disk, and what is on its way there.
struct Persisted {
    state: NodeState,
    generation: u64,
    in_flight: Option<(u64, NodeState)>,
}

/// How often the core looks after what waits: overdue calls, hints, comparisons.
const TICK: Duration = Duration::from_millis(100);
/// How often the freshness words are extended.
const FRESHNESS_PERIOD: Duration = Duration::from_millis(500);
/// After how long of silence a home is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_millis(800);
/// How many hints per node and table may be under way.
const HINTS_IN_FLIGHT: usize = 64;
/// How long the leave may take to spread before the node stops.
const LEAVE_FOR: Duration = Duration::from_millis(400);

impl Core {
    /// A node that has just started.
    pub fn new(start: CoreStart, now: Now) -> Self {
        let CoreStart { settings, mesh, cluster, me, state, clock_floor_ms, .. } = start;
        let CoreStart { joins_others, tables, seed, .. } = start;
        let id = me.id;
        let homes_max = tables.iter().map(|(policy, _)| policy.replicas.get()).max().unwrap_or(1);
        let mesh = Mesh::new(mesh, me, seed, now.monotonic);
        let ring = Ring::build(mesh.view(), 0, homes_max);
        let quorum_ring = ring.clone();
        let hints_max = settings.hints_bytes_max.get();
        let mut counters = Counters::default();
        let table = |(policy, writer): (TablePolicy, Writer)| {
            let (store, damaged) = Store::new(policy, id, writer);
            counters.add_many("records_dropped_damaged", damaged);
            Table {
                store,
                hints: Hints::new(hints_max),
                slots: vec![SlotState::default(); usize::from(annulus_proto::SLOT_COUNT)],
                sync: BTreeMap::new(),
                sync_due: BTreeMap::new(),
                sync_sessions: 0,
                huge_bytes: 0,
            }
        };
        let tables = tables.into_iter().map(table).collect();
        let alone_by_misfortune = !state.peers.is_empty();
        let mut core = Self {
            time: NodeTime::new(
                id,
                clock_floor_ms,
                state.clock_ceiling_ms,
                settings.max_clock_drift,
            ),
            replies: Replies::new(settings.replies_max),
            tables,
            persisted: Persisted { state, generation: 0, in_flight: None },
            settings,
            cluster,
            started: now.monotonic,
            mesh,
            ring,
            quorum_ring,
            homes_max,
            calls: Calls::default(),
            pending: BTreeMap::new(),
            pending_next: 0,
            pending_bytes: 0,
            unanswered: BTreeMap::new(),
            pending_deadlines: BTreeSet::new(),
            explains: BTreeMap::new(),
            heard: BTreeMap::new(),
            companions: BTreeSet::new(),
            presumed: 0,
            estranged: BTreeSet::new(),
            unanswered_seeds: None,
            alone_by_misfortune,
            seeds: Vec::new(),
            exchanged: BTreeMap::new(),
            stopping: None,
            stopped: false,
            next_tick: now.monotonic,
            next_freshness: now.monotonic,
            rng: StdRng::seed_from_u64(seed),
            counters,
            outputs: VecDeque::new(),
            lane_answers: VecDeque::new(),
        };
        core.forget_freshness();
        if !joins_others {
            core.become_up(now);
        }
        core.handle_timeout(now);
        core
    }

    /// Takes in one event.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.time.notice(now);
        match input {
            Input::Gossip { from, header, packet } => self.on_gossip(now, from, header, &packet),
            Input::Request { asker, caller, header, message } => {
                self.on_request(now, asker, caller, header, message);
            }
            Input::Answer { call, node, header, message } => {
                self.on_answer(now, call, node, header, message);
            }
            Input::CallFailed { call, sent } => self.on_call_failed(now, call, sent),
            Input::Seeds(seeds) => self.on_seeds(now, seeds),
            Input::Persisted { generation } => self.on_persisted(generation),
            Input::HugePages { table, bytes } => {
                if let Some(table) = self.tables.get_mut(table) {
                    table.huge_bytes = bytes;
                }
            }
            Input::Load(mut load) => {
                load.sessions = self.tables.iter().map(|t| t.store.stats().entries as u64).sum();
                self.mesh.set_load(load);
            }
            Input::Stop { leave } => self.on_stop(now, leave),
        }
        self.drain_mesh(now);
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.time.notice(now);
        while self.mesh.poll_timeout().is_some_and(|due| due <= now.monotonic) {
            self.mesh.handle_timeout(now.monotonic);
        }
        while let Some(call) = self.calls.next_overdue(now.monotonic) {
            self.counters.add("calls_timed_out");
            self.on_call_failed(now, call, true);
        }
        while let Some(&(deadline, id)) = self.pending_deadlines.first() {
            if deadline > now.monotonic {
                break;
            }
            self.pending_deadlines.remove(&(deadline, id));
            self.on_out_of_patience(now, id);
        }
        if self.next_tick <= now.monotonic {
            self.next_tick = now.monotonic + TICK;
            self.tick(now);
        }
        self.drain_mesh(now);
    }

    /// Drops entries whose time is over, up to `expired` of each table, and checks about `verified`
    /// records of each against their checksums, so that damaged ones are fetched from other homes.
    pub fn scan(&mut self, now: Now, expired: usize, verified: usize) {
        self.time.notice(now);
        if self.mesh.me().status == Status::Joining {
            return;
        }
        let now_ms = self.time.now_ms(now);
        for table in &mut self.tables {
            let scanned = table.store.scan(now_ms, expired, verified);
            self.counters.add_many("entries_dropped_expired", scanned.dropped);
            self.counters.add_many("records_dropped_damaged", scanned.damaged);
        }
    }

    /// Something to do, in order; `None` when there is nothing more.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether [`Core::poll_output`] would return something.
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// An answer for a client's lane; `None` when there is no more.
    pub fn poll_lane_answer(&mut self) -> Option<LaneAnswer> {
        self.lane_answers.pop_front()
    }

    /// When to call [`Core::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Duration {
        let others = [
            self.mesh.poll_timeout(),
            self.calls.next_deadline(),
            self.pending_deadlines.first().map(|(deadline, _)| *deadline),
        ];
        others.into_iter().flatten().fold(self.next_tick, Duration::min)
    }

    /// This node, as it presents itself.
    pub fn me(&self) -> &Member {
        self.mesh.me()
    }

    /// Counts of what happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Takes in what this host's readers used out of shared memory, as they say: the table by its
    /// place in the settings, what was used, and about how often.
    pub fn note_uses(&mut self, now: Now, uses: &[(usize, Used, u32)]) {
        let now_ms = self.time.now_ms(now);
        let mut counted = 0;
        for (table, used, count) in uses {
            let Some(table) = self.tables.get_mut(*table) else { continue };
            table.store.note_use(*used, now_ms);
            counted += u64::from(*count);
        }
        self.counters.add_many("uses_noted", counted);
    }

    /// Counts something that the driver noticed.
    pub fn count(&mut self, name: &'static str) {
        self.counters.add(name);
    }

    /// Counts `count` things that the driver noticed.
    pub fn count_many(&mut self, name: &'static str, count: u64) {
        self.counters.add_many(name, count);
    }

    fn tick(&mut self, now: Now) {
        self.persist_if_wanted(now);
        self.ping_the_silent(now);
        self.deliver_hints(now);
        self.start_syncs(now);
        self.retry_join(now);
        self.notice_confirmed_deaths(now);
        if self.next_freshness <= now.monotonic {
            self.next_freshness = now.monotonic + FRESHNESS_PERIOD;
            self.extend_freshness(now);
        }
        let over = self.stopping.is_some_and(|until| until <= now.monotonic);
        if over && self.pending.is_empty() && !self.stopped {
            self.stopped = true;
            self.outputs.push_back(Output::Stopped);
        }
    }

    fn on_request(
        &mut self,
        now: Now,
        asker: Asker,
        caller: Caller,
        header: Header,
        message: Message,
    ) {
        if let Caller::Node(node) = caller {
            self.hear(now, node, header);
            match message {
                Message::Replicate(request) => {
                    let reply = self.replicate(now, node, &request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::TouchCopy(request) => {
                    let reply = self.touch_copy(now, &request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::Fetch(request) => {
                    let reply = self.fetch(now, &request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::Digests(request) => {
                    let reply = self.compare(&request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::SlotListRequest(request) => {
                    let reply = self.slot_list(now, &request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::Exchange(exchange) => {
                    return self.on_exchange(now, asker, header, exchange);
                }
                _ => {}
            }
        }
        match message {
            Message::Ping(Ping {}) => {
                let pong = Pong { node: self.id() };
                self.reply(now, asker, header.id, pong);
            }
            Message::SessionRequest(request) => match refusal(caller, &request) {
                None => self.begin(now, asker, header.id, request),
                Some(failure) => self.reply_session(now, asker, header.id, Err(failure)),
            },
            Message::ExplainRequest(request) => self.explain(now, asker, header.id, request),
            Message::ListRequest(request) => {
                let list = self.list(now, &request);
                self.reply(now, asker, header.id, list);
            }
            Message::RoutesRequest(_) => {
                let routes = self.routes();
                self.reply(now, asker, header.id, routes);
            }
            Message::StatusRequest(_) => {
                let status = self.status(now);
                self.reply(now, asker, header.id, status);
            }
            Message::MembersRequest(_) => {
                let members = self.members();
                self.reply(now, asker, header.id, members);
            }
            other => {
                self.counters.add("requests_out_of_place");
                // A datagram's sender is anybody's word: two nodes must not be made to reject each
                // other's rejections for ever.
                if let Asker::Stream(_) = asker {
                    let why = format!("{} is not a request that you may make", other.name());
                    self.reply(now, asker, header.id, Rejected::Malformed { why });
                }
            }
        }
    }

    fn on_answer(&mut self, now: Now, number: u64, node: NodeId, header: Header, message: Message) {
        if self.calls.node(number).is_some_and(|meant| meant != node) {
            // Its address has gone to another node: this answers for nobody else.
            self.counters.add("answers_of_others");
            return self.on_call_failed(now, number, false);
        }
        let Some(call) = self.calls.close(number) else {
            return self.counters.add("answers_too_late");
        };
        self.hear(now, node, header);
        match call.purpose {
            Purpose::Pending(id) => self.on_pending_answer(now, id, number, call.node, message),
            Purpose::Explain(id) => self.on_explain_answer(now, id, call.node, Some(message)),
            Purpose::Repair { table, key, hint } => {
                self.on_repair_answer(now, table, &key, hint, call.node, Some(message));
            }
            Purpose::Sync { table, session, step } => {
                let agrees = header.view == self.mesh.view().digest();
                self.on_sync_answer(now, table, call.node, session, step, Some((message, agrees)));
            }
            Purpose::Exchange => self.on_exchange_answer(now, call.addr, header, message),
            Purpose::Ping => {}
        }
    }

    fn on_call_failed(&mut self, now: Now, number: u64, sent: bool) {
        let Some(call) = self.calls.close(number) else { return };
        self.counters.add("calls_failed");
        match call.purpose {
            Purpose::Pending(id) => self.on_pending_failure(now, id, number, call.node, sent),
            Purpose::Explain(id) => self.on_explain_answer(now, id, call.node, None),
            Purpose::Repair { table, key, hint } => {
                self.on_repair_answer(now, table, &key, hint, call.node, None);
            }
            Purpose::Sync { table, session, step } => {
                self.on_sync_answer(now, table, call.node, session, step, None);
            }
            Purpose::Exchange => self.on_seed_tried(now, call.addr),
            Purpose::Ping => {}
        }
    }

    fn on_repair_answer(
        &mut self,
        now: Now,
        table: usize,
        key: &Key,
        hint: bool,
        node: Option<NodeId>,
        answer: Option<Message>,
    ) {
        let Some(node) = node else { return };
        match answer {
            Some(Message::Replicated(Replicated::Stored)) if hint => {
                self.counters.add("hints_delivered");
                self.tables[table].hints.delivered(node, key);
            }
            Some(Message::Replicated(Replicated::Differs(theirs))) => {
                let _ = self.merge(now, table, key, &theirs, Admission::Reserve);
                self.tables[table].hints.delivered(node, key);
            }
            Some(Message::Replicated(Replicated::Stored)) => {}
            // Not delivered: it stays, or becomes, a hint.
            _ => {
                self.tables[table].hints.failed(node, key);
                self.hint(table, node, key);
            }
        }
    }

    fn hint(&mut self, table: usize, home: NodeId, key: &Key) {
        let active = self.mesh.view().get(home).is_some_and(|member| member.status.is_active());
        if !active {
            // What a dead node misses it gets by comparison when it comes back.
            self.tables[table].hints.forget(home);
        } else if self.tables[table].hints.add(home, key) {
            self.counters.add("hints_kept");
        } else {
            self.counters.add("hints_overflowed");
        }
    }

    fn deliver_hints(&mut self, now: Now) {
        for table in 0..self.tables.len() {
            let homes: Vec<NodeId> = self.tables[table].hints.homes().collect();
            for home in homes {
                if !self.is_in_contact(now, home) {
                    continue;
                }
                let keys = self.tables[table].hints.take_for_delivery(home, HINTS_IN_FLIGHT);
                for key in keys {
                    self.repair(now, table, home, key, true);
                }
                if self.tables[table].hints.take_overflow(home) {
                    self.tables[table].sync_due.insert(home, now.monotonic);
                }
            }
        }
    }

    /// Sends a home this node's copy.
    fn repair(&mut self, now: Now, table: usize, home: NodeId, key: Key, hint: bool) {
        let now_ms = self.time.now_ms(now);
        let Some(entry) = self.tables[table].store.get(&key, now_ms) else {
            return self.tables[table].hints.delivered(home, &key);
        };
        self.offer(now, table, home, key, entry, hint);
    }

    /// Sends a home an entry, which need not be stored here. If it does not arrive it becomes a hint of what is.
    fn offer(&mut self, now: Now, table: usize, home: NodeId, key: Key, entry: Entry, hint: bool) {
        let name = self.tables[table].store.policy().name.clone();
        let message = Replicate { table: name, key: key.clone(), entry };
        let purpose = Purpose::Repair { table, key: key.clone(), hint };
        if self.call(now, home, purpose, message).is_none() {
            self.tables[table].hints.failed(home, &key);
            self.hint(table, home, &key);
        }
    }

    /// Asks a node; `None` if no address of it is known.
    fn call(
        &mut self,
        now: Now,
        node: NodeId,
        purpose: Purpose,
        message: impl Into<Message>,
    ) -> Option<u64> {
        let addr = self.mesh.view().get(node)?.addr;
        Some(self.call_addr(now, Some(node), addr, purpose, message))
    }

    fn call_addr(
        &mut self,
        now: Now,
        node: Option<NodeId>,
        addr: SocketAddr,
        purpose: Purpose,
        message: impl Into<Message>,
    ) -> u64 {
        let deadline = now.monotonic + self.settings.home_timeout;
        let call = self.calls.open(Call { node, addr, deadline, purpose });
        let header = self.header(now, call);
        self.outputs.push_back(Output::Call { to: addr, header, message: message.into() });
        call
    }

    fn reply(&mut self, now: Now, to: Asker, id: u64, message: impl Into<Message>) {
        if let Asker::Lane { lane, call } = to {
            return self.answer_lane(lane, call, &message.into());
        }
        let header = self.header(now, id);
        self.outputs.push_back(Output::Reply { to, header, message: message.into() });
    }

    fn answer_lane(&mut self, lane: u64, call: u32, message: &Message) {
        let answer = match message {
            Message::SessionReply(reply) => Answer::of(reply),
            _ => Answer::AskElsewhere,
        };
        if call != 0 {
            self.lane_answers.push_back(LaneAnswer { lane, call, answer });
        }
    }

    /// What stands in the header of a frame that leaves now.
    pub fn header(&self, now: Now, id: u64) -> Header {
        Header { id, view: self.mesh.view().digest(), hlc: NodeTime::announced(now) }
    }

    fn id(&self) -> NodeId {
        self.mesh.me().id
    }

    fn table_named(&self, name: &str) -> Option<usize> {
        self.tables.iter().position(|table| table.store.policy().name == name)
    }

    fn homes(&self, table: usize, slot: Slot) -> Vec<NodeId> {
        let homes = self.ring.homes(slot);
        let replicas = usize::from(self.tables[table].store.policy().replicas.get());
        homes[..homes.len().min(replicas)].to_vec()
    }

    fn slot_state(&self, table: usize, slot: Slot) -> &SlotState {
        &self.tables[table].slots[usize::from(slot.index())]
    }

    fn persist_if_wanted(&mut self, now: Now) {
        if self.persisted.in_flight.is_some() {
            return;
        }
        let mut state = self.persisted.state.clone();
        if let Some(ceiling) = self.time.wanted_ceiling(now) {
            state.clock_ceiling_ms = ceiling;
        }
        state.incarnation = self.mesh.me().incarnation;
        state.peers = self.mesh.peers();
        if state == self.persisted.state {
            return;
        }
        self.persisted.generation += 1;
        let generation = self.persisted.generation;
        self.persisted.in_flight = Some((generation, state.clone()));
        self.outputs.push_back(Output::Persist { generation, state });
    }

    fn on_persisted(&mut self, generation: u64) {
        if self.persisted.in_flight.as_ref().is_some_and(|(number, _)| *number == generation) {
            let (_, state) = self.persisted.in_flight.take().expect("it was there just now");
            self.time.ceiling_persisted(state.clock_ceiling_ms);
            self.persisted.state = state;
        }
    }
}

impl SlotState {
    fn is_synced(&self) -> bool {
        self.home && self.sources.is_empty()
    }
}

/// What a client's role does not allow.
fn refusal(caller: Caller, request: &annulus_proto::message::SessionRequest) -> Option<Failure> {
    use annulus_proto::message::Operation;
    let Caller::Client(role) = caller else { return None };
    let begins_or_ends =
        matches!(request.operation, Operation::Start { .. } | Operation::End { .. });
    (!may(role, begins_or_ends))
        .then(|| Failure::Refused(format!("the role {role} may not do this")))
}

/// Whether a client of this role may begin and end sessions, or do all else with them.
fn may(role: Role, begin_or_end: bool) -> bool {
    role.includes(Role::Authority) || !begin_or_end && role.includes(Role::Worker)
}

impl Heard {
    const NEVER: Self = Self { at: Duration::ZERO, view: 0, pinged: Duration::ZERO };
}

impl Core {
    /// Notes a sign of life.
    fn hear(&mut self, now: Now, node: NodeId, header: Header) {
        // Whoever merely says that it is a node has no say about the time, and costs no memory.
        if node == self.id() || self.mesh.view().get(node).is_none() {
            return;
        }
        if !self.time.observe(now, node, header.hlc) {
            self.counters.add("clocks_out_of_bounds");
        }
        let stale = self.stale_max();
        let heard = self.heard.entry(node).or_insert(Heard::NEVER);
        let missed = heard.at > Duration::ZERO && heard.at + stale <= now.monotonic;
        heard.at = now.monotonic;
        heard.view = header.view;
        if missed {
            // Hints for this node may be forgotten over there, and it was told of no end meanwhile.
            self.estranged.insert(node);
            self.rebuild_ring(now);
        }
        let differs = header.view != 0 && header.view != self.mesh.view().digest();
        let addr = self.mesh.view().get(node).map(|member| member.addr);
        if let Some(addr) = addr.filter(|_| differs) {
            self.exchange_with(now, addr);
        }
    }

    /// Whether a node was heard of lately, so that it is worth a call.
    fn is_in_contact(&self, now: Now, node: NodeId) -> bool {
        let lately = |heard: &Heard| heard.at + 4 * PING_AFTER > now.monotonic;
        self.heard.get(&node).is_some_and(lately)
    }

    /// The shortest of the tables' `stale_max`.
    fn stale_max(&self) -> Duration {
        let bounds = self.tables.iter().map(|table| table.store.policy().stale_max);
        bounds.min().unwrap_or(Duration::MAX)
    }

    fn is_up(&self) -> bool {
        self.mesh.me().status == Status::Up
    }

    fn exchange_message(&self, reply: bool) -> Exchange {
        Exchange { members: self.mesh.snapshot(), reply }
    }
}

#[cfg(test)]
mod tests;
