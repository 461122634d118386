//! The models: what a cell is, and what settles it.

use core::ops::ControlFlow;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use super::cells::{Cell, Cells};
use super::choices::{Random, visit};
use super::{Choice, CrashLimits, CrashReport, CrashState, Points, Visit};
use crate::StorePath;
use crate::recorder::{RecordedOp, Stored};

/// In which order persistent memory takes stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PmemOrder {
    /// M1: the stores to a 64-byte line in program order, lines independently.
    #[default]
    Lines,
    /// M2: the stores to an 8-byte word in program order, words independently.
    Words,
    /// M4: all in program order; fences and flushes mean nothing. What a killed process leaves in a mapping.
    Program,
}

/// What a fence does to a block device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FenceMeans {
    /// Nothing: only a flush settles requests. A file with relaxed durability.
    #[default]
    Nothing,
    /// As much as a flush. A file with strict durability.
    Durable,
}

/// The states that persistent memory may hold after a crash.
///
/// ```
/// use std::ops::ControlFlow;
/// use blockdev::crash::PmemModel;
/// use blockdev::{BlockDevice, RamDevice, Recorder};
///
/// let device = Recorder::new(RamDevice::new(4096)?);
/// device.write_at(0, &1_u64.to_le_bytes())?;
/// device.write_at(64, &2_u64.to_le_bytes())?;
/// device.fence()?;
/// let mut states = Vec::new();
/// PmemModel::new(&[0; 4096], &device.take()).run(|state| {
///     states.push((state.image[0], state.image[64]));
///     ControlFlow::Continue(())
/// });
/// states.sort();
/// assert_eq!(states, [(0, 0), (0, 2), (1, 0), (1, 2)]);
/// # Ok::<(), blockdev::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PmemModel<'l> {
    base: &'l [u8],
    log: &'l [RecordedOp],
    /// M1, M2 or M4.
    pub order: PmemOrder,
    /// When a crash is tried.
    pub points: Points,
    /// How many states of a point are visited.
    pub limits: CrashLimits,
    /// No crash is tried before so many marks of the log: those of a log that begins alike were seen there.
    pub skip_marks: usize,
}

impl<'l> PmemModel<'l> {
    /// The model of a device that held `base`, byte for byte, when `log` began.
    pub fn new(base: &'l [u8], log: &'l [RecordedOp]) -> Self {
        let (points, limits) = (Points::default(), CrashLimits::default());
        Self { base, log, order: PmemOrder::default(), points, limits, skip_marks: 0 }
    }

    /// With another order.
    #[must_use]
    pub fn order(self, order: PmemOrder) -> Self {
        Self { order, ..self }
    }

    /// Shows every state to `visit`, each once after each mark.
    pub fn run(&self, visit: impl Visit) -> CrashReport {
        let (cell_len, unit_len) = match self.order {
            PmemOrder::Lines | PmemOrder::Program => (64, 8),
            PmemOrder::Words => (8, 8),
        };
        let cells = Cells::new(self.base, cell_len, unit_len);
        let mut run = Run::new(cells, self.limits, self.points, self.skip_marks, visit);
        let stopped = if self.order == PmemOrder::Program {
            run.in_program_order(self.log)
        } else {
            run.replay(self.log, |cells, op, entry| match entry {
                RecordedOp::Store { offset, data, path } => {
                    cells.store(op, *offset, data, *path == StorePath::Bypassing);
                }
                RecordedOp::WriteBack { offset, len } => cells.write_back(*offset, *len),
                RecordedOp::Fence(_) | RecordedOp::Flush(_) => cells.fence(),
                RecordedOp::Mark(_) => {}
            })
        };
        run.report(stopped)
    }
}

/// The states that a block device with a volatile cache may hold after a crash (M3): any part of the requests
/// since the last flush, torn at sectors of 512 bytes.
#[derive(Clone, Debug)]
pub struct BlockModel<'l> {
    base: &'l [u8],
    log: &'l [RecordedOp],
    /// Whether fences count.
    pub fences: FenceMeans,
    /// When a crash is tried.
    pub points: Points,
    /// How many states of a point are visited.
    pub limits: CrashLimits,
    /// No crash is tried before so many marks of the log: those of a log that begins alike were seen there.
    pub skip_marks: usize,
}

impl<'l> BlockModel<'l> {
    /// The model of a device that held `base`, byte for byte, when `log` began.
    pub fn new(base: &'l [u8], log: &'l [RecordedOp]) -> Self {
        let (points, limits) = (Points::default(), CrashLimits::default());
        Self { base, log, fences: FenceMeans::default(), points, limits, skip_marks: 0 }
    }

    /// With another meaning of fences.
    #[must_use]
    pub fn fences(self, fences: FenceMeans) -> Self {
        Self { fences, ..self }
    }

    /// Shows every state to `visit`, each once after each mark.
    pub fn run(&self, visit: impl Visit) -> CrashReport {
        let cells = Cells::new(self.base, 512, 512);
        let mut run = Run::new(cells, self.limits, self.points, self.skip_marks, visit);
        let stopped = run.replay(self.log, |cells, op, entry| match entry {
            RecordedOp::Store { offset, data, .. } => cells.store(op, *offset, data, false),
            RecordedOp::Flush(_) => cells.settle(),
            RecordedOp::Fence(_) if self.fences == FenceMeans::Durable => cells.settle(),
            RecordedOp::Fence(_) | RecordedOp::WriteBack { .. } | RecordedOp::Mark(_) => {}
        });
        run.report(stopped)
    }
}

/// Fingerprints are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = self.0.rotate_left(8) ^ u64::from(byte));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// What the visitor was shown, and is shown.
struct Teller<V> {
    seen: HashSet<u64, BuildHasherDefault<Identity>>,
    /// The last mark, and how many there were.
    mark: Option<u64>,
    marks: u64,
    /// Of the crash point: entries of the log before it, and cells in flight.
    op: usize,
    in_flight: usize,
    report: CrashReport,
    visit: V,
}

impl<V: Visit> Teller<V> {
    /// A crash point begins.
    fn begin(&mut self, op: usize, in_flight: usize) {
        self.report.points += 1;
        self.op = op;
        self.in_flight = in_flight;
    }

    /// Shows the state that the cells are in, if it was not shown since the last mark.
    fn show(&mut self, cells: &mut Cells, choice: Choice) -> ControlFlow<()> {
        let fingerprint = cells.fingerprint();
        // What must be there after a crash depends on the mark, so the same image after another one is
        // another state.
        if !self.seen.insert(fingerprint ^ self.marks.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            self.report.duplicates += 1;
            return ControlFlow::Continue(());
        }
        self.report.states += 1;
        let (op, mark, in_flight) = (self.op, self.mark, self.in_flight);
        let (image, changed) = (cells.media(), cells.changed());
        let flow = (self.visit)(&CrashState { image, changed, op, mark, choice, in_flight, fingerprint });
        cells.forget_changes();
        flow
    }
}

/// One pass over a log.
struct Run<V> {
    cells: Cells,
    limits: CrashLimits,
    points: Points,
    skip_marks: usize,
    random: Random,
    teller: Teller<V>,
}

impl<V: Visit> Run<V> {
    fn new(cells: Cells, limits: CrashLimits, points: Points, skip_marks: usize, visit: V) -> Self {
        let teller = Teller {
            seen: HashSet::default(),
            mark: None,
            marks: 0,
            op: 0,
            in_flight: 0,
            report: CrashReport::default(),
            visit,
        };
        Self { cells, limits, points, skip_marks, random: Random(limits.seed), teller }
    }

    fn report(mut self, flow: ControlFlow<()>) -> CrashReport {
        self.teller.report.stopped = flow.is_break();
        self.teller.report
    }

    /// Does the log's entries by `apply`, and crashes at the points in between.
    fn replay(
        &mut self,
        log: &[RecordedOp],
        apply: impl Fn(&mut Cells, usize, &RecordedOp),
    ) -> ControlFlow<()> {
        for (op, entry) in log.iter().enumerate() {
            match entry {
                RecordedOp::Fence(_) | RecordedOp::Flush(_) => self.crash(op)?,
                RecordedOp::Mark(mark) => self.pass(op, *mark)?,
                RecordedOp::Store { .. } | RecordedOp::WriteBack { .. } => {}
            }
            apply(&mut self.cells, op, entry);
            if self.points == Points::EveryStore && matches!(entry, RecordedOp::Store { .. }) {
                self.crash(op + 1)?;
            }
        }
        self.crash(log.len())
    }

    /// Crashes after every word of every store, or after some words of a long one.
    fn in_program_order(&mut self, log: &[RecordedOp]) -> ControlFlow<()> {
        self.crash(0)?;
        for (op, entry) in log.iter().enumerate() {
            match entry {
                RecordedOp::Store { offset, data, .. } => self.tear(op, *offset, data)?,
                RecordedOp::Mark(mark) => self.pass(op, *mark)?,
                RecordedOp::Fence(_) | RecordedOp::Flush(_) | RecordedOp::WriteBack { .. } => {}
            }
        }
        self.crash(log.len())
    }

    /// Crashes in the middle of a store, the earlier ones being done.
    fn tear(&mut self, op: usize, offset: u64, data: &Stored) -> ControlFlow<()> {
        self.cells.store(op, offset, data, true);
        if self.skip_marks > 0 {
            self.cells.settle();
            return ControlFlow::Continue(());
        }
        let lens = self.cells.in_flight().iter().map(Cell::len).collect::<Vec<_>>();
        let words = lens.iter().sum::<usize>();
        let step = words.div_ceil(self.limits.edges.max(1)).max(1);
        self.teller.begin(op, lens.len());
        self.teller.report.exhaustive_points += u64::from(step == 1);
        // Cells of one store are in the order of their places, which is the order of the copy.
        let mut done = 0;
        for (number, len) in lens.into_iter().enumerate() {
            for chosen in 1..=len {
                self.cells.choose(number, chosen);
                done += 1;
                if done % step == 0 || done == words {
                    self.teller.show(&mut self.cells, Choice::Prefix)?;
                }
            }
        }
        self.cells.settle();
        ControlFlow::Continue(())
    }

    /// Crashes before a mark, and goes past it.
    fn pass(&mut self, op: usize, mark: u64) -> ControlFlow<()> {
        self.crash(op)?;
        self.teller.mark = Some(mark);
        self.teller.marks += 1;
        self.skip_marks = self.skip_marks.saturating_sub(1);
        ControlFlow::Continue(())
    }

    fn crash(&mut self, op: usize) -> ControlFlow<()> {
        if self.skip_marks > 0 {
            return ControlFlow::Continue(());
        }
        let Self { cells, limits, random, teller, .. } = self;
        teller.begin(op, cells.in_flight().len());
        let all = visit(cells, limits, random, &mut |cells, choice| teller.show(cells, choice))?;
        teller.report.exhaustive_points += u64::from(all);
        cells.choose_all(|_| 0);
        ControlFlow::Continue(())
    }
}
