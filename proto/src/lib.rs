//! What nodes and clients agree on: keys and slots, versions and their clock, entries and their
//! merge, members, and the messages with their codec and limits.
//!
//! Nothing here does I/O, reads a clock or draws entropy, and nothing here depends on another crate
//! of ours. Bytes that arrive from outside pass through exactly three decoders, [`codec`] for the
//! wire, [`record`] for shared memory and [`submission`] for lanes; they return an error for anything
//! that is not well formed, and none allocates on a stranger's word.

pub mod beat;
pub mod channels;
pub mod codec;
pub mod entry;
pub mod epochs;
pub mod gone;
pub mod heat;
pub mod hottest;
pub mod key;
pub mod limits;
pub mod member;
pub mod message;
pub mod operate;
pub mod owned;
pub mod placement;
pub mod proximity;
pub mod record;
pub mod routes;
pub mod slot_set;
pub mod submission;
pub mod suspects;
pub mod version;
pub mod walk;

#[cfg(test)]
mod arbitrary;
/// What the fuzz targets run, for the seeded tests that run it on stable.
#[cfg(test)]
#[path = "../fuzz_bodies.rs"]
mod fuzz_bodies;

// The fuzz bodies name this crate as the targets in `fuzz/` see it.
#[cfg(test)]
extern crate self as annulus_proto;

pub use entry::{
    Attributes, Base, Body, Entry, Field, FieldDeadlines, Fields, Kind, Lease, Note, Replaced,
    Value,
};
pub use heat::{Dither, HalfLife};
pub use key::{Key, KeyError, SLOT_COUNT, Slot};
pub use member::{Load, Member, Status};
pub use proximity::Rtt;
pub use routes::{RouteTable, SlotRange};
pub use slot_set::SlotSet;
pub use suspects::Verdict;
pub use version::{Drift, Hlc, HybridClock, NodeId, Version};
