//! Telling the device of blocks that nobody uses. Linux: `ext4_trim_fs`.

use core::ops::Range;

use crate::Ext2;
use crate::error::Result;

impl Ext2 {
    /// Discards the free blocks among `blocks` that lie in runs of `least` or more, group by group, so that the device may
    /// give their room back: what was removed, and is durably gone, is asked for first ([`sync`](Self::sync)). Gives
    /// how many blocks the runs have. Linux: `FITRIM`.
    ///
    /// # Errors
    /// `EROFS` where the file system is not open for writing, or is being closed; the device's.
    pub fn trim(&self, blocks: Range<u32>, least: u32) -> Result<u64> {
        self.sync()?;
        let (geo, size) = (self.geometry(), self.geometry().block_size.bytes());
        let mut trimmed = 0;
        for nr in geo.group_numbers() {
            let start = geo.group_start(nr);
            let within = |block: u32| block.saturating_sub(start).min(geo.group_len(nr));
            // One group after the other: a close waits for no trim, and is not kept from being clean by what is left of it.
            self.0.change_further(|| {
                // Nobody takes a block of the group meanwhile.
                let mut group = self.0.writer()?.groups.get(nr).lock();
                let Some(bitmap) = group.blocks(&self.0, nr)? else { return Ok(()) };
                for run in bitmap.free_runs(within(blocks.start)..within(blocks.end), least) {
                    let len = u64::from(run.end - run.start);
                    self.0.dev.discard(u64::from(start + run.start) * size, len * size)?;
                    trimmed += len;
                }
                Ok(())
            })?;
        }
        Ok(trimmed)
    }
}
