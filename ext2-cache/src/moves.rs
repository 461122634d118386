//! Where entries of a directory went that had to move, so that listings go on where they were.
//!
//! A name that grows in place may need room that a block has only when its entries are packed. Their order stays. A cookie
//! is a byte of the directory and the number of moves there were when it was given: what moved since is looked up here.
//!
//! # Invariants
//! 1. Moves are noted under the directory's `io` lock, held exclusive; cookies are made and read under it, shared.
//! 2. Cookies without a move are plain byte offsets. They are good as long as somebody holds the directory, and after
//!    that where no entry moved.
//!
//! # Locking
//! A leaf.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use ext2_sync::{Mutex, Rank};

/// Moves that are remembered of a directory: a listing that was left alone for longer goes on at the entry that lies
/// where its own was.
const MOVES_MAX: usize = 256;

/// The bits of a cookie that are the byte offset; a directory has less than 2 GiB.
const BYTE_BITS: u32 = 32;
/// The bits above them: the number of moves. A cookie is a positive `loff_t`.
const MOVE_MASK: u64 = (1 << (63 - BYTE_BITS)) - 1;

/// The entries of a block that moved.
#[derive(Debug)]
pub struct Move {
    /// The first byte of the directory that the block has.
    pub start: u64,
    /// The byte behind its last one.
    pub end: u64,
    /// Where each entry that stayed lay in the block, and where it lies now; in order.
    pub places: Vec<(u32, u32)>,
}

impl Move {
    /// Where a listing goes on that would have gone on at byte `at`.
    fn follow(&self, at: u64) -> u64 {
        let Some(within) = at.checked_sub(self.start).filter(|_| at < self.end) else { return at };
        match self.places.iter().find(|(old, _)| u64::from(*old) >= within) {
            Some((_, new)) => self.start + u64::from(*new),
            None => self.end,
        }
    }
}

#[derive(Debug)]
struct Noted {
    /// All there ever were.
    count: u64,
    /// The last of them.
    last: VecDeque<Move>,
}

/// The moves of a directory's entries since somebody holds it: a cookie of a listing leads to the entry that it stood before.
#[derive(Debug)]
pub struct Moves(Mutex<Noted>);

impl Default for Moves {
    fn default() -> Self {
        Self::new()
    }
}

impl Moves {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Rank::Leaf, Noted { count: 0, last: VecDeque::new() }))
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.lock().count
    }

    /// Notes one.
    pub fn push(&self, moved: Move) {
        let mut noted = self.0.lock();
        if noted.last.len() == MOVES_MAX {
            noted.last.pop_front();
        }
        noted.last.push_back(moved);
        noted.count += 1;
    }

    /// The byte of the directory at which a listing with this cookie goes on.
    pub fn byte_of(&self, cookie: u64) -> u64 {
        let (mut at, since) = (cookie & ((1 << BYTE_BITS) - 1), cookie >> BYTE_BITS);
        let noted = self.0.lock();
        // What is not of this directory's life in memory counts as a byte alone.
        let new = noted.count.saturating_sub(since).min(noted.last.len() as u64);
        // OK to cast: as many as are remembered.
        for moved in noted.last.iter().skip(noted.last.len() - new as usize) {
            at = moved.follow(at);
        }
        at
    }
}

/// The cookie of byte `at` of a directory, when there had been so many moves.
#[must_use]
pub fn cookie(at: u64, moves: u64) -> u64 {
    at | (moves & MOVE_MASK) << BYTE_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_leads_to_the_same_entry_however_often_it_moved() {
        let moves = Moves::new();
        let before = cookie(1024 + 60, 0);
        assert_eq!((before, moves.byte_of(before)), (1084, 1084));
        // Entries at 0, 40, 60 and 100; that at 40 is renamed.
        moves.push(Move { start: 1024, end: 2048, places: [(0, 0), (60, 12), (100, 24)].to_vec() });
        let between = cookie(1024 + 24, moves.count());
        assert_eq!(moves.byte_of(before), 1024 + 12);
        assert_eq!(moves.byte_of(cookie(1024 + 104, 0)), 2048);
        assert_eq!(moves.byte_of(between), 1024 + 24);
        assert_eq!([100, 1024, 2048].map(|at| moves.byte_of(at)), [100, 1024, 2048]);
        moves.push(Move { start: 1024, end: 2048, places: [(12, 0), (24, 16)].to_vec() });
        assert_eq!(moves.byte_of(before), 1024);
        assert_eq!(moves.byte_of(between), 1024 + 16);
    }

    #[test]
    fn cookies_of_nobodys_and_moves_beyond_memory_are_bytes() {
        let moves = Moves::new();
        assert_eq!(moves.byte_of(u64::MAX), u64::from(u32::MAX));
        for _ in 0..2 * MOVES_MAX {
            moves.push(Move { start: 0, end: 1024, places: [(24, 24)].to_vec() });
        }
        assert_eq!(moves.byte_of(cookie(24, 0)), 24);
        assert_eq!(moves.0.lock().last.len(), MOVES_MAX);
    }
}
