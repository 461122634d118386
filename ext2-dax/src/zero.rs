//! Zeroing bytes that a file keeps (`dax_zero_range`, `dax_truncate_page`).
//!
//! Holes are passed over whole; nothing is allocated. Whole pages are zeroed by the device, which heals
//! poison; parts of pages are stored to and written back. Either way the next fence orders it.

use crate::entry::PAGE_SIZE;
use crate::error::{BadMapping, Result};
use crate::fault::{DaxInode, device_page};
use crate::iomap::{MapKind, OpFlags};
use crate::iter::{IomapIter, Step};

/// Makes bytes `pos..pos + len` read as zeros where blocks are. Returns how many bytes were stored to.
///
/// # Errors
/// The file system's or the device's; bytes before the failure are zero.
pub fn zero_range<I: DaxInode + ?Sized>(inode: &I, pos: u64, len: u64) -> Result<u64> {
    let mut iter = IomapIter::new(inode, pos, len, OpFlags::DAX | OpFlags::ZERO);
    let mut stored = 0;
    while iter.next()? {
        let (start, length) = (iter.pos(), iter.length());
        let Some(iomap) = iter.iomap() else { break };
        let step = match iomap.kind {
            MapKind::Hole | MapKind::Unwritten => Step::Done(length),
            MapKind::Mapped => match device_page(iomap, start).and_then(|page| {
                // The whole run is one range of the device.
                Ok(inode.memory().zero(page.byte() + start % PAGE_SIZE, length)?)
            }) {
                Ok(()) => {
                    stored += length;
                    Step::Done(length)
                }
                Err(error) => Step::Failed(error),
            },
            kind => Step::Failed(BadMapping::NotMapped(kind).into()),
        };
        iter.processed(step);
    }
    Ok(stored)
}

/// Zeros from `pos` to the end of its block of `block_size` bytes, so that nothing is behind the end of
/// the file. A position on a block boundary has nothing to zero (Linux once asked for a range of length
/// 0 there, and died).
///
/// # Errors
/// As for [`zero_range`].
pub fn truncate_page<I: DaxInode + ?Sized>(inode: &I, pos: u64, block_size: u64) -> Result<u64> {
    match pos.checked_rem(block_size) {
        None | Some(0) => Ok(0),
        Some(within) => zero_range(inode, pos, block_size - within),
    }
}
