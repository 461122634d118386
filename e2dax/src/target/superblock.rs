//! Which superblock an image is read by.

use blockdev::BlockDevice;
use ext2_core::{BlockSize, GroupNr, SuperblockAt};
use ext2_image::repair::{Backup, backup_in_block, find_backup, has_superblock};

/// Which superblock is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SuperblockFrom {
    /// The primary one, or the first backup that is found.
    Auto,
    /// In a block, of the size that it says itself.
    Block(u32),
    /// At a place.
    At(SuperblockAt),
}

impl SuperblockFrom {
    /// Where it lies on a device; `None` where there is none.
    pub(crate) fn place(self, device: &dyn BlockDevice) -> Option<SuperblockAt> {
        let at = |backup: Backup| {
            let size = BlockSize::new(backup.block_size)?;
            Some(SuperblockAt::Block { block: u32::try_from(backup.block).ok()?, size })
        };
        match self {
            Self::At(at) => Some(at),
            Self::Auto if has_superblock(device) => Some(SuperblockAt::Primary),
            Self::Auto => find_backup(device).and_then(at),
            Self::Block(block) => backup_in_block(device, block.into()).and_then(at),
        }
    }

    /// The block in which it lies, for a place whose size of blocks is known or found.
    pub(crate) fn block(self, device: &dyn BlockDevice) -> Option<u64> {
        match self {
            Self::Auto => find_backup(device).map(|backup| backup.block),
            Self::Block(block) | Self::At(SuperblockAt::Block { block, .. }) => Some(block.into()),
            Self::At(SuperblockAt::Group(group)) => (0..=6u32).find_map(|log| {
                let size = 1024u64 << log;
                let block = u64::from(log == 0) + u64::from(group.get()) * size * 8;
                backup_in_block(device, block)
                    .filter(|backup| backup.block_size == size && backup.group == group.get())
                    .map(|backup| backup.block)
            }),
            Self::At(SuperblockAt::Primary) => None,
        }
    }
}

/// `auto`, `group:N`, `BLOCK`, or `BLOCK:SIZE`.
pub(crate) fn parse_superblock(text: &str) -> Result<SuperblockFrom, String> {
    let number = |text: &str| text.parse::<u32>().map_err(|error| format!("{text}: {error}"));
    if text == "auto" {
        return Ok(SuperblockFrom::Auto);
    }
    let Some((left, right)) = text.split_once(':') else {
        return number(text)
            .map(SuperblockFrom::Block)
            .map_err(|_| "none of auto, group:N, BLOCK and BLOCK:SIZE".to_owned());
    };
    if left == "group" {
        return Ok(SuperblockFrom::At(SuperblockAt::Group(GroupNr::new(number(right)?))));
    }
    let size =
        BlockSize::new(u64::from(number(right)?)).ok_or("a block has 1024 to 65536 bytes, a power of two")?;
    Ok(SuperblockFrom::At(SuperblockAt::Block { block: number(left)?, size }))
}
