//! A pointer to shared attributes and the counts of users change together, also where the device fails once, where the log
//! has to give way to what is written, and on an image that a removed sharer was left in.

use std::sync::Arc;

use blockdev::{Calls, Fault, Faulty, RamDevice, Repeat};
use e2dax_tests::{
    need_tools,
    small::{mended, ram},
    tools,
};
use ext2_core::{Ext2, Follow, OpenOptions, XattrSet};

use super::FILE;

const NAME: &[u8] = b"user.x";

fn made(arguments: &[&str], size: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    tools::mke2fs(&[arguments, &[path.to_str().expect("a path of ours"), size]].concat());
    std::fs::read(path).expect("read")
}

fn sharing() -> OpenOptions {
    OpenOptions { share_xattrs: true, ..OpenOptions::default() }
}

/// The files `a` and `b`, which share a block, far from each other in the table of inodes.
fn opened(base: &[u8], options: &OpenOptions) -> (Arc<Faulty<RamDevice>>, Ext2) {
    let device = Arc::new(Faulty::new(RamDevice::from_bytes(base).expect("memory")));
    let fs = Ext2::open(device.clone(), options).expect("opened");
    let root = fs.root().expect("root");
    for name in ["a", "0", "1", "2", "3", "4", "5", "6", "7", "b"] {
        let file = root.create(name, &FILE).expect("created");
        if name == "a" || name == "b" {
            file.xattr_set(NAME, b"same", XattrSet::Any).expect("set");
        }
    }
    drop(root);
    fs.sync().expect("synced");
    (device, fs)
}

fn set(fs: &Ext2, name: &str, value: &[u8]) -> ext2_core::Result<()> {
    let file = match fs.resolve(name, Follow::No) {
        Ok(file) => file,
        Err(_) => fs.root()?.create(name, &FILE)?,
    };
    file.xattr_set(NAME, value, XattrSet::Any)
}

/// Whoever goes on after an error gives nobody a block that another uses.
#[test]
fn one_call_that_fails_leaves_the_other_sharer_what_it_has() {
    need_tools!("mke2fs", "e2fsck");
    let base = made(&["-t", "ext2", "-b", "1024", "-I", "256", "-N", "512"], "16m");
    for log in [false, true] {
        let options = OpenOptions { log, ..sharing() };
        for calls in [Calls::READ, Calls::WRITE, Calls::FENCE] {
            let (mut nth, mut failed) = (0, 0);
            loop {
                let (device, fs) = opened(&base, &options);
                assert_eq!(fs.has_log(), log);
                device.arm(Fault::once(calls, nth));
                let first = set(&fs, "a", b"other");
                let is_done = device.fired() == 0;
                device.disarm();
                failed += u32::from(first.is_err());
                for (name, value) in [("a", b"third"), ("c", b"ccccc"), ("d", b"ddddd")] {
                    // Where that was the last change, all are refused.
                    let next = set(&fs, name, value);
                    assert!(next.is_ok() || fs.is_read_only(), "{calls:?} {nth}: {next:?}");
                }
                let b = fs.resolve("b", Follow::No).expect("there");
                assert_eq!(b.xattr_get(NAME).expect("read"), b"same", "log {log}, {calls:?} {nth}");
                drop(b);
                drop(fs.close());
                mended(&device.inner().to_vec(), &format!("log {log}, {calls:?} {nth}"));
                if is_done {
                    break;
                }
                nth += 1;
            }
            println!("log {log}: {nth} of {calls:?}, {failed} errors");
        }
    }
}

/// The new block is the last that is free but for those that the log keeps, and the power goes at each store.
#[test]
fn a_log_that_gives_way_to_a_block_of_attributes_does_so_before_they_change() {
    need_tools!("mke2fs", "e2fsck");
    let base = made(&["-t", "ext2", "-b", "1024", "-I", "256", "-N", "256", "-m", "0"], "2m");
    let options = OpenOptions { batch: true, ..sharing() };
    // As many as the log keeps, by how far a file grows before it goes.
    let room = |until: u64| {
        let (device, fs) = opened(&base, &options);
        assert!(fs.has_log());
        let fill = fs.root().expect("root").create("fill", &FILE).expect("created");
        let free = || fs.statfs().expect("counted").blocks_free;
        while free() > until && fs.has_log() {
            fill.append(&[1; 1024]).expect("there is room");
        }
        let left = free();
        (device, fs, left)
    };
    let (.., kept) = room(0);
    let (mut gone, mut nth) = (0, 0);
    loop {
        let (device, fs, _) = room(kept + 1);
        assert!(fs.has_log());
        device.arm(Fault { repeat: Repeat::FromThenOn, ..Fault::once(Calls::WRITE, nth) });
        let done = set(&fs, "a", b"other");
        let is_over = device.fired() == 0;
        gone += u32::from(!fs.has_log() && !is_over);
        mended(&device.inner().to_vec(), &format!("store {nth}"));
        drop(fs.close());
        if is_over {
            done.expect("set");
            break;
        }
        nth += 1;
    }
    assert!(gone > 0, "the log never gives way");
}

/// It is on the list of orphans, whose head lies in block 0 where blocks are larger than the superblock.
#[test]
fn an_image_with_a_journal_that_a_removed_sharer_was_left_in_opens() {
    need_tools!("mke2fs", "e2fsck");
    for size in ["1024", "2048", "4096"] {
        let base = made(&["-t", "ext3", "-b", size, "-I", "256", "-N", "64", "-m", "0"], "16m");
        let device = ram(&base);
        let fs = Ext2::open(device.clone(), &sharing()).expect("opened");
        let root = fs.root().expect("root");
        for name in ["a", "b"] {
            set(&fs, name, b"same").expect("set");
        }
        let fill = root.create("fill", &FILE).expect("created");
        while fill.append(&[1; 4096]).is_ok() {}
        // No block is free for attributes of its own.
        let held = root.lookup("b").expect("there");
        root.unlink("b").expect("removed");
        fs.sync().expect("synced");
        let left = device.to_vec();
        drop((held, root, fill));
        let left = ram(&left);
        let again =
            Ext2::open(left.clone(), &sharing()).unwrap_or_else(|error| panic!("blocks of {size}: {error}"));
        again.remove_file("fill").expect("removed");
        set(&again, "a", b"other").expect("it is the only one");
        again.close().expect("closed");
        mended(&left.to_vec(), &format!("blocks of {size}"));
    }
}
