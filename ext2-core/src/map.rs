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
mod runs;

pub(crate) use around::lookup_one;
pub(crate) use lookup::{Pointers, Tree, lookup};
pub use path::{DIRECT, Path, SLOTS, Shape};
pub(crate) use runs::{KnownRun, Runs};

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
