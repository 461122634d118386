//! Crashes: what a run stored is recorded, and every state that the media may hold at any moment of it is mended as
//! `e2fsck -p` would and compared with what was promised then (see [`History`]).

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
};

use blockdev::{
    BlockDevice, Media, RamDevice, Recorder,
    crash::{BlockModel, CrashLimits, CrashReport, CrashState, FenceMeans, PmemModel, PmemOrder},
};
use ext2_core::{Barrier, Errno, RenameFlags};
use ext2_image::check::{Checker, Outcome};

use super::campaign::STATES as PROGRESS;
use super::{
    Answer, Model, Operation, Options, Refusal, Room, Step, Word, World,
    fsck::{e2fsck_p, mended_unasked},
    mend::mend,
    name,
    second::Second,
};
use crate::{
    Scratch,
    crash::{Action, Device, History, Moment},
    tools,
    tree::{self, Tree},
};

/// States of one run.
const STATES: u64 = 4000;
/// One state in so many is given to e2fsck, in one run of four.
const E2FSCK_EVERY: u64 = 500;
/// One state in so many is opened as it is, and crashes again.
const AGAIN_EVERY: u64 = 97;

/// What is recorded while a run goes on.
#[derive(Debug)]
pub(super) struct Crashes {
    image: Vec<u8>,
    recorder: Arc<Recorder<RamDevice>>,
    history: History,
    last: Tree,
    /// What the step that is being done is to what was promised.
    next: Action,
    steps: u64,
    /// Files with stores of mappings that nobody has made durable.
    dirty: BTreeSet<u32>,
}

/// Which states are looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// How many of each moment.
    pub(super) limits: CrashLimits,
    /// None before so many marks.
    pub(super) skip_marks: usize,
    /// Those that were looked at before.
    pub(super) seen: u64,
    /// After so many more it is enough.
    pub(super) most: u64,
}

/// A device that records, with the image that is on it.
pub(super) fn recorder(options: &Options, image: &[u8]) -> Arc<Recorder<RamDevice>> {
    let is_memory = matches!(options.crash, Device::Lines | Device::Words);
    recorder_of(is_memory && options.log, options.without, image)
}

/// The same, with or without a fence. A log has to know whether it is on memory, which is written by lines or words and not
/// by sectors.
pub(super) fn recorder_of(
    is_persistent: bool,
    without: Option<Barrier>,
    image: &[u8],
) -> Arc<Recorder<RamDevice>> {
    let media = if is_persistent { Media::Persistent } else { Media::Volatile };
    let ram = RamDevice::with_media(image.len() as u64, media).expect("memory");
    ram.write_at(0, image).expect("memory is written");
    let recorder = Recorder::new(ram);
    if let Some(left_out) = without {
        recorder.ignore_fence(move |fence| fence.tag == left_out.tag());
    }
    Arc::new(recorder)
}

impl Crashes {
    /// Begins: what there is by now is durable.
    pub(super) fn new(
        options: &Options,
        world: &World,
        recorder: Arc<Recorder<RamDevice>>,
        image: &[u8],
    ) -> Result<Self, String> {
        let block = world.ext2().geometry().block_size.len();
        let last = tree::of(world.ext2())?;
        let history = History::new(last.clone(), block);
        let mut history = if options.share_xattrs { history.of_shared_attributes() } else { history };
        history.note_log(world.ext2().has_log());
        let next = Action::Sync;
        Ok(Self { image: image.to_vec(), recorder, history, last, next, steps: 0, dirty: BTreeSet::new() })
    }

    /// A step is about to be done, for which there is so much room.
    pub(super) fn before(&mut self, step: &Step, model: &Model, room: Room) {
        if room.blocks == 0 || room.inodes == 0 {
            self.history.is_full();
        }
        self.next = action_of(step, model, &self.last);
        self.recorder.mark(2 * self.steps + 1);
    }

    /// It has returned; `file` is the one whose bytes it is about.
    pub(super) fn after(
        &mut self,
        step: &Step,
        answer: &Answer,
        file: Option<u32>,
        world: &World,
    ) -> Result<(), String> {
        self.recorder.mark(2 * self.steps + 2);
        self.steps += 1;
        // Whether a rename finds room shows when it has made a `lost+found` for the moment.
        let is_late = |refusal: &Refusal| refusal.is(Errno::NOSPC) || refusal.is(Errno::XDEV);
        let is_short = step.operation.word() == Word::Rename
            && matches!(answer, Answer::Refused(refusal) if is_late(refusal));
        // A store that dies where the mapping or the file ends has stored what lies before.
        let is_part = matches!(answer, Answer::StoreDied(died, _) if died.done > 0);
        let action = (answer.is_done() || is_short || is_part).then(|| self.action(step, file));
        self.last = tree::of(world.ext2())?;
        self.history.push(action, self.last.clone());
        let has_no_name = |nr: &u32| !self.last.values().any(|node| node.inode == *nr);
        if let Some(nr) = file.filter(has_no_name)
            && changes_bytes(step.operation.word())
            && let Some(file) = tree::of_file(world.ext2(), nr)
        {
            self.history.note_nameless(file);
        }
        self.history.note_log(world.ext2().has_log());
        Ok(())
    }

    /// What the step is to what was promised.
    fn action(&mut self, step: &Step, file: Option<u32>) -> Action {
        let word = step.operation.word();
        let is_sync = matches!(word, Word::SyncAll | Word::Remount);
        if is_sync {
            self.dirty.clear();
        }
        match (word, file) {
            (Word::Sync | Word::FileSync, Some(nr)) => _ = self.dirty.remove(&nr),
            (Word::Store | Word::LeaseWrite, Some(nr)) => _ = self.dirty.insert(nr),
            _ => {}
        }
        match word {
            _ if is_sync => Action::Sync,
            // One fence is for all; but not for what a mapping of another file stored.
            Word::Sync | Word::FileSync if self.dirty.is_empty() => Action::Fsync("/"),
            _ => self.next.clone(),
        }
    }

    /// Looks at the states. Gives their number.
    pub(super) fn judge(self, options: &Options) -> Result<u64, String> {
        let limits = CrashLimits { exhaustive: 48, edges: 16, pairs: 8, samples: 12, seed: options.seed };
        let look = Look { limits, skip_marks: 0, seen: 0, most: STATES };
        self.judge_by(options, look).map(|(states, _)| states)
    }

    /// Looks at these states. Gives their number, with those that were seen before, and what the device's model tells.
    pub(super) fn judge_by(self, options: &Options, look: Look) -> Result<(u64, CrashReport), String> {
        let log = self.recorder.snapshot();
        let with_e2fsck = options.seed.is_multiple_of(4) && tools::have("e2fsck");
        let mut judge = Judge {
            history: &self.history,
            device: Arc::new(Scratch::new(self.image.clone())),
            checker: Checker::new(),
            states: look.seen,
            most: look.seen.saturating_add(look.most),
            with_e2fsck,
            second: Second::new(options, &self.image),
            found: None,
        };
        let visit = |state: &CrashState<'_>| judge.visit(state);
        let order = match options.crash {
            Device::Sectors => {
                let mut model = BlockModel::new(&self.image, &log).fences(FenceMeans::Durable);
                (model.limits, model.skip_marks) = (look.limits, look.skip_marks);
                let report = model.run(visit);
                return judge.found.map_or(Ok((judge.states, report)), Err);
            }
            Device::Lines => PmemOrder::Lines,
            Device::Words => PmemOrder::Words,
            Device::Program => PmemOrder::Program,
        };
        let mut model = PmemModel::new(&self.image, &log).order(order);
        (model.limits, model.skip_marks) = (look.limits, look.skip_marks);
        let report = model.run(visit);
        judge.found.map_or(Ok((judge.states, report)), Err)
    }
}

/// Looks at one state after another.
struct Judge<'h> {
    history: &'h History,
    device: Arc<Scratch>,
    checker: Checker,
    states: u64,
    /// After so many it is enough.
    most: u64,
    with_e2fsck: bool,
    second: Second,
    found: Option<String>,
}

impl Judge<'_> {
    fn visit(&mut self, state: &CrashState<'_>) -> ControlFlow<()> {
        self.states += 1;
        PROGRESS.fetch_add(1, Ordering::Relaxed);
        let moment = match state.mark {
            None => Moment::After(0),
            Some(mark) if mark % 2 == 1 => Moment::During((mark / 2) as usize),
            Some(mark) => Moment::After((mark / 2) as usize),
        };
        if let Err(words) = self.state(state, moment) {
            let (op, choice) = (state.op, state.choice);
            self.found = Some(format!(
                "a crash: {words}; {moment:?}, before entry {op} of the log, chosen as {choice:?}"
            ));
            return ControlFlow::Break(());
        }
        if self.states >= self.most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn state(&mut self, state: &CrashState<'_>, moment: Moment) -> Result<(), String> {
        self.device.follow(state.image, state.changed);
        let mut mended = Vec::new();
        match mend(&mut self.checker, &*self.device, &mut |finding| mended.push(finding.to_string())) {
            Ok((Outcome::Clean, _)) => {}
            // What says that it was unmounted cleanly is not looked at by e2fsck -p.
            Ok((Outcome::Mended(_), false)) => {}
            Ok((Outcome::Mended(_), true)) => match mended_unasked(state.image) {
                Ok(()) => {}
                Err(said) => return Err(format!("is marked as clean and is not: {mended:?}: {said}")),
            },
            Ok((Outcome::Halts(finding), _)) => return Err(format!("needs a person: {finding}")),
            Err(error) => return Err(format!("cannot be mended: {error}")),
        }
        let found = tree::read(self.device.clone())?;
        if self.with_e2fsck && self.states.is_multiple_of(E2FSCK_EVERY) {
            match e2fsck_p(state.image) {
                Ok(theirs) => {
                    let mut theirs = tree::read(Arc::new(Scratch::new(theirs)))?;
                    leave_out_new_place(&mut theirs, &found);
                    if let Some(words) = difference(&found, &theirs) {
                        return Err(format!("e2fsck mends it to another tree than ours: {words}"));
                    }
                }
                // It asks for a person where there is no room for the place that it makes in every image without one.
                Err(said) if said.contains("Cannot allocate space for /lost+found") => {}
                Err(said) => return Err(said),
            }
        }
        self.history.judge(moment, &found)?;
        if self.states.is_multiple_of(AGAIN_EVERY) {
            self.states += self.second.look(state.image, moment, self.history, &found)?;
        }
        Ok(())
    }
}

/// e2fsck makes a `lost+found` where it looks for one and there is none, needed or not; our mending makes one when it is.
fn leave_out_new_place(theirs: &mut Tree, ours: &Tree) {
    const PLACE: &[u8] = b"/lost+found";
    let is_empty = !theirs.keys().any(|path| path.starts_with(b"/lost+found/"));
    if is_empty && !ours.contains_key(PLACE) && theirs.remove(PLACE).is_some() {
        theirs.entry(Vec::new()).and_modify(|root| root.links -= 1);
    }
}

/// Where two trees differ.
fn difference(ours: &Tree, theirs: &Tree) -> Option<String> {
    let paths: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differs = paths.into_iter().filter(|path| ours.get(*path) != theirs.get(*path));
    let words = differs
        .map(|path| format!("{}: {:?} and {:?}", path.escape_ascii(), ours.get(path), theirs.get(path)));
    words.reduce(|all, one| format!("{all}; {one}"))
}

/// The action that stands for an operation, for whoever judges by it: which file it changes, and how.
pub(super) fn action_of(step: &Step, model: &Model, before: &Tree) -> Action {
    use Operation as O;
    let held = model.held(step.actor);
    // Actions have names that last: those of a run are few.
    let last = |path: String| -> &'static str { Box::leak(path.into_boxed_str()) };
    let named = |nr: u32| {
        let (path, _) = before.iter().find(|(_, node)| node.inode == nr)?;
        String::from_utf8(path.clone()).ok()
    };
    let hand = |of: u8| held.hands[usize::from(of)].and_then(|id| named(model.node(id).nr));
    let place = |dir: u8, nr: u8| Some(last(format!("{}/{}", hand(dir)?, String::from_utf8(name(nr)).ok()?)));
    let nothing = Action::Rmdir("/nothing");
    let action = match step.operation {
        O::Unlink { dir, name } => place(dir, name).map(Action::Unlink),
        O::Rename { dir, name, to_dir, to_name, flags } => {
            place(dir, name).zip(place(to_dir, to_name)).map(|(from, to)| {
                if flags.contains(RenameFlags::EXCHANGE) {
                    Action::Exchange(from, to)
                } else {
                    Action::Rename(from, to)
                }
            })
        }
        O::Chmod { of, .. } | O::Chown { of, .. } | O::SetAcl { of, .. } => {
            hand(of).map(|path| Action::Chmod(last(path), 0))
        }
        O::StripSetid { of } => hand(of).map(|path| Action::StripSetid(last(path))),
        _ => file_of(step, model).filter(|_| changes_bytes(step.operation.word())).and_then(named).map(
            |path| {
                let path = last(path);
                match step.operation.word() {
                    Word::Truncate | Word::FileTruncate => Action::Truncate { path, size: 0 },
                    _ => Action::Write { path, offset: 0, len: 0, seed: 0 },
                }
            },
        ),
    };
    action.unwrap_or(nothing)
}

/// Whether it changes the bytes of a file.
pub(super) fn changes_bytes(word: Word) -> bool {
    use Word as W;
    matches!(
        word,
        W::Write
            | W::Truncate
            | W::Punch
            | W::Zero
            | W::Fallocate
            | W::FileWrite
            | W::FileTruncate
            | W::FilePunch
            | W::FileZero
            | W::Store
            | W::LeaseWrite
    )
}

/// The number of the file that a step is about, by what the actor holds before it.
pub(super) fn file_of(step: &Step, model: &Model) -> Option<u32> {
    use Operation as O;
    let held = model.held(step.actor);
    let id = match step.operation {
        O::Write { of, .. }
        | O::Truncate { of, .. }
        | O::Punch { of, .. }
        | O::Zero { of, .. }
        | O::Fallocate { of, .. }
        | O::GiveUpWrite { of, .. }
        | O::Sync { of } => held.hands[usize::from(of)]?,
        O::FileWrite { file, .. }
        | O::FileTruncate { file, .. }
        | O::FilePunch { file, .. }
        | O::FileZero { file, .. }
        | O::FileSync { file } => held.files[usize::from(file)]?.0,
        O::Store { map, .. } => held.maps[usize::from(map)].as_ref()?.id,
        O::LeaseWrite { lease, .. } => held.leases[usize::from(lease)].as_ref()?.0,
        _ => return None,
    };
    Some(model.node(id).nr)
}

/// A device of the kind that a world is made on.
pub(super) fn shared(recorder: &Arc<Recorder<RamDevice>>) -> Arc<dyn BlockDevice> {
    recorder.clone()
}
