//! `check --seal`: whether an image is what it was when it was sealed.

use std::fs::File;
use std::path::Path;

use blockdev::{BlockDevice, Partition};
use ext2_image::FileRange;
use ext2_image::seal::{Error, Superblock, extent_of, find_seal, hex, read_superblock, verify};

use super::ERRORS_LEFT;
use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::json::object;
use crate::progress::bytes_bar;
use crate::target::Target;
use crate::verbs::seal::options::failed;

/// What to verify.
pub(super) struct Request<'r> {
    pub(super) root: &'r [u8],
    pub(super) hash_file: Option<&'r Path>,
    pub(super) quiet: bool,
    pub(super) json: bool,
}

impl Request<'_> {
    /// Says whether the seal is whole, of this root hash, and covers the whole file system; the exit code says it, too.
    pub(super) fn verify(
        &self,
        target: &Target,
        device: &dyn BlockDevice,
        context: &mut Context,
    ) -> Result<()> {
        let name = target.image_name();
        let bytes = extent_of(device).of(|| name.clone())?.bytes;
        match self.hash_file {
            Some(path) => {
                let host = |error| Failure::host(path, error);
                let file = File::open(path).map_err(host)?;
                let len = file.metadata().map_err(host)?.len();
                let tree = FileRange::new(&file, 0, len);
                let superblock =
                    read_superblock(&tree).map_err(|error| failed(path.display().to_string(), error))?;
                self.compare(&name, device, bytes, &tree, &superblock, context)
            }
            None => {
                let found = find_seal(device, bytes).map_err(|error| failed(name.clone(), error))?;
                let (offset, superblock) = found;
                let tree = Partition::from_offset(device, offset).of(|| name.clone())?;
                self.compare(&name, device, bytes, &tree, &superblock, context)
            }
        }
    }

    fn compare(
        &self,
        name: &str,
        data: &dyn BlockDevice,
        bytes: u64,
        tree: &dyn BlockDevice,
        superblock: &Superblock,
        context: &mut Context,
    ) -> Result<()> {
        let covered = superblock.data_blocks.saturating_mul(superblock.params.data_block.into());
        if covered < bytes {
            let what = format!("the seal covers {covered} bytes of {bytes} of the file system");
            return Err(failed(name.into(), Error::NoSeal(what)));
        }
        let bar = bytes_bar("verifying", covered);
        let mut found = Vec::new();
        let broken = verify(data, tree, superblock, self.root, &|hashed| bar.inc(hashed), &mut |broken| {
            found.push(broken);
        });
        bar.finish_and_clear();
        let broken = broken.map_err(|error| failed(name.into(), error))?;
        if broken > 0 {
            context.set_exit(ERRORS_LEFT);
        }
        if self.json {
            let faults: Vec<_> = found.iter().map(|broken| broken.to_string().into()).collect();
            context.out.json(&object! {
                "seal": hex(self.root),
                "broken_blocks": broken,
                "faults": crate::json::Json::List(faults),
            })?;
        } else {
            if !self.quiet {
                for broken in &found {
                    context.out.line(format_args!("seal: {broken}"))?;
                }
            }
            match broken {
                0 => context.out.line(format_args!(
                    "{name}: sealed, {covered} bytes are of root hash {}",
                    hex(self.root)
                ))?,
                1 => context.out.line(format_args!("{name}: the seal is broken"))?,
                _ => context.out.line(format_args!("{name}: the seal is broken in {broken} blocks"))?,
            }
        }
        Ok(())
    }
}
