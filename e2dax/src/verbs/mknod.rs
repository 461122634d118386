//! `mknod`, `mkfifo`: device files, pipes and sockets.

use std::ffi::OsString;

use ext2_core::{DeviceNr, FileKind, NewInode};

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::images::{change, for_each};
use crate::target::Target;
use crate::text::parse_octal;

/// Make a device file, pipe or socket in an image
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax mknod disk.img:/dev/console c 5 1
  e2dax mknod -m 660 disk.img:/dev/sda b 8 0
  e2dax mknod disk.img:/run/pipe p

It belongs to 0:0. No privileges are needed.")]
pub(crate) struct Args {
    /// What to make
    #[arg(value_name = "IMG:/PATH")]
    target: OsString,

    /// b for a block device, c or u for a character device, p for a pipe, s for a socket
    #[arg(value_name = "TYPE", value_parser = parse_kind)]
    kind: FileKind,

    /// The major number of a device, 0 to 4095
    #[arg(value_name = "MAJOR", value_parser = clap::value_parser!(u32).range(..4096), requires = "minor")]
    major: Option<u32>,

    /// The minor number of a device, 0 to 1048575
    #[arg(value_name = "MINOR", value_parser = clap::value_parser!(u32).range(..1 << 20))]
    minor: Option<u32>,

    /// Permissions, octal
    #[arg(short, long, value_name = "BITS", value_parser = parse_octal, default_value = "644")]
    mode: u16,
}

/// Make named pipes in an image
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  e2dax mkfifo -m 600 disk.img:/run/initctl")]
pub(crate) struct FifoArgs {
    /// Pipes to make
    #[arg(value_name = "IMG:/PATH", required = true)]
    targets: Vec<OsString>,

    /// Permissions, octal
    #[arg(short, long, value_name = "BITS", value_parser = parse_octal, default_value = "644")]
    mode: u16,
}

fn parse_kind(text: &str) -> Result<FileKind, String> {
    match text {
        "b" => Ok(FileKind::BlockDevice),
        "c" | "u" => Ok(FileKind::CharDevice),
        "p" => Ok(FileKind::Fifo),
        "s" => Ok(FileKind::Socket),
        _ => Err("one of b, c, u, p, s".into()),
    }
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let is_device = matches!(args.kind, FileKind::BlockDevice | FileKind::CharDevice);
    let device = match (args.major, args.minor) {
        (Some(major), Some(minor)) if is_device => Some(DeviceNr { major, minor }),
        (None, None) if !is_device => None,
        _ if is_device => return Err(Failure::usage(&args.target, "a device file needs MAJOR and MINOR")),
        _ => return Err(Failure::usage(&args.target, "only a device file has MAJOR and MINOR")),
    };
    let target = Target::parse(&args.target)?;
    change(context, |context, images| {
        let (parent, name) = images.parent_of_file(context, &target)?;
        let new = NewInode { device, ..NewInode::new(args.kind, args.mode) };
        parent.create(name, &new).of(|| target.name())?;
        Ok(())
    })
}

pub(crate) fn run_fifo(args: &FifoArgs, context: &mut Context) -> Result<()> {
    for_each(context, &args.targets, |context, images, target| {
        let (parent, name) = images.parent_of_file(context, target)?;
        parent.create(name, &NewInode::new(FileKind::Fifo, args.mode)).of(|| target.name())?;
        Ok(())
    })
}
