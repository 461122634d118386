//! Small files that were read when they were looked at: a file of few bytes costs more to find and open again than to keep.
//!
//! # Invariants
//! No more bytes are kept than [`BUDGET`], whatever there is; those of other files are read when they are wanted.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of the largest file that is kept.
pub(super) const LARGEST: usize = 4096;
/// Bytes that are kept in all.
const BUDGET: usize = 32 << 20;
/// Bytes that lie behind each other in memory.
const CHUNK: usize = 1 << 20;

/// What may still be kept, for all who look.
#[derive(Debug)]
pub(super) struct Room(AtomicUsize);

impl Room {
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(BUDGET))
    }

    /// Whether a file of so many bytes may be kept; the room for it is taken then.
    pub(super) fn take(&self, size: usize) -> bool {
        size <= LARGEST
            && self
                .0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(size))
                .is_ok()
    }
}

/// The bytes of files.
#[derive(Debug, Default)]
pub(super) struct Kept(Vec<Vec<u8>>);

impl Kept {
    /// Keeps the bytes of a file, and gives the handle to find them by, which is never 0.
    pub(super) fn push(&mut self, bytes: &[u8]) -> u64 {
        if self.0.last().is_none_or(|last| last.len() + bytes.len() > CHUNK) {
            self.0.push(Vec::with_capacity(CHUNK));
        }
        let chunk = self.0.len() - 1;
        let Some(last) = self.0.last_mut() else { unreachable!("one was pushed") };
        let place = (chunk * CHUNK + last.len()) as u64;
        last.extend_from_slice(bytes);
        place + 1
    }

    /// The `size` bytes behind a handle.
    pub(super) fn get(&self, handle: u64, size: u64) -> Option<&[u8]> {
        let place = usize::try_from(handle.checked_sub(1)?).ok()?;
        let start = place % CHUNK;
        self.0.get(place / CHUNK)?.get(start..start.checked_add(usize::try_from(size).ok()?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_again_and_has_an_end() {
        let (mut kept, room, mut files) = (Kept::default(), Room::new(), Vec::new());
        assert!(!room.take(LARGEST + 1));
        for n in 0.. {
            let size = if n % 3 == 0 { LARGEST } else { n % LARGEST };
            if !room.take(size) {
                break;
            }
            files.push((kept.push(&vec![n as u8; size]), n as u8, size as u64));
        }
        assert!(files.iter().map(|(.., size)| *size).sum::<u64>() > (BUDGET - LARGEST) as u64);
        for (handle, byte, size) in files {
            let found = kept.get(handle, size).unwrap();
            assert!(found.len() as u64 == size && found.iter().all(|there| *there == byte));
        }
        assert!(
            kept.get(0, 1).is_none() && kept.get(u64::MAX, 1).is_none() && kept.get(1, u64::MAX).is_none()
        );
    }
}
