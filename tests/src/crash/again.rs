//! A second crash: of the file system that was opened on what the first one left, without e2fsck.
//!
//! Opening rebuilds the bitmaps from what can be reached and finishes what was half done; a file that is made next
//! takes the blocks and the inode that this found free. A crash in the midst of it is mended like any other, and what was
//! promised before the first one is there.

use std::{ops::ControlFlow, sync::Arc};

use blockdev::crash::CrashState;
use ext2_core::{Error, Ext2, Incompatible};
use ext2_image::check::{Checker, Outcome};

use super::{
    Action, Plan, Promise, STALE,
    judge::mend_ours,
    options, perform,
    states::{recorder, states_of},
};
use crate::{Scratch, tree};

/// The file that is made, and goes again.
const FILE: &str = "/made-again";

/// What a thread keeps from one first crash to the next.
#[derive(Debug)]
pub(super) struct Again {
    device: Arc<Scratch>,
    checker: Checker,
}

impl Again {
    pub(super) fn new(image: &[u8]) -> Self {
        Self { device: Arc::new(Scratch::new(image.to_vec())), checker: Checker::new() }
    }

    /// Opens the state `image` of a first crash, and looks at every state of a second one. Gives their number.
    ///
    /// # Errors
    /// What is not as promised, or needs a person.
    pub(super) fn look(&mut self, plan: &Plan, image: &[u8], promise: &Promise<'_>) -> Result<u64, String> {
        let recorder = recorder(plan, image)?;
        let fs = match Ext2::open(recorder.clone(), &options()) {
            Ok(fs) => fs,
            // Only e2fsck replays a journal.
            Err(Error::Incompatible(Incompatible::JournalNeedsRecovery)) => return Ok(0),
            Err(error) => return Err(format!("cannot be opened after the crash: {error}")),
        };
        let write = Action::Write { path: FILE, offset: 0, len: 3000, seed: 7 };
        for action in [Action::Create(FILE), write, Action::Sync, Action::Unlink(FILE), Action::Sync] {
            // There may be no room.
            let _ = perform(&fs, &action);
        }
        fs.close().map_err(|error| format!("cannot be closed after the crash: {error}"))?;
        let log = recorder.snapshot();
        let (mut states, mut wrong) = (0, None);
        self.device.load(image);
        states_of(plan, image, &log, 0, |state: &CrashState<'_>| {
            states += 1;
            match self.judge(state, promise) {
                Ok(()) => ControlFlow::Continue(()),
                Err(problem) => {
                    wrong = Some(format!(
                        "a second crash: {problem}, before entry {} of its log, chosen as {:?}",
                        state.op, state.choice
                    ));
                    ControlFlow::Break(())
                }
            }
        });
        wrong.map_or(Ok(states), Err)
    }

    fn judge(&mut self, state: &CrashState<'_>, promise: &Promise<'_>) -> Result<(), String> {
        self.device.follow(state.image, state.changed);
        match mend_ours(&mut self.checker, &*self.device, &mut |_| {}) {
            Ok(Outcome::Clean | Outcome::Mended(_)) => {}
            Ok(Outcome::Halts(finding)) => return Err(format!("needs a person: {finding}")),
            Err(error) => return Err(format!("cannot be mended: {error}")),
        }
        let mut found = tree::read(self.device.clone())?;
        if found.remove(FILE.as_bytes()).is_some_and(|node| node.content.contains(&STALE)) {
            return Err(format!("{FILE} shows stale bytes"));
        }
        promise.judge(&found)
    }
}
