//! Which number a new inode gets, from the descriptors and bitmaps: after Linux's `find_group_orlov` as the module head of
//! `ext2-core/src/balloc/inodes.rs` has it.

use blockdev::BlockDevice;
use ext2_core::{Ext2, Geometry, GroupNr, InodeNr};

use crate::bitmap;

/// What the groups have.
pub(crate) struct Spread {
    geo: Geometry,
    /// Free inodes, free blocks and directories of each group.
    groups: Vec<(u64, u64, u64)>,
    /// The first free inode of each group.
    first: Vec<Option<u32>>,
}

impl Spread {
    /// Of a file system that was synced.
    pub(crate) fn of(fs: &Ext2, device: &dyn BlockDevice) -> Self {
        let geo = fs.geometry().clone();
        let (mut groups, mut first) = (Vec::new(), Vec::new());
        for nr in geo.group_numbers() {
            let group = fs.descriptor(nr).expect("a descriptor");
            groups.push((
                group.bg_free_inodes_count.get().into(),
                group.bg_free_blocks_count.get().into(),
                group.bg_used_dirs_count.get().into(),
            ));
            let map = bitmap(fs, device, group.bg_inode_bitmap.get());
            first.push((0..geo.inodes_per_group).find(|&bit| !map(bit)));
        }
        Self { geo, groups, first }
    }

    /// The number of the next file or directory in a directory.
    pub(crate) fn next(&self, parent: InodeNr, is_dir: bool, is_top: bool) -> Option<InodeNr> {
        let home = self.geo.group_of_inode(parent)?.0.get() as usize;
        let from = match is_dir {
            true => self.group_of_directory(home, is_top),
            false => home,
        };
        let found = self.around(from).find_map(|nr| Some((nr, self.first[nr]?)));
        let (nr, bit) = found?;
        self.geo.inode_at(GroupNr::new(nr as u32), bit)
    }

    fn around(&self, from: usize) -> impl Iterator<Item = usize> {
        let len = self.groups.len();
        (0..len).map(move |step| (from + step) % len)
    }

    fn group_of_directory(&self, home: usize, is_top: bool) -> usize {
        let count = self.groups.len() as u64;
        let average = |of: fn(&(u64, u64, u64)) -> u64| self.groups.iter().map(of).sum::<u64>() / count;
        let (inodes, blocks, dirs) =
            (average(|group| group.0), average(|group| group.1), average(|group| group.2));
        let rich: Vec<usize> = self
            .around(home)
            .filter(|&nr| {
                let (own_inodes, own_blocks, _) = self.groups[nr];
                own_inodes > 0 && own_inodes >= inodes && own_blocks >= blocks
            })
            .collect();
        if is_top {
            // The first with fewer directories than the average, else the one with the fewest.
            let few = |&&nr: &&usize| self.groups[nr].2 < dirs || self.groups[nr].2 == 0;
            let fewest = || rich.iter().min_by_key(|&&nr| self.groups[nr].2);
            return rich.iter().find(few).or_else(fewest).copied().unwrap_or(home);
        }
        // By its parent, unless that has less than half of what a group has.
        let (own_inodes, own_blocks, _) = self.groups[home];
        if own_inodes > inodes / 2 && own_blocks > blocks / 2 {
            return home;
        }
        rich.first().copied().unwrap_or(home)
    }
}
