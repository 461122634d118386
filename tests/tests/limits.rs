//! Limits: how many links an inode has, how long a target is, which times an inode has room for, how many blocks a map may
//! name; each with the last that is taken and the first that is refused.

use std::sync::Arc;

use blockdev::{BlockDevice, RamDevice};
use e2dax_tests::{
    need_tools,
    small::{Ram, image, inode_at, is_clean, open, ram},
};
use ext2_core::{
    AclKind, BlockSize, Errno, Error, Ext2, FileKind, Follow, Inode, InodeFlags, NewInode, OpenOptions,
    RenameFlags, SetAttr, Timestamp, Wait,
};
use ext2_image::mkfs::{self, Format, Fresh};

const DIR: NewInode = NewInode::new(FileKind::Directory, 0o755);
const FILE: NewInode = NewInode::new(FileKind::Regular, 0o644);

#[track_caller]
fn refused<T>(done: Result<T, Error>, errno: Errno) {
    match done {
        Ok(_) => panic!("it is not refused"),
        Err(error) => assert!(error.is(errno), "{error}"),
    }
}

#[test]
fn an_inode_with_32000_links_gets_no_more_and_one_with_fewer_does() {
    need_tools!("mke2fs");
    for links in [31_998_u16, 31_999, 32_000] {
        let device = ram(&image(&[]));
        let fs = open(&device);
        let root = fs.root().expect("root");
        let (full, other) =
            (root.create(b"full", &DIR).expect("created"), root.create(b"o", &DIR).expect("created"));
        full.create(b"file", &FILE).expect("created");
        for name in [&b"d1"[..], b"d2"] {
            other.create(name, &DIR).expect("created");
        }
        let many = root.create(b"many", &FILE).expect("created");
        let places = [inode_at(&fs, full.nr()) + 26, inode_at(&fs, many.nr()) + 26];
        drop((root, full, other, many));
        fs.close().expect("closed");
        places.iter().for_each(|&at| device.write_u16(at, links).expect("stored"));

        let fs = open(&device);
        let root = fs.root().expect("root");
        let find = |name: &str| fs.resolve(name, Follow::No).expect("there");
        let (full, other, many) = (find("full"), find("o"), find("many"));
        // A file in it is no link of it.
        fs.rename(&full, b"file", &full, b"moved", RenameFlags::empty()).expect("renamed");
        let mut room = 32_000 - links;
        let mut one_more = |done: Result<(), Error>| {
            if room > 0 {
                done.expect("one link more")
            } else {
                refused(done, Errno::MLINK)
            }
            room = room.saturating_sub(1);
        };
        one_more(fs.rename(&other, b"d1", &full, b"d1", RenameFlags::empty()));
        one_more(full.create(b"new", &DIR).map(drop));
        one_more(full.create(b"newer", &DIR).map(drop));
        assert_eq!(full.attr().links, 32_000);
        // A directory for a file is a link more.
        refused(fs.rename(&other, b"d2", &full, b"moved", RenameFlags::EXCHANGE), Errno::MLINK);
        refused(fs.rename(&full, b"moved", &other, b"d2", RenameFlags::EXCHANGE), Errno::MLINK);
        let mut room = 32_000 - links;
        for nr in 0..3 {
            let done = root.link(&many, format!("l{nr}"));
            if room > 0 {
                done.expect("one link more")
            } else {
                refused(done, Errno::MLINK)
            }
            room = room.saturating_sub(1);
        }
        // A rename takes no more than it gives back.
        fs.rename(&root, b"many", &root, b"renamed", RenameFlags::empty()).expect("renamed");
        assert_eq!(many.attr().links, 32_000);
        // The field has room for one more, or none.
        for links in [u16::MAX - 1, u16::MAX] {
            many_of(&fs, &device, links);
            let done = fs.rename(&root, b"one", &root, b"other", RenameFlags::empty());
            if links < u16::MAX {
                done.expect("renamed");
                root.unlink("other").expect("unlinked");
            } else {
                refused(done, Errno::MLINK);
            }
        }
    }
}

/// A file `one`, of which the device says that it has so many links.
fn many_of(fs: &Ext2, device: &Ram, links: u16) {
    let file = fs.root().expect("root").create(b"one", &FILE).expect("created");
    let nr = file.nr();
    drop(file);
    device.write_u16(inode_at(fs, nr) + 26, links).expect("stored");
}

#[test]
fn a_target_is_shorter_than_a_block_and_a_device_file_has_a_number() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&[])));
    let root = fs.root().expect("root");
    for len in [1, 59, 60, 61, 1023] {
        let target = "t".repeat(len);
        let link = root.symlink(format!("l{len}"), &target, &FILE).expect("made");
        assert_eq!(link.read_link().expect("read").len(), len);
        assert_eq!(link.attr().blocks_512, if len < 60 { 0 } else { 2 }, "{len} bytes");
    }
    refused(root.symlink("long", "t".repeat(1024), &FILE), Errno::NAMETOOLONG);
    refused(root.create("link", &NewInode::new(FileKind::Symlink, 0o777)), Errno::INVAL);
    for kind in [FileKind::CharDevice, FileKind::BlockDevice] {
        refused(root.create("device", &NewInode::new(kind, 0o600)), Errno::INVAL);
    }
}

/// A file system with a file that says of its inode that so many bytes of it past the first 128 are in use.
fn with_extra(extra_isize: u16) -> Ram {
    let device = ram(&image(&[]));
    let fs = open(&device);
    let file = fs.root().expect("root").create(b"file", &FILE).expect("created");
    let at = inode_at(&fs, file.nr()) + 128;
    drop(file);
    fs.close().expect("closed");
    device.write_u16(at, extra_isize).expect("stored");
    device
}

#[test]
fn an_inode_has_the_times_that_it_has_room_for() {
    need_tools!("mke2fs");
    // Past 2038, and with nanoseconds.
    let time = |nr: u32| Timestamp { sec: 5_000_000_000 + i64::from(nr), nsec: 100 + nr };
    for extra_isize in (0..=32_u16).step_by(4) {
        let device = with_extra(extra_isize);
        let all = |file: &Inode| {
            let attr = file.attr();
            [Some(attr.ctime), Some(attr.mtime), Some(attr.atime), attr.crtime]
        };
        let fs = open(&device);
        let file = fs.resolve("file", Follow::No).expect("there");
        let set = SetAttr {
            ctime: Some(time(1)),
            mtime: Some(time(2)),
            atime: Some(time(3)),
            crtime: Some(time(4)),
            ..SetAttr::default()
        };
        file.set_attr(&set).expect("set");
        // Where the fields end that each needs.
        let held = |nr: u32, end: u16| time(nr).as_stored(extra_isize >= end);
        let expected =
            [Some(held(1, 8)), Some(held(2, 12)), Some(held(3, 16)), (extra_isize >= 24).then(|| time(4))];
        assert_eq!(all(&file), expected, "extra size {extra_isize}");
        drop(file);
        fs.close().expect("closed");
        let fs = open(&device);
        assert_eq!(
            all(&fs.resolve("file", Follow::No).expect("there")),
            expected,
            "extra size {extra_isize}, read"
        );
    }
}

#[test]
fn extra_fields_are_as_many_as_an_inode_has_room_for() {
    need_tools!("mke2fs");
    for (extra_isize, is_good) in [(128_u16, true), (132, false), (256, false), (30, false), (4, true)] {
        let device = with_extra(extra_isize);
        let found = open(&device).resolve("file", Follow::No);
        let as_expected = match found {
            Ok(_) => is_good,
            Err(error) => !is_good && matches!(error, Error::Corrupt(_)),
        };
        assert!(as_expected, "extra size {extra_isize}");
    }
}

#[test]
fn an_immutable_file_is_not_written_to_and_one_that_only_grows_at_its_end() {
    need_tools!("mke2fs");
    let fs = open(&ram(&image(&[])));
    let file = fs.root().expect("root").create(b"file", &FILE).expect("created");
    file.write_at(0, &[1; 100]).expect("written");
    file.set_flags(InodeFlags::IMMUTABLE).expect("set");
    refused(file.write_at(50, &[2; 10]), Errno::PERM);
    refused(file.write_at(100, &[2; 10]), Errno::PERM);
    refused(file.append(&[2; 10]), Errno::PERM);
    // Also what would change nothing.
    for which in [AclKind::Access, AclKind::Default] {
        refused(file.set_acl(which, None), Errno::PERM);
    }
    file.set_flags(InodeFlags::APPEND).expect("set");
    refused(file.write_at(50, &[2; 10]), Errno::PERM);
    refused(file.write_at(101, &[2; 10]), Errno::PERM);
    file.write_at(100, &[2; 10]).expect("at its end");
    file.append(&[2; 10]).expect("appended");
    file.set_flags(InodeFlags::IMMUTABLE | InodeFlags::APPEND).expect("set");
    refused(file.append(&[2; 10]), Errno::PERM);
    assert_eq!(file.size(), 120);
}

/// A file system of blocks of 1024 bytes in memory, with a file of so many blocks; and where its inode lies.
fn with_file(blocks: u64) -> (Arc<RamDevice>, u64) {
    let device = Arc::new(RamDevice::new(4 << 20).expect("memory"));
    let format = Format { block_size: BlockSize::new(1024), ..Format::default() };
    mkfs::format(&*device, &format, Fresh::Zeros).expect("made");
    let fs = open(&device);
    let file = fs.root().expect("root").create(b"file", &FILE).expect("created");
    file.write_at(0, &vec![7; (blocks * 1024) as usize]).expect("written");
    let at = inode_at(&fs, file.nr());
    drop(file);
    fs.close().expect("closed");
    (device, at)
}

#[test]
fn what_a_map_has_past_the_end_of_a_file_is_not_the_file_s() {
    let (device, at) = with_file(4);
    device.write_u32(at + 4, 2 * 1024).expect("stored");
    let fs = Ext2::open(device, &OpenOptions::read_only()).expect("open");
    let file = fs.resolve("file", Follow::No).expect("there");
    let runs: Vec<_> =
        file.extents().map(|run| run.map(|run| (run.start.get(), run.count)).expect("whole")).collect();
    assert_eq!(runs, [(0, 2)]);
    assert_eq!((file.seek_hole(0).expect("the end"), file.seek_data(1024).expect("data")), (2048, 1024));
    refused(file.seek_data(2048), Errno::NXIO);
}

#[test]
fn a_file_ends_with_the_last_byte_that_it_may_have() {
    let (device, _) = with_file(1);
    let fs = open(&device);
    let file = fs.resolve("file", Follow::No).expect("there");
    let most = fs.geometry().max_file_size();
    assert_eq!(file.write_at(most - 1, b"ab").expect("a part"), 1);
    assert_eq!(file.size(), most);
    refused(file.write_at(most, b"a"), Errno::FBIG);
    refused(file.truncate(most + 1, Wait::Yes), Errno::FBIG);
    file.truncate(most, Wait::Yes).expect("as it is");
    let mut byte = [0];
    assert_eq!((file.read_at(most - 1, &mut byte).expect("read"), byte), (1, *b"a"));
}

#[test]
fn a_map_that_names_more_blocks_than_there_are_ends_the_growth_of_a_file() {
    let (device, at) = with_file(20);
    // Four blocks of the file: three of pointers to one more each, and one that all of them lead to.
    let blocks: Vec<u32> = (0..4).map(|slot| device.read_u32(at + 40 + 4 * slot).expect("read")).collect();
    for pair in blocks.windows(2) {
        device.write_words(u64::from(pair[0]) * 1024, &[pair[1]; 256]).expect("stored");
    }
    for slot in 0..14 {
        device.write_u32(at + 40 + 4 * slot, 0).expect("stored");
    }
    device.write_u32(at + 40 + 4 * 14, blocks[0]).expect("stored");
    device.write_u32(at + 4, 0).expect("stored");
    let fs = open(&device);
    let file = fs.resolve("file", Follow::No).expect("there");
    let error = file.truncate(1 << 33, Wait::Yes).expect_err("too many blocks");
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
    assert_eq!(file.size(), 0);
}

#[test]
fn a_full_disk_gives_each_file_as_much_as_fits_with_its_indirect_blocks() {
    need_tools!("e2fsck");
    // At the direct blocks, and where trees of one, two and three levels begin.
    for start in [0_u64, 9, 12, 266, 268, 268 + 250, 65_800, 65_804] {
        for free in 0..9_u64 {
            let device = Arc::new(RamDevice::new(1 << 20).expect("memory"));
            let format =
                Format { block_size: BlockSize::new(1024), reserved_percent: 0.0, ..Format::default() };
            mkfs::format(&*device, &format, Fresh::Zeros).expect("made");
            let fs = open(&device);
            let root = fs.root().expect("root");
            let (filler, file) = (
                root.create(b"filler", &FILE).expect("created"),
                root.create(b"file", &FILE).expect("created"),
            );
            // All but so many blocks are taken, or one more.
            let left = || fs.statfs().expect("counted").blocks_free;
            while left() > free {
                let most = if left() > free + 20 { left() - free - 15 } else { 1 };
                filler.append(&vec![1; (most * 1024) as usize]).expect("written");
            }
            let mut done = 0;
            loop {
                match file.write_at(start * 1024 + done, &[2; 20 * 1024]) {
                    Ok(more) => done += more as u64,
                    Err(error) => {
                        assert!(error.is(Errno::NOSPC), "{error}");
                        break;
                    }
                }
            }
            // What one block more would need, with the indirect blocks that are not there.
            let next = start + done / 1024;
            let first = |from: u64| done == 0 || next == from;
            let need = 1 + match next {
                0..12 => 0,
                12..268 => u64::from(next == 12 || done == 0),
                268..65_804 => u64::from(first(268)) + u64::from((next - 268) % 256 == 0 || done == 0),
                _ => {
                    let within = next - 65_804;
                    u64::from(first(65_804))
                        + u64::from(first(65_804) || within % 65_536 == 0)
                        + u64::from(within % 256 == 0 || done == 0)
                }
            };
            assert!(left() < need, "{start}, {free} free: {done} bytes, {} left, {need} needed", left());
            assert_eq!(file.size(), if done == 0 { 0 } else { start * 1024 + done });
            let mut got = vec![0; done as usize];
            assert_eq!(file.read_at(start * 1024, &mut got).expect("read") as u64, done);
            assert!(got.iter().all(|&byte| byte == 2));
            drop((root, file, filler));
            fs.close().expect("closed");
            assert!(free % 3 != 0 || is_clean(&device.to_vec()), "{start}, {free} free");
        }
    }
}

#[test]
fn a_full_disk_renames_a_directory_within_its_block_or_by_another_way() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&[]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let dir = root.create(b"dir", &DIR).expect("created");
    dir.create(b"sub", &DIR).expect("created");
    let filler = root.create(b"filler", &FILE).expect("created");
    while filler.append(&[1; 64 << 10]).is_ok() {}
    while filler.append(&[1; 1]).is_ok() {}
    assert_eq!(fs.statfs().expect("counted").blocks_free, 0);
    // What does not fit takes no number.
    let files = fs.statfs().expect("counted").files_free;
    refused(root.create(b"more", &DIR), Errno::NOSPC);
    refused(root.symlink(b"more", "t".repeat(500), &FILE), Errno::NOSPC);
    assert_eq!(fs.statfs().expect("counted").files_free, files);
    fs.rename(&dir, b"sub", &dir, b"renamed", RenameFlags::empty()).expect("renamed");
    assert!(dir.lookup(b"sub").is_err() && dir.lookup(b"renamed").is_ok());
    drop((root, dir, filler));
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
}

#[test]
fn a_rename_by_one_store_takes_a_block_to_its_last_byte() {
    need_tools!("mke2fs");
    // Bytes of a block that are left when the directory has its new name.
    for (left, fits) in [(4_usize, true), (0, true)] {
        let fs = Ext2::open(ram(&image(&[])), &OpenOptions { strict_rename: true, ..OpenOptions::default() })
            .expect("open");
        let dir = fs.root().expect("root").create(b"dir", &DIR).expect("created");
        dir.create(b"sub", &DIR).expect("created");
        // `.` and `..` take 24 bytes, the new name 48, three others 240 each.
        for nr in 0..3 {
            dir.create(format!("{nr}{}", "a".repeat(231)), &FILE).expect("created");
        }
        let rest = 1024 - 24 - 48 - 3 * 240 - left;
        dir.create("b".repeat(rest - 8), &FILE).expect("created");
        assert_eq!(dir.size(), 1024);
        let done = fs.rename(&dir, b"sub", &dir, "c".repeat(40).as_bytes(), RenameFlags::empty());
        assert_eq!(done.is_ok(), fits, "{left} bytes left: {done:?}");
        // One byte more does not fit.
        refused(
            fs.rename(
                &dir,
                "c".repeat(40).as_bytes(),
                &dir,
                "d".repeat(41 + left).as_bytes(),
                RenameFlags::empty(),
            ),
            Errno::XDEV,
        );
    }
}

#[test]
fn directories_and_files_that_change_places_take_their_links_along() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&[]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let [one, other] = ["one", "other"].map(|name| root.create(name, &DIR).expect("created"));
    let sub = one.create(b"sub", &DIR).expect("created");
    let file = other.create(b"file", &FILE).expect("created");
    let links = || [&one, &other, &sub, &file].map(|inode| inode.attr().links);
    let parent = || sub.lookup(b"..").expect("there").nr();
    assert_eq!((links(), parent()), ([3, 2, 2, 1], one.nr()));
    fs.rename(&one, b"sub", &other, b"file", RenameFlags::EXCHANGE).expect("exchanged");
    assert_eq!((links(), parent()), ([2, 3, 2, 1], other.nr()));
    assert_eq!(
        (one.lookup(b"sub").expect("there").nr(), other.lookup(b"file").expect("there").nr()),
        (file.nr(), sub.nr())
    );
    fs.rename(&one, b"sub", &other, b"file", RenameFlags::EXCHANGE).expect("exchanged");
    assert_eq!((links(), parent()), ([3, 2, 2, 1], one.nr()));
    // Within one directory nothing but the names changes.
    let beside = one.create(b"beside", &FILE).expect("created");
    fs.rename(&one, b"beside", &one, b"sub", RenameFlags::EXCHANGE).expect("exchanged");
    assert_eq!((links(), parent(), beside.attr().links), ([3, 2, 2, 1], one.nr(), 1));
    // A directory that goes elsewhere, by its new name.
    fs.rename(&one, b"beside", &other, b"moved", RenameFlags::empty()).expect("renamed");
    assert_eq!((links(), parent()), ([2, 3, 2, 1], other.nr()));
    drop((root, one, other, sub, file, beside));
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
}

#[test]
fn a_directory_with_too_few_links_for_those_in_it_is_corrupt() {
    need_tools!("mke2fs");
    let device = ram(&image(&[]));
    let fs = open(&device);
    let dir = fs.root().expect("root").create(b"dir", &DIR).expect("created");
    for name in ["one", "other"] {
        dir.create(name, &DIR).expect("created");
    }
    let at = inode_at(&fs, dir.nr()) + 26;
    drop(dir);
    fs.close().expect("closed");
    device.write_u16(at, 3).expect("stored");
    let fs = open(&device);
    let dir = fs.resolve("dir", Follow::No).expect("there");
    dir.rmdir("one").expect("removed");
    let error = dir.rmdir("other").expect_err("corrupt");
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
}

#[test]
fn a_name_that_cannot_be_looked_up_is_not_renamed_over() {
    need_tools!("mke2fs");
    for replaces in [false, true] {
        let device = ram(&image(&[]));
        let fs = open(&device);
        let root = fs.root().expect("root");
        let dir = root.create(b"dir", &DIR).expect("created");
        root.create(b"file", &FILE).expect("created");
        dir.create(b"bad", &FILE).expect("created");
        dir.create(b"over", &FILE).expect("created");
        let block = u64::from(
            dir.map(ext2_core::FileBlock::new(0), 1).expect("mapped").target.expect("a block").get(),
        );
        drop((root, dir));
        fs.close().expect("closed");
        // The entry after those for the directory and its parent names a reserved inode.
        device.write_u32(block * 1024 + 24, 5).expect("stored");
        let fs = open(&device);
        let root = fs.root().expect("root");
        let dir = root.lookup(b"dir").expect("there");
        let error = match replaces {
            true => fs.rename(&root, b"file", &dir, b"bad", RenameFlags::empty()),
            false => fs.rename(&dir, b"bad", &root, b"new", RenameFlags::empty()),
        };
        let error = error.expect_err("corrupt");
        assert!(matches!(error, Error::Corrupt(_)), "{error}");
        assert!(root.lookup(b"file").is_ok() && root.lookup(b"new").is_err());
        // What is wrong is told before that a directory has one name.
        let error = dir.link(&root, b"bad").expect_err("refused");
        assert!(error.is(Errno::EXIST), "{error}");
        refused(dir.link(&root, b"none"), Errno::PERM);
        refused(dir.link(&root, "n".repeat(256)), Errno::NAMETOOLONG);
    }
}

#[test]
fn what_is_neither_file_nor_directory_is_not_made_immutable_or_append_only() {
    need_tools!("mke2fs", "e2fsck");
    let device = ram(&image(&[]));
    let fs = open(&device);
    let root = fs.root().expect("root");
    let kinds = [FileKind::Fifo, FileKind::Socket, FileKind::Symlink];
    for (nr, kind) in kinds.into_iter().enumerate() {
        let name = format!("{nr}");
        let made = match kind {
            FileKind::Symlink => root.symlink(&name, b"target", &NewInode::new(kind, 0o777)),
            _ => root.create(&name, &NewInode::new(kind, 0o644)),
        };
        let made = made.expect("created");
        refused(made.set_flags(InodeFlags::IMMUTABLE), Errno::OPNOTSUPP);
        refused(made.set_flags(InodeFlags::APPEND | InodeFlags::NOATIME), Errno::OPNOTSUPP);
        made.set_flags(InodeFlags::NOATIME).expect("set");
    }
    drop(root);
    fs.close().expect("closed");
    assert!(is_clean(&device.to_vec()));
}

#[test]
fn a_directory_grows_to_less_than_2_gib() {
    const LEN: u64 = 64 << 10;
    // What is not touched takes no memory.
    let device = Arc::new(RamDevice::new((2 << 30) + 256 * LEN).expect("memory"));
    let format = Format {
        block_size: BlockSize::new(LEN),
        inodes: ext2_image::mkfs::Inodes::Count(2048),
        ..Format::default()
    };
    mkfs::format(&*device, &format, Fresh::Zeros).expect("made");
    let fs = open(&device);
    let root = fs.root().expect("root");
    let dir = root.create(b"dir", &DIR).expect("created");
    let file = root.create(b"file", &FILE).expect("created");
    file.write_at(0, &vec![0; 4 * LEN as usize]).expect("written");
    let at = inode_at(&fs, dir.nr());
    let [empty, full, last, double] = [0, 1, 2, 3]
        .map(|nr| file.map(ext2_core::FileBlock::new(nr), 1).expect("mapped").target.expect("data").get());
    drop((root, dir, file));
    fs.close().expect("closed");
    // All blocks are one, which is broken, so that no name goes into it.
    device.write_u32(u64::from(empty) * LEN + 4, 1).expect("stored");
    (0..12).for_each(|slot| device.write_u32(at + 40 + 4 * slot, empty).expect("stored"));
    device.write_u32(at + 40 + 48, full).expect("stored");
    device.write_u32(at + 40 + 52, double).expect("stored");
    device.write_words(u64::from(full) * LEN, &vec![empty; 16_384]).expect("stored");
    device.write_u32(u64::from(double) * LEN, last).expect("stored");
    for (blocks, grows) in [(32_766_u64, true), (32_767, false)] {
        device
            .write_words(u64::from(last) * LEN, &vec![empty; (blocks - 12 - 16_384) as usize])
            .expect("stored");
        device.write_u32(at + 4, (blocks * LEN) as u32).expect("stored");
        let fs = open(&device);
        let root = fs.root().expect("root");
        let dir = root.lookup(b"dir").expect("there");
        let done = dir.link(&root.lookup(b"file").expect("there"), b"name");
        if grows {
            done.expect("linked");
        } else {
            refused(done, Errno::NOSPC);
        }
        assert_eq!(dir.size(), (blocks + u64::from(grows)) * LEN);
    }
}
