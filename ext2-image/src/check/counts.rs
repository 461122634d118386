//! Pass 5: bitmaps and counts.

use core::mem::{offset_of, take};

use alloc::vec::Vec;

use super::Pass;
use super::finding::{Kind, Place};
use super::layout::{BITMAP_UNWRITTEN, TABLE_UNWRITTEN};
use super::run::{Run, Step, TYPE, USED};
use ext2_core::GroupNr;
use ext2_core::raw::{RawGroupDesc, RawSuperblock, SUPERBLOCK_OFFSET};
use zerocopy::IntoBytes;

/// How a bitmap on the device differs from what was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Difference {
    /// Used, and marked as free.
    marked_free: u64,
    /// Free, and marked as used.
    marked_used: u64,
    /// The bits past the last one are not all ones.
    padding: bool,
    /// Bits that are free in truth.
    free: u64,
}

/// Compares the `len` bits of `stored` with those that `truth` gives by 64, and what follows with ones; `stored` becomes what
/// it should be.
fn compare(stored: &mut [u8], len: u64, truth: impl Fn(u64) -> u64) -> Difference {
    let mut difference = Difference::default();
    for (index, bytes) in stored.chunks_mut(8).enumerate() {
        let first = index as u64 * 64;
        let mut word = [0xff; 8];
        word.get_mut(..bytes.len()).unwrap_or_default().copy_from_slice(bytes);
        let stored = u64::from_le_bytes(word);
        // The bits that stand for something.
        let valid = match len.saturating_sub(first) {
            64.. => u64::MAX,
            bits => (1 << bits) - 1,
        };
        let should = if valid == 0 { 0 } else { truth(first) & valid };
        difference.free += u64::from((!should & valid).count_ones());
        let word = should | !valid;
        if stored != word {
            difference.marked_free += u64::from((should & !stored).count_ones());
            difference.marked_used += u64::from((!should & stored & valid).count_ones());
            difference.padding |= stored | valid != u64::MAX;
            bytes.copy_from_slice(word.to_le_bytes().get(..bytes.len()).unwrap_or_default());
        }
    }
    difference
}

impl Run<'_> {
    /// Compares bitmaps and counts with what was found.
    pub(crate) fn check_counts(&mut self) -> Step {
        let mut bitmap = take(&mut self.s.block);
        let (mut free_blocks, mut free_inodes) = (0, 0);
        for group in 0..self.geo.groups {
            let Some(desc) = self.s.descs.get(group as usize).copied() else { break };
            let blocks = self.check_block_bitmap(group, &desc, &mut bitmap)?;
            let inodes = self.check_inode_bitmap(group, &desc, &mut bitmap)?;
            let first = u64::from(group) * u64::from(self.geo.inodes_per_group);
            let states = self.s.state.iter().skip(first as usize).take(self.geo.inodes_per_group as usize);
            let dirs = states.filter(|&&state| state & (USED | TYPE) == USED | 2).count() as u64;
            let counts = [
                (
                    Kind::GroupFreeBlocks,
                    desc.bg_free_blocks_count.get(),
                    blocks,
                    offset_of!(RawGroupDesc, bg_free_blocks_count),
                ),
                (
                    Kind::GroupFreeInodes,
                    desc.bg_free_inodes_count.get(),
                    inodes,
                    offset_of!(RawGroupDesc, bg_free_inodes_count),
                ),
                (
                    Kind::GroupDirectories,
                    desc.bg_used_dirs_count.get(),
                    dirs,
                    offset_of!(RawGroupDesc, bg_used_dirs_count),
                ),
            ];
            for (kind, found, expected, field) in counts {
                // The fields have 16 bits, and a group of 64 KiB blocks has more blocks than that.
                let expected = expected & 0xffff;
                let numbers = (Some(found.into()), Some(expected));
                if u64::from(found) != expected
                    && self.report(Place::Group(group), kind, numbers.0, numbers.1)?
                {
                    self.change_descriptor(group, |desc| {
                        if let Some(count) = desc.as_mut_bytes().get_mut(field..field + 2) {
                            // OK to cast: 16 bits were kept.
                            count.copy_from_slice(&(expected as u16).to_le_bytes());
                        }
                    })?;
                }
            }
            free_blocks += blocks;
            free_inodes += inodes;
            self.tick(Pass::Counts, u64::from(group) + 1, self.geo.groups.into());
        }
        self.s.block = bitmap;
        let counts = [
            (
                Kind::FreeBlocks,
                self.raw.s_free_blocks_count,
                free_blocks,
                offset_of!(RawSuperblock, s_free_blocks_count),
            ),
            (
                Kind::FreeInodes,
                self.raw.s_free_inodes_count,
                free_inodes,
                offset_of!(RawSuperblock, s_free_inodes_count),
            ),
        ];
        for (kind, found, expected, field) in counts {
            let numbers = (Some(found.get().into()), Some(expected));
            if u64::from(found.get()) != expected
                && self.report(Place::Superblock, kind, numbers.0, numbers.1)?
            {
                // OK to cast: there are fewer than 2^32 blocks and inodes.
                self.dev.write_u32(SUPERBLOCK_OFFSET + field as u64, expected as u32)?;
            }
        }
        Ok(())
    }

    fn check_block_bitmap(&mut self, group: u32, desc: &RawGroupDesc, bitmap: &mut Vec<u8>) -> Step<u64> {
        self.read_block(desc.bg_block_bitmap.get(), bitmap)?;
        if self.written(group).0 & BITMAP_UNWRITTEN != 0 {
            self.unwritten(group, bitmap);
        }
        let start = u64::from(self.geo.group_start(GroupNr::new(group)));
        let len = self.geo.group_len(GroupNr::new(group)).into();
        let found = &self.s.found;
        let difference = compare(bitmap, len, |bit| found.word(start + bit));
        let kinds = [Kind::BlocksMarkedFree, Kind::BlocksMarkedUsed, Kind::BlockBitmapPadding];
        if self.report_difference(group, &difference, kinds, desc.bg_block_bitmap.get(), bitmap)? {
            self.note_written(group, BITMAP_UNWRITTEN)?;
        }
        Ok(difference.free)
    }

    /// What the block bitmap of a group is that was never written: its metadata are in use.
    fn unwritten(&self, group: u32, bitmap: &mut [u8]) {
        let (nr, metadata) = (GroupNr::new(group), &self.s.metadata);
        let (start, len) = (u64::from(self.geo.group_start(nr)), u64::from(self.geo.group_len(nr)));
        compare(bitmap, len, |bit| metadata.word(start + bit));
    }

    fn check_inode_bitmap(&mut self, group: u32, desc: &RawGroupDesc, bitmap: &mut Vec<u8>) -> Step<u64> {
        self.read_block(desc.bg_inode_bitmap.get(), bitmap)?;
        if self.written(group).0 & TABLE_UNWRITTEN != 0 {
            let used = (self.geo.inodes_per_group / 8) as usize;
            bitmap.fill(0xff);
            bitmap.get_mut(..used).unwrap_or_default().fill(0);
        }
        let len = u64::from(self.geo.inodes_per_group);
        let start = u64::from(group) * len;
        let reserved = u64::from(self.geo.first_ino) - 1;
        let state = &self.s.state;
        let difference =
            compare(bitmap, len, |bit| {
                let first = start + bit;
                let states = state.get(first as usize..).unwrap_or_default();
                if first >= reserved && states.get(..64).is_some_and(crate::zeros::is_zero) {
                    return 0;
                }
                let used =
                    states.iter().take(64).zip(first..).enumerate().map(|(shift, (state, index))| {
                        u64::from(state & USED != 0 || index < reserved) << shift
                    });
                used.fold(0, |all, bit| all | bit)
            });
        let kinds = [Kind::InodesMarkedFree, Kind::InodesMarkedUsed, Kind::InodeBitmapPadding];
        if self.report_difference(group, &difference, kinds, desc.bg_inode_bitmap.get(), bitmap)? {
            self.note_written(group, TABLE_UNWRITTEN)?;
        }
        Ok(difference.free)
    }

    /// Takes a flag from a group whose bitmap was stored.
    fn note_written(&mut self, group: u32, flag: u16) -> Step {
        if self.written(group).0 & flag == 0 {
            return Ok(());
        }
        self.change_descriptor(group, |desc| desc.bg_flags.set(desc.bg_flags.get() & !flag))
    }

    /// Reports how a bitmap differs, and stores what it should be; whether it was stored.
    fn report_difference(
        &mut self,
        group: u32,
        difference: &Difference,
        [free, used, padding]: [Kind; 3],
        block: u32,
        should: &[u8],
    ) -> Step<bool> {
        let place = Place::Group(group);
        let mut mend = false;
        if difference.marked_free != 0 {
            mend |= self.report(place, free, Some(difference.marked_free), Some(0))?;
        }
        if difference.marked_used != 0 {
            mend |= self.report(place, used, Some(difference.marked_used), Some(0))?;
        }
        if difference.padding {
            mend |= self.fault(place, padding)?;
        }
        if mend {
            self.dev.write_at(u64::from(block) << self.geo.block_size.log2(), should)?;
        }
        Ok(mend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_is_compared_up_to_its_length_and_its_rest_with_ones() {
        let truth = 0b0000_0001_0000_1111;
        let mut stored = [0b0001_1101, 0b1111_1101, 0xff];
        let difference = compare(&mut stored, 10, |_| truth);
        assert_eq!(difference, Difference { marked_free: 1, marked_used: 1, padding: false, free: 5 });
        assert_eq!(stored, [0b0000_1111, 0b1111_1101, 0xff]);
        let mut stored = [0b0000_1111, 0b0000_0001, 0];
        let difference = compare(&mut stored, 10, |_| truth);
        assert_eq!(difference, Difference { marked_free: 0, marked_used: 0, padding: true, free: 5 });
    }
}
