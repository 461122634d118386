//! Extended headers (pax): records of a length, a key and a value, which say what the header has no room for.
//!
//! Records are walked by their lengths, as POSIX says: values are bytes and hold line feeds, as capabilities and lists
//! of access control do. (The `tar` crate splits them at line feeds, which is why the reader here is our own.)

use std::collections::{BTreeMap, BTreeSet};

use ext2_core::{AclKind, Timestamp};

use super::number;
use super::sparse::Described;
use crate::manifest::quote;

/// The bytes of a member's attributes at most: more than an inode and a block of 64 KiB hold.
const XATTRS_MAX: usize = 128 << 10;
/// Bytes that an attribute takes besides its name and value, as in an image.
const XATTR: usize = 16;

/// What extended headers say of a member; nothing where they are silent.
#[derive(Clone, Debug, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) user: Option<Vec<u8>>,
    pub(super) group: Option<Vec<u8>>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) atime: Option<Timestamp>,
    pub(super) ctime: Option<Timestamp>,
    pub(super) birth: Option<Timestamp>,
    pub(super) device: (Option<i64>, Option<i64>),
    /// Whole names and values.
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What all of them take.
    xattr_bytes: usize,
    /// Names as libarchive spells them, of those that it said.
    spelled: BTreeSet<Vec<u8>>,
    /// Lists of access control, as text.
    pub(super) acls: Vec<(AclKind, Vec<u8>)>,
    /// Names of attribute flags.
    pub(super) flags: Option<Vec<u8>>,
    pub(super) sparse: Described,
    /// A remark.
    pub(super) comment: Option<Vec<u8>>,
    /// What these headers say and nobody can keep.
    pub(super) lost: Vec<String>,
}

/// Calls `each` with key and value of every record.
///
/// # Errors
/// Where a record's length does not lead to its end, in words.
fn records(mut bytes: &[u8], mut each: impl FnMut(&[u8], &[u8]) -> Result<(), String>) -> Result<(), String> {
    let broken = || "its extended header is broken: a record does not end where it says".to_owned();
    // Padding ends the list, as in every reader.
    while bytes.first().is_some_and(|&byte| byte != 0) {
        let space = bytes.iter().take(20).position(|&byte| byte == b' ').ok_or_else(broken)?;
        let len = number::of_decimal(&bytes[..space]).and_then(|len| usize::try_from(len).ok());
        let len = len.filter(|&len| len > space + 1 && len <= bytes.len()).ok_or_else(broken)?;
        let record = bytes[space + 1..len].strip_suffix(b"\n").ok_or_else(broken)?;
        let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(broken)?;
        each(&record[..equals], &record[equals + 1..])?;
        bytes = &bytes[len..];
    }
    Ok(())
}

impl Extended {
    /// Takes the records of one more extended header over: the last word on each key counts, and an empty value takes
    /// back what was said before.
    ///
    /// # Errors
    /// What is broken, in words.
    pub(super) fn apply(&mut self, bytes: &[u8]) -> Result<(), String> {
        records(bytes, |key, value| self.record(key, value))
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let wrong =
            || format!("its extended header says {}={}, which makes no sense", quote(key), quote(value));
        let text = || (!value.is_empty()).then(|| value.to_vec());
        let number = || match value {
            b"" => Ok(None),
            value => number::of_decimal(value).map(Some).ok_or_else(wrong),
        };
        let time = || match value {
            b"" => Ok(None),
            value => number::of_time(value).map(Some).ok_or_else(wrong),
        };
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => {
                let size = number()?.map(u64::try_from).transpose();
                self.size = size.map_err(|_| wrong())?;
            }
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"uname" => self.user = text(),
            b"gname" => self.group = text(),
            b"mtime" => self.mtime = time()?,
            b"atime" => self.atime = time()?,
            b"ctime" => self.ctime = time()?,
            b"comment" => self.comment = text(),
            b"LIBARCHIVE.creationtime" => self.birth = time()?,
            b"SCHILY.devmajor" => self.device.0 = number()?,
            b"SCHILY.devminor" => self.device.1 = number()?,
            b"SCHILY.fflags" => self.flags = text(),
            b"SCHILY.acl.access" => self.acl(AclKind::Access, value),
            b"SCHILY.acl.default" => self.acl(AclKind::Default, value),
            b"SCHILY.acl.ace" => {
                self.lost("an access control list of NFSv4 is left out: ext2 has POSIX ones".into())
            }
            b"RHT.security.selinux" => {
                // The attribute ends with a 0, the record does not.
                let end: &[u8] = if value.ends_with(&[0]) || value.is_empty() { b"" } else { b"\0" };
                self.xattr(b"security.selinux".to_vec(), [value, end].concat());
            }
            b"GNU.volume.filename" | b"GNU.volume.offset" | b"GNU.volume.size" => {
                return Err("is the end of a file that begins in another volume: \
                            only whole archives can be read"
                    .into());
            }
            _ if key.starts_with(b"GNU.sparse.") => {
                self.sparse.record(&key[b"GNU.sparse.".len()..], value).ok_or_else(wrong)?;
            }
            _ if key.starts_with(b"SCHILY.xattr.") => {
                let spelled = &key[b"SCHILY.xattr.".len()..];
                // libarchive says each attribute twice, and spells the name in its own way in both.
                if !self.spelled.contains(spelled) {
                    self.xattr(of_percents(spelled, |byte| matches!(byte, b'=' | b'%')), value.to_vec());
                }
            }
            _ if key.starts_with(b"LIBARCHIVE.xattr.") => {
                let spelled = &key[b"LIBARCHIVE.xattr.".len()..];
                let (name, other) = (
                    of_percents(spelled, |_| true),
                    of_percents(spelled, |byte| matches!(byte, b'=' | b'%')),
                );
                let value = of_base64(value).ok_or_else(wrong)?;
                self.forget_xattr(&other);
                self.xattr(name, value);
                self.spelled.insert(spelled.to_vec());
            }
            // What numbers say better.
            _ => {}
        }
        Ok(())
    }

    fn xattr(&mut self, name: Vec<u8>, value: Vec<u8>) {
        self.forget_xattr(&name);
        let bytes = self.xattr_bytes + XATTR + name.len() + value.len();
        if bytes > XATTRS_MAX {
            return self
                .lost(format!("attributes beyond {XATTRS_MAX} bytes are left out: no ext2 holds so many"));
        }
        self.xattr_bytes = bytes;
        self.xattrs.insert(name, value);
    }

    fn forget_xattr(&mut self, name: &[u8]) {
        if let Some(value) = self.xattrs.remove(name) {
            self.xattr_bytes -= XATTR + name.len() + value.len();
        }
    }

    fn acl(&mut self, kind: AclKind, text: &[u8]) {
        self.acls.retain(|(known, _)| *known != kind);
        if !text.is_empty() {
            self.acls.push((kind, text.to_vec()));
        }
    }

    fn lost(&mut self, what: String) {
        if !self.lost.contains(&what) {
            self.lost.push(what);
        }
    }
}

/// A name in which those bytes may be written `%HH` that `may` says: all of them by libarchive, two by GNU tar.
fn of_percents(text: &[u8], may: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|&byte| char::from(byte).to_digit(16));
        rest = after;
        let coded = digit(0).zip(digit(1)).map(|(high, low)| (high << 4 | low) as u8); // two hexadecimal digits
        match coded.filter(|&coded| byte == b'%' && may(coded)) {
            Some(coded) => {
                name.push(coded);
                rest = &after[2..];
            }
            None => name.push(byte),
        }
    }
    name
}

/// Bytes from base 64, padded or not.
fn of_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0);
    for &letter in text.iter().filter(|letter| !letter.is_ascii_whitespace()) {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' => break,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8); // the lowest 8 of them
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
        let body = [b" ", key, b"=", value, b"\n"].concat();
        let mut len = body.len() + 1;
        while len.to_string().len() + body.len() != len {
            len = len.to_string().len() + body.len();
        }
        [len.to_string().as_bytes(), &body].concat()
    }

    #[test]
    fn values_hold_line_feeds_and_equals_signs() {
        let mut found = Extended::default();
        let value = b"\x01\n9 a=b\n=";
        found.apply(&[record(b"SCHILY.xattr.user.x", value), record(b"path", b"p")].concat()).unwrap();
        assert_eq!(found.xattrs, [(b"user.x".to_vec(), value.to_vec())].into());
        assert_eq!(found.path.as_deref(), Some(&b"p"[..]));
    }

    #[test]
    fn the_last_word_counts_and_an_empty_one_takes_back() {
        let mut found = Extended::default();
        found
            .apply(&[record(b"uid", b"1"), record(b"uid", b"5000000000"), record(b"gid", b"7")].concat())
            .unwrap();
        assert_eq!((found.uid, found.gid), (Some(5_000_000_000), Some(7)));
        found.apply(&record(b"gid", b"")).unwrap();
        assert_eq!(found.gid, None);
    }

    #[test]
    fn libarchive_spells_attributes_in_base_64() {
        let mut found = Extended::default();
        found.apply(&record(b"LIBARCHIVE.xattr.user.a%20b", b"AAEC/w")).unwrap();
        assert_eq!(found.xattrs, [(b"user.a b".to_vec(), vec![0, 1, 2, 255])].into());
    }

    #[test]
    fn names_of_attributes_are_what_whoever_wrote_them_meant() {
        let name = |records: &[Vec<u8>]| {
            let mut found = Extended::default();
            found.apply(&records.concat()).unwrap();
            found.xattrs.into_keys().map(|name| String::from_utf8(name).unwrap()).collect::<Vec<_>>()
        };
        // GNU tar writes two bytes otherwise, and nothing else: Go writes none so.
        assert_eq!(name(&[record(b"SCHILY.xattr.user.a%3Db%25c%20d", b"v")]), ["user.a=b%c%20d"]);
        let (one, other) = (
            record(b"LIBARCHIVE.xattr.user.a%3Db%20c%2541", b"AA"),
            record(b"SCHILY.xattr.user.a%3Db%20c%2541", b"\0"),
        );
        assert_eq!(name(&[one.clone(), other.clone()]), ["user.a=b c%41"]);
        assert_eq!(name(&[other, one]), ["user.a=b c%41"]);
    }

    #[test]
    fn a_label_of_selinux_gets_the_end_that_the_attribute_has() {
        let mut found = Extended::default();
        found.apply(&record(b"RHT.security.selinux", b"system_u:object_r:bin_t:s0")).unwrap();
        assert_eq!(found.xattrs[&b"security.selinux"[..]].last(), Some(&0));
    }

    #[test]
    fn attributes_that_no_image_holds_are_told_of_and_the_rest_is_kept() {
        let mut found = Extended::default();
        let value = vec![b'v'; 50_000];
        for name in ["user.a", "user.b", "user.a", "user.c", "user.d"] {
            found.apply(&record(format!("SCHILY.xattr.{name}").as_bytes(), &value)).unwrap();
        }
        let names: Vec<_> = found.xattrs.keys().map(Vec::as_slice).collect();
        assert_eq!(names, [&b"user.a"[..], b"user.b"]);
        assert_eq!(found.lost.len(), 1, "{:?}", found.lost);
        // One that takes less room leaves some.
        for (name, value) in [("user.a", &b"v"[..]), ("user.e", &value)] {
            found.apply(&record(format!("SCHILY.xattr.{name}").as_bytes(), value)).unwrap();
        }
        assert_eq!(found.xattrs.len(), 3);
    }

    #[test]
    fn broken_records_are_refused() {
        for bad in [&b"5 a=b\n"[..], b"x path=a\n", b"99 path=a\n", b"9 path:a\n", b"10 uid=no\n"] {
            assert!(Extended::default().apply(bad).is_err(), "{bad:?}");
        }
        assert!(Extended::default().apply(b"8 uid=1\n\0\0\0").is_ok(), "padding");
    }
}
