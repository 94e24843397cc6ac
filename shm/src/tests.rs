//! Tests that need the inside: the protocol under loom, writers stopped after any store, and segments that change.

mod crash;
mod kill;
mod lane;
mod model_check;
mod take_over;
