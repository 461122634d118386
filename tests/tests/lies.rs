//! Images that lie: each names things that cannot be, and is answered with an error that says what and where, after few
//! reads; the rest of the image stays readable.

use std::sync::Arc;

use blockdev::BlockDevice;
use e2dax_tests::{
    golden,
    hostile::{Damage, Victim, Watched, Workbench},
};
use ext2_core::{
    Error, Ext2, FileBlock, FileKind, Follow, GroupNr, InodeNr, NewInode, Object, OpenOptions, Piece,
    SuperblockAt,
};
use ext2_image::manifest::from_image;

/// Offsets of fields, in bytes, as the format has them.
mod field {
    pub(super) const SUPER: usize = 1024;
    pub(super) const INODES_COUNT: usize = SUPER;
    pub(super) const BLOCKS_COUNT: usize = SUPER + 4;
    pub(super) const FIRST_DATA_BLOCK: usize = SUPER + 20;
    pub(super) const LOG_BLOCK_SIZE: usize = SUPER + 24;
    pub(super) const BLOCKS_PER_GROUP: usize = SUPER + 32;
    pub(super) const INODES_PER_GROUP: usize = SUPER + 40;
    pub(super) const MAGIC: usize = SUPER + 56;
    pub(super) const REV_LEVEL: usize = SUPER + 76;
    pub(super) const FIRST_INO: usize = SUPER + 84;
    pub(super) const INODE_SIZE: usize = SUPER + 88;
    pub(super) const INCOMPAT: usize = SUPER + 96;

    pub(super) const I_MODE: usize = 0;
    pub(super) const I_SIZE: usize = 4;
    pub(super) const I_LINKS: usize = 26;
    pub(super) const I_BLOCKS: usize = 28;
    pub(super) const I_BLOCK: usize = 40;
    pub(super) const I_FILE_ACL: usize = 104;
    pub(super) const I_SIZE_HIGH: usize = 108;
    pub(super) const I_EXTRA_ISIZE: usize = 128;
}

/// A golden image with 1 KiB blocks, and the lies told in it.
struct Liar {
    victim: Victim,
    sound: Ext2,
    lies: Vec<Damage>,
}

impl Liar {
    fn new() -> Self {
        let victim = Victim::new(golden::golden("block-1k"));
        let sound = Ext2::open(Arc::new(victim.device(&[], u64::MAX)), &OpenOptions::read_only()).unwrap();
        Self { victim, sound, lies: Vec::new() }
    }

    /// Writes bytes at an offset of the image.
    fn bytes(mut self, at: usize, bytes: &[u8]) -> Self {
        self.lies.push(Damage::Replace(at, bytes.to_vec()));
        self
    }

    fn u16(self, at: usize, value: u16) -> Self {
        self.bytes(at, &value.to_le_bytes())
    }

    fn u32(self, at: usize, value: u32) -> Self {
        self.bytes(at, &value.to_le_bytes())
    }

    fn nr(&self, path: &str) -> InodeNr {
        self.sound.resolve(path.as_bytes(), Follow::No).unwrap().nr()
    }

    /// Where the inode of a path lies in the image.
    fn inode(&self, path: &str) -> usize {
        let geometry = self.sound.geometry();
        let (group, index) = geometry.group_of_inode(self.nr(path)).unwrap();
        let table = u64::from(self.sound.descriptor(group).unwrap().bg_inode_table.get());
        let at = table * geometry.block_size.bytes() + u64::from(index) * u64::from(geometry.inode_size);
        usize::try_from(at).unwrap()
    }

    /// Where a block of a file lies in the image.
    fn block(&self, path: &str, block: u64) -> usize {
        let inode = self.sound.resolve(path.as_bytes(), Follow::No).unwrap();
        let target = inode.map(FileBlock::new(block), 1).unwrap().target.unwrap();
        usize::try_from(self.sound.geometry().byte_of(target)).unwrap()
    }

    /// Where the entry of a name begins in the first block of a directory.
    fn entry(&self, directory: &str, name: &str) -> usize {
        let block = self.block(directory, 0);
        let mut at = block;
        while at < block + 1024 {
            let length =
                usize::from(u16::from_le_bytes([self.victim.byte(at + 4), self.victim.byte(at + 5)]));
            let found: Vec<u8> =
                (0..usize::from(self.victim.byte(at + 6))).map(|i| self.victim.byte(at + 8 + i)).collect();
            if found == name.as_bytes() {
                return at;
            }
            at += length;
        }
        panic!("no {name} in the first block of {directory}");
    }

    /// The image with its lies, which allows as many reads as the honest walk of an honest image takes many times over.
    fn device(&self) -> Arc<Watched> {
        Arc::new(self.victim.device(&self.lies, 200_000))
    }

    fn open(&self) -> Result<Ext2, Error> {
        Ext2::open(self.device(), &OpenOptions::read_only())
    }

    /// The error of opening it; it must come after a few reads.
    #[track_caller]
    fn refused(&self) -> Error {
        let device = self.device();
        let error = Ext2::open(device.clone(), &OpenOptions::read_only()).expect_err("the lie is believed");
        assert_eq!(device.offence(), None);
        assert!(device.reads() < 10, "{} reads", device.reads());
        error
    }

    /// The error of walking it.
    #[track_caller]
    fn walk_fails(&self) -> Error {
        let device = self.device();
        let fs = Ext2::open(device.clone(), &OpenOptions::read_only()).expect("the root is sound");
        let error = from_image(&fs).expect_err("the lie is believed");
        assert_eq!(device.offence(), None);
        error
    }
}

/// Asserts that an error blames an object of the image.
#[track_caller]
fn assert_blames(error: &Error, object: Object, words: &str) {
    let Error::Corrupt(corrupt) = error else { panic!("{error:?} does not blame the image") };
    assert!(corrupt.object() == object && error.to_string().contains(words), "{error}");
}

#[test]
fn superblocks_that_cannot_be_are_refused() {
    let lies: [(usize, u32, &str); 19] = [
        (field::MAGIC, 0x0001_ef54, "magic"),
        (field::LOG_BLOCK_SIZE, 7, "block size"),
        (field::LOG_BLOCK_SIZE, 32, "block size"),
        (field::LOG_BLOCK_SIZE, u32::MAX, "block size"),
        (field::BLOCKS_PER_GROUP, 0, "blocks per group"),
        (field::BLOCKS_PER_GROUP, 1, "blocks per group"),
        (field::BLOCKS_PER_GROUP, 8193, "blocks per group"),
        (field::BLOCKS_PER_GROUP, u32::MAX, "blocks per group"),
        (field::INODES_PER_GROUP, 0, "inodes per group"),
        (field::INODES_PER_GROUP, u32::MAX, "inodes per group"),
        (field::INODES_COUNT, 0, "inodes"),
        (field::INODES_COUNT, u32::MAX, "inodes"),
        (field::BLOCKS_COUNT, 0, "blocks"),
        (field::BLOCKS_COUNT, u32::MAX, "a device of"),
        (field::FIRST_DATA_BLOCK, 0, "first data block"),
        (field::FIRST_DATA_BLOCK, u32::MAX, "first data block"),
        (field::FIRST_INO, 0, "first inode"),
        (field::FIRST_INO, u32::MAX, "first inode"),
        (field::INODE_SIZE, 0, "inode size"),
    ];
    for (at, value, words) in lies {
        assert_blames(&Liar::new().u32(at, value).refused(), Object::Superblock, words);
    }
    for size in [1, 3, 64, 100, 200, 2048, 0x8000, u16::MAX] {
        assert_blames(&Liar::new().u16(field::INODE_SIZE, size).refused(), Object::Superblock, "inode size");
    }
}

#[test]
fn revisions_and_features_of_the_future_are_refused_by_name() {
    for (at, value, word) in [(field::REV_LEVEL, 2, "revision 2"), (field::INCOMPAT, 0x40 | 2, "extents")] {
        let error = Liar::new().u32(at, value).refused();
        assert!(matches!(error, Error::Incompatible(_)) && error.to_string().contains(word), "{error}");
    }
    let error = Liar::new().u32(field::INCOMPAT, 0x4000_0002).refused();
    assert!(matches!(error, Error::Incompatible(_)), "{error}");
}

#[test]
fn a_terabyte_declared_in_a_small_file_is_refused() {
    let liar = Liar::new()
        .u32(field::BLOCKS_COUNT, 1 << 30)
        .u32(field::INODES_COUNT, (1_u32 << 30).div_ceil(8192) * 64);
    assert_blames(&liar.refused(), Object::Superblock, "a device of");
}

#[test]
fn an_inode_table_outside_the_image_is_refused() {
    for table in [0, 1, 2048, 1 << 31, u32::MAX] {
        let error = Liar::new().u32(2048 + 8, table).refused();
        assert_blames(&error, Object::Group(GroupNr::new(0)), "inode table");
    }
}

#[test]
fn a_root_that_is_no_directory_is_refused() {
    let liar = Liar::new();
    let root = liar.inode("/");
    for mode in [0o100_755, 0o120_777, 0o755] {
        assert_blames(
            &Liar::new().u16(root + field::I_MODE, mode).refused(),
            Object::Inode(InodeNr::ROOT),
            "",
        );
    }
    assert_blames(&Liar::new().u32(root + field::I_SIZE, 0).refused(), Object::Inode(InodeNr::ROOT), "root");
}

#[test]
fn entries_of_impossible_length_end_their_block_and_no_other() {
    for (length, words) in
        [(0, "length of 0"), (4, "length of 4"), (13, "length of 13"), (u16::MAX, "length of 65535")]
    {
        let liar = Liar::new();
        let (at, nr) = (liar.entry("/dir", "sub"), liar.nr("/dir"));
        let liar = liar.u16(at + 4, length);
        assert_blames(&liar.walk_fails(), Object::Directory(nr), words);
        let fs = liar.open().unwrap();
        // The names before it, and the rest of the tree.
        assert!(fs.resolve(b"/dir/.", Follow::No).is_ok() && fs.resolve(b"/README", Follow::No).is_ok());
    }
}

#[test]
fn names_that_overlap_or_are_for_no_inode_are_refused() {
    let liar = Liar::new();
    let (at, nr) = (liar.entry("/dir", "sub"), liar.nr("/dir"));
    let inner = liar.entry("/", "empty");
    let error = Liar::new().bytes(inner + 6, &[255]).walk_fails();
    assert_blames(&error, Object::Directory(InodeNr::ROOT), "name of 255 bytes");
    for inode in [65, 1 << 20, u32::MAX] {
        let error = Liar::new().u32(at, inode).walk_fails();
        assert_blames(&error, Object::Directory(nr), "past the last");
    }
    assert_blames(&Liar::new().bytes(at + 8, b"s/b").walk_fails(), Object::Directory(nr), "s/b");
    assert_blames(&Liar::new().bytes(at + 8, b"s\0b").walk_fails(), Object::Directory(nr), "s\\x00b");
}

#[test]
fn an_entry_of_inode_0_is_no_entry() {
    let liar = Liar::new();
    let at = liar.entry("/", "empty");
    let fs = liar.u32(at, 0).open().unwrap();
    let error = fs.resolve(b"/empty", Follow::No).unwrap_err();
    assert!(error.is(ext2_core::Errno::NOENT), "{error}");
    assert!(from_image(&fs).unwrap().entry(b"/empty").is_none());
}

#[test]
fn a_cycle_of_directories_is_refused() {
    for (above, words) in [("/", "reserved"), ("/dir", "second name"), ("/dir/sub", "second name")] {
        let liar = Liar::new();
        let (at, nr, above) = (liar.entry("/dir/sub", "dir"), liar.nr("/dir/sub"), liar.nr(above));
        let error = liar.u32(at, above.get()).walk_fails();
        assert_blames(&error, Object::Directory(nr), words);
    }
}

#[test]
fn a_directory_larger_than_its_blocks_is_refused_at_its_hole() {
    let liar = Liar::new();
    let (inode, nr) = (liar.inode("/dir"), liar.nr("/dir"));
    let error = liar.u32(inode + field::I_SIZE, 0xffff_fc00).walk_fails();
    assert_blames(&error, Object::Directory(nr), "no block at byte 1024");
}

#[test]
fn a_directory_whose_map_leads_back_into_it_is_searched_as_far_as_the_image_has_blocks() {
    let liar = Liar::new();
    let (inode, nr) = (liar.inode("/dir"), liar.nr("/dir"));
    let number = |byte: usize| u32::try_from(byte / 1024).unwrap();
    // Two blocks of data become indirect ones, one all of whose pointers are to the directory's only block.
    let (own, low, high) = (number(liar.block("/dir", 0)), liar.block("/big", 20), liar.block("/big", 21));
    let liar = liar
        .bytes(low, &own.to_le_bytes().repeat(256))
        .bytes(high, &number(low).to_le_bytes().repeat(256))
        .bytes(inode + field::I_BLOCK, &own.to_le_bytes().repeat(12))
        .u32(inode + field::I_BLOCK + 48, number(low))
        .u32(inode + field::I_BLOCK + 52, number(high))
        .u32(inode + field::I_SIZE, (12 + 256 + 65_536) * 1024);
    let device = liar.device();
    let fs = Ext2::open(device.clone(), &OpenOptions::read_only()).unwrap();
    let dir = fs.resolve(b"/dir", Follow::No).unwrap();
    let before = device.reads();
    assert!(dir.lookup("missing").unwrap_err().is(ext2_core::Errno::NOENT));
    let blocks = u64::from(fs.geometry().blocks_count);
    let reads = device.reads() - before;
    assert!(blocks < 20_000 && reads < 4 * blocks, "{reads} reads of {blocks} blocks");
    // Listed once, its names are not listed again: what a walk keeps of them is no more than the image has.
    let mut entries = dir.entries(0).unwrap();
    assert!(entries.by_ref().take_while(Result::is_ok).count() <= 1024 / 12);
    let error = dir.entries(0).unwrap().find_map(Result::err).unwrap();
    assert_blames(&error, Object::Directory(nr), "is one that it has before");
    assert_eq!(device.offence(), None);
    // Nor is it changed.
    let mut image = vec![0; usize::try_from(device.size()).unwrap()];
    device.read_at(0, &mut image).unwrap();
    let device = Arc::new(Workbench::new(image, 20 * blocks));
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
    let root = fs.root().unwrap();
    let made = root.lookup("dir").unwrap().create("new", &NewInode::new(FileKind::Fifo, 0o600)).map(drop);
    for refused in [made, root.rmdir("dir")] {
        assert_blames(&refused.unwrap_err(), Object::Directory(nr), "more blocks than the file system");
    }
    assert_eq!(device.offence(), None);
}

#[test]
fn indirect_blocks_that_point_to_themselves_end_in_an_error() {
    for slot in [12, 13, 14] {
        let liar = Liar::new();
        let (inode, nr) = (liar.inode("/big"), liar.nr("/big"));
        // A block of data becomes an indirect block all of whose pointers are to itself.
        let block = liar.block("/big", 20);
        let pointer = u32::try_from(block / 1024).unwrap();
        let liar = liar
            .bytes(block, &pointer.to_le_bytes().repeat(256))
            .u32(inode + field::I_BLOCK + slot * 4, pointer)
            .u32(inode + field::I_SIZE, 0)
            .u32(inode + field::I_SIZE_HIGH, 4);
        if slot > 12 {
            assert_blames(&liar.walk_fails(), Object::Inode(nr), "more blocks than the file system");
            let fs = liar.open().unwrap();
            let extents = fs.resolve(b"/big", Follow::No).unwrap().extents();
            let error = extents.last().unwrap().unwrap_err();
            assert_blames(&error, Object::Inode(nr), "more blocks than the file system");
            let device = liar.device();
            let fs = Ext2::open(device.clone(), &OpenOptions::read_only()).unwrap();
            let first = 1024 * if slot == 13 { 12 + 256 } else { 12 + 256 + 65_536 };
            let inode = fs.resolve(b"/big", Follow::No).unwrap();
            let pieces = inode.with_pieces(first, u64::MAX, <[Piece]>::len).unwrap_err();
            for error in [inode.seek_hole(first).unwrap_err(), pieces] {
                assert_blames(&error, Object::Inode(nr), "more blocks than the file system");
            }
            assert_eq!(device.offence(), None);
        }
        // Any one question has an answer.
        let inode = liar.open().unwrap().resolve(b"/big", Follow::No).unwrap();
        for block in [0, 12, 268, 65_804, 1 << 23, 1 << 32] {
            inode.map(FileBlock::new(block), u64::MAX).unwrap();
        }
    }
}

#[test]
fn pointers_outside_the_image_are_refused_and_their_neighbours_read() {
    let liar = Liar::new();
    let (inode, nr) = (liar.inode("/big"), liar.nr("/big"));
    for pointer in [2048, u32::MAX, 1 << 31] {
        for slot in [3, 12, 13] {
            let liar = Liar::new().u32(inode + field::I_BLOCK + slot * 4, pointer);
            assert_blames(&liar.walk_fails(), Object::Inode(nr), "outside the file system");
            let file = liar.open().unwrap().resolve(b"/big", Follow::No).unwrap();
            assert_eq!(file.read_at(0, &mut [0; 3072]), Ok(3072));
        }
    }
}

#[test]
fn sizes_and_links_that_cannot_be_are_refused() {
    let liar = Liar::new();
    let (file, file_nr) = (liar.inode("/big"), liar.nr("/big"));
    assert_blames(
        &Liar::new().u32(file + field::I_SIZE_HIGH, u32::MAX).walk_fails(),
        Object::Inode(file_nr),
        "size",
    );
    let (fast, fast_nr) = (liar.inode("/fast"), liar.nr("/fast"));
    for size in [60, 1024, u32::MAX] {
        let error = Liar::new().u32(fast + field::I_SIZE, size).walk_fails();
        assert_blames(&error, Object::Inode(fast_nr), "");
    }
    let (slow, slow_nr) = (liar.inode("/slow"), liar.nr("/slow"));
    for size in [0, 1025, u32::MAX] {
        let error = Liar::new().u32(slow + field::I_SIZE, size).walk_fails();
        assert_blames(&error, Object::Inode(slow_nr), "");
    }
    // A crash may leave a link in the inode with a block counted: its length says where the target is.
    let counted = Liar::new().u32(fast + field::I_BLOCKS, 2).open().expect("sound");
    let link = counted.resolve(b"/fast", ext2_core::Follow::No).expect("there");
    assert_eq!(link.read_link().expect("read"), b"README");
    let gone = liar.inode("/empty");
    let error = Liar::new().u16(gone + field::I_LINKS, 0).u16(gone + field::I_MODE, 0).walk_fails();
    assert_blames(&error, Object::Directory(InodeNr::ROOT), "is deleted");
}

#[test]
fn attributes_that_do_not_fit_are_refused() {
    let liar = Liar::new();
    let (file, nr) = (liar.inode("/big"), liar.nr("/big"));
    for size in [2, 130, 65_532, u16::MAX] {
        let error = Liar::new().u16(file + field::I_EXTRA_ISIZE, size).walk_fails();
        assert_blames(&error, Object::Inode(nr), "extra size");
    }
    for block in [2048, u32::MAX] {
        let error = Liar::new().u32(file + field::I_FILE_ACL, block).walk_fails();
        assert_blames(&error, Object::Inode(nr), "attribute block");
    }
    // /big has user.large in a block of its own.
    let acl: Vec<u8> = (0..4).map(|i| liar.victim.byte(file + field::I_FILE_ACL + i)).collect();
    let block = usize::try_from(u32::from_le_bytes(acl.try_into().unwrap())).unwrap() * 1024;
    assert!(block > 0, "/big has a block of attributes");
    for (at, bytes) in [(3, &[0][..]), (8, &[2]), (34, &[0xff, 0xff]), (36, &[1]), (40, &[0xff; 4])] {
        let error = Liar::new().bytes(block + at, bytes).walk_fails();
        assert_blames(&error, Object::Inode(nr), "attribute");
    }
}

#[test]
fn a_broken_superblock_leaves_the_backup() {
    let victim = Victim::new(golden::golden("resized"));
    let sound =
        from_image(&Ext2::open(Arc::new(victim.device(&[], u64::MAX)), &OpenOptions::read_only()).unwrap())
            .unwrap();
    // The superblock and the descriptors of group 0 are gone.
    let device = Arc::new(victim.device(&[Damage::Replace(1024, vec![0xff; 2048])], u64::MAX));
    assert!(Ext2::open(device.clone(), &OpenOptions::read_only()).is_err());
    for superblock in [
        SuperblockAt::Group(GroupNr::new(1)),
        SuperblockAt::Block { block: 8193, size: ext2_core::BlockSize::new(1024).unwrap() },
    ] {
        let options = OpenOptions { superblock, ..OpenOptions::read_only() };
        let fs = Ext2::open(device.clone(), &options).unwrap();
        assert_eq!(from_image(&fs).unwrap().entries(), sound.entries(), "{superblock:?}");
    }
    let superblock = SuperblockAt::Group(GroupNr::new(u32::MAX));
    assert!(Ext2::open(device, &OpenOptions { superblock, ..OpenOptions::read_only() }).is_err());
}
