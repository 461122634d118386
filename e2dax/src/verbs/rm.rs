//! `rm`: names and what they name.

use std::ffi::OsString;

use ext2_core::{Errno, FileKind, Inode};

use crate::context::Context;
use crate::describe::join;
use crate::failure::{Failure, Of, Result};
use crate::images::for_each;
use crate::target::Target;

/// Remove files from an image
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax rm disk.img:/var/log/messages
  e2dax rm -r disk.img:/tmp/old")]
pub(crate) struct Args {
    /// What to remove
    #[arg(value_name = "IMG:/PATH", required = true)]
    targets: Vec<OsString>,

    /// Directories with all that is in them
    #[arg(short, long)]
    recursive: bool,

    /// Empty directories
    #[arg(short, long)]
    dir: bool,

    /// No error if it does not exist
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    for_each(context, &args.targets, |context, images, target| {
        let (parent, name) = images.parent(context, target)?;
        let inode = match parent.lookup(name) {
            Err(error) if args.force && error.is(Errno::NOENT) => return Ok(()),
            other => other.of(|| target.name())?,
        };
        if inode.kind() != FileKind::Directory {
            return parent.unlink(name).of(|| target.name());
        }
        if args.recursive {
            empty(target, target.path(), &inode)?;
        } else if !args.dir {
            return Err(Failure::text(target.name(), "is a directory; -r removes it with all that is in it"));
        }
        parent.rmdir(name).of(|| target.name())
    })
}

/// Removes everything in a directory. What is removed is not walked by path: no link is followed.
fn empty(target: &Target, path: &[u8], directory: &Inode) -> Result<()> {
    // One directory after the other, so that a deep tree needs no deep stack.
    let mut open = vec![(path.to_vec(), directory.clone(), Vec::new())];
    while let Some((path, directory, name)) = open.pop() {
        let inside = files_first(target, &path, &directory)?;
        match inside {
            Some((child, child_name)) => {
                let child_path = join(&path, &child_name);
                open.push((path, directory, name));
                if open.iter().any(|(_, above, _)| above.nr() == child.nr()) {
                    let what =
                        format!("the image is broken: directory inode {} is inside itself", child.nr());
                    return Err(Failure::broken(target.name_of(&child_path), what));
                }
                open.push((child_path, child, child_name));
            }
            None => {
                if let Some((above_path, above, _)) = open.last() {
                    above.rmdir(&name).of(|| target.name_of(&join(above_path, &name)))?;
                }
            }
        }
    }
    Ok(())
}

/// Removes all files of a directory, and gives the first directory in it, if there is one.
fn files_first(target: &Target, path: &[u8], directory: &Inode) -> Result<Option<(Inode, Vec<u8>)>> {
    for entry in directory.entries(0).of(|| target.name_of(path))? {
        let entry = entry.of(|| target.name_of(path))?;
        if entry.name == b"." || entry.name == b".." {
            continue;
        }
        let child = directory.lookup(&entry.name).of(|| target.name_of(&join(path, &entry.name)))?;
        if child.kind() == FileKind::Directory {
            return Ok(Some((child, entry.name.into_bytes())));
        }
        directory.unlink(&entry.name).of(|| target.name_of(&join(path, &entry.name)))?;
    }
    Ok(None)
}
