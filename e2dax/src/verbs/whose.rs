//! `whose`: from blocks and inodes to names.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use ext2_core::{Follow, InodeNr};
use ext2_image::Walk;
use ext2_image::inspect::{Use, whose};

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::json::{Json, object};
use crate::progress::count_bar;
use crate::target::{Mode, Target};
use crate::text::show;

/// Show which file or structure blocks belong to, and the names of inodes
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax whose disk.img 34 35 36
  e2dax whose disk.img --byte 123456
  e2dax whose disk.img --inode 12          all names of inode 12")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    /// Blocks of the device
    #[arg(value_name = "BLOCK", required_unless_present_any = ["byte", "inode"])]
    blocks: Vec<u32>,

    /// The block with this byte of the file system
    #[arg(long, value_name = "OFFSET", value_parser = crate::text::parse_bytes)]
    byte: Vec<u64>,

    /// All names of this inode
    #[arg(long, value_name = "NR")]
    inode: Vec<u32>,

    /// Print a JSON object for each block and inode
    #[arg(long)]
    json: bool,
}

/// The names of inodes.
type Names = BTreeMap<InodeNr, Vec<Vec<u8>>>;

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse_image(&args.image)?;
    let image = || target.image_name();
    let raw = target.open_raw(&context.image, Mode::Read)?;
    let geo = raw.layout.geometry().of(image)?;
    let mut blocks = args.blocks.clone();
    for byte in &args.byte {
        let block = u32::try_from(byte / geo.block_size.bytes());
        blocks.push(block.map_err(|_| Failure::text(image(), format!("has no byte {byte}")))?);
    }
    if let Some(block) = blocks.iter().find(|&&block| block >= geo.blocks_count) {
        return Err(Failure::text(image(), format!("has no block {block}; there are {}", geo.blocks_count)));
    }
    let bar = count_bar("groups", geo.groups.into());
    let uses = whose(&*raw.device, &raw.layout, &blocks, &mut |done, _| bar.set_position(done.into()));
    bar.finish_and_clear();
    let uses = uses.of(image)?;
    let mut inodes: BTreeSet<InodeNr> = uses.values().flatten().filter_map(Use::inode).collect();
    for nr in &args.inode {
        let known = InodeNr::new(*nr).filter(|nr| nr.get() <= geo.inodes_count);
        inodes.insert(known.ok_or_else(|| Failure::text(image(), format!("has no inode {nr}")))?);
    }
    drop(raw);
    let names = if inodes.is_empty() { Names::new() } else { names(context, &target, &inodes)? };
    for block in &blocks {
        let uses = uses.get(block).map(Vec::as_slice).unwrap_or_default();
        print_block(args.json, context, *block, uses, &names)?;
    }
    for nr in args.inode.iter().filter_map(|&nr| InodeNr::new(nr)) {
        let names = names.get(&nr).map(Vec::as_slice).unwrap_or_default();
        if args.json {
            let names = Json::list(names.iter().map(|name| Json::bytes(name)));
            context.out.json(&object! { "inode": nr.get(), "names": names })?;
        } else {
            let text: Vec<String> = names.iter().map(|name| show(name)).collect();
            let text = if text.is_empty() { "no name leads to it".into() } else { text.join(" ") };
            context.out.line(format_args!("{nr}: {text}"))?;
        }
    }
    Ok(())
}

/// All names of some inodes. Parts of the tree that cannot be read are complained of.
fn names(context: &mut Context, target: &Target, inodes: &BTreeSet<InodeNr>) -> Result<Names> {
    let mut names = Names::new();
    let root = target.with_path(b"/");
    let (_fs, start) = match root.resolve(&context.image, Mode::Read, Follow::No) {
        Ok(found) => found,
        Err(failure) => {
            context.complain(&failure);
            return Ok(names);
        }
    };
    for step in Walk::new(&start, b"/") {
        match step {
            Ok(found) if inodes.contains(&found.inode.nr()) => {
                names.entry(found.inode.nr()).or_default().push(found.path);
            }
            Ok(_) => {}
            Err(error) => context.complain(&Failure::new(target.name_of(&error.path), error.error)),
        }
    }
    Ok(names)
}

fn print_block(json: bool, context: &mut Context, block: u32, uses: &[Use], names: &Names) -> Result<()> {
    let of = |one: &Use| one.inode().and_then(|nr| names.get(&nr)).map(Vec::as_slice).unwrap_or_default();
    if !json {
        let text: Vec<String> = uses
            .iter()
            .map(|one| {
                let called: Vec<String> = of(one).iter().map(|name| show(name)).collect();
                if called.is_empty() { one.to_string() } else { format!("{one}, {}", called.join(" ")) }
            })
            .collect();
        return context.out.line(format_args!("{block}: {}", text.join("; ")));
    }
    for one in uses {
        let (group, at, level) = match one {
            Use::Superblock(group)
            | Use::Descriptors(group)
            | Use::ReservedDescriptors(group)
            | Use::BlockBitmap(group)
            | Use::InodeBitmap(group)
            | Use::InodeTable { group, .. } => (Some(group.get()), None, None),
            Use::Contents { at, .. } => (None, Some(*at), None),
            Use::Indirect { level, .. } => (None, None, Some(*level)),
            _ => (None, None, None),
        };
        context.out.json(&object! {
            "block": block,
            "use": one.name(),
            "group": group,
            "inode": one.inode().map(InodeNr::get),
            "at": at,
            "level": level,
            "names": Json::list(of(one).iter().map(|name| Json::bytes(name))),
        })?;
    }
    Ok(())
}
