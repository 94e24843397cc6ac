//! Sessions out of a host's shared memory, for any language: what `include/annulus.h` declares.
//!
//! Built as `libannulus.so` and `libannulus.a`. The header is the documentation of the calls, and
//! a test compiles it against the definitions here. `python/annulus.py` stands on the same calls.
//!
//! A call makes no system call and takes no lock (opening, reopening and asking whether one should
//! do). What a caller hands over is checked as far as it can be: null and misaligned pointers,
//! sizes beyond an address space and buffers that overlap are answered with an error code. No panic
//! crosses into the caller; it would be [`Status::Internal`].

mod abi;
mod calls;
mod table;

pub use abi::{ABI, Field, KeyBytes, Kind, Session, Status, VersionParts};
pub use calls::{
    annulus_abi, annulus_close, annulus_detached, annulus_get, annulus_get_many,
    annulus_last_error, annulus_map_get, annulus_map_next, annulus_open, annulus_open_table,
    annulus_reopen, annulus_strerror,
};
pub use table::Table;
