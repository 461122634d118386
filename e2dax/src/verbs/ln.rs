//! `ln`: further names, and symbolic links.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use ext2_core::{FileKind, Follow, NewInode};

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::images::change;
use crate::target::Target;

/// Make links in an image
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax ln disk.img:/bin/ping disk.img:/bin/ping6
  e2dax ln -s ../lib/libc.so.6 disk.img:/lib64/libc.so")]
pub(crate) struct Args {
    /// The file, as IMG:/path; with -s, the target of the link
    #[arg(value_name = "FILE")]
    file: OsString,

    /// The new name
    #[arg(value_name = "IMG:/PATH")]
    name: OsString,

    /// A symbolic link
    #[arg(short, long)]
    symbolic: bool,

    /// Replace an existing file
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse(&args.name)?;
    change(context, |context, images| {
        let (parent, name) = images.parent_of_file(context, &target)?;
        let file = if args.symbolic {
            None
        } else {
            let file = Target::parse(&args.file)?;
            if !file.is_same_image(&target) {
                return Err(Failure::text(file.name(), "is in another image than its new name"));
            }
            Some(images.resolve(context, &file, Follow::No)?.1)
        };
        if args.force && parent.lookup(name).is_ok_and(|there| Some(&there) != file.as_ref()) {
            parent.unlink(name).of(|| target.name())?;
        }
        match file {
            Some(file) => parent.link(&file, name).of(|| target.name()),
            None => {
                let new = NewInode::new(FileKind::Symlink, 0o777);
                parent.symlink(name, args.file.as_bytes(), &new).of(|| target.name()).map(drop)
            }
        }
    })
}
