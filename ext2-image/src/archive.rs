//! Archives as trees: tar in every form that is met, packed or not, one or several one over the other.
//!
//! Members are read one after the other ([`Members`]) and put into a tree by the rules of unpacking ([`Merge`]); what
//! has their bytes is [`ArchiveContents`], which reads them where they lie. [`read`] does all of it.
//!
//! The reader of headers is our own. The `tar` crate splits the records of extended headers at line feeds and not by
//! their lengths, so that a capability or an access control list can end a build; it reads no times before 1970 in
//! base 256, knows one of the three forms of sparse files in extended headers, and has been kept sparsely.
//!
//! # Invariants
//! 1. Any bytes are an archive, or an error that says what is wrong and names the member where there is one.
//! 2. Nothing that cannot be kept is dropped without a [warning](Tree::warnings).
//! 3. Memory is bounded by the number of members, their names and attributes; bytes of files are never held. A manifest
//!    ([`ArchiveEntries`]) needs less.

mod acl;
mod contents;
mod entries;
mod flags;
mod header;
mod member;
mod merge;
mod number;
mod owners;
mod pax;
mod sorted;
mod sparse;
mod unpack;

use std::path::Path;

use crate::mkfs::source::Times;
use crate::mkfs::{Error, Result, Tree};

pub use contents::ArchiveContents;
pub use entries::ArchiveEntries;
pub use member::{Data, Member, MemberKind, Members};
pub use merge::{Merge, Replace};
pub use owners::Owners;
pub use sparse::SparseMap;
pub(crate) use unpack::copy;
pub use unpack::{Opened, Packing, foreign, nameless, open, spooled, unpacked};

/// The tree of the archive at `path` (`-`: the standard input), whose bytes go through a file without a name in the
/// folder `spool` where they are packed or cannot be sought in.
///
/// # Errors
/// `Source` and `Entry`.
pub fn read(path: &Path, spool: &Path, times: Times) -> Result<(Tree, ArchiveContents)> {
    let opened = open(path, spool).map_err(|error| Error::source(b"", error))?;
    read_opened(opened, times)
}

/// As [`read`], of an archive that is open.
///
/// # Errors
/// `Source` and `Entry`.
pub fn read_opened(opened: Opened, times: Times) -> Result<(Tree, ArchiveContents)> {
    let mut merge = Merge::new(Replace::Tar, times);
    add(&mut merge, opened)?;
    merge.finish()
}

/// Puts all members of an archive into a tree.
fn add(merge: &mut Merge, opened: Opened) -> Result<()> {
    let file = opened.file.try_clone().map_err(|error| Error::source(b"", error))?;
    let archive = merge.archive(opened.file);
    let members = Members::new(&file, opened.len);
    let mut members = if opened.is_device { members.until_end_mark() } else { members };
    while let Some(member) = members.next_member()? {
        merge.member(member, archive)?;
    }
    for note in members.notes() {
        merge.note(note);
    }
    Ok(())
}
