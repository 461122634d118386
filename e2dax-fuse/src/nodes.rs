//! The inodes that the kernel knows.
//!
//! # Invariants
//! 1. A node is in the table from the first reply that names it until as many lookups are forgotten as were
//!    counted; it holds its inode as long.
//! 2. Nothing is called under a lock of the table, and no inode is let go under one: that may free blocks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ext2_core::Inode;

use crate::capabilities::Capabilities;
use crate::convert::node_of;

/// Locks that the table is spread over.
const SHARDS: usize = 16;

/// An inode that the kernel knows.
#[derive(Debug)]
pub(crate) struct Node {
    /// The inode.
    pub(crate) inode: Inode,
    /// How many open files may write to it. While there are none, the kernel holds no page that is newer than ours:
    /// it writes all back when one is closed.
    pub(crate) writers: AtomicU32,
    /// What is known of its capabilities.
    pub(crate) capabilities: Capabilities,
}

impl Node {
    fn new(inode: Inode) -> Self {
        Self { inode, writers: AtomicU32::new(0), capabilities: Capabilities::default() }
    }
}

/// A node and how often the kernel was told of it.
#[derive(Debug)]
struct Known {
    node: Arc<Node>,
    lookups: u64,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Nodes {
    root: Arc<Node>,
    shards: [Mutex<HashMap<u64, Known>>; SHARDS],
}

impl Nodes {
    /// With the root, which is never forgotten.
    pub(crate) fn new(root: Inode) -> Self {
        Self { root: Arc::new(Node::new(root)), shards: Default::default() }
    }

    fn shard(&self, number: u64) -> MutexGuard<'_, HashMap<u64, Known>> {
        // OK to index and to cast: the remainder is less than the number of shards.
        self.shards[(number % SHARDS as u64) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node of a kernel's name.
    pub(crate) fn get(&self, number: u64) -> Option<Arc<Node>> {
        if number == node_of(self.root.inode.nr()) {
            return Some(self.root.clone());
        }
        self.shard(number).get(&number).map(|known| known.node.clone())
    }

    /// Counts a lookup: the kernel is about to be told of the inode.
    pub(crate) fn look_up(&self, inode: Inode) -> Arc<Node> {
        let number = node_of(inode.nr());
        if inode == self.root.inode {
            return self.root.clone();
        }
        let mut shard = self.shard(number);
        let known = shard
            .entry(number)
            .or_insert_with_key(|_| Known { node: Arc::new(Node::new(inode.clone())), lookups: 0 });
        known.lookups += 1;
        let node = known.node.clone();
        // The handle that was not needed goes after the lock.
        drop(shard);
        drop(inode);
        node
    }

    /// Takes `count` lookups back. With the last one the inode is let go, which frees it if it has no name.
    pub(crate) fn forget(&self, number: u64, count: u64) {
        let mut shard = self.shard(number);
        let Some(known) = shard.get_mut(&number) else { return };
        known.lookups = known.lookups.saturating_sub(count);
        let gone = if known.lookups == 0 { shard.remove(&number) } else { None };
        drop(shard);
        drop(gone);
    }

    /// Lets all go but the root.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            let all = std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
            drop(all);
        }
    }
}

impl Node {
    /// Counts an open file that may write.
    pub(crate) fn add_writer(&self) {
        self.writers.fetch_add(1, Ordering::AcqRel);
    }

    /// One of them is closed.
    pub(crate) fn remove_writer(&self) {
        let less = |writers: u32| Some(writers.saturating_sub(1));
        // The closure always gives a number.
        let _ = self.writers.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// Whether the kernel may hold pages that are newer than ours.
    pub(crate) fn may_be_dirty(&self) -> bool {
        self.writers.load(Ordering::Acquire) > 0
    }
}
