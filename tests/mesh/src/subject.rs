//! What is simulated: a node's part in membership, without I/O.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use annulus_proto::NodeId;

/// A node's part in a membership protocol. The world calls it, and after each call takes out what it
/// wants done ([`Subject::drain`]) and asks when to wake it ([`Subject::next`]).
pub trait Subject: Sized {
    /// In tables and on the command line.
    const NAME: &str;
    /// Whether it knows of a death some time before it says so ([`Subject::deaths`]).
    const KNOWS_BEFORE_IT_SAYS: bool;
    /// What its driver puts around a packet, in bytes, UDP and IP apart.
    const ENVELOPE_BYTES: usize;
    /// How it behaves, the same for all nodes.
    type Settings: Clone + Debug;
    /// What it says over streams.
    type Said: Clone;
    /// What it reports.
    type Event: Clone + Debug + PartialEq;

    /// How it behaves in a cluster of this size, as a user would set it up.
    fn settings(count: usize) -> Self::Settings;

    /// A node that starts at a host. Everything random comes from `seed`.
    fn start(settings: &Self::Settings, start: Start<'_>, seed: u64, now: Duration) -> Self;

    /// Makes it know all these as members that are up, itself among them: a cluster as it is long
    /// after it was started.
    fn settle(&mut self, now: Duration, others: &[HostFacts]);

    /// A datagram has arrived, with its envelope taken off.
    fn receive(&mut self, now: Duration, from: SocketAddr, packet: &[u8]);

    /// Its time has come, or has passed.
    fn wake(&mut self, now: Duration);

    /// When to wake it.
    fn next(&self) -> Option<Duration>;

    /// Hands over what it wants done.
    fn drain(&mut self, now: Duration, wants: &mut Wants<Self>);

    /// Something was said over a stream; the answer, if there is one.
    fn hear(&mut self, now: Duration, from: SocketAddr, said: Self::Said) -> Option<Self::Said>;

    /// A call was answered, or the stream broke.
    fn answered(&mut self, now: Duration, call: u64, answer: Option<Self::Said>);

    /// How long something is on a stream, in bytes, frame included.
    fn said_bytes(said: &Self::Said) -> usize;

    /// Leaves for good.
    fn leave(&mut self, now: Duration);

    /// What a reported event means.
    fn sight(event: &Self::Event) -> Option<Sight>;

    /// How many deaths it has concluded so far, also those that it has not reported yet.
    fn deaths(&self) -> u64;

    /// A hash of whom it takes for members, equal where they are.
    fn digest(&self) -> u64;

    /// How many members it knows, itself included, that are up.
    fn up_count(&self) -> usize;

    /// What it holds of a node.
    fn holds(&self, id: NodeId) -> Held;

    /// Addresses that it would have on disk by now.
    fn peers(&self) -> Vec<SocketAddr>;

    /// The deaths of its own that it would have on disk by now.
    fn own_deaths(&self) -> Vec<u64> {
        Vec::new()
    }

    /// The same behaviour for nodes that come and go all the time, and are not to be kept waiting
    /// for it.
    fn undamped(settings: Self::Settings) -> Self::Settings {
        settings
    }
}

/// What a node starts from.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// Its host.
    pub host: HostFacts,
    /// Addresses to join at.
    pub seeds: &'a [SocketAddr],
    /// The peers that its last life knew; none if its disk is new.
    pub peers: &'a [SocketAddr],
    /// The deaths that its last life remembered.
    pub deaths: &'a [u64],
    /// Whether it joins by itself, or stays what it is when it starts.
    pub comes_up: bool,
}

/// What others know of a host.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// Its number.
    pub index: usize,
    /// The id of its node.
    pub id: NodeId,
    /// Where it is reached.
    pub addr: SocketAddr,
    /// What fails together.
    pub zone: String,
    /// The incarnation of its present life.
    pub incarnation: u64,
}

/// What a node wants done.
pub struct Wants<S: Subject> {
    /// Datagrams to send, without envelope.
    pub packets: Vec<(SocketAddr, Vec<u8>)>,
    /// Things to say over streams.
    pub calls: Vec<Call<S::Said>>,
    /// Things to report.
    pub events: Vec<S::Event>,
}

impl<S: Subject> Default for Wants<S> {
    fn default() -> Self {
        Self { packets: Vec::new(), calls: Vec::new(), events: Vec::new() }
    }
}

/// Something to say over a stream.
#[derive(Clone, Debug)]
pub struct Call<T> {
    /// To be given back with the answer; nothing comes back for `None`.
    pub number: Option<u64>,
    /// Where to.
    pub to: SocketAddr,
    /// What.
    pub said: T,
    /// When the caller gives up: after this nothing of it is sent any more.
    pub deadline: Duration,
}

/// What an observer has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// A node takes part.
    Up(NodeId),
    /// A node was declared dead.
    Down(NodeId),
    /// A node left on purpose.
    Left(NodeId),
    /// The observer itself was held for dead, and begins a new life.
    Renewed(Option<u64>),
    /// What placement depends on is another.
    Changed(u64),
}

/// What one node holds of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Unknown,
    /// It takes part, without slots yet.
    Joining,
    /// It takes part.
    Up,
    /// It is dead or has left.
    Gone,
}
