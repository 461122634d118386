//! `df`: the space that is left.

use std::ffi::OsString;

use ext2_core::StatFs;

use crate::context::Context;
use crate::failure::{Of, Result};
use crate::json::object;
use crate::target::{Mode, Target};
use crate::text::{Align, human, percent, table};

/// Show used and free space, in bytes and in inodes
#[derive(clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Example:
  e2dax df a.img b.img@p1

The numbers are what df shows for the mounted image: the file system's own structures are left out, and blocks
reserved for root are neither used nor available."
)]
pub(crate) struct Args {
    /// Images
    #[arg(value_name = "IMG", required = true)]
    images: Vec<OsString>,

    /// Sizes as people read them: 1.5K, 20M
    #[arg(short = 'h', long = "human-readable")]
    human: bool,

    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,

    /// Print a JSON object for each image
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let titles = ["image", "bytes", "used", "available", "use", "inodes", "iused", "ifree"];
    let mut rows = vec![titles.map(String::from).to_vec()];
    for argument in &args.images {
        let space = Target::parse_image(argument).and_then(|target| {
            let fs = target.open(&context.image, Mode::Glance)?;
            Ok((target.image_name(), fs.statfs().of(|| target.image_name())?))
        });
        let Some((name, space)) = context.or_complain(space)? else { continue };
        if args.json {
            context.out.json(&to_json(argument, &space))?;
        } else {
            rows.push(row(args, name, &space));
        }
    }
    if args.json || rows.len() == 1 {
        return Ok(());
    }
    let columns: Vec<Align> =
        (0..titles.len()).map(|nr| if nr == 0 { Align::Left } else { Align::Right }).collect();
    table(&columns, &rows).into_iter().try_for_each(|line| context.out.line(line))
}

fn used(space: &StatFs) -> u64 {
    space.blocks.saturating_sub(space.blocks_free)
}

fn row(args: &Args, name: String, space: &StatFs) -> Vec<String> {
    let bytes = |blocks: u64| match blocks * space.block_size {
        bytes if args.human => human(bytes),
        bytes => bytes.to_string(),
    };
    vec![
        name,
        bytes(space.blocks),
        bytes(used(space)),
        bytes(space.blocks_available),
        percent(used(space), used(space) + space.blocks_available),
        space.files.to_string(),
        space.files.saturating_sub(space.files_free).to_string(),
        space.files_free.to_string(),
    ]
}

fn to_json(argument: &OsString, space: &StatFs) -> crate::json::Json {
    use std::os::unix::ffi::OsStrExt;
    let bytes = |blocks: u64| blocks * space.block_size;
    object! {
        "image": crate::json::Json::bytes(argument.as_bytes()),
        "size": bytes(space.blocks),
        "used": bytes(used(space)),
        "free": bytes(space.blocks_free),
        "available": bytes(space.blocks_available),
        "block_size": space.block_size,
        "inodes": space.files,
        "inodes_used": space.files.saturating_sub(space.files_free),
        "inodes_free": space.files_free,
    }
}
