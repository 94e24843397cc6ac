//! What a packet of the mesh looks like.
//!
//! ```text
//! byte 0  kind, u8
//!      1  digest of the sender's view, u64, little-endian
//!      9  body
//!
//! kind 1  Swim      a packet of foca, in the encoding of `SwimCodec`
//!      2  Announce  the sender's own record: tell me who you are and whom you know
//!      3  Facts     up to 8 records that the receiver should know
//!      4  Claim     the sender's own record, a nonce, and whether this is an answer: sent to
//!                   whoever else bears the sender's id, to see whether it lives
//!      5  Doubt     the sender, a suspect, its refutations so far: do you reach it?
//!      6  Vouch     the same the other way round: it answered, with so many refutations
//! ```
//! Bodies are bincode 2 `standard()`, as everywhere. The envelope (cluster, protocol version) is
//! the driver's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use annulus_proto::Member;
use annulus_proto::codec::{decode_value, encode_value};
use bincode::config::{Configuration, Limit, standard};
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};
use bytes::{Buf, BufMut};
use foca::{Header, Message, State};

use super::peer::Peer;

/// The bytes before the body.
pub(super) const FRAME_BYTES: usize = 9;

/// Most records in one packet of facts.
pub(super) const FACTS_MAX: usize = 8;

/// The digest of the view that a packet's sender had, as it says; `None` if it is no packet of a mesh.
pub fn view_of(packet: &[u8]) -> Option<u64> {
    packet.get(1..)?.first_chunk().copied().map(u64::from_le_bytes)
}

/// One packet, taken apart.
pub(super) enum Frame<'a> {
    Swim(&'a [u8]),
    Announce(Member),
    Facts(Vec<Member>),
    Claim(Claim),
    Doubt(Doubt),
    Vouch(Doubt),
}

/// "This id is mine. Is it yours too?"
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Claim {
    pub(super) member: Member,
    pub(super) nonce: u64,
    pub(super) answer: bool,
}

/// What one member says to another about a third.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Doubt {
    /// Who says it.
    pub(super) from: Peer,
    pub(super) suspect: Peer,
    /// foca's incarnation of the suspect.
    pub(super) incarnation: u16,
}

const SWIM: u8 = 1;
const ANNOUNCE: u8 = 2;
const FACTS: u8 = 3;
const CLAIM: u8 = 4;
const DOUBT: u8 = 5;
const VOUCH: u8 = 6;

impl<'a> Frame<'a> {
    /// The sender's digest and what it says; `None` for what is not well formed.
    pub(super) fn decode(packet: &'a [u8]) -> Option<(u64, Self)> {
        let (&kind, rest) = packet.split_first()?;
        let (digest, body) = rest.split_first_chunk::<8>()?;
        let frame = match kind {
            SWIM => Self::Swim(body),
            ANNOUNCE => Self::Announce(decode_value(body).ok()?),
            FACTS => {
                let facts: Vec<Member> = decode_value(body).ok()?;
                (facts.len() <= FACTS_MAX).then_some(Self::Facts(facts))?
            }
            CLAIM => Self::Claim(decode_value(body).ok()?),
            DOUBT => Self::Doubt(decode_value(body).ok()?),
            VOUCH => Self::Vouch(decode_value(body).ok()?),
            _ => return None,
        };
        Some((u64::from_le_bytes(*digest), frame))
    }
}

pub(super) fn swim(digest: u64, body: &[u8]) -> Vec<u8> {
    frame(SWIM, digest, body)
}

pub(super) fn announce(digest: u64, me: &Member) -> Vec<u8> {
    frame(ANNOUNCE, digest, &encode_value(me))
}

/// Only a packet's worth: the caller sends [`FACTS_MAX`] at most, few enough to fit.
pub(super) fn facts(digest: u64, members: &[&Member]) -> Vec<u8> {
    debug_assert!(members.len() <= FACTS_MAX);
    frame(FACTS, digest, &encode_value(&members))
}

pub(super) fn claim(digest: u64, claim: &Claim) -> Vec<u8> {
    frame(CLAIM, digest, &encode_value(claim))
}

pub(super) fn doubt(digest: u64, doubt: &Doubt) -> Vec<u8> {
    frame(DOUBT, digest, &encode_value(doubt))
}

pub(super) fn vouch(digest: u64, vouch: &Doubt) -> Vec<u8> {
    frame(VOUCH, digest, &encode_value(vouch))
}

fn frame(kind: u8, digest: u64, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(FRAME_BYTES + body.len());
    packet.push(kind);
    packet.extend_from_slice(&digest.to_le_bytes());
    packet.extend_from_slice(body);
    packet
}

/// foca's codec over bincode 2. Takes no more memory than a few peers need, whatever the bytes say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SwimCodec;

/// Why foca's bytes could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodecError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("{0} is no message or state of this protocol")]
    Unknown(u8),
    #[error("no room")]
    Full,
    #[error("an incarnation of {0} is beyond belief")]
    Incarnation(u64),
}

/// The highest incarnation that is believed. foca keeps its codec and its handler to itself, so that
/// it is shared with them; one thread uses all three.
#[derive(Clone, Debug, Default)]
pub(super) struct Bound(Arc<AtomicU64>);

impl Bound {
    pub(super) fn move_to(&self, incarnation_max: u64) {
        self.0.store(incarnation_max, Ordering::Relaxed);
    }

    pub(super) fn allows(&self, incarnation: u64) -> bool {
        incarnation <= self.0.load(Ordering::Relaxed)
    }
}

/// [`SwimCodec`] that reads nothing of members with unbelievable incarnations: what foca has taken in
/// it spreads.
#[derive(Clone, Debug)]
pub(super) struct BoundedCodec(pub(super) Bound);

impl foca::Codec<Peer> for BoundedCodec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Peer>, buf: impl BufMut) -> Result<(), CodecError> {
        SwimCodec.encode_header(header, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Peer>, CodecError> {
        SwimCodec.decode_header(buf)
    }

    fn encode_member(
        &mut self,
        member: &foca::Member<Peer>,
        buf: impl BufMut,
    ) -> Result<(), CodecError> {
        SwimCodec.encode_member(member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<foca::Member<Peer>, CodecError> {
        let member = SwimCodec.decode_member(buf)?;
        let incarnation = member.id().incarnation;
        if self.0.allows(incarnation) {
            Ok(member)
        } else {
            Err(CodecError::Incarnation(incarnation))
        }
    }
}

/// From, its refutations, to, kind, probe number, and the third party of indirect probes.
type WireHeader = (Peer, u16, Peer, u8, u8, Option<Peer>);

type WireMember = (Peer, u16, u8);

const CONFIG: Configuration<bincode::config::LittleEndian, bincode::config::Varint, Limit<512>> =
    standard().with_limit::<512>();

impl foca::Codec<Peer> for SwimCodec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Peer>, buf: impl BufMut) -> Result<(), CodecError> {
        let (kind, number, third) = match header.message {
            Message::Ping(number) => (1, number, None),
            Message::Ack(number) => (2, number, None),
            Message::PingReq { target, probe_number } => (3, probe_number, Some(target)),
            Message::IndirectPing { origin, probe_number } => (4, probe_number, Some(origin)),
            Message::IndirectAck { target, probe_number } => (5, probe_number, Some(target)),
            Message::ForwardedAck { origin, probe_number } => (6, probe_number, Some(origin)),
            Message::Announce => (7, 0, None),
            Message::Feed => (8, 0, None),
            Message::Gossip => (9, 0, None),
            Message::Broadcast => (10, 0, None),
            Message::TurnUndead => (11, 0, None),
        };
        let header: WireHeader =
            (header.src, header.src_incarnation, header.dst, kind, number, third);
        put(&header, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Peer>, CodecError> {
        let (src, src_incarnation, dst, kind, probe_number, third): WireHeader = take(buf)?;
        let third = || third.ok_or(CodecError::Unknown(kind));
        let message = match kind {
            1 => Message::Ping(probe_number),
            2 => Message::Ack(probe_number),
            3 => Message::PingReq { target: third()?, probe_number },
            4 => Message::IndirectPing { origin: third()?, probe_number },
            5 => Message::IndirectAck { target: third()?, probe_number },
            6 => Message::ForwardedAck { origin: third()?, probe_number },
            7 => Message::Announce,
            8 => Message::Feed,
            9 => Message::Gossip,
            10 => Message::Broadcast,
            11 => Message::TurnUndead,
            other => return Err(CodecError::Unknown(other)),
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(
        &mut self,
        member: &foca::Member<Peer>,
        buf: impl BufMut,
    ) -> Result<(), CodecError> {
        let state = match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        };
        let member: WireMember = (*member.id(), member.incarnation(), state);
        put(&member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<foca::Member<Peer>, CodecError> {
        let (peer, incarnation, state): WireMember = take(buf)?;
        let state = match state {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            other => return Err(CodecError::Unknown(other)),
        };
        Ok(foca::Member::new(peer, incarnation, state))
    }
}

fn put<T: Encode>(value: &T, mut buf: impl BufMut) -> Result<(), CodecError> {
    let mut bytes = [0; 128];
    let size = bincode::encode_into_slice(value, &mut bytes, CONFIG)?;
    if buf.remaining_mut() < size {
        return Err(CodecError::Full);
    }
    buf.put_slice(&bytes[..size]);
    Ok(())
}

fn take<T: Decode<()>>(mut buf: impl Buf) -> Result<T, CodecError> {
    let (value, read) = bincode::decode_from_slice(buf.chunk(), CONFIG)?;
    buf.advance(read);
    Ok(value)
}

#[cfg(test)]
mod tests;
