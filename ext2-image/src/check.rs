//! Checking an image, and mending what needs no person.
//!
//! The passes are those of e2fsck, and so is the verdict: layout (superblock, descriptors, metadata),
//! inodes with their block trees and attributes, double use, directories, reachability, link counts,
//! bitmaps and counts. Everything is read from the raw structures; nothing trusts [`Ext2`](ext2_core::Ext2).
//!
//! # Invariants
//! 1. No image makes a check panic, write (but for [`Checker::mend`]) or leave the device; its time is
//!    linear in the image: an indirect block is walked once, a directory block read once, an entry
//!    compared once.
//! 2. Memory is a bit or two for each block, 5 bytes for each inode, and 12 for each block of a directory.
//! 3. Findings come in an order that depends on the image alone.
//! 4. [`Checker::mend`] does what `e2fsck -p` does, and stops where that stops. It writes nothing after a
//!    finding that needs a person.
//!
//! ```
//! use ext2_image::check::{Options, check};
//!
//! let image = ext2_image::mkfs::in_memory(1 << 20)?;
//! let summary = check(&image, &Options::default(), &mut |finding| println!("{finding}"))?;
//! assert!(summary.is_clean());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attrs;
mod bits;
mod connect;
mod counts;
mod dirs;
mod finding;
mod hash;
mod htree;
pub(crate) mod inodes;
pub(crate) mod layout;
mod memo;
mod orphans;
mod quota;
pub(crate) mod run;
pub(crate) mod spare;
pub(crate) mod superblock;
mod tree;

pub use finding::{Finding, Kind, Place, Preen};

use core::fmt;

use blockdev::BlockDevice;

use ext2_core::Result;
use run::{Changed, Later, Mode, Run, Scratch, Step, Stop};

use crate::repair::Changes;

/// What is being looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Pass {
    Layout,
    Inodes,
    Directories,
    Connections,
    Links,
    Counts,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The pass.
    pub pass: Pass,
    /// How much of it is done.
    pub done: u64,
    /// How much there is.
    pub total: u64,
}

/// How to check.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Also compares the backups of the superblock, which e2fsck does not do.
    pub backups: bool,
    /// Is told how far the check is, now and then.
    pub progress: &'a dyn Fn(Progress),
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { backups: false, progress: &|_| {} }
    }
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("backups", &self.backups).finish_non_exhaustive()
    }
}

/// What a check came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Findings, remarks left out.
    pub faults: u64,
    /// Whether everything was looked at: not where the layout is too broken for it.
    pub complete: bool,
    /// Inodes, in use and in all.
    pub inodes: (u64, u64),
    /// Blocks, in use and in all.
    pub blocks: (u64, u64),
}

impl Summary {
    /// Whether `e2fsck -n` would call the image clean.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.complete && self.faults == 0
    }
}

/// What `e2fsck -p` makes of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was nothing to mend.
    Clean,
    /// Everything that was found was mended: so many findings.
    Mended(u64),
    /// It stops, at this.
    Halts(Finding),
}

/// Checks an image as `e2fsck -fn` does; the findings go to `sink` as they come.
///
/// ```
/// use blockdev::BlockDevice;
/// use ext2_image::check::{Options, check};
///
/// let device = ext2_image::mkfs::in_memory(1 << 20)?;
/// assert!(check(&device, &Options::default(), &mut |_| ())?.is_clean());
/// // Somebody counts wrong.
/// device.write_at(1024 + 12, &7_u32.to_le_bytes())?;
/// let mut found = Vec::new();
/// check(&device, &Options::default(), &mut |finding| found.push(finding.to_string()))?;
/// assert_eq!(found, ["superblock: s_free_blocks_count is 7, should be 238"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `Corrupt` when there is no file system, `Incompatible` when it uses what this check does not know,
/// the device's errors.
pub fn check(
    dev: &dyn BlockDevice,
    options: &Options<'_>,
    sink: &mut dyn FnMut(&Finding),
) -> Result<Summary> {
    Checker::new().check(dev, options, sink)
}

/// Mends an image as `e2fsck -fp` does, at the time `now` in seconds since 1970.
///
/// # Errors
/// As for [`check`].
pub fn mend(dev: &dyn BlockDevice, now: u32, sink: &mut dyn FnMut(&Finding)) -> Result<Outcome> {
    Checker::new().mend(dev, now, sink)
}

/// A checker that keeps its memory from one image to the next.
#[derive(Debug, Default)]
pub struct Checker {
    scratch: Scratch,
}

impl Checker {
    /// A checker.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As the function [`check`].
    ///
    /// # Errors
    /// As there.
    pub fn check(
        &mut self,
        dev: &dyn BlockDevice,
        options: &Options<'_>,
        sink: &mut dyn FnMut(&Finding),
    ) -> Result<Summary> {
        let mut faults = 0;
        let mut counting = |finding: &Finding| {
            faults += u64::from(!finding.kind.is_remark());
            sink(finding);
            false
        };
        let mut summary = Summary::default();
        let result = self.run(dev, Way::new(Mode::Look, 0), options, &mut counting, &mut summary);
        summary.faults = faults;
        match result {
            Ok(()) => Ok(Summary { complete: true, ..summary }),
            Err(Stop::Unusable | Stop::Halt(_) | Stop::Again) => Ok(Summary { complete: false, ..summary }),
            Err(Stop::Error(error)) => Err(error),
        }
    }

    /// As the function [`mend`].
    ///
    /// # Errors
    /// As there.
    pub fn mend(
        &mut self,
        dev: &dyn BlockDevice,
        now: u32,
        sink: &mut dyn FnMut(&Finding),
    ) -> Result<Outcome> {
        self.mend_with(dev, now, &Options::default(), sink)
    }

    /// As [`mend`](Self::mend), telling how far it is.
    ///
    /// # Errors
    /// As there.
    pub fn mend_with(
        &mut self,
        dev: &dyn BlockDevice,
        now: u32,
        options: &Options<'_>,
        sink: &mut dyn FnMut(&Finding),
    ) -> Result<Outcome> {
        Ok(self.preen(dev, now, options, sink)?.0)
    }

    /// As [`mend_with`](Self::mend_with), and what a check afterwards finds, where that is known without one: nothing was
    /// mended, or only counts, which were looked at again.
    pub(crate) fn preen(
        &mut self,
        dev: &dyn BlockDevice,
        now: u32,
        options: &Options<'_>,
        sink: &mut dyn FnMut(&Finding),
    ) -> Result<(Outcome, Option<Summary>)> {
        let options = Options { backups: false, ..*options };
        let (mut mended, mut counts) = (0, true);
        let mut last = None;
        let mut counting = |finding: &Finding| {
            mended += 1;
            counts &= finding.kind.is_count();
            if finding.preen() == Preen::Halts {
                last = Some(finding.clone());
            }
            sink(finding);
            true
        };
        let mut summary = Summary::default();
        let mut result = Err(Stop::Again);
        // Each group may turn out once to have been written in full.
        for _ in 0..4 {
            result = self.run(dev, Way::new(Mode::Mend, now), &options, &mut counting, &mut summary);
            if !matches!(result, Err(Stop::Again)) {
                break;
            }
        }
        let outcome = match (result, last) {
            (Ok(()), _) if mended == 0 => Outcome::Clean,
            (Ok(()), _) => Outcome::Mended(mended),
            (Err(Stop::Halt(finding)), _) | (Err(Stop::Unusable | Stop::Again), Some(finding)) => {
                Outcome::Halts(finding)
            }
            (Err(Stop::Unusable | Stop::Again), None) => Outcome::Halts(Finding {
                place: Place::Superblock,
                kind: Kind::SuperblockField,
                found: None,
                expected: None,
                name: alloc::vec::Vec::new(),
            }),
            (Err(Stop::Error(error)), _) => return Err(error),
        };
        let known = match &outcome {
            Outcome::Clean => Some(Summary { complete: true, ..summary }),
            Outcome::Mended(_) if counts => recount(dev, options.progress, &mut self.scratch)?,
            _ => None,
        };
        Ok((outcome, known))
    }

    /// With memory of another check.
    pub(crate) fn with(scratch: Scratch) -> Self {
        Self { scratch }
    }

    fn run(
        &mut self,
        dev: &dyn BlockDevice,
        way: Way<'_>,
        options: &Options<'_>,
        sink: &mut dyn FnMut(&Finding) -> bool,
        summary: &mut Summary,
    ) -> Step {
        let mode = way.mode;
        let mut run = begin(&mut self.scratch, dev, way, options.progress, sink)?;
        run.begin_memo();
        run.check_layout()?;
        if mode != Mode::Look {
            run.release_orphans()?;
            run.s.walked.reset(run.geo.blocks_count.into());
        }
        run.check_inodes()?;
        run.check_directories()?;
        run.check_connections()?;
        run.check_links()?;
        run.check_counts()?;
        run.check_quota()?;
        if options.backups {
            // A file that claimed the place of one has a copy of its own by now.
            run.check_backups()?;
        }
        if mode == Mode::Mend {
            run.finish_super()?;
        }
        summary.inodes = run.count_inodes();
        summary.blocks = run.count_blocks();
        Ok(())
    }
}

/// How a check goes about it.
#[derive(Clone, Copy)]
struct Way<'r> {
    mode: Mode,
    /// Seconds since 1970.
    now: u32,
    /// In a repair: what was changed.
    changed: Option<&'r Changed<'r>>,
}

impl Way<'_> {
    fn new(mode: Mode, now: u32) -> Self {
        Self { mode, now, changed: None }
    }
}

/// A check that knows the superblock and nothing else.
fn begin<'r>(
    scratch: &'r mut Scratch,
    dev: &'r dyn BlockDevice,
    Way { mode, now, changed }: Way<'r>,
    progress: &'r dyn Fn(Progress),
    sink: &'r mut dyn FnMut(&Finding) -> bool,
) -> Step<Run<'r>> {
    let raw = superblock::read_super(dev)?;
    let sb = superblock::check_super(dev, &raw, sink)?;
    if mode != Mode::Look {
        superblock::check_mendable(sb.features)?;
    }
    let geo = superblock::geometry(&sb);
    Ok(Run {
        dev,
        mode,
        // What is no larger than the number of inodes would look like one of them, in a list of orphans.
        now: now.max(geo.inodes_count.saturating_add(1)),
        sink,
        progress,
        raw,
        sb,
        geo,
        s: scratch,
        changed,
        faults: 0,
        reports: 0,
        large_files: false,
        later: Later::default(),
    })
}

/// Looks at the counts and bitmaps once more, after a check that has gone through all of its passes and mended nothing but
/// those: what all other passes read is as it was. `None` where there is still something to be said, and where descriptors
/// also say which parts of their groups were written.
pub(crate) fn recount(
    dev: &dyn BlockDevice,
    progress: &dyn Fn(Progress),
    scratch: &mut Scratch,
) -> Result<Option<Summary>> {
    let mut is_clean = true;
    let mut note = |_: &Finding| {
        is_clean = false;
        false
    };
    let mut look = || -> Step<Option<Summary>> {
        let mut run = begin(scratch, dev, Way::new(Mode::Look, 0), progress, &mut note)?;
        if run.has_sums() {
            return Ok(None);
        }
        run.read_descriptors()?;
        run.check_links()?;
        run.check_counts()?;
        let (inodes, blocks) = (run.count_inodes(), run.count_blocks());
        Ok(Some(Summary { faults: 0, complete: true, inodes, blocks }))
    };
    match look() {
        Ok(summary) => Ok(summary.filter(|_| is_clean)),
        Err(Stop::Error(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// One round of a repair: the passes, each finding mended that `answer` says yes to. Gives what was found in it.
pub(crate) fn round(
    changes: &Changes<'_>,
    now: u32,
    progress: &dyn Fn(Progress),
    scratch: &mut Scratch,
    answer: &mut dyn FnMut(&Finding) -> bool,
) -> Step<Summary> {
    let mut checker = Checker { scratch: core::mem::take(scratch) };
    let options = Options { backups: true, progress };
    let mut summary = Summary::default();
    let mut faults = 0;
    let mut counting = |finding: &Finding| {
        faults += u64::from(!finding.kind.is_remark());
        answer(finding)
    };
    let changed = |offset, len| changes.is_changed(offset, len);
    let way = Way { mode: Mode::Repair, now, changed: Some(&changed) };
    let result = checker.run(changes, way, &options, &mut counting, &mut summary);
    *scratch = checker.scratch;
    result.map(|()| Summary { faults, complete: true, ..summary })
}
