//! What nodes tell each other of the epochs of slots: whose majority decides, and who is to follow.

use bincode::de::{BorrowDecoder, Decoder};
use bincode::error::DecodeError;
use bincode::{BorrowDecode, Decode, Encode};

use crate::slot_set::SlotSet;
use crate::version::{NodeId, Version};

/// Which epoch of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct EpochName {
    /// Who founded the slot, and when.
    pub lineage: Version,
    /// Its place in the lineage, from 1.
    pub number: u64,
}

/// An epoch: whose majority decides, and where these have the slot from.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
pub struct EpochConfig {
    /// Which one it is.
    pub name: EpochName,
    /// Its homes, the primary first.
    pub homes: Vec<NodeId>,
    /// The epochs that ended in this one.
    pub sources: Vec<EpochSource>,
    /// Epochs of other lineages that ended in this one or before it, in ascending order.
    pub absorbed: Vec<EpochName>,
}

/// An epoch that ended in another one.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
pub struct EpochSource {
    /// Which one.
    pub name: EpochName,
    /// Its homes.
    pub homes: Vec<NodeId>,
    /// Those that an operator has given up for lost, if one has.
    pub written_off: Option<Vec<NodeId>>,
}

/// What the homes of an epoch decide once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[repr(u8)]
pub enum EpochSuccessor {
    /// The next epoch.
    Next(Box<EpochConfig>) = 0,
    /// The lineage ends, to be absorbed by another one, of which this epoch was seen.
    Ended(EpochName) = 1,
}

/// A ballot about an epoch's successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct EpochBallot {
    /// Counts up.
    pub round: u64,
    /// The proposer.
    pub node: NodeId,
}

/// What a node is to an epoch. The numbers are on the wire and on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[repr(u8)]
pub enum EpochStanding {
    /// No home of it.
    Outside = 0,
    /// A home that lacks something.
    Fresh = 1,
    /// A home that has everything.
    Ready = 2,
    /// A home that had everything, and lost it.
    Lost = 3,
    /// A home that lost what it had before it had everything.
    Blank = 4,
    /// It left, and dropped what it had against receipts.
    HandedOver = 5,
}

/// Asks or tells something of the epochs of slots.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
pub struct Epochs {
    /// The table.
    pub table: String,
    /// What of which slots; each slot is in one set at most.
    pub steps: Vec<(SlotSet, EpochStep)>,
}

/// The answer to [`Epochs`]. A slot of which there is nothing to say is in none of the sets.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
pub struct EpochsAnswer {
    /// What of which slots.
    pub answers: Vec<(SlotSet, EpochAnswer)>,
}

/// What is asked or told of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[repr(u8)]
pub enum EpochStep {
    /// This is the epoch that I know, if any; and you?
    Meet(Option<EpochName>) = 0,
    /// Follow this epoch.
    Learn(Box<EpochConfig>) = 1,
    /// What are you to this epoch? I am to compare with you.
    Testify(EpochName) = 2,
    /// Promise a ballot about the successor of an epoch.
    Prepare {
        /// The epoch.
        under: EpochName,
        /// The ballot.
        ballot: EpochBallot,
    } = 3,
    /// Accept a successor.
    Accept {
        /// The epoch that it follows.
        under: EpochName,
        /// The ballot.
        ballot: EpochBallot,
        /// The successor.
        successor: EpochSuccessor,
    } = 4,
    /// Absorb a lineage that has ended with this epoch.
    Absorb {
        /// Its last epoch.
        ended: Box<EpochConfig>,
        /// Into which it ended.
        into: EpochName,
    } = 5,
}

/// What is answered of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[repr(u8)]
pub enum EpochAnswer {
    /// It is as you say, or done.
    Agrees = 0,
    /// This is the epoch that I know, if any, and not the one you named.
    Knows(Option<Box<EpochConfig>>) = 1,
    /// What I am to the epoch.
    Testimony {
        /// The epoch.
        under: EpochName,
        /// As its home.
        here: EpochStanding,
        /// In one of its sources, by place.
        before: Option<(u8, EpochStanding)>,
        /// The greatest ballot of a conditional operation that I promised for the slot.
        floor: Version,
    } = 2,
    /// The ballot is promised.
    Promise {
        /// The epoch.
        under: EpochName,
        /// The ballot.
        ballot: EpochBallot,
        /// What was accepted before, with its ballot.
        accepted: Option<Box<(EpochBallot, EpochSuccessor)>>,
    } = 3,
    /// The successor is accepted.
    Accepted {
        /// The epoch.
        under: EpochName,
        /// The ballot.
        ballot: EpochBallot,
    } = 4,
    /// Another ballot was promised, which is greater.
    Outbid(EpochBallot) = 5,
    /// Not by this node, or not now.
    Refused = 6,
}

/// Decodes a list one by one: room for what has arrived, and not for what a count promises.
fn decode_list<T: Decode<C>, C, D: Decoder<Context = C>>(
    decoder: &mut D,
) -> Result<Vec<T>, DecodeError> {
    let count: u64 = Decode::decode(decoder)?;
    let mut list = Vec::new();
    for _ in 0..count {
        list.push(Decode::decode(decoder)?);
    }
    Ok(list)
}

impl<C> Decode<C> for EpochConfig {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Self {
            name: Decode::decode(decoder)?,
            homes: decode_list(decoder)?,
            sources: decode_list(decoder)?,
            absorbed: decode_list(decoder)?,
        })
    }
}

impl<C> Decode<C> for EpochSource {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let (name, homes) = (Decode::decode(decoder)?, decode_list(decoder)?);
        let written_off = match Decode::decode(decoder)? {
            true => Some(decode_list(decoder)?),
            false => None,
        };
        Ok(Self { name, homes, written_off })
    }
}

impl<C> Decode<C> for Epochs {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Self { table: Decode::decode(decoder)?, steps: decode_list(decoder)? })
    }
}

impl<C> Decode<C> for EpochsAnswer {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Self { answers: decode_list(decoder)? })
    }
}

macro_rules! borrow_as_owned {
    ($($type:ty)+) => {
        $(impl<'de, C> BorrowDecode<'de, C> for $type {
            fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, DecodeError> {
                Self::decode(decoder)
            }
        })+
    };
}

borrow_as_owned! { EpochConfig EpochSource Epochs EpochsAnswer }
