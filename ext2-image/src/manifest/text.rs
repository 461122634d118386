//! A manifest as text.

use alloc::string::String;
use core::fmt::{self, Write};

use super::{
    Entry, Inode, Kind, Manifest, Node, Time, VERSION, Xattr, quote,
    quote::{push_hex, push_quoted},
};

impl fmt::Display for Manifest {
    /// The whole text: the line of the version, the `fs` line where there is one, a line for each entry.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "e2dax-manifest {VERSION}")?;
        if !self.filesystem().is_empty() {
            f.write_str("fs")?;
            for (key, value) in self.filesystem() {
                write!(f, " {key}={}", quote(value))?;
            }
            f.write_char('\n')?;
        }
        self.entries().iter().try_for_each(|entry| writeln!(f, "{entry}"))
    }
}

impl fmt::Display for Entry {
    /// The line of the entry, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = quote(&self.path);
        match &self.node {
            Node::HardLink(first) => write!(f, "{path} h hardlink={}", quote(first)),
            Node::Inode(inode) => write!(f, "{path} {inode}"),
        }
    }
}

impl fmt::Display for Inode {
    /// The line of the inode after its path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:04o} {} {} ", self.kind.letter(), self.mode, self.uid, self.gid)?;
        number_or_dash(f, self.size)?;
        f.write_char(' ')?;
        number_or_dash(f, self.nlink.map(u64::from))?;
        let times =
            [("atime", self.atime), ("mtime", self.mtime), ("ctime", self.ctime), ("crtime", self.crtime)];
        for (key, time) in times {
            if let Some(time) = time {
                write!(f, " {key}={time}")?;
            }
        }
        match &self.kind {
            Kind::Symlink { target } => write!(f, " target={}", quote(target))?,
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                write!(f, " dev={major}:{minor}")?;
            }
            Kind::File { .. } | Kind::Directory | Kind::Fifo | Kind::Socket => {}
        }
        if !self.xattrs.is_empty() {
            write!(f, " xattr={}", xattr_list(&self.xattrs))?;
        }
        if !self.flags.is_empty() {
            write!(f, " flags={}", self.flags.letters())?;
        }
        if let Kind::File { holes, crc } = &self.kind {
            for (index, hole) in holes.iter().enumerate() {
                let lead = if index == 0 { " holes=" } else { "," };
                write!(f, "{lead}{}+{}", hole.offset, hole.length)?;
            }
            if let Some(crc) = crc {
                write!(f, " crc={crc:08x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Time {
    /// Seconds, and where they are not zero a dot and nine digits of nanoseconds to add.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seconds)?;
        if self.nanoseconds != 0 { write!(f, ".{:09}", self.nanoseconds) } else { Ok(()) }
    }
}

/// `name:hex,name:hex`, as the `xattr` field has it.
pub(super) fn xattr_list(xattrs: &[Xattr]) -> String {
    let mut out = String::new();
    for (index, xattr) in xattrs.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_quoted(&mut out, &xattr.name, b",:");
        out.push(':');
        xattr.value.iter().for_each(|&byte| push_hex(&mut out, byte));
    }
    out
}

/// A number, or `-` where it is not said.
fn number_or_dash(f: &mut fmt::Formatter<'_>, number: Option<u64>) -> fmt::Result {
    match number {
        Some(number) => write!(f, "{number}"),
        None => f.write_char('-'),
    }
}
