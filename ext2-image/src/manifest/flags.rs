//! The attribute flags of an inode as letters, as lsattr(1) prints them.

use alloc::string::String;

/// Bit of `i_flags` and its letter, in the order in which lsattr prints them.
const LETTERS: [(u32, char); 13] = [
    (0x0000_0001, 's'),
    (0x0000_0002, 'u'),
    (0x0000_0008, 'S'),
    (0x0001_0000, 'D'),
    (0x0000_0010, 'i'),
    (0x0000_0020, 'a'),
    (0x0000_0040, 'd'),
    (0x0000_0080, 'A'),
    (0x0000_0004, 'c'),
    (0x0000_4000, 'j'),
    (0x0000_8000, 't'),
    (0x0002_0000, 'T'),
    (0x2000_0000, 'P'),
];

/// The flags of an inode that a person sets with chattr(1) and that ext2 stores.
///
/// Flags that describe how the inode is laid out (an indexed directory, a large file, extents) are not among them:
/// they change when the same tree is written again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AttributeFlags(u32);

impl AttributeFlags {
    /// Keeps of `i_flags` (as on disk, or as `FS_IOC_GETFLAGS` gives it) what a manifest says.
    pub fn from_inode_flags(i_flags: u32) -> Self {
        let known = LETTERS.iter().fold(0, |bits, (bit, _)| bits | bit);
        Self(i_flags & known)
    }

    /// The flags as bits of `i_flags`.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether no flag is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The letters of the set flags, in the order of lsattr.
    pub fn letters(self) -> String {
        LETTERS.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, letter)| *letter).collect()
    }

    /// The flags that the letters stand for, in any order; `None` where a letter is unknown or comes twice.
    pub fn from_letters(letters: &str) -> Option<Self> {
        let mut bits = 0;
        for letter in letters.chars() {
            let (bit, _) = LETTERS.iter().find(|(_, known)| *known == letter)?;
            if bits & bit != 0 {
                return None;
            }
            bits |= bit;
        }
        Some(Self(bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_survives_its_letter() {
        let all = AttributeFlags::from_inode_flags(u32::MAX);
        assert_eq!(all.letters(), "suSDiadAcjtTP");
        assert_eq!(AttributeFlags::from_letters(&all.letters()), Some(all));
    }

    #[test]
    fn flags_of_layout_are_left_out() {
        let index_and_extents = 0x1000 | 0x8_0000;
        assert!(AttributeFlags::from_inode_flags(index_and_extents).is_empty());
    }

    #[test]
    fn unknown_and_doubled_letters_are_refused() {
        assert_eq!(AttributeFlags::from_letters("z"), None);
        assert_eq!(AttributeFlags::from_letters("ii"), None);
        assert_eq!(AttributeFlags::from_letters(""), Some(AttributeFlags::default()));
    }
}
