//! How often the chunks of a mapped file were written through the file.
//!
//! The first store to a page of a mapping is a page fault, which takes longer than a system call takes to write the
//! page (1.7 us beside 0.4 us of tmpfs in a virtual machine), and has the page read first where the image lies on a disk.
//! A page that is stored to again and again is soon worth the fault. Which ones will be nobody knows, so this goes by
//! the rule of whoever does not know whether to rent or to buy: the first large writes of a chunk go through the file,
//! until together they have cost about as much as its faults; those after them go through the mapping.
//!
//! The kernel keeps the file and the mapping the same. That holds for page cache; persistent memory is not treated so.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering};
use std::sync::OnceLock;

use super::chunks::{CHUNK, touched};

/// Chunks told apart, at most: those of 8 GiB. Chunks of larger devices share.
const MOST: u64 = 1 << 17;
/// Writes of a chunk that go through the file.
const RENTS: u8 = 4;

/// The large writes of each chunk, up to [`RENTS`].
#[derive(Debug)]
pub(super) struct Rented {
    size: u64,
    /// Made when there is something to count: most who open an image write little.
    counts: OnceLock<Vec<AtomicU8>>,
}

impl Rented {
    /// For a device of `size` bytes.
    pub(super) fn new(size: u64) -> Self {
        Self { size, counts: OnceLock::new() }
    }

    fn counts(&self) -> &[AtomicU8] {
        let count = self.size.div_ceil(CHUNK).clamp(1, MOST);
        self.counts.get_or_init(|| (0..count).map(|_| AtomicU8::new(0)).collect())
    }

    /// Counts a write of the range, which lies in the device, and says whether it is to go through the file: it is as
    /// large as a chunk, and has one with writes left.
    pub(super) fn by_file(&self, offset: u64, len: u64) -> bool {
        if len < CHUNK {
            return false;
        }
        let counts = self.counts();
        let mut by_file = false;
        for chunk in touched(offset, len) {
            // OK to index and to cast: the remainder is less than the number of counts.
            let count = &counts[(chunk % counts.len() as u64) as usize];
            // Threads that count at once may count one write for two; nothing depends on the number.
            let times = count.load(Ordering::Relaxed);
            if times < RENTS {
                count.store(times + 1, Ordering::Relaxed);
                by_file = true;
            }
        }
        by_file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_chunk_is_written_through_the_file_some_times() {
        let rented = Rented::new(CHUNK * 10);
        assert!(!rented.by_file(0, CHUNK - 1), "small");
        assert_eq!((0..10).filter(|_| rented.by_file(0, CHUNK * 2)).count(), usize::from(RENTS));
        assert!(!rented.by_file(7, CHUNK), "two chunks that have had theirs");
        assert!(rented.by_file(CHUNK, CHUNK * 2), "the last chunk of three has not");
        assert_eq!((0..10).filter(|_| rented.by_file(CHUNK * 9, CHUNK)).count(), usize::from(RENTS));
    }

    #[test]
    fn devices_of_any_size_take_little_memory() {
        let rented = Rented::new(u64::MAX);
        assert!(rented.by_file(u64::MAX - CHUNK, CHUNK));
        assert_eq!(rented.counts().len() as u64, MOST);
        assert_eq!(Rented::new(0).counts().len(), 1);
    }
}
