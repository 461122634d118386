//! One piece of what is written: a window of blocks that lie next to each other, or a large piece of a file; and who
//! does it.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::contents::{Contents, SourceFile};
use super::output::Output;
use super::{Body, Error, NodeId, Plan, Result};
use ext2_core::sync::{Mutex, Rank};

/// Bytes that are gathered before they are written: so many that a call costs little beside them, so few that they
/// are still in the processor's cache when they are copied from there. What is as long is a job of its own.
pub(super) const WINDOW: u64 = 256 << 10;

/// Bytes of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) node: NodeId,
    /// The first, counted in the file.
    pub(super) from: u64,
    pub(super) len: u64,
}

/// Something to be written.
#[derive(Debug)]
pub(super) enum Job {
    Window(Window),
    /// A part of a file, to byte `to` of the output, and zeros up to `end`.
    Copy {
        part: Part,
        to: u64,
        end: u64,
    },
}

/// A window of output in memory: what is written next to each other goes out in one piece.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) start: u64,
    /// Bytes that it has. `bytes` may be longer, and holds anything behind them.
    pub(super) len: usize,
    pub(super) bytes: Vec<u8>,
    /// Bytes that are still to be read, and where in the window they go.
    pub(super) parts: Vec<(usize, Part)>,
}

/// What all who do jobs share.
pub(super) struct Work<'w> {
    pub(super) plan: &'w Plan,
    pub(super) out: &'w dyn Output,
    copied: AtomicU64,
    /// The number of the earliest job that failed so far, and why.
    pub(super) failed: Mutex<Option<(u64, Error)>>,
    failed_at: AtomicU64,
}

impl<'w> Work<'w> {
    pub(super) fn new(plan: &'w Plan, out: &'w dyn Output) -> Self {
        let failed = Mutex::new(Rank::Leaf, None);
        Self { plan, out, copied: AtomicU64::new(0), failed, failed_at: AtomicU64::new(u64::MAX) }
    }

    /// Bytes of files that were copied so far.
    pub(super) fn copied(&self) -> u64 {
        self.copied.load(Ordering::Relaxed)
    }

    /// Whether a job before `nr` has failed, so that it need not be done.
    #[cfg(feature = "std")]
    pub(super) fn failed_before(&self, nr: u64) -> bool {
        self.failed_at.load(Ordering::Relaxed) < nr
    }

    /// Remembers why job `nr` failed, unless one before it did.
    pub(super) fn fail(&self, nr: u64, error: Error) {
        let mut failed = self.failed.lock();
        if failed.as_ref().is_none_or(|(first, _)| nr < *first) {
            *failed = Some((nr, error));
            self.failed_at.store(nr, Ordering::Relaxed);
        }
    }
}

/// Who does jobs: a reader of files, and which it has open.
pub(super) struct Hand<'c> {
    contents: &'c mut dyn Contents,
    open: Option<NodeId>,
    buffer: Vec<u8>,
}

impl<'c> Hand<'c> {
    pub(super) fn new(contents: &'c mut dyn Contents) -> Self {
        Self { contents, open: None, buffer: Vec::new() }
    }

    /// Opens a file, unless it is open.
    fn open(&mut self, plan: &Plan, node: NodeId) -> Result<()> {
        if self.open == Some(node) {
            return Ok(());
        }
        self.close()?;
        let Body::File { size, handle, .. } = *plan.tree.body(node) else {
            return Error::format("a part of what is no file is to be copied");
        };
        self.contents.open(&SourceFile { tree: &plan.tree, node, size, handle })?;
        self.open = Some(node);
        Ok(())
    }

    /// Says that no more is wanted of the open file.
    pub(super) fn close(&mut self) -> Result<()> {
        if self.open.take().is_some() { self.contents.close() } else { Ok(()) }
    }

    /// Does a job.
    pub(super) fn run(&mut self, job: &mut Job, work: &Work<'_>) -> Result<()> {
        match job {
            Job::Window(window) => {
                // Bytes of the window that are with the output.
                let mut done = 0;
                for &(at, part) in &window.parts {
                    let place = window.start + at as u64;
                    if part.len > 0 && work.out.refer(place, part.node, part.from, part.len) {
                        if done < at {
                            work.out.write_at(window.start + done as u64, &window.bytes[done..at])?;
                        }
                        done = at + part.len as usize;
                        continue;
                    }
                    self.open(work.plan, part.node)?;
                    self.contents.read_at(part.from, &mut window.bytes[at..at + part.len as usize])?;
                    work.copied.fetch_add(part.len, Ordering::Relaxed);
                }
                if done == window.len {
                    return Ok(());
                }
                work.out.write_at(window.start + done as u64, &window.bytes[done..window.len])
            }
            Job::Copy { part, to, end } => self.copy(*part, *to, *end, work),
        }
    }

    fn copy(&mut self, part: Part, mut to: u64, end: u64, work: &Work<'_>) -> Result<()> {
        let (mut from, stop) = (part.from, part.from + part.len);
        if part.len > 0 && work.out.refer(to, part.node, part.from, part.len) {
            (from, to) = (stop, to + part.len);
        } else {
            self.open(work.plan, part.node)?;
        }
        if from < stop && self.copy_by_host(part, to, work)? {
            work.copied.fetch_add(part.len, Ordering::Relaxed);
            (from, to) = (stop, to + part.len);
        }
        self.buffer.resize(WINDOW as usize, 0);
        while from < stop {
            let len = (stop - from).min(WINDOW);
            let bytes = &mut self.buffer[..len as usize];
            self.contents.read_at(from, bytes)?;
            work.out.write_at(to, bytes)?;
            work.copied.fetch_add(len, Ordering::Relaxed);
            (from, to) = (from + len, to + len);
        }
        if to < end { work.out.zero(to, end - to) } else { Ok(()) }
    }

    /// Lets the host copy bytes of the open file, if it can.
    #[cfg(feature = "std")]
    fn copy_by_host(&mut self, part: Part, to: u64, work: &Work<'_>) -> Result<bool> {
        match self.contents.host_file() {
            Some((file, base)) => work.out.copy_file(to, file, base + part.from, part.len),
            None => Ok(false),
        }
    }

    #[cfg(not(feature = "std"))]
    fn copy_by_host(&self, _: Part, _: u64, _: &Work<'_>) -> Result<bool> {
        Ok(false)
    }
}
