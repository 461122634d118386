//! Sealing a file system in a file of the host.

use core::ops::Range;
use std::fs::File;

use ext2_core::raw::RawSuperblock;
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::{Error, Layout, Params, Result, SUPERBLOCK_SIZE, Superblock, read_superblock, seal};
use crate::FileRange;
use blockdev::BlockDevice;

/// A seal that was made, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sealed {
    /// The parameters.
    pub params: Params,
    /// Blocks of data.
    pub data_blocks: u64,
    /// The first byte of the superblock: counted from the start of the file system, or 0 in a file of its own.
    pub tree_offset: u64,
    /// Bytes of superblock and tree.
    pub tree_bytes: u64,
    /// The root hash.
    pub root: Vec<u8>,
}

impl Sealed {
    /// The line of a device-mapper table, as [`Params::table`], for devices of these names.
    #[must_use]
    pub fn table(&self, data: &str, tree: &str) -> String {
        self.params.table(self.data_blocks, data, tree, self.tree_offset, &self.root)
    }

    /// What the kernel's command line has to hold for the file system on `data` with the tree on `tree` to be the root
    /// (Linux: `drivers/md/dm-init.c`).
    #[must_use]
    pub fn command_line(&self, data: &str, tree: &str) -> String {
        format!("dm-mod.create=\"root,,,ro,{}\" root=/dev/dm-0 ro", self.table(data, tree))
    }
}

/// How many blocks of data a file system of `bytes` bytes has: the last may be part of a block.
#[must_use]
pub fn data_blocks(bytes: u64, params: &Params) -> u64 {
    bytes.div_ceil(params.data_block.into())
}

/// Where a tree lies that follows a file system of `bytes` bytes, and how many bytes it takes.
///
/// # Errors
/// `Params`.
pub fn place_behind(bytes: u64, params: &Params) -> Result<(u64, u64)> {
    let layout = Layout::new(params, data_blocks(bytes, params))?;
    let data = layout.data_blocks() * u64::from(params.data_block); // tried by the layout
    let offset = data.checked_next_multiple_of(params.hash_block.into());
    let offset = offset.filter(|offset| offset.checked_add(layout.bytes()).is_some());
    let offset = offset.ok_or_else(|| Error::Params(format!("{bytes} bytes are too many")))?;
    Ok((offset, layout.bytes()))
}

/// What the superblock of a file system says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of the file system.
    pub bytes: u64,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Whether it was unmounted cleanly.
    pub clean: bool,
}

/// What the superblock of the file system on a device says of it.
///
/// # Errors
/// That of `ext2-core` for a superblock that is none.
pub fn extent_of(device: &dyn BlockDevice) -> ext2_core::Result<Extent> {
    let mut raw = RawSuperblock::new_zeroed();
    device.read_at(1024, raw.as_mut_bytes())?;
    let superblock = ext2_core::Superblock::from_raw(&raw, device.size(), true)?;
    Ok(Extent {
        bytes: u64::from(superblock.blocks_count) * superblock.block_size.bytes(),
        uuid: superblock.uuid,
        clean: superblock.clean,
    })
}

/// What lies behind a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Behind {
    /// Nothing, or zeros.
    Nothing,
    /// A seal.
    Seal,
    /// Something else.
    Other,
}

/// The seal that lies behind the first `bytes` bytes of a device: its first byte, and its superblock.
///
/// # Errors
/// `NoSeal`; the device's.
pub fn find_seal(device: &dyn BlockDevice, bytes: u64) -> Result<(u64, Superblock)> {
    // Where it begins depends on the sizes of its blocks.
    let mut tried = None;
    let mut broken = Error::NoSeal("none lies behind the file system".into());
    for align in (9..=19).map(|shift| 1_u64 << shift) {
        let Some(at) = bytes.checked_next_multiple_of(align) else { break };
        if tried.replace(at) == Some(at) {
            continue;
        }
        let Some(rest) = device.size().checked_sub(at).filter(|&rest| rest >= SUPERBLOCK_SIZE as u64) else {
            break;
        };
        let behind = blockdev::Partition::new(device, at, rest)?;
        match read_superblock(&behind) {
            Ok(superblock) => return Ok((at, superblock)),
            // One that is there and not understood says more than that there is none.
            Err(error @ Error::NoSeal(_)) => {
                let mut signature = [0; 8];
                behind.read_at(0, &mut signature)?;
                if signature == *b"verity\0\0" {
                    broken = error;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(broken)
}

/// Where the seal of the first `bytes` bytes of a device lies that is behind them; none where there is none. One that says to be
/// of other data is none: nobody knows where it ends.
///
/// # Errors
/// The device's.
pub fn seal_behind(device: &dyn BlockDevice, bytes: u64) -> Result<Option<Range<u64>>> {
    let (at, seal) = match find_seal(device, bytes) {
        Ok(found) => found,
        Err(Error::NoSeal(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let is_whole = seal.data_blocks == data_blocks(bytes, &seal.params);
    let end =
        Layout::new(&seal.params, seal.data_blocks).ok().and_then(|layout| at.checked_add(layout.bytes()));
    Ok(end.filter(|_| is_whole).map(|end| at..end))
}

/// What lies behind the first `bytes` bytes of a device: as far as a seal with these parameters would reach. What lies behind a
/// seal that is there is not the seal's.
///
/// # Errors
/// `Params`, the device's.
pub fn look_behind(device: &dyn BlockDevice, bytes: u64, params: &Params) -> Result<Behind> {
    let old = seal_behind(device, bytes)?;
    let mut buffer = vec![0; 64 << 10];
    let (start, len) = place_behind(bytes, params)?;
    let end = device.size().min(start.saturating_add(len));
    let mut at = old.as_ref().map_or(bytes, |old| old.end);
    while at < end {
        let piece = (end - at).min(buffer.len() as u64) as usize;
        device.read_at(at, &mut buffer[..piece])?;
        if buffer[..piece].iter().any(|&byte| byte != 0) {
            return Ok(Behind::Other);
        }
        at += piece as u64;
    }
    Ok(if old.is_some() { Behind::Seal } else { Behind::Nothing })
}

/// Seals the `bytes` bytes of `file` from byte `start` on, with the tree behind them or at the start of another file.
/// Files are made as long as they have to be; `room` is what there is from `start` on where the file cannot grow (a
/// device, a partition).
///
/// # Errors
/// As [`seal`].
pub fn seal_file(
    file: &File,
    start: u64,
    bytes: u64,
    room: Option<u64>,
    tree: Option<&File>,
    params: &Params,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Sealed> {
    let (behind, tree_bytes) = place_behind(bytes, params)?;
    let data_blocks = data_blocks(bytes, params);
    let data_bytes = data_blocks * u64::from(params.data_block);
    let end = if tree.is_some() { data_bytes } else { behind + tree_bytes };
    match room {
        Some(given) if given < end => {
            let what = if tree.is_some() { "data" } else { "data and the hash tree" };
            return Err(Error::TooSmall { what, needed: end, given });
        }
        Some(_) => {}
        None => grow(file, start.saturating_add(end))?,
    }
    let data = FileRange::new(file, start, data_bytes);
    let (tree_offset, root) = match tree {
        None => {
            let tree = FileRange::new(file, start + behind, tree_bytes);
            (behind, seal(&data, data_blocks, &tree, params, progress)?)
        }
        Some(other) => {
            grow(other, tree_bytes)?;
            let tree = FileRange::new(other, 0, tree_bytes);
            (0, seal(&data, data_blocks, &tree, params, progress)?)
        }
    };
    Ok(Sealed { params: params.clone(), data_blocks, tree_offset, tree_bytes, root })
}

/// Gives a regular file at least a length.
fn grow(file: &File, len: u64) -> Result<()> {
    let io = |error: std::io::Error| {
        let (errno, message) = (error.raw_os_error(), error.to_string());
        Error::Device(blockdev::Error::Io { op: "resize", offset: len, errno, message })
    };
    let found = file.metadata().map_err(io)?;
    if found.is_file() && found.len() < len {
        file.set_len(len).map_err(io)?;
    }
    Ok(())
}
