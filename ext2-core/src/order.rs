//! The order of stores, said in types.
//!
//! Under this order a crash at any point leaves an image that `e2fsck -p` mends without a question, and
//! what was fenced is there:
//!
//! 1. **Initialise before pointing**: what a pointer will name is written, then a fence, then the pointer.
//! 2. **Birth and death at zero links**: a new inode has no links until its name is durable; a dying one
//!    has none before its last name goes.
//! 3. **Publish with one aligned store** of 2 or 4 bytes.
//! 4. **No reuse before the last pointer is gone**, behind a fence.
//!
//! [`Written`] is what was stored and is perhaps still in flight; only a fence makes it [`Durable`]; what
//! publishes and what frees asks for `Durable`. A wrong order does not compile. Bitmaps and counts are
//! not ordered: after a crash they are rebuilt.
//!
//! Each fence and flush is a [`Barrier`] with a name, made at one place in the code. A recorder can leave one out by its
//! name, and a test knows a crash that shows why it is there, for every one.

use blockdev::BlockDevice;

use crate::error::Result;

macro_rules! barriers {
    ($($(#[$doc:meta])* $name:ident: $text:literal,)*) => {
        /// Why stores have to be on the media at some place: a fence, or a flush, each made at one place in the code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Barrier {
            $($(#[$doc])* #[doc = $text] $name,)*
        }

        impl Barrier {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What it is for.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

barriers! {
    Mounted: "the image is marked as in use before anything else of it changes",
    Revision: "the fields of revision 1 are there before the number that says so",
    Synced: "sync returns when all is durable, and the mark of a clean unmount comes after all else",
    Unmounted: "close returns when the mark of a clean unmount is durable",
    FileSynced: "fsync returns when the file and its names are durable",
    PagesSynced: "msync returns when what was stored through a mapping is durable",
    FaultReturned: "what leads to a page is durable before a program can store into it",
    Killed: "an inode has no links before its last name goes",
    EntryBuilt: "an inode and its entry are whole before the store that shows the name",
    NamePublished: "a name is durable before the inode has links, and before its former name goes",
    DirectoryGrown: "a name in a new block is durable before the inode has links",
    NameRemoved: "a name is gone before its place is another's",
    NameReplacing: "the inode that takes over a name is counted, and the type in the entry unknown, before the store",
    NameReplaced: "an entry names the new inode before it gets its type, and before the former one dies",
    HashTreeDropped: "a directory is no hash tree any more before it changes as if it were none",
    DirectoryCopied: "the copy of a directory's block is whole before its pointer",
    DirectoryFlipped: "nothing points to a directory's former block before it is another's",
    PastEndZeroed: "what lies past the end of a file is zero before the size covers it",
    Filled: "a block is filled before a pointer leads to it",
    IndirectBuilt: "an indirect block is whole before a pointer leads to it",
    OrphanListed: "an inode is in the list of orphans before its truncation or its death",
    OrphanUnlisted: "an inode is in no list of orphans before its number and its blocks are another's",
    TailDetached: "a file that cannot be noted loses its blocks before its size",
    Truncated: "a truncated file has its size before it loses its blocks",
    TruncationEnded: "a truncated file has lost its blocks before the note goes and they are another's",
    Punched: "nothing points to a punched block before it is another's",
    Moved: "blocks that move are copied before the pointers lead to the copies",
    MovedAway: "nothing points to a moved block before it is another's",
    SizeRaised: "the size covers what is stored through a synchronous mapping before it is stored",
    SizeRaisedHigh: "the larger high half of a size is there before the smaller low half",
    SizeLoweredHigh: "the larger high half of a size is there until the smaller low half is",
    RightsTaken: "rights that go are gone before the owner or the access list changes",
    RightsGiven: "owner and access list are the new ones before rights come",
    RightsChanged: "mode, owners and access list are durable before what is done after them",
    OwnersNoted: "new owners are noted before the mark that makes them the owners",
    OwnersMarked: "new owners are the owners before the halves of the former ones go",
    OwnersPlaced: "the low halves of new owners are in place before the high ones replace the mark",
    AttributesBuilt: "a block of attributes is whole before its pointer",
    AttributesReplaced: "nothing points to a former block of attributes before it is another's",
    SymlinkCounted: "a symlink's count says that its block of attributes is gone before it is",
    TogetherHeld: "a transaction holds before what it holds changes in its place",
    TogetherPlaced: "what a transaction holds is in its place before the journal is emptied, or goes",
    BriefWritten: "a journal that is made for a moment is whole before the superblock names it",
    BriefNamed: "the superblock names such a journal, and says that it is to be replayed, before it says that there is one",
    BriefEnded: "the superblock says that there is no journal before it forgets the one that there was",
    BriefForgotten: "the superblock names no journal before its inode is cleared",
    JournalWritten: "a transaction is whole, and the superblock says that there may be one, before it holds",
    JournalEmptied: "the journal is empty before its number goes on and the superblock forgets it",
    MadeOver: "what a new file system is made over is none any more before anything else of it changes",
    MadeBefore: "all of a new file system is there before the superblock that says so",
    Made: "mkfs returns when the file system is durable",
    Mended: "check returns when what it mended is durable",
}

impl Barrier {
    /// The number that a recorder knows it by, from 1.
    #[must_use]
    pub fn tag(self) -> u64 {
        // OK to cast: there are a few dozen.
        self as u64 + 1
    }

    /// A fence.
    ///
    /// # Errors
    /// The device's.
    pub fn fence(self, dev: &dyn BlockDevice) -> blockdev::Result<()> {
        dev.fence_tagged(self.tag())
    }

    /// A flush.
    ///
    /// # Errors
    /// The device's.
    pub fn flush(self, dev: &dyn BlockDevice) -> blockdev::Result<()> {
        dev.flush_tagged(self.tag())
    }
}

/// Who makes fences: the file system, which notes those that fail.
pub(crate) trait Fences {
    /// A fence behind what was stored since so many losses were known.
    ///
    /// # Errors
    /// The device's; `EIO` where another's fence has failed meanwhile, which may have lost it.
    fn fence(&self, why: Barrier, known: u32) -> Result<()>;
}

/// Something stored on the device, perhaps not yet on the media. A fence of somebody else's that fails may lose it, which the
/// fence behind it does not say by itself: so it knows how many losses there were when it was begun.
#[derive(Debug)]
#[must_use = "what was written is worth nothing before a fence"]
pub(crate) struct Written<T> {
    what: T,
    known: u32,
}

/// Something that is on the media no later than all that is stored from now on.
#[derive(Debug)]
#[must_use = "a fence was paid for this"]
pub(crate) struct Durable<T>(T);

impl<T> Written<T> {
    /// States that `what` has been stored since so many losses were known.
    pub(crate) fn since(known: u32, what: T) -> Self {
        Self { what, known }
    }

    /// A look at it.
    pub(crate) fn get(&self) -> &T {
        &self.what
    }

    /// How many losses were known when it was begun.
    pub(crate) fn known(&self) -> u32 {
        self.known
    }

    /// The fence.
    pub(crate) fn fence(self, why: Barrier, by: &impl Fences) -> Result<Durable<T>> {
        by.fence(why, self.known)?;
        Ok(Durable(self.what))
    }

    /// A part of it, or what it is good for.
    pub(crate) fn map<U>(self, part: impl FnOnce(T) -> U) -> Written<U> {
        Written { what: part(self.what), known: self.known }
    }

    /// What was stored beside it, which the same fence is for.
    pub(crate) fn with<U>(self, other: Written<U>) -> Written<(T, U)> {
        Written { what: (self.what, other.what), known: self.known.min(other.known) }
    }

    /// Something else that the same fence is for, and that was begun no earlier.
    pub(crate) fn and<U>(self, other: U) -> Written<(T, U)> {
        Written { what: (self.what, other), known: self.known }
    }
}

impl<T> Durable<T> {
    /// States that `what` was stored before a fence that is not made here, as the caller can tell.
    pub(crate) fn already(what: T) -> Self {
        Self(what)
    }

    /// What it is.
    pub(crate) fn into_inner(self) -> T {
        self.0
    }

    /// A look at it.
    pub(crate) fn get(&self) -> &T {
        &self.0
    }
}

/// A pointer or name that was taken away: what it named may be used anew once this is durable.
#[derive(Debug)]
pub(crate) struct Unlinked;
