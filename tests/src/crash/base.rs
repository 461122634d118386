//! The images that workloads begin with.

use std::sync::Arc;

use blockdev::RamDevice;
use ext2_core::{
    Ext2, FixedClock, OpenOptions, Timestamp,
    mkfs::{
        self, AlignChoice, DeviceOutput, Format, Fresh, Inodes, LostAndFound, NoContents, NodeAttrs,
        Revision, Size, Tree,
    },
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

/// The image that workloads begin with.
#[derive(Clone, Debug)]
pub struct Base {
    /// What it is called in reports.
    pub name: String,
    /// All of it.
    pub image: Vec<u8>,
    /// Bytes of a block.
    pub block_size: usize,
}

impl Base {
    /// A golden image, emptied and filled with the files that the [`vocabulary`](super::vocabulary) is about, free
    /// blocks full of [`STALE`].
    pub fn of(name: &str) -> Self {
        let device = RamDevice::from_bytes(&golden::image(name).file_system()).expect("memory");
        Self::filled(name, device)
    }

    /// The same in as little as it fits in, which is what makes a state cheap: blocks of 1 KiB, 32 inodes of
    /// `inode_size` bytes, and `kib` KiB in all. Of 64 KiB a dozen blocks are free, so that what a file gave back is
    /// soon another's.
    pub fn small(kib: u64, inode_size: u16) -> Self {
        let revision = if inode_size == 0 { Revision::Original } else { Revision::Dynamic };
        let mut features = Format::default_features();
        features.compat.remove(ext2_core::Compat::RESIZE_INODE);
        let format = Format {
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
        plan.write(&mut NoContents, &mut DeviceOutput::new(&device, Fresh::Zeros), &mut |_| ())
            .expect("so small a file system can be made");
        Self::filled(&format!("{kib} KiB, inodes of {}", format.inode_size), device)
    }

    fn filled(name: &str, device: RamDevice) -> Self {
        let device = Arc::new(device);
        let fs = Ext2::open(device.clone(), &options()).expect("the image opens");
        empty(&fs);
        if perform(&fs, &Action::Mkdir("/lost+found")).is_ok() {
            log::debug!("{name} has a small lost+found of ours");
        }
        let block_size = usize::try_from(fs.geometry().block_size.bytes()).expect("a block fits memory");
        let setup = [
            Action::Create("/a"),
            Action::Write { path: "/a", offset: 0, len: 2500, seed: 9 },
            Action::Mkdir("/d"),
            Action::Create("/d/b"),
            Action::Write { path: "/d/b", offset: 0, len: 100, seed: 10 },
            Action::Link("/d/b", "/d/b2"),
            Action::Create("/h"),
            Action::Write { path: "/h", offset: 0, len: 500, seed: 11 },
            Action::Write { path: "/h", offset: 14_000, len: 600, seed: 12 },
            Action::SetXattr { path: "/h", len: 400, seed: 13 },
            Action::Mkdir("/x"),
            Action::Mknod("/fifo"),
        ];
        for action in setup {
            perform(&fs, &action).unwrap_or_else(|error| panic!("{action:?}: {error}"));
        }
        fs.close().expect("the file system closes");
        let mut image = device.to_vec();
        spoil_free_blocks(&mut image);
        Self { name: name.to_owned(), image, block_size }
    }
}

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
fn spoil_free_blocks(image: &mut [u8]) {
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
