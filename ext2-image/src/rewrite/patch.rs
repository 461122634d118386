//! What a log says of a block of which little changes: the bytes that change, and not the block.
//!
//! Of the spare descriptors of an image that grows each block changes by a few pointers, and there are hundreds of them.
//! Such changes lie one behind the other in blocks of their own; all numbers are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | the block that changes; 0 where no more follow |
//! | 4..6 | from which of its bytes on |
//! | 6..8 | how many bytes |
//! | 8.. | these |
//!
//! A crash while they are stored leaves bytes from before and after, and all that differ are in the log: to store them again
//! gives the block as it is to be.

use alloc::vec::Vec;
use core::ops::Range;

use crate::little::word;

/// Bytes before those of a change.
const HEADER: usize = 8;

/// The runs of bytes in which two blocks differ, where a log has less to say of them than of the block; the bytes between two of
/// them are more than it takes to begin another.
pub(super) fn runs(old: &[u8], new: &[u8]) -> Option<Vec<Range<usize>>> {
    let most = new.len() / 8;
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut taken = 0;
    // Whole words first: most of a block is as it was.
    for (nr, (old, new)) in old.chunks(64).zip(new.chunks(64)).enumerate() {
        if old == new {
            continue;
        }
        for (at, _) in old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new) {
            let at = nr * 64 + at;
            match runs.last_mut() {
                Some(last) if at - last.end <= HEADER => {
                    taken += at + 1 - last.end;
                    last.end = at + 1;
                }
                _ => {
                    taken += HEADER + 1;
                    runs.push(at..at + 1);
                }
            }
            if taken > most {
                return None;
            }
        }
    }
    Some(runs)
}

/// Changes, in as few blocks as they fit into.
#[derive(Debug)]
pub(super) struct Packed {
    len: usize,
    blocks: Vec<Vec<u8>>,
}

impl Packed {
    /// None yet, for blocks of `len` bytes.
    pub(super) fn new(len: usize) -> Self {
        Self { len, blocks: Vec::new() }
    }

    /// One more: `bytes` from byte `at` of a block on, no more than an eighth of it.
    pub(super) fn push(&mut self, block: u32, at: usize, bytes: &[u8]) {
        let has_room = self.blocks.last().is_some_and(|last| last.len() + HEADER + bytes.len() <= self.len);
        if !has_room {
            self.blocks.push(Vec::with_capacity(self.len));
        }
        let Some(last) = self.blocks.last_mut() else { return };
        last.extend_from_slice(&block.to_le_bytes());
        // OK to cast: a block has at most 64 KiB, and the last of its bytes a number below that.
        last.extend_from_slice(&(at as u16).to_le_bytes());
        last.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        last.extend_from_slice(bytes);
    }

    /// The blocks, whole.
    pub(super) fn into_blocks(mut self) -> Vec<Vec<u8>> {
        self.blocks.iter_mut().for_each(|block| block.resize(self.len, 0));
        self.blocks
    }
}

/// The changes in a block: which block, from which of its bytes on, and the bytes. `None` in the place of one that does not lie
/// inside its block, or this one.
pub(super) fn unpack(block: &[u8]) -> impl Iterator<Item = Option<(u32, usize, &[u8])>> {
    let mut rest = block;
    core::iter::from_fn(move || {
        if rest.len() < HEADER || word(rest, 0) == 0 {
            return None;
        }
        let (nr, both) = (word(rest, 0), word(rest, 4));
        let (at, len) = ((both & 0xffff) as usize, (both >> 16) as usize);
        let bytes =
            rest.get(HEADER..HEADER + len).filter(|bytes| !bytes.is_empty() && at + len <= block.len());
        rest = bytes.and_then(|_| rest.get(HEADER + len..)).unwrap_or_default();
        Some(bytes.map(|bytes| (nr, at, bytes)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_makes_the_old_block_the_new_one() {
        let len = 1024;
        let old: Vec<u8> = (0..len).map(|at| (at * 7 % 251) as u8).collect();
        // Nothing, the ends, neighbours, bytes with gaps of every length, and a word across two chunks.
        let cases: [&[usize]; 6] =
            [&[], &[0], &[1023], &[62, 63, 64, 65], &[3, 12, 22, 33, 45], &[0, 500, 1023]];
        let mut packed = Packed::new(len);
        let mut expected = Vec::new();
        for (nr, places) in (1..).zip(cases) {
            let mut new = old.clone();
            places.iter().for_each(|&at| new[at] ^= 0x55);
            for run in runs(&old, &new).expect("little changes") {
                packed.push(nr, run.start, &new[run]);
            }
            expected.push((nr, new));
        }
        // Two blocks: the first is full.
        for at in (0..len).step_by(64) {
            packed.push(99, at, &[7; 64]);
        }
        let blocks = packed.into_blocks();
        assert!(blocks.len() > 1 && blocks.iter().all(|block| block.len() == len));
        let changes: Vec<_> = blocks.iter().flat_map(|block| unpack(block)).collect();
        for (nr, new) in expected {
            let mut found = old.clone();
            for (block, at, bytes) in changes.iter().map(|change| change.expect("inside")) {
                if block == nr {
                    found[at..at + bytes.len()].copy_from_slice(bytes);
                }
            }
            assert!(found == new, "{nr}");
        }
        let last = changes.iter().flatten().filter(|(block, ..)| *block == 99);
        assert_eq!(last.map(|(_, _, bytes)| bytes.len()).sum::<usize>(), len);
    }

    #[test]
    fn a_block_of_which_much_changes_is_logged_as_a_whole() {
        let (old, mut new) = ([0; 4096], [0; 4096]);
        new[..500].fill(1);
        assert_eq!(runs(&old, &new), Some(alloc::vec![0..500]));
        new[..510].fill(1);
        assert_eq!(runs(&old, &new), None);
    }

    #[test]
    fn a_change_that_leads_outside_is_none() {
        let change = |at: u16, len: u16| {
            let mut block = alloc::vec![0; 1024];
            block[..4].copy_from_slice(&5_u32.to_le_bytes());
            block[4..6].copy_from_slice(&at.to_le_bytes());
            block[6..8].copy_from_slice(&len.to_le_bytes());
            unpack(&block).map(|change| change.is_some()).collect::<Vec<_>>()
        };
        assert_eq!(change(0, 12), [true]);
        assert_eq!(change(1020, 4), [true]);
        assert_eq!(change(1021, 4), [false]);
        assert_eq!(change(0, 1017), [false]);
        assert_eq!(change(0, 0), [false]);
        assert_eq!(change(u16::MAX, u16::MAX), [false]);
    }
}
