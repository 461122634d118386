//! Images and files to measure on.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use blockdev::{BlockDevice, RamDevice};
use ext2_core::{Ext2, FileBlock, FileKind, FixedClock, Inode, NewInode, OpenOptions, Timestamp};

/// Blocks of 4 KiB of a file that hang directly from the inode, and from the first, second and third tree on:
/// the first block of each depth.
pub const FIRST_OF_DEPTH: [u64; 4] = [0, 12, 1036, 1_049_612];

/// Runs `mke2fs` on a file, which is made `size` bytes long. Blocks are of 4 KiB.
///
/// # Errors
/// Where it cannot be run, or fails.
pub fn mke2fs<S: AsRef<OsStr>>(image: &Path, size: u64, arguments: &[S]) -> io::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(image)?;
    file.set_len(size)?;
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let status = Command::new("mke2fs")
        .env("PATH", path)
        .args(["-q", "-F", "-t", "ext2", "-b", "4096", "-I", "256"])
        .args(arguments)
        .arg(image)
        .stdin(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("mke2fs: {status}"))) }
}

/// A device in memory with a fresh file system of `size` bytes and `inodes` inodes on it.
///
/// # Errors
/// Where there is no `mke2fs`, no room in the temporary folder or no memory.
pub fn ram(size: u64, inodes: u32) -> io::Result<Arc<RamDevice>> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("image");
    mke2fs(&image, size, &["-N", &inodes.to_string()])?;
    load(&image)
}

/// A device in memory with the contents of a file, whose holes stay untouched.
///
/// # Errors
/// Where the file cannot be read or there is no memory.
pub fn load(image: &Path) -> io::Result<Arc<RamDevice>> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(image)?;
    let size = file.metadata()?.len();
    let device = RamDevice::new(size).map_err(io::Error::other)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < size {
        // Without SEEK_DATA the whole file is data.
        at = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)).unwrap_or(size);
        let end = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(at)).unwrap_or(size);
        while at < end {
            file.seek(SeekFrom::Start(at))?;
            // OK to cast: at most the buffer's length.
            let part = &mut buffer[..(end - at).min(1 << 20) as usize];
            file.read_exact(part)?;
            device.write_at(at, part).map_err(io::Error::other)?;
            at += part.len() as u64;
        }
    }
    Ok(Arc::new(device))
}

/// The file system on a device, with a clock that stands still.
///
/// # Errors
/// As `Ext2::open`.
pub fn open(device: Arc<dyn BlockDevice>, read_only: bool) -> ext2_core::Result<Ext2> {
    let now = Timestamp { sec: 1_800_000_000, nsec: 0 };
    let options = OpenOptions { read_only, clock: Some(Arc::new(FixedClock(now))), ..OpenOptions::default() };
    Ext2::open(device, &options)
}

/// A new regular file.
///
/// # Errors
/// As `Inode::create`.
pub fn file(folder: &Inode, name: &str) -> ext2_core::Result<Inode> {
    folder.create(name.as_bytes(), &NewInode::new(FileKind::Regular, 0o644))
}

/// A new directory.
///
/// # Errors
/// As `Inode::create`.
pub fn folder(parent: &Inode, name: &str) -> ext2_core::Result<Inode> {
    parent.create(name.as_bytes(), &NewInode::new(FileKind::Directory, 0o755))
}

/// Fills a file with `len` bytes that are nowhere zero, a megabyte a call.
///
/// # Errors
/// As `Inode::write_at`.
pub fn fill(file: &Inode, len: u64) -> ext2_core::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        buffer.chunks_exact_mut(8).zip(at + 1..).for_each(|(word, n)| {
            word.copy_from_slice(&(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1).to_le_bytes());
        });
        // OK to cast: at most the buffer's length.
        let part = &buffer[..(len - at).min(1 << 20) as usize];
        at += file.write_at(at, part)? as u64;
    }
    Ok(())
}

/// A file with `count` blocks of data at the beginning of every depth, and holes between.
///
/// # Errors
/// As `Inode::write_at`.
pub fn deep_file(folder: &Inode, name: &str, count: u64) -> ext2_core::Result<Inode> {
    let deep = file(folder, name)?;
    let bytes = vec![7; 4096];
    for first in FIRST_OF_DEPTH {
        for block in first..first + count {
            deep.write_at(block * 4096, &bytes)?;
        }
    }
    Ok(deep)
}

/// A file of which every other block is a hole, with `count` blocks of data: no two of them are a run.
///
/// # Errors
/// As `Inode::write_at`.
pub fn file_in_pieces(folder: &Inode, name: &str, count: u64) -> ext2_core::Result<Inode> {
    let pieces = file(folder, name)?;
    let bytes = vec![7; 4096];
    for block in (0..count).map(|nr| 2 * nr) {
        pieces.write_at(block * 4096, &bytes)?;
    }
    Ok(pieces)
}

/// The bytes of the device at which these bytes of a file lie, whose blocks are of 4 KiB.
///
/// # Errors
/// As `Inode::extents`; the file has a hole there.
pub fn places(file: &Inode, offsets: impl Iterator<Item = u64>) -> io::Result<Vec<u64>> {
    let extents: Vec<_> = file.extents().collect::<ext2_core::Result<_>>().map_err(io::Error::other)?;
    let place = |offset: u64| {
        let block = FileBlock::new(offset / 4096);
        let run = extents.get(extents.partition_point(|extent| extent.end() <= block))?;
        let within = block.get().checked_sub(run.start.get())?;
        Some((u64::from(run.target?.get()) + within) * 4096 + offset % 4096)
    };
    offsets.map(|offset| place(offset).ok_or_else(|| io::Error::other("a hole"))).collect()
}

/// The first block of a file at a depth.
#[must_use]
pub fn first_of_depth(depth: usize) -> FileBlock {
    FileBlock::new(FIRST_OF_DEPTH[depth])
}
