//! What a seal is to be like.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use super::hash::Hasher;
use super::{Algorithm, Error, Result};

/// The parameters of a seal. The default is that of `veritysetup`, with no salt and nobody's UUID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// The hash function.
    pub algorithm: Algorithm,
    /// Bytes of a block of data: a power of two from 512 to 512 KiB. The kernel wants no more than a page.
    pub data_block: u32,
    /// Bytes of a block of the tree, in the same bounds.
    pub hash_block: u32,
    /// What goes before every block that is hashed; at most 256 bytes.
    pub salt: Vec<u8>,
    /// The UUID of the tree.
    pub uuid: [u8; 16],
}

impl Default for Params {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            data_block: 4096,
            hash_block: 4096,
            salt: Vec::new(),
            uuid: [0; 16],
        }
    }
}

/// The most bytes of a salt.
pub(super) const SALT_MAX: usize = 256;

impl Params {
    /// Salt and UUID that derive from a seed, for trees that are the same whoever makes them.
    #[must_use]
    pub fn with_identity(self, seed: &[u8]) -> Self {
        let derive = |purpose: &[u8]| Hasher::new(Algorithm::Sha256, purpose).digest(seed);
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&derive(b"e2dax dm-verity uuid\0")[..16]);
        // Version 8: nobody else's rules.
        uuid[6] = uuid[6] & 0x0f | 0x80;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        Self { salt: derive(b"e2dax dm-verity salt\0").to_vec(), uuid, ..self }
    }

    /// # Errors
    /// `Params` for what dm-verity does not have.
    pub(super) fn check(&self) -> Result<()> {
        for (what, size) in [("data", self.data_block), ("hash", self.hash_block)] {
            if !size.is_power_of_two() || !(512..=512 << 10).contains(&size) {
                let what =
                    format!("{what} blocks of {size} bytes: a power of two from 512 to 524288 is possible");
                return Err(Error::Params(what));
            }
        }
        if self.salt.len() > SALT_MAX {
            return Err(Error::Params(format!(
                "a salt of {} bytes: {SALT_MAX} are possible",
                self.salt.len()
            )));
        }
        Ok(())
    }

    pub(super) fn hasher(&self) -> Hasher {
        Hasher::new(self.algorithm, &self.salt)
    }

    /// The line of a device-mapper table (of `dmsetup create`, and of the kernel's `dm-mod.create=`) for the data on
    /// `data` and the tree that begins at byte `tree_offset` of `tree`, which are names of devices.
    #[must_use]
    pub fn table(&self, data_blocks: u64, data: &str, tree: &str, tree_offset: u64, root: &[u8]) -> String {
        let sectors = data_blocks.saturating_mul(u64::from(self.data_block) / 512);
        // Behind the superblock, which has a block of its own.
        let first = tree_offset.div_ceil(u64::from(self.hash_block)) + 1;
        let salt = if self.salt.is_empty() { "-".into() } else { hex(&self.salt) };
        format!(
            "0 {sectors} verity 1 {data} {tree} {} {} {data_blocks} {first} {} {} {salt}",
            self.data_block,
            self.hash_block,
            self.algorithm,
            hex(root),
        )
    }
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of hexadecimal digits, `None` where they are none or not in pairs.
#[must_use]
pub fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let (pairs, rest) = digits.as_ref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}
