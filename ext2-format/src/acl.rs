//! POSIX access control lists: ext2's form on disk and Linux's form for programs.
//!
//! ```
//! use ext2_format::{Acl, AclEntry, AclTag};
//!
//! // u::rw-, u:1000:rw-, g::r--, m::rw-, o::---
//! let entry = |tag, permissions| AclEntry { tag, permissions };
//! let entries = vec![
//!     entry(AclTag::UserObj, 6),
//!     entry(AclTag::User(1000), 6),
//!     entry(AclTag::GroupObj, 4),
//!     entry(AclTag::Mask, 6),
//!     entry(AclTag::Other, 0),
//! ];
//! let acl = Acl::new(entries).ok_or("owner, owning group, others, and a mask")?;
//! assert_eq!(acl.mode(), 0o660, "the mask stands where the group's bits are");
//! assert_eq!(Acl::from_disk(&acl.to_disk()), Some(acl));
//! # Ok::<(), &str>(())
//! ```

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Which list of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclKind {
    /// Who may do what with this inode.
    Access,
    /// What new inodes in this directory get.
    Default,
}

/// Whom an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AclTag {
    /// The owner.
    UserObj,
    /// A user.
    User(u32),
    /// The owning group.
    GroupObj,
    /// A group.
    Group(u32),
    /// The most that users and groups other than the owner get.
    Mask,
    /// All others.
    Other,
}

/// One entry: whom, and read (4), write (2) and execute (1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AclEntry {
    /// Whom.
    pub tag: AclTag,
    /// What, 3 bits.
    pub permissions: u16,
}

/// An access control list, in the order of the tags: users and groups that Linux stored may be in any order among themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Vec<AclEntry>);

/// `a_version` on disk.
const DISK_VERSION: u32 = 1;
/// `a_version` for programs.
const USER_VERSION: u32 = 2;
/// The id of entries without one, for programs.
const NO_ID: u32 = u32::MAX;

impl AclTag {
    fn from_number(tag: u16, id: u32) -> Option<Self> {
        Some(match tag {
            0x01 => Self::UserObj,
            0x02 => Self::User(id),
            0x04 => Self::GroupObj,
            0x08 => Self::Group(id),
            0x10 => Self::Mask,
            0x20 => Self::Other,
            _ => return None,
        })
    }

    fn number(self) -> u16 {
        match self {
            Self::UserObj => 0x01,
            Self::User(_) => 0x02,
            Self::GroupObj => 0x04,
            Self::Group(_) => 0x08,
            Self::Mask => 0x10,
            Self::Other => 0x20,
        }
    }

    fn id(self) -> Option<u32> {
        match self {
            Self::User(id) | Self::Group(id) => Some(id),
            _ => None,
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

impl Acl {
    /// A list of these entries, if it is valid: sorted by tag and id, each of owner, owning group and
    /// others once, and a mask where a user or group is named. Linux: `posix_acl_valid`.
    #[must_use]
    pub fn new(entries: Vec<AclEntry>) -> Option<Self> {
        let sorted = entries.windows(2).all(|pair| matches!(pair, [a, b] if a.tag < b.tag));
        if sorted { Self::as_linux(entries) } else { None }
    }

    /// The same, as Linux takes lists: named users are in any order, and named groups, the same one perhaps more than once.
    fn as_linux(entries: Vec<AclEntry>) -> Option<Self> {
        let follows =
            |a: AclTag, b: AclTag| a.number() < b.number() || a.number() == b.number() && a.id().is_some();
        let sorted = entries.windows(2).all(|pair| matches!(pair, [a, b] if follows(a.tag, b.tag)));
        let has = |tag: AclTag| entries.iter().any(|entry| entry.tag == tag);
        let named = entries.iter().any(|entry| entry.tag.id().is_some());
        let complete = has(AclTag::UserObj) && has(AclTag::GroupObj) && has(AclTag::Other);
        let small = entries.iter().all(|entry| entry.permissions <= 7);
        (sorted && complete && small && (!named || has(AclTag::Mask))).then_some(Self(entries))
    }

    /// The entries, sorted by tag and id.
    #[must_use]
    pub fn entries(&self) -> &[AclEntry] {
        &self.0
    }

    /// From ext2's form on disk (Linux: `ext2_acl_from_disk`).
    #[must_use]
    pub fn from_disk(bytes: &[u8]) -> Option<Self> {
        let mut entries = Vec::new();
        let mut at = 4;
        if word(bytes, 0)? != DISK_VERSION {
            return None;
        }
        while at < bytes.len() {
            let (tag, permissions) = (half(bytes, at)?, half(bytes, at + 2)?);
            at += 4;
            let mut id = 0;
            if matches!(tag, 0x02 | 0x08) {
                id = word(bytes, at)?;
                at += 4;
            }
            entries.push(AclEntry { tag: AclTag::from_number(tag, id)?, permissions });
        }
        Self::as_linux(entries)
    }

    /// Ext2's form on disk (Linux: `ext2_acl_to_disk`).
    #[must_use]
    pub fn to_disk(&self) -> Vec<u8> {
        let mut bytes = DISK_VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend(entry.tag.number().to_le_bytes());
            bytes.extend(entry.permissions.to_le_bytes());
            bytes.extend(entry.tag.id().map(u32::to_le_bytes).iter().flatten());
        }
        bytes
    }

    /// From the form of the attribute `system.posix_acl_access` as programs see it, with its entries in the order of their tags
    /// (Linux: `posix_acl_from_xattr`, `posix_acl_valid`).
    #[must_use]
    pub fn from_user(bytes: &[u8]) -> Option<Self> {
        if word(bytes, 0)? != USER_VERSION || bytes.len() % 8 != 4 {
            return None;
        }
        let mut entries = Vec::new();
        for entry in bytes.get(4..)?.chunks_exact(8) {
            let tag = AclTag::from_number(half(entry, 0)?, word(entry, 4)?)?;
            // Nobody has that id.
            if tag.id() == Some(NO_ID) {
                return None;
            }
            entries.push(AclEntry { tag, permissions: half(entry, 2)? });
        }
        Self::as_linux(entries)
    }

    /// The form that programs see (Linux: `posix_acl_to_xattr`).
    #[must_use]
    pub fn to_user(&self) -> Vec<u8> {
        let mut bytes = USER_VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend(entry.tag.number().to_le_bytes());
            bytes.extend(entry.permissions.to_le_bytes());
            bytes.extend(entry.tag.id().unwrap_or(NO_ID).to_le_bytes());
        }
        bytes
    }

    fn find(&self, tag: AclTag) -> Option<&AclEntry> {
        self.0.iter().find(|entry| entry.tag == tag)
    }

    /// The nine permission bits of a mode that say the same for owner, group (the mask, where there is
    /// one) and others. Linux: `posix_acl_equiv_mode`.
    #[must_use]
    pub fn mode(&self) -> u16 {
        let bits = |tag| self.find(tag).map_or(0, |entry| entry.permissions);
        let group = self.find(AclTag::Mask).map_or(bits(AclTag::GroupObj), |mask| mask.permissions);
        bits(AclTag::UserObj) << 6 | group << 3 | bits(AclTag::Other)
    }

    /// Whether a mode says all that the list says.
    #[must_use]
    pub fn is_mode(&self) -> bool {
        self.0.len() == 3
    }

    /// The list with owner, mask (or group) and others set from the permission bits of `mode`. Linux:
    /// `posix_acl_chmod`.
    #[must_use]
    pub fn with_mode(&self, mode: u16) -> Self {
        let masked = self.find(AclTag::Mask).is_some();
        let entries = self.0.iter().map(|&entry| {
            let permissions = match entry.tag {
                AclTag::UserObj => mode >> 6 & 7,
                AclTag::Mask => mode >> 3 & 7,
                AclTag::GroupObj if !masked => mode >> 3 & 7,
                AclTag::Other => mode & 7,
                _ => entry.permissions,
            };
            AclEntry { permissions, ..entry }
        });
        Self(entries.collect())
    }

    /// The list that a new inode gets from this default list when it is asked for with `mode`: no more
    /// than both allow. Linux: `posix_acl_create`.
    #[must_use]
    pub fn for_new(&self, mode: u16) -> Self {
        self.with_mode(self.mode() & mode)
    }
}

impl fmt::Display for Acl {
    /// The short text form of `setfacl`: `u::rw-,u:1000:r--,g::r--,m::r--,o::---`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nr, entry) in self.0.iter().enumerate() {
            let comma = if nr > 0 { "," } else { "" };
            let (letter, id) = match entry.tag {
                AclTag::UserObj => ('u', None),
                AclTag::User(id) => ('u', Some(id)),
                AclTag::GroupObj => ('g', None),
                AclTag::Group(id) => ('g', Some(id)),
                AclTag::Mask => ('m', None),
                AclTag::Other => ('o', None),
            };
            let id = id.map(|id| alloc::format!("{id}")).unwrap_or_default();
            let bits: String = [(4, 'r'), (2, 'w'), (1, 'x')]
                .into_iter()
                .map(|(bit, letter)| if entry.permissions & bit != 0 { letter } else { '-' })
                .collect();
            write!(f, "{comma}{letter}:{id}:{bits}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn sample() -> Acl {
        let entry = |tag, permissions| AclEntry { tag, permissions };
        Acl::new(alloc::vec![
            entry(AclTag::UserObj, 6),
            entry(AclTag::User(1000), 7),
            entry(AclTag::GroupObj, 4),
            entry(AclTag::Group(70_000), 5),
            entry(AclTag::Mask, 5),
            entry(AclTag::Other, 0),
        ])
        .unwrap()
    }

    #[test]
    fn a_list_survives_both_forms() {
        assert_eq!(Acl::from_disk(&sample().to_disk()), Some(sample()));
        assert_eq!(Acl::from_user(&sample().to_user()), Some(sample()));
        assert_eq!(sample().to_disk().len(), 4 + 4 * 4 + 2 * 8);
        assert_eq!(sample().to_string(), "u::rw-,u:1000:rwx,g::r--,g:70000:r-x,m::r-x,o::---");
    }

    #[test]
    fn a_list_with_users_and_groups_in_any_order_is_read_as_linux_stored_it() {
        let entry = |tag: u16, permissions: u16, id: Option<u32>| {
            let id = id.map_or(Vec::new(), |id| id.to_le_bytes().to_vec());
            [tag.to_le_bytes().to_vec(), permissions.to_le_bytes().to_vec(), id].concat()
        };
        let list = |entries: &[Vec<u8>]| [1_u32.to_le_bytes().to_vec(), entries.concat()].concat();
        let (owner, group, other) = (entry(1, 6, None), entry(4, 4, None), entry(0x20, 0, None));
        let disk = list(&[
            owner.clone(),
            entry(2, 6, Some(2000)),
            entry(2, 4, Some(1000)),
            group.clone(),
            entry(8, 4, Some(70)),
            entry(8, 6, Some(70)),
            entry(0x10, 6, None),
            other.clone(),
        ]);
        let acl = Acl::from_disk(&disk).unwrap();
        assert_eq!(acl.to_disk(), disk);
        assert_eq!(acl.with_mode(0o600).mode(), 0o600);
        for wrong in [
            &[owner.clone(), owner.clone(), group.clone(), other.clone()],
            &[owner.clone(), other, group, owner],
        ] {
            assert_eq!(Acl::from_disk(&list(wrong)), None);
        }
    }

    #[test]
    fn programs_give_lists_in_the_order_and_with_the_ids_that_linux_takes() {
        let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &[4, 0], &id.to_le_bytes()].concat();
        let list = |tags: &[(u16, u32)]| {
            let entries = tags.iter().flat_map(|&(tag, id)| entry(tag, id));
            Acl::from_user(&2_u32.to_le_bytes().into_iter().chain(entries).collect::<Vec<u8>>())
        };
        let (owner, group, mask, other) = ((1, NO_ID), (4, NO_ID), (0x10, NO_ID), (0x20, NO_ID));
        let twice = list(&[owner, (2, 70), (2, 70), (2, 5), group, mask, other]).unwrap();
        assert_eq!(Acl::from_user(&twice.to_user()), Some(twice));
        assert_eq!(list(&[other, owner, group]), None);
        assert_eq!(list(&[owner, (2, NO_ID), group, mask, other]), None);
    }

    #[test]
    fn a_list_without_owner_or_without_the_mask_it_needs_is_none() {
        let mut entries = sample().0;
        entries.retain(|entry| entry.tag != AclTag::Mask);
        assert_eq!(Acl::new(entries.clone()), None);
        entries.retain(|entry| entry.tag.id().is_none());
        assert!(Acl::new(entries.clone()).is_some());
        entries.remove(0);
        assert_eq!(Acl::new(entries), None);
    }

    #[test]
    fn a_new_inode_gets_no_more_than_the_default_list_and_the_mode_allow() {
        let new = sample().for_new(0o640);
        assert_eq!(new.mode(), 0o640 & sample().mode());
        assert_eq!(new.to_string(), "u::rw-,u:1000:rwx,g::r--,g:70000:r-x,m::r--,o::---");
    }

    #[test]
    fn broken_bytes_are_no_list() {
        let whole = sample().to_disk();
        for len in 0..whole.len() {
            let _ = Acl::from_disk(&whole[..len]);
        }
        assert_eq!(Acl::from_disk(&[1, 0, 0, 0, 0x40, 0, 7, 0]), None);
        assert_eq!(Acl::from_user(&[2, 0, 0, 0, 1]), None);
    }
}
