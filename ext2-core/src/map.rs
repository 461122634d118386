//! The block map of an inode in use: what lookups found lately. How a map is read is in `ext2_format::map`.

mod runs;

#[cfg(feature = "write")]
pub(crate) use ext2_format::map::Path;
pub(crate) use ext2_format::map::{
    DIRECT, KnownRun, Mapping, Pointers, SLOTS, Shape, Tree, lookup, lookup_one,
};
pub(crate) use runs::Runs;
