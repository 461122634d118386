//! `rm`: names and what they name.

use std::collections::BTreeSet;
use std::ffi::OsString;

use ext2_core::{Errno, FileKind, Inode};

use crate::context::Context;
use crate::describe::{join, push_name};
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
    // One directory after the other, so that a deep tree needs no deep stack, and one path for all of them.
    let mut path = path.to_vec();
    let mut open = vec![Open { len: path.len(), directory: directory.clone(), name: Vec::new() }];
    let mut above = BTreeSet::from([directory.nr()]);
    while let Some(last) = open.last() {
        path.truncate(last.len);
        match files_first(target, &path, &last.directory)? {
            Some((child, name)) => {
                push_name(&mut path, &name);
                if !above.insert(child.nr()) {
                    let what =
                        format!("the image is broken: directory inode {} is inside itself", child.nr());
                    return Err(Failure::broken(target.name_of(&path), what));
                }
                open.push(Open { len: path.len(), directory: child, name });
            }
            None => {
                let Some(done) = open.pop() else { break };
                above.remove(&done.directory.nr());
                if let Some(parent) = open.last() {
                    parent.directory.rmdir(&done.name).of(|| target.name_of(&path))?;
                }
            }
        }
    }
    Ok(())
}

/// A directory that is being emptied.
struct Open {
    /// How much of the path of the innermost is its own.
    len: usize,
    directory: Inode,
    name: Vec<u8>,
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
