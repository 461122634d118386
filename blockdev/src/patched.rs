//! A device with newer blocks over it, for reading.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use crate::{BlockDevice, Claim, Error, Result};

/// Reads some blocks from memory, and all else from the device below. Nothing is written.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use blockdev::{BlockDevice, Patched, RamDevice};
///
/// let below = RamDevice::from_bytes(&[1; 4096])?;
/// let patched = Patched::new(below, 1024, BTreeMap::from([(2, vec![2; 1024])]));
/// let mut bytes = [0; 2];
/// patched.read_at(2047, &mut bytes)?;
/// assert_eq!(bytes, [1, 2]);
/// # Ok::<(), blockdev::Error>(())
/// ```
pub struct Patched<D> {
    inner: D,
    block: u64,
    blocks: BTreeMap<u32, Vec<u8>>,
}

impl<D: BlockDevice> Patched<D> {
    /// The device with other blocks in the place of some, which are numbered by `block` bytes, at least 1.
    pub fn new(inner: D, block: u64, blocks: BTreeMap<u32, Vec<u8>>) -> Self {
        Self { inner, block: block.max(1), blocks }
    }

    /// The blocks in memory that a range of bytes touches, each with where it begins.
    fn newer(&self, offset: u64, len: u64) -> impl Iterator<Item = (u64, &[u8])> {
        let number = |byte: u64| u32::try_from(byte / self.block).unwrap_or(u32::MAX);
        let last = (len > 0).then(|| offset.saturating_add(len - 1));
        let touched = last.map(|last| self.blocks.range(number(offset)..=number(last)));
        touched.into_iter().flatten().map(|(nr, bytes)| (u64::from(*nr) * self.block, &bytes[..]))
    }
}

/// Without the blocks: who prints a device does not ask for their bytes.
impl<D: fmt::Debug> fmt::Debug for Patched<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patched").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<D: BlockDevice> BlockDevice for Patched<D> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.inner.read_at(offset, buf)?;
        let end = offset + buf.len() as u64;
        for (start, bytes) in self.newer(offset, buf.len() as u64) {
            let (from, to) = (start.max(offset), (start + bytes.len() as u64).min(end));
            let part = buf.get_mut((from - offset) as usize..(to.max(from) - offset) as usize);
            let newer = bytes.get((from - start) as usize..(to.max(from) - start) as usize);
            if let (Some(part), Some(newer)) = (part, newer) {
                part.copy_from_slice(newer);
            }
        }
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> Result<()> {
        Err(Error::ReadOnly)
    }

    fn zero(&self, _: u64, _: u64) -> Result<()> {
        Err(Error::ReadOnly)
    }

    fn fence(&self) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn claim(&self, offset: u64, len: u64) -> Result<Claim> {
        self.inner.claim(offset, len)
    }

    fn is_read_only(&self) -> bool {
        true
    }

    #[cfg(feature = "std")]
    fn backing_file(&self) -> Option<crate::BackingFile<'_>> {
        self.inner.backing_file()
    }

    fn is_in_place(&self, offset: u64, len: u64) -> bool {
        self.newer(offset, len).next().is_none() && self.inner.is_in_place(offset, len)
    }

    fn populate(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.populate(offset, len)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn a_range_is_read_from_memory_where_that_is_newer() {
        let device = crate::RamDevice::new(16 << 10).unwrap();
        device.write_at(0, &vec![1; 16 << 10]).unwrap();
        let blocks = BTreeMap::from([(3, vec![3; 1024]), (5, vec![5; 1024])]);
        let patched = Patched::new(device, 1024, blocks);
        let mut buf = vec![0; 4096];
        patched.read_at(2560, &mut buf).unwrap();
        let expected = [(512, 1), (1024, 3), (1024, 1), (1024, 5), (512, 1)];
        let expected: Vec<u8> = expected.iter().flat_map(|&(len, byte)| vec![byte; len]).collect();
        assert_eq!(buf, expected);
        patched.read_at(3100, &mut buf[..10]).unwrap();
        assert_eq!(buf[..10], [3; 10]);
        assert!(patched.is_in_place(2048, 1024) && !patched.is_in_place(2048, 1025));
        assert!(patched.read_at((16 << 10) - 1, &mut buf[..2]).is_err());
        assert_eq!(patched.write_at(0, b"x"), Err(Error::ReadOnly));
    }
}
