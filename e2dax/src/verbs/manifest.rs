//! `manifest`: an image as text, and the comparison with such a text.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ext2_image::manifest::{Difference, Manifest, diff, from_image, parse};

use crate::context::Context;
use crate::failure::{FAILED, Failure, Of, Result};
use crate::json::{Json, object};
use crate::target::{Mode, Target};

/// Print an image as text, one line per file, or compare it with such a text
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax manifest disk.img > disk.manifest
  e2dax manifest --check disk.manifest disk.img
  diff <(e2dax manifest a.img) <(e2dax manifest b.img)

The format is described in docs/formats.md. --check prints each difference, FILE on the left, and exits with 1 if
there is one.")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    /// Compare with this manifest; - is the standard input
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,

    /// With --check, print a JSON object for each difference
    #[arg(long, requires = "check")]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse(&args.image)?;
    let fs = target.open(&context.image, Mode::Read)?;
    // Read before the walk, which may take long.
    let expected = args.check.as_deref().map(read).transpose()?;
    let found = from_image(&fs).of(|| target.image_name())?;
    let Some(expected) = expected else {
        return context.out.text(found);
    };
    for difference in diff(&expected, &found) {
        context.set_exit(FAILED);
        if args.json {
            context.out.json(&to_json(&difference))?;
        } else {
            context.out.line(difference)?;
        }
    }
    Ok(())
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
