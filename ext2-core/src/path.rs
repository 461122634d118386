//! The common jobs by path, each in one call, as `std::fs` has them.
//!
//! A path is bytes or text, a leading slash may be left out, and symbolic links are followed inside the image. What is made
//! here belongs to root, with mode 0755 or 0644; [`Inode::create`] makes anything else. Nothing here is durable before
//! [`Ext2::sync`] or [`Ext2::close`].

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::error::{Corrupt, Object, Result, refuse};
use crate::walk::Walk;
use crate::{
    Attr, DirEntry, Entries, Errno, Ext2, FileKind, Follow, Inode, Name, NewInode, RenameFlags, Wait,
};

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
    /// let fs = Ext2::open_path("disk.img", &OpenOptions::read_only())?;
    /// print!("{}", fs.read_to_string("/etc/os-release")?);
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

    /// Makes `bytes` the contents of a regular file, which is made if it is not there.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve), [`Inode::create`], [`Inode::truncate`] and [`Inode::write_at`]; `EEXIST` for a
    /// symbolic link that leads nowhere. A part may have been written.
    pub fn write(&self, path: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        let file = match self.resolve(path, Follow::Yes) {
            Err(error) if error.refuses(Errno::NOENT) => {
                let (parent, name) = self.resolve_parent(path)?;
                parent.create(name, &NewInode::new(FileKind::Regular, 0o644))?
            }
            found => found?,
        };
        file.truncate(0, Wait::Yes)?;
        file.write_all_at(0, bytes.as_ref())
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve) and [`Inode::create`].
    pub fn create_dir(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let (parent, name) = self.resolve_parent(path.as_ref())?;
        parent.create(name, &NewInode::new(FileKind::Directory, 0o755)).map(drop)
    }

    /// Makes a directory and all above it that are not there.
    ///
    /// # Errors
    /// As [`create_dir`](Self::create_dir), without `EEXIST` for a directory; `ENOTDIR` where something else has the name.
    pub fn create_dir_all(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        let slashes = path.iter().enumerate().skip(1).filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at);
        for end in slashes.chain([path.len()]) {
            let part = path.get(..end).unwrap_or(path);
            match self.create_dir(part) {
                Err(error) if error.refuses(Errno::EXIST) || error.refuses(Errno::BUSY) => {
                    self.resolve(part, Follow::Yes)?.need(FileKind::Directory)?;
                }
                made => made?,
            }
        }
        Ok(())
    }

    /// Makes a symbolic link at `path`, in the order of `ln -s`.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve) and [`Inode::symlink`].
    pub fn symlink(&self, target: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<()> {
        let (parent, name) = self.resolve_parent(path.as_ref())?;
        parent.symlink(name, target, &NewInode::new(FileKind::Symlink, 0o777)).map(drop)
    }

    /// Gives a file another name, in the order of `ln`. A symbolic link gets the name itself.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve) and [`Inode::link`].
    pub fn hard_link(&self, file: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<()> {
        let file = self.resolve(file, Follow::No)?;
        let (parent, name) = self.resolve_parent(path.as_ref())?;
        parent.link(&file, name)
    }

    /// Moves a file or directory, in the place of what has the new name, as `rename(2)` does.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve) and [`rename`](Self::rename).
    pub fn rename_path(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let (from, to) = (self.resolve_parent(from)?, self.resolve_parent(to)?);
        self.rename(&from.0, from.1, &to.0, to.1, RenameFlags::empty())
    }

    /// Takes a name of a file away.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve) and [`Inode::unlink`].
    pub fn remove_file(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let (parent, name) = self.resolve_parent(path.as_ref())?;
        parent.unlink(name)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve) and [`Inode::rmdir`].
    pub fn remove_dir(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let (parent, name) = self.resolve_parent(path.as_ref())?;
        parent.rmdir(name)
    }

    /// Removes a directory and all that is in it. No symbolic link is followed.
    ///
    /// # Errors
    /// The first that there is; what was removed before it stays removed. As [`remove_dir`](Self::remove_dir) and
    /// [`remove_file`](Self::remove_file).
    pub fn remove_dir_all(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let (parent, name) = self.resolve_parent(path.as_ref())?;
        match name {
            // Before anything below is gone.
            b"." | b".." => return refuse(Errno::INVAL, "a directory cannot be removed by way of itself"),
            b"/" => return refuse(Errno::BUSY, "the root"),
            _ => {}
        }
        let top = parent.lookup(name)?;
        top.need(FileKind::Directory)?;
        let mut entered = BTreeSet::from([top.nr()]);
        let mut open = vec![(parent, Name::from(name), top)];
        while let Some((parent, name, dir)) = open.last() {
            match first_directory(dir)? {
                Some((name, child)) if entered.insert(child.nr()) => open.push((dir.clone(), name, child)),
                Some((_, child)) => {
                    return Err(Corrupt::new(Object::Directory(child.nr()), "has a second name").into());
                }
                None => {
                    parent.rmdir(name)?;
                    open.pop();
                }
            }
        }
        Ok(())
    }
}

/// Removes what is no directory in `dir`, up to the first directory in it.
fn first_directory(dir: &Inode) -> Result<Option<(Name, Inode)>> {
    for entry in dir.entries(0)? {
        let name = entry?.name;
        if name.is_dots() {
            continue;
        }
        let child = dir.lookup(&name)?;
        if child.kind() == FileKind::Directory {
            return Ok(Some((name, child)));
        }
        dir.unlink(&name)?;
    }
    Ok(None)
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

    /// Writes all of `data` at byte `offset` of a regular file.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at), after what was written before.
    pub fn write_all_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let done = self.write_at(at, rest)?;
            if done == 0 {
                return refuse(Errno::NOSPC, "nothing more is written");
            }
            at += done as u64;
            rest = rest.get(done..).unwrap_or_default();
        }
        Ok(())
    }
}
