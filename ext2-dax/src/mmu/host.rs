//! Files in the address space of this process: addresses whose pages are the image's pages.
//!
//! A [`HostMmu`] serves the mappings of one process, as [`SoftMmu`](super::soft::SoftMmu) does in software, and through the
//! same fault path. [`File::map_host`](crate::File::map_host) gives a [`HostMap`]: a load from its address is a load from
//! the image's page cache or persistent memory, with nothing in between.
//!
//! | | [`Faulting::Userfaultfd`] | [`Faulting::Eager`] |
//! |---|---|---|
//! | needs | userfaultfd, in user mode at least | nothing |
//! | data | mapped extent by extent, the rest when it is touched | all of it when the file is mapped |
//! | a hole | zero pages that the kernel protects | zero pages, read-only |
//! | a store into a hole | the fault path allocates and maps | by [`HostMap::try_store`]; a bare one is `SIGSEGV` |
//! | pages that are taken away | fault again | read as they were until they are what they become |
//!
//! With [`Granularity::Pages`] nothing is mapped that was not touched, and each fault is the fault of 4 KiB or 2 MiB that a
//! kernel would handle, with its entry. With [`Granularity::Extents`] what the block map says is mapped as it is, without
//! entries; stores into holes go through the fault path all the same.
//!
//! # Invariants
//! 1. What a range is mapped to is looked up and placed under the mapping's lock, and whoever changes the file's map takes
//!    that lock when he tells of it. So nothing that was true before the change stays after it.
//! 2. Pages are taken away before their blocks are free; when that returns no access of a processor through them is under way.
//!    What the kernel gives a disk to load or store by is not waited for, so that a lease has to keep it.
//! 3. The thread that answers faults touches no mapping.
//! 4. A page that cannot be supplied is a bus error at the access and nowhere else: for a moment the page is one that no file
//!    has, and then it is missing again.
//!
//! Lock order: the file's (`invalidate_lock`, entries) · the mapping's `state` · the list of mappings. Under `state` the block
//! map is read, which takes no lock.

mod area;
mod explain;
mod fault;
mod map;
mod raw;
mod revoke;
mod runs;
mod service;
mod table;

use std::fmt;
use std::sync::Arc;

pub use blockdev::host_map::StoresBy;
use blockdev::host_map::{Features, HostFaults, HostSpace, Rights, huge_zero_page, max_map_count};

use crate::entry::{PAGE_SIZE, PMD_SIZE};
use crate::error::{Errno, Error, Result};
use crate::mmu::soft::MapRequest;
use crate::mmu::{Protection, Sharing, VmFile, Vma};
use area::Area;
pub use explain::{HostUnit, Why};
pub use map::HostMap;
use service::Service;

/// How missing pages are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Faulting {
    /// By userfaultfd where it is allowed, and eagerly elsewhere.
    #[default]
    Auto,
    /// By userfaultfd, or not at all.
    Userfaultfd,
    /// Nothing is answered: all is mapped at once.
    Eager,
}

/// How much is mapped at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Granularity {
    /// Runs of the block map, ahead of any touch where they are data.
    #[default]
    Extents,
    /// What a kernel maps: 4 KiB or 2 MiB, when they are touched.
    Pages,
}

/// Who knows which pages were stored to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tracking {
    /// The host's kernel where the image is in page cache. Where it is persistent memory, pages if the kernel tells of them
    /// (Linux 6.7), and entries elsewhere.
    #[default]
    Auto,
    /// Each page of 4 KiB is tracked: [`HostMap::take_stored`] and write-back know exactly. Translations of 2 MiB and
    /// fault-around are given up for it. By the kernel since Linux 6.7, and by protection before.
    Pages,
    /// What DAX has an entry for is tracked: 2 MiB where one translation may cover them, and pages of 4 KiB elsewhere.
    /// Translations of 2 MiB and fault-around stay. By protection, and a handler of `SIGSEGV`, whatever the kernel has: see
    /// [`resume_store`](blockdev::host_map::resume_store) for what a program has to know.
    Entries,
    /// The host's kernel alone, which writes back what was stored and nothing else. To the file system, all that is mapped for
    /// storing counts as stored: each sync, and the end of the mapping, gives the file the time of a change.
    Host,
}

/// How a [`HostMmu`] works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostOptions {
    /// How missing pages are answered.
    pub faulting: Faulting,
    /// How much is mapped at a time.
    pub granularity: Granularity,
    /// Who knows what was stored.
    pub tracking: Tracking,
    /// Mappings of the kernel (VMAs) that all files together may take; 0 is half of what a process may have. Past it, runs that
    /// were mapped first are taken away again.
    pub budget: u64,
    /// Leaves accesses by the kernel (`read(2)` into a page) out, as for a process without rights.
    pub user_only: bool,
    /// Leaves out what came with Linux 6.7 (`WP_ASYNC`, `PAGEMAP_SCAN`), as on a kernel before it.
    pub before_6_7: bool,
}

/// What can be done here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// What the kernel allows.
    pub features: Features,
    /// The way of faulting that is in use.
    pub faulting: Faulting,
    /// Who tells stores to [pages](Tracking::Pages) apart: the kernel, or protection. Protection is answered as faults are where
    /// the image is on a tmpfs and somebody answers them, and by signals elsewhere: [`HostMap::stores_by`] says which.
    pub tracking: StoresBy,
    /// Whether a hole of 2 MiB is one translation.
    pub huge_zero_page: bool,
    /// Mappings that may be made.
    pub budget: u64,
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |yes: bool| if yes { "yes" } else { "no" };
        let way =
            if self.faulting == Faulting::Eager { "none: all is mapped at once" } else { "userfaultfd" };
        writeln!(f, "faults answered by: {way}")?;
        writeln!(f, "accesses by the kernel wait: {}", yes(self.features.kernel_faults))?;
        let tracking = match self.tracking {
            StoresBy::Kernel => "the kernel",
            StoresBy::Faults => "protection, answered as faults are, or signals",
            _ => "protection, and signals",
        };
        writeln!(f, "stores told apart by: {tracking}")?;
        writeln!(f, "huge zero page: {}", yes(self.huge_zero_page))?;
        write!(f, "mappings at most: {}", self.budget)
    }
}

/// How many of what happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostCounters {
    /// Page faults that the kernel told of.
    pub faults: u64,
    /// Faults of 4 KiB that the file handled.
    pub pte_faults: u64,
    /// Faults of 2 MiB that were tried.
    pub pmd_faults: u64,
    /// Of these, those that fell back to 4 KiB.
    pub pmd_fallbacks: u64,
    /// Faults that allocated blocks.
    pub major: u64,
    /// Private copies that were made here; the kernel makes those of mapped pages.
    pub copies: u64,
    /// Runs that were placed.
    pub placed: u64,
    /// Runs that were taken away.
    pub revoked: u64,
    /// Of these, those that went because of the budget.
    pub evicted: u64,
    /// Faults that ended in a bus error.
    pub refused: u64,
}

/// The mappings of this process, and who answers their faults.
#[derive(Debug)]
pub struct HostMmu {
    service: Arc<Service>,
    options: HostOptions,
    capabilities: Capabilities,
}

impl HostMmu {
    /// What the kernel lets this process do.
    #[must_use]
    pub fn features() -> Features {
        HostFaults::probe()
    }

    /// A way to map files with these options; it has two threads where faults are answered.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where userfaultfd is asked for and not allowed, and where pages are asked for one by one without it;
    /// what the system says.
    pub fn new(options: HostOptions) -> Result<Arc<Self>> {
        let faults = match options.faulting {
            Faulting::Eager => None,
            Faulting::Userfaultfd => Some(HostFaults::open(options.user_only, options.before_6_7)?),
            Faulting::Auto => HostFaults::open(options.user_only, options.before_6_7).ok(),
        };
        if faults.is_none() && options.granularity == Granularity::Pages {
            return Err(Error::refused(
                Errno::OPNOTSUPP,
                "pages one by one need somebody to answer their faults",
            ));
        }
        let features = faults.as_ref().map_or_else(Features::default, HostFaults::features);
        let faulting = if faults.is_some() { Faulting::Userfaultfd } else { Faulting::Eager };
        let budget = if options.budget == 0 { max_map_count() / 2 } else { options.budget };
        let capabilities = Capabilities {
            features,
            faulting,
            tracking: match faulting {
                _ if features.stores => StoresBy::Kernel,
                Faulting::Userfaultfd => StoresBy::Faults,
                _ => StoresBy::Signals { units: false },
            },
            huge_zero_page: huge_zero_page(),
            budget,
        };
        let service = Service::start(faults, budget)?;
        Ok(Arc::new(Self { service, options, capabilities }))
    }

    /// What can be done here.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> HostCounters {
        self.service.counts.read()
    }

    /// Mappings of the kernel that are in use: that many at most. Where a handler of signals finds stores, what was stored to is
    /// apart until it is written back, and not counted.
    #[must_use]
    pub fn mappings(&self) -> u64 {
        self.service.mappings()
    }

    /// Maps a range of `file` (`mmap`).
    ///
    /// # Errors
    /// As for [`SoftMmu::map`](super::soft::SoftMmu::map); `EOPNOTSUPP` where the device's bytes are not in one file of the
    /// host, or do not begin at a page of it, and for synchronous mappings without persistent memory; `ENOMEM` where an eager
    /// mapping has more pieces than the budget; the system's, for a private one where the kernel does not tell which pages are
    /// copied (/proc/self/pagemap).
    pub fn map(self: &Arc<Self>, file: Arc<dyn VmFile>, request: &MapRequest) -> Result<HostMap> {
        let MapRequest { offset, len, sharing, protection, colour } = *request;
        let invalid = |why| Err(Error::refused(Errno::INVAL, why));
        if len == 0 {
            return invalid(
                "a mapping has one byte at least: an empty file is mapped at the size that it will have",
            );
        }
        if !offset.is_multiple_of(PAGE_SIZE) || !colour.is_multiple_of(PAGE_SIZE) {
            return invalid("a mapping begins at a multiple of 4096 bytes of the file");
        }
        let no_memory = || Error::refused(Errno::NOMEM, "the mapping does not fit the address space");
        let len =
            len.checked_next_multiple_of(PAGE_SIZE).filter(|len| *len < 1 << 47).ok_or_else(no_memory)?;
        if offset.checked_add(len).is_none_or(|end| end > i64::MAX.unsigned_abs()) {
            return Err(Error::refused(
                Errno::OVERFLOW,
                "the mapping ends past the last byte a file can have",
            ));
        }
        file.check_map(sharing, protection)?;
        area::check_backing(&*file)?;
        if self.options.granularity == Granularity::Extents {
            file.layout(0, 1, 1)?;
        }
        let rights = match (sharing, protection) {
            (_, Protection::ReadOnly) => Rights::Read,
            (Sharing::Private, Protection::ReadWrite) => Rights::Private,
            (Sharing::Shared | Sharing::Synchronous, Protection::ReadWrite) => Rights::ReadWrite,
        };
        let by = if rights == Rights::ReadWrite { self.stores_by(&*file)? } else { StoresBy::Nobody };
        let residue = (offset % PMD_SIZE + colour % PMD_SIZE) % PMD_SIZE;
        let mut space = HostSpace::reserve(self.service.faults.clone(), rights, len, residue)?;
        space.track(by, self.options.before_6_7)?;
        if rights == Rights::ReadWrite
            && is_persistent(&*file)?
            && let Some(backing) = file.memory().backing_file()
        {
            space.synchronise(backing.fd);
        }
        if rights == Rights::Private {
            // What is copied is the kernel's to say, for as long as the mapping is there.
            space.kinds(0, PAGE_SIZE)?;
        }
        let start = space.base().addr() as u64;
        let vma = Vma { start, end: start + len, pgoff: offset / PAGE_SIZE, sharing, protection };
        let ahead = self.options.granularity == Granularity::Extents;
        let area = Area::new(vma, file, space, Arc::clone(&self.service), ahead);
        self.service.add(&area);
        // From here on the mapping goes with `map`.
        let map = HostMap::new(Arc::clone(self), Arc::clone(&area));
        area.attach();
        area.populate()?;
        area.space.show();
        Ok(map)
    }

    /// Who finds stores to a file that is mapped for storing.
    fn stores_by(&self, file: &dyn VmFile) -> Result<StoresBy> {
        let is_persistent = is_persistent(file)?;
        let by_kernel = self.capabilities.tracking == StoresBy::Kernel;
        Ok(match self.options.tracking {
            Tracking::Host => StoresBy::Nobody,
            Tracking::Auto if !is_persistent => StoresBy::Nobody,
            Tracking::Auto | Tracking::Pages if by_kernel => StoresBy::Kernel,
            Tracking::Auto | Tracking::Entries => StoresBy::Signals { units: true },
            Tracking::Pages => {
                let can_protect = self.service.faults.as_ref().is_some_and(|faults| {
                    file.memory().backing_file().is_some_and(|file| faults.can_protect(file.fd))
                });
                if can_protect { StoresBy::Faults } else { StoresBy::Signals { units: false } }
            }
        })
    }
}

/// Whether the device's memory keeps what it has without power.
fn is_persistent(file: &dyn VmFile) -> Result<bool> {
    let memory = file.memory().direct_access(0, 1, blockdev::Access::Read)?;
    Ok(memory.media() == blockdev::Media::Persistent)
}

impl Drop for HostMmu {
    fn drop(&mut self) {
        self.service.stop();
    }
}
