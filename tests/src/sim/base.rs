//! The file systems that runs begin with.

use blockdev::{BlockDevice, RamDevice};
use ext2_core::{BlockSize, CompatFeatures, Timestamp};
use ext2_image::mkfs::{
    self, AlignChoice, DeviceOutput, Format, Fresh, Inodes, LostAndFound, NoContents, NodeAttrs, Size, Tree,
};

use super::Options;

/// Seconds since 1970 at which everything begins.
pub(super) const BEGIN: i64 = 1_700_000_000;

/// The byte that free blocks are full of: who sees it sees what was never written to that file.
pub(super) const STALE: u8 = 0xd5;

/// An empty file system without `lost+found`, its free blocks full of [`STALE`].
pub(super) fn image(options: &Options) -> Vec<u8> {
    let mut features = Format::default_features();
    features.compat.remove(CompatFeatures::RESIZE_INODE);
    let format = Format {
        block_size: BlockSize::new(options.block),
        inode_size: options.inode_size,
        inodes: Inodes::Count(options.inodes),
        features,
        reserved_percent: 0.0,
        uuid: [5; 16],
        created: Timestamp::from_secs(BEGIN),
        ..Format::default()
    };
    let device = RamDevice::from_bytes(&vec![STALE; (options.kib << 10) as usize]).expect("memory");
    let root = NodeAttrs::new(0o755, (0, 0), format.created);
    let plan = mkfs::Options {
        size: Size::Bytes(device.size()),
        align: AlignChoice::Off,
        lost_and_found: LostAndFound::AsInTree,
        ..mkfs::Options::default()
    };
    mkfs::Plan::new(Tree::new(root), &format, &plan)
        .and_then(|plan| {
            plan.write(&mut NoContents, &DeviceOutput::new(&device, Fresh::Unknown), &mut |_| ())
        })
        .unwrap_or_else(|error| panic!("{options}: {error}"));
    device.to_vec()
}
