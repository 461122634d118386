//! What keeps an inode reachable while its name goes: another name, in `lost+found`, which is made for that long where it is not.

use alloc::vec::Vec;

use super::Times;
use crate::dir::Room;
use crate::error::{Error, Result};
use crate::inode::{FileKind, Inode, InodeFlags};
use crate::order::Written;
use crate::sync::Mended;
use crate::{Errno, Ext2};

/// Where e2fsck puts what has no name, in the root.
pub(super) const LOST_FOUND: &[u8] = b"lost+found";

/// A name that is to keep an inode reachable for a while, and the place that was found for it.
pub(super) struct Keeper {
    pub(super) place: Inode,
    pub(super) name: Vec<u8>,
    pub(super) room: Room,
}

/// Such a name that is there. The directory keeps its times, since it will be as it was.
pub(super) struct Kept {
    place: Inode,
    name: Vec<u8>,
}

impl Keeper {
    /// Gives the inode the name; what the change has stored before was stored since so many losses were known.
    pub(super) fn keep(self, inode: &Inode, known: u32) -> Result<Kept> {
        let named = Written::since(known, inode.0.as_named());
        self.place.0.put_entry(&self.name, self.room, named)?;
        Ok(Kept { place: self.place, name: self.name })
    }
}

impl Kept {
    pub(super) fn let_go(self) -> Result<()> {
        let dir = &self.place.0;
        let removal = dir.find_removal(&dir.must_find(&self.name)?)?;
        dir.remove_entry(&self.name, &removal).map(drop)
    }
}

impl Ext2 {
    /// `/lost+found`, if it is there: the place where e2fsck puts what has no name.
    pub(super) fn lost_found(&self) -> Result<Option<Inode>> {
        match self.root()?.lookup(LOST_FOUND) {
            Ok(lost) => Ok((lost.kind() == FileKind::Directory).then_some(lost)),
            // One that cannot be used stands in nobody's way.
            Err(Error::Corrupt(_)) => Ok(None),
            Err(error) if error.refuses(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A `lost+found` that was made for one rename, until this is dropped. One that is refused makes none.
#[derive(Default)]
pub(super) struct Shelter {
    /// The root, and what was made there.
    made: Option<(Inode, Inode)>,
    /// Whether one was looked for; where there is none all the same, there is no room for it.
    pub(super) is_asked: bool,
}

impl Shelter {
    /// Makes one, if there is room for it and the root can be changed. An error of the image or the device is the
    /// rename's: it has changed nothing yet.
    pub(super) fn make(&mut self, fs: &Ext2) -> Result<()> {
        if fs.lost_found()?.is_some() {
            return Ok(());
        }
        self.is_asked = true;
        let root = fs.root()?;
        // Where names may be added and not removed, it would stay.
        if root.0.attrs.lock().flags.intersects(InodeFlags::APPEND | InodeFlags::IMMUTABLE)
            || Mended::NoShelter.is_back()
        {
            return Ok(());
        }
        match root.create_lost_found() {
            Ok(made) => self.made = Some((root, made)),
            // No room, a name that is not a directory's, or a root with all the links that it may have.
            Err(error)
                if [Errno::NOSPC, Errno::EXIST, Errno::MLINK].iter().any(|errno| error.refuses(*errno)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Drop for Shelter {
    fn drop(&mut self) {
        if let Some((root, made)) = self.made.take()
            && let Err(error) = root.remove_dir(LOST_FOUND, Times::Keep, Some(&made))
        {
            log::warn!("a lost+found that was made for a rename stays: {error}");
        }
    }
}
