//! Changes that are waited for as a whole: a thread in the middle of one waits for nobody who waits for it.

#[cfg(feature = "std")]
std::thread_local! {
    static INSIDE: core::cell::Cell<u32> = const { core::cell::Cell::new(0) };
}

/// Says that this thread begins such a change, or ends one. They may lie in one another.
pub fn begin_or_end_whole(begin: bool) {
    #[cfg(feature = "std")]
    INSIDE.set(if begin { INSIDE.get() + 1 } else { INSIDE.get().saturating_sub(1) });
    let _ = begin;
}

/// Whether this thread may wait for such changes to end: it is in none. Without threads of `std` nobody knows.
#[must_use]
pub fn may_wait() -> bool {
    #[cfg(feature = "std")]
    return INSIDE.get() == 0;
    #[cfg(not(feature = "std"))]
    true
}
