//! Many seeds, one after another.

use std::{
    process::Command,
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ext2_core::sync::Mended;

use super::{
    Failure, Fault, Mode, Options, run,
    run::{now, over},
};

/// Seconds that a run may take.
const STUCK: u64 = 60;
/// The same where a fault was put back, which may hang it.
const STUCK_BY_FAULT: u64 = 10;

/// Runs that have ended.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// States of crashes that were looked at.
pub(super) static STATES: AtomicU64 = AtomicU64::new(0);

/// Which seeds, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// The first seed.
    pub first: u64,
    /// Seeds at most.
    pub runs: u64,
    /// No new one after this long.
    pub time: Duration,
    /// The mode of all of them, or each its own.
    pub mode: Option<Mode>,
    /// A fault that is put back, or a fence or flush that is left out.
    pub fault: Option<Fault>,
    /// Findings after which it is enough.
    pub enough: u64,
}

/// What a campaign did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Runs.
    pub runs: u64,
    /// Operations that did something, or were refused.
    pub operations: u64,
    /// States that a crash might have left.
    pub states: u64,
    /// Runs that found something.
    pub found: u64,
}

impl Campaign {
    /// Runs the seeds, tells each failure, and after each run how far it has come.
    pub fn go(&self, mut tell: impl FnMut(&Failure), mut progress: impl FnMut(&Tally)) -> Tally {
        let without = match self.fault {
            Some(Fault::Without(barrier)) => Some(barrier),
            _ => None,
        };
        if let Some(Fault::Mended(fault)) = self.fault {
            Mended::put_back(Some(fault));
        }
        watch(if self.fault.is_some() { STUCK_BY_FAULT } else { STUCK }, self.first);
        let begin = Instant::now();
        let mut tally = Tally::default();
        for seed in (self.first..).take(usize::try_from(self.runs).unwrap_or(usize::MAX)) {
            if begin.elapsed() > self.time || tally.found >= self.enough {
                break;
            }
            let options = self.mode.map_or_else(|| Options::of(seed), |mode| Options::of_mode(seed, mode));
            let options = Options { without, ..options };
            match run(&options) {
                Ok(outcome) => {
                    tally.operations += outcome.done;
                    tally.states += outcome.states;
                }
                Err(failure) => {
                    tally.found += 1;
                    tell(&failure);
                }
            }
            tally.runs += 1;
            RUNS.fetch_add(1, Ordering::Relaxed);
            progress(&tally);
        }
        over();
        tally
    }
}

/// A seed that no run had before, most likely.
#[must_use]
pub fn new_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() << 20
}

/// The commit that runs, where that is known.
#[must_use]
pub fn commit() -> String {
    let git =
        Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short", "HEAD"]).output();
    let hash = git.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    hash.ok().filter(|hash| !hash.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

/// Ends the program where a run does not end: nothing else can be done with a thread that hangs.
fn watch(stuck: u64, first: u64) {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        std::thread::spawn(move || {
            let mut last = (0, Instant::now());
            loop {
                std::thread::sleep(Duration::from_millis(200));
                let runs = (RUNS.load(Ordering::Relaxed), STATES.load(Ordering::Relaxed), now());
                let runs = crc32fast::hash(format!("{runs:?}").as_bytes());
                if runs != last.0 {
                    last = (runs, Instant::now());
                } else if last.1.elapsed().as_secs() >= stuck && !now().is_empty() {
                    println!("{}: does not return (commit {})", now(), commit());
                    println!("{} runs from seed {first} on", RUNS.load(Ordering::Relaxed) + 1);
                    std::process::exit(1);
                }
            }
        });
    });
}
