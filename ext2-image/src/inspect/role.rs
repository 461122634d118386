//! As what a block is read.

use blockdev::BlockDevice;
use ext2_core::{InodeNr, Result};

use super::{Use, read_inode, whose};
use crate::fields::{Layout, Structure};

/// The structure that a block holds, by whose it is. An inode table is its first inode, a block of descriptors is that of
/// its first group; what is nobody's is contents.
///
/// # Errors
/// As [`whose`].
pub fn structure_of(dev: &dyn BlockDevice, layout: &Layout, block: u32) -> Result<Structure> {
    let uses = whose(dev, layout, &[block], &mut |_, _| {})?;
    let Some(found) = uses.get(&block).and_then(|uses| uses.first()) else {
        return Ok(Structure::Contents(block));
    };
    Ok(match *found {
        Use::Superblock(group) => Structure::Superblock(group),
        Use::BlockBitmap(group) => Structure::BlockBitmap(group),
        Use::InodeBitmap(group) => Structure::InodeBitmap(group),
        Use::InodeTable { inodes: (first, _), .. } => {
            InodeNr::new(first).map_or(Structure::Contents(block), Structure::Inode)
        }
        Use::Indirect { level, .. } => Structure::Indirect(block, level),
        Use::Xattrs { .. } => Structure::Xattrs(block),
        Use::Contents { inode, .. } => content_of(dev, layout, inode, block)?,
        _ => Structure::Contents(block),
    })
}

/// The structure of a block of an inode's contents: names of a directory, a block of the journal, or none.
///
/// # Errors
/// As [`read_inode`].
pub fn content_of(dev: &dyn BlockDevice, layout: &Layout, inode: InodeNr, block: u32) -> Result<Structure> {
    let (raw, _) = read_inode(dev, layout, inode)?;
    let is_journal = layout.superblock()?.journal_inode == Some(inode);
    Ok(match raw.i_mode.get() >> 12 {
        0o4 => Structure::Directory(block),
        _ if is_journal => Structure::Journal(block),
        // The pointers of the inode that keeps room for descriptors lead to blocks of such pointers.
        _ if inode.get() == 7 => Structure::Indirect(block, 1),
        _ => Structure::Contents(block),
    })
}
