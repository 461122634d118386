//! Pass 1: every inode and its blocks.

use core::mem::{offset_of, take};

use blockdev::Extent;
use zerocopy::FromBytes;

use super::Pass;
use super::finding::{Kind, Place};
use super::layout::pointer;
use super::run::{BAD, Dir, IMAGIC, Run, Step, USED};
use super::tree::{HURD, Owner, Walk};
use ext2_core::FileKind;
use ext2_core::raw::RawInode;
use ext2_core::rules::Shape;
use ext2_core::{CompatFeatures, RoCompatFeatures};

/// Bytes of inodes that are read at a time.
const CHUNK: u64 = 256 << 10;

/// How often in a row zeros may turn out to be no hole before nobody asks any more: on tmpfs the end of data is found by looking
/// at each page.
const HOPES: u32 = 2;

/// `i_flags` that say something to a check.
const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;
const INDEX: u32 = 0x1000;
const ENCRYPT: u32 = 0x800;
const IMAGIC_FLAG: u32 = 0x2000;
const EXTENTS: u32 = 0x8_0000;
const INLINE: u32 = 0x1000_0000;
const CASEFOLD: u32 = 0x4000_0000;

pub(crate) const ROOT: u32 = 2;
/// `EXT2_OS_LINUX` in `s_creator_os`.
const LINUX: u32 = 0;
const BAD_BLOCKS: u32 = 1;
const RESIZE: u32 = 7;
const JOURNAL: u32 = 8;
/// User, group and project quota of ext4.
const QUOTA: [u32; 2] = [3, 4];

/// An inode as pass 1 has it.
pub(crate) struct Seen<'b> {
    pub(crate) nr: u32,
    pub(crate) raw: &'b RawInode,
    /// The whole inode, `inode_size` bytes.
    pub(crate) bytes: &'b [u8],
    /// Whether it stays what it is: pass 1 may decide to delete it.
    pub(crate) flags: u32,
}

impl Seen<'_> {
    pub(crate) fn place(&self) -> Place {
        Place::Inode(self.nr)
    }

    pub(crate) fn kind(&self) -> Option<FileKind> {
        FileKind::from_mode(self.raw.i_mode.get())
    }

    /// Bytes, as every kind of file has them.
    pub(crate) fn size(&self) -> u64 {
        u64::from(self.raw.i_size_high.get()) << 32 | u64::from(self.raw.i_size.get())
    }

    fn is_special(&self) -> bool {
        use FileKind::{BlockDevice, CharDevice, Fifo, Socket};
        matches!(self.kind(), Some(CharDevice | BlockDevice | Fifo | Socket))
    }

    /// A symlink whose target lies in the inode (e2fsck tells by its size).
    fn is_fast_symlink(&self) -> bool {
        self.kind() == Some(FileKind::Symlink) && (1..60).contains(&self.size())
    }

    /// Whether `i_block` holds a block map.
    fn has_map(&self) -> bool {
        match self.kind() {
            Some(FileKind::Directory | FileKind::Regular) => true,
            Some(FileKind::Symlink) if self.raw.i_file_acl.get() == 0 => self.raw.i_blocks.get() != 0,
            Some(FileKind::Symlink) => {
                let [_, second, ..] = &self.raw.i_block;
                self.raw.i_size.get() >= 60 || self.raw.i_size.get() > 4 && second.get() == 0
            }
            _ => false,
        }
    }
}

impl Run<'_> {
    /// Checks all inodes.
    pub(crate) fn check_inodes(&mut self) -> Step {
        let inodes = self.geo.inodes_count as usize;
        for table in [&mut self.s.links, &mut self.s.counted] {
            table.clear();
            table.resize(inodes, 0);
        }
        self.s.state.clear();
        self.s.state.resize(inodes, 0);
        self.s.dirs.clear();
        self.s.dir_blocks.clear();
        self.s.attributes.clear();
        let size = u64::from(self.geo.inode_size);
        let at_once = CHUNK / size;
        let per_group = u64::from(self.geo.inodes_per_group);
        let mut buffer = take(&mut self.s.inodes);
        let mut hopes = HOPES;
        // Whether the table before ended in a hole: the next is likely to be one.
        let mut expects_hole = false;
        for group in 0..self.geo.groups {
            let (mut done, used, mut asked) = (0, u64::from(self.written(group).1), false);
            while done < used {
                let count = at_once.min(used - done);
                // OK to cast: the number of inodes has 32 bits.
                let first = (u64::from(group) * per_group + done + 1) as u32;
                let Some(offset) = self.inode_offset(first) else { break };
                if core::mem::take(&mut expects_hole)
                    && first >= self.geo.first_ino
                    && let Ok((Extent::Hole, len)) = self.dev.extent(offset, (used - done) * size)
                    && len >= count * size
                {
                    (expects_hole, done) = (true, done + len / size);
                    continue;
                }
                // At most a chunk.
                buffer.resize((count * size) as usize, 0);
                self.dev.read_at(offset, &mut buffer)?;
                if hopes > 0 && !asked && first >= self.geo.first_ino && crate::zeros::is_zero(&buffer) {
                    // Most of a table that is little used is often a hole of the image's file. There is nothing to check in it.
                    asked = true;
                    if let Ok((Extent::Hole, len)) = self.dev.extent(offset, (used - done) * size) {
                        (hopes, expects_hole) = (HOPES, true);
                        done += (len / size).max(count);
                        continue;
                    }
                    hopes -= 1;
                }
                for (nr, bytes) in (first..).zip(buffer.chunks_exact(size as usize)) {
                    if let Ok((raw, _)) = RawInode::ref_from_prefix(bytes) {
                        self.check_inode(&Seen { nr, raw, bytes, flags: raw.i_flags.get() })?;
                    }
                }
                done += count;
            }
            self.tick(Pass::Inodes, u64::from(group) + 1, self.geo.groups.into());
        }
        self.s.inodes = buffer;
        self.check_attribute_counts()?;
        if self.state(ROOT) & USED == 0 && self.fault(Place::Inode(ROOT), Kind::RootUnused)? {
            self.make_root()?;
        }
        if self.large_files
            && !self.sb.features.ro_compat.contains(RoCompatFeatures::LARGE_FILE)
            && self.fault(Place::Superblock, Kind::LargeFileFlag)?
        {
            self.set_feature_large_file()?;
        }
        self.finish_inodes()
    }

    fn check_inode(&mut self, inode: &Seen<'_>) -> Step {
        let (nr, raw) = (inode.nr, inode.raw);
        let links = raw.i_links_count.get();
        if let Some(slot) = self.s.links.get_mut(nr as usize - 1) {
            *slot = links;
        }
        let is_reserved = nr < self.geo.first_ino && nr != ROOT;
        if links == 0 && nr >= self.geo.first_ino && raw.i_mode.get() == 0 && raw.i_dtime.get() == 0 {
            return Ok(());
        }
        let mut dtime = raw.i_dtime.get();
        if dtime != 0 && dtime < self.geo.inodes_count && self.dates_are_sane() {
            if self.report(inode.place(), Kind::LowDtime, Some(dtime.into()), None)? {
                self.put_u32(nr, offset_of!(RawInode, i_dtime), if links == 0 { self.now } else { 0 })?;
            }
            dtime = 0;
        }
        if links == 0 && nr >= self.geo.first_ino {
            if dtime == 0
                && raw.i_dtime.get() == 0
                && raw.i_mode.get() != 0
                && self.fault(inode.place(), Kind::ZeroDtime)?
            {
                self.put_u32(nr, offset_of!(RawInode, i_dtime), self.now)?;
            }
            return Ok(());
        }
        if nr == BAD_BLOCKS || is_reserved {
            // That of the list of bad blocks is looked at with the list.
            let foreign = if nr == BAD_BLOCKS { CASEFOLD } else { CASEFOLD | EXTENTS };
            // What they are depends on their numbers, but for these flags.
            if inode.flags & foreign != 0
                && self.report(inode.place(), Kind::ForeignFlag, Some(inode.flags.into()), None)?
            {
                self.put_u32(nr, offset_of!(RawInode, i_flags), inode.flags & !(CASEFOLD | EXTENTS))?;
            }
            return if nr == BAD_BLOCKS { self.check_bad_blocks(inode) } else { self.check_reserved(inode) };
        }
        if links == 0 {
            return Ok(());
        }
        self.check_used(inode)
    }

    /// Whether no date of the superblock is so early that a date may look like an inode's number.
    fn dates_are_sane(&self) -> bool {
        [&self.raw.s_wtime, &self.raw.s_mtime, &self.raw.s_mkfs_time]
            .iter()
            .all(|time| time.get() == 0 || time.get() >= self.geo.inodes_count)
    }

    fn check_bad_blocks(&mut self, inode: &Seen<'_>) -> Step {
        let raw = inode.raw;
        let fields = [raw.i_mode, raw.i_uid, raw.i_gid, raw.i_links_count];
        if (fields.iter().any(|field| field.get() != 0) || raw.i_file_acl.get() != 0)
            && self.fault(inode.place(), Kind::BadBlocksInode)?
        {
            let fields = [
                offset_of!(RawInode, i_mode),
                offset_of!(RawInode, i_uid),
                offset_of!(RawInode, i_gid),
                offset_of!(RawInode, i_links_count),
            ];
            for field in fields {
                self.put_u16(inode.nr, field, 0)?;
            }
            self.put_u32(inode.nr, offset_of!(RawInode, i_file_acl), 0)?;
        }
        if inode.flags & (EXTENTS | INLINE) != 0
            && self.report(inode.place(), Kind::ForeignFlag, Some(inode.flags.into()), None)?
        {
            let flags = inode.flags & !(CASEFOLD | EXTENTS | INLINE);
            self.put_u32(inode.nr, offset_of!(RawInode, i_flags), flags)?;
        }
        self.set_state(inode.nr, USED);
        self.walk_tree(inode.nr, raw, Owner::BadBlocks)?;
        Ok(())
    }

    fn check_reserved(&mut self, inode: &Seen<'_>) -> Step {
        let (nr, raw) = (inode.nr, inode.raw);
        self.set_state(nr, USED);
        let in_use = raw.i_links_count.get() != 0 || raw.i_blocks.get() != 0 || raw.i_block[0].get() != 0;
        let is_regular = inode.kind() == Some(FileKind::Regular);
        if nr == JOURNAL && self.raw.s_journal_inum.get() == JOURNAL {
            if !is_regular && self.fault(inode.place(), Kind::JournalMode)? {
                self.put_u16(nr, offset_of!(RawInode, i_mode), FileKind::Regular.mode_bits())?;
            }
            return self.check_blocks(inode).map(|_| ());
        }
        if QUOTA.contains(&nr) && self.sb.features.ro_compat.bits() & super::superblock::QUOTA != 0 {
            return self.check_blocks(inode).map(|_| ());
        }
        if nr == JOURNAL || QUOTA.contains(&nr) {
            if in_use && self.fault(inode.place(), Kind::JournalInUse)? {
                self.wipe_inode(inode)?;
                return Ok(());
            }
            if raw.i_links_count.get() == 0 {
                return Ok(());
            }
            return self.check_used(inode);
        }
        let mode = raw.i_mode.get();
        let wrong = match nr {
            5 => inode.kind() == Some(FileKind::Directory),
            RESIZE => mode != 0 && !is_regular,
            _ => mode != 0,
        };
        if wrong && self.fault(inode.place(), Kind::ReservedMode)? {
            self.put_u16(nr, offset_of!(RawInode, i_mode), 0)?;
            return Ok(());
        }
        if nr == RESIZE && self.later.resize_inode {
            // It is made anew from the descriptors.
            return Ok(());
        }
        self.check_blocks(inode).map(|_| ())
    }

    /// Fills an inode with zeros.
    fn wipe_inode(&mut self, inode: &Seen<'_>) -> Step {
        if let Some(offset) = self.inode_offset(inode.nr) {
            self.dev.zero(offset, inode.bytes.len() as u64)?;
        }
        if let Some(links) = self.s.links.get_mut(inode.nr as usize - 1) {
            *links = 0;
        }
        Ok(())
    }

    /// Checks an inode with links that is the root or not reserved.
    fn check_used(&mut self, inode: &Seen<'_>) -> Step {
        let (nr, raw) = (inode.nr, inode.raw);
        if nr == ROOT
            && inode.kind() != Some(FileKind::Directory)
            && self.fault(inode.place(), Kind::RootNotDirectory)?
        {
            return self.mend_root(inode);
        }
        if raw.i_dtime.get() != 0 {
            let kind = if nr == ROOT { Kind::RootDtime } else { Kind::DtimeSet };
            if self.fault(inode.place(), kind)? {
                self.put_u32(nr, offset_of!(RawInode, i_dtime), 0)?;
            }
        }
        let foreign = EXTENTS | INLINE | CASEFOLD | ENCRYPT;
        if inode.flags & foreign != 0
            && self.report(inode.place(), Kind::ForeignFlag, Some(inode.flags.into()), None)?
        {
            if inode.flags & EXTENTS != 0 && crate::repair::has_extents(raw) {
                // The blocks are those that the extents say, and become those of a map.
                self.set_state(nr, USED | inode.kind().map_or(0, FileKind::dirent_type));
                return self.claim_extents(nr, raw);
            }
            self.put_u32(nr, offset_of!(RawInode, i_flags), inode.flags & !foreign)?;
        }
        let mut state = USED | inode.kind().map_or(0, FileKind::dirent_type);
        if self.has_bad_fields(inode)? {
            state |= BAD;
        }
        if inode.flags & IMAGIC_FLAG != 0 {
            if self.sb.features.compat.contains(CompatFeatures::IMAGIC_INODES) {
                state |= IMAGIC;
            } else if self.report(inode.place(), Kind::ImagicFlag, Some(inode.flags.into()), None)? {
                self.put_u32(nr, offset_of!(RawInode, i_flags), inode.flags & !(foreign | IMAGIC_FLAG))?;
            }
        }
        self.check_extra_space(inode)?;
        self.check_is_really_directory(inode)?;
        match inode.kind() {
            None => {
                if self.report(inode.place(), Kind::Mode, Some(raw.i_mode.get().into()), None)? {
                    return self.mend_mode(inode);
                }
                state |= BAD;
            }
            // Pointers that no symlink has are taken away with its blocks, and the target is looked at after that.
            Some(FileKind::Symlink) if self.has_stray_pointers(raw) => {}
            Some(FileKind::Symlink) if !self.is_good_symlink(inode)? => {
                if self.fault(inode.place(), Kind::Symlink)? {
                    return self.clear_inode(nr);
                }
                state |= BAD;
            }
            Some(FileKind::Directory) => {
                let indexed = inode.flags & INDEX != 0;
                self.s.dirs.push(Dir { inode: nr, parent: 0, dotdot: 0, indexed, entry_at: 0, dotdot_at: 0 });
            }
            Some(_) if inode.is_special() => {
                if !is_good_special(inode) {
                    if self.fault(inode.place(), Kind::SpecialInode)? {
                        return self.clear_inode(nr);
                    }
                    state |= BAD;
                } else if inode.size() != 0
                    && self.report(inode.place(), Kind::SpecialSize, Some(inode.size()), Some(0))?
                {
                    self.put_size(nr, 0)?;
                }
            }
            Some(_) => {}
        }
        self.set_state(nr, state);
        if !self.check_blocks(inode)? {
            self.clear_inode(nr)?;
            self.s.dirs.pop();
        }
        Ok(())
    }

    /// Fields that have to be 0.
    fn has_bad_fields(&mut self, inode: &Seen<'_>) -> Step<bool> {
        let raw = inode.raw;
        // `i_osd2`: on Linux the high half of `i_blocks` lies where the Hurd has the fragment, and that of `i_file_acl` where
        // it has more of the mode. Others have neither.
        let (linux, hurd) = (self.sb.creator_os == LINUX, self.sb.creator_os == HURD);
        let blocks_high = u16::from_le_bytes([raw.i_frag, raw.i_fsize]);
        let fields = [
            (Kind::FaddrField, raw.i_faddr.get(), true, offset_of!(RawInode, i_faddr), 4),
            (Kind::AclHighField, raw.i_pad1.get().into(), linux, offset_of!(RawInode, i_pad1), 2),
            (Kind::BlocksHighField, blocks_high.into(), linux, offset_of!(RawInode, i_frag), 2),
            (Kind::FragmentField, raw.i_frag.into(), hurd, offset_of!(RawInode, i_frag), 1),
            (Kind::FragmentSizeField, raw.i_fsize.into(), hurd, offset_of!(RawInode, i_fsize), 1),
        ];
        let mut bad = false;
        for (kind, value, is_there, field, len) in fields {
            if !is_there || value == 0 {
                continue;
            }
            if self.report(inode.place(), kind, Some(value.into()), None)? {
                let at = self.inode_offset(inode.nr).unwrap_or(0) + field as u64;
                self.dev.write_at(at, [0; 4].get(..len).unwrap_or_default())?;
            } else {
                bad = true;
            }
        }
        Ok(bad)
    }

    /// A symlink's target: as long as `i_size` says, without a zero byte, in one block or in the inode.
    fn is_good_symlink(&mut self, inode: &Seen<'_>) -> Step<bool> {
        let raw = inode.raw;
        if raw.i_size_high.get() != 0 || raw.i_size.get() == 0 || inode.flags & INDEX != 0 {
            return Ok(false);
        }
        let size = raw.i_size.get() as usize;
        if inode.is_fast_symlink() {
            let at = offset_of!(RawInode, i_block);
            let target = inode.bytes.get(at..at + 60).unwrap_or_default();
            return Ok(target.iter().position(|&byte| byte == 0) == Some(size));
        }
        let [first, rest @ ..] = &raw.i_block;
        if rest.iter().any(|block| block.get() != 0) || !self.is_block(first.get()) {
            return Ok(false);
        }
        let mut block = take(&mut self.s.block);
        self.read_block(first.get(), &mut block)?;
        let good = block.iter().position(|&byte| byte == 0) == Some(size);
        self.s.block = block;
        Ok(good)
    }

    /// Whether a symlink that is to be mended has a block for its target, and pointers behind that.
    fn has_stray_pointers(&self, raw: &RawInode) -> bool {
        let [first, rest @ ..] = &raw.i_block;
        self.mode == super::Mode::Repair
            && raw.i_size_high.get() == 0
            && (60..self.geo.block_size.bytes()).contains(&raw.i_size.get().into())
            && self.is_block(first.get())
            && rest.iter().any(|block| block.get() != 0)
    }

    /// A device, FIFO or socket whose first block looks like that of a directory.
    fn check_is_really_directory(&mut self, inode: &Seen<'_>) -> Step {
        use FileKind::{Directory, Regular, Symlink};
        let first = inode.raw.i_block[0].get();
        if matches!(inode.kind(), Some(Directory | Regular | Symlink)) || first == 0 {
            return Ok(());
        }
        let mut not_device = false;
        for (slot, block) in inode.raw.i_block.iter().enumerate() {
            let block = block.get();
            if block != 0 {
                not_device |= slot >= 4;
                if !self.is_block(block) || self.s.found.get(block.into()) {
                    return Ok(());
                }
            }
        }
        let is_device = matches!(inode.kind(), Some(FileKind::CharDevice | FileKind::BlockDevice));
        if is_device && inode.raw.i_links_count.get() == 1 && !not_device {
            return Ok(());
        }
        let mut block = take(&mut self.s.block);
        self.read_block(first, &mut block)?;
        let u16_at = |at: usize| {
            let bytes = block.get(at..).and_then(|rest| rest.first_chunk::<2>());
            bytes.map_or(0, |bytes| usize::from(u16::from_le_bytes(*bytes)))
        };
        let byte_at = |at: usize| block.get(at).copied().unwrap_or(0);
        let len = u16_at(4);
        let dot = byte_at(6) == 1 && byte_at(8) == b'.' && pointer(&block, 0) == inode.nr;
        let dot_fits = len >= 12 && len.is_multiple_of(4) && len < block.len() - 12;
        let next = u16_at(len + 4);
        let dotdot = byte_at(len + 6) == 2 && byte_at(len + 8) == b'.' && byte_at(len + 9) == b'.';
        let is_dir = dot && dot_fits && dotdot && next >= 12 && next.is_multiple_of(4);
        self.s.block = block;
        if is_dir && self.fault(inode.place(), Kind::ReallyDirectory)? {
            let mode = inode.raw.i_mode.get() & 0o7777 | FileKind::Directory.mode_bits();
            self.put_u16(inode.nr, offset_of!(RawInode, i_mode), mode)?;
            self.later.again = true;
        }
        Ok(())
    }

    /// Checks attributes, block map, size and count of blocks; `false` for an inode to delete.
    fn check_blocks(&mut self, inode: &Seen<'_>) -> Step<bool> {
        let (nr, raw) = (inode.nr, inode.raw);
        let mut walk = Walk::default();
        let kind = inode.kind();
        let is_dir = kind == Some(FileKind::Directory);
        let attribute_blocks = u64::from(self.check_attribute_block(inode)?);
        if inode.has_map() {
            let owner = match kind {
                _ if nr == RESIZE => Owner::Resize,
                Some(FileKind::Directory) => Owner::Directory,
                Some(FileKind::Regular) => Owner::Regular,
                _ => Owner::Symlink,
            };
            walk = self.walk_tree(nr, raw, owner)?;
        }
        walk.blocks += attribute_blocks;
        if inode.flags & INDEX != 0
            && let Some(mend) = self.check_index_flag(inode, is_dir)?
        {
            if let Ok(at) = self.s.dirs.binary_search_by_key(&nr, |dir| dir.inode) {
                self.s.dirs[at].indexed = false;
            }
            if mend {
                self.put_u32(nr, offset_of!(RawInode, i_flags), inode.flags & !INDEX)?;
            }
        }
        if is_dir && walk.blocks == 0 && self.fault(inode.place(), Kind::ZeroLengthDirectory)? {
            return Ok(false);
        }
        self.check_size(inode, is_dir, &walk)?;
        let sectors = walk.blocks << (self.geo.block_size.log2() - 9);
        if sectors != u64::from(raw.i_blocks.get())
            && self.report(inode.place(), Kind::Blocks, Some(raw.i_blocks.get().into()), Some(sectors))?
        {
            // OK to cast: fewer than 2^32 blocks were found, and e2fsck cuts off what is above.
            self.put_u32(nr, offset_of!(RawInode, i_blocks), sectors as u32)?;
        }
        Ok(true)
    }

    fn check_size(&mut self, inode: &Seen<'_>, is_dir: bool, walk: &Walk) -> Step {
        let log = self.geo.block_size.log2();
        let mut size = inode.size();
        let wrong = if is_dir {
            // 32 bits, as e2fsck counts them.
            let blocks = (size >> log) & 0xffff_ffff;
            let preallocated = u64::from(self.raw.s_prealloc_dir_blocks);
            !size.is_multiple_of(1 << log)
                || blocks > walk.end
                || walk.end > blocks && walk.end - blocks > preallocated
        } else {
            walk.end > 0 && size < (walk.end - 1) << log || size > self.max_size()
        };
        if wrong && inode.kind() != Some(FileKind::Symlink) {
            let expected = walk.end << log;
            if self.report(inode.place(), Kind::Size, Some(size), Some(expected))? {
                self.put_size(inode.nr, expected)?;
                size = expected;
            }
        }
        if is_dir && !wrong && inode.raw.i_size_high.get() != 0 {
            let found = inode.raw.i_size_high.get().into();
            if self.report(inode.place(), Kind::DirAclField, Some(found), None)? {
                self.put_u32(inode.nr, offset_of!(RawInode, i_size_high), 0)?;
            }
        }
        self.large_files |= inode.kind() == Some(FileKind::Regular) && size >= 1 << 31;
        Ok(())
    }

    /// The greatest size that a block map has room for, in bytes.
    fn max_size(&self) -> u64 {
        let blocks = Shape::new(self.geo.block_size.pointers()).max_blocks();
        blocks.saturating_mul(self.geo.block_size.bytes())
    }

    fn put_size(&mut self, nr: u32, size: u64) -> Step {
        // OK to cast: the two halves.
        self.put_u32(nr, offset_of!(RawInode, i_size), size as u32)?;
        self.put_u32(nr, offset_of!(RawInode, i_size_high), (size >> 32) as u32)
    }

    /// Reports the flag of an indexed directory where an inode may not have it, and says whether to take it away.
    fn check_index_flag(&mut self, inode: &Seen<'_>, is_dir: bool) -> Step<Option<bool>> {
        if !is_dir || !self.sb.features.compat.contains(CompatFeatures::DIR_INDEX) {
            return self.fault(inode.place(), Kind::IndexFlag).map(Some);
        }
        let first = inode.raw.i_block[0].get();
        if !self.is_block(first) {
            return self.fault(inode.place(), Kind::IndexRoot).map(Some);
        }
        let mut block = take(&mut self.s.block);
        self.read_block(first, &mut block)?;
        let good = match block.get(24..32) {
            Some(&[a, b, c, d, hash, info, levels, unused]) => {
                [a, b, c, d] == [0; 4] && info >= 8 && hash <= 2 && unused & 1 == 0 && levels <= 1
            }
            _ => false,
        };
        self.s.block = block;
        if good { Ok(None) } else { self.fault(inode.place(), Kind::IndexRoot).map(Some) }
    }
}

/// Whether a device, FIFO or socket has nothing that only other inodes have.
fn is_good_special(inode: &Seen<'_>) -> bool {
    let flags = inode.flags;
    let spare = inode.raw.i_block.iter().skip(4).any(|block| block.get() != 0);
    flags & (INDEX | EXTENTS) == 0 && !(flags & (IMMUTABLE | APPEND) != 0 && spare)
}
