//! What is written, in jobs: windows of blocks that lie next to each other, and large pieces of files.
//!
//! # Invariants
//! 1. Without a [`Crew`] jobs are done in the order in which they come, so that files are read in that order, each from
//!    its front to its end. With one, any order will do, and no two jobs overlap.
//! 2. The error of the earliest job that fails is the one that is returned.
//! 3. After [`Jobs::settle`] all that came before is with the output, or an error was returned.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::contents::{Contents, SourceFile};
#[cfg(feature = "std")]
use super::crew::Crew;
use super::output::Output;
use super::{Body, Error, NodeId, Plan, Result};
use ext2_core::sync::{Mutex, Rank};

/// Bytes that are gathered before they are written: so many that a call costs little beside them, so few that they
/// are still in the processor's cache when they are copied from there. What is as long is a job of its own.
pub(super) const WINDOW: u64 = 256 << 10;
/// Bytes of the longest job.
const PIECE: u64 = 8 << 20;

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
    start: u64,
    /// Bytes that it has. `bytes` may be longer, and holds anything behind them.
    len: usize,
    bytes: Vec<u8>,
    /// Bytes that are still to be read, and where in the window they go.
    parts: Vec<(usize, Part)>,
}

impl Window {
    /// Puts bytes behind those that the window has, or into a new one.
    pub(super) fn put(&mut self, offset: u64, bytes: &[u8], jobs: &mut Jobs<'_>) -> Result<()> {
        self.take(offset, bytes.len(), jobs)?.copy_from_slice(bytes);
        Ok(())
    }

    /// Puts a part of a file there, which is not read yet, and zeros up to `padded` bytes.
    pub(super) fn put_part(
        &mut self,
        offset: u64,
        part: Part,
        padded: usize,
        jobs: &mut Jobs<'_>,
    ) -> Result<()> {
        let len = part.len as usize; // less than a window
        self.take(offset, padded, jobs)?[len..].fill(0);
        self.parts.push((self.len - padded, part));
        Ok(())
    }

    /// The next `len` bytes of the window, which are for byte `offset` of the output.
    fn take(&mut self, offset: u64, len: usize, jobs: &mut Jobs<'_>) -> Result<&mut [u8]> {
        let full = (self.len + len) as u64 > WINDOW;
        if full || offset != self.start + self.len as u64 {
            self.flush(jobs)?;
            self.start = offset;
        }
        let at = self.len;
        self.len += len;
        if self.bytes.len() < self.len {
            self.bytes.resize(self.len.max(WINDOW as usize), 0);
        }
        Ok(&mut self.bytes[at..self.len])
    }

    /// Has the window written.
    pub(super) fn flush(&mut self, jobs: &mut Jobs<'_>) -> Result<()> {
        if self.len > 0 {
            let other = jobs.empty();
            jobs.submit(Job::Window(core::mem::replace(self, other)))?;
        }
        Ok(())
    }
}

/// What all who do jobs share.
pub(super) struct Work<'w> {
    pub(super) plan: &'w Plan,
    pub(super) out: &'w dyn Output,
    copied: AtomicU64,
    /// The number of the earliest job that failed so far, and why.
    failed: Mutex<Option<(u64, Error)>>,
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
                for &(at, part) in &window.parts {
                    self.open(work.plan, part.node)?;
                    self.contents.read_at(part.from, &mut window.bytes[at..at + part.len as usize])?;
                    work.copied.fetch_add(part.len, Ordering::Relaxed);
                }
                work.out.write_at(window.start, &window.bytes[..window.len])
            }
            Job::Copy { part, to, end } => self.copy(*part, *to, *end, work),
        }
    }

    fn copy(&mut self, part: Part, mut to: u64, end: u64, work: &Work<'_>) -> Result<()> {
        self.open(work.plan, part.node)?;
        let (mut from, stop) = (part.from, part.from + part.len);
        if self.copy_by_host(part, to, work)? {
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

/// Where jobs go.
pub(super) struct Jobs<'w> {
    pub(super) work: &'w Work<'w>,
    hand: Hand<'w>,
    #[cfg(feature = "std")]
    crew: Option<Crew<'w>>,
    /// A window that may be filled again.
    spare: Option<Window>,
    next: u64,
    /// Hears how many bytes of files were copied so far, whenever a job has been done or handed over.
    progress: &'w mut dyn FnMut(u64),
}

impl<'w> Jobs<'w> {
    /// Jobs that are done here, one after the other.
    pub(super) fn new(
        work: &'w Work<'w>,
        contents: &'w mut dyn Contents,
        progress: &'w mut dyn FnMut(u64),
    ) -> Self {
        Self {
            work,
            hand: Hand::new(contents),
            #[cfg(feature = "std")]
            crew: None,
            spare: None,
            next: 0,
            progress,
        }
    }

    /// Jobs that are done here and by others.
    #[cfg(feature = "std")]
    pub(super) fn with_crew(self, crew: Option<Crew<'w>>) -> Self {
        Self { crew, ..self }
    }

    /// Has a part of a file written to byte `to` of the output, and zeros up to `end`.
    pub(super) fn copy(&mut self, part: Part, mut to: u64, end: u64) -> Result<()> {
        let Part { node, mut from, mut len } = part;
        while len > 0 {
            let piece = len.min(PIECE);
            let end = if piece == len { end } else { to + piece };
            self.submit(Job::Copy { part: Part { node, from, len: piece }, to, end })?;
            (from, to, len) = (from + piece, to + piece, len - piece);
        }
        Ok(())
    }

    /// An empty window.
    fn empty(&mut self) -> Window {
        #[cfg(feature = "std")]
        let from_crew = self.crew.as_ref().and_then(Crew::empty);
        #[cfg(not(feature = "std"))]
        let from_crew = None;
        let mut window: Window = from_crew.or_else(|| self.spare.take()).unwrap_or_default();
        window.len = 0;
        window.parts.clear();
        window
    }

    /// Does a job, or has it done.
    fn submit(&mut self, mut job: Job) -> Result<()> {
        let nr = self.next;
        self.next += 1;
        #[cfg(feature = "std")]
        if let Some(crew) = &self.crew {
            if self.work.failed_before(nr) {
                return self.settle();
            }
            match crew.offer(nr, job) {
                Ok(()) => {
                    self.tell();
                    return Ok(());
                }
                // They have enough to do.
                Err(refused) => job = refused,
            }
        }
        if let Err(error) = self.hand.run(&mut job, self.work) {
            self.work.fail(nr, error);
            return self.settle();
        }
        if let Job::Window(window) = job {
            self.spare = Some(window);
        }
        self.tell();
        Ok(())
    }

    fn tell(&mut self) {
        (self.progress)(self.work.copied());
    }

    /// Waits until all jobs are done. Later ones are done here.
    ///
    /// # Errors
    /// That of the earliest job that failed.
    pub(super) fn settle(&mut self) -> Result<()> {
        #[cfg(feature = "std")]
        if let Some(crew) = self.crew.take() {
            crew.join();
        }
        self.tell();
        match self.work.failed.lock().take() {
            Some((_, error)) => Err(error),
            None => self.hand.close(),
        }
    }
}
