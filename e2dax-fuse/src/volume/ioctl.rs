//! Attribute flags as `chattr` and `xfs_io` set them, the generation of an inode, and what is asked of a whole mount: the
//! label, free blocks that are given back, an end without a flush.
//!
//! For the four requests of flags the kernel checks who may (Linux: `vfs_fileattr_set`). What changes the whole is for
//! an administrator, and for who mounted the image.

use std::sync::atomic::Ordering;

use ext2_core::InodeFlags;
use rustix::io::Errno;

use super::{Caller, LABEL, Volume};
use crate::reply::Reply;

const GETFLAGS: [u32; 2] = [0x8008_6601, 0x8004_6601];
/// `FS_IOC_SETFLAGS` with a long as the kernel has it. Of the other form a kernel knows nothing: it hands that on from
/// whoever has the file open, and has not checked who may.
const SETFLAGS: u32 = if cfg!(target_pointer_width = "64") { 0x4008_6602 } else { 0x4004_6602 };
const FSGETXATTR: u32 = 0x801c_581f;
const FSSETXATTR: u32 = 0x401c_5820;
/// `FS_IOC_SHUTDOWN`, with a word that says whether to write everything first.
const SHUTDOWN: u32 = 0x8004_587d;
const SHUTDOWN_FLUSH: u32 = 0;
/// `FS_IOC_GETFSLABEL` and `FS_IOC_SETFSLABEL`, with room for 256 bytes.
const GETLABEL: u32 = 0x8100_9431;
const SETLABEL: u32 = 0x4100_9432;
/// `FITRIM`, with a `struct fstrim_range` that goes both ways.
const TRIM: u32 = 0xc018_5879;
const GETVERSION: [u32; 2] = [0x8008_7601, 0x8004_7601];

/// Bytes of `struct fsxattr`: flags, extent size, extents, project, COW extent size, and padding.
const FSXATTR: usize = 28;

/// Flags of `struct fsxattr` and ours. Linux: `FS_XFLAG_COMMON`.
const XFLAGS: [(u32, InodeFlags); 5] = [
    (0x08, InodeFlags::IMMUTABLE),
    (0x10, InodeFlags::APPEND),
    (0x20, InodeFlags::SYNC),
    (0x40, InodeFlags::NOATIME),
    (0x80, InodeFlags::NODUMP),
];

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Whether answering a request may take long.
pub(crate) fn takes_long(request: u32) -> bool {
    request == TRIM
}

impl Volume {
    /// Refuses what is for who may change the image as a whole.
    fn need_administrator(&self, caller: Caller) -> Reply<()> {
        let is_owner = self.owner != 0 && caller.uid == self.owner;
        if is_owner || self.is_administrator(caller) { Ok(()) } else { Err(Errno::PERM) }
    }

    /// Does what is asked of the whole mount; `None` for other requests.
    fn ioctl_of_all(&self, request: u32, input: &[u8], caller: Caller) -> Option<Reply<Vec<u8>>> {
        match request {
            GETLABEL => {
                let mut label = self.label();
                // As long as Linux has it, with the zero behind it.
                label.resize(LABEL + 1, 0);
                return Some(Ok(label));
            }
            SHUTDOWN | SETLABEL | TRIM => {}
            _ => return None,
        }
        Some(self.need_administrator(caller).and_then(|()| match request {
            SHUTDOWN => self.shut_down(input),
            SETLABEL => self.set_label(input),
            _ => self.trim(input),
        }))
    }

    /// Linux: `ext4_ioctl_setlabel`.
    fn set_label(&self, input: &[u8]) -> Reply<Vec<u8>> {
        let label = input.split(|byte| *byte == 0).next().unwrap_or_default();
        if label.len() > LABEL {
            return Err(Errno::INVAL);
        }
        self.store_label(label)?;
        Ok(Vec::new())
    }

    /// Has free blocks given back, and says how many bytes they have. Linux: `ext4_trim_fs`.
    fn trim(&self, input: &[u8]) -> Reply<Vec<u8>> {
        let field = |at| long(input, at).ok_or(Errno::INVAL);
        let (start, len, least) = (field(0)?, field(8)?, field(16)?);
        let geometry = self.fs.geometry();
        let size = geometry.block_size.bytes();
        let first = start / size;
        if len < size
            || first >= geometry.blocks_count.into()
            || least / size > geometry.blocks_per_group.into()
        {
            return Err(Errno::INVAL);
        }
        // OK to cast: below the number of blocks; and below that of a group.
        let end = first.saturating_add(len / size).min(geometry.blocks_count.into()) as u32;
        let trimmed =
            self.fs.trim(first as u32..end, (least / size) as u32).map_err(|error| self.errno(&error))?;
        Ok([start, trimmed * size, least].iter().flat_map(|field| field.to_le_bytes()).collect())
    }

    /// Ends all writing, as if the power went.
    fn shut_down(&self, input: &[u8]) -> Reply<Vec<u8>> {
        if input.is_empty() || word(input, 0) == Some(SHUTDOWN_FLUSH) {
            self.fs.sync().map_err(|error| self.errno(&error))?;
        }
        self.shut_down.store(true, Ordering::Relaxed);
        self.fs.shut_down();
        Ok(Vec::new())
    }

    /// Does what a request asks for; gives the bytes that go back to the caller.
    pub(crate) fn ioctl(&self, number: u64, request: u32, input: &[u8], caller: Caller) -> Reply<Vec<u8>> {
        if let Some(answer) = self.ioctl_of_all(request, input, caller) {
            return answer;
        }
        let node = self.node(number)?;
        let inode = &node.inode;
        let attr = inode.attr();
        if GETFLAGS.contains(&request) {
            let visible = attr.flags & InodeFlags::VISIBLE;
            return Ok(visible.bits().to_le_bytes().to_vec());
        }
        if GETVERSION.contains(&request) {
            // The request says that it is a long; every file system gives an int.
            return Ok(attr.generation.to_le_bytes().to_vec());
        }
        if request == SETFLAGS {
            let flags = InodeFlags::from_bits_retain(word(input, 0).ok_or(Errno::INVAL)?);
            inode.set_flags(flags).map_err(|error| self.errno(&error))?;
            self.written(inode, false)?;
            // The time of change that comes with it.
            self.forget_attributes(inode);
            return Ok(Vec::new());
        }
        if request == FSGETXATTR {
            let flags =
                XFLAGS.iter().filter(|row| attr.flags.contains(row.1)).fold(0, |all, row| all | row.0);
            let mut answer = vec![0; FSXATTR];
            answer.iter_mut().zip(u32::to_le_bytes(flags)).for_each(|(to, from)| *to = from);
            return Ok(answer);
        }
        if request == FSSETXATTR {
            if input.len() < FSXATTR {
                return Err(Errno::INVAL);
            }
            let wanted = word(input, 0).ok_or(Errno::INVAL)?;
            let known = XFLAGS.iter().fold(0, |all, row| all | row.0);
            // Extent sizes and projects are not for ext2; the number of extents (at 8) is told and never set.
            if wanted & !known != 0 || [4, 12, 16].iter().any(|at| word(input, *at) != Some(0)) {
                return Err(Errno::OPNOTSUPP);
            }
            let flags = XFLAGS.iter().fold(attr.flags, |mut flags, row| {
                flags.set(row.1, wanted & row.0 != 0);
                flags
            });
            inode.set_flags(flags).map_err(|error| self.errno(&error))?;
            self.written(inode, false)?;
            self.forget_attributes(inode);
            return Ok(Vec::new());
        }
        Err(Errno::NOTTY)
    }
}

#[cfg(test)]
mod tests {
    use ext2_core::{Ext2, OpenOptions};

    use super::*;
    use crate::options::MountOptions;
    use crate::volume::New;

    #[test]
    fn flags_are_set_by_the_request_alone_for_which_the_kernel_has_checked_who_may() {
        let fs = Ext2::open(ext2_image::mkfs::in_memory(1 << 20).unwrap(), &OpenOptions::default()).unwrap();
        let volume = Volume::new(fs, &MountOptions::default()).unwrap();
        let (owner, other) = (Caller { uid: 0, gid: 0, pid: 0 }, Caller { uid: 1000, gid: 1000, pid: 0 });
        let new = New { mode: 0o100_644, umask: 0, device: 0 };
        let (entry, node) = volume.make(1, b"f", new, owner).unwrap();
        let immutable = InodeFlags::IMMUTABLE.bits().to_le_bytes();
        let foreign = 0x4008_6602 ^ 0x4004_6602 ^ SETFLAGS;
        assert_eq!(volume.ioctl(entry.node, foreign, &immutable, other), Err(Errno::NOTTY));
        assert_eq!(node.inode.attr().flags, InodeFlags::empty());
        assert_eq!(volume.ioctl(entry.node, SETFLAGS, &immutable, other), Ok(Vec::new()));
        assert_eq!(node.inode.attr().flags, InodeFlags::IMMUTABLE);
    }
}
