//! A range of a file whose memory somebody uses directly.

use std::ops::Range;
use std::sync::Arc;

use blockdev::{Access, PmemSlice};

use super::FileInner;
use crate::entry::PAGE_SIZE;
use crate::error::{Error, Result, errno};
use crate::fault::DaxInode;
use crate::iomap::{IomapOps, OpFlags};
use crate::iter::{IomapIter, Step};
use crate::lease::PageLease;

/// The blocks of a byte range, which stay where they are, and the file's, until this is dropped.
#[derive(Debug)]
pub struct Lease {
    file: Arc<FileInner>,
    /// File byte, device byte (none for a hole), bytes; in order, without gaps.
    runs: Vec<(u64, Option<u64>, u64)>,
    _pages: PageLease,
}

/// A part of a lease that is one thing.
#[derive(Clone, Copy, Debug)]
pub enum Leased<'a> {
    /// So many bytes of hole.
    Hole(u64),
    /// Memory of the device.
    Memory(PmemSlice<'a>),
}

impl Lease {
    pub(super) fn take(file: Arc<FileInner>, range: Range<u64>) -> Result<Self> {
        if !file.is_dax {
            return Err(Error::refused(errno::EOPNOTSUPP, "the device is not memory: nothing to lease"));
        }
        if range.is_empty() {
            return Err(Error::refused(errno::EINVAL, "an empty range"));
        }
        let pages = range.start / PAGE_SIZE..range.end.div_ceil(PAGE_SIZE);
        let (pages, runs) = PageLease::take(&file.pages, pages, || runs(&*file, range));
        Ok(Self { runs: runs?, file, _pages: pages })
    }

    /// The parts of the range in order, with the file byte at which each begins. A part of memory ends
    /// where the device's next run begins.
    ///
    /// # Errors
    /// The device's, poison included.
    pub fn parts(&self, access: Access) -> Result<Vec<(u64, Leased<'_>)>> {
        let memory = DaxInode::memory(&*self.file);
        let mut parts = Vec::new();
        for &(start, addr, len) in &self.runs {
            let Some(addr) = addr else {
                parts.push((start, Leased::Hole(len)));
                continue;
            };
            let mut done = 0;
            while done < len {
                let at = addr + done;
                let within = at % PAGE_SIZE;
                let pages = (within + (len - done)).div_ceil(PAGE_SIZE);
                let run = memory.direct_access(at / PAGE_SIZE, pages, access)?;
                let run = run.subslice(within, (run.len() - within).min(len - done))?;
                parts.push((start + done, Leased::Memory(run)));
                done += run.len();
            }
        }
        Ok(parts)
    }
}

/// What the range is, by asking for it in full.
fn runs<O: IomapOps + ?Sized>(file: &O, range: Range<u64>) -> Result<Vec<(u64, Option<u64>, u64)>> {
    let mut iter = IomapIter::new(file, range.start, range.end - range.start, OpFlags::DAX);
    let mut runs = Vec::new();
    while iter.next()? {
        let (pos, length) = (iter.pos(), iter.length());
        runs.push((pos, iter.iomap().and_then(|iomap| iomap.addr_of(pos)), length));
        iter.processed(Step::Done(length));
    }
    Ok(runs)
}
