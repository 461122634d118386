//! What a finding means, for somebody who has not seen one before.

/// In a sentence or two; a general one for what needs no other.
pub(super) fn why(kind: &str) -> &'static str {
    match kind {
        "SuperblockField" => {
            "The superblock describes the whole image. With an impossible number in it nothing else can be found, so check \
             stops here. Copies of it lie in other groups."
        }
        "BlockBitmapPlace" | "InodeBitmapPlace" | "InodeTablePlace" => {
            "Each group's descriptor says where its bitmaps and its table of inodes are. They have to lie in their own group."
        }
        "BlockBitmapOverlap" | "InodeBitmapOverlap" | "InodeTableOverlap" => {
            "Two structures claim the same block. Whoever writes one destroys the other."
        }
        "Links" => {
            "i_links_count is the number of names that lead to the inode. Too low, and the file is freed while a name still \
             leads to it; too high, and it is never freed."
        }
        "Size" => {
            "i_size and the blocks contradict each other: a directory ends in the middle of a block, or blocks lie past the end."
        }
        "Blocks" => {
            "i_blocks counts the blocks of the file and its indirect blocks, in units of 512 bytes. Nobody finds data by it, so \
             it can be counted again."
        }
        "IllegalBlock" => {
            "A pointer leads to a block that no file may have: outside the image, or one of the image's own structures."
        }
        "DoubleUse" => {
            "Two files, or a file and a structure, have the same block. Only a person knows whose data is in it, so repair \
             without questions stops."
        }
        "Mode" | "ReallyDirectory" => {
            "The upper bits of i_mode say what kind of file it is. These say none, or another than its contents."
        }
        "DtimeSet" => {
            "The inode has names and a time of deletion. One of the two is wrong; the names are believed."
        }
        "ZeroDtime" => "A deleted inode notes when it was deleted. Without that it looks half made.",
        "EntryUnused" => {
            "A name leads to an inode that is free. The next file that takes the inode would answer to this name, too."
        }
        "EntryInode" => "An entry has the number of an inode that there is not.",
        "EntryBroken" => {
            "The entries of a directory's block follow each other by rec_len. If one is wrong, all behind it are lost from sight."
        }
        "EntryType" | "EntryTypeUnset" | "EntryTypeSet" => {
            "An entry repeats the type of the file, so that a listing need not look at the inode. This one says another type."
        }
        "DotMissing" | "DotInode" | "DotDotMissing" | "DotDotInode" | "DotEnd" | "DotLong" => {
            "Every directory begins with \".\", itself, and \"..\", its parent."
        }
        "EntryDirectory" => {
            "A directory has one name. A second one would make the tree a graph, and a walk might never end."
        }
        "Unconnected" | "Unattached" | "UnattachedEmpty" => {
            "The inode is in use, and no name leads to it: its name was lost. Repair gives it one in lost+found."
        }
        "BlocksMarkedFree" => {
            "The bitmap says that a block is free that a file has. The next file that is written would get it, too: this is how \
             files become mixed."
        }
        "BlocksMarkedUsed" => {
            "The bitmap says that a block is used that nobody has. It is lost until the bitmap is made again."
        }
        "InodesMarkedFree" => {
            "The bitmap says that an inode is free that is in use. The next file would overwrite it."
        }
        "InodesMarkedUsed" => "The bitmap says that an inode is used that is not.",
        "BlockBitmapPadding" | "InodeBitmapPadding" => {
            "A bitmap fills a block, but the group has fewer blocks or inodes. The bits behind stand for nothing and are set, so \
             that nobody takes them."
        }
        "GroupFreeBlocks" | "GroupFreeInodes" | "GroupDirectories" | "FreeBlocks" | "FreeInodes" => {
            "A count that the bitmaps say better. It only makes the allocator faster, and is counted again."
        }
        "OrphanList" => {
            "Files that were deleted while they were open are in a list, to be freed after a crash."
        }
        "DirectoryHole" => "A directory has no holes: each of its blocks holds entries.",
        "TooBig" => "The file has a block past the largest size that the format allows.",
        "Symlink" => "A symlink's target is in the inode, or in one block, and as long as i_size says.",
        "LargeFileFlag" => {
            "A file of 2 GiB and more needs the feature large_file, so that old readers keep away."
        }
        _ => "Two places in the image contradict each other, or one says something impossible.",
    }
}
