//! Files: opening, reading, writing, making durable, holes and copies.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use ext2_core::plumbing::Plumbing as _;
use ext2_core::{Inode, InodeFlags};
use fuser::{FopenFlags, WriteFlags};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::attributes::FORBIDDEN;
use super::{Caller, Volume, need_regular};
use crate::channel::Channel;
use crate::nodes::Node;
use crate::reply::Reply;
use crate::wire::Read;

/// Bytes moved at a time by a copy inside the image.
const COPY_CHUNK: usize = 1 << 20;
/// The most bytes that one request copies, so that others get their turn.
const COPY_MOST: u64 = 64 << 20;

/// Past the kernel's cache, by several writers at once.
const DIRECT: FopenFlags = FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);

thread_local! {
    /// What reads fill: each worker has its own, which grows to the largest request.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A copy inside the image; in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopyRange {
    pub(crate) from: u64,
    pub(crate) from_offset: u64,
    pub(crate) to: u64,
    pub(crate) to_offset: u64,
    pub(crate) len: u64,
    /// The flags that the file is open with that is written to.
    pub(crate) opened: i32,
}

/// `SEEK_DATA` and `SEEK_HOLE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whence {
    Data,
    Hole,
}

/// Whether a file is opened for writing.
pub(crate) fn is_for_writing(flags: i32) -> bool {
    open_flags(flags).intersects(OFlags::WRONLY | OFlags::RDWR)
}

/// Whether what is written is to be durable. (Not `contains`: `O_SYNC` has the bit of `O_DSYNC` and another.)
fn is_synchronous(flags: i32) -> bool {
    open_flags(flags).intersects(OFlags::SYNC | OFlags::DSYNC)
}

fn open_flags(flags: i32) -> OFlags {
    OFlags::from_bits_retain(flags.cast_unsigned())
}

impl Volume {
    /// Opens a file. What the attribute flags forbid is refused here, since the kernel does not know them.
    pub(crate) fn open(&self, number: u64, flags: i32) -> Reply<FopenFlags> {
        let node = self.node(number)?;
        let own = node.inode.attr().flags;
        let writes = is_for_writing(flags);
        if writes {
            let append = own.contains(InodeFlags::APPEND);
            let truncates = open_flags(flags).contains(OFlags::TRUNC);
            let appends = open_flags(flags).contains(OFlags::APPEND);
            if own.contains(InodeFlags::IMMUTABLE) || append && (truncates || !appends) {
                return Err(FORBIDDEN);
            }
            node.add_writer();
        }
        Ok(if self.options.direct_io || writes && self.is_direct(own) {
            DIRECT
        } else if !writes && self.atime_is_due(&node.inode) {
            // A page that the kernel has would be read without us, and the access time stay as it is.
            FopenFlags::empty()
        } else {
            FopenFlags::FOPEN_KEEP_CACHE
        })
    }

    /// Whether writes to a file with these attribute flags go past the kernel's cache: where that was asked for, and to
    /// one that can only be appended to, since pages that are written back begin before the end.
    fn is_direct(&self, own: InodeFlags) -> bool {
        self.options.direct_io || own.contains(InodeFlags::APPEND)
    }

    /// A file that was made with this request is open.
    pub(crate) fn opened_new(&self, node: &Node, flags: i32) -> FopenFlags {
        if is_for_writing(flags) {
            node.add_writer();
        }
        if self.is_direct(node.inode.attr().flags) { DIRECT } else { FopenFlags::FOPEN_KEEP_CACHE }
    }

    /// An open file is closed for good.
    pub(crate) fn release(&self, number: u64, flags: i32) {
        if let (true, Some(node)) = (is_for_writing(flags), self.nodes.get(number)) {
            node.remove_writer();
        }
    }

    /// Reads and hands the bytes to `take`.
    pub(crate) fn read<T>(&self, number: u64, read: Read, take: impl FnOnce(Reply<&[u8]>) -> T) -> T {
        let node = match self.node(number) {
            Ok(node) => node,
            Err(error) => return take(Err(error)),
        };
        BUFFER.with_borrow_mut(|buffer| {
            // OK to cast: a request is a few MiB at most.
            let size = read.size as usize;
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            let part = buffer.get_mut(..size).unwrap_or_default();
            match node.inode.read_at(read.offset, part) {
                Ok(len) => {
                    self.accessed(&node.inode, read);
                    take(Ok(part.get(..len).unwrap_or_default()))
                }
                Err(error) => take(Err(self.errno(&error))),
            }
        })
    }

    /// Writes through a file that is open with the flags `opened`; gives the bytes written.
    pub(crate) fn write(
        &self,
        number: u64,
        offset: u64,
        data: &[u8],
        how: WriteFlags,
        opened: i32,
        caller: Caller,
    ) -> Reply<u32> {
        self.note_write();
        let node = self.node(number)?;
        let is_cached = how.contains(WriteFlags::FUSE_WRITE_CACHE);
        let done = if is_cached {
            // A page that is written back was stored to before: what the store took away is gone, what was given since stays, and
            // what was forbidden since does not take it back.
            node.inode.write_taken(offset, data)
        } else {
            self.check_write(&node.inode, offset, data.len() as u64)?;
            self.drop_privileges(&node, how.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID), caller)?;
            node.inode.write_at(offset, data)
        };
        let done = done.map_err(|error| self.errno(&error))?;
        if done < data.len() && is_cached {
            // Nobody waits for the number of a write from the cache; only an error reaches fsync and close.
            return Err(Errno::NOSPC);
        }
        let own = node.inode.attr().flags;
        // Of a write past its cache the kernel asks for nothing more: what O_SYNC and O_DSYNC want is left to us.
        self.written(&node.inode, self.is_direct(own) && is_synchronous(opened))?;
        u32::try_from(done).map_err(|_| Errno::INVAL)
    }

    /// Refuses a write that the attribute flags forbid, before it takes rights away.
    fn check_write(&self, inode: &Inode, offset: u64, len: u64) -> Reply<()> {
        inode.check_write(offset, len).map(drop).map_err(|error| self.errno(&error))
    }

    /// Makes what was stored durable, where that was `asked` for or goes for the mount or the file.
    pub(super) fn written(&self, inode: &Inode, asked: bool) -> Reply<()> {
        if asked || self.options.sync || inode.attr().flags.contains(InodeFlags::SYNC) {
            inode.sync().map_err(|error| self.errno(&error))?;
        }
        Ok(())
    }

    /// Makes a file or directory durable. After a shutdown nothing is said to be, not even what had nothing to write.
    pub(crate) fn fsync(&self, number: u64) -> Reply<()> {
        if self.shut_down.load(Ordering::Relaxed) {
            return Err(Errno::IO);
        }
        self.node(number)?.inode.sync().map_err(|error| self.errno(&error))
    }

    /// Punches holes and zeroes ranges; what ext2 cannot store is refused.
    pub(crate) fn fallocate(
        &self,
        number: u64,
        offset: u64,
        len: u64,
        mode: u32,
        opened: i32,
        caller: Caller,
    ) -> Reply<()> {
        let node = self.node(number)?;
        need_regular(&node.inode)?;
        // What is refused takes no rights away.
        if !node.inode.attr().flags.intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND) {
            self.drop_privileges(&node, caller.uid != 0, caller)?;
        }
        node.inode.fallocate(mode, offset, len).map_err(|error| self.errno(&error))?;
        self.written(&node.inode, is_synchronous(opened))
    }

    /// Finds the next data or hole. While somebody may write, the kernel has to write back first what only it has:
    /// the caller is then a thread that no request waits for.
    pub(crate) fn seek(&self, channel: &Channel, node: &Node, offset: u64, whence: Whence) -> Reply<u64> {
        if node.may_be_dirty()
            && let Err(error) = channel.write_back(u64::from(node.inode.nr().get()))
        {
            log::warn!("inode {}: the kernel's pages could not be written back: {error}", node.inode.nr());
            return Err(Errno::AGAIN);
        }
        let found = match whence {
            Whence::Data => node.inode.seek_data(offset),
            Whence::Hole => node.inode.seek_hole(offset),
        };
        found.map_err(|error| self.errno(&error))
    }

    /// Copies inside the image. The kernel has written both ranges back. Gives the bytes copied.
    pub(crate) fn copy(&self, range: CopyRange, caller: Caller) -> Reply<u32> {
        self.note_write();
        let (from, to) = (self.node(range.from)?, self.node(range.to)?);
        need_regular(&from.inode)?;
        need_regular(&to.inode)?;
        let end = range.from_offset.saturating_add(range.len.min(COPY_MOST)).min(from.inode.size());
        self.check_write(&to.inode, range.to_offset, range.len)?;
        self.drop_privileges(&to, caller.uid != 0, caller)?;
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(buffer.len().max(COPY_CHUNK), 0);
            let mut done = 0;
            while range.from_offset + done < end {
                // OK to cast: at most the size of a chunk.
                let len = (end - range.from_offset - done).min(COPY_CHUNK as u64) as usize;
                let part = buffer.get_mut(..len).unwrap_or_default();
                let copied = from.inode.read_at(range.from_offset + done, part).and_then(|len| {
                    to.inode
                        .write_at(range.to_offset.saturating_add(done), part.get(..len).unwrap_or_default())
                });
                match copied {
                    Ok(0) => break,
                    Ok(len) => done += len as u64,
                    Err(error) if done == 0 => return Err(self.errno(&error)),
                    Err(_) => break,
                }
            }
            self.touch_atime(&from.inode);
            // The kernel asks for nothing more, as it does after a write.
            self.written(&to.inode, is_synchronous(range.opened))?;
            u32::try_from(done).map_err(|_| Errno::INVAL)
        })
    }

    fn note_write(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_write.store(now, Ordering::Relaxed);
    }

    /// How long no write has come, in milliseconds.
    pub(crate) fn quiet_for(&self) -> u64 {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        now.saturating_sub(self.last_write.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use blockdev::{Counted, RamDevice};
    use ext2_core::{Ext2, OpenOptions};
    use ext2_image::mkfs::{self, Format, Fresh};

    use super::*;
    use crate::options::MountOptions;
    use crate::volume::New;

    #[test]
    fn a_write_past_the_cache_is_durable_when_it_returns_if_its_file_was_opened_so() {
        let caller = Caller { uid: 0, gid: 0, pid: 0 };
        for (direct_io, opened, durable) in [
            (true, OFlags::WRONLY | OFlags::DSYNC, true),
            (true, OFlags::WRONLY | OFlags::SYNC, true),
            // O_DSYNC alone, which is a part of what O_SYNC is.
            (true, OFlags::WRONLY | OFlags::from_bits_retain(0o10000), true),
            (true, OFlags::WRONLY, false),
            // The kernel asks for it itself, once it has written.
            (false, OFlags::WRONLY | OFlags::SYNC, false),
        ] {
            let device = Arc::new(Counted::new(RamDevice::new(1 << 20).unwrap()));
            mkfs::format(&*device, &Format::default(), Fresh::Zeros).unwrap();
            let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
            let volume = Volume::new(fs, &MountOptions { direct_io, ..MountOptions::default() }).unwrap();
            let new = New { mode: 0o100_644, umask: 0, device: 0 };
            let (_, node) = volume.make(1, b"f", new, caller).unwrap();
            let before = device.snapshot();
            let flags = opened.bits().cast_signed();
            let number = crate::convert::node_of(node.inode.nr());
            assert_eq!(volume.write(number, 0, b"kept", WriteFlags::empty(), flags, caller), Ok(4));
            assert_eq!(device.snapshot().since(&before).flushes > 0, durable, "{direct_io} {opened:?}");
        }
    }
}
