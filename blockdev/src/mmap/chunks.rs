//! A set of chunks of a device.

use alloc::vec::Vec;
use portable_atomic::{AtomicU64, Ordering};

/// Bytes of a chunk: the grain at which a map tracks what its file has room for, and what is dirty.
pub(super) const CHUNK: u64 = 64 << 10;

/// One bit for each [`CHUNK`] of a device, set and read by many threads at once.
#[derive(Debug)]
pub(super) struct Chunks {
    words: Vec<AtomicU64>,
}

/// The chunks that hold a byte of the range, which lies in a device and is not empty.
pub(super) fn touched(offset: u64, len: u64) -> core::ops::Range<u64> {
    offset / CHUNK..(offset + (len - 1)) / CHUNK + 1
}

impl Chunks {
    /// None of a device's chunks. `size` is in bytes, and was mapped, so its bits fit into memory.
    pub(super) fn new(size: u64) -> Self {
        let words = size.div_ceil(CHUNK).div_ceil(64);
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    #[inline]
    pub(super) fn contains(&self, chunk: u64) -> bool {
        let word = &self.words[(chunk / 64) as usize];
        word.load(Ordering::Acquire) >> (chunk % 64) & 1 == 1
    }

    #[inline]
    pub(super) fn insert(&self, chunk: u64) {
        let word = &self.words[(chunk / 64) as usize];
        let bit = 1 << (chunk % 64);
        // Most inserts are repeats; a load keeps the line shared then. SeqCst order is not needed: who
        // takes the bit synchronises with this release, or with the earlier one that it was set by.
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Release);
        }
    }

    /// Takes one out.
    pub(super) fn remove(&self, chunk: u64) {
        self.words[(chunk / 64) as usize].fetch_and(!(1 << (chunk % 64)), Ordering::AcqRel);
    }

    /// Empties the set into `visit`, one call for each run of neighbours, until one fails; that run and
    /// those after it stay in the set.
    pub(super) fn drain<E>(
        &self,
        mut visit: impl FnMut(core::ops::Range<u64>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut run: Option<core::ops::Range<u64>> = None;
        for (at, word) in self.words.iter().enumerate() {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let chunk = at as u64 * 64 + u64::from(bits.trailing_zeros());
                bits &= bits - 1;
                match &mut run {
                    Some(run) if run.end == chunk => run.end += 1,
                    _ => {
                        if let Some(done) = run.replace(chunk..chunk + 1)
                            && let Err(error) = visit(done.clone())
                        {
                            done.chain(chunk..chunk + 1).for_each(|chunk| self.insert(chunk));
                            word.fetch_or(bits, Ordering::Release);
                            return Err(error);
                        }
                    }
                }
            }
        }
        if let Some(last) = run
            && let Err(error) = visit(last.clone())
        {
            last.for_each(|chunk| self.insert(chunk));
            return Err(error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_visits_runs_once_and_keeps_what_failed() {
        let set = Chunks::new(CHUNK * 300);
        for chunk in [0, 1, 2, 63, 64, 65, 200, 299] {
            set.insert(chunk);
        }
        let mut runs = Vec::new();
        let stopped = set.drain(|run| {
            runs.push(run.clone());
            if run.start == 63 { Err(()) } else { Ok(()) }
        });
        assert_eq!((stopped, runs.clone()), (Err(()), vec![0..3, 63..66]));
        runs.clear();
        assert_eq!(
            set.drain(|run| {
                runs.push(run);
                Ok::<_, ()>(())
            }),
            Ok(())
        );
        assert_eq!(runs, [63..66, 200..201, 299..300]);
        assert!(!set.contains(63));
    }
}
