//! What the machine does with image files: the kernel holds them, disks are full.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use blockdev::{
    Access, BlockDevice, DaxDevice, DeviceOptions, Error, FileDevice, Locking, MmapDevice, Partition,
};
use e2dax_tests::{need_mount, need_tools, skip, tools};
use ext2_core::{Ext2, FileKind, NewInode};
use tempfile::TempDir;

fn run(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// An ext2 in a loop device, detached and unmounted at the end.
struct Loop {
    device: String,
    mounted: Option<TempDir>,
}

impl Loop {
    fn attach(image: &Path, options: &[&str]) -> Option<Self> {
        let mut args = vec!["-f", "--show"];
        args.extend(options);
        args.push(image.to_str()?);
        Some(Self { device: run("losetup", &args)?, mounted: None })
    }

    fn mount(&mut self) -> Option<()> {
        let at = TempDir::new().ok()?;
        run("mount", &["-t", "ext2", &self.device, at.path().to_str()?])?;
        self.mounted = Some(at);
        Some(())
    }

    fn unmount(&mut self) {
        if let Some(at) = self.mounted.take() {
            run("umount", &[at.path().to_str().unwrap()]).unwrap();
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.unmount();
        run("losetup", &["-d", &self.device]);
    }
}

fn ext2(dir: &Path, offset: u64) -> Option<PathBuf> {
    let path = dir.join("disk.img");
    File::create(&path).ok()?.set_len(offset + (4 << 20)).ok()?;
    let offset = format!("offset={offset}");
    run("mke2fs", &["-q", "-F", "-t", "ext2", "-b", "1024", "-E", &offset, path.to_str()?, "4096"])?;
    Some(path)
}

#[track_caller]
fn refused(device: &dyn BlockDevice, by: &str) {
    match device.claim(0, device.size()) {
        Err(Error::InUse { by: found }) => assert!(found.contains(by), "{found}"),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn an_image_that_the_kernel_has_mounted_is_refused_by_the_name_of_its_mount() {
    need_mount!();
    need_tools!("losetup", "mke2fs");
    let dir = TempDir::new().unwrap();
    let path = ext2(dir.path(), 0).unwrap();
    let mut device = Loop::attach(&path, &[]).unwrap();
    // Attached, and used by nobody.
    let image = MmapDevice::open(&path, &DeviceOptions::read_write()).unwrap();
    drop(image.claim(0, image.size()).unwrap());
    device.mount().unwrap();
    let at = device.mounted.as_ref().unwrap().path().to_str().unwrap().to_string();
    refused(&image, &format!("is mounted on {at}"));
    drop(image);
    let file = FileDevice::open(&path, &DeviceOptions::read_write()).unwrap();
    refused(&file, &at);
    drop(file);
    // The file under another path, and under none.
    let other = dir.path().join("other");
    std::fs::hard_link(&path, &other).unwrap();
    refused(&FileDevice::open(&other, &DeviceOptions::read_write()).unwrap(), &at);
    std::fs::remove_file(&path).unwrap();
    refused(&FileDevice::open(&other, &DeviceOptions::read_write()).unwrap(), &at);
    // Who asks for no question gets none; who only reads claims nothing.
    let skip = DeviceOptions { lock: Locking::Skip, ..DeviceOptions::read_write() };
    drop(FileDevice::open(&other, &skip).unwrap().claim(0, 1024).unwrap());
    let mut superblock = [0; 1024];
    FileDevice::open(&other, &DeviceOptions::read_only()).unwrap().read_at(1024, &mut superblock).unwrap();
    // The block device itself.
    match MmapDevice::open(Path::new(&device.device), &DeviceOptions::read_write()) {
        Err(Error::InUse { by }) => assert!(by.contains(&at), "{by}"),
        other => panic!("not refused: {other:?}"),
    }
    device.unmount();
    let file = FileDevice::open(&other, &DeviceOptions::read_write()).unwrap();
    drop(file.claim(0, file.size()).unwrap());
    drop(MmapDevice::open(Path::new(&device.device), &DeviceOptions::read_write()).unwrap());
}

#[test]
fn a_mount_in_another_namespace_is_found() {
    need_mount!();
    need_tools!("losetup", "mke2fs");
    let dir = TempDir::new().unwrap();
    let path = ext2(dir.path(), 0).unwrap();
    let device = Loop::attach(&path, &[]).unwrap();
    let at = TempDir::new().unwrap();
    let script = format!("mount -t ext2 {} {} && echo up && read line", device.device, at.path().display());
    let child = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut child) = child else { skip!("no unshare") };
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    if line.trim() != "up" {
        child.wait().unwrap();
        skip!("no mount in a namespace of its own");
    }
    let file = FileDevice::open(&path, &DeviceOptions::read_write()).unwrap();
    refused(&file, "used elsewhere");
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn bytes_that_a_mounted_loop_device_does_not_show_are_free() {
    const OFFSET: u64 = 1 << 20;
    need_mount!();
    need_tools!("losetup", "mke2fs");
    let dir = TempDir::new().unwrap();
    let path = ext2(dir.path(), OFFSET).unwrap();
    let mut device = Loop::attach(&path, &["-o", "1048576"]).unwrap();
    device.mount().unwrap();
    let file = Arc::new(FileDevice::open(&path, &DeviceOptions::read_write()).unwrap());
    refused(&file, "is mounted on");
    refused(&Partition::from_offset(file.clone(), OFFSET).unwrap(), "is mounted on");
    drop(Partition::new(file.clone(), 0, OFFSET).unwrap().claim(0, OFFSET).unwrap());
}

/// A file system that is mounted over a file, for as long as this lives.
struct Disk {
    at: TempDir,
    _file: TempDir,
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &[self.at.path().to_str().unwrap()]);
    }
}

impl Disk {
    fn tmpfs(megabytes: u32) -> Option<Self> {
        let disk = Self { at: TempDir::new().ok()?, _file: TempDir::new().ok()? };
        let size = format!("size={megabytes}m");
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", disk.at.path().to_str()?])?;
        Some(disk)
    }

    /// XFS, whose files can share their blocks.
    fn xfs() -> Option<Self> {
        let disk = Self { at: TempDir::new().ok()?, _file: TempDir::new().ok()? };
        let file = disk._file.path().join("xfs");
        File::create(&file).ok()?.set_len(320 << 20).ok()?;
        run("mkfs.xfs", &["-q", "-m", "reflink=1", file.to_str()?])?;
        run("mount", &["-o", "loop", file.to_str()?, disk.at.path().to_str()?])?;
        Some(disk)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.at.path().join(name)
    }

    /// Takes all the room that is left.
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

fn is_full<T: std::fmt::Debug>(result: Result<T, Error>) -> u64 {
    match result {
        Err(Error::NoSpace { offset }) => offset,
        other => panic!("not full: {other:?}"),
    }
}

#[test]
fn a_store_to_blocks_that_a_copy_shares_is_an_error_on_a_full_disk() {
    need_mount!();
    need_tools!("mkfs.xfs", "cp");
    let Some(disk) = Disk::xfs() else { skip!("the kernel mounts no XFS here") };
    const SIZE: u64 = 8 << 20;
    std::fs::write(disk.path("original"), vec![7; SIZE as usize]).unwrap();
    tools::run(
        "cp",
        &["--reflink=always".as_ref(), disk.path("original").as_os_str(), disk.path("copy").as_os_str()],
    )
    .unwrap();
    disk.fill();
    let device = MmapDevice::open(&disk.path("copy"), &DeviceOptions::read_write()).unwrap();
    let at = 3 << 20;
    // XFS keeps some blocks back for itself, which the first stores may take.
    let first = (0..SIZE / 4096).find(|page| device.write_u32(page * 4096, 1).is_err());
    let full = first.expect("the disk never fills up") * 4096;
    assert!(full <= at, "full from {full} on");
    assert_eq!(is_full(device.write_u32(at + 4, 1)), at + 4);
    assert_eq!(is_full(device.write_at(at, &[1; 5000])), at);
    assert_eq!(is_full(device.write_at(at, &[1; 200_000])), at);
    assert_eq!(is_full(device.write_words(at + 8, &[1, 2])), at + 8);
    let slice = device.direct_access(at / 4096, 1, Access::Write).unwrap();
    match slice.store_u64(16, 1) {
        Err(Error::Io { op: "store", offset, errno: Some(5), .. }) => assert_eq!(offset, at + 16),
        other => panic!("{other:?}"),
    }
    // Nothing was lost: neither here nor in the original.
    let mut page = [0; 4096];
    device.read_at(at, &mut page).unwrap();
    assert_eq!(page, [7; 4096]);
    std::fs::remove_file(disk.path("filler")).unwrap();
    device.write_at(at, &[1; 5000]).unwrap();
    slice.store_u64(16, 2).unwrap();
    device.flush().unwrap();
    assert!(std::fs::read(disk.path("original")).unwrap().iter().all(|&byte| byte == 7));
}

#[test]
fn a_sparse_image_on_a_full_tmpfs_is_read_as_it_is() {
    need_mount!();
    let disk = Disk::tmpfs(2).unwrap();
    File::create(disk.path("image")).unwrap().set_len(32 << 20).unwrap();
    disk.fill();
    // A load from a hole takes memory there, of which there is none; the file knows what the hole reads as.
    let device = MmapDevice::open(&disk.path("image"), &DeviceOptions::read_only()).unwrap();
    let mut buf = vec![1; 1 << 20];
    for offset in (0..32 << 20).step_by(1 << 20) {
        device.read_at(offset, &mut buf).unwrap();
        assert!(buf.iter().all(|&byte| byte == 0));
        assert_eq!(device.read_u32(offset + 64), Ok(0));
    }
    let slice = device.direct_access(77, 1, Access::Read).unwrap();
    assert!(matches!(slice.load_u8(5), Err(Error::Io { offset, .. }) if offset == 77 * 4096 + 5));
}

/// A file system in an image that shares its blocks with a copy on a full disk.
fn shared_ext2(disk: &Disk) -> PathBuf {
    let original = disk.path("ext2.img");
    File::create(&original).unwrap().set_len(16 << 20).unwrap();
    tools::mke2fs(&["-q".as_ref(), "-t".as_ref(), "ext2".as_ref(), original.as_os_str()]);
    let image = std::fs::read(&original).unwrap();
    // With all of its blocks.
    std::fs::remove_file(&original).unwrap();
    std::fs::write(&original, image).unwrap();
    let copy = disk.path("copy.img");
    tools::run("cp", &["--reflink=always".as_ref(), original.as_os_str(), copy.as_os_str()]).unwrap();
    copy
}

#[test]
fn a_file_system_whose_disk_fills_up_gives_errors_and_loses_nothing_that_was_synced() {
    need_mount!();
    need_tools!("mkfs.xfs", "cp", "e2fsck");
    let Some(disk) = Disk::xfs() else { skip!("the kernel mounts no XFS here") };
    let path = shared_ext2(&disk);
    let device = MmapDevice::open(&path, &DeviceOptions::read_write()).unwrap();
    let fs = Ext2::open(Arc::new(device), &ext2_core::OpenOptions::default()).unwrap();
    let root = fs.root().unwrap();
    let kept = root.create(b"kept", &NewInode::new(FileKind::Regular, 0o644)).unwrap();
    kept.write_at(0, b"before the disk was full").unwrap();
    fs.sync().unwrap();
    disk.fill();
    let mut failed = None;
    for nr in 0..100_000 {
        let name = format!("file{nr}");
        let made = root.create(name.as_bytes(), &NewInode::new(FileKind::Regular, 0o644));
        let done = made.and_then(|made| made.write_at(0, &[nr as u8; 20_000]));
        if let Err(error) = done {
            failed = Some(error);
            break;
        }
    }
    let error = failed.expect("neither the disk nor the image fills up");
    assert!(matches!(error, ext2_core::Error::Device(Error::NoSpace { .. })), "{error:?}");
    let mut buf = [0; 24];
    kept.read_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"before the disk was full");
    drop((root, kept));
    // It may not be able to write that it is clean.
    let _ = fs.close();
    std::fs::remove_file(disk.path("filler")).unwrap();
    tools::run("e2fsck", &["-fp".as_ref(), path.as_os_str()])
        .or_else(|text| {
            // Exit code 1: mended.
            if text.contains("UNEXPECTED INCONSISTENCY") { Err(text) } else { Ok(Default::default()) }
        })
        .unwrap();
    tools::e2fsck_fn(&path).unwrap();
    let fs = Ext2::open(
        Arc::new(MmapDevice::open(&path, &DeviceOptions::read_only()).unwrap()),
        &ext2_core::OpenOptions::read_only(),
    )
    .unwrap();
    let kept = fs.root().unwrap().lookup(b"kept").unwrap();
    kept.read_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"before the disk was full");
}

#[test]
fn a_device_is_opened_for_writing_once() {
    let device: Arc<dyn BlockDevice> = {
        need_tools!("mke2fs");
        let dir = TempDir::new().unwrap();
        let path = ext2(dir.path(), 0).unwrap();
        Arc::new(blockdev::RamDevice::from_bytes(&std::fs::read(path).unwrap()).unwrap())
    };
    let write = ext2_core::OpenOptions::default();
    let first = Ext2::open(device.clone(), &write).unwrap();
    let again = |device: &Arc<dyn BlockDevice>| Ext2::open(device.clone(), &write).map(|_| ());
    let error = again(&device).unwrap_err();
    assert_eq!(error.errno(), ext2_core::Errno::BUSY, "{error}");
    let layered: Arc<dyn BlockDevice> = Arc::new(Partition::from_offset(device.clone(), 0).unwrap());
    assert_eq!(again(&layered).unwrap_err().errno(), ext2_core::Errno::BUSY);
    // Readers are welcome.
    let reader = Ext2::open(device.clone(), &ext2_core::OpenOptions::read_only()).unwrap();
    assert!(reader.root().is_ok());
    // Once it is closed the device is free, whoever still holds what he read from it.
    let held = first.root().unwrap();
    first.close().unwrap();
    Ext2::open(device.clone(), &write).unwrap().close().unwrap();
    assert!(held.lookup(b"lost+found").is_ok());
    // An open that fails keeps nothing.
    device.write_u16(1024 + 56, 0).unwrap();
    assert!(again(&device).is_err());
    device.write_u16(1024 + 56, 0xef53).unwrap();
    again(&device).unwrap();
}
