//! Node ids, hybrid logical time and versions.
//!
//! The clock is that of Kulkarni et al., *Logical Physical Clocks* (OPODIS 2014): the larger of the
//! wall clock and what was seen, with a counter for events within one millisecond.

use std::fmt;

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};

/// A node's identity, drawn at random when its data directory is made and kept across restarts.
///
/// 48 bits: two births and versions fit the header of a record, and among 100,000 nodes that ever
/// lived the chance of two equal ids is below 2 in 100,000 (and such a pair is found and refused).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// The number of bits in an id.
    pub const BITS: u32 = 48;

    /// The id with this number, of which only the lowest 48 bits are kept.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }

    /// The id as a number below 2^48.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Reads what `Display` writes: twelve hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        // `from_str_radix` alone would take a sign.
        if text.len() != 12 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(Self::from_bits)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

impl serde::Serialize for NodeId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A point in hybrid logical time: 48 bits of milliseconds since the Unix epoch, then a 16-bit counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(u64);

impl Hlc {
    /// Before every event.
    pub const ZERO: Self = Self(0);

    /// The last millisecond that hybrid time has, in the year 10889.
    pub const MS_MAX: u64 = (1 << 48) - 1;

    /// The first instant of a millisecond. `ms` saturates at [`Hlc::MS_MAX`].
    pub const fn from_ms(ms: u64) -> Self {
        Self((if ms > Self::MS_MAX { Self::MS_MAX } else { ms }) << 16)
    }

    /// The instant with this representation: milliseconds in the upper 48 bits, counter in the lower 16.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Milliseconds in the upper 48 bits, counter in the lower 16.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Milliseconds since the Unix epoch.
    pub const fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// The very next instant; a full counter carries into the next millisecond.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ms(), self.0 & 0xffff)
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hlc({self})")
    }
}

/// Which write this is: when, and by whom. A total order, since no node stamps two writes alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The instant the write was stamped with.
    pub hlc: Hlc,
    /// The node that stamped it.
    pub node: NodeId,
}

impl Version {
    /// Before every version.
    pub const ZERO: Self = Self { hlc: Hlc::ZERO, node: NodeId(0) };

    /// The version of a write that `node` stamped at `hlc`.
    pub const fn new(hlc: Hlc, node: NodeId) -> Self {
        Self { hlc, node }
    }

    /// Reads what `Display` writes: milliseconds, counter and node, as in `1790000000000.1@0000000000a1`.
    pub fn parse(text: &str) -> Option<Self> {
        let (instant, node) = text.split_once('@')?;
        let (ms, counter) = instant.split_once('.')?;
        // `parse` alone would take a sign.
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(ms) || !is_number(counter) {
            return None;
        }
        let ms: u64 = ms.parse().ok().filter(|ms| *ms <= Hlc::MS_MAX)?;
        let counter: u16 = counter.parse().ok()?;
        let hlc = Hlc::from_bits(Hlc::from_ms(ms).bits() | u64::from(counter));
        Some(Self::new(hlc, NodeId::parse(node)?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.hlc, self.node)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({self})")
    }
}

impl serde::Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A hybrid logical clock. It is handed the wall clock and never reads one.
///
/// A node may have several, which know nothing of each other: each has its part of all instants, so that no two of them
/// ever give out the same one.
#[derive(Clone, Debug)]
pub struct HybridClock {
    last: Hlc,
    part: u64,
    parts: u64,
}

/// How far ahead of the wall clock a peer's instant was, beyond the bound that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an instant {ahead_ms} ms ahead of this node's clock; the bound is {bound_ms} ms")]
pub struct Drift {
    /// Milliseconds between the wall clock and the instant.
    pub ahead_ms: u64,
    /// The bound, in milliseconds.
    pub bound_ms: u64,
}

impl HybridClock {
    /// A clock that continues after `floor`, the highest instant that may have been given out before.
    pub fn new(floor: Hlc) -> Self {
        Self::of_part(floor, 0, 1)
    }

    /// The same as one of so many, at least 1, of a node; `part` is less than that.
    pub fn of_part(floor: Hlc, part: usize, parts: usize) -> Self {
        assert!(part < parts, "part {part} of {parts}");
        Self { last: floor, part: part as u64, parts: parts as u64 }
    }

    /// A fresh instant: later than each one given out or observed before, and not before the wall clock.
    pub fn tick(&mut self, wall_ms: u64) -> Hlc {
        self.tick_after(wall_ms, Hlc::ZERO)
    }

    /// A fresh instant that is also later than `stored`, so that a write always beats what it replaces.
    pub fn tick_after(&mut self, wall_ms: u64, stored: Hlc) -> Hlc {
        self.last = self.next_after(wall_ms, stored);
        self.last
    }

    /// What [`HybridClock::tick_after`] would give out.
    pub fn next_after(&self, wall_ms: u64, stored: Hlc) -> Hlc {
        self.own(self.last.max(stored).next().max(Hlc::from_ms(wall_ms)))
    }

    /// The first instant of this clock's part that is not before this one; the last one that there is, of any
    /// part, if there is none.
    pub fn own(&self, earliest: Hlc) -> Hlc {
        if self.parts == 1 {
            return earliest;
        }
        let bits = earliest.bits();
        let beyond = (self.part + self.parts - bits % self.parts) % self.parts;
        Hlc::from_bits(bits.saturating_add(beyond))
    }

    /// The present on this clock, without giving out an instant.
    pub fn now(&self, wall_ms: u64) -> Hlc {
        self.last.max(Hlc::from_ms(wall_ms))
    }

    /// Takes note of a peer's instant, so that what is stamped here later is later.
    ///
    /// # Errors
    /// [`Drift`] when the instant lies more than `bound_ms` ahead of the wall clock. It is not taken
    /// over then: one wrong clock must not drag the others along.
    pub fn observe(&mut self, seen: Hlc, wall_ms: u64, bound_ms: u64) -> Result<(), Drift> {
        let ahead_ms = seen.ms().saturating_sub(wall_ms);
        if ahead_ms > bound_ms {
            return Err(Drift { ahead_ms, bound_ms });
        }
        self.last = self.last.max(seen);
        Ok(())
    }
}

macro_rules! encode_as_u64 {
    ($type:ty, $from:expr) => {
        impl Encode for $type {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                self.0.encode(encoder)
            }
        }

        impl<C> Decode<C> for $type {
            fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
                u64::decode(decoder).map($from)
            }
        }

        impl<'de, C> BorrowDecode<'de, C> for $type {
            fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, DecodeError> {
                Self::decode(decoder)
            }
        }
    };
}

encode_as_u64!(Hlc, Hlc::from_bits);
encode_as_u64!(NodeId, NodeId::from_bits);

impl Encode for Version {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.hlc.encode(encoder)?;
        self.node.encode(encoder)
    }
}

impl<C> Decode<C> for Version {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Self { hlc: Hlc::decode(decoder)?, node: NodeId::decode(decoder)? })
    }
}

impl<'de, C> BorrowDecode<'de, C> for Version {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_clock_never_repeats_itself_nor_falls_behind_what_it_saw(
            steps in proptest::collection::vec((0..3u8, 0..2_000u64, any::<u16>(), 0..1_000u64), 1..50),
        ) {
            let mut clock = HybridClock::new(Hlc::from_ms(500));
            let mut last = Hlc::from_ms(500);
            for (step, wall_ms, counter, bound_ms) in steps {
                let other = Hlc::from_bits(Hlc::from_ms(wall_ms ^ 77).bits() | u64::from(counter));
                match step {
                    0 => {
                        let now = clock.now(wall_ms);
                        let fresh = clock.tick(wall_ms);
                        prop_assert!(fresh > last && fresh >= now && fresh.ms() >= wall_ms);
                        last = fresh;
                    }
                    1 => {
                        let fresh = clock.tick_after(wall_ms, other);
                        prop_assert!(fresh > last && fresh > other && fresh.ms() >= wall_ms);
                        last = fresh;
                    }
                    _ => {
                        let before = clock.now(0);
                        let taken = clock.observe(other, wall_ms, bound_ms).is_ok();
                        prop_assert_eq!(taken, other.ms() <= wall_ms + bound_ms);
                        let after = if taken { before.max(other) } else { before };
                        prop_assert_eq!(clock.now(0), after);
                        last = after;
                    }
                }
            }
        }

        #[test]
        fn versions_are_ordered_by_time_and_then_by_node(
            one in any::<(u64, u64)>(),
            other in any::<(u64, u64)>(),
        ) {
            let version =
                |(hlc, node)| Version::new(Hlc::from_bits(hlc), NodeId::from_bits(node));
            let key = |version: Version| (version.hlc.bits(), version.node.bits());
            let (one, other) = (version(one), version(other));
            prop_assert_eq!(one.cmp(&other), key(one).cmp(&key(other)));
        }
    }

    #[test]
    fn clocks_of_one_node_never_give_out_the_same_instant() {
        for parts in 1..=5 {
            let mut clocks: Vec<HybridClock> =
                (0..parts).map(|part| HybridClock::of_part(Hlc::from_ms(7), part, parts)).collect();
            let mut given = std::collections::BTreeSet::new();
            for step in 0..200u64 {
                for clock in &mut clocks {
                    let last = clock.now(0);
                    let stored = Hlc::from_bits(last.bits() + step % 3);
                    let instant = clock.tick_after(7 + step / 50, stored);
                    assert!(instant > last && instant > stored);
                    assert!(given.insert(instant), "{instant} twice of {parts}");
                }
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_back_still_grows() {
        let mut clock = HybridClock::new(Hlc::ZERO);
        let before = clock.tick(1_000_000);
        let after = clock.tick(400_000);
        assert!(after > before);
        assert_eq!(after.ms(), 1_000_000);
    }

    #[test]
    fn a_full_counter_carries_into_the_next_millisecond() {
        let mut clock = HybridClock::new(Hlc::ZERO);
        let first = clock.tick(7);
        let mut last = first;
        for _ in 0..=0xffff {
            let next = clock.tick(7);
            assert!(next > last);
            last = next;
        }
        assert_eq!(last.ms(), 8);
    }

    #[test]
    fn an_instant_beyond_the_bound_is_reported_and_not_taken_over() {
        let mut clock = HybridClock::new(Hlc::ZERO);
        let error = clock.observe(Hlc::from_ms(3_601_000), 1_000, 500).unwrap_err();
        assert_eq!(error, Drift { ahead_ms: 3_600_000, bound_ms: 500 });
        assert_eq!(clock.tick(1_000).ms(), 1_000);
        clock.observe(Hlc::from_ms(1_400), 1_000, 500).unwrap();
        assert_eq!(clock.tick(1_000).ms(), 1_400);
    }

    #[test]
    fn a_stamp_is_later_than_what_it_replaces() {
        let mut clock = HybridClock::new(Hlc::ZERO);
        let stored = Hlc::from_ms(9_000).next();
        assert_eq!(clock.tick_after(1_000, stored), stored.next());
    }

    #[test]
    fn versions_read_back_what_they_print() {
        let version = Version::new(Hlc::from_bits(u64::MAX - 1), NodeId::from_bits(0xa1));
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        assert_eq!(Version::parse("7.1@0000000000a1").map(|it| it.hlc.ms()), Some(7));
        for no in ["", "7@0000000000a1", "7.1", "+7.1@0000000000a1", "7.65536@0000000000a1"] {
            assert_eq!(Version::parse(no), None, "{no}");
        }
        assert_eq!(Version::parse("281474976710656.0@0000000000a1"), None);
    }

    #[test]
    fn node_ids_read_back_what_they_print() {
        let id = NodeId::from_bits(0xffff_0123_4567_89ab);
        assert_eq!(id.to_string(), "0123456789ab");
        assert_eq!(NodeId::parse("0123456789ab"), Some(id));
        assert_eq!(NodeId::parse("123456789ab"), None);
        assert_eq!(NodeId::parse("0123456789ag"), None);
        assert_eq!(NodeId::parse("+123456789ab"), None);
    }
}
