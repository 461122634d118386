//! The numbers of a resized image, as resize2fs comes to them.

use ext2_core::raw::RawSuperblock;
use ext2_core::{CompatFeatures, Errno, Error, Geometry, GroupNr, IncompatFeatures, Result, Superblock};

use crate::rewrite::Image;

/// Blocks that the last group must have for files; with fewer it is left out.
const LEAST_USE: u64 = 50;

/// The superblock, without free counts, and the layout of an image of `blocks` blocks.
pub(super) fn resized(old: &Image, mut blocks: u64) -> Result<(RawSuperblock, Geometry)> {
    let first = u64::from(old.geo.first_data_block);
    let per_group = u64::from(old.geo.blocks_per_group);
    if blocks > u64::from(u32::MAX) {
        return Err(Error::Caller(Errno::FBIG, "ext2 counts blocks in 32 bits"));
    }
    let too_small = || Error::Caller(Errno::NOSPC, "too small for a file system");
    loop {
        if blocks <= first {
            return Err(too_small());
        }
        let groups = (blocks - first).div_ceil(per_group);
        if groups * u64::from(old.geo.inodes_per_group) > u64::from(u32::MAX) {
            return Err(Error::Caller(Errno::FBIG, "ext2 counts inodes in 32 bits"));
        }
        let raw = numbers(old, blocks as u32, groups as u32);
        if raw.s_inodes_count.get() < raw.s_first_ino.get().max(11) {
            return Err(too_small());
        }
        let geo = Geometry::new(&Superblock::from_raw(&raw, u64::MAX, false)?);
        let last = GroupNr::new(groups as u32 - 1);
        let mut overhead = 2 + u64::from(geo.inode_table_blocks());
        if geo.has_super(last) {
            overhead += 1 + u64::from(geo.descriptor_blocks()) + u64::from(old.geo.reserved_gdt_blocks);
        }
        let rest = (blocks - first) % per_group;
        if groups == 1 && rest != 0 && rest < overhead {
            return Err(too_small());
        }
        if groups > 1 && rest != 0 && rest < overhead + LEAST_USE {
            blocks -= rest;
            continue;
        }
        if geo
            .group_numbers()
            .any(|group| geo.group_overhead(group) + 2 + geo.inode_table_blocks() > geo.group_len(group))
        {
            return Err(Error::Caller(Errno::FBIG, "the descriptors of so many groups fill a group"));
        }
        return Ok((raw, geo));
    }
}

/// The superblock for so many blocks.
fn numbers(old: &Image, blocks: u32, groups: u32) -> RawSuperblock {
    let mut raw = old.raw;
    raw.s_blocks_count.set(blocks);
    raw.s_inodes_count.set(groups * old.geo.inodes_per_group);
    // In this order, so that the roundings are those of resize2fs.
    let percent = f64::from(old.raw.s_r_blocks_count.get()) * 100.0 / f64::from(old.geo.blocks_count);
    // OK to cast: no more than there are blocks.
    raw.s_r_blocks_count.set((percent * f64::from(blocks) / 100.0) as u32);
    let (before, after) = (old.geo.descriptor_blocks(), groups.div_ceil(old.geo.descriptors_per_block()));
    if old.sb.features.compat.contains(CompatFeatures::RESIZE_INODE) && before != after {
        let most = old.geo.block_size.pointers() as i64;
        let spare = i64::from(old.geo.reserved_gdt_blocks) + i64::from(before) - i64::from(after);
        // OK to cast: at most 16384 pointers in a block.
        raw.s_reserved_gdt_blocks.set(spare.clamp(0, most) as u16);
    }
    if old.sb.features.incompat.contains(IncompatFeatures::META_BG) && raw.s_first_meta_bg.get() > after {
        raw.s_feature_incompat.set(raw.s_feature_incompat.get() & !IncompatFeatures::META_BG.bits());
        raw.s_first_meta_bg.set(0);
    }
    if old.sb.features.compat.contains(CompatFeatures::SPARSE_SUPER2) {
        let (last, old_last) = (groups - 1, old.geo.groups - 1);
        let [mut one, mut two] = old.raw.s_backup_bgs.map(|word| word.get());
        if last > old_last {
            if old_last == 0 {
                one = 1;
            }
            if (old_last == 0 && last > 1)
                || (old_last > 0 && (two == old_last || (two == 0 && one == old_last)))
            {
                two = last;
            }
        } else if last < old_last {
            if one > last {
                one = 0;
            }
            if two > last || (last > 1 && two == old_last) {
                two = if last > 1 { last } else { 0 };
            }
        }
        for (word, group) in raw.s_backup_bgs.iter_mut().zip([one, two]) {
            word.set(group);
        }
    }
    raw
}

/// Blocks of superblocks, descriptors, bitmaps and tables, and what lies before the first group.
pub(super) fn overhead(geo: &Geometry) -> u64 {
    let of_group = |group| u64::from(geo.group_overhead(group)) + 2 + u64::from(geo.inode_table_blocks());
    geo.group_numbers().map(of_group).sum::<u64>() + u64::from(geo.first_data_block)
}

/// Blocks and inodes that files have, by the counts of the groups.
fn in_use(old: &Image) -> (u64, u64) {
    let free: u64 = old.descs.iter().map(|desc| u64::from(desc.bg_free_blocks_count.get())).sum();
    let inodes: u64 = old.descs.iter().map(|desc| u64::from(desc.bg_free_inodes_count.get())).sum();
    let used = u64::from(old.geo.blocks_count).saturating_sub(free).saturating_sub(overhead(&old.geo));
    (used, u64::from(old.geo.inodes_count).saturating_sub(inodes))
}

fn fits(old: &Image, geo: &Geometry) -> bool {
    let (blocks, inodes) = in_use(old);
    blocks + overhead(geo) <= u64::from(geo.blocks_count) && inodes <= u64::from(geo.inodes_count)
}

/// Refuses a size that is too small for what is in the image.
pub(super) fn check_fits(old: &Image, geo: &Geometry) -> Result<()> {
    if fits(old, geo) {
        Ok(())
    } else {
        Err(Error::Caller(Errno::NOSPC, "the files of the image do not fit into so little"))
    }
}

/// The fewest blocks that all files fit into. More blocks of the same number of groups only add room, so that the
/// answer is found by halving, first among numbers of groups and then within the last one.
pub(super) fn minimum(old: &Image) -> Result<u32> {
    let (first, per_group) = (u64::from(old.geo.first_data_block), u64::from(old.geo.blocks_per_group));
    let whole = u64::from(old.geo.blocks_count);
    let can = |blocks: u64| {
        resized(old, blocks).is_ok_and(|(_, geo)| u64::from(geo.blocks_count) == blocks && fits(old, &geo))
    };
    let full = |groups: u64| (first + groups * per_group).min(whole);
    let (mut low, mut high) = (0, u64::from(old.geo.groups));
    // `high` groups can hold it, `low` cannot.
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if can(full(middle)) { high = middle } else { low = middle }
    }
    let (mut low, mut high) = (full(high - 1), full(high));
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if can(middle) { high = middle } else { low = middle }
    }
    // OK to cast: no more than there are.
    Ok(high as u32)
}
