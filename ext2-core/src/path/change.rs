//! Changes by path, each in one call.

use alloc::vec;
use alloc::vec::Vec;

use crate::error::{Corrupt, Object, Result, refuse};
use crate::walk::{Entered, Met, can_be_in_a_path};
use crate::{Errno, Ext2, FileKind, Follow, Inode, Name, NewInode, RenameFlags, Wait};

impl Ext2 {
    /// Makes `bytes` the contents of a regular file, which is made if it is not there.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve), [`Inode::create`], [`Inode::truncate`] and [`Inode::write_at`]; `EEXIST` for a
    /// symbolic link that leads nowhere. A part may have been written.
    pub fn write(&self, path: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        if path.ends_with(b"/") {
            // Linux: `open` with `O_CREAT`, once it has come to the directory.
            self.resolve_parent(path)?;
            return refuse(Errno::ISDIR, "a file's name has no slash behind it");
        }
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
                    match self.resolve(part, Follow::Yes) {
                        // A link that leads nowhere has the name.
                        Err(error) if error.refuses(Errno::NOENT) => return refuse(Errno::NOTDIR, ""),
                        there => there?.need(FileKind::Directory)?,
                    }
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
        check_new(path.as_ref(), &parent, name)?;
        parent.symlink(name, target, &NewInode::new(FileKind::Symlink, 0o777)).map(drop)
    }

    /// Gives a file another name, in the order of `ln`. A symbolic link gets the name itself.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve) and [`Inode::link`].
    pub fn hard_link(&self, file: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<()> {
        let file = self.resolve(file, Follow::No)?;
        let (parent, name) = self.resolve_parent(path.as_ref())?;
        check_new(path.as_ref(), &parent, name)?;
        parent.link(&file, name)
    }

    /// Moves a file or directory, in the place of what has the new name, as `rename(2)` does.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve) and [`rename`](Self::rename).
    pub fn rename_path(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let (old, new) = (self.resolve_parent(from)?, self.resolve_parent(to)?);
        if has_slash(from, old.1) || has_slash(to, new.1) {
            // Linux: `do_renameat2`.
            old.0.lookup(old.1)?.need(FileKind::Directory)?;
        }
        self.rename(&old.0, old.1, &new.0, new.1, RenameFlags::empty())
    }

    /// Takes a name of a file away.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve) and [`Inode::unlink`].
    pub fn remove_file(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let (parent, name) = self.resolve_parent(path.as_ref())?;
        if has_slash(path.as_ref(), name) {
            // Linux: `do_unlinkat`.
            parent.lookup(name)?.need(FileKind::Directory)?;
        }
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
        let mut entered = Entered::default();
        entered.begin(&top);
        let mut open = vec![Emptied::new(parent, Name::from(name), top)?];
        while let Some(last) = open.last_mut() {
            let Some(name) = last.directories.pop() else {
                match last.parent.rmdir(&last.name) {
                    // Something came meanwhile. Who removed nothing since the last time would remove nothing again.
                    Err(error)
                        if error.refuses(Errno::NOTEMPTY) && core::mem::take(&mut last.removed) > 0 =>
                    {
                        last.empty()?;
                    }
                    done => {
                        done?;
                        open.pop();
                        if let Some(above) = open.last_mut() {
                            above.removed += 1;
                        }
                    }
                }
                continue;
            };
            let dir = last.dir.clone();
            let child = match dir.lookup(&name) {
                Err(error) if error.refuses(Errno::NOENT) => continue,
                child => child?,
            };
            if child.kind() != FileKind::Directory {
                last.remove(&name)?;
                continue;
            }
            match entered.enter(&dir, &name, &child)? {
                Met::First => open.push(Emptied::new(dir, name, child)?),
                Met::Moved => {
                    return refuse(
                        Errno::NOTEMPTY,
                        "a directory was moved while what is around it was removed",
                    );
                }
                Met::Twice => {
                    return Err(Corrupt::new(Object::Directory(child.nr()), "has a second name").into());
                }
            }
        }
        Ok(())
    }
}

/// A directory that is being removed with all that is in it.
struct Emptied {
    parent: Inode,
    name: Name,
    dir: Inode,
    /// Those in it that are still to be removed.
    directories: Vec<Name>,
    /// Names that went since it was last found not to be empty.
    removed: u64,
}

impl Emptied {
    fn new(parent: Inode, name: Name, dir: Inode) -> Result<Self> {
        // One more look at what comes while a tree goes of which nothing was there.
        let mut this = Self { parent, name, dir, directories: Vec::new(), removed: 1 };
        this.empty()?;
        Ok(this)
    }

    /// Removes all in it but directories, and notes those.
    fn empty(&mut self) -> Result<()> {
        for entry in self.dir.entries(0)? {
            let name = entry?.name;
            if name.is_dots() {
                continue;
            }
            if !can_be_in_a_path(&name) {
                let what = alloc::format!("has the name {name}, which no path can hold");
                return Err(Corrupt::new(Object::Directory(self.dir.nr()), what).into());
            }
            match self.dir.lookup(&name) {
                Err(error) if error.refuses(Errno::NOENT) => {}
                Ok(child) if child.kind() == FileKind::Directory => self.directories.push(name),
                Ok(_) => self.remove(&name)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes a name of what was no directory, unless it is gone, or a directory has it by now.
    fn remove(&mut self, name: &Name) -> Result<()> {
        match self.dir.unlink(name) {
            Err(error) if error.refuses(Errno::NOENT) || error.refuses(Errno::ISDIR) => Ok(()),
            done => done.map(|()| self.removed += 1),
        }
    }
}

/// Whether the last name of a path has a slash behind it, and so is to be a directory's.
fn has_slash(path: &[u8], name: &[u8]) -> bool {
    path.ends_with(b"/") && name != b"/"
}

/// Refuses a new name with a slash behind it for what is no directory. Linux: `filename_create`.
fn check_new(path: &[u8], parent: &Inode, name: &[u8]) -> Result<()> {
    if has_slash(path, name) && !matches!(name, b"." | b"..") {
        parent.lookup_nr(name)?;
    }
    Ok(())
}

impl Inode {
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
