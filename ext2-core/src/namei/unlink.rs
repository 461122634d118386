//! Removing names.

use super::{Times, check_name, is_dots, is_empty, with_locks};
use crate::Errno;
use crate::dir::Removal;
use crate::error::{Result, refuse};
use crate::inode::{FileKind, Inode};
use crate::order::Barrier;
use crate::sync::Mended;

impl Inode {
    /// Takes a name of a file away. The file itself goes with its last name and its last holder. Linux: `ext2_unlink`.
    ///
    /// # Errors
    /// `ENOENT`, `EISDIR`, `ENOTDIR`, `EPERM`, `EROFS`; `Corrupt`, the device's errors.
    pub fn unlink(&self, name: impl AsRef<[u8]>) -> Result<()> {
        self.unlink_bytes(name.as_ref())
    }

    fn unlink_bytes(&self, name: &[u8]) -> Result<()> {
        self.need_dir()?;
        // Linux refuses dots before it asks whether anything may be changed.
        if is_dots(name) {
            return refuse(Errno::ISDIR, "the name of a directory itself");
        }
        self.0.fs.change(|| {
            check_name(name)?;
            let io = self.0.io.write();
            let found = self.0.must_find(name)?;
            let victim = self.of_entry(name, found.nr)?;
            if victim.kind() == FileKind::Directory {
                self.0.check_removable(&victim.0)?;
                return refuse(Errno::ISDIR, "");
            }
            // Against a link or an unlink of another name: see the locking of names.
            let victim_io = victim.0.io.write();
            self.0.check_removable(&victim.0)?;
            let removal = self.0.find_removal(&found)?;
            self.0.fs.whole(|| self.remove_last_or_one(name, &removal, &victim))?;
            drop((victim_io, io));
            Ok(())
        })
    }

    /// Removes a name of what is no directory: with the last one the inode is dead first.
    fn remove_last_or_one(&self, name: &[u8], removal: &Removal, victim: &Self) -> Result<()> {
        let last = victim.0.attrs.lock().links <= 1;
        if last {
            victim.0.kill()?;
            let _gone = self.0.remove_name(name, removal)?;
        } else {
            let _gone = self.0.remove_name(name, removal)?;
            victim.0.count_link(-1)?;
        }
        Ok(())
    }

    /// Removes an empty directory. Linux: `ext2_rmdir`.
    ///
    /// # Errors
    /// `ENOTEMPTY`, `ENOTDIR`, `ENOENT`, `EINVAL` for `.`, `ENOTEMPTY` for `..`, `EBUSY` for `/`, `EPERM`, `EROFS`;
    /// `Corrupt`, the device's errors.
    pub fn rmdir(&self, name: impl AsRef<[u8]>) -> Result<()> {
        self.remove_dir(name.as_ref(), Times::Change, None)
    }

    /// Removes the directory of this name; where `only` says which, no other.
    pub(super) fn remove_dir(&self, name: &[u8], times: Times, only: Option<&Self>) -> Result<()> {
        self.need_dir()?;
        match name {
            b"." => return refuse(Errno::INVAL, "a directory cannot remove itself"),
            b".." => return refuse(Errno::NOTEMPTY, ""),
            b"/" => return refuse(Errno::BUSY, "the root"),
            _ => {}
        }
        self.0.fs.change(|| {
            check_name(name)?;
            loop {
                let victim = self.lookup(name)?;
                if only.is_some_and(|only| *only != victim) {
                    return Ok(());
                }
                if victim.kind() != FileKind::Directory {
                    self.0.check_removable(&victim.0)?;
                    return refuse(Errno::NOTDIR, "");
                }
                let done = with_locks(&[self, &victim], || {
                    let found = self.0.must_find(name)?;
                    if found.nr != victim.nr() && !Mended::RmdirLooksOnce.is_back() {
                        return Ok(false);
                    }
                    self.0.check_removable(&victim.0)?;
                    if !is_empty(&victim.0)? {
                        return refuse(Errno::NOTEMPTY, "");
                    }
                    let removal = self.0.find_removal(&found)?;
                    self.0.fs.whole(|| {
                        victim.0.kill()?;
                        let _gone = match times {
                            Times::Change => self.0.remove_name(name, &removal)?,
                            Times::Keep => self.0.remove_entry(name, &removal)?,
                        };
                        self.0.count_link_and(times, -1)
                    })?;
                    Ok(true)
                })?;
                if done {
                    return Ok(());
                }
            }
        })
    }
}

impl crate::inode::Cell {
    /// Says that the inode is dead, behind a fence: its last name is about to go.
    pub(super) fn kill(&self) -> Result<()> {
        self.fs.whole(|| self.join_orphans())?;
        let known = self.fs.losses.count();
        let stored = {
            let mut attrs = self.attrs.lock();
            attrs.ctime = self.fs.clock.now();
            attrs.late = true;
            self.store_links(&mut attrs, 0)
        };
        self.fs.whole(|| {
            stored?;
            self.fs.fence_since(Barrier::Killed, known)
        })
    }
}
