//! The caller's side of a read or write: memory that may refuse half-way (Linux: `struct iov_iter`).
//!
//! A buffer may be a mapping of the very file that is read or written, so it may fault: no lock that a fault takes is held
//! while bytes move. The lock over the contents is, for all of a write: a source or sink makes no call that reads or writes
//! the file.
//!
//! ```
//! use ext2_core::Follow;
//! use ext2_dax::rw::Limits;
//! use ext2_dax::uio::{Faulting, SliceSource};
//! use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};
//! # let fs = ext2_core::Ext2::open(ext2_image::mkfs::in_memory(16 << 20)?, &Default::default())?;
//!
//! fs.write("file", "")?;
//! let dax = DaxFs::new(fs.clone(), DaxOptions::default());
//! let file = File::open(&dax, fs.resolve("file", Follow::Yes)?, OpenFor::Writing)?;
//!
//! // A write from memory of which the first 5000 bytes are there: they are written, reported, and the file's size.
//! let mut source = Faulting::new(SliceSource::new(&[7; 8192]), 5000);
//! assert_eq!(file.write_from(0, 8192, &mut source, Limits::default())?, 5000);
//! assert_eq!(file.size(), 5000);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use blockdev::PmemSlice;

use crate::error::Result;

/// Where the bytes of a read go.
pub trait Sink {
    /// Takes the first bytes of `from` and says how many: fewer than there are when the buffer cannot
    /// be written further.
    ///
    /// # Errors
    /// The device's. Nobody asks the sink for more then.
    fn put(&mut self, from: &PmemSlice<'_>) -> Result<u64>;

    /// Takes `len` zero bytes and says how many it could.
    fn put_zeros(&mut self, len: u64) -> u64;

    /// Takes the first of `bytes` and says how many.
    fn put_bytes(&mut self, bytes: &[u8]) -> u64;
}

/// Where the bytes of a write come from.
pub trait Source {
    /// Stores the next bytes into `to` from its beginning, past the caches, and says how many: fewer
    /// than fit when the buffer cannot be read further.
    ///
    /// # Errors
    /// The device's. Nobody asks the source for more then.
    fn take(&mut self, to: &PmemSlice<'_>) -> Result<u64>;

    /// Fills the beginning of `buf` and says how many bytes.
    fn take_bytes(&mut self, buf: &mut [u8]) -> u64;
}

/// A slice to read into. Reading never asks it for more than it has.
#[derive(Debug)]
pub struct SliceSink<'a> {
    rest: &'a mut [u8],
}

impl<'a> SliceSink<'a> {
    /// All of `buf`.
    pub fn new(buf: &'a mut [u8]) -> Self {
        Self { rest: buf }
    }

    fn split(&mut self, len: u64) -> &'a mut [u8] {
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(self.rest.len());
        let (now, rest) = std::mem::take(&mut self.rest).split_at_mut(len);
        self.rest = rest;
        now
    }
}

impl Sink for SliceSink<'_> {
    fn put(&mut self, from: &PmemSlice<'_>) -> Result<u64> {
        let now = self.split(from.len());
        from.copy_out(0, now)?;
        Ok(now.len() as u64)
    }

    fn put_zeros(&mut self, len: u64) -> u64 {
        let now = self.split(len);
        now.fill(0);
        now.len() as u64
    }

    fn put_bytes(&mut self, bytes: &[u8]) -> u64 {
        let now = self.split(bytes.len() as u64);
        now.copy_from_slice(&bytes[..now.len()]);
        now.len() as u64
    }
}

/// A slice to write from.
#[derive(Debug)]
pub struct SliceSource<'a> {
    rest: &'a [u8],
}

impl<'a> SliceSource<'a> {
    /// All of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn split(&mut self, len: u64) -> &'a [u8] {
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(self.rest.len());
        let (now, rest) = self.rest.split_at(len);
        self.rest = rest;
        now
    }
}

impl Source for SliceSource<'_> {
    fn take(&mut self, to: &PmemSlice<'_>) -> Result<u64> {
        let now = self.split(to.len());
        to.copy_in(0, now)?;
        Ok(now.len() as u64)
    }

    fn take_bytes(&mut self, buf: &mut [u8]) -> u64 {
        let now = self.split(buf.len() as u64);
        buf[..now.len()].copy_from_slice(now);
        now.len() as u64
    }
}

/// A buffer of which only the first bytes are there: what a process passes whose memory ends, or is
/// protected, half-way.
#[derive(Debug)]
pub struct Faulting<B> {
    inner: B,
    good: u64,
}

impl<B> Faulting<B> {
    /// The first `good` bytes of `inner`.
    pub fn new(inner: B, good: u64) -> Self {
        Self { inner, good }
    }
}

impl<B: Sink> Sink for Faulting<B> {
    fn put(&mut self, from: &PmemSlice<'_>) -> Result<u64> {
        let put = self.inner.put(&from.subslice(0, from.len().min(self.good))?)?;
        self.good -= put;
        Ok(put)
    }

    fn put_zeros(&mut self, len: u64) -> u64 {
        let put = self.inner.put_zeros(len.min(self.good));
        self.good -= put;
        put
    }

    fn put_bytes(&mut self, bytes: &[u8]) -> u64 {
        let len = usize::try_from(self.good).unwrap_or(usize::MAX).min(bytes.len());
        let put = self.inner.put_bytes(&bytes[..len]);
        self.good -= put;
        put
    }
}

impl<B: Source> Source for Faulting<B> {
    fn take(&mut self, to: &PmemSlice<'_>) -> Result<u64> {
        let taken = self.inner.take(&to.subslice(0, to.len().min(self.good))?)?;
        self.good -= taken;
        Ok(taken)
    }

    fn take_bytes(&mut self, buf: &mut [u8]) -> u64 {
        let len = usize::try_from(self.good).unwrap_or(usize::MAX).min(buf.len());
        let taken = self.inner.take_bytes(&mut buf[..len]);
        self.good -= taken;
        taken
    }
}
