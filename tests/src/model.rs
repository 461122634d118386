//! A file system in memory, as simple as can be: what the real one is held against.
//!
//! Operations are plain data, so that a failing list of them can be shrunk. Names and inodes are picked
//! by number among what is there, which keeps most operations meaningful after others are left out.

use std::collections::BTreeMap;

use ext2_core::{
    Errno, Error, Ext2, FileKind, Follow, Inode, NewInode, RenameFlags, SetAttr, Wait, XattrSet,
};

/// One operation. Numbers pick among the paths that exist; sizes and offsets are bytes.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // each is the call of its name
pub enum Op {
    Create { dir: u8, name: u8 },
    Mkdir { dir: u8, name: u8 },
    Symlink { dir: u8, name: u8, len: u16 },
    Mknod { dir: u8, name: u8 },
    Link { file: u8, dir: u8, name: u8 },
    Unlink { file: u8 },
    Rmdir { dir: u8 },
    Rename { from: u8, dir: u8, name: u8, flags: u8 },
    RenameOver { from: u8, to: u8, flags: u8 },
    Write { file: u8, offset: u32, len: u32, seed: u8 },
    Truncate { file: u8, size: u32 },
    Punch { file: u8, offset: u32, len: u32 },
    Zero { file: u8, offset: u32, len: u32 },
    SetXattr { file: u8, name: u8, len: u16 },
    RemoveXattr { file: u8, name: u8 },
    Chmod { file: u8, mode: u16 },
    Sync,
    Remount,
}

/// What the model knows of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    kind: FileKind,
    mode: u16,
    data: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The model: names to node numbers, and nodes.
#[derive(Clone, Debug, Default)]
pub struct Model {
    names: BTreeMap<String, usize>,
    nodes: Vec<Node>,
}

/// Names that operations use: short, long, and of the length that changes an entry's size.
fn name_of(nr: u8) -> String {
    match nr % 7 {
        0 => format!("f{nr}"),
        1 => format!("name-{nr}"),
        2 => format!("{nr}{}", "x".repeat(40)),
        3 => format!("{nr}{}", "y".repeat(200)),
        4 => "z".repeat(255 - 3) + &format!("{nr:03}"),
        _ => format!("a{}", nr % 16),
    }
}

fn pattern(seed: u8, offset: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| ((offset + at).wrapping_mul(2_654_435_761) >> 11) as u8 ^ seed | 1).collect()
}

impl Model {
    /// An empty file system: a root and `lost+found`.
    pub fn new() -> Self {
        let mut model = Self::default();
        model.add("/".into(), FileKind::Directory, 0o755, Vec::new());
        model.add("/lost+found".into(), FileKind::Directory, 0o700, Vec::new());
        model
    }

    fn add(&mut self, path: String, kind: FileKind, mode: u16, data: Vec<u8>) {
        self.names.insert(path, self.nodes.len());
        self.nodes.push(Node { kind, mode, data, xattrs: BTreeMap::new() });
    }

    fn paths(&self, wanted: impl Fn(&Node) -> bool) -> Vec<String> {
        self.names.iter().filter(|(_, nr)| wanted(&self.nodes[**nr])).map(|(path, _)| path.clone()).collect()
    }

    fn pick(&self, nr: u8, wanted: impl Fn(&Node) -> bool) -> Option<String> {
        let all = self.paths(wanted);
        (!all.is_empty()).then(|| all[usize::from(nr) % all.len()].clone())
    }

    fn dir(&self, nr: u8) -> String {
        self.pick(nr, |node| node.kind == FileKind::Directory).expect("the root is always there")
    }

    fn file(&self, nr: u8) -> Option<String> {
        self.pick(nr, |node| node.kind == FileKind::Regular)
    }

    fn other(&self, nr: u8) -> Option<String> {
        self.pick(nr, |node| node.kind != FileKind::Directory)
    }

    fn node(&mut self, path: &str) -> &mut Node {
        let nr = self.names[path];
        &mut self.nodes[nr]
    }

    fn children(&self, dir: &str) -> Vec<String> {
        let prefix = join(dir, "");
        let own = |path: &&String| path.starts_with(&prefix) && path.len() > prefix.len();
        self.names.keys().filter(own).cloned().collect()
    }

    fn move_tree(&mut self, from: &str, to: &str) {
        let below = self.children(from);
        for path in core::iter::once(from.to_owned()).chain(below) {
            let nr = self.names.remove(&path).expect("listed above");
            self.names.insert(format!("{to}{}", &path[from.len()..]), nr);
        }
    }

    /// How many names a node has, and for a directory how many links.
    fn links(&self, path: &str) -> u16 {
        let nr = self.names[path];
        if self.nodes[nr].kind != FileKind::Directory {
            return self.names.values().filter(|&&own| own == nr).count() as u16;
        }
        let prefix = join(path, "");
        let subdirs = self.names.iter().filter(|(name, own)| {
            name.starts_with(&prefix)
                && name.len() > prefix.len()
                && !name[prefix.len()..].contains('/')
                && self.nodes[**own].kind == FileKind::Directory
        });
        2 + subdirs.count() as u16
    }
}

fn join(dir: &str, name: &str) -> String {
    if dir == "/" { format!("/{name}") } else { format!("{dir}/{name}") }
}

fn split(path: &str) -> (&str, &str) {
    let at = path.rfind('/').expect("absolute");
    (if at == 0 { "/" } else { &path[..at] }, &path[at + 1..])
}

/// A model beside a file system.
#[derive(Debug)]
pub struct Pair {
    /// The model.
    pub model: Model,
    /// The file system.
    pub fs: Ext2,
}

impl Pair {
    /// A model beside an empty file system.
    pub fn new(fs: Ext2) -> Self {
        Self { model: Model::new(), fs }
    }

    fn at(&self, path: &str) -> Inode {
        self.fs.resolve(path.as_bytes(), Follow::No).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Does an operation on both; panics where they differ. [`Op::Remount`] is the caller's.
    pub fn run(&mut self, op: &Op) {
        match op {
            Op::Create { dir, name } => self.make(*dir, *name, FileKind::Regular),
            Op::Mkdir { dir, name } => self.make(*dir, *name, FileKind::Directory),
            Op::Mknod { dir, name } => self.make(*dir, *name, FileKind::Fifo),
            Op::Symlink { dir, name, len } => {
                let (dir, name) = (self.model.dir(*dir), name_of(*name));
                let target = vec![b't'; usize::from(*len) % 900 + 1];
                let new = NewInode::new(FileKind::Symlink, 0o777);
                let done = self.at(&dir).symlink(name.as_bytes(), &target, &new).map(drop);
                let path = join(&dir, &name);
                if self.expect(done, self.model.names.contains_key(&path).then_some(Errno::EXIST), op) {
                    self.model.add(path, FileKind::Symlink, 0o777, target);
                }
            }
            Op::Link { file, dir, name } => {
                let Some(from) = self.model.other(*file) else { return };
                let (dir, name) = (self.model.dir(*dir), name_of(*name));
                let done = self.at(&dir).link(&self.at(&from), name.as_bytes());
                let path = join(&dir, &name);
                if self.expect(done, self.model.names.contains_key(&path).then_some(Errno::EXIST), op) {
                    let nr = self.model.names[&from];
                    self.model.names.insert(path, nr);
                }
            }
            Op::Unlink { file } => {
                let Some(path) = self.model.other(*file) else { return };
                let (dir, name) = split(&path);
                let done = self.at(dir).unlink(name.as_bytes());
                if self.expect(done, None, op) {
                    self.model.names.remove(&path);
                }
            }
            Op::Rmdir { dir } => {
                let path = self.model.dir(*dir);
                if path == "/" || path == "/lost+found" {
                    return;
                }
                let (dir, name) = split(&path);
                let done = self.at(dir).rmdir(name.as_bytes());
                let full = !self.model.children(&path).is_empty();
                if self.expect(done, full.then_some(Errno::NOTEMPTY), op) {
                    self.model.names.remove(&path);
                }
            }
            Op::Rename { from, dir, name, flags } => {
                let to = join(&self.model.dir(*dir), &name_of(*name));
                self.rename(*from, &to, *flags, op);
            }
            Op::RenameOver { from, to, flags } => {
                let Some(to) = self.model.pick(*to, |_| true) else { return };
                self.rename(*from, &to, *flags, op);
            }
            Op::Write { file, offset, len, seed } => {
                let Some(path) = self.model.file(*file) else { return };
                let (offset, len) = (u64::from(*offset), *len as usize);
                let bytes = pattern(*seed, offset, len);
                let wrote = match self.at(&path).write_at(offset, &bytes) {
                    Ok(wrote) => wrote,
                    Err(error) => {
                        assert_eq!(error.errno(), Errno::NOSPC, "{op:?}");
                        0
                    }
                };
                let data = &mut self.model.node(&path).data;
                let end = offset as usize + wrote;
                if wrote > 0 {
                    data.resize(data.len().max(end), 0);
                    data[offset as usize..end].copy_from_slice(&bytes[..wrote]);
                }
            }
            Op::Truncate { file, size } => {
                let Some(path) = self.model.file(*file) else { return };
                let done = self.at(&path).truncate(u64::from(*size), Wait::Yes);
                if self.expect(done, None, op) {
                    self.model.node(&path).data.resize(*size as usize, 0);
                }
            }
            Op::Punch { file, offset, len } | Op::Zero { file, offset, len } => {
                let Some(path) = self.model.file(*file) else { return };
                let (inode, offset, len) = (self.at(&path), u64::from(*offset), u64::from(*len));
                let done = match op {
                    Op::Punch { .. } => inode.punch_hole(offset, len, Wait::Yes),
                    _ => inode.zero_range(offset, len, Wait::Yes),
                };
                if self.expect(done, None, op) {
                    let data = &mut self.model.node(&path).data;
                    let end = (offset + len).min(data.len() as u64) as usize;
                    if (offset as usize) < end {
                        data[offset as usize..end].fill(0);
                    }
                }
            }
            Op::SetXattr { file, name, len } => {
                let Some(path) = self.model.file(*file) else { return };
                let (name, value) =
                    (format!("user.n{}", name % 5).into_bytes(), vec![*name; usize::from(*len) % 300]);
                let done = self.at(&path).xattr_set(&name, &value, XattrSet::Any);
                match done {
                    Ok(()) => drop(self.model.node(&path).xattrs.insert(name, value)),
                    Err(error) => assert_eq!(error.errno(), Errno::NOSPC, "{op:?}"),
                }
            }
            Op::RemoveXattr { file, name } => {
                let Some(path) = self.model.file(*file) else { return };
                let name = format!("user.n{}", name % 5).into_bytes();
                let done = self.at(&path).xattr_remove(&name);
                let there = self.model.node(&path).xattrs.remove(&name).is_some();
                self.expect(done, (!there).then_some(Errno::NODATA), op);
            }
            Op::Chmod { file, mode } => {
                let Some(path) = self.model.pick(*file, |node| node.kind != FileKind::Symlink) else {
                    return;
                };
                let mode = mode & 0o7777;
                let done = self.at(&path).set_attr(&SetAttr { mode: Some(mode), ..SetAttr::default() });
                if self.expect(done, None, op) {
                    self.model.node(&path).mode = mode;
                }
            }
            Op::Sync => self.fs.sync().expect("sync"),
            Op::Remount => {}
        }
    }

    fn make(&mut self, dir: u8, name: u8, kind: FileKind) {
        let (dir, name) = (self.model.dir(dir), name_of(name));
        let path = join(&dir, &name);
        let done = self.at(&dir).create(name.as_bytes(), &NewInode::new(kind, 0o640)).map(drop);
        let there = self.model.names.contains_key(&path).then_some(Errno::EXIST);
        if self.expect(done, there, &path) {
            // The set-group-id bit of a directory goes on to those in it.
            let inherited = if kind == FileKind::Directory { self.model.node(&dir).mode & 0o2000 } else { 0 };
            self.model.add(path, kind, 0o640 | inherited, Vec::new());
        }
    }

    fn rename(&mut self, from: u8, to: &str, flags: u8, op: &Op) {
        let Some(from) = self.model.pick(from, |_| true) else { return };
        let special = ["/", "/lost+found"];
        if special.contains(&from.as_str()) || special.contains(&to) {
            return;
        }
        let flags =
            [RenameFlags::empty(), RenameFlags::NOREPLACE, RenameFlags::EXCHANGE][usize::from(flags) % 3];
        let ((old_dir, old), (new_dir, new)) = (split(&from), split(to));
        let done =
            self.fs.rename(&self.at(old_dir), old.as_bytes(), &self.at(new_dir), new.as_bytes(), flags);
        let is_dir = |path: &str| self.model.nodes[self.model.names[path]].kind == FileKind::Directory;
        let there = self.model.names.contains_key(to);
        let into = |outer: &str, inner: &str| inner.starts_with(&join(outer, ""));
        // The order of Linux's `do_renameat2`.
        let expected = if there && flags == RenameFlags::NOREPLACE {
            Some(Errno::EXIST)
        } else if !there && flags == RenameFlags::EXCHANGE {
            Some(Errno::NOENT)
        } else if is_dir(&from) && into(&from, to) {
            Some(Errno::INVAL)
        } else if !there {
            None
        } else if is_dir(to) && into(to, &from) && flags != RenameFlags::EXCHANGE {
            Some(Errno::NOTEMPTY)
        } else if self.model.names[&from] == self.model.names[to] {
            None
        } else if flags == RenameFlags::EXCHANGE {
            (is_dir(to) && into(to, &from)).then_some(Errno::INVAL)
        } else {
            match (is_dir(&from), is_dir(to)) {
                (true, true) => (!self.model.children(to).is_empty()).then_some(Errno::NOTEMPTY),
                (true, false) => Some(Errno::NOTDIR),
                (false, true) => Some(Errno::ISDIR),
                (false, false) => None,
            }
        };
        if !self.expect(done, expected, op) {
            return;
        }
        if there && self.model.names[&from] == self.model.names[to] {
            return;
        }
        if flags == RenameFlags::EXCHANGE {
            self.model.move_tree(&from, "/exchange-is-under-way");
            self.model.move_tree(to, &from);
            self.model.move_tree("/exchange-is-under-way", to);
        } else {
            self.model.names.remove(to);
            self.model.move_tree(&from, to);
        }
    }

    /// Whether it worked; panics where it should not have, or the other way round. Running out of space
    /// is always allowed, and then nothing has changed.
    fn expect(&self, done: Result<(), Error>, expected: Option<Errno>, op: &impl core::fmt::Debug) -> bool {
        match (done, expected) {
            (Ok(()), None) => true,
            (Ok(()), Some(errno)) => panic!("{op:?} worked, but {errno:?} was expected"),
            (Err(error), _) if error.errno() == Errno::NOSPC => false,
            (Err(error), Some(errno)) => {
                assert_eq!(error.errno(), errno, "{op:?}: {error}");
                false
            }
            (Err(error), None) => panic!("{op:?}: {error}"),
        }
    }

    /// Compares everything: names, kinds, link counts, contents, attributes.
    pub fn compare(&self) {
        let mut seen = BTreeMap::new();
        let mut left = vec![("/".to_owned(), self.fs.root().expect("root"))];
        let mut node_of = BTreeMap::new();
        while let Some((path, inode)) = left.pop() {
            let attr = inode.attr();
            let nr = *self.model.names.get(&path).unwrap_or_else(|| panic!("{path} is not in the model"));
            let node = &self.model.nodes[nr];
            assert_eq!((attr.kind, attr.mode), (node.kind, node.mode), "{path}");
            assert_eq!(attr.links, self.model.links(&path), "links of {path}");
            assert_eq!(*node_of.entry(nr).or_insert(attr.nr), attr.nr, "{path} is another inode");
            match node.kind {
                FileKind::Regular => {
                    let mut data = vec![0xa5; node.data.len() + 1];
                    let read = inode.read_at(0, &mut data).unwrap_or_else(|error| panic!("{path}: {error}"));
                    assert_eq!(read, node.data.len(), "size of {path}");
                    if let Some(at) = (0..read).find(|&at| data[at] != node.data[at]) {
                        panic!("{path} differs at byte {at}: {} and not {}", data[at], node.data[at]);
                    }
                }
                FileKind::Symlink => assert_eq!(inode.read_link().expect("target"), node.data, "{path}"),
                FileKind::Directory => {
                    for entry in inode.entries(0).expect("a directory") {
                        let entry = entry.unwrap_or_else(|error| panic!("{path}: {error}"));
                        if entry.name != b"." && entry.name != b".." {
                            let name = String::from_utf8(entry.name).expect("the model's names");
                            let child =
                                self.fs.inode(entry.nr).unwrap_or_else(|error| panic!("{name}: {error}"));
                            left.push((join(&path, &name), child));
                        }
                    }
                }
                _ => {}
            }
            let xattrs: BTreeMap<_, _> = inode.xattrs().expect("attributes").into_iter().collect();
            assert_eq!(xattrs, node.xattrs, "attributes of {path}");
            assert!(seen.insert(path.clone(), ()).is_none(), "{path} is there twice");
        }
        let missing: Vec<_> = self.model.names.keys().filter(|path| !seen.contains_key(*path)).collect();
        assert!(missing.is_empty(), "missing: {missing:?}");
    }
}
