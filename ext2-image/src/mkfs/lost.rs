//! What of a tree an image cannot hold, and what becomes of it: each is told in a warning.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;

use super::plan::xattr_room;
use super::{Alike, Body, Format, Tree, XattrList, xattr};
use ext2_core::raw::GOOD_OLD_INODE_SIZE;
use ext2_core::{Acl, AclTag, BlockSize, InodeFlags, Timestamp};

/// The list of who may do what with a file.
const ACCESS_LIST: &[u8] = b"system.posix_acl_access";
/// What only files and directories have.
const FIXED: u32 = InodeFlags::IMMUTABLE.union(InodeFlags::APPEND).bits();

/// What the owning group may by a list, in 3 bits. Beside a list the mask stands in its place in the mode, and without one it
/// would be given to the group.
fn group_rights(acl: &Acl) -> u16 {
    let of = |tag| acl.entries().iter().find(|entry| entry.tag == tag).map(|entry| entry.permissions);
    of(AclTag::GroupObj).unwrap_or(0) & of(AclTag::Mask).unwrap_or(7)
}

/// Takes from links, devices, FIFOs and sockets the flags that keep files as they are: nobody can set them there, and e2fsck
/// wants them away.
pub(super) fn flags(tree: &mut Tree) {
    for node in tree.ids() {
        let keeps = matches!(tree.body(node), Body::File { .. } | Body::Directory);
        if keeps || tree.attrs(node).flags & FIXED == 0 {
            continue;
        }
        tree.attrs_mut(node).flags &= !FIXED;
        let path = tree.path(node);
        let what =
            "it is no file and no directory, and is stored without the flags immutable and append-only";
        tree.warnings_mut().add(&path, what);
    }
}

/// An attribute that is left out.
#[derive(Clone)]
struct LeftOut {
    /// In words.
    what: String,
    /// What the owning group may, where it is the access list.
    group: Option<u16>,
}

/// Takes away the attributes that have no room beside the others of their file, the largest first, each with a warning.
pub(super) fn attributes(tree: &mut Tree, format: &Format, block_size: BlockSize) {
    let room = xattr_room(format.effective_inode_size());
    let left_out_of = |xattrs: &mut XattrList| -> Rc<[LeftOut]> {
        let indices = xattr::without_room(xattrs, room, block_size);
        let left_out = indices.iter().filter_map(|&index| xattrs.get(index)).map(|(name, value)| LeftOut {
            what: format!(
                "attribute {} of {} bytes is left out: all of a file have to fit its inode and a block of {block_size}",
                crate::manifest::quote(name),
                value.len()
            ),
            group: Acl::from_user(value).filter(|_| name == ACCESS_LIST).map(|acl| group_rights(&acl)),
        });
        let left_out = left_out.collect();
        let mut is_kept = vec![true; xattrs.len()];
        indices.iter().for_each(|&index| is_kept[index] = false);
        let mut is_kept = is_kept.into_iter();
        xattrs.retain(|_| is_kept.next() == Some(true));
        left_out
    };
    let mut alike = Alike::default();
    for node in tree.ids() {
        let attrs = tree.attrs_mut(node);
        let left_out = alike.change(&mut attrs.xattrs, left_out_of);
        if left_out.is_empty() {
            continue;
        }
        if let Some(group) = left_out.iter().find_map(|left_out| left_out.group) {
            attrs.mode = attrs.mode & !0o070 | group << 3;
        }
        let path = tree.path(node);
        left_out.iter().for_each(|left_out| tree.warnings_mut().add(&path, left_out.what.as_str()));
    }
}

/// Warns of times that an inode cannot hold: they are brought to the nearest that it can.
pub(super) fn times(tree: &mut Tree, format: &Format) {
    let has_extra = u64::from(format.effective_inode_size()) > GOOD_OLD_INODE_SIZE;
    let last = if has_extra { Timestamp::MAX_SEC } else { i64::from(i32::MAX) };
    for node in tree.ids() {
        let attrs = tree.attrs(node);
        let times = [attrs.atime, attrs.mtime, attrs.ctime, attrs.crtime];
        let is_out = times.iter().any(|time| !(i64::from(i32::MIN)..=last).contains(&time.sec));
        let is_cut = !has_extra && times.iter().any(|time| time.nsec != 0);
        if is_out {
            let years = if has_extra { "1901 to 2446" } else { "1901 to 2038" };
            let path = tree.path(node);
            tree.warnings_mut().add(&path, format!("a time is not from {years}, and the nearest is stored"));
        }
        if is_cut {
            let path = tree.path(node);
            tree.warnings_mut().add(&path, "inodes of 128 bytes hold no fractions of seconds");
        }
    }
}
