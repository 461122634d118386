//! An image whose end is missing.

use crate::{BlockDevice, Error, ReadAt, ReadDevice, Result};

/// The bytes of `D`, as many as it once had. What lies behind its end is not there: reading it is [`Error::Poisoned`] at the
/// first missing byte.
#[derive(Debug)]
pub struct CutOff<D>(D);

impl<D: BlockDevice> CutOff<D> {
    /// A device for reading over `inner`, of `size` bytes or as many as `inner` has.
    pub fn device(inner: D, size: u64) -> ReadDevice<Self> {
        let size = size.max(inner.size());
        ReadDevice::with_size(Self(inner), size)
    }
}

impl<D: BlockDevice> ReadAt for CutOff<D> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let there = self.0.size();
        if offset.saturating_add(buf.len() as u64) > there {
            return Err(Error::Poisoned { offset: offset.max(there) });
        }
        self.0.read_at(offset, buf)
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
        let device = CutOff::device(inner, 10_000);
        let mut buf = [0; 3];
        device.read_at(4000, &mut buf).unwrap();
        assert_eq!(&buf, b"end");
        assert_eq!(device.read_at(4094, &mut buf), Err(Error::Poisoned { offset: 4096 }));
        assert_eq!(device.read_at(9000, &mut buf), Err(Error::Poisoned { offset: 9000 }));
        assert!(matches!(device.read_at(9999, &mut buf), Err(Error::OutOfRange { .. })));
        assert_eq!(device.write_at(0, &buf), Err(Error::ReadOnly));
    }
}
