//! Entries, links and directories that no image should have: what is refused, and what is put right.

use std::path::Path;
use std::sync::Arc;

use blockdev::BlockDevice;
use e2dax_tests::{
    need_tools,
    small::{image, is_clean, open, ram},
    tools,
};
use ext2_core::{
    Errno, Error, Ext2, FileKind, Follow, GroupNr, Inode, NewInode, OpenOptions, RenameFlags, SetAttr, Wait,
    XattrSet,
};

use super::{DIR, FIFO, FILE};

/// What is at byte `at` of inode `nr` in an image with 1 KiB blocks: `debugfs` writes it.
fn set_field(path: &Path, what: &str) {
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
        let shared: Arc<dyn BlockDevice> = device;
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
    let shared: Arc<dyn BlockDevice> = device.clone();
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
        let shared: Arc<dyn BlockDevice> = device.clone();
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
fn a_second_name_of_a_directory_is_told_by_a_walk_wherever_its_parent_is() {
    need_tools!("mke2fs", "debugfs");
    for (first, second) in [("a", "z"), ("z", "a")] {
        let device = ram(&image(&["-t", "ext2"]));
        let fs = open(&device);
        for path in ["a", "z", &format!("{first}/d")] {
            fs.create_dir(path).expect("made");
        }
        fs.close().expect("closed");
        let bytes = changed(&device.to_vec(), &[&format!("link {first}/d {second}/d")]);
        for read_only in [true, false] {
            let options = OpenOptions { read_only, ..OpenOptions::default() };
            let shared: Arc<dyn BlockDevice> = ram(&bytes);
            let fs = Ext2::open(shared, &options).expect("open");
            let broken = fs.walk("/").expect("there").filter(Result::is_err).count();
            assert_eq!(broken, 1, "{first}, {read_only}");
        }
    }
}
