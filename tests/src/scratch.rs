//! A device in memory that goes back to what it was, and that knows which bytes were asked for.

use std::sync::{Mutex, MutexGuard, PoisonError};

use blockdev::{BlockDevice, Error, Result};

/// A device over a vector. What is written can be undone in the time it took to write it, which is what a test over
/// millions of states of one image needs.
#[derive(Debug)]
pub struct Scratch {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    bytes: Vec<u8>,
    /// What writes have covered: offset and former bytes, oldest first.
    undo: Vec<(usize, Vec<u8>)>,
    /// One flag for each byte that was read, where that is noted.
    read: Option<Vec<bool>>,
}

impl Scratch {
    /// A device with these contents.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { inner: Mutex::new(Inner { bytes, undo: Vec::new(), read: None }) }
    }

    /// A device that notes which bytes are read.
    pub fn noting(bytes: Vec<u8>) -> Self {
        let read = Some(vec![false; bytes.len()]);
        Self { inner: Mutex::new(Inner { bytes, undo: Vec::new(), read }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A test that panicked in between is over; others may look at what is left.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the contents these, with nothing to undo.
    pub fn load(&self, image: &[u8]) {
        let mut inner = self.lock();
        inner.undo.clear();
        inner.bytes.clear();
        inner.bytes.extend_from_slice(image);
    }

    /// Undoes every write since the last call.
    pub fn restore(&self) {
        let mut inner = self.lock();
        let undo = std::mem::take(&mut inner.undo);
        for (offset, bytes) in undo.into_iter().rev() {
            inner.bytes[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
    }

    /// Keeps every write so far: [`restore`](Self::restore) comes back to here.
    pub fn keep(&self) {
        self.lock().undo.clear();
    }

    /// A copy of the contents.
    pub fn to_vec(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// Lets a function see the contents.
    pub fn with<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(&self.lock().bytes)
    }

    /// The ranges that writes have covered since the last [`restore`](Self::restore) or [`keep`](Self::keep).
    pub fn changed(&self) -> Vec<(usize, usize)> {
        self.lock().undo.iter().map(|(offset, bytes)| (*offset, bytes.len())).collect()
    }

    /// The ranges that were read of a device that [notes](Self::noting) it, ascending and apart.
    pub fn read_ranges(&self) -> Vec<std::ops::Range<usize>> {
        let inner = self.lock();
        let flags = inner.read.as_deref().unwrap_or_default();
        let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
        for (at, _) in flags.iter().enumerate().filter(|(_, flag)| **flag) {
            match ranges.last_mut() {
                Some(last) if last.end == at => last.end = at + 1,
                _ => ranges.push(at..at + 1),
            }
        }
        ranges
    }
}

/// The place of a request in memory.
fn span(offset: u64, len: usize, size: usize) -> Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    match start.checked_add(len) {
        Some(end) if end <= size => Ok(start..end),
        _ => Err(Error::OutOfRange { offset, len: len as u64, size: size as u64 }),
    }
}

impl BlockDevice for Scratch {
    fn size(&self) -> u64 {
        self.lock().bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut inner = self.lock();
        let span = span(offset, buf.len(), inner.bytes.len())?;
        buf.copy_from_slice(&inner.bytes[span.clone()]);
        if let Some(flags) = &mut inner.read {
            flags[span].fill(true);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let mut inner = self.lock();
        let span = span(offset, buf.len(), inner.bytes.len())?;
        let former = inner.bytes[span.clone()].to_vec();
        inner.undo.push((span.start, former));
        inner.bytes[span].copy_from_slice(buf);
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.write_at(offset, &vec![0; usize::try_from(len).unwrap_or(usize::MAX)])
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
    fn what_was_written_is_undone_in_the_right_order() {
        let device = Scratch::noting(vec![1; 16]);
        device.write_at(4, &[2, 2]).unwrap();
        device.write_at(5, &[3, 3]).unwrap();
        device.with(|bytes| assert_eq!(bytes[3..8], [1, 2, 3, 3, 1]));
        device.restore();
        assert_eq!(device.to_vec(), vec![1; 16]);
        assert!(device.write_at(15, &[0, 0]).is_err());
        let mut buf = [0; 3];
        device.read_at(2, &mut buf).unwrap();
        device.read_at(4, &mut buf).unwrap();
        assert_eq!(device.read_ranges().first(), Some(&(2..7)));
    }
}
