//! Making blocks reachable (Linux: `ext2_splice_branch`): contents first, then a fence, then pointers.

use alloc::vec;
use core::ops::Range;

use super::grow::Growth;
use super::spare::Spare;
use super::{Cell, Inode};
use crate::balloc::{Blocks, Run};
use crate::error::{Error, Result, refuse};
use crate::fs::change::OwnedChange;
use crate::map::Pointers;
use crate::order::{Barrier, Durable, Written};
use crate::space::Publisher;
use crate::{DeviceBlock, Errno, FileBlock};

/// New blocks of a file that nothing points to yet. Their contents are undefined. Dropping it gives them
/// back; what was stored in them is then lost, and nothing else is.
#[derive(Debug)]
#[must_use = "dropping it gives the blocks back"]
pub struct Unpublished {
    pub(super) inode: Inode,
    pub(super) start: u64,
    pub(super) run: Run,
    pub(super) blocks: Blocks,
    pub(super) spare: Spare,
    /// How many losses were known when they were given.
    pub(super) known: u32,
    /// Blocks that nobody has are taken as long as this is there.
    pub(super) change: OwnedChange,
}

impl Unpublished {
    /// Makes the blocks reachable that `written`, a byte range of the file, touches; the caller has filled that range, and the
    /// rest of those blocks is zeroed here. A fence separates contents and pointers. Blocks that `written` does not touch go
    /// back. Where somebody else gave the file a block meanwhile, the written bytes are copied into that one.
    ///
    /// # Errors
    /// `ENOSPC` for indirect blocks, `EROFS`, the device's: nothing is reachable then, or a first part.
    pub fn publish(self, written: Range<u64>) -> Result<()> {
        let fs = self.inode.0.fs.clone();
        fs.change_further(|| self.publish_in_change(written))
    }

    fn publish_in_change(self, written: Range<u64>) -> Result<()> {
        let cell = &*self.inode.0;
        let size = cell.fs.geo.block_size;
        let own = self.start * size.bytes()..(self.start + u64::from(self.run.len)) * size.bytes();
        let written = written.start.max(own.start)..written.end.min(own.end);
        if written.is_empty() {
            return Ok(());
        }
        let first = size.block_of(written.start).get();
        let end = size.blocks_for(written.end);
        let device = |offset: u64| size.bytes() * u64::from(self.run.block(0)) + (offset - own.start);
        let (head, tail) = (first * size.bytes(), end * size.bytes());
        if head < written.start {
            cell.fs.dev.zero_contents(device(head), written.start - head)?;
        }
        if written.end < tail {
            cell.fs.dev.zero_contents(device(written.end), tail - written.end)?;
        }
        let (inode, whole) = (self.inode.clone(), head..tail);
        let _telling = inode.0.space.tell();
        let done = self.publish_blocks(written, first, end);
        // Also after an error: a first part may be reachable.
        inode.0.space.published(whole, Publisher::Call);
        done
    }

    /// Stores the pointers to blocks `first..end` of the file, which are filled.
    fn publish_blocks(self, written: Range<u64>, first: u64, end: u64) -> Result<()> {
        let Self { inode, start, run, blocks, mut spare, known, change: _change } = self;
        let cell = &*inode.0;
        let size = cell.fs.geo.block_size;
        let part = |from: u64, to: u64| run.part((from - start) as u32, (to - from) as u32);
        let mut growth = cell.map.lock();
        // What nobody needs goes back when this is dropped; what is published is taken out of it.
        let mut rest = Blocks::new(&cell.fs);
        blocks.keep();
        for range in [(start, first), (end, start + u64::from(run.len))] {
            if let Some(part) = part(range.0, range.1) {
                rest.push(part);
            }
        }
        let mut at = first;
        while at < end {
            let there = match cell.map_blocks(FileBlock::new(at), end - at) {
                Ok(there) => there,
                Err(error) => {
                    part(at, end).into_iter().for_each(|part| rest.push(part));
                    return Err(error);
                }
            };
            let next = at + there.count;
            let Some(here) = part(at, next) else { break };
            let done = match there.target {
                None => {
                    let mut guard = Blocks::new(&cell.fs);
                    guard.push(here);
                    cell.publish(&mut growth, at, here, Written::since(known, guard), &mut spare)
                }
                Some(start) => {
                    rest.push(here);
                    let theirs = Run { start, len: here.len };
                    let range = written.start.max(at * size.bytes())..written.end.min(next * size.bytes());
                    let place =
                        |run: Run| u64::from(run.block(0)) * size.bytes() + (range.start - at * size.bytes());
                    cell.copy_on_device(place(here), place(theirs), range.end - range.start)
                }
            };
            if let Err(error) = done {
                part(next, end).into_iter().for_each(|part| rest.push(part));
                return Err(error);
            }
            at = next;
        }
        Ok(())
    }
}

impl Cell {
    /// Points block `start` of the file and those after it to a run, whose contents are written. The map
    /// has nothing there. One fence at least lies between contents and pointers.
    pub(crate) fn publish(
        &self,
        growth: &mut Growth,
        start: u64,
        run: Run,
        filled: Written<Blocks>,
        spare: &mut Spare,
    ) -> Result<()> {
        let guard = filled.fence(Barrier::Filled, &*self.fs)?.into_inner();
        let mut kept = Some(guard);
        let mut done = 0;
        while done < run.len {
            let at = start + u64::from(done);
            let rest = Run { start: run.start, len: run.len };
            let len = match self.publish_in_array(at, rest, done, spare) {
                Ok(len) => len,
                Err(error) => {
                    // What is reachable stays; the rest goes back.
                    if let Some(guard) = kept.take() {
                        guard.keep();
                    }
                    let mut back = Blocks::new(&self.fs);
                    if let Some(part) = run.part(done, run.len - done) {
                        back.push(part);
                    }
                    if matches!(error, Error::Device(_)) {
                        // Something may point to them, whatever the device answered: rather lost than given to two files.
                        back.keep();
                        self.fs.found_broken(&error);
                    }
                    self.count_blocks(i64::from(done));
                    return Err(error);
                }
            };
            done += len;
        }
        if let Some(guard) = kept {
            guard.keep();
        }
        self.count_blocks(i64::from(run.len));
        growth.last = Some((start + u64::from(run.len) - 1, run.block(run.len - 1)));
        Ok(())
    }

    /// Stores the pointers of one array, from block `at` of the file on; they name the run from its
    /// `done`-th block on. Returns how many.
    fn publish_in_array(&self, at: u64, run: Run, done: u32, spare: &mut Spare) -> Result<u32> {
        let shape = self.shape();
        let Some(path) = shape.path(at) else {
            return refuse(Errno::FBIG, "no pointer reaches that far");
        };
        let left = run.len - done;
        if path.depth == 0 {
            let len = left.min((crate::map::DIRECT - at) as u32);
            for nr in 0..len {
                self.store_root(path.slot + nr as usize, run.block(done + nr))?;
            }
            return Ok(len);
        }
        let leaf_index = shape.index(&path, path.depth);
        let len = left.min((shape.pointers() - leaf_index) as u32);
        // Down to the deepest indirect block that is there.
        let mut parent = None;
        let mut pointer = self.root(path.slot);
        let mut level = 1;
        while pointer != 0 && level <= path.depth {
            let block = self.pointed(pointer)?;
            parent = Some((block, shape.index(&path, level)));
            level += 1;
            if level <= path.depth {
                let mut next = [0];
                self.read(block, shape.index(&path, level - 1), &mut next)?;
                pointer = next[0];
            }
        }
        if level > path.depth
            && let Some((leaf, index)) = parent
        {
            self.store_pointers(leaf, index, run, done, len)?;
            return Ok(len);
        }
        // Levels `level..=depth` are missing: built from the leaf upwards, then pointed to.
        let (known, mut guard) = (self.fs.losses.count(), Blocks::new(&self.fs));
        let mut child = None;
        for missing in (level..=path.depth).rev() {
            let (block, taken) = spare.pop().map_or_else(|| self.take_meta(run.block(0)), Ok)?;
            taken.keep();
            guard.push(Run { start: block, len: 1 });
            let mut bytes = vec![0; self.fs.geo.block_size.len()];
            let index = shape.index(&path, missing) as usize;
            match child {
                None => {
                    for nr in 0..len {
                        put_pointer(&mut bytes, index + nr as usize, run.block(done + nr));
                    }
                }
                Some(child) => put_pointer(&mut bytes, index, child),
            }
            self.fs.dev.write_at(self.fs.geo.byte_of(block), &bytes)?;
            child = Some(block.get());
        }
        let top: Durable<(Blocks, u32)> = match child {
            Some(child) => Written::since(known, (guard, child)).fence(Barrier::IndirectBuilt, &*self.fs)?,
            None => return Err(self.corrupt("block map changed while it was read")),
        };
        let pointed = self.point_to(path.slot, parent, &top);
        // Kept also after an error: the pointer may be there.
        top.into_inner().0.keep();
        pointed?;
        self.count_blocks(i64::from(path.depth - level + 1));
        Ok(len)
    }

    /// Makes a subtree reachable: one store of 4 bytes.
    fn point_to(
        &self,
        slot: usize,
        parent: Option<(DeviceBlock, u64)>,
        top: &Durable<(Blocks, u32)>,
    ) -> Result<()> {
        match parent {
            None => self.store_root(slot, top.get().1),
            Some((block, index)) => {
                Ok(self.fs.dev.write_u32(self.fs.geo.byte_of(block) + 4 * index, top.get().1)?)
            }
        }
    }

    fn store_pointers(&self, leaf: DeviceBlock, index: u64, run: Run, done: u32, len: u32) -> Result<()> {
        let offset = self.fs.geo.byte_of(leaf) + 4 * index;
        if len == 1 {
            return Ok(self.fs.dev.write_u32(offset, run.block(done))?);
        }
        let mut words = [0; 256];
        for from in (0..len).step_by(words.len()) {
            let words = &mut words[..(len - from).min(256) as usize];
            words.iter_mut().zip(done + from..).for_each(|(word, nr)| *word = run.block(nr));
            self.fs.dev.write_words(offset + 4 * u64::from(from), words)?;
        }
        Ok(())
    }
}

fn put_pointer(block: &mut [u8], index: usize, pointer: u32) {
    if let Some(place) = block.get_mut(4 * index..4 * index + 4) {
        place.copy_from_slice(&pointer.to_le_bytes());
    }
}
