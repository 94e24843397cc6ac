//! A segment mapped by hand: on pages of a chosen size, and copied from without any table.

#![allow(unsafe_code, reason = "mapping, advice and plain copies are promises about memory")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;

use annulus_shm::Region;
use anyhow::{Context, ensure};

/// A file mapped read-only at a multiple of 2 MiB.
pub(super) struct Mapping {
    base: NonNull<u8>,
    size: usize,
    reserved: NonNull<u8>,
    reserved_size: usize,
    clock_domain: u64,
}

/// What pages the processor sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    Small,
    Large,
}

const LARGE: usize = 2 << 20;
/// `MADV_COLLAPSE`, since Linux 6.1.
const COLLAPSE: i32 = 25;
const COLLAPSE_TRIES: usize = 20;

impl Mapping {
    /// Maps a file. `clock_domain` is that of the region which the segment's writer has.
    ///
    /// # Errors
    /// If the file cannot be mapped, or its pages not be made large ones where those are asked for.
    pub(super) fn of(path: &Path, pages: Pages, clock_domain: u64) -> anyhow::Result<Self> {
        let file = File::open(path)?;
        let size = usize::try_from(file.metadata()?.len())?;
        let reserved_size = size + LARGE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let reserved = unsafe {
            libc::mmap(std::ptr::null_mut(), reserved_size, libc::PROT_NONE, flags, -1, 0)
        };
        ensure!(reserved != libc::MAP_FAILED, "no addresses: {}", std::io::Error::last_os_error());
        let reserved = NonNull::new(reserved.cast::<u8>()).context("a mapping is not null")?;
        let base = NonNull::new(reserved.as_ptr().map_addr(|at| at.next_multiple_of(LARGE)))
            .context("a mapping is not null")?;
        let mapping = Self { base, size, reserved, reserved_size, clock_domain };
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: these addresses were reserved above, and nothing else is there.
        let mapped = unsafe {
            let at = base.as_ptr().cast();
            libc::mmap(at, size, libc::PROT_READ, flags, file.as_raw_fd(), 0)
        };
        ensure!(mapped != libc::MAP_FAILED, "not mapped: {}", std::io::Error::last_os_error());
        if pages == Pages::Large {
            // The rest of the last large page stays on small ones.
            // SAFETY: advice about our own mapping, which changes none of its bytes.
            let collapse = || unsafe { libc::madvise(mapped, size / LARGE * LARGE, COLLAPSE) };
            // Pages that the kernel has in hand for a moment are "temporarily unavailable".
            let done = (0..COLLAPSE_TRIES).any(|_| collapse() == 0);
            ensure!(done, "no large pages: {}", std::io::Error::last_os_error());
        }
        Ok(mapping)
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Copies bytes as fast as the memory gives them. Only while nobody writes the file.
    #[inline]
    pub(super) fn copy<const N: usize>(&self, at: usize, out: &mut [u8; N]) {
        assert!(at <= self.size && N <= self.size - at, "within the mapping");
        // SAFETY: in bounds by the assertion, and the writer is asleep while the floor is measured.
        unsafe { self.base.as_ptr().add(at).copy_to_nonoverlapping(out.as_mut_ptr(), N) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: reserved by `of` with this size; nobody else knows the addresses.
        unsafe { libc::munmap(self.reserved.as_ptr().cast(), self.reserved_size) };
    }
}

// SAFETY: the addresses belong to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; this side only reads.
unsafe impl Sync for Mapping {}

// SAFETY: the pages live as long as `self`, page-aligned, readable only; other processes may change
// them, and in this one they are read through `annulus_shm`'s atomics or while nobody writes.
unsafe impl Region for Mapping {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.size
    }

    fn writable(&self) -> bool {
        false
    }

    fn clock_domain(&self) -> u64 {
        self.clock_domain
    }
}
