//! One range of addresses, and what its pages are made.

use core::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mprotect};

use super::ledger::{Ledger, Placed};
use super::signals::Watched;
use super::stage::{HUGE, Stage, anonymous, unmap};
use super::{HostFaults, HostView, PageRun, StoresBy, abi, pages};
use crate::mem::Media;
use crate::open::io_error;
use crate::{Access, Error, PAGE_SIZE, PmemSlice, Result};

/// Linux 6.1: `MADV_COLLAPSE` of `<linux/mman.h>`, which libc knows for glibc alone.
const MADV_COLLAPSE: libc::c_int = 25;

/// What threads may do in a [`HostSpace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Load.
    Read,
    /// Load, and store to what the file has.
    ReadWrite,
    /// Load, and store to copies of their own.
    Private,
}

/// How pages of a file are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileUse {
    /// As the space's rights say.
    Plain,
    /// Which of them are stored to can be [asked](HostSpace::take_stored). Pages are 4 KiB then.
    Tracked,
    /// For loads alone, whatever the space's rights say.
    Loaded,
}

/// A range of addresses of this process. All of its functions take bytes from its start, in multiples of [`PAGE_SIZE`]: what
/// lies outside is `OutOfRange`, what begins or ends inside a page `Unsupported`.
#[derive(Debug)]
pub struct HostSpace {
    base: Base,
    len: u64,
    rights: Rights,
    pub(super) faults: Option<Arc<HostFaults>>,
    pub(super) by: StoresBy,
    /// What is protected, and what was stored to, where stores are found by protection.
    pub(super) ledger: Option<Arc<Ledger>>,
    pub(super) watched: Option<Watched>,
    /// What stores go to.
    media: Media,
    /// Files are mapped with `MAP_SYNC`.
    is_synchronous: bool,
    /// Kernels before 6.7 are to be done without what came with that.
    pub(super) as_before: bool,
    /// A file without a byte: what lies past the end of a file.
    nothing: OwnedFd,
    stopped: AtomicBool,
    /// Whether nobody has been shown the range yet.
    is_hidden: AtomicBool,
    pub(super) process: u32,
}

#[derive(Clone, Copy, Debug)]
struct Base(*mut u8);

// SAFETY: an address; what is behind it is changed by the kernel's calls, and accessed through `mem` only.
unsafe impl Send for Base {}
// SAFETY: as for `Send`.
unsafe impl Sync for Base {}

/// Mappings that a process may have (`vm.max_map_count`).
#[must_use]
pub fn max_map_count() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(65_530)
}

impl HostSpace {
    /// Reserves `len` bytes at an address that is `residue` modulo 2 MiB. Every page is missing; without `faults`, nothing.
    ///
    /// # Errors
    /// `Io`; `Unsupported` for a range that addresses do not have.
    pub fn reserve(faults: Option<Arc<HostFaults>>, rights: Rights, len: u64, residue: u64) -> Result<Self> {
        crate::sigbus::install();
        super::signals::install();
        let nothing =
            memfd_create("past the end", MemfdFlags::CLOEXEC).map_err(|error| failed("memfd", 0, error))?;
        let start = anonymous(len, residue % HUGE, prot(rights))?;
        let base = Base(start.cast());
        let process = std::process::id();
        let (stopped, is_hidden) = (AtomicBool::new(false), AtomicBool::new(true));
        let space = Self {
            base,
            len,
            rights,
            faults,
            by: StoresBy::Nobody,
            ledger: None,
            watched: None,
            media: Media::Volatile,
            is_synchronous: false,
            as_before: false,
            nothing,
            stopped,
            is_hidden,
            process,
        };
        space.keep_from_children(start, len);
        match &space.faults {
            Some(faults) => space.register(faults, start, len)?,
            None => space.place_end(0, len)?,
        }
        Ok(space)
    }

    /// Says that what is placed is of a file that is persistent memory: what is copied into [`memory`](Self::memory) is written
    /// back at once. To be called before anything is placed. Gives whether a store is durable with its cache line, since the
    /// host's file system makes a block durable before it lets a store to it through (`MAP_SYNC`).
    pub fn synchronise(&mut self, file: BorrowedFd<'_>) -> bool {
        if self.rights == Rights::ReadWrite {
            self.media = Media::Persistent;
        }
        // What is refused may leave a gap where it is placed, so it is asked for elsewhere first.
        self.is_synchronous = self.rights == Rights::ReadWrite && crate::mmap::takes_sync(file);
        self.is_synchronous
    }

    /// Says that from now on somebody may use the range. What is placed before costs less.
    pub fn show(&self) {
        if self.is_hidden.swap(false, Ordering::SeqCst) {
            self.keep_from_children(self.base.0.cast(), self.len);
        }
    }

    /// The first address.
    #[must_use]
    pub fn base(&self) -> *mut u8 {
        self.base.0
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no byte, which none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The byte of the range at `address`.
    #[must_use]
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        address.checked_sub(self.base.0.addr() as u64).filter(|at| *at < self.len)
    }

    /// Its memory, for loads and stores that end with an error where a bare one would be a bus error.
    ///
    /// # Errors
    /// `OutOfRange`.
    pub fn memory(&self, at: u64, len: u64) -> Result<PmemSlice<'_>> {
        crate::range::check(at, len, self.len)?;
        let access = if self.rights == Rights::Read { Access::Read } else { Access::Write };
        // SAFETY: the range lies in what is reserved as long as `self` lives, and allows what the rights say; an access
        // that the kernel refuses is made an error by `mem`. Others access it by atomics and system calls.
        // OK to cast: at most the length, which is reserved.
        Ok(unsafe {
            PmemSlice::from_raw_parts(
                self.base.0.wrapping_add(at as usize),
                len as usize,
                at,
                self.media,
                access,
            )
        })
    }

    pub(super) fn address(&self, at: u64, len: u64) -> Result<*mut c_void> {
        crate::range::check(at, len, self.len)?;
        if len == 0 || !at.is_multiple_of(PAGE_SIZE) || !len.is_multiple_of(PAGE_SIZE) {
            return Err(Error::Unsupported("whole pages only"));
        }
        // OK to cast: inside the range, as was checked.
        Ok(self.base.0.wrapping_add(at as usize).cast())
    }

    /// Makes pages those of a file, from byte `offset` of it on, a multiple of [`PAGE_SIZE`]. With [`FileUse::Tracked`] gives
    /// whether a page was touched before tracking began, so that all may have been stored to.
    ///
    /// # Errors
    /// `Io`: `ENOMEM` where the process has no room for another mapping; then nothing has changed.
    pub fn place_file(
        &self,
        at: u64,
        len: u64,
        file: BorrowedFd<'_>,
        offset: u64,
        how: FileUse,
    ) -> Result<bool> {
        let start = self.address(at, len)?;
        let flags = match self.rights {
            Rights::Private => MapFlags::PRIVATE | MapFlags::NORESERVE,
            Rights::ReadWrite if self.is_synchronous => MapFlags::SHARED_VALIDATE | MapFlags::SYNC,
            Rights::Read | Rights::ReadWrite => MapFlags::SHARED,
        } | MapFlags::FIXED;
        let is_tracked = how == FileUse::Tracked;
        let prot = match self.by {
            _ if how == FileUse::Loaded => ProtFlags::READ,
            StoresBy::Signals { .. } if is_tracked => ProtFlags::READ,
            _ => self.prot(),
        };
        let held = self.hold();
        // SAFETY: the pages are ours to replace: they lie in the range, and who uses them does so by `mem` or promised the
        // like. OK to cast: inside the range.
        unsafe { mmap(start, len as usize, prot, flags, file, offset) }
            .map_err(|error| failed("map", at, error))?;
        if !self.is_hidden.load(Ordering::SeqCst) {
            self.keep_from_children(start, len);
        }
        let (first, after) = (at / PAGE_SIZE, (at + len) / PAGE_SIZE);
        if let Some(held) = &held {
            let what = match how {
                FileUse::Plain => Placed::Open,
                FileUse::Tracked => Placed::File(offset),
                FileUse::Loaded => Placed::Denied,
            };
            held.placed(first, after, what);
        }
        if !is_tracked {
            return Ok(false);
        }
        Ok(self.protect_placed(start.addr() as u64, len).unwrap_or_else(|error| {
            // The pages are there all the same, and all of them count as stored to whenever that is asked.
            log::warn!("stores to pages of a file are not told apart: {error}");
            held.iter().for_each(|held| held.note_all(first, after));
            true
        }))
    }

    /// Asks for pages of 2 MiB, which the host gives where it can. What asks for them and what does not are two mappings of the
    /// kernel, also where they follow one another.
    pub fn ask_for_huge(&self, at: u64, len: u64) {
        if let Ok(start) = self.address(at, len) {
            // SAFETY: a hint about pages of ours. OK to cast: inside the range.
            let _ = unsafe { madvise(start, len as usize, Advice::LinuxHugepage) };
        }
    }

    /// Begins to track a file's pages, where userfaultfd does that. Gives whether some may have been stored to before.
    fn protect_placed(&self, start: u64, len: u64) -> io::Result<bool> {
        let uffd = match (self.by, &self.faults) {
            (StoresBy::Kernel, Some(faults)) => faults.stores.as_ref(),
            (StoresBy::Faults, Some(faults)) => Some(&faults.faults),
            _ => None,
        };
        let Some(uffd) = uffd else { return Ok(false) };
        uffd.register(start, len, abi::MODE_WP)?;
        uffd.protect(start, len, true)?;
        // Who touched a page in between may have stored to it.
        let runs = pages::kinds(start, start + len, self.as_before);
        Ok(runs.map_or(true, |runs| runs.iter().any(|run| run.kind.present)))
    }

    /// Makes pages missing, whatever they are: the next access is told.
    ///
    /// # Errors
    /// `Io`; `Unsupported` where nobody answers faults. Nothing has changed then.
    pub fn place_missing(&self, at: u64, len: u64) -> Result<()> {
        let target = self.address(at, len)?;
        let faults = self.faults.as_ref().ok_or(Error::Unsupported("nobody answers page faults"))?;
        let stage = Stage::new(len, 0, self.prot())?;
        self.keep_from_children(stage.start, len);
        self.register(faults, stage.start, len)?;
        self.replaced(at, len, Placed::Open, || faults.moving(|| stage.put(target)))
    }

    /// Puts something in a place that is no file's from then on.
    fn replaced(&self, at: u64, len: u64, what: Placed, put: impl FnOnce() -> Result<()>) -> Result<()> {
        let held = self.hold();
        put()?;
        if let Some(held) = &held {
            held.placed(at / PAGE_SIZE, (at + len) / PAGE_SIZE, what);
        }
        Ok(())
    }

    /// Makes pages zeros, which are there already as far as they are whole units of 2 MiB and not too many.
    ///
    /// Where stores become private and nobody answers faults, they are of 4 KiB: the kernel would copy the whole unit of
    /// 2 MiB at the first store to it, and 511 pages that nobody stored to would not follow the file any more.
    ///
    /// # Errors
    /// `Io`; nothing has changed then.
    pub fn place_zeros(&self, at: u64, len: u64) -> Result<()> {
        let target = self.address(at, len)?;
        let faults = self.faults.as_ref().filter(|_| self.rights != Rights::Read);
        let prot = if self.faults.is_none() && self.rights == Rights::ReadWrite {
            ProtFlags::READ
        } else {
            self.prot()
        };
        let stage = Stage::new(len, target.addr() as u64 % HUGE, prot)?;
        self.keep_from_children(stage.start, len);
        if faults.is_none() && self.rights == Rights::Private {
            stage.keep_pages_small();
        } else {
            stage.populate_zeros();
        }
        let Some(faults) = faults else {
            let what = if prot == ProtFlags::READ { Placed::Denied } else { Placed::Open };
            return self.replaced(at, len, what, || stage.put(target));
        };
        let address = stage.start.addr() as u64;
        let register = |error| Error::io("register", at, error);
        faults.faults.register(address, len, abi::MODE_WP).map_err(register)?;
        faults.faults.protect(address, len, true).map_err(register)?;
        self.replaced(at, len, Placed::Open, || faults.moving(|| stage.put(target)))
    }

    /// Makes pages ones that no file has: an access is a bus error, and `EFAULT` to the kernel.
    ///
    /// # Errors
    /// `Io`; nothing has changed then.
    pub fn place_end(&self, at: u64, len: u64) -> Result<()> {
        let start = self.address(at, len)?;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // The file was opened for storing, and so it can be mapped with any rights. At the byte of it that comes next, neighbours
        // are one mapping.
        self.replaced(at, len, Placed::Open, || {
            // SAFETY: as in `place_file`.
            unsafe { mmap(start, len as usize, self.prot(), flags, &self.nothing, at) }
                .map(drop)
                .map_err(|error| failed("map", at, error))
        })?;
        if !self.is_hidden.load(Ordering::SeqCst) {
            self.keep_from_children(start, len);
        }
        Ok(())
    }

    /// Makes pages read-only copies of what they are at this moment: what can be done where nobody answers faults.
    /// Pages of nothing stay so.
    ///
    /// # Errors
    /// `Io`; nothing has changed then.
    pub fn place_snapshot(&self, at: u64, len: u64) -> Result<()> {
        let target = self.address(at, len)?;
        let stage = Stage::new(len, 0, ProtFlags::READ | ProtFlags::WRITE)?;
        self.keep_from_children(stage.start, len);
        let mut page = [0; PAGE_SIZE as usize];
        for done in (0..len).step_by(PAGE_SIZE as usize) {
            if self.memory(at + done, PAGE_SIZE)?.copy_out(0, &mut page).is_ok() {
                // SAFETY: the stage has `len` bytes, is mapped for storing, and nobody else has its address.
                unsafe {
                    core::ptr::copy_nonoverlapping(
                        page.as_ptr(),
                        stage.start.cast::<u8>().wrapping_add(done as usize),
                        page.len(),
                    )
                };
            }
        }
        // SAFETY: pages of the stage, which stay mapped.
        unsafe { mprotect(stage.start, len as usize, MprotectFlags::READ) }
            .map_err(|error| failed("protect", at, error))?;
        self.replaced(at, len, Placed::Denied, || stage.put(target))
    }

    /// Puts a private copy where a page is missing, and wakes who waits for it. With `protect` a store to it is told. False
    /// where a page is there.
    ///
    /// # Errors
    /// `Io`; `Unsupported` where nobody answers faults.
    pub fn copy_page(&self, at: u64, page: &[u8; PAGE_SIZE as usize], protect: bool) -> Result<bool> {
        let start = self.address(at, PAGE_SIZE)?;
        let faults = self.faults.as_ref().ok_or(Error::Unsupported("nobody answers page faults"))?;
        faults.faults.copy(start.addr() as u64, page, protect).map_err(|error| Error::io("copy", at, error))
    }

    /// Lets stores to protected pages through, which become private, and wakes who waits.
    ///
    /// # Errors
    /// `Io`; `Unsupported` where nobody answers faults.
    pub fn unprotect(&self, at: u64, len: u64) -> Result<()> {
        let start = self.address(at, len)?;
        let faults = self.faults.as_ref().ok_or(Error::Unsupported("nobody answers page faults"))?;
        faults
            .faults
            .protect(start.addr() as u64, len, false)
            .map_err(|error| Error::io("protect", at, error))
    }

    /// Lets those who wait for these pages try again.
    ///
    /// # Errors
    /// `Io`.
    pub fn wake(&self, at: u64, len: u64) -> Result<()> {
        let start = self.address(at, len)?;
        if self.is_hidden.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.faults.as_ref().map_or(Ok(()), |faults| faults.wake(start.addr() as u64, len))
    }

    /// What the pages are, as the kernel has it; those that are not there are left out. Addresses are bytes of the range.
    ///
    /// # Errors
    /// `Io`.
    pub fn kinds(&self, at: u64, len: u64) -> Result<Vec<PageRun>> {
        let start = self.address(at, len)?.addr() as u64;
        let base = self.base.0.addr() as u64;
        let runs =
            pages::kinds(start, start + len, self.as_before).map_err(|error| Error::io("scan", at, error))?;
        Ok(runs
            .into_iter()
            .map(|run| PageRun { start: run.start - base, end: run.end - base, ..run })
            .collect())
    }

    /// What /proc/self/smaps says of pages.
    ///
    /// # Errors
    /// `Io`.
    pub fn view(&self, at: u64, len: u64) -> Result<HostView> {
        let start = self.address(at, len)?.addr() as u64;
        HostView::of(start, start + len).map_err(|error| Error::io("read", at, error))
    }

    /// Reads from byte `offset` of `source` straight into `at..at + len` (`pread`). Gives the bytes read; fewer where the file
    /// ends, and where a page cannot be supplied. A disk may store to pages that were taken away meanwhile: the caller keeps them.
    ///
    /// # Errors
    /// `Io`: `EFAULT` where not even the first page can be supplied or stored to; the file's.
    pub fn read_from(&self, at: u64, len: u64, source: BorrowedFd<'_>, offset: u64) -> Result<u64> {
        crate::range::check(at, len, self.len)?;
        let to = self.base.0.wrapping_add(at as usize);
        let offset =
            libc::off_t::try_from(offset).map_err(|_| Error::Unsupported("files have no such byte"))?;
        // SAFETY: the range lies in ours, where the kernel may store as anybody else may.
        let done = unsafe { libc::pread(source.as_raw_fd(), to.cast(), len as usize, offset) };
        u64::try_from(done).map_err(|_| io_error("read", at, io::Error::last_os_error()))
    }

    /// Writes `at..at + len` straight to byte `offset` of `sink` (`pwrite`). Gives the bytes written. As in
    /// [`read_from`](Self::read_from) the caller keeps the pages.
    ///
    /// # Errors
    /// `Io`: `EFAULT` where not even the first page can be supplied; the file's.
    pub fn write_to(&self, at: u64, len: u64, sink: BorrowedFd<'_>, offset: u64) -> Result<u64> {
        crate::range::check(at, len, self.len)?;
        let from = self.base.0.wrapping_add(at as usize);
        let offset =
            libc::off_t::try_from(offset).map_err(|_| Error::Unsupported("files have no such byte"))?;
        // SAFETY: the range lies in ours, and is only read.
        let done = unsafe { libc::pwrite(sink.as_raw_fd(), from.cast(), len as usize, offset) };
        u64::try_from(done).map_err(|_| io_error("write", at, io::Error::last_os_error()))
    }

    /// Asks the kernel to put the pages of a unit of 2 MiB that begins at byte `at` into one page of 2 MiB and to map that,
    /// which copies them once (`MADV_COLLAPSE`, Linux 6.1). False where it cannot.
    ///
    /// # Errors
    /// `OutOfRange`; `Unsupported` for a byte that begins no page.
    pub fn collapse(&self, at: u64) -> Result<bool> {
        let start = self.address(at, HUGE)?;
        // SAFETY: pages of ours, whose contents stay what they are.
        Ok(unsafe { libc::madvise(start, HUGE as usize, MADV_COLLAPSE) } == 0)
    }

    /// Makes every access to the range `SIGSEGV`. It needs nothing that there could be too little of, and so is what is left
    /// where pages have to go and nothing else can be done.
    ///
    /// # Errors
    /// `Io`.
    pub fn close_off(&self) -> Result<()> {
        let start = self.address(0, self.len)?;
        self.replaced(0, self.len, Placed::Denied, || {
            // SAFETY: pages of ours, which stay mapped.
            unsafe { mprotect(start, self.len as usize, MprotectFlags::empty()) }
                .map_err(|error| failed("protect", 0, error))
        })
    }

    pub(super) fn rights(&self) -> Rights {
        self.rights
    }

    pub(super) fn note_stopped(&self, stopped: bool) {
        self.stopped.store(stopped, Ordering::SeqCst);
    }

    fn prot(&self) -> ProtFlags {
        if self.stopped.load(Ordering::SeqCst) { ProtFlags::READ } else { prot(self.rights) }
    }

    fn register(&self, faults: &HostFaults, start: *mut c_void, len: u64) -> Result<()> {
        let mode = abi::MODE_MISSING | abi::MODE_WP;
        faults
            .faults
            .register(start.addr() as u64, len, mode)
            .map_err(|error| Error::io("register", 0, error))
    }

    /// A failure changes nothing of what this process sees, and so is none of the call that met it.
    fn keep_from_children(&self, start: *mut c_void, len: u64) {
        // SAFETY: pages of ours; the call changes what `fork` does with them.
        if let Err(error) = unsafe { madvise(start, len as usize, Advice::LinuxDontFork) } {
            log::warn!("a child of fork would inherit pages of an image: {error}");
        }
    }
}

impl Drop for HostSpace {
    fn drop(&mut self) {
        if self.is_ours() {
            // No handler of signals changes what lies at these addresses later.
            self.watched = None;
            unmap(self.base.0.cast(), self.len);
            // Who waits for a page, against the rules, is told by the signal and does not wait for ever.
            if let Some(faults) = &self.faults {
                let _ = faults.wake(self.base.0.addr() as u64, self.len);
            }
        }
    }
}

fn prot(rights: Rights) -> ProtFlags {
    match rights {
        Rights::Read => ProtFlags::READ,
        Rights::ReadWrite | Rights::Private => ProtFlags::READ | ProtFlags::WRITE,
    }
}

pub(super) fn failed(op: &'static str, at: u64, error: rustix::io::Errno) -> Error {
    io_error(op, at, io::Error::from(error))
}
