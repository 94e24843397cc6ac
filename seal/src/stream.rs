//! Sealed streams: a Noise handshake, then records in order.
//!
//! ```text
//! caller    magic "ANS", version u8, id of the key 4 bytes, Noise message 48 bytes
//! answer    magic "ANS", version u8, Noise message 48 bytes
//! record    length of what follows u16, then sealed bytes and their tag, 16 bytes
//! ```
//!
//! The handshake is `Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s` (noiseprotocol.org, revision 34): fresh
//! Diffie-Hellman keys on both sides, so that a key that leaks later opens no recorded stream, and
//! a secret derived from the ring's key, its id and the cluster's name, so that nobody else gets past
//! the first message: whoever repeats a recorded one is answered, and can make nothing of it. The prologue is the caller's first eight bytes, the cluster's name and the key's
//! kind.
//!
//! A record holds up to 65519 bytes; an empty one closes its direction. A stream that ends without
//! it was cut off, and reading it is an error. Whoever calls without a key that counts gets no
//! answer.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use snow::TransportState;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::datagram::{MAGIC, SEAL_VERSION};
use crate::key::{Key, KeyId};
use crate::keyring::Keyring;

mod handshake;
mod wire;

use handshake::Handshake;
pub use wire::Wire;

/// A stream between two who have proven to each other that they have the same key.
///
/// What is written may wait here until it is flushed; after [`AsyncWrite::poll_shutdown`] the other
/// side knows that this was all. Up to 64 KiB wait in each direction, and nothing while nothing is
/// under way.
pub struct SealedStream<S> {
    inner: S,
    noise: TransportState,
    reading: Reading,
    writing: Writing,
}

/// Why a call did not get through the handshake. Who is called says nothing to strangers, so the
/// caller has to name what is likely.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The stream broke.
    #[error("the stream broke during the sealed handshake: {0}")]
    Io(#[from] io::Error),
    /// It was closed without a word.
    #[error(
        "closed during the sealed handshake: the node does not accept key {0}, or belongs to another \
         cluster, or has as many connections as it takes; compare the key with `annulus keys list` \
         there, and `cluster` on both sides"
    )]
    Closed(KeyId),
    /// Whoever answers speaks in clear.
    #[error("the node there has no keyring, and this side has a key: give it one, or call without")]
    Plain,
    /// Whoever answers speaks another version of the envelope.
    #[error(
        "the node there seals streams by version {0}, this side by {SEAL_VERSION}; upgrade the \
         older one"
    )]
    Version(u8),
    /// Whoever answers does not have the key.
    #[error("whoever answers there does not have key {0}, or belongs to another cluster")]
    NotAuthentic(KeyId),
}

/// Why a caller was not let in. It is told nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// The stream broke, or the caller left.
    #[error("the caller left, or the stream broke: {0}")]
    Io(#[from] io::Error),
    /// It does not begin as sealed streams do.
    #[error("no sealed stream: a caller without a key, or none of ours")]
    Foreign,
    /// It speaks another version of the envelope.
    #[error("the caller seals streams by version {0}, this side by {SEAL_VERSION}")]
    Version(u8),
    /// Its key is not in the ring.
    #[error("the caller's key {0} is not in the keyring")]
    UnknownKey(KeyId),
    /// It names a key that it does not have, or means another cluster.
    #[error("the caller does not have key {0}, or means another cluster")]
    NotAuthentic(KeyId),
}

impl AnswerError {
    /// The counter for it.
    pub fn counter(&self) -> &'static str {
        match self {
            Self::Io(_) => "streams_without_hello",
            Self::Foreign => "streams_not_sealed",
            Self::Version(_) => "streams_of_other_versions",
            Self::UnknownKey(_) => "streams_with_unknown_key",
            Self::NotAuthentic(_) => "streams_not_authentic",
        }
    }
}

/// The most bytes that are sealed in one record.
pub const RECORD_BYTES_MAX: usize = u16::MAX as usize - TAG_BYTES;

const TAG_BYTES: usize = 16;
const LENGTH_BYTES: usize = 2;
/// How much of a record is read at a time, at least.
const READ_BYTES: usize = 16 << 10;
/// Buffers that grew beyond this are given back when they are empty.
const KEPT_BYTES: usize = 16 << 10;

impl<S: AsyncRead + AsyncWrite + Unpin> SealedStream<S> {
    /// Calls over a stream that nothing was written to. `ephemeral` has to be drawn anew for each
    /// call, from a source that nobody can guess. Set a deadline: the other side may say nothing
    /// for ever.
    ///
    /// # Errors
    /// [`CallError`]; the stream is of no use then.
    pub async fn call(
        mut inner: S,
        key: &Key,
        cluster: &str,
        ephemeral: &[u8; 32],
    ) -> Result<Self, CallError> {
        let id = key.id();
        let prefix = prefix(id);
        let mut handshake = Handshake::caller(key, cluster, &prefix, ephemeral);
        let mut first = prefix.to_vec();
        first.extend_from_slice(&handshake.write());
        inner.write_all(&first).await?;
        inner.flush().await?;
        let mut answer = [0; ANSWER_BYTES];
        let mut filled = 0;
        while filled < ANSWER_BYTES {
            let read = inner.read(&mut answer[filled..]).await;
            let read = match read {
                Ok(read) => read,
                // Who closes with our bytes unread resets the stream: that is no other news.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
                Err(error) => return Err(error.into()),
            };
            filled += read;
            if answer[..filled.min(MAGIC.len())] != MAGIC[..filled.min(MAGIC.len())] {
                return Err(CallError::Plain);
            }
            if read == 0 {
                return Err(CallError::Closed(id));
            }
            if let Some(version) = answer[..filled].get(MAGIC.len())
                && *version != SEAL_VERSION
            {
                return Err(CallError::Version(*version));
            }
        }
        let message = answer.last_chunk().expect("it ends with the message");
        handshake.read(message).map_err(|_| CallError::NotAuthentic(id))?;
        Ok(Self::new(inner, handshake.finish()))
    }

    /// Answers a call, and tells which key it came under. `ephemeral` as in [`SealedStream::call`];
    /// set a deadline.
    ///
    /// # Errors
    /// [`AnswerError`]: close the stream without a word.
    pub async fn answer(
        mut inner: S,
        keyring: &Keyring,
        cluster: &str,
        ephemeral: &[u8; 32],
    ) -> Result<(Self, Arc<Key>), AnswerError> {
        let mut prefix = [0; PREFIX_BYTES];
        inner.read_exact(&mut prefix[..=MAGIC.len()]).await?;
        if prefix[..MAGIC.len()] != MAGIC {
            return Err(AnswerError::Foreign);
        }
        if prefix[MAGIC.len()] != SEAL_VERSION {
            return Err(AnswerError::Version(prefix[MAGIC.len()]));
        }
        inner.read_exact(&mut prefix[MAGIC.len() + 1..]).await?;
        let id = KeyId::from_bytes(*prefix.last_chunk().expect("it ends with the key's id"));
        let key = keyring.get(id).ok_or(AnswerError::UnknownKey(id))?.clone();
        let mut message = [0; handshake::MESSAGE_BYTES];
        inner.read_exact(&mut message).await?;
        let mut handshake = Handshake::answerer(&key, cluster, &prefix, ephemeral);
        handshake.read(&message).map_err(|_| AnswerError::NotAuthentic(id))?;
        let mut answer = prefix[..=MAGIC.len()].to_vec();
        answer.extend_from_slice(&handshake.write());
        inner.write_all(&answer).await?;
        inner.flush().await?;
        Ok((Self::new(inner, handshake.finish()), key))
    }

    /// The stream below, for whoever is done with the sealed one. What waits in either direction is
    /// lost.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn new(inner: S, noise: TransportState) -> Self {
        Self { inner, noise, reading: Reading::default(), writing: Writing::default() }
    }
}

const PREFIX_BYTES: usize = MAGIC.len() + 1 + KeyId::BYTES;
const ANSWER_BYTES: usize = MAGIC.len() + 1 + handshake::MESSAGE_BYTES;

fn prefix(id: KeyId) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..MAGIC.len()].copy_from_slice(&MAGIC);
    prefix[MAGIC.len()] = SEAL_VERSION;
    prefix[MAGIC.len() + 1..].copy_from_slice(&id.to_bytes());
    prefix
}

/// The receiving direction.
#[derive(Default)]
struct Reading {
    /// The record that is arriving, its length first.
    arrived: Vec<u8>,
    /// What was opened, and how much of it was taken.
    opened: Vec<u8>,
    taken: usize,
    state: ReadState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ReadState {
    #[default]
    Open,
    /// The other side said that this was all.
    Closed,
    /// What came was not sealed by the other side, or not in this order, or it was cut off.
    Broken(io::ErrorKind),
}

/// The sending direction.
#[derive(Default)]
struct Writing {
    /// Sealed records, and how much of them was written.
    sealed: Vec<u8>,
    written: usize,
    is_closing: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for SealedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let reading = &mut this.reading;
            let left = &reading.opened[reading.taken..];
            if !left.is_empty() {
                let count = left.len().min(buf.remaining());
                buf.put_slice(&left[..count]);
                reading.taken += count;
                if reading.taken == reading.opened.len() {
                    reading.taken = 0;
                    reset(&mut reading.opened);
                }
                return Poll::Ready(Ok(()));
            }
            match reading.state {
                ReadState::Open => {}
                ReadState::Closed => return Poll::Ready(Ok(())),
                ReadState::Broken(kind) => return Poll::Ready(Err(kind.into())),
            }
            ready!(reading.poll_record(cx, &mut this.inner, &mut this.noise))?;
        }
    }
}

impl<S> fmt::Debug for SealedStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What travels is nobody's business.
        f.debug_struct("SealedStream").field("state", &self.reading.state).finish_non_exhaustive()
    }
}

impl Reading {
    /// Waits for a whole record, and opens it.
    fn poll_record<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        inner: &mut S,
        noise: &mut TransportState,
    ) -> Poll<io::Result<()>> {
        loop {
            let need = match self.arrived.first_chunk::<LENGTH_BYTES>() {
                None => LENGTH_BYTES,
                Some(length) => LENGTH_BYTES + usize::from(u16::from_le_bytes(*length)),
            };
            let have = self.arrived.len();
            if have == need && need > LENGTH_BYTES {
                break;
            }
            if have >= LENGTH_BYTES && need < LENGTH_BYTES + TAG_BYTES {
                return Poll::Ready(self.break_off(
                    io::ErrorKind::InvalidData,
                    "a record too short to be sealed: damaged, or not from the other side",
                ));
            }
            // Room grows with what has arrived, and not by what is announced.
            let room = (need - have).min(READ_BYTES.max(have));
            self.arrived.resize(have + room, 0);
            let mut buf = ReadBuf::new(&mut self.arrived[have..]);
            let polled = Pin::new(&mut *inner).poll_read(cx, &mut buf);
            let count = buf.filled().len();
            self.arrived.truncate(have + count);
            match ready!(polled) {
                Ok(()) if count > 0 => {}
                Ok(()) => {
                    return Poll::Ready(self.break_off(
                        io::ErrorKind::UnexpectedEof,
                        "the sealed stream was cut off: the other side died, or somebody cut it",
                    ));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let sealed = &self.arrived[LENGTH_BYTES..];
        self.opened.resize(sealed.len() - TAG_BYTES, 0);
        let opened = noise.read_message(sealed, &mut self.opened);
        match opened {
            Ok(0) => self.state = ReadState::Closed,
            Ok(_) => {}
            Err(_) => {
                self.opened = Vec::new();
                return Poll::Ready(self.break_off(
                    io::ErrorKind::InvalidData,
                    "a record's tag does not match: changed on its way, or not from the other side",
                ));
            }
        }
        reset(&mut self.arrived);
        Poll::Ready(Ok(()))
    }

    fn break_off(&mut self, kind: io::ErrorKind, why: &'static str) -> io::Result<()> {
        self.state = ReadState::Broken(kind);
        self.arrived = Vec::new();
        Err(io::Error::new(kind, why))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SealedStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.writing.is_closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // A record at a time waits, so that memory is bounded and whoever writes is held up.
        ready!(this.writing.poll_drain(cx, &mut this.inner))?;
        let count = bytes.len().min(RECORD_BYTES_MAX);
        this.writing.seal(&bytes[..count], &mut this.noise)?;
        // As much as goes now. An error comes back with the next call: these bytes were taken.
        let _ = this.writing.poll_drain(cx, &mut this.inner);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.writing.poll_drain(cx, &mut this.inner))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.writing.is_closing {
            ready!(this.writing.poll_drain(cx, &mut this.inner))?;
            this.writing.seal(&[], &mut this.noise)?;
            this.writing.is_closing = true;
        }
        ready!(this.writing.poll_drain(cx, &mut this.inner))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

impl Writing {
    fn seal(&mut self, bytes: &[u8], noise: &mut TransportState) -> io::Result<()> {
        let length = bytes.len() + TAG_BYTES;
        let announced = u16::try_from(length).expect("a record is at most 65535 bytes");
        let start = self.sealed.len() + LENGTH_BYTES;
        self.sealed.extend_from_slice(&announced.to_le_bytes());
        self.sealed.resize(start + length, 0);
        // It fails after 2^64 records.
        let written = noise.write_message(bytes, &mut self.sealed[start..]);
        written.map(drop).map_err(io::Error::other)
    }

    fn poll_drain<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        inner: &mut S,
    ) -> Poll<io::Result<()>> {
        while self.written < self.sealed.len() {
            let count = ready!(Pin::new(&mut *inner).poll_write(cx, &self.sealed[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.written = 0;
        reset(&mut self.sealed);
        Poll::Ready(Ok(()))
    }
}

/// Empties a buffer, and gives it back if it grew large.
fn reset(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(KEPT_BYTES);
}

#[cfg(test)]
mod tests;
