//! The loop over the mappings of a range (fs/iomap/iter.c).
//!
//! # Invariants
//! 1. Exactly one `end` follows each `begin` that succeeded, also when the body fails or the iterator
//!    is dropped half-way.
//! 2. What breaks the contract of an answer is an error; Linux only warns, and loops for ever on an
//!    empty mapping.
//! 3. An empty request never reaches the file system.

use crate::error::{BadMapping, Error, Result};
use crate::iomap::{Iomap, IomapOps, MapFlags, OpFlags};

/// What the loop body did with a mapping (Linux: `iomap_iter.processed`).
#[derive(Debug)]
pub enum Step {
    /// So many bytes, from [`IomapIter::pos`]. None means stop.
    Done(u64),
    /// Nothing, because of this.
    Failed(Error),
}

/// The walk of a range of a file, mapping by mapping (Linux: `struct iomap_iter`).
///
/// ```
/// use ext2_dax::error::Result;
/// use ext2_dax::iomap::{Iomap, IomapOps, OpFlags};
/// use ext2_dax::iter::{IomapIter, Step};
///
/// /// A file whose first 64 KiB are on the device from byte 1 MiB on; the rest is a hole.
/// struct Flat;
///
/// impl IomapOps for Flat {
///     type Private = ();
///     fn begin(&self, pos: u64, len: u64, _: OpFlags) -> Result<Iomap> {
///         Ok(if pos < 65536 { Iomap::mapped(0, 65536, 1 << 20) } else { Iomap::hole(pos, len) })
///     }
///     fn end(&self, _: u64, _: u64, _: u64, _: OpFlags, _: Iomap) -> Result<()> {
///         Ok(())
///     }
/// }
///
/// let mut seen = Vec::new();
/// let mut iter = IomapIter::new(&Flat, 4096, 1 << 20, OpFlags::REPORT);
/// while iter.next()? {
///     let (pos, len) = (iter.pos(), iter.length());
///     seen.push((pos, len, iter.iomap().and_then(|iomap| iomap.addr_of(pos))));
///     iter.processed(Step::Done(len));
/// }
/// assert_eq!(seen, [(4096, 61440, Some((1 << 20) + 4096)), (65536, (1 << 20) - 61440, None)]);
/// # Ok::<(), ext2_dax::Error>(())
/// ```
#[derive(Debug)]
pub struct IomapIter<'a, O: IomapOps + ?Sized> {
    ops: &'a O,
    pos: u64,
    len: u64,
    flags: OpFlags,
    live: Option<Iomap<O::Private>>,
    step: Step,
}

impl<'a, O: IomapOps + ?Sized> IomapIter<'a, O> {
    /// A walk of `len` bytes from byte `pos`; the range is cut where 64 bits end.
    #[must_use]
    pub fn new(ops: &'a O, pos: u64, len: u64, flags: OpFlags) -> Self {
        let len = len.min(u64::MAX - pos);
        Self { ops, pos, len, flags, live: None, step: Step::Done(0) }
    }

    /// The first byte that is not done.
    #[must_use]
    pub fn pos(&self) -> u64 {
        self.pos
    }

    /// What the file system is told about the operation.
    #[must_use]
    pub fn flags(&self) -> OpFlags {
        self.flags
    }

    /// The mapping at [`Self::pos`]: there from a `next` that said true to the following `next`.
    #[must_use]
    pub fn iomap(&self) -> Option<&Iomap<O::Private>> {
        self.live.as_ref()
    }

    /// How many bytes from [`Self::pos`] are both asked for and mapped (Linux: `iomap_length`).
    #[must_use]
    pub fn length(&self) -> u64 {
        let mapped = self.live.as_ref().and_then(Iomap::end).map_or(0, |end| end.saturating_sub(self.pos));
        mapped.min(self.len)
    }

    /// Says what the body did with the mapping. Said again, the last word counts.
    pub fn processed(&mut self, step: Step) {
        self.step = step;
    }

    /// Says that the mapping at hand is no longer true: if the body did nothing with it, the file system
    /// is asked again for the same place (Linux: `IOMAP_F_STALE`).
    pub fn mark_stale(&mut self) {
        if let Some(iomap) = &mut self.live {
            iomap.flags.insert(MapFlags::STALE);
        }
    }

    /// Ends the mapping at hand and begins the next. False when the walk is over: all is done, or the
    /// body did nothing.
    ///
    /// # Errors
    /// The body's error; `begin`'s; `end`'s where the body had done nothing; or `BadMapping`. The walk
    /// is over then.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<bool> {
        if let Some(iomap) = self.live.take() {
            let length = self.length_of(&iomap);
            let stale = iomap.flags.contains(MapFlags::STALE);
            match std::mem::replace(&mut self.step, Step::Done(0)) {
                Step::Failed(error) => {
                    self.finish(iomap, length, 0).unwrap_or_else(log_lost);
                    return self.stop(Err(error));
                }
                Step::Done(processed) if processed > length => {
                    self.finish(iomap, length, 0).unwrap_or_else(log_lost);
                    return self.stop(Err(BadMapping::TooMuchDone { processed, length }.into()));
                }
                Step::Done(processed) => {
                    if let Err(error) = self.finish(iomap, length, processed) {
                        return self.stop(Err(error));
                    }
                    if processed == 0 && !stale {
                        return self.stop(Ok(false));
                    }
                    self.pos += processed;
                    self.len -= processed;
                }
            }
        }
        if self.len == 0 {
            return Ok(false);
        }
        let iomap = self.ops.begin(self.pos, self.len, self.flags).inspect_err(|_| self.len = 0)?;
        if let Some(bad) = breach(&iomap, self.pos) {
            let length = self.length_of(&iomap);
            self.finish(iomap, length, 0).unwrap_or_else(log_lost);
            return self.stop(Err(bad.into()));
        }
        self.live = Some(iomap);
        Ok(true)
    }

    fn length_of(&self, iomap: &Iomap<O::Private>) -> u64 {
        iomap.end().map_or(0, |end| end.saturating_sub(self.pos)).min(self.len)
    }

    fn finish(&self, iomap: Iomap<O::Private>, length: u64, written: u64) -> Result<()> {
        self.ops.end(self.pos, length, written, self.flags, iomap)
    }

    fn stop(&mut self, result: Result<bool>) -> Result<bool> {
        self.len = 0;
        result
    }
}

impl<O: IomapOps + ?Sized> Drop for IomapIter<'_, O> {
    fn drop(&mut self) {
        if let Some(iomap) = self.live.take() {
            let length = self.length_of(&iomap);
            self.finish(iomap, length, 0).unwrap_or_else(log_lost);
        }
    }
}

/// How `iomap` breaks the contract, if it does.
fn breach<P>(iomap: &Iomap<P>, pos: u64) -> Option<BadMapping> {
    if iomap.length == 0 {
        return Some(BadMapping::Empty);
    }
    if iomap.offset > pos {
        return Some(BadMapping::StartsAfter { pos, offset: iomap.offset });
    }
    if iomap.end().is_none_or(|end| end <= pos) {
        return Some(BadMapping::EndsBefore { pos });
    }
    iomap.flags.contains(MapFlags::STALE).then_some(BadMapping::Stale)
}

fn log_lost(error: Error) {
    log::warn!(target: "ext2_dax::iter", "iomap_end failed after another error: {error}");
}
