//! Writing a plan: files front to back, then bitmaps, descriptors and superblocks.
//!
//! # Invariants
//! 1. Every block is written at most once in full, and in ascending order as far as files allow.
//! 2. The primary superblock is written last: until then there is no file system.
//!
//! What goes where is found out by one thread; others read files and write with it ([`jobs`](super::jobs)).

use alloc::vec::Vec;

use zerocopy::{FromZeros, IntoBytes};

use super::contents::Contents;
#[cfg(feature = "std")]
use super::crew::Crew;
use super::dirs::{DirWriter, Name};
use super::job::{Part, WINDOW, Window, Work};
use super::jobs::Jobs;
use super::map::{Indirect, MapWriter};
use super::output::Output;
use super::plan::{Piece, data_runs, directory_blocks, is_fast, kind, pieces, xattr_room};
use super::space::{Run, Space};
use super::tree::{Body, NodeAttrs};
use super::writer::Writer;
use super::{Error, NodeId, Plan, Result, groups, layout, map, xattr};
use ext2_core::IncompatFeatures;
use ext2_core::raw::{GOOD_OLD_INODE_SIZE, RawInode, RawInodeExtra};
use ext2_core::rules::{SLOTS, Shape};
use ext2_core::{BlockSize, FileKind, InodeNr};

/// What was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Inodes in use, the reserved ones not counted but for the root.
    pub files: u64,
    /// Bytes that were copied into files.
    pub copied: u64,
    /// Free blocks.
    pub free_blocks: u32,
    /// Free inodes.
    pub free_inodes: u32,
}

/// Bytes of files from which on other threads are worth their while.
#[cfg(feature = "std")]
const CREW_MIN: u64 = 1 << 20;

/// The blocks that a file's indirect blocks get, taken beforehand so that its data lies in one piece.
struct IndirectBlocks<'a, 'w> {
    runs: &'a [Run],
    at: usize,
    used: u32,
    writer: &'a mut Writer<'w>,
}

impl Indirect for IndirectBlocks<'_, '_> {
    fn next(&mut self) -> Result<u32> {
        let Some(&(start, len)) = self.runs.get(self.at) else {
            return Error::format("the plan has fewer indirect blocks than a file takes");
        };
        let block = start + self.used;
        self.used += 1;
        if self.used == len {
            (self.at, self.used) = (self.at + 1, 0);
        }
        Ok(block)
    }

    fn write(&mut self, block: u32, bytes: &[u8]) -> Result<()> {
        self.writer.put(block, bytes)
    }
}

/// Where a file's blocks are.
#[derive(Default)]
struct Mapped {
    /// The inode's pointers.
    root: [u32; SLOTS],
    /// Blocks, the indirect ones included.
    blocks: u64,
    data: Vec<DataRun>,
}

/// Blocks of a file that lie next to each other.
struct DataRun {
    /// The first, counted in the file.
    start: u64,
    /// The first, counted in the file system.
    target: u32,
    count: u32,
}

/// An inode before it is bytes.
struct NewInode<'a> {
    attrs: &'a NodeAttrs,
    kind_bits: u16,
    links: u32,
    size: u64,
    root: [u32; SLOTS],
    /// Blocks, of every kind.
    blocks: u64,
    file_acl: u32,
    in_inode: &'a [u8],
}

impl Plan {
    /// Writes the file system; what makes it durable is [`Output::flush`], afterwards. `progress` hears how many bytes of
    /// files have been copied so far, also in the middle of a large one.
    ///
    /// # Errors
    /// `Source` when a file cannot be read; the device's errors; `TooSmall` when the output is smaller than the plan.
    pub fn write(
        &self,
        contents: &mut dyn Contents,
        out: &dyn Output,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Report> {
        if out.size() < self.layout.bytes() {
            return Err(Error::TooSmall { needed: self.layout.bytes(), given: out.size() });
        }
        let work = Work::new(self, out);
        #[cfg(feature = "std")]
        if self.payload() >= CREW_MIN {
            return std::thread::scope(|scope| {
                let crew = Crew::start(scope, &work, contents);
                self.write_by(Jobs::new(&work, contents, progress).with_crew(crew))
            });
        }
        self.write_by(Jobs::new(&work, contents, progress))
    }

    fn write_by<'w>(&'w self, jobs: Jobs<'w>) -> Result<Report> {
        let geometry = self.layout.geometry();
        let mut writer = Writer {
            plan: self,
            jobs,
            data: Window::default(),
            table: Window::default(),
            space: Space::new(&self.layout, self.units, self.needs),
            directories: alloc::vec![0; geometry.groups as usize],
        };
        groups::clear(&mut writer)?;
        writer.node(NodeId::ROOT)?;
        let mut order = self.order.iter();
        if self.lost_and_found.is_some() {
            order.next().map(|&node| writer.node(node)).transpose()?;
        }
        writer.resize_inode()?;
        for &node in order {
            writer.node(node)?;
        }
        writer.data.flush(&mut writer.jobs)?;
        writer.table.flush(&mut writer.jobs)?;
        writer.jobs.settle()?;
        let (free_blocks, free_inodes) = groups::write(&mut writer)?;
        let copied = writer.jobs.work.copied();
        Ok(Report { files: self.order.len() as u64 + 1, copied, free_blocks, free_inodes })
    }
}

impl Writer<'_> {
    fn block_size(&self) -> BlockSize {
        self.plan.layout.geometry().block_size
    }

    /// Takes `count` blocks of filler.
    fn filler(&mut self, mut count: u64) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        while count > 0 {
            let run = self.space.filler(count)?;
            count -= u64::from(run.1);
            runs.push(run);
        }
        Ok(runs)
    }

    /// Writes a block.
    fn put(&mut self, block: u32, bytes: &[u8]) -> Result<()> {
        self.data.put(u64::from(block) * self.block_size().bytes(), bytes, &mut self.jobs)
    }

    /// One block of filler with these bytes.
    fn one_block(&mut self, bytes: &[u8]) -> Result<u32> {
        let (block, _) = self.space.filler(1)?;
        self.put(block, bytes)?;
        Ok(block)
    }

    fn node(&mut self, node: NodeId) -> Result<()> {
        let plan = self.plan;
        let entry = plan.tree.node(node);
        let (block_size, number) = (self.block_size(), plan.numbers[node.index()]);
        let mut inode = NewInode {
            attrs: &entry.attrs,
            kind_bits: entry.body.kind().mode_bits(),
            links: entry.links,
            size: 0,
            root: [0; SLOTS],
            blocks: 0,
            file_acl: 0,
            in_inode: &[],
        };
        let room = xattr_room(plan.layout.geometry().inode_size);
        let placed = match &*entry.attrs.xattrs {
            [] => xattr::Placed::default(),
            all => xattr::place(&plan.tree.path(node), all, room, block_size)?,
        };
        if let Some(bytes) = &placed.block {
            inode.file_acl = self.one_block(bytes)?;
            inode.blocks += 1;
        }
        inode.in_inode = &placed.in_inode;
        match &entry.body {
            Body::File { size, data, .. } => {
                inode.size = *size;
                let runs = data_runs(*size, data.as_deref(), block_size);
                if !runs.is_empty() {
                    let mapped = self.file(node, *size, &runs)?;
                    inode.root = mapped.root;
                    inode.blocks += mapped.blocks;
                }
            }
            Body::Directory => {
                let blocks = directory_blocks(&plan.tree, node, plan.lost_and_found, block_size);
                inode.size = blocks * block_size.bytes();
                inode.links = 2 + entry.subdirs;
                let mapped = self.directory(node, blocks)?;
                inode.root = mapped.root;
                inode.blocks += mapped.blocks;
            }
            Body::Symlink(target) if is_fast(target) => {
                inode.size = target.len() as u64;
                let mut bytes = [0; SLOTS * 4];
                bytes[..target.len()].copy_from_slice(target);
                for (slot, word) in inode.root.iter_mut().zip(bytes.chunks_exact(4)) {
                    *slot = word.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
                }
            }
            Body::Symlink(target) => {
                inode.size = target.len() as u64;
                let mut bytes = alloc::vec![0; block_size.len()];
                bytes[..target.len()].copy_from_slice(target);
                inode.root[0] = self.one_block(&bytes)?;
                inode.blocks += 1;
            }
            Body::CharDevice(device) | Body::BlockDevice(device) => {
                inode.root[..2].copy_from_slice(&device.encode());
            }
            Body::Fifo | Body::Socket => {}
        }
        self.inode(number, &inode)
    }

    /// Takes a file's blocks and writes its indirect blocks, which lie before its data.
    fn map(&mut self, all: &[Piece]) -> Result<Mapped> {
        let shape = Shape::new(self.block_size().pointers());
        let indirect = map::indirect_blocks(shape, all.iter().map(|piece| (piece.start, piece.count)));
        let mut mapped = Mapped { blocks: indirect, ..Mapped::default() };
        let runs = self.filler(indirect)?;
        for piece in all {
            let mut start = piece.start;
            let end = piece.start + piece.count;
            mapped.blocks += piece.count;
            while start < end {
                let (target, count) = if piece.aligned {
                    let units = self.plan.units.map_or(1, |units| units.blocks);
                    self.space.units((end - start) / units)?
                } else {
                    self.space.filler(end - start)?
                };
                mapped.data.push(DataRun { start, target, count });
                start += u64::from(count);
            }
        }
        let mut map = MapWriter::new(shape);
        let mut indirect = IndirectBlocks { runs: &runs, at: 0, used: 0, writer: self };
        for run in &mapped.data {
            map.set(run.start, run.target, run.count.into(), &mut indirect)?;
        }
        mapped.root = map.finish(&mut indirect)?;
        Ok(mapped)
    }

    fn file(&mut self, node: NodeId, size: u64, runs: &[(u64, u64)]) -> Result<Mapped> {
        let block = self.block_size().bytes();
        let mapped = self.map(&pieces(runs, size, self.block_size(), self.plan.units))?;
        for run in &mapped.data {
            let (from, to) = (run.start * block, u64::from(run.target) * block);
            let room = u64::from(run.count) * block;
            let part = Part { node, from, len: room.min(size.saturating_sub(from)) };
            if room < WINDOW {
                self.data.put_part(to, part, room as usize, &mut self.jobs)?;
            } else {
                // What lies before it goes first.
                self.data.flush(&mut self.jobs)?;
                self.jobs.copy(part, to, to + room)?;
            }
        }
        Ok(mapped)
    }

    fn directory(&mut self, node: NodeId, blocks: u64) -> Result<Mapped> {
        let plan = self.plan;
        let number = |node: NodeId| plan.numbers[node.index()];
        let group = (number(node) - 1) / plan.layout.geometry().inodes_per_group;
        if let Some(count) = self.directories.get_mut(group as usize) {
            *count += 1;
        }
        let mapped = self.map(&[Piece { start: 0, count: blocks, aligned: false }])?;
        let mut places = mapped.data.iter().flat_map(|run| (run.target..).take(run.count as usize));
        let file_types = plan.layout.features().incompat.contains(IncompatFeatures::FILETYPE);
        let mut writer = DirWriter::new(self.block_size(), file_types);
        let mut put = |bytes: &[u8]| match places.next() {
            Some(block) => self.put(block, bytes),
            None => Error::format("the plan has fewer blocks than a directory takes"),
        };
        let dots = [(&b"."[..], node), (&b".."[..], plan.tree.parent(node))];
        for (name, node) in dots.into_iter().chain(plan.tree.children(node)) {
            let name = Name { inode: number(node), kind: kind(&plan.tree, node), name };
            writer.add(&name, &mut put)?;
        }
        put(writer.finish())?;
        for block in places {
            self.put(block, writer.empty())?;
        }
        Ok(mapped)
    }

    /// Inode 7: a double indirect block of pointers to the spare descriptor blocks, each of which holds pointers to
    /// its own backups.
    fn resize_inode(&mut self) -> Result<()> {
        let plan = self.plan;
        if !plan.layout.has_resize_inode() {
            return Ok(());
        }
        let geometry = plan.layout.geometry();
        let size = geometry.block_size;
        let pointers = size.pointers();
        let spare = u64::from(geometry.reserved_gdt_blocks);
        let backups = plan.layout.backups();
        let first = geometry.first_data_block + 1 + geometry.descriptor_blocks();
        let mut double = alloc::vec![0; size.len()];
        for block in first..first + u32::from(geometry.reserved_gdt_blocks) {
            let index = (u64::from(block - geometry.first_data_block - 1) % pointers) as usize * 4;
            double[index..index + 4].copy_from_slice(&block.to_le_bytes());
            let mut copies = alloc::vec![0; size.len()];
            for (slot, &group) in copies.chunks_exact_mut(4).zip(&backups) {
                let offset = block - geometry.first_data_block;
                slot.copy_from_slice(&(geometry.group_start(group) + offset).to_le_bytes());
            }
            self.put(block, &copies)?;
        }
        let attrs = NodeAttrs::new(0o600, (0, 0), plan.created());
        let mut inode = NewInode {
            attrs: &attrs,
            kind_bits: FileKind::Regular.mode_bits(),
            links: 1,
            size: (pointers * pointers + pointers + 12) * size.bytes(),
            root: [0; SLOTS],
            blocks: 1 + spare * (1 + backups.len() as u64),
            file_acl: 0,
            in_inode: &[],
        };
        inode.root[13] = self.one_block(&double)?;
        self.inode(layout::RESIZE_INO, &inode)
    }

    /// Writes an inode to its place in the table.
    fn inode(&mut self, number: u32, inode: &NewInode<'_>) -> Result<()> {
        let geometry = self.plan.layout.geometry();
        let inode_size = usize::from(geometry.inode_size);
        let has_extra = inode_size > GOOD_OLD_INODE_SIZE as usize;
        let attrs = inode.attrs;
        let [atime, mtime, ctime, crtime] =
            [attrs.atime, attrs.mtime, attrs.ctime, attrs.crtime].map(|time| time.encode(has_extra));
        let mut raw = RawInode::new_zeroed();
        raw.i_mode.set(inode.kind_bits | attrs.mode & 0o7777);
        // Halves of 32-bit numbers.
        raw.i_uid.set(attrs.uid as u16);
        raw.i_uid_high.set((attrs.uid >> 16) as u16);
        raw.i_gid.set(attrs.gid as u16);
        raw.i_gid_high.set((attrs.gid >> 16) as u16);
        raw.i_size.set(inode.size as u32);
        raw.i_size_high.set((inode.size >> 32) as u32);
        raw.i_atime.set(atime.0);
        raw.i_mtime.set(mtime.0);
        raw.i_ctime.set(ctime.0);
        raw.i_links_count.set(inode.links as u16); // at most 32000: the tree sees to it
        raw.i_blocks.set((inode.blocks * (geometry.block_size.bytes() / 512)) as u32); // the plan sees to it
        raw.i_flags.set(attrs.flags);
        for (slot, pointer) in raw.i_block.iter_mut().zip(inode.root) {
            slot.set(pointer);
        }
        raw.i_file_acl.set(inode.file_acl);
        let mut bytes = raw.as_bytes().to_vec();
        if has_extra {
            let extra = RawInodeExtra {
                i_extra_isize: layout::EXTRA_ISIZE.into(),
                i_ctime_extra: ctime.1.into(),
                i_mtime_extra: mtime.1.into(),
                i_atime_extra: atime.1.into(),
                i_crtime: crtime.0.into(),
                i_crtime_extra: crtime.1.into(),
                ..RawInodeExtra::default()
            };
            bytes.extend_from_slice(extra.as_bytes());
            bytes.extend_from_slice(inode.in_inode);
        }
        bytes.resize(inode_size, 0);
        let place = InodeNr::new(number).and_then(|nr| geometry.group_of_inode(nr));
        let Some((group, index)) = place else {
            return Error::format("the plan has fewer inodes than files");
        };
        let table = u64::from(self.plan.layout.descriptor(group).bg_inode_table.get());
        let offset = table * geometry.block_size.bytes() + u64::from(index) * inode_size as u64;
        self.table.put(offset, &bytes, &mut self.jobs)
    }
}
