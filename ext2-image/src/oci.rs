//! Container images as trees: OCI layouts and `docker save` archives, layers applied one over the other.
//!
//! An image is a directory or a tar archive of one. Either has blobs under their digests (OCI image layout), or an older
//! `manifest.json` that names layers and a config (docker).
//!
//! # Invariants
//! 1. Every blob is what its digest says, or nothing is made of it; of `docker save`, every layer is what the config says.
//! 2. A layer is applied by the rules of the OCI image specification: its whiteouts first, which are about the layers
//!    below alone, then its members. Links are followed inside the root and never out of it.
//! 3. Which image is taken depends on what is asked for, not on the machine that asks.
//! 4. Memory is bounded by names and attributes; documents are at most 4 MiB; layers are unpacked into files without a
//!    name.
//!
//! ```no_run
//! use ext2_image::mkfs::source::Times;
//! use ext2_image::mkfs::{FileOutput, Format, Fresh, Options, Plan};
//! use ext2_image::oci::{self, Wanted};
//!
//! let wanted = Wanted { tag: Some("latest".into()), ..Wanted::default() };
//! let spool = std::env::temp_dir();
//! let (tree, mut contents) = oci::read("alpine.tar".as_ref(), &wanted, &spool, Times::Modified)?;
//! let plan = Plan::new(tree, &Format::default(), &Options::default())?;
//! let image = std::fs::File::create_new("alpine.img")?;
//! image.set_len(plan.bytes())?;
//! plan.write(&mut contents, &FileOutput::new(&image, 0, plan.bytes(), Fresh::Zeros), &mut |_| ())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blob;
mod choose;
mod digest;
mod document;
mod layers;
mod place;
mod store;

use std::path::Path;

use crate::archive::{ArchiveContents, Merge, Replace};
use crate::mkfs::source::Times;
use crate::mkfs::{Result, Tree};

pub use choose::Platform;
pub(crate) use layers::without_layers;
pub use layers::{add_layer, add_tree, is_whiteout};
pub use place::Place;

/// Which image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its tag; none where there is but one.
    pub tag: Option<String>,
    /// Its platform; none where there is but one.
    pub platform: Option<Platform>,
}

/// Puts all layers of an image into a tree. `spool` is the folder for what is unpacked.
///
/// # Errors
/// `Source`, with the name of the blob or document; `Entry`.
pub fn add(merge: &mut Merge, image: &Path, wanted: &Wanted, spool: &Path) -> Result<()> {
    let store = store::Store::open(image, spool)?;
    let layers = choose::layers(&store, wanted)?;
    layers::add(merge, &store, &layers, spool)
}

/// The tree of an image.
///
/// # Errors
/// As [`add`].
pub fn read(image: &Path, wanted: &Wanted, spool: &Path, times: Times) -> Result<(Tree, ArchiveContents)> {
    let mut merge = Merge::new(Replace::Layer, times);
    add(&mut merge, image, wanted, spool)?;
    merge.finish()
}
