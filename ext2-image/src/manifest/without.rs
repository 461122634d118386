//! What is left out of an entry, so that it is not compared.

use super::{AttributeFlags, Entry, Kind, Node};

/// Parts of entries that do not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without {
    /// All four times.
    pub times: bool,
    /// Users and groups.
    pub owners: bool,
    /// Extended attributes, access lists among them.
    pub xattrs: bool,
    /// Attribute flags.
    pub flags: bool,
    /// Where holes are; the bytes are compared all the same.
    pub holes: bool,
}

impl Without {
    /// The entry without them: what need not be said is not, what is always said is made the same.
    #[must_use]
    pub fn of(self, mut entry: Entry) -> Entry {
        let Node::Inode(inode) = &mut entry.node else { return entry };
        if self.times {
            (inode.atime, inode.mtime, inode.ctime, inode.crtime) = (None, None, None, None);
        }
        if self.owners {
            (inode.uid, inode.gid) = (0, 0);
        }
        if self.xattrs {
            inode.xattrs.clear();
        }
        if self.flags {
            inode.flags = AttributeFlags::from_inode_flags(0);
        }
        if let (true, Kind::File { holes, .. }) = (self.holes, &mut inode.kind) {
            holes.clear();
        }
        entry
    }
}
