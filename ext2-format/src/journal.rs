//! What stands in a journal: the records of Linux's `jbd2` (include/linux/jbd2.h). All numbers are big-endian.

mod map;
mod naming;

pub use map::{COPIED, MODE, Map, copied};
pub use naming::{Step, forgetting, is_left, naming, settling};

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::InodeNr;
use crate::error::{Corrupt, Object, Result};
use crate::raw::RawInode;

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

/// Byte of a journal's superblock at which it says how many blocks are in use, itself among them.
pub const S_LEN: usize = 16;
/// Byte at which the number of the first transaction lies.
pub const S_SEQUENCE: usize = 24;
/// Byte at which the block lies where the log begins; 0 for an empty log.
pub const S_START: usize = 28;
/// Byte, in what the format leaves free, at which e2dax says that the log is its own.
pub const S_MARK: usize = 0x80;
/// What it says there.
pub const MARK: &[u8; 8] = b"e2daxlog";
/// Byte at which it says that the journal was made for the log, and goes with it.
pub const S_MADE: usize = 0x88;
/// The UUID in descriptors of e2dax. The mark in the superblock stays when a kernel uses the journal after it; this does not.
pub const OURS: &[u8; UUID] = b"e2daxlog\0\0\0\0\0\0\0\0";

/// The inode of a journal (Linux: `EXT4_JOURNAL_INO`).
pub const JOURNAL: InodeNr = InodeNr::new(8).unwrap();

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
    put(&mut head, S_LEN, blocks);
    put(&mut head, 20, 1);
    put(&mut head, S_SEQUENCE, sequence);
    put(&mut head, S_START, 0);
    // One user.
    put(&mut head, 64, 1);
    head
}

/// The superblock of a new, empty log of e2dax, and what it was `made` for.
#[must_use]
pub fn marked(len: usize, blocks: u32, sequence: u32, made: u8) -> Vec<u8> {
    let mut head = superblock(len, blocks, sequence);
    if let Some(place) = head.get_mut(S_MARK..S_MARK + MARK.len()) {
        place.copy_from_slice(MARK);
    }
    if let Some(place) = head.get_mut(S_MADE) {
        *place = made;
    }
    head
}

/// Whether this is the superblock of an empty journal with blocks of so many bytes, and without features that change its records.
#[must_use]
pub fn is_plain(head: &[u8], block_size: u64) -> bool {
    /// The incompatible feature that changes nothing: revoke records.
    const REVOKE: u32 = 1;
    big(head, 0) == MAGIC
        && SUPERBLOCKS.contains(&big(head, 4))
        && u64::from(big(head, 12)) == block_size
        && big(head, S_START) == 0
        && (big(head, 4) == SUPERBLOCKS[0] || big(head, 40) & !REVOKE == 0)
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

/// A descriptor, and behind it the blocks that it names, by their numbers, as they lie in a journal with this UUID: the first
/// word of one that begins as a record does is zero there.
#[must_use]
pub fn described<'b>(
    len: usize,
    sequence: u32,
    uuid: &[u8; UUID],
    blocks: &[(u32, &'b [u8])],
) -> Vec<Cow<'b, [u8]>> {
    let is_escaped = |bytes: &[u8]| bytes.starts_with(&MAGIC.to_be_bytes());
    let tags: Vec<_> = blocks.iter().map(|(nr, bytes)| (*nr, is_escaped(bytes))).collect();
    let mut head = descriptor(len, sequence, &tags);
    if let Some(place) = head.get_mut(HEADER + TAG..HEADER + TAG + UUID).filter(|_| !tags.is_empty()) {
        place.copy_from_slice(uuid);
    }
    let images = blocks.iter().map(|&(_, bytes)| {
        let mut image = Cow::Borrowed(bytes);
        if is_escaped(bytes) {
            put(image.to_mut(), 0, 0);
        }
        image
    });
    core::iter::once(Cow::Owned(head)).chain(images).collect()
}

/// A log of `blocks` blocks, each of `len` bytes, of which one transaction is all: from its superblock, which says what it was `made`
/// for, to a block that ends it whatever lies behind, since its number is not the one that would come next.
#[must_use]
pub fn whole<'b>(
    len: usize,
    blocks: u32,
    sequence: u32,
    made: u8,
    images: &[(u32, &'b [u8])],
) -> Vec<Cow<'b, [u8]>> {
    let mut head = marked(len, blocks, sequence, made);
    put(&mut head, S_START, 1);
    let mut log = vec![Cow::Owned(head)];
    for part in images.chunks(tags_in(len).max(1)) {
        log.extend(described(len, sequence, &[0; UUID], part));
    }
    log.extend([block(len, COMMIT, sequence), block(len, COMMIT, sequence)].map(Cow::Owned));
    log
}

/// Whether a block is the record with which a log begins, of this number, and e2dax did not write it.
#[must_use]
pub fn is_foreign(record: &[u8], sequence: u32) -> bool {
    let is_record = big(record, 0) == MAGIC && big(record, 8) == sequence;
    let uuid = record.get(HEADER + TAG..HEADER + TAG + UUID);
    is_record && (big(record, 4) != DESCRIPTOR || uuid != Some(OURS.as_slice()))
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

fn broken<T>(what: impl Into<String>) -> Result<T> {
    Err(Corrupt::new(Object::Inode(JOURNAL), what).into())
}

/// The blocks of the device that hold the journal of this inode, in order, and those that only lead to them. `load` reads
/// a block of `block_size` bytes.
///
/// # Errors
/// `Corrupt` for a journal with a hole, with blocks that are not of the file system's `blocks_count`, or larger than that;
/// and those of `load`.
pub fn blocks_of(
    raw: &RawInode,
    block_size: u64,
    blocks_count: u32,
    load: impl Fn(u32) -> Result<Vec<u8>>,
) -> Result<(Vec<u32>, Vec<u32>)> {
    let count = usize::try_from(u64::from(raw.i_size.get()) / block_size).unwrap_or(usize::MAX);
    // A journal larger than this is nobody's; its blocks are listed in memory.
    if count > 1 << 22 || count as u64 > u64::from(blocks_count.max(LEAST)) {
        return broken(format!("a journal of {count} blocks"));
    }
    let (mut data, mut leading) = (Vec::new(), Vec::new());
    for (slot, top) in raw.i_block.iter().enumerate() {
        if data.len() >= count {
            break;
        }
        let mut level = vec![top.get()];
        for _ in 0..slot.saturating_sub(11) {
            let mut below = Vec::new();
            for nr in level {
                if data.len() + below.len() >= count {
                    break;
                }
                if nr == 0 || nr >= blocks_count {
                    return broken(format!("the journal leads to block {nr}"));
                }
                leading.push(nr);
                let word = |four: &[u8]| four.try_into().map_or(0, u32::from_le_bytes);
                below.extend(load(nr)?.chunks_exact(4).map(word));
            }
            level = below;
        }
        data.extend(level.into_iter().take(count - data.len()));
    }
    if data.len() < count || data.iter().any(|&nr| nr == 0 || nr >= blocks_count) {
        return broken("the journal has a hole, or a block that there is not");
    }
    Ok((data, leading))
}

/// What complete transactions hold, the newest image of each block, in a log of `blocks` blocks that begins at its block `start`
/// with the number `first`; and the number that would come next. `load` reads a block of the log by its place in it.
///
/// # Errors
/// `Corrupt` where the log begins past its end, or names a block past the last of `blocks_count`; and those of `load`.
pub fn replayed(
    blocks: usize,
    start: usize,
    first: u32,
    blocks_count: u32,
    load: impl Fn(usize) -> Result<Vec<u8>>,
) -> Result<(BTreeMap<u32, Vec<u8>>, u32)> {
    let (mut found, mut pending, mut next) = (BTreeMap::new(), BTreeMap::new(), first);
    if start >= blocks {
        return broken(format!("its journal begins at block {start}"));
    }
    let (mut at, mut steps) = (start, 0);
    let forward = |at: usize| if at + 1 == blocks { 1 } else { at + 1 };
    while start != 0 && steps < blocks {
        let record = load(at)?;
        if big(&record, 0) != MAGIC || big(&record, 8) != next {
            break;
        }
        (at, steps) = (forward(at), steps + 1);
        match big(&record, 4) {
            DESCRIPTOR => {
                for (nr, escaped) in tags(&record) {
                    let mut bytes = load(at)?;
                    if escaped {
                        put(&mut bytes, 0, MAGIC);
                    }
                    if nr >= blocks_count {
                        return broken(format!("its log names block {nr}"));
                    }
                    pending.insert(nr, bytes);
                    (at, steps) = (forward(at), steps + 1);
                }
            }
            COMMIT => {
                found.append(&mut pending);
                next = next.wrapping_add(1);
            }
            _ => break,
        }
    }
    Ok((found, next))
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

    #[test]
    fn a_log_of_one_transaction_is_read_as_it_was_written() {
        let images: Vec<_> = (0..300).map(|n| (n * 3 + 1, vec![n as u8; 1024])).collect();
        let parts: Vec<_> = images.iter().map(|(nr, bytes)| (*nr, bytes.as_slice())).collect();
        let mut log: Vec<Vec<u8>> = whole(1024, 400, 7, 3, &parts).into_iter().map(Cow::into_owned).collect();
        // What lies behind it from before, even with the number that would come next.
        log.resize(400, block(1024, COMMIT, 8));
        assert_eq!((&log[0][S_MARK..S_MARK + 8], log[0][S_MADE]), (MARK.as_slice(), 3));
        let (found, next) = replayed(400, 1, 7, 1000, |n| Ok(log[n].clone())).unwrap();
        assert_eq!((found, next), (images.iter().cloned().collect(), 8));
        assert!(replayed(400, 1, 7, 500, |n| Ok(log[n].clone())).is_err(), "a block past the end");
        assert!(replayed(400, 400, 7, 1000, |n| Ok(log[n].clone())).is_err());
        assert!(replayed(400, 0, 7, 1000, |n| Ok(log[n].clone())).unwrap().0.is_empty());
    }

    #[test]
    fn a_block_that_begins_as_a_record_lies_behind_its_descriptor_without_that() {
        let (plain, record) = ([7; 1024], block(1024, COMMIT, 5));
        let found = described(1024, 9, &[3; UUID], &[(20, &plain), (30, &record)]);
        assert_eq!(found.len(), 3);
        assert_eq!(tags(&found[0]), [(20, false), (30, true)]);
        assert_eq!(found[0][HEADER + TAG..HEADER + TAG + UUID], [3; UUID]);
        assert_eq!(found[1], &plain[..]);
        assert_eq!((big(&found[2], 0), &found[2][4..]), (0, &record[4..]));
    }

    #[test]
    fn a_journal_is_found_through_all_its_levels_and_a_wrong_one_refused() {
        use zerocopy::FromZeros as _;
        // 1,024 bytes: 12 direct, 256 through one leaf, then leaves on a root. Blocks 100 and up are data, 10 and up lead.
        let count = 12 + 256 + 300;
        let mut raw = RawInode::new_zeroed();
        raw.i_size = (count * 1024).into();
        (0..12).for_each(|n| raw.i_block[n] = (100 + n as u32).into());
        raw.i_block[12] = 10.into();
        raw.i_block[13] = 11.into();
        let words =
            |first: u32, len: u32| (first..first + len).flat_map(u32::to_le_bytes).collect::<Vec<u8>>();
        let load = |nr| {
            Ok(match nr {
                10 => words(112, 256),
                11 => words(12, 2),
                12 => words(368, 256),
                13 => words(624, 256),
                _ => unreachable!("{nr}"),
            })
        };
        let (data, leading) = blocks_of(&raw, 1024, 1000, load).unwrap();
        assert_eq!(data, (100..100 + count).collect::<Vec<_>>());
        assert_eq!(leading, [10, 11, 12, 13]);
        // A block past the end, at each level; one more than there are; a hole.
        assert!(blocks_of(&raw, 1024, 600, load).is_err());
        assert!(blocks_of(&raw, 1024, 11, load).is_err());
        raw.i_size = u32::MAX.into();
        assert!(blocks_of(&raw, 1024, 1000, load).is_err());
        raw.i_size = (3 * 1024).into();
        raw.i_block[1] = 0.into();
        assert!(blocks_of(&raw, 1024, 1000, load).is_err());
    }
}
