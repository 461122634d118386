//! Words for structures, and where a finding of check lies.

use blockdev::BlockDevice;
use ext2_core::{Ext2, FileBlock, GroupNr, InodeNr, OpenOptions};
use ext2_image::check::{Finding, Place};
use ext2_image::fields::{Field, Layout, PointsTo, Structure};

use crate::blocks::{Blocks, Use};

/// The structure of a word.
pub(crate) fn parse(what: &str) -> Option<Structure> {
    let mut parts = what.split(':');
    let name = parts.next()?;
    let mut number = || parts.next().map_or(Some(0), |text| text.parse::<u32>().ok());
    let first = number()?;
    let structure = match name {
        "sb" => Structure::Superblock(GroupNr::new(first)),
        "group" => Structure::Group(GroupNr::new(first)),
        "bbitmap" => Structure::BlockBitmap(GroupNr::new(first)),
        "ibitmap" => Structure::InodeBitmap(GroupNr::new(first)),
        "inode" => Structure::Inode(InodeNr::new(first)?),
        "ind" => Structure::Indirect(first, number()?.clamp(1, 3)),
        "dir" => Structure::Directory(first),
        "xattr" => Structure::Xattrs(first),
        "journal" => Structure::Journal(first),
        "block" => Structure::Contents(first),
        _ => return None,
    };
    Some(structure)
}

/// The word for a block, by what it is used for.
pub(crate) fn name_of_block(block: u32, blocks: &Blocks, layout: &Layout) -> String {
    let Some((used, _, group)) = blocks.get(block) else { return format!("block:{block}") };
    match used {
        Use::Superblock => format!("sb:{group}"),
        Use::Descriptors => {
            let first = layout.geometry().map_or(0, |geo| {
                let within = block.saturating_sub(geo.group_start(GroupNr::new(group)) + 1);
                within * geo.descriptors_per_block()
            });
            format!("group:{first}")
        }
        Use::BlockBitmap => format!("bbitmap:{group}"),
        Use::InodeBitmap => format!("ibitmap:{group}"),
        Use::Directory => format!("dir:{block}"),
        Use::Indirect => format!("ind:{block}:1"),
        Use::Double => format!("ind:{block}:2"),
        Use::Triple => format!("ind:{block}:3"),
        Use::Xattrs => format!("xattr:{block}"),
        Use::Journal => format!("journal:{block}"),
        _ => format!("block:{block}"),
    }
}

/// The word for what a field leads to.
pub(crate) fn target(what: Structure, field: &Field) -> Option<String> {
    match field.points_to? {
        PointsTo::Inode(0) | PointsTo::Block(0) | PointsTo::Byte(_) => None,
        PointsTo::Inode(nr) => Some(format!("inode:{nr}")),
        PointsTo::Block(nr) => Some(match (what, &*field.name) {
            (Structure::Group(group), "bg_block_bitmap") => format!("bbitmap:{}", group.get()),
            (Structure::Group(group), "bg_inode_bitmap") => format!("ibitmap:{}", group.get()),
            (Structure::Inode(_), "i_block[12]") => format!("ind:{nr}:1"),
            (Structure::Inode(_), "i_block[13]") => format!("ind:{nr}:2"),
            (Structure::Inode(_), "i_block[14]") => format!("ind:{nr}:3"),
            (Structure::Inode(_), "i_file_acl") => format!("xattr:{nr}"),
            (Structure::Indirect(_, level), _) if level > 1 => format!("ind:{nr}:{}", level - 1),
            // By what it is used for.
            _ => format!("?{nr}"),
        }),
    }
}

/// The device block of block `block` of a directory, where its map can be read.
fn directory_block(dev: &[u8], directory: u32, block: u64) -> Option<u32> {
    let device = blockdev::RamDevice::from_bytes(dev).ok()?;
    let fs = Ext2::open(std::sync::Arc::new(device), &OpenOptions::read_only()).ok()?;
    let inode = fs.inode(InodeNr::new(directory)?).ok()?;
    inode.map(FileBlock::new(block), 1).ok()?.target.map(|block| block.get())
}

/// Where a finding lies: the word for a structure, and fields of it.
pub(crate) fn of_finding(
    finding: &Finding,
    dev: &dyn BlockDevice,
    image: &dyn Fn() -> Vec<u8>,
    layout: &Layout,
    blocks: &Blocks,
) -> (String, Vec<String>) {
    let what = match finding.place {
        Place::Superblock => "sb".to_owned(),
        Place::Group(group) => of_group(finding, group),
        Place::Inode(nr) => format!("inode:{nr}"),
        Place::Entry { directory, block, .. } => match directory_block(&image(), directory, block) {
            Some(block) => format!("dir:{block}"),
            None => format!("inode:{directory}"),
        },
        Place::Block(nr) => match u32::try_from(nr) {
            Ok(nr) => name_of_block(nr, blocks, layout),
            Err(_) => "sb".to_owned(),
        },
        _ => "sb".to_owned(),
    };
    let fields = match parse(&what).map(|structure| layout.take(dev, structure)) {
        Some(Ok(taken)) => taken
            .fields
            .iter()
            .filter(|field| names(finding, field))
            .map(|f| f.name.clone().into_owned())
            .collect(),
        _ => Vec::new(),
    };
    (what, fields)
}

/// Findings about bitmaps are in the bitmap, others in the descriptor.
fn of_group(finding: &Finding, group: u32) -> String {
    let name = finding.kind.name();
    match () {
        () if name.starts_with("BlocksMarked") || name == "BlockBitmapPadding" => format!("bbitmap:{group}"),
        () if name.starts_with("InodesMarked") || name == "InodeBitmapPadding" => format!("ibitmap:{group}"),
        () => format!("group:{group}"),
    }
}

/// Whether a finding is about this field.
fn names(finding: &Finding, field: &Field) -> bool {
    if let Place::Entry { offset, .. } = finding.place {
        let offset = offset as usize;
        // An entry has a head of 8 bytes and its name behind.
        return field.offset >= offset && field.offset < offset + 8 + finding.name.len();
    }
    let text = finding.kind.text();
    let words = || text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let of_kind = match finding.kind.name() {
        "BlockBitmapPlace" | "BlockBitmapOverlap" => "bg_block_bitmap",
        "InodeBitmapPlace" | "InodeBitmapOverlap" => "bg_inode_bitmap",
        "InodeTablePlace" | "InodeTableOverlap" => "bg_inode_table",
        "Mode" | "RootNotDirectory" | "ReservedMode" | "JournalMode" | "ReallyDirectory" => "i_mode",
        "ZeroDtime" | "DtimeSet" | "LowDtime" | "RootDtime" => "i_dtime",
        "SpecialSize" | "Symlink" => "i_size",
        "Unattached" | "Unconnected" | "UnattachedEmpty" => "i_links_count",
        "JournalInode" => "s_journal_inum",
        _ => "",
    };
    let pointer = matches!(finding.kind.name(), "IllegalBlock" | "DoubleUse" | "TooBig")
        && field.name.starts_with("i_block[")
        && finding.found.is_some()
        && field.value.number() == finding.found;
    field.name == of_kind || pointer || words().any(|word| word == field.name)
}
