//! `tree`: directories as a drawing.

use std::ffi::OsString;

use ext2_core::{FileKind, Follow};
use ext2_image::Walk;

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

/// A line to be.
struct Line {
    depth: usize,
    size: u64,
    /// The name, with where a link leads.
    text: String,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse(&args.target)?;
    let (_fs, start) = target.resolve(&context.image, Mode::Read, Follow::Yes)?;
    let mut walk = Walk::new(&start, target.path());
    let mut counts = Counts::default();
    // A line is drawn when the next one is known: only then it is clear what follows on its level.
    let mut waiting: Vec<Line> = Vec::new();
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
        // A link that cannot be read is a name all the same.
        let link = link_target(&found.inode).of(|| target.name_of(&found.path));
        let link = context.or_complain(link)?.flatten();
        if args.json {
            let json = file_json(&found.path, &found.inode, link.as_deref()).with("depth", found.depth);
            context.out.json(&json)?;
        } else {
            let text = match found.depth {
                0 => show(&found.path),
                _ => name_and_target(found.name(), link.as_deref()),
            };
            waiting.push(Line { depth: found.depth, size: found.inode.size(), text });
        }
    }
    if args.json {
        return Ok(());
    }
    draw(args, context, &waiting)?;
    context.out.line(format_args!("\n{} directories, {} files", counts.directories, counts.files))
}

/// Draws the lines, from last to first finding out which levels go on.
fn draw(args: &Args, context: &mut Context, lines: &[Line]) -> Result<()> {
    // Whether another follows on its level, known from the end.
    let mut goes_on: Vec<bool> = Vec::new();
    let mut followed = Vec::with_capacity(lines.len());
    for line in lines.iter().rev() {
        goes_on.truncate(line.depth + 1);
        goes_on.resize(line.depth + 1, false);
        let more = goes_on.last_mut().map(|more| std::mem::replace(more, true));
        followed.push(more.unwrap_or(false));
    }
    // The same of the line and of those above it.
    let mut levels: Vec<bool> = Vec::new();
    for (line, more) in lines.iter().zip(followed.into_iter().rev()) {
        levels.truncate(line.depth);
        levels.push(more);
        let mut prefix = String::new();
        for (level, more) in levels.iter().enumerate().skip(1) {
            prefix.push_str(match (level == line.depth, more) {
                (true, true) => "├── ",
                (true, false) => "└── ",
                (false, true) => "│   ",
                (false, false) => "    ",
            });
        }
        let size = if args.size { format!("[{:>11}] ", line.size) } else { String::new() };
        context.out.line(format_args!("{prefix}{size}{}", line.text))?;
    }
    Ok(())
}
