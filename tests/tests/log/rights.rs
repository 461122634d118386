//! Rights that a write takes away, which a log keeps for a commit, and the bytes, which it does not.

use std::sync::Arc;

use blockdev::RamDevice;
use e2dax_tests::{
    need_tools,
    small::{batched, create, image_of, logged, open_as},
};
use ext2_core::plumbing::Plumbing as _;
use ext2_core::{Acl, AclEntry, AclKind, AclTag, Errno, Ext2, Follow, Inode, OpenOptions, SetAttr, XattrSet};

#[test]
fn a_crash_shows_nothing_that_a_user_wrote_with_a_set_id_bit() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024"], "16M");
    for options in [OpenOptions::default(), logged(), batched()] {
        let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
        let fs = open_as(device.clone(), &options);
        let tool = create(&fs, "tool");
        tool.write_at(0, &[1; 4096]).unwrap();
        tool.set_attr(&SetAttr { mode: Some(0o4777), ..SetAttr::default() }).unwrap();
        fs.sync().unwrap();
        tool.strip_setid().unwrap();
        tool.write_at(0, &[2; 4096]).unwrap();
        // As a process leaves it that is killed.
        let left = RamDevice::from_bytes(&device.to_vec()).unwrap();
        let again = Ext2::open(left, &OpenOptions::default()).unwrap();
        assert_eq!(again.read("tool").unwrap()[0], 2);
        assert_eq!(again.resolve("tool", Follow::No).unwrap().attr().mode, 0o777);
    }
}

/// Takes bits of a set-id file in a log; then somebody writes to it who would have to take them, and finds none.
fn a_user_writes_after(mode: u16, take: impl Fn(&Inode)) {
    [false, true].into_iter().for_each(|is_let_go| writes_after(mode, &take, is_let_go));
}

fn writes_after(mode: u16, take: &impl Fn(&Inode), is_let_go: bool) {
    let base = image_of(&["-t", "ext2", "-b", "1024"], "16M");
    let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
    let fs = Ext2::open(device.clone(), &logged()).unwrap();
    assert!(fs.has_log());
    let tool = create(&fs, "tool");
    tool.write_at(0, &[1; 4096]).unwrap();
    tool.set_attr(&SetAttr { mode: Some(mode), ..SetAttr::default() }).unwrap();
    fs.sync().unwrap();
    take(&tool);
    let taken = tool.attr().mode;
    // It may have been let go since.
    let tool = if is_let_go {
        drop(tool);
        fs.resolve("tool", Follow::No).unwrap()
    } else {
        tool
    };
    tool.strip_setid().unwrap();
    assert_eq!(tool.attr().mode, taken);
    tool.write_at(0, &[2; 4096]).unwrap();
    // As a process leaves it that is killed.
    let left = RamDevice::from_bytes(&device.to_vec()).unwrap();
    let again = Ext2::open(left, &OpenOptions::default()).unwrap();
    let (now, byte) =
        (again.resolve("tool", Follow::No).unwrap().attr().mode, again.read("tool").unwrap()[0]);
    assert_eq!((now, byte), (taken, 2), "{now:o} in place of {taken:o}");
}

#[test]
fn who_finds_set_id_bits_gone_waits_for_a_commit_whoever_took_them() {
    need_tools!("mke2fs");
    let chmod = |mode: u16| SetAttr { mode: Some(mode), ..SetAttr::default() };
    a_user_writes_after(0o4777, |tool| tool.set_attr(&chmod(0o777)).unwrap());
    // One word for mode and owner, and several.
    for (uid, gid) in [(1000, None), (70_000, Some(80_000))] {
        let owners = SetAttr { uid: Some(uid), gid, ..chmod(0o777) };
        a_user_writes_after(0o6777, |tool| tool.set_attr(&owners).unwrap());
    }
    // Without group execute set-group-ID gives nobody anything.
    a_user_writes_after(0o2777, |tool| tool.set_attr(&chmod(0o2767)).unwrap());
    let tags = [AclTag::UserObj, AclTag::User(9), AclTag::GroupObj, AclTag::Mask, AclTag::Other];
    let entries = tags.map(|tag| AclEntry { tag, permissions: 6 });
    let list = Acl::new(entries.to_vec()).unwrap();
    a_user_writes_after(0o2777, |tool| tool.set_acl(AclKind::Access, Some(&list)).unwrap());
}

#[test]
fn capabilities_that_went_within_changes_that_belong_together_are_gone_for_who_finds_none() {
    need_tools!("mke2fs");
    const CAPABILITY: &[u8] = b"security.capability";
    let base = image_of(&["-t", "ext2", "-b", "1024"], "16M");
    for is_let_go in [false, true] {
        let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
        let fs = open_as(device.clone(), &logged());
        let mut tool = create(&fs, "tool");
        tool.write_at(0, &[1; 4096]).unwrap();
        tool.xattr_set(CAPABILITY, b"cap", XattrSet::Any).unwrap();
        (0..2).for_each(|_| fs.sync().unwrap());
        fs.together(|| tool.take_xattr(CAPABILITY)).unwrap();
        if is_let_go {
            drop(tool);
            tool = fs.resolve("tool", Follow::No).unwrap();
        }
        assert!(tool.take_xattr(CAPABILITY).unwrap_err().is(Errno::NODATA));
        tool.write_at(0, &[2; 4096]).unwrap();
        // As a process leaves it that is killed.
        let left = RamDevice::from_bytes(&device.to_vec()).unwrap();
        let again = Ext2::open(left, &OpenOptions::default()).unwrap();
        assert_eq!(again.read("tool").unwrap()[0], 2);
        again.resolve("tool", Follow::No).unwrap().xattr_get(CAPABILITY).unwrap_err();
    }
}
