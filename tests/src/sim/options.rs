//! What a seed chooses before the first operation.

use std::fmt;

use ext2_core::{OnError, Policy};

use super::{Actor, Word};
use crate::Rng;

/// The device that the file system lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // devices of their names
pub enum Backend {
    Ram,
    Overlay,
    Counted,
    CachedFile,
    File,
    Mmap,
}

/// What a run is made of. Swarm testing: each seed leaves most of the vocabulary out, so that what is left comes up
/// often.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// From which all else comes.
    pub seed: u64,
    /// Bytes of a block.
    pub block: u64,
    /// KiB of the image.
    pub kib: u64,
    /// Bytes of an inode.
    pub inode_size: u16,
    /// Inodes.
    pub inodes: u64,
    /// The device.
    pub backend: Backend,
    /// How blocks are placed.
    pub policy: Policy,
    /// Whether equal attributes share a block.
    pub share_xattrs: bool,
    /// Whether directories may be moved although there is no journal.
    pub strict_rename: bool,
    /// What becomes of the file system on errors.
    pub on_error: OnError,
    /// Whether files are reached through the DAX layer as it was before iomap.
    pub buffer_head: bool,
    /// How many take part.
    pub actors: Actor,
    /// Operations.
    pub steps: u32,
    /// How often each word comes up, against the others; most never do.
    pub shares: Vec<(Word, u32)>,
    /// How many of the names are used.
    pub names: u8,
    /// The longest offset that is chosen near the beginning of a file.
    pub reach: u64,
}

impl Options {
    /// Those of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::named(seed, "options");
        let block = *rng.pick(&[1024, 1024, 2048, 4096, 4096, 4096, 4096]);
        let kib = match block {
            1024 => *rng.pick(&[96, 128, 512, 9 << 10]),
            2048 => *rng.pick(&[256, 1024, 4096]),
            _ => *rng.pick(&[384, 1024, 4096, 16 << 10]),
        };
        let shares = Word::ALL
            .iter()
            .filter_map(|&word| {
                let share = base_share(word);
                let factor = match rng.below(8) {
                    0..=2 => 0,
                    3 | 4 => 1,
                    5 | 6 => 4,
                    _ => 16,
                };
                // Without these there is nothing to do anything with.
                let factor = if is_needed(word) { factor.max(2) } else { factor };
                (share * factor > 0).then_some((word, share * factor))
            })
            .collect();
        Self {
            seed,
            block,
            kib,
            inode_size: *rng.pick(&[128, 256, 256]),
            inodes: *rng.pick(&[24, 64, 128]),
            backend: *rng.pick(&[
                Backend::Ram,
                Backend::Ram,
                Backend::Ram,
                Backend::Ram,
                Backend::Overlay,
                Backend::Counted,
                Backend::CachedFile,
                Backend::File,
                Backend::Mmap,
            ]),
            policy: *rng.pick(&[Policy::Goal, Policy::Aligned]),
            share_xattrs: rng.one_in(3),
            strict_rename: rng.one_in(4),
            on_error: *rng.pick(&[OnError::Continue, OnError::RemountRo]),
            buffer_head: rng.one_in(12),
            actors: 1 + rng.below(3) as Actor,
            steps: *rng.pick(&[20, 60, 120, 300]),
            shares,
            names: *rng.pick(&[3, 6, 12, 20, 28, 60]),
            reach: *rng.pick(&[6000, 20_000, 60_000]),
        }
    }

    /// Whether files can be mapped.
    #[must_use]
    pub fn is_dax(&self) -> bool {
        self.block == 4096 && !matches!(self.backend, Backend::File | Backend::CachedFile)
    }
}

fn is_needed(word: Word) -> bool {
    matches!(word, Word::Create | Word::Lookup | Word::Write | Word::Open | Word::Map)
}

/// How often a word comes up where nothing is left out.
fn base_share(word: Word) -> u32 {
    use Word as W;
    match word {
        W::Create | W::Write | W::FileWrite | W::Store => 12,
        W::Lookup | W::Rename | W::Unlink | W::Link | W::List | W::Load | W::Open | W::Map | W::Truncate => 6,
        W::FileRead | W::Read | W::FileTruncate | W::Punch | W::FilePunch | W::BeginListing => 5,
        W::Stat | W::Rmdir | W::SetXattr | W::LetGo | W::Zero | W::FileZero | W::Lease | W::LeaseRead => 4,
        W::Remount | W::Exit | W::Root => 1,
        _ => 2,
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "--seed {}: blocks of {}, {} KiB, {} inodes of {}, {:?}, {:?}{}{}{}, {:?}, {} actors, {} steps of {} words",
            self.seed,
            self.block,
            self.kib,
            self.inodes,
            self.inode_size,
            self.backend,
            self.policy,
            if self.share_xattrs { ", shared attributes" } else { "" },
            if self.strict_rename { ", strict renames" } else { "" },
            if self.buffer_head { ", buffer heads" } else { "" },
            self.on_error,
            self.actors,
            self.steps,
            self.shares.len()
        )
    }
}
