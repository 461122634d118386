//! Faults that were mended: a test puts one back, to see that it would be found.
//!
//! Each is at one place in the code. Without the feature `turns` none can be put back, and what asks for it compiles to
//! nothing.

#[cfg(feature = "turns")]
use core::sync::atomic::{AtomicU32, Ordering};

macro_rules! mended {
    ($($name:ident: $text:literal,)*) => {
        /// A fault that was mended, and can be put back by a test.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mended {
            $(#[doc = $text] $name,)*
        }

        #[cfg(feature = "turns")]
        impl Mended {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What is wrong where it is put back.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

mended! {
    LookupLetsGo: "a lookup lets go of the directory before it takes the inode by its number",
    RenameLooksOnce: "a rename does not look names up again under its locks",
    RmdirLooksOnce: "the removal of a directory does not look its name up again under its locks",
    WaitsForItself: "a thread waits for a lease of its own",
    NowaitWaits: "a call that must not wait waits for the inode's lock",
    WriteLeavesPages: "blocks that the core's own write gives a hole do not reach who maps the hole",
    FaultLeavesHole: "a store fault that fails leaves translations of the hole that it gave blocks to",
    PrivateCopiesGo: "private copies go when blocks move or are punched",
    CopyPastTheEnd: "a private copy outlives the end of the file where nothing else of it is mapped",
    CopiesReplaced: "a fault maps its page over the private copy that another thread has made meanwhile",
    MapAsksNobody: "a shared mapping for stores is given of files that may not be stored to",
    LeaseAsksNobody: "memory is lent for storing of files that may not be stored to",
    RightsOfTheDevice: "where the file system was closed, memory is given for storing as the device allows it",
    SyncOnVolatile: "a synchronous mapping is given of memory that is not persistent",
    LeaseNotWritten: "what was stored through a lease is not written back by a sync",
    StoresAfterClose: "stores through mappings go on after the file system was closed",
    ClosedIsClean: "a close says that it left the image clean while a removed file is held",
    ErrorsAreClean: "a close says that it left the image clean after an error was found, where writing went on",
    FlushUnnoted: "a flush that fails as a mapping or a lease is synced leaves no mark in the image",
    FenceUnnoted: "a fence that fails leaves no mark in the image",
    LossUntold: "what a fence lost is not told to who syncs a file afterwards",
    WaitsForNothing: "who needs more room than a commit may hold waits for commits of nothing",
    ClosesApart: "two threads that close a file system, or one that syncs it, do so at the same time",
    OpenTwice: "a device is opened for writing twice",
    OwnersInPieces: "owners that lie in several words change one after another",
    MarkUnknown: "owners that a mark stands for on the device are not those in memory where the fence after it fails",
    FeatureUnsaid: "a feature whose store fails counts as stored",
    NobodysShare: "a block of attributes that no inode came to point to is shared",
    SetIdKept: "set-id bits stay while owners change",
    SharersApart: "a block of attributes and the count of its users change one after the other",
    NoShelter: "a file that is replaced has its second name beside the first where there is no lost+found",
    ExchangeKeepsNothing: "an exchange takes the second file's name before it has another",
    LateTimesForgotten: "a file without a name gets its first one before its times are stored",
    ReservedGivenOut: "reserved inodes past the first group are given out after an unclean stop",
    DanglingNamesStay: "names of inodes without links stay when bitmaps are rebuilt",
    CookiesMove: "a rename that packs a block of a directory loses where listings were",
    RemovalNeedsRoom: "the removal of an attribute needs a free block",
    TimesUncut: "times that the inode has no room for are shown until it is read again",
    LeaseTooLong: "the end of a lease is not cut at the largest offset",
    DeadShare: "a block of attributes that an inode without a name has is shared with others",
    InodeReplayedFirst: "the replay of a journal that was made for a moment takes its inode away before all is in its place",
    NumberLost: "errors of the file system reach callers of the DAX layer as EINVAL",
    AppendsApart: "two appends to a file that is not reached by DAX go to the same place",
    DoneIsUndone: "a transaction that is done is forgotten where the journal that was made for it goes with an error",
    SuperblockLeftOut: "a transaction in a journal refuses block 0, where the superblock lies",
    RunsTakenFirst: "a sync passes over what came back from a lease and another sync is still writing back",
    MarkGoesFirst: "a sync passes over a page that another sync is still writing back",
    KeptTakenFirst: "a sync writes back what is kept of pages that a hole takes before it looks at the pages that are there",
    WritesUncounted: "a write over blocks that are there is no change that a close waits for or tells of",
    LeavingPassedOver: "a sync of all passes over a file that its last holder is letting go of",
    UnitsOfReserve: "a store that could map 2 MiB is given the blocks that are reserved for root",
    LateAttach: "who opens a file for the first time does not wait for whoever takes its blocks away, and is not told",
    EarlyDeath: "where the clock is near 1970 the time of a deletion is an inode's number",
    ResizeReach: "the inode of the spare descriptors is refused where it is longer than a file can be",
    OthersTakeSetId: "who writes waits for a commit only of the set-id bits that he takes away himself",
    SetIdInLog: "set-id bits that a write takes away wait in a log for a commit, and the bytes do not",
    SetIdComesBack: "set-id bits that are stripped come back with an access list that is set meanwhile",
    FlagsLookedAtFirst: "whether a file is immutable is looked at before the lock that its flags are set under",
    FoundUntold: "who finds blocks that another has just given a file returns while others still map the hole",
    StoredBeforeAllKnow: "pages that a mapping has ahead may be stored to before all who map the hole know of their blocks",
    LossPassedBy: "what is published goes on where the fence of another has just lost it",
    EntryGoesFirst: "a write removes the entry of a hole before the translations of it are gone",
    AskedAgain: "after a failure in the middle of a transfer the buffer is asked again, past the bytes that did not move",
    MovedIsBroken: "a walk takes a directory that was moved meanwhile for one with two names",
    DotsAsNames: "`.` and `..` as last names are refused like names that cannot be",
}

/// The one that is put back, as its number from 1 on.
#[cfg(feature = "turns")]
static BACK: AtomicU32 = AtomicU32::new(0);

impl Mended {
    /// Whether it is put back.
    #[inline(always)]
    #[must_use]
    pub fn is_back(self) -> bool {
        #[cfg(feature = "turns")]
        let back = BACK.load(Ordering::Relaxed) == self as u32 + 1;
        #[cfg(not(feature = "turns"))]
        let back = false;
        back
    }

    /// Puts a fault back for the whole process, or none.
    #[cfg(feature = "turns")]
    pub fn put_back(fault: Option<Self>) {
        BACK.store(fault.map_or(0, |fault| fault as u32 + 1), Ordering::Relaxed);
    }
}
