//! Bytes and holes, by system calls.

use std::{
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use ext2_dax::OpenFor;
use rustix::{
    fs::{self, FallocateFlags, OFlags, SeekFrom},
    io::{Errno, Result as Io},
};

use super::hands::{Done, Kernel, call, done, reopen};
use super::maps::PAGE;
use crate::sim::{
    Answer, Operation, Step,
    operation::{WHOLE, WHOLE_READ},
};

/// A hole, the size kept.
pub(super) const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
/// Zeros, the size kept.
const ZERO: FallocateFlags = FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE);

impl Kernel {
    /// Does it, if it is about bytes.
    pub(super) fn attempt_contents(&mut self, step: &Step) -> Done {
        use Operation as O;
        match &step.operation {
            O::Read { of, at, len } | O::ReadPieces { of, at, len } => {
                read(&self.open(*of, OFlags::RDONLY)?, *at, *len)
            }
            O::Write { of, at, data } => {
                let hand = self.hand(*of)?;
                let file = match reopen(hand, OFlags::RDWR) {
                    // What may only be appended to is opened for that, if it is that.
                    Err(Errno::PERM) if call(fs::fstat(hand))?.st_size.unsigned_abs() == *at => {
                        reopen(hand, OFlags::RDWR | OFlags::APPEND)
                    }
                    opened => opened,
                };
                write(&call(file)?, *at, &data.bytes(*at))
            }
            O::Truncate { of, size, .. } => done(fs::ftruncate(self.open(*of, OFlags::RDWR)?, *size)),
            O::Punch { of, at, len, .. } => {
                done(fs::fallocate(self.open(*of, OFlags::RDWR)?, PUNCH, *at, *len))
            }
            O::Zero { of, at, len } => done(fs::fallocate(self.open(*of, OFlags::RDWR)?, ZERO, *at, *len)),
            O::Fallocate { of, mode, at, len } => {
                let mode = FallocateFlags::from_bits_retain(*mode);
                done(fs::fallocate(self.open(*of, OFlags::RDWR)?, mode, *at, *len))
            }
            O::SeekData { of, at } => seek(self.open(*of, OFlags::RDONLY)?, SeekFrom::Data(*at)),
            O::SeekHole { of, at } => seek(self.open(*of, OFlags::RDONLY)?, SeekFrom::Hole(*at)),
            O::Extents { of } => call(ranges(self.open(*of, OFlags::RDONLY)?)).map(Answer::Ranges),
            O::Open { of, open_for, file } => {
                let flags = match open_for {
                    OpenFor::Reading => OFlags::RDONLY,
                    OpenFor::Writing => OFlags::RDWR,
                    OpenFor::Appending => OFlags::RDWR | OFlags::APPEND,
                };
                let opened = self.open(*of, flags)?;
                self.held.files[usize::from(*file)] = Some((opened, *open_for));
                Ok(Answer::Done)
            }
            O::CloseFile { file } => {
                self.file(*file)?;
                self.held.files[usize::from(*file)] = None;
                Ok(Answer::Done)
            }
            O::FileRead { file, at, len, .. } => {
                read(&self.file(*file)?, *at, if *len == WHOLE { WHOLE_READ } else { *len })
            }
            O::FileWrite { file, at, data, .. } => write(&self.file(*file)?, *at, &data.bytes(*at)),
            O::FileTruncate { file, size, .. } => done(fs::ftruncate(self.file(*file)?, *size)),
            O::FilePunch { file, at, len, .. } => done(fs::fallocate(self.file(*file)?, PUNCH, *at, *len)),
            O::FileZero { file, at, len } => done(fs::fallocate(self.file(*file)?, ZERO, *at, *len)),
            O::FileSeekData { file, at } => seek(self.file(*file)?, SeekFrom::Data(*at)),
            O::FileSeekHole { file, at } => seek(self.file(*file)?, SeekFrom::Hole(*at)),
            O::FileExtents { file } => call(ranges(self.file(*file)?)).map(Answer::Ranges),
            O::FileSync { file } => done(fs::fsync(self.file(*file)?)),
            _ => self.attempt_maps(step),
        }
    }

    /// Opens what a hand holds.
    fn open(&self, hand: u8, flags: OFlags) -> Result<OwnedFd, Answer> {
        call(reopen(self.hand(hand)?, flags))
    }

    /// The file that a step changes the bytes of, opened for writing.
    pub(super) fn changed(&self, step: &Step) -> Result<OwnedFd, Answer> {
        use Operation as O;
        match step.operation {
            O::Write { of, .. } | O::Truncate { of, .. } | O::Punch { of, .. } => self.open(of, OFlags::RDWR),
            O::Zero { of, .. } | O::Fallocate { of, .. } => self.open(of, OFlags::RDWR),
            O::FileWrite { file, .. } | O::FileTruncate { file, .. } | O::FilePunch { file, .. } => {
                call(reopen(self.file(file)?, OFlags::RDWR))
            }
            O::FileZero { file, .. } => call(reopen(self.file(file)?, OFlags::RDWR)),
            O::Store { map, .. } => call(reopen(self.map(map)?.file(), OFlags::RDWR)),
            _ => Err(Answer::Nothing),
        }
    }
}

/// Bytes from an offset on.
fn read(file: &impl AsFd, at: u64, len: u32) -> Done {
    call(bytes(file, at, len as usize)).map(Answer::Bytes)
}

/// The same, and not as an answer.
pub(super) fn bytes(file: &impl AsFd, at: u64, len: usize) -> Io<Vec<u8>> {
    let mut bytes = vec![0xee; len];
    let got = rustix::io::pread(file, &mut bytes[..], at)?;
    bytes.truncate(got);
    Ok(bytes)
}

fn write(file: &impl AsFd, at: u64, bytes: &[u8]) -> Done {
    call(rustix::io::pwrite(file, bytes, at)).map(|put| Answer::Number(put as u64))
}

fn seek(file: impl AsFd, from: SeekFrom) -> Done {
    call(fs::seek(file, from)).map(Answer::Number)
}

/// What is data of a file; the last range ends with the file at the latest.
pub(super) fn ranges(file: impl AsFd) -> Io<Vec<Range<u64>>> {
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        let start = match fs::seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(found),
            Err(errno) => return Err(errno),
        };
        at = fs::seek(&file, SeekFrom::Hole(start))?;
        found.push(start..at);
    }
}

/// Makes these ranges data, and all else holes, and leaves the bytes as they are.
pub(super) fn put_ranges(file: BorrowedFd<'_>, wanted: &[Range<u64>]) -> Io<()> {
    let size = fs::fstat(file)?.st_size.unsigned_abs();
    // What begins or ends between two ranges.
    let mut ends: Vec<u64> =
        ranges(file)?.iter().chain(wanted).flat_map(|range| [range.start, range.end]).collect();
    ends.sort_unstable();
    ends.dedup();
    let is_in = |ranges: &[Range<u64>], at: u64| ranges.iter().any(|range| range.contains(&at));
    for (from, to) in ends.iter().zip(ends.iter().skip(1)) {
        let to = if *to >= size { size } else { *to };
        match (is_in(&ranges(file)?, *from), is_in(wanted, *from)) {
            (false, true) if *from < to => {
                let zeros = vec![0; usize::try_from(to - from).expect("the image is small")];
                rustix::io::pwrite(file, &zeros, *from)?;
            }
            (true, false) => {
                // The last block goes with what is behind the end.
                let end = if to == size { to.next_multiple_of(PAGE) } else { to };
                fs::fallocate(file, PUNCH, *from, end.max(from + 1) - from)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes zeros of what is data of a range, up to the end of the file, by writing.
pub(super) fn write_zeros(file: BorrowedFd<'_>, range: &Range<u64>) -> Io<()> {
    for data in ranges(file)? {
        let (from, to) = (data.start.max(range.start), data.end.min(range.end));
        if from < to {
            let zeros = vec![0; usize::try_from(to - from).expect("the image is small")];
            rustix::io::pwrite(file, &zeros, from)?;
        }
    }
    Ok(())
}
