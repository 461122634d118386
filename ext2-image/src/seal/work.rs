//! Hashing a level: block after block of hashes, by as many threads as there are processors.
//!
//! # Invariants
//! - Every block of hashes is given to the sink once, by one thread, in no order.
//! - After an error no new block is begun; the error of the earliest block that failed is the one that is returned.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use blockdev::BlockDevice;

use super::hash::Digest;
use super::{Level, Params, Result};

/// Bytes that are read at once.
const CHUNK: u32 = 1 << 20;

/// The blocks that a level is the hashes of.
#[derive(Clone, Copy)]
pub(super) struct Input<'d> {
    pub(super) device: &'d dyn BlockDevice,
    pub(super) offset: u64,
    pub(super) blocks: u64,
    /// Bytes of a block.
    pub(super) block: u32,
}

/// A level to hash.
pub(super) struct Task<'d> {
    pub(super) params: &'d Params,
    pub(super) input: Input<'d>,
    pub(super) level: &'d Level,
    pub(super) progress: &'d (dyn Fn(u64) + Sync),
}

/// What takes a block of hashes: its number in the level, and its bytes.
type Sink<'s> = &'s (dyn Fn(u64, &[u8]) -> Result<()> + Sync);

impl Task<'_> {
    /// Hashes all, and gives the blocks of hashes to `sink`.
    pub(super) fn run(&self, sink: Sink<'_>) -> Result<()> {
        let next = AtomicU64::new(0);
        #[cfg(feature = "std")]
        {
            let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
            let threads = threads.min(usize::try_from(self.level.blocks).unwrap_or(threads));
            if threads > 1 {
                let results: Vec<_> = std::thread::scope(|scope| {
                    let start = |_| scope.spawn(|| self.work(&next, sink));
                    let started: Vec<_> = (0..threads).map(start).collect();
                    let join = |thread: std::thread::ScopedJoinHandle<'_, _>| match thread.join() {
                        Ok(result) => result,
                        Err(panic) => std::panic::resume_unwind(panic),
                    };
                    started.into_iter().map(join).collect()
                });
                let first = results.into_iter().filter_map(Result::err).min_by_key(|failed| failed.0);
                return first.map_or(Ok(()), |(_, error)| Err(error));
            }
        }
        self.work(&next, sink).map_err(|(_, error)| error)
    }

    /// Takes blocks of hashes, one after the other, until none is left.
    fn work(&self, next: &AtomicU64, sink: Sink<'_>) -> Result<(), (u64, super::Error)> {
        let mut worker = Worker::new(self);
        loop {
            let block = next.fetch_add(1, Ordering::Relaxed);
            if block >= self.level.blocks {
                return Ok(());
            }
            let done = worker.hash(block).and_then(|()| sink(block, &worker.hashes));
            if let Err(error) = done {
                next.store(self.level.blocks, Ordering::Relaxed);
                return Err((block, error));
            }
        }
    }
}

/// A thread's buffers.
struct Worker<'t> {
    task: &'t Task<'t>,
    hasher: super::hash::Hasher,
    /// The hash of a block of zeros, of which images have many.
    zeros: Digest,
    input: Vec<u8>,
    hashes: Vec<u8>,
}

impl<'t> Worker<'t> {
    fn new(task: &'t Task<'t>) -> Self {
        let hasher = task.params.hasher();
        let input = alloc::vec![0; task.input.block.max(CHUNK) as usize];
        let zeros = hasher.digest(&input[..task.input.block as usize]);
        let hashes = alloc::vec![0; task.params.hash_block as usize];
        Self { task, hasher, zeros, input, hashes }
    }

    /// Fills `hashes` with the block of hashes `block` of the level.
    fn hash(&mut self, block: u64) -> Result<()> {
        let Input { device, offset, blocks, block: size } = self.task.input;
        let len = self.task.params.algorithm.digest_len() as usize;
        let fanout = (self.hashes.len() / len) as u64;
        // OK to multiply: within the input, which the layout has counted in bytes.
        let first = block * fanout;
        let end = blocks.min(first + fanout);
        let (mut at, mut place) = (first, self.hashes.chunks_exact_mut(len));
        while at < end {
            let count = (end - at).min((self.input.len() / size as usize) as u64);
            let piece = &mut self.input[..count as usize * size as usize];
            device.read_at(offset + at * u64::from(size), piece)?;
            for (block, place) in piece.chunks_exact(size as usize).zip(place.by_ref()) {
                let digest =
                    if crate::zeros::is_zero(block) { self.zeros } else { self.hasher.digest(block) };
                place.copy_from_slice(&digest);
            }
            at += count;
            (self.task.progress)(count * u64::from(size));
        }
        place.for_each(|rest| rest.fill(0));
        Ok(())
    }
}
