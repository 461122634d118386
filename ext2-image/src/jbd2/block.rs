//! The blocks of the log: headers, tags of a descriptor, revocations, and their checksums. All numbers are big-endian.

use alloc::vec;
use alloc::vec::Vec;

use blockdev::BlockDevice;
use ext2_core::Result;
pub(super) use ext2_format::journal::{MAGIC as JOURNAL_MAGIC, big};

use super::ring::Ring;
use crate::crc::crc32c;

/// Bytes of a header: magic, kind, sequence.
const HEADER: usize = 12;
/// Flags of a tag: the copy begins with the magic number, which was taken out; no UUID follows; the last tag.
const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST: u32 = 8;

/// What a block of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Descriptor,
    Commit,
    Revocation,
}

/// A block of the log that belongs to a transaction.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) kind: Kind,
    pub(super) bytes: Vec<u8>,
}

/// A block that a transaction has a copy of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag {
    /// The block of the file system.
    pub(super) block: u64,
    pub(super) escaped: bool,
    sum: u32,
}

/// A log, read block by block.
pub(super) struct Log<'d> {
    dev: &'d dyn BlockDevice,
    ring: &'d Ring,
}

impl<'d> Log<'d> {
    pub(super) fn new(dev: &'d dyn BlockDevice, ring: &'d Ring) -> Self {
        Self { dev, ring }
    }

    /// Reads the bytes of a block of the journal.
    pub(super) fn read_bytes(&self, at: u32, bytes: &mut [u8]) -> Result<()> {
        Ok(self.dev.read_at(self.ring.offset(at), bytes)?)
    }

    /// The block at a place, if it belongs to a transaction.
    pub(super) fn read(&self, at: u32, sequence: u32) -> Result<Option<Block>> {
        let mut bytes = vec![0; self.ring.block_size];
        self.read_bytes(at, &mut bytes)?;
        if big(&bytes, 0) != JOURNAL_MAGIC || big(&bytes, 8) != sequence {
            return Ok(None);
        }
        let kind = match big(&bytes, 4) {
            1 => Kind::Descriptor,
            2 => Kind::Commit,
            5 => Kind::Revocation,
            _ => return Ok(None),
        };
        Ok(Some(Block { kind, bytes }))
    }

    fn has_sums(&self) -> bool {
        self.ring.sums_2 || self.ring.sums_3
    }

    /// Bytes of a descriptor or revocation without the checksum at its end.
    fn body<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let tail = if self.has_sums() { 4 } else { 0 };
        bytes.get(..bytes.len() - tail).unwrap_or_default()
    }

    /// The tags of a descriptor (Linux: `journal_tag_bytes` for their size).
    pub(super) fn tags(&self, bytes: &[u8]) -> Vec<Tag> {
        let large = self.ring.large;
        let size = match (self.ring.sums_3, self.ring.sums_2) {
            (true, _) => 16,
            (false, sums_2) => 8 + if sums_2 { 2 } else { 0 } + if large { 4 } else { 0 },
        };
        let body = self.body(bytes);
        let mut tags = Vec::new();
        let mut at = HEADER;
        while at + size <= body.len() {
            let (flags, sum) = match self.ring.sums_3 {
                true => (big(body, at + 4), big(body, at + 12)),
                // Two halves: checksum and flags.
                false => (big(body, at + 4) & 0xffff, big(body, at + 4) >> 16),
            };
            let high = if large { u64::from(big(body, at + 8)) << 32 } else { 0 };
            let block = high | u64::from(big(body, at));
            tags.push(Tag { block, escaped: flags & ESCAPED != 0, sum });
            at += size + if flags & SAME_UUID == 0 { 16 } else { 0 };
            if flags & LAST != 0 {
                break;
            }
        }
        tags
    }

    /// The blocks that a block of revocations names.
    pub(super) fn revoked(&self, bytes: &[u8]) -> Vec<u64> {
        let size = if self.ring.large { 8 } else { 4 };
        let end = (big(bytes, HEADER) as usize).min(self.body(bytes).len());
        let records = bytes.get(HEADER + 4..end).unwrap_or_default().chunks_exact(size);
        let number = |record: &[u8]| record.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        records.map(number).collect()
    }

    /// Whether the checksum at the end of a descriptor or revocation is right, or none is there.
    pub(super) fn has_tail_sum(&self, bytes: &[u8]) -> bool {
        if !self.has_sums() {
            return true;
        }
        let body = self.body(bytes);
        let sum = crc32c(crc32c(self.ring.seed, body), &[0; 4]);
        big(bytes, body.len()) == sum
    }

    /// Whether a copy is what its tag says.
    pub(super) fn is_whole(&self, tag: &Tag, sequence: u32, bytes: &[u8]) -> bool {
        if !self.has_sums() {
            return true;
        }
        let sum = crc32c(crc32c(self.ring.seed, &sequence.to_be_bytes()), bytes);
        if self.ring.sums_3 { tag.sum == sum } else { tag.sum == sum & 0xffff }
    }

    /// Whether a commit is whole. `sum` is the checksum of its transaction's blocks.
    pub(super) fn is_commit_whole(&self, bytes: &[u8], sum: u32) -> bool {
        const SUM: usize = 16;
        let found = big(bytes, SUM);
        if self.has_sums() {
            let mut bytes = bytes.to_vec();
            bytes.get_mut(SUM..SUM + 4).unwrap_or_default().fill(0);
            return found == crc32c(self.ring.seed, &bytes);
        }
        if !self.ring.sums_transactions {
            return true;
        }
        // Kind 1 is CRC-32, of 4 bytes; a commit without any has zeros.
        match (bytes.get(12), bytes.get(13)) {
            (Some(1), Some(4)) => found == sum,
            (Some(0), Some(0)) => found == 0,
            _ => false,
        }
    }
}
