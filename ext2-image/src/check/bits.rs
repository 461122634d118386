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

    /// Sets `len` bits from `from` on if all of them are 0, and says whether they were. Otherwise none is changed.
    pub(crate) fn set_if_clear(&mut self, from: u64, len: u64) -> bool {
        let clear = |(word, mask): (usize, u64)| self.words.get(word).is_some_and(|word| word & mask == 0);
        if !parts(from, len).all(clear) {
            return false;
        }
        self.set_range(from, len);
        true
    }

    /// Sets `len` bits from `from` on.
    pub(crate) fn set_range(&mut self, from: u64, len: u64) {
        for (word, mask) in parts(from, len) {
            if let Some(word) = self.words.get_mut(word) {
                *word |= mask;
            }
        }
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

/// The words that `len` bits from `from` on lie in, and which bits of each.
fn parts(from: u64, len: u64) -> impl Iterator<Item = (usize, u64)> {
    let end = from + len;
    (from / 64..end.div_ceil(64)).map(move |word| {
        let first = word * 64;
        let (low, high) = (from.max(first) - first, (end - first).min(64));
        // OK to cast: blocks have 32-bit numbers.
        (word as usize, (u64::MAX << low) & (u64::MAX >> (64 - high)))
    })
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

    #[test]
    fn a_range_is_set_whole_or_not_at_all() {
        for from in [0, 1, 63, 64, 65] {
            for len in [1, 2, 63, 64, 65, 130] {
                let mut bits = Bits::default();
                bits.reset(200);
                assert!(bits.set_if_clear(from, len));
                assert_eq!(bits.count(), len);
                assert!(bits.get(from) && bits.get(from + len - 1));
                assert!(!bits.get(from + len) && (from == 0 || !bits.get(from - 1)));
                // One bit of it is set already.
                assert!(!bits.set_if_clear(from + len - 1, 3));
                assert_eq!(bits.count(), len);
                bits.set_range(from + len - 1, 3);
                assert_eq!(bits.count(), len + 2);
            }
        }
        let mut bits = Bits::default();
        bits.reset(64);
        assert!(!bits.set_if_clear(60, 10), "past the end nothing is clear");
        assert_eq!(bits.count(), 0);
        assert!(bits.set_if_clear(10, 0), "no bits are clear");
    }
}
