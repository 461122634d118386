//! Attribute flags as `chattr` and `xfs_io` set them, and the generation of an inode.
//!
//! The kernel checks who may (Linux: `vfs_fileattr_set`), for the four requests that it knows.

use ext2_core::InodeFlags;
use rustix::io::Errno;

use super::{Caller, Volume};
use crate::reply::Reply;

const GETFLAGS: [u32; 2] = [0x8008_6601, 0x8004_6601];
const SETFLAGS: [u32; 2] = [0x4008_6602, 0x4004_6602];
const FSGETXATTR: u32 = 0x801c_581f;
const FSSETXATTR: u32 = 0x401c_5820;
/// `FS_IOC_SHUTDOWN`, with a word that says whether to write everything first.
const SHUTDOWN: u32 = 0x8004_587d;
const SHUTDOWN_FLUSH: u32 = 0;
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

impl Volume {
    /// Ends all writing, as if the power went.
    fn shut_down(&self, input: &[u8], caller: Caller) -> Reply<Vec<u8>> {
        if caller.uid != 0 {
            return Err(Errno::PERM);
        }
        if input.is_empty() || word(input, 0) == Some(SHUTDOWN_FLUSH) {
            self.fs.sync().map_err(|error| self.errno(&error))?;
        }
        self.fs.shut_down();
        Ok(Vec::new())
    }

    /// Does what a request asks for; gives the bytes that go back to the caller.
    pub(crate) fn ioctl(&self, number: u64, request: u32, input: &[u8], caller: Caller) -> Reply<Vec<u8>> {
        if request == SHUTDOWN {
            return self.shut_down(input, caller);
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
        if SETFLAGS.contains(&request) {
            let flags = InodeFlags::from_bits_retain(word(input, 0).ok_or(Errno::INVAL)?);
            inode.set_flags(flags).map_err(|error| self.errno(&error))?;
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
            self.forget_attributes(inode);
            return Ok(Vec::new());
        }
        Err(Errno::NOTTY)
    }
}
