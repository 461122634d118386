//! Reads and writes of all that is asked for, and streams.

#[cfg(not(target_family = "wasm"))]
use std::io;

#[cfg(not(target_family = "wasm"))]
use ext2_core::FileAt;

use super::File;
use crate::error::{Errno, Error, Result};

impl File {
    /// Fills `buf` from byte `pos`.
    ///
    /// # Errors
    /// As for [`read_to`](Self::read_to); `ENODATA` where the file ends before that.
    pub fn read_exact_at(&self, pos: u64, buf: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            // OK to cast: at most the length of the slice.
            match self.read_at(pos.saturating_add(done as u64), rest)? as usize {
                0 => return Err(Error::refused(Errno::NODATA, "the file ends before what was asked for")),
                got => done += got,
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` at byte `pos`.
    ///
    /// # Errors
    /// As for [`write_from`](Self::write_from), after what was written before.
    pub fn write_all_at(&self, pos: u64, bytes: &[u8]) -> Result<()> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            // OK to cast: at most the length of the slice.
            match self.write_at(pos.saturating_add(done as u64), rest)? as usize {
                0 => return Err(Error::refused(Errno::NOSPC, "nothing more is written")),
                put => done += put,
            }
        }
        Ok(())
    }
}

/// A file is what a [`Cursor`](ext2_core::Cursor) moves in.
///
/// ```
/// use ext2_core::{Cursor, Ext2, FileKind, NewInode, OpenOptions};
/// use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};
/// use std::io::{Read, Seek, Write};
///
/// let fs = Ext2::open(ext2_image::mkfs::in_memory(8 << 20)?, &OpenOptions::default())?;
/// let inode = fs.root()?.create("notes", &NewInode::new(FileKind::Regular, 0o644))?;
/// let file = File::open(&DaxFs::new(fs, DaxOptions::default()), inode, OpenFor::Writing)?;
///
/// let mut cursor = Cursor::new(file);
/// write!(cursor, "one line")?;
/// cursor.rewind()?;
/// let mut text = String::new();
/// cursor.read_to_string(&mut text)?;
/// assert_eq!(text, "one line");
/// cursor.into_inner().sync()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[cfg(not(target_family = "wasm"))]
impl FileAt for File {
    fn read_bytes(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        Ok(self.read_at(offset, buf)? as usize)
    }

    fn write_bytes(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.write_at(offset, bytes)? as usize)
    }

    fn byte_count(&self) -> u64 {
        self.size()
    }
}
