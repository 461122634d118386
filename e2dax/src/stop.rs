//! Ctrl-C during a long change: it is asked about between steps, so that nothing is left half done.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ext2_core::Errno;
use ext2_image::rewrite::{Progress, Step, Watch};
use indicatif::ProgressBar;
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::failure::{Failure, Result};
use crate::progress::{bytes_bar, count_bar};

/// What a shell says of a program that Ctrl-C ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// While it lives, Ctrl-C and SIGTERM are noted and end nothing; it also shows how far the work is.
pub(crate) struct Stop {
    asked: Arc<AtomicBool>,
    handlers: Vec<SigId>,
    bar: RefCell<Option<(Step, ProgressBar)>>,
}

impl Stop {
    /// Begins to note.
    pub(crate) fn new() -> Self {
        let asked = Arc::new(AtomicBool::new(false));
        // Where a signal cannot be caught it ends the program, as it would have.
        let handlers = [SIGINT, SIGTERM]
            .into_iter()
            .filter_map(|signal| signal_hook::flag::register(signal, asked.clone()).ok())
            .collect();
        Self { asked, handlers, bar: RefCell::new(None) }
    }

    /// Does work that is watched.
    pub(crate) fn watched<T>(&self, work: impl FnOnce(Watch<'_>) -> T) -> T {
        let progress = |progress: Progress| self.show(progress);
        let stop = || self.asked.load(Ordering::Relaxed);
        let done = work(Watch { progress: &progress, stop: &stop });
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
        done
    }

    fn show(&self, progress: Progress) {
        let mut bar = self.bar.borrow_mut();
        if bar.as_ref().is_none_or(|(step, _)| *step != progress.step) {
            if let Some((_, former)) = bar.take() {
                former.finish_and_clear();
            }
            let next = match progress.step {
                Step::Copy => bytes_bar("moving", progress.total),
                Step::Inodes => count_bar("inodes", progress.total),
                Step::Switch => count_bar("metadata", progress.total),
            };
            *bar = Some((progress.step, next));
        }
        if let Some((_, bar)) = &*bar {
            bar.set_position(progress.done);
        }
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            signal_hook::low_level::unregister(handler);
        }
    }
}

/// Names the image of an error; one that was asked for also says how to go on.
pub(crate) fn explained<T>(result: ext2_core::Result<T>, image: &str, how: &str) -> Result<T> {
    result.map_err(|error| match error {
        ext2_core::Error::Caller(errno, what) if errno == Errno::INTR => {
            Failure::interrupted(image, format!("{what}; {how}"))
        }
        error => Failure::new(image, error),
    })
}
