//! Damaged images: which bytes are changed, and a device that watches who reads them.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use blockdev::{BlockDevice, Error, Result};

use crate::Rng;

/// Bytes of an image that are looked at as one when damage is placed.
const GRAIN: usize = 64;

/// What is done to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The image ends after so many bytes.
    Truncate(usize),
    /// Bytes from an offset on are replaced.
    Replace(usize, Vec<u8>),
}

/// An image whose parts that hold something are known, so that damage hits them.
#[derive(Clone, Debug)]
pub struct Victim {
    bytes: Arc<[u8]>,
    /// Offsets of the grains that are not all zero.
    hot: Vec<usize>,
}

impl Victim {
    /// Takes an image that is sound.
    pub fn new(bytes: Vec<u8>) -> Self {
        let grains = bytes.chunks(GRAIN).enumerate();
        let hot: Vec<usize> = grains
            .filter(|(_, grain)| grain.iter().any(|byte| *byte != 0))
            .map(|(at, _)| at * GRAIN)
            .collect();
        assert!(!hot.is_empty(), "an image of zeros has no parts to damage");
        Self { bytes: bytes.into(), hot }
    }

    /// Length of the sound image in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the image has no bytes; it never has none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The grains of 64 bytes that are not all zero.
    pub fn hot_grains(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.hot.iter().map(|at| *at..(at + GRAIN).min(self.len()))
    }

    /// The byte at an offset of the sound image.
    pub fn byte(&self, at: usize) -> u8 {
        self.bytes[at]
    }

    /// One to four pieces of damage of the kinds that media and enemies do.
    pub fn damage(&self, rng: &mut Rng) -> Vec<Damage> {
        let pieces = if rng.one_in(2) { 1 } else { 1 + rng.below(4) };
        (0..pieces).map(|_| self.piece(rng)).collect()
    }

    /// One piece.
    fn piece(&self, rng: &mut Rng) -> Damage {
        let hot = *rng.pick(&self.hot);
        let at = (hot + index(rng.below(64))).min(self.len() - 1);
        let aligned = |unit: usize| (hot / unit * unit, unit.min(self.len() - hot / unit * unit));
        match rng.below(12) {
            0 => Damage::Truncate(index(rng.below(self.len().try_into().expect("a length fits")))),
            // A sector or block that was never written, or that the medium lost.
            1 => {
                let unit = *rng.pick(&[512, 1024, 4096]);
                let (start, length) = aligned(unit);
                Damage::Replace(start, vec![0; length])
            }
            2 => {
                let (start, length) = aligned(*rng.pick(&[4, 64, 128, 512, 1024]));
                Damage::Replace(start, vec![0xff; length])
            }
            3 => {
                let (start, length) = aligned(512);
                let mut noise = vec![0; length];
                rng.fill(&mut noise);
                Damage::Replace(start, noise)
            }
            // One part of the image in the place of another.
            4 => {
                let (start, length) = aligned(*rng.pick(&[32, 128, 1024]));
                let from = (*rng.pick(&self.hot) / length.max(1) * length).min(self.len() - length);
                Damage::Replace(start, self.bytes[from..from + length].to_vec())
            }
            // A field with a value that somebody chose.
            5..=8 => {
                let width = *rng.pick(&[1, 2, 4]);
                let start = (at / width * width).min(self.len() - width);
                Damage::Replace(start, self.value(rng).to_le_bytes()[..width].to_vec())
            }
            _ => Damage::Replace(at, vec![self.bytes[at] ^ (1 << rng.below(8))]),
        }
    }

    /// A number that is likely to be at the edge of something.
    fn value(&self, rng: &mut Rng) -> u32 {
        let low = |number: u64| u32::try_from(number & 0xffff_ffff).expect("masked to 32 bits");
        let small = low(rng.below(40));
        let blocks = low(u64::try_from(self.len() / 1024).expect("a length fits"));
        let values = [
            0,
            1,
            small,
            blocks,
            blocks.wrapping_sub(1),
            blocks.wrapping_add(1),
            low(rng.next()),
            low(rng.below(u64::from(blocks.max(1)))),
            1 << rng.below(32),
            0x7fff_ffff,
            0x8000_0000,
            u32::MAX - small,
            0xffff,
            0x8000,
        ];
        *rng.pick(&values)
    }

    /// The image with its damage, as a device that allows `reads` calls.
    pub fn device(&self, damage: &[Damage], reads: u64) -> Watched {
        let mut size = self.len();
        let mut patches = Vec::new();
        for piece in damage {
            match piece {
                Damage::Truncate(length) => size = size.min(*length),
                Damage::Replace(at, bytes) => patches.push((*at, bytes.clone())),
            }
        }
        Watched {
            base: self.bytes.clone(),
            size,
            patches,
            reads: AtomicU64::new(0),
            limit: reads,
            offence: Mutex::new(None),
        }
    }

    /// The damaged image as bytes.
    pub fn damaged(&self, damage: &[Damage]) -> Vec<u8> {
        let device = self.device(damage, u64::MAX);
        let mut bytes = vec![0; device.size];
        device.read_at(0, &mut bytes).expect("the whole device can be read");
        bytes
    }
}

/// A number below the length of a buffer, as an index.
fn index(number: u64) -> usize {
    usize::try_from(number).expect("an index fits")
}

/// A read-only device over a damaged image that notes what no reader may do: ask for bytes that are not there, write,
/// or read without end.
#[derive(Debug)]
pub struct Watched {
    base: Arc<[u8]>,
    size: usize,
    patches: Vec<(usize, Vec<u8>)>,
    reads: AtomicU64,
    limit: u64,
    offence: Mutex<Option<String>>,
}

impl Watched {
    /// The first thing that was done and must not be.
    pub fn offence(&self) -> Option<String> {
        self.lock().clone()
    }

    /// Calls of `read_at` so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.offence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an offence, if it is the first.
    fn accuse(&self, what: String) {
        self.lock().get_or_insert(what);
    }
}

impl BlockDevice for Watched {
    fn size(&self) -> u64 {
        self.size.try_into().expect("a length fits")
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        // Not an error but the end: an error could be passed over, and the reading go on.
        assert!(reads < self.limit, "the device was read {reads} times");
        let range = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(buf.len())?));
        let Some(range) = range.filter(|range| range.end <= self.size) else {
            self.accuse(format!("read of {} bytes at {offset} of {}", buf.len(), self.size));
            let len = buf.len().try_into().expect("a length fits");
            return Err(Error::OutOfRange { offset, len, size: self.size() });
        };
        buf.copy_from_slice(&self.base[range.clone()]);
        for (at, bytes) in &self.patches {
            let (start, end) = (range.start.max(*at), range.end.min(at + bytes.len()));
            if start < end {
                buf[start - range.start..end - range.start].copy_from_slice(&bytes[start - at..end - at]);
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.accuse(format!("write of {} bytes at {offset}", buf.len()));
        Err(Error::ReadOnly)
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.accuse(format!("zeroing of {len} bytes at {offset}"));
        Err(Error::ReadOnly)
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

/// A damaged image in memory that can be written, and notes who reaches outside it or goes on without end.
#[derive(Debug)]
pub struct Workbench {
    bytes: Mutex<Vec<u8>>,
    calls: AtomicU64,
    limit: u64,
    offence: Mutex<Option<String>>,
}

impl Workbench {
    /// A device of these bytes that allows so many calls.
    pub fn new(bytes: Vec<u8>, calls: u64) -> Self {
        Self { bytes: Mutex::new(bytes), calls: AtomicU64::new(0), limit: calls, offence: Mutex::new(None) }
    }

    /// The first thing that was done and must not be.
    pub fn offence(&self) -> Option<String> {
        self.offence.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A copy of the image as it is now.
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bytes of a range, to do something with.
    fn with(&self, offset: u64, len: u64, work: impl FnOnce(&mut [u8])) -> Result<()> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        assert!(calls < self.limit, "the device was called {calls} times");
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let size = u64::try_from(bytes.len()).expect("a length fits");
        let range = offset.checked_add(len).filter(|end| *end <= size).map(|end| index(offset)..index(end));
        let Some(range) = range else {
            let mut offence = self.offence.lock().unwrap_or_else(PoisonError::into_inner);
            offence.get_or_insert(format!("{len} bytes at {offset} of {size}"));
            return Err(Error::OutOfRange { offset, len, size });
        };
        work(&mut bytes[range]);
        Ok(())
    }
}

impl BlockDevice for Workbench {
    fn size(&self) -> u64 {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).len().try_into().expect("a length fits")
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let len = buf.len().try_into().expect("a length fits");
        self.with(offset, len, |bytes| buf.copy_from_slice(bytes))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let len = buf.len().try_into().expect("a length fits");
        self.with(offset, len, |bytes| bytes.copy_from_slice(buf))
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.with(offset, len, |bytes| bytes.fill(0))
    }

    fn fence(&self) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_image_reads_as_its_parts() {
        let victim = Victim::new((0..=255).cycle().take(4096).collect());
        let damage = [Damage::Replace(10, vec![9; 4]), Damage::Truncate(2000), Damage::Replace(12, vec![7])];
        let bytes = victim.damaged(&damage);
        assert_eq!(bytes.len(), 2000);
        assert_eq!(bytes[8..16], [8, 9, 9, 9, 7, 9, 14, 15]);
    }

    #[test]
    fn what_no_reader_may_do_is_noted() {
        let victim = Victim::new(vec![1; 100]);
        let device = victim.device(&[], 3);
        assert!(device.read_at(90, &mut [0; 10]).is_ok());
        assert_eq!(device.offence(), None);
        assert!(device.read_at(91, &mut [0; 10]).is_err());
        assert!(device.write_at(0, &[1]).is_err());
        assert_eq!(device.offence().as_deref(), Some("read of 10 bytes at 91 of 100"));
    }

    #[test]
    fn damage_of_a_seed_is_the_same_each_time_and_stays_inside() {
        let victim = Victim::new((0..100_000_u32).flat_map(u32::to_le_bytes).collect());
        let mut rng = Rng::new(7);
        let mut again = Rng::new(7);
        for _ in 0..5000 {
            let damage = victim.damage(&mut rng);
            assert_eq!(damage, victim.damage(&mut again));
            for piece in damage {
                let end = match piece {
                    Damage::Truncate(size) => size,
                    Damage::Replace(at, bytes) => at + bytes.len(),
                };
                assert!(end <= victim.len());
            }
        }
    }
}
