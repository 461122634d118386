//! One block of a directory: its entries, checked (Linux: `ext2_check_folio`), and the bytes of new ones.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use zerocopy::FromBytes;

use crate::raw::{DIRENT_HEADER, RawDirentHeader, dirent_size};

/// An entry of a directory block, in use or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot<'b> {
    /// Where it begins in the block, in bytes.
    pub offset: usize,
    /// Bytes to the next one.
    pub rec_len: usize,
    /// The inode; 0 for an entry that is not in use.
    pub inode: u32,
    /// The type byte; 0 without `filetype`.
    pub file_type: u8,
    /// The name.
    pub name: &'b [u8],
}

impl Slot<'_> {
    /// Bytes at the end of the entry that hold nothing (all of it when it is not in use).
    pub fn slack(&self) -> usize {
        match self.inode {
            0 => self.rec_len,
            _ => self.rec_len.saturating_sub(dirent_size(self.name.len())),
        }
    }

    /// Whether it is in use under this name.
    pub fn is(&self, name: &[u8]) -> bool {
        self.inode != 0 && self.name == name
    }
}

/// What makes an entry impossible.
pub type Problem = String;

/// The entries of `block`, in order. A broken one is an error and the last item; `inodes` is the number of
/// inodes in the file system.
pub fn slots(block: &[u8], inodes: u32, has_type: bool) -> impl Iterator<Item = Result<Slot<'_>, Problem>> {
    let mut offset = 0;
    core::iter::from_fn(move || {
        if offset >= block.len() {
            return None;
        }
        let item = slot(block, offset, inodes, has_type);
        offset = match &item {
            Ok(slot) => offset + slot.rec_len,
            Err(_) => block.len(),
        };
        Some(item)
    })
}

/// The record length that `stored` stands for in a block of `block_len` bytes: 64 KiB does not fit in 16 bits.
pub fn decode_rec_len(stored: u16, block_len: usize) -> usize {
    match stored {
        0 | u16::MAX if block_len == 1 << 16 => block_len,
        len => usize::from(len),
    }
}

/// The entry at byte `offset` of `block`, whose directory lies in a file system of `inodes` inodes, with types in its entries
/// or without.
///
/// # Errors
/// What is wrong with it.
pub fn slot(block: &[u8], offset: usize, inodes: u32, has_type: bool) -> Result<Slot<'_>, Problem> {
    let rest = block.get(offset..).unwrap_or_default();
    let Ok((header, after)) = RawDirentHeader::read_from_prefix(rest) else {
        return Err(format!("entry at {offset} does not fit in the block"));
    };
    let rec_len = decode_rec_len(header.rec_len.get(), block.len());
    let name_len = usize::from(header.name_len);
    if rec_len < DIRENT_HEADER + 4 || !rec_len.is_multiple_of(4) || rec_len > rest.len() {
        return Err(format!("entry at {offset} has a length of {rec_len}"));
    }
    if dirent_size(name_len) > rec_len {
        return Err(format!("entry at {offset} has a name of {name_len} bytes in {rec_len}"));
    }
    let inode = header.inode.get();
    if inode > inodes {
        return Err(format!("entry at {offset} is for inode {inode}, past the last"));
    }
    let name = after.get(..name_len).unwrap_or_default();
    Ok(Slot { offset, rec_len, inode, file_type: if has_type { header.file_type } else { 0 }, name })
}

/// A record length as it is stored: 64 KiB does not fit in 16 bits.
#[must_use]
pub fn encode_rec_len(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

/// The bytes of an entry with a name of at most 255 bytes, without the rest of its record. Without `filetype` the type byte
/// is 0.
#[must_use]
pub fn entry_bytes(inode: u32, rec_len: usize, name: &[u8], file_type: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(dirent_size(name.len()));
    bytes.extend(inode.to_le_bytes());
    bytes.extend(encode_rec_len(rec_len).to_le_bytes());
    // OK to cast: names are at most 255 bytes, checked where they come in.
    bytes.extend([name.len() as u8, file_type]);
    bytes.extend(name);
    bytes.resize(dirent_size(name.len()), 0);
    bytes
}

/// The block `old`, of a file system of `inodes` inodes, without the entry at byte `gone` and with the last of `kept` in a place of its own: in slack if there is
/// enough. Otherwise the entries are packed, in their order, and the answer says where those lay and lie that stay. All of `kept`, each an
/// inode, a type and a name, have to fit into the block.
#[must_use]
pub fn rebuild(
    old: &[u8],
    gone: usize,
    inodes: u32,
    kept: &[(u32, u8, Vec<u8>)],
) -> (Vec<u8>, Option<Vec<(u32, u32)>>) {
    let Some(((inode, kind, name), stay)) = kept.split_last() else { return (old.to_vec(), None) };
    let need = dirent_size(name.len());
    // Offset, length, and bytes in use of what stays; that which is removed is slack of the one before.
    let mut layout: Vec<(usize, usize, usize)> = Vec::new();
    for slot in slots(old, inodes, true).map_while(Result::ok) {
        let removed = slot.offset == gone;
        match layout.last_mut() {
            Some(before) if removed => before.1 += slot.rec_len,
            _ => layout.push((
                slot.offset,
                slot.rec_len,
                if removed || slot.inode == 0 { 0 } else { dirent_size(slot.name.len()) },
            )),
        }
    }
    let put = |block: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        if let Some(place) = block.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    if let Some(&(offset, rec_len, used)) =
        layout.iter().find(|(_, rec_len, used)| rec_len.saturating_sub(*used) >= need)
    {
        let mut block = old.to_vec();
        for &(offset, rec_len, used) in &layout {
            put(&mut block, offset + 4, &encode_rec_len(rec_len).to_le_bytes());
            if used == 0 {
                put(&mut block, offset, &[0; 4]);
            }
        }
        put(&mut block, offset + used, &entry_bytes(*inode, rec_len - used, name, *kind));
        if used > 0 {
            put(&mut block, offset + 4, &encode_rec_len(used).to_le_bytes());
        }
        return (block, None);
    }
    let mut packed = Vec::with_capacity(old.len());
    // A block has at most 64 KiB.
    let stayed = layout.iter().filter(|(.., used)| *used > 0).map(|(offset, ..)| *offset as u32);
    let mut places = Vec::with_capacity(stay.len());
    for ((inode, kind, name), before) in stay.iter().zip(stayed) {
        places.push((before, packed.len() as u32));
        packed.extend(entry_bytes(*inode, dirent_size(name.len()), name, *kind));
    }
    packed.extend(entry_bytes(*inode, old.len().saturating_sub(packed.len()), name, *kind));
    packed.resize(old.len(), 0);
    (packed, Some(places))
}

/// The first block of a new directory, `len` bytes: `.` and `..` fill it. `kind` is the type byte of directories, or 0.
#[must_use]
pub fn first_block(len: usize, own: u32, parent: u32, kind: u8) -> Vec<u8> {
    let mut block = entry_bytes(own, 12, b".", kind);
    block.extend(entry_bytes(parent, len.saturating_sub(12), b"..", kind));
    block.resize(len, 0);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(inode: u32, rec_len: u16, name: &[u8]) -> Vec<u8> {
        let mut bytes = inode.to_le_bytes().to_vec();
        bytes.extend(rec_len.to_le_bytes());
        bytes.extend([name.len() as u8, 1]);
        bytes.extend(name);
        bytes.resize(rec_len.into(), 0);
        bytes
    }

    #[test]
    fn entries_that_fill_a_block_are_read_in_order() {
        let block = [entry(5, 12, b"a"), entry(0, 16, b"gone"), entry(6, 36, b"long name")].concat();
        let read: Vec<_> = slots(&block, 10, true).map(Result::unwrap).collect();
        assert_eq!(read.iter().map(|slot| slot.inode).collect::<Vec<_>>(), [5, 0, 6]);
        assert_eq!(read.iter().map(Slot::slack).collect::<Vec<_>>(), [0, 16, 16]);
        assert!(read[2].is(b"long name"));
        assert!(!read[1].is(b"gone"));
    }

    #[test]
    fn broken_entries_end_the_block_with_an_error() {
        let cases: [(Vec<u8>, &str); 6] = [
            (entry(5, 12, b"a")[..8].to_vec(), "length"),
            (entry(5, 12, b"a")[..5].to_vec(), "does not fit"),
            ([&entry(5, 12, b"a")[..4], &[0, 0, 1, 1, 0, 0, 0, 0]].concat(), "length"),
            ([&entry(5, 14, b"a")[..], &[0; 2]].concat(), "length"),
            ([&entry(5, 12, b"a")[..6], &[9, 1, b'a', 0, 0, 0]].concat(), "name"),
            (entry(11, 12, b"a"), "inode"),
        ];
        for (block, why) in cases {
            let last = slots(&block, 10, true).last().unwrap();
            assert!(last.clone().unwrap_err().contains(why), "{last:?} for {why}");
            assert_eq!(slots(&block, 10, true).count(), 1);
        }
    }

    #[test]
    fn an_entry_without_a_name_keeps_the_room_that_an_entry_has_at_least() {
        let block = entry(5, 32, b"");
        let read: Vec<_> = slots(&block, 10, true).map(Result::unwrap).collect();
        assert_eq!(read.iter().map(Slot::slack).collect::<Vec<_>>(), [20]);
        let kept = [(5, 1, b"".to_vec()), (6, 1, b"a".to_vec())];
        for (old, gone) in [(entry(5, 24, b""), 24), ([entry(5, 12, b""), entry(6, 12, b"b")].concat(), 12)] {
            let (fresh, _) = rebuild(&old, gone, 10, &kept);
            assert_eq!(
                slots(&fresh, 10, true).map(|slot| slot.unwrap().rec_len).collect::<Vec<_>>(),
                [12, 12]
            );
        }
    }

    #[test]
    fn a_record_of_64_kib_is_stored_as_all_ones_or_zero() {
        assert_eq!(decode_rec_len(u16::MAX, 65536), 65536);
        assert_eq!(decode_rec_len(0, 65536), 65536);
        assert_eq!(decode_rec_len(65532, 65536), 65532);
        assert_eq!(decode_rec_len(0, 4096), 0);
    }
}
