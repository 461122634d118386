//! Looking at every state of one workload.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use blockdev::{BlockDevice, crash::CrashState};
use ext2_core::{Barrier, Error, Ext2, Incompatible, OpenOptions};
use ext2_image::check::{Checker, Finding, Kind, Options, Outcome};

use super::{
    Action, History, Moment, Moves, NOW, Plan, Promise, Report, Sharing,
    action::let_go,
    again::Again,
    external::External,
    known::Known,
    options, perform,
    states::{recorder, states_of},
    sweep::Stop,
};
use crate::{Scratch, tree};

/// Where `s_state` is in an image.
const STATE_OFFSET: usize = 1024 + 58;

/// Violations of one workload after which it is left.
const ENOUGH: u64 = 3;

/// A workload that was run on an image.
struct Recorded {
    log: Vec<blockdev::RecordedOp>,
    history: History,
    fences: u64,
    refused: u64,
}

fn record(plan: &Plan, workload: &[Action]) -> Result<Recorded, String> {
    let recorder = recorder(plan, &plan.base.image)?;
    let words = |error: Error| error.to_string();
    let options = OpenOptions { strict_rename: plan.moves == Moves::Refused, ..options() };
    let fs = Ext2::open(recorder.clone(), &options).map_err(words)?;
    let mut history = History::new(tree::of(&fs)?, plan.base.block_size);
    if plan.sharing == Sharing::Excepted {
        history = history.of_shared_attributes();
    }
    let_go();
    let mut refused = 0;
    for (nr, action) in (0..).zip(workload) {
        recorder.mark(2 * nr + 1);
        let done = perform(&fs, action).is_ok();
        recorder.mark(2 * nr + 2);
        refused += u64::from(!done);
        history.push(done.then(|| action.clone()), tree::of(&fs)?);
    }
    let (log, fences) = (recorder.snapshot(), recorder.fences());
    let_go();
    drop(fs);
    Ok(Recorded { log, history, fences, refused })
}

/// The fences and flushes that a workload makes, each as often as it is made.
pub fn barriers_of(plan: &Plan, workload: &[Action]) -> BTreeMap<Barrier, u64> {
    let log = record(plan, workload).map(|recorded| recorded.log).unwrap_or_default();
    let mut made = BTreeMap::new();
    for op in log {
        if let blockdev::RecordedOp::Fence(id) | blockdev::RecordedOp::Flush(id) = op
            && let Some(barrier) = Barrier::ALL.iter().find(|barrier| barrier.tag() == id.tag)
        {
            *made.entry(*barrier).or_default() += 1;
        }
    }
    made
}

/// What a thread keeps from one workload to the next.
pub(super) struct Worker<'p> {
    plan: &'p Plan,
    stop: &'p Stop,
    checker: Checker,
    external: Option<External>,
    again: Option<Again>,
    /// Holds the state that is looked at.
    device: Arc<Scratch>,
    /// Mended images that were found to be as promised.
    known: Known,
    kinds: Vec<Kind>,
    states: u64,
    here: u64,
}

/// What became of a state.
enum Mended {
    /// The device holds what our own check made of it.
    Ours,
    /// Only e2fsck could mend it: this is what it made.
    Theirs(Scratch),
    /// It needs a person, as it may in the one exception, and this is what a person made of it.
    ByHand(Scratch),
}

impl<'p> Worker<'p> {
    pub(super) fn new(plan: &'p Plan, stop: &'p Stop) -> Self {
        let external = (plan.e2fsck_every != 0).then(|| External::new().expect("e2fsck was asked for"));
        Self {
            plan,
            stop,
            checker: Checker::new(),
            external,
            again: (plan.again_every != 0).then(|| Again::new(&plan.base.image)),
            device: Arc::new(Scratch::new(plan.base.image.clone())),
            known: Known::default(),
            kinds: Vec::new(),
            states: 0,
            here: 0,
        }
    }

    /// Records a workload and looks at its states, but for those of its first `known` operations.
    pub(super) fn look(&mut self, workload: &[Action], known: Option<usize>) -> Report {
        let mut report = Report::default();
        let recorded = match record(self.plan, workload) {
            Ok(recorded) => recorded,
            Err(error) => {
                report.violation(format!("{workload:?}: {error}"));
                return report;
            }
        };
        report.workloads = 1;
        report.operations = (workload.len() as u64, recorded.refused);
        report.fences = recorded.fences;
        self.here = 0;
        self.known.clear();
        self.device.load(&self.plan.base.image);
        let plan = self.plan;
        let (base, log) = (&plan.base.image[..], &recorded.log[..]);
        // A mark before each operation and one after it.
        let skip_marks = known.map_or(0, |known| 2 * known + 1);
        let history = &recorded.history;
        let mut promise = (Moment::After(0), history.promise(Moment::After(0)));
        let visit = |state: &CrashState<'_>| {
            let moment = moment_of(state);
            if moment != promise.0 {
                promise = (moment, history.promise(moment));
            }
            self.state(state, workload, &promise, &mut report)
        };
        let run = states_of(plan, base, log, skip_marks, visit);
        report.points = run.points;
        report
    }

    fn state(
        &mut self,
        state: &CrashState<'_>,
        workload: &[Action],
        promise: &(Moment, Promise<'_>),
        report: &mut Report,
    ) -> ControlFlow<()> {
        report.states += 1;
        self.states += 1;
        if let Err(problem) = self.judge(state, workload, promise, report) {
            let (op, choice, moment) = (state.op, state.choice, promise.0);
            report.violation(format!(
                "{problem}\n  {moment:?} of {workload:?}, before entry {op} of the log, chosen as {choice:?}"
            ));
            self.here += 1;
            if self.here >= ENOUGH {
                return ControlFlow::Break(());
            }
        }
        if self.stop.one_more() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn judge(
        &mut self,
        state: &CrashState<'_>,
        workload: &[Action],
        (moment, promise): &(Moment, Promise<'_>),
        report: &mut Report,
    ) -> Result<(), String> {
        let (image, moment) = (state.image, *moment);
        self.device.follow(image, state.changed);
        // What says that it was unmounted cleanly is not looked at by e2fsck -p, so it has to be clean.
        if image.get(STATE_OFFSET).is_some_and(|state| state & 1 != 0) {
            self.assert_clean()?;
        } else if matches!(moment, Moment::After(done) if is_closed(workload, done)) {
            return Err("is not marked as clean after it was closed".to_owned());
        }
        if let Some(again) = &mut self.again
            && self.states.is_multiple_of(self.plan.again_every)
            && !is_excepted(self.plan, moment, workload)
        {
            report.again += again.look(self.plan, image, promise)?;
        }
        let every = self.plan.e2fsck_every;
        let theirs = match &mut self.external {
            Some(external) if self.states.is_multiple_of(every) => {
                report.e2fsck += 1;
                Some(external.mend(image)?)
            }
            _ => None,
        };
        let mended = match theirs {
            Some(None) if is_excepted(self.plan, moment, workload) => self.by_hand(image, report)?,
            Some(None) if is_leaving(self.plan, moment, workload) => self.by_hand(image, report)?,
            _ => self.mend(image, moment, workload, report)?,
        };
        let ours = |device: &Arc<Scratch>| tree::read(device.clone());
        if is_excepted(self.plan, moment, workload) {
            // Also where nobody was needed: an empty directory that was to be replaced may be gone.
            let device = match mended {
                Mended::Ours => self.device.clone(),
                Mended::Theirs(device) | Mended::ByHand(device) => Arc::new(device),
            };
            return promise.judge_contents(&tree::read(device)?);
        }
        match (mended, theirs) {
            (Mended::Ours, None) if self.known.contains(moment, &self.device) => Ok(()),
            (Mended::Ours, None) => {
                report.trees += 1;
                self.device.watch();
                let found = ours(&self.device);
                let read = self.device.watched();
                promise.judge(&found?)?;
                self.known.add(moment, &self.device, &read);
                Ok(())
            }
            (Mended::Ours, Some(None)) => Err("e2fsck stops, ours does not".to_owned()),
            (Mended::Ours, Some(Some(theirs))) => {
                let found = ours(&self.device)?;
                let theirs = tree::read(Arc::new(theirs))?;
                if self.comparable(theirs) != self.comparable(found.clone()) {
                    return Err("e2fsck mends it to another tree than ours".to_owned());
                }
                promise.judge(&found)
            }
            (Mended::Theirs(theirs), _) => promise.judge(&self.comparable(tree::read(Arc::new(theirs))?)),
            // Nothing is lost by it.
            (Mended::ByHand(theirs), _) if is_leaving(self.plan, moment, workload) => {
                promise.judge(&self.comparable(tree::read(Arc::new(theirs))?))
            }
            (Mended::ByHand(_), _) => Err("a person was needed and may not be".to_owned()),
        }
    }

    /// Mends the state that the device holds.
    fn mend(
        &mut self,
        image: &[u8],
        moment: Moment,
        workload: &[Action],
        report: &mut Report,
    ) -> Result<Mended, String> {
        self.kinds.clear();
        let kinds = &mut self.kinds;
        let outcome = mend_ours(&mut self.checker, &*self.device, &mut |finding| kinds.push(finding.kind));
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            *report.repairs.entry(*kind).or_default() += 1;
        }
        match outcome {
            Ok(Outcome::Clean) => report.outcomes.0 += 1,
            Ok(Outcome::Mended(_)) => report.outcomes.1 += 1,
            Ok(Outcome::Halts(_)) if is_excepted(self.plan, moment, workload) => {
                return self.by_hand(image, report);
            }
            Ok(Outcome::Halts(finding))
                if finding.kind == Kind::AttributeCount && is_leaving(self.plan, moment, workload) =>
            {
                return self.by_hand(image, report);
            }
            Ok(Outcome::Halts(finding)) => {
                report.halts += 1;
                return Err(format!("needs a person: {finding}"));
            }
            // A journal that has to be replayed first, which our check leaves to e2fsck.
            Err(Error::Incompatible(Incompatible::JournalNeedsRecovery)) if self.external.is_some() => {
                let theirs = self.external.as_mut().and_then(|external| external.mend(image).transpose());
                report.e2fsck += 1;
                report.outcomes.1 += 1;
                return match theirs {
                    Some(theirs) => Ok(Mended::Theirs(theirs?)),
                    None => Err("e2fsck does not replay the journal without a person".to_owned()),
                };
            }
            Err(error) => return Err(format!("cannot be mended: {error}")),
        }
        Ok(Mended::Ours)
    }

    /// The tree without an empty `lost+found` where there was none: e2fsck makes one in every image that lacks it.
    fn comparable(&self, mut tree: tree::Tree) -> tree::Tree {
        let is_used = tree.keys().any(|path| path.starts_with(b"/lost+found/"));
        if self.plan.base.is_bare && !is_used && tree.remove(&b"/lost+found"[..]).is_some() {
            tree.entry(Vec::new()).and_modify(|root| root.links -= 1);
        }
        tree
    }

    /// What a person makes of a state in the one exception.
    fn by_hand(&mut self, image: &[u8], report: &mut Report) -> Result<Mended, String> {
        report.excepted += 1;
        match &mut self.external {
            Some(external) => external.mend_with_a_person(image).map(Mended::ByHand),
            None => Err("only a person with e2fsck can mend it, and there is none".to_owned()),
        }
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
}

/// What our check makes of a state, after the replay of a log of ours.
pub(super) fn mend_ours(
    checker: &mut Checker,
    device: &dyn BlockDevice,
    sink: &mut dyn FnMut(&Finding),
) -> ext2_core::Result<Outcome> {
    ext2_core::replay(device)?;
    checker.mend(device, NOW, sink)
}

/// Whether a directory is on its way to another parent where nothing makes that safe.
fn is_excepted(plan: &Plan, moment: Moment, workload: &[Action]) -> bool {
    let Moment::During(nr) = moment else { return false };
    plan.moves == Moves::Excepted && workload.get(nr).is_some_and(Action::may_move_directory)
}

/// Whether an inode is about to let go of a block of attributes that others use.
fn is_leaving(plan: &Plan, moment: Moment, workload: &[Action]) -> bool {
    let Moment::During(nr) = moment else { return false };
    plan.sharing == Sharing::Excepted && workload.get(nr).is_some_and(Action::may_leave_attributes)
}

/// Whether the file system was closed by the last of so many operations.
fn is_closed(workload: &[Action], done: usize) -> bool {
    done.checked_sub(1).and_then(|last| workload.get(last)) == Some(&Action::Close)
}

/// Where in its workload a state is.
fn moment_of(state: &CrashState<'_>) -> Moment {
    match state.mark {
        None => Moment::After(0),
        // OK to cast: marks number the operations.
        Some(mark) if mark % 2 == 1 => Moment::During((mark / 2) as usize),
        Some(mark) => Moment::After((mark / 2) as usize),
    }
}
