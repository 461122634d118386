//! The mapping itself: the one file with `mmap` in it.

use std::fs::File;

use crate::mem::Media;
use crate::{Error, Result};

#[cfg(not(miri))]
pub(super) use system::Region;
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) use system::takes_sync;

#[cfg(miri)]
pub(super) use standin::Region;

#[cfg(not(miri))]
mod system {
    use core::ffi::c_void;
    use core::ptr::{NonNull, null_mut};
    use std::os::fd::AsFd;

    use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, mmap_anonymous, msync, munmap};

    use super::*;
    use crate::open::io_error;
    use crate::ram::HUGE_PAGE;

    /// A file mapped shared and whole, at an address that is a multiple of 2 MiB.
    ///
    /// A call with `MAP_FIXED` that fails may leave a gap in what was reserved. Another thread may get that gap for a
    /// mapping of its own, and to try again there, or to unmap the reservation, would take it from that thread. So what
    /// can be refused is asked for elsewhere first, and after a refusal all the same the reservation is left alone.
    #[derive(Debug)]
    pub(in crate::mmap) struct Region {
        /// Address space reserved, which holds the mapping.
        reserved: NonNull<c_void>,
        reserved_len: usize,
        base: NonNull<u8>,
        len: usize,
        media: Media,
    }

    // SAFETY: the region owns its mapping; what is behind it is only accessed through `mem`.
    unsafe impl Send for Region {}
    // SAFETY: as for `Send`; the region itself does not change.
    unsafe impl Sync for Region {}

    impl Region {
        /// Maps the first `len` bytes of `file`, `len > 0`, for reading or also for writing.
        pub(in crate::mmap) fn map(file: &File, len: u64, writable: bool) -> Result<Self> {
            let failed = |error: rustix::io::Errno| io_error("map", 0, error.into());
            let too_large = Error::Unsupported("an image larger than the address space");
            let len = usize::try_from(len).map_err(|_| too_large.clone())?;
            let reserved_len = len.checked_add(2 * HUGE_PAGE).ok_or(too_large)?;
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            // SAFETY: a new anonymous mapping at a place of the kernel's choice touches nothing of ours.
            let reserved = unsafe { mmap_anonymous(null_mut(), reserved_len, ProtFlags::empty(), flags) };
            let reserved = NonNull::new(reserved.map_err(failed)?)
                .ok_or(Error::Unsupported("a mapping at address 0"))?;
            let skip = reserved.addr().get().wrapping_neg() & (HUGE_PAGE - 1);
            // SAFETY: `skip < HUGE_PAGE < reserved_len`.
            let base = unsafe { reserved.cast::<u8>().add(skip) };
            let prot = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
            let persistent = writable && takes_sync(file);
            let (media, kind) = if persistent {
                (Media::Persistent, MapFlags::SHARED_VALIDATE | MapFlags::SYNC)
            } else {
                (Media::Volatile, MapFlags::SHARED)
            };
            // SAFETY: `base..base + len` lies in what we reserved, so it replaces only that.
            unsafe { mmap(base.as_ptr().cast(), len, prot, MapFlags::FIXED | kind, file, 0) }
                .map_err(failed)?;
            let region = Self { reserved, reserved_len, base, len, media };
            region.advise(file);
            Ok(region)
        }

        /// On tmpfs, allows 2 MiB pages where its `huge=` option says `advise`. Only there: elsewhere it
        /// makes the page cache read 2 MiB folios, and a store to one of those allocates all of its holes.
        #[cfg(target_os = "linux")]
        fn advise(&self, file: &File) {
            if crate::mmap::backing::is_tmpfs(file) {
                let at = self.base.as_ptr().cast();
                // SAFETY: the range is ours, and the advice changes no contents.
                let _ = unsafe { rustix::mm::madvise(at, self.len, rustix::mm::Advice::LinuxHugepage) };
            }
        }

        #[cfg(not(target_os = "linux"))]
        fn advise(&self, _file: &File) {}

        pub(in crate::mmap) fn base(&self) -> *mut u8 {
            self.base.as_ptr()
        }

        pub(in crate::mmap) fn media(&self) -> Media {
            self.media
        }

        /// Waits until the pages of the range are on the media. `offset` is a multiple of a page, and the
        /// range lies in the region.
        pub(in crate::mmap) fn sync(&self, _file: &File, offset: u64, len: u64) -> Result<()> {
            let (start, len) = (offset as usize, (len as usize).min(self.len - offset as usize));
            // SAFETY: the caller's promise: `offset` lies in the region.
            let at = unsafe { self.base.as_ptr().add(start) };
            // SAFETY: the range is mapped by us; writing it out changes no memory.
            unsafe { msync(at.cast(), len, MsyncFlags::SYNC) }
                .map_err(|error| io_error("flush", offset, error.into()))
        }

        /// Maps those pages of the range that are in memory. The range lies in the region.
        #[cfg(target_os = "linux")]
        pub(in crate::mmap) fn populate(&self, offset: u64, len: u64) {
            let page = rustix::param::page_size();
            // OK to cast: both lie in the region.
            let (mut at, end) = (offset as usize / page * page, (offset + len) as usize);
            let mut resident = [0_u8; 512];
            while at < end {
                let pages = (end - at).div_ceil(page).min(resident.len());
                // SAFETY: `at < end`, which is in the region or just past it.
                let start = unsafe { self.base.as_ptr().add(at) };
                // SAFETY: the pages are mapped by us, and there is a byte for each of them.
                if unsafe { libc::mincore(start.cast(), pages * page, resident.as_mut_ptr()) } != 0 {
                    return;
                }
                for run in resident[..pages].chunk_by(|a, b| a & 1 == b & 1) {
                    let len = run.len() * page;
                    if run[0] & 1 == 1 && self.populate_all(at, len).is_err() {
                        // A kernel before 5.14, or a page that has just gone.
                        return;
                    }
                    at += len;
                }
            }
        }

        /// Maps the pages of a range that begins with one, and has a byte of each in the region.
        #[cfg(target_os = "linux")]
        fn populate_all(&self, at: usize, len: usize) -> rustix::io::Result<()> {
            // SAFETY: the caller's promise: `at` lies in the region.
            let start = unsafe { self.base.as_ptr().add(at) };
            // SAFETY: the pages are mapped by us, and are only read.
            unsafe { rustix::mm::madvise(start.cast(), len, rustix::mm::Advice::LinuxPopulateRead) }
        }

        #[cfg(not(target_os = "linux"))]
        pub(in crate::mmap) fn populate(&self, _offset: u64, _len: u64) {}

        /// As [`sync`](Self::sync) for everything, size and block map of the file included.
        pub(in crate::mmap) fn sync_all(&self, file: &File) -> Result<()> {
            // The kernel knows the pages that were dirtied through the map, and writes them too.
            file.sync_data().map_err(|error| io_error("flush", 0, error))
        }
    }

    /// Whether a file can be mapped with `MAP_SYNC`, which is what says that it is persistent memory, so that a fence is
    /// enough for it.
    pub(crate) fn takes_sync(file: impl AsFd) -> bool {
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED_VALIDATE | MapFlags::SYNC);
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing of ours.
        let probe =
            cfg!(target_arch = "x86_64").then(|| unsafe { mmap(null_mut(), 1, prot, flags, file, 0) });
        let Some(Ok(probe)) = probe else { return false };
        // SAFETY: mapped just now, and shown to nobody.
        let _ = unsafe { munmap(probe, 1) };
        true
    }

    impl Drop for Region {
        fn drop(&mut self) {
            // SAFETY: reserved by us, mapped by nobody else, and every slice's borrow has ended.
            let unmapped = unsafe { munmap(self.reserved.as_ptr(), self.reserved_len) };
            if let Err(error) = unmapped {
                log::error!("an image stays mapped: {error}");
            }
        }
    }
}

/// Miri has no `mmap` of files, so the file is read into memory and written back when synced.
#[cfg(miri)]
mod standin {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::open::io_error;
    use crate::{Access, BlockDevice, DaxDevice, RamDevice};

    #[derive(Debug)]
    pub(in crate::mmap) struct Region {
        memory: RamDevice,
        writable: bool,
    }

    impl Region {
        pub(in crate::mmap) fn map(file: &File, len: u64, writable: bool) -> Result<Self> {
            let mut image = vec![0; len as usize];
            file.read_exact_at(&mut image, 0).map_err(|error| io_error("map", 0, error))?;
            Ok(Self { memory: RamDevice::from_bytes(&image)?, writable })
        }

        pub(in crate::mmap) fn base(&self) -> *mut u8 {
            let all = self.memory.direct_access(0, 1, Access::Write);
            all.map_or(core::ptr::null_mut(), |slice| slice.as_ptr())
        }

        pub(in crate::mmap) fn media(&self) -> Media {
            Media::Volatile
        }

        pub(in crate::mmap) fn sync(&self, file: &File, offset: u64, len: u64) -> Result<()> {
            if !self.writable {
                return Ok(());
            }
            let mut image = vec![0; len.min(self.memory.size() - offset) as usize];
            self.memory.read_at(offset, &mut image)?;
            file.write_all_at(&image, offset).map_err(|error| io_error("flush", offset, error))
        }

        pub(in crate::mmap) fn populate(&self, _offset: u64, _len: u64) {}

        pub(in crate::mmap) fn sync_all(&self, file: &File) -> Result<()> {
            self.sync(file, 0, self.memory.size())
        }
    }
}
