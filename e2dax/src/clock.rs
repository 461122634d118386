//! The present, as whoever builds reproducibly tells it.

use std::sync::Arc;

use ext2_core::{Clock, FixedClock, SystemClock, Timestamp};

use crate::failure::{Failure, Result};

/// Seconds of `SOURCE_DATE_EPOCH`, or of `E2FSPROGS_FAKE_TIME`, where one is set.
///
/// # Errors
/// What is no number.
pub(crate) fn epoch() -> Result<Option<Timestamp>> {
    for name in ["SOURCE_DATE_EPOCH", "E2FSPROGS_FAKE_TIME"] {
        if let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) {
            let seconds = value.to_str().and_then(|text| text.parse().ok());
            let seconds = seconds.ok_or_else(|| Failure::text(name, "is not a number of seconds"))?;
            return Ok(Some(Timestamp::from_secs(seconds)));
        }
    }
    Ok(None)
}

/// The clock of images that are changed; none for the system's.
///
/// # Errors
/// As [`epoch`].
pub(crate) fn fixed() -> Result<Option<Arc<dyn Clock>>> {
    Ok(epoch()?.map(|time| Arc::new(FixedClock(time)) as Arc<dyn Clock>))
}

/// Now.
///
/// # Errors
/// As [`epoch`].
pub(crate) fn now() -> Result<Timestamp> {
    Ok(epoch()?.unwrap_or_else(|| SystemClock.now()))
}
