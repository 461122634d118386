//! `mv`: other names, in one image.

use std::ffi::OsString;

use ext2_core::{FileKind, Follow, RenameFlags};

use crate::context::Context;
use crate::describe::{join, last_name};
use crate::failure::{Failure, Of, Result};
use crate::images::{change, refuse_a_slash};
use crate::target::Target;

/// Rename files in an image
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax mv disk.img:/a disk.img:/b
  e2dax mv disk.img:/a disk.img:/b disk.img:/directory
  e2dax mv --exchange disk.img:/current disk.img:/next")]
pub(crate) struct Args {
    /// What to rename
    #[arg(value_name = "IMG:/PATH", required = true)]
    sources: Vec<OsString>,

    /// The new name, or a directory to move into
    #[arg(value_name = "IMG:/PATH")]
    destination: OsString,

    /// Fail if the new name exists
    #[arg(short, long, conflicts_with = "exchange")]
    no_clobber: bool,

    /// Exchange the two names
    #[arg(long)]
    exchange: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let destination = Target::parse(&args.destination)?;
    let flags = match (args.no_clobber, args.exchange) {
        (true, _) => RenameFlags::NOREPLACE,
        (_, true) => RenameFlags::EXCHANGE,
        _ => RenameFlags::empty(),
    };
    change(context, |context, images| {
        let fs = images.get(context, &destination)?;
        let there = destination.find_in(&fs, Follow::Yes).ok();
        let is_dir = there.is_some_and(|there| there.kind() == FileKind::Directory) && !args.exchange;
        if args.sources.len() > 1 && !is_dir {
            return Err(Failure::usage(&args.destination, "is no directory to move several files into"));
        }
        for argument in &args.sources {
            let moved = Target::parse(argument).and_then(|source| {
                if !source.is_same_image(&destination) {
                    let what = "is in another image than the destination: copy and remove";
                    return Err(Failure::text(source.name(), what));
                }
                let to = match last_name(source.path()) {
                    Some(name) if is_dir => destination.with_path(&join(destination.path(), name)),
                    _ => destination.clone(),
                };
                let (old_dir, old) = images.parent(context, &source)?;
                let (new_dir, new) = images.parent(context, &to)?;
                if old_dir.lookup(old).is_ok_and(|moved| moved.kind() != FileKind::Directory) {
                    refuse_a_slash(to.path(), || to.name())?;
                }
                fs.rename(&old_dir, old, &new_dir, new, flags)
                    .of(|| format!("{} to {}", source.name(), to.name()))
            });
            context.or_complain(moved)?;
        }
        Ok(())
    })
}
