//! Who owns an inode, and who may do what: mode, owners and access list, which one call may change together.
//!
//! The owners lie in three words of an inode (`i_uid`, `i_gid`, and the high halves of both), and memory keeps no more
//! than one word at a time. What lies in one word changes by one store. Where more than one changes, the new owners
//! are noted in fields that ext2 has no use for (`i_osd1` and the last four bytes of the inode), and one store
//! of the last word then makes them the owners: it puts a mark in the place of the high halves. Who reads the mark
//! takes the owners from the note; when the low halves are in place the high ones replace the mark.
//!
//! # Invariants
//! 1. Whoever reads an inode through this crate sees the owners from before or from after, at every moment and after
//!    every crash.
//! 2. Whoever does not know the mark (Linux, e2fsck) sees the owners from before, those from after, or for a moment
//!    two ids from 0xff000000 on, which nobody has. On an image of the Hurd, whose inodes have no field to spare,
//!    that is what this crate sees, too.
//! 3. What the owners lose of the mode goes before they change, and what they gain comes after: half-done, nobody may
//!    do more than he might before or may after. A file whose owners change has no set-id bit meanwhile.
//! 4. Mode, owners and access list are durable in the order in which they were changed. Where a fence of somebody else's that
//!    has failed may have lost any of them, a change ends as if its own had.

use core::mem::offset_of;

use ext2_format::inode::{Last, Owners};

use super::{Attrs, Cell, FileKind};
use crate::error::Result;
use crate::order::Barrier;
use crate::raw::RawInode;
use crate::sync::Mended;

/// The set-id bits of a mode.
pub(super) const SET_ID: u16 = 0o6000;

impl Attrs {
    fn owners(&self) -> Owners {
        Owners { uid: self.uid, gid: self.gid }
    }
}

impl Cell {
    fn store_mode(&self, attrs: &mut Attrs, mode: u16) -> Result<()> {
        self.store_u16(offset_of!(RawInode, i_mode) as u64, mode | self.kind.mode_bits())?;
        self.note_mode(attrs, mode);
        Ok(())
    }

    /// Notes that the device has this mode.
    fn note_mode(&self, attrs: &mut Attrs, mode: u16) {
        self.rights_taken.changed(attrs.mode, mode);
        attrs.mode = mode;
    }

    /// Takes rights away, durably.
    pub(crate) fn lower_mode(&self, attrs: &mut Attrs, mode: u16) -> Result<()> {
        if attrs.mode & mode != attrs.mode || self.may_have_lost_rights() {
            let known = self.fs.losses.count();
            let stored = self.store_mode(attrs, attrs.mode & mode);
            // Where a fence fails, this one or another's, nobody knows whether they are gone.
            self.rights_taken.note(stored.and_then(|()| self.fs.fence_since(Barrier::RightsTaken, known)))?;
        }
        Ok(())
    }

    /// Gives rights, when what they depend on is durable, which was begun when so many losses were known.
    pub(crate) fn raise_mode(&self, attrs: &mut Attrs, mode: u16, known: u32) -> Result<()> {
        if attrs.mode != mode {
            self.fs.fence_since(Barrier::RightsGiven, known)?;
            self.store_mode(attrs, mode)?;
        }
        Ok(())
    }

    /// Stores mode and owners of `changed`, which then are those in memory and durable.
    pub(crate) fn store_rights(&self, attrs: &mut Attrs, changed: &Attrs) -> Result<()> {
        let known = self.fs.losses.count();
        let stored = self.store_mode_and_owners(attrs, changed, known);
        let done = stored.and_then(|()| self.fs.fence_since(Barrier::RightsChanged, known));
        self.rights_taken.stored(&done);
        done
    }

    /// Stores mode, owners and attributes anew, where the media may have others than memory. The caller holds the `io` lock.
    pub(crate) fn store_lost_rights(&self) -> Result<()> {
        if !self.may_have_lost_rights() {
            return Ok(());
        }
        let _xattr = self.fs.writer()?.xattr.lock();
        let known = self.fs.losses.count();
        let mut attrs = self.attrs.lock();
        let same = *attrs;
        self.store_xattrs_anew(&mut attrs, known)?;
        self.store_rights(&mut attrs, &same)?;
        self.rights_taken.are_whole(known);
        Ok(())
    }

    fn store_mode_and_owners(&self, attrs: &mut Attrs, changed: &Attrs, known: u32) -> Result<()> {
        self.settle_owners(attrs)?;
        let (old, new) = (attrs.owners(), changed.owners());
        let (low, high) = (old.lows(), old.highs() != new.highs());
        // What may be lost is stored as if all of it differed.
        let is_lost = self.may_have_lost_rights();
        let differs = (is_lost || low.0 != new.lows().0, is_lost || low.1 != new.lows().1, is_lost || high);
        match differs {
            (false, false, false) => self.store_mode(attrs, changed.mode)?,
            (true, false, false) => {
                // Mode and owner lie side by side.
                let mode = u32::from(changed.mode | self.kind.mode_bits());
                self.store_u32(offset_of!(RawInode, i_mode) as u64, mode | u32::from(new.lows().0) << 16)?;
                self.note_mode(attrs, changed.mode);
                attrs.uid = new.uid;
            }
            _ => {
                let is_one = !differs.0 && differs.1 != differs.2;
                if !is_one || changed.mode != attrs.mode {
                    // The set-id bit of a directory gives nobody a right.
                    let is_risk = self.kind != FileKind::Directory;
                    let is_risk = is_risk && !Mended::SetIdKept.is_back();
                    let kept = if is_risk { changed.mode & !SET_ID } else { changed.mode };
                    self.lower_mode(attrs, kept)?;
                }
                match differs {
                    (_, true, false) if is_one => {
                        self.store_u16(offset_of!(RawInode, i_gid) as u64, new.lows().1)?;
                    }
                    _ if is_one => {
                        let highs = new.highs();
                        let both = u32::from(highs.0) | u32::from(highs.1) << 16;
                        self.store_u32(offset_of!(RawInode, i_uid_high) as u64, both)?;
                    }
                    _ => self.move_owners(attrs, new, known)?,
                }
                (attrs.uid, attrs.gid) = (new.uid, new.gid);
                self.raise_mode(attrs, changed.mode, known)?;
            }
        }
        Ok(())
    }

    /// Changes owners that lie in more than one word. After an error behind the mark they are the new ones, and settled
    /// with the times.
    fn move_owners(&self, attrs: &mut Attrs, new: Owners, known: u32) -> Result<()> {
        if self.fs.is_hurd() {
            return self.move_owners_past_nobody(attrs, new, known);
        }
        if Mended::OwnersInPieces.is_back() {
            attrs.owners_move = true;
            (attrs.uid, attrs.gid) = (new.uid, new.gid);
            return self.place_owners(attrs, known);
        }
        self.mark_owners(new, known)?;
        if Mended::MarkUnknown.is_back() {
            self.fs.fence(Barrier::OwnersMarked)?;
        }
        (attrs.uid, attrs.gid, attrs.owners_move, attrs.late) = (new.uid, new.gid, true, true);
        self.place_owners(attrs, known)
    }

    /// Notes owners, and makes them the owners by a mark.
    fn mark_owners(&self, owners: Owners, known: u32) -> Result<()> {
        self.store_u32(offset_of!(RawInode, i_osd1) as u64, owners.note())?;
        self.fs.fence_since(Barrier::OwnersNoted, known)?;
        self.store_last(owners.on_their_way(self.generation))
    }

    /// The same on an image of the Hurd, which uses the fields of the note for a translator and an author. Between the
    /// stores the inode is somebody's with an id from 0xffff0000 on, which nobody has.
    fn move_owners_past_nobody(&self, attrs: &mut Attrs, new: Owners, known: u32) -> Result<()> {
        let high = |uid: u16, gid: u16| {
            self.store_u32(offset_of!(RawInode, i_uid_high) as u64, u32::from(uid) | u32::from(gid) << 16)
        };
        high(u16::MAX, u16::MAX)?;
        // What the device has is what memory has, also where one of the next fails.
        (attrs.uid, attrs.gid) = (attrs.uid | 0xffff_0000, attrs.gid | 0xffff_0000);
        self.fs.fence_since(Barrier::OwnersNoted, known)?;
        self.store_u16(offset_of!(RawInode, i_uid) as u64, new.lows().0)?;
        attrs.uid = new.uid | 0xffff_0000;
        self.store_u16(offset_of!(RawInode, i_gid) as u64, new.lows().1)?;
        attrs.gid = new.gid | 0xffff_0000;
        self.fs.fence_since(Barrier::OwnersPlaced, known)?;
        high(new.highs().0, new.highs().1)
    }

    /// Puts owners that a mark stands for where others look for them: a crash left them on their way, or an error. Whoever changes
    /// an owner comes here first.
    pub(crate) fn settle_owners(&self, attrs: &mut Attrs) -> Result<()> {
        if !attrs.owners_move {
            return Ok(());
        }
        let known = self.fs.losses.count();
        // The mark may be lost, or the note be gone already.
        self.mark_owners(attrs.owners(), known)?;
        self.place_owners(attrs, known)
    }

    /// The same behind a mark that was stored when so many losses were known.
    fn place_owners(&self, attrs: &mut Attrs, known: u32) -> Result<()> {
        self.fs.fence_since(Barrier::OwnersMarked, known)?;
        let owners = attrs.owners();
        self.store_u16(offset_of!(RawInode, i_uid) as u64, owners.lows().0)?;
        self.store_u16(offset_of!(RawInode, i_gid) as u64, owners.lows().1)?;
        self.fs.fence_since(Barrier::OwnersPlaced, known)?;
        self.store_last(owners.arrived())?;
        self.store_u32(offset_of!(RawInode, i_osd1) as u64, 0)?;
        attrs.owners_move = false;
        Ok(())
    }

    /// The last word of the inode, by one store of 8 bytes.
    fn store_last(&self, last: Last) -> Result<()> {
        let [uid_high, gid_high, third, fourth] = last.map(u16::to_le_bytes);
        let mut bytes = [0; 8];
        bytes
            .iter_mut()
            .zip([uid_high, gid_high, third, fourth].as_flattened())
            .for_each(|(to, from)| *to = *from);
        self.fs.store_bytes(self.offset + offset_of!(RawInode, i_uid_high) as u64, &bytes)
    }
}
