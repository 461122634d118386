//! A sparse image on a full disk: an error, and never SIGBUS. Needs root, to mount small file systems.

#![cfg(feature = "std")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use blockdev::{Access, BlockDevice, DaxDevice, DeviceOptions, Error, FileDevice, MmapDevice};
use tempfile::TempDir;

/// Something mounted for a test.
struct Mount {
    dir: TempDir,
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.dir.path()).status();
    }
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

fn tmpfs() -> Option<Mount> {
    let mount = Mount { dir: TempDir::new().unwrap() };
    let at = mount.dir.path().to_str().unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=2m", "tmpfs", at]).then_some(mount)
}

/// ext4 in a loop device over a file in `dir`.
fn ext4(dir: &Path) -> Option<Mount> {
    made_by(dir, "ext4")
}

fn made_by(dir: &Path, kind: &str) -> Option<Mount> {
    let mount = Mount { dir: TempDir::new().unwrap() };
    let image = dir.join("ext4");
    File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let (image, at) = (image.to_str().unwrap(), mount.dir.path().to_str().unwrap());
    let made = run("mke2fs", &["-q", "-t", kind, "-O", "^has_journal", "-m", "0", image]);
    (made && run("mount", &["-o", "loop", image, at])).then_some(mount)
}

fn image(mount: &Mount) -> PathBuf {
    let path = mount.dir.path().join("image");
    File::create(&path).unwrap().set_len(32 << 20).unwrap();
    path
}

fn fills_up_with_an_error(mount: &Mount) {
    let path = image(mount);
    let device = MmapDevice::open(&path, &DeviceOptions::read_write()).unwrap();
    let mut stored = 0;
    let full = loop {
        match device.write_at(stored, &[7; 4096]) {
            Ok(()) => stored += 4096,
            Err(error) => break error,
        }
        assert!(stored < 32 << 20, "the disk never fills up");
    };
    assert!(matches!(full, Error::NoSpace { .. }), "{full:?}");
    assert!(stored >= 1 << 20, "full after {stored} bytes");
    let large = device.write_at(stored.next_multiple_of(64 << 10), &vec![7; 8 << 20]).unwrap_err();
    assert!(matches!(large, Error::NoSpace { .. }), "{large:?}");
    // What was stored is there and may be stored to again; holes read as zeros, and are zeroed for nothing.
    let mut buf = [0; 4096];
    for offset in (0..stored).step_by(4096) {
        device.read_at(offset, &mut buf).unwrap();
        assert_eq!(buf, [7; 4096]);
        device.write_at(offset, &[8; 4096]).unwrap();
    }
    device.read_at(30 << 20, &mut buf).unwrap();
    assert_eq!(buf, [0; 4096]);
    device.zero(16 << 20, 16 << 20).unwrap();
    device.flush().unwrap();
    let last = device.size() / 4096 - 1;
    assert!(matches!(device.direct_access(last, 1, Access::Write), Err(Error::NoSpace { .. })));
    // A run that begins where there is room ends where there is none.
    let run = device.direct_access(0, last + 1, Access::Write).unwrap();
    assert!(run.len() <= stored.next_multiple_of(64 << 10));
    run.zero(0, run.len()).unwrap();
    device.flush().unwrap();
    drop(device);
    let file = FileDevice::open(&path, &DeviceOptions::read_write()).unwrap();
    assert!(matches!(file.write_at(20 << 20, &vec![1; 8 << 20]), Err(Error::NoSpace { .. })));
}

#[test]
fn a_store_to_a_hole_on_a_full_tmpfs_is_an_error() {
    let Some(mount) = tmpfs() else {
        eprintln!("skipped: no tmpfs can be mounted here");
        return;
    };
    fills_up_with_an_error(&mount);
}

#[test]
fn a_store_to_a_hole_on_a_full_ext4_is_an_error() {
    let dir = TempDir::new().unwrap();
    let Some(mount) = ext4(dir.path()) else {
        eprintln!("skipped: no ext4 can be made and mounted here");
        return;
    };
    fills_up_with_an_error(&mount);
}

/// Room is made by stores there.
#[test]
fn a_store_to_a_hole_on_a_full_disk_that_cannot_allocate_is_an_error() {
    let dir = TempDir::new().unwrap();
    let Some(mount) = made_by(dir.path(), "ext2") else {
        eprintln!("skipped: no ext2 can be made and mounted here");
        return;
    };
    fills_up_with_an_error(&mount);
}
