//! Lists of access control as archives have them: text, entries apart by commas or line feeds.
//!
//! `user:alice:rwx`, `u::rw-`, `default:group:7:r-x`, with `:1000` behind it for the number of a name (star, bsdtar),
//! and `#effective:…` and comments as getfacl prints them.

use std::collections::BTreeMap;

use ext2_core::{Acl, AclEntry, AclKind, AclTag};

use crate::manifest::quote;
use crate::mkfs::{Alike, Body, Tree};

/// Whom a name is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// A user.
    User,
    /// A group.
    Group,
}

/// What a text says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    /// The list; `None` where the text is none, or it says no more than the permissions of the file.
    pub(super) acl: Option<Acl>,
    /// Whether the text makes sense.
    pub(super) is_valid: bool,
    /// Names that nobody knows, whose entries are left out.
    pub(super) unknown: Vec<Vec<u8>>,
}

/// Reads a list. `number_of` knows the numbers of names.
pub(super) fn parse(text: &[u8], kind: AclKind, number_of: &dyn Fn(Who, &[u8]) -> Option<u32>) -> Parsed {
    let mut entries: BTreeMap<AclTag, u16> = BTreeMap::new();
    let mut parsed = Parsed { acl: None, is_valid: true, unknown: Vec::new() };
    for line in text.split(|&byte| matches!(byte, b',' | b'\n' | 0)) {
        let line = line.split(|&byte| byte == b'#').next().unwrap_or(line).trim_ascii();
        if line.is_empty() {
            continue;
        }
        match entry(line, kind, number_of) {
            // Two names of one number: the last word counts.
            Some(Entry::Known(entry)) => drop(entries.insert(entry.tag, entry.permissions)),
            Some(Entry::Unknown(name)) => parsed.unknown.push(name),
            Some(Entry::OfOtherKind) => {}
            None => parsed.is_valid = false,
        }
    }
    let acl = Acl::new(entries.into_iter().map(|(tag, permissions)| AclEntry { tag, permissions }).collect());
    parsed.is_valid &= acl.is_some();
    let valid = parsed.is_valid;
    // One that has no more than owner, group and others is the permissions themselves. As a default it is not.
    parsed.acl = acl.filter(|acl| valid && (kind == AclKind::Default || !acl.is_mode()));
    parsed
}

/// Lets lists and permissions say the same, as Linux does when a list is set (`posix_acl_update_mode`): the permissions of the
/// group are the mask, which bsdtar does not write into headers; a list that says no more than the permissions is none; and
/// only directories have a list for what is made in them.
pub(super) fn settle(tree: &mut Tree) {
    const ACCESS: &[u8] = b"system.posix_acl_access";
    const DEFAULT: &[u8] = b"system.posix_acl_default";
    let (mut access_lists, mut default_lists) = (Alike::default(), Alike::default());
    for node in tree.ids() {
        if tree.attrs(node).xattrs.is_empty() {
            continue;
        }
        let is_directory = *tree.body(node) == Body::Directory;
        let attrs = tree.attrs_mut(node);
        let access = attrs.xattrs.iter().find(|(name, _)| name == ACCESS);
        if let Some(acl) = access.and_then(|(_, value)| Acl::from_user(value)) {
            attrs.mode = attrs.mode & !0o777 | acl.mode();
            if acl.is_mode() {
                access_lists.change(&mut attrs.xattrs, |list| list.retain(|(name, _)| name != ACCESS));
            }
        }
        if !is_directory && attrs.xattrs.iter().any(|(name, _)| name == DEFAULT) {
            default_lists.change(&mut attrs.xattrs, |list| list.retain(|(name, _)| name != DEFAULT));
            let path = tree.path(node);
            tree.warnings_mut().add(&path, format!("{} is left out: it is no directory", quote(DEFAULT)));
        }
    }
}

enum Entry {
    Known(AclEntry),
    Unknown(Vec<u8>),
    OfOtherKind,
}

fn entry(line: &[u8], kind: AclKind, number_of: &dyn Fn(Who, &[u8]) -> Option<u32>) -> Option<Entry> {
    let mut parts: Vec<&[u8]> = line.split(|&byte| byte == b':').map(<[u8]>::trim_ascii).collect();
    if matches!(parts.first(), Some(&(b"default" | b"d"))) {
        parts.remove(0);
        if kind == AclKind::Access {
            return Some(Entry::OfOtherKind);
        }
    }
    let (&who, rest) = parts.split_first()?;
    let is_named = matches!(who, b"user" | b"u" | b"group" | b"g");
    // "mask:r-x" and "other:r-x" come without a name's place too.
    let (name, bits, number): (&[u8], &[u8], Option<&[u8]>) = match *rest {
        [bits] if !is_named => (b"", bits, None),
        [name, bits] => (name, bits, None),
        [name, bits, number] => (name, bits, Some(number)),
        _ => return None,
    };
    let permissions = permissions(bits)?;
    let decimal = |text: &[u8]| super::number::of_decimal(text).and_then(|number| u32::try_from(number).ok());
    let named = |which: Who| {
        // A number that is told beside a name is the archive's own; a name that is a number is one.
        number
            .filter(|text| !text.is_empty())
            .and_then(decimal)
            .or_else(|| decimal(name))
            .or_else(|| number_of(which, name))
    };
    let tag = match (who, name) {
        (b"user" | b"u", b"") => AclTag::UserObj,
        (b"group" | b"g", b"") => AclTag::GroupObj,
        (b"mask" | b"m", b"") => AclTag::Mask,
        (b"other" | b"o", b"") => AclTag::Other,
        (b"user" | b"u", name) => match named(Who::User) {
            Some(number) => AclTag::User(number),
            None => return Some(Entry::Unknown(name.to_vec())),
        },
        (b"group" | b"g", name) => match named(Who::Group) {
            Some(number) => AclTag::Group(number),
            None => return Some(Entry::Unknown(name.to_vec())),
        },
        _ => return None,
    };
    Some(Entry::Known(AclEntry { tag, permissions }))
}

fn permissions(text: &[u8]) -> Option<u16> {
    if let [digit @ b'0'..=b'7'] = *text {
        return Some(u16::from(digit - b'0'));
    }
    text.iter().try_fold(0, |bits, letter| match letter {
        b'r' => Some(bits | 4),
        b'w' => Some(bits | 2),
        b'x' => Some(bits | 1),
        b'-' => Some(bits),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Parsed {
        parse(text, AclKind::Access, &|who, name| (who == Who::User && name == b"alice").then_some(1000))
    }

    #[test]
    fn the_spellings_of_gnu_star_and_bsdtar_are_one_list() {
        let expected = read(b"user::rw-\nuser:1234:r--\ngroup::r--\nmask::r--\nother::r--\n").acl.unwrap();
        assert_eq!(expected.to_string(), "u::rw-,u:1234:r--,g::r--,m::r--,o::r--");
        for text in [
            &b"user::rw-,user:bob:r--:1234,group::r--,mask::r--,other::r--"[..],
            b"u::rw-\nu:1234:r--\t#effective:r--\ng::r--\nm:r--\no:4\n# a remark\n",
        ] {
            assert_eq!(read(text).acl.as_ref(), Some(&expected), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn names_are_asked_about_and_those_that_nobody_knows_are_told() {
        let parsed = read(b"user::rw-,user:alice:rwx,user:mallory:---,group::r--,mask::rwx,other::---");
        assert_eq!(parsed.acl.unwrap().to_string(), "u::rw-,u:1000:rwx,g::r--,m::rwx,o::---");
        assert_eq!(parsed.unknown, [b"mallory".to_vec()]);
    }

    #[test]
    fn permissions_alone_are_no_list_and_nonsense_is_told() {
        let parsed = read(b"user::rw-,group::r--,other::r--");
        assert_eq!((parsed.acl, parsed.is_valid), (None, true));
        for bad in [&b"user::rw-"[..], b"nonsense", b"user::rwq,group::r--,other::r--", b"x:5:r--"] {
            assert!(!read(bad).is_valid, "{}", bad.escape_ascii());
        }
    }
}
