use twox_hash::XxHash3_64;

use crate::field::{add, inverse, multiply, reduced, subtract};

/// A coded symbol: sums over some keys.
///
/// On the wire it has [`Symbol::BYTES`]: the three sums, 8 bytes each, and the walk, 2 bytes, little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Symbol {
    /// The sum of the states' weights.
    weights: u64,
    /// The sum of each key times its state's weight.
    keys: u64,
    /// The sum of each key's hash times its state's weight.
    checks: u64,
    /// Of half of the states, a step forth or back as the key says.
    pub(crate) walk: i16,
}

/// A change of one key's state, as all symbols see it that have the key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    sums: Symbol,
    /// Bit *i* says whether symbol *i* has the key.
    pub(crate) places: u64,
}

impl Symbol {
    /// Its size on the wire, in bytes.
    pub const BYTES: usize = 26;

    /// Adds what another one has.
    pub fn merge(&mut self, other: &Self) {
        self.weights = add(self.weights, other.weights);
        self.keys = add(self.keys, other.keys);
        self.checks = add(self.checks, other.checks);
        self.walk = self.walk.wrapping_add(other.walk);
    }

    /// Takes out what another one has.
    pub fn subtract(&mut self, other: &Self) {
        self.weights = subtract(self.weights, other.weights);
        self.keys = subtract(self.keys, other.keys);
        self.checks = subtract(self.checks, other.checks);
        self.walk = self.walk.wrapping_sub(other.walk);
    }

    /// Whether nothing is left: two sets of which this is true of the first symbols' difference are equal, but for a
    /// chance of some 2^-61 for each key.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// The only key that is left, whatever became of its state. Wrong with a chance of 2^-61. Costs a division,
    /// some 0.3 µs.
    pub fn only(&self) -> Option<u64> {
        if self.weights == 0 {
            return None;
        }
        let key = multiply(self.keys, inverse(self.weights));
        (multiply(hash(key), self.weights) == self.checks).then_some(key)
    }

    /// Its bytes on the wire.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.weights.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.keys.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.checks.to_le_bytes());
        bytes[24..].copy_from_slice(&self.walk.to_le_bytes());
        bytes
    }

    /// The symbol of these bytes, which may be any.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let word = |at: usize| {
            let word = bytes[at..at + 8].try_into().expect("eight bytes are eight bytes");
            reduced(u64::from_le_bytes(word))
        };
        let walk = i16::from_le_bytes([bytes[24], bytes[25]]);
        Self { weights: word(0), keys: word(8), checks: word(16), walk }
    }
}

impl Change {
    /// From one state to another, of which 0 is none, among the first `symbols` symbols.
    pub(crate) fn new(key: u64, before: u64, after: u64, symbols: usize) -> Self {
        let hash = XxHash3_64::oneshot(&key.to_le_bytes());
        let weights = subtract(weight(after), weight(before));
        let step = half(after) - half(before);
        let sums = Symbol {
            weights,
            keys: multiply(reduced(key), weights),
            checks: multiply(reduced(hash), weights),
            walk: if hash >> 63 == 0 { step } else { -step },
        };
        Self { sums, places: places(hash, symbols) }
    }

    /// What takes a key out of a symbol in which it is the only one.
    pub(crate) fn alone(symbol: &Symbol, key: u64, symbols: usize) -> Self {
        Self { sums: *symbol, places: places(XxHash3_64::oneshot(&key.to_le_bytes()), symbols) }
    }

    pub(crate) fn make(&self, symbols: &mut [Symbol]) {
        self.for_all(symbols, |symbol| symbol.merge(&self.sums));
    }

    pub(crate) fn take_back(&self, symbols: &mut [Symbol]) {
        self.for_all(symbols, |symbol| symbol.subtract(&self.sums));
    }

    fn for_all(&self, symbols: &mut [Symbol], what: impl Fn(&mut Symbol)) {
        let mut places = self.places;
        while places != 0 {
            what(&mut symbols[places.trailing_zeros() as usize]);
            places &= places - 1;
        }
    }
}

/// What a state counts: 0 if it is none, and not 0 otherwise.
fn weight(state: u64) -> u64 {
    match reduced(state) {
        0 if state != 0 => 1,
        weight => weight,
    }
}

fn half(state: u64) -> i16 {
    (state >> 63) as i16
}

fn hash(key: u64) -> u64 {
    reduced(XxHash3_64::oneshot(&key.to_le_bytes()))
}

/// In which of the first `symbols` symbols the key with this hash is.
fn places(hash: u64, symbols: usize) -> u64 {
    let mut state = hash;
    let mut places = 1;
    for (index, chance) in CHANCES.iter().enumerate().take(symbols).skip(1) {
        // A linear congruential generator, whose upper half is what is good of it.
        state = state.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT);
        places |= u64::from((state >> 32) as u32 <= *chance) << index;
    }
    places
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
