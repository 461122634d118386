//! `truncate`: sizes.

use std::ffi::OsString;

use ext2_core::Wait;

use crate::context::Context;
use crate::failure::{Of, Result};
use crate::images::for_each;
use crate::text::parse_bytes;

/// Set the size of files in an image; a file that grows gets a hole
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax truncate -s 0 disk.img:/var/log/messages
  e2dax truncate -s 1G disk.img:/swap")]
pub(crate) struct Args {
    /// Files; created if they do not exist
    #[arg(value_name = "IMG:/PATH", required = true)]
    targets: Vec<OsString>,

    /// The new size in bytes, or with K, M, G, T
    #[arg(short, long, value_name = "SIZE", value_parser = parse_bytes)]
    size: u64,

    /// Do not create files
    #[arg(short = 'c', long)]
    no_create: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    for_each(context, &args.targets, |context, images, target| {
        let Some(inode) = images.file(context, target, args.no_create)? else { return Ok(()) };
        inode.truncate(args.size, Wait::Yes).of(|| target.name())
    })
}
