//! `diff`: two trees compared, file by file and field by field.

use std::ffi::OsString;

use ext2_core::{Ext2, FileBlock, Follow, Mapping};
use ext2_image::manifest::{
    Difference, Entry, Kind, Manifest, Node, Without, diff, diff_entries, from_image,
};
use ext2_image::mkfs::first_difference;

use super::manifest::print;
use crate::context::Context;
use crate::failure::{FAILED, Failure, Of, Result, TROUBLE};
use crate::json::object;
use crate::side::{Part, Side, without};

/// Compare two images, directories or archives, file by file and field by field
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax diff before.img after.img
  e2dax diff --layout a.img b.img          also where the blocks of files lie
  e2dax diff --bits a.img b.img            are builds the same, bit for bit?
  e2dax diff rootfs/ disk.img              is the image what I put in?
  e2dax diff --without times,owners rootfs.tar disk.img:/
  e2dax diff disk.img:/etc /etc

A side is an image, a directory in one (IMG:/path) or on this machine, an archive, or a manifest. Each line is a
difference: path, field, left, right. Names, types, modes, owners, times, links, attributes, flags, holes and bytes
are compared, and the format of the file systems; for a directory of this machine or an archive, neither holes nor
times other than that of the last change. With --bits, if only bits differ, the last line names the first structure
and field that differs. Exit code: 0 the same, 1 different, 2 trouble.")]
pub(crate) struct Args {
    /// The left side
    #[arg(value_name = "A")]
    left: OsString,

    /// The right side
    #[arg(value_name = "B")]
    right: OsString,

    /// Compare inode numbers and the places of blocks, too
    #[arg(long)]
    layout: bool,

    /// Compare every bit, too
    #[arg(long)]
    bits: bool,

    /// What to ignore; several are separated by commas
    #[arg(long, value_name = "PARTS", value_delimiter = ',')]
    without: Vec<Part>,

    /// Print a JSON object for each difference
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    match compare(args, context).and_then(|()| context.out.flush()) {
        Err(failure) if !failure.is_closed_output() => {
            context.complain(&failure);
            context.lower_exit(TROUBLE);
            Ok(())
        }
        done => done,
    }
}

fn compare(args: &Args, context: &mut Context) -> Result<()> {
    let (left, right) = (Side::open(&args.left, context)?, Side::open(&args.right, context)?);
    let images = left.image().zip(right.image());
    let images = images.map(|((a, x), (b, y))| ((a.clone(), x.clone()), (b.clone(), y.clone())));
    if images.is_none() && (args.layout || args.bits) {
        let side = if left.image().is_none() { &args.left } else { &args.right };
        return Err(Failure::usage(side, "has no layout and no bits; both sides have to be whole images"));
    }
    let parts = without(&args.without);
    let has_blocks = left.has_blocks() && right.has_blocks();
    let parts = Without { holes: parts.holes || !has_blocks, ..parts };
    let mut found = diff(&left.file_system(), &right.file_system());
    if let (true, Some(((name, a), (_, b)))) = (args.layout, &images) {
        let name = || name.image_name();
        found.extend(layout(a, b, &from_image(a).of(name)?, &from_image(b).of(name)?).of(name)?);
    }
    let mut is_same = found.is_empty();
    for difference in found {
        print(args.json, context, &difference)?;
    }
    let mut printed = Ok(());
    let entries = |side: Side| -> Result<_> {
        let entries = side.entries()?.filter(move |entry| has_blocks || !is_lost_and_found(entry));
        Ok(entries.map(move |entry| entry.map(|entry| parts.of(entry))))
    };
    diff_entries(entries(left)?, entries(right)?, &mut |difference| {
        is_same = false;
        if printed.is_ok() {
            printed = print(args.json, context, &difference);
        }
    })?;
    printed?;
    match images {
        Some(((name, a), (_, b))) if is_same || args.bits => {
            let first = first_difference(&a, &b).of(|| name.image_name())?;
            first.map_or(Ok(()), |first| bits(args, context, &first))
        }
        _ => Ok(()),
    }
}

/// Whether an entry is the `lost+found` that an image has and what it was made of has not.
fn is_lost_and_found(entry: &Result<Entry>) -> bool {
    let Ok(Entry { path, node: Node::Inode(inode) }) = entry else { return false };
    path == b"/lost+found" && inode.kind == Kind::Directory
}

/// The first bit that differs.
fn bits(args: &Args, context: &mut Context, first: &ext2_image::mkfs::FirstDifference) -> Result<()> {
    if args.bits {
        context.set_exit(FAILED);
    }
    if !args.json {
        return context.out.line(format_args!("bits: {first}"));
    }
    let (structure, field) = (first.structure.as_str(), first.field.as_str());
    context.out.json(&object! { "byte": first.offset, "structure": structure, "field": field })
}

/// What differs in inode numbers and places of the files that both sides have.
fn layout(a: &Ext2, b: &Ext2, x: &Manifest, y: &Manifest) -> ext2_core::Result<Vec<Difference>> {
    let mut found = Vec::new();
    for entry in x.entries().iter().filter(|entry| y.entry(&entry.path).is_some()) {
        let (left, right) = (a.resolve(&entry.path, Follow::No)?, b.resolve(&entry.path, Follow::No)?);
        let mut compare = |field: &str, left: String, right: String| {
            if left != right {
                found.push(Difference { path: entry.path.clone(), field: field.into(), left, right });
            }
        };
        compare("inode", left.nr().to_string(), right.nr().to_string());
        compare("blocks", places(&left)?, places(&right)?);
    }
    Ok(found)
}

/// The runs of a file's blocks, `file+count@device`.
fn places(inode: &ext2_core::Inode) -> ext2_core::Result<String> {
    use ext2_core::FileKind::{Directory, Regular};
    if !matches!(inode.kind(), Regular | Directory) {
        return Ok("-".into());
    }
    let runs: Vec<Mapping> = inode.extents().collect::<Result<_, _>>()?;
    let text = |run: &Mapping| {
        let place = run.target.map_or(0, ext2_core::DeviceBlock::get);
        format!("{}+{}@{place}", FileBlock::get(run.start), run.count)
    };
    let text: Vec<String> = runs.iter().map(text).collect();
    Ok(if text.is_empty() { "-".into() } else { text.join(",") })
}
