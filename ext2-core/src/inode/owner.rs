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
//! 4. Mode, owners and access list are durable in the order in which they were changed.

use core::mem::offset_of;

use super::{Attrs, Cell, FileKind};
use crate::error::Result;
use crate::order::Barrier;
use crate::raw::RawInode;

/// The set-id bits of a mode.
const SET_ID: u16 = 0o6000;
/// The high byte of a mark. No id of somebody is so large.
const MARK: u16 = 0xff00;

/// Owner and group as an inode on the device has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owners {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The word at the inode's end, in its four fields of 16 bits.
type Last = [u16; 4];

impl Owners {
    /// The owners of an inode, and whether a mark stands for them.
    pub(crate) fn of(raw: &RawInode) -> (Self, bool) {
        let highs = (raw.i_uid_high.get(), raw.i_gid_high.get());
        if highs.0 & highs.1 & MARK == MARK {
            let (note, place) = (raw.i_osd1.get(), raw.i_reserved2.get());
            // In the note, or in their places already when the note is gone.
            for lows in [(note as u16, (note >> 16) as u16), (raw.i_uid.get(), raw.i_gid.get())] {
                let owners = Self::from_halves(lows, (place as u16, (place >> 16) as u16));
                if owners.mark(raw.i_generation.get()) == highs {
                    return (owners, true);
                }
            }
        }
        (Self::from_halves((raw.i_uid.get(), raw.i_gid.get()), highs), false)
    }

    fn from_halves(lows: (u16, u16), highs: (u16, u16)) -> Self {
        let whole = |low, high| u32::from(low) | u32::from(high) << 16;
        Self { uid: whole(lows.0, highs.0), gid: whole(lows.1, highs.1) }
    }

    fn lows(self) -> (u16, u16) {
        (self.uid as u16, self.gid as u16)
    }

    fn highs(self) -> (u16, u16) {
        ((self.uid >> 16) as u16, (self.gid >> 16) as u16)
    }

    fn note(self) -> u32 {
        let (uid, gid) = self.lows();
        u32::from(uid) | u32::from(gid) << 16
    }

    /// What stands in the place of the high halves while these are on their way: a sum of them, so that nothing
    /// that is there by chance is taken for a mark. Never two high bytes of an id that is -1 or near it.
    fn mark(self, generation: u32) -> (u16, u16) {
        let all = u64::from(self.uid) << 32 | u64::from(self.gid);
        let sum = (all ^ u64::from(generation).rotate_left(16)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        let byte = |byte: u64| MARK | (byte as u16 & 0xff).min(0xfe);
        (byte(sum), byte(sum >> 8))
    }

    /// The last word of the inode while these are on their way.
    fn on_their_way(self, generation: u32) -> Last {
        let (mark, highs) = (self.mark(generation), self.highs());
        [mark.0, mark.1, highs.0, highs.1]
    }

    /// The last word when they have arrived.
    fn arrived(self) -> Last {
        let highs = self.highs();
        [highs.0, highs.1, 0, 0]
    }
}

impl Attrs {
    fn owners(&self) -> Owners {
        Owners { uid: self.uid, gid: self.gid }
    }
}

impl Cell {
    fn store_mode(&self, attrs: &mut Attrs, mode: u16) -> Result<()> {
        self.store_u16(offset_of!(RawInode, i_mode) as u64, mode | self.kind.mode_bits())?;
        attrs.mode = mode;
        Ok(())
    }

    /// Takes rights away, durably.
    pub(crate) fn lower_mode(&self, attrs: &mut Attrs, mode: u16) -> Result<()> {
        if attrs.mode & mode != attrs.mode {
            self.store_mode(attrs, attrs.mode & mode)?;
            Barrier::RightsTaken.fence(&*self.fs.dev)?;
        }
        Ok(())
    }

    /// Gives rights, when what they depend on is durable.
    pub(crate) fn raise_mode(&self, attrs: &mut Attrs, mode: u16) -> Result<()> {
        if attrs.mode != mode {
            Barrier::RightsGiven.fence(&*self.fs.dev)?;
            self.store_mode(attrs, mode)?;
        }
        Ok(())
    }

    /// Stores mode and owners of `changed`, which then are those in memory and durable.
    pub(crate) fn store_rights(&self, attrs: &mut Attrs, changed: &Attrs) -> Result<()> {
        self.settle_owners(attrs)?;
        let (old, new) = (attrs.owners(), changed.owners());
        let (low, high) = (old.lows(), old.highs() != new.highs());
        let differs = (low.0 != new.lows().0, low.1 != new.lows().1, high);
        match differs {
            (false, false, false) => self.store_mode(attrs, changed.mode)?,
            (true, false, false) => {
                // Mode and owner lie side by side.
                let mode = u32::from(changed.mode | self.kind.mode_bits());
                self.store_u32(offset_of!(RawInode, i_mode) as u64, mode | u32::from(new.lows().0) << 16)?;
                (attrs.mode, attrs.uid) = (changed.mode, new.uid);
            }
            _ => {
                let is_one = !differs.0 && differs.1 != differs.2;
                if !is_one || changed.mode != attrs.mode {
                    // The set-id bit of a directory gives nobody a right.
                    let is_risk = self.kind != FileKind::Directory;
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
                    _ => self.move_owners(attrs, new)?,
                }
                (attrs.uid, attrs.gid) = (new.uid, new.gid);
                self.raise_mode(attrs, changed.mode)?;
            }
        }
        Ok(Barrier::RightsChanged.fence(&*self.fs.dev)?)
    }

    /// Changes owners that lie in more than one word. After an error behind the mark they are the new ones, and settled
    /// with the times.
    fn move_owners(&self, attrs: &mut Attrs, new: Owners) -> Result<()> {
        if self.fs.is_hurd() {
            return self.move_owners_past_nobody(new);
        }
        self.store_u32(offset_of!(RawInode, i_osd1) as u64, new.note())?;
        Barrier::OwnersNoted.fence(&*self.fs.dev)?;
        self.store_last(new.on_their_way(self.generation))?;
        Barrier::OwnersMarked.fence(&*self.fs.dev)?;
        (attrs.uid, attrs.gid, attrs.owners_move, attrs.late) = (new.uid, new.gid, true, true);
        self.settle_owners(attrs)
    }

    /// The same on an image of the Hurd, which uses the fields of the note for a translator and an author. Between the
    /// stores the inode is somebody's with an id from 0xffff0000 on, which nobody has.
    fn move_owners_past_nobody(&self, new: Owners) -> Result<()> {
        let high = |uid: u16, gid: u16| {
            self.store_u32(offset_of!(RawInode, i_uid_high) as u64, u32::from(uid) | u32::from(gid) << 16)
        };
        high(u16::MAX, u16::MAX)?;
        Barrier::OwnersNoted.fence(&*self.fs.dev)?;
        self.store_u16(offset_of!(RawInode, i_uid) as u64, new.lows().0)?;
        self.store_u16(offset_of!(RawInode, i_gid) as u64, new.lows().1)?;
        Barrier::OwnersPlaced.fence(&*self.fs.dev)?;
        high(new.highs().0, new.highs().1)
    }

    /// Puts owners that a mark stands for where others look for them.
    pub(crate) fn settle_owners(&self, attrs: &mut Attrs) -> Result<()> {
        if !attrs.owners_move {
            return Ok(());
        }
        let owners = attrs.owners();
        self.store_u16(offset_of!(RawInode, i_uid) as u64, owners.lows().0)?;
        self.store_u16(offset_of!(RawInode, i_gid) as u64, owners.lows().1)?;
        Barrier::OwnersPlaced.fence(&*self.fs.dev)?;
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

const _: () = {
    assert!(offset_of!(RawInode, i_uid) == offset_of!(RawInode, i_mode) + 2);
    assert!(offset_of!(RawInode, i_gid_high) == offset_of!(RawInode, i_uid_high) + 2);
    assert!(offset_of!(RawInode, i_uid_high) % 8 == 0);
    assert!(offset_of!(RawInode, i_reserved2) == offset_of!(RawInode, i_uid_high) + 4);
};

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn raw(owners: Owners, last: Last) -> RawInode {
        let mut raw = RawInode::new_zeroed();
        raw.i_generation = 77.into();
        let (uid, gid) = owners.lows();
        (raw.i_uid, raw.i_gid) = (uid.into(), gid.into());
        (raw.i_uid_high, raw.i_gid_high) = (last[0].into(), last[1].into());
        raw.i_reserved2 = (u32::from(last[2]) | u32::from(last[3]) << 16).into();
        raw
    }

    #[test]
    fn a_mark_stands_for_the_owners_of_its_note_until_they_are_in_place() {
        let (old, new) = (Owners { uid: 0xffff, gid: 5 }, Owners { uid: 0x1_0000, gid: 0x2_0007 });
        let mut there = raw(old, old.arrived());
        assert_eq!(Owners::of(&there), (old, false));
        there.i_osd1 = new.note().into();
        assert_eq!(Owners::of(&there), (old, false));
        let mut moving = raw(old, new.on_their_way(77));
        moving.i_osd1 = new.note().into();
        assert_eq!(Owners::of(&moving), (new, true));
        // With the note gone, when they are in place.
        assert_eq!(Owners::of(&raw(new, new.on_their_way(77))), (new, true));
        assert_eq!(Owners::of(&raw(new, new.arrived())), (new, false));
    }

    #[test]
    fn the_ids_of_nobody_are_no_mark() {
        for id in [u32::MAX, u32::MAX - 1, 0xff00_0000, 0xff12_3456] {
            let owners = Owners { uid: id, gid: id };
            assert_eq!(Owners::of(&raw(owners, owners.arrived())), (owners, false));
        }
    }

    #[test]
    fn who_does_not_know_the_mark_sees_ids_of_nobody() {
        for id in [0, 1, 1000, 0xffff, 0x1_0000, 0x1234_5678] {
            let [uid_high, gid_high, ..] = Owners { uid: id, gid: !id }.on_their_way(9);
            assert!(uid_high >= MARK && gid_high >= MARK && uid_high != 0xffff && gid_high != 0xffff);
        }
    }
}
