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
    calls: mpsc::Sender<(u64, Vec<u8>)>,
}

/// Who opens links.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) cluster: String,
    pub(super) id: NodeId,
    pub(super) incarnation: u64,
}

/// Calls that may wait for a stream to be opened.
const CALLS_MAX: usize = 4_096;
/// Bytes that may wait to be written to one node.
const OUTBOX_BYTES: usize = 64 << 20;
/// How long opening a stream may take.
const OPEN_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long a link without calls stays open.
const IDLE: Duration = Duration::from_secs(60);
/// A link on which a call has waited this long, with nothing heard meanwhile, is given up.
const SILENCE: Duration = Duration::from_secs(2);

impl Link {
    /// A link to `addr`, not opened yet. Its task ends with it.
    pub(super) fn new<N: Net>(
        net: N,
        addr: SocketAddr,
        identity: Identity,
        inboxes: Inboxes,
    ) -> Self {
        let (calls, receiver) = mpsc::channel(CALLS_MAX);
        tokio::spawn(run(net, addr, identity, receiver, inboxes));
        Self { calls }
    }

    /// Whether its task has ended.
    pub(super) fn is_over(&self) -> bool {
        self.calls.is_closed()
    }

    /// Sends a call's frame; `false` if the link cannot take it: its end is gone, or too many wait.
    pub(super) fn send(&self, call: u64, frame: Vec<u8>) -> bool {
        self.calls.try_send((call, frame)).is_ok()
    }
}

/// The calls sent and not answered, each with when it was sent, and when something was last heard.
struct Open {
    calls: BTreeMap<u64, Instant>,
    heard: Instant,
}

async fn run<N: Net>(
    net: N,
    addr: SocketAddr,
    identity: Identity,
    mut calls: mpsc::Receiver<(u64, Vec<u8>)>,
    inboxes: Inboxes,
) {
    // One call must be there before a stream is opened; it fails with the stream.
    while let Ok(Some(first)) = tokio::time::timeout(IDLE, calls.recv()).await {
        let opened = tokio::time::timeout(OPEN_TIMEOUT, open(&net, addr, &identity)).await;
        let Ok(Some((node, reader, writer))) = opened else {
            let mut failed = vec![first.0];
            while let Ok((call, _)) = calls.try_recv() {
                failed.push(call);
            }
            fail(&inboxes, failed, false);
            continue;
        };
        let open = Arc::new(Mutex::new(Open { calls: BTreeMap::new(), heard: Instant::now() }));
        let reading = tokio::spawn(read(node, reader, open.clone(), inboxes.clone()));
        write(first, &mut calls, writer, &open, &reading).await;
        reading.abort();
        let failed: Vec<u64> = std::mem::take(&mut lock(&open).calls).into_keys().collect();
        fail(&inboxes, failed, true);
    }
    // The driver makes a new link when it needs one; what slipped in meanwhile has failed.
    calls.close();
    let mut failed = Vec::new();
    while let Ok((call, _)) = calls.try_recv() {
        failed.push(call);
    }
    fail(&inboxes, failed, false);
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
    first: (u64, Vec<u8>),
    calls: &mut mpsc::Receiver<(u64, Vec<u8>)>,
    outbox: Outbox,
    open: &Mutex<Open>,
    reading: &tokio::task::JoinHandle<()>,
) {
    let mut next = Some(first);
    loop {
        let now = Instant::now();
        if let Some((call, frame)) = next.take() {
            // Noted before it is sent, so that it fails with the stream.
            lock(open).calls.insert(call, now);
            if !outbox.push(frame) {
                return;
            }
        }
        if reading.is_finished() || lock(open).is_over(now) {
            return;
        }
        next = match tokio::time::timeout(SILENCE / 2, calls.recv()).await {
            Ok(None) => return,
            Ok(call) => call,
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

impl Open {
    fn is_over(&self, now: Instant) -> bool {
        let waits = |sent: &Instant| *sent + SILENCE <= now;
        let silent = self.heard + SILENCE <= now && self.calls.values().any(waits);
        let idle = self.calls.is_empty() && self.heard + IDLE <= now;
        silent || idle
    }
}

/// A panic while the lock was held left at worst a call too many in the map.
fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
