//! Ranges that are prepared before they are seen.

use core::ffi::c_void;
use core::ptr::null_mut;
use std::io;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munlock, munmap};

use super::huge_zero_page;
use super::space::failed;
use crate::open::io_error;
use crate::{Error, Result};

/// What a page of 2 MiB has.
pub(super) const HUGE: u64 = 2 << 20;
/// Units of zeros that are mapped when they are placed.
const ZEROS_AT_ONCE: u64 = 512;

pub(super) fn unmap(start: *mut c_void, len: u64) {
    if len == 0 {
        return;
    }
    // SAFETY: the callers mapped it, and nobody else has its address.
    if let Err(error) = unsafe { munmap(start, len as usize) } {
        log::error!("addresses stay reserved: {error}");
    }
}

/// Takes away what `mlockall(MCL_FUTURE)` put into memory that was just made: a page that is there is not missing.
fn forget_locked(start: *mut c_void, len: u64) {
    // SAFETY: pages of ours. OK to cast: they are mapped.
    let _ = unsafe { munlock(start, len as usize) };
    // SAFETY: nobody has stored to them yet.
    let _ = unsafe { madvise(start, len as usize, Advice::LinuxDontNeed) };
}

/// Anonymous memory at an address that is `residue` modulo 2 MiB.
pub(super) fn anonymous(len: u64, residue: u64, prot: ProtFlags) -> Result<*mut c_void> {
    let too_large = Error::Unsupported("larger than the address space");
    let whole = len.checked_add(HUGE).and_then(|whole| usize::try_from(whole).ok()).ok_or(too_large)?;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a new mapping at a place of the kernel's choice touches nothing of ours.
    let start =
        unsafe { mmap_anonymous(null_mut(), whole, prot, flags) }.map_err(|error| failed("map", 0, error))?;
    let skip = (residue + HUGE - start.addr() as u64 % HUGE) % HUGE;
    // OK to cast: less than what was mapped.
    let wanted = start.cast::<u8>().wrapping_add(skip as usize).cast::<c_void>();
    unmap(start, skip);
    unmap(wanted.cast::<u8>().wrapping_add(len as usize).cast(), HUGE - skip);
    forget_locked(wanted, len);
    Ok(wanted)
}

/// A range that is prepared, to be moved to where it is seen.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) start: *mut c_void,
    len: u64,
}

impl Stage {
    pub(super) fn new(len: u64, residue: u64, prot: ProtFlags) -> Result<Self> {
        if len < HUGE {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            // SAFETY: a new mapping at a place of the kernel's choice. OK to cast: less than 2 MiB.
            let start = unsafe { mmap_anonymous(null_mut(), len as usize, prot, flags) };
            let start = start.map_err(|error| failed("map", 0, error))?;
            forget_locked(start, len);
            return Ok(Self { start, len });
        }
        Ok(Self { start: anonymous(len, residue, prot)?, len })
    }

    /// Maps the huge zero page to the whole units.
    pub(super) fn populate_zeros(&self) {
        let start = self.start.addr() as u64;
        let (first, end) = (start.next_multiple_of(HUGE), (start + self.len) / HUGE * HUGE);
        if end <= first || !huge_zero_page() {
            return;
        }
        // All of it, so that it stays one mapping, as a move needs.
        // SAFETY: a hint about pages of ours.
        let _ = unsafe { madvise(self.start, self.len as usize, Advice::LinuxHugepage) };
        // OK to cast: inside the stage.
        let at = self.start.cast::<u8>().wrapping_add((first - start) as usize).cast::<c_void>();
        if end - first <= ZEROS_AT_ONCE * HUGE {
            // SAFETY: pages of ours, which are only read.
            let _ = unsafe { madvise(at, (end - first) as usize, Advice::LinuxPopulateRead) };
        }
    }

    /// Lets a store make one page of 4 KiB private, and nothing put such pages together afterwards: neither the first
    /// store nor the kernel's thread that looks for pages of 2 MiB.
    pub(super) fn keep_pages_small(&self) {
        // SAFETY: a hint about pages of ours. OK to cast: they are mapped.
        let _ = unsafe { madvise(self.start, self.len as usize, Advice::LinuxNoHugepage) };
    }

    /// Moves it over what is at `target`, in one step.
    pub(super) fn put(self, target: *mut c_void) -> Result<()> {
        let len = self.len as usize;
        // By hand: rustix 1.1 over libc gives this call the flag of another one.
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: the callers' promise is that the target lies in a space of theirs, whose pages may be replaced; the stage
        // is ours, and nobody else has its address.
        let moved = unsafe { libc::mremap(self.start, len, len, flags, target) };
        if moved == libc::MAP_FAILED {
            return Err(io_error("move", 0, io::Error::last_os_error()));
        }
        core::mem::forget(self);
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        unmap(self.start, self.len);
    }
}
