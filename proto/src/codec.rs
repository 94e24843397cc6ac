//! The one place where messages become bytes and bytes become messages.
//!
//! A frame is a fixed header of 32 bytes and a payload in bincode 2's `standard()` configuration
//! (little-endian variable-length integers). All other integers are little-endian.
//!
//! ```text
//! byte  0  length of everything after this word, u32
//!       4  magic "AN"
//!       6  protocol version, u8
//!       7  kind, u8
//!       8  id, u64: a reply carries its request's
//!      16  digest of the sender's view, u64; 0 = it has none
//!      24  a node's wall clock as an instant, u64; from a client the greatest it was shown, or 0
//!      32  payload
//!       …  check, u32: the lower half of XXH3-64 of all bytes before it
//! ```
//!
//! In a datagram the cluster's name (length u8, then that many bytes) stands between header and
//! payload. The check is there because UDP's and TCP's own sums let through what should never reach
//! a session: a damaged version wins every merge. It protects from accidents, not from people.
//!
//! In a sealed envelope stands the frame without either: who sent it and that it is whole is known there
//! by other means ([`encode_inside`]).
//!
//! A length is checked against its kind's limit before the payload is read, and decoding
//! allocates in proportion to what has arrived, never to what a length field promises: bincode's
//! limit counts the memory a value claims, so it is chosen by the payload's size, from a ladder.

use std::cell::RefCell;

use bincode::config::{Configuration, standard};
use twox_hash::XxHash3_64;

use crate::limits::{DATAGRAM_BYTES_MAX, NAME_BYTES_MAX};
use crate::message::Message;
use crate::version::Hlc;

/// The version of the protocol that this build speaks.
pub const PROTOCOL_VERSION: u8 = 1;

/// The size of a frame's header, in bytes.
pub const HEADER_BYTES: usize = 32;

/// The size of what follows a frame's payload, in bytes.
pub const CHECK_BYTES: usize = 4;

/// What stands in a frame before its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Matches replies to requests; 0 = wants none.
    pub id: u64,
    /// The digest of the sender's view; 0 = it has none.
    pub view: u64,
    /// A node's wall clock, by which nodes find out whose is wrong; from a client the greatest
    /// instant it was shown, or zero.
    pub hlc: Hlc,
}

/// Bytes that are no frame of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There are fewer bytes than the frame says.
    #[error("cut short: {have} bytes of {need}")]
    CutShort {
        /// The bytes that are there.
        have: usize,
        /// The bytes that should be.
        need: usize,
    },
    /// More bytes follow than the frame says.
    #[error("{0} bytes follow the frame")]
    Trailing(usize),
    /// It does not begin as our frames do.
    #[error("not a frame of this protocol")]
    Magic,
    /// It begins as what is sealed does.
    #[error("sealed, and this node has no keyring: give it one, or call without a key")]
    Sealed,
    /// It is a frame of another version.
    #[error("protocol version {0}, this build speaks {PROTOCOL_VERSION}")]
    Version(u8),
    /// It was damaged on its way.
    #[error("damaged on its way: the check does not match")]
    Check,
    /// It is of no kind that we know.
    #[error("unknown kind {0}")]
    Kind(u8),
    /// It is longer than its kind may be.
    #[error("a payload of {size} bytes; kind {kind} has at most {limit}")]
    TooLong {
        /// The kind.
        kind: u8,
        /// The payload's size, in bytes.
        size: usize,
        /// The kind's limit, in bytes.
        limit: usize,
    },
    /// It is a datagram of another cluster.
    #[error("a datagram of another cluster")]
    Cluster,
    /// The payload is not what its kind says.
    #[error("kind {kind}: {why}")]
    Payload {
        /// The kind.
        kind: u8,
        /// What bincode said.
        why: String,
    },
}

/// A message that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} of {size} bytes does not fit the limit of {limit}")]
pub struct EncodeError {
    /// The message's name.
    pub name: &'static str,
    /// Its size, in bytes.
    pub size: usize,
    /// The limit, in bytes.
    pub limit: usize,
}

/// Appends a frame to `out`, which is left as it was on an error.
///
/// # Errors
/// [`EncodeError`] when the payload is above its kind's limit.
pub fn encode_frame(
    header: Header,
    message: &Message,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let limit = Message::limit(message.kind()).unwrap_or(0);
    encode(header, None, message, limit, out)
}

/// A frame of its own, which takes as much memory as it has bytes.
///
/// # Errors
/// As [`encode_frame`].
pub fn frame(header: Header, message: &Message) -> Result<Vec<u8>, EncodeError> {
    thread_local! {
        /// Where frames are written, so that none grows step by step.
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        encode_frame(header, message, scratch)?;
        let frame = scratch.as_slice().to_vec();
        scratch.shrink_to(SCRATCH_BYTES);
        Ok(frame)
    })
}

/// How much of the room for frames is kept after a large one.
const SCRATCH_BYTES: usize = 64 << 10;

/// Appends a datagram to `out`, which is left as it was on an error.
///
/// # Errors
/// [`EncodeError`] when the payload is above its kind's limit or does not fit a datagram.
pub fn encode_datagram(
    header: Header,
    cluster: &str,
    message: &Message,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let limit = Message::limit(message.kind()).unwrap_or(0).min(datagram_payload_max(cluster));
    encode(header, Some(cluster), message, limit, out)
}

/// Appends a frame as it stands in a sealed datagram, of `bytes_max` bytes at most. `out` is left as it
/// was on an error.
///
/// # Errors
/// [`EncodeError`] when the payload is above its kind's limit or does not fit.
pub fn encode_inside(
    header: Header,
    message: &Message,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let limit = Message::limit(message.kind()).unwrap_or(0);
    let limit = limit.min(bytes_max.saturating_sub(HEADER_BYTES));
    let start = out.len();
    encode_unchecked(header, None, message, limit, out)?;
    set_length(&mut out[start..], 0);
    Ok(())
}

/// Decodes exactly one frame out of a sealed datagram.
///
/// # Errors
/// [`DecodeError`]; whoever sealed it speaks another protocol, or is wrong.
pub fn decode_inside(frame: &[u8]) -> Result<(Header, Message), DecodeError> {
    let need = HEADER_BYTES;
    let cut_short = DecodeError::CutShort { have: frame.len(), need };
    let (length, kind) = check_start(frame.first_chunk().ok_or(cut_short.clone())?)?;
    if frame.len() > length {
        return Err(DecodeError::Trailing(frame.len() - length));
    }
    if frame.len() < length {
        return Err(DecodeError::CutShort { have: frame.len(), need: length });
    }
    let (header, payload) = frame.split_first_chunk::<HEADER_BYTES>().ok_or(cut_short)?;
    let limit = Message::limit(kind).ok_or(DecodeError::Kind(kind))?;
    if payload.len() > limit {
        return Err(DecodeError::TooLong { kind, size: payload.len(), limit });
    }
    Ok((read_header(header), decode_payload(kind, payload)?))
}

/// The most bytes a payload may have in a datagram of this cluster.
pub fn datagram_payload_max(cluster: &str) -> usize {
    DATAGRAM_BYTES_MAX - HEADER_BYTES - 1 - cluster.len().min(NAME_BYTES_MAX) - CHECK_BYTES
}

/// How long the frame is that begins with `bytes`: its whole length, or `None` while fewer than eight
/// bytes are there. Check it before making room for the frame.
///
/// # Errors
/// [`DecodeError`] when this is no frame that may follow.
pub fn frame_length(bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
    let Some(prefix) = bytes.first_chunk() else { return Ok(None) };
    let (length, kind) = check_prefix(prefix)?;
    let size = length - HEADER_BYTES - CHECK_BYTES;
    let limit = Message::limit(kind).ok_or(DecodeError::Kind(kind))?;
    if size > limit {
        return Err(DecodeError::TooLong { kind, size, limit });
    }
    Ok(Some(length))
}

/// Decodes exactly one frame.
///
/// # Errors
/// [`DecodeError`]; nothing is to be trusted of a stream after one.
pub fn decode_frame(frame: &[u8]) -> Result<(Header, Message), DecodeError> {
    let cut_short = DecodeError::CutShort { have: frame.len(), need: HEADER_BYTES + CHECK_BYTES };
    let length = frame_length(frame)?.ok_or(cut_short)?;
    let (header, payload) = open(frame, length)?;
    let kind = frame[KIND_AT];
    Ok((read_header(header), decode_payload(kind, payload)?))
}

/// Decodes a datagram of `cluster`.
///
/// # Errors
/// [`DecodeError`]; the datagram is to be dropped and counted.
pub fn decode_datagram(datagram: &[u8], cluster: &str) -> Result<(Header, Message), DecodeError> {
    let need = HEADER_BYTES + 1 + CHECK_BYTES;
    let cut_short = DecodeError::CutShort { have: datagram.len(), need };
    let prefix = datagram.first_chunk().ok_or(cut_short.clone())?;
    let (length, kind) = check_prefix(prefix)?;
    let (header, rest) = open(datagram, length)?;
    let (&name_length, rest) = rest.split_first().ok_or(cut_short.clone())?;
    let (name, payload) = rest.split_at_checked(name_length.into()).ok_or(cut_short)?;
    if name != cluster.as_bytes() {
        return Err(DecodeError::Cluster);
    }
    let limit = Message::limit(kind).ok_or(DecodeError::Kind(kind))?;
    let limit = limit.min(datagram_payload_max(cluster));
    if payload.len() > limit {
        return Err(DecodeError::TooLong { kind, size: payload.len(), limit });
    }
    Ok((read_header(header), decode_payload(kind, payload)?))
}

/// Encodes any of our types as payloads are, for stores and protocols of our own.
pub fn encode_value<T: bincode::Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, standard()).expect("a vector takes every value of our types")
}

/// Decodes what [`encode_value`] wrote, which must fill `bytes` to the end.
///
/// # Errors
/// What bincode says, as text.
pub fn decode_value<T: bincode::Decode<()>>(bytes: &[u8]) -> Result<T, String> {
    let decoded = with_memory_limit!(bytes.len(), |config| {
        bincode::decode_from_slice::<T, _>(bytes, config)
    });
    match decoded {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        Ok((_, read)) => Err(format!("{} bytes follow the value", bytes.len() - read)),
        Err(error) => Err(error.to_string()),
    }
}

const MAGIC: [u8; 2] = *b"AN";
/// What sealed datagrams and streams begin with. As a frame's length it would be beyond all limits.
const SEALED_MAGIC: [u8; 3] = *b"ANS";
const KIND_AT: usize = 7;

/// Length, magic, version and kind.
const PREFIX_BYTES: usize = KIND_AT + 1;

/// Calls `$body` with a configuration whose memory limit fits a payload of `$size` bytes: about
/// 32 times as much for small ones, whose vectors of small items take more in memory than on the
/// wire, 8 times for the largest.
macro_rules! with_memory_limit {
    ($size:expr, |$config:ident| $body:expr) => {{
        let config: Configuration = standard();
        match $size {
            0..=128 => {
                let $config = config.with_limit::<{ 4 << 10 }>();
                $body
            }
            129..=1024 => {
                let $config = config.with_limit::<{ 32 << 10 }>();
                $body
            }
            1025..=8192 => {
                let $config = config.with_limit::<{ 256 << 10 }>();
                $body
            }
            8193..=65536 => {
                let $config = config.with_limit::<{ 2 << 20 }>();
                $body
            }
            65537..=524_288 => {
                let $config = config.with_limit::<{ 8 << 20 }>();
                $body
            }
            _ => {
                let $config = config.with_limit::<{ 16 << 20 }>();
                $body
            }
        }
    }};
}
use with_memory_limit;

fn encode(
    header: Header,
    cluster: Option<&str>,
    message: &Message,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    encode_unchecked(header, cluster, message, limit, out)?;
    set_length(&mut out[start..], CHECK_BYTES);
    let check = check_of(&out[start..]);
    out.extend_from_slice(&check);
    Ok(())
}

/// Appends a frame without length and check.
fn encode_unchecked(
    header: Header,
    cluster: Option<&str>,
    message: &Message,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[PROTOCOL_VERSION, message.kind()]);
    out.extend_from_slice(&header.id.to_le_bytes());
    out.extend_from_slice(&header.view.to_le_bytes());
    out.extend_from_slice(&header.hlc.bits().to_le_bytes());
    if let Some(cluster) = cluster {
        let name = &cluster.as_bytes()[..cluster.len().min(NAME_BYTES_MAX)];
        out.push(name.len() as u8);
        out.extend_from_slice(name);
    }
    let payload_start = out.len();
    message.encode_payload(Appender(out)).expect("a vector takes every message");
    let size = out.len() - payload_start;
    if size > limit {
        out.truncate(start);
        return Err(EncodeError { name: message.name(), size, limit });
    }
    Ok(())
}

/// Writes the length of a frame that so many bytes follow.
fn set_length(frame: &mut [u8], following: usize) {
    let length = (frame.len() + following - 4) as u32;
    frame[..4].copy_from_slice(&length.to_le_bytes());
}

/// What follows these bytes in a well-formed frame. Public for fuzzers and tests only.
#[doc(hidden)]
pub fn check_of(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    (XxHash3_64::oneshot(bytes) as u32).to_le_bytes()
}

fn decode_payload(kind: u8, payload: &[u8]) -> Result<Message, DecodeError> {
    let decoded = with_memory_limit!(payload.len(), |config| {
        Message::decode_payload(kind, payload, config)
    });
    match decoded {
        None => Err(DecodeError::Kind(kind)),
        Some(Ok((message, read))) if read == payload.len() => Ok(message),
        Some(Ok((_, read))) => {
            let why = format!("{} bytes follow the payload", payload.len() - read);
            Err(DecodeError::Payload { kind, why })
        }
        Some(Err(error)) => Err(DecodeError::Payload { kind, why: error.to_string() }),
    }
}

/// The frame's whole length, at least [`HEADER_BYTES`] and [`CHECK_BYTES`], and its kind. These eight
/// bytes mean the same in all versions of the protocol.
fn check_prefix(prefix: &[u8; PREFIX_BYTES]) -> Result<(usize, u8), DecodeError> {
    let (length, kind) = check_start(prefix)?;
    if length < HEADER_BYTES + CHECK_BYTES {
        let need = HEADER_BYTES + CHECK_BYTES;
        return Err(DecodeError::CutShort { have: length, need });
    }
    Ok((length, kind))
}

/// The same, whatever the length says.
fn check_start(prefix: &[u8; PREFIX_BYTES]) -> Result<(usize, u8), DecodeError> {
    let [a, b, c, d, magic @ .., version, kind] = *prefix;
    if [a, b, c] == SEALED_MAGIC {
        return Err(DecodeError::Sealed);
    }
    if magic != MAGIC {
        return Err(DecodeError::Magic);
    }
    if version != PROTOCOL_VERSION {
        return Err(DecodeError::Version(version));
    }
    Ok((u32::from_le_bytes([a, b, c, d]) as usize + 4, kind))
}

/// Splits a frame of this length into its header and what stands between that and the check.
fn open(frame: &[u8], length: usize) -> Result<(&[u8; HEADER_BYTES], &[u8]), DecodeError> {
    if frame.len() > length {
        return Err(DecodeError::Trailing(frame.len() - length));
    }
    let cut_short = DecodeError::CutShort { have: frame.len(), need: length };
    if frame.len() < length {
        return Err(cut_short);
    }
    let (checked, check) = frame.split_last_chunk::<CHECK_BYTES>().ok_or(cut_short.clone())?;
    if check_of(checked) != *check {
        return Err(DecodeError::Check);
    }
    checked.split_first_chunk::<HEADER_BYTES>().ok_or(cut_short)
}

fn read_header(header: &[u8; HEADER_BYTES]) -> Header {
    let hlc = Hlc::from_bits(u64_at(header, 24));
    Header { id: u64_at(header, 8), view: u64_at(header, 16), hlc }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes are eight bytes"))
}

struct Appender<'a>(&'a mut Vec<u8>);

impl bincode::enc::write::Writer for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
