//! A device that keeps a log of everything that orders, or needs to be ordered.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use crate::sync::Mutex;
use crate::{
    Access, BlockDevice, Claim, DaxDevice, Error, Media, PmemSlice, Result, StoreData, StoreObserver,
    StorePath,
};

/// What a logged store put on the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// These bytes.
    Bytes(Box<[u8]>),
    /// So many zero bytes.
    Zeros(u64),
}

impl Stored {
    /// Bytes stored.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(len) => *len,
        }
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which fence or flush of a log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FenceId {
    /// Fences and flushes before it, those left out included.
    pub ordinal: u64,
    /// The tag that it was [called with](BlockDevice::fence_tagged), 0 for none: the place in the code.
    pub tag: u64,
}

/// One entry of a log, in the order of the calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordedOp {
    /// `write_at`, `zero`, a recovery write (all [`StorePath::Bypassing`]) or a store through a slice.
    Store {
        /// First byte.
        offset: u64,
        /// What was stored.
        data: Stored,
        /// How it gets to the media.
        path: StorePath,
    },
    /// `write_back` of a range in bytes.
    WriteBack {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// `fence`.
    Fence(FenceId),
    /// `flush`.
    Flush(FenceId),
    /// [`Recorder::mark`].
    Mark(u64),
}

type FenceFilter = Box<dyn Fn(FenceId) -> bool + Send + Sync>;

#[derive(Default)]
struct Log {
    ops: Vec<RecordedOp>,
    fences: u64,
    ignore: Option<FenceFilter>,
    /// All bytes of the device as the log has them, where stores may come past it.
    known: Option<Vec<u8>>,
}

/// Bytes that are compared at a time to find stores that came past the log.
const LOOK: usize = 4096;
/// What a store that came past the log is taken for: as much as a processor stores at once.
const WORD: usize = 8;

impl Log {
    /// Notes what a store puts on the device.
    fn know(&mut self, offset: u64, data: StoreData<'_>) {
        let Some(known) = &mut self.known else { return };
        // OK to cast: the range was checked.
        let place = &mut known[offset as usize..][..data.len() as usize];
        match data {
            StoreData::Bytes(bytes) => place.copy_from_slice(bytes),
            StoreData::Zeros(_) => place.fill(0),
        }
    }

    /// Logs what was stored past the log, word by word.
    fn look<D: BlockDevice>(&mut self, device: &D) -> Result<()> {
        let Self { ops, known: Some(known), .. } = self else { return Ok(()) };
        let mut now = [0; LOOK];
        for (nr, before) in known.chunks_mut(LOOK).enumerate() {
            let (now, at) = (&mut now[..before.len()], (nr * LOOK) as u64);
            device.read_at(at, now)?;
            if now == before {
                continue;
            }
            for ((word, old), at) in now.chunks(WORD).zip(before.chunks_mut(WORD)).zip((at..).step_by(WORD)) {
                if word != old {
                    let data = Stored::Bytes(word.into());
                    ops.push(RecordedOp::Store { offset: at, data, path: StorePath::Cached });
                    old.copy_from_slice(word);
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("ops", &self.ops.len())
            .field("fences", &self.fences)
            .field("ignores", &self.ignore.is_some())
            .finish()
    }
}

/// `D`, with a log of stores, write-backs, fences, flushes and marks, from which
/// `crash::PmemModel` and `crash::BlockModel` rebuild what a crash may leave.
///
/// A store is logged before it is done. Threads that store to the same bytes at once may be logged in the
/// other order, so crash tests keep their threads apart.
#[derive(Debug)]
pub struct Recorder<D> {
    log: Mutex<Log>,
    inner: D,
}

impl<D: BlockDevice> Recorder<D> {
    /// The layer over `inner`, with an empty log.
    pub fn new(inner: D) -> Self {
        Self { log: Mutex::new(Log::default()), inner }
    }

    /// As [`new`](Self::new), over a device whose [backing file](BlockDevice::backing_file) is mapped by others: who stores to
    /// its pages is found out before each fence, flush, write-back and mark, by comparing all of the device, and logged as
    /// stores through the caches of single words. So for small devices.
    ///
    /// # Errors
    /// The device's.
    pub fn of_mapped(inner: D) -> Result<Self> {
        let too_large = Error::Unsupported("a device larger than memory");
        let mut known = alloc::vec![0; usize::try_from(inner.size()).map_err(|_| too_large)?];
        inner.read_at(0, &mut known)?;
        Ok(Self { log: Mutex::new(Log { known: Some(known), ..Log::default() }), inner })
    }

    /// The device below.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// The device below.
    pub fn into_inner(self) -> D {
        self.inner
    }

    /// Puts a mark into the log: an operation begins, or has returned.
    pub fn mark(&self, mark: u64) {
        let mut log = self.log.lock();
        // A device that cannot be read gives its error to the next fence.
        let _ = log.look(&self.inner);
        log.ops.push(RecordedOp::Mark(mark));
    }

    /// Leaves out of the log, from here on, the fences and flushes that `predicate` picks, as if the code
    /// had forgotten them. The device below still gets them.
    pub fn ignore_fence(&self, predicate: impl Fn(FenceId) -> bool + Send + Sync + 'static) {
        self.log.lock().ignore = Some(Box::new(predicate));
    }

    /// Entries logged so far.
    pub fn len(&self) -> usize {
        self.log.lock().ops.len()
    }

    /// Whether nothing was logged yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fences and flushes so far, those left out of the log included.
    pub fn fences(&self) -> u64 {
        self.log.lock().fences
    }

    /// A copy of the log.
    pub fn snapshot(&self) -> Vec<RecordedOp> {
        self.log.lock().ops.clone()
    }

    /// The log, which begins anew, and so does the numbering of fences.
    pub fn take(&self) -> Vec<RecordedOp> {
        let mut log = self.log.lock();
        log.fences = 0;
        core::mem::take(&mut log.ops)
    }

    fn log_store(&self, offset: u64, data: StoreData<'_>, path: StorePath) -> Result<()> {
        crate::range::check(offset, data.len(), self.inner.size())?;
        if self.inner.is_read_only() {
            return Err(Error::ReadOnly);
        }
        let stored = match data {
            StoreData::Bytes(bytes) => Stored::Bytes(bytes.into()),
            StoreData::Zeros(len) => Stored::Zeros(len),
        };
        if !stored.is_empty() {
            let mut log = self.log.lock();
            log.know(offset, data);
            log.ops.push(RecordedOp::Store { offset, data: stored, path });
        }
        Ok(())
    }

    fn log_fence(&self, op: fn(FenceId) -> RecordedOp, tag: u64) {
        let mut log = self.log.lock();
        let id = FenceId { ordinal: log.fences, tag };
        log.fences += 1;
        if !log.ignore.as_ref().is_some_and(|ignore| ignore(id)) {
            log.ops.push(op(id));
        }
    }

    fn log_bypassing(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.log_store(offset, StoreData::Bytes(buf), StorePath::Bypassing)
    }

    fn memory(&self) -> Result<&dyn DaxDevice> {
        self.inner.dax().ok_or(Error::Unsupported("DAX"))
    }

    fn observer_below(&self) -> Option<&dyn StoreObserver> {
        self.inner.dax().and_then(|dax| dax.observer())
    }
}

impl<D: BlockDevice> BlockDevice for Recorder<D> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.log_bypassing(offset, buf)?;
        self.inner.write_at(offset, buf)
    }

    /// Each word is an entry of its own: nothing more than a word is promised to arrive whole.
    fn write_words(&self, offset: u64, words: &[u32]) -> Result<()> {
        crate::range::check_words(offset, words, self.inner.size())?;
        for (at, word) in (offset..).step_by(4).zip(words) {
            self.log_bypassing(at, &word.to_le_bytes())?;
        }
        self.inner.write_words(offset, words)
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.log_store(offset, StoreData::Zeros(len), StorePath::Bypassing)?;
        self.inner.zero(offset, len)
    }

    fn fence(&self) -> Result<()> {
        self.fence_tagged(0)
    }

    fn flush(&self) -> Result<()> {
        self.flush_tagged(0)
    }

    fn fence_tagged(&self, tag: u64) -> Result<()> {
        self.log.lock().look(&self.inner)?;
        self.inner.fence_tagged(tag)?;
        self.log_fence(RecordedOp::Fence, tag);
        Ok(())
    }

    fn flush_tagged(&self, tag: u64) -> Result<()> {
        self.log.lock().look(&self.inner)?;
        self.inner.flush_tagged(tag)?;
        self.log_fence(RecordedOp::Flush, tag);
        Ok(())
    }

    fn claim(&self, offset: u64, len: u64) -> Result<Claim> {
        self.inner.claim(offset, len)
    }

    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }

    fn media(&self) -> Media {
        self.inner.media()
    }

    fn dax(&self) -> Option<&dyn DaxDevice> {
        self.inner.dax().map(|_| self as &dyn DaxDevice)
    }

    fn populate(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.populate(offset, len)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.discard(offset, len)
    }

    fn read_u32(&self, offset: u64) -> Result<u32> {
        self.inner.read_u32(offset)
    }

    /// That of the device below, if [stores to its pages](Self::of_mapped) are found out.
    #[cfg(feature = "std")]
    fn backing_file(&self) -> Option<crate::BackingFile<'_>> {
        if self.log.lock().known.is_some() { self.inner.backing_file() } else { None }
    }
}

impl<D: BlockDevice> DaxDevice for Recorder<D> {
    fn direct_access(&self, page: u64, count: u64, mode: Access) -> Result<PmemSlice<'_>> {
        let slice = self.memory()?.direct_access(page, count, mode)?;
        slice.reissue(slice.device_offset(), Some(self))
    }

    fn recovery_write(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.log_bypassing(offset, buf)?;
        self.memory()?.recovery_write(offset, buf)
    }

    fn write_back(&self, offset: u64, len: u64) -> Result<()> {
        self.log.lock().look(&self.inner)?;
        self.memory()?.write_back(offset, len)?;
        self.log.lock().ops.push(RecordedOp::WriteBack { offset, len });
        Ok(())
    }

    fn pfn(&self, page: u64) -> u64 {
        self.inner.dax().map_or(page, |dax| dax.pfn(page))
    }

    fn observer(&self) -> Option<&dyn StoreObserver> {
        Some(self)
    }
}

impl<D: BlockDevice> StoreObserver for Recorder<D> {
    fn before_store(&self, offset: u64, data: StoreData<'_>, path: StorePath) -> Result<()> {
        if let Some(below) = self.observer_below() {
            below.before_store(offset, data, path)?;
        }
        self.log_store(offset, data, path)
    }

    fn after_store(&self, offset: u64, len: u64) {
        if let Some(below) = self.observer_below() {
            below.after_store(offset, len);
        }
    }

    fn before_load(&self, offset: u64, len: u64) -> Result<()> {
        self.observer_below().map_or(Ok(()), |below| below.before_load(offset, len))
    }
}
