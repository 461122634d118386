//! A part of a file, read from its front to its end.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// Bytes of a file.
#[derive(Debug)]
pub(super) struct Blob {
    pub(super) file: File,
    pub(super) at: u64,
    pub(super) len: u64,
}

impl Read for Blob {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.len).unwrap_or(usize::MAX).min(buf.len());
        if len == 0 {
            return Ok(0);
        }
        let read = self.file.read_at(&mut buf[..len], self.at)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "is cut off"));
        }
        self.at += read as u64;
        self.len -= read as u64;
        Ok(read)
    }
}
