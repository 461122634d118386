//! Names: the errors and their order are those of Linux's VFS and ext2.

use std::collections::BTreeMap;

use ext2_core::{Acl, Errno, FileKind, RenameFlags};

use super::{Content, Id, Model, Node, ROOT, Verdict, Wanted};
use crate::sim::{
    Answer, Operation, Step,
    operation::name,
    perform::{new_inode, target},
};

const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;
/// Flags that a new inode takes over from its directory: of directories, of files, of others.
const INHERITED: [u32; 3] = [0x1_c2cf, 0xc2cf, 0xc0];
/// The longest name.
const NAME_MAX: usize = 255;
/// Symbolic links in one path.
const LINKS_MAX: u32 = 40;
/// Blocks that a name may take: one of the directory, and those that lead to it.
const FOR_NAME: u64 = 4;
/// Blocks that a name takes that is kept while another takes its place.
const FOR_KEPT: u64 = 8;

fn no<T>(errno: Errno) -> Wanted<T> {
    Err(errno.into())
}

/// A name that may be made or removed.
fn check_name(name: &[u8]) -> Wanted {
    match name {
        b"" => no(Errno::NOENT),
        long if long.len() > NAME_MAX => no(Errno::NAMETOOLONG),
        b"." | b".." => no(Errno::EXIST),
        name if name.contains(&b'/') => no(Errno::INVAL),
        _ => Ok(()),
    }
}

impl Model {
    pub(super) fn names_step(&mut self, step: &Step, answer: &Answer) -> Verdict {
        use Operation as O;
        let actor = step.actor;
        match &step.operation {
            O::Root { to } => self.take(actor, *to, ROOT, answer),
            O::Lookup { dir, name: nr, to } => match self.lookup(self.hand(actor, *dir), &name(*nr)) {
                Ok(id) => self.take(actor, *to, id, answer),
                Err(refusal) => self.agree(answer, Err(refusal)).map(drop),
            },
            O::LookupNr { dir, name: nr } => {
                let found = self.lookup(self.hand(actor, *dir), &name(*nr));
                let nr = found.map(|id| u64::from(self.node(id).nr));
                self.same(answer, nr.map(Answer::Number))
            }
            O::ByNumber { of, to } => {
                let id = self.hand(actor, *of);
                self.take(actor, *to, id, answer)
            }
            O::Resolve { path, follow, to } => match self.resolve(&[name(path[0]), name(path[1])], *follow) {
                Ok(id) => self.take(actor, *to, id, answer),
                Err(refusal) => self.agree(answer, Err(refusal)).map(drop),
            },
            O::ResolveParent { path, to } => match self.resolve_parent([name(path[0]), name(path[1])]) {
                Ok(id) => self.take(actor, *to, id, answer),
                Err(refusal) => self.agree(answer, Err(refusal)).map(drop),
            },
            O::Create { dir, name: nr, kind, mode, umask, to } => {
                let content = match kind {
                    FileKind::Regular => Content::File(0, BTreeMap::new()),
                    FileKind::Directory => Content::Directory(BTreeMap::new()),
                    _ => Content::Special,
                };
                let new = new_inode(actor, *kind, *mode, *umask);
                let dir = self.hand(actor, *dir);
                let node =
                    self.new_node(dir, *kind, content, (*mode, *umask), (new.uid, new.gid), new.device);
                self.make((actor, *to), dir, &name(*nr), node, answer)
            }
            O::Symlink { dir, name: nr, target: at, len, to } => {
                let target = target(*at, *len);
                if target.len() as u64 >= self.block.min(4096) {
                    return self.agree(answer, no(Errno::NAMETOOLONG)).map(drop);
                }
                let new = new_inode(actor, FileKind::Symlink, 0o777, 0);
                let dir = self.hand(actor, *dir);
                let content = Content::Symlink(target);
                let node =
                    self.new_node(dir, FileKind::Symlink, content, (0o777, 0), (new.uid, new.gid), None);
                self.make((actor, *to), dir, &name(*nr), node, answer)
            }
            O::Tmpfile { dir, mode, to } => {
                let dir = self.hand(actor, *dir);
                let new = new_inode(actor, FileKind::Regular, *mode, 0o022);
                let owner = (new.uid, new.gid);
                let content = Content::File(0, BTreeMap::new());
                let node = self.new_node(dir, FileKind::Regular, content, (*mode, 0o022), owner, None);
                let wanted =
                    self.directory(dir).and_then(|()| self.writable()).and_then(|()| self.insertable(dir));
                if self.agree_in(answer, wanted, 2, 1)? {
                    let id = self.add(Node { links: 0, is_linkable: true, ..node }, answer)?;
                    self.take(actor, *to, id, answer)?;
                }
                Ok(())
            }
            O::Link { of, dir, name: nr } => {
                self.link(self.hand(actor, *of), self.hand(actor, *dir), &name(*nr), answer)
            }
            O::Unlink { dir, name: nr } => self.unlink(self.hand(actor, *dir), &name(*nr), answer),
            O::Rmdir { dir, name: nr } => self.rmdir(self.hand(actor, *dir), &name(*nr), answer),
            O::Rename { dir, name: from, to_dir, to_name, flags } => {
                let (from_dir, to_dir) = (self.hand(actor, *dir), self.hand(actor, *to_dir));
                self.rename((from_dir, &name(*from)), (to_dir, &name(*to_name)), *flags, answer)
            }
            O::ReadLink { of } => {
                let wanted = match &self.node(self.hand(actor, *of)).content {
                    Content::Symlink(target) => Ok(Answer::Bytes(target.clone())),
                    _ => no(Errno::INVAL),
                };
                self.same(answer, wanted)
            }
            O::LetGo { of } => {
                self.held_mut(actor).hands[usize::from(*of)] = None;
                Ok(())
            }
            O::Walk { of } => {
                let count = self.below(self.hand(actor, *of)).len() as u64 + 1;
                match answer {
                    // Others may change it meanwhile.
                    Answer::Number(_) if self.has_threads => Ok(()),
                    _ => self.same(answer, Ok(Answer::Number(count))),
                }
            }
            O::RemoveAll { name: nr } => self.remove_all(&name(*nr), answer),
            O::BeginListing { .. } | O::List { .. } => self.listing_step(step, answer),
            _ => self.rest_step(step, answer),
        }
    }

    /// Whether an answer is this one, value and all.
    pub(super) fn same(&self, answer: &Answer, wanted: Wanted<Answer>) -> Verdict {
        match wanted {
            Ok(value) if *answer == value => Ok(()),
            Ok(value) => Err(format!("{}, and the model says {}", answer.words(), value.words())),
            Err(refusal) => self.agree(answer, Err(refusal)).map(drop),
        }
    }

    pub(super) fn directory(&self, id: Id) -> Wanted {
        if self.node(id).is_directory() { Ok(()) } else { no(Errno::NOTDIR) }
    }

    fn names(&self, dir: Id) -> &BTreeMap<Vec<u8>, Id> {
        match &self.node(dir).content {
            Content::Directory(names) => names,
            _ => panic!("the caller has a directory"),
        }
    }

    fn names_mut(&mut self, dir: Id) -> &mut BTreeMap<Vec<u8>, Id> {
        match &mut self.node_mut(dir).content {
            Content::Directory(names) => names,
            _ => panic!("the caller has a directory"),
        }
    }

    fn find(&self, dir: Id, name: &[u8]) -> Option<Id> {
        self.names(dir).get(name).copied()
    }

    /// What a name leads to.
    pub(super) fn lookup(&self, dir: Id, name: &[u8]) -> Wanted<Id> {
        self.directory(dir)?;
        match name {
            long if long.len() > NAME_MAX => no(Errno::NAMETOOLONG),
            b"." => Ok(dir),
            b".." => Ok(self.node(dir).parent),
            _ => self.find(dir, name).map_or_else(|| no(Errno::NOENT), Ok),
        }
    }

    /// What a path leads to.
    fn resolve(&self, names: &[Vec<u8>], follow: bool) -> Wanted<Id> {
        let mut rest: Vec<Vec<u8>> = names.iter().rev().cloned().collect();
        let (mut at, mut links) = (ROOT, 0);
        while let Some(name) = rest.pop() {
            self.directory(at)?;
            let next = self.lookup(at, &name)?;
            match &self.node(next).content {
                Content::Symlink(target) if follow || !rest.is_empty() => {
                    links += 1;
                    if links > LINKS_MAX {
                        return no(Errno::LOOP);
                    }
                    if target.starts_with(b"/") {
                        at = ROOT;
                    }
                    let parts = target.split(|&byte| byte == b'/').rev().filter(|part| !part.is_empty());
                    rest.extend(parts.map(<[u8]>::to_vec));
                }
                _ => at = next,
            }
        }
        Ok(at)
    }

    fn resolve_parent(&self, [first, _]: [Vec<u8>; 2]) -> Wanted<Id> {
        let dir = self.resolve(&[first], true)?;
        self.directory(dir)?;
        Ok(dir)
    }

    /// A node as it would be born in a directory.
    fn new_node(
        &self,
        dir: Id,
        kind: FileKind,
        content: Content,
        (mode, umask): (u16, u16),
        (uid, gid): (u32, u32),
        device: Option<ext2_core::DeviceNr>,
    ) -> Node {
        let parent = self.node(dir);
        let mut node =
            Node { kind, mode: mode & 0o7777, uid, gid, device, content, parent: dir, ..Node::root() };
        let default =
            parent.xattrs.get(&b"system.posix_acl_default"[..]).and_then(|list| Acl::from_user(list));
        match default.filter(|_| kind != FileKind::Symlink) {
            Some(list) => {
                let own = list.for_new(node.mode);
                node.mode = node.mode & !0o777 | own.mode();
                if !own.is_mode() {
                    node.xattrs.insert(b"system.posix_acl_access".to_vec(), own.to_user());
                }
                if kind == FileKind::Directory {
                    node.xattrs.insert(b"system.posix_acl_default".to_vec(), list.to_user());
                }
            }
            None => node.mode &= !(umask & 0o777),
        }
        if parent.mode & 0o2000 != 0 {
            node.gid = parent.gid;
            node.mode |= if kind == FileKind::Directory { 0o2000 } else { 0 };
        }
        node.flags = parent.flags
            & INHERITED[match kind {
                FileKind::Directory => 0,
                FileKind::Regular => 1,
                _ => 2,
            }];
        node.links = if kind == FileKind::Directory { 2 } else { 1 };
        (node.atime, node.mtime, node.ctime, node.crtime) = (self.now, self.now, self.now, self.now);
        node
    }

    /// Whether a directory may get a name.
    fn insertable(&self, dir: Id) -> Wanted {
        let node = self.node(dir);
        match () {
            () if node.flags & IMMUTABLE != 0 => no(Errno::PERM),
            () if node.links == 0 => no(Errno::NOENT),
            () => Ok(()),
        }
    }

    pub(super) fn changeable(&self, id: Id) -> Wanted {
        if self.node(id).flags & (IMMUTABLE | APPEND) != 0 { no(Errno::PERM) } else { Ok(()) }
    }

    fn make(&mut self, (actor, to): (u8, u8), dir: Id, name: &[u8], node: Node, answer: &Answer) -> Verdict {
        let wanted = self
            .directory(dir)
            .and_then(|()| check_name(name))
            .and_then(|()| if self.find(dir, name).is_some() { no(Errno::EXIST) } else { Ok(()) })
            .and_then(|()| self.writable())
            .and_then(|()| self.insertable(dir));
        if self.agree_in(answer, wanted, FOR_NAME + 1 + node.xattrs.len() as u64, 1)? {
            let is_directory = node.is_directory();
            let id = self.add(node, answer)?;
            self.insert(dir, name, id);
            self.node_mut(dir).links += u32::from(is_directory);
            self.take(actor, to, id, answer)?;
        }
        Ok(())
    }

    /// A name comes into a directory.
    fn insert(&mut self, dir: Id, name: &[u8], id: Id) {
        let now = self.now;
        self.names_mut(dir).insert(name.to_vec(), id);
        self.node_mut(dir).modified(now);
    }

    /// A name goes.
    fn remove(&mut self, dir: Id, name: &[u8]) {
        let now = self.now;
        self.names_mut(dir).remove(name);
        self.node_mut(dir).modified(now);
        self.name_went(dir, name);
    }

    fn link(&mut self, of: Id, dir: Id, name: &[u8], answer: &Answer) -> Verdict {
        let target = self.node(of);
        let wanted = self
            .directory(dir)
            .and_then(|()| check_name(name))
            .and_then(|()| if self.find(dir, name).is_some() { no(Errno::EXIST) } else { Ok(()) })
            .and_then(|()| self.writable())
            .and_then(|()| if target.is_directory() { no(Errno::PERM) } else { Ok(()) })
            .and_then(|()| self.insertable(dir))
            .and_then(|()| self.changeable(of))
            .and_then(|()| if target.links == 0 && !target.is_linkable { no(Errno::NOENT) } else { Ok(()) });
        if self.agree_in(answer, wanted, FOR_NAME, 0)? {
            let now = self.now;
            let target = self.node_mut(of);
            target.links += 1;
            target.is_linkable = false;
            target.changed(now);
            self.insert(dir, name, of);
        }
        Ok(())
    }

    /// One name of a node less.
    fn unname(&mut self, id: Id) {
        let now = self.now;
        let node = self.node_mut(id);
        node.links = if node.is_directory() { 0 } else { node.links - 1 };
        node.is_linkable = false;
        node.changed(now);
    }

    fn unlink(&mut self, dir: Id, name: &[u8], answer: &Answer) -> Verdict {
        let dots = if matches!(name, b"." | b"..") { no(Errno::ISDIR) } else { Ok(()) };
        let wanted = self.directory(dir).and(dots).and_then(|()| self.writable());
        let wanted = wanted.and_then(|()| check_name(name)).and_then(|()| {
            let victim = self.lookup(dir, name)?;
            self.changeable(dir).and_then(|()| self.changeable(victim))?;
            if self.node(victim).is_directory() { no(Errno::ISDIR) } else { Ok(()) }
        });
        if self.agree(answer, wanted)? {
            let victim = self.find(dir, name).expect("just found");
            self.remove(dir, name);
            self.unname(victim);
        }
        Ok(())
    }

    fn rmdir(&mut self, dir: Id, name: &[u8], answer: &Answer) -> Verdict {
        let checked = match name {
            b"." => no(Errno::INVAL),
            b".." => no(Errno::NOTEMPTY),
            _ => Ok(()),
        };
        let wanted = self.directory(dir).and(checked).and_then(|()| self.writable());
        let wanted = wanted.and_then(|()| check_name(name)).and_then(|()| {
            let victim = self.lookup(dir, name)?;
            self.changeable(dir).and_then(|()| self.changeable(victim))?;
            if !self.node(victim).is_directory() {
                return no(Errno::NOTDIR);
            }
            if self.names(victim).is_empty() { Ok(()) } else { no(Errno::NOTEMPTY) }
        });
        if self.agree(answer, wanted)? {
            let victim = self.find(dir, name).expect("just found");
            self.remove(dir, name);
            self.unname(victim);
            self.node_mut(dir).links -= 1;
        }
        Ok(())
    }

    /// All names below a directory, what is deepest last.
    fn below(&self, id: Id) -> Vec<(Id, Vec<u8>, Id)> {
        let (mut found, mut next) = (Vec::new(), vec![id]);
        while let Some(dir) = next.pop() {
            let Content::Directory(names) = &self.node(dir).content else { continue };
            found.extend(names.iter().map(|(name, &id)| (dir, name.clone(), id)));
            next.extend(names.values().filter(|id| self.node(**id).is_directory()));
        }
        found
    }

    fn remove_all(&mut self, name: &[u8], answer: &Answer) -> Verdict {
        let wanted = match name {
            b"." | b".." => no(Errno::INVAL),
            b"" => no(Errno::BUSY),
            _ => self
                .resolve(&[name.to_vec()], false)
                .and_then(|id| self.directory(id))
                .and_then(|()| self.writable()),
        };
        if !self.agree(answer, wanted)? {
            return Ok(());
        }
        let top = self.find(ROOT, name).expect("it was removed");
        let all = self.below(top);
        for (dir, name, id) in all.into_iter().rev().chain([(ROOT, name.to_vec(), top)]) {
            self.remove(dir, &name);
            self.unname(id);
            self.node_mut(dir).links -= u32::from(self.node(id).is_directory() && self.node(dir).links > 0);
        }
        Ok(())
    }

    /// Whether `id` is `below`, or above it.
    fn is_above(&self, id: Id, below: Id) -> bool {
        let mut at = below;
        while at != id && at != ROOT {
            at = self.node(at).parent;
        }
        at == id
    }

    /// Whether a rename is to be done; with whether it may be refused with `EXDEV` as well.
    fn rename_wanted(&self, from: (Id, &[u8]), to: (Id, &[u8]), flags: RenameFlags) -> Wanted<bool> {
        if flags.contains(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE) {
            return no(Errno::INVAL);
        }
        self.directory(from.0).and_then(|()| self.directory(to.0))?;
        let (old, new) = (check_name(from.1), check_name(to.1));
        let [old_dots, new_dots] =
            [&old, &new].map(|checked| checked.is_err_and(|refusal| refusal.is(Errno::EXIST)));
        if old_dots || new_dots {
            let is_there = !old_dots && flags.contains(RenameFlags::NOREPLACE);
            return no(if is_there { Errno::EXIST } else { Errno::BUSY });
        }
        self.writable()?;
        old?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let source = self.lookup(from.0, from.1)?;
        new?;
        // No name is looked up in a directory that is no more.
        if self.node(to.0).links == 0 {
            return no(Errno::NOENT);
        }
        let target = self.find(to.0, to.1);
        if target.is_some() && flags.contains(RenameFlags::NOREPLACE) {
            return no(Errno::EXIST);
        }
        if target.is_none() && exchange {
            return no(Errno::NOENT);
        }
        let is_dir = |id: Id| self.node(id).is_directory();
        if is_dir(source) && self.is_above(source, to.0) {
            return no(Errno::INVAL);
        }
        if target.is_some_and(|target| is_dir(target) && self.is_above(target, from.0)) {
            return no(if exchange { Errno::INVAL } else { Errno::NOTEMPTY });
        }
        if target == Some(source) {
            return Ok(false);
        }
        self.changeable(from.0)
            .and_then(|()| self.changeable(source))
            .and_then(|()| self.insertable(to.0))?;
        let moved = is_dir(source) || exchange && target.is_some_and(is_dir);
        let Some(target) = target else {
            // Within a block of a directory a name is changed at once; where it does not fit there, it moves.
            if self.strict_rename && moved && from.0 != to.0 && !self.has_journal {
                return no(Errno::XDEV);
            }
            return Ok(self.strict_rename && moved);
        };
        self.changeable(to.0).and_then(|()| self.changeable(target))?;
        if !exchange {
            match (is_dir(source), is_dir(target)) {
                (true, false) => return no(Errno::NOTDIR),
                (false, true) => return no(Errno::ISDIR),
                (true, true) if !self.names(target).is_empty() => return no(Errno::NOTEMPTY),
                _ => {}
            }
        }
        // A journal may have no room for it.
        match self.strict_rename && moved {
            true if !self.has_journal => no(Errno::XDEV),
            moved => Ok(moved),
        }
    }

    fn rename(&mut self, from: (Id, &[u8]), to: (Id, &[u8]), flags: RenameFlags, answer: &Answer) -> Verdict {
        let wanted = self.rename_wanted(from, to, flags);
        if let (Answer::Refused(refusal), Ok(true)) = (answer, wanted)
            && refusal.is(Errno::XDEV)
        {
            return Ok(());
        }
        if !self.agree_in(answer, wanted.map(drop), FOR_NAME + FOR_KEPT, 0)? {
            return Ok(());
        }
        let source = self.find(from.0, from.1).expect("just found");
        let target = self.find(to.0, to.1);
        if target == Some(source) {
            return Ok(());
        }
        let (now, is_dir) = (self.now, self.node(source).is_directory());
        self.remove(from.0, from.1);
        if let Some(target) = target {
            let target_is_dir = self.node(target).is_directory();
            self.remove(to.0, to.1);
            self.node_mut(to.0).links -= u32::from(target_is_dir);
            if flags.contains(RenameFlags::EXCHANGE) {
                self.insert(from.0, from.1, target);
                self.node_mut(from.0).links += u32::from(target_is_dir);
                self.node_mut(target).changed(now);
                self.node_mut(target).parent = from.0;
            } else {
                self.unname(target);
            }
        }
        self.insert(to.0, to.1, source);
        self.node_mut(from.0).links -= u32::from(is_dir);
        self.node_mut(to.0).links += u32::from(is_dir);
        self.node_mut(source).changed(now);
        self.node_mut(source).parent = to.0;
        Ok(())
    }
}
