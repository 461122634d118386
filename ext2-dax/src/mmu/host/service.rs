//! The threads that answer faults, and what the mappings of one process share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use blockdev::host_map::{HostFaults, Next, Reserve, keep_signals_away};

use super::HostCounters;
use super::area::Area;
use crate::error::{Errno, Error, Result};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, RwLock};

/// Mappings that are kept for taking pages away where there are no more.
const RESERVE: u64 = 16;
/// How long a page that was refused stays a bus error.
const REFUSED_FOR: Duration = Duration::from_millis(10);

/// What the mappings of one process share.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) faults: Option<Arc<HostFaults>>,
    pub(super) counts: Counts,
    pub(super) budget: u64,
    areas: RwLock<BTreeMap<u64, Arc<Area>>>,
    /// Held while a fault is answered: who ends a mapping waits for that, and is then the last who has its file.
    turn: Mutex<()>,
    mappings: AtomicU64,
    /// Whether some mapping has pages that are refused for the moment.
    has_refused: AtomicBool,
    reserve: Mutex<Option<Reserve>>,
}

impl Service {
    pub(super) fn start(faults: Option<HostFaults>, budget: u64) -> Result<Arc<Self>> {
        let faults = faults.map(Arc::new);
        let service = Arc::new(Self {
            faults,
            counts: Counts::default(),
            budget,
            areas: RwLock::new(BTreeMap::new()),
            turn: Mutex::new(()),
            mappings: AtomicU64::new(0),
            has_refused: AtomicBool::new(false),
            reserve: Mutex::new(Reserve::take(RESERVE).ok()),
        });
        if let Some(faults) = &service.faults {
            let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
                let spawned = thread::Builder::new().name(name.into()).spawn(work);
                spawned
                    .map(drop)
                    .map_err(|_| Error::refused(Errno::AGAIN, "there can be no thread for page faults"))
            };
            let (second, same) = (Arc::clone(faults), Arc::clone(&service));
            spawn("faults-assist", Box::new(move || second.assist()))?;
            let started = spawn("faults", Box::new(move || same.serve()));
            if started.is_err() {
                faults.close();
            }
            started?;
        }
        Ok(service)
    }

    /// Answers faults until it is stopped.
    fn serve(&self) {
        let Some(faults) = &self.faults else { return };
        keep_signals_away();
        let mut refused: Option<Instant> = None;
        loop {
            if refused.is_some_and(|since| since.elapsed() >= REFUSED_FOR) {
                refused = None;
                let _turn = self.turn.lock();
                let areas: Vec<Arc<Area>> = self.areas.read().values().map(Arc::clone).collect();
                areas.iter().for_each(|area| area.forget_refused());
            }
            if self.has_refused.swap(false, Ordering::SeqCst) {
                refused.get_or_insert_with(Instant::now);
            }
            match faults.next(refused.map(|_| REFUSED_FOR)) {
                Ok(Next::Closed) => return,
                Ok(Next::Timeout) => {}
                Ok(Next::Fault(fault)) => {
                    self.counts.add(|counts| &counts.faults);
                    let _turn = self.turn.lock();
                    let area = self
                        .areas
                        .read()
                        .range(..=fault.address)
                        .next_back()
                        .map(|(_, area)| Arc::clone(area));
                    if let Some(area) = area.filter(|area| fault.address < area.vma().end) {
                        area.answer(fault);
                    }
                }
                Err(error) => {
                    log::error!(target: "ext2_dax::mmu", "page faults are answered no more: {error}");
                    return;
                }
            }
        }
    }

    /// Says that a mapping has pages that are refused for the moment: somebody looks at them a moment later.
    pub(super) fn note_refused(&self) {
        self.has_refused.store(true, Ordering::SeqCst);
        if let Some(faults) = &self.faults {
            faults.nudge();
        }
    }

    /// Runs `work` with the mappings given back that are kept for it. Gives whether as many could be kept again.
    pub(super) fn with_reserve(&self, work: impl FnOnce()) -> bool {
        let mut reserve = self.reserve.lock();
        drop(reserve.take());
        work();
        let whole = Reserve::take(RESERVE).ok();
        let is_whole = whole.is_some();
        *reserve = whole.or_else(|| Reserve::take(RESERVE / 4).ok());
        is_whole
    }

    pub(super) fn stop(&self) {
        if let Some(faults) = &self.faults {
            faults.close();
        }
    }

    pub(super) fn add(&self, area: &Arc<Area>) {
        self.areas.write().insert(area.vma().start, Arc::clone(area));
        self.mappings.fetch_add(1, Ordering::Relaxed);
    }

    /// Nobody answers faults of the mapping any more when this returns.
    pub(super) fn remove(&self, area: &Area) {
        self.areas.write().remove(&area.vma().start);
        drop(self.turn.lock());
    }

    /// Notes that there are as many mappings as after as were before.
    pub(super) fn changed(&self, before: usize, after: usize) {
        // Wraps for fewer, and the sum is right.
        self.mappings.fetch_add((after as u64).wrapping_sub(before as u64), Ordering::Relaxed);
    }

    pub(super) fn mappings(&self) -> u64 {
        self.mappings.load(Ordering::Relaxed)
    }
}

macro_rules! counts {
    ($($name:ident),+) => {
        /// The counts of [`HostCounters`].
        #[derive(Debug, Default)]
        pub(super) struct Counts { $(pub(super) $name: AtomicU64),+ }

        impl Counts {
            pub(super) fn read(&self) -> HostCounters {
                HostCounters { $($name: self.$name.load(Ordering::Relaxed)),+ }
            }
        }
    };
}
counts!(faults, pte_faults, pmd_faults, pmd_fallbacks, major, copies, placed, revoked, evicted, refused);

impl Counts {
    pub(super) fn add(&self, which: impl FnOnce(&Self) -> &AtomicU64) {
        which(self).fetch_add(1, Ordering::Relaxed);
    }
}
