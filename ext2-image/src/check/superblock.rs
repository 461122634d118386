//! The fields of the superblock without which nothing else can be found, and what they should be.
//!
//! A field is called wrong where it can be nothing of the kind, or where two contradict each other; which of the two it is
//! then tells the rest. Where that is known, the finding has the number that is right.

use alloc::vec::Vec;

use blockdev::BlockDevice;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::finding::{Finding, Kind, Place};
use super::run::{Step, Stop};
use ext2_core::raw::{MAGIC, RawGroupDesc, RawInode, RawSuperblock, SUPERBLOCK_OFFSET};
use ext2_core::{BlockSize, Error, Geometry, GroupNr, Superblock};
use ext2_core::{CompatFeatures, Features, IncompatFeatures, RoCompatFeatures};
use ext2_core::{Corrupt, Incompatible, Object};

/// Read-only compatible features that a check knows: `sparse_super`, `large_file`, `uninit_bg`, `dir_nlink`, `extra_isize`, and
/// `quota`.
const CHECKED: u32 = 0x1 | 0x2 | UNINIT_BG | DIR_NLINK | 0x40 | QUOTA;
/// There are orphans in the file of orphans, which is a compatible feature of its own.
pub(crate) const ORPHANS: u32 = 0x1_0000;
const ORPHAN_FILE: u32 = 0x1000;
pub(crate) const UNINIT_BG: u32 = 0x10;
pub(crate) const QUOTA: u32 = 0x100;
/// Directories with more links than can be counted have 1.
pub(crate) const DIR_NLINK: u32 = 0x20;

/// Incompatible features that a file has by a flag of its inode.
pub(crate) const OF_FILES: u32 = ENCRYPT | INLINE_DATA;
const ENCRYPT: u32 = 0x1_0000;
const INLINE_DATA: u32 = 0x8000;

/// Compatible features that are known: what an unknown one means for the structures nobody can say.
const CHECKED_COMPAT: u32 = 0x3f | 0x200 | 0x400 | 0x800;

/// Refuses what can be looked at but not mended here.
pub(crate) fn check_mendable(mut features: Features) -> ext2_core::Result<()> {
    features.ro_compat.remove(RoCompatFeatures::from_bits_retain(UNINIT_BG | DIR_NLINK | QUOTA));
    features.check_writable()
}

/// Reads the superblock.
pub(crate) fn read_super(dev: &dyn BlockDevice) -> Step<RawSuperblock> {
    let mut raw = RawSuperblock::new_zeroed();
    let end = SUPERBLOCK_OFFSET + size_of::<RawSuperblock>() as u64;
    if dev.size() < end {
        let what = alloc::format!("a device of {} bytes has none", dev.size());
        return Err(Stop::Error(Corrupt::new(Object::Superblock, what).into()));
    }
    dev.read_at(SUPERBLOCK_OFFSET, raw.as_mut_bytes())?;
    if raw.s_magic.get() != MAGIC {
        let what = alloc::format!("magic number is {:#06x} and not {MAGIC:#06x}", raw.s_magic.get());
        return Err(Stop::Error(Corrupt::new(Object::Superblock, what).into()));
    }
    Ok(raw)
}

/// Checks the fields without which nothing else can be found, and gives the validated superblock.
pub(crate) fn check_super(
    dev: &dyn BlockDevice,
    raw: &RawSuperblock,
    sink: &mut dyn FnMut(&Finding) -> bool,
) -> Step<Superblock> {
    let mut wrong = |kind, found: u64, expected: Option<u64>| {
        let place = Place::Superblock;
        sink(&Finding { place, kind, found: Some(found), expected, name: Vec::new() });
        Stop::Unusable
    };
    let known = without_unused(dev, raw);
    let raw = known.as_ref().unwrap_or(raw);
    let features = Features {
        compat: CompatFeatures::from_bits_retain(raw.s_feature_compat.get()),
        incompat: IncompatFeatures::from_bits_retain(raw.s_feature_incompat.get()),
        ro_compat: RoCompatFeatures::from_bits_retain(raw.s_feature_ro_compat.get()),
    };
    if raw.s_rev_level.get() > 1 {
        return Err(Stop::Error(Incompatible::Revision(raw.s_rev_level.get()).into()));
    }
    features.check_readable(false).map_err(Stop::Error)?;
    let only = Features {
        compat: CompatFeatures::from_bits_retain(features.compat.bits() & !CHECKED_COMPAT),
        ro_compat: RoCompatFeatures::from_bits_retain(features.ro_compat.bits() & !CHECKED),
        incompat: IncompatFeatures::empty(),
    };
    if only != Features::default() {
        return Err(Stop::Error(Incompatible::Feature(only.to_names()).into()));
    }
    let Some(block_size) = BlockSize::from_s_log_block_size(raw.s_log_block_size.get()) else {
        let fragment = raw.s_log_frag_size.get();
        let expected = (fitness(raw, fragment, dev.size()) > 0).then_some(fragment.into());
        return Err(wrong(Kind::BlockSize, raw.s_log_block_size.get().into(), expected));
    };
    if raw.s_log_frag_size.get() != raw.s_log_block_size.get() {
        // Both are the size of a block; the rest tells which of them is wrong.
        let (block, fragment) = (raw.s_log_block_size.get(), raw.s_log_frag_size.get());
        if fitness(raw, fragment, dev.size()) > fitness(raw, block, dev.size()) {
            return Err(wrong(Kind::BlockSize, block.into(), Some(fragment.into())));
        }
        return Err(wrong(Kind::FragmentSize, fragment.into(), Some(block.into())));
    }
    let first = u32::from(block_size.bytes() == 1024);
    if raw.s_first_data_block.get() != first {
        return Err(wrong(Kind::FirstDataBlock, raw.s_first_data_block.get().into(), Some(first.into())));
    }
    let (per_group, fragments) = (raw.s_blocks_per_group.get(), raw.s_frags_per_group.get());
    // A group's bitmap is one block of whole bytes. Of two numbers that can be, the one is right by which the inodes are as
    // many as they should be.
    let can_be =
        |number: u32| number != 0 && number.is_multiple_of(8) && u64::from(number) <= block_size.bytes() * 8;
    let fits = |number: u32| inodes_of(raw, number) == Some(raw.s_inodes_count.get().into());
    if !can_be(per_group)
        || fragments != per_group && can_be(fragments) && fits(fragments) && !fits(per_group)
    {
        let expected = can_be(fragments).then_some(fragments.into());
        return Err(wrong(Kind::BlocksPerGroup, per_group.into(), expected));
    }
    if fragments != per_group {
        return Err(wrong(Kind::FragmentsPerGroup, fragments.into(), Some(per_group.into())));
    }
    let inodes = raw.s_inodes_per_group.get();
    if !can_be(inodes) {
        let groups = groups_of(raw, per_group).max(1);
        let expected = u64::from(raw.s_inodes_count.get()) / groups;
        let is_whole = u64::from(raw.s_inodes_count.get()).is_multiple_of(groups);
        let expected = u32::try_from(expected).ok().filter(|&number| is_whole && can_be(number));
        return Err(wrong(Kind::InodesPerGroup, inodes.into(), expected.map(u64::from)));
    }
    let bytes = u64::from(raw.s_blocks_count.get()) << block_size.log2();
    if bytes > dev.size() {
        return Err(wrong(Kind::DeviceTooSmall, bytes, Some(dev.size())));
    }
    if raw.s_rev_level.get() == 1 {
        let (size, first) = (u64::from(raw.s_inode_size.get()), raw.s_first_ino.get());
        if !size.is_power_of_two() || size < 128 || size > block_size.bytes() {
            return Err(wrong(Kind::InodeSize, size, None));
        }
        if first < 11 || first > raw.s_inodes_count.get() {
            let inodes =
                inodes_of(raw, per_group).filter(|inodes| (11..=*inodes).contains(&u64::from(first)));
            if let Some(inodes) = inodes.filter(|inodes| *inodes != u64::from(raw.s_inodes_count.get())) {
                return Err(wrong(Kind::InodeCount, raw.s_inodes_count.get().into(), Some(inodes)));
            }
            return Err(wrong(Kind::FirstInode, first.into(), None));
        }
    }
    if raw.s_r_blocks_count.get() > raw.s_blocks_count.get() / 2 {
        return Err(wrong(Kind::ReservedBlocks, raw.s_r_blocks_count.get().into(), None));
    }
    match Superblock::from_raw(raw, dev.size(), false) {
        Ok(sb) => {
            let spare = u64::from(raw.s_reserved_gdt_blocks.get());
            if features.compat.contains(CompatFeatures::RESIZE_INODE) {
                let room = spare_descriptors(dev, &geometry(&sb)).map(u64::from);
                if spare > block_size.pointers() || room.is_some_and(|room| room < spare) {
                    return Err(wrong(Kind::SpareDescriptors, spare, room));
                }
            }
            Ok(sb)
        }
        Err(Error::Corrupt(_)) => {
            if let Some(inodes) = inodes_of(raw, per_group)
                && inodes != u64::from(raw.s_inodes_count.get())
            {
                return Err(wrong(Kind::InodeCount, raw.s_inodes_count.get().into(), Some(inodes)));
            }
            Err(wrong(Kind::SuperblockField, per_group.into(), None))
        }
        Err(error) => Err(Stop::Error(error)),
    }
}

/// The superblock without features that a file has by a flag of its inode, where no file has the flag: to e2fsck, too, that is
/// an image without them. `None` where it has no such feature, or a file uses it.
fn without_unused(dev: &dyn BlockDevice, raw: &RawSuperblock) -> Option<RawSuperblock> {
    // A feature and the flag: incompatible ones, and one that does not keep others from reading.
    const INCOMPATIBLE: [(u32, u32); 2] = [(ENCRYPT, 0x800), (INLINE_DATA, 0x1000_0000)];
    const VERITY: (u32, u32) = (0x8000, 0x10_0000);
    let (mut incompat, mut ro_compat) = (raw.s_feature_incompat.get(), raw.s_feature_ro_compat.get());
    let mut flags = 0;
    let mut take = |field: &mut u32, (feature, flag): (u32, u32)| {
        if *field & feature != 0 {
            *field &= !feature;
            flags |= flag;
        }
    };
    for feature in INCOMPATIBLE {
        take(&mut incompat, feature);
    }
    take(&mut ro_compat, VERITY);
    // Whether there are orphans says the file of orphans.
    let is_left = ro_compat & ORPHANS != 0 && raw.s_feature_compat.get() & ORPHAN_FILE == 0;
    let is_marked = marks_no_journal(raw) || crate::jbd2::is_marked_in_vain(dev, raw);
    if flags == 0 && !is_left && !is_marked {
        return None;
    }
    if is_marked {
        incompat &= !IncompatFeatures::RECOVER.bits();
    }
    let mut known = *raw;
    known.s_feature_incompat = incompat.into();
    known.s_feature_ro_compat = if is_left { ro_compat & !ORPHANS } else { ro_compat }.into();
    let sb = check_super(dev, &known, &mut |_| false).ok()?;
    (flags == 0 || !has_flag(dev, &geometry(&sb), flags)?).then_some(known)
}

/// Whether a superblock says that a journal has to be replayed, and names none.
pub(crate) fn marks_no_journal(raw: &RawSuperblock) -> bool {
    raw.s_feature_incompat.get() & IncompatFeatures::RECOVER.bits() != 0
        && raw.s_feature_compat.get() & CompatFeatures::HAS_JOURNAL.bits() == 0
        && raw.s_journal_inum.get() == 0
}

/// Whether an inode in use has one of the flags; `None` where the tables cannot be read, or there is no root in them.
fn has_flag(dev: &dyn BlockDevice, geo: &Geometry, flags: u32) -> Option<bool> {
    let mut bytes = alloc::vec![0; geo.block_size.len()];
    let mut desc = RawGroupDesc::default();
    for group in 0..geo.groups {
        let at = geo.descriptor_offset(GroupNr::new(group), GroupNr::new(0));
        dev.read_at(at, desc.as_mut_bytes()).ok()?;
        for nr in 0..geo.inode_table_blocks() {
            let block = desc.bg_inode_table.get().checked_add(nr)?;
            dev.read_at(u64::from(block) << geo.block_size.log2(), &mut bytes).ok()?;
            for (index, inode) in bytes.chunks_exact(geo.inode_size.into()).enumerate() {
                let (inode, _) = RawInode::ref_from_prefix(inode).ok()?;
                if (group, nr, index) == (0, 0, 1) && inode.i_mode.get() & 0o170_000 != 0o040_000 {
                    return None;
                }
                if inode.i_links_count.get() != 0 && inode.i_flags.get() & flags != 0 {
                    return Some(true);
                }
            }
        }
    }
    Some(false)
}

/// How well a size of blocks, as `s_log_block_size` has it, fits the rest of a superblock; 0 where it cannot be.
fn fitness(raw: &RawSuperblock, log: u32, device: u64) -> u32 {
    let Some(size) = BlockSize::from_s_log_block_size(log) else { return 0 };
    let bytes = u64::from(raw.s_blocks_count.get()) << size.log2();
    let first = raw.s_first_data_block.get() == u32::from(log == 0);
    if !first || bytes > device || u64::from(raw.s_blocks_per_group.get()) > size.bytes() * 8 {
        return 0;
    }
    1 + u32::from(bytes == device) + u32::from(u64::from(raw.s_blocks_per_group.get()) == size.bytes() * 8)
}

/// How many spare blocks of descriptors have room before the bitmaps and the table of group 0; `None` where these do not lie
/// one behind the other, as mke2fs lays them out.
fn spare_descriptors(dev: &dyn BlockDevice, geo: &Geometry) -> Option<u32> {
    let behind = geo.first_data_block.checked_add(1)?.checked_add(geo.descriptor_blocks())?;
    let mut desc = RawGroupDesc::default();
    dev.read_at(geo.descriptor_offset(GroupNr::new(0), GroupNr::new(0)), desc.as_mut_bytes()).ok()?;
    let first = desc.bg_block_bitmap.get();
    let spare = first.checked_sub(behind)?;
    let follows = desc.bg_inode_bitmap.get() == first.checked_add(1)?
        && desc.bg_inode_table.get() == first.checked_add(2)?;
    (follows && u64::from(spare) <= geo.block_size.pointers()).then_some(spare)
}

/// How many groups of so many blocks there are.
fn groups_of(raw: &RawSuperblock, per_group: u32) -> u64 {
    let blocks = raw.s_blocks_count.get().saturating_sub(raw.s_first_data_block.get());
    u64::from(blocks).div_ceil(u64::from(per_group.max(1)))
}

/// How many inodes there are in groups of so many blocks; `None` for none.
fn inodes_of(raw: &RawSuperblock, per_group: u32) -> Option<u64> {
    let inodes = groups_of(raw, per_group) * u64::from(raw.s_inodes_per_group.get());
    (inodes != 0).then_some(inodes)
}

/// The layout of an image.
pub(crate) fn geometry(sb: &Superblock) -> Geometry {
    Geometry::new(sb)
}
