//! What a person sees of a copy: a bar, and what was not copied.

use std::os::unix::fs::MetadataExt as _;

use ext2_image::copy::{Cause, Observer, Place, Problem};
use indicatif::ProgressBar;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::progress::{bytes_bar, is_seen};
use crate::target::Target;
use crate::text::{count, show};

/// A side of a copy, whose paths are named by it.
#[derive(Clone, Copy)]
pub(super) enum Side<'a> {
    Image(&'a Target),
    Host,
}

impl Side<'_> {
    fn name_of(&self, path: &[u8]) -> String {
        match self {
            Self::Image(target) => target.name_of(path),
            Self::Host => show(path),
        }
    }
}

/// Tells a person of a copy.
pub(super) struct Told<'a> {
    context: &'a mut Context,
    source: Side<'a>,
    destination: Side<'a>,
    bar: ProgressBar,
    rescues: bool,
    /// Device and inode number of the image's file, where files of this machine are copied into it.
    own: Option<(u64, u64)>,
}

impl<'a> Told<'a> {
    /// `total` is how many bytes are to be moved, and is asked only where the bar is seen.
    pub(super) fn new(
        context: &'a mut Context,
        source: Side<'a>,
        destination: Side<'a>,
        total: impl FnOnce() -> u64,
    ) -> Self {
        let total = if is_seen() { total() } else { 0 };
        let rescues = context.image.rescue;
        let own = match (source, destination) {
            (Side::Host, Side::Image(target)) => std::fs::metadata(&target.image).ok(),
            _ => None,
        };
        let own = own.map(|found| (found.dev(), found.ino()));
        Self { context, source, destination, bar: bytes_bar("copying", total), rescues, own }
    }

    fn failure(&self, problem: Problem) -> Failure {
        let name = match &problem.place {
            Place::Source(path) => self.source.name_of(path),
            Place::Destination(path) => self.destination.name_of(path),
        };
        match problem.cause {
            Cause::FileSystem(error) => Failure::new(name, error),
            Cause::Host(error) => Failure::new(name, error),
        }
    }

    /// The copy has come to this.
    pub(super) fn end(self, done: Result<(), Problem>) -> Result<()> {
        self.bar.finish_and_clear();
        done.map_err(|problem| self.failure(problem))
    }
}

impl Observer for Told<'_> {
    fn moved(&mut self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn rescues(&self) -> bool {
        self.rescues
    }

    fn leaves_out(&mut self, path: &[u8], device: u64, inode: u64) -> bool {
        let is_own = self.own == Some((device, inode));
        if is_own {
            let what = format!("{}: is the image that is copied into, and is left out", show(path));
            self.bar.suspend(|| self.context.note(&what));
        }
        is_own
    }

    fn problem(&mut self, problem: Problem) {
        let failure = self.failure(problem);
        self.bar.suspend(|| self.context.complain(&failure));
    }

    fn left_out(&mut self, xattr: &[u8], files: u64) {
        let what = format!("the attribute {} of {} was left out", show(xattr), count(files, "file"));
        self.bar.suspend(|| self.context.note(&what));
    }
}
