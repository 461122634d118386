//! Files that are no ext2 image, by what they are: who gives one to the command should be told what it is and what to do.
//!
//! ```
//! use blockdev::RamDevice;
//!
//! let squashfs = ext2_image::foreign::recognise(&RamDevice::from_bytes(&b"hsqs".repeat(4096))?).expect("known");
//! assert_eq!(squashfs.name, "a squashfs image");
//! # Ok::<(), blockdev::Error>(())
//! ```

use blockdev::BlockDevice;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Foreign {
    /// What it is, with its article.
    pub name: &'static str,
    /// What to do with it.
    pub advice: &'static str,
}

/// What to do with a file system that has the magic number of ext2 and features of ext4.
pub const EXT4: &str = "that is ext4; e2dax knows ext2, and ext3 with a clean journal: mount it and copy its files with \
                        e2dax mkfs --from DIR";

const UNPACK: &str = "unpack it first";
const AS_SOURCE: &str = "e2dax mkfs --from makes an image of it";
const MOUNT: &str = "mount it and copy its files with e2dax mkfs --from DIR";
const CONVERT: &str = "qemu-img convert -O raw makes an image of it";

/// Where its mark lies, in bytes, the mark, the name and what to do.
const KINDS: &[(u64, &[u8], &str, &str)] = &[
    // First: it begins with a name, which may be any of the others' marks.
    (257, b"ustar", "a tar archive", AS_SOURCE),
    (0, b"\x1f\x8b", "a file packed by gzip", "give it a whole file system, or gunzip it"),
    (0, b"\x28\xb5\x2f\xfd", "a file packed by zstd", "give it a whole file system, or unzstd it"),
    (0, b"\xfd7zXZ\0", "a file packed by xz", UNPACK),
    (0, b"BZh", "a file packed by bzip2", UNPACK),
    (0, b"\x04\x22\x4d\x18", "a file packed by lz4", UNPACK),
    (0, b"\x02\x21\x4c\x18", "a file packed by lz4", UNPACK),
    (0, b"LZIP", "a file packed by lzip", UNPACK),
    (0, b"PK\x03\x04", "a zip archive", "unpack it and use e2dax mkfs --from DIR"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and use e2dax mkfs --from DIR"),
    (0, b"QFI\xfb", "a qcow2 image", CONVERT),
    (0, b"\x3a\xff\x26\xed", "an Android sparse image", "simg2img makes an image of it"),
    (0, b"KDMV", "a VMDK image", CONVERT),
    (0, b"vhdxfile", "a VHDX image", CONVERT),
    (0, b"conectix", "a VHD image", CONVERT),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI image", CONVERT),
    (0, b"XFSB", "an XFS file system", MOUNT),
    (0, b"hsqs", "a squashfs image", "unsquashfs it and use e2dax mkfs --from DIR"),
    (0, b"\x45\x3d\xcd\x28", "a cramfs image", MOUNT),
    (0, b"-rom1fs-", "a romfs image", MOUNT),
    (0, b"UBI#", "a UBI image", "it is for raw flash"),
    (0, b"LUKS\xba\xbe", "a LUKS volume", "open it with cryptsetup and give the device"),
    (0, b"070701", "a cpio archive", "unpack it and use e2dax mkfs --from DIR"),
    (0, b"!<arch>\n", "an ar archive", "unpack it and use e2dax mkfs --from DIR"),
    (0, b"\x7fELF", "a program", "it is no image"),
    (0, b"e2dax-manifest ", "a manifest", AS_SOURCE),
    (3, b"NTFS    ", "an NTFS file system", MOUNT),
    (3, b"EXFAT   ", "an exFAT file system", MOUNT),
    (54, b"FAT1", "a FAT file system", MOUNT),
    (82, b"FAT32   ", "a FAT file system", MOUNT),
    (0x200, b"LABELONE", "an LVM physical volume", "activate it and give a logical volume"),
    (0x218, b"LVM2 001", "an LVM physical volume", "activate it and give a logical volume"),
    (0x400, b"\xe2\xe1\xf5\xe0", "an EROFS image", MOUNT),
    (0x400, b"\x10\x20\xf5\xf2", "an F2FS file system", MOUNT),
    (0xff6, b"SWAPSPACE2", "swap space", "it has no files"),
    (0xff6, b"SWAP-SPACE", "swap space", "it has no files"),
    (0x1_0040, b"_BHRfS_M", "a btrfs file system", MOUNT),
    (0x8001, b"CD001", "an ISO 9660 image", MOUNT),
    (0x1_0034, b"ReIsEr", "a ReiserFS file system", MOUNT),
    // Last: it says little.
    (0, b"\x5d\0\0", "a file packed by lzma", UNPACK),
];

/// The kind of a device that is no ext2 image; `None` where none is known.
#[must_use]
pub fn recognise(dev: &dyn BlockDevice) -> Option<Foreign> {
    if let Some(kind) = by_mark(dev.size(), |at, bytes| dev.read_at(at, bytes).is_ok()) {
        return Some(kind);
    }
    let mut head = [0; 4096];
    let head = head.get_mut(..dev.size().min(4096) as usize)?;
    let is_blank = !head.is_empty() && dev.read_at(0, head).is_ok() && head.iter().all(|&byte| byte == 0);
    is_blank.then_some(Foreign { name: "zeros where one begins", advice: "e2dax mkfs makes one" })
}

/// The kind of a file of `size` bytes by its mark; `read` fills bytes from an offset, or says that it cannot.
pub(crate) fn by_mark(size: u64, read: impl Fn(u64, &mut [u8]) -> bool) -> Option<Foreign> {
    let has = |at: u64, mark: &[u8]| {
        let mut found = [0; 16];
        let Some(found) = found.get_mut(..mark.len()) else { return false };
        at + mark.len() as u64 <= size && read(at, found) && found == mark
    };
    let &(_, _, name, advice) = KINDS.iter().find(|(at, mark, ..)| has(*at, mark))?;
    Some(Foreign { name, advice })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use blockdev::RamDevice;

    fn kind(len: usize, at: usize, mark: &[u8]) -> Option<&'static str> {
        let mut bytes = vec![b'x'; len];
        bytes[at..at + mark.len()].copy_from_slice(mark);
        let dev = RamDevice::from_bytes(&bytes).unwrap();
        recognise(&dev).map(|kind| kind.name)
    }

    #[test]
    fn a_file_is_told_by_its_mark() {
        for (at, mark, name, _) in KINDS {
            let at = *at as usize;
            assert_eq!(kind(at + 4096, at, mark), Some(*name), "{name}");
        }
        assert_eq!(kind(8192, 0, b"nothing"), None);
        assert_eq!(kind(8192, 0, &[0; 4096]), Some("zeros where one begins"));
        assert_eq!(kind(20, 0, b"QFI\xfb"), Some("a qcow2 image"));
    }
}
