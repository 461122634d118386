//! Where the groups of the new image have what is their own, and where blocks go that are in its way.

use alloc::vec::Vec;

use ext2_core::{Errno, Error, Geometry, GroupNr, Result};

use super::Resized;
use crate::rewrite::{Draft, Moves, group_range};

/// Where `s_overhead_clusters` lies within the fields that ext4 added.
const OVERHEAD: core::ops::Range<usize> = 200..204;

/// A run of blocks that belong to files, directories or attributes: the first, and how many.
type Run = (u32, u32);

/// What of a group is its own: the superblock and descriptors at its start, the two bitmaps, the table of inodes.
fn own(geo: &Geometry, desc: &ext2_core::raw::RawGroupDesc, group: GroupNr) -> [Run; 4] {
    [
        (geo.group_start(group), geo.group_overhead(group)),
        (desc.bg_block_bitmap.get(), 1),
        (desc.bg_inode_bitmap.get(), 1),
        (desc.bg_inode_table.get(), geo.inode_table_blocks()),
    ]
}

/// Gives each group of the new image the places of its own structures, and writes them but for bitmaps of blocks, those of
/// groups that are new, descriptors and superblocks. Gives the blocks of files that are in the way, in ascending order.
pub(super) fn lay_out(draft: &mut Draft<'_>) -> Result<Vec<Run>> {
    let mut in_the_way = Vec::new();
    for group in 0..draft.geo.groups {
        if group < draft.old.geo.groups {
            lay_out_old(draft, GroupNr::new(group), &mut in_the_way)?;
        } else {
            lay_out_new(draft, GroupNr::new(group))?;
        }
    }
    // What lies behind the new end.
    for group in 0..draft.old.geo.groups {
        let nr = GroupNr::new(group);
        let (start, end) = group_range(&draft.old.geo, nr);
        let from = start.max(draft.geo.blocks_count);
        if from < end {
            let desc = draft.old.descs[group as usize];
            let kept = own(&draft.old.geo, &desc, nr);
            used_runs(draft, from, end, &kept, &mut in_the_way)?;
        }
    }
    in_the_way.sort_unstable();
    Ok(in_the_way)
}

/// The used blocks of a range, without those of `but`.
fn used_runs(draft: &Draft<'_>, from: u32, to: u32, but: &[Run], found: &mut Vec<Run>) -> Result<()> {
    let mut at = from;
    while let Some(block) = draft.space.next_used(at, to)? {
        if let Some(&(start, len)) = but.iter().find(|&&(start, len)| block >= start && block - start < len) {
            at = start + len;
            continue;
        }
        at = block + 1;
        match found.last_mut() {
            Some((start, len)) if *start + *len == block => *len += 1,
            _ => found.push((block, 1)),
        }
    }
    Ok(())
}

/// A group that was not there before.
fn lay_out_new(draft: &mut Draft<'_>, group: GroupNr) -> Result<()> {
    let (start, overhead) = (draft.geo.group_start(group), draft.geo.group_overhead(group));
    let per_group = draft.geo.inodes_per_group;
    let table = draft.geo.inode_table_blocks();
    let desc = &mut draft.descs[group.get() as usize];
    desc.bg_block_bitmap.set(start + overhead);
    desc.bg_inode_bitmap.set(start + overhead + 1);
    desc.bg_inode_table.set(start + overhead + 2);
    // OK to cast: a group has at most 2^16 - 8 inodes or so; the field has no more either.
    desc.bg_free_inodes_count.set(per_group as u16);
    draft.space.after_mut(group.get())?;
    draft.space.mark(start, overhead + 2 + table, true)?;
    draft.dev.zero(draft.byte_of(start), u64::from(overhead) << draft.geo.block_size.log2())?;
    draft.dev.zero(draft.byte_of(start + overhead + 2), u64::from(table) << draft.geo.block_size.log2())?;
    Ok(())
}

/// A group that stays, perhaps longer or shorter: what has to be its own now, and what is in the way of that.
fn lay_out_old(draft: &mut Draft<'_>, group: GroupNr, in_the_way: &mut Vec<Run>) -> Result<()> {
    let desc = draft.old.descs[group.get() as usize];
    let before = own(&draft.old.geo, &desc, group);
    let (start, end) = group_range(&draft.geo, group);
    let head = draft.geo.group_overhead(group);
    let is_as_before = before[0].1 == head && group_range(&draft.old.geo, group) == (start, end);
    if is_as_before {
        return Ok(());
    }
    draft.space.after_mut(group.get())?;
    // The former head is nobody's but for what is the new one's; blocks of files there are none.
    draft.space.mark(start, before[0].1, false)?;
    let mut wanted = before;
    wanted[0].1 = head;
    let fits = |&(first, len): &Run| first >= start + head && first + len <= end;
    let keeps: Vec<bool> = wanted.iter().enumerate().map(|(nr, run)| nr == 0 || fits(run)).collect();
    for (run, keeps) in wanted.iter().zip(&keeps) {
        if !keeps {
            draft.space.mark(run.0, run.1, false)?;
        }
    }
    take(draft, wanted[0], &before, in_the_way)?;
    for nr in [3, 1, 2] {
        if keeps[nr] {
            continue;
        }
        let kept: Vec<Run> = wanted
            .iter()
            .enumerate()
            .filter(|(other, _)| keeps[*other] || (*other != nr && wanted[*other] != before[*other]))
            .map(|(_, run)| *run)
            .collect();
        wanted[nr].0 = find_room(draft, (start + head, end), wanted[nr].1, &kept)?;
        take(draft, wanted[nr], &before, in_the_way)?;
        copy_structure(draft, before[nr], wanted[nr].0)?;
    }
    let desc = &mut draft.descs[group.get() as usize];
    desc.bg_block_bitmap.set(wanted[1].0);
    desc.bg_inode_bitmap.set(wanted[2].0);
    desc.bg_inode_table.set(wanted[3].0);
    Ok(())
}

/// Marks blocks as the group's own, and notes what of files is there.
fn take(draft: &mut Draft<'_>, run: Run, before: &[Run], in_the_way: &mut Vec<Run>) -> Result<()> {
    // Behind the new end nothing is taken.
    used_runs(draft, run.0, run.0 + run.1, before, in_the_way)?;
    draft.space.mark(run.0, run.1, true)
}

/// The start of a place for `len` blocks within `range`, off what the group has there already: free, or where the fewest
/// blocks are in use.
fn find_room(draft: &Draft<'_>, range: Run, len: u32, kept: &[Run]) -> Result<u32> {
    let (first, end) = range;
    let mut best: Option<(u32, u32)> = None;
    let mut at = first;
    while at.saturating_add(len) <= end {
        let clash = kept.iter().find(|&&(start, count)| start < at + len && at < start + count);
        if let Some(&(start, count)) = clash {
            at = start + count;
            continue;
        }
        let (mut used, mut last) = (0, at);
        for block in at..at + len {
            if !draft.space.is_free(block)? {
                (used, last) = (used + 1, block);
            }
        }
        if best.is_none_or(|(least, _)| used < least) {
            best = Some((used, at));
        }
        if used == 0 {
            break;
        }
        // A free place begins behind the last block that is in use here; among others it is not worth looking at each.
        at = if last > at { at + (last - at).min(len).max(1) } else { at + 1 };
    }
    match best {
        Some((_, at)) => Ok(at),
        None => Err(Error::Caller(Errno::NOSPC, "a group has no room for its table of inodes")),
    }
}

/// Writes what lay at `from` to its new place.
fn copy_structure(draft: &mut Draft<'_>, from: Run, to: u32) -> Result<()> {
    let mut block = Vec::new();
    for nr in 0..from.1 {
        draft.read_old(from.0 + nr, &mut block)?;
        draft.put(to + nr, &block)?;
    }
    Ok(())
}

/// Finds new places for blocks of files: whole units for whole units, and broken ones for the rest.
pub(super) fn find_places(draft: &mut Draft<'_>, in_the_way: &[Run], done: &mut Resized) -> Result<Moves> {
    let mut moves = Moves::default();
    let mut small = Vec::new();
    let unit = draft.space.unit();
    for &(start, len) in in_the_way {
        let end = start + len;
        let mut at = start;
        loop {
            let whole = draft.space.unit_at(at);
            let is_whole = unit != 0 && whole.checked_add(unit).is_some_and(|past| past <= end);
            if !is_whole {
                break;
            }
            let Some(to) = draft.space.take_unit()? else {
                done.units_broken += 1;
                small.push((at, whole + unit - at));
                at = whole + unit;
                continue;
            };
            done.units_kept += 1;
            if at < whole {
                small.push((at, whole - at));
            }
            moves.push(whole, to, unit);
            at = whole + unit;
        }
        if at < end {
            small.push((at, end - at));
        }
    }
    for (mut start, mut len) in small {
        while len > 0 {
            let found = match draft.space.take_small(len)? {
                // Where it is tight, also what the tables and descriptors of the old image had.
                None => draft.space.take_freed(len)?,
                found => found,
            };
            let Some((to, count)) = found else {
                return Err(Error::Caller(Errno::NOSPC, "the files of the image do not fit into so little"));
            };
            moves.push(start, to, count);
            (start, len) = (start + count, len - count);
        }
    }
    moves.sort();
    Ok(moves)
}

/// Says again how many blocks are no file's, where the superblock said it before.
pub(super) fn count_overhead(draft: &mut Draft<'_>) {
    let geo = &draft.geo;
    let known = draft.raw.s_ext4_fields.get(OVERHEAD).is_some_and(|field| field != [0; 4]);
    // OK to cast: no more than there are blocks.
    let overhead = super::numbers::overhead(geo) as u32;
    if let Some(field) = draft.raw.s_ext4_fields.get_mut(OVERHEAD)
        && known
    {
        field.copy_from_slice(&overhead.to_le_bytes());
    }
}
