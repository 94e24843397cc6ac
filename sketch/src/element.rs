use twox_hash::XxHash3_64;

/// An element of a set: 16 bytes. A sketch treats both words alike; sets of entries have a hash of the key in
/// one and of the content in the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// What the element is a state of.
    pub key: u64,
    /// The state.
    pub value: u64,
}

/// An element with what its hash decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) element: Element,
    pub(crate) check: u32,
    /// Bit *i* says whether symbol *i* has the element.
    pub(crate) places: u64,
}

impl Element {
    /// Its size, in bytes.
    pub const BYTES: usize = 16;

    /// Its bytes, little-endian, the key first.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        (u128::from(self.value) << 64 | u128::from(self.key)).to_le_bytes()
    }

    /// The element of these bytes.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let both = u128::from_le_bytes(bytes);
        Self { key: both as u64, value: (both >> 64) as u64 }
    }

    pub(crate) fn check(self) -> u32 {
        XxHash3_64::oneshot(&self.to_bytes()) as u32
    }

    /// Places it among the first `symbols` symbols.
    pub(crate) fn placed(self, symbols: usize) -> Placed {
        let hash = XxHash3_64::oneshot(&self.to_bytes());
        let mut state = hash;
        let mut places = 1;
        for (index, chance) in CHANCES.iter().enumerate().take(symbols).skip(1) {
            // A linear congruential generator, whose upper half is what is good of it.
            state = state.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT);
            places |= u64::from((state >> 32) as u32 <= *chance) << index;
        }
        Placed { element: self, check: hash as u32, places }
    }
}

/// Of Knuth's MMIX.
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
const INCREMENT: u64 = 1_442_695_040_888_963_407;

/// `1 / (1 + i/2)`, in units of 2^-32.
const CHANCES: [u32; crate::SYMBOLS_MAX] = {
    let mut chances = [u32::MAX; crate::SYMBOLS_MAX];
    let mut index = 1;
    while index < crate::SYMBOLS_MAX {
        chances[index] = ((1 << 33) / (index as u64 + 2)) as u32;
        index += 1;
    }
    chances
};
