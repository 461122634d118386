//! Modes, owners, times, flags, extended attributes and access control lists.

use ext2_core::{Acl, AclKind, Attr, Errno, FileKind, Timestamp};

use super::{Content, Id, Model, Node, Verdict, Wanted};
use crate::sim::{
    Answer, Operation, Step,
    operation::xattr_name,
    perform::{acl, acl_name},
};

const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;
/// Flags that `chattr` may change.
const MODIFIABLE: u32 = 0x3_80ff;

fn no<T>(errno: Errno) -> Wanted<T> {
    Err(errno.into())
}

impl Model {
    pub(super) fn attributes_step(&mut self, step: &Step, answer: &Answer) -> Verdict {
        use Operation as O;
        let actor = step.actor;
        let now = self.now;
        match &step.operation {
            O::Stat { of } => self.stat(self.hand(actor, *of), answer),
            O::StatFs => {
                let Answer::Space(space) = answer else { return Err(format!("{answer:?}")) };
                let used = self.nodes.len() as u64 - 1;
                // Read-only, the number is the one that was written last.
                if space.files_free + used != self.inodes && !self.read_only {
                    return Err(format!(
                        "{} of {} inodes are free, and {used} in use",
                        space.files_free, self.inodes
                    ));
                }
                Ok(())
            }
            O::Chmod { of, mode } => {
                let id = self.hand(actor, *of);
                if self.agree_in(answer, self.cuttable(id), self.for_xattrs(id), 0)? {
                    self.set_mode(id, *mode);
                    self.node_mut(id).changed(now);
                }
                Ok(())
            }
            O::Chown { of, uid, gid, mode } => {
                let id = self.hand(actor, *of);
                let blocks = if mode.is_some() { self.for_xattrs(id) } else { 0 };
                if self.agree_in(answer, self.cuttable(id), blocks, 0)? {
                    if let Some(mode) = mode {
                        self.set_mode(id, *mode);
                    }
                    let node = self.node_mut(id);
                    (node.uid, node.gid) = (uid.unwrap_or(node.uid), gid.unwrap_or(node.gid));
                    node.changed(now);
                }
                Ok(())
            }
            O::SetTimes { of, atime, mtime } => {
                let id = self.hand(actor, *of);
                if self.agree(answer, self.cuttable(id))? {
                    // The nearest that the inode has room for.
                    let most = if self.has_crtime { (1 << 34) - (1 << 31) - 1 } else { i64::from(i32::MAX) };
                    let held = |time: &i64| (*time).clamp(i64::from(i32::MIN), most);
                    let (atime, mtime) = (atime.as_ref().map(held), mtime.as_ref().map(held));
                    let node = self.node_mut(id);
                    node.atime = atime.unwrap_or(node.atime);
                    if let Some(mtime) = mtime {
                        node.mtime = mtime;
                        node.perhaps.clear();
                    }
                    node.changed(now);
                }
                Ok(())
            }
            O::Touch { of } => {
                let id = self.hand(actor, *of);
                let immutable = self.node(id).flags & IMMUTABLE != 0;
                let wanted = self.writable().and_then(|()| if immutable { no(Errno::PERM) } else { Ok(()) });
                if self.agree(answer, wanted)? {
                    let node = self.node_mut(id);
                    node.atime = now;
                    node.modified(now);
                }
                Ok(())
            }
            O::TouchModified { of } => {
                let id = self.hand(actor, *of);
                if !self.read_only {
                    self.node_mut(id).modified(now);
                }
                Ok(())
            }
            O::TouchAccessed { of } => {
                const NOATIME: u32 = 0x80;
                let id = self.hand(actor, *of);
                if !self.read_only && self.node(id).flags & NOATIME == 0 {
                    self.node_mut(id).atime = now;
                }
                Ok(())
            }
            O::StripSetid { of } => {
                let id = self.hand(actor, *of);
                let mode = self.node(id).mode;
                let strip = 0o4000 | if mode & 0o010 != 0 { 0o2000 } else { 0 };
                let wanted = if mode & strip == 0 { Ok(()) } else { self.writable() };
                if self.agree(answer, wanted)? && mode & strip != 0 {
                    let node = self.node_mut(id);
                    node.mode &= !strip;
                    node.perhaps.insert(now);
                }
                Ok(())
            }
            O::SetFlags { of, flags } => {
                let id = self.hand(actor, *of);
                let is_special = !matches!(self.node(id).kind, FileKind::Regular | FileKind::Directory);
                let refused = flags & (IMMUTABLE | APPEND) != 0 && is_special;
                let wanted =
                    self.writable().and_then(|()| if refused { no(Errno::OPNOTSUPP) } else { Ok(()) });
                if self.agree(answer, wanted)? {
                    let node = self.node_mut(id);
                    node.flags = node.flags & !MODIFIABLE | flags & MODIFIABLE;
                    node.changed(now);
                }
                Ok(())
            }
            O::SetXattr { of, name, value, how } => {
                self.set_xattr(self.hand(actor, *of), xattr_name(*name), Some((value.bytes(0), *how)), answer)
            }
            O::RemoveXattr { of, name } => {
                self.set_xattr(self.hand(actor, *of), xattr_name(*name), None, answer)
            }
            O::GetXattr { of, name } => {
                let name = xattr_name(*name);
                let wanted = check_name(name).and_then(|()| {
                    let found = self.node(self.hand(actor, *of)).xattrs.get(name);
                    found.map_or_else(|| no(Errno::NODATA), |value| Ok(Answer::Bytes(value.clone())))
                });
                self.same(answer, wanted)
            }
            O::ListXattrs { of } => {
                let Answer::Names(names) = answer else { return Err(format!("{answer:?}")) };
                let mut names = names.clone();
                names.sort();
                let wanted: Vec<_> = self.node(self.hand(actor, *of)).xattrs.keys().cloned().collect();
                if names == wanted {
                    Ok(())
                } else {
                    Err(format!("{names:?}, and the model says {wanted:?}"))
                }
            }
            O::Xattrs { of } => {
                let Answer::Xattrs(pairs) = answer else { return Err(format!("{answer:?}")) };
                let mut pairs = pairs.clone();
                pairs.sort();
                let wanted: Vec<_> = self.node(self.hand(actor, *of)).xattrs.clone().into_iter().collect();
                if pairs == wanted {
                    Ok(())
                } else {
                    Err(format!("{pairs:?}, and the model says {wanted:?}"))
                }
            }
            O::SetAcl { of, which, acl: bits } => {
                self.set_acl(self.hand(actor, *of), *which, bits.map(acl), answer)
            }
            O::Acl { of, which } => {
                let list = self.node(self.hand(actor, *of)).xattrs.get(acl_name(*which));
                self.same(answer, Ok(Answer::Acl(list.and_then(|list| Acl::from_user(list)))))
            }
            _ => self.contents_step(step, answer),
        }
    }

    /// Changes a mode, and the access list with it.
    fn set_mode(&mut self, id: Id, mode: u16) {
        let node = self.node_mut(id);
        node.mode = mode & 0o7777;
        let name = acl_name(AclKind::Access);
        if let Some(list) = node.xattrs.get(name).and_then(|list| Acl::from_user(list)) {
            node.xattrs.insert(name.to_vec(), list.with_mode(mode).to_user());
        }
    }

    /// Blocks that a change may need after which there are attributes, or none. What is removed needs none, unless others
    /// share the block that it is in.
    fn room_for_xattrs(&self, id: Id, is_empty: bool, is_removal: bool) -> u64 {
        if is_empty || is_removal && !self.may_share(id) { 0 } else { self.for_xattrs(id) }
    }

    /// Compares attributes, and notes what was left open of the times.
    fn stat(&mut self, id: Id, answer: &Answer) -> Verdict {
        let Answer::Attr(attr) = answer else { return Err(format!("{answer:?}")) };
        self.compare_attr(id, attr)?;
        let node = self.node_mut(id);
        (node.mtime, node.ctime) = (attr.mtime.sec, attr.ctime.sec);
        node.perhaps.clear();
        Ok(())
    }

    /// Compares attributes with those of a node.
    ///
    /// # Errors
    /// What differs.
    pub fn compare_attr(&self, id: Id, attr: &Attr) -> Verdict {
        let node = self.node(id);
        let time = |what: &str, ours: Timestamp, models: i64, perhaps: bool| {
            let fits = ours.sec == models || perhaps && node.perhaps.contains(&ours.sec);
            if fits && ours.nsec == 0 {
                Ok(())
            } else {
                Err(format!("{what} {ours:?}, and the model says {models}"))
            }
        };
        time("atime", attr.atime, node.atime, false)?;
        time("mtime", attr.mtime, node.mtime, true)?;
        time("ctime", attr.ctime, node.ctime, true)?;
        match attr.crtime {
            Some(crtime) if self.has_crtime => time("crtime", crtime, node.crtime, false)?,
            None if !self.has_crtime => {}
            other => return Err(format!("crtime {other:?}")),
        }
        let ours = (attr.nr.get(), attr.kind, attr.mode, attr.uid, attr.gid, u32::from(attr.links));
        let models = (node.nr, node.kind, node.mode, node.uid, node.gid, node.links);
        if ours != models {
            return Err(format!("number, kind, mode, owners, links {ours:?}, and the model says {models:?}"));
        }
        if attr.flags.bits() != node.flags || attr.device != node.device {
            return Err(format!(
                "flags {:?}, device {:?}, and the model says {:#x}",
                attr.flags, attr.device, node.flags
            ));
        }
        if !node.is_directory() && attr.size != node.size() {
            return Err(format!("{} bytes, and the model says {}", attr.size, node.size()));
        }
        let blocks = u64::from(attr.blocks_512) * 512 / self.block;
        match self.space(id) {
            Some(wanted) if wanted != blocks => {
                Err(format!("it says that it has {blocks} blocks, and the model says {wanted}"))
            }
            _ => Ok(()),
        }
    }

    /// Blocks of a node, those that lead to others and that of attributes included; not of a directory.
    fn space(&self, id: Id) -> Option<u64> {
        let node = self.node(id);
        let own = match &node.content {
            Content::File(_, blocks) => {
                let pointers = self.block / 4;
                let mut leading = std::collections::BTreeSet::new();
                for nr in blocks.keys().filter_map(|nr| nr.checked_sub(12)) {
                    // Which subtree, and which block of each level of it.
                    let (mut nr, mut level) = (nr, 1);
                    while nr >= pointers.pow(level) {
                        nr -= pointers.pow(level);
                        level += 1;
                    }
                    leading.extend((1..=level).map(|height| (level, height, nr / pointers.pow(height))));
                }
                blocks.len() as u64 + leading.len() as u64
            }
            Content::Directory(_) => return None,
            Content::Symlink(target) => u64::from(target.len() >= 60),
            Content::Special => 0,
        };
        Some(own + u64::from(!node.xattrs.is_empty()))
    }

    /// Whether its block of attributes may be another inode's too: those have the same attributes.
    fn may_share(&self, id: Id) -> bool {
        let is_same = |(other, node): (&Id, &Node)| *other != id && node.xattrs == self.node(id).xattrs;
        self.shares_xattrs && self.nodes.iter().any(is_same)
    }

    /// Blocks that a change of attributes may need: one, and a journal for the moment where others share what it has.
    fn for_xattrs(&self, id: Id) -> u64 {
        if self.may_share(id) { 11 } else { 1 }
    }

    /// Whether the attributes that would be there fit in a block.
    fn xattrs_fit<'x>(&self, xattrs: impl Iterator<Item = (&'x Vec<u8>, &'x Vec<u8>)>) -> bool {
        let padded = |len: usize| len.next_multiple_of(4);
        let len = |(name, value): (&Vec<u8>, &Vec<u8>)| {
            let (suffix, value) = if name.starts_with(b"system.") {
                (0, Acl::from_user(value).map_or(0, |list| list.to_disk().len()))
            } else {
                let dot = name.iter().position(|byte| *byte == b'.').unwrap_or(0);
                (name.len() - dot - 1, value.len())
            };
            16 + padded(suffix) + padded(value)
        };
        32 + xattrs.map(len).sum::<usize>() + 4 <= self.block as usize
    }

    fn set_xattr(&mut self, id: Id, name: &[u8], value: Option<(Vec<u8>, u8)>, answer: &Answer) -> Verdict {
        let node = self.node(id);
        let of_user =
            name.starts_with(b"user.") && !matches!(node.kind, FileKind::Regular | FileKind::Directory);
        let there = node.xattrs.contains_key(name);
        let wanted = check_name(name)
            .and_then(|()| if of_user { no(Errno::PERM) } else { Ok(()) })
            .and_then(|()| self.cuttable(id))
            .and_then(|()| match &value {
                Some((_, how)) if how % 3 == 1 && there => no(Errno::EXIST),
                Some((_, how)) if how % 3 == 2 && !there => no(Errno::NODATA),
                None if !there => no(Errno::NODATA),
                _ => Ok(()),
            });
        let mut xattrs = node.xattrs.clone();
        let is_removal = value.is_none();
        match value {
            Some((value, _)) => xattrs.insert(name.to_vec(), value),
            None => xattrs.remove(name),
        };
        let wanted =
            wanted.and_then(|()| if self.xattrs_fit(xattrs.iter()) { Ok(()) } else { no(Errno::NOSPC) });
        let blocks = self.room_for_xattrs(id, xattrs.is_empty(), is_removal);
        if self.agree_in(answer, wanted, blocks, 0)? {
            let now = self.now;
            let node = self.node_mut(id);
            node.xattrs = xattrs;
            node.changed(now);
        }
        Ok(())
    }

    fn set_acl(&mut self, id: Id, which: AclKind, list: Option<Acl>, answer: &Answer) -> Verdict {
        let node = self.node(id);
        match (node.kind, which) {
            (FileKind::Symlink, _) => return self.agree(answer, no(Errno::OPNOTSUPP)).map(drop),
            (FileKind::Directory, _) | (_, AclKind::Access) => {}
            _ if list.is_none() => return self.agree(answer, self.cuttable(id)).map(drop),
            _ => return self.agree(answer, no(Errno::ACCES)).map(drop),
        }
        let name = acl_name(which).to_vec();
        let mut xattrs = node.xattrs.clone();
        let stored = list.as_ref().filter(|list| which == AclKind::Default || !list.is_mode());
        let is_removal = stored.is_none();
        let was_there = match stored {
            Some(list) => xattrs.insert(name, list.to_user()).is_some(),
            None => xattrs.remove(&name).is_some(),
        };
        let fits = self.xattrs_fit(xattrs.iter());
        let wanted = self.cuttable(id).and_then(|()| if fits { Ok(()) } else { no(Errno::NOSPC) });
        let blocks = self.room_for_xattrs(id, xattrs.is_empty(), is_removal);
        if self.agree_in(answer, wanted, blocks, 0)? {
            let now = self.now;
            let node = self.node_mut(id);
            node.xattrs = xattrs;
            if let Some(list) = &list
                && which == AclKind::Access
            {
                node.mode = node.mode & !0o777 | list.mode();
            }
            if list.is_some() || was_there {
                node.changed(now);
            }
        }
        Ok(())
    }
}

/// A name that attributes can have.
fn check_name(name: &[u8]) -> Wanted {
    match name {
        b"user." => no(Errno::INVAL),
        name if name.starts_with(b"other.") => no(Errno::OPNOTSUPP),
        _ => Ok(()),
    }
}
