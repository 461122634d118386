//! Walking a tree that others change meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use blockdev::RamDevice;
use ext2_core::{Ext2, FileKind, NewInode, OpenOptions};
use ext2_image::Walk;
use ext2_image::mkfs::{self, Format, Fresh};

#[test]
fn a_name_that_went_and_whose_number_is_another_file_s_is_passed_over() {
    let device = Arc::new(RamDevice::new(1 << 20).unwrap());
    mkfs::format(&*device, &Format::default(), Fresh::Zeros).unwrap();
    let fs = Ext2::open(device, &OpenOptions::default()).unwrap();
    let root = fs.root().unwrap();
    let new = |mode| NewInode::new(FileKind::Regular, mode);
    let dir = root.create(b"d", &NewInode::new(FileKind::Directory, 0o755)).unwrap();
    dir.create(b"a", &new(0o600)).unwrap();
    let old = dir.create(b"b", &new(0o600)).unwrap().nr();

    let mut walk = Walk::new(&dir, b"/d");
    let paths = |walk: &mut Walk, count| -> Vec<Vec<u8>> {
        walk.take(count).map(|found| found.unwrap().path).collect()
    };
    assert_eq!(paths(&mut walk, 2), [&b"/d"[..], b"/d/a"]);
    dir.unlink(b"b").unwrap();
    let other = root.create(b"other", &new(0o644)).unwrap();
    assert_eq!(other.nr(), old, "the case is that the number is given again");
    assert_eq!(paths(&mut walk, 9), Vec::<Vec<u8>>::new());
}

fn empty() -> Ext2 {
    Ext2::open(mkfs::in_memory(16 << 20).unwrap(), &OpenOptions::default()).unwrap()
}

#[test]
fn a_name_that_is_made_again_behind_a_listing_is_given_once_and_is_no_fault() {
    let fs = empty();
    let dir = fs.root().unwrap().create("d", &NewInode::new(FileKind::Directory, 0o755)).unwrap();
    let new = |name: &str| drop(dir.create(name, &NewInode::new(FileKind::Regular, 0o644)).unwrap());
    new("aaaa");
    // Several blocks, which a listing reads one at a time.
    (0..700).for_each(|nr| new(&format!("some-rather-long-name-of-a-file-{nr:08}")));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // Its place is another's when it comes again.
                dir.unlink("aaaa").unwrap();
                new("bbbb");
                new("aaaa");
                dir.unlink("bbbb").unwrap();
                dir.unlink("aaaa").unwrap();
                new("aaaa");
            }
        });
        let begin = Instant::now();
        let mut walks = 0;
        let mut wrong = None;
        while wrong.is_none() && begin.elapsed() < Duration::from_secs(3) {
            // The name that comes and goes is the first: the rest would cost time.
            let found: Vec<_> = fs.walk("/d").unwrap().take(4).collect();
            wrong = found.iter().find_map(|found| found.as_ref().err().map(ToString::to_string));
            let is_twice = found.windows(2).any(|pair| match pair {
                [Ok(one), Ok(next)] => one.path == next.path,
                _ => false,
            });
            wrong = wrong.or(is_twice.then(|| "given twice".into()));
            walks += 1;
        }
        is_over.store(true, Ordering::Relaxed);
        println!("{walks} walks");
        assert_eq!(wrong, None, "in walk {walks}");
    });
}

#[test]
fn a_name_that_is_there_twice_is_a_fault_to_who_only_reads_and_is_given_once_beside_changes() {
    let fs = empty();
    ["one", "two"].iter().for_each(|name| fs.write(name, name).unwrap());
    let device = fs.device().clone();
    fs.close().unwrap();
    let mut bytes = vec![0; 16 << 20];
    device.read_at(0, &mut bytes).unwrap();
    let at = bytes.windows(5).position(|window| window == [3, 1, b't', b'w', b'o']).expect("the entry");
    device.write_at(at as u64 + 2, b"one").unwrap();
    for (options, times, errors) in [(OpenOptions::read_only(), 1, 1), (OpenOptions::default(), 1, 0)] {
        let fs = Ext2::open(device.clone(), &options).unwrap();
        let found: Vec<_> = fs.walk("/").unwrap().collect();
        let given = found.iter().flatten().filter(|found| found.path == b"/one").count();
        assert_eq!(
            (given, found.iter().filter(|found| found.is_err()).count()),
            (times, errors),
            "{found:?}"
        );
    }
}

/// As an error ends it with `errors=remount-ro`, or a close.
#[test]
fn a_walk_that_outlives_writing_gives_no_file_by_a_number_that_was_listed_before() {
    let ends: [fn(&Ext2); 2] = [Ext2::shut_down, |fs| drop(fs.clone().close())];
    for end in ends {
        let fs = empty();
        fs.write("a", "a").unwrap();
        fs.write("x", "what x has").unwrap();
        let mut walk = fs.walk("/").unwrap();
        assert_eq!(walk.by_ref().take(2).map(|found| found.unwrap().path).last().unwrap(), b"/a");
        let old = fs.resolve("x", ext2_core::Follow::No).unwrap().nr();
        fs.remove_file("x").unwrap();
        fs.write("y", "what y has").unwrap();
        assert_eq!(fs.resolve("y", ext2_core::Follow::No).unwrap().nr(), old, "the number is given again");
        end(&fs);
        let paths: Vec<_> = walk.map(|found| found.unwrap().path).collect();
        assert_eq!(paths, [b"/lost+found"]);
    }
}

#[test]
fn a_directory_that_was_moved_before_writing_ended_is_no_fault_of_a_walk() {
    let fs = empty();
    fs.create_dir_all("a/d").unwrap();
    fs.create_dir("z").unwrap();
    let mut walk = fs.walk("/").unwrap();
    assert_eq!(walk.by_ref().take(3).map(|found| found.unwrap().path).last().unwrap(), b"/a/d");
    fs.rename_path("a/d", "z/e").unwrap();
    fs.shut_down();
    let paths: Vec<_> = walk.map(|found| found.unwrap().path).collect();
    assert_eq!(paths, [&b"/lost+found"[..], b"/z"]);
}
