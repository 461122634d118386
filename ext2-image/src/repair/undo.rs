//! What a repair stored over, in a file from which it can be put back: by [`play`], and by `e2undo` of e2fsprogs, whose
//! format it is.
//!
//! The file is a row of blocks: a header; the superblock as the repair leaves it, by which it is known that nothing was
//! done since; then blocks of keys, each followed by the data that its keys name. Numbers are little-endian.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::vec::Vec;

use blockdev::BlockDevice;
use ext2_core::raw::SUPERBLOCK_OFFSET;

use super::changes::GRAIN;
use crate::crc::crc32c;
use crate::little::{long, word};

const MAGIC: &[u8; 8] = b"E2UNDO02";
const KEYS_MAGIC: u32 = 0xcade_cade;
/// Bytes of a block of the file; also the unit in which keys number the image.
const BLOCK: usize = GRAIN as usize;
const KEY: usize = 16;
/// Keys of a block.
const KEYS: usize = BLOCK / KEY - 1;
/// Bytes of the longest run that a key names.
const LONGEST: usize = 512 * BLOCK;
const HEADER: usize = 512;
const FINISHED: u32 = 1;
const HAS_OFFSET: u32 = 1;
/// Where `s_magic` lies in the superblock, and where `s_state`.
const SUPER_MAGIC: usize = 56;
const SUPER_STATE: usize = 58;

/// A file of what is stored over.
#[derive(Debug)]
pub struct UndoWriter<'f> {
    file: &'f File,
    keys: Vec<[u8; KEY]>,
    /// The block of the file for the keys that are gathered, and the next free one.
    keys_at: u64,
    next: u64,
    count: u64,
    /// A run that goes on: its first grain of the image, and what was there.
    run: Option<(u64, Vec<u8>)>,
}

fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = block.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}

impl<'f> UndoWriter<'f> {
    /// Begins a file, which has to be empty.
    #[must_use]
    pub fn new(file: &'f File) -> Self {
        Self { file, keys: Vec::new(), keys_at: 2, next: 3, count: 0, run: None }
    }

    /// Takes what is in the image at byte `offset`, a multiple of [`GRAIN`].
    ///
    /// # Errors
    /// Those of the file.
    pub fn add(&mut self, offset: u64, old: &[u8]) -> io::Result<()> {
        if let Some((start, run)) = &mut self.run
            && *start + run.len() as u64 == offset
            && run.len() + old.len() <= LONGEST
        {
            run.extend_from_slice(old);
            return Ok(());
        }
        self.end_run()?;
        self.run = Some((offset, old.to_vec()));
        Ok(())
    }

    fn end_run(&mut self) -> io::Result<()> {
        let Some((start, run)) = self.run.take() else { return Ok(()) };
        let mut key = [0; KEY];
        put(&mut key, 0, &(start / GRAIN).to_le_bytes());
        put(&mut key, 8, &crc32c(!0, &run).to_le_bytes());
        // OK to cast: at most half a MiB.
        put(&mut key, 12, &(run.len() as u32).to_le_bytes());
        self.keys.push(key);
        self.count += 1;
        self.file.write_all_at(&run, self.next * GRAIN)?;
        self.next += run.len().div_ceil(BLOCK) as u64;
        if self.keys.len() == KEYS { self.end_keys() } else { Ok(()) }
    }

    fn end_keys(&mut self) -> io::Result<()> {
        let mut block = std::vec![0; BLOCK];
        put(&mut block, 0, &KEYS_MAGIC.to_le_bytes());
        for (nr, key) in self.keys.iter().enumerate() {
            put(&mut block, (nr + 1) * KEY, key);
        }
        let sum = crc32c(!0, &block);
        put(&mut block, 4, &sum.to_le_bytes());
        self.file.write_all_at(&block, self.keys_at * GRAIN)?;
        self.keys.clear();
        (self.keys_at, self.next) = (self.next, self.next + 1);
        Ok(())
    }

    /// Makes the file whole and durable. `superblock` is the one that the repair leaves; the file system begins at the byte
    /// `fs_offset` of its file.
    ///
    /// # Errors
    /// Those of the file.
    pub fn finish(mut self, superblock: &[u8; 1024], fs_offset: u64) -> io::Result<()> {
        self.end_run()?;
        if !self.keys.is_empty() {
            self.end_keys()?;
        }
        let mut copy = *superblock;
        // The copy is not to be taken for a file system.
        copy.get_mut(SUPER_MAGIC..SUPER_MAGIC + 2)
            .unwrap_or_default()
            .iter_mut()
            .for_each(|byte| *byte = !*byte);
        self.file.write_all_at(&copy, GRAIN)?;
        let mut header = [0; HEADER];
        put(&mut header, 0, MAGIC);
        put(&mut header, 8, &self.count.to_le_bytes());
        put(&mut header, 16, &1u64.to_le_bytes());
        put(&mut header, 24, &2u64.to_le_bytes());
        // OK to cast: 1024.
        put(&mut header, 32, &(BLOCK as u32).to_le_bytes());
        put(&mut header, 36, &(BLOCK as u32).to_le_bytes());
        put(&mut header, 40, &crc32c(!0, superblock).to_le_bytes());
        put(&mut header, 44, &FINISHED.to_le_bytes());
        if fs_offset != 0 {
            put(&mut header, 48, &HAS_OFFSET.to_le_bytes());
            put(&mut header, 64, &fs_offset.to_le_bytes());
        }
        let sum = crc32c(!0, header.get(..HEADER - 4).unwrap_or_default());
        put(&mut header, HEADER - 4, &sum.to_le_bytes());
        self.file.write_all_at(&header, 0)?;
        // The last run may end within a block of the file.
        if self.file.metadata()?.len() < self.next * GRAIN {
            self.file.set_len(self.next * GRAIN)?;
        }
        self.file.sync_all()
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Puts back what is in an undo file, ours or one that e2fsck, tune2fs, resize2fs or mke2fs wrote; gives how many bytes.
///
/// # Errors
/// `InvalidData` when the file is no undo file, is broken, or the image was changed since (unless `force`): nothing is
/// written then. Those of the file and of the device.
pub fn play(file: &File, dev: &dyn BlockDevice, force: bool) -> io::Result<u64> {
    let device = |error: blockdev::Error| io::Error::other(error.to_string());
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0).map_err(|_| broken("is too short for an undo file"))?;
    if header.get(..8) != Some(MAGIC) {
        return Err(broken("is not an undo file"));
    }
    if word(&header, HEADER - 4) != crc32c(!0, header.get(..HEADER - 4).unwrap_or_default()) {
        return Err(broken("has a header that is broken"));
    }
    let (size, unit) = (word(&header, 32) as usize, u64::from(word(&header, 36)));
    if !(1024..=1 << 20).contains(&size)
        || !(1024..=65536).contains(&unit)
        || word(&header, 52) | word(&header, 56) != 0
    {
        return Err(broken("is of a kind that is not known"));
    }
    let mut copy = [0; 1024];
    file.read_exact_at(&mut copy, long(&header, 16).saturating_mul(size as u64))?;
    copy.get_mut(SUPER_MAGIC..SUPER_MAGIC + 2).unwrap_or_default().iter_mut().for_each(|byte| *byte = !*byte);
    let mut now = [0; 1024];
    dev.read_at(SUPERBLOCK_OFFSET, &mut now).map_err(device)?;
    // A repair that was killed leaves the mark that the image is not clean.
    let plain = |superblock: &[u8; 1024]| {
        let mut plain = *superblock;
        put(&mut plain, SUPER_STATE, &[0, 0]);
        plain
    };
    let keys = keys_of(file, &header, size)?;
    if !force && plain(&copy) != plain(&now) && !is_former(file, &keys, unit, &plain(&now), plain)? {
        return Err(broken("is of an image that was changed since, or of another"));
    }
    let mut bytes = Vec::new();
    // First whether all of it is there, then the stores.
    for store in [false, true] {
        for key in &keys {
            bytes.resize(key.len, 0);
            file.read_exact_at(&mut bytes, key.at)?;
            if crc32c(!0, &bytes) != key.sum {
                return Err(broken("has data that are broken"));
            }
            let offset = key.block.saturating_mul(unit);
            if offset.saturating_add(key.len as u64) > dev.size() {
                return Err(broken("is of a larger image"));
            }
            if store {
                dev.write_at(offset, &bytes).map_err(device)?;
            }
        }
    }
    dev.flush().map_err(device)?;
    Ok(keys.iter().map(|key| key.len as u64).sum())
}

/// A run that the file has.
struct Key {
    /// Where it goes, in units of the image.
    block: u64,
    /// Where it lies, in bytes of the file.
    at: u64,
    len: usize,
    sum: u32,
}

fn keys_of(file: &File, header: &[u8], size: usize) -> io::Result<Vec<Key>> {
    let (mut left, mut next) = (long(header, 8), long(header, 24));
    // Each key takes bytes of the file.
    if left > file.metadata()?.len() / KEY as u64 {
        return Err(broken("has a header that is broken"));
    }
    let mut keys = Vec::new();
    let mut block = std::vec![0; size];
    while left > 0 {
        file.read_exact_at(&mut block, next.saturating_mul(size as u64))?;
        let sum = word(&block, 4);
        put(&mut block, 4, &[0; 4]);
        if word(&block, 0) != KEYS_MAGIC || crc32c(!0, &block) != sum {
            return Err(broken("has keys that are broken"));
        }
        next += 1;
        for key in block.chunks_exact(KEY).skip(1).take(usize::try_from(left).unwrap_or(usize::MAX)) {
            let len = word(key, 12) as usize;
            if len > 512 * size {
                return Err(broken("has keys that are broken"));
            }
            keys.push(Key {
                block: long(key, 0),
                at: next.saturating_mul(size as u64),
                len,
                sum: word(key, 8),
            });
            next += len.div_ceil(size) as u64;
            left -= 1;
        }
    }
    Ok(keys)
}

/// Whether the superblock of the image is the one that the file puts back: the repair was killed before its end.
fn is_former(
    file: &File,
    keys: &[Key],
    unit: u64,
    now: &[u8; 1024],
    plain: impl Fn(&[u8; 1024]) -> [u8; 1024],
) -> io::Result<bool> {
    for key in keys {
        let start = key.block.saturating_mul(unit);
        if start <= SUPERBLOCK_OFFSET && SUPERBLOCK_OFFSET + 1024 <= start.saturating_add(key.len as u64) {
            let mut former = [0; 1024];
            file.read_exact_at(&mut former, key.at + (SUPERBLOCK_OFFSET - start))?;
            return Ok(plain(&former) == *now);
        }
    }
    Ok(false)
}
