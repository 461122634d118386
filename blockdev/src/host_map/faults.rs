//! Who waits for a page, and who answers.
//!
//! # Locking
//! `state` is a leaf. The thread that answers faults reads events itself, and may move mappings while it answers; the event
//! of a move has to be read by somebody else then: see [`HostFaults::assist`].

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::abi;
use super::uffd::{FOR_FAULTS, FOR_STORES, Features, Uffd};
use crate::open::io_error;
use crate::{Error, Result};

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
    /// With `user_only` the kernel's own accesses are not told, whatever the process may do.
    ///
    /// # Errors
    /// `Io` where the kernel has no userfaultfd, or one without the features, or refuses.
    pub fn open(user_only: bool) -> Result<Self> {
        let open = |error| io_error("userfaultfd", 0, error);
        let whole = if user_only { None } else { Uffd::open(FOR_FAULTS, false).ok() };
        let kernel_faults = whole.is_some();
        let faults = whole.map_or_else(|| Uffd::open(FOR_FAULTS, true), Ok).map_err(open)?;
        let stores = Uffd::open(FOR_STORES, true).ok();
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

    /// Makes [`next`](Self::next) return with [`Next::Timeout`], if nobody waits.
    pub fn nudge(&self) {
        self.ring();
    }

    /// Waits for the next fault, for so long at most. One thread calls this, and is taken to answer the fault until it
    /// calls again. It must not touch pages of the spaces meanwhile.
    ///
    /// # Errors
    /// `Io`.
    pub fn next(&self, patience: Option<Duration>) -> Result<Next> {
        self.busy.store(false, Ordering::SeqCst);
        let mut waited = false;
        loop {
            self.read()?;
            {
                let mut state = self.state();
                if state.closed {
                    return Ok(Next::Closed);
                }
                if let Some(fault) = state.backlog.pop_front() {
                    drop(state);
                    self.begin();
                    return Ok(Next::Fault(fault));
                }
            }
            if waited {
                self.begin();
                return Ok(Next::Timeout);
            }
            waited = self.poll(patience)? || patience.is_some();
        }
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
            if let Err(error) = self.poll(Some(Duration::from_millis(1))).and_then(|_| self.read()) {
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
        let timeout = patience.map(|patience| Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(patience.subsec_nanos()),
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::INVAL) => {
                // A program that shuts itself in has set RLIMIT_NOFILE below two. Its faults are looked for instead.
                std::thread::sleep(patience.unwrap_or(LOOKS).min(LOOKS));
                return Ok(rustix::io::read(self.bell.as_fd(), &mut [0; 8]).is_ok());
            }
            Err(error) => return Err(io_error("poll", 0, error.into())),
        }
        let rung = fds[1].revents().contains(PollFlags::IN);
        if rung {
            let _ = rustix::io::read(self.bell.as_fd(), &mut [0; 8]);
        }
        Ok(rung)
    }

    /// Reads what has happened; faults go to the backlog.
    fn read(&self) -> Result<()> {
        let mut messages = [abi::Message::default(); 16];
        loop {
            let count = match self.faults.read(&mut messages) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count.map_err(|error| io_error("read", 0, error))?,
            };
            let faults = messages.iter().take(count).filter(|message| message.event == abi::EVENT_PAGEFAULT);
            let faults = faults.map(|message| PageFault {
                address: message.address & !4095,
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

/// Keeps the signals that somebody sends away from the calling thread, which is one that others wait for: a handler of the
/// program's that touches a mapping there would wait for itself. Faults of the thread's own are let through.
pub fn keep_signals_away() {
    let mut signals = core::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is good for a set, which the call fills in.
    let filled = unsafe { libc::sigfillset(signals.as_mut_ptr()) };
    if filled != 0 {
        return;
    }
    for signal in [libc::SIGBUS, libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS] {
        // SAFETY: a set that was filled in.
        unsafe { libc::sigdelset(signals.as_mut_ptr(), signal) };
    }
    // SAFETY: a set that was filled in; nothing is asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, signals.as_ptr(), core::ptr::null_mut()) };
}
