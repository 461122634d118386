//! Images mounted by the kernel, and always unmounted.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
    time::Duration,
};

use tempfile::TempDir;

use crate::tools;

/// What a mount is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing on the image changes, access times included.
    ReadOnly,
    /// As a user mounts it.
    ReadWrite,
}

/// Whether this process can mount an image, found out once by mounting one.
///
/// # Errors
/// Why not, as the reason of a [`skip!`](crate::skip!).
pub fn possible() -> Result<(), &'static str> {
    static ANSWER: OnceLock<Result<(), &'static str>> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        if !rustix::process::geteuid().is_root() {
            return Err("mounting needs root");
        }
        if !Path::new("/dev/loop-control").exists() {
            return Err("no /dev/loop-control");
        }
        if !tools::have("mke2fs") || !tools::have("mount") {
            return Err("no mke2fs or no mount");
        }
        let folder = TempDir::new().expect("a temporary folder can be made");
        let image = folder.path().join("probe.img");
        tools::mke2fs(&[image.as_os_str(), "256K".as_ref()]);
        match Mounted::new(&image, "ext2", Access::ReadOnly, 0) {
            Ok(_) => Ok(()),
            Err(_) => Err("the kernel does not mount an ext2 image here"),
        }
    })
}

/// Mounts an image with the driver `ext2` (which is the ext4 driver where the kernel has no other), calls `work` with
/// the folder, and unmounts however `work` ends.
///
/// Ask [`need_mount!`](crate::need_mount!) first; a mount that fails is a panic.
pub fn with_mount<T>(image: &Path, access: Access, work: impl FnOnce(&Path) -> T) -> T {
    with_mount_of(image, "ext2", access, 0, work)
}

/// [`with_mount`] with the file system type named, of a file system that starts `offset` bytes into the image.
pub fn with_mount_of<T>(
    image: &Path,
    fs_type: &str,
    access: Access,
    offset: u64,
    work: impl FnOnce(&Path) -> T,
) -> T {
    let mounted = Mounted::new(image, fs_type, access, offset)
        .unwrap_or_else(|error| panic!("cannot mount {}: {error}", image.display()));
    work(mounted.folder())
}

/// Calls `work` with the folder of a new tmpfs of so many MiB whose files have pages of 2 MiB, and unmounts however `work`
/// ends.
///
/// # Errors
/// Why there is none, as the reason of a [`skip!`](crate::skip!).
pub fn with_huge_tmpfs<T>(mib: u64, work: impl FnOnce(&Path) -> T) -> Result<T, &'static str> {
    if !rustix::process::geteuid().is_root() {
        return Err("mounting needs root");
    }
    let folder = tempfile::Builder::new().prefix("e2dax-mount-").tempdir().expect("a folder can be made");
    let options = format!("huge=always,size={mib}m");
    let arguments = ["-t", "tmpfs", "-o", &options, "tmpfs"].map(std::ffi::OsStr::new);
    tools::run("mount", &[&arguments[..], &[folder.path().as_os_str()]].concat())
        .map_err(|_| "no tmpfs with pages of 2 MiB can be mounted here")?;
    let mounted = Mounted { folder: Some(folder) };
    Ok(work(mounted.folder()))
}

/// [`with_mount`] for reading and writing, with the file system type and more options of mount(8) named, separated by commas.
pub fn with_mount_as<T>(image: &Path, fs_type: &str, options: &str, work: impl FnOnce(&Path) -> T) -> T {
    let mounted = Mounted::with(image, fs_type, &format!("rw,loop,{options}"))
        .unwrap_or_else(|error| panic!("cannot mount {}: {error}", image.display()));
    work(mounted.folder())
}

/// Whether the kernel mounts the image, and if not what mount(8) says.
///
/// # Errors
/// The words of mount(8).
pub fn try_mount(image: &Path, access: Access) -> Result<(), String> {
    Mounted::new(image, "ext2", access, 0).map(|_| ())
}

/// A mounted image; dropping it unmounts.
#[derive(Debug)]
pub(crate) struct Mounted {
    folder: Option<TempDir>,
}

impl Mounted {
    /// Mounts over a new loop device, which goes away with the mount.
    fn new(image: &Path, fs_type: &str, access: Access, offset: u64) -> Result<Self, String> {
        let options = match access {
            Access::ReadOnly => format!("ro,noatime,loop,offset={offset}"),
            Access::ReadWrite => format!("rw,loop,offset={offset}"),
        };
        Self::with(image, fs_type, &options)
    }

    /// Mounts with options of mount(8).
    ///
    /// # Errors
    /// What mount(8) says.
    pub(crate) fn with(image: &Path, fs_type: &str, options: &str) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("e2dax-mount-").tempdir().expect("a folder can be made");
        let arguments = ["-t".as_ref(), fs_type.as_ref(), "-o".as_ref(), options.as_ref()];
        let paths = [image.as_os_str(), folder.path().as_os_str()];
        // Two loop devices that are set up at once may both be given the same number; mount(8) then says busy.
        let mut tries = 0;
        loop {
            match tools::run("mount", &[&arguments[..], &paths[..]].concat()) {
                Ok(_) => return Ok(Self { folder: Some(folder) }),
                Err(error)
                    if tries < 5 && (error.contains("busy") || error.contains("failed to setup loop")) =>
                {
                    tries += 1;
                    thread::sleep(Duration::from_millis(50 << tries));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Where the image is mounted.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.as_ref().expect("the folder is there until the drop").path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let Some(folder) = self.folder.take() else { return };
        let mut error = String::new();
        for wait in [0, 20, 100, 500, 2000] {
            thread::sleep(Duration::from_millis(wait));
            match tools::run("umount", &[folder.path()]) {
                Ok(_) => return,
                Err(words) => error = words,
            }
        }
        // Somebody still uses the mount. It must not stay in the way of the tests after this one, nor may the removal
        // of the folder reach into it.
        let path: PathBuf = folder.keep();
        let detached = tools::run("umount", &[Path::new("-l"), &path]);
        if !thread::panicking() {
            panic!("{} stays busy: {error}; detached: {detached:?}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, panic};

    #[test]
    fn a_mount_comes_down_when_the_work_panics() {
        crate::need_mount!();
        let folder = TempDir::new().unwrap();
        let image = folder.path().join("image");
        tools::mke2fs(&[image.as_os_str(), "256K".as_ref()]);
        let mut place = PathBuf::new();
        let result = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            with_mount(&image, Access::ReadWrite, |dir| {
                place = dir.to_path_buf();
                fs::write(dir.join("file"), b"kept").unwrap();
                panic!("as asked");
            });
        }));
        assert!(result.is_err());
        assert!(!place.exists(), "the folder of the mount is removed");
        with_mount(&image, Access::ReadOnly, |dir| {
            assert_eq!(fs::read(dir.join("file")).unwrap(), b"kept");
            assert!(fs::write(dir.join("other"), b"").is_err(), "a read-only mount takes no writes");
        });
        tools::e2fsck_fn(&image).unwrap();
    }
}
