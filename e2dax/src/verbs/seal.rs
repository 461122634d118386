//! `seal`: a tree of hashes over an image, for dm-verity.

pub(crate) mod options;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::Path;

use blockdev::BlockDevice as _;
use ext2_image::FileRange;
use ext2_image::seal::{
    Behind, Extent, data_blocks, extent_of, look_behind, place_behind, seal_behind, seal_file,
};

use crate::beside::{NewFile, Output};
use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::progress::bytes_bar;
use crate::target::{Mode, Target};
use options::{SealOptions, failed, print, refuse_the_image, to_json};

/// Seal an image: add a dm-verity hash tree, and print the root hash
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax seal a.img                          the tree goes behind the file system
  e2dax seal a.img --hash-file a.verity     into a file of its own
  e2dax check --seal ROOTHASH a.img

Tree and superblock are the bytes of `veritysetup format` with the same salt and UUID; by default both derive from the
UUID of the file system, so that the same image gets the same root hash. Sealing a sealed image again replaces the seal.
The file system must not be changed afterwards: mount it read-only.")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    #[command(flatten)]
    options: SealOptions,

    /// Overwrite what lies behind the file system, or what is in the file for the tree
    #[arg(long, short)]
    force: bool,

    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse_image(&args.image)?;
    let options = &args.options;
    // Open for changes, which keeps others away, wherever the tree goes.
    let device = target.open_device(&context.image, Mode::Write, context.image.durability())?;
    let name = || target.image_name();
    let Extent { bytes, uuid, clean } = extent_of(&*device).of(name)?;
    if !clean {
        context.note(&format!("{}: was not unmounted cleanly, and is sealed as it is", name()));
    }
    let params = options.params(&uuid)?;
    if let Some(path) = &options.hash_file {
        refuse_the_image(path, &target.image)?;
    }
    let tree = match &options.hash_file {
        Some(path) => Some(tree_file(path, args.force, context.image.wait)?),
        None => None,
    };
    let (old, size) = (seal_behind(&*device, bytes).map_err(|error| failed(name(), error))?, device.size());
    let behind = look_behind(&*device, bytes, &params).map_err(|error| failed(name(), error))?;
    if tree.is_none() && behind == Behind::Other && !args.force {
        return Err(Failure::text(name(), "something lies behind the file system: --force overwrites it"));
    }
    let file = OpenOptions::new().read(true).write(true).open(&target.image);
    let file = file.map_err(|error| Failure::host(&target.image, error))?;
    let room = (!target.can_grow()).then(|| device.size());
    if let Some(old) = old.as_ref().filter(|_| tree.is_none()) {
        // The last block of data may reach into the seal that is replaced: what is hashed is not changed afterwards.
        let (start, len) = place_behind(bytes, &params).map_err(|error| failed(name(), error))?;
        let data_end = data_blocks(bytes, &params) * u64::from(params.data_block);
        if room.is_none_or(|room| room >= start + len) {
            let len = data_end.min(old.end).min(size).saturating_sub(old.start);
            FileRange::new(&file, target.offset() + old.start, len).zero(0, len).of(name)?;
        }
    }
    let bar = bytes_bar("hashing", bytes);
    let tree_file = tree.as_ref().map(NewFile::file);
    let sealed =
        seal_file(&file, target.offset(), bytes, room, tree_file, &params, &|hashed| bar.inc(hashed));
    bar.finish_and_clear();
    let sealed = sealed.map_err(|error| failed(name(), error))?;
    if let Some(old) = old.filter(|_| tree.is_none()) {
        // No rest of another seal: sealed twice is sealed once.
        let (start, end) = (sealed.tree_offset, sealed.tree_offset + sealed.tree_bytes);
        let mut old_end = old.end.min(size);
        if room.is_none() && old.end >= size {
            let cut = file.set_len(target.offset() + end);
            cut.map_err(|error| Failure::host(&target.image, error))?;
            old_end = end;
        }
        for rest in [old.start..start.min(old_end), end..old_end] {
            let len = rest.end.saturating_sub(rest.start);
            FileRange::new(&file, target.offset() + rest.start, len).zero(0, len).of(name)?;
        }
    }
    tree.map_or(Ok(()), NewFile::publish)?;
    if args.json {
        return context.out.json(&to_json(&sealed, options));
    }
    print(&sealed, options, context)
}

/// What a tree of its own is written to, which takes the place of an old one when it is whole.
///
/// # Errors
/// What is there, without `force`; what is neither a file nor a block device; what is in use; the system's.
pub(super) fn tree_file(path: &Path, force: bool, wait: bool) -> Result<NewFile> {
    let output = Output::find(path)?;
    output.need_force(force)?;
    output.open(false, wait)
}
