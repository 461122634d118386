//! The threads that answer faults, and what the mappings of one process share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use blockdev::host_map::{HostFaults, Next};

use super::HostCounters;
use super::area::Area;
use crate::error::{Errno, Error, Result};
use crate::sync::{AtomicU64, Ordering, RwLock};

/// How long a page that was refused stays a bus error, unless it is touched before.
const REFUSED_FOR: Duration = Duration::from_millis(10);

/// What the mappings of one process share.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) faults: Option<Arc<HostFaults>>,
    pub(super) counts: Counts,
    pub(super) budget: u64,
    areas: RwLock<BTreeMap<u64, Arc<Area>>>,
    mappings: AtomicU64,
}

impl Service {
    pub(super) fn start(faults: Option<HostFaults>, budget: u64) -> Result<Arc<Self>> {
        let faults = faults.map(Arc::new);
        let service = Arc::new(Self {
            faults,
            counts: Counts::default(),
            budget,
            areas: RwLock::new(BTreeMap::new()),
            mappings: AtomicU64::new(0),
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
        let mut refused: Vec<Arc<Area>> = Vec::new();
        let mut since = Instant::now();
        loop {
            if !refused.is_empty() && since.elapsed() > REFUSED_FOR {
                refused.drain(..).for_each(|area| area.forget_refused());
            }
            let patience = (!refused.is_empty()).then_some(REFUSED_FOR);
            match faults.next(patience) {
                Ok(Next::Closed) => return,
                Ok(Next::Timeout) => refused.drain(..).for_each(|area| area.forget_refused()),
                Ok(Next::Fault(fault)) => {
                    self.counts.add(|counts| &counts.faults);
                    let area = self
                        .areas
                        .read()
                        .range(..=fault.address)
                        .next_back()
                        .map(|(_, area)| Arc::clone(area));
                    if let Some(area) = area.filter(|area| fault.address < area.vma().end)
                        && area.answer(fault)
                    {
                        since = Instant::now();
                        refused.push(area);
                    }
                }
                Err(error) => {
                    log::error!(target: "ext2_dax::mmu", "page faults are answered no more: {error}");
                    return;
                }
            }
        }
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

    pub(super) fn remove(&self, area: &Area) {
        self.areas.write().remove(&area.vma().start);
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
