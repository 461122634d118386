//! `mkfs --seal`.

use std::ffi::OsString;
use std::fs::File;

use ext2_image::mkfs::Plan;
use ext2_image::seal::{Params, Sealed, place_behind, seal_file};

use super::Args;
use crate::beside::NewFile;
use crate::failure::{Failure, Result};
use crate::progress::bytes_bar;
use crate::text::show_os;
use crate::verbs::seal::options::{failed, refuse_the_image};
use crate::verbs::seal::tree_file;

/// The seal in the making.
pub(super) struct Seal {
    /// With nobody's salt: how much the tree takes.
    sizes: Params,
    /// Whether the tree goes into a file of its own.
    is_beside: bool,
    /// Whether to wait for who uses its file.
    wait: bool,
}

impl Seal {
    /// What was asked for; `None` without `--seal`.
    pub(super) fn new(args: &Args, wait: bool) -> Result<Option<Self>> {
        if !args.seal {
            return match args.seal_options.given() {
                Some(option) => Err(Failure::usage(&OsString::from(option), "is for --seal")),
                None => Ok(None),
            };
        }
        let sizes = args.seal_options.params(&[0; 16])?;
        let beside = args.seal_options.hash_file.as_ref();
        if let Some(path) = beside {
            if path.exists() && !args.force {
                return Err(Failure::text(show_os(path.as_os_str()), "exists: --force replaces it"));
            }
            refuse_the_image(path, &args.image)?;
        }
        Ok(Some(Self { sizes, is_beside: beside.is_some(), wait }))
    }

    /// Bytes to leave free on a device of so many for the tree behind the file system.
    pub(super) fn bytes_for(&self, room: u64) -> u64 {
        match place_behind(room, &self.sizes) {
            // The file system ends at a block of data, and the tree begins at one of hashes.
            Ok((_, bytes)) if !self.is_beside => {
                bytes + u64::from(self.sizes.data_block.max(self.sizes.hash_block))
            }
            _ => 0,
        }
    }

    /// Where what belongs to a file system of so many bytes ends.
    pub(super) fn end_for(&self, bytes: u64) -> u64 {
        match place_behind(bytes, &self.sizes) {
            Ok((offset, len)) if !self.is_beside => offset + len,
            _ => bytes,
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
    ) -> Result<(Sealed, Option<NewFile>)> {
        let geometry = plan.layout().geometry();
        let bytes = u64::from(geometry.blocks_count) * geometry.block_size.bytes();
        let params = args.seal_options.params(uuid)?;
        let tree = match &args.seal_options.hash_file {
            Some(path) => Some(tree_file(path, args.force, self.wait)?),
            None => None,
        };
        let bar = bytes_bar("hashing", bytes);
        let tree_file = tree.as_ref().map(NewFile::file);
        let sealed = seal_file(file, start, bytes, room, tree_file, &params, &|hashed| bar.inc(hashed));
        bar.finish_and_clear();
        let sealed = sealed.map_err(|error| failed(show_os(args.image.as_os_str()), error))?;
        Ok((sealed, tree))
    }
}
