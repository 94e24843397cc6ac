use crate::sketch::Sketch;

/// What to do about a part of two sets that was compared by its sketch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing more: these are the keys that differ.
    Found(Vec<u64>),
    /// Compare so many parts of it, two at least.
    Split(usize),
    /// List it: it differs in too much for sketches, or is as small as parts are.
    List,
}

/// What to do about a part of two sets that consists of so many `slots`, the smallest parts that can be compared,
/// when `difference` is the sketch of what it differs in.
pub fn next_step(difference: &Sketch, slots: usize) -> Step {
    if let Some(keys) = difference.decode() {
        return Step::Found(keys);
    }
    let symbols = difference.symbols().len() as u64;
    // Fewer would have been found.
    let keys = difference.estimate().max(symbols / 2);
    let fitting = (symbols * FITTING_PERCENT / 100).max(1);
    // The guess may be too high, and lists are as long as what is held.
    if slots <= 1 || keys > slots as u64 * symbols * 2 {
        return Step::List;
    }
    let parts = keys.div_ceil(fitting) as usize;
    Step::Split(parts.clamp(2, slots))
}

/// Keys per hundred symbols in a part: more of them have to be split again too often, fewer waste symbols.
const FITTING_PERCENT: u64 = 45;
