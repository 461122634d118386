//! The common jobs by path, cursors, and placements of somebody else's.

use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use blockdev::{BlockDevice, RamDevice};
use ext2_core::placement::{Aligned, FreeSpace, Placed, Placement, Request, Which};
use ext2_core::{
    Cursor, Errno, Ext2, FileBlock, FileKind, Follow, GroupNr, NewInode, OpenOptions, Result, SetAttr,
    Timestamp,
};
use ext2_image::check;
use ext2_image::mkfs::{self, in_memory};

fn empty() -> Ext2 {
    Ext2::open(in_memory(4 << 20).unwrap(), &OpenOptions::default()).unwrap()
}

/// Closes the file system, and has its image checked.
fn close_and_check(fs: Ext2) {
    let device = fs.device().clone();
    fs.close().unwrap();
    let mut found = Vec::new();
    let summary = check::check(&*device, &check::Options::default(), &mut |one| found.push(one.to_string()));
    assert!(summary.unwrap().is_clean(), "{found:?}");
}

#[test]
fn a_file_is_written_read_renamed_and_removed_by_path() {
    let fs = empty();
    fs.create_dir_all("/a/b/c/").unwrap();
    fs.create_dir_all("a/b").unwrap();
    fs.create_dir_all("/").unwrap();
    fs.write("a/b/c/file", "first, and longer").unwrap();
    fs.write(b"/a/b/c/file", "second").unwrap();
    assert_eq!(fs.read("a/b/c/file").unwrap(), b"second");
    assert_eq!(fs.read_to_string("a/b/c/file").unwrap(), "second");
    fs.symlink("b/c", "a/link").unwrap();
    assert_eq!(fs.read("a/link/file").unwrap(), b"second");
    assert_eq!(fs.read_link("a/link").unwrap(), "b/c");
    assert!(fs.metadata("a/link").unwrap().is_dir() && fs.symlink_metadata("a/link").unwrap().is_symlink());
    fs.hard_link("a/b/c/file", "a/other").unwrap();
    assert_eq!(fs.metadata("a/other").unwrap().links, 2);
    fs.rename_path("a/other", "a/b/c/file").unwrap();
    fs.rename_path("a/b/c/file", "moved").unwrap();
    assert!(fs.exists("moved").unwrap() && !fs.exists("a/b/c/file").unwrap());
    assert!(!fs.exists("moved/below").unwrap());
    fs.remove_file("moved").unwrap();
    fs.remove_dir("a/b/c").unwrap();
    assert!(fs.remove_dir("a").unwrap_err().is(Errno::NOTEMPTY));
    fs.remove_dir_all("a").unwrap();
    let left: Vec<String> = fs.read_dir("/").unwrap().map(|entry| entry.unwrap().name.to_string()).collect();
    assert_eq!(left, ["lost+found"]);
    close_and_check(fs);
}

#[test]
fn what_is_in_the_way_of_a_path_is_said_by_number() {
    let fs = empty();
    fs.write("file", [0xff, 0xfe]).unwrap();
    fs.symlink("nowhere", "link").unwrap();
    let errors = [
        fs.create_dir_all("file/dir").unwrap_err(),
        fs.create_dir_all("file").unwrap_err(),
        fs.create_dir("file").unwrap_err(),
        fs.write("missing/file", "").unwrap_err(),
        fs.write("link", "").unwrap_err(),
        fs.write("/", "").unwrap_err(),
        fs.read_to_string("file").unwrap_err(),
        fs.read("lost+found").unwrap_err(),
        fs.remove_dir_all("file").unwrap_err(),
        fs.remove_dir_all("/").unwrap_err(),
    ];
    use Errno as E;
    let numbers = [
        E::NOTDIR,
        E::NOTDIR,
        E::EXIST,
        E::NOENT,
        E::EXIST,
        E::ISDIR,
        E::ILSEQ,
        E::ISDIR,
        E::NOTDIR,
        E::BUSY,
    ];
    for (error, number) in errors.iter().zip(numbers) {
        assert!(error.is(number), "{error:?} is not {number:?}");
    }
    assert_eq!(fs.read("file").unwrap(), [0xff, 0xfe]);
    close_and_check(fs);
}

#[test]
fn a_removed_tree_takes_no_target_of_its_links_with_it() {
    let fs = empty();
    fs.create_dir_all("keep/dir").unwrap();
    fs.write("keep/file", "kept").unwrap();
    fs.create_dir_all("gone/deep/deeper").unwrap();
    for number in 0..40 {
        fs.write(format!("gone/deep/{number}"), "x").unwrap();
    }
    fs.symlink("/keep", "gone/deep/link").unwrap();
    fs.remove_dir_all("gone").unwrap();
    assert_eq!(fs.read("keep/file").unwrap(), b"kept");
    let paths: Vec<String> =
        fs.walk("/").unwrap().map(|found| String::from_utf8(found.unwrap().path).unwrap()).collect();
    assert_eq!(paths, ["/", "/keep", "/keep/dir", "/keep/file", "/lost+found"]);
    close_and_check(fs);
}

#[test]
fn a_cursor_is_a_stream_over_a_file() {
    let fs = empty();
    let file = fs.root().unwrap().create("file", &NewInode::new(FileKind::Regular, 0o600)).unwrap();
    let mut cursor = Cursor::new(file.clone());
    cursor.write_all(b"0123456789").unwrap();
    assert_eq!(cursor.seek(SeekFrom::End(-4)).unwrap(), 6);
    let mut rest = String::new();
    cursor.read_to_string(&mut rest).unwrap();
    assert_eq!((&rest[..], cursor.position()), ("6789", 10));
    assert_eq!(cursor.seek(SeekFrom::Current(5)).unwrap(), 15);
    cursor.write_all(b"!").unwrap();
    assert_eq!(fs.read("file").unwrap(), b"0123456789\0\0\0\0\0!");
    assert_eq!(cursor.seek(SeekFrom::Current(-17)).unwrap_err().raw_os_error(), Some(22));
    let mut three = [0; 3];
    file.read_exact_at(7, &mut three).unwrap();
    assert_eq!(&three, b"789");
    assert!(file.read_exact_at(14, &mut three).unwrap_err().is(Errno::NODATA));
    close_and_check(fs);
}

#[test]
fn a_shared_device_is_shared_and_not_wrapped() {
    let device: Arc<dyn BlockDevice> = Arc::new(in_memory(1 << 20).unwrap());
    let fs = Ext2::open(device.clone(), &OpenOptions::read_only()).unwrap();
    assert!(Arc::ptr_eq(fs.device(), &device));
    let concrete = Arc::new(in_memory(1 << 20).unwrap());
    let fs = Ext2::open(concrete.clone(), &OpenOptions::default()).unwrap();
    fs.write("file", "seen by both").unwrap();
    fs.close().unwrap();
    let again = Ext2::open(RamDevice::from_bytes(&concrete.to_vec()).unwrap(), &OpenOptions::read_only());
    assert_eq!(again.unwrap().read("file").unwrap(), b"seen by both");
}

#[test]
fn an_image_file_is_opened_by_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.img");
    std::fs::write(&image, in_memory(1 << 20).unwrap().to_vec()).unwrap();
    let fs = Ext2::open_path(&image, &OpenOptions::default()).unwrap();
    fs.write("file", "kept").unwrap();
    fs.close().unwrap();
    let fs = Ext2::open_path(&image, &OpenOptions::read_only()).unwrap();
    assert_eq!(fs.read_to_string("file").unwrap(), "kept");
    assert!(fs.write("file", "not").unwrap_err().is(Errno::ROFS));
    let now = Timestamp::from(std::time::SystemTime::now());
    assert!((0..600).contains(&(now.sec - fs.metadata("file").unwrap().mtime.sec)));
}

/// From the last group backwards, and never a window. Counts what it was asked.
#[derive(Debug, Default)]
struct Backwards(AtomicU32);

impl Placement for Backwards {
    fn place<'s>(&self, space: &'s FreeSpace<'_>, request: &Request) -> Result<Option<Placed<'s>>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        assert!(request.count > 0 && space.group_of(space.group_blocks(request.home).start).is_some());
        for which in [Which::Free, Which::EvenReserved] {
            for group in (0..space.groups()).rev().map(GroupNr::new) {
                let blocks = space.group_blocks(group);
                if space.free_blocks_of(group) == 0 {
                    continue;
                }
                // What is taken and not answered with goes back.
                drop(space.search(blocks.start, 1, which)?);
                if let Some(taken) = space.search(blocks.start, 1, which)? {
                    assert!(taken.len() <= request.count && !taken.is_empty());
                    return Ok(Some(Placed { taken, window: None }));
                }
            }
        }
        Ok(None)
    }
}

#[test]
fn a_policy_from_outside_places_every_block_and_the_image_stays_sound() {
    let policy = Arc::new(Backwards::default());
    let placement: Arc<dyn Placement> = policy.clone();
    let options = OpenOptions { placement: Some(placement), ..OpenOptions::default() };
    let device = Arc::new(in_memory(24 << 20).unwrap());
    let fs = Ext2::open(device.clone(), &options).unwrap();
    let free = fs.statfs().unwrap().blocks_free;
    fs.create_dir("work").unwrap();
    for number in 0..20 {
        fs.write(format!("work/file{number}"), vec![number; 50_000]).unwrap();
    }
    for number in (0..20).step_by(2) {
        fs.remove_file(format!("work/file{number}")).unwrap();
    }
    // Until the device is full.
    let mut written = 0;
    while fs.write(format!("work/full{written}"), vec![1; 300_000]).is_ok() {
        written += 1;
    }
    assert!(written > 40, "{written}");
    for number in 0..=written {
        fs.remove_file(format!("work/full{number}")).unwrap();
    }
    assert_eq!(fs.read("work/file1").unwrap(), vec![1; 50_000]);
    fs.remove_dir_all("work").unwrap();
    assert!(policy.0.load(Ordering::Relaxed) > 40);
    assert_eq!(fs.statfs().unwrap().blocks_free, free, "what was taken came back");
    close_and_check(fs);
}

/// The built-in policy through the public trait, with a file that is never big.
#[derive(Debug)]
struct NeverBig;

impl Placement for NeverBig {
    fn place<'s>(&self, space: &'s FreeSpace<'_>, request: &Request) -> Result<Option<Placed<'s>>> {
        Aligned.place(space, request)
    }
}

#[test]
fn a_policy_says_from_which_size_on_a_file_gets_whole_units() {
    let first_block = |placement: Arc<dyn Placement>| {
        let options = OpenOptions { placement: Some(placement), ..OpenOptions::default() };
        let fs = Ext2::open(in_memory(16 << 20).unwrap(), &options).unwrap();
        fs.write("file", vec![5; 4 << 20]).unwrap();
        let file = fs.resolve("file", Follow::Yes).unwrap();
        let first = file.map(FileBlock::new(0), 1).unwrap().target.unwrap();
        let bytes = u64::from(first.get()) * fs.geometry().block_size.bytes();
        close_and_check(fs);
        bytes % (2 << 20)
    };
    assert_eq!(first_block(Arc::new(Aligned)), 0);
    assert_ne!(first_block(Arc::new(NeverBig)), 0);
}

#[test]
fn a_time_is_shown_as_the_inode_can_hold_it_before_it_is_stored_and_after() {
    let far = Timestamp { sec: i64::MAX, nsec: 5 };
    let early = Timestamp { sec: i64::MIN, nsec: 4_000_000_000 };
    for (inode_size, latest) in [(128, i64::from(i32::MAX)), (256, Timestamp::MAX_SEC)] {
        let device: Arc<dyn BlockDevice> = Arc::new(RamDevice::new(4 << 20).unwrap());
        mkfs::format(&*device, &mkfs::Format { inode_size, ..Default::default() }, mkfs::Fresh::Zeros)
            .unwrap();
        let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
        fs.write("file", "").unwrap();
        let change = SetAttr { mtime: Some(far), atime: Some(early), ..SetAttr::default() };
        let file = fs.resolve("file", Follow::Yes).unwrap();
        file.set_attr(&change).unwrap();
        let held = file.attr();
        assert_eq!((held.mtime.sec, held.atime.sec), (latest, i64::from(i32::MIN)), "{inode_size}");
        drop(file);
        fs.close().unwrap();
        let fs = Ext2::open(device, &OpenOptions::read_only()).unwrap();
        let stored = fs.metadata("file").unwrap();
        assert_eq!(
            (held.mtime, held.atime, held.ctime),
            (stored.mtime, stored.atime, stored.ctime),
            "{inode_size}"
        );
    }
}

#[test]
fn a_slash_behind_a_path_asks_for_a_directory() {
    let fs = empty();
    fs.write("a", "a").unwrap();
    fs.write("b", "precious").unwrap();
    fs.create_dir("d").unwrap();
    fs.symlink("d", "link").unwrap();
    let refused = |done: Result<()>, errno: Errno| assert!(done.unwrap_err().is(errno), "{errno:?}");
    refused(fs.rename_path("a", "b/"), Errno::NOTDIR);
    refused(fs.rename_path("a/", "c"), Errno::NOTDIR);
    refused(fs.rename_path("a", "new/"), Errno::NOTDIR);
    refused(fs.remove_file("b/"), Errno::NOTDIR);
    refused(fs.remove_file("link/"), Errno::NOTDIR);
    refused(fs.write("new/", "x"), Errno::ISDIR);
    refused(fs.write("b/", "x"), Errno::ISDIR);
    refused(fs.write("none/new/", "x"), Errno::NOENT);
    refused(fs.symlink("d", "new/"), Errno::NOENT);
    refused(fs.hard_link("a", "new/"), Errno::NOENT);
    refused(fs.hard_link("a", "b/"), Errno::EXIST);
    assert_eq!(fs.read_to_string("a").unwrap() + &fs.read_to_string("b").unwrap(), "aprecious");
    assert!(fs.symlink_metadata("link").is_ok() && !fs.exists("new").unwrap());
    // Directories may be named so.
    fs.rename_path("d/", "e/").unwrap();
    fs.remove_dir("e/").unwrap();
    close_and_check(fs);
}

#[test]
fn every_barrier_has_a_number_of_its_own_that_is_not_zero() {
    let numbers: Vec<u64> = ext2_core::Barrier::ALL.iter().map(|barrier| barrier.tag()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

#[test]
fn what_is_there_already_is_told_before_that_nothing_may_be_changed() {
    let fs = empty();
    fs.create_dir_all("a/b").unwrap();
    fs.symlink("nowhere", "dangling").unwrap();
    let refused = |done: Result<()>, errno: Errno| assert!(done.unwrap_err().is(errno), "{errno:?}");
    refused(fs.create_dir_all("dangling"), Errno::NOTDIR);
    refused(fs.create_dir_all("dangling/x"), Errno::NOTDIR);
    let device = fs.device().clone();
    fs.close().unwrap();
    let fs = Ext2::open(device, &OpenOptions::read_only()).unwrap();
    fs.create_dir_all("a/b").unwrap();
    refused(fs.create_dir("a/b"), Errno::EXIST);
    refused(fs.create_dir("a/c"), Errno::ROFS);
    refused(fs.hard_link("dangling", "a"), Errno::EXIST);
    let root = fs.root().unwrap();
    refused(root.unlink("."), Errno::ISDIR);
    refused(root.rmdir("."), Errno::INVAL);
    let flags = ext2_core::RenameFlags::empty();
    refused(fs.rename(&root, &[b'x'; 300], &root, b"y", flags), Errno::ROFS);
}

#[test]
fn a_path_has_at_most_4095_bytes() {
    let fs = empty();
    let long = "./".repeat(2048);
    assert!(fs.resolve(&long, Follow::No).unwrap_err().is(Errno::NAMETOOLONG));
    assert!(fs.create_dir(&long).unwrap_err().is(Errno::NAMETOOLONG));
    assert_eq!(fs.resolve(&long[1..], Follow::No).unwrap(), fs.root().unwrap());
}

#[test]
fn a_directory_that_is_moved_while_its_tree_is_walked_is_given_once_and_is_no_fault() {
    let fs = empty();
    fs.create_dir_all("a/d/e").unwrap();
    fs.create_dir_all("z").unwrap();
    let mut given = Vec::new();
    for found in fs.walk("/").unwrap() {
        let found = found.unwrap();
        if found.path == b"/a/d" {
            fs.rename_path("a/d", "z/d").unwrap();
        }
        given.push(String::from_utf8(found.path).unwrap());
    }
    assert_eq!(given, ["/", "/a", "/a/d", "/a/d/e", "/lost+found", "/z"]);
    close_and_check(fs);
}

#[test]
fn a_tree_is_removed_beside_one_who_moves_its_directories() {
    let fs = empty();
    fs.create_dir("x").unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for (from, to) in [("t/a/b/c", "x/c"), ("t/a/b", "x/c/b"), ("x/c", "t/c")] {
                    let _ = fs.rename_path(from, to);
                }
            }
        });
        for _ in 0..300 {
            let _ = fs.create_dir_all("t/a/b/c");
            match fs.remove_dir_all("t") {
                Ok(()) => {}
                Err(error) => assert!(matches!(error, ext2_core::Error::Caller(..)), "{error}"),
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    close_and_check(fs);
}

#[test]
fn a_tree_with_a_name_that_no_path_holds_is_refused_and_not_tried_for_ever() {
    for (bytes, what) in [([0, 1, b'f'], ""), ([1, 1, b'/'], "/"), ([1, 1, 0], "\\0")] {
        let fs = empty();
        fs.create_dir("d").unwrap();
        fs.write("d/file", "x").unwrap();
        let device = fs.device().clone();
        fs.close().unwrap();
        let mut blocks = vec![0; 4 << 20];
        device.read_at(0, &mut blocks).unwrap();
        let at = blocks.windows(6).position(|window| window == [4, 1, b'f', b'i', b'l', b'e']).unwrap();
        device.write_at(at as u64, &bytes).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let fs = Ext2::open(device, &OpenOptions::default()).unwrap();
            let _ = tell.send(fs.remove_dir_all("d"));
        });
        let said = told.recv_timeout(std::time::Duration::from_secs(60));
        let error = said.unwrap_or_else(|_| panic!("{what:?}: it hangs")).unwrap_err();
        assert!(matches!(error, ext2_core::Error::Corrupt(_)), "{what:?}: {error}");
    }
}
