//! Sets of slots, small on the wire.

use bincode::de::{BorrowDecoder, Decoder};
use bincode::error::DecodeError;
use bincode::{BorrowDecode, Decode, Encode};

use crate::key::{SLOT_COUNT, Slot};

/// Slots out of those with one remainder, as the slots of one core are, in runs of neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
pub struct SlotSet {
    /// The divisor; 0 is as good as 1.
    pub stride: u16,
    /// The remainder.
    pub offset: u16,
    /// Pairs: how many slots of this remainder are left out, and how many then are in the set.
    pub runs: Vec<(u16, u16)>,
}

impl SlotSet {
    /// The set of these slots, in ascending order, all of which have the same remainder by `stride`.
    pub fn new(slots: &[Slot], stride: u16) -> Self {
        let stride = stride.max(1);
        let offset = slots.first().map_or(0, |slot| slot.index() % stride);
        let mut runs: Vec<(u16, u16)> = Vec::new();
        let mut next = 0;
        for slot in slots {
            debug_assert_eq!(slot.index() % stride, offset);
            let place = slot.index() / stride;
            match runs.last_mut() {
                Some((_, length)) if place == next => *length += 1,
                _ => runs.push((place.saturating_sub(next), 1)),
            }
            next = place + 1;
        }
        Self { stride, offset, runs }
    }

    /// The slots, in ascending order. What is beyond the last slot there is counts for nothing.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        let (stride, offset) = (u64::from(self.stride.max(1)), u64::from(self.offset));
        let mut next = 0_u64;
        let places = self.runs.iter().flat_map(move |&(skipped, length)| {
            let start = next + u64::from(skipped);
            next = start + u64::from(length);
            start..next
        });
        places
            .map(move |place| place * stride + offset)
            .take_while(|index| *index < u64::from(SLOT_COUNT))
            .filter_map(|index| Slot::new(index as u16))
    }
}

impl<C> Decode<C> for SlotSet {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let (stride, offset, count) = Decode::decode(decoder)?;
        let count: u64 = count;
        // One by one: room for what has arrived, and not for what a count promises.
        let mut runs = Vec::new();
        for _ in 0..count {
            runs.push(Decode::decode(decoder)?);
        }
        Ok(Self { stride, offset, runs })
    }
}

impl<'de, C> BorrowDecode<'de, C> for SlotSet {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(indexes: impl Iterator<Item = u16>) -> Vec<Slot> {
        indexes.map(|index| Slot::new(index).unwrap()).collect()
    }

    #[test]
    fn a_set_of_slots_is_what_it_was_made_of() {
        for stride in [1, 2, 3, 7, 64] {
            for offset in 0..stride {
                let of_core = (offset..SLOT_COUNT).step_by(stride.into());
                for keep in [1, 2, 5, 1_000] {
                    let kept = of_core.clone().filter(|index| index / 16 % keep != 1);
                    let kept = slots(kept);
                    let set = SlotSet::new(&kept, stride);
                    assert_eq!(set.slots().collect::<Vec<_>>(), kept);
                }
            }
        }
        assert_eq!(SlotSet::new(&[], 3).slots().count(), 0);
        let all = SlotSet::new(&slots(0..SLOT_COUNT), 1);
        assert_eq!(all.runs, [(0, SLOT_COUNT)]);
    }

    #[test]
    fn what_no_set_says_ends_at_the_last_slot() {
        let wild = |stride, offset, runs| SlotSet { stride, offset, runs };
        let full = vec![(0, u16::MAX); 1_000];
        assert_eq!(wild(1, 0, full.clone()).slots().count(), usize::from(SLOT_COUNT));
        assert_eq!(wild(0, 0, full.clone()).slots().count(), usize::from(SLOT_COUNT));
        assert_eq!(wild(1, u16::MAX, full.clone()).slots().count(), 0);
        assert_eq!(wild(u16::MAX, 3, full).slots().count(), 1);
        assert_eq!(wild(1, 0, vec![(u16::MAX, u16::MAX); 100]).slots().count(), 0);
        assert_eq!(wild(1, 0, vec![(0, 0); 100]).slots().count(), 0);
    }
}
