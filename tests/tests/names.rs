//! Names at their edges: cookies of listings while entries come, go and change their length, `.` and `..` as a last name,
//! directories that are removed, and entries that no image should have.

use std::collections::BTreeMap;
use std::sync::Arc;

use blockdev::{BlockDevice, Faulty, RamDevice};
use e2dax_tests::{
    Rng, need_tools,
    small::{image, is_clean, open, ram},
    tools,
};
use ext2_core::{
    Acl, AclEntry, AclKind, AclTag, DirEntry, Errno, Error, Ext2, FileKind, Follow, GroupNr, Inode,
    InodeFlags, NewInode, OpenOptions, RenameFlags, SetAttr, Wait, XattrSet,
};

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

/// A directory of two blocks, with a directory `sub` in the first, which has less room in one piece than in all.
fn crowded(fs: &Ext2) -> Inode {
    let dir = fs.root().expect("root").create(b"dir", &DIR).expect("created");
    (0..6).for_each(|nr| drop(dir.create(format!("a{nr}").as_bytes(), &FIFO).expect("created")));
    dir.create(b"sub", &DIR).expect("created");
    for nr in 0.. {
        dir.create(format!("file{nr:03}").as_bytes(), &FIFO).expect("created");
        if dir.size() > 1024 {
            break;
        }
    }
    ["a0", "a2", "a4"].iter().for_each(|name| dir.unlink(name.as_bytes()).expect("unlinked"));
    dir
}

#[test]
fn a_listing_goes_on_where_it_was_when_a_rename_packs_its_block() {
    need_tools!("mke2fs", "e2fsck");
    let base = image(&["-t", "ext2", "-N", "256"]);
    let count = listed(&crowded(&open(&ram(&base))), 0).len();
    for seen in 0..count {
        let device = ram(&base);
        let fs = open(&device);
        let dir = crowded(&fs);
        let all = listed(&dir, 0);
        let cookie = seen.checked_sub(1).map_or(0, |last| all[last].next_cookie);
        let mut names = vec![b"sub".to_vec()];
        // Twice, so that a cookie of the first order is followed through two.
        for new in [&b"sub-with-long-name"[..], b"sub-with-a-much-longer-name-than-before"] {
            let old = names.last().expect("one");
            fs.rename(&dir, old, &dir, new, RenameFlags::empty()).expect("renamed");
            names.push(new.to_vec());
            let rest = listed(&dir, cookie);
            let mut times: BTreeMap<&[u8], u32> = BTreeMap::new();
            all[..seen].iter().chain(&rest).for_each(|entry| *times.entry(&entry.name).or_default() += 1);
            for entry in all.iter().filter(|entry| !names.iter().any(|name| entry.name == *name)) {
                let name = String::from_utf8_lossy(&entry.name);
                assert_eq!(
                    times.get(&entry.name[..]),
                    Some(&1),
                    "{name} after {seen} and {} renames",
                    names.len() - 1
                );
            }
            assert_eq!(listed(&dir, 0).len(), count);
        }
        drop(dir);
        fs.close().expect("closed");
        assert!(seen % 16 != 0 || is_clean(&device.to_vec()));
    }
}

#[test]
fn entries_that_stay_are_listed_once_whatever_others_do_meanwhile() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2", "-N", "1024"]));
    let fs = open(&device);
    let dir = fs.root().expect("root").create(b"dir", &DIR).expect("created");
    let stays: Vec<String> = (0..60).map(|nr| format!("stays{nr:02}-{}", "x".repeat(nr % 23))).collect();
    stays.iter().for_each(|name| drop(dir.create(name.as_bytes(), &FIFO).expect("created")));
    let mut rng = Rng::new(7);
    let mut others: Vec<Vec<u8>> = Vec::new();
    let mut next = 0;
    for round in 0..200 {
        let mut times: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        let mut cookie = 0;
        loop {
            let part: Vec<DirEntry> =
                listed(&dir, cookie).into_iter().take(1 + rng.below(9) as usize).collect();
            let Some(last) = part.last() else { break };
            cookie = last.next_cookie;
            part.into_iter().for_each(|entry| *times.entry(entry.name.into_bytes()).or_default() += 1);
            next += 1;
            let name = format!("n{next}{}", "y".repeat(rng.below(40) as usize)).into_bytes();
            match rng.below(3) {
                0 if others.len() < 30 => {
                    dir.create(&name, if rng.below(2) == 0 { &DIR } else { &FIFO }).expect("created");
                    others.push(name);
                }
                1 if !others.is_empty() => {
                    let old = others.swap_remove(rng.below(others.len() as u64) as usize);
                    let is_dir = dir.lookup(&old).expect("there").kind() == FileKind::Directory;
                    if is_dir { dir.rmdir(&old) } else { dir.unlink(&old) }.expect("removed");
                }
                _ if !others.is_empty() => {
                    let old = rng.below(others.len() as u64) as usize;
                    fs.rename(&dir, &others[old], &dir, &name, RenameFlags::empty()).expect("renamed");
                    others[old] = name;
                }
                _ => {}
            }
        }
        for name in &stays {
            assert_eq!(times.get(name.as_bytes()), Some(&1), "{name} in round {round}");
        }
    }
    drop(dir);
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
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

/// What is at byte `at` of inode `nr` in an image with 1 KiB blocks: `debugfs` writes it.
fn set_field(path: &std::path::Path, what: &str) {
    let said = tools::run("debugfs", &["-w", "-R", what, path.to_str().expect("a path of ours")]);
    said.unwrap_or_else(|error| panic!("{error}"));
}

/// An image in which debugfs changed something.
fn changed(base: &[u8], requests: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    std::fs::write(&path, base).expect("written");
    requests.iter().for_each(|request| set_field(&path, request));
    std::fs::read(&path).expect("read")
}

/// Everything that may be done to a name, and what it was that changed the image.
fn verbs(fs: &Ext2, root: &Inode, name: &[u8]) -> Vec<(&'static str, Result<(), Error>)> {
    let on = |work: &dyn Fn(&Inode) -> Result<(), Error>| root.lookup(name).and_then(|inode| work(&inode));
    let rename = |flags| fs.rename(root, b"other", root, name, flags);
    vec![
        ("write", on(&|inode| inode.write_at(0, b"new").map(drop))),
        ("truncate", on(&|inode| inode.truncate(0, Wait::Yes))),
        ("chmod", on(&|inode| inode.set_attr(&SetAttr { mode: Some(0o600), ..SetAttr::default() }))),
        ("setfattr", on(&|inode| inode.xattr_set(b"trusted.a", b"1", XattrSet::Any))),
        ("link", on(&|inode| root.link(inode, b"second"))),
        ("create in", on(&|inode| inode.create(b"inner", &FILE).map(drop))),
        ("create over", root.create(name, &FILE).map(drop)),
        ("unlink", root.unlink(name)),
        ("rmdir", root.rmdir(name)),
        ("rename", fs.rename(root, name, root, b"moved", RenameFlags::empty())),
        ("rename over", rename(RenameFlags::empty())),
        ("exchange", rename(RenameFlags::EXCHANGE)),
    ]
}

#[test]
fn an_inode_with_a_name_and_no_links_is_never_freed_by_a_write() {
    need_tools!("mke2fs", "debugfs");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    root.create(b"file", &FILE).and_then(|file| file.write_at(0, b"keep")).expect("written");
    root.create(b"dir", &DIR).and_then(|dir| dir.create(b"inner", &FILE).map(drop)).expect("created");
    root.create(b"other", &FILE).expect("created");
    root.symlink(b"link", [b'x'; 100], &NewInode::new(FileKind::Symlink, 0o777)).expect("made");
    drop(root);
    fs.close().expect("closed");
    let base = device.to_vec();
    for victim in ["file", "dir", "link"] {
        let bad = changed(&base, &[&format!("set_inode_field /{victim} links_count 0")]);
        let device = ram(&bad);
        let fs = open(&device);
        let root = fs.root().expect("root");
        for (verb, done) in verbs(&fs, &root, victim.as_bytes()) {
            match (verb, &done) {
                ("create over", Err(error)) => assert!(error.is(Errno::EXIST), "{victim}: {error}"),
                (_, Err(Error::Corrupt(corrupt))) => {
                    assert!(corrupt.to_string().contains("no links"), "{corrupt}")
                }
                (_, Err(error)) if error.is(Errno::NOTDIR) && verb == "create in" => {}
                _ => panic!("{verb} of {victim}: {done:?}"),
            }
        }
        drop(root);
        fs.close().expect("closed");
        // What it holds is as it was, for whoever only reads.
        let shared: std::sync::Arc<dyn BlockDevice> = device;
        let fs = Ext2::open(shared, &OpenOptions::read_only()).expect("open");
        let inode = fs.resolve(victim.as_bytes(), Follow::No).expect("there");
        match inode.kind() {
            FileKind::Directory => drop(inode.lookup(b"inner").expect("there")),
            FileKind::Symlink => assert_eq!(inode.read_link().expect("read"), [b'x'; 100]),
            _ => {
                let mut bytes = [0; 4];
                inode.read_at(0, &mut bytes).expect("read");
                assert_eq!(&bytes, b"keep");
            }
        }
    }
    // The root itself: it is not opened for writing, and nothing is stored.
    let bad = changed(&base, &["set_inode_field <2> links_count 0"]);
    let device = ram(&bad);
    let shared: std::sync::Arc<dyn BlockDevice> = device.clone();
    let error = Ext2::open(shared.clone(), &OpenOptions::default()).expect_err("refused");
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
    assert!(device.to_vec() == bad);
    let fs = Ext2::open(shared, &OpenOptions::read_only()).expect("open");
    fs.resolve(b"/dir/inner", Follow::No).expect("there");
}

#[test]
fn entries_for_reserved_inodes_and_for_the_root_are_not_followed() {
    need_tools!("mke2fs", "debugfs");
    let base = image(&["-t", "ext3", "-J", "size=1", "-N", "64"]);
    let requests: Vec<String> = (1..=10).map(|nr| format!("link <{nr}> r{nr}")).collect();
    let requests: Vec<&str> = requests.iter().map(String::as_str).chain(["write /dev/null other"]).collect();
    let bad = changed(&base, &requests);
    for options in [OpenOptions::default(), OpenOptions::read_only()] {
        let device = ram(&bad);
        let shared: std::sync::Arc<dyn BlockDevice> = device.clone();
        let fs = Ext2::open(shared, &options).expect("open");
        let root = fs.root().expect("root");
        for nr in 1..=10 {
            let name = format!("r{nr}");
            for _ in 0..3 {
                let error = root.lookup(name.as_bytes()).expect_err("refused");
                assert!(error.to_string().contains("which is reserved"), "{name}: {error}");
            }
            if options.read_only {
                continue;
            }
            let before = device.to_vec();
            for (verb, done) in verbs(&fs, &root, name.as_bytes()) {
                assert!(done.is_err(), "{verb} of {name}");
            }
            // But for the mark that the image is to be checked.
            let (mut before, mut after) = (before, device.to_vec());
            [&mut before, &mut after].iter_mut().for_each(|image| image[1024 + 58] = 0);
            assert!(before == after, "{name}: something was stored");
        }
        let mut entries = root.entries(0).expect("listed");
        let mut told = 0;
        while let Some(entry) = entries.next() {
            let entry = entry.expect("read");
            match entries.inode(&entry) {
                Ok(Some(inode)) => assert_eq!(inode.nr(), entry.nr),
                other => {
                    assert!(other.is_err() && entry.name[0] == b'r', "{other:?}");
                    told += 1;
                }
            }
        }
        assert_eq!(told, 10);
    }
}

#[test]
fn reserved_inodes_of_a_second_group_are_given_to_nobody() {
    need_tools!("mke2fs", "e2fsck", "debugfs");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    let name = path.to_str().expect("a path of ours");
    tools::mke2fs(&["-b", "1024", "-I", "128", "-N", "24", "-O", "^resize_inode", name, "20m"]);
    for unclean in [false, true] {
        let mut base = std::fs::read(&path).expect("read");
        if unclean {
            base[1024 + 58..1024 + 60].fill(0);
        }
        let device = ram(&base);
        let fs = open(&device);
        assert_eq!(fs.geometry().inodes_per_group, 8);
        let root = fs.root().expect("root");
        let mut given = 0;
        for nr in 0.. {
            match root.create(format!("f{nr}").as_bytes(), &FILE) {
                Ok(file) => assert!(file.nr().get() >= 11, "inode {} was given away", file.nr()),
                Err(error) => {
                    assert!(error.is(Errno::NOSPC), "{error}");
                    break;
                }
            }
            given += 1;
        }
        // lost+found has one of the 14 that are nobody's.
        assert_eq!(given, 13);
        drop(root);
        fs.close().expect("closed");
        let mut left = device.to_vec();
        left[1024 + 58] |= 1;
        assert!(is_clean(&left), "unclean: {unclean}");
    }
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

#[test]
fn a_link_is_not_made_without_a_target() {
    let fs = open(&ram(&image(&[])));
    let root = fs.root().expect("root");
    refused(root.create(b"a", &NewInode::new(FileKind::Symlink, 0o777)), Errno::INVAL);
    refused(root.lookup(b"a"), Errno::NOENT);
}

#[test]
fn an_entry_for_an_inode_that_is_deleted_is_corruption() {
    let device = ram(&image(&[]));
    let fs = open(&device);
    let nr = fs.root().expect("root").create(b"a", &FILE).expect("created").nr();
    let (group, index) = fs.geometry().group_of_inode(nr).expect("a group");
    let table = fs.descriptor(group).expect("a descriptor").bg_inode_table.get();
    fs.close().expect("closed");
    device.write_at(u64::from(table) * 1024 + u64::from(index) * 256, &[0; 256]).expect("written");
    let found = open(&device).root().expect("root").lookup(b"a");
    assert!(matches!(found, Err(Error::Corrupt(_))), "{found:?}");
}

#[test]
fn a_directory_of_which_a_crash_left_the_size_and_not_the_block_is_opened_and_cut_off() {
    need_tools!("e2fsck");
    let device = ram(&image(&[]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let (nr, size) = (root.create(b"a", &FILE).expect("created").nr(), root.size());
    let (group, index) = fs.geometry().group_of_inode(root.nr()).expect("a group");
    let table = u64::from(fs.descriptor(group).expect("a descriptor").bg_inode_table.get());
    let place = table * 1024 + u64::from(index) * 256 + 4;
    drop(root);
    fs.close().expect("closed");
    // The root is two blocks longer, and the superblock says that the image is not clean.
    device.write_u32(place, size as u32 + 2048).expect("written");
    device.write_at(1024 + 58, &[0, 0]).expect("written");
    let fs = open(&device);
    let root = fs.root().expect("root");
    assert_eq!((root.size(), root.lookup(b"a").expect("there").nr()), (size, nr));
    root.create(b"b", &FILE).expect("created");
    drop(root);
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
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

/// An image, opened so that what has no safe order of stores is refused.
fn strict(device: &e2dax_tests::small::Ram) -> Ext2 {
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

/// What lies behind the last whole block would be lost, or the new name.
#[test]
fn a_directory_whose_size_is_not_whole_blocks_gets_no_name_and_loses_none() {
    need_tools!("mke2fs", "e2fsck");
    for blocks in [2, 7] {
        let device = ram(&image(&["-t", "ext2", "-N", "256"]));
        let fs = open(&device);
        let dir = fs.root().expect("root").create("dir", &DIR).expect("created");
        (0..)
            .map(|nr| format!("{nr}{}", "-".repeat(200)))
            .take_while(|_| dir.size() <= blocks * 1024)
            .for_each(|name| {
                dir.create(&name, &FIFO).expect("created");
            });
        let (geo, nr) = (fs.geometry().clone(), u64::from(dir.nr().get()));
        let table = fs.descriptor(GroupNr::new(0)).expect("read").bg_inode_table.get();
        let size = u64::from(table) * 1024 + (nr - 1) * u64::from(geo.inode_size) + 4;
        drop(dir);
        fs.close().expect("closed");
        device.write_u32(size, (blocks * 1024) as u32 + 100).expect("written");
        let fs = open(&device);
        let dir = fs.resolve("dir", Follow::Yes).expect("there");
        for nr in 0..9 {
            // With an index in memory and without.
            let made = dir.create(format!("new{nr}{}", "-".repeat(240)), &FIFO);
            assert!(matches!(made, Err(Error::Corrupt(_))), "{blocks} blocks, name {nr}: {made:?}");
        }
        drop(dir);
        fs.close().expect("closed");
        let said = mended_words(&device.to_vec());
        assert!(said.contains("i_size") && !said.contains("Unattached"), "{blocks} blocks: {said}");
    }
}

/// What `e2fsck -fn` says.
fn mended_words(image: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    std::fs::write(&path, image).expect("written");
    tools::words(&tools::command("e2fsck").arg("-fn").arg(&path).output().expect("e2fsck runs"))
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
    let faulty = Arc::new(Faulty::new(RamDevice::from_bytes(&device.to_vec()).expect("memory")));
    let fs = Ext2::open(faulty.clone(), &OpenOptions::default()).expect("open");
    (faulty, fs)
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
