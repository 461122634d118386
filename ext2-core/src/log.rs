//! A log of metadata: many changes reach the media together, all or none of them.
//!
//! A fence that waits for the media costs as much as the change that it orders. [`Logged`] is a device over a device that
//! has none of them: what the file system stores of its own structures is kept in memory, block by block, until a commit
//! writes all of it to a journal inside the image, and then in its place. The journal is that of ext3 (Linux: `fs/jbd2`), so
//! that `e2fsck -p` ends what a crash interrupted, and a kernel that does not know journals refuses the image until then.
//!
//! | what | how it gets to the media |
//! |---|---|
//! | contents of files | in place at once; durable before the commit of what points to them |
//! | everything else | into the log by a commit, then in place |
//! | contents of a block that was given up, or logged, shortly before | as everything else: see invariant 3 |
//!
//! A commit takes two flushes however much it holds. It happens when somebody asks for durability (all who wait share
//! the next one), when the log is as full as it may be, and whenever the owner says.
//!
//! # Invariants
//! 1. The device below never holds a store of the file system's own that no commit holds.
//! 2. A commit holds the stores up to one moment, in the order in which they were made, and none after it: it may come
//!    at any time but between [`hold`](BlockDevice::hold)s.
//! 3. A block that the last commit has as somebody's does not change in place before another commit has it as nobody's
//!    (`freed`), nor does one that a replay of the log would write (`live`).
//! 4. A commit is complete when its last block is durable, which is written when all else of it is.
//! 5. What a replay needs is not overwritten before it is durable in its place: at most three commits are in the log,
//!    each of at most a third of it.
//!
//! # Locking
//! `commit` before `state`. Calls of the device below are made under `commit` alone, but for loads that fill a block.

#[cfg(feature = "write")]
mod area;
#[cfg(feature = "write")]
mod batch;
#[cfg(feature = "write")]
mod brief;
#[cfg(feature = "write")]
mod logged;
mod replay;

#[cfg(feature = "write")]
pub(crate) use area::PatientHold;
#[cfg(feature = "write")]
pub(crate) use brief::Brief;
#[cfg(feature = "write")]
pub(crate) use logged::Logged;

use alloc::sync::Arc;

use blockdev::BlockDevice;
use ext2_format::journal as record;

use replay::recover;

/// The device as it is after what a crash left in a log of ours is replayed, in memory alone; the device itself where
/// there is nothing of the kind. For who reads an image without opening it.
///
/// # Errors
/// `Corrupt` for a journal that contradicts itself, the device's.
pub fn recovered(dev: Arc<dyn BlockDevice>) -> crate::Result<Arc<dyn BlockDevice>> {
    match recover(&*dev)? {
        Some(found) => Ok(Arc::new(found.over(dev)?)),
        None => Ok(dev),
    }
}

/// Replays what a crash left in a log of ours, in place: what opening for writing does first, for who writes to an image
/// without opening it. Nothing happens where there is no such log.
///
/// # Errors
/// `Corrupt` for a journal that contradicts itself, the device's.
#[cfg(feature = "write")]
pub fn replay(dev: &dyn BlockDevice) -> crate::Result<()> {
    if recover(dev)?.is_none() {
        return Ok(());
    }
    let _claim = dev.claim(0, dev.size())?;
    // Until it was claimed it may have been another's, who has ended the log and stored on.
    recover(dev)?.map_or(Ok(()), |found| found.apply(dev))
}
