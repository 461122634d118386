//! The text of a manifest, read back.

use alloc::{collections::BTreeMap, vec::Vec};
use core::{fmt, str::FromStr};

use super::{
    AttributeFlags, ByteSpan, Entry, Inode, Kind, Manifest, Node, Time, VERSION, Xattr, model::first_fault,
    quote, quote::from_hex, unquote,
};

/// A manifest that cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    line: usize,
    why: &'static str,
}

impl ParseError {
    /// Number of the line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "manifest line {}: {}", self.line, self.why)
    }
}

impl core::error::Error for ParseError {}

/// Why one line cannot be read.
type Line<T> = Result<T, &'static str>;

/// Reads a manifest. The entries may come in any order; empty lines and lines that start with `#` say nothing.
///
/// # Errors
/// The first line that breaks the format of `docs/formats.md`, or that names a file whose parent or first name is
/// missing. A version other than [`VERSION`] is refused.
pub fn parse(text: &str) -> Result<Manifest, ParseError> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let first = lines.next().map_or((1, ""), |line| line);
    if first.1.strip_prefix("e2dax-manifest ").and_then(number::<u32>) != Some(VERSION) {
        return Err(ParseError { line: first.0, why: "the first line is not `e2dax-manifest 1`" });
    }
    let mut filesystem = BTreeMap::new();
    let mut numbered = Vec::new();
    for (line, content) in lines {
        let at = |why| ParseError { line, why };
        if let Some(fields) = content.strip_prefix("fs ") {
            if !filesystem.is_empty() || !numbered.is_empty() {
                return Err(at("the fs line comes once, before the files"));
            }
            filesystem = parse_filesystem(fields).map_err(at)?;
        } else {
            let entry = parse_entry(content).map_err(at)?;
            numbered.push((quote(&entry.path), line, entry));
        }
    }
    numbered.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let line_of: Vec<usize> = numbered.iter().map(|(_, line, _)| *line).collect();
    let entries: Vec<Entry> = numbered.into_iter().map(|(_, _, entry)| entry).collect();
    if let Some((index, why)) = first_fault(&entries) {
        return Err(ParseError { line: line_of.get(index).copied().unwrap_or(0), why });
    }
    let fault = |(_, why)| ParseError { line: first.0, why };
    let mut manifest = Manifest::new(entries).map_err(fault)?;
    for (key, value) in &filesystem {
        if !manifest.set_filesystem(key, value) {
            return Err(ParseError {
                line: first.0 + 1,
                why: "a key of the fs line is not of a-z, 0-9 and -",
            });
        }
    }
    Ok(manifest)
}

/// The fields of the `fs` line.
fn parse_filesystem(fields: &str) -> Line<BTreeMap<&str, Vec<u8>>> {
    let mut map = BTreeMap::new();
    for field in fields.split(' ') {
        let (key, value) = field.split_once('=').ok_or("a field of the fs line is not key=value")?;
        let value = unquote(value).ok_or("a value of the fs line is not quoted as it must be")?;
        if map.insert(key, value).is_some() {
            return Err("a key of the fs line comes twice");
        }
    }
    Ok(map)
}

/// One file.
fn parse_entry(line: &str) -> Line<Entry> {
    let mut words = line.split(' ');
    let path = words.next().filter(|word| word.starts_with('/')).and_then(unquote);
    let path = path.ok_or("the line does not start with a quoted absolute path")?;
    let letter = words.next().ok_or("the type is missing")?;
    if letter == "h" {
        let first = words.next().and_then(|word| word.strip_prefix("hardlink=")).and_then(unquote);
        let first = first.ok_or("type h wants hardlink=PATH")?;
        return match words.next() {
            None => Ok(Entry { path, node: Node::HardLink(first) }),
            Some(_) => Err("type h has no other field than hardlink"),
        };
    }
    let mode = words.next().filter(|word| word.len() == 4);
    let mode = mode.and_then(|word| u16::from_str_radix(word, 8).ok()).filter(|mode| *mode <= 0o7777);
    let mode = mode.ok_or("the mode is not four octal digits")?;
    let uid = words.next().and_then(number).ok_or("the uid is not a number")?;
    let gid = words.next().and_then(number).ok_or("the gid is not a number")?;
    let size = words.next().and_then(dash_or_number).ok_or("the size is not a number or -")?;
    let nlink = words.next().and_then(dash_or_number).ok_or("the nlink is not a number or -")?;
    let mut fields = Fields::new(words)?;
    let inode = Inode {
        mode,
        uid,
        gid,
        size,
        nlink,
        atime: fields.take("atime", time)?,
        mtime: fields.take("mtime", time)?,
        ctime: fields.take("ctime", time)?,
        crtime: fields.take("crtime", time)?,
        kind: parse_kind(letter, size, &mut fields)?,
        xattrs: fields.take("xattr", xattrs)?.unwrap_or_default(),
        flags: fields.take("flags", AttributeFlags::from_letters)?.unwrap_or_default(),
    };
    if fields.0.is_empty() {
        Ok(Entry { path, node: Node::Inode(inode) })
    } else {
        Err("a field is unknown, or not one of this type")
    }
}

/// The type, with the fields that only it has.
fn parse_kind(letter: &str, size: Option<u64>, fields: &mut Fields<'_>) -> Line<Kind> {
    Ok(match letter {
        "f" => {
            let holes = fields.take("holes", holes)?.unwrap_or_default();
            let end = holes.last().map_or(Some(0), |hole| hole.offset.checked_add(hole.length));
            if end.is_none() || size.is_some_and(|size| end > Some(size)) {
                return Err("a hole ends past the size of the file");
            }
            Kind::File { holes, crc: fields.take("crc", crc)? }
        }
        "d" => Kind::Directory,
        "l" => Kind::Symlink { target: fields.take("target", unquote)?.ok_or("a symlink wants target=")? },
        "c" | "b" => {
            let (major, minor) = fields.take("dev", device)?.ok_or("a device wants dev=MAJOR:MINOR")?;
            if letter == "c" { Kind::CharDevice { major, minor } } else { Kind::BlockDevice { major, minor } }
        }
        "p" => Kind::Fifo,
        "s" => Kind::Socket,
        _ => return Err("the type is not one of f d l c b p s h"),
    })
}

/// The fields with a key that have not been used yet.
struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    /// Splits the rest of a line.
    fn new(words: impl Iterator<Item = &'a str>) -> Line<Self> {
        let mut map = BTreeMap::new();
        for word in words {
            let (key, value) =
                word.split_once('=').ok_or("a field is not key=value, or a space is doubled")?;
            if map.insert(key, value).is_some() {
                return Err("a field comes twice");
            }
        }
        Ok(Self(map))
    }

    /// Takes one field out and reads it.
    fn take<T>(&mut self, key: &str, read: impl Fn(&str) -> Option<T>) -> Line<Option<T>> {
        match self.0.remove(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| fault_of(key)),
        }
    }
}

/// What to say of a field that cannot be read.
fn fault_of(key: &str) -> &'static str {
    match key {
        "target" => "target is not quoted as it must be",
        "dev" => "dev is not MAJOR:MINOR",
        "xattr" => "xattr is not name:hex,name:hex in ascending order of names",
        "flags" => "flags has an unknown or a doubled letter",
        "holes" => "holes is not OFFSET+LENGTH,OFFSET+LENGTH, ascending and apart",
        "crc" => "crc is not eight hexadecimal digits",
        _ => "a time is not SECONDS or SECONDS.NANOSECONDS with nine digits",
    }
}

/// An unsigned decimal number without sign or leading zero.
fn number<T: FromStr>(word: &str) -> Option<T> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    if plain { word.parse().ok() } else { None }
}

/// A number that may be left unsaid; the outer option is for what is neither.
fn dash_or_number<T: FromStr>(word: &str) -> Option<Option<T>> {
    if word == "-" { Some(None) } else { number(word).map(Some) }
}

/// `SECONDS` or `SECONDS.NNNNNNNNN`.
fn time(value: &str) -> Option<Time> {
    let (seconds, nanoseconds) = match value.split_once('.') {
        None => (value, 0),
        Some((seconds, digits)) => {
            let plain = digits.len() == 9 && digits.bytes().all(|byte| byte.is_ascii_digit());
            (seconds, if plain { digits.parse().ok()? } else { return None })
        }
    };
    number::<u64>(seconds.strip_prefix('-').unwrap_or(seconds))?;
    Some(Time { seconds: seconds.parse().ok()?, nanoseconds })
}

/// `MAJOR:MINOR`.
fn device(value: &str) -> Option<(u32, u32)> {
    let (major, minor) = value.split_once(':')?;
    Some((number(major)?, number(minor)?))
}

/// `name:hex,…`, ascending.
fn xattrs(value: &str) -> Option<Vec<Xattr>> {
    let mut list: Vec<Xattr> = Vec::new();
    for item in value.split(',') {
        let (name, hex) = item.split_once(':')?;
        let xattr = Xattr { name: unquote(name).filter(|name| !name.is_empty())?, value: from_hex(hex)? };
        if list.last().is_some_and(|last| last.name >= xattr.name) {
            return None;
        }
        list.push(xattr);
    }
    Some(list)
}

/// `OFFSET+LENGTH,…`, ascending, apart from each other.
fn holes(value: &str) -> Option<Vec<ByteSpan>> {
    let mut list = Vec::new();
    let mut free_from = 0;
    for item in value.split(',') {
        let (offset, length) = item.split_once('+')?;
        let span = ByteSpan { offset: number(offset)?, length: number(length).filter(|length| *length > 0)? };
        if span.offset < free_from {
            return None;
        }
        free_from = span.offset.checked_add(span.length)?.checked_add(1)?;
        list.push(span);
    }
    Some(list)
}

/// Eight lower-case hexadecimal digits.
fn crc(value: &str) -> Option<u32> {
    let plain = value.len() == 8 && value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if plain { u32::from_str_radix(value, 16).ok() } else { None }
}
