//! What is written, in jobs: windows of blocks that lie next to each other, and large pieces of files.
//!
//! # Invariants
//! 1. Without a [`Crew`] jobs are done in the order in which they come, so that files are read in that order, each from
//!    its front to its end. With one, any order will do, and no two jobs overlap.
//! 2. The error of the earliest job that fails is the one that is returned.
//! 3. After [`Jobs::settle`] all that came before is with the output, or an error was returned.

use super::Result;
use super::contents::Contents;
#[cfg(feature = "std")]
use super::crew::Crew;
use super::job::{Hand, Job, Part, WINDOW, Window, Work};

/// Bytes of the longest job.
const PIECE: u64 = 8 << 20;

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
