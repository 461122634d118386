//! A part of a file of the host as a device: for what is done to an image while it is made.

use std::fs::File;
use std::os::unix::fs::FileExt;

use blockdev::{BlockDevice, Error, Result};

/// Bytes `offset..offset + len` of a file that is open; no lock is taken. Nothing grows the file: give it its length
/// first.
#[derive(Debug)]
pub struct FileRange<'f> {
    file: &'f File,
    offset: u64,
    len: u64,
}

/// Bytes of zeros that are written at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl<'f> FileRange<'f> {
    /// The part of `len` bytes from byte `offset`.
    #[must_use]
    pub fn new(file: &'f File, offset: u64, len: u64) -> Self {
        Self { file, offset, len: len.min(u64::MAX - offset) }
    }

    fn check(&self, offset: u64, len: u64) -> Result<u64> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(self.offset + offset),
            _ => Err(Error::OutOfRange { offset, len, size: self.len }),
        }
    }
}

fn failed(op: &'static str, offset: u64, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull => Error::NoSpace { offset },
        _ => Error::Io { op, offset, errno: error.raw_os_error(), message: error.to_string() },
    }
}

impl BlockDevice for FileRange<'_> {
    fn size(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let at = self.check(offset, buf.len() as u64)?;
        self.file.read_exact_at(buf, at).map_err(|error| failed("read", offset, &error))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let at = self.check(offset, buf.len() as u64)?;
        self.file.write_all_at(buf, at).map_err(|error| failed("write", offset, &error))
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.check(offset, len)?;
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let len = (end - at).min(ZEROS.len() as u64);
            self.write_at(at, &ZEROS[..len as usize])?;
            at += len;
        }
        Ok(())
    }

    fn fence(&self) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| failed("flush", 0, &error))
    }
}
