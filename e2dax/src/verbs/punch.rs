//! `punch`: holes.

use std::ffi::OsString;

use ext2_core::{Follow, Wait};

use crate::context::Context;
use crate::failure::{Of, Result};
use crate::images::change;
use crate::target::Target;
use crate::text::parse_bytes;

/// Turn a part of a file in an image into a hole
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  e2dax punch --at 2M --len 2M disk.img:/data

Whole blocks are freed; the rest of the range is zeroed. The size does not change.")]
pub(crate) struct Args {
    /// The file
    #[arg(value_name = "IMG:/PATH")]
    target: OsString,

    /// The first byte
    #[arg(long, value_name = "OFFSET", value_parser = parse_bytes)]
    at: u64,

    /// How many bytes
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    len: u64,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse(&args.target)?;
    change(context, |context, images| {
        let (_fs, inode) = images.resolve(context, &target, Follow::Yes)?;
        inode.punch_hole(args.at, args.len, Wait::Yes).of(|| target.name())
    })
}
