//! Doing what an operation says.

use std::sync::Arc;

use blockdev::{Access, BlockDevice};
use ext2_core::plumbing::{Allocate, Plumbing};
use ext2_core::{
    Acl, AclEntry, AclKind, AclTag, DeviceNr, Ext2, FileBlock, FileKind, Follow, Inode, InodeFlags, NewInode,
    SetAttr, Timestamp, Wait, WalkError, XattrSet,
};
use ext2_dax::{
    DaxFs, File, Leased,
    mmu::soft::{Died, MapRequest},
    rw::Limits,
    uio::{SliceSink, SliceSource},
};

use super::{
    Actor, Answer, Operation, Step, World, name,
    operation::{Data, WHOLE, WHOLE_READ, user, xattr_name},
    world::{Held, Mapped},
};

/// Bytes of a page.
const PAGE: u64 = 4096;

/// How an operation ends that has no answer but an error.
pub(super) type Done = Result<Answer, Answer>;

pub(super) fn core<T>(result: Result<T, ext2_core::Error>) -> Result<T, Answer> {
    result.map_err(|error| Answer::of(&error))
}

fn dax<T>(result: Result<T, ext2_dax::Error>) -> Result<T, Answer> {
    result.map_err(|error| Answer::of_dax(&error))
}

/// How much a walk finds. What others change meanwhile may be in its way, and breaks nothing.
fn walk(start: &Inode) -> Done {
    let mut count = 0;
    for found in ext2_core::Walk::new(start, b"") {
        match found {
            Err(WalkError { error: error @ ext2_core::Error::Corrupt(_), .. }) => return core(Err(error)),
            found => count += u64::from(found.is_ok()),
        }
    }
    Ok(Answer::Number(count))
}

fn done<T>(result: Result<T, Answer>) -> Done {
    result.map(|_| Answer::Done)
}

fn waiting(wait: bool) -> Wait {
    if wait { Wait::Yes } else { Wait::No }
}

/// The list that a number stands for: permissions of the owner, of a user, of the group, of a group, of the mask and of
/// others, three bits each; without those of a user and a group where the highest bit is set.
#[must_use]
pub(super) fn acl(bits: u16) -> Acl {
    let part = |nr: u16| bits >> (nr * 3 % 15) & 7;
    let entry = |tag, permissions| AclEntry { tag, permissions };
    let mut entries = vec![
        entry(AclTag::UserObj, part(0)),
        entry(AclTag::GroupObj, part(1)),
        entry(AclTag::Other, part(2)),
    ];
    if bits >> 15 == 0 {
        entries.push(entry(AclTag::User(1000), part(3)));
        entries.push(entry(AclTag::Group(70_000), part(4)));
        entries.push(entry(AclTag::Mask, part(1) | 4));
        entries.sort_by_key(|entry| entry.tag);
    }
    Acl::new(entries).expect("it is sorted and whole")
}

/// What makes an inode of this kind.
pub(super) fn new_inode(actor: Actor, kind: FileKind, mode: u16, umask: u16) -> NewInode {
    let (uid, gid) = user(actor);
    let device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice)
        .then_some(DeviceNr { major: u32::from(mode) % 300, minor: u32::from(umask) * 7 });
    NewInode { kind, mode, uid, gid, umask, device }
}

/// Targets of symbolic links: a name of the root, or as many bytes as asked.
pub(super) fn target(target: u8, len: u16) -> Vec<u8> {
    if len == 0 { [b"/", &name(target)[..]].concat() } else { vec![b't'; usize::from(len)] }
}

/// What an actor does something with.
#[derive(Debug)]
pub(super) struct Doer<'w> {
    pub(super) fs: &'w DaxFs,
    pub(super) device: &'w Arc<dyn BlockDevice>,
    pub(super) held: &'w mut Held,
}

impl World {
    /// Does it.
    pub fn perform(&mut self, step: &Step) -> Answer {
        if let Operation::Remount { read_only } = step.operation {
            let reopened = self.close().and_then(|_| self.mount(read_only));
            return done(core(reopened)).unwrap_or_else(|answer| answer);
        }
        match step.operation {
            Operation::Close => return self.close_under_all().unwrap_or_else(|answer| answer),
            Operation::Kill { mended } => return done(self.kill(mended)).unwrap_or_else(|answer| answer),
            _ => {}
        }
        let nr = usize::from(step.actor) % self.actors.len();
        let fs = self.fs.as_ref().expect("the file system is open");
        Doer { fs, device: &self.device, held: &mut self.actors[nr] }.perform(step)
    }
}

impl Doer<'_> {
    /// Does it.
    pub(super) fn perform(&mut self, step: &Step) -> Answer {
        self.attempt(step).unwrap_or_else(|answer| answer)
    }

    fn ext2(&self) -> &Ext2 {
        self.fs.ext2()
    }

    fn hand(&mut self, hand: u8) -> Result<Inode, Answer> {
        self.held.hands.get(usize::from(hand)).cloned().flatten().ok_or(Answer::Nothing)
    }

    fn take(&mut self, to: u8, inode: Inode) -> Done {
        let answer = Answer::Inode(inode.nr().get(), inode.kind());
        self.held.hands[usize::from(to)] = Some(inode);
        Ok(answer)
    }

    /// A hand that holds a directory whose names are to be looked up. One that is gone has no dots that count.
    fn dir(&mut self, hand: u8, name: &[u8]) -> Result<Inode, Answer> {
        let dir = self.hand(hand)?;
        if matches!(name, b"." | b"..") && dir.attr().links == 0 { Err(Answer::Nothing) } else { Ok(dir) }
    }

    fn file(&mut self, file: u8) -> Result<File, Answer> {
        self.held.files.get(usize::from(file)).cloned().flatten().map(|(file, _)| file).ok_or(Answer::Nothing)
    }

    fn map(&mut self, map: u8) -> Result<&Mapped, Answer> {
        self.held.maps.get(usize::from(map)).and_then(Option::as_ref).ok_or(Answer::Nothing)
    }

    fn attempt(&mut self, step: &Step) -> Done {
        use Operation as O;
        let actor = step.actor;
        match &step.operation {
            O::Root { to } => {
                let root = core(self.ext2().root())?;
                self.take(*to, root)
            }
            O::Lookup { dir, name: nr, to } => {
                let found = core(self.dir(*dir, &name(*nr))?.lookup(name(*nr)))?;
                self.take(*to, found)
            }
            O::LookupNr { dir, name: nr } => {
                let found = core(self.dir(*dir, &name(*nr))?.lookup_nr(name(*nr)))?;
                Ok(Answer::Number(found.get().into()))
            }
            O::ByNumber { of, to } => {
                let nr = self.hand(*of)?.nr();
                let inode = core(self.ext2().inode(nr))?;
                self.take(*to, inode)
            }
            O::Resolve { path, follow, to } => {
                let follow = if *follow { Follow::Yes } else { Follow::No };
                let found = core(self.ext2().resolve(join(*path), follow))?;
                self.take(*to, found)
            }
            O::ResolveParent { path, to } => {
                let path = join(*path);
                let (found, _) = core(self.ext2().resolve_parent(&path))?;
                self.take(*to, found)
            }
            O::Create { dir, name: nr, kind, mode, umask, to } => {
                let new = new_inode(actor, *kind, *mode, *umask);
                let made = core(self.hand(*dir)?.create(name(*nr), &new))?;
                self.take(*to, made)
            }
            O::Symlink { dir, name: nr, target: at, len, to } => {
                let new = new_inode(actor, FileKind::Symlink, 0o777, 0);
                let made = core(self.hand(*dir)?.symlink(name(*nr), target(*at, *len), &new))?;
                self.take(*to, made)
            }
            O::Tmpfile { dir, mode, to } => {
                let made =
                    core(self.hand(*dir)?.tmpfile(&new_inode(actor, FileKind::Regular, *mode, 0o022)))?;
                self.take(*to, made)
            }
            O::Link { of, dir, name: nr } => {
                let of = self.hand(*of)?;
                done(core(self.hand(*dir)?.link(&of, name(*nr))))
            }
            O::Unlink { dir, name: nr } => done(core(self.hand(*dir)?.unlink(name(*nr)))),
            O::Rmdir { dir, name: nr } => done(core(self.hand(*dir)?.rmdir(name(*nr)))),
            O::Rename { dir, name: from, to_dir, to_name, flags } => {
                let (old_dir, new_dir) = (self.hand(*dir)?, self.hand(*to_dir)?);
                done(core(self.ext2().rename(&old_dir, &name(*from), &new_dir, &name(*to_name), *flags)))
            }
            O::ReadLink { of } => core(self.hand(*of)?.read_link()).map(Answer::Bytes),
            O::BeginListing { dir, listing } => {
                let dir = self.hand(*dir)?;
                core(dir.entries(0))?;
                self.held.listings[usize::from(*listing)] = Some((dir, 0));
                Ok(Answer::Done)
            }
            O::List { listing, count } => self.list(*listing, *count),
            O::LetGo { of } => {
                self.hand(*of)?;
                self.held.hands[usize::from(*of)] = None;
                Ok(Answer::Done)
            }
            _ => self.attempt_attributes(step),
        }
    }

    fn list(&mut self, listing: u8, count: u8) -> Done {
        let slot = usize::from(listing);
        let Some((dir, cookie)) = self.held.listings[slot].clone() else { return Err(Answer::Nothing) };
        let mut entries = core(dir.entries(cookie))?;
        let mut some = Vec::new();
        let mut more = true;
        while some.len() < usize::from(count) {
            match entries.next() {
                Some(entry) => some.push(core(entry)?),
                None => {
                    more = false;
                    break;
                }
            }
        }
        let next = some.last().map_or(cookie, |entry| entry.next_cookie);
        self.held.listings[slot] = more.then_some((dir, next));
        Ok(Answer::Entries(some, more))
    }

    /// Not where a part of it is to stay: how far it comes then nobody promises.
    fn remove_all(&self, path: &[u8]) -> Done {
        let kept = InodeFlags::IMMUTABLE | InodeFlags::APPEND;
        let parts = self.ext2().walk(path).into_iter().flatten().flatten().map(|found| found.inode);
        if self.ext2().root().into_iter().chain(parts).any(|part| part.attr().flags.intersects(kept)) {
            return Ok(Answer::Nothing);
        }
        done(core(self.ext2().remove_dir_all(path)))
    }

    fn attempt_attributes(&mut self, step: &Step) -> Done {
        use Operation as O;
        match &step.operation {
            O::Stat { of } => Ok(Answer::Attr(Box::new(self.hand(*of)?.attr()))),
            O::StatFs => core(self.ext2().statfs()).map(Answer::Space),
            O::Walk { of } => walk(&self.hand(*of)?.clone()),
            O::RemoveAll { name: nr } => self.remove_all(&[&b"/"[..], &name(*nr)].concat()),
            O::Trim { least } => done(core(self.ext2().trim(0..u32::MAX, (*least).into())).map(drop)),
            O::Chmod { of, mode } => {
                let change = SetAttr { mode: Some(*mode), ..SetAttr::default() };
                done(core(self.hand(*of)?.set_attr(&change)))
            }
            O::Chown { of, uid, gid, mode } => {
                let change = SetAttr { uid: *uid, gid: *gid, mode: *mode, ..SetAttr::default() };
                done(core(self.hand(*of)?.set_attr(&change)))
            }
            O::SetTimes { of, atime, mtime } => {
                let time = |seconds: &Option<i64>| seconds.map(Timestamp::from_secs);
                let change = SetAttr { atime: time(atime), mtime: time(mtime), ..SetAttr::default() };
                done(core(self.hand(*of)?.set_attr(&change)))
            }
            O::Touch { of } => done(core(self.hand(*of)?.touch())),
            O::TouchModified { of } => {
                self.hand(*of)?.touch_modified();
                Ok(Answer::Done)
            }
            O::TouchAccessed { of } => {
                self.hand(*of)?.touch_accessed();
                Ok(Answer::Done)
            }
            O::StripSetid { of } => done(core(self.hand(*of)?.strip_setid())),
            O::SetFlags { of, flags } => {
                done(core(self.hand(*of)?.set_flags(InodeFlags::from_bits_retain(*flags))))
            }
            O::SetXattr { of, name, value, how } => {
                let how = [XattrSet::Any, XattrSet::Create, XattrSet::Replace][usize::from(*how) % 3];
                done(core(self.hand(*of)?.xattr_set(xattr_name(*name), &value.bytes(0), how)))
            }
            O::RemoveXattr { of, name } => done(core(self.hand(*of)?.xattr_remove(xattr_name(*name)))),
            O::GetXattr { of, name } => core(self.hand(*of)?.xattr_get(xattr_name(*name))).map(Answer::Bytes),
            O::ListXattrs { of } => core(self.hand(*of)?.xattr_list()).map(Answer::Names),
            O::Xattrs { of } => core(self.hand(*of)?.xattrs()).map(Answer::Xattrs),
            O::SetAcl { of, which, acl: bits } => {
                let list = bits.map(acl);
                done(core(self.hand(*of)?.set_acl(*which, list.as_ref())))
            }
            O::Acl { of, which } => core(self.hand(*of)?.acl(*which)).map(Answer::Acl),
            _ => self.attempt_contents(step),
        }
    }

    fn attempt_contents(&mut self, step: &Step) -> Done {
        use Operation as O;
        match &step.operation {
            O::Read { of, at, len } => {
                let mut bytes = vec![0xee; *len as usize];
                let got = core(self.hand(*of)?.read_at(*at, &mut bytes))?;
                bytes.truncate(got);
                Ok(Answer::Bytes(bytes))
            }
            O::ReadPieces { of, at, len } => {
                // Of what is kept back the device below has older bytes, and says so.
                let (below, device) = (self.device.clone(), self.ext2().device().clone());
                let read = self.hand(*of)?.with_pieces(*at, u64::from(*len), |pieces| {
                    let mut bytes = Vec::new();
                    for piece in pieces {
                        let mut part = vec![0; piece.len as usize];
                        if let Some(byte) = piece.device_byte {
                            let is_there = device.is_in_place(byte, piece.len);
                            if is_there { &below } else { &device }.read_at(byte, &mut part)?;
                        }
                        bytes.append(&mut part);
                    }
                    Ok::<_, blockdev::Error>(bytes)
                });
                core(core(read)?.map_err(ext2_core::Error::from)).map(Answer::Bytes)
            }
            O::Write { of, at, data } => {
                let put = core(self.hand(*of)?.write_at(*at, &data.bytes(*at)))?;
                Ok(Answer::Number(put as u64))
            }
            O::Truncate { of, size, wait: patient } => {
                let inode = self.hand(*of)?;
                done(core(inode.truncate(*size, waiting(*patient))))
            }
            O::Punch { of, at, len, wait: patient } => {
                let inode = self.hand(*of)?;
                done(core(inode.punch_hole(*at, *len, waiting(*patient))))
            }
            O::Zero { of, at, len } => done(core(self.hand(*of)?.zero_range(*at, *len))),
            O::Fallocate { of, mode, at, len } => {
                let inode = self.hand(*of)?;
                done(core(inode.fallocate(*mode, *at, *len)))
            }
            O::SeekData { of, at } => core(self.regular(*of)?.seek_data(*at)).map(Answer::Number),
            O::SeekHole { of, at } => core(self.regular(*of)?.seek_hole(*at)).map(Answer::Number),
            O::Extents { of } => {
                let inode = self.regular(*of)?;
                self.ranges(&inode)
            }
            O::MapBlocks { of, at, len } => {
                let (inode, block) = (self.regular(*of)?, self.block());
                let run = core(inode.map(FileBlock::new(at / block), len.div_ceil(block).max(1)))?;
                Ok(Answer::Run(run.count, run.is_hole()))
            }
            O::GiveUpWrite { of, at, len } => {
                let (inode, block) = (self.regular(*of)?, self.block());
                let blocks = len.div_ceil(block).max(1);
                let io = inode.io_lock().write();
                let begun = inode.map_for_write(FileBlock::new(at / block), blocks, Allocate::AfterFill);
                let given_up = core(begun).map(drop);
                drop(io);
                done(given_up)
            }
            O::Sync { of } => done(core(self.hand(*of)?.sync())),
            O::SyncAll => done(core(self.ext2().sync())),
            O::Exit => {
                self.held.let_go();
                Ok(Answer::Done)
            }
            _ => self.attempt_dax(step),
        }
    }

    /// The data of a file, runs that touch as one.
    fn ranges(&self, inode: &Inode) -> Done {
        let block = self.block();
        let mut ranges: Vec<std::ops::Range<u64>> = Vec::new();
        for run in inode.extents() {
            let run = core(run)?;
            let (start, end) = (run.start.get() * block, run.end().get() * block);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        Ok(Answer::Ranges(ranges))
    }

    fn block(&self) -> u64 {
        self.ext2().geometry().block_size.bytes()
    }

    /// A hand that holds a regular file: others are not asked where their blocks are.
    fn regular(&mut self, hand: u8) -> Result<Inode, Answer> {
        self.hand(hand).and_then(|inode| {
            if inode.kind() == FileKind::Regular { Ok(inode) } else { Err(Answer::Nothing) }
        })
    }

    fn attempt_dax(&mut self, step: &Step) -> Done {
        use Operation as O;
        match &step.operation {
            O::Open { of, open_for, file } => {
                let inode = self.hand(*of)?;
                let opened = dax(File::open(self.fs, inode, *open_for))?;
                self.held.files[usize::from(*file)] = Some((opened, *open_for));
                Ok(Answer::Done)
            }
            O::CloseFile { file } => {
                self.file(*file)?;
                self.held.files[usize::from(*file)] = None;
                Ok(Answer::Done)
            }
            O::FileRead { file, at, len, nowait } => {
                let file = self.file(*file)?;
                let (room, len) = match *len {
                    WHOLE => (WHOLE_READ, u64::MAX),
                    len => (len, u64::from(len)),
                };
                let mut bytes = vec![0xee; room as usize];
                let got = if *nowait || len > u64::from(room) {
                    let limits = Limits { nowait: *nowait, ..Limits::default() };
                    file.read_to(*at, len, &mut SliceSink::new(&mut bytes), limits)
                } else {
                    file.read_at(*at, &mut bytes)
                };
                bytes.truncate(dax(got)? as usize);
                Ok(Answer::Bytes(bytes))
            }
            O::FileWrite { file, at, data, nowait } => {
                let limits = Limits { nowait: *nowait, ..Limits::default() };
                let file = self.file(*file)?;
                // The bytes of where they are asked for, wherever they come to be.
                let bytes = data.bytes(*at);
                let put = file.write_from(*at, bytes.len() as u64, &mut SliceSource::new(&bytes), limits);
                dax(put).map(Answer::Number)
            }
            O::FileTruncate { file, size, wait } => {
                let file = self.file(*file)?;
                done(dax(file.truncate(*size, waiting(*wait))))
            }
            O::FilePunch { file, at, len, wait } => {
                let file = self.file(*file)?;
                done(dax(file.punch_hole(*at, *len, waiting(*wait))))
            }
            O::FileZero { file, at, len } => {
                let file = self.file(*file)?;
                done(dax(file.zero_range(*at, *len)))
            }
            O::FileSeekData { file, at } => dax(self.file(*file)?.seek_data(*at)).map(Answer::Number),
            O::FileSeekHole { file, at } => dax(self.file(*file)?.seek_hole(*at)).map(Answer::Number),
            O::FileExtents { file } => dax(self.file(*file)?.extents()).map(Answer::Ranges),
            O::FileSync { file } => done(dax(self.file(*file)?.sync())),
            O::Lease { file, at, len, writing, lease } => {
                let file = self.file(*file)?;
                let range = *at..at.saturating_add(*len);
                let access = if *writing { Access::Write } else { Access::Read };
                let taken = dax(file.lease(range, access))?;
                let range = taken.range();
                self.held.leases[usize::from(*lease)] = Some((taken, *writing));
                Ok(Answer::Ranges(vec![range]))
            }
            O::LeaseRead { lease } => {
                let Some((lease, ..)) = &self.held.leases[usize::from(*lease)] else {
                    return Err(Answer::Nothing);
                };
                let range = lease.range();
                let (mut parts, mut next) = (Vec::new(), range.start);
                for (at, part) in dax(lease.parts())? {
                    if at != next {
                        return Err(Answer::Broken(format!(
                            "a part of a lease begins at {at}, not at {next}"
                        )));
                    }
                    next += match part {
                        Leased::Hole(len) => len,
                        Leased::Memory(memory) => {
                            let mut bytes = vec![0; memory.len() as usize];
                            core(memory.copy_out(0, &mut bytes).map_err(ext2_core::Error::from))?;
                            parts.push((at, bytes));
                            memory.len()
                        }
                    };
                }
                if next != range.end {
                    return Err(Answer::Broken(format!("the parts of a lease of {range:?} end at {next}")));
                }
                Ok(Answer::Parts(parts))
            }
            O::LeaseWrite { lease, seed } => {
                let Some((lease, true)) = &self.held.leases[usize::from(*lease)] else {
                    return Err(Answer::Nothing);
                };
                let mut parts = Vec::new();
                for (at, part) in dax(lease.parts())? {
                    if let Leased::Memory(memory) = part {
                        // The first bytes of each run.
                        let len = memory.len().min(16) as u32;
                        let bytes = Data { len, seed: *seed }.bytes(at);
                        // As a program stores, through the caches.
                        core(memory.copy_in_cached(0, &bytes).map_err(ext2_core::Error::from))?;
                        parts.push((at, bytes));
                    }
                }
                Ok(Answer::Parts(parts))
            }
            O::LeaseSync { lease } => {
                let Some((lease, _)) = &self.held.leases[usize::from(*lease)] else {
                    return Err(Answer::Nothing);
                };
                done(dax(lease.sync()))
            }
            O::EndLease { lease } => {
                let slot = &mut self.held.leases[usize::from(*lease)];
                slot.take().map(|_| Answer::Done).ok_or(Answer::Nothing)
            }
            O::Map { file, page, pages, sharing, protection, map } => {
                let file = self.file(*file)?;
                let request = MapRequest {
                    offset: page * PAGE,
                    len: pages * PAGE,
                    sharing: *sharing,
                    protection: *protection,
                    colour: 0,
                };
                let mapped = dax(self.held.map(&file, &request))?;
                let held = &mut *self.held;
                held.maps[usize::from(*map)] = Some(mapped);
                held.mapped[usize::from(*map)] = Some(file.inode().clone());
                Ok(Answer::Done)
            }
            O::Load { map, at, len } => {
                let mut bytes = vec![0xee; *len as usize];
                self.map(*map)?.load(*at, &mut bytes).map_err(Answer::Died)?;
                Ok(Answer::Bytes(bytes))
            }
            O::Store { map, at, data } => {
                let inode = self.held.mapped.get(usize::from(*map)).cloned().flatten();
                let stored: Result<(), Died> = self.map(*map)?.store(*at, &data.bytes(*at));
                // What came into being with it.
                let ranges = inode.ok_or(Answer::Nothing).and_then(|inode| self.ranges(&inode));
                match (stored, ranges) {
                    (Ok(()), ranges) => ranges,
                    (Err(died), Ok(Answer::Ranges(ranges))) => Err(Answer::StoreDied(died, ranges)),
                    (Err(died), _) => Err(Answer::StoreDied(died, Vec::new())),
                }
            }
            O::Msync { map, page, pages } => done(dax(self.map(*map)?.msync(page * PAGE, pages * PAGE))),
            O::Unmap { map } => {
                let held = &mut *self.held;
                held.mapped[usize::from(*map)] = None;
                held.maps[usize::from(*map)].take().map(|_| Answer::Done).ok_or(Answer::Nothing)
            }
            other => unreachable!("{other:?} is done elsewhere"),
        }
    }
}

/// A path of two names.
pub(super) fn join([first, second]: [u8; 2]) -> Vec<u8> {
    [b"/", &name(first)[..], b"/", &name(second)].concat()
}

/// Which list an attribute is.
pub(super) fn acl_name(which: AclKind) -> &'static [u8] {
    match which {
        AclKind::Access => b"system.posix_acl_access",
        AclKind::Default => b"system.posix_acl_default",
    }
}
