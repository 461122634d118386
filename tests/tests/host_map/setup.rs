//! Images in files of the host, and every way to map them.

use std::path::Path;
use std::sync::Arc;

use blockdev::{BlockDevice, MmapDevice};
use e2dax_tests::tools;
use ext2_core::{BlockSize, Ext2, FileKind, Inode, NewInode, OpenOptions};
use ext2_dax::mmu::host::{Faulting, Granularity, HostMap, HostMmu, HostOptions, Tracking};
use ext2_dax::mmu::soft::MapRequest;
use ext2_dax::mmu::{Protection, Sharing};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};
use ext2_image::mkfs::{self, Format, Fresh};
use tempfile::NamedTempFile;

pub(crate) const PAGE: u64 = 4096;
pub(crate) const UNIT: u64 = 2 << 20;

/// Every way, those left out that the kernel does not allow.
pub(crate) fn ways() -> Vec<HostOptions> {
    let eager = HostOptions { faulting: Faulting::Eager, ..tracking() };
    let mut ways = vec![eager];
    if HostMmu::features().faults {
        ways.extend(answered());
    }
    ways
}

/// The ways in which somebody answers faults.
pub(crate) fn answered() -> [HostOptions; 3] {
    let extents = HostOptions { faulting: Faulting::Userfaultfd, ..tracking() };
    let pages = HostOptions { granularity: Granularity::Pages, ..extents };
    [extents, pages, HostOptions { user_only: true, ..extents }]
}

/// What all tests go by: `E2DAX_HOST_TRACKING` makes it `pages`, `protection` (pages, as before Linux 6.7) or `entries`.
fn tracking() -> HostOptions {
    let wanted = std::env::var("E2DAX_HOST_TRACKING").unwrap_or_default();
    let (tracking, before_6_7) = match wanted.as_str() {
        "" => (Tracking::Auto, false),
        "pages" => (Tracking::Pages, false),
        "protection" => (Tracking::Pages, true),
        "entries" => (Tracking::Entries, false),
        other => panic!("E2DAX_HOST_TRACKING: {other}"),
    };
    HostOptions { tracking, before_6_7, ..HostOptions::default() }
}

/// Every way to tell stores apart: by the kernel where it does, by protection that is answered as faults are, by protection
/// and signals, with and without somebody who answers faults.
pub(crate) fn tracked() -> Vec<HostOptions> {
    let pages = |way| HostOptions { tracking: Tracking::Pages, before_6_7: false, ..way };
    let before = |way| HostOptions { before_6_7: true, ..pages(way) };
    let eager = HostOptions { faulting: Faulting::Eager, ..HostOptions::default() };
    let mut all = vec![before(eager), HostOptions { tracking: Tracking::Entries, ..eager }];
    if HostMmu::features().faults {
        all.extend(answered().map(before));
        all.push(HostOptions { tracking: Tracking::Entries, before_6_7: false, ..answered()[0] });
    }
    if HostMmu::features().stores {
        all.extend(answered().map(pages));
    }
    all
}

/// Leaves the calling test, aloud, where page faults cannot be answered.
macro_rules! need_faults {
    () => {
        if !ext2_dax::mmu::host::HostMmu::features().faults {
            e2dax_tests::skip!("no userfaultfd");
        }
    };
}
pub(crate) use need_faults;

/// A file system in a file on a tmpfs.
pub(crate) struct Image {
    pub(crate) path: NamedTempFile,
    pub(crate) fs: DaxFs,
}

/// An empty file system of so many MiB.
pub(crate) fn image(mib: u64) -> Image {
    let folder = if Path::new("/dev/shm").is_dir() { Path::new("/dev/shm") } else { Path::new("/tmp") };
    image_in(folder, mib)
}

pub(crate) fn image_in(folder: &Path, mib: u64) -> Image {
    let path = tempfile::Builder::new().prefix("host-map").tempfile_in(folder).unwrap();
    path.as_file().set_len(mib << 20).unwrap();
    let device = MmapDevice::open(path.path(), &blockdev::DeviceOptions::read_write()).unwrap();
    format(&device);
    Image { path, fs: open(Arc::new(device)) }
}

pub(crate) fn format(device: &dyn BlockDevice) {
    let format = Format { block_size: BlockSize::new(4096), ..Format::default() };
    mkfs::format(device, &format, Fresh::Unknown).unwrap();
}

pub(crate) fn open(device: Arc<dyn BlockDevice>) -> DaxFs {
    DaxFs::new(Ext2::open(device, &OpenOptions::default()).unwrap(), DaxOptions::default())
}

impl Image {
    pub(crate) fn inode(&self, name: &[u8]) -> Inode {
        self.fs.ext2().root().unwrap().create(name, &NewInode::new(FileKind::Regular, 0o644)).unwrap()
    }

    /// A new file, open for writing.
    pub(crate) fn file(&self, name: &[u8]) -> File {
        File::open(&self.fs, self.inode(name), OpenFor::Writing).unwrap()
    }

    /// Closes it, with no file open or mapped any more, and asks e2fsck.
    pub(crate) fn close(self) {
        let ext2 = self.fs.ext2().clone();
        drop(self.fs);
        let _ = ext2.close().unwrap();
        if tools::have("e2fsck") {
            tools::e2fsck_fn(self.path.path()).unwrap();
        }
    }
}

pub(crate) fn request(len: u64, sharing: Sharing) -> MapRequest {
    MapRequest { offset: 0, len, sharing, protection: Protection::ReadWrite, colour: 0 }
}

/// The first bytes of a file, mapped by a service of its own.
pub(crate) fn map(file: &File, way: HostOptions, len: u64, sharing: Sharing) -> HostMap {
    file.map_host(&HostMmu::new(way).unwrap(), &request(len, sharing)).unwrap()
}

/// `len` bytes of the mapping.
pub(crate) fn loaded(map: &HostMap, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; len];
    map.try_load(offset, &mut bytes).unwrap();
    bytes
}

/// `len` bytes of the file.
pub(crate) fn read(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; len];
    assert_eq!(file.read_at(offset, &mut bytes).unwrap(), len as u64);
    bytes
}

/// Bytes that differ from page to page.
pub(crate) fn pattern(page: u64) -> Vec<u8> {
    (0..PAGE).map(|at| (page.wrapping_mul(31) ^ at.wrapping_mul(7) ^ 1) as u8).collect()
}
