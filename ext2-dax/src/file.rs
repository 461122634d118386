//! A file as a user of the library holds it.

mod inner;
mod lease;
mod whole;

use std::ops::Range;
use std::sync::Arc;

use blockdev::{Access, DaxDevice};
use ext2_core::plumbing::Plumbing;
use ext2_core::sync::Mended;
use ext2_core::{Barrier, FileKind, Inode, InodeFlags};

use crate::Wait;
#[cfg(feature = "buffer-head")]
use crate::buffer_head::{self, DioFlags};
use crate::compat::{Growth, Publish, Seeks};
use crate::error::{Errno, Error, Result};
use crate::fault::{DaxInode, FaultRequest, FaultResult};
use crate::mapping::DaxMapping;
use crate::mmu::soft::{MapRequest, SoftMap, SoftMmu};
use crate::mmu::{Extent, Protection, Sharing, VmFile};
use crate::rw::{self, Limits};
use crate::uio::{Sink, SliceSink, SliceSource, Source};
use crate::volume::{DataPath, DaxFs};

pub(crate) use inner::FileInner;
use inner::{BUSY_NOW, LAST_PAGE, MAX_BYTES, past_end};
pub use lease::{Lease, Leased, LeasedPart, LeasedRun};

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFor {
    /// Loads and reads.
    Reading,
    /// Stores and writes, too.
    Writing,
    /// Loads and reads, and writes at the end of the file only, wherever they are asked for (Linux: `O_APPEND`). What an
    /// append-only file can be opened for.
    Appending,
}

/// An open regular file. Cloning it is cheap; all who have the inode open share its pages.
///
/// ```
/// use ext2_core::Follow;
/// use ext2_dax::mmu::soft::{MapRequest, SoftMmu};
/// use ext2_dax::mmu::{Protection, Sharing};
/// use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};
/// # let fs = ext2_core::Ext2::open(ext2_image::mkfs::in_memory(16 << 20)?, &Default::default())?;
///
/// fs.write("data", vec![0; 4 << 20])?;
/// let file = File::open(&DaxFs::new(fs.clone(), DaxOptions::default()), fs.resolve("data", Follow::Yes)?, OpenFor::Writing)?;
/// file.write_all_at(5, b"a call")?;
///
/// // The same bytes as memory, through a page table in software.
/// let (sharing, protection) = (Sharing::Shared, Protection::ReadWrite);
/// let mmu = SoftMmu::new();
/// let map = file.map(&mmu, &MapRequest { offset: 0, len: 4 << 20, sharing, protection, colour: 0 })?;
/// assert_eq!(map.load(5), Ok(b'a'));
/// assert_eq!(map.store(5, b'A'), Ok(()));
/// file.sync()?;
/// assert_eq!(&fs.read("data")?[5..11], b"A call");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct File(pub(crate) Arc<FileInner>);

impl File {
    /// Opens a regular file of `fs`.
    ///
    /// # Errors
    /// `EISDIR` and `EINVAL` for what is not a regular file, `EXDEV` for a file of another file system. For writing:
    /// `EROFS` on a file system that is open read-only, or was closed; `EPERM` for an immutable file, and for an
    /// append-only one unless it is opened for [`Appending`](OpenFor::Appending).
    pub fn open(fs: &DaxFs, inode: Inode, open_for: OpenFor) -> Result<Self> {
        match inode.kind() {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Error::refused(Errno::ISDIR, "it is a directory")),
            _ => return Err(Error::refused(Errno::INVAL, "it is not a regular file")),
        }
        if inode.fs() != *fs.ext2() {
            return Err(Error::refused(Errno::XDEV, "it is a file of another file system"));
        }
        let device = Arc::clone(fs.ext2().device());
        if open_for != OpenFor::Reading {
            if fs.ext2().is_read_only() {
                return Err(Error::refused(Errno::ROFS, "the file system is open read-only"));
            }
            let flags = inode.attr().flags;
            if flags.contains(InodeFlags::IMMUTABLE) {
                return Err(Error::refused(Errno::PERM, "the file is immutable"));
            }
            if flags.contains(InodeFlags::APPEND) && open_for != OpenFor::Appending {
                return Err(Error::refused(Errno::PERM, "the file is append-only: open it for appending"));
            }
        }
        let pages = fs.pages(&inode)?;
        let is_dax = fs.is_dax();
        let is_direct = is_dax && fs.options().path == DataPath::Iomap;
        let fs = fs.clone();
        Ok(Self(Arc::new(FileInner { fs, inode, device, pages, open_for, is_dax, is_direct })))
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
        if len > 0 && self.0.read_known(pos, buf) {
            return Ok(len);
        }
        self.read_to(pos, len, &mut SliceSink::new(buf), Limits::default())
    }

    /// Reads up to `len` bytes from byte `pos` into `sink`; fewer at the end of the file, or where the
    /// sink refuses.
    ///
    /// # Errors
    /// Only when nothing was read: `EFAULT`, `EINTR`, the device's (poison is `EIO`), the image's; with
    /// [`nowait`](Limits::nowait) `EAGAIN` where somebody writes, and `EOPNOTSUPP` where a read may wait for a device.
    pub fn read_to(&self, pos: u64, len: u64, sink: &mut dyn Sink, limits: Limits<'_>) -> Result<u64> {
        if !self.0.is_dax {
            limits.refuse_nowait("the device is not memory: to read it may wait")?;
            return self.copy_out(pos, len, sink, limits);
        }
        #[cfg(feature = "buffer-head")]
        if let DataPath::BufferHead(_) = self.0.fs.options().path {
            limits.refuse_nowait("the path of buffer heads always waits")?;
            return buffer_head::do_io_read(&*self.0, pos, len, sink, DioFlags::LOCKING);
        }
        if pos >= MAX_BYTES {
            return Ok(0);
        }
        self.0.counts().shared();
        let io = self.0.inode.io_lock();
        let may_wait = !limits.nowait || Mended::NowaitWaits.is_back();
        let _io = if may_wait { io.read() } else { io.try_read().ok_or(BUSY_NOW)? };
        rw::read(&*self.0, pos, len, sink, limits)
    }

    /// Writes `bytes` at byte `pos`. Returns the bytes written.
    ///
    /// # Errors
    /// As for [`write_from`](Self::write_from).
    pub fn write_at(&self, pos: u64, bytes: &[u8]) -> Result<u64> {
        self.write_from(pos, bytes.len() as u64, &mut SliceSource::new(bytes), Limits::default())
    }

    /// Writes up to `len` bytes from `source` at byte `pos`; fewer where the source refuses or space
    /// ends. What is reported stays, whatever becomes of the rest.
    ///
    /// # Errors
    /// Only when nothing was written: `EFAULT`, `EINTR`, `ENOSPC`, `EFBIG`, `EPERM`, `EBADF`
    /// for a file opened for reading; the device's or the image's; with [`nowait`](Limits::nowait) `EAGAIN` where
    /// somebody reads or writes, where a block is missing and where the file would grow, and `EOPNOTSUPP` where
    /// a write may wait for a device.
    pub fn write_from(&self, pos: u64, len: u64, source: &mut dyn Source, limits: Limits<'_>) -> Result<u64> {
        let inner = &*self.0;
        inner.check_open_for_writing()?;
        if !inner.is_dax {
            limits.refuse_nowait("the device is not memory: to write it may wait")?;
            return self.copy_in(pos, len, source, limits);
        }
        inner.counts().exclusive();
        let io = inner.inode.io_lock();
        let may_wait = !limits.nowait || Mended::NowaitWaits.is_back();
        let _io = if may_wait { io.write() } else { io.try_write().ok_or(BUSY_NOW)? };
        let pos = if inner.open_for == OpenFor::Appending { inner.inode.size() } else { pos };
        let len = if limits.nowait {
            #[cfg(feature = "buffer-head")]
            if let DataPath::BufferHead(_) = inner.fs.options().path {
                limits.refuse_nowait("the path of buffer heads always waits")?;
            }
            // What is inside the file is written; it does not grow.
            inner.inode.try_begin_write(pos, len)?
        } else {
            inner.inode.check_write(pos, len)?
        };
        let Some(len) = len else { return Ok(0) };
        // Until the last byte is stored: who closes meanwhile does not call the image clean, nor lets others have it.
        let _storing =
            if Mended::WritesUncounted.is_back() { None } else { Some(inner.inode.begin_storing()?) };
        if !limits.nowait {
            if inner.compat().growth != Growth::KeepTail {
                inner.inode.clear_tail(pos + len)?;
            }
            inner.inode.touch_modified();
        }
        #[cfg(feature = "buffer-head")]
        if let DataPath::BufferHead(_) = inner.fs.options().path {
            let done = buffer_head::do_io_write(inner, pos, len, source, DioFlags::LOCKING)?;
            inner.inode.raise_size(pos + done, pos)?;
            if done < len {
                // Blocks that came for what was not written.
                buffer_head::GetBlock::write_failed(inner, pos + len);
            }
            return Ok(done);
        }
        let done = rw::write(inner, pos, len, source, limits)?;
        if inner.compat().publish == Publish::AtBegin && done > 0 {
            inner.raise_size_late(pos + done)?;
        }
        Ok(done)
    }

    /// Writes through the device, by way of a buffer, with the inode's lock from the first piece to the last: nobody else's
    /// write lies between them (Linux: `i_rwsem`). The source may wait for a fault, which takes no such lock.
    fn copy_in(&self, pos: u64, len: u64, source: &mut dyn Source, limits: Limits<'_>) -> Result<u64> {
        let inode = &self.0.inode;
        let _storing = inode.begin_storing()?;
        let end = || if self.0.open_for == OpenFor::Appending { self.size() } else { pos };
        let early = end();
        let _io = inode.io_lock().write();
        let pos = if Mended::AppendsApart.is_back() { early } else { end() };
        // One byte at least, so that an offset past all files is refused as such.
        let len = len.min(MAX_BYTES.saturating_sub(pos).max(1));
        let mut buf = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(1 << 20)];
        let mut done = 0;
        while done < len {
            let want = usize::try_from(len - done).unwrap_or(usize::MAX).min(buf.len());
            match limits.check() {
                Err(_) if done > 0 => break,
                checked => checked?,
            }
            // OK to cast: at most the buffer's length.
            let got = source.take_bytes(&mut buf[..want]) as usize;
            if got == 0 {
                return if done > 0 { Ok(done) } else { Err(Error::BadAddress) };
            }
            match inode.write_piece(pos + done, &buf[..got]) {
                Ok(put) => {
                    done += put as u64;
                    if put < want {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    /// Sets the size in bytes. What is cut off is gone for readers and mappings alike; what is added
    /// reads as zeros. A smaller size waits for leases of pages that go, or is refused; a larger one takes nothing and
    /// waits for nobody.
    ///
    /// # Errors
    /// `EBUSY`, always where this thread holds the lease; `EFBIG`, `EPERM`, `EBADF` for a file opened for reading, the device's or the image's.
    pub fn truncate(&self, size: u64, wait: Wait) -> Result<()> {
        let inner = &*self.0;
        inner.check_open_for_writing()?;
        #[cfg(feature = "buffer-head")]
        inner.pages.dio.wait();
        if inner.compat().growth == Growth::KeepTail {
            return inner.truncate_keeping_tail(size, wait);
        }
        Ok(inner.inode.truncate(size, wait)?)
    }

    /// Makes `len` bytes from `pos` a hole, as far as they are whole blocks, and zeroes the rest; the
    /// size stays.
    ///
    /// # Errors
    /// As for [`truncate`](Self::truncate).
    pub fn punch_hole(&self, pos: u64, len: u64, wait: Wait) -> Result<()> {
        self.0.check_open_for_writing()?;
        Ok(self.0.inode.punch_hole(pos, len, wait)?)
    }

    /// Makes `len` bytes from `pos` read as zeros; nothing is allocated or freed, nobody is waited for, and the size
    /// stays.
    ///
    /// # Errors
    /// As for [`truncate`](Self::truncate), without `EBUSY`.
    pub fn zero_range(&self, pos: u64, len: u64) -> Result<()> {
        self.0.check_open_for_writing()?;
        Ok(self.0.inode.zero_range(pos, len)?)
    }

    /// Makes everything that was written or stored durable, and all that is needed to find it.
    ///
    /// # Errors
    /// The device's. What was stored before one may be lost, though a later call succeeds: it does not write it again (Linux:
    /// `fsync`).
    pub fn sync(&self) -> Result<()> {
        Ok(self.0.inode.sync()?)
    }

    /// Where the next data is, at byte `pos` or after (`SEEK_DATA`).
    ///
    /// # Errors
    /// `ENXIO` past the end, or when only a hole follows.
    pub fn seek_data(&self, pos: u64) -> Result<u64> {
        if self.0.compat().seeks == Seeks::EndOfFile {
            return if pos < self.size() { Ok(pos) } else { Err(past_end()) };
        }
        Ok(self.0.inode.seek_data(pos)?)
    }

    /// Where the next hole is, at byte `pos` or after; the end of the file is one (`SEEK_HOLE`).
    ///
    /// # Errors
    /// `ENXIO` past the end.
    pub fn seek_hole(&self, pos: u64) -> Result<u64> {
        if self.0.compat().seeks == Seeks::EndOfFile {
            let size = self.size();
            return if pos < size { Ok(size) } else { Err(past_end()) };
        }
        Ok(self.0.inode.seek_hole(pos)?)
    }

    /// Keeps the blocks of a byte range where they are and gives their memory. Truncation and punching
    /// wait until the lease is dropped, or are refused with `EBUSY`. For [`Access::Write`] the memory may be stored to, and
    /// is: every [`sync`](Self::sync) while it is held, and the first one after, writes all of it back. A range that
    /// ends past where files can end is cut there.
    ///
    /// # Errors
    /// `EOPNOTSUPP` when the file is not [DAX](Self::is_dax), with the reason; `EINVAL` for an empty range, and for
    /// `Access::Recovery`. To write: `EACCES` for a file that was not opened for it, or may only grow, `EPERM` for an
    /// immutable one, `EROFS`. The image's.
    pub fn lease(&self, range: Range<u64>, access: Access) -> Result<Lease> {
        Lease::take(Arc::clone(&self.0), range, access)
    }

    /// Reads through the device, by way of a buffer.
    fn copy_out(&self, pos: u64, len: u64, sink: &mut dyn Sink, limits: Limits<'_>) -> Result<u64> {
        let len = len.min(MAX_BYTES.saturating_sub(pos));
        let mut buf = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(1 << 20)];
        let mut done = 0;
        while done < len {
            let want = usize::try_from(len - done).unwrap_or(usize::MAX).min(buf.len());
            match limits.check() {
                Err(_) if done > 0 => break,
                checked => checked?,
            }
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
    /// `EOPNOTSUPP` when the file is not [DAX](Self::is_dax), or the mapping is to be synchronous on memory that is
    /// not persistent; for shared stores `EACCES` where the file was not opened for writing, or may only grow, `EPERM` for
    /// an immutable file, `EROFS`; as for [`SoftMmu::map`].
    pub fn map(&self, mmu: &Arc<SoftMmu>, request: &MapRequest) -> Result<SoftMap> {
        mmu.map(Arc::clone(&self.0) as Arc<dyn VmFile>, request)
    }

    /// Maps a range of the file into the address space of this process: its pages are the image's.
    ///
    /// # Errors
    /// As for [`map`](Self::map), and for [`HostMmu::map`](crate::mmu::host::HostMmu::map).
    #[cfg(all(target_os = "linux", not(miri), not(loom)))]
    pub fn map_host(
        &self,
        mmu: &Arc<crate::mmu::host::HostMmu>,
        request: &MapRequest,
    ) -> Result<crate::mmu::host::HostMap> {
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

/// A file is what an address space maps: [`SoftMmu::map`], or one of somebody else's.
impl VmFile for File {
    fn pages(&self) -> &Arc<DaxMapping> {
        &self.0.pages
    }

    fn memory(&self) -> &dyn DaxDevice {
        DaxInode::memory(&*self.0)
    }

    fn fault(&self, request: &FaultRequest<'_>) -> FaultResult {
        self.0.fault(request)
    }

    fn has_huge_faults(&self) -> bool {
        self.0.has_huge_faults()
    }

    fn huge_fault(&self, request: &FaultRequest<'_>) -> FaultResult {
        self.0.huge_fault(request)
    }

    fn is_open_for_writing(&self) -> bool {
        self.0.is_open_for_writing()
    }

    fn msync(&self, first: u64, last: u64) -> Result<()> {
        self.0.msync(first, last)
    }

    fn fence(&self, barrier: Barrier) -> Result<()> {
        VmFile::fence(&*self.0, barrier)
    }

    fn has_untold(&self) -> bool {
        VmFile::has_untold(&*self.0)
    }

    fn layout(&self, first: u64, end: u64, most: usize) -> Result<Vec<Extent>> {
        self.0.layout(first, end, most)
    }

    fn end_page(&self) -> u64 {
        self.0.end_page()
    }

    fn stored(&self) {
        self.0.stored();
    }

    fn check_map(&self, sharing: Sharing, protection: Protection) -> Result<()> {
        self.0.check_map(sharing, protection)
    }
}

/// Two are equal if they are the same open file: clones of one.
impl PartialEq for File {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for File {}
