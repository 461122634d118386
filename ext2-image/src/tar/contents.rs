//! The bytes of a file, and where it has none.

use std::io::Write;

use ext2_core::{Corrupt, FileBlock, Inode, Object, Result as FsResult};

use super::header::BLOCK;
use super::write::{Error, Result};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// Reads contents, and counts what it reads.
#[derive(Debug)]
pub(super) struct Reader {
    /// Blocks that files may still have.
    budget: u64,
    buffer: Vec<u8>,
}

/// The data of a file: pairs of offset and bytes, ascending and apart, none past the end.
pub(super) struct Data {
    pub(super) spans: Vec<(u64, u64)>,
    pub(super) size: u64,
}

impl Data {
    /// Whether it is a sparse file.
    pub(super) fn has_holes(&self) -> bool {
        self.stored() < self.size
    }

    /// Bytes of data.
    pub(super) fn stored(&self) -> u64 {
        self.spans.iter().map(|span| span.1).sum()
    }

    /// The map before the data of a sparse file (GNU tar: format 1.0), filled up to a whole block.
    pub(super) fn map(&self) -> Vec<u8> {
        let ends_in_hole = self.spans.last().is_none_or(|&(offset, len)| offset + len < self.size);
        // A file that ends in a hole has an empty run at its end.
        let last = ends_in_hole.then_some((self.size, 0));
        let mut map = format!("{}\n", self.spans.len() + usize::from(ends_in_hole)).into_bytes();
        for (offset, len) in self.spans.iter().copied().chain(last) {
            map.extend_from_slice(format!("{offset}\n{len}\n").as_bytes());
        }
        map.resize(map.len().next_multiple_of(BLOCK), 0);
        map
    }
}

impl Reader {
    /// For a file system of so many blocks.
    pub(super) fn new(blocks: u64) -> Self {
        Self { budget: blocks, buffer: Vec::new() }
    }

    /// Where the data of a file is.
    pub(super) fn data(&mut self, inode: &Inode) -> FsResult<Data> {
        let size = inode.size();
        let block_size = inode.fs().geometry().block_size.bytes();
        let blocks = size.div_ceil(block_size);
        let mut spans: Vec<(u64, u64)> = Vec::new();
        let mut block = 0;
        while block < blocks {
            let mapping = inode.map(FileBlock::new(block), blocks - block)?;
            let offset = block.saturating_mul(block_size);
            block = mapping.end().get();
            if mapping.is_hole() {
                continue;
            }
            let Some(budget) = self.budget.checked_sub(mapping.count) else {
                let what = "the files up to this one have more blocks than the file system";
                return Err(Corrupt::new(Object::Inode(inode.nr()), what).into());
            };
            self.budget = budget;
            let len = block.saturating_mul(block_size).min(size) - offset;
            match spans.last_mut() {
                Some(last) if last.0 + last.1 == offset => last.1 += len,
                _ => spans.push((offset, len)),
            }
        }
        Ok(Data { spans, size })
    }

    /// Writes the data of a file, filled up to a whole block.
    pub(super) fn copy(
        &mut self,
        inode: &Inode,
        data: &Data,
        path: &[u8],
        out: &mut dyn Write,
    ) -> Result<()> {
        self.buffer.resize(CHUNK, 0);
        for &(offset, len) in &data.spans {
            let (mut at, end) = (offset, offset + len);
            while at < end {
                let want = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
                let buffer = self.buffer.get_mut(..want).unwrap_or_default();
                let read = inode.read_at(at, buffer).map_err(|error| Error::file(path, error))?;
                if read == 0 {
                    let what = "the file became shorter while it was read";
                    return Err(Error::Changed { path: path.into(), what });
                }
                out.write_all(buffer.get(..read).unwrap_or_default())?;
                at += read as u64;
            }
        }
        let rest = (data.stored() % BLOCK as u64) as usize;
        if rest > 0 {
            out.write_all(&[0; BLOCK][rest..])?;
        }
        Ok(())
    }
}
