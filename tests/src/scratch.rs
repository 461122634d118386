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
    /// What writes have covered: offset and length, oldest first; the former bytes lie in `former`, one after another.
    undo: Vec<(usize, usize)>,
    former: Vec<u8>,
    /// The sums of each [`GRAIN`] of bytes.
    sums: Vec<u64>,
    /// Of the grains that were read, in the order of first reads, and a flag for each; where that is noted.
    order: Option<(Vec<u32>, Vec<bool>)>,
    /// One flag for each byte that was read, where that is noted.
    read: Option<Vec<bool>>,
}

impl Inner {
    /// Stores bytes without a note for undoing.
    fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        let mut at = at;
        while at < end {
            let grain = at / GRAIN;
            let part = &bytes[bytes.len() - (end - at)..][..end.min((grain + 1) * GRAIN) - at];
            let place = at..at + part.len();
            at = place.end;
            if self.bytes[place.clone()] == *part {
                continue;
            }
            // Whole words around the place, since it is words that are summed.
            let words = place.start / WORD * WORD..self.bytes.len().min(place.end.next_multiple_of(WORD));
            let before = sum(words.start, &self.bytes[words.clone()]);
            self.bytes[place].copy_from_slice(part);
            let after = sum(words.start, &self.bytes[words]);
            self.sums[grain] = self.sums[grain].wrapping_add(after).wrapping_sub(before);
        }
    }

    fn sum_up(&mut self) {
        self.sums.clear();
        let grains = (0..).step_by(GRAIN).zip(self.bytes.chunks(GRAIN));
        self.sums.extend(grains.map(|(at, bytes)| sum(at, bytes)));
    }
}

/// Bytes that are summed at a time.
const WORD: usize = 8;

/// Bytes for which there is one sum.
pub const GRAIN: usize = 1024;

/// A hash of bytes and their place, such that those of a whole image are the sum of those of its parts.
fn sum(start: usize, bytes: &[u8]) -> u64 {
    let mut sum = 0u64;
    for (at, chunk) in (start..).step_by(WORD).zip(bytes.chunks(WORD)) {
        let mut word = [0; WORD];
        word[..chunk.len()].copy_from_slice(chunk);
        // As splitmix64, with the place mixed in.
        let mut mixed = u64::from_le_bytes(word) ^ (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        sum = sum.wrapping_add(mixed ^ (mixed >> 31));
    }
    sum
}

impl Scratch {
    /// A device with these contents.
    pub fn new(bytes: Vec<u8>) -> Self {
        let (undo, former, sums) = (Vec::new(), Vec::new(), Vec::new());
        let mut inner = Inner { bytes, undo, former, sums, order: None, read: None };
        inner.sum_up();
        Self { inner: Mutex::new(inner) }
    }

    /// A device that notes which bytes are read.
    pub fn noting(bytes: Vec<u8>) -> Self {
        let read = Some(vec![false; bytes.len()]);
        let device = Self::new(bytes);
        device.lock().read = read;
        device
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A test that panicked in between is over; others may look at what is left.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the contents these, with nothing to undo.
    pub fn load(&self, image: &[u8]) {
        let mut inner = self.lock();
        inner.undo.clear();
        inner.former.clear();
        inner.bytes.clear();
        inner.bytes.extend_from_slice(image);
        inner.sum_up();
    }

    /// Undoes every write since the last call, and then makes these ranges what they are in `image`, which is as
    /// long as the device, for good.
    pub fn follow(&self, image: &[u8], changed: &[std::ops::Range<usize>]) {
        self.restore();
        let mut inner = self.lock();
        for range in changed {
            inner.put(range.start, &image[range.clone()]);
        }
    }

    /// Undoes every write since the last call.
    pub fn restore(&self) {
        let mut inner = self.lock();
        let mut former = std::mem::take(&mut inner.former);
        while let Some((offset, len)) = inner.undo.pop() {
            let from = former.len() - len;
            inner.put(offset, &former[from..]);
            former.truncate(from);
        }
        inner.former = former;
    }

    /// Keeps every write so far: [`restore`](Self::restore) comes back to here.
    pub fn keep(&self) {
        let mut inner = self.lock();
        inner.undo.clear();
        inner.former.clear();
    }

    /// Lets a function see a hash of each [`GRAIN`] of bytes, which is equal for equal contents and practically never for
    /// others, and costs nothing.
    pub fn with_sums<T>(&self, look: impl FnOnce(&[u64]) -> T) -> T {
        look(&self.lock().sums)
    }

    /// Notes from here on which [`GRAIN`]s are read.
    pub fn watch(&self) {
        let mut inner = self.lock();
        let flags = vec![false; inner.sums.len()];
        inner.order = Some((Vec::new(), flags));
    }

    /// Ends that, and gives their numbers in the order of their first reads.
    pub fn watched(&self) -> Vec<u32> {
        self.lock().order.take().map(|(order, _)| order).unwrap_or_default()
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
        self.lock().undo.clone()
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
            flags[span.clone()].fill(true);
        }
        if let Some((order, flags)) = &mut inner.order
            && !span.is_empty()
        {
            let grains = span.start / GRAIN..=(span.end - 1) / GRAIN;
            for (grain, flag) in grains.clone().zip(&mut flags[grains]) {
                if !std::mem::replace(flag, true) {
                    order.push(u32::try_from(grain).expect("a test's image has fewer"));
                }
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let span = span(offset, buf.len(), inner.bytes.len())?;
        inner.undo.push((span.start, span.len()));
        inner.former.extend_from_slice(&inner.bytes[span.clone()]);
        inner.put(span.start, buf);
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

    fn assert_sums(device: &Scratch) {
        let fresh = Scratch::new(device.to_vec()).with_sums(<[u64]>::to_vec);
        device.with_sums(|sums| assert_eq!(sums, fresh));
    }

    #[test]
    fn grains_are_noted_in_the_order_of_their_first_reads() {
        let device = Scratch::new(vec![0; 4 * GRAIN]);
        device.watch();
        for at in [3 * GRAIN as u64, 5, GRAIN as u64 - 1, 3 * GRAIN as u64] {
            device.read_at(at, &mut [0; 2]).unwrap();
        }
        assert_eq!(device.watched(), [3, 0, 1]);
    }

    #[test]
    fn what_was_written_is_undone_in_the_right_order() {
        let device = Scratch::noting(vec![1; 16]);
        device.write_at(4, &[2, 2]).unwrap();
        device.write_at(5, &[3, 3]).unwrap();
        device.with(|bytes| assert_eq!(bytes[3..8], [1, 2, 3, 3, 1]));
        assert_sums(&device);
        device.restore();
        assert_sums(&device);
        assert_eq!(device.to_vec(), vec![1; 16]);
        assert!(device.write_at(15, &[0, 0]).is_err());
        let mut buf = [0; 3];
        device.read_at(2, &mut buf).unwrap();
        device.read_at(4, &mut buf).unwrap();
        assert_eq!(device.read_ranges().first(), Some(&(2..7)));
    }

    #[test]
    fn following_another_image_brings_its_changes_and_drops_ones_own() {
        let mut image = vec![7; 2045];
        let device = Scratch::new(image.clone());
        device.write_at(1020, &[9; 8]).unwrap();
        image[3..6].fill(1);
        image[1000..1500].fill(2);
        image[2044] = 3;
        device.follow(&image, &[3..6, 2044..2045, 4..5, 1000..1500]);
        assert_eq!(device.to_vec(), image);
        assert_sums(&device);
        device.write_at(0, &[5; 9]).unwrap();
        device.restore();
        assert_eq!(device.to_vec(), image);
    }
}
