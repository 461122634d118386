//! `info`: what an image is.

use std::ffi::OsString;

use ext2_core::{Ext2, OnError, StatFs, Superblock, Timestamp};

use crate::context::Context;
use crate::dax::PAGE;
use crate::failure::{Of, Result};
use crate::json::{Json, object};
use crate::target::{Mode, Target};
use crate::text::{Align, show, table, time_number, time_utc, uuid};

/// Show what an image is: format, features, geometry, space, times
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax info disk.img
  e2dax info --json disk.img@p2: | jq .block_size
  e2dax info --superblock 32768:4096 broken.img")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse_image(&args.image)?;
    let fs = target.open(&context.image, Mode::Glance)?;
    let space = fs.statfs().of(|| target.image_name())?;
    let dax = dax(&fs, target.bias(&**fs.device()));
    if args.json {
        return context.out.json(&to_json(&fs, &space, dax.is_ok()));
    }
    let dax = dax.map_or_else(|why| format!("no: {why}"), |how| format!("yes, {how}"));
    for line in table(&[Align::Left, Align::Left], &rows(&fs, &space, dax)) {
        context.out.line(line)?;
    }
    Ok(())
}

/// Whether files can be mapped, with pages of which size; or why not. `bias` is how far behind a multiple of 2 MiB of memory
/// the file system begins.
fn dax(fs: &Ext2, bias: u64) -> std::result::Result<String, String> {
    let block = fs.geometry().block_size.bytes();
    if block != PAGE {
        let than = if block < PAGE { "smaller" } else { "larger" };
        return Err(format!("blocks of {block} bytes are {than} than a page of {PAGE}"));
    }
    if fs.device().dax().is_none() {
        return Err("opened this way, the image is not memory".into());
    }
    Ok(match bias {
        0 => "with pages of 4 KiB and of 2 MiB".into(),
        _ => format!("with pages of 4 KiB only: it begins {bias} bytes behind a multiple of 2 MiB"),
    })
}

fn on_error(sb: &Superblock) -> &'static str {
    match sb.on_error {
        OnError::Continue => "continue",
        OnError::RemountRo => "remount-ro",
    }
}

fn state(sb: &Superblock) -> &'static str {
    match (sb.clean, sb.has_errors) {
        (_, true) => "errors",
        (true, false) => "clean",
        (false, false) => "not clean",
    }
}

/// A time that is 0 was never noted.
fn noted(time: Timestamp) -> Option<Timestamp> {
    (time != Timestamp::default()).then_some(time)
}

fn to_json(fs: &Ext2, space: &StatFs, is_dax: bool) -> Json {
    let (sb, geo) = (fs.superblock(), fs.geometry());
    let block = sb.block_size.bytes();
    let names: Vec<Json> = sb.features.to_names().split_whitespace().map(Json::from).collect();
    let time = |time| noted(time).map(time_number);
    object! {
        "label": Json::bytes(&sb.label),
        "uuid": uuid(&sb.uuid),
        "revision": sb.revision,
        "features": names,
        "state": state(sb),
        "on_error": on_error(sb),
        "size": u64::from(sb.blocks_count) * block,
        "device_size": fs.device().size(),
        "dax": is_dax,
        "block_size": block,
        "blocks": sb.blocks_count,
        "blocks_free": space.blocks_free,
        "blocks_reserved": sb.reserved_blocks,
        "inode_size": sb.inode_size,
        "inodes": sb.inodes_count,
        "inodes_free": space.files_free,
        "first_inode": sb.first_ino,
        "first_data_block": sb.first_data_block,
        "groups": geo.groups,
        "blocks_per_group": sb.blocks_per_group,
        "inodes_per_group": sb.inodes_per_group,
        "reserved_descriptor_blocks": sb.reserved_gdt_blocks,
        "journal_inode": sb.journal_inode.map(|nr| nr.get()),
        "max_file_size": fs.max_size(),
        "created": time(sb.created),
        "mounted": time(sb.mounted),
        "written": time(sb.written),
        "checked": time(sb.checked),
        "mount_count": sb.mount_count,
        "max_mount_count": sb.max_mount_count,
        "last_mounted_on": Json::bytes(&sb.last_mounted),
    }
}

fn rows(fs: &Ext2, space: &StatFs, dax: String) -> Vec<Vec<String>> {
    let (sb, geo) = (fs.superblock(), fs.geometry());
    let block = sb.block_size.bytes();
    let none = || String::from("-");
    let text = |bytes: &[u8]| if bytes.is_empty() { none() } else { show(bytes) };
    let time = |time| noted(time).map_or_else(none, |time| format!("{} UTC", time_utc(time)));
    let blocks = |count: u64| format!("{count} blocks, {} bytes", count * block);
    let mut rows = vec![
        ("label", text(&sb.label)),
        ("uuid", uuid(&sb.uuid)),
        ("revision", sb.revision.to_string()),
        ("features", text(sb.features.to_names().as_bytes())),
        ("state", state(sb).into()),
        ("on error", on_error(sb).into()),
        ("size", blocks(u64::from(sb.blocks_count))),
        ("free", blocks(space.blocks_free)),
        ("reserved", blocks(u64::from(sb.reserved_blocks))),
        ("device", format!("{} bytes", fs.device().size())),
        ("dax", dax),
        (
            "block size",
            match block {
                PAGE => format!("{block} bytes"),
                _ => format!("{block} bytes; e2dax mkfs -b 4096 makes an image whose files can be mapped"),
            },
        ),
        ("inode size", format!("{} bytes", sb.inode_size)),
        ("inodes", format!("{}, {} free, first {}", sb.inodes_count, space.files_free, sb.first_ino)),
        (
            "groups",
            format!("{} of {} blocks and {} inodes", geo.groups, sb.blocks_per_group, sb.inodes_per_group),
        ),
        ("largest file", format!("{} bytes", fs.max_size())),
        ("created", time(sb.created)),
        ("mounted", format!("{}, mount {} since the last check", time(sb.mounted), sb.mount_count)),
        ("mounted on", text(&sb.last_mounted)),
        ("written", time(sb.written)),
        ("checked", time(sb.checked)),
    ];
    if let Some(journal) = sb.journal_inode {
        rows.push(("journal", format!("inode {journal}")));
    }
    rows.into_iter().map(|(key, value)| vec![format!("{key}:"), value]).collect()
}
