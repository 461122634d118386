//! `tar`: an image as an archive.

use std::ffi::OsString;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use ext2_core::Follow;
use ext2_image::tar::{self, Report};

use crate::beside::{NewFile, Output};
use crate::context::Context;
use crate::failure::{Cause, Failure, Result};
use crate::interrupt::Partial;
use crate::progress::bytes_bar;
use crate::target::{Mode, Target, is_same_file};
use crate::text::show_os;

/// Write an image, or a part of it, as a tar archive
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax tar a.img -o a.tar
  e2dax tar a.img:/etc | tar -tv
  e2dax tar a.img | zstd >a.tar.zst

The archive is in the PAX format, with holes, times to the nanosecond, extended attributes, ACLs and flags. The same
files give the same bytes. Sockets, which no archive holds, are left out with a note. An archive of a whole image
records in a comment what the image was like: `e2dax mkfs --from` makes the same image of it again, bit for bit if
mkfs made it and nothing has changed since.")]
pub(crate) struct Args {
    /// What to write: an image, or a directory or file in it
    #[arg(value_name = "IMG:/PATH")]
    target: OsString,

    /// The archive [default: the standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Replace an existing archive
    #[arg(long, short, requires = "output")]
    force: bool,
}

/// Bytes gathered before they are written.
const BUFFER: usize = 256 << 10;

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse(&args.target)?;
    let (fs, inode) = target.resolve(&context.image, Mode::Read, Follow::No)?;
    let write = |out: &mut dyn Write| {
        let bar = bytes_bar("writing", fs.superblock().blocks_count.into());
        bar.set_length(used_bytes(&fs));
        let report = tar::write(&inode, target.path(), out, &mut |done| bar.set_position(done));
        bar.finish_and_clear();
        report
    };
    let report = match args.output.as_ref().filter(|path| path.as_os_str() != "-") {
        Some(path) if is_same_file(path, &target.image) => {
            let what = "is the image that goes into the archive: name another file";
            return Err(Failure::text(show_os(path.as_os_str()), what));
        }
        Some(path) => {
            let archive = open(path, args.force, context.image.wait)?;
            let partial = archive.is_in_place().then(|| Partial::named(path));
            let mut out = BufWriter::with_capacity(BUFFER, archive.file());
            let report = write(&mut out).and_then(|report| Ok(out.flush().map(|()| report)?));
            let report =
                report.map_err(|error| failed(&target, error, |error| Failure::host(path, error)))?;
            drop((out, partial));
            archive.publish()?;
            report
        }
        None => {
            let stdout = std::io::stdout();
            if stdout.is_terminal() {
                return Err(Failure::text(
                    "standard output",
                    "is a terminal: an archive goes to a file or a pipe",
                ));
            }
            let mut out = BufWriter::with_capacity(BUFFER, stdout.lock());
            let report = write(&mut out).and_then(|report| Ok(out.flush().map(|()| report)?));
            report.map_err(|error| {
                failed(&target, error, |error| Failure::new("standard output", Cause::Output(error)))
            })?
        }
    };
    tell(&target, &report, context);
    Ok(())
}

fn tell(target: &Target, report: &Report, context: &Context) {
    for left in &report.left_out {
        context.note(&format!("{}: left out: {}", target.name_of(&left.path), left.what));
    }
}

/// What the archive is written to: nothing is lost of a tape or a pipe.
fn open(path: &Path, force: bool, wait: bool) -> Result<NewFile> {
    let output = Output::find(path)?;
    if !output.is_passage() {
        output.need_force(force)?;
    }
    output.open(false, wait)
}

fn used_bytes(fs: &ext2_core::Ext2) -> u64 {
    let superblock = fs.superblock();
    let used = superblock.blocks_count.saturating_sub(superblock.free_blocks);
    u64::from(used) * superblock.block_size.bytes()
}

fn failed(target: &Target, error: tar::Error, output: impl FnOnce(std::io::Error) -> Failure) -> Failure {
    match error {
        tar::Error::File { path, error } => Failure::new(target.name_of(&path), error),
        tar::Error::Changed { path, what } => Failure::text(target.name_of(&path), what),
        tar::Error::Output(error) => output(error),
        other => Failure::text(target.image_name(), other.to_string()),
    }
}
