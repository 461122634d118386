//! The life of a mount: from the mount point to the last write.

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use ext2_core::Ext2;
use fuser::{
    Config, Filesystem, InitFlags, KernelConfig, MountOption, Request, Session, SessionACL, SessionUnmounter,
};
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::awake::Awake;
use crate::channel::Channel;
use crate::filesystem::Served;
use crate::options::{Access, Atime, MountOptions};
use crate::populate;
use crate::turns::Turns;
use crate::volume::Volume;

/// Where the kernel is talked to.
const DEVICE: &str = "/dev/fuse";
/// How long an unmounted session may take to end before it is ended, and how long no write comes before it is
/// believed that none will.
const PATIENCE: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_millis(200);
/// How long writes of a mount that is ended in use are waited for.
const MOST_QUIET: u32 = 50;
/// How often what waits in the log is committed.
const COMMIT: Duration = Duration::from_secs(1);

/// Why a mount did not come up, or did not end well.
#[derive(Debug)]
#[non_exhaustive]
pub enum MountError {
    /// The file system: the root cannot be read, or it could not be closed cleanly.
    FileSystem(ext2_core::Error),
    /// The mount point, the kernel or fusermount3.
    Mount(io::Error),
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FileSystem(error) => write!(f, "{error}"),
            Self::Mount(error) => {
                let text = error.to_string();
                // fusermount3 ends its message with a line end, the standard library with a number.
                f.write_str(text.split(" (os error").next().unwrap_or(&text).trim_end())
            }
        }
    }
}

impl std::error::Error for MountError {}

impl From<ext2_core::Error> for MountError {
    fn from(error: ext2_core::Error) -> Self {
        Self::FileSystem(error)
    }
}

impl From<io::Error> for MountError {
    fn from(error: io::Error) -> Self {
        Self::Mount(error)
    }
}

/// How a session ended.
enum End {
    /// It was unmounted.
    Unmounted(io::Result<()>),
    /// A signal came, and somebody still used it.
    Forced,
}

fn config(source: &Path, options: &MountOptions) -> Config {
    let is_root = rustix::process::geteuid().is_root();
    let source = options.fsname.clone().unwrap_or_else(|| source.to_string_lossy().into_owned());
    let subtype = options.subtype.clone().unwrap_or_else(|| "e2dax".into());
    let mut list = vec![
        // A comma would end the name.
        MountOption::FSName(source.replace(',', "\\,")),
        MountOption::DefaultPermissions,
    ];
    if is_root && !options.auto_unmount {
        // Straight to the kernel, which takes the subtype as an option.
        list.push(MountOption::CUSTOM(format!("subtype={subtype}")));
    } else {
        list.push(MountOption::Subtype(subtype));
    }
    let mut flag = |wanted: bool, option: MountOption| {
        if wanted {
            list.push(option);
        }
    };
    flag(options.read_only, MountOption::RO);
    // A file system of root's is as trusted as any that root mounts.
    flag(is_root && !options.nodev, MountOption::Dev);
    flag(is_root && !options.nosuid, MountOption::Suid);
    flag(options.noexec, MountOption::NoExec);
    flag(options.atime == Atime::Never, MountOption::NoAtime);
    flag(options.sync, MountOption::Sync);
    flag(options.dirsync, MountOption::DirSync);
    flag(options.auto_unmount, MountOption::AutoUnmount);
    let mut config = Config::default();
    config.mount_options = list;
    config.acl = match options.access {
        Access::Owner => SessionACL::Owner,
        Access::OwnerAndRoot => SessionACL::RootAndOwner,
        Access::Everybody => SessionACL::All,
    };
    config
}

/// What the kernel is asked for, where it has it. Not `FUSE_ASYNC_DIO`: of a direct write that is under way on its own the kernel
/// does not drop what somebody has read of its pages meanwhile, and shows that from then on.
const WANTED: [InitFlags; 13] = [
    InitFlags::FUSE_ASYNC_READ,
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

/// Bytes of the largest read or write that is asked for; the kernel has a limit of its own. A reply of this many fits a
/// pipe as everybody may have it; 1 MiB was no faster.
const MAX_WRITE: u32 = 512 << 10;
/// Bytes of the largest request: a write with all that stands before its data.
const MAX_REQUEST: usize = MAX_WRITE as usize + 4096;
/// Requests that the kernel may have under way without anybody waiting: readahead and write-back.
const MAX_BACKGROUND: u16 = 64;

/// The first words with the kernel, which `fuser` has for us; all that follow are ours.
#[derive(Debug)]
struct Handshake(Arc<Volume>);

impl Filesystem for Handshake {
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
}

/// Answers the kernel with several threads, until the file system is unmounted.
fn work(served: &Served) -> io::Result<()> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let count = served.volume.options.threads.map_or((2 * cores).clamp(4, 16), usize::from);
    let turns = Arc::new(Turns::new(cores));
    let mut workers = Vec::with_capacity(count);
    for n in 0..count {
        let (served, turns) = (served.clone(), turns.clone());
        let worker = thread::Builder::new().name(format!("fuse-{n}"));
        workers.push(worker.spawn(move || served.work(&turns, &mut vec![0; MAX_REQUEST]))?);
    }
    let mut result = Ok(());
    for worker in workers {
        let end =
            worker.join().unwrap_or_else(|_| Err(io::Error::other("a thread that answers the kernel died")));
        result = result.and(end);
    }
    result
}

/// Mounts `fs` on the directory `dir` and serves it until it is unmounted, or until SIGTERM, SIGINT or SIGHUP.
///
/// `source` is what the table of mounts shows, `ready` is called once the mount can be used. When this returns,
/// everything is durable and the image is marked as clean (if it was when it was opened).
///
/// # Errors
/// `Mount` when it does not come up or the kernel's end breaks; `FileSystem` when the file system cannot be closed.
pub fn serve(
    fs: Ext2,
    source: &Path,
    dir: &Path,
    options: &MountOptions,
    ready: impl FnOnce(),
) -> Result<(), MountError> {
    let dir = dir.canonicalize()?;
    if !dir.is_dir() {
        return Err(MountError::Mount(rustix::io::Errno::NOTDIR.into()));
    }
    // Asked first, because whoever may not open it is told no more than that something is not permitted.
    if let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open(DEVICE) {
        return Err(MountError::Mount(io::Error::new(error.kind(), format!("{DEVICE}: {error}"))));
    }
    // An image that outgrows the limit of this process is an error of the write that does it, and not our end.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    // Signals that come from here on end a mount that is up, and wait for one that is not.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let volume = Arc::new(Volume::new(fs, options)?);
    // Never dropped: it would unmount what is mounted at that place by then, which need not be this any more.
    let mut session =
        ManuallyDrop::new(Session::new(Handshake(volume.clone()), &dir, &config(source, options))?);
    let channel = Channel::new(session.as_fd().try_clone_to_owned()?, Awake::new(options.awake))?;
    let channel = Arc::new(channel);
    // Set once, here.
    let _ = volume.kernel.set(channel.clone());
    let served = Served { volume: volume.clone(), channel };
    let unmounter = session.unmount_callable();
    let (end, ended) = mpsc::channel();
    let over = Arc::new(AtomicBool::new(false));
    {
        let (end, volume, dir, over) = (end.clone(), volume.clone(), dir.clone(), over.clone());
        let wait = move || wait_for_signal(signals, &volume, &dir, unmounter, &over, &end);
        thread::Builder::new().name("signals".into()).spawn(wait)?;
    }
    thread::Builder::new().name("session".into()).spawn(move || {
        // Nobody listens any more when the end was forced.
        let _ = end.send(End::Unmounted(work(&served)));
    })?;
    // Asks the mount itself, which is answered from here on.
    read_ahead_further(&dir);
    let committing = {
        let (volume, over) = (volume.clone(), over.clone());
        thread::Builder::new().name("commit".into()).spawn(move || commit_now_and_then(&volume, &over))?
    };
    // Without it, reads take their page faults.
    let populating = populate::start(volume.fs.clone(), over.clone());
    ready();
    let result = match ended.recv() {
        Ok(End::Unmounted(result)) => result.map_err(MountError::from),
        Ok(End::Forced) | Err(_) => Ok(()),
    };
    over.store(true, Ordering::Release);
    if let Ok(thread) = populating {
        // Had it panicked, nothing would be missing but speed.
        let _ = thread.join();
    }
    committing.thread().unpark();
    // Had it panicked, closing commits all the same.
    let _ = committing.join();
    volume.close()?;
    result
}

/// Commits what waits in the log, until the mount is over. A commit that fails ends all writing, and is told to
/// whoever asks for the next.
fn commit_now_and_then(volume: &Volume, over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        thread::park_timeout(COMMIT);
        if !over.load(Ordering::Acquire)
            && volume.fs.has_uncommitted()
            && let Err(error) = volume.fs.sync()
        {
            log::error!("{error}");
        }
    }
}

/// The kernel reads 128 KiB ahead of a program; root may have it read as much as two requests bring, so that one is
/// answered while the program takes what the other brought.
fn read_ahead_further(dir: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    if let Ok(stat) = rustix::fs::stat(dir) {
        let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
        let place: PathBuf = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb").into();
        if let Err(error) = std::fs::write(place, "1024") {
            log::debug!("the kernel reads no further ahead: {error}");
        }
    }
}

/// Ends the mount when a signal comes.
fn wait_for_signal(
    mut signals: Signals,
    volume: &Volume,
    dir: &Path,
    mut unmounter: SessionUnmounter,
    over: &AtomicBool,
    end: &Sender<End>,
) {
    let Some(signal) = signals.forever().next() else { return };
    log::info!("signal {signal}: unmounting");
    // What only the kernel has comes now, while all threads are there to take it.
    write_back(dir);
    if unmounter.unmount().is_ok() {
        // As an ordinary user it may only be detached, and still in use; the main thread goes on when it is not. Root's is
        // gone, and the session ends, however busy the machine is.
        let patience = if rustix::process::geteuid().is_root() { 10 * PATIENCE } else { PATIENCE };
        let begin = Instant::now();
        while !over.load(Ordering::Acquire) && begin.elapsed() < patience {
            thread::sleep(PATIENCE / 100);
        }
    }
    if !over.load(Ordering::Acquire) {
        log::warn!("{} is still in use", dir.display());
        // It may be gone already.
        let _ = rustix::mount::unmount(dir, UnmountFlags::DETACH);
        for _ in 0..MOST_QUIET {
            if u128::from(volume.quiet_for()) >= QUIET.as_millis() {
                break;
            }
            thread::sleep(QUIET);
        }
        // Nobody listens any more when the session has ended by itself.
        let _ = end.send(End::Forced);
    }
}

/// Has the kernel write back all it gathered for the mount.
fn write_back(dir: &Path) {
    let (done, wait) = mpsc::channel();
    let dir = dir.to_path_buf();
    let sync = move || {
        let result = rustix::fs::open(&dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .and_then(rustix::fs::syncfs);
        // Nobody waits any more when it took too long.
        let _ = done.send(result);
    };
    if thread::Builder::new().name("sync".into()).spawn(sync).is_err() {
        return;
    }
    match wait.recv_timeout(5 * PATIENCE) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::warn!("pages were not written back: {error}"),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            log::warn!("pages were not written back in time");
        }
    }
}
