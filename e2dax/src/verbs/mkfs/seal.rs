//! `mkfs --seal`.

use std::ffi::OsString;
use std::fs::File;

use ext2_image::mkfs::Plan;
use ext2_image::seal::{Params, Sealed, place_behind, seal_file};

use super::Args;
use crate::failure::{Failure, Result};
use crate::progress::bytes_bar;
use crate::text::show_os;
use crate::verbs::seal::options::failed;

/// The seal in the making; the file of the hash tree is there from the beginning.
pub(super) struct Seal {
    /// With nobody's salt: how much the tree takes.
    sizes: Params,
    tree: Option<File>,
}

impl Seal {
    /// What was asked for; `None` without `--seal`.
    pub(super) fn new(args: &Args) -> Result<Option<Self>> {
        if !args.seal {
            return match args.seal_options.given() {
                Some(option) => Err(Failure::usage(&OsString::from(option), "is for --seal")),
                None => Ok(None),
            };
        }
        let sizes = args.seal_options.params(&[0; 16])?;
        Ok(Some(Self { sizes, tree: args.seal_options.create_file(args.force)? }))
    }

    /// Bytes to leave free on a device of so many for the tree behind the file system.
    pub(super) fn bytes_for(&self, room: u64) -> u64 {
        match place_behind(room, &self.sizes) {
            // The file system ends at a block of data, and the tree begins at one of hashes.
            Ok((_, bytes)) if self.tree.is_none() => {
                bytes + u64::from(self.sizes.data_block.max(self.sizes.hash_block))
            }
            _ => 0,
        }
    }

    /// Seals what was made, which begins at byte `start` of `file` and has `room` bytes there, or as many as it takes.
    pub(super) fn add(
        &self,
        file: &File,
        start: u64,
        plan: &Plan,
        uuid: &[u8; 16],
        room: Option<u64>,
        args: &Args,
    ) -> Result<Sealed> {
        let geometry = plan.layout().geometry();
        let bytes = u64::from(geometry.blocks_count) * geometry.block_size.bytes();
        let params = args.seal_options.params(uuid)?;
        let bar = bytes_bar("hashing", bytes);
        let sealed =
            seal_file(file, start, bytes, room, self.tree.as_ref(), &params, &|hashed| bar.inc(hashed));
        bar.finish_and_clear();
        sealed.map_err(|error| failed(show_os(args.image.as_os_str()), error))
    }
}
