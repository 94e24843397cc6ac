//! The table in shared memory: one writing process, any number of reading ones, bytes only.
//!
//! A *segment* is a file (usually in `/dev/shm`) or a piece of heap memory of one fixed size, made of one *shard* or
//! several. One [`Writer`] changes each shard; [`Reader`]s, or [`Shards`] of them, in any process look keys up without a lock, a system call or a store. A reader gets
//! a value that was current at one instant during the call, or is told to ask the writer: never a torn one,
//! never an unpublished one, and a [`Lookup::Miss`] means *ask the node*, not *absent*.
//!
//! Shape: an index of 64-byte lines (28 fingerprints each), and one record of fixed size per way at a computed
//! address; what does not fit goes on in other records. The bytes, the protocol and its argument are
//! in `docs/segment.md`; the layout itself is in one module, `layout`.
//!
//! ```
//! use annulus_shm::{HeapRegion, Lookup, Reader, TableOptions, Writer};
//!
//! let options = TableOptions::new(0x1234, 0x5678);
//! let region = HeapRegion::new(options.segment_bytes as usize);
//! let mut writer = Writer::create(region.handle(), &options)?;
//! writer.set_freshness(7, u64::MAX);
//! writer.put(b"key", 7, b"value", 0, 0)?;
//!
//! let reader = Reader::attach(region.handle())?;
//! let mut value = Vec::new();
//! assert!(matches!(reader.get(b"key", 0, &mut value), Lookup::Hit(hit) if hit.deadline == 0));
//! assert_eq!(value, b"value");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod file;
mod header;
pub mod lane;
mod layout;
mod protocol;
mod reader;
mod region;
mod shards;
mod table;
mod words;
mod writer;

#[cfg(test)]
mod tests;

pub use file::{
    AttachError, Carried, FileError, Opened, open_or_create, open_or_create_unreserved,
};
pub use header::OpenError;
pub use layout::{
    KEY_MAX, LAYOUT_VERSION, OptionsError, PARTITIONS, RECORD_SIZE_MAX, RECORD_SIZE_MIN,
    SHARDS_MAX, Shape, TableOptions, VALUE_MAX, WAYS, shard_of,
};
pub use reader::{Hit, Lookup, Reader, SegmentStats, Standing, Used};
pub use region::{FileRegion, HeapRegion, Huge, Region, ReserveError};
pub use shards::{Shards, carry_shards, create_shards, open_shards, retire_shards};
pub use writer::{
    Admission, CreateError, EXPIRY_LATENESS_MS, ExpiredItem, Fate, Found, Full, Occupied, Put,
    PutError, Recovery, ScanItem, TableStats, Verified, WholeItem, Writer,
};
