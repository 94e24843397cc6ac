//! What there is once in a node, however many cores it has: membership, joining, the state on disk,
//! and requests that concern all cores.
//!
//! The hub tells the cores how the node stands in the cluster ([`Standing`]); they know of no other
//! member but through it. It splits what concerns several of them and puts their answers together.

mod contact;
mod gather;
mod join;
mod operate;
mod place;
mod walk;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use annulus_gossip::{Event, Mesh, MeshConfig, Ring, Transmit, View, view_of};
use annulus_proto::codec::Header;
use annulus_proto::limits::MEMBERS_MAX;
use annulus_proto::message::{HostLoad, Members, Message, Peer, Peers, Ping, Pong, Rejected};
use annulus_proto::{Member, NodeId, Rtt, Status};

use super::calls::{Calls, HubCall, HubPurpose};
use super::counters::Counters;
use super::io::{
    Ask, Asker, Caller, GivenWeight, HubInput, HubOutput, Input, KnownMember, NoAnswer, NodeState,
    Notice, Now, Outcome, Reply, Request,
};
use super::route::parties;
use super::settings::CoreSettings;
use super::standing::{Placement, Standing, routes};
use super::time::{CEILING_LEAD_MS, NodeTime};
use contact::Contacts;
use gather::Gathers;
use operate::{Log, SafetyCheck, SlotsOfCores};
use place::Rankings;
use walk::Walks;

/// The part of a node that there is one of.
///
/// # Call order
/// After each [`Hub::handle`] or [`Hub::handle_timeout`], take everything out with
/// [`Hub::poll_output`] and do it in this order, then ask [`Hub::poll_timeout`] when to come back.
pub struct Hub {
    settings: CoreSettings,
    cluster: String,
    cores: usize,
    /// The tables' names.
    tables: Vec<String>,
    /// The incarnation that this run began with.
    first_incarnation: u64,
    started: Duration,
    mesh: Mesh,
    homes_max: Vec<u8>,
    standing: Arc<Standing>,
    /// Whether something has changed that the cores have to know.
    is_standing_old: bool,
    calls: Calls<HubCall>,
    contacts: Contacts,
    gathers: Gathers,
    log: Log,
    slots: SlotsOfCores,
    safety: Option<SafetyCheck>,
    /// The weight that this node is configured with, and the one in its place.
    configured_weight: u16,
    given_weight: Option<GivenWeight>,
    rankings: Rankings,
    walks: Walks,
    /// How busy the host is, as it was measured last.
    host_load: HostLoad,
    /// Addresses that have not answered yet, or failed to, while this node joins; `None` before it asked.
    unanswered_seeds: Option<BTreeSet<SocketAddr>>,
    /// Whether there is reason to believe that others hold more: an earlier run knew members, and
    /// none was met yet.
    alone_by_misfortune: bool,
    /// How often this node found that it was held for dead.
    revivals: u64,
    seeds: Vec<SocketAddr>,
    exchanged: BTreeMap<SocketAddr, Duration>,
    /// Who was last seen at which address.
    by_addr: BTreeMap<SocketAddr, NodeId>,
    /// The digest of the view that each node was last heard of with, and when.
    views: BTreeMap<NodeId, (Duration, u64)>,
    /// How far the others are, as the cores were last told.
    proximity: Arc<BTreeMap<NodeId, u8>>,
    next_proximity: Duration,
    persisted: Persisted,
    /// The highest ceiling of the clock that a core has asked for.
    ceiling_wanted_ms: u64,
    /// Set once this node is to stop: not before then.
    stopping: Option<Duration>,
    /// The cores that have answered everything since.
    cores_stopped: BTreeSet<usize>,
    stopped: bool,
    next_tick: Duration,
    /// How much of each table's segment lies in huge pages, in bytes.
    huge_bytes: Vec<u64>,
    counters: Counters,
    outputs: VecDeque<HubOutput>,
}

#[cfg(test)]
impl HubStart {
    /// Of a node of one core, whose slots have three homes, alone in its cluster.
    pub(crate) fn of(me: Member) -> Self {
        Self {
            settings: CoreSettings::default(),
            mesh: MeshConfig::default(),
            cluster: "test".to_owned(),
            state: NodeState { id: me.id.bits(), ..NodeState::default() },
            me,
            joins_others: false,
            cores: 1,
            tables: Vec::new(),
            homes_max: vec![3],
            seed: 1,
        }
    }
}

/// What a hub starts from.
pub struct HubStart {
    /// Its behaviour.
    pub settings: CoreSettings,
    /// Membership timings.
    pub mesh: MeshConfig,
    /// The cluster's name.
    pub cluster: String,
    /// This node, in status [`Joining`](annulus_proto::Status::Joining), with the weight that it is
    /// configured with.
    pub me: Member,
    /// What is on disk: with this run's incarnation, and a ceiling [`CEILING_LEAD_MS`] ahead.
    pub state: NodeState,
    /// Whether there are seeds, known peers or others to join, or this node is alone until told.
    pub joins_others: bool,
    /// How many cores there are, at least one.
    pub cores: usize,
    /// The tables' names.
    pub tables: Vec<String>,
    /// The most homes that a slot has in any of them, ring by ring, of one ring at least.
    pub homes_max: Vec<u8>,
    /// The seed of everything random.
    pub seed: u64,
}

/// What is on disk, and what is on its way there.
struct Persisted {
    state: NodeState,
    generation: u64,
    in_flight: Option<(u64, NodeState)>,
}

/// How often the hub looks after what waits.
const TICK: Duration = Duration::from_millis(100);
/// How often the cores are told how far the others are, at most: it changes slowly.
const PROXIMITY_PERIOD: Duration = Duration::from_secs(10);
/// How long the leave may take to spread before the node stops.
const LEAVE_FOR: Duration = Duration::from_millis(400);

impl Hub {
    /// The hub of a node that has just started.
    pub fn new(start: HubStart, now: Now) -> Self {
        let HubStart { settings, mesh, cluster, mut me, state, joins_others, .. } = start;
        let HubStart { cores, tables, homes_max, seed, .. } = start;
        let configured_weight = me.weight;
        // Who has configured another one since is heard.
        let given_weight = state.weight.filter(|weight| weight.configured == configured_weight);
        me.weight = given_weight.map_or(configured_weight, |weight| weight.given);
        let me_incarnation = me.incarnation;
        let mut mesh = Mesh::new(mesh, me, seed, now.monotonic);
        mesh.remember_deaths(&state.deaths);
        mesh.remember(state.members.iter().map(KnownMember::member).collect());
        assert!(!homes_max.is_empty(), "sessions are born on a ring");
        let first = |number| {
            let ring = Arc::new(Ring::build(mesh.view(), number, homes_max[usize::from(number)]));
            let members = members_of(mesh.view(), number);
            Placement { members, ring: ring.clone(), quorum: ring.clone(), roster: ring }
        };
        let rings = (0..homes_max.len() as u8).map(first).collect();
        let has_unmet = mesh.unmet().next().is_some();
        let alone_by_misfortune = has_unmet || !state.peers.is_empty();
        let standing = Standing {
            me: mesh.me().id,
            status: mesh.me().status,
            view: mesh.view().clone(),
            rings,
            partners: BTreeSet::new(),
            presumed: BTreeSet::new(),
            has_unmet,
            alone_by_misfortune,
            revivals: 0,
            generation: 0,
        };
        let mut hub = Self {
            settings,
            cluster,
            cores,
            first_incarnation: me_incarnation,
            started: now.monotonic,
            mesh,
            homes_max,
            standing: Arc::new(standing),
            is_standing_old: false,
            calls: Calls::new(cores, parties(cores)),
            contacts: Contacts::default(),
            gathers: Gathers::default(),
            log: Log::default(),
            slots: SlotsOfCores::default(),
            safety: None,
            configured_weight,
            given_weight,
            rankings: Rankings::default(),
            walks: Walks::default(),
            host_load: HostLoad::default(),
            unanswered_seeds: None,
            alone_by_misfortune,
            revivals: 0,
            seeds: Vec::new(),
            exchanged: BTreeMap::new(),
            by_addr: BTreeMap::new(),
            views: BTreeMap::new(),
            proximity: Arc::default(),
            next_proximity: now.monotonic,
            ceiling_wanted_ms: state.clock_ceiling_ms,
            persisted: Persisted { state, generation: 0, in_flight: None },
            stopping: None,
            cores_stopped: BTreeSet::new(),
            stopped: false,
            next_tick: now.monotonic,
            huge_bytes: vec![0; tables.len()],
            tables,
            counters: Counters::default(),
            outputs: VecDeque::new(),
        };
        if !joins_others {
            hub.become_up(now);
        }
        hub.handle_timeout(now);
        hub
    }

    /// How this node stands in the cluster, for a core that is being made. Later changes it gets as
    /// [`Input::Standing`].
    pub fn standing(&self) -> Arc<Standing> {
        self.standing.clone()
    }

    /// Takes in one event.
    pub fn handle(&mut self, now: Now, input: HubInput) {
        match input {
            HubInput::Gossip { node, from, packet } => {
                self.on_gossip(now, (node, from), &packet);
            }
            HubInput::StreamGossip { node, packet } => {
                self.note_view(now, node, view_of(&packet).unwrap_or(0));
                self.mesh.handle_stream_packet(now.monotonic, &packet);
            }
            HubInput::Request(request) => self.on_request(now, request),
            HubInput::Outcome(outcome) => self.on_outcome(now, outcome),
            HubInput::Notice { core, notice } => self.on_notice(now, core, notice),
            HubInput::Seeds(seeds) => self.on_seeds(now, seeds),
            HubInput::Persisted { generation } => self.on_persisted(generation),
            HubInput::HugePages { table, bytes } => {
                if let Some(known) = self.huge_bytes.get_mut(table) {
                    *known = bytes;
                }
            }
            HubInput::Load(load) => self.mesh.set_load(load),
            HubInput::HostLoad(load) => self.host_load = load,
            HubInput::Stop { leave } => self.on_stop(now, leave),
        }
        self.drain_mesh(now);
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Now) {
        while self.mesh.poll_timeout().is_some_and(|due| due <= now.monotonic) {
            self.mesh.handle_timeout(now.monotonic);
        }
        while let Some(call) = self.calls.next_overdue(now.monotonic) {
            self.counters.add("calls_timed_out");
            self.on_outcome(now, Outcome { call, result: Err(NoAnswer { sent: true }) });
        }
        if self.next_tick <= now.monotonic {
            self.next_tick = now.monotonic + TICK;
            self.persist_if_wanted();
            self.retry_join(now);
            self.ping_the_silent(now);
            // A presumed death that turns out to be one changes nothing in the view, but whom to
            // wait for.
            self.is_standing_old |= self.mesh.presumed().count() < self.standing.presumed.len();
            if self.next_proximity <= now.monotonic {
                self.next_proximity = now.monotonic + PROXIMITY_PERIOD;
                self.tell_proximity();
            }
        }
        self.drain_mesh(now);
        let over = self.stopping.is_some_and(|until| until <= now.monotonic);
        if over && self.cores_stopped.len() == self.cores && !self.stopped {
            self.stopped = true;
            self.outputs.push_back(HubOutput::Stopped);
        }
    }

    /// Members that were found dead and whose slots have not moved yet, in ascending order of ids.
    pub fn missing(&self) -> impl Iterator<Item = NodeId> {
        self.mesh.missing()
    }

    /// Something to do, in order; `None` when there is nothing more.
    pub fn poll_output(&mut self) -> Option<HubOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`Hub::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Duration {
        let others = [self.mesh.poll_timeout(), self.calls.next_deadline()];
        others.into_iter().flatten().fold(self.next_tick, Duration::min)
    }

    /// Counts `count` things that the driver noticed.
    pub fn count_many(&mut self, name: &'static str, count: u64) {
        self.counters.add_many(name, count);
    }

    fn on_request(&mut self, now: Now, request: Request) {
        let Request { asker, caller, header, message } = request;
        if let Caller::Node(node) = caller {
            self.note_view(now, node, header.view);
            match message {
                Message::Exchange(exchange) => {
                    return self.on_exchange(now, asker, header, exchange);
                }
                Message::Compare(request) => {
                    return self.compare(now, asker, caller, header, request);
                }
                Message::SketchRequest(request) => {
                    return self.split(now, asker, caller, header, request);
                }
                Message::Epochs(message) => {
                    return self.tell_of_epochs(now, asker, caller, header, message);
                }
                _ => {}
            }
        }
        match message {
            Message::Ping(Ping {}) => {
                let pong = Pong { node: self.mesh.me().id };
                self.reply(now, asker, header.id, pong);
            }
            Message::RoutesRequest(_) => {
                let routes = routes(&self.standing.view, &self.standing.innermost().ring);
                self.reply(now, asker, header.id, routes);
            }
            Message::MembersRequest(_) => {
                let members = self.members();
                self.reply(now, asker, header.id, members);
            }
            Message::PeersRequest(_) => {
                let peers = self.peers();
                self.reply(now, asker, header.id, peers);
            }
            Message::StatusRequest(_) => self.ask_how_cores_are(now, asker, header),
            Message::EventsRequest(request) => self.tell_events(now, asker, header, &request),
            Message::SafetyRequest(_) => self.ask_whether_safe(now, asker, header),
            Message::LoadRequest(_) => {
                let load = self.host_load;
                self.reply(now, asker, header.id, load);
            }
            Message::RankRequest(request) => self.rank(now, asker, header, request.affinity),
            Message::PlanRequest(request) => {
                let plan = self.plan(&request);
                self.reply(now, asker, header.id, plan);
            }
            Message::WalkRequest(request) => self.walk(now, (asker, caller, header), request),
            Message::Order(order) => self.on_order(now, asker, caller, header, order),
            other => {
                self.counters.add("requests_out_of_place");
                if let Some(rejected) = out_of_place(asker, &other) {
                    self.reply(now, asker, header.id, rejected);
                }
            }
        }
    }

    fn on_notice(&mut self, now: Now, core: usize, notice: Notice) {
        match notice {
            Notice::OtherView(node) => {
                let addr = self.mesh.view().get(node).map(|member| member.addr);
                if let Some(addr) = addr {
                    self.exchange_with(now, addr);
                }
            }
            // For people, whom the driver told.
            Notice::OtherMerge { .. } => {}
            Notice::Heard { node, header, asked } => self.on_heard(node, header, asked),
            Notice::CeilingWanted(ms) => {
                self.ceiling_wanted_ms = self.ceiling_wanted_ms.max(ms);
                self.persist_if_wanted();
            }
            Notice::Between(between) => {
                self.outputs.push_back(HubOutput::Cores(Input::Between(between)));
            }
            Notice::Part { ticket, header, message } => {
                if let Some(message) = self.take_walked(now, ticket, message) {
                    self.on_part(ticket, header, message);
                }
            }
            Notice::Report { ticket, report } => self.on_report(now, ticket, report),
            Notice::Slots(counts) => self.on_slots(now, core, counts),
            Notice::Stopped => {
                self.cores_stopped.insert(core);
            }
        }
    }

    fn on_stop(&mut self, now: Now, leave: bool) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(now.monotonic);
        if leave {
            self.mesh.leave(now.monotonic);
            self.stopping = Some(now.monotonic + LEAVE_FOR);
        }
        self.outputs.push_back(HubOutput::Cores(Input::Stop));
    }

    /// Notes which view a node has. That it says so is no sign of life: what arrives now may have been sent
    /// long ago, and held back by others.
    fn note_view(&mut self, now: Now, node: NodeId, view: u64) {
        let me = self.mesh.me().id;
        let Some(addr) = self.mesh.view().get(node).map(|member| member.addr) else { return };
        if node == me {
            return;
        }
        if view == 0 {
            return;
        }
        self.views.insert(node, (now.monotonic, view));
        if view != self.mesh.view().digest() {
            self.exchange_with(now, addr);
        }
    }

    /// Hands on what the mesh has to send and to say.
    fn drain_mesh(&mut self, now: Now) {
        while let Some(event) = self.mesh.poll_event() {
            match event {
                Event::ViewChanged { .. } => self.is_standing_old = true,
                Event::MemberUp(_) => self.counters.add("members_up"),
                Event::MemberDown(node) => {
                    self.counters.add("members_down");
                    self.outputs.push_back(HubOutput::Cores(Input::Gone(node)));
                }
                Event::MemberLeft(node) => {
                    self.counters.add("members_left");
                    self.outputs.push_back(HubOutput::Cores(Input::Gone(node)));
                }
                Event::ExchangeWith(addr) => self.exchange_with(now, addr),
                Event::PeersChanged | Event::DeathsChanged => self.persist_if_wanted(),
                Event::IncarnationRaised(_) => {
                    self.persist_if_wanted();
                    self.revivals += 1;
                    self.is_standing_old = true;
                }
                Event::IdInUse { addr, incarnation } => {
                    self.counters.add("ids_in_use");
                    let mine = self.mesh.me();
                    let later = (mine.incarnation, mine.addr) > (incarnation, addr);
                    self.outputs.push_back(HubOutput::IdInUse { addr, give_way: later });
                }
                _ => {}
            }
        }
        if self.is_standing_old {
            self.publish_standing(now);
        }
        while let Some(transmit) = self.mesh.poll_transmit() {
            let header = self.header(now, 0);
            let Transmit { channel, to, packet } = transmit;
            self.outputs.push_back(HubOutput::Gossip { channel, to, header, packet });
        }
    }

    /// Computes the rings anew and tells the cores.
    fn publish_standing(&mut self, now: Now) {
        self.is_standing_old = false;
        self.counters.add("views_changed");
        let before = self.standing.clone();
        self.note_members(now, &before.view);
        let view = self.mesh.view();
        self.views.retain(|node, _| view.get(*node).is_some());
        self.contacts.retain(|node| view.get(node).is_some());
        let presumed: BTreeMap<NodeId, Member> =
            self.mesh.presumed().map(|member| (member.id, member.clone())).collect();
        let as_before = |member: &Member| presumed.get(&member.id).unwrap_or(member).clone();
        let is_out = |member: &Member| matches!(member.status, Status::Joining | Status::Down);
        let with_presumed = (!presumed.is_empty()).then(|| view.iter().map(as_before).collect());
        let with_all = view.iter().any(is_out).then(|| view.iter().map(counted).collect());
        let place = |(number, homes_max): (u8, &u8)| {
            let build = |view: &View| Arc::new(Ring::build(view, number, *homes_max));
            let ring = build(view);
            let quorum = with_presumed.as_ref().map_or_else(|| ring.clone(), build);
            let roster = with_all.as_ref().map_or_else(|| ring.clone(), build);
            Placement { members: members_of(view, number), ring, quorum, roster }
        };
        let rings: Vec<Placement> = (0..).zip(&self.homes_max).map(place).collect();
        let me = self.mesh.me().id;
        let partners = rings.iter().flat_map(|placement| placement.ring.partners(me)).collect();
        self.standing = Arc::new(Standing {
            me,
            status: self.mesh.me().status,
            view: view.clone(),
            rings,
            partners,
            presumed: presumed.into_keys().collect(),
            has_unmet: self.mesh.unmet().next().is_some(),
            alone_by_misfortune: self.alone_by_misfortune,
            revivals: self.revivals,
            generation: self.standing.generation + 1,
        });
        self.tell_standing();
    }

    /// There are others after all.
    pub(super) fn end_misfortune(&mut self) {
        if std::mem::take(&mut self.alone_by_misfortune) {
            let alone_by_misfortune = false;
            let standing = Standing { alone_by_misfortune, ..(*self.standing).clone() };
            self.standing = Arc::new(standing);
            self.tell_standing();
        }
    }

    fn tell_standing(&mut self) {
        self.outputs.push_back(HubOutput::Cores(Input::Standing(self.standing.clone())));
    }

    fn persist_if_wanted(&mut self) {
        if self.persisted.in_flight.is_some() {
            return;
        }
        let mut state = self.persisted.state.clone();
        // Cores ask at the same time for nearly the same: the next ones have what the first one got.
        if self.ceiling_wanted_ms >= state.clock_ceiling_ms + CEILING_LEAD_MS / 2 {
            state.clock_ceiling_ms = self.ceiling_wanted_ms;
        }
        state.incarnation = self.mesh.me().incarnation;
        let known = self.mesh.peers().take(MEMBERS_MAX);
        state.members = known.map(|(member, addr)| KnownMember::of(member, addr)).collect();
        state.members.sort_unstable_by_key(|member| member.id);
        state.deaths = self.mesh.deaths().to_vec();
        state.weight = self.given_weight;
        if state == self.persisted.state {
            return;
        }
        self.persisted.generation += 1;
        let generation = self.persisted.generation;
        self.persisted.in_flight = Some((generation, state.clone()));
        self.outputs.push_back(HubOutput::Persist { generation, state });
    }

    fn on_persisted(&mut self, generation: u64) {
        if self.persisted.in_flight.as_ref().is_some_and(|(number, _)| *number == generation) {
            let (_, state) = self.persisted.in_flight.take().expect("it was there just now");
            self.outputs.push_back(HubOutput::Cores(Input::Ceiling(state.clock_ceiling_ms)));
            self.persisted.state = state;
        }
    }

    fn members(&self) -> Members {
        Members {
            node: self.mesh.me().id,
            view: self.mesh.view().digest(),
            members: self.mesh.view().iter().cloned().collect(),
        }
    }

    fn peers(&self) -> Peers {
        let peer = |(node, state)| Peer {
            node,
            state,
            view: self.views.get(&node).map_or(0, |(_, view)| *view),
            rtt: self.mesh.rtt(node).map(measured),
        };
        Peers {
            node: self.mesh.me().id,
            view: self.mesh.view().digest(),
            local_health: self.mesh.health(),
            peers: self.mesh.survey().into_iter().map(peer).collect(),
        }
    }

    /// Tells the cores how far the others are, if that has changed.
    fn tell_proximity(&mut self) {
        let rtts = self.mesh.rtts().map(|(node, rtt)| (node, measured(rtt).step()));
        let proximity: BTreeMap<NodeId, u8> = rtts.collect();
        if proximity != *self.proximity {
            self.proximity = Arc::new(proximity);
            self.outputs.push_back(HubOutput::Cores(Input::Proximity(self.proximity.clone())));
        }
    }

    fn call_for(
        &mut self,
        now: Now,
        addr: SocketAddr,
        purpose: HubPurpose,
        message: impl Into<Message>,
    ) {
        let (asked, deadline) = (now.monotonic, now.monotonic + self.settings.home_timeout);
        let call = self.calls.open(HubCall { addr, asked, deadline, purpose });
        let header = self.header(now, call);
        self.outputs.push_back(HubOutput::Call(Ask { to: addr, header, message: message.into() }));
    }

    fn reply(&mut self, now: Now, to: Asker, id: u64, message: impl Into<Message>) {
        let header = self.header(now, id);
        self.outputs.push_back(HubOutput::Reply(Reply { to, header, message: message.into() }));
    }

    /// What stands in the header of a frame that leaves now.
    fn header(&self, now: Now, id: u64) -> Header {
        Header { id, view: self.mesh.view().digest(), hlc: NodeTime::announced(now) }
    }
}

/// A round trip as it is told to others.
fn measured(rtt: annulus_gossip::Rtt) -> Rtt {
    let us = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    let smoothed_us = us(rtt.smoothed).max(1);
    Rtt { smoothed_us, variation_us: us(rtt.variation), samples: rtt.samples }
}

/// A member as it counts where the dead count: whoever is not there now may be cut off, or come back.
fn counted(member: &Member) -> Member {
    let status = match member.status {
        Status::Joining | Status::Down => Status::Up,
        other => other,
    };
    Member { status, ..member.clone() }
}

/// How many members serve a ring and have not left for good.
fn members_of(view: &View, ring: u8) -> usize {
    let bit = 1u8.checked_shl(ring.into()).unwrap_or(0);
    let serves = |member: &&Member| {
        member.rings & bit != 0 && member.weight > 0 && member.status != Status::Left
    };
    view.iter().filter(serves).count()
}

/// What to tell somebody whose message is no request. A datagram's sender is anybody's word: two nodes
/// must not be made to reject each other's rejections for ever.
pub(super) fn out_of_place(asker: Asker, message: &Message) -> Option<Rejected> {
    let (Asker::Stream(_) | Asker::Local(_)) = asker else { return None };
    let why = format!("{} is not a request that you may make", message.name());
    Some(Rejected::Malformed { why })
}

#[cfg(test)]
impl Hub {
    pub(super) fn view(&self) -> &View {
        self.mesh.view()
    }

    pub(super) fn presumed(&self) -> impl Iterator<Item = &Member> {
        self.mesh.presumed()
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        self.counters.count(name)
    }
}
