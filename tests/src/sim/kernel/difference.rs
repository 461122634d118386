//! Where the library and the kernel's driver answer differently on purpose, or by what they are.

use ext2_core::{Attr, Errno, FileKind, Timestamp};

use super::{
    fields::{FLAGS, FOR_DIRECTORIES, Field},
    geometry::Geometry,
    hands::Given,
};
use crate::sim::{Answer, Data, Operation, Step, name, xattr_name};

/// A difference that is none of the library's faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// `ftruncate` of a descriptor for reading is `EINVAL`, and `EBADF` of the library, as all else that changes the file is.
    TruncateOfReader,
    /// The ext4 driver zeroes no ranges of files without extents; the library does.
    NoZeroRange,
    /// A range to be punched or zeroed that ends behind the largest file is `EFBIG`; the library takes what there is of it.
    FarRange,
    /// A range of no bytes is nothing to punch or to zero; `fallocate` refuses it with `EINVAL`.
    EmptyRange,
    /// Nothing is refused to who writes nothing; the kernel refuses to open the file.
    EmptyWrite,
    /// An empty path is refused with `ENOENT` before all else; to the library it is a name that nothing has.
    EmptyName,
    /// `utimensat` and `chown` with nothing to set change what may not be changed, and the first notes nothing; to the library's
    /// `set_attr` it is a change of the inode.
    NothingToSet,
    /// `mkdir` takes no set-id bits; the library's `create` makes what it is asked for.
    SetIdOfDirectory,
    /// `chown` takes set-id bits away; the library leaves that to its caller, who knows whose the change is.
    SetIdOfOwner,
    /// Flags that ext2 does not know are refused with `EOPNOTSUPP`; the library keeps those that it has as they are.
    UnknownFlags,
    /// The ext4 driver notes a change of the contents with each `fallocate`, also where it then refuses or finds nothing to do.
    FallocateModifies,
    /// A removed directory has no bytes to the kernel; the library lets its size be until it is gone.
    SizeOfRemoved,
    /// Flags that only directories have are refused for files with `EOPNOTSUPP` by the ext4 driver; the library keeps them.
    FlagsOfKind,
    /// The ext4 driver makes no file in a directory that is removed, and says `EPERM`; the library says `ENOENT`.
    TmpfileInRemoved,
    /// An attribute that the inode cannot have: the library looks at that first, the kernel at whether the inode may be changed.
    AttributeNameFirst,
    /// A mode of `fallocate` that ext2 does not have: the library looks at it first, the kernel at the file and the range.
    ModeFirst,
    /// In a directory that is removed the kernel finds no name, whatever else is wrong with the call.
    RemovedFirst,
    /// A directory that is removed is listed by the library as long as it is held, with its dots alone; by the kernel not at all.
    RemovedListing,
    /// A target that is too long for a link: the library looks at it first, the kernel at the name.
    TargetFirst,
    /// Access control lists of a link: the kernel says that there can be none, the library that there is none.
    AclOfLink,
    /// The first store to a page notes a change before it is known whether the file has that page, as Linux's DAX does; a page
    /// of the kernel's cache is looked for first. A unit of 2 MiB that the library has mapped whole is one page in this.
    StoreModifies,
    /// A name that changes within a block of its directory is changed where it is, by the library; the kernel makes the new one and
    /// takes the old one away, so that entries come to lie in another order.
    RenameInPlace,
    /// In a directory of several blocks the library puts a name into a block that its index of room knows, the kernel into the first.
    AnyBlock,
    /// Where the file system has `dir_index`, a directory of more than one block is a tree of hashes to the kernel, which takes more
    /// blocks; the library makes it a list when it changes it.
    HashTree,
    /// A disk that gets full: the kernel writes whole pages, the library whole blocks, so that it writes more of what does not fit.
    ShortWrite,
    /// A store allocates what is missing around it: of 2 MiB where the library has them in one piece, of the folio in the kernel.
    StoreAllocates,
    /// The ext4 driver keeps a block that leads to others after all of those were punched.
    EmptyIndirect,
    /// The ext4 driver puts attributes into inodes of 256 bytes first; the library, as ext2, into a block only. So inodes have a
    /// block less there.
    AttributesInInode,
    /// The same: there is room for more attributes.
    MoreAttributes,
    /// A directory that is removed goes with the last file that is open by a name it had there, which names it as its parent; the
    /// library's goes when nobody holds it.
    PinnedDirectory,
    /// Without `filetype`, the kernel leaves in a directory's own entries the kinds that were in the memory of its block before, which
    /// e2fsck complains of.
    StaleKind,
    /// Where the file system has `dir_index`, the kernel lists a directory by hashes of its names.
    HashOrder,
    /// Where a block of a directory begins with an entry of nothing, the kernel's place behind the name before is the next name, or
    /// the end; the library's is where the block begins. From both the same names follow.
    EmptyFirst,
}

/// A step with both answers.
#[derive(Debug)]
pub(super) struct Case<'c> {
    pub(super) step: &'c Step,
    pub(super) ours: &'c Answer,
    pub(super) kernel: &'c Given,
    /// The kind of what a hand that is named `of` had before.
    pub(super) kind: Option<FileKind>,
    pub(super) geometry: &'c Geometry,
    /// Whether what is written is appended, wherever it is asked for.
    pub(super) appends: bool,
    /// Whether a directory that the step names or lists is removed.
    pub(super) is_removed: bool,
    /// Whether the directory that is listed has several blocks.
    pub(super) is_large: bool,
    /// Whether entries of the directory that is listed may lie elsewhere.
    pub(super) is_reordered: bool,
    /// The mode of the same before.
    pub(super) mode: u16,
    /// The attributes of the same before the step, as the kernel told them.
    pub(super) xattrs: &'c [(Vec<u8>, Vec<u8>)],
    /// Bytes of the largest file.
    pub(super) max_size: u64,
}

impl Case<'_> {
    /// Whether the library refuses with this number.
    fn ours_is(&self, errno: Errno) -> bool {
        matches!(self.ours, Answer::Refused(refusal) if refusal.is(errno))
    }

    /// Whether the kernel does it.
    fn kernel_is_done(&self) -> bool {
        matches!(self.kernel, Given::Answer(answer) if answer.is_done())
    }

    /// The names of the step.
    fn names(&self) -> Vec<u8> {
        use Operation as O;
        match self.step.operation {
            O::Lookup { name, .. } | O::LookupNr { name, .. } | O::Create { name, .. } => vec![name],
            O::Symlink { name, .. } | O::Link { name, .. } => vec![name],
            O::Unlink { name, .. } | O::Rmdir { name, .. } => vec![name],
            O::Rename { name, to_name, .. } => vec![name, to_name],
            _ => Vec::new(),
        }
    }

    /// Whether the kernel refuses, however.
    fn kernel_refuses(&self) -> bool {
        matches!(self.kernel, Given::Answer(Answer::Refused(_)))
    }

    /// Whether the kernel refuses with this number.
    fn kernels_is(&self, errno: Errno) -> bool {
        matches!(self.kernel, Given::Answer(Answer::Refused(refusal)) if refusal.is(errno))
    }
}

/// A field of something that a step may have changed, with what both have.
#[derive(Debug)]
pub(super) struct FieldCase<'c> {
    /// The last step.
    pub(super) step: Option<&'c Step>,
    pub(super) field: Field,
    pub(super) ours: &'c Attr,
    pub(super) kernel: &'c Attr,
    pub(super) geometry: &'c Geometry,
    /// Whether it has extended attributes.
    pub(super) has_xattrs: bool,
    /// Whether it is a directory whose entries may lie elsewhere.
    pub(super) is_reordered: bool,
    /// The times that the kernel told before the step.
    pub(super) seen: Option<[Timestamp; 3]>,
}

impl FieldCase<'_> {
    /// What the last step did.
    pub(super) fn operation(&self) -> Option<&Operation> {
        self.step.map(|step| &step.operation)
    }
}

impl Difference {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::TruncateOfReader,
        Self::NoZeroRange,
        Self::FarRange,
        Self::EmptyRange,
        Self::EmptyWrite,
        Self::EmptyName,
        Self::NothingToSet,
        Self::SetIdOfDirectory,
        Self::SetIdOfOwner,
        Self::UnknownFlags,
        Self::FallocateModifies,
        Self::SizeOfRemoved,
        Self::FlagsOfKind,
        Self::TmpfileInRemoved,
        Self::AttributeNameFirst,
        Self::ModeFirst,
        Self::RemovedFirst,
        Self::RemovedListing,
        Self::TargetFirst,
        Self::AclOfLink,
        Self::StoreModifies,
        Self::RenameInPlace,
        Self::AnyBlock,
        Self::HashTree,
        Self::ShortWrite,
        Self::StoreAllocates,
        Self::EmptyIndirect,
        Self::AttributesInInode,
        Self::MoreAttributes,
        Self::PinnedDirectory,
        Self::StaleKind,
        Self::HashOrder,
        Self::EmptyFirst,
    ];

    /// The one that two answers are, if they are one.
    pub(super) fn of(case: &Case<'_>) -> Option<Self> {
        use Operation as O;
        let is_done = case.ours.is_done();
        match case.step.operation {
            O::FileTruncate { .. } if case.ours_is(Errno::BADF) && case.kernels_is(Errno::INVAL) => {
                Some(Self::TruncateOfReader)
            }
            O::Zero { at, len, .. }
            | O::FileZero { at, len, .. }
            | O::Punch { at, len, .. }
            | O::FilePunch { at, len, .. }
            | O::Fallocate { mode: 3 | 0x11, at, len, .. }
                if is_done && case.kernels_is(Errno::FBIG) && at.saturating_add(len) > case.max_size =>
            {
                Some(Self::FarRange)
            }
            O::Zero { len: 0, .. }
            | O::FileZero { len: 0, .. }
            | O::Punch { len: 0, .. }
            | O::FilePunch { len: 0, .. }
                if (is_done || case.ours_is(Errno::BADF)) && case.kernels_is(Errno::INVAL) =>
            {
                Some(Self::EmptyRange)
            }
            O::Zero { .. } | O::FileZero { .. } | O::Fallocate { mode: 0x11, .. }
                if is_done && case.kernels_is(Errno::OPNOTSUPP) =>
            {
                Some(Self::NoZeroRange)
            }
            _ if case.names().iter().any(|nr| name(*nr).is_empty())
                && matches!(case.ours, Answer::Refused(_))
                && case.kernels_is(Errno::NOENT) =>
            {
                Some(Self::EmptyName)
            }
            O::SetTimes { atime: None, mtime: None, .. }
            | O::Chown { uid: None, gid: None, mode: None, .. }
                if (case.ours_is(Errno::PERM) || case.ours_is(Errno::ROFS))
                    && matches!(case.kernel, Given::Answer(Answer::Done)) =>
            {
                Some(Self::NothingToSet)
            }
            O::SetFlags { flags, .. }
                if is_done && flags & !FLAGS != 0 && case.kernels_is(Errno::OPNOTSUPP) =>
            {
                Some(Self::UnknownFlags)
            }
            O::SetFlags { flags, .. }
                if is_done
                    && flags & FOR_DIRECTORIES != 0
                    && case.kind == Some(FileKind::Regular)
                    && case.kernels_is(Errno::OPNOTSUPP) =>
            {
                Some(Self::FlagsOfKind)
            }
            O::Tmpfile { .. } if case.ours_is(Errno::NOENT) && case.kernels_is(Errno::PERM) => {
                Some(Self::TmpfileInRemoved)
            }
            O::GetXattr { name, .. } | O::RemoveXattr { name, .. } | O::SetXattr { name, .. }
                if matches!(xattr_name(name), b"user." | b"other.x")
                    && (case.ours_is(Errno::INVAL) || case.ours_is(Errno::OPNOTSUPP))
                    && case.kernel_refuses() =>
            {
                Some(Self::AttributeNameFirst)
            }
            O::SetXattr { name, .. } | O::RemoveXattr { name, .. }
                if xattr_name(name).starts_with(b"user.")
                    && !matches!(case.kind, Some(FileKind::Regular | FileKind::Directory))
                    && case.ours_is(Errno::PERM)
                    && case.kernels_is(Errno::ROFS) =>
            {
                Some(Self::AttributeNameFirst)
            }
            O::List { .. } if case.is_removed && is_done && case.kernels_is(Errno::NOENT) => {
                Some(Self::RemovedListing)
            }
            _ if case.is_removed
                && !case.names().is_empty()
                && matches!(case.ours, Answer::Refused(_))
                && case.kernels_is(Errno::NOENT) =>
            {
                Some(Self::RemovedFirst)
            }
            O::Symlink { .. } if case.ours_is(Errno::NAMETOOLONG) && case.kernel_refuses() => {
                Some(Self::TargetFirst)
            }
            O::Fallocate { .. } if case.ours_is(Errno::OPNOTSUPP) && case.kernel_refuses() => {
                Some(Self::ModeFirst)
            }
            O::Write { data: Data { len: 0, .. }, .. } | O::FileWrite { data: Data { len: 0, .. }, .. }
                if *case.ours == Answer::Number(0) && case.kernel_refuses() =>
            {
                Some(Self::EmptyWrite)
            }
            O::Write { data, .. } | O::FileWrite { data, .. } => {
                let is_short = match (case.ours, case.kernel) {
                    (Answer::Number(ours), Given::Answer(Answer::Number(kernel))) => {
                        ours.min(kernel) < &u64::from(data.len)
                    }
                    (Answer::Number(_), _) => case.kernels_is(Errno::NOSPC),
                    _ => false,
                };
                is_short.then_some(Self::ShortWrite)
            }
            O::Store { .. } => Self::of_store(case),
            O::Acl { .. }
                if case.kind == Some(FileKind::Symlink)
                    && *case.ours == Answer::Acl(None)
                    && case.kernels_is(Errno::OPNOTSUPP) =>
            {
                Some(Self::AclOfLink)
            }
            O::SetAcl { .. }
                if (case.ours_is(Errno::ACCES) || case.ours_is(Errno::OPNOTSUPP))
                    && case.kernel_refuses() =>
            {
                Some(Self::AttributeNameFirst)
            }
            O::SetXattr { .. } | O::SetAcl { .. }
                if case.geometry.has_large_inodes()
                    && case.ours_is(Errno::NOSPC)
                    && case.kernel_is_done() =>
            {
                Some(Self::MoreAttributes)
            }
            O::List { .. } if case.ours.is_done() => {
                let is_listed = matches!(case.kernel, Given::Entries(..) | Given::Answer(Answer::Nothing));
                match is_listed {
                    true if case.geometry.has("dir_index") => Some(Self::HashOrder),
                    true if case.is_reordered => Some(Self::RenameInPlace),
                    true if case.is_large => Some(Self::AnyBlock),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The one that a field has, if it is one.
    pub(super) fn of_field(case: &FieldCase<'_>) -> Option<Self> {
        use Operation as O;
        let (ours, kernel) = (case.ours, case.kernel);
        let lost = ours.mode & !kernel.mode;
        let lost_set_id = lost != 0 && lost & !0o6000 == 0 && kernel.mode & !ours.mode == 0;
        let is_removed = ours.kind == FileKind::Directory && ours.links == 0 && kernel.links == 0;
        if case.field == Field::Size && is_removed && kernel.size == 0 {
            return Some(Self::SizeOfRemoved);
        }
        let block = u32::try_from(case.geometry.block / 512).ok()?;
        if case.field == Field::Blocks
            && case.geometry.has_large_inodes()
            && case.has_xattrs
            && kernel.blocks_512 + block == ours.blocks_512
        {
            return Some(Self::AttributesInInode);
        }
        if matches!(case.field, Field::Size | Field::Blocks) && ours.kind == FileKind::Directory {
            return match () {
                () if case.geometry.has("dir_index") => Some(Self::HashTree),
                () if case.is_reordered => Some(Self::RenameInPlace),
                () if ours.size.min(kernel.size) > case.geometry.block => Some(Self::AnyBlock),
                () => None,
            };
        }
        if case.field == Field::Blocks
            && ours.kind == FileKind::Regular
            && kernel.blocks_512 > ours.blocks_512
        {
            // Which blocks are data is compared elsewhere.
            return Some(Self::EmptyIndirect);
        }
        match (case.field, case.operation()?) {
            (Field::Mode, O::Create { kind: FileKind::Directory, .. })
                if ours.kind == FileKind::Directory && lost_set_id =>
            {
                Some(Self::SetIdOfDirectory)
            }
            (Field::Mode, O::Chown { .. }) if ours.kind != FileKind::Directory && lost_set_id => {
                Some(Self::SetIdOfOwner)
            }
            (
                Field::Mtime | Field::Ctime,
                O::Fallocate { .. }
                | O::Punch { .. }
                | O::FilePunch { .. }
                | O::Zero { .. }
                | O::FileZero { .. },
            ) if case.seen.is_some_and(|seen| seen[1] != kernel.mtime) => Some(Self::FallocateModifies),
            // The attempt that was taken back.
            (Field::Ctime, O::SetXattr { .. } | O::SetAcl { .. }) if case.geometry.has_large_inodes() => {
                Some(Self::MoreAttributes)
            }
            (Field::Mtime | Field::Ctime, O::Store { .. }) => Some(Self::StoreModifies),
            (
                Field::Ctime,
                O::SetTimes { atime: None, mtime: None, .. }
                | O::Chown { uid: None, gid: None, mode: None, .. },
            ) => Some(Self::NothingToSet),
            _ => None,
        }
    }

    /// The one that the answers to a store are.
    fn of_store(case: &Case<'_>) -> Option<Self> {
        let Given::Answer(kernel) = case.kernel else { return None };
        let is_known = |answer: &Answer| matches!(answer, Answer::Ranges(_) | Answer::StoreDied(..));
        // The kernel may have had no room for a block of another place of the same folio.
        let is_same_end = match (case.ours, kernel) {
            (Answer::StoreDied(ours, _), Answer::StoreDied(kernel, _)) => ours == kernel,
            (Answer::StoreDied(..), _) => false,
            _ => true,
        };
        (is_same_end && is_known(case.ours) && is_known(kernel)).then_some(Self::StoreAllocates)
    }

    /// Whether what e2fsck says of the kernel's image is [`StaleKind`](Self::StaleKind) and nothing else.
    pub(super) fn is_stale_kind(said: &str, geometry: &Geometry) -> bool {
        let passed = ["Pass ", "Clear? no", "e2fsck ", "exit status"];
        let is_known = |line: &str| {
            line.is_empty()
                || passed.iter().any(|known| line.contains(known))
                || line.starts_with("Entry '.") && line.contains("has filetype set")
                || line.contains("WARNING: Filesystem still has errors")
                || line.contains(" files (") && line.ends_with(" blocks")
        };
        !geometry.has("filetype") && said.contains("has filetype set") && said.lines().all(is_known)
    }
}
