//! Where everything lies: groups, copies of the superblock, descriptors. Computed once, never changes.

use crate::error::{Corrupt, Object, Result};
use crate::features::{CompatFeatures, IncompatFeatures, RoCompatFeatures};
use crate::map::{DIRECT, Shape};
use crate::raw::RawGroupDesc;
use crate::{BlockSize, DeviceBlock, GroupNr, InodeNr, Superblock};
use alloc::format;

/// The layout of an image. Block numbers are of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a block.
    pub block_size: BlockSize,
    /// Blocks of the file system.
    pub blocks_count: u32,
    /// The first block of group 0.
    pub first_data_block: u32,
    /// Blocks of every group but perhaps the last.
    pub blocks_per_group: u32,
    /// Inodes of every group.
    pub inodes_per_group: u32,
    /// Inodes in all.
    pub inodes_count: u32,
    /// Bytes of an inode.
    pub inode_size: u16,
    /// The number of groups.
    pub groups: u32,
    /// The first inode that is not reserved.
    pub first_ino: u32,
    /// Spare descriptor blocks after the descriptors, in groups that have a backup.
    pub reserved_gdt_blocks: u16,
    first_meta_bg: Option<u32>,
    backups: Backups,
    max_file_size: u64,
}

/// Which groups have a copy of the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backups {
    All,
    Sparse,
    Sparse2([u32; 2]),
}

/// Bytes of a group descriptor.
const DESC_SIZE: u64 = size_of::<RawGroupDesc>() as u64;

impl Geometry {
    /// The layout that a superblock describes.
    #[must_use]
    pub fn new(sb: &Superblock) -> Self {
        let features = sb.features;
        Self {
            block_size: sb.block_size,
            blocks_count: sb.blocks_count,
            first_data_block: sb.first_data_block,
            blocks_per_group: sb.blocks_per_group,
            inodes_per_group: sb.inodes_per_group,
            inodes_count: sb.inodes_count,
            inode_size: sb.inode_size,
            groups: (sb.blocks_count - sb.first_data_block).div_ceil(sb.blocks_per_group),
            first_ino: sb.first_ino,
            reserved_gdt_blocks: sb.reserved_gdt_blocks,
            first_meta_bg: features.incompat.contains(IncompatFeatures::META_BG).then_some(sb.first_meta_bg),
            max_file_size: max_file_size(sb.block_size),
            backups: if features.compat.contains(CompatFeatures::SPARSE_SUPER2) {
                Backups::Sparse2(sb.backup_groups)
            } else if features.ro_compat.contains(RoCompatFeatures::SPARSE_SUPER) {
                Backups::Sparse
            } else {
                Backups::All
            },
        }
    }

    /// The largest size of a file in bytes. Linux: `ext2_max_size`.
    #[must_use]
    pub fn max_file_size(&self) -> u64 {
        self.max_file_size
    }

    /// All groups.
    pub fn group_numbers(&self) -> impl ExactSizeIterator<Item = GroupNr> + DoubleEndedIterator + use<> {
        (0..self.groups).map(GroupNr::new)
    }

    /// The first block of a group. For groups past the last one the number means nothing.
    #[must_use]
    pub fn group_start(&self, group: GroupNr) -> u32 {
        self.first_data_block.saturating_add(group.get().saturating_mul(self.blocks_per_group))
    }

    /// Blocks of a group: fewer in the last one.
    #[must_use]
    pub fn group_len(&self, group: GroupNr) -> u32 {
        self.blocks_count.saturating_sub(self.group_start(group)).min(self.blocks_per_group)
    }

    /// The group of a block and the block's bit in the group's bitmap, if the block is in a group.
    #[must_use]
    pub fn group_of_block(&self, block: u32) -> Option<(GroupNr, u32)> {
        if block >= self.blocks_count {
            return None;
        }
        let from_first = block.checked_sub(self.first_data_block)?;
        Some((GroupNr::new(from_first / self.blocks_per_group), from_first % self.blocks_per_group))
    }

    /// The group of an inode and the inode's bit in the group's bitmap.
    #[must_use]
    pub fn group_of_inode(&self, nr: InodeNr) -> Option<(GroupNr, u32)> {
        let index = nr.get() - 1;
        (nr.get() <= self.inodes_count)
            .then(|| (GroupNr::new(index / self.inodes_per_group), index % self.inodes_per_group))
    }

    /// How many inodes of a group, from its first one on, are reserved. All reserved ones lie in group 0 but where a group
    /// has fewer inodes than there are of them.
    #[must_use]
    pub fn reserved_inodes(&self, group: GroupNr) -> u32 {
        let before = u64::from(group.get()) * u64::from(self.inodes_per_group);
        let rest = u64::from(self.first_ino.saturating_sub(1)).saturating_sub(before);
        // OK to cast: no more than there are inodes in a group.
        rest.min(self.inodes_per_group.into()) as u32
    }

    /// The inode of a bit in a group's bitmap.
    #[must_use]
    pub fn inode_at(&self, group: GroupNr, bit: u32) -> Option<InodeNr> {
        let nr = group.get().checked_mul(self.inodes_per_group)?.checked_add(bit)?.checked_add(1)?;
        InodeNr::new(nr).filter(|nr| nr.get() <= self.inodes_count)
    }

    /// Blocks of a group's inode table.
    #[must_use]
    pub fn inode_table_blocks(&self) -> u32 {
        let per_block = self.block_size.bytes() / u64::from(self.inode_size);
        // At most 8 * 65536 inodes a group: fits.
        u64::from(self.inodes_per_group).div_ceil(per_block) as u32
    }

    /// Descriptors in a block.
    #[must_use]
    pub fn descriptors_per_block(&self) -> u32 {
        (self.block_size.bytes() / DESC_SIZE) as u32
    }

    /// Blocks that all descriptors fill.
    #[must_use]
    pub fn descriptor_blocks(&self) -> u32 {
        self.groups.div_ceil(self.descriptors_per_block())
    }

    /// Whether a group begins with a copy of the superblock (Linux: `ext2_bg_has_super`).
    #[must_use]
    pub fn has_super(&self, group: GroupNr) -> bool {
        let nr = group.get();
        if nr == 0 {
            return true;
        }
        match self.backups {
            Backups::All => true,
            Backups::Sparse2(groups) => groups.contains(&nr),
            Backups::Sparse => nr == 1 || [3, 5, 7].into_iter().any(|base| is_power(nr, base)),
        }
    }

    /// Whether the `nr`-th block of descriptors lies in its meta group, and not behind the superblock.
    #[must_use]
    pub fn is_meta_descriptor(&self, nr: u32) -> bool {
        self.is_meta(nr)
    }

    /// Whether a group has the blocks of descriptors that lie behind a superblock: it has a copy of that, and lies before
    /// the first meta group. Linux: `ext4_num_base_meta_blocks`.
    #[must_use]
    pub fn has_old_descriptors(&self, group: GroupNr) -> bool {
        self.has_super(group) && !self.is_meta(group.get() / self.descriptors_per_block())
    }

    /// Whether a descriptor block lies in its meta group, and not behind the superblock.
    fn is_meta(&self, descriptor_block: u32) -> bool {
        self.first_meta_bg.is_some_and(|first| descriptor_block >= first)
    }

    /// The place of the `nr`-th block of descriptors that is in use (Linux: `descriptor_loc`), seen
    /// from the superblock in block `super_block`, that of group `super_group`.
    #[must_use]
    pub fn descriptor_block(&self, nr: u32, super_group: GroupNr) -> u32 {
        if self.is_meta(nr) {
            let group = GroupNr::new(nr.saturating_mul(self.descriptors_per_block()));
            self.group_start(group).saturating_add(u32::from(self.has_super(group)))
        } else {
            self.group_start(super_group).saturating_add(1).saturating_add(nr)
        }
    }

    /// Where the primary descriptor of a group lies, in bytes from the device's start.
    #[must_use]
    pub fn descriptor_offset(&self, group: GroupNr, super_group: GroupNr) -> u64 {
        let per_block = self.descriptors_per_block();
        let block = self.descriptor_block(group.get() / per_block, super_group);
        u64::from(block) * self.block_size.bytes() + u64::from(group.get() % per_block) * DESC_SIZE
    }

    /// Blocks at a group's start that hold a superblock, descriptors and spare descriptors (Linux:
    /// `ext2_bg_num_gdb` and one for the superblock).
    #[must_use]
    pub fn group_overhead(&self, group: GroupNr) -> u32 {
        let meta_from = self.first_meta_bg.unwrap_or(u32::MAX);
        let per_block = self.descriptors_per_block();
        let (meta, place) = (group.get() / per_block, group.get() % per_block);
        let is_meta = self.is_meta(meta);
        let behind_super = match self.has_super(group) {
            false => 0,
            true if is_meta => 1,
            true => 1 + self.descriptor_blocks().min(meta_from) + u32::from(self.reserved_gdt_blocks),
        };
        let own = is_meta && (place < 2 || place == per_block - 1);
        behind_super + u32::from(own)
    }

    /// Byte offset of a block on the device.
    #[must_use]
    pub fn byte_of(&self, block: DeviceBlock) -> u64 {
        u64::from(block.get()) << self.block_size.log2()
    }

    /// The block, if file data or metadata may lie in it: inside the file system and past its first block.
    #[must_use]
    pub fn data_block(&self, block: u32) -> Option<DeviceBlock> {
        DeviceBlock::new(block).filter(|_| block > self.first_data_block && block < self.blocks_count)
    }

    /// Checks that a descriptor's bitmaps and table lie inside the file system (Linux requires their own
    /// group; `flex_bg`-like placements by other tools are read all the same).
    ///
    /// # Errors
    /// `Corrupt`, naming the group.
    pub fn check_descriptor(&self, group: GroupNr, desc: &RawGroupDesc) -> Result<()> {
        let table = desc.bg_inode_table.get();
        let places = [
            ("block bitmap", desc.bg_block_bitmap.get(), 1),
            ("inode bitmap", desc.bg_inode_bitmap.get(), 1),
            ("inode table", table, self.inode_table_blocks()),
        ];
        for (what, block, len) in places {
            let end = u64::from(block) + u64::from(len);
            if self.data_block(block).is_none() || end > u64::from(self.blocks_count) {
                let what = format!("{what} at block {block} lies outside the file system");
                return Err(Corrupt::new(Object::Group(group), what).into());
            }
        }
        Ok(())
    }
}

impl Geometry {
    /// Checks more of a descriptor, before anything is written by it: what it names lies in its own group, and apart from
    /// each other and from the copies of superblock and descriptors. Linux: `ext2_check_descriptors`, which asks for the
    /// group alone.
    ///
    /// # Errors
    /// `Corrupt`, naming the group.
    pub fn check_places(&self, group: GroupNr, desc: &RawGroupDesc) -> Result<()> {
        let (start, end) = (u64::from(self.group_start(group)), u64::from(self.group_len(group)));
        let end = start + end;
        let place = |what, block: u32, len: u32| (what, u64::from(block), u64::from(block) + u64::from(len));
        let places = [
            ("superblock and descriptors", start, start + u64::from(self.group_overhead(group))),
            place("block bitmap", desc.bg_block_bitmap.get(), 1),
            place("inode bitmap", desc.bg_inode_bitmap.get(), 1),
            place("inode table", desc.bg_inode_table.get(), self.inode_table_blocks()),
        ];
        let broken = |what| Err(Corrupt::new(Object::Group(group), what).into());
        for (nr, (what, from, past)) in places.iter().enumerate() {
            if *from < start || *past > end {
                return broken(format!(
                    "{what} at block {from} lies outside the group, blocks {start} to {}",
                    end - 1
                ));
            }
            for (other, other_from, other_past) in places.iter().take(nr) {
                if from < other_past && other_from < past {
                    return broken(format!("{what} at block {from} lies on the group's {other}"));
                }
            }
        }
        Ok(())
    }
}

/// What the pointers reach, or what 2^32 - 1 units of 512 bytes hold, as far as the indirect blocks for that much leave
/// room.
pub fn max_file_size(size: BlockSize) -> u64 {
    let shape = Shape::new(size.pointers());
    let (reach, units) = (shape.max_blocks(), u64::from(u32::MAX) >> (size.log2() - 9));
    let indirect = |data: u64| {
        let (mut blocks, mut rest) = (0, data.saturating_sub(DIRECT));
        for depth in 1..=3 {
            let here = rest.min(shape.span(depth));
            blocks += (1..=depth).map(|level| here.div_ceil(shape.span(level))).sum::<u64>();
            rest -= here;
        }
        blocks
    };
    let blocks = if reach + indirect(reach) <= units { reach } else { units - indirect(units) };
    blocks << size.log2()
}

/// Whether `nr` is a power of `base` with an exponent of at least 1.
fn is_power(nr: u32, base: u32) -> bool {
    let mut power = base;
    while power < nr {
        match power.checked_mul(base) {
            Some(next) => power = next,
            None => return false,
        }
    }
    power == nr
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_file_is_that_of_linux() {
        let sizes = [(1024, 17_247_252_480), (2048, 275_415_851_008), (4096, 2_196_873_666_560)];
        for (block, largest) in sizes {
            assert_eq!(BlockSize::new(block).map(max_file_size), Some(largest));
        }
    }

    #[test]
    fn inodes_and_descriptors_are_where_the_format_has_them() {
        let mut geo = Geometry {
            block_size: BlockSize::from_s_log_block_size(0).unwrap(),
            blocks_count: 1 << 16,
            first_data_block: 1,
            blocks_per_group: 8192,
            inodes_per_group: 8,
            inodes_count: 64,
            inode_size: 128,
            groups: 8,
            first_ino: 11,
            reserved_gdt_blocks: 0,
            first_meta_bg: None,
            backups: Backups::All,
            max_file_size: 0,
        };
        let reserved = |geo: &Geometry| [0, 1, 2, 7].map(|group| geo.reserved_inodes(GroupNr::new(group)));
        assert_eq!(reserved(&geo), [8, 2, 0, 0]);
        geo.inodes_per_group = 4;
        assert_eq!(reserved(&geo), [4, 4, 2, 0]);
        // Behind the first meta group a copy of the superblock has no descriptors but those of its own meta group.
        (geo.groups, geo.first_meta_bg) = (100, Some(2));
        let overhead = [0, 1, 32, 63, 64, 65, 66, 95].map(|group| geo.group_overhead(GroupNr::new(group)));
        assert_eq!(overhead, [3, 3, 3, 3, 2, 2, 1, 2]);
        geo.inodes_per_group = 512;
        assert_eq!(reserved(&geo), [10, 0, 0, 0]);
    }

    #[test]
    fn backups_are_in_groups_0_1_and_powers_of_3_5_and_7() {
        let sparse: alloc::vec::Vec<u32> =
            (0..200).filter(|&nr| nr < 2 || [3, 5, 7].iter().any(|&base| is_power(nr, base))).collect();
        assert_eq!(sparse, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
        assert!(!is_power(u32::MAX, 3));
    }
}
