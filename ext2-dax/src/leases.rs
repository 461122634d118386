//! Which pages of a file are leased, by whom, and what memory was lent for storing.
//!
//! # Invariants
//! 1. A lease is recorded under `invalidate_lock` held shared, and looked for under that lock held exclusively: none slips
//!    in between the look and what is done then.
//! 2. What was lent for storing counts as dirty until it is written back **after** it came back: every write-back before
//!    that finds it dirty again.
//! 3. Nobody waits for a lease of his own.

use std::collections::BTreeMap;
use std::ops::Range;

use ext2_core::sync::Mended;

use crate::sync::{AtomicUsize, Condvar, Mutex, Ordering, ThreadId, current_thread};

/// The leases of one file.
#[derive(Debug)]
pub(crate) struct Leases {
    held: Mutex<Held>,
    released: Condvar,
    /// How many leases lend memory for storing, and how many runs came back that were not written back since.
    unwritten: AtomicUsize,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    leases: BTreeMap<u64, Leased>,
    /// Runs that came back, by device byte.
    back: BTreeMap<u64, Back>,
}

/// A run that came back. It stays until somebody has written it back: who syncs meanwhile finds it too.
#[derive(Debug)]
struct Back {
    /// Bytes.
    len: u64,
    /// The file pages that it is of.
    pages: Range<u64>,
    /// Differs for each that comes back.
    nr: u64,
}

#[derive(Debug)]
struct Leased {
    pages: Range<u64>,
    /// Who took it, or used it last.
    thread: ThreadId,
    /// Device bytes that it may store to.
    lent: Vec<Range<u64>>,
}

/// The name of a lease within its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseId(u64);

/// Whose lease is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InTheWay {
    /// One of the calling thread: it would wait for itself.
    Own,
    /// Only those of others.
    Others,
}

fn touch(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

impl Leases {
    pub(crate) fn new() -> Self {
        let held = Mutex::new(Held::default());
        Self { held, released: Condvar::new(), unwritten: AtomicUsize::new(0) }
    }

    /// Records a lease of file pages. The caller holds `invalidate_lock` shared.
    pub(crate) fn take(&self, pages: Range<u64>) -> LeaseId {
        let mut held = self.held.lock();
        let id = held.next;
        held.next += 1;
        held.leases.insert(id, Leased { pages, thread: current_thread().id(), lent: Vec::new() });
        LeaseId(id)
    }

    /// Notes that this thread uses the lease.
    pub(crate) fn used(&self, id: LeaseId) {
        if let Some(lease) = self.held.lock().leases.get_mut(&id.0) {
            lease.thread = current_thread().id();
        }
    }

    /// Notes that the lease may store to these bytes of the device, and to no others.
    pub(crate) fn lend(&self, id: LeaseId, lent: Vec<Range<u64>>) {
        let mut held = self.held.lock();
        if let Some(lease) = held.leases.get_mut(&id.0) {
            let (before, after) = (!lease.lent.is_empty(), !lent.is_empty());
            lease.lent = lent;
            match (before, after) {
                (false, true) => drop(self.unwritten.fetch_add(1, Ordering::SeqCst)),
                (true, false) => drop(self.unwritten.fetch_sub(1, Ordering::SeqCst)),
                _ => {}
            }
        }
    }

    /// Gives a lease back and wakes who waits for it.
    pub(crate) fn release(&self, id: LeaseId) {
        let mut held = self.held.lock();
        if let Some(lease) = held.leases.remove(&id.0) {
            let was_lent = !lease.lent.is_empty();
            for run in lease.lent {
                self.put_back(&mut held, run.start, (run.end - run.start, lease.pages.clone()));
            }
            if was_lent {
                self.unwritten.fetch_sub(1, Ordering::SeqCst);
            }
        }
        drop(held);
        self.released.notify_all();
    }

    /// Notes a run that came back and was not written back.
    fn put_back(&self, held: &mut Held, byte: u64, (len, pages): (u64, Range<u64>)) {
        let nr = held.next;
        held.next += 1;
        match held.back.get_mut(&byte) {
            Some(back) => {
                back.len = back.len.max(len);
                back.pages = back.pages.start.min(pages.start)..back.pages.end.max(pages.end);
                back.nr = nr;
            }
            None => {
                held.back.insert(byte, Back { len, pages, nr });
                self.unwritten.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// Whether any of the file pages is leased.
    pub(crate) fn is_busy(&self, pages: &Range<u64>) -> bool {
        self.held.lock().leases.values().any(|lease| touch(&lease.pages, pages))
    }

    /// Whether memory is lent for storing.
    pub(crate) fn is_lent(&self) -> bool {
        self.held.lock().leases.values().any(|lease| !lease.lent.is_empty())
    }

    /// Whose leases of these file pages are in the way, if there are any.
    pub(crate) fn in_the_way(&self, pages: &Range<u64>) -> Option<InTheWay> {
        self.held.lock().in_the_way(pages)
    }

    /// Sleeps until none of the file pages is leased, or one is by this thread. The caller holds no lock that a holder
    /// of a lease may need; a new lease may be there when this returns.
    pub(crate) fn wait_idle(&self, pages: &Range<u64>) {
        let mut held = self.held.lock();
        while held.in_the_way(pages) == Some(InTheWay::Others) {
            held = self.released.wait(held);
        }
    }

    /// Whether there is anything to write back that entries do not tell of.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.unwritten.load(Ordering::SeqCst) > 0 && !Mended::LeaseNotWritten.is_back()
    }

    /// Writes back, by `write` with device byte and length, what was lent of these file pages or came back of them.
    ///
    /// # Errors
    /// What `write` says; nothing is forgotten then.
    pub(crate) fn write_back<E>(
        &self,
        pages: &Range<u64>,
        mut write: impl FnMut(u64, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let (lent, back) = {
            let held = self.held.lock();
            let lent: Vec<Range<u64>> = held
                .leases
                .values()
                .filter(|lease| touch(&lease.pages, pages))
                .flat_map(|lease| lease.lent.iter().cloned())
                .collect();
            let back: Vec<(u64, u64, u64)> = held
                .back
                .iter()
                .filter(|(_, back)| touch(&back.pages, pages))
                .map(|(byte, back)| (*byte, back.len, back.nr))
                .collect();
            (lent, back)
        };
        if Mended::RunsTakenFirst.is_back() {
            back.iter().for_each(|(byte, _, nr)| self.forget(*byte, *nr));
        }
        lent.into_iter().try_for_each(|run| write(run.start, run.end - run.start))?;
        for (byte, len, nr) in back {
            write(byte, len)?;
            self.forget(byte, nr);
        }
        Ok(())
    }

    /// Notes that a run was written back, unless more came back since.
    fn forget(&self, byte: u64, nr: u64) {
        let mut held = self.held.lock();
        if held.back.get(&byte).is_some_and(|back| back.nr == nr) {
            held.back.remove(&byte);
            self.unwritten.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Held {
    fn in_the_way(&self, pages: &Range<u64>) -> Option<InTheWay> {
        let mut there = self.leases.values().filter(|lease| touch(&lease.pages, pages)).peekable();
        there.peek()?;
        let me = current_thread().id();
        let is_own = there.any(|lease| lease.thread == me) && !Mended::WaitsForItself.is_back();
        Some(if is_own { InTheWay::Own } else { InTheWay::Others })
    }
}
