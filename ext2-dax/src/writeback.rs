//! Making what was stored through mappings durable (`dax_writeback_mapping_range`).
//!
//! # Invariant
//! For each entry, under its lock: write-protect in every address space, flush, then clean. A store
//! that comes between faults, waits for the entry, and marks it dirty again; so nothing is missed, and
//! a second write-back finds nothing. Memory that a lease lent for storing has no entry: it is written back each time
//! as long as it is lent, and once after.
//!
//! What somebody else is writing back is not written back: whoever finds it waits for the entry, or writes it too. So
//! a mark goes when the flush is done, and not before.

use blockdev::DaxDevice;
use ext2_core::sync::Mended;

use crate::entry::{Content, PAGE_SIZE};
use crate::error::Result;
use crate::mapping::DaxMapping;
use crate::trace::Event;
use crate::wait::Wake;

/// Writes back the dirty entries that touch the file pages `start..=end`, in order, and returns how many
/// there were; what leases lent is written back first. Where nothing at all is dirty nothing happens, and nothing is
/// traced.
///
/// # Errors
/// The device's, at the first entry that fails; that entry stays dirty.
pub fn writeback_range(mapping: &DaxMapping, device: &dyn DaxDevice, start: u64, end: u64) -> Result<u64> {
    if mapping.leases().has_unwritten() {
        mapping
            .leases()
            .write_back(&(start..end.saturating_add(1)), |byte, len| device.write_back(byte, len))?;
    }
    let after = end.saturating_add(1);
    if Mended::KeptTakenFirst.is_back() {
        write_stored(mapping, device, start, after)?;
        return write_entries(mapping, device, start, end);
    }
    let written = write_entries(mapping, device, start, end)?;
    // After the entries: what was stored to one that is taken away meanwhile is kept there before the entry goes.
    write_stored(mapping, device, start, after)?;
    Ok(written)
}

/// Writes back the dirty entries that touch the file pages `start..=end`.
fn write_entries(mapping: &DaxMapping, device: &dyn DaxDevice, start: u64, end: u64) -> Result<u64> {
    let after = end.saturating_add(1);
    if mapping.dirty_entries() == 0 {
        return Ok(0);
    }
    // Mark first: what is dirtied from now on is for the next write-back, so this one ends.
    for at in mapping.entries_in(start, after, |entry| entry.is_dirty()) {
        let mut shard = mapping.shard(at).lock();
        if let Some((_, entry)) = shard.find(at).filter(|(found, entry)| *found == at && entry.is_dirty()) {
            shard.put(at, entry.towrite());
        }
    }
    mapping.emit(|| Event::WritebackRange { start, end });
    let mut written = 0;
    for at in mapping.entries_in(start, after, |entry| entry.is_towrite()) {
        written += u64::from(writeback_one(mapping, device, at)?);
    }
    mapping.emit(|| Event::WritebackRangeDone { start, end });
    Ok(written)
}

/// Writes back what was stored to the file pages `start..after` without a fault. What cannot be written is kept.
pub(crate) fn write_stored(
    mapping: &DaxMapping,
    device: &dyn DaxDevice,
    start: u64,
    after: u64,
) -> Result<()> {
    for run in mapping.find_stored(start, after) {
        // OK to multiply: a mapping has no more bytes than addresses.
        device.write_back(run.device.byte(), run.count * PAGE_SIZE)?;
        mapping.forget_stored(run);
    }
    Ok(())
}

/// Writes back the entry at `at` if it still wants it.
fn writeback_one(mapping: &DaxMapping, device: &dyn DaxDevice, at: u64) -> Result<bool> {
    let mut shard = mapping.shard(at).lock();
    let entry = loop {
        match shard.find(at) {
            Some((found, entry)) if found == at && entry.is_locked() => shard = mapping.wait_for(shard, at),
            Some((found, entry)) if found == at && entry.is_towrite() => break entry,
            Some((found, _)) if found == at => {
                // Somebody else wrote it back. We may hold a wake-up: hand it on.
                drop(shard);
                mapping.wake(at, Wake::Next);
                return Ok(false);
            }
            _ => return Ok(false),
        }
    };
    let held = if Mended::MarkGoesFirst.is_back() { entry.not_towrite() } else { entry };
    shard.put(at, held.locked());
    drop(shard);

    let pages = entry.order().pages();
    mapping.write_protect(at, at + pages);
    let flushed = match entry.content() {
        Content::Page(first) => device.write_back(first.byte(), entry.order().bytes()),
        Content::Zero | Content::Empty => Ok(()),
    };

    let mut shard = mapping.shard(at).lock();
    if let Some((_, entry)) = shard.find(at) {
        let entry = entry.unlocked();
        // After an error it is still to be written: by who waits for it now, too.
        let entry = if flushed.is_ok() { entry.not_towrite() } else { entry };
        if flushed.is_ok() && entry.is_dirty() {
            mapping.count_dirty(-1);
            shard.put(at, entry.clean());
        } else {
            shard.put(at, entry);
        }
    }
    drop(shard);
    mapping.wake(at, Wake::Next);
    flushed?;
    mapping.emit(|| Event::WritebackOne { pgoff: at, pglen: pages });
    Ok(true)
}
