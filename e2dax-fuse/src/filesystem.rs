//! The requests of the kernel: each is handed to its operation, and what comes of it is the answer.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use ext2_core::Timestamp;
use fuser::WriteFlags;
use rustix::io::Errno;

use crate::channel::Channel;
use crate::options::Access;
use crate::reply::Reply;
use crate::turns::{Looks, Turns};
use crate::volume::{
    Caller, Change, CopyRange, KEEP, New, SetTime, Volume, Whence, keep_attributes, keep_name,
    takes_long as ioctl_takes_long,
};
use crate::wire::{Fields, Listing, Out, Read, Request, opcode};

/// `SEEK_DATA` and `SEEK_HOLE` of Linux.
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

/// The most bytes that are read or written before others listen.
const SHORT: usize = 64 << 10;

/// Bits of a setattr. Linux: `FATTR_MODE` and so on.
mod fattr {
    pub(super) const MODE: u32 = 1;
    pub(super) const UID: u32 = 1 << 1;
    pub(super) const GID: u32 = 1 << 2;
    pub(super) const SIZE: u32 = 1 << 3;
    pub(super) const ATIME: u32 = 1 << 4;
    pub(super) const MTIME: u32 = 1 << 5;
    pub(super) const ATIME_NOW: u32 = 1 << 7;
    pub(super) const MTIME_NOW: u32 = 1 << 8;
    pub(super) const CTIME: u32 = 1 << 10;
    pub(super) const KILL_SUIDGID: u32 = 1 << 11;
}

/// What becomes of a request.
enum Answer {
    /// This is the answer.
    Body(Out),
    /// It was given already, is given later, or nobody waits for one.
    None,
}

fn done(result: Reply<()>) -> Reply<Answer> {
    result.map(|()| Answer::Body(Out::default()))
}

/// Answers with a value, or with its length if the caller asks for that.
fn sized(size: u32, value: Vec<u8>) -> Reply<Answer> {
    let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
    match size {
        0 => Ok(Answer::Body(Out::default().u32(len).u32(0))),
        size if len > size => Err(Errno::RANGE),
        _ => Ok(Answer::Body(Out(value))),
    }
}

fn setattr(mut fields: Fields<'_>) -> Reply<Change> {
    let valid = fields.u32()?;
    fields.skip(12)?;
    let size = fields.u64()?;
    fields.skip(8)?;
    let seconds = [fields.u64()?, fields.u64()?, fields.u64()?];
    let nanoseconds = [fields.u32()?, fields.u32()?, fields.u32()?];
    let mode = fields.u32()?;
    fields.skip(4)?;
    let (uid, gid) = (fields.u32()?, fields.u32()?);
    let has = |bit: u32| valid & bit != 0;
    let [atime, mtime, ctime] = std::array::from_fn(|n| Timestamp {
        sec: seconds.get(n).copied().unwrap_or_default().cast_signed(),
        nsec: nanoseconds.get(n).copied().unwrap_or_default(),
    });
    let time = |bit, now, time| match (has(bit), has(now)) {
        (false, _) => None,
        (true, true) => Some(SetTime::Now),
        (true, false) => Some(SetTime::To(time)),
    };
    Ok(Change {
        mode: has(fattr::MODE).then_some(mode),
        uid: has(fattr::UID).then_some(uid),
        gid: has(fattr::GID).then_some(gid),
        size: has(fattr::SIZE).then_some(size),
        atime: time(fattr::ATIME, fattr::ATIME_NOW, atime),
        mtime: time(fattr::MTIME, fattr::MTIME_NOW, mtime),
        ctime: has(fattr::CTIME).then_some(ctime),
        takes_ids: has(fattr::KILL_SUIDGID),
    })
}

/// The bytes that a request of `len` bytes moves, in either direction.
fn moved(request: &Request<'_>, len: usize) -> usize {
    let mut fields = request.fields();
    match (request.opcode, fields.skip(16).and_then(|()| fields.u32())) {
        (opcode::READ, Ok(size)) => len.saturating_add(usize::try_from(size).unwrap_or(usize::MAX)),
        _ => len,
    }
}

/// Whether others listen while a request that moves so many bytes is answered.
fn takes_long(request: &Request<'_>, moved: usize, turns: &Turns) -> bool {
    match request.opcode {
        opcode::FSYNC | opcode::FSYNCDIR | opcode::FALLOCATE | opcode::COPY_FILE_RANGE => true,
        // A truncation may free much. With each unlink comes a time of change, which is soon set.
        opcode::SETATTR => request.fields().u32().is_ok_and(|valid| valid & fattr::SIZE != 0),
        opcode::IOCTL => {
            let mut fields = request.fields();
            fields.skip(12).and_then(|()| fields.u32()).is_ok_and(ioctl_takes_long)
        }
        opcode::READ | opcode::WRITE => turns.has_processors && moved > SHORT,
        _ => false,
    }
}

/// Whether a request may need new blocks.
fn takes_blocks(opcode: u32) -> bool {
    matches!(
        opcode,
        opcode::WRITE
            | opcode::FALLOCATE
            | opcode::COPY_FILE_RANGE
            | opcode::SETATTR
            | opcode::MKNOD
            | opcode::MKDIR
            | opcode::SYMLINK
            | opcode::CREATE
            | opcode::TMPFILE
            | opcode::LINK
            | opcode::RENAME
            | opcode::RENAME2
            | opcode::SETXATTR
            | opcode::REMOVEXATTR
    )
}

/// A volume that answers the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) volume: Arc<Volume>,
    pub(crate) channel: Arc<Channel>,
}

impl Served {
    /// Answers requests until the file system is unmounted.
    ///
    /// # Errors
    /// The connection's.
    pub(crate) fn work(&self, turns: &Turns, buffer: &mut [u8]) -> std::io::Result<()> {
        let (mut turn, mut looks) = (None, Looks::default());
        loop {
            let mine = turn.take().unwrap_or_else(|| turns.take());
            let Some(len) = self.channel.receive(&mut looks, buffer)? else { return Ok(()) };
            let Some(request) = buffer.get(..len).and_then(Request::parse) else {
                return Err(std::io::ErrorKind::InvalidData.into());
            };
            log::debug!("{request}");
            let moved = moved(&request, len);
            let is_long = takes_long(&request, moved, turns);
            if is_long || turns.is_wary() {
                drop(mine);
            } else {
                turn = Some(mine);
            }
            let begin = Instant::now();
            match self.dispatch(&request) {
                Ok(Answer::Body(body)) => self.channel.answer(request.unique, Ok(&body.0)),
                Ok(Answer::None) => {}
                Err(error) => self.channel.answer(request.unique, Err(error)),
            }
            if !is_long {
                turns.took(begin.elapsed(), moved);
            }
        }
    }

    /// Whether this user may ask for this. The kernel lets in the owner alone, or everybody; and it asks for some
    /// things itself, in whose name ever.
    fn is_let_in(&self, request: &Request<'_>) -> bool {
        let of_the_kernel = [
            opcode::FORGET,
            opcode::BATCH_FORGET,
            opcode::READ,
            opcode::WRITE,
            opcode::READDIR,
            opcode::READDIRPLUS,
            opcode::FSYNC,
            opcode::FSYNCDIR,
            opcode::RELEASE,
            opcode::RELEASEDIR,
            opcode::DESTROY,
        ];
        self.volume.options.access != Access::OwnerAndRoot
            || request.uid == 0
            || request.uid == self.volume.owner
            || of_the_kernel.contains(&request.opcode)
    }

    /// Who asks is who may or may not take the blocks that are reserved, and not whoever serves the mount. What the
    /// kernel writes back it writes in root's name, as it does for its own file systems.
    fn dispatch(&self, request: &Request<'_>) -> Reply<Answer> {
        if !self.is_let_in(request) {
            return Err(Errno::ACCESS);
        }
        let caller = Caller { uid: request.uid, gid: request.gid, pid: request.pid };
        self.by_right_of(caller, request.opcode, || self.handle(request, caller))
    }

    /// Does what was asked for, without the reserve where it takes blocks and the caller has no right to that.
    fn by_right_of<T>(&self, caller: Caller, opcode: u32, work: impl FnOnce() -> T) -> T {
        let is_limited = takes_blocks(opcode) && !self.volume.may_use_reserve(caller);
        if is_limited { ext2_core::without_reserve(work) } else { work() }
    }

    /// Answers by a thread of its own. Meanwhile the kernel writes pages back, or a page may be held by who waits for it to be
    /// read, and every thread that answers it is needed for that.
    fn aside(
        &self,
        request: &Request<'_>,
        caller: Caller,
        name: &str,
        work: impl FnOnce(&Self) -> Reply<Out> + Send + 'static,
    ) -> Reply<Answer> {
        let (served, unique, opcode) = (self.clone(), request.unique, request.opcode);
        let answer = move || {
            let done = served.by_right_of(caller, opcode, || work(&served)).map(|out| out.0);
            served.channel.answer(unique, done.as_deref().map_err(|error| *error));
        };
        thread::Builder::new().name(name.into()).spawn(answer).map_err(|_| Errno::NOMEM)?;
        Ok(Answer::None)
    }

    fn handle(&self, request: &Request<'_>, caller: Caller) -> Reply<Answer> {
        let mut fields = request.fields();
        let (volume, node) = (&self.volume, request.node);
        let out = Out::default();
        match request.opcode {
            opcode::LOOKUP => {
                let name = fields.name()?;
                let keep = keep_name(node, name);
                Ok(Answer::Body(match volume.look_up(node, name)? {
                    Some(entry) => out.entry(keep, &entry),
                    None => out.no_entry(keep),
                }))
            }
            opcode::FORGET => {
                volume.nodes.forget(node, fields.u64().unwrap_or(0));
                Ok(Answer::None)
            }
            opcode::BATCH_FORGET => {
                let count = fields.u32().unwrap_or(0);
                // What is cut off is not forgotten; nobody waits for an answer.
                let _ = fields.skip(4);
                for _ in 0..count {
                    let (Ok(node), Ok(lookups)) = (fields.u64(), fields.u64()) else { break };
                    volume.nodes.forget(node, lookups);
                }
                Ok(Answer::None)
            }
            opcode::GETATTR => {
                let attr = volume.attr(&volume.node(node)?.inode);
                Ok(Answer::Body(out.attr(keep_attributes(node), &attr)))
            }
            opcode::STATX => {
                let attr = volume.attr(&volume.node(node)?.inode);
                Ok(Answer::Body(out.statx(keep_attributes(node), &attr)))
            }
            opcode::SETATTR => self.set_attr(request, fields, caller),
            opcode::READLINK => Ok(Answer::Body(Out(volume.read_link(node)?))),
            opcode::MKNOD | opcode::MKDIR | opcode::SYMLINK | opcode::CREATE | opcode::TMPFILE => {
                self.make(request, fields, caller)
            }
            opcode::UNLINK => done(volume.unlink(node, fields.name()?)),
            opcode::RMDIR => done(volume.rmdir(node, fields.name()?)),
            opcode::RENAME | opcode::RENAME2 => {
                let to = fields.u64()?;
                let flags = if request.opcode == opcode::RENAME2 { fields.u64()? } else { 0 };
                // OK to cast: the upper half is padding.
                done(volume.rename((node, fields.name()?), (to, fields.name()?), flags as u32, caller))
            }
            opcode::LINK => {
                let file = fields.u64()?;
                Ok(Answer::Body(out.entry(KEEP, &volume.link(file, node, fields.name()?)?)))
            }
            opcode::OPEN => {
                let opened = fields.u32()?.cast_signed();
                Ok(Answer::Body(out.open(opened, volume.open(node, opened)?.bits())))
            }
            opcode::OPENDIR => Ok(Answer::Body(out.open(0, volume.open_directory(node)?.bits()))),
            opcode::RELEASE => {
                fields.skip(8)?;
                volume.release(node, fields.u32()?.cast_signed());
                Ok(Answer::Body(out))
            }
            opcode::RELEASEDIR => Ok(Answer::Body(out)),
            opcode::READ => {
                let read = Read::parse(fields)?;
                if !self.splice(request, read) {
                    volume.read(node, read, |bytes| self.channel.answer(request.unique, bytes));
                }
                Ok(Answer::None)
            }
            opcode::WRITE => {
                fields.skip(8)?;
                let (offset, size, how) = (fields.u64()?, fields.u32()?, fields.u32()?);
                fields.skip(8)?;
                let opened = fields.u32()?.cast_signed();
                fields.skip(4)?;
                let data = fields.take(usize::try_from(size).map_err(|_| Errno::INVAL)?)?;
                let how = WriteFlags::from_bits_retain(how);
                Ok(Answer::Body(out.u32(volume.write(node, offset, data, how, opened, caller)?).u32(0)))
            }
            opcode::FSYNC | opcode::FSYNCDIR => done(volume.fsync(node)),
            opcode::READDIR | opcode::READDIRPLUS => {
                let read = Read::parse(fields)?;
                let mut listing = Listing::new(usize::try_from(read.size).map_err(|_| Errno::INVAL)?);
                match request.opcode {
                    opcode::READDIR => volume.read_directory(node, read, &mut listing)?,
                    _ => volume.read_directory_plus(node, read, &mut listing)?,
                }
                Ok(Answer::Body(listing.finish()))
            }
            opcode::STATFS => self.statfs(),
            opcode::SETXATTR => {
                let (size, flags) = (fields.u32()?, fields.u32()?.cast_signed());
                let name = fields.name()?;
                let value = fields.take(usize::try_from(size).map_err(|_| Errno::INVAL)?)?;
                done(volume.set_xattr(node, name, value, flags, caller))
            }
            opcode::GETXATTR => {
                let size = fields.u32()?;
                fields.skip(4)?;
                sized(size, volume.get_xattr(node, fields.name()?)?)
            }
            opcode::LISTXATTR => sized(fields.u32()?, volume.list_xattrs(node, caller)?),
            opcode::REMOVEXATTR => done(volume.remove_xattr(node, fields.name()?, caller)),
            opcode::IOCTL => {
                fields.skip(12)?;
                let command = fields.u32()?;
                fields.skip(16)?;
                let output = volume.ioctl(node, command, fields.rest(), caller)?;
                Ok(Answer::Body(out.zeros(16).bytes(&output)))
            }
            opcode::FALLOCATE => {
                let opened = fields.opened()?;
                let (offset, len, mode) = (fields.u64()?, fields.u64()?, fields.u32()?);
                done(volume.fallocate(node, offset, len, mode, opened, caller))
            }
            opcode::LSEEK => self.seek(request, fields, caller),
            opcode::COPY_FILE_RANGE => {
                fields.skip(8)?;
                let (from_offset, to, opened) = (fields.u64()?, fields.u64()?, fields.opened()?);
                let (to_offset, len) = (fields.u64()?, fields.u64()?);
                let range = CopyRange { from: node, from_offset, to, to_offset, len, opened };
                Ok(Answer::Body(out.u32(volume.copy(range, caller)?).u32(0)))
            }
            opcode::DESTROY => Ok(Answer::Body(out)),
            // The kernel asks once and does without: flush, because writes are complete when they return; access and
            // locks, because it does these itself; interrupt, because nothing takes long.
            _ => Err(Errno::NOSYS),
        }
    }

    /// Whatever makes an inode.
    fn make(&self, request: &Request<'_>, mut fields: Fields<'_>, caller: Caller) -> Reply<Answer> {
        let (volume, parent, out) = (&self.volume, request.node, Out::default());
        match request.opcode {
            opcode::MKNOD => {
                let (mode, device, umask) = (fields.u32()?, fields.u32()?, fields.u32()?);
                fields.skip(4)?;
                let made = volume.make(parent, fields.name()?, New { mode, umask, device }, caller)?;
                Ok(Answer::Body(out.entry(KEEP, &made.0)))
            }
            opcode::MKDIR => {
                let (mode, umask) = (fields.u32()?, fields.u32()?);
                let new = New { mode: mode & 0o7777 | 0o040_000, umask, device: 0 };
                Ok(Answer::Body(out.entry(KEEP, &volume.make(parent, fields.name()?, new, caller)?.0)))
            }
            opcode::SYMLINK => {
                let (name, target) = (fields.name()?, fields.name()?);
                Ok(Answer::Body(out.entry(KEEP, &volume.symlink(parent, name, target, caller)?)))
            }
            _ => {
                let (flags, mode, umask) = (fields.u32()?.cast_signed(), fields.u32()?, fields.u32()?);
                fields.skip(4)?;
                let new = New { mode: mode & 0o7777 | 0o100_000, umask, device: 0 };
                let (entry, node) = if request.opcode == opcode::TMPFILE {
                    volume.make_unnamed(parent, new, caller)?
                } else {
                    volume.make(parent, fields.name()?, new, caller)?
                };
                let how = volume.opened_new(&node, flags);
                Ok(Answer::Body(out.entry(KEEP, &entry).open(flags, how.bits())))
            }
        }
    }

    fn set_attr(&self, request: &Request<'_>, fields: Fields<'_>, caller: Caller) -> Reply<Answer> {
        let (change, node) = (setattr(fields)?, request.node);
        let set = move |served: &Self| {
            Ok(Out::default().attr(keep_attributes(node), &served.volume.set_attr(node, &change, caller)?))
        };
        if self.volume.may_wait_for_page(node, &change) {
            return self.aside(request, caller, "setattr", set);
        }
        set(self).map(Answer::Body)
    }

    fn statfs(&self) -> Reply<Answer> {
        let space = self.volume.statfs()?;
        let size = u32::try_from(space.block_size).unwrap_or(u32::MAX);
        let out = Out::default()
            .u64(space.blocks)
            .u64(space.blocks_free)
            .u64(space.blocks_available)
            .u64(space.files)
            .u64(space.files_free);
        Ok(Answer::Body(out.u32(size).u32(space.name_max).u32(size).zeros(4 + 6 * 4)))
    }

    fn seek(&self, request: &Request<'_>, mut fields: Fields<'_>, caller: Caller) -> Reply<Answer> {
        fields.skip(8)?;
        let offset = fields.u64()?;
        let whence = match fields.u32()? {
            SEEK_DATA => Whence::Data,
            SEEK_HOLE => Whence::Hole,
            _ => return Err(Errno::INVAL),
        };
        if i64::try_from(offset).is_err() {
            return Err(Errno::NXIO);
        }
        let node = self.volume.node(request.node)?;
        self.aside(request, caller, "seek", move |served| {
            let found = served.volume.seek(&served.channel, &node, offset, whence)?;
            Ok(Out::default().u64(found))
        })
    }
}

#[cfg(test)]
mod tests {
    use blockdev::RamDevice;
    use ext2_core::{Ext2, OpenOptions};
    use ext2_image::mkfs::{self, Format, Fresh};

    use super::*;
    use crate::awake::Awake;
    use crate::options::MountOptions;

    /// Numbers that look random, the same each time.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        /// Mostly one that means something.
        fn plausible(&mut self) -> u64 {
            match self.next() % 8 {
                0 => self.next(),
                1 => 0,
                2 => u64::MAX >> (self.next() % 64),
                3 => 1 << (self.next() % 64),
                _ => self.next() % 20,
            }
        }
    }

    /// A request of any kind, with a body of words and texts.
    fn request(numbers: &mut Numbers) -> Vec<u8> {
        let opcode = if numbers.next().is_multiple_of(16) {
            numbers.next() as u32
        } else {
            numbers.next() as u32 % 56
        };
        let mut body = Vec::new();
        for _ in 0..numbers.next() % 16 {
            match numbers.next() % 4 {
                0 => body.extend_from_slice(
                    [b"name\0".as_slice(), b".\0", b"..\0", b"a/b\0", b"\0", b"user.x\0"]
                        [numbers.next() as usize % 6],
                ),
                1 => body.extend((numbers.plausible() as u32).to_le_bytes()),
                _ => body.extend(numbers.plausible().to_le_bytes()),
            }
        }
        let caller = (numbers.plausible() as u32, numbers.plausible() as u32);
        let head = Out::default()
            .u32(40 + body.len() as u32)
            .u32(opcode)
            .u64(numbers.next())
            .u64(numbers.plausible());
        head.u32(caller.0).u32(caller.1).u32(1).u32(0).bytes(&body).0
    }

    #[test]
    fn whatever_the_kernel_asks_for_is_answered_or_refused() {
        let device = Arc::new(RamDevice::new(2 << 20).unwrap());
        mkfs::format(&*device, &Format::default(), Fresh::Zeros).unwrap();
        let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
        let volume = Arc::new(Volume::new(fs, &MountOptions::default()).unwrap());
        let nowhere = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
        let channel = Arc::new(Channel::new(nowhere.into(), Awake::new(false)).unwrap());
        let served = Served { volume: volume.clone(), channel };
        let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
        let (mut answered, mut refused) = (0, 0);
        for _ in 0..100_000 {
            let bytes = request(&mut numbers);
            // Cut off now and then.
            let len = if numbers.next().is_multiple_of(8) {
                numbers.next() as usize % bytes.len()
            } else {
                bytes.len()
            };
            let Some(request) = Request::parse(&bytes[..len]) else { continue };
            match served.dispatch(&request) {
                Ok(_) => answered += 1,
                Err(_) => refused += 1,
            }
        }
        assert!(answered > 1000 && refused > 1000, "{answered} {refused}");
        drop(served);
        volume.close().unwrap();
        let findings =
            ext2_image::check::check(&*device, &ext2_image::check::Options::default(), &mut |finding| {
                panic!("{finding:?}");
            });
        assert!(findings.is_ok());
    }
}
