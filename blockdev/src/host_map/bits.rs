//! Many bits, of which few are ever set.

use core::alloc::Layout;
use core::sync::atomic::{AtomicU64, Ordering};
use std::alloc::alloc_zeroed;

/// Bits of which is known together whether one was ever set.
const BLOCK: u64 = 64 * 64;

/// A bit for each of many pages. Who changes them keeps others away. Where none was ever set they take no memory, and to look
/// for one, or to clear them, no time to speak of.
#[derive(Debug)]
pub(super) struct Bits {
    bits: Words,
    /// The blocks that may have one that is set.
    blocks: Words,
}

impl Bits {
    /// None where there is no memory.
    pub(super) fn new(count: u64) -> Option<Self> {
        Some(Self { bits: Words::new(count)?, blocks: Words::new(count.div_ceil(BLOCK))? })
    }

    pub(super) fn get(&self, bit: u64) -> bool {
        self.bits.get(bit)
    }

    pub(super) fn set(&self, first: u64, after: u64, to: bool) {
        if to {
            self.blocks.set(first / BLOCK, after.div_ceil(BLOCK), true);
            return self.bits.set(first, after, true);
        }
        let mut at = self.skip(first, after);
        while at < after {
            let end = (at / BLOCK + 1) * BLOCK;
            self.bits.set(at, end.min(after), false);
            if at.is_multiple_of(BLOCK) && end <= after {
                self.blocks.set(at / BLOCK, at / BLOCK + 1, false);
            }
            at = self.skip(end, after);
        }
    }

    /// The first bit from `at` to before `end` that is like this, or `end`.
    pub(super) fn find(&self, mut at: u64, end: u64, like: bool) -> u64 {
        if !like {
            return self.bits.find(at, end, false);
        }
        at = self.skip(at, end);
        while at < end {
            let block_end = ((at / BLOCK + 1) * BLOCK).min(end);
            let found = self.bits.find(at, block_end, true);
            if found < block_end {
                return found;
            }
            at = self.skip(block_end, end);
        }
        end
    }

    /// The first bit from `at` to before `end` that lies in a block in which one may be set, or `end`.
    fn skip(&self, at: u64, end: u64) -> u64 {
        if at >= end {
            return end;
        }
        let block = self.blocks.find(at / BLOCK, end.div_ceil(BLOCK), true);
        at.max(block * BLOCK).min(end)
    }

    /// Where the bits lie: the first address, and the first after.
    #[cfg(test)]
    pub(super) fn addresses(&self) -> (u64, u64) {
        let words = self.bits.0.as_ptr_range();
        (words.start.addr() as u64, words.end.addr() as u64)
    }
}

/// Bits that are zero at first.
#[derive(Debug)]
struct Words(Box<[AtomicU64]>);

impl Words {
    /// None where there is no memory.
    fn new(count: u64) -> Option<Self> {
        let words = usize::try_from(count.div_ceil(64).max(1)).ok()?;
        let layout = Layout::array::<AtomicU64>(words).ok()?;
        // SAFETY: not of size 0, as there is a word.
        let start = unsafe { alloc_zeroed(layout) }.cast::<AtomicU64>();
        if start.is_null() {
            return None;
        }
        // SAFETY: allocated just now as an array of so many words; all zeros is a word.
        Some(Self(unsafe { Box::from_raw(core::ptr::slice_from_raw_parts_mut(start, words)) }))
    }

    fn word(&self, bit: u64) -> u64 {
        // OK to cast: as many as were made.
        self.0.get((bit / 64) as usize).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn get(&self, bit: u64) -> bool {
        self.word(bit) >> (bit % 64) & 1 == 1
    }

    fn set(&self, first: u64, after: u64, to: bool) {
        let mut at = first;
        while at < after {
            let end = (at / 64 + 1) * 64;
            let mask = u64::MAX << (at % 64) & if end > after { u64::MAX >> (end - after) } else { u64::MAX };
            // OK to cast: as in `word`.
            if let Some(word) = self.0.get((at / 64) as usize) {
                let before = word.load(Ordering::Relaxed);
                word.store(if to { before | mask } else { before & !mask }, Ordering::Relaxed);
            }
            at = end;
        }
    }

    /// The first bit from `at` to before `end` that is like this, or `end`.
    fn find(&self, mut at: u64, end: u64, like: bool) -> u64 {
        while at < end {
            let word = if like { self.word(at) } else { !self.word(at) } >> (at % 64);
            if word != 0 {
                return (at + u64::from(word.trailing_zeros())).min(end);
            }
            at = (at / 64 + 1) * 64;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_agree_with_a_list() {
        const COUNT: u64 = 3 * BLOCK + 300;
        let bits = Bits::new(COUNT).unwrap();
        let mut list = [false; COUNT as usize];
        let mut state = 3_u64;
        for _ in 0..5000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (a, b) = (state >> 20 & 0x3fff, state >> 40 & 0x3fff);
            let (first, after) = (a.min(b).min(COUNT), a.max(b).min(COUNT));
            bits.set(first, after, state >> 60 & 1 == 1);
            list[first as usize..after as usize].fill(state >> 60 & 1 == 1);
            for like in [true, false] {
                let expected = (first..after).find(|at| list[*at as usize] == like).unwrap_or(after);
                assert_eq!(bits.find(first, after, like), expected);
            }
        }
    }
}
