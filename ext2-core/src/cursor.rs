//! A place in a file, for what reads and writes streams.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::{Errno, Inode};

/// What a [`Cursor`] moves in: a file that is read and written at byte offsets through `&self`. [`Inode`] and
/// `ext2_dax::File` are.
pub trait FileAt {
    /// Reads from byte `offset`; fewer bytes than `buf` holds only at the end.
    ///
    /// # Errors
    /// The file's.
    fn read_bytes(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes at byte `offset`; fewer bytes than there are where space ends.
    ///
    /// # Errors
    /// The file's.
    fn write_bytes(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Bytes of the file.
    fn byte_count(&self) -> u64;
}

impl FileAt for Inode {
    fn read_bytes(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        Ok(self.read_at(offset, buf)?)
    }

    fn write_bytes(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(feature = "write")]
        return Ok(self.write_at(offset, bytes)?);
        #[cfg(not(feature = "write"))]
        {
            let _ = (offset, bytes);
            Err(Errno::ROFS.into())
        }
    }

    fn byte_count(&self) -> u64 {
        self.size()
    }
}

/// A file and a place in it: [`Read`], [`Write`] and [`Seek`]. Nothing is buffered, and `flush` has nothing to do; what is
/// to survive a crash needs the file's `sync`.
///
/// ```
/// use std::io::{Read, Seek, Write};
/// # use ext2_core::{Cursor, FileKind, NewInode};
/// # let fs = ext2_core::Ext2::open(ext2_image::mkfs::in_memory(1 << 20)?, &Default::default())?;
///
/// let file = fs.root()?.create("log", &NewInode::new(FileKind::Regular, 0o644))?;
/// let mut cursor = Cursor::new(file);
/// write!(cursor, "{} bytes", 7)?;
/// cursor.rewind()?;
/// let mut text = String::new();
/// cursor.read_to_string(&mut text)?;
/// assert_eq!(text, "7 bytes");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Cursor<F> {
    file: F,
    at: u64,
}

impl<F: FileAt> Cursor<F> {
    /// At the start of `file`.
    pub fn new(file: F) -> Self {
        Self { file, at: 0 }
    }

    /// The byte that comes next.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The file.
    pub fn get_ref(&self) -> &F {
        &self.file
    }

    /// The file, and no place.
    pub fn into_inner(self) -> F {
        self.file
    }
}

impl<F: FileAt> Read for Cursor<F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let done = self.file.read_bytes(self.at, buf)?;
        self.at += done as u64;
        Ok(done)
    }
}

impl<F: FileAt> Write for Cursor<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.file.write_bytes(self.at, bytes)?;
        self.at += done as u64;
        Ok(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: FileAt> Seek for Cursor<F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.file.byte_count().checked_add_signed(by),
        };
        self.at = at.ok_or(Errno::INVAL)?;
        Ok(self.at)
    }
}
