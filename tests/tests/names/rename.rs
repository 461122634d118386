//! Renames that are refused, that have to be done in one step, and what they keep for a moment.

use std::sync::Arc;

use blockdev::{BlockDevice, Calls, Fault, Faulty, RamDevice};
use e2dax_tests::{
    need_tools,
    small::{Ram, image, is_clean, open, open_faulty, ram},
};
use ext2_core::{Closed, Errno, Error, Ext2, FileKind, Follow, InodeFlags, OpenOptions, RenameFlags};

use super::{DIR, FIFO, FILE, listed, refused};

#[test]
fn flags_of_a_rename_that_exclude_each_other_are_refused_before_anything_is_looked_at() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let root = fs.root().expect("root");
    let file = root.create(b"file", &FILE).expect("created");
    let both = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
    refused(fs.rename(&root, b"none", &root, b"file", both), Errno::INVAL);
    refused(fs.rename(&file, b"a", &root, b"b", both), Errno::INVAL);
    refused(fs.rename(&root, b"file", &root, b".", both), Errno::INVAL);
}

#[test]
fn a_rename_that_is_refused_leaves_no_directory_of_its_own() {
    let device = ram(&image(&[]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    root.rmdir(b"lost+found").expect("empty");
    root.create(b"a", &FILE).expect("created");
    root.create(b"b", &FILE).expect("created");
    root.set_flags(InodeFlags::APPEND).expect("set");
    refused(fs.rename(&root, b"a", &root, b"b", RenameFlags::empty()), Errno::PERM);
    let names: Vec<Vec<u8>> = listed(&root, 0).into_iter().map(|entry| entry.name.into_bytes()).collect();
    assert_eq!(names, [&b"."[..], b"..", b"a", b"b"]);
    assert_eq!(root.attr().links, 2);
}

#[test]
fn a_rename_from_or_to_another_file_system_is_refused() {
    let image = image(&[]);
    let (fs, other) = (open(&ram(&image)), open(&ram(&image)));
    let (root, foreign) = (fs.root().expect("root"), other.root().expect("root"));
    root.create(b"a", &FILE).expect("created");
    foreign.create(b"a", &FILE).expect("created");
    refused(fs.rename(&root, b"a", &foreign, b"b", RenameFlags::empty()), Errno::XDEV);
    refused(fs.rename(&foreign, b"a", &root, b"b", RenameFlags::empty()), Errno::XDEV);
    refused(fs.rename(&foreign, b"a", &foreign, b"b", RenameFlags::empty()), Errno::XDEV);
}

/// An image, opened so that what has no safe order of stores is refused.
fn strict(device: &Ram) -> Ext2 {
    let options = OpenOptions { strict_rename: true, ..OpenOptions::default() };
    Ext2::open(device.clone(), &options).expect("open")
}

#[test]
fn a_strict_file_system_renames_a_directory_in_its_block_and_in_one_transaction() {
    need_tools!("mke2fs", "e2fsck");
    for journal in [false, true] {
        let device = ram(&image(if journal { &["-t", "ext3", "-J", "size=1"] } else { &["-t", "ext2"] }));
        let fs = strict(&device);
        let root = fs.root().expect("root");
        let (one, two) =
            (root.create(b"one", &DIR).expect("created"), root.create(b"two", &DIR).expect("created"));
        one.create(b"sub", &DIR).expect("created");
        two.create(b"file", &FILE).expect("created");
        fs.rename(&one, b"sub", &one, b"other", RenameFlags::empty()).expect("in its block");
        fs.rename(&one, b"other", &one, b"sub", RenameFlags::empty()).expect("in its block");
        let apart = fs.rename(&one, b"sub", &two, b"sub", RenameFlags::empty());
        if journal {
            apart.expect("in one transaction");
            // A directory and a file: only one of them has a parent of its own.
            one.create(b"sub", &DIR).expect("created");
            fs.rename(&one, b"sub", &two, b"file", RenameFlags::EXCHANGE).expect("in one transaction");
            assert_eq!(one.lookup(b"sub").expect("there").kind(), FileKind::Regular);
            assert_eq!(two.lookup(b"file").expect("there").lookup(b"..").expect("there").nr(), two.nr());
        } else {
            refused(apart, Errno::XDEV);
        }
        drop((root, one, two));
        fs.close().expect("closed");
        assert!(is_clean(&device.to_vec()), "journal: {journal}");
    }
}

/// What a rename keeps for a moment has a name that is not there, however many are.
#[test]
fn a_file_is_replaced_where_lost_and_found_has_every_name_that_it_might_be_kept_by() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2", "-N", "1024"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let lost = root.lookup("lost+found").expect("mke2fs makes it");
    fs.write("old", "old").expect("written");
    fs.write("new", "new").expect("written");
    let nr = root.lookup_nr("old").expect("there");
    let (mut plus, mut count) = (format!("#{nr}"), 0);
    lost.create(format!("#{nr}.0"), &FIFO).expect("created");
    while plus.len() <= 255 {
        lost.create(&plus, &FIFO).expect("created");
        plus.push('+');
        count += 1;
        lost.create(format!("#{nr}.{count}"), &FIFO).expect("created");
    }
    fs.rename(&root, b"new", &root, b"old", RenameFlags::empty()).expect("renamed");
    assert_eq!(fs.read("old").expect("read"), b"new");
    assert!(!fs.exists("new").expect("looked up"));
    assert_eq!(listed(&lost, 0).len(), 3 + 2 * count);
    drop((lost, root));
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
}

#[test]
fn a_rename_makes_no_place_of_its_own_in_a_root_that_would_keep_it() {
    need_tools!("mke2fs", "e2fsck");
    for flags in [InodeFlags::empty(), InodeFlags::APPEND, InodeFlags::IMMUTABLE] {
        let device = ram(&image(&[]));
        let fs = open(&device);
        let root = fs.root().expect("root");
        root.rmdir("lost+found").expect("empty");
        let dir = root.create("dir", &DIR).expect("created");
        for name in ["old", "new"] {
            dir.create(name, &FILE).expect("created");
        }
        root.set_flags(flags).expect("set");
        fs.rename(&dir, b"new", &dir, b"old", RenameFlags::empty()).expect("renamed");
        assert!(dir.lookup("new").is_err() && dir.lookup("old").is_ok());
        assert!(root.lookup("lost+found").expect_err("not there").is(Errno::NOENT), "{flags:?}");
        assert_eq!(root.attr().links, 3);
        drop((root, dir));
        fs.close().expect("closed");
        assert!(is_clean(&device.to_vec()), "{flags:?}");
    }
}

#[test]
fn with_a_journal_a_strict_file_system_replaces_a_directory_where_another_keeps_it_meanwhile() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext3", "-J", "size=1"]));
    let fs = strict(&device);
    let root = fs.root().expect("root");
    let [one, other] = ["one", "other"].map(|name| root.create(name, &DIR).expect("created"));
    for (dir, name) in [(&one, "a"), (&one, "b"), (&other, "c")] {
        dir.create(name, &DIR).expect("created");
    }
    fs.rename(&one, b"a", &other, b"c", RenameFlags::empty()).expect("in one transaction");
    // What would keep it is what goes.
    refused(fs.rename(&one, b"b", &root, b"lost+found", RenameFlags::empty()), Errno::XDEV);
    assert!(one.lookup("b").is_ok() && one.lookup("a").is_err());
    assert_eq!((one.attr().links, other.attr().links), (3, 3));
    drop((root, one, other));
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
}

/// An image with a directory `dir` whose inode, and those in it, lie in another block of the table than that of `lost+found`;
/// on a device of which blocks can be made unreadable.
fn unreadable(with_lost_found: bool) -> (Arc<Faulty<RamDevice>>, Ext2) {
    let device = ram(&image(&["-b", "4096", "-N", "128"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    (0..8).for_each(|nr| drop(root.create(format!("f{nr}"), &FILE).expect("created")));
    let dir = root.create("dir", &DIR).expect("created");
    assert!(dir.nr().get() > 16);
    for name in ["old", "new"] {
        dir.create(name, &FILE).expect("created");
    }
    dir.create("sub", &DIR).expect("created");
    if !with_lost_found {
        root.rmdir("lost+found").expect("empty");
    }
    drop((root, dir));
    fs.close().expect("closed");
    open_faulty(&device.to_vec())
}

#[test]
fn what_a_rename_needs_and_cannot_read_fails_it_before_anything_changes() {
    need_tools!("mke2fs");
    // A block, by the descriptor of the group; whether there is a lost+found; and what is renamed.
    let cases = [
        ("the inode of lost+found", 8, true, ["new", "old"]),
        ("the bitmap of inodes, for a lost+found", 4, false, ["new", "old"]),
        ("the bitmap of blocks, for a copy", 0, true, ["sub", "other"]),
    ];
    for (what, field, with_lost_found, [from, to]) in cases {
        let (faulty, fs) = unreadable(with_lost_found);
        let root = fs.root().expect("root");
        let dir = root.lookup("dir").expect("there");
        let block = faulty.inner().read_u32(4096 + field).expect("read");
        faulty.poison(block.into()).expect("poisoned");
        let done = fs.rename(&dir, from.as_bytes(), &dir, to.as_bytes(), RenameFlags::empty());
        assert!(matches!(done, Err(Error::Device(_))), "{what}: {done:?}");
        assert!(!fs.is_read_only(), "{what}");
        assert!(dir.lookup(from).is_ok() && dir.lookup(to).is_ok() == (to == "old"), "{what}");
    }
}

#[test]
fn a_directory_that_grows_for_a_rename_and_gets_no_size_is_called_clean_by_nobody() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext3", "-J", "size=1"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let [from, to] = ["from", "to"].map(|name| root.create(name, &DIR).expect("created"));
    from.create("moved", &DIR).expect("created");
    // Its one block is full to the last byte.
    let sizes = [247, 247, 247, 1000 - 3 * 256 - 8];
    for (nr, len) in sizes.into_iter().enumerate() {
        to.create(format!("{nr:0>len$}"), &FIFO).expect("created");
    }
    assert_eq!(to.size(), 1024);
    drop((root, from, to));
    fs.close().expect("closed");
    let base = device.to_vec();
    let mut unclean = 0;
    for nth in 0.. {
        let (faulty, fs) = open_faulty(&base);
        let [from, to] = ["from", "to"].map(|name| fs.resolve(name, Follow::No).expect("there"));
        faulty.arm(Fault::once(Calls::WRITE, nth));
        let done = fs.rename(&from, b"moved", &to, &[b'z'; 200], RenameFlags::empty());
        let is_over = faulty.fired() == 0;
        faulty.disarm();
        drop((from, to));
        match fs.close() {
            Ok(Closed::Clean) => {
                assert!(is_clean(&faulty.inner().to_vec()), "write {nth}, which gave {done:?}");
            }
            _ => unclean += 1,
        }
        if is_over {
            break;
        }
    }
    assert!(unclean > 0);
}
