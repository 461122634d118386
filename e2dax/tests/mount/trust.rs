//! What programs and users trust a mount with: that a stale mode gives nobody anything, that a write which was taken is
//! kept, that what root keeps for itself stays, and that what is broken is told.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use e2dax_tests::{need_tools, tools};
use rustix::io::Errno;

use crate::common::{Image, Mount, e2dax, need_fuse, run};

/// Somebody who is not root.
const USER: u32 = 4321;

/// Runs a script as somebody who is not root; gives what it printed.
fn as_user(script: &str, dir: &Path) -> String {
    let user = USER.to_string();
    let output = tools::command("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups", "sh", "-ec", script])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {}", tools::words(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn open_to_all(mount: &Mount) {
    fs::set_permissions(mount.dir(), fs::Permissions::from_mode(0o777)).unwrap();
}

/// Ways in which a user changes the last bytes of a program that everybody may write.
const CHANGES: [(&str, &str); 8] = [
    ("append", "printf x >>f"),
    ("write over", "printf x | dd of=f bs=1 seek=$(($(stat -c %s f) - 5)) conv=notrunc 2>/dev/null"),
    (
        "past the cache",
        "dd if=/dev/zero of=f bs=4096 count=1 seek=$(($(stat -c %s f) / 4096 - 1)) oflag=direct conv=notrunc 2>/dev/null",
    ),
    ("punch", "fallocate -p -o $(($(stat -c %s f) - 6000)) -l 5000 f"),
    ("zero", "fallocate -z -n -o $(($(stat -c %s f) - 6000)) -l 5000 f"),
    ("truncate", "truncate -s -3 f"),
    ("lengthen", "truncate -s +3 f"),
    (
        "copy",
        "python3 -c '
import os
a, b = os.open(\"other\", os.O_RDONLY), os.open(\"f\", os.O_RDWR)
os.copy_file_range(a, b, 100, 0, os.fstat(b).st_size - 200)'",
    ),
];

#[test]
fn a_program_that_somebody_else_changed_runs_without_the_owners_rights() {
    need_fuse!();
    need_tools!("dd", "fallocate", "truncate", "python3", "id", "setpriv");
    let program = fs::read("/usr/bin/id").unwrap();
    for options in ["", "direct_io", "writeback_cache", "durability=relaxed"] {
        for mode in [0o4777, 0o6777] {
            let image = Image::new(&["-b", "4096"], "8M");
            let mount = image.mount(&format!("allow_other,{options}"));
            open_to_all(&mount);
            fs::write(mount.join("other"), vec![0; 4096]).unwrap();
            for (way, change) in CHANGES {
                // Room behind the program, of whole pages, in which the changes do no harm.
                let mut bytes = program.clone();
                bytes.resize((bytes.len() + 16384) / 4096 * 4096, 0);
                let _ = fs::remove_file(mount.join("f"));
                fs::write(mount.join("f"), &bytes).unwrap();
                fs::set_permissions(mount.join("f"), fs::Permissions::from_mode(mode)).unwrap();
                assert_eq!(as_user("./f -u", mount.dir()), "0", "the bit is in force before");
                as_user(change, mount.dir());
                let said = as_user("./f -u; ./f -g", mount.dir());
                assert_eq!(said, format!("{USER}\n{USER}"), "{options} {mode:o} {way}");
                assert_eq!(fs::metadata(mount.join("f")).unwrap().mode() & 0o7777, 0o777, "{way}");
            }
            mount.unmount();
            image.check();
        }
    }
}

#[test]
fn a_set_group_id_bit_without_group_execute_goes_by_who_is_in_the_group() {
    need_fuse!();
    need_tools!("truncate", "fallocate", "setpriv");
    let image = Image::new(&[], "4M");
    let mount = image.mount("allow_other");
    open_to_all(&mount);
    let path = mount.join("f");
    for (group, left) in [(0, 0o666), (USER, 0o2666)] {
        for change in ["printf x >>f", "truncate -s 2 f", "fallocate -p -o 0 -l 1 f"] {
            let _ = fs::remove_file(&path);
            fs::write(&path, "text").unwrap();
            std::os::unix::fs::chown(&path, Some(0), Some(group)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o2666)).unwrap();
            as_user(change, mount.dir());
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, left, "group {group}: {change}");
        }
    }
    mount.unmount();
    image.check();
}

#[test]
fn a_change_of_attribute_flags_is_seen_in_the_time_of_change() {
    need_fuse!();
    need_tools!("chattr");
    let image = Image::new(&["-I", "256"], "4M");
    let mount = image.mount("");
    let path = mount.join("f");
    fs::write(&path, "text").unwrap();
    let ctime = || fs::metadata(&path).map(|meta| (meta.ctime(), meta.ctime_nsec())).unwrap();
    let before = ctime();
    std::thread::sleep(Duration::from_millis(30));
    run("chattr", &["+d", "f"], mount.dir());
    assert!(ctime() > before);
    mount.unmount();
    image.check();
}

#[test]
fn the_first_read_after_a_write_or_a_birth_sets_the_time_of_access() {
    need_fuse!();
    need_tools!("touch");
    let image = Image::new(&["-I", "256"], "4M");
    let mount = image.mount("");
    let path = mount.join("f");
    let times = || {
        let meta = fs::metadata(&path).unwrap();
        let of = |sec: i64, nsec: i64| (sec, nsec);
        (
            of(meta.atime(), meta.atime_nsec()),
            of(meta.mtime(), meta.mtime_nsec()),
            of(meta.ctime(), meta.ctime_nsec()),
        )
    };
    for _ in 0..5 {
        let _ = fs::remove_file(&path);
        fs::write(&path, "text").unwrap();
        let (atime, ..) = times();
        std::thread::sleep(Duration::from_millis(15));
        assert_eq!(fs::read(&path).unwrap(), b"text");
        assert!(times().0 > atime, "the first read");
        let (atime, ..) = times();
        fs::read(&path).unwrap();
        assert_eq!(times().0, atime, "the second one");
        // A time that the kernel gives is never ahead of ours, nor behind.
        run("touch", &["f"], mount.dir());
        let (_, mtime, _) = times();
        fs::write(&path, "more").unwrap();
        assert!(times().1 >= mtime);
    }
    mount.unmount();
    image.check();
}

#[test]
fn a_full_image_fails_the_write_and_loses_nothing_that_was_taken() {
    need_fuse!();
    need_tools!("python3", "dd", "awk");
    for options in ["", "direct_io", "durability=strict", "durability=relaxed"] {
        let image = Image::new(&["-b", "1024"], "16M");
        let mount = image.mount(options);
        // Writes of all sizes: what was taken is there, and the one that fails says so.
        let mut taken = 0;
        let file = File::create(mount.join("f")).unwrap();
        let error = loop {
            let len = 1 + taken % 70_000;
            match file.write_at(&vec![7; usize::try_from(len).unwrap()], taken) {
                Ok(done) => taken += done as u64,
                Err(error) => break error,
            }
            assert!(taken < 16 << 20, "more was taken than there is room for");
        };
        assert_eq!(Errno::from_io_error(&error), Some(Errno::NOSPC), "{options}");
        file.sync_all().unwrap();
        drop(file);
        let bytes = fs::read(mount.join("f")).unwrap();
        assert!(bytes.len() as u64 == taken && bytes.iter().all(|byte| *byte == 7), "{options}");
        // Programs fail that close without asking. (The first has to fit into no hole.)
        for script in [
            "head -c 20000000 /dev/zero >g",
            "awk 'BEGIN { for (n = 0; n < 300000; n++) print \"a line of some length, to fill an image\" }' >g",
            "dd if=/dev/zero of=g bs=7777 count=3000",
            "python3 -c 'open(\"g\", \"wb\", buffering=0).write(b\"x\" * 1000)'",
        ] {
            let done = tools::command("sh").args(["-c", script]).current_dir(mount.dir()).output().unwrap();
            assert!(!done.status.success(), "{options}: {script}");
        }
        fs::remove_file(mount.join("f")).unwrap();
        fs::write(mount.join("g"), vec![3; 1 << 20]).unwrap();
        assert_eq!(fs::read(mount.join("g")).unwrap(), vec![3; 1 << 20]);
        mount.unmount();
        image.check();
    }
}

#[test]
fn a_write_past_the_largest_file_is_refused_and_not_lost() {
    need_fuse!();
    for block in ["1024", "4096"] {
        let image = Image::new(&["-b", block], "16M");
        let mount = image.mount("");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(mount.join("f")).unwrap();
        for offset in [8 << 40, 1 << 50, i64::MAX as u64 - 10] {
            let error = file.write_at(b"lost?", offset).unwrap_err();
            assert_eq!(Errno::from_io_error(&error), Some(Errno::FBIG), "{offset}");
        }
        file.write_at(b"kept", 1 << 30).unwrap();
        let mut four = [0; 4];
        file.read_exact_at(&mut four, 1 << 30).unwrap();
        assert_eq!(&four, b"kept");
        drop(file);
        mount.unmount();
        image.check();
    }
}

#[test]
fn blocks_that_are_kept_for_root_are_not_taken_by_others() {
    need_fuse!();
    need_tools!("dd", "setpriv");
    let image = Image::new(&["-b", "1024", "-m", "10"], "16M");
    let mount = image.mount("allow_other");
    open_to_all(&mount);
    let space = || rustix::fs::statvfs(mount.dir()).unwrap();
    let kept = space().f_bfree - space().f_bavail;
    assert!(kept > 1000);
    as_user(
        "dd if=/dev/zero of=f bs=64k 2>/dev/null && exit 1
         for n in 1 2 3 4 5 6 7 8 9; do mkdir d$n 2>/dev/null && exit 2; done
         dd if=/dev/zero of=g bs=1k count=1 2>/dev/null && exit 3
         exit 0",
        mount.dir(),
    );
    assert!(space().f_bfree >= kept && space().f_bavail == 0, "{} of {kept}", space().f_bfree);
    // Root takes them.
    fs::write(mount.join("of-root"), vec![1; 500 << 10]).unwrap();
    assert_eq!(fs::read(mount.join("of-root")).unwrap(), vec![1; 500 << 10]);
    mount.unmount();
    image.check();
}

/// The number of the inode of a name in the root.
fn inode_of(image: &Image, name: &str) -> String {
    let image = image.path.to_str().unwrap();
    let words = run("debugfs", &["-R", &format!("stat /{name}"), image], Path::new("/"));
    words.split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn names_whose_inode_cannot_be_read_stay_in_listings() {
    need_fuse!();
    need_tools!("debugfs", "ls");
    let image = Image::new(&[], "4M");
    let mount = image.mount("");
    for name in ["good", "bad", "fine"] {
        fs::write(mount.join(name), name).unwrap();
    }
    mount.unmount();
    let number = inode_of(&image, "bad");
    // A kind that there is not.
    let script = format!("set_inode_field <{number}> mode 0170644");
    run("debugfs", &["-w", "-R", &script, image.path.to_str().unwrap()], Path::new("/"));
    let mount = image.mount("ro");
    let mut names: Vec<_> = fs::read_dir(mount.dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["bad", "fine", "good", "lost+found"]);
    // With attributes, as ls -l asks for them: the others are told, and of this one that it is broken.
    let listed = tools::command("ls").args(["-l"]).current_dir(mount.dir()).output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(text.contains("good") && text.contains("fine") && text.contains("bad"), "{text}");
    let error = fs::metadata(mount.join("bad")).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::from_raw_os_error(117)));
    mount.unmount();
}

#[test]
fn who_meets_corruption_by_reading_has_it_noted() {
    need_fuse!();
    need_tools!("debugfs", "dumpe2fs");
    for (errors, written) in [("remount-ro", Err(Errno::ROFS)), ("continue", Ok(()))] {
        let image = Image::new(&["-b", "1024"], "4M");
        let mount = image.mount("");
        fs::create_dir(mount.join("d")).unwrap();
        fs::write(mount.join("d/f"), "text").unwrap();
        mount.unmount();
        let number = inode_of(&image, "d");
        let path = image.path.to_str().unwrap();
        let block = run("debugfs", &["-R", &format!("bmap <{number}> 0"), path], Path::new("/"));
        // A record length that leads out of the block.
        let file = OpenOptions::new().write(true).open(&image.path).unwrap();
        file.write_all_at(&[0xff, 0x7f], block.trim().parse::<u64>().unwrap() * 1024 + 4).unwrap();
        drop(file);
        let mount = image.mount(&format!("errors={errors}"));
        let broken = fs::read_dir(mount.join("d")).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        assert!(broken.is_err(), "the directory is broken");
        let done =
            fs::write(mount.join("new"), "text").map_err(|error| Errno::from_io_error(&error).unwrap());
        assert_eq!(done, written, "{errors}");
        mount.unmount();
        let head = run("dumpe2fs", &["-h", path], Path::new("/"));
        assert!(head.contains("with errors"), "{errors}: {head}");
    }
}

#[test]
fn a_mount_point_that_is_no_directory_is_named() {
    need_fuse!();
    let image = Image::new(&[], "4M");
    let place = image.folder.path().join("file");
    fs::write(&place, "").unwrap();
    let done = e2dax().arg("mount").args([&image.path, &place]).output().unwrap();
    assert!(!done.status.success());
    assert!(String::from_utf8_lossy(&done.stderr).contains("Not a directory"), "{}", tools::words(&done));
    image.check();
}

#[test]
fn a_mount_in_the_foreground_that_is_unmounted_says_nothing() {
    need_fuse!();
    let image = Image::new(&[], "4M");
    let folder = tempfile::tempdir().unwrap();
    let mut child = e2dax()
        .arg("mount")
        .args([&image.path, folder.path()])
        .args(["-f", "--tell-when-ready"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut told).unwrap();
    fs::write(folder.path().join("f"), "text").unwrap();
    crate::common::unmount(folder.path());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    image.check();
}

/// A host's file system of a few MiB, full of nothing else.
struct Host(tempfile::TempDir);

impl Host {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().to_str().unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "none", text], Path::new("/"));
        Self(folder)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // What still uses it keeps it until it is done.
        let _ = tools::run("umount", &[Path::new("-l"), self.0.path()]);
    }
}

#[test]
fn a_full_disk_of_the_host_fails_writes_and_the_mount_lives() {
    need_fuse!();
    let host = Host::new("8M");
    let path = host.0.path().join("image");
    tools::mke2fs(&["-t", "ext2", "-b", "4096", path.to_str().unwrap(), "64M"]);
    let mount = Mount::new(&path, "durability=relaxed");
    let bytes = vec![5; 256 << 10];
    fs::write(mount.join("first"), &bytes).unwrap();
    File::open(mount.join("first")).unwrap().sync_all().unwrap();
    let mut kept = 0;
    let failed = (0..200).find_map(|n| {
        let mut file = File::create(mount.join(&format!("f{n}"))).ok()?;
        match file.write_all(&bytes) {
            Ok(()) => kept += 1,
            Err(error) => return Some(error),
        }
        None
    });
    let error = failed.expect("the host's disk is full");
    assert!(matches!(Errno::from_io_error(&error), Some(Errno::NOSPC | Errno::IO)), "{error}");
    assert!(kept > 4);
    for name in ["first", "f0", "f1"] {
        assert_eq!(fs::read(mount.join(name)).unwrap(), bytes, "{name}");
    }
    mount.unmount();
    tools::e2fsck_p(&path).unwrap_or_else(|error| panic!("{error}"));
    tools::e2fsck_fn(&path).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn overlayfs_takes_the_mount_as_its_upper_layer() {
    need_fuse!();
    need_tools!("mount", "unshare");
    let image = Image::new(&["-b", "4096"], "64M");
    let mount = image.mount("allow_other");
    let folder = image.folder.path().to_path_buf();
    for name in ["lower", "merged"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    for name in ["gone", "moved", "over", "kept"] {
        fs::write(folder.join("lower").join(name), name).unwrap();
    }
    fs::create_dir(mount.join("upper")).unwrap();
    fs::create_dir(mount.join("work")).unwrap();
    let script = "
        mount -t overlay none -o lowerdir=lower,upperdir=$1/upper,workdir=$1/work merged || { echo none; exit 0; }
        rm merged/gone
        mv merged/moved merged/new
        mv merged/new merged/over
        echo changed >merged/kept
        ls merged
        cat merged/over merged/kept
        umount merged";
    let output = tools::command("unshare")
        .args(["-m", "sh", "-ec", script, "sh"])
        .arg(mount.dir())
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", tools::words(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if said == "none\n" {
        e2dax_tests::skip!("no overlayfs here: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(said, "kept\nover\nmovedchanged\n");
    for name in ["gone", "moved"] {
        let meta = fs::symlink_metadata(mount.join("upper").join(name)).unwrap();
        assert_eq!((meta.mode() & 0o170_000, meta.rdev()), (0o020_000, 0), "{name} is a whiteout");
    }
    mount.unmount();
    image.check();
}
