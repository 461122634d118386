//! A member of an archive: a header, before it what the header does not hold.

use std::io::Write;

use ext2_core::{Attr, FileKind, Timestamp};

use super::acl;
use super::header::{BLOCK, Header, MAX_7, MAX_11, cut};
use super::records::{Records, decimal, fflags, xattr_keyword};
use crate::manifest::AttributeFlags;

/// What is said of a member besides the attributes of its inode.
pub(super) struct Member<'m> {
    /// Its path in the archive; a directory's ends in `/`.
    pub(super) path: &'m [u8],
    /// The type of a header.
    pub(super) kind: u8,
    /// Target of a symbolic or hard link.
    pub(super) link: &'m [u8],
    /// Bytes that follow.
    pub(super) stored: u64,
    /// The size of a sparse file.
    pub(super) sparse: Option<u64>,
}

/// The type of a header for a kind of file; `None` for a socket.
pub(super) fn kind_of(kind: FileKind) -> Option<u8> {
    Some(match kind {
        FileKind::Regular => b'0',
        FileKind::Symlink => b'2',
        FileKind::CharDevice => b'3',
        FileKind::BlockDevice => b'4',
        FileKind::Directory => b'5',
        FileKind::Fifo => b'6',
        FileKind::Socket => return None,
    })
}

impl Member<'_> {
    /// Writes records and header. A hard link says nothing of its inode but what a header needs.
    pub(super) fn write(
        &self,
        attr: &Attr,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        out: &mut dyn Write,
    ) -> std::io::Result<()> {
        let records = self.records(attr, xattrs);
        if !records.bytes().is_empty() {
            write_records(&records, b'x', b"././@PaxHeader", out)?;
        }
        let device = attr.device.map_or((0, 0), |device| (device.major, device.minor));
        let header = Header {
            kind: self.kind,
            mode: attr.mode,
            uid: attr.uid.into(),
            gid: attr.gid.into(),
            size: self.stored,
            mtime: u64::try_from(attr.mtime.sec).unwrap_or(0),
            device,
        };
        // The name of a sparse file as GNU tar has it, for tools that do not know of holes.
        let path = match self.sparse {
            Some(_) => sparse_name(self.path),
            None => self.path.to_vec(),
        };
        out.write_all(&header.to_bytes(&path, self.link))
    }

    fn records(&self, attr: &Attr, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Records {
        let mut records = Records::default();
        match self.sparse {
            Some(size) => {
                records.add(b"GNU.sparse.major", b"1");
                records.add(b"GNU.sparse.minor", b"0");
                records.add(b"GNU.sparse.name", self.path);
                records.add(b"GNU.sparse.realsize", size.to_string().as_bytes());
            }
            None if cut(self.path).is_none() => records.add(b"path", self.path),
            None => {}
        }
        if self.link.len() > 100 {
            records.add(b"linkpath", self.link);
        }
        for (keyword, number, max) in [
            (&b"uid"[..], u64::from(attr.uid), MAX_7),
            (b"gid", u64::from(attr.gid), MAX_7),
            (b"size", self.stored, MAX_11),
        ] {
            if number > max {
                records.add(keyword, number.to_string().as_bytes());
            }
        }
        let Timestamp { sec, nsec } = attr.mtime;
        if nsec != 0 || !u64::try_from(sec).is_ok_and(|sec| sec <= MAX_11) {
            records.add(b"mtime", decimal(attr.mtime).as_bytes());
        }
        if self.kind == b'1' {
            return records;
        }
        for (keyword, time) in [
            (&b"atime"[..], Some(attr.atime)),
            (b"ctime", Some(attr.ctime)),
            (b"LIBARCHIVE.creationtime", attr.crtime),
        ] {
            if let Some(time) = time.filter(|&time| time != attr.mtime) {
                records.add(keyword, decimal(time).as_bytes());
            }
        }
        let flags = AttributeFlags::from_inode_flags(attr.flags.bits());
        if !flags.is_empty() {
            records.add(b"SCHILY.fflags", fflags(flags.bits()).as_bytes());
        }
        for (name, value) in xattrs {
            match acl::record(name, value) {
                Some((keyword, text)) => records.add(keyword, text.as_bytes()),
                None => records.add(&xattr_keyword(name), value),
            }
        }
        records
    }
}

/// `dir/GNUSparseFile.0/name`.
fn sparse_name(path: &[u8]) -> Vec<u8> {
    let at = path.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
    let (folder, name) = path.split_at(at);
    [folder, b"GNUSparseFile.0/", name].concat()
}

/// Writes a remark about the archive as a whole.
pub(super) fn write_comment(text: &[u8], out: &mut dyn Write) -> std::io::Result<()> {
    let mut records = Records::default();
    records.add(b"comment", text);
    write_records(&records, b'g', b"pax_global_header", out)
}

/// Writes records as a member of their own: about the next member (`x`), or about all that follow (`g`).
fn write_records(records: &Records, kind: u8, name: &[u8], out: &mut dyn Write) -> std::io::Result<()> {
    let bytes = records.bytes();
    let header = Header { kind, mode: 0o644, size: bytes.len() as u64, ..Header::default() };
    out.write_all(&header.to_bytes(name, b""))?;
    out.write_all(bytes)?;
    let rest = bytes.len() % BLOCK;
    if rest > 0 { out.write_all(&[0; BLOCK][rest..]) } else { Ok(()) }
}
