//! A device with newer blocks over it, for reading: what a log holds, before anybody puts it in its place.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use blockdev::{BlockDevice, Error, Result};

use super::replay::Recovered;
use crate::features::IncompatFeatures;
use crate::fs::super_at;

/// Reads what a log holds from memory, and all else from the device below. Nothing is written.
pub(super) struct Replayed {
    inner: Arc<dyn BlockDevice>,
    block: u64,
    blocks: BTreeMap<u32, Vec<u8>>,
}

impl Replayed {
    /// The device with what was found in its log.
    pub(super) fn new(inner: Arc<dyn BlockDevice>, found: Recovered) -> Result<Self> {
        let (block, mut blocks) = (found.block_size, found.blocks);
        // What is replayed needs no recovery any more.
        let at = super_at!(s_feature_incompat);
        // OK to cast: the superblock is at the begin of the device.
        let (nr, within) = ((at / block) as u32, (at % block) as usize);
        let mut head = match blocks.remove(&nr) {
            Some(newer) => newer,
            None => {
                let mut there = vec![0; block as usize];
                inner.read_at(u64::from(nr) * block, &mut there)?;
                there
            }
        };
        if let Some(word) = head.get_mut(within) {
            // OK to cast: the lowest byte.
            *word &= !(IncompatFeatures::RECOVER.bits() as u8);
        }
        blocks.insert(nr, head);
        Ok(Self { inner, block, blocks })
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
impl fmt::Debug for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replayed").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl BlockDevice for Replayed {
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

    fn claim(&self, offset: u64, len: u64) -> Result<blockdev::Claim> {
        self.inner.claim(offset, len)
    }

    fn is_read_only(&self) -> bool {
        true
    }

    #[cfg(feature = "std")]
    fn backing_file(&self) -> Option<blockdev::BackingFile<'_>> {
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
    use super::*;

    #[test]
    fn a_range_is_read_from_memory_where_the_log_is_newer() {
        let device = blockdev::RamDevice::new(16 << 10).unwrap();
        device.write_at(0, &vec![1; 16 << 10]).unwrap();
        let blocks = BTreeMap::from([(3, vec![3; 1024]), (5, vec![5; 1024])]);
        let found = Recovered::of_blocks(1024, blocks);
        let replayed = Replayed::new(Arc::new(device), found).expect("a superblock");
        let mut buf = vec![0; 4096];
        replayed.read_at(2560, &mut buf).unwrap();
        let expected = [(512, 1), (1024, 3), (1024, 1), (1024, 5), (512, 1)];
        let expected: Vec<u8> = expected.iter().flat_map(|&(len, byte)| vec![byte; len]).collect();
        assert_eq!(buf, expected);
        replayed.read_at(3100, &mut buf[..10]).unwrap();
        assert_eq!(buf[..10], [3; 10]);
        assert!(replayed.is_in_place(2048, 1024) && !replayed.is_in_place(2048, 1025));
        assert!(replayed.read_at((16 << 10) - 1, &mut buf[..2]).is_err());
        assert_eq!(replayed.write_at(0, b"x"), Err(Error::ReadOnly));
    }
}
