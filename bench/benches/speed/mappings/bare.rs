//! What the kernel asks for: the same faults answered by its calls alone, without a file system or a look at anything.

use std::fs::File as Plain;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use blockdev::PmemSlice;
use blockdev::host_map::{FileUse, HostFaults, HostSpace, Next, Rights};

use super::PAGE;

/// A range whose missing pages, and stores to zeros, a thread answers by mapping the page of a plain file that lies as far
/// from its start.
pub(super) struct Bare {
    faults: Arc<HostFaults>,
    space: Arc<HostSpace>,
    handler: Option<JoinHandle<()>>,
}

impl Bare {
    pub(super) fn new(plain: &Plain, len: u64) -> Option<Self> {
        let faults = Arc::new(HostFaults::open(false, false).ok()?);
        let space = Arc::new(HostSpace::reserve(Some(faults.clone()), Rights::ReadWrite, len, 0).ok()?);
        let (plain, served, of) = (plain.try_clone().ok()?, faults.clone(), space.clone());
        let answer = move |address| {
            let at = of.offset_of(address)? & !(PAGE - 1);
            of.place_file(at, PAGE, plain.as_fd(), at, FileUse::Plain).ok()?;
            of.wake(at, PAGE).ok()
        };
        let handler = std::thread::spawn(move || {
            while let Ok(next) = served.next(None) {
                match next {
                    Next::Fault(fault) => drop(answer(fault.address)),
                    Next::Timeout => {}
                    Next::Closed => return,
                }
            }
        });
        Some(Self { faults, space, handler: Some(handler) })
    }

    /// One whose every other page is a hole, from the second on.
    pub(super) fn with_holes(plain: &Plain, len: u64) -> Option<Self> {
        let bare = Self::new(plain, len)?;
        for at in (0..len).step_by(2 * PAGE as usize) {
            bare.space.place_file(at, PAGE, plain.as_fd(), at, FileUse::Plain).ok()?;
            bare.space.place_zeros(at + PAGE, PAGE).ok()?;
        }
        Some(bare)
    }

    pub(super) fn memory(&self) -> Option<PmemSlice<'_>> {
        self.space.show();
        self.space.memory(0, self.space.len()).ok()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.faults.close();
        if let Some(handler) = self.handler.take() {
            let _ = handler.join();
        }
    }
}

/// Runs of a plain file in a random order, each mapped by a call of its own.
pub(super) fn in_runs(plain: &Plain, order: &[u64], run: u64) -> Option<HostSpace> {
    let len = order.len() as u64 * run;
    let space = HostSpace::reserve(None, Rights::Read, len, 0).ok()?;
    for (at, from) in order.iter().enumerate() {
        space.place_file(at as u64 * run, run, plain.as_fd(), from * run, FileUse::Plain).ok()?;
    }
    Some(space)
}
