//! What is known of the capabilities of a file (`security.capability`), which a write has to take away.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// What is known of a file's capabilities.
///
/// # Invariants
/// 1. Whoever finds none waits as long as somebody does who has removed them and waits for the media: what he writes next may be
///    there before a commit.
/// 2. That there are none is remembered for as long as nobody sets any, also one who does so while another looks.
#[derive(Debug, Default)]
pub(crate) struct Capabilities {
    /// How often somebody has set some, or tried to.
    sets: AtomicU32,
    /// One more than that was when there were none; 0 where that is not known (Linux: `S_NOSEC`).
    none_since: AtomicU32,
    /// Held by who removes them, until they are gone from the media.
    removal: Mutex<()>,
    /// Root has just removed them, which is how the kernel begins root's write to the file.
    removed_by_root: AtomicBool,
}

/// A look whether there are any.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look(u32);

impl Capabilities {
    /// Whether there are known to be none.
    pub(crate) fn are_none(&self) -> bool {
        self.none_since.load(Ordering::SeqCst) == self.sets.load(Ordering::SeqCst).wrapping_add(1)
    }

    /// Begins a look.
    pub(crate) fn look(&self) -> Look {
        Look(self.sets.load(Ordering::SeqCst))
    }

    /// The look found none. Whether there may be some on the media still: somebody is just removing them, or, as the file system
    /// says, that may have been lost.
    pub(crate) fn found_none(&self, look: Look, is_lost: bool) -> bool {
        let is_removing = matches!(self.removal.try_lock(), Err(TryLockError::WouldBlock));
        let may_be_there = is_lost || is_removing;
        if !may_be_there {
            self.none_since.store(look.0.wrapping_add(1), Ordering::SeqCst);
        }
        may_be_there
    }

    /// Somebody has set some, or tried to.
    pub(crate) fn were_set(&self) {
        self.sets.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits for who removes them, and is the next.
    pub(crate) fn remove(&self) -> MutexGuard<'_, ()> {
        self.removal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Root has removed them.
    pub(crate) fn note_root(&self) {
        self.removed_by_root.store(true, Ordering::SeqCst);
    }

    /// Whether root has removed them just now.
    pub(crate) fn take_root(&self) -> bool {
        self.removed_by_root.swap(false, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_there_are_none_is_remembered_until_some_are_set_also_between_look_and_answer() {
        let known = Capabilities::default();
        assert!(!known.are_none());
        let look = known.look();
        assert!(!known.found_none(look, false) && known.are_none());
        known.were_set();
        assert!(!known.are_none());
        let look = known.look();
        known.were_set();
        assert!(!known.found_none(look, false) && !known.are_none());
    }

    #[test]
    fn those_that_go_count_as_there_until_they_are_gone_from_the_media() {
        let known = Capabilities::default();
        let removal = known.remove();
        assert!(known.found_none(known.look(), false) && !known.are_none());
        drop(removal);
        assert!(known.found_none(known.look(), true) && !known.are_none());
        assert!(!known.found_none(known.look(), false) && known.are_none());
    }
}
