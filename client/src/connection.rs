//! One stream to one node: the handshake, then many requests at once, answered in any order.
//!
//! A task of its own writes what callers hand it and gives the answers out by the id in their
//! frames. What waits to be written is bounded in bytes; what was received is bounded by the limits
//! of the message kinds. A stream on which nothing came back by a request's deadline, and for a
//! quarter of a second at least, is given up: neither turmoil's TCP after a partition nor a real one
//! behind a silent firewall ever recovers.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annulus_proto::codec::{self, DecodeError, Header};
use annulus_proto::message::{Hello, Message, Rejected, Welcome};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::counters::Tally;

/// A frame that came as the answer to a request.
pub(crate) type Answer = (Header, Message);

/// A stream past its handshake. The stream closes when the last clone of the link is gone.
#[derive(Debug)]
pub(crate) struct Link {
    /// What the node said of itself.
    pub(crate) peer: Welcome,
    /// Where it is, for messages.
    pub(crate) at: String,
    shared: Arc<Shared>,
    outbound: mpsc::UnboundedSender<Vec<u8>>,
}

/// Why a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was closed or broke, by what the system says.
    Closed(String),
    /// The node does not serve us.
    Rejected(Rejected),
    /// What came was no frame.
    Garbage(String),
    /// Nothing came back in time.
    Silent,
}

/// Why a request over a stream or in datagrams has no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// It was never sent.
    NotSent(End),
    /// It may have arrived.
    Lost(End),
}

impl Link {
    /// Shakes hands over `stream`, and leaves it to a task that serves it from then on.
    pub(crate) async fn open<S>(
        stream: S,
        at: String,
        header: Header,
        hello: Hello,
        tally: Arc<Tally>,
    ) -> Result<Arc<Self>, End>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut stream = stream;
        let mut frame = Vec::new();
        codec::encode_frame(header, &Message::Hello(hello), &mut frame)
            .map_err(|error| End::Garbage(error.to_string()))?;
        stream.write_all(&frame).await.map_err(closed)?;
        stream.flush().await.map_err(closed)?;
        let mut frames = Frames::default();
        let peer = match frames.next(&mut stream).await? {
            (_, Message::Welcome(welcome)) => welcome,
            (_, Message::Rejected(reason)) => return Err(End::Rejected(reason)),
            (_, other) => return Err(End::Garbage(format!("{} instead of Welcome", other.name()))),
        };
        let (outbound, queue) = mpsc::unbounded_channel();
        let (ended, _) = watch::channel(false);
        let (waiting, heard) = (BTreeMap::new(), Instant::now());
        let state = State { end: None, waiting, heard, doubted: None };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            ended,
            give_up: Notify::new(),
            room: Semaphore::new(QUEUE_BYTES_MAX),
            tally,
        });
        shared.tally.streams_opened.add_one();
        tokio::spawn(serve(stream, frames, queue, shared.clone()));
        Ok(Arc::new(Self { peer, at, shared, outbound }))
    }

    /// Sends a request frame that carries `id`, and waits for its answer until `deadline`. May be
    /// dropped at any point; the answer is then ignored.
    pub(crate) async fn call(
        &self,
        id: u64,
        frame: Vec<u8>,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let shared = &self.shared;
        let bytes = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let asked = Instant::now();
        match timeout_at(deadline, shared.room.acquire_many(bytes)).await {
            Ok(Ok(permit)) => permit.forget(),
            Ok(Err(_)) => return Err(CallError::NotSent(shared.end())),
            Err(_) => {
                shared.doubt(asked);
                return Err(CallError::NotSent(End::Silent));
            }
        }
        let answer = shared.expect(id).map_err(CallError::NotSent)?;
        let _forget = Forget { shared, id };
        if self.outbound.send(frame).is_err() {
            return Err(CallError::NotSent(shared.end()));
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(CallError::Lost(shared.end())),
            Err(_) => {
                shared.doubt(asked);
                Err(CallError::Lost(End::Silent))
            }
        }
    }

    /// Whether the stream has ended.
    pub(crate) fn is_closed(&self) -> bool {
        *self.shared.ended.borrow()
    }

    /// Waits until the stream has ended.
    pub(crate) async fn closed(&self) {
        let mut ended = self.shared.ended.subscribe();
        // An error means that the sender is gone; it lives as long as we do.
        let _ = ended.wait_for(|&ended| ended).await;
    }

    /// When anything was heard last.
    pub(crate) fn heard(&self) -> Instant {
        self.shared.lock().heard
    }
}

/// The most bytes that wait to be written to one stream; who comes after waits for its turn.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// Frames are gathered up to about this size before they are written.
const BATCH_BYTES: usize = 64 << 10;

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    ended: watch::Sender<bool>,
    give_up: Notify,
    room: Semaphore,
    tally: Arc<Tally>,
}

#[derive(Debug)]
struct State {
    end: Option<End>,
    waiting: BTreeMap<u64, oneshot::Sender<Answer>>,
    heard: Instant,
    /// When the first call was sent since then that got no answer in its time.
    doubted: Option<Instant>,
}

/// For how long nothing is heard of a node that was asked before its stream is given up. Calls may have less time:
/// that the answer to one takes longer says nothing about the others.
const SILENCE: Duration = Duration::from_millis(250);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and each change is complete by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(&self, id: u64) -> Result<oneshot::Receiver<Answer>, End> {
        let mut state = self.lock();
        if let Some(end) = &state.end {
            return Err(end.clone());
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.insert(id, sender);
        Ok(receiver)
    }

    fn deliver(&self, answer: Answer) {
        let waiting = {
            let mut state = self.lock();
            (state.heard, state.doubted) = (Instant::now(), None);
            state.waiting.remove(&answer.0.id)
        };
        // Nobody waits any more for what comes late.
        if waiting.is_none_or(|waiting| waiting.send(answer).is_err()) {
            self.tally.unmatched.add_one();
        }
    }

    /// A call that was sent then got no answer in its time.
    fn doubt(&self, asked: Instant) {
        let mut state = self.lock();
        if state.heard > asked {
            return;
        }
        let doubted = *state.doubted.get_or_insert(asked);
        if doubted.min(asked).elapsed() >= SILENCE {
            self.give_up.notify_one();
        }
    }

    fn end(&self) -> End {
        self.lock().end.clone().unwrap_or(End::Silent)
    }

    fn finish(&self, end: End) {
        let waiting = {
            let mut state = self.lock();
            state.end = Some(end);
            std::mem::take(&mut state.waiting)
        };
        self.room.close();
        self.ended.send_replace(true);
        self.tally.streams_lost.add_one();
        drop(waiting);
    }
}

/// Takes a request off the list when its caller stops waiting, however it does.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.lock().waiting.remove(&self.id);
    }
}

async fn serve<S>(
    stream: S,
    mut frames: Frames,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    shared: Arc<Shared>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let read = async {
        loop {
            match frames.next(&mut reader).await {
                // With an id it answers one request; without, it ends the conversation.
                Ok((header, Message::Rejected(reason))) if header.id == 0 => {
                    return End::Rejected(reason);
                }
                Ok(answer) => shared.deliver(answer),
                Err(end) => return end,
            }
        }
    };
    let write = async {
        let mut batch = Vec::new();
        while let Some(frame) = queue.recv().await {
            batch = frame;
            while batch.len() < BATCH_BYTES {
                match queue.try_recv() {
                    Ok(next) => batch.extend_from_slice(&next),
                    Err(_) => break,
                }
            }
            let written = async {
                writer.write_all(&batch).await?;
                writer.flush().await
            };
            if let Err(error) = written.await {
                return closed(error);
            }
            shared.room.add_permits(batch.len());
        }
        drop(batch);
        End::Closed("no longer needed".to_owned())
    };
    let end = tokio::select! {
        biased;
        end = read => end,
        () = shared.give_up.notified() => End::Silent,
        end = write => end,
    };
    shared.finish(end);
}

/// Cuts what arrives into frames.
#[derive(Debug, Default)]
struct Frames {
    buffer: Vec<u8>,
    taken: usize,
}

impl Frames {
    /// The next frame. May be dropped at any point: what has arrived is kept.
    async fn next<R: AsyncRead + Unpin>(&mut self, stream: &mut R) -> Result<Answer, End> {
        loop {
            let arrived = &self.buffer[self.taken..];
            if let Some(length) = codec::frame_length(arrived).map_err(garbage)?
                && let Some(frame) = arrived.get(..length)
            {
                let answer = codec::decode_frame(frame).map_err(garbage)?;
                self.taken += length;
                return Ok(answer);
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BYTES_MAX {
                self.buffer = Vec::new();
            }
            // Room grows with what has arrived, not with what a header promises.
            self.buffer.reserve(READ_BYTES);
            if stream.read_buf(&mut self.buffer).await.map_err(closed)? == 0 {
                return Err(End::Closed("the node closed the stream".to_owned()));
            }
        }
    }
}

const READ_BYTES: usize = 16 << 10;
const KEPT_BYTES_MAX: usize = 256 << 10;

fn closed(error: io::Error) -> End {
    End::Closed(error.to_string())
}

fn garbage(error: DecodeError) -> End {
    End::Garbage(error.to_string())
}

impl End {
    /// In words, for lists of what was tried.
    pub(crate) fn why(&self) -> String {
        match self {
            Self::Closed(why) | Self::Garbage(why) => why.clone(),
            Self::Rejected(reason) => reason.to_string(),
            Self::Silent => "no answer in time".to_owned(),
        }
    }
}

impl CallError {
    pub(crate) fn end(&self) -> &End {
        match self {
            Self::NotSent(end) | Self::Lost(end) => end,
        }
    }
}
