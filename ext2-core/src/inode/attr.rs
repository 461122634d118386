//! The attributes of an inode in memory.

use ext2_format::inode::Owners;

use crate::raw::{RawInode, RawInodeExtra};
use crate::{InodeFlags, Timestamp};

/// The attributes in memory that are not pointers, size or kind.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "write"), allow(dead_code))] // what is late, or may be written, is the writer's
pub(crate) struct Attrs {
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u16,
    pub(crate) blocks_512: u32,
    pub(crate) atime: Timestamp,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
    pub(crate) crtime: Option<Timestamp>,
    pub(crate) flags: InodeFlags,
    pub(crate) file_acl: u32,
    /// Bytes of the extra fields in use; 0 where there are none.
    pub(crate) extra_isize: u16,
    /// Times or block count are newer here than on the device.
    pub(crate) late: bool,
    /// Made without a name, and may get one (Linux: `I_LINKABLE`).
    pub(crate) linkable: bool,
    /// It is dead, or about to die, and in the list of orphans.
    pub(crate) is_orphan: bool,
    /// A mark stands for the owners on the device: see [`owner`](super::owner).
    pub(crate) owners_move: bool,
}

/// Where the extra fields end that each time needs, in bytes of `i_extra_isize`.
pub(crate) const CTIME_EXTRA_END: u16 = 8;
pub(crate) const MTIME_EXTRA_END: u16 = 12;
pub(crate) const ATIME_EXTRA_END: u16 = 16;
pub(crate) const CRTIME_END: u16 = 24;

impl Attrs {
    pub(crate) fn from_raw(raw: &RawInode, extra: &RawInodeExtra) -> Self {
        let room = extra.i_extra_isize.get();
        let high = |end: u16, field: u32| (room >= end).then_some(field);
        let (owners, owners_move) = Owners::of(raw);
        Self {
            mode: raw.i_mode.get() & 0o7777,
            uid: owners.uid,
            gid: owners.gid,
            links: raw.i_links_count.get(),
            blocks_512: raw.i_blocks.get(),
            atime: Timestamp::decode(raw.i_atime.get(), high(ATIME_EXTRA_END, extra.i_atime_extra.get())),
            mtime: Timestamp::decode(raw.i_mtime.get(), high(MTIME_EXTRA_END, extra.i_mtime_extra.get())),
            ctime: Timestamp::decode(raw.i_ctime.get(), high(CTIME_EXTRA_END, extra.i_ctime_extra.get())),
            crtime: (room >= CRTIME_END)
                .then(|| Timestamp::decode(extra.i_crtime.get(), Some(extra.i_crtime_extra.get()))),
            flags: InodeFlags::from_bits_retain(raw.i_flags.get()),
            file_acl: raw.i_file_acl.get(),
            extra_isize: room,
            late: owners_move,
            linkable: false,
            is_orphan: false,
            owners_move,
        }
    }
}
