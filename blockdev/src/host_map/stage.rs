//! Ranges that are prepared before they are seen.

use core::ffi::c_void;
use core::ptr::null_mut;
use std::io;

use rustix::mm::{
    Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munlock, munmap,
};

use super::huge_zero_page;
use super::space::failed;
use crate::open::io_error;
use crate::{Error, PAGE_SIZE, Result};

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

/// Anonymous memory at an address that is `residue` modulo `align`, with a page on both sides that nobody may use. Without these
/// the kernel makes it part of what lies beside it, a heap as likely as not, and whoever has touched that has made its pages a
/// mapping of their own, wherever they are moved to.
fn between_guards(len: u64, align: u64, residue: u64, prot: ProtFlags) -> Result<*mut c_void> {
    let too_large = Error::Unsupported("larger than the address space");
    let whole = len.checked_add(align + 2 * PAGE_SIZE).filter(|whole| usize::try_from(*whole).is_ok());
    let whole = whole.ok_or(too_large)?;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a new mapping at a place of the kernel's choice touches nothing of ours. OK to cast: it was tried.
    let guards = unsafe { mmap_anonymous(null_mut(), whole as usize, ProtFlags::empty(), flags) };
    let guards = guards.map_err(|error| failed("map", 0, error))?.cast::<u8>();
    let first = guards.addr() as u64 + PAGE_SIZE;
    let skip = (residue + align - first % align) % align;
    // OK to cast: less than what was mapped.
    let before = guards.wrapping_add(skip as usize);
    let (start, end) =
        (before.wrapping_add(PAGE_SIZE as usize), before.wrapping_add((PAGE_SIZE + len) as usize));
    let rights = MprotectFlags::from_bits_retain(prot.bits());
    // By rights alone: another mapping in their place could fail when they are gone, and leave their addresses to anybody.
    // SAFETY: pages of the guards, which nobody uses. OK to cast: less than what was mapped.
    if let Err(error) = unsafe { mprotect(start.cast(), len as usize, rights) } {
        unmap(guards.cast(), whole);
        return Err(failed("protect", 0, error));
    }
    unmap(guards.cast(), skip);
    unmap(end.wrapping_add(PAGE_SIZE as usize).cast(), align - skip);
    forget_locked(start.cast(), len);
    Ok(start.cast())
}

/// Takes the pages away that nobody may use.
fn unguard(start: *mut c_void, len: u64) {
    unmap(start.cast::<u8>().wrapping_sub(PAGE_SIZE as usize).cast(), PAGE_SIZE);
    // OK to cast: it is mapped.
    unmap(start.cast::<u8>().wrapping_add(len as usize).cast(), PAGE_SIZE);
}

/// Anonymous memory at an address that is `residue` modulo 2 MiB.
pub(super) fn anonymous(len: u64, residue: u64, prot: ProtFlags) -> Result<*mut c_void> {
    between_guards(len, HUGE, residue, prot).inspect(|start| unguard(*start, len))
}

/// A range that is prepared, to be moved to where it is seen.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) start: *mut c_void,
    len: u64,
}

impl Stage {
    pub(super) fn new(len: u64, residue: u64, prot: ProtFlags) -> Result<Self> {
        let (align, residue) = if len < HUGE { (PAGE_SIZE, 0) } else { (HUGE, residue) };
        Ok(Self { start: between_guards(len, align, residue, prot)?, len })
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
        // Without its guards there is nothing to take away once it is moved.
        let stage = core::mem::ManuallyDrop::new(self);
        let len = stage.len as usize;
        unguard(stage.start, stage.len);
        // By hand: rustix 1.1 over libc gives this call the flag of another one.
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: the callers' promise is that the target lies in a space of theirs, whose pages may be replaced; the stage
        // is ours, and nobody else has its address.
        let moved = unsafe { libc::mremap(stage.start, len, len, flags, target) };
        if moved == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            unmap(stage.start, stage.len);
            return Err(io_error("move", 0, error));
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let first = self.start.cast::<u8>().wrapping_sub(PAGE_SIZE as usize).cast();
        unmap(first, self.len + 2 * PAGE_SIZE);
    }
}
