//! Tests that need the inside: the protocol under loom, and writers stopped after any store.

mod crash;
mod kill;
mod lane;
mod model_check;
