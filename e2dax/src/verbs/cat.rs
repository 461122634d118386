//! `cat`: the bytes of files.

use std::ffi::OsString;

use ext2_core::{Follow, Inode};

use crate::context::Context;
use crate::failure::{Of, Result};
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

    /// Write at most so many bytes of each file
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
        let read = inode.read_at(at, buffer.get_mut(..want).unwrap_or_default()).of(|| target.name())?;
        if read == 0 {
            return Ok(());
        }
        context.out.bytes(buffer.get(..read).unwrap_or_default())?;
        at += read as u64;
    }
}
