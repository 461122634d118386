//! The file systems that runs begin with.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use blockdev::{BlockDevice, RamDevice};
use ext2_core::{BlockSize, CompatFeatures, Ext2, FixedClock, OpenOptions, RoCompatFeatures, Timestamp};
use ext2_image::mkfs::{
    self, AlignChoice, DeviceOutput, Format, Fresh, Inodes, LostAndFound, NoContents, NodeAttrs, Size, Tree,
};

use super::Options;
use crate::{crash::spoil_free_blocks, tools};

/// Seconds since 1970 at which everything begins.
pub(super) const BEGIN: i64 = 1_700_000_000;

/// The byte that free blocks are full of: who sees it sees what was never written to that file.
pub(super) const STALE: u8 = 0xd5;

/// An empty file system without `lost+found`, its free blocks full of [`STALE`].
pub(super) fn image(options: &Options) -> Vec<u8> {
    if options.journal {
        return with_journal(options);
    }
    let mut features = Format::default_features();
    if !options.spare_descriptors {
        features.compat.remove(CompatFeatures::RESIZE_INODE);
    }
    if options.few_features {
        features.compat = CompatFeatures::empty();
        features.ro_compat.remove(RoCompatFeatures::LARGE_FILE);
    }
    let format = Format {
        block_size: BlockSize::new(options.block),
        inode_size: options.inode_size,
        inodes: Inodes::Count(options.inodes),
        features,
        reserved_percent: if options.reserved { 50.0 } else { 0.0 },
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

/// What images with a journal differ by: KiB, bytes of a block and of an inode, inodes.
type Kind = (u64, u64, u16, u64);

/// The same with a journal that is empty, as mke2fs makes it; each kind once.
fn with_journal(options: &Options) -> Vec<u8> {
    static MADE: Mutex<BTreeMap<Kind, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let kind = (options.kib, options.block, options.inode_size, options.inodes);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.entry(kind).or_insert_with(|| make_with_journal(options)).clone()
}

fn make_with_journal(options: &Options) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    let mut command = tools::command("mke2fs");
    command.env("E2FSPROGS_FAKE_TIME", BEGIN.to_string()).env("MKE2FS_CONFIG", "/dev/null");
    command.args([
        "-q",
        "-F",
        "-t",
        "ext2",
        "-O",
        "none,filetype,ext_attr,sparse_super,large_file,has_journal",
    ]);
    command.args(["-E", "root_owner=0:0,hash_seed=05050505-0505-0505-0505-050505050505", "-m", "0"]);
    command.args([
        "-U",
        "05050505-0505-0505-0505-050505050505",
        "-J",
        &format!("size={}", options.block >> 10),
    ]);
    command.args(["-b", &options.block.to_string(), "-I", &options.inode_size.to_string()]);
    command.args(["-N", &options.inodes.to_string()]).arg(&path).arg(format!("{}K", options.kib));
    let output = command.output().expect("mke2fs runs");
    assert!(output.status.success(), "{options}: {}", tools::words(&output));
    let device = Arc::new(RamDevice::from_bytes(&std::fs::read(&path).expect("just made")).expect("memory"));
    let clock = Some(Arc::new(FixedClock(Timestamp::from_secs(BEGIN))) as _);
    let fs = Ext2::open(device.clone(), &OpenOptions { clock, ..OpenOptions::default() }).expect("just made");
    fs.root().and_then(|root| root.rmdir("lost+found")).expect("it is empty");
    fs.close().expect("the file system closes");
    let mut image = device.to_vec();
    spoil_free_blocks(&mut image);
    image
}
