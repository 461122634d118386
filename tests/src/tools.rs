//! Programs of e2fsprogs and others, run and believed only when they say that all is well.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// Folders that are searched besides `PATH`, where a user's `PATH` leaves out the tools of the administrator.
const SBIN: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Whether a program is installed.
pub fn have(tool: &str) -> bool {
    find(tool).is_some()
}

/// Where a program is installed.
pub fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = SBIN.iter().map(|folder| Path::new(folder).to_path_buf());
    std::env::split_paths(&path).chain(sbin).map(|folder| folder.join(tool)).find(|file| file.is_file())
}

/// A command with the messages of the C locale, no input, and the folders of the administrator in its `PATH`.
pub fn command(tool: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(tool);
    command.env("LC_ALL", "C").env("PATH", format!("{path}:{}", SBIN.join(":"))).stdin(Stdio::null());
    command
}

/// Both outputs of a finished program as text.
pub fn words(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// Runs a program to its end and gives its standard output.
///
/// # Errors
/// What it said, where it did not start or did not exit with 0.
pub fn run<S: AsRef<OsStr>>(tool: &str, args: &[S]) -> Result<Vec<u8>, String> {
    let output = command(tool).args(args).output().map_err(|error| format!("{tool}: {error}"))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("{tool}: {}: {}", output.status, words(&output)))
    }
}

/// `e2fsck -fn`: whether the file system has no fault at all.
///
/// # Errors
/// What e2fsck said, where its exit code is not 0.
pub fn e2fsck_fn(image: &Path) -> Result<(), String> {
    run("e2fsck", &[OsStr::new("-fn"), image.as_os_str()]).map(|_| ())
}

/// `e2fsck -fp`: repairs what needs no question. Gives what it said.
///
/// # Errors
/// What e2fsck said, where it left something that needs a person (its exit code is neither 0 nor 1).
pub fn e2fsck_p(image: &Path) -> Result<String, String> {
    let output =
        command("e2fsck").arg("-fp").arg(image).output().map_err(|error| format!("e2fsck: {error}"))?;
    match output.status.code() {
        Some(0 | 1) => Ok(words(&output)),
        _ => Err(format!("e2fsck -fp: {}: {}", output.status, words(&output))),
    }
}

/// `mke2fs -q -F` with the arguments after it; panics where it fails.
pub fn mke2fs<S: AsRef<OsStr>>(args: &[S]) {
    let mut all = vec![OsStr::new("-q"), OsStr::new("-F")];
    all.extend(args.iter().map(AsRef::as_ref));
    run("mke2fs", &all).unwrap_or_else(|error| panic!("{error}"));
}

/// Runs one command of debugfs on an image, read-only, and gives what it prints.
///
/// # Errors
/// What debugfs said, where it did not open the image. A command that fails inside debugfs prints so.
pub fn debugfs(image: &Path, request: &str) -> Result<Vec<u8>, String> {
    run("debugfs", &[OsStr::new("-R"), OsStr::new(request), image.as_os_str()])
}
