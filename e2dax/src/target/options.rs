//! How images are opened: the options that all verbs have.

use blockdev::BlockDevice;
use clap::{Args, ValueEnum};
use ext2_core::SuperblockAt;
use ext2_image::packed::Backing;

use super::superblock::{SuperblockFrom, parse_superblock};
use crate::failure::{Failure, Result};

/// How images are opened, for all verbs.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "How to open images")]
pub(crate) struct ImageOptions {
    /// How the image is accessed: mapped into memory (with DAX), by read and write calls, or as a copy in
    /// RAM (changes are lost). The default is mmap, and file for verbs that read or change much of an image
    #[arg(long, global = true, value_name = "KIND")]
    pub(crate) device: Option<DeviceKind>,

    /// Use a backup superblock: the first usable one if the primary is damaged (auto), that of a group
    /// (group:N), or the one in a block (BLOCK, or BLOCK:SIZE if the block size is known)
    #[arg(long, global = true, value_name = "WHERE", value_parser = parse_superblock)]
    pub(crate) superblock: Option<SuperblockFrom>,

    /// How changes reach the disk. With strict and ordered, e2fsck -p repairs the image after a power
    /// failure without asking; with relaxed it may need help. The default is ordered for cp and the shell,
    /// strict for everything else
    #[arg(long, global = true, value_name = "HOW")]
    pub(crate) durability: Option<Durable>,

    /// Wait while another program has the image open, instead of failing
    #[arg(long, global = true)]
    pub(crate) wait: bool,

    /// Read as much as possible: open a truncated image, find a backup superblock, and let cp and cat skip
    /// what is missing and report it
    #[arg(long, global = true)]
    pub(crate) rescue: bool,

    /// Read an image whose journal needs recovery as if it had no journal
    #[arg(long, global = true)]
    pub(crate) ignore_journal: bool,

    /// Open the backing files of a qcow2 image wherever they are, as QEMU does; by default only those in
    /// its own directory or below
    #[arg(long, global = true)]
    pub(crate) allow_backing: bool,
}

/// What a power cut may do to an image that is being changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durable {
    /// Each step reaches the disk before the next
    Strict,
    /// All changes of a command or script reach the disk together, in one transaction
    Ordered,
    /// In whatever order the system writes
    Relaxed,
}

impl ImageOptions {
    /// These, with what others say more.
    pub(crate) fn or(&self, others: &Self) -> Self {
        Self {
            device: others.device.or(self.device),
            superblock: others.superblock.or(self.superblock),
            durability: others.durability.or(self.durability),
            wait: self.wait || others.wait,
            rescue: self.rescue || others.rescue,
            ignore_journal: self.ignore_journal || others.ignore_journal,
            allow_backing: self.allow_backing || others.allow_backing,
        }
    }

    /// How the image is accessed.
    pub(crate) fn device(&self) -> DeviceKind {
        self.device.unwrap_or(DeviceKind::Mmap)
    }

    /// These for a verb that goes through a whole image, or changes much of it: by system calls unless something else is
    /// asked for. Each page of a mapping that is touched first is a fault, around which the system reads ahead, and of a
    /// sparse image that is mostly holes.
    pub(crate) fn by_calls(&self) -> Self {
        Self { device: self.device.or(Some(DeviceKind::File)), ..self.clone() }
    }

    /// Where the superblock lies that is asked for.
    ///
    /// # Errors
    /// When none is there.
    pub(crate) fn superblock_on(&self, device: &dyn BlockDevice, name: &str) -> Result<SuperblockAt> {
        match self.superblock {
            None => Ok(SuperblockAt::Primary),
            Some(from) => {
                from.place(device).ok_or_else(|| Failure::broken(name, "has no backup of a superblock there"))
            }
        }
    }

    /// Which files a packed image may name.
    pub(crate) fn backing(&self) -> Backing {
        if self.allow_backing { Backing::Anywhere } else { Backing::Beside }
    }

    /// What a fence is to mean on the device.
    pub(crate) fn durability(&self) -> blockdev::Durability {
        match self.durability {
            Some(Durable::Relaxed) => blockdev::Durability::Relaxed,
            None | Some(Durable::Strict | Durable::Ordered) => blockdev::Durability::Strict,
        }
    }
}

/// What an image becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceKind {
    /// Memory, with DAX
    Mmap,
    /// System calls, no DAX
    File,
    /// A copy in RAM
    Ram,
}
