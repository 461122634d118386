//! What was promised when, and whether a tree keeps it.

use std::collections::{BTreeMap, BTreeSet};

use ext2_core::{FileKind, Timestamp};

use super::{Action, STALE, rights::Rights};
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
/// - A file that has lost its name and is still open is written as any other: where its name comes back, since nothing
///   made the loss durable, the new bytes may come with it.
/// - A truncation alone is whole: the file is the old or the new one. But not of a file of 4 GiB or more, or with
///   attributes in a block, whose truncation e2fsck does not end as we would. One that is cut from 4 GiB or more to less
///   may have the high word of its old size with the low word of the new: longer, never shorter.
/// - Mode, owners and access list are those from before an operation or from after it, and on the way the rights that
///   both give, without set-id bits where the owners change. What returned is there.
/// - A write by a user is not there with the set-id bits that it takes away.
/// - The times have, each, in either of their two fields what they had since they were last synced.
/// - What an msync returned for is there, of that file.
/// - A file that is being replaced may be in `lost+found`, under its number, and that may have been made for it. Where
///   nothing was free to make one of, it may be beside itself.
/// - Nothing else, and no byte of a stale block.
///
/// Behind a log nothing but a sync makes what returned durable; the names and the inodes that they lead to are those of one
/// moment.
#[derive(Debug)]
pub struct History {
    actions: Vec<Option<Action>>,
    trees: Vec<Tree>,
    block_size: usize,
    /// Whether e2fsck ends truncations: not of an image with a note that something failed.
    ends_truncations: bool,
    /// Whether inodes share blocks of attributes.
    shares_attributes: bool,
    /// Whether all but contents went through a log, before the first operation and after each.
    logged: Vec<bool>,
    /// Operations before which no block was free, or no inode.
    full: BTreeSet<usize>,
    /// Files without a name whose bytes were changed, by the number of the operation.
    nameless: BTreeMap<usize, Node>,
}

impl History {
    /// Begins with a durable tree.
    pub fn new(first: Tree, block_size: usize) -> Self {
        Self {
            actions: Vec::new(),
            trees: vec![first],
            block_size,
            ends_truncations: true,
            shares_attributes: false,
            full: BTreeSet::new(),
            nameless: BTreeMap::new(),
            logged: vec![false],
        }
    }

    /// Notes whether all but contents goes through a log, at the moment that was noted last.
    pub fn note_log(&mut self, is_on: bool) {
        if let Some(last) = self.logged.last_mut() {
            *last = is_on;
        }
    }

    /// The same for a device that fails: what e2fsck finds is an image that says so, and it leaves the truncation that was
    /// under way to its passes, which make the file as long as the blocks that it has.
    #[must_use]
    pub fn of_failing_device(self) -> Self {
        Self { ends_truncations: false, ..self }
    }

    /// The same for an image whose inodes share blocks of attributes: one that dies is for a moment as if it had none.
    #[must_use]
    pub fn of_shared_attributes(self) -> Self {
        Self { shares_attributes: true, ..self }
    }

    /// Adds an operation, unless it was refused, and what it led to.
    pub fn push(&mut self, action: Option<Action>, after: Tree) {
        self.actions.push(action);
        self.trees.push(after);
        self.logged.push(false);
    }

    /// The last operation changed the bytes of a file that is open and has no name: it is this now.
    pub fn note_nameless(&mut self, file: Node) {
        if let Some(last) = self.actions.len().checked_sub(1) {
            self.nameless.insert(last, file);
        }
    }

    /// The next operation finds no block free, or no inode.
    pub fn is_full(&mut self) {
        self.full.insert(self.actions.len());
    }

    /// What was there after the last operation.
    pub fn last(&self) -> &Tree {
        &self.trees[self.trees.len() - 1]
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
        for node in self.nameless.range(begin..end).map(|(_, node)| node) {
            if let Some(file) = files.get_mut(&node.inode) {
                file.writes += 1;
                file.add_content(node);
            }
        }
        for nr in begin..end {
            let Some(action) = &self.actions[nr] else { continue };
            let Some(inode) = action.data_of().and_then(|path| self.inode(nr, path)) else { continue };
            let Some(file) = files.get_mut(&inode) else { continue };
            file.writes += 1;
            // An msync that has returned: what was there before it counts no more.
            if matches!(action, Action::StoreSynced { .. } | Action::StoreLeasedSynced { .. })
                && nr < self.done(moment)
            {
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
                && is_one_store;
        }
        for nr in begin..end {
            self.add_rights(nr, begin, self.done(moment), &mut files);
        }
        self.add_times(begin, end, &mut files);
        let kept = self.kept(moment);
        if let Some(inode) = kept.filter(|_| self.shares_attributes)
            && let Some(file) = files.get_mut(&inode)
        {
            file.is_dying = true;
        }
        let is_logged = self.logged[begin..=end].iter().all(|is_on| *is_on);
        let beside = kept.and_then(|_| self.beside(moment));
        Promise { trees, paths, files, kept, beside, block_size: self.block_size, is_logged }
    }

    /// What an operation does to rights, step by step, where one is under way; of one that has returned, what it led to.
    fn add_rights<'h>(
        &'h self,
        nr: usize,
        begin: usize,
        done: usize,
        files: &mut BTreeMap<u32, Versions<'h>>,
    ) {
        let Some(action) = &self.actions[nr] else { return };
        let Some(inode) = action.rights_of().and_then(|path| self.inode(nr, path)) else { return };
        let Some(file) = files.get_mut(&inode) else { return };
        let of = |tree: &'h Tree| tree.values().find(|node| node.inode == inode);
        let (Some(before), Some(after)) = (of(&self.trees[nr]), of(&self.trees[nr + 1])) else { return };
        // A log keeps what is changed for a commit, which the loss of set-id bits makes.
        let is_strip = matches!(action, Action::StripSetid(_));
        let is_kept = !is_strip || Rights::of(before) == Rights::of(after);
        if nr < done && self.logged[done] && is_strip && is_kept {
            // There were none any more: who took them has not waited, and who writes now does.
            let since = self.trees[begin.max(nr + 1)..].iter().filter_map(of);
            file.rights.retain(|rights| {
                rights.taken_by_write() == 0 || since.clone().any(|node| Rights::of(node) == *rights)
            });
        }
        if nr < done && self.logged[done] && is_kept {
            return;
        }
        if nr < done {
            let since = self.trees[begin.max(nr + 1)..].iter().filter_map(of);
            file.rights.retain(|rights| since.clone().any(|node| Rights::of(node) == *rights));
            return;
        }
        let (from, to) = (Rights::of(before), Rights::of(after));
        file.rights.extend(from.on_the_way_to(to, before.kind));
        if matches!(action, Action::WriteByUser { .. }) && from != to {
            file.unwritten = Some((from, before));
        }
    }

    /// Times are durable with a sync, of the file or of all.
    fn add_times<'h>(&'h self, begin: usize, end: usize, files: &mut BTreeMap<u32, Versions<'h>>) {
        for (inode, file) in files {
            let is_synced = |nr: usize| match &self.actions[nr] {
                Some(Action::Sync | Action::Close) => true,
                Some(Action::Fsync(path)) => self.inode(nr, path) == Some(*inode),
                _ => false,
            };
            let since = (0..begin).rev().find(|&nr| is_synced(nr)).map_or(0, |nr| nr + 1);
            let nodes = self.trees[since..=end].iter().flat_map(BTreeMap::values);
            file.times = nodes.filter(|node| node.inode == *inode).map(|node| node.times).collect();
        }
    }

    /// The inode that is being replaced, or that dies, at a moment.
    fn kept(&self, moment: Moment) -> Option<u32> {
        let Moment::During(nr) = moment else { return None };
        match self.actions.get(nr)?.as_ref()? {
            Action::Unlink(path) => self.inode(nr, path),
            action => action.replaces().and_then(|path| self.inode(nr, path)),
        }
    }

    /// The directory of what is being replaced, where there may have been no room for a `lost+found`.
    fn beside(&self, moment: Moment) -> Option<&[u8]> {
        let Moment::During(nr) = moment else { return None };
        let target = self.actions.get(nr)?.as_ref()?.replaces().filter(|_| self.full.contains(&nr))?;
        target.rfind('/').map(|slash| &target.as_bytes()[..slash])
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
    rights: Vec<Rights<'h>>,
    /// Rights with which the file is still as it was before a write, if it is found with them.
    unwritten: Option<(Rights<'h>, &'h Node)>,
    times: Vec<[Timestamp; 2]>,
    xattrs: Vec<&'h [(Vec<u8>, Vec<u8>)]>,
    /// Whether it is about to die, and may have lost the attributes that it shared.
    is_dying: bool,
}

impl<'h> Versions<'h> {
    fn add(&mut self, node: &'h Node) {
        self.add_content(node);
        let rights = Rights::of(node);
        if !self.rights.contains(&rights) {
            self.rights.push(rights);
        }
        if !self.xattrs.contains(&&node.xattrs[..]) {
            self.xattrs.push(&node.xattrs);
        }
    }

    fn add_content(&mut self, node: &'h Node) {
        let content = (node.size, &node.content[..]);
        if !self.contents.contains(&content) {
            self.contents.push(content);
        }
    }

    /// Whether what was found is one of these, each operation there or not for itself, or on the way from one to another
    /// where the bytes are being written.
    fn fit(&self, found: &Node, block_size: u64) -> bool {
        if self.is_dying && found.xattrs.is_empty() {
            let is_mode = |rights: &Rights<'_>| (rights.mode, rights.uid, rights.gid) == owned(found);
            if !self.rights.iter().any(is_mode) {
                return false;
            }
        } else if !self.rights.contains(&Rights::of(found)) || !self.xattrs.contains(&&found.xattrs[..]) {
            return false;
        }
        if !self.fit_times(found) {
            return false;
        }
        if let Some((_, before)) = self.unwritten.filter(|(rights, _)| *rights == Rights::of(found)) {
            return (before.size, &before.content) == (found.size, &found.content);
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
        // The size is two words: cut from 4 GiB or more to less, the low one changes first.
        let is_torn =
            sizes().any(|high| sizes().any(|low| found.size == high >> 32 << 32 | low & 0xffff_ffff));
        if found.size < shortest || found.size > longest.next_multiple_of(block_size) && !is_torn {
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

impl Versions<'_> {
    fn fit_times(&self, found: &Node) -> bool {
        (0..2).all(|which| {
            let known = self.times.iter().map(|times| fields(times[which]));
            let (seconds, rest) = fields(found.times[which]);
            known.clone().any(|known| known.0 == seconds) && known.clone().any(|known| known.1 == rest)
        })
    }
}

/// The two fields of a time, which lie in two words: 32 bits of its seconds, and the fraction with the span of 136 years.
fn fields(time: Timestamp) -> (u32, (i64, u32)) {
    // OK to cast: the lower half.
    let low = time.sec as u32;
    (low, (time.sec - i64::from(low.cast_signed()), time.nsec))
}

fn owned(node: &Node) -> (u16, u32, u32) {
    (node.mode, node.uid, node.gid)
}

/// What is promised at one moment: what the file system showed at those that a crash may lead back to.
#[derive(Debug)]
pub struct Promise<'h> {
    trees: &'h [Tree],
    /// Every path, with what it was in each of the trees.
    paths: BTreeMap<&'h [u8], Vec<Option<&'h Node>>>,
    files: BTreeMap<u32, Versions<'h>>,
    /// The inode that may be in `lost+found`, since another is about to get its name.
    kept: Option<u32>,
    /// The directory that it may be in as well.
    beside: Option<&'h [u8]>,
    block_size: usize,
    is_logged: bool,
}

impl Promise<'_> {
    /// Compares a tree that was found after a crash and repair with what is promised.
    ///
    /// # Errors
    /// What is not as promised.
    pub fn judge(&self, found: &Tree) -> Result<(), String> {
        if self.is_logged && !self.trees.iter().any(|tree| same_names(tree, found)) {
            let names: Vec<_> = found.keys().map(|path| path.escape_ascii().to_string()).collect();
            return Err(format!("the names are those of no moment: {}", names.join(" ")));
        }
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
            if !self.paths.contains_key(&path[..]) && !self.is_kept(path, node) {
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

    /// Whether a path that nobody made keeps what is being replaced.
    fn is_kept(&self, path: &[u8], node: &Node) -> bool {
        let Some(kept) = self.kept else { return false };
        if path == b"/lost+found" {
            return node.kind == FileKind::Directory && (node.mode, node.uid, node.gid) == (0o700, 0, 0);
        }
        let name = format!("/#{kept}");
        [Some(&b"/lost+found"[..]), self.beside]
            .into_iter()
            .flatten()
            .any(|dir| path == [dir, name.as_bytes()].concat())
            && node.inode == kept
            && self.files.get(&kept).is_some_and(|file| file.fit(node, self.block_size as u64))
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

/// Whether two trees have the same names, and these lead to the same inodes.
fn same_names(one: &Tree, other: &Tree) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| {
            one.0 == other.0 && (one.1.inode, one.1.kind) == (other.1.inode, other.1.kind)
        })
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
        "{:?} {:o} of {}:{} since {:?}, {} bytes ({}; crc {:08x}) with {} xattrs",
        node.kind,
        node.mode,
        node.uid,
        node.gid,
        node.times,
        node.size,
        runs.join(" "),
        crc32fast::hash(&node.content),
        node.xattrs.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(kind: FileKind, inode: u32, links: u16, content: &[u8]) -> Node {
        let times = [Timestamp { sec: 1, nsec: 0 }; 2];
        let (size, content) = (content.len() as u64, content.to_vec());
        Node { kind, mode: 0o644, uid: 0, gid: 0, times, links, inode, size, content, xattrs: Vec::new() }
    }

    fn tree(files: &[(&[u8], u32, &[u8])]) -> Tree {
        let root = (Vec::new(), node(FileKind::Directory, 2, 2, b""));
        let file = |(path, nr, content): &(&[u8], u32, &[u8])| {
            (path.to_vec(), node(FileKind::Regular, *nr, 1, content))
        };
        std::iter::once(root).chain(files.iter().map(file)).collect()
    }

    #[test]
    fn a_name_that_comes_back_may_bring_what_was_written_to_the_file_without_it() {
        let history = |is_written: bool| {
            let mut history = History::new(tree(&[(b"/a", 12, b"one"), (b"/b", 13, b"two")]), 1024);
            history.push(Some(Action::Rename("/a", "/b")), tree(&[(b"/b", 12, b"one")]));
            history.push(Some(Action::Rmdir("/nothing")), tree(&[(b"/b", 12, b"one")]));
            if is_written {
                history.note_nameless(node(FileKind::Regular, 13, 0, b"new"));
            }
            history
        };
        let found = |content| tree(&[(b"/a", 12, b"one"), (b"/b", 13, content)]);
        assert_eq!(history(true).judge(Moment::After(2), &found(b"new")), Ok(()));
        assert_eq!(history(true).judge(Moment::After(2), &found(b"two")), Ok(()));
        assert!(history(true).judge(Moment::After(2), &found(b"odd")).is_err());
        assert!(history(true).judge(Moment::After(1), &found(b"new")).is_err(), "it is not written yet");
        assert!(history(false).judge(Moment::After(2), &found(b"new")).is_err());
    }
}
