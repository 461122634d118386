//! Other people's libraries over our devices, so that all read the same bytes from the same memory.

use std::io::{Error, Read, Result, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use blockdev::BlockDevice;

/// A device as the peers want to have it.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    device: Arc<dyn BlockDevice>,
    at: u64,
}

impl Disk {
    pub(crate) fn new(device: &Arc<dyn BlockDevice>) -> Self {
        Self { device: Arc::clone(device), at: 0 }
    }
}

impl Read for Disk {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.device.read_at(self.at, buf).map_err(Error::other)?;
        self.at += buf.len() as u64;
        Ok(buf.len())
    }
}

impl Write for Disk {
    fn write(&mut self, buf: &[u8]) -> Result<usize> {
        self.device.write_at(self.at, buf).map_err(Error::other)?;
        self.at += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> Result<()> {
        self.device.flush().map_err(Error::other)
    }
}

impl Seek for Disk {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.device.size().checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| Error::other("before the start"))?;
        Ok(self.at)
    }
}

impl ext4_view::Ext4Read for Disk {
    fn read(
        &mut self,
        start: u64,
        buf: &mut [u8],
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.device.read_at(start, buf)?)
    }
}

impl rsext4::BlockIo for Disk {
    fn write(&mut self, buf: &[u8], sector: rsext4::SectorId, _: u32) -> rsext4::Ext4Result<()> {
        self.device.write_at(sector.raw() * 512, buf).map_err(|_| rsext4::Ext4Error::io())
    }

    fn read(&mut self, buf: &mut [u8], sector: rsext4::SectorId, _: u32) -> rsext4::Ext4Result<()> {
        self.device.read_at(sector.raw() * 512, buf).map_err(|_| rsext4::Ext4Error::io())
    }

    fn geometry(&self) -> rsext4::DeviceGeometry {
        rsext4::DeviceGeometry::new(512, self.device.size() / 512)
    }

    fn capabilities(&self) -> rsext4::DeviceCapabilities {
        rsext4::DeviceCapabilities { flush: true, ..rsext4::DeviceCapabilities::default() }
    }

    fn flush(&mut self) -> rsext4::Ext4Result<()> {
        self.device.flush().map_err(|_| rsext4::Ext4Error::io())
    }
}

/// A clock that stands still.
struct Still;

impl rsext4::Clock for Still {
    fn now(&self) -> rsext4::Ext4Result<rsext4::Ext4Timestamp> {
        Ok(rsext4::Ext4Timestamp::new(1_800_000_000, 0))
    }
}

pub(crate) type Rsext4 = rsext4::Ext4<Disk, rsext4::MountedServices<(), rsext4::NoopObserver, ()>>;

/// The file system as rsext4 has it.
pub(crate) fn rsext4(
    device: &Arc<dyn BlockDevice>,
    options: rsext4::MountOptions,
) -> std::result::Result<Rsext4, rsext4::Ext4Error> {
    let services = rsext4::MountServices::new(Still, (), rsext4::NoopObserver);
    rsext4::Ext4::mount(Disk::new(device), services, options)
}

/// The inode of a name in a directory, as rsext4 finds it.
pub(crate) fn rsext4_child(
    fs: &mut Rsext4,
    parent: rsext4::InodeNumber,
    name: &str,
) -> Option<rsext4::InodeNumber> {
    let name = rsext4::FileName::new(name.as_bytes()).ok()?;
    Some(fs.lookup_child(parent, name).ok()??.number)
}

/// ext4-view over a device.
pub(crate) fn ext4_view(
    device: &Arc<dyn BlockDevice>,
) -> std::result::Result<ext4_view::Ext4, ext4_view::Ext4Error> {
    ext4_view::Ext4::load(Box::new(Disk::new(device)))
}

/// A program of ours over libext2fs, compiled now.
///
/// # Errors
/// Why there is none.
pub(crate) fn libext2fs(folder: &std::path::Path) -> std::result::Result<PathBuf, String> {
    let (source, program) = (folder.join("bmap.c"), folder.join("bmap"));
    std::fs::write(&source, include_str!("bmap.c")).map_err(|error| error.to_string())?;
    let compiled = Command::new("cc")
        .args(["-O2", "-o"])
        .args([&program, &source])
        .args(["-lext2fs", "-lcom_err"])
        .output()
        .map_err(|error| format!("no cc: {error}"))?;
    if compiled.status.success() { Ok(program) } else { Err("libext2fs-dev is not installed".into()) }
}
