//! What a check finds.

use alloc::vec::Vec;
use core::fmt;

/// What `e2fsck -p`, which asks no questions, does about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preen {
    /// It mends it alone.
    Mends,
    /// It stops and asks for a person.
    Halts,
}

/// Where a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Place {
    /// The superblock.
    Superblock,
    /// A group, by number.
    Group(u32),
    /// An inode, by number.
    Inode(u32),
    /// An entry of a directory.
    Entry {
        /// The directory's inode.
        directory: u32,
        /// The block of the directory, counted from 0.
        block: u64,
        /// The entry's place in that block, in bytes.
        offset: u32,
    },
    /// A block of the device.
    Block(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superblock => f.write_str("superblock"),
            Self::Group(nr) => write!(f, "group {nr}"),
            Self::Inode(nr) => write!(f, "inode {nr}"),
            Self::Entry { directory, block, offset } => {
                write!(f, "directory inode {directory}, block {block}, offset {offset}")
            }
            Self::Block(nr) => write!(f, "block {nr}"),
        }
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What.
    pub kind: Kind,
    /// The number that is there, where one says something.
    pub found: Option<u64>,
    /// The number that should be there, where one is known.
    pub expected: Option<u64>,
    /// The name of the directory entry, where it is about one.
    pub name: Vec<u8>,
}

impl Finding {
    /// What `e2fsck -p` does about it.
    #[must_use]
    pub fn preen(&self) -> Preen {
        self.kind.preen()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        if !self.name.is_empty() {
            write!(f, ", entry '{}'", self.name.escape_ascii())?;
        }
        write!(f, ": {}", self.kind.text())?;
        match (self.found, self.expected) {
            (Some(found), Some(expected)) => write!(f, " is {found}, should be {expected}"),
            (Some(found), None) => write!(f, ": {found}"),
            (None, Some(expected)) => write!(f, ", should be {expected}"),
            (None, None) => Ok(()),
        }
    }
}

macro_rules! kinds {
    ($($name:ident $preen:ident $text:literal,)*) => {
        /// The kinds of finding. A kind whose text names a quantity has it in [`Finding::found`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Kind {
            $(#[doc = $text] $name,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What `e2fsck -p` does about it.
            #[must_use]
            pub fn preen(self) -> Preen {
                match self {
                    $(Self::$name => Preen::$preen,)*
                }
            }

            /// What it is, in words.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Its name, for programs.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

kinds! {
    // The superblock and the descriptors.
    SuperblockField Halts "a field is impossible",
    SparseSuper Halts "groups have what is their own where backups would be, but there is no feature sparse_super",
    SuperblockLost Halts "the superblock cannot be used; there is a backup in block",
    BlockSize Halts "s_log_block_size",
    FirstDataBlock Halts "s_first_data_block",
    FragmentSize Halts "fragments are not blocks: s_log_frag_size",
    FragmentsPerGroup Halts "s_frags_per_group",
    BlocksPerGroup Halts "s_blocks_per_group",
    InodesPerGroup Halts "s_inodes_per_group",
    ReservedBlocks Halts "s_r_blocks_count, of at most half of all blocks,",
    DeviceTooSmall Halts "bytes that the file system needs, more than the device has",
    InodeCount Halts "s_inodes_count",
    FirstInode Halts "s_first_ino",
    InodeSize Halts "s_inode_size",
    SpareDescriptors Halts "s_reserved_gdt_blocks, for which there is no room,",
    ReservedDescriptors Halts "s_reserved_gdt_blocks without the feature resize_inode",
    JournalInode Halts "the journal is not in inode 8, but in inode",
    JournalLeft Mends "names a journal that is none, and has no feature has_journal: inode",
    JournalUnused Mends "names a journal, but has no feature has_journal: inode",
    JournalUnmarked Halts "the journal holds transactions, but the superblock does not say needs_recovery",
    RecoveryLeft Mends "says that a journal has to be replayed, but there is none",
    JournalSuperblock Mends "the journal has no superblock",
    JournalVersion Halts "the journal is of a version that is not known",
    JournalFields Mends "the journal is of version 1, but has fields of version 2",
    JournalElsewhere Halts "names a journal elsewhere by its UUID, but the image has its own or none",
    JournalUsers Mends "the file systems that have the journal are",
    OrphansPresent Mends "says that the file of orphans has some, but there is no such file",
    BlockBitmapPlace Halts "the block bitmap is not in its group: block",
    InodeBitmapPlace Halts "the inode bitmap is not in its group: block",
    InodeTablePlace Halts "the inode table is not in its group: block",
    DescriptorDiffers Halts "the descriptor lies beside broken ones, and a whole backup has others: the inode table",
    BlockBitmapOverlap Halts "the block bitmap overlaps other metadata: block",
    InodeBitmapOverlap Halts "the inode bitmap overlaps other metadata: block",
    InodeTableOverlap Halts "the inode table overlaps other metadata: block",
    ResizeInode Halts "the resize inode is not as the descriptors need it",
    ResizeInodeLeft Halts "the resize inode has blocks, but the feature resize_inode is not there",
    GroupFlags Mends "bg_flags or bg_itable_unused of a feature that the file system does not have; the flags are",
    GroupChecksum Mends "bg_checksum",
    BackupSuperblock Halts "the backup of the superblock differs from the primary one",
    LargeFileFlag Mends "there are files of 2 GiB and more, but no feature large_file",
    // Inodes.
    RootNotDirectory Halts "the root is not a directory",
    RootUnused Halts "there is no root directory",
    RootDtime Mends "the root has a time of deletion",
    ReservedMode Mends "a reserved inode has a mode",
    BadBlocksInode Halts "the inode of bad blocks is not empty",
    BadBlocksMetadata Halts "the list of bad blocks has a superblock, descriptor, bitmap or table: block",
    BadBlocksIllegal Halts "the inode of bad blocks has an impossible block",
    JournalInUse Mends "the journal's inode is used without a journal",
    JournalMode Mends "the journal is not a regular file",
    ZeroDtime Mends "deleted, but without a time of deletion",
    DtimeSet Mends "in use, but with a time of deletion",
    LowDtime Halts "the time of deletion is the link of a broken list of orphans",
    ForeignFlag Halts "has a flag of a feature that the file system does not have, i_flags",
    ImagicFlag Halts "has the flag of AFS, i_flags",
    SpecialSize Mends "size of a device, FIFO or socket",
    Mode Halts "the mode says no kind of file",
    SpecialInode Halts "a device, FIFO or socket that cannot be one",
    Symlink Halts "the symlink is invalid",
    FaddrField Halts "i_faddr, which should be 0,",
    AclHighField Mends "i_file_acl_high, which should be 0,",
    FragmentField Halts "i_frag, which should be 0,",
    FragmentSizeField Halts "i_fsize, which should be 0,",
    BlocksHighField Halts "the high half of i_blocks, which should be 0,",
    DirAclField Halts "i_dir_acl of a directory, which should be 0,",
    ReallyDirectory Halts "looks like a directory, but its mode is another",
    ExtraSize Mends "i_extra_isize",
    FarTimes Mends "a time past 2310-04-04, as old kernels stored those before 1970",
    IllegalBlock Halts "an impossible block number",
    TooBig Halts "a block past the greatest size: block of the file",
    DoubleUse Halts "a block that has another use",
    Size Mends "i_size",
    Blocks Mends "i_blocks",
    ZeroLengthDirectory Mends "a directory without blocks",
    IndexFlag Mends "the flag of an indexed directory is wrong",
    IndexRoot Mends "the root of the directory's index is invalid",
    IndexLimit Mends "entries of a node of the directory's index",
    IndexOrder Mends "the directory's index is not in the order of its hashes at block",
    IndexNode Halts "the directory's index is invalid at block",
    // Attributes.
    AttributeBlockPlace Halts "the block of attributes is impossible",
    AttributeFeature Halts "has a block of attributes without the feature ext_attr",
    AttributeBlock Halts "the block of attributes is broken",
    AttributeHash Mends "the hash of an attribute",
    AttributeInInode Mends "an attribute in the inode is broken",
    AttributeOverlap Halts "attributes in the inode overlap",
    AttributeCount Halts "users of the block of attributes",
    // Directories.
    DirectoryHole Halts "a directory has no block at",
    EntryBroken Halts "the entry is broken",
    DotMissing Halts "the first entry is not '.'",
    DotInode Halts "inode of '.'",
    DotEnd Halts "'.' or '..' has no zero after it",
    DotLong Halts "'.' is long",
    DotDotMissing Halts "the second entry is not '..'",
    DotDotInode Halts "inode of '..'",
    EntryInode Halts "an impossible inode",
    EntryUnused Mends "names a deleted or unused inode",
    EntryUnwritten Mends "names an inode past those that its group says were ever written:",
    EntryDot Halts "a further '.' or '..'",
    EntrySelf Halts "names its own directory",
    EntryRoot Halts "names the root",
    EntryDirectory Halts "a second name of a directory: inode",
    EntryEmptyName Halts "has no name",
    EntryName Halts "has a '/' or a zero byte in its name",
    EntryTypeUnset Mends "the type of the entry is not set",
    EntryType Halts "type of the entry",
    EntryTypeSet Mends "the entry has a type, but the file system no feature filetype",
    DuplicateName Halts "the same name a second time",
    // Reachability and counts.
    Unconnected Halts "a directory that cannot be reached",
    Unattached Halts "a file without a name",
    UnattachedEmpty Mends "an empty file without a name",
    Links Mends "i_links_count",
    ManyDirectories Halts "more directories in one than can be counted, but no feature dir_nlink: so many links",
    BlocksMarkedFree Mends "the block bitmap: used blocks that it says are free",
    BlocksMarkedUsed Mends "the block bitmap: free blocks that it says are used",
    InodesMarkedFree Mends "the inode bitmap: used inodes that it says are free",
    InodesMarkedUsed Mends "the inode bitmap: free inodes that it says are used",
    BlockBitmapPadding Mends "the end of the block bitmap is not all ones",
    InodeBitmapPadding Mends "the end of the inode bitmap is not all ones",
    GroupFreeBlocks Mends "bg_free_blocks_count",
    GroupFreeInodes Mends "bg_free_inodes_count",
    GroupDirectories Mends "bg_used_dirs_count",
    FreeBlocks Mends "s_free_blocks_count",
    FreeInodes Mends "s_free_inodes_count",
    OrphanList Mends "the list of orphans",
    QuotaFile Halts "the file of quota cannot be read",
    QuotaUsage Mends "users or groups of which the file of quota does not say what they use",
}

impl Kind {
    /// Whether it is only worth a remark: `e2fsck -n` calls an image with nothing else clean. The counts
    /// of the superblock are: they are sums of those of the groups, which are checked, and nobody keeps
    /// them up to date while the file system is in use.
    #[must_use]
    pub fn is_remark(self) -> bool {
        matches!(
            self,
            Self::JournalUnused
                | Self::JournalUnmarked
                | Self::FarTimes
                | Self::EntryTypeUnset
                | Self::DotLong
                | Self::OrphanList
                | Self::ResizeInodeLeft
                | Self::FreeBlocks
                | Self::FreeInodes
        )
    }

    /// Whether it is about a count or a bitmap: what is stored for it changes nothing that anything else is found by.
    pub(crate) fn is_count(self) -> bool {
        matches!(
            self,
            Self::Links
                | Self::BlocksMarkedFree
                | Self::BlocksMarkedUsed
                | Self::InodesMarkedFree
                | Self::InodesMarkedUsed
                | Self::BlockBitmapPadding
                | Self::InodeBitmapPadding
                | Self::GroupFreeBlocks
                | Self::GroupFreeInodes
                | Self::GroupDirectories
                | Self::FreeBlocks
                | Self::FreeInodes
        )
    }
}
