//! What a new inode has of the directory that it is made in: flags, the group, the list of who may do what.

use blockdev::BlockDevice;
use e2dax_tests::{
    need_tools,
    small::{image, open, ram},
};
use ext2_core::{Acl, AclEntry, AclKind, AclTag, FileKind, Follow, Inode, NewInode};

use super::DIR;

/// A child of each kind of `dir`, and the kind of each.
fn children(dir: &Inode) -> [(FileKind, Inode); 4] {
    let make = |kind| match kind {
        FileKind::Symlink => dir.symlink("link", "to", &NewInode { gid: 5, ..NewInode::new(kind, 0o777) }),
        kind => {
            dir.create(format!("{kind:?}"), &NewInode { gid: 5, umask: 0o022, ..NewInode::new(kind, 0o777) })
        }
    };
    [FileKind::Directory, FileKind::Regular, FileKind::Fifo, FileKind::Symlink]
        .map(|kind| (kind, make(kind).expect("created")))
}

#[test]
fn a_new_inode_takes_the_flags_over_that_are_for_its_kind_and_the_group_where_its_directory_says_so() {
    need_tools!("mke2fs");
    for (mode, gid) in [(0o755, 5), (0o2755, 77)] {
        let device = ram(&image(&[]));
        let fs = open(&device);
        let dir = fs
            .root()
            .expect("root")
            .create("dir", &NewInode { gid: 77, ..NewInode::new(FileKind::Directory, mode) });
        let nr = dir.expect("created").nr();
        let (group, index) = fs.geometry().group_of_inode(nr).expect("a group");
        let table = u64::from(fs.descriptor(group).expect("a descriptor").bg_inode_table.get());
        fs.close().expect("closed");
        // All flags but those that forbid changes, name a map of another kind or an index.
        let all = 0x3_ffff & !(0x10 | 0x20 | 0x1000);
        device.write_u32(table * 1024 + u64::from(index) * 256 + 32, all).expect("stored");
        let fs = open(&device);
        let dir = fs.resolve("dir", Follow::No).expect("there");
        for (kind, made) in children(&dir) {
            let attr = made.attr();
            let expected = match kind {
                FileKind::Directory => (0x1_c6cf, gid, if gid == 77 { 0o2755 } else { 0o755 }),
                FileKind::Regular => (0xc6cf, gid, 0o755),
                FileKind::Symlink => (0xc0, gid, 0o777),
                _ => (0xc0, gid, 0o755),
            };
            assert_eq!((attr.flags.bits(), attr.gid, attr.mode & 0o7777), expected, "{kind:?} in {mode:o}");
        }
    }
}

#[test]
fn a_new_inode_has_the_list_of_its_directory_where_that_says_more_than_a_mode_and_a_link_has_none() {
    need_tools!("mke2fs");
    let entry = |tag, permissions| AclEntry { tag, permissions };
    let own = [entry(AclTag::UserObj, 7), entry(AclTag::GroupObj, 5), entry(AclTag::Other, 0)];
    let more = [own[0], entry(AclTag::User(9), 6), own[1], entry(AclTag::Mask, 7), own[2]];
    for (entries, is_mode) in [(&own[..], true), (&more[..], false)] {
        let fs = open(&ram(&image(&[])));
        let dir = fs.root().expect("root").create("dir", &DIR).expect("created");
        let list = Acl::new(entries.to_vec()).expect("a list");
        assert_eq!(list.is_mode(), is_mode);
        dir.set_acl(AclKind::Default, Some(&list)).expect("set");
        for (kind, made) in children(&dir) {
            if kind == FileKind::Symlink {
                assert_eq!((made.attr().mode & 0o7777, made.xattrs().expect("read")), (0o777, Vec::new()));
                continue;
            }
            // The mask stands where the group was.
            let mode = if is_mode { 0o750 } else { 0o770 };
            assert_eq!(made.attr().mode & 0o777, mode, "{kind:?}, {is_mode}");
            let access = made.acl(AclKind::Access).expect("read");
            assert_eq!(access, (!is_mode).then(|| list.for_new(0o777)), "{kind:?}, {is_mode}");
            let handed =
                if kind == FileKind::Directory { made.acl(AclKind::Default).expect("read") } else { None };
            assert_eq!(handed, (kind == FileKind::Directory).then(|| list.clone()), "{kind:?}, {is_mode}");
        }
    }
}
