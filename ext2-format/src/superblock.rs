//! The superblock after validation.
//!
//! # Invariants
//! Whoever holds a [`Superblock`] may rely on: a block size of 1 to 64 KiB; an inode size that is a
//! power of two from 128 bytes to a block; at least one group; every count and place that geometry
//! needs within 32 bits and within the device.

use alloc::format;
use alloc::vec::Vec;

use crate::error::{Corrupt, Error, Incompatible, Object, Result};
use crate::features::{CompatFeatures, Features, IncompatFeatures, RoCompatFeatures};
use crate::raw::{GOOD_OLD_INODE_SIZE, MAGIC, RawSuperblock};
use crate::{BlockSize, InodeNr, Timestamp};

/// `s_state`: unmounted cleanly.
pub const STATE_VALID: u16 = 1;
/// `s_state`: errors were found.
pub const STATE_ERROR: u16 = 2;

/// What to do when the image turns out to be broken while it is in use (`s_errors`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Note it in the superblock and go on.
    Continue,
    /// Note it and refuse every later change.
    RemountRo,
}

/// The validated superblock of an image, as it was when it was read. Counts are of blocks and inodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Inodes, used and free.
    pub inodes_count: u32,
    /// Blocks, the first data block and all before it included.
    pub blocks_count: u32,
    /// Blocks that only privileged callers may take.
    pub reserved_blocks: u32,
    /// Free blocks.
    pub free_blocks: u32,
    /// Free inodes.
    pub free_inodes: u32,
    /// The block that holds the superblock: 1 with blocks of 1 KiB, otherwise 0.
    pub first_data_block: u32,
    /// Bytes of a block.
    pub block_size: BlockSize,
    /// Blocks of a group; the last group may have fewer.
    pub blocks_per_group: u32,
    /// Inodes of every group.
    pub inodes_per_group: u32,
    /// Bytes of an inode in the table.
    pub inode_size: u16,
    /// The first inode that is not reserved.
    pub first_ino: u32,
    /// Revision, 0 or 1.
    pub revision: u32,
    /// What the image uses.
    pub features: Features,
    /// Whether it was unmounted cleanly.
    pub clean: bool,
    /// Whether errors were found in it.
    pub has_errors: bool,
    /// What to do on errors.
    pub on_error: OnError,
    /// The last mount.
    pub mounted: Timestamp,
    /// The last write of the superblock.
    pub written: Timestamp,
    /// The last check.
    pub checked: Timestamp,
    /// When the file system was made, where that was noted.
    pub created: Timestamp,
    /// Mounts since the last check.
    pub mount_count: u16,
    /// Mounts after which a check is due; 0 or less for never.
    pub max_mount_count: i16,
    /// Seconds after which a check is due; 0 for never.
    pub check_interval: u32,
    /// The system that made it: 0 is Linux.
    pub creator_os: u32,
    /// The user who may take reserved blocks.
    pub reserved_uid: u16,
    /// The group who may take reserved blocks.
    pub reserved_gid: u16,
    /// 16 bytes that tell this file system from others.
    pub uuid: [u8; 16],
    /// The label, without trailing zeros.
    pub label: Vec<u8>,
    /// Where it was last mounted, without trailing zeros.
    pub last_mounted: Vec<u8>,
    /// Spare descriptor blocks after the descriptors, for growth.
    pub reserved_gdt_blocks: u16,
    /// The journal's inode, where there is one.
    pub journal_inode: Option<InodeNr>,
    /// First of a list of inodes to truncate or delete after a crash.
    pub last_orphan: u32,
    /// Seed of the directory hash.
    pub hash_seed: [u32; 4],
    /// Default directory hash.
    pub hash_version: u8,
    /// `s_default_mount_opts`.
    pub default_mount_options: u32,
    /// The first meta group whose descriptors lie in it (with `meta_bg`).
    pub first_meta_bg: u32,
    /// The groups with backups under `sparse_super2`; 0 for none.
    pub backup_groups: [u32; 2],
    /// Bytes of extra inode fields that new inodes get.
    pub want_extra_isize: u16,
    /// The group in which this copy of the superblock lies.
    pub group_nr: u16,
}

fn corrupt<T>(what: impl Into<alloc::string::String>) -> Result<T> {
    Err(Error::Corrupt(Corrupt::new(Object::Superblock, what)))
}

fn trimmed(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    bytes.get(..end).unwrap_or_default().to_vec()
}

impl Superblock {
    /// Validates `raw` against a device of `device_size` bytes.
    ///
    /// # Errors
    /// `Corrupt` when it is no superblock or contradicts itself, `Incompatible` when it uses what we
    /// do not read. Linux: `ext2_fill_super`.
    pub fn from_raw(raw: &RawSuperblock, device_size: u64, ignore_journal: bool) -> Result<Self> {
        if raw.s_magic.get() != MAGIC {
            return corrupt(format!("magic number is {:#06x} and not {MAGIC:#06x}", raw.s_magic.get()));
        }
        let revision = raw.s_rev_level.get();
        if revision > 1 {
            return Err(Incompatible::Revision(revision).into());
        }
        let features = Features {
            compat: CompatFeatures::from_bits_retain(raw.s_feature_compat.get()),
            incompat: IncompatFeatures::from_bits_retain(raw.s_feature_incompat.get()),
            ro_compat: RoCompatFeatures::from_bits_retain(raw.s_feature_ro_compat.get()),
        };
        features.check_readable(ignore_journal)?;
        let Some(block_size) = BlockSize::from_s_log_block_size(raw.s_log_block_size.get()) else {
            return corrupt(format!("block size is 1024 << {}", raw.s_log_block_size.get()));
        };
        let (inode_size, first_ino) = match revision {
            0 => (GOOD_OLD_INODE_SIZE as u16, 11),
            _ => (raw.s_inode_size.get(), raw.s_first_ino.get()),
        };
        let sb = Self {
            inodes_count: raw.s_inodes_count.get(),
            blocks_count: raw.s_blocks_count.get(),
            reserved_blocks: raw.s_r_blocks_count.get(),
            free_blocks: raw.s_free_blocks_count.get(),
            free_inodes: raw.s_free_inodes_count.get(),
            first_data_block: raw.s_first_data_block.get(),
            block_size,
            blocks_per_group: raw.s_blocks_per_group.get(),
            inodes_per_group: raw.s_inodes_per_group.get(),
            inode_size,
            first_ino,
            revision,
            features,
            clean: raw.s_state.get() & STATE_VALID != 0,
            has_errors: raw.s_state.get() & STATE_ERROR != 0,
            on_error: if raw.s_errors.get() == 1 { OnError::Continue } else { OnError::RemountRo },
            mounted: Timestamp::decode(raw.s_mtime.get(), None),
            written: Timestamp::decode(raw.s_wtime.get(), None),
            checked: Timestamp::decode(raw.s_lastcheck.get(), None),
            created: Timestamp::decode(raw.s_mkfs_time.get(), None),
            mount_count: raw.s_mnt_count.get(),
            max_mount_count: raw.s_max_mnt_count.get().cast_signed(),
            check_interval: raw.s_checkinterval.get(),
            creator_os: raw.s_creator_os.get(),
            reserved_uid: raw.s_def_resuid.get(),
            reserved_gid: raw.s_def_resgid.get(),
            uuid: raw.s_uuid,
            label: trimmed(&raw.s_volume_name),
            last_mounted: trimmed(&raw.s_last_mounted),
            reserved_gdt_blocks: if features.compat.contains(CompatFeatures::RESIZE_INODE) {
                raw.s_reserved_gdt_blocks.get()
            } else {
                0
            },
            journal_inode: InodeNr::new(raw.s_journal_inum.get())
                .filter(|_| features.compat.contains(CompatFeatures::HAS_JOURNAL)),
            last_orphan: raw.s_last_orphan.get(),
            hash_seed: raw.s_hash_seed.map(|word| word.get()),
            hash_version: raw.s_def_hash_version,
            default_mount_options: raw.s_default_mount_opts.get(),
            first_meta_bg: raw.s_first_meta_bg.get(),
            backup_groups: raw.s_backup_bgs.map(|word| word.get()),
            want_extra_isize: raw.s_want_extra_isize.get(),
            group_nr: raw.s_block_group_nr.get(),
        };
        sb.check(device_size)?;
        Ok(sb)
    }

    fn check(&self, device_size: u64) -> Result<()> {
        let bits = self.block_size.bytes() * 8;
        let inode_size = u64::from(self.inode_size);
        if !inode_size.is_power_of_two()
            || inode_size < GOOD_OLD_INODE_SIZE
            || inode_size > self.block_size.bytes()
        {
            return corrupt(format!("inode size is {inode_size}"));
        }
        let inodes_per_block = self.block_size.bytes() / inode_size;
        let ipg = u64::from(self.inodes_per_group);
        if ipg < inodes_per_block || ipg > bits {
            return corrupt(format!("{ipg} inodes per group"));
        }
        let table_blocks = ipg.div_ceil(inodes_per_block);
        let bpg = u64::from(self.blocks_per_group);
        if bpg > bits || bpg <= table_blocks + 3 {
            return corrupt(format!("{bpg} blocks per group"));
        }
        let expected_first = u32::from(self.block_size.bytes() == 1024);
        if self.first_data_block != expected_first {
            return corrupt(format!("first data block is {}", self.first_data_block));
        }
        if self.blocks_count <= self.first_data_block {
            return corrupt(format!("{} blocks", self.blocks_count));
        }
        let bytes = u64::from(self.blocks_count) * self.block_size.bytes();
        if bytes > device_size {
            return corrupt(format!("{bytes} bytes of blocks on a device of {device_size}"));
        }
        let groups = u64::from(self.blocks_count - self.first_data_block).div_ceil(bpg);
        if groups * ipg != u64::from(self.inodes_count) {
            return corrupt(format!("{} inodes, but {groups} groups of {ipg}", self.inodes_count));
        }
        if self.first_ino < 11 || self.first_ino > self.inodes_count {
            return corrupt(format!("first inode is {} of {}", self.first_ino, self.inodes_count));
        }
        Ok(())
    }
}
