//! `manifest`: a tree as text, and the comparison with such a text.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ext2_image::manifest::{Difference, Manifest, VERSION, diff, diff_entries, parse};

use crate::context::Context;
use crate::failure::{FAILED, Failure, Result, TROUBLE};
use crate::json::{Json, object};
use crate::side::{Part, Side, file_system_of, without};

/// Print an image, a directory or an archive as text, one line per file, or compare it with such a text
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax manifest disk.img > disk.manifest
  e2dax manifest --check disk.manifest disk.img
  e2dax manifest disk.img:/etc               a part of it, as if it were the root
  e2dax manifest --without times rootfs.tar.gz
  diff <(e2dax manifest a.img) <(e2dax manifest b.img)

The format is described in docs/formats.md. --check prints each difference, FILE on the left. Exit code: 0 the same,
1 different, 2 trouble.")]
pub(crate) struct Args {
    /// The image, a directory in it (IMG:/path) or on this machine, an archive
    #[arg(value_name = "IMG[:/PATH]")]
    image: OsString,

    /// Compare with this manifest; - is the standard input
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,

    /// What to ignore; several are separated by commas
    #[arg(long, value_name = "PARTS", value_delimiter = ',')]
    without: Vec<Part>,

    /// With --check, print a JSON object for each difference
    #[arg(long, requires = "check")]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let done = look(args, context).and_then(|()| context.out.flush());
    match done {
        Err(failure) if args.check.is_some() && !failure.is_closed_output() => {
            context.complain(&failure);
            context.lower_exit(TROUBLE);
            Ok(())
        }
        done => done,
    }
}

fn look(args: &Args, context: &mut Context) -> Result<()> {
    let side = Side::open(&args.image, context)?;
    let parts = without(&args.without);
    let own = side.file_system();
    // Read before the walk, which may take long.
    let expected = args.check.as_deref().map(read).transpose()?;
    let Some(expected) = expected else {
        // The line of the version, and what the file system is.
        if own.filesystem().is_empty() {
            context.out.line(format_args!("e2dax-manifest {VERSION}"))?;
        } else {
            context.out.text(&own)?;
        }
        return side.entries()?.try_for_each(|entry| context.out.line(parts.of(entry?)));
    };
    let mut differences = diff(&file_system_of(&expected), &own);
    let lost = !side.has_blocks();
    let parts = ext2_image::manifest::Without { holes: parts.holes || lost, ..parts };
    let left = expected.into_entries().into_iter().map(|entry| Ok(parts.of(entry)));
    let right = side.entries()?.map(|entry| entry.map(|entry| parts.of(entry)));
    let mut printed = Ok(());
    for difference in differences.drain(..) {
        print(args.json, context, &difference)?;
    }
    diff_entries(left, right, &mut |difference| {
        if printed.is_ok() {
            printed = print(args.json, context, &difference);
        }
    })?;
    printed
}

/// A difference, on a line of its own.
pub(super) fn print(json: bool, context: &mut Context, difference: &Difference) -> Result<()> {
    context.set_exit(FAILED);
    if json { context.out.json(&to_json(difference)) } else { context.out.line(difference) }
}

/// Reads a manifest.
fn read(path: &Path) -> Result<Manifest> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| Failure::host(path, error))?;
    parse(&text).map_err(|error| Failure::text(path.display().to_string(), error.to_string()))
}

fn to_json(difference: &Difference) -> Json {
    object! {
        "path": Json::bytes(&difference.path),
        "field": difference.field.as_str(),
        "left": difference.left.as_str(),
        "right": difference.right.as_str(),
    }
}
