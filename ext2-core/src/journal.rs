//! One transaction in the journal of an ext3 image.
//!
//! ext2 has no order of stores in which a directory changes its parent safely. Where the image has a journal, the
//! blocks that change are first written there, with a commit record; then the superblock of the journal says that
//! there is something to replay, by one store. From there on `e2fsck -p` ends what was begun. When all is in its place
//! the journal is empty again.
//!
//! # Invariants
//! 1. The journal is used only when it is empty, of the file system's block size, and without features that change
//!    its records.
//! 2. Nobody else changes the blocks of a transaction before it ends: they belong to directories whose `io` locks the
//!    caller holds, or all stores into them are kept out (see `fs/stores.rs`).
//!
//! # Locking
//! One transaction at a time: a lock of its own is held from the look at the journal to the transaction's end.

mod together;

pub(crate) use together::Together;

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use ext2_format::journal::{COMMIT, OURS, S_SEQUENCE, S_START, big, block, described, is_plain, tags_in};

use crate::FileBlock;
use crate::error::Result;
use crate::fs::Fs;
use crate::inode::Inode;
use crate::order::Barrier;
use crate::sync::{Mended, MutexGuard};

/// Blocks as they will be when a change is done.
#[derive(Debug, Default)]
pub(crate) struct Images(BTreeMap<u32, Vec<u8>>);

impl Images {
    /// Puts bytes at a place on the device, which lies within one block.
    pub(crate) fn put(&mut self, fs: &Fs, offset: u64, bytes: &[u8]) -> Result<()> {
        let len = fs.geo.block_size.bytes();
        let within = (offset % len) as usize;
        if offset < len && Mended::SuperblockLeftOut.is_back() {
            return crate::error::refuse(crate::Errno::INVAL, "block 0 is no directory's");
        }
        // OK to cast: a file system has at most 2^32 blocks. The superblock lies in block 0 where blocks are larger than it.
        let block = match self.0.entry((offset / len) as u32) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => {
                let mut block = vec![0; len as usize];
                fs.dev.read_at(offset - offset % len, &mut block)?;
                place.insert(block)
            }
        };
        if let Some(place) = block.get_mut(within..within + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Puts the block that begins at byte `offset` of the device into `buffer`, a block long, if it is one of these.
    pub(crate) fn look(&self, offset: u64, buffer: &mut [u8]) {
        // OK to cast: a file system has at most 2^32 blocks.
        if let Some(block) = self.0.get(&((offset / buffer.len() as u64) as u32)) {
            buffer.copy_from_slice(block);
        }
    }
}

/// An empty journal that can take a transaction.
#[derive(Debug)]
pub(crate) struct Journal<'f> {
    fs: &'f Arc<Fs>,
    _lock: MutexGuard<'f, ()>,
    inode: Inode,
    /// Where its superblock lies on the device, in bytes.
    superblock: u64,
    first: u32,
    blocks: u32,
    sequence: u32,
}

impl<'f> Journal<'f> {
    /// The journal of the file system, if it has one that can be used.
    pub(crate) fn find(fs: &'f Arc<Fs>) -> Result<Option<Self>> {
        if fs.is_logged() {
            return Ok(None);
        }
        let Some(nr) = fs.sb.journal_inode else { return Ok(None) };
        let lock = fs.writer()?.journal.lock();
        let inode = fs.inode(nr)?;
        let Some(start) = inode.0.map_blocks(FileBlock::ZERO, 1)?.target else { return Ok(None) };
        let superblock = fs.geo.byte_of(start);
        let mut head = [0; 64];
        fs.dev.read_at(superblock, &mut head)?;
        let usable = is_plain(&head, fs.geo.block_size.bytes()) && big(&head, 32) == 0;
        Ok(usable.then(|| Self {
            fs,
            _lock: lock,
            inode,
            superblock,
            first: big(&head, 20),
            blocks: big(&head, 16),
            sequence: big(&head, S_SEQUENCE),
        }))
    }

    /// Whether a transaction with these images fits.
    pub(crate) fn fits(&self, images: &Images) -> bool {
        self.has_room(images.0.len())
    }

    /// Whether a transaction of `count` blocks fits.
    fn has_room(&self, count: usize) -> bool {
        self.first != 0
            && self.end(count) <= u64::from(self.blocks)
            && count <= tags_in(self.fs.geo.block_size.len())
    }

    /// The block of the journal after a transaction of `count` images, its descriptor and its commit.
    fn end(&self, count: usize) -> u64 {
        u64::from(self.first) + count as u64 + 2
    }

    /// Writes a transaction that [fits](Self::fits), so that from now on a crash ends in `images`.
    pub(crate) fn commit(self, images: &Images) -> Result<Transaction<'f>> {
        let mut transaction = self.begin(images)?;
        transaction.hold()?;
        Ok(transaction)
    }

    /// Writes a transaction that does not hold yet.
    fn begin(self, images: &Images) -> Result<Transaction<'f>> {
        let (len, known) = (self.fs.geo.block_size.len(), self.fs.losses.count());
        let blocks: Vec<_> = images.0.iter().map(|(nr, bytes)| (*nr, bytes.as_slice())).collect();
        for (nr, bytes) in (u64::from(self.first)..).zip(described(len, self.sequence, OURS, &blocks)) {
            self.write(nr, &bytes)?;
        }
        self.write(self.end(blocks.len()) - 1, &block(len, COMMIT, self.sequence))?;
        // Behind the last transaction a loss may have taken it.
        self.store(S_SEQUENCE, self.sequence)?;
        // With an empty journal this flag means nothing; the store after it is what commits.
        self.fs.store_recover(true)?;
        self.fs.fence_since(Barrier::JournalWritten, known)?;
        Ok(Transaction { journal: self, is_ended: true })
    }

    fn write(&self, block: u64, bytes: &[u8]) -> Result<()> {
        match self.inode.0.map_blocks(FileBlock::new(block), 1)?.target {
            Some(place) => Ok(self.fs.dev.write_at(self.fs.geo.byte_of(place), bytes)?),
            None => Err(self.inode.0.corrupt("the journal has a hole")),
        }
    }

    /// Stores a field of the journal's superblock.
    fn store(&self, field: usize, value: u32) -> Result<()> {
        Ok(self.fs.dev.write_u32(self.superblock + field as u64, value.swap_bytes())?)
    }
}

/// A transaction that a crash would end. [`end`](Self::end) it when all is in place; where that is not reached, e2fsck
/// ends it, and nothing more may be stored before, since its blocks would take the place of later ones.
#[derive(Debug)]
#[must_use = "the journal must be emptied when all is in place"]
pub(crate) struct Transaction<'f> {
    journal: Journal<'f>,
    is_ended: bool,
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.is_ended {
            self.journal.fs.freeze(&"e2fsck has to replay the journal");
        }
    }
}

impl Transaction<'_> {
    /// From this store on a crash, or an error, ends in the images.
    fn hold(&mut self) -> Result<()> {
        self.is_ended = false;
        // It needs no fence of its own: every change of a name has one before the store that shows it, which asks what was lost
        // since before this.
        self.journal.store(S_START, self.journal.first)
    }

    /// All is in place: the journal is empty again.
    pub(crate) fn end(transaction: Option<Self>) -> Result<()> {
        transaction.map_or(Ok(()), |mut transaction| transaction.empty())
    }

    fn empty(&mut self) -> Result<()> {
        let journal = &self.journal;
        let known = journal.fs.losses.count();
        // Every change of a name ends with a fence.
        journal.store(S_START, 0)?;
        journal.fs.fence_since(Barrier::JournalEmptied, known)?;
        self.is_ended = true;
        journal.store(S_SEQUENCE, journal.sequence.wrapping_add(1))?;
        journal.fs.store_recover(false)
    }
}
