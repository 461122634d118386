//! A bitmap of a group: a set bit is taken.

use alloc::vec::Vec;
use bitvec::prelude::{BitVec, Lsb0};
use core::ops::Range;

/// Bytes of a word of this machine, in which bits are looked for.
const WORD: usize = size_of::<usize>();

/// Bits of a word.
const BITS: usize = 8 * WORD;

/// Bits of one group, in ext2's order: bit 0 is the lowest of the first byte.
///
/// ```
/// use ext2_format::bitmap::Bitmap;
///
/// let mut bitmap = Bitmap::new(64);
/// bitmap.fill(0..10, true);
/// bitmap.set(12);
/// assert_eq!(bitmap.first_free(0..64), Some(10));
/// assert_eq!(bitmap.free_run(10, 64), 2);
/// assert_eq!(bitmap.count_free(0..64), 53);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap(BitVec<usize, Lsb0>);

impl Bitmap {
    /// `len` free bits.
    #[must_use]
    pub fn new(len: u32) -> Self {
        Self(BitVec::repeat(false, len as usize))
    }

    /// The first `len` bits of a bitmap block.
    #[must_use]
    pub fn from_block(block: &[u8], len: u32) -> Self {
        let words = block.chunks(WORD).map(|chunk| {
            let mut bytes = [0; WORD];
            for (to, from) in bytes.iter_mut().zip(chunk) {
                *to = *from;
            }
            usize::from_le_bytes(bytes)
        });
        let mut bits = BitVec::from_vec(words.collect());
        bits.truncate(len as usize);
        bits.set_uninitialized(true);
        Self(bits)
    }

    /// The bitmap as a block of `block_len` bytes; bits past the last are set, as mke2fs leaves them.
    #[must_use]
    pub fn to_block(&self, block_len: usize) -> Vec<u8> {
        let mut bits = self.0.clone();
        bits.set_uninitialized(true);
        let mut bytes: Vec<u8> = bits.as_raw_slice().iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(block_len, 0xff);
        bytes
    }

    /// The words of a bitmap block in which these bits lie: where each begins, in bytes, and what is in it. Bits past the
    /// last are set.
    pub fn words(&self, range: Range<u32>) -> impl Iterator<Item = (u64, [u8; WORD])> {
        let (first, end) = (range.start as usize / BITS, (range.end as usize).div_ceil(BITS));
        let words = self.0.as_raw_slice().iter().enumerate().take(end).skip(first);
        let len = self.0.len();
        words.map(move |(nr, word)| {
            let past = match len.saturating_sub(nr * BITS) {
                used @ 0..BITS => !0 << used,
                _ => 0,
            };
            ((nr * WORD) as u64, (word | past).to_le_bytes())
        })
    }

    /// How many bits there are.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // a group has blocks
    pub fn len(&self) -> u32 {
        // A group has at most 8 * 65536 blocks.
        self.0.len() as u32
    }

    /// Whether a bit is taken; one past the end is.
    #[must_use]
    pub fn is_set(&self, bit: u32) -> bool {
        self.0.get(bit as usize).is_none_or(|bit| *bit)
    }

    /// Takes or frees a range of bits. Nothing happens where it leads out of the bitmap.
    pub fn fill(&mut self, range: Range<u32>, taken: bool) {
        if let Some(bits) = self.0.get_mut(range.start as usize..range.end as usize) {
            bits.fill(taken);
        }
    }

    /// Takes one bit.
    pub fn set(&mut self, bit: u32) {
        self.fill(bit..bit.saturating_add(1), true);
    }

    /// The first free bit of a range.
    #[must_use]
    pub fn first_free(&self, range: Range<u32>) -> Option<u32> {
        let end = range.end.min(self.len());
        let bits = self.0.get(range.start as usize..end as usize)?;
        bits.first_zero().map(|at| range.start + at as u32)
    }

    /// How many bits from `from` on are free, up to `most`.
    #[must_use]
    pub fn free_run(&self, from: u32, most: u32) -> u32 {
        let end = from.saturating_add(most).min(self.len());
        match self.0.get(from as usize..end as usize) {
            Some(bits) => bits.first_one().map_or(end - from, |at| at as u32),
            None => 0,
        }
    }

    /// The runs of at least `least` free bits in a range, cut where it begins and ends.
    pub fn free_runs(&self, range: Range<u32>, least: u32) -> impl Iterator<Item = Range<u32>> {
        let mut at = range.start;
        core::iter::from_fn(move || {
            let start = self.first_free(at..range.end)?;
            at = start + self.free_run(start, range.end - start);
            Some(start..at)
        })
        .filter(move |run| run.end - run.start >= least)
    }

    /// Free bits of a range.
    #[must_use]
    pub fn count_free(&self, range: Range<u32>) -> u32 {
        let end = range.end.min(self.len());
        self.0.get(range.start as usize..end as usize).map_or(0, |bits| bits.count_zeros() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_in_ext2s_order_and_padding_is_set() {
        let mut bitmap = Bitmap::new(20);
        bitmap.fill(0..3, true);
        bitmap.set(9);
        let block = bitmap.to_block(16);
        assert_eq!(block[..4], [0b111, 0b10, 0xf0, 0xff]);
        assert_eq!(block[15], 0xff);
        assert_eq!(Bitmap::from_block(&block, 20), bitmap);
    }

    #[test]
    fn words_are_those_of_the_block() {
        let mut bitmap = Bitmap::new(150);
        bitmap.fill(60..70, true);
        bitmap.set(149);
        let block = bitmap.to_block(32);
        let whole: Vec<u8> = bitmap.words(0..150).flat_map(|(_, word)| word).collect();
        assert_eq!(whole, block[..150_usize.div_ceil(BITS) * WORD]);
        let some: Vec<u64> = bitmap.words(64..65).map(|(at, _)| at).collect();
        assert_eq!(some, [8]);
        assert_eq!(bitmap.words(63..129).count(), 128 / BITS - 63 / BITS + 1);
    }

    #[test]
    fn runs_end_at_taken_bits_and_at_the_end() {
        let mut bitmap = Bitmap::new(100);
        bitmap.set(50);
        assert_eq!(bitmap.first_free(50..100), Some(51));
        assert_eq!(bitmap.first_free(50..51), None);
        assert_eq!(bitmap.free_run(40, 100), 10);
        assert_eq!(bitmap.free_run(90, 100), 10);
        assert_eq!(bitmap.free_run(100, 1), 0);
        assert_eq!(bitmap.count_free(0..1000), 99);
        assert!(bitmap.is_set(100));
    }

    #[test]
    fn runs_of_free_bits_are_those_of_a_range_that_are_long_enough() {
        let mut bitmap = Bitmap::new(40);
        for taken in [3..5, 6..10, 20..21] {
            bitmap.fill(taken, true);
        }
        let runs = |range, least| bitmap.free_runs(range, least).collect::<Vec<_>>();
        assert_eq!(runs(0..40, 0), [0..3, 5..6, 10..20, 21..40]);
        assert_eq!(runs(1..100, 3), [10..20, 21..40]);
        assert_eq!(runs(12..18, 6).first(), Some(&(12..18)));
        assert_eq!(runs(20..21, 0), []);
        assert_eq!(runs(30..30, 0), []);
    }
}
