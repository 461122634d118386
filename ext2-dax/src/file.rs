//! A file as a user of the library holds it.

use std::ops::Range;
use std::sync::Arc;

use blockdev::{BlockDevice, DaxDevice};
use ext2_core::{FileKind, Inode};

use crate::absent::ABSENT;
use crate::compat::{Compat, PmdFaults, SyncMappings};
use crate::entry::{Order, PAGE_SIZE};
use crate::error::{Error, Result, errno};
use crate::fault::{self, DaxInode, FaultRequest, FaultResult};
use crate::mapping::DaxMapping;
use crate::mmu::soft::{MapRequest, SoftMap, SoftMmu};
use crate::mmu::{Protection, Sharing, VmFile};
use crate::rw::{self, Limits};
use crate::uio::{Sink, SliceSink};
use crate::volume::{DaxFs, Media};
use crate::writeback::writeback_range;

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFor {
    /// Loads and reads.
    Reading,
    /// Stores and writes, too.
    Writing,
}

/// An open regular file. Cloning it is cheap; all who have the inode open share its pages.
#[derive(Clone, Debug)]
pub struct File(pub(crate) Arc<FileInner>);

/// What the clones of a file, and the mappings made of it, share.
#[derive(Debug)]
pub(crate) struct FileInner {
    pub(crate) fs: DaxFs,
    pub(crate) inode: Inode,
    pub(crate) device: Arc<dyn BlockDevice>,
    pub(crate) pages: Arc<DaxMapping>,
    open_for: OpenFor,
    is_dax: bool,
}

impl File {
    /// Opens a regular file of `fs`.
    ///
    /// # Errors
    /// `EISDIR` and `EINVAL` for what is not a regular file, `EROFS` for writing on a read-only device.
    pub fn open(fs: &DaxFs, inode: Inode, open_for: OpenFor) -> Result<Self> {
        match inode.kind() {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Error::refused(errno::EISDIR, "it is a directory")),
            _ => return Err(Error::refused(errno::EINVAL, "it is not a regular file")),
        }
        let device = Arc::clone(fs.ext2().device());
        if open_for == OpenFor::Writing && device.is_read_only() {
            return Err(Error::refused(errno::EROFS, "the device is read-only"));
        }
        let pages = fs.pages(&inode)?;
        let is_dax = fs.is_dax();
        Ok(Self(Arc::new(FileInner { fs: fs.clone(), inode, device, pages, open_for, is_dax })))
    }

    /// The inode below.
    #[must_use]
    pub fn inode(&self) -> &Inode {
        &self.0.inode
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.inode.size()
    }

    /// Whether reads and writes go straight to the device's memory, and the file can be mapped.
    #[must_use]
    pub fn is_dax(&self) -> bool {
        self.0.is_dax
    }

    /// The file's pages that are in use.
    #[must_use]
    pub fn pages(&self) -> &DaxMapping {
        &self.0.pages
    }

    /// Reads from byte `pos` until `buf` is full or the file ends. Returns the bytes read.
    ///
    /// # Errors
    /// As for [`read_to`](Self::read_to).
    pub fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<u64> {
        let len = buf.len() as u64;
        self.read_to(pos, len, &mut SliceSink::new(buf), Limits::default())
    }

    /// Reads up to `len` bytes from byte `pos` into `sink`; fewer at the end of the file, or where the
    /// sink refuses.
    ///
    /// # Errors
    /// Only when nothing was read: `EFAULT`, `EINTR`, `EAGAIN`, the device's (poison is `EIO`), the
    /// image's.
    pub fn read_to(&self, pos: u64, len: u64, sink: &mut dyn Sink, limits: Limits<'_>) -> Result<u64> {
        if !self.0.is_dax {
            return self.copy_out(pos, len, sink);
        }
        let _io = self.0.inode.io_lock().read();
        rw::read(&*self.0, pos, len, sink, limits)
    }

    /// Reads through the device, by way of a buffer.
    fn copy_out(&self, pos: u64, len: u64, sink: &mut dyn Sink) -> Result<u64> {
        let mut buf = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(1 << 20)];
        let mut done = 0;
        while done < len {
            let want = usize::try_from(len - done).unwrap_or(usize::MAX).min(buf.len());
            let got = match self.0.inode.read_at(pos + done, &mut buf[..want]) {
                Ok(got) => got,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error.into()),
            };
            let put = sink.put_bytes(&buf[..got]);
            done += put;
            if put == 0 && got > 0 && done == 0 {
                return Err(Error::BadAddress);
            }
            if put < want as u64 {
                break;
            }
        }
        Ok(done)
    }

    /// Maps a range of the file into a software address space.
    ///
    /// # Errors
    /// `EOPNOTSUPP` when the file is not [DAX](Self::is_dax), or the mapping is to be synchronous where
    /// that cannot be had; `EACCES` for shared stores to a file opened for reading; as for
    /// [`SoftMmu::map`].
    pub fn map(&self, mmu: &Arc<SoftMmu>, request: &MapRequest) -> Result<SoftMap> {
        mmu.map(Arc::clone(&self.0) as Arc<dyn VmFile>, request)
    }

    /// The data of the file in byte ranges, holes left out, up to its end; runs that touch are one
    /// (FIEMAP). What was stored is written back first.
    ///
    /// # Errors
    /// The device's or the image's.
    pub fn extents(&self) -> Result<Vec<Range<u64>>> {
        self.0.write_back(0, LAST_PAGE)?;
        let bytes = self.0.inode.fs().geometry().block_size.bytes();
        let _io = self.0.inode.io_lock().read();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for mapping in self.0.inode.extents() {
            let mapping = mapping?;
            let (start, end) = (mapping.start.get() * bytes, mapping.end().get() * bytes);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        Ok(ranges)
    }
}

/// The last page that a file can have: its bytes have signed 64-bit offsets.
pub(crate) const LAST_PAGE: u64 = i64::MAX.unsigned_abs() / PAGE_SIZE;

impl FileInner {
    pub(crate) fn compat(&self) -> &Compat {
        &self.fs.options().compat
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

    fn sync_pages(&self, first: u64, last: u64) -> Result<()> {
        self.write_back(first, last)?;
        Ok(self.device.flush()?)
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
        fault::handle(self, request, Order::Pte)
    }

    fn has_huge_faults(&self) -> bool {
        self.compat().pmd_faults == PmdFaults::Tried
    }

    fn huge_fault(&self, request: &FaultRequest<'_>) -> FaultResult {
        fault::handle(self, request, Order::Pmd)
    }

    fn msync(&self, first: u64, last: u64) -> Result<()> {
        self.sync_pages(first, last)
    }

    fn check_map(&self, sharing: Sharing, protection: Protection) -> Result<()> {
        if !self.is_dax {
            return Err(Error::refused(
                errno::EOPNOTSUPP,
                "the device is not memory: the file cannot be mapped",
            ));
        }
        if sharing == Sharing::Synchronous {
            let offered = self.compat().sync_mappings == SyncMappings::Offered;
            if !offered || self.fs.options().media == Media::NeedsFlush {
                return Err(Error::refused(errno::EOPNOTSUPP, "synchronous mappings cannot be had here"));
            }
        }
        let stores = sharing != Sharing::Private && protection == Protection::ReadWrite;
        if stores && self.open_for == OpenFor::Reading {
            return Err(Error::refused(errno::EACCES, "the file was opened for reading"));
        }
        Ok(())
    }
}
