//! What every group has of its own: bitmaps, descriptors, and copies of the superblock in some.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::{FromZeros, IntoBytes};

use super::Result;
use super::job::Window;
use super::space::Run;
use super::writer::Writer;
use ext2_core::Barrier;
use ext2_core::GroupNr;
use ext2_core::IncompatFeatures;
use ext2_core::raw::{RawGroupDesc, RawSuperblock, SUPERBLOCK_OFFSET};

/// Where `s_overhead_clusters` lies within the fields that ext4 added.
const OVERHEAD: core::ops::Range<usize> = 200..204;

/// Makes all that holds the groups' own structures read as zeros; the superblock first, so that no other file system is there any
/// more.
pub(super) fn clear(writer: &mut Writer<'_>) -> Result<()> {
    let layout = &writer.plan.layout;
    let size = layout.geometry().block_size.bytes();
    writer.jobs.work.out.zero(0, u64::from(layout.geometry().first_data_block + 1) * size)?;
    writer.jobs.work.out.fence(Barrier::MadeOver)?;
    for group in layout.geometry().group_numbers() {
        let start = u64::from(layout.geometry().group_start(group));
        writer.jobs.work.out.zero(start * size, u64::from(layout.metadata_blocks(group)) * size)?;
    }
    Ok(())
}

/// Sets the bits `from..to` of a bitmap.
fn set_bits(bitmap: &mut [u8], from: u32, to: u32) {
    let mut bit = from;
    while bit < to {
        let (byte, shift) = ((bit / 8) as usize, bit % 8);
        if shift == 0 && to - bit >= 8 {
            bitmap[byte] = 0xff;
            bit += 8;
        } else {
            bitmap[byte] |= 1 << shift;
            bit += 1;
        }
    }
}

/// The runs of used blocks of one group after the other.
struct Taken {
    runs: Vec<Run>,
    at: usize,
}

impl Taken {
    /// The used runs within blocks `start..end`. Ranges are asked for in ascending order.
    fn within(&mut self, start: u32, end: u32) -> Vec<Run> {
        let mut found = Vec::new();
        while let Some(&(first, len)) = self.runs.get(self.at) {
            let (from, to) = (first.max(start), (first + len).min(end));
            if from < to {
                found.push((from, to - from));
            }
            if first + len > end {
                break;
            }
            self.at += 1;
        }
        found
    }
}

/// Writes bitmaps, descriptors and superblocks; gives the free blocks and inodes.
pub(super) fn write(writer: &mut Writer<'_>) -> Result<(u32, u32)> {
    let plan = writer.plan;
    let layout = &plan.layout;
    let geometry = layout.geometry();
    let size = geometry.block_size;
    let bits = size.bytes() as u32 * 8;
    let mut taken = Taken { runs: writer.space.taken(), at: 0 };
    let last_inode = super::layout::FIRST_INO - 1 + plan.order.len() as u32; // the layout has room for them
    let mut descriptors = Vec::with_capacity(geometry.groups as usize);
    let mut free = (0, 0);
    let mut window = Window::default();
    for group in geometry.group_numbers() {
        let (start, len) = (geometry.group_start(group), geometry.group_len(group));
        let mut desc = layout.descriptor(group);
        let mut bitmap = vec![0; size.len()];
        let metadata = layout.metadata_blocks(group);
        set_bits(&mut bitmap, 0, metadata);
        let mut used = metadata;
        for (first, count) in taken.within(start, start + len) {
            set_bits(&mut bitmap, first - start, first - start + count);
            used += count;
        }
        set_bits(&mut bitmap, len, bits);
        window.put(u64::from(desc.bg_block_bitmap.get()) * size.bytes(), &bitmap, &mut writer.jobs)?;

        let per_group = geometry.inodes_per_group;
        let used_inodes = last_inode.saturating_sub(group.get() * per_group).min(per_group);
        bitmap.fill(0);
        set_bits(&mut bitmap, 0, used_inodes);
        set_bits(&mut bitmap, per_group, bits);
        window.put(u64::from(desc.bg_inode_bitmap.get()) * size.bytes(), &bitmap, &mut writer.jobs)?;

        // A group has less than 2^16 blocks and inodes.
        desc.bg_free_blocks_count.set((len - used) as u16);
        desc.bg_free_inodes_count.set((per_group - used_inodes) as u16);
        desc.bg_used_dirs_count.set(writer.directories.get(group.get() as usize).copied().unwrap_or(0));
        free = (free.0 + (len - used), free.1 + (per_group - used_inodes));
        descriptors.push(desc);
    }
    write_descriptors(writer, &descriptors, &mut window)?;
    window.flush(&mut writer.jobs)?;
    write_superblocks(writer, free)?;
    Ok(free)
}

/// Writes each block of descriptors to every place that it has.
fn write_descriptors(writer: &mut Writer<'_>, all: &[RawGroupDesc], window: &mut Window) -> Result<()> {
    let layout = &writer.plan.layout;
    let geometry = layout.geometry();
    let size = geometry.block_size;
    let per_block = geometry.descriptors_per_block();
    let behind_super = |group: GroupNr| geometry.group_start(group) + u32::from(geometry.has_super(group));
    let meta = layout.features().incompat.contains(IncompatFeatures::META_BG);
    let mut places: Vec<(u32, usize)> = Vec::new();
    for nr in 0..geometry.descriptor_blocks() {
        if meta {
            // In the first, second and last group that the block is about.
            let first = nr * per_block;
            let groups = [first, first + 1, first + per_block - 1].map(GroupNr::new);
            let there = groups.into_iter().filter(|group| group.get() < geometry.groups);
            places.extend(there.map(|group| (behind_super(group), nr as usize)));
        } else {
            let copies = geometry.group_numbers().filter(|&group| geometry.has_super(group));
            places.extend(copies.map(|group| (behind_super(group) + nr, nr as usize)));
        }
    }
    places.sort_unstable();
    places.dedup();
    for (block, nr) in places {
        let mut bytes = vec![0; size.len()];
        for (slot, desc) in
            bytes.chunks_exact_mut(size_of::<RawGroupDesc>()).zip(all.iter().skip(nr * per_block as usize))
        {
            slot.copy_from_slice(desc.as_bytes());
        }
        window.put(u64::from(block) * size.bytes(), &bytes, &mut writer.jobs)?;
    }
    Ok(())
}

/// Writes the backups, then the primary superblock.
fn write_superblocks(writer: &mut Writer<'_>, free: (u32, u32)) -> Result<()> {
    let layout = &writer.plan.layout;
    let mut raw = RawSuperblock::new_zeroed();
    raw.clone_from(layout.raw());
    raw.s_free_blocks_count.set(free.0);
    raw.s_free_inodes_count.set(free.1);
    raw.s_ext4_fields[OVERHEAD].copy_from_slice(&layout.overhead().to_le_bytes());
    let size = layout.geometry().block_size.bytes();
    for group in layout.backups() {
        let mut copy = raw;
        copy.s_block_group_nr.set(u16::try_from(group.get()).unwrap_or(u16::MAX));
        let offset = u64::from(layout.geometry().group_start(group)) * size;
        writer.jobs.work.out.write_at(offset, copy.as_bytes())?;
    }
    writer.jobs.settle()?;
    writer.jobs.work.out.fence(Barrier::MadeBefore)?;
    writer.jobs.work.out.write_at(SUPERBLOCK_OFFSET, raw.as_bytes())
}
