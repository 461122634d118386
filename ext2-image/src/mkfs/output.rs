//! Where a new file system is written to.

use blockdev::BlockDevice;

use super::{NodeId, Result};
use ext2_core::Barrier;

/// What takes the bytes of a new file system, at offsets from its start. Two threads may write at once, to different
/// places.
pub trait Output: Sync {
    /// Bytes that it has room for.
    fn size(&self) -> u64;

    /// Writes bytes.
    ///
    /// # Errors
    /// The device's.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Makes a range read as zeros, where it does not already.
    ///
    /// # Errors
    /// The device's.
    fn zero(&self, offset: u64, len: u64) -> Result<()>;

    /// Makes all durable.
    ///
    /// # Errors
    /// The device's.
    fn flush(&self) -> Result<()>;

    /// Has all that was written on the media before what is written from now on: somebody may find there what is half made.
    ///
    /// # Errors
    /// The device's.
    fn fence(&self, why: Barrier) -> Result<()> {
        let _ = why;
        self.flush()
    }

    /// Takes `len` bytes of the file `node` from byte `from` on by where they are, not by what they are: `false` where they
    /// have to be written.
    fn refer(&self, offset: u64, node: NodeId, from: u64, len: u64) -> bool {
        let _ = (offset, node, from, len);
        false
    }

    /// Copies from a file of the host without reading it, if that is possible: `false` where nothing was done.
    ///
    /// # Errors
    /// The device's, and those of reading the file.
    #[cfg(feature = "std")]
    fn copy_file(&self, offset: u64, file: &std::fs::File, from: u64, len: u64) -> Result<bool> {
        let _ = (offset, file, from, len);
        Ok(false)
    }
}

/// Whether what is on a device matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// It reads as zeros everywhere.
    Zeros,
    /// It may hold anything.
    Unknown,
}

/// A device as output.
#[derive(Debug)]
pub struct DeviceOutput<'d> {
    device: &'d dyn BlockDevice,
    fresh: Fresh,
}

impl<'d> DeviceOutput<'d> {
    /// Writes to `device`; of a device that is `Fresh::Zeros` zeros are left as they are.
    #[must_use]
    pub fn new(device: &'d dyn BlockDevice, fresh: Fresh) -> Self {
        Self { device, fresh }
    }
}

impl Output for DeviceOutput<'_> {
    fn size(&self) -> u64 {
        self.device.size()
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.device.write_at(offset, bytes)?)
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        match self.fresh {
            Fresh::Zeros => Ok(()),
            Fresh::Unknown => Ok(self.device.zero(offset, len)?),
        }
    }

    fn flush(&self) -> Result<()> {
        Ok(Barrier::Made.flush(self.device)?)
    }

    fn fence(&self, why: Barrier) -> Result<()> {
        Ok(why.fence(self.device)?)
    }
}
