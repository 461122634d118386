//! How mounts begin and end: the background, locks, signals, options, handles.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use e2dax_tests::{need_tools, tools};
use rustix::process::Signal;

use crate::common::{Image, Mount, e2dax, need_fuse, run, unmount};

/// Waits until nobody has the image locked.
fn wait_for_lock(image: &Image) {
    let begin = Instant::now();
    let file = File::open(&image.path).unwrap();
    while rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        assert!(begin.elapsed() < Duration::from_secs(30), "the image stays locked");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_command_returns_when_the_mount_is_ready_and_umount_ends_it() {
    need_fuse!();
    let image = Image::new(&[], "32M");
    let folder = tempfile::tempdir().unwrap();
    let output = e2dax().arg("mount").args([&image.path, &folder.path().to_path_buf()]).output().unwrap();
    assert!(output.status.success(), "{}", tools::words(&output));
    let table = fs::read_to_string("/proc/mounts").unwrap();
    let line = table.lines().find(|line| line.contains(folder.path().to_str().unwrap())).unwrap();
    assert!(line.starts_with(image.path.to_str().unwrap()) && line.contains(" fuse.e2dax "), "{line}");
    fs::write(folder.path().join("f"), "kept").unwrap();
    unmount(folder.path());
    wait_for_lock(&image);
    image.check();
    let mount = image.mount("ro");
    assert_eq!(fs::read(mount.join("f")).unwrap(), b"kept");
}

#[test]
fn an_image_with_a_journal_that_was_not_replayed_is_read_as_it_is_where_that_is_asked_for() {
    need_fuse!();
    need_tools!("debugfs");
    let image = Image::new(&["-O", "has_journal"], "32M");
    let path = image.path.to_str().unwrap();
    tools::run("debugfs", &["-w", "-R", "feature needs_recovery", path]).unwrap();
    let before = fs::read(&image.path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (options, word, code) in [("ro", "journal", 8), ("norecovery", "goes with ro", 2)] {
        let output =
            e2dax().arg("mount").args([path, folder.path().to_str().unwrap(), "-o", options]).output();
        let output = output.unwrap();
        let said = tools::words(&output);
        assert!(output.status.code() == Some(code) && said.contains(word), "{options}: {said}");
    }
    for options in ["ro,norecovery", "noload,ro"] {
        let mount = image.mount(options);
        assert!(fs::metadata(mount.join("lost+found")).unwrap().is_dir());
        mount.unmount();
    }
    assert!(fs::read(&image.path).unwrap() == before, "something was written");
}

#[test]
fn what_cannot_be_mounted_is_named_with_an_exit_code() {
    need_fuse!();
    let image = Image::new(&[], "1M");
    let folder = image.folder.path();
    let no_image = folder.join("zeros");
    fs::write(&no_image, vec![0; 1 << 20]).unwrap();
    let missing = folder.join("missing");
    let cases: [(&[&std::path::Path], &str, i32); 4] = [
        (&[&no_image, folder], "superblock", 8),
        (&[&missing, folder], "No such file", 1),
        (&[&image.path, &missing], "No such file", 1),
        (&[&image.path, folder, std::path::Path::new("-ocolour")], "colour", 2),
    ];
    for (arguments, word, code) in cases {
        let output = e2dax().arg("mount").args(arguments).output().unwrap();
        let said = tools::words(&output);
        assert!(
            said.contains(word) && output.status.code() == Some(code),
            "{arguments:?}: {said}: {:?}",
            output.status
        );
    }
    image.check();
}

#[test]
fn a_second_mount_for_writing_is_refused() {
    need_fuse!();
    let image = Image::new(&[], "1M");
    let mount = image.mount("");
    for options in ["rw", "ro"] {
        let output = e2dax()
            .arg("mount")
            .args([&image.path, &mount.join("lost+found")])
            .args(["-o", options])
            .output()
            .unwrap();
        assert!(
            !output.status.success() && tools::words(&output).contains("has the image open"),
            "{}",
            tools::words(&output)
        );
    }
    mount.unmount();
    let (first, second) = (image.mount("ro"), image.mount("ro"));
    assert!(first.join("lost+found").exists() && second.join("lost+found").exists(), "two may read");
}

/// A loop device over an image, until it is dropped.
struct Loop(String);

impl Loop {
    fn new(image: &Image, options: &[&str]) -> Self {
        let path = image.path.to_str().unwrap();
        Self(
            run("losetup", &[options, &["-f", "--show", path]].concat(), image.folder.path())
                .trim()
                .to_owned(),
        )
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = tools::run("losetup", &["-d", &self.0]);
    }
}

#[test]
fn an_image_is_not_mounted_twice_by_way_of_a_loop_device() {
    need_fuse!();
    need_tools!("losetup");
    let image = Image::new(&[], "4M");
    let folder = tempfile::tempdir().unwrap();
    let refused = |what: &std::path::Path, options: &str| {
        let output = e2dax().arg("mount").args([what, folder.path()]).args(["-o", options]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}: {options}", what.display());
        tools::words(&output)
    };
    // The file first, then the device.
    let mount = image.mount("");
    let device = Loop::new(&image, &[]);
    for options in ["rw", "ro"] {
        let said = refused(std::path::Path::new(&device.0), options);
        assert!(said.contains("has the image open"), "{options}: {said}");
    }
    fs::write(mount.join("f"), "kept").unwrap();
    mount.unmount();
    // The device first, then the file.
    let mount = Mount::new(std::path::Path::new(&device.0), "");
    let said = refused(&image.path, "rw");
    assert!(said.contains("in use: /dev/loop"), "{said}");
    assert_eq!(fs::read(mount.join("f")).unwrap(), b"kept");
    mount.unmount();
    drop(device);
    image.check();
}

#[test]
fn a_loop_device_for_reading_only_says_so_to_who_would_write() {
    need_fuse!();
    need_tools!("losetup");
    let image = Image::new(&[], "4M");
    let device = Loop::new(&image, &["-r"]);
    let folder = tempfile::tempdir().unwrap();
    let output = e2dax().arg("mount").args([device.0.as_ref(), folder.path()]).output().unwrap();
    let said = tools::words(&output);
    assert!(!output.status.success() && said.contains("Read-only file system"), "{said}");
    Mount::new(std::path::Path::new(&device.0), "ro").unmount();
}

#[test]
fn a_mount_for_reading_changes_no_byte() {
    need_fuse!();
    let image = Image::new(&[], "4M");
    let mount = image.mount("");
    fs::write(mount.join("f"), "text").unwrap();
    mount.unmount();
    let before = fs::read(&image.path).unwrap();
    let changed = fs::metadata(&image.path).unwrap().mtime_nsec();
    let mount = image.mount("ro,strictatime");
    assert_eq!(fs::read(mount.join("f")).unwrap(), b"text");
    run("ls", &["-lR"], mount.dir());
    for error in [
        fs::write(mount.join("f"), "other").unwrap_err(),
        fs::remove_file(mount.join("f")).unwrap_err(),
        fs::create_dir(mount.join("d")).unwrap_err(),
    ] {
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
    mount.unmount();
    assert!(fs::read(&image.path).unwrap() == before);
    assert_eq!(fs::metadata(&image.path).unwrap().mtime_nsec(), changed);
}

#[test]
fn signals_end_a_mount_with_everything_written_even_while_it_is_used() {
    need_fuse!();
    for (signal, used) in [(Signal::TERM, false), (Signal::INT, false), (Signal::TERM, true)] {
        let image = Image::new(&[], "32M");
        let mut mount = image.mount("");
        let mut file = File::create(mount.join("f")).unwrap();
        file.write_all(&[7; 100_000]).unwrap();
        let open = used.then(|| (File::create(mount.join("unnamed")).unwrap(), file));
        if used {
            fs::remove_file(mount.join("unnamed")).unwrap();
        }
        mount.signal(signal);
        let status = mount.wait();
        assert!(status.success(), "{signal:?}, in use: {used}: {status}");
        drop(open);
        image.check();
        let mount = image.mount("ro");
        assert_eq!(fs::read(mount.join("f")).unwrap(), vec![7; 100_000], "{signal:?}");
        assert!(!mount.join("unnamed").exists());
    }
}

#[test]
fn options_change_owners_and_find_the_file_system_inside_the_image() {
    need_fuse!();
    let image = Image::new(&[], "4M");
    let bytes = fs::read(&image.path).unwrap();
    let disk = image.folder.path().join("disk");
    let mut file = File::create(&disk).unwrap();
    file.write_all(&vec![0xee; 1 << 20]).unwrap();
    file.write_all(&bytes).unwrap();
    drop(file);
    let mount = Mount::new(&disk, "offset=1048576,uid=12,gid=34,fsname=thing,subtype=other,nosuid,nodev");
    fs::write(mount.join("f"), "x").unwrap();
    let found = fs::metadata(mount.join("f")).unwrap();
    assert_eq!((found.uid(), found.gid()), (12, 34));
    let table = fs::read_to_string("/proc/mounts").unwrap();
    let line = table.lines().find(|line| line.contains(mount.dir().to_str().unwrap())).unwrap();
    assert!(
        line.starts_with("thing ") && line.contains(" fuse.other ") && line.contains("nosuid,nodev"),
        "{line}"
    );
    mount.unmount();
    assert!(fs::read(&disk).unwrap()[..1 << 20].iter().all(|byte| *byte == 0xee));
}

#[test]
fn mount_finds_the_command_as_its_helper() {
    need_fuse!();
    let image = Image::new(&[], "4M");
    let folder = tempfile::tempdir().unwrap();
    let helper = image.folder.path().join("mount.fuse.e2dax");
    symlink(env!("CARGO_BIN_EXE_e2dax"), &helper).unwrap();
    let arguments = [
        image.path.as_os_str(),
        folder.path().as_os_str(),
        "-n".as_ref(),
        "-o".as_ref(),
        "rw,noauto".as_ref(),
    ];
    let output = Command::new(&helper).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", tools::words(&output));
    fs::write(folder.path().join("f"), "x").unwrap();
    unmount(folder.path());
    wait_for_lock(&image);
    image.check();
}

/// Saves a handle of a file, or opens one that was saved and prints the file.
const HANDLES: &str = "
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
how, mount, name, place = sys.argv[1:]
if how == 'save':
    handle = ctypes.create_string_buffer(bytes([128, 0, 0, 0]) + bytes(132))
    number = ctypes.c_int()
    if libc.name_to_handle_at(-100, os.path.join(mount, name).encode(), handle, ctypes.byref(number), 0):
        sys.exit(os.strerror(ctypes.get_errno()))
    open(place, 'wb').write(handle.raw)
else:
    handle = ctypes.create_string_buffer(open(place, 'rb').read())
    fd = libc.open_by_handle_at(os.open(mount, os.O_RDONLY), handle, os.O_RDONLY)
    print('stale' if fd < 0 and ctypes.get_errno() == 116 else os.read(fd, 100).decode() if fd >= 0 else ctypes.get_errno())
";

#[test]
fn file_handles_survive_a_remount_and_go_stale_with_their_file() {
    need_fuse!();
    need_tools!("python3");
    let image = Image::new(&[], "4M");
    let saved = image.folder.path().join("handle");
    let handles = |how: &str, mount: &Mount| {
        let (dir, place) = (mount.dir().to_str().unwrap(), saved.to_str().unwrap());
        run("python3", &["-c", HANDLES, how, dir, "d/f", place], image.folder.path())
    };
    let mount = image.mount("");
    fs::create_dir(mount.join("d")).unwrap();
    fs::write(mount.join("d/f"), "by handle").unwrap();
    handles("save", &mount);
    mount.unmount();
    let mount = image.mount("");
    assert_eq!(handles("open", &mount).trim(), "by handle");
    fs::remove_file(mount.join("d/f")).unwrap();
    fs::write(mount.join("d/g"), "another of the same number").unwrap();
    mount.unmount();
    let mount = image.mount("");
    assert_eq!(handles("open", &mount).trim(), "stale");
    mount.unmount();
    image.check();
}

#[test]
fn no_handle_leads_to_what_the_file_system_keeps_for_itself_or_to_what_is_no_file() {
    need_fuse!();
    need_tools!("python3", "debugfs");
    let image = Image::new(&["-j", "-e", "remount-ro"], "32M");
    let mount = image.mount("");
    fs::write(mount.join("f"), "by handle").unwrap();
    fs::write(mount.join("left"), "").unwrap();
    let left = u32::try_from(fs::metadata(mount.join("left")).unwrap().ino()).unwrap();
    mount.unmount();
    // As a file that was removed while it was open.
    let links = |count: u32| {
        let request = format!("set_inode_field left links_count {count}");
        run("debugfs", &["-w", "-R", &request, "image"], image.folder.path());
    };
    links(0);
    let mount = image.mount("");
    let saved = image.folder.path().join("handle");
    let handles = |how: &str| {
        let (dir, place) = (mount.dir().to_str().unwrap(), saved.to_str().unwrap());
        run("python3", &["-c", HANDLES, how, dir, "f", place], image.folder.path())
    };
    handles("save");
    let mut handle = fs::read(&saved).unwrap();
    // The node's upper and lower half, the generation: of the inode that spare descriptors have, of the journal, of one past the
    // last, and of one that a crash left without a name.
    for number in [7, 8, 4_000_000, left] {
        let handle_of = [0, number, 0].map(u32::to_le_bytes).concat();
        handle[8..20].copy_from_slice(&handle_of);
        fs::write(&saved, &handle).unwrap();
        assert_eq!(handles("open").trim(), "stale", "inode {number}");
    }
    fs::write(mount.join("g"), "nothing is wrong with the image").unwrap();
    mount.unmount();
    links(1);
    image.check();
}

#[test]
fn permissions_and_lists_are_kept_by_the_kernel() {
    need_fuse!();
    need_tools!("setfacl");
    let image = Image::new(&[], "4M");
    let mount = image.mount("allow_other");
    let folder = mount.join("d");
    fs::create_dir(&folder).unwrap();
    run("chmod", &["755", mount.dir().to_str().unwrap()], mount.dir());
    let as_user = |uid: u32, path: &std::path::Path| {
        let status = Command::new("cat").arg(path).uid(uid).gid(uid).output().unwrap().status;
        status.success()
    };
    let path = folder.join("f");
    fs::write(&path, "secret").unwrap();
    run("chmod", &["600", path.to_str().unwrap()], mount.dir());
    assert!(!as_user(4321, &path));
    run("setfacl", &["-m", "u:4321:r", path.to_str().unwrap()], mount.dir());
    assert!(as_user(4321, &path) && !as_user(4322, &path));
    run("setfacl", &["-d", "-m", "u:4322:rx", folder.to_str().unwrap()], mount.dir());
    let child = folder.join("child");
    OpenOptions::new().write(true).create_new(true).open(&child).unwrap();
    assert!(run("getfacl", &["-cn", child.to_str().unwrap()], mount.dir()).contains("user:4322:r-x"));
    mount.unmount();
    image.check();
}

#[test]
fn what_keeps_processors_awake_is_opened_by_who_wants_it_and_may() {
    need_fuse!();
    let place = std::path::Path::new("/dev/cpu_dma_latency");
    if OpenOptions::new().write(true).open(place).is_err() {
        e2dax_tests::skip!("{} cannot be opened", place.display());
    }
    let image = Image::new(&[], "4M");
    for (options, wishes) in [("awake", true), ("no_awake", false), ("no_awake,awake", true)] {
        let mount = image.mount(options);
        // A stream of requests, and some rest after it.
        (0..100).for_each(|n| fs::write(mount.join(&format!("f{n}")), "contents").unwrap());
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(mount.open_files().iter().any(|(_, target)| target == place), wishes, "{options}");
        mount.unmount();
    }
    image.check();
}

#[test]
fn a_limit_of_file_sizes_fails_the_write_and_not_the_mount() {
    need_fuse!();
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let image = Image::new(&["-b", "4096"], "16M");
    let mount = image.mount("direct_io");
    let pid = Pid::from_raw(i32::try_from(mount.pid()).unwrap());
    let limit = |bytes| prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    fs::write(mount.join("before"), vec![1; 100_000]).unwrap();
    let old = limit(Some(2 << 20));
    let error = fs::write(mount.join("f"), vec![2; 8 << 20]).unwrap_err();
    assert_eq!(rustix::io::Errno::from_io_error(&error), Some(rustix::io::Errno::FBIG));
    assert_eq!(fs::read(mount.join("before")).unwrap(), vec![1; 100_000]);
    limit(old.current);
    fs::remove_file(mount.join("f")).unwrap();
    fs::write(mount.join("after"), vec![3; 8 << 20]).unwrap();
    assert_eq!(fs::read(mount.join("after")).unwrap(), vec![3; 8 << 20]);
    mount.unmount();
    image.check();
}
