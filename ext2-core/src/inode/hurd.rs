//! What the Hurd keeps in the fields that Linux does not use: the block of an inode's passive translator (`h_i_translator`,
//! in the place of `i_osd1`), and its author (`h_i_author`, in that of `i_reserved2`). Both are kept as they are; the block
//! is the inode's own, and goes with it. Elsewhere the fields mean something else.

use super::Cell;
use crate::balloc::Run;
use crate::error::Result;
use crate::fs::Fs;
use crate::order::{Durable, Unlinked};
use crate::raw::RawInode;

/// `EXT2_OS_HURD` in `s_creator_os`.
const HURD: u32 = 1;

impl Fs {
    /// Whether the inodes are the Hurd's.
    pub(crate) fn is_hurd(&self) -> bool {
        self.sb.creator_os == HURD
    }

    /// The block of an inode's translator, if it has one.
    pub(crate) fn translator(&self, raw: &RawInode) -> Option<u32> {
        Some(raw.i_osd1.get()).filter(|&block| block != 0 && self.is_hurd())
    }
}

impl Cell {
    /// Frees the block of a dead inode's translator. That of an inode without a block map stays as the bitmap has it:
    /// e2fsck takes it for nobody's, and it may be another file's by now.
    pub(super) fn drop_translator(&self, gone: &Durable<Unlinked>) -> Result<()> {
        if !self.fs.is_hurd() || !self.has_blocks() {
            return Ok(());
        }
        let at = self.offset + core::mem::offset_of!(RawInode, i_osd1) as u64;
        let block = self.fs.dev.read_u32(at)?;
        if block == 0 {
            return Ok(());
        }
        self.fs.store_u32(at, 0)?;
        match self.fs.geo.data_block(block) {
            Some(start) => self.fs.free(gone, Run { start, len: 1 }),
            None => Err(self.corrupt(alloc::format!("translator in block {block}, outside the file system"))),
        }
    }
}
