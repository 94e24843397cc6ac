//! Datagrams and streams between hosts, and what becomes of them on their way.
//!
//! A datagram may be lost, doubled, damaged or late. A stream carries frames in order; under loss, or while
//! something is in the way, they come late, as retransmitted ones do. It breaks when a process at an end of it
//! is gone, or when calls over it are not answered for long; what was sent before may arrive all the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use annulus_net::{Rate, Rates};
use annulus_node::core::{
    Answered, Ask, Asker, Caller, HubInput, NoAnswer, Outcome, Reply, Request,
};
use annulus_proto::codec::{self, Header};
use annulus_proto::message::{Gossip, Message, Role, StreamGossip};
use annulus_proto::{Hlc, NodeId};
use rand::RngExt;
use rand::rngs::StdRng;

use super::world::{Event, World, micros};
use crate::trace;

/// An end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Node(usize),
    Client(usize),
    /// Somebody outside, whom no fault concerns.
    Operator,
}

/// What is between hosts.
pub(super) struct Net {
    /// From which sites nothing gets to which.
    cuts: BTreeSet<(usize, usize)>,
    pub(super) rates: Rates,
    latency: (Duration, Duration),
    /// Nodes to and from which everything takes at least so long.
    pub(super) slow: BTreeMap<usize, Duration>,
    /// Nodes to and from which nothing gets for the moment.
    pub(super) held: BTreeSet<usize>,
    links: BTreeMap<u64, Link>,
    open: BTreeMap<(End, usize), u64>,
    next: u64,
    pub(super) rng: StdRng,
}

/// A stream. The end that opened it asks, the other one answers.
struct Link {
    from: End,
    to: usize,
    /// Which run of either process it belongs to.
    lives: (u32, u32),
    there: Way,
    back: Way,
    /// Calls that are not answered, with when they were sent.
    calls: BTreeMap<u64, Duration>,
    heard: Duration,
    /// Whether who opened it has given it up, or is gone.
    is_closed: bool,
}

/// One direction of a stream.
struct Way {
    frames: VecDeque<(Duration, Vec<u8>)>,
    last: Duration,
}

/// What reaches a node's process.
pub(super) enum Arrival {
    Datagram { from: SocketAddr, bytes: Vec<u8> },
    Frame { link: u64, from: End, bytes: Vec<u8> },
    Answer { link: u64, bytes: Vec<u8> },
    Failed { calls: Vec<u64>, sent: bool },
    Stored { generation: u64 },
    Kept { core: usize, ticket: u64, is_on_disk: bool },
}

/// The name in every packet.
pub(super) const CLUSTER: &str = "storm";
pub(super) const PORT: u16 = 7946;
/// How long opening a stream may take.
const OPEN_TIMEOUT: Duration = Duration::from_millis(1_000);
/// A stream on which something has waited for its answer this long, with nothing heard meanwhile, is given up.
const SILENCE: Duration = Duration::from_secs(2);
/// When a lost segment is sent again, and how often in a row that is drawn at most.
const RETRANSMIT: Duration = Duration::from_millis(200);
const RETRANSMITS_MAX: u32 = 4;
/// What is late is late by so many latencies at most.
const LATE_MAX: u32 = 20;
/// How many datagrams wait at a socket that nobody reads.
pub(super) const SOCKET_PACKETS: usize = 277;

impl Net {
    pub(super) fn new(latency: (Duration, Duration), rng: StdRng) -> Self {
        Self {
            cuts: BTreeSet::new(),
            rates: Rates::default(),
            latency,
            slow: BTreeMap::new(),
            held: BTreeSet::new(),
            links: BTreeMap::new(),
            open: BTreeMap::new(),
            next: 1,
            rng,
        }
    }

    /// Nothing gets from one site to another any more.
    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Lifts all cuts.
    pub(super) fn mend(&mut self) {
        self.cuts.clear();
    }

    fn strikes(&mut self, rate: Rate) -> bool {
        self.rng.random_range(0..1_000) < rate.in_per_mille()
    }

    fn latency(&mut self, one: Option<usize>, other: Option<usize>) -> Duration {
        let (min, max) = (micros(self.latency.0), micros(self.latency.1));
        let drawn = Duration::from_micros(self.rng.random_range(min..=max));
        let slow = [one, other].into_iter().flatten().filter_map(|end| self.slow.get(&end));
        drawn + slow.max().copied().unwrap_or_default()
    }
}

impl Way {
    fn new(from: Duration) -> Self {
        Self { frames: VecDeque::new(), last: from }
    }

    /// What was sent last may be lost with the process that sent it.
    fn lose_an_end(&mut self, rng: &mut StdRng) {
        let kept = rng.random_range(0..=self.frames.len());
        self.frames.truncate(kept);
    }
}

/// The address of a node.
pub(super) fn addr(node: usize) -> SocketAddr {
    let last = u8::try_from(node + 1).expect("a few nodes");
    SocketAddr::from(([10, 0, 0, last], PORT))
}

fn node_at(addr: SocketAddr) -> Option<usize> {
    match addr.ip() {
        std::net::IpAddr::V4(ip) => usize::from(ip.octets()[3]).checked_sub(1),
        std::net::IpAddr::V6(_) => None,
    }
}

impl World {
    // Datagrams.

    pub(super) fn send_gossip(
        &mut self,
        from: usize,
        to: SocketAddr,
        header: Header,
        packet: Vec<u8>,
    ) {
        let Some(to) = node_at(to).filter(|to| *to < self.hosts.len()) else { return };
        let mut bytes = Vec::new();
        let message = Gossip { packet }.into();
        if codec::encode_datagram(header, CLUSTER, &message, &mut bytes).is_err() {
            return;
        }
        let rates = self.net.rates;
        let copies = 1 + usize::from(self.net.strikes(rates.duplication));
        for _ in 0..copies {
            let mut travel = self.net.latency(Some(from), Some(to));
            let (lost, late) = (self.net.strikes(rates.loss), self.net.strikes(rates.reordering));
            if late {
                travel *= self.net.rng.random_range(1..=LATE_MAX);
            }
            let mut bytes = bytes.clone();
            if self.net.strikes(rates.corruption) {
                let bit = self.net.rng.random_range(0..bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            if self.net.strikes(rates.truncation) {
                bytes.truncate(self.net.rng.random_range(0..bytes.len()));
            }
            if !lost && !self.net.cuts.contains(&(from, to)) {
                self.after(travel, Event::Datagram { from, to, bytes });
            }
        }
    }

    pub(super) fn on_datagram(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        if self.net.held.contains(&from) || self.net.held.contains(&to) {
            let wait = self.hold_up();
            return self.after(wait, Event::Datagram { from, to, bytes });
        }
        if !self.net.cuts.contains(&(from, to)) {
            self.arrive(to, Arrival::Datagram { from: addr(from), bytes });
        }
    }

    // Streams.

    fn site(&self, end: End) -> Option<usize> {
        match end {
            End::Node(node) => Some(node),
            End::Client(client) => Some(self.clients[client].site),
            End::Operator => None,
        }
    }

    /// The host that an end's traffic is slowed down or held up with; none of who is on a host of its own.
    fn host_of(&self, end: End) -> Option<usize> {
        match end {
            End::Node(node) => Some(node),
            End::Client(client) => self.clients[client].is_local.then(|| self.clients[client].site),
            End::Operator => None,
        }
    }

    fn life(&self, end: End) -> u32 {
        match end {
            End::Node(node) => self.hosts[node].life,
            End::Client(client) => self.clients[client].run,
            End::Operator => 0,
        }
    }

    /// Whether nothing gets from one end to the other now: it is lost, or held up.
    pub(super) fn is_blocked(&self, from: End, to: End) -> bool {
        if from == End::Operator || to == End::Operator {
            return false;
        }
        let hosts = (self.host_of(from), self.host_of(to));
        if hosts.0 == hosts.1 && hosts.0.is_some() {
            return false;
        }
        let sites = (self.site(from), self.site(to));
        let cut = matches!(sites, (Some(from), Some(to)) if self.net.cuts.contains(&(from, to)));
        let held = [hosts.0, hosts.1].into_iter().flatten().any(|it| self.net.held.contains(&it));
        cut || held
    }

    /// How long something takes from one host to another.
    pub(super) fn travel(&mut self, from: usize, to: usize) -> Duration {
        self.net.latency(Some(from), Some(to))
    }

    fn hold_up(&mut self) -> Duration {
        Duration::from_millis(self.net.rng.random_range(20..200))
    }

    /// Sends a question; the outcome comes to its end. A membership packet has no number, and no outcome.
    pub(super) fn call(&mut self, from: End, to: SocketAddr, call: u64, bytes: Vec<u8>) {
        let Some(to) = node_at(to).filter(|to| *to < self.hosts.len()) else {
            return self.fail_soon(from, OPEN_TIMEOUT, call);
        };
        let lives = (self.life(from), self.hosts[to].life);
        let link = self.net.open.get(&(from, to)).copied();
        // That the other process is another one its end learns of when it tells.
        let Some(link) = link.or_else(|| self.open_link(from, to, lives, call)) else { return };
        let sent = self.now;
        if call != 0
            && let Some(open) = self.net.links.get_mut(&link)
        {
            open.calls.insert(call, sent);
            self.after(SILENCE, Event::Silence { link });
        }
        self.put_on_way(link, false, bytes);
    }

    fn open_link(&mut self, from: End, to: usize, lives: (u32, u32), call: u64) -> Option<u64> {
        let ways = (self.host_of(from), Some(to));
        let round_trip = self.net.latency(ways.0, ways.1) + self.net.latency(ways.1, ways.0);
        let end = End::Node(to);
        let blocked = self.is_blocked(from, end) || self.is_blocked(end, from);
        let host = &self.hosts[to];
        if blocked || host.is_off || host.node.is_some() && host.paused.is_some() {
            self.fail_soon(from, OPEN_TIMEOUT, call);
            return None;
        }
        if host.node.is_none() {
            self.fail_soon(from, round_trip, call);
            return None;
        }
        let number = self.net.next;
        self.net.next += 1;
        // Handshake and greeting.
        let opened = self.now + 2 * round_trip;
        let link = Link {
            from,
            to,
            lives,
            there: Way::new(opened),
            back: Way::new(opened),
            calls: BTreeMap::new(),
            heard: self.now,
            is_closed: false,
        };
        self.net.links.insert(number, link);
        self.net.open.insert((from, to), number);
        Some(number)
    }

    fn fail_soon(&mut self, end: End, after: Duration, call: u64) {
        if call != 0 {
            let life = self.life(end);
            self.after(after, Event::Failed { end, life, call });
        }
    }

    /// A call that was never sent.
    pub(super) fn on_failed(&mut self, end: End, life: u32, call: u64) {
        if self.life(end) == life {
            self.tell_of_failure(end, vec![call], false);
        }
    }

    /// Sends an answer over the stream that the question came by, if it is still there.
    pub(super) fn reply(&mut self, from: usize, reply: Reply) {
        let Reply { to: Asker::Stream(number), header, message } = reply else { return };
        let life = self.hosts[from].life;
        let is_there = |link: &&Link| !link.is_closed && link.to == from && link.lives.1 == life;
        if self.net.links.get(&number).filter(is_there).is_none() {
            return;
        }
        let mut bytes = Vec::new();
        if let Err(error) = codec::encode_frame(header, &message, &mut bytes) {
            self.violate("encoding", format!("n{} answers what is no frame: {error}", from + 1));
            return;
        }
        self.put_on_way(number, true, bytes);
    }

    fn put_on_way(&mut self, number: u64, back: bool, bytes: Vec<u8>) {
        let Some(link) = self.net.links.get(&number) else { return };
        let (from, to) = (link.from, link.to);
        let ways = (self.host_of(from), Some(to));
        let is_near = ways.0 == ways.1;
        let mut travel = match is_near {
            true => Duration::from_micros(self.net.rng.random_range(30..200)),
            false => self.net.latency(ways.0, ways.1),
        };
        let loss = self.net.rates.loss;
        for nth in 0..RETRANSMITS_MAX {
            if is_near || from == End::Operator || !self.net.strikes(loss) {
                break;
            }
            travel += RETRANSMIT * (1 << nth);
        }
        let link = self.net.links.get_mut(&number).expect("it was there just now");
        let way = if back { &mut link.back } else { &mut link.there };
        let at = way.last.max(self.now + travel);
        way.last = at;
        way.frames.push_back((at, bytes));
        self.at(at, Event::Frames { link: number, back });
    }

    /// Some frames of a stream may have come.
    pub(super) fn on_frames(&mut self, number: u64, back: bool) {
        loop {
            let Some(link) = self.net.links.get(&number) else { return };
            let (from, to, lives) = (link.from, link.to, link.lives);
            let way = if back { &link.back } else { &link.there };
            if way.frames.front().is_none_or(|(at, _)| *at > self.now) {
                break;
            }
            let end = End::Node(to);
            if if back { self.is_blocked(end, from) } else { self.is_blocked(from, end) } {
                let wait = self.hold_up();
                let again = self.now + wait;
                let link = self.net.links.get_mut(&number).expect("it was there just now");
                let way = if back { &mut link.back } else { &mut link.there };
                way.frames.front_mut().expect("it was there just now").0 = again;
                way.last = way.last.max(again);
                return self.at(again, Event::Frames { link: number, back });
            }
            let is_there = self.hosts[to].node.is_some() && self.hosts[to].life == lives.1;
            let link = self.net.links.get_mut(&number).expect("it was there just now");
            let way = if back { &mut link.back } else { &mut link.there };
            let (_, bytes) = way.frames.pop_front().expect("it was there just now");
            match back {
                false if is_there => self.arrive(to, Arrival::Frame { link: number, from, bytes }),
                false if self.hosts[to].is_off => {}
                false => self.after(RESET_AFTER, Event::Reset { link: number }),
                true if self.life(from) == lives.0 => self.on_answer(number, bytes),
                true => {}
            }
        }
        self.forget_if_over(number);
    }

    fn forget_if_over(&mut self, number: u64) {
        let is_over = |link: &Link| {
            link.is_closed && link.there.frames.is_empty() && link.back.frames.is_empty()
        };
        if self.net.links.get(&number).is_some_and(is_over) {
            self.net.links.remove(&number);
        }
    }

    fn on_answer(&mut self, number: u64, bytes: Vec<u8>) {
        let Some(link) = self.net.links.get_mut(&number) else { return };
        link.heard = self.now;
        let (from, is_closed) = (link.from, link.is_closed);
        if is_closed {
            return;
        }
        match from {
            End::Node(node) => self.arrive(node, Arrival::Answer { link: number, bytes }),
            End::Client(_) | End::Operator => {
                if let Some((node, header, message)) = self.take_answer(number, &bytes) {
                    match from {
                        End::Client(client) => self.on_client_answer(client, node, header, message),
                        _ => self.on_operator_answer(header.id, message),
                    }
                }
            }
        }
    }

    /// What an answer says, if its call still waits for it.
    fn take_answer(&mut self, number: u64, bytes: &[u8]) -> Option<(NodeId, Header, Message)> {
        let (header, message) = self.decoded(bytes)?;
        let link = self.net.links.get_mut(&number)?;
        link.calls.remove(&header.id)?;
        Some((self.hosts[link.to].id, header, message))
    }

    fn decoded(&mut self, bytes: &[u8]) -> Option<(Header, Message)> {
        let decoded = codec::decode_frame(bytes);
        if let Err(error) = &decoded {
            self.violate("encoding", format!("a frame is none: {error}"));
        }
        decoded.ok()
    }

    pub(super) fn on_silence(&mut self, number: u64) {
        let Some(link) = self.net.links.get(&number).filter(|link| !link.is_closed) else { return };
        let waits = link.calls.values().any(|sent| *sent + SILENCE <= self.now);
        if waits && link.heard + SILENCE <= self.now {
            self.close(number);
        }
    }

    /// The other end's host says that there is no such stream.
    pub(super) fn on_reset(&mut self, number: u64) {
        let Some(link) = self.net.links.get(&number).filter(|link| !link.is_closed) else { return };
        if !self.is_blocked(End::Node(link.to), link.from) {
            self.close(number);
        }
    }

    /// An end gives a stream up, if it has heard nothing over it since.
    pub(super) fn give_up_unless_heard(&mut self, from: End, to: usize, since: Duration) {
        let Some(number) = self.net.open.get(&(from, to)).copied() else { return };
        if self.net.links.get(&number).is_some_and(|link| link.heard <= since) {
            self.close(number);
        }
    }

    fn close(&mut self, number: u64) {
        let Some(link) = self.net.links.get_mut(&number) else { return };
        link.is_closed = true;
        link.back.frames.clear();
        link.there.lose_an_end(&mut self.net.rng);
        let calls: Vec<u64> = std::mem::take(&mut link.calls).into_keys().collect();
        let (from, to, life) = (link.from, link.to, link.lives.0);
        if self.net.open.get(&(from, to)) == Some(&number) {
            self.net.open.remove(&(from, to));
        }
        self.forget_if_over(number);
        if self.life(from) == life && !calls.is_empty() {
            self.tell_of_failure(from, calls, true);
        }
    }

    fn tell_of_failure(&mut self, end: End, calls: Vec<u64>, sent: bool) {
        match end {
            End::Node(node) => self.arrive(node, Arrival::Failed { calls, sent }),
            End::Client(client) => {
                calls.into_iter().for_each(|call| self.on_client_failure(client, call, sent));
            }
            End::Operator => calls.into_iter().for_each(|call| self.on_operator_failure(call)),
        }
    }

    /// A process is gone: its own streams are, and those to it soon. Of a host without power nobody is told.
    pub(super) fn drop_streams(&mut self, end: End, is_told: bool) {
        let is_of_end =
            |link: &Link| link.from == end || matches!(end, End::Node(node) if link.to == node);
        let all = self.net.links.iter().filter(|(_, link)| !link.is_closed && is_of_end(link));
        for number in all.map(|(number, _)| *number).collect::<Vec<_>>() {
            let link = self.net.links.get_mut(&number).expect("it is among them");
            if link.from == end {
                link.is_closed = true;
                link.calls.clear();
                link.back.frames.clear();
                link.there.lose_an_end(&mut self.net.rng);
                let pair = (link.from, link.to);
                self.net.open.remove(&pair);
                self.forget_if_over(number);
            } else {
                link.back.lose_an_end(&mut self.net.rng);
                if is_told {
                    self.after(RESET_AFTER, Event::Reset { link: number });
                }
            }
        }
    }

    // What a process takes in.

    /// Something reaches a node's process, if there is one.
    pub(super) fn arrive(&mut self, node: usize, arrival: Arrival) {
        let host = &mut self.hosts[node];
        if host.node.is_none() {
            return;
        }
        if let Some(waiting) = &mut host.paused {
            let is_datagram = matches!(arrival, Arrival::Datagram { .. });
            if !is_datagram || waiting.len() < SOCKET_PACKETS {
                waiting.push(arrival);
            }
            return;
        }
        self.take_in(node, arrival);
        self.settle(node);
    }

    fn take_in(&mut self, node: usize, arrival: Arrival) {
        let now = self.present(node);
        match arrival {
            Arrival::Datagram { from, bytes } => {
                self.note(node, "datagram", &bytes);
                let Ok((_, message)) = codec::decode_datagram(&bytes, CLUSTER) else { return };
                let Message::Gossip(Gossip { packet }) = message else { return };
                let sender = node_at(from).filter(|_| self.is_sealed);
                let sender = sender.map(|sender| self.hosts[sender].id);
                let input = HubInput::Gossip { node: sender, from, packet };
                self.process(node, |process| process.tell_hub(now, input));
            }
            Arrival::Frame { link, from, bytes } => {
                self.note(node, "frame", &bytes);
                let Some((header, message)) = self.decoded(&bytes) else { return };
                let caller = match from {
                    End::Node(node) => Caller::Node(self.hosts[node].id),
                    End::Client(_) | End::Operator => Caller::Client(Role::Development),
                };
                match (caller, message) {
                    (Caller::Node(sender), Message::StreamGossip(StreamGossip { packet })) => {
                        let input = HubInput::StreamGossip { node: sender, packet };
                        self.process(node, |process| process.tell_hub(now, input));
                    }
                    (caller, message) => {
                        let asker = Asker::Stream(link);
                        let request = Request { asker, caller, header, message };
                        self.process(node, |process| process.request(now, request));
                    }
                }
            }
            Arrival::Answer { link, bytes } => {
                self.note(node, "answer", &bytes);
                let Some((from, header, message)) = self.take_answer(link, &bytes) else { return };
                let answered = Answered { node: from, header, message };
                let outcome = Outcome { call: header.id, result: Ok(answered) };
                self.process(node, |process| process.outcome(now, outcome));
            }
            Arrival::Failed { calls, sent } => {
                for call in calls {
                    let outcome = Outcome { call, result: Err(NoAnswer { sent }) };
                    self.process(node, |process| process.outcome(now, outcome));
                }
            }
            Arrival::Stored { generation } => {
                let input = HubInput::Persisted { generation };
                self.process(node, |process| process.tell_hub(now, input));
            }
            Arrival::Kept { core, ticket, is_on_disk } => {
                self.process(node, |process| process.tell_kept(now, (core, ticket), is_on_disk));
            }
        }
    }

    /// Everything that a process finds when it goes on.
    pub(super) fn take_in_all(&mut self, node: usize, waiting: Vec<Arrival>) {
        for arrival in waiting {
            // It may have died of the one before.
            if self.hosts[node].node.is_some() {
                self.take_in(node, arrival);
                self.settle(node);
            }
        }
    }

    fn note(&self, node: usize, what: &str, bytes: &[u8]) {
        trace::bytes(&micros(self.now).to_le_bytes());
        trace::bytes(&[u8::try_from(node).unwrap_or(u8::MAX)]);
        trace::bytes(bytes);
        trace::note(|| {
            let name = match what {
                "datagram" => codec::decode_datagram(bytes, CLUSTER),
                _ => codec::decode_frame(bytes),
            };
            match name {
                Ok((header, message)) => {
                    format!("n{} {what} {} {}", node + 1, message.name(), header.id)
                }
                Err(error) => format!("n{} {what} {error}", node + 1),
            }
        });
    }
}

/// How long it takes until an end learns that there is nobody at the other one.
const RESET_AFTER: Duration = Duration::from_millis(3);

impl World {
    pub(super) fn send_call(&mut self, node: usize, ask: Ask) {
        let Ask { to, header, message } = ask;
        let mut bytes = Vec::new();
        match codec::encode_frame(header, &message, &mut bytes) {
            Ok(()) => self.call(End::Node(node), to, header.id, bytes),
            Err(error) => {
                let what = format!("n{} asks what is no frame: {error}", node + 1);
                self.violate("encoding", what);
            }
        }
    }

    pub(super) fn send_stream_gossip(
        &mut self,
        node: usize,
        to: SocketAddr,
        header: Header,
        packet: Vec<u8>,
    ) {
        let mut bytes = Vec::new();
        let message = StreamGossip { packet }.into();
        if codec::encode_frame(header, &message, &mut bytes).is_ok() {
            self.call(End::Node(node), to, 0, bytes);
        }
    }

    /// Sends a request of a client or the operator.
    pub(super) fn ask(&mut self, from: End, to: usize, id: u64, message: &Message) {
        let header = Header { id, view: 0, hlc: Hlc::ZERO };
        let mut bytes = Vec::new();
        codec::encode_frame(header, message, &mut bytes).expect("requests here are small");
        self.call(from, addr(to), id, bytes);
    }
}
