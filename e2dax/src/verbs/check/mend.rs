//! `check -p`, `check -y` and `check` that asks: mending what is found.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;

use blockdev::{BlockDevice, Durability};
use ext2_core::raw::{MAGIC, SUPERBLOCK_OFFSET};
use ext2_image::check::{Finding, Kind, Place};
use ext2_image::jbd2;
use ext2_image::repair::{Change, Changes, Options, Policy, Report, UndoWriter, repair, use_backup};

use super::{Args, ERRORS_LEFT, How, backup_of, print};
use crate::clock;
use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::interrupt::Partial;
use crate::json::object;
use crate::progress::PassBar;
use crate::target::{Mode, Target};
use crate::text::count;

/// Errors were mended, as e2fsck says it.
const MENDED: u8 = 1;

/// What stops a store.
enum Stopped {
    Device(blockdev::Error),
    Undo(io::Error),
}

impl From<blockdev::Error> for Stopped {
    fn from(error: blockdev::Error) -> Self {
        Self::Device(error)
    }
}

/// Mends an image.
pub(super) fn run(args: &Args, how: How, context: &mut Context) -> Result<()> {
    let target = Target::parse_image(&args.image)?;
    let name = target.image_name();
    let mode = if args.dry_run { Mode::Read } else { Mode::Write };
    let mut asking = Asking { how, all: None };
    if !args.dry_run {
        grow(&target, args, &mut asking, context)?;
    }
    let device = target.open_device(&context.image.by_calls(), mode, Durability::Strict)?;
    let device = if args.dry_run {
        ext2_core::recovered(device).of(|| name.clone())?
    } else {
        // An image without a superblock has no log of ours.
        let _ = ext2_core::replay(&*device);
        device
    };
    let _claim = if args.dry_run { None } else { Some(device.claim(0, device.size()).of(|| name.clone())?) };
    let mut interrupted = Partial::mended(&name);
    let changes = Changes::new(&*device);
    if let Some(backup) = backup_of(&context.image, &*device, &name)? {
        use_backup(&changes, &backup).of(|| name.clone())?;
    }
    let replayed = match jbd2::replay(&changes) {
        Ok(replayed) => replayed,
        // What cannot be followed is found, and mended, with the rest.
        Err(error) => {
            context.warn(&format!("{name}: the journal was not replayed: {error}"));
            None
        }
    };
    if let Some(done) = &replayed {
        let broken = done.broken.as_ref().map_or(String::new(), |broken| format!("; {broken}"));
        let (count, blocks) = (done.transactions, done.blocks);
        context.note(&format!(
            "{name}: the journal was replayed: {count} transactions, {blocks} blocks{broken}"
        ));
        // As e2fsck: what the journal holds is one step, what the check mends another.
        if !args.dry_run && args.undo.is_none() {
            store(&changes, None, 0).of_store(&name)?;
        }
    }
    let (report, told) = find(args, &name, &changes, &mut asking, context)?;
    if told.is_err() && asking.how == How::Ask {
        // What cannot be seen was not agreed to.
        return told;
    }
    let list = if args.dry_run { changes.list().of(|| name.clone())? } else { Vec::new() };
    let mut stored = 0;
    if !args.dry_run {
        interrupted.storing();
        stored = match &args.undo {
            None => store(&changes, None, 0),
            Some(path) => {
                let file = new_file(path)?;
                let stored = store(&changes, Some(&file), target.offset());
                if matches!(stored, Ok(0)) {
                    // Nothing is to be put back.
                    let _ = std::fs::remove_file(path);
                }
                stored
            }
        }
        .of_store(&name)?;
    }
    drop(interrupted);
    // What was done is told by the exit code, too, to whom the output does not reach.
    if report.mended > 0 || replayed.is_some() {
        context.set_exit(MENDED);
    }
    if !report.clean {
        context.set_exit(context.exit_code() | ERRORS_LEFT);
    }
    told?;
    print_changes(args, &list, context)?;
    verdict(args, &name, &report, stored, list.iter().map(|change| change.new.len() as u64).sum(), context)?;
    let left = report.stopped.as_ref().map(|finding| finding.kind);
    if matches!(left, Some(Kind::QuotaFile | Kind::QuotaUsage)) {
        context.note(&format!(
            "{name}: tune2fs -O ^quota, then tune2fs -O quota, makes the files of quota anew"
        ));
    }
    Ok(())
}

/// Runs the passes; the findings are printed as they come. Also gives whether they could be.
fn find(
    args: &Args,
    name: &str,
    changes: &Changes<'_>,
    asking: &mut Asking,
    context: &mut Context,
) -> Result<(Report, Result<()>)> {
    let bar = PassBar::default();
    let policy = if asking.how == How::Preen { Policy::Preen } else { Policy::Asked };
    // OK to cast: the seconds of an unsigned field, as e2fsck writes them.
    let options = Options { now: clock::now()?.sec as u32, policy, progress: &|progress| bar.show(progress) };
    let closed = RefCell::new(None);
    let out = &mut context.out;
    let report = repair(changes, &options, &mut |finding| {
        if !args.quiet && closed.borrow().is_none() {
            let line = bar.hidden_for(|| {
                match args.json {
                    true => out.json(&print::to_json(finding)),
                    false => out.line(print::to_text(finding)),
                }?;
                // What is asked about has to be seen before the question.
                if asking.asks() { out.flush() } else { Ok(()) }
            });
            if let Err(failure) = line {
                closed.replace(Some(failure));
            }
        }
        bar.hidden_for(|| asking.wants(finding))
    });
    bar.end();
    Ok((report.of(|| name.into())?, closed.into_inner().map_or(Ok(()), Err)))
}

/// Who answers.
struct Asking {
    how: How,
    /// The answer to all that is still to come.
    all: Option<bool>,
}

impl Asking {
    /// Whether the next finding is a question to a person.
    fn asks(&self) -> bool {
        self.how == How::Ask && self.all.is_none()
    }

    fn wants(&mut self, _finding: &Finding) -> bool {
        if self.how != How::Ask {
            return true;
        }
        if let Some(all) = self.all {
            return all;
        }
        let mut line = String::new();
        loop {
            let _ = write!(io::stderr(), "mend? [y]es, [n]o, [a]ll, [q]uit: ");
            line.clear();
            // The end of the input is no yes.
            if io::stdin().lock().read_line(&mut line).unwrap_or(0) == 0 {
                self.all = Some(false);
                return false;
            }
            match line.trim() {
                "y" | "yes" | "" => return true,
                "n" | "no" => return false,
                "a" | "all" => {
                    self.all = Some(true);
                    return true;
                }
                "q" | "quit" => {
                    self.all = Some(false);
                    return false;
                }
                _ => {}
            }
        }
    }
}

/// A file that ends before the file system does gets its length back, as a hole: what was there is lost, the rest can be
/// mended.
fn grow(target: &Target, args: &Args, asking: &mut Asking, context: &mut Context) -> Result<()> {
    let device = target.open_device(&context.image.by_calls(), Mode::Read, Durability::Relaxed)?;
    let size = device.size();
    if asking.how == How::Preen || !target.can_grow() || size < SUPERBLOCK_OFFSET + 1024 {
        return Ok(());
    }
    let field = |at| device.read_u32(SUPERBLOCK_OFFSET + at).of(|| target.image_name());
    // OK to cast: the low half is the magic number.
    let (blocks, log, magic) = (u64::from(field(4)?), field(24)?, field(56)? as u16);
    let bytes = if log <= 6 { blocks << (10 + log) } else { 0 };
    // What a broken number asks for is not made: no image lost more than nine tenths and is still worth mending.
    if magic != MAGIC || bytes <= size || bytes / 10 > size {
        return Ok(());
    }
    drop(device);
    let finding = Finding {
        place: Place::Superblock,
        kind: Kind::DeviceTooSmall,
        found: Some(bytes),
        expected: Some(size),
        name: Vec::new(),
    };
    if !args.quiet && !args.json {
        context.out.line(print::to_text(&finding))?;
        context.out.flush()?;
    }
    if asking.wants(&finding) {
        let host = |error| Failure::host(&target.image, error);
        let file = OpenOptions::new().write(true).open(&target.image).map_err(host)?;
        file.set_len(target.offset() + bytes).map_err(host)?;
        context.note(&format!("{}: the file was {size} bytes long and has {bytes} now", target.image_name()));
        context.set_exit(MENDED);
    }
    Ok(())
}

fn new_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| Failure::host(path, error))
}

/// Stores the changes, and before that what they replace into a file.
fn store(changes: &Changes<'_>, undo: Option<&File>, offset: u64) -> Result<u64, Stopped> {
    let Some(file) = undo else {
        return Ok(changes.apply()?);
    };
    let mut superblock = [0; 1024];
    changes.read_at(SUPERBLOCK_OFFSET, &mut superblock)?;
    let writer = RefCell::new(Some(UndoWriter::new(file)));
    changes.store(
        &mut |at, old| match &mut *writer.borrow_mut() {
            Some(writer) => writer.add(at, old).map_err(Stopped::Undo),
            None => Ok(()),
        },
        &mut || match writer.borrow_mut().take() {
            Some(writer) => writer.finish(&superblock, offset).map_err(Stopped::Undo),
            None => Ok(()),
        },
    )
}

trait OfStore {
    fn of_store(self, name: &str) -> Result<u64>;
}

impl OfStore for Result<u64, Stopped> {
    fn of_store(self, name: &str) -> Result<u64> {
        self.map_err(|stopped| match stopped {
            Stopped::Undo(error) => {
                Failure::text(name, format!("nothing was mended: the undo file: {error}"))
            }
            Stopped::Device(error) => {
                Failure::text(name, format!("{error}; the image is half mended: run the same command again"))
            }
        })
    }
}

fn print_changes(args: &Args, list: &[Change], context: &mut Context) -> Result<()> {
    for change in list {
        // The bytes that differ, from the first to the last.
        let differs = |(old, new): (&u8, &u8)| old != new;
        let first = change.old.iter().zip(&change.new).position(differs).unwrap_or(0);
        let last = change.old.iter().zip(&change.new).rposition(differs).unwrap_or(0);
        let (offset, len) = (change.offset + first as u64, last - first + 1);
        if args.json {
            context.out.json(&object! { "store": offset, "bytes": len as u64 })?;
        } else if !args.quiet {
            context.out.line(format!("would store {} at {offset}", count(len as u64, "byte")))?;
        }
    }
    Ok(())
}

fn verdict(
    args: &Args,
    name: &str,
    report: &Report,
    stored: u64,
    would: u64,
    context: &mut Context,
) -> Result<()> {
    if args.json {
        let json = print::summary_to_json(&report.summary, report.clean)
            .with("mended", report.mended)
            .with("stored_bytes", if args.dry_run { would } else { stored })
            .with("dry_run", args.dry_run);
        return context.out.json(&json);
    }
    let did = match (args.dry_run, report.mended) {
        (_, 0) => String::new(),
        (true, mended) => {
            format!("{} would be mended, {} stored; ", count(mended, "finding"), count(would, "byte"))
        }
        (false, mended) => format!("{} mended, {} stored; ", count(mended, "finding"), count(stored, "byte")),
    };
    let end = match &report.stopped {
        _ if report.clean => print::verdict(name, &report.summary).replacen(&format!("{name}: "), "", 1),
        Some(finding) if args.preen => format!("needs a person: {finding}; check -y mends it"),
        Some(finding) => format!("is left with faults: {finding}"),
        None => "is left with faults".to_owned(),
    };
    context.out.line(format!("{name}: {did}{end}"))
}
