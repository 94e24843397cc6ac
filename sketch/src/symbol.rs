use crate::element::{Element, Placed};

/// A coded symbol: the sum of some elements.
///
/// On the wire it has [`Symbol::BYTES`]: keys and values XORed, 8 bytes each, the hashes' lower halves XORed, 4 bytes,
/// and the number of elements modulo 256, all little-endian. That is enough for a difference, in which a count of
/// one or minus one is all that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Symbol {
    pub(crate) keys: u64,
    pub(crate) values: u64,
    pub(crate) checks: u32,
    /// Wrapping, so that a difference may be below zero.
    pub(crate) count: u32,
}

/// Which of two sets has an element that the other one lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The set that was subtracted from.
    Ours,
    /// The set that was subtracted.
    Theirs,
}

impl Symbol {
    /// Its size on the wire, in bytes.
    pub const BYTES: usize = 21;

    /// Adds what another one has.
    pub fn merge(&mut self, other: &Self) {
        self.add(other, other.count);
    }

    /// Takes out what another one has.
    pub fn subtract(&mut self, other: &Self) {
        self.add(other, other.count.wrapping_neg());
    }

    /// Whether nothing is left, as far as [`Symbol::BYTES`] bytes tell. Two sets of which this is true of the
    /// first symbols' difference are equal but for a chance of 2^-168.
    pub fn is_zero(&self) -> bool {
        self.to_bytes() == [0; Self::BYTES]
    }

    /// The XOR of its elements' keys.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Whether this may be the difference of sets that hold one key in two states, and are equal otherwise: as
    /// many elements on both sides, of keys that cancel out. It may also be something else.
    pub fn may_be_a_change(&self) -> bool {
        self.count as u8 == 0 && self.keys == 0 && self.values != 0
    }

    /// The only element that is left, with its side. Wrong with a chance of 2^-32.
    pub fn only(&self) -> Option<(Element, Side)> {
        let side = match self.count as u8 {
            1 => Side::Ours,
            u8::MAX => Side::Theirs,
            _ => return None,
        };
        let element = Element { key: self.keys, value: self.values };
        (element.check() == self.checks).then_some((element, side))
    }

    /// Its bytes on the wire.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.keys.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.values.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.checks.to_le_bytes());
        bytes[20] = self.count as u8;
        bytes
    }

    /// The symbol of these bytes, its count modulo 256.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (keys, rest) = bytes.split_first_chunk().expect("21 bytes begin with 8");
        let (values, rest) = rest.split_first_chunk().expect("13 bytes begin with 8");
        let (checks, count) = rest.split_first_chunk().expect("5 bytes begin with 4");
        Self {
            keys: u64::from_le_bytes(*keys),
            values: u64::from_le_bytes(*values),
            checks: u32::from_le_bytes(*checks),
            count: count[0].into(),
        }
    }

    /// Puts an element in (`by` = 1) or takes it out (`by` = −1, wrapping).
    pub(crate) fn change(&mut self, placed: &Placed, by: u32) {
        self.keys ^= placed.element.key;
        self.values ^= placed.element.value;
        self.checks ^= placed.check;
        self.count = self.count.wrapping_add(by);
    }

    fn add(&mut self, other: &Self, count: u32) {
        self.keys ^= other.keys;
        self.values ^= other.values;
        self.checks ^= other.checks;
        self.count = self.count.wrapping_add(count);
    }
}
