//! The index of a directory in memory: where each name lies, and where there is room.
//!
//! It is built when a directory of more than a few blocks is first searched, or a smaller one for the second
//! time; costs some 40 bytes a name, and is dropped when the directory is deleted, or when all indexes together have
//! passed a limit and another directory is the one in use. On disk a directory stays plain.
//!
//! # Invariants
//! 1. `names` counts what all indexes hold together: each counts its own, from the first name to the last.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::InodeNr;
use crate::inode::FileKind;
use crate::sync::{Mutex, Rank, RwLock};
use ext2_format::dirent::slots;

/// Names that all indexes of a file system hold together before the others are dropped.
const NAMES_MAX: usize = 4 << 20;

/// Directories that are remembered before those that nobody holds are dropped.
const DIRECTORIES_MAX: usize = 1 << 16;

/// Searches without an index after one was dropped for another directory's: as long together as it takes to build it.
const WAIT: u32 = 64;

/// The index of one directory.
#[derive(Debug)]
pub(crate) struct Index {
    built: Option<Built>,
    /// Whether somebody has searched the directory without an index.
    searched: bool,
    /// Searches without one that are still to come: it was dropped for another directory's.
    wait: u32,
    /// Names of all indexes of the file system.
    all: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Built {
    /// Hash of a name, and the byte offset of its entry in the directory.
    names: BTreeSet<(u32, u32)>,
    /// The largest slack of a block's entries in bytes, and the block.
    #[cfg(any(feature = "write", test))]
    room: BTreeSet<(u32, u32)>,
    #[cfg(any(feature = "write", test))]
    room_of: BTreeMap<u32, u32>,
}

pub(super) fn hash(name: &[u8]) -> u32 {
    crc32fast::hash(name)
}

impl Index {
    fn new(all: Arc<AtomicUsize>) -> Self {
        Self { built: None, searched: false, wait: 0, all }
    }

    pub(crate) fn is_built(&self) -> bool {
        self.built.is_some()
    }

    /// Notes a search without an index, and says whether an index pays: in a `large` directory at once, in others where
    /// there was such a search before, and after many where two directories that do not fit would build theirs by turns.
    pub(crate) fn pays(&mut self, large: bool) -> bool {
        if self.wait > 0 {
            self.wait -= 1;
            return false;
        }
        core::mem::replace(&mut self.searched, true) || large
    }

    fn drop_for_another(&mut self) {
        if self.is_built() {
            self.clear();
            self.wait = WAIT;
        }
    }

    /// Begins an empty index, to which every block is then [added](Self::set_block).
    pub(crate) fn begin(&mut self) {
        self.clear();
        self.built = Some(Built::default());
    }

    pub(crate) fn clear(&mut self) {
        self.all.fetch_sub(self.len(), Ordering::Relaxed);
        self.built = None;
    }

    fn len(&self) -> usize {
        self.built.as_ref().map_or(0, |built| built.names.len())
    }

    fn note(&mut self, name: &[u8], at: u32) {
        if let Some(built) = &mut self.built
            && built.names.insert((hash(name), at))
        {
            self.all.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Byte offsets of the entries that may have this name.
    pub(crate) fn candidates(&self, name: &[u8]) -> impl Iterator<Item = u32> {
        let hash = hash(name);
        let range = (hash, 0)..=(hash, u32::MAX);
        self.built.iter().flat_map(move |built| built.names.range(range.clone())).map(|&(_, at)| at)
    }

    /// Notes the entries of block `nr` (its bytes: `block`) at first.
    /// `false` when the block is broken; what comes before the break is noted all the same.
    pub(crate) fn add_block(&mut self, nr: u32, block: &[u8], inodes: u32) -> bool {
        if self.built.is_none() {
            return true;
        }
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
                self.note(slot.name, start + slot.offset as u32);
            }
            room = room.max(slot.slack());
        }
        self.set_room(nr, room);
        whole
    }
}

/// What only changes need.
#[cfg(any(feature = "write", test))]
impl Index {
    /// A block with room for an entry of `need` bytes: the tightest.
    pub(crate) fn block_with_room(&self, need: u32) -> Option<u32> {
        self.built.as_ref()?.room.range((need, 0)..).next().map(|&(_, block)| block)
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
        self.note(name, at);
    }

    pub(crate) fn remove(&mut self, name: &[u8], at: u32) {
        if let Some(built) = &mut self.built
            && built.names.remove(&(hash(name), at))
        {
            self.all.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(not(any(feature = "write", test)))]
impl Index {
    /// Nobody asks for room.
    fn set_room(&mut self, _: u32, _: usize) {}
}

impl Drop for Index {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The indexes of all directories of a file system. They outlive the inode in memory, so that a
/// directory that is looked into by path again and again keeps its own.
pub(crate) struct Indexes {
    all: Mutex<Kept>,
    /// Names that they hold together, and how many they may.
    names: Arc<AtomicUsize>,
    most: usize,
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

fn fresh(all: &Arc<AtomicUsize>) -> Shared {
    Arc::new(RwLock::new(Rank::Index, Index::new(all.clone())))
}

impl Indexes {
    pub(crate) fn new() -> Self {
        Self::with_most(NAMES_MAX)
    }

    fn with_most(most: usize) -> Self {
        let kept = Kept { of: BTreeMap::new(), limit: DIRECTORIES_MAX };
        let names = Arc::new(AtomicUsize::new(0));
        Self { all: Mutex::new(Rank::Leaf, kept), none: fresh(&names), names, most }
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
        kept.of.entry(nr).or_insert_with(|| fresh(&self.names)).clone()
    }

    /// Forgets the index of a directory that is gone.
    #[cfg(any(feature = "write", test))]
    pub(crate) fn forget(&self, nr: InodeNr) {
        self.all.lock().of.remove(&nr);
    }

    /// Drops what the indexes of other directories than `nr` hold, if they hold too many names with its own. The caller
    /// holds no index.
    #[inline]
    pub(crate) fn keep_within(&self, nr: InodeNr) {
        if self.names.load(Ordering::Relaxed) > self.most {
            self.drop_others(nr);
        }
    }

    #[cold]
    fn drop_others(&self, nr: InodeNr) {
        let others: Vec<Shared> = {
            let mut kept = self.all.lock();
            // Those that nobody holds go at once; a directory that somebody holds is searched without an index until it
            // is worth one again.
            kept.of.retain(|&own, index| own == nr || Arc::strong_count(index) > 1);
            kept.of.iter().filter(|&(&own, _)| own != nr).map(|(_, index)| index.clone()).collect()
        };
        for index in others {
            index.write().drop_for_another();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_come_after_an_index_was_built_count_and_the_others_are_dropped() {
        let indexes = Indexes::with_most(100);
        let nr = |nr| InodeNr::new(nr).unwrap();
        let (held, left) = (indexes.of(nr(20), FileKind::Directory), indexes.of(nr(21), FileKind::Directory));
        let fill = |nr: u32, index: &Shared, names: u32| {
            let mut own = index.write();
            own.begin();
            for name in 0..names {
                own.insert(&name.to_le_bytes(), name * 12);
            }
            drop(own);
            indexes.keep_within(InodeNr::new(nr).unwrap());
        };
        fill(20, &held, 40);
        fill(21, &left, 40);
        drop(left);
        assert_eq!(indexes.names.load(Ordering::Relaxed), 80);
        let used = indexes.of(nr(22), FileKind::Directory);
        // More than the limit at once, and then one name after the other, in a directory that has its index.
        fill(22, &used, 30);
        for name in 30..50_u32 {
            used.write().insert(&name.to_le_bytes(), name * 12);
            used.write().insert(&name.to_le_bytes(), name * 12);
            indexes.keep_within(nr(22));
            let all = indexes.names.load(Ordering::Relaxed);
            assert!(all <= 100, "{all} names");
        }
        assert_eq!(indexes.names.load(Ordering::Relaxed), 50);
        assert!(!held.read().is_built() && used.read().is_built());
        assert!((0..WAIT).all(|_| !held.write().pays(true)) && held.write().pays(true));
        assert!(!indexes.of(nr(21), FileKind::Directory).read().is_built());
        used.write().remove(&10_u32.to_le_bytes(), 120);
        used.write().remove(&10_u32.to_le_bytes(), 120);
        assert_eq!(indexes.names.load(Ordering::Relaxed), 49);
        drop(used);
        indexes.forget(nr(22));
        assert_eq!(indexes.names.load(Ordering::Relaxed), 0);
    }
}
