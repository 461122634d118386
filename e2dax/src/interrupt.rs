//! Ctrl-C, and the other signals that ask for an end: images are closed, and nothing that is not whole looks as if it were.
//!
//! # Invariants
//! Nothing listens until there is something to look after, so that verbs with signals of their own are left alone. What is
//! looked after is given back before it is done with in the ordinary way. The thread that listens waits for a verb only
//! while that opens or closes an image, and no longer than to a second signal; a file system may wait for the call that is
//! under way.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ext2_core::{Closed, Ext2};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What is to be done when a signal comes.
struct State {
    is_listening: bool,
    /// Images that are being opened or closed: their superblock may say by now that they are not clean.
    passages: usize,
    images: Vec<(String, Ext2)>,
    outputs: Vec<Output>,
}

/// A file or folder that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Output {
    /// It is removed.
    Removed(PathBuf),
    /// It is said not to be whole.
    Named(PathBuf),
    /// An image that is being mended, and whether any of it may have been stored.
    Mended(String, bool),
    /// An image into which what a repair stored over is put back.
    PutBack(String),
}

/// What e2fsck says when it is cancelled.
const CANCELLED: i32 = 32;

/// How long a signal waits for an image to be opened or closed. A device may never answer.
const PATIENCE: Duration = Duration::from_secs(30);

static STATE: Mutex<State> =
    Mutex::new(State { is_listening: false, passages: 0, images: Vec::new(), outputs: Vec::new() });

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether an image is being opened or closed.
fn is_passing() -> bool {
    state().passages > 0
}

/// Opens or closes an image; a signal that comes meanwhile waits.
pub(crate) fn passing<T>(work: impl FnOnce() -> T) -> T {
    struct Passage;
    impl Drop for Passage {
        fn drop(&mut self) {
            state().passages -= 1;
        }
    }
    {
        let mut state = state();
        state.passages += 1;
        listen(&mut state);
    }
    let _passage = Passage;
    work()
}

/// Closes an image, should a signal come.
pub(crate) fn watch_image(name: String, fs: &Ext2) {
    let mut state = state();
    state.images.push((name, fs.clone()));
    listen(&mut state);
}

/// An image is closed in the ordinary way.
pub(crate) fn forget_image(fs: &Ext2) {
    state().images.retain(|(_, watched)| watched != fs);
}

/// An output that is not whole until this is dropped.
pub(crate) struct Partial(Output);

impl Partial {
    /// A file that is removed, should a signal come.
    pub(crate) fn removed(path: &Path) -> Self {
        Self::watch(Output::Removed(path.into()))
    }

    /// A place that is then said not to be whole.
    pub(crate) fn named(path: &Path) -> Self {
        Self::watch(Output::Named(path.into()))
    }

    /// An image that is being mended: nothing of it was stored yet.
    pub(crate) fn mended(name: &str) -> Self {
        Self::watch(Output::Mended(name.to_owned(), false))
    }

    /// An image that gets back what a repair stored over.
    pub(crate) fn put_back(name: &str) -> Self {
        Self::watch(Output::PutBack(name.to_owned()))
    }

    /// From now on something of it may be stored.
    pub(crate) fn storing(&mut self) {
        let Output::Mended(name, _) = &self.0 else { return };
        let next = Output::Mended(name.clone(), true);
        if let Some(known) = state().outputs.iter_mut().find(|output| **output == self.0) {
            known.clone_from(&next);
        }
        self.0 = next;
    }

    fn watch(output: Output) -> Self {
        let mut state = state();
        state.outputs.push(output.clone());
        listen(&mut state);
        Self(output)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let mut state = state();
        if let Some(at) = state.outputs.iter().position(|output| *output == self.0) {
            state.outputs.remove(at);
        }
    }
}

/// Listens, once. Where no thread can be had, a signal ends the process as it always does.
fn listen(state: &mut State) {
    if state.is_listening {
        return;
    }
    state.is_listening = true;
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            let asked = Instant::now();
            while is_passing() && asked.elapsed() < PATIENCE && signals.pending().next().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            end(signal);
        }
    };
    let _ = std::thread::Builder::new().name("signals".into()).spawn(wait);
}

/// Leaves everything in order and ends the process.
fn end(signal: i32) {
    let (images, outputs) = {
        let mut state = state();
        (std::mem::take(&mut state.images), std::mem::take(&mut state.outputs))
    };
    let say = |text: String| {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "e2dax: interrupted: {text}");
    };
    for (name, fs) in images {
        match fs.close() {
            Ok(Closed::Clean) => {}
            Ok(_) => say(format!(
                "{name} is left as not clean; the next verb that changes it, or e2fsck -p, mends it"
            )),
            Err(error) => say(format!("{name} is left as not clean: {error}")),
        }
    }
    let mut code = 128 + signal;
    for output in outputs {
        match output {
            Output::Mended(name, stored) => {
                code = CANCELLED;
                say(match stored {
                    false => format!("nothing of {name} was mended; run it again to begin anew"),
                    true => format!("{name} is half mended; run it again, and the rest is mended"),
                });
            }
            Output::PutBack(name) => {
                say(format!("{name} may be half put back; run it again, and the rest is put back"));
            }
            Output::Removed(path) => {
                let is_file = std::fs::metadata(&path).is_ok_and(|found| found.is_file());
                if is_file && std::fs::remove_file(&path).is_ok() {
                    say(format!("{} is removed", path.display()));
                }
            }
            Output::Named(path) => say(format!("what is in {} is not whole", path.display())),
        }
    }
    std::process::exit(code);
}
