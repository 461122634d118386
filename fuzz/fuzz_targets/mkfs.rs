//! Any options of mkfs and any tree: refused with a reason, or a sound image.
#![no_main]

use arbitrary::Arbitrary;
use e2dax_fuzz::build;
use ext2_image::manifest::ByteSpan;
use ext2_image::mkfs::{
    AlignChoice, Body, Format, Inodes, LostAndFound, MemoryContents, NodeAttrs, NodeId, Options, Revision,
    Size, Tree,
};
use ext2_core::{BlockSize, CompatFeatures, DeviceNr, Features, IncompatFeatures, RoCompatFeatures, Timestamp};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    block_size: Option<u8>,
    inode_size: InodeSize,
    inodes: Count,
    blocks_per_group: Option<u32>,
    original: bool,
    features: Option<(u32, u32, u32)>,
    reserved_percent: f64,
    label: Vec<u8>,
    last_mounted: Vec<u8>,
    created: i64,
    size: Wanted,
    align: u8,
    device_offset: u64,
    bare: bool,
    nodes: Vec<Node>,
}

#[derive(Arbitrary, Debug)]
enum InodeSize {
    Power(u8),
    Any(u16),
}

#[derive(Arbitrary, Debug)]
enum Count {
    BySize,
    Ratio(u64),
    Count(u64),
    Few(u8),
}

#[derive(Arbitrary, Debug)]
enum Wanted {
    Any(u64),
    KiB(u16),
    Slack(u64),
    Exact,
}

#[derive(Arbitrary, Debug)]
struct Node {
    parent: u8,
    name: Vec<u8>,
    mode: u16,
    ids: (u32, u32),
    time: (i64, u32),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    kind: Kind,
}

#[derive(Arbitrary, Debug)]
enum Kind {
    File(Vec<u8>),
    Sparse { size: u64, at: u32, length: u16 },
    Directory,
    Symlink(Vec<u8>),
    Device { block: bool, major: u32, minor: u32 },
    Fifo,
    Socket,
    Link(u8),
}

impl Input {
    fn format(&self) -> Format {
        let common = Format::default();
        let features = self.features.map_or(common.features, |(compat, incompat, ro_compat)| Features {
            compat: CompatFeatures::from_bits_retain(compat),
            incompat: IncompatFeatures::from_bits_retain(incompat),
            ro_compat: RoCompatFeatures::from_bits_retain(ro_compat),
        });
        Format {
            block_size: self.block_size.and_then(|log| BlockSize::from_s_log_block_size(u32::from(log % 8))),
            inode_size: match self.inode_size {
                InodeSize::Power(log) => 64 << (log % 10),
                InodeSize::Any(size) => size,
            },
            inodes: match self.inodes {
                Count::BySize => Inodes::BySize,
                Count::Ratio(ratio) => Inodes::Ratio(ratio),
                Count::Count(count) => Inodes::Count(count),
                Count::Few(count) => Inodes::Count(u64::from(count)),
            },
            blocks_per_group: self.blocks_per_group,
            revision: if self.original { Revision::Original } else { Revision::Dynamic },
            features,
            reserved_percent: self.reserved_percent,
            label: self.label.clone(),
            last_mounted: self.last_mounted.clone(),
            created: Timestamp::from_secs(self.created),
            ..common
        }
    }

    fn options(&self) -> Options {
        Options {
            size: match self.size {
                Wanted::Any(bytes) => Size::Bytes(bytes),
                Wanted::KiB(kib) => Size::Bytes(u64::from(kib) << 10),
                Wanted::Slack(slack) => Size::Auto { slack },
                Wanted::Exact => Size::Auto { slack: 0 },
            },
            align: [AlignChoice::Auto, AlignChoice::Units, AlignChoice::Off][usize::from(self.align % 3)],
            device_offset: self.device_offset,
            lost_and_found: if self.bare { LostAndFound::AsInTree } else { LostAndFound::Always },
            ..Options::default()
        }
    }

    /// The tree, without the nodes that a tree refuses.
    fn tree(&self) -> (Tree, MemoryContents) {
        let mut tree = Tree::new(NodeAttrs::new(0o755, (0, 0), Timestamp::default()));
        let mut contents = MemoryContents::default();
        let mut nodes = vec![NodeId::ROOT];
        for node in &self.nodes {
            let pick = |index: u8| nodes[usize::from(index) % nodes.len()];
            let time = Timestamp { sec: node.time.0, nsec: node.time.1 };
            let mut attrs = NodeAttrs::new(node.mode, node.ids, time);
            attrs.xattrs = node.xattrs.clone().into();
            let body = match &node.kind {
                Kind::File(bytes) => {
                    let size = bytes.len() as u64;
                    Body::File { size, data: None, handle: contents.push(bytes.clone()) }
                }
                &Kind::Sparse { size, at, length } => {
                    let mut file = MemoryContents::sparse(size);
                    let fits = u64::from(at) + u64::from(length) <= size;
                    if fits {
                        file.set(at.into(), &vec![7; length.into()]);
                    }
                    let span = ByteSpan { offset: at.into(), length: length.into() };
                    let data = if fits { [span].into() } else { [].into() };
                    Body::File { size, data: Some(data), handle: contents.push_sparse(file) }
                }
                Kind::Directory => Body::Directory,
                Kind::Symlink(target) => Body::Symlink(target.clone().into()),
                &Kind::Device { block: true, major, minor } => Body::BlockDevice(DeviceNr { major, minor }),
                &Kind::Device { block: false, major, minor } => Body::CharDevice(DeviceNr { major, minor }),
                Kind::Fifo => Body::Fifo,
                Kind::Socket => Body::Socket,
                Kind::Link(target) => {
                    let _ = tree.link(pick(node.parent), &node.name, pick(*target));
                    continue;
                }
            };
            nodes.extend(tree.add(pick(node.parent), &node.name, attrs, body));
        }
        (tree, contents)
    }
}

fuzz_target!(|input: Input| {
    let (tree, mut contents) = input.tree();
    let _ = build(tree, &input.format(), &input.options(), &mut contents);
});
