//! `du`: what files and directories take on the device.

use std::collections::BTreeSet;
use std::ffi::OsString;

use ext2_core::{FileKind, Follow};
use ext2_image::{KeptPath, KeptPaths, Walk};

use crate::context::Context;
use crate::describe::allocated;
use crate::failure::{Failure, Result};
use crate::json::{Json, object};
use crate::target::{Mode, Target};
use crate::text::{human, show};

/// Show how much space directories take, in bytes
#[derive(clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Examples:
  e2dax du -s disk.img:/usr
  e2dax du -a disk.img | sort -n | tail

Indirect blocks and attribute blocks are counted; an inode with several names is counted once."
)]
pub(crate) struct Args {
    /// Directories or files
    #[arg(value_name = "IMG[:/PATH]")]
    target: OsString,

    /// Files too
    #[arg(short, long)]
    all: bool,

    /// Only the total
    #[arg(short, long, conflicts_with = "all")]
    summarize: bool,

    /// File sizes instead of the space they take
    #[arg(long)]
    apparent_size: bool,

    /// Sizes as people read them: 1.5K, 20M
    #[arg(short = 'h', long = "human-readable")]
    human: bool,

    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,

    /// Print a JSON object for each directory
    #[arg(long)]
    json: bool,
}

/// A directory whose sum is not complete.
struct Open {
    /// How much of the path of the innermost is its own.
    len: usize,
    sum: u64,
}

/// The directories from the start to where the walk is.
#[derive(Default)]
struct Opened {
    path: Vec<u8>,
    open: Vec<Open>,
}

/// The lines to be, whose numbers are as wide as the widest.
#[derive(Default)]
struct Rows {
    rows: Vec<(String, KeptPath)>,
    paths: KeptPaths,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse(&args.target)?;
    let (_fs, start) = target.resolve(&context.image, Mode::Read, Follow::No)?;
    let mut seen = BTreeSet::new();
    let mut opened = Opened::default();
    let mut rows = Rows::default();
    for step in Walk::new(&start, target.path()) {
        let found = match step {
            Ok(found) => found,
            Err(error) => {
                context.complain(&Failure::new(target.name_of(&error.path), error.error));
                continue;
            }
        };
        close(args, context, &mut opened, found.depth, &mut rows)?;
        let attr = found.inode.attr();
        let bytes = if args.apparent_size { attr.size } else { allocated(&attr) };
        let bytes = if seen.insert(attr.nr) { bytes } else { 0 };
        if attr.kind == FileKind::Directory {
            opened.open.push(Open { len: found.path.len(), sum: bytes });
            opened.path = found.path;
        } else {
            if let Some(parent) = opened.open.last_mut() {
                parent.sum = parent.sum.saturating_add(bytes);
            }
            if args.all || found.depth == 0 {
                print(args, context, &found.path, bytes, &mut rows)?;
            }
        }
    }
    close(args, context, &mut opened, 0, &mut rows)?;
    let width = rows.rows.iter().map(|(size, _)| size.len()).max().unwrap_or(0);
    rows.rows.iter().try_for_each(|(size, path)| {
        context.out.line(format_args!("{size:>width$} {}", show(&rows.paths.path(*path))))
    })
}

/// Completes all directories from a depth on.
fn close(
    args: &Args,
    context: &mut Context,
    opened: &mut Opened,
    depth: usize,
    rows: &mut Rows,
) -> Result<()> {
    while opened.open.len() > depth {
        let Some(done) = opened.open.pop() else { break };
        if let Some(parent) = opened.open.last_mut() {
            parent.sum = parent.sum.saturating_add(done.sum);
        }
        if !args.summarize || opened.open.is_empty() {
            let path = opened.path.get(..done.len).unwrap_or_default();
            print(args, context, path, done.sum, rows)?;
        }
    }
    Ok(())
}

fn print(args: &Args, context: &mut Context, path: &[u8], bytes: u64, rows: &mut Rows) -> Result<()> {
    if args.json {
        return context.out.json(&object! { "path": Json::bytes(path), "bytes": bytes });
    }
    let size = if args.human { human(bytes) } else { bytes.to_string() };
    rows.rows.push((size, rows.paths.keep(path)));
    Ok(())
}
