//! Streams to other nodes: three per address, one of them for what yields to requests and one for messages to channels, each
//! opened when there is something to send.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annulus_net::Net;
use annulus_proto::codec::{self, Header};
use annulus_proto::message::{Caller, Hello, Message};
use annulus_proto::{Hlc, NodeId};
use annulus_seal::KeyId;
use annulus_seal::stream::Wire;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::WRITE_TIMEOUT;
use super::inboxes::{Inboxes, Stopping};
use super::keys::Keys;
use super::stream::{FrameReader, Outbox, Room, outbox};
use crate::core::{Answered, NoAnswer, Outcome};

/// What goes over a stream to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Traffic {
    /// What somebody waits for.
    Requests,
    /// What there may be much of, and nobody waits for. What it is answered waits behind requests, too.
    Bulk,
    /// Messages to channels, which keep nothing else waiting and are lost with their stream.
    Published,
}

/// A stream to another node, as who sends over it holds it.
pub(super) struct Link {
    items: mpsc::Sender<Item>,
    /// The bytes of messages to channels that wait.
    published: Arc<AtomicUsize>,
}

/// Something to send.
enum Item {
    /// A question, whose outcome is reported.
    Call { call: u64, frame: Vec<u8> },
    /// A packet that nobody waits for. It is answered all the same, with id 0, so that a stream that
    /// no longer works is noticed.
    Post { frame: Vec<u8> },
    /// The same of a message to a channel, and the room that it has taken.
    Publish { frame: Vec<u8>, rooms: [Room; 2] },
}

/// Who opens links.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) cluster: String,
    pub(super) id: NodeId,
    pub(super) incarnation: u64,
    /// `None` where everything travels in clear.
    pub(super) keys: Option<Arc<Keys>>,
}

/// The first frame on each of its streams.
pub(super) fn hello(identity: &Identity) -> Message {
    Hello {
        cluster: identity.cluster.clone(),
        caller: Caller::Node { id: identity.id, incarnation: identity.incarnation },
        software: crate::SOFTWARE.to_owned(),
    }
    .into()
}

/// Calls and packets that may wait for a stream to be opened.
const ITEMS_MAX: usize = 4_096;
/// Bytes that may wait to be written to one node.
const OUTBOX_BYTES: usize = 64 << 20;
/// Bytes of messages to channels that may wait for one node.
const PUBLISHED_BYTES_MAX: usize = 8 << 20;
/// How long opening a stream may take.
const OPEN_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long a link over which nothing goes stays open.
const IDLE: Duration = Duration::from_secs(60);
/// How often a stream under an old key is looked at, whether its calls are answered.
const FINISH_PAUSE: Duration = Duration::from_millis(10);
/// A link on which something has waited for its answer this long, with nothing heard meanwhile, is given up.
const SILENCE: Duration = Duration::from_secs(2);

impl Link {
    /// A link to an address, not opened yet. Its task ends with it.
    pub(super) fn new<N: Net>(
        net: N,
        (addr, traffic): (SocketAddr, Traffic),
        identity: Identity,
        inboxes: Inboxes,
    ) -> Self {
        let (items, receiver) = mpsc::channel(ITEMS_MAX);
        tokio::spawn(run(net, addr, identity, receiver, Answers { inboxes, traffic }));
        Self { items, published: Arc::default() }
    }

    /// Whether its task has ended.
    pub(super) fn is_over(&self) -> bool {
        self.items.is_closed()
    }

    /// Sends a call's frame; `false` if the link cannot take it: its end is gone, or too many wait.
    pub(super) fn send(&self, call: u64, frame: Vec<u8>) -> bool {
        self.items.try_send(Item::Call { call, frame }).is_ok()
    }

    /// Sends a packet's frame; `false` if the link cannot take it.
    pub(super) fn post(&self, frame: Vec<u8>) -> bool {
        self.items.try_send(Item::Post { frame }).is_ok()
    }

    /// Sends a copy of a message's frame, which has taken room among those to all nodes; `false` if the link cannot take it.
    pub(super) fn publish(&self, frame: &[u8], room: Room) -> bool {
        let own = Room::take(&self.published, frame.len(), PUBLISHED_BYTES_MAX);
        own.is_some_and(|own| {
            let item = Item::Publish { frame: frame.to_vec(), rooms: [room, own] };
            self.items.try_send(item).is_ok()
        })
    }
}

/// Where answers are left.
#[derive(Clone)]
struct Answers {
    inboxes: Inboxes,
    traffic: Traffic,
}

/// The calls sent and not answered, each with when it was sent, and when something was last heard.
struct Open {
    calls: BTreeMap<u64, Instant>,
    /// When the first packet was sent since.
    posted: Option<Instant>,
    heard: Instant,
}

async fn run<N: Net>(
    net: N,
    addr: SocketAddr,
    identity: Identity,
    mut items: mpsc::Receiver<Item>,
    answers: Answers,
) {
    // Something must be there to be sent before a stream is opened; a call fails with the stream.
    while let Ok(Some(first)) = tokio::time::timeout(IDLE, items.recv()).await {
        let opened = tokio::time::timeout(OPEN_TIMEOUT, open(&net, addr, &identity)).await;
        let Ok(Some(Opened { node, reader, outbox, key })) = opened else {
            let failed = first.call().into_iter().chain(waiting(&mut items)).collect();
            fail(&answers, failed, false);
            continue;
        };
        let open = Open { calls: BTreeMap::new(), posted: None, heard: Instant::now() };
        let open = Arc::new(Mutex::new(open));
        let reading = tokio::spawn(read(node, reader, open.clone(), answers.clone()));
        let other_key = replaced(identity.keys.as_deref(), key);
        if write(first, &mut items, &outbox, &open, &reading, other_key).await == Done::OtherKey {
            // What comes next opens a stream under the other key; calls under way are still answered.
            tokio::spawn(finish(outbox, open, reading, answers.clone()));
            continue;
        }
        reading.abort();
        let failed: Vec<u64> = std::mem::take(&mut lock(&open).calls).into_keys().collect();
        fail(&answers, failed, true);
    }
    // The driver makes a new link when it needs one; what slipped in meanwhile has failed.
    items.close();
    fail(&answers, waiting(&mut items), false);
}

/// The calls that wait, taken out with all else.
fn waiting(items: &mut mpsc::Receiver<Item>) -> Vec<u64> {
    let items = std::iter::from_fn(|| items.try_recv().ok());
    items.filter_map(|item| item.call()).collect()
}

/// Lets a stream's calls be answered, and closes it.
async fn finish(
    outbox: Outbox,
    open: Arc<Mutex<Open>>,
    reading: tokio::task::JoinHandle<()>,
    answers: Answers,
) {
    let is_done = || {
        let open = lock(&open);
        reading.is_finished() || open.calls.is_empty() || open.is_over(Instant::now())
    };
    while !is_done() {
        tokio::time::sleep(FINISH_PAUSE).await;
    }
    reading.abort();
    drop(outbox);
    let failed: Vec<u64> = std::mem::take(&mut lock(&open).calls).into_keys().collect();
    fail(&answers, failed, true);
}

/// Waits until another key is in use than the one that a stream was opened under.
async fn replaced(keys: Option<&Keys>, key: Option<KeyId>) {
    match (keys, key) {
        (Some(keys), Some(key)) => keys.replaced(key).await,
        _ => std::future::pending().await,
    }
}

struct Opened<N: Net> {
    node: NodeId,
    reader: FrameReader<tokio::io::ReadHalf<Wire<N::Stream>>>,
    outbox: Outbox,
    /// The key that it is sealed under.
    key: Option<KeyId>,
}

async fn open<N: Net>(net: &N, addr: SocketAddr, identity: &Identity) -> Option<Opened<N>> {
    let stream = net.connect(addr).await.ok()?;
    let (stream, key) = match &identity.keys {
        None => (Wire::Clear(stream), None),
        Some(keys) => match keys.call(stream).await {
            Ok((stream, key)) => (stream, Some(key)),
            Err(error) => {
                tracing::warn!(%addr, %error, "no sealed stream to another node");
                return None;
            }
        },
    };
    let (read_half, write_half) = tokio::io::split(stream);
    let mut frame = Vec::new();
    let header = Header { id: 0, view: 0, hlc: Hlc::ZERO };
    codec::encode_frame(header, &hello(identity), &mut frame).ok()?;
    let (outbox, outgoing) = outbox(OUTBOX_BYTES);
    tokio::spawn(outgoing.write_to(write_half, WRITE_TIMEOUT));
    outbox.push(frame);
    let mut reader = FrameReader::new(read_half);
    match reader.frame().await.ok()? {
        (_, Message::Welcome(welcome)) => Some(Opened { node: welcome.node, reader, outbox, key }),
        (_, Message::Rejected(rejected)) => {
            tracing::warn!(%addr, %rejected, "another node refuses this one");
            None
        }
        _ => None,
    }
}

/// Why no more calls are written to a stream.
#[derive(PartialEq, Eq)]
enum Done {
    /// It is of no use any more, or not needed.
    Over,
    /// Another key is in use.
    OtherKey,
}

async fn write(
    first: Item,
    items: &mut mpsc::Receiver<Item>,
    outbox: &Outbox,
    open: &Mutex<Open>,
    reading: &tokio::task::JoinHandle<()>,
    other_key: impl Future<Output = ()>,
) -> Done {
    let mut other_key = std::pin::pin!(other_key);
    let mut next = Some(first);
    loop {
        let now = Instant::now();
        if let Some(item) = next.take() {
            let (frame, rooms) = lock(open).note(item, now);
            if !outbox.push_with(frame, rooms) {
                return Done::Over;
            }
        }
        if reading.is_finished() || lock(open).is_over(now) {
            return Done::Over;
        }
        next = tokio::select! {
            biased;
            () = &mut other_key => return Done::OtherKey,
            next = tokio::time::timeout(SILENCE / 2, items.recv()) => match next {
                Ok(None) => return Done::Over,
                Ok(item) => item,
                Err(_) => None,
            },
        };
    }
}

async fn read<R: tokio::io::AsyncRead + Unpin>(
    node: NodeId,
    mut reader: FrameReader<R>,
    open: Arc<Mutex<Open>>,
    answers: Answers,
) {
    while let Ok(frames) = reader.frames().await {
        let mut outcomes = Vec::with_capacity(frames.len());
        {
            let mut open = lock(&open);
            open.heard = Instant::now();
            open.posted = None;
            for (header, message) in frames {
                if open.calls.remove(&header.id).is_some() {
                    let (call, result) = (header.id, Ok(Answered { node, header, message }));
                    outcomes.push(Outcome { call, result });
                }
            }
        }
        if answers.report(outcomes).is_err() {
            return;
        }
    }
}

fn fail(answers: &Answers, calls: Vec<u64>, sent: bool) {
    if !calls.is_empty() {
        let failed = |call| Outcome { call, result: Err(NoAnswer { sent }) };
        let failed = calls.into_iter().map(failed).collect();
        // An error means that the node is stopping, and then nobody waits for it.
        let _ = answers.report(failed);
    }
}

impl Answers {
    fn report(&self, outcomes: Vec<Outcome>) -> Result<(), Stopping> {
        match self.traffic {
            Traffic::Requests | Traffic::Published => self.inboxes.report(outcomes),
            Traffic::Bulk => self.inboxes.report_bulk(outcomes),
        }
    }
}

impl Item {
    fn call(&self) -> Option<u64> {
        match self {
            Self::Call { call, .. } => Some(*call),
            Self::Post { .. } | Self::Publish { .. } => None,
        }
    }
}

impl Open {
    /// Notes an item before it is sent, so that a call fails with the stream; its frame.
    fn note(&mut self, item: Item, now: Instant) -> (Vec<u8>, Option<[Room; 2]>) {
        let (frame, rooms) = match item {
            Item::Call { call, frame } => {
                self.calls.insert(call, now);
                return (frame, None);
            }
            Item::Post { frame } => (frame, None),
            Item::Publish { frame, rooms } => (frame, Some(rooms)),
        };
        self.posted.get_or_insert(now);
        (frame, rooms)
    }

    fn is_over(&self, now: Instant) -> bool {
        let waits = |sent: &Instant| *sent + SILENCE <= now;
        let silent =
            self.heard + SILENCE <= now && self.calls.values().chain(&self.posted).any(waits);
        let idle = self.calls.is_empty() && self.posted.is_none() && self.heard + IDLE <= now;
        silent || idle
    }
}

/// A panic while the lock was held left at worst a call too many in the map.
fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
