//! Bytes and holes of files.

use std::{collections::BTreeMap, ops::Range};

use ext2_core::{Errno, FileKind};
use ext2_dax::OpenFor;

use super::{Content, Id, Model, Verdict, Wanted};
use crate::sim::{Answer, Operation, Step, operation::Data};

const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;
/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;

fn no<T>(errno: Errno) -> Wanted<T> {
    Err(errno.into())
}

impl Model {
    pub(super) fn contents_step(&mut self, step: &Step, answer: &Answer) -> Verdict {
        use Operation as O;
        let actor = step.actor;
        match &step.operation {
            O::Read { of, at, len } | O::ReadPieces { of, at, len } => {
                let id = self.hand(actor, *of);
                self.same(answer, self.regular(id).map(|()| Answer::Bytes(self.read(id, *at, *len))))
            }
            O::Write { of, at, data } => {
                let id = self.hand(actor, *of);
                let wanted =
                    self.regular(id).and_then(|()| self.writable()).and_then(|()| self.fits(id, *at, *data));
                self.write(id, *at, *data, wanted, answer)
            }
            O::Truncate { of, size, wait } => {
                let id = self.hand(actor, *of);
                let wanted = self.regular(id).and_then(|()| self.cuttable(id));
                self.truncate(id, *size, *wait, wanted, answer)
            }
            O::Punch { of, at, len, wait } => {
                let id = self.hand(actor, *of);
                let wanted = self.regular(id).and_then(|()| self.cuttable(id));
                self.punch(id, *at, *len, *wait, wanted, answer)
            }
            O::Zero { of, at, len } => {
                let id = self.hand(actor, *of);
                let wanted = self.regular(id).and_then(|()| self.cuttable(id));
                self.zero(id, *at, *len, wanted, answer)
            }
            O::Fallocate { of, mode, at, len } => {
                let id = self.hand(actor, *of);
                let wanted = self.regular(id).and_then(|()| self.cuttable(id));
                match mode {
                    _ if *len == 0 => self.agree(answer, no(Errno::INVAL)).map(drop),
                    3 => self.punch(id, *at, *len, true, wanted, answer),
                    0x11 => self.zero(id, *at, *len, wanted, answer),
                    _ => self.agree(answer, no(Errno::OPNOTSUPP)).map(drop),
                }
            }
            O::SeekData { of, at } => self.same(answer, self.seek(self.hand(actor, *of), *at, true)),
            O::SeekHole { of, at } => self.same(answer, self.seek(self.hand(actor, *of), *at, false)),
            O::Extents { of } => self.same(answer, Ok(Answer::Ranges(self.ranges(self.hand(actor, *of))))),
            O::MapBlocks { of, at, len } => self.run(self.hand(actor, *of), *at, *len, answer),
            O::GiveUpWrite { at, len, .. } => {
                let first = at / self.block;
                let last = first + len.div_ceil(self.block).max(1);
                // Below the file interface nobody asks for the largest size: as far as pointers reach.
                let pointers = self.block / 4;
                let reach = 12 + pointers + pointers.pow(2) + pointers.pow(3);
                let wanted =
                    self.writable().and_then(|()| if last > reach { no(Errno::FBIG) } else { Ok(()) });
                let blocks = self.cost(at / self.block * self.block, (last - first) * self.block);
                self.agree_in(answer, wanted, blocks, 0).map(drop)
            }
            _ => self.dax_step(step, answer),
        }
    }

    pub(super) fn regular(&self, id: Id) -> Wanted {
        match self.node(id).kind {
            FileKind::Regular => Ok(()),
            FileKind::Directory => no(Errno::ISDIR),
            _ => no(Errno::INVAL),
        }
    }

    /// Whether contents may be taken from a file.
    pub(super) fn cuttable(&self, id: Id) -> Wanted {
        self.writable().and_then(|()| self.changeable(id))
    }

    /// Whether bytes may be written at an offset.
    pub(super) fn fits(&self, id: Id, at: u64, data: Data) -> Wanted {
        let node = self.node(id);
        match () {
            () if data.len == 0 => Ok(()),
            () if node.flags & IMMUTABLE != 0 => no(Errno::PERM),
            () if node.flags & APPEND != 0 && at != node.size() => no(Errno::PERM),
            () if at >= self.max_size => no(Errno::FBIG),
            () => Ok(()),
        }
    }

    /// Blocks that a range may take, with those that lead to it.
    pub(super) fn cost(&self, at: u64, len: u64) -> u64 {
        let (first, end) = (at / self.block, (at + len).div_ceil(self.block));
        let (blocks, pointers) = (end - first, self.block / 4);
        // Two paths have an indirect block more where they part at the third level, or before it.
        let third = 12 + pointers + pointers * pointers;
        let part = |block: u64| block.checked_sub(third).map(|within| within / (pointers * pointers));
        let parted = u64::from(part(first) != part(end.max(1) - 1));
        blocks + 4 + parted + blocks / pointers
    }

    pub(super) fn blocks(&self, id: Id) -> (u64, &BTreeMap<u64, Vec<u8>>) {
        match &self.node(id).content {
            Content::File(size, blocks) => (*size, blocks),
            _ => panic!("the caller has a regular file"),
        }
    }

    pub(super) fn blocks_mut(&mut self, id: Id) -> (&mut u64, &mut BTreeMap<u64, Vec<u8>>) {
        match &mut self.node_mut(id).content {
            Content::File(size, blocks) => (size, blocks),
            _ => panic!("the caller has a regular file"),
        }
    }

    /// Bytes from an offset on, up to the end of the file.
    #[must_use]
    pub fn read(&self, id: Id, at: u64, len: u32) -> Vec<u8> {
        let (size, _) = self.blocks(id);
        let end = size.min(at.saturating_add(u64::from(len)));
        self.stored(id, at..end.max(at))
    }

    /// Bytes of a range, whatever the size.
    pub(super) fn stored(&self, id: Id, range: Range<u64>) -> Vec<u8> {
        let (_, blocks) = self.blocks(id);
        let mut bytes = vec![0; (range.end - range.start) as usize];
        for (nr, block) in blocks.range(range.start / self.block..range.end.div_ceil(self.block)) {
            let start = nr * self.block;
            let (from, to) = (range.start.max(start), range.end.min(start + self.block));
            bytes[(from - range.start) as usize..(to - range.start) as usize]
                .copy_from_slice(&block[(from - start) as usize..(to - start) as usize]);
        }
        bytes
    }

    /// Puts bytes; blocks come into being where they are touched.
    pub(super) fn put(&mut self, id: Id, at: u64, bytes: &[u8]) {
        let block = self.block;
        let (_, blocks) = self.blocks_mut(id);
        let mut done = 0;
        while done < bytes.len() {
            let place = at + done as u64;
            let within = (place % block) as usize;
            let len = (bytes.len() - done).min(block as usize - within);
            let into = blocks.entry(place / block).or_insert_with(|| vec![0; block as usize]);
            into[within..within + len].copy_from_slice(&bytes[done..done + len]);
            done += len;
        }
    }

    /// A write of which so many bytes are reported.
    pub(super) fn write(&mut self, id: Id, at: u64, data: Data, wanted: Wanted, answer: &Answer) -> Verdict {
        self.write_bytes(id, at, &data.bytes(at), wanted, answer)
    }

    /// The same with bytes that are those of another place.
    pub(super) fn write_bytes(
        &mut self,
        id: Id,
        at: u64,
        bytes: &[u8],
        wanted: Wanted,
        answer: &Answer,
    ) -> Verdict {
        let len = bytes.len() as u64;
        let now = self.now;
        let cost = self.cost(at, len);
        if !self.agree_in(answer, wanted, cost, 0)? {
            if wanted.is_ok() {
                self.node_mut(id).perhaps_modified(now);
            }
            return Ok(());
        }
        let Answer::Number(put) = *answer else { return Err(format!("{answer:?}")) };
        let most = len.min(self.max_size.saturating_sub(at));
        if put > most || put < most && (put == 0 || self.room.blocks >= cost) {
            return Err(format!("{put} of {most} bytes were written, with {:?} free", self.room));
        }
        if put > 0 {
            self.grow(id, at + put);
            self.put(id, at, &bytes[..put as usize]);
            self.node_mut(id).modified(now);
        }
        Ok(())
    }

    /// Raises the size; what lay past the end is zero then.
    pub(super) fn grow(&mut self, id: Id, end: u64) {
        let block = self.block;
        let (size, blocks) = self.blocks_mut(id);
        if end > *size {
            if let Some(last) = blocks.get_mut(&(*size / block)) {
                last[(*size % block) as usize..].fill(0);
            }
            *size = end;
        }
    }

    /// Whether a lease is in the way of taking a range of bytes: one of the caller's own thread, or another's.
    fn leased(&self, id: Id, range: &Range<u64>, own: bool) -> bool {
        let touched = range.start / PAGE..range.end.div_ceil(PAGE);
        let mut leases =
            (0..).zip(&self.actors).filter(|(actor, _)| own == (*actor == self.actor || !self.has_threads));
        leases.any(|(_, held)| {
            held.leases.iter().flatten().any(|(leased, bytes)| {
                let pages = bytes.start / PAGE..bytes.end.div_ceil(PAGE);
                *leased == id && pages.start < touched.end && touched.start < pages.end
            })
        })
    }

    /// The same question of an answer: what does not wait, and what would wait for itself, is refused with `EBUSY`; the
    /// rest is not done before the lease is given back.
    fn agree_leased(
        &self,
        answer: &Answer,
        wanted: Wanted,
        id: Id,
        range: &Range<u64>,
        wait: bool,
    ) -> Result<bool, String> {
        if wanted.is_ok() && self.is_dax() && range.start < range.end {
            if self.leased(id, range, true) || !wait && self.leased(id, range, false) {
                return self.agree(answer, no(Errno::BUSY));
            }
            if self.leased(id, range, false) {
                return Err("it did not wait for a lease".to_owned());
            }
        }
        self.agree(answer, wanted)
    }

    pub(super) fn truncate(
        &mut self,
        id: Id,
        new: u64,
        wait: bool,
        wanted: Wanted,
        answer: &Answer,
    ) -> Verdict {
        let wanted = wanted.and_then(|()| if new > self.max_size { no(Errno::FBIG) } else { Ok(()) });
        // A file that grows takes nothing from who leases it.
        let size = self.node(id).size();
        let gone = if new < size { new..size } else { 0..0 };
        if !self.agree_leased(answer, wanted, id, &gone, wait)? {
            return Ok(());
        }
        let (now, block) = (self.now, self.block);
        self.grow(id, new);
        let (size, blocks) = self.blocks_mut(id);
        blocks.retain(|nr, _| *nr < new.div_ceil(block));
        if new < *size
            && let Some(last) = blocks.get_mut(&(new / block))
        {
            last[(new % block) as usize..].fill(0);
        }
        *size = new;
        self.node_mut(id).modified(now);
        self.drop_copies(id, new.div_ceil(PAGE));
        Ok(())
    }

    /// Makes whole blocks of a range holes, and the rest of it zeros. A range that reaches past the end of the file
    /// covers the last block.
    pub(super) fn punch(
        &mut self,
        id: Id,
        at: u64,
        len: u64,
        wait: bool,
        wanted: Wanted,
        answer: &Answer,
    ) -> Verdict {
        let size = if wanted.is_ok() { self.node(id).size() } else { 0 };
        let asked = at.saturating_add(len);
        if !self.agree_leased(answer, wanted, id, &(at..asked.min(size)), wait)? || at >= asked.min(size) {
            return Ok(());
        }
        let (now, block) = (self.now, self.block);
        let end = if asked > size { size.next_multiple_of(block) } else { asked };
        let (_, blocks) = self.blocks_mut(id);
        blocks.retain(|nr, _| nr * block < at || (nr + 1) * block > end);
        self.clear(id, at..end);
        self.node_mut(id).modified(now);
        Ok(())
    }

    pub(super) fn zero(&mut self, id: Id, at: u64, len: u64, wanted: Wanted, answer: &Answer) -> Verdict {
        let size = if wanted.is_ok() { self.node(id).size() } else { 0 };
        let end = at.saturating_add(len).min(size);
        if self.agree(answer, wanted)? && at < end {
            let now = self.now;
            self.clear(id, at..end);
            self.node_mut(id).modified(now);
        }
        Ok(())
    }

    /// Makes what is there of a range zeros.
    fn clear(&mut self, id: Id, range: Range<u64>) {
        let block = self.block;
        let (_, blocks) = self.blocks_mut(id);
        for (nr, bytes) in blocks.range_mut(range.start / block..range.end.div_ceil(block)) {
            let (from, to) = (range.start.max(nr * block), range.end.min((nr + 1) * block));
            bytes[(from - nr * block) as usize..(to - nr * block) as usize].fill(0);
        }
    }

    /// Where the next data, or hole, is.
    pub(super) fn seek(&self, id: Id, at: u64, data: bool) -> Wanted<Answer> {
        let (size, blocks) = self.blocks(id);
        if at >= size {
            return no(Errno::NXIO);
        }
        let last = (size - 1) / self.block;
        let first = at / self.block;
        let found = if data {
            blocks.range(first..=last).next().map(|(nr, _)| *nr)
        } else {
            let mut nr = first;
            while nr <= last && blocks.contains_key(&nr) {
                nr += 1;
            }
            Some(nr).filter(|nr| *nr <= last)
        };
        match found {
            Some(nr) => Ok(Answer::Number(at.max(nr * self.block))),
            None if data => no(Errno::NXIO),
            None => Ok(Answer::Number(size)),
        }
    }

    /// What is data of a file, up to its end.
    pub(in crate::sim) fn ranges(&self, id: Id) -> Vec<Range<u64>> {
        let (size, blocks) = self.blocks(id);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for nr in blocks.range(..size.div_ceil(self.block)).map(|(nr, _)| *nr) {
            let (start, end) = (nr * self.block, (nr + 1) * self.block);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        ranges
    }

    /// The longest run from a block on is answered: of a hole all of it, of data as far as it lies together.
    fn run(&self, id: Id, at: u64, len: u64, answer: &Answer) -> Verdict {
        let (first, count) = (at / self.block, len.div_ceil(self.block).max(1));
        let Answer::Run(run, is_hole) = *answer else { return Err(format!("{answer:?}")) };
        let (_, blocks) = self.blocks(id);
        let there = |nr: u64| blocks.contains_key(&nr);
        // Past the last block that a file can have there is nothing but hole.
        let end = first + count;
        let longest = match blocks.range(first..end).next() {
            _ if there(first) => (first..end).take_while(|nr| there(*nr)).count() as u64,
            Some((nr, _)) => nr - first,
            None => count,
        };
        if is_hole == there(first) || run > longest || run == 0 || is_hole && run < longest {
            return Err(format!("{answer:?}, and the model has {longest} blocks, there: {}", there(first)));
        }
        Ok(())
    }

    /// What a mapping stored to a file: blocks that were there stay, those touched come, and others of the same 2 MiB
    /// may, where they are had whole.
    pub(super) fn adopt(&mut self, id: Id, touched: Range<u64>, ranges: &[Range<u64>]) -> Verdict {
        const UNIT: u64 = 2 << 20;
        let block = self.block;
        let units = touched.start / UNIT * UNIT..touched.end.next_multiple_of(UNIT);
        let mut all: Vec<u64> = Vec::new();
        for range in ranges {
            all.extend(range.start / block..range.end.div_ceil(block));
        }
        let (size, blocks) = self.blocks_mut(id);
        for &nr in &all {
            if !blocks.contains_key(&nr) && !(units.contains(&(nr * block))) {
                return Err(format!("block {nr} of the file came into being, and nobody touched it"));
            }
            blocks.entry(nr).or_insert_with(|| vec![0; block as usize]);
        }
        let end = size.div_ceil(block);
        if let Some(nr) = blocks.range(..end).map(|(nr, _)| *nr).find(|nr| !all.contains(nr)) {
            return Err(format!("block {nr} of the file is gone"));
        }
        Ok(())
    }

    /// What is refused to who opened a file for reading.
    pub(super) fn open_for_writing(open_for: OpenFor) -> Wanted {
        if open_for == OpenFor::Reading { no(Errno::BADF) } else { Ok(()) }
    }
}
