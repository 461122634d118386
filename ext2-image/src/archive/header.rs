//! The 512 bytes that a member of a tar archive begins with, in every form that was ever written: V7, POSIX (`ustar`),
//! GNU and star.

use super::number;

/// Bytes of a block of an archive.
pub(super) const BLOCK: usize = 512;

/// Who defined the fields behind the first 257 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    /// V7: nothing is there.
    Old,
    /// POSIX 1003.1-1988 and pax: a prefix of the name.
    Ustar,
    /// star: a shorter prefix, and times.
    Star,
    /// GNU: times, and the map of a sparse file.
    Gnu,
}

/// A header.
#[derive(Clone)]
pub(super) struct Header {
    bytes: [u8; BLOCK],
    flavour: Flavour,
}

/// The fields: offset and length in bytes.
type Field = (usize, usize);
const NAME: Field = (0, 100);
const MODE: Field = (100, 8);
const UID: Field = (108, 8);
const GID: Field = (116, 8);
const SIZE: Field = (124, 12);
const MTIME: Field = (136, 12);
const CHECKSUM: Field = (148, 8);
const KIND: usize = 156;
const LINK: Field = (157, 100);
const UNAME: Field = (265, 32);
const GNAME: Field = (297, 32);
const MAJOR: Field = (329, 8);
const MINOR: Field = (337, 8);
const PREFIX: Field = (345, 155);
const STAR_PREFIX: Field = (345, 131);
const STAR_ATIME: Field = (476, 12);
const STAR_CTIME: Field = (488, 12);
const GNU_ATIME: Field = (345, 12);
const GNU_CTIME: Field = (357, 12);
const GNU_REALSIZE: Field = (483, 12);
/// Where the pieces of a sparse file begin, how many there are, and the flag that says that there are more: in the
/// header, and in a block that follows it.
const GNU_PIECES: (usize, usize, usize) = (386, 4, 482);
const MORE_PIECES: (usize, usize, usize) = (0, 21, 504);

/// What a block is that stands where a header should.
pub(super) enum Found {
    /// A header.
    Header(Box<Header>),
    /// Zeros: an end mark.
    Zeros,
    /// Neither.
    Neither,
}

/// Pieces of a sparse file, as offsets and lengths.
pub(super) type Pieces = Vec<(u64, u64)>;

/// A field that is no number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bad(pub(super) &'static str);

impl Header {
    /// Looks at a block.
    pub(super) fn find(bytes: &[u8; BLOCK]) -> Found {
        if bytes.iter().all(|&byte| byte == 0) {
            return Found::Zeros;
        }
        if !checksum_holds(bytes) {
            return Found::Neither;
        }
        let flavour = match &bytes[257..265] {
            b"ustar  \0" => Flavour::Gnu,
            [b'u', b's', b't', b'a', b'r', ..] if bytes[508..] == *b"tar\0" => Flavour::Star,
            [b'u', b's', b't', b'a', b'r', ..] => Flavour::Ustar,
            _ => Flavour::Old,
        };
        Found::Header(Box::new(Self { bytes: *bytes, flavour }))
    }

    fn field(&self, (at, len): Field) -> &[u8] {
        &self.bytes[at..at + len]
    }

    /// A field up to its first 0.
    fn text(&self, field: Field) -> &[u8] {
        let bytes = self.field(field);
        bytes.split(|&byte| byte == 0).next().unwrap_or(bytes)
    }

    fn number(&self, field: Field, name: &'static str) -> Result<i64, Bad> {
        number::of_field(self.field(field)).ok_or(Bad(name))
    }

    /// The type of the member.
    pub(super) fn kind(&self) -> u8 {
        self.bytes[KIND]
    }

    /// The name, with its prefix.
    pub(super) fn path(&self) -> Vec<u8> {
        let prefix = match self.flavour {
            Flavour::Ustar => self.text(PREFIX),
            Flavour::Star => self.text(STAR_PREFIX),
            Flavour::Old | Flavour::Gnu => &[],
        };
        let name = self.text(NAME);
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// What a link leads to.
    pub(super) fn link(&self) -> &[u8] {
        self.text(LINK)
    }

    /// Permissions.
    pub(super) fn mode(&self) -> Result<u16, Bad> {
        Ok((self.number(MODE, "mode")? & 0o7777) as u16) // 12 bits
    }

    /// Owner and group, as wide as they were written.
    pub(super) fn owner(&self) -> Result<(i64, i64), Bad> {
        Ok((self.number(UID, "owner")?, self.number(GID, "group")?))
    }

    /// Names of owner and group; empty where there are none.
    pub(super) fn owner_names(&self) -> (&[u8], &[u8]) {
        match self.flavour {
            Flavour::Old => (&[], &[]),
            _ => (self.text(UNAME), self.text(GNAME)),
        }
    }

    /// Bytes that follow.
    pub(super) fn size(&self) -> Result<u64, Bad> {
        u64::try_from(self.number(SIZE, "size")?).map_err(|_| Bad("size"))
    }

    /// Seconds since 1970 of the last change.
    pub(super) fn mtime(&self) -> Result<i64, Bad> {
        self.number(MTIME, "time")
    }

    /// Seconds since 1970 of the last access and the last change of the inode, where they are told.
    pub(super) fn other_times(&self) -> (Option<i64>, Option<i64>) {
        let (atime, ctime) = match self.flavour {
            Flavour::Gnu => (GNU_ATIME, GNU_CTIME),
            Flavour::Star => (STAR_ATIME, STAR_CTIME),
            Flavour::Old | Flavour::Ustar => return (None, None),
        };
        // Absent in most archives: all zeros then.
        let time =
            |field| number::of_field(self.field(field)).filter(|_| self.field(field).iter().any(|&b| b != 0));
        (time(atime), time(ctime))
    }

    /// Major and minor number of a device.
    pub(super) fn device(&self) -> Result<(i64, i64), Bad> {
        if self.flavour == Flavour::Old {
            return Ok((0, 0));
        }
        Ok((self.number(MAJOR, "device number")?, self.number(MINOR, "device number")?))
    }

    /// Of a sparse member in GNU's own form: its whole size, its first pieces, and whether blocks with more follow.
    pub(super) fn gnu_sparse(&self) -> Result<(u64, Pieces, bool), Bad> {
        let size = u64::try_from(self.number(GNU_REALSIZE, "real size")?).map_err(|_| Bad("real size"))?;
        let (pieces, more) = gnu_pieces(&self.bytes, GNU_PIECES)?;
        Ok((size, pieces, more))
    }
}

/// More pieces of a sparse member, from a block that follows its header, and whether one more such block follows.
pub(super) fn more_pieces(block: &[u8; BLOCK]) -> Result<(Pieces, bool), Bad> {
    gnu_pieces(block, MORE_PIECES)
}

fn gnu_pieces(bytes: &[u8; BLOCK], (at, count, more): (usize, usize, usize)) -> Result<(Pieces, bool), Bad> {
    let mut pieces = Vec::with_capacity(count);
    for piece in bytes[at..at + count * 24].chunks_exact(24) {
        // The first that is not set ends the list.
        if piece[0] == 0 {
            break;
        }
        let field = |bytes| number::of_field(bytes).and_then(|number| u64::try_from(number).ok());
        let pair = field(&piece[..12]).zip(field(&piece[12..]));
        pieces.push(pair.ok_or(Bad("map of a sparse file"))?);
    }
    Ok((pieces, bytes[more] != 0))
}

/// Whether the header's sum is right, its own field taken as spaces. Some old programs summed signed bytes.
fn checksum_holds(bytes: &[u8; BLOCK]) -> bool {
    let (at, len) = CHECKSUM;
    let field = at..at + len;
    let Some(said) = number::of_field(&bytes[field.clone()]) else { return false };
    let all = bytes.iter().enumerate().map(|(nr, &byte)| if field.contains(&nr) { b' ' } else { byte });
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for byte in all {
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    said == unsigned || said == signed
}
