//! What one round of a repair read, kept for the next, which reads again only what was changed since.
//!
//! # Invariants
//! 1. What is kept of a block or a directory is what its bytes say. It is used as long as no change lies above them, and the
//!    file system has the layout and the features that it had.
//! 2. Of a directory about which something was reported nothing is kept, nor where names were passed over because the inodes
//!    that they name had not been read.
//! 3. There is a [`LIMIT`] to it; what comes after that is read again.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

use super::layout::pointer;
use super::run::{DirBlock, Run, Step};
use crate::zeros::is_zero;
use ext2_core::{Features, Geometry};

/// Most runs of blocks, and most entries of directories, that are kept. Together with where they are found it is 25 MiB.
const LIMIT: usize = 1 << 18;

/// Pointers of an indirect block to blocks that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapped {
    /// Which pointer is the first.
    pub(crate) index: u32,
    /// The first block.
    pub(crate) block: u32,
    /// How many there are.
    pub(crate) len: u32,
}

/// Where what an indirect block says is kept, at least as long as it is walked.
#[derive(Clone, Debug)]
pub(crate) struct Pointers {
    range: Range<usize>,
    is_kept: bool,
}

/// An entry of a directory that names a file.
#[derive(Clone, Copy, Debug)]
struct Named {
    /// Where it lies, in bytes of the device.
    at: u64,
    inode: u32,
    /// What the inode was.
    state: u8,
    /// As in an entry: 0, 1, and 2 for all others.
    ordinal: u8,
}

/// A directory: its entries, its blocks, and whether it has a hash tree.
#[derive(Clone, Debug)]
struct Known {
    names: Range<usize>,
    blocks: Range<usize>,
    indexed: bool,
}

/// What is kept.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    of: Option<(Geometry, Features)>,
    runs: Vec<Mapped>,
    indirect: BTreeMap<u32, Range<usize>>,
    names: Vec<Named>,
    blocks: Vec<(u32, u32)>,
    dirs: BTreeMap<u32, Known>,
}

/// Where the notes about a directory begin, and how much had been reported by then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    names: usize,
    reports: u64,
}

impl Run<'_> {
    /// Forgets what is not of this file system as it is.
    pub(crate) fn begin_memo(&mut self) {
        let of = Some((self.geo.clone(), self.sb.features));
        if self.changed.is_none() || self.s.memo.of != of {
            self.s.memo = Memo { of, ..Memo::default() };
        }
    }

    /// Whether blocks are as they were when something was kept of them, whenever that was.
    fn is_unchanged(&self, block: u32) -> bool {
        self.changed.is_some_and(|changed| !changed(self.byte_of(block), self.geo.block_size.bytes()))
    }

    /// What an indirect block points to.
    pub(crate) fn pointers_in(&mut self, block: u32) -> Step<Pointers> {
        if let Some(range) = self.s.memo.indirect.get(&block).cloned()
            && self.is_unchanged(block)
        {
            return Ok(Pointers { range, is_kept: true });
        }
        let mut buffer = core::mem::take(&mut self.s.block);
        self.read_block(block, &mut buffer)?;
        let start = self.s.memo.runs.len();
        self.s.memo.runs.extend(runs(&buffer));
        self.s.block = buffer;
        let range = start..self.s.memo.runs.len();
        let is_kept = self.changed.is_some() && range.end <= LIMIT;
        if is_kept {
            self.s.memo.indirect.insert(block, range.clone());
        }
        Ok(Pointers { range, is_kept })
    }

    /// One of the runs of an indirect block.
    pub(crate) fn run_of(&self, pointers: &Pointers, nr: usize) -> Option<Mapped> {
        self.s.memo.runs.get(pointers.range.clone())?.get(nr).copied()
    }

    /// Says that an indirect block is done with, after all that were looked at since.
    pub(crate) fn done_with(&mut self, pointers: &Pointers) {
        if !pointers.is_kept {
            self.s.memo.runs.truncate(pointers.range.start);
        }
    }

    /// Whether an indirect block was overwritten by something else: it has as many numbers that no block has
    /// as make e2fsck delete the file.
    pub(crate) fn is_garbage(&self, pointers: &Pointers) -> bool {
        let runs = self.s.memo.runs.get(pointers.range.clone()).unwrap_or_default();
        let mut wrong = 0;
        for run in runs {
            let last = run.block + (run.len - 1);
            if !self.is_block(run.block) || !self.is_block(last) {
                wrong += (run.block..=last).filter(|&block| !self.is_block(block)).count();
            }
        }
        wrong >= 12
    }

    /// Begins to note what a directory names.
    pub(crate) fn begin_names(&self) -> Begun {
        Begun { names: self.s.memo.names.len(), reports: self.reports }
    }

    /// Notes an entry that counts, where it is worth it.
    pub(crate) fn note_name(&mut self, inode: u32, at: u64, ordinal: u8) {
        if self.changed.is_some() && self.s.memo.names.len() < LIMIT {
            let state = self.state(inode);
            self.s.memo.names.push(Named { at, inode, state, ordinal });
        }
    }

    /// Keeps what was noted of a directory, if there was nothing to be said about it.
    pub(crate) fn end_names(&mut self, dir: &[DirBlock], indexed: bool, begun: Begun) {
        let Begun { names, reports } = begun;
        let memo = &mut self.s.memo;
        let is_kept = self.changed.is_some()
            && self.reports == reports
            && !self.later.unread
            && memo.names.len() < LIMIT
            && memo.blocks.len() + dir.len() <= LIMIT;
        let Some(first) = dir.first().filter(|_| is_kept) else {
            memo.names.truncate(names);
            return;
        };
        let start = memo.blocks.len();
        memo.blocks.extend(dir.iter().map(|block| (block.nr, block.block)));
        let known = Known { names: names..memo.names.len(), blocks: start..memo.blocks.len(), indexed };
        memo.dirs.insert(first.inode, known);
    }

    /// Counts the names of a directory as they were the last time, if its blocks and all that it names are what they were. All
    /// that would be found is what was found then: nothing.
    pub(crate) fn recall_names(&mut self, dir: &[DirBlock], indexed: bool) -> bool {
        let Some(inode) = dir.first().map(|block| block.inode) else { return false };
        let Some(known) = self.s.memo.dirs.get(&inode).cloned() else { return false };
        let memo = &self.s.memo;
        let blocks = memo.blocks.get(known.blocks).unwrap_or_default();
        let names = memo.names.get(known.names.clone()).unwrap_or_default();
        let same = known.indexed == indexed
            && blocks.len() == dir.len()
            && blocks.iter().zip(dir).all(|(known, block)| *known == (block.nr, block.block))
            && dir.iter().all(|block| self.is_unchanged(block.block))
            && names.iter().all(|name| self.state(name.inode) == name.state && self.has_no_parent(name));
        if !same {
            return false;
        }
        for nr in known.names {
            let Some(&Named { at, inode: named, ordinal, .. }) = self.s.memo.names.get(nr) else { continue };
            match ordinal {
                0 => {}
                1 => {
                    if let Some(dir) = self.dir_mut(inode) {
                        (dir.dotdot, dir.dotdot_at) = (named, at);
                    }
                }
                _ => {
                    if self.is_directory(named)
                        && let Some(child) = self.dir_mut(named)
                    {
                        (child.parent, child.entry_at) = (inode, at);
                    }
                }
            }
            if let Some(count) = self.s.counted.get_mut(named as usize - 1) {
                *count = count.saturating_add(1);
            }
        }
        true
    }

    /// Whether an entry is no second name of a directory.
    fn has_no_parent(&self, name: &Named) -> bool {
        if name.ordinal < 2 || !self.is_directory(name.inode) {
            return true;
        }
        let at = self.s.dirs.binary_search_by_key(&name.inode, |dir| dir.inode);
        at.ok().and_then(|at| self.s.dirs.get(at)).is_none_or(|dir| dir.parent == 0)
    }
}

/// The pointers of an indirect block that are not 0.
pub(crate) fn runs(block: &[u8]) -> impl Iterator<Item = Mapped> {
    /// Bytes that are passed at once where they are zeros.
    const PIECE: usize = 64;
    let mut at = 0;
    core::iter::from_fn(move || {
        loop {
            while at % (PIECE / 4) == 0 && block.get(at * 4..at * 4 + PIECE).is_some_and(is_zero) {
                at += PIECE / 4;
            }
            if at >= block.len() / 4 {
                return None;
            }
            let (start, first) = (at, pointer(block, at));
            at += 1;
            if first == 0 {
                continue;
            }
            let mut last = first;
            while let Some(next) = last.checked_add(1).filter(|&next| pointer(block, at) == next) {
                (last, at) = (next, at + 1);
            }
            // OK to cast: a block has at most 2^14 pointers.
            return Some(Mapped { index: start as u32, block: first, len: last - first + 1 });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_come_in_runs_and_those_that_are_0_not_at_all() {
        let mut block = alloc::vec![0; 4096];
        let set = [(0, 7), (1, 8), (2, 10), (17, u32::MAX - 1), (18, u32::MAX), (19, 1), (20, 2), (1023, 5)];
        for (index, number) in set {
            let number: u32 = number;
            block[index * 4..index * 4 + 4].copy_from_slice(&number.to_le_bytes());
        }
        let of = |block: &[u8]| runs(block).map(|run| (run.index, run.block, run.len)).collect::<Vec<_>>();
        assert_eq!(of(&block), [(0, 7, 2), (2, 10, 1), (17, u32::MAX - 1, 2), (19, 1, 2), (1023, 5, 1)]);
        assert_eq!(of(&[0; 1024]), []);
        // A block of numbers that all follow each other is one run, to its end.
        let all: Vec<u8> = (100..356_u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!(of(&all), [(0, 100, 256)]);
    }
}
