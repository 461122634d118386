//! Repairs of the descriptors before the passes: what they name lies in their groups, as a backup says or what is around.

use alloc::vec;
use alloc::vec::Vec;

use blockdev::BlockDevice;
use ext2_core::raw::{RawGroupDesc, RawInode, RawSuperblock};
use ext2_core::{FileKind, Geometry, GroupNr};
use zerocopy::{FromBytes, IntoBytes};

use crate::check::layout::of_backup;
use crate::check::run::Step;
use crate::check::superblock::{check_super, geometry, read_super};
use crate::check::{Finding, Kind, Place};

/// Places of a group's bitmaps and table: kind of finding, first block, blocks, whether it can be there.
type Placed = (Kind, u32, u32, bool);

/// Bitmap of blocks, bitmap of inodes, table, and whether each lies in its group and apart from the others.
fn places(geo: &Geometry, group: GroupNr, desc: &RawGroupDesc) -> [Placed; 3] {
    let start = u64::from(geo.group_start(group));
    let end = start + u64::from(geo.group_len(group));
    let over = start + u64::from(geo.group_overhead(group));
    let table = geo.inode_table_blocks();
    let fits = |block: u32, len: u32| u64::from(block) >= over && u64::from(block) + u64::from(len) <= end;
    let (blocks, inodes, first) =
        (desc.bg_block_bitmap.get(), desc.bg_inode_bitmap.get(), desc.bg_inode_table.get());
    let in_table = |block: u32| {
        fits(first, table)
            && u64::from(block) >= u64::from(first)
            && u64::from(block) < u64::from(first) + u64::from(table)
    };
    [
        (Kind::BlockBitmapPlace, blocks, 1, fits(blocks, 1) && !in_table(blocks)),
        (Kind::InodeBitmapPlace, inodes, 1, fits(inodes, 1) && !in_table(inodes) && inodes != blocks),
        (Kind::InodeTablePlace, first, table, fits(first, table)),
    ]
}

fn is_placed(geo: &Geometry, group: GroupNr, desc: &RawGroupDesc) -> bool {
    places(geo, group, desc).iter().all(|place| place.3)
}

/// Makes every descriptor name places in its own group: those of a backup, or of the usual layout.
pub(crate) fn settle_descriptors(dev: &dyn BlockDevice, answer: &mut dyn FnMut(&Finding) -> bool) -> Step {
    let raw = read_super(dev)?;
    let sb = check_super(dev, &raw, &mut |_| false)?;
    let geo = geometry(&sb);
    for nr in 0..geo.descriptor_blocks() {
        settle_block(dev, (&raw, &geo), nr, answer)?;
    }
    Ok(())
}

/// The copies of a block of descriptors, the primary one left out: behind each copy of the superblock, or, with `meta_bg`, in the
/// second and the last of the groups that the block is about.
fn copies(geo: &Geometry, nr: u32) -> Vec<u32> {
    let per_block = geo.descriptors_per_block();
    if geo.is_meta_descriptor(nr) {
        let first = nr.saturating_mul(per_block);
        return [1, per_block.saturating_sub(1)]
            .into_iter()
            .map(|place| GroupNr::new(first.saturating_add(place)))
            .filter(|group| group.get() < geo.groups)
            .map(|group| geo.group_start(group).saturating_add(u32::from(geo.has_super(group))))
            .collect();
    }
    (1..geo.groups)
        .map(GroupNr::new)
        .filter(|&group| geo.has_old_descriptors(group))
        .map(|group| geo.descriptor_block(nr, group))
        .collect()
}

/// Settles the descriptors in one block of their table. Where one is broken none of them is trusted before a backup of the block
/// in which all are whole: what was written over it may look like a descriptor in other places.
fn settle_block(
    dev: &dyn BlockDevice,
    (raw, geo): (&RawSuperblock, &Geometry),
    nr: u32,
    answer: &mut dyn FnMut(&Finding) -> bool,
) -> Step {
    let per_block = geo.descriptors_per_block();
    let first = nr.saturating_mul(per_block);
    let groups = || (first..geo.groups.min(first.saturating_add(per_block))).map(GroupNr::new);
    let primary = geo.descriptor_block(nr, GroupNr::new(0));
    if are_placed(dev, geo, groups(), primary)? {
        return Ok(());
    }
    let copies = copies(geo, nr);
    let mut whole = None;
    for &copy in &copies {
        if are_placed(dev, geo, groups(), copy)? {
            whole = Some(copy);
            break;
        }
    }
    for group in groups() {
        let Some(desc) = descriptor(dev, geo, group, primary)? else { continue };
        let places = places(geo, group, &desc);
        let backup = match whole {
            Some(copy) => descriptor(dev, geo, group, copy)?,
            None if is_placed(geo, group, &desc) => None,
            None => from_backups(dev, geo, group, &copies)?,
        };
        let (kind, found, expected) = match (places.iter().find(|place| !place.3), &backup) {
            (Some(&(kind, block, ..)), _) => (kind, block, None),
            (None, Some(backup)) if own(backup) != own(&desc) => {
                (Kind::DescriptorDiffers, desc.bg_inode_table.get(), Some(backup.bg_inode_table.get().into()))
            }
            _ => continue,
        };
        let place = Place::Group(group.get());
        if !answer(&Finding { place, kind, found: Some(found.into()), expected, name: Vec::new() }) {
            continue;
        }
        let mended = match backup {
            Some(backup) => of_backup(raw, group.get(), backup),
            None => match place_anew(dev, geo, group, desc)? {
                Some(placed) => placed,
                None => continue,
            },
        };
        for &block in [primary].iter().chain(&copies) {
            let at = offset(geo, group, block);
            if at + size_of::<RawGroupDesc>() as u64 <= dev.size() {
                dev.write_at(at, mended.as_bytes())?;
            }
        }
    }
    Ok(())
}

/// Where the descriptor of a group lies in a block of them, in bytes of the device.
fn offset(geo: &Geometry, group: GroupNr, block: u32) -> u64 {
    let index = group.get() % geo.descriptors_per_block();
    (u64::from(block) << geo.block_size.log2()) + u64::from(index) * size_of::<RawGroupDesc>() as u64
}

/// A descriptor in a block of them; `None` where that would lie past the end.
fn descriptor(
    dev: &dyn BlockDevice,
    geo: &Geometry,
    group: GroupNr,
    block: u32,
) -> Step<Option<RawGroupDesc>> {
    let at = offset(geo, group, block);
    let mut desc = RawGroupDesc::default();
    if at + size_of::<RawGroupDesc>() as u64 > dev.size() {
        return Ok(None);
    }
    dev.read_at(at, desc.as_mut_bytes())?;
    Ok(Some(desc))
}

/// Whether descriptors in a block of them name places in their groups.
fn are_placed(
    dev: &dyn BlockDevice,
    geo: &Geometry,
    mut groups: impl Iterator<Item = GroupNr>,
    block: u32,
) -> Step<bool> {
    groups.try_fold(true, |good, group| {
        Ok(good && descriptor(dev, geo, group, block)?.is_some_and(|desc| is_placed(geo, group, &desc)))
    })
}

/// What a descriptor says that is its group's alone.
fn own(desc: &RawGroupDesc) -> [u32; 3] {
    [desc.bg_block_bitmap.get(), desc.bg_inode_bitmap.get(), desc.bg_inode_table.get()]
}

/// The descriptor of a group in a copy, if one has it right.
fn from_backups(
    dev: &dyn BlockDevice,
    geo: &Geometry,
    group: GroupNr,
    copies: &[u32],
) -> Step<Option<RawGroupDesc>> {
    for &copy in copies {
        let desc = descriptor(dev, geo, group, copy)?;
        if let Some(desc) = desc.filter(|desc| is_placed(geo, group, desc)) {
            return Ok(Some(desc));
        }
    }
    Ok(None)
}

/// Finds places for what a descriptor has lost. A table that nothing says where it was is looked for where mke2fs puts it;
/// what is no table there is not taken for one, and an empty one is made.
fn place_anew(
    dev: &dyn BlockDevice,
    geo: &Geometry,
    group: GroupNr,
    mut desc: RawGroupDesc,
) -> Step<Option<RawGroupDesc>> {
    let start = geo.group_start(group).saturating_add(geo.group_overhead(group));
    let end = geo.group_start(group).saturating_add(geo.group_len(group));
    let table = geo.inode_table_blocks();
    let [blocks, inodes, first] = places(geo, group, &desc);
    if !first.3 {
        let usual = start.saturating_add(2);
        let mut place = None;
        if usual.saturating_add(table) <= end && is_table(dev, geo, usual)? {
            place = Some(usual);
        } else if let Some(run) = free_run(dev, geo, group, &desc, blocks.3, table)? {
            dev.zero_contents(
                u64::from(run) << geo.block_size.log2(),
                u64::from(table) << geo.block_size.log2(),
            )?;
            place = Some(run);
        }
        let Some(place) = place else { return Ok(None) };
        desc.bg_inode_table = place.into();
    }
    let first = desc.bg_inode_table.get();
    let in_table = |block: u32| block >= first && block < first.saturating_add(table);
    if !blocks.3 || in_table(desc.bg_block_bitmap.get()) {
        let taken = if inodes.3 { inodes.1 } else { 0 };
        let Some(place) = (start..end).find(|&block| !in_table(block) && block != taken) else {
            return Ok(None);
        };
        desc.bg_block_bitmap = place.into();
    }
    let taken = desc.bg_block_bitmap.get();
    if !inodes.3 || in_table(desc.bg_inode_bitmap.get()) || desc.bg_inode_bitmap.get() == taken {
        let Some(place) = (start..end).find(|&block| !in_table(block) && block != taken) else {
            return Ok(None);
        };
        desc.bg_inode_bitmap = place.into();
    }
    desc.bg_flags = 0.into();
    Ok(is_placed(geo, group, &desc).then_some(desc))
}

/// Whether what lies at a block can be a table of inodes: each is all zeros, or has a kind of file and blocks that are there.
fn is_table(dev: &dyn BlockDevice, geo: &Geometry, block: u32) -> Step<bool> {
    let mut bytes = vec![0; geo.block_size.len()];
    for nr in 0..geo.inode_table_blocks() {
        dev.read_at(u64::from(block.saturating_add(nr)) << geo.block_size.log2(), &mut bytes)?;
        for inode in bytes.chunks_exact(geo.inode_size.into()) {
            let Ok((raw, _)) = RawInode::ref_from_prefix(inode) else { return Ok(false) };
            if inode.iter().all(|&byte| byte == 0) || raw.i_mode.get() == 0 {
                continue;
            }
            let fast = FileKind::from_mode(raw.i_mode.get());
            let has_map = matches!(fast, Some(FileKind::Directory | FileKind::Regular));
            if fast.is_none() || has_map && raw.i_block.iter().any(|block| block.get() >= geo.blocks_count) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// A run of blocks of a group that its bitmap on the device calls free.
fn free_run(
    dev: &dyn BlockDevice,
    geo: &Geometry,
    group: GroupNr,
    desc: &RawGroupDesc,
    has_bitmap: bool,
    len: u32,
) -> Step<Option<u32>> {
    if !has_bitmap {
        return Ok(None);
    }
    let mut bitmap = vec![0; geo.block_size.len()];
    dev.read_at(u64::from(desc.bg_block_bitmap.get()) << geo.block_size.log2(), &mut bitmap)?;
    let (mut first, mut count) = (0, 0);
    for bit in geo.group_overhead(group)..geo.group_len(group) {
        let byte = bitmap.get((bit / 8) as usize).copied().unwrap_or(0xff);
        if byte >> (bit % 8) & 1 != 0 {
            count = 0;
            continue;
        }
        if count == 0 {
            first = bit;
        }
        count += 1;
        if count == len {
            return Ok(Some(geo.group_start(group).saturating_add(first)));
        }
    }
    Ok(None)
}
