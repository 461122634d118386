//! The hash functions, salted.

use core::fmt;
use core::ops::Deref;

use sha2::{Digest as _, Sha256, Sha512};

/// A hash function, by the name that the kernel has for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// SHA-256, of 32 bytes.
    #[default]
    Sha256,
    /// SHA-512, of 64 bytes.
    Sha512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// The kernel's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The one of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Bytes of a hash: a power of two, so that hashes lie in a block without gaps.
    #[must_use]
    pub fn digest_len(self) -> u32 {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A hash function that has taken the salt.
#[derive(Clone, Debug)]
pub(super) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

/// A hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest {
    bytes: [u8; 64],
    len: usize,
}

impl Deref for Digest {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Hasher {
    /// With the salt before everything (the kernel's hash type 1).
    pub(super) fn new(algorithm: Algorithm, salt: &[u8]) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new_with_prefix(salt)),
            Algorithm::Sha512 => Self::Sha512(Sha512::new_with_prefix(salt)),
        }
    }

    /// The hash of salt and block.
    pub(super) fn digest(&self, block: &[u8]) -> Digest {
        let mut digest = Digest { bytes: [0; 64], len: 0 };
        let mut keep = |bytes: &[u8]| {
            digest.len = bytes.len();
            digest.bytes[..bytes.len()].copy_from_slice(bytes);
        };
        match self {
            Self::Sha256(state) => keep(&state.clone().chain_update(block).finalize()),
            Self::Sha512(state) => keep(&state.clone().chain_update(block).finalize()),
        }
        digest
    }
}
