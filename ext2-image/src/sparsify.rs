//! Giving back blocks of an image's file that hold nothing: those that the file system has free, and those that are all
//! zeros. What anybody reads of a file of the image stays the same.

use std::os::fd::BorrowedFd;

use alloc::vec::Vec;

use blockdev::BlockDevice;
use ext2_core::{Errno, Error, GroupNr, Result};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};

use crate::rewrite::{Image, Watch, group_range};

/// What a file gives back at the least.
const PAGE: u64 = 4096;
/// Bytes that are looked at at a time.
const PART: u64 = 1 << 20;

/// What was given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sparsified {
    /// Bytes of free blocks that the file had room for.
    pub free: u64,
    /// Bytes of blocks in use that were all zeros.
    pub zero: u64,
}

/// Punches holes into the file that `dev` is: where blocks are free, and where they hold zeros. The device is claimed
/// meanwhile. May be interrupted at any time.
///
/// # Errors
/// `EBUSY` where the image is in use, `UCLEAN` where it is not clean, so that its bitmaps cannot be believed;
/// `EOPNOTSUPP` where the device is no file, or lies on a file system without holes; `EINTR` where it was stopped.
pub fn sparsify(dev: &dyn BlockDevice, watch: &Watch<'_>) -> Result<Sparsified> {
    let image = Image::read(dev)?;
    let geo = &image.geo;
    let size = geo.block_size.bytes();
    let end = u64::from(geo.blocks_count) * size;
    let _claim = dev.claim(0, end)?;
    let none = || Error::Device(blockdev::Error::Unsupported("holes: it is no file of its own"));
    let Some(file) = dev.backing_file() else { return Err(none()) };
    let holes = Holes { dev, fd: file.fd, offset: file.offset };
    let mut done = Sparsified::default();
    let mut bitmap = alloc::vec![0; geo.block_size.len()];
    for group in 0..geo.groups {
        let (start, past) = group_range(geo, GroupNr::new(group));
        let desc = image.descs.get(group as usize).copied().unwrap_or_default();
        dev.read_at(u64::from(desc.bg_block_bitmap.get()) * size, &mut bitmap)?;
        let free = |block: u32| {
            let bit = block - start;
            bitmap.get((bit / 8) as usize).is_some_and(|byte| byte >> (bit % 8) & 1 == 0)
        };
        let mut block = start;
        while block < past {
            let is_free = free(block);
            let mut next = block + 1;
            while next < past && free(next) == is_free {
                next += 1;
            }
            let (from, to) = (u64::from(block) * size, u64::from(next) * size);
            if is_free {
                done.free += holes.punch_all(from, to)?;
            } else {
                done.zero += holes.punch_zeros(from, to)?;
            }
            block = next;
        }
        (watch.progress)(crate::rewrite::Progress {
            step: crate::rewrite::Step::Copy,
            done: u64::from(past) * size,
            total: end,
        });
        if (watch.stop)() {
            return Err(Error::Caller(Errno::INTR, "stopped: what was given back so far held nothing"));
        }
    }
    Ok(done)
}

/// A file in which holes are punched.
struct Holes<'f> {
    dev: &'f dyn BlockDevice,
    fd: BorrowedFd<'f>,
    offset: u64,
}

impl Holes<'_> {
    /// The runs of a range for which the file has room, in bytes of the device.
    fn allocated(&self, from: u64, to: u64) -> Result<Vec<(u64, u64)>> {
        let mut runs = Vec::new();
        let mut at = from;
        while at < to {
            let data = match seek(self.fd, SeekFrom::Data(at + self.offset)) {
                Ok(data) => data - self.offset,
                // There is none any more.
                Err(rustix::io::Errno::NXIO) => break,
                // Whoever cannot tell has it all.
                Err(_) => at,
            };
            if data >= to {
                break;
            }
            let hole =
                seek(self.fd, SeekFrom::Hole(data + self.offset)).map_or(to, |hole| hole - self.offset);
            let hole = hole.clamp(data + 1, to);
            runs.push((data, hole));
            at = hole;
        }
        Ok(runs)
    }

    /// Gives back whole pages of a range; says how many bytes.
    fn punch(&self, from: u64, to: u64) -> Result<u64> {
        let (first, last) = ((from + self.offset).next_multiple_of(PAGE), (to + self.offset) / PAGE * PAGE);
        if first >= last {
            return Ok(0);
        }
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::io::retry_on_intr(|| fallocate(self.fd, how, first, last - first)) {
            Ok(()) => Ok(last - first),
            Err(rustix::io::Errno::OPNOTSUPP) => {
                Err(Error::Device(blockdev::Error::Unsupported("holes in its file")))
            }
            Err(error) => Err(Error::Device(blockdev::Error::Io {
                op: "punch",
                offset: first,
                errno: Some(error.raw_os_error()),
                message: alloc::format!("{error}"),
            })),
        }
    }

    fn punch_all(&self, from: u64, to: u64) -> Result<u64> {
        self.allocated(from, to)?.into_iter().map(|(from, to)| self.punch(from, to)).sum()
    }

    fn punch_zeros(&self, from: u64, to: u64) -> Result<u64> {
        let mut given = 0;
        let mut part = Vec::new();
        for (from, to) in self.allocated(from, to)? {
            // Pages of the file, whatever the blocks are.
            let mut at = (from + self.offset).next_multiple_of(PAGE) - self.offset;
            while at + PAGE <= to {
                let len = (to - at).min(PART) / PAGE * PAGE;
                part.resize(len as usize, 0);
                self.dev.read_at(at, &mut part)?;
                let mut zeros: Option<u64> = None;
                for (nr, page) in part.chunks_exact(PAGE as usize).enumerate() {
                    let here = at + nr as u64 * PAGE;
                    if crate::zeros::is_zero(page) {
                        zeros.get_or_insert(here);
                    } else if let Some(first) = zeros.take() {
                        given += self.punch(first, here)?;
                    }
                }
                if let Some(first) = zeros {
                    given += self.punch(first, at + len)?;
                }
                at += len;
            }
        }
        Ok(given)
    }
}
