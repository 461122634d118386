//! Mappings that are kept for when there are no more.

use core::ffi::c_void;
use core::ptr::null_mut;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};

use super::space::failed;
use super::stage::unmap;
use crate::{PAGE_SIZE, Result};

/// Mappings (VMAs) of one page that nobody uses. A process that has as many as it may have, and has to take pages away from a
/// file's mapping, drops this first: to move one range over another takes a few for a moment.
#[derive(Debug)]
pub struct Reserve {
    start: *mut c_void,
    len: u64,
}

// SAFETY: addresses that nobody uses.
unsafe impl Send for Reserve {}

impl Reserve {
    /// Takes so many.
    ///
    /// # Errors
    /// `Io`: `ENOMEM` where there are none left.
    pub fn take(mappings: u64) -> Result<Self> {
        let len = mappings.max(1) * PAGE_SIZE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing of ours.
        let start = unsafe { mmap_anonymous(null_mut(), len as usize, ProtFlags::empty(), flags) };
        let reserve = Self { start: start.map_err(|error| failed("map", 0, error))?, len };
        // Neighbours with other rights are mappings of their own.
        for at in (PAGE_SIZE..len).step_by(2 * PAGE_SIZE as usize) {
            let page = reserve.start.cast::<u8>().wrapping_add(at as usize).cast();
            // SAFETY: a page of ours, which nobody uses.
            unsafe { mprotect(page, PAGE_SIZE as usize, MprotectFlags::READ) }
                .map_err(|error| failed("protect", 0, error))?;
        }
        Ok(reserve)
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        unmap(self.start, self.len);
    }
}
