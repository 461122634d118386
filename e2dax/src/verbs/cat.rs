//! `cat`: the bytes of files.

use std::ffi::OsString;

use ext2_core::{Follow, Inode};

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::target::{Mode, Target};

/// Write files to the standard output
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax cat disk.img:/etc/passwd
  e2dax cat --at 1048576 --len 512 disk.img:/data | xxd")]
pub(crate) struct Args {
    /// Files, each as IMG:/path
    #[arg(value_name = "IMG:/PATH", required = true)]
    targets: Vec<OsString>,

    /// Begin at this byte of each file
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    at: u64,

    /// Write at most this many bytes of each file
    #[arg(long, value_name = "BYTES")]
    len: Option<u64>,
}

/// Bytes moved at once.
const CHUNK: usize = 256 << 10;

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    for argument in &args.targets {
        let written = Target::parse(argument).and_then(|target| {
            let (_fs, inode) = target.resolve(&context.image, Mode::Read, Follow::Yes)?;
            write(args, context, &target, &inode)
        });
        context.or_complain(written)?;
    }
    Ok(())
}

fn write(args: &Args, context: &mut Context, target: &Target, inode: &Inode) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = args.at;
    let end = args.len.map_or(u64::MAX, |len| at.saturating_add(len));
    loop {
        // OK to cast: at most the buffer's length.
        let want = end.saturating_sub(at).min(CHUNK as u64) as usize;
        let part = buffer.get_mut(..want).unwrap_or_default();
        let read = match inode.read_at(at, part) {
            Err(error) if context.image.rescue => {
                let read = rescue(inode, at, part);
                context.complain(&Failure::new(target.name(), error));
                read
            }
            read => read.of(|| target.name())?,
        };
        if read == 0 {
            return Ok(());
        }
        context.out.bytes(buffer.get(..read).unwrap_or_default())?;
        at += read as u64;
    }
}

/// Reads what can be read block by block; the rest is zeros. Gives how many bytes the file has there.
fn rescue(inode: &Inode, at: u64, part: &mut [u8]) -> usize {
    let size = inode.fs().geometry().block_size.bytes();
    // OK to cast: at most the length of the buffer.
    let len = inode.size().saturating_sub(at).min(part.len() as u64) as usize;
    let part = part.get_mut(..len).unwrap_or_default();
    let mut done = 0;
    while done < part.len() {
        let here = at + done as u64;
        let count = ((size - here % size) as usize).min(part.len() - done);
        let block = part.get_mut(done..done + count).unwrap_or_default();
        if inode.read_at(here, block).is_err() {
            block.fill(0);
        }
        done += count;
    }
    len
}
