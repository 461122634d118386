//! Runs of blocks: held by a guard until they are in use, given back when their last pointer is gone.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::error::{Corrupt, Object, Result};
use crate::fs::Fs;
use crate::order::Durable;
use crate::{DeviceBlock, Error};

/// A contiguous run of blocks of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first block.
    pub(crate) start: DeviceBlock,
    /// Blocks, at least 1.
    pub(crate) len: u32,
}

impl Run {
    /// The `nr`-th block of the run.
    pub(crate) fn block(&self, nr: u32) -> u32 {
        // A run lies within the file system, whose block numbers fit.
        self.start.get() + nr
    }

    /// The part from the `from`-th block on, `len` blocks long.
    pub(crate) fn part(&self, from: u32, len: u32) -> Option<Self> {
        let start = self.start.checked_add(u64::from(from))?;
        (len > 0).then_some(Self { start, len })
    }
}

/// Blocks that are taken, but that nothing points to yet. Dropping it gives them back.
#[derive(Debug)]
#[must_use = "dropping it gives the blocks back"]
pub(crate) struct Blocks {
    fs: Arc<Fs>,
    runs: Vec<Run>,
}

impl Blocks {
    pub(crate) fn new(fs: &Arc<Fs>) -> Self {
        Self { fs: fs.clone(), runs: Vec::new() }
    }

    pub(crate) fn push(&mut self, run: Run) {
        self.runs.push(run);
    }

    /// Keeps them: something points to them now.
    pub(crate) fn keep(mut self) {
        self.runs.clear();
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        for run in self.runs.drain(..) {
            // Nothing ever pointed to them, so no fence is needed.
            if let Err(error) = self.fs.release(run) {
                log::error!("blocks could not be given back");
                self.fs.found_broken(&error);
            }
        }
    }
}

impl Fs {
    /// Frees a run whose last pointer is durably gone. Linux: `ext2_free_blocks`.
    pub(crate) fn free(&self, gone: &Durable<crate::order::Unlinked>, run: Run) -> Result<()> {
        let _ = gone.get();
        let size = self.geo.block_size.bytes();
        self.dev.freed(u64::from(run.block(0)) * size, u64::from(run.len) * size);
        self.release(run)
    }

    /// Clears the bits of a run, group by group. A block that was free already, or is the file system's
    /// own, is corrupt; the rest of its group's part stays taken, as all does of a group whose bitmap cannot be believed.
    /// For blocks that nothing ever pointed to.
    pub(crate) fn release(&self, run: Run) -> Result<()> {
        let groups = &self.writer()?.groups;
        let mut done = 0;
        while done < run.len {
            let block = run.block(done);
            let Some((nr, bit)) = self.geo.group_of_block(block) else {
                let what = format!("freed, but outside the file system of {} blocks", self.geo.blocks_count);
                return Err(Corrupt::new(Object::Block(block.into()), what).into());
            };
            let len = (run.len - done).min(self.geo.group_len(nr) - bit);
            let mut group = groups.get(nr).lock();
            let own =
                group.own_blocks(self, nr).into_iter().any(|own| own.start < bit + len && bit < own.end);
            done += len;
            let Some(bitmap) = group.blocks(self, nr)? else {
                // They stay taken until e2fsck has said what the bitmap should be.
                continue;
            };
            if own || bitmap.count_free(bit..bit + len) != 0 {
                let what = format!("{len} blocks from here are freed, but some are free or not a file's");
                return Err(Error::Corrupt(Corrupt::new(Object::Block(block.into()), what)));
            }
            bitmap.fill(bit..bit + len, false);
            groups.count_blocks(nr, &mut group, -i64::from(len));
        }
        self.writer()?.place.freed();
        Ok(())
    }
}
