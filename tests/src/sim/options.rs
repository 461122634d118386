//! What a seed chooses before the first operation.

use std::fmt;

use ext2_core::{Barrier, OnError, Policy};

use super::{Actor, Scene, Word, base::BEGIN};
use crate::{Rng, crash::Device, tools};

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

/// What happens in a run besides operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Plain,
    /// The actors are threads.
    Threads,
    /// Power fails at every moment.
    Crash,
    /// The device fails.
    Failing,
}

impl Mode {
    /// All of them, with the names that they go by.
    pub const ALL: [(&'static str, Self); 4] = [
        ("plain", Self::Plain),
        ("threads", Self::Threads),
        ("crash", Self::Crash),
        ("failing", Self::Failing),
    ];

    /// That of a seed. Each mode has about as much of the time as the others: a run with crashes takes as long as many of
    /// threads.
    fn of(seed: u64) -> Self {
        match Rng::named(seed, "mode").below(40) {
            0..=4 => Self::Plain,
            5..=19 => Self::Threads,
            20..=22 => Self::Crash,
            _ => Self::Failing,
        }
    }
}

/// What a run is made of. Swarm testing: each seed leaves most of the vocabulary out, so that what is left comes up
/// often.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// From which all else comes.
    pub seed: u64,
    /// What happens.
    pub mode: Mode,
    /// What it begins with.
    pub scene: Option<Scene>,
    /// Whether there is a `lost+found`.
    pub has_lost_and_found: bool,
    /// The hardware of which crashes leave states.
    pub crash: Device,
    /// A fence or flush that is left out wherever it is made.
    pub without: Option<Barrier>,
    /// From which the turns of threads come.
    pub schedule: u64,
    /// Whether everybody lets go of all but the root before threads begin, so that what loses its name is gone.
    pub forgets: bool,
    /// One turn in so many is passed on to another thread; 0: one or two turns in all, after which the others end first.
    pub switch: u64,
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
    /// Whether the file system lies in a part of the device that begins beside a multiple of 2 MiB of its memory.
    pub in_a_part: bool,
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
    /// Whether the memory is persistent.
    pub persistent: bool,
    /// Whether changes go through a log.
    pub log: bool,
    /// Whether that keeps them back, and has a journal of its own for each commit.
    pub batch: bool,
    /// Whether half of the blocks are reserved for root, and left alone.
    pub reserved: bool,
    /// Whether features that are noted when they are used first are not there yet.
    pub few_features: bool,
    /// Whether descriptors have room to grow into, which an inode of its own holds.
    pub spare_descriptors: bool,
    /// Whether the image has the journal of ext3, empty: what moves directories uses it.
    pub journal: bool,
    /// Whether files are mapped into this process, by its own page tables, where that can be.
    pub real_mappings: bool,
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
    /// Seconds since 1970 when it is opened first: when the image was made, or much less where the clock is wrong until the end.
    pub begin: i64,
}

impl Options {
    /// Those of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self::of_mode(seed, Mode::of(seed))
    }

    /// Those of a seed, if the mode is this one.
    #[must_use]
    pub fn of_mode(seed: u64, mode: Mode) -> Self {
        if mode == Mode::Plain && Rng::named(seed, "large blocks").one_in(16) {
            return Self::large(seed);
        }
        let options = Scene::choose(match mode {
            Mode::Plain => Self::plain(seed),
            Mode::Threads => Self::threads(seed),
            Mode::Crash => Self::crash(seed),
            Mode::Failing => Self::failing(seed),
        });
        // A journal has 1024 blocks at least, and its file system twice as many.
        let kib = if options.journal { options.kib.max(2 * options.block + 256) } else { options.kib };
        Self { kib, ..options }
    }

    /// Blocks that are larger than a page, so that nothing is mapped, few of them, and what mke2fs makes besides. Processes are
    /// killed there.
    fn large(seed: u64) -> Self {
        let plain = Self::plain(seed);
        let mut rng = Rng::named(seed, "large");
        let block = *rng.pick(&[8 << 10, 16 << 10, 32 << 10, 32 << 10, 64 << 10, 64 << 10]);
        let mut shares = plain.shares;
        shares.retain(|(word, _)| *word != Word::Kill);
        shares.push((Word::Kill, 8));
        Self {
            block,
            kib: (block >> 10) * *rng.pick(&[64, 128]),
            inodes: plain.inodes.max(24),
            shares,
            log: false,
            batch: false,
            journal: false,
            few_features: false,
            spare_descriptors: true,
            real_mappings: false,
            ..plain
        }
    }

    /// A large file system in memory, few names, and what is done at once or not.
    fn threads(seed: u64) -> Self {
        let plain = Self::plain(seed);
        let mut rng = Rng::named(seed, "threads");
        let mut shares = plain.shares;
        // What meets is more often of one kind than of all.
        let only = *rng.pick(&[Some(Kind::Names), Some(Kind::Names), Some(Kind::Bytes), None]);
        if let Some(kind) = only {
            shares = Word::ALL
                .iter()
                .map(|&word| (word, base_share(word) * u32::from(kind_of(word) == kind)))
                .collect();
        }
        shares.retain(|(word, share)| *share > 0 && is_at_once(*word));
        let block = if only == Some(Kind::Bytes) { 4096 } else { *rng.pick(&[1024, 4096]) };
        // Not among the draws above, so that seeds stay what they are.
        let batch = Rng::named(seed, "threads behind a log").one_in(6);
        Self {
            mode: Mode::Threads,
            switch: *rng.pick(&[2, 4, 10, 40, 0, 0]),
            block,
            kib: block,
            inodes: 64,
            backend: Backend::Ram,
            persistent: false,
            log: batch,
            batch,
            real_mappings: false,
            forgets: rng.one_in(2),
            actors: 2 + rng.below(2) as Actor,
            steps: *rng.pick(&[6, 12, 25]),
            names: *rng.pick(&[2, 3, 5]),
            reach: *rng.pick(&[5000, 20_000]),
            shares,
            ..plain
        }
    }

    /// A small file system in memory, so that a state costs little, and few operations.
    fn crash(seed: u64) -> Self {
        let plain = Self::plain(seed);
        let mut rng = Rng::named(seed, "crash");
        let (block, kib) = *rng.pick(&[(1024, 80), (1024, 96), (1024, 128), (4096, 256), (4096, 384)]);
        // What changes a block that is shared needs room for a journal.
        let kib = if plain.share_xattrs { kib * 4 } else { kib };
        // Not among the draws above, so that seeds stay what they are. A log needs room, too.
        let mut of_log = Rng::named(seed, "crash behind a log");
        let log = of_log.one_in(6);
        let batch = log && (of_log.one_in(2) || !tools::have("mke2fs"));
        let kib = if batch { kib.max(2 * block) } else { kib };
        // One that is not made for each commit lies in a journal that is there: to be made it would take an eighth of the image.
        let journal = if log { !batch } else { plain.journal };
        let mut shares = plain.shares;
        shares.retain(|(word, _)| !is_of_plain(*word));
        Self {
            mode: Mode::Crash,
            shares,
            block,
            kib,
            inodes: 32,
            backend: Backend::Ram,
            in_a_part: false,
            real_mappings: false,
            persistent: false,
            log,
            batch,
            journal,
            strict_rename: true,
            has_lost_and_found: !rng.one_in(4),
            crash: *rng.pick(&[
                Device::Lines,
                Device::Lines,
                Device::Words,
                Device::Sectors,
                Device::Program,
            ]),
            steps: *rng.pick(&[6, 12, 24]),
            names: *rng.pick(&[3, 6, 18, 20]),
            reach: *rng.pick(&[3000, 16_000]),
            ..plain
        }
    }

    /// The same, for a device that fails in the last of some operations.
    fn failing(seed: u64) -> Self {
        let mut rng = Rng::named(seed, "failing");
        let steps = 4 + rng.below(24) as u32;
        let crash = Self::crash(seed);
        Self { mode: Mode::Failing, steps, buffer_head: false, ..crash }
    }

    fn plain(seed: u64) -> Self {
        let mut rng = Rng::named(seed, "options");
        let block = *rng.pick(&[1024, 1024, 2048, 4096, 4096, 4096, 4096]);
        let kib = match block {
            1024 => *rng.pick(&[96, 128, 512, 9 << 10]),
            2048 => *rng.pick(&[256, 1024, 4096]),
            _ => *rng.pick(&[384, 1024, 4096, 16 << 10]),
        };
        let mut later = Rng::named(seed, "later words");
        let shares = Word::ALL
            .iter()
            .filter_map(|&word| {
                let share = base_share(word);
                // Not among the draws of the others, so that seeds stay what they are.
                let is_later = matches!(word, Word::Walk | Word::RemoveAll | Word::Trim);
                let rng = if is_later { &mut later } else { &mut rng };
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
        let plain = Self {
            seed,
            mode: Mode::Plain,
            scene: None,
            has_lost_and_found: rng.one_in(2),
            crash: Device::Lines,
            without: None,
            schedule: seed,
            forgets: false,
            switch: 1,
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
            in_a_part: later.one_in(4),
            policy: *rng.pick(&[Policy::Goal, Policy::Aligned]),
            share_xattrs: rng.one_in(3),
            strict_rename: rng.one_in(4),
            on_error: *rng.pick(&[OnError::Continue, OnError::RemountRo]),
            buffer_head: rng.one_in(12),
            persistent: false,
            log: false,
            batch: false,
            reserved: false,
            few_features: Rng::named(seed, "features").one_in(4),
            spare_descriptors: false,
            journal: false,
            real_mappings: false,
            actors: 1 + rng.below(3) as Actor,
            steps: *rng.pick(&[20, 60, 120, 300]),
            shares,
            names: *rng.pick(&[3, 6, 12, 20, 28, 60]),
            reach: *rng.pick(&[6000, 20_000, 60_000]),
            begin: begin(seed),
        };
        // Not among the draws above, so that seeds stay what they are.
        let real = plain.block == 4096 && plain.backend == Backend::Mmap && !plain.buffer_head;
        let persistent = plain.backend == Backend::Ram && rng.one_in(3);
        let is_copied = matches!(plain.backend, Backend::File | Backend::CachedFile);
        let log = is_copied && plain.kib >= 4096 && rng.one_in(2);
        // Two groups, of which the second has fewer inodes than there are reserved ones.
        let few = plain.block == 1024 && plain.kib > 8 << 10 && rng.one_in(2);
        let inodes = if few { 16 } else { plain.inodes };
        let journal = rng.one_in(6) && !log && !few && tools::have("mke2fs");
        let batch = log && rng.one_in(2);
        // A log lies in the journal that there is, but for one that has its own.
        let journal = journal || log && !few && rng.one_in(3) && tools::have("mke2fs");
        let mut plain = Self { real_mappings: real, persistent, log, batch, journal, inodes, ..plain };
        // What a log has not committed goes with the process.
        plain.shares.retain(|(word, _)| !(log && *word == Word::Kill));
        plain
    }

    /// The same for one actor on memory, without what is chosen besides: no scene, no log, no journal, no other way to the data.
    #[must_use]
    pub fn bare(self) -> Self {
        Self {
            scene: None,
            backend: Backend::Ram,
            in_a_part: false,
            policy: Policy::Goal,
            share_xattrs: false,
            strict_rename: false,
            on_error: OnError::Continue,
            buffer_head: false,
            persistent: false,
            log: false,
            batch: false,
            few_features: false,
            spare_descriptors: false,
            journal: false,
            real_mappings: false,
            actors: 1,
            begin: BEGIN,
            ..self
        }
    }

    /// Maps files in the address space of this process, or not.
    pub(super) fn map_for_real(&mut self, for_real: bool) {
        self.real_mappings = for_real;
        if for_real {
            (self.backend, self.persistent) = (Backend::Mmap, false);
        }
    }

    /// Whether files can be mapped where they can be changed.
    #[must_use]
    pub fn is_dax(&self) -> bool {
        self.is_memory() && !self.log
    }

    /// Whether the device is memory of which a block is a page.
    pub(super) fn is_memory(&self) -> bool {
        self.block == 4096 && !matches!(self.backend, Backend::File | Backend::CachedFile)
    }
}

/// When a run begins: of some the clock has been at 1970 when the machine was started.
fn begin(seed: u64) -> i64 {
    let mut rng = Rng::named(seed, "clock");
    if rng.one_in(12) { *rng.pick(&[0, 0, 1, 20, 1000]) } else { BEGIN }
}

/// What an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Names,
    Attributes,
    Bytes,
}

fn kind_of(word: Word) -> Kind {
    use Word as W;
    match word {
        W::Create | W::Lookup | W::LookupNr | W::Unlink | W::Rmdir | W::Link | W::Rename | W::LetGo => {
            Kind::Names
        }
        W::Symlink | W::Tmpfile | W::ByNumber | W::ReadLink | W::Root | W::Walk => Kind::Names,
        word if word >= W::Read => Kind::Bytes,
        _ => Kind::Attributes,
    }
}

/// Whether it is one for all who look on. Paths are walked and directories listed one part after another, and attributes
/// are read while others change them.
fn is_at_once(word: Word) -> bool {
    use Word as W;
    !matches!(
        word,
        W::Resolve
            | W::ResolveParent
            | W::BeginListing
            | W::List
            | W::Stat
            | W::StatFs
            | W::Remount
            | W::Close
            | W::Kill
            | W::Exit
            | W::RemoveAll
            | W::Extents
            | W::FileExtents
            | W::MapBlocks
            | W::LeaseRead
            | W::LeaseWrite
            | W::LeaseSync
    )
}

/// Whether it needs a device that is as it was stored to, whatever became of who stored.
fn is_of_plain(word: Word) -> bool {
    matches!(word, Word::Close | Word::Kill | Word::Trim | Word::RemoveAll)
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
        W::Remount | W::Exit | W::Root | W::RemoveAll | W::Trim => 1,
        _ => 2,
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "--seed {} --mode {}{}: blocks of {}, {} KiB, {} inodes of {}, {:?}{}{}{}{}{}{}{}, {:?}{}{}{}{}, {:?}, {} actors, {} steps of {} words{}",
            self.seed,
            Mode::ALL.iter().find(|(_, mode)| *mode == self.mode).map_or("", |(name, _)| name),
            self.scene.map_or(String::new(), |scene| format!(", {scene:?}")),
            self.block,
            self.kib,
            self.inodes,
            self.inode_size,
            self.backend,
            if self.in_a_part { " in part" } else { "" },
            if self.persistent { ", persistent" } else { "" },
            match (self.log, self.batch) {
                (_, true) => ", batch",
                (true, false) => ", log",
                _ => "",
            },
            if self.journal { ", journal" } else { "" },
            if self.reserved { ", reserved blocks" } else { "" },
            if self.few_features { ", few features" } else { "" },
            if self.spare_descriptors { ", spare descriptors" } else { "" },
            self.policy,
            if self.share_xattrs { ", shared attributes" } else { "" },
            if self.strict_rename { ", strict renames" } else { "" },
            if self.buffer_head { ", buffer heads" } else { "" },
            if self.real_mappings { ", real mappings" } else { "" },
            self.on_error,
            self.actors,
            self.steps,
            self.shares.len(),
            if self.begin == BEGIN { String::new() } else { format!(", {} s after 1970", self.begin) }
        )
    }
}
