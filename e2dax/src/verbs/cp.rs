//! `cp`: out of images, into images, and from one place in an image to another.

mod pour;
mod told;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use ext2_core::{FileKind, Follow, Inode};
use ext2_image::copy::{self, Destination, duplicate, extract, extract_size, insert, insert_size};

use crate::context::Context;
use crate::describe::{last_name, parent_path};
use crate::failure::{Failure, Of, Result};
use crate::images::{Images, change_much, refuse_a_slash};
use crate::interrupt::Partial;
use crate::target::{Mode, Target, is_same_file};
use crate::text::show_os;
use crate::verbs::chown::parse_owner;
use told::{Side, Told};

/// Copy files out of images, into images, or within an image
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax cp disk.img:/etc/passwd .
  e2dax cp -r disk.img:/etc /tmp/etc
  e2dax cp -r disk.img@p2: /tmp/all
  e2dax cp -r --owner 0:0 build/root/. disk.img:/
  e2dax cp -r --rescue broken.img: /tmp/saved    what can be read of an image that is cut off or broken
  e2dax cp disk.img:/etc/passwd disk.img:/etc/passwd.old

Files copied into an existing directory keep their names; otherwise the last argument is the new name. The root of
an image has no name: its contents are copied. Holes, permissions, times, hard links between the files, extended
attributes and owners are kept; on this machine only root can set owners. Existing files are replaced, existing
directories are merged; a device or pipe that is named stays, and gets the bytes. Without -r, what
comes out of a pipe is copied. Names in an image cannot lead out of the destination.")]
pub(crate) struct Args {
    /// What to copy: IMG:/path, or a file of this machine
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<OsString>,

    /// Where to: IMG:/path, or a place of this machine; a directory or a new name
    #[arg(value_name = "DESTINATION")]
    destination: OsString,

    /// Copy directories and everything in them; symbolic links are copied as links
    #[arg(short, long, visible_short_alias = 'R', visible_short_alias = 'a')]
    recursive: bool,

    /// Owner of files copied into an image (UID, UID:GID or :GID), instead of their own
    #[arg(long, value_name = "OWNER", value_parser = parse_owner)]
    owner: Option<copy::Owner>,
}

/// What is said of a directory without -r.
const NEEDS_RECURSIVE: &str = "is a directory; -r copies it";

impl Args {
    /// Whether a link at the end of a source is followed.
    fn follow(&self) -> Follow {
        if self.recursive { Follow::No } else { Follow::Yes }
    }

    /// Refuses directories without -r.
    fn check_kind(&self, start: &Inode, name: impl FnOnce() -> String) -> Result<()> {
        match start.kind() {
            FileKind::Directory if !self.recursive => Err(Failure::text(name(), NEEDS_RECURSIVE)),
            _ => Ok(()),
        }
    }
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
    let is_host = |argument: &OsString| matches!(Place::of(argument), Place::Host(_));
    match Place::of(&args.destination) {
        Place::Image(target) => {
            change_much(context, |context, images| into_image(args, context, images, &target))
        }
        Place::Host(_) if args.sources.iter().all(is_host) && args.sources.iter().all(is_there) => {
            Err(Failure::usage(&args.destination, "name a place in an image as IMG:/path; IMG: is all of it"))
        }
        Place::Host(path) => out_of_images(args, context, &path),
    }
}

fn is_there(path: &OsString) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// To a place of this machine.
fn out_of_images(args: &Args, context: &mut Context, destination: &Path) -> Result<()> {
    let is_dir = destination.is_dir();
    if args.sources.len() > 1 && !is_dir {
        return Err(Failure::usage(&args.destination, "is no directory to copy several files into"));
    }
    for source in &args.sources {
        let copied = match Place::of(source) {
            Place::Image(target) => out(args, context, &target, destination, is_dir),
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

/// One source.
fn out(args: &Args, context: &mut Context, target: &Target, destination: &Path, is_dir: bool) -> Result<()> {
    let (_fs, start) = target.resolve(&context.image, Mode::Read, args.follow())?;
    args.check_kind(&start, || target.name())?;
    let (into, name) = match destination.file_name() {
        _ if is_dir => (destination, last_name(target.path())),
        None => return Err(Failure::host(destination, std::io::ErrorKind::NotFound)),
        Some(name) => match destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => (parent, Some(name.as_bytes())),
            _ => (Path::new("."), Some(name.as_bytes())),
        },
    };
    if !is_dir && start.kind() != FileKind::Directory {
        refuse_a_slash(destination.as_os_str().as_bytes(), || show_os(destination.as_os_str()))?;
    }
    let place = name.map_or_else(|| into.to_path_buf(), |name| into.join(OsStr::from_bytes(name)));
    if would_replace(&place, &start, target) {
        let what = "is the image itself, and would be replaced: name another place";
        return Err(Failure::text(show_os(place.as_os_str()), what));
    }
    if start.kind() == FileKind::Regular && pour::takes_bytes(&place) {
        return pour::pour(&start, target, &place);
    }
    let mut told = Told::new(context, Side::Image(target), Side::Host, || extract_size(&start));
    let partial = Partial::named(destination);
    let done = extract(&start, target.path(), into, name, &mut told);
    drop(partial);
    told.end(done)
}

/// Whether a copy to that place would take the place of the image that it comes out of.
fn would_replace(place: &Path, start: &Inode, target: &Target) -> bool {
    if start.kind() != FileKind::Directory {
        return is_same_file(place, &target.image);
    }
    let (Ok(place), Ok(image)) = (place.canonicalize(), target.image.canonicalize()) else { return false };
    // However deep below that place the image lies.
    let within = image.strip_prefix(place).map(|path| path.as_os_str().as_bytes());
    within.is_ok_and(|path| start.fs().resolve_from(start.clone(), path, Follow::No).is_ok())
}

/// To a place in an image.
fn into_image(args: &Args, context: &mut Context, images: &mut Images, destination: &Target) -> Result<()> {
    let fs = images.get(context, destination)?;
    let there =
        destination.find_in(&fs, Follow::Yes).ok().filter(|there| there.kind() == FileKind::Directory);
    if args.sources.len() > 1 && there.is_none() {
        return Err(Failure::usage(&args.destination, "is no directory to copy several files into"));
    }
    for source in &args.sources {
        let copied = into_one(args, context, images, destination, there.as_ref(), source);
        context.or_complain(copied)?;
    }
    Ok(())
}

/// One source. `there` is the destination, if it is a directory.
fn into_one(
    args: &Args,
    context: &mut Context,
    images: &mut Images,
    destination: &Target,
    there: Option<&Inode>,
    source: &OsStr,
) -> Result<()> {
    let (parent, above, new_name) = match there {
        Some(there) => (there.clone(), destination.path().to_vec(), None),
        None => {
            let (parent, name) = images.parent(context, destination)?;
            (parent, parent_path(destination.path()).to_vec(), Some(name))
        }
    };
    let into =
        |name| Destination { directory: &parent, path: &above, name, owner: args.owner.unwrap_or_default() };
    match Place::of(source) {
        Place::Host(path) => {
            let meta =
                if args.recursive { std::fs::symlink_metadata(&path) } else { std::fs::metadata(&path) };
            let meta = meta.map_err(|error| Failure::host(&path, error))?;
            if meta.is_dir() && !args.recursive {
                return Err(Failure::text(path.display().to_string(), NEEDS_RECURSIVE));
            }
            if meta.is_file() && is_same_file(&path, &destination.image) {
                let what = "is the image itself, and cannot be copied into it";
                return Err(Failure::text(show_os(path.as_os_str()), what));
            }
            if new_name.is_some() && !meta.is_dir() {
                refuse_a_slash(destination.path(), || destination.name())?;
            }
            let name = new_name.or_else(|| last_name(path.as_os_str().as_bytes()));
            // Without -r what comes out of a pipe is copied, and not the pipe.
            let gathered =
                if meta.file_type().is_fifo() && !args.recursive { Some(pour::gather(&path)?) } else { None };
            let path = gathered.as_ref().map_or_else(|| path.clone(), pour::path_of);
            let mut told = Told::new(context, Side::Host, Side::Image(destination), || insert_size(&path));
            // Without -r what a link leads to is copied.
            let done = insert(&path, !args.recursive, &into(name), &mut told);
            told.end(done)
        }
        Place::Image(target) => {
            let (_fs, start) = if target.is_same_image(destination) {
                let fs = images.get(context, &target)?;
                let start = target.find_in(&fs, args.follow()).of(|| target.name())?;
                (fs, start)
            } else {
                target.resolve(&context.image, Mode::Read, args.follow())?
            };
            args.check_kind(&start, || target.name())?;
            if new_name.is_some() && start.kind() != FileKind::Directory {
                refuse_a_slash(destination.path(), || destination.name())?;
            }
            let name = new_name.or_else(|| last_name(target.path()));
            let sides = (Side::Image(&target), Side::Image(destination));
            let mut told = Told::new(context, sides.0, sides.1, || extract_size(&start));
            let done = duplicate(&start, target.path(), &into(name), &mut told);
            told.end(done)
        }
    }
}
