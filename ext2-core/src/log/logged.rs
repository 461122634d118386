//! The device that keeps what is stored of the file system's own structures until a commit.

mod alone;
mod commit;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use portable_atomic::AtomicU64;

use blockdev::{BlockDevice, Error, Media, Result};

use crate::sync::{
    Mended, Mutex, Rank, RwLock, begin_or_end_patient, begin_or_end_whole, is_patient, may_wait,
};
use commit::Committer;
pub(super) use commit::ENDURANCE;
use ext2_cache::RunSet;

/// Bits of the filter that says which blocks may be in memory: a hash of one, 32 KiB together.
const FILTER: usize = 1 << 18;

/// The most blocks that are taken by one look at the room there is.
const MOST_AT_ONCE: usize = 32;

/// A device whose metadata goes through a log, once that has begun; until then, and after its end, the device below.
#[derive(Debug)]
pub(crate) struct Logged {
    inner: Arc<dyn BlockDevice>,
    block: u64,
    on: AtomicBool,
    /// The blocks that are in memory have their bits set, and others may.
    filter: Vec<AtomicU64>,
    state: RwLock<State>,
    commit: Mutex<Committer>,
    /// Commits that have begun, and the last of them that has succeeded.
    begun: AtomicU64,
    ended: AtomicU64,
    /// Changes that a commit must not come between, and those of them that may wait for locks.
    holds: AtomicUsize,
    patient: AtomicUsize,
    /// Somebody waits for room, and there is none at all.
    is_full: AtomicBool,
    /// A commit waits for changes that belong together to end.
    is_awaited: AtomicBool,
    /// A commit failed, or all is abandoned: nothing is known of what the log holds any more.
    failed: AtomicBool,
    /// The blocks that were kept free are not kept any more, and not free yet.
    is_giving: AtomicBool,
    /// Who waits for the commit under way to end, to give the log up.
    givers: AtomicUsize,
    /// Blocks that are kept free for a log of batches.
    kept: AtomicU64,
}

/// What is in memory.
#[derive(Debug, Default)]
struct State {
    blocks: BTreeMap<u32, Captured>,
    /// The number of the next commit.
    running: u32,
    /// Blocks that changed since the last one.
    dirty: usize,
    /// How many may.
    most: usize,
    /// Runs that were given up since the last commit, and before that by those that a commit under way holds.
    freed: RunSet,
    freeing: RunSet,
    /// The commit that each block of the log belongs to which a replay would write.
    live: BTreeMap<u32, u32>,
    /// Blocks that are part of every commit.
    always: Vec<u32>,
}

impl State {
    /// How many may change before a commit comes between changes that belong together: twice as many as else fit, and the one
    /// that is under way may need a few.
    fn most_within(&self) -> usize {
        self.most.saturating_add(self.most / 4 * 3)
    }
}

/// What is stored, by which its caller may wait for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    /// Under locks of the file alone, which no change that must be whole takes in its midst.
    Contents,
    /// Perhaps under a lock that such a change waits for.
    Structure,
}

/// A block that is newer in memory than below.
#[derive(Debug)]
struct Captured {
    bytes: Box<[u8]>,
    /// The commit that it is for.
    commit: u32,
}

/// Whether a map has a block of a run that is not empty.
fn has<V>(blocks: &BTreeMap<u32, V>, run: &core::ops::Range<u64>) -> bool {
    let nr = |block: u64| u32::try_from(block).unwrap_or(u32::MAX);
    blocks.range(nr(run.start)..nr(run.end)).next().is_some()
}

impl Logged {
    /// Over a device with blocks of `block` bytes, without a log.
    pub(crate) fn new(inner: Arc<dyn BlockDevice>, block: u64) -> Self {
        let mut filter = Vec::new();
        filter.resize_with(FILTER / 64, AtomicU64::default);
        Self {
            inner,
            block,
            on: AtomicBool::new(false),
            filter,
            state: RwLock::new(Rank::LogState, State::default()),
            commit: Mutex::new(Rank::Log, Committer::default()),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            holds: AtomicUsize::new(0),
            patient: AtomicUsize::new(0),
            is_full: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            is_giving: AtomicBool::new(false),
            givers: AtomicUsize::new(0),
            kept: AtomicU64::new(0),
        }
    }

    /// Whether the log has begun.
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Whether commits keep the order. Whoever is turning the log off flushes first what came before this.
    fn needs_no_fence(&self) -> bool {
        self.is_on() && {
            drop(self.state.read());
            self.is_on()
        }
    }

    /// Notes that a change which must be whole, and may wait for locks, begins or has ended.
    pub(crate) fn count_patient(&self, begins: bool) {
        begin_or_end_patient(begins);
        // Wraps to one less.
        self.patient.fetch_add(if begins { 1 } else { usize::MAX }, Ordering::SeqCst);
    }

    /// Whether no change is under way that a commit must not come between.
    fn is_between(&self) -> bool {
        // In this order: a patient one that ends between the two is not taken for one of the others.
        let holds = self.holds.load(Ordering::SeqCst);
        let gives_way = self.is_full.load(Ordering::SeqCst);
        holds <= if gives_way { self.patient.load(Ordering::SeqCst) } else { 0 }
    }

    /// Whether something waits for a commit.
    pub(crate) fn is_dirty(&self) -> bool {
        self.is_on() && self.state.read().dirty > 0
    }

    /// The word and the bit of the filter for a block.
    fn place(nr: u32) -> (usize, u64) {
        let hash = (u64::from(nr).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 46) as usize % FILTER;
        (hash / 64, 1 << (hash % 64))
    }

    fn mark(&self, nr: u32) {
        let (word, bit) = Self::place(nr);
        if let Some(word) = self.filter.get(word) {
            word.fetch_or(bit, Ordering::Release);
        }
    }

    fn may_hold(&self, nr: u32) -> bool {
        let (word, bit) = Self::place(nr);
        self.filter.get(word).is_some_and(|word| word.load(Ordering::Acquire) & bit != 0)
    }

    /// The blocks of a range of bytes.
    fn span(&self, offset: u64, len: u64) -> core::ops::Range<u64> {
        offset / self.block..offset.saturating_add(len).div_ceil(self.block)
    }

    /// Whether a block of the range may be in memory.
    #[inline]
    fn may_touch(&self, offset: u64, len: u64) -> bool {
        let span = self.span(offset, len);
        // Beyond this a look at all that is in memory costs less.
        if span.end - span.start > 64 {
            return true;
        }
        span.into_iter().any(|nr| u32::try_from(nr).map_or(true, |nr| self.may_hold(nr)))
    }

    /// Calls `each` with each block of a range: its number, where in it the range begins, and where in the range it
    /// begins and ends.
    fn pieces(
        &self,
        offset: u64,
        len: usize,
        mut each: impl FnMut(u32, usize, core::ops::Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let mut at = 0;
        while at < len {
            let byte = offset + at as u64;
            let nr = u32::try_from(byte / self.block).map_err(|_| self.outside(offset, len as u64))?;
            let within = (byte % self.block) as usize;
            let end = len.min(at + self.block as usize - within);
            each(nr, within, at..end)?;
            at = end;
        }
        Ok(())
    }

    fn outside(&self, offset: u64, len: u64) -> Error {
        Error::OutOfRange { offset, len, size: self.size() }
    }

    fn check(&self, offset: u64, len: u64) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size() => Ok(()),
            _ => Err(self.outside(offset, len)),
        }
    }

    /// Changes a block in memory; it is loaded first unless all of it changes.
    fn capture(&self, state: &mut State, nr: u32, whole: bool, change: impl FnOnce(&mut [u8])) -> Result<()> {
        let running = state.running;
        let captured = match state.blocks.entry(nr) {
            alloc::collections::btree_map::Entry::Occupied(there) => there.into_mut(),
            alloc::collections::btree_map::Entry::Vacant(place) => {
                let start = u64::from(nr) * self.block;
                // The last block of a device may be cut off.
                let len = self.block.min(self.size().saturating_sub(start)) as usize;
                let mut bytes = vec![0; self.block as usize];
                if !whole && let Some(part) = bytes.get_mut(..len) {
                    self.inner.read_at(start, part)?;
                }
                self.mark(nr);
                place.insert(Captured { bytes: bytes.into(), commit: running.wrapping_sub(1) })
            }
        };
        if captured.commit != running {
            captured.commit = running;
            state.dirty += 1;
        }
        change(&mut captured.bytes);
        Ok(())
    }

    /// Keeps bytes in memory for the next commit. What is larger than a commit takes several.
    fn keep(&self, offset: u64, buf: &[u8], stored: Stored) -> Result<()> {
        self.check(offset, buf.len() as u64)?;
        let step = MOST_AT_ONCE * self.block as usize;
        let mut at = 0;
        while at < buf.len() {
            let start = offset + at as u64;
            // Up to a boundary between blocks, so that no block is taken for two.
            let end = buf.len().min(at + step - (start % self.block) as usize);
            self.keep_part(start, buf.get(at..end).unwrap_or_default(), stored)?;
            at = end;
        }
        Ok(())
    }

    /// The same of zeros.
    fn keep_zeros(&self, offset: u64, len: u64, stored: Stored) -> Result<()> {
        self.check(offset, len)?;
        let zeros = vec![0; len.min(1 << 16) as usize];
        let mut done = 0;
        while done < len {
            let part = zeros.get(..(len - done).min(1 << 16) as usize).unwrap_or_default();
            self.keep(offset + done, part, stored)?;
            done += part.len() as u64;
        }
        Ok(())
    }

    /// Whether a commit comes before so many blocks more change: it must, or nothing is in its way. Within changes that belong
    /// together only where they would be more than it can hold.
    fn is_short(&self, state: &State, blocks: usize, waits: bool) -> bool {
        // A commit of nothing would make no room.
        if state.dirty == 0 && !Mended::WaitsForNothing.is_back() {
            return false;
        }
        let after = state.dirty + blocks;
        let is_full = after > if may_wait() { state.most.saturating_mul(2) } else { state.most_within() };
        if is_full {
            self.is_full.store(true, Ordering::SeqCst);
        }
        is_full || may_wait() && waits && after > state.most
    }

    fn keep_part(&self, offset: u64, part: &[u8], stored: Stored) -> Result<()> {
        let span = self.span(offset, part.len() as u64);
        let blocks = (span.end - span.start) as usize;
        let (mut waits, mut looks) = (true, 0);
        loop {
            let mut state = self.state.write();
            if !self.is_on() {
                // It has ended meanwhile.
                drop(state);
                return self.inner.write_at(offset, part);
            }
            // Whoever commits may wait for somebody who waits for a lock that this thread holds: a structure goes in at last, as
            // there is some room beyond. Contents are under no such lock.
            let waits_on = looks < ENDURANCE || stored == Stored::Contents && is_patient();
            if waits_on && self.is_short(&state, blocks, waits) {
                drop(state);
                waits = self.try_for_room(&mut looks)?;
                continue;
            }
            return self.pieces(offset, part.len(), |nr, within, range| {
                let whole = range.len() as u64 == self.block;
                self.capture(&mut state, nr, whole, |block| {
                    let to = block.get_mut(within..within + range.len());
                    if let (Some(to), Some(from)) = (to, part.get(range)) {
                        to.copy_from_slice(from);
                    }
                })
            });
        }
    }

    /// Whether contents may be stored in place, all over the range.
    fn is_free_to_change(&self, offset: u64, len: u64) -> bool {
        let (span, state) = (self.span(offset, len), self.state.read());
        !state.freed.touches(span.start, span.end)
            && !state.freeing.touches(span.start, span.end)
            && !has(&state.live, &span)
            && !has(&state.blocks, &span)
    }

    /// Stores contents: in place where that is allowed, block by block.
    fn fill(&self, offset: u64, len: u64, store: &dyn Fn(u64, u64, bool) -> Result<()>) -> Result<()> {
        self.check(offset, len)?;
        if self.is_free_to_change(offset, len) {
            return store(offset, len, true);
        }
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let in_place = self.is_free_to_change(at, 1);
            let mut stop = end.min((at / self.block + 1) * self.block);
            while stop < end && self.is_free_to_change(stop, 1) == in_place {
                stop = end.min(stop + self.block);
            }
            store(at, stop - at, in_place)?;
            at = stop;
        }
        Ok(())
    }
}

impl BlockDevice for Logged {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if !self.is_on() || !self.may_touch(offset, buf.len() as u64) {
            return self.inner.read_at(offset, buf);
        }
        self.check(offset, buf.len() as u64)?;
        let len = buf.len();
        let state = self.state.read();
        if !has(&state.blocks, &self.span(offset, len as u64)) {
            return self.inner.read_at(offset, buf);
        }
        self.pieces(offset, len, |nr, within, range| {
            let start = offset + range.start as u64;
            let Some(part) = buf.get_mut(range) else { return Ok(()) };
            match state.blocks.get(&nr).and_then(|there| there.bytes.get(within..within + part.len())) {
                Some(there) => part.copy_from_slice(there),
                None => self.inner.read_at(start, part)?,
            }
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        if self.is_on() {
            self.keep(offset, buf, Stored::Structure)
        } else {
            self.inner.write_at(offset, buf)
        }
    }

    fn read_u32(&self, offset: u64) -> Result<u32> {
        if self.is_on() && self.may_touch(offset, 4) {
            let mut bytes = [0; 4];
            self.read_at(offset, &mut bytes)?;
            return Ok(u32::from_le_bytes(bytes));
        }
        self.inner.read_u32(offset)
    }

    fn write_words(&self, offset: u64, words: &[u32]) -> Result<()> {
        if !self.is_on() {
            return self.inner.write_words(offset, words);
        }
        if !offset.is_multiple_of(4) {
            return Err(Error::Unsupported("words at a place that is no multiple of 4"));
        }
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.keep(offset, &bytes, Stored::Structure)
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        if self.is_on() {
            self.keep_zeros(offset, len, Stored::Structure)
        } else {
            self.inner.zero(offset, len)
        }
    }

    fn write_contents(&self, offset: u64, buf: &[u8]) -> Result<()> {
        if !self.is_on() {
            return self.inner.write_at(offset, buf);
        }
        self.fill(offset, buf.len() as u64, &|at, len, in_place| {
            let from = (at - offset) as usize;
            let part = buf.get(from..from + len as usize).unwrap_or_default();
            if in_place { self.inner.write_at(at, part) } else { self.keep(at, part, Stored::Contents) }
        })
    }

    fn zero_contents(&self, offset: u64, len: u64) -> Result<()> {
        if !self.is_on() {
            return self.inner.zero(offset, len);
        }
        self.fill(offset, len, &|at, len, in_place| {
            if in_place { self.inner.zero(at, len) } else { self.keep_zeros(at, len, Stored::Contents) }
        })
    }

    /// What a crash may bring back stays as it is.
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.fill(offset, len, &|at, len, in_place| {
            if in_place { self.inner.discard(at, len) } else { Ok(()) }
        })
    }

    fn freed(&self, offset: u64, len: u64) {
        if !self.is_on() || len == 0 {
            return;
        }
        let span = self.span(offset, len);
        self.state.write().freed.add(span.start, span.end);
    }

    fn hold(&self, begin: bool) {
        begin_or_end_whole(begin);
        // Wraps to one less.
        self.holds.fetch_add(if begin { 1 } else { usize::MAX }, Ordering::SeqCst);
        if begin {
            // Whoever is about to turn it off has looked already: from here on it is on, or off, until the end of this.
            drop(self.state.read());
        }
    }

    fn is_in_place(&self, offset: u64, len: u64) -> bool {
        !self.is_on()
            || !self.may_touch(offset, len)
            || !has(&self.state.read().blocks, &self.span(offset, len))
    }

    fn claim(&self, offset: u64, len: u64) -> Result<blockdev::Claim> {
        self.inner.claim(offset, len)
    }

    /// The order of stores to what a commit holds does not matter, and contents have no order of their own.
    fn fence(&self) -> Result<()> {
        if self.needs_no_fence() { Ok(()) } else { self.inner.fence() }
    }

    fn fence_tagged(&self, tag: u64) -> Result<()> {
        if self.needs_no_fence() { Ok(()) } else { self.inner.fence_tagged(tag) }
    }

    fn flush(&self) -> Result<()> {
        if self.is_on() { self.commit() } else { self.inner.flush() }
    }

    fn flush_tagged(&self, tag: u64) -> Result<()> {
        if self.is_on() { self.commit() } else { self.inner.flush_tagged(tag) }
    }

    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }

    fn media(&self) -> Media {
        self.inner.media()
    }

    #[cfg(feature = "std")]
    fn backing_file(&self) -> Option<blockdev::BackingFile<'_>> {
        self.inner.backing_file()
    }

    fn populate(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.populate(offset, len)
    }
}
