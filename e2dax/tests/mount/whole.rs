//! What is asked of a mount as a whole: its label, room that is given back, an end as if the power went.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2dax_tests::{need_tools, tools};
use rustix::fs::{AtFlags, CWD, FileType, RenameFlags};
use rustix::io::Errno;

use crate::common::{Image, Mount, need_fuse, run};

/// The requests, as programs make them: each prints what it was answered. `as_user` makes one as somebody who is not root.
const REQUESTS: &str = "
import errno, fcntl, os, struct, sys
def ask(request, data):
    try: return fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), request, data)
    except OSError as error: return errno.errorcode[error.errno]
def text(answer): return answer if isinstance(answer, str) else answer.split(b'\\0')[0].decode()
def get(): return text(ask(0x81009431, bytes(256)))
def put(name):
    answer = ask(0x41009432, name.encode().ljust(256, b'\\0'))
    return 'refused' if isinstance(answer, str) else get()
def trim(start=0, length=2**64 - 1, least=0):
    answer = ask(0xc0185879, struct.pack('3Q', start, length, least))
    return answer if isinstance(answer, str) else struct.unpack('3Q', answer)[1]
def shutdown(): return text(ask(0x8004587d, bytes(4)))
def as_user(work):
    if not (child := os.fork()):
        os.setuid(4321)
        print(work(), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
";

/// Makes requests of a mount; gives what was printed.
fn ask(mount: &Mount, script: &str) -> String {
    let dir = mount.dir().to_str().unwrap();
    run("python3", &["-c", &format!("{REQUESTS}{script}"), dir], Path::new("/"))
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<Errno> {
    Errno::from_io_error(&result.unwrap_err())
}

#[test]
fn a_label_is_changed_while_the_image_is_mounted_and_stays() {
    need_fuse!();
    need_tools!("python3", "e2label");
    let image = Image::new(&["-L", "before"], "4M");
    let path = image.path.to_str().unwrap();
    let on_disk = || run("e2label", &[path], Path::new("/")).trim().to_owned();
    for options in ["allow_other", "allow_other,durability=strict"] {
        let mount = image.mount(options);
        fs::set_permissions(mount.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let said = ask(
            &mount,
            "print(get(), put('seventeen letters'), put(''), '|', put('sixteen letters!'))
as_user(lambda: put('mine'))
print(get())",
        );
        assert_eq!(said.lines().nth(1), Some("refused"));
        assert!(
            said.ends_with("refused  | sixteen letters!\nrefused\nsixteen letters!\n"),
            "{options}: {said}"
        );
        assert_eq!(on_disk(), "sixteen letters!", "who looks at the image sees it");
        ask(&mount, "put('before')");
        mount.unmount();
        assert_eq!(on_disk(), "before");
        image.check();
    }
    let mount = image.mount("ro");
    assert_eq!(ask(&mount, "print(get(), put('x'))"), "before refused\n");
    mount.unmount();
}

#[test]
fn blocks_that_are_free_are_given_back_to_the_host_and_taken_again() {
    need_fuse!();
    need_tools!("python3");
    const MIB: u64 = 1 << 20;
    for (options, whole) in
        [("", false), ("", true), ("durability=strict", false), ("durability=relaxed", true)]
    {
        let image = Image::new(&["-b", "4096"], "64M");
        if whole {
            // Every block of the file has its room before it is mounted.
            let file = OpenOptions::new().write(true).open(&image.path).unwrap();
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 64 * MIB).unwrap();
        }
        let room = || fs::metadata(&image.path).unwrap().blocks() * 512;
        let mount = image.mount(&format!("allow_other,{options}"));
        // Each block says whose it is, and which.
        let bytes = |file: u8| -> Vec<u8> {
            let mut bytes = vec![file; MIB as usize];
            for (n, block) in bytes.chunks_mut(4096).enumerate() {
                block[0] = n as u8;
            }
            bytes
        };
        for n in 0..30 {
            fs::write(mount.join(&format!("f{n}")), bytes(n)).unwrap();
        }
        File::open(mount.join("f0")).unwrap().sync_all().unwrap();
        let full = room();
        assert!(full > 30 * MIB);
        let space = || rustix::fs::statvfs(mount.dir()).unwrap().f_bfree * 4096;
        let before = space();
        for n in (0..30).filter(|n| n % 3 != 0) {
            fs::remove_file(mount.join(&format!("f{n}"))).unwrap();
        }
        // The kernel lets go of removed files a moment later.
        let begin = Instant::now();
        while space() < before + 20 * MIB && begin.elapsed() < Duration::from_secs(30) {
            thread::yield_now();
        }
        let free = space();
        let trimmed: u64 = ask(&mount, "print(trim())").trim().parse().unwrap();
        assert!(trimmed > 20 * MIB && trimmed <= free, "{options}: {trimmed} of {free}");
        assert!(room() < full - 16 * MIB, "{options}: {} of {full} are left", room());
        for n in (0..30).step_by(3) {
            assert!(fs::read(mount.join(&format!("f{n}"))).unwrap() == bytes(n), "{options}: f{n}");
        }
        // Once more, in what was given back.
        for n in 30..55 {
            fs::write(mount.join(&format!("f{n}")), bytes(n)).unwrap();
        }
        mount.unmount();
        image.check();
        let mount = image.mount("ro");
        for n in (0..30).step_by(3).chain(30..55) {
            assert!(fs::read(mount.join(&format!("f{n}"))).unwrap() == bytes(n), "{options}: f{n}");
        }
        mount.unmount();
    }
}

#[test]
fn a_range_to_give_back_is_understood_as_the_kernels_ext2_does() {
    need_fuse!();
    need_tools!("python3");
    let image = Image::new(&["-b", "1024"], "4M");
    let mount = image.mount("allow_other");
    fs::set_permissions(mount.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let said = ask(
        &mount,
        "print(trim(4 << 20), trim(2**64 - 1, 2**64 - 1), trim(0, 0), trim(0, 1023), trim(0, 2**64 - 1, 9 << 20))
print(0 < trim() < 4 << 20, trim(2 << 20, 4096), trim(2 << 20, 5000, 8192), trim(3 << 20, 2**64 - 1))
as_user(trim)",
    );
    let invalid = ["EINVAL"; 5].join(" ");
    assert_eq!(said, format!("{invalid}\nTrue 4096 0 1048576\nEPERM\n"));
    mount.unmount();
    image.check();
    let mount = image.mount("ro");
    assert_eq!(ask(&mount, "print(trim())"), "EROFS\n");
    mount.unmount();
}

#[test]
fn root_of_a_container_asks_nothing_of_a_mount_that_is_not_its_own() {
    need_fuse!();
    need_tools!("python3", "setpriv", "unshare", "setfattr");
    let image = Image::new(&["-b", "1024", "-L", "mine"], "8M");
    let mount = image.mount("allow_other");
    let dir = mount.dir().to_str().unwrap();
    run("setfattr", &["-n", "trusted.secret", "-v", "x", dir], Path::new("/"));
    let script = format!("{REQUESTS}print(put('theirs'), trim(), shutdown(), os.listxattr(sys.argv[1]))");
    // As container engines start root, and in a namespace of users of its own, where it has every capability.
    for inside in ["setpriv --bounding-set -sys_admin", "unshare --user --map-root-user"] {
        let mut words: Vec<&str> = inside.split(' ').collect();
        words.extend(["python3", "-c", &script, dir]);
        let said = run(words.remove(0), &words, Path::new("/"));
        assert_eq!(said, "refused EPERM EPERM []\n", "{inside}");
    }
    let said = ask(&mount, "print(get(), trim() > 0, os.listxattr(sys.argv[1]))");
    assert_eq!(said, "mine True ['trusted.secret']\n");
    mount.unmount();
    image.check();
}

#[test]
fn what_was_durable_is_there_after_a_shutdown_and_nothing_is_changed_after_it() {
    need_fuse!();
    need_tools!("python3");
    for options in ["", "durability=strict", "direct_io", "writeback_cache", "sync"] {
        let image = Image::new(&["-b", "4096", "-I", "256"], "16M");
        let mount = image.mount(options);
        let open = |name: &str| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(mount.join(name))
                .unwrap()
        };
        // With the fsync of another file. (Of syncfs the kernel tells nothing.)
        fs::write(mount.join("by-another"), "synced").unwrap();
        let file = open("by-fsync");
        (&file).write_all(b"synced").unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(77)).unwrap();
        file.sync_all().unwrap();
        let flags = i32::try_from((rustix::fs::OFlags::DSYNC).bits()).unwrap();
        let mut by_flag = OpenOptions::new();
        by_flag
            .write(true)
            .create(true)
            .custom_flags(flags)
            .open(mount.join("by-flag"))
            .unwrap()
            .write_all(b"synced")
            .unwrap();
        // A copy that the kernel leaves to us; a mount that is `sync` needs no flag.
        let by_copy = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(if options == "sync" { 0 } else { flags })
            .open(mount.join("by-copy"))
            .unwrap();
        assert_eq!(rustix::fs::copy_file_range(&file, Some(&mut 0), &by_copy, None, 6), Ok(6));
        assert_eq!(ask(&mount, "print(shutdown())"), "\n");
        let io = Some(Errno::IO);
        assert_eq!(errno(File::create(mount.join("new"))), io, "{options}");
        assert_eq!(errno(fs::create_dir(mount.join("new"))), io);
        assert_eq!(errno(fs::remove_file(mount.join("by-flag"))), io);
        assert_eq!(errno(fs::rename(mount.join("by-flag"), mount.join("new"))), io);
        // One that gathers writes takes this, and tells at the fsync.
        if file.write_at(b"more", 100).is_ok() {
            assert_eq!(options, "writeback_cache");
        }
        assert_eq!(errno(file.sync_all()), io, "{options}");
        assert_eq!(errno(file.set_len(1)), io);
        drop((file, by_copy));
        mount.unmount();
        // It says that it was not closed, and is mended by the next mount; for reading only it is as it is.
        let mut free = Vec::new();
        for options in ["ro", "", ""] {
            let mount = image.mount(options);
            for name in ["by-another", "by-fsync", "by-flag", "by-copy"] {
                assert_eq!(fs::read(mount.join(name)).unwrap(), b"synced", "{options}: {name}");
            }
            assert_eq!(fs::metadata(mount.join("by-fsync")).unwrap().mtime(), 77);
            free.push(rustix::fs::statvfs(mount.dir()).unwrap().f_bfree);
            mount.unmount();
        }
        assert_eq!(free[1], free[2], "{options}: as many blocks are free once it is mended");
        image.check();
    }
}

#[test]
fn a_shutdown_under_load_fails_what_is_under_way_and_leaves_an_image_that_is_mended() {
    need_fuse!();
    need_tools!("python3");
    for options in ["", "durability=relaxed"] {
        let image = Image::new(&["-b", "1024"], "32M");
        let mount = image.mount(options);
        let done = AtomicUsize::new(0);
        thread::scope(|scope| {
            for n in 0..3 {
                let (dir, done) = (mount.join(&format!("d{n}")), &done);
                fs::create_dir(&dir).unwrap();
                scope.spawn(move || {
                    for k in 0.. {
                        let work = || -> std::io::Result<()> {
                            let mut file = File::create(dir.join(format!("f{}", k % 40)))?;
                            file.write_all(&vec![7; 1 + k * 997 % 40_000])?;
                            drop(file);
                            fs::rename(dir.join(format!("f{}", k % 40)), dir.join(format!("g{}", k % 7)))
                        };
                        if let Err(error) = work() {
                            assert_eq!(Errno::from_io_error(&error), Some(Errno::IO), "{options}");
                            return;
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let begin = Instant::now();
            while done.load(Ordering::Relaxed) < 150 && begin.elapsed() < Duration::from_secs(30) {
                thread::yield_now();
            }
            assert_eq!(ask(&mount, "print(shutdown())"), "\n");
        });
        mount.unmount();
        tools::e2fsck_p(&image.path).unwrap_or_else(|error| panic!("{options}: {error}"));
        image.check();
    }
}

#[test]
fn a_name_that_moves_away_leaves_a_whiteout_if_that_is_asked_for() {
    need_fuse!();
    let image = Image::new(&["-b", "1024"], "4M");
    let mount = image.mount("");
    let rename = |from: &str, to: &str, flags| {
        rustix::fs::renameat_with(CWD, mount.join(from), CWD, mount.join(to), flags)
    };
    let is_whiteout = |name: &str| {
        let found = rustix::fs::statat(CWD, mount.join(name), AtFlags::SYMLINK_NOFOLLOW).unwrap();
        FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == 0
    };
    fs::write(mount.join("a"), "a").unwrap();
    fs::write(mount.join("b"), "b").unwrap();
    fs::create_dir(mount.join("d")).unwrap();
    rename("a", "new", RenameFlags::WHITEOUT).unwrap();
    assert!(is_whiteout("a") && fs::read(mount.join("new")).unwrap() == b"a");
    rename("new", "d/b", RenameFlags::WHITEOUT).unwrap();
    assert!(is_whiteout("new") && fs::read(mount.join("d/b")).unwrap() == b"a");
    rename("b", "d/b", RenameFlags::WHITEOUT).unwrap();
    assert!(is_whiteout("b") && fs::read(mount.join("d/b")).unwrap() == b"b");
    // One moves like any other, and over any other.
    rename("b", "d/b", RenameFlags::empty()).unwrap();
    assert!(is_whiteout("d/b"));
    assert_eq!(rename("d/b", "a", RenameFlags::WHITEOUT | RenameFlags::NOREPLACE), Err(Errno::EXIST));
    assert_eq!(rename("d/b", "a", RenameFlags::WHITEOUT | RenameFlags::EXCHANGE), Err(Errno::INVAL));
    assert_eq!(rename("none", "a", RenameFlags::WHITEOUT), Err(Errno::NOENT));
    let mut names: Vec<_> =
        fs::read_dir(mount.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a", "d", "lost+found", "new"], "nothing else is left behind");
    mount.unmount();
    image.check();
}
