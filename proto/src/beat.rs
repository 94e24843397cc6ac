//! What changed at a home, for nodes that keep near copies of what it holds.

use bincode::{Decode, Encode};

use crate::slot_set::SlotSet;

/// Asks a home what changed in slots of which the asking node keeps near copies.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BeatRequest {
    /// The table.
    pub table: String,
    /// Where the last answer ended; `None` = begin here.
    pub after: Option<BeatPlace>,
    /// The slots, which are all of one core of the receiver.
    pub slots: SlotSet,
    /// How often near copies of these slots were read since it last asked, as far as is known: by the words of the keys.
    pub uses: Vec<(u64, u32)>,
}

impl BeatRequest {
    /// Of the most sessions it tells how often they were read.
    pub const USES_MAX: usize = 256;
}

/// A place in what a core of a home has seen change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct BeatPlace {
    /// The home's run: its incarnation.
    pub run: u64,
    /// How many changes are before it.
    pub number: u64,
}

/// The answer to a [`BeatRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Beat {
    /// How many cores the receiver has: what goes to one of them must be of its slots.
    pub cores: u16,
    /// Where it ends: what changes from now on comes after it.
    pub place: BeatPlace,
    /// Whether no change since the place that was asked for is missing.
    pub is_whole: bool,
    /// What was written, ended, or moved to another ring since: the words of the keys, and what stands for what became of
    /// each, its *gist*, the XXH3-64 of its record in shared memory, 0 of what is gone. The last change of each key alone.
    pub changed: Vec<(u64, u64)>,
    /// The slots that the receiver does not vouch for.
    pub unsure: SlotSet,
}

impl Beat {
    /// The most changes in one answer.
    pub const CHANGES_MAX: usize = 16_384;
}
