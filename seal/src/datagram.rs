//! Sealed datagrams: layout, limits, and who may send what.
//!
//! ```text
//! byte  0  magic "ANS"
//!       3  version, u8
//!       4  shape, u8
//!       5  id of the key, 4 bytes
//!       9  sender, u64: a node's id, or a client's number
//!      17  the sender's epoch: milliseconds u48, 6 random bytes
//!      29  counter, u48
//!      35  of a question only, the cookie: issued at u48, code of 16 bytes; zeros = none
//!       …  what is sealed
//!       …  tag, 16 bytes
//! ```
//!
//! All integers are little-endian. The cipher is ChaCha20-Poly1305 (RFC 8439) under a key derived
//! from the ring's key and its id, the cluster's name, the sender, whether that is a node, and its
//! epoch; the nonce is the counter. Everything before the sealed part is authenticated with it, and so is, in
//! what a node says to a client, the client's number and epoch: an answer is good for nobody else.
//!
//! A client's question is carried out only with a *cookie*, by which the node knows that the client
//! gets what is sent to its address, and that the question was asked of this node since its start.
//! Without one, a [`Shape::Challenge`] brings it, which is no longer than the shortest question. So
//! no stranger has a node send more than was sent to it, and no recorded question is carried out
//! twice. Gossip has no cookies: a receiver that does not know its sender yet, or not any more, takes
//! a recorded packet once.

mod client;
mod cookie;
mod node;
mod sealer;
mod senders;
mod window;

use annulus_proto::limits::DATAGRAM_BYTES_MAX;

use crate::key::KeyId;

pub use client::{ClientDatagrams, FromNode};
pub use cookie::{COOKIE_LIFETIME_MS, Cookie};
pub use node::{FromOutside, NodeReceiver, NodeSender};
pub use sealer::Exhausted;

/// The largest sealed datagram, in bytes: what an Ethernet frame carries after IPv6 and UDP
/// headers.
pub const SEALED_BYTES_MAX: usize = 1_452;

/// The largest frame in a datagram between nodes and in an answer, in bytes.
pub const INSIDE_BYTES_MAX: usize = DATAGRAM_BYTES_MAX;

/// The largest frame in a question, in bytes: the cookie takes its room.
pub const QUESTION_INSIDE_BYTES_MAX: usize =
    SEALED_BYTES_MAX - HEADER_BYTES - Cookie::BYTES - TAG_BYTES;

/// What every sealed datagram and stream begins with.
pub const MAGIC: [u8; 3] = *b"ANS";

/// The version of the sealed envelope that this build speaks.
pub const SEAL_VERSION: u8 = 1;

const HEADER_BYTES: usize = 35;
const TAG_BYTES: usize = 16;
/// Who a node's word to a client is for: number and epoch.
const RECIPIENT_BYTES: usize = 8 + Epoch::BYTES;
const CHALLENGE_BYTES: usize = HEADER_BYTES + Cookie::BYTES + TAG_BYTES;
const QUESTION_BYTES_MIN: usize = HEADER_BYTES + Cookie::BYTES + TAG_BYTES;

const _: () = assert!(HEADER_BYTES + INSIDE_BYTES_MAX + TAG_BYTES <= SEALED_BYTES_MAX);
const _: () = assert!(QUESTION_INSIDE_BYTES_MAX <= INSIDE_BYTES_MAX);
// 1500 less the headers of IPv6 and UDP.
const _: () = assert!(SEALED_BYTES_MAX <= 1_500 - 40 - 8);
// Who has proven nothing is not answered with more than came.
const _: () = assert!(CHALLENGE_BYTES <= QUESTION_BYTES_MIN);

/// What a datagram is for, and so who may send it, and under whose keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Shape {
    /// A node to another one, under a key of nodes.
    Gossip = 0,
    /// A client to a node, under a key of clients.
    Question = 1,
    /// A node to a client whose question had no good cookie: this is one.
    Challenge = 2,
    /// A node to a client: the answer.
    Answer = 3,
}

/// One life of a sender: no two have the same, whatever became of disk and clock. Only where a
/// running process is copied with its memory, as with a cloned virtual machine, do two go on in one.
///
/// They are ordered by time, then by the random part. Within a sender's number the later one
/// counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch {
    ms: u64,
    random: [u8; 6],
}

impl Epoch {
    const BYTES: usize = 12;

    /// The epoch that begins at `ms`, at most 2^48 - 1: a clock, or whatever else grows
    /// from one life to the next. `random` tells apart what began at the same time.
    pub fn new(ms: u64, random: [u8; 6]) -> Self {
        Self { ms: ms.min(U48_MAX), random }
    }

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..6].copy_from_slice(&u48(self.ms));
        bytes[6..].copy_from_slice(&self.random);
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, random @ ..] = *bytes;
        Self { ms: from_u48([a, b, c, d, e, f]), random }
    }
}

/// A client as a node answers it: under which key, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recipient {
    /// The key that it asked under.
    pub key: KeyId,
    /// Its number.
    pub client: u64,
    /// Its epoch.
    pub epoch: Epoch,
}

/// Why a datagram is dropped without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It does not begin as sealed datagrams of this version do: plain, damaged, or somebody
    /// else's.
    #[error("no sealed datagram")]
    Foreign,
    /// It is for another kind of receiver, or under a key that may not say this.
    #[error("a datagram that its key or its receiver does not allow")]
    OutOfPlace,
    /// Its key is not in the ring.
    #[error("sealed with an unknown key, {0}")]
    UnknownKey(KeyId),
    /// Whoever sealed it has another key, or means another cluster, or it was changed on its way.
    #[error("the tag does not match: another cluster, or changed on its way")]
    BadTag,
    /// It was taken before.
    #[error("it was taken before")]
    Replayed,
    /// It is from an earlier life of its sender, or so late that nobody can tell.
    #[error("too old")]
    TooOld,
    /// It is our own.
    #[error("sent by this very node")]
    Reflected,
}

impl Refused {
    /// The counter for it.
    pub fn counter(self) -> &'static str {
        match self {
            Self::Foreign => "sealed_foreign",
            Self::OutOfPlace => "sealed_out_of_place",
            Self::UnknownKey(_) => "sealed_with_unknown_key",
            Self::BadTag => "sealed_with_bad_tag",
            Self::Replayed => "sealed_replayed",
            Self::TooOld => "sealed_too_old",
            Self::Reflected => "sealed_reflected",
        }
    }
}

/// Who sends: nodes and clients draw their numbers apart from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Side {
    Node = 0,
    Client = 1,
}

/// What stands before the sealed part, but for the cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    shape: Shape,
    key: KeyId,
    sender: u64,
    epoch: Epoch,
    counter: u64,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..3].copy_from_slice(&MAGIC);
        bytes[3] = SEAL_VERSION;
        bytes[4] = self.shape as u8;
        bytes[5..9].copy_from_slice(&self.key.to_bytes());
        bytes[9..17].copy_from_slice(&self.sender.to_le_bytes());
        bytes[17..29].copy_from_slice(&self.epoch.to_bytes());
        bytes[29..35].copy_from_slice(&u48(self.counter));
        bytes
    }

    fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let part = |at: usize| &bytes[at..];
        if bytes[..3] != MAGIC || bytes[3] != SEAL_VERSION {
            return None;
        }
        let shape = match bytes[4] {
            0 => Shape::Gossip,
            1 => Shape::Question,
            2 => Shape::Challenge,
            3 => Shape::Answer,
            _ => return None,
        };
        Some(Self {
            shape,
            key: KeyId::from_bytes(*part(5).first_chunk()?),
            sender: u64::from_le_bytes(*part(9).first_chunk()?),
            epoch: Epoch::from_bytes(part(17).first_chunk()?),
            counter: from_u48(*part(29).first_chunk()?),
        })
    }
}

/// A datagram in its parts, none of which is to be believed.
#[derive(Clone, Copy, Debug)]
struct Parsed<'a> {
    header: Header,
    /// Of a question only.
    cookie: Option<Cookie>,
    /// Header and cookie as they came.
    clear: &'a [u8],
    sealed: &'a [u8],
    tag: &'a [u8; TAG_BYTES],
}

impl<'a> Parsed<'a> {
    fn of(datagram: &'a [u8]) -> Result<Self, Refused> {
        if datagram.len() > SEALED_BYTES_MAX {
            return Err(Refused::Foreign);
        }
        let header = datagram.first_chunk().and_then(Header::from_bytes).ok_or(Refused::Foreign)?;
        let (mut clear_bytes, mut cookie) = (HEADER_BYTES, None);
        if header.shape == Shape::Question {
            let bytes = datagram[HEADER_BYTES..].first_chunk().ok_or(Refused::Foreign)?;
            cookie = Some(Cookie::from_bytes(bytes));
            clear_bytes += Cookie::BYTES;
        }
        let (clear, rest) = datagram.split_at(clear_bytes);
        let (sealed, tag) = rest.split_last_chunk().ok_or(Refused::Foreign)?;
        Ok(Self { header, cookie, clear, sealed, tag })
    }
}

/// The parts that are authenticated and do not travel, or only in clear.
fn associated(clear: &[u8], recipient: Option<(u64, Epoch)>) -> ([u8; ASSOCIATED_MAX], usize) {
    let mut bytes = [0; ASSOCIATED_MAX];
    let mut length = clear.len();
    bytes[..length].copy_from_slice(clear);
    if let Some((client, epoch)) = recipient {
        bytes[length..length + 8].copy_from_slice(&client.to_le_bytes());
        bytes[length + 8..length + RECIPIENT_BYTES].copy_from_slice(&epoch.to_bytes());
        length += RECIPIENT_BYTES;
    }
    (bytes, length)
}

const ASSOCIATED_MAX: usize = HEADER_BYTES + Cookie::BYTES + RECIPIENT_BYTES;

const U48_MAX: u64 = (1 << 48) - 1;

fn u48(number: u64) -> [u8; 6] {
    *number.to_le_bytes().first_chunk().expect("eight bytes are more than six")
}

fn from_u48([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

#[cfg(test)]
mod tests;
