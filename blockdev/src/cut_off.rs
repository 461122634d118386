//! An image whose end is missing.

use crate::{BlockDevice, Error, Result};

/// `D` with the size that it once had. What lies behind its end is not there: reading it is [`Error::Poisoned`] at the first
/// missing byte. Nothing can be written, and there is no DAX.
#[derive(Debug)]
pub struct CutOff<D> {
    inner: D,
    size: u64,
}

impl<D: BlockDevice> CutOff<D> {
    /// The device over `inner`, of `size` bytes or as many as `inner` has.
    pub fn new(inner: D, size: u64) -> Self {
        let size = size.max(inner.size());
        Self { inner, size }
    }

    fn refuse(&self, offset: u64, len: u64) -> Result<()> {
        crate::range::check(offset, len, self.size)?;
        Err(Error::ReadOnly)
    }
}

impl<D: BlockDevice> BlockDevice for CutOff<D> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let len = buf.len() as u64;
        crate::range::check(offset, len, self.size)?;
        let there = self.inner.size();
        if offset + len > there {
            return Err(Error::Poisoned { offset: offset.max(there) });
        }
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.refuse(offset, buf.len() as u64)
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RamDevice;

    #[test]
    fn what_is_there_is_read_and_what_is_not_is_lost_at_its_first_byte() {
        let inner = RamDevice::new(4096).unwrap();
        inner.write_at(4000, b"end").unwrap();
        let device = CutOff::new(inner, 10_000);
        let mut buf = [0; 3];
        device.read_at(4000, &mut buf).unwrap();
        assert_eq!(&buf, b"end");
        assert_eq!(device.read_at(4094, &mut buf), Err(Error::Poisoned { offset: 4096 }));
        assert_eq!(device.read_at(9000, &mut buf), Err(Error::Poisoned { offset: 9000 }));
        assert!(matches!(device.read_at(9999, &mut buf), Err(Error::OutOfRange { .. })));
        assert_eq!(device.write_at(0, &buf), Err(Error::ReadOnly));
    }
}
