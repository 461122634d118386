//! First stores to protected pages, found by `SIGSEGV`.
//!
//! Where no userfaultfd tells of them, a page of a file whose stores are to be known is mapped for reading. The store faults,
//! the handler notes the page, allows stores to it, and the store is made again. A translation of 2 MiB whose protection goes as
//! a whole stays one; userfaultfd would take it apart.
//!
//! The handler is installed with the first range, once for the process. It acts on stores to such ranges, and on this crate's own
//! loads and stores, which are errors where the rights were taken away; every other signal it hands to the handler that was there
//! before, as [`sigbus`](crate::sigbus) does.
//!
//! # What a program has to know
//! - A handler that is installed later must hand on what it does not know, as every handler should; or it asks
//!   [`resume_store`] first.
//! - A thread that blocks `SIGSEGV` and makes such a store ends the process: the kernel does not deliver it.
//! - The kernel does not fault, it refuses: a system call that is to store to such a page fails with `EFAULT`.
//!   [`HostSpace::allow_stores`](super::HostSpace::allow_stores) first makes it one that it can store to.
//!
//! # Invariants
//! 1. Places of the list are never freed. Who takes a ledger out of one waits until no handler looks at it, and only then
//!    are its addresses unmapped: the handler changes the protection of no page that is not the range's.
//! 2. The handler allocates nothing, and takes no lock but the ledger's, which no thread holds that can fault.

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libc::{SA_ONSTACK, SA_SIGINFO, SIGSEGV, sigaction, siginfo_t};

use super::faults::everything_but_faults;
use super::ledger::{Held, Ledger, Noted};
use crate::sigbus::{hand_on, resume};
use crate::{Error, PAGE_SIZE, Result};

/// `si_code` of a page that is mapped and may not be accessed so.
const SEGV_ACCERR: c_int = 2;

/// A place in the list of ledgers.
#[derive(Debug)]
struct Place {
    ledger: AtomicPtr<Ledger>,
    /// Handlers that look at it.
    users: AtomicUsize,
    /// Whose addresses they are: a child of `fork` has none of them.
    process: AtomicU32,
    next: *const Place,
}

static PLACES: AtomicPtr<Place> = AtomicPtr::new(null_mut());
/// Held by who adds to the list.
static ADDING: Mutex<()> = Mutex::new(());
/// What was there before.
static PREVIOUS: OnceLock<sigaction> = OnceLock::new();

/// A ledger that the handler knows, until this is dropped.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) ledger: Arc<Ledger>,
    place: &'static Place,
}

// SAFETY: places are changed by atomics, and `next` never.
unsafe impl Sync for Place {}

impl Watched {
    pub(super) fn new(ledger: Arc<Ledger>) -> Result<Self> {
        if !install() {
            return Err(Error::Unsupported("the system gives no handler for SIGSEGV"));
        }
        let _adding = ADDING.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = Arc::as_ptr(&ledger).cast_mut();
        let free = places().find(|place| place.ledger.load(Ordering::SeqCst).is_null());
        let place = free.unwrap_or_else(|| {
            let place: &'static Place = Box::leak(Box::new(Place {
                ledger: AtomicPtr::new(null_mut()),
                users: AtomicUsize::new(0),
                process: AtomicU32::new(0),
                next: PLACES.load(Ordering::SeqCst),
            }));
            PLACES.store(core::ptr::from_ref(place).cast_mut(), Ordering::SeqCst);
            place
        });
        place.process.store(std::process::id(), Ordering::SeqCst);
        place.ledger.store(mine, Ordering::SeqCst);
        Ok(Self { ledger, place })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.place.process.load(Ordering::SeqCst) != std::process::id() {
            // In a child of `fork` there may be handlers that never end, of threads that it does not have.
            core::mem::forget(Arc::clone(&self.ledger));
            return;
        }
        self.place.ledger.store(null_mut(), Ordering::SeqCst);
        while self.place.users.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
    }
}

/// The places of the list.
fn places() -> impl Iterator<Item = &'static Place> {
    let mut at: *const Place = PLACES.load(Ordering::SeqCst);
    core::iter::from_fn(move || {
        // SAFETY: null, or a place, which is never freed.
        let place = unsafe { at.as_ref() }?;
        at = place.next;
        Some(place)
    })
}

/// Notes a store to `address`, and allows it. False if the address is not in a range whose stores are found so, or the page
/// is one that nobody may store to.
fn store_to(address: u64) -> bool {
    let process = std::process::id();
    places().any(|place| {
        place.users.fetch_add(1, Ordering::SeqCst);
        let ledger = place.ledger.load(Ordering::SeqCst);
        // SAFETY: null, or a ledger that is alive as long as somebody is counted who has seen it here.
        let ledger = unsafe { ledger.as_ref() };
        let is_done =
            ledger.filter(|_| place.process.load(Ordering::SeqCst) == process).is_some_and(|ledger| {
                let page = ledger.page_at(address);
                page.is_some_and(|page| open_page(&ledger.hold_in_handler(), page) != Opened::No)
            });
        place.users.fetch_sub(1, Ordering::SeqCst);
        is_done
    })
}

/// What became of a page that somebody wants to store to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// It can be stored to now.
    Now,
    /// It can be stored to, as far as it is ours to say.
    Before,
    /// It cannot.
    No,
}

/// Notes a store to a page, and allows it.
pub(super) fn open_page(held: &Held<'_>, page: u64) -> Opened {
    const BOTH: c_int = libc::PROT_READ | libc::PROT_WRITE;
    let (first, after, opened) = match held.note(page) {
        Noted::No => return Opened::No,
        Noted::Nobodys => return Opened::Before,
        Noted::Before => (page, page + 1, Opened::Before),
        Noted::Now(first, after) => (first, after, Opened::Now),
    };
    if protect(held.ledger(), first, after, BOTH) {
        return opened;
    }
    // There is no room for one more mapping: a whole run of the file needs none.
    let (first, after) = held.note_around(page);
    if protect(held.ledger(), first, after, BOTH) { opened } else { Opened::No }
}

/// Changes what may be done to pages of the file; whoever calls this holds the ledger. False where the system refuses.
pub(super) fn protect(ledger: &Ledger, first: u64, after: u64, rights: c_int) -> bool {
    // OK to cast: addresses that are mapped.
    let (start, len) = (ledger.address(first) as usize, ((after - first) * PAGE_SIZE) as usize);
    // SAFETY: pages of a file, in a range that stays mapped as long as its ledger can be held; that one may store to them
    // is what the range is for.
    unsafe { libc::mprotect(core::ptr::without_provenance_mut(start), len, rights) == 0 }
}

/// Installs the handler, if it is not yet. Gives false, and does nothing, where the system refuses.
pub(super) fn install() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        let mut before = MaybeUninit::uninit();
        // SAFETY: the pointer is good for one `sigaction`, which the call fills in.
        if unsafe { sigaction(SIGSEGV, null(), before.as_mut_ptr()) } != 0 {
            return false;
        }
        // SAFETY: filled in, as the call succeeded. It is noted before the first signal can ask for it.
        let _ = PREVIOUS.set(unsafe { before.assume_init() });
        let Some(mask) = everything_but_faults() else { return false };
        // SAFETY: all zeros is a valid `sigaction`: no flags, an empty mask.
        let mut ours: sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        ours.sa_sigaction = on_fault as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
        ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
        // A handler of the program's that stores to the same range must not run while ours holds the ledger.
        ours.sa_mask = mask;
        // SAFETY: `ours` is filled in, and the handler does what a signal handler may: see the invariants.
        unsafe { sigaction(SIGSEGV, &raw const ours, null_mut()) == 0 }
    })
}

/// For handlers of `SIGSEGV` of a program's own: if the signal is a first store to a page whose stores are found so, notes and
/// allows it, and gives true. The handler then returns at once. It may be called in a signal handler in which other signals are
/// kept away.
///
/// # Safety
/// `info` is what the kernel gave a handler with `SA_SIGINFO`, in that handler.
pub unsafe fn resume_store(info: *const siginfo_t) -> bool {
    // SAFETY: the caller's promise, or null.
    let Some(info) = (unsafe { info.as_ref() }) else { return false };
    if info.si_code != SEGV_ACCERR {
        return false;
    }
    // SAFETY: `SIGSEGV` with this code has an address.
    let address = unsafe { info.si_addr() }.addr() as u64;
    // SAFETY: gives the place of the thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the thread's own, which the interrupted program may be about to look at.
    let before = unsafe { errno.read() };
    let is_done = store_to(address);
    // SAFETY: as above.
    unsafe { errno.write(before) };
    is_done
}

/// The handler.
extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: this is what the kernel gave.
    if unsafe { resume_store(info) } {
        return;
    }
    // SAFETY: as above.
    let is_denied = unsafe { info.as_ref() }.is_some_and(|info| info.si_code == SEGV_ACCERR);
    // An access of ours to a page that was taken the rights meanwhile is an error, as one to a page that is gone.
    // SAFETY: as above.
    if is_denied && unsafe { resume(info, context) } {
        return;
    }
    // SAFETY: these are what the kernel gave for this signal, and what was installed for it before.
    unsafe { hand_on(signal, info, context, PREVIOUS.get()) };
}
