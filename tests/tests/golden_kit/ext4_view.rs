//! Those of the jobs that ext4-view can do, in the shortest way that its interface allows.

use std::error::Error;
use std::path::Path;

use ext4_view::{Ext4, Ext4Read, PathBuf};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

// job: read a file
pub(super) fn read_file(image: &Path) -> Result<String> {
    let fs = Ext4::load_from_path(image)?;
    Ok(fs.read_to_string("/etc/hostname")?)
}

// job: list a directory
pub(super) fn list(image: &Path) -> Result<Vec<String>> {
    let fs = Ext4::load_from_path(image)?;
    fs.read_dir("/etc")?.map(|entry| Ok(entry?.file_name().display().to_string())).collect()
}

// job: every file below a directory
pub(super) fn every_file(image: &Path) -> Result<Vec<PathBuf>> {
    let fs = Ext4::load_from_path(image)?;
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::try_from("/etc")?]);
    while let Some(folder) = folders.pop() {
        for entry in fs.read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name() == "." || entry.file_name() == ".." {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    Ok(found)
}

// job: part of a file
pub(super) fn part_of_a_file(image: &Path) -> Result<[u8; 5]> {
    let fs = Ext4::load_from_path(image)?;
    let mut bytes = [0; 5];
    let mut file = fs.open("/var/big")?;
    file.seek_to(100_000)?;
    std::io::Read::read_exact(&mut file, &mut bytes)?;
    Ok(bytes)
}

// job: a file to a stream
pub(super) fn to_a_stream(image: &Path, out: &mut impl std::io::Write) -> Result<u64> {
    let fs = Ext4::load_from_path(image)?;
    Ok(std::io::copy(&mut fs.open("/var/big")?, out)?)
}

// job: owner, mode and size
pub(super) fn attributes(image: &Path) -> Result<(u32, u16, u64)> {
    let fs = Ext4::load_from_path(image)?;
    let found = fs.metadata("/etc/hostname")?;
    Ok((found.uid(), found.mode(), found.len()))
}

// job: where a link leads
pub(super) fn link_target(image: &Path) -> Result<String> {
    let fs = Ext4::load_from_path(image)?;
    Ok(fs.read_link("/etc/link")?.display().to_string())
}

// job: a file of an image in memory
pub(super) fn from_memory(image: Vec<u8>) -> Result<Vec<u8>> {
    let fs = Ext4::load(Box::new(image))?;
    Ok(fs.read("/etc/hostname")?)
}

// job: a device of one's own
struct Remote(super::Store);

impl Ext4Read for Remote {
    fn read(&mut self, offset: u64, buf: &mut [u8]) -> std::result::Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.0.fetch(offset, buf)?)
    }
}

pub(super) fn own_device(store: super::Store) -> Result<Vec<u8>> {
    Ok(Ext4::load(Box::new(Remote(store)))?.read("/etc/hostname")?)
}
// end
