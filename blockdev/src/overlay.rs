//! Writes in memory above a device that stays as it is.
//!
//! # Invariants
//! 1. A page is below until its bit in `present` is set, and above from then on; bits are never cleared but
//!    by [`Overlay::reset`], which has the overlay to itself.
//! 2. A page is copied up under the lock of its stripe, and its bit is set when the copy is whole; so it is
//!    copied once, and nobody stores to it before.
//! 3. A slice only ever shows pages that are above. Slices for loading copy up too: one that showed the
//!    device below would miss what is written later.

use alloc::vec::Vec;
use portable_atomic::{AtomicU64, Ordering};

use crate::range::{check, check_words, page_run};
use crate::sync::Mutex;
use crate::{Access, BlockDevice, DaxDevice, Error, Extent, PAGE_SIZE, PmemSlice, RamDevice, Result};

/// Locks for copying up; pages of different stripes do not wait for each other.
const STRIPES: u64 = 64;

/// A golden image below, which is only read, and the pages written since in memory above. Everything that
/// is written is lost with the overlay. It has DAX whatever is below, in its own memory.
///
/// ```
/// use blockdev::{BlockDevice, Overlay, RamDevice};
///
/// let below = RamDevice::from_bytes(&[1; 8192])?;
/// let overlay = Overlay::new(&below)?;
/// overlay.write_at(0, &[2])?;
/// let (mut changed, mut kept) = ([0], [0]);
/// overlay.read_at(0, &mut changed)?;
/// below.read_at(0, &mut kept)?;
/// assert_eq!((changed, kept), ([2], [1]));
/// # Ok::<(), blockdev::Error>(())
/// ```
#[derive(Debug)]
pub struct Overlay<D> {
    lower: D,
    upper: RamDevice,
    present: Vec<AtomicU64>,
    copying: Vec<Mutex<()>>,
}

impl<D: BlockDevice> Overlay<D> {
    /// An overlay above `lower` that looks the same.
    ///
    /// # Errors
    /// `NoSpace` where there is not enough address space.
    pub fn new(lower: D) -> Result<Self> {
        let size = lower.size();
        let upper = RamDevice::new(size)?;
        let words = size.div_ceil(PAGE_SIZE).div_ceil(64);
        let present = (0..words).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { lower, upper, present, copying: (0..STRIPES).map(|_| Mutex::new(())).collect() })
    }

    /// The device below.
    pub fn lower(&self) -> &D {
        &self.lower
    }

    /// Pages that are held in memory.
    pub fn pages(&self) -> u64 {
        self.present.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// Forgets everything that was written.
    ///
    /// # Errors
    /// `NoSpace` as for [`new`](Self::new); the overlay is as before then.
    pub fn reset(&mut self) -> Result<()> {
        self.upper = RamDevice::new(self.lower.size())?;
        self.present.iter_mut().for_each(|word| *word.get_mut() = 0);
        Ok(())
    }

    #[inline]
    fn is_present(&self, page: u64) -> bool {
        self.present[(page / 64) as usize].load(Ordering::Acquire) >> (page % 64) & 1 == 1
    }

    /// Brings the page up, and tells whether it was below until now. With `Fill::Zero` its old contents are
    /// not wanted.
    fn bring_up(&self, page: u64, fill: Fill) -> Result<bool> {
        if self.is_present(page) {
            return Ok(false);
        }
        let _copying = self.copying[(page % STRIPES) as usize].lock();
        if self.is_present(page) {
            return Ok(false);
        }
        if fill == Fill::Copy {
            let (offset, len) = page_run(page, 1, self.upper.size())?;
            let mut buf = [0; PAGE_SIZE as usize];
            let buf = &mut buf[..len as usize];
            self.lower.read_at(offset, buf)?;
            if buf.iter().any(|&byte| byte != 0) {
                self.upper.write_at(offset, buf)?;
            }
        }
        self.present[(page / 64) as usize].fetch_or(1 << (page % 64), Ordering::Release);
        Ok(true)
    }

    /// As [`bring_up_range`](Self::bring_up_range) for a write of all of the range, which heals what it covers wholly: of such a
    /// page nobody can read the old contents, and so nobody misses them.
    fn bring_up_for_write(&self, offset: u64, len: u64) -> Result<()> {
        let end = offset + len;
        let pages = offset / PAGE_SIZE..end.div_ceil(PAGE_SIZE);
        let is_whole = |page: u64| {
            let start = page * PAGE_SIZE;
            start >= offset && start.saturating_add(PAGE_SIZE).min(self.size()) <= end
        };
        // What is covered in part comes first, so that nothing is changed where that cannot be read.
        pages
            .clone()
            .filter(|page| !is_whole(*page))
            .try_for_each(|page| self.bring_up(page, Fill::Copy).map(drop))?;
        pages.filter(|page| is_whole(*page)).try_for_each(|page| match self.bring_up(page, Fill::Copy) {
            Err(Error::Poisoned { .. }) => self.bring_up(page, Fill::Zero).map(drop),
            brought => brought.map(drop),
        })
    }

    fn bring_up_range(&self, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        (offset / PAGE_SIZE..=(offset + (len - 1)) / PAGE_SIZE)
            .try_for_each(|page| self.bring_up(page, Fill::Copy).map(|_| ()))
    }
}

/// What a page is to begin with above.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fill {
    Copy,
    /// Memory above is zero until it is written.
    Zero,
}

impl<D: BlockDevice> BlockDevice for Overlay<D> {
    fn size(&self) -> u64 {
        self.upper.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check(offset, buf.len() as u64, self.size())?;
        let mut done = 0;
        while done < buf.len() {
            // A run of pages that are all above, or all below.
            let at = offset + done as u64;
            let present = self.is_present(at / PAGE_SIZE);
            let mut len = (PAGE_SIZE - at % PAGE_SIZE) as usize;
            while done + len < buf.len() && self.is_present((at + len as u64) / PAGE_SIZE) == present {
                len += PAGE_SIZE as usize;
            }
            let len = len.min(buf.len() - done);
            let piece = &mut buf[done..done + len];
            if present {
                self.upper.read_at(at, piece)?
            } else {
                self.lower.read_at(at, piece)?
            }
            done += len;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let len = buf.len() as u64;
        check(offset, len, self.size())?;
        match self.bring_up_range(offset, len) {
            Err(Error::Poisoned { .. }) => self.bring_up_for_write(offset, len)?,
            brought => brought?,
        }
        self.upper.write_at(offset, buf)
    }

    fn write_words(&self, offset: u64, words: &[u32]) -> Result<()> {
        check_words(offset, words, self.size())?;
        self.bring_up_range(offset, size_of_val(words) as u64)?;
        self.upper.write_words(offset, words)
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        check(offset, len, self.size())?;
        let mut at = offset;
        let end = offset + len;
        while at < end {
            let page = at / PAGE_SIZE;
            let stop = end.min((page + 1).saturating_mul(PAGE_SIZE));
            // A page that is zeroed whole and not yet above needs no memory: it is zero there.
            let whole = stop - at == PAGE_SIZE;
            let fresh = self.bring_up(page, if whole { Fill::Zero } else { Fill::Copy })?;
            if !(whole && fresh) {
                self.upper.zero(at, stop - at)?;
            }
            at = stop;
        }
        Ok(())
    }

    fn fence(&self) -> Result<()> {
        self.upper.fence()
    }

    fn flush(&self) -> Result<()> {
        self.upper.flush()
    }

    fn extent(&self, offset: u64, len: u64) -> Result<(Extent, u64)> {
        check(offset, len, self.size())?;
        let page = offset / PAGE_SIZE;
        let present = self.is_present(page);
        let mut run = (PAGE_SIZE - offset % PAGE_SIZE).min(len);
        while run < len && self.is_present((offset + run) / PAGE_SIZE) == present {
            run = (run + PAGE_SIZE).min(len);
        }
        if present { Ok((Extent::Data, run)) } else { self.lower.extent(offset, run) }
    }

    fn dax(&self) -> Option<&dyn DaxDevice> {
        Some(self)
    }
}

impl<D: BlockDevice> DaxDevice for Overlay<D> {
    fn direct_access(&self, page: u64, count: u64, mode: Access) -> Result<PmemSlice<'_>> {
        page_run(page, count, self.size())?;
        let mut brought = 0;
        for at in page..page + count {
            match self.bring_up(at, Fill::Copy) {
                Ok(_) => {}
                // Only `recovery_write` is used on it, which brings up what it does not replace.
                Err(Error::Poisoned { .. }) if mode == Access::Recovery => {}
                Err(error) if brought == 0 => return Err(error),
                // The run ends before what cannot be read.
                Err(_) => break,
            }
            brought += 1;
        }
        self.upper.direct_access(page, brought, mode)
    }

    fn recovery_write(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.write_at(offset, buf)
    }

    fn write_back(&self, offset: u64, len: u64) -> Result<()> {
        self.upper.write_back(offset, len)
    }

    fn pfn(&self, page: u64) -> u64 {
        self.upper.pfn(page)
    }
}
