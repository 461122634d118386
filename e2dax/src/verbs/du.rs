//! `du`: what files and directories take on the device.

use std::collections::BTreeSet;
use std::ffi::OsString;

use ext2_core::{FileKind, Follow};
use ext2_image::Walk;

use crate::context::Context;
use crate::describe::allocated;
use crate::failure::{Failure, Result};
use crate::json::{Json, object};
use crate::target::{Mode, Target};
use crate::text::{Align, human, show, table};

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
    path: Vec<u8>,
    sum: u64,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse(&args.target)?;
    let (_fs, start) = target.resolve(&context.image, Mode::Read, Follow::No)?;
    let mut seen = BTreeSet::new();
    let mut open: Vec<Open> = Vec::new();
    let mut rows = Vec::new();
    for step in Walk::new(&start, target.path()) {
        let found = match step {
            Ok(found) => found,
            Err(error) => {
                context.complain(&Failure::new(target.name_of(&error.path), error.error));
                continue;
            }
        };
        close(args, context, &mut open, found.depth, &mut rows)?;
        let attr = found.inode.attr();
        let bytes = if args.apparent_size { attr.size } else { allocated(&attr) };
        let bytes = if seen.insert(attr.nr) { bytes } else { 0 };
        if attr.kind == FileKind::Directory {
            open.push(Open { path: found.path, sum: bytes });
        } else {
            if let Some(parent) = open.last_mut() {
                parent.sum = parent.sum.saturating_add(bytes);
            }
            if args.all || found.depth == 0 {
                print(args, context, &found.path, bytes, &mut rows)?;
            }
        }
    }
    close(args, context, &mut open, 0, &mut rows)?;
    table(&[Align::Right, Align::Left], &rows).into_iter().try_for_each(|line| context.out.line(line))
}

/// Completes all directories from a depth on.
fn close(
    args: &Args,
    context: &mut Context,
    open: &mut Vec<Open>,
    depth: usize,
    rows: &mut Vec<Vec<String>>,
) -> Result<()> {
    while open.len() > depth {
        let Some(done) = open.pop() else { break };
        if let Some(parent) = open.last_mut() {
            parent.sum = parent.sum.saturating_add(done.sum);
        }
        if !args.summarize || open.is_empty() {
            print(args, context, &done.path, done.sum, rows)?;
        }
    }
    Ok(())
}

fn print(
    args: &Args,
    context: &mut Context,
    path: &[u8],
    bytes: u64,
    rows: &mut Vec<Vec<String>>,
) -> Result<()> {
    if args.json {
        return context.out.json(&object! { "path": Json::bytes(path), "bytes": bytes });
    }
    let bytes = if args.human { human(bytes) } else { bytes.to_string() };
    rows.push(vec![bytes, show(path)]);
    Ok(())
}
