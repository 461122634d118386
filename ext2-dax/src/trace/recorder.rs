//! Where events go. Off, an event costs one relaxed load.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as StdAtomicU64, Ordering as StdOrdering};

use super::event::{Event, InodeId};
use crate::sync::{AtomicBool, Mutex, Ordering, RwLock};

/// An event, when it happened, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Nanoseconds since the first record of this process; in a browser a microsecond for each event.
    pub time_ns: u64,
    /// A small number for the thread, counted from 1 in the order of first events.
    pub thread: u64,
    /// The inode.
    pub inode: InodeId,
    /// What happened.
    pub event: Event,
}

/// Somebody who wants to know what happens. Called with locks of the data path held: it must not call
/// back into the file it hears of.
pub trait Listener: Debug + Send + Sync {
    /// Takes one record.
    fn record(&self, record: &Record);
}

/// A recorder that keeps everything, in order.
#[derive(Debug, Default)]
pub struct EventLog {
    records: Mutex<Vec<Record>>,
}

impl EventLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { records: Mutex::new(Vec::new()) })
    }

    /// Takes out what was recorded so far.
    #[must_use]
    pub fn take(&self) -> Vec<Record> {
        std::mem::take(&mut *self.records.lock())
    }
}

impl Listener for EventLog {
    fn record(&self, record: &Record) {
        self.records.lock().push(*record);
    }
}

/// The switch between the code that emits and the recorder that listens; one for each file system.
#[derive(Debug, Default)]
pub struct Tracer {
    on: AtomicBool,
    recorder: RwLock<Option<Arc<dyn Listener>>>,
}

impl Tracer {
    /// A tracer to which nobody listens.
    #[must_use]
    pub fn new() -> Self {
        Self { on: AtomicBool::new(false), recorder: RwLock::new(None) }
    }

    /// Sends what happens from now on to `recorder`, or nowhere.
    pub fn listen(&self, recorder: Option<Arc<dyn Listener>>) {
        let mut place = self.recorder.write();
        self.on.store(recorder.is_some(), Ordering::Relaxed);
        *place = recorder;
    }

    /// Whether anybody listens.
    #[must_use]
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Tells what `event` makes, if anybody listens.
    pub(crate) fn emit(&self, inode: InodeId, event: impl FnOnce() -> Event) {
        if !self.is_on() {
            return;
        }
        if let Some(recorder) = self.recorder.read().as_ref() {
            recorder.record(&Record { time_ns: now_ns(), thread: thread_number(), inode, event: event() });
        }
    }
}

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
fn now_ns() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A module of WebAssembly has no clock of its own: each event is a microsecond after the one before, so that all who
/// show them keep their order.
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
fn now_ns() -> u64 {
    static NEXT: StdAtomicU64 = StdAtomicU64::new(0);
    NEXT.fetch_add(1000, StdOrdering::Relaxed)
}

fn thread_number() -> u64 {
    static NEXT: StdAtomicU64 = StdAtomicU64::new(1);
    thread_local!(static NUMBER: u64 = NEXT.fetch_add(1, StdOrdering::Relaxed));
    NUMBER.with(|number| *number)
}
