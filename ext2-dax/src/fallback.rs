//! Why a 2 MiB fault falls back to 4 KiB: all the reasons there are.

use std::fmt;

/// A reason, in the order in which they are looked for. The F-numbers are used throughout the
/// documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fallback {
    /// F1: the address and the file offset differ modulo 2 MiB, so that the unit of the file and the
    /// unit of address space do not lie over each other.
    Colour,
    /// F2: a store to a private mapping copies, and copies one page.
    PrivateWrite,
    /// F3: the mapping begins inside the unit.
    BeforeMapping,
    /// F4: the mapping ends inside the unit.
    AfterMapping,
    /// F5: the file ends inside the unit.
    PastEof,
    /// F6: a 4 KiB entry is in the unit. There is no one lock for the unit then.
    Conflict,
    /// F7: the file system would not answer; the 4 KiB fault will ask again and report its error.
    BeginFailed,
    /// F8: the hole or the run of blocks is shorter than the unit.
    TooShort,
    /// F9: there is no huge zero page.
    NoHugeZeroPage,
    /// F10: another translation appeared while the huge zero page was being mapped.
    SlotTaken,
    /// F11: the blocks are not one aligned run of device memory.
    Unaligned,
    /// F12: a store met something that is neither blocks nor a hole.
    BadMapping,
    /// F13: there is no aligned run of free blocks for the unit.
    NoUnit,
}

impl Fallback {
    /// All reasons in order.
    pub const ALL: [Self; 13] = [
        Self::Colour,
        Self::PrivateWrite,
        Self::BeforeMapping,
        Self::AfterMapping,
        Self::PastEof,
        Self::Conflict,
        Self::BeginFailed,
        Self::TooShort,
        Self::NoHugeZeroPage,
        Self::SlotTaken,
        Self::Unaligned,
        Self::BadMapping,
        Self::NoUnit,
    ];

    /// The number of the reason, from 1.
    #[must_use]
    pub fn number(self) -> usize {
        // OK to cast: a fieldless enum of thirteen.
        self as usize + 1
    }

    /// One word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Colour => "colour",
            Self::PrivateWrite => "private-write",
            Self::BeforeMapping => "before-mapping",
            Self::AfterMapping => "after-mapping",
            Self::PastEof => "past-eof",
            Self::Conflict => "conflict",
            Self::BeginFailed => "begin-failed",
            Self::TooShort => "too-short",
            Self::NoHugeZeroPage => "no-huge-zero-page",
            Self::SlotTaken => "slot-taken",
            Self::Unaligned => "unaligned",
            Self::BadMapping => "bad-mapping",
            Self::NoUnit => "no-unit",
        }
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "F{} {}", self.number(), self.name())
    }
}
