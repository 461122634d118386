//! Changing what the superblock says of an image that exists: names, limits, times, options and features.
//!
//! The new values come into the superblock and its copies in one step (see [`rewrite`](crate::rewrite)).
//!
//! ```
//! use ext2_core::{Ext2, OpenOptions};
//! use ext2_image::tune::Tune;
//!
//! let image = ext2_image::mkfs::in_memory(8 << 20)?;
//! Tune { label: Some(b"rootfs".to_vec()), ..Tune::default() }.apply(&image, &Default::default())?;
//! assert_eq!(Ext2::open(image, &OpenOptions::read_only())?.superblock().label, b"rootfs");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use alloc::vec::Vec;

use blockdev::BlockDevice;
use ext2_core::raw::{RawInode, RawSuperblock};
use ext2_core::{CompatFeatures, Errno, Error, Features, Geometry, Result, RoCompatFeatures, Superblock};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::resize::relaid;
use crate::rewrite::{Draft, Image, Options};

/// What is to change; `None` leaves a thing as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tune {
    /// The volume's name, at most 16 bytes.
    pub label: Option<Vec<u8>>,
    /// The UUID, in the superblock and all of its copies. Nothing else of an image of ext2 is made of it.
    pub uuid: Option<[u8; 16]>,
    /// Blocks that only privileged callers may take, at most half of all.
    pub reserved_blocks: Option<u32>,
    /// The user who may take them.
    pub reserved_uid: Option<u16>,
    /// The group that may take them.
    pub reserved_gid: Option<u16>,
    /// What to do when the image turns out to be broken: 1 go on, 2 remount read-only, 3 panic (`s_errors`).
    pub errors: Option<u16>,
    /// Where it was mounted last, at most 63 bytes.
    pub last_mounted: Option<Vec<u8>>,
    /// Mounts since the last check.
    pub mount_count: Option<u16>,
    /// Mounts after which a check is due; 0 and -1 for never.
    pub max_mount_count: Option<i16>,
    /// Seconds after which a check is due; 0 for never.
    pub check_interval: Option<u32>,
    /// When it was last checked, in seconds since 1970.
    pub checked: Option<u32>,
    /// When it was last mounted.
    pub mounted: Option<u32>,
    /// When it was made.
    pub created: Option<u32>,
    /// Options that a mount has without being told (`s_default_mount_opts`).
    pub default_mount_options: Option<u32>,
    /// All features that the image is to have.
    pub features: Option<Features>,
}

/// The flag of a directory that is a hash tree.
const INDEX: u32 = 0x1000;
/// `i_mode`: the type, and a directory.
const TYPE: u16 = 0o170_000;
const DIRECTORY: u16 = 0o040_000;
/// The size from which on a file needs `large_file`.
const LARGE: u64 = 1 << 31;

/// Features that can be set and cleared here.
const CHANGED_COMPAT: CompatFeatures = CompatFeatures::EXT_ATTR.union(CompatFeatures::DIR_INDEX);
const CHANGED_RO: RoCompatFeatures = RoCompatFeatures::SPARSE_SUPER.union(RoCompatFeatures::LARGE_FILE);

impl Tune {
    /// Changes the image on `dev`, which is claimed meanwhile. Gives whether anything changed.
    ///
    /// # Errors
    /// `EBUSY` where the image is in use, `UCLEAN` where it is not clean, `EINVAL` for a value that the superblock has no
    /// room for, `NOSPC` where there is no room for the log of the change; `OPNOTSUPP` for a feature that cannot be set or
    /// cleared, or that something in the image needs; `Incompatible` for an image that uses what is not known.
    pub fn apply(&self, dev: &dyn BlockDevice, options: &Options<'_>) -> Result<bool> {
        let _claim = dev.claim(0, dev.size())?;
        // Not before: until then it may be another's, who changes it.
        let image = Image::read(dev)?;
        let mut raw = image.raw;
        self.set(&mut raw)?;
        let before = image.sb.features;
        let after = self.features.unwrap_or(before);
        check_features(before, after)?;
        raw.s_feature_compat.set(after.compat.bits());
        raw.s_feature_ro_compat.set(after.ro_compat.bits());
        if raw.as_bytes() == image.raw.as_bytes() {
            return Ok(false);
        }
        if after != before && raw.s_rev_level.get() == 0 {
            return refuse("revision 0 has no features");
        }
        let geo = Geometry::new(&Superblock::from_raw(&raw, dev.size(), false)?);
        let mut draft = if geo == image.geo {
            Draft::new(dev, image, raw, geo, options)
        } else {
            relaid(dev, image, raw, geo, options)?
        };
        let cleared = Cleared {
            index: (before.compat - after.compat).contains(CompatFeatures::DIR_INDEX),
            attributes: (before.compat - after.compat).contains(CompatFeatures::EXT_ATTR),
            large: (before.ro_compat - after.ro_compat).contains(RoCompatFeatures::LARGE_FILE),
        };
        if cleared != Cleared::default() {
            cleared.carry_out(&mut draft)?;
        }
        draft.finish()?;
        Ok(true)
    }

    /// Puts the values into a superblock.
    fn set(&self, raw: &mut RawSuperblock) -> Result<()> {
        if let Some(label) = &self.label {
            raw.s_volume_name = text(label, "a label has at most 16 bytes, none of them 0")?;
        }
        if let Some(path) = &self.last_mounted {
            let field: [u8; 63] = text(path, "a place of mounting has at most 63 bytes, none of them 0")?;
            raw.s_last_mounted = [0; 64];
            raw.s_last_mounted[..63].copy_from_slice(&field);
        }
        if let Some(uuid) = self.uuid {
            raw.s_uuid = uuid;
        }
        if let Some(blocks) = self.reserved_blocks {
            if blocks > raw.s_blocks_count.get() / 2 {
                return Err(Error::Caller(Errno::INVAL, "at most half of the blocks can be reserved"));
            }
            raw.s_r_blocks_count.set(blocks);
        }
        if let Some(errors) = self.errors {
            if !(1..=3).contains(&errors) {
                return Err(Error::Caller(Errno::INVAL, "on errors: 1 to 3"));
            }
            raw.s_errors.set(errors);
        }
        let words = [
            (self.check_interval, &mut raw.s_checkinterval),
            (self.checked, &mut raw.s_lastcheck),
            (self.mounted, &mut raw.s_mtime),
            (self.created, &mut raw.s_mkfs_time),
            (self.default_mount_options, &mut raw.s_default_mount_opts),
        ];
        for (value, field) in words {
            if let Some(value) = value {
                field.set(value);
            }
        }
        let halves = [
            (self.reserved_uid, &mut raw.s_def_resuid),
            (self.reserved_gid, &mut raw.s_def_resgid),
            (self.mount_count, &mut raw.s_mnt_count),
            (self.max_mount_count.map(i16::cast_unsigned), &mut raw.s_max_mnt_count),
        ];
        for (value, field) in halves {
            if let Some(value) = value {
                field.set(value);
            }
        }
        Ok(())
    }
}

/// The bytes of a field.
fn text<const N: usize>(from: &[u8], what: &'static str) -> Result<[u8; N]> {
    let mut field = [0; N];
    if from.len() > N || from.contains(&0) {
        return Err(Error::Caller(Errno::INVAL, what));
    }
    field[..from.len()].copy_from_slice(from);
    Ok(field)
}

fn refuse<T>(what: &'static str) -> Result<T> {
    Err(Error::Caller(Errno::OPNOTSUPP, what))
}

/// Refuses a change of features that is not known how to make.
fn check_features(before: Features, after: Features) -> Result<()> {
    let changed = Features {
        compat: (before.compat ^ after.compat) - CHANGED_COMPAT,
        incompat: before.incompat ^ after.incompat,
        ro_compat: (before.ro_compat ^ after.ro_compat) - CHANGED_RO,
    };
    if changed != Features::default() {
        return refuse("only dir_index, ext_attr, large_file and sparse_super can be set and cleared");
    }
    if after.compat.contains(CompatFeatures::RESIZE_INODE)
        && !after.ro_compat.contains(RoCompatFeatures::SPARSE_SUPER)
    {
        return refuse("resize_inode needs sparse_super");
    }
    Ok(())
}

/// Features that go, and that inodes may say that they use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cleared {
    index: bool,
    attributes: bool,
    large: bool,
}

impl Cleared {
    /// Looks at all inodes: directories are no hash trees any more; what needs the feature keeps it from going.
    fn carry_out(self, draft: &mut Draft<'_>) -> Result<()> {
        let geo = draft.geo.clone();
        let size = usize::from(geo.inode_size);
        let (mut bitmap, mut block) = (Vec::new(), Vec::new());
        let per_block = geo.block_size.len() / size;
        for group in 0..geo.groups as usize {
            let desc = draft.descs[group];
            draft.read(desc.bg_inode_bitmap.get(), &mut bitmap)?;
            let used = |bit: usize| bitmap.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 != 0);
            for nr in 0..geo.inode_table_blocks() {
                let first = nr as usize * per_block;
                if !(first..first + per_block).any(used) {
                    continue;
                }
                let at = desc.bg_inode_table.get() + nr;
                draft.read(at, &mut block)?;
                let mut changed = false;
                for (bit, record) in (first..).zip(block.chunks_exact_mut(size)) {
                    if used(bit) {
                        changed |= self.inode(record)?;
                    }
                }
                if changed {
                    draft.put(at, &block)?;
                }
            }
        }
        Ok(())
    }

    fn inode(self, record: &mut [u8]) -> Result<bool> {
        let mut raw = RawInode::new_zeroed();
        if let Ok((read, _)) = RawInode::read_from_prefix(record) {
            raw = read;
        }
        let mode = raw.i_mode.get() & TYPE;
        let size = u64::from(raw.i_size.get()) | u64::from(raw.i_size_high.get()) << 32;
        if self.large && mode == 0o100_000 && size >= LARGE && raw.i_links_count.get() != 0 {
            return refuse("large_file is needed by a file of 2 GiB or more");
        }
        // What lies behind the extra fields begins with a magic number.
        let extra = record.get(128..130).map_or(0, |two| usize::from(u16::from_le_bytes([two[0], two[1]])));
        let inside = record.get(128 + extra..132 + extra) == Some([0x00, 0x00, 0x02, 0xea].as_slice());
        let inside = inside && record.get(132 + extra..136 + extra).is_some_and(|entry| entry != [0; 4]);
        if self.attributes && mode != 0 && (raw.i_file_acl.get() != 0 || inside) {
            return refuse("ext_attr is needed by a file with attributes");
        }
        if self.index && mode == DIRECTORY && raw.i_flags.get() & INDEX != 0 {
            raw.i_flags.set(raw.i_flags.get() & !INDEX);
            if let Some(place) = record.get_mut(..size_of::<RawInode>()) {
                place.copy_from_slice(raw.as_bytes());
            }
            return Ok(true);
        }
        Ok(false)
    }
}
