//! The blocks of a new directory: names one after the other, none across the end of a block.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::IntoBytes;

use ext2_core::raw::{DIRENT_HEADER, RawDirentHeader, dirent_size};
use ext2_core::{BlockSize, FileKind};

/// Bytes that `lost+found` has at least, so that e2fsck need not allocate, and blocks that it has at most for it.
const LOST_AND_FOUND: (u64, u64) = (16 << 10, 12);

/// Blocks that `lost+found` gets whatever is in it: 16 KiB, but 2 to 12 blocks, as mke2fs gives it.
pub(super) fn lost_and_found_blocks(block_size: BlockSize) -> u64 {
    block_size.blocks_for(LOST_AND_FOUND.0).clamp(2, LOST_AND_FOUND.1)
}

/// Blocks that a directory with names of these lengths takes, `.` and `..` besides.
pub(super) fn blocks(block_size: BlockSize, names: impl Iterator<Item = usize>) -> u64 {
    let mut blocks = 1;
    let mut used = dirent_size(1) + dirent_size(2);
    for len in names {
        let size = dirent_size(len);
        if used + size > block_size.len() {
            (blocks, used) = (blocks + 1, 0);
        }
        used += size;
    }
    blocks
}

/// A name to be written.
pub(super) struct Name<'n> {
    pub(super) inode: u32,
    pub(super) kind: FileKind,
    pub(super) name: &'n [u8],
}

/// Builds the blocks of a directory.
#[derive(Debug)]
pub(super) struct DirWriter {
    block: Vec<u8>,
    used: usize,
    /// Where the last entry of the block begins.
    last: usize,
    file_types: bool,
}

impl DirWriter {
    /// `file_types`: whether names carry the kind of file (feature `filetype`).
    pub(super) fn new(block_size: BlockSize, file_types: bool) -> Self {
        Self { block: vec![0; block_size.len()], used: 0, last: 0, file_types }
    }

    /// Adds a name. Gives the block to `full` first where the name no longer fits.
    pub(super) fn add<E>(
        &mut self,
        name: &Name<'_>,
        full: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let size = dirent_size(name.name.len());
        if self.used + size > self.block.len() {
            full(self.finish_block())?;
            self.block.fill(0);
            self.used = 0;
        }
        let file_type = if self.file_types { name.kind.dirent_type() } else { 0 };
        self.put(self.used, name.inode, size, name.name, file_type);
        self.last = self.used;
        self.used += size;
        Ok(())
    }

    fn put(&mut self, at: usize, inode: u32, len: usize, name: &[u8], file_type: u8) {
        let header = RawDirentHeader {
            inode: inode.into(),
            // 64 KiB does not fit and is written as the largest number that does.
            rec_len: u16::try_from(len).unwrap_or(u16::MAX).into(),
            name_len: name.len() as u8, // at most 255: the tree refuses longer ones
            file_type,
        };
        self.block[at..at + DIRENT_HEADER].copy_from_slice(header.as_bytes());
        self.block[at + DIRENT_HEADER..at + DIRENT_HEADER + name.len()].copy_from_slice(name);
    }

    /// Lets the last entry reach to the block's end.
    fn finish_block(&mut self) -> &[u8] {
        let len = u16::try_from(self.block.len() - self.last).unwrap_or(u16::MAX);
        self.block[self.last + 4..self.last + 6].copy_from_slice(&len.to_le_bytes());
        &self.block
    }

    /// The last block.
    pub(super) fn finish(&mut self) -> &[u8] {
        self.finish_block()
    }

    /// A block without a name.
    pub(super) fn empty(&mut self) -> &[u8] {
        self.block.fill(0);
        self.put(0, 0, self.block.len(), b"", 0);
        &self.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_and_found_has_the_size_that_mke2fs_gives_it() {
        let blocks = |bytes| lost_and_found_blocks(BlockSize::new(bytes).unwrap());
        assert_eq!([1024, 2048, 4096, 8192, 16384, 32768, 65536].map(blocks), [12, 8, 4, 2, 2, 2, 2]);
    }

    #[test]
    fn as_many_blocks_are_written_as_were_counted() {
        for count in [0, 1, 3, 4, 5, 50, 333] {
            let names: Vec<Vec<u8>> = (0..count).map(|nr| vec![b'n'; 1 + nr * 7 % 255]).collect();
            let size = BlockSize::new(1024).unwrap();
            let mut writer = DirWriter::new(size, true);
            let mut full = 0;
            for name in [&b"."[..], b".."].into_iter().chain(names.iter().map(Vec::as_slice)) {
                let name = Name { inode: 2, kind: FileKind::Directory, name };
                let counted = writer.add::<()>(&name, |_| {
                    full += 1;
                    Ok(())
                });
                assert_eq!(counted, Ok(()));
            }
            assert_eq!(full + 1, blocks(size, names.iter().map(Vec::len)), "{count}");
        }
    }
}
