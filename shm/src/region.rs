//! Memory that a table lives in: a mapped file, or heap memory.

#![allow(unsafe_code, reason = "the contract of `Region` is a promise about memory")]

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};

/// A piece of memory for a segment.
///
/// # Safety
///
/// For as long as the value lives: `base()` is the same pointer, a multiple of 8, to `len()` readable bytes
/// (`len()` is always the same), which may be written too if `writable()`; and everybody in this process
/// accesses them through 64-bit atomics only, and forms no reference to them but to `AtomicU64`.
pub unsafe trait Region: Send + Sync {
    /// The first byte.
    fn base(&self) -> NonNull<u8>;
    /// Size in bytes.
    fn len(&self) -> usize;
    /// Whether stores are allowed.
    fn writable(&self) -> bool;
    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Names the monotonic clock that times in this segment are measured by: another number after a reboot.
    fn clock_domain(&self) -> u64 {
        0
    }
}

/// Heap memory as a region, for simulations, tests and Miri. Clones share the memory, which thus survives the
/// writer that filled it.
#[derive(Clone)]
pub struct HeapRegion {
    lines: Arc<[CacheLine]>,
}

#[repr(C, align(64))]
struct CacheLine([AtomicU64; 8]);

impl HeapRegion {
    /// Zeroed memory of at least `size` bytes.
    pub fn new(size: usize) -> Self {
        Self { lines: (0..size.div_ceil(64)).map(|_| CacheLine(Default::default())).collect() }
    }

    /// The same memory as a region for [`Writer`](crate::Writer) or [`Reader`](crate::Reader).
    pub fn handle(&self) -> Arc<dyn Region> {
        Arc::new(self.clone())
    }

    /// The words, for tests and simulations that damage them or that simulate a reboot.
    pub fn words(&self) -> impl Iterator<Item = &AtomicU64> {
        self.lines.iter().flat_map(|line| &line.0)
    }
}

// SAFETY: the memory belongs to `self.lines`, is 64-byte aligned and made of `AtomicU64`, which is all that anybody
// sees of it.
unsafe impl Region for HeapRegion {
    fn base(&self) -> NonNull<u8> {
        NonNull::from(&*self.lines).cast()
    }

    fn len(&self) -> usize {
        size_of_val(&*self.lines)
    }

    fn writable(&self) -> bool {
        true
    }
}

/// A mapped file. Made by [`open_or_create`](crate::open_or_create) and
/// [`Reader::attach_file`](crate::Reader::attach_file).
///
/// The file must keep its size: shortening a mapped file kills those that touch the missing part (SIGBUS). A
/// reader's descriptor cannot do that; processes with the writer's user id can, and are trusted.
pub struct FileRegion {
    map: MmapRaw,
    writable: bool,
    clock_domain: u64,
    // Holds the lock of a writer until the region is dropped.
    _file: File,
}

impl FileRegion {
    /// Maps a locked file for its writer.
    pub(crate) fn map_writable(file: File) -> io::Result<Self> {
        let map = MmapOptions::new().map_raw(&file)?;
        Ok(Self { map, writable: true, clock_domain: boot_number(), _file: file })
    }

    /// Maps a file strictly read-only.
    pub(crate) fn map_read_only(file: File) -> io::Result<Self> {
        let map = MmapOptions::new().map_raw_read_only(&file)?;
        Ok(Self { map, writable: false, clock_domain: boot_number(), _file: file })
    }
}

// SAFETY: the mapping is page-aligned, lives as long as `self`, and is handed out only here; `MmapRaw` forms no
// references. Other processes may change the bytes, which is why they are accessed by atomics. The size of the file
// is promised by its owner (see the type's documentation).
unsafe impl Region for FileRegion {
    fn base(&self) -> NonNull<u8> {
        NonNull::new(self.map.as_mut_ptr()).expect("mmap never returns null")
    }

    fn len(&self) -> usize {
        self.map.len()
    }

    fn writable(&self) -> bool {
        self.writable
    }

    fn clock_domain(&self) -> u64 {
        self.clock_domain
    }
}

/// A number for the current boot of this machine, 0 if it cannot be known. Files outside a tmpfs survive a reboot,
/// and the monotonic times in them then mean nothing.
fn boot_number() -> u64 {
    std::fs::read("/proc/sys/kernel/random/boot_id")
        .map_or(0, |id| twox_hash::XxHash3_64::oneshot(&id))
}
