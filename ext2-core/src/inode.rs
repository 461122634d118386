//! An inode in memory: one object per inode in use, shared by all who hold it.
//!
//! # Invariants
//! 1. There is at most one [`Cell`] per inode number at a time; the table in [`Fs`] sees to it.
//! 2. Pointers, size and link count are on the device when the call that changes them returns. Times and
//!    the block count are not ordered: they are flagged as late and written by a sync, or when the last
//!    holder lets go.
//! 3. Whoever holds an [`Inode`] keeps its blocks, also when its last name is gone.
//!
//! # Locking
//! `io` covers contents and namespace (Linux: `i_rwsem`); `attrs` the attributes; `map` changes of
//! the block map (Linux: `truncate_mutex`). Pointers and size are atomics: lookups take no lock.

#[cfg(feature = "write")]
mod anew;
mod attr;
#[cfg(feature = "write")]
mod cut;
#[cfg(feature = "write")]
mod grow;
#[cfg(feature = "write")]
mod hurd;
mod map;
#[cfg(feature = "write")]
mod owner;
#[cfg(feature = "write")]
mod publish;
mod read;
#[cfg(feature = "write")]
mod relocate;
mod seek;
#[cfg(feature = "write")]
mod setid;
#[cfg(feature = "write")]
mod shrink;
#[cfg(feature = "write")]
pub(crate) mod spare;
#[cfg(feature = "write")]
mod store;
#[cfg(feature = "write")]
mod write;

pub(crate) use attr::Attrs;
pub(crate) use ext2_format::{DeviceNr, FileKind, InodeFlags};
pub(crate) use read::FAST_SYMLINK_MAX;
pub use read::Piece;
pub use seek::Extents;

#[cfg(feature = "write")]
pub(crate) use grow::Growth;
#[cfg(feature = "write")]
pub use {
    grow::{Allocate, WriteMapping},
    publish::Unpublished,
    write::SetAttr,
};

use alloc::format;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use portable_atomic::AtomicU64;

use zerocopy::FromBytes;

use crate::dir::{Moves, Places, SharedIndex};
use crate::error::{Corrupt, Object, Result, refuse};
use crate::fs::Fs;
use crate::map::{Runs, SLOTS, Shape};
use crate::raw::{RawInode, RawInodeExtra};
use crate::sync::{IoLock, Mutex, Rank};
use crate::{Attr, Errno, Ext2, InodeNr};

/// A file, directory or other inode that is open. Cloning it is cheap.
///
/// ```
/// use ext2_core::{FileKind, NewInode, SetAttr, Wait};
/// # let fs = ext2_core::Ext2::open(ext2_image::mkfs::in_memory(4 << 20)?, &Default::default())?;
///
/// let file = fs.root()?.create("notes", &NewInode::new(FileKind::Regular, 0o600))?;
/// file.write_all_at(4096, b"behind a hole")?;
/// assert_eq!((file.size(), file.seek_data(0)?), (4109, 4096));
/// let mut word = [0; 4];
/// file.read_exact_at(4109 - 4, &mut word)?;
/// assert_eq!(&word, b"hole");
///
/// file.set_attr(&SetAttr { mode: Some(0o644), ..SetAttr::default() })?;
/// file.truncate(4096, Wait::Yes)?;
/// file.sync()?;
/// // Without a name it lives for as long as somebody holds it.
/// fs.root()?.unlink("notes")?; assert_eq!((file.attr().links, file.attr().mode), (0, 0o644));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Inode(pub(crate) Arc<Cell>);

/// The inode of the blocks that descriptors may grow into (`EXT2_RESIZE_INO`).
const RESIZE: InodeNr = InodeNr::new(7).expect("not zero");

/// What all holders of an inode share.
pub(crate) struct Cell {
    pub(crate) fs: Arc<Fs>,
    pub(crate) nr: InodeNr,
    pub(crate) kind: FileKind,
    /// Where the inode lies on the device, in bytes.
    pub(crate) offset: u64,
    pub(crate) generation: u32,
    /// How many [`Inode`]s there are of this cell.
    pub(crate) holders: AtomicU32,
    pub(crate) size: AtomicU64,
    pub(crate) root: [AtomicU32; SLOTS],
    pub(crate) attrs: Mutex<Attrs>,
    pub(crate) io: IoLock,
    /// What lookups found lately.
    pub(crate) runs: Runs,
    #[cfg(feature = "write")]
    pub(crate) map: Mutex<Growth>,
    #[cfg(feature = "write")]
    pub(crate) space: crate::space::Space,
    #[cfg(feature = "write")]
    pub(crate) rights_taken: setid::RightsTaken,
    /// Of how many [losses](crate::fs::Fs::flush) whoever syncs the file was told.
    #[cfg(feature = "write")]
    pub(crate) losses_told: AtomicU32,
    /// How many losses were known when all of it was last stored anew, or it was born.
    #[cfg(feature = "write")]
    pub(crate) stored_anew: AtomicU32,
    /// The index of a directory; unused by others.
    pub(crate) dir: SharedIndex,
    /// Where names of a directory were found.
    pub(crate) places: Places,
    /// Where entries of a directory moved.
    pub(crate) moves: Moves,
}

impl Cell {
    /// Reads inode `nr` from the device. Linux: `ext2_iget`.
    pub(crate) fn load(fs: &Arc<Fs>, nr: InodeNr) -> Result<Arc<Self>> {
        let offset = fs.inode_offset(nr)?;
        let mut bytes = [0; size_of::<RawInode>() + size_of::<RawInodeExtra>()];
        // The extra fields where there are any: an inode has 128 bytes, or twice as many and more.
        let len = bytes.len().min(fs.geo.inode_size.into());
        fs.dev.read_at(offset, &mut bytes[..len])?;
        let (base, extra) = bytes.split_at(size_of::<RawInode>());
        let (Ok(raw), Ok(extra)) = (RawInode::read_from_bytes(base), RawInodeExtra::read_from_bytes(extra))
        else {
            unreachable!("the buffer has the size of the two structures");
        };
        if raw.i_links_count.get() == 0 && (raw.i_mode.get() == 0 || raw.i_dtime.get() != 0) {
            return refuse(Errno::STALE, "the inode is deleted");
        }
        if raw.i_links_count.get() == 0 && fs.has_writer() {
            // Its last holder would free what a name may still lead to. Whoever only reads may look at it.
            return Err(Corrupt::new(Object::Inode(nr), "has no links, and is not deleted").into());
        }
        let cell = Self::from_parts(fs, (nr, offset), &raw, &extra)?;
        #[cfg(feature = "write")]
        cell.note_former();
        Ok(cell)
    }

    /// The inode with these fields, which lies at byte `offset` of the device.
    pub(crate) fn from_parts(
        fs: &Arc<Fs>,
        (nr, offset): (InodeNr, u64),
        raw: &RawInode,
        extra: &RawInodeExtra,
    ) -> Result<Arc<Self>> {
        let broken = |what| Err(Corrupt::new(Object::Inode(nr), what).into());
        let room = u64::from(fs.geo.inode_size) - size_of::<RawInode>() as u64;
        // Fields that the inode does not claim to use are not there.
        let extra_isize = u64::from(extra.i_extra_isize.get());
        if extra_isize > room || !extra_isize.is_multiple_of(4) {
            return broken(format!("extra size is {extra_isize}, with {room} bytes of room"));
        }
        let Some(kind) = FileKind::from_mode(raw.i_mode.get()) else {
            return broken(format!("mode is {:#o}, which is no type of file", raw.i_mode.get()));
        };
        let mut size = u64::from(raw.i_size.get());
        if kind == FileKind::Regular {
            size |= u64::from(raw.i_size_high.get()) << 32;
        }
        // The inode that holds the spare descriptors has its blocks so far behind that with large blocks no file reaches there.
        let reach = fs.geo.block_size.bytes() * Shape::new(fs.geo.block_size.pointers()).max_blocks();
        let is_spare = nr == RESIZE && !crate::sync::Mended::ResizeReach.is_back();
        if size > if is_spare { reach } else { fs.geo.max_file_size() } {
            return broken(format!("size is {size}, more than a file can have"));
        }
        let file_acl = raw.i_file_acl.get();
        if file_acl != 0 && fs.geo.data_block(file_acl).is_none() {
            return broken(format!("attribute block {file_acl} lies outside the file system"));
        }
        if raw.i_flags.get() & InodeFlags::EXTENTS.bits() != 0 {
            return broken("uses extents, which the file system does not announce".into());
        }
        Ok(Arc::new(Self {
            fs: fs.clone(),
            nr,
            kind,
            offset,
            generation: raw.i_generation.get(),
            holders: AtomicU32::new(0),
            size: AtomicU64::new(size),
            root: raw.i_block.map(|pointer| AtomicU32::new(pointer.get())),
            attrs: Mutex::new(Rank::Attr, Attrs::from_raw(raw, extra)),
            io: IoLock::new(Rank::Io),
            runs: Runs::new(),
            #[cfg(feature = "write")]
            map: Mutex::new(Rank::Map, Growth::default()),
            #[cfg(feature = "write")]
            space: crate::space::Space::new(),
            #[cfg(feature = "write")]
            rights_taken: setid::RightsTaken::default(),
            #[cfg(feature = "write")]
            losses_told: AtomicU32::new(fs.losses.count()),
            #[cfg(feature = "write")]
            stored_anew: AtomicU32::new(0),
            dir: fs.indexes.of(nr, kind),
            places: Places::new(),
            moves: Moves::new(),
        }))
    }

    #[inline]
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Whether the contents are in blocks (and not in the pointers' place, as a short link's are).
    #[inline]
    pub(crate) fn has_blocks(&self) -> bool {
        match self.kind {
            FileKind::Regular | FileKind::Directory => true,
            FileKind::Symlink => !self.is_fast_symlink(),
            _ => false,
        }
    }

    /// Whether a link's target lies in the place of the pointers: its length says so, which never changes.
    /// Linux (`ext2_inode_is_fast_symlink`) goes by `i_blocks` less the block of attributes, two fields of
    /// which a crash may keep one; all that make links agree on the length.
    pub(crate) fn is_fast_symlink(&self) -> bool {
        self.kind == FileKind::Symlink && self.size() < FAST_SYMLINK_MAX as u64
    }

    pub(crate) fn corrupt(&self, what: impl Into<alloc::string::String>) -> crate::Error {
        let object = match self.kind {
            FileKind::Directory => Object::Directory(self.nr),
            _ => Object::Inode(self.nr),
        };
        Corrupt::new(object, what).into()
    }
}

impl Inode {
    /// Its number.
    #[must_use]
    pub fn nr(&self) -> InodeNr {
        self.0.nr
    }

    /// The file system that it belongs to.
    #[must_use]
    pub fn fs(&self) -> Ext2 {
        Ext2::from_fs(self.0.fs.clone())
    }

    /// What kind of file it is.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        self.0.kind
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.size()
    }

    /// All that `stat` tells, and more.
    #[must_use]
    pub fn attr(&self) -> Attr {
        let (cell, attrs) = (&*self.0, self.0.attrs.lock());
        // As they will be read back: in memory a time may be finer, or further away, than the inode has room for.
        let held = |time: crate::Timestamp, end: u16| match crate::sync::Mended::TimesUncut.is_back() {
            true => time,
            false => time.as_stored(attrs.extra_isize >= end),
        };
        Attr {
            nr: cell.nr,
            kind: cell.kind,
            mode: attrs.mode,
            uid: attrs.uid,
            gid: attrs.gid,
            size: cell.size(),
            links: attrs.links,
            blocks_512: attrs.blocks_512,
            atime: held(attrs.atime, attr::ATIME_EXTRA_END),
            mtime: held(attrs.mtime, attr::MTIME_EXTRA_END),
            ctime: held(attrs.ctime, attr::CTIME_EXTRA_END),
            crtime: attrs.crtime.map(|time| time.as_stored(true)),
            flags: attrs.flags,
            generation: cell.generation,
            device: self.device_nr(),
        }
    }

    fn device_nr(&self) -> Option<DeviceNr> {
        let root = |slot: usize| self.0.root[slot].load(Ordering::Acquire);
        matches!(self.0.kind, FileKind::CharDevice | FileKind::BlockDevice)
            .then(|| DeviceNr::decode(root(0), root(1)))
    }

    pub(crate) fn need(&self, kind: FileKind) -> Result<()> {
        match (kind, self.0.kind) {
            (need, have) if need == have => Ok(()),
            (FileKind::Directory, _) => refuse(Errno::NOTDIR, ""),
            (_, FileKind::Directory) => refuse(Errno::ISDIR, ""),
            _ => refuse(Errno::INVAL, "not the kind of file that this is for"),
        }
    }
}

impl PartialEq for Inode {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Inode {}

impl core::hash::Hash for Inode {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl fmt::Debug for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inode").field("nr", &self.0.nr).field("kind", &self.0.kind).finish_non_exhaustive()
    }
}
