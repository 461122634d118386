//! Where a structure lies on a device, and its fields.
//!
//! Nothing here needs an image that can be opened: a superblock is read whatever it says, and what follows from it as
//! far as it makes sense.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use blockdev::BlockDevice;
use ext2_core::raw::{RawGroupDesc, RawSuperblock, SUPERBLOCK_OFFSET};
use ext2_core::{Corrupt, Error, Geometry, GroupNr, InodeNr, Object, Result, Superblock};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{
    Field, bitmap, directory, group_descriptor, indirect, inode, journal_block, superblock, xattr_block,
};

/// A structure of an image, named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// The superblock, or its copy in a group.
    Superblock(GroupNr),
    /// The descriptor of a group, the first of its copies.
    Group(GroupNr),
    /// The bitmap of a group's blocks.
    BlockBitmap(GroupNr),
    /// The bitmap of a group's inodes.
    InodeBitmap(GroupNr),
    /// An inode.
    Inode(InodeNr),
    /// A block as pointers, so many levels above the contents.
    Indirect(u32, u32),
    /// A block as one of a directory.
    Directory(u32),
    /// A block as extended attributes.
    Xattrs(u32),
    /// A block as one of a journal.
    Journal(u32),
    /// A block without any structure.
    Contents(u32),
}

/// A structure with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Where it begins on the device, in bytes.
    pub offset: u64,
    /// All of it.
    pub bytes: Vec<u8>,
    /// Its fields.
    pub fields: Vec<Field>,
}

/// Where the structures of an image lie.
#[derive(Clone, Debug)]
pub struct Layout {
    superblock: Result<(Superblock, Geometry)>,
}

impl Layout {
    /// By the primary superblock. One that makes no sense is remembered, and is the error of whatever needs it.
    ///
    /// # Errors
    /// The device's.
    pub fn read(dev: &dyn BlockDevice) -> Result<Self> {
        let mut raw = RawSuperblock::new_zeroed();
        let end = SUPERBLOCK_OFFSET + raw.as_bytes().len() as u64;
        if end > dev.size() {
            let what = format!("a device of {} bytes has none", dev.size());
            return Ok(Self { superblock: Err(Corrupt::new(Object::Superblock, what).into()) });
        }
        dev.read_at(SUPERBLOCK_OFFSET, raw.as_mut_bytes())?;
        let superblock = Superblock::from_raw(&raw, dev.size(), true);
        Ok(Self { superblock: superblock.map(|sb| (sb.clone(), Geometry::new(&sb))) })
    }

    /// The superblock.
    ///
    /// # Errors
    /// What makes it none.
    pub fn superblock(&self) -> Result<&Superblock> {
        self.superblock.as_ref().map(|(sb, _)| sb).map_err(Clone::clone)
    }

    /// Where everything lies.
    ///
    /// # Errors
    /// What makes the superblock none.
    pub fn geometry(&self) -> Result<&Geometry> {
        self.superblock.as_ref().map(|(_, geo)| geo).map_err(Clone::clone)
    }

    /// The descriptor of a group as it is, unchecked.
    ///
    /// # Errors
    /// A group that there is not, and the device's.
    pub fn descriptor(&self, dev: &dyn BlockDevice, group: GroupNr) -> Result<RawGroupDesc> {
        let (offset, len) = self.place(dev, Structure::Group(group))?;
        let mut raw = RawGroupDesc::default();
        dev.read_at(offset, raw.as_mut_bytes().get_mut(..len).unwrap_or_default())?;
        Ok(raw)
    }

    /// Where a structure lies on the device, and how many bytes it has.
    ///
    /// # Errors
    /// `Corrupt` where there is no such group, inode or block, or where what leads to it makes no sense.
    pub fn place(&self, dev: &dyn BlockDevice, what: Structure) -> Result<(u64, usize)> {
        let none = |object, what| Err(Error::from(Corrupt::new(object, what)));
        if what == Structure::Superblock(GroupNr::new(0)) {
            return Ok((SUPERBLOCK_OFFSET, size_of::<RawSuperblock>()));
        }
        let geo = self.geometry()?;
        let block = geo.block_size.bytes();
        let known = |group: GroupNr| match group.get() < geo.groups {
            true => Ok(()),
            false => {
                Err(Error::from(Corrupt::new(Object::Group(group), format!("there are {}", geo.groups))))
            }
        };
        let at = |nr: u32| {
            let object = Object::Block(nr.into());
            match nr < geo.blocks_count {
                true => Ok((u64::from(nr) * block, geo.block_size.len())),
                false => Err(Error::from(Corrupt::new(object, format!("there are {}", geo.blocks_count)))),
            }
        };
        match what {
            Structure::Superblock(group) => {
                known(group)?;
                if !geo.has_super(group) {
                    return none(Object::Group(group), "has no copy of the superblock".into());
                }
                Ok((u64::from(geo.group_start(group)) * block, size_of::<RawSuperblock>()))
            }
            Structure::Group(group) => {
                known(group)?;
                Ok((geo.descriptor_offset(group, GroupNr::new(0)), size_of::<RawGroupDesc>()))
            }
            Structure::BlockBitmap(group) => at(self.descriptor(dev, group)?.bg_block_bitmap.get()),
            Structure::InodeBitmap(group) => at(self.descriptor(dev, group)?.bg_inode_bitmap.get()),
            Structure::Inode(nr) => {
                let Some((group, bit)) = geo.group_of_inode(nr) else {
                    return none(Object::Inode(nr), format!("there are {}", geo.inodes_count));
                };
                let table = self.descriptor(dev, group)?.bg_inode_table.get();
                let within = u64::from(bit) * u64::from(geo.inode_size);
                let offset = u64::from(table) * block + within;
                if table == 0 || offset + u64::from(geo.inode_size) > u64::from(geo.blocks_count) * block {
                    let what = format!("inode table at block {table} lies outside the file system");
                    return none(Object::Group(group), what);
                }
                Ok((offset, geo.inode_size.into()))
            }
            Structure::Indirect(nr, _)
            | Structure::Directory(nr)
            | Structure::Xattrs(nr)
            | Structure::Journal(nr)
            | Structure::Contents(nr) => at(nr),
        }
    }

    /// A structure with its bytes and fields.
    ///
    /// # Errors
    /// As [`place`](Self::place), and the device's.
    pub fn take(&self, dev: &dyn BlockDevice, what: Structure) -> Result<Taken> {
        let (offset, len) = self.place(dev, what)?;
        let mut bytes = vec![0; len];
        if offset + len as u64 > dev.size() {
            let what = format!("a device of {} bytes has none at byte {offset}", dev.size());
            return Err(Corrupt::new(Object::Superblock, what).into());
        }
        dev.read_at(offset, &mut bytes)?;
        let fields = self.fields(what, &bytes);
        Ok(Taken { offset, bytes, fields })
    }

    /// The fields of a structure with these bytes.
    #[must_use]
    pub fn fields(&self, what: Structure, bytes: &[u8]) -> Vec<Field> {
        let geo = self.geometry().ok();
        let in_group =
            |group: GroupNr| geo.map_or((0, 0), |geo| (geo.group_start(group), geo.group_len(group)));
        match what {
            Structure::Superblock(_) => superblock(bytes),
            Structure::Group(_) => group_descriptor(bytes),
            Structure::BlockBitmap(group) => {
                let (start, count) = in_group(group);
                bitmap(bytes, count, start.into(), "block")
            }
            Structure::InodeBitmap(group) => {
                let count = geo.map_or(0, |geo| geo.inodes_per_group);
                bitmap(bytes, count, 1 + u64::from(group.get()) * u64::from(count), "inode")
            }
            Structure::Inode(_) => inode(bytes),
            Structure::Indirect(_, level) => indirect(bytes, level),
            Structure::Directory(_) => directory(bytes),
            Structure::Xattrs(_) => xattr_block(bytes),
            Structure::Journal(_) => journal_block(bytes),
            Structure::Contents(_) => Vec::new(),
        }
    }

    /// What makes a structure with these bytes impossible in itself: a superblock that describes no file system, a pointer
    /// out of it, a type that there is not. What other structures say of it is not asked.
    #[must_use]
    pub fn impossible(
        &self,
        dev: &dyn BlockDevice,
        what: Structure,
        bytes: &[u8],
    ) -> Option<alloc::string::String> {
        self.impossible_with(dev, what, bytes, &self.fields(what, bytes))
    }

    /// As [`impossible`](Self::impossible), of a structure whose fields are known.
    pub(crate) fn impossible_with(
        &self,
        dev: &dyn BlockDevice,
        what: Structure,
        bytes: &[u8],
        fields: &[Field],
    ) -> Option<alloc::string::String> {
        if let Structure::Superblock(_) = what {
            let Ok((raw, _)) = RawSuperblock::read_from_prefix(bytes) else {
                return Some("it is too short".into());
            };
            return Superblock::from_raw(&raw, dev.size(), true).err().map(|error| format!("{error}"));
        }
        let geo = self.geometry().ok()?;
        let outside = fields.iter().find_map(|field| match field.points_to? {
            super::PointsTo::Block(nr) if geo.data_block(nr).is_none() => {
                Some(format!("{} leads to block {nr}, which lies outside the file system", field.name))
            }
            super::PointsTo::Inode(nr) if nr > geo.inodes_count => {
                Some(format!("{} leads to inode {nr} of {}", field.name, geo.inodes_count))
            }
            _ => None,
        });
        outside.or_else(|| match what {
            Structure::Inode(_) => {
                let mode = fields.first()?.value.number()?;
                let known = matches!(mode >> 12, 0o14 | 0o12 | 0o10 | 0o6 | 0o4 | 0o2 | 0o1) || mode == 0;
                (!known).then(|| format!("mode {mode:#o} is no type of file"))
            }
            Structure::Directory(_) => super::records(bytes).into_iter().find_map(|record| {
                record.wrong.map(|wrong| format!("the entry at byte {}: {wrong}", record.offset))
            }),
            _ => None,
        })
    }
}
