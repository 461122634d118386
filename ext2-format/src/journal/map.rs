//! How a journal's blocks are led to.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::FromZeros;

use crate::raw::{RawInode, RawSuperblock};

/// The mode of a journal's inode: a file that is root's.
pub const MODE: u16 = 0o100_600;
/// What `s_jnl_backup_type` says where `s_jnl_blocks` is a copy of a journal's map (Linux: `EXT3_JNL_BACKUP_BLOCKS`).
pub const COPIED: u8 = 1;

/// The map of a journal: what stands in its inode, and in the blocks that lead to its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// `i_block`.
    pub slots: [u32; 15],
    /// The indirect blocks by their numbers, and what each holds.
    pub leading: Vec<(u32, Vec<u8>)>,
}

impl Map {
    /// How many blocks lead to those of a journal of `count` blocks, each of `size` bytes.
    #[must_use]
    pub fn leading(count: u32, size: u64) -> u32 {
        let leaves = count.saturating_sub(12).div_ceil((size / 4) as u32);
        leaves + u32::from(leaves > 1)
    }

    /// The map of a journal of `count` blocks, of `size` bytes each, whose `n`-th is `block(n)`, through as many blocks as
    /// [`leading`](Self::leading) says: as far as two levels reach.
    #[must_use]
    pub fn new(count: u32, size: u64, leading: &[u32], block: impl Fn(u32) -> u32) -> Self {
        let per_block = (size / 4) as u32;
        let leaves = count.saturating_sub(12).div_ceil(per_block) as usize;
        let mut slots = [0; 15];
        slots.iter_mut().zip(0..count.min(12)).for_each(|(slot, n)| *slot = block(n));
        let filled = |words: &mut dyn Iterator<Item = u32>| {
            let mut bytes = vec![0; size as usize];
            bytes
                .chunks_exact_mut(4)
                .zip(words)
                .for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
            bytes
        };
        let mut contents = Vec::new();
        for (n, &nr) in leading.iter().enumerate() {
            let from = 12 + n as u32 * per_block;
            contents.push((
                nr,
                match n < leaves {
                    true => filled(&mut (from..count).map(&block)),
                    // The first leaf hangs on the inode, the others on the root behind them.
                    false => filled(&mut leading.get(1..leaves).unwrap_or_default().iter().copied()),
                },
            ));
        }
        slots[12] = leading.first().copied().unwrap_or_default();
        slots[13] = leading.get(leaves).copied().unwrap_or_default();
        Self { slots, leading: contents }
    }

    /// The words of `s_jnl_blocks` for a journal of `bytes` bytes.
    #[must_use]
    pub fn copy(&self, bytes: u32) -> [u32; 17] {
        let mut words = [0; 17];
        words.iter_mut().zip(self.slots).for_each(|(to, from)| *to = from);
        words[16] = bytes;
        words
    }
}

/// The inode of the journal that the superblock has a copy of, if it has one. e2fsck takes it where the inode itself is no
/// journal's.
#[must_use]
pub fn copied(sb: &RawSuperblock) -> Option<RawInode> {
    (sb.s_jnl_backup_type == COPIED).then(|| {
        let mut raw = RawInode::new_zeroed();
        raw.i_mode = MODE.into();
        raw.i_links_count = 1.into();
        raw.i_size = sb.s_jnl_blocks[16];
        raw.i_block.iter_mut().zip(sb.s_jnl_blocks).for_each(|(to, from)| *to = from);
        raw
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::blocks_of;

    #[test]
    fn what_a_map_leads_to_is_found_through_it_and_through_its_copy() {
        for (count, size) in [(1024, 1024), (1024, 4096), (5000, 1024), (8192, 4096), (12, 1024)] {
            let leading: Vec<u32> = (0..Map::leading(count, size)).map(|n| 20_000 + n).collect();
            let map = Map::new(count, size, &leading, |n| 30_000 + n);
            let mut sb = RawSuperblock::new_zeroed();
            assert!(copied(&sb).is_none());
            sb.s_jnl_backup_type = COPIED;
            sb.s_jnl_blocks
                .iter_mut()
                .zip(map.copy(count * size as u32))
                .for_each(|(to, from)| *to = from.into());
            let load = |nr: u32| {
                let found = map.leading.iter().find(|(number, _)| *number == nr);
                Ok(found.unwrap_or_else(|| panic!("block {nr} leads nowhere")).1.clone())
            };
            let (blocks, through) = blocks_of(&copied(&sb).unwrap(), size, 1 << 20, load).unwrap();
            assert_eq!(blocks, (30_000..30_000 + count).collect::<Vec<_>>());
            let mut through = through;
            through.sort_unstable();
            assert_eq!(through, leading);
        }
    }
}
