//! Extended attributes: in the inode's own room, and in a block of their own.
//!
//! # Invariants
//! 1. A name is an index for its prefix and the rest, as on disk; users see the whole name.
//! 2. Values of ACLs are seen in the form that Linux hands to programs (version 2) and stored in ext2's
//!    (version 1).
//! 3. An attribute that does not lie wholly in its place makes the whole place `Corrupt`.
//! 4. One of the same name in both places is the one in the inode, as for e2fsprogs and ext4: a change that moves it to the
//!    block, and ends half-way, leaves both. Whoever removes it removes both.

#[cfg(feature = "write")]
mod change;
#[cfg(feature = "write")]
mod strike;

#[cfg(feature = "write")]
pub(crate) use change::Shared;
#[cfg(feature = "write")]
pub use change::XattrSet;
use ext2_format::xattr::{Xattr, XattrName, parse_block, parse_inode};

use alloc::vec;
use alloc::vec::Vec;

use crate::acl::Acl;
use crate::error::{Result, refuse};
use crate::inode::{Cell, Inode};
use crate::raw::GOOD_OLD_INODE_SIZE;
use crate::{AclKind, Errno};

impl Cell {
    /// The attributes that lie in the inode itself.
    pub(crate) fn xattrs_in_inode(&self) -> Result<Vec<Xattr>> {
        let extra_isize = self.attrs.lock().extra_isize;
        let Some((_, room)) = self.room_in_inode(extra_isize)? else { return Ok(Vec::new()) };
        parse_inode(&room).map_err(|problem| self.corrupt(problem))
    }

    /// The byte of the device at which the inode has room for attributes behind its fields, and what is there; none where it has
    /// no room.
    pub(crate) fn room_in_inode(&self, extra_isize: u16) -> Result<Option<(u64, Vec<u8>)>> {
        let start = GOOD_OLD_INODE_SIZE + u64::from(extra_isize);
        let inode_size = u64::from(self.fs.geo.inode_size);
        if start == GOOD_OLD_INODE_SIZE || start + 4 >= inode_size {
            return Ok(None);
        }
        let (at, mut room) = (self.offset + start, vec![0; (inode_size - start) as usize]);
        self.fs.dev.read_at(at, &mut room)?;
        Ok(Some((at, room)))
    }

    /// The attributes that lie in a block.
    pub(crate) fn xattrs_in_block(&self) -> Result<Vec<Xattr>> {
        let Some(block) = self.fs.geo.data_block(self.attrs.lock().file_acl) else {
            return Ok(Vec::new());
        };
        let mut bytes = vec![0; self.fs.geo.block_size.len()];
        self.fs.dev.read_at(self.fs.geo.byte_of(block), &mut bytes)?;
        parse_block(&bytes)
            .map_err(|problem| self.corrupt(alloc::format!("attribute block {block}: {problem}")))
    }

    /// All attributes, those in the inode first.
    pub(crate) fn xattrs(&self) -> Result<Vec<Xattr>> {
        let (mut all, mut more) = (self.xattrs_in_inode()?, self.xattrs_in_block()?);
        let is_twice = |own: &Xattr| all.iter().any(|other| other.name == own.name);
        more.retain(|own| !is_twice(own));
        all.append(&mut more);
        Ok(all)
    }
}

/// Extended attributes.
///
/// ```
/// use ext2_core::{FileKind, NewInode, XattrSet};
/// # let fs = ext2_core::Ext2::open(ext2_image::mkfs::in_memory(4 << 20)?, &Default::default())?;
///
/// let file = fs.root()?.create("ping", &NewInode::new(FileKind::Regular, 0o755))?;
/// file.xattr_set(b"user.origin", b"a mirror", XattrSet::Any)?;
/// assert_eq!(file.xattr_get(b"user.origin")?, b"a mirror");
/// assert_eq!(file.xattr_list()?, [b"user.origin"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Inode {
    /// The names of all extended attributes, prefix included (`user.colour`, `system.posix_acl_access`),
    /// as they lie on disk. Linux: `ext2_listxattr`.
    ///
    /// # Errors
    /// `Corrupt`, the device's errors.
    pub fn xattr_list(&self) -> Result<Vec<Vec<u8>>> {
        let _io = self.0.io.read();
        Ok(self.0.xattrs()?.iter().map(|xattr| xattr.name.full()).collect())
    }

    /// All extended attributes with their values, as [`xattr_list`](Self::xattr_list) and
    /// [`xattr_get`](Self::xattr_get) give them.
    ///
    /// # Errors
    /// As those.
    pub fn xattrs(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let _io = self.0.io.read();
        self.0.xattrs()?.into_iter().map(|xattr| Ok((xattr.name.full(), self.0.for_user(xattr)?))).collect()
    }

    /// The value of an extended attribute. Linux: `ext2_xattr_get`.
    ///
    /// # Errors
    /// `ENODATA` when there is none of that name, `EOPNOTSUPP` for a name without a known prefix;
    /// `Corrupt`, the device's errors.
    pub fn xattr_get(&self, name: &[u8]) -> Result<Vec<u8>> {
        let name = XattrName::parse(name)?;
        let _io = self.0.io.read();
        match self.0.xattrs()?.into_iter().find(|xattr| xattr.name == name) {
            Some(xattr) => self.0.for_user(xattr),
            None => refuse(Errno::NODATA, ""),
        }
    }

    /// An access control list, if the inode has one. Linux: `ext2_get_acl`.
    ///
    /// # Errors
    /// `Corrupt`, the device's errors.
    pub fn acl(&self, which: AclKind) -> Result<Option<Acl>> {
        let _io = self.0.io.read();
        self.0.acl(which)
    }
}

impl Cell {
    fn for_user(&self, xattr: Xattr) -> Result<Vec<u8>> {
        match xattr.name.acl_kind() {
            Some(_) => Ok(self.decode_acl(&xattr.value)?.to_user()),
            None => Ok(xattr.value),
        }
    }

    fn decode_acl(&self, value: &[u8]) -> Result<Acl> {
        Acl::from_disk(value).ok_or_else(|| self.corrupt("an access control list cannot be read"))
    }

    /// An access control list; the caller holds the `io` lock.
    pub(crate) fn acl(&self, which: AclKind) -> Result<Option<Acl>> {
        let name = XattrName::of_acl(which);
        match self.xattrs()?.into_iter().find(|xattr| xattr.name == name) {
            Some(xattr) => self.decode_acl(&xattr.value).map(Some),
            None => Ok(None),
        }
    }
}
