//! Which pages have lost their contents.

use alloc::collections::BTreeSet;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::sync::Mutex;
use crate::{Error, PAGE_SIZE, Result};

/// The poisoned pages of a device (Linux: its `badblocks`). Costs one load where there is none.
#[derive(Debug, Default)]
pub(crate) struct PoisonSet {
    /// Pages in `pages`; changed only under its lock, and read without it to pass by quickly.
    count: AtomicUsize,
    pages: Mutex<BTreeSet<u64>>,
}

impl PoisonSet {
    pub(crate) fn insert(&self, page: u64) {
        let mut pages = self.pages.lock();
        pages.insert(page);
        self.count.store(pages.len(), Ordering::Release);
    }

    pub(crate) fn remove(&self, page: u64) {
        let mut pages = self.pages.lock();
        pages.remove(&page);
        self.count.store(pages.len(), Ordering::Release);
    }

    /// The first poisoned page among those that hold a byte of the range. The range lies in a device.
    #[inline]
    pub(crate) fn first_in(&self, offset: u64, len: u64) -> Option<u64> {
        if self.count.load(Ordering::Acquire) == 0 || len == 0 { None } else { self.search(offset, len) }
    }

    #[cold]
    fn search(&self, offset: u64, len: u64) -> Option<u64> {
        let last = (offset + (len - 1)) / PAGE_SIZE;
        self.pages.lock().range(offset / PAGE_SIZE..=last).next().copied()
    }

    /// Refuses a read that would touch a poisoned page.
    #[inline]
    pub(crate) fn check(&self, offset: u64, len: u64) -> Result<()> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        match self.first_in(offset, len) {
            Some(page) => Err(Error::Poisoned { offset: page * PAGE_SIZE }),
            None => Ok(()),
        }
    }

    /// Heals the pages that a write of the range replaces whole; `size` is the device's, whose last page
    /// may be short. Refuses a write of only a part of a poisoned page, and then heals nothing.
    #[inline]
    pub(crate) fn heal_for_write(&self, offset: u64, len: u64, size: u64) -> Result<()> {
        if self.count.load(Ordering::Acquire) == 0 || len == 0 {
            Ok(())
        } else {
            self.heal(offset, len, size)
        }
    }

    #[cold]
    fn heal(&self, offset: u64, len: u64, size: u64) -> Result<()> {
        let end = offset + len;
        let mut pages = self.pages.lock();
        let touched = offset / PAGE_SIZE..=(end - 1) / PAGE_SIZE;
        for &page in pages.range(touched.clone()) {
            let start = page * PAGE_SIZE;
            if start < offset || end < start.saturating_add(PAGE_SIZE).min(size) {
                return Err(Error::Poisoned { offset: start });
            }
        }
        pages.retain(|page| !touched.contains(page));
        self.count.store(pages.len(), Ordering::Release);
        Ok(())
    }
}
