//! Sketches of sets: a few bytes by which two nodes find out in what their sets differ.
//!
//! A [`Sketch`] is the beginning of a sequence of coded symbols, those of a rateless invertible Bloom lookup
//! table (Yang, Gilad, Alizadeh: *Practical Rateless Set Reconciliation*, SIGCOMM 2024, arXiv 2402.02668). A
//! symbol is the sum of some of the set's elements, with the sum of their hashes and their number. The first
//! symbol has all of them, symbol *i* each with the probability `1 / (1 + i/2)`, decided by the element's hash.
//!
//! Sketches are linear. An element comes in or goes out at a cost of the symbols kept, two sketches of
//! disjoint sets add up to the one of both, and the difference of two sketches is the sketch of the
//! difference of the sets: what both have cancels out. A symbol with one element left shows it, and which
//! side it is on; it is taken out of the others, and so on ([`Sketch::decode`]; the peeling of Eppstein,
//! Goodrich, Uyeda, Varghese: *What's the Difference?*, SIGCOMM 2011). Some 1.35 (many) to 2 (few) symbols are
//! needed for each element.
//!
//! A rateless sequence goes on until it is decoded. Kept sketches have an end, which bounds what each costs:
//! beyond it the set is split, and [`next_step`] says how far. That needs a guess of how many elements differ,
//! which the counts of an undecoded sketch give ([`Sketch::estimate`]): in symbol *i* the number of one side's elements
//! less the other's is off what the first symbol lets expect by a random walk of as many steps as it has elements.
//!
//! Everything is a function of what goes in, and of integers alone, so that all nodes compute the same. What
//! comes from others may be anything: it decodes to nonsense or not at all, in bounded time and memory.

mod element;
mod sketch;
mod step;
mod symbol;

pub use element::Element;
pub use sketch::{Difference, SYMBOLS_MAX, Sketch};
pub use step::{Step, next_step};
pub use symbol::{Side, Symbol};
