//! A mapping as its user holds it.

use std::os::fd::AsFd;
use std::sync::Arc;

use blockdev::PmemSlice;
use blockdev::host_map::{HostView, PageRun, StoresBy};

use super::HostMmu;
use super::area::Area;
use super::explain::{HostUnit, Why};
use super::runs::Kind;
use crate::entry::PAGE_SIZE;
use crate::error::{Errno, Error, Result};
use crate::fault::StoreOrLoad;
use crate::lease::PageLease;
use crate::mapping::StoredRun;
use crate::mmu::soft::{Died, Signal};
use crate::mmu::{self, Protection, Vma};

/// A mapping of a file in this process, unmapped when dropped. It is not there in a child of `fork`.
#[derive(Debug)]
pub struct HostMap {
    mmu: Arc<HostMmu>,
    area: Arc<Area>,
}

/// How often a page is asked for that others take away.
const TRIES: usize = 1000;

impl HostMap {
    pub(super) fn new(mmu: Arc<HostMmu>, area: Arc<Area>) -> Self {
        Self { mmu, area }
    }

    /// Its range and what may be done with it.
    #[must_use]
    pub fn vma(&self) -> &Vma {
        self.area.vma()
    }

    /// Who serves it.
    #[must_use]
    pub fn mmu(&self) -> &Arc<HostMmu> {
        &self.mmu
    }

    /// The first address. A bare access follows the rules of memory that is mapped from a file: a byte past the end of the
    /// file is `SIGBUS`, others may change what is there at any time, and a store to a mapping for reading is `SIGSEGV`.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.area.space.base()
    }

    /// The first address, for stores.
    #[must_use]
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.area.space.base()
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.area.space.len()
    }

    /// Whether it has no byte, which none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes, as an index.
    pub(super) fn bytes(&self) -> usize {
        // OK to cast: it is mapped.
        self.len() as usize
    }

    /// `len` bytes from `offset` on: copies, and loads and stores of single words, which give errors where a bare access is
    /// a bus error. A store to a mapping for reading is refused.
    ///
    /// # Errors
    /// The range is not all mapped.
    pub fn slice(&self, offset: u64, len: u64) -> Result<PmemSlice<'_>> {
        Ok(self.area.space.memory(offset, len)?)
    }

    /// Loads the byte at `offset`.
    ///
    /// # Errors
    /// The signal that a bare load would be.
    pub fn load(&self, offset: u64) -> Result<u8, Signal> {
        let mut byte = [0];
        self.try_load(offset, &mut byte).map_err(|died| died.signal)?;
        Ok(byte[0])
    }

    /// Stores a byte at `offset`.
    ///
    /// # Errors
    /// The signal that a bare store would be.
    pub fn store(&self, offset: u64, byte: u8) -> Result<(), Signal> {
        self.try_store(offset, &[byte]).map_err(|died| died.signal)
    }

    /// Loads `buf.len()` bytes from `offset` on, page by page.
    ///
    /// # Errors
    /// The signal that a bare load would be, and how far it went.
    pub fn try_load(&self, offset: u64, buf: &mut [u8]) -> Result<(), Died> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset.saturating_add(done as u64);
            let len = piece(at, buf.len() - done);
            let died = |signal| Died { signal, done: done as u64 };
            let memory = self.area.space.memory(at, len as u64).map_err(|_| died(Signal::Segv))?;
            let buf = &mut buf[done..done + len];
            let page = self.vma().pgoff + at / PAGE_SIZE;
            if memory.copy_out(0, buf).is_err() {
                // Where nobody answers faults, a page that could not be mapped when it came is tried once more.
                self.area.map_again(page).map_err(|_| died(Signal::Bus))?;
                memory.copy_out(0, buf).map_err(|_| died(Signal::Bus))?;
            }
            done += len;
        }
        Ok(())
    }

    /// Stores `bytes` from `offset` on, page by page. Where nobody answers faults this is how a hole is stored to.
    ///
    /// # Errors
    /// The signal that a bare store would be, and how far it went. After the file system was closed it is
    /// [`Signal::Bus`].
    pub fn try_store(&self, offset: u64, bytes: &[u8]) -> Result<(), Died> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset.saturating_add(done as u64);
            let len = piece(at, bytes.len() - done);
            let died = |signal| Died { signal, done: done as u64 };
            let memory = self.area.space.memory(at, len as u64).map_err(|_| died(Signal::Segv))?;
            if self.vma().protection == Protection::ReadOnly {
                return Err(died(Signal::Segv));
            }
            let page = self.vma().pgoff + at / PAGE_SIZE;
            self.store_page(page, &memory, &bytes[done..done + len]).map_err(|_| died(Signal::Bus))?;
            done += len;
        }
        Ok(())
    }

    /// Stores to one page. Where nobody answers faults, this is who makes the page one that can be stored to, and no page is
    /// taken away meanwhile: one that is on its way can be read and not stored to.
    fn store_page(&self, page: u64, memory: &PmemSlice<'_>, bytes: &[u8]) -> Result<()> {
        for _ in 0..TRIES {
            let state = self.area.state();
            if state.stopped && self.vma().is_shared() {
                return Err(Error::refused(Errno::ROFS, "the file system is closed"));
            }
            if self.area.is_answered() {
                drop(state);
                return Ok(memory.copy_in_cached(0, bytes)?);
            }
            match state.runs.kind(page) {
                Some(Kind::Zeros | Kind::Shown(_) | Kind::Missing) if self.vma().is_shared() => {
                    drop(state);
                    self.area.fault(page, StoreOrLoad::Store)?;
                }
                Some(Kind::Missing) => {
                    drop(state);
                    // Until whoever takes pages away is done.
                    drop(self.area.file.pages().lock_shared());
                }
                Some(Kind::End) if page < self.area.file.end_page() => {
                    drop(state);
                    if !self.area.map_again(page)? {
                        break;
                    }
                }
                _ => return Ok(memory.copy_in_cached(0, bytes)?),
            }
        }
        Err(Error::refused(Errno::AGAIN, "the page is taken away over and over"))
    }

    /// Reads from byte `pos` of a file of the host straight into `len` bytes from `offset` (`pread`), with no copy in between.
    /// Gives the bytes read. The range is leased meanwhile: truncating and punching it waits, or is `EBUSY`.
    ///
    /// # Errors
    /// `EFAULT` where the first page cannot be supplied: past the end of the file, in a mapping for reading, in a hole where
    /// nobody answers faults; and in a page that was taken away and not touched since, if accesses by the kernel
    /// [do not wait](blockdev::host_map::Features::kernel_faults). The file's.
    pub fn read_from(&self, offset: u64, len: u64, source: impl AsFd, pos: u64) -> Result<u64> {
        let (source, mut done) = (source.as_fd(), 0);
        let _lease = self.lease(offset, len);
        loop {
            let at = offset.saturating_add(done);
            let read = self.area.space.read_from(at, len - done, source, pos.saturating_add(done));
            match read.map_err(Error::from) {
                Ok(0) => return Ok(done),
                Ok(read) => done += read,
                // The kernel does not store to pages that are protected to find stores: they are noted first.
                Err(error) if error.is(Errno::FAULT) => {
                    let page = self.vma().pgoff + at / PAGE_SIZE;
                    if !self.area.allow_stores(page)? {
                        return if done > 0 { Ok(done) } else { Err(error) };
                    }
                }
                Err(error) => return if done > 0 { Ok(done) } else { Err(error) },
            }
            if done == len {
                return Ok(done);
            }
        }
    }

    /// Writes `len` bytes from `offset` straight to byte `pos` of a file of the host (`pwrite`). Gives the bytes written. The
    /// range is leased as in [`read_from`](Self::read_from).
    ///
    /// # Errors
    /// As for [`read_from`](Self::read_from).
    pub fn write_to(&self, offset: u64, len: u64, sink: impl AsFd, pos: u64) -> Result<u64> {
        let _lease = self.lease(offset, len);
        Ok(self.area.space.write_to(offset, len, sink.as_fd(), pos)?)
    }

    /// Keeps the blocks of a range where they are: a disk of the host loads and stores by the pages themselves (`O_DIRECT`), and
    /// goes on when their addresses are something else.
    fn lease(&self, offset: u64, len: u64) -> PageLease {
        let (first, after) = self.area.pages();
        let page = |byte: u64| first.saturating_add(byte).min(after);
        let pages = page(offset / PAGE_SIZE)..page(offset.saturating_add(len).div_ceil(PAGE_SIZE));
        PageLease::take(self.area.file.pages(), pages, || ()).0
    }

    /// Makes what was stored to `len` bytes from `offset` of the mapping durable (`msync(MS_SYNC)`).
    ///
    /// # Errors
    /// As for [`SoftMap::msync`](crate::mmu::soft::SoftMap::msync).
    pub fn msync(&self, offset: u64, len: u64) -> Result<()> {
        mmu::msync(&*self.area.file, self.vma(), offset, len)
    }

    /// The file pages that were stored to since this was last asked, or written back; exact where stores are
    /// [tracked](super::Tracking::Pages), and elsewhere all that are mapped for storing. What is taken here is written back by
    /// the next sync all the same.
    #[must_use]
    pub fn take_stored(&self) -> Vec<StoredRun> {
        self.area.file.pages().take_over_stored(&*self.area)
    }

    /// Who finds stores through this mapping.
    #[must_use]
    pub fn stores_by(&self) -> StoresBy {
        self.area.space.stores_by()
    }

    /// What DAX decided and what the kernel made of it, unit by unit of 2 MiB of addresses.
    ///
    /// # Errors
    /// The system's.
    pub fn explain(&self) -> Result<Vec<HostUnit>> {
        self.area.explain()
    }

    /// Asks the kernel for pages of 2 MiB where everything allows them but the host's own pages are of 4 KiB
    /// ([`Why::Host`], and units that nobody touched). It copies each such unit once, in the host's memory; the image stays what
    /// it is. Gives how many units became one translation.
    ///
    /// A unit can be one where its blocks are one aligned run: `e2dax align` makes files so.
    ///
    /// # Errors
    /// The system's.
    pub fn collapse(&self) -> Result<u64> {
        let mut done = 0;
        for unit in self.explain()? {
            let may_be_one = matches!(unit.why, Why::Host | Why::Untouched) && self.area.may_be_huge(&unit);
            if may_be_one && self.area.space.collapse(self.area.byte(unit.first))? {
                done += 1;
            }
        }
        Ok(done)
    }

    /// What the kernel says of its mappings in the range (smaps).
    ///
    /// # Errors
    /// The system's.
    pub fn view(&self) -> Result<HostView> {
        Ok(self.area.space.view(0, self.len())?)
    }

    /// What the kernel says of the pages in the range (pagemap), by bytes of the mapping; those that are not there are left
    /// out.
    ///
    /// # Errors
    /// The system's.
    pub fn page_kinds(&self) -> Result<Vec<PageRun>> {
        Ok(self.area.space.kinds(0, self.len())?)
    }
}

/// Bytes of `len` that lie in the page around `at`.
fn piece(at: u64, len: usize) -> usize {
    // OK to cast: at most a page.
    len.min((PAGE_SIZE - at % PAGE_SIZE) as usize)
}

impl Drop for HostMap {
    fn drop(&mut self) {
        self.area.detach();
    }
}
