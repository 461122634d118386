//! `cp`: files from images.

mod host;
mod out;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ext2_core::{FileKind, Follow};

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::target::{Mode, Target};

/// Copy files out of an image
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax cp disk.img:/etc/passwd .
  e2dax cp -r disk.img:/etc /tmp/etc
  e2dax cp -r disk.img@p2: /tmp/all

Into a directory that is there files go under their own names; else the last argument is the new name. The root
has no name: what is in it goes into the directory. Holes, permissions, times, links between the files and extended
attributes are kept, and by root the owners. Names in an image are never followed out of the directory.")]
pub(crate) struct Args {
    /// What to copy, each as IMG:/path
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<OsString>,

    /// Where to: a directory or a new name
    #[arg(value_name = "DESTINATION")]
    destination: OsString,

    /// Directories with all that is in them; links are copied as links
    #[arg(short, long, visible_short_alias = 'R', visible_short_alias = 'a')]
    recursive: bool,
}

/// An argument.
enum Place {
    Image(Target),
    Host(PathBuf),
}

impl Place {
    fn of(argument: &OsStr) -> Self {
        match Target::parse_inside(argument) {
            Some(target) => Self::Image(target),
            None => Self::Host(argument.into()),
        }
    }
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let destination = match Place::of(&args.destination) {
        Place::Host(path) => path,
        Place::Image(_) => {
            return Err(Failure::usage(&args.destination, "copying into an image is not supported"));
        }
    };
    let is_dir = destination.is_dir();
    if args.sources.len() > 1 && !is_dir {
        return Err(Failure::usage(&args.destination, "is no directory to copy several files into"));
    }
    for source in &args.sources {
        let copied = match Place::of(source) {
            Place::Image(target) => out(args, context, &target, &destination, is_dir),
            Place::Host(_) => Err(not_inside(source)),
        };
        context.or_complain(copied)?;
    }
    Ok(())
}

/// Why a source that should be in an image is not.
fn not_inside(source: &OsStr) -> Failure {
    match Target::parse(source) {
        Ok(_) => Failure::usage(source, "name what to copy as IMG:/path; IMG: is all of it"),
        Err(failure) => failure,
    }
}

/// Out of an image.
fn out(args: &Args, context: &mut Context, target: &Target, destination: &Path, is_dir: bool) -> Result<()> {
    let follow = if args.recursive { Follow::No } else { Follow::Yes };
    let (_fs, start) = target.resolve(&context.image, Mode::Read, follow)?;
    if start.kind() == FileKind::Directory && !args.recursive {
        return Err(Failure::text(target.name(), "is a directory; -r copies it"));
    }
    if is_dir {
        return out::copy(context, target, &start, destination, last_name(target.path()));
    }
    let Some(name) = destination.file_name() else {
        return Err(Failure::host(destination, std::io::ErrorKind::NotFound));
    };
    let parent = match destination.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    out::copy(context, target, &start, parent, Some(name.as_bytes()))
}

/// The name that a path ends in, if that is one: not of the root, nor of a path that ends in dots.
fn last_name(path: &[u8]) -> Option<&[u8]> {
    let name = path.rsplit(|&byte| byte == b'/').find(|name| !name.is_empty())?;
    (name != b"." && name != b"..").then_some(name)
}
