//! Repairs before the passes: a superblock that can be read, from its backups or from what is around.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::mem::offset_of;

use blockdev::{BlockDevice, CutOff};
use ext2_core::raw::{MAGIC, RawGroupDesc, RawInode, RawSuperblock, SUPERBLOCK_OFFSET};
use ext2_core::rules::STATE_VALID;
use ext2_core::{BlockSize, FileKind, GroupNr, IncompatFeatures, Result, RoCompatFeatures, Superblock};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::check::layout::of_backup;
use crate::check::run::{Run, Step, Stop};
use crate::check::superblock::{check_super, geometry, read_super};
use crate::check::{Finding, Kind, Place};

/// Groups that have a backup of the superblock in the usual layouts, in the order in which they are tried.
const GROUPS: [u64; 18] = [1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 2, 4, 6, 8, 10, 11, 12, 13];

/// A backup of the superblock that describes the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// The block in which it lies.
    pub block: u64,
    /// Bytes of a block.
    pub block_size: u64,
    /// The group that begins with it.
    pub group: u32,
}

fn finding(kind: Kind) -> Finding {
    Finding { place: Place::Superblock, kind, found: None, expected: None, name: Vec::new() }
}

/// Puts a backup of superblock and descriptors in the place of the primary ones, for looking or as the first step of a
/// repair.
///
/// # Errors
/// `Corrupt` when there is no superblock in that block, the device's errors.
pub fn use_backup(dev: &dyn BlockDevice, backup: &Backup) -> Result<()> {
    let at = backup.block.saturating_mul(backup.block_size);
    let Some(mut raw) = read_at(dev, at) else {
        let what =
            alloc::format!("block {} of {} bytes has none that can be used", backup.block, backup.block_size);
        return Err(ext2_core::Corrupt::new(ext2_core::Object::Superblock, what).into());
    };
    raw.s_block_group_nr = 0.into();
    let Ok(sb) = check_super(dev, &raw, &mut |_| false) else { return Ok(()) };
    let geo = geometry(&sb);
    let mut bytes = vec![0; geo.block_size.len()];
    let group = GroupNr::new(backup.group);
    // Behind the first meta group a backup has no descriptors.
    let blocks = if geo.has_old_descriptors(group) { geo.descriptor_blocks() } else { 0 };
    for nr in 0..blocks {
        let from = geo.descriptor_block(nr, group);
        let to = geo.descriptor_block(nr, GroupNr::new(0));
        let (from, to) = (u64::from(from) << geo.block_size.log2(), u64::from(to) << geo.block_size.log2());
        if from != to {
            dev.read_at(from, &mut bytes)?;
            let groups = nr.saturating_mul(geo.descriptors_per_block())..geo.groups;
            for (group, desc) in groups.zip(bytes.chunks_exact_mut(size_of::<RawGroupDesc>())) {
                if let Ok(desc) = RawGroupDesc::mut_from_bytes(desc) {
                    *desc = of_backup(&raw, group, *desc);
                }
            }
            dev.write_at(to, &bytes)?;
        }
    }
    dev.write_at(SUPERBLOCK_OFFSET, raw.as_bytes())?;
    Ok(())
}

/// The backup of the superblock in a block: of the size of blocks that it says itself.
#[must_use]
pub fn backup_in_block(dev: &dyn BlockDevice, block: u64) -> Option<Backup> {
    (0..=6u32).find_map(|log| {
        let at = block.checked_mul(1024 << log)?;
        let raw = read_at(dev, at)?;
        backup_at(&raw, at).filter(|backup| backup.block == block && backup.block_size == 1024 << log)
    })
}

/// Whether a superblock is one that the rest can be found by, whatever the journal holds.
fn is_usable(dev: &dyn BlockDevice, raw: &RawSuperblock) -> bool {
    check_super(dev, &unmarked(raw), &mut |_| false).is_ok()
}

/// A superblock that does not say that its journal has to be replayed.
fn unmarked(raw: &RawSuperblock) -> RawSuperblock {
    let bits = raw.s_feature_incompat.get() & !IncompatFeatures::RECOVER.bits();
    let mut unmarked = *raw;
    unmarked.s_feature_incompat = bits.into();
    unmarked
}

/// The superblock at a byte, if it is one that can be used. A backup has the mark of a full journal where the file system grew
/// while it was mounted: what that mount left is told by the journal itself.
fn read_at(dev: &dyn BlockDevice, at: u64) -> Option<RawSuperblock> {
    let mut raw = RawSuperblock::new_zeroed();
    if at.checked_add(1024)? > dev.size() {
        return None;
    }
    dev.read_at(at, raw.as_mut_bytes()).ok()?;
    (raw.s_magic.get() == MAGIC && is_usable(dev, &raw)).then(|| unmarked(&raw))
}

/// Whether the primary superblock is one that the rest can be found by.
#[must_use]
pub fn has_superblock(dev: &dyn BlockDevice) -> bool {
    read_super(dev).is_ok_and(|raw| is_usable(dev, &raw))
}

/// The device with the size that its superblock says, where it is shorter: for reading what is left of an image.
#[must_use]
pub fn with_its_size(dev: Arc<dyn BlockDevice>) -> Arc<dyn BlockDevice> {
    let mut raw = RawSuperblock::new_zeroed();
    if dev.size() < SUPERBLOCK_OFFSET + 1024
        || dev.read_at(SUPERBLOCK_OFFSET, raw.as_mut_bytes()).is_err()
        || raw.s_magic.get() != MAGIC
    {
        return dev;
    }
    let size = BlockSize::from_s_log_block_size(raw.s_log_block_size.get());
    let bytes = size.map_or(0, |size| u64::from(raw.s_blocks_count.get()) << size.log2());
    if bytes <= dev.size() { dev } else { Arc::new(CutOff::device(dev, bytes)) }
}

/// Looks for a backup of the superblock: where mke2fs puts them for each size of blocks, and otherwise everywhere.
///
/// Nothing has to be known of the image. Linux has no counterpart; e2fsck tries two of these places.
#[must_use]
pub fn find_backup(dev: &dyn BlockDevice) -> Option<Backup> {
    find(dev, true).map(|(backup, _)| backup)
}

/// A backup at the usual places, or `everywhere`.
fn find(dev: &dyn BlockDevice, everywhere: bool) -> Option<(Backup, RawSuperblock)> {
    let usual = (0..=6u32).flat_map(|log| GROUPS.map(|group| (log, group)));
    for (log, group) in usual {
        let size = 1024u64 << log;
        let block = u64::from(log == 0) + group * size * 8;
        if let Some(raw) = read_at(dev, block << (10 + log))
            && let Some(backup) = backup_at(&raw, block << (10 + log))
        {
            return Some((backup, raw));
        }
    }
    if !everywhere {
        return None;
    }
    // Groups of another size: whatever begins as a superblock and says of itself where it is.
    const CHUNK: u64 = 1 << 20;
    let mut chunk = Vec::new();
    let mut start = 0;
    while start < dev.size() {
        chunk.resize(CHUNK.min(dev.size() - start) as usize, 0);
        dev.read_at(start, &mut chunk).ok()?;
        for at in (0..chunk.len()).step_by(1024) {
            let offset = start + at as u64;
            if chunk.get(at + 56..at + 58) == Some(&MAGIC.to_le_bytes())
                && offset > SUPERBLOCK_OFFSET
                && let Some(raw) = read_at(dev, offset)
                && let Some(backup) = backup_at(&raw, offset)
            {
                return Some((backup, raw));
            }
        }
        start += CHUNK;
    }
    None
}

/// What a superblock at a byte is a backup of, if it is where it says to be.
fn backup_at(raw: &RawSuperblock, at: u64) -> Option<Backup> {
    let size = BlockSize::from_s_log_block_size(raw.s_log_block_size.get())?;
    let block = at >> size.log2();
    let from_first = block.checked_sub(raw.s_first_data_block.get().into())?;
    let per_group = u64::from(raw.s_blocks_per_group.get());
    if !at.is_multiple_of(size.bytes())
        || per_group == 0
        || from_first == 0
        || !from_first.is_multiple_of(per_group)
    {
        return None;
    }
    let group = from_first / per_group;
    let own = u64::from(raw.s_block_group_nr.get());
    (raw.s_rev_level.get() == 0 || own == group & 0xffff).then_some(Backup {
        block,
        block_size: size.bytes(),
        // OK to cast: there are fewer than 2^32 blocks.
        group: group as u32,
    })
}

/// Makes the superblock one that can be used, from a backup or by the field that is wrong. `Err` holds what cannot be
/// mended.
pub(crate) fn settle_super(
    dev: &dyn BlockDevice,
    answer: &mut dyn FnMut(&Finding) -> bool,
) -> Result<Result<(), Finding>> {
    // Each field at most once, and a backup.
    for _ in 0..8 {
        let mut wrong = None;
        let mut note = |finding: &Finding| {
            wrong = Some(finding.clone());
            false
        };
        let checked = match read_super(dev) {
            Ok(raw) => check_super(dev, &raw, &mut note),
            Err(stop) => Err(stop),
        };
        let error = match checked {
            Ok(sb) if lost_sparse_super(dev, &sb)? && answer(&finding(Kind::SparseSuper)) => {
                let at = SUPERBLOCK_OFFSET + offset_of!(RawSuperblock, s_feature_ro_compat) as u64;
                dev.write_u32(at, dev.read_u32(at)? | RoCompatFeatures::SPARSE_SUPER.bits())?;
                continue;
            }
            Ok(_) => return Ok(Ok(())),
            Err(Stop::Error(error)) => Some(error),
            Err(_) => None,
        };
        if matches!(error, Some(ext2_core::Error::Device(_))) {
            return error.map_or(Ok(Ok(())), Err);
        }
        let fault = wrong.unwrap_or_else(|| finding(Kind::SuperblockField));
        // A feature that is not known is hardly a fault: the whole image is not searched for that.
        let everywhere = !matches!(error, Some(ext2_core::Error::Incompatible(_)));
        if let Some((backup, mut raw)) = find(dev, everywhere) {
            let finding = Finding { found: None, expected: None, ..finding(Kind::SuperblockLost) };
            let finding = Finding { found: Some(backup.block), ..finding };
            if !answer(&finding) {
                return Ok(Err(finding));
            }
            raw.s_block_group_nr = 0.into();
            raw.s_state = (raw.s_state.get() & !STATE_VALID).into();
            dev.write_at(SUPERBLOCK_OFFSET, raw.as_bytes())?;
            continue;
        }
        if let Some(error) = error {
            return Err(error);
        }
        if fault.kind == Kind::DeviceTooSmall || !answer(&fault) || !mend_field(dev, &fault)? {
            return Ok(Err(fault));
        }
    }
    Ok(Err(finding(Kind::SuperblockField)))
}

/// Whether the feature `sparse_super` was there: without it every group begins with a backup, but group 2 begins with its bitmaps
/// and its table, as mke2fs lays out one that has none.
fn lost_sparse_super(dev: &dyn BlockDevice, sb: &Superblock) -> Result<bool> {
    let (geo, group) = (geometry(sb), GroupNr::new(2));
    let at = geo.descriptor_offset(group, GroupNr::new(0));
    let mut desc = RawGroupDesc::default();
    if sb.revision == 0
        || geo.groups <= group.get()
        || !geo.has_super(group)
        || at + size_of::<RawGroupDesc>() as u64 > dev.size()
    {
        return Ok(false);
    }
    dev.read_at(at, desc.as_mut_bytes())?;
    let own = [desc.bg_block_bitmap, desc.bg_inode_bitmap, desc.bg_inode_table];
    Ok((geo.group_start(group)..).zip(own).all(|(block, own)| own.get() == block))
}

/// Sets a field of the superblock to what the others leave for it; `false` when nothing says what it was.
fn mend_field(dev: &dyn BlockDevice, fault: &Finding) -> Result<bool> {
    let mut raw = RawSuperblock::new_zeroed();
    dev.read_at(SUPERBLOCK_OFFSET, raw.as_mut_bytes())?;
    let expected = fault.expected.and_then(|expected| u32::try_from(expected).ok());
    match (fault.kind, expected) {
        (Kind::BlockSize, Some(log)) => raw.s_log_block_size = log.into(),
        (Kind::FirstDataBlock, Some(first)) => raw.s_first_data_block = first.into(),
        // OK to cast: at most as many as a block has pointers.
        (Kind::SpareDescriptors, Some(spare)) => raw.s_reserved_gdt_blocks = (spare as u16).into(),
        (Kind::FragmentSize, _) => raw.s_log_frag_size = raw.s_log_block_size,
        (Kind::FragmentsPerGroup, _) => raw.s_frags_per_group = raw.s_blocks_per_group,
        (Kind::BlocksPerGroup, _) => {
            // Where the fragments do not say it either, it is what mke2fs takes.
            let usual = BlockSize::from_s_log_block_size(raw.s_log_block_size.get());
            let usual = usual.and_then(|size| u32::try_from(size.bytes() * 8).ok());
            let Some(number) = expected.or(usual) else { return Ok(false) };
            raw.s_blocks_per_group = number.into();
            raw.s_frags_per_group = number.into();
        }
        (Kind::ReservedBlocks, _) => raw.s_r_blocks_count = (raw.s_blocks_count.get() / 20).into(),
        (Kind::FirstInode, _) => raw.s_first_ino = 11.into(),
        (Kind::InodesPerGroup, Some(inodes)) => raw.s_inodes_per_group = inodes.into(),
        (Kind::InodeCount, Some(inodes)) => raw.s_inodes_count = inodes.into(),
        (Kind::InodeSize, _) => match guess_inode_size(dev, &raw)? {
            Some(size) => raw.s_inode_size = size.into(),
            None => return Ok(false),
        },
        _ => return Ok(false),
    }
    dev.write_at(SUPERBLOCK_OFFSET, raw.as_bytes())?;
    Ok(true)
}

/// The size of inodes at which the second one is the root.
fn guess_inode_size(dev: &dyn BlockDevice, raw: &RawSuperblock) -> Result<Option<u16>> {
    let Some(block) = BlockSize::from_s_log_block_size(raw.s_log_block_size.get()) else { return Ok(None) };
    let descs = (u64::from(raw.s_first_data_block.get()) + 1) << block.log2();
    if descs + 32 > dev.size() {
        return Ok(None);
    }
    let table =
        u64::from(dev.read_u32(descs + offset_of!(RawGroupDesc, bg_inode_table) as u64)?) << block.log2();
    for size in [256, 128, 512, 1024, 2048, 4096] {
        if u64::from(size) > block.bytes() || table + u64::from(size) + 128 > dev.size() {
            continue;
        }
        let mut root = RawInode::new_zeroed();
        dev.read_at(table + u64::from(size), root.as_mut_bytes())?;
        if FileKind::from_mode(root.i_mode.get()) == Some(FileKind::Directory)
            && root.i_links_count.get() >= 2
            && root.i_blocks.get() != 0
        {
            return Ok(Some(size));
        }
    }
    Ok(None)
}

impl Run<'_> {
    /// Writes superblock and descriptors where a group has their backups.
    pub(crate) fn write_backup(&mut self, group: GroupNr) -> Step {
        let mut raw = RawSuperblock::new_zeroed();
        self.dev.read_at(SUPERBLOCK_OFFSET, raw.as_mut_bytes())?;
        if raw.s_rev_level.get() > 0 {
            // OK to cast: the field has 16 bits, and so much is kept of larger numbers.
            raw.s_block_group_nr = (group.get() as u16).into();
        }
        self.dev.write_at(self.byte_of(self.geo.group_start(group)), raw.as_bytes())?;
        let mut bytes = Vec::new();
        // Behind the first meta group a backup has no descriptors.
        let blocks = if self.geo.has_old_descriptors(group) { self.geo.descriptor_blocks() } else { 0 };
        for nr in 0..blocks {
            let (from, to) =
                (self.geo.descriptor_block(nr, GroupNr::new(0)), self.geo.descriptor_block(nr, group));
            if from != to && self.is_block(from) && self.is_block(to) {
                self.read_block(from, &mut bytes)?;
                self.dev.write_at(self.byte_of(to), &bytes)?;
            }
        }
        Ok(())
    }
}
