//! The real e2fsck, asked a million times.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use blockdev::BlockDevice;
use ext2_image::check::{Checker, Finding, Options};
use tempfile::TempDir;

use crate::{Scratch, tools};

/// Runs of `e2fsck -fn` after `e2fsck -fp`: one for so many. Our own check looks at every one.
const TWICE: u64 = 16;

/// One image file in memory, written anew for each state, and the program that mends it: `E2DAX_E2FSCK` where that names
/// one (a build without shared libraries starts in half the time).
#[derive(Debug)]
pub(super) struct External {
    program: PathBuf,
    /// Holds the image until the sweep is over.
    _folder: TempDir,
    path: PathBuf,
    file: File,
    checker: Checker,
    asked: u64,
}

impl External {
    /// A place for images, in memory where there is one.
    pub(super) fn new() -> Result<Self, String> {
        let words = |error: std::io::Error| error.to_string();
        let named = std::env::var_os("E2DAX_E2FSCK").map(PathBuf::from);
        let program = named.or_else(|| tools::find("e2fsck")).ok_or("there is no e2fsck")?;
        let shm = Path::new("/dev/shm");
        let folder = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        let folder = folder.map_err(words)?;
        let path = folder.path().join("state.img");
        let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(words)?;
        Ok(Self { program, _folder: folder, path, file, checker: Checker::new(), asked: 0 })
    }

    /// What `e2fsck -fp` makes of an image; nothing when it stops. What it made is clean.
    ///
    /// # Errors
    /// What e2fsck or our check does not like about what e2fsck made.
    pub(super) fn mend(&mut self, image: &[u8]) -> Result<Option<Scratch>, String> {
        if !self.run("-fp", image)? {
            return Ok(None);
        }
        self.asked += 1;
        let mended = self.read(image.len())?;
        if self.asked.is_multiple_of(TWICE) {
            tools::e2fsck_fn(&self.path).map_err(|words| format!("not clean after e2fsck -p: {words}"))?;
        }
        let mut first = None;
        let mut sink = |finding: &Finding| first = first.take().or(Some(finding.to_string()));
        match self.checker.check(&mended, &Options::default(), &mut sink) {
            Ok(summary) if summary.is_clean() => Ok(Some(mended)),
            _ => Err(format!("our check is not content with what e2fsck -p made: {first:?}")),
        }
    }

    /// What `e2fsck -fy` makes of an image, as a person would who says yes to everything.
    pub(super) fn mend_with_a_person(&mut self, image: &[u8]) -> Result<Scratch, String> {
        if !self.run("-fy", image)? {
            return Err("e2fsck -fy does not mend it".to_owned());
        }
        self.read(image.len())
    }

    /// Whether e2fsck, as it is told, leaves the image without a fault.
    fn run(&mut self, how: &str, image: &[u8]) -> Result<bool, String> {
        let words = |error: std::io::Error| error.to_string();
        self.file.write_all_at(image, 0).map_err(words)?;
        let mut command = Command::new(&self.program);
        // What it says is read by nobody, and costs.
        command.arg(how).arg(&self.path).env_clear().env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().map_err(words)?;
        Ok(matches!(status.code(), Some(0 | 1)))
    }

    fn read(&self, len: usize) -> Result<Scratch, String> {
        let mut mended = vec![0; len];
        self.file.read_exact_at(&mut mended, 0).map_err(|error| error.to_string())?;
        let device = Scratch::new(mended);
        debug_assert_eq!(device.size(), len as u64);
        Ok(device)
    }
}
