//! `groups`: descriptors and bitmaps.

use std::ffi::OsString;

use ext2_core::GroupNr;
use ext2_image::fields::BitRun;
use ext2_image::inspect::{GroupSpace, bad_blocks, group_space};

use crate::context::Context;
use crate::failure::{Of, Result};
use crate::json::{Json, object};
use crate::target::{Mode, Raw, Target};
use crate::text::count;

/// Show the block groups: where their structures lie, and what is free and used in them
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax groups disk.img
  e2dax groups --group 3 --used disk.img
  e2dax groups --bad disk.img
  e2dax groups --json disk.img | jq .free_blocks

Ranges include both ends. Counts are those of the bitmaps; a descriptor with another count is pointed out.")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    /// Only this group
    #[arg(long, value_name = "GROUP")]
    group: Option<u32>,

    /// Also the ranges that are used
    #[arg(long)]
    used: bool,

    /// Only the blocks that are known to be bad
    #[arg(long, conflicts_with_all = ["group", "used"])]
    bad: bool,

    /// Print a JSON object for each group
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse_image(&args.image)?;
    let name = || target.image_name();
    let raw = target.open_raw(&context.image, Mode::Read)?;
    let geo = raw.layout.geometry().of(name)?.clone();
    if args.bad {
        return bad(args, context, &target, &raw);
    }
    let groups = match args.group {
        Some(group) => group..group + 1,
        None => 0..geo.groups,
    };
    for group in groups.map(GroupNr::new) {
        let space = group_space(&*raw.device, &raw.layout, group).of(name)?;
        if args.json {
            context.out.json(&to_json(&space, geo.inode_table_blocks()))?;
        } else {
            print(args, context, &space, geo.inode_table_blocks())?;
        }
    }
    Ok(())
}

/// A range by its first and last number.
fn range(from: u32, past: u32) -> String {
    match past - from {
        1 => from.to_string(),
        _ => format!("{from}-{}", past - 1),
    }
}

fn bad(args: &Args, context: &mut Context, target: &Target, raw: &Raw) -> Result<()> {
    for run in bad_blocks(&*raw.device, &raw.layout).of(|| target.image_name())? {
        if args.json {
            context.out.json(&object! { "first": run.start, "count": run.end - run.start })?;
        } else {
            context.out.line(range(run.start, run.end))?;
        }
    }
    Ok(())
}

fn ranges(runs: &[BitRun], is_set: bool) -> String {
    let text: Vec<String> = runs
        .iter()
        .filter(|run| run.is_set == is_set)
        .map(|run| range(run.bits.start, run.bits.end))
        .collect();
    if text.is_empty() { "none".into() } else { text.join(" ") }
}

fn print(args: &Args, context: &mut Context, space: &GroupSpace, table: u32) -> Result<()> {
    let desc = &space.descriptor;
    let (bitmap, inodes, first) =
        (desc.bg_block_bitmap.get(), desc.bg_inode_bitmap.get(), desc.bg_inode_table.get());
    let out = &mut context.out;
    out.line(format_args!("group {}: blocks {}", space.group, range(space.blocks.start, space.blocks.end)))?;
    if space.overhead > 0 {
        let what = if space.has_super { "superblock and descriptors" } else { "descriptors" };
        let end = space.blocks.start.saturating_add(space.overhead);
        out.line(format_args!("  {what}: {}", range(space.blocks.start, end)))?;
    }
    let table = range(first, first.saturating_add(table));
    out.line(format_args!("  block bitmap: {bitmap}, inode bitmap: {inodes}, inode table: {table}"))?;
    let (blocks, free) = (GroupSpace::free(&space.block_runs), desc.bg_free_blocks_count.get());
    let said = |found: u32, said: u16| match found == u32::from(said) {
        true => String::new(),
        false => format!(" (the descriptor says {said})"),
    };
    let (inodes, free_inodes) = (GroupSpace::free(&space.inode_runs), desc.bg_free_inodes_count.get());
    out.line(format_args!(
        "  free: {}{}, {}{}; {}",
        count(blocks.into(), "block"),
        said(blocks, free),
        count(inodes.into(), "inode"),
        said(inodes, free_inodes),
        match desc.bg_used_dirs_count.get() {
            1 => "1 directory".into(),
            many => format!("{many} directories"),
        }
    ))?;
    out.line(format_args!("  free blocks: {}", ranges(&space.block_runs, false)))?;
    out.line(format_args!("  free inodes: {}", ranges(&space.inode_runs, false)))?;
    if args.used {
        out.line(format_args!("  used blocks: {}", ranges(&space.block_runs, true)))?;
        out.line(format_args!("  used inodes: {}", ranges(&space.inode_runs, true)))?;
    }
    Ok(())
}

fn to_json(space: &GroupSpace, table: u32) -> Json {
    let desc = &space.descriptor;
    let runs = |runs: &[BitRun]| {
        Json::list(runs.iter().map(|run| {
            object! { "first": run.bits.start, "count": run.bits.end - run.bits.start, "used": run.is_set }
        }))
    };
    object! {
        "group": space.group.get(),
        "first_block": space.blocks.start,
        "blocks": space.blocks.end - space.blocks.start,
        "first_inode": space.inodes.start,
        "inodes": space.inodes.end - space.inodes.start,
        "has_superblock": space.has_super,
        "overhead": space.overhead,
        "block_bitmap": desc.bg_block_bitmap.get(),
        "inode_bitmap": desc.bg_inode_bitmap.get(),
        "inode_table": desc.bg_inode_table.get(),
        "inode_table_blocks": table,
        "free_blocks": GroupSpace::free(&space.block_runs),
        "free_blocks_said": desc.bg_free_blocks_count.get(),
        "free_inodes": GroupSpace::free(&space.inode_runs),
        "free_inodes_said": desc.bg_free_inodes_count.get(),
        "directories_said": desc.bg_used_dirs_count.get(),
        "block_runs": runs(&space.block_runs),
        "inode_runs": runs(&space.inode_runs),
    }
}
