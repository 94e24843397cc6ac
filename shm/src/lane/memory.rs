//! The memory file of a lane, and sleeping on a word of it.

#![allow(unsafe_code, reason = "a mapping, and the word of it that the kernel looks at")]

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::thread::futex;
use rustix::time::Timespec;

use crate::lane::LaneError;
use crate::region::Region;
use crate::words::{Mapped, Words as _};

/// A mapped memory file that can neither shrink nor grow.
pub(super) struct MemoryFile {
    map: MmapRaw,
}

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

impl MemoryFile {
    /// Makes one, zeroed and reserved, and its descriptor to pass on.
    pub(super) fn create(bytes: usize) -> io::Result<(OwnedFd, Self)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = match rustix::fs::memfd_create("annulus-lane", flags | MemfdFlags::NOEXEC_SEAL) {
            // Linux before 6.3 does not know the flag.
            Err(Errno::INVAL) => rustix::fs::memfd_create("annulus-lane", flags)?,
            other => other?,
        };
        rustix::fs::ftruncate(&file, bytes as u64)?;
        // Memory that runs out is an error now, and not a signal later.
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes as u64)?;
        rustix::fs::fcntl_add_seals(&file, SEALS)?;
        let map = MmapOptions::new().len(bytes).map_raw(&file)?;
        Ok((file, Self { map }))
    }

    /// Maps one that was handed over, if it has this size for good.
    pub(super) fn open(file: OwnedFd, bytes: usize) -> Result<Self, LaneError> {
        let seals = rustix::fs::fcntl_get_seals(&file).map_err(io::Error::from)?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(LaneError::NotSealed);
        }
        let found = rustix::fs::fstat(&file).map_err(io::Error::from)?.st_size;
        if u64::try_from(found) != Ok(bytes as u64) {
            return Err(LaneError::Header("its size is another one"));
        }
        Ok(Self { map: MmapOptions::new().len(bytes).map_raw(&file)? })
    }
}

// SAFETY: the mapping is page-aligned, lives as long as `self`, and is handed out only here; `MmapRaw` forms no
// references. The other process may change the bytes, which is why they are accessed by atomics. The
// file is sealed against shrinking, so that all of its bytes stay there.
unsafe impl Region for MemoryFile {
    fn base(&self) -> NonNull<u8> {
        NonNull::new(self.map.as_mut_ptr()).expect("mmap never returns null")
    }

    fn len(&self) -> usize {
        self.map.len()
    }

    fn writable(&self) -> bool {
        true
    }
}

/// Sleeps until the word is woken, while its lower half is `seen`, at most `limit`. May return early.
pub(super) fn sleep(words: &Mapped, at: usize, seen: u32, limit: Duration) {
    let limit = Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    // Whatever the kernel says, the caller looks at the word again.
    let _ = futex::wait(half(words, at), futex::Flags::empty(), seen, Some(&limit));
}

/// Wakes all who sleep on the word.
pub(super) fn wake(words: &Mapped, at: usize) {
    let _ = futex::wake(half(words, at), futex::Flags::empty(), i32::MAX as u32);
}

/// The half of a word that holds its lower 32 bits. Only the kernel looks at it.
fn half(words: &Mapped, at: usize) -> &AtomicU32 {
    assert!(at < words.count(), "word within the lane");
    let offset = at * 8 + if cfg!(target_endian = "big") { 4 } else { 0 };
    // SAFETY: the four bytes are inside the region, which lives as long as `words` does, and aligned
    // to 4, since the base is aligned to 8. They are only passed to system calls, so that no access
    // of this size races with the 64-bit ones.
    unsafe { &*words.region().base().as_ptr().add(offset).cast::<AtomicU32>() }
}
