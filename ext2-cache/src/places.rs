//! Where names of a directory were found lately, for those who look without a lock.
//!
//! # Invariants
//! 1. A place counts only as long as nobody has held the directory's `io` lock exclusive since it was noted: an entry
//!    that was removed still has its name. It is noted by who holds the lock.
//! 2. It never decides: the name is compared with the entry on the device.
//! 3. It is of one inode in memory, as the lock is, and goes with it.
//! 4. A name has two places, so that seldom two names drive each other out: whoever looks for such a name takes the
//!    lock, and all who look wait for each other.
//!
//! # Locking
//! None: a place and its time are one word.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, Ordering};
use portable_atomic::AtomicU64;

use ext2_sync::{Glance, Once};

/// Places of a directory at the least, and at the most: half a megabyte.
const PLACES: (u64, u64) = (64, 1 << 16);

/// Bytes of a directory for each place: more places than names, since it may grow.
const BYTES: u64 = 4;

/// Bits of an entry's byte offset, in units of 4: directories of 64 MiB. The other 40 are of the time, which comes
/// round after half as many changes of names, some weeks of them.
const PLACE_BITS: u32 = 24;

/// Where names of a directory were found lately. A name is known by a hash of it, whichever the caller likes.
#[derive(Debug)]
pub struct Places {
    /// Searches by the lock so far: an inode that is let go after a few has no table.
    searches: AtomicU32,
    table: Once<Box<[AtomicU64]>>,
}

/// The bits of a time that a word has room for.
fn time(now: Glance) -> u64 {
    now.changes() & (u64::MAX >> PLACE_BITS)
}

/// The word of an entry at byte `at`, found at the time of `now`.
fn word(at: u64, now: Glance) -> u64 {
    time(now) << PLACE_BITS | (at / 4)
}

impl Default for Places {
    fn default() -> Self {
        Self::new()
    }
}

impl Places {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self { searches: AtomicU32::new(0), table: Once::new() }
    }

    /// The bytes at which the entry of a name with this hash may lie, if it was noted and nobody has changed the directory since.
    pub fn find(&self, hash: impl FnOnce() -> u32, now: Glance) -> impl Iterator<Item = u64> {
        let places = self.table.get().and_then(|table| places_of(table, hash()));
        places.into_iter().flatten().filter_map(move |place| {
            let found = place.load(Ordering::Relaxed);
            let at = (found & ((1 << PLACE_BITS) - 1)) * 4;
            (found == word(at, now)).then_some(at)
        })
    }

    /// Notes at which byte the entry of a name with this hash lies in a directory of `size` bytes. The caller has held the `io` lock
    /// shared since before `now`.
    pub fn note(&self, hash: impl FnOnce() -> u32, at: u64, size: u64, now: Glance) {
        if !at.is_multiple_of(4) || at / 4 >= 1 << PLACE_BITS {
            return;
        }
        // OK to cast: at most 65,536.
        let places = (size / BYTES).next_power_of_two().clamp(PLACES.0, PLACES.1) as usize;
        let table = match self.table.get() {
            Some(table) => table,
            None if (self.searches.fetch_add(1, Ordering::Relaxed) as usize) < places / 16 => return,
            // A word of the last time there can be is nobody's.
            None => self.table.get_or_init(|| (0..places).map(|_| AtomicU64::new(u64::MAX)).collect()),
        };
        let Some(pair) = places_of(table, hash()) else { return };
        let (word, found) = (word(at, now), pair.map(|place| place.load(Ordering::Relaxed)));
        if !found.contains(&word) {
            let is_taken = found.map(|found| found >> PLACE_BITS == time(now));
            pair[usize::from(is_taken == [true, false])].store(word, Ordering::Relaxed);
        }
    }
}

/// The two places of a name, in one cache line.
fn places_of(table: &[AtomicU64], hash: u32) -> Option<[&AtomicU64; 2]> {
    let first = hash as usize & (table.len() - 1);
    Some([table.get(first)?, table.get(first ^ 1)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ext2_sync::{IoLock, Rank};

    #[test]
    fn a_place_counts_until_somebody_changes_the_directory() {
        let (places, lock) = (Places::new(), IoLock::new(Rank::Io));
        let find = |now| places.find(|| 7, now).next();
        let now = lock.glance().unwrap();
        assert_eq!(find(now), None);
        // An inode that is searched a few times has no table.
        (0..4).for_each(|_| places.note(|| 7, 24, 4096, now));
        assert!(places.table.get().is_none());
        (0..64).for_each(|_| places.note(|| 7, 24, 4096, now));
        assert_eq!(find(now), Some(24));
        drop(lock.write());
        let now = lock.glance().unwrap();
        assert_eq!(find(now), None);
        places.note(|| 7, 64 << 20, 4096, now);
        places.note(|| 7, 26, 4096, now);
        assert_eq!(find(now), None);
        places.note(|| 7, (64 << 20) - 12, 4096, now);
        assert_eq!(find(now), Some((64 << 20) - 12));
    }

    #[test]
    fn names_that_meet_in_a_place_both_have_one() {
        let (places, lock) = (Places::new(), IoLock::new(Rank::Io));
        let now = lock.glance().unwrap();
        // OK to cast: 64.
        let other = PLACES.0 as u32;
        (0..64).for_each(|_| places.note(|| 0, 24, 0, now));
        places.note(|| other, 48, 0, now);
        for hash in [0, other] {
            assert_eq!(places.find(|| hash, now).collect::<std::vec::Vec<_>>(), [24, 48]);
        }
    }
}
