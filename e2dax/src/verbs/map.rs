//! `map`: where the bytes of files lie, and what a page of 2 MiB can map of them.

mod blocks;

use std::ffi::OsString;

use ext2_core::{FileBlock, FileKind, Follow, Inode, Mapping};
use ext2_image::{KeptPaths, UNIT, UnitCounts, UnitRun, UnitState, Units, Walk};

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::json::{Json, object};
use crate::target::{Mode, Target};
use crate::text::{Align, count, percent, show, table};

/// Show where the bytes of a file lie, and which of them pages of 2 MiB can map
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax map disk.img:/data
  e2dax map --all disk.img
  e2dax map --blocks disk.img:/data           indirect blocks, too
  e2dax map --json disk.img:/data | jq .units

Each line is a mapping: the offset in the file, the length, hole or mapped, the offset on the device, all in bytes.
A whole unit of 2 MiB can be mapped by one PMD if its blocks are one run that begins at a multiple of 2 MiB of memory,
or if it is all hole: then the huge zero page stands for it. For every other unit it says why not.")]
pub(crate) struct Args {
    /// A file; with --all a directory, or an image
    #[arg(value_name = "IMG:/PATH")]
    target: OsString,

    /// Total for all files below
    #[arg(long)]
    all: bool,

    /// Count in blocks, and list indirect blocks where they come
    #[arg(long, conflicts_with = "all")]
    blocks: bool,

    /// Print only where this block of the file lies, 0 for a hole
    #[arg(long, value_name = "BLOCK", conflicts_with_all = ["all", "blocks"])]
    at: Option<u64>,

    /// Print JSON: one object for a file; with --all one for each file with a whole unit, and one with the sum
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse(&args.target)?;
    let follow = if args.all { Follow::No } else { Follow::Yes };
    let (fs, inode) = target.resolve(&context.image, Mode::Read, follow)?;
    let bias = target.bias(&**fs.device());
    if let Some(block) = args.at {
        let mapping = inode.map(FileBlock::new(block), 1).of(|| target.name())?;
        let place = mapping.target.map_or(0, ext2_core::DeviceBlock::get);
        if args.json {
            return context.out.json(&object! { "logical": block, "physical": place });
        }
        return context.out.line(place);
    }
    if args.blocks {
        return blocks::run(args.json, context, &target, &fs, &inode);
    }
    if args.all {
        return sum_up(args, context, &target, &inode, bias);
    }
    let mappings = mappings(&inode).of(|| target.name())?;
    let units: Vec<UnitRun> = Units::of(&inode, bias).collect::<Result<_, _>>().of(|| target.name())?;
    let mut counts = UnitCounts::default();
    units.iter().for_each(|&run| counts += run);
    if args.json {
        return context.out.json(&file_to_json(&target, &inode, &mappings, &units, &counts));
    }
    print_mappings(context, &inode, &mappings)?;
    print_units(context, &units, &counts)
}

/// Everything up to the end of the file, holes included.
fn mappings(inode: &Inode) -> ext2_core::Result<Vec<Mapping>> {
    let end = inode.fs().geometry().block_size.blocks_for(inode.size());
    let mut all: Vec<Mapping> = Vec::new();
    let mut next = 0;
    if !matches!(inode.kind(), FileKind::Regular | FileKind::Directory | FileKind::Symlink) {
        return Ok(all);
    }
    let hole = |from: u64, to: u64| Mapping { start: FileBlock::new(from), count: to - from, target: None };
    // The extents end where a map leads back into itself; mapping by mapping that would be terabytes away.
    for run in inode.extents() {
        let run = run?;
        if next < run.start.get() {
            all.push(hole(next, run.start.get()));
        }
        next = run.end().get();
        all.push(run);
    }
    if next < end {
        all.push(hole(next, end));
    }
    Ok(all)
}

/// Offset, length and place on the device of a mapping, in bytes.
fn in_bytes(inode: &Inode, mapping: &Mapping) -> (u64, u64, Option<u64>) {
    let fs = inode.fs();
    let block = fs.geometry().block_size.bytes();
    let place = mapping.target.map(|target| fs.geometry().byte_of(target));
    (mapping.start.get() * block, mapping.count * block, place)
}

fn print_mappings(context: &mut Context, inode: &Inode, mappings: &[Mapping]) -> Result<()> {
    let mut rows = vec![["logical", "length", "kind", "physical"].map(String::from).to_vec()];
    for mapping in mappings {
        let (offset, length, place) = in_bytes(inode, mapping);
        let (kind, place) = place.map_or(("hole", "-".into()), |place| ("mapped", place.to_string()));
        rows.push(vec![offset.to_string(), length.to_string(), kind.into(), place]);
    }
    let columns = [Align::Right, Align::Right, Align::Left, Align::Right];
    table(&columns, &rows).into_iter().try_for_each(|line| context.out.line(line))
}

fn print_units(context: &mut Context, units: &[UnitRun], counts: &UnitCounts) -> Result<()> {
    context.out.line("")?;
    for run in units.iter().filter(|run| !matches!(run.state, UnitState::Mappable | UnitState::HugeZero)) {
        let (start, end) = (run.first * UNIT, (run.first + run.count) * UNIT);
        let which = match run.count {
            1 => format!("unit {}", run.first),
            count => format!("units {}..{}", run.first, run.first + count),
        };
        context.out.line(format_args!("{which} (bytes {start}..{end}): {}", run.state.name()))?;
    }
    context.out.line(sentence(counts))
}

/// What can be mapped, in a sentence.
fn sentence(counts: &UnitCounts) -> String {
    let (mappable, whole) = (counts.mappable + counts.huge_zero, counts.whole());
    format!(
        "{mappable} of {whole} whole units of 2 MiB mappable by one PMD ({}): {} of {} with data, {} all hole",
        percent(mappable, whole),
        counts.mappable,
        counts.with_data(),
        counts.huge_zero,
    )
}

fn counts_to_json(counts: &UnitCounts) -> Json {
    object! {
        "whole": counts.whole(),
        "mappable": counts.mappable,
        "huge_zero": counts.huge_zero,
        "hole": counts.hole,
        "fragmented": counts.fragmented,
        "unaligned": counts.unaligned,
        "past_eof": counts.past_eof,
    }
}

fn file_to_json(
    target: &Target,
    inode: &Inode,
    mappings: &[Mapping],
    units: &[UnitRun],
    counts: &UnitCounts,
) -> Json {
    let mappings = mappings.iter().map(|mapping| {
        let (offset, length, place) = in_bytes(inode, mapping);
        let kind = if place.is_some() { "mapped" } else { "hole" };
        object! { "logical": offset, "length": length, "kind": kind, "physical": place }
    });
    let units = units.iter().map(|run| {
        object! { "first": run.first, "count": run.count, "state": run.state.name() }
    });
    object! {
        "path": Json::bytes(target.path()),
        "size": inode.size(),
        "mappings": Json::list(mappings),
        "unit_runs": Json::list(units),
        "units": counts_to_json(counts),
    }
}

/// `--all`.
fn sum_up(args: &Args, context: &mut Context, target: &Target, start: &Inode, bias: u64) -> Result<()> {
    let titles = ["mappable", "zero", "hole", "fragmented", "unaligned", "whole"];
    let mut rows = vec![titles.map(String::from).to_vec()];
    let (mut kept, mut paths) = (KeptPaths::default(), Vec::new());
    let (mut total, mut files, mut mapped, mut seen) = (UnitCounts::default(), 0_u64, 0_u64, Seen::new());
    for step in Walk::new(start, target.path()) {
        let found = match step {
            Ok(found) => found,
            Err(error) => {
                context.complain(&Failure::new(target.name_of(&error.path), error.error));
                continue;
            }
        };
        if found.inode.kind() != FileKind::Regular || !seen.insert(found.inode.nr()) {
            continue;
        }
        let counted = || {
            let runs = found.inode.extents().try_fold(0_u64, |sum, run| run.map(|_| sum + 1))?;
            Ok::<_, ext2_core::Error>((runs, Units::of(&found.inode, bias).counts()?))
        };
        let Some((runs, counts)) = context.or_complain(counted().of(|| target.name_of(&found.path)))? else {
            continue;
        };
        files += 1;
        mapped += runs;
        total += counts;
        if counts.whole() == 0 {
            continue;
        }
        if args.json {
            let json = object! { "path": Json::bytes(&found.path), "size": found.inode.size() };
            context.out.json(&json.with("runs", runs).with("units", counts_to_json(&counts)))?;
        } else {
            rows.push(row(&counts));
            paths.push(kept.keep(&found.path));
        }
    }
    if args.json {
        let json = object! { "files": files, "runs": mapped, "units": counts_to_json(&total) };
        return context.out.json(&json);
    }
    if rows.len() > 1 {
        let lines = table(&[const { Align::Right }; 6], &rows);
        let paths = paths.into_iter().map(|path| show(&kept.path(path)));
        let paths = std::iter::once("path".to_owned()).chain(paths);
        lines
            .iter()
            .zip(paths)
            .try_for_each(|(numbers, path)| context.out.line(format_args!("{numbers} {path}")))?;
        context.out.line("")?;
    }
    context.out.line(format_args!("{} in {}", count(files, "file"), count(mapped, "run of blocks")))?;
    context.out.line(sentence(&total))
}

/// Inodes that are summed already.
type Seen = std::collections::BTreeSet<ext2_core::InodeNr>;

fn row(counts: &UnitCounts) -> Vec<String> {
    let numbers =
        [counts.mappable, counts.huge_zero, counts.hole, counts.fragmented, counts.unaligned, counts.whole()];
    numbers.iter().map(u64::to_string).collect()
}
