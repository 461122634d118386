//! A write-back cache over a slow device.
//!
//! # Order
//! A fence costs nothing here: it only begins a new *epoch*. Dirty blocks carry the epoch in which they were
//! written, and blocks go to the device below in the order of their epochs, with a fence of the device below
//! in between.
//!
//! # Invariants
//! 1. Nothing of an epoch is written below before everything of the epochs before it, and a fence.
//! 2. A block that is dirty with an older epoch is written below, with all that is older, before it is
//!    written to again: no block holds bytes of two epochs.
//! 3. A block is evicted only when it is clean, and memory never holds more than the given number of bytes.
//! 4. What was read from below is put into the cache only if nothing that was written has left it meanwhile.
//!
//! # Locking
//! `bypass` (shared by all, alone for what goes around the cache), then `order` (who writes below), then one
//! shard. A shard's lock is held for a copy in memory, and for a read from below only where a read without
//! it came out stale. Blocks of a run of [`RUN`] are neighbours in one shard.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use portable_atomic::{AtomicU64, Ordering};

use crate::range::check;
use crate::sync::{Mutex, RwLock};
use crate::{BlockDevice, Claim, Error, Media, Result};

mod shard;

use shard::Shard;

/// Blocks that lie in one shard together, and that are read together when reading goes forward.
const RUN: u64 = 8;

/// Most bytes of neighbouring blocks written below by one call.
const MAX_WRITE: usize = 1 << 20;

/// Runs from which zeroing goes around the cache.
const DIRECT_ZERO_RUNS: u64 = 4;

/// The size and shape of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// Bytes of blocks that are held at most.
    pub bytes: u64,
    /// Bytes of a block: a power of two of at least 512.
    pub block_size: u32,
}

impl Default for CacheOptions {
    /// 64 MiB of 4 KiB blocks.
    fn default() -> Self {
        Self { bytes: 64 << 20, block_size: 4096 }
    }
}

/// What a cache has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Blocks that were asked for and held.
    pub hits: u64,
    /// Blocks that had to be read from below.
    pub misses: u64,
    /// Blocks written below.
    pub written_blocks: u64,
    /// Calls that wrote them: neighbours go together.
    pub writes: u64,
}

/// `D` with a write-back LRU cache in memory. It has no DAX: it is for devices that are slow to reach.
///
/// `fence` keeps order and costs nothing; `flush` writes everything that is dirty in that order and flushes
/// the device below. Dropping the cache flushes it, with errors logged.
///
/// ```
/// use blockdev::{BlockDevice, CacheOptions, Cached, RamDevice};
///
/// let cached = Cached::new(RamDevice::new(1 << 20)?, CacheOptions::default())?;
/// cached.write_at(100, b"later")?;
/// assert_ne!(&cached.inner().to_vec()[100..105], b"later");
/// cached.flush()?;
/// assert_eq!(&cached.inner().to_vec()[100..105], b"later");
/// # Ok::<(), blockdev::Error>(())
/// ```
#[derive(Debug)]
pub struct Cached<D: BlockDevice> {
    inner: D,
    size: u64,
    block_size: u64,
    /// Blocks that each shard may hold.
    capacity: usize,
    shards: Box<[Mutex<Shard>]>,
    epoch: AtomicU64,
    order: Mutex<Unfenced>,
    bypass: RwLock<()>,
    /// The block after the last that was missed, by which reading forward is known.
    expected: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    written_blocks: AtomicU64,
    writes: AtomicU64,
}

/// What is known of the device below since the last fence there.
#[derive(Debug, Default)]
struct Unfenced {
    /// The newest epoch of what was written there since it was flushed.
    epoch: Option<u64>,
    /// Why a fence failed that nobody asked for: what was written there before may be lost, and it says so but once. Whoever
    /// flushes next is told, since who had written it was not.
    failed: Option<Error>,
}

/// A part of a request that lies in one block.
struct Piece {
    block: u64,
    within: usize,
    len: usize,
}

impl<D: BlockDevice> Cached<D> {
    /// A cache over `inner`.
    ///
    /// # Errors
    /// `Unsupported` for a block size that is no power of two of at least 512, or fewer bytes than hold
    /// eight blocks.
    pub fn new(inner: D, options: CacheOptions) -> Result<Self> {
        let block_size = u64::from(options.block_size);
        if !block_size.is_power_of_two() || block_size < 512 {
            return Err(Error::Unsupported("a cache block that is no power of two of at least 512 bytes"));
        }
        let blocks = options.bytes / block_size;
        if blocks < RUN {
            return Err(Error::Unsupported("a cache of fewer than eight blocks"));
        }
        // Each shard has room for a few runs, or there is one.
        let shards = (blocks / (4 * RUN)).clamp(1, 64);
        let capacity = usize::try_from(blocks / shards).unwrap_or(usize::MAX);
        Ok(Self {
            size: inner.size(),
            inner,
            block_size,
            capacity,
            shards: (0..shards).map(|_| Mutex::new(Shard::default())).collect(),
            epoch: AtomicU64::new(1),
            order: Mutex::new(Unfenced::default()),
            bypass: RwLock::new(()),
            expected: AtomicU64::new(u64::MAX),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            written_blocks: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        })
    }

    /// The device below, which does not have what is dirty here.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// What was done so far.
    pub fn stats(&self) -> CacheStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats {
            hits: load(&self.hits),
            misses: load(&self.misses),
            written_blocks: load(&self.written_blocks),
            writes: load(&self.writes),
        }
    }

    /// Blocks held now.
    pub fn held_blocks(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().len() as u64).sum()
    }

    fn shard(&self, block: u64) -> &Mutex<Shard> {
        &self.shards[(block / RUN % self.shards.len() as u64) as usize]
    }

    /// Bytes of a block; the device's last one may be short.
    fn block_len(&self, block: u64) -> usize {
        (self.size - block * self.block_size).min(self.block_size) as usize
    }

    /// The parts of a range of the device, block by block.
    fn pieces(&self, offset: u64, len: usize) -> impl Iterator<Item = Piece> + use<D> {
        let block_size = self.block_size;
        let mut done = 0;
        core::iter::from_fn(move || {
            let at = offset + done as u64;
            let within = (at % block_size) as usize;
            let len = (block_size as usize - within).min(len - done);
            done += len;
            (len > 0).then_some(Piece { block: at / block_size, within, len })
        })
    }

    /// Makes room for `count` blocks, at most [`RUN`], which every shard has room for. `Err` with the epoch
    /// that has to be written below for it first, without the shard's lock.
    fn make_room(&self, shard: &mut Shard, count: usize) -> Result<(), u64> {
        while shard.len() + count > self.capacity {
            shard.evict()?;
        }
        Ok(())
    }

    /// Does `then` with the shard that holds `block`, which is read from below if it is not there, and with
    /// it the `ahead - 1` blocks after it. They are all of one run.
    fn with_block<T>(&self, block: u64, ahead: u64, mut then: impl FnMut(&mut Shard) -> T) -> Result<T> {
        /// Reads that came out stale before one is done under the lock.
        const PATIENCE: u32 = 2;
        let mut attempts = 0;
        loop {
            let mut shard = self.shard(block).lock();
            if shard.contains(block) {
                self.hits.fetch_add(u64::from(attempts == 0), Ordering::Relaxed);
                return Ok(then(&mut shard));
            }
            self.misses.fetch_add(u64::from(attempts == 0), Ordering::Relaxed);
            attempts += 1;
            if let Err(epoch) = self.make_room(&mut shard, ahead as usize) {
                drop(shard);
                self.write_back_through(epoch)?;
                continue;
            }
            let generation = shard.generation;
            let data = if attempts <= PATIENCE {
                drop(shard);
                let data = self.read_first(block, ahead)?;
                shard = self.shard(block).lock();
                if shard.generation != generation || shard.len() + ahead as usize > self.capacity {
                    continue;
                }
                data
            } else {
                self.read_first(block, ahead)?
            };
            for (number, data) in (block..).zip(data) {
                if !shard.contains(number) {
                    shard.insert(number, data);
                }
            }
            return Ok(then(&mut shard));
        }
    }

    /// Reads a piece without keeping its block, for which there is no room where nothing of what is dirty can be written below.
    /// Who only reads is not told of that unless his own bytes cannot be had.
    fn read_past(&self, piece: &Piece, target: &mut [u8], error: Error) -> Result<()> {
        // With the lock, so that nobody writes to the block here meanwhile.
        let mut shard = self.shard(piece.block).lock();
        match shard.get(piece.block) {
            Some(block) => target.copy_from_slice(&block.data[piece.within..piece.within + piece.len]),
            None => {
                let at = piece.block * self.block_size + piece.within as u64;
                self.inner.read_at(at, target).map_err(|_| error)?;
            }
        }
        Ok(())
    }

    /// Reads neighbouring blocks, or the first alone where not all of them can be read: one that is bad takes none of those
    /// before it along.
    fn read_first(&self, block: u64, count: u64) -> Result<Vec<Box<[u8]>>> {
        match self.read_blocks(block, count) {
            Err(_) if count > 1 => self.read_blocks(block, 1),
            read => read,
        }
    }

    /// Reads neighbouring blocks from below by one call.
    fn read_blocks(&self, block: u64, count: u64) -> Result<Vec<Box<[u8]>>> {
        let lens = (block..block + count).map(|block| self.block_len(block));
        let mut bytes = alloc::vec![0; lens.clone().sum()];
        self.inner.read_at(block * self.block_size, &mut bytes)?;
        let mut rest = &bytes[..];
        let blocks = lens.map(|len| {
            let (block, after) = rest.split_at(len);
            rest = after;
            Box::from(block)
        });
        Ok(blocks.collect())
    }

    /// How many blocks to read when `block` is missed and `wanted` are asked for from there: to the end of
    /// the run where reading goes forward.
    fn read_ahead(&self, block: u64, wanted: u64) -> u64 {
        let forward = self.expected.load(Ordering::Relaxed) == block;
        let run_end = (block / RUN + 1) * RUN;
        let end = if forward { run_end } else { (block + wanted).min(run_end) };
        end.min(self.size.div_ceil(self.block_size)) - block
    }

    /// Writes a piece into its block, in the epoch of now.
    fn write_piece(&self, piece: &Piece, bytes: &[u8]) -> Result<()> {
        loop {
            // A block that is replaced whole need not be read.
            let whole = piece.within == 0 && piece.len == self.block_len(piece.block);
            let mut shard = self.shard(piece.block).lock();
            if whole && !shard.contains(piece.block) {
                match self.make_room(&mut shard, 1) {
                    Ok(()) => shard.insert(piece.block, Box::from(bytes)),
                    Err(epoch) => {
                        drop(shard);
                        self.write_back_through(epoch)?;
                        continue;
                    }
                }
            } else if !shard.contains(piece.block) {
                drop(shard);
                self.with_block(piece.block, 1, |_| ())?;
                continue;
            }
            let epoch = self.epoch.load(Ordering::Acquire);
            match shard.dirty_epoch(piece.block) {
                Some(older) if older < epoch => {
                    drop(shard);
                    self.write_back_through(older)?;
                }
                _ => {
                    shard.write(piece.block, epoch, piece.within, bytes);
                    return Ok(());
                }
            }
        }
    }

    /// Writes below everything that is dirty of the epochs up to `last`, in their order.
    fn write_back_through(&self, last: u64) -> Result<()> {
        let mut unfenced = self.order.lock();
        self.write_back_ordered(last, &mut unfenced)
    }

    fn write_back_ordered(&self, last: u64, unfenced: &mut Unfenced) -> Result<()> {
        loop {
            let oldest = self.shards.iter().filter_map(|shard| shard.lock().oldest_epoch()).min();
            let Some(epoch) = oldest.filter(|&epoch| epoch <= last) else { return Ok(()) };
            let mut dirty = BTreeMap::new();
            self.shards.iter().for_each(|shard| shard.lock().collect_dirty(epoch, &mut dirty));
            self.fence_before(epoch, unfenced)?;
            self.write_runs(dirty)?;
            if epoch == last && self.epoch.load(Ordering::Acquire) == epoch {
                // The epoch of now never ends while others write; what they write after this is theirs.
                return Ok(());
            }
        }
    }

    /// Fences below if what was last written there is of an epoch before `epoch`.
    fn fence_before(&self, epoch: u64, unfenced: &mut Unfenced) -> Result<()> {
        if unfenced.epoch.is_some_and(|before| before < epoch)
            && let Err(error) = self.inner.fence()
        {
            unfenced.failed = Some(error.clone());
            return Err(error);
        }
        // A write that raced with a fence may come late, in an epoch that was thought complete.
        unfenced.epoch = unfenced.epoch.max(Some(epoch));
        Ok(())
    }

    /// Writes blocks of one epoch, neighbours together.
    fn write_runs(&self, dirty: BTreeMap<u64, (u64, Box<[u8]>)>) -> Result<()> {
        let mut run = Vec::<(u64, u64)>::new();
        let mut bytes = Vec::new();
        for (number, (version, data)) in dirty {
            let follows = run.last().is_some_and(|&(last, _)| last + 1 == number);
            if !follows || bytes.len() + data.len() > MAX_WRITE {
                self.write_run(&run, &bytes)?;
                run.clear();
                bytes.clear();
            }
            run.push((number, version));
            bytes.extend_from_slice(&data);
        }
        self.write_run(&run, &bytes)
    }

    fn write_run(&self, run: &[(u64, u64)], bytes: &[u8]) -> Result<()> {
        let Some(&(first, _)) = run.first() else { return Ok(()) };
        self.inner.write_at(first * self.block_size, bytes)?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.written_blocks.fetch_add(run.len() as u64, Ordering::Relaxed);
        for &(number, version) in run {
            self.shard(number).lock().written(number, version);
        }
        Ok(())
    }

    /// Zeros (or discards) whole blocks below, around the cache, in the epoch of now.
    fn around(
        &self,
        blocks: core::ops::Range<u64>,
        below: impl FnOnce(&D, u64, u64) -> Result<()>,
    ) -> Result<()> {
        let _alone = self.bypass.write();
        let mut unfenced = self.order.lock();
        let epoch = self.epoch.load(Ordering::Acquire);
        self.write_back_ordered(epoch - 1, &mut unfenced)?;
        self.fence_before(epoch, &mut unfenced)?;
        let start = blocks.start * self.block_size;
        below(&self.inner, start, blocks.end.saturating_mul(self.block_size).min(self.size) - start)?;
        // Only now, so that a failure loses nothing that was written before.
        for shard in &self.shards {
            shard.lock().remove_range(blocks.clone());
        }
        Ok(())
    }

    /// The whole blocks of a range, if they are many.
    fn many_blocks(&self, offset: u64, len: u64) -> Option<core::ops::Range<u64>> {
        let end = offset + len;
        let last = if end == self.size { end.div_ceil(self.block_size) } else { end / self.block_size };
        let blocks = offset.div_ceil(self.block_size)..last;
        let many = DIRECT_ZERO_RUNS * RUN;
        (blocks.start < blocks.end && blocks.end - blocks.start >= many).then_some(blocks)
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let _shared = self.bypass.read();
        let mut done = 0;
        while done < len {
            // A block at a time at most, so that each that is covered whole is replaced and not read.
            let at = offset + done;
            let block = self.block_size.min(ZEROS.len() as u64);
            let piece = (block - at % block).min(len - done) as usize;
            for part in self.pieces(at, piece) {
                self.write_piece(&part, &ZEROS[..part.len])?;
            }
            done += piece as u64;
        }
        Ok(())
    }

    fn writable(&self, offset: u64, len: u64) -> Result<()> {
        check(offset, len, self.size)?;
        if self.inner.is_read_only() { Err(Error::ReadOnly) } else { Ok(()) }
    }
}

impl<D: BlockDevice> Drop for Cached<D> {
    fn drop(&mut self) {
        let dirty = self.shards.iter().any(|shard| shard.lock().oldest_epoch().is_some());
        let unflushed = self.order.lock().epoch.is_some();
        if (dirty || unflushed)
            && let Err(error) = self.flush()
        {
            log::error!("a cache is dropped with blocks that could not be written or flushed: {error}");
        }
    }
}

impl<D: BlockDevice> BlockDevice for Cached<D> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check(offset, buf.len() as u64, self.size)?;
        let _shared = self.bypass.read();
        let last = (offset + buf.len() as u64).div_ceil(self.block_size);
        let mut done = 0;
        for piece in self.pieces(offset, buf.len()) {
            let target = &mut buf[done..done + piece.len];
            let ahead = self.read_ahead(piece.block, last - piece.block);
            let held = self.with_block(piece.block, ahead, |shard| {
                if let Some(block) = shard.get(piece.block) {
                    target.copy_from_slice(&block.data[piece.within..piece.within + piece.len]);
                }
            });
            if let Err(error) = held {
                self.read_past(&piece, target, error)?;
            }
            done += piece.len;
        }
        if !buf.is_empty() {
            self.expected.store(last, Ordering::Relaxed);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.writable(offset, buf.len() as u64)?;
        let _shared = self.bypass.read();
        let mut done = 0;
        for piece in self.pieces(offset, buf.len()) {
            self.write_piece(&piece, &buf[done..done + piece.len])?;
            done += piece.len;
        }
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.writable(offset, len)?;
        let Some(blocks) = self.many_blocks(offset, len) else { return self.write_zeros(offset, len) };
        let (start, end) =
            (blocks.start * self.block_size, blocks.end.saturating_mul(self.block_size).min(self.size));
        self.write_zeros(offset, start - offset)?;
        self.around(blocks, |inner, offset, len| inner.zero(offset, len))?;
        self.write_zeros(end, offset + len - end)
    }

    fn fence(&self) -> Result<()> {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        let _shared = self.bypass.read();
        let mut unfenced = self.order.lock();
        let written = self.write_back_ordered(self.epoch.load(Ordering::Acquire), &mut unfenced);
        let failed = unfenced.failed.take();
        written?;
        self.inner.flush()?;
        unfenced.epoch = None;
        failed.map_or(Ok(()), Err)
    }

    fn claim(&self, offset: u64, len: u64) -> Result<Claim> {
        self.inner.claim(offset, len)
    }

    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }

    fn media(&self) -> Media {
        self.inner.media()
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.writable(offset, len)?;
        match self.many_blocks(offset, len) {
            None => Ok(()),
            Some(blocks) => self.around(blocks, |inner, offset, len| inner.discard(offset, len)),
        }
    }
}
