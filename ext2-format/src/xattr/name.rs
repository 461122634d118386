//! The name of an attribute: a prefix, stored as an index, and the rest.

use alloc::vec::Vec;

use crate::error::{Result, refuse};
use crate::{AclKind, Errno};

/// An attribute's name as it is stored.
///
/// ```
/// use ext2_format::xattr::XattrName;
///
/// let name = XattrName::parse(b"user.origin")?;
/// assert_eq!(name.full(), b"user.origin");
/// # Ok::<(), ext2_format::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XattrName {
    /// Stands for the prefix (Linux: `EXT2_XATTR_INDEX_*`).
    pub index: u8,
    /// The name after the prefix.
    pub suffix: Vec<u8>,
}

/// Indexes and the prefixes that they stand for.
const PREFIXES: [(u8, &[u8]); 3] = [(1, b"user."), (4, b"trusted."), (6, b"security.")];
/// A prefix that others (ext4) store names of; ext2 knows none but the whole ones.
const SYSTEM: (u8, &[u8]) = (7, b"system.");
/// Indexes that stand for a whole name.
const WHOLE: [(u8, &[u8], AclKind); 2] =
    [(2, b"system.posix_acl_access", AclKind::Access), (3, b"system.posix_acl_default", AclKind::Default)];

impl XattrName {
    /// From the whole name.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for a prefix that ext2 does not know, `EINVAL` for a prefix without a name, `ERANGE`
    /// for a name of more than 255 bytes.
    pub fn parse(name: &[u8]) -> Result<Self> {
        if let Some((index, ..)) = WHOLE.iter().find(|row| row.1 == name) {
            return Ok(Self { index: *index, suffix: Vec::new() });
        }
        let Some((index, prefix)) = PREFIXES.iter().find(|(_, prefix)| name.starts_with(prefix)) else {
            return refuse(
                Errno::OPNOTSUPP,
                "attribute names begin with user., trusted. or security., or are an access control list's",
            );
        };
        let suffix = name.get(prefix.len()..).unwrap_or_default();
        if suffix.is_empty() || suffix.contains(&0) {
            return refuse(Errno::INVAL, "an attribute needs a name after its prefix");
        }
        if name.len() > 255 {
            return refuse(Errno::RANGE, "the attribute's name is longer than 255 bytes");
        }
        Ok(Self { index: *index, suffix: suffix.to_vec() })
    }

    /// The name under which an access control list is stored.
    #[must_use]
    pub fn of_acl(which: AclKind) -> Self {
        let index = if which == AclKind::Access { 2 } else { 3 };
        Self { index, suffix: Vec::new() }
    }

    /// Which access control list this is, if one.
    #[must_use]
    pub fn acl_kind(&self) -> Option<AclKind> {
        WHOLE.iter().find(|row| row.0 == self.index && self.suffix.is_empty()).map(|row| row.2)
    }

    /// The whole name. An index that is not known is shown as its number.
    #[must_use]
    pub fn full(&self) -> Vec<u8> {
        let prefix = PREFIXES.iter().chain([&SYSTEM]).find(|row| row.0 == self.index).map(|row| row.1);
        let whole = WHOLE.iter().find(|row| row.0 == self.index).map(|row| row.1);
        match prefix.or(whole) {
            Some(prefix) => [prefix, &self.suffix].concat(),
            None => [alloc::format!("index{}.", self.index).as_bytes(), &self.suffix].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_survive_being_stored() {
        for name in [
            &b"user.a"[..],
            b"trusted.x.y",
            b"security.capability",
            b"system.posix_acl_access",
            b"system.posix_acl_default",
        ] {
            assert_eq!(XattrName::parse(name).unwrap().full(), name);
        }
    }

    #[test]
    fn names_without_a_known_prefix_or_a_suffix_are_refused() {
        assert!(XattrName::parse(b"colour").unwrap_err().is(Errno::OPNOTSUPP));
        assert!(XattrName::parse(b"user.").unwrap_err().is(Errno::INVAL));
        assert!(
            XattrName::parse(&[b"user.".as_slice(), &[b'x'; 251]].concat()).unwrap_err().is(Errno::RANGE)
        );
    }
}
