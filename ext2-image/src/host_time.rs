//! Times as the host tells them.

use ext2_core::Timestamp;

/// A time in seconds and nanoseconds. Hosts count the latter in types of various widths: `i64` on most machines of 64 bits,
/// `u32` on those of 32.
pub(crate) fn host_time(sec: i64, nsec: impl TryInto<u32>) -> Timestamp {
    Timestamp { sec, nsec: nsec.try_into().unwrap_or(0) }
}
