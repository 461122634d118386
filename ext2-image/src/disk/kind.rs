//! What partitions are for.

use alloc::format;
use alloc::string::String;

/// What a partition is for, as both tables say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The GUID of GPT, in the order of its bytes on the disk.
    pub guid: [u8; 16],
    /// The byte of an MBR.
    pub byte: u8,
}

/// A GUID from its text: the first three groups are stored with the low byte first.
const fn guid(text: &str) -> [u8; 16] {
    match parse(text.as_bytes()) {
        Some(bytes) => bytes,
        None => panic!("a GUID has 32 hexadecimal digits"),
    }
}

/// Where on the disk each byte of the text goes.
const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

const fn parse(text: &[u8]) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    let (mut at, mut digits) = (0, 0);
    while at < text.len() {
        let digit = match text[at] {
            byte @ b'0'..=b'9' => byte - b'0',
            byte @ b'a'..=b'f' => byte - b'a' + 10,
            byte @ b'A'..=b'F' => byte - b'A' + 10,
            b'-' => {
                at += 1;
                continue;
            }
            _ => return None,
        };
        if digits == 32 {
            return None;
        }
        let place = ORDER[digits / 2];
        bytes[place] = bytes[place] << 4 | digit;
        digits += 1;
        at += 1;
    }
    if digits == 32 { Some(bytes) } else { None }
}

/// A GUID from its text, in the order of its bytes on the disk.
#[must_use]
pub fn parse_guid(text: &str) -> Option<[u8; 16]> {
    parse(text.as_bytes())
}

/// The text of a GUID, as it is usually written.
#[must_use]
pub fn format_guid(bytes: &[u8; 16]) -> String {
    let mut text = String::new();
    for (place, at) in ORDER.into_iter().enumerate() {
        if [4, 6, 8, 10].contains(&place) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", bytes[at]));
    }
    text
}

impl Kind {
    /// A file system of Linux.
    pub const LINUX: Self = Self { guid: guid("0fc63daf-8483-4772-8e79-3d69d8477de4"), byte: 0x83 };
    /// The partition of UEFI.
    pub const EFI: Self = Self { guid: guid("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"), byte: 0xef };
    /// Where GRUB keeps itself on a GPT disk that a BIOS boots.
    pub const BIOS: Self = Self { guid: guid("21686148-6449-6e6f-744e-656564454649"), byte: 0xda };
    /// The extended boot partition of the Boot Loader Specification.
    pub const BOOT: Self = Self { guid: guid("bc13c2ff-59e6-4262-a352-b275fd6f7172"), byte: 0xea };
    /// Swap of Linux.
    pub const SWAP: Self = Self { guid: guid("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"), byte: 0x82 };

    /// What a partition of a well-known name is for: `EFI` or `ESP`, `BIOS`, `BOOT`, `SWAP`; any other name is a file
    /// system of Linux.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        let known = [("EFI", Self::EFI), ("ESP", Self::EFI), ("BIOS", Self::BIOS), ("BOOT", Self::BOOT)];
        let known = known.into_iter().chain([("SWAP", Self::SWAP)]);
        known
            .into_iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map_or(Self::LINUX, |(_, kind)| kind)
    }
}
