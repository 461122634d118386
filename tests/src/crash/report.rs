//! What a sweep found.

use std::collections::BTreeMap;

use ext2_image::check::Kind;

/// Violations that are kept in words; more of them are only counted.
const KEPT: usize = 64;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Workloads recorded.
    pub workloads: u64,
    /// Operations in them, and those that made no sense at the time and were refused.
    pub operations: (u64, u64),
    /// Fences and flushes in them.
    pub fences: u64,
    /// Crash points.
    pub points: u64,
    /// States looked at: each an image after operations that differs from all others after the same ones.
    pub states: u64,
    /// Of which were clean, and which were mended.
    pub outcomes: (u64, u64),
    /// Trees read and compared with the promise. A state whose mended image agrees with that of another, in every
    /// block that its reader read, has the same tree, and is not read again.
    pub trees: u64,
    /// States given to the real e2fsck too.
    pub e2fsck: u64,
    /// States of second crashes.
    pub again: u64,
    /// What was mended, by kind, in states.
    pub repairs: BTreeMap<Kind, u64>,
    /// States that need a person.
    pub halts: u64,
    /// States that need a person within the one exception: a directory on its way to another parent.
    pub excepted: u64,
    /// Promises broken, and states that need a person: at most some of each workload.
    pub violated: u64,
    /// The first of them in words.
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
        self.trees += other.trees;
        self.e2fsck += other.e2fsck;
        self.again += other.again;
        for (kind, count) in other.repairs {
            *self.repairs.entry(kind).or_default() += count;
        }
        self.halts += other.halts;
        self.excepted += other.excepted;
        self.violated += other.violated;
        let room = KEPT.saturating_sub(self.violations.len());
        self.violations.extend(other.violations.into_iter().take(room));
    }

    /// Notes a broken promise.
    pub(super) fn violation(&mut self, text: String) {
        self.violated += 1;
        if self.violations.len() < KEPT {
            self.violations.push(text);
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} workloads, {} operations ({} refused), {} fences, {} crash points, {} states: {} clean, {} mended, \
             {} need a person, {} trees; {} also by e2fsck; {} violations",
            self.workloads,
            self.operations.0,
            self.operations.1,
            self.fences,
            self.points,
            self.states,
            self.outcomes.0,
            self.outcomes.1,
            self.halts,
            self.trees,
            self.e2fsck,
            self.violated
        )?;
        if self.again > 0 {
            write!(f, "; {} of second crashes", self.again)?;
        }
        if self.excepted > 0 {
            write!(f, "; {} need a person within an exception that the promise names", self.excepted)?;
        }
        for (kind, count) in &self.repairs {
            write!(f, "\n  {count:9}  {}", kind.text())?;
        }
        Ok(())
    }
}
