//! What was promised when, and whether a tree keeps it.

use std::collections::{BTreeMap, BTreeSet};

use ext2_core::FileKind;

use super::{Action, STALE};
use crate::tree::{LARGEST, Node, Tree};

/// Bytes that are compared at a time.
const LINE: usize = 64;

/// A moment of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// So many operations have returned, and none is under way.
    After(usize),
    /// So many have returned, and the next has begun.
    During(usize),
}

/// What the file system showed before the first operation and after each.
///
/// # What is promised
/// - What an fsync or sync returned for is there: a fence is one for all that was stored before it.
/// - What was done since may be there or not, each operation for itself, but none halfway: a path is what it was at one
///   of these moments; one that was there all the time is there; a file that had a name all the time has one.
/// - Only a file that is being written may be in between: of a length between those it had (or up to the end of its
///   last block), and at each place with a byte that it had there, or zero where it ended before.
/// - A truncation alone is whole: the file is the old or the new one. But not of a file of 4 GiB or more, with attributes
///   in a block, or with blocks that no sync has noted in the bitmaps, whose truncation e2fsck does not end as we would.
/// - What an msync returned for is there, of that file.
/// - Nothing else, and no byte of a stale block.
#[derive(Debug)]
pub struct History {
    actions: Vec<Option<Action>>,
    trees: Vec<Tree>,
    block_size: usize,
    /// Whether e2fsck ends truncations: not of an image with a note that something failed.
    ends_truncations: bool,
}

impl History {
    /// Begins with a durable tree.
    pub fn new(first: Tree, block_size: usize) -> Self {
        Self { actions: Vec::new(), trees: vec![first], block_size, ends_truncations: true }
    }

    /// The same for a device that fails: what e2fsck finds is an image that says so, and it leaves the truncation that was
    /// under way to its passes, which make the file as long as the blocks that it has.
    #[must_use]
    pub fn of_failing_device(self) -> Self {
        Self { ends_truncations: false, ..self }
    }

    /// Adds an operation, unless it was refused, and what it led to.
    pub fn push(&mut self, action: Option<Action>, after: Tree) {
        self.actions.push(action);
        self.trees.push(after);
    }

    /// The operations that may be there or not, as numbers: from the last fsync to the one under way.
    fn window(&self, moment: Moment) -> (usize, usize) {
        let (done, end) = match moment {
            Moment::After(done) => (done, done),
            Moment::During(done) => (done, done + 1),
        };
        let done = done.min(self.actions.len());
        let is_barrier =
            |action: &Option<Action>| matches!(action, Some(Action::Fsync(_) | Action::Sync | Action::Close));
        let begun = self.actions[..done].iter().rposition(is_barrier).map_or(0, |at| at + 1);
        (begun, end.min(self.actions.len()))
    }

    /// Compares a tree that was found after a crash and repair with what is promised at a moment.
    ///
    /// # Errors
    /// What is not as promised.
    pub fn judge(&self, moment: Moment, found: &Tree) -> Result<(), String> {
        self.promise(moment).judge(found)
    }

    /// What is promised at a moment.
    pub fn promise(&self, moment: Moment) -> Promise<'_> {
        let (begin, end) = self.window(moment);
        let trees = &self.trees[begin..=end];
        let mut paths = BTreeMap::<&[u8], Vec<Option<&Node>>>::new();
        let mut files = BTreeMap::<u32, Versions<'_>>::new();
        for (nr, tree) in trees.iter().enumerate() {
            for (path, node) in tree {
                let known = paths.entry(path).or_default();
                known.resize(nr, None);
                known.push(Some(node));
                let file = files.entry(node.inode).or_default();
                file.seen += usize::from(file.seen == nr);
                file.add(node);
            }
        }
        paths.values_mut().for_each(|known| known.resize(trees.len(), None));
        for nr in begin..end {
            let Some(action) = &self.actions[nr] else { continue };
            let Some(inode) = action.data_of().and_then(|path| self.inode(nr, path)) else { continue };
            let Some(file) = files.get_mut(&inode) else { continue };
            file.writes += 1;
            // An msync that has returned: what was there before it counts no more.
            if matches!(action, Action::StoreSynced { .. }) && nr < self.done(moment) {
                let since = trees[nr + 1 - begin..].iter().flat_map(BTreeMap::values);
                let fresh = Versions { seen: file.seen, writes: file.writes, ..Versions::default() };
                *file = since.filter(|node| node.inode == inode).fold(fresh, |mut file, node| {
                    file.add(node);
                    file
                });
            }
            let is_one_store = file.contents.iter().all(|(size, _)| size >> 32 == 0);
            let has_xattrs = file.xattrs.iter().any(|xattrs| !xattrs.is_empty());
            file.is_whole = self.ends_truncations
                && matches!(action, Action::Truncate { .. })
                && file.writes == 1
                && !has_xattrs
                && is_one_store
                && self.is_in_bitmaps(begin, inode);
        }
        Promise { trees, paths, files, block_size: self.block_size }
    }

    /// How many operations have returned.
    fn done(&self, moment: Moment) -> usize {
        let (Moment::After(done) | Moment::During(done)) = moment;
        done.min(self.actions.len())
    }

    /// The inode of a path before an operation.
    fn inode(&self, nr: usize, path: &str) -> Option<u32> {
        Some(self.trees[nr].get(path.as_bytes())?.inode)
    }

    /// Whether the bitmaps on the device know all blocks of an inode: it had them at the last sync before an operation, or
    /// at the beginning. (e2fsck does not end the truncation of others.)
    fn is_in_bitmaps(&self, nr: usize, inode: u32) -> bool {
        let is_sync = |action: &Option<Action>| matches!(action, Some(Action::Sync));
        let synced = self.actions[..nr].iter().rposition(is_sync).map_or(0, |at| at + 1);
        let was_there = self.trees[synced].values().any(|node| node.inode == inode);
        was_there
            && (synced..nr).all(|nr| {
                let path = self.actions[nr].as_ref().and_then(Action::data_of);
                path.and_then(|path| self.inode(nr, path)) != Some(inode)
            })
    }
}

/// What a file was at the moments that a crash may lead back to.
#[derive(Debug, Default)]
struct Versions<'h> {
    /// At how many of these moments, from the first on, it had a name.
    seen: usize,
    /// Operations on its bytes.
    writes: usize,
    /// Whether it is the one or the other and nothing between, though it is being written.
    is_whole: bool,
    contents: Vec<(u64, &'h [u8])>,
    modes: Vec<u16>,
    xattrs: Vec<&'h [(Vec<u8>, Vec<u8>)]>,
}

impl<'h> Versions<'h> {
    fn add(&mut self, node: &'h Node) {
        let content = (node.size, &node.content[..]);
        if !self.contents.contains(&content) {
            self.contents.push(content);
        }
        if !self.modes.contains(&node.mode) {
            self.modes.push(node.mode);
        }
        if !self.xattrs.contains(&&node.xattrs[..]) {
            self.xattrs.push(&node.xattrs);
        }
    }

    /// Whether what was found is one of these, each operation there or not for itself, or on the way from one to another
    /// where the bytes are being written.
    fn fit(&self, found: &Node, block_size: u64) -> bool {
        // A write takes set-id bits away, which may be there already or not yet.
        let mask = if self.writes > 0 { 0o1777 } else { u16::MAX };
        if !self.modes.iter().any(|mode| mode & mask == found.mode & mask)
            || !self.xattrs.contains(&&found.xattrs[..])
        {
            return false;
        }
        if self.contents.contains(&(found.size, &found.content)) {
            return true;
        }
        if self.writes == 0 || self.is_whole || found.kind != FileKind::Regular {
            return false;
        }
        let sizes = || self.contents.iter().map(|(size, _)| *size);
        let (shortest, longest) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
        // e2fsck makes a file as long as its last block where blocks lie past its end.
        if found.size < shortest || found.size > longest.next_multiple_of(block_size) {
            return false;
        }
        // Of very large files only the size is known.
        if sizes().any(|size| size > LARGEST) {
            return true;
        }
        // Most of it is whole lines of one version; only what is torn is compared by the byte.
        (0..).step_by(LINE).zip(found.content.chunks(LINE)).all(|(start, line)| {
            self.contents.iter().any(|(_, version)| version.get(start..start + line.len()) == Some(line))
                || line.iter().zip(start..).all(|(&byte, at)| {
                    self.contents.iter().any(|(_, version)| version.get(at).copied().unwrap_or(0) == byte)
                })
        })
    }
}

/// What is promised at one moment: what the file system showed at those that a crash may lead back to.
#[derive(Debug)]
pub struct Promise<'h> {
    trees: &'h [Tree],
    /// Every path, with what it was in each of the trees.
    paths: BTreeMap<&'h [u8], Vec<Option<&'h Node>>>,
    files: BTreeMap<u32, Versions<'h>>,
    block_size: usize,
}

impl Promise<'_> {
    /// Compares a tree that was found after a crash and repair with what is promised.
    ///
    /// # Errors
    /// What is not as promised.
    pub fn judge(&self, found: &Tree) -> Result<(), String> {
        for (path, known) in &self.paths {
            let name = path.escape_ascii();
            let Some(node) = found.get(*path) else {
                if known.iter().all(Option::is_some) {
                    return Err(format!("{name} is gone"));
                }
                continue;
            };
            let fits = |known: &&Node| {
                let versions = self.files.get(&known.inode);
                known.kind == node.kind && versions.is_some_and(|all| all.fit(node, self.block_size as u64))
            };
            if !known.iter().flatten().any(fits) {
                let known: Vec<String> = known.iter().map(|known| show(*known)).collect();
                return Err(format!("{name} is {}, and was {}", show(Some(node)), known.join(", then ")));
            }
        }
        for (path, node) in found {
            if node.kind == FileKind::Regular && node.content.contains(&STALE) {
                return Err(format!("{} shows stale bytes", path.escape_ascii()));
            }
            // What is to be replaced is kept reachable there until it may go.
            if !self.paths.contains_key(&path[..]) && !path.starts_with(b"/lost+found/") {
                return Err(format!("{} was never there", path.escape_ascii()));
            }
        }
        let there: BTreeSet<u32> = found.values().map(|node| node.inode).collect();
        let always = self.files.iter().filter(|(_, file)| file.seen == self.trees.len());
        if let Some((lost, _)) = always.into_iter().find(|(inode, _)| !there.contains(inode)) {
            return Err(format!("inode {lost} has no name any more"));
        }
        check_links(found)
    }

    /// Compares less of it: every file that was there at all these moments is found with its bytes, under whatever
    /// name, and no byte of a stale block.
    ///
    /// # Errors
    /// What is lost.
    pub fn judge_contents(&self, found: &Tree) -> Result<(), String> {
        let [first, rest @ ..] = self.trees else { return Ok(()) };
        for (path, node) in first.iter().filter(|(_, node)| node.kind != FileKind::Directory) {
            let is_same = |other: &&Node| other.inode == node.inode && other.content == node.content;
            let is_lasting = rest.iter().all(|tree| tree.values().any(|other| is_same(&other)));
            if is_lasting && !found.values().any(|other| is_same(&other)) {
                return Err(format!("{} is lost", path.escape_ascii()));
            }
        }
        for (path, node) in found {
            if node.kind == FileKind::Regular && node.content.contains(&STALE) {
                return Err(format!("{} shows stale bytes", path.escape_ascii()));
            }
        }
        Ok(())
    }
}

/// Every file has as many links as names, every directory two and one for each directory in it.
fn check_links(tree: &Tree) -> Result<(), String> {
    let mut names = BTreeMap::<u32, u16>::new();
    for (path, node) in tree {
        *names.entry(node.inode).or_default() += 1;
        if node.kind == FileKind::Directory {
            *names.entry(node.inode).or_default() += 1;
            if let Some(slash) = path.iter().rposition(|byte| *byte == b'/')
                && let Some(parent) = tree.get(&path[..slash])
            {
                *names.entry(parent.inode).or_default() += 1;
            }
        }
    }
    for (path, node) in tree {
        let counted = names.get(&node.inode).copied().unwrap_or(0);
        if node.links != counted {
            return Err(format!("{} has {} links and {counted} names", path.escape_ascii(), node.links));
        }
    }
    Ok(())
}

fn show(node: Option<&Node>) -> String {
    let Some(node) = node else { return "not there".to_owned() };
    let runs = node.content.chunk_by(|a, b| (*a == 0) == (*b == 0));
    let runs: Vec<String> =
        runs.map(|run| format!("{}{}", if run[0] == 0 { "0*" } else { "x*" }, run.len())).collect();
    format!(
        "{:?} {:o} of {} bytes ({}; crc {:08x}) with {} xattrs",
        node.kind,
        node.mode,
        node.size,
        runs.join(" "),
        crc32fast::hash(&node.content),
        node.xattrs.len()
    )
}
