//! `mount`: an image as a directory, through FUSE.

mod background;
mod helper;

pub(crate) use helper::as_helper;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev::{BlockDevice, Partition};
use e2dax_fuse::{MountError, MountOptions};
use ext2_core::{Ext2, OpenOptions};

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::settle::settle;
use crate::target::{Mode, Target};
use crate::text::show_os;

/// Mount an image on a directory, for any program, without the kernel's ext2 and without root
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax mount a.img /mnt
  e2dax mount disk.img@p1 /mnt -o ro,allow_other
  umount /mnt                      (fusermount3 -u /mnt for who is not root)
  flock a.img true                 waits until it is closed: umount returns when the kernel is done with it, and what
                                   serves it then writes the rest, marks the image as clean and unlocks it

Options behind -o, with commas between them:
  ro, sync, dirsync, noatime, relatime (default), strictatime, nodiratime, nodev, nosuid, noexec
  allow_other, allow_root          who else may use it
  uid=N, gid=N                     show all files as owned by N
  errors=continue, errors=remount-ro
                                   what to do when the image turns out to be broken
  offset=BYTES                     where the file system begins in the image
  fsname=NAME, subtype=NAME        what the table of mounts shows
  direct_io                        read and write past the kernel's cache of pages: large calls are faster and
                                   nothing is held twice in memory; small ones wait for an answer each (shared
                                   maps need Linux 6.6)
  awake, no_awake                  while requests come close together, keep idle processors from sleeping, which
                                   makes each some times as fast (root; machines of up to 4 processors do it anyway)
  no_writeback_cache               hand on every write at once, so that it reports a full device itself
  threads=N, auto_unmount, debug
Options of mount(8) and fstab that are for others are passed over. Permissions are always checked by the kernel.

As mount.fuse.e2dax (a link to this program in /sbin) it is what mount(8) calls for the type fuse.e2dax, so that a
line in /etc/fstab works:
  /var/lib/a.img  /mnt  fuse.e2dax  ro,noauto  0 0")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMG")]
    image: OsString,

    /// The directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Options, with commas between them
    #[arg(short, value_name = "OPTS")]
    options: Vec<String>,

    /// Stay in the foreground
    #[arg(short)]
    foreground: bool,

    /// Log every request, in the foreground
    #[arg(short)]
    debug: bool,

    /// Tell on the standard output when the mount is ready, then let go of the terminal
    #[arg(long, hide = true)]
    tell_when_ready: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let mut options = MountOptions::default();
    for list in &args.options {
        options.add(list).map_err(|error| Failure::usage(list.as_ref(), error.to_string()))?;
    }
    if !args.tell_when_ready {
        if (args.debug || options.debug) && std::env::var_os("E2DAX_LOG").is_none() {
            return background::again_with_log();
        }
        if !(args.foreground || args.debug || options.debug) {
            return background::start(context);
        }
    }
    let target = Target::parse(&args.image)?;
    let fs = open(&target, &options, context)?;
    let source = target.image.canonicalize().map_err(|error| Failure::host(&target.image, error))?;
    let ready = || {
        if args.tell_when_ready {
            background::tell_ready();
        }
    };
    e2dax_fuse::serve(fs, &source, &args.dir, &options, ready).map_err(|error| match error {
        MountError::FileSystem(error) => Failure::new(target.image_name(), error),
        other => Failure::text(show_os(args.dir.as_os_str()), other.to_string()),
    })
}

/// The file system, for reading only where that is asked for: then nothing can be written.
fn open(target: &Target, options: &MountOptions, context: &Context) -> Result<Ext2> {
    let mode = if options.read_only { Mode::Read } else { Mode::Write };
    let mut device = target.open_device(&context.image, mode)?;
    if let Some(offset) = options.offset {
        let part: Arc<dyn BlockDevice> =
            Arc::new(Partition::from_offset(device, offset).of(|| target.image_name())?);
        device = part;
    }
    settle(target, &device, context)?;
    let how = OpenOptions {
        read_only: options.read_only,
        superblock: context.image.superblock.unwrap_or_default(),
        ignore_journal: context.image.ignore_journal,
        errors: options.errors,
        keep_reserved: !rustix::process::geteuid().is_root(),
        ..OpenOptions::default()
    };
    Ext2::open(device, &how).of(|| target.image_name())
}

/// The name by which this program was called, without folders.
fn called_as(arguments: &[OsString]) -> &[u8] {
    arguments.first().and_then(|name| Path::new(name).file_name()).map_or(b"", |name| name.as_bytes())
}
