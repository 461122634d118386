//! `deleted`: inodes that were deleted and are still there.

use std::ffi::OsString;

use ext2_core::Timestamp;
use ext2_image::fields::mode_letters;
use ext2_image::inspect::{Deleted, deleted};

use crate::context::Context;
use crate::failure::{Of, Result};
use crate::json::{Json, object};
use crate::target::{Mode, Target};
use crate::text::{Align, table, time_utc};

/// List deleted inodes whose contents may still be there
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax deleted disk.img
  e2dax undelete 'disk.img:<12>' disk.img:/found

Linux and e2dax clear a file's pointers when they delete it, so its contents cannot be found. debugfs leaves them,
and so may a crash.")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    /// Print a JSON object for each inode
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse_image(&args.image)?;
    let raw = target.open_raw(&context.image, Mode::Read)?;
    let found = deleted(&*raw.device, &raw.layout).of(|| target.image_name())?;
    if args.json {
        return found.iter().try_for_each(|inode| context.out.json(&to_json(inode)));
    }
    if found.is_empty() {
        return context.out.line("nothing that was deleted can be found");
    }
    let titles = ["inode", "owner", "mode", "size", "free", "blocks", "deleted"];
    let mut rows = vec![titles.map(String::from).to_vec()];
    for inode in &found {
        rows.push(vec![
            inode.inode.to_string(),
            inode.uid.to_string(),
            mode_letters(inode.mode),
            inode.size.to_string(),
            inode.free.to_string(),
            inode.blocks.to_string(),
            format!("{} UTC", time_utc(Timestamp::from_secs(inode.deleted_at.into()))),
        ]);
    }
    let columns =
        [Align::Right, Align::Right, Align::Left, Align::Right, Align::Right, Align::Right, Align::Left];
    table(&columns, &rows).into_iter().try_for_each(|line| context.out.line(line))
}

fn to_json(inode: &Deleted) -> Json {
    object! {
        "inode": inode.inode.get(),
        "mode": format!("{:04o}", inode.mode & 0o7777),
        "uid": inode.uid,
        "size": inode.size,
        "blocks": inode.blocks,
        "free": inode.free,
        "deleted_at": inode.deleted_at.to_string(),
    }
}
