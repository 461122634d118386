//! A second crash: what the first one left is opened as it is, without `e2fsck`, used, and crashes again at every moment.
//! What was promised before the first one is there.

use std::{ops::ControlFlow, sync::Arc};

use blockdev::crash::{CrashLimits, CrashState, PmemModel, PmemOrder};
use ext2_core::{
    Barrier, Errno, Error, Ext2, FileKind, FixedClock, Incompatible, NewInode, OpenOptions, Timestamp,
};
use ext2_image::check::Checker;

use super::{
    Options, Scene,
    base::{BEGIN, STALE},
    crashes::recorder_of,
    mend::{mend_alone, replay_journal},
};
use crate::{
    Scratch,
    crash::{History, Moment},
    tree::{self, Tree},
};

/// The file that is made, and goes again.
const FILE: &[u8] = b"made-again";
/// States of a second crash that are looked at.
const STATES: u64 = 40;

/// What is kept from one first crash to the next.
#[derive(Debug)]
pub(super) struct Second {
    device: Arc<Scratch>,
    checker: Checker,
    without: Option<Barrier>,
    is_logged: bool,
    open: OpenOptions,
    /// Whether a block of attributes is shared where there is no room for a journal: a crash between its count and the
    /// pointer to it is for a person, as is said in `docs/durability.md`.
    counts_alone: bool,
}

impl Second {
    pub(super) fn new(options: &Options, image: &[u8]) -> Self {
        let open = OpenOptions {
            policy: options.policy,
            share_xattrs: options.share_xattrs,
            log: options.log && !options.batch,
            batch: options.batch,
            clock: Some(Arc::new(FixedClock(Timestamp::from_secs(BEGIN)))),
            ..OpenOptions::default()
        };
        let device = Arc::new(Scratch::new(image.to_vec()));
        let counts_alone = options.scene == Some(Scene::DeadBesideTruncation);
        Self {
            device,
            checker: Checker::new(),
            without: options.without,
            is_logged: options.log,
            open,
            counts_alone,
        }
    }

    /// Opens the state `image` of a first crash, which is `mended` once `e2fsck -p` has seen it, and looks at states of a
    /// second one. Gives their number.
    ///
    /// # Errors
    /// What is not as promised, or needs a person.
    pub(super) fn look(
        &mut self,
        image: &[u8],
        moment: Moment,
        history: &History,
        mended: &Tree,
    ) -> Result<u64, String> {
        let recorder = recorder_of(self.is_logged, self.without, image);
        match Ext2::open(recorder.clone(), &self.open) {
            Ok(fs) => {
                use_it(&fs).map_err(|error| format!("cannot be used as the crash left it: {error}"))?;
                fs.close().map_err(|error| format!("cannot be closed after the crash: {error}"))?;
            }
            // It is refused until the journal is replayed.
            Err(Error::Incompatible(Incompatible::JournalNeedsRecovery)) => {
                replay_journal(&*recorder)
                    .map_err(|error| format!("its journal cannot be replayed: {error}"))?;
            }
            Err(error) => return Err(format!("cannot be opened as the crash left it: {error}")),
        }
        let log = recorder.snapshot();
        self.device.load(image);
        let (mut states, mut wrong) = (0, None);
        let mut model = PmemModel::new(image, &log).order(PmemOrder::Lines);
        model.limits = CrashLimits { exhaustive: 4, edges: 2, pairs: 1, samples: 2, seed: 1 };
        model.run(|state: &CrashState<'_>| {
            states += 1;
            let counts_alone = self.counts_alone;
            let is_said = |words: &str| counts_alone && words.contains("users of the block of attributes");
            if let Err(words) = self.judge(state, moment, history, mended)
                && !is_said(&words)
            {
                wrong = Some(format!("a second crash: {words}, before entry {} of its log", state.op));
                return ControlFlow::Break(());
            }
            if states >= STATES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Some(words) = wrong {
            return Err(words);
        }
        // And as it was closed.
        let last = Arc::new(Scratch::new(recorder.inner().to_vec()));
        self.mended_as_promised(&last, moment, history, mended)
            .map_err(|words| format!("used again: {words}"))?;
        Ok(states)
    }

    fn judge(
        &mut self,
        state: &CrashState<'_>,
        moment: Moment,
        history: &History,
        mended: &Tree,
    ) -> Result<(), String> {
        self.device.follow(state.image, state.changed);
        let device = self.device.clone();
        self.mended_as_promised(&device, moment, history, mended)
    }

    fn mended_as_promised(
        &mut self,
        device: &Arc<Scratch>,
        moment: Moment,
        history: &History,
        mended: &Tree,
    ) -> Result<(), String> {
        mend_alone(&mut self.checker, &**device)?;
        let mut found = tree::read(device.clone())?;
        let made = found.remove(&[b"/", FILE].concat());
        if made.is_some_and(|node| node.content.contains(&STALE)) {
            return Err("the new file shows stale bytes".to_owned());
        }
        // The root was changed when the file was made.
        if let (Some(root), Some(before)) = (found.get_mut(&b""[..]), mended.get(&b""[..])) {
            (root.times, root.size) = (before.times, before.size);
        }
        history.judge(moment, &found)
    }
}

/// Makes a file, and removes it.
fn use_it(fs: &Ext2) -> ext2_core::Result<()> {
    let root = fs.root()?;
    let may = [Errno::NOSPC, Errno::PERM];
    let refused = |error: &ext2_core::Error| may.iter().any(|errno| error.refuses(*errno));
    match root.create(FILE, &NewInode::new(FileKind::Regular, 0o600)) {
        Err(error) if refused(&error) => return Ok(()),
        made => {
            let made = made?;
            // There may be no room.
            match made.write_at(0, &[7; 3000]) {
                Err(error) if !refused(&error) => return Err(error),
                _ => {}
            }
            made.sync()?;
        }
    }
    match root.unlink(FILE) {
        Err(error) if !refused(&error) => Err(error),
        _ => fs.sync(),
    }
}
