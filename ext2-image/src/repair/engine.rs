//! Rounds of the passes over the changes, until one finds nothing more to mend.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cell::Cell;

use ext2_core::raw::{RawSuperblock, SUPERBLOCK_OFFSET};
use ext2_core::rules::{STATE_ERROR, STATE_VALID};
use ext2_core::{Error, Features, Result};
use zerocopy::{FromZeros, IntoBytes};

use super::changes::Changes;
use super::descriptors::settle_descriptors;
use super::layout::settle_super;
use crate::check::run::{Scratch, Stop};
use crate::check::superblock::{check_mendable, check_super, read_super};
use crate::check::{Checker, Finding, Kind, Outcome, Place, Progress, Summary, recount};
use blockdev::BlockDevice;

/// Rounds after which a repair that always finds something new is given up. Each level of a block map and each pass may cost
/// one; nothing that was tried took more than ten.
const ROUNDS: u32 = 64;

/// Who decides what is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// What needs no person, as `e2fsck -p`; the first finding that does ends it.
    Preen,
    /// Everything that the one who is told of the findings says yes to: `e2fsck -y` where he always does.
    Asked,
}

/// How to repair.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Seconds since 1970, for times of deletion and of the check.
    pub now: u32,
    /// Who decides.
    pub policy: Policy,
    /// Is told how far each round is.
    pub progress: &'a dyn Fn(Progress),
}

impl core::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Options")
            .field("now", &self.now)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// What a repair came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Findings that were mended.
    pub mended: u64,
    /// Whether `e2fsck -fn` calls the image clean that the changes make.
    pub clean: bool,
    /// What stopped it: a finding that needs a person under [`Policy::Preen`], or one that cannot be mended.
    pub stopped: Option<Finding>,
    /// Counts of the last round.
    pub summary: Summary,
}

/// Finds what is wrong in the image under `changes` and what mends it, which goes into `changes`. `sink` is told of each
/// finding once; under [`Policy::Asked`] its answer says whether to mend it.
///
/// # Errors
/// `Corrupt` when there is no file system and no backup of its superblock, `Incompatible` when it uses what is not known
/// here, the device's errors.
pub fn repair(
    changes: &Changes<'_>,
    options: &Options<'_>,
    sink: &mut dyn FnMut(&Finding) -> bool,
) -> Result<Report> {
    if let Some(report) = cannot_mend(changes, options)? {
        return Ok(report);
    }
    match options.policy {
        Policy::Preen => preen(changes, options, sink),
        Policy::Asked => rounds(changes, options, sink),
    }
}

/// An image with features that are not kept up here needs nothing where it is clean, and is refused otherwise.
fn cannot_mend(changes: &Changes<'_>, options: &Options<'_>) -> Result<Option<Report>> {
    let mut features = Features::default();
    if let Ok(raw) = read_super(changes)
        && let Ok(sb) = check_super(changes, &raw, &mut |_| false)
    {
        features = sb.features;
    }
    let Err(refused) = check_mendable(features) else { return Ok(None) };
    let summary = Checker::new().check(changes, &check_options(options), &mut |_| {})?;
    if !summary.is_clean() {
        return Err(refused);
    }
    Ok(Some(Report { mended: 0, clean: true, stopped: None, summary }))
}

fn check_options<'a>(options: &Options<'a>) -> crate::check::Options<'a> {
    crate::check::Options { backups: false, progress: options.progress }
}

fn preen(
    changes: &Changes<'_>,
    options: &Options<'_>,
    sink: &mut dyn FnMut(&Finding) -> bool,
) -> Result<Report> {
    let told = &mut |finding: &Finding| {
        sink(finding);
    };
    let mut checker = Checker::new();
    let (outcome, known) = checker.preen(changes, options.now, &check_options(options), told)?;
    let (mended, stopped) = match outcome {
        Outcome::Clean => (0, None),
        Outcome::Mended(count) => (count, None),
        Outcome::Halts(finding) => (0, Some(finding)),
    };
    if changes.stamp() != 0 && stopped.is_none() {
        note_check(changes, options.now)?;
    }
    let summary = match known {
        Some(summary) => summary,
        None => checker.check(changes, &check_options(options), &mut |_| {})?,
    };
    Ok(Report { mended, clean: stopped.is_none() && summary.is_clean(), stopped, summary })
}

fn rounds(
    changes: &Changes<'_>,
    options: &Options<'_>,
    sink: &mut dyn FnMut(&Finding) -> bool,
) -> Result<Report> {
    let mut answers: BTreeMap<(Place, Kind), bool> = BTreeMap::new();
    let mut mended = 0;
    // Whether a round mended nothing but counts, and all that it found.
    let counts = Cell::new(true);
    let mut answer = |finding: &Finding| {
        let wanted = *answers.entry((finding.place, finding.kind)).or_insert_with(|| {
            let wanted = sink(finding);
            mended += u64::from(wanted);
            wanted
        });
        counts.set(counts.get() && wanted && finding.kind.is_count());
        wanted
    };
    replay_journal(changes, &mut answer)?;
    let mut scratch = Scratch::default();
    let mut stopped = None;
    let mut sound = None;
    for _ in 0..ROUNDS {
        let before = changes.stamp();
        counts.set(true);
        stopped = settle_super(changes, &mut answer)?.err();
        if stopped.is_some() {
            break;
        }
        // A backup of the superblock has no mark, and what the journal holds may be found by mended descriptors only: the passes
        // look for that first.
        let round = settle_descriptors(changes, &mut answer).and_then(|()| {
            crate::check::round(changes, options.now, options.progress, &mut scratch, &mut answer)
        });
        match round {
            Ok(summary) if changes.stamp() == before => {
                sound = Some(summary).filter(Summary::is_clean);
                break;
            }
            Ok(_) if counts.get() => {
                sound = recount(changes, options.progress, &mut scratch)?;
                if sound.is_some() {
                    break;
                }
            }
            Ok(_) | Err(Stop::Again) if changes.stamp() != before => {}
            Err(Stop::Error(error)) => return Err(error),
            _ => break,
        }
    }
    let mut last = Vec::new();
    // A round that found nothing is a check of its own, and so is one whose counts are as they should be after it.
    let summary = match sound {
        Some(summary) => summary,
        None => Checker::with(scratch).check(changes, &check_options(options), &mut |finding| {
            if last.is_empty() && !finding.kind.is_remark() {
                last.push(finding.clone());
            }
        })?,
    };
    if summary.is_clean() && stopped.is_none() {
        finish(changes, options.now)?;
    }
    let stopped = stopped.or_else(|| last.pop());
    Ok(Report { mended, clean: summary.is_clean() && stopped.is_none(), stopped, summary })
}

/// Brings back what the journal holds, before all else. One that is broken is given up where `answer` says so, as e2fsck does it.
/// Any other that cannot be replayed has nothing wrong with it: it lies elsewhere, has what is not known here, or cannot be read
/// now.
fn replay_journal(changes: &Changes<'_>, answer: &mut dyn FnMut(&Finding) -> bool) -> Result<()> {
    match crate::jbd2::needs_replay(changes) {
        Ok(true) => {}
        Ok(false) => return replay_unmarked(changes, answer),
        // Without a superblock nothing says where a journal is.
        Err(Error::Corrupt(_)) => return Ok(()),
        Err(error) => return Err(error),
    }
    let Err(error) = crate::jbd2::replay(changes) else { return Ok(()) };
    let mut raw = RawSuperblock::new_zeroed();
    changes.read_at(SUPERBLOCK_OFFSET, raw.as_mut_bytes())?;
    if !matches!(error, Error::Corrupt(_)) && crate::jbd2::is_usable(changes, &raw) {
        return Err(error);
    }
    let is_foreign = crate::jbd2::has_unknown_version(changes, &raw)?;
    let kind = if is_foreign { Kind::JournalVersion } else { Kind::JournalSuperblock };
    let place = Place::Inode(8);
    let lost = Finding { place, kind, found: None, expected: None, name: Vec::new() };
    if answer(&lost) {
        raw.s_feature_incompat = (raw.s_feature_incompat.get() & !0x4).into();
        changes.write_at(SUPERBLOCK_OFFSET, raw.as_bytes())?;
    }
    Ok(())
}

/// Brings back what a journal holds of which the superblock does not say so, where `answer` does.
fn replay_unmarked(changes: &Changes<'_>, answer: &mut dyn FnMut(&Finding) -> bool) -> Result<()> {
    let mut raw = RawSuperblock::new_zeroed();
    changes.read_at(SUPERBLOCK_OFFSET, raw.as_mut_bytes())?;
    let (place, kind) = (Place::Inode(8), Kind::JournalUnmarked);
    let full = Finding { place, kind, found: None, expected: None, name: Vec::new() };
    if crate::jbd2::is_full_unmarked(changes, &raw)? && answer(&full) {
        crate::jbd2::replay_unmarked(changes, &raw)?;
    }
    Ok(())
}

/// Says in the superblock that the image is clean, and, where that is news, when it was checked.
fn finish(changes: &Changes<'_>, now: u32) -> Result<()> {
    let mut raw = RawSuperblock::new_zeroed();
    changes.read_at(SUPERBLOCK_OFFSET, raw.as_mut_bytes())?;
    let state = raw.s_state.get() & !STATE_ERROR | STATE_VALID;
    let is_news = state != raw.s_state.get() || raw.s_last_orphan.get() != 0 || changes.stamp() != 0;
    if !is_news {
        return Ok(());
    }
    raw.s_state = state.into();
    raw.s_last_orphan = 0.into();
    changes.write_at(SUPERBLOCK_OFFSET, raw.as_bytes())?;
    note_check(changes, now)
}

fn note_check(changes: &Changes<'_>, now: u32) -> Result<()> {
    let mut raw = RawSuperblock::new_zeroed();
    changes.read_at(SUPERBLOCK_OFFSET, raw.as_mut_bytes())?;
    raw.s_lastcheck = now.into();
    raw.s_mnt_count = 0.into();
    raw.s_wtime = now.into();
    Ok(changes.write_at(SUPERBLOCK_OFFSET, raw.as_bytes())?)
}
