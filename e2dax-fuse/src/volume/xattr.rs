//! Extended attributes and access control lists.

use std::sync::atomic::Ordering;

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
        node.inode.xattr_set(name, value, how).map_err(|error| self.errno(&error))?;
        if name == CAPABILITY {
            node.no_capabilities.store(false, Ordering::Release);
        }
        if name == ACCESS_LIST {
            // As chmod by somebody outside the group (Linux: `posix_acl_update_mode`).
            let attr = node.inode.attr();
            if caller.uid != 0 && attr.mode & 0o2000 != 0 && !caller.is_in_group(attr.gid) {
                let change = SetAttr { mode: Some(attr.mode & !0o2000), ..SetAttr::default() };
                node.inode.set_attr(&change).map_err(|error| self.errno(&error))?;
                self.forget_attributes(&node.inode);
            }
        }
        self.written(&node.inode, false)
    }

    /// Removes an attribute.
    pub(crate) fn remove_xattr(&self, number: u64, name: &[u8], caller: Caller) -> Reply<()> {
        let node = self.node(number)?;
        node.inode.xattr_remove(name).map_err(|error| self.errno(&error))?;
        if name == CAPABILITY && caller.uid == 0 {
            node.root_removed_capabilities.store(true, Ordering::Release);
        }
        self.written(&node.inode, false)
    }
}
