//! Faults that were mended, put back one at a time: how many runs, and how long, it takes to find each again.

use std::{
    fmt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use ext2_core::{Barrier, sync::Mended};

use super::{Mode, new_seed};

/// What is put back, or left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A fault that was mended.
    Mended(Mended),
    /// A fence or flush.
    Without(Barrier),
}

impl Fault {
    /// All faults that were mended.
    pub fn mended() -> impl Iterator<Item = Self> {
        Mended::ALL.iter().map(|fault| Self::Mended(*fault))
    }

    /// The one of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let barriers = Barrier::ALL.iter().map(|barrier| Self::Without(*barrier));
        Self::mended().chain(barriers).find(|fault| fault.to_string() == name)
    }

    /// The mode whose runs show it soonest.
    #[must_use]
    pub fn mode(self) -> Mode {
        use Mended as M;
        match self {
            Self::Without(_) => Mode::Crash,
            Self::Mended(fault) => match fault {
                M::LookupLetsGo | M::RenameLooksOnce | M::RmdirLooksOnce | M::NowaitWaits => Mode::Threads,
                M::CopiesReplaced | M::AppendsApart | M::LateAttach => Mode::Threads,
                M::SetIdComesBack | M::FlagsLookedAtFirst | M::MovedIsBroken => Mode::Threads,
                M::FoundUntold | M::EntryGoesFirst => Mode::Threads,
                M::StoredBeforeAllKnow => Mode::Threads,
                M::KeptTakenFirst | M::RunsTakenFirst | M::MarkGoesFirst | M::LeavingPassedOver => {
                    Mode::Threads
                }
                M::OwnersInPieces | M::SetIdKept | M::SharersApart | M::NoShelter => Mode::Crash,
                M::ExchangeKeepsNothing | M::LateTimesForgotten | M::DanglingNamesStay => Mode::Crash,
                M::LeaseNotWritten | M::InodeReplayedFirst | M::SetIdInLog | M::OthersTakeSetId => {
                    Mode::Crash
                }
                M::FenceUnnoted
                | M::AskedAgain
                | M::LossUntold
                | M::FaultLeavesHole
                | M::ErrorsAreClean
                | M::MarkUnknown
                | M::LossPassedBy
                | M::FlushUnnoted => Mode::Failing,
                M::FeatureUnsaid | M::NobodysShare => Mode::Failing,
                _ => Mode::Plain,
            },
        }
    }

    /// What is wrong with it; of a fence what it is for.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Mended(fault) => fault.text(),
            Self::Without(barrier) => barrier.text(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mended(fault) => write!(f, "{fault:?}"),
            Self::Without(barrier) => write!(f, "{barrier:?}"),
        }
    }
}

/// Searches for a fault, each from a seed of its own.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// How many.
    pub searches: u64,
    /// The longest time of one.
    pub time: Duration,
    /// The mode of all runs; else that of the fault.
    pub mode: Option<Mode>,
    /// The seed that the first begins with.
    pub first: Option<u64>,
}

/// What became of searches.
#[derive(Clone, Debug)]
pub struct Sought {
    /// Those that found it.
    pub found: u64,
    /// Runs that it took in the middle search, where it found it.
    pub runs: Option<u64>,
    /// Time that it took there.
    pub time: Option<Duration>,
    /// Modes of the runs that found it, by name.
    pub modes: Vec<&'static str>,
    /// What the fastest one said.
    pub words: String,
}

/// Seeds between searches.
const APART: u64 = 1 << 32;

impl Search {
    /// Searches. Each search is a process of its own, of `program`, which is `e2dax-sim`: a fault may hang it.
    ///
    /// # Errors
    /// Where the program cannot be run.
    pub fn go(&self, program: &Path, fault: Fault) -> std::io::Result<Sought> {
        let first = self.first.unwrap_or_else(new_seed);
        let mut found: Vec<(u64, Duration, String)> = Vec::new();
        for nr in 0..self.searches {
            let mut command = Command::new(program);
            command.args(["--with", &fault.to_string()]);
            command.args(["--seed", &first.wrapping_add(nr * APART).to_string()]);
            command.args(["--seconds", &self.time.as_secs().to_string()]);
            let mode = self.mode.unwrap_or(fault.mode());
            if let Some((name, _)) = Mode::ALL.iter().find(|(_, own)| *own == mode) {
                command.args(["--mode", name]);
            }
            let begin = Instant::now();
            let output = command.stderr(Stdio::null()).output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.code() == Some(1) {
                let runs = text.lines().find_map(|line| line.split_once(" runs from seed ")?.0.parse().ok());
                let words = text.lines().next().unwrap_or_default().to_owned();
                found.push((runs.unwrap_or(0), begin.elapsed(), words));
            }
        }
        found.sort();
        let names = Mode::ALL.iter().map(|(name, _)| *name);
        let has_mode = |words: &str, name: &str| words.contains(&format!("--mode {name}"));
        let (count, middle) = (found.len() as u64, (self.searches / 2) as usize);
        Ok(Sought {
            found: count,
            runs: found.get(middle).map(|(runs, ..)| *runs),
            time: found.get(middle).map(|(_, time, _)| *time),
            modes: names.filter(|name| found.iter().any(|(.., words)| has_mode(words, name))).collect(),
            words: found.first().map(|(.., words)| words.clone()).unwrap_or_default(),
        })
    }
}
