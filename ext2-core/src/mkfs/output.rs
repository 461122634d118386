//! Where a new file system is written to.

use alloc::vec::Vec;
use blockdev::BlockDevice;

use super::Result;
use crate::order::Barrier;

/// What takes the bytes of a new file system, at offsets from its start.
pub trait Output {
    /// Bytes that it has room for.
    fn size(&self) -> u64;

    /// Writes bytes.
    ///
    /// # Errors
    /// The device's.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Makes a range read as zeros, where it does not already.
    ///
    /// # Errors
    /// The device's.
    fn zero(&mut self, offset: u64, len: u64) -> Result<()>;

    /// Makes all durable.
    ///
    /// # Errors
    /// The device's.
    fn flush(&mut self) -> Result<()>;

    /// Copies from a file of the host without reading it, if that is possible: `false` where nothing was done.
    ///
    /// # Errors
    /// The device's, and those of reading the file.
    #[cfg(feature = "std")]
    fn copy_file(&mut self, offset: u64, file: &std::fs::File, from: u64, len: u64) -> Result<bool> {
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

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.device.write_at(offset, bytes)?)
    }

    fn zero(&mut self, offset: u64, len: u64) -> Result<()> {
        match self.fresh {
            Fresh::Zeros => Ok(()),
            Fresh::Unknown => Ok(self.device.zero(offset, len)?),
        }
    }

    fn flush(&mut self) -> Result<()> {
        Ok(Barrier::Made.flush(self.device)?)
    }
}

/// Bytes that are gathered before they are written.
const BATCH: usize = 2 << 20;

/// A window of output in memory: what is written next to each other goes out in one piece.
#[derive(Debug, Default)]
pub(super) struct Batch {
    start: u64,
    bytes: Vec<u8>,
}

impl Batch {
    /// Writes bytes: into the window, behind it, or after a new one has been opened.
    pub(super) fn put(&mut self, offset: u64, bytes: &[u8], out: &mut dyn Output) -> Result<()> {
        self.room(offset, bytes.len(), out)?.copy_from_slice(bytes);
        Ok(())
    }

    /// The window's bytes for `len` bytes at `offset`, to be filled by the caller.
    pub(super) fn room(&mut self, offset: u64, len: usize, out: &mut dyn Output) -> Result<&mut [u8]> {
        let end = self.start + self.bytes.len() as u64;
        let inside = offset >= self.start && offset + len as u64 <= end;
        let behind = offset == end && self.bytes.len() + len <= BATCH;
        if !inside && !behind {
            self.flush(out)?;
            self.start = offset;
        }
        let at = (offset - self.start) as usize;
        if !inside {
            self.bytes.resize(at + len, 0);
        }
        Ok(&mut self.bytes[at..at + len])
    }

    /// Writes the window.
    pub(super) fn flush(&mut self, out: &mut dyn Output) -> Result<()> {
        if !self.bytes.is_empty() {
            out.write_at(self.start, &self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }
}
