//! The groups: bitmaps, counts, and what is reserved in memory.
//!
//! # Invariants
//! 1. What is in use is never free in a bitmap on the device, whatever crash: its bit is set there before the fence behind
//!    which something points to it, and cleared, by a sync, when nothing does any more. What is set there may be free.
//! 2. Counts are not ordered.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};
use portable_atomic::AtomicU64;

use zerocopy::IntoBytes;

use super::bitmap::Bitmap;
use crate::error::{Corrupt, Object, Result};
use crate::fs::Fs;
use crate::raw::RawGroupDesc;
use crate::sync::{Mutex, Rank};
use crate::{GroupNr, InodeNr};

/// Blocks of one group that only one inode takes blocks from, as long as there are others. In memory only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub(crate) group: GroupNr,
    pub(crate) bits: Range<u32>,
}

impl Window {
    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupNr {
        self.group
    }

    /// How many blocks.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.bits.len() as u32
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }
}

/// One group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) desc: RawGroupDesc,
    pub(crate) free_blocks: u32,
    pub(crate) free_inodes: u32,
    pub(crate) dirs: u32,
    blocks: Map,
    inodes: Map,
    /// Windows by their first bit; they do not overlap.
    pub(crate) windows: BTreeMap<u32, (u32, InodeNr)>,
    dirty: Dirty,
}

/// A bitmap of a group.
#[derive(Debug, Default)]
enum Map {
    /// Nobody needed it yet.
    #[default]
    Unread,
    Known(Bitmap),
    /// It contradicts its group's descriptor or places: nothing is taken by it and nothing given back, so that what is
    /// somebody's stays so whichever of the two is right.
    Broken,
}

impl Map {
    fn known(&mut self) -> Option<&mut Bitmap> {
        match self {
            Self::Known(bitmap) => Some(bitmap),
            Self::Unread | Self::Broken => None,
        }
    }
}

/// What of a group is newer in memory than on the device.
#[derive(Clone, Copy, Debug, Default)]
struct Dirty {
    blocks: bool,
    inodes: bool,
    desc: bool,
}

/// All groups of a file system that is open for writing.
#[derive(Debug)]
pub(crate) struct Groups {
    all: Vec<Mutex<Group>>,
    /// Hints that spare taking locks: free blocks and free inodes of each group.
    pub(crate) free_blocks_of: Vec<AtomicU32>,
    pub(crate) free_inodes_of: Vec<AtomicU32>,
    pub(crate) free_blocks: AtomicU64,
    pub(crate) free_inodes: AtomicU64,
    pub(crate) dirs: AtomicU64,
}

impl Groups {
    /// Reads all descriptors.
    pub(crate) fn load(fs: &Fs) -> Result<Self> {
        let mut groups = Self {
            all: Vec::new(),
            free_blocks_of: Vec::new(),
            free_inodes_of: Vec::new(),
            free_blocks: AtomicU64::new(0),
            free_inodes: AtomicU64::new(0),
            dirs: AtomicU64::new(0),
        };
        for nr in fs.geo.group_numbers() {
            let desc = fs.descriptor(nr)?;
            fs.geo.check_places(nr, &desc)?;
            let group = Group {
                desc,
                free_blocks: desc.bg_free_blocks_count.get().into(),
                free_inodes: desc.bg_free_inodes_count.get().into(),
                dirs: desc.bg_used_dirs_count.get().into(),
                blocks: Map::Unread,
                inodes: Map::Unread,
                windows: BTreeMap::new(),
                dirty: Dirty::default(),
            };
            *groups.free_blocks.get_mut() += u64::from(group.free_blocks);
            *groups.free_inodes.get_mut() += u64::from(group.free_inodes);
            *groups.dirs.get_mut() += u64::from(group.dirs);
            groups.free_blocks_of.push(AtomicU32::new(group.free_blocks));
            groups.free_inodes_of.push(AtomicU32::new(group.free_inodes));
            groups.all.push(Mutex::new(Rank::Group, group));
        }
        Ok(groups)
    }

    /// The lock of a group.
    pub(crate) fn get(&self, nr: GroupNr) -> &Mutex<Group> {
        // OK to index: group numbers come from the geometry.
        &self.all[nr.get() as usize]
    }

    /// The number of groups.
    pub(crate) fn len(&self) -> u32 {
        self.all.len() as u32
    }

    /// Notes a change of a group's free blocks.
    pub(crate) fn count_blocks(&self, nr: GroupNr, group: &mut Group, taken: i64) {
        group.free_blocks = u32::try_from(i64::from(group.free_blocks) - taken).unwrap_or(0);
        group.dirty.blocks = true;
        group.dirty.desc = true;
        self.free_blocks_of[nr.get() as usize].store(group.free_blocks, Ordering::Relaxed);
        add(&self.free_blocks, -taken);
    }

    /// Notes a change of a group's free inodes and directories.
    pub(crate) fn count_inodes(&self, nr: GroupNr, group: &mut Group, taken: i64, dirs: i64) {
        group.free_inodes = u32::try_from(i64::from(group.free_inodes) - taken).unwrap_or(0);
        group.dirs = u32::try_from(i64::from(group.dirs) + dirs).unwrap_or(0);
        group.dirty.inodes = true;
        group.dirty.desc = true;
        self.free_inodes_of[nr.get() as usize].store(group.free_inodes, Ordering::Relaxed);
        add(&self.free_inodes, -taken);
        add(&self.dirs, dirs);
    }

    /// Writes what is dirty of all groups; not the superblock's sums.
    pub(crate) fn write(&self, fs: &Fs) -> Result<()> {
        for nr in fs.geo.group_numbers() {
            self.get(nr).lock().write(fs, nr)?;
        }
        Ok(())
    }
}

fn add(sum: &AtomicU64, delta: i64) {
    // Wraps to a subtraction for a negative delta.
    sum.fetch_add(delta.cast_unsigned(), Ordering::Relaxed);
}

impl Group {
    /// The bitmap of blocks, read on first use; none where it cannot be believed: it has blocks of the file system's own
    /// structures as free, or another number of free ones than the descriptor. The image is marked for a check then.
    pub(crate) fn blocks(&mut self, fs: &Fs, nr: GroupNr) -> Result<Option<&mut Bitmap>> {
        if matches!(self.blocks, Map::Unread) {
            let bitmap = read(fs, self.desc.bg_block_bitmap.get(), fs.geo.group_len(nr))?;
            let own =
                self.own_blocks(fs, nr).into_iter().find(|own| bitmap.count_free(own.clone()) != 0).map(
                    |own| format!("the block bitmap has blocks of the group's own as free, bits {own:?}"),
                );
            self.blocks = match own.or_else(|| disagreement("block", &bitmap, self.free_blocks)) {
                None => Map::Known(bitmap),
                Some(what) => {
                    fs.leave_group_alone(nr, what, |groups| &groups.free_blocks_of);
                    Map::Broken
                }
            };
        }
        Ok(self.blocks.known())
    }

    /// The bitmap of inodes, read on first use; none where it cannot be believed, as with that of blocks.
    pub(crate) fn inodes(&mut self, fs: &Fs, nr: GroupNr) -> Result<Option<&mut Bitmap>> {
        if matches!(self.inodes, Map::Unread) {
            let bitmap = read(fs, self.desc.bg_inode_bitmap.get(), fs.geo.inodes_per_group)?;
            let reserved = bitmap.count_free(0..fs.geo.reserved_inodes(nr)) != 0;
            let own = reserved.then(|| "the inode bitmap has reserved inodes as free".into());
            self.inodes = match own.or_else(|| disagreement("inode", &bitmap, self.free_inodes)) {
                None => Map::Known(bitmap),
                Some(what) => {
                    fs.leave_group_alone(nr, what, |groups| &groups.free_inodes_of);
                    Map::Broken
                }
            };
        }
        Ok(self.inodes.known())
    }

    /// How many blocks from a bit on are free, up to `most`.
    pub(crate) fn free_run(&mut self, fs: &Fs, nr: GroupNr, from: u32, most: u32) -> Result<u32> {
        Ok(self.blocks(fs, nr)?.map_or(0, |bitmap| bitmap.free_run(from, most)))
    }

    /// Bits of the blocks in this group that hold the file system's own structures.
    pub(crate) fn own_blocks(&self, fs: &Fs, nr: GroupNr) -> Vec<Range<u32>> {
        let mut own = Vec::with_capacity(4);
        own.push(0..fs.geo.group_overhead(nr));
        let places = [
            (self.desc.bg_block_bitmap.get(), 1),
            (self.desc.bg_inode_bitmap.get(), 1),
            (self.desc.bg_inode_table.get(), fs.geo.inode_table_blocks()),
        ];
        for (block, len) in places {
            if let Some((group, bit)) = fs.geo.group_of_block(block)
                && group == nr
            {
                own.push(bit..bit.saturating_add(len).min(fs.geo.group_len(nr)));
            }
        }
        own
    }

    /// Replaces bitmaps and counts by what was found.
    pub(crate) fn replace(&mut self, blocks: Bitmap, inodes: Bitmap, dirs: u32) {
        self.free_blocks = blocks.count_free(0..u32::MAX);
        self.free_inodes = inodes.count_free(0..u32::MAX);
        self.dirs = dirs;
        self.blocks = Map::Known(blocks);
        self.inodes = Map::Known(inodes);
        self.dirty = Dirty { blocks: true, inodes: true, desc: true };
    }

    /// Takes free blocks: in memory, and at once on the device, where the fence before a pointer to them makes it durable.
    pub(crate) fn take_blocks(&mut self, fs: &Fs, nr: GroupNr, bits: Range<u32>) -> Result<()> {
        let block = self.desc.bg_block_bitmap.get();
        // After an error some of the bits may be on the device.
        let Some(bitmap) = self.blocks(fs, nr)? else { return Ok(()) };
        take(fs, block, bitmap, bits).inspect_err(|_| self.dirty.blocks = true)
    }

    /// Takes a free inode: in memory, and at once on the device, where the fence before its name makes it durable.
    pub(crate) fn take_inode(&mut self, fs: &Fs, nr: GroupNr, bit: u32) -> Result<()> {
        let block = self.desc.bg_inode_bitmap.get();
        let Some(bitmap) = self.inodes(fs, nr)? else { return Ok(()) };
        take(fs, block, bitmap, bit..bit + 1).inspect_err(|_| self.dirty.inodes = true)
    }

    fn write(&mut self, fs: &Fs, nr: GroupNr) -> Result<()> {
        let len = fs.geo.block_size.len();
        let at = |block: u32| u64::from(block) * fs.geo.block_size.bytes();
        if let Some(bitmap) = self.blocks.known().filter(|_| self.dirty.blocks) {
            fs.dev.write_at(at(self.desc.bg_block_bitmap.get()), &bitmap.to_block(len))?;
        }
        if let Some(bitmap) = self.inodes.known().filter(|_| self.dirty.inodes) {
            fs.dev.write_at(at(self.desc.bg_inode_bitmap.get()), &bitmap.to_block(len))?;
        }
        if self.dirty.desc {
            // Counts of a group fit in 16 bits but for a group of 64 Ki blocks that is all free.
            let count = |count: u32| u16::try_from(count).unwrap_or(u16::MAX).into();
            self.desc.bg_free_blocks_count = count(self.free_blocks);
            self.desc.bg_free_inodes_count = count(self.free_inodes);
            self.desc.bg_used_dirs_count = count(self.dirs);
            fs.dev.write_at(fs.geo.descriptor_offset(nr, GroupNr::new(0)), self.desc.as_bytes())?;
        }
        self.dirty = Dirty::default();
        Ok(())
    }

    /// Whether a bit lies in a window of somebody other than `owner`, and where that ends.
    pub(crate) fn window_of_other(&self, bit: u32, owner: Option<InodeNr>) -> Option<u32> {
        let (_, &(end, holder)) = self.windows.range(..=bit).next_back()?;
        (bit < end && Some(holder) != owner).then_some(end)
    }

    /// The first bit from `from` on where a window of somebody other than `owner` begins.
    pub(crate) fn next_window_of_other(&self, from: u32, owner: Option<InodeNr>) -> u32 {
        self.windows
            .range(from..)
            .find(|(_, (_, holder))| Some(*holder) != owner)
            .map_or(u32::MAX, |(&start, _)| start)
    }
}

/// How a bitmap and its descriptor's count of free bits differ, if they do.
fn disagreement(of: &str, bitmap: &Bitmap, counted: u32) -> Option<String> {
    let free = bitmap.count_free(0..u32::MAX);
    (free != counted)
        .then(|| format!("the {of} bitmap has {free} free {of}s, the descriptor {counted}: it is left alone"))
}

impl Fs {
    /// Notes that a bitmap of a group cannot be believed: the search for free bits goes past it.
    fn leave_group_alone(&self, nr: GroupNr, what: String, hints: fn(&Groups) -> &Vec<AtomicU32>) {
        self.found_broken(&Corrupt::new(Object::Group(nr), what).into());
        if let Some(hint) =
            self.writer.as_ref().and_then(|writer| hints(&writer.groups).get(nr.get() as usize))
        {
            hint.store(0, Ordering::Relaxed);
        }
    }
}

fn take(fs: &Fs, block: u32, bitmap: &mut Bitmap, bits: Range<u32>) -> Result<()> {
    bitmap.fill(bits.clone(), true);
    let start = u64::from(block) * fs.geo.block_size.bytes();
    let stored = bitmap.words(bits.clone()).try_for_each(|(at, word)| fs.dev.write_at(start + at, &word));
    if stored.is_err() {
        bitmap.fill(bits, false);
    }
    Ok(stored?)
}

fn read(fs: &Fs, block: u32, bits: u32) -> Result<Bitmap> {
    let mut bytes = vec![0; fs.geo.block_size.len()];
    fs.dev.read_at(u64::from(block) * fs.geo.block_size.bytes(), &mut bytes)?;
    Ok(Bitmap::from_block(&bytes, bits))
}
