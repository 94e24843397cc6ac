//! Streams to other nodes: one per address, opened when there is something to ask.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annulus_net::Net;
use annulus_proto::codec::{self, Header};
use annulus_proto::message::{Caller, Hello, Message};
use annulus_proto::{Hlc, NodeId};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::WRITE_TIMEOUT;
use super::inboxes::Inboxes;
use super::stream::{FrameReader, Outbox, outbox};
use crate::core::{Answered, NoAnswer, Outcome};

/// A stream to another node, as who sends over it holds it.
pub(super) struct Link {
    items: mpsc::Sender<Item>,
}

/// Something to send.
enum Item {
    /// A question, whose outcome is reported.
    Call { call: u64, frame: Vec<u8> },
    /// A packet that nobody waits for. It is answered all the same, with id 0, so that a stream that
    /// no longer works is noticed.
    Post { frame: Vec<u8> },
}

/// Who opens links.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) cluster: String,
    pub(super) id: NodeId,
    pub(super) incarnation: u64,
}

/// Calls and packets that may wait for a stream to be opened.
const ITEMS_MAX: usize = 4_096;
/// Bytes that may wait to be written to one node.
const OUTBOX_BYTES: usize = 64 << 20;
/// How long opening a stream may take.
const OPEN_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long a link over which nothing goes stays open.
const IDLE: Duration = Duration::from_secs(60);
/// A link on which something has waited for its answer this long, with nothing heard meanwhile, is given up.
const SILENCE: Duration = Duration::from_secs(2);

impl Link {
    /// A link to `addr`, not opened yet. Its task ends with it.
    pub(super) fn new<N: Net>(
        net: N,
        addr: SocketAddr,
        identity: Identity,
        inboxes: Inboxes,
    ) -> Self {
        let (items, receiver) = mpsc::channel(ITEMS_MAX);
        tokio::spawn(run(net, addr, identity, receiver, inboxes));
        Self { items }
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
    inboxes: Inboxes,
) {
    // Something must be there to be sent before a stream is opened; a call fails with the stream.
    while let Ok(Some(first)) = tokio::time::timeout(IDLE, items.recv()).await {
        let opened = tokio::time::timeout(OPEN_TIMEOUT, open(&net, addr, &identity)).await;
        let Ok(Some((node, reader, writer))) = opened else {
            let failed = first.call().into_iter().chain(waiting(&mut items)).collect();
            fail(&inboxes, failed, false);
            continue;
        };
        let open = Open { calls: BTreeMap::new(), posted: None, heard: Instant::now() };
        let open = Arc::new(Mutex::new(open));
        let reading = tokio::spawn(read(node, reader, open.clone(), inboxes.clone()));
        write(first, &mut items, writer, &open, &reading).await;
        reading.abort();
        let failed: Vec<u64> = std::mem::take(&mut lock(&open).calls).into_keys().collect();
        fail(&inboxes, failed, true);
    }
    // The driver makes a new link when it needs one; what slipped in meanwhile has failed.
    items.close();
    fail(&inboxes, waiting(&mut items), false);
}

/// The calls that wait, taken out with all else.
fn waiting(items: &mut mpsc::Receiver<Item>) -> Vec<u64> {
    let items = std::iter::from_fn(|| items.try_recv().ok());
    items.filter_map(|item| item.call()).collect()
}

type Reader<N> = FrameReader<tokio::io::ReadHalf<<N as Net>::Stream>>;

async fn open<N: Net>(
    net: &N,
    addr: SocketAddr,
    identity: &Identity,
) -> Option<(NodeId, Reader<N>, Outbox)> {
    let stream = net.connect(addr).await.ok()?;
    let (read_half, write_half) = tokio::io::split(stream);
    let hello = Hello {
        cluster: identity.cluster.clone(),
        caller: Caller::Node { id: identity.id, incarnation: identity.incarnation },
        software: crate::SOFTWARE.to_owned(),
    };
    let mut frame = Vec::new();
    let header = Header { id: 0, view: 0, hlc: Hlc::ZERO };
    codec::encode_frame(header, &hello.into(), &mut frame).ok()?;
    let (outbox, outgoing) = outbox(OUTBOX_BYTES);
    tokio::spawn(outgoing.write_to(write_half, WRITE_TIMEOUT));
    outbox.push(frame);
    let mut reader = FrameReader::new(read_half);
    match reader.frame().await.ok()? {
        (_, Message::Welcome(welcome)) => Some((welcome.node, reader, outbox)),
        (_, Message::Rejected(rejected)) => {
            tracing::warn!(%addr, %rejected, "another node refuses this one");
            None
        }
        _ => None,
    }
}

async fn write(
    first: Item,
    items: &mut mpsc::Receiver<Item>,
    outbox: Outbox,
    open: &Mutex<Open>,
    reading: &tokio::task::JoinHandle<()>,
) {
    let mut next = Some(first);
    loop {
        let now = Instant::now();
        if let Some(item) = next.take() {
            let frame = lock(open).note(item, now);
            if !outbox.push(frame) {
                return;
            }
        }
        if reading.is_finished() || lock(open).is_over(now) {
            return;
        }
        next = match tokio::time::timeout(SILENCE / 2, items.recv()).await {
            Ok(None) => return,
            Ok(item) => item,
            Err(_) => None,
        };
    }
}

async fn read<R: tokio::io::AsyncRead + Unpin>(
    node: NodeId,
    mut reader: FrameReader<R>,
    open: Arc<Mutex<Open>>,
    inboxes: Inboxes,
) {
    while let Ok(frames) = reader.frames().await {
        let mut answers = Vec::with_capacity(frames.len());
        {
            let mut open = lock(&open);
            open.heard = Instant::now();
            open.posted = None;
            for (header, message) in frames {
                if open.calls.remove(&header.id).is_some() {
                    let (call, result) = (header.id, Ok(Answered { node, header, message }));
                    answers.push(Outcome { call, result });
                }
            }
        }
        if inboxes.report(answers).is_err() {
            return;
        }
    }
}

fn fail(inboxes: &Inboxes, calls: Vec<u64>, sent: bool) {
    if !calls.is_empty() {
        let failed = |call| Outcome { call, result: Err(NoAnswer { sent }) };
        let failed = calls.into_iter().map(failed).collect();
        // An error means that the node is stopping, and then nobody waits for it.
        let _ = inboxes.report(failed);
    }
}

impl Item {
    fn call(&self) -> Option<u64> {
        match self {
            Self::Call { call, .. } => Some(*call),
            Self::Post { .. } => None,
        }
    }
}

impl Open {
    /// Notes an item before it is sent, so that a call fails with the stream; its frame.
    fn note(&mut self, item: Item, now: Instant) -> Vec<u8> {
        match item {
            Item::Call { call, frame } => {
                self.calls.insert(call, now);
                frame
            }
            Item::Post { frame } => {
                self.posted.get_or_insert(now);
                frame
            }
        }
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
