//! Attacks on whole nodes: real sockets, segments and processes on loopback.
//!
//! Whatever arrives, on whichever port, in whichever file, ends in a clear error and a counter; the
//! node serves on, what was acknowledged is there, and memory stays bounded.

mod addresses;
mod child;
mod clocks;
mod flood;
mod harness;
mod impostors;
mod kept;
mod key_orders;
mod keys_and_values;
mod lanes;
mod names;
mod restarts;
mod sealed;
mod segments;
mod slow;
mod starting;
mod strangers;
mod users;
mod wire;
