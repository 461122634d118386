//! The block map: from blocks of a file to blocks of the device, through direct, indirect, double and
//! triple indirect pointers.
//!
//! # Invariants
//! 1. An answer is never empty and never past the request.
//! 2. An answer is **full**: a hole or a contiguous run goes on over siblings, leaf arrays and levels
//!    until it ends or the request does. Where Linux's ext2 ends a run at each leaf array and every hole
//!    after one block, a page of 2 MiB can never be mapped.
//! 3. All arithmetic is 64-bit; no count can wrap to 0.
//! 4. A tree that names itself ends in [`Corrupt`](crate::Error::Corrupt), not in a loop: no answer reads
//!    more indirect blocks than the image has blocks.

mod around;
mod lookup;
mod path;

pub use around::lookup_one;
pub use lookup::{Pointers, Tree, lookup};
pub use path::{DIRECT, Path, SLOTS, Shape};

use crate::{DeviceBlock, FileBlock};

/// What a range of a file's blocks is: a hole, or a contiguous run on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The first block of the file that this speaks of.
    pub start: FileBlock,
    /// Blocks, at least 1.
    pub count: u64,
    /// Where the run begins on the device; `None` for a hole.
    pub target: Option<DeviceBlock>,
}

impl Mapping {
    /// Whether nothing is stored for the range.
    #[must_use]
    pub fn is_hole(&self) -> bool {
        self.target.is_none()
    }

    /// The first block of the file past this mapping.
    #[must_use]
    pub fn end(&self) -> FileBlock {
        FileBlock::new(self.start.get().saturating_add(self.count))
    }
}

/// A run of blocks that lie in a row in the file and on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownRun {
    /// Its first block in the file.
    pub start: u64,
    /// Blocks, at least 1.
    pub count: u32,
    /// Its first block on the device.
    pub target: u32,
}

impl KnownRun {
    /// The run of `count` blocks from block `start` of the file, which begins on the device with `target`; `None` for one that
    /// is empty or longer than a run can be.
    #[must_use]
    pub fn new(start: u64, count: u64, target: DeviceBlock) -> Option<Self> {
        let count = u32::try_from(count).ok().filter(|&count| count > 0)?;
        Some(Self { start, count, target: target.get() })
    }

    /// The two as one, if they touch or overlap and agree.
    #[must_use]
    pub fn joined(self, other: Self) -> Option<Self> {
        let (first, second) = if self.start <= other.start { (self, other) } else { (other, self) };
        let apart = second.start - first.start;
        if apart > u64::from(first.count) || u64::from(second.target) != u64::from(first.target) + apart {
            return None;
        }
        let count = u64::from(first.count).max(apart + u64::from(second.count));
        Some(Self { count: u32::try_from(count).ok()?, ..first })
    }
}

#[cfg(test)]
mod tests {
    use super::{DeviceBlock, KnownRun};

    #[test]
    fn a_run_is_known_unless_it_is_empty_or_too_long() {
        let target = DeviceBlock::new(7).expect("a block");
        let known = |count| KnownRun::new(3, count, target);
        assert_eq!(known(1), Some(KnownRun { start: 3, count: 1, target: 7 }));
        assert!(known(u32::MAX.into()).is_some() && known(0).is_none() && known(1 << 32).is_none());
    }
}
