//! Images to begin with, made by the library itself.

use std::sync::Arc;

use blockdev::RamDevice;
use ext2_core::{BlockSize, Timestamp};
use ext2_dax::DaxFs;
use ext2_dax::replay::{Player, Script};
use ext2_image::mkfs::{self, Format, Fresh, Inodes};
use serde::Serialize;

use crate::machines::{self, NOW};

/// One of them, as the page lists it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct SampleLine {
    id: &'static str,
    title: &'static str,
}

struct Sample {
    id: &'static str,
    title: &'static str,
    bytes: u64,
    block_size: u64,
    inodes: u64,
    script: &'static str,
}

const SAMPLES: [Sample; 3] = [
    Sample {
        id: "small",
        title: "1 MiB, blocks of 1 KiB: a bit of everything",
        bytes: 1 << 20,
        block_size: 1024,
        inodes: 64,
        script: "mkdir docs\ncreate docs/small\nwrite docs/small 0 900 1\ncreate docs/direct\nwrite docs/direct 0 12288 2\n\
                 create docs/indirect\nwrite docs/indirect 0 40960 3\ncreate sparse\nwrite sparse 0 1024 4\n\
                 write sparse 0x50000 1024 5\nlink docs/small hard\nsymlink docs/direct soft\nmkdir empty\n\
                 create gone\nwrite gone 0 5000 6\nunlink gone\n",
    },
    Sample {
        id: "units",
        title: "32 MiB, blocks of 4 KiB: what 2 MiB pages can map",
        bytes: 32 << 20,
        block_size: 4096,
        inodes: 256,
        script: "create whole\nwrite whole 0 0x400000 1\ncreate hole\ntruncate hole 0x400000\ncreate mixed\n\
                 truncate mixed 0x600000\nwrite mixed 0x200000 0x200000 2\nwrite mixed 0x401000 4096 3\n\
                 create tail\nwrite tail 0 0x280000 4\n",
    },
    Sample {
        id: "groups",
        title: "2 MiB in groups of 256 blocks: backups, bitmaps, tables",
        bytes: 2 << 20,
        block_size: 1024,
        inodes: 128,
        script: "mkdir a\nmkdir b\nmkdir a/c\ncreate a/one\nwrite a/one 0 100000 1\ncreate b/two\n\
                 write b/two 0 300000 2\ncreate a/c/three\nwrite a/c/three 0 2000 3\n",
    },
];

/// The list.
pub(crate) fn samples() -> Vec<SampleLine> {
    SAMPLES.iter().map(|sample| SampleLine { id: sample.id, title: sample.title }).collect()
}

/// The bytes of one.
///
/// # Errors
/// There is none of this name.
pub(crate) fn sample(id: &str) -> Result<Vec<u8>, String> {
    let sample =
        SAMPLES.iter().find(|sample| sample.id == id).ok_or_else(|| format!("there is no sample {id:?}"))?;
    make(sample, sample.script)
}

/// An image of 4 MiB with blocks of 1 KiB and one file, inode 12, of so many blocks.
///
/// # Errors
/// More blocks than fit.
pub(crate) fn grown(blocks: u64) -> Result<Vec<u8>, String> {
    const SAMPLE: Sample =
        Sample { id: "grown", title: "", bytes: 4 << 20, block_size: 1024, inodes: 64, script: "" };
    let bytes = blocks
        .checked_mul(1024)
        .filter(|bytes| *bytes < SAMPLE.bytes)
        .ok_or("the image has no room for that")?;
    let write = if bytes > 0 { format!("write file 0 {bytes} 1\n") } else { String::new() };
    make(&SAMPLE, &format!("create file\n{write}"))
}

fn make(sample: &Sample, script: &str) -> Result<Vec<u8>, String> {
    let id = sample.id;
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let device = Arc::new(RamDevice::new(sample.bytes).map_err(|error| text(&error))?);
    let format = Format {
        block_size: BlockSize::new(sample.block_size),
        inodes: Inodes::Count(sample.inodes),
        blocks_per_group: (id == "groups").then_some(256),
        created: Timestamp::from_secs(NOW),
        uuid: *b"e2dax-lab-image!",
        label: id.as_bytes().to_vec(),
        ..Format::default()
    };
    mkfs::format(&*device, &format, Fresh::Zeros).map_err(|error| text(&error))?;
    let ours = machines::ours();
    let ext2 = machines::open(Arc::clone(&device) as _, ours.policy)?;
    let script = Script::parse(script.as_bytes()).map_err(|error| text(&error))?;
    let mut player = Player::new(DaxFs::new(ext2.clone(), ours.options));
    let mut failed = None;
    player.play(&script, |outcome| {
        if outcome.result.starts_with("errno") {
            failed = Some(format!("{}: {}", outcome.text, outcome.result));
        }
    });
    drop(player);
    ext2.close().map_err(|error| text(&error))?;
    failed.map_or_else(|| Ok(device.to_vec()), Err)
}
