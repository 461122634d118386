//! `ls`: what is in a directory.

mod raw;

use std::ffi::OsString;

use ext2_core::{FileKind, Follow, Inode, InodeNr};

use crate::context::Context;
use crate::describe::{file_json, join, link_target, long_columns, name_and_target, push_name};
use crate::failure::{Failure, Of, Result};
use crate::target::{Mode, Target};
use crate::text::{Align, show, table};

/// List directories
#[derive(clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Examples:
  e2dax ls disk.img
  e2dax ls -l disk.img:/etc
  e2dax ls -lRa disk.img@1048576:/
  e2dax ls --json -R disk.img | jq -r 'select(.size > 1000000) | .path'

Names are sorted by their bytes. Bytes that are not printable, and the backslash, are shown as \\xHH.
Times are UTC, sizes bytes."
)]
pub(crate) struct Args {
    /// Directories or files, each as IMG:/path
    #[arg(value_name = "IMG[:/PATH]", required = true)]
    targets: Vec<OsString>,

    /// Type and permissions, links, owner, group, size (or device number), time of change, link target
    #[arg(short)]
    long: bool,

    /// Go into all directories
    #[arg(short = 'R', long)]
    recursive: bool,

    /// Inode numbers
    #[arg(short, long)]
    inode: bool,

    /// Also names that begin with a dot
    #[arg(short, long)]
    all: bool,

    /// Directories themselves, not what is in them
    #[arg(short, long)]
    directory: bool,

    /// Every entry in the blocks of the directory, removed ones too
    #[arg(long, conflicts_with_all = ["recursive", "directory"])]
    raw: bool,

    /// Sizes as people read them: 1.5K, 20M
    #[arg(short = 'h', long = "human-readable")]
    human: bool,

    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,

    /// Print a JSON object for each file
    #[arg(long)]
    json: bool,
}

/// A line to be.
struct Row {
    name: Vec<u8>,
    inode: Inode,
    target: Option<Vec<u8>>,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let many = args.targets.len() > 1;
    for (nr, argument) in args.targets.iter().enumerate() {
        let listed = Target::parse(argument).and_then(|target| list(args, context, &target, many, nr > 0));
        context.or_complain(listed)?;
    }
    Ok(())
}

/// One argument.
fn list(args: &Args, context: &mut Context, target: &Target, titled: bool, later: bool) -> Result<()> {
    let path = target.path();
    // As ls: a link is followed, unless the line is about the link itself.
    let follow = if args.long || args.directory { Follow::No } else { Follow::Yes };
    let follow = if path.ends_with(b"/") { Follow::Yes } else { follow };
    let (fs, inode) = target.resolve(&context.image, Mode::Read, follow)?;
    if args.raw {
        return raw::run(args.json, context, target, &fs, &inode);
    }
    if inode.kind() != FileKind::Directory || args.directory {
        let link = link_target(&inode).of(|| target.name())?;
        return print(args, context, None, &[Row { name: path.to_vec(), inode, target: link }]);
    }
    let mut title = titled || args.recursive;
    let mut first = !later;
    // The path of the directory that is listed, and those above it.
    let (mut path, mut parents) = (path.to_vec(), Vec::new());
    let start = Pending { above: path.len(), name: Vec::new(), inode, depth: 0 };
    let mut pending = vec![start];
    while let Some(next) = pending.pop() {
        path.truncate(next.above);
        if next.depth > 0 {
            push_name(&mut path, &next.name);
        }
        parents.truncate(next.depth);
        parents.push(next.inode.nr());
        if title && !args.json {
            let gap = if first { "" } else { "\n" };
            context.out.line(format_args!("{gap}{}:", target.name_of(&path)))?;
        }
        first = false;
        title = true;
        let rows = read(args, context, target, &path, &next.inode)?;
        print(args, context, Some(&path), &rows)?;
        if args.recursive {
            descend(context, target, rows, &path, &parents, &mut pending);
        }
    }
    Ok(())
}

/// A directory still to be listed.
struct Pending {
    /// How much of the path is that of the directory above it, which is listed by then.
    above: usize,
    name: Vec<u8>,
    inode: Inode,
    depth: usize,
}

/// Queues the directories among the rows, the first to be listed last.
fn descend(
    context: &mut Context,
    target: &Target,
    rows: Vec<Row>,
    path: &[u8],
    parents: &[InodeNr],
    pending: &mut Vec<Pending>,
) {
    for row in rows.into_iter().rev() {
        if row.inode.kind() != FileKind::Directory || row.name == b"." || row.name == b".." {
            continue;
        }
        if parents.contains(&row.inode.nr()) {
            let what = format!("the image is broken: directory inode {} is inside itself", row.inode.nr());
            context.complain(&Failure::broken(target.name_of(&join(path, &row.name)), what));
            continue;
        }
        let (above, depth) = (path.len(), parents.len());
        pending.push(Pending { above, name: row.name, inode: row.inode, depth });
    }
}

/// The rows of a directory, sorted. Entries that cannot be read are complained of and left out.
fn read(args: &Args, context: &mut Context, target: &Target, path: &[u8], dir: &Inode) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut entries = dir.entries(0).of(|| target.name_of(path))?;
    while let Some(entry) = entries.next() {
        let Some(entry) = context.or_complain(entry.of(|| target.name_of(path)))? else { continue };
        if !args.all && entry.name.starts_with(b".") {
            continue;
        }
        let found = entries.inode(&entry).and_then(|found| {
            // None is one that was removed since.
            found.map(|inode| Ok((link_target(&inode)?, inode))).transpose()
        });
        if let Some(Some((link, inode))) =
            context.or_complain(found.of(|| target.name_of(&join(path, &entry.name))))?
        {
            rows.push(Row { name: entry.name.into_bytes(), inode, target: link });
        }
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

/// Prints rows of a directory, or one whose name is a path.
fn print(args: &Args, context: &mut Context, folder: Option<&[u8]>, rows: &[Row]) -> Result<()> {
    if args.json {
        return rows.iter().try_for_each(|row| {
            let path = folder.map_or_else(|| row.name.clone(), |folder| join(folder, &row.name));
            context.out.json(&file_json(&path, &row.inode, row.target.as_deref()))
        });
    }
    let mut columns = Vec::new();
    if args.inode {
        columns.push(Align::Right);
    }
    if args.long {
        columns.extend([Align::Left, Align::Right, Align::Right, Align::Right, Align::Right, Align::Left]);
    }
    columns.push(Align::Left);
    let cells = |row: &Row| {
        let mut cells = Vec::new();
        if args.inode {
            cells.push(row.inode.nr().to_string());
        }
        if args.long {
            cells.extend(long_columns(&row.inode.attr(), args.human));
            cells.push(name_and_target(&row.name, row.target.as_deref()));
        } else {
            cells.push(show(&row.name));
        }
        cells
    };
    let cells: Vec<_> = rows.iter().map(cells).collect();
    table(&columns, &cells).into_iter().try_for_each(|line| context.out.line(line))
}
