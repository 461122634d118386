//! The images that workloads begin with.

use std::sync::Arc;

use blockdev::RamDevice;
use ext2_core::{BlockSize, Ext2, FileBlock, FixedClock, Follow, OpenOptions, Timestamp};
use ext2_image::mkfs::{
    self, AlignChoice, DeviceOutput, Format, Fresh, Inodes, LostAndFound, NoContents, NodeAttrs, Revision,
    Size, Tree,
};

use super::{Action, perform};
use crate::{Scratch, golden, tree};

/// The byte that all free blocks are full of: who sees it sees what was never written to that file.
pub const STALE: u8 = 0xd5;

/// Seconds since 1970, for everything that has a time.
pub const NOW: u32 = 1_700_000_000;

/// How the file systems of workloads are opened: to be written, at a time that stands still.
pub fn options() -> OpenOptions {
    let clock = FixedClock(Timestamp { sec: NOW.into(), nsec: 0 });
    OpenOptions { clock: Some(Arc::new(clock)), ..OpenOptions::default() }
}

/// All but the first letter of a name of 232 bytes.
macro_rules! long {
    () => {
        "-is-a-name-that-is-as-long-as-this-because-four-of-them-are-to-fill-a-block-of-a-directory-so-that-the-next-name-\
         needs-another-block-which-has-to-be-whole-before-it-is-reachable-and-reachable-before-it-counts-in-the-size-of-it-all-"
    };
}

/// The image that workloads begin with.
#[derive(Clone, Debug)]
pub struct Base {
    /// What it is called in reports.
    pub name: String,
    /// All of it.
    pub image: Vec<u8>,
    /// Bytes of a block.
    pub block_size: usize,
    /// Whether it has no `lost+found`.
    pub is_bare: bool,
}

impl Base {
    /// A golden image, emptied and filled with the files that the [`vocabulary`](super::vocabulary) is about, free
    /// blocks full of [`STALE`].
    pub fn of(name: &str) -> Self {
        let device = RamDevice::from_bytes(&golden::image(name).file_system()).expect("memory");
        Self::filled(name, device, Attributes::Some)
    }

    /// The same in as little as it fits in, which is what makes a state cheap: blocks of 1 KiB, 32 inodes of
    /// `inode_size` bytes, and `kib` KiB in all. Of 64 KiB a dozen blocks are free, so that what a file gave back is
    /// soon another's.
    pub fn small(kib: u64, inode_size: u16) -> Self {
        Self::made(kib, inode_size, 1024)
    }

    /// The same with blocks of 4 KiB and room for files that get aligned units of their own.
    pub fn large() -> Self {
        Self::made(8 << 10, 256, 4096)
    }

    fn made(kib: u64, inode_size: u16, block_size: u64) -> Self {
        let revision = if inode_size == 0 { Revision::Original } else { Revision::Dynamic };
        let mut features = Format::default_features();
        features.compat.remove(ext2_core::CompatFeatures::RESIZE_INODE);
        let format = Format {
            block_size: BlockSize::new(block_size),
            inode_size: inode_size.max(128),
            inodes: Inodes::Count(32),
            revision,
            features,
            reserved_percent: 0.0,
            uuid: [5; 16],
            created: Timestamp::from_secs(i64::from(NOW)),
            ..Format::default()
        };
        let device = RamDevice::new(kib << 10).expect("memory");
        let root = NodeAttrs::new(0o755, (0, 0), format.created);
        let options = mkfs::Options {
            size: Size::Bytes(kib << 10),
            align: AlignChoice::Off,
            // mke2fs makes a large one.
            lost_and_found: LostAndFound::AsInTree,
            ..mkfs::Options::default()
        };
        let plan = mkfs::Plan::new(Tree::new(root), &format, &options)
            .expect("so small a file system can be planned");
        plan.write(&mut NoContents, &DeviceOutput::new(&device, Fresh::Zeros), &mut |_| ())
            .expect("so small a file system can be made");
        // Revision 0 would not be one any more.
        let attributes = if revision == Revision::Original { Attributes::None } else { Attributes::Some };
        Self::filled(&format!("{kib} KiB, inodes of {}", format.inode_size), device, attributes)
    }

    /// The same image without a `lost+found`, as who makes an image of a directory has it.
    #[must_use]
    pub fn bare(self) -> Self {
        let name = format!("{}, no lost+found", self.name);
        let device = Arc::new(RamDevice::from_bytes(&self.image).expect("memory"));
        let fs = Ext2::open(device.clone(), &options()).expect("the image opens");
        perform(&fs, &Action::Rmdir("/lost+found")).expect("it is empty");
        fs.close().expect("the file system closes");
        let mut image = device.to_vec();
        spoil_free_blocks(&mut image);
        Self { name, image, is_bare: true, ..self }
    }

    /// A small one with [`sharing`](Self::sharing) files.
    pub fn shared(kib: u64, inode_size: u16, sharers: usize) -> Self {
        Self::small(kib, inode_size).sharing(sharers)
    }

    /// The same with `sharers` of the files `/h`, `/t` and `/d/b` using one block of attributes, as Linux makes them.
    #[must_use]
    pub fn sharing(self, sharers: usize) -> Self {
        let base = self;
        let device = Arc::new(RamDevice::from_bytes(&base.image).expect("memory"));
        let sharing = OpenOptions { share_xattrs: true, ..options() };
        let fs = Ext2::open(device.clone(), &sharing).expect("the image opens");
        for path in ["/h", "/t", "/d/b"].into_iter().take(sharers) {
            perform(&fs, &Action::SetXattr { path, len: 40, seed: 15 }).expect("it is set");
        }
        fs.close().expect("the file system closes");
        let mut image = device.to_vec();
        spoil_free_blocks(&mut image);
        Self { name: format!("{}, {sharers} sharers", base.name), image, ..base }
    }

    /// The same with attributes of `/a` and `/h` in the inodes themselves, as e2fsprogs and ext4 put them there. Inodes have 256
    /// bytes or more.
    #[must_use]
    pub fn in_inodes(self) -> Self {
        let device = Arc::new(RamDevice::from_bytes(&self.image).expect("memory"));
        let fs = Ext2::open(device.clone(), &options()).expect("the image opens");
        perform(&fs, &Action::RemoveXattr("/h")).expect("it is there");
        let table = fs.descriptor(ext2_core::GroupNr::new(0)).expect("read").bg_inode_table.get() as usize;
        let size = usize::from(fs.geometry().inode_size);
        let place = |path: &str| {
            let nr = fs.resolve(path, Follow::No).expect("there").nr().get() as usize;
            table * self.block_size + (nr - 1) * size + 128 + 32
        };
        let places = ["/a", "/h"].map(place);
        fs.close().expect("the file system closes");
        let mut image = device.to_vec();
        spoil_free_blocks(&mut image);
        for at in places {
            // The magic number, one entry: user.k, whose 20 bytes end the inode; and the end of the list.
            let end = size - 128 - 32 - 4;
            image[at..at + 4].copy_from_slice(&0xea02_0000_u32.to_le_bytes());
            image[at + 4..at + 24].copy_from_slice(&[
                1,
                1,
                end as u8 - 20,
                0,
                0,
                0,
                0,
                0,
                20,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                b'k',
                0,
                0,
                0,
            ]);
            image[at + 4 + end - 20..at + 4 + end].fill(17);
        }
        Self { name: format!("{}, attributes in inodes", self.name), image, ..self }
    }

    /// The same with all blocks in use but `free`, or one less.
    #[must_use]
    pub fn crowded(self, free: u64) -> Self {
        let device = Arc::new(RamDevice::from_bytes(&self.image).expect("memory"));
        let fs = Ext2::open(device.clone(), &options()).expect("the image opens");
        perform(&fs, &Action::Create("/full")).expect("it is made");
        let mut offset = 0;
        while fs.statfs().expect("counted").blocks_free > free {
            let block = Action::Write { path: "/full", offset, len: self.block_size, seed: 16 };
            perform(&fs, &block).expect("there is room");
            offset += self.block_size as u64;
        }
        fs.close().expect("the file system closes");
        let mut image = device.to_vec();
        spoil_free_blocks(&mut image);
        Self { name: format!("{}, {free} free", self.name), image, ..self }
    }

    fn filled(name: &str, device: RamDevice, attributes: Attributes) -> Self {
        let device = Arc::new(device);
        let fs = Ext2::open(device.clone(), &options()).expect("the image opens");
        empty(&fs);
        if perform(&fs, &Action::Mkdir("/lost+found")).is_ok() {
            log::debug!("{name} has a small lost+found of ours");
        }
        let block_size = usize::try_from(fs.geometry().block_size.bytes()).expect("a block fits memory");
        let mut setup = vec![
            Action::Create("/a"),
            Action::Write { path: "/a", offset: 0, len: 2500, seed: 9 },
            Action::Mkdir("/d"),
            Action::Create("/d/b"),
            Action::Write { path: "/d/b", offset: 0, len: 100, seed: 10 },
            Action::Link("/d/b", "/d/b2"),
            Action::Create("/h"),
            Action::Write { path: "/h", offset: 0, len: 500, seed: 11 },
            Action::Write { path: "/h", offset: 14_000, len: 600, seed: 12 },
            Action::Mkdir("/x"),
            Action::Mknod("/fifo"),
            Action::Create("/t"),
            Action::Write { path: "/t", offset: 0, len: 100, seed: 14 },
            Action::Mkdir("/f"),
        ];
        if attributes == Attributes::Some {
            setup.push(Action::SetXattr { path: "/h", len: 400, seed: 13 });
        }
        if block_size == 1024 {
            // No room for another name but a short one.
            setup.extend(FULL.map(|name| Action::Link("/fifo", name)));
        }
        for action in setup {
            perform(&fs, &action).unwrap_or_else(|error| panic!("{action:?}: {error}"));
        }
        let tail = fs.resolve(b"/t", Follow::No).and_then(|file| file.map(FileBlock::new(0), 1));
        let tail = tail.expect("just written").target.map(|block| block.get() as usize * block_size);
        fs.close().expect("the file system closes");
        let mut image = device.to_vec();
        spoil_free_blocks(&mut image);
        // As a mapping may leave it behind the end of a file.
        if let Some(start) = tail {
            image[start + 100..start + block_size].fill(STALE);
        }
        Self { name: name.to_owned(), image, block_size, is_bare: false }
    }
}

/// Whether a file has attributes at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attributes {
    Some,
    None,
}

/// Names that fill a block of 1 KiB but for 40 bytes.
const FULL: [&str; 4] =
    [concat!("/f/1", long!()), concat!("/f/2", long!()), concat!("/f/3", long!()), concat!("/f/4", long!())];

/// Removes everything but `lost+found`.
fn empty(fs: &Ext2) {
    let all = tree::of(fs).expect("the image can be read");
    for (path, node) in all.iter().rev() {
        if path.is_empty() || path == b"/lost+found" {
            continue;
        }
        let (dir, name) = fs.resolve_parent(path).expect("listed");
        let done =
            if node.kind == ext2_core::FileKind::Directory { dir.rmdir(name) } else { dir.unlink(name) };
        done.unwrap_or_else(|error| panic!("{}: {error}", path.escape_ascii()));
    }
}

/// Fills the blocks that the bitmaps call free.
///
/// # Panics
/// Where it is no image.
pub fn spoil_free_blocks(image: &mut [u8]) {
    let device = Arc::new(Scratch::new(image.to_vec()));
    let fs = Ext2::open(device, &OpenOptions::read_only()).expect("the image opens");
    let geo = fs.geometry().clone();
    let size = usize::try_from(geo.block_size.bytes()).expect("a block fits memory");
    for group in geo.group_numbers() {
        let desc = usize::try_from(geo.descriptor_offset(group, ext2_core::GroupNr::new(0))).expect("inside");
        let bitmap = u32::from_le_bytes(image[desc..desc + 4].try_into().expect("4 bytes")) as usize * size;
        for bit in 0..geo.group_len(group) as usize {
            if image[bitmap + bit / 8] >> (bit % 8) & 1 == 0 {
                let block = geo.group_start(group) as usize + bit;
                image[block * size..(block + 1) * size].fill(STALE);
            }
        }
    }
}
