//! One mapping of a software address space: loads, stores, and the faults that they take.

use std::sync::Arc;

use ext2_core::sync::Mended;

use super::tables::{Found, Tables, Translation, Wish, memory};
use super::{Counters, Counts, Died, HugeZeroPage, Signal, SoftMmu};
use crate::entry::PAGE_SIZE;
use crate::error::Result;
use crate::fault::{FaultRequest, FaultResult, StoreOrLoad};
use crate::mapping::{PrivateCopies, Translations};
use crate::mmu::{
    self, CowPage, PageTable, Protection, Sharing, Slot, SlotTaken, Target, VmFile, Vma, Writable,
};
use crate::sync::{Ordering, RwLock};
use crate::trace::InodeId;

/// How often a fault that changed nothing is retried before the access is given up. A kernel retries
/// for ever; a handler that says "done" and maps nothing would hang a test.
const PATIENCE: u32 = 10_000;

/// A mapping with its page tables.
#[derive(Debug)]
pub(crate) struct Area {
    vma: Vma,
    file: Arc<dyn VmFile>,
    tables: RwLock<Tables>,
    counts: Arc<Counts>,
    huge_zero: HugeZeroPage,
}

impl Area {
    pub(super) fn new(
        vma: Vma,
        file: Arc<dyn VmFile>,
        counts: Arc<Counts>,
        huge_zero: HugeZeroPage,
    ) -> Arc<Self> {
        Arc::new(Self { vma, file, tables: RwLock::new(Tables::default()), counts, huge_zero })
    }

    pub(super) fn vma(&self) -> &Vma {
        &self.vma
    }

    pub(super) fn attach(self: &Arc<Self>) {
        let translations: Arc<dyn Translations> = Arc::<Self>::clone(self);
        self.file.pages().attach(translations);
    }

    pub(super) fn detach(self: &Arc<Self>) {
        self.tables.write().kill();
        let translations: Arc<dyn Translations> = Arc::<Self>::clone(self);
        self.file.pages().detach(&translations);
    }

    pub(super) fn count(&self, counters: &mut Counters) {
        self.tables.read().count(counters);
    }

    pub(super) fn load(&self, address: u64, buf: &mut [u8]) -> Result<(), Died> {
        let mut done = 0;
        while done < buf.len() {
            let at = address + done as u64;
            let len = piece(at, buf.len() - done);
            self.access(at, Wish::Load, |found| match found {
                Found::Zero => {
                    buf[done..done + len].fill(0);
                    Some(Ok(()))
                }
                Found::Copy(page) => {
                    buf[done..done + len].copy_from_slice(&page[within(at)..within(at) + len]);
                    Some(Ok(()))
                }
                Found::Page(page) => Some(
                    memory(self.file.memory(), page, Wish::Load)
                        .and_then(|slice| slice.copy_out(at % PAGE_SIZE, &mut buf[done..done + len]))
                        .map_err(|_| Signal::Bus),
                ),
                Found::Missing | Found::ReadOnly => None,
            })
            .map_err(|signal| Died { signal, done: done as u64 })?;
            done += len;
        }
        Ok(())
    }

    pub(super) fn store(&self, address: u64, bytes: &[u8]) -> Result<(), Died> {
        let mut done = 0;
        while done < bytes.len() {
            let at = address + done as u64;
            let len = piece(at, bytes.len() - done);
            let data = &bytes[done..done + len];
            self.store_page(at, data).map_err(|signal| Died { signal, done: done as u64 })?;
            done += len;
        }
        Ok(())
    }

    fn store_page(&self, at: u64, data: &[u8]) -> Result<(), Signal> {
        if self.vma.protection == Protection::ReadOnly {
            return Err(Signal::Segv);
        }
        loop {
            let mut private = false;
            self.access(at, Wish::Store, |found| match found {
                Found::Copy(_) => {
                    private = true;
                    Some(Ok(()))
                }
                Found::Page(page) => Some(
                    memory(self.file.memory(), page, Wish::Store)
                        .and_then(|slice| slice.copy_in_cached(at % PAGE_SIZE, data))
                        .map_err(|_| Signal::Bus),
                ),
                Found::Zero | Found::Missing | Found::ReadOnly => None,
            })?;
            if !private {
                return Ok(());
            }
            // Private memory is plain memory: storing to it needs the tables for ourselves.
            if let Some(page) = self.tables.write().copy_mut(at) {
                page[within(at)..within(at) + data.len()].copy_from_slice(data);
                return Ok(());
            }
        }
    }

    /// Does `access` with what is mapped at `at`, faulting until it is content.
    fn access(
        &self,
        at: u64,
        wish: Wish,
        mut access: impl FnMut(Found<'_>) -> Option<Result<(), Signal>>,
    ) -> Result<(), Signal> {
        if at >= self.vma.end {
            return Err(Signal::Segv);
        }
        for _ in 0..PATIENCE {
            let tables = self.tables.read();
            if tables.is_dead() {
                // Somebody unmapped it meanwhile.
                return Err(Signal::Segv);
            }
            if let Some(result) = access(tables.find(at, wish)) {
                return result;
            }
            drop(tables);
            let result = self.handle_fault(at, wish);
            if result.contains(FaultResult::SIGSEGV) {
                return Err(Signal::Segv);
            }
            if result.is_error() {
                return Err(Signal::Bus);
            }
        }
        log::error!(target: "ext2_dax::mmu", "a fault at {at:#x} was handled {PATIENCE} times in vain");
        Err(Signal::Bus)
    }

    /// Brings in, or makes writable, what is at `address` (Linux: `__handle_mm_fault`).
    fn handle_fault(&self, address: u64, wish: Wish) -> FaultResult {
        let access = if wish == Wish::Store { StoreOrLoad::Store } else { StoreOrLoad::Load };
        let request = FaultRequest { vma: &self.vma, table: self, address, access };
        let slot = self.slot(address);
        // A private store to what a 2 MiB translation maps copies one page: no use asking for 2 MiB.
        let copies = slot == Slot::Huge && wish == Wish::Store && !self.vma.is_shared();
        if copies {
            self.split(address);
        } else if slot != Slot::Table && self.file.has_huge_faults() {
            self.counts.pmd_faults.fetch_add(1, Ordering::Relaxed);
            let result = self.file.huge_fault(&request);
            if !result.contains(FaultResult::FALLBACK) {
                return self.noted(result);
            }
            self.counts.pmd_fallbacks.fetch_add(1, Ordering::Relaxed);
            self.split(address);
        } else if wish == Wish::Store && !self.vma.is_shared() {
            // A store to a private page that is mapped read-only: the copy is made here, the file is
            // not asked (Linux: `wp_page_copy`).
            if self.copy_on_write(address) {
                return FaultResult::DONE_COW;
            }
        }
        self.counts.pte_faults.fetch_add(1, Ordering::Relaxed);
        self.noted(self.file.fault(&request))
    }

    fn noted(&self, result: FaultResult) -> FaultResult {
        if result.contains(FaultResult::MAJOR) {
            self.counts.major.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Replaces the translation at `address` by a private copy of what it leads to, if there is one. In
    /// one go under the tables' lock: a page that truncation takes meanwhile must not live on as a copy.
    fn copy_on_write(&self, address: u64) -> bool {
        let mut copy: CowPage = Box::new([0; PAGE_SIZE as usize]);
        let mut tables = self.tables.write();
        let read = match tables.find(address, Wish::Load) {
            // Another thread has made it meanwhile.
            Found::Copy(_) if !Mended::CopiesReplaced.is_back() => return true,
            Found::Zero => true,
            Found::Page(page) => memory(self.file.memory(), page, Wish::Load)
                .and_then(|slice| slice.copy_out(0, &mut copy[..]))
                .is_ok(),
            Found::Copy(_) | Found::Missing | Found::ReadOnly => false,
        };
        if read {
            tables.map_copy(address, copy);
            self.counts.copies.fetch_add(1, Ordering::Relaxed);
        }
        read
    }
}

impl Translations for Area {
    fn zap(&self, start: u64, end: u64, copies: PrivateCopies) {
        if let Some((start, end)) = self.vma.addresses_of(start, end) {
            self.tables.write().zap(start, end, copies);
        }
    }

    fn write_protect(&self, start: u64, end: u64) {
        if let Some((start, end)) = self.vma.addresses_of(start, end) {
            self.tables.write().write_protect(start, end);
        }
    }

    fn is_synchronous(&self) -> bool {
        self.vma.sharing == Sharing::Synchronous
    }
}

impl PageTable for Area {
    fn slot(&self, address: u64) -> Slot {
        self.tables.read().slot(address)
    }

    fn has_huge_zero_page(&self) -> bool {
        self.huge_zero == HugeZeroPage::Available
    }

    fn map_pte(&self, address: u64, target: Target, writable: Writable) {
        self.tables.write().map_pte(address, target, writable);
    }

    fn map_pmd(&self, address: u64, target: Target, writable: Writable) -> Result<(), SlotTaken> {
        self.tables.write().map_pmd(address, target, writable)
    }

    fn map_copy(&self, address: u64, page: CowPage) {
        self.counts.copies.fetch_add(1, Ordering::Relaxed);
        self.tables.write().map_copy(address, page);
    }

    fn split(&self, address: u64) {
        self.tables.write().split(address);
    }
}

/// Bytes of `len` that lie in the page around `at`.
fn piece(at: u64, len: usize) -> usize {
    // OK to cast: at most a page.
    len.min((PAGE_SIZE - at % PAGE_SIZE) as usize)
}

fn within(at: u64) -> usize {
    // OK to cast: below a page.
    (at % PAGE_SIZE) as usize
}

/// A mapping of a file, unmapped when dropped.
#[derive(Debug)]
pub struct SoftMap {
    mmu: Arc<SoftMmu>,
    area: Arc<Area>,
}

impl SoftMap {
    pub(super) fn new(mmu: Arc<SoftMmu>, area: Arc<Area>) -> Self {
        Self { mmu, area }
    }

    /// Its range and what may be done with it.
    #[must_use]
    pub fn vma(&self) -> &Vma {
        self.area.vma()
    }

    /// The inode that is mapped.
    #[must_use]
    pub fn inode(&self) -> InodeId {
        self.area.file.pages().inode()
    }

    /// What the page tables of the mapping hold now, in order of addresses.
    #[must_use]
    pub fn translations(&self) -> Vec<Translation> {
        self.area.tables.read().list()
    }

    /// The address space it is in.
    #[must_use]
    pub fn mmu(&self) -> &Arc<SoftMmu> {
        &self.mmu
    }

    /// The address of byte `offset` of the mapping.
    fn address(&self, offset: u64) -> Result<u64, Signal> {
        self.vma().start.checked_add(offset).ok_or(Signal::Segv)
    }

    /// Loads the byte at `offset` of the mapping.
    ///
    /// # Errors
    /// The signal that a process would get.
    pub fn load(&self, offset: u64) -> Result<u8, Signal> {
        let mut byte = [0];
        self.area.load(self.address(offset)?, &mut byte).map_err(|died| died.signal)?;
        Ok(byte[0])
    }

    /// Stores a byte at `offset` of the mapping.
    ///
    /// # Errors
    /// The signal that a process would get.
    pub fn store(&self, offset: u64, byte: u8) -> Result<(), Signal> {
        self.area.store(self.address(offset)?, &[byte]).map_err(|died| died.signal)
    }

    /// Loads `buf.len()` bytes from `offset` of the mapping on.
    ///
    /// # Errors
    /// The signal, and how far it went.
    pub fn load_bytes(&self, offset: u64, buf: &mut [u8]) -> Result<(), Died> {
        let address = self.address(offset).map_err(|signal| Died { signal, done: 0 })?;
        self.area.load(address, buf)
    }

    /// Stores `bytes` from `offset` of the mapping on.
    ///
    /// # Errors
    /// The signal, and how far it went.
    pub fn store_bytes(&self, offset: u64, bytes: &[u8]) -> Result<(), Died> {
        let address = self.address(offset).map_err(|signal| Died { signal, done: 0 })?;
        self.area.store(address, bytes)
    }

    /// Makes what was stored to `len` bytes from `offset` of the mapping durable (`msync(MS_SYNC)`).
    /// `len` is rounded up to pages. For a private mapping there is nothing to do, nor for one for loads of a file that is open
    /// for reading only; any other makes durable what others have stored and written, as on Linux.
    ///
    /// # Errors
    /// `EINVAL` for an offset that is no multiple of the page size; `ENOMEM`, after what there is was
    /// written, for a range that ends past the mapping; the file's.
    pub fn msync(&self, offset: u64, len: u64) -> Result<()> {
        mmu::msync(&*self.area.file, self.vma(), offset, len)
    }
}

impl Drop for SoftMap {
    fn drop(&mut self) {
        self.mmu.remove(self.vma().start);
    }
}
