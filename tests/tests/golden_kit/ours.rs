//! The jobs, in the shortest way that our interface allows.

use std::error::Error;
use std::path::Path;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

use blockdev::{Access, ReadAt, ReadDevice};
use ext2_core::{Cursor, Ext2, Follow, OpenOptions};
use ext2_dax::{DaxFs, DaxOptions, File, Lease, LeasedRun, OpenFor};
use ext2_image::{check, copy, manifest, mkfs};

// job: read a file
pub(super) fn read_file(image: &Path) -> Result<String> {
    let fs = Ext2::open_path(image, &OpenOptions::read_only())?;
    Ok(fs.read_to_string("/etc/hostname")?)
}

// job: list a directory
pub(super) fn list(image: &Path) -> Result<Vec<String>> {
    let fs = Ext2::open_path(image, &OpenOptions::read_only())?;
    fs.read_dir("/etc")?.map(|entry| Ok(entry?.name.to_string())).collect()
}

// job: every file below a directory
pub(super) fn every_file(image: &Path) -> Result<Vec<Vec<u8>>> {
    let fs = Ext2::open_path(image, &OpenOptions::read_only())?;
    fs.walk("/etc")?.map(|found| Ok(found?.path)).collect()
}

// job: part of a file
pub(super) fn part_of_a_file(image: &Path) -> Result<[u8; 5]> {
    let fs = Ext2::open_path(image, &OpenOptions::read_only())?;
    let mut bytes = [0; 5];
    fs.resolve("/var/big", Follow::Yes)?.read_exact_at(100_000, &mut bytes)?;
    Ok(bytes)
}

// job: a file to a stream
pub(super) fn to_a_stream(image: &Path, out: &mut impl std::io::Write) -> Result<u64> {
    let fs = Ext2::open_path(image, &OpenOptions::read_only())?;
    Ok(std::io::copy(&mut Cursor::new(fs.resolve("/var/big", Follow::Yes)?), out)?)
}

// job: owner, mode and size
pub(super) fn attributes(image: &Path) -> Result<(u32, u16, u64)> {
    let fs = Ext2::open_path(image, &OpenOptions::read_only())?;
    let found = fs.metadata("/etc/hostname")?;
    Ok((found.uid, found.mode, found.size))
}

// job: where a link leads
pub(super) fn link_target(image: &Path) -> Result<String> {
    let fs = Ext2::open_path(image, &OpenOptions::read_only())?;
    Ok(fs.read_link("/etc/link")?.to_string())
}

// job: a file of an image in memory
pub(super) fn from_memory(image: Vec<u8>) -> Result<Vec<u8>> {
    let fs = Ext2::open(ReadDevice::new(image)?, &OpenOptions::read_only())?;
    Ok(fs.read("/etc/hostname")?)
}

// job: a device of one's own
struct Remote(super::Store);

impl ReadAt for Remote {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> blockdev::Result<()> {
        self.0.fetch(offset, buf).map_err(|error| blockdev::Error::io("read", offset, error))
    }
}

pub(super) fn own_device(store: super::Store, size: u64) -> Result<Vec<u8>> {
    let device = ReadDevice::with_size(Remote(store), size);
    Ok(Ext2::open(device, &OpenOptions::read_only())?.read("/etc/hostname")?)
}

// job: write a file
pub(super) fn write_file(image: &Path) -> Result<()> {
    let fs = Ext2::open_path(image, &OpenOptions::default())?;
    fs.write("/etc/motd", "welcome\n")?;
    fs.close()?;
    Ok(())
}

// job: a tree out of an image
pub(super) fn tree_out(image: &Path, into: &Path) -> Result<()> {
    let fs = Ext2::open_path(image, &OpenOptions::read_only())?;
    copy::extract(&fs.resolve("/etc", Follow::Yes)?, b"/etc", into, None, &mut Vec::<String>::new())?;
    Ok(())
}

// job: is an image sound?
pub(super) fn is_sound(image: &Path) -> Result<bool> {
    let device = blockdev::open_image(image, &blockdev::DeviceOptions::read_only())?;
    Ok(check::check(&*device, &check::Options::default(), &mut |_| ())?.is_clean())
}

// job: is it what a manifest says?
pub(super) fn is_as_committed(image: &Path, committed: &str) -> Result<bool> {
    let fs = Ext2::open_path(image, &OpenOptions::read_only())?;
    Ok(manifest::diff(&manifest::parse(committed)?, &manifest::from_image(&fs)?).is_empty())
}

// job: an image of a directory
pub(super) fn image_of(folder: &Path, image: &Path) -> Result<()> {
    mkfs::source::image_of_directory(folder, image, &mkfs::Format::default())?;
    Ok(())
}

// job: memory slots of a guest
pub(super) fn slots(image: &Path) -> Result<(Lease, Vec<LeasedRun>)> {
    let fs = Ext2::open_path(image, &OpenOptions::default())?;
    let inode = fs.resolve("/var/big", Follow::Yes)?;
    let file = File::open(&DaxFs::new(fs, DaxOptions::default()), inode, OpenFor::Writing)?;
    let lease = file.lease(0..file.size(), Access::Write)?;
    let runs = lease.runs()?;
    Ok((lease, runs))
}
// end
