//! A device in the process's own memory.

use alloc::vec::Vec;
use core::fmt;

use crate::mem::{self, Media};
use crate::poison::PoisonSet;
use crate::range::{check, check_words, page_run};
use crate::{Access, BlockDevice, DaxDevice, Error, PAGE_SIZE, PmemSlice, Result};

mod memory;

use memory::Memory;

/// Bytes to which the memory of a device is aligned, so that 2 MiB mappings are possible.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// The frame number given to page 0 of a device that is not at a known physical place: 4 GiB, where
/// `memmap=…!4G` puts emulated pmem.
pub(crate) const FIRST_PFN: u64 = 1 << 20;

/// A RAM disk that is also memory: the device for tests, and for scratch file systems.
///
/// Its memory is zeroed by the system when first touched, so a large device costs only what is used of
/// it. Pages can be [poisoned](Self::poison), as bad pmem is. Nothing of it is durable; `fence` and
/// `flush` only order.
///
/// Its page frame numbers are those of a pmem device at 4 GiB whatever the addresses are, so that traces
/// of two runs are the same.
///
/// ```
/// use blockdev::{BlockDevice, RamDevice};
///
/// let ram = RamDevice::new(1 << 20)?;
/// ram.write_at(4096, b"bytes")?;
/// assert_eq!(&ram.to_vec()[4096..4101], b"bytes");
/// # Ok::<(), blockdev::Error>(())
/// ```
pub struct RamDevice {
    memory: Memory,
    size: u64,
    media: Media,
    poison: PoisonSet,
}

// SAFETY: the device owns its memory, and accesses it only through `mem`, which is made for memory that
// many threads use at once.
unsafe impl Send for RamDevice {}
// SAFETY: as for `Send`.
unsafe impl Sync for RamDevice {}

impl fmt::Debug for RamDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RamDevice").field("size", &self.size).finish_non_exhaustive()
    }
}

impl RamDevice {
    /// A device of `size` zero bytes.
    ///
    /// # Errors
    /// `NoSpace` when there is not so much memory (or address space).
    pub fn new(size: u64) -> Result<Self> {
        Self::with_media(size, Media::Volatile)
    }

    /// As [`new`](Self::new), and with [`Media::Persistent`] stored to as if it were pmem: by streaming
    /// stores, cache line write-backs and store fences. For measuring what they cost, and for testing them.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with_media(size: u64, media: Media) -> Result<Self> {
        Ok(Self { memory: Memory::zeroed(size)?, size, media, poison: PoisonSet::default() })
    }

    /// A device that begins as a copy of `image`. Zero pages of the image are not touched.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn from_bytes(image: &[u8]) -> Result<Self> {
        let device = Self::new(image.len() as u64)?;
        for (piece, offset) in image.chunks(PAGE_SIZE as usize).zip((0..).step_by(PAGE_SIZE as usize)) {
            if piece.iter().any(|&byte| byte != 0) {
                device.write_at(offset, piece)?;
            }
        }
        Ok(device)
    }

    /// A copy of the whole device, poisoned pages included, as they were before they were poisoned.
    pub fn to_vec(&self) -> Vec<u8> {
        // OK to cast: the device was allocated.
        let mut image = alloc::vec![0; self.size as usize];
        // SAFETY: the device's memory has `size` bytes.
        let copied = unsafe { mem::copy_out(self.memory.base(), &mut image) };
        if copied.is_err() {
            log::error!("memory of a RAM device went bad");
        }
        image
    }

    /// Makes `page` unreadable until it is written whole or [healed](Self::heal).
    ///
    /// # Errors
    /// `OutOfRange`.
    pub fn poison(&self, page: u64) -> Result<()> {
        page_run(page, 1, self.size)?;
        self.poison.insert(page);
        Ok(())
    }

    /// Makes `page` readable again; it has the contents from before.
    pub fn heal(&self, page: u64) {
        self.poison.remove(page);
    }

    /// Asks the system for 2 MiB pages: fewer faults for a device that will be used whole, more memory
    /// for one that is sparse. Linux: `MADV_HUGEPAGE`.
    #[cfg(feature = "std")]
    pub fn advise_huge_pages(&self) {
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            let len = (self.size as usize).next_multiple_of(PAGE_SIZE as usize);
            let base = self.memory.base().cast();
            // SAFETY: the range is ours, page aligned, and the advice changes no contents.
            let advised = unsafe { rustix::mm::madvise(base, len, rustix::mm::Advice::LinuxHugepage) };
            if let Err(error) = advised {
                log::debug!("no huge pages for a RAM device: {error}");
            }
        }
    }

    /// The address of `offset` when `len` bytes from there lie in the device.
    #[inline(always)]
    fn at(&self, offset: u64, len: usize) -> Result<*mut u8> {
        check(offset, len as u64, self.size)?;
        // SAFETY: `offset <= size`, so the pointer stays within, or one past, the allocation.
        Ok(unsafe { self.memory.base().add(offset as usize) })
    }
}

impl BlockDevice for RamDevice {
    #[inline]
    fn size(&self) -> u64 {
        self.size
    }

    #[inline]
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let at = self.at(offset, buf.len())?;
        self.poison.check(offset, buf.len() as u64)?;
        // SAFETY: `at` found the bytes to lie in our memory.
        unsafe { mem::copy_out(at, buf) }.map_err(|fault| fault.error("load", at, buf.len(), offset))
    }

    #[inline]
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let at = self.at(offset, buf.len())?;
        self.poison.heal_for_write(offset, buf.len() as u64, self.size)?;
        // SAFETY: `at` found the bytes to lie in our memory.
        unsafe { mem::copy_in(at, buf, self.media) }
            .map_err(|fault| fault.error("store", at, buf.len(), offset))
    }

    fn write_words(&self, offset: u64, words: &[u32]) -> Result<()> {
        check_words(offset, words, self.size)?;
        let at = self.at(offset, size_of_val(words))?;
        self.poison.heal_for_write(offset, size_of_val(words) as u64, self.size)?;
        // SAFETY: `at` found the bytes to lie in our memory, which is aligned, as the offset is.
        unsafe { mem::store_words(at, words, self.media) }
            .map_err(|fault| fault.error("store", at, size_of_val(words), offset))
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        check(offset, len, self.size)?;
        // OK to cast: `len` is at most the size, which was allocated.
        let len = len as usize;
        let at = self.at(offset, len)?;
        self.poison.heal_for_write(offset, len as u64, self.size)?;
        // SAFETY: `at` found the bytes to lie in our memory.
        unsafe { mem::zero(at, len, self.media) }.map_err(|fault| fault.error("store", at, len, offset))
    }

    #[inline]
    fn fence(&self) -> Result<()> {
        mem::store_fence(self.media);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.fence()
    }

    fn dax(&self) -> Option<&dyn DaxDevice> {
        Some(self)
    }
}

impl DaxDevice for RamDevice {
    fn direct_access(&self, page: u64, count: u64, mode: Access) -> Result<PmemSlice<'_>> {
        let (offset, mut len) = page_run(page, count, self.size)?;
        if mode != Access::Recovery
            && let Some(poisoned) = self.poison.first_in(offset, len)
        {
            len = poisoned * PAGE_SIZE - offset.min(poisoned * PAGE_SIZE);
            if len == 0 {
                return Err(Error::Poisoned { offset });
            }
        }
        // OK to cast: within the size, which was allocated.
        let at = self.at(offset, len as usize)?;
        // SAFETY: the run lies in our memory, which lives as long as `self` is borrowed, is written only
        // through `mem`, and whose end as an offset is at most the size.
        Ok(unsafe { PmemSlice::from_raw_parts(at, len as usize, offset, self.media, mode) })
    }

    fn recovery_write(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.write_at(offset, buf)
    }

    fn write_back(&self, offset: u64, len: u64) -> Result<()> {
        check(offset, len, self.size)?;
        if self.media == Media::Persistent {
            // OK to cast: within the size, which was allocated.
            let at = self.at(offset, len as usize)?;
            // SAFETY: `at` found the bytes to lie in our memory.
            unsafe { mem::write_back(at, len as usize) }
                .map_err(|fault| fault.error("flush", at, len as usize, offset))?;
        }
        Ok(())
    }

    #[inline]
    fn pfn(&self, page: u64) -> u64 {
        FIRST_PFN.saturating_add(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_device_costs_nothing_until_touched() {
        // An allocator reserves what it gives; the system itself does not have to. Words of 32 bits reach 4 GiB in all.
        let size = match (cfg!(target_pointer_width = "64"), cfg!(feature = "std")) {
            (true, true) => 64 << 30,
            (true, false) => 4 << 30,
            (false, _) => 1 << 30,
        };
        let device = RamDevice::new(size).unwrap();
        device.write_at(size - 4, b"last").unwrap();
        let mut buf = [1; 8];
        device.read_at(size - 8, &mut buf).unwrap();
        assert_eq!(&buf, b"\0\0\0\0last");
    }

    #[test]
    fn an_impossible_device_is_an_error() {
        assert!(matches!(RamDevice::new(u64::MAX), Err(Error::NoSpace { .. })));
        assert!(RamDevice::new(0).is_ok());
    }

    #[test]
    fn a_poisoned_page_is_unreadable_until_written_whole() {
        let device = RamDevice::new(16384).unwrap();
        device.poison(1).unwrap();
        let mut page = [0; 4096];
        assert_eq!(device.read_at(8191, &mut page[..1]), Err(Error::Poisoned { offset: 4096 }));
        assert!(device.read_at(8192, &mut page).is_ok());
        assert_eq!(device.write_at(4000, &page), Err(Error::Poisoned { offset: 4096 }));
        assert_eq!(device.direct_access(0, 4, Access::Read).unwrap().len(), 4096);
        assert_eq!(device.direct_access(1, 1, Access::Write).unwrap_err(), Error::Poisoned { offset: 4096 });
        assert_eq!(device.direct_access(1, 1, Access::Recovery).unwrap().len(), 4096);
        device.recovery_write(4096, &[7; 4096]).unwrap();
        device.read_at(4096, &mut page).unwrap();
        assert_eq!(page, [7; 4096]);
        assert_eq!(device.direct_access(0, 4, Access::Read).unwrap().len(), 16384);
    }
}
