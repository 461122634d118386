//! The two traits: a block device, and the memory behind it.
//!
//! # Invariants
//! 1. A request that does not lie wholly inside the device is [`Error::OutOfRange`](crate::Error), and
//!    nothing of it is done.
//! 2. An aligned write of 2, 4 or (on machines of 64 bits) 8 bytes is **one store**: no reader and no crash sees half of it. All
//!    on-disk pointers, link counts and record lengths rely on it.
//! 3. What was written before a [`fence`](BlockDevice::fence) reaches the media no later than what is
//!    written after it. Between fences any order is legal.
//! 4. What was written before a [`flush`](BlockDevice::flush) is durable when it returns.
//! 5. Everything takes `&self` and may be called from many threads at once. Overlapping bulk writes may
//!    mix; they never touch bytes outside their own ranges.

use core::fmt::Debug;

use crate::{Claim, Media, PmemSlice, Result, StoreObserver};

/// Bytes of a page: the unit of [`DaxDevice::direct_access`].
pub const PAGE_SIZE: u64 = 4096;

/// What the caller of [`DaxDevice::direct_access`] means to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only load. Granted on read-only devices.
    Read,
    /// Load and store.
    Write,
    /// Store over poisoned memory (Linux: `DAX_RECOVERY_WRITE`): the run may begin with poisoned pages,
    /// and only [`DaxDevice::recovery_write`] may be used on them.
    Recovery,
}

/// The file that a device's bytes are in, for system calls that move them without a copy of ours (`splice`).
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug)]
pub struct BackingFile<'a> {
    /// Open for reading at least. What is stored to the device is read from it at once.
    pub fd: std::os::fd::BorrowedFd<'a>,
    /// The byte of the file that is byte 0 of the device.
    pub offset: u64,
}

/// What is known of bytes without reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Anything: they have to be read.
    Data,
    /// Zeros that take room.
    Zero,
    /// Zeros that take no room.
    Hole,
}

/// A device of `size` bytes that is read and written at byte offsets.
///
/// Offsets and lengths are bytes, and need no alignment; what alignment buys is invariant 2 of this module:
/// an aligned access of 2, 4 or 8 bytes is one load or store. Every method answers
/// [`Error::OutOfRange`](crate::Error) for a range that is not wholly inside (an empty one is, up to the end
/// itself), [`Error::Io`](crate::Error) where the system refuses, and what its own lines say.
pub trait BlockDevice: Debug + Send + Sync {
    /// Bytes of the device. Never changes.
    fn size(&self) -> u64;

    /// Fills `buf` from `offset`, wholly or not at all as far as the caller may rely on it.
    ///
    /// # Errors
    /// `Poisoned`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Writes all of `buf` at `offset`. After an error other than `OutOfRange` and `ReadOnly` any part of it
    /// may have been written.
    ///
    /// # Errors
    /// `ReadOnly`; `NoSpace` where the backing store is full; `Poisoned` where a part of a poisoned page
    /// would be written (all of one heals it).
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()>;

    /// Makes `offset..offset + len` read as zeros, by whatever costs least: a hole, or stores.
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at).
    fn zero(&self, offset: u64, len: u64) -> Result<()>;

    /// Orders: see invariant 3. Free of cost where program order is all the device needs.
    ///
    /// # Errors
    /// `Io` where ordering takes a write-out.
    fn fence(&self) -> Result<()>;

    /// Makes everything that was written durable. Linux: `blkdev_issue_flush`.
    ///
    /// # Errors
    /// `Io`, `NoSpace`; what was written since the last flush may be lost then.
    fn flush(&self) -> Result<()>;

    /// A [`fence`](Self::fence) that says which one of the caller's it is, for a device that keeps a log of them. The
    /// number means nothing to the device.
    ///
    /// # Errors
    /// As for `fence`.
    fn fence_tagged(&self, tag: u64) -> Result<()> {
        let _ = tag;
        self.fence()
    }

    /// A [`flush`](Self::flush) that says which one of the caller's it is, as [`fence_tagged`](Self::fence_tagged).
    ///
    /// # Errors
    /// As for `flush`.
    fn flush_tagged(&self, tag: u64) -> Result<()> {
        let _ = tag;
        self.flush()
    }

    /// Claims `offset..offset + len` for one writer: what a file system does before it writes to a device that it takes
    /// for its own. A device that is a file also asks what the kernel does with it. Reading needs no claim, and neither
    /// `write_at` nor DAX asks for one.
    ///
    /// A layer claims from the device below, in its offsets; the default claims from `self`.
    ///
    /// # Errors
    /// `InUse` where a byte of the range is claimed already, or the kernel has mounted it; `OutOfRange`.
    fn claim(&self, offset: u64, len: u64) -> Result<Claim> {
        crate::range::check(offset, len, self.size())?;
        Claim::of(self, offset, len)
    }

    /// Whether writes are refused with [`Error::ReadOnly`](crate::Error).
    fn is_read_only(&self) -> bool {
        false
    }

    /// The memory behind the device, if it is memory.
    fn dax(&self) -> Option<&dyn DaxDevice> {
        None
    }

    /// What stores go to. On persistent memory, which is written by lines or words, they have no order without a fence, not even
    /// within a sector. A layer that hands stores on says what the device below says, also where it has no memory to show.
    fn media(&self) -> Media {
        let memory = self.dax().map(|dax| dax.direct_access(0, 1, Access::Read));
        // Of what cannot be asked the worst is taken to be so.
        memory.map_or(Media::Volatile, |page| page.map_or(Media::Persistent, |page| page.media()))
    }

    /// The file that holds the device's bytes one after the other, if there is one and nothing stands between.
    #[cfg(feature = "std")]
    fn backing_file(&self) -> Option<BackingFile<'_>> {
        None
    }

    /// What the bytes from `offset` are, and for how many of `len` that holds: not 0 unless `len` is. What follows may be of the
    /// same kind. The default asks the [backing file](Self::backing_file), and else knows nothing: all is data.
    /// Linux: `SEEK_DATA` and `SEEK_HOLE` of lseek(2).
    ///
    /// # Errors
    /// `OutOfRange`; `Io`.
    fn extent(&self, offset: u64, len: u64) -> Result<(Extent, u64)> {
        crate::range::check(offset, len, self.size())?;
        #[cfg(feature = "std")]
        if let Some(file) = self.backing_file()
            && self.is_in_place(offset, len)
        {
            return crate::file::extent(file, offset, len);
        }
        Ok((Extent::Data, len))
    }

    /// Hints that many reads of the range will come: what of it is in memory already is mapped, as far as that takes no
    /// I/O and no room, so that the first read of a page is no page fault. Linux: `MADV_POPULATE_READ`.
    ///
    /// # Errors
    /// Only `OutOfRange`. A device that maps nothing does nothing.
    fn populate(&self, offset: u64, len: u64) -> Result<()> {
        crate::range::check(offset, len, self.size())
    }

    /// Hints that these bytes hold nothing any more; their contents are undefined until written. Linux:
    /// `blkdev_issue_discard`.
    ///
    /// # Errors
    /// `ReadOnly`. A device that cannot discard does nothing.
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        crate::range::check(offset, len, self.size())
    }

    /// As [`write_at`](Self::write_at), for bytes that are nobody's structure: what a file holds. A device that keeps
    /// structures back, to bring them to the media together, takes these at once.
    ///
    /// # Errors
    /// As for `write_at`.
    fn write_contents(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.write_at(offset, buf)
    }

    /// As [`zero`](Self::zero), for what a file holds: see [`write_contents`](Self::write_contents).
    ///
    /// # Errors
    /// As for `zero`.
    fn zero_contents(&self, offset: u64, len: u64) -> Result<()> {
        self.zero(offset, len)
    }

    /// Says that the bytes belong to nobody from now on, before they may be given to somebody else: what is stored there
    /// next must not reach the media before what gave them up.
    fn freed(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }

    /// Begins or ends a change that must reach the media as a whole, where the device brings many together. Between the
    /// two no flush is asked for by who holds it, and there are few stores.
    fn hold(&self, begin: bool) {
        let _ = begin;
    }

    /// Whether the bytes that are read are those of [`backing_file`](Self::backing_file), all over the range.
    fn is_in_place(&self, offset: u64, len: u64) -> bool {
        let _ = (offset, len);
        true
    }

    /// One little-endian 32-bit load at an offset that is a multiple of 4. (At others it is not single.)
    ///
    /// # Errors
    /// As for [`read_at`](Self::read_at).
    fn read_u32(&self, offset: u64) -> Result<u32> {
        let mut bytes = [0; 4];
        self.read_at(offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// One little-endian 32-bit store at an offset that is a multiple of 4. (At others it is not single.)
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at).
    fn write_u32(&self, offset: u64, value: u32) -> Result<()> {
        self.write_at(offset, &value.to_le_bytes())
    }

    /// Little-endian 32-bit stores one after the other from an offset that is a multiple of 4: as many calls of
    /// [`write_u32`](Self::write_u32), each of which is one store, so that no reader and no crash sees half of a
    /// word. In which order the words reach the media is not said. Memory writes each of its lines back but once.
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at); `Unsupported` at another offset, before anything is stored.
    fn write_words(&self, offset: u64, words: &[u32]) -> Result<()> {
        crate::range::check_words(offset, words, self.size())?;
        (offset..).step_by(4).zip(words).try_for_each(|(at, &word)| self.write_u32(at, word))
    }

    /// One little-endian 16-bit store at an offset that is a multiple of 2. (At others it is not single.)
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at).
    fn write_u16(&self, offset: u64, value: u16) -> Result<()> {
        self.write_at(offset, &value.to_le_bytes())
    }
}

/// The memory behind a block device (Linux: `struct dax_device`). Pages are [`PAGE_SIZE`] bytes and are
/// numbered from the device's first byte.
pub trait DaxDevice: BlockDevice {
    /// A run of pages from `page`, of at least one and at most `count` pages; it may be shorter than
    /// asked, and ends before a poisoned page. The last page of a device whose size is no multiple of a page
    /// is short. Linux: `dax_direct_access`.
    ///
    /// # Errors
    /// `OutOfRange` if not all of the pages are the device's, `NoSpace` if the first page of a run for
    /// storing cannot be given room, `ReadOnly` (for `Write` and `Recovery`), `Poisoned` when the first page
    /// is.
    fn direct_access(&self, page: u64, count: u64, mode: Access) -> Result<PmemSlice<'_>>;

    /// Writes over poisoned memory and heals every page that it covers wholly. Linux:
    /// `dax_recovery_write`.
    ///
    /// # Errors
    /// As for [`write_at`](BlockDevice::write_at); `Poisoned` where it covers only a part of a poisoned page.
    fn recovery_write(&self, offset: u64, buf: &[u8]) -> Result<()>;

    /// Writes the cache lines of the range back towards the media, so that the next fence orders them.
    /// Stores through a [`PmemSlice`]'s cached path (a mapping's stores) need it; `write_at`, `zero` and
    /// [`PmemSlice::copy_in`] do it themselves. Linux: `dax_flush`.
    ///
    /// # Errors
    /// `OutOfRange`.
    fn write_back(&self, offset: u64, len: u64) -> Result<()>;

    /// The page frame number of `page`: what decides whether a run can be mapped by a 2 MiB entry.
    /// Page 0 of a whole device is aligned to 2 MiB; that of a partition may not be.
    fn pfn(&self, page: u64) -> u64;

    /// Who must be told of stores to this device's memory, if anybody: for layers above, which hand out
    /// this device's memory as their own and have to pass on what they observe.
    fn observer(&self) -> Option<&dyn StoreObserver> {
        None
    }
}
