//! Every state that a crash may leave on the media, rebuilt from a [`Recorder`](crate::Recorder)'s log.
//!
//! What is in flight when the power goes is a set of *cells*, each with the list of stores to it that are
//! not guaranteed to be on the media; the hardware may have taken any prefix of each list, independently.
//! What a cell is, is the model:
//!
//! | model | cell | what ends a store's flight |
//! |---|---|---|
//! | M1, [`PmemOrder::Lines`] | a 64-byte line, in words of 8 bytes | write-back (or bypassing), fence |
//! | M2, [`PmemOrder::Words`] | an 8-byte word | the same |
//! | M3, [`BlockModel`] | a 512-byte sector | a flush |
//! | M4, [`PmemOrder::Program`] | everything in program order, torn at 8 bytes: kill -9 | – |
//!
//! M1 is what x86 does to ordinary stores; M2 is weaker, and covers streaming stores, whose buffers leave in
//! any order. Both models also hold the states of M4 at their crash points.
//!
//! A crash is tried before every fence, flush and mark, when most is in flight, and at the end; with
//! [`Points::EveryStore`] after each store as well, which adds nothing new for these models but says with
//! what the state came about. Where the product of choices is within [`CrashLimits::exhaustive`] all of them are
//! visited; otherwise those at the edges and samples.
//!
//! A state costs work in proportion to the cells that change from the state before it: the image is one
//! buffer that is changed and changed back, and its fingerprint is a sum over cells.
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use blockdev::crash::{CrashState, PmemModel};
//! use blockdev::{BlockDevice, Media, RamDevice, Recorder};
//!
//! let device = Recorder::new(RamDevice::with_media(4096, Media::Persistent)?);
//! let before = device.inner().to_vec();
//! device.write_at(0, &[1; 8])?;
//! device.fence()?;
//! device.write_at(64, &[2; 8])?;
//!
//! // No crash shows the second store without the first.
//! let report = PmemModel::new(&before, &device.take()).run(|state: &CrashState<'_>| {
//!     assert!(state.image[64] == 0 || state.image[0] == 1);
//!     ControlFlow::Continue(())
//! });
//! assert!(report.states >= 2);
//! # Ok::<(), blockdev::Error>(())
//! ```

use core::ops::{ControlFlow, Range};

mod cells;
mod choices;
mod model;

pub use model::{BlockModel, FenceMeans, PmemModel, PmemOrder};

/// When a crash is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Points {
    /// Before each fence, flush and mark, and at the end of the log.
    #[default]
    Boundaries,
    /// After each store too.
    EveryStore,
}

/// How many states of a crash point are visited where all are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashLimits {
    /// All of them up to this number.
    pub exhaustive: u64,
    /// Else at most about so many of each kind of edge state: one cell ahead of all others, one behind, one
    /// store alone, one store missing, the prefixes in program order.
    pub edges: usize,
    /// And so many pairs of cells ahead, and as many behind.
    pub pairs: usize,
    /// And so many random states.
    pub samples: usize,
    /// What the random states grow from.
    pub seed: u64,
}

impl Default for CrashLimits {
    fn default() -> Self {
        Self { exhaustive: 4096, edges: 512, pairs: 256, samples: 256, seed: 0x0065_7874_3264_6178 }
    }
}

/// How a state was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Choice {
    /// One of all states of its crash point.
    Exhaustive,
    /// Nothing that is in flight arrived.
    None,
    /// All of it did.
    All,
    /// What came first in program order did.
    Prefix,
    /// One cell (or store) did.
    Ahead,
    /// All but one cell (or store) did.
    Behind,
    /// Two cells did, or all but two.
    Pair,
    /// A random part did.
    Sample,
}

/// What the media may hold after a crash.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CrashState<'i> {
    /// All bytes of the device.
    pub image: &'i [u8],
    /// The only parts of `image` that may differ from the state shown before it, or from the base where it is the
    /// first: what a visitor with a copy of its own has to bring up to date. In no order; some may overlap.
    pub changed: &'i [Range<usize>],
    /// Entries of the log before the crash: it happened before `log[op]` was done.
    pub op: usize,
    /// The last mark before the crash.
    pub mark: Option<u64>,
    /// How the state was chosen.
    pub choice: Choice,
    /// Cells that had a store in flight.
    pub in_flight: usize,
    /// Equal for equal images of one run, and practically never for others. (A 64-bit sum over cells, kept up
    /// as cells change; a CRC-32 of the image would cost a pass over it for each state.)
    pub fingerprint: u64,
}

impl CrashState<'_> {
    /// CRC-32 of the image, by which other tools can name the state. Costs a pass over the image.
    pub fn crc32(&self) -> u32 {
        crc32fast::hash(self.image)
    }
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CrashReport {
    /// Crash points tried.
    pub points: u64,
    /// Those of which all states were visited.
    pub exhaustive_points: u64,
    /// States shown to the visitor, each a different image (after a different mark).
    pub states: u64,
    /// States left out, as they had been shown.
    pub duplicates: u64,
    /// Whether the visitor ended the run.
    pub stopped: bool,
}

/// What is called for each state; it ends the run by `Break`.
pub trait Visit: FnMut(&CrashState<'_>) -> ControlFlow<()> {}

impl<F: FnMut(&CrashState<'_>) -> ControlFlow<()>> Visit for F {}
