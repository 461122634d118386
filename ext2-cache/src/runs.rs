//! The runs of a file's blocks that were found last, so that a lookup costs the same at every depth (Linux: the
//! extent status tree of ext4; its ext2 has nothing of the kind).
//!
//! # Invariants
//! 1. Only runs are kept, never holes: giving a file blocks makes nothing here untrue. Whoever takes a pointer
//!    away or changes it calls [`Runs::forget`] **after** its store and before it frees the block.
//! 2. Whoever looks the map up takes a [`Ticket`] **before** its first load, and what it found is kept under that
//!    ticket. So what was read of a pointer that then changed is never believed.
//! 3. Changes of the map do not look here: they see the pointers themselves, under the `map` lock. Only a write that
//!    finds all of its blocks here goes without both: it changes nothing.
//!
//! # Locking
//! None for readers. A set has a stamp, odd while somebody writes to it; a reader that sees it change has found
//! nothing, and a writer that finds it odd keeps nothing.

use alloc::boxed::Box;
use core::sync::atomic::{Ordering, fence};
use portable_atomic::AtomicU64;

use ext2_format::map::KnownRun;
use ext2_sync::Once;

/// Runs in a set, which then is a cache line.
const WAYS: usize = 3;

/// Sets that a file can have: 4 KiB of them.
const SETS: u64 = 64;

/// Logarithm of the fewest blocks that have a set of their own.
const FINEST: u32 = 7;

/// The time of a lookup: what it finds counts as long as nothing has been taken from the map since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// A place for a run: its start, and count and target as one word, 0 for none.
#[derive(Debug, Default)]
struct Way {
    start: AtomicU64,
    run: AtomicU64,
}

impl Way {
    fn get(&self) -> Option<KnownRun> {
        let run = self.run.load(Ordering::Relaxed);
        // OK to cast: the two halves.
        let (count, target) = ((run >> 32) as u32, run as u32);
        (count > 0).then(|| KnownRun { start: self.start.load(Ordering::Relaxed), count, target })
    }

    fn put(&self, run: Option<KnownRun>) {
        let (start, word) =
            run.map_or((0, 0), |run| (run.start, u64::from(run.count) << 32 | u64::from(run.target)));
        self.start.store(start, Ordering::Relaxed);
        self.run.store(word, Ordering::Relaxed);
    }
}

/// The runs around one part of the file.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set {
    stamp: AtomicU64,
    ticket: AtomicU64,
    ways: [Way; WAYS],
}

impl Set {
    /// The device block of `block`, and how many from there lie in a row, as far as is known.
    #[inline]
    fn find(&self, now: Ticket, block: u64) -> Option<(u64, u64)> {
        let stamp = self.stamp.load(Ordering::Acquire);
        if stamp & 1 == 1 || self.ticket.load(Ordering::Relaxed) != now.0 {
            return None;
        }
        let mut found = None;
        for way in &self.ways {
            let (start, run) = (way.start.load(Ordering::Relaxed), way.run.load(Ordering::Relaxed));
            let (count, target) = (run >> 32, run & u64::from(u32::MAX));
            let within = block.wrapping_sub(start);
            if within < count {
                found = Some((target + within, count - within));
                break;
            }
        }
        // The loads above come before this one.
        fence(Ordering::Acquire);
        found.filter(|_| self.stamp.load(Ordering::Relaxed) == stamp)
    }

    /// Adds a run: to one that it continues, or in the place of the shortest. A single block drives nothing out: in a
    /// file of such pieces that would be of no use.
    fn keep(&self, ticket: Ticket, run: KnownRun) {
        let is_full = self.ways.iter().all(|way| way.run.load(Ordering::Relaxed) != 0);
        if run.count == 1 && is_full && self.ticket.load(Ordering::Relaxed) == ticket.0 {
            return;
        }
        let stamp = self.stamp.load(Ordering::Relaxed);
        let odd = stamp | 1;
        let free = stamp & 1 == 0
            && self.stamp.compare_exchange(stamp, odd, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if !free {
            return;
        }
        // The stores below come after the one that made the stamp odd.
        fence(Ordering::Release);
        if self.ticket.load(Ordering::Relaxed) != ticket.0 {
            self.ticket.store(ticket.0, Ordering::Relaxed);
            self.ways.iter().for_each(|way| way.put(None));
        }
        let mut run = run;
        for way in &self.ways {
            if let Some(joined) = way.get().and_then(|other| run.joined(other)) {
                run = joined;
                way.put(None);
            }
        }
        let shortest = self.ways.iter().min_by_key(|way| way.get().map_or(0, |run| run.count));
        if let Some(way) = shortest {
            way.put(Some(run));
        }
        self.stamp.store(odd.wrapping_add(1), Ordering::Release);
    }
}

/// The sets of a file, and how many blocks have one, as a logarithm.
#[derive(Debug)]
struct Sets {
    log2: u32,
    all: Box<[Set]>,
}

/// The runs of a file's blocks that were found last.
///
/// Nothing taken from the map or changed in it is found after [`forget`](Self::forget), nor what a lookup found that had
/// begun before.
#[derive(Debug)]
pub struct Runs {
    now: AtomicU64,
    /// Made when the first run is kept.
    sets: Once<Sets>,
}

impl Default for Runs {
    fn default() -> Self {
        Self::new()
    }
}

impl Runs {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self { now: AtomicU64::new(0), sets: Once::new() }
    }

    /// For a lookup that begins: it is taken before its first load.
    #[inline]
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket(self.now.load(Ordering::Acquire))
    }

    /// The device block of `block` of the file, and how many from there lie in a row, as far as is known.
    #[inline]
    #[must_use]
    pub fn find(&self, block: u64) -> Option<(u64, u64)> {
        let sets = self.sets.get()?;
        // OK to cast: the remainder is below the number of sets, a power of two.
        let index = (block >> sets.log2) as usize & (sets.all.len() - 1);
        sets.all.get(index)?.find(self.ticket(), block)
    }

    /// Keeps what a lookup at `block` found, which began at `ticket`. `blocks` is the file's size in blocks.
    pub fn keep(&self, ticket: Ticket, block: u64, run: KnownRun, blocks: u64) {
        if ticket != self.ticket() {
            return;
        }
        let sets = self.sets.get_or_init(|| {
            let blocks = blocks.max(block + 1);
            let log2 = FINEST.max((blocks.div_ceil(SETS)).next_power_of_two().trailing_zeros());
            let count = (blocks.div_ceil(1 << log2)).next_power_of_two().min(SETS);
            Sets { log2, all: (0..count).map(|_| Set::default()).collect() }
        });
        // OK to cast: as in `find`.
        let index = (block >> sets.log2) as usize & (sets.all.len() - 1);
        if let Some(set) = sets.all.get(index) {
            set.keep(ticket, run);
        }
    }

    /// Something was taken from the map, or is another block now: nothing that was found before counts. To be called after
    /// the store that did it, and before the block is free.
    pub fn forget(&self) {
        self.now.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u64, count: u32, target: u32) -> KnownRun {
        KnownRun { start, count, target }
    }

    #[test]
    fn a_run_is_found_from_any_of_its_blocks_and_not_past_its_end() {
        let runs = Runs::new();
        assert_eq!(runs.find(5), None);
        runs.keep(runs.ticket(), 25, run(20, 10, 700), 1000);
        assert_eq!((runs.find(20), runs.find(29)), (Some((700, 10)), Some((709, 1))));
        assert_eq!((runs.find(19), runs.find(30)), (None, None));
    }

    #[test]
    fn neighbours_that_agree_become_one_run() {
        let runs = Runs::new();
        let ticket = runs.ticket();
        runs.keep(ticket, 0, run(0, 10, 100), 100);
        runs.keep(ticket, 20, run(20, 10, 120), 100);
        runs.keep(ticket, 10, run(8, 13, 108), 100);
        assert_eq!(runs.find(0), Some((100, 30)));
        // One that touches and lies elsewhere stays another.
        runs.keep(ticket, 30, run(30, 5, 131), 100);
        assert_eq!((runs.find(29), runs.find(30)), (Some((129, 1)), Some((131, 5))));
    }

    #[test]
    fn the_shortest_run_gives_way_but_not_to_a_single_block() {
        let runs = Runs::new();
        for (nr, count) in [(0, 9), (1, 3), (2, 8), (3, 2), (4, 1)] {
            runs.keep(runs.ticket(), nr * 20, run(nr * 20, count, 1000 * (nr as u32 + 1)), 100);
        }
        let found = [0, 20, 40, 60, 80].map(|block| runs.find(block).is_some());
        assert_eq!(found, [true, false, true, true, false]);
    }

    #[test]
    fn what_was_looked_up_before_something_was_taken_is_not_believed() {
        let runs = Runs::new();
        let early = runs.ticket();
        runs.keep(early, 0, run(0, 10, 100), 100);
        runs.forget();
        assert_eq!(runs.find(0), None);
        runs.keep(early, 0, run(0, 10, 100), 100);
        assert_eq!(runs.find(0), None);
        runs.keep(runs.ticket(), 0, run(0, 4, 900), 100);
        assert_eq!(runs.find(0), Some((900, 4)));
    }

    #[test]
    fn a_large_file_spreads_its_runs_over_all_sets() {
        let runs = Runs::new();
        let blocks = 1 << 18;
        for unit in 0..64 * WAYS as u64 {
            let start = unit * blocks / (64 * WAYS as u64);
            runs.keep(runs.ticket(), start, run(start, 1000, 1 + unit as u32 * 5000), blocks);
        }
        for unit in 0..64 * WAYS as u64 {
            assert!(runs.find(unit * blocks / (64 * WAYS as u64)).is_some(), "{unit}");
        }
        assert!(runs.find(1 << 41).is_none());
    }

    #[cfg(feature = "std")]
    #[test]
    fn many_threads_never_find_what_nobody_kept() {
        let runs = Runs::new();
        // The map at a time maps every block to itself, and as many thousands further.
        let at_time = |time: u64, block: u64| time * 1000 + block;
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let runs = &runs;
                scope.spawn(move || {
                    for nr in 0..20_000_u64 {
                        let block = (nr * 7 + thread * 13) % 40;
                        let ticket = runs.ticket();
                        if let Some((target, count)) = runs.find(block) {
                            assert!(count <= 40 && target % 1000 == block, "{block}: {target} {count}");
                            assert!(target >= at_time(ticket.0, block), "older than when the search began");
                        }
                        let start = block - block % 8;
                        runs.keep(ticket, block, run(start, 8, at_time(ticket.0, start) as u32), 40);
                        if thread == 0 && nr % 500 == 0 {
                            runs.forget();
                        }
                    }
                });
            }
        });
    }
}
