//! Extended headers (pax): records of a length, a key and a value, which say what the header has no room for.
//!
//! Records are walked by their lengths, as POSIX says: values are bytes and hold line feeds, as capabilities and lists
//! of access control do. (The `tar` crate splits them at line feeds, which is why the reader here is our own.)

use ext2_core::{AclKind, Timestamp};

use super::number;
use super::sparse::Described;
use super::xattrs::{Room, Said};
use crate::manifest::quote;
use crate::mkfs::XattrList;

/// Bytes at most, attributes aside, that every member gets from a header for all that follow: no path and no list of access
/// control is longer.
const GLOBAL_MAX: usize = 4 << 10;

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
    pub(super) xattrs: XattrList,
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
fn records<'h>(
    mut bytes: &'h [u8],
    mut each: impl FnMut(&'h [u8], &'h [u8]) -> Result<(), String>,
) -> Result<(), String> {
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
        self.take(bytes, Room::OF_MEMBER)
    }

    /// As [`apply`](Self::apply), for a header that goes for all members that follow.
    ///
    /// # Errors
    /// What is broken, in words; more than every member can be given.
    pub(super) fn apply_to_all(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.take(bytes, Room::OF_ALL)?;
        let len = self.len();
        if len > GLOBAL_MAX {
            return Err(format!("says {len} bytes of all members that follow: {GLOBAL_MAX} are too many"));
        }
        Ok(())
    }

    /// What each member that this goes for may get a copy of, attributes aside.
    fn len(&self) -> usize {
        let texts = [&self.path, &self.link, &self.user, &self.group, &self.flags, &self.sparse.name];
        let texts = texts.into_iter().flatten().map(Vec::len).sum::<usize>();
        texts + self.acls.iter().map(|(_, text)| text.len()).sum::<usize>() + self.sparse.len()
    }

    fn take(&mut self, bytes: &[u8], room: Room) -> Result<(), String> {
        let mut said = Said::default();
        records(bytes, |key, value| self.record(key, value, &mut said))?;
        if let Some(lost) = said.add_to(&mut self.xattrs, room)? {
            self.lost(lost);
        }
        Ok(())
    }

    fn record<'h>(&mut self, key: &'h [u8], value: &'h [u8], said: &mut Said<'h>) -> Result<(), String> {
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
            b"RHT.security.selinux" => said.selinux(value),
            b"GNU.volume.filename" | b"GNU.volume.offset" | b"GNU.volume.size" => {
                return Err("is the end of a file that begins in another volume: \
                            only whole archives can be read"
                    .into());
            }
            _ if key.starts_with(b"GNU.sparse.") => {
                self.sparse.record(&key[b"GNU.sparse.".len()..], value).ok_or_else(wrong)?;
            }
            _ if key.starts_with(b"SCHILY.xattr.") => said.schily(&key[b"SCHILY.xattr.".len()..], value),
            _ if key.starts_with(b"LIBARCHIVE.xattr.") => {
                said.libarchive(&key[b"LIBARCHIVE.xattr.".len()..], value);
            }
            // What numbers say better.
            _ => {}
        }
        Ok(())
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
        assert_eq!(found.xattrs[..], [(b"user.x".to_vec(), value.to_vec())]);
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
        assert_eq!(found.xattrs[..], [(b"user.a b".to_vec(), vec![0, 1, 2, 255])]);
    }

    #[test]
    fn names_of_attributes_are_what_whoever_wrote_them_meant() {
        let name = |records: &[Vec<u8>]| {
            let mut found = Extended::default();
            found.apply(&records.concat()).unwrap();
            found
                .xattrs
                .iter()
                .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
                .collect::<Vec<_>>()
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
        assert_eq!(found.xattrs[0].0, b"security.selinux");
        assert_eq!(found.xattrs[0].1.last(), Some(&0));
    }

    #[test]
    fn attributes_that_no_image_holds_are_told_of_and_the_rest_is_kept() {
        let mut found = Extended::default();
        let value = vec![b'v'; 50_000];
        for name in ["user.a", "user.b", "user.a", "user.c", "user.d"] {
            found.apply(&record(format!("SCHILY.xattr.{name}").as_bytes(), &value)).unwrap();
        }
        let names: Vec<_> = found.xattrs.iter().map(|(name, _)| name.as_slice()).collect();
        assert_eq!(names, [&b"user.a"[..], b"user.b"]);
        assert_eq!(found.lost.len(), 1, "{:?}", found.lost);
        // One that takes less room leaves some.
        for (name, value) in [("user.a", &b"v"[..]), ("user.e", &value)] {
            found.apply(&record(format!("SCHILY.xattr.{name}").as_bytes(), value)).unwrap();
        }
        assert_eq!(found.xattrs.len(), 3);
    }

    #[test]
    fn which_attributes_are_kept_does_not_depend_on_their_order() {
        let said =
            |name: &str, len: usize| record(format!("SCHILY.xattr.{name}").as_bytes(), &vec![b'v'; len]);
        // One is said twice: what it was first pushes nothing out.
        let mut records = [("user.a", 50_000), ("user.b", 60_000), ("user.c", 60_001), ("user.d", 2)];
        let kept = |records: &[(&str, usize)]| {
            let mut found = Extended::default();
            let all: Vec<u8> = records.iter().flat_map(|&(name, len)| said(name, len)).collect();
            found.apply(&all).unwrap();
            assert_eq!(found.lost.len(), 1, "{:?}", found.lost);
            found.xattrs.iter().map(|(name, value)| (name.clone(), value.len())).collect::<Vec<_>>()
        };
        let expected = kept(&records);
        assert_eq!(expected.len(), 3);
        for _ in 0..records.len() {
            records.rotate_left(1);
            assert_eq!(kept(&records), expected);
            assert_eq!(kept(&[&[("user.d", 70_000)], &records[..]].concat()), expected);
        }
    }

    #[test]
    fn names_without_end_cost_no_memory_and_are_told_of() {
        let all: Vec<u8> =
            (0..100_000).flat_map(|nr| record(format!("SCHILY.xattr.user.{nr}").as_bytes(), b"")).collect();
        let mut found = Extended::default();
        found.apply(&all).unwrap();
        assert_eq!((found.xattrs.len(), found.lost.len()), (0, 1));
    }

    #[test]
    fn a_header_for_all_members_may_not_say_what_makes_each_of_them_large() {
        for key in ["path", "linkpath", "uname", "SCHILY.acl.access", "SCHILY.fflags", "GNU.sparse.map"] {
            let value = b"1,".repeat(GLOBAL_MAX);
            assert!(Extended::default().apply_to_all(&record(key.as_bytes(), &value)).is_err(), "{key}");
        }
        let mut found = Extended::default();
        let all: Vec<u8> =
            (0..2000).flat_map(|nr| record(format!("SCHILY.xattr.user.{nr:04}").as_bytes(), b"v")).collect();
        found.apply_to_all(&all).unwrap();
        assert!((50..150).contains(&found.xattrs.len()), "{}", found.xattrs.len());
        assert_eq!(found.lost.len(), 1);
        found.apply_to_all(&record(b"comment", &all)).unwrap();
    }

    #[test]
    fn broken_records_are_refused() {
        for bad in [&b"5 a=b\n"[..], b"x path=a\n", b"99 path=a\n", b"9 path:a\n", b"10 uid=no\n"] {
            assert!(Extended::default().apply(bad).is_err(), "{bad:?}");
        }
        assert!(Extended::default().apply(b"8 uid=1\n\0\0\0").is_ok(), "padding");
    }
}
