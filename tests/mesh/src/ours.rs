//! The real mesh, in a hub's hands.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use annulus_gossip::{Channel, Counters, Event, Mesh, MeshConfig, Ring, Transmit};
use annulus_proto::codec::{CHECK_BYTES, HEADER_BYTES, encode_value};
use annulus_proto::message::Exchange;
use annulus_proto::{Load, Member, NodeId, Status};

use crate::World;
use crate::subject::{Call, Held, HostFacts, Sight, Start, Subject, Wants};

/// A node's membership: [`Mesh`], unchanged, and around it what the node's hub does with it:
/// exchanging views when asked to or when somebody sees another view, joining, giving up on calls.
///
/// What a hub also learns from requests of clients and other nodes is left out: there are none.
pub struct Ours {
    /// The mesh.
    pub mesh: Mesh,
    settings: OursSettings,
    started: Duration,
    comes_up: bool,
    seeds: Vec<SocketAddr>,
    peers: Vec<SocketAddr>,
    /// Addresses that have not answered yet, or failed to, while this node joins.
    unanswered: BTreeSet<SocketAddr>,
    /// Whether an earlier life knew others, and none of them was met yet.
    is_alone_by_misfortune: bool,
    next_tick: Option<Duration>,
    exchanged: BTreeMap<SocketAddr, Duration>,
    calls: BTreeMap<u64, (SocketAddr, Duration)>,
    next_call: u64,
    wanted: Vec<Call<Said>>,
}

/// How [`Ours`] behaves.
#[derive(Clone, Debug)]
pub struct OursSettings {
    /// The mesh's part.
    pub mesh: MeshConfig,
    /// Whether a packet or a request that carries another digest is by itself reason for a full
    /// exchange, as it is to the hub. The mesh asks for its own in any case.
    pub exchanges_on_sight: bool,
}

/// What nodes say to each other over streams.
#[derive(Clone, Debug)]
pub struct Said {
    what: What,
    /// The sender's digest.
    view: u64,
    bytes: usize,
}

#[derive(Clone, Debug)]
enum What {
    Members(Vec<Member>),
    /// A packet of the mesh's that is to arrive.
    Packet(Vec<u8>),
}

/// How often views are exchanged with one address, at most.
const EXCHANGE_PERIOD: Duration = Duration::from_millis(500);
/// How often a node that joins looks whether it can.
const TICK: Duration = Duration::from_millis(100);
/// How long it looks for others before it serves alone.
const JOIN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an exchange may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// What says how long a packet is.
const LENGTH_BYTES: usize = 3;
/// A node's id, at most.
const ID_BYTES: usize = 9;
/// What the seal adds to a frame on a stream: a record's length and its tag.
const RECORD_BYTES: usize = 18;

impl Ours {
    fn exchange_with(&mut self, now: Duration, addr: SocketAddr) {
        if addr == self.mesh.me().addr {
            return;
        }
        let recently = |at: &Duration| *at + EXCHANGE_PERIOD > now;
        if self.exchanged.get(&addr).is_some_and(recently) {
            return;
        }
        self.exchanged.retain(|_, at| recently(at));
        self.exchanged.insert(addr, now);
        self.next_call += 1;
        let deadline = now + CALL_TIMEOUT;
        self.calls.insert(self.next_call, (addr, deadline));
        let (number, said) = (Some(self.next_call), self.says(true));
        self.wanted.push(Call { number, to: addr, said, deadline });
    }

    fn says(&self, reply: bool) -> Said {
        let exchange = Exchange { members: self.mesh.snapshot(), reply };
        let bytes = HEADER_BYTES + encode_value(&exchange).len() + CHECK_BYTES + RECORD_BYTES;
        let (what, view) = (What::Members(exchange.members), self.mesh.view().digest());
        Said { what, view, bytes }
    }

    fn exchange_while_joining(&mut self, now: Duration) {
        for addr in [self.seeds.clone(), self.peers.clone()].concat() {
            self.exchange_with(now, addr);
        }
    }

    /// A seed has answered, or will not.
    fn on_tried(&mut self, now: Duration, addr: SocketAddr) {
        let was_waited_for = self.unanswered.remove(&addr);
        if was_waited_for && self.unanswered.is_empty() && !self.is_alone_by_misfortune {
            self.become_up(now);
        }
    }

    fn become_up(&mut self, now: Duration) {
        if self.comes_up && self.mesh.me().status == Status::Joining {
            self.mesh.set_status(now, Status::Up);
        }
        if self.mesh.me().status != Status::Joining {
            self.next_tick = None;
        }
    }

    /// Somebody's view is another.
    fn see(&mut self, now: Duration, from: SocketAddr, view: u64) {
        let differs = view != 0 && view != self.mesh.view().digest();
        let is_member = || self.mesh.view().iter().any(|member| member.addr == from);
        if self.settings.exchanges_on_sight && differs && is_member() {
            self.exchange_with(now, from);
        }
    }
}

impl Subject for Ours {
    const NAME: &str = "ours";
    const KNOWS_BEFORE_IT_SAYS: bool = true;
    /// The seal: its header (35) and its tag (16). In clear a frame has 32 bytes, the cluster's name, the
    /// packet's length and a check of 4.
    const ENVELOPE_BYTES: usize = 51;
    type Settings = OursSettings;
    type Said = Said;
    type Event = Event;

    fn settings(_count: usize) -> OursSettings {
        OursSettings { mesh: MeshConfig::default(), exchanges_on_sight: true }
    }

    fn start(settings: &OursSettings, start: Start<'_>, seed: u64, now: Duration) -> Self {
        let Start { host, seeds, peers, deaths, comes_up } = start;
        let status = if seeds.is_empty() { Status::Up } else { Status::Joining };
        let me = member(&host, status);
        let mut mesh = Mesh::new(settings.mesh.clone(), me, seed, now);
        mesh.remember_deaths(deaths);
        let not_me = |addr: &&SocketAddr| **addr != host.addr;
        let seeds = seeds.iter().filter(not_me).copied().collect::<Vec<_>>();
        for addr in &seeds {
            mesh.announce(now, *addr);
        }
        let mut node = Self {
            mesh,
            settings: settings.clone(),
            started: now,
            comes_up,
            peers: peers.to_vec(),
            unanswered: seeds.iter().chain(peers).copied().collect(),
            is_alone_by_misfortune: !peers.is_empty(),
            seeds,
            next_tick: (status == Status::Joining).then_some(now + TICK),
            exchanged: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            wanted: Vec::new(),
        };
        if status == Status::Joining {
            node.exchange_while_joining(now);
        }
        node
    }

    fn settle(&mut self, now: Duration, others: &[HostFacts]) {
        let members = others.iter().map(|host| member(host, Status::Up)).collect();
        self.mesh.merge(now, members);
    }

    fn receive(&mut self, now: Duration, from: SocketAddr, packet: &[u8]) {
        // The header of the frame around it carries the same.
        let view = packet.get(1..9).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        self.see(now, from, view.unwrap_or(0));
        self.mesh.handle_datagram(now, from, packet);
    }

    fn wake(&mut self, now: Duration) {
        while self.mesh.poll_timeout().is_some_and(|due| due <= now) {
            self.mesh.handle_timeout(now);
        }
        let overdue = self.calls.iter().filter(|(_, (_, deadline))| *deadline <= now);
        for call in overdue.map(|(call, _)| *call).collect::<Vec<_>>() {
            self.answered(now, call, None);
        }
        if self.next_tick.is_some_and(|tick| tick <= now) {
            self.next_tick = Some(now + TICK);
            if self.mesh.held_back().is_some() {
                self.next_tick = None;
            } else if now >= self.started + JOIN_TIMEOUT {
                self.become_up(now);
            } else {
                self.exchange_while_joining(now);
            }
        }
    }

    fn next(&self) -> Option<Duration> {
        let deadlines = self.calls.values().map(|(_, deadline)| *deadline);
        deadlines.chain(self.next_tick).chain(self.mesh.poll_timeout()).min()
    }

    fn drain(&mut self, now: Duration, wants: &mut Wants<Self>) {
        while let Some(event) = self.mesh.poll_event() {
            if let Event::ExchangeWith(addr) = &event {
                self.exchange_with(now, *addr);
            }
            wants.events.push(event);
        }
        while let Some(transmit) = self.mesh.poll_transmit() {
            let Transmit { channel, to, packet } = transmit;
            if channel == Channel::Datagram {
                wants.packets.push((to, packet));
                continue;
            }
            // It is answered, by a frame that says no more than that it arrived.
            let answer = HEADER_BYTES + ID_BYTES + CHECK_BYTES + RECORD_BYTES;
            let frame = HEADER_BYTES + LENGTH_BYTES + packet.len() + CHECK_BYTES;
            let bytes = frame + RECORD_BYTES + answer;
            let said = Said { what: What::Packet(packet), view: self.mesh.view().digest(), bytes };
            let deadline = now + CALL_TIMEOUT;
            wants.calls.push(Call { number: None, to, said, deadline });
        }
        wants.calls.append(&mut self.wanted);
    }

    fn hear(&mut self, now: Duration, from: SocketAddr, said: Said) -> Option<Said> {
        self.see(now, from, said.view);
        match said.what {
            What::Members(members) => {
                self.mesh.merge(now, members);
                self.is_alone_by_misfortune = false;
                Some(self.says(false))
            }
            What::Packet(packet) => {
                self.mesh.handle_stream_packet(now, &packet);
                None
            }
        }
    }

    fn answered(&mut self, now: Duration, call: u64, answer: Option<Said>) {
        let Some((addr, _)) = self.calls.remove(&call) else { return };
        if let Some(Said { what: What::Members(members), .. }) = answer {
            self.mesh.merge(now, members);
            self.is_alone_by_misfortune = false;
            let me = self.mesh.me().id;
            let serves = |member: &Member| {
                member.id != me && matches!(member.status, Status::Up | Status::Draining)
            };
            if self.mesh.view().iter().any(serves) {
                self.become_up(now);
            }
        }
        self.on_tried(now, addr);
    }

    fn said_bytes(said: &Said) -> usize {
        said.bytes
    }

    fn leave(&mut self, now: Duration) {
        self.next_tick = None;
        self.mesh.leave(now);
    }

    fn sight(event: &Event) -> Option<Sight> {
        match event {
            Event::MemberUp(id) => Some(Sight::Up(*id)),
            Event::MemberDown(id) => Some(Sight::Down(*id)),
            Event::MemberLeft(id) => Some(Sight::Left(*id)),
            Event::IncarnationRaised(incarnation) => Some(Sight::Renewed(Some(*incarnation))),
            Event::ViewChanged { digest } => Some(Sight::Changed(*digest)),
            _ => None,
        }
    }

    fn deaths(&self) -> u64 {
        self.mesh.counters().deaths_reported
    }

    fn digest(&self) -> u64 {
        self.mesh.view().digest()
    }

    fn up_count(&self) -> usize {
        self.mesh.view().iter().filter(|member| member.status == Status::Up).count()
    }

    fn holds(&self, id: NodeId) -> Held {
        match self.mesh.view().get(id).map(|member| member.status) {
            None => Held::Unknown,
            Some(Status::Joining) => Held::Joining,
            Some(Status::Up | Status::Draining) => Held::Up,
            Some(Status::Down | Status::Left) => Held::Gone,
        }
    }

    fn peers(&self) -> Vec<SocketAddr> {
        self.mesh.peers().map(|(_, addr)| addr).collect()
    }

    fn own_deaths(&self) -> Vec<u64> {
        self.mesh.deaths().to_vec()
    }

    fn undamped(mut settings: OursSettings) -> OursSettings {
        settings.mesh.flap_hold = Duration::ZERO;
        settings
    }
}

/// What only meshes have.
impl World<Ours> {
    /// The mesh of a host.
    ///
    /// # Panics
    /// When its node does not run.
    pub fn mesh(&self, index: usize) -> &Mesh {
        &self.hosts[index].node.as_ref().expect("it runs").mesh
    }

    /// The meshes that run, with their hosts' numbers.
    pub fn meshes(&self) -> impl Iterator<Item = (usize, &Mesh)> {
        self.running().map(|(index, node)| (index, &node.mesh))
    }

    /// Calls a host's mesh, and carries out what it asks for.
    ///
    /// # Panics
    /// When its node does not run.
    pub fn with_mesh<T>(&mut self, index: usize, call: impl FnOnce(&mut Mesh, Duration) -> T) -> T {
        self.with(index, |node, now| call(&mut node.mesh, now))
    }

    /// What the view of `observer` says of `of`.
    pub fn status(&self, observer: usize, of: usize) -> Option<Status> {
        self.mesh(observer).view().get(self.hosts[of].id).map(|member| member.status)
    }

    /// Whether all running nodes but `of` itself say `status` of it.
    pub fn all_say(&self, of: usize, status: Status) -> bool {
        self.meshes().filter(|(i, _)| *i != of).all(|(i, _)| self.status(i, of) == Some(status))
    }

    /// The innermost ring as `observer` sees it, for three homes.
    pub fn ring(&self, observer: usize) -> Ring {
        Ring::build(self.mesh(observer).view(), 0, 3)
    }

    /// One counter, over all running meshes.
    pub fn sum(&self, counter: impl Fn(&Counters) -> u64) -> u64 {
        self.meshes().map(|(_, mesh)| counter(&mesh.counters())).sum()
    }
}

fn member(host: &HostFacts, status: Status) -> Member {
    Member {
        id: host.id,
        incarnation: host.incarnation,
        revision: 0,
        status,
        addr: host.addr,
        name: format!("host-{}", host.index),
        zone: host.zone.clone(),
        weight: 100,
        rings: 1,
        door: None,
        load: Load::default(),
    }
}
