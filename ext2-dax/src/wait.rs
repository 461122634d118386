//! Waiting for an entry to be unlocked (the wait queues of fs/dax.c).
//!
//! # Invariants
//! 1. A waiter is queued before the tree's lock is dropped, and a waker changes the tree under that
//!    lock before it looks at the queue. No wake-up is lost.
//! 2. The key is the file and the index **rounded to the entry that was found**: a fault inside a 2 MiB
//!    entry waits where the holder of that entry will wake (Linux got this wrong until 2019).
//! 3. A waiter is exclusive: `Next` wakes one, who must take the entry or wake the next. When an entry
//!    goes away `All` are woken, since nobody is left to hand the wake-up on (wrong until 2021).
//!
//! Lock order: a shard of the tree, then a queue.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sync::{AtomicUsize, Condvar, Mutex, Ordering};

/// Whom to wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The waiter that has waited longest.
    Next,
    /// All of them.
    All,
}

/// What is waited for: the address of the mapping, and the first file page of the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitKey {
    pub(crate) mapping: usize,
    pub(crate) index: u64,
}

#[derive(Debug)]
struct Waiter {
    key: WaitKey,
    woken: Mutex<bool>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    length: AtomicUsize,
    waiters: Mutex<VecDeque<Arc<Waiter>>>,
}

/// The queues, shared by all files of a file system.
#[derive(Debug)]
pub struct WaitTable {
    queues: Box<[Queue]>,
}

/// A place in a queue.
pub(crate) struct Ticket(Arc<Waiter>);

impl WaitTable {
    /// Queues for a file system. Files whose entries share a queue wake only their own waiters.
    #[must_use]
    pub fn new() -> Self {
        let count = if cfg!(loom) { 1 } else { 256 };
        Self { queues: (0..count).map(|_| Queue::default()).collect() }
    }

    fn queue(&self, key: WaitKey) -> &Queue {
        let hash = (key.mapping as u64 ^ key.index).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        // OK to cast: the remainder is below the number of queues.
        &self.queues[(hash % self.queues.len() as u64) as usize]
    }

    /// Takes a place; to be called while the tree is still locked.
    pub(crate) fn enqueue(&self, key: WaitKey) -> Ticket {
        let waiter = Arc::new(Waiter { key, woken: Mutex::new(false), changed: Condvar::new() });
        let queue = self.queue(key);
        let mut waiters = queue.waiters.lock();
        waiters.push_back(Arc::clone(&waiter));
        queue.length.store(waiters.len(), Ordering::SeqCst);
        Ticket(waiter)
    }

    /// Wakes waiters of `key`. The tree was changed, under its lock, before.
    pub(crate) fn wake(&self, key: WaitKey, whom: Wake) {
        let queue = self.queue(key);
        if queue.length.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut waiters = queue.waiters.lock();
        let mut at = 0;
        while let Some(waiter) = waiters.get(at) {
            if waiter.key != key {
                at += 1;
                continue;
            }
            if let Some(waiter) = waiters.remove(at) {
                *waiter.woken.lock() = true;
                waiter.changed.notify_all();
            }
            if whom == Wake::Next {
                break;
            }
        }
        queue.length.store(waiters.len(), Ordering::SeqCst);
    }
}

impl Default for WaitTable {
    fn default() -> Self {
        Self::new()
    }
}

impl Ticket {
    /// Sleeps until woken; to be called without the tree's lock.
    pub(crate) fn wait(self) {
        let mut woken = self.0.woken.lock();
        while !*woken {
            woken = self.0.changed.wait(woken);
        }
    }
}
