//! What an inode says of its file: all that `stat` tells, its kind, its flags, its device, its owners.

mod owners;

pub use owners::{Last, Owners};

use bitflags::bitflags;

use crate::{InodeNr, Timestamp};

/// The kinds of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum FileKind {
    Regular,
    Directory,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

impl FileKind {
    const ALL: [(Self, u16, u8, char); 7] = [
        (Self::Regular, 0o100_000, 1, 'f'),
        (Self::Directory, 0o040_000, 2, 'd'),
        (Self::CharDevice, 0o020_000, 3, 'c'),
        (Self::BlockDevice, 0o060_000, 4, 'b'),
        (Self::Fifo, 0o010_000, 5, 'p'),
        (Self::Socket, 0o140_000, 6, 's'),
        (Self::Symlink, 0o120_000, 7, 'l'),
    ];

    fn row(self) -> (Self, u16, u8, char) {
        // OK to index: the table has a row for each kind, in the order of the entry types 1 to 7.
        Self::ALL[match self {
            Self::Regular => 0,
            Self::Directory => 1,
            Self::CharDevice => 2,
            Self::BlockDevice => 3,
            Self::Fifo => 4,
            Self::Socket => 5,
            Self::Symlink => 6,
        }]
    }

    /// From the upper 4 bits of `i_mode`, if they are those of a kind.
    #[must_use]
    pub fn from_mode(mode: u16) -> Option<Self> {
        Self::ALL.iter().find(|row| row.1 == mode & 0o170_000).map(|row| row.0)
    }

    /// The upper 4 bits of `i_mode`.
    #[must_use]
    pub fn mode_bits(self) -> u16 {
        self.row().1
    }

    /// From the type byte of a directory entry.
    #[must_use]
    pub fn from_dirent(file_type: u8) -> Option<Self> {
        Self::ALL.iter().find(|row| row.2 == file_type).map(|row| row.0)
    }

    /// The type byte of a directory entry.
    #[must_use]
    pub fn dirent_type(self) -> u8 {
        self.row().2
    }

    /// The letter of `find -type`: `f d l c b p s`.
    #[must_use]
    pub fn letter(self) -> char {
        self.row().3
    }
}

bitflags! {
    /// Attribute flags (`i_flags`), as `chattr` sets them. Unknown bits are kept.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct InodeFlags: u32 {
        /// `s`: overwrite on deletion; no effect.
        const SECURE_DELETE = 0x1;
        /// `u`: keep for undeletion; no effect.
        const UNDELETE = 0x2;
        /// `c`: compress; no effect.
        const COMPRESS = 0x4;
        /// `S`: every change is synchronous.
        const SYNC = 0x8;
        /// `i`: cannot be changed.
        const IMMUTABLE = 0x10;
        /// `a`: can only grow.
        const APPEND = 0x20;
        /// `d`: not for dump.
        const NODUMP = 0x40;
        /// `A`: reading leaves the access time alone.
        const NOATIME = 0x80;
        /// Hashed directory.
        const INDEX = 0x1000;
        /// `j`: data through the journal; no effect.
        const JOURNAL_DATA = 0x4000;
        /// `t`: no tail merging; no effect.
        const NOTAIL = 0x8000;
        /// `D`: every change of the directory is synchronous.
        const DIRSYNC = 0x1_0000;
        /// `T`: top of a hierarchy, for the placing of directories.
        const TOPDIR = 0x2_0000;
        /// Extents instead of a block map (ext4).
        const EXTENTS = 0x8_0000;
        const _ = !0;
    }
}

impl InodeFlags {
    /// What `lsattr` shows (Linux: `EXT2_FL_USER_VISIBLE`).
    pub const VISIBLE: Self = Self::from_bits_retain(0x3_dfff);
    /// What `chattr` may change (Linux: `EXT2_FL_USER_MODIFIABLE`).
    pub const MODIFIABLE: Self = Self::from_bits_retain(0x3_80ff);
    /// Flags that `lsattr` has letters for here.
    const LETTERS: [(Self, char); 12] = [
        (Self::SECURE_DELETE, 's'),
        (Self::UNDELETE, 'u'),
        (Self::SYNC, 'S'),
        (Self::DIRSYNC, 'D'),
        (Self::IMMUTABLE, 'i'),
        (Self::APPEND, 'a'),
        (Self::NODUMP, 'd'),
        (Self::NOATIME, 'A'),
        (Self::COMPRESS, 'c'),
        (Self::JOURNAL_DATA, 'j'),
        (Self::NOTAIL, 't'),
        (Self::TOPDIR, 'T'),
    ];

    /// The letters of `lsattr` for the flags that are set, in its order.
    pub fn letters(self) -> impl Iterator<Item = char> {
        Self::LETTERS.into_iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, letter)| letter)
    }

    /// The flag of a letter of `lsattr`.
    #[must_use]
    pub fn from_letter(letter: char) -> Option<Self> {
        Self::LETTERS.into_iter().find(|row| row.1 == letter).map(|row| row.0)
    }
}

/// The number of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNr {
    /// Which driver, 12 bits.
    pub major: u32,
    /// Which device of it, 20 bits.
    pub minor: u32,
}

impl DeviceNr {
    /// From the 32 bits that ext2, FUSE and others have for it. Linux: `new_decode_dev`.
    #[must_use]
    pub fn from_u32(raw: u32) -> Self {
        Self { major: raw >> 8 & 0xfff, minor: raw & 0xff | raw >> 12 & 0xfff00 }
    }

    /// As [`from_u32`](Self::from_u32) takes it; of larger numbers the upper bits are lost. Linux: `new_encode_dev`.
    #[must_use]
    pub fn to_u32(self) -> u32 {
        (self.minor & 0xff) | (self.major & 0xfff) << 8 | (self.minor & 0xfff00) << 12
    }

    /// From the first two words of `i_block`: the old 16-bit form, or if that is 0 the new one.
    #[must_use]
    pub fn decode(old: u32, new: u32) -> Self {
        if old != 0 { Self { major: old >> 8 & 0xff, minor: old & 0xff } } else { Self::from_u32(new) }
    }

    /// The first two words of `i_block`. Linux: `old_valid_dev`.
    #[must_use]
    pub fn encode(self) -> [u32; 2] {
        if self.major < 256 && self.minor < 256 {
            [self.major << 8 | self.minor, 0]
        } else {
            [0, self.to_u32()]
        }
    }
}

impl Attr {
    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::Regular
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.kind == FileKind::Symlink
    }
}

/// All that is known of an inode, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Its number.
    pub nr: InodeNr,
    /// Its kind.
    pub kind: FileKind,
    /// The lower 12 bits of the mode: permissions, set-id and sticky bits.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Names.
    pub links: u16,
    /// Space in units of 512 bytes, indirect blocks and the attribute block included.
    pub blocks_512: u32,
    /// Last read.
    pub atime: Timestamp,
    /// Last change of the contents.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// When it was made, where the inode has room for it.
    pub crtime: Option<Timestamp>,
    /// Attribute flags.
    pub flags: InodeFlags,
    /// Tells this inode from earlier ones of the same number.
    pub generation: u32,
    /// The device, of a device file.
    pub device: Option<DeviceNr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_both_encodings() {
        for (major, minor) in
            [(0, 0), (8, 1), (255, 255), (256, 0), (259, 65_536), (4095, 0xf_ffff), (1, 256)]
        {
            let nr = DeviceNr { major, minor };
            let [old, new] = nr.encode();
            assert_eq!(DeviceNr::decode(old, new), nr);
            assert_eq!(DeviceNr::from_u32(nr.to_u32()), nr);
        }
    }

    #[test]
    fn every_kind_survives_mode_and_entry_type() {
        for (kind, ..) in FileKind::ALL {
            assert_eq!(FileKind::from_mode(kind.mode_bits() | 0o7777), Some(kind));
            assert_eq!(FileKind::from_dirent(kind.dirent_type()), Some(kind));
        }
        assert_eq!(FileKind::from_mode(0o170_000), None);
        assert_eq!(FileKind::from_dirent(0), None);
    }
}
