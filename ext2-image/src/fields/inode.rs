//! An inode (`struct ext2_inode`), what ext4 put behind it, and the attributes in the rest of its room.

use alloc::borrow::Cow;
use alloc::format;
use alloc::vec::Vec;

use super::spec::Kind::Int;
use super::spec::Sense::{Bits, Block, Hex, Octal, Plain, Time};
use super::spec::{Spec, little, take_apart};
use super::text::mode_letters;
use super::{Field, PointsTo, Value, xattr};

const FLAGS: &[(u32, &str)] = &[
    (0x1, "SECRM"),
    (0x2, "UNRM"),
    (0x4, "COMPR"),
    (0x8, "SYNC"),
    (0x10, "IMMUTABLE"),
    (0x20, "APPEND"),
    (0x40, "NODUMP"),
    (0x80, "NOATIME"),
    (0x100, "DIRTY"),
    (0x200, "COMPRBLK"),
    (0x400, "NOCOMP"),
    (0x800, "ENCRYPT"),
    (0x1000, "INDEX"),
    (0x2000, "IMAGIC"),
    (0x4000, "JOURNAL_DATA"),
    (0x8000, "NOTAIL"),
    (0x1_0000, "DIRSYNC"),
    (0x2_0000, "TOPDIR"),
    (0x4_0000, "HUGE_FILE"),
    (0x8_0000, "EXTENTS"),
    (0x10_0000, "VERITY"),
    (0x20_0000, "EA_INODE"),
    (0x1000_0000, "INLINE_DATA"),
    (0x2000_0000, "PROJINHERIT"),
    (0x4000_0000, "CASEFOLD"),
];

const BEFORE: &[Spec] = &[
    ("i_mode", 0, Int(2), Octal, ""),
    ("i_uid", 2, Int(2), Plain, "owner, low half"),
    ("i_size", 4, Int(4), Plain, "bytes, low half"),
    ("i_atime", 8, Int(4), Time, "read"),
    ("i_ctime", 12, Int(4), Time, "inode changed"),
    ("i_mtime", 16, Int(4), Time, "contents changed"),
    ("i_dtime", 20, Int(4), Time, "deleted"),
    ("i_gid", 24, Int(2), Plain, "group, low half"),
    ("i_links_count", 26, Int(2), Plain, "names"),
    ("i_blocks", 28, Int(4), Plain, "units of 512 bytes on the device"),
    ("i_flags", 32, Int(4), Bits(FLAGS), ""),
    ("i_osd1", 36, Int(4), Hex, "the operating system's own"),
];

const BEHIND: &[Spec] = &[
    ("i_generation", 100, Int(4), Plain, "tells it from earlier inodes of the number"),
    ("i_file_acl", 104, Int(4), Block, "attribute block"),
    ("i_size_high", 108, Int(4), Plain, "bytes, high half"),
    ("i_faddr", 112, Int(4), Plain, "fragment; not in use"),
    ("i_frag", 116, Int(1), Plain, "fragment; not in use"),
    ("i_fsize", 117, Int(1), Plain, "fragment; not in use"),
    ("i_pad1", 118, Int(2), Plain, ""),
    ("i_uid_high", 120, Int(2), Plain, "owner, high half"),
    ("i_gid_high", 122, Int(2), Plain, "group, high half"),
    ("i_reserved2", 124, Int(4), Hex, ""),
];

const EXTRA: &[Spec] = &[
    ("i_extra_isize", 128, Int(2), Plain, "bytes of the extra fields in use"),
    ("i_checksum_hi", 130, Int(2), Hex, ""),
    ("i_ctime_extra", 132, Int(4), Hex, ""),
    ("i_mtime_extra", 136, Int(4), Hex, ""),
    ("i_atime_extra", 140, Int(4), Hex, ""),
    ("i_crtime", 144, Int(4), Time, "made"),
    ("i_crtime_extra", 148, Int(4), Hex, ""),
    ("i_version_hi", 152, Int(4), Hex, ""),
    ("i_projid", 156, Int(4), Plain, "project"),
];

/// Where the fields of revision 0 end, in bytes.
const GOOD_OLD: usize = 128;
/// `i_block`, and how many pointers it has.
const POINTERS: (usize, usize) = (40, 15);
/// What they are called.
const POINTER_NAMES: [&str; POINTERS.1] = [
    "i_block[0]",
    "i_block[1]",
    "i_block[2]",
    "i_block[3]",
    "i_block[4]",
    "i_block[5]",
    "i_block[6]",
    "i_block[7]",
    "i_block[8]",
    "i_block[9]",
    "i_block[10]",
    "i_block[11]",
    "i_block[12]",
    "i_block[13]",
    "i_block[14]",
];
/// A link with a target shorter than this has it in the place of the pointers.
const FAST_LINK: u64 = 60;

/// What the 60 bytes of `i_block` hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InodeShape {
    /// Pointers to blocks.
    Pointers,
    /// The target of a short link.
    Target,
    /// The number of a device.
    Device,
    /// The root of a tree of extents, which is ext4's.
    Extents,
    /// Nothing that has a meaning: a FIFO, a socket, or no type at all.
    Nothing,
}

impl InodeShape {
    /// That of the inode with these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let number = |offset, length| little(bytes, offset, length).unwrap_or_default();
        let (mode, size) = (number(0, 2), number(4, 4));
        if number(32, 4) & 0x8_0000 != 0 {
            return Self::Extents;
        }
        match mode >> 12 {
            0o12 if size < FAST_LINK => Self::Target,
            0o10 | 0o4 | 0o12 => Self::Pointers,
            0o6 | 0o2 => Self::Device,
            // The journal's and the bad blocks' inodes may have no type.
            0 => Self::Pointers,
            _ => Self::Nothing,
        }
    }
}

/// The fields of an inode; `bytes` are as many as the superblock says that an inode has.
#[must_use]
pub fn inode(bytes: &[u8]) -> Vec<Field> {
    let mut fields = take_apart(bytes, BEFORE);
    if let Some(mode) = fields.first_mut() {
        // OK to cast: a field of two bytes.
        mode.meaning = mode_letters(mode.value.number().unwrap_or_default() as u16).into();
    }
    fields.extend(pointers(bytes));
    fields.extend(take_apart(bytes, BEHIND));
    if bytes.len() > GOOD_OLD {
        fields.extend(extra(bytes));
    }
    fields
}

fn pointers(bytes: &[u8]) -> Vec<Field> {
    let (at, count) = POINTERS;
    let shape = InodeShape::of(bytes);
    if shape == InodeShape::Target {
        let size = little(bytes, 4, 4).unwrap_or_default().min(FAST_LINK) as usize;
        let (target, rest) = (bytes.get(at..at + size), bytes.get(at + size..at + 60));
        let target = target.filter(|target| !target.is_empty()).map(|target| {
            let field = Field::new(at, size, "i_block", Value::Text(target.to_vec()));
            field.says("target of the link")
        });
        let rest = rest
            .filter(|rest| !rest.is_empty())
            .map(|rest| Field::new(at + size, rest.len(), "i_block.rest", Value::Bytes(rest.to_vec())));
        return target.into_iter().chain(rest).collect();
    }
    (0..count)
        .filter_map(|nr| {
            let offset = at + 4 * nr;
            // OK to cast: four bytes.
            let pointer = little(bytes, offset, 4)? as u32;
            let what = match (shape, nr) {
                (InodeShape::Pointers, 0..12) => Cow::Borrowed("direct"),
                (InodeShape::Pointers, 12) => "indirect".into(),
                (InodeShape::Pointers, 13) => "double indirect".into(),
                (InodeShape::Pointers, _) => "triple indirect".into(),
                (InodeShape::Device, 0) if pointer != 0 => {
                    format!("device {}:{}", pointer >> 8 & 0xff, pointer & 0xff).into()
                }
                (InodeShape::Device, 1) if pointer != 0 => {
                    let minor = pointer & 0xff | pointer >> 12 & 0xf_ff00;
                    format!("device {}:{minor}", pointer >> 8 & 0xfff).into()
                }
                (InodeShape::Extents, _) => "part of a tree of extents".into(),
                _ => "".into(),
            };
            let value = match shape {
                InodeShape::Pointers => Value::Number(pointer.into()),
                _ => Value::Hex(pointer.into()),
            };
            let leads = shape == InodeShape::Pointers && pointer != 0;
            let field = Field::new(offset, 4, *POINTER_NAMES.get(nr)?, value);
            Some(field.says(what).leads_to(leads.then_some(PointsTo::Block(pointer))))
        })
        .collect()
}

/// What lies behind the first 128 bytes: the extra fields that are in use, and attributes.
fn extra(bytes: &[u8]) -> Vec<Field> {
    let size = little(bytes, GOOD_OLD, 2).unwrap_or_default() as usize;
    let end = GOOD_OLD + size;
    let mut fields = take_apart(bytes, EXTRA);
    let fits = size.is_multiple_of(4) && end <= bytes.len();
    if !fits {
        fields.truncate(1);
        fields.iter_mut().for_each(|field| field.meaning = "more than there is room for".into());
    }
    // The length itself is there in any case.
    let end = if fits { end.max(GOOD_OLD + 2) } else { GOOD_OLD + 2 };
    fields.retain(|field| field.offset + field.length <= end);
    let known = fields.last().map_or(GOOD_OLD, |field| field.offset + field.length);
    if let Some(rest) =
        bytes.get(known..end.max(GOOD_OLD + size.min(4))).filter(|rest| !rest.is_empty() && fits)
    {
        fields.push(Field::new(known, rest.len(), "i_extra.rest", Value::Bytes(rest.to_vec())));
    }
    let from = fields.last().map_or(GOOD_OLD, |field| field.offset + field.length);
    let Some(room) = bytes.get(from..).filter(|room| !room.is_empty()) else { return fields };
    if fits && little(room, 0, 4) == Some(u64::from(ext2_core::raw::XATTR_MAGIC)) {
        fields.extend(xattr::inside(room).into_iter().map(|field| field.inside(from, "")));
    } else if room.iter().any(|&byte| byte != 0) {
        fields.push(Field::new(from, room.len(), "i_room", Value::Bytes(room.to_vec())));
    }
    fields
}
