//! What the files of one file system share: compatibility, tracer, wait queues.

use std::ops::Range;
use std::sync::Arc;

use blockdev::{BlockDevice, DaxDevice};
use ext2_core::plumbing::{AddressSpace, Plumbing, Publisher, Stores, Taken};
use ext2_core::sync::Mended;
use ext2_core::{Ext2, Inode};

use crate::Wait;
use crate::absent::ABSENT;
use crate::asked::{Asked, Counts};
use crate::compat::Compat;
use crate::entry::PAGE_SIZE;
use crate::error::{Errno, Error, Result};
use crate::mapping::DaxMapping;
use crate::trace::{InodeId, Tracer};
use crate::truncate::{Gone, take_pages_if, wait_idle};
use crate::wait::WaitTable;
use crate::writeback::writeback_range;

/// What is promised of the device's memory. What memory is, the device knows
/// ([`PmemSlice::media`](blockdev::PmemSlice::media)); a user can only claim less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flushing {
    /// What the device says: synchronous mappings are given where its memory is persistent.
    #[default]
    AsDevice,
    /// Somebody has to be asked to flush, as the host of a virtio-pmem device. Synchronous mappings are
    /// refused (Linux: a device without `DAXDEV_SYNC`).
    NeedsFlush,
}

/// Which of the two data paths is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataPath {
    /// iomap.
    #[default]
    Iomap,
    /// `get_block` and buffer heads, as in Linux 4.8, with this much said about holes.
    #[cfg(feature = "buffer-head")]
    BufferHead(crate::buffer_head::HoleSize),
}

/// How the files of a [`DaxFs`] behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DaxOptions {
    /// Ours or Linux's.
    pub compat: Compat,
    /// The new path or the old.
    pub path: DataPath,
    /// How much of what the device promises is believed.
    pub media: Flushing,
    /// Device number that events name: major, minor.
    pub dev: (u32, u32),
}

impl Default for DaxOptions {
    fn default() -> Self {
        Self { compat: Compat::FULL, path: DataPath::default(), media: Flushing::AsDevice, dev: (259, 0) }
    }
}

/// An ext2 file system whose files are reached by DAX. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct DaxFs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ext2: Ext2,
    options: DaxOptions,
    tracer: Arc<Tracer>,
    wait: Arc<WaitTable>,
    counts: Counts,
}

impl DaxFs {
    /// The files of `ext2`.
    #[must_use]
    pub fn new(ext2: Ext2, options: DaxOptions) -> Self {
        let (tracer, wait) = (Arc::new(Tracer::new()), Arc::new(WaitTable::new()));
        Self(Arc::new(Shared { ext2, options, tracer, wait, counts: Counts::default() }))
    }

    /// The file system below.
    #[must_use]
    pub fn ext2(&self) -> &Ext2 {
        &self.0.ext2
    }

    /// How files behave.
    #[must_use]
    pub fn options(&self) -> &DaxOptions {
        &self.0.options
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// What the files of this file system have asked of it so far.
    #[must_use]
    pub fn asked(&self) -> Asked {
        self.0.counts.sum()
    }

    /// Where events go.
    #[must_use]
    pub fn tracer(&self) -> &Arc<Tracer> {
        &self.0.tracer
    }

    /// Whether files are reached by loads and stores: the device is memory and a block is a page. Where
    /// not, files are read and written by copying through the device, and cannot be mapped.
    #[must_use]
    pub fn is_dax(&self) -> bool {
        self.check_dax().is_ok()
    }

    /// Whether files are reached by loads and stores, and what keeps them from it.
    ///
    /// # Errors
    /// `EOPNOTSUPP` with the reason.
    pub fn check_dax(&self) -> Result<()> {
        let block = self.0.ext2.geometry().block_size.bytes();
        let why = if block < PAGE_SIZE {
            "blocks are smaller than a page: a file system with blocks of 4096 bytes can be mapped"
        } else if block > PAGE_SIZE {
            "blocks are larger than a page: a file system with blocks of 4096 bytes can be mapped"
        } else if self.0.ext2.device().dax().is_none() {
            "the device is not memory: open the image as a mapped file, or hold it in memory"
        } else {
            return Ok(());
        };
        Err(Error::refused(Errno::OPNOTSUPP, why))
    }

    /// The pages of an inode: one set for all who have it open.
    ///
    /// # Errors
    /// `EBUSY` when something other than this crate manages the pages of this inode.
    pub(crate) fn pages(&self, inode: &Inode) -> Result<Arc<DaxMapping>> {
        let shared = &self.0;
        let attached = inode.attach(|| {
            let id = InodeId { dev: shared.options.dev, ino: u64::from(inode.nr().get()) };
            let mapping = DaxMapping::new(id, Arc::clone(&shared.wait), Arc::clone(&shared.tracer));
            let device = Arc::clone(shared.ext2.device());
            Arc::new(Pages { mapping: Arc::new(mapping), device, compat: shared.options.compat })
        });
        let any: Arc<dyn std::any::Any + Send + Sync> = attached;
        match any.downcast::<Pages>() {
            Ok(pages) => Ok(Arc::clone(&pages.mapping)),
            Err(_) => Err(Error::refused(Errno::BUSY, "the inode's pages are managed by somebody else")),
        }
    }
}

/// The pages of an inode as ext2-core calls them: when blocks are about to go, and before a sync.
#[derive(Debug)]
struct Pages {
    mapping: Arc<DaxMapping>,
    device: Arc<dyn BlockDevice>,
    compat: Compat,
}

impl Pages {
    fn memory(&self) -> &dyn DaxDevice {
        self.device.dax().unwrap_or(&ABSENT)
    }
}

impl AddressSpace for Pages {
    fn invalidate(
        &self,
        range: Range<u64>,
        why: Taken,
        change: &mut dyn FnMut() -> ext2_core::Result<()>,
    ) -> ext2_core::Result<()> {
        let how = (Wait::No, self.compat.layouts, why);
        take_pages_if(&self.mapping, self.memory(), range, how, change, |done| match done {
            // Whoever moves pages may leave them where they are all the same.
            Ok(()) if why == Taken::Moved => Gone::Perhaps,
            Ok(()) => Gone::Yes,
            Err(_) => Gone::No,
        })?
    }

    fn wait_idle(&self, range: Range<u64>) -> ext2_core::Result<()> {
        Ok(wait_idle(&self.mapping, &(range.start / PAGE_SIZE..range.end.div_ceil(PAGE_SIZE)))?)
    }

    fn published(&self, range: Range<u64>, by: Publisher) {
        let (start, end) = (range.start / PAGE_SIZE, range.end.div_ceil(PAGE_SIZE));
        match by {
            Publisher::Call => self.mapping.invalidate(start, end),
            // A fault that ends well takes the hole away where it puts the page in.
            Publisher::Fault if Mended::FaultLeavesHole.is_back() => {}
            Publisher::Fault => self.mapping.hole_ended(start, end),
        }
    }

    fn grow(&self, range: Range<u64>, change: &mut dyn FnMut()) {
        self.mapping.grow(range.start / PAGE_SIZE, range.end.div_ceil(PAGE_SIZE), change);
    }

    fn is_synchronous(&self) -> bool {
        self.mapping.is_synchronous()
    }

    fn stop_stores(&self) -> Stores {
        if !Mended::StoresAfterClose.is_back() {
            self.mapping.stop_stores();
        }
        if self.mapping.leases().is_lent() { Stores::Lent } else { Stores::Ended }
    }

    fn resume_stores(&self) {
        self.mapping.resume_stores();
    }

    fn is_in_use(&self, range: Range<u64>) -> bool {
        let pages = range.start / PAGE_SIZE..range.end.div_ceil(PAGE_SIZE);
        self.mapping.is_in_use(&pages)
    }

    fn write_back(&self, range: Range<u64>) -> ext2_core::Result<()> {
        let Some(last) = range.end.checked_sub(1).filter(|last| *last >= range.start) else { return Ok(()) };
        // The last page that a file can have ends where a signed 64-bit offset does.
        let last = last.min(i64::MAX.unsigned_abs()) / PAGE_SIZE;
        writeback_range(&self.mapping, self.memory(), range.start / PAGE_SIZE, last)?;
        Ok(())
    }
}
