//! Who may do what with a file, and what a crash may show of it on the way from one to the other.

use ext2_core::FileKind;

use crate::tree::Node;

/// Set-user-ID and set-group-ID.
const SET_ID: u16 = 0o6000;

/// Who may do what with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights<'h> {
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) acl: Option<&'h [u8]>,
}

impl<'h> Rights<'h> {
    pub(super) fn of(node: &'h Node) -> Self {
        let acl = node.xattrs.iter().find(|(name, _)| name == b"system.posix_acl_access");
        Self { mode: node.mode, uid: node.uid, gid: node.gid, acl: acl.map(|(_, value)| &value[..]) }
    }

    /// The set-id bits that a write by a user takes.
    pub(super) fn taken_by_write(&self) -> u16 {
        self.mode & if self.mode & 0o010 != 0 { SET_ID } else { 0o4000 }
    }

    /// What a file of this kind may have while its rights become others: those go first that one of the two does not have.
    pub(super) fn on_the_way_to(self, to: Self, kind: FileKind) -> [Self; 5] {
        let both = self.mode & to.mode;
        let owners_change = (self.uid, self.gid) != (to.uid, to.gid);
        let kept = if owners_change && kind != FileKind::Directory { both & !SET_ID } else { both };
        [
            Self { mode: both, ..self },
            Self { mode: both, acl: to.acl, ..self },
            Self { mode: kept, ..self },
            Self { mode: kept, acl: to.acl, ..self },
            Self { mode: kept, ..to },
        ]
    }
}
