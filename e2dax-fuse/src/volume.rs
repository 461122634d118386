//! The operations, for whoever asks: a request is turned into calls of the library here, and into a reply in
//! `filesystem`.
//!
//! | module | has |
//! |---|---|
//! | `attributes` | getattr, setattr, access times, set-id bits |
//! | `names` | lookup, create to unlink, rename |
//! | `file` | open, read, write, fsync, fallocate, holes, copies |
//! | `directory` | readdir, readdirplus |
//! | `xattr` | extended attributes and access control lists |
//! | `ioctl` | attribute flags, fsxattr, generation, label, free blocks given back |

mod attributes;
mod directory;
mod file;
mod ioctl;
mod names;
mod xattr;

pub(crate) use attributes::{Change, SetTime};
pub(crate) use file::{CopyRange, Whence};
pub(crate) use ioctl::takes_long;
pub(crate) use names::New;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use ext2_core::{Ext2, FileKind, Inode, StatFs};
use rustix::io::Errno;

use crate::channel::Channel;
use crate::nodes::{Node, Nodes};
use crate::options::MountOptions;
use crate::reply::{Reply, errno};

/// How long the kernel may keep names and attributes, in seconds: nobody else changes the image.
pub(crate) const KEEP: u64 = 24 * 60 * 60;

/// How long the kernel may keep the attributes of the root, in seconds: while a rename has `lost+found` there it has a link more.
const KEEP_ROOT: u64 = 1;

/// The directory in the root that a rename makes for a moment where there is none (`ext2_core`, the end of what it replaces).
const PASSING: &[u8] = b"lost+found";

/// How long the kernel may keep what it is told of a name. What comes and goes without its doing it has to ask for each time.
pub(crate) fn keep_name(parent: u64, name: &[u8]) -> u64 {
    if parent == crate::convert::ROOT && name == PASSING { 0 } else { KEEP }
}

/// How long the kernel may keep the attributes of an inode.
pub(crate) fn keep_attributes(node: u64) -> u64 {
    if node == crate::convert::ROOT { KEEP_ROOT } else { KEEP }
}

/// Where the label is in an image, and its bytes. Linux: `s_volume_name`.
const LABEL_AT: u64 = 1024 + 120;
const LABEL: usize = 16;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// The user.
    pub(crate) uid: u32,
    /// The first group.
    pub(crate) gid: u32,
    /// The thread; 0 where the kernel itself asks, or another PID namespace.
    pub(crate) pid: u32,
}

/// A mounted image.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) fs: Ext2,
    pub(crate) nodes: Nodes,
    pub(crate) options: MountOptions,
    /// Who mounted it.
    pub(crate) owner: u32,
    /// Where the kernel is told what it must not believe any more, once there is a connection.
    pub(crate) kernel: OnceLock<Arc<Channel>>,
    /// The name of the file system, without what is behind it.
    label: Mutex<Vec<u8>>,
    /// Whether all writing was ended as if the power went.
    shut_down: AtomicBool,
    started: Instant,
    /// When the last write came, in milliseconds since `started`.
    last_write: AtomicU64,
}

impl Volume {
    /// Over a file system that is open.
    ///
    /// # Errors
    /// When the root cannot be read.
    pub(crate) fn new(fs: Ext2, options: &MountOptions) -> ext2_core::Result<Self> {
        let root = fs.root()?;
        let label = Mutex::new(fs.superblock().label.clone());
        Ok(Self {
            fs,
            label,
            nodes: Nodes::new(root),
            options: options.clone(),
            owner: rustix::process::geteuid().as_raw(),
            kernel: OnceLock::new(),
            shut_down: AtomicBool::new(false),
            started: Instant::now(),
            last_write: AtomicU64::new(0),
        })
    }

    fn label(&self) -> Vec<u8> {
        self.label.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Names the file system, of which nothing else knows the label.
    fn store_label(&self, label: &[u8]) -> Reply<()> {
        if self.fs.is_read_only() {
            return Err(Errno::ROFS);
        }
        let mut field = [0; LABEL];
        field.iter_mut().zip(label).for_each(|(to, from)| *to = *from);
        let mut now = self.label.lock().unwrap_or_else(PoisonError::into_inner);
        self.fs.device().write_at(LABEL_AT, &field).map_err(|error| self.errno(&error.into()))?;
        *now = label.to_vec();
        drop(now);
        self.fs.sync().map_err(|error| self.errno(&error))
    }

    /// The node of a kernel's name.
    pub(crate) fn node(&self, number: u64) -> Reply<Arc<Node>> {
        self.nodes.get(number).ok_or(Errno::STALE)
    }

    /// The number that a program is told. What the image has wrong is noted in it, and ends writing where that is asked for,
    /// whoever met it: reading, too.
    pub(crate) fn errno(&self, error: &ext2_core::Error) -> Errno {
        self.found(error);
        match errno(error) {
            // Not how it was mounted, but what became of it (Linux: `ext4_forced_shutdown`).
            Errno::ROFS if self.shut_down.load(Ordering::Relaxed) => Errno::IO,
            errno => errno,
        }
    }

    /// Notes what the image has wrong.
    fn found(&self, error: &ext2_core::Error) {
        if let ext2_core::Error::Corrupt(_) = error {
            self.fs.note_broken(error);
        }
    }

    /// Has the kernel forget the attributes that it keeps of an inode: they changed in a way that it does not see.
    fn forget_attributes(&self, inode: &Inode) {
        if let Some(kernel) = self.kernel.get()
            && let Err(error) = kernel.forget_attributes(crate::convert::node_of(inode.nr()))
        {
            log::error!("inode {}: the kernel keeps old attributes: {error}", inode.nr());
        }
    }

    /// Whether a caller may take the blocks that are reserved. Linux: `ext2_has_free_blocks`.
    pub(crate) fn may_use_reserve(&self, caller: Caller) -> bool {
        let sb = self.fs.superblock();
        let group = u32::from(sb.reserved_gid);
        caller.uid == 0
            || caller.uid == u32::from(sb.reserved_uid)
            || group != 0
                && self.statfs().is_ok_and(|space| space.blocks_available == 0)
                && caller.is_in_group(group)
    }

    /// The space there is. Linux: `ext2_statfs`.
    pub(crate) fn statfs(&self) -> Reply<StatFs> {
        self.fs.statfs().map_err(|error| self.errno(&error))
    }

    /// Whether times have no fraction of a second, for lack of room in the inodes.
    pub(crate) fn has_whole_seconds(&self) -> bool {
        self.fs.geometry().inode_size <= 128
    }

    /// Whether the kernel may gather writes.
    pub(crate) fn gathers_writes(&self) -> bool {
        let options = &self.options;
        options.writeback_cache && !(options.direct_io || options.read_only || options.sync)
    }

    /// Makes a change of a directory durable, where that was asked for.
    fn changed_directory(&self, directory: &Inode) -> Reply<()> {
        let flags = directory.attr().flags;
        let asked = ext2_core::InodeFlags::DIRSYNC | ext2_core::InodeFlags::SYNC;
        if self.options.sync || self.options.dirsync || flags.intersects(asked) {
            directory.sync().map_err(|error| self.errno(&error))?;
        }
        Ok(())
    }

    /// Ends it: lets all inodes go, writes everything, and marks the image as clean.
    ///
    /// # Errors
    /// The device's.
    pub(crate) fn close(&self) -> ext2_core::Result<()> {
        self.nodes.clear();
        match self.fs.clone().close() {
            // As was asked for: nothing more is written, and the image says that it was not closed.
            Err(error) if self.shut_down.load(Ordering::Relaxed) => {
                log::warn!("after the shutdown: {error}");
                Ok(())
            }
            closed => closed.map(drop),
        }
    }
}

/// Refuses what is for regular files only.
fn need_regular(inode: &Inode) -> Reply<()> {
    match inode.kind() {
        FileKind::Regular => Ok(()),
        FileKind::Directory => Err(Errno::ISDIR),
        _ => Err(Errno::INVAL),
    }
}
