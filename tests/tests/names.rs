//! Names at their edges: cookies of listings while entries come, go and change their length, `.` and `..` as a last name,
//! directories that are removed, and entries that no image should have.

#[path = "names/child.rs"]
mod child;
#[path = "names/listing.rs"]
mod listing;
#[path = "names/rename.rs"]
mod rename;
#[path = "names/wrong.rs"]
mod wrong;

use e2dax_tests::{
    need_tools,
    small::{image, open, ram},
};
use ext2_core::{DirEntry, Errno, Error, FileKind, Inode, InodeFlags, NewInode, RenameFlags};

const DIR: NewInode = NewInode::new(FileKind::Directory, 0o755);
const FILE: NewInode = NewInode::new(FileKind::Regular, 0o644);
const FIFO: NewInode = NewInode::new(FileKind::Fifo, 0o644);

#[track_caller]
fn refused<T>(done: Result<T, Error>, errno: Errno) {
    match done {
        Ok(_) => panic!("it is not refused"),
        Err(error) => assert!(error.is(errno), "{error}"),
    }
}

fn listed(dir: &Inode, cookie: u64) -> Vec<DirEntry> {
    dir.entries(cookie).expect("a directory").map(|entry| entry.expect("read")).collect()
}

#[test]
fn dots_and_the_root_as_a_last_name_are_refused_as_linux_refuses_them() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let root = fs.root().expect("root");
    let dir = root.create(b"d", &DIR).expect("created");
    dir.create(b"f", &FILE).expect("created");
    for path in [&b"/d/."[..], b"/d/..", b"/d/./", b"/d//../", b"/", b"//"] {
        let (parent, name) = fs.resolve_parent(path).expect("resolved");
        let shown = String::from_utf8_lossy(path);
        let is = |done: Result<(), Error>, errno: Errno| {
            let error = done.expect_err("refused");
            assert!(error.is(errno), "{shown}: {error}, and not {errno:?}");
        };
        is(parent.create(name, &FILE).map(drop), Errno::EXIST);
        is(parent.create(name, &DIR).map(drop), Errno::EXIST);
        is(parent.symlink(name, b"to", &FILE).map(drop), Errno::EXIST);
        is(parent.link(&dir.lookup(b"f").expect("there"), name), Errno::EXIST);
        is(parent.unlink(name), Errno::ISDIR);
        is(
            parent.rmdir(name),
            match name {
                b"." => Errno::INVAL,
                b".." => Errno::NOTEMPTY,
                _ => Errno::BUSY,
            },
        );
        is(fs.rename(&parent, name, &root, b"new", RenameFlags::empty()), Errno::BUSY);
        is(fs.rename(&dir, b"f", &parent, name, RenameFlags::empty()), Errno::BUSY);
        is(fs.rename(&dir, b"none", &parent, name, RenameFlags::empty()), Errno::BUSY);
        is(fs.rename(&dir, b"f", &parent, name, RenameFlags::NOREPLACE), Errno::EXIST);
        is(fs.rename(&parent, name, &dir, b".", RenameFlags::NOREPLACE), Errno::BUSY);
    }
    for path in [&b"/none/."[..], b"/none/..", b"/none/f", b"/d/none/."] {
        refused(fs.resolve_parent(path), Errno::NOENT);
    }
    refused(fs.resolve_parent(b"/d/f/."), Errno::NOTDIR);
}

#[test]
fn what_may_not_be_removed_is_refused_before_its_kind_is_looked_at() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let root = fs.root().expect("root");
    let dir = root.create(b"dir", &DIR).expect("created");
    let file = root.create(b"file", &FILE).expect("created");
    refused(root.unlink(b"dir"), Errno::ISDIR);
    refused(root.rmdir(b"file"), Errno::NOTDIR);
    for kept in [InodeFlags::IMMUTABLE, InodeFlags::APPEND] {
        // The victim.
        for victim in [&dir, &file] {
            victim.set_flags(kept).expect("set");
        }
        refused(root.unlink(b"dir"), Errno::PERM);
        refused(root.rmdir(b"file"), Errno::PERM);
        for victim in [&dir, &file] {
            victim.set_flags(InodeFlags::empty()).expect("set");
        }
        // The directory that it is in.
        root.set_flags(kept).expect("set");
        refused(root.unlink(b"dir"), Errno::PERM);
        refused(root.rmdir(b"file"), Errno::PERM);
        root.set_flags(InodeFlags::empty()).expect("set");
    }
}

#[test]
fn a_directory_that_is_removed_has_no_names_and_no_parent() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let root = fs.root().expect("root");
    let (above, away) =
        (root.create(b"above", &DIR).expect("created"), root.create(b"away", &DIR).expect("created"));
    let below = above.create(b"below", &DIR).expect("created");
    (0..100).for_each(|_| assert!(below.lookup(b"..").expect("there") == above));
    above.rmdir(b"below").expect("removed");
    root.rmdir(b"above").expect("removed");
    drop(above);
    // The number of what it was in is another file's now.
    root.create(b"file", &FILE).expect("created");
    refused(below.lookup(b".."), Errno::NOENT);
    refused(below.lookup(b"x"), Errno::NOENT);
    refused(below.create(b"x", &FILE), Errno::NOENT);
    refused(fs.rename(&root, b"away", &below, b"x", RenameFlags::empty()), Errno::NOENT);
    drop(away);
}

#[test]
fn a_link_is_not_made_without_a_target() {
    let fs = open(&ram(&image(&[])));
    let root = fs.root().expect("root");
    refused(root.create(b"a", &NewInode::new(FileKind::Symlink, 0o777)), Errno::INVAL);
    refused(root.lookup(b"a"), Errno::NOENT);
}

#[test]
fn a_name_goes_where_another_left_room_before_a_directory_grows() {
    let fs = open(&ram(&image(&[])));
    let dir = fs.root().expect("root").create(b"dir", &DIR).expect("created");
    // 64 inodes: the names are long.
    let name = |nr: usize| format!("{nr:0200}").into_bytes();
    let mut count = 0;
    while dir.size() < 4096 {
        dir.create(name(count), &FIFO).expect("created");
        count += 1;
    }
    for nr in (0..count - 1).step_by(3) {
        let size = dir.size();
        dir.unlink(name(nr)).expect("removed");
        dir.create(name(1000 + nr), &FIFO).expect("created");
        assert_eq!(dir.size(), size);
    }
}

#[test]
fn a_name_has_no_slash_and_no_zero_byte_and_only_a_directory_has_names() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&[])));
    let root = fs.root().expect("root");
    let file = root.create("file", &FILE).expect("created");
    for name in [&b"a/b"[..], b"/a", b"a/", b"a\0b", b"\0"] {
        refused(root.create(name, &FILE), Errno::INVAL);
        refused(root.create(name, &DIR), Errno::INVAL);
        refused(root.symlink(name, b"to", &FILE), Errno::INVAL);
        refused(root.link(&file, name), Errno::INVAL);
        refused(fs.rename(&root, b"file", &root, name, RenameFlags::empty()), Errno::INVAL);
        refused(root.unlink(name), Errno::INVAL);
        refused(root.rmdir(name), Errno::INVAL);
    }
    for name in [&b"x"[..], b".", b"..", &[b'n'; 256]] {
        refused(file.lookup(name), Errno::NOTDIR);
        refused(file.lookup_nr(name), Errno::NOTDIR);
    }
    refused(root.lookup([b'n'; 256]), Errno::NAMETOOLONG);
    refused(root.lookup_nr([b'n'; 256]), Errno::NAMETOOLONG);
    refused(root.lookup([b'n'; 255]), Errno::NOENT);
}
