//! The disk as memory: files mapped where they lie.

use blockdev::{Arena, BlockDevice as _};

use super::{SegmentKind, Synthetic};
use crate::mkfs::Result;

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;

impl Synthetic {
    /// The disk as memory, for DAX without an image: structures are copied, whole pages of files are mapped. Each file takes a
    /// mapping, of which Linux gives a process 65,530 (`vm.max_map_count`).
    ///
    /// A file that changes afterwards changes in it: ask [`changed`](Self::changed).
    ///
    /// # Errors
    /// `Source` where a file has changed since the disk was made, `Fs` where the system maps no more.
    pub fn arena(&self) -> Result<Arena> {
        let mut arena = Arena::new(self.size())?;
        let mut buf = vec![0; PIECE];
        for segment in self.segments() {
            let end = segment.offset + segment.len;
            if segment.kind == SegmentKind::Zeros {
                continue;
            }
            if let SegmentKind::File { node, from } = segment.kind
                && let Ok((file, base)) = self.host_file(node)
            {
                arena.map(segment.offset, &file, base + from, segment.len)?;
                continue;
            }
            // Structures, and files that lie in pieces; one that has changed is an error here.
            let mut at = segment.offset;
            while at < end {
                let piece = &mut buf[..(end - at).min(PIECE as u64) as usize];
                self.read_at(at, piece)?;
                arena.copy(at, piece)?;
                at += piece.len() as u64;
            }
        }
        Ok(arena)
    }
}
