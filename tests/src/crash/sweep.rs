//! Many workloads, on several threads.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use blockdev::crash::CrashLimits;
use ext2_core::Barrier;

use super::{Action, Base, Report, judge::Worker};

/// What stands for the hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// Persistent memory that keeps the order of stores within a line.
    Lines,
    /// Persistent memory that keeps none but within a word.
    Words,
    /// A block device whose fences are flushes (strict durability).
    Sectors,
    /// The memory of a killed process.
    Program,
}

/// What becomes of directories that change their parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moves {
    /// Refused, but for images with a journal.
    Refused,
    /// Done; in the midst of it a state may need a person, who then finds everything.
    Excepted,
}

/// What becomes of a block of attributes that several inodes use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// It changes hands in a transaction.
    Whole,
    /// There is no room for a transaction: when one of them lets go of it a state may need a person, who then finds
    /// everything; and one that dies may have none any more.
    Excepted,
}

/// How much is looked at.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to begin.
    pub base: Base,
    /// On what.
    pub device: Device,
    /// How many states of a crash point.
    pub limits: CrashLimits,
    /// Every so many states the real e2fsck is asked too; 0 for never.
    pub e2fsck_every: u64,
    /// Every so many states the file system is opened as it is, and crashes a second time; 0 for never.
    pub again_every: u64,
    /// A fence or flush that the log leaves out wherever it is made.
    pub without: Option<Barrier>,
    /// Whether directories change their parents.
    pub moves: Moves,
    /// How inodes let go of blocks of attributes that others use.
    pub sharing: Sharing,
    /// No more states after so many.
    pub states: u64,
    /// No more workloads and states after this long.
    pub time: Duration,
    /// So many at once.
    pub threads: usize,
}

impl Plan {
    /// All states that the default limits give, on all processors, without e2fsck and for an hour at most.
    pub fn new(base: Base, device: Device) -> Self {
        Self {
            base,
            device,
            limits: CrashLimits::default(),
            e2fsck_every: 0,
            again_every: 0,
            without: None,
            moves: Moves::Refused,
            sharing: Sharing::Whole,
            states: u64::MAX,
            time: Duration::from_secs(3600),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// When it is enough.
#[derive(Debug)]
pub(super) struct Stop {
    deadline: Instant,
    left: AtomicI64,
    late: AtomicBool,
}

impl Stop {
    /// Counts a state; whether it was the last.
    pub(super) fn one_more(&self) -> bool {
        let left = self.left.fetch_sub(1, Ordering::Relaxed) - 1;
        // Looking at the clock costs as much as a small part of a state.
        if left % 64 == 0 && Instant::now() > self.deadline {
            self.late.store(true, Ordering::Relaxed);
        }
        left <= 0 || self.late.load(Ordering::Relaxed)
    }

    fn is_now(&self) -> bool {
        self.left.load(Ordering::Relaxed) <= 0 || Instant::now() > self.deadline
    }
}

/// Beginnings of workloads whose states are looked at already, so that no state is counted twice.
#[derive(Debug, Default)]
struct Beginnings(HashSet<u64>);

impl Beginnings {
    /// How many first operations of a workload, possibly none, have been another's first ones; `None` where not even
    /// the image at the beginning was looked at. From now on all of these are known.
    fn known(&mut self, workload: &[Action]) -> Option<usize> {
        let mut hasher = DefaultHasher::new();
        let mut known = None;
        for len in 0..=workload.len() {
            if let Some(action) = len.checked_sub(1).and_then(|last| workload.get(last)) {
                action.hash(&mut hasher);
            }
            if !self.0.insert(hasher.finish()) {
                known = Some(len);
            }
        }
        known
    }
}

/// Runs workloads and looks at every state that is not one of a workload before it.
pub fn run(plan: &Plan, workloads: impl Iterator<Item = Vec<Action>> + Send) -> Report {
    let left = AtomicI64::new(plan.states.try_into().unwrap_or(i64::MAX));
    let stop = Stop { deadline: Instant::now() + plan.time, left, late: AtomicBool::new(false) };
    let source = Mutex::new((workloads, Beginnings::default()));
    let report = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..plan.threads.max(1) {
            scope.spawn(|| {
                let mut worker = Worker::new(plan, &stop);
                let mut own = Report::default();
                while !stop.is_now() {
                    let mut source = source.lock().expect("no thread panicked");
                    let Some(workload) = source.0.next() else { break };
                    let known = source.1.known(&workload);
                    drop(source);
                    own.add(worker.look(&workload, known));
                }
                report.lock().expect("no thread panicked").add(own);
            });
        }
    });
    report.into_inner().expect("no thread panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_workload_began_with_is_known() {
        let (a, b) = (Action::Create("/a"), Action::Unlink("/b"));
        let mut beginnings = Beginnings::default();
        assert_eq!(beginnings.known(&[a.clone(), Action::Sync]), None);
        assert_eq!(beginnings.known(&[b.clone(), a.clone()]), Some(0));
        assert_eq!(beginnings.known(&[a.clone(), Action::Sync, b]), Some(2));
        assert_eq!(beginnings.known(&[a]), Some(1));
    }
}
