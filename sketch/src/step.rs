use crate::sketch::{Difference, Sketch};

/// What to do about a part of two sets that was compared by its sketch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing more: this is the difference.
    Found(Difference),
    /// Compare so many parts of it, two at least.
    Split(usize),
    /// List it: it differs in too much for sketches, or is as small as parts are.
    List,
}

/// What to do about a part of two sets that consists of so many `slots`, the smallest parts that can be compared,
/// when `difference` is the sketch of what it differs in.
///
/// Parts are made so small that about half of the symbols can be spared: larger ones would too often have to be
/// split again.
pub fn next_step(difference: &Sketch, slots: usize) -> Step {
    if let Some(found) = difference.decode() {
        return Step::Found(found);
    }
    let symbols = difference.symbols().len() as u64;
    let estimate = difference.estimate();
    // Fewer would have been found.
    let elements = estimate.max(symbols / 2);
    let fitting = (symbols * FITTING_PERCENT / 100).max(1);
    if slots <= 1 || elements > slots as u64 * fitting {
        return Step::List;
    }
    // So few are not found if a key has two states in the very same symbols, as one of some 500 has with 16
    // symbols: then the way down to its slot is to be short.
    let least = if estimate < symbols / 4 { 4 } else { 2 };
    let parts = (elements.div_ceil(fitting) as usize).max(least);
    Step::Split(parts.min(slots))
}

/// Elements per hundred symbols.
const FITTING_PERCENT: u64 = 45;
