//! A file of the host as output: large files are copied into it by the kernel where that may save the copy.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use ext2_core::Barrier;
use rustix::io::Errno;

use super::{Error, Fresh, Output, Result};

/// An image file of the host.
#[derive(Debug)]
pub struct FileOutput<'f> {
    file: &'f File,
    base: u64,
    size: u64,
    fresh: Fresh,
    /// False where the kernel has nothing to gain by copying between two files, or has refused to.
    copies: AtomicBool,
}

/// Bytes that are written at a time where zeros are.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl<'f> FileOutput<'f> {
    /// The file system is to lie in `file` from byte `base` on and may take `size` bytes.
    #[must_use]
    pub fn new(file: &'f File, base: u64, size: u64, fresh: Fresh) -> Self {
        Self { file, base, size, fresh, copies: AtomicBool::new(may_share(file)) }
    }
}

/// Types of file systems whose files never share blocks: there the kernel would copy page by page, and do it in one
/// thread (Linux: `TMPFS_MAGIC`, `EXT4_SUPER_MAGIC`).
const NEVER_SHARED: [u64; 2] = [0x0102_1994, 0xef53];

/// Whether a file may get blocks of another one in place of a copy of them.
fn may_share(file: &File) -> bool {
    // The type's width and sign differ between machines; it has 32 bits.
    let kind = rustix::fs::fstatfs(file).map(|found| found.f_type as u64 & 0xffff_ffff);
    kind.is_ok_and(|kind| !NEVER_SHARED.contains(&kind))
}

fn failed(op: &'static str, offset: u64, error: &std::io::Error) -> Error {
    let errno = error.raw_os_error();
    let error = if errno == Some(Errno::NOSPC.raw_os_error()) {
        blockdev::Error::NoSpace { offset }
    } else {
        blockdev::Error::Io { op, offset, errno, message: error.to_string() }
    };
    error.into()
}

impl Output for FileOutput<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.base + offset).map_err(|error| failed("write", offset, &error))
    }

    fn zero(&self, mut offset: u64, mut len: u64) -> Result<()> {
        if self.fresh == Fresh::Zeros {
            return Ok(());
        }
        while len > 0 {
            let step = len.min(ZEROS.len() as u64);
            self.write_at(offset, &ZEROS[..step as usize])?;
            (offset, len) = (offset + step, len - step);
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| failed("flush", 0, &error))
    }

    /// Nothing where the file is new: it has no name yet, or one that nobody looks for.
    fn fence(&self, _: Barrier) -> Result<()> {
        if self.fresh == Fresh::Zeros { Ok(()) } else { self.flush() }
    }

    fn copy_file(&self, offset: u64, file: &File, from: u64, len: u64) -> Result<bool> {
        let (mut source, mut target) = (from, self.base + offset);
        let mut left = len;
        while self.copies.load(Ordering::Relaxed) && left > 0 {
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
            match rustix::fs::copy_file_range(file, Some(&mut source), self.file, Some(&mut target), step) {
                Ok(0) => {
                    let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                    return Err(failed("copy", offset, &error));
                }
                Ok(copied) => left -= copied as u64,
                Err(Errno::INTR) => {}
                // Two file systems, or one that cannot: then bytes are read and written.
                Err(
                    Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::BADF,
                ) if left == len => {
                    self.copies.store(false, Ordering::Relaxed);
                }
                Err(error) => return Err(failed("copy", offset, &error.into())),
            }
        }
        Ok(left == 0)
    }
}
