//! Mounts under those who do not mean well, or do not know of each other: users of one folder, maps, writers at one end, and
//! hosts that take the image away.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::time::{Duration, Instant};

use e2dax_tests::{need_tools, tools};
use rustix::fs::{FlockOperation, XattrFlags, flock, setxattr};
use rustix::io::Errno;

use crate::common::{Image, Mount, need_fuse, run};

/// Runs a script as a user, with further groups; gives what it printed.
fn as_user(uid: u32, groups: &str, script: &str, dir: &Path) -> String {
    let uid = uid.to_string();
    let groups = if groups.is_empty() { "--clear-groups".to_owned() } else { format!("--groups={groups}") };
    let output = tools::command("setpriv")
        .args(["--reuid", &uid, "--regid", &uid, &groups, "sh", "-c", script])
        .current_dir(dir)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn two_users_of_a_folder_do_to_each_other_what_its_bits_and_lists_allow() {
    need_fuse!();
    need_tools!("setpriv", "setfacl", "stat");
    let image = Image::new(&["-I", "256"], "4M");
    let mount = image.mount("allow_other");
    fs::set_permissions(mount.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, mode) in [("sticky", 0o1777), ("open", 0o777), ("grouped", 0o2777)] {
        fs::create_dir(mount.join(name)).unwrap();
        fs::set_permissions(mount.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    chown(mount.join("grouped"), None, Some(502)).unwrap();
    let by = |uid: u32, script: &str| as_user(uid, "", script, mount.dir());
    by(501, "for d in sticky open; do echo a >$d/a; mkdir $d/d; chmod 600 $d/a; done");
    // The same in both folders, but for whose files they are.
    for (folder, answer) in [("sticky", "no no no a d own"), ("open", "yes yes yes own")] {
        let said = by(
            502,
            &format!(
                "cd {folder}; echo own >own
                for try in 'rm -f a' 'rmdir d' 'mv -f own a'; do $try 2>/dev/null && echo yes || echo no; done
                [ -e own ] || mv a own; ls"
            ),
        );
        assert_eq!(said.split_whitespace().collect::<Vec<_>>().join(" "), answer, "{folder}");
    }
    assert_eq!(by(502, "cat sticky/a 2>/dev/null || echo no"), "no");
    // The folder's group goes on, and its bit to folders; a program of a group that is not one's own has none.
    let made = "umask 022; cd grouped; mkdir d; echo x >f; chmod 2755 f; stat -c '%a %g' d f; rm -r d f";
    assert_eq!(by(501, made), "2755 502\n755 502");
    assert_eq!(as_user(501, "502", made, mount.dir()), "2755 502\n2755 502");
    // A list gives to one and takes from the other; the mask is what chmod sets.
    fs::write(mount.join("listed"), "text").unwrap();
    let list = |list: &str| run("setfacl", &["-m", list, "listed"], mount.dir());
    list("u:501:rw,u:502:---,o:r");
    let tries =
        "cat listed 2>/dev/null >/dev/null && echo reads; (echo x >>listed) 2>/dev/null && echo writes";
    assert_eq!(
        (by(501, tries), by(502, tries), by(503, tries)),
        ("reads\nwrites".into(), String::new(), "reads".into())
    );
    fs::set_permissions(mount.join("listed"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(by(501, tries), "reads", "the mask has no w any more");
    mount.unmount();
    image.check();
}

#[test]
fn attributes_have_the_limits_and_flags_of_ext2() {
    need_fuse!();
    let image = Image::new(&["-b", "4096", "-I", "256"], "4M");
    let mount = image.mount("");
    let path = mount.join("f");
    fs::write(&path, "text").unwrap();
    let set = |name: &str, len: usize, flags| setxattr(&path, name, &vec![7; len], flags);
    let both = XattrFlags::CREATE | XattrFlags::REPLACE;
    assert_eq!(set("user.a", 4, XattrFlags::REPLACE), Err(Errno::NODATA));
    assert_eq!(set("user.a", 4, both), Err(Errno::NODATA));
    assert_eq!(set("user.a", 4, XattrFlags::CREATE), Ok(()));
    assert_eq!(set("user.a", 4, XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(set("user.a", 4, both), Err(Errno::EXIST));
    assert_eq!(set("user.large", 5000, XattrFlags::empty()), Err(Errno::NOSPC));
    assert_eq!(set("user.larger", 70_000, XattrFlags::empty()), Err(Errno::TOOBIG));
    assert_eq!(set("other.a", 4, XattrFlags::empty()), Err(Errno::OPNOTSUPP));
    let most = (0..1000).find_map(|n| set(&format!("user.k{n}"), 50, XattrFlags::empty()).err());
    assert_eq!(most, Some(Errno::NOSPC), "a block of attributes is full");
    mount.unmount();
    image.check();
}

/// Stores behind the end of a file through a map, and makes the file longer; prints whether that shows.
const TAIL: &str = "
import mmap, os
for extend in (lambda fd: os.ftruncate(fd, 20000), lambda fd: os.truncate('f', 5100)):
    open('f', 'wb').write(b'a' * 5000)
    fd = os.open('f', os.O_RDWR)
    os.ftruncate(fd, 20000)
    both = mmap.mmap(fd, 20000)
    os.ftruncate(fd, 5000)
    both[5001:5004] = b'zzz'
    extend(fd)
    print(both[4998:5006], os.pread(fd, 8, 4998), os.fstat(fd).st_size)
    both.flush(4096, 4096)
    print(os.pread(os.open('f', os.O_RDONLY), 8, 4998))
";

#[test]
fn what_a_map_stored_behind_the_end_does_not_show_when_the_file_grows() {
    need_fuse!();
    need_tools!("python3");
    let image = Image::new(&["-b", "1024"], "4M");
    for options in ["", "direct_io"] {
        let mount = image.mount(options);
        let zeros = "b'aa\\x00\\x00\\x00\\x00\\x00\\x00'";
        let said = run("python3", &["-c", TAIL], mount.dir());
        let one = |size: u32| format!("{zeros} {zeros} {size}\n{zeros}\n");
        assert_eq!(said, one(20000) + &one(5100), "{options}");
        mount.unmount();
        image.check();
    }
}

#[test]
fn writers_at_the_end_of_one_file_lose_nothing_of_each_other() {
    need_fuse!();
    const EACH: usize = 200;
    for options in ["", "direct_io", "writeback_cache"] {
        let image = Image::new(&["-b", "1024"], "4M");
        let mount = image.mount(options);
        let path = mount.join("f");
        File::create(&path).unwrap();
        std::thread::scope(|scope| {
            for n in 0..4_u8 {
                let path = &path;
                scope.spawn(move || {
                    let mut file = OpenOptions::new().append(true).open(path).unwrap();
                    (0..EACH).for_each(|_| assert_eq!(file.write(&[n + 1; 37]).unwrap(), 37));
                });
            }
        });
        let bytes = fs::read(&path).unwrap();
        let mut of = [0; 4];
        for record in bytes.chunks(37) {
            assert!(record.iter().all(|byte| *byte == record[0]), "{options}: a record is in two pieces");
            of[usize::from(record[0]) - 1] += 1;
        }
        assert_eq!(of, [EACH; 4], "{options}");
        mount.unmount();
        image.check();
    }
}

fn wait_until_closed(image: &Image) {
    let (begin, file) = (Instant::now(), File::open(&image.path).unwrap());
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        assert!(begin.elapsed() < Duration::from_secs(30), "the image stays open");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_mount_that_is_detached_while_it_is_used_ends_with_its_last_user() {
    need_fuse!();
    need_tools!("fusermount3");
    for detach in [["umount", "-l"], ["fusermount3", "-uz"]] {
        let image = Image::new(&["-b", "1024"], "4M");
        let mut mount = image.mount("");
        let mut file = File::create(mount.join("f")).unwrap();
        let dir = mount.dir().to_str().unwrap();
        // Not while somebody uses it.
        assert!(tools::run("umount", &[dir]).is_err_and(|error| error.contains("busy")));
        assert!(tools::run("fusermount3", &["-u", dir]).is_err());
        file.write_all(b"before ").unwrap();
        tools::run(detach[0], &[detach[1], dir]).unwrap();
        assert!(!mount.join("f").exists());
        file.write_all(b"and after").unwrap();
        file.sync_all().unwrap();
        let lock = File::open(&image.path).unwrap();
        assert!(flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err(), "it is served still");
        drop(file);
        assert!(mount.wait().success());
        wait_until_closed(&image);
        image.check();
        let again = image.mount("ro");
        assert_eq!(fs::read(again.join("f")).unwrap(), b"before and after");
        again.unmount();
    }
}

#[test]
fn an_image_that_somebody_cuts_off_fails_what_is_lost_and_the_mount_lives() {
    need_fuse!();
    let image = Image::new(&["-b", "4096"], "64M");
    let mount = image.mount("direct_io");
    let bytes = vec![9; 40 << 20];
    fs::write(mount.join("large"), &bytes).unwrap();
    fs::write(mount.join("small"), "text").unwrap();
    File::open(mount.join("small")).unwrap().sync_all().unwrap();
    let file = OpenOptions::new().write(true).open(&image.path).unwrap();
    file.set_len(8 << 20).unwrap();
    let io = |result: std::io::Result<Vec<u8>>| {
        result.map(|bytes| bytes.len()).map_err(|error| Errno::from_io_error(&error))
    };
    assert_eq!(io(fs::read(mount.join("large"))), Err(Some(Errno::IO)));
    assert!(fs::write(mount.join("large"), &bytes).is_err());
    assert!(mount.join("small").exists() && fs::read_dir(mount.dir()).is_ok());
    end(mount);
}

/// Unmounts what may not be able to close its image.
fn end(mut mount: Mount) {
    crate::common::unmount(mount.dir());
    // With whatever code: it has to end by itself.
    mount.wait();
}

const GROWS: &str = "
import multiprocessing, os, time
end = time.time() + 2
def read():
    file = os.open('f', os.O_RDONLY)
    while time.time() < end:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.pread(file, 100, 0)
def grow():
    file = os.open('f', os.O_RDWR)
    while time.time() < end:
        os.ftruncate(file, 100)
        os.ftruncate(file, 4000)
all = [multiprocessing.Process(target=of, daemon=True) for of in (read, read, grow)]
[one.start() for one in all]
time.sleep(2)
[one.join(20) for one in all]
print(sum(one.is_alive() for one in all), flush=True)
os._exit(0)
";

/// What lies past the old end is cleared in the kernel's page, which whoever reads may hold until it is answered.
#[test]
fn a_file_that_grows_while_others_read_it_anew_keeps_nobody_waiting() {
    need_fuse!();
    need_tools!("python3");
    let image = Image::new(&[], "4M");
    let mount = image.mount("threads=1");
    fs::write(mount.join("f"), [7; 100]).unwrap();
    assert_eq!(run("python3", &["-c", GROWS], mount.dir()), "0\n");
    mount.unmount();
    image.check();
}
