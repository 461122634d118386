//! Memory that knows what was in it behind the last flush, or fence: what a disk is sure to have.

use std::sync::{Mutex, MutexGuard, PoisonError};

use blockdev::{BlockDevice, Calls, Claim, DaxDevice, Result};

use crate::ShortRuns;

/// Memory, and what was in it behind the last call of some kinds, where that is kept.
#[derive(Debug)]
pub(super) struct Fenced {
    ram: ShortRuns,
    kept: Mutex<Option<(Calls, Vec<u8>)>>,
}

impl Fenced {
    pub(super) fn new(ram: ShortRuns) -> Self {
        Self { ram, kept: Mutex::new(None) }
    }

    fn kept(&self) -> MutexGuard<'_, Option<(Calls, Vec<u8>)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is there now, and then behind each call of these kinds.
    pub(super) fn keep(&self, calls: Calls) {
        *self.kept() = Some((calls, self.to_vec()));
    }

    /// Ends that, and gives what was there behind the last one.
    pub(super) fn take_kept(&self) -> Vec<u8> {
        self.kept().take().map_or_else(|| self.to_vec(), |(_, bytes)| bytes)
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        self.ram.ram.to_vec()
    }

    fn called(&self, call: Calls) {
        if let Some((calls, kept)) = &mut *self.kept()
            && calls.contains(call)
        {
            *kept = self.to_vec();
        }
    }
}

impl BlockDevice for Fenced {
    crate::forward!(ram: size, read_at, write_at, zero);

    fn fence(&self) -> Result<()> {
        self.ram.fence()?;
        self.called(Calls::FENCE);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.ram.flush()?;
        self.called(Calls::FLUSH);
        Ok(())
    }

    fn claim(&self, offset: u64, len: u64) -> Result<Claim> {
        self.ram.claim(offset, len)
    }

    fn dax(&self) -> Option<&dyn DaxDevice> {
        self.ram.dax()
    }
}
