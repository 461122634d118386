//! Recording workloads, and looking at every state.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use blockdev::{
    RamDevice, Recorder,
    crash::{BlockModel, FenceMeans, Limits, PmemModel, PmemOrder},
};
use ext2_core::{
    Ext2, FixedClock, OpenOptions, Timestamp,
    check::{Checker, Finding, Kind, Options, Outcome},
};

use super::{Action, History, Moment, perform};
use crate::{Scratch, golden, tools, tree};

/// The byte that all free blocks are full of: who sees it sees what was never written to that file.
pub const STALE: u8 = 0xd5;

/// Seconds since 1970, for everything that has a time.
pub const NOW: u32 = 1_700_000_000;

/// Where `s_state` is in an image.
const STATE_OFFSET: usize = 1024 + 58;

/// How the file systems of workloads are opened: to be written, at a time that stands still.
pub fn options() -> OpenOptions {
    let clock = FixedClock(Timestamp { sec: NOW.into(), nsec: 0 });
    OpenOptions { clock: Some(Arc::new(clock)), ..OpenOptions::default() }
}

/// The image that workloads begin with.
#[derive(Clone, Debug)]
pub struct Base {
    /// All of it.
    pub image: Vec<u8>,
    /// Bytes of a block.
    pub block_size: usize,
}

impl Base {
    /// A golden image, emptied and filled with the files that the [`vocabulary`](super::vocabulary) is about, free
    /// blocks full of [`STALE`].
    pub fn of(name: &str) -> Self {
        let device = Arc::new(RamDevice::from_bytes(&golden::image(name).file_system()).expect("memory"));
        let fs = Ext2::open(device.clone(), &options()).expect("a golden image opens");
        empty(&fs);
        let block_size = usize::try_from(fs.geometry().block_size.bytes()).expect("a block fits memory");
        let setup = [
            Action::Create("/a"),
            Action::Write { path: "/a", offset: 0, len: 2500, seed: 9 },
            Action::Mkdir("/d"),
            Action::Create("/d/b"),
            Action::Write { path: "/d/b", offset: 0, len: 100, seed: 10 },
            Action::Link("/d/b", "/d/b2"),
            Action::Create("/h"),
            Action::Write { path: "/h", offset: 0, len: 500, seed: 11 },
            Action::Write { path: "/h", offset: 14_000, len: 600, seed: 12 },
            Action::SetXattr { path: "/h", len: 400, seed: 13 },
            Action::Mkdir("/x"),
            Action::Mknod("/fifo"),
        ];
        for action in setup {
            perform(&fs, &action).unwrap_or_else(|error| panic!("{action:?}: {error}"));
        }
        fs.close().expect("the file system closes");
        let mut image = device.to_vec();
        spoil_free_blocks(&mut image);
        Self { image, block_size }
    }
}

/// Removes everything but `lost+found`.
fn empty(fs: &Ext2) {
    let all = tree::of(fs).expect("a golden image can be read");
    for (path, node) in all.iter().rev() {
        if path.is_empty() || path == b"/lost+found" {
            continue;
        }
        let (dir, name) = fs.resolve_parent(path).expect("listed");
        let done =
            if node.kind == ext2_core::FileKind::Directory { dir.rmdir(name) } else { dir.unlink(name) };
        done.unwrap_or_else(|error| panic!("{}: {error}", path.escape_ascii()));
    }
}

/// Fills the blocks that the bitmaps call free.
fn spoil_free_blocks(image: &mut [u8]) {
    let device = Arc::new(Scratch::new(image.to_vec()));
    let fs = Ext2::open(device, &OpenOptions::read_only()).expect("the image opens");
    let geo = fs.geometry().clone();
    let size = usize::try_from(geo.block_size.bytes()).expect("a block fits memory");
    for group in geo.group_numbers() {
        let desc = usize::try_from(geo.descriptor_offset(group, ext2_core::GroupNr::new(0))).expect("inside");
        let bitmap = u32::from_le_bytes(image[desc..desc + 4].try_into().expect("4 bytes")) as usize * size;
        for bit in 0..geo.group_len(group) as usize {
            if image[bitmap + bit / 8] >> (bit % 8) & 1 == 0 {
                let block = geo.group_start(group) as usize + bit;
                image[block * size..(block + 1) * size].fill(STALE);
            }
        }
    }
}

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

/// How much is looked at.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to begin.
    pub base: Base,
    /// On what.
    pub device: Device,
    /// How many states of a crash point.
    pub limits: Limits,
    /// Every so many states the real e2fsck is asked too; 0 for never.
    pub e2fsck_every: u64,
    /// A fence that the log is to leave out, by its number from 0.
    pub without_fence: Option<u64>,
    /// No more states after so many.
    pub states: u64,
    /// No more workloads and states after this long.
    pub time: Duration,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Workloads recorded.
    pub workloads: u64,
    /// Operations in them, and those that made no sense at the time and were refused.
    pub operations: (u64, u64),
    /// Fences and flushes in them.
    pub fences: u64,
    /// Crash points.
    pub points: u64,
    /// States looked at, each different from the others of its workload.
    pub states: u64,
    /// Of which were clean, and which were mended.
    pub outcomes: (u64, u64),
    /// States given to the real e2fsck too.
    pub e2fsck: u64,
    /// What was mended, by kind, in states.
    pub repairs: BTreeMap<Kind, u64>,
    /// States that need a person.
    pub halts: u64,
    /// Promises broken, and states that need a person: at most some of each workload.
    pub violations: Vec<String>,
}

impl Report {
    /// Adds what another part found.
    pub fn add(&mut self, other: Self) {
        self.workloads += other.workloads;
        self.operations.0 += other.operations.0;
        self.operations.1 += other.operations.1;
        self.fences += other.fences;
        self.points += other.points;
        self.states += other.states;
        self.outcomes.0 += other.outcomes.0;
        self.outcomes.1 += other.outcomes.1;
        self.e2fsck += other.e2fsck;
        for (kind, count) in other.repairs {
            *self.repairs.entry(kind).or_default() += count;
        }
        self.halts += other.halts;
        self.violations.extend(other.violations);
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} workloads, {} operations ({} refused), {} fences, {} crash points, {} states: {} clean, {} mended, \
             {} need a person; {} also by e2fsck; {} violations",
            self.workloads,
            self.operations.0,
            self.operations.1,
            self.fences,
            self.points,
            self.states,
            self.outcomes.0,
            self.outcomes.1,
            self.halts,
            self.e2fsck,
            self.violations.len()
        )?;
        for (kind, count) in &self.repairs {
            writeln!(f, "  {count:9}  {}", kind.text())?;
        }
        Ok(())
    }
}

/// The workload of an image, recorded.
struct Recorded {
    log: Vec<blockdev::Op>,
    history: History,
    fences: u64,
    refused: u64,
}

fn record(plan: &Plan, workload: &[Action]) -> Result<Recorded, String> {
    let device = RamDevice::from_bytes(&plan.base.image).map_err(|error| error.to_string())?;
    let recorder = Arc::new(Recorder::new(device));
    if let Some(left_out) = plan.without_fence {
        recorder.ignore_fence(move |fence| fence.ordinal == left_out);
    }
    let words = |error: ext2_core::Error| error.to_string();
    let fs = Ext2::open(recorder.clone(), &options()).map_err(words)?;
    let mut history = History::new(tree::of(&fs)?, plan.base.block_size);
    let mut refused = 0;
    for (nr, action) in (0..).zip(workload) {
        recorder.mark(2 * nr + 1);
        let done = perform(&fs, action).is_ok();
        recorder.mark(2 * nr + 2);
        refused += u64::from(!done);
        history.push(done.then(|| action.clone()), tree::of(&fs)?);
    }
    let (log, fences) = (recorder.snapshot(), recorder.fences());
    drop(fs);
    Ok(Recorded { log, history, fences, refused })
}

/// Looks at the states of one workload.
struct Judge<'p> {
    plan: &'p Plan,
    workload: &'p [Action],
    history: &'p History,
    device: Arc<Scratch>,
    checker: &'p mut Checker,
    report: &'p mut Report,
    folder: &'p Path,
    here: u64,
    stop: &'p Stop,
}

/// When it is enough.
struct Stop {
    deadline: Instant,
    left: AtomicI64,
}

impl Stop {
    fn is_now(&self) -> bool {
        self.left.load(Ordering::Relaxed) <= 0 || Instant::now() > self.deadline
    }
}

impl Judge<'_> {
    fn state(&mut self, image: &[u8], mark: Option<u64>, what: &dyn Fn() -> String) -> ControlFlow<()> {
        self.report.states += 1;
        let moment = match mark {
            None => Moment::After(0),
            // OK to cast: marks number the operations.
            Some(mark) if mark % 2 == 1 => Moment::During((mark / 2) as usize),
            Some(mark) => Moment::After((mark / 2) as usize),
        };
        if let Err(problem) = self.judge(image, moment) {
            let text = format!("{problem}\n  {moment:?} of {:?}, {}", self.workload, what());
            self.report.violations.push(text);
            self.here += 1;
            if self.here >= 3 {
                return ControlFlow::Break(());
            }
        }
        self.stop.left.fetch_sub(1, Ordering::Relaxed);
        if self.stop.is_now() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn judge(&mut self, image: &[u8], moment: Moment) -> Result<(), String> {
        self.device.load(image);
        // What says that it was unmounted cleanly is not looked at by e2fsck -p, so it has to be clean.
        if image.get(STATE_OFFSET).is_some_and(|state| state & 1 != 0) {
            self.assert_clean()?;
        }
        let mut kinds = Vec::new();
        let outcome = self.checker.mend(&*self.device, NOW, &mut |finding| kinds.push(finding.kind));
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            *self.report.repairs.entry(kind).or_default() += 1;
        }
        let ask = self.plan.e2fsck_every != 0 && self.report.states.is_multiple_of(self.plan.e2fsck_every);
        let theirs = if ask { Some(self.e2fsck(image)?) } else { None };
        match outcome {
            Ok(Outcome::Clean) => self.report.outcomes.0 += 1,
            Ok(Outcome::Mended(_)) => self.report.outcomes.1 += 1,
            Ok(Outcome::Halts(finding)) => {
                self.report.halts += 1;
                if matches!(theirs, Some(Some(_))) {
                    return Err(format!("ours stops at {finding}, e2fsck does not"));
                }
                return Err(format!("needs a person: {finding}"));
            }
            Err(error) => return Err(format!("cannot be mended: {error}")),
        }
        let found = tree::read(self.device.clone())?;
        if let Some(theirs) = theirs {
            let Some(theirs) = theirs else { return Err("e2fsck stops, ours does not".to_owned()) };
            self.device.load(&theirs);
            if tree::read(self.device.clone())? != found {
                return Err("e2fsck mends it to another tree than ours".to_owned());
            }
        }
        self.history.judge(moment, &found)
    }

    /// Checks that there is nothing to mend.
    fn assert_clean(&mut self) -> Result<(), String> {
        let mut first = None;
        let mut sink = |finding: &Finding| first = first.take().or(Some(finding.to_string()));
        match self.checker.check(&*self.device, &Options::default(), &mut sink) {
            Ok(summary) if summary.is_clean() => Ok(()),
            _ => Err(format!("is marked as clean and is not: {first:?}")),
        }
    }

    /// What `e2fsck -p` makes of an image; nothing when it stops.
    fn e2fsck(&mut self, image: &[u8]) -> Result<Option<Vec<u8>>, String> {
        self.report.e2fsck += 1;
        let path = self.folder.join("state.img");
        std::fs::write(&path, image).map_err(|error| error.to_string())?;
        if tools::e2fsck_p(&path).is_err() {
            return Ok(None);
        }
        tools::e2fsck_fn(&path).map_err(|words| format!("not clean after e2fsck -p: {words}"))?;
        let image = std::fs::read(&path).map_err(|error| error.to_string())?;
        let mut findings = String::new();
        let mut sink = |finding: &Finding| findings = finding.to_string();
        let summary = Checker::new().check(&Scratch::new(image.clone()), &Options::default(), &mut sink);
        match summary {
            Ok(summary) if summary.is_clean() => Ok(Some(image)),
            _ => Err(format!("our check is not content with what e2fsck -p made: {findings}")),
        }
    }
}

/// Records a workload and looks at its states.
fn look(
    plan: &Plan,
    workload: &[Action],
    checker: &mut Checker,
    folder: &Path,
    stop: &Stop,
    report: &mut Report,
) {
    let recorded = match record(plan, workload) {
        Ok(recorded) => recorded,
        Err(error) => {
            report.violations.push(format!("{workload:?}: {error}"));
            return;
        }
    };
    report.workloads += 1;
    report.operations.0 += workload.len() as u64;
    report.operations.1 += recorded.refused;
    report.fences += recorded.fences;
    let mut judge = Judge {
        plan,
        workload,
        history: &recorded.history,
        device: Arc::new(Scratch::new(Vec::new())),
        checker,
        report,
        folder,
        here: 0,
        stop,
    };
    let visit = |state: &blockdev::crash::CrashState<'_>| {
        let (op, choice) = (state.op, state.choice);
        judge
            .state(state.image, state.mark, &|| format!("before entry {op} of the log, chosen as {choice:?}"))
    };
    let (base, log) = (&plan.base.image[..], &recorded.log[..]);
    let pmem = |order| {
        let mut model = PmemModel::new(base, log).order(order);
        model.limits = plan.limits;
        model
    };
    let run = match plan.device {
        Device::Lines => pmem(PmemOrder::Lines).run(visit),
        Device::Words => pmem(PmemOrder::Words).run(visit),
        Device::Program => pmem(PmemOrder::Program).run(visit),
        Device::Sectors => {
            let mut model = BlockModel::new(base, log).fences(FenceMeans::Durable);
            model.limits = plan.limits;
            model.run(visit)
        }
    };
    report.points += run.points;
}

/// Runs workloads, on two threads.
pub fn run(plan: &Plan, workloads: impl Iterator<Item = Vec<Action>> + Send) -> Report {
    let left = AtomicI64::new(plan.states.try_into().unwrap_or(i64::MAX));
    let stop = Stop { deadline: Instant::now() + plan.time, left };
    let workloads = Mutex::new(workloads);
    let report = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let shm = Path::new("/dev/shm");
                let folder = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
                let folder = folder.expect("a folder can be made");
                let mut checker = Checker::new();
                let mut own = Report::default();
                while !stop.is_now() {
                    let Some(workload) = workloads.lock().expect("no thread panicked").next() else { break };
                    look(plan, &workload, &mut checker, folder.path(), &stop, &mut own);
                }
                report.lock().expect("no thread panicked").add(own);
            });
        }
    });
    report.into_inner().expect("no thread panicked")
}
