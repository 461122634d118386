//! Changes that are waited for as a whole: a thread in the middle of one waits for nobody who waits for it.

#[cfg(feature = "std")]
std::thread_local! {
    /// How many this thread is in, and how many of those are patient.
    static INSIDE: core::cell::Cell<(u32, u32)> = const { core::cell::Cell::new((0, 0)) };
}

#[cfg(feature = "std")]
fn count(count: u32, begin: bool) -> u32 {
    if begin { count + 1 } else { count.saturating_sub(1) }
}

/// Says that this thread begins such a change, or ends one. They may lie in one another.
pub fn begin_or_end_whole(begin: bool) {
    #[cfg(feature = "std")]
    INSIDE.set((count(INSIDE.get().0, begin), INSIDE.get().1));
    let _ = begin;
}

/// Says that the change which this thread has begun is patient, or ends: others may come between where nothing else helps.
pub fn begin_or_end_patient(begin: bool) {
    #[cfg(feature = "std")]
    INSIDE.set((INSIDE.get().0, count(INSIDE.get().1, begin)));
    let _ = begin;
}

/// Whether this thread may wait for such changes to end: it is in none. Without threads of `std` nobody knows.
#[must_use]
pub fn may_wait() -> bool {
    #[cfg(feature = "std")]
    return INSIDE.get().0 == 0;
    #[cfg(not(feature = "std"))]
    true
}

/// Whether all that this thread is in are patient, or it is in none.
#[must_use]
pub fn is_patient() -> bool {
    #[cfg(feature = "std")]
    return INSIDE.get().0 == INSIDE.get().1;
    #[cfg(not(feature = "std"))]
    true
}
