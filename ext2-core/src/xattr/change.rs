//! Setting and removing attributes (Linux: `ext2_xattr_set`).
//!
//! Every change writes a new block, a fence, and then points the inode to it; the old block goes, or loses a reference,
//! after that. Attributes that lay in the inode move to the block with the first change to one of them, since a change in
//! place could be torn; only where there is no room for that a removal, or a new value in a block, is a store in place (see
//! `strike`).
//!
//! A block that several inodes use has a count of them, and e2fsck stops where it is wrong. So a pointer that comes to
//! such a block, or leaves it, changes [together](Together) with that count, in a transaction. Where there is none, or no
//! room for it, what removes stores one after the other, and all else is refused or has a block of its own. An inode
//! without a name shares with nobody.

use alloc::vec;
use alloc::vec::Vec;

use ext2_format::xattr::{Xattr, XattrName, build_block};

use crate::acl::Acl;
use crate::error::{Error, Result, refuse};
use crate::features::CompatFeatures;
use crate::fs::Fs;
use crate::fs::orphans::Orphans;
use crate::inode::{Attrs, Cell, FileKind, Inode};
use crate::journal::Together;
use crate::order::{Barrier, Durable, Unlinked, Written};
use crate::raw::{GOOD_OLD_INODE_SIZE, RawInode, XATTR_MAGIC};
use crate::sync::Mended;
use crate::{AclKind, DeviceBlock, Errno};

/// An access control list without entries, in the form for programs.
const NO_ENTRIES: [u8; 4] = 2_u32.to_le_bytes();

/// What setting an attribute does when it is there, or not there.
///
/// ```
/// use ext2_core::{Errno, Ext2, OpenOptions, XattrSet};
///
/// let fs = Ext2::open(ext2_image::mkfs::in_memory(4 << 20)?, &OpenOptions::default())?;
/// let root = fs.root()?;
/// root.xattr_set(b"user.origin", b"here", XattrSet::Create)?;
/// assert_eq!(root.xattr_get(b"user.origin")?, b"here");
/// assert!(root.xattr_set(b"user.origin", b"there", XattrSet::Create).is_err_and(|error| error.is(Errno::EXIST)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrSet {
    /// Sets it in either case.
    Any,
    /// `EEXIST` when it is there.
    Create,
    /// `ENODATA` when it is not.
    Replace,
}

/// The count of a block that several inodes use, and where it lies on the device.
#[derive(Clone, Copy, Debug)]
struct Sharers {
    at: u64,
    count: u32,
}

/// Inodes that share a block at most (Linux: `EXT2_XATTR_REFCOUNT_MAX`).
const SHARERS_MAX: u32 = 1024;
/// Byte offset of the count of references in an attribute block.
pub(super) const REFCOUNT: u64 = 4;

impl Cell {
    /// Sets or (with `None`) removes an attribute. The caller holds the `io` lock exclusive.
    pub(crate) fn set_xattr(&self, name: XattrName, value: Option<&[u8]>, how: XattrSet) -> Result<()> {
        let mut all = self.xattrs()?;
        let there = all.iter().position(|xattr| xattr.name == name);
        match (there, how) {
            (Some(_), XattrSet::Create) => return refuse(Errno::EXIST, "the attribute exists"),
            (None, XattrSet::Replace) => return refuse(Errno::NODATA, "no such attribute"),
            _ => {}
        }
        if value.is_none() && there.is_none() {
            return refuse(Errno::NODATA, "no such attribute");
        }
        let is_removal = value.is_none();
        let mut in_block = self.xattrs_in_block()?;
        let is_in_block = in_block.iter().any(|xattr| xattr.name == name);
        if is_removal && !is_in_block && self.is_alone_in_inode(&name)? {
            // Those in a block stay where they are.
            self.fs.may_lose(|| self.clear_xattrs_in_inode())?;
            self.touch_ctime();
            return Ok(());
        }
        let in_inode = self.xattrs_in_inode()?.iter().any(|xattr| xattr.name == name);
        if !in_inode {
            all = core::mem::take(&mut in_block);
        }
        all.retain(|xattr| xattr.name != name);
        if let Some(value) = value {
            all.push(Xattr { name: name.clone(), value: value.to_vec() });
        }
        match self.fs.may_lose(|| self.replace_xattr_block(&all, in_inode, is_removal)) {
            Err(error)
                if is_removal && error.refuses(Errno::NOSPC) && !Mended::RemovalNeedsRoom.is_back() =>
            {
                if is_in_block {
                    self.fs.may_lose(|| self.strike_xattr(&name, false))?;
                }
                if in_inode {
                    self.fs.may_lose(|| self.strike_xattr(&name, true))?;
                }
            }
            Err(error)
                if !is_removal
                    && error.refuses(Errno::NOSPC)
                    && self.can_replace_in_place(&name)?
                    && self.fs.may_lose(|| self.replace_in_place(&all))? => {}
            replaced => replaced?,
        }
        self.touch_ctime();
        Ok(())
    }

    /// Stores all attributes anew as they are, since so many losses were known: the block, then the pointer to it, and the room in
    /// the inode. In their place: the media have nothing better there.
    pub(crate) fn store_xattrs_anew(&self, attrs: &mut Attrs, known: u32) -> Result<()> {
        let to = attrs.file_acl;
        if let Some(block) = self.fs.geo.data_block(to)
            && self.is_of_attributes(block)?
        {
            let (at, mut bytes) = (self.fs.geo.byte_of(block), vec![0; self.fs.geo.block_size.len()]);
            self.fs.dev.read_at(at, &mut bytes)?;
            self.fs.dev.write_at(at, &bytes)?;
            self.fs.fence_since(Barrier::AttributesBuilt, known)?;
        }
        self.store_file_acl(attrs, to)?;
        let Some((at, room)) = self.room_in_inode(attrs.extra_isize)? else { return Ok(()) };
        Ok(self.fs.dev.write_at(at, &room)?)
    }

    /// One store: without its magic number the room in the inode holds no attributes.
    fn clear_xattrs_in_inode(&self) -> Result<()> {
        let start = GOOD_OLD_INODE_SIZE + u64::from(self.attrs.lock().extra_isize);
        self.fs.store_u32(self.offset + start, 0)
    }

    /// Points the inode to a block with these attributes, or to none, and lets go of those that it had: in a block, and
    /// where `in_inode` says so in the inode.
    fn replace_xattr_block(&self, all: &[Xattr], in_inode: bool, is_removal: bool) -> Result<()> {
        let together = self.way_to_share(is_removal)?;
        let takes_room = together.is_some();
        match self.replace_xattr_block_by(together, false, all, in_inode) {
            // A journal takes room, and where nobody shares a block it is not needed.
            Err(error) if takes_room && error.refuses(Errno::NOSPC) => {
                self.replace_xattr_block_by(None, true, all, in_inode)
            }
            replaced => replaced,
        }
    }

    /// The same in this way; `alone`, only where no other inode uses the block that it had.
    fn replace_xattr_block_by(
        &self,
        together: Option<Together<'_>>,
        alone: bool,
        all: &[Xattr],
        in_inode: bool,
    ) -> Result<()> {
        let _journal = together.as_ref().and_then(Together::inode);
        let _xattr = self.fs.writer()?.xattr.lock();
        let old = self.attrs.lock().file_acl;
        let sharers = self.xattr_sharers(old)?;
        if alone && sharers.is_some() {
            return refuse(Errno::NOSPC, "no room for a journal");
        }
        let (known, mut fresh) = (self.fs.losses.count(), None);
        let mut words = Vec::new();
        if !all.is_empty() {
            let Some(bytes) = build_block(all, self.fs.geo.block_size.len()) else {
                return refuse(Errno::NOSPC, "the attributes do not fit in a block");
            };
            self.fs.need_compat(CompatFeatures::EXT_ATTR)?;
            let may_share = together.is_some() || Mended::SharersApart.is_back();
            let (block, sharers) = self.xattr_block_with(&bytes, may_share, known)?;
            fresh = Some(block);
            words.extend(sharers.map(|sharers| (sharers.at, sharers.count + 1)));
        }
        let to = fresh.map_or(0, DeviceBlock::get);
        words.extend(sharers.map(|sharers| (sharers.at, sharers.count - 1)));
        if to == old && fresh.is_some() {
            // It has them, in a block that others may share.
            return if in_inode { self.clear_xattrs_in_inode() } else { Ok(()) };
        }
        let more = i64::from(fresh.is_some()) - i64::from(old != 0);
        if more < 0 {
            self.count_xattr_block(more)?;
            if self.is_fast_symlink() {
                self.fs.fence_since(Barrier::SymlinkCounted, known)?;
            }
        }
        // After an error a block may have fewer users than it says: nobody is to become another.
        let pointed = self.point_to_xattrs(to, words, together).inspect_err(|_| {
            if !Mended::NobodysShare.is_back() {
                self.fs.share_no_more(to);
            }
        });
        let settled = pointed.and_then(|()| {
            let gone = Written::since(known, Unlinked);
            // Nothing waits for the first block of attributes but these.
            if old != 0 || in_inode || self.is_fast_symlink() {
                return gone.fence(Barrier::AttributesReplaced, &*self.fs).map(Some);
            }
            Ok(None)
        });
        let gone = match settled {
            Ok(gone) => gone,
            Err(error) => {
                if more < 0 {
                    self.count_blocks(-more);
                }
                return Err(error);
            }
        };
        if more > 0 {
            self.count_xattr_block(more)?;
        }
        if in_inode {
            self.clear_xattrs_in_inode()?;
        }
        match gone {
            Some(gone) if sharers.is_none() => self.release_xattr_block(old, &gone),
            _ => Ok(()),
        }
    }

    /// A way to change its pointer to a block of attributes together with the counts of those that others use, where
    /// that will be needed; `None` also where there is none, or no room for it and `can_do_without`.
    fn way_to_share(&self, can_do_without: bool) -> Result<Option<Together<'_>>> {
        let writer = self.fs.writer()?;
        let is_shared = self.xattr_sharers(self.attrs.lock().file_acl)?.is_some();
        // Where none share a block now, none will, but for the option.
        if !is_shared && !writer.share_xattrs || Mended::SharersApart.is_back() {
            return Ok(None);
        }
        match Together::find(&self.fs) {
            Err(error) if error.refuses(Errno::NOSPC) && (can_do_without || !is_shared) => Ok(None),
            found => found,
        }
    }

    /// Stores its pointer to a block of attributes, 0 for none, and counts of users at places of the device.
    fn point_to_xattrs(
        &self,
        to: u32,
        mut counts: Vec<(u64, u32)>,
        together: Option<Together<'_>>,
    ) -> Result<()> {
        if let Some(together) = together.filter(|_| !counts.is_empty()) {
            counts.push((self.offset + core::mem::offset_of!(RawInode, i_file_acl) as u64, to));
            together.store(&self.fs, &counts)?;
            self.attrs.lock().file_acl = to;
            return Ok(());
        }
        // With nothing between them: at no moment else are there more users than a block says, or fewer.
        self.store_file_acl(&mut self.attrs.lock(), to)?;
        counts.iter().try_for_each(|&(at, count)| Ok(self.fs.dev.write_u32(at, count)?))
    }

    /// Gives it a block of its own with the attributes that it shares; false where there is no way, or no room.
    pub(crate) fn unshare_xattrs(&self) -> Result<bool> {
        let Some(together) = self.way_to_share(true)? else { return Ok(false) };
        let _journal = together.inode();
        let _xattr = self.fs.writer()?.xattr.lock();
        let (old, known) = (self.attrs.lock().file_acl, self.fs.losses.count());
        let Some(sharers) = self.xattr_sharers(old)? else { return Ok(true) };
        let mut bytes = vec![0; self.fs.geo.block_size.len()];
        self.fs.dev.read_at(sharers.at - REFCOUNT, &mut bytes)?;
        if let Some(count) = bytes.get_mut(REFCOUNT as usize..REFCOUNT as usize + 4) {
            count.copy_from_slice(&1_u32.to_le_bytes());
        }
        let block = match self.new_xattr_block(&bytes, known) {
            Err(error) if error.refuses(Errno::NOSPC) => return Ok(false),
            block => block?,
        };
        self.point_to_xattrs(block.get(), vec![(sharers.at, sharers.count - 1)], Some(together))?;
        Ok(true)
    }

    /// A block of attributes that more than one inode uses.
    fn xattr_sharers(&self, block: u32) -> Result<Option<Sharers>> {
        let Some(block) = self.fs.geo.data_block(block) else { return Ok(None) };
        let at = self.fs.geo.byte_of(block) + REFCOUNT;
        let count = self.fs.dev.read_u32(at)?;
        Ok((count > 1 && self.is_of_attributes(block)?).then_some(Sharers { at, count }))
    }

    /// Whether a block says that it holds attributes. What does not is perhaps somebody else's, and stays as it is.
    fn is_of_attributes(&self, block: DeviceBlock) -> Result<bool> {
        Ok(self.fs.dev.read_u32(self.fs.geo.byte_of(block))? == XATTR_MAGIC)
    }

    /// One user less.
    fn leave(&self, sharers: Sharers) -> Result<()> {
        Ok(self.fs.dev.write_u32(sharers.at, sharers.count - 1)?)
    }

    /// Whether others use its block of attributes. Where none do, none will.
    pub(crate) fn shares_xattrs(&self) -> Result<bool> {
        let _xattr = self.fs.writer()?.xattr.lock();
        let block = self.attrs.lock().file_acl;
        let is_shared = self.xattr_sharers(block)?.is_some();
        if !is_shared {
            self.fs.share_no_more(block);
        }
        Ok(is_shared)
    }

    /// Takes a dead inode out of the list of orphans, and out of the count of a block that others use: two stores, durable
    /// together, since e2fsck needs a person for one without the other. The inode has no block of attributes then. Where a
    /// store fails the inode is in the list as before, and counted.
    pub(crate) fn leave_shared_xattrs(&self, orphans: &mut Orphans) -> Result<()> {
        let _xattr = self.fs.writer()?.xattr.lock();
        let block = self.attrs.lock().file_acl;
        let sharers = self.xattr_sharers(block)?;
        let known;
        {
            // Under a log no commit comes between the two.
            let _together = self.fs.hold_log();
            known = self.fs.losses.count();
            self.fs.unlist_dead(orphans)?;
            if let Some(sharers) = sharers
                && let Err(error) = self.leave(sharers)
            {
                self.fs.whole(|| self.fs.list_again(orphans, self.nr, self.offset))?;
                return Err(error);
            }
        }
        if let Err(error) = self.fs.fence_since(Barrier::OrphanUnlisted, known) {
            // One of them may be lost: the next fence finds both to be written.
            self.fs.whole(|| {
                self.fs.unlist_dead(orphans)?;
                sharers.map_or(Ok(()), |sharers| self.leave(sharers))
            })?;
            return Err(error);
        }
        if sharers.is_none() {
            return Ok(());
        }
        self.store_file_acl(&mut self.attrs.lock(), 0)
    }

    /// Counts a block of attributes that comes or goes. A link in the inode is taken by e2fsck for one in a block
    /// when `i_blocks` says more than nothing and there is no block of attributes: so its count is stored
    /// at once, behind a fence before the pointer goes, and after the pointer is there.
    fn count_xattr_block(&self, more: i64) -> Result<()> {
        self.count_blocks(more);
        if self.is_fast_symlink() {
            self.write_late()?;
        }
        Ok(())
    }

    /// A durable block with these bytes: one that is there, with the users that it has so far, where it may be shared.
    /// So many losses were known before.
    fn xattr_block_with(
        &self,
        bytes: &[u8],
        may_share: bool,
        known: u32,
    ) -> Result<(DeviceBlock, Option<Sharers>)> {
        let writer = self.fs.writer()?;
        let hash = bytes.get(12..16).map(<[u8]>::to_vec).unwrap_or_default();
        let key = u32::from_le_bytes(hash.try_into().unwrap_or_default());
        // One without a name is nobody's user yet, and nobody uses what it has: it may die with that.
        let may_meet = writer.share_xattrs && key != 0 && self.attrs.lock().links > 0;
        if may_meet
            && may_share
            && let Some((block, since)) = self.fs.shared_xattrs.lock().get(&key).copied()
            // The pointer of its first user may be lost.
            && since == known
        {
            let place = self.fs.geo.byte_of(block);
            let mut there = vec![0; bytes.len()];
            self.fs.dev.read_at(place, &mut there)?;
            let references = self.fs.dev.read_u32(place + REFCOUNT)?;
            if there.get(8..) == bytes.get(8..) && references > 0 && references <= SHARERS_MAX {
                return Ok((block, Some(Sharers { at: place + REFCOUNT, count: references })));
            }
        }
        let block = self.new_xattr_block(bytes, known)?;
        if may_meet || Mended::DeadShare.is_back() && writer.share_xattrs {
            self.fs.shared_xattrs.lock().insert(key, (block, known));
        }
        Ok((block, None))
    }

    /// A durable block of its own with these bytes; so many losses were known before it is taken.
    fn new_xattr_block(&self, bytes: &[u8], known: u32) -> Result<DeviceBlock> {
        let (block, guard) = self.take_meta(self.fs.geo.group_start(self.home()))?;
        self.fs.dev.write_at(self.fs.geo.byte_of(block), bytes)?;
        Written::since(known, guard).fence(Barrier::AttributesBuilt, &*self.fs)?.into_inner().keep();
        Ok(block)
    }

    /// One reference to an attribute block less; the last one frees it.
    fn release_xattr_block(&self, block: u32, gone: &Durable<Unlinked>) -> Result<()> {
        let Some(block) = self.fs.geo.data_block(block) else { return Ok(()) };
        if !self.is_of_attributes(block)? {
            let what = alloc::format!("block {block} holds no attributes, and is kept");
            self.fs.found_broken(&self.corrupt(what));
            return Ok(());
        }
        let place = self.fs.geo.byte_of(block);
        let references = self.fs.dev.read_u32(place + REFCOUNT)?;
        if references > 1 {
            return Ok(self.fs.dev.write_u32(place + REFCOUNT, references - 1)?);
        }
        self.fs.share_no_more(block.get());
        self.fs.free(gone, crate::balloc::Run { start: block, len: 1 })
    }

    /// Lets go of the attribute block of a dead inode.
    pub(crate) fn drop_xattr_block(&self, gone: &Durable<Unlinked>) -> Result<()> {
        let _xattr = self.fs.writer()?.xattr.lock();
        let old = self.attrs.lock().file_acl;
        if old != 0 {
            let mut attrs = self.attrs.lock();
            self.store_file_acl(&mut attrs, 0)?;
        }
        self.release_xattr_block(old, gone)
    }

    /// Stores an access control list, or removes it. The caller holds the `io` lock exclusive.
    pub(crate) fn set_acl(&self, which: AclKind, acl: Option<&Acl>) -> Result<()> {
        let stored = acl.filter(|acl| which == AclKind::Default || !acl.is_mode()).map(Acl::to_disk);
        match self.set_xattr(XattrName::of_acl(which), stored.as_deref(), XattrSet::Any) {
            Err(error) if stored.is_none() && error.refuses(Errno::NODATA) => Ok(()),
            other => other,
        }
    }
}

impl Cell {
    /// Stores an access list that goes with a mode, under no more rights than the mode had or will have: the caller
    /// gives the others. The caller holds the `io` lock exclusive.
    pub(crate) fn set_acl_below(&self, acl: &Acl, mode: u16) -> Result<()> {
        let known = self.fs.losses.count();
        // Where there is no room nothing changes, not for a moment.
        drop(self.way_to_share(false)?);
        let has_room = acl.is_mode() || self.can_replace_in_place(&XattrName::of_acl(AclKind::Access))?;
        let takes_block = !has_room && !self.fs.writer()?.share_xattrs;
        if takes_block && self.fs.blocks_to_take()? == 0 && !self.fs.may_give_up() {
            return refuse(Errno::NOSPC, "no block is free for the access list");
        }
        let before = {
            let mut attrs = self.attrs.lock();
            let before = attrs.mode;
            self.lower_mode(&mut attrs, mode)?;
            before
        };
        self.set_acl(AclKind::Access, Some(acl)).or_else(|error| {
            // Where the device failed the list may be the new one, which the old mode may not go with.
            if !matches!(error, Error::Device(_)) {
                self.raise_mode(&mut self.attrs.lock(), before, known)?;
            }
            Err(error)
        })
    }
}

impl Inode {
    /// Sets an extended attribute; `name` is whole (`user.colour`). The names of access control lists
    /// take Linux's form for programs, and change the mode as Linux does. Linux: `ext2_xattr_set`.
    ///
    /// # Errors
    /// `EEXIST` and `ENODATA` as `how` says, `ENOSPC` when the attributes do not fit in a block or there
    /// is none, `EOPNOTSUPP` for a prefix that ext2 does not know and for an access control list of another
    /// version, `EPERM` for `user.` on what is neither file nor directory, `EINVAL` for what is no access
    /// control list, `EROFS`; `Corrupt`, the device's.
    pub fn xattr_set(&self, name: &[u8], value: &[u8], how: XattrSet) -> Result<()> {
        let parsed = XattrName::parse(name)?;
        if let Some(which) = parsed.acl_kind() {
            // Linux: a list of nothing says what the mode says.
            if value.is_empty() || value == NO_ENTRIES {
                return self.set_acl(which, None);
            }
            return match Acl::from_user(value) {
                Some(acl) => self.set_acl(which, Some(&acl)),
                None if value.len() >= NO_ENTRIES.len() && !value.starts_with(&NO_ENTRIES) => {
                    refuse(Errno::OPNOTSUPP, "an access control list of another version")
                }
                None => refuse(Errno::INVAL, "not an access control list"),
            };
        }
        self.check_user_xattr(name)?;
        self.0.fs.change(|| {
            let _io = self.0.io_to_change()?;
            self.0.set_xattr(parsed, Some(value), how)
        })
    }

    /// Removes an extended attribute. An access control list that is not there is removed already, as Linux says.
    ///
    /// # Errors
    /// `ENODATA` for any other, and as [`xattr_set`](Self::xattr_set).
    pub fn xattr_remove(&self, name: &[u8]) -> Result<()> {
        let parsed = XattrName::parse(name)?;
        if let Some(which) = parsed.acl_kind() {
            return self.set_acl(which, None);
        }
        self.check_user_xattr(name)?;
        self.0.fs.change(|| {
            let _io = self.0.io_to_change()?;
            self.0.set_xattr(parsed, None, XattrSet::Any)
        })
    }

    fn check_user_xattr(&self, name: &[u8]) -> Result<()> {
        if name.starts_with(b"user.") && !matches!(self.kind(), FileKind::Regular | FileKind::Directory) {
            return refuse(Errno::PERM, "only files and directories have user attributes");
        }
        Ok(())
    }

    /// Sets or removes an access control list. The mode follows the access list; one that says no more
    /// than a mode is not stored. Linux: `ext2_set_acl`.
    ///
    /// # Errors
    /// `EACCES` for a default list on what is no directory, `EOPNOTSUPP` on a link; as [`xattr_set`](Self::xattr_set).
    pub fn set_acl(&self, which: AclKind, acl: Option<&Acl>) -> Result<()> {
        match (self.kind(), which) {
            (FileKind::Symlink, _) => return refuse(Errno::OPNOTSUPP, "a link has no access control list"),
            (kind, AclKind::Default) if kind != FileKind::Directory && acl.is_some() => {
                return refuse(Errno::ACCES, "only a directory has a default list");
            }
            _ => {}
        }
        self.0.fs.change(|| {
            let _io = self.0.io_to_change()?;
            self.0.store_lost_rights()?;
            let known = self.0.fs.losses.count();
            let change = || -> Result<()> {
                match acl {
                    Some(acl) if which == AclKind::Access => {
                        let mode = self.0.attrs.lock().mode & !0o777 | acl.mode();
                        self.0.set_acl_below(acl, mode)?;
                        let mut attrs = self.0.attrs.lock();
                        self.0.raise_mode(&mut attrs, mode, known)?;
                    }
                    _ => self.0.set_acl(which, acl)?,
                }
                self.0.fs.fence_since(Barrier::RightsChanged, known)
            };
            self.0.rights_taken.note(change())?;
            // Removing says itself whether there was something.
            if acl.is_some() {
                self.0.touch_ctime();
            }
            Ok(())
        })
    }
}

impl Fs {
    /// Lets nobody become a further user of a block of attributes.
    pub(super) fn share_no_more(&self, block: u32) {
        self.shared_xattrs.lock().retain(|_, (own, _)| own.get() != block);
    }
}

/// Attribute blocks that may be shared, by the hash of their contents, and how many losses were known when each was filled.
pub(crate) type Shared = alloc::collections::BTreeMap<u32, (DeviceBlock, u32)>;
