//! What is free before a rewrite and after it, and where blocks that move go.
//!
//! # Invariants
//! A block that is given away is free in both: so that writing it changes nothing of the old image, and it is nobody
//! else's in the new one. What is free in both only becomes less, and no search begins at the start again. Only
//! [`Space::take_freed`] gives away blocks that the rewrite itself frees: they may be written through the log alone.

use alloc::vec::Vec;
use core::cell::OnceCell;

use blockdev::BlockDevice;
use ext2_core::raw::RawGroupDesc;
use ext2_core::{Geometry, GroupNr, Result};

use crate::UNIT;

/// The block bitmaps of an image before and after.
pub(crate) struct Space<'d> {
    dev: &'d dyn BlockDevice,
    old: Geometry,
    new: Geometry,
    descs: Vec<RawGroupDesc>,
    before: Vec<OnceCell<Vec<u8>>>,
    after: Vec<Option<Vec<u8>>>,
    /// Blocks of a unit of 2 MiB, and how many blocks behind a multiple of that block 0 lies in memory.
    unit: u32,
    bias: u32,
    next_unit: u32,
    /// Where small runs are looked for: in units that are broken, and then anywhere.
    next_small: [u32; 2],
    next_freed: u32,
}

fn get(bitmap: &[u8], bit: u32) -> bool {
    bitmap.get((bit / 8) as usize).is_some_and(|byte| byte >> (bit % 8) & 1 != 0)
}

/// Sets or clears the bits `from..to`.
pub(crate) fn fill(bitmap: &mut [u8], from: u32, to: u32, set: bool) {
    let mut bit = from;
    while bit < to {
        let Some(byte) = bitmap.get_mut((bit / 8) as usize) else { return };
        let (shift, count) = (bit % 8, (to - bit).min(8 - bit % 8));
        // OK to cast: of 8 bits.
        let mask = ((((1_u16 << count) - 1) << shift) & 0xff) as u8;
        *byte = if set { *byte | mask } else { *byte & !mask };
        bit += count;
    }
}

impl<'d> Space<'d> {
    /// `bias` is how many bytes behind a multiple of 2 MiB of memory the file system begins.
    pub(crate) fn new(
        dev: &'d dyn BlockDevice,
        old: &Geometry,
        new: &Geometry,
        descs: &[RawGroupDesc],
        bias: u64,
    ) -> Self {
        let size = new.block_size.bytes();
        let groups = old.groups.max(new.groups) as usize;
        let first = new.first_data_block + 1;
        // Where the file system does not begin at a block of memory, no unit of it does.
        let unit = if bias.is_multiple_of(size) { (UNIT / size) as u32 } else { 0 };
        Self {
            dev,
            old: old.clone(),
            new: new.clone(),
            descs: descs.to_vec(),
            before: alloc::vec![OnceCell::new(); old.groups as usize],
            after: alloc::vec![None; groups],
            unit,
            bias: (bias / size) as u32,
            next_unit: first,
            next_small: [first; 2],
            next_freed: first,
        }
    }

    /// Blocks of a unit; 0 where there are none.
    pub(crate) fn unit(&self) -> u32 {
        self.unit
    }

    /// The first block of a unit at or behind a block.
    pub(crate) fn unit_at(&self, block: u32) -> u32 {
        match self.unit {
            0 => u32::MAX,
            unit => {
                let past = (u64::from(block) + u64::from(self.bias)) % u64::from(unit);
                block.saturating_add(if past == 0 { 0 } else { unit - past as u32 })
            }
        }
    }

    /// The bitmap of a group of the old image.
    pub(crate) fn old_bitmap(&self, group: u32) -> Result<Option<&[u8]>> {
        let Some(cell) = self.before.get(group as usize) else { return Ok(None) };
        if let Some(bitmap) = cell.get() {
            return Ok(Some(bitmap));
        }
        let mut bitmap = alloc::vec![0; self.old.block_size.len()];
        if let Some(desc) = self.descs.get(group as usize) {
            let at = u64::from(desc.bg_block_bitmap.get()) << self.old.block_size.log2();
            self.dev.read_at(at, &mut bitmap)?;
        }
        let _ = cell.set(bitmap);
        Ok(cell.get().map(Vec::as_slice))
    }

    /// Whether a block is in use in the old image.
    pub(crate) fn is_used_before(&self, block: u32) -> Result<bool> {
        if block < self.old.first_data_block {
            return Ok(true);
        }
        let Some((group, bit)) = self.old.group_of_block(block) else { return Ok(false) };
        Ok(self.old_bitmap(group.get())?.is_some_and(|bitmap| get(bitmap, bit)))
    }

    /// The bitmap of a group in the new image.
    pub(crate) fn after_mut(&mut self, group: u32) -> Result<&mut Vec<u8>> {
        let index = group as usize;
        if self.after.get(index).is_some_and(Option::is_none) {
            let len = self.new.block_size.len();
            let mut bitmap = match self.old_bitmap(group)? {
                Some(old) => old.to_vec(),
                None => alloc::vec![0; len],
            };
            let of = |geo: &Geometry| {
                if group < geo.groups { geo.group_len(GroupNr::new(group)) } else { 0 }
            };
            // What is new is free, and the rest of a bitmap is set.
            let (old, new) = (of(&self.old), of(&self.new));
            fill(&mut bitmap, old.min(new), new, false);
            fill(&mut bitmap, new, (len * 8) as u32, true);
            self.after[index] = Some(bitmap);
        }
        match self.after.get_mut(index) {
            Some(Some(bitmap)) => Ok(bitmap),
            _ => Err(blockdev::Error::Unsupported("a group past the last").into()),
        }
    }

    /// The new bitmap of a group, if it was asked for.
    pub(crate) fn after(&self, group: u32) -> Option<&[u8]> {
        self.after.get(group as usize).and_then(Option::as_deref)
    }

    /// Whether a block is in use in the new image; none past its end is.
    pub(crate) fn is_used_after(&self, block: u32) -> Result<bool> {
        if block < self.new.first_data_block {
            return Ok(true);
        }
        let Some((group, bit)) = self.new.group_of_block(block) else { return Ok(false) };
        match self.after(group.get()) {
            Some(bitmap) => Ok(get(bitmap, bit)),
            None if group.get() < self.old.groups && bit < self.old.group_len(group) => {
                self.is_used_before(block)
            }
            None => Ok(false),
        }
    }

    /// Marks blocks as in use in the new image, or as free.
    pub(crate) fn mark(&mut self, start: u32, len: u32, used: bool) -> Result<()> {
        let (mut at, end) = (start, start.saturating_add(len));
        while at < end {
            let Some((group, bit)) = self.new.group_of_block(at) else { break };
            let count = (end - at).min(self.new.group_len(group) - bit);
            fill(self.after_mut(group.get())?, bit, bit + count, used);
            at += count;
        }
        Ok(())
    }

    /// The first block of a range that the old image has in use.
    pub(crate) fn next_used(&self, from: u32, to: u32) -> Result<Option<u32>> {
        let mut block = from;
        while block < to {
            let Some((group, bit)) = self.old.group_of_block(block) else { return Ok(None) };
            let bitmap = self.old_bitmap(group.get())?.unwrap_or_default();
            let end = self.old.group_len(group).min(bit.saturating_add(to - block));
            let mut at = bit;
            while at < end {
                let byte = bitmap.get((at / 8) as usize).copied().unwrap_or(0) >> (at % 8);
                if byte == 0 {
                    at += 8 - at % 8;
                    continue;
                }
                at += byte.trailing_zeros();
                if at < end {
                    return Ok(Some(block + (at - bit)));
                }
            }
            block += end - bit;
        }
        Ok(None)
    }

    /// Whether a block of the new image is free before and after.
    pub(crate) fn is_free(&self, block: u32) -> Result<bool> {
        Ok(block < self.new.blocks_count && !self.is_used_before(block)? && !self.is_used_after(block)?)
    }

    fn is_unit_free(&self, start: u32) -> Result<bool> {
        let Some(end) = start.checked_add(self.unit) else { return Ok(false) };
        if end > self.new.blocks_count {
            return Ok(false);
        }
        // Most are ruled out by what was in use before.
        if self.next_used(start, end)?.is_some() {
            return Ok(false);
        }
        for block in start..end {
            if !self.is_free(block)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes a whole unit that is free, if there is one.
    pub(crate) fn take_unit(&mut self) -> Result<Option<u32>> {
        loop {
            let start = self.unit_at(self.next_unit);
            if self.unit == 0 || start >= self.new.blocks_count {
                return Ok(None);
            }
            self.next_unit = start + self.unit;
            if self.is_unit_free(start)? {
                self.mark(start, self.unit, true)?;
                return Ok(Some(start));
            }
        }
    }

    /// Takes at most `most` blocks in a row, where no whole unit is broken for it as long as there is another place.
    pub(crate) fn take_small(&mut self, most: u32) -> Result<Option<(u32, u32)>> {
        for anywhere in [false, true] {
            if let Some(run) = self.search_small(most, anywhere)? {
                return Ok(Some(run));
            }
        }
        Ok(None)
    }

    /// As [`take_small`](Self::take_small), and never of a unit that is whole.
    pub(crate) fn take_broken(&mut self, most: u32) -> Result<Option<(u32, u32)>> {
        self.search_small(most, false)
    }

    /// Takes at most `most` blocks in a row that only the new image has free: what metadata had before. All of what is free in
    /// the new image has to be known by now.
    pub(crate) fn take_freed(&mut self, most: u32) -> Result<Option<(u32, u32)>> {
        while self.next_freed < self.new.blocks_count {
            let start = self.next_freed;
            let mut end = start;
            while end - start < most && end < self.new.blocks_count && !self.is_used_after(end)? {
                end += 1;
            }
            self.next_freed = end.max(start + 1);
            if end > start {
                self.mark(start, end - start, true)?;
                return Ok(Some((start, end - start)));
            }
        }
        Ok(None)
    }

    fn search_small(&mut self, most: u32, anywhere: bool) -> Result<Option<(u32, u32)>> {
        let cursor = usize::from(anywhere);
        while self.next_small[cursor] < self.new.blocks_count {
            let start = self.next_small[cursor];
            if !anywhere && self.unit != 0 && self.unit_at(start) == start && self.is_unit_free(start)? {
                self.next_small[cursor] = start + self.unit;
                continue;
            }
            if !self.is_free(start)? {
                self.next_small[cursor] = start + 1;
                continue;
            }
            let limit = if anywhere { u32::MAX } else { self.unit_at(start + 1) };
            let mut end = start + 1;
            while end - start < most && end < limit && self.is_free(end)? {
                end += 1;
            }
            self.next_small[cursor] = end;
            self.mark(start, end - start, true)?;
            return Ok(Some((start, end - start)));
        }
        Ok(None)
    }

    /// Blocks that are free in both images, for a log; at most `most`, in ascending order. Those behind the new image are taken first: of the old
    /// one, and of the device from byte `spill` on, if that is nobody's.
    pub(crate) fn for_log(&self, most: usize, spill: Option<u64>) -> Result<Vec<u32>> {
        let size = self.new.block_size.bytes();
        let all = u32::try_from(self.dev.size() / size).unwrap_or(u32::MAX);
        let (end, both) = (self.new.blocks_count, self.new.blocks_count.max(self.old.blocks_count));
        let spill = spill.and_then(|byte| u32::try_from(byte.div_ceil(size)).ok()).unwrap_or(u32::MAX);
        let behind = (end..both).chain(spill.max(both)..all);
        let mut found = Vec::new();
        for block in behind.chain((self.new.first_data_block + 1..end).rev()) {
            if found.len() >= most {
                break;
            }
            if !self.is_used_before(block)? && !self.is_used_after(block)? {
                found.push(block);
            }
        }
        // So that they are written in one go.
        found.sort_unstable();
        Ok(found)
    }

    /// Free blocks of a group in the new image, by its bitmap.
    pub(crate) fn count_free(&self, group: u32) -> Option<u32> {
        let bitmap = self.after(group)?;
        let len = self.new.group_len(GroupNr::new(group));
        let whole = (len / 8) as usize;
        let used: u32 = bitmap.iter().take(whole).map(|byte| byte.count_ones()).sum();
        let rest = bitmap.get(whole).map_or(0, |byte| (byte & ((1_u16 << (len % 8)) - 1) as u8).count_ones());
        Some(len - used - rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_bits_are_set_and_cleared_and_nothing_beside_them() {
        for from in 0..20 {
            for to in from..33 {
                let mut bits = [0_u8; 5];
                fill(&mut bits, from, to, true);
                let set = (0..40).filter(|&bit| get(&bits, bit)).collect::<Vec<_>>();
                assert_eq!(set, (from..to).collect::<Vec<_>>());
                let mut bits = [0xff_u8; 5];
                fill(&mut bits, from, to, false);
                let clear = (0..40).filter(|&bit| !get(&bits, bit)).collect::<Vec<_>>();
                assert_eq!(clear, (from..to).collect::<Vec<_>>());
            }
        }
    }
}
