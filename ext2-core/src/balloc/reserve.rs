//! On whose behalf blocks are taken: who serves others is not who asks. Linux: `capable(CAP_SYS_RESOURCE)` of the
//! current task, in `ext2_has_free_blocks`.

#[cfg(feature = "std")]
use core::cell::Cell;

#[cfg(feature = "std")]
std::thread_local! {
    static LEFT: Cell<bool> = const { Cell::new(false) };
}

/// Does something on behalf of somebody who may not take the blocks that are reserved for root: what this thread takes
/// meanwhile leaves them alone, as with [`OpenOptions::keep_reserved`](crate::OpenOptions::keep_reserved).
#[cfg(feature = "std")]
pub fn without_reserve<T>(work: impl FnOnce() -> T) -> T {
    /// Puts back what was, also where `work` panics.
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            LEFT.set(self.0);
        }
    }
    let _before = Before(LEFT.replace(true));
    work()
}

/// Whether the reserved blocks are left alone by this thread now.
pub(super) fn is_left() -> bool {
    #[cfg(feature = "std")]
    return LEFT.get();
    #[cfg(not(feature = "std"))]
    false
}
