//! Inode 7, which holds the spare blocks for descriptors: laid out anew for the new groups.

use alloc::vec::Vec;

use ext2_core::raw::RawInode;
use ext2_core::{GroupNr, InodeNr, Result};
use zerocopy::{FromZeros, IntoBytes};

use super::{backups, has_spare};
use crate::check::spare::AHEAD;
use crate::rewrite::Draft;

const INODE: InodeNr = InodeNr::new(7).expect("not zero");

/// Writes the block that leads to the spare blocks, each of which leads to its copies in other groups.
pub(super) fn write(draft: &mut Draft<'_>) -> Result<()> {
    if !has_spare(draft) {
        return Ok(());
    }
    let geo = draft.geo.clone();
    let size = geo.block_size;
    let spare = u32::from(geo.reserved_gdt_blocks);
    let backups = backups(&geo);
    let Some((group, bit)) = geo.group_of_inode(INODE) else { return Ok(()) };
    let at = u64::from(bit) * u64::from(geo.inode_size);
    let table = draft.descs[group.get() as usize].bg_inode_table.get();
    // OK to cast: within a group.
    let block = table + (at >> size.log2()) as u32;
    let within = (at & (size.bytes() - 1)) as usize;
    let mut bytes = Vec::new();
    draft.read(block, &mut bytes)?;
    let mut inode = RawInode::new_zeroed();
    let Some(place) = bytes.get(within..within + size_of::<RawInode>()) else { return Ok(()) };
    inode.as_mut_bytes().copy_from_slice(place);

    let mut lead = alloc::vec![0; size.len()];
    let first = geo.first_data_block + 1 + geo.descriptor_blocks();
    let (mut old, mut copies) = (Vec::new(), alloc::vec![0; size.len()]);
    // OK to cast: a block has at most 64 KiB.
    let at_once = AHEAD / size.len() as u32;
    for part in (first..first + spare).step_by(at_once as usize) {
        let count = at_once.min(first + spare - part);
        old.resize(count as usize * size.len(), 0);
        draft.dev.read_at(draft.byte_of(part), &mut old)?;
        for (block, old) in (part..).zip(old.chunks_exact(size.len())) {
            let index = (u64::from(block - geo.first_data_block - 1) % size.pointers()) as usize * 4;
            lead[index..index + 4].copy_from_slice(&block.to_le_bytes());
            for (slot, &group) in copies.chunks_exact_mut(4).zip(&backups) {
                let there = geo.group_start(group) + (block - geo.group_start(GroupNr::new(0)));
                slot.copy_from_slice(&there.to_le_bytes());
            }
            if old != copies {
                draft.put(block, &copies)?;
            }
        }
    }
    let double = inode.i_block[13].get();
    if geo.data_block(double).is_none() {
        let what = "has no block that leads to the spare descriptors";
        return Err(ext2_core::Corrupt::new(ext2_core::Object::Inode(INODE), what).into());
    }
    draft.put(double, &lead)?;
    // The block that leads, the spare blocks, and their copies; in units of 512 bytes.
    let blocks = 1 + u64::from(spare) * (1 + backups.len() as u64);
    inode.i_blocks.set(u32::try_from(blocks * (size.bytes() / 512)).unwrap_or(u32::MAX));
    draft.patch(block, within, inode.as_bytes())
}
