//! The clock by which files get their times.

use ext2_core::{Clock, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// The system's clock as it stood at the last tick: what the kernel stamps files with (`current_time`). A finer one
/// would be ahead of the times that the kernel gives some of them, and a file would look read before it was written.
#[derive(Clone, Copy, Debug)]
pub struct CoarseClock;

impl Clock for CoarseClock {
    fn now(&self) -> Timestamp {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        Timestamp { sec: now.tv_sec, nsec: u32::try_from(now.tv_nsec).unwrap_or_default() }
    }
}
