//! Opening files: modes, locks, and errors of the system.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt as _, OpenOptionsExt};
use std::path::Path;

use alloc::string::{String, ToString};
use alloc::sync::Arc;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::image_file::ImageFile;
use crate::{
    BlockDevice, CacheOptions, Cached, Error, FileDevice, LostPages, MmapDevice, PAGE_SIZE, RamDevice,
    ReadOnly, Result,
};

/// What a fence costs and is worth on a file that is not persistent memory itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A fence is program order, kept by the page cache: whatever kills the process, its stores survive
    /// in order. A power cut or a kernel crash may lose or reorder anything since the last `flush`.
    #[default]
    Relaxed,
    /// A fence waits until everything before it is on the media: order survives power cuts too, at the
    /// price of a write-out for each.
    Strict,
}

/// Whether to take the advisory lock of the file, and to ask what the kernel does with it before it is
/// [claimed](BlockDevice::claim) for writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Locking {
    /// Exclusive for writing, shared for reading; an error if somebody has it. It is what keeps a second
    /// writer, or a truncation by one of our own kind, away from under a map.
    #[default]
    Take,
    /// No lock, and no question.
    Skip,
}

/// What kind of device an image becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// [`MmapDevice`]: memory, so with DAX.
    #[default]
    Mmap,
    /// [`FileDevice`]: system calls, no DAX.
    File,
    /// [`FileDevice`] under a [`Cached`] of the default size: fewer system calls, no DAX.
    Cached,
    /// A [`RamDevice`] that begins as a copy of the image; what is written to it is lost.
    Ram,
}

/// How to open an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceOptions {
    /// What kind of device [`open_image`] makes.
    pub kind: Backend,
    /// Opens for reading only; needs no write permission.
    pub read_only: bool,
    /// What a fence means.
    pub durability: Durability,
    /// Whether to lock the file.
    pub lock: Locking,
    /// What becomes of a page that the system cannot supply, of an image that is mapped.
    pub lost_pages: LostPages,
}

impl DeviceOptions {
    /// Reading only, locked shared.
    pub fn read_only() -> Self {
        Self { read_only: true, ..Self::default() }
    }

    /// Reading and writing, locked exclusively, with [`Durability::Relaxed`].
    pub fn read_write() -> Self {
        Self::default()
    }
}

/// Opens the image at `path` as the kind of device that `options` asks for.
///
/// # Errors
/// `Io`, with `op` `open`, `lock`, `map` or `read`; `InUse` for a block device that the kernel holds; `NoSpace` for an image that does not fit into memory.
pub fn open_image(path: &Path, options: &DeviceOptions) -> Result<Arc<dyn BlockDevice>> {
    match options.kind {
        Backend::Mmap => Ok(Arc::new(MmapDevice::open(path, options)?)),
        Backend::File => Ok(Arc::new(FileDevice::open(path, options)?)),
        Backend::Cached => {
            Ok(Arc::new(Cached::new(FileDevice::open(path, options)?, CacheOptions::default())?))
        }
        Backend::Ram => {
            let ram = load(path, options.lock)?;
            Ok(if options.read_only { Arc::new(ReadOnly::new(ram)) } else { Arc::new(ram) })
        }
    }
}

/// A copy of the image in memory, as sparse as the image.
fn load(path: &Path, lock: Locking) -> Result<RamDevice> {
    let file = FileDevice::open(path, &DeviceOptions { lock, ..DeviceOptions::read_only() })?;
    let ram = RamDevice::new(file.size())?;
    let mut buf = alloc::vec![0; 256 << 10];
    let mut at = 0;
    while at < file.size() {
        // OK to cast: at most the buffer's length.
        let piece = &mut buf[..(file.size() - at).min(256 << 10) as usize];
        file.read_at(at, piece)?;
        for (page, offset) in piece.chunks(PAGE_SIZE as usize).zip((at..).step_by(PAGE_SIZE as usize)) {
            if page.iter().any(|&byte| byte != 0) {
                ram.write_at(offset, page)?;
            }
        }
        at += piece.len() as u64;
    }
    Ok(ram)
}

/// The system's error as ours.
pub(crate) fn io_error(op: &'static str, offset: u64, error: std::io::Error) -> Error {
    let errno = error.raw_os_error();
    if errno == Some(Errno::NOSPC.raw_os_error()) || errno == Some(Errno::DQUOT.raw_os_error()) {
        return Error::NoSpace { offset };
    }
    Error::Io { op, offset, errno, message: error.to_string() }
}

/// Opens and locks a regular file or block special file, and finds its size in bytes.
pub(crate) fn open_file(path: &Path, options: &DeviceOptions) -> Result<(ImageFile, u64)> {
    let open_error = |error: std::io::Error| with_path(io_error("open", 0, error), path);
    let metadata = std::fs::metadata(path).map_err(open_error)?;
    let kind = metadata.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        let message = String::from("neither a regular file nor a block device");
        return Err(with_path(Error::Io { op: "open", offset: 0, errno: None, message }, path));
    }
    let mut how = File::options();
    how.read(true).write(!options.read_only);
    if kind.is_block_device() && !options.read_only && options.lock == Locking::Take {
        // Without O_CREAT this asks the kernel to refuse a device that is mounted or otherwise claimed.
        // OK to cast: open flags fit an int.
        how.custom_flags(OFlags::EXCL.bits() as i32);
    }
    let mut file = how.open(path).map_err(|error| explain_busy(path, error))?;
    #[cfg(target_os = "linux")]
    if kind.is_block_device() && !options.read_only && crate::in_use::is_read_only(metadata.rdev()) {
        // It can be opened, and refuses what comes then.
        return Err(open_error(Errno::ROFS.into()));
    }
    if options.lock == Locking::Take {
        take_lock(&file, options.read_only).map_err(|error| with_path(error, path))?;
        #[cfg(target_os = "linux")]
        if kind.is_block_device()
            && let Some(below) = crate::in_use::file_below(metadata.rdev())
        {
            // For a moment: who opens the file from now on sees that the device is held, and others may have other
            // partitions of it.
            take_lock(&below, options.read_only).map_err(|error| with_path(error, path))?;
            let _ = flock(&below, FlockOperation::NonBlockingUnlock);
            crate::machine_lock::release(&below);
        }
    }
    let size = if kind.is_block_device() {
        file.seek(SeekFrom::End(0)).map_err(open_error)?
    } else {
        file.metadata().map_err(open_error)?.len()
    };
    Ok((ImageFile::new(file, options.lock), size))
}

/// Takes a file that is open for writing, in order to replace what is in it: locks it exclusively, as long as it is open,
/// and asks what the kernel does with it. A block device is to be opened with `O_EXCL` for that; `path` is for messages.
///
/// # Errors
/// `Io` with `op` `lock` where somebody has the image open; `InUse` where the kernel has.
pub fn take_for_replacing(file: &File, path: &Path) -> Result<()> {
    take_lock(file, false).map_err(|error| with_path(error, path))?;
    #[cfg(target_os = "linux")]
    crate::in_use::check_unused(file, 0..u64::MAX)?;
    Ok(())
}

/// Why a file could not be opened: where the kernel refused a block device that is held (`O_EXCL`), `InUse` with who
/// holds it, and else the system's error.
pub fn explain_busy(path: &Path, error: std::io::Error) -> Error {
    let is_busy = error.raw_os_error() == Some(Errno::BUSY.raw_os_error());
    match std::fs::metadata(path) {
        #[cfg(target_os = "linux")]
        Ok(metadata) if is_busy && metadata.file_type().is_block_device() => {
            Error::InUse { by: crate::in_use::holder(metadata.rdev()) }
        }
        _ => with_path(io_error("open", 0, error), path),
    }
}

fn take_lock(file: &File, read_only: bool) -> Result<()> {
    let operation = if read_only {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    match rustix::io::retry_on_intr(|| flock(file, operation)) {
        #[cfg(target_os = "linux")]
        Ok(()) if !read_only && !crate::machine_lock::take(file) => {
            crate::machine_lock::release(file);
            let holder = crate::lock_holder::opener(file, false);
            let who = holder.unwrap_or_else(|| String::from("a virtual machine"));
            let message = alloc::format!("locked: {who} has the image open");
            Err(Error::Io { op: "lock", offset: 0, errno: Some(Errno::AGAIN.raw_os_error()), message })
        }
        Ok(()) => Ok(()),
        Err(error @ Errno::WOULDBLOCK) => {
            #[cfg(target_os = "linux")]
            let holder = crate::lock_holder::lock_holder(file, read_only);
            #[cfg(not(target_os = "linux"))]
            let holder: Option<String> = None;
            let who = holder.unwrap_or_else(|| String::from("somebody"));
            let how = if read_only { " for writing" } else { "" };
            let message = alloc::format!("locked: {who} has the image open{how}");
            Err(Error::Io { op: "lock", offset: 0, errno: Some(error.raw_os_error()), message })
        }
        Err(error) => Err(io_error("lock", 0, error.into())),
    }
}

fn with_path(error: Error, path: &Path) -> Error {
    match error {
        Error::Io { op, offset, errno, message } => {
            Error::Io { op, offset, errno, message: alloc::format!("{}: {message}", path.display()) }
        }
        other => other,
    }
}
