//! Waiting for another thread without a lock.

/// How often a thread looks for what may take as long as a disk before it sleeps between two looks.
#[cfg(feature = "std")]
const LOOKS: u32 = 64;

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

/// As [`pause`], for what may take as long as a disk: after some looks the thread sleeps for a moment.
pub(crate) fn pause_between(looks: &mut u32) {
    *looks = looks.saturating_add(1);
    #[cfg(feature = "turns")]
    if crate::turn::stuck() {
        return;
    }
    #[cfg(feature = "std")]
    if *looks > LOOKS {
        std::thread::sleep(core::time::Duration::from_micros(50));
        return;
    }
    pause();
}
