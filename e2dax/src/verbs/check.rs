//! `check`: whether an image is sound, and mending it.

mod mend;
mod print;
mod seal;

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use blockdev::BlockDevice;
use ext2_image::check::{self, Options};
use ext2_image::jbd2;
use ext2_image::repair::{Backup, Changes, backup_in_block, find_backup, has_superblock, use_backup};

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::progress::{self, PassBar};
use crate::target::{ImageOptions, Mode, SuperblockFrom, Target};
use crate::verbs::seal::options::parse_root;

/// Errors are left, as e2fsck says it.
const ERRORS_LEFT: u8 = 4;

/// Check an image in the passes of e2fsck, and repair it on request
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax check a.img
  e2dax check --json a.img@p1
  e2dax check --backups a.img
  e2dax check -p a.img                       repair what needs no question, as e2fsck -p does
  e2dax check -y --undo a.undo a.img         repair everything; e2dax undo a.undo a.img restores it
  e2dax check -y --dry-run a.img             only print what would be written
  e2dax check --superblock auto a.img        use a backup of the superblock
  e2dax check --seal 4392712b… a.img         verify the seal against this root hash first

Each finding names the object and says whether e2fsck -p fixes it without asking (mends) or stops (halts). Remarks
are what e2fsck -n does not count as an error.

On a terminal it asks about each finding. With -n, or without a terminal, it only looks. Before a repair, a journal
that needs recovery is replayed. Files without a name go to lost+found. Nothing is written until the whole image has
been checked; to finish an interrupted repair, run the same command again.

Exit codes are those of e2fsck: 0 clean, 1 errors corrected, 4 errors left (5: both), 8 no file system or one that
cannot be checked, 16 usage error, 32 interrupted.")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    /// Repair what needs no question, as e2fsck -p; stop at anything else
    #[arg(short, long, group = "how")]
    preen: bool,

    /// Repair everything
    #[arg(short, long, group = "how")]
    yes: bool,

    /// Change nothing, and ask nothing
    #[arg(short, long, group = "how")]
    no: bool,

    /// With -p or -y: write nothing, and print what would be written
    #[arg(long, conflicts_with = "no")]
    dry_run: bool,

    /// Save what will be overwritten to a new file first; `e2dax undo FILE IMG` and e2undo put it back
    #[arg(long, value_name = "FILE", conflicts_with_all = ["no", "dry_run"])]
    undo: Option<PathBuf>,

    /// Also compare the backups of the superblock with the primary one
    #[arg(long)]
    backups: bool,

    /// First verify the dm-verity seal of the image against this root hash
    #[arg(long, value_name = "ROOTHASH", value_parser = parse_root)]
    seal: Option<std::vec::Vec<u8>>,

    /// The file with the hash tree, if the tree does not follow the file system
    #[arg(long, value_name = "FILE", requires = "seal")]
    hash_file: Option<PathBuf>,

    /// Print only the verdict
    #[arg(short, long)]
    quiet: bool,

    /// Print a JSON object for each finding, and one with the verdict
    #[arg(long)]
    json: bool,
}

/// Nothing could be checked, as e2fsck says it.
const OPERATIONAL: u8 = 8;
/// The command line makes no sense, as e2fsck says it.
const USAGE: u8 = 16;

/// The exit code for a command line that makes no sense, when it is one of this verb.
pub(crate) fn usage_code(arguments: &[OsString]) -> Option<u8> {
    let verb = arguments.iter().skip(1).find(|argument| !argument.as_encoded_bytes().starts_with(b"-"));
    verb.is_some_and(|verb| verb == "check").then_some(USAGE)
}

/// Whether an image is mended, and who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Look,
    Preen,
    Yes,
    Ask,
}

impl Args {
    fn how(&self) -> How {
        match (self.preen, self.yes, self.no) {
            (true, ..) => How::Preen,
            (_, true, _) => How::Yes,
            (.., true) => How::Look,
            _ if self.dry_run || self.undo.is_some() => How::Yes,
            // Somebody has to see the question and be able to answer.
            _ if self.json || self.quiet || self.seal.is_some() => How::Look,
            _ if progress::is_seen() && std::io::stdin().is_terminal() => How::Ask,
            _ => How::Look,
        }
    }
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let done = match args.how() {
        How::Look => look(args, context),
        how => mend::run(args, how, context),
    };
    match done.and_then(|()| context.out.flush()) {
        Err(failure) if !failure.is_closed_output() => {
            let is_usage = failure.code() == crate::failure::USAGE;
            let verdict = context.exit_code();
            context.complain(&failure);
            context.lower_exit(if is_usage { USAGE } else { verdict | OPERATIONAL });
            Ok(())
        }
        result => result,
    }
}

fn look(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse_image(&args.image)?;
    let device = target.open_device(&context.image.by_calls(), Mode::Read, blockdev::Durability::Relaxed)?;
    // What a crash left in a log is a part of the image.
    let device = ext2_core::recovered(device).of(|| target.image_name())?;
    if let Some(root) = &args.seal {
        let seal =
            seal::Request { root, hash_file: args.hash_file.as_deref(), quiet: args.quiet, json: args.json };
        seal.verify(&target, &*device, context)?;
    }
    let shown = Changes::new(&*device);
    let backup = backup_of(&context.image, &*device, &target.image_name())?;
    if let Some(backup) = &backup {
        use_backup(&shown, backup).of(|| target.image_name())?;
    }
    // A journal that was left full is a part of the image too.
    let is_full = !context.image.ignore_journal && jbd2::needs_replay(&shown).unwrap_or(false);
    if is_full && let Some(done) = jbd2::replay(&shown).of(|| target.image_name())? {
        let count = done.transactions;
        context
            .note(&format!("{}: as it is after its journal, of {count} transactions", target.image_name()));
    }
    let device: &dyn BlockDevice = if backup.is_some() || is_full { &shown } else { &*device };
    let bar = PassBar::default();
    let options = Options { backups: args.backups, progress: &|progress| bar.show(progress) };
    // The findings are printed as they come; a closed output is remembered and ends the printing.
    let closed = RefCell::new(None);
    let out = &mut context.out;
    let summary = check::check(device, &options, &mut |finding| {
        if args.quiet || closed.borrow().is_some() {
            return;
        }
        let line = bar.hidden_for(|| match args.json {
            true => out.json(&print::to_json(finding)),
            false => out.line(print::to_text(finding)),
        });
        if let Err(failure) = line {
            closed.replace(Some(failure));
        }
    });
    bar.end();
    let summary = summary.map_err(|error| target.failure(&*device, error))?;
    // The exit code tells it, too, to whom the output does not reach.
    if !summary.is_clean() {
        context.set_exit(ERRORS_LEFT);
    }
    if let Some(failure) = closed.into_inner() {
        return Err(failure);
    }
    if args.json {
        context.out.json(&print::summary_to_json(&summary, summary.is_clean()))
    } else {
        context.out.line(print::verdict(&target.image_name(), &summary))
    }
}

/// The backup of the superblock that is asked for; none for the primary one.
fn backup_of(options: &ImageOptions, device: &dyn BlockDevice, name: &str) -> Result<Option<Backup>> {
    let none = |what: &str| Failure::broken(name, what.to_owned());
    Ok(match options.superblock {
        None => None,
        // The primary one, where it can be used.
        Some(SuperblockFrom::Auto) if has_superblock(device) => None,
        Some(SuperblockFrom::Auto) => {
            Some(find_backup(device).ok_or_else(|| none("has no backup of a superblock"))?)
        }
        Some(from) => {
            let block = from.block(device).ok_or_else(|| none("has no superblock there"))?;
            Some(backup_in_block(device, block).ok_or_else(|| none("has no backup of a superblock there"))?)
        }
    })
}
