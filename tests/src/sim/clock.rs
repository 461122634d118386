//! The time of a run.

use std::sync::atomic::{AtomicI64, Ordering};

use ext2_core::{Clock, Timestamp};

/// A clock that the run sets before each step.
#[derive(Debug, Default)]
pub(super) struct StepClock(AtomicI64);

impl StepClock {
    /// Sets it.
    pub(super) fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl Clock for StepClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(self.0.load(Ordering::Relaxed))
    }
}
