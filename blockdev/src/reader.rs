//! A device of whatever can be read.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::range::check;
use crate::{BlockDevice, Error, Result};

/// Bytes that can be read at any offset: all that a device for reading needs.
///
/// ```
/// use blockdev::{BlockDevice, ReadAt, ReadDevice, Result};
///
/// /// Every byte is the low byte of its offset.
/// struct Ramp;
///
/// impl ReadAt for Ramp {
///     fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
///         for (byte, at) in buf.iter_mut().zip(offset..) {
///             *byte = at as u8;
///         }
///         Ok(())
///     }
/// }
///
/// let device = ReadDevice::with_size(Ramp, 1 << 20);
/// assert_eq!(device.read_u32(0x100)?, 0x0302_0100);
/// # Ok::<(), blockdev::Error>(())
/// ```
pub trait ReadAt: Send + Sync {
    /// Fills all of `buf` with the bytes from `offset`. A device made of this only asks for bytes within its size.
    ///
    /// # Errors
    /// Whatever keeps it from that; [`Error::io`] makes one of the system's. Nothing of `buf` counts then.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// How many bytes there are, if that is known.
    fn size(&self) -> Option<u64> {
        None
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check(offset, buf.len() as u64, self.len() as u64)?;
        // OK to cast: within the slice.
        let from = offset as usize;
        buf.copy_from_slice(&self[from..from + buf.len()]);
        Ok(())
    }

    fn size(&self) -> Option<u64> {
        Some(self.len() as u64)
    }
}

impl<const N: usize> ReadAt for [u8; N] {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.as_slice().read_at(offset, buf)
    }

    fn size(&self) -> Option<u64> {
        self.as_slice().size()
    }
}

macro_rules! forward {
    ($($pointer:ty)*) => {$(
        impl<R: ReadAt + ?Sized> ReadAt for $pointer {
            fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
                (**self).read_at(offset, buf)
            }

            fn size(&self) -> Option<u64> {
                (**self).size()
            }
        }
    )*};
}

forward!(&R Box<R> Arc<R>);

impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.as_slice().read_at(offset, buf)
    }

    fn size(&self) -> Option<u64> {
        self.as_slice().size()
    }
}

/// A regular file or a block special file. Unlike a [`FileDevice`](crate::FileDevice) it is not locked.
#[cfg(feature = "std")]
impl ReadAt for std::fs::File {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buf, offset)
            .map_err(|error| Error::io("read", offset, error))
    }

    fn size(&self) -> Option<u64> {
        use std::io::{Seek as _, SeekFrom};
        use std::os::unix::fs::FileTypeExt as _;
        let metadata = self.metadata().ok()?;
        let mut file = self;
        // A block special file has its size where it ends.
        match metadata.file_type() {
            kind if kind.is_file() => Some(metadata.len()),
            kind if kind.is_block_device() => file.seek(SeekFrom::End(0)).ok(),
            _ => None,
        }
    }
}

/// What has a place of its own to read from: one read at a time.
#[cfg(feature = "std")]
impl<S: std::io::Read + std::io::Seek + Send> ReadAt for std::sync::Mutex<S> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut source = self.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        source
            .seek(std::io::SeekFrom::Start(offset))
            .and_then(|_| source.read_exact(buf))
            .map_err(|error| Error::io("read", offset, error))
    }

    fn size(&self) -> Option<u64> {
        self.lock().unwrap_or_else(std::sync::PoisonError::into_inner).seek(std::io::SeekFrom::End(0)).ok()
    }
}

/// A device for reading, made of anything that is [`ReadAt`]: a slice, a vector, a file, a type of your own.
///
/// It keeps nothing: put a [`Cached`](crate::Cached) above a source that is slow.
///
/// ```
/// use blockdev::{BlockDevice, Error, ReadDevice};
///
/// let image = b"some bytes of an image".as_slice();
/// let device = ReadDevice::new(image)?;
/// assert_eq!(device.size(), 22);
/// assert_eq!(device.write_at(0, b"x"), Err(Error::ReadOnly));
/// # Ok::<(), Error>(())
/// ```
pub struct ReadDevice<R> {
    source: R,
    size: u64,
}

impl<R: ReadAt> ReadDevice<R> {
    /// All bytes of the source.
    ///
    /// # Errors
    /// `Unsupported` for a source that does not know its size; see [`with_size`](Self::with_size).
    pub fn new(source: R) -> Result<Self> {
        let size = source.size().ok_or(Error::Unsupported("a source of unknown size"))?;
        Ok(Self { source, size })
    }

    /// The first `size` bytes of the source.
    pub fn with_size(source: R, size: u64) -> Self {
        Self { source, size }
    }

    /// The source.
    pub fn into_inner(self) -> R {
        self.source
    }

    fn refuse(&self, offset: u64, len: u64) -> Result<()> {
        check(offset, len, self.size)?;
        Err(Error::ReadOnly)
    }
}

impl<R> fmt::Debug for ReadDevice<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadDevice").field("size", &self.size).finish_non_exhaustive()
    }
}

impl<R: ReadAt> BlockDevice for ReadDevice<R> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check(offset, buf.len() as u64, self.size)?;
        if buf.is_empty() { Ok(()) } else { self.source.read_at(offset, buf) }
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.refuse(offset, buf.len() as u64)
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.refuse(offset, len)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.refuse(offset, len)
    }

    fn fence(&self) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn claim(&self, offset: u64, len: u64) -> Result<crate::Claim> {
        self.refuse(offset, len)?;
        Err(Error::ReadOnly)
    }
}
