//! `truncate`: sizes.

use std::ffi::OsString;

use ext2_core::{Errno, FileKind, Follow, NewInode, Wait};

use crate::context::Context;
use crate::failure::{Of, Result};
use crate::images::for_each;
use crate::text::parse_bytes;

/// Set the size of files in an image; what is added is a hole
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax truncate -s 0 disk.img:/var/log/messages
  e2dax truncate -s 1G disk.img:/swap")]
pub(crate) struct Args {
    /// Files; one that is not there is made
    #[arg(value_name = "IMG:/PATH", required = true)]
    targets: Vec<OsString>,

    /// The new size in bytes, or with K, M, G, T
    #[arg(short, long, value_name = "SIZE", value_parser = parse_bytes)]
    size: u64,

    /// Do not make files
    #[arg(short = 'c', long)]
    no_create: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    for_each(context, &args.targets, |context, images, target| {
        let fs = images.get(context, target)?;
        let inode = match fs.resolve(target.path(), Follow::Yes) {
            Err(error) if error.is(Errno::NOENT) && args.no_create => return Ok(()),
            Err(error) if error.is(Errno::NOENT) => {
                let (parent, name) = images.parent(context, target)?;
                parent.create(name, &NewInode::new(FileKind::Regular, 0o644))
            }
            other => other,
        };
        inode.and_then(|inode| inode.truncate(args.size, Wait::Yes)).of(|| target.name())
    })
}
