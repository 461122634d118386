//! Where the levels of a tree lie, by arithmetic alone.

use alloc::format;
use alloc::vec::Vec;

use super::{Error, Params, Result};

/// A level of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Level {
    /// The first byte, counted from the superblock.
    pub offset: u64,
    /// Blocks of hashes.
    pub blocks: u64,
}

/// Where the levels of a tree lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// From the hashes of the data up to the single block that the root hash is of; none for one block of data.
    levels: Vec<Level>,
    data_blocks: u64,
    data_block: u32,
    hash_block: u32,
    bytes: u64,
}

impl Layout {
    /// The tree over so many blocks of data.
    ///
    /// # Errors
    /// `Params`.
    pub fn new(params: &Params, data_blocks: u64) -> Result<Self> {
        params.check()?;
        let too_many = || Error::Params(format!("{data_blocks} blocks of data cannot be addressed"));
        if data_blocks == 0 {
            return Err(Error::Params("there is no block of data".into()));
        }
        data_blocks.checked_mul(params.data_block.into()).ok_or_else(too_many)?;
        // At least 8: a block of 512 bytes holds so many hashes of 64.
        let fanout = u64::from(params.hash_block / params.algorithm.digest_len());
        let mut levels = Vec::new();
        let mut below = data_blocks;
        while below > 1 {
            below = below.div_ceil(fanout);
            levels.push(Level { offset: 0, blocks: below });
        }
        // The root's level first, behind the superblock's block.
        let mut block = 1_u64;
        for level in levels.iter_mut().rev() {
            level.offset = block.checked_mul(params.hash_block.into()).ok_or_else(too_many)?;
            block = block.checked_add(level.blocks).ok_or_else(too_many)?;
        }
        let bytes = block.checked_mul(params.hash_block.into()).ok_or_else(too_many)?;
        let (data_block, hash_block) = (params.data_block, params.hash_block);
        Ok(Self { levels, data_blocks, data_block, hash_block, bytes })
    }

    /// The levels, from the hashes of the data to the root's.
    #[must_use]
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// Bytes of superblock and tree.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Blocks of data.
    #[must_use]
    pub fn data_blocks(&self) -> u64 {
        self.data_blocks
    }

    pub(super) fn data_block(&self) -> u32 {
        self.data_block
    }

    pub(super) fn hash_block(&self) -> u32 {
        self.hash_block
    }

    /// Refuses devices that are too small. Bytes.
    pub(super) fn check_room(&self, data: u64, tree: u64) -> Result<()> {
        // OK to multiply: tried by `new`.
        let needed = self.data_blocks * u64::from(self.data_block);
        if data < needed {
            return Err(Error::TooSmall { what: "data", needed, given: data });
        }
        if tree < self.bytes {
            return Err(Error::TooSmall { what: "hash tree", needed: self.bytes, given: tree });
        }
        Ok(())
    }
}
