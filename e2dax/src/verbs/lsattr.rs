//! `lsattr`: flags of inodes.

use std::ffi::OsString;

use ext2_core::{FileKind, Follow, Inode, InodeFlags};
use ext2_image::Walk;

use crate::context::Context;
use crate::describe::join;
use crate::failure::{Failure, Of, Result};
use crate::json::{Json, object};
use crate::target::{Mode, Target};
use crate::text::show;

/// Show flags of files in an image
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax lsattr disk.img:/etc
  e2dax lsattr -d disk.img:/etc
  e2dax lsattr -R --json disk.img

Letters as in chattr; I is a hashed directory.")]
pub(crate) struct Args {
    /// Files; of a directory, its contents
    #[arg(value_name = "IMG:/PATH", required = true)]
    targets: Vec<OsString>,

    /// Directories themselves, not what is in them
    #[arg(short = 'd', long, conflicts_with = "recursive")]
    directory: bool,

    /// Everything below
    #[arg(short = 'R', long)]
    recursive: bool,

    /// Print a JSON object for each file
    #[arg(long)]
    json: bool,
}

/// Letters in the order of lsattr(1).
const LETTERS: &str = "suSDiadAcjItT";

/// The flags as lsattr(1) prints them: a letter or a dash for each.
fn letters(flags: InodeFlags) -> String {
    let is_set = |letter: char| match letter {
        'I' => flags.contains(InodeFlags::INDEX),
        _ => InodeFlags::from_letter(letter).is_some_and(|flag| flags.contains(flag)),
    };
    LETTERS.chars().map(|letter| if is_set(letter) { letter } else { '-' }).collect()
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    for argument in &args.targets {
        let done = Target::parse(argument).and_then(|target| list(args, context, &target));
        context.or_complain(done)?;
    }
    Ok(())
}

fn list(args: &Args, context: &mut Context, target: &Target) -> Result<()> {
    let (_, inode) = target.resolve(&context.image, Mode::Read, Follow::No)?;
    if inode.kind() != FileKind::Directory || args.directory {
        return print(args, context, target.path(), &inode);
    }
    if args.recursive {
        for step in Walk::new(&inode, target.path()) {
            match step {
                Ok(found) => print(args, context, &found.path, &found.inode)?,
                Err(error) => context.complain(&Failure::new(target.name_of(&error.path), error.error)),
            }
        }
        return Ok(());
    }
    let mut entries = inode.entries(0).of(|| target.name())?;
    while let Some(entry) = entries.next() {
        let entry = entry.of(|| target.name())?;
        if entry.name.is_dots() {
            continue;
        }
        let path = join(target.path(), &entry.name);
        let child = entries.inode(&entry).of(|| target.name_of(&path));
        if let Some(Some(child)) = context.or_complain(child)? {
            print(args, context, &path, &child)?;
        }
    }
    Ok(())
}

fn print(args: &Args, context: &mut Context, path: &[u8], inode: &Inode) -> Result<()> {
    let flags = inode.attr().flags & InodeFlags::VISIBLE;
    if args.json {
        return context.out.json(&object! {
            "path": Json::bytes(path),
            "flags": letters(flags).replace('-', ""),
            "bits": flags.bits(),
        });
    }
    context.out.line(format_args!("{} {}", letters(flags), show(path)))
}
