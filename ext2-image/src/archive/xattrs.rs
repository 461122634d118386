//! Extended attributes as extended headers say them, in the spellings of GNU tar and star, of libarchive and of Red Hat.
//!
//! # Invariants
//! What is kept depends on what a header says last of each attribute, and not on the order in which it says them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::manifest::quote;
use crate::mkfs::XattrList;

/// Bytes that an attribute takes besides its name and value, as in an image.
const XATTR: usize = 16;

/// Bytes of the names that one header may say: Linux lists no more than 64 KiB of a file.
const NAMES_MAX: usize = 1 << 20;

/// How much is kept: the smallest attributes, as many as there is room for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Bytes of all.
    most: usize,
    /// Bytes that each takes besides its name and value.
    each: usize,
    /// Why no more.
    why: &'static str,
}

impl Room {
    /// For a member: more than an inode and a block of 64 KiB hold.
    pub(super) const OF_MEMBER: Self = Self { most: 128 << 10, each: XATTR, why: "no ext2 holds so many" };
    /// For all members that follow: each may get a copy of its own, which has an attribute's place in memory.
    pub(super) const OF_ALL: Self =
        Self { most: 16 << 10, each: 128, why: "each member that follows would get them" };
}

/// What one record says: the how manyth it is, and its value.
type Record<'h> = (usize, &'h [u8]);

/// What one header says.
#[derive(Debug, Default)]
pub(super) struct Said<'h> {
    /// By names as they are spelled: what GNU tar's record says, and libarchive's, who writes both and spells the name in its own way
    /// in both.
    spelled: BTreeMap<&'h [u8], (Option<Record<'h>>, Option<Record<'h>>)>,
    label: Option<Record<'h>>,
    count: usize,
    /// Bytes that all of these take without values.
    names: usize,
}

impl<'h> Said<'h> {
    /// A record `SCHILY.xattr.NAME`.
    pub(super) fn schily(&mut self, name: &'h [u8], value: &'h [u8]) {
        let record = (self.count, value);
        if let Some(of_name) = self.of(name) {
            of_name.0 = Some(record);
        }
    }

    /// A record `LIBARCHIVE.xattr.NAME`, with its value in base 64.
    pub(super) fn libarchive(&mut self, name: &'h [u8], value: &'h [u8]) {
        let record = (self.count, value);
        if let Some(of_name) = self.of(name) {
            of_name.1 = Some(record);
        }
    }

    /// A record `RHT.security.selinux`.
    pub(super) fn selinux(&mut self, value: &'h [u8]) {
        self.label = Some((self.count, value));
        self.count += 1;
    }

    /// None where there are too many.
    fn of(&mut self, name: &'h [u8]) -> Option<&mut (Option<Record<'h>>, Option<Record<'h>>)> {
        self.count += 1;
        if !self.is_too_much() && !self.spelled.contains_key(name) {
            self.names += XATTR + name.len();
        }
        // Memory for names that are not kept is bounded too.
        if self.is_too_much() { None } else { Some(self.spelled.entry(name).or_default()) }
    }

    fn is_too_much(&self) -> bool {
        self.names > NAMES_MAX
    }

    /// Adds what is said to `list`, in the order of names, over what was said in headers before; gives what cannot be kept, in
    /// words.
    ///
    /// # Errors
    /// What makes no sense, in words.
    pub(super) fn add_to(self, list: &mut XattrList, room: Room) -> Result<Option<String>, String> {
        if self.is_too_much() {
            let what =
                "attributes whose names take more than a mebibyte are left out, all of them".to_owned();
            return Ok(Some(what));
        }
        if self.count == 0 {
            return Ok(None);
        }
        let mut said = Vec::with_capacity(self.spelled.len() + 1);
        for (spelled, of_name) in self.spelled {
            let of_gnu = |coded| matches!(coded, b'=' | b'%');
            said.push(match of_name {
                (Some((nr, value)), None) => (nr, of_percents(spelled, of_gnu), Cow::Borrowed(value)),
                (_, Some((nr, text))) => {
                    let value = of_base64(text).ok_or_else(|| {
                        let (key, text) = (quote(spelled), quote(text));
                        format!(
                            "its extended header says LIBARCHIVE.xattr.{key}={text}, which makes no sense"
                        )
                    })?;
                    (nr, of_percents(spelled, |_| true), Cow::Owned(value))
                }
                (None, None) => continue,
            });
        }
        if let Some((nr, label)) = self.label {
            // The attribute ends with a 0, the record does not.
            let end: &[u8] = if label.ends_with(&[0]) || label.is_empty() { b"" } else { b"\0" };
            said.push((nr, b"security.selinux".to_vec(), Cow::Owned([label, end].concat())));
        }
        // Two may be spellings of one name.
        said.sort_unstable_by_key(|(nr, ..)| *nr);
        let before = std::mem::take(list);
        let mut all: BTreeMap<Cow<'_, [u8]>, Cow<'_, [u8]>> =
            before.iter().map(|(name, value)| (Cow::Borrowed(&**name), Cow::Borrowed(&**value))).collect();
        all.extend(said.into_iter().map(|(_, name, value)| (Cow::Owned(name), value)));
        let lost = fit(&mut all, room);
        *list = all.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        Ok(lost)
    }
}

/// Takes the largest away until there is room for all; says so in words.
fn fit(all: &mut BTreeMap<Cow<'_, [u8]>, Cow<'_, [u8]>>, room: Room) -> Option<String> {
    let mut total: usize = all.iter().map(|(name, value)| room.each + name.len() + value.len()).sum();
    if total <= room.most {
        return None;
    }
    let mut sizes: Vec<_> = all.iter().map(|(name, value)| (value.len(), name.to_vec())).collect();
    sizes.sort_unstable();
    while total > room.most
        && let Some((len, name)) = sizes.pop()
    {
        total -= room.each + name.len() + len;
        all.remove(name.as_slice());
    }
    let Room { most, why, .. } = room;
    Some(format!("attributes beyond {most} bytes are left out, the largest of them: {why}"))
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
