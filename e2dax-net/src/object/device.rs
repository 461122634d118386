//! The device.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use blockdev::{BlockDevice, Error, Result};

use super::cache::Cache;
use super::store::{Failed, Object};
use super::uri::ObjectUri;

/// Most bytes of a request, where blocks are smaller.
const AT_ONCE: u64 = 8 << 20;

/// What was asked of the store so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Requests, the first of all among them, which asks what the object is.
    pub requests: u64,
    /// Bytes of data that came.
    pub bytes: u64,
}

/// An object as a device, which is read-only: see the module's invariants.
pub struct ObjectDevice {
    object: Object,
    block: u64,
    blocks: Mutex<Blocks>,
    /// A block is there, or is not going to be.
    fetched: Condvar,
    requests: AtomicU64,
    bytes: AtomicU64,
    /// Why it is over.
    over: OnceLock<String>,
}

struct Blocks {
    cache: Cache,
    /// Those that some thread fetches.
    under_way: HashSet<u64>,
}

/// Takes back what a thread said that it would fetch.
struct UnderWay<'d> {
    device: &'d ObjectDevice,
    blocks: std::ops::Range<u64>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut blocks = self.device.blocks();
        self.blocks.clone().for_each(|block| {
            blocks.under_way.remove(&block);
        });
        drop(blocks);
        self.device.fetched.notify_all();
    }
}

impl ObjectDevice {
    /// Asks the store what the object is.
    ///
    /// # Errors
    /// `Io` with `op` `connect`, which says what the store or the system says.
    pub fn open(uri: &ObjectUri) -> Result<Self> {
        let failed = |message: String, errno| Error::Io { op: "connect", offset: 0, errno, message };
        let object = Object::open(uri).map_err(|what| failed(what, None))?;
        let identity = format!("{} {} {}", uri.name(), uri.block, object.identity());
        let cache = Cache::open(&uri.keep, &identity, uri.keep_bytes);
        let cache =
            cache.map_err(|error: io::Error| failed(format!("the cache: {error}"), error.raw_os_error()))?;
        Ok(Self {
            object,
            block: uri.block,
            blocks: Mutex::new(Blocks { cache, under_way: HashSet::new() }),
            fetched: Condvar::new(),
            requests: AtomicU64::new(1),
            bytes: AtomicU64::new(0),
            over: OnceLock::new(),
        })
    }

    /// What it cost so far. What is tried again after an error counts once.
    #[must_use]
    pub fn cost(&self) -> Cost {
        Cost { requests: self.requests.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of a block; the last one may be short.
    fn len_of(&self, block: u64) -> usize {
        // OK to cast: at most 64 MiB.
        (self.size() - block * self.block).min(self.block) as usize
    }

    fn check(&self, offset: u64, len: u64) -> Result<()> {
        let size = self.size();
        if len <= size && offset <= size - len {
            Ok(())
        } else {
            Err(Error::OutOfRange { offset, len, size })
        }
    }

    fn failed(&self, block: u64, message: &str) -> Error {
        let offset = block * self.block;
        Error::Io {
            op: "read",
            offset,
            errno: Some(rustix::io::Errno::IO.raw_os_error()),
            message: message.into(),
        }
    }

    /// Calls `take` with blocks in order, each once; fetches those that are not there.
    fn each(&self, wanted: std::ops::Range<u64>, mut take: impl FnMut(u64, &[u8])) -> Result<()> {
        let mut at = wanted.start;
        let mut blocks = self.blocks();
        while at < wanted.end {
            if let Some(why) = self.over.get() {
                return Err(self.failed(at, why));
            }
            if let Some(bytes) = blocks.cache.get(at, self.len_of(at)) {
                drop(blocks);
                take(at, &bytes);
                at += 1;
                blocks = self.blocks();
                continue;
            }
            if blocks.under_way.contains(&at) {
                blocks = self.fetched.wait(blocks).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let most = (AT_ONCE / self.block).max(1);
            let mut end = at + 1;
            while end < wanted.end.min(at + most)
                && !blocks.under_way.contains(&end)
                && blocks.cache.get(end, self.len_of(end)).is_none()
            {
                end += 1;
            }
            blocks.under_way.extend(at..end);
            drop(blocks);
            let under_way = UnderWay { device: self, blocks: at..end };
            let bytes = self.fetch(at, end)?;
            {
                let mut blocks = self.blocks();
                for (block, bytes) in (at..end).zip(bytes.chunks(self.block as usize)) {
                    blocks.cache.put(block, bytes);
                }
            }
            drop(under_way);
            for (block, bytes) in (at..end).zip(bytes.chunks(self.block as usize)) {
                take(block, bytes);
            }
            at = end;
            blocks = self.blocks();
        }
        Ok(())
    }

    fn fetch(&self, from: u64, to: u64) -> Result<Vec<u8>> {
        let (start, end) = (from * self.block, (to * self.block).min(self.size()));
        self.requests.fetch_add(1, Ordering::Relaxed);
        match self.object.fetch(start..end) {
            Ok(bytes) => {
                self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Ok(bytes)
            }
            Err(Failed::Changed(how)) => {
                let why = self.over.get_or_init(|| format!("the object has changed: {how}"));
                Err(self.failed(from, why))
            }
            Err(Failed::Other(what)) => Err(self.failed(from, &what)),
        }
    }

    fn range(&self, offset: u64, len: u64) -> std::ops::Range<u64> {
        offset / self.block..(offset + len).div_ceil(self.block)
    }
}

impl BlockDevice for ObjectDevice {
    fn size(&self) -> u64 {
        self.object.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let len = buf.len() as u64;
        self.check(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        self.each(self.range(offset, len), |block, bytes| {
            let start = block * self.block;
            let (from, to) = (offset.max(start), (offset + len).min(start + bytes.len() as u64));
            // OK to cast: within a block, and within the buffer.
            let source = bytes.get((from - start) as usize..(to - start) as usize);
            let target = buf.get_mut((from - offset) as usize..(to - offset) as usize);
            if let (Some(source), Some(target)) = (source, target) {
                target.copy_from_slice(source);
            }
        })
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.zero(offset, buf.len() as u64)
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.check(offset, len)?;
        Err(Error::ReadOnly)
    }

    fn fence(&self) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.zero(offset, len)
    }

    fn populate(&self, offset: u64, len: u64) -> Result<()> {
        self.check(offset, len)?;
        if len > self.block {
            // A hint: what comes of it is told by who reads.
            let done = self.each(self.range(offset, len.min(AT_ONCE)), |_, _| ());
            done.unwrap_or_else(|error| log::debug!("{error}"));
        }
        Ok(())
    }
}

impl fmt::Debug for ObjectDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("ObjectDevice");
        all.field("size", &self.size())
            .field("block", &self.block)
            .field("cost", &self.cost())
            .finish_non_exhaustive()
    }
}
