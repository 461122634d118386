//! Who waits for a page, and who answers.
//!
//! # Locking
//! `state` is a leaf. The thread that answers faults reads events itself, and may move mappings while it answers; the event
//! of a move has to be read by somebody else then: see [`HostFaults::assist`].

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::mm::{MapFlags, ProtFlags, mmap};

use super::abi;
use super::uffd::{FOR_FAULTS, FOR_STORES, Features, Uffd};
use crate::open::io_error;
use crate::{Error, Result};

/// How long the next fault is looked for, without sleep, after one was answered. To sleep and be woken costs about half of it,
/// twice: who waits is woken on a processor that has gone to sleep, too.
const LOOK: Duration = Duration::from_micros(50);
/// Faults, one after the other, after which it is tried again when a look found nothing: at least and at most.
const PENALTY: (u32, u32) = (4, 256);
/// Faults that come within this time of the last answer come one after the other.
const CLOSE: Duration = Duration::from_micros(150);
/// How often faults are looked for where they cannot be waited for.
const LOOKS: Duration = Duration::from_micros(200);

/// A thread waits for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageFault {
    /// The address of the page.
    pub address: u64,
    /// Whether it wants to store.
    pub store: bool,
    /// Whether the page is there, and protected from stores.
    pub protected: bool,
}

/// What [`HostFaults::next`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Somebody waits.
    Fault(PageFault),
    /// Nobody came in time, or somebody [nudged](HostFaults::nudge).
    Timeout,
    /// There will be nobody any more.
    Closed,
}

#[derive(Debug, Default)]
struct State {
    backlog: VecDeque<PageFault>,
    closed: bool,
    pace: Pace,
}

/// How faults came lately, and whether it pays to look for the next.
#[derive(Debug, Default)]
struct Pace {
    /// When the last answer was given; none before the first.
    answered: Option<Instant>,
    /// Faults that have to come one after the other before a look is tried again.
    skip: u32,
    /// What the last look that found nothing cost in such faults.
    penalty: u32,
}

impl Pace {
    /// Nothing came while it was looked for: nobody faults any more, or he cannot while this thread has the processor.
    fn looked_in_vain(&mut self) {
        self.penalty = (self.penalty * 2).clamp(PENALTY.0, PENALTY.1);
        self.skip = self.penalty;
    }

    /// A fault came: while it was looked for, or otherwise.
    fn came(&mut self, by_look: bool, now: Instant) {
        if by_look {
            self.penalty = 0;
        } else if self.answered.is_some_and(|answered| now.duration_since(answered) < CLOSE) {
            self.skip = self.skip.saturating_sub(1);
        }
        // From the next call on, that is when it was answered.
        self.answered.get_or_insert(now);
    }
}

/// The page faults of the [`HostSpace`](super::HostSpace)s of one owner, and the way to answer them.
#[derive(Debug)]
pub struct HostFaults {
    pub(super) faults: Uffd,
    /// Where stores to files can be found out.
    pub(super) stores: Option<Uffd>,
    features: Features,
    bell: OwnedFd,
    state: Mutex<State>,
    /// Moves that are under way, each of which waits for a reader.
    moves: AtomicUsize,
    /// Whether the one who answers is answering, and reads nothing.
    busy: AtomicBool,
    assistant: Condvar,
    /// Whether somebody can fault while another looks for faults.
    looks: bool,
}

impl HostFaults {
    /// What this process may do, without doing it.
    #[must_use]
    pub fn probe() -> Features {
        let kernel_faults = Uffd::open(FOR_FAULTS, false).is_ok();
        let faults = kernel_faults || Uffd::open(FOR_FAULTS, true).is_ok();
        Features { faults, kernel_faults, stores: Uffd::open(FOR_STORES, true).is_ok() }
    }

    /// Opens the way; two threads have to serve it, one in [`next`](Self::next) and one in [`assist`](Self::assist).
    /// With `user_only` the kernel's own accesses are not told, whatever the process may do; with `as_before` stores are not
    /// asked of the kernel, as if it were older than 6.7.
    ///
    /// # Errors
    /// `Io` where the kernel has no userfaultfd, or one without the features, or refuses.
    pub fn open(user_only: bool, as_before: bool) -> Result<Self> {
        let open = |error| io_error("userfaultfd", 0, error);
        let whole = if user_only { None } else { Uffd::open(FOR_FAULTS, false).ok() };
        let kernel_faults = whole.is_some();
        let faults = whole.map_or_else(|| Uffd::open(FOR_FAULTS, true), Ok).map_err(open)?;
        let stores = if as_before { None } else { Uffd::open(FOR_STORES, true).ok() };
        let features = Features { faults: true, kernel_faults, stores: stores.is_some() };
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| io_error("eventfd", 0, error.into()))?;
        Ok(Self {
            faults,
            stores,
            features,
            bell,
            state: Mutex::default(),
            moves: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            assistant: Condvar::new(),
            looks: std::thread::available_parallelism().is_ok_and(|count| count.get() > 1),
        })
    }

    /// What it can do.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether stores to protected pages of this file are told, too: it is on a tmpfs, or hugetlbfs, or in a `memfd`.
    #[must_use]
    pub fn can_protect(&self, file: BorrowedFd<'_>) -> bool {
        let (len, rights) = (crate::PAGE_SIZE as usize, ProtFlags::READ);
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing of ours.
        let Ok(start) = (unsafe { mmap(core::ptr::null_mut(), len, rights, MapFlags::SHARED, file, 0) })
        else {
            return false;
        };
        let can = self.faults.register(start.addr() as u64, crate::PAGE_SIZE, abi::MODE_WP).is_ok();
        super::stage::unmap(start, crate::PAGE_SIZE);
        can
    }

    /// Makes [`next`](Self::next) return with [`Next::Timeout`], if nobody waits.
    pub fn nudge(&self) {
        self.ring();
    }

    /// Waits for the next fault, for so long at most. One thread calls this, and is taken to answer the fault until it
    /// calls again. It must not touch pages of the spaces meanwhile.
    ///
    /// After an answer the next fault is looked for without sleep for a moment, where there is more than one processor and
    /// faults have come one after the other: a thread that touches page after page then waits for one thread that is woken,
    /// and not for two.
    ///
    /// # Errors
    /// `Io`.
    pub fn next(&self, patience: Option<Duration>) -> Result<Next> {
        self.busy.store(false, Ordering::SeqCst);
        let now = Instant::now();
        let mut look_until = {
            let pace = &mut self.state().pace;
            // Nothing was answered before the first call, nor by who was only nudged.
            let may_look = self.looks && pace.answered.is_some() && pace.skip == 0;
            pace.answered = pace.answered.map(|_| now);
            may_look.then(|| now + LOOK)
        };
        let mut waited = false;
        loop {
            self.read()?;
            if let Some(next) = self.take(look_until.is_some()) {
                self.begin();
                return Ok(next);
            }
            if let Some(until) = look_until {
                if Instant::now() < until {
                    std::hint::spin_loop();
                    continue;
                }
                self.state().pace.looked_in_vain();
                look_until = None;
            }
            if waited {
                self.begin();
                return Ok(Next::Timeout);
            }
            waited = self.poll(patience)? || patience.is_some();
        }
    }

    /// The next of what was read.
    fn take(&self, by_look: bool) -> Option<Next> {
        let mut state = self.state();
        if state.closed {
            return Some(Next::Closed);
        }
        let fault = state.backlog.pop_front()?;
        state.pace.came(by_look, Instant::now());
        Some(Next::Fault(fault))
    }

    /// Reads events for others: a move of mappings waits for that. A thread of its own calls this; it returns when
    /// the faults are [closed](Self::close).
    pub fn assist(&self) {
        keep_signals_away();
        let mut state = self.state();
        while !state.closed {
            if self.moves.load(Ordering::SeqCst) == 0 {
                state = self.assistant.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            // Not the bell, which is for the one who answers: he would not hear it.
            let faults = &mut [PollFd::new(&self.faults, PollFlags::IN)];
            if let Err(error) = wait(faults, Some(Duration::from_millis(1))).and_then(|()| self.read()) {
                log::error!("faults cannot be read: {error}");
            }
            state = self.state();
            if !state.backlog.is_empty() {
                self.ring();
            }
        }
    }

    /// From here on the one who answers reads nothing, and may move mappings.
    fn begin(&self) {
        self.busy.store(true, Ordering::SeqCst);
        if self.moves.load(Ordering::SeqCst) > 0 {
            self.call_assistant();
        }
    }

    fn call_assistant(&self) {
        drop(self.state());
        self.assistant.notify_all();
    }

    /// Ends both threads.
    pub fn close(&self) {
        self.state().closed = true;
        self.assistant.notify_all();
        self.ring();
    }

    fn ring(&self) {
        // A counter that is full rings already.
        let _ = rustix::io::write(&self.bell, &[1; 8]);
    }

    /// Waits until there is something to read, or the bell rings, which it says.
    fn poll(&self, patience: Option<Duration>) -> Result<bool> {
        let mut fds = [PollFd::new(&self.faults, PollFlags::IN), PollFd::new(&self.bell, PollFlags::IN)];
        wait(&mut fds, patience)?;
        // Nothing is there to read from one that did not ring.
        Ok(rustix::io::read(self.bell.as_fd(), &mut [0; 8]).is_ok())
    }

    /// Reads what has happened; faults go to the backlog.
    fn read(&self) -> Result<()> {
        let mut messages = [abi::Message::default(); 16];
        loop {
            let count = match self.faults.read(&mut messages) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count.map_err(|error| io_error("read", 0, error))?,
            };
            if count == 0 {
                return Ok(());
            }
            let faults = messages.iter().take(count).filter(|message| message.event == abi::EVENT_PAGEFAULT);
            let faults = faults.map(|message| PageFault {
                address: message.address & !(crate::PAGE_SIZE - 1),
                store: message.flags & (abi::FAULT_WRITE | abi::FAULT_WP) != 0,
                protected: message.flags & abi::FAULT_WP != 0,
            });
            self.state().backlog.extend(faults);
            if count < messages.len() {
                return Ok(());
            }
        }
    }

    /// Runs a move of mappings, which waits for a reader of its event.
    pub(super) fn moving<T>(&self, change: impl FnOnce() -> T) -> T {
        self.moves.fetch_add(1, Ordering::SeqCst);
        if self.busy.load(Ordering::SeqCst) {
            self.call_assistant();
        }
        let done = change();
        self.moves.fetch_sub(1, Ordering::SeqCst);
        done
    }

    /// Lets those who wait for a page of the range try again.
    pub(super) fn wake(&self, start: u64, len: u64) -> Result<()> {
        self.faults.wake(start, len).map_err(|error| Error::io("wake", start, error))
    }
}

/// Waits until one of `fds` can be read, or a signal comes, for so long at most.
fn wait(fds: &mut [PollFd<'_>], patience: Option<Duration>) -> Result<()> {
    let timeout = patience.map(|time| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    });
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(rustix::io::Errno::INVAL) => {
            // A program that shuts itself in has set RLIMIT_NOFILE below two. Its faults are looked for instead.
            std::thread::sleep(patience.unwrap_or(LOOKS).min(LOOKS));
            Ok(())
        }
        Err(error) => Err(io_error("poll", 0, error.into())),
    }
}

/// Keeps the signals that somebody sends away from the calling thread, which is one that others wait for: a handler of the
/// program's that touches a mapping there would wait for itself. Faults of the thread's own are let through.
pub fn keep_signals_away() {
    if let Some(signals) = everything_but_faults() {
        // SAFETY: a set that was filled in; nothing is asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, core::ptr::null_mut()) };
    }
}

/// All signals but those of a thread's own faults.
pub(super) fn everything_but_faults() -> Option<libc::sigset_t> {
    let mut signals = core::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is good for a set, which the call fills in.
    if unsafe { libc::sigfillset(signals.as_mut_ptr()) } != 0 {
        return None;
    }
    for signal in [libc::SIGBUS, libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS] {
        // SAFETY: a set that was filled in.
        unsafe { libc::sigdelset(signals.as_mut_ptr(), signal) };
    }
    // SAFETY: filled in, as the call succeeded.
    Some(unsafe { signals.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_that_find_nothing_are_made_ever_more_seldom_and_never_where_nobody_faults() {
        let start = Instant::now();
        let after = |micros| start + Duration::from_micros(micros);
        let mut pace = Pace { answered: Some(start), ..Pace::default() };
        for penalty in [4, 8, 16, 32, 64, 128, 256, 256] {
            pace.looked_in_vain();
            // One that comes by itself changes nothing.
            pace.came(false, after(100_000));
            assert_eq!(pace.skip, penalty);
            (0..penalty).for_each(|_| pace.came(false, after(30)));
            assert_eq!(pace.skip, 0);
        }
        pace.came(true, after(10));
        pace.looked_in_vain();
        assert_eq!(pace.skip, 4, "what was found makes up for it");
    }
}
