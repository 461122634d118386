//! The table of inodes in memory: one object per inode that somebody holds.
//!
//! # Locking
//! A shard's lock is held while an inode is read from the device, so that nobody makes a second one.
//! The last holder of an inode marks it as leaving, lets go of the lock, writes or frees what is left,
//! and removes it; whoever wants it meanwhile waits for that. Where nothing can be written it is removed
//! at once.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::Fs;
use crate::InodeNr;
use crate::error::Result;
use crate::inode::{Cell, Inode};
use crate::sync::{Mutex, Rank};

/// Locks that the table is spread over.
const SHARDS: u32 = 16;

/// An inode's place in the table.
enum Slot {
    Held(Arc<Cell>),
    Leaving,
}

pub(crate) struct InodeTable {
    shards: [Mutex<BTreeMap<InodeNr, Slot>>; SHARDS as usize],
}

impl InodeTable {
    pub(crate) fn new() -> Self {
        Self { shards: core::array::from_fn(|_| Mutex::new(Rank::Table, BTreeMap::new())) }
    }

    fn shard(&self, nr: InodeNr) -> &Mutex<BTreeMap<InodeNr, Slot>> {
        &self.shards[(nr.get() % SHARDS) as usize]
    }
}

#[cfg(feature = "write")]
impl InodeTable {
    /// All inodes that somebody holds, and the numbers of those that are being let go.
    pub(crate) fn held(&self) -> (alloc::vec::Vec<Inode>, alloc::vec::Vec<InodeNr>) {
        let (mut held, mut leaving) = (alloc::vec::Vec::new(), alloc::vec::Vec::new());
        for shard in &self.shards {
            for (nr, slot) in &*shard.lock() {
                match slot {
                    Slot::Held(cell) => held.push(Inode::hold(cell)),
                    Slot::Leaving => leaving.push(*nr),
                }
            }
        }
        (held, leaving)
    }

    /// Whether somebody holds an inode.
    pub(crate) fn is_held(&self, nr: InodeNr) -> bool {
        matches!(self.shard(nr).lock().get(&nr), Some(Slot::Held(_)))
    }

    /// Waits until an inode that was being let go is gone.
    pub(crate) fn wait_for(&self, nr: InodeNr) {
        while matches!(self.shard(nr).lock().get(&nr), Some(Slot::Leaving)) {
            crate::sync::pause();
        }
    }
}

impl Fs {
    /// The inode `nr`, from the table or from the device.
    pub(crate) fn inode(self: &Arc<Self>, nr: InodeNr) -> Result<Inode> {
        self.inode_or(nr, || Cell::load(self, nr))
    }

    /// The inode `nr` from the table, or the one that `make` gives, which then is the one.
    pub(crate) fn inode_or(&self, nr: InodeNr, make: impl FnOnce() -> Result<Arc<Cell>>) -> Result<Inode> {
        loop {
            let mut shard = self.table.shard(nr).lock();
            match shard.get(&nr) {
                Some(Slot::Held(cell)) => return Ok(Inode::hold(cell)),
                Some(Slot::Leaving) => {
                    drop(shard);
                    crate::sync::pause();
                }
                None => {
                    let cell = make()?;
                    // Nobody else has it yet.
                    cell.holders.store(1, Ordering::Relaxed);
                    let inode = Inode(cell.clone());
                    shard.insert(nr, Slot::Held(cell));
                    return Ok(inode);
                }
            }
        }
    }
}

impl Inode {
    /// Another holder of `cell`: called with the shard's lock held, or by a holder.
    fn hold(cell: &Arc<Cell>) -> Self {
        cell.holders.fetch_add(1, Ordering::Relaxed);
        Self(cell.clone())
    }
}

impl Clone for Inode {
    fn clone(&self) -> Self {
        Self::hold(&self.0)
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        let cell = &self.0;
        let not_last = |holders: u32| (holders > 1).then(|| holders - 1);
        if cell.holders.fetch_update(Ordering::Release, Ordering::Relaxed, not_last).is_ok() {
            return;
        }
        // Perhaps the last one. New holders come from the table, whose lock is taken now, or from another holder.
        let shard = cell.fs.table.shard(cell.nr);
        {
            let mut slots = shard.lock();
            // The only one: nobody can become another.
            let alone = cell.holders.load(Ordering::Acquire) == 1;
            if !alone && cell.holders.fetch_sub(1, Ordering::AcqRel) > 1 {
                return;
            }
            // Of a file system that is only read there is nothing to write or free.
            if !cell.fs.has_writer() {
                slots.remove(&cell.nr);
                return;
            }
            match slots.get_mut(&cell.nr) {
                Some(slot @ Slot::Held(_)) => *slot = Slot::Leaving,
                _ => return,
            }
        }
        cell.let_go();
        shard.lock().remove(&cell.nr);
    }
}
