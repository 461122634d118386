//! What goes into the partitions beside the file system.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::mkfs::{Error, Output, Result};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// Copies the first `len` bytes of a file to byte `offset` of a disk. `path` is the file's, for messages.
///
/// # Errors
/// `Source`; the output's.
pub fn copy(file: &File, len: u64, out: &dyn Output, offset: u64, path: &[u8]) -> Result<()> {
    if out.copy_file(offset, file, 0, len)? {
        return Ok(());
    }
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < len {
        let piece = &mut buffer[..(len - at).min(CHUNK as u64) as usize];
        file.read_exact_at(piece, at).map_err(|error| Error::source(path, error))?;
        out.write_at(offset + at, piece)?;
        at += piece.len() as u64;
    }
    Ok(())
}
