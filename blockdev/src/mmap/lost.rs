//! Accesses through the map that the system refused.
//!
//! A bus error says where and not why. The file says why: the same access by a system call gives an error with a name,
//! or succeeds, as a load from a hole does on a tmpfs that is full. Persistent memory is not asked this way: stores
//! to it count when they are in the map.

use std::os::unix::fs::FileExt;

use alloc::format;

use super::MmapDevice;
use crate::mem::{Fault, Media};
use crate::open::io_error;
use crate::{Error, PAGE_SIZE, Result};

const ZEROS: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];

impl MmapDevice {
    /// Whether somebody has truncated the file to less than `end` bytes.
    pub(super) fn is_shorter_than(&self, end: u64) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() < end)
    }

    /// Whether the file may be asked about a fault in the `len` bytes from `offset`; the error where it may not, or is
    /// known to be shorter.
    fn ask_file(&self, fault: Fault, op: &'static str, offset: u64, len: usize) -> Result<()> {
        // Only computed: it lies in the region, as the fault came from there.
        let at = self.base.0.wrapping_add(offset as usize);
        let error = || fault.error(op, at, len, offset);
        if self.media == Media::Persistent || fault.is_poison() || !fault.is_in(at, len) {
            return Err(error());
        }
        let metadata = self.file.metadata().map_err(|error| io_error(op, offset, error))?;
        if metadata.is_file() && metadata.len() < offset + len as u64 {
            let mut error = error();
            if let Error::Io { message, .. } = &mut error {
                *message = format!(
                    "the image was truncated while it was open: it has {} bytes of {}",
                    metadata.len(),
                    self.size
                );
            }
            return Err(error);
        }
        log::debug!("{op} of {len} bytes at {offset} goes through the file: {:?}", error());
        Ok(())
    }

    /// A load that met a page which the system cannot supply.
    #[cold]
    pub(super) fn load_lost(&self, fault: Fault, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.ask_file(fault, "load", offset, buf.len())?;
        self.file.read_exact_at(buf, offset).map_err(|error| io_error("read", offset, error))
    }

    /// A store that did.
    #[cold]
    pub(super) fn store_lost(&self, fault: Fault, offset: u64, buf: &[u8]) -> Result<()> {
        self.ask_file(fault, "store", offset, buf.len())?;
        self.file.write_all_at(buf, offset).map_err(|error| io_error("write", offset, error))
    }

    /// Zeros that did.
    #[cold]
    pub(super) fn zeros_lost(&self, fault: Fault, offset: u64, len: u64) -> Result<()> {
        // OK to cast: the range lies in the region.
        self.ask_file(fault, "store", offset, len as usize)?;
        let mut done = 0;
        while done < len {
            // OK to cast: at most a page.
            let piece = &ZEROS[..(len - done).min(PAGE_SIZE) as usize];
            let at = offset + done;
            self.file.write_all_at(piece, at).map_err(|error| io_error("write", at, error))?;
            done += piece.len() as u64;
        }
        Ok(())
    }

    /// Words that did: each is one store still.
    #[cold]
    pub(super) fn words_lost(&self, fault: Fault, offset: u64, words: &[u32]) -> Result<()> {
        self.ask_file(fault, "store", offset, size_of_val(words))?;
        for (word, at) in words.iter().zip((offset..).step_by(4)) {
            self.file.write_all_at(&word.to_le_bytes(), at).map_err(|error| io_error("write", at, error))?;
        }
        Ok(())
    }
}
