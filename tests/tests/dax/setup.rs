//! A file system with blocks of a page in memory, and files of it.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use blockdev::{BlockDevice, Media, RamDevice};
use ext2_core::{BlockSize, Ext2, FileKind, Inode, NewInode, OpenOptions};
use ext2_dax::mmu::soft::{MapRequest, SoftMap, SoftMmu};
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};
use ext2_image::mkfs::{self, Format, Fresh};

/// An empty image of so many MiB.
pub(crate) fn device(mib: u64, media: Media) -> Arc<RamDevice> {
    let device = RamDevice::with_media(mib << 20, media).unwrap();
    format(&device);
    Arc::new(device)
}

pub(crate) fn format(device: &dyn BlockDevice) {
    let format = Format { block_size: BlockSize::new(4096), ..Format::default() };
    mkfs::format(device, &format, Fresh::Zeros).unwrap();
}

pub(crate) fn open(device: Arc<dyn BlockDevice>) -> DaxFs {
    DaxFs::new(Ext2::open(device, &OpenOptions::default()).unwrap(), DaxOptions::default())
}

/// A file system on fresh memory.
pub(crate) fn fresh(mib: u64) -> (Arc<RamDevice>, DaxFs) {
    let device = device(mib, Media::Volatile);
    (Arc::clone(&device), open(device))
}

pub(crate) fn inode(fs: &Ext2, name: &[u8]) -> Inode {
    fs.root().unwrap().create(name, &NewInode::new(FileKind::Regular, 0o644)).unwrap()
}

/// A new file, open for writing.
pub(crate) fn file(fs: &DaxFs, name: &[u8]) -> File {
    File::open(fs, inode(fs.ext2(), name), OpenFor::Writing).unwrap()
}

pub(crate) fn request(len: u64, sharing: Sharing) -> MapRequest {
    MapRequest { offset: 0, len, sharing, protection: Protection::ReadWrite, colour: 0 }
}

/// The first bytes of a file, mapped in an address space of its own.
pub(crate) fn map(file: &File, len: u64, sharing: Sharing) -> SoftMap {
    file.map(&SoftMmu::new(), &request(len, sharing)).unwrap()
}

/// What `work` gives, within seconds.
pub(crate) fn finishes<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(work()));
    told.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("{what}: waits for ever"))
}
