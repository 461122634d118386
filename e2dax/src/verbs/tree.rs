//! `tree`: directories as a drawing.

use std::ffi::OsString;

use ext2_core::{FileKind, Follow};
use ext2_image::{Found, Walk};

use crate::context::Context;
use crate::describe::{file_json, link_target, name_and_target};
use crate::failure::{Failure, Of, Result};
use crate::target::{Mode, Target};
use crate::text::show;

/// Draw a directory with everything below it
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax tree disk.img
  e2dax tree -L 2 disk.img@p1:/usr")]
pub(crate) struct Args {
    /// The directory
    #[arg(value_name = "IMG[:/PATH]")]
    target: OsString,

    /// Go down at most this many levels
    #[arg(short = 'L', long, value_name = "LEVELS")]
    levels: Option<usize>,

    /// Only directories
    #[arg(short, long)]
    directories: bool,

    /// Sizes in bytes
    #[arg(short, long)]
    size: bool,

    /// Print a JSON object for each file, as ls does, with its depth
    #[arg(long)]
    json: bool,
}

/// Files and directories counted, the start left out.
#[derive(Default)]
struct Counts {
    files: u64,
    directories: u64,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse(&args.target)?;
    let (_fs, start) = target.resolve(&context.image, Mode::Read, Follow::Yes)?;
    let mut walk = Walk::new(&start, target.path());
    let mut counts = Counts::default();
    // A line is drawn when the next one is known: only then it is clear what follows on its level.
    let mut waiting: Vec<Found> = Vec::new();
    while let Some(step) = walk.next() {
        let found = match step {
            Ok(found) => found,
            Err(error) => {
                context.complain(&Failure::new(target.name_of(&error.path), error.error));
                continue;
            }
        };
        let is_directory = found.inode.kind() == FileKind::Directory;
        if is_directory && args.levels.is_some_and(|levels| found.depth >= levels) {
            walk.skip_below();
        }
        if args.directories && !is_directory {
            continue;
        }
        if found.depth > 0 {
            if is_directory { counts.directories += 1 } else { counts.files += 1 }
        }
        if args.json {
            let link = link_target(&found.inode).of(|| target.name_of(&found.path))?;
            let json = file_json(&found.path, &found.inode, link.as_deref()).with("depth", found.depth);
            context.out.json(&json)?;
        } else {
            waiting.push(found);
        }
    }
    if args.json {
        return Ok(());
    }
    draw(args, context, &target, &waiting)?;
    context.out.line(format_args!("\n{} directories, {} files", counts.directories, counts.files))
}

/// Draws the lines, from last to first finding out which levels go on.
fn draw(args: &Args, context: &mut Context, target: &Target, files: &[Found]) -> Result<()> {
    let mut goes_on: Vec<bool> = Vec::new();
    let mut prefixes = Vec::with_capacity(files.len());
    for file in files.iter().rev() {
        goes_on.truncate(file.depth + 1);
        goes_on.resize(file.depth + 1, false);
        let mut prefix = String::new();
        for level in 1..=file.depth {
            let more = goes_on.get(level).copied().unwrap_or(false);
            prefix.push_str(match (level == file.depth, more) {
                (true, true) => "├── ",
                (true, false) => "└── ",
                (false, true) => "│   ",
                (false, false) => "    ",
            });
        }
        if let Some(level) = goes_on.get_mut(file.depth) {
            *level = true;
        }
        prefixes.push(prefix);
    }
    for (file, prefix) in files.iter().zip(prefixes.iter().rev()) {
        let size = if args.size { format!("[{:>11}] ", file.inode.size()) } else { String::new() };
        let name = if file.depth == 0 {
            show(&file.path)
        } else {
            let link = link_target(&file.inode).of(|| target.name_of(&file.path))?;
            name_and_target(file.name(), link.as_deref())
        };
        context.out.line(format_args!("{prefix}{size}{name}"))?;
    }
    Ok(())
}
