//! Arrays of bits, for blocks and inodes.

use alloc::vec::Vec;

/// Words of an array that is made anew rather than cleared.
const LARGE: usize = 1 << 13;

/// An array of bits, all 0 at first. A bit past the end reads as 0 and is not set.
#[derive(Debug, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Makes it an array of `len` zero bits, in the memory it has.
    pub(crate) fn reset(&mut self, len: u64) {
        // Cannot be cut off: blocks and inodes have 32-bit numbers.
        let words = len.div_ceil(64) as usize;
        if words > LARGE {
            // Fresh memory is zeros that need no pages as long as nobody writes to them.
            self.words = alloc::vec![0; words];
            return;
        }
        self.words.clear();
        self.words.resize(words, 0);
    }

    pub(crate) fn get(&self, bit: u64) -> bool {
        self.words.get((bit / 64) as usize).is_some_and(|word| word >> (bit % 64) & 1 != 0)
    }

    /// Sets a bit and says whether it was set before.
    pub(crate) fn set(&mut self, bit: u64) -> bool {
        let Some(word) = self.words.get_mut((bit / 64) as usize) else { return true };
        let mask = 1 << (bit % 64);
        let was = *word & mask != 0;
        *word |= mask;
        was
    }

    /// The first bit that is 0 from `from` on and below `end`.
    pub(crate) fn first_zero(&self, from: u64, end: u64) -> Option<u64> {
        let mut bit = from;
        while bit < end {
            let word = self.words.get((bit / 64) as usize)? | ((1 << (bit % 64)) - 1);
            if word != u64::MAX {
                let found = bit / 64 * 64 + u64::from(word.trailing_ones());
                return (found < end).then_some(found);
            }
            bit = (bit / 64 + 1) * 64;
        }
        None
    }

    /// How many bits are 1.
    pub(crate) fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The 64 bits from `bit` on, the first of them the lowest.
    pub(crate) fn word(&self, bit: u64) -> u64 {
        let (word, shift) = ((bit / 64) as usize, bit % 64);
        let low = self.words.get(word).copied().unwrap_or(0) >> shift;
        let high = match shift {
            0 => 0,
            _ => self.words.get(word + 1).copied().unwrap_or(0) << (64 - shift),
        };
        low | high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_zero_is_found_across_words_and_not_past_the_end() {
        let mut bits = Bits::default();
        bits.reset(200);
        for bit in 0..130 {
            bits.set(bit);
        }
        assert_eq!(bits.first_zero(3, 200), Some(130));
        assert_eq!(bits.first_zero(3, 130), None);
        assert_eq!(bits.first_zero(150, 200), Some(150));
        assert_eq!(bits.first_zero(200, 200), None);
    }

    #[test]
    fn bits_are_read_across_words() {
        let mut bits = Bits::default();
        bits.reset(130);
        for bit in [1, 60, 63, 64, 67, 129] {
            assert!(!bits.set(bit));
            assert!(bits.set(bit));
        }
        assert_eq!(bits.word(0), 1 << 1 | 1 << 60 | 1 << 63);
        assert_eq!(bits.word(60), 0b1001_1001);
        assert_eq!(bits.word(64), 0b1001);
        assert_eq!(bits.word(129), 1);
        assert_eq!(bits.word(1000), 0);
        assert_eq!(bits.count(), 6);
        bits.reset(64);
        assert!(!bits.get(60));
    }
}
