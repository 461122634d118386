//! A file that keeps what is written, above a device that stays as it is.
//!
//! # The file
//! A header of one page, a bitmap with a bit for each page of the device, and from the next page on the pages themselves, each
//! at its own place. What was never written is a hole of the file.
//!
//! # Invariants
//! 1. A bit reaches the media after the page that it speaks of: a page whose bit is not there is read from below.
//! 2. A bit in memory is set after its page was filled, and is never taken back.
//!
//! # Locking
//! `filling` is held while pages are brought up, `stored` while bits are written to the file; nobody takes both.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use alloc::vec::Vec;
use portable_atomic::{AtomicU64, Ordering};

use crate::file::punch;
use crate::image_file::ImageFile;
use crate::open::{io_error, open_file};
use crate::range::check;
use crate::sync::Mutex;
use crate::{BlockDevice, Claim, DeviceOptions, Durability, Error, Extent, PAGE_SIZE, Result};

const MAGIC: &[u8; 16] = b"e2dax overlay 1\n";
/// Bytes of the device below that tell whether it is the one that the overlay was made over.
const SAMPLE: u64 = 64 << 10;
const ZEROS: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];

/// A device over `D` that keeps what is written in a file, which can be opened again.
///
/// `flush` makes what was written durable in the file; `D` is never written. The device below has to stay as it is for as long as
/// the file is used; one that has another size or another first 64 KiB is refused.
#[derive(Debug)]
pub struct FileOverlay<D> {
    lower: D,
    file: ImageFile,
    durability: Durability,
    /// The byte of the file at which page 0 lies.
    data: u64,
    present: Vec<AtomicU64>,
    filling: Mutex<()>,
    stored: Mutex<Vec<u64>>,
    /// How often the file was made durable.
    #[cfg(test)]
    syncs: AtomicU64,
}

impl<D: BlockDevice> FileOverlay<D> {
    /// Opens the overlay in the file at `path`, which is made where there is none.
    ///
    /// # Errors
    /// `Io` with `op` `open` for a file that is no overlay, or one of another device; with `lock` where somebody has it open.
    pub fn open(lower: D, path: &Path, durability: Durability) -> Result<Self> {
        let size = lower.size();
        let pages = size.div_ceil(PAGE_SIZE);
        let words = pages.div_ceil(64);
        let data = PAGE_SIZE + (words * 8).next_multiple_of(PAGE_SIZE);
        match File::options().write(true).create_new(true).open(path) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error("open", 0, error)),
        }
        let (file, len) = open_file(path, &DeviceOptions::read_write())?;
        let header = header(&lower)?;
        let refuse = |what: &str| {
            let message = alloc::format!("{}: {what}", path.display());
            Err(Error::Io { op: "open", offset: 0, errno: None, message })
        };
        let io = |op| move |error| io_error(op, 0, error);
        let mut stored = alloc::vec![0; usize::try_from(words).unwrap_or(usize::MAX)];
        let mut found = [0; 64];
        if len >= 64 {
            file.read_exact_at(&mut found, 0).map_err(io("read"))?;
        }
        // Zeros of the right length are an overlay that a power cut left before its header.
        let is_new = len == 0 || len == data + size && found == [0; 64];
        if is_new {
            file.set_len(data + size).map_err(io("resize"))?;
            file.sync_all().map_err(io("flush"))?;
            file.write_all_at(&header, 0).map_err(io("write"))?;
            file.sync_all().map_err(io("flush"))?;
        } else {
            if found[..16] != *MAGIC {
                return refuse("is not an overlay");
            }
            if found != header || len != data + size {
                return refuse(
                    "is an overlay of another image, or of this one as it was before it was changed",
                );
            }
            let mut bytes = alloc::vec![0; stored.len() * 8];
            file.read_exact_at(&mut bytes, PAGE_SIZE).map_err(io("read"))?;
            for (word, bytes) in stored.iter_mut().zip(bytes.as_chunks().0) {
                *word = u64::from_le_bytes(*bytes);
            }
        }
        let present = stored.iter().map(|&word| AtomicU64::new(word)).collect();
        let (filling, stored) = (Mutex::new(()), Mutex::new(stored));
        Ok(Self {
            lower,
            file,
            durability,
            data,
            present,
            filling,
            stored,
            #[cfg(test)]
            syncs: AtomicU64::new(0),
        })
    }

    /// Pages that the file holds.
    pub fn pages(&self) -> u64 {
        self.present.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    fn is_present(&self, page: u64) -> bool {
        let word = self.present.get((page / 64) as usize);
        word.is_some_and(|word| word.load(Ordering::Acquire) >> (page % 64) & 1 == 1)
    }

    fn set_present(&self, pages: core::ops::Range<u64>) {
        for page in pages {
            if let Some(word) = self.present.get((page / 64) as usize) {
                word.fetch_or(1 << (page % 64), Ordering::Release);
            }
        }
    }

    /// The run of pages from that of `offset` which are all above or all below, cut at `len` bytes from there.
    fn run(&self, offset: u64, len: u64) -> (bool, u64) {
        let present = self.is_present(offset / PAGE_SIZE);
        let mut run = (PAGE_SIZE - offset % PAGE_SIZE).min(len);
        while run < len && self.is_present((offset + run) / PAGE_SIZE) == present {
            run = (run + PAGE_SIZE).min(len);
        }
        (present, run)
    }

    /// Copies the page of `offset` up, unless it is there or `offset` is its first byte.
    fn copy_up(&self, offset: u64) -> Result<()> {
        let start = offset / PAGE_SIZE * PAGE_SIZE;
        if start == offset || offset >= self.size() || self.is_present(offset / PAGE_SIZE) {
            return Ok(());
        }
        let mut page = [0; PAGE_SIZE as usize];
        // OK to cast: at most a page.
        let page = &mut page[..(self.size() - start).min(PAGE_SIZE) as usize];
        self.lower.read_at(start, page)?;
        self.store(start, page)?;
        self.set_present(start / PAGE_SIZE..start / PAGE_SIZE + 1);
        Ok(())
    }

    fn store(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.file.write_all_at(buf, self.data + offset).map_err(|error| io_error("write", offset, error))
    }

    /// Stores to a range by `store`, and makes its pages present.
    fn change(&self, offset: u64, len: u64, store: impl FnOnce() -> Result<()>) -> Result<()> {
        check(offset, len, self.size())?;
        if len == 0 || self.run(offset, len) == (true, len) {
            return store();
        }
        let _filling = self.filling.lock();
        self.copy_up(offset)?;
        self.copy_up(offset + len)?;
        store()?;
        self.set_present(offset / PAGE_SIZE..(offset + len).div_ceil(PAGE_SIZE));
        Ok(())
    }

    fn store_zeros(&self, offset: u64, len: u64) -> Result<()> {
        if len >= 64 << 10 && punch(&self.file, self.data + offset, len)? {
            return Ok(());
        }
        let mut done = 0;
        while done < len {
            // OK to cast: at most a page.
            let piece = (len - done).min(PAGE_SIZE) as usize;
            self.store(offset + done, &ZEROS[..piece])?;
            done += piece as u64;
        }
        Ok(())
    }

    /// Writes the bits that are new, once their pages have reached the media. Each is new once, so that few fences wait.
    fn store_bits(&self) -> Result<()> {
        let mut stored = self.stored.lock();
        let new: Vec<(usize, u64)> = stored
            .iter()
            .zip(&self.present)
            .map(|(stored, now)| (*stored, now.load(Ordering::Acquire)))
            .enumerate()
            .filter_map(|(at, (stored, now))| (stored != now).then_some((at, now)))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        self.sync()?;
        for run in new.chunk_by(|a, b| a.0 + 1 == b.0) {
            let Some(&(first, _)) = run.first() else { continue };
            let bytes: Vec<u8> = run.iter().flat_map(|(_, word)| word.to_le_bytes()).collect();
            let at = PAGE_SIZE + first as u64 * 8;
            self.file.write_all_at(&bytes, at).map_err(|error| io_error("write", at, error))?;
        }
        for (at, word) in new {
            if let Some(stored) = stored.get_mut(at) {
                *stored = word;
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        #[cfg(test)]
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data().map_err(|error| io_error("flush", 0, error))
    }
}

/// What the file begins with, by which an overlay of another device is known.
fn header(lower: &impl BlockDevice) -> Result<[u8; 64]> {
    let size = lower.size();
    let mut sample = alloc::vec![0; size.min(SAMPLE) as usize];
    lower.read_at(0, &mut sample)?;
    let mut header = [0; 64];
    header[..16].copy_from_slice(MAGIC);
    header[16..24].copy_from_slice(&size.to_le_bytes());
    header[24..28].copy_from_slice(&crc32fast::hash(&sample).to_le_bytes());
    Ok(header)
}

impl<D: BlockDevice> BlockDevice for FileOverlay<D> {
    fn size(&self) -> u64 {
        self.lower.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check(offset, buf.len() as u64, self.size())?;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let (present, run) = self.run(at, rest.len() as u64);
            // OK to cast: at most the buffer's length.
            let (piece, after) = rest.split_at_mut(run as usize);
            if present {
                let read = self.file.read_exact_at(piece, self.data + at);
                read.map_err(|error| io_error("read", at, error))?;
            } else {
                self.lower.read_at(at, piece)?;
            }
            (at, rest) = (at + run, after);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.change(offset, buf.len() as u64, || self.store(offset, buf))
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.change(offset, len, || self.store_zeros(offset, len))
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        check(offset, len, self.size())?;
        let (start, end) = (offset.next_multiple_of(PAGE_SIZE), (offset + len) / PAGE_SIZE * PAGE_SIZE);
        if start < end { self.zero(start, end - start) } else { Ok(()) }
    }

    fn fence(&self) -> Result<()> {
        match self.durability {
            Durability::Relaxed => self.store_bits(),
            Durability::Strict => self.flush(),
        }
    }

    fn flush(&self) -> Result<()> {
        self.store_bits()?;
        self.sync()
    }

    fn extent(&self, offset: u64, len: u64) -> Result<(Extent, u64)> {
        check(offset, len, self.size())?;
        let (present, run) = self.run(offset, len);
        if !present {
            return self.lower.extent(offset, run);
        }
        let file = crate::BackingFile { fd: std::os::fd::AsFd::as_fd(&*self.file), offset: self.data };
        crate::file::extent(file, offset, run)
    }

    fn claim(&self, offset: u64, len: u64) -> Result<Claim> {
        check(offset, len, self.size())?;
        Claim::of(self, offset, len)
    }
}

/// What was written is kept; errors are logged.
impl<D> Drop for FileOverlay<D> {
    fn drop(&mut self) {
        let stored = self.stored.lock();
        if stored.iter().zip(&self.present).any(|(stored, now)| *stored != now.load(Ordering::Acquire)) {
            log::warn!("an overlay was dropped without a flush: what was written since the last one is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RamDevice;

    /// Its page may reach the media after the page of bits, and would be zeros then.
    #[test]
    fn a_page_that_is_new_is_on_the_media_before_a_fence_speaks_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("overlay");
        let below = RamDevice::from_bytes(&[0x11; 8 * PAGE_SIZE as usize]).unwrap();
        let overlay = FileOverlay::open(below, &path, Durability::Relaxed).unwrap();
        overlay.write_at(5 * PAGE_SIZE + 100, b"x").unwrap();
        let fence = || {
            overlay.fence().unwrap();
            overlay.syncs.load(Ordering::Relaxed)
        };
        assert_eq!((fence(), fence()), (1, 1));
        overlay.write_at(5 * PAGE_SIZE, b"y").unwrap();
        assert_eq!(fence(), 1, "nothing new is spoken of");
        overlay.write_at(0, b"z").unwrap();
        assert_eq!(fence(), 2);
    }

    #[test]
    fn an_overlay_that_a_power_cut_left_without_its_header_is_begun_again_and_no_other_file_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("overlay");
        let open = || FileOverlay::open(RamDevice::new(3 * PAGE_SIZE).unwrap(), &path, Durability::Relaxed);
        drop(open().unwrap());
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, alloc::vec![0; whole.len()]).unwrap();
        let overlay = open().unwrap();
        overlay.write_at(PAGE_SIZE, &[7; 100]).unwrap();
        overlay.flush().unwrap();
        drop(overlay);
        let again = open().unwrap();
        let mut bytes = [0; 100];
        again.read_at(PAGE_SIZE, &mut bytes).unwrap();
        assert_eq!((bytes, again.pages()), ([7; 100], 1));
        drop(again);
        for other in [alloc::vec![0; 10], alloc::vec![0; whole.len() + 1], alloc::vec![1; whole.len()]] {
            std::fs::write(&path, &other).unwrap();
            let error = open().unwrap_err();
            assert!(matches!(error, Error::Io { op: "open", .. }), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), other);
        }
    }
}
