//! Frames over a stream: reading them in batches, writing them from a bounded queue.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use annulus_proto::codec::{self, DecodeError, HEADER_BYTES, Header};
use annulus_proto::message::Message;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Reads frames.
pub(super) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    frame_bytes_max: usize,
}

/// Why no more frames come.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The other side closed the stream, or it broke.
    Closed,
    /// What came is no frame.
    Malformed(DecodeError),
}

/// How much is read at a time, at least.
const READ_BYTES: usize = 16 << 10;
/// A buffer that grew beyond this for a large frame is given back afterwards.
const BUFFER_KEPT_BYTES: usize = 64 << 10;
/// Where a frame's kind stands.
const KIND_AT: usize = 7;

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new(), frame_bytes_max: usize::MAX }
    }

    /// What it reads from, to write to it.
    pub(super) fn stream(&mut self) -> &mut R {
        &mut self.stream
    }

    /// Takes no frames longer than this from now on, whatever their kind.
    pub(super) fn limit(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// Waits for at least one frame and returns all that have arrived whole. May be dropped at any
    /// time: nothing that was read is lost.
    pub(super) async fn frames(&mut self) -> Result<Vec<(Header, Message)>, ReadError> {
        loop {
            let mut frames = Vec::new();
            while let Some(frame) = self.take_frame().map_err(ReadError::Malformed)? {
                frames.push(frame);
            }
            if !frames.is_empty() {
                return Ok(frames);
            }
            self.fill().await?;
        }
    }

    /// Waits for one frame, and leaves what follows it for later.
    pub(super) async fn frame(&mut self) -> Result<(Header, Message), ReadError> {
        loop {
            if let Some(frame) = self.take_frame().map_err(ReadError::Malformed)? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    fn take_frame(&mut self) -> Result<Option<(Header, Message)>, DecodeError> {
        // Whoever speaks another protocol is told so at once, and not after 32 bytes.
        let Some(length) = codec::frame_length(&self.buffer)? else { return Ok(None) };
        if length > self.frame_bytes_max {
            let (size, limit) = (length, self.frame_bytes_max);
            return Err(DecodeError::TooLong { kind: self.buffer[KIND_AT], size, limit });
        }
        if self.buffer.len() < length {
            // Room grows with what has arrived, and not by what is announced.
            let room = self.buffer.len().max(READ_BYTES);
            self.buffer.reserve(room.min(length - self.buffer.len()));
            return Ok(None);
        }
        let frame = codec::decode_frame(&self.buffer[..length])?;
        self.buffer.advance(length);
        if self.buffer.is_empty() && self.buffer.capacity() > BUFFER_KEPT_BYTES {
            self.buffer = BytesMut::new();
        }
        Ok(Some(frame))
    }

    async fn fill(&mut self) -> Result<(), ReadError> {
        self.buffer.reserve(READ_BYTES.max(HEADER_BYTES));
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => Err(ReadError::Closed),
            Ok(_) => Ok(()),
        }
    }
}

/// Room among a bounded number of bytes, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    taken: Arc<AtomicUsize>,
    bytes: usize,
}

impl Room {
    pub(super) fn take(taken: &Arc<AtomicUsize>, bytes: usize, bytes_max: usize) -> Option<Self> {
        let room = Self { taken: taken.clone(), bytes };
        (taken.fetch_add(bytes, Ordering::Relaxed) + bytes <= bytes_max).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A frame in a queue, with the room that it has taken elsewhere.
struct Queued {
    frame: Vec<u8>,
    _rooms: Option<[Room; 2]>,
}

/// The sending end of a stream's queue, bounded in bytes.
#[derive(Clone)]
pub(super) struct Outbox {
    frames: mpsc::UnboundedSender<Queued>,
    queued: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// What a queued frame costs beside its bytes.
const FRAME_OVERHEAD_BYTES: usize = 64;

impl Outbox {
    /// Queues a frame; `false` if the stream is gone, or its reader is so slow that the queue is full.
    pub(super) fn push(&self, frame: Vec<u8>) -> bool {
        self.push_with(frame, None)
    }

    /// The same of a frame that has taken room elsewhere: it keeps that until it is written.
    pub(super) fn push_with(&self, frame: Vec<u8>, rooms: Option<[Room; 2]>) -> bool {
        let size = frame.len() + FRAME_OVERHEAD_BYTES;
        if self.queued.fetch_add(size, Ordering::Relaxed) + size > self.bytes_max {
            return false;
        }
        self.frames.send(Queued { frame, _rooms: rooms }).is_ok()
    }
}

/// The receiving end of a stream's queue.
pub(super) struct Outgoing {
    frames: mpsc::UnboundedReceiver<Queued>,
    queued: Arc<AtomicUsize>,
}

/// A queue for a stream that holds at most `bytes_max` bytes.
pub(super) fn outbox(bytes_max: usize) -> (Outbox, Outgoing) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let queued = Arc::new(AtomicUsize::new(0));
    let outbox = Outbox { frames: sender, queued: queued.clone(), bytes_max };
    (outbox, Outgoing { frames: receiver, queued })
}

/// Up to this many bytes are written with one call.
const WRITE_BYTES: usize = 256 << 10;

impl Outgoing {
    /// Writes what is queued until the queue's senders are gone or the stream breaks. One write may
    /// take `timeout`: a stream whose other side reads nothing is given up.
    pub(super) async fn write_to<W: AsyncWrite + Unpin>(
        mut self,
        mut stream: W,
        timeout: Duration,
    ) -> io::Result<()> {
        while let Some(first) = self.frames.recv().await {
            let Queued { frame: mut batch, _rooms: rooms } = first;
            let mut freed = batch.len() + FRAME_OVERHEAD_BYTES;
            let mut rooms: Vec<_> = rooms.into_iter().collect();
            while batch.len() < WRITE_BYTES {
                let Ok(Queued { frame, _rooms: taken }) = self.frames.try_recv() else { break };
                freed += frame.len() + FRAME_OVERHEAD_BYTES;
                rooms.extend(taken);
                batch.extend_from_slice(&frame);
            }
            let written = async {
                stream.write_all(&batch).await?;
                stream.flush().await
            };
            tokio::time::timeout(timeout, written).await??;
            drop(rooms);
            self.queued.fetch_sub(freed, Ordering::Relaxed);
        }
        stream.shutdown().await
    }
}
