//! The stores into a superblock that make a journal hold which no inode leads to, and that end it.
//!
//! A store is a word and the byte of the superblock at which it goes. Those of a step may reach the media in any order, but after
//! all of the step before.
//!
//! # Invariants
//! 1. `has_journal` is there only while all that leads to the journal is.
//! 2. `needs_recovery` is there from before `s_journal_inum` until after it, and for as long as counts may be old: where a crash
//!    leaves it without `has_journal`, something is left of a journal, and e2fsck checks the image.

use alloc::vec;
use alloc::vec::Vec;
use core::mem::offset_of;

use zerocopy::IntoBytes;

use super::{COPIED, JOURNAL};
use crate::features::{CompatFeatures, IncompatFeatures};
use crate::raw::{RawInode, RawSuperblock};
use crate::superblock::STATE_VALID;

/// The stores of a step.
pub type Step = Vec<(usize, u32)>;

const COMPAT: usize = offset_of!(RawSuperblock, s_feature_compat);
const INCOMPAT: usize = offset_of!(RawSuperblock, s_feature_incompat);
const INUM: usize = offset_of!(RawSuperblock, s_journal_inum);
const MAP: core::ops::Range<usize> =
    offset_of!(RawSuperblock, s_jnl_blocks)..offset_of!(RawSuperblock, s_jnl_blocks) + 17 * 4;
/// The word that `s_jnl_backup_type` is a byte of.
const KIND: usize = offset_of!(RawSuperblock, s_jnl_backup_type) / 4 * 4;
const KIND_SHIFT: usize = offset_of!(RawSuperblock, s_jnl_backup_type) % 4 * 8;
/// The word whose upper half is the state.
const STATE: usize = offset_of!(RawSuperblock, s_state) / 4 * 4;

fn word(sb: &RawSuperblock, at: usize) -> u32 {
    let four = sb.as_bytes().get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map_or(0, u32::from_le_bytes)
}

/// Makes the journal with this map hold ([`Map::copy`](super::Map::copy)), all of which is on the media: from the last store on.
#[must_use]
pub fn naming(sb: &RawSuperblock, map: &[u32; 17]) -> Vec<Step> {
    let kind = word(sb, KIND) & !(0xff << KIND_SHIFT) | u32::from(COPIED) << KIND_SHIFT;
    let copy = MAP.step_by(4).zip(*map).chain([(KIND, kind)]);
    vec![
        copy.collect(),
        vec![(INCOMPAT, word(sb, INCOMPAT) | IncompatFeatures::RECOVER.bits())],
        vec![(INUM, JOURNAL.get())],
        vec![(COMPAT, word(sb, COMPAT) | CompatFeatures::HAS_JOURNAL.bits())],
    ]
}

/// Makes the superblock another, which has no journal: the image of it in the journal, all else of which is in place.
#[must_use]
pub fn settling(now: &RawSuperblock, image: &RawSuperblock) -> Vec<Step> {
    let marks = [COMPAT, INCOMPAT, INUM, KIND];
    let is_other =
        |at: &usize| !marks.contains(at) && !MAP.contains(at) && word(now, *at) != word(image, *at);
    let of_image = |at: usize| (at, word(image, at));
    let mut steps = vec![
        vec![(COMPAT, word(image, COMPAT))],
        (0..size_of::<RawSuperblock>()).step_by(4).filter(is_other).map(of_image).collect(),
    ];
    steps.extend(unnaming(word(image, INCOMPAT)));
    steps.push(MAP.step_by(4).chain([KIND]).map(of_image).collect());
    steps
}

fn unnaming(incompat: u32) -> [Step; 2] {
    [vec![(INUM, 0)], vec![(INCOMPAT, incompat & !IncompatFeatures::RECOVER.bits())]]
}

/// Takes away what a crash [left](is_left) of a journal, before it held or after. In the second case counts may be old: the image is
/// not called clean any more.
#[must_use]
pub fn forgetting(sb: &RawSuperblock) -> Vec<Step> {
    let mut steps = vec![vec![(STATE, word(sb, STATE) & !(u32::from(STATE_VALID) << 16))]];
    steps.extend(unnaming(word(sb, INCOMPAT)));
    steps
}

/// Whether a crash left something of such a journal that does not hold, or no more, beside this inode 8.
#[must_use]
pub fn is_left(sb: &RawSuperblock, inode: &RawInode) -> bool {
    sb.s_feature_incompat.get() & IncompatFeatures::RECOVER.bits() != 0
        && sb.s_feature_compat.get() & CompatFeatures::HAS_JOURNAL.bits() == 0
        && sb.s_jnl_backup_type == COPIED
        && [0, JOURNAL.get()].contains(&sb.s_journal_inum.get())
        && inode.i_links_count.get() == 0
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    /// Does the stores, and looks after each.
    fn play(sb: &mut RawSuperblock, steps: Vec<Step>, mut look: impl FnMut(&RawSuperblock)) {
        for (at, word) in steps.into_iter().flatten() {
            sb.as_mut_bytes()[at..at + 4].copy_from_slice(&word.to_le_bytes());
            look(sb);
        }
    }

    #[test]
    fn a_journal_holds_only_while_it_is_led_to_and_what_is_left_of_one_is_known() {
        let mut before = RawSuperblock::new_zeroed();
        before.s_state = STATE_VALID.into();
        before.s_def_hash_version = 3;
        before.s_feature_incompat = 2.into();
        let mut after = before;
        after.s_free_blocks_count = 77.into();
        let map: [u32; 17] = core::array::from_fn(|n| 100 + n as u32);
        let holds = |sb: &RawSuperblock| sb.s_feature_compat.get() & CompatFeatures::HAS_JOURNAL.bits() != 0;
        let mut sb = before;
        let look = |sb: &RawSuperblock| {
            let is_marked = sb.s_feature_incompat.get() & IncompatFeatures::RECOVER.bits() != 0;
            let is_named = sb.s_journal_inum.get() == 8;
            let is_whole = sb.s_jnl_blocks.iter().zip(map).all(|(there, wanted)| there.get() == wanted);
            assert!(!holds(sb) || is_marked && is_named && is_whole && sb.s_jnl_backup_type == COPIED);
            assert!(!is_named || is_marked);
            assert_eq!(is_marked && !holds(sb), is_left(sb, &RawInode::new_zeroed()));
            // Neither the one nor the other: it says so.
            let is_old = sb.s_free_blocks_count.get() == 0;
            assert!(is_marked || is_old || sb.s_free_blocks_count.get() == 77);
        };
        play(&mut sb, naming(&before, &map), look);
        assert!(holds(&sb));
        let steps = settling(&sb.clone(), &after);
        play(&mut sb, steps, look);
        assert_eq!(sb.as_bytes(), after.as_bytes());
        // Left half-way, either way.
        let mut sb = before;
        play(&mut sb, naming(&before, &map)[..3].to_vec(), |_| ());
        let steps = forgetting(&sb.clone());
        play(&mut sb, steps, |_| ());
        assert!(!is_left(&sb, &RawInode::new_zeroed()) && sb.s_journal_inum.get() == 0);
        assert_eq!((sb.s_state.get(), sb.s_feature_incompat.get()), (0, 2));
    }
}
