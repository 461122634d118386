//! Points in time as an inode holds them.

use core::fmt;

/// Seconds since 1970 (negative before) and nanoseconds into that second.
///
/// ```
/// use ext2_format::Timestamp;
///
/// // A date past 2038 needs the second word, which inodes of 256 bytes have.
/// let time = Timestamp { sec: 1 << 33, nsec: 500 };
/// let (seconds, extra) = time.encode(true);
/// assert_eq!(Timestamp::decode(seconds, Some(extra)), time);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since the epoch.
    pub sec: i64,
    /// Nanoseconds, less than 10^9.
    pub nsec: u32,
}

/// Nanoseconds of a second.
const NANOS: u32 = 1_000_000_000;

impl Timestamp {
    /// The latest time that the extra field of an inode can hold, in seconds.
    pub const MAX_SEC: i64 = (1 << 34) - (1 << 31) - 1;

    /// A whole second.
    #[must_use]
    pub const fn from_secs(sec: i64) -> Self {
        Self { sec, nsec: 0 }
    }

    /// From the 32-bit seconds and, where the inode has one, the extra field: two more bits of
    /// seconds, and nanoseconds (Linux: `ext4_decode_extra_time`).
    #[must_use]
    pub fn decode(seconds: u32, extra: Option<u32>) -> Self {
        let low = i64::from(seconds.cast_signed());
        match extra {
            None => Self::from_secs(low),
            Some(extra) => {
                let nsec = extra >> 2;
                Self { sec: low + (i64::from(extra & 3) << 32), nsec: if nsec < NANOS { nsec } else { 0 } }
            }
        }
    }

    /// The two fields, the reverse of [`decode`](Self::decode). A time that does not fit is brought to
    /// the nearest that does; without an extra field nanoseconds are dropped.
    #[must_use]
    pub fn encode(self, has_extra: bool) -> (u32, u32) {
        let (min, max) = (i64::from(i32::MIN), if has_extra { Self::MAX_SEC } else { i64::from(i32::MAX) });
        let sec = self.sec.clamp(min, max);
        // The low 32 bits, sign and all; the epoch makes up for the sign's extension.
        let low = (sec & 0xffff_ffff) as u32;
        let epoch = ((sec - i64::from(low.cast_signed())) >> 32) as u32 & 3;
        (low, epoch | (self.nsec.min(NANOS - 1) << 2))
    }
}

impl Timestamp {
    /// The time that an inode gives back for this one: [`encode`](Self::encode) and [`decode`](Self::decode). Linux:
    /// `timestamp_truncate`.
    #[must_use]
    pub fn as_stored(self, has_extra: bool) -> Self {
        let (seconds, extra) = self.encode(has_extra);
        Self::decode(seconds, has_extra.then_some(extra))
    }
}

/// The host's time as an inode holds it; times before 1970 are negative.
#[cfg(feature = "std")]
impl From<std::time::SystemTime> for Timestamp {
    fn from(time: std::time::SystemTime) -> Self {
        use std::time::UNIX_EPOCH;
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => {
                Self { sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nsec: since.subsec_nanos() }
            }
            Err(before) => {
                let before = before.duration();
                let sec = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Self { sec, nsec: 0 },
                    nsec => Self { sec: sec - 1, nsec: NANOS - nsec },
                }
            }
        }
    }
}

#[cfg(feature = "std")]
impl Timestamp {
    /// The same moment as the host has it; `None` where its clock does not reach that far.
    #[must_use]
    pub fn to_system_time(self) -> Option<std::time::SystemTime> {
        use std::time::{Duration, UNIX_EPOCH};
        let whole = Duration::from_secs(self.sec.unsigned_abs());
        let second = if self.sec < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
        second?.checked_add(Duration::from_nanos(self.nsec.into()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.sec, self.nsec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_from_1901_to_2446_survive_a_round_trip_with_the_extra_field() {
        for sec in [
            i64::from(i32::MIN),
            -1,
            0,
            1,
            i64::from(i32::MAX),
            1 << 31,
            (1 << 32) - 1,
            1 << 32,
            Timestamp::MAX_SEC,
        ] {
            let time = Timestamp { sec, nsec: 999_999_999 };
            let (low, extra) = time.encode(true);
            assert_eq!(Timestamp::decode(low, Some(extra)), time, "{sec}");
        }
    }

    #[test]
    fn without_the_extra_field_a_time_past_2038_is_the_last_second_that_fits() {
        let (low, _) = Timestamp { sec: 1 << 33, nsec: 5 }.encode(false);
        assert_eq!(Timestamp::decode(low, None), Timestamp::from_secs(i64::from(i32::MAX)));
    }

    #[cfg(feature = "std")]
    #[test]
    fn the_hosts_time_survives_a_round_trip() {
        for time in [(0, 0), (-1, 999_999_999), (-1, 0), (-2, 1), (1 << 33, 5), (i64::from(i32::MIN), 7)] {
            let time = Timestamp { sec: time.0, nsec: time.1 };
            if let Some(host) = time.to_system_time() {
                assert_eq!(Timestamp::from(host), time);
            } else {
                assert!(size_of::<usize>() < 8, "{time}");
            }
        }
    }

    #[test]
    fn impossible_nanoseconds_read_as_none() {
        assert_eq!(Timestamp::decode(7, Some(!3)).nsec, 0);
    }
}
