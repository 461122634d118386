//! `mount`: an image as a directory, through FUSE.

mod background;
mod helper;

pub(crate) use helper::as_helper;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use blockdev::{BlockDevice, Partition};
use e2dax_fuse::{Durability, MountError, MountOptions};
use ext2_core::{Ext2, OpenOptions};

use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::settle::settle;
use crate::target::{DeviceKind, Mode, Target};
use crate::text::show_os;

/// Mount an image on a directory, for any program, without the kernel's ext2 and without root
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  e2dax mount a.img /mnt
  e2dax mount disk.img@p1 /mnt -o ro,allow_other
  umount /mnt                      (fusermount3 -u /mnt without root)
  flock a.img true                 waits until it is closed: umount returns when the kernel is done with it, and what
                                   serves it then writes the rest, marks the image as clean and unlocks it

Options behind -o, with commas between them:
  ro, sync, dirsync, noatime, relatime (default), strictatime, nodiratime, nodev, nosuid, noexec
  allow_other, allow_root          who else may use it
  uid=N, gid=N                     show all files as owned by N
  durability=ordered (default)     changes reach the image together, once a second and with each fsync, through a log in
                                   the image that goes when it is unmounted: a power cut loses what was not made
                                   durable in the last seconds, and e2fsck -p mends the rest without a question. An
                                   image without room for a log is mounted as with strict
  durability=strict                each step of a change is on the disk before the next: several times as slow
  durability=relaxed               the system writes in any order: nothing waits, a killed process loses nothing, and
                                   after a power cut e2fsck may need a person. fsync keeps a file in any case
                                   (and with ordered all else; the kernel does not tell a FUSE mount of sync(1) or
                                   syncfs(2) without a file: `sync /mnt` is an fsync, and keeps all)
  errors=continue, errors=remount-ro
                                   what to do when the image turns out to be broken
  norecovery                       with ro: read an image whose journal was not replayed as it is (noload is the same)
  offset=BYTES                     where the file system begins in the image
  fsname=NAME, subtype=NAME        what the table of mounts shows
  direct_io                        read and write past the kernel's cache of pages: large calls are faster and
                                   nothing is held twice in memory; small ones wait for an answer each. Shared maps
                                   need Linux 6.6, and a program that writes to a page beside one that stores to
                                   it through a map may undo what that one stored
  awake                            while requests come close together, keep all idle processors of the machine from
                                   sleeping, which makes each some times as fast (root)
  writeback_cache                  have the kernel gather writes: small ones are faster, but a full image or a file that
                                   is too large is told by fsync and close alone, and programs that ask neither lose
                                   data without a word
  threads=N, auto_unmount, debug
`fstrim /mnt` gives the room of free blocks back to the host.
Options of mount(8) and fstab that are meant for other programs are ignored. Permissions are always checked by the kernel.

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
    if options.ignore_journal && !options.read_only {
        return Err(Failure::usage(
            "norecovery".as_ref(),
            "goes with ro: what is written needs the journal's changes",
        ));
    }
    context.image.ignore_journal |= options.ignore_journal;
    if options.remount {
        return e2dax_fuse::remount(&args.dir, &options).map_err(|error| Failure::host(&args.dir, error));
    }
    if !args.tell_when_ready {
        if (args.debug || options.debug) && std::env::var_os("E2DAX_LOG").is_none() {
            return background::again_with_log();
        }
        if !(args.foreground || args.debug || options.debug) {
            return background::start(context);
        }
    }
    let target = Target::parse_image(&args.image)?;
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
    let media = match options.durability {
        Durability::Relaxed => blockdev::Durability::Relaxed,
        Durability::Strict | Durability::Ordered => blockdev::Durability::Strict,
    };
    let mut device = open_patiently(target, context, mode, media)?;
    if let Some(offset) = options.offset {
        let part: Arc<dyn BlockDevice> =
            Arc::new(Partition::from_offset(device, offset).of(|| target.image_name())?);
        device = part;
    }
    settle(target, &device, context)?;
    let how = OpenOptions {
        read_only: options.read_only,
        superblock: context.image.superblock_on(&*device, &target.image_name())?,
        ignore_journal: context.image.ignore_journal,
        errors: options.errors,
        log: options.durability == Durability::Ordered && context.image.device() != DeviceKind::Ram,
        clock: Some(Arc::new(e2dax_fuse::CoarseClock)),
        keep_reserved: !rustix::process::geteuid().is_root(),
        ..OpenOptions::default()
    };
    Ext2::open(device, &how).of(|| target.image_name())
}

/// How long an image may be locked by a mount that has just come down.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens the device. `umount` returns before what served the mount has closed the image: unless it is mounted still, its
/// lock is waited for.
fn open_patiently(
    target: &Target,
    context: &Context,
    mode: Mode,
    media: blockdev::Durability,
) -> Result<Arc<dyn BlockDevice>> {
    let begin = Instant::now();
    loop {
        match target.open_device(&context.image, mode, media) {
            Err(failure)
                if failure.is_locked() && begin.elapsed() < PATIENCE && !is_mounted(&target.image) =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

/// Whether the table of mounts has the image as a source of ours.
fn is_mounted(image: &Path) -> bool {
    let (Ok(image), Ok(table)) = (image.canonicalize(), std::fs::read("/proc/self/mounts")) else {
        return false;
    };
    let image = image.as_os_str().as_bytes();
    // As the table has it: blanks, tabs, line ends and backslashes as octal numbers.
    let escaped: Vec<u8> = image
        .iter()
        .flat_map(|&byte| match byte {
            b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
            byte => vec![byte],
        })
        .collect();
    let source = |line: &[u8]| line.split(|byte| *byte == b' ').next().map(<[u8]>::to_vec);
    table.split(|byte| *byte == b'\n').any(|line| source(line).is_some_and(|source| source == escaped))
}

/// The name by which this program was called, without folders.
fn called_as(arguments: &[OsString]) -> &[u8] {
    arguments.first().and_then(|name| Path::new(name).file_name()).map_or(b"", |name| name.as_bytes())
}
