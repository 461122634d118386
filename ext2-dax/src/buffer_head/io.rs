//! Reads and writes by buffer heads (`dax_do_io`, `dax_io`).

use blockdev::Access;

use super::{BufferHead, Create, DioFlags, GetBlock};
use crate::entry::PAGE_SIZE;
use crate::error::{Error, Result};
use crate::uio::{Sink, Source};

/// Reads up to `len` bytes from `pos`. With `LOCKING` nobody else reads meanwhile.
pub(crate) fn do_io_read<I: GetBlock + ?Sized>(
    inode: &I,
    pos: u64,
    len: u64,
    sink: &mut dyn Sink,
    flags: DioFlags,
) -> Result<u64> {
    let mut result = Ok(0);
    let mut body = || {
        counted(inode, flags, || {
            let end = pos.saturating_add(len).min(inode.size());
            result = dax_io(inode, pos, end, Create::No, |inode, bh, within, len| match bh.is_mapped() {
                false => Ok(sink.put_zeros(len)),
                true => {
                    let (page, offset) = place(bh, within);
                    let memory = inode.memory().direct_access(page, pages(offset, len), Access::Read)?;
                    sink.put(&memory.subslice(offset, len.min(memory.len() - offset))?)
                }
            });
        });
    };
    if flags.contains(DioFlags::LOCKING) {
        inode.locked(&mut body)
    } else {
        body()
    }
    result
}

/// Writes up to `len` bytes at `pos`. The caller has the inode locked.
pub(crate) fn do_io_write<I: GetBlock + ?Sized>(
    inode: &I,
    pos: u64,
    len: u64,
    source: &mut dyn Source,
    flags: DioFlags,
) -> Result<u64> {
    let mut result = Ok(0);
    let end = pos.saturating_add(len);
    counted(inode, flags, || {
        result = dax_io(inode, pos, end, Create::Yes, |inode, bh, within, len| {
            let (page, offset) = place(bh, within);
            let memory = inode.memory().direct_access(page, pages(offset, len), Access::Write)?;
            source.take(&memory.subslice(offset, len.min(memory.len() - offset))?)
        });
    });
    match result {
        Err(_) => inode.write_failed(end),
        // The caller of direct I/O throws the page cache of the range away, once it is over.
        Ok(done) => inode.pages().invalidate(pos / PAGE_SIZE, (pos + done).div_ceil(PAGE_SIZE)),
    }
    result
}

/// Counts the operation in while it runs, so that truncation waits for it (`inode_dio_begin`).
fn counted<I: GetBlock + ?Sized>(inode: &I, flags: DioFlags, body: impl FnOnce()) {
    if flags.contains(DioFlags::SKIP_DIO_COUNT) {
        return body();
    }
    let _counted = inode.dio_count().begin();
    body();
}

/// Page and offset on the device of the byte that lies `within` bytes into the buffer.
fn place(bh: &BufferHead, within: u64) -> (u64, u64) {
    let at = bh.addr.saturating_add(within);
    (at / PAGE_SIZE, at % PAGE_SIZE)
}

fn pages(offset: u64, len: u64) -> u64 {
    offset.saturating_add(len).div_ceil(PAGE_SIZE)
}

/// Walks `pos..end`, asking for a buffer head whenever the last one is used up, and moves bytes with
/// `mover`: buffer, bytes into it, bytes that there are.
fn dax_io<I: GetBlock + ?Sized>(
    inode: &I,
    start: u64,
    end: u64,
    create: Create,
    mut mover: impl FnMut(&I, &BufferHead, u64, u64) -> Result<u64>,
) -> Result<u64> {
    let mut pos = start;
    let (mut bh, mut bh_start, mut bh_max) = (BufferHead::default(), pos, pos);
    let outcome = loop {
        if pos >= end {
            break Ok(());
        }
        if pos == bh_max {
            let first = pos % PAGE_SIZE;
            bh_start = pos - first;
            bh = BufferHead::ask((end - bh_start).next_multiple_of(PAGE_SIZE));
            if let Err(error) = inode.get_block(bh_start / PAGE_SIZE, &mut bh, create) {
                break Err(error);
            }
            bh_max = bh_start.saturating_add(bh.believed());
        }
        let max = bh_max.min(end);
        match mover(inode, &bh, pos - bh_start, max - pos) {
            Ok(0) => break Err(Error::BadAddress),
            Ok(moved) => pos += moved,
            Err(error) => break Err(error),
        }
    };
    match outcome {
        Err(error) if pos == start => Err(error),
        _ => Ok(pos.saturating_sub(start)),
    }
}
