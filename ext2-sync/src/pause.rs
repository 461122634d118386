//! Waiting for another thread without sleeping.

/// Lets another thread run, where there are threads: for who looks again and again for what another does (`cpu_relax`,
/// `cond_resched`).
pub fn pause() {
    #[cfg(feature = "turns")]
    if crate::turn::stuck() {
        return;
    }
    #[cfg(feature = "std")]
    std::thread::yield_now();
    #[cfg(not(feature = "std"))]
    core::hint::spin_loop();
}
