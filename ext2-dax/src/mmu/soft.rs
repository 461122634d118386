//! A memory management unit in software: address spaces whose loads and stores go through page tables
//! that the fault handlers fill.
//!
//! One [`SoftMmu`] is one address space (Linux: `struct mm_struct`). Several may map the same file;
//! each [`SoftMap`] is one mapping. Nothing is mapped before it is touched, and there is no
//! fault-around: a fault brings in one page, or one unit of 2 MiB.
//!
//! # Invariants
//! 1. A load or store is made under the tables' lock, shared; taking translations away needs it
//!    exclusively. So when [`Translations::zap`](crate::mapping::Translations::zap) returns no access
//!    through what it took is under way, and truncation may free the blocks.
//! 2. A place of 2 MiB holds a table of 4 KiB translations or one of 2 MiB, never both.
//! 3. Every mapping begins in a 2 MiB place of its own, so no two share a table.
//!
//! Lock order: the list of mappings; then, per mapping, who maps its file, and its tables. None is held during a fault.
//!
//! ```
//! use ext2_core::Follow;
//! use ext2_dax::mmu::soft::{MapRequest, SoftMmu};
//! use ext2_dax::mmu::{Protection, Sharing};
//! use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};
//! # let fs = ext2_core::Ext2::open(ext2_image::mkfs::in_memory(32 << 20)?, &Default::default())?;
//!
//! fs.write("unit", vec![1; 2 << 20])?;
//! let dax = DaxFs::new(fs.clone(), DaxOptions::default());
//! let file = File::open(&dax, fs.resolve("unit", Follow::Yes)?, OpenFor::Reading)?;
//! let (sharing, protection) = (Sharing::Shared, Protection::ReadOnly);
//!
//! // A file that grew to 2 MiB lies in one aligned run, so that one translation maps it...
//! let (aligned, shifted) = (SoftMmu::new(), SoftMmu::new());
//! let map = file.map(&aligned, &MapRequest { offset: 0, len: 2 << 20, sharing, protection, colour: 0 })?;
//! map.load_bytes(0, &mut vec![0; 2 << 20]).expect("memory");
//! assert_eq!((aligned.counters().pmds, aligned.counters().ptes), (1, 0));
//!
//! // ...unless the address and the offset in the file differ modulo 2 MiB.
//! let map = file.map(&shifted, &MapRequest { offset: 0, len: 2 << 20, sharing, protection, colour: 4096 })?;
//! map.load_bytes(0, &mut vec![0; 2 << 20]).expect("memory");
//! assert_eq!((shifted.counters().pmds, shifted.counters().ptes), (0, 512));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod map;
mod tables;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use map::SoftMap;
pub use tables::{Leads, Translation};

use crate::entry::{PAGE_SIZE, PMD_SIZE};
use crate::error::{Errno, Error, Result};
use crate::mmu::{Protection, Sharing, VmFile, Vma};
use crate::sync::{AtomicU64, Ordering, RwLock};
use map::Area;

/// Why a load or store died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Nothing is mapped there, or the mapping does not allow it.
    Segv,
    /// The file has no such page, or it cannot be supplied.
    Bus,
}

impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Segv => "SIGSEGV",
            Self::Bus => "SIGBUS",
        })
    }
}

/// An access that died, and how many bytes were done before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Died {
    /// Why.
    pub signal: Signal,
    /// Bytes loaded or stored before it.
    pub done: u64,
}

/// What is asked of [`SoftMmu::map`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRequest {
    /// First byte of the file; a multiple of the page size.
    pub offset: u64,
    /// Bytes; rounded up to pages.
    pub len: u64,
    /// With whom stores are shared.
    pub sharing: Sharing,
    /// What may be done.
    pub protection: Protection,
    /// Bytes by which the address differs from the offset modulo 2 MiB; a multiple of the page size. 0
    /// lets whole units be mapped.
    pub colour: u64,
}

/// How many of what happened in an address space, and what it maps now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Faults of 4 KiB that were handled, whatever came of them.
    pub pte_faults: u64,
    /// Faults of 2 MiB that were tried.
    pub pmd_faults: u64,
    /// Of these, those that fell back to 4 KiB.
    pub pmd_fallbacks: u64,
    /// Faults that allocated blocks.
    pub major: u64,
    /// Private copies made.
    pub copies: u64,
    /// 4 KiB translations in place, private copies included.
    pub ptes: u64,
    /// 2 MiB translations in place.
    pub pmds: u64,
    /// Of the 4 KiB translations, those that lead to the zero page.
    pub zero_ptes: u64,
    /// Of the 2 MiB translations, those that lead to the huge zero page.
    pub zero_pmds: u64,
}

impl Counters {
    /// Bytes that are reachable without a fault.
    #[must_use]
    pub fn mapped_bytes(&self) -> u64 {
        self.ptes.saturating_mul(PAGE_SIZE).saturating_add(self.pmds.saturating_mul(PMD_SIZE))
    }

    /// Of [those](Self::mapped_bytes), bytes of zero pages.
    #[must_use]
    pub fn zero_bytes(&self) -> u64 {
        self.zero_ptes.saturating_mul(PAGE_SIZE).saturating_add(self.zero_pmds.saturating_mul(PMD_SIZE))
    }

    /// Bytes that a TLB of so many entries reaches at best with what is mapped now: 2 MiB translations
    /// first.
    #[must_use]
    pub fn tlb_reach(&self, tlb_entries: u64) -> u64 {
        let pmds = self.pmds.min(tlb_entries);
        let ptes = self.ptes.min(tlb_entries - pmds);
        pmds.saturating_mul(PMD_SIZE).saturating_add(ptes.saturating_mul(PAGE_SIZE))
    }
}

/// The counts that only rise.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) pte_faults: AtomicU64,
    pub(crate) pmd_faults: AtomicU64,
    pub(crate) pmd_fallbacks: AtomicU64,
    pub(crate) major: AtomicU64,
    pub(crate) copies: AtomicU64,
}

/// Whether an address space has a huge zero page to map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HugeZeroPage {
    /// It has.
    #[default]
    Available,
    /// It could not be allocated: 2 MiB of hole cannot be mapped whole (F9).
    Missing,
}

/// One address space.
///
/// ```
/// use ext2_core::{Ext2, Follow, OpenOptions};
/// use ext2_dax::mmu::soft::{MapRequest, SoftMmu};
/// use ext2_dax::mmu::{Protection, Sharing};
/// use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};
///
/// let fs = Ext2::open(ext2_image::mkfs::in_memory(8 << 20)?, &OpenOptions::default())?;
/// fs.write("file", vec![7; 8192])?;
/// let inode = fs.resolve("file", Follow::Yes)?;
/// let file = File::open(&DaxFs::new(fs, DaxOptions::default()), inode, OpenFor::Writing)?;
///
/// let mmu = SoftMmu::new();
/// let (sharing, protection) = (Sharing::Shared, Protection::ReadWrite);
/// let map = file.map(&mmu, &MapRequest { offset: 0, len: 8192, sharing, protection, colour: 0 })?;
/// assert_eq!(map.store(4096, 9), Ok(()));
/// let mut byte = [0];
/// file.read_at(4096, &mut byte)?;
/// assert_eq!(byte, [9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SoftMmu {
    areas: RwLock<BTreeMap<u64, Arc<Area>>>,
    counts: Arc<Counts>,
    huge_zero: HugeZeroPage,
}

/// Where mappings begin; any multiple of 2 MiB would do.
const FIRST_ADDRESS: u64 = 0x7000_0000_0000;
/// No mapping reaches beyond: what x86-64 gives a process.
const LAST_ADDRESS: u64 = 1 << 47;

impl SoftMmu {
    /// An address space with nothing in it.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with_huge_zero_page(HugeZeroPage::Available)
    }

    /// As [`new`](Self::new), with or without a huge zero page.
    #[must_use]
    pub fn with_huge_zero_page(huge_zero: HugeZeroPage) -> Arc<Self> {
        Arc::new(Self { areas: RwLock::new(BTreeMap::new()), counts: Arc::new(Counts::default()), huge_zero })
    }

    /// Maps a range of `file` (`mmap`). Nothing is read or allocated.
    ///
    /// # Errors
    /// `EINVAL` for an offset or colour that is not a multiple of the page size, or an empty range;
    /// `EOVERFLOW` and `ENOMEM` for ranges that have no page numbers or no addresses; what
    /// [`VmFile::check_map`] says.
    pub fn map(self: &Arc<Self>, file: Arc<dyn VmFile>, request: &MapRequest) -> Result<SoftMap> {
        let MapRequest { offset, len, sharing, protection, colour } = *request;
        if len == 0 {
            let why =
                "a mapping has one byte at least: an empty file is mapped at the size that it will have";
            return Err(Error::refused(Errno::INVAL, why));
        }
        if !offset.is_multiple_of(PAGE_SIZE) || !colour.is_multiple_of(PAGE_SIZE) {
            return Err(Error::refused(
                Errno::INVAL,
                "a mapping begins at a multiple of 4096 bytes of the file",
            ));
        }
        let no_memory = || Error::refused(Errno::NOMEM, "the mapping does not fit the address space");
        let len = len.checked_next_multiple_of(PAGE_SIZE).ok_or_else(no_memory)?;
        if offset.checked_add(len).is_none_or(|end| end > i64::MAX.unsigned_abs()) {
            return Err(Error::refused(
                Errno::OVERFLOW,
                "the mapping ends past the last byte a file can have",
            ));
        }
        file.check_map(sharing, protection)?;

        let mut areas = self.areas.write();
        let shift = (offset % PMD_SIZE + colour % PMD_SIZE) % PMD_SIZE;
        let start = gap(&areas, shift, len).ok_or_else(no_memory)? + shift;
        let end = start + len;
        let vma = Vma { start, end, pgoff: offset / PAGE_SIZE, sharing, protection };
        let area = Area::new(vma, file, Arc::clone(&self.counts), self.huge_zero);
        area.attach();
        areas.insert(start, Arc::clone(&area));
        drop(areas);
        Ok(SoftMap::new(Arc::clone(self), area))
    }

    /// The mapping that holds `address`.
    fn area(&self, address: u64) -> Result<Arc<Area>, Signal> {
        let areas = self.areas.read();
        let (_, area) = areas.range(..=address).next_back().ok_or(Signal::Segv)?;
        if address < area.vma().end { Ok(Arc::clone(area)) } else { Err(Signal::Segv) }
    }

    pub(crate) fn remove(&self, start: u64) {
        let area = self.areas.write().remove(&start);
        if let Some(area) = area {
            area.detach();
        }
    }

    /// Loads the byte at `address`.
    ///
    /// # Errors
    /// The signal that a process would get.
    pub fn load(&self, address: u64) -> Result<u8, Signal> {
        let mut byte = [0];
        self.area(address)?.load(address, &mut byte).map_err(|died| died.signal)?;
        Ok(byte[0])
    }

    /// Stores the byte at `address`.
    ///
    /// # Errors
    /// The signal that a process would get.
    pub fn store(&self, address: u64, byte: u8) -> Result<(), Signal> {
        self.area(address)?.store(address, &[byte]).map_err(|died| died.signal)
    }

    /// Loads `buf.len()` bytes from `address` on, page by page.
    ///
    /// # Errors
    /// The signal, and how far it went.
    pub fn load_bytes(&self, address: u64, buf: &mut [u8]) -> Result<(), Died> {
        self.area(address).map_err(|signal| Died { signal, done: 0 })?.load(address, buf)
    }

    /// Stores `bytes` from `address` on, page by page.
    ///
    /// # Errors
    /// The signal, and how far it went.
    pub fn store_bytes(&self, address: u64, bytes: &[u8]) -> Result<(), Died> {
        self.area(address).map_err(|signal| Died { signal, done: 0 })?.store(address, bytes)
    }

    /// What happened so far and what is mapped now.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = Counters {
            pte_faults: self.counts.pte_faults.load(Ordering::Relaxed),
            pmd_faults: self.counts.pmd_faults.load(Ordering::Relaxed),
            pmd_fallbacks: self.counts.pmd_fallbacks.load(Ordering::Relaxed),
            major: self.counts.major.load(Ordering::Relaxed),
            copies: self.counts.copies.load(Ordering::Relaxed),
            ..Counters::default()
        };
        let areas: Vec<_> = self.areas.read().values().cloned().collect();
        for area in areas {
            area.count(&mut counters);
        }
        counters
    }
}

/// Where `shift` and `len` bytes have room: after the last mapping that there is, or else between two of them. A multiple of 2 MiB.
fn gap(areas: &BTreeMap<u64, Arc<Area>>, shift: u64, len: u64) -> Option<u64> {
    // A mapping begins in a place of its own, with an empty one between.
    let after = |area: &Arc<Area>| area.vma().end.next_multiple_of(PMD_SIZE) + PMD_SIZE;
    let fits = |from: u64, end: u64| {
        from.checked_add(shift)?.checked_add(len).filter(|last| *last <= end).map(|_| from)
    };
    let starts = std::iter::once(FIRST_ADDRESS).chain(areas.values().map(after));
    let ends = areas.values().map(|area| area.vma().start - area.vma().start % PMD_SIZE - PMD_SIZE);
    let last = areas.values().next_back().map_or(FIRST_ADDRESS, after);
    fits(last, LAST_ADDRESS).or_else(|| starts.zip(ends).find_map(|(from, end)| fits(from, end)))
}

impl Drop for SoftMmu {
    fn drop(&mut self) {
        for area in self.areas.write().values() {
            area.detach();
        }
    }
}
