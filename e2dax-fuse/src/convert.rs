//! Names of inodes as FUSE has them.

use ext2_core::InodeNr;

/// The kernel's name for the root.
pub(crate) const ROOT: u64 = 1;

/// The kernel's name for an inode: its number, but for the root, which FUSE calls 1. Inode 1 of ext2 has no name.
pub(crate) fn node_of(nr: InodeNr) -> u64 {
    if nr == InodeNr::ROOT { ROOT } else { u64::from(nr.get()) }
}

/// The inode of a kernel's name, if there can be one.
pub(crate) fn nr_of(node: u64) -> Option<InodeNr> {
    if node == ROOT {
        return Some(InodeNr::ROOT);
    }
    InodeNr::new(u32::try_from(node).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_1_for_the_kernel_and_2_on_disk() {
        assert_eq!(node_of(InodeNr::ROOT), 1);
        assert_eq!(nr_of(1), Some(InodeNr::ROOT));
        assert_eq!(nr_of(0), None);
        assert_eq!(nr_of(1 << 40), None);
        assert_eq!(nr_of(12).map(node_of), Some(12));
    }
}
