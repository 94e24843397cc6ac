//! Searches through all that can happen to one slot on a few nodes, over the rules as nodes run
//! them. Each prints how many states there are; each mutant, how few steps show it.
//!
//! `cargo test -p annulus-slots -- --ignored --nocapture --test-threads 1` searches larger bounds,
//! as far as [`search::LONG`].

mod epochs;
mod holding;
mod search;
mod together;
mod world;
