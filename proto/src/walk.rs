//! All keys of a table, page by page, in an order that is the same on every node.

use bincode::{Decode, Encode};

use crate::entry::Kind;
use crate::key::{Key, Slot};

/// Asks for the keys of live sessions, on all rings, from a place on. For all roles but the monitor's, which is not to see keys.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WalkRequest {
    /// The table.
    pub table: String,
    /// Where to begin: a [`Key::place`], or 0.
    pub from: u64,
    /// How many keys at most, as far as no two are at the same place: 1 to
    /// [`PAGE_ENTRIES_MAX`](crate::limits::PAGE_ENTRIES_MAX).
    pub limit: u16,
    /// Whether all members are asked, or the node alone that this is sent to. Clients may ask for the former.
    pub is_whole: bool,
}

/// The answer to a [`WalkRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Walked {
    /// The keys, in the order of their places: all that are from `from` on and before `next`.
    pub keys: Vec<WalkedKey>,
    /// Where the next page begins; `None` = this was the last.
    pub next: Option<u64>,
    /// How many members did not answer.
    pub silent: u16,
    /// How many homes hold what was acknowledged, on the ring where these are fewest. Fewer members than that may be silent, if
    /// no key is to be missed.
    pub write_homes: u8,
}

/// The key of a session that was found alive.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WalkedKey {
    /// The key.
    pub key: Key,
    /// What kind of value it has.
    pub kind: Kind,
    /// How many nodes more would have to hold it, for it to be certain that it did not end before: 0 where a majority of the
    /// homes of its ring does.
    pub lacking: u8,
}

impl Key {
    /// Where this key is among all keys: by its slot, and within it by a hash. It is below 2⁵³, so that it survives as a
    /// number of JavaScript.
    pub fn place(&self) -> u64 {
        self.slot().place_of(self.as_bytes())
    }
}

impl Slot {
    /// Where one of this slot's keys is: see [`Key::place`].
    pub fn place_of(self, key: &[u8]) -> u64 {
        self.word(key) >> WORD_BITS_LEFT_OUT
    }

    /// The place at which this slot begins.
    pub fn first_place(self) -> u64 {
        u64::from(self.index()) << PLACE_HASH_BITS
    }

    /// The slot that a place is in; `None` of one behind all keys.
    pub fn of_place(place: u64) -> Option<Self> {
        Self::new(u16::try_from(place >> PLACE_HASH_BITS).ok()?)
    }
}

/// Of a word's 61 bits, so many are no part of a place.
const WORD_BITS_LEFT_OUT: u32 = 8;
/// The bits of a place that are of the hash.
const PLACE_HASH_BITS: u32 = 39;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_in_its_slot_and_no_larger_than_what_javascript_counts_to() {
        for text in ["a", "foo", "{user1000}.following", "x{a}", "y{a}"] {
            let key = Key::new(text).expect("a key");
            let place = key.place();
            assert_eq!(Slot::of_place(place), Some(key.slot()));
            assert!(place >= key.slot().first_place() && place < 1 << 53);
        }
        let last = Slot::new(crate::SLOT_COUNT - 1).expect("a slot").first_place();
        assert_eq!(Slot::of_place(last | ((1 << 39) - 1)).map(Slot::index), Some(16_383));
        assert_eq!(Slot::of_place(1 << 53), None);
        assert_eq!(Slot::of_place(u64::MAX), None);
    }
}
