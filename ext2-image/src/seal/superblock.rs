//! The superblock of a seal, as `veritysetup` lays it out.

use alloc::format;
use alloc::vec::Vec;

use blockdev::BlockDevice;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::params::SALT_MAX;
use super::{Algorithm, Error, Layout, Params, Result};

/// Bytes of the superblock.
pub const SUPERBLOCK_SIZE: usize = 512;

const SIGNATURE: [u8; 8] = *b"verity\0\0";

/// Linux: none; cryptsetup's `struct verity_sb`.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    signature: [u8; 8],
    /// 1.
    version: U32,
    /// 1: the salt goes first, and hashes are spaced by powers of two.
    hash_type: U32,
    uuid: [u8; 16],
    algorithm: [u8; 32],
    data_block_size: U32,
    hash_block_size: U32,
    data_blocks: U64,
    salt_size: U16,
    reserved: [u8; 6],
    salt: [u8; SALT_MAX],
    reserved_2: [u8; 168],
}

const _: () = assert!(size_of::<Raw>() == SUPERBLOCK_SIZE);

/// What the superblock of a seal says. Nothing vouches for it: a wrong one gives a wrong root hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The parameters.
    pub params: Params,
    /// Blocks of data.
    pub data_blocks: u64,
}

impl Superblock {
    /// As it lies on the device. The parameters are sound.
    pub(super) fn to_bytes(&self) -> [u8; SUPERBLOCK_SIZE] {
        let params = &self.params;
        let mut raw = Raw {
            signature: SIGNATURE,
            version: 1.into(),
            hash_type: 1.into(),
            uuid: params.uuid,
            algorithm: [0; 32],
            data_block_size: params.data_block.into(),
            hash_block_size: params.hash_block.into(),
            data_blocks: self.data_blocks.into(),
            salt_size: (params.salt.len() as u16).into(), // at most `SALT_MAX`
            reserved: [0; 6],
            salt: [0; SALT_MAX],
            reserved_2: [0; 168],
        };
        for (to, from) in raw.algorithm.iter_mut().zip(params.algorithm.name().bytes()) {
            *to = from;
        }
        for (to, from) in raw.salt.iter_mut().zip(&params.salt) {
            *to = *from;
        }
        let mut bytes = [0; SUPERBLOCK_SIZE];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }
}

/// Reads the superblock at the start of `tree`.
///
/// # Errors
/// `NoSeal` where there is none, or one that is not understood; the device's.
pub fn read_superblock(tree: &dyn BlockDevice) -> Result<Superblock> {
    let broken = |what| Err(Error::NoSeal(what));
    let mut raw = Raw::new_zeroed();
    if tree.size() < SUPERBLOCK_SIZE as u64 {
        return broken(format!("{} bytes hold none", tree.size()));
    }
    tree.read_at(0, raw.as_mut_bytes())?;
    if raw.signature != SIGNATURE {
        return broken("there is no superblock of dm-verity".into());
    }
    if (raw.version.get(), raw.hash_type.get()) != (1, 1) {
        let (version, kind) = (raw.version, raw.hash_type);
        return broken(format!("version {version} with hash type {kind} is not known, only 1 with 1"));
    }
    let name: Vec<u8> = raw.algorithm.iter().copied().take_while(|&byte| byte != 0).collect();
    let Some(algorithm) = core::str::from_utf8(&name).ok().and_then(Algorithm::from_name) else {
        return broken(format!("the hash function {} is not known", crate::manifest::quote(&name)));
    };
    let Some(salt) = raw.salt.get(..raw.salt_size.get().into()) else {
        return broken(format!("a salt of {} bytes", raw.salt_size));
    };
    let params = Params {
        algorithm,
        data_block: raw.data_block_size.get(),
        hash_block: raw.hash_block_size.get(),
        salt: salt.to_vec(),
        uuid: raw.uuid,
    };
    let data_blocks = raw.data_blocks.get();
    match Layout::new(&params, data_blocks) {
        Ok(_) => Ok(Superblock { params, data_blocks }),
        Err(error) => broken(format!("{error}")),
    }
}
