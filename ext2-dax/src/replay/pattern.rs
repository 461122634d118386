//! The bytes that scripts write, and the checksum of what they read; neither needs the whole in memory.

use blockdev::PmemSlice;

use crate::error::Result;
use crate::uio::{Sink, Source};

/// The byte at file offset `pos` of the pattern with `seed`.
#[must_use]
pub(super) fn byte(pos: u64, seed: u64) -> u8 {
    let mixed = (pos.wrapping_add(1).wrapping_mul(2_654_435_761) >> 13).wrapping_add(seed.wrapping_mul(31));
    // OK to cast: the low byte is meant.
    mixed as u8
}

const PIECE: usize = 4096;

/// The pattern as the buffer of a write.
#[derive(Clone, Copy, Debug)]
pub struct PatternSource {
    pos: u64,
    left: u64,
    seed: u64,
}

impl PatternSource {
    /// `len` bytes of the pattern with `seed`, as they belong at file offset `pos`.
    #[must_use]
    pub fn new(pos: u64, len: u64, seed: u64) -> Self {
        Self { pos, left: len, seed }
    }
}

impl Source for PatternSource {
    fn take(&mut self, to: &PmemSlice<'_>) -> Result<u64> {
        let mut buf = [0; PIECE];
        let mut done = 0;
        while done < to.len() && self.left > 0 {
            // OK to cast: at most the buffer's length.
            let want = (to.len() - done).min(PIECE as u64) as usize;
            let got = self.take_bytes(&mut buf[..want]);
            // OK to cast: at most the buffer's length.
            to.copy_in(done, &buf[..got as usize])?;
            done += got;
        }
        Ok(done)
    }

    fn take_bytes(&mut self, buf: &mut [u8]) -> u64 {
        let mut taken = 0;
        for place in buf.iter_mut() {
            if self.left == 0 {
                break;
            }
            *place = byte(self.pos, self.seed);
            self.pos = self.pos.wrapping_add(1);
            self.left -= 1;
            taken += 1;
        }
        taken
    }
}

/// A buffer that keeps only the CRC-32 of what is read into it.
#[derive(Clone, Debug, Default)]
pub struct CrcSink(crc32fast::Hasher);

impl CrcSink {
    /// The CRC-32 (IEEE) of all bytes taken.
    #[must_use]
    pub fn crc(&self) -> u32 {
        self.0.clone().finalize()
    }
}

impl Sink for CrcSink {
    fn put(&mut self, from: &PmemSlice<'_>) -> Result<u64> {
        let mut buf = [0; PIECE];
        let mut done = 0;
        while done < from.len() {
            // OK to cast: at most the buffer's length.
            let piece = &mut buf[..(from.len() - done).min(PIECE as u64) as usize];
            from.copy_out(done, piece)?;
            self.0.update(piece);
            done += piece.len() as u64;
        }
        Ok(done)
    }

    fn put_zeros(&mut self, len: u64) -> u64 {
        let zeros = [0; PIECE];
        let mut left = len;
        while left > 0 {
            // OK to cast: at most the buffer's length.
            let piece = &zeros[..left.min(PIECE as u64) as usize];
            self.0.update(piece);
            left -= piece.len() as u64;
        }
        len
    }

    fn put_bytes(&mut self, bytes: &[u8]) -> u64 {
        self.0.update(bytes);
        bytes.len() as u64
    }
}
