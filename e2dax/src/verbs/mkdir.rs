//! `mkdir`: new directories.

use std::ffi::OsString;

use ext2_core::{Errno, FileKind, Follow, Inode, NewInode};

use crate::context::Context;
use crate::failure::{Of, Result};
use crate::images::for_each;
use crate::target::Target;
use crate::text::parse_octal;

/// Make directories in an image
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  e2dax mkdir -p disk.img:/srv/data/in

New directories belong to 0:0.")]
pub(crate) struct Args {
    /// Directories to make
    #[arg(value_name = "IMG:/PATH", required = true)]
    targets: Vec<OsString>,

    /// Also create the directories above; no error if it exists
    #[arg(short, long)]
    parents: bool,

    /// Permissions of the last directory, octal
    #[arg(short, long, value_name = "BITS", value_parser = parse_octal, default_value = "755")]
    mode: u16,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    for_each(context, &args.targets, |context, images, target| {
        if args.parents {
            let (_fs, root) = images.resolve(context, &target.with_path(b"/"), Follow::Yes)?;
            return make_all(args, target, root);
        }
        let (parent, name) = images.parent(context, target)?;
        parent.create(name, &NewInode::new(FileKind::Directory, args.mode)).of(|| target.name())?;
        Ok(())
    })
}

/// Makes every directory of the path that is not there.
fn make_all(args: &Args, target: &Target, root: Inode) -> Result<()> {
    let names: Vec<&[u8]> =
        target.path().split(|&byte| byte == b'/').filter(|name| !name.is_empty()).collect();
    let fs = root.fs();
    let mut path = Vec::new();
    let mut parent = root;
    for (nr, name) in names.iter().enumerate() {
        path.push(b'/');
        path.extend_from_slice(name);
        let mode = if nr + 1 == names.len() { args.mode } else { 0o755 };
        let next = match fs.resolve(&path, Follow::Yes) {
            Err(error) if error.is(Errno::NOENT) => {
                parent.create(name, &NewInode::new(FileKind::Directory, mode))
            }
            other => other,
        };
        parent = next.of(|| target.name_of(&path))?;
    }
    if parent.kind() != FileKind::Directory {
        return Err(ext2_core::Error::Caller(Errno::EXIST, "")).of(|| target.name());
    }
    Ok(())
}
