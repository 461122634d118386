//! Which 2 MiB of a file whose driver can map with one page: ours, Linux's ext4 driver on an ext2 image, and one that
//! asks for no more than that the blocks lie right (as XFS maps).
//!
//! A driver that answers a mapping up to the end of an array of pointers, as Linux's do for a block map, never tells a
//! fault of a run of 2 MiB where an array ends inside the unit: with blocks of 4 KiB arrays end before block 12 and
//! every 1024 blocks from there, so in every second unit. Holes it tells of no further than to the end of a subtree.

use core::ops::AddAssign;

use crate::units::{UNIT, UnitCounts, UnitState, Units};
use ext2_core::Result;
use ext2_core::rules::{DIRECT, Shape};
use ext2_core::{BlockSize, Inode};

/// Whole units of one or more files, and who can map them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Coverage {
    /// By the state of their blocks: what our layer maps, and why not the rest.
    pub units: UnitCounts,
    /// Of the units with data, those that Linux's ext4 driver maps on a fresh mount of the image.
    pub ext4_driver: u64,
    /// Of the units that are all data, those in which no array of pointers ends: the most that any layout lets that
    /// driver map.
    pub ext4_ceiling: u64,
}

impl Coverage {
    /// Who can map the whole units of `inode`. `bias` as for [`Units::of`].
    ///
    /// # Errors
    /// `Corrupt`, the device's errors.
    pub fn of(inode: &Inode, bias: u64) -> Result<Self> {
        let block_size = inode.fs().geometry().block_size;
        let mut coverage = Self::default();
        for run in Units::of(inode, bias) {
            let run = run?;
            coverage.units += run;
            if matches!(run.state, UnitState::HugeZero | UnitState::Hole | UnitState::PastEof) {
                continue;
            }
            // DAX takes blocks of a page only.
            let dax = block_size.bytes() == 4096;
            let one_array = (run.first..run.first + run.count)
                .filter(|&unit| dax && !array_ends_in_unit(block_size, unit))
                .count() as u64;
            coverage.ext4_ceiling += one_array;
            if run.state == UnitState::Mappable {
                coverage.ext4_driver += one_array;
            }
        }
        Ok(coverage)
    }

    /// Units with data that are mapped by whoever maps every run that lies right: our layer, and XFS's way.
    #[must_use]
    pub fn full(&self) -> u64 {
        self.units.mappable
    }
}

impl AddAssign for Coverage {
    fn add_assign(&mut self, other: Self) {
        self.units += other.units;
        self.ext4_driver += other.ext4_driver;
        self.ext4_ceiling += other.ext4_ceiling;
    }
}

/// Whether an array of pointers ends inside unit `unit`: a run of blocks through the end is told in two pieces.
#[must_use]
pub fn array_ends_in_unit(block_size: BlockSize, unit: u64) -> bool {
    let shape = Shape::new(block_size.pointers());
    let blocks = UNIT / block_size.bytes();
    let (first, last) = (unit * blocks, (unit + 1) * blocks - 1);
    // The array of a block: the direct pointers are one, then every `pointers` blocks.
    let array = |block: u64| match block.checked_sub(DIRECT) {
        None => 0,
        Some(behind) => 1 + behind / shape.pointers(),
    };
    array(first) != array(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_blocks_of_4_kib_an_array_ends_in_every_second_unit() {
        let size = BlockSize::new(4096).unwrap();
        for unit in 0..3000 {
            assert_eq!(array_ends_in_unit(size, unit), unit % 2 == 0, "{unit}");
        }
    }

    #[test]
    fn with_blocks_of_1_kib_arrays_end_in_every_unit() {
        let size = BlockSize::new(1024).unwrap();
        assert!((0..100).all(|unit| array_ends_in_unit(size, unit)));
    }
}
