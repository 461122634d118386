//! Threads that do jobs besides the one that finds out what is to be done.
//!
//! # Invariants
//! 1. At most [`WAITING`] jobs wait, so that memory is bounded; whoever has more does them itself.
//! 2. Jobs are begun in their order. After one has failed, those before it are still done, and none after it.

use std::num::NonZero;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle, available_parallelism};

use super::contents::Contents;
use super::job::{Hand, Job, Window, Work};

/// Threads at most, the one that finds out included: more only wait for the output's lock.
const THREADS: usize = 4;
/// Jobs that wait.
const WAITING: usize = 4;

/// The threads.
pub(super) struct Crew<'s> {
    jobs: SyncSender<(u64, Job)>,
    /// Windows that were written.
    done: Receiver<Window>,
    threads: Vec<ScopedJoinHandle<'s, ()>>,
}

impl<'s> Crew<'s> {
    /// One thread for each processor but one, if files can be read by several and the host has threads.
    pub(super) fn start<'env>(
        scope: &'s Scope<'s, 'env>,
        work: &'env Work<'env>,
        contents: &dyn Contents,
    ) -> Option<Self> {
        let count = available_parallelism().map_or(1, NonZero::get).min(THREADS) - 1;
        let (jobs, waiting) = sync_channel(WAITING);
        let (tell, done) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let mut threads = Vec::new();
        while threads.len() < count {
            let Some(contents) = contents.another() else { break };
            let (waiting, tell) = (Arc::clone(&waiting), tell.clone());
            let run = move || labour(contents, work, &waiting, &tell);
            match Builder::new().name("mkfs".into()).spawn_scoped(scope, run) {
                Ok(thread) => threads.push(thread),
                Err(_) => break,
            }
        }
        (!threads.is_empty()).then_some(Self { jobs, done, threads })
    }

    /// A window that may be filled again, if there is one.
    pub(super) fn empty(&self) -> Option<Window> {
        self.done.try_recv().ok()
    }

    /// Hands a job over, or gives it back.
    pub(super) fn offer(&self, nr: u64, job: Job) -> Result<(), Job> {
        self.jobs.try_send((nr, job)).map_err(|refused| match refused {
            TrySendError::Full((_, job)) | TrySendError::Disconnected((_, job)) => job,
        })
    }

    /// Waits until all that was handed over is done.
    pub(super) fn join(self) {
        drop(self.jobs);
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// A thread: job by job, until there are no more.
fn labour(
    mut contents: Box<dyn Contents + Send>,
    work: &Work<'_>,
    waiting: &Mutex<Receiver<(u64, Job)>>,
    done: &Sender<Window>,
) {
    let mut hand = Hand::new(&mut *contents);
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
    let mut last = 0;
    while let Ok((nr, mut job)) = next() {
        if work.failed_before(nr) {
            continue;
        }
        last = nr;
        if let Err(error) = hand.run(&mut job, work) {
            work.fail(nr, error);
        } else if let Job::Window(window) = job {
            // Nobody fills it again after an error, or at the end.
            let _ = done.send(window);
        }
    }
    if let Err(error) = hand.close() {
        work.fail(last, error);
    }
}
