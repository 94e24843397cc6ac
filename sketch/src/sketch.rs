use crate::element::{Element, Placed};
use crate::symbol::{Side, Symbol};

/// The most symbols of a sketch.
pub const SYMBOLS_MAX: usize = 64;

/// The first coded symbols of a set: see [the crate](crate).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    symbols: Box<[Symbol]>,
}

/// In what two sets differ, each side in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What only the set has that was subtracted from.
    pub ours: Vec<Element>,
    /// What only the set has that was subtracted.
    pub theirs: Vec<Element>,
}

impl Sketch {
    /// Of the empty set, with so many symbols, 24 bytes of memory each.
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

    /// The symbol of all elements.
    pub fn first(&self) -> Symbol {
        self.symbols[0]
    }

    /// Puts an element in that the set does not have.
    pub fn insert(&mut self, element: Element) {
        self.change(&element.placed(self.symbols.len()), 1);
    }

    /// Takes an element out that the set has.
    pub fn remove(&mut self, element: Element) {
        self.change(&element.placed(self.symbols.len()), u32::MAX);
    }

    /// Adds a set that has no element in common with this one. If the other sketch has fewer symbols, so has the
    /// sum.
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

    /// What two sets differ in, of whose difference this is the sketch. `None`: it is more than so many symbols
    /// tell, or the sketch is none of sets. Costs at most the square of the number of symbols.
    pub fn decode(&self) -> Option<Difference> {
        let mut left = self.symbols.clone();
        let mut difference = Difference::default();
        // Each element takes a symbol at least: whoever goes on longer goes in circles.
        for _ in 0..=left.len() {
            let Some((placed, side)) = only_one(&left) else { break };
            let (found, by) = match side {
                Side::Ours => (&mut difference.ours, u32::MAX),
                Side::Theirs => (&mut difference.theirs, 1),
            };
            found.push(placed.element);
            change(&mut left, &placed, by);
        }
        if !left.iter().all(Symbol::is_zero) {
            return None;
        }
        difference.ours.sort_unstable();
        difference.theirs.sort_unstable();
        Some(difference)
    }

    /// About how many elements two sets differ in, of whose difference this is the sketch: with 16 symbols within
    /// some 40 % mostly, of up to 10,000. If both sides have many more than that, it is said to be some thousands.
    pub fn estimate(&self) -> u64 {
        let more = i64::from(self.symbols[0].count as i32);
        let mut squares = 0;
        for (index, symbol) in (0_i64..).zip(&self.symbols).skip(1) {
            // The probability of an element is 2/n.
            let n = index + 2;
            let expected = (2 * more + n / 2).div_euclid(n);
            // Known modulo 256, and hardly more than 127 off.
            let off = i64::from(i64::from(symbol.count).wrapping_sub(expected) as i8);
            // A binomial's variance is the number of elements times 2/n times (1 - 2/n).
            squares += (off * off * n * n).unsigned_abs() / (2 * index).unsigned_abs();
        }
        let samples = self.symbols.len().saturating_sub(1).max(1) as u64;
        (squares / samples).max(more.unsigned_abs())
    }

    /// The size of a sketch of so many symbols on the wire, in bytes.
    pub const fn bytes(symbols: usize) -> usize {
        COUNT_BYTES + symbols * Symbol::BYTES
    }

    /// Appends its bytes to `out`: the first symbol's count, u32, then the symbols.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.symbols[0].count.to_le_bytes());
        self.symbols.iter().for_each(|symbol| out.extend_from_slice(&symbol.to_bytes()));
    }

    /// The sketch of these bytes; `None` if they are not as many as one takes.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (count, bytes) = bytes.split_first_chunk::<COUNT_BYTES>()?;
        let (symbols, rest) = bytes.as_chunks::<{ Symbol::BYTES }>();
        if !rest.is_empty() || !(1..=SYMBOLS_MAX).contains(&symbols.len()) {
            return None;
        }
        let mut symbols: Box<[Symbol]> = symbols.iter().map(Symbol::from_bytes).collect();
        symbols[0].count = u32::from_le_bytes(*count);
        Some(Self { symbols })
    }

    fn change(&mut self, placed: &Placed, by: u32) {
        change(&mut self.symbols, placed, by);
    }

    fn pair_with(&mut self, other: &Self, what: fn(&mut Symbol, &Symbol)) {
        if other.symbols.len() < self.symbols.len() {
            self.symbols = self.symbols[..other.symbols.len()].into();
        }
        self.symbols.iter_mut().zip(&other.symbols).for_each(|(mine, theirs)| what(mine, theirs));
    }
}

const COUNT_BYTES: usize = 4;

fn change(symbols: &mut [Symbol], placed: &Placed, by: u32) {
    let mut places = placed.places;
    while places != 0 {
        symbols[places.trailing_zeros() as usize].change(placed, by);
        places &= places - 1;
    }
}

/// An element that is the only one of a symbol, of the last such one: these have the fewest.
fn only_one(symbols: &[Symbol]) -> Option<(Placed, Side)> {
    (0..symbols.len()).rev().find_map(|index| {
        let (element, side) = symbols[index].only()?;
        let placed = element.placed(symbols.len());
        // What does not belong here is no element.
        (placed.places >> index & 1 == 1).then_some((placed, side))
    })
}

#[cfg(test)]
mod tests;
