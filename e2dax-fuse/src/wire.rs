//! Requests and replies as bytes (Linux: `include/uapi/linux/fuse.h`).
//!
//! The protocol has its numbers in the machine's order; they are taken as little-endian, as ext2's are.

use std::fmt;

use ext2_core::{DeviceNr, Timestamp};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::reply::Reply;

const _: () = assert!(cfg!(target_endian = "little"), "the protocol is read as little-endian");

/// Bytes before the body of a request.
const HEADER: usize = 40;
/// Bytes before the body of a reply.
pub(crate) const REPLY_HEADER: usize = 16;

/// What a request asks for. Linux: `enum fuse_opcode`.
pub(crate) mod opcode {
    macro_rules! opcodes {
        ($($name:ident = $number:literal,)*) => {
            $(pub(crate) const $name: u32 = $number;)*

            /// For the log.
            pub(crate) fn name(opcode: u32) -> Option<&'static str> {
                match opcode {
                    $($name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        };
    }
    opcodes! {
        LOOKUP = 1,
        FORGET = 2,
        GETATTR = 3,
        SETATTR = 4,
        READLINK = 5,
        SYMLINK = 6,
        MKNOD = 8,
        MKDIR = 9,
        UNLINK = 10,
        RMDIR = 11,
        RENAME = 12,
        LINK = 13,
        OPEN = 14,
        READ = 15,
        WRITE = 16,
        STATFS = 17,
        RELEASE = 18,
        FSYNC = 20,
        SETXATTR = 21,
        GETXATTR = 22,
        LISTXATTR = 23,
        REMOVEXATTR = 24,
        OPENDIR = 27,
        READDIR = 28,
        RELEASEDIR = 29,
        FSYNCDIR = 30,
        CREATE = 35,
        DESTROY = 38,
        IOCTL = 39,
        BATCH_FORGET = 42,
        FALLOCATE = 43,
        READDIRPLUS = 44,
        RENAME2 = 45,
        LSEEK = 46,
        COPY_FILE_RANGE = 47,
        TMPFILE = 51,
        STATX = 52,
    }
}

/// A request.
pub(crate) struct Request<'a> {
    /// One of [`opcode`], or another that the kernel knows.
    pub(crate) opcode: u32,
    /// Names the request to the kernel; its answer has the same.
    pub(crate) unique: u64,
    /// The inode, by the kernel's name.
    pub(crate) node: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) pid: u32,
    body: &'a [u8],
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match opcode::name(self.opcode) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "request {}", self.opcode)?,
        }
        write!(f, " of node {} by {}, {} bytes", self.node, self.uid, self.body.len())
    }
}

impl<'a> Request<'a> {
    /// `None` where it is shorter than it says.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let mut word = || fields.u32().ok();
        let (len, opcode) = (word()?, word()?);
        let (unique, node) = (fields.u64().ok()?, fields.u64().ok()?);
        let mut word = || fields.u32().ok();
        let (uid, gid, pid) = (word()?, word()?, word()?);
        let body = bytes.get(HEADER..usize::try_from(len).ok()?)?;
        Some(Self { opcode, unique, node, uid, gid, pid, body })
    }

    /// What comes behind the header.
    pub(crate) fn fields(&self) -> Fields<'a> {
        Fields(self.body)
    }
}

/// What is to be read of a file or directory. Linux: `struct fuse_read_in`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    /// A byte, or a directory's cookie.
    pub(crate) offset: u64,
    /// Bytes at most.
    pub(crate) size: u32,
    /// Whether the access time stays as it is, however it was mounted. Linux: `O_NOATIME`.
    pub(crate) keeps_atime: bool,
}

impl Read {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Reply<Self> {
        fields.skip(8)?;
        let (offset, size) = (fields.u64()?, fields.u32()?);
        fields.skip(4 + 8)?;
        let keeps_atime = OFlags::from_bits_retain(fields.u32()?).contains(OFlags::NOATIME);
        Ok(Self { offset, size, keeps_atime })
    }
}

/// The fields of a request, one after the other. What is missing is `EINVAL`.
#[derive(Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Reply<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn u32(&mut self) -> Reply<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| Errno::INVAL)?))
    }

    pub(crate) fn u64(&mut self) -> Reply<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Errno::INVAL)?))
    }

    /// The handle of an open file: the flags it was opened with.
    pub(crate) fn opened(&mut self) -> Reply<i32> {
        // OK to cast: what `Out::open` gave.
        Ok((self.u64()? as u32).cast_signed())
    }

    /// Passes over bytes that are of no use to us: file handles, owners of locks, padding.
    pub(crate) fn skip(&mut self, len: usize) -> Reply<()> {
        self.take(len).map(|_| ())
    }

    /// A text that ends with a zero byte, without that.
    pub(crate) fn name(&mut self) -> Reply<&'a [u8]> {
        let len = self.0.iter().position(|byte| *byte == 0).ok_or(Errno::INVAL)?;
        let name = self.take(len)?;
        self.skip(1)?;
        Ok(name)
    }

    /// All that is left.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// What the kernel is told of an inode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attr {
    /// The number of the inode in the image.
    pub(crate) ino: u64,
    pub(crate) size: u64,
    /// In units of 512 bytes.
    pub(crate) blocks: u64,
    pub(crate) atime: Timestamp,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
    /// The time of birth, where the inode has room for one.
    pub(crate) btime: Option<Timestamp>,
    /// Kind and permissions, as in `st_mode`.
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The number of a device file, else 0.
    pub(crate) device: DeviceNr,
    pub(crate) block_size: u32,
}

/// What the kernel is told of a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The kernel's name for the inode.
    pub(crate) node: u64,
    /// Tells the inode from earlier ones of the same number.
    pub(crate) generation: u64,
    pub(crate) attr: Attr,
}

/// A reply as it grows.
#[derive(Debug, Default)]
pub(crate) struct Out(pub(crate) Vec<u8>);

impl Out {
    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn zeros(mut self, len: usize) -> Self {
        self.0.resize(self.0.len() + len, 0);
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// `struct fuse_attr`.
    fn attr_alone(self, attr: &Attr) -> Self {
        self.u64(attr.ino)
            .u64(attr.size)
            .u64(attr.blocks)
            .u64(attr.atime.sec.cast_unsigned())
            .u64(attr.mtime.sec.cast_unsigned())
            .u64(attr.ctime.sec.cast_unsigned())
            .u32(attr.atime.nsec)
            .u32(attr.mtime.nsec)
            .u32(attr.ctime.nsec)
            .u32(attr.mode)
            .u32(attr.links)
            .u32(attr.uid)
            .u32(attr.gid)
            .u32(attr.device.to_u32())
            .u32(attr.block_size)
            .u32(0)
    }

    /// `struct fuse_attr_out`, to be kept for `keep` seconds.
    pub(crate) fn attr(self, keep: u64, attr: &Attr) -> Self {
        self.u64(keep).u64(0).attr_alone(attr)
    }

    /// `struct fuse_entry_out`, to be kept for `keep` seconds.
    pub(crate) fn entry(self, keep: u64, entry: &Entry) -> Self {
        self.u64(entry.node).u64(entry.generation).u64(keep).u64(keep).u64(0).attr_alone(&entry.attr)
    }

    /// A name that does not exist, to be remembered for `keep` seconds.
    pub(crate) fn no_entry(self, keep: u64) -> Self {
        self.u64(0).u64(0).u64(keep).zeros(ENTRY - 24)
    }

    /// An entry of a listing that says nothing of its inode: the kernel takes node 0 for that.
    pub(crate) fn no_attributes(self) -> Self {
        self.zeros(ENTRY)
    }

    /// `struct fuse_open_out`. What is open is the inode: the handle says how, as the flags of open(2), to requests that
    /// come without these.
    pub(crate) fn open(self, opened: i32, flags: u32) -> Self {
        self.u64(opened.cast_unsigned().into()).u32(flags).u32(0)
    }

    fn time(self, time: Timestamp) -> Self {
        self.u64(time.sec.cast_unsigned()).u32(time.nsec).u32(0)
    }

    /// `struct fuse_statx_out`, to be kept for `keep` seconds.
    pub(crate) fn statx(self, keep: u64, attr: &Attr) -> Self {
        /// `STATX_BASIC_STATS` and `STATX_BTIME`.
        const BASIC: u32 = 0x7ff;
        const BTIME: u32 = 0x800;
        let known = if attr.btime.is_some() { BASIC | BTIME } else { BASIC };
        self.u64(keep)
            .zeros(24)
            .u32(known)
            .u32(attr.block_size)
            .u64(0)
            .u32(attr.links)
            .u32(attr.uid)
            .u32(attr.gid)
            .u32(attr.mode & 0xffff)
            .u64(attr.ino)
            .u64(attr.size)
            .u64(attr.blocks)
            .u64(0)
            .time(attr.atime)
            .time(attr.btime.unwrap_or_default())
            .time(attr.ctime)
            .time(attr.mtime)
            .u32(attr.device.major)
            .u32(attr.device.minor)
            .zeros(8 + 14 * 8)
    }
}

/// Bytes of `struct fuse_entry_out`.
const ENTRY: usize = 128;
/// Bytes of `struct fuse_dirent` before the name.
const DIRENT: usize = 24;

/// A part of a directory, of no more bytes than the kernel asked for.
#[derive(Debug)]
pub(crate) struct Listing {
    out: Out,
    most: usize,
}

impl Listing {
    pub(crate) fn new(most: usize) -> Self {
        Self { out: Out::default(), most }
    }

    /// Adds a name, behind its entry if there is one (`struct fuse_direntplus`). `next` is where the listing goes on
    /// behind it, `kind` the upper bits of a mode. Gives false, and adds nothing, if there is no room.
    #[must_use]
    pub(crate) fn add(&mut self, entry: Option<Out>, ino: u64, next: u64, kind: u32, name: &[u8]) -> bool {
        let before = self.out.0.len();
        let plus = entry.as_ref().map_or(0, |entry| entry.0.len());
        let len = (DIRENT + name.len()).next_multiple_of(8);
        if before + plus + len > self.most {
            return false;
        }
        let mut out = std::mem::take(&mut self.out);
        if let Some(entry) = entry {
            out = out.bytes(&entry.0);
        }
        // OK to cast: names have 255 bytes at most.
        out = out.u64(ino).u64(next).u32(name.len() as u32).u32(kind >> 12).bytes(name);
        self.out = out.zeros(len - DIRENT - name.len());
        true
    }

    pub(crate) fn finish(self) -> Out {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_have_the_sizes_of_the_kernels_structures() {
        let attr = Attr {
            ino: 2,
            size: 0,
            blocks: 0,
            atime: Timestamp::default(),
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
            btime: None,
            mode: 0o040_755,
            links: 2,
            uid: 0,
            gid: 0,
            device: DeviceNr { major: 0, minor: 0 },
            block_size: 4096,
        };
        let entry = Entry { node: 1, generation: 0, attr };
        assert_eq!(Out::default().attr(1, &attr).0.len(), 104);
        assert_eq!(Out::default().entry(1, &entry).0.len(), ENTRY);
        assert_eq!(Out::default().no_entry(1).0.len(), ENTRY);
        assert_eq!(Out::default().statx(1, &attr).0.len(), 288);
        assert_eq!(Out::default().open(0, 0).0.len(), 16);
    }

    #[test]
    fn requests_that_are_cut_off_are_none_and_their_fields_are_errors() {
        let mut bytes = vec![0; HEADER];
        bytes[0] = HEADER as u8;
        assert!(Request::parse(&bytes).is_some());
        assert!((0..HEADER).all(|len| Request::parse(&bytes[..len]).is_none()));
        bytes[0] += 1;
        assert!(Request::parse(&bytes).is_none());
        bytes.push(b'x');
        let mut fields = Request::parse(&bytes).unwrap().fields();
        assert!(fields.u64().is_err() && fields.u32().is_err() && fields.name().is_err());
        bytes[0] = 0;
        assert!(Request::parse(&bytes).is_none());
    }

    #[test]
    fn a_listing_holds_whole_entries_and_no_more_than_asked() {
        let mut listing = Listing::new(64);
        assert!(listing.add(None, 5, 1, 0o100_000, b"name"));
        assert!(listing.add(None, 6, 2, 0o040_000, b"12345678"));
        assert!(!listing.add(None, 7, 3, 0o040_000, b""));
        let bytes = listing.finish().0;
        assert_eq!(bytes.len(), 64);
        assert_eq!((bytes[16], bytes[20], &bytes[24..28]), (4, 8, b"name".as_slice()));
    }
}
