//! The modules whose code is mutated, and the files that each is made of.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A module: its name, and its files and folders from the root of the workspace on.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// What it is called in tables.
    pub name: &'static str,
    places: &'static [&'static str],
}

const fn module(name: &'static str, places: &'static [&'static str]) -> Module {
    Module { name, places }
}

/// All of them.
pub const ALL: &[Module] = &[
    module("map", &["ext2-format/src/map.rs", "ext2-format/src/map"]),
    module("order", &["ext2-core/src/order.rs"]),
    module("inode", &["ext2-core/src/inode.rs", "ext2-core/src/inode"]),
    module("balloc", &["ext2-core/src/balloc.rs", "ext2-core/src/balloc"]),
    module("dir", &["ext2-core/src/dir.rs", "ext2-core/src/dir"]),
    module("namei", &["ext2-core/src/namei.rs", "ext2-core/src/namei"]),
    module("fault", &["ext2-dax/src/fault.rs", "ext2-dax/src/fault"]),
    module("mapping", &["ext2-dax/src/mapping.rs", "ext2-dax/src/mapping"]),
    module("entry", &["ext2-dax/src/entry.rs"]),
    module("rw", &["ext2-dax/src/rw.rs"]),
    module("writeback", &["ext2-dax/src/writeback.rs"]),
    module("lease", &["ext2-dax/src/lease.rs", "ext2-dax/src/leases.rs", "ext2-dax/src/file/lease.rs"]),
];

/// The crates that those modules are of.
pub const CRATES: &[&str] = &["ext2-format", "ext2-core", "ext2-dax"];

impl Module {
    /// Its files, from `root` on, in the order of their names.
    ///
    /// # Errors
    /// A place that is not there.
    pub fn files(&self, root: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for place in self.places {
            collect(root, Path::new(place), &mut found)?;
        }
        found.sort();
        Ok(found)
    }
}

fn collect(root: &Path, place: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if !fs::metadata(root.join(place))?.is_dir() {
        found.push(place.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(root.join(place))? {
        collect(root, &place.join(entry?.file_name()), found)?;
    }
    Ok(())
}
