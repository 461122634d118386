//! Each operation through the mount, by system calls.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use e2dax_tests::Rng;
use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use e2dax_tests::need_tools;

use crate::common::{Image, need_fuse, run};

fn file(path: &std::path::Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

#[test]
fn names_are_made_linked_renamed_and_removed() {
    need_fuse!();
    let image = Image::new(&[], "32M");
    let mount = image.mount("");
    fs::write(mount.join("a"), "one").unwrap();
    fs::create_dir_all(mount.join("d/e")).unwrap();
    fs::hard_link(mount.join("a"), mount.join("d/b")).unwrap();
    assert_eq!(fs::metadata(mount.join("a")).unwrap().nlink(), 2);
    symlink("a", mount.join("l")).unwrap();
    symlink("x".repeat(1000), mount.join("long")).unwrap();
    assert_eq!(fs::read(mount.join("l")).unwrap(), b"one");
    assert_eq!(fs::read_link(mount.join("long")).unwrap().as_os_str().len(), 1000);
    for (kind, name) in
        [(FileType::Fifo, "fifo"), (FileType::Socket, "socket"), (FileType::RegularFile, "node")]
    {
        rustix::fs::mknodat(CWD, mount.join(name), kind, Mode::from_raw_mode(0o600), 0).unwrap();
    }
    let device = rustix::fs::makedev(259, 70_000);
    rustix::fs::mknodat(CWD, mount.join("device"), FileType::BlockDevice, Mode::from_raw_mode(0o600), device)
        .unwrap();
    assert_eq!(fs::metadata(mount.join("device")).unwrap().rdev(), device);

    fs::write(mount.join("c"), "two").unwrap();
    let rename = |from: &str, to: &str, flags| {
        rustix::fs::renameat_with(CWD, mount.join(from), CWD, mount.join(to), flags)
    };
    assert_eq!(rename("a", "c", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename("a", "c", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(mount.join("c")).unwrap(), b"one");
    rename("a", "c", RenameFlags::empty()).unwrap();
    assert_eq!(fs::read(mount.join("c")).unwrap(), b"two");
    rename("d/e", "e", RenameFlags::empty()).unwrap();
    assert_eq!(fs::metadata(mount.join("d")).unwrap().nlink(), 2);
    assert!(fs::remove_dir(mount.join("d")).is_err(), "it is not empty");
    fs::remove_file(mount.join("d/b")).unwrap();
    fs::remove_dir(mount.join("d")).unwrap();
    assert!(!mount.join("d").exists() && !mount.join("a").exists());
    mount.unmount();
    image.check();
    let mount = image.mount("ro");
    let names: BTreeSet<String> = run("ls", &["-A"], mount.dir()).lines().map(String::from).collect();
    let expected = ["c", "device", "e", "fifo", "l", "long", "lost+found", "node", "socket"];
    assert_eq!(names, expected.map(String::from).into());
}

#[test]
fn contents_holes_and_copies_are_what_was_written() {
    need_fuse!();
    let image = Image::new(&["-b", "4096"], "64M");
    let mount = image.mount("");
    let mut data = file(&mount.join("data"));
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    data.write_all(&bytes).unwrap();
    data.write_all_at(b"far", 20 << 20).unwrap();
    assert_eq!(data.metadata().unwrap().len(), (20 << 20) + 3);
    // Written and still open: the kernel alone may have these pages.
    let data_at = |file: &File, at| rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at));
    let hole_at = |file: &File, at| rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(at));
    let end = 3_000_000u64.next_multiple_of(4096);
    assert_eq!((data_at(&data, 0), hole_at(&data, 0)), (Ok(0), Ok(end)));
    assert_eq!((data_at(&data, end), hole_at(&data, 20 << 20)), (Ok(20 << 20), Ok((20 << 20) + 3)));
    assert_eq!(data_at(&data, 21 << 20), Err(Errno::NXIO));

    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&data, punch, 4096, 8192).unwrap();
    assert_eq!((hole_at(&data, 0), data_at(&data, 4096)), (Ok(4096), Ok(12288)));
    assert_eq!(rustix::fs::fallocate(&data, FallocateFlags::empty(), 0, 1 << 20), Err(Errno::OPNOTSUPP));

    let copy = file(&mount.join("copy"));
    let (mut from, mut to, mut left) = (0, 5000, 1_000_000);
    while left > 0 {
        let done = rustix::fs::copy_file_range(&data, Some(&mut from), &copy, Some(&mut to), left).unwrap();
        assert!(done > 0);
        left -= done;
    }
    let mut expected = bytes[..1_000_000].to_vec();
    expected[4096..12288].fill(0);
    let mut copied = Vec::new();
    File::open(mount.join("copy")).unwrap().read_to_end(&mut copied).unwrap();
    assert!(copied[..5000].iter().all(|byte| *byte == 0) && copied[5000..] == expected);

    data.set_len(100_001).unwrap();
    data.set_len(200_000).unwrap();
    data.seek(SeekFrom::Start(0)).unwrap();
    let mut cut = Vec::new();
    data.read_to_end(&mut cut).unwrap();
    assert!(cut[..100_001] == expected[..100_001] && cut[100_001..].iter().all(|byte| *byte == 0));
    data.sync_all().unwrap();

    let direct = OpenOptions::new().read(true).custom_flags(0o40000).open(mount.join("copy")).unwrap();
    let mut block = vec![0; 4096];
    direct.read_exact_at(&mut block, 8192).unwrap();
    assert_eq!(block, expected[3192..7288]);

    fs::remove_file(mount.join("data")).unwrap();
    data.write_all_at(b"still here", 0).unwrap();
    let mut still = [0; 10];
    data.read_exact_at(&mut still, 0).unwrap();
    assert_eq!(&still, b"still here");
    drop((data, direct, copy));
    mount.unmount();
    image.check();
}

#[test]
fn files_without_a_name_are_there_until_closed_or_linked() {
    need_fuse!();
    for options in ["", "writeback_cache", "direct_io"] {
        let image = Image::new(&["-b", "1024"], "8M");
        let mount = image.mount(options);
        let space = || rustix::fs::statvfs(mount.dir()).unwrap();
        let before = (space().f_bfree, space().f_ffree);
        let unnamed = |flags| {
            let flags = OFlags::TMPFILE | OFlags::RDWR | flags;
            File::from(rustix::fs::open(mount.dir(), flags, Mode::from_raw_mode(0o640)).unwrap())
        };
        let link = |file: &File, name: &str| {
            let from = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(CWD, from, CWD, mount.join(name), AtFlags::SYMLINK_FOLLOW)
        };
        let mut lost = unnamed(OFlags::empty());
        lost.write_all(&[1; 100_000]).unwrap();
        lost.sync_all().unwrap();
        assert_eq!(lost.metadata().unwrap().nlink(), 0);
        assert!(space().f_bfree < before.0 && space().f_ffree == before.1 - 1);
        let kept = unnamed(OFlags::empty());
        kept.write_all_at(b"kept", 0).unwrap();
        link(&kept, "kept").unwrap();
        assert_eq!(kept.metadata().unwrap().nlink(), 1);
        let private = unnamed(OFlags::EXCL);
        assert_eq!(link(&private, "private"), Err(Errno::NOENT));
        drop((lost, kept, private));
        assert_eq!(fs::read(mount.join("kept")).unwrap(), b"kept");
        assert_eq!(fs::metadata(mount.join("kept")).unwrap().mode() & 0o777, 0o640);
        // The inode goes when the kernel forgets it, soon after the file is closed.
        let begin = Instant::now();
        while space().f_ffree != before.1 - 1 && begin.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(space().f_ffree, before.1 - 1);
        mount.unmount();
        image.check();
    }
}

#[test]
fn the_time_of_birth_is_told_and_stays() {
    need_fuse!();
    let image = Image::new(&["-I", "256"], "8M");
    let mount = image.mount("");
    let begin = SystemTime::now() - Duration::from_millis(20);
    let path = mount.join("f");
    fs::write(&path, "x").unwrap();
    let born = fs::metadata(&path).unwrap().created().unwrap();
    assert!(begin < born && born <= SystemTime::now());
    std::thread::sleep(Duration::from_millis(20));
    fs::write(&path, "changed").unwrap();
    let found = fs::metadata(&path).unwrap();
    assert!(found.created().unwrap() == born && found.modified().unwrap() > born);
    mount.unmount();
    let mount = image.mount("ro");
    assert_eq!(fs::metadata(mount.join("f")).unwrap().created().unwrap(), born);
    mount.unmount();
    let old = Image::new(&["-I", "128"], "8M");
    let mount = old.mount("");
    assert!(fs::metadata(mount.dir()).unwrap().created().is_err(), "its inodes have no room for it");
    mount.unmount();
}

#[test]
fn attributes_follow_posix() {
    need_fuse!();
    let image = Image::new(&["-I", "256"], "32M");
    let mount = image.mount("");
    let path = mount.join("f");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o6755);
    std::os::unix::fs::chown(&path, Some(3), Some(4)).unwrap();
    let found = fs::metadata(&path).unwrap();
    assert_eq!(
        (found.uid(), found.gid(), found.mode() & 0o7777),
        (3, 4, 0o755),
        "a chown takes the set-id bits"
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    std::os::unix::fs::chown(&path, None, None).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755, "also one that changes nothing");

    for offset in [-1.5, 0.25, 5e9] {
        let apart = Duration::from_secs_f64(f64::abs(offset));
        let time = if offset < 0.0 { SystemTime::UNIX_EPOCH - apart } else { SystemTime::UNIX_EPOCH + apart };
        let times = fs::FileTimes::new().set_accessed(time).set_modified(time);
        File::open(&path).unwrap().set_times(times).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.accessed().unwrap(), found.modified().unwrap()), (time, time), "{offset}");
    }

    rustix::fs::setxattr(&path, "user.colour", b"red", XattrFlags::CREATE).unwrap();
    assert_eq!(rustix::fs::setxattr(&path, "user.colour", b"", XattrFlags::CREATE), Err(Errno::EXIST));
    let mut value = [0; 16];
    assert_eq!(rustix::fs::getxattr(&path, "user.colour", &mut value), Ok(3));
    assert_eq!(rustix::fs::getxattr(&path, "user.colour", &mut value[..2]), Err(Errno::RANGE));
    assert_eq!(rustix::fs::listxattr(&path, &mut value), Ok(12));
    rustix::fs::removexattr(&path, "user.colour").unwrap();
    assert_eq!(rustix::fs::getxattr(&path, "user.colour", &mut value), Err(Errno::NODATA));

    let space = rustix::fs::statvfs(mount.dir()).unwrap();
    assert!(space.f_bfree < space.f_blocks && space.f_namemax == 255 && space.f_ffree > 0);
    let flags = File::open(&path).unwrap();
    rustix::fs::ioctl_setflags(&flags, rustix::fs::IFlags::IMMUTABLE).unwrap();
    assert!(rustix::fs::ioctl_getflags(&flags).unwrap().contains(rustix::fs::IFlags::IMMUTABLE));
    let error = OpenOptions::new().write(true).open(&path).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::PERM.raw_os_error()));
    rustix::fs::ioctl_setflags(&flags, rustix::fs::IFlags::APPEND).unwrap();
    let mut log = OpenOptions::new().append(true).open(&path).unwrap();
    log.write_all(b"yz").unwrap();
    drop(log);
    rustix::fs::ioctl_setflags(&flags, rustix::fs::IFlags::empty()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"xyz");
    drop(flags);
    mount.unmount();
    image.check();
}

#[test]
fn reading_changes_access_times_as_relatime_says() {
    need_fuse!();
    let image = Image::new(&["-I", "256"], "32M");
    for (options, updates) in [("", true), ("noatime", false), ("ro", false)] {
        if options.is_empty() {
            let mount = image.mount("");
            fs::write(mount.join("f"), "text").unwrap();
            mount.unmount();
        }
        let mount = image.mount(options);
        let atime = || fs::metadata(mount.join("f")).unwrap().accessed().unwrap();
        let before = atime();
        if options != "ro" {
            let file = OpenOptions::new().append(true).open(mount.join("f")).unwrap();
            (&file).write_all(b"more").unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
        fs::read(mount.join("f")).unwrap();
        let first = atime();
        assert_eq!(
            first > before,
            updates,
            "{options}: older than the contents, although the kernel has them"
        );
        std::thread::sleep(Duration::from_millis(20));
        fs::read(mount.join("f")).unwrap();
        assert_eq!(atime(), first, "{options}: newer than the contents");
        mount.unmount();
    }
    image.check();
}

#[test]
fn who_asks_for_it_reads_without_a_trace() {
    need_fuse!();
    let image = Image::new(&["-I", "256"], "32M");
    let mount = image.mount("strictatime");
    fs::create_dir(mount.join("d")).unwrap();
    let old = std::time::UNIX_EPOCH + Duration::from_secs(77);
    // Copied, and spliced.
    for (name, len) in [("d", 0), ("small", 100), ("large", 300_000)] {
        let path = mount.join(name);
        if len > 0 {
            fs::write(&path, vec![1; len]).unwrap();
        }
        File::open(&path).unwrap().set_times(FileTimes::new().set_accessed(old)).unwrap();
        for (flag, kept) in [(OFlags::NOATIME, true), (OFlags::empty(), false)] {
            let file = rustix::fs::open(&path, OFlags::RDONLY | flag, Mode::empty()).unwrap();
            if len > 0 {
                assert_eq!(std::io::copy(&mut File::from(file), &mut std::io::sink()).unwrap(), len as u64);
            } else {
                assert!(rustix::fs::Dir::read_from(&file).unwrap().count() >= 2);
            }
            let atime = fs::metadata(&path).unwrap().accessed().unwrap();
            assert_eq!(atime == old, kept, "{name} {flag:?}");
        }
    }
    mount.unmount();
    image.check();
}

/// Bytes of the units that the next test writes, and how many of them it reads at once now and then.
const UNIT: usize = 4096;
const MANY: usize = 16;

#[test]
fn who_reads_here_and_there_never_sees_what_was_overwritten_before() {
    need_fuse!();
    for options in ["", "writeback_cache", "direct_io"] {
        let image = Image::new(&["-b", "4096"], "32M");
        let mount = image.mount(options);
        let path = mount.join("f");
        const UNITS: usize = 1536;
        fs::write(&path, vec![0; UNITS * UNIT]).unwrap();
        // What each unit was last written with: no reader may see less from then on.
        let written: Vec<AtomicU64> = (0..UNITS).map(|_| AtomicU64::new(0)).collect();
        // Odd while the file is cut and made longer again.
        let cuts = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for seed in 0..2 {
                let (path, written, cuts, stop) = (&path, &written, &cuts, &stop);
                scope.spawn(move || {
                    let (file, mut rng) = (File::open(path).unwrap(), Rng::new(seed));
                    let mut units = vec![0; MANY * UNIT];
                    for n in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        if n % 300 == 0 {
                            // The kernel drops what it has, and asks again.
                            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
                        }
                        let units = if n % 4 == 0 { &mut units[..] } else { &mut units[..UNIT] };
                        let at = usize::try_from(rng.below((UNITS - MANY) as u64)).unwrap();
                        let cut = cuts.load(Ordering::SeqCst);
                        let least: Vec<u64> =
                            written[at..at + MANY].iter().map(|unit| unit.load(Ordering::SeqCst)).collect();
                        let read = file.read_exact_at(units, (at * UNIT) as u64);
                        if cut % 2 == 1 || cut != cuts.load(Ordering::SeqCst) {
                            continue;
                        }
                        read.unwrap();
                        for (unit, least) in units.chunks(UNIT).zip(least) {
                            let words =
                                unit.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
                            let found = words.clone().next().unwrap();
                            assert!(words.clone().all(|word| word >= least), "{options}");
                            // One unit that is as it was is so in whole.
                            assert!(n % 4 == 0 || words.clone().all(|word| word == found) || found > least);
                        }
                    }
                });
            }
            let mut rng = Rng::new(7);
            let end = Instant::now() + Duration::from_secs(2);
            let mut round = 0u64;
            while Instant::now() < end {
                round += 1;
                if round.is_multiple_of(16) {
                    let left = usize::try_from(rng.below(UNITS as u64)).unwrap();
                    cuts.fetch_add(1, Ordering::SeqCst);
                    written[left..].iter().for_each(|unit| unit.store(0, Ordering::SeqCst));
                    let file = OpenOptions::new().write(true).open(&path).unwrap();
                    file.set_len((left * UNIT) as u64).unwrap();
                    file.set_len((UNITS * UNIT) as u64).unwrap();
                    cuts.fetch_add(1, Ordering::SeqCst);
                }
                let file = OpenOptions::new().write(true).open(&path).unwrap();
                for _ in 0..4 {
                    let at = usize::try_from(rng.below(UNITS as u64)).unwrap();
                    file.write_all_at(&round.to_le_bytes().repeat(UNIT / 8), (at * UNIT) as u64).unwrap();
                    written[at].store(round, Ordering::SeqCst);
                }
                drop(file);
                std::thread::sleep(Duration::from_millis(rng.below(4)));
            }
            stop.store(true, Ordering::Relaxed);
        });
        mount.unmount();
        image.check();
        let mount = image.mount("ro");
        let file = fs::read(mount.join("f")).unwrap();
        assert_eq!(file.len(), UNITS * UNIT);
        for (at, unit) in file.chunks(UNIT).enumerate() {
            let last = written[at].load(Ordering::SeqCst).to_le_bytes();
            assert!(unit.chunks(8).all(|word| word == last), "unit {at}");
        }
        mount.unmount();
    }
}

#[test]
fn a_listing_sees_what_stays_once_while_names_come_and_go() {
    need_fuse!();
    let image = Image::new(&["-b", "1024", "-N", "8000"], "64M");
    let mount = image.mount("");
    let dir = mount.join("d");
    fs::create_dir(&dir).unwrap();
    for n in 0..2000 {
        File::create(dir.join(format!("stays-{n:04}"))).unwrap();
        File::create(dir.join(format!("goes-{n:04}"))).unwrap();
    }
    let mut seen = Vec::new();
    for (n, entry) in fs::read_dir(&dir).unwrap().enumerate() {
        seen.push(entry.unwrap().file_name().into_string().unwrap());
        if n < 2000 {
            fs::remove_file(dir.join(format!("goes-{n:04}"))).unwrap();
            File::create(dir.join(format!("comes-{n:04}"))).unwrap();
        }
    }
    let stays: Vec<&String> = seen.iter().filter(|name| name.starts_with("stays")).collect();
    assert_eq!(stays.len(), 2000);
    assert_eq!(stays.iter().collect::<BTreeSet<_>>().len(), 2000);
    fs::remove_dir_all(&dir).unwrap();
    mount.unmount();
    image.check();
}

#[test]
fn an_append_only_file_grows_and_is_touched_and_nothing_else() {
    need_fuse!();
    need_tools!("chattr", "touch");
    let image = Image::new(&[], "32M");
    let mount = image.mount("");
    fs::write(mount.join("log"), "one ").unwrap();
    // So that nothing is known of the file.
    drop(mount);
    let mount = image.mount("");
    let path = mount.join("log");
    run("chattr", &["+a", "log"], mount.dir());
    let mut log = OpenOptions::new().append(true).open(&path).unwrap();
    log.write_all(b"two").unwrap();
    log.sync_all().unwrap();
    drop(log);
    run("touch", &["log"], mount.dir());
    assert_eq!(fs::read(&path).unwrap(), b"one two");
    let back = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 1000, tv_nsec: 0 },
        last_modification: rustix::fs::Timespec { tv_sec: 1000, tv_nsec: 0 },
    };
    assert_eq!(rustix::fs::utimensat(CWD, &path, &back, AtFlags::empty()), Err(Errno::PERM));
    let start = OpenOptions::new().write(true).open(&path).and_then(|file| file.write_at(b"X", 0));
    assert_eq!(start.unwrap_err().raw_os_error(), Some(Errno::PERM.raw_os_error()));
    run("chattr", &["-a", "log"], mount.dir());
}
