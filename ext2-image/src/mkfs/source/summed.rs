//! Contents of a manifest for who reads them here and there: a file is summed before any of its bytes is given.
//!
//! Once it had the sum that the manifest says, it is not summed again: that it stays what it is has to be seen to by who reads
//! (see [`Contents::lies_in`]).

use std::sync::{Arc, OnceLock};

use crate::manifest::{ByteSpan, ContentCrc};
use crate::mkfs::{Body, Contents, Error, Result, SourceFile};

/// Bytes that are read at a time.
const PIECE: usize = 256 << 10;

/// The sum that a file has to have, and, once it was read, the one that it has.
#[derive(Debug)]
pub(super) struct Summed {
    wanted: u32,
    found: OnceLock<u32>,
}

impl Summed {
    pub(super) fn new(wanted: u32) -> Self {
        Self { wanted, found: OnceLock::new() }
    }
}

/// What a file is that is open.
struct Open {
    path: Vec<u8>,
    size: u64,
    index: usize,
    /// Where it has data, if it has holes.
    data: Option<Box<[ByteSpan]>>,
}

/// Files whose sums are looked at, by [`SourceFile::handle`].
pub(super) struct SummedFolder {
    folder: Box<dyn Contents + Send>,
    sums: Arc<[Option<Summed>]>,
    open: Option<Open>,
}

impl SummedFolder {
    pub(super) fn new(folder: Box<dyn Contents + Send>, sums: Arc<[Option<Summed>]>) -> Self {
        Self { folder, sums, open: None }
    }

    /// Reads the open file once, and says whether it is what the manifest says.
    fn check(&mut self) -> Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        let Some(Some(summed)) = self.sums.get(open.index) else { return Ok(()) };
        let found = match summed.found.get() {
            Some(found) => *found,
            None => {
                let whole = [ByteSpan { offset: 0, length: open.size }];
                let found = sum(&mut *self.folder, open.data.as_deref().unwrap_or(&whole), open.size)?;
                *summed.found.get_or_init(|| found)
            }
        };
        if found == summed.wanted {
            return Ok(());
        }
        let what = format!("its CRC-32 is {found:08x}, and the manifest says {:08x}", summed.wanted);
        Err(Error::source(&open.path, what))
    }
}

/// The sum of a file that has data in these places and holes between them.
fn sum(file: &mut dyn Contents, data: &[ByteSpan], size: u64) -> Result<u32> {
    let mut crc = ContentCrc::new();
    let mut buf = vec![0; PIECE];
    let mut at = 0;
    for span in data {
        crc.update_zeros(span.offset.saturating_sub(at));
        let mut left = span.length;
        at = span.offset;
        while left > 0 {
            // OK to cast: at most a piece.
            let piece = buf.get_mut(..left.min(PIECE as u64) as usize).unwrap_or_default();
            file.read_at(at, piece)?;
            crc.update(piece);
            (at, left) = (at + piece.len() as u64, left - piece.len() as u64);
        }
    }
    crc.update_zeros(size.saturating_sub(at));
    Ok(crc.finish())
}

impl Contents for SummedFolder {
    fn open(&mut self, file: &SourceFile<'_>) -> Result<()> {
        self.folder.open(file)?;
        let data = match file.tree.body(file.node) {
            Body::File { data, .. } => data.as_deref().map(Box::from),
            _ => None,
        };
        let index = usize::try_from(file.handle).unwrap_or(usize::MAX);
        self.open = Some(Open { path: file.path(), size: file.size, index, data });
        Ok(())
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check()?;
        self.folder.read_at(offset, buf)
    }

    fn close(&mut self) -> Result<()> {
        self.open = None;
        self.folder.close()
    }

    fn abandon(&mut self) {
        self.open = None;
        self.folder.abandon();
    }

    fn another(&self) -> Option<Box<dyn Contents + Send>> {
        Some(Box::new(Self::new(self.folder.another()?, Arc::clone(&self.sums))))
    }

    fn lies_in(&self) -> Option<&std::fs::File> {
        self.folder.lies_in()
    }

    fn host_file(&self) -> Option<(&std::fs::File, u64)> {
        let open = self.open.as_ref()?;
        let summed = self.sums.get(open.index)?.as_ref();
        // Not before it was looked at.
        let is_known = summed.is_none_or(|summed| summed.found.get() == Some(&summed.wanted));
        if is_known { self.folder.host_file() } else { None }
    }
}
