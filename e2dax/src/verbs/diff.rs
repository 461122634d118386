//! `diff`: two images compared, file by file and field by field.

use std::ffi::OsString;

use ext2_core::{Ext2, FileBlock, Follow, Mapping};
use ext2_image::manifest::{Difference, Manifest, diff, from_image, quote};
use ext2_image::mkfs::first_difference;

use crate::context::Context;
use crate::failure::{FAILED, Of, Result};
use crate::json::{Json, object};
use crate::target::{Mode, Target};

/// Compare two images, file by file and field by field
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax diff before.img after.img
  e2dax diff --layout a.img b.img          also where the blocks of files lie
  e2dax diff --bits a.img b.img            are builds the same, bit for bit?

Each line is a difference: path, field, left, right. Compared are names, types, modes, owners, times, links, attributes,
flags, holes and bytes, and what the file system itself is. Where these are the same and bits are not, the last line
names the first structure and field that differs. Exit code: 0 the same, 1 different.")]
pub(crate) struct Args {
    /// The left image
    #[arg(value_name = "A")]
    left: OsString,

    /// The right image
    #[arg(value_name = "B")]
    right: OsString,

    /// Compare inode numbers and the places of blocks, too
    #[arg(long)]
    layout: bool,

    /// Images whose bits differ are different
    #[arg(long)]
    bits: bool,

    /// Print a JSON object for each difference
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let (left, right) = (Target::parse(&args.left)?, Target::parse(&args.right)?);
    let (a, b) = (left.open(&context.image, Mode::Read)?, right.open(&context.image, Mode::Read)?);
    let x = from_image(&a).of(|| left.image_name())?;
    let y = from_image(&b).of(|| right.image_name())?;
    let mut found = diff(&x, &y);
    if args.layout {
        found.extend(layout(&a, &b, &x, &y).of(|| left.image_name())?);
    }
    for difference in &found {
        context.set_exit(FAILED);
        if args.json {
            context.out.json(&to_json(difference))?;
        } else {
            context.out.line(difference)?;
        }
    }
    if !found.is_empty() && !args.bits {
        return Ok(());
    }
    if let Some(first) = first_difference(&a, &b).of(|| left.image_name())? {
        if args.bits {
            context.set_exit(FAILED);
        }
        if args.json {
            let field = first.field.as_str();
            context.out.json(
                &object! { "byte": first.offset, "structure": first.structure.as_str(), "field": field },
            )?;
        } else {
            context.out.line(format_args!("bits: {first}"))?;
        }
    }
    Ok(())
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

fn to_json(difference: &Difference) -> Json {
    object! {
        "path": Json::Text(quote(&difference.path)),
        "field": difference.field.as_str(),
        "left": difference.left.as_str(),
        "right": difference.right.as_str(),
    }
}
