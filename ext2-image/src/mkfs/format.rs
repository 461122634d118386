//! What a new file system is to be like.

use alloc::format;
use alloc::vec::Vec;

use super::{Error, Layout, Result};
use ext2_core::raw::GOOD_OLD_INODE_SIZE;
use ext2_core::{BlockSize, Timestamp};
use ext2_core::{CompatFeatures, Features, IncompatFeatures, RoCompatFeatures};

/// The revision of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revision {
    /// 0: inodes of 128 bytes, no feature bits.
    Original,
    /// 1: what everybody makes since 1997.
    Dynamic,
}

/// How many inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inodes {
    /// By the size of the file system, as mke2fs has it; more where a tree that goes in needs more.
    BySize,
    /// One for so many bytes (`mke2fs -i`).
    Ratio(u64),
    /// So many or a few more, to fill blocks of the table (`mke2fs -N`).
    Count(u64),
}

/// The parameters of a new file system. The default is what `mke2fs -t ext2` makes, with nobody's UUID: give one
/// before two file systems meet on one machine.
#[derive(Clone, Debug)]
pub struct Format {
    /// Bytes of a block; `None` for 1024 below 512 MiB and 4096 from there on.
    pub block_size: Option<BlockSize>,
    /// Bytes of an inode: a power of two from 128 to a block. Revision 0 has 128 whatever is asked.
    pub inode_size: u16,
    /// How many inodes.
    pub inodes: Inodes,
    /// Blocks of a group; `None` for as many as a bitmap block counts.
    pub blocks_per_group: Option<u32>,
    /// The revision. Revision 0 has no features, whatever is asked.
    pub revision: Revision,
    /// What it is to use.
    pub features: Features,
    /// Blocks kept for privileged users, percent of all.
    pub reserved_percent: f64,
    /// The label, at most 16 bytes.
    pub label: Vec<u8>,
    /// Where it says that it was last mounted, at most 63 bytes.
    pub last_mounted: Vec<u8>,
    /// The UUID.
    pub uuid: [u8; 16],
    /// Seed of the directory hash.
    pub hash_seed: [u32; 4],
    /// Owner and group of the root directory and of `lost+found`, where no tree says otherwise.
    pub root_owner: (u32, u32),
    /// When it was made, and every time in it that nothing else gives.
    pub created: Timestamp,
}

impl Default for Format {
    fn default() -> Self {
        Self {
            block_size: None,
            inode_size: 256,
            inodes: Inodes::BySize,
            blocks_per_group: None,
            revision: Revision::Dynamic,
            features: Self::default_features(),
            reserved_percent: 5.0,
            label: Vec::new(),
            last_mounted: Vec::new(),
            uuid: [0; 16],
            hash_seed: [0; 4],
            root_owner: (0, 0),
            created: Timestamp::default(),
        }
    }
}

/// Bytes of a MiB.
const MIB: u64 = 1 << 20;

impl Format {
    /// `ext_attr resize_inode dir_index filetype sparse_super large_file`.
    #[must_use]
    pub fn default_features() -> Features {
        Features {
            compat: CompatFeatures::EXT_ATTR | CompatFeatures::RESIZE_INODE | CompatFeatures::DIR_INDEX,
            incompat: IncompatFeatures::FILETYPE,
            ro_compat: RoCompatFeatures::SPARSE_SUPER | RoCompatFeatures::LARGE_FILE,
        }
    }

    /// The block size that a file system of `bytes` gets: the one asked for, or mke2fs's choice.
    #[must_use]
    pub fn block_size_for(&self, bytes: u64) -> BlockSize {
        let log = if bytes < 512 * MIB { 0 } else { 2 };
        self.block_size
            .or(BlockSize::from_s_log_block_size(log))
            .unwrap_or_else(|| unreachable!("0 and 2 are sizes"))
    }

    /// How many inodes are asked for in a file system of `blocks` blocks, before they are rounded to whole groups.
    #[must_use]
    pub fn inodes_for(&self, blocks: u64, block_size: BlockSize) -> u64 {
        let bytes = blocks.saturating_mul(block_size.bytes());
        let ratio = match self.inodes {
            Inodes::Count(count) => return count,
            Inodes::Ratio(ratio) => ratio.max(1),
            // The types floppy, small, default, big and huge of mke2fs.conf.
            Inodes::BySize if bytes < 3 * MIB => 8192,
            Inodes::BySize if bytes < 512 * MIB => 4096,
            Inodes::BySize if bytes < 4 * MIB * MIB => 16384,
            Inodes::BySize if bytes < 16 * MIB * MIB => 32768,
            Inodes::BySize => 65536,
        };
        // mke2fs makes no more than one inode a block unless it is told to.
        let by_size = self.inodes == Inodes::BySize;
        bytes / if by_size { ratio.max(block_size.bytes()) } else { ratio }
    }

    /// Where everything lies in a file system of `bytes` bytes, with at least `used_inodes` inodes besides the
    /// reserved ones. Blocks at the end that do not make a useful group are left out, as mke2fs leaves them out.
    ///
    /// # Errors
    /// `Format`, `TooSmall` and `TooFewInodes`.
    pub fn layout(&self, bytes: u64, used_inodes: u64) -> Result<Layout> {
        Layout::new(self, bytes, used_inodes)
    }

    /// The features that the file system will have, after what revision and size allow.
    pub(super) fn effective_features(&self) -> Features {
        match self.revision {
            Revision::Original => Features::default(),
            Revision::Dynamic => self.features,
        }
    }

    /// Bytes of an inode, after what the revision allows.
    #[must_use]
    pub fn effective_inode_size(&self) -> u16 {
        match self.revision {
            Revision::Original => GOOD_OLD_INODE_SIZE as u16,
            Revision::Dynamic => self.inode_size,
        }
    }

    /// The features that a new file system can have.
    #[must_use]
    pub fn makeable_features() -> Features {
        Features {
            compat: CompatFeatures::EXT_ATTR
                | CompatFeatures::RESIZE_INODE
                | CompatFeatures::DIR_INDEX
                | CompatFeatures::SPARSE_SUPER2
                | CompatFeatures::IMAGIC_INODES
                | CompatFeatures::DIR_PREALLOC,
            incompat: IncompatFeatures::FILETYPE | IncompatFeatures::META_BG,
            ro_compat: RoCompatFeatures::SPARSE_SUPER | RoCompatFeatures::LARGE_FILE,
        }
    }

    /// Refuses what contradicts itself whatever the size.
    pub(super) fn check(&self) -> Result<()> {
        let features = self.effective_features();
        let makeable = Self::makeable_features();
        let foreign = Features {
            compat: features.compat.difference(makeable.compat),
            incompat: features.incompat.difference(makeable.incompat),
            ro_compat: features.ro_compat.difference(makeable.ro_compat),
        };
        if foreign != Features::default() {
            return Error::format(format!(
                "an ext2 with these features is not made here: {}",
                foreign.to_names()
            ));
        }
        let resize = features.compat.contains(CompatFeatures::RESIZE_INODE);
        if resize && !features.ro_compat.contains(RoCompatFeatures::SPARSE_SUPER) {
            return Error::format("resize_inode needs sparse_super");
        }
        if resize && features.incompat.contains(IncompatFeatures::META_BG) {
            return Error::format("resize_inode and meta_bg exclude each other");
        }
        if !(0.0..=50.0).contains(&self.reserved_percent) {
            return Error::format(format!("{} % reserved: 0 to 50 are possible", self.reserved_percent));
        }
        let inode_size = u64::from(self.effective_inode_size());
        if !inode_size.is_power_of_two() || inode_size < GOOD_OLD_INODE_SIZE {
            return Error::format(format!("inodes of {inode_size} bytes: it is a power of two from 128"));
        }
        if self.label.len() > 16 || self.label.contains(&0) {
            return Error::format("a label has at most 16 bytes, none of them 0");
        }
        if self.last_mounted.len() > 63 || self.last_mounted.contains(&0) {
            return Error::format("the last-mounted path has at most 63 bytes, none of them 0");
        }
        Ok(())
    }
}
