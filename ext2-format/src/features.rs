//! Feature bits: what an image may use, and what of it is read and written here.
//!
//! Unknown bits survive a round trip. An unknown or unsupported *incompatible* bit refuses the image, a
//! *read-only compatible* one refuses writing, and a *compatible* one changes nothing.

use alloc::string::String;
use bitflags::bitflags;
use core::fmt::Write as _;

use crate::error::{Incompatible, Result};

bitflags! {
    /// `s_feature_compat`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct CompatFeatures: u32 {
        /// Blocks preallocated to directories.
        const DIR_PREALLOC = 0x1;
        /// AFS server inodes.
        const IMAGIC_INODES = 0x2;
        /// A journal (ext3).
        const HAS_JOURNAL = 0x4;
        /// Extended attributes.
        const EXT_ATTR = 0x8;
        /// Room for the descriptor table to grow, held by inode 7.
        const RESIZE_INODE = 0x10;
        /// Hashed directories.
        const DIR_INDEX = 0x20;
        /// Backups in at most two groups, named in the superblock.
        const SPARSE_SUPER2 = 0x200;
        const _ = !0;
    }

    /// `s_feature_incompat`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct IncompatFeatures: u32 {
        /// Compressed files.
        const COMPRESSION = 0x1;
        /// Directory entries carry the file's type.
        const FILETYPE = 0x2;
        /// The journal needs recovery.
        const RECOVER = 0x4;
        /// The device is a journal, not a file system.
        const JOURNAL_DEV = 0x8;
        /// Descriptors lie in the meta groups they describe.
        const META_BG = 0x10;
        /// A rewrite of the whole image by this library was interrupted, and has to be carried out before anything else
        /// is done (`ext2_image::rewrite`). Ours, and nobody else's, so that everybody else refuses the image.
        const UNFINISHED_REWRITE = 0x4000_0000;
        const _ = !0;
    }

    /// `s_feature_ro_compat`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct RoCompatFeatures: u32 {
        /// Backups only in groups 0, 1 and powers of 3, 5 and 7.
        const SPARSE_SUPER = 0x1;
        /// A file of 2 GiB or more has been there.
        const LARGE_FILE = 0x2;
        /// Directories as trees; never in use.
        const BTREE_DIR = 0x4;
        const _ = !0;
    }
}

/// The three sets of an image.
///
/// ```
/// use ext2_format::Features;
///
/// let mut features = Features::default();
/// features.apply("filetype,sparse_super,dir_index").expect("names of features");
/// features.apply("^dir_index").expect("the same with ^ to clear");
/// assert!(features.to_names().contains("filetype") && !features.to_names().contains("dir_index"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Features {
    /// May be ignored.
    pub compat: CompatFeatures,
    /// Must be known to read.
    pub incompat: IncompatFeatures,
    /// Must be known to write.
    pub ro_compat: RoCompatFeatures,
}

impl CompatFeatures {
    /// Names by bit, as `mke2fs -O` and `dumpe2fs` spell them.
    pub const NAMES: &[(u32, &str)] = &[
        (0x1, "dir_prealloc"),
        (0x2, "imagic_inodes"),
        (0x4, "has_journal"),
        (0x8, "ext_attr"),
        (0x10, "resize_inode"),
        (0x20, "dir_index"),
        (0x40, "lazy_bg"),
        (0x80, "exclude_inode"),
        (0x100, "snapshot_bitmap"),
        (0x200, "sparse_super2"),
        (0x400, "fast_commit"),
        (0x800, "stable_inodes"),
    ];
}

impl IncompatFeatures {
    /// Names by bit, as `mke2fs -O` and `dumpe2fs` spell them; the last is this project's.
    pub const NAMES: &[(u32, &str)] = &[
        (0x1, "compression"),
        (0x2, "filetype"),
        (0x4, "needs_recovery"),
        (0x8, "journal_dev"),
        (0x10, "meta_bg"),
        (0x40, "extents"),
        (0x80, "64bit"),
        (0x100, "mmp"),
        (0x200, "flex_bg"),
        (0x400, "ea_inode"),
        (0x1000, "dirdata"),
        (0x2000, "metadata_csum_seed"),
        (0x4000, "large_dir"),
        (0x8000, "inline_data"),
        (0x1_0000, "encrypt"),
        (0x2_0000, "casefold"),
        (0x4000_0000, "unfinished_rewrite"),
    ];
}

impl RoCompatFeatures {
    /// Names by bit, as `mke2fs -O` and `dumpe2fs` spell them.
    pub const NAMES: &[(u32, &str)] = &[
        (0x1, "sparse_super"),
        (0x2, "large_file"),
        (0x4, "btree_dir"),
        (0x8, "huge_file"),
        (0x10, "uninit_bg"),
        (0x20, "dir_nlink"),
        (0x40, "extra_isize"),
        (0x80, "has_snapshot"),
        (0x100, "quota"),
        (0x200, "bigalloc"),
        (0x400, "metadata_csum"),
        (0x800, "replica"),
        (0x1000, "read-only"),
        (0x2000, "project"),
        (0x4000, "shared_blocks"),
        (0x8000, "verity"),
    ];
}

/// Incompatible features that reading works with.
const READ: IncompatFeatures = IncompatFeatures::FILETYPE.union(IncompatFeatures::META_BG);
/// Read-only compatible features that writing works with. `extra_isize` only says that inodes have
/// room for extra fields, which we keep.
const WRITE: RoCompatFeatures = RoCompatFeatures::SPARSE_SUPER
    .union(RoCompatFeatures::LARGE_FILE)
    .union(RoCompatFeatures::BTREE_DIR)
    .union(EXTRA_ISIZE);
const EXTRA_ISIZE: RoCompatFeatures = RoCompatFeatures::from_bits_retain(0x40);

impl Features {
    /// Refuses what cannot be read.
    ///
    /// # Errors
    /// [`Incompatible`] with the names of the features; a journal that needs recovery has its own.
    pub fn check_readable(&self, ignore_journal: bool) -> Result<()> {
        let mut known = READ;
        if self.incompat.contains(IncompatFeatures::RECOVER) {
            if !ignore_journal {
                return Err(Incompatible::JournalNeedsRecovery.into());
            }
            known |= IncompatFeatures::RECOVER;
        }
        let unknown = self.incompat.bits() & !known.bits();
        if unknown != 0 {
            return Err(Incompatible::Feature(names(unknown, IncompatFeatures::NAMES)).into());
        }
        Ok(())
    }

    /// Refuses what cannot be written.
    ///
    /// # Errors
    /// [`Incompatible::ReadOnlyFeature`] with the names of the features.
    pub fn check_writable(&self) -> Result<()> {
        let unknown = self.ro_compat.bits() & !WRITE.bits();
        if unknown != 0 {
            return Err(Incompatible::ReadOnlyFeature(names(unknown, RoCompatFeatures::NAMES)).into());
        }
        if self.incompat.contains(IncompatFeatures::RECOVER) {
            return Err(Incompatible::JournalNeedsRecovery.into());
        }
        Ok(())
    }

    /// Changes the sets by a list of names as `mke2fs -O` takes it, separated by commas or spaces: a name sets its
    /// bit, a name with `^` clears it, `none` clears all.
    ///
    /// # Errors
    /// The name that is not known. Nothing is changed then.
    pub fn apply<'n>(&mut self, names: &'n str) -> Result<(), &'n str> {
        let mut next = *self;
        for name in names.split([',', ' ']).filter(|name| !name.is_empty()) {
            if name == "none" {
                next = Self::default();
                continue;
            }
            let (set, plain) = match name.strip_prefix('^') {
                Some(plain) => (false, plain),
                None => (true, name),
            };
            let bit = |table: &[(u32, &str)]| table.iter().find(|row| row.1 == plain).map_or(0, |row| row.0);
            let (compat, incompat, ro) =
                (bit(CompatFeatures::NAMES), bit(IncompatFeatures::NAMES), bit(RoCompatFeatures::NAMES));
            if compat | incompat | ro == 0 {
                return Err(name);
            }
            next.compat.set(CompatFeatures::from_bits_retain(compat), set);
            next.incompat.set(IncompatFeatures::from_bits_retain(incompat), set);
            next.ro_compat.set(RoCompatFeatures::from_bits_retain(ro), set);
        }
        *self = next;
        Ok(())
    }

    /// The names of all bits that are set, in the order of `dumpe2fs`, separated by spaces.
    #[must_use]
    pub fn to_names(&self) -> String {
        let sets: [(u32, &[_]); 3] = [
            (self.compat.bits(), CompatFeatures::NAMES),
            (self.incompat.bits(), IncompatFeatures::NAMES),
            (self.ro_compat.bits(), RoCompatFeatures::NAMES),
        ];
        let mut all = String::new();
        for (bits, table) in sets {
            if bits != 0 {
                if !all.is_empty() {
                    all.push(' ');
                }
                all.push_str(&names(bits, table));
            }
        }
        all
    }
}

/// The names of `bits`, separated by spaces; a bit without a name as its value.
fn names(bits: u32, table: &[(u32, &str)]) -> String {
    let mut all = String::new();
    for shift in 0..u32::BITS {
        let bit = 1 << shift;
        if bits & bit == 0 {
            continue;
        }
        if !all.is_empty() {
            all.push(' ');
        }
        match table.iter().find(|(known, _)| *known == bit) {
            Some((_, name)) => all.push_str(name),
            // Writing to a String does not fail.
            None => drop(write!(all, "{bit:#x}")),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use alloc::string::ToString;

    #[test]
    fn unsupported_features_are_refused_by_name() {
        let features = Features {
            incompat: IncompatFeatures::from_bits_retain(0x40 | 0x80 | 0x2),
            ..Features::default()
        };
        let error = features.check_readable(false).unwrap_err();
        assert_eq!(error, Error::Incompatible(Incompatible::Feature("extents 64bit".to_string())));
    }

    #[test]
    fn a_journal_that_needs_recovery_is_refused_unless_ignored_and_never_written() {
        let features = Features { incompat: IncompatFeatures::RECOVER, ..Features::default() };
        assert!(features.check_readable(false).is_err());
        assert!(features.check_readable(true).is_ok());
        assert!(features.check_writable().is_err());
    }

    #[test]
    fn names_set_and_clear_bits_and_an_unknown_one_changes_nothing() {
        let mut features = Features::default();
        features.apply("ext_attr,filetype sparse_super").unwrap();
        features.apply("^filetype,large_file").unwrap();
        assert_eq!(features.to_names(), "ext_attr sparse_super large_file");
        assert_eq!(features.apply("none,nonsense"), Err("nonsense"));
        assert_eq!(features.to_names(), "ext_attr sparse_super large_file");
        features.apply("none").unwrap();
        assert_eq!(features, Features::default());
    }

    #[test]
    fn a_bit_without_a_name_is_shown_as_its_value() {
        assert_eq!(names(0x8000_0002, IncompatFeatures::NAMES), "filetype 0x80000000");
    }
}
