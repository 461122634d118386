//! Which block is whose (debugfs: `icheck`).

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use blockdev::BlockDevice;
use ext2_core::raw::RawInode;
use ext2_core::{GroupNr, InodeNr, Result};
use zerocopy::FromBytes;

use super::table::each_inode;
use super::{Budget, Step, is_set, visit};
use crate::fields::Layout;

/// What a block is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It lies before the first group.
    Boot,
    /// The superblock, or its copy in a group.
    Superblock(GroupNr),
    /// Descriptors, as the copy of a group.
    Descriptors(GroupNr),
    /// Room for descriptors to grow.
    ReservedDescriptors(GroupNr),
    /// The bitmap of a group's blocks.
    BlockBitmap(GroupNr),
    /// The bitmap of a group's inodes.
    InodeBitmap(GroupNr),
    /// The inode table of a group.
    InodeTable {
        /// Whose table.
        group: GroupNr,
        /// The first inode in the block, and the last.
        inodes: (u32, u32),
    },
    /// Contents of a file, or names of a directory.
    Contents {
        /// Whose.
        inode: InodeNr,
        /// Which block of it.
        at: u64,
    },
    /// Pointers of a file.
    Indirect {
        /// Whose.
        inode: InodeNr,
        /// Levels above the contents.
        level: u32,
    },
    /// Extended attributes of an inode.
    Xattrs {
        /// Whose.
        inode: InodeNr,
    },
    /// Contents or pointers of an inode that is deleted.
    OfDeleted {
        /// Whose.
        inode: InodeNr,
    },
    /// Nobody's, and free in the bitmap.
    Free,
    /// Nobody's, and used in the bitmap.
    Lost,
}

impl Use {
    /// A word for scripts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Superblock(_) => "superblock",
            Self::Descriptors(_) => "descriptors",
            Self::ReservedDescriptors(_) => "reserved-descriptors",
            Self::BlockBitmap(_) => "block-bitmap",
            Self::InodeBitmap(_) => "inode-bitmap",
            Self::InodeTable { .. } => "inode-table",
            Self::Contents { .. } => "contents",
            Self::Indirect { .. } => "indirect",
            Self::Xattrs { .. } => "xattrs",
            Self::OfDeleted { .. } => "deleted",
            Self::Free => "free",
            Self::Lost => "lost",
        }
    }

    /// The inode that it belongs to.
    #[must_use]
    pub fn inode(&self) -> Option<InodeNr> {
        match self {
            Self::Contents { inode, .. }
            | Self::Indirect { inode, .. }
            | Self::Xattrs { inode }
            | Self::OfDeleted { inode } => Some(*inode),
            _ => None,
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boot => f.write_str("before the file system, for a boot loader"),
            Self::Superblock(group) if group.get() == 0 => f.write_str("superblock"),
            Self::Superblock(group) => write!(f, "copy of the superblock in group {group}"),
            Self::Descriptors(group) if group.get() == 0 => f.write_str("group descriptors"),
            Self::Descriptors(group) => write!(f, "copy of the group descriptors in group {group}"),
            Self::ReservedDescriptors(group) => write!(f, "room for descriptors in group {group}"),
            Self::BlockBitmap(group) => write!(f, "block bitmap of group {group}"),
            Self::InodeBitmap(group) => write!(f, "inode bitmap of group {group}"),
            Self::InodeTable { group, inodes: (from, to) } => {
                write!(f, "inode table of group {group}, inodes {from} to {to}")
            }
            Self::Contents { inode, at } => write!(f, "block {at} of inode {inode}"),
            Self::Indirect { inode, level } => {
                let kind = ["", "double ", "triple "].get(*level as usize - 1).copied().unwrap_or_default();
                write!(f, "{kind}indirect block of inode {inode}")
            }
            Self::Xattrs { inode } => write!(f, "attributes of inode {inode}"),
            Self::OfDeleted { inode } => write!(f, "was inode {inode}'s, which is deleted"),
            Self::Free => f.write_str("free"),
            Self::Lost => f.write_str("marked as used, and nobody's"),
        }
    }
}

/// Whose each of the blocks is; a block that several inodes have, has several uses. One pass over all inodes; `progress` is
/// told of groups done.
///
/// # Errors
/// A superblock that is none; the device's.
pub fn whose(
    dev: &dyn BlockDevice,
    layout: &Layout,
    blocks: &[u32],
    progress: &mut dyn FnMut(u32, u32),
) -> Result<BTreeMap<u32, Vec<Use>>> {
    let geo = layout.geometry()?;
    let mut all: BTreeMap<u32, Vec<Use>> = blocks.iter().map(|&block| (block, Vec::new())).collect();
    let mut add = |block: u32, what: Use| {
        if let Some(uses) = all.get_mut(&block)
            && !uses.contains(&what)
        {
            uses.push(what);
        }
    };
    for block in blocks.iter().filter(|&&block| block < geo.first_data_block) {
        add(*block, Use::Boot);
    }
    for group in geo.group_numbers() {
        fixed(dev, layout, group, &mut add)?;
    }
    let mut budget = Budget::of(geo);
    for group in geo.group_numbers() {
        progress(group.get(), geo.groups);
        each_inode(dev, layout, group, &mut |nr, inode| {
            of_inode(dev, layout, nr, inode, &mut budget, &mut add)
        })?;
    }
    for (&block, uses) in &mut all {
        if uses.is_empty() && block < geo.blocks_count {
            let used = is_set(dev, layout, block)?;
            uses.push(if used { Use::Lost } else { Use::Free });
        }
    }
    Ok(all)
}

/// What lies at a fixed place of a group, and where its descriptor says.
fn fixed(
    dev: &dyn BlockDevice,
    layout: &Layout,
    group: GroupNr,
    add: &mut impl FnMut(u32, Use),
) -> Result<()> {
    let geo = layout.geometry()?;
    let (start, overhead) = (geo.group_start(group), geo.group_overhead(group));
    let has_super = u32::from(geo.has_super(group));
    if has_super != 0 {
        add(start, Use::Superblock(group));
    }
    let reserved = if has_super != 0 { u32::from(geo.reserved_gdt_blocks) } else { 0 };
    for nr in has_super..overhead {
        let is_room = nr >= overhead.saturating_sub(reserved);
        add(
            start.saturating_add(nr),
            if is_room { Use::ReservedDescriptors(group) } else { Use::Descriptors(group) },
        );
    }
    let desc = layout.descriptor(dev, group)?;
    add(desc.bg_block_bitmap.get(), Use::BlockBitmap(group));
    add(desc.bg_inode_bitmap.get(), Use::InodeBitmap(group));
    let per_block = (geo.block_size.bytes() / u64::from(geo.inode_size)) as u32;
    let before = group.get() * geo.inodes_per_group;
    for nr in 0..geo.inode_table_blocks() {
        let first = before + nr * per_block + 1;
        let last = (first + per_block - 1).min(before + geo.inodes_per_group);
        add(desc.bg_inode_table.get().saturating_add(nr), Use::InodeTable { group, inodes: (first, last) });
    }
    Ok(())
}

/// What an inode has.
fn of_inode(
    dev: &dyn BlockDevice,
    layout: &Layout,
    nr: InodeNr,
    bytes: &[u8],
    budget: &mut Budget,
    add: &mut impl FnMut(u32, Use),
) -> Result<()> {
    let geo = layout.geometry()?;
    let Ok((raw, _)) = RawInode::read_from_prefix(bytes) else { return Ok(()) };
    let is_reserved = nr.get() < geo.first_ino;
    let is_deleted = raw.i_links_count.get() == 0 && !is_reserved;
    if is_deleted && (raw.i_mode.get() == 0 || raw.i_dtime.get() == 0) {
        return Ok(());
    }
    let what = |live: Use| if is_deleted { Use::OfDeleted { inode: nr } } else { live };
    let acl = raw.i_file_acl.get();
    if acl != 0 {
        add(acl, what(Use::Xattrs { inode: nr }));
    }
    visit(dev, geo, bytes, budget, &mut |step| match step {
        Step::Indirect { level, block, .. } => add(block, what(Use::Indirect { inode: nr, level })),
        Step::Run { first, count, block } => {
            for offset in 0..count {
                // OK to cast: a run of blocks with numbers of 32 bits.
                add(
                    block.saturating_add(offset as u32),
                    what(Use::Contents { inode: nr, at: first + offset }),
                );
            }
        }
    })
}

/// The uses of a block as a sentence.
impl Use {
    /// All of several uses.
    #[must_use]
    pub fn join(uses: &[Self]) -> String {
        let texts: Vec<String> = uses.iter().map(|one| alloc::format!("{one}")).collect();
        texts.join("; ")
    }
}
