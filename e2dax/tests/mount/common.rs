//! An image, mounted by the command for as long as a test needs it.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use e2dax_tests::tools;
use tempfile::TempDir;

/// How long a mount may take to come or go.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why images cannot be mounted through FUSE here, if so.
pub(crate) fn missing() -> Option<&'static str> {
    if !Path::new("/dev/fuse").exists() {
        return Some("no /dev/fuse");
    }
    if !rustix::process::geteuid().is_root() {
        return Some("these tests mount as root");
    }
    (!tools::have("mke2fs") || !tools::have("e2fsck")).then_some("no e2fsprogs")
}

/// Leaves the calling test, aloud, unless it can mount through FUSE.
macro_rules! need_fuse {
    () => {
        if let Some(reason) = crate::common::missing() {
            e2dax_tests::skip!("{reason}");
        }
    };
}
pub(crate) use need_fuse;

/// The command.
pub(crate) fn e2dax() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_e2dax"));
    command.env("LC_ALL", "C").env("E2DAX_LOG", "warn").stdin(Stdio::null());
    command
}

/// A fresh image in a folder of its own, which lies in memory where there is such a folder.
pub(crate) struct Image {
    pub(crate) folder: TempDir,
    pub(crate) path: PathBuf,
}

impl Image {
    /// Made by `mke2fs` with these arguments; `size` as it takes it.
    pub(crate) fn new(arguments: &[&str], size: &str) -> Self {
        let shm = Path::new("/dev/shm");
        let place = if shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("e2dax-fuse-").tempdir_in(place).unwrap();
        let path = folder.path().join("image");
        let path_text = path.to_str().unwrap().to_owned();
        let all = [&["-t", "ext2"], arguments, &[&path_text, size]].concat();
        tools::mke2fs(&all);
        Self { folder, path }
    }

    /// Mounted with these options behind `-o`.
    pub(crate) fn mount(&self, options: &str) -> Mount {
        Mount::new(&self.path, options)
    }

    /// e2fsck has nothing to say.
    pub(crate) fn check(&self) {
        tools::e2fsck_fn(&self.path).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// A mount; it comes down when it is dropped.
pub(crate) struct Mount {
    child: Option<Child>,
    folder: TempDir,
}

impl Mount {
    pub(crate) fn new(image: &Path, options: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("e2dax-mount-").tempdir().unwrap();
        let mut child = e2dax()
            .arg("mount")
            .args([image, folder.path()])
            .args(["-o", if options.is_empty() { "defaults" } else { options }])
            .args(["-f", "--tell-when-ready"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = Vec::new();
        child.stdout.take().unwrap().take(6).read_to_end(&mut told).unwrap();
        assert_eq!(told, b"ready\n", "the mount comes up");
        Self { child: Some(child), folder }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// The process that serves it.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// What that process has open: the link in /proc, and where it goes.
    pub(crate) fn open_files(&self) -> Vec<(PathBuf, PathBuf)> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        open.flatten()
            .filter_map(|entry| std::fs::read_link(entry.path()).ok().map(|target| (entry.path(), target)))
            .collect()
    }

    /// Sends a signal to that process.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.pid()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Waits for the process to end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let begin = Instant::now();
        let mut child = self.child.take().unwrap();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if begin.elapsed() > PATIENCE {
                // The test fails; the process must not outlive it.
                let _ = child.kill();
                panic!("the process that serves the mount does not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Unmounts it and waits until the image is closed.
    pub(crate) fn unmount(mut self) {
        unmount(self.dir());
        assert!(self.wait().success(), "the image is closed without an error");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.child.is_some() {
            let _ = tools::run("umount", &[Path::new("-l"), self.dir()]);
            if std::thread::panicking() {
                if let Some(child) = &mut self.child {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            } else {
                self.wait();
            }
        }
    }
}

/// Unmounts a directory. A process that another test has just forked has copies of this one's files until it runs its own
/// program, and keeps the mount busy so long.
pub(crate) fn unmount(dir: &Path) {
    let begin = Instant::now();
    while let Err(error) = tools::run("umount", &[dir]) {
        assert!(error.contains("busy") && begin.elapsed() < PATIENCE, "{error}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a program to its end; panics with what it said if it fails.
pub(crate) fn run(program: &str, arguments: &[&str], dir: &Path) -> String {
    let output = tools::command(program).args(arguments).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", tools::words(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
