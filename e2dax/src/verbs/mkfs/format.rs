//! Options about the file system itself.

use ext2_core::BlockSize;
use ext2_image::input::Owner;
use ext2_image::mkfs::{Format, Inodes, Revision};

use crate::text::{parse_bytes, parse_uuid};

/// What the file system is to be like.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "The file system")]
pub(super) struct FormatArgs {
    /// Bytes of a block, 1024 to 65536 [default: 4096, below 1 MiB 1024]
    #[arg(long, short = 'b', value_name = "BYTES", value_parser = parse_block_size)]
    block_size: Option<BlockSize>,

    /// Bytes of an inode, a power of two from 128
    #[arg(long, short = 'I', value_name = "BYTES")]
    inode_size: Option<u16>,

    /// Inodes
    #[arg(long, short = 'N', value_name = "COUNT", conflicts_with = "inode_ratio")]
    inodes: Option<u64>,

    /// One inode for this many bytes
    #[arg(long, short = 'i', value_name = "BYTES", value_parser = parse_bytes)]
    inode_ratio: Option<u64>,

    /// Blocks of a group
    #[arg(long, short = 'g', value_name = "COUNT")]
    blocks_per_group: Option<u32>,

    /// Revision of the format, 0 or 1
    #[arg(long, short = 'r', value_name = "NR", value_parser = clap::value_parser!(u8).range(0..=1))]
    revision: Option<u8>,

    /// Features to set, with ^ to clear, as mke2fs has them
    #[arg(long, short = 'O', value_name = "LIST", allow_hyphen_values = true)]
    features: Option<String>,

    /// Percent of the blocks that only root may take [default: 5]
    #[arg(long, short = 'm', value_name = "PERCENT")]
    reserved: Option<f64>,

    /// The label, at most 16 bytes
    #[arg(long, short = 'L', value_name = "TEXT")]
    pub(super) label: Option<String>,

    /// Where the image says it was last mounted
    #[arg(long, short = 'M', value_name = "PATH")]
    last_mounted: Option<String>,

    /// The UUID [default: derived from --seed and what goes in; random for an empty file system]
    #[arg(long, short = 'U', value_name = "UUID", value_parser = parse_uuid)]
    pub(super) uuid: Option<[u8; 16]>,

    /// What UUID and hash seed derive from, besides the contents
    #[arg(long, value_name = "TEXT")]
    pub(super) seed: Option<String>,

    /// Owner of the root directory and of lost+found
    #[arg(long, value_name = "USER:GROUP", value_parser = Owner::parse)]
    pub(super) root_owner: Option<Owner>,
}

fn parse_block_size(text: &str) -> Result<BlockSize, String> {
    BlockSize::new(parse_bytes(text)?).ok_or_else(|| "a block has 1024 to 65536 bytes, a power of two".into())
}

impl FormatArgs {
    /// Whether nobody said how many inodes there are to be.
    pub(super) fn inodes_are_open(&self) -> bool {
        self.inodes.is_none() && self.inode_ratio.is_none()
    }

    /// Changes what was asked for.
    ///
    /// # Errors
    /// The feature that is not known.
    pub(super) fn apply(&self, format: &mut Format) -> Result<(), String> {
        format.block_size = self.block_size.or(format.block_size);
        format.inode_size = self.inode_size.unwrap_or(format.inode_size);
        if let Some(count) = self.inodes {
            format.inodes = Inodes::Count(count);
        }
        if let Some(ratio) = self.inode_ratio {
            format.inodes = Inodes::Ratio(ratio);
        }
        format.blocks_per_group = self.blocks_per_group.or(format.blocks_per_group);
        match self.revision {
            Some(0) => format.revision = Revision::Original,
            Some(_) => format.revision = Revision::Dynamic,
            None => {}
        }
        if let Some(list) = &self.features {
            format.features.apply(list).map_err(|name| format!("there is no feature {name}"))?;
        }
        format.reserved_percent = self.reserved.unwrap_or(format.reserved_percent);
        if let Some(label) = &self.label {
            format.label = label.clone().into_bytes();
        }
        if let Some(path) = &self.last_mounted {
            format.last_mounted = path.clone().into_bytes();
        }
        format.uuid = self.uuid.unwrap_or(format.uuid);
        Ok(())
    }
}
