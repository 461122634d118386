//! What the clones of an open file share, and the file as faults and mappings see it.

use std::sync::Arc;

use blockdev::{Access, BlockDevice, DaxDevice};
use ext2_core::plumbing::Plumbing;
use ext2_core::sync::Mended;
use ext2_core::{Barrier, DeviceBlock, FileBlock, Inode, InodeFlags};

use super::OpenFor;
use crate::Wait;
use crate::absent::ABSENT;
use crate::asked::Counts;
#[cfg(feature = "buffer-head")]
use crate::buffer_head;
use crate::compat::{Compat, PmdFaults, SyncMappings};
use crate::entry::{Order, PAGE_SIZE};
use crate::error::{Errno, Error, Result};
use crate::fault::{self, DaxInode, FaultRequest, FaultResult};
use crate::iomap::OpFlags;
use crate::iter::{IomapIter, Step};
use crate::mapping::DaxMapping;
use crate::mmu::{Extent, Protection, Sharing, VmFile};
use crate::volume::{DataPath, DaxFs, Flushing};
use crate::writeback::writeback_range;

/// What the clones of a file, and the mappings made of it, share.
#[derive(Debug)]
pub(crate) struct FileInner {
    pub(crate) fs: DaxFs,
    pub(crate) inode: Inode,
    pub(crate) device: Arc<dyn BlockDevice>,
    pub(crate) pages: Arc<DaxMapping>,
    pub(super) open_for: OpenFor,
    pub(super) is_dax: bool,
    /// Whether reads may do without a walk: the file is DAX, and its path the new one.
    pub(super) is_direct: bool,
}

/// The last page that a file can have: its bytes have signed 64-bit offsets.
pub(crate) const LAST_PAGE: u64 = i64::MAX.unsigned_abs() / PAGE_SIZE;

/// Bytes that a file can have at most, by their signed offsets.
pub(crate) const MAX_BYTES: u64 = i64::MAX.unsigned_abs();

/// What a call that must not wait says.
pub(super) const BUSY_NOW: Error = Error::refused(Errno::AGAIN, "somebody else uses the file at this moment");

pub(super) fn past_end() -> Error {
    Error::refused(Errno::NXIO, "the offset is past the end of the file")
}

impl FileInner {
    pub(crate) fn block_bytes(&self) -> u64 {
        self.fs.ext2().geometry().block_size.bytes()
    }

    /// The device byte at which a block begins.
    pub(crate) fn byte_of(&self, block: DeviceBlock) -> u64 {
        self.fs.ext2().geometry().byte_of(block)
    }

    pub(crate) fn counts(&self) -> &Counts {
        self.fs.counts()
    }

    /// Fills `buf` from byte `pos`, where that lies in one run of blocks that is known, as most reads do. Nothing is
    /// walked then, nor ended (`iomap_end` has no part in reads), and nothing locked: whether somebody wrote meanwhile
    /// is seen afterwards. The device checks what it copies, so no run of its memory is asked for first. False where it
    /// cannot be done so, and where somebody wants to hear of the walk; `buf` then has its bytes or zeros.
    #[inline]
    pub(super) fn read_known(&self, pos: u64, buf: &mut [u8]) -> bool {
        let len = buf.len() as u64;
        let Some(glance) = self.inode.io_lock().glance() else { return false };
        if !self.is_direct || self.fs.tracer().is_on() {
            return false;
        }
        if pos.checked_add(len).is_none_or(|end| end > self.inode.size()) {
            return false;
        }
        // A file that is DAX has blocks of a page. OK to add: at most the file's size and a page.
        let (first, within) = (pos / PAGE_SIZE, pos % PAGE_SIZE);
        let count = (within + len).div_ceil(PAGE_SIZE);
        let Some(block) = self.inode.known_run(FileBlock::new(first), count) else { return false };
        let copied = self.device.read_at(u64::from(block.get()) * PAGE_SIZE + within, buf).is_ok();
        if self.inode.io_lock().unchanged(glance) {
            if copied {
                self.counts().read(count);
            }
            return copied;
        }
        // The bytes may be another file's by now.
        buf.fill(0);
        false
    }

    /// Raises the size as Linux does: after the whole call, and without a look at what lies between the
    /// old end and the end of its block (L6).
    pub(super) fn raise_size_late(&self, end: u64) -> Result<()> {
        let old = self.inode.size();
        Ok(self.inode.raise_size(end, old)?)
    }

    /// Sets the size as Linux does: what is zeroed is the tail at the new size (L6).
    pub(super) fn truncate_keeping_tail(&self, size: u64, wait: Wait) -> Result<()> {
        if size > self.fs.ext2().max_size() {
            return Err(Error::refused(Errno::FBIG, "larger than a file can be"));
        }
        let io = self.inode.io_lock().write();
        let old = self.inode.size();
        if size <= old {
            drop(io);
            return if size == old { Ok(()) } else { Ok(self.inode.truncate(size, wait)?) };
        }
        if self.inode.attr().flags.intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND) {
            return Err(Error::refused(Errno::PERM, "the file is immutable or append-only"));
        }
        self.inode.zero_block_tail(size)?;
        self.raise_size_late(size)?;
        self.inode.touch_modified();
        Ok(())
    }

    pub(super) fn check_open_for_writing(&self) -> Result<()> {
        match self.open_for {
            OpenFor::Reading => Err(Error::refused(Errno::BADF, "the file was opened for reading")),
            OpenFor::Writing | OpenFor::Appending => Ok(()),
        }
    }

    /// Whether memory that is given away now may be stored to.
    pub(super) fn check_store(&self) -> Result<()> {
        match self.open_for {
            OpenFor::Reading => Err(Error::refused(Errno::ACCES, "the file was opened for reading")),
            OpenFor::Appending => Err(Error::refused(Errno::ACCES, "the file was opened for appending")),
            OpenFor::Writing => Ok(self.inode.check_store()?),
        }
    }

    pub(crate) fn compat(&self) -> &Compat {
        &self.fs.options().compat
    }

    fn handle(&self, request: &FaultRequest<'_>, order: Order) -> FaultResult {
        #[cfg(feature = "buffer-head")]
        if let DataPath::BufferHead(_) = self.fs.options().path {
            return buffer_head::handle(self, request, order);
        }
        fault::handle(self, request, order)
    }

    /// Writes back what was stored to these file pages, both inclusive.
    pub(crate) fn write_back(&self, first: u64, last: u64) -> Result<u64> {
        writeback_range(&self.pages, DaxInode::memory(self), first, last)
    }
}

impl DaxInode for FileInner {
    fn pages(&self) -> &DaxMapping {
        &self.pages
    }

    fn memory(&self) -> &dyn DaxDevice {
        self.device.dax().unwrap_or(&ABSENT)
    }

    fn size(&self) -> u64 {
        self.inode.size()
    }

    fn compat(&self) -> &Compat {
        FileInner::compat(self)
    }

    fn about_to_store(&self) {
        self.inode.touch_modified();
    }

    fn sync_pages(&self, first: u64, last: u64) -> Result<()> {
        self.write_back(first, last)?;
        // Data first, then what leads to it; the device is flushed with the latter. What other pages
        // are dirty stays so: `Inode::sync` would write them back too.
        Ok(self.inode.flush(Barrier::PagesSynced)?)
    }
}

impl VmFile for FileInner {
    fn pages(&self) -> &Arc<DaxMapping> {
        &self.pages
    }

    fn memory(&self) -> &dyn DaxDevice {
        DaxInode::memory(self)
    }

    fn fault(&self, request: &FaultRequest<'_>) -> FaultResult {
        self.handle(request, Order::Pte)
    }

    fn has_huge_faults(&self) -> bool {
        self.compat().pmd_faults == PmdFaults::Tried
    }

    fn huge_fault(&self, request: &FaultRequest<'_>) -> FaultResult {
        self.handle(request, Order::Pmd)
    }

    fn is_open_for_writing(&self) -> bool {
        self.open_for != OpenFor::Reading
    }

    fn msync(&self, first: u64, last: u64) -> Result<()> {
        self.sync_pages(first, last)
    }

    fn fence(&self, barrier: Barrier) -> Result<()> {
        Ok(self.inode.fence(barrier)?)
    }

    fn has_untold(&self) -> bool {
        self.inode.is_untold()
    }

    fn layout(&self, first: u64, end: u64, most: usize) -> Result<Vec<Extent>> {
        let end = end.min(self.end_page());
        let mut extents: Vec<Extent> = Vec::new();
        if first >= end {
            return Ok(extents);
        }
        let mut iter = IomapIter::new(self, first * PAGE_SIZE, (end - first) * PAGE_SIZE, OpFlags::DAX);
        while extents.len() < most && iter.next()? {
            let (pos, length) = (iter.pos(), iter.length());
            let device = match iter.iomap() {
                Some(iomap) if iomap.kind == crate::iomap::MapKind::Mapped => {
                    Some(fault::device_page(iomap, pos)?)
                }
                _ => None,
            };
            extents.push(Extent { first: pos / PAGE_SIZE, count: length.div_ceil(PAGE_SIZE), device });
            iter.processed(Step::Done(length));
        }
        Ok(extents)
    }

    fn end_page(&self) -> u64 {
        self.pages.end_page(|| self.inode.size())
    }

    fn stored(&self) {
        self.about_to_store();
    }

    fn check_map(&self, sharing: Sharing, protection: Protection) -> Result<()> {
        self.fs.check_dax()?;
        if sharing == Sharing::Synchronous {
            if self.fs.options().path != DataPath::Iomap {
                return Err(Error::refused(
                    Errno::OPNOTSUPP,
                    "the path of buffer heads has no synchronous mappings: map it as shared, and sync",
                ));
            }
            let offered = self.compat().sync_mappings == SyncMappings::Offered
                && self.fs.options().media == Flushing::AsDevice;
            let memory = DaxInode::memory(self).direct_access(0, 1, Access::Read)?;
            let is_volatile = memory.media() != blockdev::Media::Persistent;
            if !offered || is_volatile && !Mended::SyncOnVolatile.is_back() {
                return Err(Error::refused(
                    Errno::OPNOTSUPP,
                    "the memory is not persistent: map it as shared, and sync",
                ));
            }
        }
        let is_shared = sharing != Sharing::Private;
        // Also for reading, since the protection of a mapping can be changed (`do_mmap`).
        if is_shared
            && self.open_for != OpenFor::Reading
            && self.inode.attr().flags.contains(InodeFlags::APPEND)
        {
            return Err(Error::refused(Errno::ACCES, "the file is append-only, and open for writing"));
        }
        let stores = is_shared && protection == Protection::ReadWrite;
        if stores && !Mended::MapAsksNobody.is_back() {
            self.check_store()?;
        }
        Ok(())
    }
}
