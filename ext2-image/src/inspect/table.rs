//! All inodes of a group, one after the other.

use alloc::vec;

use blockdev::BlockDevice;
use ext2_core::{GroupNr, InodeNr, Result};

use crate::fields::{Layout, Structure};

/// Calls `each` with the bytes of every inode of a group, a block of the table at a time. A table that lies nowhere, or that
/// the device cannot give, is passed over: what is asked for may lie elsewhere.
pub(super) fn each_inode(
    dev: &dyn BlockDevice,
    layout: &Layout,
    group: GroupNr,
    each: &mut dyn FnMut(InodeNr, &[u8]) -> Result<()>,
) -> Result<()> {
    let geo = layout.geometry()?;
    let size = usize::from(geo.inode_size);
    let per_block = (geo.block_size.len() / size) as u32;
    let mut bytes = vec![0; geo.block_size.len()];
    for first in (0..geo.inodes_per_group).step_by(per_block.max(1) as usize) {
        let Some(nr) = geo.inode_at(group, first) else { return Ok(()) };
        let Ok((offset, _)) = layout.place(dev, Structure::Inode(nr)) else { return Ok(()) };
        if dev.read_at(offset, &mut bytes).is_err() {
            continue;
        }
        let count = (geo.inodes_per_group - first).min(per_block);
        for (bit, inode) in (first..first + count).zip(bytes.chunks_exact(size)) {
            let Some(nr) = geo.inode_at(group, bit) else { return Ok(()) };
            each(nr, inode)?;
        }
    }
    Ok(())
}
