//! Writes that follow one another, as one.

use alloc::vec::Vec;

use blockdev::{BlockDevice, Result};

/// Most bytes of one write. Larger ones save no time: memory that is touched for the first time costs more than a call.
pub(crate) const MOST: usize = 64 << 10;

/// Keeps bytes back as long as more come that lie right behind them. Nothing is said of the order in which they are stored, and
/// what is kept back is stored by [`end`](Self::end) alone.
#[derive(Debug)]
pub(crate) struct Joined<'d> {
    dev: &'d dyn BlockDevice,
    start: u64,
    bytes: Vec<u8>,
}

impl<'d> Joined<'d> {
    /// Nothing is kept back.
    pub(crate) fn new(dev: &'d dyn BlockDevice) -> Self {
        Self { dev, start: 0, bytes: Vec::new() }
    }

    /// Writes `bytes` at `offset`, now or with what follows.
    pub(crate) fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.start + self.bytes.len() as u64 != offset || self.bytes.len() >= MOST {
            self.end()?;
            self.start = offset;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes what was kept back.
    pub(crate) fn end(&mut self) -> Result<()> {
        if !self.bytes.is_empty() {
            self.dev.write_at(self.start, &self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockdev::RamDevice;

    #[test]
    fn what_is_written_piece_by_piece_is_all_there_at_the_end() {
        let dev = RamDevice::new(4 << 20).expect("memory");
        let mut joined = Joined::new(&dev);
        let mut expected = alloc::vec![0; 4 << 20];
        // Runs, a gap, backwards, the same place a second time, and more than is kept back.
        let places = [(0, 100), (100, 50), (151, 9), (20, 5), (25, 5), (25, 5), (1 << 20, 700_000)];
        let long = [((1 << 20) + 700_000, 700_000), ((1 << 20) + 1_400_000, 10)];
        for (nr, (at, len)) in (1..).zip(places.into_iter().chain(long)) {
            joined.write_at(at as u64, &alloc::vec![nr; len]).expect("in memory");
            expected[at..at + len].fill(nr);
        }
        joined.end().expect("in memory");
        let mut found = alloc::vec![0; 4 << 20];
        dev.read_at(0, &mut found).expect("in memory");
        assert!(found == expected);
    }
}
