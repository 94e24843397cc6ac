use crate::symbol::{Change, Symbol};

/// The most symbols of a sketch.
pub const SYMBOLS_MAX: usize = 64;

/// The first coded symbols of a set of keys with their states: see [the crate](crate).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    symbols: Box<[Symbol]>,
}

impl Sketch {
    /// Of the empty set, with so many symbols, 32 bytes of memory each.
    ///
    /// # Panics
    /// If there are none, or more than [`SYMBOLS_MAX`].
    pub fn new(symbols: usize) -> Self {
        assert!((1..=SYMBOLS_MAX).contains(&symbols), "{symbols} symbols");
        Self { symbols: vec![Symbol::default(); symbols].into() }
    }

    /// Its symbols, one at least.
    pub fn symbols(&self) -> &[Symbol] {
        &self.symbols
    }

    /// The symbol of all keys.
    pub fn first(&self) -> Symbol {
        self.symbols[0]
    }

    /// Takes in that the state of a key has changed; 0 is the state of a key that is not there. Keys are told
    /// apart modulo 2^61 - 1.
    pub fn change(&mut self, key: u64, before: u64, after: u64) {
        Change::new(key, before, after, self.symbols.len()).make(&mut self.symbols);
    }

    /// The same, of this set and of another that it is a part of.
    ///
    /// # Panics
    /// If the other sketch has fewer symbols.
    pub fn change_with(&mut self, whole: &mut Self, key: u64, before: u64, after: u64) {
        let change = Change::new(key, before, after, self.symbols.len());
        change.make(&mut self.symbols);
        change.make(&mut whole.symbols);
    }

    /// Adds a set that has no key in common with this one. If the other sketch has fewer symbols, so has the sum.
    pub fn merge(&mut self, other: &Self) {
        self.pair_with(other, Symbol::merge);
    }

    /// Makes this the sketch of the difference of two sets. If the other sketch has fewer symbols, so has the
    /// difference.
    pub fn subtract(&mut self, other: &Self) {
        self.pair_with(other, Symbol::subtract);
    }

    /// Whether nothing is in any symbol.
    pub fn is_zero(&self) -> bool {
        self.symbols.iter().all(Symbol::is_zero)
    }

    /// The keys whose states are not the same in two sets, in ascending order, when this is the sketch of the sets'
    /// difference. `None`: there are more than so many symbols tell, or the sketch is none of sets.
    ///
    /// Costs some 0.3 µs for each symbol and each place of a key that is found.
    pub fn decode(&self) -> Option<Vec<u64>> {
        let count = self.symbols.len();
        let mut left = self.symbols.clone();
        let mut keys = Vec::new();
        let mut unseen = u64::MAX >> (u64::BITS as usize - count);
        // The last symbols have the fewest keys.
        while let Some(index) = unseen.checked_ilog2() {
            unseen &= !(1 << index);
            let Some(key) = left[index as usize].only() else { continue };
            let change = Change::alone(&left[index as usize], key, count);
            // What does not belong here is no key.
            if change.places >> index & 1 == 0 {
                continue;
            }
            // Each key takes a symbol at least: whoever goes on longer goes in circles.
            if keys.len() == count {
                return None;
            }
            keys.push(key);
            change.take_back(&mut left);
            unseen |= change.places;
        }
        if !left.iter().all(Symbol::is_zero) {
            return None;
        }
        keys.sort_unstable();
        Some(keys)
    }

    /// About how many keys have not the same state in two sets, when this is the sketch of the sets' difference: with
    /// 16 symbols within a factor of two mostly, up to some ten million.
    pub fn estimate(&self) -> u64 {
        // A key is in symbol i with the probability 2/(i + 2), and makes a step in half of the cases: the walk's
        // square is expected to be the number of keys over i + 2.
        let squares = (2_u64..).zip(&self.symbols).map(|(n, symbol)| {
            let walk = u64::from(symbol.walk.unsigned_abs());
            walk * walk * n
        });
        squares.sum::<u64>() / self.symbols.len() as u64
    }

    /// The size of a sketch of so many symbols on the wire, in bytes.
    pub const fn bytes(symbols: usize) -> usize {
        symbols * Symbol::BYTES
    }

    /// Appends its symbols' bytes to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.symbols.iter().for_each(|symbol| out.extend_from_slice(&symbol.to_bytes()));
    }

    /// The sketch of these bytes; `None` if they are not as many as one takes.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (symbols, rest) = bytes.as_chunks::<{ Symbol::BYTES }>();
        let is_whole = rest.is_empty() && (1..=SYMBOLS_MAX).contains(&symbols.len());
        is_whole.then(|| Self { symbols: symbols.iter().map(Symbol::from_bytes).collect() })
    }

    fn pair_with(&mut self, other: &Self, what: impl Fn(&mut Symbol, &Symbol)) {
        if other.symbols.len() < self.symbols.len() {
            self.symbols = self.symbols[..other.symbols.len()].into();
        }
        self.symbols.iter_mut().zip(&other.symbols).for_each(|(mine, theirs)| what(mine, theirs));
    }
}

#[cfg(test)]
mod tests;
