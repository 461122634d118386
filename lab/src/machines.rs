//! The machines on which a script is flown.

use std::sync::Arc;

use blockdev::{BlockDevice, RamDevice};
use ext2_core::{BlockSize, Ext2, FixedClock, OpenOptions, Policy, Timestamp};
use ext2_dax::buffer_head::HoleSize;
use ext2_dax::compat::{Compat, Holes, PmdFaults};
use ext2_dax::replay::Player;
use ext2_dax::{DataPath, DaxFs, DaxOptions, Flushing};
use ext2_image::mkfs::{self, Format, Fresh};

/// The time on all machines: that of the mail, 26 August 2016, 17:30:02 EST.
pub(crate) const NOW: i64 = 1_472_250_602;

/// One machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// A word for it: `linux-4.8`, `linux-6.1`, `e2dax`.
    pub id: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// How its files behave.
    pub options: DaxOptions,
    /// How its blocks are placed.
    pub policy: Policy,
}

/// The three machines: Linux 4.8 with buffer heads, Linux 6.1, this library.
#[must_use]
pub fn standard() -> [Machine; 3] {
    [linux_4_8(), linux_6_1(), ours()]
}

/// As the recorded machine, the device has to be asked to flush.
fn options(compat: Compat, path: DataPath) -> DaxOptions {
    DaxOptions { compat, path, media: Flushing::NeedsFlush, ..DaxOptions::default() }
}

pub(crate) fn linux_4_8() -> Machine {
    Machine {
        id: "linux-4.8",
        name: "Linux 4.8",
        about: "buffer heads: get_block, dax_do_io, dax_fault, dax_pmd_fault",
        options: options(
            Compat { pmd_faults: PmdFaults::Tried, ..Compat::LINUX_6_1 },
            DataPath::BufferHead(HoleSize::Untold),
        ),
        policy: Policy::Goal,
    }
}

pub(crate) fn linux_6_1() -> Machine {
    Machine {
        id: "linux-6.1",
        name: "Linux 6.1",
        about: "iomap, holes of one block, no faults of 2 MiB",
        options: options(Compat::LINUX_6_1, DataPath::Iomap),
        policy: Policy::Goal,
    }
}

pub(crate) fn ours() -> Machine {
    Machine {
        id: "e2dax",
        name: "this library",
        about: "iomap, holes in full, aligned blocks, faults of 2 MiB",
        options: options(Compat::FULL, DataPath::Iomap),
        policy: Policy::Aligned,
    }
}

/// This library with holes of one block.
pub(crate) fn one_block_holes() -> Machine {
    let compat = Compat { holes: Holes::OneBlock, ..Compat::FULL };
    Machine { about: "with holes of one block", options: options(compat, DataPath::Iomap), ..ours() }
}

/// This library with blocks placed as Linux places them.
pub(crate) fn goal_blocks() -> Machine {
    Machine { about: "with blocks where Linux would put them", policy: Policy::Goal, ..ours() }
}

/// Bytes of the image that flights start from, unless they say otherwise.
pub(crate) const IMAGE_SIZE: u64 = 64 << 20;

/// An empty file system of so many bytes, with blocks of 4 KiB.
pub(crate) fn empty_image(bytes: u64) -> Result<Vec<u8>, String> {
    let device = RamDevice::new(bytes).map_err(|error| error.to_string())?;
    let format = Format {
        block_size: BlockSize::new(4096),
        created: Timestamp::from_secs(NOW),
        uuid: *b"e2dax-lab-image!",
        label: b"lab".to_vec(),
        ..Format::default()
    };
    mkfs::format(&device, &format, Fresh::Zeros).map_err(|error| error.to_string())?;
    Ok(device.to_vec())
}

/// The file system on `device`, as this machine uses it.
pub(crate) fn open(device: Arc<dyn BlockDevice>, policy: Policy) -> Result<Ext2, String> {
    let clock = Arc::new(FixedClock(Timestamp::from_secs(NOW)));
    let options = OpenOptions { policy, clock: Some(clock), ..OpenOptions::default() };
    Ext2::open(device, &options).map_err(|error| error.to_string())
}

impl Machine {
    /// A program on this machine, whose disk is a copy of `image`.
    pub(crate) fn boot(&self, image: &[u8]) -> Result<Player, String> {
        let device = RamDevice::from_bytes(image).map_err(|error| error.to_string())?;
        let ext2 = open(Arc::new(device), self.policy)?;
        Ok(Player::new(DaxFs::new(ext2, self.options)))
    }
}
