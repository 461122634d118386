//! Crashes: what a run stored is recorded, and every state that the media may hold at any moment of it is mended as
//! `e2fsck -p` would and compared with what was promised then (see [`History`]).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use blockdev::{BlockDevice, RamDevice, Recorder, crash::Limits};

use super::{Answer, Model, Operation, Options, Step, Word, World};
use crate::{
    crash::{self, Base, Effect, History, Note, Plan, Recorded},
    tools, tree,
};

/// States of one run.
const STATES: u64 = 4000;
/// One state in so many is given to e2fsck.
const E2FSCK_EVERY: u64 = 900;
/// One state in so many is opened as it is, and crashes again.
const AGAIN_EVERY: u64 = 300;

/// What is recorded while a run goes on.
#[derive(Debug)]
pub(super) struct Crashes {
    image: Vec<u8>,
    recorder: Arc<Recorder<RamDevice>>,
    history: History,
    notes: Vec<Note>,
    refused: u64,
    /// Files with stores of mappings that nobody has made durable.
    dirty: BTreeSet<u32>,
}

/// A device that records, with the image that is on it.
pub(super) fn recorder(options: &Options, image: &[u8]) -> Arc<Recorder<RamDevice>> {
    let recorder = Recorder::new(RamDevice::from_bytes(image).expect("memory"));
    if let Some(left_out) = options.without {
        recorder.ignore_fence(move |fence| fence.tag == left_out.tag());
    }
    Arc::new(recorder)
}

impl Crashes {
    /// Begins: what there is by now is durable.
    pub(super) fn new(
        world: &World,
        recorder: Arc<Recorder<RamDevice>>,
        image: &[u8],
    ) -> Result<Self, String> {
        let block = world.ext2().geometry().block_size.len();
        Ok(Self {
            image: image.to_vec(),
            recorder,
            history: History::new(tree::of(world.ext2())?, block),
            notes: Vec::new(),
            refused: 0,
            dirty: BTreeSet::new(),
        })
    }

    /// A step is about to be done.
    pub(super) fn before(&mut self) {
        self.recorder.mark(2 * self.notes.len() as u64 + 1);
    }

    /// It has returned; `file` is the one whose bytes it is about.
    pub(super) fn after(
        &mut self,
        step: &Step,
        answer: &Answer,
        file: Option<u32>,
        world: &World,
    ) -> Result<(), String> {
        self.recorder.mark(2 * self.notes.len() as u64 + 2);
        let effect = answer.is_done().then(|| self.effect(step, file));
        self.refused += u64::from(effect.is_none());
        self.notes.push(Note {
            words: step.to_string(),
            may_move_directory: false,
            closes: answer.is_done() && step.operation == Operation::Remount { read_only: true },
        });
        self.history.push_effect(effect, tree::of(world.ext2())?);
        Ok(())
    }

    fn effect(&mut self, step: &Step, file: Option<u32>) -> Effect {
        let word = step.operation.word();
        let is_sync = matches!(word, Word::SyncAll | Word::Remount);
        if is_sync {
            self.dirty.clear();
        }
        if let (Word::Sync | Word::FileSync, Some(nr)) = (word, file) {
            self.dirty.remove(&nr);
        }
        if let (Word::Store | Word::LeaseWrite, Some(nr)) = (word, file) {
            self.dirty.insert(nr);
        }
        Effect {
            is_barrier: is_sync || matches!(word, Word::Sync | Word::FileSync) && self.dirty.is_empty(),
            is_sync,
            data_of: file.filter(|_| changes_bytes(word)),
            is_truncation: matches!(word, Word::Truncate | Word::FileTruncate),
            is_synced: false,
        }
    }

    /// Looks at the states. Gives their number.
    pub(super) fn judge(self, options: &Options) -> Result<u64, String> {
        let base = Base { name: options.to_string(), image: self.image, block_size: options.block as usize };
        let is_sample = options.seed.is_multiple_of(4);
        let plan = Plan {
            limits: Limits { exhaustive: 48, edges: 16, pairs: 8, samples: 12, seed: options.seed },
            states: STATES,
            e2fsck_every: if is_sample && tools::have("e2fsck") { E2FSCK_EVERY } else { 0 },
            again_every: if options.seed % 3 == 0 { AGAIN_EVERY } else { 0 },
            time: Duration::from_secs(20),
            threads: 1,
            ..Plan::new(base, options.crash)
        };
        let recorded = Recorded {
            log: self.recorder.snapshot(),
            history: self.history,
            fences: self.recorder.fences(),
            refused: self.refused,
            notes: self.notes,
        };
        let report = crash::judge(&plan, &recorded);
        match report.violations.first() {
            Some(words) => Err(format!("a crash: {words}")),
            None => Ok(report.states + report.again),
        }
    }
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
