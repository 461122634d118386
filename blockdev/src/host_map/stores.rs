//! Which pages of a file were stored to.

use std::sync::Arc;

use rustix::mm::{MprotectFlags, mprotect};

use super::ledger::{Held, Ledger, Noted};
use super::signals::{self, Opened, Watched};
use super::space::failed;
use super::{HostSpace, Rights, pages};
use crate::{Error, PAGE_SIZE, Result};

/// Who finds the stores to a [`HostSpace`]'s pages of a file that are [tracked](super::FileUse::Tracked).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoresBy {
    /// Nobody.
    #[default]
    Nobody,
    /// The kernel, which protects pages and takes that away by itself (`WP_ASYNC` and `PAGEMAP_SCAN`, Linux 6.7). Translations of
    /// 2 MiB, and fault-around, are given up.
    Kernel,
    /// Who answers faults: the first store to a page waits until he has [noted](HostSpace::allow_stores) it. For files that
    /// [can be protected](super::HostFaults::can_protect) so; translations of 2 MiB, and fault-around, are given up.
    Faults,
    /// A handler of `SIGSEGV`: pages are mapped for reading until a store to them faults. See [`resume_store`](super::resume_store)
    /// for what a program has to know.
    Signals {
        /// What one translation of 2 MiB may cover is noted whole, so that it stays one.
        units: bool,
    },
}

impl HostSpace {
    /// Says how stores to what is placed as [tracked](super::FileUse::Tracked) are found. To be called before anything is
    /// placed. With `as_before` the kernel is asked what pages are as if it were older than 6.7.
    ///
    /// # Errors
    /// `Io`: `ENOMEM`; `Unsupported` for what cannot be here. Nothing has changed then.
    pub fn track(&mut self, by: StoresBy, as_before: bool) -> Result<()> {
        let has_kernel = || self.faults.as_ref().is_some_and(|faults| faults.stores.is_some());
        match by {
            StoresBy::Kernel if !has_kernel() => {
                return Err(Error::Unsupported("this kernel does not tell which pages were stored to"));
            }
            StoresBy::Faults if self.faults.is_none() => {
                return Err(Error::Unsupported("nobody answers page faults"));
            }
            StoresBy::Faults | StoresBy::Signals { .. } => {
                let by_units = by == StoresBy::Signals { units: true };
                let no_memory = || failed("allocate", 0, rustix::io::Errno::NOMEM);
                let ledger =
                    Ledger::new(self.base().addr() as u64, self.len(), by_units).ok_or_else(no_memory)?;
                let ledger = Arc::new(ledger);
                self.watched = match by {
                    StoresBy::Signals { .. } => Some(Watched::new(Arc::clone(&ledger))?),
                    _ => None,
                };
                self.ledger = Some(ledger);
            }
            StoresBy::Nobody | StoresBy::Kernel => {}
        }
        (self.by, self.as_before) = (by, as_before);
        Ok(())
    }

    /// Whether the range is this process's. A child of `fork` did not inherit it: what lies there is somebody else's, and what is
    /// asked of the kernel about faults goes to the parent's pages.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }

    /// Who finds stores.
    #[must_use]
    pub fn stores_by(&self) -> StoresBy {
        self.by
    }

    /// The ledger, to be held while what it says changes.
    pub(super) fn hold(&self) -> Option<Held<'_>> {
        self.ledger.as_deref().map(Ledger::hold)
    }

    /// Notes a page as stored to where it is protected for that, allows stores to it, and wakes who waits. False where there is
    /// nothing to note: the page was noted before, or is no file's, or nobody may store to it.
    ///
    /// # Errors
    /// `Io`.
    pub fn allow_stores(&self, at: u64) -> Result<bool> {
        self.address(at, PAGE_SIZE)?;
        let Some(ledger) = self.ledger.as_deref().filter(|_| self.is_ours()) else { return Ok(false) };
        let (held, page) = (ledger.hold(), at / PAGE_SIZE);
        if let StoresBy::Signals { .. } = self.by {
            return Ok(signals::open_page(&held, page) == Opened::Now);
        }
        let (first, after, is_new) = match held.note(page) {
            Noted::No | Noted::Nobodys => return Ok(false),
            Noted::Before => (page, page + 1, false),
            Noted::Now(first, after) => (first, after, true),
        };
        self.unprotect(first * PAGE_SIZE, (after - first) * PAGE_SIZE).map(|()| is_new)
    }

    /// Gives `visit` the tracked pages that were stored to since they were placed or asked about, first byte and first byte
    /// after; none in a child of `fork`, which has none of them.
    ///
    /// # Errors
    /// `Io`.
    pub fn take_stored(&self, at: u64, len: u64, mut visit: impl FnMut(u64, u64)) -> Result<()> {
        let start = self.address(at, len)?.addr() as u64;
        if !self.is_ours() {
            return Ok(());
        }
        let Some(ledger) = self.ledger.as_deref() else {
            let base = self.base().addr() as u64;
            return pages::take_stored(start, start + len, |start, end| visit(start - base, end - base))
                .map_err(|error| Error::io("scan", at, error));
        };
        let protect = |first, after| match (self.by, &self.faults) {
            (StoresBy::Faults, Some(faults)) => faults
                .faults
                .protect(ledger.address(first), (after - first) * PAGE_SIZE, true)
                .map_err(|error| Error::io("protect", first * PAGE_SIZE, error)),
            _ if signals::protect(ledger, first, after, libc::PROT_READ) => Ok(()),
            _ => Err(Error::io("protect", first * PAGE_SIZE, std::io::Error::last_os_error())),
        };
        let visit = |first, after| visit(first * PAGE_SIZE, after * PAGE_SIZE);
        ledger.hold().take(at / PAGE_SIZE, (at + len) / PAGE_SIZE, protect, visit)
    }

    /// Lets no store through any more: one is `SIGSEGV`.
    ///
    /// # Errors
    /// `Io`.
    pub fn stop_stores(&self) -> Result<()> {
        self.set_stopped(true);
        self.set_rights(0, self.len(), MprotectFlags::READ)
    }

    /// What is placed from now on can be stored to again; for what is there, see [`let_stores`](Self::let_stores).
    pub fn resume_stores(&self) {
        self.set_stopped(false);
    }

    fn set_stopped(&self, stopped: bool) {
        let held = self.hold();
        self.note_stopped(stopped);
        held.iter().for_each(|held| held.set_stopped(stopped));
    }

    /// Lets stores to pages through that were [stopped](Self::stop_stores), as far as the rights go. Not for pages that are
    /// protected to find stores by signals.
    ///
    /// # Errors
    /// `Io`.
    pub fn let_stores(&self, at: u64, len: u64) -> Result<()> {
        match self.rights() {
            Rights::Read => Ok(()),
            Rights::ReadWrite | Rights::Private => {
                self.set_rights(at, len, MprotectFlags::READ | MprotectFlags::WRITE)
            }
        }
    }

    fn set_rights(&self, at: u64, len: u64, rights: MprotectFlags) -> Result<()> {
        let start = self.address(at, len)?;
        // SAFETY: pages of ours, which stay mapped. OK to cast: they are mapped.
        unsafe { mprotect(start, len as usize, rights) }.map_err(|error| failed("protect", at, error))
    }
}
