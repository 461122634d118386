//! Progress bars on the standard error, and only where a person looks at it.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal};

use ext2_image::check::{Pass, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Whether a person looks: only then it is worth finding out how much there is to do.
pub(crate) fn is_seen() -> bool {
    io::stderr().is_terminal()
}

/// A bar over `total` bytes with rate and time left, in 40 columns too; silent unless the standard error is a terminal.
pub(crate) fn bytes_bar(what: &'static str, total: u64) -> ProgressBar {
    bar(what, total, "{msg} {wide_bar} {percent}% {bytes_per_sec} {eta}")
}

/// A bar over `total` things.
pub(crate) fn count_bar(what: &'static str, total: u64) -> ProgressBar {
    bar(what, total, "{msg} {wide_bar} {percent}% {eta}")
}

fn bar(what: &'static str, total: u64, template: &str) -> ProgressBar {
    if !is_seen() {
        return ProgressBar::hidden();
    }
    // A template that cannot be read would be our own mistake; the plain bar does as well.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
        .with_style(style)
        .with_message(what)
}

/// A bar for each pass of a check in turn.
#[derive(Default)]
pub(crate) struct PassBar {
    pass: Cell<Option<Pass>>,
    bar: RefCell<Option<ProgressBar>>,
}

impl PassBar {
    /// Shows how far a check is.
    pub(crate) fn show(&self, progress: Progress) {
        if self.pass.replace(Some(progress.pass)) != Some(progress.pass) {
            self.end();
            let what = match progress.pass {
                Pass::Layout => "layout",
                Pass::Inodes => "inodes",
                Pass::Directories => "directories",
                Pass::Connections => "connections",
                Pass::Links => "links",
                Pass::Counts => "counts",
            };
            self.bar.replace(Some(count_bar(what, progress.total)));
        }
        if let Some(bar) = &*self.bar.borrow() {
            bar.set_position(progress.done);
        }
    }

    /// Prints without the bar.
    pub(crate) fn hidden_for<T>(&self, print: impl FnOnce() -> T) -> T {
        match &*self.bar.borrow() {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
