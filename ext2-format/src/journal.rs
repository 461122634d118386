//! What stands in a journal: the records of Linux's `jbd2` (include/linux/jbd2.h). All numbers are big-endian.

use alloc::vec;
use alloc::vec::Vec;

/// Begins every block of the log that is no image of a block (Linux: `JBD2_MAGIC_NUMBER`).
pub const MAGIC: u32 = 0xc03b_3998;
/// The kind of a record that names the blocks behind it (Linux: `JBD2_DESCRIPTOR_BLOCK`).
pub const DESCRIPTOR: u32 = 1;
/// The kind of a record that ends a transaction (Linux: `JBD2_COMMIT_BLOCK`).
pub const COMMIT: u32 = 2;
/// The kinds of superblocks, of the two versions.
pub const SUPERBLOCKS: [u32; 2] = [3, 4];

/// Flags of a tag in a descriptor.
const ESCAPED: u16 = 1;
const SAME_UUID: u16 = 2;
const LAST_TAG: u16 = 8;

/// Bytes of the header of a record, of a tag, and of the UUID behind the first tag.
const HEADER: usize = 12;
const TAG: usize = 8;
const UUID: usize = 16;

/// Byte of a journal's superblock at which the number of the first transaction lies.
pub const S_SEQUENCE: usize = 24;
/// Byte at which the block lies where the log begins; 0 for an empty log.
pub const S_START: usize = 28;
/// Byte, in what the format leaves free, at which e2dax says that the log is its own.
pub const S_MARK: usize = 0x80;
/// What it says there.
pub const MARK: &[u8; 8] = b"e2daxlog";
/// Byte at which it says that the journal was made for the log, and goes with it.
pub const S_MADE: usize = 0x88;

/// The fewest blocks of a journal (Linux: `JBD2_MIN_JOURNAL_BLOCKS`).
pub const LEAST: u32 = 1024;

/// The big-endian number at a byte; bytes past the end count as 0.
#[must_use]
pub fn big(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.iter_mut().zip(bytes.iter().skip(at)).for_each(|(to, from)| *to = *from);
    u32::from_be_bytes(four)
}

/// Puts a big-endian number at a byte; nothing where it does not fit.
pub fn put(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// A record's block of `len` bytes, with its header and nothing behind it.
#[must_use]
pub fn block(len: usize, kind: u32, sequence: u32) -> Vec<u8> {
    let mut block = vec![0; len];
    put(&mut block, 0, MAGIC);
    put(&mut block, 4, kind);
    put(&mut block, 8, sequence);
    block
}

/// The superblock of a new, empty log of so many blocks, each of `len` bytes.
#[must_use]
pub fn superblock(len: usize, blocks: u32, sequence: u32) -> Vec<u8> {
    let mut head = block(len, SUPERBLOCKS[1], 0);
    put(&mut head, 12, u32::try_from(len).unwrap_or_default());
    put(&mut head, 16, blocks);
    put(&mut head, 20, 1);
    put(&mut head, S_SEQUENCE, sequence);
    put(&mut head, S_START, 0);
    // One user.
    put(&mut head, 64, 1);
    head
}

/// How many tags fit into a descriptor of `len` bytes.
#[must_use]
pub fn tags_in(len: usize) -> usize {
    len.saturating_sub(HEADER + UUID) / TAG
}

/// A descriptor of the blocks with these numbers, and whether the image of each begins as a record does. What does
/// not fit is left out.
#[must_use]
pub fn descriptor(len: usize, sequence: u32, blocks: &[(u32, bool)]) -> Vec<u8> {
    let mut record = block(len, DESCRIPTOR, sequence);
    let mut at = HEADER;
    for (n, (nr, escaped)) in blocks.iter().enumerate() {
        let mut flags = if *escaped { ESCAPED } else { 0 };
        flags |= if n > 0 { SAME_UUID } else { 0 };
        flags |= if n + 1 == blocks.len() { LAST_TAG } else { 0 };
        put(&mut record, at, *nr);
        put(&mut record, at + 4, flags.into());
        at += TAG + if n == 0 { UUID } else { 0 };
    }
    record
}

/// The tags of a descriptor: the number of each block, and whether it is escaped.
#[must_use]
pub fn tags(record: &[u8]) -> Vec<(u32, bool)> {
    let (mut at, mut tags) = (HEADER, Vec::new());
    while at + TAG <= record.len() {
        // OK to cast: the lower half.
        let flags = big(record, at + 4) as u16;
        tags.push((big(record, at), flags & ESCAPED != 0));
        if flags & LAST_TAG != 0 {
            break;
        }
        at += TAG + if flags & SAME_UUID == 0 { UUID } else { 0 };
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_descriptor_names_is_read_from_it() {
        for len in [1024, 4096] {
            let most = tags_in(len);
            let all: Vec<_> = (0..most as u32).map(|n| (n * 7 + 3, n % 5 == 0)).collect();
            for count in [1, 2, most] {
                assert_eq!(tags(&descriptor(len, 9, &all[..count])), all[..count]);
            }
        }
        assert!(tags(&[0; 1024]).len() < 128, "a hostile one ends");
    }
}
