//! Whether data and tree are those that a root hash is of.

use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use blockdev::BlockDevice;
use ext2_core::sync::{Mutex, Rank};

use super::work::Task;
use super::{Layout, Result, Superblock, input, root};

/// A block that is not what it was when the seal was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Broken {
    /// The topmost block is not the one that the root hash is of: nothing below is vouched for.
    Root,
    /// A block of the tree, by its first byte counted from the superblock.
    Tree(u64),
    /// A block of data, by its first byte.
    Data(u64),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("the root hash is another one"),
            Self::Tree(at) => write!(f, "the hash tree was changed in the block at byte {at} of it"),
            Self::Data(at) => write!(f, "the data was changed in the block at byte {at}"),
        }
    }
}

/// Verifies tree and data against a root hash, from the root down, and gives how many blocks are broken. `each` hears of
/// the first of them, in order, at most 16 for each level; what lies below a broken block of the tree is held against
/// the tree as it is.
///
/// # Errors
/// `TooSmall` where the devices are shorter than the superblock says; the devices'.
pub fn verify(
    data: &dyn BlockDevice,
    tree: &dyn BlockDevice,
    superblock: &Superblock,
    root_hash: &[u8],
    progress: &(dyn Fn(u64) + Sync),
    each: &mut dyn FnMut(Broken),
) -> Result<u64> {
    let params = &superblock.params;
    let layout = Layout::new(params, superblock.data_blocks)?;
    layout.check_room(data.size(), tree.size())?;
    if root(data, tree, &layout, params)? != root_hash {
        each(Broken::Root);
        return Ok(1);
    }
    let (hash_block, hash) = (params.hash_block as usize, params.algorithm.digest_len() as usize);
    let mut count = 0;
    for (nr, level) in layout.levels().iter().enumerate().rev() {
        let input = input(data, tree, &layout, nr);
        let broken = |index: u64| {
            let at = input.offset + index * u64::from(input.block);
            if nr == 0 { Broken::Data(at) } else { Broken::Tree(at) }
        };
        let found = AtomicU64::new(0);
        let first = Mutex::new(Rank::Leaf, Vec::new());
        Task { params, input, level, progress }.run(&|block, hashes| {
            let mut stored = alloc::vec![0; hash_block];
            tree.read_at(level.offset + block * hash_block as u64, &mut stored)?;
            if stored == hashes {
                return Ok(());
            }
            let fanout = hash_block / hash;
            for (nr, _) in
                (0_u64..).zip(stored.chunks(hash).zip(hashes.chunks(hash))).filter(|(_, (a, b))| a != b)
            {
                let index = block * fanout as u64 + nr;
                if index >= input.blocks {
                    // Behind the last hash: the level above tells of it.
                    break;
                }
                found.fetch_add(1, Ordering::Relaxed);
                let mut first = first.lock();
                first.push(broken(index));
                first.sort_unstable();
                first.truncate(REPORTED);
            }
            Ok(())
        })?;
        count += found.into_inner();
        first.lock().drain(..).for_each(&mut *each);
    }
    Ok(count)
}

/// How many broken blocks of a level are told of.
const REPORTED: usize = 16;
