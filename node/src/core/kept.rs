//! What cores keep on disk beside their sessions: small records, each of one slot of one table.
//!
//! To keep something is an effect like sending: [`Output::Persist`](super::Output::Persist) says what is to
//! change, and [`Input::Persisted`](super::Input::Persisted) that it is on disk. What a core asked for is
//! done in that order, each batch whole or not at all, and what several cores ask for at the same time costs
//! one write of the disk. What was kept comes back with the next start, to whichever core has the slot then.

use annulus_proto::Slot;

/// What a record is about. The numbers are on disk and never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Space {
    /// Writes that a home has not got: hints.
    Hints = 1,
    /// What the node is to the epochs of slots, and what it promised; and which segment its copies are in.
    Epochs = 2,
}

impl Space {
    /// The one with this number.
    pub fn of_number(number: u8) -> Option<Self> {
        [Self::Hints, Self::Epochs].into_iter().find(|space| *space as u8 == number)
    }
}

/// The name of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordName {
    /// What it is about.
    pub space: Space,
    /// The table, by its place in the settings.
    pub table: usize,
    /// The slot, which decides what core it is for.
    pub slot: Slot,
    /// What tells it from the slot's others; at most [`RECORD_REST_BYTES_MAX`].
    pub rest: Vec<u8>,
}

/// A record that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub name: RecordName,
    /// What it says.
    pub value: Vec<u8>,
}

/// A record that is to be kept, in place of the one of this name, or to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordChange {
    /// Its name.
    pub name: RecordName,
    /// What it says; `None`: it goes.
    pub value: Option<Vec<u8>>,
}

/// The longest [`RecordName::rest`], in bytes: a node's id and a key have room.
pub const RECORD_REST_BYTES_MAX: usize = 512;
/// The longest value of a record, in bytes: two epochs have room, the one that is known and the one that was
/// accepted.
pub const RECORD_VALUE_BYTES_MAX: usize = 40 << 10;
