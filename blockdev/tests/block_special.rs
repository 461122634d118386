//! Block special files. Needs root, for a loop device.

#![cfg(feature = "std")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use blockdev::{BlockDevice, DeviceOptions, Error, FileDevice, MmapDevice, conformance};
use tempfile::TempDir;

struct Loop(PathBuf);

impl Loop {
    fn over(image: &Path) -> Option<Self> {
        let output = Command::new("losetup").args(["-f", "--show"]).arg(image).output().ok()?;
        let name = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| Self(PathBuf::from(name.trim())))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

#[test]
fn a_block_special_file_is_a_device_unless_it_is_mounted() {
    let dir = TempDir::new().unwrap();
    let image = dir.path().join("image");
    File::create(&image).unwrap().set_len(4 << 20).unwrap();
    let Some(device) = Loop::over(&image) else {
        eprintln!("skipped: no loop device here");
        return;
    };
    let options = DeviceOptions::read_write();
    let file = FileDevice::open(&device.0, &options).unwrap();
    assert_eq!(file.size(), 4 << 20);
    conformance::check(&file);
    drop(file);
    conformance::check(&MmapDevice::open(&device.0, &options).unwrap());

    let made = Command::new("mke2fs").args(["-q", "-t", "ext2"]).arg(&device.0).status();
    let at = TempDir::new().unwrap();
    let mounted = Command::new("mount").arg(&device.0).arg(at.path()).status();
    if !(made.is_ok_and(|made| made.success()) && mounted.is_ok_and(|mounted| mounted.success())) {
        eprintln!("skipped: no ext2 can be made and mounted here");
        return;
    }
    let refused = FileDevice::open(&device.0, &options);
    let read = FileDevice::open(&device.0, &DeviceOptions::read_only());
    let unmounted = Command::new("umount").arg(at.path()).status();
    let at = at.path().to_str().unwrap();
    assert!(matches!(&refused, Err(Error::InUse { by }) if by.contains(at)), "{refused:?}");
    assert!(read.is_ok() && unmounted.is_ok_and(|unmounted| unmounted.success()));
}
