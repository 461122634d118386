//! An image file or block special file by positional I/O.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use crate::image_file::ImageFile;
use crate::open::{io_error, open_file};
use crate::range::check;
use crate::{BackingFile, BlockDevice, Claim, DeviceOptions, Durability, Error, Extent, Result};

/// Bytes below which zeroing writes zeros instead of asking for a hole.
const PUNCH_MIN: u64 = 64 << 10;

static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// A device whose every access is a system call: no DAX, nothing cached but by the kernel.
///
/// `flush` is fdatasync. `fence` does nothing with [`Durability::Relaxed`], which is right as long as the
/// kernel lives; with [`Durability::Strict`] it is fdatasync as well. An aligned word is one `pwrite`,
/// which the kernel copies whole.
#[derive(Debug)]
pub struct FileDevice {
    file: ImageFile,
    size: u64,
    read_only: bool,
    durability: Durability,
}

impl FileDevice {
    /// Opens the file or block special file at `path`; `options.kind` is ignored.
    ///
    /// # Errors
    /// `Io`, with `op` `lock` where somebody else holds it.
    pub fn open(path: &Path, options: &DeviceOptions) -> Result<Self> {
        let (file, size) = open_file(path, options)?;
        Ok(Self { file, size, read_only: options.read_only, durability: options.durability })
    }

    fn writable(&self, offset: u64, len: u64) -> Result<()> {
        check(offset, len, self.size)?;
        if self.read_only { Err(Error::ReadOnly) } else { Ok(()) }
    }
}

impl AsFd for FileDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Turns a range of a file into a hole, or failing that into zeros without writing them. `Ok(false)` where
/// the file system can do neither.
pub(crate) fn punch(file: &File, offset: u64, len: u64) -> Result<bool> {
    Ok(hole(file, offset, len, "zero")?
        || change_room(file, FallocateFlags::ZERO_RANGE, offset, len, "zero")?)
}

/// Gives back the room that the range has in the file, where that can be done: on other file systems and devices nothing
/// happens.
pub(crate) fn discard(file: &File, offset: u64, len: u64) -> Result<()> {
    hole(file, offset, len, "discard").map(drop)
}

/// Turns a range of a file into a hole; false where the file system has none.
fn hole(file: &File, offset: u64, len: u64, op: &'static str) -> Result<bool> {
    // To look costs a hundredth of what a hole costs where there is one: the host waits for what it has to write.
    let is_hole = extent(BackingFile { fd: file.as_fd(), offset: 0 }, offset, len)? == (Extent::Hole, len);
    Ok(is_hole || change_room(file, FallocateFlags::PUNCH_HOLE, offset, len, op)?)
}

/// Changes what room a range has in a file; false where the file system cannot.
fn change_room(file: &File, how: FallocateFlags, offset: u64, len: u64, op: &'static str) -> Result<bool> {
    match rustix::io::retry_on_intr(|| fallocate(file, how | FallocateFlags::KEEP_SIZE, offset, len)) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => Ok(false),
        Err(error) => Err(io_error(op, offset, error.into())),
    }
}

/// What the bytes of a device are, by the holes of the file that it lies in.
pub(crate) fn extent(file: BackingFile<'_>, offset: u64, len: u64) -> Result<(Extent, u64)> {
    let start = file.offset + offset;
    let end = start + len;
    // A file system that knows no holes, and a file that became shorter, are data: the read tells.
    let data = match seek(file.fd, SeekFrom::Data(start)) {
        Ok(data) => data.min(end),
        Err(Errno::NXIO) if seek(file.fd, SeekFrom::End(0)).is_ok_and(|size| size >= end) => end,
        Err(_) => return Ok((Extent::Data, len)),
    };
    if data > start {
        return Ok((Extent::Hole, data - start));
    }
    let hole = seek(file.fd, SeekFrom::Hole(start)).map_or(end, |hole| hole.min(end));
    Ok((Extent::Data, if hole > start { hole - start } else { len }))
}

impl BlockDevice for FileDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check(offset, buf.len() as u64, self.size)?;
        self.file.read_exact_at(buf, offset).map_err(|error| io_error("read", offset, error))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.writable(offset, buf.len() as u64)?;
        self.file.write_all_at(buf, offset).map_err(|error| io_error("write", offset, error))
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.writable(offset, len)?;
        if len >= PUNCH_MIN && punch(&self.file, offset, len)? {
            return Ok(());
        }
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(ZEROS.len() as u64);
            // OK to cast: at most the length of `ZEROS`.
            self.write_at(offset + done, &ZEROS[..piece as usize])?;
            done += piece;
        }
        Ok(())
    }

    fn fence(&self) -> Result<()> {
        match self.durability {
            Durability::Relaxed => Ok(()),
            Durability::Strict => self.flush(),
        }
    }

    fn flush(&self) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.file.sync_data().map_err(|error| io_error("flush", 0, error))
    }

    fn claim(&self, offset: u64, len: u64) -> Result<Claim> {
        check(offset, len, self.size)?;
        self.file.claim(offset, len)
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn backing_file(&self) -> Option<BackingFile<'_>> {
        Some(BackingFile { fd: self.file.as_fd(), offset: 0 })
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.writable(offset, len)?;
        if len > 0 { discard(&self.file, offset, len) } else { Ok(()) }
    }
}
