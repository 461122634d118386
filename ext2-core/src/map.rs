//! The block map of an inode in use. How a map is read is in `ext2_format::map`; what lookups found lately is in `ext2_cache`.

pub(crate) use ext2_cache::Runs;
#[cfg(feature = "write")]
pub(crate) use ext2_format::map::Path;
pub(crate) use ext2_format::map::{
    DIRECT, KnownRun, Mapping, Pointers, SLOTS, Shape, Tree, lookup, lookup_one,
};
