//! Who goes on, where a test decides it: threads that take turns, and may pass theirs wherever they take a lock.
//!
//! A thread that has [entered](enter) asks its [`Turns`] before each lock, and instead of sleeping for one that is held.
//! So a race is an order of turns, which can be repeated. Others are asked nothing, and sleep as they always do.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// What decides which thread goes on.
pub trait Turns: Send + Sync {
    /// Another thread may go on here; returns when this one may. One that is stuck cannot before another has done
    /// something.
    fn pass(&self, is_stuck: bool);

    /// This thread takes the lock around the contents of an inode by a call that waits for it.
    fn waits(&self) {}
}

std::thread_local! {
    static TURNS: RefCell<Option<Arc<dyn Turns>>> = const { RefCell::new(None) };
}

/// Lets `turns` decide for this thread until what it gives is dropped.
#[must_use]
pub fn enter(turns: Arc<dyn Turns>) -> Entered {
    Entered(TURNS.with_borrow_mut(|own| own.replace(turns)))
}

/// While this is there, a thread takes turns.
pub struct Entered(Option<Arc<dyn Turns>>);

impl Drop for Entered {
    fn drop(&mut self) {
        TURNS.with_borrow_mut(|own| own.clone_from(&self.0));
    }
}

impl fmt::Debug for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entered")
    }
}

fn turns() -> Option<Arc<dyn Turns>> {
    // A guard may be dropped while the thread ends.
    TURNS.try_with(|own| own.borrow().clone()).ok().flatten()
}

/// Whether this thread takes turns.
#[must_use]
pub fn is_entered() -> bool {
    turns().is_some()
}

/// This thread is about to wait for the lock around the contents of an inode, if somebody holds it.
pub(crate) fn waits() {
    if let Some(turns) = turns() {
        turns.waits();
    }
}

/// A place where another thread may go on.
pub fn pass() {
    if let Some(turns) = turns() {
        turns.pass(false);
    }
}

/// A place where this thread cannot go on before another has. False where it takes no turns, and may sleep.
#[must_use]
pub fn stuck() -> bool {
    turns().inspect(|turns| turns.pass(true)).is_some()
}

/// What `attempt` gives once it gives something; nothing at once where the thread takes no turns.
pub fn until<T>(attempt: impl Fn() -> Option<T>) -> Option<T> {
    let turns = turns()?;
    turns.pass(false);
    loop {
        if let Some(done) = attempt() {
            return Some(done);
        }
        turns.pass(true);
    }
}
