//! The common jobs by path, each in one call, as `std::fs` has them.
//!
//! A path is bytes or text, a leading slash may be left out, and symbolic links are followed inside the image. What is made
//! here belongs to root, with mode 0755 or 0644; [`Inode::create`] makes anything else. Nothing here is durable before
//! [`Ext2::sync`] or [`Ext2::close`].

#[cfg(feature = "write")]
mod change;

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::{Result, refuse};
use crate::walk::Walk;
use crate::{Attr, DirEntry, Entries, Errno, Ext2, Follow, Inode, Name};

/// The entries of a directory, without `.` and `..`, as [`Ext2::read_dir`] gives them.
#[derive(Debug)]
pub struct ReadDir(Entries);

impl ReadDir {
    /// The inode of an entry that this listing gave; `None` where the name is gone by now.
    ///
    /// # Errors
    /// As [`Inode::lookup`].
    pub fn inode(&self, entry: &DirEntry) -> Result<Option<Inode>> {
        self.0.inode(entry)
    }
}

impl Iterator for ReadDir {
    type Item = Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.by_ref().find(|entry| !matches!(entry, Ok(entry) if entry.name.is_dots()))
    }
}

impl Ext2 {
    /// Opens the image at `path` of the host as a mapped file, and the file system on it.
    ///
    /// ```no_run
    /// use ext2_core::{Ext2, OpenOptions};
    ///
    /// let fs = Ext2::open_path("disk.img", &OpenOptions::read_only())?; print!("{}", fs.read_to_string("/etc/os-release")?);
    /// # Ok::<(), ext2_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`blockdev::open_image`] and [`open`](Self::open).
    #[cfg(feature = "std")]
    pub fn open_path(path: impl AsRef<std::path::Path>, options: &crate::OpenOptions) -> Result<Self> {
        let device = blockdev::DeviceOptions { read_only: options.read_only, ..Default::default() };
        Self::open(blockdev::open_image(path.as_ref(), &device)?, options)
    }

    /// The whole contents of a regular file.
    ///
    /// They are as long as the image says: for an image of somebody else's ask for [`metadata`](Self::metadata) first, or
    /// read in parts with [`Inode::read_at`].
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve) and [`Inode::read_at`]; `ENOMEM` for a file that does not fit into memory.
    pub fn read(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        self.resolve(path, Follow::Yes)?.read_all()
    }

    /// The whole contents of a regular file as text.
    ///
    /// # Errors
    /// As [`read`](Self::read); `EILSEQ` for what is not UTF-8.
    pub fn read_to_string(&self, path: impl AsRef<[u8]>) -> Result<String> {
        String::from_utf8(self.read(path)?).or(refuse(Errno::ILSEQ, "the file is not UTF-8"))
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve) and [`Inode::read_link`].
    pub fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Name> {
        Ok(self.resolve(path, Follow::No)?.read_link()?.into())
    }

    /// The entries of a directory, without `.` and `..`, in the order in which they lie on disk.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve) and [`Inode::entries`].
    pub fn read_dir(&self, path: impl AsRef<[u8]>) -> Result<ReadDir> {
        Ok(ReadDir(self.resolve(path, Follow::Yes)?.entries(0)?))
    }

    /// The attributes of a file.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn metadata(&self, path: impl AsRef<[u8]>) -> Result<Attr> {
        Ok(self.resolve(path, Follow::Yes)?.attr())
    }

    /// The attributes of a file; those of the link itself where the last name is one.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn symlink_metadata(&self, path: impl AsRef<[u8]>) -> Result<Attr> {
        Ok(self.resolve(path, Follow::No)?.attr())
    }

    /// Whether a path leads to anything.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve), without `ENOENT` and `ENOTDIR`.
    pub fn exists(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        match self.resolve(path, Follow::Yes) {
            Ok(_) => Ok(true),
            Err(error) if error.refuses(Errno::NOENT) || error.refuses(Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Every file below `path`, itself first, parents before children and names in the order of their bytes. An error ends
    /// nothing: what cannot be read is left out and said.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn walk(&self, path: impl AsRef<[u8]>) -> Result<Walk> {
        let path = path.as_ref();
        Ok(Walk::new(&self.resolve(path, Follow::Yes)?, path))
    }
}

impl Inode {
    /// The whole contents of a regular file.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at); `ENOMEM` for a file that does not fit into memory.
    pub fn read_all(&self) -> Result<Vec<u8>> {
        let no_room = refuse(Errno::NOMEM, "the file does not fit into memory");
        let Ok(size) = usize::try_from(self.size()) else { return no_room };
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(size).is_err() {
            return no_room;
        }
        bytes.resize(size, 0);
        let got = self.read_at(0, &mut bytes)?;
        bytes.truncate(got);
        Ok(bytes)
    }

    /// Fills `buf` from byte `offset` of a regular file.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at); `ENODATA` where the file ends before that.
    pub fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match self.read_at(offset, buf)? {
            got if got == buf.len() => Ok(()),
            _ => refuse(Errno::NODATA, "the file ends before the last byte that was asked for"),
        }
    }
}
