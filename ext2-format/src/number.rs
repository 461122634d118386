//! Numbers that must not be mixed: blocks of a file, blocks of the device, groups, inodes.

use core::fmt;
use core::num::NonZeroU32;

/// A block of a file, counted from 0 in blocks of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileBlock(u64);

impl FileBlock {
    /// The file's first block.
    pub const ZERO: Self = Self(0);

    /// The `nr`-th block.
    #[must_use]
    pub const fn new(nr: u64) -> Self {
        Self(nr)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The block `count` further on, if such a number exists.
    #[must_use]
    pub fn checked_add(self, count: u64) -> Option<Self> {
        self.0.checked_add(count).map(Self)
    }
}

/// A block of the device. Block 0 never holds file data or metadata that a pointer names, so a hole is
/// `None` and not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceBlock(NonZeroU32);

impl DeviceBlock {
    /// A block, unless `nr` is 0.
    #[must_use]
    pub const fn new(nr: u32) -> Option<Self> {
        match NonZeroU32::new(nr) {
            Some(nr) => Some(Self(nr)),
            None => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The block `count` further on, if such a number exists.
    #[must_use]
    pub fn checked_add(self, count: u64) -> Option<Self> {
        let nr = u64::from(self.get()).checked_add(count)?;
        u32::try_from(nr).ok().and_then(Self::new)
    }
}

/// A block group, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupNr(u32);

impl GroupNr {
    /// The `nr`-th group.
    #[must_use]
    pub const fn new(nr: u32) -> Self {
        Self(nr)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// An inode number, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeNr(NonZeroU32);

impl InodeNr {
    /// The root directory.
    pub const ROOT: Self = Self(NonZeroU32::new(2).expect("not zero"));

    /// An inode, unless `nr` is 0.
    #[must_use]
    pub const fn new(nr: u32) -> Option<Self> {
        match NonZeroU32::new(nr) {
            Some(nr) => Some(Self(nr)),
            None => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

macro_rules! display_as_number {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.get(), f)
            }
        }
    )*};
}
display_as_number!(FileBlock, DeviceBlock, GroupNr, InodeNr);

/// The size of a block: a power of two from 1 KiB to 64 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSize {
    log2: u8,
}

impl BlockSize {
    /// A block size of `bytes`, if ext2 has one of that size.
    #[must_use]
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 1024 && bytes <= 65536 {
            Some(Self { log2: bytes.trailing_zeros() as u8 })
        } else {
            None
        }
    }

    /// From `s_log_block_size`: 0 for 1 KiB to 6 for 64 KiB.
    #[must_use]
    pub const fn from_s_log_block_size(log: u32) -> Option<Self> {
        if log <= 6 { Self::new(1024 << log) } else { None }
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << self.log2
    }

    /// Bytes of a block, as a length of memory.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no block is empty")]
    pub const fn len(self) -> usize {
        1 << self.log2
    }

    /// The binary logarithm of [`bytes`](Self::bytes).
    #[must_use]
    pub const fn log2(self) -> u32 {
        self.log2 as u32
    }

    /// Pointers in an indirect block (Linux: `EXT2_ADDR_PER_BLOCK`).
    #[must_use]
    pub const fn pointers(self) -> u64 {
        self.bytes() / 4
    }

    /// Blocks that `bytes` fill, the last of them perhaps in part.
    #[must_use]
    pub const fn blocks_for(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.bytes())
    }

    /// The block in which byte `offset` of a file lies.
    #[must_use]
    pub const fn block_of(self, offset: u64) -> FileBlock {
        FileBlock::new(offset >> self.log2)
    }
}

impl fmt::Display for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes_are_the_powers_of_two_from_1_to_64_kib() {
        for log in 0..=6 {
            assert_eq!(BlockSize::from_s_log_block_size(log).unwrap().bytes(), 1024 << log);
        }
        assert!(BlockSize::from_s_log_block_size(7).is_none());
        assert!(BlockSize::from_s_log_block_size(u32::MAX).is_none());
        for bytes in [0, 1, 512, 1023, 1025, 3072, 131_072] {
            assert!(BlockSize::new(bytes).is_none(), "{bytes}");
        }
    }

    #[test]
    fn a_device_block_past_32_bits_does_not_exist() {
        let last = DeviceBlock::new(u32::MAX).unwrap();
        assert_eq!(last.checked_add(1), None);
        assert_eq!(last.checked_add(u64::MAX), None);
        assert_eq!(DeviceBlock::new(0), None);
    }
}
