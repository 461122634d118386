//! Mounts as others make them: who is not root, mount(8), and programs that lock, flag and lose privileges.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use e2dax_tests::{need_tools, tools};

use crate::common::{Image, need_fuse, run};

/// Somebody who is not root.
const NOBODY: u32 = 65534;

/// Runs a script with its arguments in a table of mounts of its own, so that nobody else sees what it does to `/dev`
/// and `/sbin`; gives what it printed.
fn alone(script: &str, arguments: &[&Path]) -> String {
    let output = tools::command("unshare")
        .args(["-m", "sh", "-ec", script])
        .arg(env!("CARGO_BIN_EXE_e2dax"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", tools::words(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The device may be root's alone here: the script has one for everybody. The program lies where everybody gets to.
const AS_NOBODY: &str = r#"
cd "$1"
mknod fuse c 10 229
chmod 666 fuse
mount --bind fuse /dev/fuse
cp "$0" e2dax
exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -ec '
    ./e2dax mount image dir
    grep -c "fuse.e2dax .*user_id=65534" /proc/mounts
    echo kept >dir/f
    mkdir dir/d
    cat dir/f
    ./e2dax mount image dir 2>&1 | grep -o "is in use"
    fusermount3 -u dir
    flock image true
    ./e2dax cat image:/f
    ./e2dax mount image dir -f &
    until [ -e dir/f ]; do sleep 0.05; done
    echo more >>dir/f
    kill $!
    wait $!
    ./e2dax cat image:/f
'
"#;

#[test]
fn who_is_not_root_mounts_through_fusermount3() {
    need_fuse!();
    need_tools!("fusermount3", "setpriv", "unshare", "flock");
    let image = Image::new(&["-E", "root_owner=65534:65534"], "4M");
    let folder = image.folder.path();
    fs::create_dir(folder.join("dir")).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["dir", "image"] {
        chown(folder.join(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let said = alone(AS_NOBODY, &[folder]);
    assert_eq!(said, "1\nkept\nis in use\nkept\nkept\nmore\n");
    image.check();
}

/// mount(8) looks for its helpers in /sbin: the script has one of its own.
const BY_MOUNT: &str = r#"
cp -a /sbin/. "$1/sbin"
ln -s "$0" "$1/sbin/mount.fuse.e2dax"
mount --bind "$1/sbin" "$(realpath /sbin)"
mount -t fuse.e2dax -o noatime,nosuid "$1/image" "$1/dir"
grep -o "fuse.e2dax rw,nosuid,noatime" /proc/mounts
echo kept >"$1/dir/f"
umount "$1/dir"
flock "$1/image" true
mount -t fuse.e2dax -o ro "$1/image" "$1/dir"
cat "$1/dir/f"
umount "$1/dir"
flock "$1/image" true
mount -t fuse.e2dax "$1/image" "$1/dir"
mount -o remount,ro "$1/dir"
grep -c "$1/dir fuse.e2dax ro" /proc/mounts
echo lost 2>/dev/null >"$1/dir/g" || echo refused
mount -o remount,rw,noatime "$1/dir"
grep -c "$1/dir fuse.e2dax rw,.*noatime" /proc/mounts
echo more >"$1/dir/f"
cat "$1/dir/f"
umount "$1/dir"
for n in 1 2 3 4 5 6 7 8; do
    mount -t fuse.e2dax "$1/image" "$1/dir"
    echo again >"$1/dir/again-$n"
    umount "$1/dir"
done
"#;

#[test]
fn mount_8_mounts_the_type_fuse_e2dax() {
    need_fuse!();
    need_tools!("unshare", "flock", "mount");
    let image = Image::new(&[], "4M");
    for name in ["dir", "sbin"] {
        fs::create_dir(image.folder.path().join(name)).unwrap();
    }
    let said = alone(BY_MOUNT, &[image.folder.path()]);
    assert_eq!(said, "fuse.e2dax rw,nosuid,noatime\nkept\n1\nrefused\n1\nmore\n");
    run("flock", &["image", "true"], image.folder.path());
    image.check();
}

/// Runs a script as somebody else; gives whether it succeeded.
fn as_user(uid: u32, script: &str, dir: &Path) -> bool {
    Command::new("sh").args(["-ec", script]).current_dir(dir).uid(uid).gid(uid).status().unwrap().success()
}

#[test]
fn writing_and_cutting_take_set_id_bits_and_capabilities_away() {
    need_fuse!();
    need_tools!("setcap", "getcap", "truncate");
    for options in ["allow_other", "allow_other,writeback_cache"] {
        let image = Image::new(&["-I", "256"], "4M");
        let mount = image.mount(options);
        fs::set_permissions(mount.dir(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = mount.join("f");
        let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
        for (user, script, left) in [
            (NOBODY, "printf x >>f", 0o777),
            (NOBODY, "truncate -s 5 f", 0o777),
            (NOBODY, "printf y | dd of=f conv=notrunc 2>/dev/null", 0o777),
            (0, "printf z >>f", 0o6777),
        ] {
            fs::write(&path, "text").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
            run("setcap", &["cap_net_raw=ep", "f"], mount.dir());
            assert!(run("getcap", &["f"], mount.dir()).contains("cap_net_raw"));
            assert!(as_user(user, script, mount.dir()), "{script}");
            assert_eq!(mode(), left, "{options}: {script} by {user}");
            assert_eq!(run("getcap", &["f"], mount.dir()), "", "{options}: {script} by {user}");
        }
        mount.unmount();
        image.check();
    }
}

/// Locks a part of a file; a second process finds that part locked and the rest free.
const LOCKS: &str = "
import fcntl, os, sys
file = open('f', 'r+b')
fcntl.lockf(file, fcntl.LOCK_EX, 10, 5)
def free(start, length):
    if not (child := os.fork()):
        try:
            fcntl.lockf(open('f', 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0
print(free(0, 5), free(0, 6), free(14, 1), free(15, 0))
";

#[test]
fn locks_hold_between_programs() {
    need_fuse!();
    need_tools!("python3");
    let image = Image::new(&[], "4M");
    let mount = image.mount("");
    fs::write(mount.join("f"), [0; 100]).unwrap();
    assert_eq!(run("python3", &["-c", LOCKS], mount.dir()), "True False False True\n");
    let open = || OpenOptions::new().read(true).open(mount.join("f")).unwrap();
    let (first, second) = (open(), open());
    let lock = |file: &fs::File, how| rustix::fs::flock(file, how).is_ok();
    use rustix::fs::FlockOperation::{NonBlockingLockExclusive, NonBlockingLockShared};
    assert!(lock(&first, NonBlockingLockShared) && lock(&second, NonBlockingLockShared));
    assert!(!lock(&second, NonBlockingLockExclusive));
    drop(first);
    // A program that another test starts has the file, too, until it has become that program.
    let is_free = |_| {
        lock(&second, NonBlockingLockExclusive) || {
            std::thread::sleep(Duration::from_millis(50));
            false
        }
    };
    assert!((0..100).any(is_free));
    drop(second);
    mount.unmount();
    image.check();
}

/// Sets flags through `struct fsxattr` and prints what chattr's requests and fsxattr's make of them.
const FLAGS: &str = "
import fcntl, os, struct, sys
file = os.open('f', os.O_RDONLY)
GET, SET, FLAGS, VERSION = 0x801c581f, 0x401c5820, 0x80086601, 0x80087601
def get(): return struct.unpack('5I8x', fcntl.ioctl(file, GET, bytes(28)))
def put(*words): fcntl.ioctl(file, SET, struct.pack('5I8x', *words))
def flags(): return struct.unpack('I', fcntl.ioctl(file, FLAGS, bytes(8))[:4])[0]
put(0xc0, 0, 0, 0, 0)
print(hex(get()[0]), hex(flags()))
for words in [(0x100, 0, 0, 0, 0), (0, 4096, 0, 0, 0), (0, 0, 0, 1, 0)]:
    try: put(*words)
    except OSError as error: print(os.strerror(error.errno))
put(0, 0, 0, 0, 0)
print(get()[0], flags(), fcntl.ioctl(file, VERSION, bytes(8))[:4] != bytes(4))
";

#[test]
fn attribute_flags_are_one_thing_by_chattr_and_by_fsxattr() {
    need_fuse!();
    need_tools!("python3", "chattr", "lsattr");
    let image = Image::new(&[], "4M");
    let mount = image.mount("");
    fs::write(mount.join("f"), "text").unwrap();
    let said = run("python3", &["-c", FLAGS], mount.dir());
    let refused = "Operation not supported\n".repeat(3);
    assert_eq!(said, format!("0xc0 0xc0\n{refused}0 0 True\n"));
    run("chattr", &["+Sd", "f"], mount.dir());
    assert!(run("lsattr", &["f"], mount.dir()).starts_with("--S---d"));
    mount.unmount();
    image.check();
    let mount = image.mount("ro");
    assert!(run("lsattr", &["f"], mount.dir()).starts_with("--S---d"));
    mount.unmount();
}

#[test]
fn a_change_that_is_refused_takes_no_set_id_bits_away() {
    need_fuse!();
    need_tools!("chattr", "chown", "setpriv", "sh");
    let image = Image::new(&[], "16M");
    let mount = image.mount("allow_other");
    fs::write(mount.join("su"), "program").unwrap();
    let mode = || fs::metadata(mount.join("su")).unwrap().mode() & 0o7777;
    let set = |bits| fs::set_permissions(mount.join("su"), fs::Permissions::from_mode(bits)).unwrap();
    set(0o4755);
    run("chattr", &["+i", "su"], mount.dir());
    let refused = tools::command("chown").args(["1", "su"]).current_dir(mount.dir()).output().unwrap();
    assert!(!refused.status.success() && mode() == 0o4755, "{:o}", mode());
    run("chattr", &["-i", "su"], mount.dir());
    run("chattr", &["+a", "su"], mount.dir());
    let refused = tools::command("chown").args(["1", "su"]).current_dir(mount.dir()).output().unwrap();
    assert!(!refused.status.success() && mode() == 0o4755, "{:o}", mode());
    run("chattr", &["-a", "su"], mount.dir());
    // Through a descriptor that somebody has from before.
    set(0o6777);
    let script = "exec 3<>su; : >ready; until [ -e go ]; do sleep 0.02; done; printf x >&3";
    fs::set_permissions(mount.dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut other = tools::command("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script])
        .current_dir(mount.dir())
        .spawn()
        .unwrap();
    while !mount.join("ready").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    run("chattr", &["+i", "su"], mount.dir());
    fs::write(mount.join("go"), "").unwrap();
    assert!(!other.wait().unwrap().success());
    assert_eq!(format!("{:o}", mode()), "6777");
    run("chattr", &["-i", "su"], mount.dir());
    mount.unmount();
    image.check();
}

/// Changes owners by root, or leaves them as they are where that can be told from a write; prints the modes that are left.
const CHOWNS: &str = "
import os, struct, sys
cap = struct.pack('<IIIII', 0x02000001, 1 << 13, 0, 0, 0)
def left(name, had, owners):
    os.mkfifo(name) if name == 'fifo' else open(name, 'w').write('x')
    os.chown(name, 1000, 1000)
    os.chmod(name, 0o6755)
    if had: os.setxattr(name, 'security.capability', cap)
    if had == 'once': os.removexattr(name, 'security.capability')
    os.chown(name, *owners)
    print(oct(os.stat(name).st_mode & 0o7777), *os.listxattr(name))
left('plain', '', (0, 0))
left('has', 'now', (0, 0))
left('had', 'once', (0, -1))
left('group', 'now', (-1, 7))
left('fifo', '', (0, 0))
left('same', '', (-1, -1))
left('both', 'now', (-1, -1) if 'writeback_cache' in sys.argv else (1000, 1000))
";

#[test]
fn a_chown_takes_set_id_bits_away_also_where_there_are_or_were_capabilities() {
    need_fuse!();
    need_tools!("python3");
    for options in ["allow_other", "writeback_cache"] {
        let image = Image::new(&[], "16M");
        let mount = image.mount(options);
        let said = run("python3", &["-c", CHOWNS, options], mount.dir());
        assert_eq!(said, "0o755\n".repeat(7), "{options}");
        mount.unmount();
        image.check();
    }
}

#[test]
fn a_chown_that_changes_nothing_takes_set_id_bits_for_the_owner_alone() {
    need_fuse!();
    need_tools!("python3");
    let same = "python3 -c 'import os; os.chown(\"f\", -1, -1)'";
    for (options, owner, left) in [
        ("allow_other", 0, 0o4755),
        ("allow_other,writeback_cache", 0, 0o4755),
        ("allow_other", NOBODY, 0o755),
        ("allow_other,writeback_cache", NOBODY, 0o755),
        ("allow_other,uid=65534", 0, 0o755),
    ] {
        let image = Image::new(&[], "16M");
        let mount = image.mount(options);
        fs::set_permissions(mount.dir(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(mount.join("f"), "program").unwrap();
        chown(mount.join("f"), Some(owner), None).unwrap();
        fs::set_permissions(mount.join("f"), fs::Permissions::from_mode(0o4755)).unwrap();
        as_user(NOBODY, same, mount.dir());
        let mode = fs::metadata(mount.join("f")).unwrap().mode() & 0o7777;
        assert_eq!(format!("{mode:o}"), format!("{left:o}"), "{options}, a file of {owner}");
        mount.unmount();
        image.check();
    }
}

#[test]
fn a_capability_that_is_given_after_a_store_stays_when_the_page_is_written_back() {
    need_fuse!();
    need_tools!("python3");
    const SCRIPT: &str = r#"
import mmap, os, struct, sys
cap = struct.pack('<IIIII', 0x02000001, 1 << 13, 0, 0, 0)
f = os.open('f', os.O_CREAT | os.O_RDWR)
os.write(f, bytes(8192))
os.fsync(f)
m = mmap.mmap(f, 8192)
m[0] = 7
os.setxattr(f, 'security.capability', cap)
m.flush()
os.close(f)
print(os.getxattr('f', 'security.capability') == cap)
"#;
    for options in ["", "writeback_cache"] {
        let image = Image::new(&[], "16M");
        let mount = image.mount(options);
        let output =
            tools::command("python3").args(["-c", SCRIPT]).current_dir(mount.dir()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "True\n", "{options}: {}", tools::words(&output));
        mount.unmount();
        image.check();
    }
}

/// Stores through a shared map, forbids changes by the attribute flag, and then has the page written back; the same of what was
/// written. Prints what is in both files after they were closed.
const STORED_BEFORE: &str = "
import fcntl, mmap, os, struct, sys
flag = int(sys.argv[1], 0)
def forbid(file): fcntl.ioctl(file, 0x40086602, struct.pack('q', flag))
stored = os.open('stored', os.O_CREAT | os.O_RDWR)
os.write(stored, bytes(8192))
os.fsync(stored)
pages = mmap.mmap(stored, 8192)
pages[:5], pages[4096:4101] = b'hello', b'world'
forbid(stored)
pages.flush()
pages.close()
written = os.open('written', os.O_CREAT | os.O_RDWR)
os.write(written, b'hello' * 1000)
forbid(written)
for file in stored, written:
    os.fsync(file)
    os.close(file)
";

#[test]
fn what_was_stored_before_changes_were_forbidden_is_written_back() {
    need_fuse!();
    need_tools!("python3", "chattr");
    for options in ["", "writeback_cache"] {
        for flag in ["0x10", "0x20"] {
            let image = Image::new(&[], "16M");
            let mount = image.mount(options);
            run("python3", &["-c", STORED_BEFORE, flag], mount.dir());
            mount.unmount();
            image.check();
            let mount = image.mount(options);
            let stored = fs::read(mount.join("stored")).unwrap();
            assert_eq!(
                (&stored[..5], &stored[4096..4101]),
                (&b"hello"[..], &b"world"[..]),
                "{options} {flag}"
            );
            assert_eq!(fs::read(mount.join("written")).unwrap(), b"hello".repeat(1000), "{options} {flag}");
            mount.unmount();
        }
    }
}

#[test]
fn an_append_only_file_with_capabilities_is_appended_to() {
    need_fuse!();
    need_tools!("setcap", "getcap", "chattr");
    for options in ["allow_other", "allow_other,writeback_cache"] {
        let image = Image::new(&[], "16M");
        let mount = image.mount(options);
        fs::set_permissions(mount.dir(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = mount.join("log");
        fs::write(&path, "begin").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        for user in [0, NOBODY] {
            run("setcap", &["cap_net_raw=ep", "log"], mount.dir());
            run("chattr", &["+a", "log"], mount.dir());
            assert!(as_user(user, "printf x >>log", mount.dir()), "{options} by {user}");
            assert_eq!(run("getcap", &["log"], mount.dir()), "", "{options} by {user}");
            run("chattr", &["-a", "log"], mount.dir());
        }
        assert_eq!(fs::read(&path).unwrap(), b"beginxx");
        mount.unmount();
        image.check();
    }
}
