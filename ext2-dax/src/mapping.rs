//! The pages of a file that are in use: the tree of entries, who maps them, and the locks between
//! faults and truncation (Linux: `struct address_space` as fs/dax.c uses it).
//!
//! # Invariants
//! 1. Whoever installs a translation holds the entry of its range locked, and looked the block map up
//!    **after** locking it. Whoever allocates under a hole invalidates **after** allocating. So a stale
//!    zero page never stays.
//! 2. Entries of 4 KiB and of 2 MiB never overlap. An empty or zero entry of 2 MiB gives way to a 4 KiB
//!    one; nothing ever grows.
//! 3. An entry with a device page is never replaced while its blocks belong to the file.
//! 4. No memory is spent on what was never touched: entries only, in shards that are ordered maps.
//! 5. A dirty entry is made clean only after its translations were write-protected and its bytes
//!    flushed, under its lock: a later store must fault and makes it dirty again.
//!
//! # Locks, outer to inner
//! `io_lock` of the inode (read and write calls only) · `invalidate_lock` (shared: faults; exclusive:
//! truncate and punch) · entry · the turn to tell of blocks · list of translations, shared · a page
//! table · the file system's own · a shard of the tree · a wait queue. A shard is never held while
//! calling out. Nothing waits for an entry while it holds a lock of the file system. Copies to and from
//! the caller's buffer hold neither `invalidate_lock` nor an entry: the buffer may be a mapping of the
//! same range and fault.

mod guard;
mod stored;
#[cfg(all(test, not(loom)))]
mod tests;
mod translations;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ext2_core::plumbing::Taken;
use ext2_core::sync::Mended;

use crate::entry::{Content, Entry, EntryInfo, Order, PMD_PAGES};
use crate::leases::Leases;
use crate::sync::{
    AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, RwLock, RwLockReadGuard,
    RwLockWriteGuard,
};
use crate::trace::{Event, InodeId, Tracer};
use crate::wait::{WaitKey, WaitTable, Wake};

pub use guard::EntryGuard;
pub(crate) use guard::Mark;
use stored::Stored;
pub use stored::StoredRun;
pub use translations::{PrivateCopies, Translations};

#[derive(Debug, Default)]
pub(crate) struct Shard {
    entries: BTreeMap<u64, Entry>,
}

impl Shard {
    /// The entry at, or of 2 MiB around, file page `index`.
    pub(crate) fn find(&self, index: u64) -> Option<(u64, Entry)> {
        if let Some(entry) = self.entries.get(&index) {
            return Some((index, *entry));
        }
        let base = Order::Pmd.round(index);
        self.entries.get(&base).filter(|entry| entry.order() == Order::Pmd).map(|entry| (base, *entry))
    }

    /// The first entry that lies in the unit of `order` around `index`.
    fn find_conflict(&self, index: u64, order: Order) -> Option<(u64, Entry)> {
        match order {
            Order::Pte => self.find(index),
            Order::Pmd => {
                let base = Order::Pmd.round(index);
                self.entries.range(base..base + PMD_PAGES).next().map(|(at, entry)| (*at, *entry))
            }
        }
    }

    pub(crate) fn put(&mut self, index: u64, entry: Entry) {
        self.entries.insert(index, entry);
    }
}

#[cfg(not(loom))]
const SHARDS: u64 = 16;
#[cfg(loom)]
const SHARDS: u64 = 1;

/// The pages of one file; one for each inode in memory.
#[derive(Debug)]
pub struct DaxMapping {
    inode: InodeId,
    tracer: Arc<Tracer>,
    wait: Arc<WaitTable>,
    shards: Box<[Mutex<Shard>]>,
    pages: AtomicU64,
    dirty: AtomicU64,
    translations: RwLock<Vec<Arc<dyn Translations>>>,
    /// How many of them map ahead.
    ahead: AtomicUsize,
    /// How many of them are synchronous: page tables ask, with the list held.
    synchronous: AtomicUsize,
    /// Held by who tells them of blocks.
    telling: Mutex<()>,
    /// The first page that the file will not have when it has become longer; 0 where it does not.
    grows_to: AtomicU64,
    /// What was stored through mappings that are asked, or are gone.
    stored: Mutex<Stored>,
    invalidate_lock: RwLock<()>,
    leases: Leases,
    /// Set while no store through a translation is let through any more.
    stores_stopped: AtomicBool,
    /// Who is inside the old path's reads and writes.
    #[cfg(feature = "buffer-head")]
    pub(crate) dio: crate::dio::DioCount,
}

/// Why there is no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrabError {
    /// A smaller entry is in the way; nobody waits for it.
    Conflict,
    /// The file cannot have so many pages.
    OutOfRange,
}

impl DaxMapping {
    /// The pages of `inode`, none in use.
    #[must_use]
    pub fn new(inode: InodeId, wait: Arc<WaitTable>, tracer: Arc<Tracer>) -> Self {
        Self {
            inode,
            tracer,
            wait,
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::default())).collect(),
            pages: AtomicU64::new(0),
            dirty: AtomicU64::new(0),
            translations: RwLock::new(Vec::new()),
            ahead: AtomicUsize::new(0),
            synchronous: AtomicUsize::new(0),
            telling: Mutex::new(()),
            grows_to: AtomicU64::new(0),
            stored: Mutex::new(Stored::default()),
            invalidate_lock: RwLock::new(()),
            leases: Leases::new(),
            stores_stopped: AtomicBool::new(false),
            #[cfg(feature = "buffer-head")]
            dio: crate::dio::DioCount::new(),
        }
    }

    /// Whose pages these are.
    #[must_use]
    pub fn inode(&self) -> InodeId {
        self.inode
    }

    /// Tells what `event` makes to who listens.
    pub(crate) fn emit(&self, event: impl FnOnce() -> Event) {
        self.tracer.emit(self.inode, event);
    }

    /// Pages that have an entry: 512 for each of 2 MiB (Linux: `nrpages`).
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages.load(Ordering::SeqCst)
    }

    /// Entries that were stored to since they were last written back.
    #[must_use]
    pub fn dirty_entries(&self) -> u64 {
        self.dirty.load(Ordering::SeqCst)
    }

    /// All entries in order: a snapshot that may be old by the time it is looked at.
    #[must_use]
    pub fn entries(&self) -> Vec<EntryInfo> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.lock().entries.iter().map(|(at, entry)| EntryInfo::new(*at, *entry)));
        }
        all.sort_by_key(|info| info.index);
        all
    }

    /// Whose leases keep the blocks where they are.
    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Keeps truncation and punching away while a fault, or a lease being taken, looks at the map.
    pub(crate) fn lock_shared(&self) -> RwLockReadGuard<'_, ()> {
        self.invalidate_lock.read()
    }

    /// Keeps faults away while pages are taken from the file.
    pub(crate) fn lock_exclusive(&self) -> RwLockWriteGuard<'_, ()> {
        self.invalidate_lock.write()
    }

    // ---- who maps the file ----

    /// Adds a memory mapping: from now on it hears of every page that is taken from the file, and of every hole that
    /// is one no more. To be called before the first fault of the mapping is handled.
    pub fn attach(&self, translations: Arc<dyn Translations>) {
        let ahead = usize::from(translations.maps_ahead());
        self.synchronous.fetch_add(usize::from(translations.is_synchronous()), Ordering::SeqCst);
        self.translations.write().push(translations);
        self.ahead.fetch_add(ahead, Ordering::SeqCst);
    }

    /// Removes a memory mapping, which has no translations any more and asks for none.
    pub fn detach(&self, translations: &Arc<dyn Translations>) {
        let mut all = self.translations.write();
        let before = all.len();
        all.retain(|one| !Arc::ptr_eq(one, translations));
        if all.len() < before {
            self.ahead.fetch_sub(usize::from(translations.maps_ahead()), Ordering::SeqCst);
            self.synchronous.fetch_sub(usize::from(translations.is_synchronous()), Ordering::SeqCst);
        }
    }

    /// Whether somebody maps pages that have no entry.
    pub(crate) fn is_mapped_ahead(&self) -> bool {
        self.ahead.load(Ordering::SeqCst) > 0
    }

    /// Tells those who map the pages and are `concerned` that they have blocks, or may have.
    fn tell_published(&self, start: u64, end: u64, concerned: impl Fn(&dyn Translations) -> bool) {
        // One after another: what one has told the first mapping of is not to be stored to before it has told the last.
        let _turn = self.telling.lock();
        match self.translations.read().as_slice() {
            [one] => {
                one.published_alone(start, end);
                one.told(start, end);
            }
            all => {
                let concerned = || all.iter().filter(|one| concerned(&***one));
                concerned().for_each(|one| one.published(start, end));
                concerned().for_each(|one| one.told(start, end));
            }
        }
    }

    /// Tells all who map these pages that they are about to be taken from the file.
    pub(crate) fn tell_going(&self, start: u64, end: u64, why: Taken) {
        for one in self.translations.read().iter() {
            one.going(start, end, why);
        }
    }

    /// Tells those who map ahead that they may map again what was taken.
    pub(crate) fn tell_settled(&self, start: u64, end: u64) {
        for one in self.translations.read().iter() {
            one.settled(start, end);
        }
    }

    /// Makes the file longer by these pages, by `change`. The caller holds the inode's `io` lock exclusive.
    pub(crate) fn grow(&self, start: u64, end: u64, change: impl FnOnce()) {
        self.grows_to.store(end, Ordering::SeqCst);
        self.translations.read().iter().for_each(|one| one.grown(start, end));
        change();
        self.grows_to.store(0, Ordering::SeqCst);
    }

    /// Whether one of those who map the file is synchronous. Takes no lock: it is asked under those of a page table.
    pub(crate) fn is_synchronous(&self) -> bool {
        self.synchronous.load(Ordering::SeqCst) > 0
    }

    /// The first page past the end of a file of so many bytes, which are asked for after it is known whether it becomes longer
    /// at this moment: who maps pages ahead has those that are about to come.
    pub(crate) fn end_page(&self, size: impl FnOnce() -> u64) -> u64 {
        let grows_to = self.grows_to.load(Ordering::SeqCst);
        size().div_ceil(crate::entry::PAGE_SIZE).max(grows_to)
    }

    /// Memory mappings of the file.
    #[must_use]
    pub fn mappings(&self) -> usize {
        self.translations.read().len()
    }

    /// Takes every translation of the file pages `start..end` away, in all address spaces (Linux:
    /// `unmap_mapping_pages`).
    pub(crate) fn unmap(&self, start: u64, end: u64, copies: PrivateCopies) {
        for one in self.translations.read().iter() {
            one.zap(start, end, copies);
        }
    }

    /// As [`unmap`](Self::unmap), for translations that stand for entries: the file has what it had.
    fn unmap_of_entries(&self, start: u64, end: u64) {
        for one in self.translations.read().iter().filter(|one| !one.maps_ahead()) {
            one.zap(start, end, PrivateCopies::Keep);
        }
    }

    pub(crate) fn write_protect(&self, start: u64, end: u64) {
        for one in self.translations.read().iter() {
            one.write_protect(start, end);
        }
    }

    // ---- the end of stores ----

    /// Lets nobody store through a translation any more: all of them are made read-only, and store faults die. Linux:
    /// a file system that is remounted read-only counts its writers instead and is refused.
    pub(crate) fn stop_stores(&self) {
        let _no_faults = self.lock_exclusive();
        self.stores_stopped.store(true, Ordering::SeqCst);
        for one in self.translations.read().iter() {
            one.stop_stores();
        }
    }

    /// Lets stores through again: also through a mapping that is being made, and was to let none through.
    pub(crate) fn resume_stores(&self) {
        let _no_faults = self.lock_exclusive();
        self.stores_stopped.store(false, Ordering::SeqCst);
        for one in self.translations.read().iter() {
            one.resume_stores();
        }
    }

    /// Whether stores are not let through any more. Decided for as long as `invalidate_lock` is held.
    pub(crate) fn are_stores_stopped(&self) -> bool {
        self.stores_stopped.load(Ordering::SeqCst)
    }

    // ---- entries ----

    pub(crate) fn shard(&self, index: u64) -> &Mutex<Shard> {
        // OK to cast: the remainder is below the number of shards.
        &self.shards[((index / PMD_PAGES) % SHARDS) as usize]
    }

    pub(crate) fn shards(&self) -> impl Iterator<Item = &Mutex<Shard>> {
        self.shards.iter()
    }

    fn key(&self, index: u64) -> WaitKey {
        WaitKey { mapping: std::ptr::from_ref(self).addr(), index }
    }

    pub(crate) fn wake(&self, index: u64, whom: Wake) {
        self.wait.wake(self.key(index), whom);
    }

    /// Sleeps until the entry that begins at `index` changes hands or goes away.
    pub(crate) fn wait_for<'a>(&'a self, shard: MutexGuard<'a, Shard>, index: u64) -> MutexGuard<'a, Shard> {
        let ticket = self.wait.enqueue(self.key(index));
        drop(shard);
        ticket.wait();
        self.shard(index).lock()
    }

    /// The entry of `order` around file page `index`, locked; made, empty, if there is none (Linux:
    /// `grab_mapping_entry`). A 4 KiB request inside a 2 MiB entry with blocks gets that entry.
    ///
    /// # Errors
    /// `Conflict` at once, without waiting, when 2 MiB are asked and a 4 KiB entry is there.
    pub fn grab(&self, index: u64, order: Order) -> Result<EntryGuard<'_>, GrabError> {
        if index > u64::MAX / crate::entry::PAGE_SIZE - PMD_PAGES {
            return Err(GrabError::OutOfRange);
        }
        let mut shard = self.shard(index).lock();
        loop {
            let Some((at, entry)) = shard.find_conflict(index, order) else {
                let at = order.round(index);
                let entry = Entry::new(order, Content::Empty);
                shard.put(at, entry.locked());
                self.pages.fetch_add(order.pages(), Ordering::SeqCst);
                return Ok(EntryGuard { mapping: self, at, entry });
            };
            if order == Order::Pmd && entry.order() == Order::Pte {
                return Err(GrabError::Conflict);
            }
            if entry.is_locked() {
                shard = self.wait_for(shard, at);
                continue;
            }
            shard.put(at, entry.locked());
            if order == Order::Pte && entry.order() == Order::Pmd {
                match entry.content() {
                    Content::Page(_) => {}
                    Content::Empty => {
                        self.remove(shard, at);
                        shard = self.downgraded(at);
                        continue;
                    }
                    Content::Zero => {
                        drop(shard);
                        self.unmap_of_entries(at, at + PMD_PAGES);
                        self.remove(self.shard(at).lock(), at);
                        shard = self.downgraded(at);
                        continue;
                    }
                }
            }
            return Ok(EntryGuard { mapping: self, at, entry });
        }
    }

    fn downgraded(&self, at: u64) -> MutexGuard<'_, Shard> {
        self.emit(|| Event::Downgrade { index: at });
        self.shard(at).lock()
    }

    /// Removes the entry at `at` and wakes all who waited for it.
    fn remove(&self, mut shard: MutexGuard<'_, Shard>, at: u64) {
        if let Some(entry) = shard.entries.remove(&at) {
            self.pages.fetch_sub(entry.order().pages(), Ordering::SeqCst);
            if entry.is_dirty() {
                self.dirty.fetch_sub(1, Ordering::SeqCst);
            }
        }
        drop(shard);
        self.wake(at, Wake::All);
    }

    /// File pages at which the entries that touch `start..end` begin, in order.
    pub(crate) fn entries_in(&self, start: u64, end: u64, which: impl Fn(Entry) -> bool) -> Vec<u64> {
        let base = Order::Pmd.round(start);
        let mut found = Vec::new();
        for shard in self.shards() {
            let shard = shard.lock();
            let touching = shard.entries.range(base..end.max(base));
            found.extend(
                touching
                    .filter(|&(at, &entry)| *at + entry.order().pages() > start && which(entry))
                    .map(|(at, _)| *at),
            );
        }
        found.sort_unstable();
        found
    }

    /// The entries that lie partly in `start..end`.
    pub(crate) fn straddling(&self, start: u64, end: u64) -> Vec<EntryInfo> {
        let edges = [start, end.saturating_sub(1)].into_iter().filter_map(|index| {
            let (at, entry) = self.shard(index).lock().find(index)?;
            (at < start || at + entry.order().pages() > end).then(|| EntryInfo::new(at, entry))
        });
        edges.collect()
    }

    /// Whether any of the file pages has an entry or is leased.
    pub(crate) fn is_in_use(&self, pages: &Range<u64>) -> bool {
        let entries = self.pages() > 0 && !self.entries_in(pages.start, pages.end, |_| true).is_empty();
        entries || self.leases.is_busy(pages)
    }

    /// Deletes the entries that touch the file pages `start..end`, dirty or not, waiting for each to be unlocked. That they
    /// were stored to is kept. The caller holds `invalidate_lock` exclusively and has taken the translations away
    /// (Linux: `dax_delete_mapping_entry`).
    pub(crate) fn delete(&self, start: u64, end: u64) {
        for at in self.entries_in(start, end, |_| true) {
            let entry = self.shard(at).lock().entries.get(&at).copied().filter(|entry| entry.is_dirty());
            if let Some((Content::Page(device), order)) = entry.map(|entry| (entry.content(), entry.order()))
            {
                self.keep_stored(&StoredRun { first: at, count: order.pages(), device });
            }
            self.remove_unlocked(at, |_| true);
        }
    }

    /// After blocks were allocated under a hole: removes the clean entries that touch the file pages
    /// `start..end`, and takes all translations of them away, so that whoever maps the hole looks again
    /// (Linux: `invalidate_inode_pages2_range` for DAX).
    pub fn invalidate(&self, start: u64, end: u64) {
        if self.pages() == 0 {
            if self.is_mapped_ahead() {
                self.tell_published(start, end, |_| true);
            }
            return;
        }
        self.emit(|| Event::Invalidate { start, end });
        let is_clean = |entry: Entry| !entry.is_dirty() && !entry.is_towrite();
        // An entry of 2 MiB goes whole, so must every translation that it stands for.
        let (mut first, mut after) = (start, end);
        // Held until the translations are gone: who made a new entry before would not take those of the hole away. One that is
        // locked may be that of a fault which has looked at the hole.
        let mut held = Vec::new();
        for at in self.entries_in(start, end, |entry| is_clean(entry) || entry.is_locked()) {
            let lock = |mut shard: MutexGuard<'_, Shard>, entry: Entry| {
                shard.put(at, entry.locked());
                entry
            };
            if let Some(entry) = self.when_unlocked(at, is_clean, lock) {
                first = first.min(at);
                after = after.max(at + entry.order().pages());
                held.push(at);
            }
        }
        let remove = |at: &u64| self.remove(self.shard(*at).lock(), *at);
        if Mended::EntryGoesFirst.is_back() {
            held.drain(..).for_each(|at| remove(&at));
        }
        self.tell_published(first, after, |_| true);
        held.iter().for_each(remove);
    }

    /// Does something with the entry at `at`, under its shard's lock, if it is `wanted` when it is unlocked.
    fn when_unlocked<'m, T>(
        &'m self,
        at: u64,
        wanted: impl Fn(Entry) -> bool,
        then: impl FnOnce(MutexGuard<'m, Shard>, Entry) -> T,
    ) -> Option<T> {
        let mut shard = self.shard(at).lock();
        while let Some(entry) = shard.entries.get(&at).copied() {
            if entry.is_locked() {
                shard = self.wait_for(shard, at);
            } else if wanted(entry) {
                return Some(then(shard, entry));
            } else {
                // We may have been the one that was woken: hand it on.
                drop(shard);
                self.wake(at, Wake::Next);
                return None;
            }
        }
        None
    }

    /// A fault of the calling thread, which holds the one entry of the file pages `start..end`, gave the file blocks
    /// there, or some: takes the translations of the hole away, in all address spaces, whatever becomes of the fault.
    pub(crate) fn hole_ended(&self, start: u64, end: u64) {
        let is_zero = |entry: Entry| entry.content() == Content::Zero && entry.is_locked();
        let found = (self.pages() > 0).then(|| self.shard(start).lock().find(start)).flatten();
        match found.filter(|(at, entry)| *at < end && is_zero(*entry)) {
            // All at once: none may be stored to while another still has the hole.
            Some((at, _)) => self.unmap_zero(at, &(start..end)),
            None if self.is_mapped_ahead() => self.tell_published(start, end, |one| one.maps_ahead()),
            None => {}
        }
    }

    /// Takes the translations of the zero page at `at` away, and those that there are without entries of the pages `beside`; the
    /// entry, which is locked by the caller, is empty then.
    fn unmap_zero(&self, at: u64, beside: &Range<u64>) {
        let zero =
            |shard: &Shard| shard.entries.get(&at).copied().filter(|entry| entry.content() == Content::Zero);
        let Some(entry) = zero(&self.shard(at).lock()) else { return };
        let (start, end) = (at.min(beside.start), (at + entry.order().pages()).max(beside.end));
        self.tell_published(start, end, |_| true);
        let mut shard = self.shard(at).lock();
        if let Some(entry) = zero(&shard) {
            shard.put(at, entry.with_content(Content::Empty));
        }
    }

    /// Removes the entry at `at` if it is `wanted` when it is unlocked.
    fn remove_unlocked(&self, at: u64, wanted: impl Fn(Entry) -> bool) {
        self.when_unlocked(at, wanted, |shard, _| self.remove(shard, at));
    }

    pub(crate) fn count_dirty(&self, change: i64) {
        if change >= 0 {
            self.dirty.fetch_add(change.unsigned_abs(), Ordering::SeqCst);
        } else {
            self.dirty.fetch_sub(change.unsigned_abs(), Ordering::SeqCst);
        }
    }
}
