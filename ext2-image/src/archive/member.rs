//! The members of an archive, one after the other, as they are written: nothing is resolved or merged here.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::flags;
use super::header::{BLOCK, Bad, Found, Header, more_pieces};
use super::pax::Extended;
use super::sparse::SparseMap;
use crate::foreign;
use crate::manifest::{Manifest, quote};
use crate::mkfs::{Alike, Error, NodeAttrs, Result};
use crate::tar::image_of_comment;
use ext2_core::{AclKind, DeviceNr, Timestamp};

/// A member.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its path as it is written: not normalised, and not safe.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
    /// Permissions, owner, times, flags and attributes. All times are told; where an archive has none of a kind, it is
    /// that of the last change.
    pub attrs: NodeAttrs,
    /// Lists of access control, as text.
    pub acls: Vec<(AclKind, Vec<u8>)>,
    /// Names of owner and group; empty where they are not told.
    pub owner_names: (Vec<u8>, Vec<u8>),
    /// What of this member cannot be kept, each in words.
    pub lost: Vec<String>,
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberKind {
    /// A file.
    File(Data),
    /// A directory.
    Directory,
    /// A symbolic link to this path.
    Symlink(Vec<u8>),
    /// Another name of this path.
    HardLink(Vec<u8>),
    /// A character device.
    CharDevice(DeviceNr),
    /// A block device.
    BlockDevice(DeviceNr),
    /// A FIFO.
    Fifo,
}

/// Where the bytes of a file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// In one piece.
    Whole {
        /// The first byte, counted in the archive.
        at: u64,
        /// Bytes.
        size: u64,
    },
    /// In pieces, with holes between them.
    Sparse(SparseMap),
}

/// What the names of access control lists begin with.
const LISTS: &[u8] = b"system.posix_acl_";
/// The bytes of an extended header at most: attributes of 64 KiB each and a map of a million pieces fit.
const EXTENDED_MAX: u64 = 64 << 20;
/// The bytes of a long name at most.
const NAME_MAX: u64 = 1 << 20;
/// Pieces of a sparse file at most.
const PIECES_MAX: usize = 1 << 20;
/// Remarks that are kept about one archive.
const NOTES_MAX: usize = 100;
/// The owner that stands for one that has no number of 32 bits: nobody.
const NOBODY: u32 = 65_534;

/// Reads members.
#[derive(Debug)]
pub struct Members<'f> {
    file: &'f File,
    at: u64,
    len: u64,
    /// What goes for all members from here on.
    global: Extended,
    ends: u32,
    count: u64,
    notes: Vec<String>,
    /// What the archive says of the image that it was made of.
    image: Option<Manifest>,
    /// Whether what follows an end mark is read too.
    beyond_end: bool,
    /// Whether it is known that nothing of it is missing.
    is_whole: bool,
    /// How often `global` changed.
    globals: u32,
    /// What symbolic links have of attributes that are those of many members.
    links: Alike<()>,
}

/// What precedes a member and is about it.
#[derive(Default)]
struct Before {
    extended: Option<Extended>,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<'f> Members<'f> {
    /// The members of the archive in `file`, which is not packed and has `len` bytes.
    #[must_use]
    pub fn new(file: &'f File, len: u64) -> Self {
        Self {
            file,
            at: 0,
            len,
            global: Extended::default(),
            ends: 0,
            count: 0,
            notes: Vec::new(),
            image: None,
            beyond_end: true,
            is_whole: false,
            globals: 0,
            links: Alike::default(),
        }
    }

    /// Begins at a byte at which [`at`](Self::at) was, with what went for all members there; `is_of_image` is whether the
    /// archive says that it was made of an image.
    pub(super) fn from(self, at: u64, global: Extended, is_of_image: bool) -> Self {
        Self { at, global, image: is_of_image.then(Manifest::default), ..self }
    }

    /// The byte at which the headers of the next member begin.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// What goes for all members from here on.
    pub(super) fn global(&self) -> &Extended {
        &self.global
    }

    /// How often that changed.
    pub(super) fn globals(&self) -> u32 {
        self.globals
    }

    /// Stops at the first end mark, as on a tape, where older members may follow.
    #[must_use]
    pub fn until_end_mark(self) -> Self {
        Self { beyond_end: false, ..self }
    }

    /// Takes the archive for whole although it may have no mark at its end: who calls knows its digest.
    pub(crate) fn known_whole(self) -> Self {
        Self { is_whole: true, ..self }
    }

    /// What a person should know about the archive as a whole, once it was read.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What the archive says of the image that it was made of, as the `fs` line of a manifest: known with the first member,
    /// and none where the archive goes on with another.
    #[must_use]
    pub fn image(&self) -> Option<&Manifest> {
        self.image.as_ref()
    }

    /// The next member, or none at the end.
    ///
    /// # Errors
    /// `Source`, naming the member where there is one: an archive that is cut off, or contradicts itself.
    pub fn next_member(&mut self) -> Result<Option<Member>> {
        let mut before = Before::default();
        while let Some(header) = self.header()? {
            let name = before.long_path.clone().unwrap_or_else(|| header.path());
            let failed = |what: String| Error::source(&name, what);
            let bad = |Bad(what)| failed(format!("the {what} in its header is no number"));
            match header.kind() {
                b'x' | b'X' => {
                    let bytes = self.data(&header, EXTENDED_MAX, &name)?;
                    let extended = before.extended.get_or_insert_with(|| self.global.clone());
                    extended.apply(&bytes).map_err(failed)?;
                }
                b'g' => {
                    let bytes = self.data(&header, EXTENDED_MAX, &name)?;
                    self.global.apply_to_all(&bytes).map_err(failed)?;
                    self.globals += 1;
                    // A remark is about the archive, and may be as long as it likes.
                    let comment = self.global.comment.take();
                    if self.count == 0 && comment.is_some() {
                        self.image = comment.as_deref().and_then(image_of_comment);
                    }
                }
                b'L' => before.long_path = Some(to_zero(self.data(&header, NAME_MAX, &name)?)),
                b'K' => before.long_link = Some(to_zero(self.data(&header, NAME_MAX, &name)?)),
                // What was said ahead of a header that is left out was said of it.
                b'V' => {
                    self.skip(header.size().map_err(bad)?, &name)?;
                    before = Before::default();
                }
                b'M' => {
                    let what =
                        "is the end of a file that begins in another volume: only whole archives can be read";
                    return Err(failed(what.into()));
                }
                b'A' | b'E' => {
                    let what = "attributes in the form of Solaris are left out";
                    self.note(format!("{}: {what}", quote(&name)));
                    self.skip(header.size().map_err(bad)?, &name)?;
                    before = Before::default();
                }
                _ => {
                    self.count += 1;
                    return self.member(&header, before).map(Some);
                }
            }
        }
        if self.count == 0 && self.ends == 0 {
            return Err(Error::source(b"", "is empty: no archive, not even one without members"));
        }
        Ok(None)
    }

    /// The next header; none at the end.
    fn header(&mut self) -> Result<Option<Box<Header>>> {
        loop {
            let left = self.len.saturating_sub(self.at);
            if left < BLOCK as u64 {
                if self.ends == 0 && self.count > 0 {
                    if left > 0 {
                        return Err(cut_off(self.at));
                    }
                    if !self.is_whole {
                        let what = "the archive has no mark at its end: it may have been cut off";
                        self.note(what.into());
                    }
                } else if self.ends == 0 && self.len > 0 {
                    return Err(Error::source(b"", "is no tar archive"));
                }
                return Ok(None);
            }
            let mut block = [0; BLOCK];
            self.read(self.at, &mut block)?;
            match Header::find(&block) {
                Found::Header(header) => {
                    if self.ends > 1 {
                        self.note("members that follow a mark of the archive's end are taken too".into());
                    }
                    if self.ends > 0 {
                        // The next archive: what was said for all members of the last one ends with it.
                        self.global = Extended::default();
                        self.globals += 1;
                        self.image = None;
                        self.ends = 0;
                    }
                    self.at += BLOCK as u64;
                    return Ok(Some(header));
                }
                Found::Zeros => {
                    if self.at == 0
                        && let Some(kind) = self.kind()
                    {
                        return Err(Error::source(b"", format!("is {kind} and no tar archive")));
                    }
                    self.ends = (self.ends + 1).min(2);
                    self.at += BLOCK as u64;
                    if self.ends == 2 && !self.beyond_end {
                        return Ok(None);
                    }
                }
                // What follows the end mark and is no archive is nobody's. The mark is two blocks.
                Found::Neither if self.ends > 0 => {
                    if self.ends == 1 {
                        let at = self.at - BLOCK as u64;
                        self.note(format!("all that follows a lone block of zeros at byte {at} is left out"));
                    }
                    return Ok(None);
                }
                Found::Neither if self.count == 0 => {
                    let what = self.kind().map(|kind| format!("is {kind} and no tar archive"));
                    return Err(Error::source(b"", what.unwrap_or_else(|| "is no tar archive".into())));
                }
                Found::Neither => {
                    let what =
                        format!("the archive is broken: at byte {} there is no header of a member", self.at);
                    return Err(Error::source(b"", what));
                }
            }
        }
    }

    /// What it is instead of an archive. Many file systems begin with a kibibyte of zeros or more, as an empty archive does.
    fn kind(&self) -> Option<&'static str> {
        const MAGIC: u64 = 1024 + 56;
        let mut magic = [0; 2];
        if self.len >= MAGIC + 2 && self.read(MAGIC, &mut magic).is_ok() && magic == [0x53, 0xef] {
            return Some("a file system of ext2");
        }
        let kind = foreign::by_mark(self.len, |at, bytes| self.read(at, bytes).is_ok());
        kind.map(|kind| kind.name)
    }

    fn note(&mut self, what: String) {
        if self.notes.len() < NOTES_MAX && !self.notes.contains(&what) {
            self.notes.push(what);
        }
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buf, at).map_err(|error| Error::source(b"", error))
    }

    /// The data that follows a header, in memory.
    fn data(&mut self, header: &Header, most: u64, name: &[u8]) -> Result<Vec<u8>> {
        let size = header.size().map_err(|_| Error::source(name, "the size in its header is no number"))?;
        if size > most {
            return Err(Error::source(
                name,
                format!("has an extended header of {size} bytes: {most} are too many"),
            ));
        }
        let from = self.at;
        self.skip(size, name)?;
        let mut bytes = vec![0; size as usize]; // at most 64 MiB
        self.read(from, &mut bytes)?;
        Ok(bytes)
    }

    /// Goes on behind `size` bytes of data.
    fn skip(&mut self, size: u64, name: &[u8]) -> Result<()> {
        let left = self.len.saturating_sub(self.at);
        if size > left {
            let what = format!("the archive is cut off: of its {size} bytes {left} are there");
            return Err(Error::source(name, what));
        }
        // The last member's data may lack its padding.
        self.at += size.next_multiple_of(BLOCK as u64).min(left);
        Ok(())
    }

    fn member(&mut self, header: &Header, before: Before) -> Result<Member> {
        let extended = before.extended.unwrap_or_else(|| self.global.clone());
        let path = extended.sparse.name.clone().or(extended.path.clone()).or(before.long_path);
        let path = path.unwrap_or_else(|| header.path());
        let failed = |what: String| Error::source(&path, what);
        let bad = |Bad(what): Bad| failed(format!("the {what} in its header is no number"));
        let mut lost = extended.lost.clone();
        let size = match extended.size {
            Some(size) => size,
            None => header.size().map_err(bad)?,
        };
        let mut attrs = attrs(header, &extended, &mut lost).map_err(bad)?;
        // On Linux links have these permissions and no others, and no lists, whatever a program wrote; what is said of a whole image is
        // kept as it was there.
        let mut acls = extended.acls.clone();
        if header.kind() == b'2' && self.image.is_none() {
            attrs.mode = 0o777;
            self.links.change(&mut attrs.xattrs, |list| list.retain(|(name, _)| !name.starts_with(LISTS)));
            acls.clear();
        }
        let link =
            || extended.link.clone().or(before.long_link.clone()).unwrap_or_else(|| header.link().to_vec());
        let device = || -> Result<DeviceNr> {
            let (major, minor) = header.device().map_err(bad)?;
            let narrow = |number: i64| u32::try_from(number).map_err(|_| bad(Bad("device number")));
            Ok(DeviceNr {
                major: narrow(extended.device.0.unwrap_or(major))?,
                minor: narrow(extended.device.1.unwrap_or(minor))?,
            })
        };
        let is_folder = path.ends_with(b"/");
        let kind = match header.kind() {
            b'1' => MemberKind::HardLink(link()),
            b'2' => MemberKind::Symlink(link()),
            b'3' => MemberKind::CharDevice(device()?),
            b'4' => MemberKind::BlockDevice(device()?),
            b'5' | b'D' => MemberKind::Directory,
            b'6' => MemberKind::Fifo,
            b'S' => MemberKind::File(Data::Sparse(self.gnu_sparse(header, size, &path)?)),
            // V7 has no directories but names that end so.
            0 | b'0' | b'7' if is_folder => MemberKind::Directory,
            kind => {
                if !matches!(kind, 0 | b'0' | b'7') {
                    let shown = quote(&[kind]);
                    lost.push(format!("a member of the unknown type {shown} is taken as a file"));
                }
                let data = if extended.sparse.is_sparse() {
                    Data::Sparse(extended.sparse.map(self.file, self.at, size).map_err(failed)?)
                } else {
                    Data::Whole { at: self.at, size }
                };
                MemberKind::File(data)
            }
        };
        match kind {
            MemberKind::File(_) => self.skip(size, &path)?,
            // Some write the size of what a link leads to, and no data: then the next header follows at once.
            _ if size > 0 && !self.is_header_next() => self.skip(size, &path)?,
            _ => {}
        }
        let names = header.owner_names();
        let owner_names = (
            extended.user.clone().unwrap_or_else(|| names.0.to_vec()),
            extended.group.clone().unwrap_or_else(|| names.1.to_vec()),
        );
        Ok(Member { path, kind, attrs, acls, owner_names, lost })
    }

    /// Whether a header or an end mark is what comes next.
    fn is_header_next(&self) -> bool {
        let mut block = [0; BLOCK];
        if self.len.saturating_sub(self.at) < BLOCK as u64 || self.read(self.at, &mut block).is_err() {
            return true;
        }
        !matches!(Header::find(&block), Found::Neither)
    }

    /// The map of a sparse file in GNU's own form; goes on behind the blocks that hold more of it.
    fn gnu_sparse(&mut self, header: &Header, stored: u64, path: &[u8]) -> Result<SparseMap> {
        let failed = |what: String| Error::source(path, what);
        let bad = |Bad(what): Bad| failed(format!("the {what} in its header is no number"));
        let (size, mut pieces, mut more) = header.gnu_sparse().map_err(bad)?;
        while more {
            if self.len.saturating_sub(self.at) < BLOCK as u64 {
                return Err(cut_off(self.at));
            }
            let mut block = [0; BLOCK];
            self.read(self.at, &mut block)?;
            self.at += BLOCK as u64;
            let (next, further) = more_pieces(&block).map_err(bad)?;
            if pieces.len() > PIECES_MAX {
                return Err(failed("its map of a sparse file has too many pieces".into()));
            }
            pieces.extend(next);
            more = further;
        }
        SparseMap::new(size, pieces, self.at, stored).map_err(failed)
    }
}

fn cut_off(at: u64) -> Error {
    Error::source(b"", format!("the archive is cut off at byte {at}"))
}

/// Up to the first 0.
fn to_zero(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn attrs(
    header: &Header,
    extended: &Extended,
    lost: &mut Vec<String>,
) -> core::result::Result<NodeAttrs, Bad> {
    let (uid, gid) = header.owner()?;
    let owner = (
        narrow(extended.uid.unwrap_or(uid), "owner", lost),
        narrow(extended.gid.unwrap_or(gid), "group", lost),
    );
    let mtime = match extended.mtime {
        Some(time) => time,
        None => Timestamp::from_secs(header.mtime()?),
    };
    let mut attrs = NodeAttrs::new(header.mode()?, owner, mtime);
    let (atime, ctime) = header.other_times();
    let seconds = |sec: Option<i64>| sec.map(Timestamp::from_secs);
    attrs.atime = extended.atime.or(seconds(atime)).unwrap_or(mtime);
    attrs.ctime = extended.ctime.or(seconds(ctime)).unwrap_or(mtime);
    attrs.crtime = extended.birth.unwrap_or(mtime);
    attrs.xattrs = extended.xattrs.clone();
    if let Some(text) = &extended.flags {
        let (known, unknown) = flags::parse(text);
        attrs.flags = known;
        for word in unknown {
            lost.push(format!("the flag {} is left out: ext2 has none of that name", quote(&word)));
        }
    }
    Ok(attrs)
}

/// A number of a user or group in 32 bits. Small negative ones are two's complement, as old programs wrote nobody.
fn narrow(number: i64, whose: &str, lost: &mut Vec<String>) -> u32 {
    let narrow = u32::try_from(number).ok();
    let narrow = narrow.or_else(|| i32::try_from(number).ok().map(i32::cast_unsigned));
    // All ones mean "no number" to every system call.
    narrow.filter(|&number| number != u32::MAX).unwrap_or_else(|| {
        lost.push(format!("the {whose} {number} has no place in 32 bits: {NOBODY} (nobody) is stored"));
        NOBODY
    })
}
