//! `undo`: putting back what a repair stored over.

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;

use blockdev::Durability;
use ext2_image::repair::play;

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::interrupt::Partial;
use crate::target::{Mode, Target};

/// Undo a repair
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax check -y --undo a.undo a.img
  e2dax undo a.undo a.img

The file may also be one of e2fsprogs (e2fsck -z, tune2fs -z, resize2fs -z, mke2fs -z), and e2undo plays one of
ours. It is refused if the image has changed since, or is another image. Undo several repairs in reverse order.")]
pub(crate) struct Args {
    /// The undo file
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    /// Undo it even if the image has changed since
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse_image(&args.image)?;
    let file = File::open(&args.file).map_err(|error| Failure::host(&args.file, error))?;
    let device = target.open_device(&context.image, Mode::Write, Durability::Strict)?;
    let _claim = device.claim(0, device.size()).of(|| target.image_name())?;
    let _interrupted = Partial::put_back(&target.image_name());
    let bytes = play(&file, &*device, args.force).map_err(|error| Failure::host(&args.file, error))?;
    context.note(&format!("{}: put back {}", target.image_name(), crate::text::count(bytes, "byte")));
    Ok(())
}
