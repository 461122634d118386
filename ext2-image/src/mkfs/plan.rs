//! From a tree to a layout: what every file takes, how large the file system has to be, which inode is whose.
//!
//! # Invariants
//! 1. A plan depends on the tree's sorted names and attributes, the format and the options: on nothing else.
//! 2. What the plan counts is what [`write`](Plan::write) takes.

use alloc::vec;
use alloc::vec::Vec;

use super::options::{AlignChoice, LostAndFound, Options, Size};
use super::space::{Units, fits};
use super::tree::NodeAttrs;
use super::{Align, Body, Error, Format, Inodes, Layout, Needs, NodeId, Result, Tree};
use super::{dirs, layout, lost, map, xattr};
use crate::UNIT;
use crate::manifest::ByteSpan;
use ext2_core::raw::GOOD_OLD_INODE_SIZE;
use ext2_core::rules::Shape;
use ext2_core::rules::max_file_size;
use ext2_core::{BlockSize, DeviceNr, FileKind, Timestamp};
use ext2_core::{CompatFeatures, RoCompatFeatures};

/// Bytes from which on files are aligned unless something else is asked.
const ALIGN_FROM: u64 = 64 << 20;

/// The name of the directory for what e2fsck finds.
const LOST_AND_FOUND_NAME: &[u8] = b"lost+found";

/// A part of a file that is stored in one piece of one supply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) count: u64,
    pub(super) aligned: bool,
}

/// A file system that is settled down to the last block, but not written.
///
/// ```
/// use ext2_core::{Ext2, OpenOptions, Timestamp};
/// use ext2_image::mkfs::{
///     Body, DeviceOutput, Format, Fresh, MemoryContents, NodeAttrs, NodeId, Options, Plan, Tree,
/// };
///
/// let attrs = |mode| NodeAttrs::new(mode, (0, 0), Timestamp::from_secs(1_700_000_000));
/// let mut contents = MemoryContents::default();
/// let handle = contents.push(b"welcome".to_vec());
/// let mut tree = Tree::new(attrs(0o755));
/// tree.add(NodeId::ROOT, b"motd", attrs(0o644), Body::File { size: 7, data: None, handle })?;
///
/// let plan = Plan::new(tree, &Format::default(), &Options::default())?;
/// let device = blockdev::RamDevice::new(plan.bytes())?;
/// plan.write(&mut contents, &DeviceOutput::new(&device, Fresh::Zeros), &mut |_| ())?;
/// assert_eq!(Ext2::open(device, &OpenOptions::read_only())?.read("/motd")?, b"welcome");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Plan {
    pub(super) tree: Tree,
    pub(super) layout: Layout,
    pub(super) units: Option<Units>,
    pub(super) needs: Needs,
    /// The inode number of each node.
    pub(super) numbers: Vec<u32>,
    /// The node of each inode from 11 on.
    pub(super) order: Vec<NodeId>,
    pub(super) lost_and_found: Option<NodeId>,
    bytes: u64,
    packed: u64,
    payload: u64,
    created: Timestamp,
}

impl Plan {
    /// Settles everything. The block size is 4 KiB unless the format says otherwise: the only one that DAX takes.
    ///
    /// # Errors
    /// `Format`, `TooSmall` and `TooFewInodes` (which say what is needed), `Entry` for a file that ext2 cannot hold.
    pub fn new(mut tree: Tree, format: &Format, options: &Options) -> Result<Self> {
        tree.sort()?;
        // Whole seconds in 32 bits, which is all that the superblock keeps of it.
        let created = format.created.sec.clamp(i32::MIN.into(), i32::MAX.into());
        let created = Timestamp::from_secs(created);
        let mut lost_and_found =
            tree.children(NodeId::ROOT).find(|(name, _)| *name == LOST_AND_FOUND_NAME).map(|(_, node)| node);
        if lost_and_found.is_none() && options.lost_and_found == LostAndFound::Always {
            let attrs = NodeAttrs::new(0o700, format.root_owner, created);
            lost_and_found = Some(tree.add(NodeId::ROOT, LOST_AND_FOUND_NAME, attrs, Body::Directory)?);
            tree.sort()?;
        }
        lost_and_found = lost_and_found.filter(|&node| *tree.body(node) == Body::Directory);
        let block_size = match (format.block_size, BlockSize::new(4096)) {
            (Some(size), _) | (None, Some(size)) => size,
            (None, None) => unreachable!("4096 is a block size"),
        };
        let format = Format { block_size: Some(block_size), ..format.clone() };
        format.check()?;
        let (numbers, order) = number(&tree, lost_and_found);
        lost::attributes(&mut tree, &format, block_size);
        lost::flags(&mut tree);
        lost::times(&mut tree, &format);
        let counter = Counter { tree: &tree, format: &format, block_size, lost_and_found };
        let search = Search { format: &format, options, block_size, inodes: order.len() as u64 };

        let packed_needs = counter.needs(None)?;
        let packed = search.solve(None, packed_needs);
        let aligned = match options.align {
            AlignChoice::Off => false,
            AlignChoice::Units => true,
            AlignChoice::Auto => packed.is_ok() && has_units(&tree),
        };
        let solve_aligned = || {
            let units = Units::new(Align::Units { device_offset: options.device_offset }, block_size)?;
            let needs = counter.needs(units)?;
            search.solve(units, needs).map(|(layout, bytes)| (units, needs, layout, bytes))
        };
        let packed_bytes = packed.as_ref().map_or(0, |found| found.1);
        let off =
            |packed: Result<(Layout, u64)>| packed.map(|(layout, bytes)| (None, packed_needs, layout, bytes));
        let (units, needs, layout, bytes) = match (aligned, options.align) {
            (false, _) => off(packed)?,
            (true, AlignChoice::Units) => solve_aligned()?,
            (true, _) => match solve_aligned() {
                // Below 64 MiB only where it is free.
                Ok(found) if packed_bytes >= ALIGN_FROM || found.3 <= packed_bytes => found,
                Ok(_) => off(packed)?,
                Err(error) => {
                    if packed_bytes >= ALIGN_FROM {
                        log::warn!("files are not aligned to 2 MiB: {error}");
                    }
                    off(packed)?
                }
            },
        };
        let payload = tree.ids().map(|node| size_of_body(tree.body(node))).sum();
        let packed = packed_bytes;
        Ok(Self {
            tree,
            layout,
            units,
            needs,
            numbers,
            order,
            lost_and_found,
            bytes,
            packed,
            payload,
            created,
        })
    }

    /// Bytes that the file system is to be written to; a multiple of 2 MiB unless a size was given.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes in files.
    #[must_use]
    pub fn payload(&self) -> u64 {
        self.payload
    }

    /// What the alignment costs, in bytes: how much smaller the file system would be without. 0 for a given size.
    #[must_use]
    pub fn alignment_cost(&self) -> u64 {
        if self.units.is_some() { self.bytes.saturating_sub(self.packed) } else { 0 }
    }

    /// Whether files are laid out for 2 MiB pages, and how many whole units they have.
    #[must_use]
    pub fn aligned_units(&self) -> Option<u64> {
        self.units.map(|_| self.needs.units)
    }

    pub(super) fn created(&self) -> Timestamp {
        self.created
    }

    /// Where everything lies.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The tree that is written, `lost+found` included.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }
}

fn size_of_body(body: &Body) -> u64 {
    match body {
        Body::File { size, .. } => *size,
        _ => 0,
    }
}

/// Whether a file has whole units of 2 MiB.
fn has_units(tree: &Tree) -> bool {
    tree.ids().any(|node| size_of_body(tree.body(node)) >= UNIT)
}

/// Inode numbers in the order of names: all of a directory next to each other, then its directories.
fn number(tree: &Tree, lost_and_found: Option<NodeId>) -> (Vec<u32>, Vec<NodeId>) {
    let mut numbers = vec![0; tree.len()];
    let mut order = Vec::with_capacity(tree.len());
    numbers[NodeId::ROOT.index()] = ext2_core::InodeNr::ROOT.get();
    let mut give = |node: NodeId| {
        if numbers[node.index()] == 0 {
            // As many inodes as nodes, which 32 bits count; `layout` refuses what is too much.
            numbers[node.index()] = layout::FIRST_INO.saturating_add(order.len() as u32);
            order.push(node);
        }
    };
    lost_and_found.into_iter().for_each(&mut give);
    for directory in tree.directories() {
        tree.children(directory).for_each(|(_, node)| give(node));
    }
    (numbers, order)
}

/// Finds a layout that has room.
struct Search<'a> {
    format: &'a Format,
    options: &'a Options,
    block_size: BlockSize,
    /// Inodes besides the reserved ones.
    inodes: u64,
}

impl Search<'_> {
    fn solve(&self, units: Option<Units>, needs: Needs) -> Result<(Layout, u64)> {
        match self.options.size {
            Size::Bytes(given) => match self.format.layout(given, self.inodes) {
                Ok(layout) if fits(&layout, units, needs) => Ok((layout, given)),
                Ok(_) | Err(Error::TooSmall { .. }) => match self.with_fewer_inodes(given, units, needs) {
                    Some(layout) => Ok((layout, given)),
                    None => {
                        let format = self.with_inodes(self.least_inodes());
                        let (layout, needed) = self.smallest(&format, units, needs, false)?;
                        // A few blocks less may have room where all have not: more descriptors may take more than
                        // they give.
                        if needed <= given {
                            Ok((layout, given))
                        } else {
                            Err(Error::TooSmall { needed, given })
                        }
                    }
                },
                Err(error) => Err(error),
            },
            Size::Auto { slack } => {
                let spare = self.options.spare;
                let in_units = needs.units.saturating_mul(units.map_or(0, |units| units.blocks));
                let taken = in_units.saturating_add(needs.filler);
                let part =
                    u64::try_from(u128::from(taken) * u128::from(spare.percent) / 100).unwrap_or(u64::MAX);
                let blocks = self.block_size.blocks_for(slack).saturating_add(part);
                if blocks > u64::from(u32::MAX) {
                    return Error::format("more is to be left free than ext2 counts in 32 bits of blocks");
                }
                let mut format = self.format.clone();
                if format.inodes == Inodes::BySize {
                    // As many as there are files, and for the slack what a file system of its size would have.
                    let by_room = format.inodes_for(blocks, self.block_size);
                    let by_count = self.inodes.saturating_mul(spare.percent.into()) / 100;
                    let more = by_room.max(by_count).max(spare.inodes).max(self.inodes / 16 + 16);
                    format.inodes = Inodes::Count(self.least_inodes() + more);
                }
                let slack = Needs { units: 0, filler: blocks };
                let mut all = needs;
                all += slack;
                self.smallest(&format, units, all, blocks > 0)
            }
        }
    }

    /// Inodes that the files take, the reserved ones included.
    fn least_inodes(&self) -> u64 {
        u64::from(layout::FIRST_INO - 1) + self.inodes.max(1)
    }

    /// The format with this number of inodes, where nobody asked for another.
    fn with_inodes(&self, count: u64) -> Format {
        let by_size = self.format.inodes == Inodes::BySize;
        let inodes = if by_size { Inodes::Count(count) } else { self.format.inodes };
        Format { inodes, ..self.format.clone() }
    }

    /// The layout of a given size with as many inodes as leave room for the files, where nobody asked for a number.
    fn with_fewer_inodes(&self, given: u64, units: Option<Units>, needs: Needs) -> Option<Layout> {
        if self.format.inodes != Inodes::BySize {
            return None;
        }
        let at = |count| {
            let layout = self.with_inodes(count).layout(given, self.inodes).ok();
            layout.filter(|found| fits(found, units, needs))
        };
        let mut low = self.least_inodes();
        let mut high = self.format.inodes_for(given / self.block_size.bytes(), self.block_size);
        let mut best = at(low)?;
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            match at(middle) {
                Some(more) => (best, low) = (more, middle),
                None => high = middle,
            }
        }
        Some(best)
    }

    /// The smallest multiple of 2 MiB that has room: found by halving, for room grows with size. `promised`: whether
    /// room for others than root is part of what is needed, so that what is reserved for root comes on top.
    fn smallest(
        &self,
        format: &Format,
        units: Option<Units>,
        needs: Needs,
        promised: bool,
    ) -> Result<(Layout, u64)> {
        let at = |steps: u64| -> Result<Option<(Layout, u64)>> {
            let bytes = steps * UNIT;
            match format.layout(bytes, self.inodes) {
                Ok(layout) => {
                    let reserved = if promised { layout.reserved_blocks() } else { 0 };
                    let mut all = needs;
                    all += Needs { units: 0, filler: reserved.into() };
                    Ok(fits(&layout, units, all).then_some((layout, bytes)))
                }
                Err(Error::TooSmall { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let unit_blocks = units.map_or(0, |units| units.blocks);
        let blocks = needs.units.saturating_mul(unit_blocks).saturating_add(needs.filler);
        let least = blocks.saturating_mul(self.block_size.bytes());
        let mut low = (least / UNIT).max(1);
        let mut found = at(low);
        // Inodes may be too many for a size that is far too small: larger ones are tried before that is believed.
        let mut step = (low / 64).max(1);
        while !matches!(found, Ok(Some(_))) {
            let next = low + step;
            if next.saturating_mul(UNIT) / self.block_size.bytes() > u64::from(u32::MAX) {
                found?;
                return Error::format("the files take more blocks than ext2 counts in 32 bits");
            }
            found = at(next);
            if matches!(found, Ok(Some(_))) {
                break;
            }
            (low, step) = (next, step * 2);
        }
        let Ok(Some(mut best)) = found else { unreachable!("the loop ends when there is one") };
        let mut high = best.1 / UNIT;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match at(middle) {
                Ok(Some(smaller)) => (best, high) = (smaller, middle),
                _ => low = middle,
            }
        }
        Ok(best)
    }
}

/// Counts what the files of a tree take.
struct Counter<'a> {
    tree: &'a Tree,
    format: &'a Format,
    block_size: BlockSize,
    lost_and_found: Option<NodeId>,
}

impl Counter<'_> {
    fn needs(&self, units: Option<Units>) -> Result<Needs> {
        let resize = self.format.effective_features().compat.contains(CompatFeatures::RESIZE_INODE);
        let mut needs = Needs { units: 0, filler: u64::from(resize) };
        for node in self.tree.ids() {
            needs += self.needs_of(node, units)?;
        }
        Ok(needs)
    }

    fn needs_of(&self, node: NodeId, units: Option<Units>) -> Result<Needs> {
        let refuse = |what: &str| Err(Error::entry(&self.tree.path(node), what));
        let mut needs = Needs::default();
        let shape = Shape::new(self.block_size.pointers());
        let mut units_512 = 0;
        match self.tree.body(node) {
            Body::File { size, data, .. } => {
                if *size > max_file_size(self.block_size) {
                    return refuse("is larger than a file of ext2 can be");
                }
                let large = self.format.effective_features().ro_compat.contains(RoCompatFeatures::LARGE_FILE);
                if *size > i32::MAX as u64 && !large {
                    return refuse("has 2 GiB or more, and the feature large_file is off");
                }
                let runs = data_runs(*size, data.as_deref(), self.block_size);
                needs.filler += map::indirect_blocks(shape, runs.iter().copied());
                for piece in pieces(&runs, *size, self.block_size, units) {
                    match units.filter(|_| piece.aligned) {
                        Some(units) => needs.units += piece.count / units.blocks,
                        None => needs.filler += piece.count,
                    }
                }
            }
            Body::Directory => {
                let blocks = directory_blocks(self.tree, node, self.lost_and_found, self.block_size);
                needs.filler += blocks + map::indirect_blocks(shape, core::iter::once((0, blocks)));
            }
            Body::Symlink(target) if target.is_empty() || target.len() >= self.block_size.len().min(4096) => {
                return refuse("the target of a symlink has 1 to 4095 bytes, and less than a block");
            }
            Body::Symlink(target) if target.contains(&0) => {
                return refuse("the target of the symlink has a 0");
            }
            Body::Symlink(target) => needs.filler += u64::from(!is_fast(target)),
            // Its upper bits would be lost, and it would be another device.
            Body::CharDevice(nr) | Body::BlockDevice(nr) if DeviceNr::from_u32(nr.to_u32()) != *nr => {
                return refuse("has a device number that ext2 has no room for: 12 bits and 20");
            }
            _ => {}
        }
        let xattrs = &self.tree.attrs(node).xattrs;
        if !xattrs.is_empty() {
            if !self.format.effective_features().compat.contains(CompatFeatures::EXT_ATTR) {
                return refuse("has extended attributes, and the feature ext_attr is off");
            }
            let room = xattr_room(self.format.effective_inode_size());
            let placed = xattr::place(&self.tree.path(node), xattrs, room, self.block_size)?;
            needs.filler += u64::from(placed.block.is_some());
        }
        units_512 += needs.filler + needs.units * units.map_or(0, |units| units.blocks);
        if units_512 * (self.block_size.bytes() / 512) > u64::from(u32::MAX) {
            return refuse("takes more than 2 TiB");
        }
        Ok(needs)
    }
}

/// Bytes of an inode for attributes.
pub(super) fn xattr_room(inode_size: u16) -> usize {
    let fields = GOOD_OLD_INODE_SIZE as usize + usize::from(layout::EXTRA_ISIZE);
    usize::from(inode_size).saturating_sub(fields)
}

/// Whether a link's target lies in the inode.
pub(super) fn is_fast(target: &[u8]) -> bool {
    target.len() < 60
}

/// Blocks of a directory.
pub(super) fn directory_blocks(
    tree: &Tree,
    node: NodeId,
    lost: Option<NodeId>,
    block_size: BlockSize,
) -> u64 {
    let blocks = dirs::blocks(block_size, tree.children(node).map(|(name, _)| name.len()));
    let least = if lost == Some(node) { dirs::lost_and_found_blocks(block_size) } else { 1 };
    blocks.max(least)
}

/// The blocks (first, count) of a file that hold data, ascending, apart.
pub(super) fn data_runs(size: u64, data: Option<&[ByteSpan]>, block_size: BlockSize) -> Vec<(u64, u64)> {
    let end = block_size.blocks_for(size);
    let whole = [ByteSpan { offset: 0, length: size }];
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for span in data.unwrap_or(&whole) {
        let start = (span.offset / block_size.bytes()).min(end);
        let stop = block_size.blocks_for(span.offset.saturating_add(span.length)).min(end);
        match runs.last_mut() {
            Some(last) if last.0 + last.1 >= start => last.1 = last.1.max(stop.saturating_sub(last.0)),
            _ if stop > start => runs.push((start, stop - start)),
            _ => {}
        }
    }
    runs
}

/// Divides runs of data into whole units and the rest. A unit is 2 MiB of the file, from a multiple of 2 MiB on,
/// without a hole and within its size.
pub(super) fn pieces(
    runs: &[(u64, u64)],
    size: u64,
    block_size: BlockSize,
    units: Option<Units>,
) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(runs.len());
    for &(start, count) in runs {
        let end = start + count;
        let (from, to) = match units {
            Some(units) => {
                let from = start.next_multiple_of(units.blocks);
                // Up to the end of the last page that has a byte: a fault takes the unit whole then.
                let pages = size.next_multiple_of(4096) / block_size.bytes();
                (from, end.min(pages) / units.blocks * units.blocks)
            }
            None => (end, end),
        };
        if from >= to {
            pieces.push(Piece { start, count, aligned: false });
            continue;
        }
        let parts = [(start, from, false), (from, to, true), (to, end, false)];
        let parts = parts.into_iter().filter(|(start, end, _)| start < end);
        pieces.extend(parts.map(|(start, end, aligned)| Piece { start, count: end - start, aligned }));
    }
    pieces
}

/// The kind of a node, for its entry in a directory.
pub(super) fn kind(tree: &Tree, node: NodeId) -> FileKind {
    tree.body(node).kind()
}
