//! What this machine does with images while the command works on them: the kernel mounts them, others hold them,
//! truncate them and fill the disk.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use e2dax_tests::mount::{Access, with_mount, with_mount_of};
use e2dax_tests::{need_mount, need_tools, skip, tools};

use crate::common::Folder;

/// An ext2 with a file `/f` of some MiB.
fn with_image(name: &str) -> Folder {
    let folder = Folder::with(&[]);
    let path = folder.path(name);
    tools::mke2fs(&[
        "-t".as_ref(),
        "ext2".as_ref(),
        "-b".as_ref(),
        "4096".as_ref(),
        path.as_os_str(),
        "32M".as_ref(),
    ]);
    folder.run_with(&["write", &format!("{name}:/f")], &vec![b'x'; 8 << 20]).ok();
    folder
}

/// Every verb that writes, on an image of this name.
fn writing(image: &str) -> Vec<Vec<String>> {
    let at = |path: &str| format!("{image}:{path}");
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_string()).collect::<Vec<_>>();
    vec![
        words(&["touch", &at("/f")]),
        words(&["mkdir", &at("/d")]),
        words(&["rm", &at("/f")]),
        words(&["mv", &at("/f"), &at("/g")]),
        words(&["ln", &at("/f"), &at("/g")]),
        words(&["ln", "-s", "f", &at("/g")]),
        words(&["chmod", "600", &at("/f")]),
        words(&["chown", "1:1", &at("/f")]),
        words(&["truncate", "-s", "1", &at("/f")]),
        words(&["write", &at("/f")]),
        words(&["punch", "--at", "0", "--len", "4096", &at("/f")]),
        words(&["setfattr", "-n", "user.a", "-v", "b", &at("/f")]),
        words(&["cp", "new", &at("/g")]),
        words(&["cp", &at("/f"), &at("/g")]),
        words(&["mkfs", "-f", "--size", "1M", image]),
    ]
}

/// What is on the image, but for what reading changes.
fn sum(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[test]
fn no_verb_writes_to_an_image_that_the_kernel_has_mounted() {
    need_mount!();
    let folder = with_image("i.img");
    let path = folder.path("i.img");
    fs::write(folder.path("new"), b"new").unwrap();
    fs::create_dir(folder.path("mnt")).unwrap();
    with_mount(&path, Access::ReadWrite, |at| {
        let before = sum(&path);
        for verb in writing("i.img") {
            let said = folder.run(&verb).fails(1);
            assert!(said.contains("i.img: in use: /dev/loop"), "{verb:?}: {said}");
            assert!(said.contains(at.to_str().unwrap()), "{verb:?}: {said}");
        }
        let said = folder.run(&["mount", "i.img", "mnt"]).fails(1);
        assert!(said.contains("in use: /dev/loop"), "{said}");
        assert!(sum(&path) == before, "something was written");
        // Reading is nobody's business.
        folder.run(&["ls", "i.img:/"]).ok();
    });
    folder.run(&["touch", "i.img:/f"]).ok();
    tools::e2fsck_fn(&path).unwrap();
}

#[test]
fn a_loop_device_that_is_mounted_is_refused_like_its_file() {
    need_mount!();
    need_tools!("losetup");
    let folder = with_image("i.img");
    let path = folder.path("i.img");
    fs::write(folder.path("new"), b"new").unwrap();
    let args = ["-f".as_ref(), "--show".as_ref(), path.as_os_str()];
    let device = String::from_utf8(tools::run("losetup", &args).unwrap()).unwrap().trim().to_string();
    let device_path = PathBuf::from(&device);
    with_mount_of(&path, "ext2", Access::ReadOnly, 0, |_| {});
    let at = folder.path("at");
    fs::create_dir(&at).unwrap();
    tools::run("mount", &["-t".as_ref(), "ext2".as_ref(), device_path.as_os_str(), at.as_os_str()]).unwrap();
    let said: Vec<String> = writing(&device).iter().map(|verb| folder.run(verb).fails(1)).collect();
    tools::run("umount", &[at.as_os_str()]).unwrap();
    let touched = folder.run(&["touch", &format!("{device}:/f")]);
    tools::run("losetup", &["-d".as_ref(), device_path.as_os_str()]).unwrap();
    for said in said {
        assert!(said.contains("in use: ") && said.contains(at.to_str().unwrap()), "{said}");
    }
    touched.ok();
    tools::e2fsck_fn(&path).unwrap();
}

#[test]
fn no_image_is_made_over_one_that_somebody_has_open() {
    let folder = with_image("i.img");
    let path = folder.path("i.img");
    let before = sum(&path);
    for options in [blockdev::DeviceOptions::read_write(), blockdev::DeviceOptions::read_only()] {
        let _held = blockdev::open_image(&path, &options).unwrap();
        let said = folder.run(&["mkfs", "-f", "--size", "1M", "i.img"]).fails(1);
        assert!(said.contains("i.img") && said.contains("has the image open"), "{said}");
        assert!(sum(&path) == before, "something was written");
    }
    folder.run(&["mkfs", "-q", "-f", "--size", "1M", "i.img"]).ok();
}

/// What the superblock says of the state, by dumpe2fs.
fn state(path: &Path) -> String {
    let said = tools::run("dumpe2fs", &["-h".as_ref(), path.as_os_str()]).unwrap();
    let said = String::from_utf8(said).unwrap();
    said.lines().find_map(|line| line.strip_prefix("Filesystem state:")).unwrap().trim().to_string()
}

/// Stores bytes in an image file.
fn poke(path: &Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

const S_FREE_BLOCKS_COUNT: u64 = 1024 + 12;
const S_STATE: u64 = 1024 + 58;

#[test]
fn an_image_that_was_not_unmounted_cleanly_is_mended_once_and_clean_afterwards() {
    need_tools!("mke2fs", "e2fsck", "dumpe2fs");
    let folder = with_image("i.img");
    let path = folder.path("i.img");
    poke(&path, S_STATE, &[0, 0]);
    poke(&path, S_FREE_BLOCKS_COUNT, &[1, 2]);
    assert_eq!(state(&path), "not clean");
    let run = folder.run(&["touch", "i.img:/new"]);
    assert_eq!(run.code(), 0, "{}", run.err());
    assert!(run.err().contains("i.img: was not unmounted cleanly; it was mended"), "{}", run.err());
    assert_eq!(state(&path), "clean");
    tools::e2fsck_fn(&path).unwrap();
    folder.run(&["touch", "i.img:/another"]).ok();
    // Looking does not mend.
    poke(&path, S_STATE, &[0, 0]);
    folder.run(&["ls", "i.img:/"]).ok();
    assert_eq!(state(&path), "not clean");
}

#[test]
fn an_image_that_a_person_has_to_decide_about_stays_not_clean() {
    need_tools!("mke2fs", "e2fsck", "dumpe2fs", "debugfs");
    let folder = with_image("i.img");
    let path = folder.path("i.img");
    // Two files on one block.
    folder.run_with(&["write", "i.img:/a"], b"one").ok();
    folder.run_with(&["write", "i.img:/b"], b"two").ok();
    let map = tools::run("debugfs", &["-R".as_ref(), "bmap /a 0".as_ref(), path.as_os_str()]).unwrap();
    let block = String::from_utf8(map).unwrap().trim().to_string();
    let store = format!("sif /b block[0] {block}");
    tools::run("debugfs", &["-w".as_ref(), "-R".as_ref(), store.as_ref(), path.as_os_str()]).unwrap();
    poke(&path, S_STATE, &[0, 0]);
    let run = folder.run(&["touch", "i.img:/new"]);
    assert!(
        run.err().contains("needs a person") && run.err().contains("run e2dax check -y"),
        "{}",
        run.err()
    );
    assert_eq!(state(&path), "not clean");
}

/// The message of a run that ended by itself, with an error that names a place.
#[track_caller]
fn error_of(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{}: {said}", output.status);
    assert!(said.starts_with("e2dax: ") && said.contains("at byte "), "{said}");
    said
}

#[test]
fn an_image_that_is_truncated_while_it_is_read_is_an_error() {
    if !blockdev::sigbus::is_possible() {
        skip!("bus errors cannot be resumed on this target");
    }
    let folder = with_image("i.img");
    let mut child = folder.command(&["cat", "i.img:/f"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The pipe is full long before the file ends.
    let mut first = [0; 1000];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    File::options().write(true).open(folder.path("i.img")).unwrap().set_len(1 << 20).unwrap();
    let said = error_of(&child.wait_with_output().unwrap());
    assert!(said.contains("truncated"), "{said}");
}

#[test]
fn an_image_that_is_truncated_while_it_is_written_is_an_error() {
    if !blockdev::sigbus::is_possible() {
        skip!("bus errors cannot be resumed on this target");
    }
    let folder = with_image("i.img");
    let mut child = folder.command(&["write", "-a", "i.img:/f"]);
    let mut child =
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Once it has taken more than the pipe holds, the image is open.
    stdin.write_all(&vec![b'y'; 1 << 20]).unwrap();
    File::options().write(true).open(folder.path("i.img")).unwrap().set_len(64 << 10).unwrap();
    // It may stop to read.
    let _ = stdin.write_all(&vec![b'y'; 4 << 20]);
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{}: {said}", output.status);
    assert!(said.contains("at byte "), "{said}");
}

/// XFS with an image that shares its blocks with a copy, and no room.
struct FullDisk {
    folder: tempfile::TempDir,
}

impl FullDisk {
    fn new() -> Option<Self> {
        let disk = Self { folder: tempfile::tempdir().ok()? };
        let (file, at) = (disk.folder.path().join("xfs"), disk.folder.path().join("at"));
        File::create(&file).ok()?.set_len(320 << 20).ok()?;
        fs::create_dir(&at).ok()?;
        tools::run("mkfs.xfs", &["-q".as_ref(), "-m".as_ref(), "reflink=1".as_ref(), file.as_os_str()])
            .ok()?;
        tools::run("mount", &["-o".as_ref(), "loop".as_ref(), file.as_os_str(), at.as_os_str()]).ok()?;
        Some(disk)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("at").join(name)
    }

    fn fill(&self) {
        let filler = File::create(self.path("filler")).unwrap();
        let mut at = 0;
        for piece in [16 << 20, 1 << 20, 64 << 10, 4096_u64] {
            while rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), at, piece).is_ok() {
                at += piece;
            }
        }
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = tools::run("umount", &[self.folder.path().join("at").as_os_str()]);
    }
}

#[test]
fn on_a_full_disk_every_verb_ends_with_an_error_and_the_copy_stays_as_it_was() {
    need_mount!();
    need_tools!("mkfs.xfs", "cp", "e2fsck");
    let Some(disk) = FullDisk::new() else { skip!("the kernel mounts no XFS here") };
    let folder = with_image("i.img");
    fs::write(folder.path("new"), vec![7; 1 << 20]).unwrap();
    let original = disk.path("original.img");
    fs::write(&original, sum(&folder.path("i.img"))).unwrap();
    let copy = disk.path("copy.img");
    let share = || {
        let _ = fs::remove_file(&copy);
        let args = ["--reflink=always".as_ref(), original.as_os_str(), copy.as_os_str()];
        tools::run("cp", &args).unwrap();
    };
    share();
    disk.fill();
    let copy_name = copy.to_str().unwrap().to_string();
    // A few blocks may be left: the first verbs take them.
    let mut failed = 0;
    for verb in writing(&copy_name) {
        if verb[0] == "mkfs" {
            // Reading needs no room. What is made anew may be broken afterwards.
            assert!(matches!(folder.run(&["check", &copy_name]).code(), 0 | 4));
        }
        let output = folder.command(&verb).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => {}
            Some(1) => {
                failed += 1;
                assert!(said.contains("no space left") || said.contains("No space left"), "{verb:?}: {said}");
            }
            _ => panic!("{verb:?}: {}: {said}", output.status),
        }
    }
    assert!(failed > 5, "the disk is not full");
    assert_eq!(sum(&original), sum(&folder.path("i.img")), "the other copy is as it was");
    fs::remove_file(disk.path("filler")).unwrap();
    share();
    disk.fill();
    folder.run(&["check", &copy_name]).ok();
    folder.run(&["manifest", &copy_name]).ok();
}

#[test]
fn a_sparse_image_on_a_full_tmpfs_is_checked_and_copied() {
    need_mount!();
    let folder = with_image("i.img");
    let at = folder.path("at");
    fs::create_dir(&at).unwrap();
    let args = ["-t", "tmpfs", "-o", "size=10m", "tmpfs"];
    tools::run("mount", &[&args.map(AsRef::as_ref)[..], &[at.as_os_str()]].concat()).unwrap();
    // Sparse as the original, with nothing left afterwards.
    let copied = tools::run(
        "cp",
        &["--sparse=always".as_ref(), folder.path("i.img").as_os_str(), at.join("i.img").as_os_str()],
    );
    let filler = File::create(at.join("filler")).unwrap();
    let mut end = 0;
    while rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), end, 4096).is_ok() {
        end += 4096;
    }
    drop(filler);
    let checked = folder.run(&["check", "at/i.img"]);
    let manifest = folder.run(&["manifest", "at/i.img"]);
    let out = folder.run(&["cp", "at/i.img:/f", "f"]);
    tools::run("umount", &[at.as_os_str()]).unwrap();
    copied.unwrap();
    checked.ok();
    manifest.ok();
    out.ok();
    assert_eq!(fs::read(folder.path("f")).unwrap(), vec![b'x'; 8 << 20]);
}
