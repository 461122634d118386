//! A range of a file whose memory somebody uses directly.

use std::ops::Range;
use std::sync::Arc;

use blockdev::{Access, PmemSlice};
use ext2_core::plumbing::{Plumbing, Publisher};
use ext2_core::sync::Mended;

use super::inner::{FileInner, MAX_BYTES};
use crate::entry::PAGE_SIZE;
use crate::error::{Errno, Error, Result};
use crate::fault::DaxInode;
use crate::iomap::{IomapOps, OpFlags};
use crate::iter::{IomapIter, Step};
use crate::lease::PageLease;

/// The blocks of a byte range, which stay where they are, and the file's, until this and its clones are dropped.
///
/// ```
/// use blockdev::Access;
/// use ext2_core::Follow;
/// use ext2_dax::{DaxFs, DaxOptions, File, Leased, OpenFor, Wait};
/// # let fs = ext2_core::Ext2::open(ext2_image::mkfs::in_memory(16 << 20)?, &Default::default())?;
///
/// fs.write("data", vec![1; 8192])?;
/// let file = File::open(&DaxFs::new(fs.clone(), DaxOptions::default()), fs.resolve("data", Follow::Yes)?, OpenFor::Writing)?;
/// let lease = file.lease(0..8192, Access::Write)?;
/// for (_, part) in lease.parts()? {
///     if let Leased::Memory(memory) = part {
///         memory.copy_in(0, b"stored")?;
///     }
/// }
/// assert_eq!(lease.runs()?.iter().map(|run| run.len).sum::<u64>(), 8192);
/// assert!(file.truncate(0, Wait::No).is_err(), "the memory is lent");
/// lease.sync()?;
/// drop(lease);
/// assert_eq!(&fs.read("data")?[..6], b"stored");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// What it gives is what the file has at that moment: a hole that is filled later is found by asking again. Bytes past
/// the end of the file are hole, whatever lies there.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Held>);

#[derive(Debug)]
struct Held {
    file: Arc<FileInner>,
    range: Range<u64>,
    access: Access,
    pages: PageLease,
}

/// A part of a lease that is one thing.
#[derive(Clone, Copy, Debug)]
pub enum Leased<'a> {
    /// So many bytes of hole.
    Hole(u64),
    /// Memory of the device.
    Memory(PmemSlice<'a>),
}

/// A part of a lease that keeps the lease, to be held for as long as somebody likes.
#[derive(Clone, Debug)]
pub struct LeasedPart {
    lease: Lease,
    start: u64,
    len: u64,
    /// The device's byte; none for a hole.
    device_byte: Option<u64>,
}

/// A run of a leased range that is one thing on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeasedRun {
    /// The file byte at which it begins.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// The byte of the device at which it begins; `None` for a hole.
    pub device_byte: Option<u64>,
}

/// File byte, device byte (none for a hole), bytes.
type Run = (u64, Option<u64>, u64);

impl Lease {
    pub(super) fn take(file: Arc<FileInner>, range: Range<u64>, access: Access) -> Result<Self> {
        file.fs.check_dax()?;
        match access {
            Access::Read => {}
            Access::Write if Mended::LeaseAsksNobody.is_back() => {}
            Access::Write => file.check_store()?,
            Access::Recovery => {
                return Err(Error::refused(Errno::INVAL, "memory is leased to be read or written"));
            }
        }
        let most = if Mended::LeaseTooLong.is_back() { u64::MAX } else { MAX_BYTES };
        let range = range.start..range.end.min(most);
        if range.is_empty() {
            return Err(Error::refused(Errno::INVAL, "an empty range: a lease has one byte at least"));
        }
        let pages = range.start / PAGE_SIZE..range.end.div_ceil(PAGE_SIZE);
        let (pages, runs) = PageLease::take(&file.pages, pages, || runs(&file, range.clone()));
        runs?;
        Ok(Self(Arc::new(Held { file, range, access, pages })))
    }

    /// The bytes of the file.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.0.range.clone()
    }

    /// What the range is now. The blocks of an earlier answer are among those of a later one.
    fn look(&self) -> Result<Vec<Run>> {
        let held = &*self.0;
        held.pages.look_again(|| {
            if held.access == Access::Write {
                // Memory that was given before the file system was closed cannot be taken back; no more is given.
                held.file.inode.check_store()?;
            }
            let runs = runs(&held.file, held.range.clone())?;
            if held.access == Access::Write {
                let lent = runs.iter().filter_map(|(_, byte, len)| byte.map(|byte| byte..byte + len));
                held.pages.lend(lent.collect());
                held.file.inode.touch_modified();
                // While nothing can be taken from the file: who is told looks at its map.
                held.file.inode.tell_found(held.range.clone(), Publisher::Call);
            }
            Ok(runs)
        })
    }

    /// The parts of the range in order, with the file byte at which each begins. A part of memory ends
    /// where the device's next run begins.
    ///
    /// # Errors
    /// The device's, poison included; the image's; for a lease to write, `EROFS` and `EPERM` where stores were forbidden
    /// meanwhile.
    pub fn parts(&self) -> Result<Vec<(u64, Leased<'_>)>> {
        let mut parts = Vec::new();
        for (start, byte, len) in self.look()? {
            let Some(byte) = byte else {
                parts.push((start, Leased::Hole(len)));
                continue;
            };
            let mut done = 0;
            while done < len {
                let run = self.0.memory(byte + done, len - done)?;
                parts.push((start + done, Leased::Memory(run)));
                done += run.len();
            }
        }
        Ok(parts)
    }

    /// Where the range lies on the device, in order: for who maps the device by himself, as a VMM does with its memory
    /// slots. It borrows nothing; what it says holds for as long as the lease does.
    ///
    /// # Errors
    /// As for [`parts`](Self::parts), without those of the device's memory.
    pub fn runs(&self) -> Result<Vec<LeasedRun>> {
        let run = |(start, device_byte, len)| LeasedRun { start, len, device_byte };
        Ok(self.look()?.into_iter().map(run).collect())
    }

    /// The same parts, each of which keeps the lease: for who holds both in one place.
    ///
    /// # Errors
    /// As for [`parts`](Self::parts).
    pub fn owned_parts(&self) -> Result<Vec<LeasedPart>> {
        let part = |(start, leased): (u64, Leased<'_>)| {
            let (len, device_byte) = match leased {
                Leased::Hole(len) => (len, None),
                Leased::Memory(memory) => (memory.len(), Some(memory.device_offset())),
            };
            LeasedPart { lease: self.clone(), start, len, device_byte }
        };
        Ok(self.parts()?.into_iter().map(part).collect())
    }

    /// Makes what was stored through the lease durable, and nothing else: cheaper than
    /// [`File::sync`](crate::File::sync), which does it too.
    ///
    /// # Errors
    /// The device's.
    pub fn sync(&self) -> Result<()> {
        let pages = self.0.pages.pages();
        self.0.file.sync_pages(pages.start, pages.end - 1)
    }
}

impl Held {
    /// The memory of `len` bytes of the device, or of as many as are one run.
    fn memory(&self, byte: u64, len: u64) -> Result<PmemSlice<'_>> {
        let within = byte % PAGE_SIZE;
        let pages = (within + len).div_ceil(PAGE_SIZE);
        let run = DaxInode::memory(&*self.file).direct_access(byte / PAGE_SIZE, pages, self.access)?;
        Ok(run.subslice(within, (run.len() - within).min(len))?)
    }
}

impl LeasedPart {
    /// The file byte at which it begins.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no byte, which none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The lease.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Its memory, all of it; `None` for a hole.
    ///
    /// # Errors
    /// The device's: poison anywhere in it, which may have come since the part was given.
    pub fn memory(&self) -> Result<Option<PmemSlice<'_>>> {
        let Some(byte) = self.device_byte else { return Ok(None) };
        loop {
            let memory = self.lease.0.memory(byte, self.len)?;
            if memory.len() == self.len {
                return Ok(Some(memory));
            }
            // Why it ends there; where it does not, it was healed meanwhile.
            self.lease.0.memory(byte + memory.len(), self.len - memory.len())?;
        }
    }
}

/// What the range is, by asking for it in full.
fn runs(file: &FileInner, range: Range<u64>) -> Result<Vec<Run>> {
    let size = file.inode.size().clamp(range.start, range.end);
    let mut runs = runs_of(file, range.start..size)?;
    if size < range.end {
        match runs.last_mut() {
            Some((_, None, len)) => *len += range.end - size,
            _ => runs.push((size, None, range.end - size)),
        }
    }
    Ok(runs)
}

fn runs_of<O: IomapOps + ?Sized>(file: &O, range: Range<u64>) -> Result<Vec<Run>> {
    let mut iter = IomapIter::new(file, range.start, range.end - range.start, OpFlags::DAX);
    let mut runs = Vec::new();
    while iter.next()? {
        let (pos, length) = (iter.pos(), iter.length());
        runs.push((pos, iter.iomap().and_then(|iomap| iomap.addr_of(pos)), length));
        iter.processed(Step::Done(length));
    }
    Ok(runs)
}
