//! Changes of names that somebody or something gets in the way of: another thread, a device that fails, an image whose
//! counts a crash left wrong. No name may ever stand for an inode that is given away again.

use std::path::Path;
use std::sync::{Arc, Barrier};

use blockdev::{BlockDevice, Calls, Fault, Faulty, RamDevice};
use e2dax_tests::{golden, need_tools, tools};
use ext2_core::{
    Errno, Error, Ext2, FileKind, Follow, GroupNr, Inode, InodeFlags, NewInode, OpenOptions, RenameFlags,
    SetAttr, Timestamp, Wait, XattrSet,
};

const DIR: NewInode = NewInode::new(FileKind::Directory, 0o755);
const FILE: NewInode = NewInode::new(FileKind::Regular, 0o644);

type Ram = Arc<RamDevice>;

/// An image of 4 MiB, made by mke2fs with these arguments besides.
fn image(more: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    let mut args = vec!["-b", "1024", "-I", "256", "-N", "64"];
    args.extend(more);
    args.extend([path.to_str().expect("a path of ours"), "4m"]);
    tools::mke2fs(&args);
    std::fs::read(&path).expect("read")
}

fn ram(bytes: &[u8]) -> Ram {
    Arc::new(RamDevice::from_bytes(bytes).expect("memory"))
}

fn open(device: &Ram) -> Ext2 {
    let shared: Arc<dyn BlockDevice> = device.clone();
    Ext2::open(shared, &OpenOptions::default()).expect("open")
}

/// Asks e2fsck to mend an image without a question.
fn mended(bytes: &[u8], what: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    golden::write_sparse(&path, bytes).expect("written");
    if let Err(said) = tools::e2fsck_p(Path::new(&path)) {
        panic!("{what} needs a human: {said}");
    }
}

/// Whether e2fsck has nothing to say.
fn is_clean(bytes: &[u8]) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    golden::write_sparse(&path, bytes).expect("written");
    tools::e2fsck_fn(&path).is_ok()
}

/// Where the count of links of an inode in the first group lies.
fn links_offset(fs: &Ext2, nr: u32) -> usize {
    let table = fs.descriptor(GroupNr::new(0)).expect("descriptor").bg_inode_table.get();
    let size = usize::from(fs.geometry().inode_size);
    table as usize * fs.geometry().block_size.len() + (nr as usize - 1) * size + 26
}

#[test]
fn a_link_made_while_the_last_name_goes_is_refused_or_keeps_the_file() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let (a, b) = (root.create(b"a", &DIR).expect("created"), root.create(b"b", &DIR).expect("created"));
    for round in 0..3000_u32 {
        let file = a.create(b"f", &FILE).expect("created");
        file.write_at(0, &round.to_le_bytes()).expect("written");
        let start = Barrier::new(2);
        let linked = std::thread::scope(|scope| {
            let link = scope.spawn(|| {
                start.wait();
                b.link(&file, b"g")
            });
            start.wait();
            a.unlink(b"f").expect("unlinked");
            link.join().expect("no panic")
        });
        match linked {
            Ok(()) => {
                assert_eq!(file.attr().links, 1);
                drop(file);
                let mut bytes = [0; 4];
                b.lookup(b"g").expect("alive").read_at(0, &mut bytes).expect("read");
                assert_eq!(u32::from_le_bytes(bytes), round);
                b.unlink(b"g").expect("unlinked");
            }
            Err(error) => assert!(error.is(Errno::NOENT), "{error}"),
        }
    }
    drop((root, a, b));
    fs.close().expect("closed");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    golden::write_sparse(&path, &device.to_vec()).expect("written");
    tools::e2fsck_fn(&path).expect("clean");
}

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
            let faulty = Arc::new(Faulty::new(RamDevice::from_bytes(&base).expect("memory")));
            let shared: Arc<dyn BlockDevice> = faulty.clone();
            let fs = Ext2::open(shared, &OpenOptions::default()).expect("open");
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
        let faulty = Arc::new(Faulty::new(RamDevice::from_bytes(&base).expect("memory")));
        let shared: Arc<dyn BlockDevice> = faulty.clone();
        let fs = Ext2::open(shared, &OpenOptions::default()).expect("open");
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
fn a_directory_that_gets_another_parent_keeps_its_time_of_modification() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let root = fs.root().expect("root");
    let (a, b) = (root.create(b"a", &DIR).expect("created"), root.create(b"b", &DIR).expect("created"));
    let moved = a.create(b"moved", &DIR).expect("created");
    let then = Timestamp { sec: 1000, nsec: 0 };
    moved.set_attr(&SetAttr { mtime: Some(then), ctime: Some(then), ..SetAttr::default() }).expect("set");
    fs.rename(&a, b"moved", &b, b"moved", RenameFlags::empty()).expect("renamed");
    assert_eq!(moved.attr().mtime, then);
    assert!(moved.attr().ctime > then);
}

#[test]
fn an_immutable_directory_keeps_its_names() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let root = fs.root().expect("root");
    let dir = root.create(b"dir", &DIR).expect("created");
    dir.create(b"file", &FILE).expect("created");
    dir.create(b"sub", &DIR).expect("created");
    dir.set_flags(InodeFlags::IMMUTABLE).expect("set");
    let refused = |done: Result<(), Error>| assert!(done.expect_err("immutable").is(Errno::PERM));
    refused(dir.unlink(b"file"));
    refused(dir.rmdir(b"sub"));
    refused(fs.rename(&dir, b"file", &root, b"file", RenameFlags::empty()));
    assert!(dir.create(b"file", &FILE).expect_err("there").is(Errno::EXIST));
    assert!(dir.create(b"new", &FILE).expect_err("immutable").is(Errno::PERM));
}

#[test]
fn a_directory_is_not_killed_by_a_rename_over_it_that_is_refused() {
    need_tools!("mke2fs");
    let device = ram(&image(&["-t", "ext3", "-J", "size=1"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let (a, b) = (root.create(b"a", &DIR).expect("created"), root.create(b"b", &DIR).expect("created"));
    a.create(b"d", &DIR).expect("created");
    b.create(b"d", &DIR).expect("created");
    drop((root, a, b));
    fs.close().expect("closed");
    let mut bytes = device.to_vec();
    // A journal of three blocks, which no transaction fits in.
    let mark = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 4];
    let journal =
        (0..bytes.len()).step_by(1024).find(|&at| bytes[at..].starts_with(&mark)).expect("a journal");
    bytes[journal + 16..journal + 20].copy_from_slice(&3_u32.to_be_bytes());
    let shared: Arc<dyn BlockDevice> = ram(&bytes);
    let options = OpenOptions { strict_rename: true, ..OpenOptions::default() };
    let fs = Ext2::open(shared, &options).expect("open");
    let at = |path: &[u8]| fs.resolve(path, Follow::No).expect("there");
    let done = fs.rename(&at(b"a"), b"d", &at(b"b"), b"d", RenameFlags::empty());
    assert!(done.expect_err("no safe way").is(Errno::XDEV));
    assert_eq!(at(b"b/d").attr().links, 2);
    at(b"b/d").create(b"alive", &FILE).expect("created");
}

#[test]
fn counts_of_links_that_a_crash_left_too_low_do_not_cost_a_file() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let file = root.create(b"f", &FILE).expect("created");
    file.write_at(0, b"kept").expect("written");
    root.link(&file, b"g").expect("linked");
    fs.sync().expect("synced");
    // As if power failed now, with one link less on the media.
    let mut bytes = device.to_vec();
    bytes[links_offset(&fs, file.nr().get())] = 1;
    let device = ram(&bytes);
    let fs = open(&device);
    let root = fs.root().expect("root");
    root.unlink(b"f").expect("unlinked");
    root.create(b"next", &FILE).expect("created").write_at(0, b"next").expect("written");
    let mut read = [0; 4];
    root.lookup(b"g").expect("alive").read_at(0, &mut read).expect("read");
    assert_eq!(&read, b"kept");
    drop(root);
    drop(fs);
    mended(&device.to_vec(), "a file with one of two names");
}

#[test]
fn an_image_is_not_marked_clean_while_a_file_without_a_name_is_held() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let file = fs.root().expect("root").create(b"f", &FILE).expect("created");
    file.write_at(0, &[1; 5000]).expect("written");
    fs.root().expect("root").unlink(b"f").expect("unlinked");
    fs.clone().close().expect("closed");
    drop((file, fs));
    assert_eq!(device.to_vec()[1024 + 58] & 1, 0, "marked as clean");
    mended(&device.to_vec(), "a file that was open without a name");
}

#[test]
fn a_file_gets_a_first_name_but_none_after_its_last() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&["-t", "ext2"])));
    let root = fs.root().expect("root");
    let file = root.tmpfile(&FILE).expect("made");
    root.link(&file, b"f").expect("linked");
    root.unlink(b"f").expect("unlinked");
    assert!(root.link(&file, b"f").expect_err("gone").is(Errno::NOENT));
}

/// A way for a file to become longer.
type Growth = fn(&Inode);
/// A fault of some kind, after so many calls.
type Striking = fn(Calls, u64) -> Fault;

#[test]
fn bytes_that_a_failed_write_left_past_the_end_are_not_seen_when_the_file_grows_over_them() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let file = fs.root().expect("root").create(b"f", &FILE).expect("created");
    file.write_at(0, &[1; 100]).expect("written");
    drop(file);
    fs.close().expect("closed");
    let base = device.to_vec();
    let grow: [(&str, Growth); 2] = [
        ("written far behind", |file| {
            file.write_at(20_000, b"far").expect("written");
        }),
        ("made longer", |file| file.truncate(20_003, Wait::Yes).expect("longer")),
    ];
    // The device fails once and goes on, or power fails there and it is mounted anew.
    let faults: [(bool, Striking); 2] = [(false, Fault::once), (true, Fault::from_then_on)];
    for ((how, grow), (is_crash, fault)) in grow.into_iter().flat_map(|how| faults.map(|fault| (how, fault)))
    {
        for after in 0.. {
            let faulty = Arc::new(Faulty::new(RamDevice::from_bytes(&base).expect("memory")));
            let shared: Arc<dyn BlockDevice> = faulty.clone();
            let mut fs = Ext2::open(shared, &OpenOptions::default()).expect("open");
            let mut file = fs.resolve(b"f", Follow::No).expect("there");
            faulty.arm(fault(Calls::WRITE | Calls::FENCE, after));
            let done = file.write_at(100, &[2; 15_000]);
            let struck = faulty.fired() > 0;
            if is_crash {
                fs = open(&ram(&faulty.inner().to_vec()));
                file = fs.resolve(b"f", Follow::No).expect("there");
            }
            faulty.disarm();
            let what = format!("{how} after store {after} failed ({done:?}), crash: {is_crash}");
            if done.is_err() && !is_crash {
                fs.sync().expect("synced");
                let bytes = faulty.inner().to_vec();
                let is_marked = bytes[1024 + 58] & 2 != 0;
                assert!(is_marked || is_clean(&bytes), "{what}: not marked for a check");
            }
            let size = file.size();
            grow(&file);
            let mut bytes = vec![3; 20_000 - size as usize];
            file.read_at(size, &mut bytes).expect("read");
            let stale = bytes.iter().position(|&byte| byte != 0);
            assert_eq!(stale, None, "{what}: past byte {size}");
            drop((file, fs));
            if !struck {
                break;
            }
        }
    }
}

#[test]
fn a_directory_that_grows_where_a_crash_left_a_block_past_its_end_loses_none() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let dir = fs.root().expect("root").create(b"d", &DIR).expect("created");
    let long = |nr: u8| [&[b'n'; 250][..], &[b'0' + nr]].concat();
    // Three such names fill the first block of 1 KiB.
    (0..3).for_each(|nr| drop(dir.create(&long(nr), &FILE).expect("created")));
    assert_eq!(dir.size(), 1024);
    drop(dir);
    fs.close().expect("closed");
    let base = device.to_vec();
    for after in 0.. {
        let faulty = Arc::new(Faulty::new(RamDevice::from_bytes(&base).expect("memory")));
        let shared: Arc<dyn BlockDevice> = faulty.clone();
        let fs = Ext2::open(shared, &OpenOptions::default()).expect("open");
        let dir = fs.resolve(b"d", Follow::No).expect("there");
        faulty.arm(Fault::from_then_on(Calls::WRITE | Calls::FENCE, after));
        let _ = dir.create(&long(3), &FILE);
        let struck = faulty.fired() > 0;
        let left = ram(&faulty.inner().to_vec());
        let fs = open(&left);
        let dir = fs.resolve(b"d", Follow::No).expect("there");
        dir.create(&long(4), &FILE).expect("created");
        fs.sync().expect("synced");
        let rebuilt = open(&ram(&left.to_vec()));
        let free = |fs: &Ext2| fs.statfs().expect("counted").blocks_free;
        assert_eq!(free(&fs), free(&rebuilt), "store {after} was the last: blocks are lost");
        drop((dir, rebuilt));
        drop(fs);
        mended(&left.to_vec(), &format!("a directory that grew after store {after} was the last"));
        if !struck {
            break;
        }
    }
}

#[test]
fn a_symlink_that_loses_its_attributes_is_read_at_every_moment() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let target = b"somewhere/else";
    let new = NewInode::new(FileKind::Symlink, 0o777);
    let link = fs.root().expect("root").symlink(b"l", target, &new).expect("made");
    link.xattr_set(b"trusted.a", b"value", XattrSet::Any).expect("set");
    drop(link);
    fs.close().expect("closed");
    let base = device.to_vec();
    for after in 0.. {
        let faulty = Arc::new(Faulty::new(RamDevice::from_bytes(&base).expect("memory")));
        let shared: Arc<dyn BlockDevice> = faulty.clone();
        let fs = Ext2::open(shared, &OpenOptions::default()).expect("open");
        let link = fs.resolve(b"l", Follow::No).expect("there");
        faulty.arm(Fault::from_then_on(Calls::WRITE | Calls::FENCE, after));
        let _ = link.xattr_remove(b"trusted.a");
        assert_eq!(link.read_link().expect("read"), target);
        let struck = faulty.fired() > 0;
        let left = ram(&faulty.inner().to_vec());
        let anew = open(&left).resolve(b"l", Follow::No).expect("there");
        assert_eq!(anew.read_link().expect("read"), target, "store {after} was the last");
        drop(anew);
        mended(&left.to_vec(), &format!("a link whose attribute goes, store {after} the last"));
        if !struck {
            break;
        }
    }
}
