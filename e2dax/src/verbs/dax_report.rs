//! `dax-report`: how much of an image pages of 2 MiB can map, by whom, and what keeps the rest from it.

use std::collections::BTreeSet;
use std::ffi::OsString;

use ext2_core::FileKind;
use ext2_image::{Coverage, UNIT, Walk};

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::json::{Json, object};
use crate::target::{Mode, Target};
use crate::text::{Align, percent, show, table};

/// Show how much of an image pages of 2 MiB can map, for which driver, and why not the rest
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax dax-report rootfs.img
  e2dax dax-report --json rootfs.img@p1 | jq .summary
  e2dax dax-report --device-offset 3M rootfs.img       as if it were put 3 MiB into a device

For each file of 2 MiB and more: its whole units of 2 MiB with data; how many of them one page can map through this
library (ours; the same goes for any driver that maps every aligned unit, such as XFS); how many Linux's ext4 driver
maps on a fresh mount of this image (on a block map it never maps a unit in which an array of pointers ends: with
blocks of 4 KiB that is every second one); and why the others are not mapped.")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    /// Where the file system will begin on the device that is mapped [default: where it begins in the image]
    #[arg(long, value_name = "BYTES", value_parser = crate::text::parse_bytes)]
    device_offset: Option<u64>,

    /// Print only the summary
    #[arg(long, short)]
    summary: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A file of 2 MiB and more.
struct Row {
    path: Vec<u8>,
    size: u64,
    coverage: Coverage,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse(&args.image)?;
    let (fs, root) = target.resolve(&context.image, Mode::Read, ext2_core::Follow::No)?;
    let offset = args.device_offset.unwrap_or_else(|| target.offset());
    let bias = offset % UNIT;
    let (mut rows, mut total, mut seen) = (Vec::new(), Coverage::default(), BTreeSet::new());
    for step in Walk::new(&root, target.path()) {
        let found = match step {
            Ok(found) => found,
            Err(error) => {
                context.complain(&Failure::new(target.name_of(&error.path), error.error));
                continue;
            }
        };
        let large = found.inode.kind() == FileKind::Regular && found.inode.size() >= UNIT;
        if !large || !seen.insert(found.inode.nr()) {
            continue;
        }
        let coverage = Coverage::of(&found.inode, bias).of(|| target.name_of(&found.path));
        if let Some(coverage) = context.or_complain(coverage)? {
            total += coverage;
            rows.push(Row { path: found.path, size: found.inode.size(), coverage });
        }
    }
    let block = fs.geometry().block_size.bytes();
    let image_size = std::fs::metadata(&target.image).map(|meta| meta.len()).unwrap_or(0);
    let faults = container_faults(offset, block, image_size);
    if args.json {
        return context.out.json(&to_json(&rows, &total, &faults, offset, block));
    }
    if !args.summary {
        print_rows(&rows, context)?;
        faults.iter().try_for_each(|fault| context.out.line(format_args!("container: {fault}")))?;
    }
    context.out.line(summary(rows.len(), &total))
}

/// What of the container keeps pages of 2 MiB away, whatever is in the files.
fn container_faults(offset: u64, block: u64, image_size: u64) -> Vec<String> {
    let mut faults = Vec::new();
    if !offset.is_multiple_of(UNIT) {
        faults.push(format!(
            "the file system begins at byte {offset} of the device, no multiple of 2 MiB: others than those that knew \
             it when they made it lie wrong"
        ));
    }
    if !image_size.is_multiple_of(UNIT) {
        faults.push(format!(
            "the image has {image_size} bytes, no multiple of 2 MiB: Linux's virtio-pmem does not map it at all \
             (\"misaligned, unable to map\"), and a file that is padded for it loses what is written to the padding"
        ));
    }
    if block != 4096 {
        faults.push(format!(
            "blocks have {block} bytes: no file can be mapped from it, and Linux mounts with dax only where they are \
             pages, 4096; make it anew: e2dax mkfs -b 4096"
        ));
    }
    faults
}

fn why(coverage: &Coverage) -> String {
    let units = coverage.units;
    let reasons = [
        (units.fragmented, "fragmented"),
        (units.unaligned, "unaligned"),
        (units.hole, "part hole"),
        (units.mappable - coverage.ext4_driver, "array ends (ext4)"),
    ];
    let said: Vec<String> =
        reasons.iter().filter(|(count, _)| *count > 0).map(|(count, why)| format!("{count} {why}")).collect();
    said.join(", ")
}

fn print_rows(rows: &[Row], context: &mut Context) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let titles = ["units", "ours", "ext4", "path", "why not"];
    let mut lines = vec![titles.map(String::from).to_vec()];
    for row in rows {
        lines.push(vec![
            row.coverage.units.with_data().to_string(),
            row.coverage.full().to_string(),
            row.coverage.ext4_driver.to_string(),
            show(&row.path),
            why(&row.coverage),
        ]);
    }
    let columns = [Align::Right, Align::Right, Align::Right, Align::Left, Align::Left];
    table(&columns, &lines).into_iter().try_for_each(|line| context.out.line(line))?;
    context.out.line("")
}

fn summary(files: usize, total: &Coverage) -> String {
    let units = total.units.with_data();
    format!(
        "{files} files of 2 MiB and more, {units} whole units with data: {} mappable by us ({}), {} by Linux's ext4 \
         driver ({}; at most {} by any layout), {} by full mapping as XFS has it",
        total.full(),
        percent(total.full(), units),
        total.ext4_driver,
        percent(total.ext4_driver, units),
        total.ext4_ceiling,
        total.full(),
    )
}

fn coverage_to_json(coverage: &Coverage) -> Json {
    let units = coverage.units;
    object! {
        "units": units.with_data(),
        "ours": coverage.full(),
        "ext4_driver": coverage.ext4_driver,
        "ext4_ceiling": coverage.ext4_ceiling,
        "full_mapping": coverage.full(),
        "huge_zero": units.huge_zero,
        "hole": units.hole,
        "fragmented": units.fragmented,
        "unaligned": units.unaligned,
    }
}

fn to_json(rows: &[Row], total: &Coverage, faults: &[String], offset: u64, block: u64) -> Json {
    let files = rows.iter().map(|row| {
        let file = object! { "path": Json::bytes(&row.path), "size": row.size };
        file.with("coverage", coverage_to_json(&row.coverage))
    });
    object! {
        "files": Json::list(files),
        "container": object! {
            "offset": offset,
            "block_size": block,
            "faults": Json::list(faults.iter().map(String::as_str)),
        },
        "summary": coverage_to_json(total).with("files", rows.len()),
    }
}
