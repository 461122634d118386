//! One list of operations, on a mount of the kernel's and on the library.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fmt::Write as _,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use blockdev::RamDevice;
use ext2_core::{Attr, DirEntry, Ext2, FileKind, Inode, OpenOptions, RenameFlags, Timestamp};
use ext2_dax::OpenFor;

use super::{
    attributes::{Space, attr, xattrs},
    difference::{Case, Difference, FieldCase},
    fields::{differing, is_alike, times},
    geometry::Geometry,
    hands::{Given, Kernel, kind, number},
    left_out::LeftOut,
    names::Listed,
    tally::Tally,
    trees::{Trees, more_blocks},
};
use crate::{
    golden,
    sim::{
        Answer, Model, Operation, Step, Word, World, base::BEGIN, choose::Chooser, model::Room,
        run::panic_words,
    },
    tools,
};

/// Whole trees are compared after so many steps.
const TREES_EVERY: u64 = 60;

/// Both sides of a list.
struct Both {
    geometry: Geometry,
    world: World,
    model: Model,
    kernel: Kernel,
    max_size: u64,
    /// Numbers of the kernel's inodes by ours.
    numbers: BTreeMap<u32, u32>,
    /// The times of what was looked at last: the library's and the kernel's.
    seen: BTreeMap<u32, ([Timestamp; 3], [Timestamp; 3])>,
    /// Directories in which something got another name, whose entries may lie elsewhere since.
    reordered: BTreeSet<u32>,
    /// When the list began, or a moment before: the kernel's clock of files goes by ticks.
    start: i64,
    tally: Tally,
    log: String,
}

/// What a step is about, before it.
#[derive(Default)]
struct Before {
    kind: Option<FileKind>,
    mode: u16,
    /// Attributes, as the kernel tells them.
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether a directory that is named or listed is removed.
    is_removed: bool,
    /// Whether a directory that is listed has several blocks.
    is_large: bool,
    /// Whether the entries of a directory that is listed may lie elsewhere.
    is_reordered: bool,
    /// Whether a write appends.
    appends: bool,
}

/// How a step ends.
enum End {
    /// The list goes on.
    On,
    /// The two are not equal any more, as a difference says.
    Over,
}

/// Does the list of a seed on both.
///
/// # Errors
/// What differs and is no [`Difference`], after the steps.
pub fn list(seed: u64) -> Result<Tally, String> {
    let geometry = Geometry::ALL[(seed % Geometry::ALL.len() as u64) as usize];
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = folder.path().join("kernel");
    let image = geometry.image();
    std::fs::write(&path, &image).map_err(|error| error.to_string())?;
    let options = geometry.options(seed);
    let words = |error: ext2_core::Error| error.to_string();
    let world = World::of_image(&options, &image).map_err(words)?;
    let max_size = world.ext2().max_size();
    let model = Model::new(&options, max_size, world.ext2().statfs().map_err(words)?.files_free);
    let (fs_type, options_of_mount) = geometry.mounted_as();
    let kernel = Kernel::new(path.clone(), fs_type, options_of_mount)?;
    let start = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64 - 1;
    let (numbers, seen, reordered) = (BTreeMap::from([(2, 2)]), BTreeMap::new(), BTreeSet::new());
    let (tally, log) = (Tally { lists: 1, ..Tally::default() }, String::new());
    let mut both =
        Both { geometry, world, model, kernel, max_size, numbers, seen, reordered, start, tally, log };
    let mut chooser = Chooser::new(&options, "steps");
    let went = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..options.steps {
            let step = plain(chooser.next(&both.model));
            if let End::Over = both.step(&step)? {
                both.tally.ended = 1;
                break;
            }
        }
        if both.tally.ended == 0 {
            both.trees()?;
        }
        both.finish(&path)
    }));
    let words = match went {
        Ok(Ok(())) => return Ok(both.tally),
        Ok(Err(words)) => words,
        Err(panic) => format!("panics: {}", panic_words(&*panic)),
    };
    Err(format!("seed {seed}, {geometry:?}:\n{}{words}", both.log))
}

/// The step as the kernel can do it: what must not wait depends on what is in its cache.
fn plain(mut step: Step) -> Step {
    if let Operation::FileRead { nowait, .. } | Operation::FileWrite { nowait, .. } = &mut step.operation {
        *nowait = false;
    }
    step
}

impl Both {
    fn step(&mut self, step: &Step) -> Result<End, String> {
        if let Some(why) = LeftOut::of(step, &self.model, &self.kernel, &self.geometry) {
            *self.tally.left_out.entry(why).or_default() += 1;
            return Ok(End::On);
        }
        let now = BEGIN + 1 + self.tally.operations as i64;
        self.world.clock.set(now);
        let free = self.world.ext2().statfs().map_err(|error| error.to_string())?;
        let room = Room { blocks: free.blocks_free, inodes: free.files_free };
        let _ = write!(self.log, "{}: {:?} => ", self.tally.operations, step.operation);
        let before = self.before(step);
        let ours = self.world.perform(step);
        let _ = write!(self.log, "{} | ", ours.words());
        if ours == Answer::Nothing {
            self.log.push('\n');
            return Ok(End::On);
        }
        let kernel = self.kernel.perform(step);
        // Both list as long as the library does.
        for (ours, kernel) in self.world.actors[0].listings.iter().zip(&mut self.kernel.held.listings) {
            *kernel = kernel.take().filter(|_| ours.is_some());
        }
        let _ = writeln!(self.log, "{}", kernel.words());
        self.tally.operations += 1;
        *self.tally.words.entry(step.operation.word()).or_default() += 1;
        let mut end = End::On;
        if !self.same(step, &ours, &kernel) {
            end = self.differ(step, &ours, &kernel, &before)?;
        }
        self.model.step(step, &ours, now, room).map_err(|words| format!("the model: {words}"))?;
        if let End::On = end {
            self.look(step)?;
            if self.tally.operations.is_multiple_of(TREES_EVERY) {
                self.trees()?;
            }
        }
        Ok(end)
    }

    /// What a step is about. Notes where entries come to lie elsewhere.
    fn before(&mut self, step: &Step) -> Before {
        use Operation as O;
        match step.operation {
            O::SetXattr { of, .. }
            | O::SetAcl { of, .. }
            | O::GetXattr { of, .. }
            | O::RemoveXattr { of, .. }
            | O::Acl { of, .. }
            | O::SetFlags { of, .. } => {
                let Ok(hand) = self.kernel.hand(of) else { return Before::default() };
                let Ok(Attr { kind, mode, .. }) = attr(hand) else { return Before::default() };
                Before {
                    kind: Some(kind),
                    mode,
                    xattrs: xattrs(hand).unwrap_or_default(),
                    ..Before::default()
                }
            }
            O::FileWrite { file, .. } => {
                let file = self.model.held(step.actor).files[usize::from(file)];
                let appends = file.is_some_and(|(_, open_for)| open_for == OpenFor::Appending);
                Before { appends, ..Before::default() }
            }
            O::List { listing, .. } => {
                let listed = self.kernel.held.listings[usize::from(listing)].as_ref();
                let Some(stat) = listed.and_then(|(dir, _)| rustix::fs::fstat(dir).ok()) else {
                    return Before::default();
                };
                let nr = Some(number(&stat));
                let mut reordered = self.reordered.iter();
                Before {
                    is_removed: stat.st_nlink == 0,
                    is_large: stat.st_size.unsigned_abs() > self.geometry.block,
                    is_reordered: reordered.any(|ours| self.numbers.get(ours).copied() == nr),
                    ..Before::default()
                }
            }
            O::Rename { dir, to_dir, flags, .. } => {
                let hands = &self.world.actors[0].hands;
                let nr = |hand: u8| hands[usize::from(hand)].as_ref().map(|dir| dir.nr().get());
                let within = nr(dir).filter(|nr_of| nr(to_dir) == Some(*nr_of));
                let is_exchange = flags.contains(RenameFlags::EXCHANGE);
                self.reordered.extend(within.filter(|_| !is_exchange));
                let is_removed = self.is_removed(dir) || self.is_removed(to_dir);
                Before { is_removed, ..Before::default() }
            }
            O::Lookup { dir, .. }
            | O::LookupNr { dir, .. }
            | O::Create { dir, .. }
            | O::Symlink { dir, .. }
            | O::Link { dir, .. }
            | O::Unlink { dir, .. }
            | O::Rmdir { dir, .. } => Before { is_removed: self.is_removed(dir), ..Before::default() },
            _ => Before::default(),
        }
    }

    /// Whether a hand holds a directory that is removed.
    fn is_removed(&self, hand: u8) -> bool {
        let stat = self.kernel.hand(hand).ok().and_then(|of| rustix::fs::fstat(of).ok());
        stat.is_some_and(|stat| kind(&stat) == FileKind::Directory && stat.st_nlink == 0)
    }

    /// Two answers that are not equal.
    fn differ(&mut self, step: &Step, ours: &Answer, kernel: &Given, before: &Before) -> Result<End, String> {
        let case = Case {
            step,
            ours,
            kernel,
            kind: before.kind,
            mode: before.mode,
            xattrs: &before.xattrs,
            appends: before.appends,
            is_removed: before.is_removed,
            is_large: before.is_large,
            is_reordered: before.is_reordered,
            geometry: &self.geometry,
            max_size: self.max_size,
        };
        let difference = Difference::of(&case).ok_or_else(|| {
            format!("the answers differ: {} of the library, {} of the kernel", long(ours), kernel.words())
        })?;
        let settled = difference.settle(&case, &self.kernel);
        self.note(difference);
        Ok(match settled {
            Ok(()) => End::On,
            Err(words) => {
                let _ = writeln!(self.log, "{difference:?} is not settled: {words}");
                End::Over
            }
        })
    }

    fn note(&mut self, difference: Difference) {
        let _ = writeln!(self.log, "    {difference:?}");
        *self.tally.differences.entry(difference).or_default() += 1;
    }

    /// Whether two answers are equal, but for the numbers of inodes.
    fn same(&mut self, step: &Step, ours: &Answer, kernel: &Given) -> bool {
        use Answer as A;
        let kernel = match (ours, kernel) {
            // What is free is compared after each step.
            (A::Space(ours), Given::Space(kernel)) => {
                let ours = Space::from(*ours);
                let Space { blocks_free, blocks_available, files_free, .. } = ours;
                return ours == Space { blocks_free, blocks_available, files_free, ..*kernel };
            }
            (A::Entries(ours, our_more), Given::Entries(kernel, more)) => {
                return our_more == more && self.same_entries(ours, kernel);
            }
            (_, Given::Answer(answer)) => answer,
            _ => return false,
        };
        match (ours, kernel) {
            (A::Inode(our_nr, our_kind), A::Inode(nr, kind)) => {
                let is_new = matches!(step.operation.word(), Word::Create | Word::Symlink | Word::Tmpfile);
                our_kind == kind && self.is_number(*our_nr, *nr, is_new)
            }
            (A::Number(our_nr), A::Number(nr)) if step.operation.word() == Word::LookupNr => {
                self.is_number(*our_nr as u32, *nr as u32, false)
            }
            (A::Attr(ours), A::Attr(kernel)) => self.is_number(ours.nr.get(), kernel.nr.get(), false),
            (A::Names(ours), A::Names(kernel)) => sorted(ours) == *kernel,
            (A::Xattrs(ours), A::Xattrs(kernel)) => sorted(ours) == *kernel,
            (A::Ranges(ours), A::Ranges(kernel)) => *ours == self.rounded(kernel),
            (A::StoreDied(our_died, ours), A::StoreDied(died, kernel)) => {
                our_died == died && *ours == self.rounded(kernel)
            }
            (A::Bytes(ours), A::Bytes(bytes)) => match step.operation {
                Operation::Load { map, at, .. } => self.loaded(map, at, ours) == self.loaded(map, at, bytes),
                _ => ours == bytes,
            },
            _ => ours == kernel,
        }
    }

    /// Whether two pieces of a listing are equal.
    fn same_entries(&mut self, ours: &[DirEntry], kernel: &[Listed]) -> bool {
        let both = ours.iter().map(Listed::from).zip(kernel);
        ours.len() == kernel.len()
            && both.into_iter().all(|(ours, kernel)| {
                let is_number = self.is_number(ours.nr, kernel.nr, false);
                is_number && ours == Listed { nr: ours.nr, ..kernel.clone() }
            })
    }

    /// Whole blocks, as the library tells them.
    fn rounded(&self, ranges: &[std::ops::Range<u64>]) -> Vec<std::ops::Range<u64>> {
        ranges.iter().map(|range| range.start..range.end.next_multiple_of(self.geometry.block)).collect()
    }

    /// What is the file's of bytes that were loaded: what is behind its end is whatever it was.
    fn loaded<'b>(&self, map: u8, at: u64, bytes: &'b [u8]) -> &'b [u8] {
        let Ok(map) = self.kernel.map(map) else { return bytes };
        let size = rustix::fs::fstat(map.file()).map_or(0, |stat| stat.st_size.unsigned_abs());
        let inside = size.saturating_sub(map.first + at).min(bytes.len() as u64);
        &bytes[..inside as usize]
    }

    /// Whether an inode of the library is that of the kernel.
    fn is_number(&mut self, ours: u32, kernel: u32, is_new: bool) -> bool {
        if is_new {
            self.numbers.retain(|_, other| *other != kernel);
            self.numbers.insert(ours, kernel);
            self.seen.remove(&ours);
            self.reordered.remove(&ours);
        }
        self.numbers.get(&ours) == Some(&kernel)
    }

    /// Compares what is told of all that is held, and which times have moved, and what is free.
    fn look(&mut self, step: &Step) -> Result<(), String> {
        let (mut found, mut seen) = (Vec::new(), Vec::new());
        for (what, inode, of) in self.held_once() {
            let words = |errno: rustix::io::Errno| format!("{what}: {errno}");
            let (ours, kernel) = (inode.attr(), attr(of).map_err(words)?);
            let has_xattrs = !xattrs(of).map_err(words)?.is_empty();
            let mut fields = differing(&ours, &kernel);
            fields.extend(self.moved(&ours, &kernel));
            for field in fields {
                let case = FieldCase {
                    step: Some(step),
                    field,
                    ours: &ours,
                    kernel: &kernel,
                    geometry: &self.geometry,
                    has_xattrs,
                    seen: self.seen.get(&ours.nr.get()).map(|(_, seen)| *seen),
                    is_reordered: self.reordered.contains(&ours.nr.get()),
                };
                let difference = Difference::of_field(&case)
                    .ok_or_else(|| format!("{what}: {field:?} differs: {ours:?}, kernel {kernel:?}"))?;
                difference.settle_field(&case, of)?;
                found.push(difference);
            }
            let again = attr(of).map_err(words)?;
            seen.push((ours.nr.get(), (moments(&ours), moments(&again))));
        }
        self.seen.extend(seen);
        found.into_iter().for_each(|difference| self.note(difference));
        self.space()
    }

    /// All that is held, on both sides.
    fn held(&self) -> Vec<(String, Inode, BorrowedFd<'_>)> {
        let (ours, kernel) = (&self.world.actors[0], &self.kernel.held);
        let mut all = Vec::new();
        for (nr, both) in ours.hands.iter().zip(&kernel.hands).enumerate() {
            if let (Some(inode), Some(of)) = both {
                all.push((format!("hand {nr}"), inode.clone(), of.as_fd()));
            }
        }
        for (nr, both) in ours.files.iter().zip(&kernel.files).enumerate() {
            if let (Some((file, _)), Some((of, _))) = both {
                all.push((format!("file {nr}"), file.inode().clone(), of.as_fd()));
            }
        }
        for (nr, both) in ours.mapped.iter().zip(&kernel.maps).enumerate() {
            if let (Some(inode), Some(map)) = both {
                all.push((format!("mapping {nr}"), inode.clone(), map.file()));
            }
        }
        for (nr, both) in ours.listings.iter().zip(&kernel.listings).enumerate() {
            if let (Some((inode, _)), Some((of, _))) = both {
                all.push((format!("listing {nr}"), inode.clone(), of.as_fd()));
            }
        }
        all
    }

    /// The same, each inode once.
    fn held_once(&self) -> Vec<(String, Inode, BorrowedFd<'_>)> {
        let (mut all, mut numbers) = (self.held(), BTreeSet::new());
        all.retain(|(_, inode, _)| numbers.insert(inode.nr()));
        all
    }

    /// Times that moved on one side only, or that differ otherwise.
    fn moved(&self, ours: &Attr, kernel: &Attr) -> Vec<super::fields::Field> {
        let seen = self.seen.get(&ours.nr.get());
        let mut found = Vec::new();
        for (nr, ((field, our_time), (_, time))) in times(ours).into_iter().zip(times(kernel)).enumerate() {
            let (our_moved, moved) =
                seen.map_or((true, true), |(our_seen, seen)| (our_seen[nr] != our_time, seen[nr] != time));
            // Parts of seconds that grow with every change that somebody may see: not those of reads.
            let is_exact = self.geometry.has_large_inodes() && nr > 0;
            let agrees = our_moved == moved || our_moved && !is_exact;
            if !agrees || !is_alike(our_time, time, self.start) {
                found.push(field);
            }
        }
        found
    }

    /// Compares both trees.
    fn trees(&mut self) -> Result<(), String> {
        let ext2 = self.world.ext2().clone();
        let mut trees = Trees::new(&ext2, &self.geometry, false, self.start);
        trees.reordered = self.reordered.clone();
        let compared = trees.compare(self.kernel.root());
        self.count(trees.differences);
        compared
    }

    /// Counts a comparison of two trees, and what it met.
    fn count(&mut self, differences: BTreeMap<Difference, u64>) {
        for (difference, count) in differences {
            *self.tally.differences.entry(difference).or_default() += count;
        }
        self.tally.trees += 1;
    }

    /// Compares what is free: what differs is what inodes have more or less, and directories that the kernel still has.
    fn space(&mut self) -> Result<(), String> {
        let ours = Space::from(self.world.ext2().statfs().map_err(|error| error.to_string())?);
        let kernel = self.kernel.space().map_err(|answer| answer.words())?;
        let mut more = BTreeMap::new();
        if ours != kernel {
            for (_, inode, of) in self.held_once() {
                let blocks = attr(of).map_err(|errno| errno.to_string())?.blocks_512;
                more.insert(inode.nr().get(), i64::from(blocks) - i64::from(inode.attr().blocks_512));
            }
            let root = self.world.ext2().root().map_err(|error| error.to_string())?;
            more_blocks(&root, self.kernel.root(), &mut more)?;
        }
        let more = more.values().sum::<i64>() * 512 / self.geometry.block as i64;
        let as_ours = Space {
            blocks_free: kernel.blocks_free.saturating_add_signed(more),
            blocks_available: kernel.blocks_available.saturating_add_signed(more),
            ..kernel
        };
        if ours == as_ours {
            return Ok(());
        }
        if self.has_pinned(&ours, &as_ours) {
            self.note(Difference::PinnedDirectory);
            return Ok(());
        }
        Err(format!("the space differs: {ours:?}, kernel {kernel:?}, whose inodes have {more} blocks more"))
    }

    /// Whether the kernel has so many inodes more as removed directories may be held by what was removed from them before, each with
    /// few blocks.
    fn has_pinned(&self, ours: &Space, kernel: &Space) -> bool {
        let path = |of: BorrowedFd<'_>| std::fs::read_link(format!("/proc/self/fd/{}", of.as_raw_fd())).ok();
        let root = path(self.kernel.root());
        let pinning = |(_, _, of): &(String, Inode, BorrowedFd<'_>)| {
            // Names are bytes.
            let path = path(*of)?.into_os_string().into_vec();
            let parent = Path::new(OsStr::from_bytes(path.strip_suffix(b" (deleted)")?)).parent();
            parent.map(Path::to_owned).filter(|parent| root.as_ref() != Some(parent))
        };
        let most = self.held().iter().filter_map(pinning).collect::<BTreeSet<_>>().len() as u64;
        let inodes = ours.files_free.saturating_sub(kernel.files_free);
        let blocks = ours.blocks_free.saturating_sub(kernel.blocks_free);
        let as_ours = Space {
            files_free: ours.files_free,
            blocks_free: ours.blocks_free,
            blocks_available: ours.blocks_available,
            ..*kernel
        };
        (1..=most).contains(&inodes) && (inodes..=4 * inodes).contains(&blocks) && *ours == as_ours
    }

    /// Closes and unmounts, has both images checked, and reads each with both.
    fn finish(&mut self, image: &Path) -> Result<(), String> {
        self.world.close().map_err(|error| format!("cannot be closed: {error}"))?;
        self.kernel.unmount();
        let ours = image.with_file_name("ours");
        golden::write_sparse(&ours, &self.world.bytes()).map_err(|error| error.to_string())?;
        for path in [image, &ours] {
            if let Err(said) = tools::e2fsck_fn(path) {
                if path != image || !Difference::is_stale_kind(&said, &self.geometry) {
                    return Err(format!("{}: {said}", path.display()));
                }
                self.note(Difference::StaleKind);
            }
            let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
            let device = Arc::new(RamDevice::from_bytes(&bytes).map_err(|error| error.to_string())?);
            let ext2 = Ext2::open(device, &OpenOptions::read_only()).map_err(|error| error.to_string())?;
            let mut kernel = Kernel::new(path.to_path_buf(), "ext2", ",ro")?;
            let mut trees = Trees::new(&ext2, &self.geometry, true, self.start);
            let compared = trees.compare(kernel.root());
            let differences = trees.differences;
            kernel.unmount();
            self.count(differences);
            compared.map_err(|words| format!("{} by both: {words}", path.display()))?;
        }
        Ok(())
    }
}

fn moments(attr: &Attr) -> [Timestamp; 3] {
    [attr.atime, attr.mtime, attr.ctime]
}

fn sorted<T: Ord + Clone>(items: &[T]) -> Vec<T> {
    let mut items = items.to_vec();
    items.sort();
    items
}

/// An answer with all that it has, up to some bytes.
fn long(answer: &Answer) -> String {
    match answer {
        Answer::Bytes(_) => answer.words(),
        other => format!("{other:?}"),
    }
}
