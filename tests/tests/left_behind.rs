//! What a change leaves behind that a crash or a failing device ended: no byte that nobody reported, no block that is lost
//! without a mark, and nothing that e2fsck needs a person for.

use std::{
    sync::{Arc, Barrier},
    time::Duration,
};

use blockdev::{BlockDevice, Calls, Fault, Faulty, RamDevice};
use e2dax_tests::{
    need_tools,
    small::{image, is_clean, mended, open, open_faulty, ram},
};
use ext2_core::plumbing::{Allocate, Plumbing};
use ext2_core::{
    Acl, AclEntry, AclKind, AclTag, Errno, Error, Ext2, FileBlock, FileKind, Follow, Inode, NewInode,
    OpenOptions, SetAttr, Wait, XattrSet,
};

const DIR: NewInode = NewInode::new(FileKind::Directory, 0o755);
const FILE: NewInode = NewInode::new(FileKind::Regular, 0o644);

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
            let (faulty, mut fs) = open_faulty(&base);
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
    (0..3).for_each(|nr| drop(dir.create(long(nr), &FILE).expect("created")));
    assert_eq!(dir.size(), 1024);
    drop(dir);
    fs.close().expect("closed");
    let base = device.to_vec();
    for after in 0.. {
        let (faulty, fs) = open_faulty(&base);
        let dir = fs.resolve(b"d", Follow::No).expect("there");
        faulty.arm(Fault::from_then_on(Calls::WRITE | Calls::FENCE, after));
        let _ = dir.create(long(3), &FILE);
        let struck = faulty.fired() > 0;
        let left = ram(&faulty.inner().to_vec());
        let fs = open(&left);
        let dir = fs.resolve(b"d", Follow::No).expect("there");
        dir.create(long(4), &FILE).expect("created");
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
        let (faulty, fs) = open_faulty(&base);
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

/// An image with a file of 300 blocks: twelve direct ones, 256 under an indirect block, the rest under two.
fn with_long_file() -> Vec<u8> {
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let file = fs.root().expect("root").create(b"f", &FILE).expect("created");
    file.write_at(0, &[1; 300 << 10]).expect("written");
    drop(file);
    fs.close().expect("closed");
    device.to_vec()
}

/// A change of a file, and whether all of it was done.
type Change = fn(&Inode) -> bool;

#[test]
fn a_device_that_fails_while_blocks_are_taken_away_loses_none_without_a_mark() {
    need_tools!("mke2fs", "e2fsck");
    let base = with_long_file();
    let changes: [(&str, Change); 4] = [
        ("hole in a leaf", |file| file.punch_hole(260 << 10, 20 << 10, Wait::Yes).is_ok()),
        ("hole over a whole tree", |file| file.punch_hole(5 << 10, 275 << 10, Wait::Yes).is_ok()),
        ("truncation", |file| file.truncate(275 << 10, Wait::Yes).is_ok()),
        ("write", |file| file.write_at(400 << 10, &[2; 600 << 10]).is_ok_and(|len| len == 600 << 10)),
    ];
    for (what, change) in changes {
        let calls = Calls::READ | Calls::WRITE | Calls::FENCE;
        let (faulty, fs) = open_faulty(&base);
        faulty.arm(Fault::once(calls, u64::MAX));
        change(&fs.resolve(b"f", Follow::No).expect("there"));
        let all = faulty.counted();
        drop(fs);
        for after in (0..all).step_by((all as usize / 60).max(1)) {
            let (faulty, fs) = open_faulty(&base);
            let file = fs.resolve(b"f", Follow::No).expect("there");
            faulty.arm(Fault::once(calls, after));
            let done = change(&file);
            faulty.disarm();
            drop(file);
            fs.close().expect("closed");
            let bytes = faulty.inner().to_vec();
            // The state: 1 is clean, 2 has errors.
            if bytes[1024 + 58] == 1 {
                assert!(is_clean(&bytes), "{what}, call {after} failed (done: {done}): lost without a mark");
            }
            mended(&bytes, &format!("{what}, call {after} failed"));
        }
    }
}

#[test]
fn an_access_list_that_may_be_the_new_one_never_goes_with_rights_of_the_old_mode() {
    need_tools!("mke2fs");
    let base = image(&["-t", "ext2"]);
    let list = |group: u16| {
        let entry = |tag, permissions| AclEntry { tag, permissions };
        let (user, named) = (entry(AclTag::UserObj, 7), entry(AclTag::User(1000), 7));
        let (owning, other) = (entry(AclTag::GroupObj, 0), entry(AclTag::Other, 0));
        Acl::new(vec![user, named, owning, entry(AclTag::Mask, group), other]).expect("a list")
    };
    let (old, new) = (list(7), list(1));
    let mut failed = 0;
    for after in 0.. {
        let (faulty, fs) = open_faulty(&base);
        let file = fs.root().expect("root").create(b"f", &FILE).expect("created");
        file.set_acl(AclKind::Access, Some(&old)).expect("set");
        faulty.arm(Fault::once(Calls::FENCE | Calls::WRITE, after));
        let done = file.set_attr(&SetAttr { mode: Some(0o710), ..SetAttr::default() });
        faulty.disarm();
        if done.is_ok() {
            break;
        }
        failed += 1;
        let (mode, found) = (file.attr().mode & 0o777, file.acl(AclKind::Access).expect("read"));
        let is_new = found.as_ref() == Some(&new);
        assert!(is_new || found.as_ref() == Some(&old), "call {after}: {found:?}");
        assert!(mode & 0o060 == 0 || !is_new, "call {after}: mode {mode:o} with the new list");
    }
    assert!(failed > 2, "{failed} calls failed");
}

#[test]
fn a_hole_that_a_failing_device_ends_half_way_frees_what_was_taken_away() {
    need_tools!("mke2fs");
    let base = with_long_file();
    let (faulty, fs) = open_faulty(&base);
    let file = fs.resolve(b"f", Follow::No).expect("there");
    let free = || fs.statfs().expect("counted").blocks_free;
    let before = free();
    // Twenty pointers go; the store of the eleventh fails.
    faulty.arm(Fault::once(Calls::WRITE, 10));
    file.punch_hole(20 << 10, 20 << 10, Wait::Yes).expect_err("the device failed");
    faulty.disarm();
    assert_eq!(free(), before + 10);
    assert_eq!(file.attr().blocks_512, 2 * (300 + 3 - 10));
    assert!(!fs.is_read_only());
}

#[test]
fn a_truncation_that_meets_a_broken_block_map_changes_nothing() {
    need_tools!("mke2fs");
    let base = with_long_file();
    let device = ram(&base);
    let fs = open(&device);
    let file = fs.resolve(b"f", Follow::No).expect("there");
    // The only leaf under the doubly indirect block: the pointer to it leads out of the file system.
    let last = file.map(FileBlock::new(268), 1).expect("mapped").target.expect("a block").get();
    let pointer = (0..4 << 20).step_by(4).find(|&at| device.read_u32(at).expect("read") == last);
    let leaf = u32::try_from(pointer.expect("a pointer") / 1024).expect("small");
    let above = (0..4 << 20).step_by(4).find(|&at| device.read_u32(at).expect("read") == leaf);
    device.write_u32(above.expect("a pointer"), 1 << 30).expect("written");
    for how in ["truncate", "punch"] {
        let done = match how {
            "truncate" => file.truncate(280 << 10, Wait::Yes),
            _ => file.punch_hole(1 << 10, 279 << 10, Wait::Yes),
        };
        assert!(matches!(done, Err(Error::Corrupt(_))), "{how}: {done:?}");
        assert_eq!(file.size(), 300 << 10, "{how}");
        assert_eq!(file.attr().blocks_512, 2 * (300 + 3), "{how}");
        let mut bytes = vec![0; 268 << 10];
        file.read_at(0, &mut bytes).expect("read");
        assert!(bytes.iter().all(|&byte| byte == 1), "{how}");
    }
    // No truncation is noted, and the image is to be checked.
    assert_eq!(device.read_u32(1024 + 232).expect("read"), 0);
    assert_eq!(device.to_vec()[1024 + 58], 2);
}

#[test]
fn an_indirect_block_that_cannot_be_read_ends_a_truncation_and_not_all_writing() {
    need_tools!("mke2fs");
    let faulty = Arc::new(Faulty::new(RamDevice::from_bytes(&with_long_file()).expect("memory")));
    let fs = Ext2::open(faulty.clone(), &OpenOptions::default()).expect("open");
    let file = fs.resolve(b"f", Follow::No).expect("there");
    faulty.arm(Fault::from_then_on(Calls::READ, 0));
    file.truncate(100 << 10, Wait::Yes).expect_err("nothing can be read");
    faulty.disarm();
    assert!(!fs.is_read_only());
    assert_eq!(file.size(), 300 << 10);
    file.truncate(100 << 10, Wait::Yes).expect("shorter");
}

#[test]
fn an_image_that_is_closed_beside_running_changes_is_clean_or_not_called_so() {
    need_tools!("mke2fs", "e2fsck");
    let base = image(&["-t", "ext2"]);
    let mut clean = 0;
    for round in 0..60_u32 {
        let device = ram(&base);
        let fs = open(&device);
        let root = fs.root().expect("root");
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (root, start) = (&root, &start);
                scope.spawn(move || {
                    start.wait();
                    for nr in 0.. {
                        let name = format!("{thread} {nr}");
                        let step = || {
                            let file = root.create(name.as_bytes(), &FILE)?;
                            file.write_at(0, &[1; 3000])?;
                            // Every other one goes with its last holder.
                            if nr % 2 == 0 { root.unlink(name.as_bytes()) } else { Ok(()) }
                        };
                        if let Err(error) = step() {
                            // It is closed, or the few inodes that there are are in use.
                            let expected = [Errno::ROFS, Errno::NOSPC];
                            assert!(expected.into_iter().any(|errno| error.is(errno)), "{error}");
                            break;
                        }
                    }
                });
            }
            start.wait();
            std::thread::sleep(Duration::from_micros(u64::from(round) * 20));
            fs.clone().close().expect("closed");
        });
        drop((root, fs));
        let bytes = device.to_vec();
        if bytes[1024 + 58] & 1 == 1 {
            clean += 1;
            assert!(is_clean(&bytes), "round {round}: not as clean as it says");
        } else {
            mended(&bytes, &format!("round {round}"));
        }
    }
    println!("{clean} of 60 were marked clean");
}

#[test]
fn blocks_that_are_to_be_published_keep_a_closed_image_from_being_called_clean() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&["-t", "ext2"]));
    let fs = open(&device);
    let file = fs.root().expect("root").create(b"f", &FILE).expect("created");
    let got = file.map_for_write(FileBlock::new(0), 4, Allocate::AfterFill).expect("blocks");
    fs.clone().close().expect("closed");
    let before = device.to_vec();
    let late = got.unpublished.expect("new").publish(0..4096);
    assert!(late.expect_err("closed").is(Errno::ROFS));
    drop((file, fs));
    assert_eq!(device.to_vec(), before);
    assert_eq!(before[1024 + 58] & 1, 0, "marked clean with blocks that nobody has");
    mended(&before, "blocks that were not published");
}

/// A file without a name may die with its attributes, and a list of orphans knows no sharing.
#[test]
fn attributes_of_a_file_without_a_name_are_shared_with_nobody() {
    need_tools!("mke2fs", "e2fsck");
    for was_named in [true, false] {
        let device = ram(&image(&["-t", "ext2"]));
        let sharing = OpenOptions { share_xattrs: true, ..OpenOptions::default() };
        let fs = Ext2::open(device.clone(), &sharing).expect("opened");
        let root = fs.root().expect("root");
        let nameless = if was_named {
            let file = root.create(b"removed", &FILE).expect("created");
            root.unlink(b"removed").expect("removed");
            file
        } else {
            root.tmpfile(&FILE).expect("created")
        };
        let named = root.create(b"named", &FILE).expect("created");
        for file in [&nameless, &named] {
            file.xattr_set(b"user.x", b"alike", XattrSet::Any).expect("set");
        }
        fs.sync().expect("synced");
        // As a kill leaves it.
        mended(&device.to_vec(), "a file without a name");
    }
}
