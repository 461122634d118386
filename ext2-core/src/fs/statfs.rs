//! What `statfs` tells.

use super::{Ext2, Fs};
use crate::error::Result;

/// The numbers of `df`. Counts are of blocks and inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatFs {
    /// Bytes of a block.
    pub block_size: u64,
    /// Blocks for files, the file system's own structures left out (Linux: `bsddf`).
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Free blocks that are not reserved for privileged callers.
    pub blocks_available: u64,
    /// Inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// The longest name, in bytes.
    pub name_max: u32,
    /// Tells this file system from others: the UUID folded to 64 bits.
    pub fsid: u64,
}

impl Ext2 {
    /// The space there is and the space that is left. Linux: `ext2_statfs`.
    ///
    /// # Errors
    /// The device's.
    pub fn statfs(&self) -> Result<StatFs> {
        let (geo, sb) = (self.geometry(), self.superblock());
        let table = u64::from(geo.inode_table_blocks()) + 2;
        let own: u64 = geo.group_numbers().map(|group| u64::from(geo.group_overhead(group)) + table).sum();
        let overhead = own + u64::from(geo.first_data_block);
        let (blocks_free, files_free) = self.0.free_counts();
        let half = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&sb.uuid[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        Ok(StatFs {
            block_size: geo.block_size.bytes(),
            blocks: u64::from(geo.blocks_count).saturating_sub(overhead),
            blocks_free,
            blocks_available: blocks_free.saturating_sub(u64::from(sb.reserved_blocks)),
            files: u64::from(geo.inodes_count),
            files_free,
            name_max: 255,
            fsid: half(0) ^ half(8),
        })
    }
}

impl Fs {
    /// Free blocks and inodes as the superblock had them when the file system was opened.
    pub(super) fn counts_of_superblock(&self) -> (u64, u64) {
        (self.sb.free_blocks.into(), self.sb.free_inodes.into())
    }
}
