//! The requests of the kernel: each is handed to its operation, and what comes of it is the reply.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::volume::{Caller, Change, CopyRange, Entry, KEEP, New, Reply, Volume, Whence};

/// `SEEK_DATA` and `SEEK_HOLE` of Linux.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// What the kernel is asked for, where it has it.
const WANTED: [InitFlags; 14] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_BIG_WRITES,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_EXPORT_SUPPORT,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
];

/// Bytes of the largest write that is asked for; the kernel has a limit of its own.
const MAX_WRITE: u32 = 1 << 20;
/// Requests that the kernel may have under way without anybody waiting: readahead and write-back.
const MAX_BACKGROUND: u16 = 64;

/// A volume that answers the kernel.
#[derive(Debug)]
pub(crate) struct Served(pub(crate) Arc<Volume>);

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

/// Answers with nothing but success.
fn empty(reply: ReplyEmpty, result: Reply<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(reply: ReplyEntry, result: Reply<Entry>) {
    match result {
        Ok(entry) => reply.entry(&KEEP, &entry.attr, entry.generation),
        Err(error) => reply.error(error),
    }
}

/// Answers with a value, or with its length if the caller asks for that.
fn sized(reply: ReplyXattr, size: u32, value: Reply<Vec<u8>>) {
    match value.map(|value| (u32::try_from(value.len()).unwrap_or(u32::MAX), value)) {
        Ok((len, _)) if size == 0 => reply.size(len),
        Ok((len, _)) if len > size => reply.error(Errno::ERANGE),
        Ok((_, value)) => reply.data(&value),
        Err(error) => reply.error(error),
    }
}

fn written(reply: ReplyWrite, result: Reply<u32>) {
    match result {
        Ok(len) => reply.written(len),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Served {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let gather = self.0.gathers_writes().then_some(InitFlags::FUSE_WRITEBACK_CACHE);
        for flag in WANTED.into_iter().chain(gather) {
            if config.add_capabilities(flag).is_err() {
                log::debug!("the kernel has no {flag:?}");
            }
        }
        // Each of these answers with what is possible where the wish is not.
        if let Err(most) = config.set_max_write(MAX_WRITE) {
            let _ = config.set_max_write(most);
        }
        if let Err(most) = config.set_max_readahead(MAX_WRITE) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        if self.0.has_whole_seconds() {
            let _ = config.set_time_granularity(Duration::from_secs(1));
        }
        Ok(())
    }

    fn destroy(&mut self) {
        // What comes of it is asked for at the end of the session.
        if let Err(error) = self.0.close() {
            log::error!("{error}");
        }
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.0.look_up(parent.0, name.as_bytes()) {
            Ok(Some(found)) => entry(reply, Ok(found)),
            Ok(None) => {
                // A number of 0 is an absence that may be remembered.
                let mut attr = self.0.attr(&self.0.nodes.root().inode);
                attr.ino = INodeNo(0);
                reply.entry(&KEEP, &attr, Generation(0));
            }
            Err(error) => reply.error(error),
        }
    }

    fn forget(&self, _: &Request, node: INodeNo, count: u64) {
        self.0.nodes.forget(node.0, count);
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.node(node.0) {
            Ok(node) => reply.attr(&KEEP, &self.0.attr(&node.inode)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change { mode, uid, gid, size, atime, mtime, ctime };
        match self.0.set_attr(node.0, &change, caller(request)) {
            Ok(attr) => reply.attr(&KEEP, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, node: INodeNo, reply: ReplyData) {
        match self.0.read_link(node.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let made = self.0.make(parent.0, name.as_bytes(), New { mode, umask, device }, caller(request));
        entry(reply, made.map(|made| made.0));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let new = New { mode: mode & 0o7777 | 0o040_000, umask, device: 0 };
        entry(reply, self.0.make(parent.0, name.as_bytes(), new, caller(request)).map(|made| made.0));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.0.unlink(parent.0, name.as_bytes()));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.0.rmdir(parent.0, name.as_bytes()));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_bytes();
        entry(reply, self.0.symlink(parent.0, name.as_bytes(), target, caller(request)));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = ((parent.0, name.as_bytes()), (new_parent.0, new_name.as_bytes()));
        empty(reply, self.0.rename(from, to, flags.bits()));
    }

    fn link(&self, _: &Request, node: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, self.0.link(node.0, parent.0, name.as_bytes()));
    }

    fn open(&self, _: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.0.open(node.0, flags.0) {
            Ok(how) => reply.opened(FileHandle(0), how),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.0.read(node.0, offset, size, |read| match read {
            Ok(bytes) => reply.data(bytes),
            Err(error) => reply.error(error),
        });
    }

    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        how: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        written(reply, self.0.write(node.0, offset, data, how));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Writes are complete when they return and locks are the kernel's: it need not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        flags: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.release(node.0, flags.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(reply, self.0.fsync(node.0));
    }

    fn opendir(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.open_directory(node.0) {
            Ok(how) => reply.opened(FileHandle(0), how),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, node: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.0.read_directory(node.0, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        match self.0.read_directory_plus(node.0, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(reply, self.0.fsync(node.0));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.0.statfs() {
            Ok(space) => {
                let size = u32::try_from(space.block_size).unwrap_or(u32::MAX);
                reply.statfs(
                    space.blocks,
                    space.blocks_free,
                    space.blocks_available,
                    space.files,
                    space.files_free,
                    size,
                    space.name_max,
                    size,
                );
            }
            Err(error) => reply.error(error),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.0.set_xattr(node.0, name.as_bytes(), value, flags, caller(request)));
    }

    fn getxattr(&self, _: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        sized(reply, size, self.0.get_xattr(node.0, name.as_bytes()));
    }

    fn listxattr(&self, request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        sized(reply, size, self.0.list_xattrs(node.0, caller(request)));
    }

    fn removexattr(&self, _: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.0.remove_xattr(node.0, name.as_bytes()));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let new = New { mode: mode & 0o7777 | 0o100_000, umask, device: 0 };
        match self.0.make(parent.0, name.as_bytes(), new, caller(request)) {
            Ok((made, node)) => {
                let how: FopenFlags = self.0.opened_new(&node, flags);
                reply.created(&KEEP, &made.attr, made.generation, FileHandle(0), how);
            }
            Err(error) => reply.error(error),
        }
    }

    fn ioctl(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        request: u32,
        input: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        match self.0.ioctl(node.0, request, input) {
            Ok(output) => reply.ioctl(0, &output),
            Err(error) => reply.error(error),
        }
    }

    fn fallocate(
        &self,
        request: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.0.fallocate(node.0, offset, len, mode, caller(request)));
    }

    fn lseek(&self, _: &Request, node: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let whence = match whence {
            SEEK_DATA => Whence::Data,
            SEEK_HOLE => Whence::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let (Ok(offset), Ok(node)) = (u64::try_from(offset), self.0.node(node.0)) else {
            return reply.error(Errno::ENXIO);
        };
        let volume = self.0.clone();
        let seek = move || match volume.seek(&node, offset, whence) {
            Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
            Err(error) => reply.error(error),
        };
        // The kernel writes pages back in between, and every thread that answers it is needed for that. A reply that
        // is dropped because there is no thread tells of an error.
        if let Err(error) = thread::Builder::new().name("seek".into()).spawn(seek) {
            log::error!("no thread for a search for holes: {error}");
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        _: FileHandle,
        from_offset: u64,
        to: INodeNo,
        _: FileHandle,
        to_offset: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let range = CopyRange { from: from.0, from_offset, to: to.0, to_offset, len };
        written(reply, self.0.copy(range, caller(request)));
    }
}
