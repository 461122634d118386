//! How images are opened: the options that all verbs have.

use blockdev::BlockDevice;
use clap::{Args, ValueEnum};
use ext2_core::SuperblockAt;
use ext2_image::packed::Backing;

use super::superblock::{SuperblockFrom, parse_superblock};
use crate::failure::{Failure, Result};

/// How images are opened, for all verbs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "How to open images")]
pub(crate) struct ImageOptions {
    /// What the image becomes: memory (with DAX), a file that is read and written by system calls, or a copy in RAM
    /// (what is written is lost)
    #[arg(long, global = true, value_name = "KIND", default_value = "mmap")]
    pub(crate) device: DeviceKind,

    /// Use a backup superblock: the first that is found where the primary one cannot be used (auto), that of a group
    /// (group:N), or in a block (BLOCK, or BLOCK:SIZE where the size of blocks is known)
    #[arg(long, global = true, value_name = "WHERE", value_parser = parse_superblock)]
    pub(crate) superblock: Option<SuperblockFrom>,

    /// What a power cut may do to an image that is being changed: nothing that e2fsck -p does not mend without a question
    /// (strict: each step reaches the disk before the next; ordered: many reach it together, through a log in the
    /// image), or anything (relaxed: the system writes as it likes). The default is strict, and ordered for copies
    #[arg(long, global = true, value_name = "HOW")]
    pub(crate) durability: Option<Durable>,

    /// Wait while another program has the image open, instead of failing
    #[arg(long, global = true)]
    pub(crate) wait: bool,

    /// Read what can be read: an image that is cut off is opened, its superblock found in a backup, and cp and cat go on
    /// past what is missing and tell what it was
    #[arg(long, global = true)]
    pub(crate) rescue: bool,

    /// Read an image whose journal needs recovery, as it is without the journal
    #[arg(long, global = true)]
    pub(crate) ignore_journal: bool,

    /// Open the files that a qcow2 image names (its backing files) wherever they are, as QEMU does; without it only those in
    /// its own folder or below
    #[arg(long, global = true)]
    pub(crate) allow_backing: bool,
}

/// What a power cut may do to an image that is being changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durable {
    /// Each step reaches the disk before the next
    Strict,
    /// Changes reach it together, through a log in the image
    Ordered,
    /// The system writes as it likes
    Relaxed,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            device: DeviceKind::Mmap,
            superblock: None,
            durability: None,
            wait: false,
            rescue: false,
            ignore_journal: false,
            allow_backing: false,
        }
    }
}

impl ImageOptions {
    /// These, with what others say more.
    pub(crate) fn or(&self, others: &Self) -> Self {
        Self {
            device: if others.device == DeviceKind::Mmap { self.device } else { others.device },
            superblock: others.superblock.or(self.superblock),
            durability: others.durability.or(self.durability),
            wait: self.wait || others.wait,
            rescue: self.rescue || others.rescue,
            ignore_journal: self.ignore_journal || others.ignore_journal,
            allow_backing: self.allow_backing || others.allow_backing,
        }
    }

    /// These for a verb that goes through a whole image: by system calls where it would be mapped. Each page of a mapping that
    /// is looked at first is a fault, around which the system reads ahead, and of a sparse image that is mostly holes.
    pub(crate) fn by_calls(&self) -> Self {
        let device = if self.device == DeviceKind::Mmap { DeviceKind::File } else { self.device };
        Self { device, ..self.clone() }
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
