//! Which inode numbers are free, and who gets which (Linux: `ext2_new_inode`, `find_group_orlov`).

use core::sync::atomic::Ordering;

use super::group::Groups;
use crate::error::{Corrupt, Object, Result, refuse};
use crate::fs::Fs;
use crate::inode::FileKind;
use crate::sync::Mended;
use crate::{Errno, GroupNr, InodeNr};

impl Fs {
    /// Takes a free inode number: a directory goes where there is room for what will be in it, all else
    /// into the group of its directory. `top` says that the directory is one of the root's own.
    pub(crate) fn take_inode(&self, kind: FileKind, parent: InodeNr, top: bool) -> Result<InodeNr> {
        let groups = &self.writer()?.groups;
        if groups.free_inodes.load(Ordering::Relaxed) == 0 {
            return refuse(Errno::NOSPC, "no free inode");
        }
        let home = self.geo.group_of_inode(parent).map_or(GroupNr::new(0), |(group, _)| group);
        let start = if kind == FileKind::Directory { self.directory_group(groups, home, top) } else { home };
        for step in 0..groups.len() {
            let nr = GroupNr::new((start.get() + step) % groups.len());
            let none = |free: &core::sync::atomic::AtomicU32| free.load(Ordering::Relaxed) == 0;
            if groups.free_inodes_of.get(nr.get() as usize).is_none_or(none) {
                continue;
            }
            let mut group = groups.get(nr).lock();
            let given_out = nr.get() > 0 && Mended::ReservedGivenOut.is_back();
            let first = if given_out { 0 } else { self.geo.reserved_inodes(nr) };
            let Some(bitmap) = group.inodes(self, nr)? else { continue };
            let Some(bit) = bitmap.first_free(first..u32::MAX) else { continue };
            let Some(inode) = self.geo.inode_at(nr, bit) else { continue };
            group.take_inode(self, nr, bit)?;
            groups.count_inodes(nr, &mut group, 1, i64::from(kind == FileKind::Directory));
            return Ok(inode);
        }
        refuse(Errno::NOSPC, "no free inode")
    }

    /// The group for a new directory. Top directories are spread: the group with the fewest directories among those with
    /// more free inodes and blocks than the average. Others stay by their parent unless its group is poor.
    fn directory_group(&self, groups: &Groups, home: GroupNr, top: bool) -> GroupNr {
        let count = u64::from(groups.len());
        let average = |sum: u64| sum / count;
        let inodes = average(groups.free_inodes.load(Ordering::Relaxed));
        let blocks = average(groups.free_blocks.load(Ordering::Relaxed));
        let dirs = average(groups.dirs.load(Ordering::Relaxed));
        let free = |nr: GroupNr| {
            let at = nr.get() as usize;
            let of = |all: &[core::sync::atomic::AtomicU32]| {
                all.get(at).map_or(0, |free| u64::from(free.load(Ordering::Relaxed)))
            };
            (of(&groups.free_inodes_of), of(&groups.free_blocks_of))
        };
        if !top {
            let (own_inodes, own_blocks) = free(home);
            if own_inodes > inodes / 2 && own_blocks > blocks / 2 {
                return home;
            }
        }
        let rich = |nr: &GroupNr| {
            let (own_inodes, own_blocks) = free(*nr);
            own_inodes > 0 && own_inodes >= inodes && own_blocks >= blocks
        };
        let from = home.get();
        let mut candidates =
            (0..groups.len()).map(|step| GroupNr::new((from + step) % groups.len())).filter(rich);
        if top {
            // Few directories first; the search ends at the first group below the average.
            let mut best: Option<(u32, GroupNr)> = None;
            for nr in candidates {
                let own = groups.get(nr).lock().dirs;
                if u64::from(own) < dirs || own == 0 {
                    return nr;
                }
                if best.is_none_or(|(least, _)| own < least) {
                    best = Some((own, nr));
                }
            }
            return best.map_or(home, |(_, nr)| nr);
        }
        candidates.next().unwrap_or(home)
    }

    /// Frees an inode number whose last name is durably gone.
    pub(crate) fn free_inode(
        &self,
        gone: &crate::order::Durable<crate::order::Unlinked>,
        nr: InodeNr,
        kind: FileKind,
    ) -> Result<()> {
        let _ = gone.get();
        self.release_inode(nr, kind)
    }

    /// Gives back an inode number: one that never got a name, or whose last is durably gone.
    pub(crate) fn release_inode(&self, nr: InodeNr, kind: FileKind) -> Result<()> {
        let Some((group_nr, bit)) = self.geo.group_of_inode(nr) else {
            return Err(Corrupt::new(Object::Inode(nr), "freed, but past the last inode").into());
        };
        let groups = &self.writer()?.groups;
        let mut group = groups.get(group_nr).lock();
        let Some(bitmap) = group.inodes(self, group_nr)? else { return Ok(()) };
        if bit < self.geo.reserved_inodes(group_nr) {
            return Err(Corrupt::new(Object::Inode(nr), "freed, but reserved").into());
        }
        if !bitmap.is_set(bit) {
            return Err(Corrupt::new(Object::Inode(nr), "freed, but free already").into());
        }
        bitmap.fill(bit..bit + 1, false);
        groups.count_inodes(group_nr, &mut group, -1, -i64::from(kind == FileKind::Directory));
        Ok(())
    }
}
