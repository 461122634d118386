//! Extended attributes and access control lists.

use ext2_core::{SetAttr, XattrSet};
use rustix::io::Errno;

use super::{Caller, Volume};
use crate::reply::Reply;

/// `XATTR_CREATE` and `XATTR_REPLACE`.
const CREATE: i32 = 1;
const REPLACE: i32 = 2;
const BOTH: i32 = CREATE | REPLACE;
/// The list that permissions follow.
const ACCESS_LIST: &[u8] = b"system.posix_acl_access";
/// What the kernel grants a program that has it.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

impl Volume {
    /// The value of an attribute.
    pub(crate) fn get_xattr(&self, number: u64, name: &[u8]) -> Reply<Vec<u8>> {
        self.node(number)?.inode.xattr_get(name).map_err(|error| self.errno(&error))
    }

    /// The names of all attributes, each with a zero byte behind it. Those that only an administrator may read are for one.
    pub(crate) fn list_xattrs(&self, number: u64, caller: Caller) -> Reply<Vec<u8>> {
        let names = self.node(number)?.inode.xattr_list().map_err(|error| self.errno(&error))?;
        let is_trusted = |name: &Vec<u8>| name.starts_with(b"trusted.");
        let sees_all = !names.iter().any(is_trusted) || self.is_administrator(caller);
        let seen = |name: &&Vec<u8>| sees_all || !is_trusted(name);
        Ok(names.iter().filter(seen).flat_map(|name| name.iter().copied().chain([0])).collect())
    }

    /// Sets an attribute.
    pub(crate) fn set_xattr(
        &self,
        number: u64,
        name: &[u8],
        value: &[u8],
        flags: i32,
        caller: Caller,
    ) -> Reply<()> {
        let how = match flags {
            0 => XattrSet::Any,
            CREATE => XattrSet::Create,
            REPLACE => XattrSet::Replace,
            // Never both: what is there must not be, and what is not must (Linux: `ext4_xattr_set_handle`).
            BOTH => match self.get_xattr(number, name) {
                Ok(_) => XattrSet::Create,
                Err(_) => XattrSet::Replace,
            },
            _ => return Err(Errno::INVAL),
        };
        let node = self.node(number)?;
        let mode = node.inode.attr().mode;
        let done = node.inode.xattr_set(name, value, how);
        if name == CAPABILITY {
            node.capabilities.were_set();
        }
        done.map_err(|error| self.errno(&error))?;
        if name == ACCESS_LIST {
            // As chmod by somebody outside the group (Linux: `posix_acl_update_mode`).
            let attr = node.inode.attr();
            if caller.uid != 0 && attr.mode & 0o2000 != 0 && !caller.is_in_group(attr.gid) {
                let change = SetAttr { mode: Some(attr.mode & !0o2000), ..SetAttr::default() };
                node.inode.set_attr(&change).map_err(|error| self.errno(&error))?;
                self.forget_attributes(&node.inode);
            }
        }
        self.written_from(&node.inode, mode)
    }

    /// Removes an attribute.
    pub(crate) fn remove_xattr(&self, number: u64, name: &[u8], caller: Caller) -> Reply<()> {
        let node = self.node(number)?;
        if name == CAPABILITY {
            // Also for a write: the kernel removes them before it sends that, and says nothing of them then.
            self.remove_capabilities(&node)?;
            if caller.uid == 0 {
                node.capabilities.note_root();
            }
        } else {
            node.inode.xattr_remove(name).map_err(|error| self.errno(&error))?;
        }
        self.written(&node.inode, false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use blockdev::{Calls, Fault, Faulty, RamDevice};
    use ext2_core::plumbing::Plumbing as _;
    use ext2_core::{Ext2, Follow, InodeFlags, OnError, OpenOptions};
    use ext2_image::mkfs::{self, Format, Fresh};
    use fuser::WriteFlags;

    use super::*;
    use crate::options::MountOptions;
    use crate::volume::{Change, New};

    const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 0 };
    const USER: Caller = Caller { uid: 1000, gid: 1000, pid: 0 };

    /// A mount of an image with `f`, which has bytes and this mode, durably; and its number.
    fn mounted(options: &MountOptions, log: bool, mode: u32) -> (Arc<Faulty<RamDevice>>, Volume, u64) {
        let device = Arc::new(Faulty::new(RamDevice::new(16 << 20).unwrap()));
        let format = Format { block_size: ext2_core::BlockSize::new(1024), ..Format::default() };
        mkfs::format(&*device, &format, Fresh::Zeros).unwrap();
        let how = OpenOptions { log, errors: Some(OnError::Continue), ..OpenOptions::default() };
        let fs = Ext2::open(device.clone(), &how).unwrap();
        assert_eq!(fs.has_log(), log);
        let volume = Volume::new(fs, options).unwrap();
        let (entry, node) = volume.make(1, b"f", New { mode, umask: 0, device: 0 }, ROOT).unwrap();
        node.inode.write_at(0, &[1; 1024]).unwrap();
        volume.fs.sync().unwrap();
        (device, volume, entry.node)
    }

    /// What a kill leaves.
    fn left(device: &Faulty<RamDevice>) -> ext2_core::Inode {
        let device = RamDevice::from_bytes(&device.inner().to_vec()).unwrap();
        let fs = Ext2::open(device, &OpenOptions::default()).unwrap();
        fs.resolve("f", Follow::No).unwrap()
    }

    #[test]
    fn what_is_written_after_capabilities_were_removed_waits_until_they_are_gone_for_good() {
        let (device, volume, number) = mounted(&MountOptions::default(), true, 0o100_666);
        volume.set_xattr(number, CAPABILITY, b"cap", 0, ROOT).unwrap();
        volume.fsync(number).unwrap();
        volume.remove_xattr(number, CAPABILITY, USER).unwrap();
        let kill = WriteFlags::FUSE_WRITE_KILL_SUIDGID;
        volume.write(number, 0, &[2; 1024], kill, 0, USER).unwrap();
        let left = left(&device);
        assert_eq!(left.read_all().unwrap()[0], 2);
        left.xattr_get(CAPABILITY).unwrap_err();
        assert_eq!(volume.remove_xattr(number, CAPABILITY, USER), Err(Errno::NODATA));
    }

    #[test]
    fn capabilities_whose_removal_was_lost_are_removed_again_by_the_next_write() {
        let (device, volume, number) = mounted(&MountOptions::default(), false, 0o100_666);
        volume.set_xattr(number, CAPABILITY, b"cap", 0, ROOT).unwrap();
        device.arm(Fault::once(Calls::FENCE, 0));
        assert_eq!(volume.remove_xattr(number, CAPABILITY, USER), Err(Errno::IO));
        assert_eq!(device.fired(), 1);
        let node = volume.node(number).unwrap();
        assert!(node.inode.may_have_lost_rights());
        volume.write(number, 0, &[2; 1024], WriteFlags::empty(), 0, USER).unwrap();
        assert!(!node.inode.may_have_lost_rights());
        node.inode.xattr_get(CAPABILITY).unwrap_err();
        // From here on nobody looks.
        volume.write(number, 0, &[2; 1024], WriteFlags::empty(), 0, USER).unwrap();
        assert!(node.capabilities.are_none());
    }

    #[test]
    fn nothing_is_written_beside_capabilities_whose_removal_a_log_could_not_commit() {
        for kernel_removes in [true, false] {
            let (device, volume, number) = mounted(&MountOptions::default(), true, 0o100_666);
            let write = || volume.write(number, 0, &[2; 1024], WriteFlags::empty(), 0, USER).map(drop);
            volume.set_xattr(number, CAPABILITY, b"cap", 0, ROOT).unwrap();
            volume.fsync(number).unwrap();
            device.arm(Fault::once(Calls::FLUSH, 0));
            let first = if kernel_removes { volume.remove_xattr(number, CAPABILITY, USER) } else { write() };
            assert_eq!((first, device.fired()), (Err(Errno::IO), 1));
            device.disarm();
            assert_eq!([write(), volume.fsync(number), write()], [Err(Errno::IO); 3]);
            assert_eq!(left(&device).read_all().unwrap()[0], 1);
        }
    }

    #[test]
    fn an_append_only_file_is_appended_to_after_a_fence_was_lost() {
        let (device, volume, number) = mounted(&MountOptions::default(), false, 0o100_666);
        volume.node(number).unwrap().inode.set_flags(InodeFlags::APPEND).unwrap();
        let new = New { mode: 0o100_644, umask: 0, device: 0 };
        let other = volume.make(1, b"other", new, ROOT).unwrap().0.node;
        // The kernel forgets the file.
        volume.nodes.forget(number, 1);
        device.arm(Fault::once(Calls::FENCE, 0));
        let change = Change { mode: Some(0o600), ..Change::default() };
        assert_eq!(volume.set_attr(other, &change, ROOT).map(drop), Err(Errno::IO));
        volume.look_up(1, b"f").unwrap().unwrap();
        let node = volume.node(number).unwrap();
        assert!(node.inode.may_have_lost_rights());
        for (offset, caller) in [(1024, ROOT), (1025, USER)] {
            assert_eq!(volume.write(number, offset, b"x", WriteFlags::empty(), 0, caller), Ok(1));
        }
        assert!(!node.inode.may_have_lost_rights());
    }

    #[test]
    fn a_user_appends_to_an_append_only_file_whose_set_group_id_is_the_mark_of_mandatory_locks() {
        for (mode, log) in [(0o102_666, false), (0o106_666, false), (0o102_666, true), (0o106_666, true)] {
            let (_, volume, number) = mounted(&MountOptions::default(), log, mode);
            let inode = volume.node(number).unwrap().inode.clone();
            inode.set_flags(InodeFlags::APPEND).unwrap();
            let kill = WriteFlags::FUSE_WRITE_KILL_SUIDGID;
            assert_eq!(volume.write(number, 1024, b"x", kill, 0, USER), Ok(1));
            assert_eq!(inode.attr().mode, 0o666);
        }
    }

    #[test]
    fn set_id_bits_are_gone_for_good_before_the_kernel_gathers_what_is_written_next() {
        let options = MountOptions { writeback_cache: true, ..MountOptions::default() };
        let (device, volume, number) = mounted(&options, true, 0o104_777);
        let change = Change { mode: Some(0o777), ..Change::default() };
        volume.set_attr(number, &change, ROOT).unwrap();
        volume.write(number, 0, &[2; 1024], WriteFlags::FUSE_WRITE_CACHE, 0, USER).unwrap();
        let left = left(&device);
        assert_eq!((left.attr().mode, left.read_all().unwrap()[0]), (0o777, 2));
    }
}
