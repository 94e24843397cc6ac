//! foca as it comes, with its preset for a LAN: what one would use instead.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use annulus_proto::NodeId;
use bytes::{Buf, BufMut};
use foca::{Config, Foca, Header, Member, Message, Notification, OwnedNotification, State, Timer};
use rand::SeedableRng;
use rand::rngs::StdRng;
use twox_hash::XxHash3_64;

use crate::queue::Queue;
use crate::subject::{Held, HostFacts, Sight, Start, Subject, Wants};
use crate::world::id_at;

/// A member of a plain foca cluster, with [`Config::new_lan`], and the least that a driver must do:
/// timers in order, packets in and out, and announcing itself to its seeds each second until it is
/// active for the first time. All else is foca's own. It has no streams and no disk, and its
/// identity is short.
pub struct Plain {
    foca: Foca<Peer, PlainCodec, StdRng, foca::NoCustomBroadcast>,
    effects: Effects,
    timers: Queue<Due>,
    seeds: Vec<SocketAddr>,
    has_left: bool,
    up: BTreeSet<NodeId>,
    /// The wrapping sum of the hashes of `up`, ourselves included.
    digest: u64,
    known: BTreeSet<NodeId>,
}

/// An identity: a host's address, and which of its lives this is. The first one of a start comes from
/// the host's clock and disk, as ours does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    addr: SocketAddr,
    life: u64,
}

/// What a driver needs from the queue's end.
enum Due {
    Swim(Timer<Peer>),
    Announce,
}

#[derive(Default)]
struct Effects {
    packets: Vec<(SocketAddr, Vec<u8>)>,
    timers: Vec<(Duration, Timer<Peer>)>,
    events: Vec<OwnedNotification<Peer>>,
}

const ANNOUNCE_PERIOD: Duration = Duration::from_secs(1);

impl Plain {
    fn settle_effects(&mut self, now: Duration) {
        for (after, timer) in self.effects.timers.drain(..) {
            self.timers.push(now + after, Due::Swim(timer));
        }
    }

    fn announce(&mut self, now: Duration) {
        for addr in self.seeds.clone() {
            // An announcement needs the address only.
            let seed = Peer { addr, life: 0 };
            let _ = self.foca.announce(seed, &mut self.effects);
        }
        if !self.seeds.is_empty() {
            self.timers.push(now + ANNOUNCE_PERIOD, Due::Announce);
        }
    }

    fn see(&mut self, event: &OwnedNotification<Peer>) {
        match event {
            OwnedNotification::MemberUp(peer) if self.up.insert(peer.id()) => {
                self.known.insert(peer.id());
                self.digest = self.digest.wrapping_add(hash(peer.id()));
            }
            OwnedNotification::MemberDown(peer) if self.up.remove(&peer.id()) => {
                self.digest = self.digest.wrapping_sub(hash(peer.id()));
            }
            OwnedNotification::Active => self.seeds.clear(),
            _ => {}
        }
    }
}

impl Subject for Plain {
    const NAME: &str = "foca";
    const KNOWS_BEFORE_IT_SAYS: bool = false;
    const ENVELOPE_BYTES: usize = 0;
    type Settings = Config;
    type Said = Infallible;
    type Event = OwnedNotification<Peer>;

    fn settings(count: usize) -> Config {
        let count = u32::try_from(count).ok().and_then(NonZeroU32::new);
        Config::new_lan(count.unwrap_or(NonZeroU32::MIN))
    }

    fn start(config: &Config, start: Start<'_>, seed: u64, now: Duration) -> Self {
        let Start { host, seeds, .. } = start;
        let me = Peer::of(&host);
        let rng = StdRng::seed_from_u64(seed);
        let mut node = Self {
            foca: Foca::new(me, config.clone(), rng, PlainCodec),
            effects: Effects::default(),
            timers: Queue::new(),
            seeds: seeds.iter().filter(|addr| **addr != host.addr).copied().collect(),
            has_left: false,
            up: [host.id].into(),
            digest: hash(host.id),
            known: BTreeSet::new(),
        };
        node.announce(now);
        node.settle_effects(now);
        node
    }

    fn settle(&mut self, now: Duration, others: &[HostFacts]) {
        let me = *self.foca.identity();
        let others = others.iter().map(Peer::of).filter(|peer| *peer != me);
        let members = others.map(Member::alive).collect::<Vec<_>>();
        let _ = self.foca.apply_many(members.into_iter(), false, &mut self.effects);
        self.settle_effects(now);
    }

    fn receive(&mut self, now: Duration, _from: SocketAddr, packet: &[u8]) {
        if self.has_left {
            return;
        }
        // An error says that the packet was of no use.
        let _ = self.foca.handle_data(packet, &mut self.effects);
        self.settle_effects(now);
    }

    fn wake(&mut self, now: Duration) {
        while let Some((_, due)) = self.timers.pop(now) {
            match due {
                // An error says that the timer is outdated.
                Due::Swim(timer) => {
                    let _ = self.foca.handle_timer(timer, &mut self.effects);
                }
                Due::Announce => self.announce(now),
            }
            self.settle_effects(now);
        }
    }

    fn next(&self) -> Option<Duration> {
        self.timers.next()
    }

    fn drain(&mut self, _now: Duration, wants: &mut Wants<Self>) {
        wants.packets.append(&mut self.effects.packets);
        for event in std::mem::take(&mut self.effects.events) {
            self.see(&event);
            wants.events.push(event);
        }
    }

    fn hear(&mut self, _: Duration, _: SocketAddr, said: Infallible) -> Option<Infallible> {
        match said {}
    }

    fn answered(&mut self, _: Duration, _: u64, _: Option<Infallible>) {}

    fn said_bytes(said: &Infallible) -> usize {
        match *said {}
    }

    fn leave(&mut self, now: Duration) {
        let _ = self.foca.leave_cluster(&mut self.effects);
        self.settle_effects(now);
        self.has_left = true;
        self.timers = Queue::new();
    }

    fn sight(event: &OwnedNotification<Peer>) -> Option<Sight> {
        match event {
            OwnedNotification::MemberUp(peer) => Some(Sight::Up(peer.id())),
            OwnedNotification::MemberDown(peer) => Some(Sight::Down(peer.id())),
            OwnedNotification::Rejoin(_) => Some(Sight::Renewed(None)),
            _ => None,
        }
    }

    fn deaths(&self) -> u64 {
        0
    }

    fn digest(&self) -> u64 {
        self.digest
    }

    fn up_count(&self) -> usize {
        self.up.len()
    }

    fn holds(&self, id: NodeId) -> Held {
        match (self.up.contains(&id), self.known.contains(&id)) {
            (true, _) => Held::Up,
            (false, true) => Held::Gone,
            (false, false) => Held::Unknown,
        }
    }

    fn peers(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
}

impl Peer {
    fn of(host: &HostFacts) -> Self {
        Self { addr: host.addr, life: host.incarnation }
    }

    /// Whose address it is: known to all without being sent.
    fn id(&self) -> NodeId {
        id_at(self.addr)
    }
}

impl foca::Runtime<Peer> for Effects {
    fn notify(&mut self, notification: Notification<'_, Peer>) {
        self.events.push(notification.to_owned());
    }

    fn send_to(&mut self, to: Peer, data: &[u8]) {
        self.packets.push((to.addr, data.to_vec()));
    }

    fn submit_after(&mut self, timer: Timer<Peer>, after: Duration) {
        self.timers.push((after, timer));
    }
}

impl foca::Identity for Peer {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Self> {
        Some(Self { life: self.life.saturating_add(1), ..*self })
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.life > adversary.life
    }
}

/// Fixed sizes: IPv4 address and port 6, life 6.
#[derive(Clone, Copy, Debug)]
struct PlainCodec;

/// Why a packet could not be read or written.
#[derive(Debug, thiserror::Error)]
enum PlainError {
    #[error("there is less than there should be")]
    Short,
    #[error("{0} is no message or state")]
    Unknown(u8),
    #[error("only IPv4 is spoken here")]
    Ipv6,
}

const PEER_BYTES: usize = 12;

impl foca::Codec<Peer> for PlainCodec {
    type Error = PlainError;

    fn encode_header(
        &mut self,
        header: &Header<Peer>,
        mut buf: impl BufMut,
    ) -> Result<(), PlainError> {
        let (kind, number, third) = match header.message {
            Message::Ping(number) => (1, number, None),
            Message::Ack(number) => (2, number, None),
            Message::PingReq { target, probe_number } => (3, probe_number, Some(target)),
            Message::IndirectPing { origin, probe_number } => (4, probe_number, Some(origin)),
            Message::IndirectAck { target, probe_number } => (5, probe_number, Some(target)),
            Message::ForwardedAck { origin, probe_number } => (6, probe_number, Some(origin)),
            Message::Announce => (7, 0, None),
            Message::Feed => (8, 0, None),
            Message::Gossip => (9, 0, None),
            Message::Broadcast => (10, 0, None),
            Message::TurnUndead => (11, 0, None),
        };
        put(&mut buf, &header.src)?;
        buf.put_u16(header.src_incarnation);
        put(&mut buf, &header.dst)?;
        buf.put_u8(kind);
        buf.put_u8(number);
        third.map_or(Ok(()), |third| put(&mut buf, &third))
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Peer>, PlainError> {
        let src = take(&mut buf)?;
        let src_incarnation = buf.try_get_u16().map_err(|_| PlainError::Short)?;
        let dst = take(&mut buf)?;
        let kind = buf.try_get_u8().map_err(|_| PlainError::Short)?;
        let probe_number = buf.try_get_u8().map_err(|_| PlainError::Short)?;
        let message = match kind {
            1 => Message::Ping(probe_number),
            2 => Message::Ack(probe_number),
            3 => Message::PingReq { target: take(&mut buf)?, probe_number },
            4 => Message::IndirectPing { origin: take(&mut buf)?, probe_number },
            5 => Message::IndirectAck { target: take(&mut buf)?, probe_number },
            6 => Message::ForwardedAck { origin: take(&mut buf)?, probe_number },
            7 => Message::Announce,
            8 => Message::Feed,
            9 => Message::Gossip,
            10 => Message::Broadcast,
            11 => Message::TurnUndead,
            other => return Err(PlainError::Unknown(other)),
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(
        &mut self,
        member: &Member<Peer>,
        mut buf: impl BufMut,
    ) -> Result<(), PlainError> {
        if buf.remaining_mut() < PEER_BYTES + 3 {
            return Err(PlainError::Short);
        }
        put(&mut buf, member.id())?;
        buf.put_u16(member.incarnation());
        buf.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Peer>, PlainError> {
        let peer = take(&mut buf)?;
        let incarnation = buf.try_get_u16().map_err(|_| PlainError::Short)?;
        let state = match buf.try_get_u8().map_err(|_| PlainError::Short)? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            other => return Err(PlainError::Unknown(other)),
        };
        Ok(Member::new(peer, incarnation, state))
    }
}

fn put(buf: &mut impl BufMut, peer: &Peer) -> Result<(), PlainError> {
    let IpAddr::V4(ip) = peer.addr.ip() else { return Err(PlainError::Ipv6) };
    if buf.remaining_mut() < PEER_BYTES {
        return Err(PlainError::Short);
    }
    buf.put_slice(&ip.octets());
    buf.put_u16(peer.addr.port());
    buf.put_uint(peer.life, 6);
    Ok(())
}

fn take(buf: &mut impl Buf) -> Result<Peer, PlainError> {
    if buf.remaining() < PEER_BYTES {
        return Err(PlainError::Short);
    }
    let mut ip = [0; 4];
    buf.copy_to_slice(&mut ip);
    let addr = SocketAddr::from((ip, buf.get_u16()));
    Ok(Peer { addr, life: buf.get_uint(6) })
}

fn hash(id: NodeId) -> u64 {
    XxHash3_64::oneshot(&id.bits().to_le_bytes())
}
