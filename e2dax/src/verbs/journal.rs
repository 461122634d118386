//! `journal`: what the journal inside an image holds.

use std::ffi::OsString;

use ext2_image::inspect::{JournalBlock, journal};

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::json::{Json, object};
use crate::target::{Mode, Target};
use crate::text::{Align, count, table};

/// Show what the journal of an image holds
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax journal disk.img
  e2dax journal --json disk.img | jq 'select(.kind == \"commit\")'

Each line is a block of the journal itself: its number in the journal and on the device, what it is, its transaction, and
for descriptors and revocations the blocks that they name. Copies of blocks follow their descriptor.")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    /// Print a JSON object for each block
    #[arg(long)]
    json: bool,
}

/// The kind of a block.
fn kind(block: &JournalBlock) -> &'static str {
    match block.kind() {
        1 => "descriptor",
        2 => "commit",
        3 | 4 => "superblock",
        5 => "revoke",
        _ => "unknown",
    }
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse_image(&args.image)?;
    let name = || target.image_name();
    let raw = target.open_raw(&context.image, Mode::Read)?;
    if raw.layout.superblock().of(name)?.journal_inode.is_none() {
        return Err(Failure::text(name(), "has no journal"));
    }
    let (inode, blocks) = journal(&*raw.device, &raw.layout).of(name)?;
    if args.json {
        return blocks.iter().try_for_each(|block| context.out.json(&to_json(block)));
    }
    context.out.line(format_args!("inode {inode}, {}", count(blocks.len() as u64, "block of its own")))?;
    let mut rows = vec![["journal", "device", "kind", "sequence", "blocks"].map(String::from).to_vec()];
    for block in &blocks {
        let what = match kind(block) {
            "superblock" => {
                let told = |name: &str| block.fields.iter().find(|field| field.name == name);
                let value = |name| told(name).map_or_else(String::new, |field| field.value.to_string());
                format!("{} blocks, log begins at {}", value("s_maxlen"), value("s_start"))
            }
            _ => block.blocks().iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
        };
        rows.push(vec![
            block.nr.to_string(),
            block.block.to_string(),
            kind(block).into(),
            block.sequence().to_string(),
            what,
        ]);
    }
    let columns = [Align::Right, Align::Right, Align::Left, Align::Right, Align::Left];
    table(&columns, &rows).into_iter().try_for_each(|line| context.out.line(line))
}

fn to_json(block: &JournalBlock) -> Json {
    object! {
        "nr": block.nr,
        "block": block.block,
        "kind": kind(block),
        "sequence": block.sequence(),
        "blocks": Json::list(block.blocks()),
    }
}
