//! The index of a directory in memory: where each name lies, and where there is room.
//!
//! It is built when a directory of more than a few blocks is first searched, or a smaller one for the second
//! time; costs some 40 bytes a name, and is dropped when all indexes together pass a limit, or when the
//! directory is deleted. On disk a directory stays plain.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::block::slots;
use crate::InodeNr;
use crate::inode::FileKind;
use crate::sync::{Mutex, Rank, RwLock};

/// Names that all indexes of a file system hold together before the others are dropped.
const NAMES_MAX: usize = 4 << 20;

/// Directories that are remembered before those that nobody holds are dropped.
const DIRECTORIES_MAX: usize = 1 << 16;

/// The index of one directory.
#[derive(Debug, Default)]
pub(crate) struct Index {
    built: Option<Built>,
    /// Whether somebody has searched the directory without an index.
    searched: bool,
}

#[derive(Debug, Default)]
struct Built {
    /// Hash of a name, and the byte offset of its entry in the directory.
    names: BTreeSet<(u32, u32)>,
    /// The largest slack of a block's entries in bytes, and the block.
    room: BTreeSet<(u32, u32)>,
    room_of: BTreeMap<u32, u32>,
}

pub(super) fn hash(name: &[u8]) -> u32 {
    crc32fast::hash(name)
}

impl Index {
    pub(crate) fn is_built(&self) -> bool {
        self.built.is_some()
    }

    /// Notes a search without an index, and says whether there was one before: then an index pays.
    pub(crate) fn searched_before(&mut self) -> bool {
        core::mem::replace(&mut self.searched, true)
    }

    /// Begins an empty index, to which every block is then [added](Self::set_block).
    pub(crate) fn begin(&mut self) {
        self.built = Some(Built::default());
    }

    pub(crate) fn clear(&mut self) {
        self.built = None;
    }

    pub(crate) fn len(&self) -> usize {
        self.built.as_ref().map_or(0, |built| built.names.len())
    }

    /// Byte offsets of the entries that may have this name.
    pub(crate) fn candidates(&self, name: &[u8]) -> impl Iterator<Item = u32> {
        let hash = hash(name);
        let range = (hash, 0)..=(hash, u32::MAX);
        self.built.iter().flat_map(move |built| built.names.range(range.clone())).map(|&(_, at)| at)
    }

    /// A block with room for an entry of `need` bytes: the tightest.
    pub(crate) fn block_with_room(&self, need: u32) -> Option<u32> {
        self.built.as_ref()?.room.range((need, 0)..).next().map(|&(_, block)| block)
    }

    /// Notes the entries of block `nr` (its bytes: `block`) at first.
    /// `false` when the block is broken; what comes before the break is noted all the same.
    pub(crate) fn add_block(&mut self, nr: u32, block: &[u8], inodes: u32) -> bool {
        let Some(built) = &mut self.built else { return true };
        // A block is at most 64 KiB and a directory less than 4 GiB: fits.
        let start = nr * block.len() as u32;
        let mut room = 0;
        let mut whole = true;
        for slot in slots(block, inodes, false) {
            let Ok(slot) = slot else {
                // Nothing is added to a broken block.
                (room, whole) = (0, false);
                break;
            };
            if slot.inode != 0 {
                built.names.insert((hash(slot.name), start + slot.offset as u32));
            }
            room = room.max(slot.slack());
        }
        self.set_room(nr, room);
        whole
    }

    /// Notes the most bytes that an entry could have in block `nr`.
    pub(crate) fn set_room(&mut self, nr: u32, room: usize) {
        let Some(built) = &mut self.built else { return };
        // At most 64 KiB.
        let room = room as u32;
        if let Some(old) = built.room_of.insert(nr, room) {
            built.room.remove(&(old, nr));
        }
        built.room.insert((room, nr));
    }

    pub(crate) fn insert(&mut self, name: &[u8], at: u32) {
        if let Some(built) = &mut self.built {
            built.names.insert((hash(name), at));
        }
    }

    pub(crate) fn remove(&mut self, name: &[u8], at: u32) {
        if let Some(built) = &mut self.built {
            built.names.remove(&(hash(name), at));
        }
    }
}

/// The indexes of all directories of a file system. They outlive the inode in memory, so that a
/// directory that is looked into by path again and again keeps its own.
pub(crate) struct Indexes {
    all: Mutex<Kept>,
    names: AtomicUsize,
    /// What inodes that are no directories have: nothing.
    none: Shared,
}

/// The index of a directory, as all who use it hold it.
pub(crate) type Shared = Arc<RwLock<Index>>;

struct Kept {
    of: BTreeMap<InodeNr, Shared>,
    /// Directories at which those are dropped that nobody holds.
    limit: usize,
}

fn fresh() -> Shared {
    Arc::new(RwLock::new(Rank::Index, Index::default()))
}

impl Indexes {
    pub(crate) fn new() -> Self {
        let kept = Kept { of: BTreeMap::new(), limit: DIRECTORIES_MAX };
        Self { all: Mutex::new(Rank::Leaf, kept), names: AtomicUsize::new(0), none: fresh() }
    }

    /// The index of inode `nr`: for a directory the one that is kept.
    pub(crate) fn of(&self, nr: InodeNr, kind: FileKind) -> Shared {
        if kind != FileKind::Directory {
            return self.none.clone();
        }
        let mut kept = self.all.lock();
        if kept.of.len() >= kept.limit {
            kept.of.retain(|_, index| Arc::strong_count(index) > 1);
            kept.limit = DIRECTORIES_MAX.max(2 * kept.of.len());
        }
        kept.of.entry(nr).or_insert_with(fresh).clone()
    }

    /// Forgets the index of a directory that is gone.
    pub(crate) fn forget(&self, nr: InodeNr) {
        self.all.lock().of.remove(&nr);
    }

    /// Notes that the index of `nr` was built with so many names; drops all others when there are too
    /// many in all. Those in use by somebody stay until their holder is done.
    pub(crate) fn built(&self, nr: InodeNr, names: usize) {
        let total = self.names.fetch_add(names, Ordering::Relaxed) + names;
        if total > NAMES_MAX {
            self.all.lock().of.retain(|&own, index| own == nr || Arc::strong_count(index) > 1);
            self.names.store(names, Ordering::Relaxed);
        }
    }
}
