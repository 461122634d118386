//! Sealing: a tree of hashes over a device, with which the kernel (dm-verity) refuses every block that was changed.
//!
//! The bytes are those of `veritysetup format`: a superblock, then the levels of the tree, the root's first. One
//! number, the root hash, vouches for all of it; it is kept elsewhere (on the kernel's command line, in a signature).
//!
//! # Invariants
//! 1. The same data and [`Params`] give the same tree, whatever the number of threads.
//! 2. Memory is bounded: a MiB and a block of hashes for each thread, whatever the size of the device.
//! 3. [`verify`] believes nothing of a tree that the root hash does not vouch for, and ends for any.
//!
//! No locks that a caller would see; with `std` several threads hash.
//!
//! ```
//! use ext2_image::seal::{Params, data_blocks, read_superblock, seal, verify};
//!
//! let image = ext2_image::mkfs::in_memory(1 << 20)?;
//! let tree = blockdev::RamDevice::new(1 << 20)?;
//! let params = Params::default();
//! let root = seal(&image, data_blocks(1 << 20, &params), &tree, &params, &|_| ())?;
//! let broken = verify(&image, &tree, &read_superblock(&tree)?, &root, &|_| (), &mut |_| ())?;
//! assert_eq!(broken, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
#[cfg(feature = "std")]
mod file;
mod hash;
mod layout;
mod params;
mod superblock;
mod verify;
mod work;

use alloc::vec::Vec;

use blockdev::BlockDevice;

pub use error::{Error, Result};
#[cfg(feature = "std")]
pub use file::{
    Behind, Extent, Sealed, data_blocks, extent_of, find_seal, look_behind, place_behind, seal_behind,
    seal_file,
};
pub use hash::Algorithm;
pub use layout::{Layout, Level};
pub use params::{Params, hex, parse_hex};
pub use superblock::{SUPERBLOCK_SIZE, Superblock, read_superblock};
pub use verify::{Broken, verify};

use work::{Input, Task};

/// Writes superblock and tree for the first `data_blocks` blocks of `data` to the start of `tree`, and gives the root
/// hash. What `tree` had there is overwritten; [`Layout::bytes`] says how much it takes.
///
/// `progress` hears how many bytes were hashed since it was called last; several threads call it.
///
/// # Errors
/// `Params`; `TooSmall` where `data` or `tree` has no room; the devices'.
pub fn seal(
    data: &dyn BlockDevice,
    data_blocks: u64,
    tree: &dyn BlockDevice,
    params: &Params,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Vec<u8>> {
    let layout = Layout::new(params, data_blocks)?;
    layout.check_room(data.size(), tree.size())?;
    let superblock = Superblock { params: params.clone(), data_blocks };
    // The whole block, so that nothing old is left between the superblock and the tree.
    let mut first = alloc::vec![0; params.hash_block as usize];
    if let Some(start) = first.get_mut(..SUPERBLOCK_SIZE) {
        start.copy_from_slice(&superblock.to_bytes());
    }
    tree.write_at(0, &first)?;
    for (nr, level) in layout.levels().iter().enumerate() {
        let input = input(data, tree, &layout, nr);
        let task = Task { params, input, level, progress };
        task.run(&|block, hashes| {
            Ok(tree.write_at(level.offset + block * u64::from(params.hash_block), hashes)?)
        })?;
    }
    tree.flush()?;
    root(data, tree, &layout, params)
}

/// What the level `nr` of the tree, counted from the data, is the hashes of.
fn input<'d>(data: &'d dyn BlockDevice, tree: &'d dyn BlockDevice, layout: &Layout, nr: usize) -> Input<'d> {
    match nr.checked_sub(1).and_then(|below| layout.levels().get(below)) {
        None => Input { device: data, offset: 0, blocks: layout.data_blocks(), block: layout.data_block() },
        Some(below) => {
            Input { device: tree, offset: below.offset, blocks: below.blocks, block: layout.hash_block() }
        }
    }
}

/// The hash of the topmost block: the only block of data where there is no tree.
fn root(data: &dyn BlockDevice, tree: &dyn BlockDevice, layout: &Layout, params: &Params) -> Result<Vec<u8>> {
    let top = input(data, tree, layout, layout.levels().len());
    let mut block = alloc::vec![0; top.block as usize];
    top.device.read_at(top.offset, &mut block)?;
    Ok(params.hasher().digest(&block).to_vec())
}
