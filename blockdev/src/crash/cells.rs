//! The media while stores are in flight.
//!
//! # Invariants
//! 1. Between crash points every cell's choice is 0, and `media` is what is guaranteed to be there.
//! 2. `media` is at all times that guaranteed image with the first `chosen` units of each cell applied, and
//!    `fingerprint` the sum of the cells' hashes less that of the image at the beginning.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

use crate::Stored;

/// Bytes that are always stored whole.
const WORD: usize = 8;

/// A store's part of a cell.
#[derive(Clone, Debug)]
struct Unit {
    /// Which entry of the log stored it.
    op: usize,
    /// Where in the device.
    at: usize,
    /// Its bytes, in the arena.
    bytes: Range<usize>,
}

#[derive(Debug)]
pub(super) struct Cell {
    range: Range<usize>,
    /// What is guaranteed, as long as anything is in flight.
    settled: Box<[u8]>,
    units: Vec<Unit>,
    /// Units that `media` shows.
    chosen: usize,
    /// Units that the next fence settles.
    queued: usize,
    /// Hash of what `media` shows.
    hash: u64,
}

impl Cell {
    /// Units in flight.
    pub(super) fn len(&self) -> usize {
        self.units.len()
    }

    /// The log entry of each unit, in order.
    pub(super) fn ops(&self) -> impl Iterator<Item = usize> + '_ {
        self.units.iter().map(|unit| unit.op)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Cells {
    cell_len: usize,
    /// Bytes of the units that a bulk store is cut into.
    unit_len: usize,
    media: Vec<u8>,
    /// What the program sees: all stores done.
    newest: Vec<u8>,
    cells: Vec<Cell>,
    index: BTreeMap<usize, usize>,
    arena: Vec<u8>,
    fingerprint: u64,
    /// Cells that `media` may differ in from when [`forget_changes`](Self::forget_changes) was called.
    changed: Vec<Range<usize>>,
}

impl Cells {
    pub(super) fn new(base: &[u8], cell_len: usize, unit_len: usize) -> Self {
        Self {
            cell_len,
            unit_len,
            media: base.to_vec(),
            newest: base.to_vec(),
            cells: Vec::new(),
            index: BTreeMap::new(),
            arena: Vec::new(),
            fingerprint: 0,
            changed: Vec::new(),
        }
    }

    pub(super) fn media(&self) -> &[u8] {
        &self.media
    }

    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Ranges that `media` may differ in from when [`forget_changes`](Self::forget_changes) was called.
    pub(super) fn changed(&self) -> &[Range<usize>] {
        &self.changed
    }

    /// From here on, changes are those of the media as they are now.
    pub(super) fn forget_changes(&mut self) {
        self.changed.clear();
    }

    pub(super) fn in_flight(&self) -> &[Cell] {
        &self.cells
    }

    /// Puts a store in flight; with `queue`, so that the next fence settles it. What lies outside the image
    /// is left out.
    pub(super) fn store(&mut self, op: usize, offset: u64, data: &Stored, queue: bool) {
        let size = self.media.len();
        let Ok(mut at) = usize::try_from(offset) else { return };
        let end = size.min(at.saturating_add(usize::try_from(data.len()).unwrap_or(usize::MAX)));
        let first = at;
        while at < end {
            let stop = end.min((at / self.unit_len + 1) * self.unit_len);
            match data {
                Stored::Bytes(bytes) => self.store_unit(op, at, &bytes[at - first..stop - first], queue),
                Stored::Zeros(_) => self.store_unit(op, at, &[0; 512][..stop - at], queue),
            }
            at = stop;
        }
    }

    fn store_unit(&mut self, op: usize, at: usize, bytes: &[u8], queue: bool) {
        let cell_at = at / self.cell_len * self.cell_len;
        let place = at..at + bytes.len();
        // A store of what is there anyway changes no state; but it writes back what was in flight before it.
        let same = self.newest[place.clone()] == *bytes;
        let found = self.index.get(&cell_at).copied();
        let number = match found {
            None if same => return,
            None => self.begin_flight(cell_at),
            Some(number) => number,
        };
        let cell = &mut self.cells[number];
        if !same {
            self.newest[place].copy_from_slice(bytes);
            let start = self.arena.len();
            self.arena.extend_from_slice(bytes);
            cell.units.push(Unit { op, at, bytes: start..self.arena.len() });
        }
        if queue {
            cell.queued = cell.units.len();
        }
    }

    fn begin_flight(&mut self, cell_at: usize) -> usize {
        let range = cell_at..self.media.len().min(cell_at + self.cell_len);
        let settled = Box::from(&self.media[range.clone()]);
        let hash = hash(cell_at, &settled);
        self.index.insert(cell_at, self.cells.len());
        self.cells.push(Cell { range, settled, units: Vec::new(), chosen: 0, queued: 0, hash });
        self.cells.len() - 1
    }

    /// Queues what is in flight in the cells of a range.
    pub(super) fn write_back(&mut self, offset: u64, len: u64) {
        let Ok(start) = usize::try_from(offset) else { return };
        if len == 0 {
            return;
        }
        let end = start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        let first = start / self.cell_len * self.cell_len;
        for (_, &number) in self.index.range(first..end) {
            let cell = &mut self.cells[number];
            cell.queued = cell.units.len();
        }
    }

    /// Settles what is queued.
    pub(super) fn fence(&mut self) {
        for number in 0..self.cells.len() {
            let queued = self.cells[number].queued;
            if queued == 0 {
                continue;
            }
            self.choose(number, queued);
            let cell = &mut self.cells[number];
            cell.settled.copy_from_slice(&self.media[cell.range.clone()]);
            cell.units.drain(..queued);
            cell.chosen = 0;
            cell.queued = 0;
        }
        self.cells.retain(|cell| !cell.units.is_empty());
        self.index = (0..).zip(&self.cells).map(|(number, cell)| (cell.range.start, number)).collect();
        if self.cells.is_empty() {
            self.arena.clear();
        }
    }

    /// Settles everything.
    pub(super) fn settle(&mut self) {
        self.cells.iter_mut().for_each(|cell| cell.queued = cell.units.len());
        self.fence();
    }

    /// Shows the first `count` units of a cell, in place of however many were shown.
    pub(super) fn choose(&mut self, number: usize, count: usize) {
        let cell = &mut self.cells[number];
        if count == cell.chosen {
            return;
        }
        let mut from = cell.chosen;
        if count < from {
            self.media[cell.range.clone()].copy_from_slice(&cell.settled);
            from = 0;
        }
        for unit in &cell.units[from..count] {
            let bytes = &self.arena[unit.bytes.clone()];
            self.media[unit.at..unit.at + bytes.len()].copy_from_slice(bytes);
        }
        cell.chosen = count;
        if self.changed.last() != Some(&cell.range) {
            self.changed.push(cell.range.clone());
        }
        let hash = hash(cell.range.start, &self.media[cell.range.clone()]);
        self.fingerprint = self.fingerprint.wrapping_add(hash).wrapping_sub(cell.hash);
        cell.hash = hash;
    }

    /// Shows the same of every cell.
    pub(super) fn choose_all(&mut self, mut count: impl FnMut(&Cell) -> usize) {
        for number in 0..self.cells.len() {
            let count = count(&self.cells[number]);
            self.choose(number, count);
        }
    }
}

/// A hash of a cell's place and contents, good enough to be summed.
fn hash(at: usize, bytes: &[u8]) -> u64 {
    const A: u64 = 0x2d35_8dcc_aa6c_78a5;
    const B: u64 = 0x8bb8_4b93_962e_acc9;
    let mix = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        // OK to cast: both halves are wanted.
        (product as u64) ^ (product >> 64) as u64
    };
    let mut state = mix(at as u64 ^ A, B);
    for word in bytes.chunks(WORD) {
        let mut whole = [0; WORD];
        whole[..word.len()].copy_from_slice(word);
        state = mix(state ^ u64::from_le_bytes(whole) ^ A, B ^ state.rotate_left(23));
    }
    mix(state ^ B, A)
}
