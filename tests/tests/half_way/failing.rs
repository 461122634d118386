//! A device that fails in the middle of a change: each store and each read in turn, once or from then on.

use std::sync::Arc;

use blockdev::{Calls, Fault, Faulty, RamDevice};
use e2dax_tests::{
    golden, need_tools,
    small::{image, mended, open, open_faulty, ram},
    tools,
};
use ext2_core::{Error, Ext2, FileBlock, FileKind, Follow, OpenOptions, RenameFlags, Wait};

use super::{DIR, FIFO, FILE};

/// A change that a device gets in the way of.
type Change = fn(&Ext2) -> Result<(), Error>;

const CHANGES: [(&str, Change); 8] = [
    ("create", |fs| fs.root()?.create(b"new", &FILE).map(drop)),
    ("mkdir", |fs| fs.root()?.create(b"new", &DIR).map(drop)),
    ("unlink", |fs| fs.root()?.unlink(b"file")),
    ("unlink of one of two", |fs| fs.root()?.unlink(b"twin")),
    ("rmdir", |fs| fs.root()?.rmdir(b"empty")),
    ("link", |fs| {
        let root = fs.root()?;
        root.link(&root.lookup(b"file")?, b"new")
    }),
    ("rename", |fs| {
        let root = fs.root()?;
        fs.rename(&root, b"file", &root.lookup(b"dir")?, b"new", RenameFlags::empty())
    }),
    ("rename over", |fs| {
        let root = fs.root()?;
        fs.rename(&root, b"file", &root, b"other", RenameFlags::empty())
    }),
];

#[test]
fn whatever_store_fails_no_name_stands_for_another_file() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    root.create(b"file", &FILE).expect("created").write_at(0, b"file").expect("written");
    root.create(b"other", &FILE).expect("created").write_at(0, b"other").expect("written");
    let twin = root.create(b"twin", &FILE).expect("created");
    twin.write_at(0, b"twin").expect("written");
    root.link(&twin, b"twin too").expect("linked");
    root.create(b"empty", &DIR).expect("created");
    root.create(b"dir", &DIR).expect("created");
    drop((root, twin));
    fs.close().expect("closed");
    let base = device.to_vec();
    for (what, change) in CHANGES {
        for after in 0.. {
            let (faulty, fs) = open_faulty(&base);
            faulty.arm(Fault::once(Calls::WRITE | Calls::FENCE, after));
            let done = change(&fs);
            let struck = faulty.fired() > 0;
            faulty.disarm();
            // Whoever comes next must not get what a name still stands for.
            let root = fs.root().expect("root");
            for nr in 0..4 {
                if let Ok(inode) = root.create(format!("next {nr}").as_bytes(), &FILE) {
                    let _ = inode.write_at(0, b"next");
                }
            }
            for name in [&b"file"[..], b"other", b"twin", b"twin too", b"dir/new"] {
                let Ok(inode) = fs.resolve(name, Follow::No) else { continue };
                let mut bytes = [0; 8];
                let read = inode.read_at(0, &mut bytes).expect("read");
                assert!(
                    !bytes[..read].starts_with(b"next"),
                    "{what}, store {after}: {name:?} is another file"
                );
            }
            drop(root);
            drop(fs);
            mended(&faulty.inner().to_vec(), &format!("{what} with store {after} failing ({done:?})"));
            if !struck {
                break;
            }
        }
    }
}

#[test]
fn a_file_cut_from_over_4_gib_to_less_is_never_shorter_than_it_will_be() {
    need_tools!("mke2fs");
    let device = ram(&image(&["-t", "ext2", "-O", "large_file"]));
    let fs = open(&device);
    let file = fs.root().expect("root").create(b"f", &FILE).expect("created");
    file.truncate((4 << 30) + 10, Wait::Yes).expect("grown");
    drop(file);
    fs.close().expect("closed");
    let base = device.to_vec();
    for after in 0.. {
        let (faulty, fs) = open_faulty(&base);
        let file = fs.resolve(b"f", Follow::No).expect("there");
        faulty.arm(Fault::from_then_on(Calls::WRITE | Calls::FENCE, after));
        let _ = file.truncate(2 << 30, Wait::Yes);
        let struck = faulty.fired() > 0;
        let left = ram(&faulty.inner().to_vec());
        let seen = Ext2::open(left, &OpenOptions::read_only()).expect("open");
        let size = seen.resolve(b"f", Follow::No).expect("there").size();
        assert!(size >= 2 << 30, "{size} bytes are left when store {after} is the last");
        if !struck {
            break;
        }
    }
}

#[test]
fn an_error_before_anything_was_stored_does_not_end_all_writing() {
    need_tools!("mke2fs");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    root.create(b"file", &FILE).expect("created").write_at(0, b"file").expect("written");
    root.create(b"other", &FILE).expect("created").write_at(0, b"other").expect("written");
    root.link(&root.create(b"twin", &FILE).expect("created"), b"twin too").expect("linked");
    root.create(b"empty", &DIR).expect("created");
    root.create(b"dir", &DIR).expect("created");
    drop(root);
    fs.close().expect("closed");
    let base = device.to_vec();
    for (what, change) in CHANGES {
        for after in 0.. {
            let (faulty, fs) = open_faulty(&base);
            let before = faulty.inner().to_vec();
            faulty.arm(Fault::once(Calls::READ, after));
            let done = change(&fs);
            let struck = faulty.fired() > 0;
            faulty.disarm();
            // The mark of an error (at byte 58 of the superblock) is no part of the change.
            let mut left = faulty.inner().to_vec();
            left[1024 + 58] = before[1024 + 58];
            if done.is_err() && left == before {
                assert!(!fs.is_read_only(), "{what}: reading failed before the first store, {after}");
                change(&fs).unwrap_or_else(|error| panic!("{what}, again after read {after}: {error}"));
            }
            if !struck {
                break;
            }
        }
    }
}

#[test]
fn a_block_of_a_directory_that_cannot_be_read_fails_what_needs_it_and_nothing_else() {
    need_tools!("mke2fs");
    let device = ram(&image(&["-t", "ext2", "-b", "4096", "-N", "128"]));
    let fs = open(&device);
    let dir = fs.root().expect("root").create(b"d", &DIR).expect("created");
    // Six blocks, of which the last has the most room.
    let name = |nr: u32| format!("{nr:0>250}");
    let mut nr = 0;
    while dir.size() < 6 * 4096 {
        dir.create(name(nr).as_bytes(), &FIFO).expect("created");
        nr += 1;
    }
    drop(dir);
    fs.close().expect("closed");
    let faulty = Arc::new(Faulty::new(RamDevice::from_bytes(&device.to_vec()).expect("memory")));
    let fs = Ext2::open(faulty.clone(), &OpenOptions::default()).expect("open");
    let dir = fs.resolve(b"d", Follow::No).expect("there");
    // Its index is built now.
    dir.lookup_nr(b"none").expect_err("not there");
    let last = dir.map(FileBlock::new(5), 1).expect("mapped").target.expect("a block");
    faulty.poison(u64::from(last.get())).expect("poisoned");
    for (what, done) in [
        ("create", dir.create(name(nr).as_bytes(), &FILE).map(drop)),
        ("mkdir", dir.create(name(nr).as_bytes(), &DIR).map(drop)),
        ("unlink", dir.unlink(name(nr - 1).as_bytes())),
        ("rename", fs.rename(&dir, name(0).as_bytes(), &dir, name(nr).as_bytes(), RenameFlags::empty())),
    ] {
        assert!(matches!(done, Err(Error::Device(_))), "{what}: {done:?}");
        assert!(!fs.is_read_only(), "{what} ended all writing");
    }
    fs.root().expect("root").create(b"new", &FILE).expect("created");
    dir.unlink(name(1).as_bytes()).expect("unlinked");
    dir.create(b"in the place of 1", &FILE).expect("created");
}

#[test]
fn a_device_that_is_gone_while_a_directory_moves_in_a_transaction_leaves_it_in_one_place() {
    need_tools!("mke2fs", "e2fsck");
    const INCOMPAT: usize = 1024 + 96;
    let device = ram(&image(&["-t", "ext3", "-J", "size=1"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let (a, b) = (root.create("a", &DIR).expect("created"), root.create("b", &DIR).expect("created"));
    a.create("d", &DIR).expect("created").create("inside", &FILE).expect("created");
    b.create("empty", &DIR).expect("created");
    b.create("file", &FILE).expect("created");
    drop((root, a, b));
    fs.close().expect("closed");
    let base = device.to_vec();
    for (name, flags) in [
        ("new", RenameFlags::empty()),
        ("empty", RenameFlags::empty()),
        ("empty", RenameFlags::EXCHANGE),
        ("file", RenameFlags::EXCHANGE),
    ] {
        let mut replayed = 0;
        for after in 0.. {
            let (faulty, fs) = open_faulty(&base);
            let at = |path: &str| fs.resolve(path, Follow::No).expect("there");
            let (a, b) = (at("a"), at("b"));
            faulty.arm(Fault::from_then_on(Calls::WRITE | Calls::FENCE, after));
            let done = fs.rename(&a, b"d", &b, name.as_bytes(), flags);
            let struck = faulty.fired() > 0;
            drop((a, b, fs));
            let left = faulty.inner().to_vec();
            if !struck {
                done.expect("renamed");
                break;
            }
            // Where there is something to replay.
            if left[INCOMPAT] & 4 == 0 {
                continue;
            }
            replayed += 1;
            // One of four, since e2fsck takes its time.
            if replayed % 4 != 1 {
                continue;
            }
            let what = format!("{name}, {flags:?}, store {after}");
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("image");
            golden::write_sparse(&path, &left).expect("written");
            tools::e2fsck_p(&path).unwrap_or_else(|said| panic!("{what} needs a human: {said}"));
            let fs = open(&ram(&std::fs::read(&path).expect("read")));
            let is_dir = |path: &str| match fs.resolve(path, Follow::No) {
                Ok(inode) => (inode.kind() == FileKind::Directory).to_string(),
                Err(_) => "none".to_owned(),
            };
            let inside =
                ["a/d/inside", &format!("b/{name}/inside")].map(|path| fs.resolve(path, Follow::No).is_ok());
            assert!(inside[0] != inside[1], "{what}: {inside:?}");
            // What it replaced or changed places with is where it was, or gone, or there.
            let (old, new) = (is_dir("a/d"), is_dir(&format!("b/{name}")));
            let expected = match (inside[0], name, flags == RenameFlags::EXCHANGE) {
                (true, "new", _) => ["true", "none"],
                (true, "file", _) => ["true", "false"],
                (true, ..) => ["true", "true"],
                (false, _, false) => ["none", "true"],
                (false, "file", _) => ["false", "true"],
                (false, ..) => ["true", "true"],
            };
            assert_eq!([&old[..], &new[..]], expected, "{what}");
        }
        assert!(replayed > 8, "{name}: {replayed}");
    }
}
