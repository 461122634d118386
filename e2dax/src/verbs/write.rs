//! `write`: bytes from the standard input.

use std::ffi::OsString;
use std::io::Read as _;

use ext2_core::{Errno, FileKind, Follow, Inode, NewInode, Wait};

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::images::change;
use crate::target::Target;
use crate::text::{parse_bytes, parse_octal};

/// Write the standard input to a file in an image
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  echo hello | e2dax write --replace disk.img:/etc/motd
  e2dax write --at 4096 disk.img:/data < page")]
pub(crate) struct Args {
    /// The file; created if it does not exist
    #[arg(value_name = "IMG:/PATH")]
    target: OsString,

    /// Begin at this byte of the file
    #[arg(long, value_name = "OFFSET", value_parser = parse_bytes, default_value = "0")]
    at: u64,

    /// Begin at the end of the file
    #[arg(short, long, conflicts_with_all = ["at", "replace"])]
    append: bool,

    /// Truncate the file after what is written
    #[arg(short, long)]
    replace: bool,

    /// Permissions of a new file, octal
    #[arg(short, long, value_name = "BITS", value_parser = parse_octal, default_value = "644")]
    mode: u16,
}

/// Bytes moved at once.
const CHUNK: usize = 1 << 20;

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse(&args.target)?;
    change(context, |context, images| {
        let fs = images.get(context, &target)?;
        let inode = match target.find_to_change(&fs, Follow::Yes) {
            Err(error) if error.is(Errno::NOENT) => {
                let (parent, name) = images.parent_of_file(context, &target)?;
                parent.create(name, &NewInode::new(FileKind::Regular, args.mode))
            }
            other => other,
        };
        let inode = inode.of(|| target.name())?;
        // Before anything is read, and also where there is nothing to read.
        if inode.kind() == FileKind::Directory {
            return Err(ext2_core::Error::Caller(Errno::ISDIR, "")).of(|| target.name());
        }
        let at = if args.append { inode.size() } else { args.at };
        let end = fill(&target, &inode, at)?;
        if args.replace && inode.size() > end {
            inode.truncate(end, Wait::Yes).of(|| target.name())?;
        }
        Ok(())
    })
}

/// Writes all there is to read, and gives the offset after it.
fn fill(target: &Target, inode: &Inode, mut at: u64) -> Result<u64> {
    let mut input = std::io::stdin().lock();
    let mut buffer = vec![0; CHUNK];
    loop {
        let mut have = 0;
        // Fill the buffer: a pipe gives little at a time, and long runs of blocks are best.
        while have < CHUNK {
            match input.read(buffer.get_mut(have..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(read) => have += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::new("standard input", error)),
            }
        }
        if have == 0 {
            return Ok(at);
        }
        at = write_all(inode, at, buffer.get(..have).unwrap_or_default()).of(|| target.name())?;
    }
}

/// Writes all of `bytes`, or fails; gives the offset after them.
pub(super) fn write_all(inode: &Inode, mut at: u64, mut bytes: &[u8]) -> ext2_core::Result<u64> {
    while !bytes.is_empty() {
        let written = inode.write_at(at, bytes)?;
        if written == 0 {
            return Err(ext2_core::Error::Caller(Errno::NOSPC, ""));
        }
        at += written as u64;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(at)
}
