//! Points in time as an inode holds them, and where the present comes from.

use core::fmt;

/// Seconds since 1970 (negative before) and nanoseconds into that second.
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

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.sec, self.nsec)
    }
}

/// Where the present comes from. Tests and reproducible builds give their own.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The present.
    fn now(&self) -> Timestamp;
}

/// A clock that stands still.
#[derive(Clone, Copy, Debug)]
pub struct FixedClock(pub Timestamp);

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// The system's clock.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

#[cfg(feature = "std")]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        use std::time::{SystemTime, UNIX_EPOCH};
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp {
                sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                nsec: since.subsec_nanos(),
            },
            Err(_) => Timestamp::default(),
        }
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

    #[test]
    fn impossible_nanoseconds_read_as_none() {
        assert_eq!(Timestamp::decode(7, Some(!3)).nsec, 0);
    }
}
