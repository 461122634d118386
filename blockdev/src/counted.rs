//! A device that counts what is asked of it.

use portable_atomic::{AtomicU64, Ordering};

use crate::{
    Access, BlockDevice, Claim, DaxDevice, Error, Media, PmemSlice, Result, StoreData, StoreObserver,
    StorePath,
};

/// What a [`Counted`] device has seen. Calls count whether they succeed or not; words read and written one
/// by one (`read_u32`, `write_u16`, …) count among `reads` and `writes` too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls of `read_at` and `read_u32`.
    pub reads: u64,
    /// Bytes that they asked for.
    pub read_bytes: u64,
    /// Those of at most 8 bytes: a pointer, a count, a link.
    pub small_reads: u64,
    /// Calls of `write_at`, `write_u32`, `write_u16`, `write_words` and `recovery_write`.
    pub writes: u64,
    /// Bytes that they gave.
    pub written_bytes: u64,
    /// Those of at most 8 bytes.
    pub small_writes: u64,
    /// Calls of `zero`.
    pub zeros: u64,
    /// Bytes that they zeroed.
    pub zeroed_bytes: u64,
    /// Calls of `discard`.
    pub discards: u64,
    /// Calls of `fence`.
    pub fences: u64,
    /// Calls of `flush`.
    pub flushes: u64,
    /// Calls of `direct_access`.
    pub direct_accesses: u64,
    /// Calls of `write_back`.
    pub write_backs: u64,
    /// Bytes that they wrote back.
    pub written_back_bytes: u64,
    /// Loads through slices.
    pub loads: u64,
    /// Bytes loaded through slices.
    pub loaded_bytes: u64,
    /// Stores through slices, of bytes or zeros.
    pub stores: u64,
    /// Bytes stored through slices.
    pub stored_bytes: u64,
}

macro_rules! counters {
    ($($field:ident),* $(,)?) => {
        #[derive(Debug, Default)]
        struct Counters { $($field: AtomicU64),* }

        impl Counters {
            fn snapshot(&self) -> Counts {
                Counts { $($field: self.$field.load(Ordering::Relaxed)),* }
            }

            fn take(&self) -> Counts {
                Counts { $($field: self.$field.swap(0, Ordering::Relaxed)),* }
            }
        }

        impl Counts {
            /// What was counted since `earlier`, a snapshot of the same device.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($field: self.$field.saturating_sub(earlier.$field)),* }
            }
        }
    };
}

counters!(
    reads,
    read_bytes,
    small_reads,
    writes,
    written_bytes,
    small_writes,
    zeros,
    zeroed_bytes,
    discards,
    fences,
    flushes,
    direct_accesses,
    write_backs,
    written_back_bytes,
    loads,
    loaded_bytes,
    stores,
    stored_bytes,
);

/// `D`, counting. Counters are relaxed atomics: exact in sum, not a consistent cut while others run.
#[derive(Debug)]
pub struct Counted<D> {
    counters: Counters,
    inner: D,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl<D> Counted<D> {
    /// The layer over `inner`, with all counts 0.
    pub fn new(inner: D) -> Self {
        Self { counters: Counters::default(), inner }
    }

    /// The device below.
    pub fn into_inner(self) -> D {
        self.inner
    }
}

impl<D> Counted<D> {
    /// The counts so far.
    pub fn snapshot(&self) -> Counts {
        self.counters.snapshot()
    }

    /// The counts so far, which begin again at 0.
    pub fn reset(&self) -> Counts {
        self.counters.take()
    }

    /// The device below, past the counters.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    fn count_read(&self, len: u64) {
        add(&self.counters.reads, 1);
        add(&self.counters.read_bytes, len);
        if len <= 8 {
            add(&self.counters.small_reads, 1);
        }
    }

    fn count_write(&self, len: u64) {
        add(&self.counters.writes, 1);
        add(&self.counters.written_bytes, len);
        if len <= 8 {
            add(&self.counters.small_writes, 1);
        }
    }
}

impl<D: BlockDevice> Counted<D> {
    fn memory(&self) -> Result<&dyn DaxDevice> {
        self.inner.dax().ok_or(Error::Unsupported("DAX"))
    }
}

impl<D: BlockDevice> BlockDevice for Counted<D> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.count_read(buf.len() as u64);
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.count_write(buf.len() as u64);
        self.inner.write_at(offset, buf)
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        add(&self.counters.zeros, 1);
        add(&self.counters.zeroed_bytes, len);
        self.inner.zero(offset, len)
    }

    fn fence(&self) -> Result<()> {
        add(&self.counters.fences, 1);
        self.inner.fence()
    }

    fn flush(&self) -> Result<()> {
        add(&self.counters.flushes, 1);
        self.inner.flush()
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
        add(&self.counters.discards, 1);
        self.inner.discard(offset, len)
    }

    fn read_u32(&self, offset: u64) -> Result<u32> {
        self.count_read(4);
        self.inner.read_u32(offset)
    }

    fn write_u32(&self, offset: u64, value: u32) -> Result<()> {
        self.count_write(4);
        self.inner.write_u32(offset, value)
    }

    fn write_words(&self, offset: u64, words: &[u32]) -> Result<()> {
        self.count_write(size_of_val(words) as u64);
        self.inner.write_words(offset, words)
    }

    fn write_u16(&self, offset: u64, value: u16) -> Result<()> {
        self.count_write(2);
        self.inner.write_u16(offset, value)
    }
}

impl<D: BlockDevice> DaxDevice for Counted<D> {
    fn direct_access(&self, page: u64, count: u64, mode: Access) -> Result<PmemSlice<'_>> {
        add(&self.counters.direct_accesses, 1);
        let slice = self.memory()?.direct_access(page, count, mode)?;
        slice.reissue(slice.device_offset(), Some(self))
    }

    fn recovery_write(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.count_write(buf.len() as u64);
        self.memory()?.recovery_write(offset, buf)
    }

    fn write_back(&self, offset: u64, len: u64) -> Result<()> {
        add(&self.counters.write_backs, 1);
        add(&self.counters.written_back_bytes, len);
        self.memory()?.write_back(offset, len)
    }

    fn pfn(&self, page: u64) -> u64 {
        self.inner.dax().map_or(page, |dax| dax.pfn(page))
    }

    fn observer(&self) -> Option<&dyn StoreObserver> {
        Some(self)
    }
}

impl<D: BlockDevice> StoreObserver for Counted<D> {
    fn before_store(&self, offset: u64, data: StoreData<'_>, path: StorePath) -> Result<()> {
        add(&self.counters.stores, 1);
        add(&self.counters.stored_bytes, data.len());
        match self.inner.dax().and_then(|dax| dax.observer()) {
            None => Ok(()),
            Some(below) => below.before_store(offset, data, path),
        }
    }

    fn after_store(&self, offset: u64, len: u64) {
        if let Some(below) = self.inner.dax().and_then(|dax| dax.observer()) {
            below.after_store(offset, len);
        }
    }

    fn before_load(&self, offset: u64, len: u64) -> Result<()> {
        add(&self.counters.loads, 1);
        add(&self.counters.loaded_bytes, len);
        match self.inner.dax().and_then(|dax| dax.observer()) {
            None => Ok(()),
            Some(below) => below.before_load(offset, len),
        }
    }
}
