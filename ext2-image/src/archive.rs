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
//!
//! ```no_run
//! use ext2_image::mkfs::{FileOutput, Format, Fresh, Options, Plan};
//!
//! let mut rootfs = ext2_image::archive::read("rootfs.tar.gz".as_ref(), &std::env::temp_dir(), None)?;
//! rootfs.tree.for_each_attrs(|attrs| (attrs.uid, attrs.gid) = (0, 0));
//! let plan = Plan::new(rootfs.tree, &Format::default(), &Options::default())?;
//! let image = std::fs::File::create_new("rootfs.img")?;
//! image.set_len(plan.bytes())?;
//! plan.write(&mut rootfs.contents, &FileOutput::new(&image, 0, plan.bytes(), Fresh::Zeros), &mut |_| ())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
mod xattrs;

use std::path::Path;

use crate::manifest::Manifest;
use crate::mkfs::source::Times;
use crate::mkfs::{Error, Result, Tree};

pub use contents::ArchiveContents;
pub use entries::ArchiveEntries;
pub use member::{Data, Member, MemberKind, Members};
pub use merge::{Merge, Replace};
pub use owners::Owners;
pub use sparse::SparseMap;
pub(crate) use unpack::copy;
pub use unpack::{Opened, Packing, foreign, is_tar, nameless, open, spooled, unpacked};

/// What an archive has.
#[derive(Debug)]
pub struct Archive {
    /// Names and attributes.
    pub tree: Tree,
    /// The bytes of files.
    pub contents: ArchiveContents,
    /// What it says of the image that it was made of, if it is an archive of a whole image: a manifest without entries.
    pub image: Option<Manifest>,
}

/// The archive at `path` (`-`: the standard input), whose bytes go through a file without a name in the folder `spool`
/// where they are packed or cannot be sought in. Without a word on times an archive of a whole image gives all, as the
/// image had them, and every other the time of the last change for all.
///
/// # Errors
/// `Source` and `Entry`.
pub fn read(path: &Path, spool: &Path, times: Option<Times>) -> Result<Archive> {
    let opened = open(path, spool).map_err(|error| Error::source(b"", error))?;
    read_opened(opened, times)
}

/// As [`read`], of an archive that is open.
///
/// # Errors
/// `Source` and `Entry`.
pub fn read_opened(opened: Opened, times: Option<Times>) -> Result<Archive> {
    let mut merge = Merge::new(Replace::Tar, times.unwrap_or(Times::Modified));
    let file = opened.file.try_clone().map_err(|error| Error::source(b"", error))?;
    let archive = merge.archive(opened.file);
    let members = Members::new(&file, opened.len);
    let mut members = if opened.is_device { members.until_end_mark() } else { members };
    while let Some(member) = members.next_member()? {
        if times.is_none() {
            merge.set_times(if members.image().is_some() { Times::All } else { Times::Modified });
        }
        merge.member(member, archive)?;
    }
    for note in members.notes() {
        merge.note(note);
    }
    let image = members.image().cloned();
    let (tree, contents) = merge.finish()?;
    Ok(Archive { tree, contents, image })
}
