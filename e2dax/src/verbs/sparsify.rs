//! `sparsify`: holes in the image's file.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;

use ext2_image::sparsify::sparsify;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::json::{Json, object};
use crate::settle::open_settled;
use crate::stop::{Stop, explained};

/// Punch holes into an image's file where it holds nothing: unused blocks, and blocks of zeros
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  e2dax sparsify disk.img

Files in the image read the same afterwards. It can be stopped at any time and run again.")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let (target, device, _) = open_settled(&args.image, context)?;
    let name = target.image_name();
    let room = || -> Result<u64> {
        let meta = std::fs::metadata(&target.image).map_err(|error| Failure::host(&target.image, error))?;
        Ok(meta.blocks() * 512)
    };
    let before = room()?;
    let stop = Stop::new();
    let done = stop.watched(|watch| sparsify(&*device, &watch));
    let done = explained(done, &name, "run it again to go on")?;
    let after = room()?;
    if args.json {
        return context.out.json(&object! {
            "image": Json::bytes(name.as_bytes()),
            "allocated_before": before,
            "allocated": after,
            "free": done.free,
            "zero": done.zero,
        });
    }
    context.out.line(format_args!("{name}: takes {after} bytes of its disk; took {before}"))
}
