//! A network that misbehaves on request, the same way for the same seed.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use rand::rngs::StdRng;
use rand::seq::index;
use rand::{Rng, RngExt, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Listener, Net, Peer, Udp};

/// Any [`Net`] with faults: datagrams are lost, doubled, damaged, cut and overtaken at given
/// [`Rates`], and [one-way blocks](Faults::block) stop datagrams and TCP streams.
///
/// Datagrams suffer where they are sent, by the [`Faults`] of the sender's network; blocks are
/// checked where they arrive as well, so that one faulty end is enough. Local streams never suffer:
/// they don't leave the host. Without rates and blocks it is the network inside, unchanged.
///
/// # What a block does to TCP
/// A connection needs both directions: while either is blocked, [`Net::connect`] hangs or is refused
/// ([`BlockedConnects`]). In an open stream, what is written into a blocked direction vanishes, up
/// to a send buffer's worth; then writes hang. As soon as something has vanished (bytes or the end
/// of the stream) **that direction stays dead after the block is lifted**: TCP never delivers what
/// follows a hole, and turmoil's never retransmits. A stream that was idle meanwhile goes on as if
/// nothing had been. Dropping a stream closes the one inside, which the other end notices unless the
/// block still hides it there. Hence the rule for users: a deadline for every request, and drop the stream
/// when it passes.
#[derive(Clone, Debug)]
pub struct FaultyNet<N> {
    inner: N,
    faults: Faults,
    me: Place,
}

impl<N: Net> FaultyNet<N> {
    /// `inner` with `faults`, which may be shared with the networks of other hosts.
    #[must_use]
    pub const fn new(inner: N, faults: Faults) -> Self {
        Self { inner, faults, me: Place::UNKNOWN }
    }

    /// Says where this network is, for blocks: the host's IP address, or the whole address of its
    /// node where several share an IP address. Without it, sockets bound to a wildcard, and outgoing
    /// connections, have an unknown origin, which only [`Side::Any`] matches.
    #[must_use]
    pub fn at(self, me: impl Into<Side>) -> Self {
        let me = match me.into() {
            Side::Any => Place::UNKNOWN,
            Side::Ip(ip) => Place { ip: Some(ip), port: None },
            Side::Addr(addr) => Place::from(addr),
        };
        Self { me, ..self }
    }

    /// The handle that changes the faults while the network runs.
    #[must_use]
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Where a socket of ours that is bound to `local` is.
    fn place_of(&self, local: SocketAddr) -> Place {
        let ip = if local.ip().is_unspecified() { self.me.ip } else { Some(local.ip()) };
        let port = Some(local.port());
        Place { ip, port }
    }
}

impl<N: Net> Net for FaultyNet<N> {
    type Udp = FaultyUdp<N::Udp>;
    type Stream = FaultyStream<N::Stream>;
    type Listener = FaultyListener<N::Listener>;

    async fn bind_udp(&self, addr: SocketAddr) -> io::Result<Self::Udp> {
        let inner = self.inner.bind_udp(addr).await?;
        Ok(FaultyUdp {
            me: self.place_of(inner.local_addr()?),
            inner,
            faults: self.faults.clone(),
            held: Mutex::default(),
        })
    }

    async fn listen(&self, addr: SocketAddr) -> io::Result<Self::Listener> {
        let inner = self.inner.listen(addr).await?;
        Ok(FaultyListener {
            me: self.place_of(inner.local_addr()?),
            inner,
            faults: self.faults.clone(),
        })
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<Self::Stream> {
        let link = Link { faults: self.faults.clone(), me: self.me, peer: Place::from(addr) };
        link.pass_connect(addr).await?;
        let inner = self.inner.connect(addr).await?;
        // The block may have come while the connection was being made.
        link.pass_connect(addr).await?;
        Ok(FaultyStream::new(inner, Some(link)))
    }

    async fn listen_local(&self, path: &Path) -> io::Result<Self::Listener> {
        Ok(FaultyListener {
            inner: self.inner.listen_local(path).await?,
            faults: self.faults.clone(),
            me: self.me,
        })
    }

    async fn connect_local(&self, path: &Path) -> io::Result<Self::Stream> {
        Ok(FaultyStream::new(self.inner.connect_local(path).await?, None))
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        self.inner.resolve(name).await
    }
}

/// The faults of one or more [`FaultyNet`]s, changeable while they run. Clones are the same faults.
///
/// Each datagram that is sent takes exactly one draw from the seed, whatever the rates and blocks
/// are, and all its fate follows from that draw. So the n-th datagram meets the same fate in every
/// run with the same seed and rates, and changing one fault does not reshuffle the others. Which
/// datagram is the n-th depends on the executor: a run replays if that is deterministic.
#[derive(Clone, Debug)]
pub struct Faults {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    rng: StdRng,
    rates: Rates,
    /// From, to. Few, so a list.
    blocks: Vec<(Side, Side)>,
    blocked_connects: BlockedConnects,
    tally: Tally,
}

impl Faults {
    /// No faults yet; those to come are drawn from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                rng: StdRng::seed_from_u64(seed),
                rates: Rates::default(),
                blocks: Vec::new(),
                blocked_connects: BlockedConnects::default(),
                tally: Tally::default(),
            })),
        }
    }

    /// Replaces all rates, from the next datagram on.
    pub fn set_rates(&self, rates: Rates) {
        self.lock().rates = rates;
    }

    /// The rates in force.
    #[must_use]
    pub fn rates(&self) -> Rates {
        self.lock().rates
    }

    /// Blocks everything from `from` to `to`; the other direction stays open. Blocking twice is
    /// blocking once.
    pub fn block(&self, from: impl Into<Side>, to: impl Into<Side>) {
        let block = (from.into(), to.into());
        let mut state = self.lock();
        if !state.blocks.contains(&block) {
            state.blocks.push(block);
        }
    }

    /// Takes back the block that was made with the same two sides, if there is one.
    pub fn unblock(&self, from: impl Into<Side>, to: impl Into<Side>) {
        let block = (from.into(), to.into());
        self.lock().blocks.retain(|other| *other != block);
    }

    /// What happens to connections under a block.
    pub fn set_blocked_connects(&self, blocked_connects: BlockedConnects) {
        self.lock().blocked_connects = blocked_connects;
    }

    /// Ends all faults: rates and blocks. Datagrams that are being held back still leave late.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.rates = Rates::default();
        state.blocks.clear();
    }

    /// What was done to the traffic so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.lock().tally
    }

    /// Decides on one datagram: the copies of it that leave.
    fn judge(&self, from: Place, to: Place, bytes: &[u8]) -> Verdict {
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut rng = StdRng::seed_from_u64(state.rng.next_u64());
        let (rates, tally) = (state.rates, &mut state.tally);
        let lost = rates.loss.strikes(&mut rng);
        let doubled = rates.duplication.strikes(&mut rng);
        let held_back = rates.reordering.strikes(&mut rng);

        tally.sent += 1;
        if is_blocked(&state.blocks, from, to) {
            tally.blocked += 1;
            return Verdict::default();
        }
        if lost {
            tally.lost += 1;
            return Verdict::default();
        }
        tally.duplicated += u64::from(doubled);
        let mut copies = vec![bytes.to_vec(); 1 + usize::from(doubled)];
        for copy in &mut copies {
            if rates.corruption.strikes(&mut rng) && !copy.is_empty() {
                tally.corrupted += 1;
                flip_bits(copy, &mut rng);
            }
            if rates.truncation.strikes(&mut rng) && !copy.is_empty() {
                tally.truncated += 1;
                copy.truncate(rng.random_range(0..copy.len()));
            }
        }
        Verdict { copies, held_back }
    }

    fn blocks(&self, from: Place, to: Place) -> bool {
        is_blocked(&self.lock().blocks, from, to)
    }

    fn count_blocked(&self) {
        self.lock().tally.blocked += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics half-way through a change of the state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often each fault strikes a datagram. All are independent of each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// It vanishes.
    pub loss: Rate,
    /// It is sent twice.
    pub duplication: Rate,
    /// One to eight of its bits flip; its length stays. Each copy of a doubled one on its own.
    pub corruption: Rate,
    /// It loses its end: at least one byte, at most all. Each copy of a doubled one on its own.
    pub truncation: Rate,
    /// It waits until the next one from the same socket to the same address has left. If none
    /// follows, it is lost with the socket.
    pub reordering: Rate,
}

/// A probability in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate {
    per_mille: u16,
}

impl Rate {
    /// Probability 0.
    pub const NEVER: Self = Self { per_mille: 0 };
    /// Probability 1.
    pub const ALWAYS: Self = Self { per_mille: 1000 };

    /// A probability of `per_mille` / 1000.
    ///
    /// # Errors
    /// If that is more than 1.
    pub const fn per_mille(per_mille: u16) -> Result<Self, RateOutOfRange> {
        if per_mille > Self::ALWAYS.per_mille {
            return Err(RateOutOfRange { per_mille });
        }
        Ok(Self { per_mille })
    }

    /// The probability in thousandths, 0 to 1000.
    #[must_use]
    pub const fn in_per_mille(self) -> u16 {
        self.per_mille
    }

    /// Always takes the same number of draws, whatever the rate is.
    fn strikes(self, rng: &mut StdRng) -> bool {
        rng.random_range(0..Self::ALWAYS.per_mille) < self.per_mille
    }
}

/// A rate above 1000 per mille.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateOutOfRange {
    /// What was asked for.
    pub per_mille: u16,
}

impl fmt::Display for RateOutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a rate of {} per mille is more than always; give 0 to 1000", self.per_mille)
    }
}

impl std::error::Error for RateOutOfRange {}

/// One side of a block: which addresses it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Everybody, also those whose address is unknown.
    Any,
    /// All ports of an IP address: a host, in simulations.
    Ip(IpAddr),
    /// One port of an IP address: a node, where several share a host.
    Addr(SocketAddr),
}

impl From<IpAddr> for Side {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

impl From<SocketAddr> for Side {
    fn from(addr: SocketAddr) -> Self {
        Self::Addr(addr)
    }
}

impl Side {
    fn covers(self, place: Place) -> bool {
        match self {
            Self::Any => true,
            Self::Ip(ip) => place.ip == Some(ip),
            Self::Addr(addr) => place == Place::from(addr),
        }
    }
}

/// What a connection attempt under a block does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockedConnects {
    /// It never finishes, as when packets vanish; also not after the block is lifted.
    #[default]
    Hang,
    /// It fails at once with [`io::ErrorKind::ConnectionRefused`].
    Refuse,
}

/// Counts of what was done to the traffic, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Datagrams that were handed in, whatever became of them.
    pub sent: u64,
    /// Datagrams lost at [`Rates::loss`].
    pub lost: u64,
    /// Datagrams sent twice.
    pub duplicated: u64,
    /// Copies with flipped bits.
    pub corrupted: u64,
    /// Copies that were cut.
    pub truncated: u64,
    /// Datagrams that were held back for the next one.
    pub reordered: u64,
    /// Datagrams and connection attempts that met a block, and directions of streams that died of
    /// one.
    pub blocked: u64,
}

/// A datagram socket with faults.
#[derive(Debug)]
pub struct FaultyUdp<U> {
    inner: U,
    faults: Faults,
    me: Place,
    /// Per destination the copies of the one datagram that waits to be overtaken.
    held: Mutex<BTreeMap<SocketAddr, Vec<Vec<u8>>>>,
}

impl<U> FaultyUdp<U> {
    /// What leaves now that `bytes` are sent: nothing, them, or them and what they overtake.
    fn departures(&self, bytes: &[u8], to: SocketAddr) -> Vec<Vec<u8>> {
        let verdict = self.faults.judge(self.me, Place::from(to), bytes);
        let mut copies = verdict.copies;
        if copies.is_empty() {
            return copies;
        }
        // Nothing panics while the map is locked.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.remove(&to) {
            Some(overtaken) => copies.extend(overtaken),
            None if verdict.held_back => {
                held.insert(to, std::mem::take(&mut copies));
                self.faults.lock().tally.reordered += 1;
            }
            None => {}
        }
        copies
    }
}

impl<U: Udp> Udp for FaultyUdp<U> {
    async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            let (len, from) = self.inner.recv_from(buf).await?;
            if !self.faults.blocks(Place::from(from), self.me) {
                return Ok((len, from));
            }
            self.faults.count_blocked();
        }
    }

    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        let mut departures = self.departures(bytes, to).into_iter();
        if let Some(first) = departures.next() {
            self.inner.send_to(&first, to).await?;
        }
        for other in departures {
            // A copy or an earlier datagram: whoever sends now has no part in its failure.
            let _ = self.inner.send_to(&other, to).await;
        }
        Ok(bytes.len())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A listener whose streams have faults.
#[derive(Debug)]
pub struct FaultyListener<L> {
    inner: L,
    faults: Faults,
    me: Place,
}

impl<L: Listener> Listener for FaultyListener<L> {
    type Stream = FaultyStream<L::Stream>;

    async fn accept(&mut self) -> io::Result<(Self::Stream, Peer)> {
        let (inner, peer) = self.inner.accept().await?;
        let link = match peer {
            Peer::Tcp(addr) => {
                Some(Link { faults: self.faults.clone(), me: self.me, peer: Place::from(addr) })
            }
            Peer::Local => None,
        };
        Ok((FaultyStream::new(inner, link), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A stream that blocks can stall; see [`FaultyNet`].
#[derive(Debug)]
pub struct FaultyStream<S> {
    inner: S,
    /// None for local streams.
    link: Option<Link>,
    /// Something that was coming in has vanished.
    is_incoming_dead: bool,
    /// Bytes that have vanished going out, once something has.
    vanished: Option<usize>,
}

impl<S> FaultyStream<S> {
    const fn new(inner: S, link: Option<Link>) -> Self {
        Self { inner, link, is_incoming_dead: false, vanished: None }
    }

    /// Whether what is sent now vanishes. From then on everything does.
    fn loses_outgoing(&mut self) -> bool {
        if self.vanished.is_some() {
            return true;
        }
        match &self.link {
            Some(link) if link.is_blocked_out() => {
                link.faults.count_blocked();
                self.vanished = Some(0);
                true
            }
            _ => false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FaultyStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_incoming_dead {
            // Nothing will ever come, so nobody is to be woken.
            return Poll::Pending;
        }
        let filled_before = buf.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
        match &this.link {
            // Bytes, the end of the stream or a reset: it would not have got here. A stream that
            // stays idle under a block is not harmed by it.
            Some(link) if polled.is_ready() && link.is_blocked_in() => {
                link.faults.count_blocked();
                this.is_incoming_dead = true;
                buf.set_filled(filled_before);
                Poll::Pending
            }
            _ => polled,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FaultyStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.loses_outgoing() {
            return Pin::new(&mut this.inner).poll_write(cx, bytes);
        }
        let vanished = this.vanished.get_or_insert(0);
        let len = bytes.len().min(SEND_BUFFER - *vanished);
        if len == 0 && !bytes.is_empty() {
            // The send buffer of a stream that nobody acknowledges is full for ever.
            return Poll::Pending;
        }
        *vanished += len;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.loses_outgoing() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

/// What a stream has to know about blocks.
#[derive(Clone, Debug)]
struct Link {
    faults: Faults,
    me: Place,
    peer: Place,
}

impl Link {
    fn is_blocked_out(&self) -> bool {
        self.faults.blocks(self.me, self.peer)
    }

    fn is_blocked_in(&self) -> bool {
        self.faults.blocks(self.peer, self.me)
    }

    /// Returns when there is no block; under one, fails or never returns.
    async fn pass_connect(&self, addr: SocketAddr) -> io::Result<()> {
        if !self.is_blocked_out() && !self.is_blocked_in() {
            return Ok(());
        }
        self.faults.count_blocked();
        let blocked_connects = self.faults.lock().blocked_connects;
        match blocked_connects {
            BlockedConnects::Hang => pending().await,
            BlockedConnects::Refuse => Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                format!("cannot connect to tcp {addr}: blocked by an injected fault"),
            )),
        }
    }
}

/// What is known of an end's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    ip: Option<IpAddr>,
    port: Option<u16>,
}

impl Place {
    const UNKNOWN: Self = Self { ip: None, port: None };
}

impl From<SocketAddr> for Place {
    fn from(addr: SocketAddr) -> Self {
        Self { ip: Some(addr.ip()), port: Some(addr.port()) }
    }
}

/// What becomes of a datagram.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// None if it is lost.
    copies: Vec<Vec<u8>>,
    held_back: bool,
}

fn is_blocked(blocks: &[(Side, Side)], from: Place, to: Place) -> bool {
    blocks.iter().any(|(source, target)| source.covers(from) && target.covers(to))
}

/// Flips one to eight distinct bits of `bytes`, which are not empty.
fn flip_bits(bytes: &mut [u8], rng: &mut StdRng) {
    let count = rng.random_range(1..=8);
    for bit in index::sample(rng, bytes.len() * 8, count) {
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Bytes that a blocked stream swallows before writes hang: about the send buffer of a socket.
const SEND_BUFFER: usize = 64 * 1024;

#[cfg(test)]
mod tests;
