//! Zeroed memory aligned to 2 MiB, which costs nothing until it is touched.

use core::ptr::NonNull;

use super::HUGE_PAGE;
use crate::{Error, PAGE_SIZE, Result};

/// Owned memory, given back when dropped.
#[derive(Debug)]
pub(super) struct Memory {
    /// What the system gave.
    allocation: NonNull<u8>,
    /// Bytes of it.
    len: usize,
    /// The first byte that is used, a multiple of [`HUGE_PAGE`].
    base: NonNull<u8>,
}

impl Memory {
    /// At least `size` bytes, and whole pages of them.
    pub(super) fn zeroed(size: u64) -> Result<Self> {
        let no_space = Error::NoSpace { offset: size };
        // The system's own alignment is less than ours, so there is room to align within.
        let len = usize::try_from(size).ok().and_then(|size| {
            size.checked_next_multiple_of(PAGE_SIZE as usize)?.max(PAGE_SIZE as usize).checked_add(HUGE_PAGE)
        });
        let len = len.filter(|&len| len <= isize::MAX as usize).ok_or(no_space.clone())?;
        let allocation = system::allocate(len).ok_or(no_space)?;
        let skip = allocation.addr().get().wrapping_neg() & (HUGE_PAGE - 1);
        // SAFETY: `skip < HUGE_PAGE`, and the allocation is longer than that.
        let base = unsafe { allocation.add(skip) };
        Ok(Self { allocation, len, base })
    }

    #[inline(always)]
    pub(super) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this length, and dropped once.
        unsafe { system::free(self.allocation, self.len) };
    }
}

/// Straight from the kernel and without a reservation, so that a sparse device may be larger than memory.
#[cfg(all(feature = "std", not(miri)))]
mod system {
    use core::ptr::{NonNull, null_mut};

    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    pub(super) fn allocate(len: usize) -> Option<NonNull<u8>> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new anonymous mapping at a place of the kernel's choice touches nothing of ours.
        let mapped = unsafe { mmap_anonymous(null_mut(), len, prot, flags) };
        NonNull::new(mapped.ok()?.cast())
    }

    /// # Safety
    /// `at` came from [`allocate`] with `len`, and is not used again.
    pub(super) unsafe fn free(at: NonNull<u8>, len: usize) {
        // SAFETY: the caller's promise.
        let unmapped = unsafe { munmap(at.as_ptr().cast(), len) };
        if let Err(error) = unmapped {
            log::error!("a RAM device's memory is not given back: {error}");
        }
    }
}

/// From the allocator. Asking it for our alignment would make it zero by hand, touching every page.
#[cfg(not(all(feature = "std", not(miri))))]
mod system {
    use alloc::alloc::{Layout, alloc_zeroed, dealloc};
    use core::ptr::NonNull;

    const ALIGN: usize = 16;

    pub(super) fn allocate(len: usize) -> Option<NonNull<u8>> {
        let layout = Layout::from_size_align(len, ALIGN).ok()?;
        // SAFETY: the caller asks for at least a page, so the layout is not empty.
        NonNull::new(unsafe { alloc_zeroed(layout) })
    }

    /// # Safety
    /// `at` came from [`allocate`] with `len`, and is not used again.
    pub(super) unsafe fn free(at: NonNull<u8>, len: usize) {
        if let Ok(layout) = Layout::from_size_align(len, ALIGN) {
            // SAFETY: the caller's promise, and the same layout.
            unsafe { dealloc(at.as_ptr(), layout) };
        }
    }
}
