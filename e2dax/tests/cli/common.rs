//! Running the command.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use e2dax_tests::golden;
use tempfile::TempDir;

/// A folder with golden images in it, in which the command is run.
pub(crate) struct Folder(TempDir);

/// What a run of the command gave.
pub(crate) struct Run(Output);

/// Waits until a process sleeps for something to come from outside: not once between two steps of its work, and not for a
/// disk, which has a state of its own.
#[track_caller]
pub(crate) fn is_waiting(pid: u32) {
    let begin = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < 10 {
        assert!(begin.elapsed() < Duration::from_secs(20), "process {pid} goes on");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // The state follows the name, which may hold any byte.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        in_a_row = if state == Some('S') { in_a_row + 1 } else { 0 };
        sleep(Duration::from_millis(10));
    }
}

impl Folder {
    /// With these golden images, each as `NAME.img`.
    pub(crate) fn with(images: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in images {
            golden::golden_path(name, folder.path());
        }
        Self(folder)
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    /// The names in it, in order.
    pub(crate) fn names(&self) -> Vec<std::ffi::OsString> {
        let entries = std::fs::read_dir(self.root()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    /// The command, not yet run, for the odd case.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_e2dax"));
        command.args(arguments).current_dir(self.0.path()).env_remove("E2DAX_LOG").stdin(Stdio::null());
        command
    }

    /// Runs the command.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Run {
        Run(self.command(arguments).output().unwrap())
    }

    /// Runs the command with bytes on its standard input.
    pub(crate) fn run_with<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Run {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read all of it is not wrong.
        let _ = stdin.write_all(input);
        drop(stdin);
        Run(child.wait_with_output().unwrap())
    }
}

impl Run {
    /// The standard output as text.
    pub(crate) fn out(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    /// The standard output.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0.stdout
    }

    /// The standard error as text.
    pub(crate) fn err(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    /// The exit code; a run that a signal ended has none.
    #[track_caller]
    pub(crate) fn code(&self) -> i32 {
        self.0.status.code().expect("the command ends by itself")
    }

    /// The output of a run that went well and had nothing to say.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code(), self.err().as_str()), (0, ""), "{}", self.out());
        self.out()
    }

    /// The message of a run that failed with this code.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> String {
        assert_eq!(self.code(), code, "{}{}", self.out(), self.err());
        let message = self.err();
        assert!(message.starts_with("e2dax: ") || code == 2, "{message}");
        message
    }
}
