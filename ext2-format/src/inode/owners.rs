//! Where the owners of an inode lie, and how they are noted while they change.
//!
//! Owner and group lie in three words of an inode, and memory keeps no more than one word at a time. While more than one of
//! them changes, a mark stands in the place of the high halves, and the owners are those of a note in fields that ext2 has no
//! use for (`i_osd1` and the last four bytes of the inode). `ext2-core` has the order of the stores.

use core::mem::offset_of;

use crate::raw::RawInode;

/// The high byte of a mark. No id of somebody is so large.
const MARK: u16 = 0xff00;

/// Owner and group as an inode on the device has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owners {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// The word at the inode's end, in its four fields of 16 bits.
pub type Last = [u16; 4];

impl Owners {
    /// The owners of an inode, and whether a mark stands for them.
    #[must_use]
    pub fn of(raw: &RawInode) -> (Self, bool) {
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

    /// The low halves, which lie in `i_uid` and `i_gid`.
    #[must_use]
    pub fn lows(self) -> (u16, u16) {
        (self.uid as u16, self.gid as u16)
    }

    /// The high halves, which lie in `i_uid_high` and `i_gid_high`.
    #[must_use]
    pub fn highs(self) -> (u16, u16) {
        ((self.uid >> 16) as u16, (self.gid >> 16) as u16)
    }

    /// The low halves as they are noted in `i_osd1` while they are on their way.
    #[must_use]
    pub fn note(self) -> u32 {
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
    #[must_use]
    pub fn on_their_way(self, generation: u32) -> Last {
        let (mark, highs) = (self.mark(generation), self.highs());
        [mark.0, mark.1, highs.0, highs.1]
    }

    /// The last word when they have arrived.
    #[must_use]
    pub fn arrived(self) -> Last {
        let highs = self.highs();
        [highs.0, highs.1, 0, 0]
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
