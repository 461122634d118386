//! BLOCK_STATUS: what bytes are, without their contents.

use blockdev::{BlockDevice, Extent, Result};

use crate::proto::{STATE_HOLE, STATE_ZERO};

/// Extents of one answer at most.
const MAX_EXTENTS: usize = 1024;

/// The lengths and flags of what lies from `offset` on, at most `len` bytes of it.
pub(super) fn extents(
    device: &dyn BlockDevice,
    offset: u64,
    len: u32,
    only_one: bool,
) -> Result<Vec<(u32, u32)>> {
    let mut all: Vec<(u32, u32)> = Vec::new();
    let mut done = 0;
    while done < len {
        let (extent, run) = device.extent(offset + u64::from(done), u64::from(len - done))?;
        // OK to cast: at most what was asked for.
        let run = run.clamp(1, u64::from(len - done)) as u32;
        let flags = match extent {
            Extent::Data => 0,
            Extent::Zero => STATE_ZERO,
            Extent::Hole => STATE_ZERO | STATE_HOLE,
        };
        let full = !all.is_empty() && (only_one || all.len() == MAX_EXTENTS);
        match all.last_mut() {
            Some((last, same)) if *same == flags => *last += run,
            _ if full => break,
            _ => all.push((run, flags)),
        }
        done += run;
    }
    Ok(all)
}
