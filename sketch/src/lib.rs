//! Sketches of what two nodes hold: a few bytes by which they find out in what they differ.
//!
//! What is held are keys, each in a state; both are words that stand for more. A [`Sketch`] is the beginning of a
//! sequence of coded symbols, as in rateless invertible Bloom lookup tables (Yang, Gilad, Alizadeh: *Practical
//! Rateless Set Reconciliation*, SIGCOMM 2024, arXiv 2402.02668). A symbol sums up some of the keys: the first one all,
//! symbol *i* each with the probability `1 / (1 + i/2)`, decided by the key's hash.
//!
//! Sketches are linear. A state goes out and another comes in at a cost of the symbols kept, the sketches of two
//! sets without a common key add up to the one of both, and the difference of two sketches is the sketch of the
//! difference: what both have cancels out. A symbol in which one key is left shows it; it is taken out of the others, and
//! so on ([`Sketch::decode`]; the peeling of Eppstein, Goodrich, Uyeda, Varghese: *What's the Difference?*, SIGCOMM
//! 2011). Some 1.35 (many) to 2 (few) symbols are needed for each key.
//!
//! **A key that both have in two states is one difference, not two.** In the tables of the papers, whose symbols XOR
//! elements, it is two, and cancels out half. Here a state is a weight modulo the prime 2^61 - 1, and a symbol has
//! the sums of `weight`, `key · weight` and `hash(key) · weight`: the test for one-sparse vectors of Cormode and
//! Firmani (*A unifying framework for ℓ0-sampling algorithms*, 2014). Whatever became of a key's weight, the second sum
//! over the first is the key, and the third one says whether it is the only one.
//!
//! A rateless sequence goes on until it is decoded. Kept sketches have an end, which bounds what each costs:
//! beyond it the set is split, and [`next_step`] says how far. That needs a guess of how many keys differ. A fourth sum is a
//! random walk: in half of its states a key makes a step, forth or back as its hash says, so that the square of the way
//! says how many differ ([`Sketch::estimate`]; Alon, Matias, Szegedy: *The Space Complexity of Approximating the
//! Frequency Moments*, 1996).
//!
//! Everything is a function of what goes in, and of integers alone, so that all nodes compute the same. What
//! comes from others may be anything: it decodes to nonsense or not at all, in bounded time and memory.

mod field;
mod sketch;
mod step;
mod symbol;

pub use sketch::{SYMBOLS_MAX, Sketch};
pub use step::{Step, next_step};
pub use symbol::Symbol;
